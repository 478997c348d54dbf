//! WATCHFROM against a model: every change once, in order, over kills, slow
//! readers and clients that come back.

use std::collections::{BTreeMap, BTreeSet};

use base::{Clock, Frame, Rng, SeededRng, SystemClock};
use resp::encode_command;
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::run::wrapped;
use crate::wire::{Came, PATIENCE, Wire, eventually, text_of};

/// A change as it was told: revision, event, key, new value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub revision: u64,
    pub event: String,
    pub key: String,
    pub values: Vec<String>,
}

pub fn resp3(server: &Server) -> Wire {
    let mut wire = Wire::connect(server.addr());
    wire.call(&["HELLO", "3"]);
    wire
}

pub fn number(frame: &Frame) -> u64 {
    let Frame::Integer(number) = frame else { panic!("{frame:?} is no number") };
    u64::try_from(*number).expect("not negative")
}

/// Opens a watch; answers its id and the revision that it begins with.
pub fn watch(wire: &mut Wire, words: &[&str]) -> (u64, u64) {
    let Frame::Array(items) = wire.call(words) else { panic!("{words:?} is refused") };
    (number(&items[0]), number(&items[1]))
}

/// What a push says; `None` for one that is no change.
pub fn told(frame: &Frame, id: u64) -> Option<Told> {
    let (Frame::Push(items) | Frame::Array(items)) = frame else { panic!("{frame:?}") };
    assert_eq!(number(&items[1]), id, "{frame:?}");
    if text_of(items[0].clone()) != "change" {
        return None;
    }
    Some(Told {
        revision: number(&items[2]),
        event: text_of(items[4].clone()),
        key: text_of(items[5].clone()),
        values: items[7..].iter().cloned().map(text_of).collect(),
    })
}

/// The next changes of the only watch of a connection.
pub fn take(wire: &mut Wire, id: u64, count: usize) -> Vec<Told> {
    (0..count).map(|_| told(&wire.frame(), id).expect("only changes are asked for")).collect()
}

/// Rows of CHANGES as a watch without values tells them.
pub fn by_changes(wire: &mut Wire, from: u64) -> Vec<Told> {
    let from = format!("r:{from}");
    let Frame::Array(rows) = wire.call(&["CHANGES", "FROM", &from, "COUNT", "1000000"]) else {
        panic!("CHANGES is refused")
    };
    let row = |row: Frame| {
        let Frame::Array(items) = row else { panic!("{row:?}") };
        let event = match text_of(items[6].clone()).as_str() {
            cause @ ("expire" | "evict") => cause.to_owned(),
            _ => text_of(items[7].clone()),
        };
        let (revision, key) = (number(&items[0]), text_of(items[2].clone()));
        Told { revision, event, key, values: Vec::new() }
    };
    rows.into_iter().map(row).collect()
}

/// Sends commands of all kinds without waiting for replies; answers how many
/// replies there will be.
fn scribble(rng: &mut SeededRng, out: &mut Vec<u8>) -> usize {
    let key = |rng: &mut SeededRng| format!("k:{}", rng.below(40));
    let (a, b, n) = (key(rng), key(rng), rng.next_u64().to_string());
    let commands: Vec<Vec<&str>> = match rng.below(12) {
        0 | 1 => vec![vec!["SET", &a, &n]],
        2 => vec![vec!["HSET", &a, "f", &n]],
        3 => vec![vec!["RPUSH", &a, &n]],
        4 => vec![vec!["DEL", &a, &b]],
        5 => vec![vec!["RENAME", &a, &b]],
        6 => vec![vec!["SET", &a, &n, "PX", "20"]],
        7 => vec![vec!["PEXPIRE", &a, "15"]],
        8 => vec![
            vec!["MULTI"],
            vec!["SET", &a, &n],
            vec!["SADD", &b, &n],
            vec!["DEL", &a],
            vec!["EXEC"],
        ],
        9 => vec![vec!["MSET", &a, &n, &b, &n]],
        10 if rng.below(10) == 0 => vec![vec!["FLUSHDB"]],
        10 if rng.below(10) == 0 => vec![vec!["SWAPDB", "0", "1"]],
        _ => vec![vec!["APPEND", &a, "x"]],
    };
    commands.iter().for_each(|command| encode_command(out, command));
    commands.len()
}

/// Runs so many random commands, in pipelines.
fn scribble_many(wire: &mut Wire, rng: &mut SeededRng, count: usize) {
    let mut left = count;
    while left > 0 {
        let batch = left.min(50);
        let (mut bytes, mut replies) = (Vec::new(), 0);
        (0..batch).for_each(|_| replies += scribble(rng, &mut bytes));
        assert!(wire.raw(&bytes), "the server closed the connection");
        (0..replies).for_each(|_| drop(wire.frame()));
        left -= batch;
    }
}

#[test]
fn a_watch_tells_what_changes_tells() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut rng = SeededRng::new(11);
    let (mut writer, mut early) = (resp3(&server), resp3(&server));
    let (id, first) = watch(&mut early, &["WATCHFROM", "r:1"]);
    scribble_many(&mut writer, &mut rng, 3000);
    // How many of the keys above expire depends on the machine; this one does.
    writer.call(&["SET", "k:1soon", "v", "PX", "1"]);
    let has_expired = |told: &Told| told.event == "expire" && told.key == "k:1soon";
    eventually("the key expires", || by_changes(&mut writer, first).iter().any(has_expired));
    let expected = by_changes(&mut writer, first);
    assert!(expected.len() > 2000, "{}", expected.len());
    assert_eq!(take(&mut early, id, expected.len()), expected);
    // Whoever comes later hears the same, from anywhere.
    for from in [1, 2, expected[expected.len() / 2].revision] {
        let mut late = resp3(&server);
        let (id, _) = watch(&mut late, &["WATCHFROM", &format!("r:{from}")]);
        let rest: Vec<Told> =
            expected.iter().filter(|told| told.revision >= from).cloned().collect();
        assert_eq!(take(&mut late, id, rest.len()), rest, "from {from}");
    }
    let mut some = resp3(&server);
    let (id, _) =
        watch(&mut some, &["WATCHFROM", "r:1", "MATCH", "k:1*", "EVENTS", "set", "expire"]);
    let is_wanted = |told: &&Told| {
        told.key.starts_with("k:1") && ["set", "expire"].contains(&told.event.as_str())
    };
    let rest: Vec<Told> = expected.iter().filter(is_wanted).cloned().collect();
    assert!(rest.iter().any(has_expired));
    assert_eq!(take(&mut some, id, rest.len()), rest);
}

#[test]
fn values_are_those_before_and_after() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut rng = SeededRng::new(12);
    let (mut writer, mut live) = (resp3(&server), resp3(&server));
    let (id, _) = watch(&mut live, &["WATCHFROM", "NOW", "PREFIX", "k:", "OLD", "NEW"]);
    scribble_many(&mut writer, &mut rng, 400);
    let count = by_changes(&mut writer, 1).len();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut is_sure = BTreeSet::new();
    let live_told = take(&mut live, id, count);
    for told in &live_told {
        let [old, new] = &told.values[..] else { panic!("{told:?}") };
        if told.key == "(nil)" {
            // Nobody says what each key was then.
            is_sure.clear();
            values.clear();
            continue;
        }
        if is_sure.contains(&told.key) {
            let known = values.get(&told.key).map_or("(nil)", String::as_str);
            assert_eq!(old, known, "{told:?}");
        }
        if matches!(told.event.as_str(), "removed" | "expire") {
            assert_eq!(new, "(nil)", "{told:?}");
        }
        is_sure.insert(told.key.clone());
        values.insert(told.key.clone(), new.clone());
    }
    // The past tells the same as the present did.
    let mut late = resp3(&server);
    let (id, _) = watch(&mut late, &["WATCHFROM", "r:1", "PREFIX", "k:", "OLD", "NEW"]);
    assert_eq!(take(&mut late, id, count), live_told);
}

#[test]
fn what_a_write_finds_to_be_due_is_told_before_it() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut all, mut only) = (resp3(&server), resp3(&server), resp3(&server));
    writer.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    let words = ["WATCHFROM", "NOW", "KEY", "k", "OLD", "NEW"];
    let (of_all, _) = watch(&mut all, &words);
    let (of_only, _) = watch(&mut only, &[&words[..], &["EVENTS", "expire"]].concat());
    for line in [
        "SET k 2",
        "INCR k",
        "HSET k f 1",
        "SADD k m",
        "RENAME src k",
        "COPY src k REPLACE",
        "MSET other 1 k 2",
        "EXEC",
        "UNDELETE k",
    ] {
        writer.call(&["SET", "src", "7"]);
        writer.call(&["SET", "k", "login", "PX", "5"]);
        let Frame::Integer(due) = writer.call(&["PEXPIRETIME", "k"]) else { panic!("{line}") };
        eventually("it is due", || i64::try_from(SystemClock.now_ms()).expect("in range") > due);
        if line == "EXEC" {
            for line in ["MULTI", "SET other 2", "SET k 3"] {
                writer.call(&line.split(' ').collect::<Vec<_>>());
            }
        }
        writer.call(&line.split(' ').collect::<Vec<_>>());
        let new = match writer.text(&["TYPE", "k"]).as_str() {
            "string" => writer.text(&["GET", "k"]),
            "hash" => text_of(writer.call(&["HGETALL", "k"])),
            _ => text_of(writer.call(&["SMEMBERS", "k"])),
        };
        let told = take(&mut all, of_all, 3);
        let seen: Vec<(&str, &[String])> =
            told[1..].iter().map(|told| (told.event.as_str(), &told.values[..])).collect();
        let (nil, old) = ("(nil)".to_owned(), "login".to_owned());
        let event =
            if matches!(line, "INCR k" | "HSET k f 1" | "SADD k m") { "changed" } else { "set" };
        assert_eq!(seen, [("expire", &[old, nil.clone()][..]), (event, &[nil, new][..])], "{line}");
        assert_eq!(told[2].revision, told[1].revision + 1, "{line}");
        assert_eq!(take(&mut only, of_only, 1), told[1..2], "{line}");
        writer.call(&["DEL", "k"]);
        assert_eq!(take(&mut all, of_all, 1)[0].event, "removed", "{line}");
    }
}

#[test]
fn each_change_once_over_kills() {
    each_once_over_kills("always");
}

/// What is told outlives the process though no sync covers it.
#[test]
fn each_change_once_over_kills_without_syncs() {
    each_once_over_kills("no");
}

fn each_once_over_kills(fsync: &str) {
    let mut server = Server::start(ALCID, &["--aof-fsync", fsync]);
    let mut rng = SeededRng::new(13);
    let (mut seen, mut next) = (Vec::<Told>::new(), 1);
    for round in 0..4 {
        let mut watcher = resp3(&server);
        let (id, _) = watch(&mut watcher, &["WATCHFROM", &format!("r:{next}")]);
        // What was told of that revision is told again: a client that was cut
        // off within it knows which of it it has.
        let again: Vec<Told> = seen.iter().filter(|told| told.revision >= next).cloned().collect();
        assert_eq!(take(&mut watcher, id, again.len()), again, "round {round}");
        let addr = server.addr();
        let seed = rng.next_u64();
        let writing = std::thread::spawn(move || {
            let (mut wire, mut rng) = (Wire::connect(addr), SeededRng::new(seed));
            loop {
                let (mut bytes, mut replies) = (Vec::new(), 0);
                (0..5).for_each(|_| replies += scribble(&mut rng, &mut bytes));
                if !wire.raw(&bytes) {
                    return;
                }
                for _ in 0..replies {
                    if !matches!(wire.read(PATIENCE), Came::Frame(_)) {
                        return;
                    }
                }
            }
        });
        let count = 200 + rng.below(400) as usize;
        let mut got = take(&mut watcher, id, count);
        server.kill();
        // What was on its way is still good.
        while let Came::Frame(frame) = watcher.read(PATIENCE) {
            got.extend(told(&frame, id));
        }
        writing.join().expect("the writer ends with the server");
        seen.extend(got);
        next = seen.last().map_or(1, |told| told.revision);
        server.restart();
    }
    let mut watcher = resp3(&server);
    let (id, _) = watch(&mut watcher, &["WATCHFROM", &format!("r:{next}")]);
    let expected = by_changes(&mut resp3(&server), 1);
    let known = seen.iter().filter(|told| told.revision >= next).count();
    seen.truncate(seen.len() - known);
    let rest = expected.len() - seen.len();
    seen.extend(take(&mut watcher, id, rest));
    assert_eq!(seen, expected);
}

/// A figure of `INFO clients`.
pub fn figure(wire: &mut Wire, name: &str) -> u64 {
    let text = wire.text(&["INFO", "clients"]);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.expect("INFO has it").parse().expect("a number")
}

/// Bytes that the server holds for a client.
fn held_for(wire: &mut Wire, client: &str) -> u64 {
    let held = wire.text(&["CLIENT", "LIST", "ID", client]);
    let fields = held.split(' ').map(str::trim);
    fields
        .filter_map(|field| field.strip_prefix("tot-mem=").or(field.strip_prefix("omem=")))
        .map(|bytes| bytes.parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn many_watches_behind_of_one_slow_reader_cost_little_together() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut slow) = (resp3(&server), resp3(&server));
    let client = slow.text(&["CLIENT", "ID"]);
    let (count, watches) = (300, 100);
    for n in 0..count {
        writer.call(&["SET", "k", &format!("{n}-{}", "x".repeat(2000))]);
    }
    // At one go: once its socket is full no command of it is read any more.
    slow.raw("WATCHFROM r:1 NEW\r\n".repeat(watches as usize).as_bytes());
    eventually("they are open", || figure(&mut writer, "watches") == watches);
    let mut most = 0;
    eventually("much waits", || {
        most = most.max(held_for(&mut writer, &client));
        most >= 200_000
    });
    most = most.max(held_for(&mut writer, &client));
    assert!(most < 8 << 20, "{most} bytes wait for it");
    // Replies stand between what the first ones are told.
    let mut heard: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..watches * (count + 1) {
        let frame = slow.frame();
        let Frame::Push(items) = &frame else { continue };
        let next = heard.entry(number(&items[1])).or_default();
        let value = text_of(items[7].clone());
        assert_eq!(value.split('-').next(), Some(next.to_string().as_str()));
        *next += 1;
    }
    assert!(heard.len() as u64 == watches && heard.values().all(|&next| next == count));
    eventually("they have caught up", || figure(&mut writer, "watches_behind") == 0);
}

#[test]
fn values_that_take_long_hold_up_nobody_else() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut writer = resp3(&server);
    // Counters, of which a value of the past is costly, alone and in
    // transactions.
    let (alone, together, counters) = (6000, 50, 4);
    let batch: String = (0..alone).map(|n| format!("INCR hot:{}\r\n", n % counters)).collect();
    assert!(writer.raw(batch.as_bytes()));
    (0..alone).for_each(|_| drop(writer.frame()));
    for _ in 0..together {
        writer.call(&["MULTI"]);
        (0..counters).for_each(|n| drop(writer.call(&["INCR", &format!("hot:{n}")])));
        writer.call(&["EXEC"]);
    }
    let count = alone + together * counters;
    let (mut live, mut plain) = (resp3(&server), resp3(&server));
    let (live_id, _) = watch(&mut live, &["WATCHFROM", "NOW", "KEY", "hash", "NEW"]);
    let mut behind: Vec<(Wire, u64)> = (0..2)
        .map(|_| {
            let mut wire = resp3(&server);
            let words = ["WATCHFROM", "r:1", "PREFIX", "hot:", "EVENTS", "set", "changed"];
            let (id, _) = watch(&mut wire, &[&words[..], &["OLD", "NEW"]].concat());
            (wire, id)
        })
        .collect();
    let words = ["WATCHFROM", "r:1", "PREFIX", "hot:", "EVENTS", "set", "changed"];
    let (plain_id, _) = watch(&mut plain, &words);
    let began_ns = SystemClock.monotonic_ns();
    for n in 0..20 {
        writer.call(&["HSET", "hash", "f", &n.to_string()]);
        let change = told(&live.frame(), live_id).expect("a change");
        assert_eq!(change.key, "hash");
        let value = Frame::Map(vec![(Frame::bulk("f"), Frame::bulk(n.to_string()))]);
        assert_eq!(change.values, [text_of(value)]);
    }
    let of_live_ns = SystemClock.monotonic_ns() - began_ns;
    let all = take(&mut plain, plain_id, count);
    let of_plain_ns = SystemClock.monotonic_ns() - began_ns;
    for (wire, id) in &mut behind {
        let mut counts = vec![0_u64; counters];
        for expected in &all {
            let change = told(&wire.frame(), *id).expect("a change");
            assert_eq!((change.revision, &change.key), (expected.revision, &expected.key));
            let number: usize = change.key["hot:".len()..].parse().expect("a number");
            let before = counts[number];
            let old = if before == 0 { "(nil)".to_owned() } else { before.to_string() };
            assert_eq!(change.values, [old, (before + 1).to_string()], "{change:?}");
            counts[number] += 1;
        }
    }
    let of_behind_ns = SystemClock.monotonic_ns() - began_ns;
    // Where values are not costly there is nobody to wait for.
    if of_behind_ns > 10_000_000_000 {
        let first = of_live_ns.max(of_plain_ns);
        assert!(first < of_behind_ns / 2, "{first} of {of_behind_ns} ns");
    }
    eventually("they have caught up", || figure(&mut writer, "watches_behind") == 0);
}

#[test]
fn a_slow_reader_loses_nothing_and_costs_little() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut slow) = (resp3(&server), resp3(&server));
    let client = slow.text(&["CLIENT", "ID"]);
    let (id, _) = watch(&mut slow, &["WATCHFROM", "NOW", "KEY", "k", "NEW", "OLD"]);
    let (a, _) = watch(&mut writer, &["WATCHFROM", "NOW", "KEY", "other"]);
    // Much more than all buffers on the way hold.
    let (count, len) = (400_u64, 200_000);
    for n in 0..count {
        let value = format!("{n}-{}", "x".repeat(len));
        writer.call(&["SET", "k", &value]);
    }
    let behind = figure(&mut writer, "watch_lag_revisions");
    assert!(behind > 100, "it is behind: {behind}");
    assert_eq!(figure(&mut writer, "watches_behind"), 1);
    let mut most = 0;
    eventually("much waits", || {
        most = most.max(held_for(&mut writer, &client));
        most >= 200_000
    });
    assert!(most < 8 << 20, "{most} bytes wait for it");
    // Another watch of the server goes on meanwhile.
    writer.send(&["SET", "other", "1"]);
    let frames = [writer.frame(), writer.frame()];
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Push(_))), "{a} {frames:?}");
    for n in 0..count {
        let change = told(&slow.frame(), id).expect("a change");
        let old = n.checked_sub(1).map_or("(nil)".to_owned(), |n| n.to_string());
        let begins: Vec<&str> =
            change.values.iter().map(|value| value.split('-').next().expect("one")).collect();
        assert_eq!(begins, [old.as_str(), n.to_string().as_str()]);
    }
    eventually("it has caught up", || figure(&mut writer, "watches_behind") == 0);
}

#[test]
fn a_purge_waits_for_no_watch_and_takes_nothing_else_from_it() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut slow) = (resp3(&server), resp3(&server));
    let (id, first) = watch(&mut slow, &["WATCHFROM", "NOW", "NEW"]);
    let count = 400;
    for n in 0..count {
        writer.call(&["SET", "secret", &format!("Zaphod{n}")]);
        writer.call(&["SET", "k", &format!("{n}-{}", "x".repeat(100_000))]);
    }
    assert_eq!(figure(&mut writer, "watches_behind"), 1);
    // The log that the watch has yet to read is written anew, twice.
    assert_eq!(writer.call(&["HISTORY.PURGE", "secret", "CONFIRM"]), Frame::Integer(count));
    let (again, _) = watch(&mut writer, &["WATCHFROM", &format!("r:{first}"), "KEY", "none"]);
    assert_eq!(writer.call(&["HISTORY.PURGE", "none", "CONFIRM"]), Frame::Integer(0));
    assert_eq!(writer.text(&["SET", "secret", "end"]), "OK");
    let (mut numbers, mut secrets) = (Vec::new(), Vec::new());
    while secrets.last().is_none_or(|value| value != "end") {
        let change = told(&slow.frame(), id).expect("a change");
        match change.key.as_str() {
            "k" => numbers.push(change.values[0].split('-').next().expect("one").to_owned()),
            _ => secrets.push(change.values[0].clone()),
        }
    }
    assert!(numbers.into_iter().eq((0..count).map(|n| n.to_string())), "each once, in order");
    // What it was told before, then what the key was at the purge.
    let (last, before) = secrets[..secrets.len() - 1].split_last().expect("the purge");
    assert_eq!(last, &format!("Zaphod{}", count - 1));
    assert!(before.len() < count as usize, "the rest is erased");
    assert!(
        before
            .iter()
            .eq((0..before.len()).map(|n| format!("Zaphod{n}")).collect::<Vec<_>>().iter())
    );
    eventually("it has caught up", || figure(&mut writer, "watches_behind") == 0);
    assert_eq!(writer.text(&["UNWATCHFROM", &again.to_string()]), "1");
}

#[test]
fn a_transaction_larger_than_what_may_wait_is_told_whole() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut slow) = (resp3(&server), resp3(&server));
    let (id, first) = watch(&mut slow, &["WATCHFROM", "NOW"]);
    let long = "k".repeat(20_000);
    let keys: Vec<String> = (0..1500).map(|n| format!("{n}-{long}")).collect();
    let mut words = vec!["MSET"];
    keys.iter().for_each(|key| words.extend([key.as_str(), "v"]));
    assert_eq!(writer.text(&words), "OK");
    eventually("it waits within the revision", || figure(&mut writer, "watches_behind") == 1);
    assert_eq!(writer.text(&["SET", "after", "v"]), "OK");
    let got = take(&mut slow, id, keys.len() + 1);
    let (last, all) = got.split_last().expect("some");
    assert_eq!((last.revision, last.key.as_str()), (first + 1, "after"));
    assert!(all.iter().all(|told| told.revision == first));
    assert!(all.iter().map(|told| &told.key).eq(&keys), "each key once, in order");
}

#[test]
fn many_watches_each_hear_their_own() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut writer = resp3(&server);
    let mut watchers: Vec<Wire> = (0..10).map(|_| resp3(&server)).collect();
    let mut ids = BTreeMap::new();
    for n in 0..1000_usize {
        let wire = &mut watchers[n % 10];
        let key = format!("key:{n}");
        let (id, _) = match n % 3 {
            0 => watch(wire, &["WATCHFROM", "NOW", "KEY", &key, "NEW"]),
            1 => watch(wire, &["WATCHFROM", "NOW", "PREFIX", &format!("{key}:"), "NEW"]),
            _ => watch(wire, &["WATCHFROM", "NOW", "MATCH", &format!("?ey:{n}:"), "NEW"]),
        };
        ids.insert(id, n);
    }
    assert_eq!(figure(&mut writer, "watches"), 1000);
    for n in 0..1000_usize {
        let key = if n % 3 == 0 { format!("key:{n}") } else { format!("key:{n}:") };
        writer.call(&["SET", &key, &n.to_string()]);
    }
    let mut heard = BTreeSet::new();
    for (place, wire) in watchers.iter_mut().enumerate() {
        for _ in 0..100 {
            let frame = wire.frame();
            let Frame::Push(items) = &frame else { panic!("{frame:?}") };
            let n = ids[&number(&items[1])];
            assert_eq!(text_of(items[7].clone()), n.to_string());
            assert_eq!(n % 10, place);
            assert!(heard.insert(n), "{n} is told twice");
        }
    }
    assert_eq!(heard.len(), 1000);
    drop(watchers);
    eventually("watches end with their clients", || figure(&mut writer, "watches") == 0);
}

#[test]
fn without_history_a_watch_follows_the_log() {
    let folder = temp_dir();
    let program = wrapped(folder.path(), "ALCID_STORAGE_HISTORY_KEEP=0 exec");
    let server = Server::start(program, &["--aof-fsync", "no"]);
    let (mut writer, mut live) = (resp3(&server), resp3(&server));
    let (id, first) = watch(&mut live, &["WATCHFROM", "NOW"]);
    assert_eq!(first, 1);
    writer.call(&["SET", "a", "1"]);
    writer.call(&["SET", "b", "1"]);
    let keys: Vec<String> = take(&mut live, id, 2).into_iter().map(|told| told.key).collect();
    assert_eq!(keys, ["a", "b"]);
    let mut late = resp3(&server);
    let (id, _) = watch(&mut late, &["WATCHFROM", "r:2"]);
    assert_eq!(take(&mut late, id, 1)[0].key, "b");
    for words in [&["WATCHFROM", "NOW", "OLD"][..], &["WATCHFROM", "-1s"]] {
        let text = text_of(late.call(words));
        assert!(text.starts_with("ERR no history is kept"), "{words:?}: {text}");
    }
}

/// A server without history whose log is cut into small pieces and goes soon.
fn forgetful(setting: &str) -> Server {
    let folder = temp_dir();
    let small = "ALCID_STORAGE_HISTORY_KEEP=0 ALCID_STORAGE_LOG_SEGMENT_SIZE=1mb ALCID_STORAGE_ARCHIVE_LAG=1mb";
    let program = wrapped(folder.path(), &format!("{small} {setting} exec"));
    Server::start(program, &["--aof-fsync", "no"])
}

#[test]
fn the_log_is_held_for_who_is_behind() {
    let server = forgetful("");
    let (mut writer, mut slow) = (resp3(&server), resp3(&server));
    let (id, first) = watch(&mut slow, &["WATCHFROM", "NOW"]);
    let long = "k".repeat(50_000);
    let count = 1000_u64;
    for n in 0..count {
        writer.call(&["SET", &format!("{n}-{long}"), "v"]);
    }
    assert!(figure(&mut writer, "watch_lag_revisions") > 100);
    writer.call(&["SAVE"]);
    let held = writer.text(&["INFO", "persistence"]);
    assert!(held.contains("watch>"), "{held}");
    for n in 0..count {
        let change = told(&slow.frame(), id).expect("a change");
        assert_eq!(change.revision, first + n);
        assert!(change.key.starts_with(&format!("{n}-")));
    }
    drop(slow);
    eventually("nothing is held for those who left", || {
        !writer.text(&["INFO", "persistence"]).contains("watch>")
    });
}

#[test]
fn who_falls_behind_what_is_held_is_told_so() {
    let server = forgetful("ALCID_STORAGE_WATCH_LOG_SIZE=1mb");
    let (mut writer, mut slow) = (resp3(&server), resp3(&server));
    let (id, first) = watch(&mut slow, &["WATCHFROM", "NOW"]);
    let long = "k".repeat(50_000);
    let mut n = 0_u64;
    eventually("the watch is closed", || {
        for _ in 0..50 {
            writer.call(&["SET", &format!("{n}-{long}"), "v"]);
            n += 1;
        }
        writer.call(&["SAVE"]);
        figure(&mut writer, "watches") == 0
    });
    // What was on its way comes, whole and in order; then the end.
    let mut next = first;
    let last = loop {
        let frame = slow.frame();
        match told(&frame, id) {
            Some(change) => {
                assert_eq!(change.revision, next);
                next += 1;
            }
            None => break frame,
        }
    };
    let Frame::Push(items) = last else { panic!("{last:?}") };
    assert_eq!(text_of(items[0].clone()), "closed");
    let why = text_of(items[2].clone());
    assert!(why.starts_with(&format!("COMPACTED revision {next} is older than")), "{why}");
    // The connection goes on.
    let (id, first) = watch(&mut slow, &["WATCHFROM", "NOW"]);
    writer.call(&["SET", "after", "1"]);
    assert_eq!(take(&mut slow, id, 1)[0].revision, first);
    let refused = text_of(slow.call(&["WATCHFROM", "r:1"]));
    assert!(
        refused.starts_with("COMPACTED revision 1 is older than the oldest kept, "),
        "{refused}"
    );
}

#[test]
fn a_killed_client_hears_nothing_more() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut live) = (resp3(&server), resp3(&server));
    let client = live.text(&["CLIENT", "ID"]);
    watch(&mut live, &["WATCHFROM", "NOW", "PROGRESS", "100ms"]);
    assert_eq!(writer.call(&["CLIENT", "KILL", "ID", &client]), Frame::Integer(1));
    assert!(live.ends(), "the server closes the connection");
    eventually("its watch has ended", || figure(&mut writer, "watches") == 0);
}

#[test]
fn without_a_log_there_is_nothing_to_watch() {
    let folder = temp_dir();
    let program = wrapped(folder.path(), "ALCID_STORAGE_AOF_ENABLED=false exec");
    let server = Server::start(program, &[]);
    let text = resp3(&server).text(&["WATCHFROM", "NOW"]);
    assert_eq!(text, "ERR there is no log to watch; start with storage.aof_enabled = true");
}

/// An invalidation: its keys, `None` for all of them, and its revision.
pub fn invalidation(frame: &Frame) -> (Option<Vec<String>>, u64) {
    let Frame::Push(items) = frame else { panic!("{frame:?} is no push") };
    assert_eq!(text_of(items[0].clone()), "invalidate", "{frame:?}");
    let keys = match &items[1] {
        Frame::Null => None,
        Frame::Array(keys) => Some(keys.iter().cloned().map(text_of).collect()),
        other => panic!("{other:?}"),
    };
    (keys, number(&items[2]))
}

/// Tracks from somewhere; answers what came first.
fn track(wire: &mut Wire, words: &[&str]) -> (Option<Vec<String>>, u64) {
    let words: Vec<&str> =
        ["CLIENT", "TRACKING", "ON", "BCAST"].iter().chain(words).copied().collect();
    wire.send(&words);
    let mut frames = [wire.frame(), wire.frame()];
    frames.sort_by_key(|frame| matches!(frame, Frame::Push(_)));
    assert_eq!(text_of(frames[0].clone()), "OK");
    invalidation(&frames[1])
}

fn some(keys: &[&str]) -> Option<Vec<String>> {
    Some(keys.iter().map(|&key| key.to_owned()).collect())
}

#[test]
fn tracking_goes_on_from_a_revision() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut cache) = (resp3(&server), resp3(&server));
    writer.call(&["SET", "user:1", "a"]);
    let (keys, now) = track(&mut cache, &["PREFIX", "user:", "PREFIX", "team:", "FROM", "NOW"]);
    assert_eq!(keys, some(&[]), "nothing is to be forgotten");
    writer.call(&["SET", "user:1", "b"]);
    writer.call(&["SET", "other", "b"]);
    writer.call(&["MSET", "team:1", "c", "user:2", "c", "x", "c"]);
    // Keys are told whatever their database.
    writer.call(&["SELECT", "3"]);
    writer.call(&["SET", "user:3", "d"]);
    assert_eq!(invalidation(&cache.frame()), (some(&["user:1"]), now + 1));
    assert_eq!(invalidation(&cache.frame()), (some(&["team:1", "user:2"]), now + 3));
    assert_eq!(invalidation(&cache.frame()), (some(&["user:3"]), now + 4));
    let Frame::Map(info) = cache.call(&["CLIENT", "TRACKINGINFO"]) else { panic!("no map") };
    let Frame::Set(flags) = &info[0].1 else { panic!("{info:?}") };
    let flags: Vec<String> = flags.iter().cloned().map(text_of).collect();
    assert_eq!(flags, ["on", "bcast", "from"]);
    assert_eq!(figure(&mut writer, "tracking_clients"), 1);
    drop(cache);
    // What happens while it is away, in whatever way.
    writer.call(&["SELECT", "0"]);
    writer.call(&["DEL", "user:2"]);
    writer.call(&["RENAME", "team:1", "user:9"]);
    writer.call(&["FLUSHDB"]);
    let mut cache = resp3(&server);
    let from = format!("r:{}", now + 4);
    let (keys, at) = track(&mut cache, &["PREFIX", "user:", "PREFIX", "team:", "FROM", &from]);
    assert_eq!((keys, at), (some(&[]), now + 3));
    assert_eq!(invalidation(&cache.frame()), (some(&["user:3"]), now + 4));
    assert_eq!(invalidation(&cache.frame()), (some(&["user:2"]), now + 5));
    assert_eq!(invalidation(&cache.frame()), (some(&["team:1", "user:9"]), now + 6));
    assert_eq!(invalidation(&cache.frame()), (None, now + 7));
    // It is no watch that UNWATCHFROM knows; OFF ends it.
    assert_eq!(cache.text(&["UNWATCHFROM", "ALL"]), "0");
    assert_eq!(figure(&mut writer, "watches"), 1);
    assert_eq!(cache.text(&["CLIENT", "TRACKING", "OFF"]), "OK");
    assert_eq!(figure(&mut writer, "watches"), 0);
    writer.call(&["SET", "user:1", "e"]);
    assert_eq!(cache.text(&["GET", "user:1"]), "e", "and no push before it");
}

#[test]
fn tracking_that_cannot_go_on_forgets_everything() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut cache) = (resp3(&server), resp3(&server));
    writer.call(&["SET", "k", "a"]);
    let newest = number(&writer.call(&["LASTREV"]));
    // From a server that lost its last second.
    let ahead = format!("r:{}", newest + 1000);
    assert_eq!(track(&mut cache, &["FROM", &ahead]), (None, newest));
    writer.call(&["SET", "k", "b"]);
    assert_eq!(invalidation(&cache.frame()), (some(&["k"]), newest + 1));
    // From one whose history no longer reaches so far.
    for n in 0..100 {
        writer.call(&["SET", &format!("k:{n}"), "c"]);
    }
    (0..100).for_each(|_| drop(cache.frame()));
    eventually("the history is let go of", || {
        writer.call(&["SAVE"]);
        writer.call(&["HISTORY.COMPACT"]);
        writer.text(&["AT", "r:2", "GET", "k"]).starts_with("COMPACTED")
    });
    let mut late = resp3(&server);
    let (keys, from) = track(&mut late, &["FROM", "r:1"]);
    assert!(keys.is_none() && from > newest, "{from}");
    writer.call(&["SET", "k", "d"]);
    assert_eq!(invalidation(&late.frame()).0, some(&["k"]));
}

#[test]
fn tracking_ends_with_its_branch() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut writer, mut cache) = (resp3(&server), resp3(&server));
    writer.call(&["SET", "k", "a"]);
    writer.call(&["BRANCH", "CREATE", "dev"]);
    cache.call(&["BRANCH", "USE", "dev"]);
    // The branch's line begins with its parent's.
    assert_eq!(track(&mut cache, &["FROM", "r:1"]).0, some(&[]));
    assert_eq!(invalidation(&cache.frame()), (some(&["k"]), 1));
    let refused = cache.text(&["BRANCH", "USE", "main"]);
    assert!(refused.starts_with("ERR this connection tracks keys of its branch"), "{refused}");
    writer.call(&["SET", "k", "b"]);
    writer.call(&["BRANCH", "DELETE", "dev", "FORCE"]);
    assert_eq!(invalidation(&cache.frame()).0, None);
    assert_eq!(figure(&mut writer, "watches"), 0);
    assert_eq!(cache.text(&["CLIENT", "TRACKING", "OFF"]), "OK");
    assert_eq!(cache.text(&["BRANCH", "USE", "main"]), "OK");
}

#[test]
fn tracking_from_is_refused_where_it_cannot_be() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut wire = Wire::connect(server.addr());
    let refused = |wire: &mut Wire, words: &[&str], why: &str| {
        let words: Vec<&str> = ["CLIENT", "TRACKING", "ON"].iter().chain(words).copied().collect();
        let answer = wire.text(&words);
        assert!(answer.starts_with(why), "{words:?}: {answer}");
    };
    refused(&mut wire, &["BCAST", "FROM", "NOW"], "ERR FROM needs RESP3");
    wire.call(&["HELLO", "3"]);
    refused(&mut wire, &["FROM", "NOW"], "ERR FROM needs BCAST");
    refused(&mut wire, &["BCAST", "NOLOOP", "FROM", "NOW"], "ERR FROM tells this connection");
    refused(&mut wire, &["BCAST", "FROM", "soon"], "ERR 'soon' is no point in time");
    refused(&mut wire, &["BCAST", "FROM"], "ERR syntax error");
    assert_eq!(wire.text(&["CLIENT", "TRACKING", "ON", "BCAST"]), "OK");
    refused(&mut wire, &["BCAST", "FROM", "NOW"], "ERR FROM begins a new order of things");
    wire.call(&["CLIENT", "TRACKING", "OFF"]);
    assert_eq!(track(&mut wire, &["FROM", "NOW"]).0, some(&[]));
    refused(&mut wire, &["BCAST", "PREFIX", "a"], "ERR this client tracks FROM a revision");
    // RESP2 has no way to tell a push from a reply.
    wire.call(&["HELLO", "2"]);
    assert_eq!(wire.text(&["CLIENT", "GETREDIR"]), "-1", "it is off");
    assert_eq!(wire.text(&["PING"]), "PONG");
}
