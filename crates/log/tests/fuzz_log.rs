//! Hostile log folders: records or an error, never a panic, and memory only for
//! bytes that are there.
//!
//! Every input is tried as the last segment, as one with another behind it,
//! and as the manifest; as it is, and with its checksums made right, so that
//! what lies behind them is reached.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alcid_log::{Log, LogOptions, MemVfs, RecordHeader, Vfs, check, repair};
use base::{BranchId, ManualClock, Revision, SeededRng};
use testkit::fuzz;

const DIR: &str = "/log";
const FIRST: &str = "00000000000000000001.alog";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v3")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).expect("the fixture is in the repository")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The input with every checksum that has a place made right, and the identity
/// of the fixture.
fn sealed_segment(input: &[u8]) -> Vec<u8> {
    let id = &fixture("MANIFEST")[12..28];
    let mut bytes = input.to_vec();
    if bytes.len() < 64 {
        return bytes;
    }
    bytes[..8].copy_from_slice(b"ALCIDLOG");
    bytes[16..32].copy_from_slice(id);
    bytes[32..40].copy_from_slice(&1u64.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    let mut at = 64;
    while at + 36 <= bytes.len() {
        // A length beyond the end is cut to it now and then, else left.
        let rest = bytes.len() - at - 36;
        let mut len = u32_at(&bytes, at) as usize;
        if len > rest && len.is_multiple_of(2) {
            len = rest;
            bytes[at..at + 4].copy_from_slice(&(len as u32).to_le_bytes());
        }
        if len > rest {
            break;
        }
        let place = [id, &1u64.to_le_bytes(), &(at as u64).to_le_bytes()].concat();
        let mut checksum = crc32c::crc32c(&place);
        checksum = crc32c::crc32c_append(checksum, &bytes[at..at + 4]);
        checksum = crc32c::crc32c_append(checksum, &bytes[at + 8..at + 36 + len]);
        bytes[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
        at += 36 + len;
    }
    bytes
}

fn sealed_manifest(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    bytes.resize(40, 0);
    bytes[..8].copy_from_slice(b"ALCIDMAN");
    let checksum = crc32c::crc32c(&bytes[..36]);
    bytes[36..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// A manifest that knows the first segment only.
fn young_manifest() -> Vec<u8> {
    let mut bytes = fixture("MANIFEST");
    bytes[28..36].copy_from_slice(&1u64.to_le_bytes());
    sealed_manifest(&bytes)
}

fn open(vfs: &MemVfs) -> Result<(Log, u64), String> {
    let mut records = 0;
    let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let opened = Log::open_manual(
        disk,
        Path::new(DIR),
        LogOptions::default(),
        Revision::ZERO,
        Arc::new(ManualClock::at_ms(1)),
        &mut SeededRng::new(1),
        &mut |record| {
            records += 1;
            assert_eq!(record.revision, Revision(records), "revisions are dense");
            Ok(())
        },
    );
    opened.map(|(log, _)| (log, records)).map_err(|error| error.to_string())
}

/// Everything that reads a folder, then everything that goes on with it.
fn use_folder(files: &[(&str, Vec<u8>)]) {
    let files: BTreeMap<PathBuf, Vec<u8>> =
        files.iter().map(|(name, bytes)| (Path::new(DIR).join(name), bytes.clone())).collect();
    let vfs = MemVfs::with_files(files.clone());
    let checked = check(&vfs, Path::new(DIR), Some(Revision::ZERO));
    assert_eq!(vfs.files(), files, "a check changes nothing");
    let opened = open(&vfs);
    match &checked {
        Ok(report) => {
            assert_eq!(opened.is_ok(), report.finding.is_none(), "{report:?}, {opened:?}");
        }
        Err(error) => assert!(opened.is_err(), "{error}, but it opens"),
    }
    if let Ok((log, records)) = opened {
        read_and_append(&log, records);
        drop(log);
        assert_eq!(open(&vfs).map(|(_, records)| records), Ok(records + 1));
    } else {
        let vfs = MemVfs::with_files(files);
        if let Ok((_, last)) = repair(&vfs, Path::new(DIR), Some(Revision::ZERO)) {
            assert_eq!(open(&vfs).map(|(_, records)| records), Ok(last.0), "mended");
        }
    }
}

fn read_and_append(log: &Log, records: u64) {
    let mut reader = log.reader(Revision(1));
    let mut expected = 1..=records;
    let mut each = |record: alcid_log::Record<'_>, place: alcid_log::Place| {
        assert_eq!(Some(record.revision.0), expected.next());
        let block = log.read_records(place.segment, place.offset).expect("it was just read");
        assert_eq!(block.records().nth(place.index as usize), Some((record, place)));
        ControlFlow::Continue(())
    };
    while reader.read(Duration::ZERO, &mut each).expect("it was just read") > 0 {}
    assert_eq!(expected.next(), None, "all of them");
    let header = RecordHeader { time_ms: 1, db: 0, branch: BranchId::MAIN };
    log.append(log.reserve(), header, b"more");
    log.close().expect("memory does not fail");
}

#[test]
fn hostile_segments_and_manifests() {
    let second = fixture("00000000000000000003.alog");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    fuzz::run(corpus, |input| {
        let manifest = young_manifest();
        for segment in [input.to_vec(), sealed_segment(input)] {
            use_folder(&[("MANIFEST", manifest.clone()), (FIRST, segment.clone())]);
            use_folder(&[
                ("MANIFEST", manifest.clone()),
                (FIRST, segment),
                ("00000000000000000003.alog", second.clone()),
            ]);
        }
        for manifest in [input.to_vec(), sealed_manifest(input)] {
            use_folder(&[("MANIFEST", manifest), (FIRST, fixture(FIRST))]);
        }
    });
}

/// A block with a right checksum may claim any size for its content.
#[test]
fn claimed_sizes_take_no_memory() {
    for compression in 1..=3u8 {
        let mut segment = fixture(FIRST)[..64].to_vec();
        let mut block = vec![0; 36];
        block[0..4].copy_from_slice(&20u32.to_le_bytes());
        block[8..16].copy_from_slice(&1u64.to_le_bytes());
        block[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
        block[28..32].copy_from_slice(&u32::MAX.to_le_bytes());
        block[32] = compression;
        segment.extend(block);
        segment.extend([0; 20]);
        let files = [("MANIFEST", young_manifest()), (FIRST, sealed_segment(&segment))];
        let files = files.map(|(name, bytes)| (Path::new(DIR).join(name), bytes));
        let error = open(&MemVfs::with_files(files.into())).expect_err("refused");
        assert!(error.contains("claims 4294967295 bytes"), "{error}");
    }
}
