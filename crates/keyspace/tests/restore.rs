//! Keys made what they were, many at one go: the state, the record, and what
//! others see meanwhile.

mod backing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backing::{Journaled, MemoryBacking, NOW_MS, SEED, contents, described};
use base::{DbIndex, Revision, Rng, SeededRng, SpaceId};
use keyspace::effect::{Effect, Effects};
use keyspace::types::{Hash, List, Set};
use keyspace::{
    Buffers, Comparison, EncodingLimits, Journal, Keyspace, Restoration, Scope, Stored, Txn,
    TxnOptions, Value,
};

const DATABASES: DbIndex = 2;

type Model = BTreeMap<(DbIndex, Vec<u8>), (Value, Option<u64>)>;

struct Fixture {
    live: Keyspace,
    journal: Journaled,
    limits: EncodingLimits,
}

impl Fixture {
    fn new() -> Fixture {
        let limits = EncodingLimits {
            hash_max_listpack_entries: 4,
            set_max_intset_entries: 4,
            ..EncodingLimits::default()
        };
        Fixture { live: Keyspace::new(DATABASES, SEED), journal: Journaled::default(), limits }
    }

    fn run<R>(&self, work: impl FnOnce(&mut Txn<'_>) -> R) -> R {
        let options = TxnOptions {
            now_ms: NOW_MS,
            limits: &self.limits,
            event_classes: 0,
            always_record: false,
            expire: true,
            touch: true,
        };
        let mut buffers = Buffers::default();
        let mut txn = Txn::begin(&self.live, &Scope::All, &self.journal, &mut buffers, options);
        let result = work(&mut txn);
        txn.finish();
        result
    }

    fn how(&self) -> Comparison<'_> {
        Comparison { now_ms: NOW_MS, limits: &self.limits }
    }

    fn write(&self, restoration: &mut Restoration) -> Option<Revision> {
        restoration.encode(&[]);
        let (journal, newest) = (&self.journal, self.journal.newest());
        let mut is_current = || journal.newest() == newest;
        let written = restoration.write(&self.live, journal, NOW_MS, &mut is_current, &mut |_| {});
        written.expect("nothing is evicted").and_then(|finished| finished.written)
    }

    /// What the records make of nothing.
    fn replayed(&self) -> Keyspace {
        let copy = self.live.empty_like();
        let mut buffers = Buffers::default();
        for (revision, time_ms, db, effects) in &*self.journal.records.lock().unwrap() {
            copy.apply(*revision, *time_ms, *db, effects, &self.limits, &mut buffers)
                .expect("what was recorded fits");
        }
        copy
    }
}

fn value(rng: &mut SeededRng, limits: &EncodingLimits) -> Value {
    let n = rng.below(9) as usize;
    match rng.below(5) {
        0 => Value::Str(vec![n as u8; n]),
        1 => {
            let mut long = Vec::with_capacity(20_000);
            long.resize(5000 + n, 7);
            Value::Str(long)
        }
        2 => {
            let mut set = Set::new(SEED);
            (0..=n).for_each(|n| _ = set.add(n.to_string().as_bytes(), limits));
            Value::Set(set)
        }
        3 => {
            let mut hash = Hash::new(SEED);
            (0..=n).for_each(|n| _ = hash.set(n.to_string().as_bytes(), b"v", limits));
            Value::Hash(hash)
        }
        _ => {
            let mut list = List::new();
            (0..=n).for_each(|n| list.push_back(n.to_string().as_bytes(), limits));
            Value::List(list)
        }
    }
}

fn deadline(rng: &mut SeededRng) -> Option<u64> {
    [None, None, Some(NOW_MS - 5), Some(NOW_MS + 5), Some(NOW_MS + 6)][rng.below(5) as usize]
}

fn change(fixture: &Fixture, rng: &mut SeededRng) -> (DbIndex, Vec<u8>) {
    let place = (rng.below(2) as DbIndex, format!("key:{}", rng.below(200)).into_bytes());
    let (value, deadline) = (value(rng, &fixture.limits), deadline(rng));
    fixture.run(|txn| {
        txn.select(place.0);
        match rng.below(5) {
            0 => _ = txn.delete(&place.1),
            1 => _ = txn.set_deadline(&place.1, deadline),
            _ => txn.put(&place.1, value, deadline),
        }
    });
    place
}

fn stored((value, deadline): &(Value, Option<u64>)) -> Stored {
    Stored { value: value.as_ref().to_value(), deadline: *deadline, revision: Revision(1) }
}

/// What is to be seen of a key.
fn shown(fixture: &Fixture, (db, key): &(DbIndex, Vec<u8>)) -> Option<String> {
    fixture.run(|txn| {
        txn.select(*db);
        let value = txn.look(key)?;
        Some(format!("{} {:?}", backing::seen(value), txn.deadline(key)))
    })
}

#[test]
fn keys_become_what_they_are_to_be_and_so_does_a_replay() {
    for seed in 0..40 {
        let (fixture, mut rng) = (Fixture::new(), SeededRng::new(seed));
        if seed % 4 != 0 {
            (0..300).for_each(|_| _ = change(&fixture, &mut rng));
        }
        let mut model = Model::new();
        let mut unwanted = Vec::new();
        let mut restoration = Restoration::to(fixture.live.empty_like());
        for _ in 0..150 {
            let place = (rng.below(2) as DbIndex, format!("key:{}", rng.below(200)).into_bytes());
            if rng.below(4) == 0 {
                restoration.want(place.0, &place.1, None);
                model.remove(&place);
                unwanted.push(place);
            } else {
                let then = (value(&mut rng, &fixture.limits), deadline(&mut rng));
                restoration.want(place.0, &place.1, Some(stored(&then)));
                unwanted.retain(|other| *other != place);
                model.insert(place, then);
            }
        }
        restoration.compare(&fixture.live, fixture.how()).expect("nothing is backed");
        // What changes meanwhile is compared again, or said again.
        for _ in 0..seed % 3 * 20 {
            let place = change(&fixture, &mut rng);
            if !restoration.note_changed(place.0, &place.1)
                && let Some(then) = model.get(&place)
            {
                restoration.want(place.0, &place.1, Some(stored(then)));
            }
        }
        restoration.compare(&fixture.live, fixture.how()).expect("nothing is backed");
        let mut names: Vec<_> = model.keys().chain(&unwanted).cloned().collect();
        names.sort_unstable();
        names.dedup();
        let before: Vec<_> = names.iter().map(|place| shown(&fixture, place)).collect();
        let counts = restoration.counts();
        let places = restoration.places();
        let newest = fixture.journal.newest();
        let written = fixture.write(&mut restoration).expect("nothing has come in between");
        assert_eq!(written, newest.next());
        let (mut restored, mut removed) = (0, 0);
        for (place, before) in names.iter().zip(before) {
            let then = model.get(place).filter(|(_, at)| at.is_none_or(|at| at > NOW_MS));
            let expected = then.map(|(value, deadline)| {
                format!("{} {:?}", backing::seen(value.as_ref()), Some(*deadline))
            });
            let now = shown(&fixture, place);
            assert_eq!(now, expected, "seed {seed}: {place:?}");
            let is_told = places.iter().any(|(db, key)| (*db, &**key) == (place.0, &place.1[..]));
            // The order of elements counts, which is not to be seen here.
            let has_order = |shown: &String| shown.starts_with("set") || shown.starts_with("hash");
            let is_reordered = before == now && now.as_ref().is_some_and(has_order);
            assert!(is_told == (before != now) || is_reordered, "seed {seed}: {place:?}");
            restored += u64::from(is_told && now.is_some());
            removed += u64::from(is_told && now.is_none());
        }
        assert_eq!(counts, (restored, removed), "seed {seed}");
        fixture.live.check().expect("it is sound");
        let replayed = fixture.replayed();
        for db in 0..DATABASES {
            assert_eq!(described(&fixture.live, db), described(&replayed, db), "seed {seed}");
        }
        for (db, key) in &places {
            let bytes = |keyspace: &Keyspace| {
                let (journal, mut buffers) = (Journaled::default(), Buffers::default());
                let options = TxnOptions {
                    now_ms: NOW_MS,
                    limits: &fixture.limits,
                    event_classes: 0,
                    always_record: false,
                    expire: false,
                    touch: false,
                };
                let mut txn = Txn::begin_on_key(keyspace, key, &journal, &mut buffers, options);
                txn.select(*db);
                txn.look_closely(*db, key).map(|(value, info)| {
                    (keyspace::dump::encode_body(value), info.memory_bytes, info.revision)
                })
            };
            assert_eq!(bytes(&fixture.live), bytes(&replayed), "seed {seed}: {key:?}");
        }
    }
}

#[test]
fn nothing_happens_when_something_has_come_in_between() {
    let fixture = Fixture::new();
    fixture.run(|txn| txn.set_string(b"k", b"now", None));
    let mut restoration = Restoration::to(fixture.live.empty_like());
    let then = (Value::Str(b"then".to_vec()), None);
    restoration.want(0, b"k", Some(stored(&then)));
    restoration.compare(&fixture.live, fixture.how()).expect("nothing is backed");
    restoration.encode(&[]);
    restoration.expect(Revision(2));
    let journal = &fixture.journal;
    let refused = restoration
        .write(&fixture.live, journal, NOW_MS, &mut || false, &mut |_| panic!("nothing is shown"));
    assert_eq!(refused, Ok(None));
    assert_eq!(journal.newest(), Revision(1));
    assert_eq!(described(&fixture.live, 0)[&b"k"[..]], "[110, 111, 119] None 1");
    // Another revision than was expected is right all the same.
    journal.reserve();
    journal.append(Revision(2), NOW_MS, 0, &[]);
    assert_eq!(fixture.write(&mut restoration), Some(Revision(3)));
    assert_eq!(described(&fixture.live, 0)[&b"k"[..]], "[116, 104, 101, 110] None 3");
}

/// Whoever looks for changes may miss that a key has gone, or has come: the record
/// that was made ready then must not be written, for nobody could replay it.
#[test]
fn a_record_that_does_not_fit_is_made_anew() {
    let change: [fn(&mut Txn<'_>); 4] = [
        |txn| txn.flush(0),
        |txn| txn.swap(0, 1),
        |txn| _ = txn.delete(b"gone"),
        |txn| txn.set_string(b"new", b"come", None),
    ];
    for change in change {
        let fixture = Fixture::new();
        fixture.run(|txn| {
            [b"gone", b"kept"].iter().for_each(|key| txn.set_string(*key, b"now", None));
        });
        let mut restoration = Restoration::to(fixture.live.empty_like());
        let then = (Value::Str(b"then".to_vec()), None);
        restoration.want(0, b"gone", None);
        restoration.want(0, b"kept", Some(stored(&then)));
        restoration.want(0, b"new", Some(stored(&then)));
        restoration.compare(&fixture.live, fixture.how()).expect("nothing is backed");
        assert_eq!(restoration.counts(), (2, 1));
        fixture.run(change);
        let newest = fixture.journal.newest();
        assert_eq!(fixture.write(&mut restoration), None);
        assert_eq!(fixture.journal.newest(), newest, "nothing is written");
        assert!(!restoration.is_compared());
        restoration.compare(&fixture.live, fixture.how()).expect("nothing is backed");
        assert_eq!(fixture.write(&mut restoration), Some(newest.next()));
        let now = described(&fixture.live, 0);
        assert_eq!(now, described(&fixture.replayed(), 0));
        assert_eq!(now.into_keys().collect::<Vec<_>>(), [b"kept".to_vec(), b"new".to_vec()]);
    }
}

#[test]
fn the_record_begins_with_its_head_and_names_databases() {
    let fixture = Fixture::new();
    fixture.run(|txn| {
        txn.select(1);
        txn.set_string(b"gone", b"x", None);
    });
    let mut restoration = Restoration::to(fixture.live.empty_like());
    restoration.want(1, b"gone", None);
    restoration.want(0, b"k", Some(stored(&(Value::Str(b"v".to_vec()), Some(NOW_MS + 1)))));
    restoration.compare(&fixture.live, fixture.how()).expect("nothing is backed");
    let head = Effect::Undone { revision: Revision(1) };
    restoration.encode(&[head]);
    let shown = std::cell::RefCell::new(Vec::new());
    restoration
        .write(&fixture.live, &fixture.journal, NOW_MS, &mut || true, &mut |effects| {
            shown.borrow_mut().extend_from_slice(effects);
        })
        .expect("nothing is evicted");
    let records = fixture.journal.records.lock().unwrap();
    let (revision, _, db, effects) = records.last().expect("written");
    assert_eq!((*revision, &*shown.borrow()), (Revision(2), effects));
    let mut expected = BTreeMap::new();
    let (mut at, mut key) = (*db, &b""[..]);
    let mut effects = Effects::new(effects).map(|effect| effect.expect("well-formed"));
    assert_eq!(effects.next(), Some(head));
    for effect in effects {
        match effect {
            Effect::Database(db) => at = db,
            Effect::Key { key: name, existed } => {
                assert_eq!(existed, Some(at == 1));
                key = name;
            }
            effect => _ = expected.insert((at, key), effect),
        }
    }
    let set = Effect::StrSet { value: b"v", deadline: Some(NOW_MS + 1) };
    let delete = Effect::Delete(keyspace::effect::Cause::Client);
    assert_eq!(expected, BTreeMap::from([((0, &b"k"[..]), set), ((1, &b"gone"[..]), delete)]));
}

#[test]
fn who_reads_sees_all_of_it_or_nothing() {
    const KEYS: usize = 500;
    let fixture = Fixture::new();
    let names: Vec<Vec<u8>> = (0..KEYS).map(|n| format!("k:{n}").into_bytes()).collect();
    fixture.run(|txn| names.iter().for_each(|name| txn.set_string(name, b"0", None)));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut newest = 0;
                while !is_done.load(Ordering::Relaxed) {
                    let values = fixture.run(|txn| {
                        let of = |name: &Vec<u8>| txn.string(name).unwrap().map(<[u8]>::to_vec);
                        names.iter().map(of).collect::<Vec<_>>()
                    });
                    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
                    let text = String::from_utf8(values[0].clone().expect("there")).unwrap();
                    let seen: u64 = text.parse().unwrap();
                    assert!(seen >= newest);
                    newest = seen;
                }
            });
        }
        for round in 1..60_u64 {
            let mut restoration = Restoration::to(fixture.live.empty_like());
            let then = (Value::Str(round.to_string().into_bytes()), None);
            for name in &names {
                restoration.want(0, name, Some(stored(&then)));
            }
            restoration.compare(&fixture.live, fixture.how()).expect("nothing is backed");
            assert_eq!(restoration.counts(), (KEYS as u64, 0));
            assert!(fixture.write(&mut restoration).is_some());
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn keys_that_stand_elsewhere_are_brought_in_and_evicted_ones_again() {
    let other = Fixture::new();
    other.run(|txn| {
        for n in 0..300 {
            txn.set_string(format!("k:{n}").as_bytes(), b"old", None);
        }
    });
    let space = SpaceId::first_of(0);
    let memory = Arc::new(MemoryBacking::default());
    memory.replace(BTreeMap::from([(space, contents(&other.live, 0))]));
    let fixture = Fixture::new();
    fixture.live.back(memory.clone(), 0, space, &memory.counts(space));
    let mut restoration = Restoration::to(fixture.live.empty_like());
    for n in 0..200 {
        let key = format!("k:{n}").into_bytes();
        let then = (Value::Str(b"new".to_vec()), None);
        let is_wanted = n % 3 > 0;
        restoration.want(0, &key, is_wanted.then(|| stored(&then)));
    }
    restoration.compare(&fixture.live, fixture.how()).expect("the backing is well");
    assert_eq!(restoration.counts(), (133, 67));
    // Out they go again.
    for shard in 0..keyspace::SHARDS {
        fixture.live.evict(shard, Revision(u64::MAX), usize::MAX);
    }
    assert!(fixture.live.unloaded_of(0) > 200, "{} are out", fixture.live.unloaded_of(0));
    memory.is_broken.store(true, Ordering::Relaxed);
    restoration.encode(&[]);
    let newest = fixture.journal.newest();
    restoration
        .write(&fixture.live, &fixture.journal, NOW_MS, &mut || true, &mut |_| {})
        .expect_err("the backing cannot be read");
    assert_eq!(fixture.journal.newest(), newest);
    memory.is_broken.store(false, Ordering::Relaxed);
    assert!(fixture.write(&mut restoration).is_some());
    fixture.live.load_shard(0, 0).expect("the backing is well");
    (1..keyspace::SHARDS).for_each(|shard| fixture.live.load_shard(0, shard).expect("as well"));
    fixture.live.check().expect("it is sound");
    let all = described(&fixture.live, 0);
    assert_eq!(all.len(), 300 - 67);
    for n in 0..300 {
        let found = all.get(format!("k:{n}").as_bytes());
        let expected = match n {
            200.. => Some("[111, 108, 100] None"),
            _ if n % 3 > 0 => Some("[110, 101, 119] None"),
            _ => None,
        };
        assert_eq!(found.is_some(), expected.is_some(), "k:{n}");
        assert!(found.zip(expected).is_none_or(|(found, text)| found.starts_with(text)), "k:{n}");
    }
}
