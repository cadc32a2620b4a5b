use std::time::SystemTime;

use base64::Engine as _;
use portcullis_identity::JwtKey;

use super::*;
use crate::audit::Event;
use crate::audit::file::LogFile;

struct Log {
    folder: tempfile::TempDir,
    file: LogFile,
    key: JwtKey,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (file, _) = LogFile::open(folder.path()).unwrap();
        let mut log = Self { folder, file, key: JwtKey::generate().unwrap() };
        let public_key = STANDARD.encode(log.key.authority(None).spki_der());
        log.append(&Event::HeadKey { kid: "k".to_owned(), public_key });
        log
    }

    fn append(&mut self, event: &Event) {
        self.file.append(SystemTime::UNIX_EPOCH, event).unwrap();
        self.file.commit().unwrap();
    }

    fn remembered(&self, head: Head, kid: &str) -> RememberedHead {
        let signature = self.key.sign_audit_head(head.records, &head.hash).unwrap();
        let signature: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        let hash = Hex(head.hash);
        let json = format!(
            r#"{{"ready":true,"audit":{{"records":{},"hash":"{hash}","signature":"{signature}","kid":"{kid}"}}}}"#,
            head.records
        );
        RememberedHead::parse(&json).unwrap()
    }

    fn path(&self) -> PathBuf {
        Segment::named(self.folder.path(), 1).path
    }

    fn verify(&self, remembered: &RememberedHead) -> Result<Verified, VerifyError> {
        verify(self.folder.path(), Some(remembered))
    }
}

#[test]
fn a_log_that_grew_still_holds_what_was_remembered() {
    let mut log = Log::new();
    log.append(&Event::Stopped);
    let head = log.file.head();
    log.append(&Event::Stopped);
    let verified = log.verify(&log.remembered(head, "k")).unwrap();
    assert_eq!((verified.head.records, verified.signature), (3, Some(Signature::Good)));
    let verified = log.verify(&log.remembered(head, "other")).unwrap();
    assert_eq!(verified.signature, Some(Signature::UnknownKey));
}

#[test]
fn a_cut_at_a_line_s_end_is_seen_by_who_remembers() {
    let mut log = Log::new();
    log.append(&Event::Stopped);
    log.append(&Event::Stopped);
    let remembered = log.remembered(log.file.head(), "k");
    let text = std::fs::read_to_string(log.path()).unwrap();
    let cut: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    std::fs::write(log.path(), cut).unwrap();
    assert_eq!(verify(log.folder.path(), None).unwrap().head.records, 2, "alone it looks whole");
    assert!(matches!(log.verify(&remembered), Err(VerifyError::Truncated { found: 2, remembered: 3 })));
}

#[test]
fn a_log_that_was_written_anew_is_seen_by_who_remembers() {
    let mut log = Log::new();
    log.append(&Event::Stopped);
    let head = log.file.head();
    let mut other = Log::new();
    other.append(&Event::Stopped);
    other.append(&Event::Stopped);
    assert!(matches!(other.verify(&log.remembered(head, "k")), Err(VerifyError::Rewritten(2))));
}

#[test]
fn a_head_that_nobody_signed_is_no_witness() {
    let mut log = Log::new();
    log.append(&Event::Stopped);
    let mut remembered = log.remembered(log.file.head(), "k");
    remembered.signature.clear();
    assert!(matches!(log.verify(&remembered), Err(VerifyError::Forged)));
}

#[test]
fn a_change_is_told_with_its_place() {
    let mut log = Log::new();
    (0..3).for_each(|_| log.append(&Event::Stopped));
    let text = std::fs::read_to_string(log.path()).unwrap();
    std::fs::write(log.path(), text.replacen("stopped", "skipped", 1)).unwrap();
    let error = verify(log.folder.path(), None).unwrap_err();
    assert!(matches!(error, VerifyError::Broken { line: 3, broken: Broken::Hash, .. }), "{error}");
}

#[test]
fn what_is_being_written_is_no_mistake() {
    let log = Log::new();
    let mut text = std::fs::read(log.path()).unwrap();
    text.extend(b"{\"n\":2");
    std::fs::write(log.path(), text).unwrap();
    assert_eq!(verify(log.folder.path(), None).unwrap().unfinished, 6);
}

#[test]
fn only_a_head_is_remembered() {
    for text in ["", "{}", "[]", r#"{"records":1}"#, r#"{"records":1,"hash":"00"}"#, r#"{"audit":null,"records":1}"#] {
        assert!(RememberedHead::parse(text).is_err(), "{text}");
    }
    assert!(verify(&tempfile::tempdir().unwrap().path().join("none"), None).is_err());
}
