//! Segments and blocks: their bounds, who keeps them, and their end.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alcid_log::{
    Fault, FaultyVfs, Log, LogOptions, MemVfs, Place, Record, RecordHeader, SegmentInfo, Vfs,
};
use base::{BranchId, ManualClock, Revision, SeededRng};

const DIR: &str = "/data";
const HEADER: RecordHeader = RecordHeader { time_ms: 7, db: 0, branch: BranchId::MAIN };

fn open(vfs: impl Vfs + 'static, options: LogOptions) -> Log {
    let (clock, mut rng) = (Arc::new(ManualClock::at_ms(1)), SeededRng::new(7));
    let replay = &mut |_: Record<'_>| Ok(());
    Log::open_manual(
        Arc::new(vfs),
        Path::new(DIR),
        options,
        Revision::ZERO,
        clock,
        &mut rng,
        replay,
    )
    .expect("a whole log")
    .0
}

fn append(log: &Log, count: usize, bytes: usize) {
    for _ in 0..count {
        log.append(log.reserve(), HEADER, &vec![b'x'; bytes]);
    }
}

/// Three sealed segments of four records each, and one that is being written.
fn four_segments(vfs: impl Vfs + 'static) -> Log {
    let log = open(vfs, LogOptions::default());
    for _ in 0..3 {
        append(&log, 4, 10);
        log.roll().expect("a disk that works");
    }
    append(&log, 2, 10);
    log.pump();
    log
}

fn extents(segments: &[SegmentInfo]) -> Vec<(u64, u64)> {
    segments.iter().map(|segment| (segment.first.0, segment.last.0)).collect()
}

#[test]
fn segments_are_what_the_files_are() {
    let vfs = MemVfs::new();
    let log = four_segments(vfs.clone());
    let found = log.segments();
    assert_eq!(extents(&found), [(1, 4), (5, 8), (9, 12), (13, 14)]);
    assert_eq!(found.iter().map(|s| s.is_sealed).collect::<Vec<_>>(), [true, true, true, false]);
    let is_right = |segment: &SegmentInfo| {
        let path = Path::new(DIR).join(format!("{:020}.alog", segment.first.0));
        vfs.len(&path).expect("it is there") == segment.bytes
    };
    assert!(found.iter().all(is_right), "{found:?}");
    log.close().expect("memory does not fail");
    assert!(log.segments().iter().all(is_right), "the closing mark counts");
    let closed = log.segments();
    drop(log);
    assert_eq!(open(vfs, LogOptions::default()).segments(), closed);
}

#[test]
fn a_roll_ends_a_segment_that_holds_something() {
    let log = open(MemVfs::new(), LogOptions::default());
    log.roll().expect("nothing to do");
    assert_eq!(extents(&log.segments()), [(1, 0)]);
    append(&log, 3, 10);
    log.roll().expect("memory does not fail");
    log.roll().expect("nothing to do");
    assert_eq!(extents(&log.segments()), [(1, 3), (4, 3)]);
    assert_eq!(log.durable(), Revision(3));
    append(&log, 1, 10);
    log.pump();
    assert_eq!(extents(&log.segments()), [(1, 3), (4, 4)]);
}

#[test]
fn what_nobody_needs_goes_and_nothing_else() {
    for revision in 0..20 {
        for held in 0..20 {
            let vfs = MemVfs::new();
            let log = four_segments(vfs.clone());
            let hold = log.hold("history");
            assert_eq!(log.remove_before(Revision(20)).expect("memory"), [], "all is held");
            hold.set(Revision(held));
            let other = log.hold("replica");
            other.set(Revision(30));
            let names =
                vec![("history".to_owned(), Revision(held)), ("replica".to_owned(), Revision(30))];
            assert_eq!(log.holders(), names);
            let limit = held.min(revision);
            let removed = log.remove_before(Revision(revision)).expect("memory");
            let gone = (limit / 4).min(3) as usize;
            assert_eq!(extents(&removed), [(1, 4), (5, 8), (9, 12)][..gone]);
            assert_eq!(log.segments().len(), 4 - gone);
            for segment in removed {
                assert!(!vfs.exists(&Path::new(DIR).join(format!("{:020}.alog", segment.first.0))));
            }
            drop((hold, other));
            assert_eq!(log.holders(), []);
            let rest = log.remove_before(Revision(revision)).expect("memory").len();
            assert_eq!(gone + rest, (revision / 4).min(3) as usize, "the hold is gone");
        }
    }
}

/// A reader that was done with a segment does not notice; one that was not is
/// told.
#[test]
fn readers_go_on_behind_what_is_removed() {
    let log = four_segments(MemVfs::new());
    let mut done = log.reader(Revision(1));
    let mut late = log.reader(Revision(1));
    let upto = |last: u64, seen: &mut Vec<u64>, reader: &mut alcid_log::LogReader| {
        reader.read(Duration::ZERO, &mut |record, _| {
            seen.push(record.revision.0);
            if record.revision.0 == last {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    };
    let mut seen = Vec::new();
    while seen.last() != Some(&8) {
        upto(8, &mut seen, &mut done).expect("whole");
    }
    upto(1, &mut Vec::new(), &mut late).expect("whole");
    assert_eq!(log.remove_before(Revision(8)).expect("memory").len(), 2);
    while seen.len() < 14 {
        upto(0, &mut seen, &mut done).expect("whole");
    }
    assert_eq!(seen, (1..=14).collect::<Vec<_>>());
    let error = upto(0, &mut Vec::new(), &mut late).expect_err("removed").to_string();
    assert!(
        error.contains("revision 2 is not in the log") && error.contains("there is 9"),
        "{error}"
    );
    let error = log.read_records(Revision(1), 64).expect_err("removed").to_string();
    assert!(error.contains("revision 1 is not in the log"), "{error}");
}

/// Power may go, or a removal fail, at any step: what is left begins later and
/// has no gap.
#[test]
fn a_removal_that_is_cut_short_leaves_a_suffix() {
    let mut lengths = std::collections::BTreeSet::new();
    for step in 0..8 {
        for seed in 0..20 {
            let vfs = FaultyVfs::new();
            let log = four_segments(vfs.clone());
            vfs.inject(vfs.operations() + step, Fault::Eio);
            let removed = log.remove_before(Revision(12));
            assert_eq!(removed.is_err(), (1..=6).contains(&step), "{removed:?}");
            let crashed = FaultyVfs::with_files(vfs.crash_image(seed));
            let names = crashed.list(Path::new(DIR)).expect("a folder");
            let left: Vec<_> = names.iter().filter(|name| name.ends_with(".alog")).collect();
            let whole = [1, 5, 9, 13].map(|first| format!("{first:020}.alog"));
            assert!(whole.iter().collect::<Vec<_>>().ends_with(&left), "{left:?}");
            lengths.insert(left.len());
            // What failed can be done again.
            vfs.make_room();
            log.remove_before(Revision(12)).expect("no more faults");
            assert_eq!(extents(&log.segments()), [(13, 14)]);
        }
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4], "every state was seen");
}

#[test]
fn what_is_written_at_once_is_cut_into_blocks() {
    let vfs = MemVfs::new();
    let options = LogOptions { block_bytes_max: 1000, ..LogOptions::default() };
    let log = open(vfs.clone(), options);
    append(&log, 500, 32);
    append(&log, 1, 5000);
    append(&log, 30, 32);
    log.pump();
    assert_eq!(log.stats().writes, 1);
    let mut places: Vec<(Revision, Place)> = Vec::new();
    let mut each = |record: Record<'_>, place| {
        places.push((record.revision, place));
        ControlFlow::Continue(())
    };
    while log.reader(Revision(1)).read(Duration::ZERO, &mut each).expect("whole") < 531 {}
    let mut blocks: Vec<u64> = places.iter().map(|(_, place)| place.offset).collect();
    blocks.dedup();
    // 50 bytes a record, 20 to a block.
    assert_eq!(blocks.len(), 25 + 1 + 2);
    for offset in blocks {
        let block = log.read_records(Revision(1), offset).expect("whole");
        let bytes: usize = block.records().map(|(record, _)| 18 + record.effects.len()).sum();
        assert!(bytes <= 1000 || block.records().count() == 1, "{bytes}");
    }
    drop(log);
    assert_eq!(open(vfs, options).newest(), Revision(531));
}

/// What was gathered is spread over segments, none of which exceeds its bound.
#[test]
fn a_large_batch_does_not_exceed_the_segments() {
    let vfs = MemVfs::new();
    let options =
        LogOptions { block_bytes_max: 500, segment_bytes_max: 2000, ..LogOptions::default() };
    let log = open(vfs.clone(), options);
    append(&log, 200, 32);
    log.pump();
    let segments = log.segments();
    assert!(segments.len() >= 5, "{segments:?}");
    assert!(segments.iter().all(|segment| segment.bytes <= 2000 + 36), "{segments:?}");
    assert_eq!(log.stats().records, 200);
    drop(log);
    assert_eq!(open(vfs, options).newest(), Revision(200));
}
