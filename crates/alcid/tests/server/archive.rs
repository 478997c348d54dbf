//! The archive beside the log: what it lets the log forget, how a start uses
//! it, and what happens when it is damaged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use base::Frame;
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::run::{alcid, wrapped};
use crate::wire::{Wire, eventually};

/// Everything is on disk before it is acknowledged, so a kill loses nothing.
const ALWAYS: &[&str] = &["--aof-fsync", "always"];

fn info(wire: &mut Wire, field: &str) -> u64 {
    let text = wire.text(&["INFO", "persistence"]);
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {field} in {text}")).trim().parse().expect("a number")
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable"));
    entries.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
}

fn tables(server: &Server) -> Vec<PathBuf> {
    let tables = fs::read_dir(server.data_dir().join("archive/base/tables")).expect("a folder");
    tables.map(|entry| entry.expect("readable").path()).collect()
}

/// Fills `count` strings, `key:n` with value `value:n`, some in another
/// database, and one hash.
fn fill(wire: &mut Wire, count: usize) {
    for first in (0..count).step_by(1000) {
        for n in first..(first + 1000).min(count) {
            assert!(wire.send(&["SET", &format!("key:{n}"), &format!("value:{n}")]));
        }
        (first..(first + 1000).min(count)).for_each(|_| drop(wire.frame()));
    }
    wire.call(&["HSET", "hash", "f", "1", "g", "2"]);
    assert_eq!(wire.text(&["SELECT", "3"]), "OK");
    assert_eq!(wire.text(&["SET", "third", "v"]), "OK");
    assert_eq!(wire.text(&["SELECT", "0"]), "OK");
}

#[test]
fn the_log_keeps_the_files_it_is_told_to_and_lets_them_go_though_nobody_writes() {
    let folder = temp_dir();
    let settings = "ALCID_STORAGE_HISTORY_KEEP=0 ALCID_STORAGE_LOG_SEGMENT_SIZE=1mb \
                    ALCID_STORAGE_LOG_RETENTION_COUNT=3 exec";
    let server = Server::start(wrapped(folder.path(), settings), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    let value = "v".repeat(100_000);
    (0..80).for_each(|_| assert_eq!(wire.text(&["SET", "k", &value]), "OK"));
    assert_eq!(wire.text(&["SAVE"]), "OK");
    eventually("three are kept", || (3..=5).contains(&info(&mut wire, "log_segments")));
    assert_eq!(wire.text(&["CONFIG", "SET", "storage.log_retention_count", "0"]), "OK");
    eventually("they go", || info(&mut wire, "log_segments") == 1);
}

#[test]
fn overwriting_one_key_keeps_the_disk_bounded() {
    overwrite("ALCID_STORAGE_HISTORY_KEEP=0", 4_000_000);
}

#[test]
fn a_history_is_as_large_as_it_may_be() {
    let (server, mut wire) = overwrite("ALCID_STORAGE_HISTORY_SIZE=8mb", 12_000_000);
    assert!(bytes_below(&server.data_dir().join("log")) > 4_000_000);
    let old = wire.text(&["AT", "r:100", "GET", "k"]);
    assert!(old.contains("COMPACTED revision 100 is older than the oldest kept, "), "{old}");
    assert_eq!(wire.text(&["AT", "r:199000", "STRLEN", "k"]), "100");
}

/// A server with this setting that has overwritten one key so often that its
/// log was much larger than `most`, and its log is not any more.
fn overwrite(setting: &str, most: u64) -> (Server, Wire) {
    let folder = temp_dir();
    let small = "ALCID_STORAGE_LOG_SEGMENT_SIZE=1mb ALCID_STORAGE_ARCHIVE_LAG=2mb";
    let server = Server::start(wrapped(folder.path(), &format!("{setting} {small} exec")), &[]);
    let mut wire = Wire::connect(server.addr());
    let value = "v".repeat(100);
    for _ in 0..200 {
        (0..1000).for_each(|_| assert!(wire.send(&["SET", "k", &value])));
        (0..1000).for_each(|_| drop(wire.frame()));
    }
    // The log's thread may be behind before.
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let written = info(&mut wire, "log_bytes_written");
    assert!(written > 15_000_000, "{written}");
    eventually("the log is short", || bytes_below(&server.data_dir().join("log")) < most);
    assert!(info(&mut wire, "archive_disk_bytes") < 1_000_000);
    assert_eq!(info(&mut wire, "archive_lag_revisions"), 0);
    (server, wire)
}

#[test]
fn a_start_serves_at_once_what_the_archive_has() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, 20_000);
    assert_eq!(wire.text(&["SAVE"]), "OK");
    assert_eq!(wire.text(&["SET", "after", "the checkpoint"]), "OK");
    server.kill();
    server.restart();
    let mut wire = Wire::connect(server.addr());
    // Whatever has been loaded by now, nobody can tell.
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(20_002));
    assert_eq!(wire.text(&["GET", "key:19999"]), "value:19999");
    assert_eq!(wire.text(&["GET", "after"]), "the checkpoint");
    assert_eq!(wire.text(&["GET", "key:20000"]), "(nil)");
    assert_eq!(wire.call(&["DEL", "key:7", "hash", "none"]), Frame::Integer(2));
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(20_000));
    let recovered = info(&mut wire, "log_recovered_records");
    assert!(recovered <= 1, "{recovered} records replayed");
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let Frame::Array(reply) = wire.call(&["SCAN", &cursor, "COUNT", "500"]) else {
            panic!("SCAN")
        };
        let [Frame::Bulk(next), Frame::Array(keys)] = &reply[..] else { panic!("{reply:?}") };
        found.extend(keys.iter().map(|key| format!("{key:?}")));
        cursor = String::from_utf8(next.clone()).expect("digits");
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found.len(), 20_000);
    eventually("everything is loaded", || info(&mut wire, "keys_to_load") == 0);
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(20_000));
    // What was removed since does not come back.
    server.kill();
    server.restart();
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["GET", "key:7"]), "(nil)");
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(20_000));
}

#[test]
fn damage_is_never_served() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, 3000);
    assert_eq!(wire.text(&["SAVE"]), "OK");
    server.kill();
    let table =
        tables(&server).into_iter().max_by_key(|path| fs::metadata(path).expect("there").len());
    let table = table.expect("a table");
    let whole = fs::read(&table).expect("ours");
    let name = table.display().to_string();
    let mut refused = 0;
    for place in (0..whole.len()).step_by(whole.len() / 12) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        fs::write(&table, bytes).expect("ours");
        if let Err(log) = server.try_restart() {
            assert!(log.contains(&name), "byte {place}: {log}");
            refused += 1;
            continue;
        }
        let mut wire = Wire::connect(server.addr());
        for n in 0..3000 {
            let read = wire.text(&["GET", &format!("key:{n}")]);
            if read != format!("value:{n}") {
                assert!(read.starts_with("ERR") && read.contains(&name), "byte {place}: {read}");
                refused += 1;
                break;
            }
        }
        server.kill();
    }
    assert!(refused > 0, "no damage was met");
    fs::write(&table, whole).expect("ours");
    server.restart();
    assert_eq!(Wire::connect(server.addr()).text(&["GET", "key:2999"]), "value:2999");
}

#[test]
fn a_start_that_is_refused_names_the_damaged_file() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, 3000);
    assert_eq!(wire.text(&["SAVE"]), "OK");
    server.kill();
    let base = server.data_dir().join("archive/base");
    let (current, table) = (base.join("current"), tables(&server).remove(0));
    let number = fs::read(&current).expect("ours")[0];
    let manifest = base.join(format!("v{number}"));
    // What is damaged, how (not at all: removed), and which file is blamed for what.
    type Damage = fn(&mut Vec<u8>);
    let cut: Damage = |bytes| bytes.truncate(bytes.len() / 2);
    let other_number: Damage = |bytes| bytes[0] ^= 1;
    let other_checksum: Damage = |bytes| bytes[9] ^= 1;
    let unclear = "one of these two files is damaged";
    for (damaged, damage, blamed, text) in [
        (&table, None, &table, "it is not there"),
        (&current, None, &current, "it is not there"),
        (&table, Some(cut), &table, "its content is not what was written"),
        (&manifest, None, &manifest, "it is not there, and `current` names it"),
        (&manifest, Some(cut), &manifest, unclear),
        (&current, Some(other_number), &current, "and has the checksum of v"),
        // Nobody can tell which of the two it is.
        (&current, Some(other_checksum), &manifest, unclear),
        (&current, Some(cut), &current, "bytes instead of 25"),
    ] {
        let whole = fs::read(damaged).expect("ours");
        match damage {
            None => fs::remove_file(damaged).expect("ours"),
            Some(damage) => {
                let mut bytes = whole.clone();
                damage(&mut bytes);
                fs::write(damaged, bytes).expect("ours");
            }
        }
        let log = server.try_restart().expect_err(text);
        for text in [&format!("{}: ", blamed.display()), text, "`alcid restore`"] {
            assert!(log.contains(text), "{}: no {text:?} in {log}", damaged.display());
        }
        fs::write(damaged, whole).expect("ours");
    }
    server.restart();
    assert_eq!(Wire::connect(server.addr()).text(&["GET", "key:2999"]), "value:2999");
}

#[test]
fn an_archive_goes_with_its_log_only() {
    let start = || {
        let mut server = Server::start(ALCID, ALWAYS);
        let mut wire = Wire::connect(server.addr());
        assert_eq!(wire.text(&["SET", "k", "v"]), "OK");
        assert_eq!(wire.text(&["SAVE"]), "OK");
        assert_eq!(server.terminate().code(), Some(0));
        server
    };
    let (mut one, other) = (start(), start());
    let aside = temp_dir();
    let log = one.data_dir().join("log");
    fs::rename(&log, aside.path().join("log")).expect("ours");
    let refusal = one.try_restart().expect_err("there is no log");
    assert!(refusal.contains(log.to_str().expect("text")), "{refusal}");
    assert!(!log.exists(), "nothing was made in its place");

    fs::rename(other.data_dir().join("log"), &log).expect("ours");
    let refusal = one.try_restart().expect_err("the log of another");
    assert!(refusal.contains("another database"), "{refusal}");

    fs::remove_dir_all(&log).expect("ours");
    fs::rename(aside.path().join("log"), &log).expect("ours");
    one.restart();
    assert_eq!(Wire::connect(one.addr()).text(&["GET", "k"]), "v");
}

#[test]
fn a_repair_below_the_archive_costs_nothing_after_it() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, 1000);
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let log = server.data_dir().join("log");
    let segments = || {
        let names = fs::read_dir(&log).expect("a folder").map(|entry| entry.expect("there").path());
        let mut found: Vec<_> =
            names.filter(|path| path.extension().is_some_and(|end| end == "alog")).collect();
        found.sort();
        found
    };
    // The history keeps the first segment, which the archive covers.
    eventually("the log has begun another segment", || segments().len() == 2);
    assert_eq!(wire.text(&["SET", "after", "v"]), "OK");
    server.kill();
    let first = segments().remove(0);
    let mut bytes = fs::read(&first).expect("ours");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&first, bytes).expect("ours");
    let data_dir = server.data_dir();
    let data_dir = data_dir.to_str().expect("text");
    let ended = alcid(&log, &["log", "check", "--repair", "--data-dir", data_dir]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    server.restart();
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["GET", "after"]), "v");
    assert_eq!(wire.text(&["GET", "key:999"]), "value:999");
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(1002));
}

/// What commands that name elements answered of large collections, they answer
/// later as of then, whatever became of the keys.
#[test]
fn elements_of_large_collections_are_as_they_were() {
    let server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for first in (0..3000).step_by(100) {
        let (mut hash, mut set, mut zset) = (vec![], vec![], vec![]);
        for n in first..first + 100 {
            hash.extend([format!("f{n}"), format!("value {n}")]);
            set.push(format!("f{n}"));
            zset.extend([n.to_string(), format!("f{n}")]);
        }
        for (command, key, elements) in
            [("HSET", "hash", hash), ("SADD", "set", set), ("ZADD", "zset", zset)]
        {
            let words: Vec<&str> = elements.iter().map(String::as_str).collect();
            wire.call(&[&[command, key][..], &words].concat());
        }
    }
    let mut questions: Vec<Vec<&str>> = Vec::new();
    for key in ["hash", "set", "zset", "none"] {
        for command in ["HGET", "HEXISTS", "HSTRLEN", "SISMEMBER", "ZSCORE"] {
            questions.extend(["f7", "f8", "f2999", "new", ""].map(|name| vec![command, key, name]));
        }
        for command in ["HMGET", "SMISMEMBER", "ZMSCORE"] {
            questions.push(vec![command, key, "f8", "f7", "new", "f8", ""]);
        }
    }
    let ask = |wire: &mut Wire, at: Option<&str>| -> Vec<Frame> {
        let prefix: Vec<&str> = at.map_or(vec![], |at| vec!["AT", at]);
        questions.iter().map(|words| wire.call(&[&prefix[..], words].concat())).collect()
    };
    let changes: &[&[&[&str]]] = &[
        &[&["HDEL", "hash", "f7"], &["SREM", "set", "f7", "f9"], &["ZREM", "zset", "f7"]],
        &[&["HSET", "hash", "f8", "x", "new", "y"], &["SADD", "set", "new", ""]],
        &[&["ZINCRBY", "zset", "2.5", "f8"], &["HSET", "hash", "f9", "z"], &["SAVE"]],
        &[&["HSET", "hash", "f7", "again"], &["PEXPIRE", "zset", "100000"], &["SREM", "set", "f8"]],
        &[&["DEL", "hash"], &["SADD", "hash", "f7"], &["ZREM", "zset", "f2999"]],
        &[&["DEL", "set"], &["RENAME", "zset", "set"], &["HSET", "zset", "f8", "v"]],
        &[&["RENAME", "set", "zset"], &["FLUSHDB"], &["HSET", "none", "f8", "v"], &["SAVE"]],
    ];
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let mut seen = Vec::new();
    for changes in changes {
        let Frame::Integer(revision) = wire.call(&["LASTREV"]) else { panic!("a revision") };
        seen.push((format!("r:{revision}"), ask(&mut wire, None)));
        for change in *changes {
            let done = wire.call(change);
            assert!(!matches!(done, Frame::Error(_)), "{change:?}: {done:?}");
        }
        // Asked for often enough, a state is kept for those who come again.
        for _ in 0..3 {
            for (at, answers) in &seen {
                for ((words, then), now) in
                    questions.iter().zip(answers).zip(ask(&mut wire, Some(at)))
                {
                    assert_eq!(&now, then, "AT {at} {words:?}");
                }
            }
        }
    }
    let history = |wire: &mut Wire| wire.call(&["HISTORY", "hash", "FIELD", "f8", "VALUES"]);
    let Frame::Array(versions) = history(&mut wire) else { panic!("versions") };
    let values = versions.iter().map(|version| match version {
        Frame::Array(row) => row.last().expect("a value").clone(),
        other => panic!("{other:?}"),
    });
    // The flush found a set there, without fields.
    let expected = [Frame::Null, Frame::bulk("x"), Frame::bulk("value 8")];
    assert_eq!(values.collect::<Vec<_>>(), expected);
}

#[test]
fn a_state_counts_its_keys_whatever_was_read_of_it() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for words in [&["SET", "k", "v"][..], &["BRANCH", "CREATE", "b"], &["SET", "other", "v"]] {
        wire.call(words);
    }
    server.terminate();
    server.restart();
    let mut wire = Wire::connect(server.addr());
    let mut then = |words: &[&str]| {
        let at = ["AT", "r:3", "BRANCH", "b"];
        wire.call(&[&at, words].concat())
    };
    for _ in 0..2 {
        assert_eq!(then(&["DBSIZE"]), Frame::Integer(1));
        assert_eq!(then(&["GET", "k"]), Frame::bulk("v"));
        assert_eq!(then(&["EXISTS", "other"]), Frame::Integer(0));
        assert_eq!(then(&["DBSIZE"]), Frame::Integer(1));
        assert_eq!(then(&["KEYS", "*"]), Frame::Array(vec![Frame::bulk("k")]));
    }
}

/// A tag of a revision that no batch of the archive ended with is read by means of
/// the history. Without one it is read by nobody, and takes nothing from others.
#[test]
fn a_tag_that_cannot_be_read_any_more_takes_nothing_from_the_present() {
    let folder = temp_dir();
    let still = "ALCID_STORAGE_ARCHIVE_IDLE=0 ALCID_STORAGE_ARCHIVE_INTERVAL=0 exec";
    let mut server = Server::start(wrapped(folder.path(), still), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    let fields: Vec<String> = (0..4000).map(|n| format!("{n}")).collect();
    let words = ["HSET", "large"].into_iter().chain(fields.iter().map(String::as_str));
    assert_eq!(wire.text(&words.collect::<Vec<_>>()), "2000");
    assert_eq!(wire.text(&["SET", "later", "v"]), "OK");
    assert_eq!(wire.text(&["TAG", "CREATE", "between", "AT", "r:1"]), "1");
    server.terminate();
    wrapped(folder.path(), "ALCID_STORAGE_HISTORY_KEEP=0 exec");
    server.restart();
    let mut wire = Wire::connect(server.addr());
    // Enough batches that their tables are merged.
    for n in 0..20 {
        assert_eq!(wire.text(&["SET", &format!("key:{n}"), "v"]), "OK");
        assert_eq!(wire.text(&["SAVE"]), "OK");
    }
    server.terminate();
    server.restart();
    let Frame::Array(found) = Wire::connect(server.addr()).call(&["HGETALL", "large"]) else {
        panic!("it is there");
    };
    assert_eq!(found.len(), fields.len());
}
