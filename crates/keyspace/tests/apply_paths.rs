//! The commonest record, one string, is applied by a path of its own: it must
//! leave the same as the general one, which is taken when there is any effect
//! more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{DbIndex, Revision, Rng, SeededRng, SpaceId};
use keyspace::effect::{Cause, Effect};
use keyspace::table::{Keyed, Table};
use keyspace::{
    ApplyError, Backing, BackingError, Buffers, EncodingLimits, Journal, Keyspace, OneString,
    SHARDS, Scope, Stored, StringRecord, Txn, TxnOptions, Value,
};

const DATABASES: DbIndex = 2;
const KEYS: u64 = 12;
const NOW_MS: u64 = 1_700_000_000_000;

struct Nowhere;

impl Journal for Nowhere {
    fn reserve(&self) -> Revision {
        unreachable!("what only reads changes nothing")
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

/// Everything that can be seen of a keyspace, what it looks up included.
fn seen(keyspace: &Keyspace) -> Vec<String> {
    let limits = EncodingLimits::default();
    let options = TxnOptions {
        now_ms: NOW_MS,
        limits: &limits,
        event_classes: 0,
        always_record: false,
        expire: false,
        touch: false,
    };
    let begin = |scope: &Scope, look: &mut dyn FnMut(&mut Txn<'_>)| {
        let mut buffers = Buffers::default();
        let mut txn = Txn::begin(keyspace, scope, &Nowhere, &mut buffers, options);
        look(&mut txn);
        txn.finish().depends_on
    };
    let (keys, bytes) = (keyspace.statistics(), keyspace.memory_bytes());
    let mut all = vec![format!("{keys:?} {bytes} {}", keyspace.unloaded())];
    begin(&Scope::All, &mut |txn| {
        for db in 0..DATABASES {
            txn.select(db);
            let mut found = Vec::new();
            txn.visit_all(&mut |key, value, _| {
                found.push((key.to_vec(), keyspace::dump::encode(value)));
            })
            .expect("the archive answers");
            for (key, payload) in found {
                all.push(format!("{db} {key:?} {payload:?} {:?}", txn.info(&key)));
            }
        }
    });
    // What a miss depends on, and what a look at all depends on.
    let missing = |key: &[u8]| {
        let scope = Scope::Shards([keyspace.shard_of(key)].into_iter().collect());
        begin(&scope, &mut |txn| assert!(!txn.contains(key)))
    };
    let mut shards = vec![None; SHARDS];
    for number in 0..2000 {
        let key = format!("missing-{number}").into_bytes();
        let shard = keyspace.shard_of(&key);
        shards[shard].get_or_insert_with(|| missing(&key));
    }
    all.push(format!("{shards:?} {}", begin(&Scope::All, &mut |txn| _ = txn.len())));
    keyspace.check().expect("sums and indices agree");
    all
}

/// Strings that stand in the first database, and not in memory.
#[derive(Debug)]
struct Archive {
    seed: u64,
    strings: BTreeMap<Vec<u8>, Vec<u8>>,
    fetched: AtomicUsize,
}

impl Archive {
    fn stored(&self, key: &[u8]) -> Option<Stored> {
        let value = Value::Str(self.strings.get(key)?.clone());
        Some(Stored { value, deadline: None, revision: Revision(1) })
    }
}

impl Backing for Archive {
    fn fetch(&self, _: SpaceId, _: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        Ok(self.stored(key))
    }

    fn bucket(
        &self,
        _: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        for key in self.strings.keys() {
            if Table::<Nothing>::hash(self.seed, key) >> 48 == u64::from(bucket) {
                each(key, self.stored(key).expect("it is there"));
            }
        }
        Ok(())
    }
}

/// An element for a table that is only asked for a hash.
struct Nothing;

impl Keyed for Nothing {
    fn key(&self) -> &[u8] {
        b""
    }
}

struct Pair {
    special: Keyspace,
    general: Keyspace,
    /// The keys there are.
    keys: BTreeSet<(DbIndex, Vec<u8>)>,
    revision: Revision,
    applied: u32,
    refused: u32,
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let special = Keyspace::new(DATABASES, seed);
        let general = special.empty_like();
        let (keys, revision) = (BTreeSet::new(), Revision(1));
        Pair { special, general, keys, revision, applied: 0, refused: 0 }
    }

    /// As [`Pair::new`], with every other key in an archive.
    fn backed(seed: u64) -> (Pair, [Arc<Archive>; 2]) {
        let mut pair = Pair::new(seed);
        let mut counts = [0; SHARDS];
        for key in (0..KEYS).step_by(2).map(name) {
            counts[pair.special.shard_of(&key)] += 1;
            pair.keys.insert((0, key));
        }
        let archives = [&pair.special, &pair.general].map(|keyspace| {
            let strings = pair.keys.iter().map(|(_, key)| (key.clone(), vec![b'a'; 40]));
            let fetched = AtomicUsize::new(0);
            let archive = Arc::new(Archive { seed, strings: strings.collect(), fetched });
            let space = SpaceId { born: Revision::ZERO, db: 0 };
            keyspace.back(archive.clone(), 0, space, &counts);
            archive
        });
        (pair, archives)
    }

    /// A random record on one key. `existed` chooses what it tells of that.
    fn step(&mut self, rng: &mut SeededRng, existed: impl FnOnce(bool) -> Option<bool>) {
        let key = name(rng.below(KEYS));
        let db = rng.below(u64::from(DATABASES) + 1) as DbIndex;
        let existed = existed(self.keys.contains(&(db, key.clone())));
        let time_ms = NOW_MS + 1000 * rng.below(3);
        let inline_max = entry::INLINE_BYTES_MAX;
        let len = [0, 3, 4, 32, 100, inline_max, inline_max + 1, 5000][rng.below(8) as usize];
        let value = vec![rng.below(256) as u8; len];
        let deadline = [None, Some(NOW_MS), Some(NOW_MS + 5)][rng.below(3) as usize];
        let change = match rng.below(12) {
            // What a string may be put over; these take the general path.
            0 => Effect::SetAdd { member: &value },
            1 => Effect::ListPushBack { value: &value },
            2 => Effect::StrWrite { offset: rng.below(8), bytes: &value },
            3 => Effect::Delete(Cause::Client),
            _ => Effect::StrSet { value: &value, deadline },
        };
        if self.apply(time_ms, db, &[Effect::Key { key: &key, existed }, change]) {
            let place = (db, key);
            match change {
                Effect::Delete(_) => self.keys.remove(&place),
                _ => self.keys.insert(place),
            };
        }
        assert_eq!(self.special.unloaded(), self.general.unloaded());
    }

    /// Applies a record to one keyspace, and to the other with an effect more
    /// that does nothing.
    fn apply(&mut self, time_ms: u64, db: DbIndex, effects: &[Effect<'_>]) -> bool {
        self.revision = self.revision.next();
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        let limits = EncodingLimits::default();
        let apply = |keyspace: &Keyspace, bytes: &[u8]| {
            let mut buffers = Buffers::default();
            let result = keyspace.apply(self.revision, time_ms, db, bytes, &limits, &mut buffers);
            assert!(buffers.effects().is_empty() && !buffers.has_events());
            assert!(buffers.take_garbage().is_empty());
            result.map_err(|error: ApplyError| error.to_string())
        };
        let special = apply(&self.special, &bytes);
        Effect::Database(0).encode(&mut bytes);
        let general = apply(&self.general, &bytes);
        assert_eq!(special, general, "{effects:?} in {db}");
        self.applied += u32::from(special.is_ok());
        self.refused += u32::from(special.is_err());
        special.is_ok()
    }

    fn compare(&self, context: &str) {
        assert_eq!(seen(&self.special), seen(&self.general), "{context}");
    }
}

fn name(number: u64) -> Vec<u8> {
    format!("key{number}").into_bytes()
}

#[test]
fn the_path_for_one_string_leaves_what_the_general_one_leaves() {
    let (mut applied, mut refused) = (0, 0);
    for seed in 1..=30 {
        let mut rng = SeededRng::new(seed);
        let mut pair = Pair::new(seed);
        for step in 0..300 {
            let told = [None, None, Some(false), Some(true)][rng.below(4) as usize];
            pair.step(&mut rng, |_| told);
            if step % 20 == 0 {
                pair.compare(&format!("seed {seed}, step {step}"));
            }
        }
        pair.compare(&format!("seed {seed}"));
        applied += pair.applied;
        refused += pair.refused;
    }
    assert!(applied > 3000 && refused > 1000, "{applied} applied, {refused} refused");
}

/// What a record tells of a key that is not in memory must be true: nobody
/// looks.
#[test]
fn both_paths_take_the_same_from_a_backing() {
    let mut settled = 0;
    for seed in 1..=300 {
        let mut rng = SeededRng::new(seed);
        let (mut pair, archives) = Pair::backed(seed);
        let unloaded = pair.special.unloaded();
        for _ in 0..rng.below(60) {
            let tells = rng.below(3) > 0;
            pair.step(&mut rng, |existed| tells.then_some(existed));
        }
        settled += unloaded - pair.special.unloaded();
        let [special, general] = archives.map(|archive| archive.fetched.load(Ordering::Relaxed));
        assert_eq!(special, general, "keys read, seed {seed}");
        // To look at everything brings everything in.
        pair.compare(&format!("seed {seed}"));
    }
    assert!(settled > 300, "{settled} keys left the archive");
}

/// What does not fit ends a run of records where the same records one by one end.
#[test]
fn strings_in_runs_leave_what_they_leave_one_by_one() {
    let mut refused = 0;
    for seed in 1..=100 {
        let mut rng = SeededRng::new(seed);
        let (Pair { special: runs, general: single, .. }, _archives) = Pair::backed(seed);
        let mut revision = Revision(1);
        for _ in 0..20 {
            let mut texts = Vec::new();
            // Few shards, so that there are several keys of one.
            let shard = runs.shard_of(&name(rng.below(KEYS)));
            for _ in 0..=rng.below(20) {
                let key = (0..).map(name).filter(|key| runs.shard_of(key) == shard);
                let key = key.take(4).nth(rng.below(4) as usize).expect("names never end");
                let value = vec![rng.below(256) as u8; rng.below(90) as usize];
                texts.push((key, value));
            }
            let mut records = Vec::new();
            for (key, value) in &texts {
                revision = revision.next();
                let existed = [None, None, None, Some(true)][rng.below(4) as usize];
                let deadline = [None, Some(NOW_MS + 5)][rng.below(2) as usize];
                let string = OneString { key, existed, value, deadline };
                let (time_ms, hash) = (NOW_MS + rng.below(3) * 1000, runs.hash_of(key));
                let db = rng.below(16).saturating_sub(13) as DbIndex;
                records.push(StringRecord { revision, time_ms, db, hash, string });
            }
            let one_by_one = records.iter().try_for_each(|record| {
                single.apply_string(record).map_err(|error| (record.revision, error.to_string()))
            });
            let in_a_run = runs.apply_strings(&records);
            assert_eq!(in_a_run.map_err(|(at, error)| (at, error.to_string())), one_by_one);
            refused += u32::from(one_by_one.is_err());
        }
        assert_eq!(seen(&runs), seen(&single), "seed {seed}");
    }
    assert!(refused > 100, "{refused} refused");
}
