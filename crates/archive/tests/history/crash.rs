//! Power cuts and faults while indexes are written.

use std::path::Path;
use std::sync::Arc;

use archive::history::{History, HistoryError};
use base::SeededRng;
use log::{Fault, FaultyVfs};

use crate::fake_log::{DATABASE, FakeLog, append_some, compare, follow};

const DIR: &str = "/history";
const KEYS: u64 = 6;

fn open(vfs: &FaultyVfs, log: &FakeLog) -> Result<History, HistoryError> {
    History::open(Arc::new(vfs.clone()), Path::new(DIR), DATABASE, Arc::new(log.clone()))
}

/// Seals three segments.
fn write(history: &History, log: &FakeLog) {
    let mut rng = SeededRng::new(7);
    for _ in 0..3 {
        append_some(log, &mut rng, KEYS, 40);
        log.roll();
    }
    append_some(log, &mut rng, KEYS, 5);
    follow(history, log).expect("a disk that fails does not stop the follower");
}

#[test]
fn power_cuts_leave_indexes_whole_or_missing() {
    for seed in 0..300 {
        let vfs = FaultyVfs::new();
        let log = FakeLog::new();
        let history = open(&vfs, &log).expect("a disk that works");
        write(&history, &log);
        if seed % 3 == 0 {
            history.forget_before(base::Revision(45)).expect("a disk that works");
        }
        for life in 0..3 {
            let image = FaultyVfs::with_files(vfs.crash_image(seed * 3 + life));
            let history = open(&image, &log).expect("a disk that works");
            follow(&history, &log).expect("nothing is missing");
            compare(&history, &log, KEYS, &format!("seed {seed}, life {life}"));
        }
    }
}

/// A cut at every single step of writing them.
#[test]
fn power_cuts_at_every_operation() {
    for fault in [Fault::Eio, Fault::NoSpace] {
        for operation in 1..24 {
            let context = format!("{fault:?} at operation {operation}");
            let vfs = FaultyVfs::new();
            let log = FakeLog::new();
            vfs.inject(operation, fault);
            let Ok(history) = open(&vfs, &log) else { continue };
            write(&history, &log);
            // Answers do not depend on what could be written.
            compare(&history, &log, KEYS, &context);
            for seed in 0..4 {
                let image = FaultyVfs::with_files(vfs.crash_image(seed));
                let after = open(&image, &log).expect("a disk that works");
                follow(&after, &log).expect("nothing is missing");
                compare(&after, &log, KEYS, &format!("{context}, then a cut, seed {seed}"));
            }
            vfs.make_room();
            while history.mend().expect("a disk that works again") {}
            let stats = history.stats();
            assert_eq!((stats.segments, stats.missing), (3, 0), "{context}");
            compare(&history, &log, KEYS, &context);
            let again = open(&vfs, &log).expect("a disk that works again");
            assert_eq!(again.stats().missing, 0, "{context}: they are in files");
        }
    }
}
