//! What a cgroup path says: the systemd unit or the container.
//!
//! Only the unified hierarchy (cgroup v2) is read, and of it only the parts that nobody but root lays out: the slices, and the first thing
//! below them. Below that a unit's or container's own processes may make folders of any name. For the same reason a rootless container,
//! whose folder lies below its user's own service, is no container here: its user could give that folder any name.

/// Longer names are no unit of systemd's.
const MAX_UNIT: usize = 255;

/// The selectors that the text of `/proc/PID/cgroup` earns.
pub(super) fn selectors(text: &str) -> Vec<(&'static str, String)> {
    let mut unified = text.lines().filter_map(|line| line.strip_prefix("0::"));
    let (Some(path), None) = (unified.next(), unified.next()) else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(unit) = unit(path) {
        found.push(("systemd:id", unit.to_owned()));
    }
    if let Some((engine, id)) = container(path) {
        found.push((engine, id.to_owned()));
    }
    found
}

/// The segments of an absolute path without empty, dot or dot-dot ones: those of a process outside our own cgroup namespace begin with `..`.
fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<_> = path.strip_prefix('/')?.split('/').collect();
    let plain = |segment: &&str| !segment.is_empty() && *segment != "." && *segment != "..";
    segments.iter().all(plain).then_some(segments)
}

/// The system unit: the first segment that is no slice.
fn unit(path: &str) -> Option<&str> {
    let segments = segments(path)?;
    let unit = *segments.iter().find(|segment| !segment.ends_with(".slice"))?;
    let (name, kind) = unit.rsplit_once('.')?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '-' | '\\' | '@');
    let is_unit = matches!(kind, "service" | "scope") && !name.is_empty() && unit.len() <= MAX_UNIT;
    (is_unit && unit.chars().all(legal)).then_some(unit)
}

/// Engine and id of a container that root runs, with systemd's or with the plain cgroup driver.
fn container(path: &str) -> Option<(&'static str, &str)> {
    let segments = segments(path)?;
    match segments.as_slice() {
        ["system.slice", scope, ..] => {
            id(scope.strip_prefix("docker-")?.strip_suffix(".scope")?).map(|id| ("docker:id", id))
        }
        ["docker", name, ..] => id(name).map(|id| ("docker:id", id)),
        ["machine.slice", scope, ..] => {
            id(scope.strip_prefix("libpod-")?.strip_suffix(".scope")?).map(|id| ("podman:id", id))
        }
        ["libpod_parent", name, ..] => id(name.strip_prefix("libpod-")?).map(|id| ("podman:id", id)),
        _ => None,
    }
}

/// 64 lower-case hexadecimal digits.
fn id(text: &str) -> Option<&str> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (text.len() == 64 && digits).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn of(path: &str) -> Vec<(&'static str, String)> {
        selectors(&format!("0::{path}\n"))
    }

    fn unit_is(path: &str, unit: &str) {
        assert!(of(path).contains(&("systemd:id", unit.to_owned())), "{path}: {:?}", of(path));
    }

    #[test]
    fn a_unit_is_the_first_thing_below_the_slices() {
        unit_is("/system.slice/nginx.service", "nginx.service");
        unit_is("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service");
        unit_is("/system.slice/postgresql@15-main.service/worker", "postgresql@15-main.service");
        unit_is("/init.scope", "init.scope");
        unit_is("/user.slice/user-1000.slice/session-3.scope", "session-3.scope");
    }

    #[test]
    fn a_folder_that_a_user_made_is_no_unit() {
        let own = "/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service";
        unit_is(own, "user@1000.service");
        assert_eq!(of(own).len(), 1);
        unit_is("/system.slice/evil.service/system.slice/nginx.service", "evil.service");
    }

    #[test]
    fn a_container_of_root_is_named_with_either_driver() {
        for (path, engine) in [
            (format!("/system.slice/docker-{ID}.scope"), "docker:id"),
            (format!("/system.slice/docker-{ID}.scope/inner/docker-x.scope"), "docker:id"),
            (format!("/docker/{ID}"), "docker:id"),
            (format!("/machine.slice/libpod-{ID}.scope/container"), "podman:id"),
            (format!("/libpod_parent/libpod-{ID}"), "podman:id"),
        ] {
            assert!(of(&path).contains(&(engine, ID.to_owned())), "{path}");
        }
    }

    #[test]
    fn forged_container_folders_earn_nothing() {
        for path in [
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"),
            format!("/system.slice/evil.service/docker-{ID}.scope"),
            format!("/system.slice/evil.service/docker/{ID}"),
            format!("/system.slice/docker-{}.scope", ID.to_uppercase()),
            format!("/system.slice/docker-{ID}0.scope"),
            format!("/system.slice/docker-{ID}.service"),
            format!("/machine.slice/docker-{ID}.scope"),
            format!("/../docker/{ID}"),
            format!("/docker//{ID}"),
        ] {
            assert!(of(&path).iter().all(|(engine, _)| *engine == "systemd:id"), "{path}: {:?}", of(&path));
        }
    }

    #[test]
    fn only_one_unified_line_is_believed() {
        assert_eq!(selectors("12:pids:/system.slice/a.service\n1:name=systemd:/system.slice/a.service\n"), []);
        assert_eq!(selectors("0::/a.service\n0::/b.service\n"), []);
        assert_eq!(selectors("0::/\n"), []);
        assert_eq!(selectors(""), []);
        assert_eq!(of("/system.slice/a b.service"), []);
        assert_eq!(of("relative/a.service"), []);
    }
}
