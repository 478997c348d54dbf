//! Changes of what is kept of the past, and marks for who looks back.

use std::sync::Arc;

use base::{DbIndex, Revision, SpaceId};

use super::{Locked, Txn};
use crate::effect::{Effect, put_counts};
use crate::past_rules::Keep;
use crate::shard::SHARDS;

/// What the parts of a database have.
struct Parts {
    keys: [u64; SHARDS],
    bytes: u64,
    space: SpaceId,
}

impl Txn<'_> {
    /// Keeps so much of the past of the keys that `glob` matches; this rule
    /// comes before all others from here on. `oldest` is what can be read now.
    pub fn keep_past(&mut self, glob: &[u8], keep: Keep, oldest: Revision) {
        self.change_rules(&Effect::KeepRule { glob, keep, oldest });
    }

    /// Takes back what [`Txn::keep_past`] said of `glob`; answers whether there
    /// was a rule.
    pub fn forget_rule(&mut self, glob: &[u8]) -> bool {
        let is_there = self.keyspace.past_rules().rules().iter().any(|rule| rule.glob == glob);
        if is_there {
            self.change_rules(&Effect::KeepRuleGone { glob });
        }
        is_there
    }

    /// Says that nobody is to read what a key, or every key with this prefix,
    /// was before this transaction. Each of them is then to be
    /// [erased](Txn::erase). What came before `oldest` cannot be read anyway.
    pub fn purge_past(&mut self, db: DbIndex, key: &[u8], is_prefix: bool, oldest: Revision) {
        self.change_rules(&Effect::Purge { db, key, is_prefix, oldest });
    }

    /// Under the rules' own lock, so that they change in the order of revisions.
    fn change_rules(&mut self, effect: &Effect<'_>) {
        let cell = self.keyspace.past_rules_cell();
        let mut rules = cell.write();
        let revision = self.recorder.on_database(self.db, effect);
        Arc::make_mut(&mut rules).apply(revision, effect);
    }

    /// Begins the past of a key anew: it is gone, if it was there, and its
    /// record says nothing of what it was. To be followed by what it is now.
    pub fn erase(&mut self, key: &[u8]) {
        self.load(key);
        // Not whether the key existed: where its past is erased, nobody knows.
        let revision = self.recorder.on_key_told(self.db, key, None, &Effect::Erase);
        let (shard, hash) = self.keyspace.locate(key);
        if self.lookup(self.db, shard, hash, key).is_some() {
            self.take_out(shard, hash, key, revision);
        }
    }

    /// What it flushes by [`Txn::flush_undoably`], or removes by
    /// [`Txn::remove_chosen`], can be taken back until then (milliseconds since
    /// 1970). Of a flush of what has `left_from` keys or more the record
    /// tells where they stay, so that they can [stand there
    /// again](Txn::stand_again).
    pub fn keep_flushed(&mut self, until_ms: u64, left_from: u64) {
        (self.undo_until_ms, self.left_from) = (Some(until_ms), left_from);
    }

    /// As [`Txn::flush`]. If [`Txn::keep_flushed`] says so, and there are any
    /// keys, the record tells how many, and that they can be brought back.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn flush_undoably(&mut self, db: DbIndex) {
        let size = self.parts_of(db);
        self.flush_of(db, &size, size.keys.iter().sum());
    }

    fn parts_of(&self, db: DbIndex) -> Parts {
        let mut parts = Parts { keys: [0; SHARDS], bytes: 0, space: SpaceId::first_of(db) };
        if let Locked::All(guards) = &self.locked {
            for (shard, keys) in guards.iter().zip(&mut parts.keys) {
                let db = &shard.dbs[usize::from(db)];
                *keys = db.len() as u64;
                parts.bytes += db.memory_bytes() as u64;
                parts.space = db.space;
            }
        }
        parts
    }

    /// Flushes a database of this size, one of those that have `of_all` keys
    /// together.
    fn flush_of(&mut self, db: DbIndex, parts: &Parts, of_all: u64) {
        let Parts { keys: counts, bytes, space } = *parts;
        let keys = counts.iter().sum();
        let until_ms = self.undo_until_ms.filter(|_| keys > 0);
        let leaves = until_ms.is_some() && of_all >= self.left_from;
        if let Some(until_ms) = until_ms {
            self.recorder.on_database(db, &Effect::Undoable { keys, bytes, until_ms });
            self.is_undoable = true;
        }
        if leaves {
            let mut keys = Vec::with_capacity(2 * SHARDS);
            put_counts(&mut keys, &counts);
            self.recorder.on_database(db, &Effect::Leaves { space, keys: &keys });
        }
        self.flush_keeping(db, leaves);
    }

    /// Flushes every database that may have keys, and the current one in any
    /// case; undoably, unless that is `for_good`.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn flush_all(&mut self, for_good: bool) {
        let mut to_flush = Vec::new();
        for db in 0..self.databases() {
            // Most databases are never used, and looking at all their parts takes
            // longer than all the rest.
            let is_used = self.keyspace.is_used(db)
                || self.changed.iter().any(|(_, changed)| changed == db)
                || db == self.db();
            if !is_used {
                debug_assert!(
                    (0..SHARDS).all(|index| self.shard(index).dbs[usize::from(db)].is_pristine()),
                    "database {db} has keys and does not count as used"
                );
                continue;
            }
            to_flush.push(db);
        }
        if for_good {
            to_flush.into_iter().for_each(|db| self.flush(db));
            return;
        }
        let parts: Vec<Parts> = to_flush.iter().map(|&db| self.parts_of(db)).collect();
        let of_all = parts.iter().flat_map(|parts| &parts.keys).sum();
        for (db, parts) in to_flush.into_iter().zip(&parts) {
            self.flush_of(db, parts, of_all);
        }
    }

    /// Says that this transaction takes back what that one took away.
    pub fn mark_undone(&mut self, revision: Revision) {
        self.recorder.on_database(self.db, &Effect::Undone { revision });
    }
}
