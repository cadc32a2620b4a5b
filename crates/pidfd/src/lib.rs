//! Which process is at the other end of a Unix socket, as a handle (`SO_PEERPIDFD`, Linux 6.5).
//!
//! A process id alone can be another process's by the time it is looked at; the handle cannot. No safe wrapper of this socket option exists
//! among our dependencies, and those that exist elsewhere would rebuild the whole tree with other features of `libc`. So the one system
//! call stands here, in a crate of its own: the only place of the project with unsafe code. It knows nothing else.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

/// The process that called `connect` on (or made) the other end of `socket`; nothing where the kernel does not know the option.
///
/// # Errors
/// When the process has ended, or `socket` is no Unix socket.
pub fn peer_pidfd(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut descriptor: libc::c_int = -1;
    let mut length: libc::socklen_t = 4;
    const { assert!(size_of::<libc::c_int>() == 4, "the length above is that of the descriptor") };
    #[expect(unsafe_code, reason = "no safe wrapper of this socket option is at hand")]
    // SAFETY: both pointers are to live variables of this frame, and the kernel writes at most `length` bytes into the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut descriptor).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOPROTOOPT) { Ok(None) } else { Err(error) };
    }
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    #[expect(unsafe_code, reason = "a raw descriptor becomes an owned one")]
    // SAFETY: the kernel just made the descriptor for this call, so that nobody else owns it.
    let process = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(Some(process))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_end_of_a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let Some(process) = peer_pidfd(&one).unwrap() else { return };
        let described = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).unwrap();
        let line = format!("Pid:\t{}", std::process::id());
        assert!(described.lines().any(|found| found == line), "{described}");
    }

    #[test]
    fn what_is_no_unix_socket_is_an_error() {
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(peer_pidfd(&file).is_err());
    }
}
