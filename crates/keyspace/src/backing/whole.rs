//! What concerns all of a backed keyspace.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{DbIndex, Revision, SpaceId};

use super::{BUCKET_BITS, BUCKETS, Backed, Backing, BackingError, bucket_at};
use crate::shard::{Db, Keyspace, SHARD_BITS, SHARDS};

impl Keyspace {
    /// Keys of `db` may stand in `backing`, under `space`: `keys[shard]` of
    /// them. To be called before anything else touches the database. All
    /// databases have one and the same backing.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn back(
        &self,
        backing: Arc<dyn Backing>,
        db: DbIndex,
        space: SpaceId,
        keys: &[u64; SHARDS],
    ) {
        self.evict_to(backing.clone());
        for (index, &keys) in keys.iter().enumerate() {
            let mut shard = self.lock(index);
            let db = &mut shard.dbs[usize::from(db)];
            debug_assert!(db.table.is_empty(), "the database was touched before");
            db.space = space;
            db.backed = (keys > 0).then(|| {
                Box::new(Backed::new(backing.clone(), keys, self.seed(), self.backed_count()))
            });
            self.recount(index, db);
        }
    }

    /// Keys may be evicted to `backing`, of databases that it knows nothing of
    /// yet too. [`Keyspace::back`] says so as well.
    pub fn evict_to(&self, backing: Arc<dyn Backing>) {
        *self.backing().lock() = Some(backing);
    }

    /// Whether any key may stand in a backing only.
    #[must_use]
    pub fn is_backed(&self) -> bool {
        self.backed_count().get() > 0
    }

    /// Brings the keys of a bucket (the leading 16 bits of the hash) into memory, but
    /// for those that take long to read, whose names it answers: they are for
    /// [`Keyspace::load_hastily`]. `None` when there was nothing to ask the backing
    /// for.
    ///
    /// # Errors
    /// When the backing cannot be read. What it answered before is here then.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn load_bucket(
        &self,
        db: DbIndex,
        bucket: u16,
    ) -> Result<Option<Vec<Box<[u8]>>>, BackingError> {
        if !self.is_backed() {
            return Ok(None);
        }
        let index = usize::from(bucket >> (BUCKET_BITS - SHARD_BITS));
        let mut shard = self.lock(index);
        let db = &mut shard.dbs[usize::from(db)];
        let loaded = db.load_bucket(bucket, self.access_clock(), false);
        self.recount(index, db);
        loaded
    }

    /// Brings a key into memory, or has that begun where it takes long: the error
    /// [is later](BackingError::is_later) then, and it is to be called again.
    ///
    /// # Errors
    /// When the backing cannot be read, or not yet.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn load_hastily(&self, db: DbIndex, key: &[u8]) -> Result<(), BackingError> {
        if !self.is_backed() {
            return Ok(());
        }
        let (index, hash) = self.locate(key);
        let mut shard = self.lock(index);
        let db = &mut shard.dbs[usize::from(db)];
        let loaded = db.load_hastily(hash, key, self.access_clock(), true);
        self.recount(index, db);
        loaded.map(drop)
    }

    /// Brings a shard's keys of a database into memory at one go.
    ///
    /// # Errors
    /// When the backing cannot be read. What it answered before is here then.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn load_shard(&self, db: DbIndex, index: usize) -> Result<(), BackingError> {
        let access = self.access_clock();
        let mut shard = self.lock(index);
        let db = &mut shard.dbs[usize::from(db)];
        let first = bucket_at(index, 0);
        let loaded = db.load_run(first..=first + (BUCKETS - 1) as u16, access, true);
        self.recount(index, db);
        loaded.map(drop)
    }

    /// Keys of a database that are not in memory. Locks one shard at a time.
    ///
    /// # Panics
    /// When there is no such database.
    #[must_use]
    pub fn unloaded_of(&self, db: DbIndex) -> u64 {
        let of_shard = |index| self.lock(index).dbs[usize::from(db)].unloaded_keys();
        (0..SHARDS).map(of_shard).sum()
    }

    /// Notes when the keys of a bucket of `db` are due that stand in the backing
    /// only, so that they expire without being asked for; where keys are sparse,
    /// those of the next buckets too. Answers how many buckets it saw.
    ///
    /// # Errors
    /// When the backing cannot be read.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn index_deadlines(&self, db: DbIndex, bucket: u16) -> Result<u16, BackingError> {
        let index = usize::from(bucket >> (BUCKET_BITS - SHARD_BITS));
        let mut shard = self.lock(index);
        let db = &mut shard.dbs[usize::from(db)];
        let seen = db.index_deadlines(bucket);
        self.recount(index, db);
        seen
    }

    /// No key that stands in the backing only is due before: of each database and
    /// shard what [`Txn::first_deadlines`](crate::Txn::first_deadlines) told of
    /// where they come from.
    pub fn expect_deadlines(&self, first: &[[u64; SHARDS]]) {
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            for (db, first) in shard.dbs.iter_mut().zip(first) {
                db.expect_due(first[index]);
                self.note_deadlines(index, db);
            }
        }
    }

    /// Where a key of a shard may be due within `due` that stands in the backing
    /// only and is not in the index of deadlines, puts some more into that. Answers
    /// whether it did. 0 is within `due` if that is to be found out of which nothing
    /// is known.
    ///
    /// # Errors
    /// When the backing cannot be read; it is not asked again then.
    pub fn index_due(&self, index: usize, due: RangeInclusive<u64>) -> Result<bool, BackingError> {
        if !self.may_be_due(index, &due) {
            return Ok(false);
        }
        let mut shard = self.lock(index);
        self.review_unindexed(index, &shard);
        let may_be_due = |db: &&mut Db| due.contains(&db.unindexed_due());
        let Some(db) = shard.dbs.iter_mut().find(may_be_due) else { return Ok(false) };
        let indexed = db.index_more(index);
        if indexed.is_err() {
            db.expect_due(u64::MAX);
        }
        self.recount(index, db);
        indexed.map(|()| true)
    }

    /// Of databases that evicted keys and have all of them again, nothing need
    /// be remembered any more. Locks one shard at a time.
    pub fn keep_all(&self) {
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            for db in &mut shard.dbs {
                if let Some(backed) = db.backed.as_mut().filter(|b| b.unloaded_keys == 0) {
                    backed.evicts = false;
                    db.settle();
                    self.recount(index, db);
                }
            }
        }
    }

    /// Keys that are not in memory. Locks one shard at a time.
    #[must_use]
    pub fn unloaded(&self) -> u64 {
        if !self.is_backed() {
            return 0;
        }
        (0..SHARDS)
            .map(|index| self.lock(index).dbs.iter().map(Db::unloaded_keys).sum::<u64>())
            .sum()
    }

    /// The backing stands at `upto` now: what was removed until then need not
    /// be remembered. Locks one shard at a time.
    pub fn forget_removals(&self, upto: Revision) {
        if !self.is_backed() {
            return;
        }
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            for db in &mut shard.dbs {
                let Some(backed) = &mut db.backed else { continue };
                backed.forget_removals(upto);
                self.recount(index, db);
            }
        }
    }

    /// Whose clock entries get that come in without a transaction: that of the
    /// last one which changed or loaded something.
    pub(crate) fn access_clock(&self) -> u32 {
        self.access_clock_cell().load(Ordering::Relaxed)
    }

    pub(crate) fn note_access_clock(&self, clock: u32) {
        // Not dirtying the cache line is worth the comparison.
        if self.access_clock() != clock {
            self.access_clock_cell().store(clock, Ordering::Relaxed);
        }
    }
}
