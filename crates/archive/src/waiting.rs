//! Records that wait to be applied, in the order of the shards they change.
//!
//! Applying a record takes little but the wait for memory: the keys of a large
//! database are scattered. Those of one shard are not, so records are put by
//! until there are many, and then applied shard by shard, out of the
//! processor's cache. Records that change one key only may overtake those of
//! other keys and of other branches: the state after all of them is the same.

use std::ops::Range;

use base::{BranchId, Revision};
use keyspace::effect::{Effect, Effects};
use keyspace::{SHARDS, WARM_KEYS_MAX};
use log::{Record, RecordHeader};
use smallvec::SmallVec;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    shards: Vec<Shard>,
    bytes: usize,
    /// Whose they are.
    branch: BranchId,
}

#[derive(Debug, Default)]
struct Shard {
    records: Vec<Held>,
    effects: Vec<u8>,
}

/// A record, but for its effects, which begin where those before it end.
#[derive(Clone, Debug)]
struct Held {
    revision: Revision,
    header: RecordHeader,
    /// Where its effects end.
    end: usize,
    /// Where its key is in its effects.
    key: Range<usize>,
}

impl Waiting {
    /// Bytes of memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The branch that they are all of.
    pub(crate) fn branch(&self) -> BranchId {
        self.branch
    }

    /// Whether records of a branch may wait: those that wait are of one.
    pub(crate) fn takes(&self, branch: BranchId) -> bool {
        self.bytes == 0 || self.branch == branch
    }

    /// Puts a record by that changes only this key, of that shard.
    pub(crate) fn push(&mut self, shard: usize, record: &Record<'_>, only: OnlyKey) {
        debug_assert!(self.takes(record.header.branch));
        self.branch = record.header.branch;
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Shard::default);
        }
        let Shard { records, effects } = &mut self.shards[shard];
        let OnlyKey { at, begin } = only;
        effects.extend_from_slice(&record.effects[begin..]);
        let key = at.start - begin..at.end - begin;
        let (revision, header, end) = (record.revision, record.header, effects.len());
        records.push(Held { revision, header, end, key });
        self.bytes += record.effects.len() - begin + size_of::<Held>();
    }

    /// Hands over all records with their keys, a few at a time.
    pub(crate) fn drain<E>(
        &mut self,
        mut apply: impl FnMut(&[(Record<'_>, &[u8])]) -> Result<(), E>,
    ) -> Result<(), E> {
        for Shard { records, effects } in &mut self.shards {
            let mut begin = 0;
            for held in records.chunks(WARM_KEYS_MAX) {
                let mut few: SmallVec<[(Record<'_>, &[u8]); WARM_KEYS_MAX]> = SmallVec::new();
                for Held { revision, header, end, key } in held {
                    let effects = &effects[begin..*end];
                    begin = *end;
                    let record = Record { revision: *revision, header: *header, effects };
                    few.push((record, &effects[key.clone()]));
                }
                apply(&few)?;
            }
            records.clear();
            effects.clear();
        }
        self.bytes = 0;
        Ok(())
    }
}

/// The one key that a record changes, with where it stands in the effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnlyKey {
    pub(crate) at: Range<usize>,
    /// Where the effects begin that change something: who made the transaction
    /// is told before, which is nothing to whoever applies it.
    begin: usize,
}

impl OnlyKey {
    /// The key of a record, if it changes no other and no database as a whole.
    pub(crate) fn of(record: &Record<'_>) -> Option<OnlyKey> {
        let (mut only, mut begin) = (None, 0);
        let mut effects = Effects::new(record.effects);
        while let Some(effect) = effects.next() {
            match effect.ok()? {
                Effect::Key { key, .. } if only.is_none() => only = Some(key),
                Effect::Origin { .. } if only.is_none() => begin = effects.offset(),
                Effect::Key { .. }
                | Effect::Database(_)
                | Effect::Rename { .. }
                | Effect::Flush { .. }
                | Effect::Swap { .. }
                | Effect::Return { .. }
                // The index must name them as what they are.
                | Effect::Undoable { .. }
                | Effect::Undone { .. }
                // The newest of them counts, whatever keys they are about.
                | Effect::Purge { .. } => return None,
                effect if effect.is_about_branches() => return None,
                _ => {}
            }
        }
        let key = only?;
        // A slice of the effects, so the distance is its place.
        let at = key.as_ptr() as usize - record.effects.as_ptr() as usize;
        Some(OnlyKey { at: at..at + key.len(), begin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(effects: &[Effect<'_>]) -> Option<(Vec<u8>, usize)> {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        let header = RecordHeader { time_ms: 0, db: 0, branch: BranchId::MAIN };
        let record = Record { revision: Revision(1), header, effects: &bytes };
        OnlyKey::of(&record).map(|only| (bytes[only.at].to_vec(), bytes.len() - only.begin))
    }

    #[test]
    fn records_of_one_key_are_told_from_others() {
        let key = Effect::Key { key: b"k", existed: Some(true) };
        let add = Effect::StrAdd { delta: 1 };
        let origin = Effect::Origin { command: b"incr", user: b"default", address: b"" };
        let mut alone = Vec::new();
        [key, add].iter().for_each(|effect| effect.encode(&mut alone));
        let expected = Some((b"k".to_vec(), alone.len()));
        assert_eq!(of(&[key, add]), expected);
        assert_eq!(of(&[origin, key, add]), expected);
        assert!(of(&[origin, key, add, add]).is_some());
        assert_eq!(of(&[origin]), None);
        for wide in [
            key,
            Effect::Database(1),
            Effect::Flush { db: 0 },
            Effect::Swap { a: 0, b: 1 },
            Effect::Rename { db: 0, key: b"l", replaces: None },
            Effect::Undoable { keys: 1, bytes: 1, until_ms: 1 },
            Effect::Undone { revision: Revision(1) },
            Effect::Purge { db: 0, key: b"k", is_prefix: false, oldest: Revision::ZERO },
        ] {
            assert_eq!(of(&[origin, key, add, wide]), None, "{wide:?}");
        }
    }
}
