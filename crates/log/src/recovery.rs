//! Reading a log from its beginning: what is whole, what is torn, what is
//! damaged.

use std::path::{Path, PathBuf};

use base::Revision;

use crate::error::LogError;
use crate::format::{
    self, BLOCK_HEADER_BYTES, NoBlock, Place, Record, SEGMENT_HEADER_BYTES, parse_segment_name,
};
use crate::identity::Manifest;
use crate::vfs::{Vfs, at};

/// What recovery found and did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveryReport {
    /// The newest revision replayed.
    pub last: Revision,
    /// Transactions replayed.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Segments read.
    pub segments: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// What was cut off, if anything.
    pub dropped: Option<Dropped>,
}

/// A torn tail that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The file.
    pub path: PathBuf,
    /// Where the whole part ends.
    pub offset: u64,
    /// Bytes after it.
    pub bytes: u64,
    /// What is wrong there.
    pub what: &'static str,
}

/// A segment and how much of it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) first: Revision,
    /// The version of its format.
    pub(crate) version: u32,
    /// The revision after its last.
    pub(crate) end: Revision,
    /// Bytes that are whole.
    pub(crate) len: u64,
}

/// What reading found; after an error, up to there.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) segments: Vec<Whole>,
    pub(crate) report: RecoveryReport,
}

/// Segments of a folder by their first revision, in order.
pub(crate) fn segment_names(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<Revision>, LogError> {
    let names = vfs.list(dir).map_err(LogError::io("list", dir))?;
    Ok(names.iter().filter_map(|name| parse_segment_name(name)).collect())
}

/// Reads every segment in order and hands out every record. Changes nothing.
pub(crate) fn walk(
    vfs: &dyn Vfs,
    dir: &Path,
    manifest: &Manifest,
    walk: &mut Walk,
    replay: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
) -> Result<(), LogError> {
    let names = segment_names(vfs, dir)?;
    let missing =
        |revision, found| LogError::MissingSegment { dir: dir.to_path_buf(), revision, found };
    let mut next = Revision(1);
    for (index, &first) in names.iter().enumerate() {
        let path = at(dir, &format::segment_name(first));
        // Behind a segment that is missing, nothing is the tail.
        let is_last = index + 1 == names.len() && first >= manifest.newest_segment;
        let bytes = vfs.read(&path).map_err(LogError::io("read", &path))?;
        // Beyond what the manifest knows, a segment may have been in the making.
        if is_last && first > manifest.newest_segment && bytes.len() <= SEGMENT_HEADER_BYTES {
            let header = format::check_segment_header(&bytes, &path, &manifest.id, first);
            if header.is_err() {
                walk.report.dropped = Some(Dropped {
                    path,
                    offset: 0,
                    bytes: bytes.len() as u64,
                    what: "a segment that was being created when the server ended",
                });
                break;
            }
        }
        let version = format::check_segment_header(&bytes, &path, &manifest.id, first)?;
        if first != next {
            let which = if index == 0 { "first" } else { "next" };
            return Err(missing(next, format!("{first} {which}")));
        }
        let segment = Segment { path: &path, bytes: &bytes, first, version, is_last };
        next = segment.read(manifest, next, walk, replay)?;
        walk.report.segments += 1;
    }
    let newest = walk.segments.last().map(|segment| segment.first);
    if newest < Some(manifest.newest_segment) {
        let found = newest.map_or("none".to_owned(), |first| format!("{first} last"));
        return Err(missing(manifest.newest_segment, found));
    }
    Ok(())
}

struct Segment<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    first: Revision,
    version: u32,
    is_last: bool,
}

impl Segment<'_> {
    fn read(
        &self,
        manifest: &Manifest,
        mut next: Revision,
        walk: &mut Walk,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<Revision, LogError> {
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        let mut buffer = Vec::new();
        loop {
            let place = Place { id: manifest.id, segment: self.first, offset };
            let (header, stored) = match format::block_at(self.bytes, &place) {
                Ok(found) => found,
                Err(NoBlock::End) => break,
                Err(problem) => {
                    self.judge(&place, next, problem)?;
                    walk.report.dropped = Some(Dropped {
                        path: self.path.to_path_buf(),
                        offset,
                        bytes: self.bytes.len() as u64 - offset,
                        what: explain(problem),
                    });
                    break;
                }
            };
            if header.first != next {
                return Err(self.damaged(
                    offset,
                    format!("it holds revision {} where {next} belongs", header.first),
                ));
            }
            let content = format::content(&header, stored, &mut buffer)
                .map_err(|what| self.damaged(offset, what))?;
            for record in format::records(header.first, header.count, content) {
                let record = record.map_err(|what| self.damaged(offset, what.to_owned()))?;
                replay(record)
                    .map_err(|reason| LogError::Refused { revision: record.revision, reason })?;
                walk.report.records += 1;
            }
            next = header.end().expect("checked with the block");
            walk.report.last = Revision(next.0 - 1);
            offset += BLOCK_HEADER_BYTES as u64 + u64::from(header.len);
        }
        walk.report.bytes += offset;
        let (first, version) = (self.first, self.version);
        walk.segments.push(Whole { first, version, end: next, len: offset });
        Ok(next)
    }

    /// A tail is torn only in the last segment, and only if nothing proves
    /// that it was durable once: a later block that was written when revision
    /// `next` or a later one had been synced.
    fn judge(&self, place: &Place, next: Revision, problem: NoBlock) -> Result<(), LogError> {
        if !self.is_last {
            return Err(self.damaged(place.offset, explain(problem).to_owned()));
        }
        let from = place.offset + 1;
        for offset in from..self.bytes.len() as u64 {
            if !format::looks_like_block(&self.bytes[offset as usize..], next) {
                continue;
            }
            let place = Place { offset, ..*place };
            if let Ok((later, _)) = format::block_at(self.bytes, &place)
                && later.durable >= next
            {
                return Err(self.damaged(
                    from - 1,
                    format!(
                        "{}; a later block at byte {offset} shows that revisions up to {} were on disk",
                        explain(problem),
                        later.durable
                    ),
                ));
            }
        }
        Ok(())
    }

    fn damaged(&self, offset: u64, what: String) -> LogError {
        LogError::Damaged { path: self.path.to_path_buf(), offset, what }
    }
}

fn explain(problem: NoBlock) -> &'static str {
    match problem {
        NoBlock::End => "the file ends",
        NoBlock::Short => "the file ends within a block",
        NoBlock::Wrong(what) => what,
    }
}
