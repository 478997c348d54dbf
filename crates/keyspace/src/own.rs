//! What a branch has changed itself: how many keys, and when last.
//!
//! A key counts once it was written or removed, however often, and goes on to
//! count when it becomes again what it was. Its hash is remembered the first
//! time, which the revision of its entry tells; of main nothing is remembered.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use base::{DbIndex, Revision, SpaceId};

use crate::shard::{Keyspace, SHARD_BITS, SHARDS};

/// Hashes are hashes already. Those of a shard begin alike.
#[derive(Debug, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers of 64 bits are hashed")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash.rotate_left(SHARD_BITS);
    }
}

/// The keys of one database's part of a shard that a branch has changed.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Changes from this revision on are the branch's own; 0: nobody counts.
    from: u64,
    /// Whether there were no other changes than those that are noted.
    is_whole: bool,
    hashes: HashSet<u64, BuildHasherDefault<AsItIs>>,
}

impl Own {
    fn begin(from: Revision, is_whole: bool) -> Own {
        Own { from: from.0, is_whole, ..Own::default() }
    }

    /// One that counts from where this does, and has nothing.
    pub(crate) fn anew(&self) -> Own {
        Own::begin(Revision(self.from), self.from > 0)
    }

    /// Whether changes are to be noted.
    pub(crate) fn is_counting(&self) -> bool {
        self.from > 0
    }

    /// Whether a key is known not to have been changed.
    pub(crate) fn lacks(&self, hash: u64) -> bool {
        self.is_whole && !self.hashes.contains(&hash)
    }

    /// A key whose last change was at `before`, 0 for none, is changed at `now`.
    #[inline]
    pub(crate) fn note(&mut self, hash: u64, before: u64, now: u64) {
        if before < self.from && now >= self.from {
            self.hashes.insert(hash);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        // The table has a byte of its own for each place.
        self.hashes.capacity() * (size_of::<u64>() + 1)
    }
}

/// What a branch has changed itself of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnKeys {
    /// The database.
    pub db: DbIndex,
    /// Where it stands.
    pub space: SpaceId,
    /// Keys that were written or removed since [`Keyspace::count_own`] said so,
    /// or since it was emptied.
    pub changed: u64,
    /// Keys that it has.
    pub keys: u64,
}

impl Keyspace {
    /// Counts which keys are changed from a revision on. `is_whole`: there is no
    /// such change yet, neither here nor in the backing, and keys that were given
    /// before are not asked for.
    pub fn count_own(&self, from: Revision, is_whole: bool) {
        for index in 0..SHARDS {
            self.lock(index).dbs.iter_mut().for_each(|db| db.own = Own::begin(from, is_whole));
        }
    }

    /// A key of `space` was changed before this keyspace was there.
    pub fn add_own(&self, space: SpaceId, hash: u64) {
        let index = Keyspace::shard_of_hash(hash);
        let mut shard = self.lock(index);
        if let Some(db) = shard.dbs.iter_mut().find(|db| db.space == space) {
            db.own.hashes.insert(hash);
            self.recount(index, db);
        }
    }

    /// The newest change of a key here, as far as it is known, and what was
    /// changed of each database. Locks one shard at a time.
    #[must_use]
    pub fn own(&self) -> (Revision, Vec<OwnKeys>) {
        let mut newest = Revision::ZERO;
        let mut all: Vec<OwnKeys> = (0..self.databases())
            .map(|db| OwnKeys { db, space: SpaceId::first_of(db), changed: 0, keys: 0 })
            .collect();
        for index in 0..SHARDS {
            let shard = self.lock(index);
            newest = newest.max(shard.last_revision);
            for (own, db) in all.iter_mut().zip(&shard.dbs) {
                own.space = db.space;
                own.changed += db.own.hashes.len() as u64;
                own.keys += db.len() as u64;
            }
        }
        (newest, all)
    }
}
