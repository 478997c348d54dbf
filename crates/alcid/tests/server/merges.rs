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
