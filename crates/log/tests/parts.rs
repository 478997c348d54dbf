//! Records in several parts: every reader has them whole, and no crash leaves a
//! part of one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alcid_log::{
    Compression, Fault, FaultyVfs, FsyncPolicy, Log, LogError, LogFault, LogOptions, LogReader,
    MemVfs, Place, Record, RecordHeader, RecoveryReport, Vfs, check, read_copy, repair,
};
use base::{BranchId, ManualClock, Revision, Rng, SeededRng};

const DIR: &str = "/data";
const FIRST: &str = "00000000000000000001.alog";

/// Bytes of a segment's header, and of a block's.
const SEGMENT_HEADER: u64 = 64;
const BLOCK_HEADER: u64 = 36;

fn options() -> LogOptions {
    LogOptions { part_bytes_max: 50, block_bytes_max: 300, ..LogOptions::default() }
}

fn header(revision: u64) -> RecordHeader {
    RecordHeader { time_ms: revision * 3, db: (revision % 5) as u16, branch: BranchId(9) }
}

type Seen = Vec<(u64, Vec<u8>)>;

fn open(
    vfs: &(impl Vfs + Clone + 'static),
    options: LogOptions,
    base: u64,
) -> Result<(Log, RecoveryReport, Seen), LogError> {
    let mut seen = Vec::new();
    let (clock, mut rng) = (Arc::new(ManualClock::at_ms(1)), SeededRng::new(7));
    let mut replay = |record: Record<'_>| {
        assert_eq!(record.header, header(record.revision.0));
        seen.push((record.revision.0, record.effects.to_vec()));
        Ok(())
    };
    let (disk, dir) = (Arc::new(vfs.clone()), Path::new(DIR));
    let opened = Log::open_manual(disk, dir, options, Revision(base), clock, &mut rng, &mut replay);
    let (log, report) = opened?;
    Ok((log, report, seen))
}

fn append(log: &Log, effects: &[u8]) -> u64 {
    let revision = log.reserve();
    log.append(revision, header(revision.0), effects);
    revision.0
}

/// Reads on up to a revision.
fn read_on(reader: &mut LogReader, upto: u64) -> Vec<(u64, Vec<u8>, Place)> {
    let mut seen = Vec::new();
    while reader.next_revision().0 <= upto {
        let each = &mut |record: Record<'_>, place| {
            assert_eq!(record.header, header(record.revision.0));
            seen.push((record.revision.0, record.effects.to_vec(), place));
            match record.revision.0 == upto {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        assert!(reader.read(Duration::ZERO, each).expect("whole") > 0);
    }
    seen
}

fn effects_of(seen: &[(u64, Vec<u8>, Place)]) -> Seen {
    seen.iter().map(|(revision, effects, _)| (*revision, effects.clone())).collect()
}

/// Whatever reads the log has these records.
fn all_readers_have(vfs: &MemVfs, log: &Log, expected: &Seen, rng: &mut SeededRng) {
    let last = expected.len() as u64;
    let seen = read_on(&mut log.reader(Revision(1)), last);
    assert_eq!(effects_of(&seen), *expected);
    let mut buffer = Vec::new();
    for (at, (revision, effects, place)) in seen.iter().enumerate() {
        let each = &mut |record: &Record<'_>| {
            assert_eq!((record.revision.0, record.effects), (*revision, &effects[..]));
            assert_eq!(record.header, header(*revision));
        };
        assert!(log.read_record(*place, &mut buffer, each).expect("a block is there"));
        let block = log.read_records(place.segment, place.offset).expect("a block is there");
        let record = block.record(place.index).expect("so many records");
        assert_eq!((record.revision.0, record.effects), (*revision, &effects[..]));
        assert_eq!(record.header, header(*revision));
        assert_eq!(block.records().nth(place.index as usize), Some((record, *place)));
        let mut reader = log.reader_at(*place, Revision(*revision));
        assert_eq!(read_on(&mut reader, last), seen[at..]);
        let (from, stop) = (1 + rng.below(last), 1 + rng.below(last));
        let mut reader = log.reader(Revision(from));
        let pieces = [read_on(&mut reader, stop), read_on(&mut reader, last)].concat();
        assert_eq!(pieces, seen[from as usize - 1..]);
    }
    let (mut copied, dir) = (Seen::new(), Path::new(DIR));
    for segment in log.segments() {
        let path = dir.join(segment.file_name());
        let each = &mut |record: Record<'_>| {
            copied.push((record.revision.0, record.effects.to_vec()));
            ControlFlow::Continue(())
        };
        let end = read_copy(vfs, &path, log.id(), segment.first, each).expect("whole");
        assert_eq!(end, segment.last);
        // By blocks, as an index does.
        let mut at = SEGMENT_HEADER;
        let mut revisions = Vec::new();
        while at < segment.bytes {
            let block = log.read_records(segment.first, at).expect("a block is there");
            revisions.extend(block.records().map(|(record, _)| record.revision.0));
            at = block.next_offset();
        }
        assert_eq!(revisions, (segment.first.0..=segment.last.0).collect::<Vec<_>>());
    }
    assert_eq!(copied, *expected);
    let found = check(vfs, dir, None).expect("readable");
    assert!(found.finding.is_none() && found.report.dropped.is_none(), "{found:?}");
    assert_eq!(found.report.records, last);
}

#[test]
fn every_reader_has_them_whole() {
    let compressions = [Compression::None, Compression::Lz4, Compression::Zstd, Compression::Gzip];
    for seed in 0..24 {
        let mut rng = SeededRng::new(seed);
        let options = LogOptions {
            compression: compressions[seed as usize % 4],
            segment_bytes_max: 300 + rng.below(3000),
            part_bytes_max: 19 + rng.below(200) as usize,
            ..options()
        };
        let vfs = MemVfs::new();
        let (mut log, _, _) = open(&vfs, options, 0).expect("a new log");
        let mut expected = Seen::new();
        let (mut follower, mut followed) = (log.reader(Revision(1)), Vec::new());
        for _ in 0..40 {
            let most = if rng.below(3) == 0 { 3000 } else { 60 };
            let byte = rng.below(256) as u8;
            let effects: Vec<u8> = (0..rng.below(most)).map(|at| byte ^ (at % 7) as u8).collect();
            expected.push((append(&log, &effects), effects));
            if rng.below(3) == 0 {
                log.pump();
                followed.extend(read_on(&mut follower, log.newest().0));
            }
            if rng.below(15) == 0 {
                log.close().expect("memory does not fail");
                drop(log);
                let (again, report, replayed) = open(&vfs, options, 0).expect("whole");
                assert_eq!((report.dropped, &replayed), (None, &expected));
                log = again;
                follower = log.reader(follower.next_revision());
            }
        }
        log.pump();
        followed.extend(read_on(&mut follower, log.newest().0));
        assert_eq!(effects_of(&followed), expected, "seed {seed}");
        all_readers_have(&vfs, &log, &expected, &mut rng);

        // Written anew, some of them larger or smaller.
        for segment in log.segments().iter().filter(|segment| segment.is_sealed) {
            let mut change = |record: &Record<'_>| match rng.below(3) {
                0 => Some(vec![7; (rng.below(2) * rng.below(2000)) as usize]),
                _ => Some(record.effects.to_vec()),
            };
            let mut changed = BTreeMap::new();
            let rewritten = log.rewrite(segment.first, &mut |record| {
                let effects = change(record)?;
                changed.insert(record.revision.0, effects.clone());
                Some(effects)
            });
            let rewritten = rewritten.expect("readable").expect("all were changed");
            assert!(rewritten.put_in_place("backup").expect("room"));
            for (revision, effects) in &mut expected {
                if let Some(other) = changed.remove(revision) {
                    *effects = other;
                }
            }
        }
        all_readers_have(&vfs, &log, &expected, &mut rng);
        drop(log);
        assert_eq!(open(&vfs, options, 0).expect("whole").2, expected, "seed {seed}");
    }
}

/// A log with a small record, one in parts, and maybe another small one: where
/// the one in parts begins and ends, and the file.
fn sample(more: bool, is_closed: bool) -> (BTreeMap<PathBuf, Vec<u8>>, u64, u64) {
    let vfs = MemVfs::new();
    let options = LogOptions { fsync: FsyncPolicy::No, ..options() };
    let (log, _, _) = open(&vfs, options, 0).expect("a new log");
    let len = || vfs.len(&Path::new(DIR).join(FIRST)).expect("it is there");
    append(&log, b"before");
    log.pump();
    let begin = len();
    append(&log, &[b'x'; 400]);
    log.pump();
    let end = len();
    if more {
        append(&log, b"after");
        log.pump();
    }
    if is_closed {
        log.close().expect("memory does not fail");
    }
    (vfs.files(), begin, end)
}

fn with(files: &BTreeMap<PathBuf, Vec<u8>>, change: impl FnOnce(&mut Vec<u8>)) -> MemVfs {
    let mut files = files.clone();
    change(files.get_mut(&Path::new(DIR).join(FIRST)).expect("it is there"));
    MemVfs::with_files(files)
}

#[test]
fn a_torn_one_is_cut_off_from_its_first_part_on() {
    let (files, begin, end) = sample(false, false);
    for cut in begin + 1..end {
        let vfs = with(&files, |bytes| bytes.truncate(cut as usize));
        let found = check(&vfs, Path::new(DIR), None).expect("readable");
        assert!(found.finding.is_none(), "cut at {cut}: {found:?}");
        let (log, report, replayed) = open(&vfs, options(), 0).expect("a torn tail");
        assert_eq!(replayed, [(1, b"before".to_vec())], "cut at {cut}");
        let dropped = report.dropped.expect("reported");
        assert_eq!((dropped.offset, dropped.bytes), (begin, cut - begin), "{dropped:?}");
        assert!(dropped.what.starts_with("the file ends within a "), "{dropped:?}");
        append(&log, &[b'y'; 100]);
        log.close().expect("memory does not fail");
        drop(log);
        let (_, report, replayed) = open(&vfs, options(), 0).expect("whole again");
        assert_eq!((report.dropped, replayed.len()), (None, 2));
    }
}

#[test]
fn damage_of_any_part_is_damage_of_all_of_it() {
    let (files, begin, end) = sample(true, true);
    for at in begin..end {
        let vfs = with(&files, |bytes| bytes[at as usize] ^= 1);
        let error = open(&vfs, options(), 0).expect_err("it was durable").to_string();
        // The block that is damaged.
        let block = begin + (at - begin) / (50 + BLOCK_HEADER) * (50 + BLOCK_HEADER);
        assert!(error.contains(&format!("at byte {block} is damaged")), "{at}: {error}");
        let (saved, last) = repair(&vfs, Path::new(DIR), None).expect("a cut mends it");
        assert_eq!((saved.len(), last), (1, Revision(1)));
        let bytes = vfs.len(&Path::new(DIR).join(FIRST)).expect("it is there");
        assert_eq!(bytes, begin, "nothing of it is left");
        assert_eq!(open(&vfs, options(), 0).expect("mended").2.len(), 1);
    }
}

/// A later part never passes for what the log goes on with.
#[test]
fn damage_below_a_base_takes_all_parts() {
    let (files, begin, end) = sample(true, true);
    for at in (begin..end).step_by(7) {
        let damaged = || with(&files, |bytes| bytes[at as usize] ^= 1);
        assert!(open(&damaged(), options(), 1).is_err(), "it is needed");
        let vfs = damaged();
        for _ in 0..2 {
            let (log, _, replayed) = open(&vfs, options(), 2).expect("nothing needed is lost");
            assert_eq!(replayed, [(3, b"after".to_vec())], "damage at {at}");
            assert_eq!(log.segments()[0].first, Revision(3));
        }
    }
}

/// Parts that are there and are not all, of a segment that others follow.
#[test]
fn one_that_is_not_whole_in_an_older_segment_is_damage() {
    let (files, begin, end) = sample(false, false);
    let vfs = MemVfs::with_files(files.clone());
    let (log, _, _) = open(&vfs, options(), 0).expect("whole");
    log.roll().expect("room");
    append(&log, b"in the next segment");
    log.close().expect("memory does not fail");
    drop(log);
    let files = vfs.files();
    for cut in [begin + 50 + BLOCK_HEADER, end - 1, begin + 1] {
        let vfs = with(&files, |bytes| bytes.truncate(cut as usize));
        let error = open(&vfs, options(), 0).expect_err("it was synced").to_string();
        assert!(error.contains("the file ends within a "), "{error}");
        let (_, last) = repair(&vfs, Path::new(DIR), None).expect("a cut mends it");
        assert_eq!(last, Revision(1));
    }
}

/// Readers who follow see the record when all of it is there.
#[test]
fn a_disk_that_fills_up_keeps_none_of_it() {
    for operation in 1..14 {
        let vfs = FaultyVfs::new();
        let (log, _, _) = open(&vfs, options(), 0).expect("a new log");
        append(&log, b"before");
        log.pump();
        let path = Path::new(DIR).join(FIRST);
        let len = || vfs.len(&path).expect("it is there");
        let begin = len();
        vfs.inject(vfs.operations() + operation, Fault::NoSpace);
        append(&log, &[b'x'; 400]);
        log.pump();
        let mut reader = log.reader(Revision(2));
        let mut seen = 0;
        let mut each = |_: Record<'_>, _: Place| {
            seen += 1;
            ControlFlow::Continue(())
        };
        if let Some(fault) = log.fault() {
            assert!(matches!(fault, LogFault::Full(_)), "{fault}");
            assert_eq!(len(), begin, "operation {operation}");
            assert_eq!(reader.read(Duration::ZERO, &mut each).expect("whole"), 0);
            vfs.make_room();
            log.resume().expect("there is room");
        }
        vfs.make_room();
        assert_eq!(reader.read(Duration::ZERO, &mut each).expect("whole"), 1);
        append(&log, b"after");
        log.close().expect("there is room");
        drop(log);
        let sizes: Vec<_> = open(&vfs, options(), 0).expect("whole").2;
        let sizes: Vec<_> = sizes.iter().map(|(_, effects)| effects.len()).collect();
        assert_eq!(sizes, [6, 400, 5]);
    }
}

/// They stand in one segment, which may be longer than others for it.
#[test]
fn all_parts_are_in_one_segment() {
    let vfs = MemVfs::new();
    let options = LogOptions { segment_bytes_max: 500, ..options() };
    let (log, _, _) = open(&vfs, options, 0).expect("a new log");
    for effects in [vec![1; 200], vec![2; 200], vec![3; 2000], vec![4; 1]] {
        append(&log, &effects);
    }
    log.close().expect("memory does not fail");
    let revisions: Vec<_> =
        log.segments().iter().map(|segment| (segment.first.0, segment.last.0)).collect();
    assert_eq!(revisions, [(1, 1), (2, 2), (3, 3), (4, 4)]);
}
