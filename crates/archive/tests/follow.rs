//! A base that follows a log holds, at its revision, exactly what the
//! transactions up to there made, and a keyspace that is filled from it is the
//! one they made.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use archive::{Base, BaseBacking, Follower, FollowerOptions, Pace};
use base::{BranchId, DbIndex, Revision, Rng, SeededRng, SystemClock};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{
    Buffers, Editor, EncodingLimits, Journal, Keyspace, Scope, Txn, TxnOptions, Value, dump,
};
use log::{FsyncPolicy, Log, LogOptions, MemVfs, RecordHeader};
use testkit::temp_dir;

const DATABASES: DbIndex = 3;

/// A database whose every transaction goes to a log.
struct Database {
    keyspace: Keyspace,
    log: Log,
    rng: SeededRng,
    limits: EncodingLimits,
    now_ms: u64,
}

struct ToLog<'l>(&'l Log);

impl Journal for ToLog<'_> {
    fn reserve(&self) -> Revision {
        self.0.reserve()
    }

    fn append(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &[u8]) {
        let header = RecordHeader { time_ms, db, branch: BranchId::MAIN };
        self.0.append(revision, header, effects);
    }
}

impl Database {
    fn new(seed: u64) -> Database {
        let mut rng = SeededRng::new(seed);
        let options = LogOptions {
            fsync: FsyncPolicy::Always,
            segment_bytes_max: 20_000,
            ..LogOptions::default()
        };
        let clock = Arc::new(SystemClock);
        let (log, _) = Log::open(
            Arc::new(MemVfs::new()),
            Path::new("/log"),
            options,
            Revision::ZERO,
            clock,
            &mut rng,
            &mut |_| Ok(()),
        )
        .expect("an empty log opens");
        let keyspace = Keyspace::new(DATABASES, seed);
        Database { keyspace, log, rng, limits: EncodingLimits::default(), now_ms: 1_000_000 }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }

    fn key(&mut self) -> Vec<u8> {
        match self.below(200) {
            // Longer than the tree takes.
            0 => vec![b'x'; 70_000],
            n => format!("key:{}", n % 60).into_bytes(),
        }
    }

    fn element(&mut self) -> Vec<u8> {
        let len = [1, 5, 20, 90][self.below(4) as usize];
        let first = b'a' + self.below(20) as u8;
        vec![first; len]
    }

    /// One random transaction of one to three changes.
    fn step(&mut self) {
        self.now_ms += self.below(50);
        let changes: Vec<_> = (0..1 + self.below(3))
            .map(|_| {
                let what = self.below(300);
                let db = self.below(u64::from(DATABASES)) as DbIndex;
                (what, db, self.key(), self.key(), self.element(), self.element(), self.below(9))
            })
            .collect();
        let options = TxnOptions {
            now_ms: self.now_ms,
            limits: &self.limits,
            event_classes: 0,
            always_record: false,
            expire: true,
            touch: true,
        };
        let journal = ToLog(&self.log);
        let mut buffers = Buffers::default();
        let mut txn = Txn::begin(&self.keyspace, &Scope::All, &journal, &mut buffers, options);
        for (what, db, key, other, a, b, n) in changes {
            txn.select(db);
            let deadline = (n == 0).then_some(self.now_ms + 700);
            // Commands of another type than the key's change nothing.
            match what {
                0..=99 => txn.set_string(&key, &a, deadline),
                100..=119 => _ = txn.delete(&key),
                120..=129 => _ = txn.rename(&key, (db + n as DbIndex) % DATABASES, &other),
                130..=139 => _ = txn.set_deadline(&key, deadline),
                140..=169 => {
                    _ = txn.update_or_create(&key, |hash: &mut Editor<'_, '_, Hash>| match n {
                        0..3 => _ = hash.remove(&a),
                        _ => _ = hash.set(&a, &b),
                    });
                }
                170..=209 => {
                    _ = txn.update_or_create(&key, |list: &mut Editor<'_, '_, List>| match n {
                        0 if !list.is_empty() => list.drop_front(1),
                        1 if !list.is_empty() => list.drop_back(1),
                        2 if !list.is_empty() => list.insert(list.len() / 2, &b),
                        3..=5 => list.push_front(&a),
                        _ => list.push_back(&b),
                    });
                }
                210..=239 => {
                    _ = txn.update_or_create(&key, |set: &mut Editor<'_, '_, Set>| match n {
                        0..3 => set.remove(&a),
                        _ => set.add(&a),
                    });
                }
                240..=269 => {
                    _ = txn.update_or_create(&key, |zset: &mut Editor<'_, '_, Zset>| match n {
                        0..3 => _ = zset.remove(&a),
                        _ => _ = zset.set(&a, n as f64 / 3.0),
                    });
                }
                270..=295 => txn.put(&key, Value::Str(a), deadline),
                296 => txn.flush(db),
                _ => txn.swap(db, (db + 1) % DATABASES),
            }
        }
        txn.finish();
    }
}

type Key = (DbIndex, Vec<u8>);
type State = (Vec<u8>, Option<u64>, Revision);

/// Everything a keyspace holds.
fn contents(keyspace: &Keyspace) -> BTreeMap<Key, State> {
    struct None;
    impl Journal for None {
        fn reserve(&self) -> Revision {
            unreachable!("nothing is changed")
        }
        fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
    }
    let limits = EncodingLimits::default();
    let options = TxnOptions {
        now_ms: 0,
        limits: &limits,
        event_classes: 0,
        always_record: false,
        expire: false,
        touch: false,
    };
    let mut buffers = Buffers::default();
    let mut txn = Txn::begin(keyspace, &Scope::All, &None, &mut buffers, options);
    let mut found = BTreeMap::new();
    for db in 0..DATABASES {
        txn.select(db);
        let count = txn.len();
        let mut values = Vec::new();
        txn.scan(0, usize::MAX, &mut |key, value| {
            // Two orders of one set are one set.
            let mut body = dump::encode_body(value);
            body.sort_unstable();
            values.push((key.to_vec(), body));
        })
        .expect("the base can be read");
        assert_eq!(values.len(), count, "keys of database {db}");
        for (key, body) in values {
            let info = txn.info(&key).expect("just seen");
            found.insert((db, key.clone()), (body, info.deadline, info.revision));
        }
    }
    found
}

fn filled_from(base: &Arc<Base>) -> Keyspace {
    let directory = base.directory();
    let keyspace = Keyspace::new(DATABASES, directory.seed);
    let backing = BaseBacking::new(base.clone(), EncodingLimits::default());
    for database in &directory.databases {
        keyspace.back(backing.clone(), database.db, database.space, &database.keys);
    }
    keyspace
}

fn follow(base: &Arc<Base>, log: &Log, pace: Pace) -> Follower {
    let options = FollowerOptions {
        pace,
        databases: DATABASES,
        limits: EncodingLimits::default(),
        past: None,
        clock: Arc::new(SystemClock),
        advanced: Box::new(|_, _| {}),
        failed: Box::new(|reason| panic!("{reason}")),
    };
    Follower::start(base.clone(), log.reader(base.revision().next()), options)
}

#[test]
fn a_base_holds_what_the_log_made() {
    for seed in 1..=3 {
        let folder = temp_dir();
        let mut database = Database::new(seed);
        // Small bounds, so that batches end everywhere.
        let pace = Pace { log_bytes: 1500 + 1500 * seed, ..Pace::default() };
        let mut base =
            Arc::new(Base::open(folder.path(), seed, 1 << 20).expect("an empty one opens"));
        for round in 0..6 {
            let follower = follow(&base, &database.log, pace);
            (0..150).for_each(|_| database.step());
            let newest = database.log.newest();
            follower.checkpoint(newest).expect("it follows");
            assert_eq!(base.revision(), newest);
            let expected = contents(&database.keyspace);
            assert_eq!(contents(&filled_from(&base)), expected, "seed {seed} round {round}");
            drop(follower);
            if round % 2 == 1 {
                drop(base);
                base = Arc::new(Base::open(folder.path(), 0, 1 << 20).expect("it opens again"));
                assert_eq!(contents(&filled_from(&base)), expected, "seed {seed} reopened");
            }
        }
    }
}

#[test]
fn recovery_is_the_base_and_the_log_behind_it() {
    let folder = temp_dir();
    let mut database = Database::new(77);
    let base = Arc::new(Base::open(folder.path(), 77, 1 << 20).expect("an empty one opens"));
    let follower = follow(&base, &database.log, Pace::default());
    for _ in 0..10 {
        (0..100).for_each(|_| database.step());
        follower.checkpoint(database.log.newest()).expect("it follows");
        let recovered = filled_from(&base);
        let archived = base.revision();
        (0..100).for_each(|_| database.step());
        let mut reader = database.log.reader(archived.next());
        database.log.wait_durable(database.log.newest()).expect("memory takes everything");
        let mut buffers = Buffers::default();
        while reader.next_revision() <= database.log.newest() {
            let mut each = |record: log::Record<'_>, _| {
                recovered
                    .apply(
                        record.revision,
                        record.header.time_ms,
                        record.header.db,
                        record.effects,
                        &database.limits,
                        &mut buffers,
                    )
                    .expect("it fits");
                ControlFlow::Continue(())
            };
            reader.read(Duration::ZERO, &mut each).expect("whole");
        }
        assert_eq!(contents(&recovered), contents(&database.keyspace));
    }
}
