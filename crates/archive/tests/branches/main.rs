//! Every branch holds, at every revision that is kept, what a copy would that
//! was made at the fork.
//!
//! `BRANCHES_SEEDS` sets how many histories are tried (default 4),
//! `BRANCHES_SEED` the first.

#[path = "../random/mod.rs"]
#[allow(dead_code, reason = "its database has no branches")]
mod random;

mod changes;
mod forest;
mod world;

use archive::{LargeFrom, Pace};
use base::{BranchId, DbIndex, Revision};
use testkit::{TempDir, temp_dir};

use changes::Change;
use world::World;

const MAIN: BranchId = BranchId::MAIN;
const BRANCHES_MAX: usize = 7;

/// It moves when somebody needs it.
const STILL: Pace =
    Pace { log_bytes: u64::MAX, memory_bytes: usize::MAX, idle_ms: u64::MAX, age_ms: u64::MAX };

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
        24..=29 => {
            let name = format!("tag-{}", world.below(6));
            let at = if world.below(2) == 0 { None } else { Some(world.revision()) };
            let was_there = at.is_none_or(|at| world.state(any, at).is_some());
            let is_new = !world.known.tags().contains_key(name.as_bytes());
            if is_new && was_there && at != Some(Revision::ZERO) {
                world.tag(&name, any, at);
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
        50..=69 => world.ask_hastily(any),
        _ => {
            let count = 1 + world.below(3);
            let changes: Vec<Change> = (0..count).map(|_| Change::random(&mut world.rng)).collect();
            world.change(any, &changes);
        }
    }
    let any = world.any_branch();
    world.check_some(any);
}

/// Changes while no history is kept, until the tables are merged several times.
fn play_without_history(world: &mut World) {
    world.follow_without_history();
    for _ in 0..12 {
        for _ in 0..8 {
            let any = world.any_branch();
            match world.below(20) {
                0 if world.branches().len() <= BRANCHES_MAX => _ = world.fork(any),
                1 if any != MAIN => world.delete(any),
                2..=3 => world.evict(any),
                _ => {
                    let change = Change::random(&mut world.rng);
                    world.change(any, &[change]);
                }
            }
            let any = world.any_branch();
            world.check_some(any);
        }
        world.checkpoint();
        world.check_forest();
    }
    world.reopen();
    world.branches().into_iter().for_each(|branch| world.check_all(branch));
}

fn play(seed: u64, rounds: usize) {
    let folder = temp_dir();
    // Small bounds, so that batches end everywhere.
    let pace = Pace { log_bytes: 1500 + 1500 * (seed % 3), ..Pace::default() };
    // Every other world keeps collections element by element.
    let elements = LargeFrom { elements: 2, bytes: 60 };
    let large_from = if seed.is_multiple_of(2) { elements } else { LargeFrom::default() };
    let mut world = World::new(folder.path(), seed, pace, large_from);
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
        world.check_tags();
        if round % 2 == 1 {
            let any = world.any_branch();
            world.check_all(any);
            world.reopen();
            (0..6).for_each(|_| world.check_past());
        }
        if round == 3 {
            play_without_history(&mut world);
        }
    }
    world.branches().into_iter().for_each(|branch| world.check_all(branch));
    assert!(world.remade_keys > 0, "some keys of the past can be made from the present");
}

#[test]
fn every_branch_is_what_a_copy_would_be() {
    let from_env = |name: &str, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    };
    let first = from_env("BRANCHES_SEED", 1);
    for seed in first..first + from_env("BRANCHES_SEEDS", 4) {
        play(seed, 5);
    }
}

fn still(folder: &TempDir) -> World {
    World::new(folder.path(), 1, STILL, LargeFrom::default())
}

fn name(n: u8) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

/// Sets `key:0` to `key:39` of a branch's first database.
fn fill(world: &mut World, branch: BranchId, value: &[u8]) {
    let changes: Vec<Change> = (0..40).map(|n| Change::set(0, &name(n), value)).collect();
    world.change(branch, &changes);
}

/// Everything on every branch, as an archive has it that was merged.
fn check(world: &mut World) {
    world.merge();
    world.branches().into_iter().for_each(|branch| world.check_all(branch));
    world.reopen();
    world.branches().into_iter().for_each(|branch| world.check_all(branch));
    world.follow();
}

#[test]
fn what_is_gone_on_a_branch_stays_gone() {
    let folder = temp_dir();
    let mut world = still(&folder);
    world.follow();
    fill(&mut world, MAIN, b"old");
    let dev = world.fork(MAIN);
    let gone: Vec<Change> = (0..20).map(|n| Change::delete(0, &name(n))).collect();
    world.change(dev, &gone);
    let two = world.fork(dev);
    check(&mut world);
    // Nothing but the branches has the old values from here on.
    fill(&mut world, MAIN, b"new");
    world.change(two, &[Change::delete(0, &name(30)), Change::set(0, &name(0), b"again")]);
    check(&mut world);
    world.change(MAIN, &[Change::flush(0)]);
    world.delete(dev);
    check(&mut world);
    world.change(two, &[Change::delete(0, &name(0))]);
    check(&mut world);
}

#[test]
fn a_branch_takes_its_space_along() {
    let folder = temp_dir();
    let mut world = still(&folder);
    world.follow();
    let large = |letter: u8| vec![letter; 1000];
    fill(&mut world, MAIN, &large(b'a'));
    world.merge();
    let before = world.base().disk_bytes();
    for _ in 0..3 {
        let dev = world.fork(MAIN);
        let two = world.fork(dev);
        fill(&mut world, dev, &large(b'b'));
        fill(&mut world, two, &large(b'c'));
        fill(&mut world, MAIN, &large(b'd'));
        check(&mut world);
        let all = world.base().disk_bytes();
        assert!(
            all > before + 3 * 40_000,
            "{all} bytes for four values of each key, {before} before"
        );
        // The first alone does not free what it is read through for.
        world.delete(dev);
        check(&mut world);
        world.delete(two);
        check(&mut world);
        let after = world.base().disk_bytes();
        assert!(after < before + 10_000, "{after} bytes are left, {before} were there before");
    }
}

/// The databases of a branch that the archive names.
fn named(world: &World, branch: BranchId) -> Vec<DbIndex> {
    world.checkpoint();
    let directory = world.base().directory();
    let of_branch = directory.databases.iter().filter(|it| it.branch == branch);
    let mut named: Vec<DbIndex> = of_branch.map(|database| database.db).collect();
    named.sort_unstable();
    named
}

#[test]
fn of_a_branch_those_databases_are_named_that_it_has_used() {
    let folder = temp_dir();
    let mut world = still(&folder);
    world.follow();
    fill(&mut world, MAIN, &[b'a'; 1000]);
    let dev = world.fork(MAIN);
    assert_eq!(named(&world, dev), [0]);
    let set = |db| Change::set(db, &name(1), &[b'v'; 100_000]);
    world.change(dev, &[set(1)]);
    assert_eq!(named(&world, dev), [0, 1]);
    let two = world.fork(dev);
    // What is empty again may have a past.
    world.change(dev, &[Change::delete(1, &name(1))]);
    assert_eq!(named(&world, dev), [0, 1]);
    assert_eq!(named(&world, two), [0, 1]);
    // One that is flushed stands elsewhere.
    world.change(two, &[Change::flush(2)]);
    assert_eq!(named(&world, two), [0, 1, 2]);
    world.reset(two);
    assert_eq!(named(&world, two), [0]);
    world.reopen();
    world.follow();
    world.change(two, &[set(2)]);
    assert_eq!(named(&world, two), [0, 2]);
    world.change(two, &[Change::delete(2, &name(1))]);
    check(&mut world);
    assert_eq!(named(&world, two), [0, 2]);
    // Nothing of them is left when they are gone.
    world.delete(two);
    world.delete(dev);
    check(&mut world);
    assert_eq!((named(&world, two), named(&world, dev)), (vec![], vec![]));
    let after = world.base().disk_bytes();
    assert!(after < 60_000, "{after} bytes are left of values of 100000");
}

#[test]
fn what_a_branch_only_inherited_is_in_its_past() {
    let folder = temp_dir();
    let mut world = still(&folder);
    world.follow();
    fill(&mut world, MAIN, b"old");
    let (dev, two) = (world.fork(MAIN), world.fork(MAIN));
    let then = world.newest();
    // Neither has a key of its own; batches go on.
    world.change(dev, &[Change::flush(0)]);
    world.delete(two);
    for value in [&b"1"[..], b"2", b"3"] {
        fill(&mut world, MAIN, value);
        world.checkpoint();
    }
    world.check_at(dev, then);
    world.check_at(two, then);
    world.reopen();
    world.check_at(dev, then);
    world.check_at(two, then);
    world.follow();
    check(&mut world);
}

#[test]
fn an_archive_that_lags_is_waited_for() {
    let folder = temp_dir();
    let mut world = still(&folder);
    fill(&mut world, MAIN, b"old");
    let dev = world.fork(MAIN);
    // All of it is in the log only.
    fill(&mut world, MAIN, b"new");
    assert_eq!(world.base().revision(), Revision::ZERO);
    world.evict(MAIN);
    world.check_all(dev);
    assert!(world.base().revision() > Revision::ZERO);
    fill(&mut world, dev, b"dev");
    let before = world.newest();
    world.reset(dev);
    let after = world.newest();
    fill(&mut world, MAIN, b"newer");
    assert!(world.base().revision() < before, "it lags");
    world.check_at(dev, after);
    world.check_at(dev, before);
    fill(&mut world, dev, b"again");
    world.reset(dev);
    let after = world.newest();
    let (from, _) = world.fork_at(dev, after);
    world.check_all(from);
    world.check_all(dev);
}

#[test]
fn to_overwrite_takes_no_look_into_the_archive() {
    let folder = temp_dir();
    let mut world = still(&folder);
    fill(&mut world, MAIN, b"old");
    let set = |n: u8, value: &[u8]| Change::set(0, &name(n), value);
    let dev = world.fork(MAIN);
    let two = world.fork(dev);
    // Inherited keys, some of which main changes meanwhile, and new ones, some
    // of which it makes as well.
    let meanwhile: Vec<Change> =
        (0..20).chain(50..55).map(|n| set(n, b"main")).chain([set(3, b"again")]).collect();
    world.change(MAIN, &meanwhile);
    let first = world.newest();
    for branch in [two, dev] {
        (0..60).step_by(2).for_each(|n| world.change(branch, &[set(n, b"own")]));
        (0..60).step_by(4).for_each(|n| world.change(branch, &[set(n, b"own again")]));
    }
    assert_eq!(world.newest().0, first.0 + 2 * (30 + 15));
    assert_eq!(world.base().revision(), Revision::ZERO, "nobody has waited for it");
    // What began with a branch knows what that one had.
    let three = world.fork(dev);
    (0..60).for_each(|n| world.change(dev, &[set(n, b"later")]));
    (0..60).step_by(2).for_each(|n| world.change(three, &[set(n, b"own")]));
    assert_eq!(world.base().revision(), Revision::ZERO, "nobody has waited for it");
    world.follow();
    check(&mut world);
}

#[test]
fn to_remove_takes_no_look_into_the_archive() {
    let folder = temp_dir();
    let mut world = still(&folder);
    fill(&mut world, MAIN, b"old");
    let dev = world.fork(MAIN);
    let two = world.fork(dev);
    let meanwhile: Vec<Change> = (0..20).map(|n| Change::set(0, &name(n), b"main")).collect();
    world.change(MAIN, &meanwhile);
    for branch in [two, dev] {
        let unloaded = world.unloaded(branch);
        // Inherited keys, and some that never were.
        (0..60).step_by(2).for_each(|n| {
            world.change(branch, &[Change::delete_unread(0, &name(n))]);
        });
        // Each left by being removed, none by being brought into memory.
        assert_eq!(world.unloaded(branch), unloaded - 20);
        (0..60).step_by(4).for_each(|n| world.change(branch, &[Change::set(0, &name(n), b"own")]));
    }
    assert_eq!(world.base().revision(), Revision::ZERO, "nobody has waited for it");
    // What began with a branch knows what that one had.
    let three = world.fork(dev);
    (0..60).step_by(3).for_each(|n| world.change(dev, &[Change::delete_unread(0, &name(n))]));
    world.follow();
    (0..60).for_each(|n| world.change(three, &[Change::delete_unread(0, &name(n))]));
    check(&mut world);
}

#[test]
fn what_became_of_a_parents_key_does_not_tell_what_it_was() {
    let folder = temp_dir();
    let mut world = still(&folder);
    fill(&mut world, MAIN, b"old");
    for n in 0..5 {
        // It has no deadline, it has, and it loses it.
        world.change(MAIN, &[Change::expire(0, &name(n), n % 2 == 1)]);
    }
    let set = |n: u8, value: &[u8]| Change::set(0, &name(n), value);
    let forks = [world.fork(MAIN), world.fork(MAIN)];
    world.change(MAIN, &[set(1, b"main"), Change::expire(0, &name(3), false)]);
    world.change(MAIN, &[Change::delete(0, &name(10)), Change::delete(0, &name(50))]);
    world.change(MAIN, &[set(10, b"made anew"), set(50, b"new"), set(11, b"main")]);
    world.change(MAIN, &[Change::rename(0, &name(12), &name(51))]);
    world.change(MAIN, &[Change::rename(0, &name(13), &name(14)), set(13, b"new")]);
    for (branch, later_ms) in forks.into_iter().zip([0, 1000]) {
        // By then, what had a deadline is past it.
        world.now_ms += later_ms;
        (0..60).for_each(|n| world.change(branch, &[set(n, b"own")]));
        world.check_all(branch);
    }
    let dev = world.fork(MAIN);
    world.change(MAIN, &[Change::flush(0), set(0, b"main"), set(20, b"main")]);
    (0..60).for_each(|n| world.change(dev, &[set(n, b"own")]));
    world.follow();
    check(&mut world);
}

#[test]
fn a_fork_that_the_archive_has_not_reached_survives() {
    let folder = temp_dir();
    let mut world = still(&folder);
    fill(&mut world, MAIN, b"old");
    for _ in 0..3 {
        let dev = world.fork(MAIN);
        fill(&mut world, MAIN, b"new");
        let two = world.fork(dev);
        world.change(dev, &[Change::delete(0, &name(1)), Change::flush(1)]);
        world.change(two, &[Change::flush(0)]);
        world.change(MAIN, &[Change::delete(0, &name(2))]);
        world.reopen();
        world.branches().into_iter().for_each(|branch| world.check_all(branch));
    }
}

#[test]
fn what_has_a_name_stays_readable() {
    let folder = temp_dir();
    let mut world = still(&folder);
    world.follow();
    fill(&mut world, MAIN, b"old");
    let dev = world.fork(MAIN);
    fill(&mut world, dev, b"dev");
    world.tag("now", dev, None);
    world.change(dev, &[Change::flush(0)]);
    fill(&mut world, MAIN, b"new");
    for _ in 0..3 {
        check(&mut world);
        world.check_tags();
    }
    let (newest, oldest) = (world.newest(), world.past().oldest());
    assert!(oldest.0 + 10 > newest.0, "a state of the archive holds nothing: {oldest} of {newest}");
    // A revision in between is made from the one before and the log.
    let then = world.newest();
    fill(&mut world, MAIN, b"between");
    fill(&mut world, MAIN, b"later");
    world.checkpoint();
    let between = then.next();
    world.tag("then", MAIN, Some(between));
    for _ in 0..3 {
        check(&mut world);
        world.check_tags();
    }
    assert!(world.past().oldest() <= between);
    world.untag(b"then");
    check(&mut world);
    world.check_tags();
    assert!(world.past().oldest() > between);
}

/// What was read for somebody who did not come back counts only as long as the key
/// is what it was then.
#[test]
fn what_was_read_before_a_change_is_not_taken_after_it() {
    let (folder, elements) = (temp_dir(), LargeFrom { elements: 2, bytes: 60 });
    let mut world = World::new(folder.path(), 2, STILL, elements);
    world.follow();
    let [list, other]: [(u16, &[u8]); 2] = [(0, b"list"), (1, b"other")];
    for (db, key) in [list, other] {
        (0..9).for_each(|_| world.change(MAIN, &[Change::push(db, key, b"first")]));
    }
    let mut put_off = 0;
    for round in 0..60 {
        world.leave(MAIN, list);
        world.leave(MAIN, other);
        put_off += usize::from(!world.ask(MAIN, list));
        // Half of the time it has been read by then.
        while round % 2 == 0 && !world.ask(MAIN, other) {
            std::thread::yield_now();
        }
        match round % 4 {
            3 => world.change(MAIN, &[Change::delete(0, b"list")]),
            _ => world.change(MAIN, &[Change::push(0, b"list", b"new")]),
        }
        for _ in 0..usize::from(round % 4 == 3) * 5 {
            world.change(MAIN, &[Change::push(0, b"list", b"again")]);
        }
        world.leave(MAIN, list);
        while !world.ask(MAIN, list) {
            std::thread::yield_now();
        }
        world.check_all(MAIN);
    }
    assert!(put_off > 50, "it was read {put_off} times");
}
