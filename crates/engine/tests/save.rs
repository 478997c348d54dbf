//! SAVE, BGSAVE, BGREWRITEAOF, LASTSAVE and the end of the server, with an
//! archive that a test moves on by hand.

mod harness;

use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use base::{Clock, Frame, Revision};
use engine::{Archive, BackedUp, Blocked, Checkpointed, Outcome};
use harness::{Gate, Peer, Server, error, integer, ok, simple};
use tokio::sync::watch;

/// The time at which the clock of the harness stands first, in seconds.
const START_S: i64 = 1_700_000_000;

/// An archive that moves when it is told to.
struct Shelf {
    progress: watch::Sender<Checkpointed>,
    requested: AtomicU64,
    lag_bytes: AtomicU64,
    /// How the next backups end.
    backups: Mutex<Receiver<Result<u64, &'static str>>>,
}

impl Archive for Shelf {
    fn backup_in_row(
        &self,
        row: &std::path::Path,
        _: usize,
        with_history: bool,
    ) -> Result<engine::BackedUp, String> {
        self.backup(row, with_history)
    }

    fn newest_backup_ms(&self, _: &std::path::Path) -> Option<u64> {
        None
    }

    fn progress(&self) -> watch::Receiver<Checkpointed> {
        self.progress.subscribe()
    }

    fn request(&self, revision: Revision) {
        self.requested.store(revision.0, Ordering::SeqCst);
    }

    fn settle(&self, _: Revision) -> Result<(), String> {
        Ok(())
    }

    fn lag_bytes(&self) -> u64 {
        self.lag_bytes.load(Ordering::SeqCst)
    }

    fn backup(&self, to: &Path, _: bool) -> Result<BackedUp, String> {
        let wanted = self.backups.lock().expect("no panic").recv().expect("a test waits");
        let number = wanted.map_err(|reason| format!("{}: {reason}", to.display()))?;
        Ok(BackedUp {
            revision: Revision(number),
            oldest: Revision(number - 1),
            files: 3,
            bytes: 300,
            copied: 2,
            copied_bytes: 200,
            took_ms: 5,
        })
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        vec![("archive_shelf", "yes".to_owned())]
    }
}

struct Saving {
    server: Server,
    gate: Arc<Gate>,
    shelf: Arc<Shelf>,
    backups: Sender<Result<u64, &'static str>>,
}

impl Saving {
    fn new() -> Saving {
        let gate = Gate::open();
        let server = Server::with(gate.clone());
        let (progress, _) = watch::channel(Checkpointed::default());
        let (backups, receiver) = channel();
        let shelf = Arc::new(Shelf {
            progress,
            requested: AtomicU64::new(0),
            lag_bytes: AtomicU64::new(0),
            backups: Mutex::new(receiver),
        });
        server.engine.attach_archive(shelf.clone());
        Saving { server, gate, shelf, backups }
    }

    /// The archive ends a batch.
    fn reach(&self, revision: u64) {
        self.shelf.progress.send_modify(|now| {
            now.revision = Revision(revision);
            now.finished_ms = self.server.clock.now_ms();
            now.took_ms = 1500;
            now.count += 1;
        });
        self.server.engine.checkpoints_moved();
    }

    fn fail(&self) {
        self.shelf.progress.send_modify(|now| now.fault = Some("the disk\nis gone".to_owned()));
        self.server.engine.checkpoints_moved();
    }

    fn requested(&self) -> u64 {
        self.shelf.requested.load(Ordering::SeqCst)
    }
}

/// A field of `INFO persistence`.
fn field(peer: &mut Peer, name: &str) -> String {
    let frame = peer.run("INFO persistence");
    let text = match &frame {
        Frame::Verbatim(_, text) => text.clone(),
        Frame::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("not a text: {other:?}"),
    };
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no field {name} in {text}")).to_owned()
}

fn fields(peer: &mut Peer, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(field(peer, name), *value, "{name}");
    }
}

fn answer(mut blocked: Blocked) -> Frame {
    blocked.answer.try_recv().expect("an answer is there").frame()
}

const GONE: &str = "ERR the archive cannot save: the disk is gone; the log still has every change";

#[test]
fn save_waits_for_the_archive_and_holds_nobody_else_up() {
    let saving = Saving::new();
    let (mut saver, mut other) = (saving.server.connect(), saving.server.connect());
    saver.run("SET k v");
    let blocked = saver.block("SAVE");
    assert_eq!(saving.requested(), 1);
    assert_eq!(other.run("SET k w"), ok());
    fields(&mut other, &[("rdb_changes_since_last_save", "2"), ("rdb_bgsave_in_progress", "0")]);
    let mut second = saving.server.connect();
    let later = second.block("SAVE");
    assert_eq!(saving.requested(), 2);
    saving.server.clock.advance_ms(5000);
    saving.reach(1);
    assert_eq!(answer(blocked), ok());
    assert_eq!(other.run("LASTSAVE"), integer(START_S + 5));
    fields(&mut other, &[("rdb_changes_since_last_save", "1"), ("rdb_last_bgsave_time_sec", "1")]);
    let mut later = later;
    assert!(later.answer.try_recv().is_err(), "its change is not in the archive");
    saving.reach(2);
    assert_eq!(answer(later), ok());
}

#[test]
fn writers_wait_for_the_archive_by_the_setting_of_now() {
    let saving = Saving::new();
    let mut peer = saving.server.connect();
    saving.shelf.lag_bytes.store(1 << 30, Ordering::SeqCst);
    assert_eq!(peer.run("SET k v"), ok());
    for (most, waits) in [("512mb", true), ("1gb", false), ("0", false)] {
        assert_eq!(peer.run(&format!("CONFIG SET storage.archive_lag_max {most}")), ok());
        let (_, outcome) = peer.call("SET k v");
        assert_eq!(matches!(outcome, Outcome::Paused(_)), waits, "{most}: {outcome:?}");
        peer.run("GET k");
    }
}

#[test]
fn a_save_with_nothing_to_write_is_over_at_once() {
    let saving = Saving::new();
    let mut peer = saving.server.connect();
    assert_eq!(peer.run("LASTSAVE"), integer(START_S));
    fields(&mut peer, &[("rdb_last_bgsave_time_sec", "-1"), ("rdb_saves", "0")]);
    for (seconds, line, reply) in [
        (1, "SAVE", ok()),
        (2, "BGSAVE", simple("Background saving started")),
        (3, "BGSAVE SCHEDULE", simple("Background saving started")),
        (4, "BGREWRITEAOF", simple("Background append only file rewriting started")),
    ] {
        saving.server.clock.advance_ms(1000);
        assert_eq!(peer.run(line), reply, "{line}");
        assert_eq!(peer.run("LASTSAVE"), integer(START_S + seconds), "{line}");
    }
    let over =
        [("rdb_bgsave_in_progress", "0"), ("aof_rewrite_in_progress", "0"), ("rdb_saves", "4")];
    fields(&mut peer, &over);
    assert_eq!(saving.requested(), 0);
}

#[test]
fn one_background_save_runs_at_a_time() {
    let saving = Saving::new();
    let mut peer = saving.server.connect();
    peer.run("SET k v");
    assert_eq!(peer.run("BGSAVE"), simple("Background saving started"));
    assert_eq!(saving.requested(), 1);
    saving.server.clock.advance_ms(3000);
    fields(&mut peer, &[("rdb_bgsave_in_progress", "1"), ("rdb_current_bgsave_time_sec", "3")]);
    for line in ["BGSAVE", "BGSAVE SCHEDULE", "SAVE"] {
        assert_eq!(peer.run(line), error("ERR Background save already in progress"), "{line}");
    }
    // The other kind runs beside it.
    assert_eq!(peer.run("BGREWRITEAOF"), simple("Background append only file rewriting started"));
    assert_eq!(
        peer.run("BGREWRITEAOF"),
        error("ERR Background append only file rewriting already in progress")
    );
    saving.server.clock.advance_ms(4000);
    fields(&mut peer, &[("aof_rewrite_in_progress", "1"), ("aof_current_rewrite_time_sec", "4")]);
    saving.reach(1);
    fields(
        &mut peer,
        &[
            ("rdb_bgsave_in_progress", "0"),
            ("rdb_current_bgsave_time_sec", "-1"),
            ("rdb_last_bgsave_time_sec", "7"),
            ("rdb_last_bgsave_status", "ok"),
            ("rdb_last_save_time", &(START_S + 7).to_string()),
            ("rdb_saves", "1"),
            ("aof_rewrite_in_progress", "0"),
            ("aof_last_rewrite_time_sec", "4"),
            ("aof_last_bgrewrite_status", "ok"),
            ("aof_rewrites", "1"),
            ("archive_shelf", "yes"),
        ],
    );
    peer.run("SET k w");
    assert_eq!(peer.run("BGSAVE"), simple("Background saving started"));
}

#[test]
fn inside_exec_a_save_starts_at_the_end() {
    let saving = Saving::new();
    let mut peer = saving.server.connect();
    for line in ["MULTI", "BGSAVE", "BGSAVE", "BGREWRITEAOF", "SET k v"] {
        peer.run(line);
    }
    assert_eq!(
        peer.run("EXEC"),
        Frame::Array(vec![
            simple("Background saving scheduled"),
            simple("Background saving scheduled"),
            simple("Background append only file rewriting scheduled"),
            ok(),
        ])
    );
    assert_eq!(saving.requested(), 1, "with what the transaction wrote");
    fields(&mut peer, &[("rdb_bgsave_in_progress", "1"), ("aof_rewrite_in_progress", "1")]);
}

#[test]
fn an_archive_that_fails_ends_every_save() {
    let saving = Saving::new();
    let (mut peer, mut saver) = (saving.server.connect(), saving.server.connect());
    peer.run("SET k v");
    let blocked = saver.block("SAVE");
    peer.run("BGSAVE");
    peer.run("BGREWRITEAOF");
    saving.fail();
    assert_eq!(answer(blocked), error(GONE));
    for line in ["SAVE", "BGSAVE", "BGREWRITEAOF"] {
        assert_eq!(peer.run(line), error(GONE), "{line}");
    }
    assert_eq!(peer.run("LASTSAVE"), integer(START_S));
    fields(
        &mut peer,
        &[
            ("rdb_bgsave_in_progress", "0"),
            ("rdb_last_bgsave_status", "err"),
            ("aof_rewrite_in_progress", "0"),
            ("aof_last_bgrewrite_status", "err"),
            ("aof_rewrites", "0"),
        ],
    );
}

#[test]
fn a_log_that_fails_ends_saves_of_what_is_not_in_it() {
    let saving = Saving::new();
    let (mut peer, mut first) = (saving.server.connect(), saving.server.connect());
    first.run("SET k v");
    let early = first.block("SAVE");
    peer.run("SET k w");
    let late = peer.block("SAVE");
    saving.gate.sync(1);
    saving.gate.fail();
    saving.server.engine.run_committed();
    assert_eq!(answer(late), error("MISCONF broken"));
    saving.reach(1);
    assert_eq!(answer(early), ok());
}

#[test]
fn client_unblock_ends_the_wait_alone() {
    let saving = Saving::new();
    let (mut peer, mut saver) = (saving.server.connect(), saving.server.connect());
    saver.run("SET k v");
    let blocked = saver.block("SAVE");
    assert_eq!(peer.run(&format!("CLIENT UNBLOCK {}", saver.id())), integer(1));
    assert_eq!(answer(blocked), error("ERR the wait for the save was ended; the save goes on"));
    saving.reach(1);
}

#[test]
fn without_a_log_there_is_nowhere_to_save_to() {
    let server = Server::new();
    let mut peer = server.connect();
    peer.run("SET k v");
    for line in ["SAVE", "BGSAVE", "BGREWRITEAOF"] {
        let nowhere = "ERR there is no data folder to save to: the log is off; start with \
                       storage.aof_enabled = true";
        assert_eq!(peer.run(line), error(nowhere), "{line}");
    }
    assert_eq!(peer.run("LASTSAVE"), integer(START_S));
    fields(&mut peer, &[("rdb_changes_since_last_save", "1")]);
    assert!(!server.engine.saves_at_end());
}

#[test]
fn shutdown_saves_unless_it_is_told_not_to() {
    for (line, saves) in [("SHUTDOWN", true), ("SHUTDOWN SAVE", true), ("SHUTDOWN NOSAVE", false)] {
        let saving = Saving::new();
        let mut peer = saving.server.connect();
        assert!(matches!(peer.call(line), (_, Outcome::Close)), "{line}");
        assert_eq!(saving.server.engine.saves_at_end(), saves, "{line}");
    }
}

#[test]
fn the_last_checkpoint_has_everything() {
    let saving = Saving::new();
    let mut peer = saving.server.connect();
    peer.run("SET k v");
    peer.run("SET k w");
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut checkpoint = pin!(saving.server.engine.checkpoint());
        assert!(checkpoint.as_mut().poll(&mut context).is_pending());
        assert_eq!(saving.requested(), 2);
        saving.reach(1);
        assert!(checkpoint.as_mut().poll(&mut context).is_pending());
        saving.reach(2);
        assert_eq!(checkpoint.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    }
    peer.run("SET k x");
    let mut checkpoint = pin!(saving.server.engine.checkpoint());
    assert!(checkpoint.as_mut().poll(&mut context).is_pending());
    saving.fail();
    assert_eq!(checkpoint.as_mut().poll(&mut context), Poll::Ready(Err(command::Error::new(GONE))));
}

#[test]
fn a_backup_runs_beside_the_clients_one_at_a_time() {
    let saving = Saving::new();
    let (mut peer, mut other) = (saving.server.connect(), saving.server.connect());
    let blocked = peer.block("BACKUP TO /somewhere");
    assert_eq!(other.run("SET k v"), ok());
    let runs = "ERR a backup is being made; try again when it is done";
    assert_eq!(other.run("BACKUP to /elsewhere"), error(runs));
    saving.backups.send(Ok(7)).expect("it waits");
    let pairs = [
        ("revision", 7),
        ("oldest", 6),
        ("files", 3),
        ("bytes", 300),
        ("copied", 2),
        ("copied_bytes", 200),
        ("ms", 5),
    ];
    let expected = pairs.map(|(name, value)| (Frame::bulk(name), Frame::Integer(value)));
    let answer = blocked.answer.blocking_recv().expect("an answer comes");
    assert_eq!(answer.frame(), Frame::Map(expected.to_vec()));

    let blocked = other.block("BACKUP TO /somewhere");
    saving.backups.send(Err("the disk\nis full")).expect("it waits");
    let answer = blocked.answer.blocking_recv().expect("an answer comes");
    assert_eq!(answer.frame(), error("ERR /somewhere: the disk is full"));

    assert_eq!(other.run("BACKUP INTO /somewhere"), error("ERR syntax error"));
    other.run("MULTI");
    let inside = "ERR Command not allowed inside a transaction";
    assert_eq!(other.run("BACKUP TO /somewhere"), error(inside));
}

#[test]
fn without_a_log_there_is_nothing_to_back_up() {
    let server = Server::with(Gate::open());
    let reply = server.connect().run("BACKUP TO /somewhere");
    let Frame::Error(text) = reply else { panic!("{reply:?}") };
    assert!(text.starts_with("ERR there is no data folder to back up"), "{text}");
}
