//! What a branch has changed itself: how many keys, and when last; and what
//! the branches that begin with it may ask of keys that it has changed since.
//!
//! A key counts once it was written or removed, however often, and goes on to
//! count when it becomes again what it was. Of a key in memory the revision of
//! its entry tells; of others the hash is remembered; of main nothing is.
//!
//! Whether a key existed when the newest branch began is noted in its entry by
//! the first change since.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use base::{DbIndex, Revision, SpaceId};
use entry::Entry;

use crate::shard::{Keyspace, SHARD_BITS, SHARDS, entry_bytes};
use crate::value::Value;

/// Hashes keys' hashes, which are hashes already. Those of a shard begin alike.
#[derive(Debug, Default)]
pub struct AsItIs(u64);

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

type Hashes = HashSet<u64, BuildHasherDefault<AsItIs>>;

/// Of one database's part of a shard: see the module's documentation.
#[derive(Debug)]
pub(crate) struct Own {
    /// Changes from this revision on are the branch's own; the greatest there
    /// is where nobody counts.
    from: u64,
    /// Whether there were no other changes than those that are counted.
    is_whole: bool,
    /// Entries that were changed since.
    here: usize,
    /// Bytes of the entries that are the parent's; none where nobody counts.
    inherited_bytes: usize,
    /// The hashes of keys that were changed and have no entry.
    away: Option<Box<Hashes>>,
    /// The revision by which the newest branch began that begins with this one;
    /// 0 if that is not known.
    fork: u64,
    /// The newest change since then after which an entry does not tell whether
    /// its key existed then.
    unclear: u64,
}

impl Default for Own {
    fn default() -> Own {
        Own::begin(u64::MAX, false)
    }
}

impl Own {
    fn begin(from: u64, is_whole: bool) -> Own {
        Own { from, is_whole, here: 0, inherited_bytes: 0, away: None, fork: 0, unclear: 0 }
    }

    /// One that counts from where this does, and has nothing.
    pub(crate) fn anew(&self) -> Own {
        Own::begin(self.from, false)
    }

    /// As [`Own::anew`], in a space that has nothing yet. What comes into it by a
    /// change that does not count, as by what makes a branch `AT` the past, is not
    /// told from what is below.
    pub(crate) fn anew_in(&self, fresh: SpaceId) -> Own {
        Own::begin(self.from, self.is_counting() && fresh.born.0 >= self.from)
    }

    /// Whether changes are counted.
    pub(crate) fn is_counting(&self) -> bool {
        self.from < u64::MAX
    }

    /// Whether an entry is the branch's own change, or this is no branch.
    pub(crate) fn has(&self, entry: &Entry<Value>) -> bool {
        !self.is_counting() || entry.revision() >= self.from
    }

    /// The newest revision of entries that are the parent's; none on main.
    pub(crate) fn inherited_upto(&self) -> Option<Revision> {
        self.is_counting().then(|| Revision(self.from.saturating_sub(1)))
    }

    /// Whether a key without an entry is known not to have been changed.
    pub(crate) fn lacks(&self, hash: u64) -> bool {
        self.is_whole && !self.away.as_ref().is_some_and(|away| away.contains(&hash))
    }

    /// Entries that were changed since.
    pub(crate) fn entries(&self) -> usize {
        self.here
    }

    fn add_away(&mut self, hash: u64) {
        self.away.get_or_insert_default().insert(hash);
    }

    /// Keys that were changed.
    fn changed(&self) -> usize {
        self.here + self.away.as_ref().map_or(0, |away| away.len())
    }

    /// Bytes of the entries that the branch has only read.
    pub(crate) fn inherited_bytes(&self) -> usize {
        self.inherited_bytes
    }

    /// An entry comes where none was.
    #[inline]
    pub(crate) fn came(&mut self, hash: u64, entry: &Entry<Value>) {
        self.count(entry);
        // Mostly there is none.
        if let Some(away) = &mut self.away
            && entry.revision() >= self.from
        {
            away.remove(&hash);
        }
    }

    fn count(&mut self, entry: &Entry<Value>) {
        if entry.revision() >= self.from {
            self.here += 1;
        } else if self.is_counting() {
            self.inherited_bytes += entry_bytes(entry);
        }
    }

    /// An entry goes.
    pub(crate) fn went(&mut self, entry: &Entry<Value>) {
        if entry.revision() >= self.from {
            self.here -= 1;
        } else if self.is_counting() {
            self.inherited_bytes -= entry_bytes(entry);
        }
    }

    /// A key without an entry was changed last at `revision`.
    pub(crate) fn note_away(&mut self, hash: u64, revision: u64) {
        if revision >= self.from {
            self.add_away(hash);
        }
    }

    /// An entry that had so many `bytes` is changed in place, and gets the
    /// revision.
    #[inline]
    pub(crate) fn change(&mut self, entry: &mut Entry<Value>, revision: Revision, bytes: usize) {
        let before = entry.revision();
        if before < self.from && revision.0 >= self.from {
            self.here += 1;
            self.inherited_bytes -= bytes;
        }
        if before <= self.fork {
            let was_there = self.outlives(entry, revision.0);
            entry.set_noted(was_there);
        }
        entry.set_revision(revision.0);
    }

    /// An entry is about to take the place of another one of the same key.
    pub(crate) fn replace(&mut self, old: &Entry<Value>, entry: &mut Entry<Value>) {
        let (before, now) = (old.revision(), entry.revision());
        self.went(old);
        self.count(entry);
        let was_there = if before > self.fork { old.noted() } else { self.outlives(old, now) };
        entry.set_noted(was_there);
    }

    /// Whether what is true of an entry at the fork needs no deadline to be told.
    fn outlives(&mut self, entry: &Entry<Value>, now: u64) -> bool {
        let has_deadline = entry.deadline().is_some();
        if has_deadline {
            self.unclear = self.unclear.max(now);
        }
        !has_deadline
    }

    /// An entry comes from elsewhere, of which nothing is noted.
    pub(crate) fn came_back(&mut self, revision: u64) {
        if revision > self.fork {
            self.unclear = self.unclear.max(revision);
        }
    }

    /// The revision begins a branch that begins with this one.
    pub(crate) fn note_fork(&mut self, revision: Revision) {
        (self.fork, self.unclear) = (revision.0, 0);
    }

    /// Whether a key existed, and had no deadline, at a revision after which its
    /// `entry` was changed, where `last_removal` was the newest in the shard.
    pub(crate) fn existed(
        &self,
        entry: &Entry<Value>,
        at: Revision,
        last_removal: Revision,
    ) -> Option<bool> {
        if self.fork == 0 || self.fork != at.0 {
            return None;
        }
        if entry.noted() {
            return Some(true);
        }
        (last_removal <= at && self.unclear <= at.0).then_some(false)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        // The table has a byte of its own for each place.
        let hashes = |away: &Hashes| size_of::<Hashes>() + away.capacity() * (size_of::<u64>() + 1);
        self.away.as_deref().map_or(0, hashes)
    }

    /// What does not agree with these entries.
    pub(crate) fn check<'e>(
        &self,
        entries: impl Iterator<Item = &'e Entry<Value>>,
    ) -> Option<String> {
        let (here, inherited_bytes) = self.sums(entries);
        if here != self.here {
            return Some(format!("{} keys in memory count as changed, {here} are", self.here));
        }
        (inherited_bytes != self.inherited_bytes).then(|| {
            format!("{} bytes count as inherited, {inherited_bytes} are", self.inherited_bytes)
        })
    }

    /// How many entries were changed, and the bytes of the others.
    fn sums<'e>(&self, entries: impl Iterator<Item = &'e Entry<Value>>) -> (usize, usize) {
        let mut own = Own::begin(self.from, false);
        entries.for_each(|entry| own.count(entry));
        (own.here, own.inherited_bytes)
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
            for db in &mut self.lock(index).dbs {
                let own = Own::begin(from.0, is_whole);
                let (here, inherited_bytes) = own.sums(db.table.iter());
                db.own = Own { here, inherited_bytes, ..own };
            }
        }
    }

    /// A key of `space` was changed before this keyspace was there.
    pub fn add_own(&self, space: SpaceId, hash: u64) {
        let index = Keyspace::shard_of_hash(hash);
        let mut shard = self.lock(index);
        if let Some(db) = shard.dbs.iter_mut().find(|db| db.space == space) {
            let from = db.own.from;
            if db.table.find(hash, |entry| entry.revision() >= from).is_none() {
                db.own.add_away(hash);
            }
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
                own.changed += db.own.changed() as u64;
                own.keys += db.len() as u64;
            }
        }
        (newest, all)
    }
}
