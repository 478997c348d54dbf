//! Many keys removed by their names while others write: which ones go, what the
//! record says, and what others see meanwhile.

mod backing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backing::{Journaled, MemoryBacking, NOW_MS, SEED, contents, described};
use base::{DbIndex, Revision, Rng, SeededRng, SpaceId};
use keyspace::effect::{Cause, Effect, Effects};
use keyspace::{
    Buffers, EncodingLimits, IsWanted, Keyspace, SHARDS, Scope, Sweep, Txn, TxnOptions,
};

const DATABASES: DbIndex = 2;

/// What is swept.
const PREFIX: &[u8] = b"gone:";

struct Fixture {
    live: Keyspace,
    journal: Journaled,
    limits: EncodingLimits,
    now_ms: AtomicU64,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            live: Keyspace::new(DATABASES, SEED),
            journal: Journaled::default(),
            limits: EncodingLimits::default(),
            now_ms: AtomicU64::new(NOW_MS),
        }
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn options(&self) -> TxnOptions<'_> {
        TxnOptions {
            now_ms: self.now_ms(),
            limits: &self.limits,
            event_classes: 0,
            always_record: false,
            expire: true,
            touch: false,
        }
    }

    fn run<R>(&self, scope: &Scope, work: impl FnOnce(&mut Txn<'_>) -> R) -> R {
        let mut buffers = Buffers::default();
        let mut txn = Txn::begin(&self.live, scope, &self.journal, &mut buffers, self.options());
        let result = work(&mut txn);
        txn.finish();
        result
    }

    fn on_key<R>(&self, key: &[u8], work: impl FnOnce(&mut Txn<'_>) -> R) -> R {
        let mut buffers = Buffers::default();
        let (journal, options) = (&self.journal, self.options());
        let mut txn = Txn::begin_on_key(&self.live, key, journal, &mut buffers, options);
        let result = work(&mut txn);
        txn.finish();
        result
    }

    fn set(&self, key: &str, value: &str, deadline: Option<u64>) {
        self.on_key(key.as_bytes(), |txn| {
            txn.set_string(key.as_bytes(), value.as_bytes(), deadline);
        });
    }

    fn delete(&self, key: &str) -> bool {
        self.on_key(key.as_bytes(), |txn| txn.delete(key.as_bytes()))
    }

    fn exists(&self, key: &str) -> bool {
        self.on_key(key.as_bytes(), |txn| {
            txn.load(key.as_bytes());
            txn.contains(key.as_bytes())
        })
    }

    fn sweep(&self) -> Sweep<'_> {
        let is_wanted: IsWanted = Box::new(|key| key.starts_with(PREFIX));
        Sweep::of(&self.live, 0, is_wanted, usize::MAX)
    }

    fn look(&self, sweep: &mut Sweep<'_>) -> usize {
        let looked = sweep.look(self.now_ms()).expect("the backing is well");
        looked.expect("they are few enough")
    }

    /// The rest of a removal but for what is done with the locks open. `None` when
    /// it has to begin anew.
    fn commit(&self, sweep: &mut Sweep<'_>) -> Option<Revision> {
        sweep.encode(&[]);
        self.run(&Scope::All, |txn| {
            // Undoable, so that the head of the record is not what it was.
            txn.keep_flushed(NOW_MS + 1_000_000, u64::MAX);
            let is_same = txn.settle_sweep(sweep).expect("the backing is well");
            if !is_same.expect("they are few enough") {
                return None;
            }
            txn.remove_swept(sweep, false);
            Some(txn.revision().unwrap_or_default())
        })
    }

    /// What the records make of nothing.
    fn replayed(&self) -> Keyspace {
        let copy = self.live.empty_like();
        let mut buffers = Buffers::default();
        let mut records = self.journal.records.lock().unwrap();
        records.sort();
        for (revision, time_ms, db, effects) in &*records {
            copy.apply(*revision, *time_ms, *db, effects, &self.limits, &mut buffers)
                .expect("what was recorded fits");
        }
        copy
    }

    /// The state is sound, and what the records say.
    fn check(&self) {
        self.live.check().expect("it is sound");
        let replayed = self.replayed();
        replayed.check().expect("so is what the records make");
        for db in 0..DATABASES {
            assert_eq!(described(&self.live, db), described(&replayed, db), "database {db}");
        }
    }
}

/// Goes through the records with a model of database 0. Every removal of many keys
/// took all keys that it was for, and no other. Answers how many there were.
fn check_records(fixture: &Fixture) -> usize {
    let mut model: BTreeMap<Vec<u8>, Option<u64>> = BTreeMap::new();
    let mut sweeps = 0;
    let mut records = fixture.journal.records.lock().unwrap();
    records.sort();
    for (revision, time_ms, db, effects) in &*records {
        assert_eq!(*db, 0);
        let (mut at, mut undoable, mut gone) = (Vec::new(), None, Vec::new());
        let is_sweep = matches!(Effects::new(effects).next(), Some(Ok(Effect::Undoable { .. })));
        let before = if is_sweep { model.clone() } else { BTreeMap::new() };
        for effect in Effects::new(effects) {
            match effect.expect("they can be read") {
                Effect::Undoable { keys, .. } => undoable = Some(keys),
                Effect::Key { key, existed } => {
                    assert_eq!(existed, Some(model.contains_key(key)), "{revision}: {key:?}");
                    at = key.to_vec();
                }
                Effect::StrSet { deadline, .. } | Effect::Deadline(deadline) => {
                    model.insert(at.clone(), deadline);
                }
                Effect::Delete(cause) => {
                    if cause == Cause::Client {
                        gone.push(at.clone());
                    }
                    assert!(model.remove(&at).is_some(), "{revision} removes what is not there");
                }
                other => panic!("nobody does {other:?}"),
            }
        }
        if let Some(keys) = undoable {
            sweeps += 1;
            gone.sort();
            let is_there = |due: &Option<u64>| due.is_none_or(|at| at > *time_ms);
            let expected =
                before.iter().filter(|(key, due)| key.starts_with(PREFIX) && is_there(due));
            assert_eq!(gone, expected.map(|(key, _)| key.clone()).collect::<Vec<_>>());
            assert_eq!(keys, gone.len() as u64);
        }
    }
    sweeps
}

#[test]
fn what_goes_is_exactly_what_was_there_while_others_write() {
    let fixture = Fixture::new();
    for n in 0..3000 {
        fixture.set(&format!("gone:{n}"), "v", (n % 7 == 0).then_some(NOW_MS + n / 3));
        fixture.set(&format!("stays:{n}"), "v", None);
    }
    let (is_done, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    let twins = [b"gone:twin:a".to_vec(), b"gone:twin:b".to_vec()];
    let of_twins = Scope::Shards(twins.iter().map(|key| fixture.live.shard_of(key)).collect());
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (fixture, is_done, writes) = (&fixture, &is_done, &writes);
            scope.spawn(move || {
                let mut rng = SeededRng::new(seed);
                while !is_done.load(Ordering::Relaxed) {
                    writes.fetch_add(1, Ordering::Relaxed);
                    let kind = if rng.below(3) == 0 { "stays" } else { "gone" };
                    let key = format!("{kind}:{}", rng.below(4000));
                    let now_ms = fixture.now_ms.fetch_add(rng.below(2), Ordering::Relaxed);
                    match rng.below(6) {
                        0 | 1 => _ = fixture.delete(&key),
                        2 => fixture.set(&key, "due soon", Some(now_ms + rng.below(300))),
                        3 => {
                            fixture.on_key(key.as_bytes(), |txn| {
                                let deadline = Some(now_ms + 1 + rng.below(300));
                                txn.set_deadline(key.as_bytes(), deadline)
                            });
                        }
                        _ => fixture.set(&key, "new", None),
                    }
                }
            });
        }
        // Two that are always there together or not at all.
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                fixture.run(&of_twins, |txn| {
                    let [a, b] = [0, 1].map(|at| txn.string(&twins[at]).unwrap().is_some());
                    assert_eq!(a, b, "half of a removal was seen");
                    twins.iter().for_each(|key| txn.set_string(key, b"v", None));
                });
            }
        });
        for round in 0..60 {
            let enough = writes.load(Ordering::Relaxed) + 200;
            while writes.load(Ordering::Relaxed) < enough {
                std::thread::yield_now();
            }
            let mut sweep = fixture.sweep();
            let looks = round % 4;
            (0..=looks).for_each(|_| _ = fixture.look(&mut sweep));
            assert!(fixture.commit(&mut sweep).is_some(), "nobody flushes");
            // What is still to be taken out may be taken by others.
            sweep.finish(|| {}).expect("nothing is backed");
        }
        is_done.store(true, Ordering::Relaxed);
    });
    assert_eq!(check_records(&fixture), 60);
    fixture.check();
}

#[test]
fn what_is_removed_is_not_there_before_it_is_taken_out() {
    let fixture = Fixture::new();
    for n in 0..2000 {
        fixture.set(&format!("gone:{n}"), "old", (n % 5 == 0).then_some(NOW_MS + 9));
        fixture.set(&format!("stays:{n}"), "old", None);
    }
    let mut sweep = fixture.sweep();
    fixture.look(&mut sweep);
    fixture.set("gone:late", "old", None);
    assert!(fixture.delete("gone:7"));
    assert_eq!(fixture.look(&mut sweep), 2, "names that were touched");
    fixture.set("gone:later", "old", None);
    assert!(fixture.delete("gone:8"));
    let removal = fixture.commit(&mut sweep).expect("nobody flushed");
    assert!(removal > Revision::ZERO);
    // One key is taken out alone, and can be made anew.
    for key in ["gone:1", "gone:5", "gone:7", "gone:8", "gone:late", "gone:later"] {
        assert!(!fixture.exists(key), "{key}");
        assert!(!fixture.delete(key), "{key}");
    }
    fixture.set("gone:1", "new", None);
    fixture.set("gone:10", "new", Some(NOW_MS + 5));
    assert!(fixture.exists("gone:1") && fixture.exists("stays:1"));
    // Who locks a shard for more of it sees nothing of the others either.
    let shard = fixture.live.shard_of(b"gone:3");
    fixture.run(&Scope::Shards([shard].into_iter().collect()), |txn| {
        assert!(!txn.contains(b"gone:3"));
        assert!(!txn.set_deadline(b"gone:3", Some(NOW_MS + 50)));
    });
    fixture.now_ms.store(NOW_MS + 20, Ordering::Relaxed);
    (0..SHARDS).for_each(|shard| _ = fixture.live.has_due(shard, NOW_MS + 20));
    let garbage = sweep.finish(|| {}).expect("nothing is backed");
    assert!(garbage.is_much());
    garbage.drop_in_parts(|| {});
    assert!(fixture.exists("gone:1") && !fixture.delete("gone:10"), "it was due");
    let keys = described(&fixture.live, 0);
    assert_eq!(keys.keys().filter(|key| key.starts_with(PREFIX)).count(), 1);
    assert_eq!(keys.len(), 2001);
    fixture.check();
}

#[test]
fn a_database_that_becomes_another_one_is_looked_at_anew() {
    let whole: [fn(&mut Txn<'_>); 2] = [|txn| txn.flush(0), |txn| txn.swap(0, 1)];
    for change in whole {
        let fixture = Fixture::new();
        (0..100).for_each(|n| fixture.set(&format!("gone:{n}"), "v", None));
        let mut sweep = fixture.sweep();
        assert!(fixture.look(&mut sweep) >= 100);
        fixture.run(&Scope::All, change);
        fixture.set("gone:new", "v", None);
        assert_eq!(fixture.commit(&mut sweep), None);
        fixture.look(&mut sweep);
        assert_eq!(sweep.len(), 1);
        assert!(fixture.commit(&mut sweep).is_some());
        sweep.finish(|| {}).expect("nothing is backed");
        assert_eq!(described(&fixture.live, 0).len(), 0);
        fixture.check();
    }
}

#[test]
fn one_that_is_given_up_changes_nothing() {
    let fixture = Fixture::new();
    (0..100).for_each(|n| fixture.set(&format!("gone:{n:02}"), "v", None));
    let newest = fixture.journal.newest();
    let is_wanted = || -> IsWanted { Box::new(|key| key.starts_with(PREFIX)) };
    // Names of 7 bytes, with 16 more for each.
    let mut sweep = Sweep::of(&fixture.live, 0, is_wanted(), 99 * 23);
    assert_eq!(sweep.look(NOW_MS).expect("nothing is backed"), None);
    drop(sweep);
    let mut sweep = Sweep::of(&fixture.live, 0, is_wanted(), 100 * 23);
    fixture.look(&mut sweep);
    assert_eq!((sweep.len(), sweep.names().count()), (100, 100));
    fixture.set("gone:xx", "v", None);
    sweep.encode(&[]);
    fixture.run(&Scope::All, |txn| {
        assert_eq!(txn.settle_sweep(&mut sweep).expect("nothing is backed"), None);
    });
    drop(sweep);
    assert_eq!(fixture.journal.newest(), newest.next());
    let mut empty = Sweep::of(&fixture.live, 1, is_wanted(), usize::MAX);
    assert_eq!(fixture.look(&mut empty), 0);
    assert_eq!(fixture.commit(&mut empty), Some(Revision::ZERO), "there is no revision");
    fixture.check();
}

#[test]
fn keys_that_stand_elsewhere_go_from_there() {
    let other = Fixture::new();
    for n in 0..400 {
        other.set(&format!("gone:{n}"), "v", (n % 3 == 0).then_some(NOW_MS + 500));
        other.set(&format!("stays:{n}"), "v", None);
    }
    let space = SpaceId::first_of(0);
    let memory = Arc::new(MemoryBacking::default());
    memory.replace(BTreeMap::from([(space, contents(&other.live, 0))]));
    for evicts in [false, true] {
        let fixture = Fixture::new();
        fixture.live.back(memory.clone(), 0, space, &memory.counts(space));
        let evict = || {
            (0..SHARDS).for_each(|shard| {
                fixture.live.evict(shard, Revision(u64::MAX), usize::MAX);
            });
        };
        if evicts {
            (0..100).for_each(|n| assert!(fixture.exists(&format!("gone:{n}"))));
            evict();
        }
        let mut sweep = fixture.sweep();
        fixture.look(&mut sweep);
        assert_eq!(sweep.len(), 400);
        assert!(fixture.delete("gone:6"));
        if evicts {
            // It gets a deadline, and goes where its old one is still known.
            (20..40).for_each(|n| assert!(fixture.exists(&format!("gone:{n}"))));
            evict();
        }
        assert!(fixture.commit(&mut sweep).is_some());
        assert!(!fixture.exists("gone:9") && fixture.exists("stays:9"));
        fixture.set("gone:9", "new", None);
        sweep.finish(|| {}).expect("the backing has what it counts");
        fixture.live.check().expect("it is sound");
        (0..SHARDS).for_each(|shard| {
            fixture.live.load_shard(0, shard).expect("the backing is well");
        });
        fixture.live.check().expect("it is sound");
        let all = described(&fixture.live, 0);
        assert_eq!(all.keys().filter(|key| key.starts_with(PREFIX)).count(), 1);
        assert_eq!(all.len(), 401);
    }
}
