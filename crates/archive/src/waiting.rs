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

    /// Puts a record by that changes [only this key](only_key), of that shard.
    pub(crate) fn push(&mut self, shard: usize, record: &Record<'_>, key: Range<usize>) {
        debug_assert!(self.takes(record.header.branch));
        self.branch = record.header.branch;
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Shard::default);
        }
        let Shard { records, effects } = &mut self.shards[shard];
        effects.extend_from_slice(record.effects);
        let (revision, header, end) = (record.revision, record.header, effects.len());
        records.push(Held { revision, header, end, key });
        self.bytes += record.effects.len() + size_of::<Held>();
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

/// Where in its effects the key is that a record changes, if it changes no other
/// and no database as a whole.
pub(crate) fn only_key(record: &Record<'_>) -> Option<Range<usize>> {
    let mut only = None;
    for effect in Effects::new(record.effects) {
        match effect.ok()? {
            Effect::Key { key, .. } if only.is_none() => only = Some(key),
            Effect::Key { .. }
            | Effect::Database(_)
            | Effect::Rename { .. }
            | Effect::Flush { .. }
            | Effect::Swap { .. }
            | Effect::Return { .. }
            // The newest of them counts, whatever keys they are about.
            | Effect::Purge { .. } => return None,
            effect if effect.is_about_branches() => return None,
            _ => {}
        }
    }
    let key = only?;
    // A slice of the effects, so the distance is its place.
    let begin = key.as_ptr() as usize - record.effects.as_ptr() as usize;
    Some(begin..begin + key.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overtakes_others_changes_one_key_and_nothing_else() {
        let only = |effects: &[Effect<'_>]| {
            let mut bytes = Vec::new();
            effects.iter().for_each(|effect| effect.encode(&mut bytes));
            let header = RecordHeader { time_ms: 1, db: 0, branch: BranchId::MAIN };
            let record = Record { revision: Revision(1), header, effects: &bytes };
            only_key(&record).map(|key| bytes[key].to_vec())
        };
        let origin = Effect::Origin { command: b"c", user: b"u", address: b"a" };
        let (key, add) = (Effect::Key { key: b"key", existed: None }, Effect::StrAdd { delta: 1 });
        assert_eq!(only(&[origin, key, add, add, Effect::Erased]), Some(b"key".to_vec()));
        let purge = Effect::Purge { db: 0, key: b"key", is_prefix: false, oldest: Revision::ZERO };
        for effects in [
            &[origin][..],
            &[key, add, key, add],
            &[Effect::Database(1), key, add],
            &[key, Effect::Rename { db: 0, key: b"other", replaces: None }],
            &[key, add, Effect::Flush { db: 1 }],
            &[origin, purge, key, Effect::Erase],
        ] {
            assert_eq!(only(effects), None, "{effects:?}");
        }
    }
}
