//! Flushes of many keys: what they leave in the archive is taken over as it is.

use std::sync::atomic::{AtomicBool, Ordering};

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::undo::{ALWAYS, digest, fill, number, ok, pass};
use crate::wire::{Wire, eventually};

/// More than are brought back one by one.
const MANY: usize = 12_000;

/// Keys of every type in two databases, and [`MANY`] more in the first.
fn fill_much(wire: &mut Wire, round: usize) {
    fill(wire, round);
    let keys: Vec<String> = (0..MANY).map(|n| format!("many:{n}")).collect();
    let value = round.to_string();
    for keys in keys.chunks(1000) {
        let pairs = keys.iter().flat_map(|key| [key.as_str(), &value]);
        let words: Vec<&str> = ["MSET"].into_iter().chain(pairs).collect();
        assert_eq!(wire.text(&words), "OK");
    }
}

fn flush(wire: &mut Wire) -> i64 {
    ok(wire, &["FLUSHALL"]);
    number(wire, &["LASTREV"])
}

/// The revision of an UNDO of so many flushes that has taken over what they left,
/// and has not written keys one by one.
fn undo(wire: &mut Wire, count: usize) -> i64 {
    let Frame::Array(map) = wire.call(&["UNDO", "COUNT", &count.to_string()]) else {
        panic!("no map")
    };
    let Frame::Integer(revision) = map[1] else { panic!("{map:?}") };
    assert_eq!(number(wire, &["OBJECT", "REVISION", "many:7"]), revision);
    let at = format!("r:{revision}");
    let changes = wire.call(&["CHANGES", "FROM", &at, "TO", &at]);
    let Frame::Array(rows) = changes else { panic!("{changes:?}") };
    let returned = Frame::bulk("returned");
    let is_it = |row: &Frame| matches!(row, Frame::Array(row) if row.last() == Some(&returned));
    assert!(rows.iter().any(is_it), "by keys");
    revision
}

fn again(server: &mut Server) -> Wire {
    server.kill();
    server.restart();
    Wire::connect(server.addr())
}

fn keys_at(wire: &mut Wire, revision: i64) -> i64 {
    number(wire, &["AT", &format!("r:{revision}"), "DBSIZE"])
}

#[test]
fn what_a_flush_left_is_taken_over_wherever_it_stands() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    let mut moments = Vec::new();
    // In the log, in the archive, in both; the flush and the UNDO as well.
    for (round, [before, between, after]) in [
        ["", "", "kill"],
        ["save", "", "save"],
        ["save", "save", "kill"],
        ["", "kill", "kill"],
        ["save", "kill", ""],
        ["", "save", "save"],
    ]
    .into_iter()
    .enumerate()
    {
        let pass = |server: &mut Server, wire: &mut Wire, how: &str| match how {
            "save" => ok(wire, &["SAVE"]),
            "kill" => *wire = again(server),
            _ => {}
        };
        fill_much(&mut wire, round);
        pass(&mut server, &mut wire, before);
        // What the archive does not have yet, in part of what it has.
        ok(&mut wire, &["HDEL", &format!("large:{round}"), "7"]);
        ok(&mut wire, &["DEL", "long:5", "many:5"]);
        ok(&mut wire, &["SET", "many:6", "new"]);
        let (state, keys) = (digest(&mut wire), number(&mut wire, &["DBSIZE"]));
        let flushed = flush(&mut wire);
        // That changes nothing.
        ok(&mut wire, &["FLUSHDB"]);
        pass(&mut server, &mut wire, between);
        let undone = undo(&mut wire, 1);
        assert_eq!(number(&mut wire, &["DBSIZE"]), keys, "round {round}");
        assert_eq!(wire.call(&["EXISTS", "many:5", "many:6"]), Frame::Integer(1));
        assert_eq!(digest(&mut wire), state, "round {round}");
        moments.extend([(flushed - 1, keys), (flushed, 0), (undone - 1, 0), (undone, keys)]);
        for &(revision, keys) in &moments {
            assert_eq!(keys_at(&mut wire, revision), keys, "round {round} at {revision}");
        }
        let at = |revision: i64| format!("r:{revision}");
        assert_eq!(wire.text(&["AT", &at(undone), "GET", "many:6"]), "new");
        assert_eq!(wire.text(&["AT", &at(flushed - 1), "GET", "many:6"]), "new");
        assert_eq!(wire.call(&["AT", &at(flushed), "GET", "many:6"]), Frame::Null);
        assert_eq!(wire.call(&["AT", &at(undone - 1), "GET", "many:6"]), Frame::Null);
        let Frame::Array(rows) = wire.call(&["HISTORY", "many:6", "COUNT", "3", "VALUES"]) else {
            panic!("no rows")
        };
        let what: Vec<(Frame, Frame)> = rows
            .iter()
            .map(|row| match row {
                Frame::Array(row) => (row[2].clone(), row[6].clone()),
                other => panic!("{other:?}"),
            })
            .collect();
        let new = Frame::bulk("new");
        let expected = [("undo", new.clone()), ("flushall", Frame::Null), ("set", new)]
            .map(|(by, value)| (Frame::bulk(by), value));
        assert_eq!(what, expected, "round {round}");
        pass(&mut server, &mut wire, after);
        assert_eq!(digest(&mut wire), state, "round {round}");
        // They live on.
        ok(&mut wire, &["DEL", "many:8"]);
        ok(&mut wire, &["SET", "many:9", "later"]);
        ok(&mut wire, &["HDEL", &format!("large:{round}"), "8"]);
        let state = digest(&mut wire);
        pass(&mut server, &mut wire, after);
        wire = again(&mut server);
        assert_eq!(digest(&mut wire), state, "round {round}, later");
        // Once more, and the same again.
        flush(&mut wire);
        undo(&mut wire, 1);
        assert_eq!(digest(&mut wire), state, "round {round}, the second time");
        for &(revision, keys) in &moments {
            assert_eq!(keys_at(&mut wire, revision), keys, "round {round} at {revision}, later");
        }
    }
}

/// Keys that were not there before a flush, of every type, in two databases.
fn write_meanwhile(wire: &mut Wire) -> Vec<(&'static str, &'static str)> {
    let mut keys = Vec::new();
    for db in ["3", "0"] {
        ok(wire, &["SELECT", db]);
        ok(wire, &["SET", "mean:string", db]);
        ok(wire, &["SET", "mean:long", &"y".repeat(20_000)]);
        ok(wire, &["SET", "mean:due", "v", "EX", "5000"]);
        ok(wire, &["ZADD", "mean:zset", "1", "a", "2", "b"]);
        ok(wire, &["SADD", "mean:set", "a", "b", db]);
        ok(wire, &["RPUSH", "mean:list", "a", "b"]);
        for n in 0..600 {
            ok(wire, &["HSET", "mean:hash", &n.to_string(), db]);
        }
        ok(wire, &["SET", "mean:gone", "v"]);
        ok(wire, &["DEL", "mean:gone"]);
        for key in ["string", "long", "due", "zset", "set", "list", "hash"] {
            keys.push((db, key));
        }
    }
    keys
}

fn values(wire: &mut Wire, keys: &[(&str, &str)]) -> Vec<Frame> {
    keys.iter()
        .map(|(db, key)| {
            ok(wire, &["SELECT", db]);
            wire.call(&["DEBUG", "DIGEST-VALUE", &format!("mean:{key}")])
        })
        .collect()
}

#[test]
fn keys_written_meanwhile_stay_beside_what_comes_back() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    let mut moments = Vec::new();
    for (round, [before, between, later, after]) in [
        ["", "", "", "kill"],
        ["SAVE", "", "SAVE", "kill"],
        ["SAVE", "SAVE", "SAVE", "SAVE"],
        ["", "kill", "kill", "kill"],
        ["SAVE", "SAVE", "kill", ""],
        ["", "SAVE", "", "SAVE"],
    ]
    .into_iter()
    .enumerate()
    {
        fill_much(&mut wire, round);
        pass(&mut server, &mut wire, before);
        ok(&mut wire, &["DEL", "many:5"]);
        let (state, keys) = (digest(&mut wire), number(&mut wire, &["DBSIZE"]));
        let flushed = flush(&mut wire);
        pass(&mut server, &mut wire, between);
        let names = write_meanwhile(&mut wire);
        let kept = values(&mut wire, &names);
        let late = number(&mut wire, &["DBSIZE"]);
        assert_eq!(late, 7);
        ok(&mut wire, &["BRANCH", "CREATE", &format!("between{round}")]);
        pass(&mut server, &mut wire, later);
        let Frame::Array(map) = wire.call(&["UNDO", "DRYRUN"]) else { panic!("no map") };
        assert_eq!(map[1], Frame::Null);
        assert_eq!(number(&mut wire, &["DBSIZE"]), late);
        let undone = undo(&mut wire, 1);
        let check = |wire: &mut Wire, when: &str| {
            assert_eq!(values(wire, &names), kept, "round {round}, {when}");
            assert_eq!(number(wire, &["DBSIZE"]), keys + late, "round {round}, {when}");
            assert!(number(wire, &["TTL", "mean:due"]) > 4000, "round {round}, {when}");
            let gone = ["EXISTS", "many:5", "mean:gone"];
            assert_eq!(number(wire, &gone), 0, "round {round}, {when}");
            assert_eq!(number(wire, &["OBJECT", "REVISION", "mean:zset"]), undone, "{when}");
        };
        check(&mut wire, "at once");
        moments.extend([
            (flushed - 1, keys, 0),
            (flushed, 0, 0),
            (undone - 1, late, 600),
            (undone, keys + late, 600),
        ]);
        pass(&mut server, &mut wire, after);
        check(&mut wire, "later");
        for &(revision, keys, fields) in &moments {
            assert_eq!(keys_at(&mut wire, revision), keys, "round {round} at {revision}");
            let words = ["AT", &format!("r:{revision}"), "HLEN", "mean:hash"];
            assert_eq!(number(&mut wire, &words), fields, "round {round} at {revision}");
        }
        // What comes back is what it was, and lives on beside the others.
        for (db, key) in &names {
            ok(&mut wire, &["SELECT", db]);
            ok(&mut wire, &["DEL", &format!("mean:{key}")]);
        }
        assert_eq!(digest(&mut wire), state, "round {round}");
        wire = again(&mut server);
        assert_eq!(digest(&mut wire), state, "round {round}, after a start");
    }
    for round in 0..6 {
        ok(&mut wire, &["BRANCH", "USE", &format!("between{round}")]);
        assert_eq!(number(&mut wire, &["DBSIZE"]), 7);
        assert_eq!(number(&mut wire, &["HLEN", "mean:hash"]), 600);
    }
}

/// Whoever writes new keys all the while finds each of them, whether the flush took
/// it or it came after that.
#[test]
fn who_writes_meanwhile_loses_nothing() {
    let server = Server::start(ALCID, &[]);
    let mut wire = Wire::connect(server.addr());
    fill_much(&mut wire, 1);
    let keys = number(&mut wire, &["DBSIZE"]);
    let is_over = AtomicBool::new(false);
    let written: Vec<i64> = std::thread::scope(|scope| {
        let write = |name: &'static str| {
            let (server, is_over) = (&server, &is_over);
            move || {
                let (mut wire, mut count) = (Wire::connect(server.addr()), 0);
                while !is_over.load(Ordering::Relaxed) {
                    ok(&mut wire, &["SET", &format!("{name}:{count}"), &count.to_string()]);
                    count += 1;
                }
                count
            }
        };
        let writers = ["one", "two"].map(|name| scope.spawn(write(name)));
        for _ in 0..8 {
            flush(&mut wire);
            undo(&mut wire, 1);
        }
        is_over.store(true, Ordering::Relaxed);
        writers.map(|writer| writer.join().expect("it writes")).into()
    });
    assert_eq!(number(&mut wire, &["DBSIZE"]), keys + written.iter().sum::<i64>());
    for (name, count) in ["one", "two"].into_iter().zip(written) {
        for number in 0..count {
            let value = wire.text(&["GET", &format!("{name}:{number}")]);
            assert_eq!(value, number.to_string());
        }
    }
}

#[test]
fn branches_keep_what_they_began_with() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    fill_much(&mut wire, 1);
    let keys = number(&mut wire, &["DBSIZE"]);
    ok(&mut wire, &["BRANCH", "CREATE", "before"]);
    ok(&mut wire, &["SET", "one", "more"]);
    let flushed = flush(&mut wire);
    ok(&mut wire, &["BRANCH", "CREATE", "between"]);
    ok(&mut wire, &["TAG", "CREATE", "empty"]);
    let undone = undo(&mut wire, 1);
    ok(&mut wire, &["BRANCH", "CREATE", "after"]);
    for (name, at) in [("then", flushed - 1), ("none", undone - 1), ("now", undone)] {
        ok(&mut wire, &["BRANCH", "CREATE", name, "AT", &format!("r:{at}")]);
    }
    ok(&mut wire, &["DEL", "many:1", "many:2"]);
    for round in 0..2 {
        for (branch, keys) in [
            ("before", keys),
            ("between", 0),
            ("after", keys + 1),
            ("then", keys + 1),
            ("none", 0),
            ("now", keys + 1),
            ("main", keys - 1),
        ] {
            ok(&mut wire, &["BRANCH", "USE", branch]);
            assert_eq!(number(&mut wire, &["DBSIZE"]), keys, "{branch} {round}");
            let one = i64::from(keys > 0 && branch != "main");
            assert_eq!(number(&mut wire, &["EXISTS", "many:1"]), one, "{branch} {round}");
        }
        assert_eq!(wire.call(&["AT", "tag:empty", "DBSIZE"]), Frame::Integer(0));
        wire = again(&mut server);
    }
}

#[test]
fn who_waits_or_watches_hears_of_it() {
    let server = Server::start(ALCID, &[]);
    let (mut wire, mut other) = (Wire::connect(server.addr()), Wire::connect(server.addr()));
    fill_much(&mut wire, 1);
    ok(&mut wire, &["RPUSH", "queue", "a"]);
    ok(&mut wire, &["WATCH", "many:1"]);
    flush(&mut other);
    let mut waiting = Wire::connect(server.addr());
    assert!(waiting.send(&["BLPOP", "queue", "0"]));
    eventually("it waits", || wire.text(&["CLIENT", "LIST"]).contains("cmd=blpop"));
    undo(&mut other, 1);
    assert_eq!(waiting.frame(), Frame::Array(vec![Frame::bulk("queue"), Frame::bulk("a")]));
    // It is what it was, and was something else meanwhile.
    ok(&mut wire, &["MULTI"]);
    ok(&mut wire, &["SET", "many:1", "x"]);
    assert_eq!(wire.call(&["EXEC"]), Frame::NullArray);
}

#[test]
fn several_flushes_and_what_was_written_meanwhile() {
    let server = Server::start(ALCID, &[]);
    let mut wire = Wire::connect(server.addr());
    fill_much(&mut wire, 1);
    // One after the other, newest first, and both at once.
    ok(&mut wire, &["SELECT", "3"]);
    let many: Vec<String> = (0..MANY).map(|n| format!("three:{n}")).collect();
    let pairs = many.iter().flat_map(|key| [key.as_str(), "v"]);
    ok(&mut wire, &["MSET"].into_iter().chain(pairs).collect::<Vec<_>>());
    let state = digest(&mut wire);
    for at_once in [true, false] {
        ok(&mut wire, &["FLUSHDB"]);
        ok(&mut wire, &["SELECT", "0"]);
        ok(&mut wire, &["FLUSHDB"]);
        if !at_once {
            undo(&mut wire, 1);
            ok(&mut wire, &["UNDO"]);
        } else {
            undo(&mut wire, 2);
        }
        assert_eq!(digest(&mut wire), state);
        ok(&mut wire, &["SELECT", "3"]);
    }
    // Two generations of one database: each comes back, unless a key is in both.
    ok(&mut wire, &["SELECT", "0"]);
    ok(&mut wire, &["FLUSHDB"]);
    ok(&mut wire, &["SET", "new", "stays"]);
    let pairs = many.iter().flat_map(|key| [key.as_str(), "w"]);
    ok(&mut wire, &["MSET"].into_iter().chain(pairs).collect::<Vec<_>>());
    ok(&mut wire, &["FLUSHDB"]);
    ok(&mut wire, &["UNDO"]);
    assert_eq!(number(&mut wire, &["DBSIZE"]), MANY as i64 + 1);
    ok(&mut wire, &["UNDO"]);
    assert_eq!(wire.text(&["GET", "many:1"]), "1");
    assert_eq!(wire.text(&["GET", "three:1"]), "w");
    ok(&mut wire, &["FLUSHDB"]);
    ok(&mut wire, &["SET", "many:1", "x"]);
    let said = wire.text(&["UNDO"]);
    assert!(said.starts_with("MERGECONFLICT 1 key changed since "), "{said}");
    ok(&mut wire, &["DEL", "many:1"]);
    let said = wire.text(&["UNDO"]);
    assert!(said.starts_with("MERGECONFLICT 1 key changed since "), "{said}");
}

/// Of many keys as of few.
#[test]
fn what_a_transaction_did_before_it_flushed_does_not_come_back() {
    let server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for (round, is_much) in [true, false].into_iter().enumerate() {
        if is_much {
            fill_much(&mut wire, round)
        } else {
            fill(&mut wire, round)
        }
        let before = digest(&mut wire);
        ok(&mut wire, &["MULTI"]);
        for words in [&["SET", "inside", "1"][..], &["DEL", "set", "many:3"], &["FLUSHALL"]] {
            assert_eq!(wire.text(words), "QUEUED");
        }
        assert!(matches!(wire.call(&["EXEC"]), Frame::Array(_)));
        let undone = wire.call(&["UNDO"]);
        assert!(matches!(undone, Frame::Array(_)), "{undone:?}");
        assert_eq!(digest(&mut wire), before, "much: {is_much}");
        ok(&mut wire, &["FLUSHALL", "NOUNDO"]);
    }
}

#[test]
fn an_archive_that_is_made_anew_has_what_a_flush_left() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    // Killed before there is an archive, and deprived of it later.
    for (round, loses_archive) in [false, true].into_iter().enumerate() {
        fill_much(&mut wire, round);
        let before = digest(&mut wire);
        let flushed = flush(&mut wire);
        if loses_archive {
            ok(&mut wire, &["SAVE"]);
        }
        server.kill();
        if loses_archive {
            std::fs::remove_dir_all(server.data_dir().join("archive")).expect("ours");
        }
        server.restart();
        wire = Wire::connect(server.addr());
        assert!(undo(&mut wire, 1) > flushed);
        // One by one, before all of them are asked for.
        for n in 0..MANY {
            let key = format!("many:{n}");
            assert_eq!(wire.text(&["GET", &key]), round.to_string(), "{key} of round {round}");
        }
        assert_eq!(digest(&mut wire), before, "round {round}");
        ok(&mut wire, &["SAVE"]);
        wire = again(&mut server);
        assert_eq!(digest(&mut wire), before, "round {round}, restarted");
    }
}
