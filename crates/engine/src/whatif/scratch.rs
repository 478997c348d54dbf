//! Keyspaces that commands are tried on.

use std::sync::atomic::{AtomicU64, Ordering};

use base::{DbIndex, Revision};
use keyspace::{Journal, Keyspace};
use parking_lot::Mutex;

/// Keyspaces kept for the next time: making one takes longer than trying a
/// small command.
const KEPT_MAX: usize = 8;

/// Bytes of tables up to which a keyspace is kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Empty keyspaces, to be used again.
#[derive(Debug, Default)]
pub(crate) struct Scratches(Mutex<Vec<Keyspace>>);

impl Scratches {
    /// An empty keyspace that hashes as `like` does, so that what depends on
    /// the order in tables comes out as it would there.
    pub(super) fn take(&self, like: &Keyspace) -> Keyspace {
        self.0.lock().pop().unwrap_or_else(|| like.empty_like())
    }

    /// Takes back a keyspace in which no others than these keys can be, and
    /// no database was flushed or swapped.
    pub(super) fn give_back<'k>(
        &self,
        scratch: Keyspace,
        keys: impl Iterator<Item = (DbIndex, &'k [u8])>,
    ) {
        for (db, key) in keys {
            scratch.take(db, key).expect("a scratch keyspace has no backing");
        }
        debug_assert_eq!(scratch.statistics(), [], "a key is left in a scratch keyspace");
        let mut kept = self.0.lock();
        if kept.len() < KEPT_MAX && scratch.memory_bytes() <= KEPT_BYTES_MAX {
            kept.push(scratch);
        }
    }
}

/// Gives revisions and keeps nothing.
pub(super) struct Numbers(AtomicU64);

impl Numbers {
    pub(super) fn after(revision: Revision) -> Numbers {
        Numbers(AtomicU64::new(revision.0 + 1))
    }
}

impl Journal for Numbers {
    fn reserve(&self) -> Revision {
        Revision(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}
