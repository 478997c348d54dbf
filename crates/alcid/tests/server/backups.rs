//! Backups with the past, with branches and tags, and by a schedule.

use std::fs;
use std::path::{Path, PathBuf};

use base::Frame;
use testkit::Server;

use crate::ALCID;
use crate::backup::{Shell, newest};
use crate::restart::state;
use crate::run::wrapped;
use crate::wire::{Wire, eventually};

fn say(wire: &mut Wire, words: &[&str]) {
    let reply = wire.call(words);
    assert!(!matches!(reply, Frame::Error(_)), "{words:?}: {reply:?}");
}

#[test]
fn what_the_server_could_read_can_be_restored() {
    let shell = Shell::new();
    let server = shell.server();
    let mut wire = Wire::connect(server.addr());
    let mut states = Vec::new();
    for n in 1..=12 {
        say(&mut wire, &["SET", &format!("key:{}", n % 5), &n.to_string()]);
        say(&mut wire, &["RPUSH", "list", &n.to_string()]);
        if n == 7 {
            say(&mut wire, &["FLUSHALL"]);
        }
        states.push((newest(&mut wire), state(&server)));
        if n % 3 == 0 {
            say(&mut wire, &["SAVE"]);
        }
    }
    let said = shell.back_up(&server);
    assert!(said.starts_with("Every state from revision 0 to "), "{said}");
    for (revision, expected) in &states {
        let (restored, said) = shell.restored(&format!(" --at r:{revision}"));
        assert!(said.starts_with(&format!("Restored revision {revision}, of 2")), "{said}");
        assert_eq!(&state(&restored), expected, "at {revision}");
        // It goes on from there.
        let mut wire = Wire::connect(restored.addr());
        say(&mut wire, &["SET", "later", "1"]);
        assert_eq!(newest(&mut wire), (revision.parse::<u64>().expect("one") + 1).to_string());
    }
    // As much as it can still read, and incrementally.
    let Frame::Integer(oldest) = wire.call(&["HISTORY.COMPACT", "BEFORE", "r:10"]) else {
        panic!("no number")
    };
    assert!(oldest > 2, "{oldest}");
    say(&mut wire, &["SET", "more", "1"]);
    let said = shell.back_up(&server);
    assert!(said.starts_with(&format!("Every state from revision {oldest} to ")), "{said}");
    let said = shell.refused("restore --from backup --data-dir new --at r:1");
    assert!(said.contains(&format!("every state from revision {oldest} to ")), "{said}");
    let (revision, expected) = &states[states.len() - 2];
    assert_eq!(&state(&shell.restored(&format!(" --at r:{revision}")).0), expected);
    let said = shell.done("backup verify backup");
    assert!(said.ends_with("all are whole.\n"), "{said}");
}

#[test]
fn branches_come_with_every_state_and_can_be_restored_alone() {
    let shell = Shell::new();
    let server = shell.server();
    let mut wire = Wire::connect(server.addr());
    say(&mut wire, &["MSET", "user:1", "ada", "user:2", "bob", "job:1", "run"]);
    say(&mut wire, &["BRANCH", "CREATE", "dev"]);
    let mut dev = Wire::connect(server.addr());
    say(&mut dev, &["BRANCH", "USE", "dev"]);
    say(&mut dev, &["SET", "user:2", "bea"]);
    say(&mut dev, &["DEL", "job:1"]);
    say(&mut dev, &["SELECT", "3"]);
    say(&mut dev, &["HSET", "user:3", "f", "v"]);
    say(&mut dev, &["SELECT", "0"]);
    say(&mut wire, &["SET", "user:1", "eve"]);
    say(&mut wire, &["SAVE"]);
    say(&mut dev, &["TAG", "CREATE", "v1"]);
    let tagged = newest(&mut wire);
    say(&mut dev, &["SET", "user:2", "cat"]);
    say(&mut wire, &["SAVE"]);
    say(&mut wire, &["BRANCH", "RENAME", "dev", "dev/old"]);
    shell.back_up(&server);

    // All of it, as of the tag: dev has its name of then.
    let (restored, said) = shell.restored(" --at tag:v1");
    assert!(said.starts_with(&format!("Restored revision {tagged}, of ")), "{said}");
    let mut wire = Wire::connect(restored.addr());
    assert_eq!(wire.text(&["GET", "user:1"]), "eve");
    say(&mut wire, &["BRANCH", "USE", "dev"]);
    let get = |wire: &mut Wire, key: &str| wire.text(&["GET", key]);
    assert_eq!([get(&mut wire, "user:1"), get(&mut wire, "user:2")], ["ada", "bea"]);
    assert_eq!(wire.call(&["EXISTS", "job:1"]), Frame::Integer(0));
    assert_eq!(wire.text(&["AT", "tag:v1", "GET", "user:2"]), "bea");

    for (arguments, user_2, keys) in [
        (" --at tag:v1 --branch dev", "bea", 3),
        // By the name that it has now.
        (" --at tag:v1 --branch dev/old", "bea", 3),
        (" --branch dev/old", "cat", 3),
        (" --branch dev/old --prefix user:2", "cat", 1),
        // A part is of the tag's branch.
        (" --at tag:v1 --prefix user:", "bea", 3),
        (" --at tag:v1 --prefix user: --branch main", "bob", 2),
        (" --prefix user:", "bob", 2),
    ] {
        let (restored, said) = shell.restored(arguments);
        assert!(said.contains(&format!(": {keys} keys in ")), "{arguments}: {said}");
        assert_eq!(said.contains("of the branch 'dev"), user_2 != "bob", "{said}");
        let mut wire = Wire::connect(restored.addr());
        assert_eq!(get(&mut wire, "user:2"), user_2, "{arguments}");
        assert_eq!(wire.call(&["BRANCH", "LIST"]), Frame::Array(vec![Frame::bulk("main")]));
        let keys_of_3 = if keys == 3 { 1 } else { 0 };
        say(&mut wire, &["SELECT", "3"]);
        assert_eq!(wire.call(&["DBSIZE"]), Frame::Integer(keys_of_3), "{arguments}");
    }
    let from = "restore --from backup --data-dir new";
    let said = shell.refused(&format!("{from} --at tag:v2"));
    assert!(said.contains("no tag of the backup is named 'v2'; it has v1"), "{said}");
    let said = shell.refused(&format!("{from} --branch prod"));
    assert!(said.contains("no branch was named 'prod'"), "{said}");
    let said = shell.refused(&format!("{from} --at r:1 --branch dev"));
    assert!(said.contains("at revision 1; there were main"), "{said}");
    assert!(!shell.path("new").exists());

    // A folder of somebody else's.
    for (to, what) in [("backup/x/y", "a backup"), ("taken/data/x", "a database")] {
        fs::create_dir_all(shell.path("taken/data/log")).expect("ours");
        fs::write(shell.path("taken/data/log/MANIFEST"), "").expect("ours");
        let said = shell.refused(&format!("restore --from backup --data-dir {to}"));
        assert!(said.contains(&format!(", which holds {what}; name a folder elsewhere")), "{said}");
        assert!(!shell.path(to).exists());
    }

    // What UNDO could bring back is in the backup, and is not there.
    let mut wire = Wire::connect(server.addr());
    say(&mut wire, &["BRANCH", "CREATE", "other"]);
    say(&mut wire, &["BRANCH", "DELETE", "dev/old", "FORCE"]);
    shell.back_up(&server);
    let said = shell.refused(&format!("{from} --branch dev/old"));
    assert!(said.contains("the branch 'dev/old' is deleted at revision"), "{said}");
    assert!(said.trim_end().ends_with("; there were main, other"), "{said}");
    let (restored, said) = shell.restored("");
    assert!(said.contains(": 6 keys in "), "{said}");
    let mut wire = Wire::connect(restored.addr());
    say(&mut wire, &["UNDO"]);
    say(&mut wire, &["BRANCH", "USE", "dev/old"]);
    assert_eq!(get(&mut wire, "user:2"), "cat");
}

/// A field of INFO persistence.
fn info(wire: &mut Wire, name: &str) -> String {
    let text = wire.text(&["INFO", "persistence"]);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
}

fn count(wire: &mut Wire, name: &str) -> u64 {
    info(wire, name).parse().expect("a number")
}

fn backups_in(row: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(row) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    found.retain(|path| {
        path.file_name().is_some_and(|it| !it.as_encoded_bytes().starts_with(b"new-"))
    });
    found.sort();
    found
}

#[test]
fn a_schedule_makes_backups_and_lets_old_ones_go() {
    let shell = Shell::new();
    let row = shell.path("row");
    let setup = format!("ALCID_BACKUP_FOLDER={} ALCID_BACKUP_KEEP=2 exec", row.display());
    let mut server = Server::start(wrapped(shell.0.path(), &setup), &["--aof-fsync", "always"]);
    let mut wire = Wire::connect(server.addr());
    assert_eq!(info(&mut wire, "backup_next_time"), "0");
    say(&mut wire, &["SET", "k", "first"]);
    let said = wire.text(&["CONFIG", "SET", "backup.schedule", "now and then"]);
    assert!(said.contains("a cron line of five fields"), "{said}");
    let said = wire.text(&["CONFIG", "SET", "backup.folder", "/tmp"]);
    assert!(said.starts_with("ERR CONFIG SET failed"), "{said}");
    assert_eq!(wire.text(&["CONFIG", "SET", "backup.schedule", "1s"]), "OK");
    eventually("three have been made", || count(&mut wire, "backups_made") >= 3);
    assert_eq!(wire.text(&["CONFIG", "SET", "backup.schedule", "30 3 * * *"]), "OK");
    eventually("the next one is tomorrow", || {
        let next = count(&mut wire, "backup_next_time");
        next % 86_400 == 3 * 3600 + 30 * 60 && info(&mut wire, "backup_in_progress") == "0"
    });
    assert_eq!(info(&mut wire, "backup_last_error"), "");
    assert_eq!(info(&mut wire, "backups_failed"), "0");
    let found = backups_in(&row);
    assert_eq!(found.len(), 2, "{found:?}");
    for dir in &found {
        shell.done(&format!("backup verify {}", dir.display()));
    }
    assert!(count(&mut wire, "backup_last_success_time") > 1_700_000_000);
    assert!(server.log().contains("scheduled backup"), "{}", server.log());
    fs::rename(&found[1], shell.path("backup")).expect("ours");
    assert_eq!(state(&shell.restored("").0), state(&server));

    // After a restart the next one is due so long after the last.
    server.terminate();
    server.restart();
    let mut wire = Wire::connect(server.addr());
    let last = found[0].file_name().expect("a name").to_str().expect("a text").to_owned();
    assert_eq!(wire.text(&["CONFIG", "SET", "backup.schedule", "6h"]), "OK");
    eventually("it is planned", || info(&mut wire, "backup_next_time") != "0");
    let next = count(&mut wire, "backup_next_time");
    let next = base::when::utc((next - 6 * 3600) * 1000).replace(':', "-");
    assert_eq!(next[..19], last[..19]);
}

#[test]
fn a_schedule_that_fails_disturbs_nobody() {
    let shell = Shell::new();
    let row = shell.path("row");
    fs::write(&row, "in the way").expect("ours");
    let setup = format!("ALCID_BACKUP_FOLDER={} ALCID_BACKUP_SCHEDULE=1s exec", row.display());
    let server = Server::start(wrapped(shell.0.path(), &setup), &[]);
    let mut wire = Wire::connect(server.addr());
    eventually("it has failed twice", || count(&mut wire, "backups_failed") >= 2);
    let said = info(&mut wire, "backup_last_error");
    assert!(said.contains(&row.display().to_string()), "{said}");
    assert!(count(&mut wire, "backup_last_error_time") > 1_700_000_000);
    assert!(server.log().contains("scheduled backup failed"), "{}", server.log());
    assert_eq!(wire.text(&["SET", "k", "v"]), "OK");
    fs::remove_file(&row).expect("ours");
    eventually("it has gone well", || count(&mut wire, "backups_made") >= 1);
    assert_eq!(info(&mut wire, "backup_last_error"), "");
    assert!(!backups_in(&row).is_empty());

    // What had backups and is gone is not made anew: its disk may be missing.
    let failed = count(&mut wire, "backups_failed");
    let away = shell.path("away");
    fs::rename(&row, &away).expect("ours");
    eventually("it has failed again", || count(&mut wire, "backups_failed") > failed);
    assert!(!row.exists());
    let said = info(&mut wire, "backup_last_error");
    let expected = format!("the folder {} is gone, which had backups before", row.display());
    assert!(said.starts_with(&expected), "{said}");
    let made = count(&mut wire, "backups_made");
    fs::rename(&away, &row).expect("ours");
    eventually("it goes on", || count(&mut wire, "backups_made") > made);

    // Without a folder there is nothing to plan.
    let server = Server::start(ALCID, &[]);
    let mut wire = Wire::connect(server.addr());
    let said = wire.text(&["CONFIG", "SET", "backup.schedule", "1s"]);
    assert!(said.contains("backup.folder names no folder"), "{said}");
}
