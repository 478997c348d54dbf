//! What transactions write down of keys that come and go, and that a record
//! which says otherwise is refused.

use std::sync::Mutex;

use base::{DbIndex, Revision};
use keyspace::effect::{Cause, Effect, Effects};
use keyspace::types::{Hash, Set};
use keyspace::{ApplyError, Buffers, EncodingLimits, Journal, Keyspace, Scope, Txn, TxnOptions};

const NOW_MS: u64 = 1_700_000_000_000;

#[derive(Default)]
struct Counting(Mutex<u64>);

impl Journal for Counting {
    fn reserve(&self) -> Revision {
        let mut newest = self.0.lock().expect("no panic while locked");
        *newest += 1;
        Revision(*newest)
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

struct Fixture {
    keyspace: Keyspace,
    journal: Counting,
    limits: EncodingLimits,
    now_ms: u64,
}

impl Fixture {
    fn new() -> Fixture {
        let limits = EncodingLimits::default();
        Fixture {
            keyspace: Keyspace::new(2, 1),
            journal: Counting::default(),
            limits,
            now_ms: NOW_MS,
        }
    }

    /// The effects of a transaction.
    fn run(&self, work: impl FnOnce(&mut Txn<'_>)) -> Vec<u8> {
        let options = TxnOptions {
            now_ms: self.now_ms,
            limits: &self.limits,
            event_classes: 0,
            always_record: false,
            expire: true,
            touch: true,
        };
        let mut buffers = Buffers::default();
        let mut txn = Txn::begin(&self.keyspace, &Scope::All, &self.journal, &mut buffers, options);
        work(&mut txn);
        txn.finish();
        buffers.effects().to_vec()
    }

    fn apply(&self, effects: &[Effect<'_>]) -> Result<(), ApplyError> {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        let mut buffers = Buffers::default();
        let revision = self.journal.reserve();
        self.keyspace.apply(revision, self.now_ms, 0, &bytes, &self.limits, &mut buffers)
    }
}

fn decode(bytes: &[u8]) -> Vec<Effect<'_>> {
    Effects::new(bytes).collect::<Result<_, _>>().expect("well-formed")
}

fn new(key: &[u8]) -> Effect<'_> {
    Effect::Key { key, existed: Some(false) }
}

fn old(key: &[u8]) -> Effect<'_> {
    Effect::Key { key, existed: Some(true) }
}

fn set(value: &[u8]) -> Effect<'_> {
    Effect::StrSet { value, deadline: None }
}

#[test]
fn a_key_is_named_with_whether_it_existed() {
    let fixture = Fixture::new();
    let effects = fixture.run(|txn| {
        txn.set_string(b"a", b"1", None);
        txn.set_string(b"a", b"2", None);
        txn.set_string(b"b", b"3", None);
        txn.add_to_string(b"a", 1, 3);
    });
    let stored = [new(b"a"), set(b"1"), set(b"2"), new(b"b"), set(b"3"), old(b"a")];
    assert_eq!(decode(&effects), [&stored[..], &[Effect::StrAdd { delta: 1 }]].concat());
    let effects = fixture.run(|txn| {
        txn.delete(b"a");
        txn.set_deadline(b"b", Some(NOW_MS + 1));
        txn.write_string(b"a", 0, b"x").expect("a string");
    });
    let expected = [
        old(b"a"),
        Effect::Delete(Cause::Client),
        old(b"b"),
        Effect::Deadline(Some(NOW_MS + 1)),
        new(b"a"),
        Effect::StrWrite { offset: 0, bytes: b"x" },
    ];
    assert_eq!(decode(&effects), expected);
}

#[test]
fn what_is_due_existed_until_its_delete() {
    let mut fixture = Fixture::new();
    fixture.run(|txn| txn.set_string(b"a", b"1", Some(NOW_MS + 1)));
    fixture.now_ms += 1;
    let effects = fixture.run(|txn| txn.set_string(b"a", b"2", None));
    // Two records: the second one names the key anew.
    let expired = Effect::Delete(Cause::Expired);
    assert_eq!(decode(&effects), [old(b"a"), expired, new(b"a"), set(b"2")]);
}

#[test]
fn the_last_element_takes_the_key_with_it() {
    let fixture = Fixture::new();
    let effects = fixture.run(|txn| {
        txn.update_or_create(b"s", |set: &mut keyspace::Editor<'_, '_, Set>| set.add(b"m"))
            .expect("a set");
        txn.update(b"s", |set: &mut keyspace::Editor<'_, '_, Set>| set.remove(b"m"))
            .expect("a set");
        txn.set_string(b"s", b"", None);
    });
    let expected = [
        new(b"s"),
        Effect::SetAdd { member: b"m" },
        Effect::SetRemove { member: b"m" },
        Effect::Emptied,
        set(b""),
    ];
    assert_eq!(decode(&effects), expected);
    // Filled and emptied before it ever stood in the table.
    let effects = fixture.run(|txn| {
        txn.update_or_create(b"h", |hash: &mut keyspace::Editor<'_, '_, Hash>| {
            hash.set(b"f", b"v");
            hash.remove(b"f");
        })
        .expect("a hash");
    });
    let expected = [
        new(b"h"),
        Effect::HashSet { field: b"f", value: b"v" },
        Effect::HashDelete { field: b"f" },
        Effect::Emptied,
    ];
    assert_eq!(decode(&effects), expected);
    fixture.apply(&expected).expect("it fits");
    fixture.run(|txn| assert!(!txn.contains(b"h")));
}

#[test]
fn a_rename_says_whether_it_replaced_a_key() {
    let fixture = Fixture::new();
    let effects = fixture.run(|txn| {
        txn.set_string(b"a", b"1", None);
        txn.rename(b"a", 0, b"b");
        txn.set_string(b"a", b"2", None);
        txn.rename(b"b", 1, b"b");
        txn.rename(b"a", 1, b"b");
        txn.select(1);
        txn.delete(b"b");
    });
    let rename = |db, replaces| Effect::Rename { db, key: b"b", replaces: Some(replaces) };
    let expected = [
        new(b"a"),
        set(b"1"),
        rename(0, false),
        set(b"2"),
        old(b"b"),
        rename(1, false),
        old(b"a"),
        rename(1, true),
        Effect::Database(1),
        old(b"b"),
        Effect::Delete(Cause::Client),
    ];
    assert_eq!(decode(&effects), expected);
}

#[test]
fn a_key_is_named_again_after_a_change_of_whole_databases() {
    let fixture = Fixture::new();
    let effects = fixture.run(|txn| {
        txn.set_string(b"a", b"1", None);
        txn.flush(0);
        txn.set_string(b"a", b"2", None);
        txn.swap(0, 1);
        txn.set_string(b"a", b"3", None);
        txn.swap(1, 0);
        txn.set_string(b"a", b"4", None);
    });
    let expected = [
        new(b"a"),
        set(b"1"),
        Effect::Flush { db: 0 },
        new(b"a"),
        set(b"2"),
        Effect::Swap { a: 0, b: 1 },
        new(b"a"),
        set(b"3"),
        Effect::Swap { a: 1, b: 0 },
        old(b"a"),
        set(b"4"),
    ];
    assert_eq!(decode(&effects), expected);
}

/// A transaction whose database changes before its first key.
#[test]
fn the_database_is_named_when_it_is_not_the_first_one() {
    let fixture = Fixture::new();
    let effects = fixture.run(|txn| {
        txn.flush(1);
        txn.set_string(b"a", b"1", None);
        txn.select(1);
        txn.set_string(b"a", b"2", None);
    });
    let expected = [
        Effect::Flush { db: 1 },
        Effect::Database(0),
        new(b"a"),
        set(b"1"),
        Effect::Database(1),
        new(b"a"),
        set(b"2"),
    ];
    assert_eq!(decode(&effects), expected);
}

#[test]
fn a_record_that_found_another_state_is_refused() {
    let unknown = |key| Effect::Key { key, existed: None };
    let over = |replaces| Effect::Rename { db: 1, key: b"x", replaces };
    for (effects, refused_at) in [
        (vec![new(b"there"), set(b"2")], Some(0)),
        (vec![old(b"missing"), set(b"2")], Some(0)),
        (vec![old(b"there"), set(b"2"), new(b"missing"), set(b"2")], None),
        (vec![unknown(b"there"), set(b"2"), unknown(b"missing"), set(b"2")], None),
        (vec![old(b"there"), set(b"2"), Effect::Emptied], Some(2)),
        (vec![old(b"there"), Effect::Delete(Cause::Client), Effect::Emptied], None),
        (vec![Effect::Emptied], Some(0)),
        (vec![old(b"there"), over(Some(false))], None),
        (vec![old(b"there"), over(Some(true))], Some(1)),
        (vec![old(b"there"), over(None), set(b"3"), over(Some(false))], Some(3)),
        (vec![old(b"there"), over(None), set(b"3"), over(Some(true))], None),
        (vec![Effect::Origin { command: b"set", user: b"u", address: b"a" }, new(b"n")], None),
    ] {
        let fixture = Fixture::new();
        fixture.run(|txn| txn.set_string(b"there", b"1", None));
        let found = match fixture.apply(&effects) {
            Ok(()) => None,
            Err(ApplyError::Misfit { number, .. } | ApplyError::NoKey { number }) => Some(number),
            Err(other) => panic!("{effects:?}: {other}"),
        };
        assert_eq!(found, refused_at, "{effects:?}");
    }
}
