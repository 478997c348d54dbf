//! Deadlines of keys that stand in the backing only: the index of deadlines has
//! them as well, once it has asked for them.

use super::{BUCKET_BITS, BUCKETS, BackingError, Loaded, Stored, bucket_at, run_of};
use crate::shard::Db;

/// Keys that are due, and stood in the backing only.
#[derive(Default)]
pub(crate) struct Due {
    /// So many have been brought into memory.
    pub(crate) loaded: u32,
    /// These stay where they are: names, and when they were due.
    pub(crate) unread: Vec<(Vec<u8>, u64)>,
}

impl Db {
    /// Notes when the keys of a bucket are due that stand in the backing only,
    /// and of those behind it where keys are sparse. Answers how many buckets
    /// there were.
    pub(crate) fn index_deadlines(&mut self, bucket: u16) -> Result<u16, BackingError> {
        let Some(backed) = self.backed.as_mut().filter(|backed| backed.unloaded_keys > 0) else {
            return Ok(BUCKETS as u16 - bucket % BUCKETS as u16);
        };
        // From here on a key that goes takes its deadline along.
        backed.evicts = true;
        self.note_deadlines(bucket)
    }

    /// When a key is due at the earliest that is neither in the table nor in the
    /// index of deadlines, as far as that is known: else 0, and `u64::MAX` where
    /// there is none.
    pub(crate) fn unindexed_due(&self) -> u64 {
        let backed = self.backed.as_deref();
        let unindexed = backed.filter(|it| it.unloaded_keys > 0 && it.indexed < BUCKETS);
        unindexed.map_or(u64::MAX, |backed| backed.due_from)
    }

    /// No key that stands in the backing only is due before.
    pub(crate) fn expect_due(&mut self, from: u64) {
        self.backed.iter_mut().for_each(|backed| backed.due_from = from);
    }

    /// As [`Db::index_deadlines`], of some buckets of the shard that it was not
    /// asked of before.
    pub(crate) fn index_more(&mut self, shard: usize) -> Result<(), BackingError> {
        let Some(backed) = &self.backed else { return Ok(()) };
        let first = bucket_at(shard, 0);
        self.note_deadlines(first + backed.indexed as u16).map(drop)
    }

    fn note_deadlines(&mut self, bucket: u16) -> Result<u16, BackingError> {
        let Some(backed) = &self.backed else {
            return Ok(BUCKETS as u16 - bucket % BUCKETS as u16);
        };
        let backing = backed.backing.clone();
        let run = run_of(bucket, backed.unloaded_keys);
        let mut noted = Ok(());
        backing.deadlines(
            self.space,
            run.clone(),
            &mut |key, at| match self.unknown_of(&run, key) {
                Ok(Some(hash)) => drop(self.deadlines.insert((at, hash))),
                Ok(None) => {}
                Err(error) => noted = Err(error),
            },
        )?;
        noted?;
        self.backed.iter_mut().for_each(|backed| backed.note_indexed(&run));
        Ok(run.end() - run.start() + 1)
    }

    /// Makes the keys of a bucket resident that are due at `now_ms`, because
    /// the deadline index names one, due at `at`, that the table lacks. Those that
    /// take long to read stay where they are.
    pub(crate) fn load_due(
        &mut self,
        at: u64,
        hash: u64,
        now_ms: u64,
        access: u32,
    ) -> Result<Due, BackingError> {
        let bucket = (hash >> (64 - BUCKET_BITS)) as u16;
        let mut due = Vec::new();
        if let Some(backed) = &self.backed {
            backed.backing.deadlines(self.space, bucket..=bucket, &mut |key, at| {
                if at <= now_ms {
                    due.push(key.to_vec());
                }
            })?;
        }
        let mut found = Due::default();
        let mut is_there = false;
        for key in due {
            let of = self.table.hash_of(&key);
            match self.glance(of, &key, access, false)? {
                Loaded::Whole => found.loaded += 1,
                Loaded::Part(Stored { deadline: Some(due), .. }, _) if due <= now_ms => {
                    is_there |= (due, of) == (at, hash);
                    found.unread.push((key, due));
                }
                _ => {}
            }
        }
        is_there |= self.table.find(hash, |entry| entry.deadline() == Some(at)).is_some();
        if !is_there && self.own.is_counting() {
            // A record may overwrite unread what a branch has from its parent.
            self.deadlines.remove(&(at, hash));
        } else if !is_there {
            return Err(BackingError::new(format!(
                "space {} lacks a key that was evicted to it",
                self.space
            )));
        }
        Ok(found)
    }
}
