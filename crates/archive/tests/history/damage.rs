//! Damaged files: noticed, never believed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::history::History;
use base::{Revision, SeededRng};
use log::{MemVfs, Vfs};

use crate::fake_log::{DATABASE, FakeLog, append_some, compare, follow};

const DIR: &str = "/history";
const KEYS: u64 = 5;

fn open(vfs: &MemVfs, log: &FakeLog) -> History {
    History::open(Arc::new(vfs.clone()), Path::new(DIR), DATABASE, Arc::new(log.clone()))
        .expect("damage does not keep a history from opening")
}

/// A log with one sealed segment, and its index.
fn sealed() -> (FakeLog, PathBuf, Vec<u8>) {
    let log = FakeLog::new();
    append_some(&log, &mut SeededRng::new(3), KEYS, 60);
    log.roll();
    let vfs = MemVfs::new();
    assert!(open(&vfs, &log).mend().expect("the disk works"));
    let (path, bytes) = vfs.files().into_iter().next().expect("the index");
    (log, path, bytes)
}

/// Looks everything up over a file like this, and expects that it was found
/// wrong and made again.
fn expect_mended(log: &FakeLog, path: &Path, damaged: Vec<u8>, whole: &[u8], context: &str) {
    let vfs = MemVfs::new();
    vfs.write(path, damaged);
    let history = open(&vfs, log);
    compare(&history, log, KEYS, context);
    assert_eq!(vfs.read(path).expect("readable"), whole, "{context}: made again");
    assert_eq!(history.stats().missing, 0, "{context}");
}

#[test]
fn every_flipped_byte_is_noticed() {
    let (log, path, whole) = sealed();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        expect_mended(&log, &path, damaged, &whole, &format!("byte {at}"));
    }
}

#[test]
fn every_other_length_is_noticed() {
    let (log, path, whole) = sealed();
    for len in 0..whole.len() {
        expect_mended(&log, &path, whole[..len].to_vec(), &whole, &format!("{len} bytes"));
    }
    expect_mended(&log, &path, [&whole[..], &[0]].concat(), &whole, "a byte more");
}

/// Damage that comes while the history is open is found when it is read.
#[test]
fn damage_of_an_open_file_is_noticed() {
    let (log, path, whole) = sealed();
    // The header is not read again.
    for at in 128..whole.len() {
        let vfs = MemVfs::new();
        vfs.write(&path, whole.clone());
        let history = open(&vfs, &log);
        let mut damaged = whole.clone();
        damaged[at] ^= 0x80;
        vfs.write(&path, damaged);
        compare(&history, &log, KEYS, &format!("byte {at}"));
        assert_eq!(vfs.read(&path).expect("readable"), whole, "byte {at}");
    }
    let vfs = MemVfs::new();
    vfs.write(&path, whole.clone());
    let history = open(&vfs, &log);
    vfs.remove(&path).expect("it is there");
    compare(&history, &log, KEYS, "removed");
    assert_eq!(vfs.read(&path).expect("readable"), whole);
}

/// A file that is whole, but not that of this segment as it is now.
#[test]
fn files_of_something_else_are_made_again() {
    let (log, path, whole) = sealed();

    let vfs = MemVfs::new();
    let other = *b"another database";
    let history =
        History::open(Arc::new(vfs.clone()), Path::new(DIR), other, Arc::new(log.clone()))
            .expect("works");
    assert!(history.mend().expect("the disk works"));
    let foreign = vfs.read(&path).expect("readable");
    expect_mended(&log, &path, foreign, &whole, "another database's");

    let shorter = FakeLog::new();
    append_some(&shorter, &mut SeededRng::new(3), KEYS, 59);
    shorter.roll();
    let vfs = MemVfs::new();
    assert!(open(&vfs, &shorter).mend().expect("the disk works"));
    let stale = vfs.read(&path).expect("readable");
    expect_mended(&log, &path, stale, &whole, "of a shorter segment");

    let later = FakeLog::beginning_with(Revision(61));
    append_some(&later, &mut SeededRng::new(3), KEYS, 60);
    later.roll();
    let vfs = MemVfs::new();
    assert!(open(&vfs, &later).mend().expect("the disk works"));
    let (_, misnamed) = vfs.files().into_iter().next().expect("the index");
    expect_mended(&log, &path, misnamed, &whole, "under a wrong name");
}

/// A segment that is written again after a repair of the log has no index file
/// until it is sealed again.
#[test]
fn the_index_of_a_segment_that_is_open_again_is_removed() {
    let (_, path, whole) = sealed();
    let log = FakeLog::new();
    append_some(&log, &mut SeededRng::new(4), KEYS, 60);
    let vfs = MemVfs::new();
    vfs.write(&path, whole);
    let history = open(&vfs, &log);
    assert!(!vfs.exists(&path));
    assert_eq!(history.noted(), Revision::ZERO, "it has to be noted again");
    follow(&history, &log).expect("nothing is missing");
    compare(&history, &log, KEYS, "open again");
}
