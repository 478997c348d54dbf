//! A disk that is full, and one that fails: RELIABILITY 3. What is acknowledged
//! stays, nothing hangs, and what can go on by itself does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use base::Frame;
use testkit::{Server, TempDir, temp_dir};

use crate::ALCID;
use crate::run::{has, wrapped};
use crate::wire::{Wire, eventually, text_of};

const ALWAYS: &[&str] = &["--aof-fsync", "always"];

/// Writes values of 10 kB until the server refuses one; answers how many were
/// acknowledged, and the refusal. The connection stays.
fn write_until_refused(server: &Server) -> (usize, String) {
    let mut wire = Wire::connect(server.addr());
    let value = "x".repeat(10_000);
    for number in 0..10_000 {
        let key = format!("big{number}");
        // One pipeline: those beside the write are answered whatever becomes of it.
        assert!(wire.send(&["PING"]) && wire.send(&["SET", &key, &value]) && wire.send(&["PING"]));
        let [before, answer, after] = [(); 3].map(|()| text_of(wire.frame()));
        assert_eq!([before, after], ["PONG", "PONG"], "{key}");
        if answer != "OK" {
            return (number, answer);
        }
    }
    panic!("the disk never became full");
}

/// What must hold while the disk is full: writes are refused with a reason,
/// reads go on, the process rests. The write that was refused first was made in
/// memory, so whatever tells of it is an error.
fn serves_reads_only(server: &Server, acknowledged: usize, last_words: &str) {
    assert!(last_words.starts_with("UNKNOWNRESULT The change may or may not"), "{last_words}");
    let mut wire = Wire::connect(server.addr());
    let refused = wire.text(&["SET", "more", "v"]);
    assert!(refused.starts_with("MISCONF"), "{refused}");
    for number in 0..acknowledged {
        assert_eq!(wire.text(&["STRLEN", &format!("big{number}")]), "10000", "big{number}");
    }
    for words in [&["STRLEN", &format!("big{acknowledged}")][..], &["DBSIZE"], &["KEYS", "*"]] {
        let text = wire.text(words);
        assert!(text.starts_with("MISCONF The reply tells of a change"), "{words:?}: {text}");
    }
    let more = wire.text(&["EXISTS", "more"]);
    assert!(more == "0" || more.starts_with("MISCONF"), "what was refused is not there: {more}");
    let info = wire.text(&["INFO", "persistence"]);
    assert!(info.contains("aof_last_write_status:err"), "{info}");
}

fn has_all(server: &Server, acknowledged: usize) {
    let mut wire = Wire::connect(server.addr());
    for number in 0..acknowledged {
        assert_eq!(wire.text(&["STRLEN", &format!("big{number}")]), "10000", "big{number}");
    }
    assert_eq!(wire.text(&["EXISTS", "more"]), "0", "what was refused is not there");
    assert_eq!(wire.text(&["SET", "after", "v"]), "OK");
}

/// A small disk that is unmounted with its guard.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// `None` where we may not mount.
    fn mount(megabytes: usize) -> Option<SmallDisk> {
        let disk = SmallDisk { folder: temp_dir() };
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "alcid-test"])
            .arg(disk.folder.path())
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(disk)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg(self.folder.path())
            .stderr(std::process::Stdio::null())
            .status();
    }
}

#[test]
fn a_full_disk_refuses_writes_keeps_reads_and_goes_on_after_room_is_made() {
    let Some(disk) = SmallDisk::mount(4) else {
        eprintln!("not run: mounting a small disk takes root");
        return;
    };
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; 3 << 20]).expect("room");
    let log = disk.path().join("log");
    let arguments = ["--aof-fsync", "always", "--aof-path", log.to_str().expect("text")];
    let mut server = Server::start(ALCID, &arguments);
    // Else writes are refused before the disk is full.
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["CONFIG", "SET", "storage.min_free_disk", "0"]), "OK");
    let (acknowledged, last_words) = write_until_refused(&server);
    assert!(acknowledged > 10, "{acknowledged}, {last_words}");
    serves_reads_only(&server, acknowledged, &last_words);
    let still = wire.text(&["CONFIG", "SET", "appendonly", "yes"]);
    assert!(still.contains("no room"), "{still}");

    fs::remove_file(&ballast).expect("ours");
    eventually("writes are taken again", || wire.text(&["SET", "room", "v"]) == "OK");
    // What the log had refused is in it now.
    has_all(&server, acknowledged + 1);
    server.kill();
    server.restart();
    has_all(&server, acknowledged + 1);

    // Nearly full.
    let mut filled = fs::File::create(&ballast).expect("room");
    while filled.write_all(&[1; 4096]).is_ok() {}
    let bytes = filled.metadata().expect("ours").len();
    filled.set_len(bytes - (100 << 10)).expect("ours");
    let mut wire = Wire::connect(server.addr());
    let is_short = |text: &str| text.starts_with("NOSPACE ") && text.contains("min_free_disk");
    eventually("writes are refused", || is_short(&wire.text(&["SET", "room", "v"])));
    assert!(is_short(&wire.text(&["DEL", "room"])));
    assert_eq!(wire.text(&["GET", "room"]), "v");
    assert_eq!(wire.text(&["CONFIG", "SET", "storage.min_free_disk", "0"]), "OK");
    eventually("they are taken again", || wire.text(&["DEL", "room"]) == "1");

    // Full again; this time a restart is what brings the service back.
    let (more, _) = write_until_refused(&server);
    fs::write(&ballast, b"").expect("a name takes no room");
    server.kill();
    let refused = server.try_restart();
    if refused.is_ok() {
        has_all_up_to(&server, more);
    }
}

fn has_all_up_to(server: &Server, acknowledged: usize) {
    let mut wire = Wire::connect(server.addr());
    for number in 0..acknowledged {
        assert_eq!(wire.text(&["STRLEN", &format!("big{number}")]), "10000", "big{number}");
    }
}

/// Lets the next manifests of a server's archive be written to a full disk;
/// answers their paths.
fn fill_archive(server: &Server) -> Vec<PathBuf> {
    let tree = server.data_dir().join("archive/base");
    let current = fs::read(tree.join("current")).expect("it is there");
    let number = u64::from_le_bytes(current[..8].try_into().expect("eight bytes"));
    let next = (number + 1..number + 50).map(|number| tree.join(format!("v{number}")));
    // One that a compaction makes just now is its own.
    next.filter(|path| symlink("/dev/full", path).is_ok()).collect()
}

fn make_room(full: &[PathBuf]) {
    full.iter().for_each(|path| fs::remove_file(path).expect("ours"));
}

#[test]
fn an_archive_that_meets_a_full_disk_goes_on_after_room_is_made() {
    let folder = temp_dir();
    let file = folder.path().join("small.toml");
    let small = "[storage]\narchive_lag = \"1MB\"\narchive_lag_max = \"1MB\"\n";
    fs::write(&file, small).expect("ours");
    let arguments = ["--aof-fsync", "always", "--config", file.to_str().expect("text")];
    let mut server = Server::start(ALCID, &arguments);
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["SET", "k", "first"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");

    let full = fill_archive(&server);
    assert_eq!(wire.text(&["SET", "k", "second"]), "OK");
    let refused = wire.text(&["SAVE"]);
    assert!(refused.starts_with("ERR the archive cannot save: "), "{refused}");
    assert!(
        refused.contains("No space left on device")
            && refused.contains("CONFIG SET appendonly yes")
    );
    let info = wire.text(&["INFO", "persistence"]);
    let fault = info.lines().find_map(|line| line.strip_prefix("archive_fault:"));
    assert!(fault.is_some_and(|fault| fault.contains("No space left on device")), "{info}");
    // Nobody waits for what does not come.
    assert!(matches!(wire.call(&["BRANCH", "CREATE", "b"]), Frame::Array(_)));
    assert_eq!(wire.text(&["SET", "k", "third"]), "OK");
    let mut branch = Wire::connect(server.addr());
    assert_eq!(branch.text(&["BRANCH", "USE", "b"]), "OK");
    let unread = branch.text(&["GET", "k"]);
    assert!(unread.contains("No space left on device"), "{unread}");
    let (acknowledged, refused) = write_until_refused(&server);
    assert!(acknowledged > 10, "{acknowledged}, {refused}");
    let behind = "MISCONF Writes are refused: the archive lacks ";
    assert!(refused.starts_with(behind) && refused.contains("archive_lag_max"), "{refused}");
    assert!(wire.text(&["DEL", "k"]).starts_with(behind));
    assert_eq!(wire.text(&["GET", "k"]), "third");

    make_room(&full);
    assert_eq!(wire.text(&["CONFIG", "SET", "appendonly", "yes"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let no_fault =
        |wire: &mut Wire| wire.text(&["INFO", "persistence"]).contains("archive_fault:\r");
    assert!(no_fault(&mut wire));
    assert_eq!(branch.text(&["GET", "k"]), "second");
    has_all(&server, acknowledged);

    // And by itself.
    let full = fill_archive(&server);
    assert_eq!(wire.text(&["SET", "k", "fourth"]), "OK");
    assert!(wire.text(&["SAVE"]).contains("No space left on device"));
    make_room(&full);
    eventually("the archive goes on", || no_fault(&mut wire));
    assert_eq!(wire.text(&["SAVE"]), "OK");
    server.kill();
    server.restart();
    has_all(&server, acknowledged);
    assert_eq!(Wire::connect(server.addr()).text(&["GET", "k"]), "fourth");
}

#[test]
fn a_failed_write_stops_acknowledging_for_good_and_a_restart_has_everything() {
    let folder = temp_dir();
    // A limit on the size of files, whose signal is ignored, makes a write
    // fail half way, for any user.
    let program = wrapped(folder.path(), "trap '' XFSZ; ulimit -S -f 400; exec");
    let mut server = Server::start(&program, ALWAYS);
    let (acknowledged, last_words) = write_until_refused(&server);
    assert!(acknowledged > 10, "{acknowledged}, {last_words}");
    serves_reads_only(&server, acknowledged, &last_words);
    let mut wire = Wire::connect(server.addr());
    let health = wire.text(&["CONFIG", "SET", "appendonly", "yes"]);
    assert!(health.contains("failed for good"), "{health}");
    fs::write(&program, format!("#!/bin/bash\nexec {ALCID} \"$@\"\n")).expect("ours");
    server.kill();
    server.restart();
    has_all(&server, acknowledged);
}

#[test]
fn a_failed_sync_is_never_retried_and_a_restart_has_everything() {
    if !has("strace") || !can_trace() {
        eprintln!("not run: needs strace and the right to trace");
        return;
    }
    let folder = temp_dir();
    let inject = "exec strace -f -qq -o /dev/null -e trace=fdatasync -e inject=fdatasync:error=EIO:when=20+ -I 2";
    let program = wrapped(folder.path(), inject);
    let mut server = Server::start(&program, ALWAYS);
    let (acknowledged, last_words) = write_until_refused(&server);
    serves_reads_only(&server, acknowledged, &last_words);
    // The process to stop is strace's child.
    let pid = Wire::connect(server.addr()).text(&["INFO", "server"]);
    let pid = pid.lines().find_map(|line| line.strip_prefix("process_id:")).expect("a process");
    let killed = Command::new("kill").args(["-9", pid.trim()]).status();
    assert!(killed.expect("kill").success());
    server.wait();
    fs::write(&program, format!("#!/bin/bash\nexec {ALCID} \"$@\"\n")).expect("ours");
    server.restart();
    has_all(&server, acknowledged);
}

fn can_trace() -> bool {
    let run = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    run.is_ok_and(|status| status.success())
}
