//! Buffers that a thread lends to whichever connection it serves right now.

use std::cell::RefCell;

/// Bytes read from a socket at once.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// A reply buffer larger than this is given back to the system.
const KEPT_REPLY_BYTES_MAX: usize = 256 * 1024;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    static REPLY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with the thread's read buffer. Must not be nested.
pub(crate) fn with_read_buffer<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    READ.with_borrow_mut(|buffer| work(buffer))
}

/// Takes the thread's reply buffer if `out` has none of its own.
pub(crate) fn lend_reply_buffer(out: &mut Vec<u8>) {
    if out.capacity() == 0 {
        REPLY.with_borrow_mut(|buffer| std::mem::swap(buffer, out));
    }
}

/// Gives an empty reply buffer back.
pub(crate) fn return_reply_buffer(out: &mut Vec<u8>) {
    debug_assert!(out.is_empty());
    if out.capacity() <= KEPT_REPLY_BYTES_MAX {
        REPLY.with_borrow_mut(|buffer| std::mem::swap(buffer, out));
    }
    *out = Vec::new();
}
