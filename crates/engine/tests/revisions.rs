//! LASTREV, WAITREV, OBJECT REVISION, CLIENT REPLYREV on the bare engine.

mod harness;

use base::{Clock, Frame, Revision};
use engine::{Outcome, Session};
use harness::{Gate, Peer, Server, error, integer, ok};

fn shown(session: &Session) -> Option<u64> {
    let shown = session.shown();
    shown.first().map(|&(name, number)| {
        assert_eq!(name, "rev");
        u64::try_from(number).expect("a revision")
    })
}

/// A client that speaks RESP3 and sees revisions.
fn watcher(server: &Server) -> Peer {
    let mut peer = server.resp3();
    assert_eq!(peer.run("CLIENT REPLYREV ON"), ok());
    peer
}

#[test]
fn a_connection_knows_its_last_write() {
    let server = Server::new();
    let (mut me, mut other) = (server.connect(), server.connect());
    for (line, last) in [
        ("GET k", None),
        ("SET k v PX 100", Some(1)),
        ("SET k w NX", Some(1)),
        ("DEL none", Some(1)),
        ("INCR n", Some(2)),
        ("RESET", Some(2)),
        ("INCR k", Some(2)),
    ] {
        me.run(line);
        assert_eq!(me.run("LASTREV"), last.map_or(Frame::Null, integer), "{line}");
    }
    other.run("SET other v");
    assert_eq!((me.run("LASTREV"), other.run("LASTREV")), (integer(2), integer(3)));
    // A read that finds a key due removes it, which is not the reader's write.
    server.clock.advance_ms(200);
    assert_eq!(other.run("GET k"), Frame::Null);
    assert_eq!((other.run("LASTREV"), me.run("WAITREV 4 0")), (integer(3), integer(4)));
}

#[test]
fn a_transaction_is_one_revision_that_its_commands_see() {
    let server = Server::new();
    let mut me = server.connect();
    me.run("SET k v");
    for line in ["MULTI", "LASTREV", "SET k w", "RPUSH l a", "LASTREV", "OBJECT REVISION l"] {
        me.run(line);
    }
    let replies = vec![integer(1), ok(), integer(1), integer(2), integer(2)];
    assert_eq!(me.run("EXEC"), Frame::Array(replies));
    assert_eq!(me.run("LASTREV"), integer(2));
    for key in ["k", "l"] {
        assert_eq!(me.run(&format!("OBJECT REVISION {key}")), integer(2), "{key}");
    }
}

#[test]
fn a_key_has_the_revision_of_its_last_change() {
    let server = Server::new();
    let mut me = server.connect();
    for (line, key, revision) in [
        ("SET a v", "a", Some(1)),
        ("HSET b f v", "b", Some(2)),
        ("GET a", "a", Some(1)),
        ("EXPIRE a 100", "a", Some(3)),
        ("HSET b f w", "b", Some(4)),
        ("RENAME b c", "c", Some(5)),
        ("TOUCH c", "b", None),
        ("COPY a d", "d", Some(6)),
        ("DEL a", "a", None),
        ("SET a v", "a", Some(8)),
    ] {
        me.run(line);
        let expected = revision.map_or(Frame::Null, integer);
        assert_eq!(me.run(&format!("OBJECT REVISION {key}")), expected, "{line}");
    }
}

#[test]
fn waitrev_ends_with_the_write_it_waits_for() {
    let server = Server::new();
    let (mut me, mut other, mut writer) = (server.connect(), server.connect(), server.connect());
    assert_eq!(me.run("WAITREV 0 0"), integer(0), "nothing was written yet");
    let mut first = me.block("WAITREV 1 0");
    assert_eq!(first.deadline_ms, None);
    let mut third = other.block("WAITREV 3 500");
    assert_eq!(third.deadline_ms, Some(server.clock.now_ms() + 500));
    writer.run("SET k v");
    let answer = first.answer.try_recv().expect("revision 1 is there");
    assert_eq!((answer.frame(), answer.depends_on), (integer(1), Revision(1)));
    writer.run("SET k w");
    assert!(third.answer.try_recv().is_err(), "its revision is later");
    // A key's expiry is a revision as good as any.
    writer.run("SET k x PX 1");
    assert_eq!(third.answer.try_recv().expect("revision 3 is there").frame(), integer(3));
    let mut fourth = me.block("WAITREV 4 0");
    server.clock.advance_ms(10);
    assert_eq!(server.engine.expire_cycle(1_000_000), 1);
    assert_eq!(fourth.answer.try_recv().expect("revision 4 is there").frame(), integer(4));
    // So is the pop of a client that waited for a push.
    let mut sixth = me.block("WAITREV 6 0");
    let mut popped = other.block("BLPOP queue 0");
    writer.run("RPUSH queue x");
    let answer = popped.answer.try_recv().expect("fed");
    assert_eq!(answer.written, Some(Revision(6)));
    assert_eq!(sixth.answer.try_recv().expect("revision 6 is there").frame(), integer(6));
}

#[test]
fn waitrev_gives_up_at_its_time_or_when_told() {
    let server = Server::new();
    let (mut me, mut other) = (server.connect(), server.connect());
    let mut waits = me.block("WAITREV 5 50");
    other.run("SET k v");
    server.engine.time_out(waits.id);
    assert_eq!(waits.answer.try_recv().expect("its time is over").frame(), integer(1));
    for (line, frame) in [
        ("CLIENT UNBLOCK {}", integer(1)),
        ("CLIENT UNBLOCK {} ERROR", error("UNBLOCKED client unblocked via CLIENT UNBLOCK")),
    ] {
        let mut waits = me.block("WAITREV 5 0");
        assert_eq!(other.run(&line.replace("{}", &me.id().to_string())), integer(1));
        assert_eq!(waits.answer.try_recv().expect("unblocked").frame(), frame, "{line}");
    }
    // A wait whose client has left is forgotten, and the next one is not held up.
    let gone = me.block("WAITREV 2 0");
    assert!(server.engine.cancel_wait(gone.id));
    let mut waits = me.block("WAITREV 2 0");
    other.run("SET k w");
    assert_eq!(waits.answer.try_recv().expect("revision 2 is there").frame(), integer(2));
    for line in ["MULTI", "WAITREV 9 0"] {
        me.run(line);
    }
    assert_eq!(me.run("EXEC"), Frame::Array(vec![integer(2)]));
}

#[test]
fn waitrev_waits_for_the_commit() {
    let gate = Gate::shut();
    let server = Server::with(gate.clone());
    let (mut me, mut writer) = (server.connect(), server.connect());
    writer.run("SET k v");
    let mut waits = me.block("WAITREV 1 0");
    server.engine.run_committed();
    assert!(waits.answer.try_recv().is_err(), "a crash could still take it back");
    gate.reach(1);
    server.engine.run_committed();
    assert_eq!(waits.answer.try_recv().expect("committed").frame(), integer(1));
    let mut waits = me.block("WAITREV 2 0");
    gate.fail();
    server.engine.run_committed();
    assert_eq!(waits.answer.try_recv().expect("no hope").frame(), error("MISCONF broken"));
}

#[test]
fn a_write_is_never_missed_by_a_wait_that_begins_beside_it() {
    const ROUNDS: i64 = 2000;
    let server = Server::new();
    let mut writer = server.connect();
    let mut waiter = server.connect();
    let writes = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            writer.run(&format!("SET k{round} v"));
        }
    });
    // The writer runs on without regard to the waits, so that they begin before,
    // at and after the writes they are for.
    for round in 1..=ROUNDS {
        let answer = match waiter.call(&format!("WAITREV {round} 0")) {
            (mut replies, Outcome::Done) => replies.remove(0),
            (_, Outcome::Blocked(blocked)) => {
                blocked.answer.blocking_recv().expect("answered by the write").frame()
            }
            (_, other) => panic!("{other:?}"),
        };
        assert!(matches!(answer, Frame::Integer(applied) if applied >= round), "{answer:?}");
    }
    writes.join().expect("no panic");
}

#[test]
fn replies_carry_the_revision_they_are_true_at() {
    let server = Server::new();
    let (mut me, mut other) = (watcher(&server), server.connect());
    assert_eq!(shown(&me.session), Some(0), "nothing was written yet");
    for (line, revision) in [
        ("SET k v", 1),
        ("GET k", 1),
        ("PING", 1),
        ("DEL none", 1),
        ("INCR k", 1),
        ("NOSUCH", 1),
        ("MULTI", 1),
        ("INCR n", 1),
        ("GET k", 1),
        ("EXEC", 2),
    ] {
        me.run(line);
        assert_eq!(shown(&me.session), Some(revision), "{line}");
    }
    // Others' writes count in what reads see, whichever key they are of.
    other.run("SET x v");
    for line in ["GET k", "GET none", "PING"] {
        me.run(line);
        assert_eq!(shown(&me.session), Some(3), "{line}");
    }
    other.run("SET k v PX 1");
    server.clock.advance_ms(10);
    me.run("GET k");
    assert_eq!(shown(&me.session), Some(5), "it removed the key");
    me.run("CLIENT REPLYREV OFF");
    assert_eq!(shown(&me.session), None);
    assert_eq!(shown(&other.session), None, "nobody else asked for it");
}

#[test]
fn a_revision_is_shown_only_once_it_is_committed() {
    let gate = Gate::shut();
    let server = Server::with(gate.clone());
    let (mut me, mut other) = (watcher(&server), server.connect());
    other.run("SET x v");
    me.run("GET k");
    let is_later = |session: &Session| session.revision > session.depends_on;
    assert_eq!(shown(&me.session), Some(0), "nothing it read depends on revision 1");
    me.run("GET x");
    assert_eq!(shown(&me.session), Some(1));
    assert!(!is_later(&me.session), "the reply waits for the commit");
    gate.reach(1);
    other.run("SET x w");
    me.run("GET k");
    assert_eq!(shown(&me.session), Some(1));
}

#[test]
fn a_wait_ends_with_the_revision_of_its_answer() {
    let server = Server::new();
    let (mut me, mut other) = (watcher(&server), server.connect());
    let mut blocked = me.block("BLPOP queue 0");
    other.run("RPUSH queue x");
    other.run("SET k v");
    let answer = blocked.answer.try_recv().expect("fed");
    let mut sink = base::FrameBuilder::new(true);
    server.engine.reply_blocked(&mut me.session, &mut sink, Some(&answer), &blocked.on_timeout);
    assert_eq!(shown(&me.session), Some(2), "that of its pop");
    assert_eq!(me.run("LASTREV"), integer(2));
    let mut blocked = me.block("WAITREV 4 0");
    other.run("SET k w");
    let answer = blocked.answer.try_recv().expect("applied");
    let mut sink = base::FrameBuilder::new(true);
    server.engine.reply_blocked(&mut me.session, &mut sink, Some(&answer), &blocked.on_timeout);
    assert_eq!(shown(&me.session), Some(4));
    assert_eq!(me.run("LASTREV"), integer(2), "waiting is not writing");
}

#[test]
fn pushes_carry_no_revision_and_resp2_ends_it() {
    let server = Server::new();
    let mut me = watcher(&server);
    me.run("SUBSCRIBE news");
    assert_eq!(shown(&me.session), None);
    me.run("PING");
    assert_eq!(shown(&me.session), Some(0));
    me.run("HELLO 2");
    assert_eq!(shown(&me.session), None);
    me.run("HELLO 3");
    assert_eq!(shown(&me.session), None, "it is asked for again or it stays off");
    me.run("CLIENT REPLYREV ON");
    me.run("RESET");
    assert_eq!(shown(&me.session), None);
    let refused = error("ERR CLIENT REPLYREV needs RESP3: say HELLO 3 first");
    assert_eq!(me.run("CLIENT REPLYREV ON"), refused);
    assert_eq!(me.run("CLIENT REPLYREV OFF"), ok());
}

#[test]
fn errors_repeat_little_of_what_is_wrong() {
    let (server, _past) = Server::with_past();
    let mut peer = server.connect();
    let long = "x".repeat(64 << 10);
    for line in [
        "WAITREV {} 0",
        "UNWATCHFROM {}",
        "TIMELINE BUCKET {}",
        "HISTORY.POLICY SET * KEEP {}",
        "BRANCH CONFLICTS {}",
        "AT {} GET k",
        "BRANCH CREATE b TTL {}",
        "WATCHFROM r:0 PROGRESS {}",
    ] {
        let Frame::Error(said) = peer.run(&line.replace("{}", &long)) else { panic!("{line}") };
        assert!(said.len() < 256 && said.contains("xxxx"), "{line}: {said}");
    }
}
