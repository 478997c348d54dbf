//! Random histories over a disk that loses power at any moment: whatever was
//! acknowledged is there, and what is there is a prefix of history.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alcid_log::{
    Compression, Fault, FaultyVfs, FsyncPolicy, Log, LogFault, LogOptions, Place, Record,
    RecordHeader, RecoveryReport, Vfs, check,
};
use base::{BranchId, ManualClock, Revision, Rng, SeededRng};

const DIR: &str = "/data";

fn options(rng: &mut SeededRng, fsync: FsyncPolicy) -> LogOptions {
    let compressions = [Compression::None, Compression::Lz4, Compression::Zstd, Compression::Gzip];
    LogOptions {
        fsync,
        compression: compressions[rng.below(4) as usize],
        segment_bytes_max: 200 + rng.below(2000),
        block_bytes_max: rng.below(300) as usize,
        // About half of all records are written in parts, or none.
        part_bytes_max: [25, 60, 16 << 20][rng.below(3) as usize],
        ..LogOptions::default()
    }
}

/// The effects of a revision: anything that names it.
fn effects(revision: Revision) -> Vec<u8> {
    let len = (revision.0 * 7919 % 90) as usize;
    let mut bytes = revision.0.to_le_bytes().to_vec();
    bytes.resize(8 + len, revision.0 as u8);
    bytes
}

fn header(revision: Revision) -> RecordHeader {
    RecordHeader {
        time_ms: revision.0 * 10,
        db: (revision.0 % 16) as u16,
        branch: BranchId((revision.0 % 3) as u32),
    }
}

fn open(
    vfs: &FaultyVfs,
    options: LogOptions,
    base: Revision,
    clock: &Arc<ManualClock>,
) -> Result<(Log, RecoveryReport), String> {
    let mut last = base;
    let mut replay = |record: alcid_log::Record<'_>| {
        assert_eq!(record.revision, last.next(), "revisions are dense");
        assert_eq!(record.effects, effects(record.revision));
        assert_eq!(record.header, header(record.revision));
        last = record.revision;
        Ok(())
    };
    let vfs: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let mut rng = SeededRng::new(1);
    let opened =
        Log::open_manual(vfs, Path::new(DIR), options, base, clock.clone(), &mut rng, &mut replay);
    let opened = opened.map_err(|error| error.to_string())?;
    assert_eq!(opened.1.last, last);
    Ok(opened)
}

/// Appends some records, a few of them out of order.
fn append_some(log: &Log, rng: &mut SeededRng) {
    let count = 1 + rng.below(4);
    let mut revisions: Vec<Revision> = (0..count).map(|_| log.reserve()).collect();
    if rng.below(3) == 0 {
        revisions.reverse();
    }
    for revision in revisions {
        log.append(revision, header(revision), &effects(revision));
    }
}

/// Does what an archive does that reaches the disk at once: reads on, up to
/// anywhere, and removes what it no longer needs. Answers what it has reached.
fn archive(log: &Log, base: Revision, rng: &mut SeededRng) -> Revision {
    let mut reached = base;
    let mut each = |record: Record<'_>, _: Place| {
        assert_eq!(record.revision, reached.next());
        assert_eq!(record.effects, effects(record.revision));
        reached = record.revision;
        if rng.below(5) == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    log.reader(base.next()).read(Duration::ZERO, &mut each).expect("a whole log");
    reached
}

/// Removes what the archive does not need, in part held by somebody else.
fn remove(log: &Log, base: Revision, rng: &mut SeededRng) {
    let hold = log.hold("history");
    let needed = Revision(rng.below(base.0 + 1));
    hold.set(needed);
    let before = log.segments();
    let Ok(removed) = log.remove_before(base) else { return };
    assert_eq!(before, [removed.clone(), log.segments()].concat(), "the oldest went");
    assert!(removed.iter().all(|segment| segment.is_sealed && segment.last <= needed));
    let oldest = log.segments()[0];
    assert!(!oldest.is_sealed || oldest.last > needed, "and all of them");
}

/// Answers how often the log ended before what the archive had reached.
fn history(seed: u64) -> usize {
    let mut rng = SeededRng::new(seed);
    let clock = Arc::new(ManualClock::at_ms(1));
    let policies = [FsyncPolicy::Always, FsyncPolicy::EverySec, FsyncPolicy::No];
    let policy = policies[rng.below(3) as usize];
    let mut vfs = FaultyVfs::new();
    let mut acknowledged = Revision::ZERO;
    let mut newest = Revision::ZERO;
    let mut base = Revision::ZERO;
    let mut early_ends = 0;
    for life in 0..4 {
        let (log, report) = open(&vfs, options(&mut rng, policy), base, &clock)
            .unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        let recovered = report.last;
        early_ends += usize::from(report.ended_early.is_some());
        assert!(
            recovered >= acknowledged,
            "seed {seed}: {acknowledged} was lost, {recovered} is left"
        );
        assert!(recovered <= newest, "seed {seed}: {recovered} was never written");
        for _ in 0..rng.below(12) {
            match rng.below(12) {
                0 => clock.advance_ms(1100),
                1 => log.request_sync(),
                2 => log.set_compression(Compression::Lz4),
                3 => log.roll().expect("a disk that works"),
                4 | 5 => base = archive(&log, base, &mut rng),
                6 => remove(&log, base, &mut rng),
                _ => append_some(&log, &mut rng),
            }
            if rng.below(2) == 0 {
                log.pump();
            }
        }
        newest = log.newest();
        acknowledged = log.durable();
        if rng.below(4) == 0 {
            log.close().expect("a disk that works");
            acknowledged = newest;
        }
        let image = vfs.crash_image(rng.next_u64());
        drop(log);
        vfs = FaultyVfs::with_files(image);
        if newest > Revision::ZERO {
            for base in [None, Some(base)] {
                let found = check(&vfs, Path::new(DIR), base).expect("a manifest");
                assert!(found.finding.is_none(), "seed {seed}, life {life}: {found:?}");
            }
        }
        if rng.below(3) == 0 {
            // Power goes again while the server recovers.
            let _ = open(&vfs, options(&mut rng, policy), base, &clock);
            vfs = FaultyVfs::with_files(vfs.crash_image(rng.next_u64()));
        }
    }
    early_ends
}

#[test]
fn acknowledged_transactions_survive_power_cuts() {
    let rounds = std::env::var("CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4000);
    let early_ends: usize = (0..rounds).map(history).sum();
    assert!(early_ends > 0 || rounds < 1000, "the archive was never ahead");
}

/// A fault at the n-th operation, for every n there is.
#[test]
fn faults_at_every_operation_lose_nothing_acknowledged() {
    for fault in [Fault::NoSpace, Fault::NoQuota, Fault::Eio] {
        for operation in 1..60 {
            for seed in 0..6 {
                run_with_fault(fault, operation, seed);
            }
        }
    }
}

/// Room that is missing just when a segment ends is waited for, whatever the reason.
#[test]
fn a_segment_that_finds_no_room_is_begun_later() {
    for fault in [Fault::NoSpace, Fault::NoQuota] {
        for operation in 1..5 {
            let context = format!("{fault:?} at operation {operation}");
            let (mut rng, clock) = (SeededRng::new(operation), Arc::new(ManualClock::at_ms(1)));
            let vfs = FaultyVfs::new();
            let settings = options(&mut rng, FsyncPolicy::Always);
            let (log, _) = open(&vfs, settings, Revision::ZERO, &clock).expect("nothing fails yet");
            append_some(&log, &mut rng);
            log.pump();
            assert_eq!(log.durable(), log.newest(), "{context}");
            // Behind the sync of the segment that ends: the next one's file, its
            // header, its sync, the folder's.
            vfs.inject(vfs.operations() + 1 + operation, fault);
            assert!(matches!(log.roll(), Err(LogFault::Full(_))), "{context}");
            vfs.make_room();
            log.resume().unwrap_or_else(|error| panic!("{context}: {error}"));
            append_some(&log, &mut rng);
            log.roll().unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(log.durable(), log.newest(), "{context}");
        }
    }
}

fn run_with_fault(fault: Fault, operation: u64, seed: u64) {
    let context = format!("{fault:?} at operation {operation}, seed {seed}");
    let mut rng = SeededRng::new(seed);
    let clock = Arc::new(ManualClock::at_ms(1));
    let vfs = FaultyVfs::new();
    vfs.inject(operation, fault);
    let settings = LogOptions { segment_bytes_max: 300, ..options(&mut rng, FsyncPolicy::Always) };
    let opened = open(&vfs, settings, Revision::ZERO, &clock);
    let mut base = Revision::ZERO;
    let (mut acknowledged, mut newest) = (Revision::ZERO, Revision::ZERO);
    if let Ok((log, _)) = opened {
        for _ in 0..12 {
            append_some(&log, &mut rng);
            // A segment that cannot be begun on a full disk leaves nothing that
            // waits, see below.
            if fault == Fault::Eio && rng.below(3) == 0 {
                let _ = log.roll();
            }
            log.pump();
            acknowledged = log.durable();
            newest = log.newest();
            if rng.below(3) == 0 {
                base = archive(&log, base, &mut rng);
                remove(&log, base, &mut rng);
            }
            match log.fault() {
                None => {}
                Some(LogFault::Poisoned(_)) => {
                    // Poisoned stays poisoned, whatever the disk says later.
                    vfs.make_room();
                    assert!(log.resume().is_err(), "{context}");
                    append_some(&log, &mut rng);
                    log.pump();
                    assert_eq!(log.durable(), acknowledged, "{context}");
                    newest = log.newest();
                    break;
                }
                Some(LogFault::Full(_)) => {
                    assert_ne!(fault, Fault::Eio, "{context}");
                    assert!(log.resume().is_err(), "{context}: it is still full");
                    vfs.make_room();
                    log.resume().unwrap_or_else(|error| panic!("{context}: {error}"));
                    assert_eq!(log.durable(), log.newest(), "{context}: what waited is written");
                    acknowledged = log.durable();
                }
            }
        }
    }
    vfs.make_room();
    let crashed = FaultyVfs::with_files(vfs.crash_image(seed));
    let (_, report) =
        open(&crashed, settings, base, &clock).unwrap_or_else(|error| panic!("{context}: {error}"));
    let recovered = report.last;
    assert!(recovered >= acknowledged, "{context}: {acknowledged} was lost, {recovered} is left");
    assert!(recovered <= newest, "{context}");
}
