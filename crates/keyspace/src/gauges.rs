//! What shards count of memory, readable without their locks.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What gauges count of a database's part of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// All of it.
    pub(crate) bytes: usize,
    /// What a branch has changed itself; 0 elsewhere.
    pub(crate) own_bytes: usize,
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Counted) {
        self.bytes += other.bytes;
        self.own_bytes += other.own_bytes;
    }
}

/// The sums of a shard.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    bytes: AtomicUsize,
    own_bytes: AtomicUsize,
}

impl Gauges {
    pub(crate) fn read(&self) -> Counted {
        Counted {
            bytes: self.bytes.load(Ordering::Relaxed),
            own_bytes: self.own_bytes.load(Ordering::Relaxed),
        }
    }

    /// A database counts `now` where it counted `before`. To be called with the
    /// shard's lock held.
    pub(crate) fn move_by(&self, before: Counted, now: Counted) {
        // Only the lock's holder writes, so load and store need no exchange.
        let move_by = |gauge: &AtomicUsize, before: usize, now: usize| {
            gauge.store(gauge.load(Ordering::Relaxed) + now - before, Ordering::Relaxed);
        };
        move_by(&self.bytes, before.bytes, now.bytes);
        if before.own_bytes != now.own_bytes {
            move_by(&self.own_bytes, before.own_bytes, now.own_bytes);
        }
    }
}
