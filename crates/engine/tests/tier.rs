//! Larger than memory: values leave for an archive and come back, with an
//! archive that moves when it is told to.

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Frame, Revision, SpaceId};
use engine::{Archive, Checkpointed, Engine, EvictionEnd, Outcome};
use harness::{Gate, Peer, Server, bulk, error, integer, ok};
use keyspace::table::{Keyed, Table};
use keyspace::{
    Backing, BackingError, Buffers, EncodingLimits, SHARDS, Scope, Stored, Txn, TxnOptions, dump,
};
use parking_lot::Mutex;
use tokio::sync::watch;

const LIMIT: u64 = 1 << 20;

type Body = (Vec<u8>, Option<u64>, Revision);

/// A key's space, bucket and bytes.
type Address = (SpaceId, u16, Vec<u8>);

/// What a test takes for the archive.
#[derive(Debug)]
struct Shelf {
    content: Mutex<BTreeMap<Address, Body>>,
    progress: watch::Sender<Checkpointed>,
    requested: AtomicU64,
}

impl Archive for Shelf {
    fn backup_in_row(
        &self,
        row: &std::path::Path,
        _: usize,
        with_history: bool,
    ) -> Result<engine::BackedUp, String> {
        self.backup(row, with_history)
    }

    fn newest_backup_ms(&self, _: &std::path::Path) -> Option<u64> {
        None
    }

    fn backup(&self, _: &std::path::Path, _: bool) -> Result<engine::BackedUp, String> {
        Err("nobody asks for one here".to_owned())
    }

    fn progress(&self) -> watch::Receiver<Checkpointed> {
        self.progress.subscribe()
    }

    fn request(&self, revision: Revision) {
        self.requested.store(revision.0, Ordering::SeqCst);
    }

    fn settle(&self, _: Revision) -> Result<(), String> {
        Ok(())
    }

    fn lag_bytes(&self) -> u64 {
        0
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

struct Name;

impl Keyed for Name {
    fn key(&self) -> &[u8] {
        b""
    }
}

fn bucket_of(key: &[u8]) -> u16 {
    (Table::<Name>::hash(1, key) >> 48) as u16
}

fn stored((body, deadline, revision): &Body) -> Stored {
    let value = dump::decode_body(body, 1, &EncodingLimits::default()).expect("encoded before");
    Stored { value, deadline: *deadline, revision: *revision }
}

impl Backing for Shelf {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        let place = (space, (hash >> 48) as u16, key.to_vec());
        Ok(self.content.lock().get(&place).map(stored))
    }

    fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        let content = self.content.lock();
        for ((at, of, key), body) in content.range((space, bucket, Vec::new())..) {
            if (*at, *of) != (space, bucket) {
                break;
            }
            each(key, stored(body));
        }
        Ok(())
    }
}

struct Tiered {
    server: Server,
    shelf: Arc<Shelf>,
}

impl Tiered {
    /// A server that keeps `LIMIT` bytes in memory, and a client of it.
    fn new() -> (Tiered, Peer) {
        let server = Server::with(Gate::open());
        let (progress, _) = watch::channel(Checkpointed::default());
        let shelf = Shelf { content: Mutex::default(), progress, requested: AtomicU64::new(0) };
        let tiered = Tiered { server, shelf: Arc::new(shelf) };
        tiered.engine().keyspace.evict_to(tiered.shelf.clone());
        tiered.engine().attach_archive(tiered.shelf.clone());
        let mut peer = tiered.server.connect();
        assert_eq!(peer.run(&format!("CONFIG SET maxmemory {LIMIT}")), ok());
        assert_eq!(peer.run("CONFIG SET maxmemory-policy tier"), ok());
        (tiered, peer)
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.server.engine
    }

    /// The archive takes over everything.
    fn catch_up(&self) {
        let limits = EncodingLimits::default();
        let options = TxnOptions {
            now_ms: 0,
            limits: &limits,
            event_classes: 0,
            always_record: false,
            expire: false,
            touch: false,
        };
        let (engine, journal) = (self.engine(), engine::NoLog::default());
        let before = self.shelf.content.lock().clone();
        let mut content = BTreeMap::new();
        let mut buffers = Buffers::default();
        for (db, space, _) in engine.keyspace.spaces() {
            let mut txn =
                Txn::begin(&engine.keyspace, &Scope::All, &journal, &mut buffers, options);
            txn.select(db);
            let mut resident = BTreeMap::new();
            txn.scan_resident(&mut |key, _| {
                resident.insert(key.to_vec(), txn.info(key).expect("just seen").revision);
            });
            txn.visit_all(&mut |key, value, deadline| {
                let place = (space, bucket_of(key), key.to_vec());
                let revision = resident.get(key).copied();
                let revision = revision.unwrap_or_else(|| before[&place].2);
                content.insert(place, (dump::encode_body(value), deadline, revision));
            })
            .expect("it can be read");
            txn.finish();
        }
        *self.shelf.content.lock() = content;
        let revision = engine.replicator.newest();
        self.shelf.progress.send_modify(|now| now.revision = revision);
        engine.keyspace.forget_removals(revision);
        engine.tier_moved();
    }

    fn evict(&self) -> EvictionEnd {
        self.engine().evict(&AtomicBool::new(true))
    }

    /// Evicts until memory is within the limit.
    fn make_room(&self) {
        while let EvictionEnd::Lags(revision) = self.evict() {
            assert_eq!(self.shelf.requested.load(Ordering::SeqCst), revision.0);
            self.catch_up();
        }
    }

    /// Runs a line, which may have to wait for memory.
    fn run(&self, peer: &mut Peer, line: &str) -> Frame {
        loop {
            match peer.call(line) {
                (mut replies, Outcome::Done) => return replies.remove(0),
                (_, Outcome::Paused(_)) => self.make_room(),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    /// Everything that can leave memory does.
    fn evict_all(&self) {
        self.catch_up();
        let newest = self.engine().replicator.newest();
        for shard in 0..SHARDS {
            while !self.engine().keyspace.evict(shard, newest, usize::MAX).is_spent {}
        }
    }

    fn used(&self) -> u64 {
        self.engine().used_memory()
    }

    fn loaded(&self) -> u64 {
        self.engine().stats.tier_loaded_keys.load(Ordering::Relaxed)
    }
}

const VALUE: usize = 1000;

fn value(n: usize) -> String {
    format!("{n:0>VALUE$}")
}

/// The command that makes key `n`, and one that reads all of it, with what that
/// answers.
fn made(n: usize) -> (String, String, Frame) {
    let text = value(n);
    match n % 5 {
        0 => (format!("SET k{n} {text}"), format!("GET k{n}"), bulk(&text)),
        1 => (
            format!("RPUSH k{n} {text} end"),
            format!("LRANGE k{n} 0 -1"),
            Frame::Array(vec![bulk(&text), bulk("end")]),
        ),
        2 => (format!("HSET k{n} field {text}"), format!("HGET k{n} field"), bulk(&text)),
        3 => (format!("SADD k{n} {text}"), format!("SMEMBERS k{n}"), Frame::Set(vec![bulk(&text)])),
        _ => (
            format!("ZADD k{n} {n} {text}"),
            format!("ZRANGE k{n} 0 -1"),
            Frame::Array(vec![bulk(&text)]),
        ),
    }
}

#[test]
fn ten_times_the_limit_is_served_and_hot_keys_stay() {
    const KEYS: usize = 9000;
    const HOT: usize = 20;
    let (tiered, mut peer) = Tiered::new();
    let mut most = 0;
    for n in 0..KEYS {
        assert!(!matches!(tiered.run(&mut peer, &made(n).0), Frame::Error(_)), "{n}");
        most = most.max(tiered.used());
        if n % 50 == 0 {
            tiered.server.clock.advance_ms(1000);
            (0..HOT).for_each(|hot| drop(peer.run(&made(hot.min(n)).1)));
        }
    }
    assert!(most < LIMIT + LIMIT / 8 + 4096, "{most}");
    assert_eq!(peer.run("DBSIZE"), integer(KEYS as i64));
    tiered.make_room();
    assert!(tiered.used() <= LIMIT);
    let before = tiered.loaded();
    for n in 0..HOT {
        let (_, line, answer) = made(n);
        assert_eq!(peer.run(&line), answer);
    }
    assert_eq!(tiered.loaded(), before, "the hot ones are in memory");
    // A reader that outruns the thread helps it.
    for n in 0..KEYS {
        let (_, line, answer) = made(n);
        assert_eq!(peer.run(&line), answer);
        most = most.max(tiered.used());
    }
    assert!(tiered.loaded() > (KEYS as u64) / 10 * 8, "{}", tiered.loaded());
    assert!(most < LIMIT + LIMIT / 8 + 16384, "{most}");
    assert_eq!(tiered.engine().keyspace.check(), Ok(()));
}

#[test]
fn a_look_at_every_key_brings_none_into_memory() {
    let (tiered, mut peer) = Tiered::new();
    (0..3000).for_each(|n| drop(tiered.run(&mut peer, &made(n).0)));
    tiered.make_room();
    let (used, digest) = (tiered.used(), peer.run("DEBUG DIGEST"));
    let Frame::Array(keys) = peer.run("KEYS k*") else { panic!("a list of keys") };
    assert_eq!(keys.len(), 3000);
    let (mut cursor, mut count) = ("0".to_owned(), 0);
    loop {
        let Frame::Array(mut page) = peer.run(&format!("SCAN {cursor} COUNT 100 TYPE list")) else {
            panic!("a page")
        };
        let (Some(Frame::Array(keys)), Some(Frame::Bulk(next))) = (page.pop(), page.pop()) else {
            panic!("a cursor and keys")
        };
        cursor = String::from_utf8_lossy(&next).into_owned();
        count += keys.len();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(count, 600);
    assert_eq!(peer.run("MULTI"), ok());
    peer.run("KEYS k1*");
    let Frame::Array(replies) = peer.run("EXEC") else { panic!("replies") };
    assert!(matches!(&replies[0], Frame::Array(keys) if keys.len() == 1111), "1, 1?, 1??, 1???");
    assert_eq!(tiered.used(), used);
    tiered.evict_all();
    assert_eq!(peer.run("DEBUG DIGEST"), digest);
}

#[test]
fn keys_go_that_are_not_in_memory_and_none_of_them_expires_later() {
    let (tiered, mut peer) = Tiered::new();
    (0..3000).for_each(|n| drop(tiered.run(&mut peer, &made(n).0)));
    (0..3000).step_by(7).for_each(|n| drop(peer.run(&format!("EXPIRE k{n} 100"))));
    tiered.make_room();
    let left = (0..3000).filter(|n| !n.to_string().starts_with('1')).collect::<Vec<_>>();
    let (used, loaded) = (tiered.used(), tiered.loaded());
    assert_eq!(peer.run("REMOVE PREFIX k1 DRYRUN"), integer(1111));
    assert_eq!(peer.run("REMOVE PREFIX k1"), integer(1111));
    assert!(tiered.used() < used, "their names are remembered, and no value has come in");
    assert_eq!(tiered.loaded(), loaded);
    assert_eq!(peer.run("DBSIZE"), integer(left.len() as i64));
    assert_eq!(peer.run("REMOVE MATCH k1*"), integer(0));
    assert_eq!(peer.run("EXISTS k1 k17 k1999"), integer(0));
    assert_eq!(tiered.engine().keyspace.check(), Ok(()));
    tiered.make_room();
    tiered.server.clock.advance_ms(200_000);
    let due = left.iter().filter(|&n| n % 7 == 0).count();
    while tiered.engine().expire_cycle(1_000_000) > 0 {}
    assert_eq!(peer.run("DBSIZE"), integer((left.len() - due) as i64));
    assert_eq!(tiered.engine().keyspace.check(), Ok(()));
}

#[test]
fn writers_wait_while_the_archive_lags_and_others_do_not() {
    let (tiered, mut peer) = Tiered::new();
    let paused = (0..).find(|&n| matches!(peer.call(&made(n).0).1, Outcome::Paused(_)));
    assert!(tiered.used() > LIMIT + LIMIT / 8);
    assert!(tiered.used() < LIMIT + LIMIT / 8 + 4096);
    let line = made(paused.expect("the loop ends")).0;
    assert_eq!(peer.run("GET k0"), bulk(value(0)));
    assert_eq!(peer.run("DEL k1"), integer(1));
    assert_eq!(peer.run("MULTI"), ok());
    assert_eq!(peer.run("SET other 1"), harness::simple("QUEUED"));
    assert!(matches!(peer.call("EXEC").1, Outcome::Done | Outcome::Paused(_)));
    let newest = tiered.engine().replicator.newest();
    assert_eq!(tiered.evict(), EvictionEnd::Lags(newest));
    assert_eq!(tiered.shelf.requested.load(Ordering::SeqCst), newest.0);
    tiered.catch_up();
    assert_eq!(tiered.evict(), EvictionEnd::Enough);
    assert!(tiered.used() <= LIMIT - LIMIT / 16);
    assert!(matches!(peer.call(&line).1, Outcome::Done));
}

#[test]
fn writes_are_refused_only_when_nothing_can_go() {
    let (tiered, mut peer) = Tiered::new();
    // Deadlines of keys that are not in memory stay there.
    let refused = (0..200_000).find(|n| {
        let line = format!("SET key:{n} v EX 1000");
        matches!(tiered.run(&mut peer, &line), Frame::Error(_)) || {
            assert!(tiered.used() <= LIMIT + LIMIT / 8 + 4096);
            false
        }
    });
    let refused = refused.expect("24 bytes a key fill the memory");
    assert!(refused > 20_000, "{refused}");
    let oom = error("OOM command not allowed when used memory > 'maxmemory'.");
    assert_eq!(peer.run("SET k v"), oom);
    assert_eq!(tiered.evict(), EvictionEnd::Stuck);
    assert_eq!(peer.run("GET key:0"), bulk("v"));
    // Redis's own way out of it.
    assert_eq!(peer.run("CONFIG SET maxmemory 0"), ok());
    assert_eq!(peer.run("SET k v"), ok());
}

#[test]
fn one_value_above_the_limit_is_written_and_read() {
    let (tiered, mut peer) = Tiered::new();
    let big = "v".repeat(3 * LIMIT as usize);
    assert_eq!(tiered.run(&mut peer, &format!("SET big {big}")), ok());
    assert_eq!(tiered.run(&mut peer, "SET small v"), ok());
    tiered.make_room();
    assert!(tiered.used() < LIMIT);
    assert_eq!(peer.run("STRLEN big"), integer(3 * LIMIT as i64));
    assert_eq!(tiered.run(&mut peer, "APPEND big x"), integer(3 * LIMIT as i64 + 1));
    assert_eq!(tiered.run(&mut peer, "DEL big"), integer(1));
}

#[test]
fn a_key_that_left_memory_is_the_same_key() {
    let (tiered, mut peer) = Tiered::new();
    let mut other = tiered.server.resp3();
    peer.run("SET s 1");
    peer.run("RPUSH l x y");
    peer.run("SET mortal v EX 10");
    assert_eq!(other.run("CLIENT TRACKING ON BCAST"), ok());
    tiered.evict_all();
    // Its revision comes back with it.
    assert_eq!(peer.run("WATCH s l"), ok());
    tiered.evict_all();
    peer.run("MULTI");
    peer.run("INCR s");
    assert_eq!(peer.run("EXEC"), Frame::Array(vec![integer(2)]));
    assert_eq!(other.pushes().len(), 1, "only the change is told, not the comings and goings");
    tiered.evict_all();
    assert_eq!(peer.run("WATCH s"), ok());
    other.run("INCR s");
    tiered.evict_all();
    peer.run("MULTI");
    peer.run("INCR s");
    assert_eq!(peer.run("EXEC"), Frame::NullArray);
    tiered.evict_all();
    assert_eq!(peer.run("RENAME s t"), ok());
    assert_eq!(peer.run("COPY t u"), integer(1));
    tiered.evict_all();
    assert_eq!(peer.run("EXISTS s t u"), integer(2));
    assert_eq!(peer.run("GET u"), bulk("3"));
    tiered.evict_all();
    assert_eq!(peer.run("BLMOVE l l2 LEFT RIGHT 0"), bulk("x"));
    assert_eq!(peer.run("TTL mortal"), integer(10));
    tiered.evict_all();
    assert_eq!(peer.run("DBSIZE"), integer(5));
    tiered.server.clock.advance_ms(10_001);
    assert_eq!(tiered.engine().expire_cycle(1_000_000), 1);
    assert_eq!(peer.run("DBSIZE"), integer(4));
    assert_eq!(peer.run("FLUSHALL"), ok());
    assert_eq!(peer.run("DBSIZE"), integer(0));
    assert_eq!(peer.run("GET u"), Frame::Null);
    tiered.evict_all();
    assert_eq!(peer.run("KEYS *"), Frame::Array(Vec::new()));
    assert_eq!(tiered.engine().keyspace.check(), Ok(()));
}

#[test]
fn the_policy_can_be_changed_at_any_time() {
    let (tiered, mut peer) = Tiered::new();
    let goes_on = Arc::new(AtomicBool::new(true));
    let thread = {
        let (engine, goes_on) = (tiered.engine().clone(), goes_on.clone());
        std::thread::spawn(move || engine.keep_tier(&goes_on))
    };
    (0..2000).for_each(|n| {
        loop {
            match peer.call(&made(n).0) {
                (_, Outcome::Done) => break,
                (_, Outcome::Paused(_)) => tiered.catch_up(),
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(tiered.engine().keyspace.unloaded() > 0);
    let wait_for = |what: &dyn Fn() -> bool| {
        while !what() {
            std::thread::yield_now();
        }
    };
    assert_eq!(peer.run("CONFIG SET maxmemory-policy noeviction"), ok());
    wait_for(&|| tiered.engine().keyspace.unloaded() == 0);
    let oom = error("OOM command not allowed when used memory > 'maxmemory'.");
    assert_eq!(peer.run("SET k v"), oom);
    wait_for(&|| !tiered.engine().keyspace.is_backed());
    tiered.catch_up();
    assert_eq!(peer.run("CONFIG SET maxmemory-policy tier"), ok());
    wait_for(&|| tiered.used() <= LIMIT);
    for n in 0..2000 {
        let (_, line, answer) = made(n);
        assert_eq!(peer.run(&line), answer);
    }
    goes_on.store(false, Ordering::SeqCst);
    tiered.engine().tier_moved();
    thread.join().expect("it ends");
}
