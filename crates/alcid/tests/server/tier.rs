//! A data set ten times the memory it may take: every type is written and read
//! back, through kill -9, and memory stays within its bounds.

use base::{Frame, Rng, SeededRng};
use resp::encode_command;
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::wire::{Wire, eventually, field, memory_of};

const LIMIT: u64 = 4 << 20;
const KEYS: usize = 36_000;
const HOT: usize = 50;
const BATCH: usize = 100;

const CONFIG: &str = "[storage]
max_memory = \"4MB\"
eviction_policy = \"tier\"
block_cache_size = \"1MB\"
aof_fsync = \"always\"
";

/// Text of a key's own that does not compress.
fn text(n: usize, len: usize) -> String {
    let mut rng = SeededRng::new(n as u64);
    (0..len).map(|_| char::from(b'a' + rng.below(26) as u8)).collect()
}

/// What makes key `n`, and what reads it.
fn made(n: usize) -> (Vec<String>, Vec<String>) {
    let key = format!("key:{n}");
    let value = text(n, 1000 + n % 300);
    let (write, read): (&[&str], &[&str]) = match n % 6 {
        0 => (&["SET", &key, &value], &["GET", &key]),
        1 => (&["RPUSH", &key, &value, "end"], &["LINDEX", &key, "0"]),
        2 => (&["HSET", &key, "field", &value], &["HGET", &key, "field"]),
        3 => (&["SADD", &key, &value], &["SRANDMEMBER", &key]),
        4 => (&["ZADD", &key, "1", &value], &["ZRANDMEMBER", &key]),
        _ => (&["SET", &key, &value, "PXAT", "4102444800000"], &["GET", &key]),
    };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    (owned(write), owned(read))
}

fn data_bytes(wire: &mut Wire) -> u64 {
    field(wire, "memory", "used_memory_dataset")
}

/// The limit, the margin to where writers wait, and a batch of values.
fn within_bounds(bytes: u64) -> bool {
    bytes < LIMIT + LIMIT / 8 + (1 << 20)
}

/// Sends commands in one go and reads their replies.
fn pipeline(wire: &mut Wire, commands: impl Iterator<Item = Vec<String>>) -> Vec<Frame> {
    let (mut bytes, mut count) = (Vec::new(), 0);
    for command in commands {
        encode_command(&mut bytes, &command);
        count += 1;
    }
    assert!(wire.raw(&bytes));
    (0..count).map(|_| wire.frame()).collect()
}

fn write(wire: &mut Wire, keys: std::ops::Range<usize>) {
    let replies = pipeline(wire, keys.map(|n| made(n).0));
    assert!(replies.iter().all(|reply| !matches!(reply, Frame::Error(_))), "{replies:?}");
}

fn verify(wire: &mut Wire, keys: std::ops::Range<usize>) {
    let replies = pipeline(wire, keys.clone().map(|n| made(n).1));
    for (n, reply) in keys.zip(replies) {
        assert_eq!(reply, Frame::Bulk(text(n, 1000 + n % 300).into_bytes()), "key:{n}");
    }
}

fn batches(keys: std::ops::Range<usize>) -> impl Iterator<Item = std::ops::Range<usize>> {
    keys.clone().step_by(BATCH).map(move |first| first..(first + BATCH).min(keys.end))
}

/// What the record of a branch made `AT` the past begins with, where the parent's
/// database was emptied after the archive's last state, is the branch's own: there
/// is nothing below it.
#[test]
fn a_branch_of_the_past_reads_what_it_was_made_with_once_that_has_left_memory() {
    const KEYS: usize = 100;
    let folder = temp_dir();
    let config = folder.path().join("alcid.toml");
    let small = CONFIG.replace("4MB", "500KB");
    std::fs::write(&config, small).expect("the folder is ours");
    for emptied in [&["SWAPDB", "0", "1"][..], &["FLUSHDB"]] {
        let mut server = Server::start(ALCID, &["--config", &config.display().to_string()]);
        let mut wire = Wire::connect(server.addr());
        let fill = |wire: &mut Wire| {
            for n in 0..KEYS {
                assert_eq!(wire.text(&["RPUSH", &format!("k{n}"), &text(n, 1000)]), "1");
            }
        };
        fill(&mut wire);
        assert_eq!(wire.text(&["SAVE"]), "OK");
        assert_eq!(wire.text(emptied), "OK");
        match emptied[0] {
            "SWAPDB" => assert_eq!(wire.text(emptied), "OK"),
            _ => fill(&mut wire),
        }
        let newest = format!("r:{}", wire.text(&["WAITREV", "0", "0"]));
        let made = wire.call(&["BRANCH", "CREATE", "dev", "AT", &newest]);
        assert!(!matches!(made, Frame::Error(_)), "{made:?}");
        let mut dev = Wire::connect(server.addr());
        assert_eq!(dev.text(&["BRANCH", "USE", "dev"]), "OK");
        for n in 0..2000 {
            let value = text(n, 1000);
            assert_eq!(wire.text(&["SET", &format!("filler:{n}"), &value]), "OK");
        }
        assert_eq!(wire.text(&["SAVE"]), "OK");
        eventually("the branch's keys leave memory", || {
            wire.call(&["SET", "filler", &text(1, 1000)]);
            data_bytes(&mut wire) < 600 << 10
        });
        for n in 0..KEYS {
            assert_eq!(dev.text(&["LINDEX", &format!("k{n}"), "0"]), text(n, 1000), "{emptied:?}");
        }
        assert_eq!(dev.text(&["RPUSH", "k1", "more"]), "2");
        assert_eq!(dev.text(&["DEL", "k2"]), "1");
        server.kill();
        server.restart();
        let mut dev = Wire::connect(server.addr());
        assert_eq!(dev.text(&["BRANCH", "USE", "dev"]), "OK");
        assert_eq!(dev.text(&["LINDEX", "k1", "-1"]), "more");
        assert_eq!(dev.text(&["DBSIZE"]), (KEYS - 1).to_string());
    }
}

#[test]
fn an_element_of_what_is_larger_than_memory_is_read_alone() {
    const ELEMENTS: usize = 60_000;
    let folder = temp_dir();
    let config = folder.path().join("alcid.toml");
    std::fs::write(&config, CONFIG.replace("4MB", "1GB")).expect("the folder is ours");
    let server = Server::start(ALCID, &["--config", &config.display().to_string()]);
    let mut wire = Wire::connect(server.addr());
    let (first, half) = ("x".repeat(100), ELEMENTS / 2);
    for kind in ["HSET", "SADD", "ZADD"] {
        let command = |batch: std::ops::Range<usize>| {
            let mut words = vec![kind.to_owned(), format!("{kind}:big")];
            for n in batch {
                match kind {
                    "HSET" => words.extend([format!("{first}:{n}"), format!("value:{n}")]),
                    "SADD" => words.push(format!("{first}:{n}")),
                    _ => words.extend([n.to_string(), format!("{first}:{n}")]),
                }
            }
            words
        };
        pipeline(&mut wire, batches(0..ELEMENTS).map(command));
    }
    assert_eq!(wire.text(&["SAVE"]), "OK");
    assert_eq!(wire.text(&["CONFIG", "SET", "maxmemory", "4mb"]), "OK");
    eventually("they have left memory", || data_bytes(&mut wire) < LIMIT);
    let name = |n: usize| format!("{first}:{n}");
    let loaded = field(&mut wire, "stats", "tier_loaded_keys");
    let hits = field(&mut wire, "stats", "keyspace_hits");
    for n in (0..ELEMENTS).step_by(ELEMENTS / 20) {
        assert_eq!(wire.text(&["HGET", "HSET:big", &name(n)]), format!("value:{n}"));
        assert_eq!(wire.call(&["SISMEMBER", "SADD:big", &name(n)]), Frame::Integer(1));
        assert_eq!(wire.text(&["ZSCORE", "ZADD:big", &name(n)]), n.to_string());
    }
    assert_eq!(wire.call(&["HEXISTS", "HSET:big", "none"]), Frame::Integer(0));
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(wire.text(&["HGET", "SADD:big", "none"]), wrong);
    assert_eq!(field(&mut wire, "stats", "tier_loaded_keys"), loaded, "they stay there");
    assert_eq!(field(&mut wire, "stats", "keyspace_hits"), hits + 62);
    assert!(data_bytes(&mut wire) < LIMIT);

    // In one transaction with what needs all of it, and changes it.
    for words in [
        &["MULTI"][..],
        &["HGET", "HSET:big", &name(half)],
        &["HSET", "HSET:big", &name(half), "changed"],
        &["HMGET", "HSET:big", &name(half), &name(1)],
        &["DEL", "HSET:big"],
        &["HGET", "HSET:big", &name(1)],
    ] {
        wire.call(words);
    }
    let bulk = |text: &str| Frame::Bulk(text.as_bytes().into());
    let pair = Frame::Array(vec![bulk("changed"), bulk("value:1")]);
    let old = bulk(&format!("value:{half}"));
    let expected = vec![old, Frame::Integer(0), pair, Frame::Integer(1), Frame::Null];
    assert_eq!(wire.call(&["EXEC"]), Frame::Array(expected));
}

#[test]
fn ten_times_the_limit_is_served() {
    let folder = temp_dir();
    let config = folder.path().join("alcid.toml");
    std::fs::write(&config, CONFIG).expect("the folder is ours");
    let mut server = Server::start(ALCID, &["--config", &config.display().to_string()]);
    let mut wire = Wire::connect(server.addr());
    let mut most = 0;
    for (number, batch) in batches(0..KEYS).enumerate() {
        if batch.start == KEYS / 2 {
            server.kill();
            server.restart();
            wire = Wire::connect(server.addr());
        }
        write(&mut wire, batch.clone());
        // The hot ones, now and then.
        if number.is_multiple_of(5) && batch.start >= HOT {
            verify(&mut wire, 0..HOT);
        }
        most = most.max(data_bytes(&mut wire));
        assert!(within_bounds(most), "{most} bytes at {}", batch.start);
    }
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(KEYS as i64));
    let loaded = field(&mut wire, "stats", "tier_loaded_keys");
    verify(&mut wire, 0..HOT);
    verify(&mut wire, 0..HOT);
    let loaded = field(&mut wire, "stats", "tier_loaded_keys") - loaded;
    // Memory turns over within a second here, which the clock of accesses does
    // not see; one key in ten would be there by chance.
    assert!(loaded <= HOT as u64 * 3 / 5, "{loaded} of {HOT} hot keys had left memory");
    assert!(field(&mut wire, "stats", "tier_evicted_keys") > KEYS as u64 / 3);
    assert_eq!(field(&mut wire, "stats", "evicted_keys"), 0);

    server.kill();
    server.restart();
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(KEYS as i64));
    // Deadlines are read even of what stays in the archive.
    let expires = format!("keys={KEYS},expires={},", KEYS / 6);
    eventually("every deadline is known", || wire.text(&["INFO", "keyspace"]).contains(&expires));
    let bytes = data_bytes(&mut wire);
    assert!(bytes > LIMIT / 2 && within_bounds(bytes), "{bytes} after a restart");
    let mut order: Vec<_> = batches(0..KEYS).collect();
    let mut rng = SeededRng::new(7);
    (1..order.len()).rev().for_each(|i| order.swap(i, rng.below(i as u64 + 1) as usize));
    for batch in order {
        verify(&mut wire, batch);
        most = most.max(data_bytes(&mut wire));
    }
    assert!(within_bounds(most), "{most} bytes");
    let Frame::Array(keys) = wire.call(&["KEYS", "*"]) else { panic!("a list of keys") };
    assert_eq!(keys.len(), KEYS);
    assert!(within_bounds(data_bytes(&mut wire)));
    // Beside the data: the program, the archive's and the log's buffers.
    let resident = memory_of(server.pid(), "VmHWM");
    eprintln!("resident at most: {resident} bytes");
    assert_eq!(wire.text(&["FLUSHALL"]), "OK");
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(0));
    eventually("memory is free", || data_bytes(&mut wire) < LIMIT / 8);
}

#[test]
fn the_policy_needs_an_archive() {
    let server = Server::start(ALCID, &["--no-log"]);
    let mut wire = Wire::connect(server.addr());
    let refusal = wire.text(&["CONFIG", "SET", "maxmemory-policy", "tier"]);
    assert!(refusal.contains("storage.aof_enabled is false"), "{refusal}");
    assert_eq!(
        wire.call(&["CONFIG", "GET", "maxmemory-policy"]),
        Frame::Array(vec![
            Frame::Bulk(b"maxmemory-policy"[..].into()),
            Frame::Bulk(b"noeviction"[..].into())
        ])
    );
}
