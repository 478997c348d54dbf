//! Segments away from their log: copies in a backup, and a log that goes on
//! where a restored archive ends.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use base::{Clock, Revision};

use crate::error::LogError;
use crate::format::{self, Label, Part, Record, SEGMENT_HEADER_BYTES, segment_name};
use crate::identity::Manifest;
use crate::vfs::{Vfs, at};
use crate::whole::WholeBlocks;
use crate::writer::create_segment;

/// Visits the transactions of a segment's copy, whatever its file is called,
/// and answers the last one visited; the one before `first` when there is none.
/// `id` is the log's ([`crate::Log::id`]) and `first` the segment's first
/// revision. A copy ends with a whole block: nothing in it counts as torn.
///
/// # Errors
/// When the file cannot be read, or is not whole.
pub fn read_copy(
    vfs: &dyn Vfs,
    path: &Path,
    id: [u8; 16],
    first: Revision,
    each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<Revision, LogError> {
    let bytes = vfs.read(path).map_err(LogError::io("read", path))?;
    let mut blocks = WholeBlocks::of(&bytes, path, id, first)?;
    let mut last = Revision(first.0 - 1);
    while let Some(block) = blocks.next()? {
        for record in block.records() {
            let record = record?;
            last = record.revision;
            if each(record).is_break() {
                return Ok(last);
            }
        }
    }
    Ok(last)
}

/// A segment's copy, whatever its file is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentCopy {
    /// The segment's first revision.
    pub first: Revision,
    /// The file.
    pub path: PathBuf,
}

/// Makes a log in an empty folder: that of the database `id`, which has what
/// copies of its segments have up to a revision, and goes on after it. The copies
/// follow each other; without any, an archive holds what comes before.
///
/// # Errors
/// When files cannot be made there, or are there already; when a copy is not
/// whole, or they end earlier.
pub fn create_from(
    vfs: &dyn Vfs,
    dir: &Path,
    id: [u8; 16],
    copies: &[SegmentCopy],
    upto: Revision,
    clock: &dyn Clock,
) -> Result<(), LogError> {
    vfs.create_dir_all(dir).map_err(LogError::io("create the folder", dir))?;
    let mut next = None;
    for copy in copies.iter().filter(|copy| copy.first <= upto) {
        if let Some(missing) = next.filter(|next| *next != copy.first) {
            let (dir, found) = (dir.to_path_buf(), segment_name(copy.first));
            return Err(LogError::MissingSegment { dir, revision: missing, found });
        }
        next = Some(copy_upto(vfs, copy, dir, id, upto)?);
    }
    let first = upto.next();
    if let Some(missing) = next.filter(|next| *next != first) {
        let (dir, found) = (dir.to_path_buf(), "no more".to_owned());
        return Err(LogError::MissingSegment { dir, revision: missing, found });
    }
    let manifest = Manifest { id, newest_segment: first };
    let begins_anew = first > Revision(1) && next.is_none();
    create_segment(vfs, dir, &manifest, first, clock.now_ms(), begins_anew)?;
    manifest.write(vfs, dir)
}

/// Copies a segment into a folder under its own name, durably but for that;
/// answers the revision that comes after.
fn copy_upto(
    vfs: &dyn Vfs,
    copy: &SegmentCopy,
    dir: &Path,
    id: [u8; 16],
    upto: Revision,
) -> Result<Revision, LogError> {
    let SegmentCopy { first, path } = copy;
    let bytes = vfs.read(path).map_err(LogError::io("read", path))?;
    let mut blocks = WholeBlocks::of(&bytes, path, id, *first)?;
    // Of the block in which it ends, some transactions.
    let (mut whole, mut rest, mut next) = (SEGMENT_HEADER_BYTES as u64, Vec::new(), *first);
    while next <= upto
        && let Some(block) = blocks.next()?
    {
        let (header, place) = (&block.header, &block.place);
        let end = header.end().expect("checked with the block");
        if block.is_complete() && end > upto.next() {
            let mut kept = Vec::new();
            for record in block.records() {
                let record = record?;
                if record.revision <= upto {
                    format::put_record(&mut kept, &record.header, record.effects);
                }
            }
            let count = (upto.next().0 - header.first.0) as u32;
            let (first, durable, part) = (header.first, header.durable, Part::default());
            let label = Label { first, durable, count, part };
            format::put_block(&mut rest, place, &label, &kept, header.compression());
            next = upto.next();
        } else {
            whole = block.end();
            next = if block.is_complete() { end } else { next };
        }
    }
    let to = at(dir, &segment_name(*first));
    let mut file = vfs.create(&to).map_err(LogError::io("create", &to))?;
    for bytes in [&bytes[..whole as usize], &rest] {
        file.append(bytes).map_err(LogError::io("write", &to))?;
    }
    file.sync().map_err(LogError::io("sync", &to))?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use base::{BranchId, ManualClock, Rng, SeededRng};

    use super::*;
    use crate::{Compression, Log, LogOptions, MemVfs, RecordHeader};

    const DIR: &str = "/log";

    fn open(vfs: &MemVfs, base: u64) -> Log {
        open_packed(vfs, base, Compression::None)
    }

    fn open_packed(vfs: &MemVfs, base: u64, compression: Compression) -> Log {
        let replay = &mut |_: Record<'_>| Ok(());
        let (vfs, clock) = (Arc::new(vfs.clone()), Arc::new(ManualClock::at_ms(5)));
        let (block_bytes_max, part_bytes_max) = (100, 200);
        let options =
            LogOptions { block_bytes_max, part_bytes_max, compression, ..LogOptions::default() };
        let mut rng = SeededRng::new(1);
        let opened =
            Log::open_manual(vfs, Path::new(DIR), options, Revision(base), clock, &mut rng, replay);
        opened.expect("it opens").0
    }

    fn append(log: &Log, count: u64) {
        for _ in 0..count {
            let revision = log.reserve();
            let header = RecordHeader { time_ms: revision.0, db: 0, branch: BranchId::MAIN };
            log.append(revision, header, revision.to_string().as_bytes());
        }
        log.pump();
    }

    #[test]
    fn a_copy_is_read_from_its_first_record_to_its_last() {
        let vfs = MemVfs::new();
        let log = open(&vfs, 0);
        append(&log, 30);
        let segment = log.segments()[0];
        let path = log.dir().join(segment.file_name());
        let read = |path: &Path, upto: u64| {
            let mut read = Vec::new();
            let end = read_copy(&vfs, path, log.id(), segment.first, &mut |record| {
                assert_eq!(record.effects, record.revision.to_string().as_bytes());
                read.push(record.revision.0);
                if record.revision.0 < upto {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            end.map(|end| (end.0, read))
        };
        assert_eq!(read(&path, 99).expect("whole"), (30, (1..=30).collect()));
        assert_eq!(read(&path, 7).expect("whole"), (7, (1..=7).collect()));

        let bytes = vfs.read(&path).expect("there");
        let copy = Path::new("/copy");
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let _ = vfs.remove(copy);
            vfs.create(copy).expect("new").append(&bytes).expect("room");
            read(copy, 99).expect_err("a flipped byte is found");
        }
        vfs.remove(copy).expect("there");
        vfs.create(copy).expect("new").append(&bytes[..bytes.len() - 1]).expect("room");
        let error = read(copy, 99).expect_err("it ends early").to_string();
        assert!(error.contains("the file ends within a block"), "{error}");
    }

    #[test]
    fn a_log_goes_on_after_a_base() {
        for base in [0, 41] {
            let vfs = MemVfs::new();
            let clock = ManualClock::at_ms(5);
            create_from(&vfs, Path::new(DIR), [7; 16], &[], Revision(base), &clock).expect("empty");
            let log = open(&vfs, base);
            assert_eq!((log.id(), log.newest()), ([7; 16], Revision(base)));
            append(&log, 1);
            assert_eq!(log.segments()[0].last, Revision(base + 1));
            create_from(&vfs, Path::new(DIR), [7; 16], &[], Revision(base), &clock)
                .expect_err("there is one");
        }
    }

    #[test]
    fn a_log_has_what_copies_have_up_to_any_revision() {
        const LAST: u64 = 34;
        for compression in [Compression::None, Compression::Zstd] {
            let vfs = MemVfs::new();
            let log = open_packed(&vfs, 0, compression);
            append(&log, 20);
            // In parts, if it is packed or not.
            let revision = log.reserve();
            let header = RecordHeader { time_ms: 21, db: 0, branch: BranchId::MAIN };
            let mut rng = SeededRng::new(3);
            let large: Vec<u8> = (0..900).map(|_| rng.below(256) as u8).collect();
            log.append(revision, header, &large);
            log.pump();
            append(&log, 4);
            log.roll().expect("room");
            append(&log, 9);
            let copies: Vec<SegmentCopy> = log
                .segments()
                .iter()
                .map(|it| SegmentCopy { first: it.first, path: log.dir().join(it.file_name()) })
                .collect();
            let id = log.id();
            let read = |log: &Log| {
                let mut all = Vec::new();
                let mut reader = log.reader(Revision(1));
                while reader.next_revision() <= log.newest() {
                    let each = &mut |record: Record<'_>, _| {
                        all.push((record.revision.0, record.header, record.effects.to_vec()));
                        ControlFlow::Continue(())
                    };
                    reader.read(Duration::ZERO, each).expect("whole");
                }
                all
            };
            let before = read(&log);
            assert_eq!(before.len() as u64, LAST);
            log.close().expect("memory");
            drop(log);
            for upto in 0..=LAST {
                let other = MemVfs::new();
                for copy in &copies {
                    let bytes = vfs.read(&copy.path).expect("there");
                    other.create_dir_all(Path::new("/from")).expect("memory");
                    let to = Path::new("/from").join(copy.path.file_name().expect("named"));
                    other.create(&to).expect("new").append(&bytes).expect("room");
                }
                let copies: Vec<SegmentCopy> = copies
                    .iter()
                    .map(|it| {
                        let name = it.path.file_name().expect("named");
                        SegmentCopy { first: it.first, path: Path::new("/from").join(name) }
                    })
                    .collect();
                let (dir, clock) = (Path::new(DIR), ManualClock::at_ms(5));
                let make = |copies: &[_], dir| {
                    create_from(&other, dir, id, copies, Revision(upto), &clock)
                };
                make(&copies, dir).expect("whole");
                let log = open_packed(&other, upto, compression);
                assert_eq!((log.id(), log.newest()), (id, Revision(upto)));
                assert_eq!(log.unbroken_from(), Revision(1), "{upto}");
                assert_eq!(read(&log), before[..upto as usize], "{upto}");
                append(&log, 2);
                assert_eq!(read(&log)[..upto as usize], before[..upto as usize]);
                assert_eq!(read(&log).len() as u64, upto + 2);
                // What is missing is said.
                let missing = match upto {
                    0..=25 => make(&copies[1..], Path::new("/less")).is_ok(),
                    _ => make(&copies[..1], Path::new("/less")).is_err(),
                };
                assert!(missing, "{upto}");
            }
        }
    }
}
