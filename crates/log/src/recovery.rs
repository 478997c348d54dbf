//! Reading a log from its beginning: what is whole, what is torn, what is
//! damaged.

use std::path::{Path, PathBuf};

use base::Revision;

use crate::error::LogError;
use crate::format::{
    self, BLOCK_HEADER_BYTES, BlockPlace, NoBlock, Record, SEGMENT_HEADER_BYTES,
    parse_segment_name, segment_name,
};
use crate::identity::Manifest;
use crate::vfs::{Vfs, at};

/// What recovery found and did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveryReport {
    /// What the log held up to there was not needed; see [`crate::Log::open`].
    pub base: Revision,
    /// The newest revision, `base` if nothing follows it.
    pub last: Revision,
    /// Transactions replayed.
    pub records: u64,
    /// Transactions read but not replayed, up to `base`.
    pub records_skipped: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Segments read.
    pub segments: usize,
    /// Segments at or below `base`, of which only the headers were read.
    pub segments_skipped: usize,
    /// The log ended with that revision, before `base`: it goes on after
    /// `base`, in a new segment.
    pub ended_early: Option<Revision>,
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

impl Whole {
    /// Its last revision; the one before its first when it holds none.
    pub(crate) fn last(&self) -> Revision {
        Revision(self.end.0 - 1)
    }
}

/// What reading found; after an error, up to there.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) segments: Vec<Whole>,
    /// The first segment that is needed; nothing but the headers of those
    /// before it was read.
    pub(crate) needed: Revision,
    pub(crate) report: RecoveryReport,
}

/// Segments of a folder by their first revision, in order.
pub(crate) fn segment_names(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<Revision>, LogError> {
    let names = vfs.list(dir).map_err(LogError::io("list", dir))?;
    Ok(names.iter().filter_map(|name| parse_segment_name(name)).collect())
}

/// Reads every segment that may hold a revision above `base`, in order, and
/// hands out the records above it. Without a base the log is read from where
/// it begins. Changes nothing.
pub(crate) fn walk(
    vfs: &dyn Vfs,
    dir: &Path,
    manifest: &Manifest,
    base: Option<Revision>,
    walk: &mut Walk,
    replay: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
) -> Result<(), LogError> {
    let folder = Folder { vfs, dir, manifest };
    let mut names = segment_names(vfs, dir)?;
    walk.report.dropped = folder.unfinished(&names)?;
    if walk.report.dropped.is_some() {
        names.pop();
    }
    let base = match base {
        Some(base) => base,
        None => folder.beginning(&names)?,
    };
    (walk.report.base, walk.report.last) = (base, base);
    let upto_base = names.partition_point(|first| *first <= base.next());
    if let (0, Some(&first)) = (upto_base, names.first()) {
        let found = format!("it begins with {}", segment_name(first));
        return Err(folder.missing(base.next(), found));
    }
    let (skipped, needed) = names.split_at(upto_base.saturating_sub(1));
    let mut next = needed.first().copied().unwrap_or_default();
    walk.needed = next;
    for (index, &first) in skipped.iter().enumerate() {
        let (version, len) = folder.header(first)?;
        walk.segments.push(Whole { first, version, end: names[index + 1], len });
        walk.report.segments_skipped += 1;
    }
    for (index, &first) in needed.iter().enumerate() {
        let path = at(dir, &segment_name(first));
        let bytes = vfs.read(&path).map_err(LogError::io("read", &path))?;
        let version = format::check_segment_header(&bytes, &path, &manifest.id, first)?;
        if first != next {
            let before = segment_name(needed[index - 1]);
            let found = format!("after {before} comes {}", segment_name(first));
            return Err(folder.missing(next, found));
        }
        // Behind a segment that is missing, nothing is the tail; and a segment
        // is synced before the next one is begun.
        let is_last = index + 1 == needed.len()
            && first >= manifest.newest_segment
            && walk.report.dropped.is_none();
        let segment = Segment { path: &path, bytes: &bytes, first, version, is_last };
        next = segment.read(manifest, next, walk, replay)?;
        walk.report.segments += 1;
    }
    let newest = walk.segments.last().map(|segment| segment.first);
    if newest < Some(manifest.newest_segment) {
        let wanted = segment_name(manifest.newest_segment);
        let found = newest.map_or("no segment".to_owned(), segment_name);
        return Err(folder.missing(
            manifest.newest_segment,
            format!("its newest should be {wanted}, found {found}"),
        ));
    }
    walk.report.ended_early = Some(Revision(next.0 - 1)).filter(|last| *last < base);
    Ok(())
}

/// A log's folder, to be read only.
struct Folder<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    manifest: &'a Manifest,
}

impl Folder<'_> {
    fn missing(&self, revision: Revision, found: String) -> LogError {
        LogError::MissingSegment { dir: self.dir.to_path_buf(), revision, found }
    }

    /// The version and the length of a segment, whose header is right.
    fn header(&self, first: Revision) -> Result<(u32, u64), LogError> {
        let path = at(self.dir, &segment_name(first));
        let bytes = self
            .vfs
            .read_at(&path, 0, SEGMENT_HEADER_BYTES)
            .map_err(LogError::io("read", &path))?;
        let version = format::check_segment_header(&bytes, &path, &self.manifest.id, first)?;
        let len = self.vfs.len(&path).map_err(LogError::io("read", &path))?;
        Ok((version, len))
    }

    /// The newest segment, if it was being created when the server ended:
    /// beyond what the manifest knows, and no more than a part of a header.
    fn unfinished(&self, names: &[Revision]) -> Result<Option<Dropped>, LogError> {
        let newest = names.last().filter(|first| **first > self.manifest.newest_segment);
        let Some(&first) = newest else { return Ok(None) };
        let path = at(self.dir, &segment_name(first));
        let len = self.vfs.len(&path).map_err(LogError::io("read", &path))?;
        if len > SEGMENT_HEADER_BYTES as u64 || self.header(first).is_ok() {
            return Ok(None);
        }
        let what = "a segment that was being created when the server ended";
        Ok(Some(Dropped { path, offset: 0, bytes: len, what }))
    }

    /// The revision before the first one that the log holds without a gap, as
    /// far as the segments tell.
    fn beginning(&self, names: &[Revision]) -> Result<Revision, LogError> {
        let mut first = names.first().copied().unwrap_or(Revision(1));
        for &later in names.iter().rev() {
            let path = at(self.dir, &segment_name(later));
            let header = self
                .vfs
                .read_at(&path, 0, SEGMENT_HEADER_BYTES)
                .map_err(LogError::io("read", &path))?;
            if format::begins_anew(&header) {
                first = later;
                break;
            }
        }
        Ok(Revision(first.0 - 1))
    }
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
            let place = BlockPlace { id: manifest.id, segment: self.first, offset };
            let (header, stored) = match format::block_at(self.bytes, &place) {
                Ok(found) => found,
                Err(NoBlock::End) => break,
                Err(problem) => {
                    self.judge(&place, next, problem)?;
                    walk.report.dropped = Some(Dropped {
                        path: self.path.to_path_buf(),
                        offset,
                        bytes: self.bytes.len() as u64 - offset,
                        what: problem.words(),
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
                if record.revision <= walk.report.base {
                    walk.report.records_skipped += 1;
                    continue;
                }
                replay(record)
                    .map_err(|reason| LogError::Refused { revision: record.revision, reason })?;
                walk.report.records += 1;
            }
            next = header.end().expect("checked with the block");
            walk.report.last = walk.report.base.max(Revision(next.0 - 1));
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
    fn judge(&self, place: &BlockPlace, next: Revision, problem: NoBlock) -> Result<(), LogError> {
        if !self.is_last {
            return Err(self.damaged(place.offset, problem.to_string()));
        }
        let from = place.offset + 1;
        for offset in from..self.bytes.len() as u64 {
            if !format::looks_like_block(&self.bytes[offset as usize..], next) {
                continue;
            }
            let place = BlockPlace { offset, ..*place };
            if let Ok((later, _)) = format::block_at(self.bytes, &place)
                && later.durable >= next
            {
                return Err(self.damaged(
                    from - 1,
                    format!(
                        "{}; a later block at byte {offset} shows that revisions up to {} were on disk",
                        problem,
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
