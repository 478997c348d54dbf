//! Every kept revision answers as the database did then.

#[path = "random/keeping.rs"]
mod keeping;
mod random;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use archive::{
    Base, Follower, FollowerOptions, LargeFrom, Pace, Past, PastError, PastOptions, Retention,
};
use base::{BranchId, DbIndex, Revision, Rng, SeededRng, SystemClock};
use keyspace::types::{Hash, Zset};
use keyspace::{Editor, EncodingLimits, Keyspace, SHARDS, Since, Stored, Value, ValueRef, dump};
use log::{Record, RecordHeader};
use testkit::temp_dir;

use keeping::keeper;
use random::{DATABASES, Database, Key, State, contents, look};

/// An archive beside a database, and what that database was.
struct Archived {
    database: Database,
    base: Arc<Base>,
    past: Arc<Past>,
    follower: Option<Follower>,
    /// What it held and what time it was, after each revision.
    states: BTreeMap<Revision, (BTreeMap<Key, State>, u64)>,
    pace: Pace,
    large_from: LargeFrom,
    /// Looks at elements of collections that stand element by element.
    parts: usize,
}

fn open_past(base: &Arc<Base>, database: &Database) -> Arc<Past> {
    let limits = EncodingLimits::default();
    let options = PastOptions { databases: DATABASES, limits, is_broken: false };
    let past = Past::open(base.clone(), database.log().clone(), options);
    Arc::new(past.expect("it opens"))
}

impl Archived {
    fn new(dir: &Path, seed: u64, pace: Pace) -> Archived {
        Archived::of(Database::new(seed), dir, seed, pace, LargeFrom::default())
    }

    fn of(
        database: Database,
        dir: &Path,
        seed: u64,
        pace: Pace,
        large_from: LargeFrom,
    ) -> Archived {
        let base = Base::open(dir, seed, 1 << 20).expect("an empty one opens");
        let base = Arc::new(base.with_large_from(large_from));
        base.adopt(database.log().id()).expect("it is new");
        let past = open_past(&base, &database);
        let mut database = database;
        database.take_back(keeper(&base));
        let states = BTreeMap::from([(Revision::ZERO, (BTreeMap::new(), 0))]);
        Archived { database, base, past, follower: None, states, pace, large_from, parts: 0 }
    }

    fn follow(&mut self) {
        // A base has one follower at a time.
        drop(self.follower.take());
        let options = FollowerOptions {
            pace: self.pace,
            databases: DATABASES,
            limits: EncodingLimits::default(),
            past: Some(self.past.clone()),
            turn: Box::new(|| {}),
            clock: Arc::new(SystemClock),
            advanced: Box::new(|_, _| {}),
            faulted: Box::new(|fault| assert_eq!(fault, None)),
        };
        let reader = self.database.log().reader(Follower::begin(&self.base, Some(&self.past)));
        self.follower = Some(Follower::start(self.base.clone(), reader, options));
    }

    fn step(&mut self, times: usize) {
        for _ in 0..times {
            self.database.step();
            // Some steps change nothing.
            let newest = self.database.log().newest();
            let (keyspace, now_ms) = (&self.database.keyspace, self.database.now_ms);
            self.states.entry(newest).or_insert_with(|| (contents(keyspace), now_ms));
        }
    }

    fn checkpoint(&self) {
        let newest = self.database.log().newest();
        self.follower.as_ref().expect("it follows").checkpoint(newest).expect("it follows");
    }

    /// As a restart of the server does.
    fn reopen(mut self, dir: &Path) -> Archived {
        drop(self.follower.take());
        let Archived { mut database, base, past, states, pace, large_from, parts, .. } = self;
        database.take_back(Box::new(|_, _| {}));
        drop(Arc::into_inner(past).expect("nobody has it"));
        drop(Arc::into_inner(base).expect("nobody has it"));
        let base = Base::open(dir, 0, 1 << 20).expect("it opens again");
        let base = Arc::new(base.with_large_from(large_from));
        database.open_log(base.revision());
        let past = open_past(&base, &database);
        database.take_back(keeper(&base));
        Archived { database, base, past, follower: None, states, pace, large_from, parts }
    }

    /// Some revision that is kept.
    fn revision(&mut self) -> Revision {
        let (oldest, newest) = (self.past.oldest().0, self.database.log().newest().0);
        let any = Revision(oldest + self.database.below(newest + 1 - oldest));
        // What a transaction found to be due has a revision of its own, before.
        *self.states.range(any..).next().expect("the newest is known").0
    }

    /// Compares some keys of some revisions with what they were.
    fn check_keys(&mut self, revisions: usize) {
        for _ in 0..revisions {
            let revision = self.revision();
            let view = self.past.view_of_keys(BranchId::MAIN, revision).expect("it is kept");
            let several: BTreeSet<Revision> = (0..4).map(|_| self.revision()).collect();
            let several: Vec<Revision> = several.into_iter().collect();
            // There are fewer keys where they hold more.
            let names = if self.large_from == LargeFrom::default() { 61 } else { 12 };
            for _ in 0..12 {
                let number = self.database.below(names + 1);
                let name = if number == names { vec![b'x'; 70_000] } else { name(number) };
                let key = (self.database.below(DATABASES.into()) as u16, name);
                let expected = self.states[&revision].0.get(&key).cloned();
                let text = key.1[..key.1.len().min(8)].escape_ascii();
                assert_eq!(key_of(&view, &key), expected, "{}:{text} at {revision}", key.0);
                let found = self
                    .past
                    .key(BranchId::MAIN, revision, key.0, &key.1, None)
                    .expect("it is kept");
                assert_eq!(found.as_ref().map(state), expected, "{}:{text} at {revision}", key.0);
                self.check_elements(revision, &several, &key, found.as_ref());
                if let Some(present) = self.present(revision, &key) {
                    assert_eq!(present, expected, "{}:{text} since {revision}", key.0);
                }
                let mut seen = 0;
                let mut see = |at: usize, stored: Option<&Stored>| {
                    let revision = several[at];
                    let expected = self.states[&revision].0.get(&key).cloned();
                    assert_eq!(stored.map(state), expected, "{}:{text} at {revision}", key.0);
                    seen += 1;
                };
                // Whether records are at hand or not.
                let records = self.records_of(key.0, &key.1, *several.last().expect("not empty"));
                for is_known in [false, true] {
                    let known = |at: &Revision| {
                        let (header, effects) = records.get(at).filter(|_| is_known)?;
                        Some(Record { revision: *at, header: *header, effects })
                    };
                    let several: Vec<_> = several.iter().map(|at| (*at, known(at))).collect();
                    self.past
                        .key_at_each(
                            BranchId::MAIN,
                            &several,
                            key.0,
                            &key.1,
                            None,
                            &|| None,
                            &mut see,
                        )
                        .expect("they are kept");
                }
                assert_eq!(seen, 2 * several.len());
            }
            self.check_names(revision);
        }
    }

    /// Compares keys with some names with what they were, in every database.
    fn check_names(&mut self, revision: Revision) {
        let names: HashSet<Vec<u8>> = (0..8).map(|_| name(self.database.below(61))).collect();
        let found = self.past.state_of(BranchId::MAIN, revision, &names).expect("it is kept");
        for db in 0..DATABASES {
            if self.database.below(2) == 0 {
                (0..SHARDS).for_each(|shard| found.load_shard(db, shard).expect("it is kept"));
                assert_eq!(found.unloaded_of(db), 0);
            }
            for name in &names {
                let expected = self.states[&revision].0.get(&(db, name.clone())).cloned();
                let found = found.take(db, name).expect("it is kept");
                let text = name.escape_ascii();
                assert_eq!(found.as_ref().map(state), expected, "{db}:{text} at {revision}");
            }
        }
    }

    /// Compares what is read of some elements with those of all of a key.
    fn check_elements(
        &mut self,
        revision: Revision,
        several: &[Revision],
        (db, key): &Key,
        found: Option<&Stored>,
    ) {
        let mut names: Vec<Vec<u8>> = (0..3).map(|_| self.database.element()).collect();
        names.push(Vec::new());
        names.extend(names.first().cloned());
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let parts = |stored: Option<&Stored>| {
            let stored = stored?;
            let value = stored.value.as_ref();
            let elements: Vec<_> = names.iter().map(|name| element(value, name)).collect();
            Some((value.type_name(), stored.deadline, stored.revision, elements))
        };
        let text = key[..key.len().min(8)].escape_ascii();
        let past = &self.past;
        let part = past.key(BranchId::MAIN, revision, *db, key, Some(&names)).expect("it is kept");
        assert_eq!(parts(part.as_ref()), parts(found), "{db}:{text} at {revision}");
        if past.is_large(BranchId::MAIN, revision, *db, key).expect("it is kept") {
            self.parts += 1;
        }
        let mut see = |at: usize, stored: Option<&Stored>| {
            let whole = past.key(BranchId::MAIN, several[at], *db, key, None).expect("it is kept");
            assert_eq!(parts(stored), parts(whole.as_ref()), "{db}:{text} at {}", several[at]);
        };
        let names = Some(&names[..]);
        let several: Vec<_> = several.iter().map(|at| (*at, None)).collect();
        past.key_at_each(BranchId::MAIN, &several, *db, key, names, &|| None, &mut see)
            .expect("they are kept");
    }

    /// The records that may have changed a key, up to a revision.
    fn records_of(
        &self,
        db: DbIndex,
        key: &[u8],
        upto: Revision,
    ) -> BTreeMap<Revision, (RecordHeader, Vec<u8>)> {
        let mut records = BTreeMap::new();
        self.past
            .of_key(BranchId::MAIN, db, key, self.past.oldest(), upto, &mut |record| {
                records.insert(record.revision, (record.header, record.effects.to_vec()));
                ControlFlow::Continue(())
            })
            .expect("they are kept");
        records
    }

    /// What a key is now, if that is known to be what it was.
    fn present(&self, revision: Revision, key: &Key) -> Option<Option<State>> {
        let keyspace = &self.database.keyspace;
        look(keyspace, key.0, &mut |txn| match txn.since(&key.1, revision) {
            Since::Unchanged(deadline) => {
                let info = txn.info(&key.1).expect("it is there");
                assert_eq!(info.deadline, deadline);
                Some(Some((body(txn.get(&key.1)?), info.deadline, info.revision)))
            }
            Since::Absent => Some(None),
            Since::Unknown => None,
        })
    }

    /// Compares some revisions as a whole.
    fn check_whole(&mut self, revisions: usize) {
        for _ in 0..revisions {
            let revision = self.revision();
            let view = self.past.view(BranchId::MAIN, revision).expect("it is kept");
            assert_eq!(contents(&view), self.states[&revision].0, "at {revision}");
            let own = self.past.state(BranchId::MAIN, revision).expect("it is kept");
            for db in 0..DATABASES {
                (0..SHARDS).for_each(|shard| own.load_shard(db, shard).expect("it is kept"));
            }
            assert_eq!(own.unloaded(), 0);
            assert_eq!(contents(&own), self.states[&revision].0, "at {revision}");
        }
    }

    fn check_times(&self) {
        let oldest = self.past.oldest();
        for (revision, (_, time_ms)) in self.states.range(oldest..).skip(1) {
            assert_eq!(self.past.time_of(*revision).expect("it is kept"), *time_ms);
            let same = self.states.iter().rev().find(|(_, state)| state.1 <= *time_ms);
            let expected = *same.expect("itself at least").0;
            assert_eq!(self.past.at_time(*time_ms).expect("it is kept"), expected);
        }
        let mut seen = oldest;
        let newest = self.database.log().newest();
        let mut visit = |record: log::Record<'_>| {
            assert_eq!(record.revision, seen.next());
            seen = record.revision;
            ControlFlow::Continue(())
        };
        self.past.all(oldest, newest, &mut visit).expect("it is kept");
        assert_eq!(seen, newest);
    }

    /// A revision that did something to a key is visited.
    fn check_changes(&self) {
        let (oldest, newest) = (self.past.oldest(), self.database.log().newest());
        for number in 0..60 {
            let key = (1, name(number));
            let mut seen = Vec::new();
            let mut visit = |record: log::Record<'_>| {
                seen.push(record.revision);
                ControlFlow::Continue(())
            };
            self.past
                .of_key(BranchId::MAIN, key.0, &key.1, oldest, newest, &mut visit)
                .expect("it is kept");
            assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
            let mut kept = self.states.range(oldest..);
            let (mut since, (state, _)) = kept.next().expect("the oldest");
            let mut before = state.get(&key);
            for (revision, (state, _)) in kept {
                let now = state.get(&key);
                // It may have been due, and gone by the revision before.
                let is_told = seen.iter().any(|at| since < at && at <= revision);
                assert!(now == before || is_told, "{number} at {revision}");
                (since, before) = (revision, now);
            }
        }
    }

    fn check_gone(&self) {
        let oldest = self.past.oldest();
        for (&revision, _) in self.states.range(..oldest) {
            for view in [
                self.past.view(BranchId::MAIN, revision),
                self.past.view_of_keys(BranchId::MAIN, revision),
            ] {
                let error = view.expect_err("it is not kept");
                assert!(matches!(error, PastError::Compacted { asked, oldest: kept }
                    if asked == revision && kept == oldest));
            }
            assert!(self.past.time_of(revision).is_err());
        }
        let newest = self.database.log().newest();
        let error = self.past.view(BranchId::MAIN, newest.next()).expect_err("it has not happened");
        assert!(matches!(error, PastError::Future { .. }), "{error}");
    }
}

/// One key, asked for by name.
fn key_of(keyspace: &Keyspace, (db, key): &Key) -> Option<State> {
    look(keyspace, *db, &mut |txn| {
        txn.load(key);
        txn.check_backing().expect("the past can be read");
        let info = txn.info(key)?;
        Some((body(txn.get(key)?), info.deadline, info.revision))
    })
}

/// A value, whatever the order of its elements.
fn body(value: ValueRef<'_>) -> Vec<u8> {
    let mut body = dump::encode_body(value);
    body.sort_unstable();
    body
}

/// An element of a collection, if it is there: what it holds.
fn element(value: ValueRef<'_>, name: &[u8]) -> Option<Vec<u8>> {
    match value {
        ValueRef::Str(_) | ValueRef::List(_) => Some(body(value)),
        ValueRef::Set(set) => set.contains(name).then(Vec::new),
        ValueRef::Hash(hash) => hash.get(name).map(<[u8]>::to_vec),
        ValueRef::Zset(zset) => zset.score(name).map(|score| score.to_le_bytes().to_vec()),
    }
}

fn state(stored: &Stored) -> State {
    (body(stored.value.as_ref()), stored.deadline, stored.revision)
}

fn name(number: u64) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

#[test]
fn every_kept_revision_is_as_it_was() {
    for seed in 1..=2 {
        keep_every_revision(seed, Database::new(seed), LargeFrom::default());
    }
}

#[test]
fn every_kept_revision_of_large_collections_is_as_it_was() {
    for (seed, (elements, bytes)) in (11..).zip([(3, 1 << 20), (8, 300)]) {
        let database = Database::of_collections(seed);
        let parts = keep_every_revision(seed, database, LargeFrom { elements, bytes });
        assert!(parts > 40, "{parts}");
    }
}

/// Answers how often elements were read by name of what stands element by
/// element.
fn keep_every_revision(seed: u64, database: Database, large_from: LargeFrom) -> usize {
    let folder = temp_dir();
    // Small bounds, so that batches end everywhere.
    let pace = Pace { log_bytes: 3000 * (1 + seed % 2), ..Pace::default() };
    let mut archived = Archived::of(database, folder.path(), seed, pace, large_from);
    for round in 0..6 {
        archived.follow();
        for part in 0..4 {
            archived.step(30);
            archived.check_keys(10);
            archived.check_whole(2);
            if part == 1 {
                archived.checkpoint();
            }
        }
        archived.check_times();
        archived.check_changes();
        if round % 3 == 1 {
            let wanted = archived.revision();
            let oldest = archived.past.compact(wanted).expect("it can be compacted");
            assert!(oldest <= wanted);
            assert_eq!(oldest, archived.past.oldest());
            archived.check_gone();
        }
        if round % 2 == 1 {
            let (oldest, newest) = (archived.past.oldest(), archived.database.log().newest());
            archived = archived.reopen(folder.path());
            assert_eq!(archived.past.oldest(), oldest);
            assert_eq!(archived.database.log().newest(), newest);
            // What nobody has noted since is read when it is asked for.
            archived.check_keys(20);
            archived.check_whole(2);
            archived.check_times();
            archived.check_gone();
        }
    }
    archived.parts
}

#[test]
fn counters_are_as_they_were_however_often_they_were_added_to() {
    const HITS: &[u8] = b"hits";
    let folder = temp_dir();
    let mut rng = SeededRng::new(3);
    let mut archived = Archived::new(folder.path(), 3, Pace::default());
    let hits_now = |archived: &Archived| {
        let found = contents(&archived.database.keyspace).remove(&(0, HITS.to_vec()));
        (archived.database.log().newest(), found)
    };
    let mut states = BTreeMap::from([(Revision::ZERO, None)]);
    for step in 0..6000 {
        let dice = rng.below(4000);
        archived.database.change(|txn| match dice {
            0 => txn.set_string(HITS, b"700", None),
            1 => txn.set_string(HITS, b"700", Some(u64::MAX / 2)),
            2 => _ = txn.set_deadline(HITS, Some(u64::MAX / 4)),
            3 => _ = txn.delete(HITS),
            4 => txn.flush(0),
            5 => txn.flush(1),
            6 => txn.swap(0, 1),
            7 => txn.swap(1, 2),
            8 => _ = txn.rename(HITS, 1, HITS),
            _ => {
                // Others are counted, too, in one transaction or in their own.
                let names: &[&[u8]] = match dice % 10 {
                    0 => &[b"other"],
                    1 => &[HITS, b"other", HITS],
                    _ => &[HITS],
                };
                for name in names {
                    let delta = dice as i64 % 9 - 3;
                    let text = txn.string(name).expect("a string").unwrap_or(b"0");
                    let number = base::number::parse_i64(text).expect("an integer");
                    txn.add_to_string(name, delta, number + delta);
                }
            }
        });
        states.extend([hits_now(&archived)]);
        if step == 1500 || step == 3000 {
            archived.follow();
            archived.checkpoint();
        }
    }
    let revisions: Vec<Revision> = states.keys().copied().collect();
    let present = |is_asked: bool| {
        let keyspace = is_asked.then_some(&archived.database.keyspace);
        move || keyspace?.copy_small(0, HITS)
    };
    for turn in 0..1500 {
        // Mostly lately.
        let below = if turn % 3 == 0 { revisions.len() } else { 600 };
        let back = rng.below(below as u64) as usize;
        let revision = revisions[revisions.len() - 1 - back];
        let present = present(turn % 2 == 0);
        let past = &archived.past;
        let found = past.key_with(BranchId::MAIN, revision, 0, HITS, None, &present, false);
        let found = found.expect("it is kept").as_ref().map(state);
        assert_eq!(found, states[&revision], "at {revision}");
        if turn % 50 == 0 {
            let several: Vec<_> =
                states.range(revision..).take(turn / 5).map(|(at, _)| (*at, None)).collect();
            let mut seen = 0;
            let mut see = |at: usize, stored: Option<&Stored>| {
                let at = several[at].0;
                assert_eq!(stored.map(state), states[&at], "at {at}, one of several");
                seen += 1;
            };
            past.key_at_each(BranchId::MAIN, &several, 0, HITS, None, &present, &mut see)
                .expect("they are kept");
            assert_eq!(seen, several.len());
        }
    }
}

/// A small hash and a small sorted set whose elements are counted up and down.
#[test]
fn counters_in_collections_are_as_they_were() {
    const HASH: &[u8] = b"visits";
    const ZSET: &[u8] = b"scores";
    const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    let folder = temp_dir();
    let mut rng = SeededRng::new(5);
    let mut archived = Archived::new(folder.path(), 5, Pace::default());
    let mut states: BTreeMap<Revision, [Option<Elements>; 2]> = BTreeMap::new();
    for step in 0..6000 {
        let dice = rng.below(3000);
        let name = NAMES[rng.below(4) as usize];
        archived.database.change(|txn| match dice {
            0 => _ = txn.delete(HASH),
            1 => _ = txn.delete(ZSET),
            2 => _ = txn.set_deadline(HASH, Some(u64::MAX / 2 + step)),
            3 => txn.flush(0),
            4 => txn.swap(0, 1),
            5 => _ = txn.rename(ZSET, 1, ZSET),
            6..=20 => {
                let remove = |hash: &mut Editor<'_, '_, Hash>| hash.remove(name);
                txn.update(HASH, remove).expect("a hash");
            }
            21..=30 => {
                let remove = |zset: &mut Editor<'_, '_, Zset>| zset.remove(name);
                txn.update(ZSET, remove).expect("a sorted set");
            }
            31..=60 => txn
                .update_or_create(HASH, |hash: &mut Editor<'_, '_, Hash>| _ = hash.set(name, b"7"))
                .expect("a hash"),
            61..=1000 => txn
                .update_or_create(ZSET, |zset: &mut Editor<'_, '_, Zset>| {
                    let before = zset.score(name).unwrap_or_default();
                    zset.set(name, before + dice as f64 / 4.0);
                })
                .expect("a sorted set"),
            _ => txn
                .update_or_create(HASH, |hash: &mut Editor<'_, '_, Hash>| {
                    let text = hash.get(name).unwrap_or(b"0");
                    let before = base::number::parse_i64(text).expect("an integer");
                    // Now and then a field comes to 0, or begins there.
                    let delta = if dice.is_multiple_of(9) { -before } else { dice as i64 % 5 - 1 };
                    hash.add(name, delta, before + delta);
                })
                .expect("a hash"),
        });
        let now = [HASH, ZSET].map(|key| {
            let stored = archived.database.keyspace.copy_small(0, key);
            stored.as_ref().map(elements)
        });
        states.insert(archived.database.log().newest(), now);
        if step == 1500 || step == 3000 {
            archived.follow();
            archived.checkpoint();
        }
    }
    let revisions: Vec<Revision> = states.keys().copied().collect();
    let mut too_long = 0;
    for turn in 0..3000 {
        let below = if turn % 3 == 0 { revisions.len() } else { 600 };
        let back = rng.below(below as u64) as usize;
        let revision = revisions[revisions.len() - 1 - back];
        let at = rng.below(2) as usize;
        let (key, expected) = ([HASH, ZSET][at], &states[&revision][at]);
        let present = || match turn % 2 {
            0 => archived.database.keyspace.copy_small(0, key),
            _ => None,
        };
        let name = NAMES[rng.below(4) as usize];
        let named = (turn % 5 < 3).then_some([name]);
        let names = named.as_ref().map(|name| &name[..]);
        let read = |is_hasty| {
            archived.past.key_with(BranchId::MAIN, revision, 0, key, names, &present, is_hasty)
        };
        let found = match read(turn % 4 == 0) {
            Err(PastError::TakesLong) => {
                too_long += 1;
                read(false)
            }
            found => found,
        };
        let found = found.expect("it is kept").as_ref().map(elements);
        match names {
            None => assert_eq!(&found, expected, "at {revision}"),
            Some(_) => {
                let only = |all: &Elements| (all.0.get(name).cloned(), all.1, all.2);
                let (found, expected) = (found.as_ref().map(only), expected.as_ref().map(only));
                assert_eq!(found, expected, "{name:?} at {revision}");
            }
        }
    }
    // The first of all chains, and few later.
    assert!((1..300).contains(&too_long), "{too_long} of 750 in haste");
}

/// A collection's elements, its deadline, the revision of its last change.
type Elements = (BTreeMap<Vec<u8>, String>, Option<u64>, Revision);

fn elements(stored: &Stored) -> Elements {
    let mut all = BTreeMap::new();
    match &stored.value {
        Value::Hash(hash) => {
            all.extend(hash.iter().map(|(field, value)| {
                (field.to_vec(), String::from_utf8_lossy(value).into_owned())
            }))
        }
        Value::Zset(zset) => {
            all.extend(zset.iter().map(|(member, score)| (member.to_vec(), score.to_string())));
        }
        _ => panic!("a hash or a sorted set"),
    }
    (all, stored.deadline, stored.revision)
}

#[test]
fn what_is_too_old_or_too_much_gives_its_space_back() {
    for by_age in [true, false] {
        let folder = temp_dir();
        let pace = Pace { log_bytes: 3000, ..Pace::default() };
        let mut archived = Archived::new(folder.path(), 7, pace);
        archived.follow();
        let index_files = || {
            let names = std::fs::read_dir(folder.path().join("history")).expect("there");
            names
                .filter(|n| {
                    n.as_ref().is_ok_and(|n| n.path().extension().is_some_and(|e| e == "idx"))
                })
                .count()
        };
        let never = Retention { age_ms: u64::MAX, bytes: 0 };
        let limit = match by_age {
            true => Retention { age_ms: 7000, bytes: 0 },
            false => Retention { age_ms: u64::MAX, bytes: 90_000 },
        };
        for _ in 0..10 {
            archived.step(120);
            archived.checkpoint();
            let now_ms = archived.database.now_ms;
            assert!(!archived.past.retain(&never, now_ms, &free).expect("nothing to do"));
            archived.past.retain(&limit, now_ms, &free).expect("files can be removed");
            let removed = archived.database.log().remove_before(archived.base.revision());
            removed.expect("memory");
            let oldest = archived.past.oldest();
            let mut segments = archived.database.log().segments();
            assert!(segments[0].last > oldest, "{segments:?} from {oldest} on");
            // The state to begin with may be in the segment before.
            segments.retain(|segment| segment.is_sealed && segment.first > oldest);
            if by_age {
                let born_ms = now_ms - 7000;
                assert!(segments.iter().all(|kept| archived.states[&kept.last].1 >= born_ms));
                let mut young = archived.states.iter().filter(|(_, state)| state.1 >= born_ms);
                assert!(oldest <= *young.next().expect("the newest").0, "nothing younger may go");
            } else {
                let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
                assert!(bytes <= limit.bytes, "{bytes} bytes");
            }
            archived.check_keys(20);
            archived.check_whole(2);
            archived.check_gone();
        }
        assert!(archived.past.oldest() > Revision::ZERO);
        let sealed = archived.database.log().segments().len() - 1;
        assert!(index_files() <= sealed + 1, "{} files for {sealed}", index_files());
    }
}

/// Nobody holds anything.
fn free() -> Revision {
    Revision(u64::MAX)
}

#[test]
fn what_somebody_holds_stays() {
    let folder = temp_dir();
    let pace = Pace { log_bytes: 3000, ..Pace::default() };
    let mut archived = Archived::new(folder.path(), 7, pace);
    archived.follow();
    let all = Retention { age_ms: 0, bytes: 1 };
    let mut held = Revision::ZERO;
    for round in 0..6 {
        archived.step(120);
        archived.checkpoint();
        if round == 2 {
            held = archived.base.revision();
        }
        let now_ms = archived.database.now_ms;
        archived.past.retain(&all, now_ms, &|| held).expect("files can be removed");
        assert!(archived.past.oldest() <= held);
        archived.check_keys(20);
    }
    assert!(archived.past.oldest() > Revision::ZERO, "the rest goes");
    let now_ms = archived.database.now_ms;
    archived.past.retain(&all, now_ms, &free).expect("files can be removed");
    assert!(archived.past.oldest() > held);
}

#[test]
fn a_past_that_was_off_begins_anew() {
    let folder = temp_dir();
    let mut archived = Archived::new(folder.path(), 5, Pace::default());
    archived.follow();
    archived.step(50);
    archived.checkpoint();
    let between = archived.base.revision();
    archived = archived.reopen(folder.path());
    assert_eq!(archived.past.oldest(), Revision::ZERO);
    Past::discard(&archived.base).expect("files can be removed");
    archived = archived.reopen(folder.path());
    assert_eq!(archived.past.oldest(), between);
    archived.check_gone();
    archived.follow();
    archived.step(50);
    archived.check_keys(30);
    archived.check_whole(5);
}

#[test]
fn the_base_gives_back_what_the_past_had_of_it() {
    const KEYS: u8 = 200;
    let folder = temp_dir();
    let mut archived = Archived::new(folder.path(), 6, Pace::default());
    archived.follow();
    let batch = |archived: &Archived, value: u8| {
        for key in 0..KEYS {
            let value = vec![value; 1000];
            archived.database.change(|txn| txn.set_string(&[key], &value, None));
        }
        archived.checkpoint();
    };
    (0..20).for_each(|value| batch(&archived, value));
    let before = archived.base.disk_bytes();
    assert!(before > 19 * 1000 * u64::from(KEYS), "every state is kept: {before}");
    let newest = archived.database.log().newest();
    assert_eq!(archived.past.compact(newest).expect("it can be"), newest);
    // The follower has merged by the time it writes the second batch.
    (0..2).for_each(|value| batch(&archived, value));
    let after = archived.base.disk_bytes();
    assert!(after < 4 * 1000 * u64::from(KEYS), "{after} of {before} bytes are left");
}
