//! What transactions read, and what their replies depend on because of it.

use std::cell::Cell;

use base::{DbIndex, Revision};
use entry::Entry;

use super::{Locked, Txn, WrongType};
use crate::access::Usage;
use crate::event::class;
use crate::shard::{Db, Keyspace, SHARDS, Shard, StatisticsSum, value_of};
use crate::value::{Value, ValueRef};

/// Reads counted so far.
#[derive(Default)]
pub(super) struct ReadCounts {
    pub(super) are_counted: bool,
    pub(super) hits: Cell<u32>,
    pub(super) misses: Cell<u32>,
}

/// What is known of a key besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Revision of its last change.
    pub revision: Revision,
    /// The last transaction that gave its database another's keys, or brought back
    /// those that a flush had taken; zero for none since the start that is known of.
    pub moved: Revision,
    /// When it expires, in milliseconds since 1970.
    pub deadline: Option<u64>,
    /// The 24 bits that tell how it is used.
    pub access: u32,
    /// What they tell, by now.
    pub usage: Usage,
    /// Heap bytes of key, value and bookkeeping.
    pub memory_bytes: usize,
    /// A string that was changed in place: `OBJECT ENCODING` says `raw`.
    pub is_raw: bool,
}

impl KeyInfo {
    /// The last transaction that changed what stands at the key: by itself, or
    /// with all of its database.
    #[must_use]
    pub fn last_change(&self) -> Revision {
        self.revision.max(self.moved)
    }
}

/// Tells an entry from others as long as it stands where it does.
pub(crate) fn place_of(entry: &Entry<Value>) -> usize {
    std::ptr::from_ref(entry).addr()
}

/// What [`KeyInfo::memory_bytes`] is of an entry.
pub(crate) fn info_bytes(entry: &Entry<Value>) -> usize {
    crate::shard::entry_bytes(entry) + size_of::<Entry<Value>>() * 2
}

impl Txn<'_> {
    /// The value of a key that exists.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<ValueRef<'_>> {
        self.live(key).map(value_of)
    }

    /// As [`Txn::get`] in another database than the current one.
    #[must_use]
    pub fn get_in(&self, db: DbIndex, key: &[u8]) -> Option<ValueRef<'_>> {
        self.live_in(db, key).map(value_of)
    }

    /// As [`Txn::get`], without counting as an access.
    #[must_use]
    pub fn look(&self, key: &[u8]) -> Option<ValueRef<'_>> {
        self.counted(self.found(self.db, key), key).map(value_of)
    }

    /// Whether a key exists, which after [`Txn::look_for`] need not be in memory.
    /// Not an access.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let exists = self.is_unread(self.db, key) || self.found(self.db, key).is_some();
        self.count(exists, key);
        exists
    }

    /// The string at a key. `None` when there is no key.
    ///
    /// # Errors
    /// When it holds another type.
    pub fn string(&self, key: &[u8]) -> Result<Option<&[u8]>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(ValueRef::Str(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(WrongType),
        }
    }

    /// As [`Txn::string`], without counting as an access.
    ///
    /// # Errors
    /// As [`Txn::string`].
    pub fn look_string(&self, key: &[u8]) -> Result<Option<&[u8]>, WrongType> {
        match self.look(key) {
            None => Ok(None),
            Some(ValueRef::Str(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(WrongType),
        }
    }

    /// The collection at a key. `None` when there is no key.
    ///
    /// # Errors
    /// When it holds another type.
    pub fn collection<C: crate::edit::Collection>(
        &self,
        key: &[u8],
    ) -> Result<Option<&C>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => C::from_ref(value).map(Some).ok_or(WrongType),
        }
    }

    /// As [`Txn::collection`], without counting as an access.
    ///
    /// # Errors
    /// As [`Txn::collection`].
    pub fn look_collection<C: crate::edit::Collection>(
        &self,
        key: &[u8],
    ) -> Result<Option<&C>, WrongType> {
        match self.look(key) {
            None => Ok(None),
            Some(value) => C::from_ref(value).map(Some).ok_or(WrongType),
        }
    }

    /// Revision, deadline and bookkeeping of a key that exists. Does not count
    /// as an access.
    #[must_use]
    pub fn info(&self, key: &[u8]) -> Option<KeyInfo> {
        let hash = self.hash_of(key);
        self.found(self.db, key).map(|entry| self.info_of(self.db, hash, entry))
    }

    /// The value of a key of any database and what is known besides. Neither an
    /// access nor a read of its own.
    #[must_use]
    pub fn look_closely(&self, db: DbIndex, key: &[u8]) -> Option<(ValueRef<'_>, KeyInfo)> {
        self.look_closely_at(db, self.hash_of(key), key)
    }

    /// As [`Txn::look_closely`], with the key's [`Txn::hash_of`].
    #[must_use]
    pub fn look_closely_at(
        &self,
        db: DbIndex,
        hash: u64,
        key: &[u8],
    ) -> Option<(ValueRef<'_>, KeyInfo)> {
        let entry = self.lookup(db, Keyspace::shard_of_hash(hash), hash, key)?;
        self.seen_closely(db, hash, entry)
    }

    /// What is told of an entry, if its key exists.
    pub(crate) fn seen_closely<'e>(
        &self,
        db: DbIndex,
        hash: u64,
        entry: &'e Entry<Value>,
    ) -> Option<(ValueRef<'e>, KeyInfo)> {
        (!self.is_due(entry)).then(|| (value_of(entry), self.info_of(db, hash, entry)))
    }

    fn info_of(&self, db: DbIndex, hash: u64, entry: &Entry<Value>) -> KeyInfo {
        let shard = self.shard(Keyspace::shard_of_hash(hash));
        let accesses = self.keyspace.accesses();
        let fresh = accesses.fresh(self.options.now_ms);
        // What came into memory before any clock was read, came just now.
        let access = if entry.access() == 0 { fresh } else { entry.access() };
        KeyInfo {
            revision: Revision(entry.revision()),
            moved: shard.dbs[usize::from(db)].moved,
            deadline: entry.deadline(),
            access,
            usage: accesses.usage(access, fresh),
            memory_bytes: info_bytes(entry),
            is_raw: entry.marked(),
        }
    }

    /// The deadline of a key that exists: `Some(None)` when it has none. Neither
    /// an access nor a read of its own.
    #[must_use]
    pub fn deadline(&self, key: &[u8]) -> Option<Option<u64>> {
        self.found(self.db, key).map(Entry::deadline)
    }

    /// Keys in the current database, those not in memory and those due but not
    /// yet removed included.
    #[must_use]
    pub fn len(&self) -> usize {
        (0..SHARDS).map(|i| self.with_shard(i, |s| s.dbs[usize::from(self.db)].len())).sum()
    }

    /// Bytes that a database takes in memory, and how many keys it has, those
    /// not in memory included.
    #[must_use]
    pub fn size_of(&self, db: DbIndex) -> (usize, usize) {
        let add = |(bytes, keys): (usize, usize), index| {
            let size = |shard: &Shard| {
                let part = &shard.dbs[usize::from(db)];
                (part.memory_bytes(), part.len())
            };
            let (more_bytes, more_keys) = self.with_shard(index, size);
            (bytes + more_bytes, keys + more_keys)
        };
        (0..SHARDS).fold((0, 0), add)
    }

    /// Counts of every database that has keys.
    #[must_use]
    pub fn statistics(&self) -> Vec<(DbIndex, crate::DbStatistics)> {
        let mut sum = StatisticsSum::new(self.databases());
        (0..SHARDS).for_each(|i| self.with_shard(i, |shard| sum.add(shard)));
        sum.finish()
    }

    /// Keys that are not in memory. Locks, one at a time, the shards that the
    /// transaction does not hold.
    #[must_use]
    pub fn unloaded(&self) -> u64 {
        let in_shard = |shard: &Shard| shard.dbs.iter().map(Db::unloaded_keys).sum::<u64>();
        if !self.keyspace.is_backed() {
            return 0;
        }
        (0..SHARDS).map(|i| self.with_shard(i, in_shard)).sum()
    }

    /// Whether the current database holds no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether reads from here on count as hits and misses, and a miss is an
    /// event: Redis does so for commands that only read.
    pub fn count_reads(&mut self, are_counted: bool) {
        self.accessed.set(None);
        self.reads.are_counted = are_counted;
    }

    /// The entry of a key that exists, as an access and a read.
    fn live(&self, key: &[u8]) -> Option<&Entry<Value>> {
        self.counted(self.live_in(self.db, key), key)
    }

    fn counted<'e>(&self, entry: Option<&'e Entry<Value>>, key: &[u8]) -> Option<&'e Entry<Value>> {
        self.count(entry.is_some(), key);
        entry
    }

    /// Counts a read as a hit or a miss.
    fn count(&self, is_hit: bool, key: &[u8]) {
        if self.reads.are_counted {
            if is_hit {
                self.reads.hits.set(self.reads.hits.get() + 1);
            } else {
                self.reads.misses.set(self.reads.misses.get() + 1);
                self.notify(class::KEY_MISS, "keymiss", key);
            }
        }
    }

    fn live_in(&self, db: DbIndex, key: &[u8]) -> Option<&Entry<Value>> {
        let entry = self.found(db, key)?;
        if self.options.touch {
            self.keyspace.moment(self.options.now_ms).touch(entry);
            self.accessed.set(Some(place_of(entry)));
        }
        Some(entry)
    }

    /// The entry of a key that exists.
    pub(crate) fn found(&self, db: DbIndex, key: &[u8]) -> Option<&Entry<Value>> {
        let (shard, hash) = self.keyspace.locate(key);
        self.lookup(db, shard, hash, key).filter(|entry| !self.is_due(entry))
    }

    /// The entry at a key, due or not, of a locked shard. Whoever learns of it
    /// depends on its last change, and on the last time that databases changed
    /// places or got keys back; whoever learns that there is none, on the last
    /// time that the shard lost a key.
    pub(crate) fn lookup(
        &self,
        db: DbIndex,
        shard: usize,
        hash: u64,
        key: &[u8],
    ) -> Option<&Entry<Value>> {
        let shard = self.shard(shard);
        let part = &shard.dbs[usize::from(db)];
        let entry = part.table.get(hash, key).or_else(|| self.part_of(db, key));
        debug_assert!(
            entry.is_some() || self.backing_error.is_some() || self.is_absent(db, part, hash, key),
            "key \"{}\" is read before it is loaded",
            key.escape_ascii()
        );
        let told = entry.map_or(shard.last_removal, |entry| Revision(entry.revision()));
        // What came or went with its database says nothing of that.
        self.see(told.max(shard.last_swap));
        entry
    }

    /// The newest revision that what was read by now can depend on.
    #[must_use]
    pub fn depends_on(&self) -> Revision {
        self.seen.get()
    }

    /// Notes that the reply depends on a revision.
    pub(crate) fn see(&self, revision: Revision) {
        self.seen.set(self.seen.get().max(revision));
    }

    /// A look at a whole shard, locked for the moment if the transaction holds
    /// no lock at all.
    pub(super) fn with_shard<R>(&self, index: usize, look: impl FnOnce(&Shard) -> R) -> R {
        let look = |shard: &Shard| {
            self.see(shard.last_revision);
            look(shard)
        };
        match &self.locked {
            // Only here is a lock taken out of order, and no other is held.
            Locked::None => look(&self.keyspace.lock(index)),
            _ => look(self.shard(index)),
        }
    }
}
