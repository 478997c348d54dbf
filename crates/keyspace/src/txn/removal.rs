//! Removing keys that are chosen by what they are called, many at one go.
//!
//! First all of them are found, which may read the backing; only then the first
//! one goes. A key that stands in the backing only is not brought into memory
//! for that where memory is short: what is looked at passes through.

use super::Txn;
use super::read::info_bytes;
use crate::backing::BackingError;
use crate::effect::{Cause, Effect};
use crate::event::class;
use crate::shard::SHARDS;
use crate::sweep::Sweep;

/// What a record takes for a key's removal besides its name, at most.
pub(crate) const MARK_BYTES: usize = 16;

/// Keys of a database that exist, see [`Txn::choose`].
#[derive(Debug)]
pub struct Chosen {
    /// Names and deadlines, in the order in which they are removed.
    keys: Vec<(Box<[u8]>, Option<u64>)>,
}

impl Chosen {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Their names, in the order in which they are removed.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(|(name, _)| &**name)
    }
}

impl Txn<'_> {
    /// Finds the keys of the current database that exist and whose names are
    /// wanted; `None` when a record of their removal would be longer than so many
    /// bytes.
    ///
    /// # Errors
    /// When the backing cannot be read.
    pub fn choose(
        &mut self,
        is_wanted: &dyn Fn(&[u8]) -> bool,
        record_bytes_max: usize,
    ) -> Result<Option<Chosen>, BackingError> {
        let (mut keys, mut bytes) = (Vec::new(), 0_usize);
        self.visit_names(&mut |key, deadline| {
            if is_wanted(key) {
                bytes = bytes.saturating_add(key.len() + MARK_BYTES);
                if bytes <= record_bytes_max {
                    keys.push((key.into(), deadline));
                }
            }
        })?;
        Ok((bytes <= record_bytes_max).then_some(Chosen { keys }))
    }

    /// Bytes that keys which were just chosen take in memory: those that are not
    /// there take none.
    ///
    /// # Panics
    /// When not all shards are locked.
    #[must_use]
    pub fn bytes_of(&self, chosen: &Chosen) -> u64 {
        let bytes = |name: &[u8]| {
            let (shard, hash) = self.keyspace.locate(name);
            let table = &self.shard(shard).dbs[usize::from(self.db)].table;
            table.get(hash, name).map_or(0, info_bytes) as u64
        };
        chosen.names().map(bytes).sum()
    }

    /// Removes keys that were just chosen. If [`Txn::keep_flushed`] says so, and it
    /// is not `for_good`, the record tells how many, and that they can be brought
    /// back.
    ///
    /// # Errors
    /// When the backing has other keys than it counts. Some are removed then.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn remove_chosen(&mut self, chosen: &Chosen, for_good: bool) -> Result<(), BackingError> {
        self.part = None;
        let until_ms = self.undo_until_ms.filter(|_| !for_good && !chosen.is_empty());
        if let Some(until_ms) = until_ms {
            let (keys, bytes) = (chosen.len() as u64, self.bytes_of(chosen));
            self.recorder.on_database(self.db, &Effect::Undoable { keys, bytes, until_ms });
            self.is_undoable = true;
        }
        for (name, deadline) in &chosen.keys {
            let (shard, hash) = self.keyspace.locate(name);
            let db = usize::from(self.db);
            if self.shard(shard).dbs[db].table.get(hash, name).is_some() {
                let revision = self.note(name, true, &Effect::Delete(Cause::Client));
                self.take_out(shard, hash, name, revision);
            } else {
                self.delete_unread(name)?;
                // The index may know when it would have been due.
                if let Some(at) = deadline {
                    self.shard_mut(shard).dbs[db].deadlines.remove(&(*at, hash));
                }
            }
            self.notify(class::GENERIC, "del", name);
        }
        Ok(())
    }

    /// Brings what a sweep has found up to this moment. False if it has to begin
    /// anew, since its database is another one now. `None` when a record of the
    /// removal would be too long.
    ///
    /// # Errors
    /// When the backing cannot be read.
    ///
    /// # Panics
    /// When not all shards are locked.
    pub fn settle_sweep(&mut self, sweep: &mut Sweep<'_>) -> Result<Option<bool>, BackingError> {
        let db = sweep.db();
        (0..SHARDS).for_each(|index| self.see(self.shard(index).last_revision));
        sweep.settle(self.options.now_ms, &mut |index, look| {
            look(self.shard_mut(index));
            self.changed(index, db);
        })
    }

    /// Removes the keys of a sweep that was just [settled](Txn::settle_sweep) and
    /// has its record [encoded](Sweep::encode), which tells what
    /// [`Txn::remove_chosen`] would. Of the events the caller has to see to
    /// ([`Buffers::add_events`](crate::Buffers::add_events)), and when the locks
    /// are open, to the rest ([`Sweep::finish`]).
    ///
    /// # Panics
    /// When not all shards are locked, or the transaction has changed anything
    /// before.
    pub fn remove_swept(&mut self, sweep: &mut Sweep<'_>, for_good: bool) {
        if sweep.is_empty() {
            return;
        }
        let mark = self.undo_until_ms.filter(|_| !for_good).map(|until_ms| Effect::Undoable {
            keys: sweep.len() as u64,
            bytes: sweep.bytes(),
            until_ms,
        });
        self.is_undoable |= mark.is_some();
        let db = sweep.db();
        let take_record = |mut head: Vec<u8>| {
            mark.iter().for_each(|mark| mark.encode(&mut head));
            sweep.take_record(head)
        };
        let revision = self.recorder.on_many(db, take_record);
        for index in 0..SHARDS {
            let going = sweep.take_going(index, revision);
            let shard = self.shard_mut(index);
            if going.is_some() {
                shard.note_removal(revision);
                shard.going = going;
            }
        }
    }
}
