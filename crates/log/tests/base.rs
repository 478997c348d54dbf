//! A log of which an archive holds the beginning: what it must have, what it
//! need not, and how it goes on when the archive is ahead.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alcid_log::{
    Fault, FaultyVfs, Log, LogError, LogOptions, MemVfs, Place, Record, RecordHeader,
    RecoveryReport, Vfs, check, repair,
};
use base::{BranchId, ManualClock, Revision, SeededRng};

const DIR: &str = "/data";

fn open(vfs: &MemVfs, base: u64) -> Result<(Log, RecoveryReport, Vec<u64>), LogError> {
    open_on(Arc::new(vfs.clone()), base)
}

fn open_on(vfs: Arc<dyn Vfs>, base: u64) -> Result<(Log, RecoveryReport, Vec<u64>), LogError> {
    let mut replayed = Vec::new();
    let (log, report) = Log::open_manual(
        vfs,
        Path::new(DIR),
        LogOptions { segment_bytes_max: 400, ..LogOptions::default() },
        Revision(base),
        Arc::new(ManualClock::at_ms(1)),
        &mut SeededRng::new(7),
        &mut |record| {
            assert_eq!(record.effects, effects(record.revision.0).as_bytes());
            replayed.push(record.revision.0);
            Ok(())
        },
    )?;
    Ok((log, report, replayed))
}

fn effects(revision: u64) -> String {
    format!("effects of {revision}")
}

fn append(log: &Log, count: u64) {
    for _ in 0..count {
        let revision = log.reserve();
        let header = RecordHeader { time_ms: 7, db: 0, branch: BranchId::MAIN };
        log.append(revision, header, effects(revision.0).as_bytes());
        log.pump();
    }
}

/// A log of 40 transactions in several segments.
fn sample() -> MemVfs {
    let vfs = MemVfs::new();
    let (log, _, _) = open(&vfs, 0).expect("a new log");
    append(&log, 40);
    log.close().expect("memory does not fail");
    vfs.snapshot()
}

/// First revisions of the segments, and their files.
fn segments(vfs: &MemVfs) -> Vec<(u64, PathBuf)> {
    let files = vfs.files().into_keys();
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "alog"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name.parse().expect("a revision"), path)
        })
        .collect()
}

fn refusal(vfs: &MemVfs, base: u64) -> String {
    match open(vfs, base) {
        Ok((_, report, _)) => panic!("started: {report:?}"),
        Err(error) => error.to_string(),
    }
}

fn damage(vfs: &MemVfs, path: &Path, offset: usize) {
    let mut bytes = vfs.read(path).expect("it is there");
    bytes[offset] ^= 1;
    vfs.write(path, bytes);
}

#[test]
fn only_what_follows_the_base_is_replayed_and_only_that_is_needed() {
    let whole = sample();
    let names = segments(&whole);
    assert!(names.len() >= 4, "{names:?}");
    for base in 0..=40 {
        let from = names.iter().rposition(|(first, _)| *first <= base + 1).expect("the first");
        let complete = whole.snapshot();
        let (log, report, replayed) = open(&complete, base).expect("whole");
        assert_eq!(replayed, (base + 1..=40).collect::<Vec<_>>());
        assert_eq!(
            (report.base, report.last, report.ended_early),
            (Revision(base), Revision(40), None)
        );
        assert_eq!((report.segments_skipped, report.segments), (from, names.len() - from));
        assert_eq!(report.records_skipped, base + 1 - names[from].0);
        append(&log, 1);
        log.close().expect("memory does not fail");
        drop(log);
        assert_eq!(open(&complete, base).expect("whole").1.last, Revision(41));

        // Neither are the older segments missed, nor is damage in them seen.
        let damaged = whole.snapshot();
        let without = whole.snapshot();
        for (_, path) in &names[..from] {
            damage(&damaged, path, 100);
            without.remove(path).expect("it is there");
        }
        assert_eq!(open(&damaged, base).expect("not needed").2, replayed);
        let (log, report, found) = open(&without, base).expect("not needed");
        assert_eq!((found, report.segments_skipped), (replayed, 0));
        let mut reader = log.reader(Revision(1));
        let read = reader.read(Duration::ZERO, &mut |_, _| ControlFlow::Break(()));
        if from > 0 {
            let error = read.expect_err("removed").to_string();
            assert!(error.contains("revision 1 is not in the log"), "{error}");
            assert!(error.contains(&format!("there is {}", names[from].0)), "{error}");
        } else {
            assert_eq!(read.expect("it is there"), 1);
        }
    }
}

#[test]
fn a_gap_above_the_base_is_refused_with_files_and_command() {
    let whole = sample();
    let names = segments(&whole);
    for (index, (first, path)) in names.iter().enumerate() {
        let vfs = whole.snapshot();
        vfs.remove(path).expect("it is there");
        let end = names.get(index + 1).map_or(40, |(next, _)| next - 1);
        for base in 0..end {
            let message = refusal(&vfs, base);
            assert!(message.contains("is missing from /data"), "{message}");
            assert!(message.contains(".alog"), "{message}");
            assert!(message.contains("`alcid log check --data-dir"), "{message}");
            let found = check(&vfs, Path::new(DIR), Some(Revision(base))).expect("readable");
            assert_eq!(found.finding.expect("the same").error.to_string(), message);
            if index > 0 && base + 1 < *first {
                let (before, gap) = (&names[index - 1].1, *first);
                assert!(message.contains(&format!("with revision {gap}")), "{message}");
                let before = before.file_name().expect("a name").to_string_lossy().into_owned();
                assert!(message.contains(&before), "{message}");
            }
        }
        // The newest one might have held more than is known.
        let is_newest = index + 1 == names.len();
        assert_eq!(open(&vfs, end).is_err(), is_newest, "without {first}");
    }
}

#[test]
fn a_log_that_ends_before_its_base_goes_on_behind_it() {
    for base in [41, 42, 100] {
        let vfs = sample();
        let before = segments(&vfs);
        let dir = Path::new(DIR);
        let found = check(&vfs, dir, Some(Revision(base))).expect("readable");
        assert!(found.finding.is_none(), "{found:?}");
        assert_eq!(found.report.ended_early, Some(Revision(40)));

        let (log, report, replayed) = open(&vfs, base).expect("the archive is ahead");
        assert_eq!((report.last, report.ended_early), (Revision(base), Some(Revision(40))));
        assert_eq!(replayed, []);
        let mut after = before.clone();
        after.push((base + 1, dir.join(format!("{:020}.alog", base + 1))));
        assert_eq!(segments(&vfs), after, "the older ones stay");
        assert_eq!(log.newest(), Revision(base));
        append(&log, 3);
        log.close().expect("memory does not fail");
        drop(log);

        // Without a base, the new segment says by itself that the log goes on with it.
        for base in [None, Some(Revision(base)), Some(Revision(base + 2))] {
            let found = check(&vfs, dir, base).expect("readable");
            assert!(found.finding.is_none(), "{found:?}");
            assert_eq!(found.report.segments_skipped, before.len());
        }
        let found = check(&vfs, dir, None).expect("readable").report;
        assert_eq!(
            (found.base, found.last, found.records),
            (Revision(base), Revision(base + 3), 3)
        );
        let (log, report, replayed) = open(&vfs, base + 1).expect("whole");
        assert_eq!((report.ended_early, replayed), (None, vec![base + 2, base + 3]));
        let mut reader = log.reader(Revision(base));
        let error = reader.read(Duration::ZERO, &mut |_, _| ControlFlow::Continue(()));
        let error = error.expect_err("it never was in this log").to_string();
        assert!(error.contains(&format!("revision {base} is not in the log")), "{error}");
        drop(log);
        // An older archive lacks what neither of the two has.
        let message = refusal(&vfs, base - 1);
        assert!(message.contains(&format!("{:020}.alog", base + 1)), "{message}");
    }
}

/// A torn tail below the base is cut, and the log goes on all the same.
#[test]
fn a_torn_tail_below_the_base_is_no_obstacle() {
    let vfs = MemVfs::new();
    let (log, _, _) = open(&vfs, 0).expect("a new log");
    append(&log, 40);
    let vfs = vfs.snapshot();
    let (_, path) = segments(&vfs).pop().expect("several");
    let bytes = vfs.read(&path).expect("it is there");
    vfs.write(&path, bytes[..bytes.len() - 5].to_vec());
    let (log, report, _) = open(&vfs, 50).expect("nothing of it is needed");
    assert_eq!(report.ended_early, Some(Revision(39)));
    assert!(report.dropped.is_some());
    append(&log, 1);
    log.close().expect("memory does not fail");
    drop(log);
    assert_eq!(open(&vfs, 50).expect("whole").2, [51]);
    assert_eq!(open(&vfs, 50).expect("whole").1.dropped, None);
}

#[test]
fn an_empty_folder_begins_behind_the_base() {
    let vfs = MemVfs::new();
    let (log, report, _) = open(&vfs, 99).expect("a new log");
    assert_eq!((report.last, report.ended_early), (Revision(99), None));
    append(&log, 2);
    log.close().expect("memory does not fail");
    drop(log);
    assert_eq!(segments(&vfs).iter().map(|(first, _)| *first).collect::<Vec<_>>(), [100]);
    assert_eq!(open(&vfs, 99).expect("whole").2, [100, 101]);
    let found = check(&vfs, Path::new(DIR), None).expect("readable");
    assert_eq!((found.report.base, found.report.records), (Revision(99), 2));
    assert!(refusal(&vfs, 98).contains("00000000000000000100.alog"), "{}", refusal(&vfs, 98));

    // As after a power cut before the manifest was there.
    let vfs = vfs.snapshot();
    vfs.remove(&Path::new(DIR).join("MANIFEST")).expect("it is there");
    assert!(refusal(&vfs, 99).contains("MANIFEST is not there"), "{}", refusal(&vfs, 99));
    let path = segments(&vfs)[0].1.clone();
    vfs.write(&path, vfs.read(&path).expect("it is there")[..64].to_vec());
    assert!(refusal(&vfs, 50).contains("MANIFEST is not there"), "an archive was further once");
    assert_eq!(open(&vfs, 99).expect("begun again").1.last, Revision(99));
}

#[test]
fn damage_that_hits_nothing_above_the_base_is_set_aside() {
    let whole = sample();
    let names = segments(&whole);
    let files = whole.files();
    let (mut went_on, mut refused) = (0, 0);
    for base in (0..=40).step_by(3) {
        let needed = names.iter().rposition(|(first, _)| *first <= base + 1).expect("the first");
        for (index, (first, path)) in names.iter().enumerate() {
            for offset in (0..files[path].len()).step_by(7) {
                let context = format!("base {base}, {first} at byte {offset}");
                let vfs = whole.snapshot();
                damage(&vfs, path, offset);
                let bytes = vfs.read(path).expect("it is there");
                let checked = check(&vfs, Path::new(DIR), Some(Revision(base))).expect("readable");
                assert_eq!(vfs.read(path).expect("there"), bytes, "{context}: only looked at");
                match open(&vfs, base) {
                    Err(error) => {
                        refused += 1;
                        assert!(index >= needed, "{context}: {error}");
                        let found = checked.finding.expect("the same").error.to_string();
                        assert_eq!(found, error.to_string(), "{context}");
                    }
                    Ok((log, report, replayed)) => {
                        let wanted: Vec<u64> = (base + 1..=40).collect();
                        assert_eq!(replayed, wanted, "{context}");
                        assert!(checked.finding.is_none(), "{context}");
                        assert_eq!(checked.report.unneeded, report.unneeded);
                        let Some(found) = report.unneeded.first() else { continue };
                        went_on += 1;
                        assert!(found.last <= Revision(base), "{context}");
                        assert_eq!(&found.path, path, "{context}");
                        assert_eq!(
                            vfs.read(&report.set_aside[0]).expect("kept"),
                            bytes,
                            "{context}"
                        );
                        assert!(!vfs.exists(path), "{context}");
                        if index == needed {
                            assert_eq!(log.unbroken_from(), found.last.next(), "{context}");
                        }
                        append(&log, 2);
                        let mut read = Vec::new();
                        let mut reader = log.reader(Revision(base + 1));
                        while reader.next_revision() <= Revision(42) {
                            let each = &mut |record: Record<'_>, place: Place| {
                                let block = log.read_records(place.segment, place.offset);
                                let block = block.expect("whole");
                                assert_eq!(block.record(place.index), Some(record));
                                read.push(record.revision.0);
                                ControlFlow::Continue(())
                            };
                            reader.read(Duration::ZERO, each).expect("whole");
                        }
                        assert_eq!(read, (base + 1..=42).collect::<Vec<_>>(), "{context}");
                        log.close().expect("memory does not fail");
                        drop(log);
                        let (_, report, replayed) = open(&vfs, base).expect("whole");
                        assert_eq!((report.unneeded, replayed), (Vec::new(), read), "{context}");
                    }
                }
            }
        }
    }
    assert!(went_on > 50 && refused > 50, "{went_on}, {refused}");
}

/// Power goes, or the disk fails, while damage is set aside: what is above the
/// base is there afterwards.
#[test]
fn what_is_needed_survives_that_the_rest_is_set_aside() {
    let whole = sample();
    let names = segments(&whole);
    for (index, in_header) in [(1, false), (1, true), (names.len() - 1, false)] {
        let (first, path) = &names[index];
        let base = first + 2;
        let vfs = whole.snapshot();
        damage(&vfs, path, if in_header { 3 } else { 110 });
        if index > 1 {
            damage(&vfs, &names[0].1, 3);
        }
        let (mut ended, mut operation) = (false, 0);
        while !ended {
            operation += 1;
            for seed in 0..8 {
                let disk = FaultyVfs::with_files(vfs.files());
                disk.inject(operation, Fault::Eio);
                let failing: Arc<dyn Vfs> = Arc::new(disk.clone());
                ended = open_on(failing, base).is_ok();
                let after = MemVfs::with_files(disk.crash_image(seed));
                let (log, _, replayed) = open(&after, base)
                    .unwrap_or_else(|error| panic!("operation {operation}, seed {seed}: {error}"));
                assert_eq!(replayed, (base + 1..=40).collect::<Vec<_>>(), "{operation}, {seed}");
                append(&log, 1);
            }
        }
        assert!(operation > 5, "{operation}");
    }
}

#[test]
fn repair_spares_what_is_above_the_base() {
    let vfs = sample();
    let names = segments(&vfs);
    let dir = Path::new(DIR);
    let base = names[2].0;
    for (_, path) in &names[..2] {
        damage(&vfs, path, 3);
    }
    // The start does without them.
    let (saved, last) = repair(&vfs, dir, Some(Revision(base))).expect("nothing to mend");
    assert_eq!((saved.len(), last), (0, Revision(40)));
    let (_, report, replayed) = open(&vfs, base).expect("not needed");
    assert_eq!((report.unneeded.len(), report.set_aside.len()), (2, 2));
    assert_eq!(replayed, (base + 1..=40).collect::<Vec<_>>());

    // What is left begins later; where to cut it depends on the archive.
    let vfs = vfs.snapshot();
    damage(&vfs, &names[3].1, 100);
    let error = repair(&vfs, dir, None).expect_err("no base is given").to_string();
    assert!(error.contains("`--base <revision>`"), "{error}");
    let (saved, last) = repair(&vfs, dir, Some(Revision(base))).expect("mendable");
    assert_eq!((saved.len(), last), (names.len() - 3, Revision(names[3].0 - 1)));
    assert_eq!(open(&vfs, base).expect("whole").1.last, last);
}

/// Under a base, what follows a damaged tail is worth more than a cut, though
/// nothing proves that any of it was synced.
#[test]
fn what_follows_a_damaged_tail_below_the_base_is_kept() {
    let vfs = MemVfs::new();
    let (log, _, _) = open(&vfs, 0).expect("a new log");
    append(&log, 1);
    let second = vfs.read(&segments(&vfs)[0].1).expect("there").len();
    append(&log, 2);
    let vfs = vfs.snapshot();
    drop(log);
    let path = segments(&vfs)[0].1.clone();
    damage(&vfs, &path, second + 40);
    for base in [0, 1] {
        let (_, report, replayed) = open(&vfs.snapshot(), base).expect("a tail");
        assert_eq!((replayed.last().copied().unwrap_or(base), report.dropped.is_some()), (1, true));
    }
    let vfs = vfs.snapshot();
    let (log, report, replayed) = open(&vfs, 2).expect("the base has what is damaged");
    assert_eq!((replayed, report.dropped, report.unneeded.len()), (vec![3], None, 1));
    append(&log, 1);
    log.close().expect("memory does not fail");
    drop(log);
    assert_eq!(open(&vfs, 2).expect("whole").2, [3, 4]);
}

/// To set two segments aside that have changed places would cost history for
/// nothing.
#[test]
fn segments_that_have_changed_places_below_the_base_are_refused() {
    let vfs = sample();
    let names = segments(&vfs);
    let [a, b] = [0, 1].map(|n| vfs.read(&names[n].1).expect("it is there"));
    vfs.write(&names[0].1, b);
    vfs.write(&names[1].1, a);
    let said = format!("is what was written as {:020}.alog", names[1].0);
    assert!(refusal(&vfs, 40).contains(&said), "{}", refusal(&vfs, 40));
}
