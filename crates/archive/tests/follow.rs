//! A base that follows a log holds, at its revision, exactly what the
//! transactions up to there made, and a keyspace that is filled from it is the
//! one they made.

#[path = "random/keeping.rs"]
mod keeping;
mod random;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use archive::{Base, BaseBacking, Follower, FollowerOptions, LargeFrom, Pace};
use base::SystemClock;
use keyspace::{Buffers, EncodingLimits, Keyspace};
use log::Log;
use testkit::temp_dir;

use keeping::keeper;
use random::{DATABASES, Database, contents};

fn filled_from(base: &Arc<Base>) -> Keyspace {
    let directory = base.directory();
    let keyspace = Keyspace::new(DATABASES, directory.seed);
    let backing = BaseBacking::new(base.clone(), EncodingLimits::default());
    keyspace.evict_to(backing.clone());
    keyspace.keep_left();
    for database in &directory.databases {
        keyspace.back(backing.clone(), database.db, database.space, &database.keys);
    }
    keyspace
}

fn options(pace: Pace) -> FollowerOptions {
    FollowerOptions {
        pace,
        databases: DATABASES,
        limits: EncodingLimits::default(),
        past: None,
        turn: Box::new(|| {}),
        clock: Arc::new(SystemClock),
        advanced: Box::new(|_, _| {}),
        faulted: Box::new(|fault| assert_eq!(fault, None)),
    }
}

fn follow(base: &Arc<Base>, log: &Log, pace: Pace) -> Follower {
    Follower::start(base.clone(), log.reader(base.revision().next()), options(pace))
}

/// A base that keeps collections element by element, if it is to, from this
/// size on.
fn open(dir: &Path, seed: u64, large_from: Option<LargeFrom>) -> Arc<Base> {
    let base = Base::open(dir, seed, 1 << 20).expect("it opens");
    Arc::new(base.with_large_from(large_from.unwrap_or_default()))
}

#[test]
fn a_base_holds_what_the_log_made() {
    for seed in 1..=3 {
        hold_what_the_log_made(seed, Database::new(seed), None);
    }
}

#[test]
fn a_base_holds_the_elements_of_large_collections() {
    let sizes = [(3, 1 << 20), (0, 0), (9, 200), (1024, 100), (1, 1 << 20), (6, 1 << 20)];
    for (seed, (elements, bytes)) in (11..).zip(sizes) {
        let large_from = Some(LargeFrom { elements, bytes });
        hold_what_the_log_made(seed, Database::of_collections(seed), large_from);
    }
}

fn hold_what_the_log_made(seed: u64, mut database: Database, large_from: Option<LargeFrom>) {
    let folder = temp_dir();
    // Small bounds, so that batches end everywhere.
    let pace = Pace { log_bytes: 1500 + 1500 * (seed % 4), ..Pace::default() };
    let mut base = open(folder.path(), seed, large_from);
    database.take_back(keeper(&base));
    for round in 0..8 {
        let follower = follow(&base, database.log(), pace);
        (0..150).for_each(|_| database.step());
        let newest = database.log().newest();
        follower.checkpoint(newest).expect("it follows");
        assert_eq!(base.revision(), newest);
        let expected = contents(&database.keyspace);
        assert_eq!(contents(&filled_from(&base)), expected, "seed {seed} round {round}");
        drop(follower);
        if round % 2 == 1 {
            database.take_back(Box::new(|_, _| {}));
            drop(base);
            // What was large stays so, whatever is large from now on.
            let is_changed = round % 4 == 3;
            base = open(folder.path(), 0, large_from.filter(|_| !is_changed));
            database.take_back(keeper(&base));
            assert_eq!(contents(&filled_from(&base)), expected, "seed {seed} reopened");
        }
    }
}

#[test]
fn recovery_is_the_base_and_the_log_behind_it() {
    let folder = temp_dir();
    let mut database = Database::new(77);
    let base = Arc::new(Base::open(folder.path(), 77, 1 << 20).expect("an empty one opens"));
    let follower = follow(&base, database.log(), Pace::default());
    database.take_back(keeper(&base));
    for _ in 0..10 {
        (0..100).for_each(|_| database.step());
        follower.checkpoint(database.log().newest()).expect("it follows");
        let recovered = filled_from(&base);
        let archived = base.revision();
        (0..100).for_each(|_| database.step());
        let mut reader = database.log().reader(archived.next());
        database.log().wait_durable(database.log().newest()).expect("memory takes everything");
        let mut buffers = Buffers::default();
        while reader.next_revision() <= database.log().newest() {
            let mut each = |record: log::Record<'_>, _| {
                recovered
                    .apply(
                        record.revision,
                        record.header.time_ms,
                        record.header.db,
                        record.effects,
                        &database.limits,
                        &mut buffers,
                    )
                    .expect("it fits");
                ControlFlow::Continue(())
            };
            reader.read(Duration::ZERO, &mut each).expect("whole");
        }
        assert_eq!(contents(&recovered), contents(&database.keyspace));
    }
}

#[test]
fn a_database_that_was_empty_for_a_while_stays() {
    let folder = temp_dir();
    let database = Database::new(3);
    let base = Arc::new(Base::open(folder.path(), 3, 1 << 20).expect("an empty one opens"));
    let follower = follow(&base, database.log(), Pace::default());
    let put = |db, key: &[u8], value: Option<&str>| {
        database.change(|txn| {
            txn.select(db);
            match value {
                Some(value) => txn.set_string(key, value.as_bytes(), None),
                None => _ = txn.delete(key),
            }
        });
    };
    let batch = |db, value: Option<&str>| {
        put(db, b"key", value);
        follower.checkpoint(database.log().newest()).expect("it follows");
        assert_eq!(contents(&filled_from(&base)), contents(&database.keyspace));
    };
    // So much else that it is not merged at once.
    (0..20).for_each(|n| put(1, &[n], Some("value")));
    batch(0, Some("before"));
    batch(0, None);
    batch(0, Some("after"));
    // So often that everything is merged.
    for value in 0..20 {
        batch(1, Some(&value.to_string()));
    }
}

/// Lets the next manifests of a base be written to a full disk; answers their
/// paths.
#[cfg(target_os = "linux")]
fn fill_disk(archive: &Path) -> Vec<std::path::PathBuf> {
    let tree = archive.join("base");
    let current = std::fs::read(tree.join("current")).expect("it is there");
    let number = u64::from_le_bytes(current[..8].try_into().expect("eight bytes"));
    let next = (number + 1..number + 20).map(|number| tree.join(format!("v{number}")));
    // One that a compaction makes just now is its own.
    next.filter(|path| std::os::unix::fs::symlink("/dev/full", path).is_ok()).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_waited_for() {
    let folder = temp_dir();
    let mut database = Database::new(5);
    let base = open(folder.path(), 5, None);
    database.take_back(keeper(&base));
    let (told, faults) = std::sync::mpsc::channel();
    let options = FollowerOptions {
        faulted: Box::new(move |fault| told.send(fault.map(str::to_owned)).expect("it is heard")),
        ..options(Pace { idle_ms: u64::MAX, ..Pace::default() })
    };
    let reader = database.log().reader(base.revision().next());
    let follower = Follower::start(base.clone(), reader, options);
    for round in 0..4 {
        (0..150).for_each(|_| database.step());
        let full = fill_disk(folder.path());
        let newest = database.log().newest();
        let refused = follower.checkpoint(newest).expect_err("there is no room").to_string();
        assert!(
            refused.contains("No space left on device") && refused.contains("CONFIG SET"),
            "{refused}"
        );
        let fault = faults.recv().expect("it is told").expect("a fault");
        assert!(refused.ends_with(&fault), "{fault}");
        (0..50).for_each(|_| database.step());
        full.iter().for_each(|path| std::fs::remove_file(path).expect("ours"));
        // By itself after a second, or when somebody says so.
        if round % 2 == 1 {
            while !follower.retry() && follower.fault().is_some() {
                std::thread::yield_now();
            }
            follower.checkpoint(database.log().newest()).expect("there is room");
        }
        assert_eq!(faults.recv().expect("it is told"), None);
        follower.checkpoint(database.log().newest()).expect("there is room");
        assert_eq!(follower.fault(), None);
        assert_eq!(contents(&filled_from(&base)), contents(&database.keyspace), "round {round}");
    }
}
