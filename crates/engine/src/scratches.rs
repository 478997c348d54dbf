//! Keyspaces for a moment: a few keys of the past, or of the present to try a
//! command on.

use keyspace::Keyspace;
use parking_lot::Mutex;

/// Keyspaces kept for the next time: making one takes longer than what
/// is done in it.
const KEPT_MAX: usize = 8;

/// Bytes of tables up to which a keyspace is kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Empty keyspaces, to be used again.
#[derive(Debug, Default)]
pub(crate) struct Scratches(Mutex<Vec<Keyspace>>);

impl Scratches {
    /// An empty keyspace that hashes as `like` does, so that what depends on
    /// the order in tables comes out as it would there.
    pub(crate) fn take(&self, like: &Keyspace) -> Keyspace {
        self.0.lock().pop().unwrap_or_else(|| like.empty_like())
    }

    /// Takes back a keyspace from which every key is gone, and in which no
    /// database was flushed or swapped.
    pub(crate) fn give_back(&self, scratch: Keyspace) {
        debug_assert_eq!(scratch.statistics(), [], "a key is left in a scratch keyspace");
        let mut kept = self.0.lock();
        if kept.len() < KEPT_MAX && scratch.memory_bytes() <= KEPT_BYTES_MAX {
            kept.push(scratch);
        }
    }
}
