//! Every branch holds, at every revision that is kept, what a copy would that
//! was made at the fork.

#[path = "../random/mod.rs"]
#[allow(dead_code, reason = "its database has no branches")]
mod random;

mod changes;
mod forest;
mod world;

use archive::Pace;
use base::{BranchId, Revision};
use testkit::temp_dir;

use changes::Change;
use world::World;

const MAIN: BranchId = BranchId::MAIN;
const BRANCHES_MAX: usize = 7;

/// One random thing.
fn step(world: &mut World) {
    world.now_ms += world.below(50);
    let any = world.any_branch();
    let others = world.branches().len() - 1;
    match world.below(200) {
        0..=9 if others < BRANCHES_MAX => _ = world.fork(any),
        10..=14 if others < BRANCHES_MAX => {
            let at = world.revision();
            let was_there = world.state(any, at).is_some();
            // As of the branch that has the name now, not of what it was before.
            let forked = world.known.get(any).map_or(Revision::ZERO, |row| row.forked);
            if was_there && at >= forked {
                world.fork_at(any, at);
            }
        }
        15..=19 if any != MAIN => world.delete(any),
        20..=23 if any != MAIN => {
            let parent = world.known.get(any).expect("there").parent;
            if world.branches().contains(&parent) {
                world.reset(any);
            }
        }
        24..=27 => {
            let name = format!("tag-{}", world.below(6));
            world.tag(&name, any, None);
        }
        28..=29 => {
            let (name, at) = (format!("tag-{}", world.below(6)), world.revision());
            if at > Revision::ZERO {
                world.tag(&name, any, Some(at));
            }
        }
        30..=32 => {
            let name = world.known.tags().keys().next().cloned();
            name.iter().for_each(|name| world.untag(name));
        }
        33..=34 if any != MAIN => {
            let name = format!("renamed-{}-{}", any.0, world.newest());
            world.rename(any, &name);
        }
        35..=44 => world.evict(any),
        45..=49 => world.forget_removals(),
        _ => {
            let count = 1 + world.below(3);
            let changes: Vec<Change> = (0..count).map(|_| Change::random(&mut world.rng)).collect();
            world.change(any, &changes);
        }
    }
    let any = world.any_branch();
    world.check_some(any);
}

fn play(seed: u64, rounds: usize) {
    let folder = temp_dir();
    // Small bounds, so that batches end everywhere.
    let pace = Pace { log_bytes: 1500 + 1500 * (seed % 3), ..Pace::default() };
    let mut world = World::new(folder.path(), seed, pace);
    for round in 0..rounds {
        // Without a follower the archive lags until somebody waits for it.
        if world.below(4) > 0 {
            world.follow();
        } else {
            (0..20).for_each(|_| step(&mut world));
            (0..3).for_each(|_| world.check_past());
            world.follow();
        }
        for part in 0..4 {
            (0..25).for_each(|_| step(&mut world));
            (0..3).for_each(|_| world.check_past());
            if part % 2 == 1 {
                world.checkpoint();
                world.check_forest();
            }
        }
        if round % 3 == 1 {
            let wanted = world.revision();
            let oldest = world.past().compact(wanted).expect("it can be compacted");
            assert!(oldest <= wanted);
        }
        if round % 5 == 3 {
            world.merge();
            world.check_forest();
        }
        if round % 2 == 1 {
            let any = world.any_branch();
            world.check_all(any);
            world.reopen();
            (0..6).for_each(|_| world.check_past());
        }
    }
    world.branches().into_iter().for_each(|branch| world.check_all(branch));
}

#[test]
fn every_branch_is_what_a_copy_would_be() {
    let from_env = |name: &str, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    };
    let first = from_env("BRANCHES_SEED", 1);
    for seed in first..first + from_env("BRANCHES_SEEDS", 1) {
        play(seed, 10);
    }
}
