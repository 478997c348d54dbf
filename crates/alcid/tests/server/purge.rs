//! HISTORY.PURGE where there are branches and tags: what is erased, and what
//! those who still read it are left.

use std::path::PathBuf;

use base::Frame;
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::policy::files_with;
use crate::run::wrapped;
use crate::wire::{Wire, eventually};

/// Everything is on disk before it is acknowledged, so a kill loses nothing.
const ALWAYS: &[&str] = &["--aof-fsync", "always"];

/// A client on a branch.
fn on(server: &Server, branch: &str) -> Wire {
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["BRANCH", "USE", branch]), "OK");
    wire
}

fn make(wire: &mut Wire, words: &[&str]) {
    let reply = wire.call(&[&["BRANCH", "CREATE"], words].concat());
    assert!(!matches!(reply, Frame::Error(_)), "{reply:?}");
}

fn purged(wire: &mut Wire, key: &str) -> i64 {
    match wire.call(&["HISTORY.PURGE", key, "CONFIRM"]) {
        Frame::Integer(transactions) => transactions,
        other => panic!("{key}: {other:?}"),
    }
}

fn refused(wire: &mut Wire, words: &[&str]) -> String {
    let said = wire.text(&[&["HISTORY.PURGE"], words, &["CONFIRM"]].concat());
    assert!(said.starts_with("BRANCHBUSY ") && said.contains("HISTORY.PURGE there"), "{said}");
    said
}

fn is_compacted(wire: &mut Wire, at: &str, key: &str) {
    let said = wire.text(&["AT", at, "GET", key]);
    assert!(said.starts_with("COMPACTED "), "{at} {key}: {said}");
}

const NONE: &[PathBuf] = &[];

#[test]
fn what_a_branch_has_purged_is_in_no_file_and_others_keep_theirs() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    for value in ["Arthur0", "Arthur1"] {
        assert_eq!(main.text(&["SET", "k", value]), "OK");
    }
    make(&mut main, &["dev"]);
    let mut dev = on(&server, "dev");
    for value in ["Zaphod0", "Zaphod1"] {
        assert_eq!(dev.text(&["SET", "k", value]), "OK");
        assert_eq!(dev.text(&["SAVE"]), "OK");
    }
    // What another key has by a rename is its own.
    assert_eq!(dev.text(&["RENAME", "k", "heir"]), "OK");
    assert_eq!(dev.call(&["APPEND", "heir", "!"]), Frame::Integer(8));
    assert_eq!(dev.text(&["SET", "heir", "Marvin"]), "OK");
    assert_eq!(dev.text(&["SET", "k", "Zaphod2"]), "OK");
    assert_eq!(dev.text(&["SET", "k", "Trillian"]), "OK");
    let digests = [main.text(&["DEBUG", "DIGEST"]), dev.text(&["DEBUG", "DIGEST"])];
    assert_eq!(purged(&mut dev, "k"), 5);
    // Of what was renamed its new name tells.
    assert_eq!(purged(&mut dev, "heir"), 3);
    for crash in [false, true] {
        if crash {
            server.kill();
            server.restart();
            main = Wire::connect(server.addr());
            dev = on(&server, "dev");
        }
        assert_eq!(files_with(&server.data_dir(), b"Zaphod"), NONE);
        let now = [main.text(&["DEBUG", "DIGEST"]), dev.text(&["DEBUG", "DIGEST"])];
        assert_eq!(now, digests);
        assert_eq!(main.text(&["AT", "r:1", "GET", "k"]), "Arthur0");
        assert_eq!(main.text(&["AT", "r:4", "GET", "k"]), "Arthur1");
        for at in ["r:1", "r:3", "r:4", "r:8"] {
            is_compacted(&mut dev, at, "k");
        }
        assert_eq!(dev.text(&["AT", "r:4", "TYPE", "other"]), "none");
    }
    // Archived once more, by a batch that knows nothing of it.
    assert_eq!(dev.text(&["SET", "later", "1"]), "OK");
    assert_eq!(dev.text(&["SAVE"]), "OK");
    server.kill();
    server.restart();
    is_compacted(&mut on(&server, "dev"), "r:4", "k");
}

#[test]
fn nothing_is_purged_below_a_branch_until_that_has_its_own() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    assert_eq!(main.text(&["SET", "k", "Zaphod"]), "OK");
    make(&mut main, &["dev"]);
    let mut dev = on(&server, "dev");
    make(&mut dev, &["dev/two", "FROM", "dev"]);
    assert_eq!(main.text(&["SET", "k", "Marvin"]), "OK");
    let said = refused(&mut main, &["k"]);
    assert!(said.contains("the branch 'dev' has 'k' from here"), "{said}");
    assert!(said.contains("the branch 'dev/two' has 'k' from here"), "{said}");
    refused(&mut main, &["PREFIX", ""]);
    // It may be read as it was on these since.
    for branch in ["dev", "dev/two"] {
        assert_eq!(on(&server, branch).text(&["SET", "k", "Trillian"]), "OK");
        refused(&mut main, &["k"]);
    }
    // Of dev's own past, dev/two has nothing.
    purged(&mut dev, "k");
    let said = refused(&mut main, &["k"]);
    assert!(!said.contains("'dev' has"), "{said}");
    purged(&mut on(&server, "dev/two"), "k");
    purged(&mut main, "k");
    for crash in [false, true] {
        if crash {
            server.kill();
            server.restart();
        }
        assert_eq!(files_with(&server.data_dir(), b"Zaphod"), NONE);
        for (branch, value) in [("main", "Marvin"), ("dev", "Trillian"), ("dev/two", "Trillian")] {
            let mut wire = on(&server, branch);
            assert_eq!(wire.text(&["GET", "k"]), value);
            assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(1));
            (1..=6).for_each(|at| is_compacted(&mut wire, &format!("r:{at}"), "k"));
        }
    }
    // What a branch begins with that is made from before is not there.
    let mut main = Wire::connect(server.addr());
    make(&mut main, &["before", "AT", "r:1"]);
    assert_eq!(on(&server, "before").call(&["DBSIZE"]), Frame::Integer(0));
    // Nor is there anything that a merge could compare with.
    let said = main.text(&["BRANCH", "MERGE", "dev", "INTO", "main"]);
    assert!(said.starts_with("MERGECONFLICT"), "{said}");
}

#[test]
fn what_no_state_of_a_branch_shows_any_more_may_go() {
    let server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    for key in ["set", "removed", "renamed"] {
        assert_eq!(main.text(&["SET", key, "Zaphod"]), "OK");
    }
    make(&mut main, &["dev"]);
    let mut dev = on(&server, "dev");
    assert_eq!(dev.text(&["SET", "set", "Trillian"]), "OK");
    assert_eq!(dev.call(&["DEL", "removed"]), Frame::Integer(1));
    assert_eq!(dev.text(&["RENAME", "renamed", "new"]), "OK");
    assert_eq!(dev.text(&["SET", "new", "Ford"]), "OK");
    for key in ["set", "removed", "renamed"] {
        assert_eq!(main.text(&["SET", key, "Marvin"]), "OK");
        let said = refused(&mut main, &[key]);
        assert!(said.contains(&format!("the branch 'dev' has '{key}'")), "{said}");
    }
    assert_eq!(main.text(&["SAVE"]), "OK");
    assert!(matches!(main.call(&["HISTORY.COMPACT"]), Frame::Integer(11..)));
    for key in ["set", "removed", "renamed"] {
        purged(&mut main, key);
    }
    purged(&mut dev, "new");
    assert_eq!(files_with(&server.data_dir(), b"Zaphod"), NONE);
    assert_eq!(dev.text(&["GET", "set"]), "Trillian");
    assert_eq!(dev.text(&["GET", "new"]), "Ford");
    assert_eq!(dev.call(&["DBSIZE"]), Frame::Integer(2));
}

#[test]
fn what_elements_of_a_branch_come_from_stays_until_it_has_its_own() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    let members: Vec<String> = (0..2000).map(|n| format!("member-{n}-perilune")).collect();
    let add: Vec<&str> =
        ["SADD", "large"].into_iter().chain(members.iter().map(|m| &m[..])).collect();
    assert_eq!(main.call(&add), Frame::Integer(2000));
    make(&mut main, &["dev"]);
    let mut dev = on(&server, "dev");
    // One element is the branch's own; no state shows any more that it began
    // with main's.
    assert_eq!(dev.call(&["SREM", "large", "member-1-perilune"]), Frame::Integer(1));
    assert_eq!(main.text(&["SAVE"]), "OK");
    assert_eq!(main.text(&["SET", "k", "v"]), "OK");
    assert_eq!(main.text(&["SAVE"]), "OK");
    assert!(matches!(main.call(&["HISTORY.COMPACT"]), Frame::Integer(4..)));
    assert_eq!(main.call(&["DEL", "large"]), Frame::Integer(1));
    let said = refused(&mut main, &["large"]);
    assert!(said.contains("the branch 'dev' has 'large' from here"), "{said}");
    assert_eq!(dev.call(&["SCARD", "large"]), Frame::Integer(1999));

    purged(&mut dev, "large");
    purged(&mut main, "large");
    server.kill();
    server.restart();
    let mut dev = on(&server, "dev");
    assert_eq!(dev.call(&["SCARD", "large"]), Frame::Integer(1999));
    assert_eq!(dev.call(&["SISMEMBER", "large", "member-1-perilune"]), Frame::Integer(0));
    assert_eq!(dev.call(&["SISMEMBER", "large", "member-2-perilune"]), Frame::Integer(1));
}

#[test]
fn a_tag_keeps_what_it_names() {
    let server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    assert_eq!(main.text(&["SET", "k", "Zaphod"]), "OK");
    make(&mut main, &["dev"]);
    let mut dev = on(&server, "dev");
    assert!(matches!(dev.call(&["TAG", "CREATE", "v1"]), Frame::Integer(_)));
    purged(&mut dev, "k");
    assert_eq!(main.text(&["SET", "k", "Marvin"]), "OK");
    let said = refused(&mut main, &["k"]);
    assert!(said.contains("the tag 'v1' has 'k' from here"), "{said}");
    assert_eq!(main.text(&["TAG", "DELETE", "v1"]), "OK");
    // What dev has is its own copy.
    assert_eq!(dev.text(&["GET", "k"]), "Zaphod");
    assert_eq!(dev.call(&["DEL", "k"]), Frame::Integer(1));
    purged(&mut dev, "k");
    purged(&mut main, "k");
    assert_eq!(files_with(&server.data_dir(), b"Zaphod"), NONE);
    assert_eq!(dev.call(&["EXISTS", "k"]), Frame::Integer(0));
}

#[test]
fn purges_that_were_cut_short_go_on_one_after_the_other() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    make(&mut main, &["dev"]);
    let mut dev = on(&server, "dev");
    for wire in [&mut main, &mut dev] {
        assert_eq!(wire.text(&["SET", "k", "Zaphod"]), "OK");
        assert_eq!(wire.text(&["SET", "k", "Marvin"]), "OK");
    }
    let data_dir = server.data_dir();
    // Nothing can be written where the segment is to be written anew.
    let in_the_way = data_dir.join("log/00000000000000000001.alog.rewrite");
    std::fs::create_dir(&in_the_way).expect("ours");
    for wire in [&mut main, &mut dev] {
        let said = wire.text(&["HISTORY.PURGE", "k", "CONFIRM"]);
        assert!(said.contains("it is not erased from every file"), "{said}");
        is_compacted(wire, "r:2", "k");
    }
    assert!(!files_with(&data_dir, b"Zaphod").is_empty());
    server.kill();
    std::fs::remove_dir(&in_the_way).expect("ours");
    server.restart();
    eventually("the rest is erased", || files_with(&data_dir, b"Zaphod").is_empty());
    for branch in ["main", "dev"] {
        assert_eq!(on(&server, branch).text(&["GET", "k"]), "Marvin");
    }
}

#[test]
fn what_stood_in_another_database_when_a_branch_was_made_is_left_alone() {
    let server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    assert_eq!(main.text(&["SET", "k", "Ford"]), "OK");
    make(&mut main, &["dev"]);
    purged(&mut on(&server, "dev"), "k");
    assert_eq!(main.text(&["SWAPDB", "0", "1"]), "OK");
    assert_eq!(main.text(&["SET", "k", "Marvin"]), "OK");
    let said = main.text(&["HISTORY.PURGE", "k", "CONFIRM"]);
    assert!(said.contains("changed places at revision 4"), "{said}");
    assert_eq!(main.text(&["SAVE"]), "OK");
    assert!(matches!(main.call(&["HISTORY.COMPACT"]), Frame::Integer(5..)));
    let said = main.text(&["HISTORY.PURGE", "k", "CONFIRM"]);
    assert!(said.contains("since a state that a branch or a tag keeps"), "{said}");
    assert_eq!(main.text(&["BRANCH", "DELETE", "dev", "FORCE", "NOUNDO"]), "OK");
    assert_eq!(main.text(&["SAVE"]), "OK");
    purged(&mut main, "k");
    assert_eq!(main.text(&["SELECT", "1"]), "OK");
    assert_eq!(main.text(&["GET", "k"]), "Ford");
}

#[test]
fn what_a_branch_had_before_it_began_anew_is_erased_too() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    make(&mut main, &["dev"]);
    for value in ["Zaphod0", "Zaphod1"] {
        let mut dev = on(&server, "dev");
        assert_eq!(dev.text(&["SET", "k", value]), "OK");
        assert_eq!(dev.text(&["SAVE"]), "OK");
        assert_eq!(main.text(&["BRANCH", "RESET", "dev", "TO", "PARENT"]), "OK");
    }
    let mut dev = on(&server, "dev");
    assert_eq!(dev.text(&["SET", "k", "Marvin"]), "OK");
    assert_eq!(purged(&mut dev, "k"), 3);
    assert_eq!(files_with(&server.data_dir(), b"Zaphod"), NONE);
    server.kill();
    server.restart();
    assert_eq!(on(&server, "dev").text(&["GET", "k"]), "Marvin");
}

#[test]
fn no_index_is_left_of_a_segment_that_was_written_anew() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    for n in ["0", "1"] {
        for (key, value) in [("a", "Arthur"), ("k", "Zaphod"), ("other", "Ford")] {
            assert_eq!(main.text(&["SET", key, &format!("{value}{n}")]), "OK");
        }
    }
    purged(&mut main, "a");
    // Whoever asks first has the index made.
    let versions = |main: &mut Wire| match main.call(&["HISTORY", "other"]) {
        Frame::Array(versions) => versions.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(main.text(&["SET", "other", "Ford2"]), "OK");
    assert_eq!(versions(&mut main), 3);
    let index = server.data_dir().join("archive/history/00000000000000000001.idx");
    eventually("the index is made", || index.exists());
    let content = std::fs::read(&index).expect("it is there");
    // Its removal fails, as if the power had gone then.
    std::fs::remove_file(&index).expect("ours");
    std::fs::create_dir(&index).expect("ours");
    let said = main.text(&["HISTORY.PURGE", "k", "CONFIRM"]);
    assert!(said.contains("it is not erased from every file"), "{said}");
    server.kill();
    std::fs::remove_dir(&index).expect("ours");
    std::fs::write(&index, content).expect("ours");
    server.restart();
    let mut main = Wire::connect(server.addr());
    eventually("the rest is erased", || files_with(&server.data_dir(), b"Zaphod0").is_empty());
    assert_eq!(versions(&mut main), 3);
    assert_eq!(main.text(&["AT", "r:3", "GET", "other"]), "Ford0");
    assert_eq!(main.call(&["AT", "r:6", "DBSIZE"]), Frame::Integer(1));
}

#[test]
fn purges_that_were_cut_short_outlive_their_branch() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    assert_eq!(main.text(&["SET", "k", "Ford"]), "OK");
    for branch in ["anew", "gone"] {
        make(&mut main, &[branch]);
    }
    let data_dir = server.data_dir();
    let in_the_way = data_dir.join("log/00000000000000000001.alog.rewrite");
    std::fs::create_dir(&in_the_way).expect("ours");
    // All of it is in the segment that cannot be rewritten.
    for branch in ["anew", "gone"] {
        let mut wire = on(&server, branch);
        assert_eq!(wire.text(&["SET", "k", "Zaphod"]), "OK");
        assert_eq!(wire.text(&["SET", "k", "Marvin"]), "OK");
    }
    for branch in ["anew", "gone"] {
        let said = on(&server, branch).text(&["HISTORY.PURGE", "k", "CONFIRM"]);
        assert!(said.contains("it is not erased from every file"), "{said}");
    }
    assert_eq!(main.text(&["BRANCH", "RESET", "anew", "TO", "PARENT"]), "OK");
    assert_eq!(main.text(&["BRANCH", "DELETE", "gone", "FORCE"]), "OK");
    assert_eq!(main.text(&["SAVE"]), "OK");
    assert!(!files_with(&data_dir, b"Zaphod").is_empty());
    server.kill();
    std::fs::remove_dir(&in_the_way).expect("ours");
    server.restart();
    eventually("the rest is erased", || files_with(&data_dir, b"Zaphod").is_empty());
    // What it has now is nobody else's to erase, nor is what it had there.
    let mut anew = on(&server, "anew");
    assert_eq!(anew.text(&["GET", "k"]), "Ford");
    assert_eq!(anew.text(&["AT", "r:1", "GET", "k"]), "Ford");
    assert_eq!(anew.call(&["AT", "r:1", "DBSIZE"]), Frame::Integer(1));
}

#[test]
fn no_state_of_before_lists_what_was_erased() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    for key in ["user:1", "user:2", "other"] {
        assert_eq!(main.text(&["SET", key, "Zaphod"]), "OK");
    }
    assert_eq!(main.text(&["SAVE"]), "OK");
    assert_eq!(main.text(&["SET", "user:1", "Marvin"]), "OK");
    assert_eq!(main.call(&["DEL", "user:2"]), Frame::Integer(1));
    assert_eq!(main.call(&["HISTORY.PURGE", "PREFIX", "user:", "CONFIRM"]), Frame::Integer(4));
    for crash in [false, true] {
        if crash {
            server.kill();
            server.restart();
            main = Wire::connect(server.addr());
        }
        let other = vec![Frame::Bulk(b"other".to_vec())];
        for at in ["r:3", "r:4", "r:5"] {
            assert_eq!(main.call(&["AT", at, "KEYS", "*"]), Frame::Array(other.clone()), "{at}");
            assert_eq!(main.call(&["AT", at, "DBSIZE"]), Frame::Integer(1), "{at}");
            assert_eq!(main.text(&["AT", at, "RANDOMKEY"]), "other", "{at}");
        }
        assert_eq!(main.call(&["AT", "r:6", "DBSIZE"]), Frame::Integer(2));
    }
    // A branch that is made from there has no more.
    make(&mut main, &["before", "AT", "r:4"]);
    assert_eq!(on(&server, "before").call(&["DBSIZE"]), Frame::Integer(1));
}

#[test]
fn what_was_decided_of_an_erased_key_is_in_no_file() {
    for side in ["main", "dev"] {
        let mut server = Server::start(ALCID, ALWAYS);
        let mut main = Wire::connect(server.addr());
        make(&mut main, &["dev"]);
        for (branch, value) in [("main", "ours"), ("dev", "theirs")] {
            assert_eq!(on(&server, branch).text(&["MSET", "k", value, "other", value]), "OK");
        }
        let said = main.text(&["BRANCH", "MERGE", "dev", "ON", "CONFLICT", "MANUAL"]);
        let id = said.rsplit(' ').next().expect("it names the merge").to_owned();
        let decide = |wire: &mut Wire, key: &str, value: &str| {
            wire.call(&["BRANCH", "RESOLVE", &id, key, "VALUE", value])
        };
        // In the log, in states of the archive, and decided anew.
        for value in ["Zaphod0", "Zaphod1", "Zaphod2"] {
            assert_eq!(decide(&mut main, "k", value), Frame::Integer(1));
            assert_eq!(main.text(&["SAVE"]), "OK");
        }
        assert_ne!(files_with(&server.data_dir(), b"Zaphod"), NONE);
        // The decisions count as well.
        assert!(purged(&mut on(&server, side), "k") >= 4, "{side}");
        for crash in [false, true] {
            if crash {
                server.kill();
                server.restart();
            }
            assert_eq!(files_with(&server.data_dir(), b"Zaphod"), NONE, "{side}");
            // What was decided of others stays, and nothing of this key.
            main = Wire::connect(server.addr());
            let value = if crash { "Marvin1" } else { "Marvin0" };
            assert_eq!(decide(&mut main, "other", value), Frame::Integer(1), "{side}");
        }
        assert_eq!(decide(&mut main, "k", "Trillian"), Frame::Integer(0), "{side}");
        assert_eq!(main.text(&["GET", "k"]), "Trillian");
        assert_eq!(main.text(&["GET", "other"]), "Marvin1");
    }
}

#[test]
fn what_was_decided_is_in_no_file_however_the_merge_goes_on() {
    for end in ["merged", "given up", "waiting"] {
        let mut server = Server::start(ALCID, ALWAYS);
        let mut main = Wire::connect(server.addr());
        make(&mut main, &["dev"]);
        for (branch, value) in [("main", "ours"), ("dev", "theirs")] {
            let set = ["MSET", "k:1", value, "k:2", value, "other", value];
            assert_eq!(on(&server, branch).text(&set), "OK");
        }
        let said = main.text(&["BRANCH", "MERGE", "dev", "ON", "CONFLICT", "MANUAL"]);
        let id = said.rsplit(' ').next().expect("it names the merge").to_owned();
        let decide = |wire: &mut Wire, key: &str, verdict: &[&str], left| {
            let reply = wire.call(&[&["BRANCH", "RESOLVE", &id, key], verdict].concat());
            assert_eq!(reply, Frame::Integer(left), "{end}: {key}");
        };
        decide(&mut main, "k:1", &["VALUE", "Zaphod1"], 2);
        assert_eq!(main.text(&["SAVE"]), "OK");
        decide(&mut main, "k:2", &["VALUE", "Zaphod2"], 1);
        // The last word, so that neither key ever has one of these values.
        decide(&mut main, "k:1", &["OURS"], 1);
        decide(&mut main, "k:2", &["OURS"], 1);
        match end {
            "merged" => decide(&mut main, "other", &["VALUE", "Marvin"], 0),
            "given up" => assert_eq!(main.text(&["BRANCH", "ABORT", &id]), "OK"),
            _ => decide(&mut main, "k:1", &["VALUE", "Zaphod3"], 1),
        }
        assert_ne!(files_with(&server.data_dir(), b"Zaphod"), NONE, "{end}");
        let reply = main.call(&["HISTORY.PURGE", "PREFIX", "k:", "CONFIRM"]);
        assert!(matches!(reply, Frame::Integer(5..)), "{end}: {reply:?}");
        for crash in [false, true] {
            if crash {
                server.kill();
                server.restart();
            }
            assert_eq!(files_with(&server.data_dir(), b"Zaphod"), NONE, "{end}");
            main = Wire::connect(server.addr());
            assert_eq!(main.text(&["GET", "k:1"]), "ours", "{end}");
            assert_eq!(main.text(&["GET", "k:2"]), "ours", "{end}");
        }
        let other = if end == "merged" { "Marvin" } else { "ours" };
        assert_eq!(main.text(&["GET", "other"]), other, "{end}");
    }
}

/// After a time without a history purges are finished once more; one for which that
/// cannot be done any more is in no other's way.
#[test]
fn a_purge_that_cannot_be_finished_is_in_no_others_way() {
    let folder = temp_dir();
    let mut server = Server::start(wrapped(folder.path(), "exec"), ALWAYS);
    let mut main = Wire::connect(server.addr());
    assert_eq!(main.text(&["SET", "other", "1"]), "OK");
    make(&mut main, &["dev"]);
    for value in ["1", "2"] {
        assert_eq!(main.text(&["SET", "k", value]), "OK");
    }
    assert_eq!(purged(&mut main, "k"), 2);
    assert_eq!(main.text(&["SAVE"]), "OK");
    assert_eq!(main.text(&["SWAPDB", "0", "1"]), "OK");
    server.terminate();
    wrapped(folder.path(), "ALCID_STORAGE_HISTORY_KEEP=0 exec");
    server.restart();
    server.terminate();
    wrapped(folder.path(), "exec");
    server.restart();
    let mut dev = on(&server, "dev");
    for round in 0..2 {
        for value in ["Zaphod", "Trillian"] {
            assert_eq!(dev.text(&["SET", "z", value]), "OK");
        }
        assert!(purged(&mut dev, "z") > 0, "{round}");
        assert_eq!(files_with(&server.data_dir(), b"Zaphod"), NONE);
    }
    assert!(server.log().contains("have changed places"), "{}", server.log());
}

#[test]
fn where_there_is_nothing_to_erase_there_is_no_revision() {
    let server = Server::start(ALCID, ALWAYS);
    let mut main = Wire::connect(server.addr());
    assert_eq!(main.text(&["MSET", "k", "1", "gone", "1"]), "OK");
    assert_eq!(main.call(&["DEL", "gone"]), Frame::Integer(1));
    make(&mut main, &["dev"]);
    let mut dev = on(&server, "dev");
    let newest = |wire: &mut Wire| wire.call(&["WAITREV", "0", "0"]);
    let before = newest(&mut main);
    for wire in [&mut main, &mut dev] {
        assert_eq!(purged(wire, "none"), 0);
    }
    let none = ["HISTORY.PURGE", "PREFIX", "no", "CONFIRM"];
    assert_eq!(main.call(&none), Frame::Integer(0));
    assert_eq!(newest(&mut main), before);
    assert_eq!(main.call(&["HISTORY", "none"]), Frame::Array(Vec::new()));
    // What is gone has a past.
    assert_eq!(purged(&mut main, "gone"), 2);
    assert_ne!(newest(&mut main), before);
}

/// A tag of a revision that no batch of the archive ended with is gone for good where
/// no history was kept.
#[test]
fn a_tag_that_cannot_be_read_any_more_is_in_nobodys_way() {
    let folder = temp_dir();
    let still = "ALCID_STORAGE_ARCHIVE_IDLE=0 ALCID_STORAGE_ARCHIVE_INTERVAL=0 exec";
    let mut server = Server::start(wrapped(folder.path(), still), ALWAYS);
    let mut main = Wire::connect(server.addr());
    assert_eq!(main.text(&["MSET", "k", "Zaphod", "other", "1"]), "OK");
    assert_eq!(main.text(&["SET", "k", "Marvin"]), "OK");
    assert_eq!(main.text(&["TAG", "CREATE", "between", "AT", "r:1"]), "1");
    assert_eq!(main.text(&["SET", "k", "Zaphod"]), "OK");
    assert_eq!(main.text(&["TAG", "CREATE", "state"]), "5");
    make(&mut main, &["old", "AT", "r:4"]);
    assert!(refused(&mut main, &["k"]).contains("the tag 'between' has 'k'"));
    for setup in ["ALCID_STORAGE_HISTORY_KEEP=0 exec", still] {
        server.terminate();
        wrapped(folder.path(), setup);
        server.restart();
        main = Wire::connect(server.addr());
        assert_eq!(main.text(&["SET", "k", "Trillian"]), "OK");
    }
    for unread in
        [&["AT", "tag:between", "GET", "k"][..], &["AT", "r:5", "BRANCH", "old", "GET", "k"]]
    {
        assert!(main.text(unread).starts_with("COMPACTED "), "{unread:?}");
    }
    let mut old = on(&server, "old");
    assert_eq!(old.text(&["SET", "k", "Arthur"]), "OK");
    purged(&mut old, "k");
    assert!(refused(&mut main, &["k"]).starts_with("BRANCHBUSY the tag 'state' has 'k'"));
    assert_eq!(main.text(&["TAG", "DELETE", "state"]), "OK");
    let all = ["HISTORY.PURGE", "PREFIX", "k", "CONFIRM"];
    assert!(matches!(main.call(&all), Frame::Integer(_)));
    assert_eq!(files_with(&server.data_dir(), b"Zaphod"), Vec::<PathBuf>::new());
    assert_eq!(main.text(&["GET", "k"]), "Trillian");
}
