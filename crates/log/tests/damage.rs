//! Damage at rest: nothing is ever replayed that was not written, and nothing
//! durable is cut off silently.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alcid_log::{
    Log, LogError, LogOptions, MemVfs, RecordHeader, RecoveryReport, Vfs, check, repair,
};
use base::{BranchId, ManualClock, Revision, SeededRng};

const DIR: &str = "/data";

type Replayed = Vec<(Revision, Vec<u8>)>;

fn open(vfs: &MemVfs, options: LogOptions) -> Result<(Log, RecoveryReport, Replayed), LogError> {
    let mut replayed = Vec::new();
    let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let (log, report) = Log::open_manual(
        disk,
        Path::new(DIR),
        options,
        Revision::ZERO,
        Arc::new(ManualClock::at_ms(1_700_000_000_000)),
        &mut SeededRng::new(7),
        &mut |record| {
            replayed.push((record.revision, record.effects.to_vec()));
            Ok(())
        },
    )?;
    Ok((log, report, replayed))
}

fn small() -> LogOptions {
    LogOptions { segment_bytes_max: 400, ..LogOptions::default() }
}

fn append(log: &Log, count: u64) {
    for _ in 0..count {
        let revision = log.reserve();
        let header = RecordHeader { time_ms: 1_700_000_000_000, db: 0, branch: BranchId::MAIN };
        log.append(revision, header, format!("effects of {revision}").as_bytes());
        log.pump();
    }
}

/// A log of several segments, closed in order.
fn sample(count: u64) -> MemVfs {
    let vfs = MemVfs::new();
    let (log, _, _) = open(&vfs, small()).expect("a new log");
    append(&log, count);
    log.close().expect("memory does not fail");
    drop(log);
    vfs
}

fn segments(vfs: &MemVfs) -> Vec<PathBuf> {
    vfs.files().into_keys().filter(|path| path.extension().is_some_and(|e| e == "alog")).collect()
}

fn refusal(vfs: &MemVfs) -> String {
    match open(vfs, small()) {
        Ok((_, report, _)) => panic!("started: {report:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    no_flipped_bit_goes_unnoticed_in(&sample(12));
    // Each in several parts.
    let vfs = MemVfs::new();
    let parts = LogOptions { part_bytes_max: 22, ..small() };
    let (log, _, _) = open(&vfs, parts).expect("a new log");
    append(&log, 3);
    log.close().expect("memory does not fail");
    drop(log);
    no_flipped_bit_goes_unnoticed_in(&vfs);
}

fn no_flipped_bit_goes_unnoticed_in(vfs: &MemVfs) {
    let (_, _, whole) = open(&vfs.snapshot(), small()).expect("undamaged");
    let files = vfs.files();
    for (path, bytes) in &files {
        if path.ends_with("LOCK") {
            continue;
        }
        for offset in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged: BTreeMap<_, _> = files.clone();
                damaged.get_mut(path).expect("it is there")[offset] ^= 1 << bit;
                let vfs = MemVfs::with_files(damaged);
                if let Ok((_, report, replayed)) = open(&vfs, small()) {
                    // Only the closing mark holds no transaction; without it
                    // the tail is cut, said so, and nothing is missing.
                    assert_eq!(replayed, whole, "{} byte {offset} bit {bit}", path.display());
                    assert!(report.dropped.is_some(), "{} byte {offset} bit {bit}", path.display());
                }
            }
        }
    }
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_record() {
    let vfs = MemVfs::new();
    let (log, _, _) = open(&vfs, LogOptions::default()).expect("a new log");
    append(&log, 5);
    // No close: as after kill -9.
    let files = vfs.files();
    drop(log);
    let path = segments(&vfs)[0].clone();
    let bytes = files[&path].clone();
    for cut in 1..40 {
        let mut files = files.clone();
        files.insert(path.clone(), bytes[..bytes.len() - cut].to_vec());
        let vfs = MemVfs::with_files(files);
        let (log, report, replayed) = open(&vfs, LogOptions::default()).expect("a torn tail");
        assert_eq!(replayed.len(), 4, "cut {cut}");
        let dropped = report.dropped.expect("reported");
        assert_eq!(dropped.path, path);
        assert!(dropped.bytes > 0);
        append(&log, 1);
        log.close().expect("memory does not fail");
        drop(log);
        let (_, report, replayed) = open(&vfs, LogOptions::default()).expect("whole again");
        assert_eq!((replayed.len(), report.dropped), (5, None));
    }
    // Zeros after the end, as a file system leaves them, are no record either.
    let mut zeros = files;
    zeros.get_mut(&path).expect("it is there").extend_from_slice(&[0; 500]);
    let (_, report, replayed) =
        open(&MemVfs::with_files(zeros), LogOptions::default()).expect("zeros");
    assert_eq!(replayed.len(), 5);
    assert_eq!(report.dropped.map(|dropped| dropped.bytes), Some(500));
}

#[test]
fn damage_before_the_tail_refuses_with_file_offset_and_command() {
    let vfs = sample(12);
    let path = segments(&vfs)[0].clone();
    let mut bytes = vfs.read(&path).expect("it is there");
    bytes[120] ^= 1;
    vfs.write(&path, bytes);
    let message = refusal(&vfs);
    assert!(message.contains("00000000000000000001.alog at byte 64"), "{message}");
    assert!(message.contains("alcid log check"), "{message}");
}

#[test]
fn missing_swapped_and_foreign_segments_are_refused() {
    let vfs = sample(40);
    let names = segments(&vfs);
    assert!(names.len() >= 4, "{names:?}");
    for gone in &names {
        let vfs = vfs.snapshot();
        vfs.remove(gone).expect("it is there");
        let message = refusal(&vfs);
        assert!(message.contains("is missing from"), "{message}");
    }
    let swapped = vfs.snapshot();
    let (a, b) = (vfs.read(&names[0]).unwrap(), vfs.read(&names[1]).unwrap());
    swapped.write(&names[0], b);
    swapped.write(&names[1], a);
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let said = format!("{} is what was written as {}", names[0].display(), name(&names[1]));
    assert!(refusal(&swapped).contains(&said), "{}", refusal(&swapped));
    // Nothing is lost, so nothing is cut.
    assert!(repair(&swapped, Path::new(DIR), None).is_err());
    assert_eq!(swapped.read(&names[0]).unwrap(), vfs.read(&names[1]).unwrap());

    // The same history of another database.
    let other = MemVfs::new();
    let disk: Arc<dyn Vfs> = Arc::new(other.clone());
    let clock = Arc::new(ManualClock::at_ms(1));
    let mut rng = SeededRng::new(99);
    let (log, _) = Log::open_manual(
        disk,
        Path::new(DIR),
        small(),
        Revision::ZERO,
        clock,
        &mut rng,
        &mut |_| Ok(()),
    )
    .unwrap();
    append(&log, 40);
    log.close().unwrap();
    let foreign = vfs.snapshot();
    foreign.write(&names[1], other.read(&names[1]).expect("the same sizes"));
    assert!(refusal(&foreign).contains("another database"), "{}", refusal(&foreign));

    let nameless = vfs.snapshot();
    nameless.remove(&Path::new(DIR).join("MANIFEST")).unwrap();
    assert!(refusal(&nameless).contains("MANIFEST is not there"), "{}", refusal(&nameless));
}

#[test]
fn a_newer_format_is_refused() {
    let vfs = sample(3);
    let path = segments(&vfs)[0].clone();
    let mut bytes = vfs.read(&path).unwrap();
    bytes[8] = 9;
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    vfs.write(&path, bytes);
    assert!(refusal(&vfs).contains("format version 9"), "{}", refusal(&vfs));
}

#[test]
fn a_second_server_is_refused() {
    let vfs = sample(1);
    let (_held, _, _) = open(&vfs, small()).expect("the first");
    assert!(refusal(&vfs).contains("in use by another server"));
}

#[test]
fn check_names_the_damage_and_repair_cuts_there_keeping_copies() {
    let vfs = sample(40);
    let names = segments(&vfs);
    let report = check(&vfs, Path::new(DIR), Some(Revision::ZERO)).expect("readable");
    assert!(report.finding.is_none());
    assert_eq!(report.report.last, Revision(40));
    let mut bytes = vfs.read(&names[2]).unwrap();
    let middle = bytes.len() - 60;
    bytes[middle] ^= 0x10;
    vfs.write(&names[2], bytes.clone());
    let finding = check(&vfs, Path::new(DIR), Some(Revision::ZERO))
        .expect("readable")
        .finding
        .expect("damage");
    assert!(finding.error.to_string().contains("is damaged"));
    let (saved, last) = repair(&vfs, Path::new(DIR), Some(Revision::ZERO)).expect("mendable");
    assert_eq!(last, finding.last_whole);
    assert_eq!(saved.len(), names.len() - 2, "{saved:?}");
    assert_eq!(vfs.read(&saved[0]).unwrap(), bytes);
    let (log, report, replayed) = open(&vfs, small()).expect("starts again");
    assert_eq!(report.last, last);
    assert_eq!(replayed.len() as u64, last.0);
    append(&log, 3);
    log.close().unwrap();
    drop(log);
    assert_eq!(open(&vfs, small()).expect("whole").1.last, Revision(last.0 + 3));
}

#[test]
fn repair_of_a_log_without_its_newest_segment_keeps_all_others() {
    let vfs = sample(40);
    let names = segments(&vfs);
    vfs.remove(names.last().expect("several")).expect("it is there");
    let finding = check(&vfs, Path::new(DIR), Some(Revision::ZERO))
        .expect("readable")
        .finding
        .expect("damage");
    assert!(finding.last_whole > Revision(30), "{finding:?}");
    let (saved, last) = repair(&vfs, Path::new(DIR), Some(Revision::ZERO)).expect("mendable");
    assert_eq!((saved, last), (Vec::new(), finding.last_whole));
    assert_eq!(open(&vfs, small()).expect("starts again").1.last, last);
}

/// What nothing proves to have been synced is cut, but never in silence: it may
/// have been, and be damaged since.
#[test]
fn a_damaged_tail_is_kept_in_a_copy() {
    let vfs = MemVfs::new();
    let (log, _, _) = open(&vfs, LogOptions::default()).expect("a new log");
    let mut begins = Vec::new();
    for _ in 0..5 {
        begins.push(vfs.read(&segments(&vfs)[0]).expect("there").len());
        append(&log, 1);
    }
    // No close: as after kill -9. Nothing was synced.
    let vfs = vfs.snapshot();
    drop(log);
    let path = segments(&vfs)[0].clone();
    let copy = PathBuf::from(format!("{}.damaged-1", path.display()));
    let whole = vfs.read(&path).expect("there");
    let cut_at = |block: usize, damage: &dyn Fn(&mut [u8])| {
        let vfs = vfs.snapshot();
        let mut bytes = whole.clone();
        damage(&mut bytes[begins[block]..]);
        vfs.write(&path, bytes.clone());
        let (_, report, replayed) = open(&vfs, LogOptions::default()).expect("a tail");
        assert_eq!(replayed.len(), block);
        let dropped = report.dropped.expect("reported");
        assert_eq!(dropped.offset, begins[block] as u64);
        if dropped.is_damaged {
            assert_eq!(vfs.read(&copy).expect("a copy"), bytes);
        }
        assert_eq!(report.set_aside, vec![copy.clone(); usize::from(dropped.is_damaged)]);
        assert_eq!(vfs.exists(&copy), dropped.is_damaged);
        (dropped.is_damaged, dropped.upto.map(|upto| upto.0))
    };
    // In the content, of the last block and of one before; in the length, so that
    // the file seems to end within; in the count of records, of which the later
    // blocks tell.
    assert_eq!(cut_at(4, &|block| block[40] ^= 1), (true, Some(5)));
    assert_eq!(cut_at(2, &|block| block[40] ^= 1), (true, Some(5)));
    assert_eq!(cut_at(2, &|block| block[2] ^= 1), (true, Some(5)));
    assert_eq!(cut_at(2, &|block| block[24] ^= 8), (true, Some(5)));
    // What has no header any more says nothing of itself; zeros are of no use to
    // anybody.
    assert_eq!(cut_at(4, &|block| block[8..16].fill(0xff)), (true, None));
    assert_eq!(cut_at(4, &|block| block.fill(0)), (false, None));
    assert_eq!(cut_at(4, &|block| block[20..].fill(0)), (true, None));
}
