//! What is kept of the past of which keys: across restarts, in backups, and on
//! disk.

use std::path::{Path, PathBuf};

use base::Frame;
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::run::{alcid, wrapped};
use crate::wire::{Wire, eventually};

/// Everything is on disk before it is acknowledged, so a kill loses nothing.
const ALWAYS: &[&str] = &["--aof-fsync", "always"];

fn pins(wire: &mut Wire) -> Vec<(String, i64)> {
    let Frame::Array(stats) = wire.call(&["HISTORY.STATS"]) else { panic!("HISTORY.STATS") };
    let at = stats.iter().position(|frame| *frame == Frame::bulk("pins")).expect("pins");
    let Frame::Array(pins) = &stats[at + 1] else { panic!("{stats:?}") };
    let pin = |frame: &Frame| match frame {
        Frame::Array(pair) => match &pair[..] {
            [Frame::Bulk(name), Frame::Integer(revision)] => {
                (String::from_utf8_lossy(name).into_owned(), *revision)
            }
            _ => panic!("{pair:?}"),
        },
        other => panic!("{other:?}"),
    };
    pins.iter().map(pin).collect()
}

fn names(wire: &mut Wire) -> Vec<String> {
    pins(wire).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn rules_survive_a_crash_a_start_and_a_backup() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for value in ["a", "b", "c"] {
        assert_eq!(wire.text(&["SET", "doc:1", value]), "OK");
    }
    let set = |wire: &mut Wire, words: &[&str]| {
        let words = [&["HISTORY.POLICY", "SET"], words].concat();
        assert_eq!(wire.text(&words), "OK");
    };
    set(&mut wire, &["doc:*", "KEEP", "2", "VERSIONS"]);
    // In the log only, then in the archive too, then both.
    let check = |wire: &mut Wire| {
        let old = wire.text(&["AT", "r:1", "GET", "doc:1"]);
        assert_eq!(old, "COMPACTED revision 1 is older than the oldest kept, 2");
        assert_eq!(wire.text(&["AT", "r:2", "GET", "doc:1"]), "b");
    };
    for saves in [false, true, false] {
        if saves {
            assert_eq!(wire.text(&["SAVE"]), "OK");
        }
        server.kill();
        server.restart();
        wire = Wire::connect(server.addr());
        check(&mut wire);
    }
    set(&mut wire, &["law:*", "KEEP", "FOREVER"]);
    set(&mut wire, &["log:*", "KEEP", "30d"]);
    assert_eq!(wire.text(&["DEBUG", "RELOAD"]), "OK");
    check(&mut wire);
    assert_eq!(names(&mut wire), ["history", "policy:law:*", "policy:log:*"]);

    let folder = temp_dir();
    let backup = folder.path().join("backup");
    let backup = backup.to_str().expect("text");
    let made = wire.call(&["BACKUP", "TO", backup]);
    assert!(matches!(made, Frame::Array(_)), "{made:?}");
    let mut server = Server::start(ALCID, &[]);
    server.kill();
    std::fs::remove_dir_all(server.data_dir()).expect("ours");
    let data_dir = server.data_dir();
    let data_dir = data_dir.to_str().expect("text");
    let arguments = ["restore", "--from", backup, "--data-dir", data_dir];
    let ended = alcid(folder.path(), &arguments);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    server.restart();
    let mut wire = Wire::connect(server.addr());
    let rule = wire.call(&["HISTORY.POLICY", "GET", "law:1"]);
    assert_eq!(rule, Frame::Array(vec![Frame::bulk("law:*"), Frame::bulk("FOREVER")]));
}

#[test]
fn what_is_to_be_kept_for_ever_outlives_the_settings() {
    let folder = temp_dir();
    let small = "ALCID_STORAGE_HISTORY_SIZE=2mb ALCID_STORAGE_LOG_SEGMENT_SIZE=1mb \
                 ALCID_STORAGE_ARCHIVE_LAG=1mb exec";
    let server = Server::start(wrapped(folder.path(), small), &[]);
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["SET", "law:1", "first"]), "OK");
    assert_eq!(wire.text(&["HISTORY.POLICY", "SET", "law:*", "KEEP", "FOREVER"]), "OK");
    assert_eq!(wire.text(&["SET", "law:1", "second"]), "OK");
    let fill = |wire: &mut Wire| {
        let value = "v".repeat(1000);
        for _ in 0..8 {
            (0..1000).for_each(|_| assert!(wire.send(&["SET", "k", &value])));
            (0..1000).for_each(|_| drop(wire.frame()));
        }
        assert_eq!(wire.text(&["SAVE"]), "OK");
    };
    fill(&mut wire);
    // What a turn of the follower would do.
    assert_eq!(wire.call(&["HISTORY.COMPACT"]), Frame::Integer(0));
    assert_eq!(wire.text(&["AT", "r:1", "GET", "law:1"]), "first");
    assert!(pins(&mut wire).contains(&("policy:law:*".to_owned(), 0)));
    assert_eq!(wire.call(&["HISTORY.POLICY", "DEL", "law:*"]), Frame::Integer(1));
    fill(&mut wire);
    eventually("the past has gone that nobody holds", || {
        wire.text(&["AT", "r:1", "GET", "law:1"]).starts_with("COMPACTED")
    });
    assert_eq!(names(&mut wire), ["history"]);
}

/// The files below a folder whose bytes have these among them.
pub fn files_with(folder: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.append(&mut files_with(&path, bytes));
        } else if let Ok(content) = std::fs::read(&path)
            && content.windows(bytes.len()).any(|window| window == bytes)
        {
            found.push(path);
        }
    }
    found
}

/// What every state of another key was must not change.
fn others(wire: &mut Wire, keys: i64) {
    for (revision, value) in [("r:2", "1"), ("r:4", "2"), ("r:9", "of the other")] {
        assert_eq!(wire.text(&["AT", revision, "GET", "other"]), value, "{revision}");
    }
    assert_eq!(wire.call(&["AT", "r:4", "DBSIZE"]), Frame::Integer(keys));
}

#[test]
fn what_is_purged_is_in_no_file() {
    for compression in ["none", "lz4"] {
        let folder = temp_dir();
        let setup = format!("ALCID_STORAGE_AOF_COMPRESSION={compression} exec");
        let mut server = Server::start(wrapped(folder.path(), &setup), ALWAYS);
        let mut wire = Wire::connect(server.addr());
        let say = |wire: &mut Wire, words: &[&str]| {
            let reply = wire.call(words);
            assert!(!matches!(reply, Frame::Error(_)), "{words:?}: {reply:?}");
        };
        say(&mut wire, &["SET", "user:1", "Zaphod0"]);
        say(&mut wire, &["SET", "other", "1"]);
        say(&mut wire, &["SET", "user:1", "Zaphod1"]);
        say(&mut wire, &["SET", "other", "2"]);
        say(&mut wire, &["SAVE"]);
        say(&mut wire, &["APPEND", "user:1", " Zaphod2"]);
        // What others have by a rename is theirs.
        say(&mut wire, &["SET", "user:2", "of the other"]);
        say(&mut wire, &["DEL", "other"]);
        say(&mut wire, &["RENAME", "user:2", "other"]);
        say(&mut wire, &["SAVE"]);
        say(&mut wire, &["SET", "user:1", "Marvin"]);
        say(&mut wire, &["SET", "user:2", "Zaphod3"]);
        let count = |n: u64| Frame::Integer(n.try_into().expect("small"));
        let data_dir = server.data_dir();
        assert!(!files_with(&data_dir, b"Zaphod").is_empty());
        others(&mut wire, 2);
        say(&mut wire, &["SET", "user:2", "Trillian"]);

        assert_eq!(wire.call(&["HISTORY.PURGE", "user:1", "CONFIRM"]), count(4), "{compression}");
        assert_eq!(files_with(&data_dir, b"Zaphod0"), Vec::<PathBuf>::new());
        assert_eq!(files_with(&data_dir, b"Zaphod2"), Vec::<PathBuf>::new());
        assert!(compression != "none" || !files_with(&data_dir, b"Zaphod3").is_empty());
        assert_eq!(wire.text(&["GET", "user:1"]), "Marvin");
        others(&mut wire, 1);
        let purged = wire.call(&["HISTORY.PURGE", "PREFIX", "user:", "CONFIRM"]);
        assert_eq!(purged, count(5), "{compression}");
        assert_eq!(files_with(&data_dir, b"Zaphod"), Vec::<PathBuf>::new());
        // After a crash, and a start that reads everything.
        for crash in [false, true] {
            if crash {
                server.kill();
                server.restart();
                wire = Wire::connect(server.addr());
            }
            others(&mut wire, 1);
            assert_eq!(wire.text(&["GET", "user:1"]), "Marvin");
            assert_eq!(wire.text(&["GET", "user:2"]), "Trillian");
            let old = wire.text(&["AT", "r:3", "GET", "user:1"]);
            assert!(old.starts_with("COMPACTED revision 3 is older than"), "{old}");
            let Frame::Array(rows) = wire.call(&["HISTORY", "user:1"]) else { panic!("no rows") };
            let [Frame::Array(row)] = &rows[..] else { panic!("{rows:?}") };
            assert_eq!(row[2], Frame::bulk("history.purge"));
            assert_eq!(row[3], Frame::bulk("default"));
            assert_eq!(row[5], Frame::bulk("purge"));
            say(&mut wire, &["SET", "user:2", "Trillian"]);
        }
        server.kill();
        let data_dir = data_dir.to_str().expect("text");
        let ended = alcid(folder.path(), &["log", "check", "--data-dir", data_dir]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

#[test]
fn what_is_purged_of_a_large_collection_is_in_no_file() {
    let folder = temp_dir();
    let mut server = Server::start(wrapped(folder.path(), "exec"), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    let fill = |wire: &mut Wire, value: &str, from: usize| {
        for first in (from..3000).step_by(100) {
            let fields: Vec<String> = (first..first + 100).map(|n| format!("f{n}")).collect();
            let mut words = vec!["HSET", "large"];
            fields.iter().for_each(|field| words.extend([field, value]));
            wire.call(&words);
        }
        assert_eq!(wire.text(&["SAVE"]), "OK");
    };
    fill(&mut wire, "Zaphod", 0);
    fill(&mut wire, "Marvin", 100);
    wire.call(&["HDEL", "large", "f7"]);
    assert_eq!(wire.text(&["SAVE"]), "OK");
    // What stays is not erased.
    for n in 0..100 {
        wire.call(&["HSET", "large", &format!("f{n}"), "Trillian"]);
    }
    assert!(!files_with(&server.data_dir(), b"Zaphod").is_empty());
    assert!(matches!(wire.call(&["HISTORY.PURGE", "large", "CONFIRM"]), Frame::Integer(_)));
    for crash in [false, true] {
        if crash {
            server.kill();
            server.restart();
            wire = Wire::connect(server.addr());
        }
        assert_eq!(files_with(&server.data_dir(), b"Zaphod"), Vec::<PathBuf>::new());
        assert_eq!(wire.text(&["HGET", "large", "f7"]), "Trillian");
        assert_eq!(wire.text(&["HGET", "large", "f2999"]), "Marvin");
        assert_eq!(wire.call(&["HLEN", "large"]), Frame::Integer(3000));
    }
}

#[test]
fn what_was_flushed_comes_back_after_a_crash_and_whatever_is_let_go() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for n in 0..2000 {
        assert!(wire.send(&["SET", &format!("key:{n}"), "v"]));
    }
    (0..2000).for_each(|_| drop(wire.frame()));
    assert_eq!(wire.call(&["HSET", "hash", "f", "1"]), Frame::Integer(1));
    let digest = wire.text(&["DEBUG", "DIGEST"]);
    assert_eq!(wire.text(&["SAVE"]), "OK");
    assert_eq!(wire.text(&["HISTORY.POLICY", "SET", "*", "KEEP", "NONE"]), "OK");
    assert_eq!(wire.text(&["FLUSHALL"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    server.kill();
    server.restart();
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(0));
    assert!(pins(&mut wire).contains(&("undo".to_owned(), 2002)), "{:?}", pins(&mut wire));
    let Frame::Integer(oldest) = wire.call(&["HISTORY.COMPACT"]) else { panic!("no number") };
    assert!(oldest <= 2002, "{oldest}");
    let Frame::Array(map) = wire.call(&["UNDO"]) else { panic!("no map") };
    let flushed = Frame::Array(vec![Frame::Integer(2003), Frame::bulk("flushall")]);
    assert_eq!(map[3], Frame::Array(vec![flushed]));
    assert_eq!(wire.text(&["DEBUG", "DIGEST"]), digest);
    eventually("nobody holds it any more", || names(&mut wire) == ["history"]);
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let Frame::Integer(later) = wire.call(&["HISTORY.COMPACT"]) else { panic!("no number") };
    assert!(later > 2003, "{later}");
    assert_eq!(wire.text(&["DEBUG", "DIGEST"]), digest);
}

#[test]
fn a_purge_that_was_cut_short_goes_on_after_the_start() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for value in ["Zaphod", "Marvin"] {
        assert_eq!(wire.text(&["SET", "user:1", value]), "OK");
    }
    let data_dir = server.data_dir();
    // Nothing can be written where the segment is to be written anew.
    let in_the_way = data_dir.join("log/00000000000000000001.alog.rewrite");
    std::fs::create_dir(&in_the_way).expect("ours");
    let reply = wire.text(&["HISTORY.PURGE", "user:1", "CONFIRM"]);
    assert!(reply.contains("since revision 3, but it is not erased from every file"), "{reply}");
    assert!(!files_with(&data_dir, b"Zaphod").is_empty());
    assert!(wire.text(&["AT", "r:1", "GET", "user:1"]).starts_with("COMPACTED"));
    server.kill();
    std::fs::remove_dir(&in_the_way).expect("ours");
    server.restart();
    eventually("the rest is erased", || files_with(&data_dir, b"Zaphod").is_empty());
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["GET", "user:1"]), "Marvin");
}

#[test]
fn each_branch_takes_back_its_own() {
    let server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["SET", "k", "v"]), "OK");
    assert!(!matches!(wire.call(&["BRANCH", "CREATE", "dev"]), Frame::Error(_)));
    assert_eq!(wire.text(&["BRANCH", "USE", "dev"]), "OK");
    assert_eq!(wire.text(&["FLUSHALL"]), "OK");
    assert_eq!(wire.text(&["BRANCH", "USE", "main"]), "OK");
    assert_eq!(wire.call(&["UNDO", "LIST"]), Frame::Array(Vec::new()));
    assert_eq!(wire.text(&["BRANCH", "USE", "dev"]), "OK");
    assert!(matches!(wire.call(&["UNDO"]), Frame::Array(_)));
    assert_eq!(wire.text(&["GET", "k"]), "v");
}

#[test]
fn a_tag_that_holds_the_log_is_named() {
    let server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for n in 0..20 {
        assert_eq!(wire.text(&["SET", "k", &n.to_string()]), "OK");
    }
    assert_eq!(wire.text(&["SAVE"]), "OK");
    assert_eq!(wire.text(&["TAG", "CREATE", "old", "AT", "r:10"]), "10");
    assert_eq!(wire.text(&["TAG", "CREATE", "now"]), "22");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    // It needs what came after the state of the archive before it.
    assert!(pins(&mut wire).contains(&("tag:old".to_owned(), 0)), "{:?}", pins(&mut wire));
    assert!(!names(&mut wire).contains(&"tag:now".to_owned()));
    let held = wire.text(&["INFO", "persistence"]);
    assert!(
        held.lines().any(|line| line.starts_with("log_held_by:") && line.contains("tag:old>0"))
    );
    assert_eq!(wire.text(&["HISTORY.COMPACT"]), "0");
    assert_eq!(wire.text(&["TAG", "DELETE", "old"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    assert!(!names(&mut wire).contains(&"tag:old".to_owned()));
}
