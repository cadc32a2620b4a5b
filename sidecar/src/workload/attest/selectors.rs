//! What is known of a process: `unix:uid:1000` and the like.

use std::collections::BTreeSet;
use std::fmt;

/// What is attested of a process. Values come from the kernel alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors(BTreeSet<String>);

impl Selectors {
    pub(super) fn add(&mut self, name: &str, value: impl fmt::Display) {
        self.0.insert(format!("{name}:{value}"));
    }

    /// Whether everything that an entry demands is known. An entry that demands nothing is met by nobody.
    #[must_use]
    pub fn meet(&self, demanded: &BTreeSet<String>) -> bool {
        !demanded.is_empty() && demanded.is_subset(&self.0)
    }

    /// Whether `demanded` is known, be it nothing.
    pub(crate) fn include(&self, demanded: &BTreeSet<String>) -> bool {
        demanded.is_subset(&self.0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for Selectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, selector) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            // A path may hold anything.
            write!(f, "{}", selector.escape_debug())?;
        }
        Ok(())
    }
}

impl<T: Into<String>> FromIterator<T> for Selectors {
    fn from_iter<I: IntoIterator<Item = T>>(selectors: I) -> Self {
        Self(selectors.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demanded(selectors: &[&str]) -> BTreeSet<String> {
        selectors.iter().map(|&selector| selector.to_owned()).collect()
    }

    #[test]
    fn an_entry_is_met_by_all_of_its_selectors_and_never_by_none() {
        let known: Selectors = ["unix:uid:1000", "unix:gid:1000", "unix:path:/usr/bin/redis"].into_iter().collect();
        assert!(known.meet(&demanded(&["unix:uid:1000"])));
        assert!(known.meet(&demanded(&["unix:uid:1000", "unix:path:/usr/bin/redis"])));
        assert!(!known.meet(&demanded(&["unix:uid:1000", "unix:path:/usr/bin/redis2"])));
        assert!(!known.meet(&demanded(&["unix:uid:100"])));
        assert!(!known.meet(&demanded(&["unix:uid:1000", "docker:label:a:b"])));
        assert!(!known.meet(&demanded(&[])));
    }

    #[test]
    fn what_a_path_holds_cannot_forge_a_line_of_the_log() {
        let known: Selectors = ["unix:path:/tmp/a\nb"].into_iter().collect();
        assert_eq!(known.to_string(), "unix:path:/tmp/a\\nb");
    }
}
