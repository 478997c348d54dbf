//! Keys are deleted where memory is full, as Redis's policies say.

mod harness;

use std::sync::atomic::{AtomicBool, Ordering};

use base::Frame;
use engine::{EvictionEnd, Outcome};
use harness::{Gate, Peer, Server, bulk, error, integer, ok, simple};

const LIMIT: u64 = 300_000;
const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

fn server(policy: &str) -> (Server, Peer) {
    let server = Server::new();
    let mut peer = server.connect();
    assert_eq!(peer.run(&format!("CONFIG SET maxmemory {LIMIT} maxmemory-policy {policy}")), ok());
    (server, peer)
}

fn evicted(server: &Server) -> u64 {
    server.engine.stats.evicted_keys.load(Ordering::Relaxed)
}

/// Sets so many keys with what comes behind the value.
fn fill(peer: &mut Peer, prefix: &str, keys: usize, rest: &str) {
    for n in 0..keys {
        assert_eq!(peer.run(&format!("SET {prefix}{n} {n:0>200} {rest}")), ok(), "{prefix}{n}");
    }
}

/// How many of these keys there are.
fn count(peer: &mut Peer, prefix: &str) -> usize {
    let Frame::Array(keys) = peer.run(&format!("KEYS {prefix}*")) else { panic!("a list of keys") };
    keys.len()
}

#[test]
fn memory_stays_within_the_limit_and_keys_in_use_stay() {
    for policy in ["allkeys-lru", "allkeys-lfu"] {
        let (server, mut peer) = server(policy);
        fill(&mut peer, "hot", 20, "");
        for round in 0..100 {
            server.clock.advance_ms(1000);
            (0..20).for_each(|n| drop(peer.run(&format!("GET hot{n}"))));
            fill(&mut peer, &format!("k{round}:"), 50, "");
            assert!(server.engine.used_memory() <= LIMIT + 4096, "{policy}");
        }
        assert_eq!(count(&mut peer, "hot"), 20, "{policy}");
        let left = count(&mut peer, "k");
        assert_eq!(evicted(&server), 5000 - left as u64, "{policy}");
        assert!(server.engine.used_memory() > LIMIT - LIMIT / 8, "{policy}: as few as possible");
        assert_eq!(server.engine.keyspace.check(), Ok(()));
        let (info, line) = (peer.run("INFO stats"), format!("\nevicted_keys:{}", evicted(&server)));
        let Frame::Verbatim(_, text) = &info else { panic!("{info:?}") };
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn a_large_command_makes_room_for_itself_first() {
    let (server, mut peer) = server("allkeys-random");
    fill(&mut peer, "k", 900, "");
    // As Redis does: what it takes itself is made room for by the next one.
    assert_eq!(peer.run(&format!("SET large {}", "x".repeat(100_000))), ok());
    assert!(server.engine.used_memory() > LIMIT);
    assert_eq!(peer.run("SET small 1"), ok());
    assert!(server.engine.used_memory() <= LIMIT + 512);
}

#[test]
fn volatile_policies_refuse_where_no_key_has_a_deadline() {
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        let (server, mut peer) = server(policy);
        fill(&mut peer, "keep", 200, "");
        fill(&mut peer, "go", 4000, "EX 1000");
        assert_eq!(count(&mut peer, "keep"), 200, "{policy}");
        assert!(server.engine.used_memory() <= LIMIT + 4096, "{policy}");
        assert_eq!(evicted(&server), 4000 - count(&mut peer, "go") as u64, "{policy}");
        let mut refused = 0;
        for n in 0..2000 {
            match peer.run(&format!("SET more{n} {n:0>200}")) {
                Frame::Error(text) => {
                    assert_eq!(text, OOM);
                    refused += 1;
                }
                reply => assert_eq!(reply, ok()),
            }
        }
        assert!(refused > 500, "{policy}: {refused}");
        assert_eq!(count(&mut peer, "go"), 0, "{policy}");
        assert_eq!(peer.run("SET small 1"), error(OOM));
        assert_eq!(peer.run("GET keep7"), bulk(format!("{:0>200}", 7)), "reads go on");
        assert_eq!(peer.run("WHATIF SET small 1"), error(OOM), "so would it be");
        assert_eq!(peer.run("DEL keep1 keep2 keep3"), integer(3));
        assert_eq!(peer.run("SET small 1"), ok());
    }
}

#[test]
fn those_due_first_go_first() {
    let (_server, mut peer) = server("volatile-ttl");
    for n in 0..1500 {
        let seconds = 100_000 - n * 10;
        assert_eq!(peer.run(&format!("SET k{n} {n:0>200} EX {seconds}")), ok());
    }
    // Each is due before all that were there: the newest go.
    let left = count(&mut peer, "k");
    assert!(left < 1400);
    let kept = (0..left).filter(|n| peer.run(&format!("EXISTS k{n}")) == integer(1)).count();
    assert!(kept * 10 >= left * 9, "{kept} of the {left} due last are there");
}

#[test]
fn an_eviction_is_told_as_one() {
    let (server, mut peer) = server("allkeys-lru");
    assert_eq!(peer.run("CONFIG SET notify-keyspace-events Ke"), ok());
    let mut listener = server.resp3();
    assert!(matches!(listener.call("PSUBSCRIBE __keyspace@0__:*").1, Outcome::Done));
    let mut tracker = server.resp3();
    assert_eq!(tracker.run("CLIENT TRACKING ON BCAST"), ok());
    let mut watcher = server.connect();
    assert_eq!(watcher.run("SET oldest x"), ok());
    assert_eq!(watcher.run("WATCH oldest"), ok());
    server.clock.advance_ms(5000);
    listener.pushes();
    tracker.pushes();
    // More than enough for each key to have been looked at.
    fill(&mut peer, "k", 10_000, "");
    assert_eq!(peer.run("EXISTS oldest"), integer(0));
    let event = Frame::Push(vec![
        bulk("pmessage"),
        bulk("__keyspace@0__:*"),
        bulk("__keyspace@0__:oldest"),
        bulk("evicted"),
    ]);
    assert!(listener.pushes().contains(&event));
    let is_told = |push: &Frame| {
        let Frame::Push(parts) = push else { return false };
        matches!(&parts[1], Frame::Array(keys) if keys.contains(&bulk("oldest")))
    };
    assert!(tracker.pushes().iter().any(is_told));
    assert_eq!(watcher.run("MULTI"), ok());
    assert_eq!(watcher.run("PING"), simple("QUEUED"));
    assert_eq!(watcher.run("EXEC"), Frame::NullArray, "a key that it watched is gone");
}

#[test]
fn nothing_is_evicted_for_who_only_asks_nor_while_all_is_to_stay() {
    let (server, mut peer) = server("allkeys-lru");
    fill(&mut peer, "k", 1100, "");
    let before = peer.run("DEBUG DIGEST");
    let mut evictions = evicted(&server);
    assert_eq!(peer.run(&format!("CONFIG SET maxmemory {}", LIMIT / 2)), ok());
    let told = peer.run("WHATIF SET more 1");
    assert!(matches!(told, Frame::Map(_)), "{told:?}");
    assert!(matches!(peer.run("GET k1099"), Frame::Bulk(_)));
    assert_eq!((peer.run("DEBUG DIGEST"), evicted(&server)), (before.clone(), evictions));
    // A pause keeps the data as it is, and those who write wait for its end.
    assert_eq!(peer.run("CLIENT PAUSE 1000 WRITE"), ok());
    assert!(matches!(peer.call("SET more 1").1, Outcome::Paused(_)));
    assert_eq!(server.engine.evict(&AtomicBool::new(true)), EvictionEnd::Held);
    assert_eq!((peer.run("DEBUG DIGEST"), evicted(&server)), (before, evictions));
    server.clock.advance_ms(1001);
    // What a command has no time for is left to a thread.
    assert_eq!(peer.run("CONFIG SET maxmemory-eviction-tenacity 0"), ok());
    while let Outcome::Paused(_) = peer.call("SET more 1").1 {
        assert!(evicted(&server) > evictions, "each command does a little");
        evictions = evicted(&server);
    }
    assert_eq!(server.engine.evict(&AtomicBool::new(true)), EvictionEnd::Enough);
    assert!(server.engine.used_memory() <= LIMIT / 2);
}

#[test]
fn a_transaction_makes_room_before_it_begins() {
    let (server, mut peer) = server("allkeys-lru");
    fill(&mut peer, "k", 1100, "");
    let used = server.engine.used_memory();
    assert_eq!(peer.run(&format!("CONFIG SET maxmemory {}", used - 1000)), ok());
    assert_eq!(peer.run("MULTI"), ok());
    assert_eq!(peer.run("SET a 1"), simple("QUEUED"));
    assert_eq!(peer.run("SET b 2"), simple("QUEUED"));
    assert_eq!(peer.run("EXEC"), Frame::Array(vec![ok(), ok()]));
    assert!(server.engine.used_memory() < used);
}

#[test]
fn nothing_goes_that_the_log_could_not_tell_of() {
    let gate = Gate::open();
    let server = Server::with(gate.clone());
    let mut peer = server.connect();
    assert_eq!(peer.run(&format!("CONFIG SET maxmemory {LIMIT} maxmemory-policy lru")), ok());
    fill(&mut peer, "k", 1100, "");
    let before = (peer.run("DEBUG DIGEST"), evicted(&server));
    gate.fail();
    assert_eq!(peer.run(&format!("CONFIG SET maxmemory {}", LIMIT / 2)), ok());
    let Frame::Error(refusal) = peer.run("SET more 1") else { panic!("a refusal") };
    assert!(!refusal.starts_with("OOM"), "{refusal}");
    assert_eq!((peer.run("DEBUG DIGEST"), evicted(&server)), before);
}

#[test]
fn how_often_a_key_is_used_is_told_under_lfu_only() {
    let (server, mut peer) = server("noeviction");
    assert_eq!(peer.run("SET k v"), ok());
    server.clock.advance_ms(7000);
    assert_eq!(peer.run("OBJECT IDLETIME k"), integer(7));
    let Frame::Error(refusal) = peer.run("OBJECT FREQ k") else { panic!("a refusal") };
    assert!(refusal.starts_with("ERR An LFU maxmemory policy is not selected"), "{refusal}");
    assert_eq!(peer.run("CONFIG SET maxmemory-policy allkeys-lfu lfu-log-factor 0"), ok());
    assert_eq!(peer.run("SET k v2"), ok());
    assert_eq!(peer.run("DEL k"), integer(1));
    assert_eq!(peer.run("SET k v"), ok());
    assert_eq!(peer.run("OBJECT FREQ k"), integer(5));
    assert_eq!(peer.run("GET k"), bulk("v"));
    assert_eq!(peer.run("GET k"), bulk("v"));
    assert_eq!(peer.run("OBJECT FREQ k"), integer(7), "to ask is no use");
    assert_eq!(peer.run("CLIENT NO-TOUCH ON"), ok());
    assert_eq!(peer.run("GET k"), bulk("v"));
    assert_eq!(peer.run("OBJECT FREQ k"), integer(7));
    server.clock.advance_ms(3 * 60_000);
    assert_eq!(peer.run("OBJECT FREQ k"), integer(4));
    assert_eq!(peer.run("CONFIG SET lfu-decay-time 0"), ok());
    assert_eq!(peer.run("OBJECT FREQ k"), integer(7));
    let Frame::Error(refusal) = peer.run("OBJECT IDLETIME k") else { panic!("a refusal") };
    assert!(refusal.starts_with("ERR An LFU maxmemory policy is selected"), "{refusal}");
    assert_eq!(peer.run("OBJECT FREQ none"), Frame::Null);
}
