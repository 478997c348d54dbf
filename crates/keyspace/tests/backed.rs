//! A keyspace of which a part stands in a backing beside one that holds
//! everything: the same answers and the same records, whatever is loaded,
//! evicted, recovered, or known to the backing only later.

mod backing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use backing::{
    Content, DATABASES, Journaled, MemoryBacking, NOW_MS, SEED, contents, described, seen,
    spaces_of,
};
use base::{DbIndex, Revision, SeededRng, SpaceId};
use keyspace::effect::{Cause, Effect, Effects};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{
    Buffers, EncodingLimits, Keyspace, SHARDS, Scope, Txn, TxnOptions, Value, ValueRef,
};
use proptest::prelude::*;

const KEYS: u8 = 24;

#[derive(Clone, Debug)]
enum Change {
    Set(u16, Option<u64>),
    Write(u8, u8),
    Add(i64),
    PutHash(u8, Option<u64>),
    Push(u8),
    Pop,
    SetAdd(u8),
    SetRemove(u8),
    HashSet(u8),
    HashDelete(u8),
    ZsetSet(u8),
    ZsetRemove(u8),
    Delete,
    Deadline(Option<u64>),
    Rename(DbIndex, u8),
    /// Changes nothing: looks at one element.
    Look(u8),
}

#[derive(Clone, Debug)]
enum Step {
    Change(DbIndex, u8, Change),
    Together(DbIndex, Vec<(u8, Change)>),
    Read(DbIndex, u8),
    Flush(DbIndex),
    /// Every key goes whose number has this remainder.
    Remove(DbIndex, u8),
    Swap(DbIndex, DbIndex),
    Advance(u64),
    ExpireDue {
        by_index: bool,
    },
    LoadBucket(DbIndex, u8),
    Evict(u8, usize),
    Snapshot,
    CatchUp,
    Recover {
        in_place: bool,
    },
    ScanPage(DbIndex, usize),
    RandomKey(DbIndex, u64),
    Statistics,
    Broken(DbIndex, u8),
}

/// A removal of many takes one key in so many.
const REMAINDERS: u8 = 3;

/// Names that crowd in a few buckets of two shards, where they make a
/// difference to each other.
fn key(number: u8) -> Vec<u8> {
    static NAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let names = (0u32..).map(|n| format!("key{n}").into_bytes());
        let crowded = names.filter(|name| {
            let bucket = MemoryBacking::bucket_of(name);
            matches!((bucket >> 10, bucket & 1023), (3, 0 | 5 | 6) | (40, 7 | 900 | 1023))
        });
        crowded.take(usize::from(KEYS)).collect()
    });
    NAMES[usize::from(number)].clone()
}

fn change() -> impl Strategy<Value = Change> {
    let deadline = || prop_oneof![2 => Just(None), 1 => (1..3000u64).prop_map(Some)];
    prop_oneof![
        4 => (prop_oneof![0..50u16, 4090..4100u16], deadline()).prop_map(|(n, d)| Change::Set(n, d)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(at, len)| Change::Write(at, len)),
        2 => any::<i64>().prop_map(Change::Add),
        1 => (0..9u8, deadline()).prop_map(|(n, d)| Change::PutHash(n, d)),
        2 => any::<u8>().prop_map(Change::Push),
        2 => Just(Change::Pop),
        2 => (0..4u8).prop_map(Change::SetAdd),
        2 => (0..4u8).prop_map(Change::SetRemove),
        2 => (0..4u8).prop_map(Change::HashSet),
        2 => (0..4u8).prop_map(Change::HashDelete),
        2 => (0..4u8).prop_map(Change::ZsetSet),
        2 => (0..4u8).prop_map(Change::ZsetRemove),
        4 => Just(Change::Delete),
        2 => deadline().prop_map(Change::Deadline),
        2 => (0..DATABASES, 0..KEYS).prop_map(|(db, to)| Change::Rename(db, to)),
        6 => (0..4u8).prop_map(Change::Look),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let db = || prop_oneof![3 => Just(0), 1 => 0..DATABASES];
    let number = || 0..KEYS;
    prop_oneof![
        24 => (db(), number(), change()).prop_map(|(db, key, change)| Step::Change(db, key, change)),
        4 => (db(), prop::collection::vec((number(), change()), 2..5))
            .prop_map(|(db, changes)| Step::Together(db, changes)),
        8 => (db(), number()).prop_map(|(db, key)| Step::Read(db, key)),
        1 => db().prop_map(Step::Flush),
        2 => (db(), 0..REMAINDERS).prop_map(|(db, remainder)| Step::Remove(db, remainder)),
        1 => (db(), db()).prop_map(|(a, b)| Step::Swap(a, b)),
        2 => (1..2000u64).prop_map(Step::Advance),
        2 => any::<bool>().prop_map(|by_index| Step::ExpireDue { by_index }),
        3 => (db(), number()).prop_map(|(db, key)| Step::LoadBucket(db, key)),
        3 => (number(), 1..2000usize).prop_map(|(key, bytes)| Step::Evict(key, bytes)),
        3 => Just(Step::Snapshot),
        3 => Just(Step::CatchUp),
        2 => any::<bool>().prop_map(|in_place| Step::Recover { in_place }),
        4 => (db(), 1..8usize).prop_map(|(db, count)| Step::ScanPage(db, count)),
        2 => (db(), any::<u64>()).prop_map(|(db, seed)| Step::RandomKey(db, seed)),
        1 => Just(Step::Statistics),
        3 => (db(), number()).prop_map(|(db, key)| Step::Broken(db, key)),
    ]
}

/// The keys that a record removes.
fn gone(effects: &[u8]) -> BTreeSet<Vec<u8>> {
    let (mut gone, mut name) = (BTreeSet::new(), Vec::new());
    for effect in Effects::new(effects) {
        match effect.expect("our own bytes") {
            Effect::Key { key, existed } => {
                assert_eq!(existed, Some(true));
                name = key.to_vec();
            }
            Effect::Delete(Cause::Client) => assert!(gone.insert(name.clone()), "{name:?}"),
            Effect::Database(_) => {}
            other => panic!("{other:?} removes nothing"),
        }
    }
    gone
}

/// Makes a change and says what it answered.
fn make(txn: &mut Txn<'_>, name: &[u8], change: &Change) -> String {
    let limits = txn.limits();
    let now_ms = txn.now_ms();
    match change {
        Change::Set(len, deadline) => {
            let value: Vec<u8> = if *len < 20 {
                len.to_string().into_bytes()
            } else {
                vec![b'v'; usize::from(*len)]
            };
            txn.set_string(name, &value, deadline.map(|ms| now_ms + ms));
            String::new()
        }
        Change::Write(at, len) => {
            let bytes = vec![b'w'; usize::from(*len) + 1];
            format!("{:?}", txn.write_string(name, usize::from(*at) * 20, &bytes))
        }
        Change::Add(delta) => {
            let before = match txn.string(name) {
                Err(error) => return format!("{error:?}"),
                Ok(None) => 0,
                Ok(Some(text)) => match base::number::parse_i64(text) {
                    Some(number) => number,
                    None => return "no number".to_owned(),
                },
            };
            let Some(after) = before.checked_add(*delta) else { return "overflow".to_owned() };
            txn.add_to_string(name, *delta, after);
            after.to_string()
        }
        Change::PutHash(fields, deadline) => {
            let mut hash = Hash::new(SEED);
            for n in 0..*fields {
                hash.set(&key(n), b"v", limits);
            }
            txn.put(name, Value::Hash(hash), deadline.map(|ms| now_ms + ms));
            String::new()
        }
        Change::Push(value) => {
            let pushed = txn.update_or_create::<List, _>(name, |list| {
                list.push_back(&[*value]);
                list.len()
            });
            format!("{pushed:?}")
        }
        Change::Pop => format!("{:?}", txn.update::<List, _>(name, |list| list.pop_front())),
        Change::SetAdd(n) => {
            format!("{:?}", txn.update_or_create::<Set, _>(name, |set| set.add(&key(*n))))
        }
        Change::SetRemove(n) => {
            format!("{:?}", txn.update::<Set, _>(name, |set| set.remove(&key(*n))))
        }
        Change::HashSet(n) => {
            format!("{:?}", txn.update_or_create::<Hash, _>(name, |hash| hash.set(&key(*n), b"v")))
        }
        Change::HashDelete(n) => {
            format!("{:?}", txn.update::<Hash, _>(name, |hash| hash.remove(&key(*n))))
        }
        Change::ZsetSet(n) => {
            let score = f64::from(*n);
            format!("{:?}", txn.update_or_create::<Zset, _>(name, |zset| zset.set(&key(*n), score)))
        }
        Change::ZsetRemove(n) => {
            format!("{:?}", txn.update::<Zset, _>(name, |zset| zset.remove(&key(*n))))
        }
        Change::Delete => txn.delete(name).to_string(),
        Change::Deadline(ms) => txn.set_deadline(name, ms.map(|ms| now_ms + ms)).to_string(),
        Change::Rename(db, to) => txn.rename(name, *db, &key(*to)).to_string(),
        Change::Look(n) => {
            let element = key(*n);
            txn.look_at(name, &[&element]);
            let info = txn.info(name).map(|info| (info.revision, info.deadline));
            let found = match txn.get(name) {
                Some(ValueRef::Set(set)) => format!("set {}", set.contains(&element)),
                Some(ValueRef::Hash(hash)) => format!("hash {:?}", hash.get(&element)),
                Some(ValueRef::Zset(zset)) => format!("zset {:?}", zset.score(&element)),
                value => format!("{:?}", value.map(seen)),
            };
            format!("{found} {info:?}")
        }
    }
}

/// A scan under way: what it must still visit, and what it has.
#[derive(Default)]
struct Scan {
    cursor: u64,
    began: bool,
    stays: BTreeSet<Vec<u8>>,
    visits: BTreeMap<Vec<u8>, usize>,
}

struct World {
    backing: Arc<MemoryBacking>,
    /// The keyspace under test.
    here: Keyspace,
    /// Made from `here`'s records; it never evicts.
    replica: Keyspace,
    /// Holds everything.
    twin: Keyspace,
    here_journal: Journaled,
    twin_journal: Journaled,
    limits: EncodingLimits,
    now_ms: u64,
    spaces: Vec<SpaceId>,
    /// What the backing has: when, and what the databases' spaces were then.
    stands_at: (Revision, Vec<SpaceId>),
    snapshot: Option<(Revision, Vec<SpaceId>, BTreeMap<SpaceId, Content>)>,
    scans: Vec<Scan>,
}

impl World {
    fn new() -> World {
        let empty = || Keyspace::new(DATABASES, SEED);
        let world = World {
            backing: Arc::default(),
            here: empty(),
            replica: empty(),
            twin: empty(),
            here_journal: Journaled::default(),
            twin_journal: Journaled::default(),
            limits: EncodingLimits { list_max_listpack_size: 4, ..EncodingLimits::default() },
            now_ms: NOW_MS,
            spaces: spaces_of(DATABASES),
            stands_at: (Revision::ZERO, spaces_of(DATABASES)),
            snapshot: None,
            scans: (0..DATABASES).map(|_| Scan::default()).collect(),
        };
        world.back(&world.here);
        world.back(&world.replica);
        world
    }

    fn options(&self) -> TxnOptions<'_> {
        TxnOptions {
            now_ms: self.now_ms,
            limits: &self.limits,
            event_classes: 0,
            always_record: true,
            expire: true,
            touch: true,
        }
    }

    fn back(&self, keyspace: &Keyspace) {
        for (db, &space) in (0..).zip(&self.stands_at.1) {
            keyspace.back(self.backing.clone(), db, space, &self.backing.counts(space));
        }
    }

    /// A keyspace as after a restart: what the backing has, and the records
    /// that it has not.
    fn recovered(&self, from: &Keyspace) -> Keyspace {
        let keyspace = from.empty_like();
        self.back(&keyspace);
        for (revision, time_ms, db, effects) in &*self.here_journal.records.lock().unwrap() {
            if *revision > self.stands_at.0 {
                let buffers = &mut Buffers::default();
                keyspace
                    .apply(*revision, *time_ms, *db, effects, &self.limits, buffers)
                    .expect("the record fits");
            }
        }
        keyspace
    }

    /// The same transaction here and on the twin; the record goes to the
    /// replica.
    fn both(&mut self, scope: &Scope, act: impl Fn(&mut Txn<'_>) -> String) {
        self.both_alike(scope, &|here, twin| here == twin, act);
    }

    /// The same, with records that need not be equal.
    fn both_alike(
        &mut self,
        scope: &Scope,
        are_alike: &dyn Fn(&[u8], &[u8]) -> bool,
        act: impl Fn(&mut Txn<'_>) -> String,
    ) {
        let run = |keyspace: &Keyspace, journal: &Journaled| {
            let mut buffers = Buffers::default();
            let mut txn = Txn::begin(keyspace, scope, journal, &mut buffers, self.options());
            let answer = act(&mut txn);
            assert_eq!(txn.backing_error(), None);
            let finished = txn.finish();
            (answer, finished.written, finished.expired, buffers.effects().to_vec())
        };
        let here = run(&self.here, &self.here_journal);
        let twin = run(&self.twin, &self.twin_journal);
        assert_eq!(here.0, twin.0, "answers");
        assert_eq!((here.1, here.2), (twin.1, twin.2), "revisions and expired keys");
        assert!(are_alike(&here.3, &twin.3), "records: {:?}, {:?}", here.3, twin.3);
        if let Some(revision) = here.1 {
            let db = self.here_journal.records.lock().unwrap().last().unwrap().2;
            let buffers = &mut Buffers::default();
            self.replica
                .apply(revision, self.now_ms, db, &here.3, &self.limits, buffers)
                .expect("the record fits");
        }
    }

    fn scope(&self, numbers: &[u8]) -> Scope {
        Scope::Shards(numbers.iter().map(|&number| self.here.shard_of(&key(number))).collect())
    }

    fn newest(&self) -> Revision {
        self.here_journal.newest()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Change(db, number, change) => {
                self.changes(*db, std::slice::from_ref(&(*number, change.clone())));
            }
            Step::Together(db, changes) => self.changes(*db, changes),
            Step::Read(db, number) => self.both(&self.scope(&[*number]), |txn| {
                txn.select(*db);
                txn.purge(&key(*number));
                let info = txn.info(&key(*number)).map(|info| (info.revision, info.deadline));
                format!("{:?} {info:?}", txn.get(&key(*number)).map(seen))
            }),
            Step::Flush(db) => {
                self.both(&Scope::All, |txn| {
                    txn.flush(*db);
                    String::new()
                });
                self.spaces[usize::from(*db)] = SpaceId { born: self.newest(), db: *db };
                self.scans[usize::from(*db)] = Scan::default();
            }
            Step::Remove(db, remainder) => {
                let names: BTreeSet<Vec<u8>> =
                    (*remainder..KEYS).step_by(REMAINDERS.into()).map(key).collect();
                // In the order in which each of the two finds them.
                let is_alike = |here: &[u8], twin: &[u8]| gone(here) == gone(twin);
                self.both_alike(&Scope::All, &is_alike, |txn| {
                    txn.select(*db);
                    let chosen = txn.choose(&|name| names.contains(name), usize::MAX);
                    let chosen = chosen.expect("the backing is well").expect("there are few");
                    txn.remove_chosen(&chosen, false).expect("they are there");
                    chosen.len().to_string()
                });
            }
            Step::Swap(a, b) => {
                self.both(&Scope::All, |txn| {
                    txn.swap(*a, *b);
                    String::new()
                });
                self.spaces.swap(usize::from(*a), usize::from(*b));
                self.scans.swap(usize::from(*a), usize::from(*b));
            }
            Step::Advance(ms) => self.now_ms += ms,
            Step::ExpireDue { by_index } => {
                for db in (0..DATABASES).filter(|_| *by_index) {
                    for shard in 0..SHARDS as u32 {
                        let mut bucket = shard << 10;
                        while bucket >> 10 == shard {
                            let seen = self.here.index_deadlines(db, bucket as u16);
                            bucket += u32::from(seen.expect("the backing is well"));
                        }
                    }
                }
                self.both(&Scope::All, |txn| {
                    for db in (0..DATABASES).filter(|_| !by_index) {
                        txn.select(db);
                        txn.load_all().expect("the backing is well");
                    }
                    (0..SHARDS)
                        .map(|shard| txn.expire_due(shard, usize::MAX))
                        .sum::<usize>()
                        .to_string()
                });
            }
            Step::LoadBucket(db, number) => {
                let bucket = MemoryBacking::bucket_of(&key(*number));
                self.here.load_bucket(*db, bucket).expect("the backing is well");
                assert_eq!(self.here.load_bucket(*db, bucket), Ok(None));
            }
            Step::Evict(number, bytes) => {
                let shard = self.here.shard_of(&key(*number));
                let (before, unloaded) = (self.here.memory_bytes(), self.here.unloaded());
                let was_backed = self.here.is_backed();
                let evicted = self.here.evict(shard, self.stands_at.0, *bytes);
                assert_eq!(self.here.unloaded(), unloaded + evicted.keys);
                if was_backed && evicted.bytes > 4096 {
                    assert!(self.here.memory_bytes() < before);
                }
            }
            Step::Snapshot => {
                let contents = (0..DATABASES)
                    .map(|db| (self.spaces[usize::from(db)], contents(&self.twin, db)))
                    .collect();
                self.snapshot = Some((self.newest(), self.spaces.clone(), contents));
            }
            Step::CatchUp => {
                let Some((revision, spaces, contents)) = self.snapshot.take() else { return };
                self.backing.replace(contents);
                self.stands_at = (revision, spaces);
                self.here.forget_removals(revision);
                self.replica.forget_removals(revision);
            }
            Step::Recover { in_place } => {
                let fresh = self.recovered(&self.here);
                if *in_place {
                    let mut buffers = Buffers::default();
                    let journal = &self.here_journal;
                    let options = self.options();
                    let mut txn =
                        Txn::begin(&self.here, &Scope::All, journal, &mut buffers, options);
                    txn.replace_with(&fresh);
                    txn.finish();
                    drop(fresh);
                } else {
                    self.here = fresh;
                }
                self.replica = self.recovered(&self.replica);
            }
            Step::ScanPage(db, count) => self.scan_page(*db, *count),
            Step::RandomKey(db, seed) => self.random_key(*db, *seed),
            Step::Statistics => {
                let keys = |keyspace: &Keyspace| -> Vec<_> {
                    keyspace.statistics().iter().map(|(db, s)| (*db, s.keys)).collect()
                };
                assert_eq!(keys(&self.here), keys(&self.twin));
                assert_eq!(keys(&self.replica), keys(&self.twin));
            }
            Step::Broken(db, number) => self.broken(*db, &key(*number)),
        }
    }

    fn changes(&mut self, db: DbIndex, changes: &[(u8, Change)]) {
        let mut numbers = Vec::new();
        for (number, change) in changes {
            numbers.push(*number);
            if let Change::Rename(_, to) = change {
                numbers.push(*to);
            }
        }
        self.both(&self.scope(&numbers), |txn| {
            txn.select(db);
            let mut answers = String::new();
            for (number, change) in changes {
                txn.purge(&key(*number));
                answers += &make(txn, &key(*number), change);
                answers += " ";
            }
            answers
        });
    }

    /// What a scan under way has still to visit: keys that were there all the
    /// time.
    fn prune_scans(&mut self) {
        for db in 0..DATABASES {
            let scan = &mut self.scans[usize::from(db)];
            if scan.began {
                let exist = existing(&self.twin, &self.limits, self.now_ms, db);
                scan.stays.retain(|key| exist.contains(key));
            }
        }
    }

    fn scan_page(&mut self, db: DbIndex, count: usize) {
        let exist = existing(&self.twin, &self.limits, self.now_ms, db);
        let mut scan = std::mem::take(&mut self.scans[usize::from(db)]);
        if !scan.began {
            scan = Scan { began: true, stays: exist.clone(), ..Scan::default() };
        }
        let mut buffers = Buffers::default();
        let journal = &self.here_journal;
        let mut txn = Txn::begin(&self.here, &Scope::Sliced, journal, &mut buffers, self.options());
        txn.select(db);
        scan.cursor = txn
            .scan(scan.cursor, count, &mut |key, _| {
                assert!(exist.contains(key), "a key that does not exist is visited");
                *scan.visits.entry(key.to_vec()).or_default() += 1;
            })
            .expect("the backing is well");
        txn.finish();
        if scan.cursor == 0 {
            let visits = |key| scan.visits.get(key).copied();
            assert!(scan.stays.iter().all(|key| visits(key) == Some(1)), "{:?}", scan.visits);
            scan = Scan::default();
        }
        self.scans[usize::from(db)] = scan;
    }

    fn random_key(&self, db: DbIndex, seed: u64) {
        let exist = existing(&self.twin, &self.limits, self.now_ms, db);
        let mut buffers = Buffers::default();
        for scope in [Scope::Sliced, Scope::All] {
            let journal = &self.here_journal;
            let mut txn = Txn::begin(&self.here, &scope, journal, &mut buffers, self.options());
            txn.select(db);
            let found = txn.random_key(&mut SeededRng::new(seed)).expect("the backing is well");
            match found {
                Some(key) => assert!(exist.contains(&key)),
                None => assert!(exist.is_empty()),
            }
        }
    }

    /// With a backing that cannot be read there is an error or the truth, and
    /// nothing changes.
    fn broken(&mut self, db: DbIndex, name: &[u8]) {
        self.backing.is_broken.store(true, Ordering::Relaxed);
        let unloaded = self.here.unloaded();
        let exist = existing(&self.twin, &self.limits, self.now_ms, db);
        let mut buffers = Buffers::default();
        let options = TxnOptions { expire: false, ..self.options() };
        let journal = &self.here_journal;
        let mut txn = Txn::begin(&self.here, &Scope::All, journal, &mut buffers, options);
        txn.select(db);
        txn.load(name);
        match txn.check_backing() {
            Ok(()) => {
                let is_due = txn.deadline(name).flatten().is_some_and(|at| at <= self.now_ms);
                assert_eq!(txn.contains(name) && !is_due, exist.contains(name));
            }
            Err(error) => assert_eq!(error.to_string(), "it is broken"),
        }
        let mut visited = 0;
        let keys = txn.len();
        let result = txn.scan(0, usize::MAX, &mut |_, _| visited += 1);
        assert!(result.is_err() || visited == keys, "a shorter answer instead of an error");
        assert_eq!(txn.check_backing(), Ok(()));
        assert_eq!(txn.finish().written, None);
        assert_eq!(self.here.unloaded(), unloaded);
        for bucket in [0, MemoryBacking::bucket_of(name)] {
            let loaded = self.here.load_bucket(db, bucket);
            assert!(loaded.is_err() || loaded == Ok(None));
        }
        self.backing.is_broken.store(false, Ordering::Relaxed);
    }

    /// What must hold after every step.
    fn check(&mut self) {
        self.here.check().expect("sums and indices agree");
        let mut buffers = Buffers::default();
        for db in 0..DATABASES {
            let mut len = |keyspace: &Keyspace, journal: &Journaled| {
                let mut txn =
                    Txn::begin(keyspace, &Scope::Sliced, journal, &mut buffers, self.options());
                txn.select(db);
                txn.len()
            };
            let twin = len(&self.twin, &self.twin_journal);
            assert_eq!(len(&self.here, &self.here_journal), twin, "keys of database {db}");
            assert_eq!(len(&self.replica, &self.here_journal), twin, "keys of the replica's {db}");
        }
        self.prune_scans();
    }

    /// Loads everything; then nothing tells the three apart.
    fn finish(self) {
        for keyspace in [&self.here, &self.replica] {
            for db in 0..DATABASES {
                for bucket in 0..=u16::MAX {
                    keyspace.load_bucket(db, bucket).expect("the backing is well");
                }
            }
            assert_eq!(keyspace.unloaded(), 0);
            keyspace.check().expect("sums and indices agree");
            assert_eq!(keyspace.statistics(), self.twin.statistics());
            for db in 0..DATABASES {
                assert_eq!(described(keyspace, db), described(&self.twin, db));
            }
        }
        assert!(!self.replica.is_backed());
    }
}

/// Keys of a keyspace without a backing that exist.
fn existing(
    keyspace: &Keyspace,
    limits: &EncodingLimits,
    now_ms: u64,
    db: DbIndex,
) -> BTreeSet<Vec<u8>> {
    let journal = Journaled::default();
    let mut buffers = Buffers::default();
    let options = TxnOptions {
        now_ms,
        limits,
        event_classes: 0,
        always_record: false,
        expire: true,
        touch: false,
    };
    let mut txn = Txn::begin(keyspace, &Scope::Sliced, &journal, &mut buffers, options);
    txn.select(db);
    let mut keys = BTreeSet::new();
    txn.scan_resident(&mut |key, _| {
        keys.insert(key.to_vec());
    });
    keys
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 500, ..ProptestConfig::default() })]
    #[test]
    fn nothing_tells_a_backed_keyspace_from_one_in_memory(
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.finish();
    }
}
