//! The format on disk stands still: a small log is in the repository, byte for
//! byte. Today's code reads it, writes the same bytes again, and finds every
//! field where `docs/FORMAT.md` says.
//!
//! A format that changes gets a higher version and a folder of its own here;
//! older folders are read for ever, and gone on with in segments of the newest
//! version. `UPDATE_EXPECT=1` writes the files of the newest, for a new version,
//! or after a compressor packs differently (then keep the old ones under another
//! name: they must go on being read).

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alcid_log::{Compression, Fault, FaultyVfs, Log, LogOptions, MemVfs, RecordHeader, Vfs, check};
use base::{BranchId, ManualClock, Revision, SeededRng};

const DIR: &str = "/log";

/// The version of the segments that are written now.
const NEWEST: u32 = 3;

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

/// What follows is on this key, and nothing is said of whether it existed.
fn key(name: &str) -> Vec<u8> {
    effect(2, &[&text(name.as_bytes())])
}

fn new_key(name: &str) -> Vec<u8> {
    effect(13, &[&text(name.as_bytes())])
}

fn old_key(name: &str) -> Vec<u8> {
    effect(14, &[&text(name.as_bytes())])
}

/// A branch and a database.
type Place = (u32, u16);

type Transactions = Vec<(Compression, Place, Vec<Vec<u8>>)>;

fn transactions(version: u32) -> Transactions {
    match version {
        1 => transactions_v1(),
        2 => transactions_v2(),
        _ => transactions_v3(),
    }
}

/// Long enough that every compression gains by it.
fn long(letter: u8) -> Vec<u8> {
    text(&[letter; 300])
}

/// Every effect of version 1, by hand. Each transaction with how it is packed,
/// its branch and the database it begins in.
fn transactions_v1() -> Transactions {
    let t = |bytes: &[u8]| text(bytes);
    let in_ten_thousand_years = number(250_000_000_000_000);
    vec![
        (
            Compression::None,
            (0, 0),
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
            (0, 0),
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
            (0, 0),
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
            (0, 0),
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
            (0, 3),
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
            (0, 0),
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

/// As [`transactions_v1`] with what version 2 tells more.
fn transactions_v2() -> Transactions {
    let t = |bytes: &[u8]| text(bytes);
    let in_ten_thousand_years = number(250_000_000_000_000);
    vec![
        (
            Compression::None,
            (0, 0),
            vec![
                new_key("string"),
                effect(4, &[&t(b"hello")]),
                effect(6, &[&number(5), &t(b" world")]),
                new_key("number"),
                effect(7, &[&number(84)]),
                effect(7, &[&number(1)]),
            ],
        ),
        (
            Compression::None,
            (0, 0),
            vec![
                effect(66, &[&t(b"eval"), &t(b"default"), &t(b"127.0.0.1:50000")]),
                old_key("string"),
                effect(6, &[&number(0), &t(b"H")]),
                new_key("mortal"),
                effect(5, &[&t(b"value"), &in_ten_thousand_years]),
                new_key("hash"),
                effect(16, &[&t(b"field"), &t(b"value")]),
                effect(16, &[&t(b"count"), &t(b"10")]),
                effect(18, &[&t(b"count"), &number(5)]),
                effect(16, &[&t(b"gone"), &t(b"")]),
                effect(17, &[&t(b"gone")]),
            ],
        ),
        (
            Compression::Lz4,
            (0, 0),
            vec![
                new_key("list"),
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
            (0, 0),
            vec![
                new_key("set"),
                effect(32, &[&long(b'm')]),
                effect(32, &[&t(b"gone")]),
                effect(33, &[&t(b"gone")]),
                new_key("zset"),
                effect(40, &[&t(b"one"), &1.5f64.to_bits().to_le_bytes()]),
                effect(40, &[&t(b"gone"), &f64::NEG_INFINITY.to_bits().to_le_bytes()]),
                effect(41, &[&t(b"gone")]),
            ],
        ),
        (
            Compression::Gzip,
            (0, 3),
            vec![
                new_key("put"),
                effect(8, &[&t(b"\x00\x05apple")]),
                new_key("put-mortal"),
                effect(9, &[&t(b"\x00\x04pear"), &in_ten_thousand_years]),
                new_key("long"),
                effect(4, &[&long(b'g')]),
                effect(10, &[&in_ten_thousand_years]),
                effect(11, &[]),
                new_key("late"),
                effect(4, &[&t(b"v")]),
                effect(10, &[&in_ten_thousand_years]),
            ],
        ),
        (
            Compression::None,
            (0, 0),
            vec![
                new_key("gone"),
                effect(4, &[&t(b"v")]),
                effect(3, &[&[0]]),
                effect(4, &[&t(b"v")]),
                effect(3, &[&[1]]),
                effect(4, &[&t(b"v")]),
                effect(3, &[&[2]]),
                effect(32, &[&t(b"m")]),
                effect(33, &[&t(b"m")]),
                effect(15, &[]),
                new_key("old"),
                effect(4, &[&t(b"moved")]),
                effect(20, &[&number(9), &t(b"new")]),
                effect(4, &[&t(b"moved over")]),
                effect(21, &[&number(9), &t(b"new")]),
                effect(1, &[&number(5)]),
                new_key("flushed"),
                effect(4, &[&t(b"v")]),
                effect(64, &[&number(5)]),
                effect(1, &[&number(6)]),
                new_key("swapped"),
                effect(4, &[&t(b"v")]),
                effect(65, &[&number(6), &number(7)]),
            ],
        ),
        (
            Compression::None,
            (0, 0),
            vec![
                effect(66, &[&t(b"branch|create"), &t(b"default"), &t(b"127.0.0.1:50000")]),
                effect(97, &[&row(1, 0, "dev"), &number(0)]),
            ],
        ),
        (Compression::None, (1, 2), vec![new_key("own"), effect(4, &[&t(b"v")])]),
        (
            Compression::None,
            (300, 0),
            vec![
                effect(97, &[&row(300, 1, "dev/two"), &number(8)]),
                new_key("own"),
                effect(4, &[&t(b"v")]),
            ],
        ),
        (Compression::None, (0, 0), vec![effect(96, &[&row(300, 1, "renamed")])]),
        (
            Compression::None,
            (0, 0),
            vec![effect(99, &[&t(b"v1"), &number(300), &number(9), &number(TIME_MS)])],
        ),
        (Compression::None, (0, 0), vec![effect(100, &[&t(b"v1")])]),
        (Compression::None, (0, 0), vec![effect(98, &[&number(300)])]),
        (
            Compression::None,
            (0, 3),
            vec![
                effect(86, &[&number(4), &number(1 << 20), &number(TIME_MS + 60_000)]),
                effect(88, &[&number(0), &number(3), &counts()]),
                effect(64, &[&number(3)]),
            ],
        ),
        (
            Compression::None,
            (0, 3),
            vec![
                effect(66, &[&t(b"undo"), &t(b"default"), &t(b"127.0.0.1:50000")]),
                effect(89, &[&number(3), &number(0), &number(3), &counts()]),
                effect(87, &[&number(14)]),
            ],
        ),
    ]
}

/// Bytes of content above which a record of version 3 is in parts here.
const PART_BYTES: usize = 600;

/// As [`transactions_v2`] with records in parts.
fn transactions_v3() -> Transactions {
    let large: Vec<u8> = (0..1500u32).map(|at| (at * at % 251) as u8).collect();
    let mut transactions = transactions_v2();
    transactions.extend([
        (Compression::None, (0, 2), vec![new_key("large"), effect(4, &[&text(&large)])]),
        (Compression::None, (0, 3), vec![new_key("small"), effect(4, &[&text(b"v")])]),
        (Compression::Zstd, (0, 0), vec![new_key("packed"), effect(4, &[&text(&[b'p'; 1500])])]),
    ]);
    transactions
}

/// How many keys each shard has.
fn counts() -> Vec<u8> {
    (0..64).flat_map(|shard| number(u64::from(shard < 4))).collect()
}

/// What is known of a branch.
fn row(id: u64, parent: u64, name: &str) -> Vec<u8> {
    let numbers = [id, parent, 0, TIME_MS, TIME_MS + 60_001, 1 << 20, 7].map(number);
    text(&[numbers.concat(), text(name.as_bytes()), text(b"default")].concat())
}

fn header((branch, db): Place) -> RecordHeader {
    RecordHeader { time_ms: TIME_MS + u64::from(db), db, branch: BranchId(branch) }
}

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/v{version}"))
}

/// The files in the repository.
fn committed(version: u32) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder(version)).expect("the fixture is in the repository");
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
    let options =
        LogOptions { segment_bytes_max: 300, part_bytes_max: PART_BYTES, ..LogOptions::default() };
    let clock = Arc::new(ManualClock::at_ms(TIME_MS));
    let mut rng = SeededRng::new(1);
    let (log, _) = Log::open_manual(
        disk,
        Path::new(DIR),
        options,
        Revision::ZERO,
        clock,
        &mut rng,
        &mut |_| Ok(()),
    )
    .expect("a new log");
    for (compression, place, effects) in transactions(NEWEST) {
        log.set_compression(compression);
        log.append(log.reserve(), header(place), &effects.concat());
        log.pump();
    }
    log.close().expect("memory does not fail");
    named(&vfs)
}

/// The files of a disk, without the lock's.
fn named(vfs: &MemVfs) -> BTreeMap<String, Vec<u8>> {
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
        fs::create_dir_all(folder(NEWEST)).expect("a folder");
        for (name, bytes) in &written {
            fs::write(folder(NEWEST).join(name), bytes).expect("a file");
        }
    }
    let committed = committed(NEWEST);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&committed));
    for (name, bytes) in &committed {
        let differs = written[name].iter().zip(bytes).position(|(a, b)| a != b);
        assert_eq!(differs, None, "{name} differs from there on");
        assert_eq!(written[name].len(), bytes.len(), "{name}");
    }
}

fn disk(files: &BTreeMap<String, Vec<u8>>) -> MemVfs {
    let files = files.iter().map(|(name, bytes)| (Path::new(DIR).join(name), bytes.clone()));
    MemVfs::with_files(files.collect())
}

/// Opens a log; answers its records.
fn open(vfs: impl Vfs + 'static, options: LogOptions) -> (Log, Vec<(RecordHeader, Vec<u8>)>) {
    let mut records = Vec::new();
    let mut replay = |record: alcid_log::Record<'_>| {
        records.push((record.header, record.effects.to_vec()));
        assert_eq!(record.revision, Revision(records.len() as u64));
        Ok(())
    };
    let (clock, mut rng) = (Arc::new(ManualClock::at_ms(TIME_MS)), SeededRng::new(2));
    let (log, _) = Log::open_manual(
        Arc::new(vfs),
        Path::new(DIR),
        options,
        Revision::ZERO,
        clock,
        &mut rng,
        &mut replay,
    )
    .expect("a whole log");
    (log, records)
}

fn expected(version: u32) -> Vec<(RecordHeader, Vec<u8>)> {
    let transactions = transactions(version).into_iter();
    transactions.map(|(_, place, effects)| (header(place), effects.concat())).collect()
}

#[test]
fn every_version_is_read_whole() {
    for version in 1..=NEWEST {
        let vfs = disk(&committed(version));
        let report = check(&vfs, Path::new(DIR), Some(Revision::ZERO)).expect("readable");
        assert!(report.finding.is_none() && report.report.dropped.is_none(), "{report:?}");
        assert_eq!(open(vfs, LogOptions::default()).1, expected(version));
    }
}

/// An older Alcid refuses a segment of a newer version; it must not find newer
/// effects in one of its own.
#[test]
fn an_older_log_goes_on_in_a_segment_of_the_newest_version() {
    (1..NEWEST).for_each(goes_on_in_a_segment_of_the_newest_version);
}

fn goes_on_in_a_segment_of_the_newest_version(version: u32) {
    let old = committed(version);
    let vfs = disk(&old);
    let mut records = expected(version);
    for _ in 0..2 {
        let (log, found) = open(vfs.clone(), LogOptions::default());
        assert_eq!(found, records);
        log.append(log.reserve(), header((0, 1)), b"more");
        log.pump();
        records.push((header((0, 1)), b"more".to_vec()));
        let mut reader = log.reader(Revision(1));
        let mut read = Vec::new();
        let mut each = |record: alcid_log::Record<'_>, _| {
            read.push((record.header, record.effects.to_vec()));
            ControlFlow::Continue(())
        };
        while reader.read(Duration::ZERO, &mut each).expect("readable") > 0 {}
        assert_eq!(read, records);
        log.close().expect("memory does not fail");
    }
    let files = named(&vfs);
    for (name, bytes) in old.iter().filter(|(name, _)| *name != "MANIFEST") {
        assert_eq!(&files[name], bytes, "{name} stays as it was");
    }
    let newer: Vec<_> = files.iter().filter(|(name, _)| !old.contains_key(*name)).collect();
    let [(name, segment)] = newer[..] else { panic!("one segment more, not {newer:?}") };
    assert_eq!(name, &format!("{:020}.alog", expected(version).len() + 1));
    assert_eq!(u32_at(segment, 8), NEWEST, "version");
    assert_eq!(u64_at(&files["MANIFEST"], 28), expected(version).len() as u64 + 1);
}

/// A log of version 1 that holds no record.
fn empty_v1() -> BTreeMap<String, Vec<u8>> {
    let first = format!("{:020}.alog", 1);
    let mut files = committed(1);
    let mut manifest = files.remove("MANIFEST").expect("in the repository");
    manifest[28..36].copy_from_slice(&1u64.to_le_bytes());
    let checksum = crc32c::crc32c(&manifest[..36]);
    manifest[36..].copy_from_slice(&checksum.to_le_bytes());
    let segment = files[&first][..64].to_vec();
    BTreeMap::from([("MANIFEST".to_owned(), manifest), (first, segment)])
}

#[test]
fn an_older_log_without_records_is_begun_again() {
    let vfs = disk(&empty_v1());
    let (log, found) = open(vfs.clone(), LogOptions::default());
    assert_eq!(found, []);
    log.append(log.reserve(), header((0, 0)), b"first");
    log.close().expect("memory does not fail");
    drop(log);
    let files = named(&vfs);
    assert_eq!(files.len(), 2, "{:?}", files.keys());
    assert_eq!(u32_at(&files[&format!("{:020}.alog", 1)], 8), NEWEST, "version");
    assert_eq!(open(vfs, LogOptions::default()).1, [(header((0, 0)), b"first".to_vec())]);
}

/// Whichever step fails, the next start finds a log.
#[test]
fn to_begin_it_again_may_fail_at_any_step() {
    let files: BTreeMap<PathBuf, Vec<u8>> =
        empty_v1().into_iter().map(|(name, bytes)| (Path::new(DIR).join(name), bytes)).collect();
    let mut failed = 0;
    for step in 1..30 {
        let vfs = FaultyVfs::with_files(files.clone());
        vfs.inject(step, Fault::Eio);
        let (clock, mut rng) = (Arc::new(ManualClock::at_ms(TIME_MS)), SeededRng::new(2));
        let opened = Log::open_manual(
            Arc::new(vfs.clone()),
            Path::new(DIR),
            LogOptions::default(),
            Revision::ZERO,
            clock,
            &mut rng,
            &mut |_| Ok(()),
        );
        failed += u32::from(opened.is_err());
        drop(opened);
        for seed in 0..8 {
            let crashed = FaultyVfs::with_files(vfs.crash_image(seed));
            let (log, found) = open(crashed.clone(), LogOptions::default());
            assert_eq!(found, []);
            log.append(log.reserve(), header((0, 0)), b"first");
            log.close().expect("no more faults");
            drop(log);
            assert_eq!(open(crashed, LogOptions::default()).1.len(), 1);
        }
    }
    assert!(failed >= 5, "{failed} faults hit the opening");
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
    (1..=NEWEST).for_each(fields_are_where_the_document_says);
}

fn fields_are_where_the_document_says(version: u32) {
    let files = committed(version);
    let transactions = transactions(version);
    let manifest = &files["MANIFEST"];
    assert_eq!(manifest.len(), 40);
    assert_eq!(&manifest[0..8], b"ALCIDMAN");
    assert_eq!(u32_at(manifest, 8), 1, "version of the manifest");
    let id = &manifest[12..28];
    assert_eq!(u32_at(manifest, 36), crc32c::crc32c(&manifest[..36]));

    let mut revision = 1;
    let mut newest_segment = 0;
    let (mut compressions, mut marks) = (Vec::new(), 0);
    // Of a record in parts, how many were read, and their bytes.
    let (mut parts, mut in_parts) = (0, Vec::new());
    for (name, segment) in files.iter().filter(|(name, _)| name.ends_with(".alog")) {
        assert_eq!(name, &format!("{revision:020}.alog"));
        newest_segment = revision;
        assert_eq!(&segment[0..8], b"ALCIDLOG");
        assert_eq!(u32_at(segment, 8), version);
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
            let (has_more, number) = (block[33] == 1, u16::from_le_bytes([block[34], block[35]]));
            if version < 3 {
                assert_eq!(&block[33..36], &[0; 3], "reserved");
            } else {
                assert_eq!((block[33] & !1, number), (0, parts), "part");
                parts = if has_more { parts + 1 } else { 0 };
            }
            match block[32] {
                0 => assert_eq!(content_len, len),
                compressed => {
                    assert!(content_len > len);
                    compressions.push(compressed);
                }
            }
            if has_more || number > 0 {
                assert_eq!(count, u32::from(!has_more), "records");
                assert!(if has_more {
                    content_len == PART_BYTES
                } else {
                    content_len <= PART_BYTES
                });
                if block[32] == 0 {
                    in_parts.extend(&block[36..36 + len]);
                }
            }
            if block[32] == 0 && count > 0 && number > 0 {
                let (_, (branch, db), effects) = &transactions[revision as usize - 1];
                let record = std::mem::take(&mut in_parts);
                assert_eq!(u32_at(&record, 0), u32::MAX, "to the end");
                assert_eq!(u64_at(&record, 4), TIME_MS + u64::from(*db));
                assert_eq!(record[12..14], db.to_le_bytes());
                assert_eq!(u32_at(&record, 14), *branch, "branch");
                assert_eq!(record[18..], effects.concat());
            } else if block[32] == 0 && count > 0 {
                let record = &block[36..];
                let (_, (branch, db), effects) = &transactions[revision as usize - 1];
                assert_eq!(u32_at(record, 0) as usize, effects.concat().len());
                assert_eq!(u64_at(record, 4), TIME_MS + u64::from(*db));
                assert_eq!(record[12..14], db.to_le_bytes());
                assert_eq!(u32_at(record, 14), *branch, "branch");
                assert_eq!(record[18..18 + effects.concat().len()], effects.concat());
            }
            marks += u32::from(count == 0 && !has_more);
            revision += u64::from(count);
            at += 36 + len;
        }
        assert_eq!(at, segment.len());
    }
    assert_eq!(u64_at(manifest, 28), newest_segment);
    assert_eq!(revision, transactions.len() as u64 + 1);
    let packed_parts = if version < 3 { vec![] } else { vec![2; 3] };
    assert_eq!(compressions, [vec![1, 2, 3], packed_parts].concat());
    assert_eq!(marks, 1, "the closing mark");
}
