//! `[workload_api]` and `[[files]]`: what the node gives to its own machine.

use std::path::{Component, Path};

use crate::config::reader::{Found, Reader, Section};
use crate::files::{BundleScope, FileNames, FilesConfig, Notice, Owner, Signal};
use crate::workload::{WorkloadConfig, WorkloadLimits};

/// Everybody on the machine may connect: callers are attested.
const SOCKET_MODE: u32 = 0o777;
/// For their owner alone: one of them is a key.
const FILE_MODE: u32 = 0o600;

/// `[workload_api]`; nothing where the table is not there.
pub(super) fn workload(mut section: Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<WorkloadConfig> {
    if !section.is_present() {
        return None;
    }
    let default = WorkloadLimits::default();
    let socket = section.required_text("socket", reader).map(|found| base.join(strip_scheme(&found.value)));
    let mode = mode(&mut section, 0o777, reader).unwrap_or(SOCKET_MODE);
    let uids = section.numbers("uids", 0..=u64::from(u32::MAX), reader);
    let mut number = |key, most: u64| section.number(key, 1..=most, reader);
    let limits = WorkloadLimits {
        connections: size(number("connections", 1 << 20)).unwrap_or(default.connections),
        connections_per_uid: size(number("connections_per_uid", 1 << 20)).unwrap_or(default.connections_per_uid),
        streams_per_uid: size(number("streams_per_uid", 1 << 20)).unwrap_or(default.streams_per_uid),
        requests_per_second: number("requests_per_second", 1 << 20)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default.requests_per_second),
    };
    let login_audiences = section.texts("login_audiences", reader).into_iter().map(|found| found.value).collect();
    section.finish(reader);
    let uids = uids.into_iter().filter_map(|uid| u32::try_from(uid).ok()).collect();
    Some(WorkloadConfig { socket: socket?, mode, uids, login_audiences, limits })
}

fn size(number: Option<u64>) -> Option<usize> {
    number.and_then(|number| usize::try_from(number).ok())
}

/// Clients write `unix:///run/x.sock`; both spellings of it are taken here.
fn strip_scheme(text: &str) -> &str {
    text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")).unwrap_or(text)
}

/// Every `[[files]]`.
pub(super) fn files(sections: Vec<Section<'_, '_>>, base: &Path, reader: &mut Reader<'_>) -> Vec<FilesConfig> {
    let files: Vec<_> = sections.into_iter().filter_map(|section| one(section, base, reader)).collect();
    for (index, one) in files.iter().enumerate() {
        if files.iter().take(index).any(|other| other.folder == one.folder) {
            reader.mistake(None, format!("two [[files]] have the folder `{}`", one.folder.display()), None);
        }
    }
    files
}

fn one(mut section: Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<FilesConfig> {
    let spiffe_id = section.required_text("spiffe_id", reader).and_then(|found| {
        let parsed = portcullis_identity::parse_spiffe_id(&found.value);
        parsed.map_err(|error| reader.mistake(Some(found.at), format!("`files.spiffe_id`: {error}"), None)).ok()
    });
    let folder = section.required_text("folder", reader).map(|found| base.join(found.value));
    let default = FileNames::default();
    let names = FileNames {
        certificate: name(&mut section, "certificate", reader).unwrap_or(default.certificate),
        key: name(&mut section, "key", reader).unwrap_or(default.key),
        bundle: name(&mut section, "bundle", reader).unwrap_or(default.bundle),
    };
    let FileNames { certificate, key, bundle } = &names;
    if certificate == key || key == bundle || certificate == bundle {
        reader.mistake(section.at(), "`files` has two files of one name".to_owned(), None);
    }
    let owner = section.text("owner", reader).and_then(|found| {
        let parsed = found.value.parse::<Owner>();
        parsed.map_err(|error| reader.mistake(Some(found.at), format!("`files.owner`: {error}"), None)).ok()
    });
    let mode = mode(&mut section, 0o777, reader).unwrap_or(FILE_MODE);
    let federated = section.boolean("danger_federated_bundles", reader).unwrap_or(false);
    let notice = notice(&mut section, base, reader);
    section.finish(reader);
    Some(FilesConfig {
        spiffe_id: spiffe_id?,
        folder: folder?,
        names,
        owner,
        mode,
        bundle: if federated { BundleScope::DangerFederated } else { BundleScope::Own },
        notice,
    })
}

/// A plain file name: it must lie in the folder, and not be one of ours.
fn name(section: &mut Section<'_, '_>, key: &'static str, reader: &mut Reader<'_>) -> Option<String> {
    let Found { value, at } = section.text(key, reader)?;
    let mut parts = Path::new(&value).components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(name)), None) if name == value.as_str());
    if plain && !value.starts_with("..") {
        return Some(value);
    }
    reader.mistake(Some(at), format!("`files.{key}`: `{value}` is not a plain file name"), None);
    None
}

/// An octal mode, as a string: TOML has no octal number that reads like one of `chmod`.
fn mode(section: &mut Section<'_, '_>, most: u32, reader: &mut Reader<'_>) -> Option<u32> {
    let Found { value, at } = section.text("mode", reader)?;
    match u32::from_str_radix(value.strip_prefix("0o").unwrap_or(&value), 8) {
        Ok(mode) if mode <= most => Some(mode),
        Ok(_) | Err(_) => {
            let hint = Some("write it as for chmod, such as \"0600\"".to_owned());
            reader.mistake(Some(at), format!("`mode`: `{value}` is not a file mode"), hint);
            None
        }
    }
}

/// `command = [..]`, or `pid_file` with `signal`.
fn notice(section: &mut Section<'_, '_>, base: &Path, reader: &mut Reader<'_>) -> Option<Notice> {
    let mut command = section.texts("command", reader).into_iter().map(|found| found.value);
    let pid_file = section.text("pid_file", reader);
    let signal = section.text("signal", reader);
    let at = signal.as_ref().map(|found| found.at.clone());
    let parsed = signal.and_then(|found| {
        let parsed = found.value.parse::<Signal>();
        parsed.map_err(|error| reader.mistake(Some(found.at), format!("`files.signal`: {error}"), None)).ok()
    });
    match (command.next(), pid_file) {
        (Some(_), Some(found)) => {
            reader.mistake(Some(found.at), "`files` has a command and a pid file: keep one".to_owned(), None);
            None
        }
        (Some(program), None) => Some(Notice::Command { program, arguments: command.collect() }),
        (None, Some(found)) => {
            let pid_file = base.join(found.value);
            Some(Notice::Signal { pid_file, signal: parsed.unwrap_or(Signal::Hangup) })
        }
        (None, None) => {
            if at.is_some() {
                reader.mistake(at, "`files.signal` needs `files.pid_file`".to_owned(), None);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{AgentConfig, Program};
    use crate::files::{BundleScope, Notice, Signal};

    fn agent(text: &str) -> Result<AgentConfig, String> {
        match Program::parse("/etc/agent.toml", text) {
            Ok(Program::Agent(agent)) => Ok(*agent),
            Ok(Program::Sidecar(_)) => panic!("a sidecar"),
            Err(mistakes) => Err(mistakes.iter().map(|mistake| format!("{mistake}\n")).collect()),
        }
    }

    #[test]
    fn a_good_file_becomes_types() {
        let agent = agent(
            r#"
[node]
state = "state"
[workload_api]
socket = "unix:///run/portcullis/api.sock"
mode = "0770"
uids = [0, 1000]
streams_per_uid = 8
[[files]]
spiffe_id = "spiffe://a.test/nats"
folder = "nats"
key = "tls.key"
owner = "4711:4712"
mode = "0640"
command = ["nats-server", "--signal", "reload"]
[[files]]
spiffe_id = "spiffe://a.test/pg"
folder = "/var/lib/pg"
danger_federated_bundles = true
pid_file = "/run/pg.pid"
signal = "SIGUSR1"
"#,
        )
        .unwrap();
        let workload = agent.workload.unwrap();
        assert_eq!((workload.socket.as_path(), workload.mode), (Path::new("/run/portcullis/api.sock"), 0o770));
        assert_eq!((workload.uids, workload.limits.streams_per_uid), (vec![0, 1000], 8));
        let [nats, postgres] = agent.files.as_slice() else { panic!("two tables") };
        assert_eq!((nats.folder.as_path(), nats.names.key.as_str()), (Path::new("/etc/nats"), "tls.key"));
        assert_eq!(nats.names.certificate, "svid.pem");
        assert_eq!((nats.owner.unwrap().gid, nats.mode, nats.bundle), (4712, 0o640, BundleScope::Own));
        assert!(
            matches!(&nats.notice, Some(Notice::Command { program, arguments }) if program == "nats-server" && arguments.len() == 2)
        );
        assert!(matches!(&postgres.notice, Some(Notice::Signal { signal: Signal::User1, .. })));
        assert_eq!((postgres.mode, postgres.bundle), (0o600, BundleScope::DangerFederated));
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let mistakes = agent(
            r#"
[workload_api]
mode = "9"
uids = [-1]
streams_per_uid = 0
sokcet = "x"
[[files]]
spiffe_id = "http://a.test/x"
folder = "f"
key = "../k"
bundle = "svid.pem"
owner = "nobody-of-this-name"
command = ["x"]
pid_file = "y"
signal = "SIGKILL"
[[files]]
spiffe_id = "spiffe://a.test/y"
folder = "g"
signal = "SIGHUP"
[[files]]
spiffe_id = "spiffe://a.test/y"
folder = "g"
"#,
        )
        .unwrap_err();
        for part in [
            "`node.state` is missing",
            "`workload_api.socket` is missing",
            "`9` is not a file mode",
            "uids",
            "streams_per_uid",
            "sokcet",
            "`files.spiffe_id`",
            "`../k` is not a plain file name",
            "two files of one name",
            "`files.owner`",
            "a command and a pid file",
            "`SIGKILL` is not",
            "needs `files.pid_file`",
            "two [[files]] have the folder",
        ] {
            assert!(mistakes.contains(part), "`{part}` is not in\n{mistakes}");
        }
    }

    #[test]
    fn an_agent_has_something_to_do() {
        let mistakes = agent("[node]\nstate = \"s\"\n[admin]\nlisten = \"127.0.0.1:1\"\n[workload_api]\n").unwrap_err();
        assert!(mistakes.contains("`workload_api.socket` is missing"), "{mistakes}");
    }
}
