//! Whose files they are.

use std::fs;
use std::str::FromStr;

/// A user and a group by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Not an owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOwner {
    /// It is not `USER` or `USER:GROUP`.
    #[error("`{0}` is not an owner: write `USER` or `USER:GROUP`, names or numbers")]
    Malformed(String),
    /// The machine's files do not name it.
    #[error("`{name}` is not in {file} (hint: write the number of a user or group that comes from elsewhere)")]
    Unknown {
        /// The name.
        name: String,
        /// Where it was looked up.
        file: &'static str,
    },
}

impl FromStr for Owner {
    type Err = InvalidOwner;

    /// Names are looked up in `/etc/passwd` and `/etc/group` alone.
    fn from_str(text: &str) -> Result<Self, InvalidOwner> {
        let read = |file| fs::read_to_string(file).unwrap_or_default();
        Self::parse(text, &read("/etc/passwd"), &read("/etc/group"))
    }
}

impl Owner {
    fn parse(text: &str, passwd: &str, group: &str) -> Result<Self, InvalidOwner> {
        let malformed = || InvalidOwner::Malformed(text.to_owned());
        let (user, of_group) = match text.split_once(':') {
            Some((_, "")) => return Err(malformed()),
            Some((user, of_group)) => (user, Some(of_group)),
            None => (text, None),
        };
        if user.is_empty() || text.matches(':').count() > 1 {
            return Err(malformed());
        }
        let (uid, primary) = match user.parse() {
            Ok(uid) => (uid, None),
            Err(_) => lookup(user, passwd, "/etc/passwd")?,
        };
        let gid = match (of_group, primary) {
            (Some(name), _) => match name.parse() {
                Ok(gid) => gid,
                Err(_) => lookup(name, group, "/etc/group")?.0,
            },
            (None, Some(gid)) => gid,
            (None, None) => return Err(malformed()),
        };
        Ok(Self { uid, gid })
    }
}

/// The third and fourth field of a name's line: its number, and in `/etc/passwd` its primary group.
fn lookup(name: &str, text: &str, file: &'static str) -> Result<(u32, Option<u32>), InvalidOwner> {
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        let number = fields.nth(1)?.parse().ok()?;
        Some((number, fields.next().and_then(|group| group.parse().ok())))
    });
    found.ok_or_else(|| InvalidOwner::Unknown { name: name.to_owned(), file })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnats:x:990:991::/:/bin/false\n";
    const GROUP: &str = "root:x:0:\nssl:x:110:nats\n";

    #[test]
    fn owners_are_names_or_numbers() {
        for (text, uid, gid) in
            [("nats", 990, 991), ("nats:ssl", 990, 110), ("nats:5", 990, 5), ("7:ssl", 7, 110), ("7:8", 7, 8)]
        {
            assert_eq!(Owner::parse(text, PASSWD, GROUP), Ok(Owner { uid, gid }), "{text}");
        }
        for text in ["", ":", "nats:", ":ssl", "7", "nobody", "nats:nobody", "a:b:c"] {
            assert!(Owner::parse(text, PASSWD, GROUP).is_err(), "{text}");
        }
    }
}
