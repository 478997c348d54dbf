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
    has: BTreeSet<usize>,
}

fn run(seed: u64, branches_max: usize) -> (usize, usize) {
    let rng = &mut SeededRng::new(seed);
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut wire = Wire::connect(server.addr());
    let mut branches = vec![Branch { name: "main".to_owned(), has: BTreeSet::new() }];
    let (mut increments, mut merges, mut conflicts) = (0, 0, 0);
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
                let made = format!("b{}", branches.len());
                wire.call(&["BRANCH", "CREATE", &made, "FROM", &name]);
                branches.push(Branch { name: made, has: branches[at].has.clone() });
            }
            1..=5 if increments < INCREMENTS => {
                let amount = (1u64 << increments).to_string();
                wire.call(&["BRANCH", "USE", &name]);
                wire.call(&["INCRBY", "k", &amount]);
                wire.call(&["HINCRBY", "h", "f", &amount]);
                wire.call(&["SADD", "s", &amount]);
                branches[at].has.insert(increments);
                increments += 1;
            }
            _ if branches.len() > 1 => {
                let from =
                    (at + 1 + rng.below(branches.len() as u64 - 1) as usize) % branches.len();
                let source = branches[from].name.clone();
                match wire.call(&["BRANCH", "MERGE", &source, "INTO", &name]) {
                    Frame::Error(text) => {
                        assert!(text.starts_with("MERGECONFLICT"), "seed {seed}: {text}");
                        conflicts += 1;
                    }
                    _ => {
                        let more = branches[from].has.clone();
                        branches[at].has.extend(more);
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
        let (merges, conflicts) = run(seed, 2);
        assert_eq!(conflicts, 0, "seed {seed}");
        assert!(merges > 10, "seed {seed}: {merges} merges");
    }
}

#[test]
fn no_increment_is_lost_or_counted_twice_in_a_tree_of_branches() {
    let merges: usize = (10..16).map(|seed| run(seed, 6).0).sum();
    assert!(merges > 40, "{merges} merges");
}
