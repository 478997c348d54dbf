//! Merges beside a merge of plain maps: random commands on three keyspaces, the
//! counters told from the effects that were recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use base::{DbIndex, Revision};
use keyspace::effect::{Effect, Effects};
use keyspace::merge::{Choice, Conflict, Counted, Merge, Side, Version, difference, merge};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{Buffers, Editor, EncodingLimits, Journal, Keyspace, Scope, Txn, TxnOptions};
use keyspace::{ValueRef, dump};
use proptest::prelude::*;

const NOW_MS: u64 = 1_700_000_000_000;
const KEY: &[u8] = b"key";

#[derive(Default)]
struct Counter(AtomicU64);

impl Journal for Counter {
    fn reserve(&self) -> Revision {
        Revision(self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

/// One line of revisions of one key.
struct Line {
    keyspace: Keyspace,
    journal: Counter,
    limits: EncodingLimits,
    counted: Counted,
}

impl Line {
    fn new(limits: EncodingLimits) -> Line {
        let (keyspace, journal) = (Keyspace::new(1, 1), Counter::default());
        Line { keyspace, journal, limits, counted: Counted::default() }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Txn<'_>) -> R) -> (R, Vec<u8>) {
        let options = TxnOptions {
            now_ms: NOW_MS,
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
        (result, buffers.effects().to_vec())
    }

    fn run(&mut self, op: &Op) {
        let ((), effects) = self.with(|txn| op.run(txn));
        for effect in Effects::new(&effects) {
            self.counted.note(&effect.expect("just recorded"));
        }
    }

    /// Looks at the versions of three lines, each of which is locked meanwhile.
    fn merge<R>(
        &self,
        base: &Line,
        theirs: &Line,
        look: impl FnOnce(Option<Version<'_>>, Side<'_>, Side<'_>) -> R,
    ) -> R {
        let of = |line: &Line, look: &mut dyn FnMut(Option<Version<'_>>)| {
            line.with(|txn| {
                let deadline = txn.info(KEY).and_then(|info| info.deadline);
                look(txn.get(KEY).map(|value| Version { value, deadline }));
            });
        };
        let (mut look, mut result) = (Some(look), None);
        of(base, &mut |base| {
            of(self, &mut |ours| {
                of(theirs, &mut |version| {
                    let ours = Side { version: ours, counted: &self.counted };
                    let theirs = Side { version, counted: &theirs.counted };
                    let look = look.take().expect("called once");
                    result = Some(look(base, ours, theirs));
                });
            });
        });
        result.expect("called once")
    }

    fn model(&self) -> Option<Model> {
        self.with(|txn| {
            let deadline = txn.info(KEY).and_then(|info| info.deadline);
            txn.get(KEY).map(|value| Model::of(value, deadline))
        })
        .0
    }
}

#[derive(Clone, Debug)]
enum Op {
    Set(String),
    Incr(i64),
    Append(String),
    HashSet(String, String),
    HashIncr(String, i64),
    HashDelete(String),
    SetAdd(String),
    SetRemove(String),
    ZsetSet(String, i32),
    ZsetRemove(String),
    PushBack(String),
    PushFront(String),
    PopFront,
    PopBack,
    ListSet(usize, String),
    ListInsert(usize, String),
    ListRemove(usize),
    Delete,
    Deadline(Option<u64>),
    Rewrite,
}

impl Op {
    /// As a command would; what does not fit the key does nothing.
    fn run(&self, txn: &mut Txn<'_>) {
        fn sum(text: Option<&[u8]>, delta: i64) -> Option<i64> {
            text.map_or(Some(0), base::number::parse_i64)?.checked_add(delta)
        }
        type Edit<'a, C> = &'a dyn Fn(&mut Editor<'_, '_, C>);
        fn create<C: keyspace::Collection>(txn: &mut Txn<'_>, edit: Edit<'_, C>) {
            _ = txn.update_or_create(KEY, |editor: &mut Editor<'_, '_, C>| edit(editor));
        }
        fn change<C: keyspace::Collection>(txn: &mut Txn<'_>, edit: Edit<'_, C>) {
            _ = txn.update(KEY, |editor: &mut Editor<'_, '_, C>| edit(editor));
        }
        match self {
            Op::Set(value) => txn.set_string(KEY, value.as_bytes(), None),
            Op::Incr(delta) => {
                let Ok(text) = txn.string(KEY) else { return };
                if let Some(value) = sum(text, *delta) {
                    txn.add_to_string(KEY, *delta, value);
                }
            }
            Op::Append(text) => {
                let Ok(found) = txn.string(KEY) else { return };
                let len = found.map_or(0, <[u8]>::len);
                txn.write_string(KEY, len, text.as_bytes()).expect("it is a string");
            }
            Op::HashSet(field, value) => create(txn, &|hash: &mut Editor<'_, '_, Hash>| {
                hash.set(field.as_bytes(), value.as_bytes());
            }),
            Op::HashIncr(field, delta) => create(txn, &|hash: &mut Editor<'_, '_, Hash>| {
                if let Some(value) = sum(hash.get(field.as_bytes()), *delta) {
                    hash.add(field.as_bytes(), *delta, value);
                }
            }),
            Op::HashDelete(field) => change(txn, &|hash: &mut Editor<'_, '_, Hash>| {
                hash.remove(field.as_bytes());
            }),
            Op::SetAdd(member) => create(txn, &|set: &mut Editor<'_, '_, Set>| {
                set.add(member.as_bytes());
            }),
            Op::SetRemove(member) => change(txn, &|set: &mut Editor<'_, '_, Set>| {
                set.remove(member.as_bytes());
            }),
            Op::ZsetSet(member, score) => create(txn, &|zset: &mut Editor<'_, '_, Zset>| {
                zset.set(member.as_bytes(), f64::from(*score));
            }),
            Op::ZsetRemove(member) => change(txn, &|zset: &mut Editor<'_, '_, Zset>| {
                zset.remove(member.as_bytes());
            }),
            Op::PushBack(value) => create(txn, &|list: &mut Editor<'_, '_, List>| {
                list.push_back(value.as_bytes());
            }),
            Op::PushFront(value) => create(txn, &|list: &mut Editor<'_, '_, List>| {
                list.push_front(value.as_bytes());
            }),
            Op::PopFront => change(txn, &|list: &mut Editor<'_, '_, List>| {
                list.pop_front();
            }),
            Op::PopBack => change(txn, &|list: &mut Editor<'_, '_, List>| {
                list.pop_back();
            }),
            Op::ListSet(index, value) => change(txn, &|list: &mut Editor<'_, '_, List>| {
                list.set(index % list.len(), value.as_bytes());
            }),
            Op::ListInsert(index, value) => change(txn, &|list: &mut Editor<'_, '_, List>| {
                list.insert(index % list.len(), value.as_bytes());
            }),
            Op::ListRemove(index) => change(txn, &|list: &mut Editor<'_, '_, List>| {
                list.remove(index % list.len());
            }),
            Op::Delete => _ = txn.delete(KEY),
            Op::Deadline(after) => _ = txn.set_deadline(KEY, after.map(|after| NOW_MS + after)),
            Op::Rewrite => {
                let Some(value) = txn.get(KEY).map(ValueRef::to_value) else { return };
                txn.put(KEY, value, None);
            }
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-d]", 2 => "[0-3]", 1 => Just("long".repeat(30))]
}

fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -3i64..4, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => Just(1 << 62)]
}

fn string_op() -> BoxedStrategy<Op> {
    prop_oneof![
        1 => "[ab]|-?[1-9]|[a-z]{50}".prop_map(Op::Set),
        3 => amount().prop_map(Op::Incr),
        1 => "[ab]|c{30}".prop_map(Op::Append),
    ]
    .boxed()
}

fn hash_op() -> BoxedStrategy<Op> {
    prop_oneof![
        2 => (name(), "[ab]|[1-9]").prop_map(|(field, value)| Op::HashSet(field, value)),
        2 => (name(), amount()).prop_map(|(field, delta)| Op::HashIncr(field, delta)),
        2 => name().prop_map(Op::HashDelete),
    ]
    .boxed()
}

fn set_op() -> BoxedStrategy<Op> {
    prop_oneof![name().prop_map(Op::SetAdd), name().prop_map(Op::SetRemove)].boxed()
}

fn zset_op() -> BoxedStrategy<Op> {
    prop_oneof![
        2 => (name(), -1i32..2).prop_map(|(member, score)| Op::ZsetSet(member, score)),
        1 => name().prop_map(Op::ZsetRemove),
    ]
    .boxed()
}

fn list_op() -> BoxedStrategy<Op> {
    prop_oneof![
        2 => name().prop_map(Op::PushBack),
        2 => name().prop_map(Op::PushFront),
        1 => Just(Op::PopFront),
        1 => Just(Op::PopBack),
        1 => (0usize..9, name()).prop_map(|(index, value)| Op::ListSet(index, value)),
        1 => (0usize..9, name()).prop_map(|(index, value)| Op::ListInsert(index, value)),
        1 => (0usize..9).prop_map(Op::ListRemove),
    ]
    .boxed()
}

/// Commands of the base and of both sides, mostly of one type.
fn history() -> impl Strategy<Value = [Vec<Op>; 3]> {
    let families =
        prop::sample::select(vec![string_op(), hash_op(), set_op(), zset_op(), list_op()]);
    (families.clone(), families).prop_flat_map(|(family, other)| {
        let op = prop_oneof![
            40 => family,
            1 => other,
            2 => Just(Op::Delete),
            4 => prop::option::of(1u64..4).prop_map(Op::Deadline),
            1 => Just(Op::Rewrite),
        ];
        let ops = |most| prop::collection::vec(op.clone(), 0..most);
        (ops(20), ops(8), ops(8)).prop_map(|(base, ours, theirs)| [base, ours, theirs])
    })
}

/// A key as parts with names, and each part's value as text. A string or list
/// is one part without a name.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    type_name: &'static str,
    parts: BTreeMap<Vec<u8>, Vec<u8>>,
    deadline: Option<u64>,
}

impl Model {
    fn of(value: ValueRef<'_>, deadline: Option<u64>) -> Model {
        let parts = match value {
            ValueRef::Str(text) => BTreeMap::from([(Vec::new(), text.to_vec())]),
            ValueRef::List(_) => BTreeMap::from([(Vec::new(), dump::encode_body(value))]),
            ValueRef::Set(set) => set.iter().map(|m| (m.to_vec(), Vec::new())).collect(),
            ValueRef::Hash(hash) => hash.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect(),
            ValueRef::Zset(zset) => {
                zset.iter().map(|(m, score)| (m.to_vec(), score.to_string().into())).collect()
            }
        };
        Model { type_name: value.type_name(), parts, deadline }
    }
}

/// What a merge of maps says: the key if each conflict goes one way, and the
/// parts in conflict (a nameless one for the whole key).
#[derive(Debug, PartialEq)]
struct Expected {
    ours: Option<Model>,
    theirs: Option<Model>,
    conflicts: BTreeSet<Vec<u8>>,
}

fn expect(base: Option<&Model>, ours: &Line, theirs: &Line) -> Expected {
    let (our_line, their_line) = (ours, theirs);
    let (ours, theirs) = (our_line.model(), their_line.model());
    let same = |one: &Option<Model>| Expected {
        ours: one.clone(),
        theirs: one.clone(),
        conflicts: BTreeSet::new(),
    };
    let (Some(mine), Some(other)) = (&ours, &theirs) else {
        return if base == theirs.as_ref() {
            same(&ours)
        } else if base == ours.as_ref() {
            same(&theirs)
        } else if ours == theirs {
            same(&ours)
        } else {
            Expected { ours, theirs, conflicts: BTreeSet::from([Vec::new()]) }
        };
    };
    let never = u64::MAX;
    let at = [base.and_then(|base| base.deadline), mine.deadline, other.deadline];
    let [before, here, there] = at.map(|deadline| deadline.unwrap_or(never));
    let deadline = match base {
        Some(_) if here == before => there,
        Some(_) if there == before => here,
        _ => here.max(there),
    };
    let deadline = (deadline != never).then_some(deadline);
    let at_deadline = |model: &Model| Some(Model { deadline, ..model.clone() });

    if mine.type_name != other.type_name || base.is_some_and(|b| b.type_name != mine.type_name) {
        let is_base = |model: &Model| {
            base.is_some_and(|base| {
                (base.type_name, &base.parts) == (model.type_name, &model.parts)
            })
        };
        let is_one = (mine.type_name, &mine.parts) == (other.type_name, &other.parts);
        return if is_base(other) || is_one {
            same(&at_deadline(mine))
        } else if is_base(mine) {
            same(&at_deadline(other))
        } else {
            let conflicts = BTreeSet::from([Vec::new()]);
            Expected { ours: at_deadline(mine), theirs: at_deadline(other), conflicts }
        };
    }
    let mut merged = [mine, other].map(|_| BTreeMap::new());
    let mut conflicts = BTreeSet::new();
    let nothing = BTreeMap::new();
    let before = base.map_or(&nothing, |base| &base.parts);
    let names: BTreeSet<_> =
        before.keys().chain(mine.parts.keys()).chain(other.parts.keys()).collect();
    for name in names {
        let [b, o, t] = [before, &mine.parts, &other.parts].map(|parts| parts.get(name));
        let counts = |line: &Line| match mine.type_name {
            "string" => line.counted.string(),
            "hash" => line.counted.field(name),
            _ => false,
        };
        let number = |text: Option<&Vec<u8>>| -> Option<i128> {
            text.map_or(Some(0), |text| std::str::from_utf8(text).ok()?.parse().ok())
        };
        let result = if o == b || t == b {
            Ok(if o == b { t } else { o }.cloned())
        } else if counts(our_line) && counts(their_line) {
            let [b, o, t] = [b, o, t].map(|text| number(text).expect("only numbers count"));
            let fits = [o - b, t - b, o + t - b].map(|n| i64::try_from(n).is_ok());
            if fits == [true; 3] { Ok(Some((o + t - b).to_string().into())) } else { Err(()) }
        } else if o == t {
            Ok(o.cloned())
        } else {
            Err(())
        };
        let ways = match result {
            Ok(part) => [part.clone(), part],
            Err(()) => {
                conflicts.insert(name.clone());
                [o.cloned(), t.cloned()]
            }
        };
        for (parts, way) in merged.iter_mut().zip(ways) {
            way.into_iter().for_each(|part| _ = parts.insert(name.clone(), part));
        }
    }
    let [ours, theirs] = merged.map(|parts| {
        let model = Model { type_name: mine.type_name, parts, deadline };
        (!model.parts.is_empty()).then_some(model)
    });
    Expected { ours, theirs, conflicts }
}

fn names(merge: &Merge<'_>) -> BTreeSet<Vec<u8>> {
    merge.conflicts().iter().map(|c| c.element().unwrap_or_default().to_vec()).collect()
}

/// The lines that these commands make, twice, as merging changes one.
fn lines(limits: EncodingLimits, [base, ours, theirs]: &[Vec<Op>; 3]) -> [Line; 3] {
    let mut lines = [limits; 3].map(Line::new);
    for line in &mut lines {
        base.iter().for_each(|op| line.run(op));
        line.counted = Counted::default();
    }
    ours.iter().for_each(|op| lines[1].run(op));
    theirs.iter().for_each(|op| lines[2].run(op));
    lines
}

/// Merges theirs into ours, every conflict going one way; answers ours then.
fn merged(lines: &[Line; 3], choice: Choice<'_>) -> (Option<Model>, BTreeSet<Vec<u8>>) {
    let [base, ours, theirs] = lines;
    let (effects, conflicts) = ours.merge(base, theirs, |base, ours, theirs| {
        let merged = merge(base, ours, theirs);
        let choices = vec![choice; merged.conflicts().len()];
        (merged.effects(&choices).expect("sides fit"), names(&merged))
    });
    let before = ours.model();
    let copy = Line::new(ours.limits);
    copy_of(ours, &copy);
    let (amended, recorded) = ours.with(|txn| txn.amend(KEY, &effects));
    amended.expect("the effects fit ours");
    assert_eq!(effects.is_empty(), before == ours.model(), "no effects, no change: {effects:?}");
    // What was recorded makes the same of a copy.
    let mut buffers = Buffers::default();
    copy.keyspace
        .apply(Revision(1_000_000), NOW_MS, 0, &recorded, &copy.limits, &mut buffers)
        .expect("the record fits the copy");
    assert_eq!(copy.model(), ours.model());
    (ours.model(), conflicts)
}

fn copy_of(from: &Line, to: &Line) {
    let found = from.with(|txn| {
        let deadline = txn.info(KEY).and_then(|info| info.deadline);
        txn.get(KEY).map(|value| (value.to_value(), deadline))
    });
    if let Some((value, deadline)) = found.0 {
        to.with(|txn| txn.put(KEY, value, deadline));
    }
}

fn limits() -> impl Strategy<Value = EncodingLimits> {
    let tiny = EncodingLimits {
        hash_max_listpack_entries: 2,
        list_max_listpack_size: 2,
        set_max_intset_entries: 2,
        set_max_listpack_entries: 2,
        zset_max_listpack_entries: 2,
        ..EncodingLimits::default()
    };
    prop::sample::select(vec![EncodingLimits::default(), tiny])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn merges_as_maps_do(limits in limits(), history in history()) {
        for choice in [Choice::Ours, Choice::Theirs] {
            let lines = lines(limits, &history);
            let expected = expect(lines[0].model().as_ref(), &lines[1], &lines[2]);
            let (found, conflicts) = merged(&lines, choice);
            let wanted = if choice == Choice::Ours { expected.ours } else { expected.theirs };
            prop_assert_eq!(found, wanted);
            prop_assert_eq!(conflicts, expected.conflicts);
        }
    }

    #[test]
    fn the_direction_does_not_matter(limits in limits(), [base, ours, theirs] in history()) {
        let forth = [base.clone(), ours.clone(), theirs.clone()];
        let back = [base, theirs, ours];
        prop_assert_eq!(
            merged(&lines(limits, &forth), Choice::Ours),
            merged(&lines(limits, &back), Choice::Theirs),
        );
    }

    #[test]
    fn a_side_without_changes_gives_way(limits in limits(), [base, ours, _] in history()) {
        let only_ours = lines(limits, &[base.clone(), ours.clone(), Vec::new()]);
        let before = only_ours[1].model();
        prop_assert_eq!(merged(&only_ours, Choice::Theirs), (before, BTreeSet::new()));
        let only_theirs = lines(limits, &[base, Vec::new(), ours]);
        let there = only_theirs[2].model();
        prop_assert_eq!(merged(&only_theirs, Choice::Ours), (there, BTreeSet::new()));
    }

    #[test]
    fn nothing_merges_twice(limits in limits(), history in history()) {
        let [base, ours, theirs] = lines(limits, &history);
        let lines = [base, ours, theirs];
        merged(&lines, Choice::Theirs);
        // The next merge of the same lines starts at what theirs was.
        let [_, ours, mut theirs] = lines;
        let before = ours.model();
        theirs.counted = Counted::default();
        let at_merge = Line::new(theirs.limits);
        copy_of(&theirs, &at_merge);
        prop_assert_eq!(merged(&[at_merge, ours, theirs], Choice::Theirs).0, before);
    }

    #[test]
    fn versions_differ_as_their_parts_do(limits in limits(), history in history()) {
        let [base, ours, theirs] = lines(limits, &history);
        let found = ours.merge(&base, &theirs, |_, ours, theirs| {
            difference(ours.version, theirs.version)
        });
        use keyspace::merge::Difference;
        let expected = match (ours.model(), theirs.model()) {
            (None, None) => None,
            (None, Some(_)) => Some(Difference::Added),
            (Some(_), None) => Some(Difference::Removed),
            (Some(a), Some(b)) if a == b => None,
            (Some(a), Some(b)) if a == (Model { deadline: a.deadline, ..b.clone() }) => {
                Some(Difference::Deadline)
            }
            _ => Some(Difference::Changed),
        };
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_conflict_is_told_by_what_a_collection_has_not_by_its_order() {
    let default = EncodingLimits::default();
    let tables = EncodingLimits { hash_max_listpack_entries: 0, ..default };
    let digest = |seed: u64, limits: &EncodingLimits, size: usize, more: &str| {
        let (mut hash, mut set) = (Hash::new(seed), Set::new(seed));
        // Tables of another seed, filled in another order.
        (0..size).map(|at| (at + seed as usize) % size).for_each(|number| {
            hash.set(format!("f{number}").as_bytes(), b"v", limits);
            set.add(format!("m{number}").as_bytes(), limits);
        });
        hash.set(b"more", more.as_bytes(), limits);
        set.add(more.as_bytes(), limits);
        let version = |value| Some(Version { value, deadline: None });
        let values = [ValueRef::Hash(&hash), ValueRef::Set(&set)];
        values.map(|value| {
            let merged =
                merge(version(ValueRef::Str(b"before")), None.into(), version(value).into());
            assert_eq!(merged.conflicts().len(), 1);
            merged.digest()
        })
    };
    for size in [10, 300] {
        let known = digest(1, &default, size, "x");
        assert_eq!(digest(2, &default, size, "x"), known, "{size}");
        assert_eq!(digest(3, &tables, size, "x"), known, "{size}, as tables");
        let other = digest(1, &default, size, "y");
        assert!(other[0] != known[0] && other[1] != known[1], "{size}");
    }
}

/// Merges the commands' lines, and answers the effects and the conflicts.
fn worked_out(history: [Vec<Op>; 3], choices: &[Choice<'_>]) -> (Vec<u8>, Vec<String>) {
    let [base, ours, theirs] = lines(EncodingLimits::default(), &history);
    ours.merge(&base, &theirs, |base, ours, theirs| {
        let merged = merge(base, ours, theirs);
        let shown = merged.conflicts().iter().map(|conflict| match conflict {
            Conflict::Key { .. } => "key".to_owned(),
            other => String::from_utf8_lossy(other.element().expect("an element")).into_owned(),
        });
        (merged.effects(choices).expect("the choices fit"), shown.collect())
    })
}

fn set(value: &str) -> Op {
    Op::Set(value.to_owned())
}

fn hash_set(field: &str, value: &str) -> Op {
    Op::HashSet(field.to_owned(), value.to_owned())
}

fn effects(bytes: &[u8]) -> Vec<Effect<'_>> {
    Effects::new(bytes).collect::<Result<_, _>>().expect("just encoded")
}

#[test]
fn equal_counts_count_twice() {
    let counted = [vec![set("10")], vec![Op::Incr(1)], vec![Op::Incr(1)]];
    assert_eq!(effects(&worked_out(counted, &[]).0), [Effect::StrAdd { delta: 1 }]);
    // Equal without a count: nothing to do.
    let was_set = [vec![set("10")], vec![Op::Incr(1)], vec![set("11")]];
    assert_eq!(worked_out(was_set, &[]).0, b"");
}

#[test]
fn what_one_side_counted_stays_a_count() {
    let string = [vec![set("10")], vec![], vec![Op::Incr(5)]];
    assert_eq!(effects(&worked_out(string, &[]).0), [Effect::StrAdd { delta: 5 }]);
    let new = [vec![], vec![], vec![Op::Incr(5), Op::Deadline(Some(7))]];
    assert_eq!(
        effects(&worked_out(new, &[]).0),
        [Effect::StrAdd { delta: 5 }, Effect::Deadline(Some(NOW_MS + 7))]
    );
    let field = [vec![], vec![], vec![Op::HashIncr("f".into(), 5), hash_set("g", "1")]];
    let (found, _) = worked_out(field, &[]);
    let mut found = effects(&found);
    found.sort_by_key(|effect| matches!(effect, Effect::HashSet { .. }));
    assert_eq!(
        found,
        [Effect::HashAdd { field: b"f", delta: 5 }, Effect::HashSet { field: b"g", value: b"1" }]
    );
}

#[test]
fn a_sum_past_64_bits_is_a_conflict() {
    let sides = [vec![set("1")], vec![Op::Incr(i64::MAX - 1)], vec![Op::Incr(1)]];
    let (found, conflicts) = worked_out(sides, &[Choice::Value(b"7")]);
    assert_eq!(conflicts, ["key"]);
    assert_eq!(effects(&found), [Effect::StrSet { value: b"7", deadline: None }]);
}

#[test]
fn an_amount_past_64_bits_is_a_conflict_either_way() {
    let (up, down) = (vec![Op::Incr(i64::MAX), Op::Incr(2)], vec![Op::Incr(-1)]);
    for sides in [[up.clone(), down.clone()], [down, up]] {
        let [ours, theirs] = sides;
        let (_, conflicts) = worked_out([vec![set("-2")], ours, theirs], &[Choice::Ours]);
        assert_eq!(conflicts, ["key"]);
    }
}

#[test]
fn equal_sides_whose_sum_is_too_large_are_a_conflict_without_work() {
    let up = vec![Op::Incr(1 << 62)];
    for choice in [Choice::Ours, Choice::Theirs] {
        let sides = [vec![set("1")], up.clone(), up.clone()];
        assert_eq!(worked_out(sides, &[choice]), (vec![], vec!["key".to_owned()]));
    }
}

#[test]
fn two_sides_that_change_the_type_do_not_mix() {
    let member = |member: &str| vec![Op::Delete, Op::SetAdd(member.into())];
    let (found, conflicts) =
        worked_out([vec![set("v")], member("a"), member("b")], &[Choice::Ours]);
    assert_eq!((found, conflicts), (vec![], vec!["key".to_owned()]));
    // Where there was no key, both have added to an empty one.
    let (found, conflicts) = worked_out([vec![], member("a"), member("b")], &[]);
    assert_eq!(conflicts, [""; 0]);
    assert_eq!(effects(&found), [Effect::SetAdd { member: b"b" }]);
}

#[test]
fn conflicts_are_in_order() {
    let fields = |value: &str| -> Vec<Op> {
        (100..300).rev().map(|n| hash_set(&n.to_string(), value)).collect()
    };
    let (_, conflicts) =
        worked_out([fields("base"), fields("ours"), fields("theirs")], &[Choice::Ours; 200]);
    assert_eq!(conflicts, (100..300).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_large_collection_is_merged_by_what_changed() {
    let base: Vec<Op> = (0..2000).map(|n| hash_set(&n.to_string(), "a value")).collect();
    let ours = vec![hash_set("5", "ours"), hash_set("9", "ours")];
    let theirs = vec![
        hash_set("7", "theirs"),
        hash_set("5", "theirs"),
        hash_set("9", "theirs"),
        Op::HashDelete("8".into()),
    ];
    let (found, conflicts) =
        worked_out([base, ours, theirs], &[Choice::Ours, Choice::Value(b"other")]);
    assert_eq!(conflicts, ["5", "9"]);
    assert_eq!(
        effects(&found),
        [
            Effect::HashSet { field: b"7", value: b"theirs" },
            Effect::HashSet { field: b"9", value: b"other" },
            Effect::HashDelete { field: b"8" },
        ]
    );
}

#[test]
fn a_collection_made_anew_is_one_value() {
    let base = (0..50).map(|n| Op::SetAdd(n.to_string())).collect();
    let (found, _) = worked_out([base, vec![], vec![Op::Delete, Op::SetAdd("new".into())]], &[]);
    assert!(matches!(effects(&found)[..], [Effect::Put { deadline: None, .. }]));
}

#[test]
fn lists_and_long_strings_are_merged_by_what_changed() {
    let numbers = |range: std::ops::Range<u32>| -> Vec<Op> {
        range.map(|n| Op::PushBack(n.to_string())).collect()
    };
    let push_pop = |pop: Op, push: fn(String) -> Op| vec![pop.clone(), pop, push("new".into())];
    for (case, theirs, most) in [
        ("queue", push_pop(Op::PopFront, Op::PushBack), 2),
        ("capped", push_pop(Op::PopBack, Op::PushFront), 2),
        ("stack", push_pop(Op::PopBack, Op::PushBack), 2),
        ("front", push_pop(Op::PopFront, Op::PushFront), 2),
        ("inside", vec![Op::ListSet(500, "x".into()), Op::ListRemove(510)], 20),
        ("grown inside", vec![Op::ListInsert(500, "x".into())], 1),
    ] {
        let (found, _) = worked_out([numbers(0..1000), vec![], theirs], &[]);
        assert!((1..=most).contains(&effects(&found).len()), "{case}: {}", effects(&found).len());
        assert!(found.len() < 200, "{case}: {} bytes", found.len());
    }
    let long = set(&"x".repeat(1000));
    let appended = worked_out([vec![long], vec![], vec![Op::Append("end".into())]], &[]);
    assert_eq!(effects(&appended.0), [Effect::StrWrite { offset: 1000, bytes: b"end" }]);
}

#[test]
fn what_emptied_keeps_no_deadline() {
    // Each side removed what the other kept.
    let add = |member: &str| Op::SetAdd(member.to_owned());
    let remove = |member: &str| Op::SetRemove(member.to_owned());
    let base = vec![add("a"), add("b")];
    let theirs = vec![remove("b"), Op::Deadline(Some(9))];
    let (found, conflicts) = worked_out([base, vec![remove("a")], theirs], &[]);
    assert_eq!(conflicts, [""; 0]);
    assert!(matches!(effects(&found)[..], [Effect::Delete(_)]));
}

#[test]
fn a_deadline_against_a_removal_is_a_conflict() {
    let sides = [vec![set("v")], vec![Op::Deadline(Some(9))], vec![Op::Delete]];
    assert_eq!(worked_out(sides.clone(), &[Choice::Ours]), (vec![], vec!["key".to_owned()]));
    let (found, _) = worked_out(sides, &[Choice::Theirs]);
    assert!(matches!(effects(&found)[..], [Effect::Delete(_)]));
}

#[test]
fn values_are_chosen_where_they_fit() {
    let refused = |history: [Vec<Op>; 3], value: &[u8]| {
        let [base, ours, theirs] = lines(EncodingLimits::default(), &history);
        ours.merge(&base, &theirs, |base, ours, theirs| {
            let error = merge(base, ours, theirs).effects(&[Choice::Value(value)]);
            error.expect_err("it does not fit").to_string()
        })
    };
    let score = |score| vec![Op::ZsetSet("m".into(), score)];
    assert_eq!(
        refused([score(1), score(2), score(3)], b"many"),
        "\"many\" is no score; a member takes a number, OURS or THEIRS"
    );
    let list = |value: &str| vec![Op::PushBack(value.into())];
    assert_eq!(
        refused([vec![], list("a"), list("b")], b"c"),
        "a list cannot be given as one value; the key takes OURS or THEIRS"
    );
    let (found, conflicts) = worked_out([score(1), score(2), score(3)], &[Choice::Value(b"2.5")]);
    assert_eq!(conflicts, ["m"]);
    assert_eq!(effects(&found), [Effect::ZsetSet { member: b"m", score: 2.5 }]);
}

#[test]
fn effects_that_do_not_fit_are_refused() {
    let line = Line::new(EncodingLimits::default());
    let mut bytes = Vec::new();
    Effect::SetRemove { member: b"m" }.encode(&mut bytes);
    let (refused, recorded) = line.with(|txn| txn.amend(KEY, &bytes));
    assert!(refused.is_err() && recorded.is_empty());
}
