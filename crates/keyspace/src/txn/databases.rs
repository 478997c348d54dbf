//! Changes of databases as wholes.

use base::{DbIndex, Revision, SpaceId};

use super::{Locked, Txn};
use crate::effect::{Effect, take_counts};
use crate::garbage::{Flush, FlushedDb};
use crate::left::{filled, refilled};
use crate::shard::{Keyspace, SHARDS, Spaces};
use crate::value::Value;

/// Why the keys of a database cannot come back.
const NOT_EMPTY: &str = "keys stand where those of an emptied database belong";
const NOWHERE: &str = "there is nothing that has the keys of an emptied database";

impl Txn<'_> {
    /// Removes every key of one database.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn flush(&mut self, db: DbIndex) {
        self.flush_keeping(db, false);
    }

    /// As [`Txn::flush`]; what is flushed is put by, where it is (`left.rs`).
    pub(crate) fn flush_keeping(&mut self, db: DbIndex, keeps: bool) {
        let revision = self.recorder.on_database(db, &Effect::Flush { db });
        let Locked::All(guards) = &mut self.locked else {
            panic!("flush needs every shard locked: the command's scope must be All");
        };
        // Databases stand in the same spaces in every shard.
        let space = guards[0].fresh_space(db, revision);
        let left = guards[0].dbs[usize::from(db)].space;
        let mut parts = Vec::with_capacity(SHARDS);
        for (index, shard) in guards.iter_mut().enumerate() {
            shard.note_removal(revision);
            parts.push(shard.flush(db, space, keeps));
            if let Some(left) = shard.left.as_mut().filter(|_| keeps).and_then(|it| it.last_mut()) {
                self.keyspace.recount(index, left);
            }
        }
        let flush = keeps.then_some(Flush { space: left, revision });
        let flushed = FlushedDb::new(parts, flush);
        if flushed.is_some() || keeps {
            self.recorder.throw_away_db(flushed);
            self.changed.note_whole(db);
        }
        self.unread.clear();
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
                // What is read again from disk moved when it did.
                let moved = ours.moved;
                ours.exchange(theirs);
                ours.moved = ours.moved.max(moved);
                ours.backed.iter_mut().for_each(|b| b.move_to(self.keyspace.backed_count()));
                theirs.backed.iter_mut().for_each(|b| b.move_to(other.backed_count()));
            }
        }
        self.keyspace.set_past_rules(other.past_rules());
        self.keyspace.assume_used();
        other.assume_used();
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
            shard.swap(a, b, revision);
        }
        self.unread.clear();
        self.keyspace.assume_used();
        // What is to be recounted at the end has changed places too.
        self.changed.swap(a, b);
    }

    /// Whether a database is empty and was never written to since it was made or
    /// flushed, as far as memory knows, nor changed places after `upto`.
    ///
    /// # Panics
    /// When not all shards are locked.
    #[must_use]
    pub fn is_untouched(&self, db: DbIndex, upto: Revision) -> bool {
        self.is_pristine(db) && (0..SHARDS).all(|index| self.shard(index).last_swap <= upto)
    }

    /// As [`Txn::is_untouched`], wherever it stood.
    fn is_pristine(&self, db: DbIndex) -> bool {
        (0..SHARDS).all(|index| self.shard(index).dbs[usize::from(db)].is_pristine())
    }

    /// Lets a database, which must be empty, stand again in a space that a flush
    /// left, with so many keys in each shard as [`Effect::Leaves`] told. They are
    /// those of `flushed`, which is whole and of that flush; else what was put by,
    /// or the backing, has them.
    ///
    /// # Errors
    /// When it is not empty, or nothing has the keys. Nothing has changed then.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn stand_again(
        &mut self,
        db: DbIndex,
        space: SpaceId,
        keys: &[u8],
        flushed: Option<FlushedDb>,
    ) -> Result<(), &'static str> {
        if (0..SHARDS).any(|index| self.shard(index).dbs[usize::from(db)].len() > 0) {
            return Err(NOT_EMPTY);
        }
        let counts = self.left_keys(space, keys, flushed.as_ref())?;
        self.put_back(db, space, (keys, &counts), flushed);
        Ok(())
    }

    /// As [`Txn::stand_again`], of a database that may have keys: it is flushed
    /// before, and gets `own` beside those that the flush left, which must be other
    /// ones.
    ///
    /// # Errors
    /// When nothing has the keys that the flush left. Nothing has changed then.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn stand_again_beside(
        &mut self,
        db: DbIndex,
        space: SpaceId,
        keys: &[u8],
        flushed: Option<FlushedDb>,
        own: Vec<(Vec<u8>, Value, Option<u64>)>,
    ) -> Result<(), &'static str> {
        let counts = self.left_keys(space, keys, flushed.as_ref())?;
        // Where it stands now is cleared up as after any flush.
        if !self.is_pristine(db) {
            self.flush(db);
        }
        self.put_back(db, space, (keys, &counts), flushed);
        self.select(db);
        for (key, value, deadline) in own {
            // That it is not there need not be looked up.
            let hash = self.keyspace.hash_of(&key);
            self.unread.insert(db, hash, &key, false);
            self.put(&key, value, deadline);
        }
        Ok(())
    }

    /// How many keys a flush left in each shard, if anything has them.
    fn left_keys(
        &self,
        space: SpaceId,
        keys: &[u8],
        flushed: Option<&FlushedDb>,
    ) -> Result<[u64; SHARDS], &'static str> {
        let counts = take_counts(keys)?;
        let is_put_by = |index| self.shard(index).left.iter().flatten().any(|db| db.space == space);
        let has_backing = || self.keyspace.backing().lock().is_some();
        match flushed.is_some() || has_backing() || (0..SHARDS).all(is_put_by) {
            true => Ok(counts),
            false => Err(NOWHERE),
        }
    }

    /// Puts an empty database back, whose keys a record tells, in both forms.
    fn put_back(
        &mut self,
        db: DbIndex,
        space: SpaceId,
        (keys, counts): (&[u8], &[u64; SHARDS]),
        mut flushed: Option<FlushedDb>,
    ) {
        let keyspace = self.keyspace;
        let backing = keyspace.backing().lock().clone();
        let revision = self.recorder.on_database(db, &Effect::Return { db, space, keys });
        for (index, &count) in counts.iter().enumerate() {
            let fresh = || match &mut flushed {
                Some(flushed) => refilled(keyspace, space, flushed.take(index)),
                None => filled(keyspace, backing.as_ref(), space, count),
            };
            self.shard_mut(index).put_back(db, space, revision, fresh);
        }
        self.changed.note_whole(db);
        self.unread.clear();
    }

    /// Records what is no change of a key: of branches and tags. Answers the
    /// transaction's revision.
    pub fn declare(&mut self, effect: &Effect<'_>) -> Revision {
        let revision = self.recorder.on_database(self.db, effect);
        if let (Effect::Fork { state: None, .. }, Locked::All(guards)) = (effect, &mut self.locked)
        {
            // The branch begins with what stands here now.
            let parts = guards.iter_mut().flat_map(|shard| &mut shard.dbs);
            parts.for_each(|db| db.own.note_fork(revision));
        }
        revision
    }

    /// When each database last changed places or came back; zero where that is not
    /// known.
    ///
    /// # Panics
    /// When not all shards are locked.
    #[must_use]
    pub fn moves(&self) -> Vec<Revision> {
        self.shard(0).dbs.iter().map(|db| db.moved).collect()
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

    /// Of each database and shard, when a key is due at the earliest: 0 where that
    /// is not known, `u64::MAX` where none has a deadline.
    ///
    /// # Panics
    /// When not all shards are locked.
    #[must_use]
    pub fn first_deadlines(&self) -> Vec<[u64; SHARDS]> {
        let first = |db: DbIndex, index| {
            let db = &self.shard(index).dbs[usize::from(db)];
            db.first_deadline().min(db.unindexed_due())
        };
        (0..self.databases()).map(|db| std::array::from_fn(|index| first(db, index))).collect()
    }
}
