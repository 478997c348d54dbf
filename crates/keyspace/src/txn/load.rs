//! Bringing keys into memory that stand in a backing only.

use std::collections::BTreeMap;

use base::DbIndex;
use smallvec::SmallVec;

use super::Txn;
use crate::backing::{BackingError, Due, Loaded, Stored};
use crate::effect::{Cause, Effect};
use crate::event::class;
use crate::shard::Db;

/// Of keys that were asked for in a backing and are not in memory, whether they
/// exist, by database and hash, so that a transaction asks for each only once.
/// Mostly there is one. An entry, and a removal that is remembered, know better.
#[derive(Default)]
pub(super) struct Unread {
    first: Option<Told>,
    others: BTreeMap<(DbIndex, u64), Told>,
}

struct Told {
    place: (DbIndex, u64),
    name: SmallVec<[u8; 32]>,
    exists: bool,
    /// When it is due, if it exists.
    deadline: Option<u64>,
}

impl Unread {
    /// To be called when databases change as a whole.
    pub(super) fn clear(&mut self) {
        *self = Unread::default();
    }

    pub(super) fn insert(&mut self, db: DbIndex, hash: u64, key: &[u8], exists: bool) {
        self.insert_due(db, hash, key, exists, None);
    }

    fn insert_due(
        &mut self,
        db: DbIndex,
        hash: u64,
        key: &[u8],
        exists: bool,
        deadline: Option<u64>,
    ) {
        let told = Told { place: (db, hash), name: SmallVec::from_slice(key), exists, deadline };
        match self.first {
            None => self.first = Some(told),
            Some(_) => drop(self.others.insert((db, hash), told)),
        }
    }

    pub(super) fn get(&self, db: DbIndex, hash: u64, key: &[u8]) -> Option<bool> {
        self.told(db, hash, key).map(|told| told.exists)
    }

    /// When a key is due that was found to exist.
    pub(super) fn deadline(&self, db: DbIndex, hash: u64, key: &[u8]) -> Option<u64> {
        self.told(db, hash, key)?.deadline
    }

    fn told(&self, db: DbIndex, hash: u64, key: &[u8]) -> Option<&Told> {
        let first = self.first.as_ref()?;
        let is_it = |told: &&Told| told.place == (db, hash) && *told.name == *key;
        let others = || self.others.get(&(db, hash)).filter(is_it);
        Some(first).filter(is_it).or_else(others)
    }
}

impl Txn<'_> {
    /// Makes a key of the current database resident if it may stand in the
    /// backing only. When the backing cannot be read, the key stays unknown and
    /// [`Txn::backing_error`] says why: its caller must not go on then.
    ///
    /// # Panics
    /// When the key's shard is not locked and there is a backing.
    pub fn load(&mut self, key: &[u8]) {
        self.load_in(self.db, key);
    }

    /// As [`Txn::load`] in another database than the current one.
    ///
    /// # Panics
    /// When the key's shard is not locked and there is a backing.
    pub fn load_in(&mut self, db: DbIndex, key: &[u8]) {
        self.part = None;
        if !self.keyspace.is_backed() {
            return;
        }
        let (index, hash) = self.keyspace.locate(key);
        if self.unread.get(db, hash, key) == Some(false) {
            return;
        }
        let (access, is_patient) =
            (self.keyspace.fresh_access(self.options.now_ms), self.is_patient);
        let part = &mut self.shard_mut(index).dbs[usize::from(db)];
        match part.load_hastily(hash, key, access, !is_patient) {
            Ok(Some(false)) => {}
            Ok(Some(true)) => {
                self.loaded += 1;
                self.changed(index, db);
            }
            Ok(None) => {
                self.unread.insert(db, hash, key, false);
            }
            Err(error) => {
                self.fail(error);
            }
        }
    }

    /// As [`Txn::load_in`], by the handler of a command that has changed nothing yet
    /// and ends with [`Txn::check_backing`]'s error, if there is one: what takes long is
    /// put off if it could have been at first.
    ///
    /// # Panics
    /// When the key's shard is not locked and there is a backing.
    pub fn load_first(&mut self, db: DbIndex, key: &[u8]) {
        let is_patient = self.is_patient;
        self.is_patient &= !(self.may_put_off && self.recorder.reserved().is_none());
        self.load_in(db, key);
        self.is_patient = is_patient;
    }

    /// Finds out whether a key of the current database exists, and removes it if
    /// its deadline has passed. Mostly it need not be brought into memory for
    /// that; [`Txn::contains`], [`Txn::overwrite`] and [`Txn::delete`] is all that
    /// may be done with it then. Errors as of [`Txn::load`].
    ///
    /// # Panics
    /// When the key's shard is not locked and there is a backing.
    pub fn look_for(&mut self, key: &[u8]) {
        if !self.is_told(self.db, key) && !self.is_glanced_at(self.db, key) {
            self.purge(key);
        }
    }

    /// As [`Txn::look_for`] in another database than the current one, whatever
    /// the key's deadline is.
    ///
    /// # Panics
    /// When the key's shard is not locked and there is a backing.
    pub fn look_for_in(&mut self, db: DbIndex, key: &[u8]) {
        if !self.is_told(db, key) && !self.is_glanced_at(db, key) {
            self.load_in(db, key);
        }
    }

    /// Whether a key is not in memory, nor brought there, and the backing has been
    /// asked whether it exists; this is remembered. Not of one that is to be removed
    /// because it is due.
    fn is_glanced_at(&mut self, db: DbIndex, key: &[u8]) -> bool {
        if !self.keyspace.is_backed() {
            return false;
        }
        let (index, hash) = self.keyspace.locate(key);
        let (access, is_patient) =
            (self.keyspace.fresh_access(self.options.now_ms), self.is_patient);
        let part = &mut self.shard_mut(index).dbs[usize::from(db)];
        match part.glance(hash, key, access, !is_patient) {
            Ok(Loaded::Known) => false,
            Ok(Loaded::Whole) => {
                self.loaded += 1;
                self.changed(index, db);
                false
            }
            Ok(Loaded::Absent) => {
                self.unread.insert(db, hash, key, false);
                true
            }
            Ok(Loaded::Part(Stored { deadline, revision, .. }, _)) => {
                if self.options.expire && deadline.is_some_and(|at| at <= self.options.now_ms) {
                    return false;
                }
                self.see(revision);
                self.unread.insert_due(db, hash, key, true, deadline);
                true
            }
            Err(error) => {
                self.fail(error);
                true
            }
        }
    }

    /// Whether a key is not in memory, and it can be told at once whether it
    /// exists; this is remembered.
    fn is_told(&mut self, db: DbIndex, key: &[u8]) -> bool {
        self.part = None;
        if !self.keyspace.is_backed() {
            return false;
        }
        let (index, hash) = self.keyspace.locate(key);
        let part = &self.shard(index).dbs[usize::from(db)];
        if part.table.get(hash, key).is_some() {
            return false;
        }
        let Some(exists) = self.told(db, part, hash, key) else { return false };
        self.unread.insert(db, hash, key, exists);
        true
    }

    /// Whether a key exists that has no entry, as far as that can be told at
    /// once; that it does, only if it has no deadline.
    fn told(&self, db: DbIndex, part: &Db, hash: u64, key: &[u8]) -> Option<bool> {
        if part.knows_missing(hash, key) {
            return Some(false);
        }
        self.unread
            .get(db, hash, key)
            .or_else(|| part.presence(hash, key, self.recorder.buffers.foreseen.as_deref()))
    }

    /// Whether a key is known to stand in the backing only. Who learns so depends
    /// on what made its space: it is no newer.
    pub(super) fn is_unread(&self, db: DbIndex, key: &[u8]) -> bool {
        if self.unread.first.is_none() {
            return false;
        }
        let (index, hash) = self.keyspace.locate(key);
        let shard = self.shard(index);
        let part = &shard.dbs[usize::from(db)];
        let is_unread = self.unread.get(db, hash, key) == Some(true)
            && part.table.get(hash, key).is_none()
            && !part.knows_missing(hash, key);
        if is_unread {
            self.see(part.space.born.max(shard.last_swap));
        }
        is_unread
    }

    /// Removes a key that is known to stand in the backing only.
    pub(super) fn delete_unread(&mut self, key: &[u8]) -> Result<(), BackingError> {
        let hash = self.keyspace.hash_of(key);
        let deadline = self.unread.deadline(self.db, hash, key);
        self.remove_from_backing(key, deadline, Cause::Client)
    }

    /// Removes a key that stands in the backing only, and has this deadline.
    fn remove_from_backing(
        &mut self,
        key: &[u8],
        deadline: Option<u64>,
        cause: Cause,
    ) -> Result<(), BackingError> {
        let (index, hash) = self.keyspace.locate(key);
        let db = self.db;
        self.shard_mut(index).dbs[usize::from(db)].supersede_due(hash, deadline)?;
        let revision = self.note(key, true, &Effect::Delete(cause));
        self.changed(index, db);
        let shard = self.shard_mut(index);
        shard.note_removal(revision);
        shard.dbs[usize::from(db)].note_removed(hash, key, revision);
        Ok(())
    }

    /// Finds out whether a key of the current database exists that has no entry
    /// and is about to be overwritten. `None`: it has been brought into memory,
    /// and is not due.
    pub(super) fn learn(
        &mut self,
        index: usize,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<bool>, BackingError> {
        let part = &self.shard(index).dbs[usize::from(self.db)];
        if let Some(existed) = self.told(self.db, part, hash, key) {
            return Ok(Some(existed));
        }
        if self.is_glanced_at(self.db, key) {
            self.check_backing()?;
            return Ok(self.unread.get(self.db, hash, key));
        }
        self.load(key);
        self.check_backing()?;
        self.remove_due(index, hash, key);
        let part = &self.shard(index).dbs[usize::from(self.db)];
        Ok(part.table.get(hash, key).is_none().then_some(false))
    }

    /// Of a key of the current database that is about to be overwritten, takes
    /// the caller's word for whether it existed, if it may stand in the backing
    /// only. Answers whether it was one of these.
    pub(crate) fn settle_unread(
        &mut self,
        key: &[u8],
        existed: bool,
    ) -> Result<bool, BackingError> {
        if !self.keyspace.is_backed() {
            return Ok(false);
        }
        let (index, hash) = self.keyspace.locate(key);
        let (db, revision) = (self.db, self.recorder.revision());
        let part = &mut self.shard_mut(index).dbs[usize::from(db)];
        let was_unknown = part.settle_unread(hash, key, existed, revision)?;
        if was_unknown {
            self.changed(index, db);
        }
        Ok(was_unknown)
    }

    /// Removes a key of the current database that stands in the backing only, on
    /// the caller's word that it exists. Answers whether it may be one.
    pub(crate) fn remove_unread(&mut self, key: &[u8]) -> Result<bool, BackingError> {
        let was_unknown = self.settle_unread(key, true)?;
        if was_unknown {
            let (index, hash) = self.keyspace.locate(key);
            let (db, revision) = (self.db, self.recorder.revision());
            let shard = self.shard_mut(index);
            shard.note_removal(revision);
            shard.dbs[usize::from(db)].note_removed(hash, key, revision);
            self.changed(index, db);
        }
        Ok(was_unknown)
    }

    /// Brings an evicted key into memory that is due at `at`, or removes it where it
    /// is if it takes long to read; answers how many were removed so. `None` when
    /// that is not possible, and [`Txn::backing_error`] says why.
    pub(super) fn load_due(&mut self, shard: usize, at: u64, hash: u64) -> Option<usize> {
        let (db, now_ms) = (self.db, self.options.now_ms);
        let access = self.keyspace.fresh_access(now_ms);
        let part = &mut self.shard_mut(shard).dbs[usize::from(db)];
        let loaded = part.load_due(at, hash, now_ms, access);
        self.changed(shard, db);
        let removed = loaded.and_then(|Due { loaded, unread }| {
            self.loaded += loaded;
            for (key, deadline) in &unread {
                self.remove_from_backing(key, Some(*deadline), Cause::Expired)?;
                self.expired += 1;
                self.notify(class::EXPIRED, "expired", key);
            }
            Ok(unread.len())
        });
        removed.map_err(|error| self.fail(error)).ok()
    }

    /// Notes why a key is not in memory that should be. The first error is the
    /// one that [`Txn::backing_error`] tells.
    pub(super) fn fail(&mut self, error: BackingError) {
        self.has_later |= error.is_later();
        self.backing_error.get_or_insert(error);
    }

    /// Whether any key of its keyspace may stand in a backing only.
    #[must_use]
    pub fn is_backed(&self) -> bool {
        self.keyspace.is_backed()
    }

    /// Keys that were asked for by name so far and had to be brought into memory.
    #[must_use]
    pub fn loaded(&self) -> u32 {
        self.loaded
    }

    /// Why a key could not be brought into memory, if one could not.
    #[must_use]
    pub fn backing_error(&self) -> Option<&BackingError> {
        self.backing_error.as_ref()
    }

    /// Whether keys are brought into memory from here on even where that takes
    /// long, as they are at first; see [`Txn::has_later`].
    pub fn set_patience(&mut self, is_patient: bool) {
        self.is_patient = is_patient;
        self.may_put_off |= !is_patient;
    }

    /// Whether a key could not be brought into memory because that takes long.
    /// The transaction is to be ended then, and what it was for to be tried
    /// again.
    #[must_use]
    pub fn has_later(&self) -> bool {
        self.has_later
    }

    /// Answers and forgets what [`Txn::backing_error`] says, for transactions
    /// of several commands, of which each one fails for itself.
    ///
    /// # Errors
    /// That error.
    pub fn check_backing(&mut self) -> Result<(), BackingError> {
        self.backing_error.take().map_or(Ok(()), Err)
    }

    /// Whether a key that is not in its table is known not to exist.
    pub(super) fn is_absent(&self, db: DbIndex, part: &Db, hash: u64, key: &[u8]) -> bool {
        part.knows_missing(hash, key) || self.unread.get(db, hash, key) == Some(false)
    }
}
