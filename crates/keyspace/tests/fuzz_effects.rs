//! Hostile transactions: any bytes are applied or refused, never a panic, and
//! sums and indices hold whatever came of it.

use base::{DbIndex, Revision};
use keyspace::effect::{Effect, Effects};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{ApplyError, Buffers, EncodingLimits, Keyspace, Value};
use keyspace::{Journal, Scope, Txn, TxnOptions};
use testkit::fuzz;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/effects");

const DATABASES: DbIndex = 3;

/// Longest gap that a run tries: SETRANGE may ask for as much as there is
/// memory, a test should not.
const STRING_BYTES_MAX: u64 = 1 << 20;

const NOW_MS: u64 = 1_700_000_000_000;

struct Nowhere;

impl Journal for Nowhere {
    fn reserve(&self) -> Revision {
        Revision(1)
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

/// Small limits: a few elements change the encoding.
fn limits() -> EncodingLimits {
    EncodingLimits {
        hash_max_listpack_entries: 3,
        list_max_listpack_size: 2,
        set_max_intset_entries: 3,
        set_max_listpack_entries: 3,
        zset_max_listpack_entries: 3,
        ..EncodingLimits::default()
    }
}

/// A keyspace with a key of every type, named by its first letter, in two
/// databases, with and without a deadline.
fn filled() -> Keyspace {
    let keyspace = Keyspace::new(DATABASES, 1);
    let limits = limits();
    let options = TxnOptions {
        now_ms: NOW_MS,
        limits: &limits,
        event_classes: 0,
        always_record: false,
        expire: true,
        touch: true,
    };
    let mut buffers = Buffers::default();
    let mut tx = Txn::begin(&keyspace, &Scope::All, &Nowhere, &mut buffers, options);
    for (db, deadline) in [(0, None), (1, Some(NOW_MS + 1000))] {
        tx.select(db);
        tx.set_string(b"s", b"10", deadline);
        tx.set_string(b"t", &[b'x'; 5000], deadline);
        let (mut list, mut set) = (List::new(), Set::new(1));
        let (mut hash, mut zset) = (Hash::new(1), Zset::new(1));
        for (number, element) in [&b"a"[..], b"b", b"1", b"22"].into_iter().enumerate() {
            list.push_back(element, &limits);
            set.add(element, &limits);
            hash.set(element, b"5", &limits);
            zset.insert(element, number as f64, &limits);
        }
        tx.put(b"l", Value::List(list), deadline);
        tx.put(b"e", Value::Set(set), deadline);
        tx.put(b"h", Value::Hash(hash), deadline);
        tx.put(b"z", Value::Zset(zset), deadline);
    }
    tx.finish();
    keyspace
}

fn apply(keyspace: &Keyspace, effects: &[u8]) -> Result<(), ApplyError> {
    let mut buffers = Buffers::default();
    keyspace.apply(Revision(2), NOW_MS, 0, effects, &limits(), &mut buffers)
}

/// What can be seen of a keyspace: every key with its payload and bookkeeping.
fn contents(keyspace: &Keyspace) -> Vec<String> {
    let limits = limits();
    let options = TxnOptions {
        now_ms: NOW_MS,
        limits: &limits,
        event_classes: 0,
        always_record: false,
        expire: false,
        touch: false,
    };
    let mut buffers = Buffers::default();
    let mut tx = Txn::begin(keyspace, &Scope::All, &Nowhere, &mut buffers, options);
    let mut all = Vec::new();
    for db in 0..DATABASES {
        tx.select(db);
        tx.scan_resident(&mut |key, value| {
            let payload = keyspace::dump::encode(value);
            all.push(format!("{db} {key:?} {payload:?} {:?}", tx.info(key)));
        });
    }
    all
}

fn key(key: &[u8]) -> Effect<'_> {
    Effect::Key { key, existed: None }
}

fn writes_far(input: &[u8]) -> bool {
    Effects::new(input).flatten().any(
        |effect| matches!(effect, Effect::StrWrite { offset, .. } if offset > STRING_BYTES_MAX),
    )
}

#[test]
fn hostile_effects_are_applied_or_refused() {
    let before = contents(&filled());
    fuzz::run(CORPUS, |input| {
        if writes_far(input) {
            return;
        }
        let (one, two) = (filled(), filled());
        let result = apply(&one, input);
        one.check().expect("sums and indices agree");
        let after = contents(&one);
        if matches!(result, Err(ApplyError::Malformed(_) | ApplyError::NoDatabase { .. })) {
            assert_eq!(after, before, "a malformed record changes nothing");
        }
        let again = apply(&two, input);
        assert_eq!(result.is_ok(), again.is_ok());
        assert_eq!(after, contents(&two), "the same record on the same state");
    });
}

#[test]
fn an_offset_beyond_memory_is_refused() {
    for offset in [u64::MAX, 1 << 62] {
        let mut effects = Vec::new();
        key(b"s").encode(&mut effects);
        Effect::StrWrite { offset, bytes: b"x" }.encode(&mut effects);
        let keyspace = filled();
        let error = apply(&keyspace, &effects).expect_err("no machine has that much");
        assert!(matches!(error, ApplyError::Misfit { number: 1, .. }), "{error}");
        keyspace.check().expect("sums and indices agree");
    }
}

/// What a record names after a flush is checked like what it names before.
#[test]
fn a_database_that_is_not_there_is_refused_behind_a_flush() {
    let beyond = [
        vec![Effect::Database(DATABASES)],
        vec![key(b"s"), Effect::Rename { db: DATABASES, key: b"x", replaces: None }],
        vec![Effect::Swap { a: 0, b: DATABASES }],
        vec![Effect::Flush { db: DATABASES }],
    ];
    for rest in beyond {
        let mut effects = Vec::new();
        Effect::Flush { db: 1 }.encode(&mut effects);
        rest.iter().for_each(|effect| effect.encode(&mut effects));
        let keyspace = filled();
        let before = contents(&keyspace);
        let error = apply(&keyspace, &effects).expect_err("the database does not exist");
        assert!(matches!(error, ApplyError::NoDatabase { .. }), "{error}");
        assert_eq!(contents(&keyspace), before);
    }
}
