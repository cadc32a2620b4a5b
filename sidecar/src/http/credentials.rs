//! The legacy service's credentials: a file that nobody else can read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, header};

use super::mapping::header_names::{forbidden, same};

/// The largest credentials file, in bytes: a few tokens.
const LARGEST: u64 = 64 * 1024;

/// Why credentials cannot be used. No text of the file is ever in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidCredentials {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("its mode is {mode:04o}, so that others can use it")]
    Exposed { mode: u32 },
    #[error("it is larger than {LARGEST} bytes")]
    TooLarge,
    #[error("it holds no credentials")]
    Empty,
    #[error("line {0} is not `bearer TOKEN`, `basic USER:PASSWORD` or `header NAME: VALUE`")]
    Malformed(usize),
    #[error("line {line}: header `{name}` cannot be set: {reason}")]
    Forbidden { line: usize, name: HeaderName, reason: &'static str },
    #[error("line {line}: header `{name}` is set twice")]
    Twice { line: usize, name: HeaderName },
}

impl InvalidCredentials {
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Exposed { .. } => Some("chmod 0600, and replace credentials that others may have read"),
            Self::Unreadable(_)
            | Self::NotAFile
            | Self::TooLarge
            | Self::Empty
            | Self::Malformed(_)
            | Self::Forbidden { .. }
            | Self::Twice { .. } => None,
        }
    }
}

/// Reads the headers of a credentials file. Their values are marked as sensitive, so that no log shows them.
pub(super) fn read(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, InvalidCredentials> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(InvalidCredentials::NotAFile);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(InvalidCredentials::Exposed { mode });
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST) {
        return Err(InvalidCredentials::TooLarge);
    }
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, InvalidCredentials> {
    let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (line, written) in (1..).zip(text.lines()) {
        let written = written.trim();
        if written.is_empty() || written.starts_with('#') {
            continue;
        }
        let (name, mut value) = parse_line(written).ok_or(InvalidCredentials::Malformed(line))?;
        if let Some(reason) = forbidden(&name) {
            return Err(InvalidCredentials::Forbidden { line, name, reason });
        }
        if headers.iter().any(|(other, _)| same(other, &name)) {
            return Err(InvalidCredentials::Twice { line, name });
        }
        value.set_sensitive(true);
        headers.push((name, value));
    }
    if headers.is_empty() { Err(InvalidCredentials::Empty) } else { Ok(headers) }
}

fn parse_line(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (kind, rest) = line.split_once(' ')?;
    let rest = rest.trim();
    let (name, value) = match kind {
        "bearer" => (header::AUTHORIZATION, format!("Bearer {rest}")),
        "basic" => {
            rest.split_once(':')?;
            (header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(rest)))
        }
        "header" => {
            let (name, value) = rest.split_once(':')?;
            (name.trim().parse().ok()?, value.trim().to_owned())
        }
        _ => return None,
    };
    let proper = !rest.is_empty() && !value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    Some((name, HeaderValue::try_from(value).ok().filter(|_| proper)?))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A file with this text and mode.
    pub(in crate::http) fn file(folder: &tempfile::TempDir, text: &str, mode: u32) -> PathBuf {
        let path = folder.path().join("credentials");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn headers(text: &str) -> Vec<(String, String)> {
        let headers = parse(text).unwrap();
        assert!(headers.iter().all(|(_, value)| value.is_sensitive()));
        let text = |(name, value): (HeaderName, HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
        headers.into_iter().map(text).collect()
    }

    fn told(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn each_line_is_a_header() {
        let text = "# the billing service\n\n  bearer abc.def \nheader X-Api-Key:  k: 1\n";
        assert_eq!(
            headers(text),
            [("authorization".to_owned(), "Bearer abc.def".to_owned()), ("x-api-key".to_owned(), "k: 1".to_owned())]
        );
        assert_eq!(
            headers("basic user:pass word:x"),
            [("authorization".to_owned(), "Basic dXNlcjpwYXNzIHdvcmQ6eA==".to_owned())]
        );
    }

    #[test]
    fn lines_that_are_no_credentials_are_refused_without_their_text() {
        for text in [
            "s3cret",
            "Bearer s3cret",
            "bearer",
            "bearer ",
            "basic s3cret",
            "header x",
            "header x:",
            "header x y: s3cret",
            "header x: s3cré",
        ] {
            assert_eq!(
                told(&format!("# ok\n{text}")),
                "line 2 is not `bearer TOKEN`, `basic USER:PASSWORD` or `header NAME: VALUE`",
                "{text}"
            );
        }
        assert_eq!(told("# nothing\n\n"), "it holds no credentials");
        assert_eq!(told("bearer a\nbasic b:c"), "line 2: header `authorization` is set twice");
        assert_eq!(told("header x-a: 1\nheader x_a: 2"), "line 2: header `x_a` is set twice");
        assert!(
            told("header proxy-authorization: x").starts_with("line 1: header `proxy-authorization` cannot be set: ")
        );
        assert!(told("header host: x").starts_with("line 1: header `host` cannot be set: "));
    }

    #[test]
    fn a_file_that_others_can_touch_is_refused() {
        for mode in [0o604, 0o640, 0o644, 0o620, 0o601, 0o777] {
            let folder = tempfile::tempdir().unwrap();
            let error = read(&file(&folder, "bearer x", mode)).unwrap_err();
            assert_eq!(error.to_string(), format!("its mode is {mode:04o}, so that others can use it"));
            assert!(error.hint().unwrap().starts_with("chmod 0600"));
        }
        for mode in [0o600, 0o400] {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(read(&file(&folder, "bearer x", mode)).unwrap().len(), 1, "{mode:o}");
        }
    }

    #[test]
    fn what_is_not_a_file_of_credentials_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(InvalidCredentials::NotAFile)));
        assert!(matches!(read(&folder.path().join("absent")), Err(InvalidCredentials::Unreadable(_))));
        let large = "bearer x\n".repeat(10_000);
        assert!(matches!(read(&file(&folder, &large, 0o600)), Err(InvalidCredentials::TooLarge)));
    }
}
