//! What one node does when files, folder or port are not as they should be:
//! RELIABILITY 3, the rows that a test can run. Failed syncs and writes at
//! every operation are in `crates/log/tests/crash.rs`, full disks in
//! `full_disk.rs`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use base::Frame;
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::run::{alcid, end, has};
use crate::wire::{Wire, eventually, memory_of};

const ALWAYS: &[&str] = &["--aof-fsync", "always"];

/// A server that was killed after it acknowledged this many keys, each in a
/// block of its own.
fn killed_after(keys: usize) -> Server {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for key in 0..keys {
        assert_eq!(wire.text(&["SET", &format!("k{key}"), "value"]), "OK");
    }
    server.kill();
    server
}

fn log_dir(server: &Server) -> PathBuf {
    server.data_dir().join("log")
}

/// The one segment of a young log.
fn segment(server: &Server) -> PathBuf {
    log_dir(server).join("00000000000000000001.alog")
}

/// Offsets of the blocks that hold records.
fn blocks(bytes: &[u8]) -> Vec<usize> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    let (mut at, mut found) = (64, Vec::new());
    while at < bytes.len() {
        if u32_at(at + 24) > 0 {
            found.push(at);
        }
        at += 36 + u32_at(at) as usize;
    }
    found
}

fn keys(server: &Server) -> String {
    Wire::connect(server.addr()).text(&["DBSIZE"])
}

/// The end of the log of a start that must be refused.
fn refusal(server: &mut Server) -> String {
    let log = server.try_restart().expect_err("it started");
    log.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let server = Server::start(ALCID, ALWAYS);
    let folder = server.data_dir();
    let data_dir = folder.to_str().expect("text");
    let ended = alcid(&folder, &["server", "--port", "0", "--data-dir", data_dir]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("in use by another server"), "{ended:?}");
    assert!(ended.err.contains(data_dir), "{ended:?}");
    // Nor may anything be cut under it.
    let ended = alcid(&folder, &["log", "check", "--repair", "--data-dir", data_dir]);
    assert!(ended.code == Some(1) || ended.out.contains("The log is whole"), "{ended:?}");
    assert_eq!(Wire::connect(server.addr()).text(&["SET", "k", "v"]), "OK");
}

#[test]
fn a_port_in_use_is_refused_before_anything_is_touched() {
    let server = Server::start(ALCID, ALWAYS);
    let folder = temp_dir();
    let port = server.port().to_string();
    let ended = alcid(folder.path(), &["server", "--port", &port, "--data-dir", "data"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains(&format!("127.0.0.1:{port}")), "{ended:?}");
    assert!(ended.err.contains("--port"), "{ended:?}");
    assert!(!folder.path().join("data").exists());
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let folder = temp_dir();
    let ended = alcid(
        folder.path(),
        &["server", "--port", "0", "--bind", "192.0.2.1", "--insecure-no-auth"],
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("192.0.2.1") && ended.err.contains("--bind"), "{ended:?}");
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    let probe = temp_dir();
    fs::metadata(probe.path()).expect("ours").uid() == 0
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_by_name() {
    let folder = temp_dir();
    fs::write(folder.path().join("file"), "").expect("ours");
    for data_dir in ["file", "/proc/alcid"] {
        let ended = alcid(folder.path(), &["server", "--port", "0", "--data-dir", data_dir]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains(data_dir), "{ended:?}");
    }
    let read_only = folder.path().join("read-only");
    fs::create_dir(&read_only).expect("ours");
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o500)).expect("ours");
    let arguments = ["server", "--port", "0", "--data-dir", "read-only"];
    let ended = if is_root() {
        // Modes do not bind root: run as nobody, where that can be done.
        if !has("setpriv") {
            return;
        }
        chown(folder.path(), Some(65534), None).expect("root");
        chown(&read_only, Some(65534), None).expect("root");
        let mut run = Command::new("setpriv");
        run.args(["--reuid=65534", "--regid=65534", "--clear-groups", ALCID]).args(arguments);
        run.current_dir(folder.path());
        run.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        end(run.spawn().expect("setpriv"))
    } else {
        alcid(folder.path(), &arguments)
    };
    // Where nobody may not even read the program, nothing was tried.
    if ended.code != Some(127) && ended.code != Some(126) {
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("read-only"), "{ended:?}");
    }
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o700)).expect("ours");
}

#[test]
fn a_torn_tail_is_cut_and_said() {
    let mut server = killed_after(5);
    let path = segment(&server);
    let bytes = fs::read(&path).expect("a segment");
    let last = *blocks(&bytes).last().expect("five of them");
    fs::write(&path, &bytes[..last + 40]).expect("ours");
    server.restart();
    assert_eq!(keys(&server), "4");
    let log = server.log();
    let cut = log.lines().find(|line| line.contains("cutting the log")).expect("it is said");
    assert!(cut.contains("WARN") && cut.contains(path.to_str().expect("text")), "{cut}");
    assert!(cut.contains(&format!("40 bytes at byte {last}")), "{cut}");
    let info = Wire::connect(server.addr()).text(&["INFO", "persistence"]);
    assert!(info.contains("log_recovery_dropped_bytes:40"), "{info}");
    // What is written from here on is behind the cut, and stays.
    assert_eq!(Wire::connect(server.addr()).text(&["SET", "new", "v"]), "OK");
    server.kill();
    server.restart();
    assert_eq!(keys(&server), "5");
}

#[test]
fn damage_refuses_to_start_until_it_is_repaired_with_a_copy() {
    let mut server = killed_after(5);
    let path = segment(&server);
    let mut bytes = fs::read(&path).expect("a segment");
    let third = blocks(&bytes)[2];
    bytes[third + 50] ^= 0x20;
    fs::write(&path, &bytes).expect("ours");
    let place = format!("{} at byte {third}", path.display());

    let message = refusal(&mut server);
    assert!(message.contains(&place) && message.contains("alcid log check"), "{message}");

    let folder = temp_dir();
    let data_dir = server.data_dir();
    let check = ["log", "check", "--data-dir", data_dir.to_str().expect("text")];
    let ended = alcid(folder.path(), &check);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains(&place) && ended.err.contains("revision 2"), "{ended:?}");
    assert_eq!(fs::read(&path).expect("a segment"), bytes, "a check changes nothing");

    let ended = alcid(folder.path(), &[&check[..], &["--repair"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let copy = PathBuf::from(format!("{}.damaged-1", path.display()));
    assert!(ended.out.contains(copy.to_str().expect("text")), "{ended:?}");
    assert_eq!(fs::read(copy).expect("a copy"), bytes);
    assert_eq!(alcid(folder.path(), &check).code, Some(0));
    server.restart();
    assert_eq!(keys(&server), "2");
}

#[test]
fn damage_in_what_the_archive_has_costs_no_more_than_history() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for key in 0..5 {
        assert_eq!(wire.text(&["SET", &format!("k{key}"), "value"]), "OK");
    }
    eventually("the archive has all", || {
        wire.text(&["INFO", "persistence"]).contains("archive_lag_revisions:0\r")
    });
    for key in 5..8 {
        assert_eq!(wire.text(&["SET", &format!("k{key}"), "value"]), "OK");
    }
    server.kill();
    let path = segment(&server);
    let mut bytes = fs::read(&path).expect("a segment");
    let third = blocks(&bytes)[2];
    bytes[third + 50] ^= 0x20;
    fs::write(&path, &bytes).expect("ours");

    let folder = temp_dir();
    let archived = ["--base", "5"];
    let data_dir = server.data_dir();
    let check = ["log", "check", "--data-dir", data_dir.to_str().expect("text")];
    let ended = alcid(folder.path(), &[&check[..], &archived].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let place = format!("{} at byte {third} is damaged", path.display());
    assert!(ended.out.contains(&place), "{ended:?}");
    assert_eq!(fs::read(&path).expect("a segment"), bytes, "a check changes nothing");

    server.restart();
    assert_eq!(keys(&server), "8");
    let log = server.log();
    let said = log.lines().find(|line| line.contains(&place)).expect("it is said");
    assert!(said.contains("WARN") && said.contains("revisions 3 to 3"), "{said}");
    let name = "00000000000000000001.alog.damaged-1";
    assert_eq!(fs::read(log_dir(&server).join(name)).expect("a copy"), bytes);
    let mut wire = Wire::connect(server.addr());
    let set_aside = |wire: &mut Wire| {
        let info = wire.text(&["INFO", "persistence"]);
        info.lines()
            .find_map(|line| line.strip_prefix("log_recovery_set_aside:"))
            .map(str::to_owned)
    };
    assert_eq!(set_aside(&mut wire).as_deref().map(str::trim), Some(name));
    // The past begins with a state of the archive behind the damage.
    let old = wire.text(&["AT", "r:2", "GET", "k0"]);
    assert!(old.contains("COMPACTED revision 2 is older than the oldest kept, "), "{old}");
    assert_eq!(wire.text(&["AT", "r:8", "EXISTS", "k6", "k7"]), "2");
    assert_eq!(wire.text(&["SET", "new", "v"]), "OK");
    server.kill();
    server.restart();
    assert_eq!(keys(&server), "9");
    let mut wire = Wire::connect(server.addr());
    assert_eq!(set_aside(&mut wire).as_deref().map(str::trim), Some(""));
    assert_eq!(wire.text(&["AT", "r:8", "EXISTS", "k6", "k7"]), "2");
}

#[test]
fn missing_foreign_and_newer_files_are_refused() {
    let mut server = killed_after(3);
    let path = segment(&server);
    let bytes = fs::read(&path).expect("a segment");

    fs::remove_file(&path).expect("ours");
    let message = refusal(&mut server);
    assert!(message.contains("revision 1 is missing"), "{message}");
    assert!(message.contains(log_dir(&server).to_str().expect("text")), "{message}");
    assert!(!path.exists(), "nothing was begun anew");

    let other = killed_after(3);
    fs::copy(segment(&other), &path).expect("ours");
    let message = refusal(&mut server);
    assert!(message.contains("belongs to another database"), "{message}");
    assert!(message.contains(path.to_str().expect("text")), "{message}");

    let mut newer = bytes.clone();
    newer[8] = 200;
    let checksum = crc32c::crc32c(&newer[..60]);
    newer[60..64].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, newer).expect("ours");
    let message = refusal(&mut server);
    assert!(message.contains("format version 200"), "{message}");

    fs::write(&path, &bytes).expect("ours");
    let manifest = log_dir(&server).join("MANIFEST");
    let identity = fs::read(&manifest).expect("a manifest");
    fs::remove_file(&manifest).expect("ours");
    let message = refusal(&mut server);
    let said = format!("{} is not there", manifest.display());
    assert!(message.contains(&said), "{message}");

    // Beside an archive, too, segments are not nothing.
    fs::write(&manifest, &identity).expect("ours");
    server.restart();
    assert_eq!(Wire::connect(server.addr()).text(&["SAVE"]), "OK");
    server.kill();
    fs::remove_file(&manifest).expect("ours");
    let message = refusal(&mut server);
    assert!(message.contains(&said), "{message}");

    fs::write(&manifest, identity).expect("ours");
    server.restart();
    assert_eq!(keys(&server), "3");
}

/// A stopped server whose log has a segment of two revisions for each state of its
/// archive; all but the last of them have an index.
fn of_segments() -> Server {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for n in 0..4 {
        assert_eq!(wire.text(&["SET", "k", &format!("v{n}")]), "OK");
        assert_eq!(wire.text(&["SET", "other", "v"]), "OK");
        assert_eq!(wire.text(&["SAVE"]), "OK");
        eventually("the log has begun another segment", || {
            log_dir(&server).join(format!("{:020}.alog", 2 * n + 3)).exists()
        });
    }
    assert_eq!(wire.text(&["SET", "k", "last"]), "OK");
    eventually("what was written is indexed", || {
        (0..4).all(|n| {
            server.data_dir().join(format!("archive/history/{:020}.idx", 2 * n + 1)).exists()
        })
    });
    server.kill();
    server
}

/// The names of files in a folder that end so, in order.
fn names_in(dir: &Path, end: &str) -> Vec<String> {
    let names = fs::read_dir(dir).expect("a folder").map(|file| {
        file.expect("readable").file_name().into_string().expect("the name of one of ours")
    });
    let mut names: Vec<String> = names.filter(|name| name.ends_with(end)).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_start_finds_that_the_last_segment_with_anything_is_gone() {
    let mut server = of_segments();
    server.restart();
    server.terminate();
    let segments = names_in(&log_dir(&server), ".alog");
    let [.., gone, empty] = &segments[..] else { panic!("{segments:?}") };
    let indexes = names_in(&server.data_dir().join("archive/history"), ".idx");
    let number = |name: &str| name.split('.').next().expect("a number").to_owned();
    assert!(!indexes.contains(&format!("{}.idx", number(gone))), "{indexes:?}");
    fs::remove_file(log_dir(&server).join(gone)).expect("ours");
    server.restart();
    let log = server.log();
    let said = log.lines().find(|line| line.contains("the past begins with revision"));
    assert!(said.is_some_and(|line| line.contains("WARN") && line.contains(&gone[..])), "{log}");
    // All that comes from here on has a past.
    let mut wire = Wire::connect(server.addr());
    let before = number(empty).parse::<u64>().expect("a revision") - 1;
    assert_eq!(wire.text(&["AT", &format!("r:{before}"), "GET", "k"]), "last");
    assert_eq!(wire.text(&["SET", "k", "new"]), "OK");
    let Frame::Array(versions) = wire.call(&["HISTORY", "k"]) else { panic!("no history") };
    assert_eq!(versions.len(), 1);
    let early = wire.call(&["AT", &format!("r:{}", before - 1), "GET", "k"]);
    assert!(matches!(&early, Frame::Error(why) if why.starts_with("COMPACTED")), "{early:?}");
    assert_eq!(wire.text(&["FLUSHDB"]), "OK");
    assert!(!matches!(wire.call(&["UNDO"]), Frame::Error(_)));
    assert_eq!(wire.text(&["GET", "k"]), "new");
}

#[test]
fn a_start_says_what_of_the_past_is_gone() {
    let shorter = "the past begins with revision";
    let mut whole = of_segments();
    whole.restart();
    let log = whole.log();
    assert!(!log.contains(shorter) && !log.contains("HORIZON"), "{log}");
    assert_eq!(Wire::connect(whole.addr()).text(&["AT", "r:1", "GET", "k"]), "v0");

    // Which segment is gone, and the first revision that can be read then.
    for (gone, oldest, value) in [(1, 2, "v0"), (3, 4, "v1"), (5, 6, "v2")] {
        let mut server = of_segments();
        let name = format!("{gone:020}.alog");
        fs::remove_file(log_dir(&server).join(&name)).expect("ours");
        server.restart();
        let log = server.log();
        let said = log.lines().find(|line| line.contains(shorter)).expect("it is said");
        assert!(said.contains("WARN") && said.contains(&name), "{said}");
        assert!(said.contains(log_dir(&server).to_str().expect("text")), "{said}");
        let mut wire = Wire::connect(server.addr());
        let [old, kept] = [oldest - 1, oldest].map(|at| format!("r:{at}"));
        let old = wire.text(&["AT", &old, "GET", "k"]);
        assert!(old.contains(&format!("older than the oldest kept, {oldest}")), "{old}");
        assert_eq!(wire.text(&["AT", &kept, "GET", "k"]), value);
        assert_eq!(wire.text(&["AT", "r:9", "GET", "k"]), "last");
        assert_eq!(wire.text(&["GET", "k"]), "last");
        // It is so from now on, and no news any more.
        server.kill();
        server.restart();
        assert_eq!(server.log().matches(shorter).count(), 1);
        assert_eq!(Wire::connect(server.addr()).text(&["AT", &kept, "GET", "k"]), value);
    }

    let mut server = of_segments();
    let horizon = server.data_dir().join("archive/history/HORIZON");
    fs::remove_file(&horizon).expect("ours");
    server.restart();
    let log = server.log();
    let said = log.lines().find(|line| line.contains("HORIZON")).expect("it is said");
    assert!(said.contains("WARN") && said.contains(horizon.to_str().expect("text")), "{said}");
}

/// Also where a branch makes the start write the archive before it serves.
#[test]
fn an_archive_that_is_made_again_has_all_of_the_past() {
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["SET", "k", "v1"]), "OK");
    let made = wire.call(&["BRANCH", "CREATE", "dev"]);
    assert!(!matches!(made, Frame::Error(_)), "{made:?}");
    assert_eq!(wire.text(&["SET", "k", "v2"]), "OK");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    assert_eq!(server.terminate().code(), Some(0));
    fs::remove_dir_all(server.data_dir().join("archive")).expect("ours");
    server.restart();
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["AT", "r:1", "GET", "k"]), "v1");
    assert_eq!(wire.text(&["GET", "k"]), "v2");
}

/// Damage in the last, large segment is judged without hanging.
#[test]
fn a_long_damaged_tail_is_judged_at_once() {
    let mut server = killed_after(3);
    let path = segment(&server);
    let mut bytes = fs::read(&path).expect("a segment");
    // Every offset of this looks like the start of something long.
    bytes.extend([0, 0, 0x10, 0].repeat(2 << 20));
    fs::write(&path, &bytes).expect("ours");
    server.restart();
    assert_eq!(keys(&server), "3");
    assert!(memory_of(server.pid(), "VmRSS") > 0);
}

#[test]
fn leftovers_of_interrupted_changes_are_no_obstacle() {
    let mut server = killed_after(2);
    let log = log_dir(&server);
    fs::write(log.join("MANIFEST.new"), b"half").expect("ours");
    fs::write(log.join("00000000000000000003.alog"), b"ALCID").expect("ours");
    fs::write(log.join(".owner-probe"), b"").expect("ours");
    server.restart();
    assert_eq!(keys(&server), "2");
    server.terminate();
    server.restart();
    assert_eq!(keys(&server), "2");
}

#[test]
fn no_argument_of_the_program_makes_it_panic() {
    let folder = temp_dir();
    for arguments in [
        &["log", "check"][..],
        &["log", "check", "--data-dir", "/dev/null"],
        &["log", "check", "--repair", "--aof-path", "nowhere"],
        &["server", "--aof-path", "/dev/null/log"],
        &["server", "--log-level", "loud"],
    ] {
        let ended = alcid(folder.path(), arguments);
        assert!(matches!(ended.code, Some(1 | 2)), "{arguments:?}: {ended:?}");
        assert!(!ended.err.contains("panicked") && !ended.err.is_empty(), "{ended:?}");
    }
    fs::create_dir(folder.path().join("empty")).expect("ours");
    for where_ in ["--data-dir nowhere", "--aof-path empty", "--repair --aof-path empty"] {
        let arguments: Vec<&str> = ["log", "check"].into_iter().chain(where_.split(' ')).collect();
        let ended = alcid(folder.path(), &arguments);
        assert!(ended.err.contains("there is no log in "), "{where_}: {ended:?}");
    }
    let made = fs::read_dir(folder.path().join("empty")).expect("ours").count();
    assert_eq!(made, 0, "files where there is no log");
}
