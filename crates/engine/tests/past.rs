//! Commands about the past, where a script cannot go: beside other threads, on
//! a runtime, and without a history.

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Frame, Revision, Rng, SeededRng};
use engine::{Outcome, Past, Replicator};
use harness::forks::{During, Forks};
use harness::past::MemoryPast;
use harness::{Gate, Peer, Server, bulk, error, integer, ok};
use keyspace::Branches;

/// Runs a line until no REVERT holds it up.
fn write(peer: &mut Peer, line: &str) -> Frame {
    loop {
        match peer.call(line) {
            (_, Outcome::Paused(_)) => std::thread::yield_now(),
            (mut replies, Outcome::Done) => return replies.remove(0),
            other => panic!("{line}: {other:?}"),
        }
    }
}

fn at(peer: &mut Peer, revision: i64, command: &str) -> Frame {
    peer.run(&format!("AT r:{revision} {command}"))
}

#[test]
fn without_a_history_it_is_said_how_to_get_one() {
    let server = Server::new();
    let mut peer = server.connect();
    let why = "ERR no history is kept; start with storage.aof_enabled = true and storage.history_keep above 0";
    for line in [
        "AT r:0 GET k",
        "AT r:0 DBSIZE",
        "CLIENT TRAVEL r:0",
        "HISTORY k",
        "BLAME k",
        "CHANGES",
        "TIMELINE",
        "REVERT k TO r:0",
        "REVERT ALL TO r:0",
        "UNDELETE k",
        "HISTORY.STATS",
        "HISTORY.COMPACT",
    ] {
        assert_eq!(peer.run(line), error(why), "{line}");
    }
    assert_eq!(peer.run("CLIENT TRAVEL OFF"), ok());
}

#[test]
fn records_tell_their_origin_only_where_there_is_a_history() {
    let bytes = |attached: bool| {
        let past = MemoryPast::new();
        let server = Server::with(past.clone());
        if attached {
            server.engine.attach_past(past.clone());
        }
        let mut peer = server.connect();
        peer.run("SET key value");
        peer.run("GET key");
        peer.run("DEL none");
        past.bytes()
    };
    // set, default, 127.0.0.1:1001, their lengths and a tag.
    assert_eq!(bytes(true), bytes(false) + 1 + 4 + 8 + 15);
}

#[test]
fn a_revert_of_many_keys_is_exact_beside_writers() {
    const KEYS: usize = 8;
    let (server, past) = Server::with_past();
    let mut peer = server.connect();
    for key in 0..KEYS {
        peer.run(&format!("SET p:{key} first"));
    }
    let newest = || Replicator::newest(&*past).0;
    let to = newest();
    let stop = AtomicBool::new(false);
    let mut reverts = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || {
                let mut peer = server.connect();
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    // Keys that are new, keys of all writers, keys of nobody's prefix.
                    write(&mut peer, &format!("SET p:{writer}:{} x", round % 5));
                    write(&mut peer, &format!("INCR q:{writer}"));
                    write(&mut peer, "MULTI");
                    write(&mut peer, &format!("SET p:{} {writer}:{round}", round % KEYS));
                    write(&mut peer, &format!("DEL p:{}", (round + 1) % KEYS));
                    write(&mut peer, "EXEC");
                }
            });
        }
        for _ in 0..6 {
            let enough = newest() + 40;
            while newest() < enough {
                std::thread::yield_now();
            }
            match peer.run(&format!("REVERT PREFIX p: TO r:{to}")) {
                Frame::Map(pairs) => reverts.push(pairs[0].1.clone()),
                other => panic!("{other:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    for revision in reverts {
        let Frame::Integer(revision) = revision else { panic!("nothing to revert: {revision:?}") };
        let Frame::Array(keys) = at(&mut peer, revision, "KEYS p:*") else { panic!("KEYS") };
        assert_eq!(keys.len(), KEYS, "at {revision}");
        let names: String = (0..KEYS).map(|key| format!(" p:{key}")).collect();
        let values = at(&mut peer, revision, &format!("MGET{names}"));
        assert_eq!(values, Frame::Array(vec![bulk("first"); KEYS]), "at {revision}");
    }
    assert_eq!(past.oldest(), Revision::ZERO);
}

/// A key that was to be removed, and has gone with all others since it was seen to be
/// there: its name is neither in the state to bring back nor in the present.
#[test]
fn a_revert_knows_that_a_flush_has_taken_what_it_was_to_remove() {
    // The key besides is still there, and all three are in the other database.
    for (meanwhile, removed) in
        [("FLUSHDB", 0), ("FLUSHALL", 0), ("REMOVE PREFIX n", 1), ("SWAPDB 0 5", 3)]
    {
        for (target, removed) in [("ALL", removed), ("PREFIX n", 0)] {
            let (server, past) = Server::with_past();
            let mut peer = server.connect();
            peer.run("SET n:old first");
            let to = Replicator::newest(&*past).0;
            peer.run("SET n:new second");
            for line in ["SET other x", meanwhile] {
                let mut other = server.connect();
                past.before_reads.lock().push_back(Box::new(move || drop(other.run(line))));
            }
            let reply = peer.run(&format!("REVERT {target} TO r:{to}"));
            assert!(past.before_reads.lock().is_empty(), "it looks twice beside writers");
            let Frame::Map(pairs) = reply else { panic!("{reply:?}") };
            let counts = [&pairs[1].1, &pairs[2].1];
            assert_eq!(counts, [&integer(1), &integer(removed)], "{meanwhile}, {target}");
            // As it is, and as its records make it.
            let newest = Replicator::newest(&*past).0 as i64;
            assert_eq!(peer.run("GET n:old"), bulk("first"), "{meanwhile}, {target}");
            assert_eq!(peer.run("EXISTS n:new"), integer(0), "{meanwhile}, {target}");
            assert_eq!(at(&mut peer, newest, "GET n:old"), bulk("first"), "{meanwhile}, {target}");
        }
    }
}

/// What became of a key is in its records: that many flushes found none is not read,
/// flush by flush, from the past.
#[test]
fn flushes_that_found_no_key_cost_no_reading() {
    let (server, past) = Server::with_past();
    let mut peer = server.connect();
    peer.run("SET k v");
    for _ in 0..100 {
        peer.run("SET other v");
        peer.run("FLUSHDB");
    }
    let before = past.views.load(Ordering::Relaxed);
    let Frame::Array(rows) = peer.run("HISTORY k") else { panic!("no rows") };
    let revisions: Vec<Frame> = rows
        .into_iter()
        .map(|row| match row {
            Frame::Array(row) => row[0].clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(revisions, [integer(3), integer(1)]);
    assert!(matches!(peer.run("HISTORY other"), Frame::Array(rows) if rows.len() == 100));
    assert_eq!(past.views.load(Ordering::Relaxed), before);
    // The last one took it away: what it was is read.
    assert!(matches!(peer.run("UNDELETE k"), Frame::Integer(_)));
    assert_eq!(peer.run("GET k"), bulk("v"));
    let read = past.views.load(Ordering::Relaxed) - before;
    assert!(read <= 2, "{read} states were read");
}

/// Commands that read, each of which names its keys.
const READS: &[&str] = &[
    "MGET a b c",
    "HGETALL a",
    "SMEMBERS b",
    "EXISTS a b c",
    "PEXPIRETIME a",
    "TTL b",
    "TYPE c",
    "OBJECT REVISION a",
    "HGET c f1",
];

#[test]
fn what_has_not_changed_since_is_read_as_it_stands() {
    let (mut by_present, mut by_view) = (0, 0);
    for seed in 1..=3 {
        let (server, past) = Server::with_past();
        let mut peer = server.connect();
        let mut rng = SeededRng::new(seed);
        // What each read answered, by revision and database.
        let mut then: BTreeMap<(u64, u64), Vec<Frame>> = BTreeMap::new();
        for _ in 0..400 {
            // Keys that stay, and some that come and go.
            let key = ["a", "b", "c"][rng.below(3) as usize];
            let other = ["a", "b", "c"][rng.below(3) as usize];
            let n = rng.below(5);
            peer.run(&format!("SELECT {}", rng.below(2)));
            peer.run(&match rng.below(30) {
                0..=4 => format!("SET {key} v{n}"),
                5..=6 => format!("SET {key} v{n} PX {}", 20 + 20 * n),
                7..=8 => format!("PEXPIRE {key} {}", 20 + 20 * n),
                9 => format!("PERSIST {key}"),
                10..=12 => format!("DEL {key}"),
                13..=17 => format!("HSET {key} f{n} {n}"),
                18..=19 => format!("HDEL {key} f{n} f0 f1"),
                20..=22 => format!("SADD {key} m{n}"),
                23..=24 => format!("RENAME {key} {other}"),
                25 => format!("COPY {key} {other} DB {} REPLACE", rng.below(2)),
                26 => format!("MOVE {key} {}", rng.below(2)),
                27 => "SWAPDB 0 1".to_owned(),
                28 => "FLUSHDB".to_owned(),
                _ => format!("APPEND {key} x"),
            });
            // What is due goes by a revision of its own, so that a revision
            // stands for one state.
            server.engine.expire_cycle(1_000_000);
            let newest = Replicator::newest(&*past).0;
            for db in 0..2 {
                peer.run(&format!("SELECT {db}"));
                let now: Vec<Frame> = READS.iter().map(|read| peer.run(read)).collect();
                assert_eq!(Replicator::newest(&*past).0, newest, "a read expires nothing");
                then.entry((newest, db)).or_insert(now);
            }
            for back in [0, 1, rng.below(8), rng.below(400)] {
                let db = rng.below(2);
                let Some(revision) = newest.checked_sub(back).filter(|&at| at > 0) else {
                    continue;
                };
                let Some(expected) = then.get(&(revision, db)) else { continue };
                peer.run(&format!("SELECT {db}"));
                let number = rng.below(READS.len() as u64) as usize;
                let before = past.views.load(Ordering::Relaxed);
                let found = at(&mut peer, revision as i64, READS[number]);
                assert_eq!(found, expected[number], "seed {seed}: {} at {revision}", READS[number]);
                match past.views.load(Ordering::Relaxed) == before {
                    true => by_present += 1,
                    false => by_view += 1,
                }
            }
            server.clock.advance_ms(rng.below(30));
        }
    }
    assert!(by_present > 300 && by_view > 300, "{by_present} by the present, {by_view} by views");
}

#[test]
fn what_may_take_long_runs_beside_a_runtime() {
    let (server, _past) = Server::with_past();
    let mut peer = server.resp3();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        peer.run("SET a 1");
        peer.run("SET b 2");
        peer.run("CLIENT REPLYREV ON");
        // A named key is read in place.
        assert_eq!(at(&mut peer, 1, "GET a"), bulk("1"));
        for (line, expected) in [
            ("AT r:1 KEYS *", Frame::Array(vec![bulk("a")])),
            ("AT r:1 DBSIZE", integer(1)),
            (
                "REVERT b TO r:1",
                Frame::Map(vec![
                    (bulk("rev"), integer(3)),
                    (bulk("restored"), integer(0)),
                    (bulk("removed"), integer(1)),
                ]),
            ),
            ("REVERT b TO r:99", error("FUTUREREV 99 is newer than the current revision, 3")),
        ] {
            let blocked = peer.block(line);
            let answer = blocked.answer.await.expect("it is answered");
            assert_eq!(answer.frame(), expected, "{line}");
            assert!(answer.depends_on >= answer.written.unwrap_or_default());
        }
    });
}

#[test]
fn a_reply_about_the_past_waits_until_that_is_committed() {
    let gate = Gate::shut();
    let server = Server::with(gate.clone());
    let past = MemoryPast::new();
    server.engine.attach_past(past);
    let mut peer = server.connect();
    peer.run("SET k v");
    let newer = "FUTUREREV 1 is newer than the current revision, 0";
    assert_eq!(peer.run("AT r:1 GET k"), error(newer));
}

#[test]
fn a_cursor_goes_on_in_a_past_that_stands_still() {
    const KEYS: usize = 300;
    let (server, _past) = Server::with_past();
    let mut peer = server.connect();
    (0..KEYS).for_each(|key| assert_eq!(peer.run(&format!("SET k:{key} x")), ok()));
    let (mut cursor, mut seen, mut calls) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let page = at(&mut peer, KEYS as i64, &format!("SCAN {cursor} COUNT 20"));
        let Frame::Array(page) = page else { panic!("{page:?}") };
        let [Frame::Bulk(next), Frame::Array(keys)] = &page[..] else { panic!("{page:?}") };
        seen.extend(keys.iter().map(|key| format!("{key:?}")));
        // The present goes on meanwhile.
        peer.run(&format!("DEL k:{calls}"));
        peer.run(&format!("SET new:{calls} x"));
        (cursor, calls) = (String::from_utf8(next.clone()).expect("digits"), calls + 1);
        if cursor == "0" {
            break;
        }
    }
    assert!(calls > 5, "only {calls} calls");
    assert_eq!(seen.len(), KEYS);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), KEYS, "some came twice");
}

#[test]
fn tags_are_made_while_a_purge_looks_for_its_readers_and_are_seen() {
    let (server, past) = Server::with_past();
    let forks = Arc::new(Forks::default());
    server.engine.attach_branches(forks.clone(), Branches::default(), Vec::new());
    let mut peer = server.connect();
    for line in ["SET other 1", "SET k 1", "SET k 2"] {
        assert_eq!(peer.run(line), ok());
    }
    assert_eq!(peer.run("TAG CREATE before AT r:1"), integer(1));
    let mut another = server.connect();
    *past.before_key.lock() = Some(Box::new(move || {
        assert_eq!(another.run("TAG CREATE meanwhile AT r:2"), integer(2));
    }));
    let Frame::Error(said) = peer.run("HISTORY.PURGE k CONFIRM") else { panic!("it is read") };
    assert!(said.starts_with("BRANCHBUSY the tag 'meanwhile' has 'k' from here;"), "{said}");
    assert_eq!(peer.run("TAG DELETE meanwhile"), ok());
    assert_eq!(peer.run("HISTORY.PURGE k CONFIRM"), integer(2));
    assert_eq!(forks.looks.load(Ordering::Relaxed), 0, "there was no branch");
}

/// Has `k` made and removed again while it is looked for in the past, that often.
fn meddle(past: &Arc<MemoryPast>, mut other: Peer, rounds: usize) {
    let again = past.clone();
    *past.before_key.lock() = Some(Box::new(move || {
        assert_eq!(other.run(&format!("SET k {rounds}")), ok());
        assert_eq!(other.run("DEL k"), integer(1));
        if rounds > 1 {
            meddle(&again, other, rounds - 1);
        }
    }));
}

#[test]
fn the_last_value_comes_back_whoever_makes_and_removes_the_key_meanwhile() {
    let (server, past) = Server::with_past();
    let mut peer = server.connect();
    assert_eq!(peer.run("SET k old"), ok());
    assert_eq!(peer.run("DEL k"), integer(1));
    meddle(&past, server.connect(), 5);
    assert_eq!(peer.run("UNDELETE k"), integer(13));
    assert_eq!(peer.run("GET k"), bulk("1"));
    // Also where it was there to begin with, and who asks what would be is told of
    // the last one, too.
    assert_eq!(peer.run("DEL k"), integer(1));
    meddle(&past, server.connect(), 2);
    let tried = format!("{:?}", peer.run("WHATIF VALUES UNDELETE k"));
    assert!(
        past.before_key.lock().is_none() && tried.contains(&format!("{:?}", bulk("1"))),
        "{tried}"
    );
    // Of a key that was never there.
    let (mut other, mut one) = (server.connect(), server.connect());
    *past.before_key.lock() = Some(Box::new(move || {
        other.run("SET never 1");
        other.run("DEL never");
    }));
    assert!(matches!(one.run("UNDELETE never"), Frame::Integer(_)));
    assert_eq!(one.run("GET never"), bulk("1"));
}

#[test]
fn what_is_let_go_of_meanwhile_is_missed_by_those_only_who_asked_for_it() {
    let (server, past) = Server::with_past();
    let mut peer = server.connect();
    for line in ["SET k 1", "SET k 2", "SET k 3", "SET gone 1", "DEL gone"] {
        peer.run(line);
    }
    let mut oldest = 0;
    for line in ["HISTORY k", "HISTORY k VALUES", "BLAME k", "CHANGES", "TIMELINE", "UNDELETE gone"]
    {
        let letting_go = past.clone();
        oldest += 1;
        let upto = Revision(oldest.min(3));
        past.before_reads.lock().push_back(Box::new(move || {
            letting_go.compact(upto).expect("it can");
        }));
        let reply = peer.run(line);
        assert!(past.before_reads.lock().is_empty(), "{line} reads");
        assert!(!matches!(reply, Frame::Error(_)), "{line}: {reply:?}");
    }
    let letting_go = past.clone();
    past.before_reads.lock().push_back(Box::new(move || {
        letting_go.compact(Revision(4)).expect("it can");
    }));
    let asked = peer.run("CHANGES FROM r:4");
    assert_eq!(asked, error("COMPACTED revision 3 is older than the oldest kept, 4"));
}

/// A server with a past that `k` has, and what runs while a branch of it is
/// read.
fn forking(during: impl FnOnce(Peer) -> During) -> (Server, Peer, Arc<Forks>) {
    let (server, _past) = Server::with_past();
    let forks = Arc::new(Forks::default());
    server.engine.attach_branches(forks.clone(), Branches::default(), Vec::new());
    let mut peer = server.connect();
    for value in 1..=3 {
        assert_eq!(peer.run(&format!("SET k {value}")), ok());
    }
    *forks.during.lock() = Some(during(server.connect()));
    (server, peer, forks)
}

fn read_on(peer: &mut Peer, branch: &str, line: &str) -> Frame {
    assert_eq!(peer.run(&format!("BRANCH USE {branch}")), ok());
    peer.run(line)
}

#[test]
fn others_change_branches_while_one_of_the_past_is_read() {
    let (_server, mut peer, forks) = forking(|mut another| {
        Box::new(move |_| {
            assert_eq!(another.run("TAG CREATE meanwhile AT r:1"), integer(1));
            assert!(matches!(another.run("BRANCH CREATE now"), Frame::Map(_) | Frame::Array(_)));
        })
    });
    let made = peer.run("BRANCH CREATE then AT r:2");
    assert!(matches!(made, Frame::Map(_) | Frame::Array(_)), "{made:?}");
    assert_eq!(forks.looks.load(Ordering::Relaxed), 1, "it has the same past as before");
    assert_eq!(read_on(&mut peer, "then", "GET k"), bulk("2"));
}

#[test]
fn a_branch_of_the_past_is_read_again_when_that_changes() {
    let (_server, mut peer, forks) = forking(|mut another| {
        Box::new(move |looks| {
            if looks == 1 {
                assert_eq!(another.run("HISTORY.PURGE k CONFIRM"), integer(3));
            }
        })
    });
    let made = peer.run("BRANCH CREATE then AT r:2");
    assert!(matches!(made, Frame::Map(_) | Frame::Array(_)), "{made:?}");
    assert_eq!(forks.looks.load(Ordering::Relaxed), 2);
    assert_eq!(read_on(&mut peer, "then", "GET k"), Frame::Null, "it is erased");

    // Somebody else takes the name.
    let (_server, mut peer, _) = forking(|mut another| {
        Box::new(move |_| {
            let made = another.run("BRANCH CREATE then");
            assert!(matches!(made, Frame::Map(_) | Frame::Array(_)), "{made:?}");
        })
    });
    let said = error("BRANCHEXISTS there is a branch named 'then'");
    assert_eq!(peer.run("BRANCH CREATE then AT r:2"), said);
}

#[test]
fn a_past_that_changes_again_and_again_waits_in_the_end() {
    const LOOKS: u64 = 4;
    let (_server, mut peer, forks) = forking(|mut another| {
        Box::new(move |looks| {
            // With the last look nobody else has a turn.
            if looks <= LOOKS {
                assert_eq!(another.run(&format!("SET k{looks} 1")), ok());
                let purged = another.run(&format!("HISTORY.PURGE k{looks} CONFIRM"));
                assert!(matches!(purged, Frame::Integer(_)), "{purged:?}");
            }
        })
    });
    let made = peer.run("BRANCH CREATE then AT r:2");
    assert!(matches!(made, Frame::Map(_) | Frame::Array(_)), "{made:?}");
    assert_eq!(forks.looks.load(Ordering::Relaxed), LOOKS + 1);
    assert_eq!(read_on(&mut peer, "then", "GET k"), bulk("2"));
}

#[test]
fn what_takes_long_to_write_is_on_the_disk_before_the_reply() {
    let (server, past) = Server::with_past();
    server.engine.attach_branches(Arc::new(Forks::default()), Branches::default(), Vec::new());
    let mut peer = server.connect();
    let large = "x".repeat(17 << 20);
    for line in ["SET k small", &format!("SET k {large}"), "SET k last"] {
        assert_eq!(peer.run(line), ok());
    }
    let awaited = || past.awaited.load(Ordering::SeqCst) as i64;
    peer.run("REVERT k TO r:1");
    assert_eq!(awaited(), 0, "the writer is as quick as that");
    peer.run("REVERT k TO r:2");
    assert_eq!(peer.run("LASTREV"), integer(awaited()));
    assert_eq!(awaited(), 5);
    peer.run("BRANCH CREATE small AT r:1");
    assert_eq!(awaited(), 5);
    peer.run("BRANCH CREATE large AT r:2");
    assert_eq!(awaited(), 7);
}
