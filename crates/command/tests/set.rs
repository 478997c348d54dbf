//! What golden scripts cannot see of the set commands: events, randomness,
//! large sets, and, through the harness, effects.

mod harness;

use std::collections::BTreeSet;

use base::{Frame, Rng, SeededRng};
use harness::{Harness, text};

#[track_caller]
fn check(harness: &mut Harness, line: &str, reply: &str, events: &[&str]) {
    assert_eq!(text(&harness.line(line)), reply, "{line}");
    assert_eq!(harness.events, events, "{line}");
}

/// The members in a reply that is a set or an array; each must come once.
#[track_caller]
fn members(frame: &Frame) -> BTreeSet<String> {
    let (Frame::Set(items) | Frame::Array(items)) = frame else { panic!("{frame:?}") };
    let members: BTreeSet<String> = items.iter().map(text).collect();
    assert_eq!(members.len(), items.len(), "a member comes twice: {frame:?}");
    members
}

fn add_numbers(harness: &mut Harness, key: &str, numbers: impl Iterator<Item = u32>, prefix: &str) {
    let numbers: Vec<String> = numbers.map(|n| format!("{prefix}{n}")).collect();
    let mut words = vec!["SADD", key];
    words.extend(numbers.iter().map(String::as_str));
    harness.run(&words);
}

#[test]
fn events_come_in_redis_order() {
    let h = &mut Harness::new();
    check(h, "SADD a 1 2 x", "3", &["sadd a"]);
    check(h, "SADD a 1", "0", &[]);
    check(h, "SREM a none", "0", &[]);
    check(h, "SREM a 1", "1", &["srem a"]);
    check(h, "SMOVE a b x", "1", &["srem a", "sadd b"]);
    check(h, "SMOVE a b none", "0", &[]);
    check(h, "SMOVE b b x", "1", &[]);
    check(h, "SADD b 2", "1", &["sadd b"]);
    check(h, "SMOVE a b 2", "1", &["srem a", "del a"]);
    check(h, "SUNIONSTORE c a b", "2", &["sunionstore c"]);
    check(h, "SINTERSTORE c c a", "0", &["del c"]);
    check(h, "SINTERSTORE c c a", "0", &[]);
    check(h, "SDIFFSTORE c b a", "2", &["sdiffstore c"]);
    check(h, "SINTERSTORE d b c", "2", &["sinterstore d"]);
    check(h, "SPOP d 0", "~[]", &[]);
    h.line("SPOP d 1");
    assert_eq!(h.events, ["spop d"]);
    h.line("SPOP d");
    assert_eq!(h.events, ["spop d", "del d"]);
    h.line("SPOP c 9");
    assert_eq!(h.events, ["spop c", "del c"]);
    check(h, "SREM b 2 x", "2", &["srem b", "del b"]);
}

#[test]
fn popped_and_remaining_members_are_the_whole() {
    for (len, prefix) in [(5, ""), (100, "m"), (2000, "m")] {
        for count in [1, len / 2, len - 1, len, len + 1] {
            let h = &mut Harness::new();
            add_numbers(h, "k", 0..len, prefix);
            let all = members(&h.line("SMEMBERS k"));
            let popped = members(&h.run(&["SPOP", "k", &count.to_string()]));
            assert_eq!(popped.len() as u32, count.min(len));
            let rest = members(&h.line("SMEMBERS k"));
            assert!(popped.is_disjoint(&rest));
            assert_eq!(&popped | &rest, all);
        }
    }
}

#[test]
fn random_members_are_different_and_all_likely() {
    for (len, prefix) in [(6, ""), (60, "m"), (600, "m")] {
        let h = &mut Harness::new();
        add_numbers(h, "k", 0..len, prefix);
        let all = members(&h.line("SMEMBERS k"));
        for count in [1, len / 4, len / 2, len - 1, len, len * 2] {
            let some = members(&h.run(&["SRANDMEMBER", "k", &count.to_string()]));
            assert_eq!(some.len() as u32, count.min(len));
            assert!(some.is_subset(&all));
        }
        // Every member misses 30 * len draws with a chance of e^-30.
        let Frame::Array(many) = h.run(&["SRANDMEMBER", "k", &format!("-{}", len * 30)]) else {
            panic!("no array")
        };
        assert_eq!(many.len() as u32, len * 30);
        assert_eq!(many.iter().map(text).collect::<BTreeSet<_>>(), all);
    }
}

#[test]
fn a_count_that_would_exhaust_memory_is_refused() {
    let h = &mut Harness::new();
    h.line("SADD k a");
    for count in ["-9223372036854775807", "-16777217"] {
        assert_eq!(
            text(&h.run(&["SRANDMEMBER", "k", count])),
            "!ERR value is out of range, value must between -16777216 and 9223372036854775807"
        );
    }
    assert_eq!(text(&h.line("SRANDMEMBER k 9223372036854775807")), "[\"a\"]");
    assert_eq!(text(&h.line("SPOP k 9223372036854775807")), "~[\"a\"]");
}

/// The three operations, their STORE forms and SINTERCARD against a model,
/// over sets of every encoding and size.
#[test]
fn operations_on_sets_behave_as_on_paper() {
    for seed in 0..60 {
        let mut rng = SeededRng::new(seed);
        let h = &mut Harness::new();
        let keys: Vec<String> = (0..1 + rng.below(6)).map(|n| format!("k{n}")).collect();
        let mut sets: Vec<BTreeSet<String>> = Vec::new();
        for key in &keys {
            let size = [0, 1, 20, 400][rng.below(4) as usize];
            let range = [10, 500][rng.below(2) as usize];
            let prefix = ["", "m"][rng.below(4) as usize / 3];
            let numbers: Vec<u32> = (0..size).map(|_| rng.below(range) as u32).collect();
            if !numbers.is_empty() {
                add_numbers(h, key, numbers.iter().copied(), prefix);
            }
            sets.push(numbers.iter().map(|n| format!("\"{prefix}{n}\"")).collect());
        }
        let (first, others) = sets.split_first().expect("one at least");
        let both = others.iter().fold(first.clone(), |acc, set| &acc & set);
        let any = others.iter().fold(first.clone(), |acc, set| &acc | set);
        let only = others.iter().fold(first.clone(), |acc, set| &acc - set);
        for (name, store, expected) in [
            ("SINTER", "SINTERSTORE", both),
            ("SUNION", "SUNIONSTORE", any),
            ("SDIFF", "SDIFFSTORE", only),
        ] {
            let of_keys = |words: &[&str]| -> Vec<String> {
                words.iter().map(|w| (*w).to_owned()).chain(keys.iter().cloned()).collect()
            };
            let mut run =
                |words: Vec<String>| h.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(members(&run(of_keys(&[name]))), expected, "{name}, seed {seed}");
            let stored = run(of_keys(&[store, "into"]));
            assert_eq!(stored, Frame::Integer(expected.len() as i64), "{store}, seed {seed}");
            if name == "SINTER" {
                let mut words = of_keys(&["SINTERCARD", &keys.len().to_string()]);
                assert_eq!(run(words.clone()), Frame::Integer(expected.len() as i64));
                words.extend(["LIMIT".to_owned(), "3".to_owned()]);
                assert_eq!(run(words), Frame::Integer(expected.len().min(3) as i64));
            }
            assert_eq!(members(&h.line("SMEMBERS into")), expected, "{store}, seed {seed}");
        }
    }
}

#[test]
fn a_scan_sees_every_member_once() {
    let h = &mut Harness::new();
    add_numbers(h, "k", 0..5000, "m");
    let mut seen = BTreeSet::new();
    let (mut cursor, mut pages) = ("0".to_owned(), 0);
    loop {
        let Frame::Array(page) = h.run(&["SSCAN", "k", &cursor, "MATCH", "m*7", "COUNT", "100"])
        else {
            panic!("no array")
        };
        let [Frame::Bulk(next), Frame::Array(found)] = page.as_slice() else {
            panic!("no page: {page:?}")
        };
        for member in found {
            assert!(seen.insert(text(member)), "{member:?} comes twice");
        }
        cursor = String::from_utf8(next.clone()).expect("digits");
        pages += 1;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, (0..5000).step_by(10).map(|n| format!("\"m{}\"", n + 7)).collect());
    assert!((20..=100).contains(&pages), "{pages} pages of about 100");
}
