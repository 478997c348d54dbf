use proptest::prelude::*;
use std::sync::Arc;

use super::*;

/// What an entry should hold.
#[derive(Clone, Debug)]
struct Model {
    key: Vec<u8>,
    value: ModelValue,
    deadline: Option<u64>,
    revision: u64,
    access: u32,
    marked: bool,
    noted: bool,
}

#[derive(Clone, Debug)]
enum ModelValue {
    Inline(Vec<u8>),
    Boxed(u32),
}

#[derive(Clone, Debug)]
enum Step {
    SetInline(Vec<u8>),
    SetBoxed(u32),
    Touch(u8),
    Deadline(Option<u64>),
    Revision(u64),
    Access(u32),
    Mark(bool),
    Note(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100).prop_map(Step::SetInline),
        any::<u32>().prop_map(Step::SetBoxed),
        any::<u8>().prop_map(Step::Touch),
        any::<Option<u64>>().prop_map(Step::Deadline),
        any::<u64>().prop_map(Step::Revision),
        (0u32..1 << 24).prop_map(Step::Access),
        any::<bool>().prop_map(Step::Mark),
        any::<bool>().prop_map(Step::Note),
    ]
}

/// A boxed value whose count of owners shows leaks and double drops.
#[derive(Debug)]
struct Counted(u32, #[allow(dead_code, reason = "held for its reference count")] Arc<()>);

fn check(entry: &Entry<Counted>, model: &Model) {
    assert_eq!(entry.key(), model.key);
    assert_eq!(entry.deadline(), model.deadline);
    assert_eq!(entry.revision(), model.revision);
    assert_eq!(entry.access(), model.access);
    assert_eq!((entry.marked(), entry.noted()), (model.marked, model.noted));
    match (entry.content(), &model.value) {
        (Content::Inline(found), ModelValue::Inline(expected)) => assert_eq!(found, expected),
        (Content::Boxed(found), ModelValue::Boxed(expected)) => assert_eq!(found.0, *expected),
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

fn run(key: Vec<u8>, steps: Vec<Step>) {
    let owners = Arc::new(());
    let mut model = Model {
        key,
        value: ModelValue::Inline(b"first".to_vec()),
        deadline: None,
        revision: 0,
        access: 0,
        marked: false,
        noted: false,
    };
    let mut entry: Entry<Counted> = Entry::inline(&model.key, b"first", None);
    check(&entry, &model);
    for step in steps {
        match step {
            Step::SetInline(value) => {
                entry.set_inline(&value);
                model.value = ModelValue::Inline(value);
            }
            Step::SetBoxed(value) => {
                entry.set_boxed(Box::new(Counted(value, owners.clone())));
                model.value = ModelValue::Boxed(value);
            }
            Step::Touch(byte) => match (entry.content_mut(), &mut model.value) {
                (ContentMut::Inline(bytes), ModelValue::Inline(expected)) => {
                    bytes.fill(byte);
                    expected.fill(byte);
                }
                (ContentMut::Boxed(value), ModelValue::Boxed(expected)) => {
                    value.0 = u32::from(byte);
                    *expected = u32::from(byte);
                }
                _ => unreachable!("checked after the step before"),
            },
            Step::Deadline(deadline) => {
                entry.set_deadline(deadline);
                model.deadline = deadline;
            }
            Step::Revision(revision) => {
                entry.set_revision(revision);
                model.revision = revision;
            }
            Step::Access(access) => {
                entry.set_access(access);
                model.access = access;
            }
            Step::Mark(marked) => {
                entry.set_marked(marked);
                model.marked = marked;
            }
            Step::Note(noted) => {
                entry.set_noted(noted);
                model.noted = noted;
            }
        }
        check(&entry, &model);
        let boxed = usize::from(matches!(model.value, ModelValue::Boxed(_)));
        assert_eq!(Arc::strong_count(&owners), 1 + boxed, "a boxed value has one owner");
    }
    drop(entry);
    assert_eq!(Arc::strong_count(&owners), 1, "dropping the entry drops its value");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn behaves_as_a_struct(
        key in prop::collection::vec(any::<u8>(), 0..64),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        run(key, steps);
    }
}

#[test]
fn long_keys() {
    for len in [65_534, 65_535, 65_536, 100_000] {
        run(
            vec![b'k'; len],
            vec![
                Step::Deadline(Some(1)),
                Step::SetBoxed(7),
                Step::Deadline(None),
                Step::SetInline(vec![1; 30]),
            ],
        );
    }
}

#[test]
fn a_small_pair_costs_one_cache_line() {
    let entry: Entry<u8> = Entry::inline(&[b'k'; 16], &[b'v'; 32], None);
    assert_eq!(entry.heap_bytes(), 64);
    assert_eq!(size_of::<Option<Entry<u8>>>(), 8);
}

#[test]
fn a_value_of_similar_length_stays_in_place() {
    let mut entry: Entry<u8> = Entry::inline(b"counter", b"9", None);
    let before = entry.key().as_ptr();
    entry.set_inline(b"10");
    assert_eq!(entry.key().as_ptr(), before);
    assert!(matches!(entry.content(), Content::Inline(b"10")));
}

#[test]
fn the_boxed_value_comes_back_whole() {
    let mut entry = Entry::boxed(b"k", Box::new(String::from("v")), Some(5));
    assert_eq!(entry.set_inline(b"w").as_deref().map(String::as_str), Some("v"));
    assert_eq!(entry.deadline(), Some(5));
    assert!(entry.set_boxed(Box::new(String::from("x"))).is_none());
    assert_eq!(entry.into_boxed().as_deref().map(String::as_str), Some("x"));
}

#[test]
fn heat_counts_up_to_three_and_leaves_the_rest() {
    let mut entry = Entry::<Vec<u8>>::inline(b"key", b"value", Some(5));
    entry.set_marked(true);
    let heats: Vec<u32> = (0..5)
        .map(|access| {
            entry.touch(access);
            entry.heat()
        })
        .collect();
    assert_eq!(heats, [1, 2, 3, 3, 3]);
    entry.set_access(9);
    entry.set_deadline(None);
    assert_eq!((entry.heat(), entry.access(), entry.marked()), (3, 9, true));
    (0..5).for_each(|_| entry.cool());
    assert_eq!((entry.heat(), entry.access(), entry.marked()), (0, 9, true));
    assert_eq!(entry.key(), b"key");
}
