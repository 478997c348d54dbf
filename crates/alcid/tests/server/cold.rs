//! Large collections that stand in the archive only: nobody waits while one of them
//! is read for somebody else.
//!
//! One thread serves. Collections whose names begin with `big` are read only as long
//! as the test's gate is open; who waits for one with a lock held is told of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use base::{Frame, Revision, SpaceId, SystemClock};
use engine::{Engine, Hooks, Identity, NoLog};
use front_resp::{Listener, Shutdown, Unauthenticated};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{
    Backing, BackingError, EncodingLimits, Found, Keyspace, Knowing, Listed, SHARDS, Stored,
    Unread, Value, Wanted, dump, hash_of,
};
use parking_lot::Mutex;
use settings::Settings;
use testkit::Server;

use crate::ALCID;
use crate::wire::{Came, Wire, eventually, field};

const SEED: u64 = 1;
const LIMITS: fn() -> EncodingLimits = EncodingLimits::default;
const DUE: u64 = 1;

/// What stands in the archive: bucket and name, body and deadline.
type Content = BTreeMap<(u16, Vec<u8>), (Vec<u8>, Option<u64>)>;

#[derive(Debug)]
struct Gated {
    content: Content,
    is_open: AtomicBool,
    /// How often somebody who may come back was told to.
    put_off: AtomicUsize,
    /// What somebody has waited for.
    waited_for: Mutex<Vec<String>>,
}

fn is_long(key: &[u8]) -> bool {
    key.starts_with(b"big")
}

fn decoded(body: &[u8]) -> Value {
    dump::decode_body(body, SEED, &LIMITS()).expect("encoded before")
}

/// The elements of these names, and one that stands for the others.
fn part_of(value: &Value, names: &[&[u8]]) -> Option<Value> {
    Some(match value {
        Value::Hash(all) => {
            let mut hash = Hash::new(SEED);
            hash.set(b"another", b"", &LIMITS());
            for name in names {
                all.get(name).into_iter().for_each(|it| _ = hash.set(name, it, &LIMITS()));
            }
            Value::Hash(hash)
        }
        Value::Set(_) if names.is_empty() => {
            let mut set = Set::new(SEED);
            set.add(b"another", &LIMITS());
            Value::Set(set)
        }
        Value::Zset(_) if names.is_empty() => {
            let mut zset = Zset::new(SEED);
            zset.insert(b"another", 0.0, &LIMITS());
            Value::Zset(zset)
        }
        Value::List(_) if names.is_empty() => {
            let mut list = List::new();
            list.push_back(b"another", &LIMITS());
            Value::List(list)
        }
        _ => return None,
    })
}

impl Gated {
    fn get(&self, hash: u64, key: &[u8]) -> Option<Stored> {
        let (body, deadline) = self.content.get(&((hash >> 48) as u16, key.to_vec()))?;
        Some(Stored { value: decoded(body), deadline: *deadline, revision: Revision(1) })
    }

    fn run_of(
        &self,
        buckets: &RangeInclusive<u16>,
    ) -> impl Iterator<Item = (&Vec<u8>, &(Vec<u8>, Option<u64>))> {
        let first = (*buckets.start(), Vec::new());
        let last = *buckets.end();
        let run = self.content.range(first..).take_while(move |((bucket, _), _)| *bucket <= last);
        run.map(|((_, key), it)| (key, it))
    }
}

impl Backing for Gated {
    fn fetch(&self, _: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        if is_long(key) {
            self.waited_for.lock().push(String::from_utf8_lossy(key).into_owned());
        }
        Ok(self.get(hash, key))
    }

    fn fetch_knowing(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        knowing: Knowing,
    ) -> Result<Option<Stored>, BackingError> {
        if !is_long(key) || !knowing.is_hasty {
            return self.fetch(space, hash, key);
        }
        let found = self.get(hash, key);
        if self.is_open.load(Ordering::SeqCst) || found.is_none() {
            return Ok(found);
        }
        self.put_off.fetch_add(1, Ordering::SeqCst);
        Err(BackingError::later("the gate is closed"))
    }

    fn fetch_wanted(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        wanted: Wanted<'_>,
        knowing: Knowing,
    ) -> Result<Option<Found>, BackingError> {
        if let Some(stored) = self.get(hash, key).filter(|_| is_long(key))
            && let Some(value) = part_of(&stored.value, wanted.names)
        {
            let elements = stored.value.as_ref().element_count() as u64;
            return Ok(Some(Found::Part(Stored { value, ..stored }, elements)));
        }
        Ok(self.fetch_knowing(space, hash, key, knowing)?.map(Found::Whole))
    }

    fn bucket(
        &self,
        _: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        for (key, _) in self.run_of(&(bucket..=bucket)) {
            let hash = hash_of(SEED, key);
            self.fetch(SpaceId::first_of(0), hash, key)?.into_iter().for_each(|it| each(key, it));
        }
        Ok(())
    }

    fn list(
        &self,
        _: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Listed),
    ) -> Result<(), BackingError> {
        for (key, (body, deadline)) in self.run_of(&buckets) {
            let (value, deadline, revision) = (decoded(body), *deadline, Revision(1));
            if is_long(key) {
                let (seen, type_name) = (value.as_ref(), value.as_ref().type_name());
                let elements = seen.element_count() as u64;
                each(key, Listed::Long(Unread { type_name, elements, deadline, revision }));
            } else {
                each(key, Listed::Whole(Stored { value, deadline, revision }));
            }
        }
        Ok(())
    }

    fn deadlines(
        &self,
        _: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), BackingError> {
        for (key, (_, deadline)) in self.run_of(&buckets) {
            deadline.iter().for_each(|at| each(key, *at));
        }
        Ok(())
    }
}

/// A server of one thread.
struct Served {
    engine: Arc<Engine>,
    address: SocketAddr,
    gate: Arc<Gated>,
    /// A small key in the same shard as `big:hash`.
    beside: String,
    stop: tokio::sync::watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What is there at first.
fn values(beside: &str) -> Vec<(String, Value, Option<u64>)> {
    let (limits, far) = (LIMITS(), Some(4_102_444_800_000));
    let (mut hash, mut set, mut zset, mut list, mut names) =
        (Hash::new(SEED), Set::new(SEED), Zset::new(SEED), List::new(), List::new());
    for n in 0..600 {
        hash.set(format!("f{n}").as_bytes(), b"v", &limits);
        set.add(format!("m{n}").as_bytes(), &limits);
        zset.insert(format!("m{n}").as_bytes(), f64::from(n), &limits);
        list.push_back(n.to_string().as_bytes(), &limits);
    }
    names.push_back(b"hash", &limits);
    let mut all = vec![
        ("big:set".to_owned(), Value::Set(set), None),
        ("big:zset".to_owned(), Value::Zset(zset), far),
        ("big:list".to_owned(), Value::List(list), None),
        (beside.to_owned(), Value::Str(b"value".to_vec()), None),
        ("names".to_owned(), Value::List(names), None),
    ];
    all.push(("big:hash".to_owned(), Value::Hash(hash), None));
    all
}

impl Served {
    /// With everything in the archive, or all in memory.
    fn start(is_cold: bool) -> Served {
        Served::with(is_cold, values)
    }

    fn with(is_cold: bool, values: impl Fn(&str) -> Vec<(String, Value, Option<u64>)>) -> Served {
        let keyspace = Keyspace::new(2, SEED);
        let shard = keyspace.shard_of(b"big:hash");
        let names = (0..).map(|n| format!("small:{n}"));
        let beside = names.into_iter().find(|name| keyspace.shard_of(name.as_bytes()) == shard);
        let beside = beside.expect("there are many names");
        let (mut content, mut counts) = (Content::new(), [0; SHARDS]);
        for (name, value, deadline) in values(&beside) {
            let key = name.into_bytes();
            counts[keyspace.shard_of(&key)] += 1;
            let bucket = (hash_of(SEED, &key) >> 48) as u16;
            content.insert((bucket, key), (dump::encode_body(value.as_ref()), deadline));
        }
        let gate = Arc::new(Gated {
            content,
            is_open: AtomicBool::new(false),
            put_off: AtomicUsize::new(0),
            waited_for: Mutex::default(),
        });
        if is_cold {
            keyspace.back(gate.clone(), 0, SpaceId::first_of(0), &counts);
        } else {
            for ((_, key), (body, deadline)) in &gate.content {
                let (value, deadline, revision) = (decoded(body), *deadline, Revision(1));
                keyspace.give(0, key, Stored { value, deadline, revision });
            }
        }
        let engine = Arc::new(Engine::new(
            keyspace,
            Arc::new(NoLog::default()),
            Arc::new(SystemClock),
            1,
            Settings::default(),
            Identity::default(),
            Hooks::default(),
        ));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (stop, shutdown) = Shutdown::new();
        let listener = {
            let _inside = runtime.enter();
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            Listener::bind(any, Arc::default(), Unauthenticated::default()).expect("a free port")
        };
        let address = listener.address().expect("bound");
        let serves = engine.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(listener.serve(serves, shutdown));
        });
        Served { engine, address, gate, beside, stop, thread: Some(thread) }
    }

    fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    fn open(&self) {
        self.gate.is_open.store(true, Ordering::SeqCst);
    }

    /// Others are served, on whatever shard.
    fn serves(&self, other: &mut Wire, why: &str) {
        assert_eq!(other.text(&["PING"]), "PONG", "{why}");
        assert_eq!(other.text(&["GET", &self.beside]), "value", "{why}");
    }

    fn put_off(&self) -> usize {
        self.gate.put_off.load(Ordering::SeqCst)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.thread.take().into_iter().for_each(|thread| _ = thread.join());
        if !std::thread::panicking() {
            let waited_for = self.gate.waited_for.lock();
            assert!(waited_for.is_empty(), "read with a lock held: {waited_for:?}");
        }
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// The replies of a server that has everything in memory.
fn expected(lines: &str) -> Vec<Frame> {
    let warm = Served::start(false);
    let mut wire = warm.connect();
    lines.split("; ").map(|line| wire.call(&words(line))).collect()
}

#[test]
fn who_needs_all_of_a_collection_waits_alone() {
    for lines in [
        "HGETALL big:hash",
        "HSET big:hash f1 changed new 1",
        "HSCAN big:hash 0",
        "GET big:hash",
        "SMEMBERS big:set",
        "SADD big:set m1 new",
        "SUNIONSTORE to big:set names",
        "SINTERCARD 2 big:set big:zset",
        "ZRANGE big:zset 0 -1 WITHSCORES",
        "ZADD big:zset 5 m1 7 new",
        "ZUNIONSTORE to 2 big:zset big:set",
        "ZPOPMIN big:zset 3",
        "LRANGE big:list 0 -1",
        "LINSERT big:list BEFORE 5 x",
        "RPUSH big:list x",
        "LMOVE big:list to LEFT RIGHT",
        "LMPOP 2 names big:list LEFT COUNT 2",
        "BLPOP big:list 0",
        "BLMOVE names big:list LEFT RIGHT 0",
        "BZPOPMAX big:zset 0",
        "SORT big:list LIMIT 0 3",
        "SORT names BY nosort GET big:*->f1",
        "RENAME big:hash to",
        "RENAMENX big:hash to",
        "COPY big:hash to",
        "COPY big:list big:set REPLACE",
        "DUMP big:zset",
        "EXPIRE big:hash 100",
        "PERSIST big:zset",
        "OBJECT ENCODING big:hash",
        "OBJECT FREQ big:hash",
        "MEMORY USAGE big:list",
        "TOUCH big:hash big:list",
        "SET big:hash v GET",
        "MOVE big:hash 1",
        "WATCH names big:hash",
        "WHATIF LPOP big:list",
        "WHATIF VALUES DEL big:hash names",
        "MULTI; LPUSH names x; HGETALL big:hash; LPOP names; EXEC",
        "WATCH names; MULTI; ZCARD big:zset; SADD big:set new; EXEC",
    ] {
        let cold = Served::start(true);
        let (mut wire, mut other) = (cold.connect(), cold.connect());
        let mut expected = expected(lines);
        let mut lines_left: Vec<&str> = lines.split("; ").collect();
        let last = lines_left.pop().expect("one at least");
        let at_last = expected.pop().expect("a reply of each");
        for (line, expected) in lines_left.iter().zip(expected) {
            assert_eq!(wire.call(&words(line)), expected, "{line}");
        }
        assert!(wire.send(&words(last)));
        eventually(lines, || cold.put_off() > 0);
        cold.serves(&mut other, lines);
        // It is tried again and again.
        let before = cold.put_off();
        eventually(lines, || cold.put_off() > before);
        cold.serves(&mut other, lines);
        assert_eq!(wire.read(Duration::ZERO), Came::Nothing, "{lines}");
        cold.open();
        assert_eq!(wire.frame(), at_last, "{lines}");
    }
}

#[test]
fn what_needs_no_more_than_an_outline_waits_for_nobody() {
    for lines in [
        "TYPE big:hash",
        "TYPE big:list",
        "TTL big:hash",
        "PEXPIRETIME big:zset",
        "HLEN big:hash",
        "SCARD big:set",
        "ZCARD big:zset",
        "LLEN big:list",
        "LLEN big:hash",
        "OBJECT REVISION big:list",
        "EXISTS big:hash big:set big:zset big:list none",
        "HGET big:hash f7",
        "HMGET big:hash f7 none",
        "DEL big:hash big:zset none; EXISTS big:hash big:zset; DBSIZE; TTL big:zset",
        "UNLINK big:list; TYPE big:list",
        "SET big:hash v; GET big:hash; DBSIZE",
        "SET big:zset v EX 1000; GET big:zset; DEL big:zset; EXISTS big:zset",
        "SETNX big:set v; TYPE big:set",
        "SET big:list v XX; GET big:list",
        "MSET big:hash 1 big:set 2; MGET big:hash big:set; DBSIZE",
        "MSETNX none 1 big:set 2; EXISTS none",
        "DBSIZE",
        "SCAN 0 COUNT 100 TYPE zset",
        "MULTI; HGET big:hash f7; LLEN big:list; EXISTS big:set; DEL big:zset; EXEC; DBSIZE",
        "REMOVE PREFIX big:; DBSIZE; EXISTS big:hash",
        "FLUSHDB; DBSIZE",
        "SWAPDB 0 1; DBSIZE",
    ] {
        let cold = Served::start(true);
        let mut wire = cold.connect();
        let replies = lines.split("; ").map(|line| wire.call(&words(line)));
        assert_eq!(replies.collect::<Vec<_>>(), expected(lines), "{lines}");
        assert_eq!(cold.put_off(), 0, "{lines}");
        assert_eq!(cold.engine.keyspace.check(), Ok(()), "{lines}");
    }
}

#[test]
fn keys_are_told_of_that_are_not_read() {
    let cold = Served::start(true);
    let mut wire = cold.connect();
    let names = |frame: Frame| match frame {
        Frame::Array(names) => {
            let text = |frame| crate::wire::text_of(frame);
            names.into_iter().map(text).collect::<BTreeSet<_>>()
        }
        other => panic!("{other:?}"),
    };
    let all = names(wire.call(&["KEYS", "*"]));
    let of_all = cold.gate.content.keys();
    assert_eq!(all, of_all.map(|(_, key)| String::from_utf8_lossy(key).into_owned()).collect());
    for _ in 0..100 {
        assert!(all.contains(&wire.text(&["RANDOMKEY"])));
    }
    // Once more, when all others are in memory.
    assert_eq!(names(wire.call(&["KEYS", "*"])), all);
    assert_eq!(cold.engine.keyspace.unloaded(), 4);
    assert_eq!(cold.put_off(), 0);
    assert_eq!(cold.engine.keyspace.check(), Ok(()));
}

#[test]
fn what_is_due_goes_unread() {
    let due = |beside: &str| {
        let mut all = values(beside);
        all.iter_mut().filter(|it| it.0 != beside).for_each(|it| it.2 = Some(DUE));
        all
    };
    let cold = Served::with(true, due);
    // As under the policy `tier`: when they are due is known.
    let mut bucket = 0_u32;
    while bucket < 1 << 16 {
        bucket += u32::from(cold.engine.keyspace.index_deadlines(0, bucket as u16).unwrap());
    }
    let mut wire = cold.connect();
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(6));
    assert_eq!(cold.engine.expire_cycle(1_000_000), 5);
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(1));
    assert_eq!(field(&mut wire, "stats", "expired_keys"), 5);
    assert_eq!(wire.call(&["EXISTS", "big:hash", "big:list"]), Frame::Integer(0));
    assert_eq!(cold.put_off(), 0);
    assert_eq!(cold.engine.keyspace.check(), Ok(()));
}

#[test]
fn what_is_loaded_after_a_start_holds_nobody_up() {
    let cold = Served::start(true);
    let goes_on = Arc::new(AtomicBool::new(true));
    let (engine, on) = (cold.engine.clone(), goes_on.clone());
    let loads = std::thread::spawn(move || engine.keep_tier(&on));
    let mut other = cold.connect();
    // All but the four; of those it waits for one after the other.
    eventually("it waits", || cold.put_off() > 3);
    cold.serves(&mut other, "while one is read");
    cold.open();
    eventually("all is loaded", || cold.engine.keyspace.unloaded() == 0);
    goes_on.store(false, Ordering::SeqCst);
    cold.engine.tier_moved();
    loads.join().expect("it ends");
    assert_eq!(other.text(&["HGET", "big:hash", "f7"]), "v");
}

#[test]
fn who_is_served_by_another_waits_alone() {
    let cold = Served::start(true);
    let (mut waiter, mut pusher) = (cold.connect(), cold.connect());
    assert_eq!(waiter.text(&["CLIENT", "SETNAME", "waiter"]), "OK");
    // It waits before the list is known to be there.
    assert!(waiter.send(&["BLMPOP", "0", "2", "none", "other", "LEFT"]));
    eventually("it waits", || pusher.text(&["CLIENT", "LIST"]).contains("flags=b"));
    assert_eq!(pusher.call(&["RPUSH", "other", "x"]), Frame::Integer(1));
    assert!(matches!(waiter.frame(), Frame::Array(_)));
    // Renamed to a key that it waits for.
    assert!(waiter.send(&["BLPOP", "none", "0"]));
    eventually("it waits", || pusher.text(&["CLIENT", "LIST"]).contains("flags=b"));
    assert!(pusher.send(&["RENAME", "big:list", "none"]));
    eventually("it is read", || cold.put_off() > 0);
    let mut other = cold.connect();
    cold.serves(&mut other, "while it is read");
    cold.open();
    assert_eq!(pusher.frame(), Frame::Simple("OK".to_owned()));
    let Frame::Array(popped) = waiter.frame() else { panic!("a pair") };
    assert_eq!(popped[1], Frame::bulk("0"));
}

/// Everything of every collection, in an order of its own.
fn contents(wire: &mut Wire) -> Vec<Vec<String>> {
    let reads =
        ["HGETALL big:hash", "SMEMBERS big:set", "ZRANGE big:zset 0 -1", "LRANGE big:list 0 -1"];
    let of = |line: &str| {
        let Frame::Array(frames) = wire.call(&words(line)) else { panic!("{line}: a list") };
        let mut all: Vec<String> = frames.into_iter().map(crate::wire::text_of).collect();
        if !line.starts_with('L') {
            all.sort_unstable();
        }
        all
    };
    reads.map(of).into()
}

/// Sends what adds an element until it is not refused: while others read collections
/// of megabytes under a limit of 100 KB, there may be no room for it.
fn write(wire: &mut Wire, line: &str) {
    eventually("there is room", || match wire.call(&words(line)) {
        Frame::Error(refused) if refused.starts_with("OOM ") => false,
        Frame::Integer(_) => true,
        other => panic!("{line}: {other:?}"),
    });
}

/// The whole server, with an archive of its own: after a start, and larger than
/// memory.
#[test]
fn they_are_what_they_were() {
    const ELEMENTS: usize = 20_000;
    let mut server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let mut wire = Wire::connect(server.addr());
    for begin in (0..ELEMENTS).step_by(1000) {
        let each = |word: &dyn Fn(usize) -> String| -> String {
            (begin..begin + 1000).map(word).collect::<Vec<_>>().join(" ")
        };
        wire.call(&words(&format!("HSET big:hash {}", each(&|n| format!("f{n} v{n}")))));
        wire.call(&words(&format!("SADD big:set {}", each(&|n| format!("m{n}")))));
        wire.call(&words(&format!("ZADD big:zset {}", each(&|n| format!("{n} m{n}")))));
        wire.call(&words(&format!("RPUSH big:list {}", each(&|n| format!("e{n}")))));
    }
    let mut expected = contents(&mut wire);
    for round in 0..2 {
        assert_eq!(wire.text(&["SAVE"]), "OK");
        if round == 0 {
            server.kill();
            server.restart();
            wire = Wire::connect(server.addr());
        } else {
            assert_eq!(wire.text(&["CONFIG", "SET", "maxmemory-policy", "tier"]), "OK");
            assert_eq!(wire.text(&["CONFIG", "SET", "maxmemory", "100kb"]), "OK");
            eventually("they have left memory", || {
                field(&mut wire, "memory", "used_memory_dataset") < 200_000
            });
        }
        // Many who read and write at once.
        let clients: Vec<_> = (0..6).map(|_| Wire::connect(server.addr())).collect();
        let threads: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, mut wire)| {
                let before = expected.clone();
                std::thread::spawn(move || match number {
                    // Whatever the others have added by then.
                    0..=2 => contents(&mut wire).into_iter().zip(before).for_each(|(now, then)| {
                        let now = BTreeSet::from_iter(now);
                        assert!(then.iter().all(|element| now.contains(element)));
                    }),
                    3 => write(&mut wire, &format!("HSET big:hash new{round} 1")),
                    4 => write(&mut wire, &format!("ZADD big:zset -1 new{round}")),
                    _ => write(&mut wire, &format!("RPUSH big:list new{round}")),
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
        expected[0].extend([format!("new{round}"), "1".to_owned()]);
        expected[2].push(format!("new{round}"));
        expected[3].push(format!("new{round}"));
        expected[0].sort_unstable();
        expected[2].sort_unstable();
        let names = ["hash", "set", "zset", "list"];
        for ((now, expected), name) in contents(&mut wire).iter().zip(&expected).zip(names) {
            let (have, want) = (now.len(), expected.len());
            assert!(now == expected, "round {round}: the {name} has {have} parts of {want}");
        }
    }
}
