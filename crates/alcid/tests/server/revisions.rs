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
