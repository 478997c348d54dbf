//! Records applied to a base whose collections are large from the first element
//! on, and what it holds then.

mod erased;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::BranchId;
use keyspace::effect::Cause;
use log::RecordHeader;
use testkit::{TempDir, temp_dir};

use super::*;
use crate::backing::BaseBacking;
use crate::delta::Delta;
use crate::elements::LargeFrom;
use crate::waiting::Waiting;

const SPACE: SpaceId = SpaceId { born: Revision::ZERO, db: 0 };

/// Counts the keys that are read whole.
#[derive(Debug)]
struct Counting(Arc<BaseBacking>, AtomicUsize);

impl Backing for Counting {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.fetch(space, hash, key)
    }

    fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        self.0.bucket(space, bucket, each)
    }
}

struct World {
    base: Arc<Base>,
    backing: Arc<Counting>,
    delta: Delta,
    _folder: TempDir,
}

impl World {
    fn new() -> World {
        World::of(LargeFrom { elements: 0, bytes: 0 })
    }

    fn of(large_from: LargeFrom) -> World {
        let folder = temp_dir();
        let base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
        let base = Arc::new(base.with_large_from(large_from));
        let limits = EncodingLimits::default();
        let reading = BaseBacking::new(base.clone(), limits);
        let backing = Arc::new(Counting(reading, AtomicUsize::new(0)));
        let delta = Delta::new(base.clone(), backing.clone(), limits, 2, Waiting::default());
        World { base, backing, delta, _folder: folder }
    }

    fn try_run(&mut self, effects: &[Effect<'_>]) -> Result<(), ArchiveError> {
        self.try_run_on(BranchId::MAIN, effects)
    }

    fn try_run_on(&mut self, branch: BranchId, effects: &[Effect<'_>]) -> Result<(), ArchiveError> {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        let header = RecordHeader { time_ms: 1, db: 0, branch };
        let revision = self.delta.revision().next();
        self.delta.add(&Record { revision, header, effects: &bytes }).map(|_| ())
    }

    fn run(&mut self, effects: &[Effect<'_>]) {
        self.try_run(effects).expect("it fits");
    }

    fn run_on(&mut self, branch: u32, effects: &[Effect<'_>]) {
        self.try_run_on(BranchId(branch), effects).expect("it fits");
    }

    /// Makes a branch, and answers where its first database stands.
    fn fork(&mut self, id: u32, parent: u32) -> SpaceId {
        let name = format!("branch-{id}");
        let row = keyspace::Branch::new(BranchId(id), name.as_bytes(), BranchId(parent));
        self.run(&[Effect::Fork { row: &row.encode(), state: None }]);
        SpaceId { born: self.write(), db: 0 }
    }

    /// Brings the base to the newest revision.
    fn write(&mut self) -> Revision {
        self.delta.write(false).expect("it can be written");
        self.base.revision()
    }

    /// Keys that were read whole since this was last asked.
    fn reads(&self) -> usize {
        self.backing.1.swap(0, Ordering::Relaxed)
    }

    fn at(&self, revision: Revision, key: &[u8]) -> Option<Stored> {
        self.in_space(SPACE, revision, key)
    }

    fn in_space(&self, space: SpaceId, revision: Revision, key: &[u8]) -> Option<Stored> {
        let limits = EncodingLimits::default();
        let keyspace = Keyspace::new(1, 1);
        keyspace.back(self.backing.clone(), 0, SPACE, &[1; keyspace::SHARDS]);
        let (_, hash) = keyspace.unknown(0, key).expect("nothing is known");
        let backing = BaseBacking::at(self.base.clone(), revision, limits);
        let found = backing.fetch(space, hash, key).expect("it can be read");
        // Looking through its bucket finds the same.
        let mut seen = None;
        let mut each = |name: &[u8], stored: Stored| {
            if name == key {
                seen = Some(text(&stored));
            }
        };
        backing.bucket(space, codec::bucket_of(hash), &mut each).expect("it can be read");
        assert_eq!(seen, found.as_ref().map(text));
        found
    }

    fn now(&self, key: &[u8]) -> Option<String> {
        self.at(self.base.revision(), key).as_ref().map(text)
    }

    /// Entries of the database, dead ones included.
    fn entries(&self) -> usize {
        self.entries_of(SPACE)
    }

    fn entries_of(&self, space: SpaceId) -> usize {
        let mut prefix = Vec::new();
        codec::put_space(&mut prefix, space);
        let mut count = 0;
        let mut each = |_: &[u8], _: &[u8]| {
            count += 1;
            ControlFlow::Continue(())
        };
        self.base.prefix(&prefix, &mut each).expect("it can be read");
        count
    }
}

/// A value in words, its elements in order.
fn text(stored: &Stored) -> String {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut elements: Vec<String> = match &stored.value {
        Value::Str(bytes) => vec![show(bytes)],
        Value::List(list) => return list.iter().map(show).collect::<Vec<_>>().join(" "),
        Value::Set(set) => set.iter().map(|member| show(&member)).collect(),
        Value::Hash(hash) => hash.iter().map(|(f, v)| format!("{}={}", show(f), show(v))).collect(),
        Value::Zset(zset) => zset.iter().map(|(m, score)| format!("{}={score}", show(m))).collect(),
    };
    elements.sort_unstable();
    elements.join(" ")
}

fn new(key: &[u8]) -> Effect<'_> {
    Effect::Key { key, existed: Some(false) }
}

fn old(key: &[u8]) -> Effect<'_> {
    Effect::Key { key, existed: Some(true) }
}

fn set<'e>(field: &'e [u8], value: &'e [u8]) -> Effect<'e> {
    Effect::HashSet { field, value }
}

fn add(member: &[u8]) -> Effect<'_> {
    Effect::SetAdd { member }
}

fn push(value: &[u8]) -> Effect<'_> {
    Effect::ListPushBack { value }
}

const GONE: Effect<'static> = Effect::Delete(Cause::Client);

#[test]
fn changes_of_elements_read_no_collection() {
    let mut world = World::new();
    world.run(&[new(b"hash"), set(b"a", b"1"), set(b"b", b"2"), set(b"c", b"text")]);
    world.run(&[new(b"set"), add(b"a"), add(b"b"), add(b"c")]);
    let score = |member, score| Effect::ZsetSet { member, score };
    world.run(&[new(b"zset"), score(b"a", 1.0), score(b"b", 2.0), score(b"c", 3.0)]);
    world.run(&[new(b"list"), push(b"a"), push(b"b"), push(b"c"), push(b"d")]);
    world.run(&[new(b"string"), Effect::StrSet { value: b"v", deadline: None }]);
    world.write();
    world.reads();

    world.run(&[old(b"hash"), set(b"d", b"4"), Effect::HashAdd { field: b"a", delta: 6 }]);
    world.run(&[old(b"hash"), Effect::HashDelete { field: b"c" }, set(b"b", b"3")]);
    world.run(&[old(b"hash"), Effect::HashAdd { field: b"e", delta: -1 }]);
    world.run(&[old(b"set"), add(b"d"), Effect::SetRemove { member: b"a" }, old(b"zset")]);
    world.run(&[old(b"zset"), score(b"a", 9.5), Effect::ZsetRemove { member: b"b" }]);
    world.run(&[old(b"list"), Effect::ListPopFront { count: 2 }, push(b"e")]);
    world.run(&[old(b"list"), Effect::ListPushFront { value: b"z" }]);
    world.run(&[old(b"list"), Effect::ListPopBack { count: 1 }]);
    world.run(&[old(b"list"), Effect::ListSet { index: 1, value: b"C" }]);
    world.run(&[old(b"list"), Effect::Deadline(Some(77))]);
    assert_eq!(world.reads(), 0);
    let newest = world.write();
    assert_eq!(world.now(b"hash").as_deref(), Some("a=7 b=3 d=4 e=-1"));
    assert_eq!(world.now(b"set").as_deref(), Some("b c d"));
    assert_eq!(world.now(b"zset").as_deref(), Some("a=9.5 c=3"));
    assert_eq!(world.now(b"list").as_deref(), Some("z C d"));
    let list = world.at(newest, b"list").expect("it is there");
    assert_eq!((list.deadline, list.revision), (Some(77), newest));
    // And so once more, on what was written so.
    world.run(&[old(b"hash"), Effect::HashDelete { field: b"d" }]);
    world.run(&[old(b"list"), Effect::ListPushFront { value: b"y" }, Effect::Deadline(None)]);
    world.run(&[old(b"set"), GONE]);
    world.run(&[old(b"zset"), Effect::StrSet { value: b"s", deadline: None }]);
    assert_eq!(world.reads(), 0);
    world.write();
    assert_eq!(world.now(b"hash").as_deref(), Some("a=7 b=3 e=-1"));
    assert_eq!(world.now(b"list").as_deref(), Some("y z C d"));
    assert_eq!(world.now(b"set"), None);
    assert_eq!(world.now(b"zset").as_deref(), Some("s"));
    assert_eq!(world.base.directory().keys(), 4);
}

#[test]
fn one_record_may_change_what_stays_and_what_does_not() {
    let mut world = World::new();
    world.run(&[new(b"big"), set(b"a", b"1"), set(b"b", b"2"), new(b"other"), add(b"m")]);
    world.run(&[new(b"s"), Effect::StrSet { value: b"1", deadline: None }]);
    world.write();
    world.reads();
    let plus = Effect::StrAdd { delta: 1 };
    world.run(&[old(b"s"), plus, old(b"big"), set(b"c", b"3"), new(b"n"), add(b"x")]);
    world.run(&[old(b"big"), set(b"d", b"4"), old(b"s"), plus, old(b"big"), set(b"a", b"5")]);
    // The same names in another database are other keys.
    world.run(&[
        old(b"big"),
        set(b"e", b"6"),
        Effect::Database(1),
        new(b"big"),
        add(b"y"),
        Effect::Database(0),
        old(b"big"),
        Effect::HashDelete { field: b"b" },
    ]);
    assert_eq!(world.reads(), 1, "the string");
    world.write();
    assert_eq!(world.now(b"big").as_deref(), Some("a=5 c=3 d=4 e=6"));
    assert_eq!(world.now(b"s").as_deref(), Some("3"));
    assert_eq!(world.now(b"n").as_deref(), Some("x"));
}

#[test]
fn a_small_collection_is_not_read_twice() {
    let mut world = World::of(LargeFrom::default());
    world.run(&[new(b"hash"), set(b"a", b"1"), Effect::Deadline(Some(9))]);
    world.write();
    world.reads();
    world.run(&[old(b"hash"), set(b"b", b"2")]);
    world.run(&[old(b"hash"), set(b"c", b"3")]);
    assert_eq!(world.reads(), 0, "the look for a large one has found it");
    let newest = world.write();
    let hash = world.at(newest, b"hash").expect("it is there");
    assert_eq!((text(&hash), hash.deadline), ("a=1 b=2 c=3".to_owned(), Some(9)));
}

#[test]
fn what_needs_all_of_a_collection_finds_what_changed() {
    let mut world = World::new();
    world.run(&[new(b"hash"), set(b"a", b"1"), set(b"b", b"2")]);
    world.run(&[new(b"list"), push(b"a"), push(b"b"), push(b"c")]);
    world.run(&[new(b"set"), add(b"a"), add(b"b")]);
    world.write();
    world.reads();
    let to = |key| Effect::Rename { db: 0, key, replaces: Some(false) };
    world.run(&[old(b"hash"), set(b"c", b"3"), Effect::HashDelete { field: b"a" }]);
    world.run(&[old(b"hash"), to(b"moved")]);
    world.run(&[old(b"list"), Effect::ListPopFront { count: 1 }, push(b"d")]);
    world.run(&[old(b"list"), Effect::ListPushFront { value: b"z" }]);
    world.run(&[old(b"list"), Effect::ListInsert { index: 1, value: b"y" }]);
    world.run(&[old(b"set"), add(b"c"), Effect::SetRemove { member: b"a" }]);
    let take = |member| Effect::SetRemove { member };
    world.run(&[old(b"set"), take(b"b"), take(b"c"), Effect::Emptied]);
    world.run(&[new(b"set"), add(b"again")]);
    assert_eq!(world.reads(), 3);
    let first = world.base.revision();
    world.write();
    assert_eq!(world.now(b"moved").as_deref(), Some("b=2 c=3"));
    assert_eq!(world.now(b"hash"), None);
    assert_eq!(world.now(b"list").as_deref(), Some("z y b c d"));
    assert_eq!(world.now(b"set").as_deref(), Some("again"));
    assert_eq!(world.base.directory().keys(), 3);
    // The state before is as it was.
    assert_eq!(world.at(first, b"hash").as_ref().map(text).as_deref(), Some("a=1 b=2"));
    assert_eq!(world.at(first, b"list").as_ref().map(text).as_deref(), Some("a b c"));
    assert!(world.at(first, b"moved").is_none());
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let gone = |field| Effect::HashDelete { field };
    let misfits: [&[Effect<'_>]; 7] = [
        &[gone(b"none")],
        &[Effect::HashAdd { field: b"text", delta: 1 }],
        &[add(b"m")],
        &[push(b"v")],
        &[Effect::ListPopFront { count: 1 }],
        &[Effect::ListSet { index: 0, value: b"v" }],
        &[gone(b"a"), gone(b"a")],
    ];
    for misfit in misfits {
        let mut world = World::new();
        world.run(&[new(b"hash"), set(b"a", b"1"), set(b"text", b"x"), set(b"c", b"")]);
        world.write();
        let done = world.try_run(&[&[old(b"hash")], misfit].concat());
        let error = done.expect_err("it does not fit");
        assert!(matches!(error, ArchiveError::Misfit { revision: Revision(2), .. }), "{error}");
    }
}

#[test]
fn generations_that_no_state_has_are_compacted_away() {
    let mut world = World::new();
    let fields: Vec<Vec<u8>> = (0..10).map(|n: u8| vec![b'a' + n]).collect();
    let all: Vec<_> = fields.iter().map(|field| set(field, b"v")).collect();
    world.run(&[&[new(b"k")], &all[..]].concat());
    let first = world.write();
    assert_eq!(world.entries(), 11);
    world.run(&[old(b"k"), GONE]);
    let second = world.write();
    // Another one under the same name.
    world.run(&[new(b"k"), add(b"x"), add(b"y")]);
    let third = world.write();
    world.run(&[old(b"k"), Effect::SetRemove { member: b"x" }]);
    let fourth = world.write();
    let states = [(first, "a=v b=v"), (second, ""), (third, "x y"), (fourth, "y")];
    for (horizon, left) in [(first, 13), (second, 3), (third, 3), (fourth, 2)] {
        world.base.merge(horizon).expect("it can be merged");
        assert_eq!(world.entries(), left, "at {horizon}, the newest of each");
        for (state, expected) in states.iter().filter(|(state, _)| *state >= horizon) {
            let found = world.at(*state, b"k").as_ref().map(text).unwrap_or_default();
            assert!(found.starts_with(expected), "{found} at {state}");
            assert_eq!(found.is_empty(), expected.is_empty());
        }
    }
}

#[test]
fn states_that_are_tagged_keep_their_elements() {
    let mut world = World::new();
    world.run(&[new(b"k"), push(b"a"), push(b"b"), push(b"c")]);
    world.write();
    world.run(&[old(b"k"), Effect::ListPopBack { count: 1 }]);
    let tagged = world.write();
    let tag = Effect::Tag { name: b"t", branch: BranchId::MAIN, revision: tagged, time_ms: 0 };
    world.run(&[tag]);
    world.run(&[old(b"k"), Effect::ListPopFront { count: 1 }, push(b"d")]);
    world.write();
    world.run(&[old(b"k"), GONE]);
    world.run(&[new(b"k"), add(b"m")]);
    let newest = world.write();
    world.base.merge(newest).expect("it can be merged");
    assert_eq!(world.at(tagged, b"k").as_ref().map(text).as_deref(), Some("a b"));
    assert_eq!(world.now(b"k").as_deref(), Some("m"));
    assert_eq!(world.entries(), 4, "two heads are one key: a, b, m, and the head");
    world.run(&[Effect::TagGone { name: b"t" }]);
    let newest = world.write();
    world.base.merge(newest).expect("it can be merged");
    assert_eq!(world.entries(), 2);
}

#[test]
fn a_branch_has_large_collections_of_its_own() {
    let mut world = World::new();
    let main = |world: &World, revision, key: &[u8]| world.at(revision, key).as_ref().map(text);
    world.run(&[new(b"k"), set(b"a", b"1"), set(b"b", b"2")]);
    world.run(&[new(b"gone"), add(b"m"), add(b"n"), new(b"same"), add(b"x")]);
    let before = world.write();
    // Not in the base yet when the branch begins.
    world.run(&[old(b"k"), set(b"c", b"3")]);
    let id = BranchId(1);
    let branch = keyspace::Branch::new(id, b"branch", BranchId::MAIN);
    world.run(&[Effect::Fork { row: &branch.encode(), state: None }]);
    let fork = world.write();
    let space = SpaceId { born: fork, db: 0 };
    let there = |world: &World, revision, key: &[u8]| {
        world.in_space(space, revision, key).as_ref().map(text)
    };
    world.run(&[old(b"k"), Effect::HashDelete { field: b"a" }]);
    world.reads();
    let run = |world: &mut World, effects: &[Effect<'_>]| {
        world.try_run_on(id, effects).expect("it fits");
    };
    run(&mut world, &[old(b"k"), set(b"d", b"4")]);
    run(&mut world, &[old(b"gone"), GONE]);
    assert_eq!(world.reads(), 0, "what the parent has is not read");
    let second = world.write();
    world.reads();
    run(&mut world, &[old(b"k"), Effect::HashDelete { field: b"b" }]);
    world.run(&[old(b"k"), set(b"e", b"5")]);
    assert_eq!(world.reads(), 0);
    let third = world.write();
    for is_merged in [false, true] {
        if is_merged {
            world.base.merge(third).expect("it can be merged");
        } else {
            assert_eq!(main(&world, before, b"k").as_deref(), Some("a=1 b=2"));
            assert_eq!(main(&world, second, b"k").as_deref(), Some("b=2 c=3"));
            assert_eq!(there(&world, second, b"k").as_deref(), Some("a=1 b=2 c=3 d=4"));
        }
        assert_eq!(main(&world, fork, b"k").as_deref(), Some("a=1 b=2 c=3"));
        assert_eq!(main(&world, third, b"k").as_deref(), Some("b=2 c=3 e=5"));
        assert_eq!(there(&world, third, b"k").as_deref(), Some("a=1 c=3 d=4"));
        assert_eq!(there(&world, third, b"gone"), None);
        assert_eq!(there(&world, third, b"same").as_deref(), Some("x"));
        assert_eq!(main(&world, third, b"gone").as_deref(), Some("m n"));
    }
}

#[test]
fn what_a_branch_changes_of_a_collection_lies_over_the_parents() {
    let mut world = World::new();
    let fields: Vec<Vec<u8>> = (0..20).map(|n: u8| vec![b'a' + n]).collect();
    let all: Vec<_> = fields.iter().map(|field| set(field, b"v")).collect();
    world.run(&[&[new(b"hash")], &all[..]].concat());
    let all: Vec<_> = fields.iter().map(|field| push(field)).collect();
    world.run(&[&[new(b"list")], &all[..]].concat());
    world.run(&[old(b"list"), Effect::ListPopFront { count: 3 }]);
    let long = vec![b'l'; 20_000];
    world.run(&[new(b"set"), add(b"a"), add(b"b"), add(&long)]);
    let score = |member, score| Effect::ZsetSet { member, score };
    world.run(&[new(b"zset"), score(b"a", 1.0), score(b"b", 2.0), score(b"c", 3.0)]);
    world.write();
    let one = world.fork(1, 0);
    world.reads();
    let gone = |field| Effect::HashDelete { field };
    world.run_on(1, &[old(b"hash"), gone(b"b"), set(b"c", b"1"), set(b"z", b"")]);
    // What comes and goes between two batches leaves no trace; what was there does.
    world.run_on(1, &[old(b"hash"), set(b"d", b"x"), set(b"y", b"x"), gone(b"y")]);
    world.run_on(1, &[old(b"hash"), gone(b"d")]);
    world.run_on(1, &[old(b"list"), Effect::ListPopBack { count: 1 }, push(b"T")]);
    world.run_on(1, &[old(b"list"), Effect::ListPushFront { value: b"C" }]);
    world.run_on(1, &[old(b"list"), Effect::ListSet { index: 2, value: b"E" }]);
    world.run_on(1, &[old(b"set"), Effect::SetRemove { member: &long }, add(b"c")]);
    world.run_on(1, &[old(b"zset"), score(b"b", 9.0), Effect::ZsetRemove { member: b"c" }]);
    let first = world.write();
    assert_eq!(world.reads(), 0);
    // Heads; then b, c, d and z; C, E and T; the long one and c; b and c.
    assert_eq!(world.entries_of(one), 4 + 4 + 3 + 2 + 2);
    // The parent goes on.
    world.run(&[old(b"hash"), set(b"a", b"later"), gone(b"e"), old(b"set"), GONE]);
    world.run(&[old(b"list"), Effect::ListPopFront { count: 10 }, old(b"zset"), GONE]);
    world.write();
    let two = world.fork(2, 1);
    world.run_on(2, &[old(b"hash"), set(b"b", b"back"), gone(b"c"), gone(b"f")]);
    world.run_on(2, &[old(b"list"), Effect::ListPopFront { count: 2 }, push(b"U")]);
    // One that begins with a branch that has changed nothing of its own of the set.
    let three = world.fork(3, 2);
    world.run_on(3, &[old(b"hash"), set(b"z", b"3"), old(b"set"), add(b"d")]);
    let second = world.write();

    let there = |world: &World, space, at, key: &[u8]| {
        world.in_space(space, at, key).as_ref().map(text).unwrap_or_default()
    };
    let tail = "g=v h=v i=v j=v k=v l=v m=v n=v o=v p=v q=v r=v s=v t=v";
    for (is_merged, states) in [(false, &[first, second][..]), (true, &[second])] {
        if is_merged {
            world.base.merge(second).expect("it can be merged");
        }
        for &at in states {
            assert_eq!(there(&world, one, at, b"hash"), format!("a=v c=1 e=v f=v {tail} z="));
            let list = "C d E f g h i j k l m n o p q r s T";
            assert_eq!(there(&world, one, at, b"list"), list);
            assert_eq!(there(&world, one, at, b"set"), "a b c");
            assert_eq!(there(&world, one, at, b"zset"), "a=1 b=9");
        }
        let hash = |z| format!("a=v b=back e=v {tail} z={z}");
        assert_eq!(there(&world, two, second, b"hash"), hash(""));
        assert_eq!(there(&world, three, second, b"hash"), hash("3"));
        for space in [two, three] {
            let list = "E f g h i j k l m n o p q r s T U";
            assert_eq!(there(&world, space, second, b"list"), list);
        }
        assert_eq!(there(&world, two, second, b"set"), "a b c");
        assert_eq!(there(&world, three, second, b"set"), "a b c d");
    }
    // What has to be whole is the branch's own from then on.
    world.reads();
    let to = |key| Effect::Rename { db: 0, key, replaces: Some(false) };
    world.run_on(2, &[old(b"hash"), to(b"moved")]);
    world.run_on(2, &[old(b"list"), Effect::ListInsert { index: 1, value: b"x" }]);
    assert_eq!(world.reads(), 2);
    let third = world.write();
    world.base.merge(third).expect("it can be merged");
    assert_eq!(there(&world, two, third, b"moved"), format!("a=v b=back e=v {tail} z="));
    assert_eq!(there(&world, two, third, b"hash"), "");
    assert!(there(&world, two, third, b"list").starts_with("E x f g"));
    assert_eq!(there(&world, three, third, b"hash"), format!("a=v b=back e=v {tail} z=3"));
    // Who has elements from whom: the set's of the third are main's and the first's.
    let under = |space, at, key: &[u8]| {
        let head = codec::head_key(space, keyspace::hash_of(1, key), key);
        world.base.lies_over(&head, at).expect("it can be read")
    };
    assert_eq!(under(three, third, b"set").len(), 2);
    assert_eq!(under(two, third, b"set").len(), 2, "as if it had one of its own");
    assert!(under(two, third, b"list").is_empty() && under(one, third, b"none").is_empty());
    assert_eq!(under(SPACE, third, b"list"), []);
    // What the first has lost stays lost to those that come from it.
    world.run(&[Effect::BranchGone { branch: BranchId(1) }, Effect::Database(0)]);
    let fourth = world.write();
    world.base.merge(fourth).expect("it can be merged");
    assert_eq!(there(&world, three, fourth, b"hash"), format!("a=v b=back e=v {tail} z=3"));
    assert_eq!(there(&world, three, fourth, b"set"), "a b c d");
    world.base.merge(fourth).expect("it can be merged again");
    assert_eq!(there(&world, two, fourth, b"set"), "a b c");
}

#[test]
fn what_a_list_lost_at_its_ends_is_compacted_away() {
    let mut world = World::new();
    let values: Vec<Vec<u8>> = (0..20).map(|n: u8| vec![b'a' + n]).collect();
    let all: Vec<_> = values.iter().map(|value| push(value)).collect();
    world.run(&[&[new(b"k")], &all[..]].concat());
    world.write();
    world.run(&[old(b"k"), Effect::ListPopFront { count: 8 }]);
    world.run(&[old(b"k"), Effect::ListPopBack { count: 10 }, push(b"A")]);
    let newest = world.write();
    assert_eq!(world.entries(), 21);
    world.base.merge(newest).expect("it can be merged");
    assert_eq!(world.entries(), 4);
    assert_eq!(world.now(b"k").as_deref(), Some("i j A"));
}

#[test]
fn elements_without_a_head_belong_to_nobody() {
    let mut world = World::new();
    world.run(&[new(b"k"), add(b"a")]);
    world.write();
    let keyspace = Keyspace::new(1, 1);
    let hash = {
        keyspace.back(world.backing.clone(), 0, SPACE, &[1; keyspace::SHARDS]);
        keyspace.unknown(0, b"k").expect("nothing is known").1
    };
    // A key after it in its bucket, of one generation with it, whose head went
    // before its element.
    let mut element = codec::head_key(SPACE, hash, b"kk");
    elements::put_born(&mut element, Revision(1));
    elements::put_name(&mut element, b"stray");
    let mut value = Vec::new();
    elements::put_element(&mut value, b"stray", Revision(1), Some(b""));
    let mut batch = world.base.batch().expect("a file can be made");
    batch.put(&element, &value).expect("it can be written");
    let directory = crate::Directory { revision: Revision(2), ..(*world.base.directory()).clone() };
    batch.finish(directory).expect("it can be written");
    assert_eq!((world.now(b"k").as_deref(), world.entries()), (Some("a"), 3));
    world.base.merge(Revision(2)).expect("it can be merged");
    assert_eq!((world.now(b"k").as_deref(), world.entries()), (Some("a"), 2));
}

#[test]
fn a_collection_is_large_from_a_size_on_until_it_is_written_whole() {
    let mut world = World::of(LargeFrom { elements: 3, bytes: 50 });
    let long = [b'v'; 100];
    let mut check = |effects: &[Effect<'_>], entries: usize| {
        world.run(effects);
        let newest = world.write();
        world.base.merge(newest).expect("it can be merged");
        assert_eq!(world.entries(), entries, "{effects:?}");
    };
    check(&[new(b"k"), set(b"a", b""), set(b"b", b""), set(b"c", b"")], 1);
    check(&[old(b"k"), set(b"d", b"")], 5);
    check(&[old(b"k"), Effect::HashDelete { field: b"d" }], 4);
    check(&[old(b"k"), Effect::HashDelete { field: b"c" }], 3);
    check(&[old(b"k"), Effect::Rename { db: 0, key: b"n", replaces: Some(false) }], 1);
    check(&[old(b"n"), set(b"a", &long)], 3);
    check(&[old(b"n"), GONE, new(b"n"), set(b"only", &long)], 1);
}
