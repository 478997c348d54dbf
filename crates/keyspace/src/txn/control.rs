//! Changes of what is kept of the past, and marks for who looks back.

use std::sync::Arc;

use base::{DbIndex, Revision};

use super::{Locked, Txn};
use crate::effect::Effect;
use crate::past_rules::Keep;

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

    /// What it flushes by [`Txn::flush_undoably`] can be taken back until then
    /// (milliseconds since 1970).
    pub fn keep_flushed(&mut self, until_ms: u64) {
        self.undo_until_ms = Some(until_ms);
    }

    /// As [`Txn::flush`]. If [`Txn::keep_flushed`] says so, and there are any
    /// keys, the record tells how many, and that they can be brought back.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn flush_undoably(&mut self, db: DbIndex) {
        let (mut keys, mut bytes) = (0, 0);
        if let Locked::All(guards) = &self.locked {
            for shard in guards {
                let db = &shard.dbs[usize::from(db)];
                keys += db.len() as u64;
                bytes += db.memory_bytes() as u64;
            }
        }
        if let Some(until_ms) = self.undo_until_ms.filter(|_| keys > 0) {
            self.recorder.on_database(db, &Effect::Undoable { keys, bytes, until_ms });
            self.is_undoable = true;
        }
        self.flush(db);
    }

    /// Says that this transaction takes back what that one took away.
    pub fn mark_undone(&mut self, revision: Revision) {
        self.recorder.on_database(self.db, &Effect::Undone { revision });
    }
}
