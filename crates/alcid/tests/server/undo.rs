//! Everything taken away and brought back: whatever the archive has of it, and
//! beside others who read and write.

use std::sync::atomic::{AtomicBool, Ordering};

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::wire::Wire;

/// Everything is on disk before it is acknowledged, so a kill loses nothing.
pub const ALWAYS: &[&str] = &["--aof-fsync", "always"];

pub fn ok(wire: &mut Wire, words: &[&str]) {
    let answer = wire.call(words);
    assert!(!matches!(answer, Frame::Error(_)), "{words:?}: {answer:?}");
}

pub fn number(wire: &mut Wire, words: &[&str]) -> i64 {
    match wire.call(words) {
        Frame::Integer(number) => number,
        other => panic!("{words:?}: {other:?}"),
    }
}

pub fn digest(wire: &mut Wire) -> String {
    wire.text(&["DEBUG", "DIGEST"])
}

/// Stops a server the hard way, or lets it write its archive.
pub fn pass(server: &mut Server, wire: &mut Wire, how: &str) {
    match how {
        "SAVE" => ok(wire, &["SAVE"]),
        "kill" => {
            server.kill();
            server.restart();
            *wire = Wire::connect(server.addr());
        }
        _ => {}
    }
}

/// Keys of every type, some with a deadline, in two databases.
pub fn fill(wire: &mut Wire, round: usize) {
    let mut sent = 0;
    let mut send = |wire: &mut Wire, words: &[&str]| {
        assert!(wire.send(words));
        sent += 1;
    };
    for db in ["3", "0"] {
        send(wire, &["SELECT", db]);
        for n in 0..700 {
            let (key, n) = (format!("{round}:{n}"), n.to_string());
            send(wire, &["SET", &format!("string:{key}"), &n]);
            send(wire, &["SET", &format!("late:{key}"), &n, "EX", "10000"]);
            send(wire, &["HSET", &format!("hash:{key}"), "f", &n]);
        }
        let long = "x".repeat(9000);
        for n in 0..600 {
            let n = n.to_string();
            send(wire, &["SET", &format!("long:{n}"), &long[..5000 + round]]);
            send(wire, &["HSET", &format!("large:{round}"), &n, "v"]);
            send(wire, &["SADD", "set", &n]);
            send(wire, &["ZADD", "zset", &n, &format!("m{n}")]);
            send(wire, &["RPUSH", &format!("list:{round}"), &n]);
        }
    }
    (0..sent).for_each(|_| assert!(!matches!(wire.frame(), Frame::Error(_))));
}

#[test]
fn undo_brings_back_the_same_state_wherever_it_stands() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    // In the log, in the archive, in both; the flush in the archive too or not.
    for (round, (before, after)) in
        [("", ""), ("SAVE", ""), ("SAVE", "SAVE"), ("", "SAVE"), ("SAVE", "kill")]
            .into_iter()
            .enumerate()
    {
        fill(&mut wire, round);
        if !before.is_empty() {
            ok(&mut wire, &[before]);
            ok(&mut wire, &["SET", "more", &round.to_string()]);
            ok(&mut wire, &["HDEL", &format!("large:{round}"), "7"]);
            ok(&mut wire, &["DEL", "long:5"]);
        }
        let state = digest(&mut wire);
        ok(&mut wire, &["FLUSHALL"]);
        assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(0));
        ok(&mut wire, &["SET", "new", "stays"]);
        pass(&mut server, &mut wire, after);
        let Frame::Array(map) = wire.call(&["UNDO"]) else { panic!("no map") };
        let Frame::Integer(revision) = map[1] else { panic!("{map:?}") };
        assert_eq!(wire.text(&["GETDEL", "new"]), "stays");
        assert_eq!(digest(&mut wire), state, "round {round}");
        let at = format!("r:{revision}");
        assert_eq!(wire.call(&["AT", &at, "EXISTS", "new", "zset"]), Frame::Integer(2));
        server.kill();
        server.restart();
        wire = Wire::connect(server.addr());
        assert_eq!(digest(&mut wire), state, "round {round}, after a start");
    }
    // Back to the middle of it, and forth.
    let state = digest(&mut wire);
    let Frame::Integer(keys) = wire.call(&["DBSIZE"]) else { panic!("no number") };
    ok(&mut wire, &["FLUSHALL", "NOUNDO"]);
    ok(&mut wire, &["SET", "long:7", "other"]);
    let Frame::Integer(flushed) = wire.call(&["LASTREV"]) else { panic!("no number") };
    let to = format!("r:{}", flushed - 2);
    let Frame::Array(map) = wire.call(&["REVERT", "ALL", "TO", &to]) else { panic!("no map") };
    assert!(matches!(map[3], Frame::Integer(restored) if restored > 2 * keys - 10), "{map:?}");
    assert_eq!(digest(&mut wire), state);
}

#[test]
fn who_reads_and_writes_meanwhile_sees_a_revert_at_once() {
    const KEYS: usize = 300;
    let server = Server::start(ALCID, &[]);
    let mut wire = Wire::connect(server.addr());
    let names: Vec<String> = (0..KEYS).map(|n| format!("p:{n}")).collect();
    let mset = |wire: &mut Wire, value: &str| {
        let words: Vec<&str> = ["MSET"]
            .into_iter()
            .chain(names.iter().flat_map(|name| [name.as_str(), value]))
            .collect();
        assert_eq!(wire.text(&words), "OK");
        let Frame::Integer(revision) = wire.call(&["LASTREV"]) else { panic!("no number") };
        format!("r:{revision}")
    };
    let moments = [mset(&mut wire, "a"), mset(&mut wire, "b")];
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (is_done, names, addr) = (&is_done, &names, server.addr());
            scope.spawn(move || {
                let mut wire = Wire::connect(addr);
                let words: Vec<&str> =
                    ["MGET"].into_iter().chain(names.iter().map(String::as_str)).collect();
                while !is_done.load(Ordering::Relaxed) {
                    let Frame::Array(values) = wire.call(&words) else { panic!("MGET") };
                    assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
                    // Others are written all the time, and one of the prefix
                    // that did not exist then.
                    ok(&mut wire, &["INCR", &format!("q:{reader}")]);
                    ok(&mut wire, &["SET", &format!("p:new:{reader}"), "x"]);
                }
            });
        }
        for round in 0..40 {
            let to = &moments[round % 2];
            let answer = wire.call(&["REVERT", "PREFIX", "p:", "TO", to]);
            let Frame::Array(map) = &answer else { panic!("{answer:?}") };
            assert_eq!(map[3], Frame::Integer(KEYS as i64), "round {round}");
            let Frame::Integer(revision) = map[1] else { panic!("{map:?}") };
            let then = wire.call(&["AT", &format!("r:{revision}"), "KEYS", "p:*"]);
            let Frame::Array(keys) = then else { panic!("{then:?}") };
            assert_eq!(keys.len(), KEYS, "round {round}");
        }
        is_done.store(true, Ordering::Relaxed);
    });
}
