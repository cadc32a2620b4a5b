//! Names of interfaces and which version may stand for which.

use std::{fmt, str::FromStr};

use semver::Version;

/// A versioned interface name: `namespace:package/interface@version`. It is also the wRPC instance name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName {
    /// `namespace:package/interface`.
    path: String,
    version: Option<Version>,
}

/// A text that names no interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an interface name (hint: NAMESPACE:PACKAGE/INTERFACE@VERSION)")]
pub struct InvalidInterfaceName(String);

impl InterfaceName {
    /// Whether a callee that offers `self` can serve a caller that imports `import`, as far as names say: the same interface, in the same
    /// version or a later compatible one. Compatible is the same major version, below 1.0.0 the same minor version, and below 0.1.0 or with
    /// a pre-release nothing but the same version.
    #[must_use]
    pub fn satisfies(&self, import: &Self) -> bool {
        if self.path != import.path {
            return false;
        }
        match (&self.version, &import.version) {
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
            (Some(offered), Some(imported)) => offered == imported || is_later_compatible(offered, imported),
        }
    }
}

fn is_later_compatible(offered: &Version, imported: &Version) -> bool {
    let track = |version: &Version| match (version.major, version.minor) {
        (0, 0) => None,
        (0, minor) => Some((0, minor)),
        (major, _) => Some((major, 0)),
    };
    let released = offered.pre.is_empty() && imported.pre.is_empty();
    released
        && track(offered).is_some()
        && track(offered) == track(imported)
        && offered.cmp_precedence(imported).is_ge()
}

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidInterfaceName(text.to_owned());
        let (path, version) = match text.split_once('@') {
            None => (text, None),
            Some((path, version)) => (path, Some(version.parse().map_err(|_| invalid())?)),
        };
        let (package, interface) = path.split_once('/').ok_or_else(invalid)?;
        let (namespace, package) = package.split_once(':').ok_or_else(invalid)?;
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if ![namespace, package, interface].into_iter().all(is_name) {
            return Err(invalid());
        }
        Ok(Self { path: path.to_owned(), version })
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match &self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_compatible_version_satisfies_an_import() {
        for (offered, imported, satisfied) in [
            ("a:b/c@1.0.0", "a:b/c@1.0.0", true),
            ("a:b/c@1.2.3", "a:b/c@1.0.0", true),
            ("a:b/c@1.0.0", "a:b/c@1.0.1", false),
            ("a:b/c@2.0.0", "a:b/c@1.0.0", false),
            ("a:b/c@0.2.3", "a:b/c@0.2.1", true),
            ("a:b/c@0.3.0", "a:b/c@0.2.1", false),
            ("a:b/c@0.0.2", "a:b/c@0.0.1", false),
            ("a:b/c@0.0.1", "a:b/c@0.0.1", true),
            ("a:b/c@1.1.0-rc.1", "a:b/c@1.0.0", false),
            ("a:b/c@1.1.0", "a:b/c@1.1.0-rc.1", false),
            ("a:b/c@1.1.0-rc.1", "a:b/c@1.1.0-rc.1", true),
            ("a:b/c@1.0.0+build", "a:b/c@1.0.0", true),
            ("a:b/c", "a:b/c", true),
            ("a:b/c", "a:b/c@1.0.0", false),
            ("a:b/c@1.0.0", "a:b/c", false),
            ("a:b/d@1.0.0", "a:b/c@1.0.0", false),
            ("x:b/c@1.0.0", "a:b/c@1.0.0", false),
        ] {
            let [offered, imported] = [offered, imported].map(|name| name.parse::<InterfaceName>().unwrap());
            assert_eq!(offered.satisfies(&imported), satisfied, "{offered} for {imported}");
        }
    }

    #[test]
    fn a_name_is_written_as_it_was_read() {
        for name in ["acme:billing/invoices@1.0.0", "a:b/c", "a:b-c/d@0.1.0-rc.2+x"] {
            assert_eq!(name.parse::<InterfaceName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in
            ["", "a", "a/b", "a:b", "a:b/c@", "a:b/c@1", "a:b/c/d", ":b/c", "a:/c", "a:b/", "a b:c/d", "a:b/c#d"]
        {
            assert!(text.parse::<InterfaceName>().is_err(), "{text}");
        }
    }
}
