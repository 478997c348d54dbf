//! Another number of databases at another start.

use std::fs;
use std::path::Path;

use base::Frame;
use testkit::{Server, temp_dir};

use crate::run::wrapped;
use crate::wire::Wire;

const ALWAYS: &[&str] = &["--aof-fsync", "always"];

/// A server whose starts have as many databases as [`set`] says last.
fn server(folder: &Path, databases: u32) -> Server {
    set(folder, databases);
    let file = folder.join("databases");
    let setup = format!("ALCID_SERVER_DATABASES=$(cat {}) exec", file.display());
    Server::start(wrapped(folder, &setup), ALWAYS)
}

fn set(folder: &Path, databases: u32) {
    fs::write(folder.join("databases"), databases.to_string()).expect("ours");
}

fn on(server: &Server, branch: &str, db: &str) -> Wire {
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["BRANCH", "USE", branch]), "OK");
    assert_eq!(wire.text(&["SELECT", db]), "OK");
    wire
}

#[test]
fn fewer_databases_than_hold_keys_are_refused() {
    let folder = temp_dir();
    let mut server = server(folder.path(), 16);
    let mut wire = on(&server, "main", "3");
    assert_eq!(wire.text(&["SET", "k", "v"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    set(folder.path(), 3);
    server.terminate();
    let refusal = server.try_restart().expect_err("there are keys");
    assert!(refusal.contains("1 keys in database 3,"), "{refusal}");
    assert!(refusal.contains("4 at least"), "{refusal}");
    set(folder.path(), 4);
    server.restart();
    assert_eq!(on(&server, "main", "3").text(&["GET", "k"]), "v");
    // Of a branch those that it has used count, also if they are empty by now.
    assert_eq!(on(&server, "main", "3").text(&["DEL", "k"]), "1");
    on(&server, "main", "0").call(&["BRANCH", "CREATE", "unused"]);
    assert_eq!(on(&server, "main", "0").text(&["SAVE"]), "OK");
    set(folder.path(), 2);
    server.terminate();
    server.restart();
    set(folder.path(), 4);
    server.terminate();
    server.restart();
    on(&server, "main", "0").call(&["BRANCH", "CREATE", "dev"]);
    let mut wire = on(&server, "dev", "3");
    assert_eq!(wire.text(&["SET", "k", "v"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    assert_eq!(wire.text(&["DEL", "k"]), "1");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    set(folder.path(), 2);
    server.terminate();
    let refusal = server.try_restart().expect_err("the branch has more");
    assert!(refusal.contains("of the branch 'dev', which keeps"), "{refusal}");
    // All that it had, at once.
    assert!(refusal.contains("raise it to 4 at least"), "{refusal}");
    set(folder.path(), 4);
    server.restart();
    assert_eq!(on(&server, "main", "0").text(&["BRANCH", "DELETE", "dev"]), "OK");
    assert_eq!(on(&server, "main", "0").text(&["SAVE"]), "OK");
    set(folder.path(), 2);
    server.terminate();
    let refusal = server.try_restart().expect_err("the branch can come back");
    assert!(refusal.contains("BRANCH DELETE dev NOUNDO"), "{refusal}");
    set(folder.path(), 4);
    server.restart();
    assert_eq!(on(&server, "main", "0").text(&["BRANCH", "DELETE", "dev", "NOUNDO"]), "OK");
    assert_eq!(on(&server, "main", "0").text(&["SAVE"]), "OK");
    set(folder.path(), 2);
    server.terminate();
    server.restart();
}

#[test]
fn a_branch_gets_databases_of_its_own_when_there_are_more() {
    let folder = temp_dir();
    let mut server = server(folder.path(), 2);
    let mut wire = on(&server, "main", "0");
    assert_eq!(wire.text(&["SET", "old", "v"]), "OK");
    wire.call(&["BRANCH", "CREATE", "dev"]);
    wire.call(&["BRANCH", "CREATE", "other", "FROM", "dev"]);
    server.terminate();
    set(folder.path(), 16);
    server.restart();
    let branches = ["main", "dev", "other"];
    for saves in [false, true] {
        for branch in branches {
            let mut wire = on(&server, branch, "9");
            if !saves {
                assert_eq!(wire.text(&["DBSIZE"]), "0", "{branch}");
            }
            assert_eq!(wire.text(&["SET", "k", branch]), "OK");
            assert_eq!(wire.text(&["SET", branch, "own"]), "OK");
            if saves {
                assert_eq!(wire.text(&["SAVE"]), "OK", "{branch}");
            }
        }
    }
    let mut wire = on(&server, "main", "0");
    assert_eq!(wire.text(&["SET", "old", "v"]), "OK");
    let revision = wire.text(&["LASTREV"]);
    // One that is made now, and one of a moment ago, begin with what dev has.
    on(&server, "dev", "0").call(&["BRANCH", "CREATE", "late"]);
    let at = format!("r:{revision}");
    let past = ["BRANCH", "CREATE", "past", "FROM", "dev", "AT", &at];
    let made = on(&server, "dev", "0").call(&past);
    assert!(matches!(made, Frame::Array(_)), "{made:?}");
    let check = |server: &Server, when: &str| {
        for branch in branches.into_iter().chain(["late", "past"]) {
            let first = if branches.contains(&branch) { branch } else { "dev" };
            let mut wire = on(server, branch, "9");
            assert_eq!(wire.text(&["GET", "k"]), first, "{branch} {when}");
            assert_eq!(wire.text(&["GET", first]), "own", "{branch} {when}");
            assert_eq!(wire.text(&["DBSIZE"]), "2", "{branch} {when}");
            let mut wire = on(server, branch, "0");
            assert_eq!(wire.text(&["GET", "old"]), "v", "{branch} {when}");
        }
        let mut wire = on(server, "main", "9");
        for branch in branches {
            let words = ["AT", &at, "BRANCH", branch, "GET", "k"];
            assert_eq!(wire.text(&words), branch, "{when}");
        }
    };
    check(&server, "at once");
    server.terminate();
    server.restart();
    check(&server, "after a stop");
    server.kill();
    server.restart();
    check(&server, "after a kill");
    let mut wire = on(&server, "dev", "9");
    assert_eq!(wire.text(&["FLUSHDB"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    wire.call(&["UNDO"]);
    check(&server, "after a flush was taken back");
}

#[test]
fn what_was_in_databases_that_are_not_there_is_not_brought_back_in_part() {
    const NEEDED: &str = "server.databases is 4: raise it to 10 at least";
    let folder = temp_dir();
    let mut server = server(folder.path(), 16);
    let mut wire = on(&server, "main", "0");
    assert_eq!(wire.text(&["SET", "k0", "v"]), "OK");
    assert_eq!(wire.text(&["SELECT", "9"]), "OK");
    assert_eq!(wire.text(&["MSET", "k", "1", "k2", "2"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let full = format!("r:{}", wire.text(&["LASTREV"]));
    wire.call(&["TAG", "CREATE", "full"]);
    assert_eq!(wire.text(&["FLUSHALL"]), "OK");
    assert_eq!(wire.text(&["SET", "later", "v"]), "OK");
    assert_eq!(wire.text(&["DEL", "later"]), "1");
    set(folder.path(), 4);
    server.terminate();
    server.restart();
    let mut wire = on(&server, "main", "0");
    for words in [
        &["UNDO"][..],
        &["UNDO", "DRYRUN"],
        &["WHATIF", "UNDO"],
        &["REVERT", "ALL", "TO", &full],
        &["WHATIF", "REVERT", "ALL", "TO", &full],
        &["BRANCH", "CREATE", "old", "AT", &full],
        &["BRANCH", "CREATE", "old", "AT", "tag:full"],
    ] {
        let refusal = wire.text(words);
        assert!(refusal.contains(NEEDED), "{words:?}: {refusal}");
    }
    assert_eq!(wire.text(&["DBSIZE"]), "0");
    // One database is reverted by itself.
    wire.call(&["REVERT", "PREFIX", "k", "TO", &full]);
    assert_eq!(wire.text(&["GET", "k0"]), "v");
    assert_eq!(wire.text(&["DEL", "k0"]), "1");
    set(folder.path(), 16);
    server.terminate();
    server.restart();
    let mut wire = on(&server, "main", "9");
    wire.call(&["REVERT", "ALL", "TO", &full]);
    assert_eq!(wire.text(&["GET", "k2"]), "2");
    assert_eq!(wire.text(&["FLUSHDB"]), "OK");
    wire.call(&["UNDO"]);
    assert_eq!(wire.text(&["GET", "k"]), "1");
}

#[test]
fn a_log_that_needs_more_databases_says_so() {
    let folder = temp_dir();
    let mut server = server(folder.path(), 16);
    assert_eq!(on(&server, "main", "12").text(&["SET", "k", "v"]), "OK");
    set(folder.path(), 10);
    server.kill();
    let refusal = server.try_restart().expect_err("there is a key");
    let needed = "server.databases is 10: raise it to 13 at least";
    assert!(refusal.contains(needed), "{refusal}");
}
