//! UNDO of what a flush took and the archive does not have: it is in memory still.

mod harness;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Frame, Revision, SpaceId};
use engine::{Archive, BackedUp, Checkpointed};
use harness::{Peer, Server, integer, ok};
use tokio::sync::watch;

/// So many are not brought back one by one.
const KEYS: i64 = 12_000;

/// An archive that a test moves on, and that has nothing for who waits for it.
struct Behind {
    progress: watch::Sender<Checkpointed>,
    hurried: AtomicU64,
    waited: AtomicU64,
}

impl Archive for Behind {
    fn progress(&self) -> watch::Receiver<Checkpointed> {
        self.progress.subscribe()
    }

    fn request(&self, revision: Revision) {
        self.hurried.store(revision.0, Ordering::SeqCst);
    }

    fn settle(&self, _: Revision) -> Result<(), String> {
        self.waited.fetch_add(1, Ordering::SeqCst);
        Err("it has stopped".to_owned())
    }

    fn claim(&self, _: SpaceId, _: Option<Revision>) -> bool {
        true
    }

    fn lag_bytes(&self) -> u64 {
        0
    }

    fn backup(&self, _: &Path, _: bool) -> Result<BackedUp, String> {
        unreachable!("nobody asks for one")
    }

    fn backup_in_row(&self, _: &Path, _: usize, _: bool) -> Result<BackedUp, String> {
        unreachable!("nobody asks for one")
    }

    fn newest_backup_ms(&self, _: &Path) -> Option<u64> {
        None
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

fn behind() -> (Server, Arc<Behind>, Peer) {
    let (server, _) = Server::with_past();
    let archive = Arc::new(Behind {
        progress: watch::Sender::new(Checkpointed::default()),
        hurried: AtomicU64::new(0),
        waited: AtomicU64::new(0),
    });
    server.engine.attach_archive(archive.clone());
    let peer = server.connect();
    (server, archive, peer)
}

fn fill(peer: &mut Peer) {
    for n in 0..KEYS {
        assert_eq!(peer.run(&format!("SET k:{n} {n}")), ok());
    }
    assert_eq!(peer.run("EXPIRE k:3 100"), integer(1));
}

/// Takes everything away; answers the revision of that.
fn flush(server: &Server, peer: &mut Peer) -> i64 {
    assert_eq!(peer.run("FLUSHALL"), ok());
    server.engine.end_turn(&mut peer.session);
    assert_eq!(peer.run("DBSIZE"), integer(0));
    let Frame::Integer(revision) = peer.run("LASTREV") else { panic!("no revision") };
    revision
}

/// Takes that back; answers whether it took over what the flush left, rather than
/// write the keys again.
fn undo(peer: &mut Peer) -> bool {
    assert!(matches!(peer.run("UNDO"), Frame::Map(_) | Frame::Array(_)));
    assert_eq!(peer.run("DBSIZE"), integer(KEYS));
    assert_eq!(peer.run("GET k:7"), Frame::bulk("7"));
    let Frame::Integer(undone) = peer.run("LASTREV") else { panic!("no revision") };
    assert_eq!(peer.run("OBJECT REVISION k:7"), integer(undone));
    let changes = peer.run(&format!("CHANGES FROM r:{undone} TO r:{undone}"));
    let Frame::Array(rows) = changes else { panic!("{changes:?}") };
    let returned = Frame::bulk("returned");
    rows.iter().any(|row| matches!(row, Frame::Array(row) if row.last() == Some(&returned)))
}

fn waiting(peer: &mut Peer) -> bool {
    let Frame::Verbatim(_, info) = peer.run("INFO memory") else { panic!("no text") };
    !info.contains("lazyfree_pending_objects:0\r")
}

/// Lets the background free what it may, until nothing waits.
fn until_freed(server: &Server, peer: &mut Peer) {
    let (engine, goes_on) = (server.engine.clone(), Arc::new(AtomicBool::new(true)));
    let thread = {
        let (engine, goes_on) = (engine.clone(), goes_on.clone());
        std::thread::spawn(move || engine.keep_tier(&goes_on))
    };
    while waiting(peer) {
        std::thread::yield_now();
    }
    goes_on.store(false, Ordering::SeqCst);
    engine.tier_moved();
    thread.join().expect("it ends");
}

#[test]
fn what_the_archive_lacks_comes_back_from_memory() {
    let (server, archive, mut peer) = behind();
    fill(&mut peer);
    for round in 0..3 {
        let state = peer.run("DEBUG DIGEST");
        let flushed = flush(&server, &mut peer);
        assert_eq!(archive.hurried.load(Ordering::SeqCst) as i64, flushed - 1);
        assert!(waiting(&mut peer), "round {round}");
        assert!(undo(&mut peer), "round {round}");
        assert!(!waiting(&mut peer), "round {round}: it is the database again");
        assert_eq!(peer.run("DEBUG DIGEST"), state, "round {round}");
        assert_eq!(peer.run(&format!("SET new:{round} 1")), ok());
        assert_eq!(peer.run(&format!("DEL new:{round}")), integer(1));
    }
    assert_eq!(archive.waited.load(Ordering::SeqCst), 0);
    // Of two flushes the older one is freed.
    let first = flush(&server, &mut peer);
    fill(&mut peer);
    assert!(flush(&server, &mut peer) > first);
    assert!(undo(&mut peer));
    until_freed(&server, &mut peer);
}

#[test]
fn what_was_written_meanwhile_is_looked_up_in_memory_too() {
    let (server, archive, mut peer) = behind();
    fill(&mut peer);
    let flushed = flush(&server, &mut peer);
    assert_eq!(peer.run("SET new 1"), ok());
    assert_eq!(peer.run("SET k:5 1"), ok());
    let conflict = format!("MERGECONFLICT 1 key changed since r:{flushed}, nothing done");
    assert_eq!(peer.run("UNDO"), Frame::Error(conflict.clone()));
    // To remove it again does not make it what it was.
    assert_eq!(peer.run("DEL k:5"), integer(1));
    assert_eq!(peer.run("UNDO"), Frame::Error(conflict.clone()));
    assert_eq!(peer.run("FLUSHALL NOUNDO"), ok());
    assert!(waiting(&mut peer));
    fill(&mut peer);
    flush(&server, &mut peer);
    assert_eq!(peer.run("SET new 2"), ok());
    assert_eq!(peer.run("MSET gone 1 new:2 3"), ok());
    assert_eq!(peer.run("DEL gone"), integer(1));
    assert!(matches!(peer.run("UNDO"), Frame::Map(_) | Frame::Array(_)));
    assert_eq!(peer.run("DBSIZE"), integer(KEYS + 2));
    let now = ["GET new", "GET new:2", "GET gone", "GET k:5"].map(|line| peer.run(line));
    assert_eq!(now, [Frame::bulk("2"), Frame::bulk("3"), Frame::Null, Frame::bulk("5")]);
    assert_eq!(archive.waited.load(Ordering::SeqCst), 0);
}

#[test]
fn what_the_archive_has_is_freed() {
    let (server, archive, mut peer) = behind();
    fill(&mut peer);
    let flushed = flush(&server, &mut peer);
    assert!(waiting(&mut peer));
    archive.progress.send_modify(|now| now.revision = Revision(flushed as u64 - 1));
    until_freed(&server, &mut peer);
    undo(&mut peer);
    assert_eq!(archive.waited.load(Ordering::SeqCst), 1, "it is asked for it");
    // It does not wait there if the archive has it before, nor when it has failed.
    let newest = |peer: &mut Peer| match peer.run("LASTREV") {
        Frame::Integer(revision) => Revision(revision as u64),
        other => panic!("{other:?}"),
    };
    let reached = newest(&mut peer);
    archive.progress.send_modify(|now| now.revision = reached);
    flush(&server, &mut peer);
    until_freed(&server, &mut peer);
    fill(&mut peer);
    archive.progress.send_modify(|now| now.fault = Some("the disk is full".to_owned()));
    flush(&server, &mut peer);
    until_freed(&server, &mut peer);
}

#[test]
fn memory_that_somebody_needs_is_freed() {
    let (server, archive, mut peer) = behind();
    fill(&mut peer);
    flush(&server, &mut peer);
    assert!(waiting(&mut peer));
    assert_eq!(peer.run("MEMORY PURGE"), ok());
    until_freed(&server, &mut peer);
    undo(&mut peer);
    assert_eq!(archive.waited.load(Ordering::SeqCst), 1);
    // Within a limit it is there as long as there is room.
    let limit = 2 * server.engine.used_memory();
    assert_eq!(peer.run(&format!("CONFIG SET maxmemory {limit}")), ok());
    flush(&server, &mut peer);
    assert_eq!(peer.run("SET small 1"), ok());
    assert!(waiting(&mut peer));
    let large = "x".repeat(limit as usize / 2);
    assert_eq!(peer.run(&format!("SET large {large}")), ok());
    assert_eq!(peer.run("SET small 2"), ok());
    until_freed(&server, &mut peer);
}
