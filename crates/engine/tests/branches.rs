//! Branches that are deleted or made anew beside others, and what their clients
//! are told.

mod harness;

use std::sync::Arc;

use base::{Frame, Revision};
use engine::Outcome;
use harness::forks::Forks;
use harness::past::MemoryPast;
use harness::{Peer, Server, bulk, error, integer, ok};
use keyspace::Branches;
use parking_lot::Mutex;

/// A server with the branch `b`, and a client that is on it.
fn branched() -> (Server, Arc<MemoryPast>, Peer) {
    let (server, past) = Server::with_past();
    server.engine.attach_branches(Arc::new(Forks::default()), Branches::default(), Vec::new());
    let mut peer = server.resp3();
    peer.run("BRANCH CREATE b");
    assert_eq!(peer.run("BRANCH USE b"), ok());
    (server, past, peer)
}

/// A client on the branch `b`, which another one changes by `line` when a write
/// there is admitted and has not taken its locks.
fn too_late(line: &'static str) -> (Server, Peer, impl Fn()) {
    let (server, past, peer) = branched();
    let others = Mutex::new(vec![server.connect()]);
    let before_next = move || {
        let mut other = others.lock().pop().expect("it is called once");
        *past.before_write.lock() = Some(Box::new(move || assert_eq!(other.run(line), ok())));
    };
    (server, peer, before_next)
}

#[test]
fn a_write_that_waits_while_its_branch_is_deleted_is_not_acknowledged() {
    const GONE: &str = "NOBRANCH the branch 'b' of this connection was deleted; BRANCH USE another";
    let (_server, mut peer, delete_before_next) = too_late("BRANCH DELETE b FORCE");
    delete_before_next();
    let (replies, outcome) = peer.call("SET k v");
    assert!(matches!((&replies[..], outcome), ([], Outcome::Paused(_))), "{replies:?}");
    assert_eq!(peer.run("SET k v"), error(GONE));

    let (_server, mut peer, delete_before_next) = too_late("BRANCH DELETE b FORCE");
    assert_eq!(peer.run("MULTI"), ok());
    assert_eq!(peer.run("SET k v"), Frame::Simple("QUEUED".to_owned()));
    delete_before_next();
    let (replies, outcome) = peer.call("EXEC");
    assert!(matches!((&replies[..], outcome), ([], Outcome::Paused(_))), "{replies:?}");
    assert_eq!(peer.run("EXEC"), error(GONE));
    assert_eq!(peer.run("DISCARD"), error("ERR DISCARD without MULTI"));
}

#[test]
fn a_write_that_waits_while_its_branch_begins_anew_goes_there() {
    let (_server, mut peer, reset_before_next) = too_late("BRANCH RESET b TO PARENT");
    reset_before_next();
    assert!(matches!(peer.call("SET k v").1, Outcome::Paused(_)));
    assert_eq!(peer.run("SET k v"), ok());
    assert_eq!(peer.run("GET k"), bulk("v"));

    let (server, mut peer, reset_before_next) = too_late("BRANCH RESET b TO PARENT");
    assert_eq!(peer.run("WATCH w"), ok());
    assert_eq!(peer.run("MULTI"), ok());
    assert_eq!(peer.run("SET k v"), Frame::Simple("QUEUED".to_owned()));
    reset_before_next();
    assert!(matches!(peer.call("EXEC").1, Outcome::Paused(_)));
    let clients = server.connect().run("CLIENT LIST");
    let Frame::Verbatim(_, clients) = clients else { panic!("{clients:?}") };
    assert!(clients.contains(" multi=1 "), "{clients:?}");
    assert_eq!(peer.run("EXEC"), Frame::Array(vec![ok()]));
    assert_eq!(peer.run("GET k"), bulk("v"));
}

#[test]
fn what_is_shown_of_branches_depends_on_their_records() {
    let (server, _, mut on_it) = branched();
    let (mut writer, mut reader) = (server.connect(), server.connect());
    let mut check = |reader: &mut Peer, change: &str, looks: &[&str]| {
        let before = writer.session.depends_on;
        writer.session.depends_on = Revision::ZERO;
        writer.run(change);
        let changed = writer.session.depends_on;
        assert!(changed > before, "{change}");
        for look in looks {
            reader.session.depends_on = Revision::ZERO;
            reader.call(look);
            assert!(reader.session.depends_on >= changed, "{look} after {change}");
        }
    };
    check(&mut on_it, "BRANCH RESET b TO PARENT", &["GET none"]);
    check(&mut reader, "BRANCH CREATE c", &["BRANCH LIST", "BRANCH USE c"]);
    check(&mut reader, "BRANCH RENAME c d", &["BRANCH LIST", "BRANCH USE d"]);
    assert_eq!(reader.run("BRANCH USE main"), ok());
    check(&mut reader, "TAG CREATE t", &["TAG LIST"]);
    check(&mut reader, "HISTORY.POLICY SET a KEEP NONE", &["HISTORY.POLICY LIST", "AT r:1 GET a"]);
    check(&mut reader, "SET gone v", &["UNDELETE gone"]);
    assert_eq!(reader.run("HSET h f v"), integer(1));
    check(&mut reader, "SWAPDB 0 1", &["HDEL h zz", "GET none", "LPOP none"]);
    check(&mut reader, "SWAPDB 0 1", &["HDEL h zz", "HGET h f", "GET none"]);
}

#[test]
fn what_is_shown_of_a_purge_depends_on_its_record() {
    let (server, _past) = Server::with_past();
    let (mut writer, mut reader) = (server.connect(), server.connect());
    for line in ["SET k 1", "SET k 2"] {
        assert_eq!(writer.run(line), ok());
    }
    assert_eq!(writer.run("HISTORY.PURGE k CONFIRM"), integer(2));
    for look in ["AT r:1 GET k", "HISTORY k"] {
        reader.session.depends_on = Revision::ZERO;
        reader.call(look);
        assert!(reader.session.depends_on >= Revision(3), "{look}");
    }
}

#[test]
fn a_cache_of_a_branch_is_forgotten_when_that_goes() {
    let (server, _, mut peer) = branched();
    let (mut other, mut writer) = (server.resp3(), server.connect());
    for client in [&mut peer, &mut other] {
        assert_eq!(client.run("CLIENT TRACKING ON"), ok());
        client.run("GET k");
        assert_eq!(client.pushes(), []);
    }
    let forget = || vec![Frame::Push(vec![bulk("invalidate"), Frame::Null])];
    assert_eq!(writer.run("BRANCH RESET b TO PARENT"), ok());
    assert_eq!(peer.pushes(), forget());
    assert_eq!(peer.run("GET k"), Frame::Null);
    assert_eq!(writer.run("BRANCH DELETE b FORCE"), ok());
    assert_eq!(peer.pushes(), forget());
    assert_eq!(other.pushes(), [], "main is what it was");
}
