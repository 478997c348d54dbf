//! What memory can tell of a key: as it was at an earlier revision, which a
//! branch asks of its parent before it asks the archive, or nothing at all.

use base::{DbIndex, Revision, SpaceId};

use crate::backing::Stored;
use crate::shard::{Keyspace, value_of};

/// What memory can tell of a key.
#[derive(Debug)]
pub enum Peek {
    /// It held this.
    Is(Stored),
    /// It did not exist.
    Absent,
    /// It has changed since, or is not in memory.
    Unknown,
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

    /// The key of `space` as it was at `at`, whoever has the space now. `hash`
    /// is that under this keyspace's seed. Locks the key's shard.
    #[must_use]
    pub fn peek(&self, space: SpaceId, hash: u64, key: &[u8], at: Revision) -> Peek {
        let shard = self.lock(Keyspace::shard_of_hash(hash));
        let Some(db) = shard.dbs.iter().find(|db| db.space == space) else { return Peek::Unknown };
        match db.table.get(hash, key) {
            Some(entry) if entry.revision() <= at.0 => Peek::Is(Stored {
                value: value_of(entry).to_value(),
                deadline: entry.deadline(),
                revision: Revision(entry.revision()),
            }),
            // It may have been there and gone, to come back later.
            Some(_) => Peek::Unknown,
            None if shard.last_removal <= at && db.knows_missing(hash, key) => Peek::Absent,
            None => Peek::Unknown,
        }
    }

    /// Keys may have been removed up to `revision` of which nothing is known
    /// here. To be called for a keyspace that is filled from a backing, before
    /// anybody peeks.
    pub fn assume_removals(&self, revision: Revision) {
        for index in 0..crate::SHARDS {
            let mut shard = self.lock(index);
            shard.last_removal = shard.last_removal.max(revision);
        }
    }
}
