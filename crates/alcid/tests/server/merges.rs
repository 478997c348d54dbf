//! Random trees of branches that merge in all directions, over restarts.

use std::collections::BTreeSet;

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

/// A branch, and the increments that are in its counters.
struct Branch {
    name: String,
    parent: String,
    has: BTreeSet<usize>,
    /// Those that were there from a revision on.
    had: Vec<(u64, BTreeSet<usize>)>,
}

impl Branch {
    fn new(name: &str, parent: &str, has: &BTreeSet<usize>) -> Branch {
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
    /// They are also made from what others had, deleted and made anew.
    Wild,
}

/// Does something to a branch that makes, ends or renews one.
fn live_on(wire: &mut Wire, rng: &mut SeededRng, branches: &mut Vec<Branch>, at: usize) {
    let name = branches[at].name.clone();
    match rng.below(3) {
        0 if !branches[at].had.is_empty() => {
            let had = &branches[at].had;
            let (revision, has) = had[rng.below(had.len() as u64) as usize].clone();
            let made = format!("then{revision}-{}", rng.next_u64());
            let when = format!("r:{revision}");
            let reply = wire.call(&["BRANCH", "CREATE", &made, "FROM", &name, "AT", &when]);
            assert!(!matches!(reply, Frame::Error(_)), "{reply:?}");
            branches.push(Branch::new(&made, &name, &has));
        }
        1 if at > 0 => {
            assert_eq!(wire.text(&["BRANCH", "DELETE", &name, "FORCE"]), "OK");
            branches.remove(at);
        }
        2 if at > 0 => {
            let parent = branches.iter().find(|it| it.name == branches[at].parent);
            let Some(parent) = parent.map(|parent| parent.has.clone()) else { return };
            let reply = wire.text(&["BRANCH", "RESET", &name, "TO", "PARENT"]);
            if reply == "OK" {
                (branches[at].has, branches[at].had) = (parent, Vec::new());
            } else {
                assert!(reply.starts_with("BRANCHBUSY"), "{reply}");
            }
        }
        _ => {}
    }
}

fn run(seed: u64, branches_max: usize, life: Life) -> (usize, usize) {
    let rng = &mut SeededRng::new(seed);
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut wire = Wire::connect(server.addr());
    let mut branches = vec![Branch::new("main", "", &BTreeSet::new())];
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
                branches[at].has.insert(increments);
                branches[at].remember(&mut wire);
                increments += 1;
            }
            _ if branches.len() > 1 => {
                let from =
                    (at + 1 + rng.below(branches.len() as u64 - 1) as usize) % branches.len();
                let source = branches[from].name.clone();
                match wire.call(&["BRANCH", "MERGE", &source, "INTO", &name]) {
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
                        branches[at].has.extend(more);
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
    let sum: u64 = branch.has.iter().map(|&at| 1 << at).sum();
    let expected = match branch.has.len() {
        0 => Frame::Null,
        _ => Frame::bulk(sum.to_string()),
    };
    let place = format!("seed {seed}, step {step}, branch {}", branch.name);
    wire.call(&["BRANCH", "USE", &branch.name]);
    assert_eq!(wire.call(&["GET", "k"]), expected, "{place}");
    assert_eq!(wire.call(&["HGET", "h", "f"]), expected, "{place}");
    assert_eq!(wire.call(&["SCARD", "s"]), Frame::Integer(branch.has.len() as i64), "{place}");
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
