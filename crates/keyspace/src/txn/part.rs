//! Looking at some elements of a collection that stays in its backing.

use base::DbIndex;
use entry::Entry;

use super::{Txn, WrongType};
use crate::backing::{Loaded, entry_of};
use crate::edit::Collection;
use crate::shard::value_of;
use crate::value::Value;

/// A key that is not in memory, with the elements that a command names.
pub(super) struct Part {
    db: DbIndex,
    entry: Entry<Value>,
    /// Elements that all of it has.
    elements: u64,
}

impl Txn<'_> {
    /// As [`Txn::purge`], for a command that looks at no elements of a collection
    /// but those of these names. A large one that is not in memory stays where it
    /// is, and until the next key is asked for the transaction sees that part of
    /// it: enough to read these elements, and nothing else; if there are none of them,
    /// its type, deadline, revision and how many elements it has.
    ///
    /// # Panics
    /// When the key's shard is not locked and there is a backing.
    pub fn look_at(&mut self, key: &[u8], names: &[&[u8]]) {
        if !self.keyspace.is_backed() || !self.load_part(key, names) {
            self.purge(key);
        }
    }

    /// Whether a part of the key is all that the transaction sees of it.
    fn load_part(&mut self, key: &[u8], names: &[&[u8]]) -> bool {
        let (index, hash) = self.keyspace.locate(key);
        let db = self.db;
        if self.unread.get(db, hash, key) == Some(false) {
            return false;
        }
        let (access, is_patient) =
            (self.keyspace.fresh_access(self.options.now_ms), self.is_patient);
        let shard = self.shard_mut(index);
        let part = &mut shard.dbs[usize::from(db)];
        match part.load_wanted(hash, key, names, &mut shard.asked, (access, !is_patient)) {
            Ok(Loaded::Known) => false,
            Ok(Loaded::Whole) => {
                self.loaded += 1;
                self.changed(index, db);
                false
            }
            Ok(Loaded::Absent) => {
                self.unread.insert(db, hash, key, false);
                false
            }
            Ok(Loaded::Part(stored, elements)) => {
                let entry = entry_of(key, stored, access);
                // What is to be removed is brought into memory for that.
                if self.is_due(&entry) {
                    return false;
                }
                self.part = Some(Box::new(Part { db, entry, elements }));
                true
            }
            Err(error) => {
                self.fail(error);
                true
            }
        }
    }

    /// How many elements the collection at a key has, which after [`Txn::look_at`]
    /// need not be in memory. 0 when there is no key.
    ///
    /// # Errors
    /// When it holds another type.
    pub fn element_count<C: Collection>(&self, key: &[u8]) -> Result<usize, WrongType> {
        if self.collection::<C>(key)?.is_none() {
            return Ok(0);
        }
        let (shard, hash) = self.keyspace.locate(key);
        let resident = self.shard(shard).dbs[usize::from(self.db)].table.get(hash, key);
        Ok(match (resident, &self.part) {
            (Some(entry), _) => value_of(entry).element_count(),
            (None, Some(part)) => usize::try_from(part.elements).unwrap_or(usize::MAX),
            (None, None) => 0,
        })
    }

    /// What there is of a key that is not in its table.
    pub(super) fn part_of(&self, db: DbIndex, key: &[u8]) -> Option<&Entry<Value>> {
        let part = self.part.as_ref()?;
        (part.db == db && part.entry.key() == key).then_some(&part.entry)
    }
}
