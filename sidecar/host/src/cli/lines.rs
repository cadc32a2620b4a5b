//! Standard input, line by line, without keeping the process from ending while nobody writes.

use std::{
    io::{self, BufRead, Read as _},
    thread,
};

use tokio::sync::mpsc;

/// Lines that are not empty, each at most `limit` bytes long; ends at end of input or with the first error.
pub(super) fn lines(limit: usize) -> io::Result<mpsc::Receiver<io::Result<Vec<u8>>>> {
    // One line waits while one is worked on: whoever writes is slowed to our pace.
    let (send, receive) = mpsc::channel(1);
    // A thread and not a task of the runtime, which would wait for it at the end.
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let line = line(&mut input, limit);
            let last = line.is_err();
            let Some(line) = line.transpose() else { return };
            if send.blocking_send(line).is_err() || last {
                return;
            }
        }
    })?;
    Ok(receive)
}

/// The next line that is not empty; nothing at end of input.
fn line(input: &mut impl BufRead, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    loop {
        let mut line = Vec::new();
        if input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.len() > limit && line.last() != Some(&b'\n') {
            return Err(io::Error::other(format!("a line is longer than {limit} bytes")));
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            return Ok(Some(text.to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn empty_lines_are_passed_over_and_the_last_needs_no_newline() {
        let mut input = &b"[1]\n\n  \r\n [2] \r\n[3]"[..];
        for expected in [Some("[1]"), Some("[2]"), Some("[3]"), None] {
            assert_eq!(line(&mut input, 10).unwrap().as_deref(), expected.map(str::as_bytes));
        }
    }

    #[test]
    fn a_line_beyond_the_limit_is_an_error() {
        assert_eq!(line(&mut &b"12345\n"[..], 5).unwrap().as_deref(), Some(&b"12345"[..]));
        assert!(line(&mut &b"123456\n"[..], 5).is_err());
        assert!(line(&mut &b"123456789"[..], 5).is_err());
    }
}
