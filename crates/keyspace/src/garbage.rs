//! What was removed from a keyspace and whose memory is not yet freed.

use std::collections::BTreeSet;

use base::{Revision, SpaceId};
use entry::Entry;

use crate::shard::{DEADLINE_BYTES, Keyspace};
use crate::table::Table;
use crate::value::Value;

/// Keys of a flushed database that are dropped at one go.
const KEYS_AT_ONCE: usize = 256;

/// Something removed from the keyspace.
#[derive(Debug)]
pub enum Garbage {
    /// A value of its own allocation.
    Value(Box<Value>),
    /// A whole database.
    Db(FlushedDb),
    /// Many keys, shard by shard.
    Entries(Vec<Vec<Entry<Value>>>),
}

impl Garbage {
    /// Drops it a few hundred keys at a time, with a pause after each.
    pub fn drop_in_parts(self, pause: impl Fn()) {
        match self {
            Garbage::Value(value) => drop(value),
            Garbage::Db(db) => {
                for Emptied { mut table, deadlines, .. } in db.parts.into_iter().flatten() {
                    drop(deadlines);
                    drop_each(table.drain(), &pause);
                }
            }
            Garbage::Entries(parts) => parts.into_iter().for_each(|it| drop_each(it, &pause)),
        }
    }

    /// Whether it has so many pieces that it is to be freed in the background:
    /// more than 64, as in Redis.
    #[must_use]
    pub fn is_much(&self) -> bool {
        let pieces: usize = match self {
            Garbage::Value(value) => value.as_ref().as_ref().element_count(),
            Garbage::Db(db) => db.parts.iter().flatten().map(|part| part.table.len()).sum(),
            Garbage::Entries(parts) => parts.iter().map(Vec::len).sum(),
        };
        pieces > 64
    }
}

fn drop_each(entries: impl IntoIterator<Item = Entry<Value>>, pause: &impl Fn()) {
    for (number, entry) in (1..).zip(entries) {
        drop(entry);
        if number % KEYS_AT_ONCE == 0 {
            pause();
        }
    }
}

/// A flushed database.
#[derive(Debug)]
pub struct FlushedDb {
    /// What each shard had of it, if anything.
    parts: Vec<Option<Emptied>>,
    /// By what, if that can be taken back.
    flush: Option<Flush>,
}

/// A flush of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flush {
    /// Where the database stood.
    pub space: SpaceId,
    /// The revision that emptied it.
    pub revision: Revision,
}

/// The keys that one database's part of a shard had in memory.
#[derive(Debug)]
pub(crate) struct Emptied {
    pub(crate) table: Table<Entry<Value>>,
    pub(crate) deadlines: BTreeSet<(u64, u64)>,
    pub(crate) entry_bytes: usize,
    /// Whether it had no others.
    pub(crate) is_whole: bool,
}

impl Emptied {
    fn memory_bytes(&self) -> usize {
        let index = self.deadlines.len() * DEADLINE_BYTES;
        self.table.memory_bytes() + self.entry_bytes + index
    }
}

impl FlushedDb {
    /// The parts are those of all shards. `None` where they are all empty.
    pub(crate) fn new(parts: Vec<Option<Emptied>>, flush: Option<Flush>) -> Option<FlushedDb> {
        parts.iter().any(Option::is_some).then_some(FlushedDb { parts, flush })
    }

    /// The flush, if it can be taken back and this is all that it took, so that
    /// the database [can have it back](crate::Txn::stand_again).
    #[must_use]
    pub fn flush(&self) -> Option<Flush> {
        self.flush.filter(|_| self.parts.iter().flatten().all(|part| part.is_whole))
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.parts.iter().flatten().map(Emptied::memory_bytes).sum()
    }

    /// Whether it had a key, which has this [hash](crate::Keyspace::hash_of), in
    /// memory.
    #[must_use]
    pub fn has(&self, hash: u64, key: &[u8]) -> bool {
        let part = self.parts.get(Keyspace::shard_of_hash(hash)).and_then(Option::as_ref);
        part.is_some_and(|part| part.table.get(hash, key).is_some())
    }

    /// What one shard had of it.
    pub(crate) fn take(&mut self, shard: usize) -> Option<Emptied> {
        self.parts.get_mut(shard).and_then(Option::take)
    }
}
