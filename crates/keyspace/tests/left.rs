//! Databases that have their keys back which a flush took away.

mod backing;

use std::collections::BTreeMap;
use std::sync::Arc;

use backing::{DATABASES, Journaled, MemoryBacking, NOW_MS, SEED, contents, described};
use base::{DbIndex, Revision, SpaceId};
use keyspace::effect::{Effect, Effects, put_counts, take_counts};
use keyspace::{
    ApplyError, Buffers, EncodingLimits, Finished, Flush, FlushedDb, Garbage, Journal, Keyspace,
    Scope, Since, Txn, TxnOptions,
};

/// A keyspace with a journal, and a copy that its records are applied to.
struct Fixture {
    keyspace: Keyspace,
    copy: Keyspace,
    backing: Arc<MemoryBacking>,
    journal: Journaled,
    limits: EncodingLimits,
}

impl Fixture {
    fn new() -> Fixture {
        let made = || Keyspace::new(DATABASES, SEED);
        let fixture = Fixture {
            keyspace: made(),
            copy: made(),
            backing: Arc::default(),
            journal: Journaled::default(),
            limits: EncodingLimits::default(),
        };
        fixture.keyspace.evict_to(fixture.backing.clone());
        fixture.copy.keep_left();
        fixture
    }

    fn run<R>(&self, work: impl FnOnce(&mut Txn<'_>) -> R) -> (R, Finished) {
        self.run_in(&mut Buffers::default(), work)
    }

    fn run_in<R>(
        &self,
        buffers: &mut Buffers,
        work: impl FnOnce(&mut Txn<'_>) -> R,
    ) -> (R, Finished) {
        let options = TxnOptions {
            now_ms: NOW_MS,
            limits: &self.limits,
            event_classes: 0,
            always_record: true,
            expire: true,
            touch: true,
        };
        let mut txn = Txn::begin(&self.keyspace, &Scope::All, &self.journal, buffers, options);
        let result = work(&mut txn);
        let finished = txn.finish();
        self.keyspace.check().expect("sums and indices agree");
        for (revision, time_ms, db, effects) in self.journal.records.lock().unwrap().drain(..) {
            apply(&self.copy, revision, time_ms, db, &effects).expect("it fits");
            self.copy.check().expect("sums and indices agree");
        }
        (result, finished)
    }

    fn fill(&self, db: DbIndex, keys: usize) {
        self.run(|txn| {
            txn.select(db);
            for n in 0..keys {
                let deadline = (n % 5 == 0).then_some(NOW_MS + 1000);
                txn.set_string(format!("key{n}").as_bytes(), b"value", deadline);
            }
        });
    }

    /// Flushes a database and answers what the record tells.
    fn flush(&self, db: DbIndex, left_from: u64) -> Option<(SpaceId, Vec<u8>)> {
        let space = self.keyspace.spaces()[usize::from(db)].1;
        let stored = contents(&self.keyspace, db);
        let told = self.run(|txn| {
            txn.keep_flushed(NOW_MS + 1, left_from);
            txn.flush_undoably(db);
            Effects::new(txn.effects()).flatten().find_map(|effect| match effect {
                Effect::Leaves { space, keys } => Some((space, keys.to_vec())),
                _ => None,
            })
        });
        self.backing.replace(BTreeMap::from([(space, stored)]));
        told.0
    }

    /// Flushes a database whose record is to tell, and answers what it took.
    fn flush_whole(&self, db: DbIndex, is_for_good: bool) -> FlushedDb {
        let mut buffers = Buffers::default();
        self.run_in(&mut buffers, |txn| {
            txn.keep_flushed(NOW_MS + 1, 1);
            match is_for_good {
                true => txn.flush(db),
                false => txn.flush_undoably(db),
            }
        });
        match buffers.take_garbage().pop() {
            Some(Garbage::Db(flushed)) => flushed,
            other => panic!("{other:?}"),
        }
    }

    fn take_back(&self, db: DbIndex, space: SpaceId, keys: &[u8]) -> Revision {
        let run =
            self.run(|txn| txn.stand_again(db, space, keys, None).expect("the backing has it"));
        run.1.written.expect("it changes much")
    }
}

fn apply(
    keyspace: &Keyspace,
    revision: Revision,
    time_ms: u64,
    db: DbIndex,
    effects: &[u8],
) -> Result<(), ApplyError> {
    let buffers = &mut Buffers::default();
    keyspace.apply(revision, time_ms, db, effects, &EncodingLimits::default(), buffers)
}

#[test]
fn keys_come_back_from_the_backing_and_where_they_were_put_by() {
    let fixture = Fixture::new();
    fixture.fill(1, 300);
    let before = described(&fixture.keyspace, 1);
    assert_eq!(fixture.flush(0, 1), None, "it was empty");
    let (space, keys) = fixture.flush(1, 300).expect("it had so many");
    assert_eq!(space, SpaceId::first_of(1));
    assert_eq!(take_counts(&keys).expect("ours").iter().sum::<u64>(), 300);
    let memory = fixture.keyspace.memory_bytes();
    assert!(fixture.copy.memory_bytes() > memory, "it is put by there");
    assert_eq!(fixture.copy.left(), [(space, 300)]);
    let revision = fixture.take_back(1, space, &keys);
    assert_eq!(fixture.copy.left(), []);
    assert_eq!(described(&fixture.copy, 1), before);
    // One when it is named, one when it is looked for, and all others.
    let (found, finished) = fixture.run(|txn| {
        txn.select(1);
        assert_eq!((txn.len(), txn.unloaded()), (300, 300));
        txn.load(b"key7");
        txn.string(b"key7").expect("a string").map(<[u8]>::to_vec)
    });
    assert_eq!(found.as_deref(), Some(&b"value"[..]));
    assert_eq!(finished.depends_on, revision, "it could still be taken back");
    for bucket in 0..=u16::MAX {
        fixture.keyspace.load_bucket(1, bucket).expect("the backing is well");
    }
    assert_eq!(described(&fixture.keyspace, 1), before);
    assert_eq!(fixture.keyspace.spaces(), fixture.copy.spaces());
    // Again, from a space that it has come back to.
    let again = fixture.flush(1, 1).expect("it has keys");
    assert_eq!(again, (space, keys));
    fixture.copy.forget_left();
    assert_eq!(fixture.copy.left(), []);
    fixture.copy.check().expect("sums and indices agree");
    assert_eq!(fixture.flush(2, 1), None);
}

#[test]
fn the_past_is_not_what_came_back() {
    let fixture = Fixture::new();
    fixture.fill(0, 20);
    let set = fixture.journal.newest();
    let (space, keys) = fixture.flush(0, 1).expect("it had keys");
    let flushed = fixture.journal.newest();
    let returned = fixture.take_back(0, space, &keys);
    let told = fixture.run(|txn| {
        txn.load(b"key1");
        let info = txn.info(b"key1").expect("it is there");
        assert_eq!((info.revision, info.moved), (set, returned));
        [set, flushed, returned].map(|at| txn.since(b"key1", at))
    });
    assert_eq!(told.0, [Since::Unknown, Since::Unknown, Since::Unchanged(None)]);
}

#[test]
fn what_is_less_or_of_no_use_is_not_told() {
    let fixture = Fixture::new();
    fixture.fill(0, 20);
    assert_eq!(fixture.flush(0, 21), None);
    assert_eq!(fixture.copy.left(), []);
    fixture.fill(0, 20);
    fixture.fill(1, 5);
    // All of them together are enough.
    let (told, _) = fixture.run(|txn| {
        txn.keep_flushed(NOW_MS + 1, 25);
        txn.flush_all(false);
        let told = Effects::new(txn.effects()).flatten();
        told.filter(|effect| matches!(effect, Effect::Leaves { .. })).count()
    });
    assert_eq!(told, 2);
    assert_eq!(fixture.copy.left().len(), 2);
    fixture.fill(0, 20);
    let (told, _) = fixture.run(|txn| {
        txn.keep_flushed(NOW_MS + 1, 1);
        txn.flush_all(true);
        Effects::new(txn.effects()).flatten().count()
    });
    assert_eq!(told, 2, "databases that had keys, and no more");
}

#[test]
fn a_database_with_keys_is_not_replaced() {
    let fixture = Fixture::new();
    fixture.fill(0, 20);
    let (space, keys) = fixture.flush(0, 1).expect("it had keys");
    let upto = fixture.journal.newest();
    let untouched = |upto| fixture.run(|txn| txn.is_untouched(0, upto)).0;
    assert!(untouched(upto));
    fixture.run(|txn| txn.swap(0, 2));
    assert!(!untouched(upto), "it may be another");
    assert!(untouched(upto.next()));
    fixture.run(|txn| txn.set_string(b"key", b"new", None));
    assert!(!untouched(fixture.journal.newest()));
    let before = fixture.journal.newest();
    let (refused, _) = fixture.run(|txn| txn.stand_again(0, space, &keys, None));
    assert!(refused.is_err());
    assert_eq!(fixture.journal.newest(), before);
    fixture.run(|txn| txn.delete(b"key"));
    assert!(!untouched(fixture.journal.newest()), "it was written to");
    let mut effects = Vec::new();
    Effect::Return { db: 0, space, keys: &keys }.encode(&mut effects);
    let nothing = Keyspace::new(DATABASES, SEED);
    let applied = apply(&nothing, fixture.journal.reserve(), NOW_MS, 0, &effects);
    assert!(matches!(applied, Err(ApplyError::Misfit { number: 0, .. })), "{applied:?}");
    let mut effects = Vec::new();
    Effect::Return { db: DATABASES, space, keys: &keys }.encode(&mut effects);
    let applied = apply(&nothing, fixture.journal.reserve(), NOW_MS, 0, &effects);
    assert!(matches!(applied, Err(ApplyError::NoDatabase { .. })), "{applied:?}");
}

#[test]
fn keys_come_back_as_the_flush_took_them() {
    let fixture = Fixture::new();
    fixture.fill(1, 300);
    let (set, before) = (fixture.journal.newest(), described(&fixture.keyspace, 1));
    let (counts, memory) = (fixture.keyspace.spaces()[1].2, fixture.keyspace.memory_bytes());
    let flushed = fixture.flush_whole(1, false);
    assert!(fixture.keyspace.memory_bytes() < memory, "it counts no longer");
    let flush = flushed.flush().expect("it can be taken back");
    assert_eq!(flush, Flush { space: SpaceId::first_of(1), revision: fixture.journal.newest() });
    let mut keys = Vec::new();
    put_counts(&mut keys, &counts);
    let (returned, finished) = fixture.run(|txn| {
        txn.stand_again(1, flush.space, &keys, Some(flushed)).expect("it is there");
        txn.select(1);
        assert_eq!((txn.len(), txn.unloaded()), (300, 0), "the backing is not asked");
        txn.info(b"key1").expect("it is there")
    });
    let now = finished.written.expect("it changes much");
    assert_eq!((returned.revision, returned.moved), (set, now));
    assert_eq!(described(&fixture.keyspace, 1), before);
    assert_eq!(described(&fixture.copy, 1), before);
    assert_eq!(fixture.keyspace.spaces(), fixture.copy.spaces());
    assert_eq!(fixture.keyspace.memory_bytes(), memory);
    // They are due as before.
    fixture.run(|txn| {
        txn.select(1);
        txn.set_string(b"key0", b"new", None);
        txn.delete(b"key5");
    });
    let statistics = fixture.keyspace.statistics();
    let (_, of_db) = statistics.iter().find(|(db, _)| *db == 1).expect("it has keys");
    assert_eq!(of_db.deadlines, 300 / 5 - 2);
}

#[test]
fn what_is_not_all_or_is_gone_for_good_does_not_come_back() {
    let fixture = Fixture::new();
    fixture.fill(1, 300);
    assert_eq!(fixture.flush_whole(1, true).flush(), None, "for good");
    fixture.fill(1, 300);
    let (space, keys) = fixture.flush(1, 1).expect("it had keys");
    fixture.take_back(1, space, &keys);
    fixture.run(|txn| {
        txn.select(1);
        txn.load(b"key7");
    });
    assert_eq!(fixture.flush_whole(1, false).flush(), None, "most of it is elsewhere");
}
