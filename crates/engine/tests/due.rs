//! Keys that are due and have not been removed yet: what finds them so, and what
//! is told of it.

mod harness;

use base::Frame;
use harness::{Peer, Server, bulk, error, integer, ok};

/// Sets a key that is due by now, and that nobody has looked at since.
fn due(server: &Server, peer: &mut Peer, key: &str) -> i64 {
    assert_eq!(peer.run(&format!("SET {key} due PX 3")), ok());
    server.clock.advance_ms(6);
    last(peer)
}

fn last(peer: &mut Peer) -> i64 {
    match peer.run("LASTREV") {
        Frame::Integer(revision) => revision,
        Frame::Null => 0,
        other => panic!("{other:?}"),
    }
}

/// Of each version after a revision, oldest first, its distance from there, its
/// command and its cause.
fn versions(peer: &mut Peer, key: &str, after: i64) -> Vec<(i64, String, String)> {
    let Frame::Array(rows) = peer.run(&format!("HISTORY {key} FROM r:{} REV", after + 1)) else {
        panic!("HISTORY is refused")
    };
    let row = |row: Frame| {
        let Frame::Array(items) = row else { panic!("{row:?}") };
        let Frame::Integer(revision) = items[0] else { panic!("{items:?}") };
        (revision - after, text(&items[2]), text(&items[5]))
    };
    rows.into_iter().map(row).collect()
}

fn text(frame: &Frame) -> String {
    match frame {
        Frame::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Frame::Null => "nobody".to_owned(),
        other => panic!("{other:?}"),
    }
}

fn expiry() -> (i64, String, String) {
    (1, "nobody".to_owned(), "expire".to_owned())
}

fn by(at: i64, command: &str) -> (i64, String, String) {
    (at, command.to_owned(), "client".to_owned())
}

#[test]
fn undelete_brings_back_what_is_due() {
    let (server, _past) = Server::with_past();
    let mut peer = server.connect();
    for has_older in [true, false] {
        let key = format!("k{has_older}");
        if has_older {
            peer.run(&format!("SET {key} old"));
            peer.run(&format!("DEL {key}"));
        }
        let set = due(&server, &mut peer, &key);
        let tried = peer.run(&format!("WHATIF UNDELETE {key}"));
        assert_eq!(tried_field(&tried, "keys_total"), integer(1), "{tried:?}");
        assert_eq!(peer.run(&format!("UNDELETE {key}")), integer(set + 2));
        assert_eq!(last(&mut peer), set + 2);
        assert_eq!(peer.run(&format!("GET {key}")), bulk("due"));
        assert_eq!(peer.run(&format!("PTTL {key}")), integer(-1));
        let undeleted = (2, "undelete".to_owned(), "revert".to_owned());
        assert_eq!(versions(&mut peer, &key, set), [expiry(), undeleted]);
    }
    peer.run("SET there 1 PX 30");
    let busy = error("BUSYKEY the key exists; REVERT <key> TO <when> would replace it");
    assert_eq!(peer.run("UNDELETE there"), busy);
    // Removed or not, its past is not kept.
    peer.run("HISTORY.POLICY SET none:* KEEP none");
    due(&server, &mut peer, "none:1");
    assert_eq!(peer.run("UNDELETE none:1"), Frame::Null);
}

#[test]
fn what_a_write_finds_to_be_due_goes_by_a_revision_of_its_own() {
    let (server, _past) = Server::with_past();
    let mut peer = server.connect();
    peer.run("SET src 7");
    peer.run("SADD ss a");
    for line in [
        "SET k 2",
        "SET k 2 KEEPTTL",
        "SET k 2 GET",
        "SETNX k 2",
        "GETSET k 2",
        "SETRANGE k 0 a",
        "APPEND k z",
        "INCR k",
        "HSET k f 1",
        "RPUSH k a",
        "SADD k m",
        "ZADD k 1 m",
        "MSET other 1 k 2",
        "MSETNX fresh 1 k 2",
        "RENAME src k",
        "COPY src k REPLACE",
        "SUNIONSTORE k ss",
        "LMOVE list k LEFT LEFT",
        "REVERT k TO r:1",
    ] {
        peer.run("FLUSHALL");
        for line in ["SET src 7", "SADD ss a", "RPUSH list a"] {
            peer.run(line);
        }
        let first = last(&mut peer);
        peer.run("SET k 1");
        let line = line.replace("r:1", &format!("r:{}", first + 1));
        let set = due(&server, &mut peer, "k");
        peer.run(&line);
        let command = line.split(' ').next().expect("a word").to_ascii_lowercase();
        let cause = if command == "revert" { "revert" } else { "client" };
        let wrote = (2, command, cause.to_owned());
        assert_eq!(versions(&mut peer, "k", set), [expiry(), wrote], "{line}");
        assert_eq!(last(&mut peer), set + 2, "{line}");
        let then = peer.run(&format!("AT r:{} EXISTS k", set + 1));
        assert_eq!(then, integer(0), "{line}: between the two there is none");
    }
    // Commands that find nothing else to do have written nothing.
    for line in ["DEL k", "GETDEL k", "PERSIST k", "EXPIRE k 5", "HDEL k f", "UNLINK k"] {
        let set = due(&server, &mut peer, "k");
        peer.run(line);
        assert_eq!(versions(&mut peer, "k", set), [expiry()], "{line}");
        assert_eq!(last(&mut peer), set, "{line}");
    }
}

#[test]
fn what_a_transaction_finds_to_be_due_goes_before_it() {
    let (server, _past) = Server::with_past();
    let mut peer = server.connect();
    let set = due(&server, &mut peer, "k");
    peer.run("MULTI");
    for line in ["LASTREV", "SET other 1", "LASTREV", "SET k 2", "GET k"] {
        peer.run(line);
    }
    let tried = peer.run("WHATIF EXEC");
    let replies = [integer(set), ok(), integer(set + 2), ok(), bulk("2")];
    assert_eq!(tried_field(&tried, "reply"), Frame::Array(replies.to_vec()));
    assert_eq!(peer.run("EXEC"), Frame::Array(replies.to_vec()));
    assert_eq!(versions(&mut peer, "k", set), [expiry(), by(2, "exec")]);
    assert_eq!(versions(&mut peer, "other", set), [by(2, "exec")]);
    // One that only finds it so has written nothing.
    let set = due(&server, &mut peer, "k");
    for line in ["MULTI", "DEL k", "LASTREV"] {
        peer.run(line);
    }
    assert_eq!(peer.run("EXEC"), Frame::Array(vec![integer(0), integer(set)]));
    assert_eq!(last(&mut peer), set);
    assert_eq!(versions(&mut peer, "k", set), [expiry()]);
}

/// A field of what WHATIF answers.
fn tried_field(tried: &Frame, name: &str) -> Frame {
    let Frame::Map(pairs) = tried else { panic!("{tried:?}") };
    let pair = pairs.iter().find(|(field, _)| *field == bulk(name)).expect("it has all fields");
    pair.1.clone()
}

#[test]
fn several_that_are_due_go_at_once_whatever_their_database() {
    let (server, _past) = Server::with_past();
    let mut peer = server.connect();
    peer.run("SELECT 3");
    peer.run("SET a due PX 3");
    let set = due(&server, &mut peer, "b");
    assert_eq!(peer.run("MSET a 1 b 2 c 3"), ok());
    for (key, rows) in [("a", 2), ("b", 2), ("c", 1)] {
        assert_eq!(versions(&mut peer, key, set).len(), rows, "{key}");
    }
    assert_eq!(last(&mut peer), set + 2);
    // What moves to another database, over a key that is due there.
    peer.run("SELECT 5");
    let set = due(&server, &mut peer, "a");
    peer.run("SELECT 3");
    assert_eq!(peer.run("COPY a a DB 5 REPLACE"), integer(1));
    assert_eq!(versions(&mut peer, "a", set), []);
    peer.run("SELECT 5");
    assert_eq!(versions(&mut peer, "a", set), [expiry(), by(2, "copy")]);
    assert_eq!(peer.run(&format!("AT r:{} GET a", set + 2)), bulk("1"));
    // The record of what is due is of that database, the other begins here.
    let set = due(&server, &mut peer, "c");
    let mut waits = server.connect();
    waits.run("SELECT 5");
    let blocked = waits.block("BLPOP list 0");
    peer.run("SELECT 3");
    peer.run("MULTI");
    for line in ["MOVE c 5", "SELECT 5", "RPUSH list x"] {
        peer.run(line);
    }
    assert_eq!(peer.run("EXEC"), Frame::Array(vec![integer(1), ok(), integer(1)]));
    assert_eq!(versions(&mut peer, "c", set), [expiry(), by(2, "exec")]);
    assert_eq!(peer.run(&format!("AT r:{} GET c", set + 2)), bulk("3"));
    assert_eq!(peer.run("LLEN list"), integer(0), "who waited in this database was served");
    drop(blocked);
    peer.run("SELECT 3");
    assert_eq!(versions(&mut peer, "c", set), [by(2, "exec")]);
    assert_eq!(peer.run(&format!("AT r:{} EXISTS c", set + 2)), integer(0));
}

#[test]
fn expiries_are_counted_under_a_name_that_no_command_has() {
    let (server, _past) = Server::with_past();
    let mut peer = server.connect();
    peer.run("SET k 1");
    peer.run("EXPIRE k 100");
    due(&server, &mut peer, "k");
    peer.run("GET k");
    due(&server, &mut peer, "k");
    peer.run("DEL k");
    let Frame::Array(rows) = peer.run("TIMELINE BUCKET 1h") else { panic!("TIMELINE") };
    let count = |row: &Frame| {
        let Frame::Array(items) = row else { panic!("{row:?}") };
        (text(&items[1]), items[2].clone())
    };
    let counts: Vec<_> = rows.iter().map(count).collect();
    let named = |name: &str, count| (name.to_owned(), integer(count));
    assert_eq!(counts, [named("expire", 1), named("expired", 2), named("set", 3)]);
}
