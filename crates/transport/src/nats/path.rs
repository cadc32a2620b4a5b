use std::fmt;

/// How deep streams and futures may nest.
const DEEPEST: usize = 16;

/// Which value of a call bytes belong to: empty for the plain parameters or results, indices for a stream or future
/// within them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Box<[u32]>);

/// A text or a row of indices is no [`Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path has to be at most 16 indices of 32 bits")]
pub struct InvalidPath;

impl Path {
    /// The plain parameters or results.
    pub fn root() -> Self {
        Self::default()
    }

    /// Whether these are the plain parameters or results.
    pub const fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The indices, outermost first.
    pub const fn indices(&self) -> &[u32] {
        &self.0
    }

    /// Reads what follows `.params` or `.results` in a subject: nothing, or a dot and a decimal number for each index.
    /// One path has one spelling.
    pub(super) fn parse(suffix: &str) -> Result<Self, InvalidPath> {
        if suffix.is_empty() {
            return Ok(Self::root());
        }
        let tokens = suffix.strip_prefix('.').ok_or(InvalidPath)?;
        let indices: Vec<_> = tokens.split('.').take(DEEPEST + 1).map(index).collect::<Result<_, _>>()?;
        Self::try_from(indices)
    }

    /// Appends the path as it stands in a subject.
    pub(super) fn write(&self, subject: &mut String) {
        use fmt::Write as _;
        for index in &self.0 {
            // Writing to a string does not fail.
            let _ = write!(subject, ".{index}");
        }
    }
}

fn index(token: &str) -> Result<u32, InvalidPath> {
    let canonical = token == "0" || !token.starts_with('0');
    if !canonical || !token.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidPath);
    }
    token.parse().map_err(|_| InvalidPath)
}

impl TryFrom<Vec<u32>> for Path {
    type Error = InvalidPath;

    fn try_from(indices: Vec<u32>) -> Result<Self, InvalidPath> {
        if indices.len() > DEEPEST { Err(InvalidPath) } else { Ok(Self(indices.into())) }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        write!(f, "[{}]", text.strip_prefix('.').unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_canonical_indices_are_read() {
        assert_eq!(Path::parse(".1.0.4294967295").unwrap().indices(), [1, 0, u32::MAX]);
        for bad in [".", "1", ".1.", "..1", ".01", ".+1", ".-1", ".4294967296", ".*", ".x"] {
            assert_eq!(Path::parse(bad), Err(InvalidPath), "{bad}");
        }
        assert!(Path::parse(&".1".repeat(16)).is_ok());
        assert_eq!(Path::parse(&".1".repeat(17)), Err(InvalidPath));
    }

    proptest! {
        #[test]
        fn a_path_that_is_written_is_read(indices in proptest::collection::vec(any::<u32>(), 0..=16)) {
            let path = Path::try_from(indices).unwrap();
            let mut subject = String::new();
            path.write(&mut subject);
            prop_assert_eq!(Path::parse(&subject), Ok(path));
        }

        #[test]
        fn any_suffix_gets_an_answer(suffix: String) {
            if let Ok(path) = Path::parse(&suffix) {
                let mut again = String::new();
                path.write(&mut again);
                prop_assert_eq!(again, suffix);
            }
        }
    }
}
