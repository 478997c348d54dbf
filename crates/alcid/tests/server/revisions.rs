//! Revisions in replies and waits for them, over sockets, with a log.

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::wire::{Came, PATIENCE, Wire, eventually, text_of};

impl Wire {
    /// The revision in front of the next reply, and the reply.
    fn revised(&mut self) -> (i64, Frame) {
        match self.frame() {
            Frame::Attribute(pairs) => match pairs.as_slice() {
                [(name, Frame::Integer(number))] if *name == Frame::bulk("rev") => {
                    (*number, self.frame())
                }
                other => panic!("{other:?}"),
            },
            other => panic!("no revision in front of {other:?}"),
        }
    }

    fn call_revised(&mut self, words: &[&str]) -> (i64, Frame) {
        assert!(self.send(words), "closed before {words:?}");
        self.revised()
    }

    fn number(&mut self, words: &[&str]) -> i64 {
        match self.call(words) {
            Frame::Integer(number) => number,
            other => panic!("{words:?}: {other:?}"),
        }
    }
}

fn resp3(server: &Server) -> Wire {
    let mut wire = Wire::connect(server.addr());
    wire.call(&["HELLO", "3"]);
    wire
}

fn ok() -> Frame {
    Frame::Simple("OK".to_owned())
}

/// Waits until the client `id` waits for something.
fn is_blocked(control: &mut Wire, id: i64) {
    let id = id.to_string();
    eventually("the client waits", || {
        let line = control.text(&["CLIENT", "LIST", "ID", &id]);
        line.contains(" flags=b ") || line.contains(" flags=bv ")
    });
}

#[test]
fn replies_of_a_pipeline_carry_their_revisions() {
    for fsync in ["always", "everysec"] {
        let server = Server::start(ALCID, &["--aof-fsync", fsync]);
        let mut wire = resp3(&server);
        assert_eq!(wire.call_revised(&["CLIENT", "REPLYREV", "ON"]), (0, ok()));
        let big = "x".repeat(100_000);
        let mut pipeline = Vec::new();
        for words in [&["SET", "a", &big][..], &["GET", "a"], &["SET", "b", "1"], &["GET", "a"]] {
            resp::encode_command(&mut pipeline, words);
        }
        wire.raw(&pipeline);
        assert_eq!(wire.revised(), (1, ok()), "{fsync}");
        assert_eq!(wire.revised(), (1, Frame::bulk(&big)));
        assert_eq!(wire.revised(), (2, ok()));
        let (revision, reply) = wire.revised();
        assert_eq!(reply, Frame::bulk(&big));
        assert_eq!(revision, 2, "it never goes down on a connection");
        // What SKIP keeps back takes its revision with it.
        let mut pipeline = Vec::new();
        for words in [&["CLIENT", "REPLY", "SKIP"][..], &["INCR", "b"], &["INCR", "b"]] {
            resp::encode_command(&mut pipeline, words);
        }
        wire.raw(&pipeline);
        assert_eq!(wire.revised(), (4, Frame::Integer(3)));
        let listed = wire.call_revised(&["CLIENT", "INFO"]).1;
        assert!(text_of(listed).contains(" flags=v "));
    }
}

#[test]
fn revisions_go_on_after_a_crash() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut wire = Wire::connect(server.addr());
    wire.call(&["SET", "a", "1"]);
    wire.call(&["SET", "b", "1"]);
    assert_eq!(wire.number(&["LASTREV"]), 2);
    server.kill();
    server.restart();
    let mut wire = resp3(&server);
    assert_eq!(wire.call(&["LASTREV"]), Frame::Null, "a new connection has written nothing");
    assert_eq!(wire.number(&["OBJECT", "REVISION", "a"]), 1);
    assert_eq!(wire.number(&["WAITREV", "2", "0"]), 2);
    assert_eq!(wire.call_revised(&["CLIENT", "REPLYREV", "ON"]), (2, ok()));
    assert_eq!(wire.call_revised(&["SET", "a", "2"]), (3, ok()));
}

#[test]
fn waitrev_waits_alone_and_ends_by_what_it_waits_for() {
    for options in [&["--aof-fsync", "always"][..], &["--aof-fsync", "no"], &["--no-log"]] {
        let server = Server::start(ALCID, options);
        let (mut control, mut waiting) = (Wire::connect(server.addr()), resp3(&server));
        let id = waiting.number(&["CLIENT", "ID"]);
        waiting.call_revised(&["CLIENT", "REPLYREV", "ON"]);
        // A write made by somebody else.
        waiting.send(&["WAITREV", "2", "0"]);
        is_blocked(&mut control, id);
        control.call(&["SET", "k", "1"]);
        assert_eq!(control.text(&["PING"]), "PONG", "nobody else is held up");
        control.call(&["SET", "k", "2"]);
        assert_eq!(waiting.revised(), (2, Frame::Integer(2)), "{options:?}");
        // The end of its time.
        assert_eq!(waiting.call_revised(&["WAITREV", "9", "10"]), (2, Frame::Integer(2)));
        // Another client's word.
        waiting.send(&["WAITREV", "9", "0"]);
        is_blocked(&mut control, id);
        assert_eq!(control.number(&["CLIENT", "UNBLOCK", &id.to_string()]), 1);
        assert_eq!(waiting.revised(), (2, Frame::Integer(2)));
        waiting.send(&["WAITREV", "9", "0"]);
        is_blocked(&mut control, id);
        control.call(&["CLIENT", "UNBLOCK", &id.to_string(), "ERROR"]);
        let text = text_of(waiting.revised().1);
        assert!(text.starts_with("UNBLOCKED "), "{text}");
    }
}

#[test]
fn a_server_that_ends_does_not_wait_for_a_revision() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut control, mut waiting) = (Wire::connect(server.addr()), Wire::connect(server.addr()));
    let id = waiting.number(&["CLIENT", "ID"]);
    waiting.send(&["WAITREV", "1000", "0"]);
    is_blocked(&mut control, id);
    assert!(server.terminate().success());
    assert_eq!(waiting.read(PATIENCE), Came::Closed);
}

#[test]
fn a_blocked_pop_carries_the_revision_it_made() {
    let server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let (mut control, mut waiting) = (Wire::connect(server.addr()), resp3(&server));
    let id = waiting.number(&["CLIENT", "ID"]);
    waiting.call_revised(&["CLIENT", "REPLYREV", "ON"]);
    waiting.send(&["BLPOP", "queue", "0"]);
    is_blocked(&mut control, id);
    control.call(&["RPUSH", "queue", "x"]);
    let popped = Frame::Array(vec![Frame::bulk("queue"), Frame::bulk("x")]);
    assert_eq!(waiting.revised(), (2, popped));
    assert_eq!(waiting.call_revised(&["LASTREV"]), (2, Frame::Integer(2)));
}

#[test]
fn pushes_stand_between_replies_without_a_revision() {
    let server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let (mut control, mut wire) = (Wire::connect(server.addr()), resp3(&server));
    wire.call_revised(&["CLIENT", "REPLYREV", "ON"]);
    assert!(matches!(wire.call(&["SUBSCRIBE", "news"]), Frame::Push(_)));
    control.call(&["PUBLISH", "news", "hello"]);
    assert!(matches!(wire.frame(), Frame::Push(_)));
    assert_eq!(wire.call_revised(&["GET", "k"]), (0, Frame::Null));
}

/// The newest revision that HISTORY lists of a key.
fn newest_of(wire: &mut Wire, key: &str) -> i64 {
    let Frame::Array(rows) = wire.call(&["HISTORY", key, "COUNT", "1"]) else { panic!("no rows") };
    match rows.first() {
        Some(Frame::Array(row)) => match row[0] {
            Frame::Integer(revision) => revision,
            ref other => panic!("{key}: {other:?}"),
        },
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn a_key_is_as_new_as_its_history_says() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut wire = Wire::connect(server.addr());
    // Keys of database 0 that exist after the last line, which is written there.
    let check = |server: &mut Server, wire: &mut Wire, lines: &[&str], keys: &[&str]| {
        for line in lines {
            let reply = wire.call(&line.split(' ').collect::<Vec<_>>());
            assert!(!matches!(reply, Frame::Error(_)), "{line}: {reply:?}");
        }
        let at_once: Vec<i64> = keys
            .iter()
            .map(|key| {
                // The server started a moment ago: what its databases were before it
                // looks up beside.
                let newest = newest_of(wire, key);
                let what = format!("{key} after {lines:?} is of {newest}");
                eventually(&what, || wire.number(&["OBJECT", "REVISION", key]) == newest);
                let told = newest;
                let at = format!("r:{}", told.max(wire.number(&["WAITREV", "0", "0"])));
                let then = wire.number(&["AT", &at, "OBJECT", "REVISION", key]);
                assert_eq!(then, told, "{key} {at} after {lines:?}");
                told
            })
            .collect();
        let branch = wire.text(&["BRANCH", "CURRENT"]);
        server.kill();
        server.restart();
        *wire = Wire::connect(server.addr());
        assert_eq!(wire.text(&["BRANCH", "USE", &branch]), "OK");
        for (key, at_once) in keys.iter().zip(at_once) {
            // The history is looked through beside those who ask already.
            let what = format!("{key} after {lines:?} and a start is of {at_once}");
            eventually(&what, || wire.number(&["OBJECT", "REVISION", key]) == at_once);
        }
    };
    check(&mut server, &mut wire, &["MSET k 1 o 1", "APPEND k x"], &["k", "o"]);
    check(&mut server, &mut wire, &["RENAME k r", "COPY r c"], &["r", "c"]);
    check(&mut server, &mut wire, &["SELECT 1", "MSET m 1 r 2", "MOVE m 0", "SELECT 0"], &["m"]);
    check(&mut server, &mut wire, &["SWAPDB 0 1"], &["r"]);
    check(&mut server, &mut wire, &["SWAPDB 0 1", "SET n 1"], &["r", "m", "c", "n"]);
    check(&mut server, &mut wire, &["BRANCH CREATE dev", "BRANCH USE dev"], &["r", "m", "n"]);
    check(&mut server, &mut wire, &["SET m 2", "SWAPDB 2 0", "SWAPDB 0 2"], &["m", "r"]);
    check(&mut server, &mut wire, &["BRANCH USE main", "BRANCH MERGE dev"], &["m", "r", "o"]);
    check(&mut server, &mut wire, &["BRANCH USE dev", "BRANCH RESET dev TO PARENT"], &["m", "r"]);
    check(&mut server, &mut wire, &["BRANCH USE main", "FLUSHDB", "UNDO"], &["m", "r", "n"]);
    let many: Vec<String> =
        (0..12_000).flat_map(|n| [format!("many:{n}"), n.to_string()]).collect();
    let words: Vec<&str> = ["MSET"].into_iter().chain(many.iter().map(String::as_str)).collect();
    assert_eq!(wire.text(&words), "OK");
    check(&mut server, &mut wire, &["FLUSHDB", "UNDO"], &["m", "many:7"]);
    // What the making of a branch had to write is no older than the branch, though
    // that is no change which the history lists.
    assert!(matches!(wire.call(&["BRANCH", "CREATE", "late", "AT", "-1ms"]), Frame::Array(_)));
    let made = wire.number(&["LASTREV"]);
    assert_eq!(wire.text(&["BRANCH", "USE", "late"]), "OK");
    let told = wire.number(&["OBJECT", "REVISION", "m"]);
    let newest = newest_of(&mut wire, "m");
    assert!(newest < made && (told == newest || told == made), "{told} of {newest}, {made}");
}

#[test]
fn watched_keys_change_with_their_database() {
    let server = Server::start(ALCID, &[]);
    let (mut wire, mut other) = (Wire::connect(server.addr()), Wire::connect(server.addr()));
    // By one transaction, so that both keys are of one revision.
    for words in [&["MULTI"][..], &["SET", "k", "0"], &["SELECT", "1"], &["SET", "k", "1"]] {
        other.call(words);
    }
    other.call(&["EXEC"]);
    wire.text(&["WATCH", "k"]);
    assert_eq!(other.text(&["SWAPDB", "0", "1"]), "OK");
    wire.text(&["MULTI"]);
    assert_eq!(wire.call(&["EXEC"]), Frame::NullArray);
}
