//! Strings and lists, which merge as a whole but are logged by what changed.

use crate::effect::Effect;
use crate::types::List;
use crate::value::ValueRef;

/// Turns `from` into `to` by effects that are smaller than `to`; answers false
/// and does nothing where there are none.
pub(super) fn turn(from: Option<ValueRef<'_>>, to: ValueRef<'_>, out: &mut Vec<u8>) -> bool {
    match (from, to) {
        (Some(ValueRef::Str(from)), ValueRef::Str(to)) => turn_string(from, to, out),
        (Some(ValueRef::List(from)), ValueRef::List(to)) => turn_list(from, to, out),
        _ => false,
    }
}

/// The longest string that `OBJECT ENCODING` can call other than `raw`. A
/// write into a shorter one would show there, and gain little.
const SHORT_BYTES_MAX: usize = 44;

fn turn_string(from: &[u8], to: &[u8], out: &mut Vec<u8>) -> bool {
    if from.len() <= SHORT_BYTES_MAX || to.len() < from.len() {
        return false;
    }
    let start = common(from.iter(), to.iter());
    let end = match to.len() == from.len() {
        true => to.len() - common(from[start..].iter().rev(), to[start..].iter().rev()),
        false => to.len(),
    };
    let bytes = &to[start..end];
    let is_smaller = bytes.len() <= to.len() / 2;
    if is_smaller {
        Effect::StrWrite { offset: start as u64, bytes }.encode(out);
    }
    is_smaller
}

/// How many items from the first on are equal.
fn common<T: PartialEq>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

/// The most elements that are changed one by one inside a list, as each has to
/// be found.
const INNER_EDITS_MAX: usize = 64;

fn turn_list(from: &List, to: &List, out: &mut Vec<u8>) -> bool {
    let (from, to): (Vec<&[u8]>, Vec<&[u8]>) = (from.iter().collect(), to.iter().collect());
    let head = common(from.iter(), to.iter());
    let tail = common(from[head..].iter().rev(), to[head..].iter().rev());
    let run = longest_run(&from, &to, head, tail);
    let pushed = to.len() - run.len;
    let (old, new) = (&from[head..from.len() - tail], &to[head..to.len() - tail]);
    let edited = old.len().max(new.len());
    if edited <= INNER_EDITS_MAX && edited < pushed {
        edit_inside(head, old, new, out);
        return true;
    }
    if run.len == 0 {
        return false;
    }
    let pops = [run.from, from.len() - run.from - run.len].map(|count| count as u64);
    if pops[0] > 0 {
        Effect::ListPopFront { count: pops[0] }.encode(out);
    }
    if pops[1] > 0 {
        Effect::ListPopBack { count: pops[1] }.encode(out);
    }
    for value in to[..run.to].iter().rev() {
        Effect::ListPushFront { value }.encode(out);
    }
    for value in &to[run.to + run.len..] {
        Effect::ListPushBack { value }.encode(out);
    }
    true
}

fn edit_inside(start: usize, old: &[&[u8]], new: &[&[u8]], out: &mut Vec<u8>) {
    let shared = old.len().min(new.len());
    for (at, (old, value)) in old.iter().zip(new).enumerate() {
        if old != value {
            Effect::ListSet { index: (start + at) as u64, value }.encode(out);
        }
    }
    for (at, value) in new.iter().enumerate().skip(shared) {
        Effect::ListInsert { index: (start + at) as u64, value }.encode(out);
    }
    for _ in shared..old.len() {
        Effect::ListRemove { index: (start + shared) as u64 }.encode(out);
    }
}

/// Elements that stay together, where they begin before and after.
#[derive(Clone, Copy)]
struct Run {
    from: usize,
    to: usize,
    len: usize,
}

/// The longest run that touches an end of either list: what pushes and pops at
/// the ends leave. `head` and `tail` are what both begin and end with.
fn longest_run(from: &[&[u8]], to: &[&[u8]], head: usize, tail: usize) -> Run {
    // A queue loses in front and gains behind, a capped list the other way.
    let queue = overlap(from, to);
    let capped = overlap(to, from);
    let runs = [
        Run { from: 0, to: 0, len: head },
        Run { from: from.len() - tail, to: to.len() - tail, len: tail },
        Run { from: from.len() - queue, to: 0, len: queue },
        Run { from: 0, to: to.len() - capped, len: capped },
    ];
    runs.into_iter().max_by_key(|run| run.len).expect("there are four")
}

/// How many elements at the end of `a` are also the first of `b`: the search of
/// Knuth, Morris and Pratt for `b` in `a`, as far as it is when `a` ends.
fn overlap(a: &[&[u8]], b: &[&[u8]]) -> usize {
    let a = &a[a.len().saturating_sub(b.len())..];
    let b = &b[..a.len()];
    // For each beginning of `b`: how long a beginning it also ends with.
    let mut borders = vec![0; b.len()];
    let advance = |mut matched: usize, element: &[u8], borders: &[usize]| {
        while matched > 0 && b[matched] != element {
            matched = borders[matched - 1];
        }
        matched + usize::from(b[matched] == element)
    };
    for at in 1..b.len() {
        borders[at] = advance(borders[at - 1], b[at], &borders);
    }
    a.iter().fold(0, |matched, element| advance(matched, element, &borders))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::EncodingLimits;
    use crate::effect::Effects;

    fn list_of(text: &str) -> List {
        let mut list = List::new();
        let limits = EncodingLimits::default();
        (0..text.len()).for_each(|at| list.push_back(&text.as_bytes()[at..=at], &limits));
        list
    }

    /// Makes the effects on a plain vector.
    fn perform(mut list: VecDeque<u8>, effects: &[u8]) -> VecDeque<u8> {
        for effect in Effects::new(effects) {
            match effect.expect("just encoded") {
                Effect::ListPushFront { value } => list.push_front(value[0]),
                Effect::ListPushBack { value } => list.push_back(value[0]),
                Effect::ListPopFront { count } => drop(list.drain(..count as usize)),
                Effect::ListPopBack { count } => list.truncate(list.len() - count as usize),
                Effect::ListSet { index, value } => list[index as usize] = value[0],
                Effect::ListInsert { index, value } => list.insert(index as usize, value[0]),
                Effect::ListRemove { index } => _ = list.remove(index as usize).expect("there"),
                other => panic!("{other:?} is not for lists"),
            }
            assert!(!list.is_empty(), "the key would have gone in between");
        }
        list
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_list_turns_into_the_other(
            head in "[a-c]{0,9}", inside in "[a-d]{0,4}", tail in "[a-c]{0,9}",
            new_head in prop::option::of("[a-c]{0,3}"), new_inside in "[a-d]{0,4}",
            new_tail in prop::option::of("[a-c]{0,3}"),
        ) {
            let from = format!("{head}{inside}{tail}");
            let to = format!("{}{new_inside}{}", new_head.unwrap_or(head), new_tail.unwrap_or(tail));
            prop_assume!(!from.is_empty() && !to.is_empty());
            let (old, new) = (list_of(&from), list_of(&to));
            let mut effects = Vec::new();
            if turn_list(&old, &new, &mut effects) {
                let turned = perform(from.into_bytes().into(), &effects);
                prop_assert_eq!(String::from_utf8(turned.into()).expect("ASCII"), to.clone());
            }
        }

        #[test]
        fn overlap_is_the_longest(a in "[ab]{0,9}", b in "[ab]{0,9}") {
            let of = |text: &str| text.bytes().map(|byte| vec![byte]).collect::<Vec<_>>();
            let (a, b) = (of(&a), of(&b));
            let expected = (0..=a.len().min(b.len()))
                .rev()
                .find(|&len| a[a.len() - len..] == b[..len])
                .expect("none at all is an overlap");
            let (a, b): (Vec<_>, Vec<_>) =
                (a.iter().map(|e| &e[..]).collect(), b.iter().map(|e| &e[..]).collect());
            prop_assert_eq!(overlap(&a, &b), expected);
        }
    }
}
