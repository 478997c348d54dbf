//! Corners of keyspaces with a backing.

mod backing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use backing::{Content, Journaled, MemoryBacking, NOW_MS, SEED};
use base::{Revision, SpaceId};
use keyspace::effect::{Cause, Effect};
use keyspace::{
    ApplyError, Buffers, Change, EncodingLimits, Keyspace, SHARDS, Scope, Txn, TxnOptions,
};

const SPACE: SpaceId = SpaceId { born: Revision::ZERO, db: 0 };

struct Fixture {
    keyspace: Keyspace,
    backing: Arc<MemoryBacking>,
    journal: Journaled,
    limits: EncodingLimits,
    now_ms: u64,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            keyspace: Keyspace::new(1, SEED),
            backing: Arc::default(),
            journal: Journaled::default(),
            limits: EncodingLimits::default(),
            now_ms: NOW_MS,
        }
    }

    /// With keys in the backing only; each one's value is its name.
    fn with_stored(names: &[Vec<u8>]) -> Fixture {
        let fixture = Fixture::new();
        fixture.run(|txn| names.iter().for_each(|name| txn.set_string(name, name, None)));
        fixture.catch_up();
        let stored = Fixture { backing: fixture.backing, ..Fixture::new() };
        stored.back(&stored.backing.counts(SPACE));
        stored.run(|_| ());
        stored
    }

    fn back(&self, counts: &[u64; SHARDS]) {
        self.keyspace.back(self.backing.clone(), 0, SPACE, counts);
    }

    /// The backing gets what is in memory.
    fn catch_up(&self) -> Revision {
        let contents = backing::contents(&self.keyspace, 0);
        self.backing.replace(BTreeMap::from([(SPACE, contents)]));
        self.keyspace.forget_removals(self.journal.newest());
        self.journal.newest()
    }

    fn run<R>(&self, work: impl FnOnce(&mut Txn<'_>) -> R) -> R {
        self.run_at(self.now_ms, work)
    }

    fn run_at<R>(&self, now_ms: u64, work: impl FnOnce(&mut Txn<'_>) -> R) -> R {
        let options = TxnOptions {
            now_ms,
            limits: &self.limits,
            event_classes: 0,
            always_record: false,
            expire: true,
            touch: true,
        };
        let mut buffers = Buffers::default();
        let mut txn = Txn::begin(&self.keyspace, &Scope::All, &self.journal, &mut buffers, options);
        let result = work(&mut txn);
        txn.finish();
        self.keyspace.check().expect("sums and indices agree");
        result
    }

    fn get(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.run(|txn| {
            txn.load(name);
            txn.check_backing().expect("the backing is well");
            txn.string(name).expect("a string").map(<[u8]>::to_vec)
        })
    }

    fn apply(&self, effects: &[Effect<'_>]) -> Result<(), ApplyError> {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        let buffers = &mut Buffers::default();
        self.keyspace.apply(Revision(100), NOW_MS, 0, &bytes, &self.limits, buffers)
    }

    fn fetches(&self) -> u64 {
        self.backing.fetches.load(Ordering::Relaxed)
    }
}

/// Names of one shard.
fn names(count: usize) -> Vec<Vec<u8>> {
    let names = (0u32..).map(|n| format!("key{n}").into_bytes());
    names.filter(|name| MemoryBacking::bucket_of(name) >> 10 == 7).take(count).collect()
}

#[test]
fn what_has_everything_is_not_backed() {
    let fixture = Fixture::new();
    fixture.back(&[0; SHARDS]);
    assert!(!fixture.keyspace.is_backed());
    let names = names(3);
    let fixture = Fixture::with_stored(&names);
    assert!(fixture.keyspace.is_backed());
    assert_eq!(fixture.keyspace.unloaded(), 3);
    assert_eq!(fixture.get(&names[0]).as_ref(), Some(&names[0]));
    assert_eq!(fixture.keyspace.unloaded(), 2);
    fixture.run(|txn| assert!(txn.delete(&names[1])));
    assert!(fixture.keyspace.is_backed());
    fixture.run(|txn| txn.set_string(&names[2], b"new", None));
    assert!(!fixture.keyspace.is_backed());
    assert_eq!(fixture.run(|txn| txn.len()), 2);
    let asked = fixture.fetches();
    assert_eq!(fixture.get(b"none"), None);
    assert_eq!(fixture.get(&names[1]), None);
    assert_eq!(fixture.fetches(), asked);
}

#[test]
fn a_flush_ends_it() {
    let names = names(3);
    let fixture = Fixture::with_stored(&names);
    fixture.run(|txn| txn.flush(0));
    assert!(!fixture.keyspace.is_backed());
    assert_eq!(fixture.get(&names[0]), None);
    assert_eq!(fixture.fetches(), 0);
}

#[test]
fn databases_emptied_by_one_transaction_stand_apart() {
    let fixture = Fixture { keyspace: Keyspace::new(2, SEED), ..Fixture::new() };
    fixture.run(|txn| {
        txn.flush(0);
        txn.swap(0, 1);
        txn.flush(0);
    });
    let spaces: Vec<SpaceId> = fixture.keyspace.spaces().iter().map(|&(_, id, _)| id).collect();
    assert_ne!(spaces[0], spaces[1]);
    assert!(spaces.iter().all(|space| space.born == fixture.journal.newest()), "{spaces:?}");
}

#[test]
fn a_missing_key_is_asked_for_once_in_a_transaction() {
    let names = names(3);
    let fixture = Fixture::with_stored(&names[..2]);
    fixture.run(|txn| {
        txn.purge(&names[2]);
        assert!(!txn.contains(&names[2]));
        txn.set_string(&names[2], b"x", None);
        assert!(txn.delete(&names[2]));
        assert!(!txn.delete(&names[2]));
    });
    assert_eq!(fixture.fetches(), 1);
}

#[test]
fn replay_does_not_fetch_what_it_overwrites() {
    let names = names(3);
    let fixture = Fixture::with_stored(&names[..2]);
    let set = Effect::StrSet { value: b"new", deadline: None };
    let key = |at: usize, existed| Effect::Key { key: &names[at], existed };
    fixture.apply(&[key(0, Some(true)), set, key(2, Some(false)), set]).expect("it fits");
    assert_eq!(fixture.fetches(), 0);
    assert_eq!(fixture.keyspace.unloaded(), 1);
    assert_eq!(fixture.get(&names[0]), Some(b"new".to_vec()));
    // Format 1 does not tell whether it existed.
    fixture.apply(&[key(1, None), set]).expect("it fits");
    assert_eq!(fixture.fetches(), 1);
    assert!(!fixture.keyspace.is_backed());
    assert_eq!(fixture.run(|txn| txn.len()), 3);
}

#[test]
fn replay_removes_without_reading() {
    let names = names(4);
    let fixture = Fixture::with_stored(&names);
    fixture.keyspace.remember_removals();
    let key = |at: usize, existed| Effect::Key { key: &names[at], existed };
    let (gone, set) = (Effect::Delete(Cause::Client), Effect::SetAdd { member: b"m" });
    // What follows on a key that is gone, or on another, is done as ever.
    let anew = [key(1, Some(true)), gone, key(1, Some(false)), set];
    fixture.apply(&[key(0, Some(true)), gone]).expect("it fits");
    fixture.apply(&anew).expect("it fits");
    assert_eq!(fixture.fetches(), 0);
    assert_eq!((fixture.keyspace.unloaded(), fixture.run(|txn| txn.len())), (2, 3));
    let unknown = |at: usize| fixture.keyspace.unknown(0, &names[at]).is_some();
    assert_eq!([0, 1, 2, 3].map(unknown), [false, false, true, true]);
    let mut changes = Vec::new();
    fixture.keyspace.changed_since(0, 7, Revision::ZERO, &mut |_, key, change| {
        changes.push((key.to_vec(), matches!(change, Change::Gone { revision: Revision(100) })));
    });
    changes.sort_unstable();
    assert_eq!(changes, [(names[0].clone(), true), (names[1].clone(), false)]);
    // Twice does not fit.
    let error = fixture.apply(&[key(0, Some(true)), gone]).expect_err("it is gone");
    assert!(matches!(error, ApplyError::Misfit { .. }), "{error}");
    // Format 1 does not tell whether it existed.
    fixture.apply(&[key(2, None), gone]).expect("it fits");
    assert_eq!(fixture.fetches(), 1);
    fixture.apply(&[key(3, Some(true)), gone]).expect("it fits");
    assert!(!fixture.keyspace.is_backed());
    assert_eq!((fixture.get(&names[3]), fixture.keyspace.unknown(0, &names[3])), (None, None));
}

#[test]
fn replay_says_that_the_backing_cannot_be_read() {
    let names = names(2);
    let fixture = Fixture::with_stored(&names);
    fixture.backing.is_broken.store(true, Ordering::Relaxed);
    let [old, other] = [0, 1].map(|at| Effect::Key { key: &names[at], existed: Some(true) });
    let error = fixture.apply(&[old, Effect::StrAdd { delta: 1 }]).expect_err("broken");
    assert_eq!(error.to_string(), "the archive cannot be read: it is broken");
    fixture.backing.is_broken.store(false, Ordering::Relaxed);
    fixture.get(&names[1]);
    fixture.backing.is_broken.store(true, Ordering::Relaxed);
    let rename = Effect::Rename { db: 0, key: &names[0], replaces: Some(true) };
    let error = fixture.apply(&[other, rename]).expect_err("broken");
    assert!(matches!(error, ApplyError::Backing(_)));
}

#[test]
fn a_record_that_does_not_fit_the_backing_is_refused() {
    let names = names(2);
    let fixture = Fixture::with_stored(&names[..1]);
    let set = Effect::SetAdd { member: b"m" };
    for (at, existed) in [(0, false), (1, true)] {
        let key = Effect::Key { key: &names[at], existed: Some(existed) };
        let error = fixture.apply(&[key, set]).expect_err("it does not fit");
        assert!(matches!(error, ApplyError::Misfit { .. }), "{error}");
    }
}

#[test]
fn a_backing_that_counts_wrongly_is_an_error() {
    let names = names(3);
    let few = Fixture::with_stored(&names);
    let mut counts = few.backing.counts(SPACE);
    let few = Fixture { backing: few.backing, ..Fixture::new() };
    counts[7] = 2;
    few.back(&counts);
    let load_all = |fixture: &Fixture| fixture.run(|txn| txn.load_all());
    let error = load_all(&few).expect_err("one is too many");
    assert_eq!(error.to_string(), "space 0@0 holds more keys than it counts");
    assert_eq!(few.run(|txn| txn.len()), 2);

    let many = Fixture { backing: few.backing, ..Fixture::new() };
    counts[7] = 4;
    many.back(&counts);
    let error = load_all(&many).expect_err("one is missing");
    assert_eq!(error.to_string(), "space 0@0 lacks 1 of the keys that it counts");
    assert_eq!(many.run(|txn| txn.len()), 4);
}

#[test]
fn eviction_waits_until_the_backing_knows_of_removals() {
    let names = names(200);
    let fixture = Fixture::new();
    fixture.back(&[0; SHARDS]);
    fixture.run(|txn| names.iter().for_each(|name| txn.set_string(name, name, None)));
    let upto = fixture.catch_up();
    fixture.run(|txn| assert!(txn.delete(&names[0])));
    assert_eq!(fixture.keyspace.evict(7, upto, usize::MAX).keys, 0);
    // From here on removals are remembered, and hold nothing up.
    let upto = fixture.catch_up();
    fixture.run(|txn| assert!(txn.delete(&names[1])));
    fixture.run(|txn| txn.set_string(&names[2], b"new", None));
    let before = fixture.keyspace.memory_bytes();
    let evicted = fixture.keyspace.evict(7, upto, usize::MAX);
    assert_eq!(evicted.keys + fixture.keyspace.evict(7, upto, usize::MAX).keys, 197);
    assert_eq!(fixture.keyspace.unloaded(), 197);
    assert!(fixture.keyspace.memory_bytes() + evicted.bytes <= before);
    assert_eq!(fixture.run(|txn| txn.len()), 198);
    assert_eq!(fixture.get(&names[0]), None);
    assert_eq!(fixture.get(&names[1]), None);
    assert_eq!(fixture.get(&names[2]), Some(b"new".to_vec()));
    assert_eq!(fixture.get(&names[3]).as_ref(), Some(&names[3]));
    assert_eq!(fixture.run(|txn| txn.info(&names[3]).map(|info| info.revision)), Some(Revision(1)));
    // Removed and loaded, then evicted again.
    assert_eq!(fixture.run(|txn| txn.load_all()), Ok(()));
    while !fixture.keyspace.evict(7, upto, usize::MAX).is_spent {}
    assert_eq!(fixture.keyspace.unloaded(), 197);
    assert_eq!(fixture.get(&names[1]), None);
}

#[test]
fn the_least_recently_used_keys_are_evicted() {
    let names = names(40);
    let fixture = Fixture::new();
    fixture.back(&[0; SHARDS]);
    fixture.run(|txn| names.iter().for_each(|name| txn.set_string(name, &[b'v'; 100], None)));
    fixture.run_at(NOW_MS + 60_000, |txn| {
        names[10..].iter().for_each(|name| assert!(txn.get(name).is_some()));
        txn.set_string(&names[10], b"new", None);
    });
    let upto = fixture.catch_up();
    let evicted = fixture.keyspace.evict(7, upto, 1000);
    assert!((1000..1200).contains(&evicted.bytes), "{evicted:?}");
    let left = backing::described(&fixture.keyspace, 0);
    assert!(names[10..].iter().all(|name| left.contains_key(name)));
    assert_eq!(left.len() as u64, 40 - evicted.keys);
}

#[test]
fn keys_that_are_used_again_and_again_stay_among_many_that_are_used_once() {
    let names = names(2000);
    let (hot, cold) = names.split_at(100);
    let fixture = Fixture::new();
    fixture.back(&[0; SHARDS]);
    fixture.run(|txn| names.iter().for_each(|name| txn.set_string(name, &[b'v'; 100], None)));
    let upto = fixture.catch_up();
    let get = |name: &Vec<u8>| assert!(fixture.get(name).is_some());
    // All within one second, so that only the number of uses tells them apart.
    for some in cold.chunks(50) {
        hot.iter().for_each(get);
        some.iter().for_each(get);
        fixture.keyspace.evict(7, upto, 8000);
    }
    let left = backing::described(&fixture.keyspace, 0);
    assert!(left.len() < 800, "{}", left.len());
    assert!(hot.iter().all(|name| left.contains_key(name)));
}

#[test]
fn an_evicted_key_expires() {
    let names = names(2);
    let fixture = Fixture::new();
    fixture.back(&[0; SHARDS]);
    fixture.run(|txn| names.iter().for_each(|name| txn.set_string(name, b"v", Some(NOW_MS + 5))));
    let upto = fixture.catch_up();
    assert_eq!(fixture.keyspace.evict(7, upto, usize::MAX).keys, 2);
    assert_eq!(fixture.keyspace.statistics()[0].1.deadlines, 2);
    assert!(fixture.keyspace.has_due(7, NOW_MS + 5));
    let expire = || fixture.run_at(NOW_MS + 5, |txn| (txn.expire_due(7, 10), txn.check_backing()));
    fixture.backing.is_broken.store(true, Ordering::Relaxed);
    assert!(matches!(expire(), (0, Err(_))));
    fixture.backing.is_broken.store(false, Ordering::Relaxed);
    assert_eq!(expire(), (2, Ok(())));
    assert!(!fixture.keyspace.has_due(7, NOW_MS * 2));
    assert_eq!(fixture.run(|txn| txn.len()), 0);
}

/// A keyspace with 300 keys in the backing only, of which each third is due in
/// five milliseconds.
fn with_due() -> Fixture {
    let origin = Fixture::new();
    origin.run(|txn| {
        for (n, name) in names(300).iter().enumerate() {
            txn.set_string(name, name, (n % 3 == 0).then_some(NOW_MS + 5));
        }
    });
    origin.catch_up();
    let counts = origin.backing.counts(SPACE);
    let fixture = Fixture { backing: origin.backing, ..Fixture::new() };
    fixture.back(&counts);
    fixture
}

#[test]
fn deadlines_are_looked_for_from_when_one_may_be_due() {
    let firsts =
        |first: u64| vec![std::array::from_fn(|shard| if shard == 7 { first } else { u64::MAX })];
    let tells = |fixture: &Fixture| fixture.run(|txn| txn.first_deadlines());
    for (first, due) in
        [(NOW_MS + 5, 0..=NOW_MS + 4), (u64::MAX, 0..=u64::MAX - 1), (0, 1..=NOW_MS)]
    {
        let fixture = with_due();
        assert_eq!(tells(&fixture), firsts(0), "nothing is known");
        fixture.keyspace.expect_deadlines(&firsts(first));
        assert_eq!(tells(&fixture), firsts(first), "who begins with it knows as much");
        fixture.backing.is_broken.store(true, Ordering::Relaxed);
        assert_eq!(fixture.keyspace.index_due(7, due), Ok(false), "it is not asked: {first}");
    }
    for (first, due) in [(NOW_MS + 5, 1..=NOW_MS + 5), (0, 0..=NOW_MS)] {
        let fixture = with_due();
        fixture.keyspace.expect_deadlines(&firsts(first));
        // One that is in memory is no reason to look for others, nor is it lost.
        assert!(fixture.get(&names(1)[0]).is_some());
        let mut looks = 0;
        while fixture.keyspace.index_due(7, due.clone()).expect("the backing is well") {
            looks += 1;
        }
        assert!(looks > 1, "a few keys at a time");
        assert_eq!(fixture.keyspace.statistics()[0].1.deadlines, 100);
        assert_eq!(tells(&fixture), firsts(NOW_MS + 5), "all are known");
        let expired = fixture.run_at(NOW_MS + 5, |txn| txn.expire_due(7, 1000));
        assert_eq!((expired, fixture.run(|txn| txn.len())), (100, 200));
        assert_eq!(tells(&fixture), firsts(u64::MAX));
    }
}

#[test]
fn a_backing_that_cannot_tell_deadlines_is_asked_once() {
    let fixture = with_due();
    fixture.backing.is_broken.store(true, Ordering::Relaxed);
    assert!(fixture.keyspace.index_due(7, 0..=NOW_MS).is_err());
    assert_eq!(fixture.keyspace.index_due(7, 0..=NOW_MS), Ok(false));
}

#[test]
fn what_a_branch_overwrites_unread_is_no_longer_due() {
    let fixture = with_due();
    fixture.keyspace.count_own(Revision(1000), true);
    while fixture.keyspace.index_due(7, 0..=NOW_MS).expect("the backing is well") {}
    let name = &names(1)[0];
    let effects = [
        Effect::Key { key: name, existed: Some(true) },
        Effect::StrSet { value: b"new", deadline: None },
    ];
    fixture.apply(&effects).expect("it fits");
    assert_eq!(
        fixture.run_at(NOW_MS + 5, |txn| (txn.expire_due(7, 1000), txn.check_backing())),
        (99, Ok(()))
    );
    assert_eq!(fixture.get(name), Some(b"new".to_vec()));
    assert_eq!(fixture.keyspace.statistics()[0].1.deadlines, 0);
}

#[test]
fn a_key_that_was_never_in_memory_expires_once_its_deadline_is_indexed() {
    let fixture = with_due();
    assert!(!fixture.keyspace.has_due(7, NOW_MS + 5));
    let mut bucket: u16 = 7 << 10;
    while bucket < 8 << 10 {
        bucket += fixture.keyspace.index_deadlines(0, bucket).expect("the backing is well");
    }
    assert_eq!(fixture.keyspace.unloaded(), 300, "only deadlines came");
    assert_eq!(fixture.keyspace.statistics()[0].1.deadlines, 100);
    let expired = fixture.run_at(NOW_MS + 5, |txn| (txn.expire_due(7, 1000), txn.loaded()));
    assert_eq!(expired, (100, 100));
    assert_eq!(fixture.keyspace.unloaded(), 200, "what is not due stayed where it was");
    assert_eq!(fixture.run_at(NOW_MS + 5, |txn| txn.len()), 200);
}

#[test]
fn a_look_at_all_keys_leaves_those_evicted_where_they_are() {
    let names = names(300);
    let fixture = Fixture::new();
    fixture.back(&[0; SHARDS]);
    fixture.run(|txn| names.iter().for_each(|name| txn.set_string(name, name, None)));
    let upto = fixture.catch_up();
    while !fixture.keyspace.evict(7, upto, usize::MAX).is_spent {}
    assert_eq!(fixture.keyspace.unloaded(), 300);
    fixture.run(|txn| names[..100].iter().for_each(|name| txn.set_string(name, b"new", None)));
    fixture.run(|txn| assert!(txn.delete(&names[200])));
    let unloaded = fixture.keyspace.unloaded();
    let mut seen = std::collections::BTreeMap::new();
    fixture
        .run(|txn| {
            let seen = &mut seen;
            txn.visit_all(&mut |key, value, _| {
                drop(seen.insert(key.to_vec(), backing::seen(value)))
            })
        })
        .expect("the backing is well");
    assert_eq!(fixture.keyspace.unloaded(), unloaded);
    assert_eq!(seen.len(), 299);
    for (n, name) in names.iter().enumerate().filter(|(n, _)| *n != 200) {
        let value: &[u8] = if n < 100 { b"new" } else { name };
        assert_eq!(seen[name], format!("{value:?}"));
    }
}

#[test]
fn one_call_evicts_a_bounded_part_and_says_when_nothing_is_left() {
    let names = names(5000);
    let fixture = Fixture::new();
    fixture.back(&[0; SHARDS]);
    fixture.run(|txn| names.iter().for_each(|name| txn.set_string(name, name, None)));
    let upto = fixture.catch_up();
    fixture.run(|txn| txn.set_string(&names[0], b"later", None));
    let mut calls = 0;
    let mut keys = 0;
    loop {
        let evicted = fixture.keyspace.evict(7, upto, usize::MAX);
        assert!(evicted.keys < 500, "{}", evicted.keys);
        (calls, keys) = (calls + 1, keys + evicted.keys);
        if evicted.is_spent {
            break;
        }
    }
    assert_eq!(keys, 4999);
    assert!(calls >= 10, "{calls}");
    // What comes back can go again.
    assert!(fixture.get(&names[1]).is_some());
    assert_eq!(fixture.keyspace.evict(7, upto, usize::MAX).keys, 1);
}

#[test]
fn without_a_backing_nothing_is_evicted() {
    let names = names(2);
    let fixture = Fixture::new();
    fixture.run(|txn| txn.set_string(&names[0], b"v", None));
    assert_eq!(fixture.keyspace.evict(7, Revision(9), usize::MAX).keys, 0);
    assert!(!fixture.keyspace.is_backed());
}

#[test]
fn a_bucket_is_loaded_once() {
    let names = names(2);
    let fixture = Fixture::with_stored(&names);
    let bucket = MemoryBacking::bucket_of(&names[0]);
    fixture.backing.is_broken.store(true, Ordering::Relaxed);
    assert!(fixture.keyspace.load_bucket(0, bucket).is_err());
    fixture.backing.is_broken.store(false, Ordering::Relaxed);
    assert_eq!(fixture.keyspace.load_bucket(0, bucket), Ok(Some(Vec::new())));
    assert_eq!(fixture.keyspace.load_bucket(0, bucket), Ok(None));
    let asked = fixture.fetches();
    assert_eq!(fixture.get(&names[0]).as_ref(), Some(&names[0]));
    assert_eq!(fixture.fetches(), asked);
    let keys: Content = backing::contents(&fixture.keyspace, 0);
    assert_eq!(keys.len(), 1);
}
