//! Backups of a running server, and data folders made from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::Frame;
use testkit::{Server, TempDir, temp_dir};

use crate::ALCID;
use crate::restart::{fill, state};
use crate::run::{Ended, alcid, wrapped};
use crate::wire::{Came, PATIENCE, Wire, eventually};

/// The program, run in a folder of its own beside the backups.
pub struct Shell(pub TempDir);

impl Shell {
    pub fn new() -> Shell {
        Shell(temp_dir())
    }

    /// A server whose archive moves only when it is asked to, so that a test
    /// knows what is in the archive and what in the log.
    pub fn server(&self) -> Server {
        let still = "ALCID_STORAGE_ARCHIVE_IDLE=0 ALCID_STORAGE_ARCHIVE_INTERVAL=0 exec";
        Server::start(wrapped(self.0.path(), still), &["--aof-fsync", "always"])
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn run(&self, line: &str) -> Ended {
        alcid(self.0.path(), &line.split(' ').collect::<Vec<_>>())
    }

    pub fn done(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        ended.out
    }

    pub fn refused(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{line}: {ended:?}");
        ended.err
    }

    pub fn back_up(&self, server: &Server) -> String {
        self.done(&format!("backup --to backup -p {}", server.port()))
    }

    /// A server on what `alcid restore --from backup …` makes.
    pub fn restored(&self, more: &str) -> (Server, String) {
        let mut server = Server::start(ALCID, &[]);
        server.kill();
        fs::remove_dir_all(server.data_dir()).expect("ours");
        let said = self.done(&format!(
            "restore --from backup --data-dir {}{more}",
            server.data_dir().display()
        ));
        server.restart();
        assert!(!server.log().contains("WARN"), "{}", server.log());
        (server, said)
    }
}

pub fn newest(wire: &mut Wire) -> String {
    wire.text(&["WAITREV", "0", "0"])
}

#[test]
fn a_backup_made_under_writes_is_one_state_of_all() {
    let server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let shell = Shell::new();
    fill(&mut Wire::connect(server.addr()));
    let (over, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = std::thread::scope(|scope| {
        for number in 0..4 {
            let mut wire = Wire::connect(server.addr());
            let (over, acknowledged) = (&over, &acknowledged);
            scope.spawn(move || {
                let (a, b) = (format!("{number}:a"), format!("{number}:b"));
                while !over.load(Ordering::Relaxed) {
                    wire.call(&["MULTI"]);
                    wire.call(&["INCR", &a]);
                    wire.call(&["INCR", "all"]);
                    wire.call(&["INCR", &b]);
                    wire.call(&["EXEC"]);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut before = 0;
        for round in 1..=3 {
            eventually("the clients write", || acknowledged.load(Ordering::Relaxed) > round * 50);
            before = acknowledged.load(Ordering::Relaxed);
            let said = shell.back_up(&server);
            assert!(said.contains("Every state from revision "), "{said}");
        }
        over.store(true, Ordering::Relaxed);
        before
    });
    let (restored, said) = shell.restored("");
    assert!(said.starts_with("Restored revision "), "{said}");
    let mut wire = Wire::connect(restored.addr());
    let mut sum = 0;
    for number in 0..4 {
        let a = wire.text(&["GET", &format!("{number}:a")]);
        assert_eq!(a, wire.text(&["GET", &format!("{number}:b")]), "half a transaction");
        sum += a.parse::<u64>().expect("a number");
    }
    assert_eq!(wire.text(&["GET", "all"]), sum.to_string());
    let after = acknowledged.load(Ordering::Relaxed);
    assert!((before..=after).contains(&sum), "{before} <= {sum} <= {after}");

    // With nobody writing, it is all there is, and goes on from there.
    let expected = state(&server);
    shell.back_up(&server);
    let (mut restored, _) = shell.restored("");
    assert_eq!(state(&restored), expected);
    let mut wire = Wire::connect(restored.addr());
    assert_eq!(newest(&mut wire), newest(&mut Wire::connect(server.addr())));
    wire.call(&["SET", "later", "v"]);
    restored.terminate();
    restored.restart();
    let mut wire = Wire::connect(restored.addr());
    assert_eq!(wire.text(&["GET", "later"]), "v");
    wire.call(&["DEL", "later"]);
    assert_eq!(state(&restored), expected);
}

#[test]
fn only_what_is_new_is_copied() {
    let shell = Shell::new();
    let server = shell.server();
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire);
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let backup = shell.path("backup").display().to_string();
    let copied = |wire: &mut Wire| {
        let reply = wire.call(&["BACKUP", "TO", &backup]);
        let Frame::Array(items) = reply else { panic!("{reply:?}") };
        let number = |name: &str| {
            let at = items.iter().position(|item| *item == Frame::bulk(name)).expect("a field");
            let Frame::Integer(number) = items[at + 1] else { panic!("{name}") };
            number
        };
        assert!(number("oldest") <= number("revision"));
        assert_eq!(number("revision").to_string(), newest(wire));
        (number("files"), number("copied"), number("copied_bytes"))
    };
    let (files, first, bytes) = copied(&mut wire);
    assert_eq!(first, files);
    assert!(bytes > 50_000, "{bytes}");
    // The archive tidies up after a save, which makes new files.
    eventually("nothing is new", || copied(&mut wire).1 == 0);
    wire.call(&["SET", "later", "v"]);
    let (_, second, bytes) = copied(&mut wire);
    assert_eq!(second, 1, "the segment being written");
    assert!(bytes < 1000, "{bytes}");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let (files, third, bytes) = copied(&mut wire);
    assert!(third < files, "the tables from before are there: {third} of {files}");
    assert!(bytes < 20_000, "{bytes}");
    eventually("nothing is new", || copied(&mut wire).1 == 0);
    let files = copied(&mut wire).0;
    let said = shell.done("backup verify backup");
    assert!(
        said.contains(&format!("\n{files} files, ")) && said.ends_with("all are whole.\n"),
        "{said}"
    );
    let stored = fs::read_dir(shell.path("backup/files")).expect("there").count();
    assert_eq!(stored as i64, files, "what it does not need is gone");
    assert_eq!(state(&shell.restored("").0), state(&server));
}

#[test]
fn every_revision_and_any_part_can_be_restored() {
    let shell = Shell::new();
    let server = shell.server();
    let mut wire = Wire::connect(server.addr());
    wire.call(&["SET", "user:1", "before"]);
    wire.call(&["SAVE"]);
    let oldest = newest(&mut wire);
    fill(&mut wire);
    wire.call(&["SELECT", "2"]);
    wire.call(&["HSET", "user:2", "f", "v"]);
    wire.call(&["PEXPIREAT", "user:2", "4102444800000"]);
    let (then, expected) = (newest(&mut wire), state(&server));
    let Frame::Array(time) = wire.call(&["TIME"]) else { panic!("TIME") };
    let [seconds, micros] = [0, 1].map(|at| crate::wire::text_of(time[at].clone()));
    let ms = seconds.parse::<u64>().expect("a number") * 1000
        + micros.parse::<u64>().expect("a number") / 1000;
    // Nothing else is stamped with that millisecond.
    eventually("the clock moves on", || {
        let Frame::Array(time) = wire.call(&["TIME"]) else { panic!("TIME") };
        let [s, us] = [0, 1].map(|at| crate::wire::text_of(time[at].clone()));
        s.parse::<u64>().expect("a number") * 1000 + us.parse::<u64>().expect("a number") / 1000
            > ms
    });
    wire.call(&["FLUSHALL"]);
    wire.call(&["SET", "after", "v"]);
    shell.back_up(&server);

    let (restored, said) = shell.restored(&format!(" --at r:{then}"));
    assert_eq!(state(&restored), expected);
    let keys = expected.len();
    assert!(said.starts_with(&format!("Restored revision {then}, of 2")), "{said}");
    assert!(said.contains(&format!(": {keys} keys in ")), "{said}");
    assert_eq!(newest(&mut Wire::connect(restored.addr())), then);
    let (restored, _) = shell.restored(&format!(" --at {ms}"));
    assert_eq!(state(&restored), expected);

    let (restored, said) = shell.restored(&format!(" --at r:{then} --prefix user:"));
    let mut part = expected.clone();
    part.retain(|(_, key), _| key.starts_with(b"user:"));
    assert_eq!(part.len(), 2);
    assert_eq!(state(&restored), part);
    assert!(said.contains(": 2 keys in "), "{said}");
    assert_eq!(state(&shell.restored("").0).len(), 1);

    // What the server itself can read can be restored; without the history only
    // what the archive has, and what came then.
    let early: u64 = oldest.parse().expect("a number");
    assert_eq!(state(&shell.restored(" --at r:0").0).len(), 0);
    shell.done(&format!("backup --to backup --no-history -p {}", server.port()));
    let from = "restore --from backup --data-dir new";
    let said = shell.refused(&format!("{from} --at r:{}", early - 1));
    assert!(said.contains(&format!("every state from revision {oldest} to ")), "{said}");
    let said = shell.refused(&format!("{from} --at -10m"));
    assert!(said.contains(&format!("every state from revision {oldest} of 2")), "{said}");
    let ended = shell.run(&format!("{from} --at yesterday"));
    assert!(ended.err.contains("'yesterday' is no point in time"), "{ended:?}");
    assert!(!shell.path("new").exists());
    let said = shell.refused("restore --from nowhere --data-dir new");
    assert!(said.contains("there is no backup in nowhere"), "{said}");
    let said =
        shell.refused(&format!("restore --from backup --data-dir {}", server.data_dir().display()));
    assert!(said.contains("is not empty"), "{said}");
}

#[test]
fn a_restored_server_has_its_past() {
    let shell = Shell::new();
    let server = shell.server();
    let mut wire = Wire::connect(server.addr());
    let done = |wire: &mut Wire, line: &str| {
        let answer = wire.call(&line.split(' ').collect::<Vec<_>>());
        assert!(!matches!(answer, Frame::Error(_)), "{line}: {answer:?}");
        answer
    };
    let mut all = |lines: &str| lines.split(", ").for_each(|line| drop(done(&mut wire, line)));
    all("SET k a, SET k b, HSET h f 1 g 2, TAG CREATE v1, BRANCH CREATE dev, SAVE");
    all("HINCRBY h f 4, SET due x EX 1000, BRANCH USE dev, SET k dev, DEL h, BRANCH USE main");
    all("FLUSHALL, SET after 1");
    let asked: Vec<&str> = concat!(
        "HISTORY k VALUES, HISTORY h VALUES, HISTORY h FIELD f VALUES, CHANGES FROM r:0, BLAME h, ",
        "TIMELINE FROM r:0 BY COMMAND BUCKET 365d, AT r:2 GET k, AT r:1 HGETALL h, AT tag:v1 HGETALL h, ",
        "AT r:5 BRANCH dev GET k, TAG LIST, BRANCH DIFF main dev, UNDO LIST, AT r:7 TTL due, ",
        "AT r:0 DBSIZE, AT r:8 BRANCH dev HGETALL h, DEBUG DIGEST",
    )
    .split(", ")
    .collect();
    let answers = |wire: &mut Wire| asked.iter().map(|line| done(wire, line)).collect::<Vec<_>>();
    let before = answers(&mut wire);
    let newest: u64 = newest(&mut wire).parse().expect("a number");
    shell.back_up(&server);
    let (mut restored, said) = shell.restored("");
    assert!(said.contains("Every state from revision 0 on can be read.\n"), "{said}");
    let mut wire = Wire::connect(restored.addr());
    for round in 0..2 {
        for (line, (before, now)) in asked.iter().zip(before.iter().zip(answers(&mut wire))) {
            assert_eq!(before, &now, "{line} in round {round}");
        }
        restored.kill();
        restored.restart();
        wire = Wire::connect(restored.addr());
    }
    // What was done before the backup can be taken back after it.
    done(&mut wire, "UNDO");
    assert_eq!(wire.text(&["GET", "k"]), "b");
    assert_eq!(wire.call(&["LASTREV"]), Frame::Integer(newest as i64 + 1));
    // It is backed up, and restored, in turn.
    let again = Shell::new();
    again.back_up(&restored);
    again.done("backup verify backup");
    let (other, _) = again.restored("");
    let mut other = Wire::connect(other.addr());
    assert_eq!(other.text(&["AT", &format!("r:{newest}"), "GET", "k"]), "(nil)");
    assert_eq!(other.text(&["AT", "r:2", "GET", "k"]), "b");

    // What came after a state that is restored has not happened.
    let (server, said) = shell.restored(" --at r:2");
    assert!(said.starts_with("Restored revision 2, "), "{said}");
    let mut wire = Wire::connect(server.addr());
    done(&mut wire, "SET k c");
    assert_eq!(wire.call(&["LASTREV"]), Frame::Integer(3));
    let Frame::Array(rows) = wire.call(&["HISTORY", "k", "VALUES"]) else { panic!("no rows") };
    let values: Vec<Frame> = rows
        .iter()
        .map(|row| match row {
            Frame::Array(row) => row[6].clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(values, ["c", "b", "a"].map(Frame::bulk));
    assert_eq!(wire.call(&["HISTORY", "h"]), Frame::Array(Vec::new()));
    assert_eq!(wire.call(&["UNDO", "LIST"]), Frame::Array(Vec::new()));

    let (server, said) = shell.restored(" --no-history");
    assert!(
        said.contains("Of what came before, only states that tags and branches keep "),
        "{said}"
    );
    let mut wire = Wire::connect(server.addr());
    let refused = wire.text(&["AT", "r:2", "GET", "k"]);
    assert!(refused.starts_with("COMPACTED "), "{refused}");
    // One is.
    assert_eq!(wire.call(&["AT", "tag:v1", "HGET", "h", "f"]), Frame::bulk("1"));
}

/// What a state was that has a name again after a restore, but had none meanwhile, is
/// not all there: nobody reads it, and it takes nothing from what is.
#[test]
fn a_state_that_had_no_name_for_a_while_is_none_after_a_restore() {
    let shell = Shell::new();
    let server = shell.server();
    let mut wire = Wire::connect(server.addr());
    let all = |wire: &mut Wire, lines: &str| {
        for line in lines.split(", ") {
            let answer = wire.call(&line.split(' ').collect::<Vec<_>>());
            assert!(!matches!(answer, Frame::Error(_)), "{line}: {answer:?}");
        }
    };
    let fields: Vec<String> = (0..4000).map(|n| format!("{n}")).collect();
    let words = ["HSET", "large"].into_iter().chain(fields.iter().map(String::as_str));
    all(&mut wire, "BRANCH CREATE dev, BRANCH USE dev, SET own 1, BRANCH USE main");
    assert_eq!(wire.text(&words.collect::<Vec<_>>()), "2000");
    // `two` begins with revision 4, of which `dev` alone is kept once `two` begins anew.
    all(&mut wire, "BRANCH CREATE two FROM dev, HSET large 0 changed, TAG CREATE v1");
    let tagged = wire.text(&["DEBUG", "DIGEST"]);
    all(&mut wire, "BRANCH RESET two TO PARENT, SAVE, HISTORY.COMPACT BEFORE r:7");
    let compacted = |wire: &mut Wire, at: &str| {
        let answer = wire.text(&["AT", at, "GET", "own"]);
        assert!(answer.starts_with("COMPACTED "), "{at}: {answer}");
    };
    let merge = "SET x 1, SAVE, SET x 2, SAVE";
    all(&mut wire, merge);
    compacted(&mut wire, "r:4");
    shell.back_up(&server);

    let (mut restored, said) = shell.restored(" --at tag:v1");
    assert!(said.starts_with("Restored revision 6, "), "{said}");
    let mut wire = Wire::connect(restored.addr());
    assert_eq!(wire.text(&["DEBUG", "DIGEST"]), tagged);
    compacted(&mut wire, "r:4");
    all(&mut wire, "BRANCH USE two, GET own, BRANCH USE main, SAVE");
    all(&mut wire, merge);
    let newest = newest(&mut wire);
    all(&mut wire, &format!("HISTORY.COMPACT BEFORE r:{newest}, {merge}"));
    restored.terminate();
    restored.restart();
    let mut wire = Wire::connect(restored.addr());
    compacted(&mut wire, "r:4");
    assert_eq!(wire.text(&["AT", "tag:v1", "DEBUG", "DIGEST"]), tagged);
    assert_eq!(wire.text(&["HLEN", "large"]), "2000");
    let Frame::Array(found) = wire.call(&["HGETALL", "large"]) else { panic!("it is there") };
    assert_eq!(found.len(), fields.len());
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let shell = Shell::new();
    let server = shell.server();
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire);
    wire.call(&["SAVE"]);
    wire.call(&["SET", "later", "v"]);
    shell.back_up(&server);
    let text = fs::read_to_string(shell.path("backup/BACKUP.json")).expect("there");
    let contents: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut kinds = Vec::new();
    for file in contents["files"].as_array().expect("files") {
        let place = file["path"].as_str().expect("a text").to_owned();
        let stored = Path::new("backup/files").join(file["sha256"].as_str().expect("a text"));
        let path = shell.path(&stored.display().to_string());
        let bytes = fs::read(&path).expect("there");
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        // The file may be the server's own under another name.
        fs::remove_file(&path).expect("ours");
        fs::write(&path, &flipped).expect("ours");
        let ended = shell.run("backup verify backup");
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.starts_with(&format!("{place}: ")), "{ended:?}");
        assert!(ended.err.contains("1 of "), "{ended:?}");
        // The oldest part of the log is for those who go back.
        let back = if place == "log/00000000000000000001.alog" { " --at r:1" } else { "" };
        let said = shell.refused(&format!("restore --from backup --data-dir new{back}"));
        assert!(said.contains("is damaged") && said.contains(&place), "{said}");
        assert!(!shell.path("new").exists());
        fs::write(&path, &bytes).expect("ours");
        kinds.push(place);
    }
    for kind in ["archive/base/current", "archive/base/v", "archive/base/tables/", "log/"] {
        assert!(kinds.iter().any(|place| place.starts_with(kind)), "{kind}: {kinds:?}");
    }
    fs::write(shell.path("backup/BACKUP.json"), text.replacen('1', "2", 3)).expect("ours");
    for line in ["backup verify backup", "restore --from backup --data-dir new"] {
        let said = shell.refused(line);
        assert!(said.contains("BACKUP.json"), "{said}");
    }
    let said = shell.refused(&format!("backup --to backup -p {}", server.port()));
    assert!(said.contains("BACKUP.json"), "{said}");
    fs::write(shell.path("backup/BACKUP.json"), text).expect("ours");
    shell.done("backup verify backup");
}

#[test]
fn what_is_damaged_is_not_backed_up() {
    let shell = Shell::new();
    let server = shell.server();
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire);
    wire.call(&["SAVE"]);
    let first = fs::read_dir(server.data_dir().join("archive/base/tables")).expect("there").next();
    let table = first.expect("there is one").expect("readable").path();
    let whole = fs::read(&table).expect("there");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&table, &flipped).expect("ours");
    let said = shell.refused(&format!("backup --to backup -p {}", server.port()));
    assert!(said.contains(&table.display().to_string()) && said.contains("is damaged"), "{said}");
    assert!(shell.refused("backup verify backup").contains("there is no backup"));
    fs::write(&table, &whole).expect("ours");
    shell.back_up(&server);
    shell.done("backup verify backup");
}

#[test]
fn a_server_that_is_killed_leaves_the_older_backup() {
    let shell = Shell::new();
    let mut server = shell.server();
    let mut wire = Wire::connect(server.addr());
    wire.call(&["SET", "k", "first"]);
    shell.back_up(&server);
    let expected = state(&server);
    let big = "x".repeat(1 << 20);
    for number in 0..60 {
        wire.call(&["SET", &format!("big:{number}"), &big]);
    }
    wire.send(&["BACKUP", "TO", &shell.path("backup").display().to_string()]);
    let files = shell.path("backup/files");
    eventually("a file is being copied", || {
        let mut names =
            fs::read_dir(&files).expect("there").map(|entry| entry.expect("there").file_name());
        names.any(|name| name.to_string_lossy().starts_with("new-"))
    });
    server.kill();
    assert_eq!(wire.read(PATIENCE), Came::Closed, "it was not done");
    let said = shell.done("backup verify backup");
    assert!(said.contains("Files that an interrupted backup left: 1"), "{said}");
    assert_eq!(state(&shell.restored("").0), expected);

    server.restart();
    shell.back_up(&server);
    let said = shell.done("backup verify backup");
    assert!(!said.contains("interrupted"), "{said}");
    assert_eq!(state(&shell.restored("").0), state(&server));
}

#[test]
fn a_backup_goes_where_it_harms_nothing() {
    let shell = Shell::new();
    let server = Server::start(wrapped(shell.0.path(), "ALCID_SECURITY_PASSWORD=secret exec"), &[]);
    let port = server.port();
    let said = shell.refused(&format!("backup --to backup -p {port}"));
    assert!(said.starts_with("NOAUTH"), "{said}");
    let to = |folder: &str| format!("backup --to {folder} -h 127.0.0.1 -p {port} -a secret");
    let data = server.data_dir().display().to_string();
    for inside in [data.clone(), format!("{data}/backup"), format!("{data}/log")] {
        let said = shell.refused(&to(&inside));
        assert!(said.contains("one inside the other"), "{said}");
    }
    let said = shell.refused(&to("."));
    assert!(said.contains("\"alcid-wrapped\", which is no part of a backup"), "{said}");
    shell.done(&to("backup"));
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(shell.path("backup")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let mut wire = Wire::connect(server.addr());
    wire.call(&["AUTH", "secret"]);
    let said = wire.text(&["BACKUP", "TO", "backup"]);
    assert!(said.starts_with("ERR the folder \"backup\" is relative"), "{said}");
    let other = Server::start(ALCID, &[]);
    let said = shell.refused(&format!("backup --to backup -p {}", other.port()));
    assert!(said.contains("a backup of another database"), "{said}");
    let off = Server::start(ALCID, &["--no-log"]);
    let said = shell.refused(&format!("backup --to new -p {}", off.port()));
    assert!(said.contains("there is no data folder to back up"), "{said}");
}
