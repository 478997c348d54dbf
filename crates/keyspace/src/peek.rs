//! What memory can tell of a key: as it was at an earlier revision, which a
//! branch asks of its parent before it asks the archive, or nothing at all.

use base::{DbIndex, Revision, SpaceId};
use entry::Entry;

use crate::backing::Stored;
use crate::shard::{Db, Keyspace, Shard, value_of};
use crate::txn::Txn;
use crate::value::{Value, ValueRef};

/// What memory can tell of a key, of which `T` is asked.
#[derive(Debug)]
pub enum Peek<T> {
    /// It existed, and this is what was asked.
    Is(T),
    /// It did not exist.
    Absent,
    /// It was what it was below: this branch has never changed it.
    Below,
    /// It has changed since, or is not in memory, or takes long to copy.
    Unknown,
}

/// From more elements on it may pay to make a collection of the past from a copy
/// of the present, see [`Keyspace::copy_large`].
pub const NEAR_ELEMENTS: usize = 4096;

/// Bytes from which on a string takes longer to read from disk than others should
/// wait, see [`Keyspace::is_long`].
pub const LONG_BYTES: usize = 256 << 10;

/// Bytes up to which a value counts as small: a string that is copied with a shard
/// locked which others wait for, as collections share what they have in common; and
/// whatever one can afford to keep some of, see [`Keyspace::copy_small`].
pub const SMALL_BYTES_MAX: usize = 64 << 10;

/// A key that was looked up in a database.
pub(crate) struct Looked<'s> {
    last_removal: Revision,
    db: &'s Db,
    hash: u64,
    key: &'s [u8],
    found: Option<&'s Entry<Value>>,
}

impl<'s> Looked<'s> {
    pub(crate) fn up(shard: &'s Shard, db: usize, hash: u64, key: &'s [u8]) -> Looked<'s> {
        Looked::found(shard, db, (hash, key), shard.dbs[db].table.get(hash, key))
    }

    /// What a lookup has found.
    pub(crate) fn found(
        shard: &'s Shard,
        db: usize,
        (hash, key): (u64, &'s [u8]),
        found: Option<&'s Entry<Value>>,
    ) -> Looked<'s> {
        Looked { last_removal: shard.last_removal, db: &shard.dbs[db], hash, key, found }
    }

    /// Whether it may stand in the backing only.
    pub(crate) fn is_unknown(&self) -> bool {
        self.found.is_none() && !self.db.knows_missing(self.hash, self.key)
    }

    pub(crate) fn space(&self) -> SpaceId {
        self.db.space
    }

    /// As it was at an earlier revision; its entry, if that has not changed since.
    fn as_of(&self, at: Revision) -> Peek<Option<&'s Entry<Value>>> {
        let &Looked { last_removal, db, hash, key, found } = self;
        match found {
            Some(entry) if entry.revision() <= at.0 => Peek::Is(Some(entry)),
            Some(entry) => match db.own.existed(entry, at, last_removal) {
                Some(true) => Peek::Is(None),
                Some(false) => Peek::Absent,
                None => Peek::Unknown,
            },
            // It may have been there and gone, to come back later.
            None if db.knows_missing(hash, key) && last_removal <= at => Peek::Absent,
            None if db.own.lacks(hash) && !db.knows_missing(hash, key) => Peek::Below,
            None => Peek::Unknown,
        }
    }

    /// Whether it existed then, without a deadline.
    pub(crate) fn presence(&self, at: Revision) -> Peek<()> {
        match self.as_of(at) {
            Peek::Is(Some(entry)) if entry.deadline().is_some() => Peek::Unknown,
            Peek::Is(_) => Peek::Is(()),
            Peek::Absent => Peek::Absent,
            Peek::Below => Peek::Below,
            Peek::Unknown => Peek::Unknown,
        }
    }
}

impl Shard {
    /// Which database has a space.
    pub(crate) fn db_in(&self, space: SpaceId) -> Option<usize> {
        self.dbs.iter().position(|db| db.space == space)
    }
}

impl Keyspace {
    /// Under which space and hash the backing would be asked for a key; `None`
    /// when it need not be.
    ///
    /// # Panics
    /// When there is no such database.
    #[must_use]
    pub fn unknown(&self, db: DbIndex, key: &[u8]) -> Option<(SpaceId, u64)> {
        if !self.is_backed() {
            return None;
        }
        let (index, hash) = self.locate(key);
        let shard = self.lock(index);
        let db = &shard.dbs[usize::from(db)];
        let is_known = db.table.get(hash, key).is_some() || db.knows_missing(hash, key);
        (!is_known).then_some((db.space, hash))
    }

    /// Whether the backing would be asked for a key of a space, where a database
    /// stands or what was [put by](Keyspace::keep_left).
    #[must_use]
    pub fn is_unknown_in(&self, space: SpaceId, key: &[u8]) -> bool {
        let (index, hash) = self.locate(key);
        let shard = self.lock(index);
        shard
            .in_space(space)
            .is_some_and(|db| db.table.get(hash, key).is_none() && !db.knows_missing(hash, key))
    }

    /// The key of `space` as it was at `at`, whoever has the space now, as a
    /// [shared copy](ValueRef::to_shared). `hash` is that under this keyspace's
    /// seed. Locks the key's shard.
    #[must_use]
    pub fn peek(&self, space: SpaceId, hash: u64, key: &[u8], at: Revision) -> Peek<Stored> {
        let shard = self.lock(Keyspace::shard_of_hash(hash));
        let Some(db) = shard.db_in(space) else { return Peek::Unknown };
        let mut stored = match Looked::up(&shard, db, hash, key).as_of(at) {
            Peek::Is(Some(entry)) => match value_of(entry) {
                ValueRef::Str(bytes) if bytes.len() > SMALL_BYTES_MAX => return Peek::Unknown,
                value => Stored {
                    value: value.to_shared(),
                    deadline: entry.deadline(),
                    revision: Revision(entry.revision()),
                },
            },
            Peek::Absent => return Peek::Absent,
            Peek::Below => return Peek::Below,
            Peek::Is(None) | Peek::Unknown => return Peek::Unknown,
        };
        drop(shard);
        stored.value.own_outline();
        Peek::Is(stored)
    }

    /// A [shared copy](ValueRef::to_shared) of a key of a database as it is, due
    /// or not, if it is in memory and a collection of more than so many elements.
    /// Locks the key's shard.
    ///
    /// # Panics
    /// When there is no such database.
    #[must_use]
    pub fn copy_large(&self, db: DbIndex, key: &[u8], more_than: usize) -> Option<Stored> {
        self.copy_large_of(|_| Some(usize::from(db)), key, more_than)
    }

    /// A copy of a key of a database as it is, due or not, if it is in memory and
    /// takes [`SMALL_BYTES_MAX`] at most. Locks the key's shard.
    ///
    /// # Panics
    /// When there is no such database.
    #[must_use]
    pub fn copy_small(&self, db: DbIndex, key: &[u8]) -> Option<Stored> {
        let (index, hash) = self.locate(key);
        let shard = self.lock(index);
        let entry = shard.dbs[usize::from(db)].table.get(hash, key)?;
        let value = value_of(entry);
        (value.memory_bytes() <= SMALL_BYTES_MAX).then(|| Stored {
            value: value.to_shared(),
            deadline: entry.deadline(),
            revision: Revision(entry.revision()),
        })
    }

    /// Whether memory knows a key of a database, or knows that there is none. Locks
    /// the key's shard.
    ///
    /// # Panics
    /// When there is no such database.
    #[must_use]
    pub fn has_at_hand(&self, db: DbIndex, key: &[u8]) -> bool {
        let (index, hash) = self.locate(key);
        let shard = self.lock(index);
        let db = &shard.dbs[usize::from(db)];
        db.table.get(hash, key).is_some() || db.knows_missing(hash, key)
    }

    /// Whether a key of a database is in memory and takes long to copy: a string of
    /// more than [`LONG_BYTES`], or a collection of more than [`NEAR_ELEMENTS`].
    /// Locks the key's shard.
    ///
    /// # Panics
    /// When there is no such database.
    #[must_use]
    pub fn is_long(&self, db: DbIndex, key: &[u8]) -> bool {
        let (index, hash) = self.locate(key);
        let shard = self.lock(index);
        let found = shard.dbs[usize::from(db)].table.get(hash, key);
        found.is_some_and(|entry| match value_of(entry) {
            ValueRef::Str(bytes) => bytes.len() > LONG_BYTES,
            value => value.element_count() > NEAR_ELEMENTS,
        })
    }

    /// As [`Keyspace::copy_large`], of a key of `space`, whoever has that now.
    #[must_use]
    pub fn copy_large_in(&self, space: SpaceId, key: &[u8], more_than: usize) -> Option<Stored> {
        self.copy_large_of(|shard| shard.db_in(space), key, more_than)
    }

    fn copy_large_of(
        &self,
        db: impl Fn(&Shard) -> Option<usize>,
        key: &[u8],
        more_than: usize,
    ) -> Option<Stored> {
        let (index, hash) = self.locate(key);
        let shard = self.lock(index);
        let entry = shard.dbs[db(&shard)?].table.get(hash, key)?;
        let value = value_of(entry);
        if value.element_count() <= more_than {
            return None;
        }
        let (deadline, revision) = (entry.deadline(), Revision(entry.revision()));
        let mut stored = Stored { value: value.to_shared(), deadline, revision };
        drop(shard);
        stored.value.own_outline();
        Some(stored)
    }

    /// As [`Keyspace::peek`], of whether it existed without a deadline.
    #[must_use]
    pub fn peek_presence(&self, space: SpaceId, hash: u64, key: &[u8], at: Revision) -> Peek<()> {
        let shard = self.lock(Keyspace::shard_of_hash(hash));
        let Some(db) = shard.db_in(space) else { return Peek::Unknown };
        Looked::up(&shard, db, hash, key).presence(at)
    }

    /// Keys may have been removed up to `revision`, and databases have changed
    /// places, of which nothing is known here. To be called for a keyspace that
    /// is filled from a backing, before anybody peeks.
    pub fn assume_removals(&self, revision: Revision) {
        for index in 0..crate::SHARDS {
            let mut shard = self.lock(index);
            shard.last_removal = shard.last_removal.max(revision);
            shard.last_swap = shard.last_swap.max(revision);
        }
    }

    /// What stands in a database has been there since `revision`, at which it
    /// changed places or came back, where no record that was applied tells so.
    pub fn assume_moved(&self, db: DbIndex, revision: Revision) {
        for index in 0..crate::SHARDS {
            let moved = &mut self.lock(index).dbs[usize::from(db)].moved;
            *moved = revision.max(*moved);
        }
    }
}

/// What a transaction can tell of a key at an earlier revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// It was what it is now, with this deadline.
    Unchanged(Option<u64>),
    /// It did not exist, and does not.
    Absent,
    /// It has changed since, or is not in memory.
    Unknown,
}

impl Txn<'_> {
    /// Whether a key of the current database is as it was right after `at`,
    /// which must be committed.
    ///
    /// # Panics
    /// When the key's shard is not locked.
    #[must_use]
    pub fn since(&self, key: &[u8], at: Revision) -> Since {
        let (index, hash) = self.keyspace.locate(key);
        let shard = self.shard(index);
        let db = &shard.dbs[usize::from(self.db())];
        match db.table.get(hash, key) {
            // In a database that was elsewhere then, it was not this key.
            Some(entry) if entry.revision() <= at.0 && shard.last_swap <= at => {
                Since::Unchanged(entry.deadline())
            }
            // It may have been there and gone, to come back later.
            Some(_) => Since::Unknown,
            None if shard.last_removal <= at && db.knows_missing(hash, key) => Since::Absent,
            None => Since::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffers, EncodingLimits, Journal, Scope, TxnOptions};

    struct Unchanged;

    impl Journal for Unchanged {
        fn reserve(&self) -> Revision {
            unreachable!("nothing is changed")
        }
        fn append(&self, _: Revision, _: u64, _: base::DbIndex, _: &[u8]) {}
    }

    #[test]
    fn before_what_is_known_nothing_is() {
        let keyspace = Keyspace::new(1, 1);
        let value = Value::Str(b"v".to_vec());
        keyspace.give(0, b"k", Stored { value, deadline: Some(9), revision: Revision(5) });
        let since = |key: &[u8], at: u64| {
            let limits = EncodingLimits::default();
            let options = TxnOptions::quiet(&limits);
            let mut buffers = Buffers::default();
            let txn = Txn::begin(&keyspace, &Scope::All, &Unchanged, &mut buffers, options);
            txn.since(key, Revision(at))
        };
        assert_eq!(since(b"k", 4), Since::Unknown);
        assert_eq!(since(b"k", 5), Since::Unchanged(Some(9)));
        assert_eq!(since(b"none", 0), Since::Absent);
        // Databases may have changed places, and keys gone.
        keyspace.assume_removals(Revision(7));
        assert_eq!((since(b"k", 6), since(b"none", 6)), (Since::Unknown, Since::Unknown));
        assert_eq!(since(b"k", 7), Since::Unchanged(Some(9)));
        assert_eq!(since(b"none", 7), Since::Absent);
    }

    #[test]
    fn a_large_collection_is_copied_as_it_is_and_stays_so() {
        let keyspace = Keyspace::new(2, 1);
        let limits = EncodingLimits::default();
        let mut set = crate::types::Set::new(1);
        (0..1000).for_each(|n| _ = set.add(format!("m{n}").as_bytes(), &limits));
        let stored = Stored { value: Value::Set(set), deadline: Some(9), revision: Revision(5) };
        keyspace.give(1, b"set", stored);
        let space = SpaceId::first_of(1);
        let members = |stored: &Stored| match &stored.value {
            Value::Set(set) => (set.len(), set.contains(b"m7"), set.contains(b"new")),
            other => panic!("{other:?} is no set"),
        };
        let copies = [
            keyspace.copy_large(1, b"set", 999),
            keyspace.copy_large_in(space, b"set", 999),
            match keyspace.peek(space, crate::hash_of(1, b"set"), b"set", Revision(5)) {
                Peek::Is(stored) => Some(stored),
                other => panic!("{other:?}"),
            },
        ];
        let Some(Stored { value: Value::Set(mut set), .. }) = keyspace.take(1, b"set").unwrap()
        else {
            panic!("it is there")
        };
        set.remove(b"m7");
        set.add(b"new", &limits);
        let copied = copies.map(|copy| copy.expect("it is large"));
        for copy in &copied {
            assert_eq!(members(copy), (1000, true, false));
            assert_eq!((copy.deadline, copy.revision), (Some(9), Revision(5)));
        }
        assert!(keyspace.copy_large(1, b"set", 0).is_none(), "it was taken");
        let [copy, ..] = copied;
        keyspace.give(1, b"set", copy);
        assert!(keyspace.copy_large(1, b"set", 1000).is_none());
        assert!(keyspace.copy_large(0, b"set", 0).is_none());
        assert_eq!(keyspace.check(), Ok(()));
    }
}
