use super::*;
use crate::audit::verify;

fn event(number: u64) -> Event {
    Event::IssueRefused { node: "n".to_owned(), entry: number.to_string(), reason: String::new() }
}

impl LogFile {
    /// Lets every write fail, as on a full disk, until the returned function is called.
    pub(in crate::audit) fn fill_disk(&mut self) -> impl FnOnce() + use<> {
        let (path, hidden) = (self.path.clone(), self.path.with_extension("hidden"));
        self.file = File::open(&path).unwrap();
        fs::rename(&path, &hidden).unwrap();
        move || fs::rename(hidden, path).unwrap()
    }
}

fn grow(file: &mut LogFile, count: u64) {
    for number in 0..count {
        file.append(SystemTime::UNIX_EPOCH, &event(number)).unwrap();
        file.commit().unwrap();
    }
}

#[test]
fn a_log_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, found) = LogFile::open(folder.path()).unwrap();
    assert_eq!(found, Found::Nothing);
    grow(&mut file, 3);
    let head = file.head();
    drop(file);
    let (mut file, found) = LogFile::open(folder.path()).unwrap();
    assert_eq!((found, file.head()), (Found::Whole, head));
    grow(&mut file, 2);
    assert_eq!(verify(folder.path(), None).unwrap().head, file.head());
    let mode = fs::metadata(Segment::named(folder.path(), 1).path).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn the_chain_goes_on_over_files_and_without_archived_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = LogFile::open(folder.path()).unwrap();
    file.segment_bytes = 500;
    grow(&mut file, 20);
    let all = segments(folder.path()).unwrap();
    assert!(all.len() > 3, "{all:?}");
    let verified = verify(folder.path(), None).unwrap();
    assert_eq!((verified.first, verified.head.records, verified.files), (1, 20, all.len()));

    fs::remove_file(&all[0].path).unwrap();
    let verified = verify(folder.path(), None).unwrap();
    assert_eq!((verified.first, verified.head), (all[1].first, file.head()));
    let head = file.head();
    drop(file);
    assert_eq!(LogFile::open(folder.path()).unwrap().0.head(), head);

    fs::remove_file(&all[2].path).unwrap();
    verify(folder.path(), None).unwrap_err();
}

#[test]
fn a_crash_before_the_first_byte_of_a_file_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = LogFile::open(folder.path()).unwrap();
    grow(&mut file, 3);
    let head = file.head();
    fs::write(Segment::named(folder.path(), 4).path, "").unwrap();
    let (mut file, found) = LogFile::open(folder.path()).unwrap();
    assert_eq!((found, file.head()), (Found::Whole, head));
    grow(&mut file, 1);
    assert_eq!(verify(folder.path(), None).unwrap().files, 2);
}

#[test]
fn a_batch_that_failed_is_as_if_it_had_never_been() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = LogFile::open(folder.path()).unwrap();
    grow(&mut file, 3);
    let (head, path) = (file.head(), Segment::named(folder.path(), 1).path);
    let room = file.fill_disk();
    for _ in 0..2 {
        file.append(SystemTime::UNIX_EPOCH, &event(9)).unwrap();
        file.commit().unwrap_err();
        assert_eq!(file.head(), head);
    }
    room();
    // A part of the batch is on the disk.
    let mut half = fs::read(&path).unwrap();
    half.extend(b"{\"n\":4,");
    fs::write(&path, half).unwrap();
    grow(&mut file, 2);
    assert_eq!(verify(folder.path(), None).unwrap().head, file.head());
    assert_eq!(file.head().records, 5);
}

#[test]
fn a_log_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    grow(&mut LogFile::open(folder.path()).unwrap().0, 1);
    let path = Segment::named(folder.path(), 1).path;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o662)).unwrap();
    assert!(matches!(LogFile::open(folder.path()), Err(OpenError::Exposed { mode: 0o662, .. })));
}

#[test]
fn a_long_log_is_opened_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = LogFile::open(folder.path()).unwrap();
    for number in 0..20_000 {
        file.append(SystemTime::UNIX_EPOCH, &event(number)).unwrap();
        if file.is_full() {
            file.commit().unwrap();
        }
    }
    file.commit().unwrap();
    assert!(file.length > 2 << 20, "{}", file.length);
    assert_eq!(LogFile::open(folder.path()).unwrap().0.head(), file.head());
}
