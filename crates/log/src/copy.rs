//! Segments away from their log: copies in a backup, and a log that goes on
//! where a restored archive ends.

use std::ops::ControlFlow;
use std::path::Path;

use base::{Clock, Revision};

use crate::error::LogError;
use crate::format::{
    self, BLOCK_HEADER_BYTES, BlockPlace, NoBlock, Record, SEGMENT_HEADER_BYTES,
    check_segment_header,
};
use crate::identity::Manifest;
use crate::parts::Assembly;
use crate::vfs::Vfs;
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
    check_segment_header(&bytes, path, &id, first)?;
    let mut offset = SEGMENT_HEADER_BYTES as u64;
    let mut next = first;
    let (mut buffer, mut assembly) = (Vec::new(), Assembly::default());
    loop {
        let at = offset;
        let damaged = |what| LogError::Damaged { path: path.to_path_buf(), offset: at, what };
        let place = BlockPlace { id, segment: first, offset };
        let (header, stored) = match assembly.block_at(&bytes, &place) {
            Ok(found) => found,
            Err(NoBlock::End) => break,
            Err(problem) => return Err(damaged(problem.to_string())),
        };
        if header.first != next {
            return Err(damaged(format!(
                "it holds revision {} where {next} belongs",
                header.first
            )));
        }
        let content = format::content(&header, stored, &mut buffer).map_err(damaged)?;
        let content = assembly.take(&header, content).map_err(|what| damaged(what.to_owned()))?;
        offset += BLOCK_HEADER_BYTES as u64 + u64::from(header.len);
        let Some(content) = content else { continue };
        for record in format::records(header.first, header.count, content) {
            let record = record.map_err(|what| damaged(what.to_owned()))?;
            next = record.revision.next();
            if each(record).is_break() {
                return Ok(Revision(next.0 - 1));
            }
        }
        next = header.end().expect("checked with the block");
    }
    Ok(Revision(next.0 - 1))
}

/// Makes an empty log in an empty folder: that of the database `id`, which goes
/// on after `base`. An archive holds what comes before.
///
/// # Errors
/// When files cannot be made there, or are there already.
pub fn create_after(
    vfs: &dyn Vfs,
    dir: &Path,
    id: [u8; 16],
    base: Revision,
    clock: &dyn Clock,
) -> Result<(), LogError> {
    vfs.create_dir_all(dir).map_err(LogError::io("create the folder", dir))?;
    let first = base.next();
    let manifest = Manifest { id, newest_segment: first };
    create_segment(vfs, dir, &manifest, first, clock.now_ms(), first > Revision(1))?;
    manifest.write(vfs, dir)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::{BranchId, ManualClock, SeededRng};

    use super::*;
    use crate::{Log, LogOptions, MemVfs, RecordHeader};

    const DIR: &str = "/log";

    fn open(vfs: &MemVfs, base: u64) -> Log {
        let replay = &mut |_: Record<'_>| Ok(());
        let (vfs, clock) = (Arc::new(vfs.clone()), Arc::new(ManualClock::at_ms(5)));
        let options = LogOptions { block_bytes_max: 100, ..LogOptions::default() };
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
            create_after(&vfs, Path::new(DIR), [7; 16], Revision(base), &clock).expect("empty");
            let log = open(&vfs, base);
            assert_eq!((log.id(), log.newest()), ([7; 16], Revision(base)));
            append(&log, 1);
            assert_eq!(log.segments()[0].last, Revision(base + 1));
            create_after(&vfs, Path::new(DIR), [7; 16], Revision(base), &clock)
                .expect_err("there is one");
        }
    }
}
