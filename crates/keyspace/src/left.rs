//! Databases whose keys a flush has taken away and that may have them back.
//!
//! A flush gives a database a fresh space, and a backing still has the old one
//! for as long as the flush can be taken back. So that takes no more than to let
//! the database stand in the old space again: its keys come from the backing, as
//! after a start, or from the memory that the flush took from it and that has not
//! been freed yet ([`FlushedDb`](crate::FlushedDb)). Where records are applied that the backing does not have yet,
//! it does not have all of the old space either; there, what was flushed is put
//! by ([`Keyspace::keep_left`]).

use std::sync::Arc;

use base::{DbIndex, Revision, SpaceId};

use crate::backing::{Backed, Backing};
use crate::garbage::Emptied;
use crate::shard::{Db, Keyspace, SHARDS, Shard};

impl Keyspace {
    /// From here on, what a flush takes away that can be taken back is put by, as
    /// long as it is not said to be [forgotten](Keyspace::forget_left).
    pub fn keep_left(&self) {
        for index in 0..SHARDS {
            self.lock(index).left.get_or_insert_default();
        }
    }

    /// Forgets what was put by, and puts no more by.
    pub fn forget_left(&self) {
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            let left = shard.left.take().unwrap_or_default();
            left.iter().for_each(|db| self.uncount(index, db));
            drop(shard);
        }
    }

    /// The spaces of what was put by, and how many keys each has. Locks one shard
    /// at a time.
    #[must_use]
    pub fn left(&self) -> Vec<(SpaceId, u64)> {
        let mut all: Vec<(SpaceId, u64)> = Vec::new();
        for index in 0..SHARDS {
            for db in self.lock(index).left.iter().flatten() {
                let keys = db.len() as u64;
                match all.iter_mut().find(|(space, _)| *space == db.space) {
                    Some((_, sum)) => *sum += keys,
                    None => all.push((db.space, keys)),
                }
            }
        }
        all
    }
}

impl Shard {
    /// What stands in a space: a database, or what was put by.
    pub(crate) fn in_space(&self, space: SpaceId) -> Option<&Db> {
        self.dbs.iter().chain(self.left.iter().flatten()).find(|db| db.space == space)
    }

    /// Puts a database, which is empty, back into a space.
    pub(crate) fn put_back(
        &mut self,
        db: DbIndex,
        space: SpaceId,
        returned: Revision,
        fresh: impl FnOnce() -> Db,
    ) {
        let left = self.left.as_mut().and_then(|left| {
            let found = left.iter().position(|db| db.space == space)?;
            Some(left.swap_remove(found))
        });
        let place = &mut self.dbs[usize::from(db)];
        let mut back = left.unwrap_or_else(fresh);
        let own = place.own.anew();
        let remembers = place.removals.is_some();
        // Both are counted until the end of the transaction.
        back.counted += place.counted;
        (back.bit, back.own, back.moved) = (place.bit, own, returned);
        if remembers && back.removals.is_none() {
            back.remember_removals();
        }
        *place = back;
        self.note_removal(returned);
        self.last_swap = returned;
    }
}

/// A part of a database that has so many keys, all of them in the backing.
pub(crate) fn filled(
    keyspace: &Keyspace,
    backing: Option<&Arc<dyn Backing>>,
    space: SpaceId,
    keys: u64,
) -> Db {
    let mut db = Db::new(keyspace.seed(), space);
    if keys > 0 {
        let backing = backing.expect("looked at before").clone();
        let backed = Backed::new(backing, keys, keyspace.seed(), keyspace.backed_count());
        db.backed = Some(Box::new(backed));
    }
    db
}

/// A part of a database that has what a flush took from it.
pub(crate) fn refilled(keyspace: &Keyspace, space: SpaceId, emptied: Option<Emptied>) -> Db {
    let mut db = Db::new(keyspace.seed(), space);
    if let Some(Emptied { table, deadlines, entry_bytes, .. }) = emptied {
        (db.table, db.deadlines, db.entry_bytes) = (table, deadlines, entry_bytes);
    }
    db
}
