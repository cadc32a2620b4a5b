//! The content of a set, in PEM (RFC 7468).

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_identity::Svid;
use zeroize::Zeroizing;

/// Characters to a line (RFC 7468 §2).
const LINE: usize = 64;

/// The three files. Compared by content.
#[derive(PartialEq, Eq)]
pub(super) struct FileSet {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
    pub(super) bundle: String,
    pub(super) not_after: SystemTime,
}

impl FileSet {
    /// The files of an SVID and of the authorities its peers are verified with.
    pub(super) fn new(svid: &Svid, authorities: &[&[u8]]) -> Self {
        let certificates = svid.chain().iter().map(|der| pem("CERTIFICATE", der));
        Self {
            certificate: certificates.collect(),
            key: Zeroizing::new(pem("PRIVATE KEY", svid.key().pkcs8())),
            bundle: authorities.iter().map(|der| pem("CERTIFICATE", der)).collect(),
            not_after: svid.not_after(),
        }
    }
}

impl std::fmt::Debug for FileSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSet").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = Zeroizing::new(STANDARD.encode(der));
    // Made large enough at once: growing would leave copies of a key behind.
    let mut pem = String::with_capacity(text.len() + text.len() / LINE + 2 * label.len() + 40);
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(LINE).unwrap_or((rest, ""));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_64_characters() {
        assert_eq!(pem("X", &[]), "-----BEGIN X-----\n-----END X-----\n");
        let text = pem("CERTIFICATE", &[0; 100]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.iter().map(|line| line.len()).collect::<Vec<_>>(), [27, 64, 64, 8, 25]);
        assert!(text.len() <= text.capacity());
    }
}
