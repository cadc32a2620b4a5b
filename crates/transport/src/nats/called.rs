use std::{fmt, str::FromStr};

use super::subject::{InvalidName, check_name};
use crate::header::Header;

/// Instance and function as one subject carries them: joined by a dot, while both may hold dots themselves (a version
/// does, and so does the method of a resource).
///
/// This crate knows no WIT, so it cannot tell for sure where one ends: [`header`](Self::header) is right for every name
/// but those whose version has a pre-release of several identifiers (`1.0.0-rc.beta`); who knows the interfaces looks
/// each of the [`candidates`](Self::candidates) up instead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CalledName(Box<str>);

impl CalledName {
    /// The name as it came.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Instance and function by the grammar of WIT: a function is one name, or the two of a method, and names begin with
    /// a letter.
    pub fn header(&self) -> Header {
        let end = self.instance_end();
        let (instance, function) = self.0.split_at_checked(end).unwrap_or(("", &self.0));
        Header { instance: instance.into(), function: function.strip_prefix('.').unwrap_or(function).into() }
    }

    /// Every way to divide the name, the longest instance first, that without an instance last.
    pub fn candidates(&self) -> impl Iterator<Item = Header> {
        let divided = self.0.rmatch_indices('.').filter_map(|(dot, _)| {
            let (instance, function) = self.0.split_at_checked(dot)?;
            Some(Header { instance: instance.into(), function: function.strip_prefix('.')?.into() })
        });
        divided.chain(std::iter::once(Header { instance: String::new(), function: self.0.to_string() }))
    }

    /// How long the instance is, in bytes: 0, or up to a dot.
    fn instance_end(&self) -> usize {
        let name = &*self.0;
        // A name without a colon has no package: a function at the root of a world.
        if !name.contains(':') {
            return 0;
        }
        let first_dot = |from: usize| {
            let rest = name.get(from..)?;
            rest.find('.').map(|dot| from + dot)
        };
        let Some(mut end) = first_dot(name.find('@').unwrap_or(0)) else {
            return 0;
        };
        if name.contains('@') {
            // `@major.minor.patch`: two more numbers, the last perhaps with a pre-release.
            while let Some(next) = first_dot(end + 1) {
                let continues = name.as_bytes().get(end + 1).is_some_and(u8::is_ascii_digit);
                if !continues {
                    break;
                }
                end = next;
            }
        }
        end
    }
}

impl FromStr for CalledName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        check_name(name)?;
        Ok(Self(name.into()))
    }
}

impl fmt::Display for CalledName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_divided_as_wit_forms_them() {
        for (name, instance, function) in [
            ("run", "", "run"),
            ("r.m", "", "r.m"),
            ("a:b/c.f", "a:b/c", "f"),
            ("a:b/c.r.m", "a:b/c", "r.m"),
            ("a:b/c@1.2.3.f", "a:b/c@1.2.3", "f"),
            ("a:b/c@1.2.3.r.m", "a:b/c@1.2.3", "r.m"),
            ("wrpc:keyvalue/store@0.2.0-draft.get", "wrpc:keyvalue/store@0.2.0-draft", "get"),
            ("wrpc:keyvalue/store@0.2.0-draft.bucket.get", "wrpc:keyvalue/store@0.2.0-draft", "bucket.get"),
            ("a:b/c@1.0.0-rc.1.f", "a:b/c@1.0.0-rc.1", "f"),
        ] {
            let called: CalledName = name.parse().unwrap();
            let expected = Header { instance: instance.into(), function: function.into() };
            assert_eq!(called.header(), expected, "{name}");
            assert!(called.candidates().any(|candidate| candidate == expected), "{name}");
        }
    }

    #[test]
    fn every_division_is_a_candidate() {
        let called: CalledName = "a:b/c@1.0.0-rc.beta.get".parse().unwrap();
        let all: Vec<_> = called.candidates().map(|header| header.to_string()).collect();
        assert_eq!(
            all,
            [
                "a:b/c@1.0.0-rc.beta#get",
                "a:b/c@1.0.0-rc#beta.get",
                "a:b/c@1.0#0-rc.beta.get",
                "a:b/c@1#0.0-rc.beta.get",
                "#a:b/c@1.0.0-rc.beta.get"
            ]
        );
    }
}
