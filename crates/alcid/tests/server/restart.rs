//! State before a stop is state after it, however the server ended.

use std::collections::BTreeMap;
use std::path::Path;

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::wire::{Came, PATIENCE, Wire, text_of};

/// A deadline far away, in milliseconds since 1970.
const FAR_MS: &str = "4102444800000";

/// Writes every type, in small and large encodings, with and without
/// deadlines, over several databases, by many kinds of commands.
pub fn fill(wire: &mut Wire) {
    let big = "x".repeat(5000);
    let script = [
        "SET plain value",
        "SET number 12345",
        "INCRBY number 5",
        "APPEND plain -more",
        "SETRANGE gap 10 end",
        "SET mortal v PXAT 4102444800000",
        "SET persisted v EX 1000",
        "PERSIST persisted",
        "INCRBYFLOAT float 3.25",
        "SET gone v",
        "DEL gone",
        "HSET hash f1 v1 f2 v2 f3 v3",
        "HINCRBY hash n 7",
        "HDEL hash f2",
        "PEXPIREAT hash 4102444800000",
        "RPUSH list a b c d e",
        "LPUSH list z",
        "LSET list 1 A",
        "LINSERT list BEFORE c between",
        "LREM list 1 d",
        "LPOP list",
        "LTRIM list 0 3",
        "SADD ints 1 2 3 400000",
        "SREM ints 2",
        "SADD words a b c",
        "SPOP words",
        "SMOVE words ints2 a",
        "ZADD zset 1 one 2 two 3.5 three -inf least +inf most",
        "ZINCRBY zset 0.1 one",
        "ZREM zset two",
        "ZPOPMIN zset",
        "RENAME float renamed",
        "COPY list list-copy",
        "SUNIONSTORE union ints words",
        "SORT ints STORE sorted",
        "RPUSH emptied x",
        "LPOP emptied",
    ];
    for line in script {
        let words: Vec<&str> = line.split(' ').collect();
        let reply = wire.call(&words);
        assert!(!matches!(reply, Frame::Error(_)), "{line}: {reply:?}");
    }
    wire.call(&["SET", "big", &big]);
    for number in 0..700 {
        let n = number.to_string();
        wire.call(&["HSET", "big-hash", &n, "v"]);
        wire.call(&["RPUSH", "big-list", &n, &big[..100]]);
        wire.call(&["SADD", "big-set", &format!("m{n}")]);
        wire.call(&["ZADD", "big-zset", &n, &format!("m{n}")]);
    }
    wire.call(&["SET", "\0 binary \r\n\u{ff}", "\r\n\0"]);
    wire.call(&["SELECT", "3"]);
    wire.call(&["SET", "in-three", "v", "PXAT", FAR_MS]);
    wire.call(&["SADD", "moved", "m"]);
    wire.call(&["MOVE", "moved", "4"]);
    wire.call(&["SELECT", "5"]);
    wire.call(&["SET", "flushed", "v"]);
    wire.call(&["FLUSHDB"]);
    wire.call(&["SET", "swapped", "v"]);
    wire.call(&["SWAPDB", "5", "6"]);
    wire.call(&["MULTI"]);
    wire.call(&["SET", "together", "1"]);
    wire.call(&["SELECT", "7"]);
    wire.call(&["SET", "together", "2"]);
    assert!(matches!(wire.call(&["EXEC"]), Frame::Array(_)));
}

/// Everything the server holds: by database and key, what DUMP says and when
/// it expires. A set's and a hash's order is not part of it.
pub fn state(server: &Server) -> BTreeMap<(String, Vec<u8>), (Vec<String>, i64)> {
    let mut wire = Wire::connect(server.addr());
    let mut state = BTreeMap::new();
    for db in 0..16 {
        let db = db.to_string();
        wire.call(&["SELECT", &db]);
        let Frame::Array(keys) = wire.call(&["KEYS", "*"]) else { panic!("KEYS") };
        for key in keys {
            let Frame::Bulk(key) = key else { panic!("a key") };
            let Frame::Integer(expires) = wire.call(&[b"PEXPIRETIME".to_vec(), key.clone()]) else {
                panic!("PEXPIRETIME")
            };
            let value = value(&mut wire, &key);
            state.insert((db.clone(), key), (value, expires));
        }
    }
    state
}

fn value(wire: &mut Wire, key: &[u8]) -> Vec<String> {
    let kind = text_of(wire.call(&[&b"TYPE"[..], key]));
    let read: &[&[u8]] = match kind.as_str() {
        // The payload holds no order that may differ.
        "string" | "list" | "zset" => &[b"DUMP", key],
        "hash" => &[b"HGETALL", key],
        "set" => &[b"SMEMBERS", key],
        other => panic!("{other}"),
    };
    let encoding = text_of(wire.call(&[&b"OBJECT"[..], b"ENCODING", key]));
    let mut elements = match wire.call(read) {
        Frame::Array(items) if kind == "hash" => {
            items.chunks(2).map(|pair| format!("{pair:?}")).collect()
        }
        Frame::Array(items) => items.iter().map(|item| format!("{item:?}")).collect(),
        frame => vec![format!("{frame:?}")],
    };
    elements.sort();
    // As in Redis, a string that was built by APPEND is a plain one after it
    // has been on disk.
    let encoding = if kind == "string" { String::new() } else { encoding };
    elements.extend([kind, encoding]);
    elements
}

#[test]
fn everything_survives_every_kind_of_stop() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    fill(&mut Wire::connect(server.addr()));
    let before = state(&server);
    assert!(before.len() > 20, "{}", before.len());

    assert_eq!(server.terminate().code(), Some(0), "SIGTERM");
    server.restart();
    assert_eq!(state(&server), before, "after SIGTERM");

    server.kill();
    server.restart();
    assert_eq!(state(&server), before, "after SIGKILL");

    server.signal("INT");
    assert_eq!(server.wait().code(), Some(0), "SIGINT");
    server.restart();
    assert_eq!(state(&server), before, "after SIGINT");

    Wire::connect(server.addr()).send(&["SHUTDOWN"]);
    assert_eq!(server.wait().code(), Some(0), "SHUTDOWN");
    server.restart();
    assert_eq!(state(&server), before, "after SHUTDOWN");
}

/// What was saved is not replayed: killed right after SAVE, or ended by
/// SHUTDOWN, which saves.
#[test]
fn what_was_saved_needs_no_log() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    for way in ["SAVE", "SHUTDOWN"] {
        let mut wire = Wire::connect(server.addr());
        wire.text(&["FLUSHALL"]);
        fill(&mut wire);
        let before = state(&server);
        if way == "SAVE" {
            assert_eq!(wire.text(&["SAVE"]), "OK");
            server.kill();
        } else {
            wire.send(&["SHUTDOWN"]);
            assert_eq!(server.wait().code(), Some(0));
        }
        server.restart();
        let persistence = Wire::connect(server.addr()).text(&["INFO", "persistence"]);
        assert!(persistence.contains("log_recovered_records:0\r\n"), "{way}: {persistence}");
        assert_eq!(state(&server), before, "{way}");
    }
}

#[test]
fn every_policy_and_compression_keeps_all_when_it_ends_in_order() {
    for fsync in ["no", "everysec"] {
        for compression in ["lz4", "zstd", "gzip"] {
            let arguments = ["--aof-fsync", fsync, "--log-level", "warn"];
            let mut server = Server::start(ALCID, &arguments);
            let mut wire = Wire::connect(server.addr());
            assert_eq!(wire.text(&["CONFIG", "SET", "storage.aof_compression", compression]), "OK");
            fill(&mut wire);
            let before = state(&server);
            server.terminate();
            server.restart();
            assert_eq!(state(&server), before, "{fsync} {compression}");
        }
    }
}

#[test]
fn a_key_whose_deadline_passed_while_the_server_was_down_is_gone() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut wire = Wire::connect(server.addr());
    wire.call(&["SET", "stays", "v"]);
    wire.call(&["HSET", "short", "f", "v"]);
    // The deadline passes before the server is up again, or it passed before
    // the server was killed: gone either way.
    wire.call(&["PEXPIRE", "short", "1"]);
    server.kill();
    server.restart();
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.call(&["EXISTS", "short", "stays"]), Frame::Integer(1));
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(1));
}

#[test]
fn replies_of_what_has_arrived_are_finished_before_the_end() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
        let mut wire = Wire::connect(server.addr());
        const COUNT: i64 = 2000;
        let mut pipeline = Vec::new();
        for _ in 0..COUNT {
            resp::encode_command(&mut pipeline, &["INCR", "counter"]);
        }
        wire.raw(&pipeline);
        // It has begun, and most is still to do.
        assert_eq!(wire.frame(), Frame::Integer(1));
        server.signal(signal);
        let mut last = 1;
        loop {
            match wire.read(PATIENCE) {
                Came::Frame(Frame::Integer(number)) => {
                    assert_eq!(number, last + 1);
                    last = number;
                }
                Came::Closed => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(server.wait().code(), Some(0), "{}", server.log());
        assert_eq!(last, COUNT, "after SIG{signal}");
        server.restart();
        let counter = Wire::connect(server.addr()).text(&["GET", "counter"]);
        assert_eq!(counter, COUNT.to_string());
    }
}

#[test]
fn a_client_that_never_stops_sending_cannot_keep_the_server_up() {
    let mut server = Server::start(ALCID, &["--aof-fsync", "no"]);
    let addr = server.addr();
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let mut wire = Wire::connect(&addr);
            std::thread::spawn(move || {
                let mut answered = 0_u64;
                while wire.send(&["INCR", "n"]) && matches!(wire.read(PATIENCE), Came::Frame(_)) {
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut watcher = Wire::connect(&addr);
    crate::wire::eventually("the load has begun", || {
        watcher.text(&["GET", "n"]).parse::<u64>().is_ok_and(|n| n > 1000)
    });
    drop(watcher);
    assert_eq!(server.terminate().code(), Some(0));
    let answered: u64 = busy.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert!(!server.log().contains("did not end within"), "{}", server.log());
    server.restart();
    let kept: u64 = Wire::connect(server.addr()).text(&["GET", "n"]).parse().expect("a number");
    // One more for each client: run, and the reply cut off with the connection.
    assert!((answered..=answered + 4).contains(&kept), "{answered} answered, {kept} kept");
}

#[test]
fn waiting_clients_do_not_hold_up_the_end() {
    let mut server = Server::start(ALCID, &[]);
    let mut blocked = Wire::connect(server.addr());
    blocked.send(&["BLPOP", "list", "0"]);
    let mut subscriber = Wire::connect(server.addr());
    subscriber.call(&["SUBSCRIBE", "channel"]);
    let mut half = Wire::connect(server.addr());
    half.raw(b"*2\r\n$3\r\nGET\r\n$100\r\nxx");
    let mut idle = Wire::connect(server.addr());
    idle.call(&["PING"]);
    assert_eq!(server.terminate().code(), Some(0));
    assert!(!server.log().contains("did not end within"), "{}", server.log());
    for wire in [&mut blocked, &mut subscriber, &mut half, &mut idle] {
        assert!(wire.ends());
    }
}

/// The data folders of all format versions, written by hand with every effect:
/// see `crates/log/tests/fixture.rs`.
#[test]
fn folders_of_this_and_older_releases_are_read() {
    read_fixture("v1", ("hello world", "moved"), &[("DBSIZE", "7")]);
    read_fixture("v2", ("Hello world", "moved over"), &[("DBSIZE", "7")]);
    let in_parts = [
        ("DBSIZE", "8"),
        ("STRLEN packed", "1500"),
        ("GETRANGE packed 1490 -1", "pppppppppp"),
        ("SELECT 2", "OK"),
        ("STRLEN large", "1500"),
        ("SELECT 3", "OK"),
        ("GET small", "v"),
    ];
    read_fixture("v3", ("Hello world", "moved over"), &in_parts);
}

fn read_fixture(version: &str, (string, moved): (&str, &str), more: &[(&str, &str)]) {
    let mut server = Server::start(ALCID, &[]);
    server.kill();
    let log = server.data_dir().join("log");
    std::fs::remove_dir_all(&log).expect("ours");
    std::fs::create_dir(&log).expect("ours");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../log/tests/fixtures");
    for entry in std::fs::read_dir(fixtures.join(version)).expect("in the repository") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), log.join(entry.file_name())).expect("ours");
    }
    server.restart();
    let mut wire = Wire::connect(server.addr());
    for (command, reply) in [
        ("GET string", string),
        ("GET number", "41"),
        ("GET mortal", "value"),
        ("PEXPIRETIME mortal", "250000000000000"),
        ("HGET hash field", "value"),
        ("HGET hash count", "7"),
        ("HLEN hash", "2"),
        ("LINDEX list 0", "A"),
        ("LINDEX list 1", "between"),
        ("LINDEX list 2", "b"),
        ("LLEN list", "4"),
        ("SCARD set", "1"),
        ("ZSCORE zset one", "1.5"),
        ("ZCARD zset", "1"),
        ("EXISTS gone old", "0"),
        ("SELECT 3", "OK"),
        ("GET put", "apple"),
        ("PEXPIRETIME put-mortal", "250000000000000"),
        ("STRLEN long", "300"),
        ("PEXPIRETIME long", "-1"),
        ("PEXPIRETIME late", "250000000000000"),
        ("SELECT 9", "OK"),
        ("GET new", moved),
        ("SELECT 5", "OK"),
        ("DBSIZE", "0"),
        ("SELECT 7", "OK"),
        ("GET swapped", "v"),
        ("SELECT 0", "OK"),
    ]
    .iter()
    .chain(more)
    {
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(wire.text(&words), *reply, "{command}");
    }
    assert!(!server.log().contains("WARN"), "{}", server.log());
}
