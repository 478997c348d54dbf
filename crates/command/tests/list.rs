//! What golden scripts cannot see of the list commands: events, waiting,
//! large lists, and, through the harness, effects.

mod harness;

use base::{Frame, Rng, SeededRng};
use command::{TimeoutReply, WaitFor};
use harness::{Harness, text};

#[track_caller]
fn check(harness: &mut Harness, line: &str, reply: &str, events: &[&str]) {
    assert_eq!(text(&harness.line(line)), reply, "{line}");
    assert_eq!(harness.events, events, "{line}");
}

#[test]
fn events_come_in_redis_order() {
    let h = &mut Harness::new();
    check(h, "RPUSH a 1 2 3 4 5 6", "6", &["rpush a"]);
    check(h, "LPUSH a 0", "7", &["lpush a"]);
    check(h, "LPUSHX none 0", "0", &[]);
    check(h, "LPOP a", "\"0\"", &["lpop a"]);
    check(h, "RPOP a 2", "[\"6\", \"5\"]", &["rpop a"]);
    check(h, "LSET a 0 x", "OK", &["lset a"]);
    check(h, "LINSERT a AFTER x y", "5", &["linsert a"]);
    check(h, "LINSERT a AFTER none y", "-1", &[]);
    check(h, "LREM a 0 y", "1", &["lrem a"]);
    check(h, "LREM a 0 y", "0", &[]);
    check(h, "LTRIM a 0 1", "OK", &["ltrim a"]);
    check(h, "LMOVE a b LEFT RIGHT", "\"x\"", &["rpush b", "lpop a"]);
    check(h, "LMOVE a b RIGHT LEFT", "\"2\"", &["lpush b", "rpop a", "del a"]);
    check(h, "RPOPLPUSH b b", "\"x\"", &["lpush b", "rpop b"]);
    check(h, "LMPOP 2 a b LEFT COUNT 9", "[\"b\", [\"x\", \"2\"]]", &["lpop b", "del b"]);
    check(h, "RPUSH a 1", "1", &["rpush a"]);
    check(h, "BRPOP a 0", "[\"a\", \"1\"]", &["rpop a", "del a"]);
    check(h, "RPUSH a 1", "1", &["rpush a"]);
    check(h, "LTRIM a 5 9", "OK", &["ltrim a", "del a"]);
    check(h, "RPUSH a 1 1", "2", &["rpush a"]);
    check(h, "LREM a -9 1", "2", &["lrem a", "del a"]);
}

#[test]
fn nothing_to_pop_is_a_wish_to_wait() {
    let h = &mut Harness::new();
    for (line, keys, timeout_ms) in [
        ("BLPOP a b 0", &["a", "b"][..], None),
        ("BRPOP a 1.5", &["a"], Some(1500)),
        ("BLMPOP 0.0001 2 b a RIGHT", &["b", "a"], Some(1)),
        ("BLMOVE a b LEFT RIGHT 2", &["a"], Some(2000)),
        ("BRPOPLPUSH a b 0", &["a"], None),
    ] {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert_eq!(h.run_bytes(&argv), None, "{line}");
        let block = h.blocked.take().expect(line);
        let waits_on: Vec<_> = block.keys.iter().map(|k| String::from_utf8_lossy(k)).collect();
        assert_eq!(waits_on, keys, "{line}");
        assert_eq!(block.timeout_ms, timeout_ms, "{line}");
        assert_eq!(block.wait_for, WaitFor::List);
        assert_eq!(block.on_timeout, TimeoutReply::NullArray);
    }
}

#[test]
fn where_waiting_is_impossible_the_reply_is_a_null() {
    let h = &mut Harness::new();
    h.can_block = false;
    for (line, reply) in [
        ("BLPOP a 0", Frame::NullArray),
        ("BRPOP a 0", Frame::NullArray),
        ("BLMPOP 0 1 a LEFT", Frame::NullArray),
        ("BLMOVE a b LEFT RIGHT 0", Frame::Null),
        ("BRPOPLPUSH a b 0", Frame::Null),
    ] {
        assert_eq!(h.line(line), reply, "{line}");
        assert_eq!(h.blocked, None, "{line}");
    }
}

#[test]
fn timeouts_have_their_own_errors() {
    let h = &mut Harness::new();
    for (timeout, error) in [
        ("-1", "!ERR timeout is negative"),
        ("x", "!ERR timeout is not a float or out of range"),
        ("9223372036854775807", "!ERR timeout is out of range"),
        ("inf", "!ERR timeout is out of range"),
    ] {
        assert_eq!(text(&h.run(&["BLPOP", "a", timeout])), error);
        assert_eq!(text(&h.run(&["BLMOVE", "a", "b", "LEFT", "LEFT", timeout])), error);
    }
}

#[test]
fn ranks_below_the_range_are_refused() {
    let h = &mut Harness::new();
    assert_eq!(
        text(&h.line("LPOS a x RANK -9223372036854775808")),
        "!ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
    );
}

/// LREM has three ways: one by one, a rewritten list, and the whole key.
#[test]
fn lrem_removes_the_same_however_many_there_are() {
    let mut rng = SeededRng::new(3);
    for len in [1, 63, 64, 65, 200, 3000] {
        for share in [1, 2, 9, 100] {
            for count in [0i64, 1, -1, 70, -70, 100_000, -100_000] {
                let h = &mut Harness::new();
                let mut model: Vec<String> = (0..len)
                    .map(|n| if rng.below(share) == 0 { "x".to_owned() } else { n.to_string() })
                    .collect();
                let mut push = vec!["RPUSH", "k"];
                push.extend(model.iter().map(String::as_str));
                h.run(&push);
                let wanted = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
                let before = model.len();
                let mut left = wanted;
                let mut keep = |value: &String| {
                    let goes = value == "x" && left > 0;
                    left -= usize::from(goes);
                    !goes
                };
                if count >= 0 {
                    model.retain(&mut keep);
                } else {
                    model.reverse();
                    model.retain(&mut keep);
                    model.reverse();
                }
                let removed = h.run(&["LREM", "k", &count.to_string(), "x"]);
                let case = format!("{len} elements, 1 in {share}, count {count}");
                assert_eq!(removed, Frame::Integer((before - model.len()) as i64), "{case}");
                let rest = Frame::Array(model.iter().map(Frame::bulk).collect());
                assert_eq!(h.line("LRANGE k 0 -1"), rest, "{case}");
            }
        }
    }
}

#[test]
fn lrem_keeps_the_deadline_when_it_rewrites() {
    let h = &mut Harness::new();
    h.line("RPUSH k y");
    (0..100).for_each(|_| {
        h.line("RPUSH k x");
    });
    let len = h.line("LLEN k");
    assert_eq!(len, Frame::Integer(101));
    h.set_deadline("k", Some(h.now_ms + 1000));
    check(h, "LREM k 0 x", "100", &["lrem k"]);
    check(h, "LRANGE k 0 -1", "[\"y\"]", &[]);
    h.now_ms += 1000;
    check(h, "LLEN k", "0", &["expired k"]);
}

/// Random commands against a list of strings.
#[test]
fn behaves_as_a_vector() {
    for seed in 0..30 {
        let mut rng = SeededRng::new(seed);
        let h = &mut Harness::new();
        h.limits.list_max_listpack_size = [-2, 3, 1, -1][seed as usize % 4];
        let mut model: Vec<String> = Vec::new();
        for step in 0..300 {
            let value = format!("{}{}", step % 5, "v".repeat(rng.below(30) as usize));
            let at = rng.below(model.len() as u64 + 2) as i64 - 1;
            let start = at.clamp(0, model.len() as i64) as usize;
            match rng.below(9) {
                0..3 => {
                    h.run(&["RPUSH", "k", &value]);
                    model.push(value);
                }
                3 => {
                    h.run(&["LPUSH", "k", &value]);
                    model.insert(0, value);
                }
                4 => {
                    h.run(&["LPOP", "k"]);
                    model.drain(..model.len().min(1));
                }
                5 => {
                    h.run(&["RPOP", "k", "2"]);
                    model.truncate(model.len().saturating_sub(2));
                }
                6 => {
                    let reply = h.run(&["LSET", "k", &at.to_string(), &value]);
                    let index = if at < 0 { model.len().wrapping_sub(1) } else { at as usize };
                    match model.get_mut(index) {
                        Some(old) => *old = value,
                        None => assert!(matches!(reply, Frame::Error(_))),
                    }
                }
                7 => {
                    let pivot = model.get(start).cloned().unwrap_or_default();
                    h.run(&["LINSERT", "k", "BEFORE", &pivot, &value]);
                    if let Some(index) = model.iter().position(|v| *v == pivot) {
                        model.insert(index, value);
                    }
                }
                _ => {
                    h.run(&["LREM", "k", "2", &value]);
                    for _ in 0..2 {
                        if let Some(index) = model.iter().position(|v| *v == value) {
                            model.remove(index);
                        }
                    }
                }
            }
            let all = Frame::Array(model.iter().map(Frame::bulk).collect());
            assert_eq!(h.line("LRANGE k 0 -1"), all, "seed {seed}, step {step}");
            let index = rng.below(model.len() as u64 + 1) as usize;
            let expected = model.get(index).map_or(Frame::Null, Frame::bulk);
            assert_eq!(h.run(&["LINDEX", "k", &index.to_string()]), expected);
        }
    }
}
