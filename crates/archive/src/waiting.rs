//! Records that wait to be applied, in the order of the shards they change.
//!
//! Applying a record takes little but the wait for memory: the keys of a large
//! database are scattered. Those of one shard are not, so records are put by
//! until there are many, and then applied shard by shard, out of the
//! processor's cache. Records that change one key only may overtake those of
//! other keys and of other branches: the state after all of them is the same.

use base::{BranchId, DbIndex, Revision};
use keyspace::effect::{Effect, Effects};
use keyspace::{Keyspace, OneString, SHARDS, StringRecord, WARM_KEYS_MAX};
use log::{Record, RecordHeader};
use smallvec::SmallVec;

/// Bytes of records that may wait where there are many to come. They are put by
/// in as many places as there are shards, so more than stays in a processor's
/// own cache costs more to write and read again than it saves: the fifth part of
/// the follower's time at 4 MiB.
pub(crate) const WAITING_BYTES: usize = 256 << 10;

/// See the module's documentation. By default none waits.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    shards: Vec<Shard>,
    bytes: usize,
    bytes_max: usize,
    /// Whose they are.
    branch: BranchId,
}

#[derive(Debug, Default)]
struct Shard {
    records: Vec<Held>,
    /// The bytes of all of them.
    bytes: Vec<u8>,
}

/// A record, but for its bytes, which begin where those before it end.
#[derive(Clone, Copy, Debug)]
struct Held {
    revision: Revision,
    time_ms: u64,
    /// The hash of its key.
    hash: u64,
    /// Where its bytes end.
    end: u32,
    /// Where its key is in its bytes.
    key_at: u32,
    key_len: u32,
    db: DbIndex,
    kind: Kind,
}

/// What the bytes of a record are.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Effects,
    /// The key, the value and eight bytes of deadline if there is one: there is
    /// nothing to be read again, and they are the most.
    String {
        existed: Option<bool>,
        has_deadline: bool,
    },
}

/// Records of one shard and of one kind.
pub(crate) enum Few<'w> {
    Strings(&'w [StringRecord<'w>]),
    /// With their keys.
    Others(&'w [(Record<'w>, &'w [u8])]),
}

impl Waiting {
    /// Of records of up to so many bytes of memory, in all.
    pub(crate) fn new(bytes_max: usize) -> Waiting {
        // Places in a shard's bytes have 32 bits, and the last record comes on top.
        let bytes_max = bytes_max.min(u32::MAX as usize / 2);
        Waiting { bytes_max, ..Waiting::default() }
    }

    /// Bytes of memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether they are so many that they are to be applied.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// The branch that they are all of.
    pub(crate) fn branch(&self) -> BranchId {
        self.branch
    }

    /// Whether records of a branch may wait: those that wait are of one.
    pub(crate) fn takes(&self, branch: BranchId) -> bool {
        self.bytes == 0 || self.branch == branch
    }

    /// Whether a record is so large that nothing is won when it waits.
    pub(crate) fn is_too_large(&self, record: &Record<'_>) -> bool {
        record.effects.len() >= self.bytes_max
    }

    /// Puts a record by that changes only this key, which has that hash.
    pub(crate) fn push(&mut self, record: &Record<'_>, only: &OnlyKey<'_>, hash: u64) {
        let RecordHeader { time_ms, db, branch } = record.header;
        debug_assert!(self.takes(branch) && !self.is_too_large(record));
        self.branch = branch;
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Shard::default);
        }
        let Shard { records, bytes } = &mut self.shards[Keyspace::shard_of_hash(hash)];
        let begin = bytes.len();
        let (key_at, kind) = match only.change {
            Change::String(OneString { key, existed, value, deadline }) => {
                bytes.extend_from_slice(key);
                bytes.extend_from_slice(value);
                if let Some(deadline) = deadline {
                    bytes.extend_from_slice(&deadline.to_le_bytes());
                }
                (0, Kind::String { existed, has_deadline: deadline.is_some() })
            }
            Change::Effects { effects, key_at } => {
                bytes.extend_from_slice(effects);
                (key_at, Kind::Effects)
            }
        };
        let key_len = only.key.len();
        let [end, key_at, key_len] = [bytes.len(), key_at, key_len].map(|place| place as u32);
        self.bytes += bytes.len() - begin + size_of::<Held>();
        let revision = record.revision;
        records.push(Held { revision, time_ms, hash, end, key_at, key_len, db, kind });
    }

    /// Hands over all records, a few at a time.
    pub(crate) fn drain<E>(
        &mut self,
        mut apply: impl FnMut(Few<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for Shard { records, bytes } in &mut self.shards {
            let mut begin = 0;
            let mut bytes_of = |held: &Held| {
                let own = &bytes[begin..held.end as usize];
                begin = held.end as usize;
                own
            };
            for alike in records.chunk_by(|a, b| a.is_string() == b.is_string()) {
                for held in alike.chunks(WARM_KEYS_MAX) {
                    if held[0].is_string() {
                        let few: SmallVec<[StringRecord<'_>; WARM_KEYS_MAX]> =
                            held.iter().map(|held| held.string(bytes_of(held))).collect();
                        apply(Few::Strings(&few))?;
                    } else {
                        let few: SmallVec<[(Record<'_>, &[u8]); WARM_KEYS_MAX]> = held
                            .iter()
                            .map(|held| held.effects(bytes_of(held), self.branch))
                            .collect();
                        apply(Few::Others(&few))?;
                    }
                }
            }
            records.clear();
            bytes.clear();
        }
        self.bytes = 0;
        Ok(())
    }
}

impl Held {
    fn is_string(&self) -> bool {
        matches!(self.kind, Kind::String { .. })
    }

    fn key<'w>(&self, bytes: &'w [u8]) -> &'w [u8] {
        &bytes[self.key_at as usize..][..self.key_len as usize]
    }

    fn string<'w>(&self, bytes: &'w [u8]) -> StringRecord<'w> {
        let &Held { revision, time_ms, hash, db, kind, .. } = self;
        let (mut value, mut deadline) = (&bytes[self.key_len as usize..], None);
        let Kind::String { existed, has_deadline } = kind else {
            unreachable!("only strings are asked for as such")
        };
        if has_deadline && let Some((rest, last)) = value.split_last_chunk() {
            (value, deadline) = (rest, Some(u64::from_le_bytes(*last)));
        }
        let string = OneString { key: self.key(bytes), existed, value, deadline };
        StringRecord { revision, time_ms, db, hash, string }
    }

    fn effects<'w>(&self, bytes: &'w [u8], branch: BranchId) -> (Record<'w>, &'w [u8]) {
        let &Held { revision, time_ms, db, .. } = self;
        let header = RecordHeader { time_ms, db, branch };
        (Record { revision, header, effects: bytes }, self.key(bytes))
    }
}

/// The one key that a record changes, and what it does to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnlyKey<'a> {
    pub(crate) key: &'a [u8],
    change: Change<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Change<'a> {
    String(OneString<'a>),
    /// The effects that change something, and where the key is in them: who made
    /// the transaction is told before, which is nothing to whoever applies it.
    Effects {
        effects: &'a [u8],
        key_at: usize,
    },
}

impl<'a> OnlyKey<'a> {
    /// The key of a record, if it changes no other and no database as a whole.
    pub(crate) fn of(record: &Record<'a>) -> Option<OnlyKey<'a>> {
        if let Some(string) = OneString::of(record.effects) {
            return Some(OnlyKey { key: string.key, change: Change::String(string) });
        }
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
        let (key, effects) = (only?, &record.effects[begin..]);
        // A slice of the effects, so the distance is its place.
        let key_at = key.as_ptr() as usize - effects.as_ptr() as usize;
        Some(OnlyKey { key, change: Change::Effects { effects, key_at } })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base::{Rng, SeededRng};

    use super::*;

    fn of(effects: &[Effect<'_>]) -> Option<(Vec<u8>, usize)> {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        let header = RecordHeader { time_ms: 0, db: 0, branch: BranchId::MAIN };
        let record = Record { revision: Revision(1), header, effects: &bytes };
        OnlyKey::of(&record).map(|only| match only.change {
            Change::Effects { effects, key_at } => {
                assert_eq!(&effects[key_at..][..only.key.len()], only.key);
                (only.key.to_vec(), effects.len())
            }
            Change::String(string) => panic!("taken for {string:?}"),
        })
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

    /// What a record says, by key.
    type Said = (u64, u64, DbIndex, Vec<u8>);

    #[test]
    fn what_waited_comes_back_as_it_was_in_the_order_of_each_key() {
        let mut rng = SeededRng::new(1);
        let mut waiting = Waiting::new(1 << 20);
        let mut expected: BTreeMap<Vec<u8>, Vec<Said>> = BTreeMap::new();
        // What it allocated serves again.
        for round in 0..3 {
            for number in 0..2000_u64 {
                let key = format!("key{}", rng.below(300)).into_bytes();
                let value = vec![rng.below(256) as u8; rng.below(40) as usize];
                let existed = [None, Some(false), Some(true)][rng.below(3) as usize];
                let deadline = [None, Some(0), Some(u64::MAX)][rng.below(3) as usize];
                let change = match rng.below(3) {
                    0 => Effect::SetAdd { member: &value },
                    _ => Effect::StrSet { value: &value, deadline },
                };
                let mut effects = Vec::new();
                Effect::Origin { command: b"x", user: b"u", address: b"a" }.encode(&mut effects);
                let begin = effects.len();
                Effect::Key { key: &key, existed }.encode(&mut effects);
                change.encode(&mut effects);
                let db = rng.below(3) as DbIndex;
                let header = RecordHeader { time_ms: rng.below(1 << 50), db, branch: BranchId(2) };
                let revision = Revision(round * 2000 + number);
                let record = Record { revision, header, effects: &effects };
                let only = OnlyKey::of(&record).expect("it changes one key");
                let hash = keyspace::hash_of(7, &key);
                waiting.push(&record, &only, hash);
                let said = (revision.0, header.time_ms, db, effects[begin..].to_vec());
                expected.entry(key).or_default().push(said);
            }
            assert!(waiting.bytes() > 0 && !waiting.is_full() && !waiting.takes(BranchId(3)));
            let mut found: BTreeMap<Vec<u8>, Vec<Said>> = BTreeMap::new();
            let drained: Result<(), ()> = waiting.drain(|few| {
                match few {
                    Few::Strings(strings) => {
                        assert!(strings.len() <= WARM_KEYS_MAX);
                        for record in strings {
                            let OneString { key, existed, value, deadline } = record.string;
                            assert_eq!(record.hash, keyspace::hash_of(7, key));
                            let mut effects = Vec::new();
                            Effect::Key { key, existed }.encode(&mut effects);
                            Effect::StrSet { value, deadline }.encode(&mut effects);
                            let said = (record.revision.0, record.time_ms, record.db, effects);
                            found.entry(key.to_vec()).or_default().push(said);
                        }
                    }
                    Few::Others(records) => {
                        for (record, key) in records {
                            assert_eq!(record.header.branch, BranchId(2));
                            let RecordHeader { time_ms, db, .. } = record.header;
                            let said = (record.revision.0, time_ms, db, record.effects.to_vec());
                            found.entry(key.to_vec()).or_default().push(said);
                        }
                    }
                }
                Ok(())
            });
            assert_eq!(drained, Ok(()));
            assert_eq!(found, std::mem::take(&mut expected));
            assert_eq!(waiting.bytes(), 0);
        }
    }
}
