//! Branches of the whole server: killed under load, with an archive that lags,
//! and brought back by an archive that has not reached where they begin.
//!
//! `KILL9_ROUNDS` sets how often the server is killed (default 4), `KILL9_SEED`
//! the choices.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Clock, Frame, Rng, SeededRng, SystemClock};
use testkit::{Server, temp_dir};

use crate::ALCID;
use crate::kill9::from_env;
use crate::run::wrapped;
use crate::wire::{Came, PATIENCE, Wire, eventually, text_of};

const CLIENTS: usize = 5;
const KEYS: u64 = 20;

/// Branches that a client has at most, besides main.
const BRANCHES_MAX: usize = 5;

/// Small segments and batches, so that a kill meets every moment of them.
const SMALL: &str = "ALCID_STORAGE_LOG_SEGMENT_SIZE=1mb ALCID_STORAGE_ARCHIVE_LAG=1mb exec";

/// A server whose archive moves only when somebody needs it.
const STILL: &str = "ALCID_STORAGE_ARCHIVE_IDLE=0 ALCID_STORAGE_ARCHIVE_INTERVAL=0 exec";

const ALWAYS: &[&str] = &["--aof-fsync", "always"];

type Keys = BTreeMap<String, String>;

/// What a client does. Nobody else touches its keys and its branches.
#[derive(Clone, Debug)]
enum Step {
    Set { branch: String, key: String, value: String },
    Delete { branch: String, key: String },
    Flush { branch: String },
    Create { name: String, from: String },
    Reset { name: String },
    Remove { name: String },
}

/// What a client's keys are on every branch that it may use.
#[derive(Clone, Debug, Default)]
struct Model {
    branches: BTreeMap<String, Keys>,
    parents: BTreeMap<String, String>,
}

impl Model {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Set { branch, key, value } => {
                self.of(branch).insert(key.clone(), value.clone());
            }
            Step::Delete { branch, key } => drop(self.of(branch).remove(key)),
            Step::Flush { branch } => self.of(branch).clear(),
            Step::Create { name, from } => {
                let copy = self.branches[from].clone();
                self.branches.insert(name.clone(), copy);
                self.parents.insert(name.clone(), from.clone());
            }
            Step::Reset { name } => {
                let copy = self.branches[&self.parents[name]].clone();
                self.branches.insert(name.clone(), copy);
            }
            Step::Remove { name } => {
                self.branches.remove(name);
                self.parents.remove(name);
            }
        }
    }

    fn of(&mut self, branch: &str) -> &mut Keys {
        self.branches.get_mut(branch).expect("it is there")
    }
}

/// A revision whose answer was seen.
struct Note {
    branch: String,
    revision: String,
    keys: Keys,
}

impl Note {
    /// Compares what the revision holds now, by key, and for its names if `all`.
    fn verify(&self, client: &str, wire: &mut Wire, all: bool) {
        let Note { branch, revision, keys } = self;
        let when = format!("r:{revision}");
        let names: Vec<String> = (0..KEYS).map(|number| format!("{client}:{number}")).collect();
        let mut words = vec!["AT", &when, "BRANCH", branch, "MGET"];
        words.extend(names.iter().map(String::as_str));
        let Frame::Array(found) = wire.call(&words) else { panic!("{words:?}") };
        for (name, found) in names.iter().zip(found) {
            let expected = keys.get(name).map_or("(nil)", String::as_str);
            assert_eq!(text_of(found), expected, "{name} at {revision} of {branch}");
        }
        if all {
            let words = ["AT", &when, "BRANCH", branch, "KEYS", &format!("{client}:*")];
            let Frame::Array(found) = wire.call(&words) else { panic!("{words:?}") };
            let found: BTreeSet<String> = found.into_iter().map(text_of).collect();
            assert_eq!(found, keys.keys().cloned().collect(), "{branch} at {revision}");
        }
    }
}

struct Client {
    name: String,
    rng: SeededRng,
    model: Model,
    /// Sent, and not known to be done.
    pending: Option<Step>,
    notes: Vec<Note>,
    made: u64,
}

impl Client {
    fn new(number: usize, seed: u64) -> Client {
        let main = BTreeMap::from([("main".to_owned(), Keys::new())]);
        Client {
            name: format!("c{number}"),
            rng: SeededRng::new(seed),
            model: Model { branches: main, parents: BTreeMap::new() },
            pending: None,
            notes: Vec::new(),
            made: 0,
        }
    }

    fn any_branch(&mut self) -> String {
        let all: Vec<&String> = self.model.branches.keys().collect();
        let chosen = self.rng.below(all.len() as u64) as usize;
        all[chosen].clone()
    }

    fn any_key(&mut self) -> String {
        format!("{}:{}", self.name, self.rng.below(KEYS))
    }

    fn next(&mut self) -> Step {
        let (branch, key) = (self.any_branch(), self.any_key());
        self.made += 1;
        let others = self.model.branches.len() - 1;
        match self.rng.below(100) {
            0..=5 if others < BRANCHES_MAX => {
                Step::Create { name: format!("{}/b{}", self.name, self.made), from: branch }
            }
            6..=7 if branch != "main" => Step::Remove { name: branch },
            8..=9 if self.model.branches.contains_key(self.parent(&branch)) => {
                Step::Reset { name: branch }
            }
            10 if branch != "main" => Step::Flush { branch },
            11..=30 => Step::Delete { branch, key },
            _ => {
                let value = format!("{}{}", self.made, "v".repeat(self.rng.below(3000) as usize));
                Step::Set { branch, key, value }
            }
        }
    }

    fn parent(&self, branch: &str) -> &str {
        self.model.parents.get(branch).map_or("", String::as_str)
    }

    /// Works until the server goes away.
    fn run(&mut self, addr: &str, count: &AtomicU64) {
        let Ok(wire) = Wire::try_connect(addr) else { return };
        let mut at = Place { wire, branch: "main".to_owned() };
        loop {
            let step = self.next();
            // What was noted of a branch is not its own past any more.
            if let Step::Remove { name } | Step::Reset { name } = &step {
                self.notes.retain(|note| note.branch != *name);
            }
            self.pending = Some(step.clone());
            if at.make(&step).is_none() {
                return;
            }
            self.model.apply(&step);
            self.pending = None;
            count.fetch_add(1, Ordering::Relaxed);
            let is_read = match self.rng.below(10) {
                0 => self.note(&mut at),
                1..=3 => self.read(&mut at),
                _ => Some(()),
            };
            if is_read.is_none() {
                return;
            }
        }
    }

    /// Reads a key on some branch.
    fn read(&mut self, at: &mut Place) -> Option<()> {
        let (branch, key) = (self.any_branch(), self.any_key());
        at.go(&branch)?;
        let expected = self.model.branches[&branch].get(&key).map_or("(nil)", String::as_str);
        assert_eq!(at.text(&["GET", &key])?, expected, "{branch} {key}");
        Some(())
    }

    /// Remembers what a branch holds now, by the newest revision.
    fn note(&mut self, at: &mut Place) -> Option<()> {
        let branch = self.any_branch();
        let revision = at.text(&["LASTREV"])?;
        // A connection that has changed nothing yet knows no revision.
        if revision == "(nil)" {
            return Some(());
        }
        let keys = self.model.branches[&branch].clone();
        self.notes.push(Note { branch, revision, keys });
        Some(())
    }

    /// Compares what the server has after a restart.
    fn verify(&mut self, addr: &str) {
        let mut at = Place { wire: Wire::connect(addr), branch: "main".to_owned() };
        let there = self.there(&mut at);
        if there != self.model.branches {
            let step = self.pending.take();
            let step = step.unwrap_or_else(|| panic!("{}: {there:?}\n{:?}", self.name, self.model));
            self.model.apply(&step);
            assert_eq!(there, self.model.branches, "{}, with {step:?}", self.name);
        }
        self.pending = None;
        for n in 0..self.notes.len().min(6) {
            let chosen = self.rng.below(self.notes.len() as u64) as usize;
            self.notes[chosen].verify(&self.name, &mut at.wire, n == 0);
        }
    }

    /// This client's branches and keys, as the server has them.
    fn there(&self, at: &mut Place) -> BTreeMap<String, Keys> {
        let mut names = vec!["main".to_owned()];
        let own = format!("{}/*", self.name);
        let Frame::Array(found) = at.wire.call(&["BRANCH", "LIST", "MATCH", &own]) else {
            panic!("BRANCH LIST")
        };
        names.extend(found.into_iter().map(text_of));
        let mut there = BTreeMap::new();
        for name in names {
            at.go(&name).expect("it serves");
            let counted = at.text(&["DBSIZE"]).expect("it serves");
            let Frame::Array(all) = at.wire.call(&["KEYS", "*"]) else { panic!("KEYS") };
            assert_eq!(all.len().to_string(), counted, "{name}");
            let prefix = format!("{}:", self.name);
            let keys = all.into_iter().map(text_of).filter(|key| key.starts_with(&prefix));
            let keys = keys.map(|key| (key.clone(), at.wire.text(&["GET", &key]))).collect();
            there.insert(name, keys);
        }
        there
    }
}

/// A connection on a branch.
struct Place {
    wire: Wire,
    branch: String,
}

impl Place {
    /// The answer's text; `None` when the server has gone away.
    fn text(&mut self, words: &[&str]) -> Option<String> {
        if !self.wire.send(words) {
            return None;
        }
        match self.wire.read(PATIENCE) {
            Came::Frame(Frame::Error(text)) => panic!("{words:?}: {text}"),
            Came::Frame(frame) => Some(text_of(frame)),
            Came::Closed => None,
            Came::Nothing => panic!("{words:?}: no reply"),
        }
    }

    fn go(&mut self, branch: &str) -> Option<()> {
        if self.branch != branch {
            self.text(&["BRANCH", "USE", branch])?;
            self.branch = branch.to_owned();
        }
        Some(())
    }

    fn make(&mut self, step: &Step) -> Option<()> {
        let reply = match step {
            Step::Set { branch, key, value } => {
                self.go(branch)?;
                self.text(&["SET", key, value])
            }
            Step::Delete { branch, key } => {
                self.go(branch)?;
                self.text(&["DEL", key])
            }
            Step::Flush { branch } => {
                self.go(branch)?;
                self.text(&["FLUSHDB"])
            }
            Step::Create { name, from } => self.text(&["BRANCH", "CREATE", name, "FROM", from]),
            Step::Reset { name } => self.text(&["BRANCH", "RESET", name, "TO", "PARENT"]),
            Step::Remove { name } => {
                if self.branch == *name {
                    self.go("main")?;
                }
                self.text(&["BRANCH", "DELETE", name, "FORCE"])
            }
        };
        reply.map(drop)
    }
}

#[test]
fn nothing_acknowledged_is_lost_on_any_branch() {
    let mut rng = SeededRng::new(from_env("KILL9_SEED", 1));
    let folder = temp_dir();
    let mut server = Server::start(wrapped(folder.path(), SMALL), ALWAYS);
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|number| Client::new(number, rng.next_u64())).collect();
    for _ in 0..from_env("KILL9_ROUNDS", 4) {
        let addr = server.addr();
        let count = Arc::new(AtomicU64::new(0));
        let target = 200 + rng.below(1200);
        let running: Vec<_> = clients
            .drain(..)
            .map(|mut client| {
                let (addr, count) = (addr.clone(), count.clone());
                std::thread::spawn(move || {
                    client.run(&addr, &count);
                    client
                })
            })
            .collect();
        eventually("the clients work", || {
            count.load(Ordering::Relaxed) >= target || running.iter().any(|run| run.is_finished())
        });
        server.kill();
        clients = running.into_iter().map(|run| run.join().expect("all is as it was")).collect();
        if rng.below(3) == 0 {
            // Killed while it recovers, or soon after.
            server.restart();
            server.kill();
        }
        server.restart();
        clients.iter_mut().for_each(|client| client.verify(&server.addr()));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("ours");
    for entry in fs::read_dir(from).expect("a folder") {
        let (path, kind) = entry.map(|it| (it.path(), it.file_type())).expect("readable");
        let target = to.join(path.file_name().expect("it has a name"));
        if kind.expect("readable").is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("ours");
        }
    }
}

/// Sets `key:0` and so on to a value, in one pipeline.
fn fill(wire: &mut Wire, count: usize, value: &str) {
    (0..count).for_each(|n| assert!(wire.send(&["SET", &format!("key:{n}"), value])));
    (0..count).for_each(|_| assert_eq!(text_of(wire.frame()), "OK"));
}

fn all_are(wire: &mut Wire, count: usize, value: &str) {
    (0..count).for_each(|n| assert!(wire.send(&["GET", &format!("key:{n}")])));
    (0..count).for_each(|n| assert_eq!(text_of(wire.frame()), value, "key:{n}"));
}

fn on(server: &Server, branch: &str) -> Wire {
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["BRANCH", "USE", branch]), "OK");
    wire
}

#[test]
fn an_archive_that_has_not_reached_a_fork_is_brought_there() {
    let folder = temp_dir();
    let mut server = Server::start(wrapped(folder.path(), STILL), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, 300, "old");
    assert_eq!(wire.text(&["SAVE"]), "OK");
    server.kill();
    // What the archive is before it has read a word of any branch.
    let (archive, aside) = (server.data_dir().join("archive"), folder.path().join("aside"));
    copy(&archive, &aside);
    server.restart();
    let mut wire = Wire::connect(server.addr());
    assert_eq!(wire.text(&["SET", "key:0", "newer"]), "OK");
    wire.call(&["BRANCH", "CREATE", "dev"]);
    let then = wire.text(&["LASTREV"]);
    fill(&mut wire, 200, "new");
    let mut dev = on(&server, "dev");
    assert_eq!(dev.text(&["SET", "key:1", "dev"]), "OK");
    assert_eq!(dev.text(&["DEL", "key:2"]), "1");
    dev.call(&["BRANCH", "CREATE", "dev/two"]);
    assert_eq!(dev.text(&["FLUSHALL"]), "OK");
    assert_eq!(wire.text(&["FLUSHALL"]), "OK");
    for is_again in [false, true] {
        server.kill();
        if !is_again {
            fs::remove_dir_all(&archive).expect("ours");
            copy(&aside, &archive);
        }
        server.restart();
        let mut wire = Wire::connect(server.addr());
        assert_eq!(wire.text(&["DBSIZE"]), "0");
        assert_eq!(on(&server, "dev").text(&["DBSIZE"]), "0");
        let mut two = on(&server, "dev/two");
        assert_eq!(two.text(&["DBSIZE"]), "299");
        let mget = |wire: &mut Wire, words: &[&str]| match wire.call(words) {
            Frame::Array(items) => items.into_iter().map(text_of).collect::<Vec<_>>().join(" "),
            other => panic!("{words:?}: {other:?}"),
        };
        let keys = ["MGET", "key:0", "key:1", "key:2", "key:3", "key:299"];
        assert_eq!(mget(&mut two, &keys), "newer dev (nil) old old");
        let when = format!("r:{then}");
        let at_fork = [&["AT", &when, "BRANCH", "dev"], &keys[..]].concat();
        assert_eq!(mget(&mut wire, &at_fork), "newer old old old old");
    }
}

#[test]
fn who_reads_what_the_archive_lacks_waits_for_it() {
    let folder = temp_dir();
    let server = Server::start(wrapped(folder.path(), STILL), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, 2000, "old");
    for round in 0..5 {
        let dev = format!("dev{round}");
        // The archive has much to read before it comes to the branch.
        for n in 0..3 {
            fill(&mut wire, 2000, &format!("{round}.{n}"));
        }
        let mut words: Vec<Vec<String>> = vec![
            ["BRANCH", "CREATE", &dev].map(str::to_owned).to_vec(),
            ["DEL", "key:0"].map(str::to_owned).to_vec(),
        ];
        words.extend((1..1000).map(|n| vec!["SET".into(), format!("key:{n}"), "later".into()]));
        words.push(["BRANCH", "USE", &dev].map(str::to_owned).to_vec());
        words.iter().for_each(|words| assert!(wire.send(words)));
        (0..2000).for_each(|n| assert!(wire.send(&["GET", &format!("key:{n}")])));
        words.iter().for_each(|_| drop(wire.frame()));
        for n in 0..2000 {
            assert_eq!(text_of(wire.frame()), format!("{round}.2"), "key:{n} of {dev}");
        }
        assert_eq!(wire.text(&["DBSIZE"]), "2000");
        assert_eq!(wire.text(&["BRANCH", "USE", "main"]), "OK");
        assert_eq!(wire.text(&["GET", "key:0"]), "(nil)");
    }
}

#[test]
fn a_branch_that_began_anew_is_not_what_it_was() {
    let folder = temp_dir();
    let server = Server::start(wrapped(folder.path(), STILL), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, 100, "old");
    wire.call(&["BRANCH", "CREATE", "dev"]);
    let mut dev = on(&server, "dev");
    for round in 0..20 {
        let (main, own) = (format!("main{round}"), format!("dev{round}"));
        fill(&mut dev, 100, &own);
        let before = dev.text(&["LASTREV"]);
        fill(&mut wire, 100, &main);
        assert_eq!(wire.text(&["BRANCH", "RESET", "dev", "TO", "PARENT"]), "OK");
        let after = wire.text(&["LASTREV"]);
        fill(&mut wire, 100, "later");
        // Before the archive has heard of it, as far as that is up to us.
        let at = |wire: &mut Wire, revision: &str, key: &str| {
            wire.text(&["AT", &format!("r:{revision}"), "BRANCH", "dev", "GET", key])
        };
        assert_eq!(at(&mut wire, &after, "key:7"), main);
        let from = format!("of{round}");
        wire.call(&["BRANCH", "CREATE", &from, "FROM", "dev", "AT", &format!("r:{after}")]);
        all_are(&mut on(&server, &from), 100, &main);
        all_are(&mut dev, 100, &main);
        // What it was before is on the line that it has no more: its parent's.
        assert_ne!(at(&mut wire, &before, "key:7"), own);
    }
}

/// Bytes of the archive's files.
fn archive_bytes(wire: &mut Wire) -> u64 {
    let text = wire.text(&["INFO", "persistence"]);
    let field = text.lines().find_map(|line| line.strip_prefix("archive_disk_bytes:"));
    field.expect("it is told").trim().parse().expect("a number")
}

#[test]
fn the_space_of_a_tag_comes_back_though_nobody_writes() {
    let server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    fill(&mut wire, 500, &"v".repeat(1000));
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let before = archive_bytes(&mut wire);
    assert!(matches!(wire.call(&["TAG", "CREATE", "then"]), Frame::Integer(_)));
    for value in ["w", "x", "y"] {
        fill(&mut wire, 500, &value.repeat(1000));
        assert_eq!(wire.text(&["SAVE"]), "OK");
    }
    assert!(matches!(wire.call(&["HISTORY.COMPACT"]), Frame::Integer(_)));
    eventually("but for what is tagged", || archive_bytes(&mut wire) < before * 5 / 2);
    assert!(archive_bytes(&mut wire) > before * 3 / 2, "it is still tagged");
    assert_eq!(wire.text(&["TAG", "DELETE", "then"]), "OK");
    assert!(matches!(wire.call(&["HISTORY.COMPACT"]), Frame::Integer(_)));
    eventually("all comes back", || archive_bytes(&mut wire) < before * 3 / 2);
}

#[test]
fn the_space_of_a_branch_comes_back() {
    let folder = temp_dir();
    let history = "ALCID_STORAGE_HISTORY_KEEP=0 exec";
    let server = Server::start(wrapped(folder.path(), history), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    let bytes = archive_bytes;
    let value = "v".repeat(1000);
    fill(&mut wire, 500, &value);
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let before = bytes(&mut wire);
    wire.call(&["BRANCH", "CREATE", "dev"]);
    fill(&mut on(&server, "dev"), 500, &"w".repeat(1000));
    fill(&mut wire, 500, &"x".repeat(1000));
    assert_eq!(wire.text(&["SAVE"]), "OK");
    let with_branch = bytes(&mut wire);
    assert!(with_branch > 2 * before, "{with_branch} bytes, {before} before");
    assert_eq!(wire.text(&["BRANCH", "DELETE", "dev", "NOUNDO"]), "OK");
    eventually("the space comes back", || {
        // Batches make room, so there must be some.
        assert_eq!(wire.text(&["SET", "key:0", "again"]), "OK");
        assert_eq!(wire.text(&["SAVE"]), "OK");
        bytes(&mut wire) < before * 3 / 2
    });
}

#[test]
fn a_branch_whose_time_ends_while_there_is_no_server_is_seen_by_nobody() {
    let folder = temp_dir();
    // The cycle that deletes branches while it serves comes a second later.
    let mut server = Server::start(wrapped(folder.path(), "ALCID_SERVER_HZ=1 exec"), ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for name in ["brief", "kept"] {
        let made = wire.call(&["BRANCH", "CREATE", name, "TTL", "300ms"]);
        assert!(matches!(made, Frame::Array(_)), "{made:?}");
    }
    // This one stays for as long as it is protected.
    assert_eq!(wire.text(&["BRANCH", "PROTECT", "kept", "NO-DELETE"]), "OK");
    let over_ms = SystemClock.now_ms() + 300;
    assert_eq!(server.terminate().code(), Some(0));
    eventually("its time is up", || SystemClock.now_ms() > over_ms);
    server.restart();
    let mut wire = Wire::connect(server.addr());
    let main = Frame::bulk("main");
    let list = Frame::Array(vec![Frame::bulk("kept"), main.clone()]);
    assert_eq!(wire.call(&["BRANCH", "LIST"]), list);
    assert_eq!(wire.text(&["CONFIG", "SET", "hz", "100"]), "OK");
    assert_eq!(wire.text(&["BRANCH", "PROTECT", "kept"]), "OK");
    let list = Frame::Array(vec![main]);
    eventually("nothing protects it", || wire.call(&["BRANCH", "LIST"]) == list);
}
