//! The format stands still: an index is in the repository, byte for byte, and
//! every field is where `docs/FORMAT.md` says. `UPDATE_EXPECT=1` writes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::history::{DATABASE_WIDE, History, key_hash};
use base::{BranchId, Revision};
use log::{MemVfs, Vfs};

use crate::fake_log::{DATABASE, FakeLog, follow, hits};

const DIR: &str = "/history";
const NAME: &str = "00000000000000000100.idx";
const RECORDS: u64 = 1030;

fn committed() -> PathBuf {
    of_version(2)
}

fn of_version(version: u32) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(format!("history-v{version}")).join(NAME)
}

/// Each record in a block of its own, so that there are two pages of
/// everything. One record changes two keys, one flushes, two are on a branch.
fn log() -> FakeLog {
    let log = FakeLog::beginning_with(Revision(100));
    for number in 0..RECORDS {
        let key = format!("key:{}", number % 300);
        let time_ms = 1_000_000_000_000 + number * 5;
        log.go_on(BranchId(if (20..22).contains(&number) { 7 } else { 0 }));
        match number {
            7 => log.append(time_ms - 1000, &[Some(b"one"), Some(b"two")]),
            8 => log.append(time_ms, &[None]),
            _ => log.append(time_ms, &[Some(key.as_bytes())]),
        };
        log.end_block();
    }
    log.roll();
    log
}

fn written() -> Vec<u8> {
    let vfs = MemVfs::new();
    let history = open(&vfs);
    assert!(history.mend().expect("the disk works"));
    vfs.read(&Path::new(DIR).join(NAME)).expect("readable")
}

fn open(vfs: &MemVfs) -> History {
    History::open(Arc::new(vfs.clone()), Path::new(DIR), DATABASE, Arc::new(log())).expect("works")
}

#[test]
fn writing_it_again_gives_the_same_bytes() {
    let written = written();
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        fs::create_dir_all(committed().parent().expect("a folder")).expect("a folder");
        fs::write(committed(), &written).expect("a file");
    }
    let committed = fs::read(committed()).expect("the fixture is in the repository");
    let differs = written.iter().zip(&committed).position(|(a, b)| a != b);
    assert_eq!((differs, written.len()), (None, committed.len()));
}

#[test]
fn it_is_read() {
    let vfs = MemVfs::new();
    vfs.write(&Path::new(DIR).join(NAME), fs::read(committed()).expect("it is there"));
    let history = open(&vfs);
    assert_eq!(history.stats().missing, 0);
    follow(&history, &log()).expect("nothing is missing");
    let revisions = |hash| -> Vec<u64> {
        let found = hits(&history, hash, Revision::ZERO, Revision(u64::MAX));
        found.iter().map(|hit| hit.revision.0).collect()
    };
    assert_eq!(revisions(key_hash(b"two")), [107]);
    assert_eq!(revisions(DATABASE_WIDE), [108]);
    assert_eq!(revisions(key_hash(b"key:10")), [1010, 710, 410, 110]);
    assert_eq!(history.at_time(1_000_000_000_000 + 52).expect("works"), Some(Revision(110)));
    assert_eq!(history.stats().missing, 0, "it was used as it is");
}

#[test]
fn one_of_an_older_version_is_made_again() {
    let vfs = MemVfs::new();
    vfs.write(&Path::new(DIR).join(NAME), fs::read(of_version(1)).expect("it is there"));
    let history = open(&vfs);
    assert_eq!(history.stats().missing, 1);
    let found = hits(&history, key_hash(b"two"), Revision::ZERO, Revision(u64::MAX));
    assert_eq!(found[0].revision, Revision(107));
    let renewed = vfs.read(&Path::new(DIR).join(NAME)).expect("readable");
    assert_eq!(renewed, fs::read(committed()).expect("it is there"));
}

/// The hash of a branch, as the document says.
fn branch_hash(branch: u32) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(&branch.to_le_bytes(), 1) >> 32
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The numbers of a page at `offset` that ends at `end`, its checksum checked.
fn page(file: &[u8], offset: usize, end: usize) -> Vec<u64> {
    let mut covered = DATABASE.to_vec();
    covered.extend(100u64.to_le_bytes());
    covered.extend((offset as u64).to_le_bytes());
    covered.extend(&file[offset..end - 4]);
    assert_eq!(u32_at(file, end - 4), crc32c::crc32c(&covered));
    let (mut numbers, mut number, mut shift) = (Vec::new(), 0u64, 0);
    for byte in &file[offset..end - 4] {
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            numbers.push(number);
            (number, shift) = (0, 0);
        }
    }
    numbers
}

/// Reads the file with nothing but what `docs/FORMAT.md` says.
#[test]
fn every_field_is_where_the_document_says() {
    let file = fs::read(committed()).expect("it is there");
    assert_eq!(&file[0..8], b"ALCIDIDX");
    assert_eq!(u32_at(&file, 8), 2, "version");
    assert_eq!(u32_at(&file, 12), 128, "bytes of the header");
    assert_eq!(&file[16..32], &DATABASE);
    assert_eq!(u64_at(&file, 32), 100, "first revision");
    assert_eq!(u64_at(&file, 40), 99 + RECORDS, "last revision");
    assert_eq!(u64_at(&file, 48), 1_000_000_000_000 - 1000 + 35, "earliest time");
    assert_eq!(u64_at(&file, 56), RECORDS + 4, "entries");
    assert_eq!(u64_at(&file, 64), RECORDS, "blocks");
    let directory = u64_at(&file, 72) as usize;
    assert_eq!((u32_at(&file, 80), u32_at(&file, 84)), (2, 2), "pages");
    assert_eq!(u32_at(&file, 88), crc32c::crc32c(&file[directory..]));
    assert_eq!(&file[92..124], &[0; 32], "reserved");
    assert_eq!(u32_at(&file, 124), crc32c::crc32c(&file[..124]));
    assert_eq!(file.len(), directory + 2 * 16 + 2 * 20);

    let mut ends: Vec<usize> = vec![128];
    let mut entries = Vec::new();
    for index in 0..2 {
        assert_eq!(u64_at(&file, directory + index * 16 + 8) as usize, ends[index]);
        ends.push(match index {
            0 => u64_at(&file, directory + 24) as usize,
            _ => u64_at(&file, directory + 32 + 4) as usize,
        });
        let (mut hash, mut revision) = (0, 0);
        for pair in page(&file, ends[index], ends[index + 1]).chunks(2) {
            revision = if pair[0] == 0 { revision + pair[1] } else { pair[1] };
            hash += pair[0];
            entries.push((hash, revision));
        }
        let first = entries[index * 1024];
        assert_eq!(u64_at(&file, directory + index * 16), first.0 << 32 | first.1);
    }
    assert!(entries.is_sorted());
    assert_eq!(entries.len() as u64, RECORDS + 4);
    assert_eq!(entries[0], (0, 8), "the flush");
    let hash_of_two = u64::from(key_hash(b"two"));
    assert!(entries.contains(&(hash_of_two, 7)));
    for (branch, revision) in [(0, 0), (7, 20), (0, 22)] {
        assert!(entries.contains(&(branch_hash(branch), revision)), "{branch} at {revision}");
    }

    let mut at = ends[2];
    let mut number = 0;
    for index in 0..2 {
        let row = directory + 32 + index * 20;
        assert_eq!(u32_at(&file, row), number);
        assert_eq!(u64_at(&file, row + 4) as usize, at);
        let end = if index == 0 { u64_at(&file, row + 24) as usize } else { directory };
        let (mut first, mut offset, mut time_ms, mut earliest_ms) = (0, 0, 0u64, u64::MAX);
        for block in page(&file, at, end).chunks(3) {
            first += block[0];
            offset += block[1];
            let later = (block[2] >> 1) as i64 ^ -((block[2] & 1) as i64);
            time_ms = time_ms.wrapping_add_signed(later);
            earliest_ms = earliest_ms.min(time_ms);
            let entry = &log().entries()[number as usize];
            assert_eq!(first, u64::from(number));
            assert_eq!((offset, time_ms), (entry.place.offset, entry.time_ms));
            number += 1;
        }
        assert_eq!(u64_at(&file, row + 12), earliest_ms);
        at = end;
    }
    assert_eq!(u64::from(number), RECORDS);
}
