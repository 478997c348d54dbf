//! Keys that were removed by their names and brought back, whatever the archive
//! has of them.

use std::sync::atomic::{AtomicBool, Ordering};

use base::{Frame, Rng, SeededRng};
use testkit::Server;

use crate::ALCID;
use crate::undo::{ALWAYS, digest, fill, number, ok, pass};
use crate::wire::{Wire, text_of};

/// The revision of an answer of UNDO.
fn undo(wire: &mut Wire, words: &[&str]) -> i64 {
    match wire.call(&[&["UNDO"], words].concat()) {
        Frame::Array(map) => match map[1] {
            Frame::Integer(revision) => revision,
            _ => panic!("nothing is undone: {map:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn undo_brings_back_the_same_state_wherever_it_stands() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    // One key alone too, and all of a database.
    let removals: [&[&str]; 4] =
        [&["PREFIX", "long:"], &["MATCH", "*a*"], &["PREFIX", "zset"], &["PREFIX", ""]];
    for (round, [before, between, after]) in
        [["", "", ""], ["SAVE", "", "kill"], ["SAVE", "SAVE", ""], ["kill", "kill", "SAVE"]]
            .into_iter()
            .enumerate()
    {
        fill(&mut wire, round);
        pass(&mut server, &mut wire, before);
        for words in removals {
            ok(&mut wire, &["HDEL", &format!("large:{round}"), "7"]);
            let (state, keys) = (digest(&mut wire), number(&mut wire, &["DBSIZE"]));
            let removed = number(&mut wire, &[&["REMOVE"], words].concat());
            assert!(removed > 0, "round {round}: {words:?}");
            assert_eq!(number(&mut wire, &["DBSIZE"]), keys - removed);
            ok(&mut wire, &["SET", "new", "stays"]);
            pass(&mut server, &mut wire, between);
            let revision = undo(&mut wire, &[]);
            assert_eq!(wire.text(&["GETDEL", "new"]), "stays");
            assert_eq!(digest(&mut wire), state, "round {round}: {words:?}");
            let at = format!("r:{revision}");
            assert_eq!(number(&mut wire, &["AT", &at, "DBSIZE"]), keys + 1);
            pass(&mut server, &mut wire, after);
            assert_eq!(digest(&mut wire), state, "round {round}: {words:?}, after a start");
        }
    }
}

#[test]
fn on_a_branch_what_it_inherits_comes_back_too() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    fill(&mut main, 0);
    ok(&mut main, &["BRANCH", "CREATE", "dev"]);
    let state = digest(&mut main);
    let dev = |server: &Server| {
        let mut wire = Wire::connect(server.addr());
        ok(&mut wire, &["BRANCH", "USE", "dev"]);
        wire
    };
    for how in ["", "SAVE", "kill"] {
        let mut wire = dev(&server);
        ok(&mut wire, &["SET", "long:7", "its own"]);
        let own = digest(&mut wire);
        assert_eq!(number(&mut wire, &["REMOVE", "PREFIX", "long:"]), 600);
        assert_eq!(number(&mut wire, &["REMOVE", "MATCH", "late:*:7"]), 1);
        assert_eq!(digest(&mut main), state, "{how}: main has all of it");
        pass(&mut server, &mut main, how);
        let mut wire = dev(&server);
        undo(&mut wire, &["COUNT", "2"]);
        assert_eq!(digest(&mut wire), own, "{how}");
        assert_eq!(wire.text(&["GET", "long:7"]), "its own");
    }
    assert_eq!(digest(&mut main), state);
}

#[test]
fn who_erases_the_past_of_some_brings_back_the_others_and_no_more() {
    let server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    ok(&mut wire, &["MSET", "p:1", "1", "p:2", "2", "p:3", "3", "q", "4"]);
    ok(&mut wire, &["MULTI"]);
    ok(&mut wire, &["REMOVE", "PREFIX", "p:"]);
    ok(&mut wire, &["DEL", "q"]);
    ok(&mut wire, &["EXEC"]);
    ok(&mut wire, &["HISTORY.PURGE", "p:2", "CONFIRM"]);
    undo(&mut wire, &[]);
    assert_eq!(number(&mut wire, &["EXISTS", "p:1", "p:3"]), 2);
    assert_eq!(number(&mut wire, &["EXISTS", "p:2", "q"]), 0);
}

#[test]
fn a_rule_that_keeps_nothing_does_not_matter() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    ok(&mut wire, &["HISTORY.POLICY", "SET", "*", "KEEP", "NONE"]);
    fill(&mut wire, 0);
    let state = digest(&mut wire);
    assert!(number(&mut wire, &["REMOVE", "PREFIX", "s"]) > 0);
    for _ in 0..3 {
        ok(&mut wire, &["SET", "other", "1"]);
        ok(&mut wire, &["HISTORY.COMPACT"]);
        pass(&mut server, &mut wire, "SAVE");
    }
    pass(&mut server, &mut wire, "kill");
    ok(&mut wire, &["DEL", "other"]);
    undo(&mut wire, &[]);
    assert_eq!(digest(&mut wire), state);
}

#[test]
fn beside_writers_it_takes_what_was_there_and_a_start_makes_the_same_of_it() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for round in 0..3 {
        let (addr, is_done) = (server.addr(), AtomicBool::new(false));
        let last = std::thread::scope(|scope| {
            for seed in 0..3 {
                let (addr, is_done) = (&addr, &is_done);
                scope.spawn(move || {
                    let (mut wire, mut rng) = (Wire::connect(addr), SeededRng::new(seed));
                    while !is_done.load(Ordering::Relaxed) {
                        let key = format!("gone:{}", rng.below(500));
                        match rng.below(4) {
                            0 => ok(&mut wire, &["DEL", &key]),
                            1 => ok(&mut wire, &["SET", &key, "late", "PX", "20"]),
                            2 => ok(&mut wire, &["MSET", &key, "v", "gone:all", "v"]),
                            _ => ok(&mut wire, &["SET", &key, "v"]),
                        }
                        ok(&mut wire, &["SET", &format!("stays:{key}"), "v"]);
                    }
                });
            }
            let mut removed = 0;
            while removed < 500 {
                removed += number(&mut wire, &["REMOVE", "PREFIX", "gone:"]);
            }
            is_done.store(true, Ordering::Relaxed);
            number(&mut wire, &["LASTREV"])
        });
        let Frame::Array(left) = wire.call(&["KEYS", "gone:*"]) else { panic!("no keys") };
        for key in left.into_iter().map(text_of) {
            // Nil is one that has expired since.
            if let Frame::Integer(revision) = wire.call(&["OBJECT", "REVISION", &key]) {
                assert!(revision > last, "{key} of {revision} was there at {last}");
            }
        }
        assert_eq!(number(&mut wire, &["REMOVE", "PREFIX", "gone:nothing"]), 0);
        // What is due is gone, so that both digests see the same.
        ok(&mut wire, &["REMOVE", "PREFIX", "gone:"]);
        let state = digest(&mut wire);
        pass(&mut server, &mut wire, ["kill", "SAVE", "kill"][round]);
        assert_eq!(digest(&mut wire), state, "round {round}");
    }
}
