//! Room to check policies in: Cedar recurses, and its validator passes over what it has no stack left for.

use std::io;
use std::thread;

/// In bytes: twice what a policy of the size limits takes, whatever is left of the caller's own stack.
const STACK: usize = 16 * 1024 * 1024;

/// Runs `work` on a stack of its own and waits for it.
///
/// # Errors
///
/// Where the machine gives no thread; then nothing was checked.
pub(super) fn with_own<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("policies".to_owned()).stack_size(STACK).spawn_scoped(scope, work)?;
        thread.join().map_err(|panic| std::panic::resume_unwind(panic))
    })
}
