//! The format on disk stands still: a small log is in the repository, byte for
//! byte. Today's code reads it, writes the same bytes again, and finds every
//! field where `docs/FORMAT.md` says.
//!
//! A format that changes gets a higher version and a folder of its own here;
//! `fixtures/v1` is read for ever. `UPDATE_EXPECT=1` writes the files, for a new
//! version, or after a compressor packs differently (then keep the old ones
//! under another name: they must go on being read).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alcid_log::{Compression, Log, LogOptions, MemVfs, RecordHeader, Vfs, check};
use base::{BranchId, ManualClock, Revision, SeededRng};

const DIR: &str = "/log";

/// 2001-09-09, in milliseconds.
const TIME_MS: u64 = 1_000_000_000_000;

/// One effect: a tag and operands as they stand in the file.
fn effect(tag: u8, operands: &[&[u8]]) -> Vec<u8> {
    [&[tag][..], &operands.concat()].concat()
}

/// A byte string: its length as LEB128, then its bytes.
fn text(bytes: &[u8]) -> Vec<u8> {
    [number(bytes.len() as u64), bytes.to_vec()].concat()
}

fn number(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn key(name: &str) -> Vec<u8> {
    effect(2, &[&text(name.as_bytes())])
}

/// Long enough that every compression gains by it.
fn long(letter: u8) -> Vec<u8> {
    text(&[letter; 300])
}

/// Every effect there is, by hand. The database of a transaction is its
/// number here.
fn transactions() -> Vec<(Compression, u16, Vec<Vec<u8>>)> {
    let t = |bytes: &[u8]| text(bytes);
    let in_ten_thousand_years = number(250_000_000_000_000);
    vec![
        (
            Compression::None,
            0,
            vec![
                key("string"),
                effect(4, &[&t(b"hello")]),
                effect(6, &[&number(5), &t(b" world")]),
                key("number"),
                effect(7, &[&number(84)]),
                effect(7, &[&number(1)]),
            ],
        ),
        (
            Compression::None,
            0,
            vec![
                key("mortal"),
                effect(5, &[&t(b"value"), &in_ten_thousand_years]),
                key("hash"),
                effect(16, &[&t(b"field"), &t(b"value")]),
                effect(16, &[&t(b"count"), &t(b"10")]),
                effect(18, &[&t(b"count"), &number(5)]),
                effect(16, &[&t(b"gone"), &t(b"")]),
                effect(17, &[&t(b"gone")]),
            ],
        ),
        (
            Compression::Lz4,
            0,
            vec![
                key("list"),
                effect(25, &[&t(b"b")]),
                effect(25, &[&long(b'c')]),
                effect(25, &[&t(b"gone")]),
                effect(24, &[&t(b"a")]),
                effect(24, &[&t(b"gone")]),
                effect(26, &[&number(1)]),
                effect(27, &[&number(1)]),
                effect(28, &[&number(0), &t(b"A")]),
                effect(29, &[&number(1), &t(b"between")]),
                effect(29, &[&number(2), &t(b"gone")]),
                effect(30, &[&number(2)]),
            ],
        ),
        (
            Compression::Zstd,
            0,
            vec![
                key("set"),
                effect(32, &[&long(b'm')]),
                effect(32, &[&t(b"gone")]),
                effect(33, &[&t(b"gone")]),
                key("zset"),
                effect(40, &[&t(b"one"), &1.5f64.to_bits().to_le_bytes()]),
                effect(40, &[&t(b"gone"), &f64::NEG_INFINITY.to_bits().to_le_bytes()]),
                effect(41, &[&t(b"gone")]),
            ],
        ),
        (
            Compression::Gzip,
            3,
            vec![
                key("put"),
                effect(8, &[&t(b"\x00\x05apple")]),
                key("put-mortal"),
                effect(9, &[&t(b"\x00\x04pear"), &in_ten_thousand_years]),
                key("long"),
                effect(4, &[&long(b'g')]),
                effect(10, &[&in_ten_thousand_years]),
                effect(11, &[]),
                key("late"),
                effect(4, &[&t(b"v")]),
                effect(10, &[&in_ten_thousand_years]),
            ],
        ),
        (
            Compression::None,
            0,
            vec![
                key("gone"),
                effect(4, &[&t(b"v")]),
                effect(3, &[&[0]]),
                effect(4, &[&t(b"v")]),
                effect(3, &[&[1]]),
                effect(4, &[&t(b"v")]),
                effect(3, &[&[2]]),
                key("old"),
                effect(4, &[&t(b"moved")]),
                effect(12, &[&number(9), &t(b"new")]),
                effect(1, &[&number(5)]),
                key("flushed"),
                effect(4, &[&t(b"v")]),
                effect(64, &[&number(5)]),
                effect(1, &[&number(6)]),
                key("swapped"),
                effect(4, &[&t(b"v")]),
                effect(65, &[&number(6), &number(7)]),
            ],
        ),
    ]
}

fn header(db: u16) -> RecordHeader {
    RecordHeader { time_ms: TIME_MS + u64::from(db), db, branch: BranchId::MAIN }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// The files in the repository.
fn committed() -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder()).expect("the fixture is in the repository");
    entries
        .map(|entry| {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("readable"))
        })
        .collect()
}

/// The same log, written now.
fn written() -> BTreeMap<String, Vec<u8>> {
    let vfs = MemVfs::new();
    let disk: Arc<dyn Vfs> = Arc::new(vfs.clone());
    let options = LogOptions { segment_bytes_max: 300, ..LogOptions::default() };
    let clock = Arc::new(ManualClock::at_ms(TIME_MS));
    let mut rng = SeededRng::new(1);
    let (log, _) =
        Log::open_manual(disk, Path::new(DIR), options, clock, &mut rng, &mut |_| Ok(()))
            .expect("a new log");
    for (compression, db, effects) in transactions() {
        log.set_compression(compression);
        log.append(log.reserve(), header(db), &effects.concat());
        log.pump();
    }
    log.close().expect("memory does not fail");
    let name = |path: PathBuf| path.file_name().expect("a file").to_string_lossy().into_owned();
    vfs.files()
        .into_iter()
        .map(|(path, bytes)| (name(path), bytes))
        .filter(|(name, _)| name != "LOCK")
        .collect()
}

#[test]
fn writing_it_again_gives_the_same_bytes() {
    let written = written();
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        fs::create_dir_all(folder()).expect("a folder");
        for (name, bytes) in &written {
            fs::write(folder().join(name), bytes).expect("a file");
        }
    }
    let committed = committed();
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&committed));
    for (name, bytes) in &committed {
        let differs = written[name].iter().zip(bytes).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{name} differs from there on");
        assert_eq!(written[name].len(), bytes.len(), "{name}");
    }
}

#[test]
fn it_is_read_whole() {
    let files = committed().into_iter();
    let vfs =
        MemVfs::with_files(files.map(|(name, bytes)| (Path::new(DIR).join(name), bytes)).collect());
    let report = check(&vfs, Path::new(DIR)).expect("readable");
    assert!(report.finding.is_none() && report.report.dropped.is_none(), "{report:?}");
    let mut expected = transactions().into_iter().zip(1..);
    let mut replay = |record: alcid_log::Record<'_>| {
        let ((_, db, effects), revision) = expected.next().expect("no more than were written");
        assert_eq!(record.revision, Revision(revision));
        assert_eq!(record.header, header(db));
        assert_eq!(record.effects, effects.concat());
        Ok(())
    };
    let clock = Arc::new(ManualClock::at_ms(TIME_MS));
    let disk: Arc<dyn Vfs> = Arc::new(vfs);
    let options = LogOptions::default();
    Log::open_manual(disk, Path::new(DIR), options, clock, &mut SeededRng::new(2), &mut replay)
        .expect("a whole log");
    assert!(expected.next().is_none(), "all of them");
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Reads the files with nothing but what `docs/FORMAT.md` says.
#[test]
fn every_field_is_where_the_document_says() {
    let files = committed();
    let manifest = &files["MANIFEST"];
    assert_eq!(manifest.len(), 40);
    assert_eq!(&manifest[0..8], b"ALCIDMAN");
    assert_eq!(u32_at(manifest, 8), 1, "version");
    let id = &manifest[12..28];
    assert_eq!(u32_at(manifest, 36), crc32c::crc32c(&manifest[..36]));

    let mut revision = 1;
    let mut newest_segment = 0;
    let (mut compressions, mut marks) = (Vec::new(), 0);
    for (name, segment) in files.iter().filter(|(name, _)| name.ends_with(".alog")) {
        assert_eq!(name, &format!("{revision:020}.alog"));
        newest_segment = revision;
        assert_eq!(&segment[0..8], b"ALCIDLOG");
        assert_eq!(u32_at(segment, 8), 1, "version");
        assert_eq!(u32_at(segment, 12), 64, "bytes of the header");
        assert_eq!(&segment[16..32], id);
        assert_eq!(u64_at(segment, 32), revision, "first revision");
        assert_eq!(u64_at(segment, 40), TIME_MS, "created");
        assert_eq!(&segment[48..60], &[0; 12], "reserved");
        assert_eq!(u32_at(segment, 60), crc32c::crc32c(&segment[..60]));
        let mut at = 64;
        while at < segment.len() {
            let block = &segment[at..];
            let len = u32_at(block, 0) as usize;
            let mut covered = id.to_vec();
            covered.extend(newest_segment.to_le_bytes());
            covered.extend((at as u64).to_le_bytes());
            covered.extend(&block[0..4]);
            covered.extend(&block[8..36 + len]);
            assert_eq!(u32_at(block, 4), crc32c::crc32c(&covered), "{name} at {at}");
            assert_eq!(u64_at(block, 8), revision, "first revision");
            assert!(u64_at(block, 16) < revision, "durable");
            let (count, content_len) = (u32_at(block, 24), u32_at(block, 28) as usize);
            assert_eq!(&block[33..36], &[0; 3], "reserved");
            match block[32] {
                0 => assert_eq!(content_len, len),
                compressed => {
                    assert!(content_len > len);
                    compressions.push(compressed);
                }
            }
            if block[32] == 0 && count > 0 {
                let record = &block[36..];
                let (_, db, effects) = &transactions()[revision as usize - 1];
                assert_eq!(u32_at(record, 0) as usize, effects.concat().len());
                assert_eq!(u64_at(record, 4), TIME_MS + u64::from(*db));
                assert_eq!(record[12..14], db.to_le_bytes());
                assert_eq!(u32_at(record, 14), 0, "branch");
                assert_eq!(record[18..18 + effects.concat().len()], effects.concat());
            }
            marks += u32::from(count == 0);
            revision += u64::from(count);
            at += 36 + len;
        }
        assert_eq!(at, segment.len());
    }
    assert_eq!(u64_at(manifest, 28), newest_segment);
    assert_eq!(revision, transactions().len() as u64 + 1);
    assert_eq!(compressions, [1, 2, 3]);
    assert_eq!(marks, 1, "the closing mark");
}
