//! Changes of databases as wholes.

use base::{DbIndex, Revision};

use super::{Locked, Txn};
use crate::effect::Effect;
use crate::shard::{Keyspace, SHARDS, Spaces};

impl Txn<'_> {
    /// Removes every key of one database.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn flush(&mut self, db: DbIndex) {
        let revision = self.recorder.on_database(db, &Effect::Flush { db });
        let seed = self.keyspace.seed();
        let Locked::All(guards) = &mut self.locked else {
            panic!("flush needs every shard locked: the command's scope must be All");
        };
        // Databases stand in the same spaces in every shard.
        let space = guards[0].fresh_space(db, revision);
        let mut flushed = Vec::new();
        for shard in guards {
            shard.note_removal(revision);
            flushed.extend(shard.flush(db, seed, space));
        }
        if !flushed.is_empty() {
            self.recorder.throw_away_db(flushed);
            self.changed.note_whole(db);
        }
        self.absent.clear();
    }

    /// Puts another keyspace's content in the place of this one's. Nothing is
    /// recorded: the other must be what the journal says, as after a replay.
    ///
    /// # Panics
    /// When not all shards are locked, or `other` was not made by
    /// [`Keyspace::empty_like`].
    pub fn replace_with(&mut self, other: &Keyspace) {
        assert!(
            other.seed() == self.keyspace.seed() && other.databases() == self.keyspace.databases(),
            "the other keyspace must be made by empty_like"
        );
        let Locked::All(guards) = &mut self.locked else {
            panic!("replace_with needs every shard locked: the scope must be All");
        };
        for (index, shard) in guards.iter_mut().enumerate() {
            let mut theirs = other.lock(index);
            shard.last_removal = shard.last_removal.max(theirs.last_removal);
            shard.last_swap = shard.last_swap.max(theirs.last_swap);
            for (ours, theirs) in shard.dbs.iter_mut().zip(&mut theirs.dbs) {
                ours.exchange(theirs);
                ours.backed.iter_mut().for_each(|b| b.move_to(self.keyspace.backed_count()));
                theirs.backed.iter_mut().for_each(|b| b.move_to(other.backed_count()));
            }
        }
        self.keyspace.set_past_rules(other.past_rules());
        let backing = other.backing().lock().clone();
        if backing.is_some() {
            *self.keyspace.backing().lock() = backing;
        }
        (0..self.databases()).for_each(|db| self.changed.note_whole(db));
    }

    /// Lets two databases change places.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn swap(&mut self, a: DbIndex, b: DbIndex) {
        if a == b {
            return;
        }
        let revision = self.recorder.on_database(a, &Effect::Swap { a, b });
        let Locked::All(guards) = &mut self.locked else {
            panic!("swap needs every shard locked: the command's scope must be All");
        };
        for shard in guards {
            shard.note_removal(revision);
            shard.last_swap = revision;
            shard.dbs.swap(usize::from(a), usize::from(b));
        }
        self.absent.clear();
        // What is to be recounted at the end has changed places too.
        self.changed.swap(a, b);
    }

    /// Records what is no change of a key: of branches and tags. Answers the
    /// transaction's revision.
    pub fn declare(&mut self, effect: &Effect<'_>) -> Revision {
        self.recorder.on_database(self.db, effect)
    }

    /// [`Keyspace::spaces`], as of this transaction.
    ///
    /// # Panics
    /// When not all shards are locked.
    #[must_use]
    pub fn spaces(&self) -> Spaces {
        let mut spaces = crate::changes::first_spaces(self.databases());
        (0..SHARDS).for_each(|index| self.shard(index).note_spaces(index, &mut spaces));
        spaces
    }
}
