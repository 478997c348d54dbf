//! Who lists keys of a branch or of the past has their names, and does not leave
//! all of their values in memory.

use base::Frame;
use resp::encode_command;
use testkit::Server;

use crate::ALCID;
use crate::wire::{Wire, eventually, field, memory_of};

const KEYS: usize = 8000;
const VALUE_BYTES: usize = 8192;

/// Far less than the values take, and more than a list of names does.
const LITTLE: u64 = (KEYS * VALUE_BYTES / 2) as u64;

fn filled(args: &[&str]) -> (Server, Wire) {
    let server = Server::start(ALCID, args);
    let mut wire = Wire::connect(server.addr());
    let value = "v".repeat(VALUE_BYTES);
    let mut bytes = Vec::new();
    (0..KEYS).for_each(|n| encode_command(&mut bytes, &["SET", &format!("key:{n}"), &value]));
    assert!(wire.raw(&bytes));
    (0..KEYS).for_each(|_| assert_eq!(wire.frame(), Frame::Simple("OK".to_owned())));
    assert_eq!(wire.text(&["SAVE"]), "OK");
    (server, wire)
}

/// `KEYS`, `SCAN` from one end to the other, and the counts of both.
fn list(wire: &mut Wire, when: &[&str]) {
    let Frame::Array(keys) = wire.call(&[when, &["KEYS", "key:*"]].concat()) else {
        panic!("no keys")
    };
    assert_eq!(keys.len(), KEYS);
    let (mut cursor, mut seen) = ("0".to_owned(), 0);
    loop {
        let words = [when, &["SCAN", &cursor, "COUNT", "1000"]].concat();
        let Frame::Array(page) = wire.call(&words) else { panic!("no page") };
        let [Frame::Bulk(next), Frame::Array(keys)] = &page[..] else { panic!("{page:?}") };
        seen += keys.len();
        cursor = String::from_utf8(next.clone()).expect("digits");
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen, KEYS);
    assert_eq!(wire.text(&[when, &["DBSIZE"]].concat()), KEYS.to_string());
}

/// The server's own word for what it keeps of states that were looked at lately.
fn kept_of_the_past(wire: &mut Wire) -> u64 {
    let Frame::Array(stats) = wire.call(&["HISTORY.STATS"]) else { panic!("no stats") };
    let at = stats.iter().position(|it| *it == Frame::bulk("memory_bytes")).expect("it is told");
    let Frame::Integer(bytes) = stats[at + 1] else { panic!("{stats:?}") };
    bytes.cast_unsigned()
}

#[test]
fn keys_that_a_branch_inherits_stay_where_they_are() {
    let (_server, mut main) = filled(&["--aof-fsync", "no"]);
    assert!(matches!(main.call(&["BRANCH", "CREATE", "dev"]), Frame::Array(_)));
    assert_eq!(main.text(&["BRANCH", "USE", "dev"]), "OK");
    let before = field(&mut main, "memory", "used_memory_dataset");
    list(&mut main, &[]);
    let after = field(&mut main, "memory", "used_memory_dataset");
    assert!(after < before + LITTLE, "{before} bytes became {after}");
}

#[test]
fn keys_of_the_past_stay_where_they_are() {
    let (server, mut wire) = filled(&["--aof-fsync", "no"]);
    let at = wire.text(&["LASTREV"]);
    let when = ["AT", &format!("r:{at}")];
    assert_eq!(wire.text(&["SET", "other", "1"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    // What a first look needs besides.
    assert_eq!(wire.text(&["AT", when[1], "DBSIZE"]), KEYS.to_string());
    let before = memory_of(server.pid(), "RssAnon");
    list(&mut wire, &when);
    let kept = kept_of_the_past(&mut wire);
    assert!(kept < LITTLE, "{kept} bytes of the past are in memory");
    // The archive may be at work beside, which takes memory for a while.
    eventually("the process is about as large as before", || {
        memory_of(server.pid(), "RssAnon") < before + LITTLE
    });
}
