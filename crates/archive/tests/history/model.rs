//! Random records against a plain list.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use archive::history::{History, HistoryError, LogBlocks, key_hash};
use base::{BranchId, Revision, Rng, SeededRng};
use keyspace::effect::Effect;
use log::{MemVfs, Place, RealVfs, Record, RecordHeader, Vfs};

use crate::fake_log::{DATABASE, Entry, FakeLog, append_some, compare, follow, follow_upto, hits};

const DIR: &str = "/archive/history";

fn open(vfs: &Arc<dyn Vfs>, dir: &Path, log: &FakeLog) -> History {
    History::open(vfs.clone(), dir, DATABASE, Arc::new(log.clone())).expect("a folder that works")
}

/// Revisions at, around and between what there is.
fn any_revision(rng: &mut SeededRng, last: Revision) -> Revision {
    match rng.below(10) {
        0 => Revision::ZERO,
        1 => Revision(u64::MAX),
        _ => Revision(rng.below(last.0 + 3)),
    }
}

fn check_ranges(history: &History, log: &FakeLog, rng: &mut SeededRng, keys: u64, context: &str) {
    let (horizon, noted) = (history.horizon(), history.noted());
    for _ in 0..30 {
        let (after, upto) = (any_revision(rng, noted), any_revision(rng, noted));
        let hash = match rng.below(10) {
            0 => archive::history::DATABASE_WIDE,
            _ => key_hash(format!("key:{}", rng.below(keys + 1)).as_bytes()),
        };
        let expected = log.expected(hash, after.max(horizon), upto.min(noted));
        assert_eq!(hits(history, hash, after, upto), expected, "{context}: {after} to {upto}");
        let mut changes = Vec::new();
        let mut each = |record: &Record<'_>, place: Place| {
            changes.push((record.revision, place, record.effects.to_vec()));
            ControlFlow::Continue(())
        };
        history.changes(after, upto, &mut each).expect("the log does not fail");
        let entries = log.entries();
        let expected = entries.iter().filter(|entry| {
            entry.revision > after.max(horizon) && entry.revision <= upto.min(noted)
        });
        let row = |entry: &Entry| (entry.revision, entry.place, entry.effects.clone());
        let of_all: Vec<_> = expected.clone().map(row).collect();
        assert_eq!(changes, of_all, "{context}: {after} to {upto}");

        let branch = BranchId(rng.below(4) as u32);
        let mut changes = Vec::new();
        let mut each = |record: &Record<'_>, place: Place| {
            changes.push((record.revision, place, record.effects.to_vec()));
            ControlFlow::Continue(())
        };
        history.changes_of(branch, after, upto, &mut each).expect("the log does not fail");
        let of_one: Vec<_> = expected.filter(|entry| entry.branch == branch).map(row).collect();
        assert_eq!(changes, of_one, "{context}: {after} to {upto} of {branch:?}");
        let newest = history.newest_of(branch).expect("the log does not fail");
        let known = |entry: &&Entry| entry.revision > horizon && entry.revision <= noted;
        let mut known = entries.iter().rev().filter(known);
        let expected = known.find(|entry| entry.branch == branch).map(|entry| entry.revision);
        assert_eq!(newest, expected, "{context}: {branch:?}");
    }
}

fn round(vfs: &Arc<dyn Vfs>, dir: &Path, seed: u64) {
    let mut rng = SeededRng::new(seed);
    let keys = [1, 3, 40, 4000][rng.below(4) as usize];
    let log = FakeLog::beginning_with(Revision([1, 1, 500][rng.below(3) as usize]));
    let mut history = open(vfs, dir, &log);
    for step in 0..20 {
        let context = format!("seed {seed}, step {step}");
        match rng.below(8) {
            0..3 => {
                let count = rng.below(400);
                append_some(&log, &mut rng, keys, count);
            }
            3 => log.roll(),
            4 => history = open(vfs, dir, &log),
            5 => {
                let upto = Revision(rng.below(log.last().0 + 1));
                follow_upto(&history, &log, upto).expect("nothing is missing");
            }
            6 => {
                let revision = Revision(rng.below(history.noted().0 + 10) / 3);
                let before = history.horizon();
                history.forget_before(revision).expect("the disk works");
                let expected = before.max(revision.min(history.noted()));
                assert_eq!(history.horizon(), expected, "{context}");
            }
            _ => {
                follow(&history, &log).expect("nothing is missing");
                assert_eq!(history.noted(), log.last(), "{context}");
            }
        }
        check_ranges(&history, &log, &mut rng, keys, &context);
    }
    follow(&history, &log).expect("nothing is missing");
    while history.mend().expect("the disk works") {}
    assert_eq!(history.stats().missing, 0);
    compare(&history, &log, keys.min(50), &format!("seed {seed}, at the end"));
}

#[test]
fn lookups_answer_as_a_list_does() {
    for seed in 0..60 {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        round(&vfs, Path::new(DIR), seed);
    }
}

#[test]
fn real_files_answer_the_same() {
    let folder = testkit::temp_dir();
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    for seed in 100..104 {
        round(&vfs, &folder.path().join(seed.to_string()).join("history"), seed);
    }
}

/// More records than a chunk in memory, a page of entries and a page of blocks
/// hold, of few keys and of many.
#[test]
fn segments_of_many_pages() {
    for keys in [2, 30_000] {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let log = FakeLog::new();
        let mut rng = SeededRng::new(keys);
        append_some(&log, &mut rng, keys, 40_000);
        let history = open(&vfs, Path::new(DIR), &log);
        follow(&history, &log).expect("nothing is missing");
        check_ranges(&history, &log, &mut rng, keys, "in memory");
        log.roll();
        append_some(&log, &mut rng, keys, 1);
        follow(&history, &log).expect("nothing is missing");
        let stats = history.stats();
        assert_eq!((stats.segments, stats.missing), (1, 0));
        assert!(stats.file_bytes > 40_000, "{stats:?}");
        check_ranges(&history, &log, &mut rng, keys, "in a file");
        for key in 0..keys.min(100) {
            let hash = key_hash(format!("key:{key}").as_bytes());
            let expected = log.expected(hash, Revision::ZERO, log.last());
            assert_eq!(hits(&history, hash, Revision::ZERO, log.last()), expected);
        }
        for time_ms in (0..400_000).step_by(40_011) {
            let expected = log.expected_at(time_ms, log.last());
            assert_eq!(history.at_time(time_ms).expect("works"), Some(expected));
        }
    }
}

#[test]
fn the_newest_few_cost_no_more_than_they_must() {
    let log = FakeLog::new();
    append_some(&log, &mut SeededRng::new(1), 1, 5000);
    log.roll();
    let vfs = MemVfs::new();
    let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let history = open(&disk, Path::new(DIR), &log);
    assert!(history.mend().expect("the disk works"));
    let path = vfs.files().into_keys().next().expect("the index");
    let mut bytes = vfs.read(&path).expect("readable");
    // The first page is never read, so its damage is not seen.
    bytes[128] ^= 1;
    vfs.write(&path, bytes);
    let newest = history.records(key_hash(b"key:0"), Revision::ZERO, log.last()).next();
    assert_eq!(newest.expect("one").expect("readable").revision, log.last());
    assert_eq!(vfs.read(&path).expect("readable")[128] & 1, 1 ^ original_bit(&log));
}

/// The lowest bit of the first page, as it should be.
fn original_bit(log: &FakeLog) -> u8 {
    let vfs = MemVfs::new();
    let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
    assert!(open(&disk, Path::new(DIR), log).mend().expect("the disk works"));
    vfs.files().into_values().next().expect("the index")[128] & 1
}

/// What others write in between is not read.
#[test]
fn the_records_of_a_branch_cost_what_they_are() {
    let (log, branch) = (FakeLog::new(), BranchId(7));
    for part in 0..6 {
        log.go_on(BranchId::MAIN);
        (0..1000).for_each(|n| {
            log.append(n, &[Some(b"k")]);
            if n % 10 == 0 {
                log.end_block();
            }
        });
        log.go_on(branch);
        (0..30).for_each(|n| drop(log.append(n, &[Some(b"k")])));
        if part % 2 == 1 {
            log.roll();
        }
    }
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let history = open(&vfs, Path::new(DIR), &log);
    follow(&history, &log).expect("nothing is missing");
    while history.mend().expect("the disk works") {}
    let (before, mut count) = (log.reads(), 0);
    let mut each = |record: &Record<'_>, _: Place| {
        assert_eq!(record.header.branch, branch);
        count += 1;
        ControlFlow::Continue(())
    };
    history.changes_of(branch, Revision::ZERO, log.last(), &mut each).expect("works");
    // Where a segment begins is looked at, then each run and what follows it.
    assert_eq!(count, 180);
    assert!(log.reads() - before <= 3 + 2 * 6, "{} blocks", log.reads() - before);
}

#[test]
fn a_gap_and_malformed_effects_are_refused() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let log = FakeLog::new();
    let history = open(&vfs, Path::new(DIR), &log);
    append_some(&log, &mut SeededRng::new(1), 5, 3);
    let entries = log.entries();
    let gap = history.note(&entries[1].record(), entries[1].place);
    assert!(matches!(gap, Err(HistoryError::Gap { expected: Revision(1), found: Revision(2) })));
    let elsewhere = Place { segment: Revision(7), ..entries[0].place };
    assert!(history.note(&entries[0].record(), elsewhere).is_err());

    let mut effects = Vec::new();
    Effect::Key { key: b"k", existed: None }.encode(&mut effects);
    effects.push(255);
    let header = RecordHeader { time_ms: 1, db: 0, branch: BranchId::MAIN };
    let malformed = Record { revision: Revision(1), header, effects: &effects };
    let refused = history.note(&malformed, entries[0].place);
    assert!(matches!(refused, Err(HistoryError::Malformed { revision: Revision(1), .. })));
    assert_eq!(history.noted(), Revision::ZERO);
    assert_eq!(hits(&history, key_hash(b"k"), Revision::ZERO, Revision(9)), []);

    follow(&history, &log).expect("nothing is missing");
    history.note(&entries[1].record(), entries[1].place).expect("what is known is ignored");
    assert_eq!(history.noted(), Revision(3));
}

#[test]
fn time_before_the_horizon_cannot_be_read() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let log = FakeLog::new();
    let history = open(&vfs, Path::new(DIR), &log);
    assert_eq!(history.at_time(5).expect("works"), Some(Revision::ZERO), "nothing yet");
    for time_ms in [10, 20, 15, 30] {
        log.append(time_ms, &[Some(b"k")]);
    }
    follow(&history, &log).expect("nothing is missing");
    assert_eq!(history.at_time(9).expect("works"), Some(Revision::ZERO));
    assert_eq!(history.at_time(10).expect("works"), Some(Revision(1)));
    assert_eq!(history.at_time(19).expect("works"), Some(Revision(3)));
    assert_eq!(history.at_time(u64::MAX).expect("works"), Some(Revision(4)));
    history.forget_before(Revision(2)).expect("works");
    assert_eq!(history.at_time(10).expect("works"), None);
    assert_eq!(history.at_time(15).expect("works"), Some(Revision(3)));
}

#[test]
fn files_of_segments_that_are_gone_go_too() {
    let vfs = MemVfs::new();
    let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let log = FakeLog::new();
    let mut rng = SeededRng::new(1);
    let history = open(&disk, Path::new(DIR), &log);
    for _ in 0..4 {
        append_some(&log, &mut rng, 5, 10);
        log.roll();
    }
    append_some(&log, &mut rng, 5, 1);
    follow(&history, &log).expect("nothing is missing");
    assert_eq!(vfs.files().len(), 4);
    history.forget_before(Revision(20)).expect("works");
    assert_eq!(vfs.files().len(), 2);

    let path = |name: &str| Path::new(DIR).join(name);
    vfs.write(&path("00000000000000000077.idx"), vec![1]);
    vfs.write(&path("00000000000000000011.idx.new"), vec![1]);
    vfs.write(&path("notes"), vec![1]);
    let history = open(&disk, Path::new(DIR), &log);
    assert!(!vfs.exists(&path("00000000000000000077.idx")));
    assert!(!vfs.exists(&path("00000000000000000011.idx.new")));
    assert!(vfs.exists(&path("notes")), "what is not ours stays");
    assert_eq!((history.stats().segments, history.stats().missing), (4, 2));
    assert_eq!(log.segments().len(), 5);

    History::discard(&vfs, Path::new(DIR)).expect("works");
    assert_eq!(vfs.files().len(), 1);
    History::discard(&vfs, Path::new("/nowhere")).expect("nothing to do");
}
