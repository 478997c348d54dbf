//! Random trees of branches that merge in all directions, over restarts.

use std::collections::{BTreeMap, BTreeSet};

use base::{Frame, Rng, SeededRng};
use testkit::Server;

use crate::ALCID;
use crate::wire::Wire;

const STEPS: usize = 150;

/// Steps of a run that ends with a signal, and with the process gone.
const RESTARTS: [usize; 2] = [STEPS / 3, STEPS * 2 / 3];

/// Increments of a run: each a power of two, so that a sum tells which are in
/// it, and that none is in it twice.
const INCREMENTS: usize = 60;

/// A counter, a hash with one, and a set of the amounts.
const KEYS: [&str; 3] = ["k", "h", "s"];

/// Of each of these keys the increments that are in it.
type Has = [BTreeSet<usize>; 3];

/// A branch, and what is in its keys.
struct Branch {
    name: String,
    parent: String,
    has: Has,
    /// What was there from a revision on.
    had: Vec<(u64, Has)>,
}

impl Branch {
    fn new(name: &str, parent: &str, has: &Has) -> Branch {
        let (name, parent) = (name.to_owned(), parent.to_owned());
        Branch { name, parent, has: has.clone(), had: Vec::new() }
    }

    /// Remembers what it has, which the last command of a connection wrote.
    fn remember(&mut self, wire: &mut Wire) {
        // A merge that took nothing wrote nothing either.
        if let Frame::Integer(revision) = wire.call(&["LASTREV"]) {
            self.had.push((revision.cast_unsigned(), self.has.clone()));
        }
    }
}

/// What happens to branches beside increments and merges.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    /// They are made from what others have.
    Plain,
    /// They are also made from what others had, deleted, made anew and renamed,
    /// and the history is let go of.
    Wild,
}

/// Does something to a branch, or to what is known of all.
fn live_on(wire: &mut Wire, rng: &mut SeededRng, branches: &mut Vec<Branch>, at: usize) {
    let name = branches[at].name.clone();
    match rng.below(6) {
        0 | 1 if !branches[at].had.is_empty() => {
            let had = &branches[at].had;
            let (revision, has) = had[rng.below(had.len() as u64) as usize].clone();
            let made = format!("then{revision}-{}", rng.next_u64());
            let when = format!("r:{revision}");
            let reply = wire.call(&["BRANCH", "CREATE", &made, "FROM", &name, "AT", &when]);
            assert!(!matches!(reply, Frame::Error(_)), "{reply:?}");
            branches.push(Branch::new(&made, &name, &has));
        }
        2 if at > 0 => {
            assert_eq!(wire.text(&["BRANCH", "DELETE", &name, "FORCE"]), "OK");
            branches.remove(at);
        }
        3 if at > 0 => {
            let parent = branches.iter().find(|it| it.name == branches[at].parent);
            let Some(parent) = parent.map(|parent| parent.has.clone()) else { return };
            let reply = wire.text(&["BRANCH", "RESET", &name, "TO", "PARENT"]);
            if reply == "OK" {
                (branches[at].has, branches[at].had) = (parent, Vec::new());
            } else {
                assert!(reply.starts_with("BRANCHBUSY"), "{reply}");
            }
        }
        4 if at > 0 => {
            let renamed = format!("named{}", rng.next_u64());
            assert_eq!(wire.text(&["BRANCH", "RENAME", &name, &renamed]), "OK");
            for branch in branches.iter_mut().filter(|it| it.parent == name) {
                branch.parent.clone_from(&renamed);
            }
            branches[at].name = renamed;
        }
        5 => {
            // Up to what the archive has, which is everything then.
            assert_eq!(wire.text(&["SAVE"]), "OK");
            let reply = wire.call(&["HISTORY.COMPACT"]);
            assert!(!matches!(reply, Frame::Error(_)), "{reply:?}");
            branches.iter_mut().for_each(|branch| branch.had.clear());
        }
        _ => {}
    }
}

fn run(seed: u64, branches_max: usize, life: Life) -> (usize, usize) {
    let rng = &mut SeededRng::new(seed);
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut wire = Wire::connect(server.addr());
    let mut branches = vec![Branch::new("main", "", &Has::default())];
    let (mut increments, mut merges, mut conflicts, mut made) = (0, 0, 0, 0);
    for step in 0..STEPS {
        if RESTARTS.contains(&step) {
            if step == RESTARTS[0] {
                server.terminate();
            } else {
                server.kill();
            }
            server.restart();
            wire = Wire::connect(server.addr());
        }
        let at = rng.below(branches.len() as u64) as usize;
        let name = branches[at].name.clone();
        match rng.below(10) {
            0 if branches.len() < branches_max => {
                made += 1;
                let made = format!("b{made}");
                wire.call(&["BRANCH", "CREATE", &made, "FROM", &name]);
                let branch = Branch::new(&made, &name, &branches[at].has);
                branches.push(branch);
            }
            6 if life == Life::Wild => live_on(&mut wire, rng, &mut branches, at),
            1..=5 if increments < INCREMENTS => {
                let amount = (1u64 << increments).to_string();
                wire.call(&["BRANCH", "USE", &name]);
                wire.call(&["INCRBY", "k", &amount]);
                wire.call(&["HINCRBY", "h", "f", &amount]);
                wire.call(&["SADD", "s", &amount]);
                branches[at].has.iter_mut().for_each(|has| _ = has.insert(increments));
                branches[at].remember(&mut wire);
                increments += 1;
            }
            _ if branches.len() > 1 => {
                let from =
                    (at + 1 + rng.below(branches.len() as u64 - 1) as usize) % branches.len();
                let source = branches[from].name.clone();
                let mut words = vec!["BRANCH", "MERGE", &source, "INTO", &name];
                // One key alone, now and then.
                let only = (rng.below(3) == 0).then(|| rng.below(3) as usize);
                only.iter().for_each(|&only| words.extend(["MATCH", KEYS[only]]));
                match wire.call(&words) {
                    Frame::Error(text) => {
                        let is_apart = life == Life::Wild && text.starts_with("NOBRANCH");
                        assert!(
                            is_apart || text.starts_with("MERGECONFLICT"),
                            "seed {seed}: {text}"
                        );
                        conflicts += 1;
                    }
                    _ => {
                        let more = branches[from].has.clone();
                        for (key, more) in more.into_iter().enumerate() {
                            if only.is_none_or(|only| only == key) {
                                branches[at].has[key].extend(more);
                            }
                        }
                        branches[at].remember(&mut wire);
                        merges += 1;
                    }
                }
            }
            _ => {}
        }
        branches.iter().for_each(|branch| check(&mut wire, branch, seed, step));
    }
    (merges, conflicts)
}

fn check(wire: &mut Wire, branch: &Branch, seed: u64, step: usize) {
    let [k, h, s] = &branch.has;
    let sum = |has: &BTreeSet<usize>| match has.len() {
        0 => Frame::Null,
        _ => Frame::bulk(has.iter().map(|&at| 1u64 << at).sum::<u64>().to_string()),
    };
    let place = format!("seed {seed}, step {step}, branch {}", branch.name);
    wire.call(&["BRANCH", "USE", &branch.name]);
    assert_eq!(wire.call(&["GET", "k"]), sum(k), "{place}");
    assert_eq!(wire.call(&["HGET", "h", "f"]), sum(h), "{place}");
    assert_eq!(wire.call(&["SCARD", "s"]), Frame::Integer(s.len() as i64), "{place}");
}

#[test]
fn two_branches_that_merge_in_both_directions_never_conflict() {
    for seed in 0..2 {
        let (merges, conflicts) = run(seed, 2, Life::Plain);
        assert_eq!(conflicts, 0, "seed {seed}");
        assert!(merges > 10, "seed {seed}: {merges} merges");
    }
}

#[test]
fn no_increment_is_lost_or_counted_twice_in_a_tree_of_branches() {
    let merges: usize = (10..16).map(|seed| run(seed, 6, Life::Plain).0).sum();
    assert!(merges > 40, "{merges} merges");
}

#[test]
fn nor_where_branches_go_begin_anew_and_begin_in_the_past() {
    let merges: usize = (20..28).map(|seed| run(seed, 6, Life::Wild).0).sum();
    assert!(merges > 40, "{merges} merges");
}

/// A server, and a connection to each of these branches, all made from main but
/// for the last, which is made from the one before it.
fn branches<const N: usize>(names: [&str; N]) -> (Server, [Wire; N]) {
    let server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut main = Wire::connect(server.addr());
    for (at, name) in names.iter().enumerate().skip(1) {
        let parent = if at + 1 == N && N > 2 { names[at - 1] } else { "main" };
        main.call(&["BRANCH", "CREATE", name, "FROM", parent]);
    }
    let wires = on(&server, names);
    (server, wires)
}

/// A connection to each of these branches.
fn on<const N: usize>(server: &Server, names: [&str; N]) -> [Wire; N] {
    names.map(|name| {
        let mut wire = Wire::connect(server.addr());
        assert_eq!(wire.text(&["BRANCH", "USE", name]), "OK");
        wire
    })
}

/// Merges and answers the number of this name.
fn merge(wire: &mut Wire, words: &[&str], name: &str) -> Frame {
    let reply = wire.call(&[&["BRANCH", "MERGE"], words].concat());
    let Frame::Array(map) = &reply else { panic!("{words:?}: {reply:?}") };
    let at = map.iter().position(|it| *it == Frame::bulk(name)).expect("the map has it");
    map[at + 1].clone()
}

#[test]
fn what_follows_a_rest_of_the_log_is_merged() {
    let (mut server, [_, mut dev]) = branches(["main", "dev"]);
    assert_eq!(dev.text(&["SET", "before", "1"]), "OK");
    // The log marks where it ended, between two records of one branch.
    server.terminate();
    server.restart();
    let [mut main, mut dev] = on(&server, ["main", "dev"]);
    assert_eq!(dev.text(&["SET", "after", "1"]), "OK");
    let summary = main.call(&["BRANCH", "DIFF", "main", "dev", "SUMMARY"]);
    let Frame::Array(counts) = &summary else { panic!("{summary:?}") };
    assert_eq!(counts[1], Frame::Integer(2), "{summary:?}");
    assert_eq!(merge(&mut main, &["dev"], "added"), Frame::Integer(2));
    assert_eq!(main.text(&["GET", "after"]), "1");
}

#[test]
fn what_was_taken_over_counts_on_both_sides() {
    for first in [["SET", "k", "10"].as_slice(), &["DEL", "k"]] {
        for (into, from) in [("dev", "main"), ("main", "dev")] {
            let (server, [mut main, mut dev]) = branches(["main", "dev"]);
            assert_eq!(main.text(&["SET", "k", "1"]), "OK");
            merge(&mut main, &["main", "INTO", "dev"], "rev");
            let [mut source] = on(&server, [from]);
            source.call(first);
            merge(&mut main, &[from, "INTO", into], "rev");
            let taken: i64 = source.text(&["GET", "k"]).parse().unwrap_or(0);
            main.call(&["INCR", "k"]);
            dev.call(&["INCR", "k"]);
            let merged = merge(&mut main, &["dev", "INTO", "main"], "merged");
            assert_eq!(merged, Frame::Integer(1), "{first:?} {from} into {into}");
            assert_eq!(main.text(&["GET", "k"]), (taken + 2).to_string());
            // And back: dev has all of it but main's one.
            merge(&mut main, &["main", "INTO", "dev"], "rev");
            assert_eq!(dev.text(&["GET", "k"]), (taken + 2).to_string());
        }
    }
}

#[test]
fn what_both_had_done_alike_is_remembered() {
    let (_server, [mut main, mut dev]) = branches(["main", "dev"]);
    main.call(&["SET", "r", "1"]);
    main.call(&["SET", "k", "0"]);
    merge(&mut main, &["main", "INTO", "dev"], "rev");
    for wire in [&mut main, &mut dev] {
        wire.call(&["DEL", "r"]);
        wire.call(&["SET", "k", "5"]);
    }
    assert_eq!(merge(&mut main, &["dev"], "merged"), Frame::Integer(0));
    // There is nothing to remember now.
    assert_eq!(merge(&mut main, &["dev"], "rev"), Frame::Null);
    main.call(&["SET", "r", "1"]);
    main.call(&["SET", "k", "6"]);
    assert_eq!(merge(&mut dev, &["main"], "merged"), Frame::Integer(2));
    assert_eq!(merge(&mut main, &["dev"], "merged"), Frame::Integer(0));
    assert_eq!((main.text(&["GET", "r"]), dev.text(&["GET", "r"])), ("1".into(), "1".into()));
    assert_eq!((main.text(&["GET", "k"]), dev.text(&["GET", "k"])), ("6".into(), "6".into()));
}

#[test]
fn what_a_third_branch_had_and_lost_goes() {
    let (_server, [mut main, mut dev, mut feat]) = branches(["main", "dev", "feat"]);
    feat.call(&["SET", "s", "3"]);
    feat.call(&["SET", "n", "1"]);
    merge(&mut main, &["feat"], "rev");
    main.call(&["DEL", "s"]);
    main.call(&["SET", "other", "1"]);
    main.call(&["INCR", "n"]);
    // dev never had s, and has taken over that it is gone.
    merge(&mut dev, &["main"], "rev");
    dev.call(&["INCR", "n"]);
    feat.call(&["INCR", "n"]);
    assert_eq!(merge(&mut feat, &["dev"], "removed"), Frame::Integer(1));
    assert_eq!(feat.call(&["EXISTS", "s"]), Frame::Integer(0));
    assert_eq!(feat.text(&["GET", "n"]), "4", "what three have counted");
}

#[test]
fn what_was_due_when_they_parted_or_is_by_now_is_in_nobody_s_way() {
    let (_server, [mut main, mut dev]) = branches(["main", "dev"]);
    main.call(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    main.call(&["SET", "k", "1", "PX", "1"]);
    main.call(&["SET", "soon", "1", "PX", "50"]);
    merge(&mut main, &["main", "INTO", "dev"], "rev");
    crate::wire::eventually("both are gone", || {
        main.call(&["EXISTS", "k", "soon"]) == Frame::Integer(0)
    });
    main.call(&["SET", "k", "2"]);
    main.call(&["SET", "soon", "2"]);
    assert_eq!(merge(&mut dev, &["main"], "added"), Frame::Integer(2));
    assert_eq!(dev.text(&["GET", "k"]), "2");
    assert_eq!(dev.text(&["GET", "soon"]), "2");
}

#[test]
fn an_emptied_database_is_no_count() {
    let (_server, [mut main, mut dev]) = branches(["main", "dev"]);
    main.call(&["SET", "k", "10"]);
    merge(&mut main, &["main", "INTO", "dev"], "rev");
    dev.call(&["FLUSHDB"]);
    dev.call(&["INCR", "k"]);
    main.call(&["INCR", "k"]);
    let refusal = main.text(&["BRANCH", "MERGE", "dev"]);
    assert!(refusal.starts_with("MERGECONFLICT 1 key"), "{refusal}");
    assert_eq!(main.text(&["GET", "k"]), "11");
}

#[test]
fn what_was_made_and_taken_back_is_merged_as_such() {
    let (_server, [mut main, mut a, mut b]) = branches(["main", "a", "b"]);
    main.call(&["SET", "s", "2"]);
    merge(&mut a, &["main"], "rev");
    main.call(&["DEL", "s"]);
    merge(&mut b, &["main"], "rev");
    // b has what a has, and that it is gone.
    merge(&mut b, &["a"], "rev");
    assert_eq!(b.call(&["EXISTS", "s"]), Frame::Integer(0));
    // And who keeps what is his, however often both took from a third.
    main.call(&["SET", "p", "4"]);
    a.call(&["SET", "p", "0"]);
    let theirs = ["ON", "CONFLICT", "THEIRS"];
    merge(&mut b, &["main"], "rev");
    merge(&mut b, &[&["a"], &theirs[..]].concat(), "rev");
    merge(&mut main, &["a", "ON", "CONFLICT", "OURS"], "rev");
    merge(&mut main, &[&["b"], &theirs[..]].concat(), "rev");
    assert_eq!((main.text(&["GET", "p"]), b.text(&["GET", "p"])), ("4".into(), "0".into()));
    merge(&mut b, &["main"], "rev");
    assert_eq!(b.text(&["GET", "p"]), "4");
}

#[test]
fn what_was_decided_of_large_collections_is_known_after_a_restart() {
    let (mut server, [mut main, mut dev]) = branches(["main", "dev"]);
    let names: Vec<String> = (0..600).map(|number| format!("n{number}")).collect();
    let all = |words: [&'static str; 2]| -> Vec<&str> {
        words.into_iter().chain(names.iter().map(String::as_str)).collect()
    };
    main.call(&all(["HSET", "hash"]));
    main.call(&all(["SADD", "set"]));
    main.call(&["SET", "other", "1"]);
    merge(&mut main, &["main", "INTO", "dev"], "rev");
    main.call(&["HSET", "hash", "n0", "new"]);
    main.call(&["SADD", "set", "new"]);
    main.call(&["SET", "other", "2"]);
    dev.call(&["DEL", "hash", "set", "other"]);
    let refusal = main.text(&["BRANCH", "MERGE", "dev", "ON", "CONFLICT", "MANUAL"]);
    let waiting = refusal.split_whitespace().last().expect("it has a number").to_owned();
    for (key, left) in [("hash", 2), ("set", 1)] {
        assert_eq!(main.call(&["BRANCH", "RESOLVE", &waiting, key, "OURS"]), Frame::Integer(left));
    }
    server.kill();
    server.restart();
    let [mut main] = on(&server, ["main"]);
    // The last that is left ends the merge.
    let last = main.call(&["BRANCH", "RESOLVE", &waiting, "other", "THEIRS"]);
    assert_eq!(last, Frame::Integer(0));
    let left = main.call(&["EXISTS", "hash", "set", "other"]);
    assert_eq!(left, Frame::Integer(2));
}

/// What a branch contains: of each branch the newest of its states.
type Contains = BTreeMap<usize, u64>;

type Keys = BTreeMap<&'static str, u64>;

/// Branches by the rule of docs/MERGES.md: a merge starts from the newest state
/// that both contain and that contains all others which both do.
#[derive(Default)]
struct Model {
    keys: Vec<Keys>,
    contains: Vec<Contains>,
    /// What a branch had, and contained, at a time.
    states: BTreeMap<(usize, u64), (Keys, Contains)>,
    time: u64,
}

impl Model {
    /// Remembers what a branch has now.
    fn keep(&mut self, branch: usize) -> u64 {
        self.time += 1;
        let state = (self.keys[branch].clone(), self.contains[branch].clone());
        self.states.insert((branch, self.time), state);
        self.time
    }

    fn fork(&mut self, parent: usize) {
        let at = self.keep(parent);
        self.keys.push(self.keys[parent].clone());
        let mut contains = self.contains[parent].clone();
        contains.insert(parent, at);
        self.contains.push(contains);
    }

    /// The state that a merge starts from, if there is one that contains all others.
    fn base(&self, a: usize, b: usize) -> Option<Keys> {
        let all = |branch: usize| {
            let mut all = self.contains[branch].clone();
            all.insert(branch, u64::MAX);
            all
        };
        let (of_a, of_b) = (all(a), all(b));
        let both: Contains = of_a
            .iter()
            .filter_map(|(branch, at)| Some((*branch, *at.min(of_b.get(branch)?))))
            .collect();
        let contains = |state: (usize, u64), (branch, at): (usize, u64)| {
            let of_state = &self.states[&state].1;
            state.0 == branch && state.1 >= at || of_state.get(&branch).is_some_and(|it| *it >= at)
        };
        let pairs = || both.iter().map(|(branch, at)| (*branch, *at));
        let top = pairs().find(|state| pairs().all(|other| contains(*state, other)))?;
        Some(self.states[&top].0.clone())
    }

    /// Merges, keeping ours in conflicts or taking theirs. Answers whether the
    /// rule says what comes out.
    fn merge(&mut self, from: usize, into: usize, takes_theirs: bool) -> bool {
        let base = self.base(into, from);
        let at = self.keep(from);
        let mut contains = self.contains[from].clone();
        contains.insert(from, at);
        for (branch, at) in contains {
            let known = self.contains[into].entry(branch).or_insert(at);
            *known = (*known).max(at);
        }
        let Some(base) = base else { return false };
        for key in ["p", "q", "r", "s"] {
            let [was, ours, theirs] =
                [&base, &self.keys[into], &self.keys[from]].map(|keys| keys.get(key).copied());
            if theirs != was && (ours == was || takes_theirs) {
                match theirs {
                    Some(value) => _ = self.keys[into].insert(key, value),
                    None => _ = self.keys[into].remove(key),
                }
            }
        }
        true
    }
}

/// All keys of a branch.
fn keys_of(wire: &mut Wire) -> Keys {
    let Frame::Array(values) = wire.call(&["MGET", "p", "q", "r", "s"]) else { panic!("values") };
    let value = |frame: &Frame| match frame {
        Frame::Bulk(digits) => String::from_utf8_lossy(digits).parse().ok(),
        _ => None,
    };
    ["p", "q", "r", "s"]
        .into_iter()
        .zip(&values)
        .filter_map(|(key, it)| Some((key, value(it)?)))
        .collect()
}

#[test]
fn three_branches_merge_by_the_rule_in_all_directions() {
    let server = Server::start(ALCID, &[]);
    let mut wire = Wire::connect(server.addr());
    for seed in 0..60 {
        let mut rng = SeededRng::new(seed);
        let names = [0, 1, 2].map(|number| format!("{seed}-{number}"));
        let mut model =
            Model { keys: vec![Keys::new()], contains: vec![Contains::new()], ..Model::default() };
        let parents = [0, 0, rng.below(2) as usize];
        wire.call(&["BRANCH", "CREATE", &names[0], "FROM", "main"]);
        let mut wires = vec![on(&server, [&*names[0]]).into_iter().next().expect("one")];
        let mut steps = vec![];
        for _ in 0..30 {
            // The second and the third begin on the way.
            if wires.len() < 3 && rng.below(6) == 0 {
                let parent = parents[wires.len()];
                wire.call(&["BRANCH", "CREATE", &names[wires.len()], "FROM", &names[parent]]);
                model.fork(parent);
                wires.extend(on(&server, [&*names[wires.len()]]));
                steps.push(format!("fork {parent}"));
            }
            let at = rng.below(wires.len() as u64) as usize;
            let key = ["p", "q", "r", "s"][rng.below(4) as usize];
            match rng.below(5) {
                0 | 1 => {
                    let value = rng.below(5);
                    wires[at].call(&["SET", key, &value.to_string()]);
                    model.keys[at].insert(key, value);
                    steps.push(format!("{at}: set {key} {value}"));
                }
                2 => {
                    wires[at].call(&["DEL", key]);
                    model.keys[at].remove(key);
                    steps.push(format!("{at}: del {key}"));
                }
                _ if wires.len() > 1 => {
                    let from = (at + 1 + rng.below(wires.len() as u64 - 1) as usize) % wires.len();
                    let takes_theirs = rng.below(2) == 0;
                    let policy = if takes_theirs { "THEIRS" } else { "OURS" };
                    let words = ["BRANCH", "MERGE", &names[from], "ON", "CONFLICT", policy];
                    let reply = wires[at].call(&words);
                    assert!(matches!(reply, Frame::Array(_)), "{reply:?}");
                    steps.push(format!("merge {from} into {at}, {policy}"));
                    if !model.merge(from, at, takes_theirs) {
                        // The rule does not say which.
                        model.keys[at] = keys_of(&mut wires[at]);
                    }
                    assert_eq!(keys_of(&mut wires[at]), model.keys[at], "seed {seed}: {steps:#?}");
                }
                _ => {}
            }
        }
    }
}

/// Changes keys of both branches at random; 30 names, so that many are changed
/// on both.
fn scatter(wires: &mut [Wire; 2], rng: &mut SeededRng, changes: usize) {
    for _ in 0..changes {
        let wire = &mut wires[rng.below(2) as usize];
        let (key, value) = (format!("k{}", rng.below(30)), rng.below(4).to_string());
        match rng.below(8) {
            0 => _ = wire.call(&["DEL", &key]),
            1 => _ = wire.call(&["SET", &key, &value, "PXAT", "9000000000000"]),
            _ => _ = wire.call(&["SET", &key, &value]),
        }
    }
}

/// The keys that wait for a decision.
fn waiting(wire: &mut Wire, id: &str) -> BTreeSet<String> {
    let reply = wire.call(&["BRANCH", "CONFLICTS", id]);
    let Frame::Array(rows) = &reply else { panic!("{reply:?}") };
    let key = |row: &Frame| match row {
        Frame::Array(row) => match &row[0] {
            Frame::Bulk(key) => String::from_utf8(key.to_vec()).expect("it is text"),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    rows.iter().map(key).collect()
}

#[test]
fn decisions_count_what_is_left_while_both_sides_are_written_to() {
    for seed in 0..6 {
        let rng = &mut SeededRng::new(seed);
        let (_server, mut wires) = branches(["main", "dev"]);
        scatter(&mut wires, rng, 80);
        wires.iter_mut().for_each(|wire| _ = wire.call(&["SET", "zz", "1"]));
        assert_eq!(wires[1].text(&["SET", "zz", "2"]), "OK");
        let merge = ["BRANCH", "MERGE", "dev", "INTO", "main", "ON", "CONFLICT", "MANUAL"];
        let reply = wires[0].text(&merge);
        let id = reply.rsplit(' ').next().expect("it names the merge").to_owned();
        let mut decided = 0;
        while let Some(key) = waiting(&mut wires[0], &id).into_iter().next() {
            if key == "zz" {
                break;
            }
            // What is decided was looked at by the one before, or by nobody.
            scatter(&mut wires, rng, 3);
            let reply = wires[0].call(&["BRANCH", "RESOLVE", &id, &key, "OURS"]);
            let left = waiting(&mut wires[0], &id);
            match reply {
                Frame::Integer(count) => {
                    assert_eq!(count as usize, left.len(), "seed {seed} {key}")
                }
                // It is no conflict any more.
                Frame::Error(_) => assert!(!left.contains(&key), "seed {seed} {key}"),
                other => panic!("{other:?}"),
            }
            decided += 1;
            if decided > 60 {
                break;
            }
        }
        assert!(decided > 3, "seed {seed}: {decided} decisions");
    }
}

/// The rows and the cursor of a listing.
fn page(wire: &mut Wire, count: &str, cursor: &str) -> (Vec<Frame>, String) {
    let words = ["BRANCH", "DIFF", "main", "dev", "VALUES", "COUNT", count, "CURSOR", cursor];
    let reply = wire.call(&words);
    let Frame::Array(parts) = &reply else { panic!("{reply:?}") };
    match &parts[..] {
        [Frame::Bulk(cursor), Frame::Array(rows)] => {
            (rows.clone(), String::from_utf8(cursor.to_vec()).expect("it is text"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_of_a_listing_are_the_whole_while_both_sides_are_written_to() {
    for seed in 0..4 {
        let rng = &mut SeededRng::new(seed);
        let (_server, mut wires) = branches(["main", "dev"]);
        // None with a deadline: what is due by a page's time is in no page.
        for at in 0..60u32 {
            let (key, value) = (format!("k{at:02}"), rng.below(3).to_string());
            wires[rng.below(2) as usize].call(&["SET", &key, &value]);
        }
        let (whole, end) = page(&mut wires[0], "1000", "0");
        assert_eq!(end, "0");
        let (mut rows, mut cursor) = page(&mut wires[0], "7", "0");
        while cursor != "0" {
            for _ in 0..5 {
                let (key, value) = (format!("k{:02}", rng.below(70)), rng.next_u64().to_string());
                wires[rng.below(2) as usize].call(&["SET", &key, &value]);
            }
            let again = page(&mut wires[1], "7", &cursor);
            let (more, next) = page(&mut wires[0], "7", &cursor);
            assert_eq!(again, (more.clone(), next.clone()), "seed {seed} {cursor}");
            rows.extend(more);
            cursor = next;
        }
        assert_eq!(rows, whole, "seed {seed}");
    }
}

#[test]
fn a_merge_that_is_only_tried_says_what_it_would_do() {
    for seed in 0..6 {
        let rng = &mut SeededRng::new(seed);
        let (_server, mut wires) = branches(["main", "dev"]);
        scatter(&mut wires, rng, 60);
        for wire in &mut wires {
            wire.call(&["INCRBY", "n", "3"]);
            wire.call(&["SELECT", "1"]);
            wire.call(&["SADD", "s", &rng.below(9).to_string()]);
            wire.call(&["SELECT", "0"]);
        }
        let words = ["BRANCH", "MERGE", "dev", "ON", "CONFLICT", "THEIRS"];
        let before = wires[0].call(&["LASTREV"]);
        let tried = wires[0].call(&[&words[..], &["DRYRUN"]].concat());
        assert_eq!(wires[0].call(&["LASTREV"]), before);
        let merged = wires[0].call(&words);
        let (Frame::Array(tried), Frame::Array(merged)) = (&tried, &merged) else {
            panic!("{tried:?} {merged:?}")
        };
        // But for the revision.
        assert_eq!(tried[2..], merged[2..], "seed {seed}");
        assert_ne!(merged[3], Frame::Integer(0), "seed {seed}");
    }
}
