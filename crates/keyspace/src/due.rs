//! Which shards may have keys with a deadline, readable without their locks: most
//! keyspaces have none, and are asked many times a second.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::shard::{Db, Keyspace, Shard};

/// What is noted of a keyspace.
#[derive(Debug, Default)]
pub(crate) struct NotedDeadlines {
    /// Shards whose index may have deadlines.
    indexed: ShardSet,
    /// Shards that may have keys in the backing only whose deadlines are not in
    /// the index, and of which it is known when the first is due.
    unindexed: ShardSet,
    /// Those of which that is not known.
    unknown: ShardSet,
}

/// Shards for which something may hold, a bit for each. It is changed under the
/// lock of the shard that it is about.
#[derive(Debug, Default)]
struct ShardSet(AtomicU64);

impl ShardSet {
    fn note(&self, shard: usize, may_hold: bool) {
        if may_hold && !self.has(shard) {
            self.0.fetch_or(1 << shard, Ordering::Relaxed);
        }
    }

    fn forget(&self, shard: usize) {
        self.0.fetch_and(!(1 << shard), Ordering::Relaxed);
    }

    fn has(&self, shard: usize) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << shard) != 0
    }

    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Shard {
    /// Whether a database may have deadlines that are not in its index: with a first
    /// one that is known, and with one that is not.
    fn unindexed(&self) -> (bool, bool) {
        let has = |is_so: fn(u64) -> bool| self.dbs.iter().any(|db| is_so(db.unindexed_due()));
        (has(|due| due > 0 && due < u64::MAX), has(|due| due == 0))
    }
}

impl Keyspace {
    /// Whether a shard holds a key whose deadline has passed. Of one that is busy
    /// that is not known, and false.
    #[must_use]
    pub fn has_due(&self, shard: usize, now_ms: u64) -> bool {
        if !self.noted().indexed.has(shard) {
            return false;
        }
        let Some(locked) = self.try_lock(shard) else { return false };
        if locked.dbs.iter().all(|db| db.deadlines.is_empty()) {
            self.noted().indexed.forget(shard);
        }
        locked.dbs.iter().any(|db| db.first_deadline() <= now_ms)
    }

    /// Whether any key may have a deadline that is in the index.
    #[must_use]
    pub fn has_deadlines(&self) -> bool {
        !self.noted().indexed.is_empty()
    }

    /// Whether any key may have one within `due` that is not in the index, for it
    /// stands in the backing only. 0 is within `due` if those count of which nothing
    /// is known.
    #[must_use]
    pub fn has_unindexed(&self, due: &RangeInclusive<u64>) -> bool {
        !self.noted().unindexed.is_empty() || due.contains(&0) && !self.noted().unknown.is_empty()
    }

    /// As [`Keyspace::has_unindexed`], of one shard.
    pub(crate) fn may_be_due(&self, index: usize, due: &RangeInclusive<u64>) -> bool {
        self.noted().unindexed.has(index) || due.contains(&0) && self.noted().unknown.has(index)
    }

    /// Forgets what is noted of a shard's deadlines in the backing and is no longer so.
    pub(crate) fn review_unindexed(&self, index: usize, shard: &Shard) {
        let (has_unindexed, has_unknown) = shard.unindexed();
        if !has_unindexed {
            self.noted().unindexed.forget(index);
        }
        if !has_unknown {
            self.noted().unknown.forget(index);
        }
    }

    /// Whether what is noted of a shard's deadlines says no less than there is.
    pub(crate) fn knows_deadlines(&self, index: usize, shard: &Shard) -> bool {
        let has_some = shard.dbs.iter().any(|db| !db.deadlines.is_empty());
        let (has_unindexed, has_unknown) = shard.unindexed();
        (self.noted().indexed.has(index) || !has_some)
            && (self.noted().unindexed.has(index) || !has_unindexed)
            && (self.noted().unknown.has(index) || !has_unknown)
    }

    /// Notes what deadlines a database has, under the shard's lock.
    pub(crate) fn note_deadlines(&self, index: usize, db: &Db) {
        let unindexed = db.unindexed_due();
        self.noted().indexed.note(index, !db.deadlines.is_empty());
        self.noted().unindexed.note(index, unindexed > 0 && unindexed < u64::MAX);
        self.noted().unknown.note(index, unindexed == 0);
    }
}
