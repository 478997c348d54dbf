//! Merges while both branches are written to: what comes of one is what both
//! were when it was written.

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Clock, Frame, ManualClock, Rng, SeededRng};
use engine::Outcome;
use harness::forks::Forks;
use harness::{Peer, Server, ok};
use keyspace::Branches;
use parking_lot::Mutex;

const DEV: usize = 1;

/// Keys of one MSET: more than are left for when writers are held up.
const MANY: u64 = 150;

/// Turns of a run, each of which ends with a merge.
const TURNS: usize = 25;

/// A value as a model has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// Values by database and key, with deadlines.
    strings: BTreeMap<(u16, String), (String, Option<u64>)>,
    /// Counters that are only ever counted.
    counters: BTreeMap<String, i64>,
    members: BTreeSet<String>,
}

impl State {
    fn string(&self, key: &(u16, String), now_ms: u64) -> Option<(String, Option<u64>)> {
        let is_there = |(_, due): &&(String, Option<u64>)| due.is_none_or(|due| due > now_ms);
        self.strings.get(key).filter(is_there).cloned()
    }

    /// What is there after theirs was merged, by the rules of docs/MERGES.md.
    fn merged(&self, base: &State, theirs: &State, takes_theirs: bool, now_ms: u64) -> State {
        let mut merged = State::default();
        let places = [base, self, theirs].into_iter().flat_map(|state| state.strings.keys());
        for place in places {
            let [was, ours, is] = [base, self, theirs].map(|state| state.string(place, now_ms));
            let takes = is != was && ours != is && (ours == was || takes_theirs);
            if let Some(value) = if takes { is } else { ours } {
                merged.strings.insert(place.clone(), value);
            }
        }
        for key in self.counters.keys().chain(theirs.counters.keys()) {
            let [was, ours, is] = [base, self, theirs].map(|state| state.counter(key));
            merged.counters.insert(key.clone(), ours + is - was);
        }
        let all: BTreeSet<&String> = self.members.union(&theirs.members).collect();
        for member in all {
            let [was, ours, is] = [base, self, theirs].map(|state| state.members.contains(member));
            if if is == was { ours } else { is } {
                merged.members.insert(member.clone());
            }
        }
        merged
    }

    fn counter(&self, key: &str) -> i64 {
        self.counters.get(key).copied().unwrap_or(0)
    }
}

/// Who writes to both branches.
struct Writers {
    peers: [Peer; 2],
    has: [State; 2],
    rng: SeededRng,
    clock: Arc<ManualClock>,
    /// Whether they can write: a merge holds them up in the end.
    is_open: bool,
    written: usize,
}

impl Writers {
    /// Runs a line on a side; answers whether it was done.
    fn run(&mut self, side: usize, line: &str) -> bool {
        match self.peers[side].call(line) {
            (replies, Outcome::Done) => {
                let failed = replies.iter().any(|reply| matches!(reply, Frame::Error(_)));
                assert!(!failed, "{line}: {replies:?}");
                self.written += 1;
                true
            }
            (_, Outcome::Paused(_)) => {
                self.is_open = false;
                false
            }
            (replies, outcome) => panic!("{line}: {replies:?} {outcome:?}"),
        }
    }

    /// Does one thing that may happen at any time.
    fn happen(&mut self) {
        let (side, number) = (self.rng.below(2) as usize, self.rng.below(6));
        let value = self.rng.below(4).to_string();
        match self.rng.below(16) {
            0..=3 => self.set(side, 0, format!("k{number}"), value, None),
            4 => self.delete(side, format!("k{number}")),
            5..=7 => {
                let (key, amount) = (format!("n{number}"), self.rng.below(9) as i64 + 1);
                if self.run(side, &format!("INCRBY {key} {amount}")) {
                    *self.has[side].counters.entry(key).or_default() += amount;
                }
            }
            8 => {
                let member = format!("{side}-{number}-{value}");
                if self.run(side, &format!("SADD s {member}")) {
                    self.has[side].members.insert(member);
                }
            }
            9 => {
                let member = format!("{}-{number}-{value}", self.rng.below(2));
                if self.run(side, &format!("SREM s {member}")) {
                    self.has[side].members.remove(&member);
                }
            }
            10 | 11 => {
                let ms = 1 + self.rng.below(30);
                self.set(DEV, 0, format!("e{number}"), value, Some(ms));
            }
            12 => self.clock.advance_ms(1 + self.rng.below(10)),
            13 => self.set(side, 1, format!("f{number}"), value, None),
            14 => {
                // Everything has to be looked at again.
                if self.rng.below(4) == 0 && self.run(side, "SELECT 1") {
                    if self.run(side, "FLUSHDB") {
                        self.has[side].strings.retain(|(db, _), _| *db != 1);
                    }
                    self.run(side, "SELECT 0");
                }
            }
            _ => self.set_many(side, &value),
        }
    }

    fn set(&mut self, side: usize, db: u16, key: String, value: String, ms: Option<u64>) {
        let due = ms.map(|ms| self.clock.now_ms() + ms);
        let px = ms.map_or(String::new(), |ms| format!(" PX {ms}"));
        self.run(side, &format!("SELECT {db}"));
        if self.run(side, &format!("SET {key} {value}{px}")) {
            self.has[side].strings.insert((db, key), (value, due));
        }
        self.run(side, "SELECT 0");
    }

    fn delete(&mut self, side: usize, key: String) {
        if self.run(side, &format!("DEL {key}")) {
            self.has[side].strings.remove(&(0, key));
        }
    }

    fn set_many(&mut self, side: usize, value: &str) {
        let words: Vec<String> = (0..MANY).map(|at| format!("m{at} {value}")).collect();
        if self.run(side, &format!("MSET {}", words.join(" "))) {
            let set = (0..MANY).map(|at| ((0, format!("m{at}")), (value.to_owned(), None)));
            self.has[side].strings.extend(set);
        }
    }

    /// What a branch has.
    fn read(&mut self, side: usize) -> State {
        let (peer, mut state) = (&mut self.peers[side], State::default());
        for db in 0..2 {
            peer.run(&format!("SELECT {db}"));
            for key in texts(peer.run("KEYS *")) {
                let due = match peer.run(&format!("PEXPIRETIME {key}")) {
                    Frame::Integer(due) if due > 0 => Some(due.cast_unsigned()),
                    // It was due, and KEYS had not looked.
                    Frame::Integer(-2) => continue,
                    _ => None,
                };
                if key == "s" {
                    state.members.extend(texts(peer.run("SMEMBERS s")));
                    continue;
                }
                let value = texts(Frame::Array(vec![peer.run(&format!("GET {key}"))])).remove(0);
                if key.starts_with('n') {
                    state.counters.insert(key, value.parse().expect("it is a number"));
                } else {
                    state.strings.insert((db, key), (value, due));
                }
            }
        }
        peer.run("SELECT 0");
        state
    }
}

fn texts(frame: Frame) -> Vec<String> {
    let (Frame::Array(items) | Frame::Set(items)) = frame else { panic!("{frame:?}") };
    let text = |item| match item {
        Frame::Bulk(bytes) => String::from_utf8(bytes.to_vec()).expect("it is text"),
        other => panic!("{other:?}"),
    };
    items.into_iter().map(text).collect()
}

/// Merges in both directions while others write at every step of it; answers how
/// much they wrote in the midst of one.
fn run(seed: u64) -> usize {
    let (server, past) = Server::with_past();
    let forks = Forks { past: Some(past.clone()), ..Forks::default() };
    server.engine.attach_branches(Arc::new(forks), Branches::default(), Vec::new());
    let mut merger = server.connect();
    merger.run("BRANCH CREATE dev");
    let mut peers = [server.connect(), server.connect()];
    assert_eq!(peers[DEV].run("BRANCH USE dev"), ok());
    let mut has = [State::default(), State::default()];
    for (peer, has) in peers.iter_mut().zip(&mut has) {
        peer.run("SADD s x");
        has.members.insert("x".to_owned());
    }
    let (rng, clock) = (SeededRng::new(seed), server.clock.clone());
    let writers = Writers { peers, has, rng, clock, is_open: true, written: 0 };
    let writers = Arc::new(Mutex::new(writers));
    let (mut base, mut beside) = (State::default(), 0);
    for turn in 0..TURNS {
        let (from, into, policy) = {
            let mut writers = writers.lock();
            writers.is_open = true;
            (0..5).for_each(|_| writers.happen());
            let from = writers.rng.below(2) as usize;
            (from, 1 - from, writers.rng.below(2) == 0)
        };
        let names = ["main", "dev"];
        let word = if policy { "THEIRS" } else { "OURS" };
        let line = format!("BRANCH MERGE {} INTO {} ON CONFLICT {word}", names[from], names[into]);
        let others = writers.clone();
        let before = others.lock().written;
        *past.before_newest.lock() = Some(Box::new(move || {
            let mut writers = others.lock();
            // Held up, they have to be until the merge is written.
            for _ in 0..2 {
                if writers.is_open && writers.rng.below(3) == 0 {
                    writers.happen();
                }
            }
            // Time goes on meanwhile.
            if !writers.is_open && writers.rng.below(3) == 0 {
                writers.clock.advance_ms(3);
            }
        }));
        let merged = merger.run(&line);
        *past.before_newest.lock() = None;
        assert!(!matches!(merged, Frame::Error(_)), "seed {seed} turn {turn}: {merged:?}");
        let mut writers = writers.lock();
        beside += writers.written - before;
        let (now_ms, has) = (server.clock.now_ms(), &writers.has);
        let theirs = has[from].clone();
        let expected = has[into].merged(&base, &theirs, policy, now_ms);
        let found = writers.read(into);
        let there = |state: &State| {
            let keys = state.strings.keys().map(|key| (key.clone(), state.string(key, now_ms)));
            let strings: BTreeMap<_, _> = keys.filter(|(_, value)| value.is_some()).collect();
            (strings, state.counters.clone(), state.members.clone())
        };
        assert_eq!(there(&found), there(&expected), "seed {seed} turn {turn}: {line}");
        writers.has[into] = expected;
        base = theirs;
    }
    beside
}

#[test]
fn what_is_written_beside_a_merge_is_in_it_or_comes_after_it() {
    for seed in 0..40 {
        let beside = run(seed);
        assert!(beside > 20, "seed {seed}: {beside}");
    }
}

#[test]
fn a_merge_with_a_branch_that_goes_or_begins_anew_meanwhile_does_nothing() {
    const LINES: [&str; 2] = ["BRANCH DELETE dev FORCE NOUNDO", "BRANCH RESET dev TO PARENT"];
    for line in LINES {
        // Before it looks, before it compares, and after that.
        for after in 0..3 {
            let (server, past) = Server::with_past();
            let forks = Forks { past: Some(past.clone()), ..Forks::default() };
            server.engine.attach_branches(Arc::new(forks), Branches::default(), Vec::new());
            let (mut main, mut dev, other) =
                (server.connect(), server.connect(), Mutex::new(server.connect()));
            main.run("BRANCH CREATE dev");
            dev.run("BRANCH USE dev");
            dev.run("SET k dev");
            main.run("SET own main");
            let (mut calls, merger) = (0, std::thread::current().id());
            *past.before_newest.lock() = Some(Box::new(move || {
                assert_eq!(std::thread::current().id(), merger);
                if calls == after {
                    assert_eq!(other.lock().run(line), ok());
                }
                calls += 1;
            }));
            let merged = main.run("BRANCH MERGE dev");
            *past.before_newest.lock() = None;
            let Frame::Error(text) = merged else { panic!("{line} {after}: {merged:?}") };
            assert!(["TRYAGAIN", "NOBRANCH"].contains(&&text[..8]), "{line} {after}: {text}");
            assert_eq!(main.run("EXISTS k own"), Frame::Integer(1), "{line} {after}");
        }
    }
}
