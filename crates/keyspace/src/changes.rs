//! What has changed since a revision: for whoever keeps a copy elsewhere and
//! brings it up to date now and then.

use base::{DbIndex, Revision, SpaceId};

use crate::shard::{Keyspace, SHARDS, Spaces, value_of};
use crate::value::ValueRef;

/// What a key has become.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// It has this value.
    Is {
        /// The value.
        value: ValueRef<'a>,
        /// When the key expires, in milliseconds since 1970.
        deadline: Option<u64>,
        /// Revision of its last change.
        revision: Revision,
    },
    /// It was removed.
    Gone {
        /// The revision that removed it.
        revision: Revision,
    },
}

/// Where databases stand of which nothing is known yet.
pub(crate) fn first_spaces(databases: DbIndex) -> Spaces {
    (0..databases).map(|db| (db, SpaceId::first_of(db), [0; SHARDS])).collect()
}

impl Keyspace {
    /// Remembers every key that is removed from here on, for
    /// [`Keyspace::changed_since`]. To be called before there is any.
    pub fn remember_removals(&self) {
        for index in 0..SHARDS {
            for db in &mut self.lock(index).dbs {
                db.remember_removals();
            }
        }
    }

    /// Where each database's keys stand in storage, and how many each shard
    /// has, in memory or not. Locks one shard at a time.
    #[must_use]
    pub fn spaces(&self) -> Spaces {
        let mut spaces = first_spaces(self.databases());
        (0..SHARDS).for_each(|index| self.lock(index).note_spaces(index, &mut spaces));
        spaces
    }

    /// Visits the keys of one database and shard that were changed after
    /// `since`, or removed since [`Keyspace::remember_removals`], with their
    /// hashes. The shard is locked meanwhile.
    ///
    /// # Panics
    /// When there is no such database or shard.
    pub fn changed_since(
        &self,
        db: DbIndex,
        shard: usize,
        since: Revision,
        visit: &mut dyn FnMut(u64, &[u8], Change<'_>),
    ) {
        let space = self.lock(shard).dbs[usize::from(db)].space;
        self.changed_in(space, shard, since, visit);
    }

    /// The same of a space, where a database stands or what was
    /// [put by](Keyspace::keep_left).
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn changed_in(
        &self,
        space: SpaceId,
        shard: usize,
        since: Revision,
        visit: &mut dyn FnMut(u64, &[u8], Change<'_>),
    ) {
        let shard = self.lock(shard);
        let Some(db) = shard.in_space(space) else { return };
        for entry in db.table.iter() {
            let revision = Revision(entry.revision());
            if revision > since {
                let (value, deadline) = (value_of(entry), entry.deadline());
                let change = Change::Is { value, deadline, revision };
                visit(db.table.hash_of(entry.key()), entry.key(), change);
            }
        }
        for removed in db.removals.iter().flat_map(|removals| removals.iter()) {
            let change = Change::Gone { revision: removed.revision };
            visit(db.table.hash_of(&removed.key), &removed.key, change);
        }
    }
}
