//! WHATIF tells what the command does that follows, and leaves no trace.
//!
//! `WHATIF_ROUNDS` sets how many random rounds run and `WHATIF_SEED` the first
//! seed; a failure names its seed.

mod harness;
#[path = "../../command/tests/syntax/mod.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod syntax;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use base::{Clock, Frame, FrameBuilder};
use command::flags::{BLOCKING, WRITE};
use command::{Command, Group, Run, table};
use engine::Outcome;
use harness::{Peer, Server, bulk, error, integer, ok};
use syntax::Generator;

const ROUNDS_DEFAULT: u64 = 12;
const STEPS: usize = 600;
/// Those that the generator names.
const DATABASES: &[i64] = &[0, 1, 7];

/// Every key with its database, fingerprint, deadline, revision and size in
/// memory.
type State = BTreeMap<(i64, Vec<u8>), [Frame; 4]>;

/// Rows of WHATIF: key, change and database.
type Rows = BTreeSet<(i64, Vec<u8>, String)>;

struct Round {
    server: Server,
    client: Peer,
    observer: Peer,
    generator: Generator,
    commands: Vec<&'static Command>,
    writes: Vec<&'static Command>,
    db: i64,
}

fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number")),
        Err(_) => default,
    }
}

/// Runs a command; `None` when it waits, which is ended at once.
fn run(server: &Server, peer: &mut Peer, argv: &[Vec<u8>]) -> Option<Frame> {
    let words: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
    let mut reply = FrameBuilder::new(peer.session.client.activity.resp3.load(Ordering::Relaxed));
    let live = server.engine.live();
    let outcome = server.engine.execute(&mut peer.session, &live, &words, &mut reply);
    server.engine.end_batch(&mut peer.session);
    if let Outcome::Blocked(blocked) = outcome {
        server.engine.cancel_wait(blocked.id);
        peer.session.client.activity.blocked.store(false, Ordering::Relaxed);
        return None;
    }
    reply.finish().pop()
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn field<'f>(map: &'f Frame, name: &str) -> &'f Frame {
    let Frame::Map(pairs) = map else { panic!("no map: {map:?}") };
    let found = pairs.iter().find(|(key, _)| *key == bulk(name));
    &found.unwrap_or_else(|| panic!("no {name} in {map:?}")).1
}

fn items(frame: &Frame) -> &[Frame] {
    let Frame::Array(items) = frame else { panic!("no array: {frame:?}") };
    items
}

fn bytes(frame: &Frame) -> Vec<u8> {
    let Frame::Bulk(bytes) = frame else { panic!("no bulk string: {frame:?}") };
    bytes.clone()
}

impl Round {
    fn new(seed: u64) -> Round {
        let server = Server::new();
        let (client, observer) = (server.resp3(), server.resp3());
        let commands: Vec<_> =
            table().all().filter(|c| matches!(c.spec.run, Run::Data(_))).collect();
        let writes = commands.iter().copied().filter(|c| c.flags.has(WRITE)).collect();
        let generator = Generator::new(seed);
        Round { server, client, observer, generator, commands, writes, db: 0 }
    }

    fn call(&mut self) -> (&'static Command, Vec<Vec<u8>>) {
        let from = if self.generator.one_in(4) { &self.commands } else { &self.writes };
        let command = from[self.generator.below(from.len())];
        let clears = ["flush", "remove"].iter().any(|it| command.full_name.starts_with(it));
        if clears && !self.generator.one_in(20) {
            return self.call();
        }
        let group = match command.group {
            Group::Generic | Group::Server => "any",
            group => group.name(),
        };
        self.generator.now_ms = self.server.clock.now_ms();
        (command, self.generator.call(&command.full_name, group, command.spec.syntax))
    }

    fn client(&mut self, argv: &[Vec<u8>]) -> Option<Frame> {
        run(&self.server, &mut self.client, argv)
    }

    fn observe(&mut self, argv: &[Vec<u8>]) -> Frame {
        run(&self.server, &mut self.observer, argv).expect("nothing that waits")
    }

    fn state(&mut self) -> State {
        let mut state = State::new();
        for &db in DATABASES {
            self.observe(&words(&format!("SELECT {db}")));
            let keys = self.observe(&words("KEYS *"));
            for key in items(&keys) {
                let key = bytes(key);
                let ask = |line: &str| [words(line), vec![key.clone()]].concat();
                let digest = self.observe(&ask("DEBUG DIGEST-VALUE"));
                let deadline = self.observe(&ask("PEXPIRETIME"));
                let revision = self.observe(&ask("OBJECT REVISION"));
                let bytes = self.observe(&ask("MEMORY USAGE"));
                state.insert((db, key), [digest, deadline, revision, bytes]);
            }
        }
        state
    }

    /// What WHATIF would list for this difference.
    fn difference(before: &State, after: &State) -> Rows {
        let places: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let mut rows = Rows::new();
        for place in places {
            let change = match (before.get(place), after.get(place)) {
                (None, Some(_)) => "added",
                (Some(_), None) => "removed",
                (Some([old, ..]), Some([new, ..])) if old != new => "changed",
                (Some([_, old, ..]), Some([_, new, ..])) if old != new => "ttl",
                _ => continue,
            };
            rows.insert((place.0, place.1.clone(), change.to_owned()));
        }
        rows
    }

    fn rows(&self, told: &Frame) -> Rows {
        let row = |row: &Frame| {
            let row = items(row);
            let db = match row.get(2) {
                Some(Frame::Integer(db)) => *db,
                None => self.db,
                Some(other) => panic!("no database: {other:?}"),
            };
            (db, bytes(&row[0]), String::from_utf8(bytes(&row[1])).expect("a word"))
        };
        items(field(told, "keys")).iter().map(row).collect()
    }

    /// Tries with WHATIF what `real` does then; it answers the reply.
    fn compare(
        &mut self,
        tried: &[Vec<u8>],
        real: &mut dyn FnMut(&mut Round) -> Frame,
        is_exact: bool,
    ) {
        let what = || {
            format!("{:?}", tried.iter().map(|w| w.escape_ascii().to_string()).collect::<Vec<_>>())
        };
        let before = self.state();
        let digest = self.observe(&words("DEBUG DIGEST"));
        let last = self.server.engine.replicator.newest();
        let told = self.client(&[words("WHATIF COUNT 1000000"), tried.to_vec()].concat());
        let told = told.unwrap_or_else(|| panic!("WHATIF {} waits", what()));
        assert_eq!(self.observe(&words("DEBUG DIGEST")), digest, "WHATIF {}", what());
        assert_eq!(self.state(), before, "WHATIF {}", what());
        assert_eq!(self.server.engine.replicator.newest(), last);
        let answered = real(self);
        let after = self.state();
        if let Frame::Error(text) = &told {
            assert_eq!(&told, &answered, "WHATIF {}: {text}", what());
            return;
        }
        assert_eq!(field(&told, "reply"), &answered, "WHATIF {}", what());
        if is_exact {
            let rows = self.rows(&told);
            assert_eq!(rows, Round::difference(&before, &after), "WHATIF {}", what());
            assert_eq!(field(&told, "keys_total"), &integer(rows.len() as i64));
            assert_eq!(field(&told, "truncated"), &Frame::Boolean(false));
        }
    }

    fn step(&mut self) {
        if self.generator.one_in(30) {
            self.db = 1 - self.db;
            let select = words(&format!("SELECT {}", self.db));
            self.client(&select);
        }
        if self.generator.one_in(20) {
            self.server.clock.advance_ms(1500);
        }
        if self.generator.one_in(8) {
            return self.step_of_queue();
        }
        let (command, argv) = self.call();
        let real = argv.clone();
        let is_exact = command.full_name != "swapdb" && !command.full_name.starts_with("flush");
        let waits = command.flags.has(BLOCKING);
        self.compare(
            &argv,
            &mut |round| {
                if !waits {
                    return round.client(&real).expect("it does not block");
                }
                round.client(&words("MULTI"));
                let queued = round.client(&real).expect("queued");
                let answered = round.client(&words("EXEC")).expect("EXEC answers");
                match answered {
                    Frame::Array(mut replies) => replies.remove(0),
                    _ => queued,
                }
            },
            is_exact,
        );
        if argv[0] == b"dump"
            && let Some(Frame::Bulk(payload)) = self.client(&argv)
        {
            self.generator.keep_payload(payload);
        }
    }

    fn step_of_queue(&mut self) {
        self.client(&words("MULTI"));
        for _ in 0..1 + self.generator.below(4) {
            let argv = match self.generator.below(6) {
                0 => words("SELECT 1"),
                1 => words("PING"),
                _ => self.call().1,
            };
            // A copy has no spare room that the original may have.
            if argv[0].eq_ignore_ascii_case(b"memory") {
                continue;
            }
            self.client(&argv);
        }
        let home = self.db;
        self.compare(
            &words("EXEC"),
            &mut |round| {
                let answered = round.client(&words("EXEC")).expect("EXEC answers");
                let select = words(&format!("SELECT {home}"));
                round.client(&select);
                answered
            },
            true,
        );
    }
}

/// Says which round failed.
struct Trace(u64);

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("WHATIF_SEED={} WHATIF_ROUNDS=1 repeats this", self.0);
        }
    }
}

#[test]
fn what_it_tells_is_what_happens() {
    let first = from_env("WHATIF_SEED", 1);
    for seed in first..first + from_env("WHATIF_ROUNDS", ROUNDS_DEFAULT) {
        let _trace = Trace(seed);
        let mut round = Round::new(seed);
        (0..STEPS).for_each(|_| round.step());
    }
}

#[test]
fn nothing_counts_and_nobody_hears_of_it() {
    let server = Server::new();
    let (mut client, mut tracker) = (server.resp3(), server.resp3());
    let (mut listener, mut waiter) = (server.resp3(), server.resp3());
    client.run("CONFIG SET notify-keyspace-events KEA");
    client.run("MSET a 1 b 2");
    client.run("SET due x PX 100");
    client.run("RPUSH list x");
    tracker.run("CLIENT TRACKING ON");
    tracker.run("MGET a b list");
    listener.call("PSUBSCRIBE __key*");
    listener.pushes();
    let blocked = waiter.block("BLPOP queue 0");
    server.clock.advance_ms(200_000);
    let newest = server.engine.replicator.newest();
    let idle = client.run("OBJECT IDLETIME a");
    let stats = |client: &mut Peer| {
        let text = client.run("INFO stats");
        let Frame::Verbatim(_, text) = text else { panic!("{text:?}") };
        let lines = text.lines().filter(|line| {
            ["keyspace_hits", "keyspace_misses", "expired_keys", "evicted_keys"]
                .iter()
                .any(|name| line.starts_with(name))
        });
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let counted = stats(&mut client);
    for line in [
        "GET a",
        "MGET a none due",
        "SET a 2",
        "INCR a",
        "DEL a b due",
        "SET due 1",
        "RPUSH queue x",
        "RENAME list queue",
        "FLUSHALL",
        "SWAPDB 0 1",
        "BLPOP none queue 0",
        "SORT list BY none STORE queue",
    ] {
        client.run(&format!("WHATIF VALUES {line}"));
    }
    assert_eq!(stats(&mut client), counted);
    assert_eq!(server.engine.replicator.newest(), newest);
    assert_eq!(client.run("OBJECT IDLETIME a"), idle);
    assert_eq!(client.run("LASTREV"), integer(newest.0 as i64));
    assert!(tracker.pushes().is_empty() && listener.pushes().is_empty());
    assert!(server.engine.cancel_wait(blocked.id), "the waiter still waits");
    // One client would hear of it, however many messages it would get.
    let told = client.run("WHATIF MSET a 1 b 2");
    assert_eq!(field(&told, "subscribers"), &integer(1));
    let told = client.run("WHATIF DEL a b");
    assert_eq!(field(&told, "subscribers"), &integer(1));
    // What is due is gone for those who look, and stays for the clock.
    assert_eq!(field(&client.run("WHATIF DEL due"), "reply"), &integer(0));
    assert_eq!(client.run("DBSIZE"), integer(4));
}

/// MSET is told from its words; in a queue it runs on copies like any other.
#[test]
fn mset_is_told_as_it_would_run() {
    let server = Server::new();
    let (mut client, mut listener) = (server.resp3(), server.resp3());
    client.run("CONFIG SET notify-keyspace-events KEAn");
    listener.call("PSUBSCRIBE __keyevent@0__:new __keyevent@0__:expired");
    client.run("MSET same 1 other 1");
    client.run("SET timed 1 PX 90000");
    client.run("SET due 1 PX 100");
    client.run("RPUSH list a b");
    server.clock.advance_ms(200);
    let long = "x".repeat(5000);
    for line in [
        "MSET same 1",
        "MSET same 1 other 2 none 3",
        "MSET timed 1 list 1",
        "MSET due 1",
        "MSET a 1 b 2 a 3 same 2 same 1",
        &format!("MSET same {long} none {long}"),
    ] {
        client.run("MULTI");
        client.run(line);
        let queued = client.run("WHATIF VALUES EXEC");
        client.run("DISCARD");
        let told = client.run(&format!("WHATIF VALUES {line}"));
        assert_eq!(field(&told, "reply"), &ok(), "{line}");
        for name in ["keys", "keys_total", "bytes_freed", "subscribers", "truncated", "rev"] {
            assert_eq!(field(&told, name), field(&queued, name), "{name} of {line}");
        }
    }
    assert_eq!(field(&client.run("WHATIF MSET due 1"), "subscribers"), &integer(1));
    assert_eq!(field(&client.run("WHATIF MSET same 2"), "subscribers"), &integer(0));
    let told = client.run("WHATIF MSET a 1 b");
    let refused = error("ERR wrong number of arguments for 'mset' command");
    assert_eq!(field(&told, "reply"), &refused);
}

#[test]
fn what_is_due_is_in_the_copy_until_a_command_names_it() {
    let server = Server::new();
    let mut client = server.resp3();
    client.run("MSET a 1 b 2");
    client.run("SET due x PX 100");
    client.run("SET other x PX 100");
    server.clock.advance_ms(200);
    // EXEC removes what its commands name before the first of them runs.
    for line in ["MULTI", "DBSIZE", "EXISTS due", "DBSIZE", "KEYS *", "RENAME due a"] {
        client.run(line);
    }
    let told = client.run("WHATIF EXEC");
    assert_eq!(field(&told, "keys_total"), &integer(0));
    let newest = server.engine.replicator.newest();
    let answered = client.run("EXEC");
    assert_eq!(field(&told, "reply"), &answered);
    assert_eq!(items(&answered)[..3], [integer(3), integer(0), integer(3)]);
    assert_eq!(server.engine.replicator.newest(), newest.next());
}

#[test]
fn a_large_value_is_left_as_it_is_by_what_shares_it() {
    let server = Server::new();
    let mut client = server.resp3();
    let named = |name: &str, line: &dyn Fn(usize) -> String| {
        let words: String = (0..2000).map(line).collect();
        format!("{name}{words}")
    };
    client.run(&named("HSET hash", &|n| format!(" field:{n} value")));
    client.run(&named("SADD set", &|n| format!(" member:{n}")));
    client.run(&named("ZADD zset", &|n| format!(" {n} member:{n}")));
    let look = |client: &mut Peer| {
        ["hash", "set", "zset"].map(|key| {
            let digest = client.run(&format!("DEBUG DIGEST-VALUE {key}"));
            (digest, client.run(&format!("MEMORY USAGE {key}")))
        })
    };
    let before = look(&mut client);
    for (line, change) in [
        ("HSET hash field:7 other", "changed"),
        ("HDEL hash field:7", "changed"),
        ("HSET hash new value", "changed"),
        ("SPOP set 1999", "changed"),
        ("SADD set new", "changed"),
        ("ZADD zset 0 member:7", "changed"),
        ("ZREMRANGEBYRANK zset 0 1900", "changed"),
        ("EXPIRE hash 10", "ttl"),
        ("RENAME hash set", "removed"),
        ("DEL zset", "removed"),
    ] {
        let told = client.run(&format!("WHATIF {line}"));
        let Some(Frame::Array(row)) = items(field(&told, "keys")).first() else {
            panic!("{line}: {told:?}");
        };
        assert_eq!(row[1], bulk(change), "{line}");
        assert_eq!(look(&mut client), before, "{line}");
    }
    // What is the same in the end is not told of.
    for line in [
        "HSET hash field:7 value",
        "SADD set member:9",
        "ZADD zset 7 member:7",
        "SUNIONSTORE set set",
    ] {
        let told = client.run(&format!("WHATIF {line}"));
        assert_eq!(field(&told, "keys_total"), &integer(0), "{line}");
    }
}

#[test]
fn too_much_to_copy_is_refused_before_it_is_copied() {
    let server = Server::new();
    let mut client = server.resp3();
    client.run("CONFIG SET whatif-max-bytes 1mb");
    client.run("SETRANGE big 2000000 x");
    let refused = |frame: &Frame| {
        let Frame::Error(text) = frame else { panic!("not refused: {frame:?}") };
        assert!(text.contains("whatif-max-bytes is 1048576; name fewer keys"), "{text}");
    };
    refused(&client.run("WHATIF APPEND big x"));
    refused(&client.run("WHATIF SORT list BY w_* STORE other"));
    client.run("MULTI");
    client.run("DBSIZE");
    refused(&client.run("WHATIF EXEC"));
    assert_eq!(client.run("EXEC"), Frame::Array(vec![integer(1)]));
    // What is removed needs no copy.
    let told = client.run("WHATIF DEL big");
    let Frame::Integer(freed) = field(&told, "bytes_freed") else { panic!("{told:?}") };
    assert!(*freed >= 2_000_000, "{freed} bytes of 2000001");
    let told = client.run("WHATIF FLUSHDB");
    assert_eq!(field(&told, "keys_total"), &integer(1));
    assert_eq!(client.run("CONFIG SET whatif-max-bytes 8mb"), ok());
    assert_eq!(field(&client.run("WHATIF APPEND big x"), "reply"), &integer(2_000_002));
}

#[test]
fn what_refuses_a_command_refuses_to_try_it() {
    let gate = harness::Gate::open();
    let server = Server::with(gate.clone());
    let mut client = server.connect();
    assert_eq!(client.run("WHATIF"), error("ERR wrong number of arguments for 'whatif' command"));
    assert_eq!(client.run("WHATIF VALUES COUNT 3"), client.run("WHATIF"));
    assert_eq!(client.run("WHATIF GET"), client.run("GET"));
    assert_eq!(client.run("WHATIF nope"), client.run("nope"));
    assert_eq!(
        client.run("WHATIF COUNT 0 GET k"),
        error("ERR COUNT 0 is below 1, the least that can be asked for")
    );
    for line in ["SHUTDOWN", "CONFIG SET maxmemory 1", "SUBSCRIBE c", "CLIENT ID", "PUBLISH c m"] {
        let told = client.run(&format!("WHATIF {line}"));
        let Frame::Error(text) = &told else { panic!("{line}: {told:?}") };
        let name = line.split(' ').next().expect("a word");
        assert!(text.starts_with(&format!("ERR cannot be simulated: {name}")), "{text}");
    }
    assert_eq!(
        client.run("WHATIF WHATIF GET k"),
        error("ERR cannot be simulated: WHATIF is not about data alone")
    );
    gate.fail();
    assert_eq!(client.run("WHATIF SET k v"), error("MISCONF broken"));
    assert_eq!(client.run("WHATIF SET k v"), client.run("SET k v"));
}
