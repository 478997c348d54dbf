//! Transactions that the log takes in several parts.

use std::collections::BTreeSet;
use std::process::Command;

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::undo::{ALWAYS, ok};
use crate::wire::{Wire, text_of};

const KEYS: usize = 24;

fn value(letter: u8, n: usize) -> String {
    char::from(letter + n as u8 % 7).to_string().repeat((1 << 20) + n)
}

fn fill(wire: &mut Wire, letter: u8) {
    for n in 0..KEYS {
        ok(wire, &["SET", &format!("p:{n}"), &value(letter, n)]);
    }
}

fn number(frame: &Frame) -> i64 {
    match frame {
        Frame::Integer(number) => *number,
        other => panic!("no number: {other:?}"),
    }
}

fn last_revision(wire: &mut Wire) -> i64 {
    number(&wire.call(&["LASTREV"]))
}

/// The revisions that a key has had, the newest first.
fn history(wire: &mut Wire, key: &str) -> Vec<i64> {
    let Frame::Array(rows) = wire.call(&["HISTORY", key]) else { panic!("no rows") };
    let revision = |row: &Frame| match row {
        Frame::Array(row) => number(&row[0]),
        other => panic!("no row: {other:?}"),
    };
    rows.iter().map(revision).collect()
}

/// A record of 24 MiB has two parts.
#[test]
fn a_revert_of_much_is_one_revision() {
    for archived in [false, true] {
        let mut server = Server::start(ALCID, ALWAYS);
        let mut wire = Wire::connect(server.addr());
        fill(&mut wire, b'a');
        let before = last_revision(&mut wire);
        let digest = wire.text(&["DEBUG", "DIGEST"]);
        for n in 0..KEYS {
            ok(&mut wire, &["SET", &format!("p:{n}"), "small"]);
        }
        let to = format!("r:{before}");
        let Frame::Array(map) = wire.call(&["REVERT", "PREFIX", "p:", "TO", &to]) else {
            panic!("no map")
        };
        let (reverted, restored) = (number(&map[1]), number(&map[3]));
        assert_eq!((reverted, restored), (before + KEYS as i64 + 1, KEYS as i64));
        assert_eq!(wire.text(&["DEBUG", "DIGEST"]), digest);
        ok(&mut wire, &["SET", "p:5", "after"]);
        if archived {
            ok(&mut wire, &["SAVE"]);
        }
        server.kill();

        let data_dir = server.data_dir();
        let check = ["log", "check", "--data-dir", data_dir.to_str().expect("text")];
        let checked = Command::new(ALCID).args(check).output().expect("it runs");
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));

        server.restart();
        assert!(!server.log().contains("WARN"), "{}", server.log());
        let mut wire = Wire::connect(server.addr());
        assert_eq!(wire.text(&["GET", "p:5"]), "after");
        let at = |revision: i64| format!("r:{revision}");
        for (revision, expected) in
            [(before, value(b'a', 3)), (reverted - 1, "small".into()), (reverted, value(b'a', 3))]
        {
            assert!(wire.text(&["AT", &at(revision), "GET", "p:3"]) == expected, "{revision}");
        }
        assert_eq!(history(&mut wire, "p:3"), [reverted, before + 4, 4]);
        let from = at(reverted);
        let Frame::Array(rows) = wire.call(&["CHANGES", "FROM", &from]) else { panic!("no rows") };
        assert_eq!(rows.len(), KEYS + 1, "all keys, and the one afterwards");
        assert_eq!(wire.text(&["SET", "p:5", &value(b'a', 5)]), "OK");
        assert_eq!(wire.text(&["DEBUG", "DIGEST"]), digest);
        ok(&mut wire, &["SAVE"]);
        server.kill();
        server.restart();
        let mut wire = Wire::connect(server.addr());
        assert_eq!(wire.text(&["DEBUG", "DIGEST"]), digest);
    }
}

/// The policy loses about a second of what was acknowledged, and no more because
/// that takes long to write.
#[test]
fn a_revert_of_much_is_acknowledged_once_it_is_on_the_disk() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "everysec"]);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, b'a');
    let to = format!("r:{}", last_revision(&mut wire));
    let digest = wire.text(&["DEBUG", "DIGEST"]);
    ok(&mut wire, &["FLUSHDB", "NOUNDO"]);
    let reverted = wire.call(&["REVERT", "PREFIX", "p:", "TO", &to]);
    server.kill();
    assert!(matches!(reverted, Frame::Array(_)), "{reverted:?}");
    server.restart();
    assert_eq!(Wire::connect(server.addr()).text(&["DEBUG", "DIGEST"]), digest);
}

/// Who follows hears of it once, as a whole, and goes on behind it.
#[test]
fn watches_and_other_transactions_go_on_behind_it() {
    let server = Server::start(ALCID, &[]);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, b'k');
    let to = format!("r:{}", last_revision(&mut wire));
    ok(&mut wire, &["FLUSHDB", "NOUNDO"]);
    let mut watch = Wire::connect(server.addr());
    ok(&mut watch, &["HELLO", "3"]);
    ok(&mut watch, &["WATCHFROM", &to, "PREFIX", "p:"]);
    ok(&mut wire, &["REVERT", "PREFIX", "p:", "TO", &to]);
    let reverted = last_revision(&mut wire);
    ok(&mut wire, &["SET", "p:last", "v"]);
    let mut heard = Vec::new();
    while heard.last().is_none_or(|(_, _, key)| key != "p:last") {
        let frame = watch.frame();
        let Frame::Push(items) = &frame else { panic!("{frame:?}") };
        let [_, _, revision, _, event, key, ..] = &items[..] else { panic!("{items:?}") };
        let key = if *key == Frame::Null { String::new() } else { text_of(key.clone()) };
        heard.push((number(revision), text_of(event.clone()), key));
    }
    let (first, rest) = heard.split_first().expect("some");
    assert_eq!((first.1.as_str(), first.2.as_str()), ("set", "p:23"));
    let (flushed, rest) = rest.split_first().expect("some");
    assert_eq!((flushed.0, flushed.1.as_str()), (reverted - 1, "flushed"));
    let (_, sets) = rest.split_last().expect("some");
    assert!(sets.iter().all(|(revision, event, _)| (*revision, &event[..]) == (reverted, "set")));
    let keys: BTreeSet<&str> = sets.iter().map(|(_, _, key)| key.as_str()).collect();
    assert_eq!((keys.len(), sets.len()), (KEYS, KEYS));
}
