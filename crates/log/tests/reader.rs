//! Following a log: every committed transaction once, in order, in its place.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alcid_log::{
    Compression, FsyncPolicy, Log, LogOptions, LogReader, MemVfs, Place, Record, RecordHeader, Vfs,
};
use base::{BranchId, ManualClock, Revision, SeededRng};

const DIR: &str = "/data";
const HEADER: RecordHeader = RecordHeader { time_ms: 7, db: 0, branch: BranchId::MAIN };

fn open(vfs: &MemVfs, options: LogOptions) -> Log {
    let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let (clock, mut rng) = (Arc::new(ManualClock::at_ms(1)), SeededRng::new(7));
    Log::open_manual(
        disk,
        Path::new(DIR),
        options,
        Revision::ZERO,
        clock,
        &mut rng,
        &mut |_| Ok(()),
    )
    .expect("a whole log")
    .0
}

fn small() -> LogOptions {
    LogOptions { segment_bytes_max: 400, ..LogOptions::default() }
}

fn effects(revision: u64) -> String {
    format!("effects of {revision}")
}

fn append(log: &Log, count: u64) {
    for _ in 0..count {
        let revision = log.reserve();
        log.append(revision, HEADER, effects(revision.0).as_bytes());
    }
    log.pump();
}

/// Reads all there is without waiting.
fn read_all(reader: &mut LogReader) -> Vec<(u64, Place)> {
    let mut found = Vec::new();
    let mut each = |record: Record<'_>, place| {
        assert_eq!(record.effects, effects(record.revision.0).as_bytes());
        assert_eq!(record.header, HEADER);
        found.push((record.revision.0, place));
        ControlFlow::Continue(())
    };
    while reader.read(Duration::ZERO, &mut each).expect("a whole log") > 0 {}
    found
}

fn revisions(found: &[(u64, Place)]) -> Vec<u64> {
    found.iter().map(|(revision, _)| *revision).collect()
}

#[test]
fn it_follows_from_any_revision_over_segments_and_compressions() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd, Compression::Gzip] {
        let vfs = MemVfs::new();
        let log = open(&vfs, LogOptions { compression, ..small() });
        for count in [1, 5, 20, 1, 3] {
            append(&log, count);
        }
        assert!(log.stats().segments > 1, "{:?}", log.stats());
        for from in 1..=30 {
            let mut reader = log.reader(Revision(from));
            assert_eq!(revisions(&read_all(&mut reader)), (from..=30).collect::<Vec<_>>());
            assert_eq!(reader.next_revision(), Revision(31));
        }
        let mut reader = log.reader(Revision(25));
        read_all(&mut reader);
        append(&log, 10);
        assert_eq!(revisions(&read_all(&mut reader)), (31..=40).collect::<Vec<_>>());
    }
}

#[test]
fn a_place_leads_back_to_its_record() {
    let log = open(&MemVfs::new(), small());
    for count in [1, 5, 20] {
        append(&log, count);
    }
    let found = read_all(&mut log.reader(Revision(1)));
    assert_eq!(found.len(), 26);
    for (revision, place) in found {
        let block = log.read_records(place.segment, place.offset).expect("a whole block");
        let (record, again) = block.records().nth(place.index as usize).expect("it is in it");
        assert_eq!((record.revision, again), (Revision(revision), place));
        assert_eq!(record.effects, effects(revision).as_bytes());
    }
    let error = log.read_records(Revision(1), 65).expect_err("no block begins there");
    assert!(error.to_string().contains("at byte 65 is damaged"), "{error}");
    let nowhere = Place { segment: Revision(1), offset: 65, index: 0 };
    let each = &mut |record: &Record<'_>| panic!("{record:?}");
    let same = log.read_record(nowhere, &mut Vec::new(), each).expect_err("none there either");
    assert_eq!(same.to_string(), error.to_string());
}

#[test]
fn one_record_is_read_from_a_block_of_any_length() {
    let log = open(&MemVfs::new(), LogOptions::default());
    let lengths = [10, 100_000, 8_000, 9_000, 0, 20];
    for length in lengths {
        let revision = log.reserve();
        log.append(revision, HEADER, &vec![length as u8; length]);
        log.pump();
    }
    let mut places = Vec::new();
    let mut each = |_: Record<'_>, place| {
        places.push(place);
        ControlFlow::Continue(())
    };
    let mut reader = log.reader(Revision(1));
    while reader.read(Duration::ZERO, &mut each).expect("a whole log") > 0 {}
    let mut buffer = Vec::new();
    for (place, length) in places.into_iter().zip(lengths) {
        let mut found = 0;
        let each = &mut |record: &Record<'_>| {
            assert_eq!(record.effects, vec![length as u8; length]);
            found += 1;
        };
        assert!(log.read_record(place, &mut buffer, each).expect("a whole block"));
        let beyond = Place { index: place.index + 9, ..place };
        assert!(!log.read_record(beyond, &mut buffer, each).expect("a whole block"));
        assert_eq!(found, 1);
    }
}

#[test]
fn what_ends_a_visit_goes_on_behind_the_record() {
    let log = open(&MemVfs::new(), small());
    append(&log, 9);
    let mut reader = log.reader(Revision(1));
    for expected in 1..=9 {
        let mut seen = Vec::new();
        let mut each = |record: Record<'_>, _| {
            seen.push(record.revision.0);
            ControlFlow::Break(())
        };
        assert_eq!(reader.read(Duration::ZERO, &mut each).expect("whole"), 1);
        assert_eq!(seen, [expected]);
    }
    assert_eq!(read_all(&mut reader), []);
}

#[test]
fn under_always_it_shows_what_is_durable_and_nothing_else() {
    let vfs = MemVfs::new();
    let log = open(&vfs, LogOptions { fsync: FsyncPolicy::No, ..small() });
    append(&log, 3);
    log.set_fsync(FsyncPolicy::Always);
    let mut reader = log.reader(Revision(1));
    assert_eq!((log.durable(), read_all(&mut reader)), (Revision(0), vec![]));
    log.pump();
    assert_eq!(revisions(&read_all(&mut reader)), [1, 2, 3]);
}

/// The wait ends with the record, with the waker, or with neither in vain.
#[test]
fn a_wait_ends_with_a_record_or_the_waker() {
    let log = open(&MemVfs::new(), small());
    let mut reader = log.reader(Revision(1));
    let waker = reader.waker();
    let forever = Duration::MAX;
    let mut wait = |meanwhile: &dyn Fn()| {
        std::thread::scope(|scope| {
            let reader = &mut reader;
            let waiting = scope.spawn(move || {
                reader.read(forever, &mut |_, _| ControlFlow::Continue(())).expect("a whole log")
            });
            meanwhile();
            waiting.join().expect("no panic")
        })
    };
    waker.wake();
    assert_eq!(wait(&|| {}), 0, "woken before the wait");
    for _ in 0..200 {
        assert_eq!(wait(&|| append(&log, 1)), 1);
        assert_eq!(wait(&|| waker.wake()), 0);
    }
}

#[test]
fn damage_of_what_was_committed_is_an_error_that_names_the_place() {
    let vfs = MemVfs::new();
    let log = open(&vfs, small());
    append(&log, 3);
    let path = Path::new(DIR).join("00000000000000000001.alog");
    let mut bytes = vfs.read(&path).expect("it is there");
    bytes[110] ^= 1;
    vfs.write(&path, bytes);
    let mut nothing = |_: Record<'_>, _| ControlFlow::Continue(());
    let error = log.reader(Revision(1)).read(Duration::ZERO, &mut nothing).expect_err("damage");
    assert!(error.to_string().contains("00000000000000000001.alog at byte 64"), "{error}");
    assert!(error.to_string().contains("revision 1 was committed"), "{error}");
}
