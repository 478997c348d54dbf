//! Reading a log from its beginning: what is whole, what is torn, what is
//! damaged.

use std::path::{Path, PathBuf};

use base::Revision;

use crate::error::LogError;
use crate::format::{
    self, BLOCK_HEADER_BYTES, BlockHeader, BlockPlace, NoBlock, Record, SEGMENT_HEADER_BYTES,
    VERSION, parse_segment_name, segment_name,
};
use crate::identity::Manifest;
use crate::parts::Assembly;
use crate::salvage::{Rest, Unneeded};
use crate::times::Times;
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
    /// Damage up to `base`, without which the log goes on.
    pub unneeded: Vec<Unneeded>,
    /// What was set aside for it, under the names that it has now.
    pub set_aside: Vec<PathBuf>,
}

/// A tail that was cut off: torn, or damaged and not known to have been durable.
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
    /// All of a block is there, but not as it was written: a write that a power
    /// cut has torn may look so, and damage of what was synced does.
    pub is_damaged: bool,
    /// The newest revision that may have stood there, if it is damaged and the
    /// bytes say so much.
    pub upto: Option<Revision>,
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
    /// The log began with it, or went on with it behind a gap.
    pub(crate) begins_anew: bool,
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
    /// Segments that nobody needs and whose headers are damaged.
    pub(crate) headless: Vec<Revision>,
    /// What is left of the first segment that is needed, if it is damaged where
    /// nobody needs it.
    pub(crate) rest: Option<Rest>,
    pub(crate) report: RecoveryReport,
    /// The segment that was read last, and where in it the transaction begins
    /// at which reading is.
    pub(crate) reading: Option<(Revision, u64)>,
    /// When the transactions that were read ran.
    pub(crate) times: Times,
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
    for (index, &first) in skipped.iter().enumerate() {
        let end = names[index + 1];
        match folder.header(first) {
            Ok((version, len, begins_anew)) => {
                walk.segments.push(Whole { first, version, end, len, begins_anew });
            }
            Err(LogError::Damaged { path, offset, what }) => {
                walk.headless.push(first);
                let last = Revision(end.0 - 1);
                walk.report.unneeded.push(Unneeded { path, offset, first, last, what });
            }
            Err(other) => return Err(other),
        }
        walk.report.segments_skipped += 1;
    }
    for (index, &first) in needed.iter().enumerate() {
        let path = at(dir, &segment_name(first));
        let bytes = vfs.read(&path).map_err(LogError::io("read", &path))?;
        let header = format::check_segment_header(&bytes, &path, &manifest.id, first);
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
        let segment = Segment { path: &path, bytes: &bytes, first, is_last };
        next = segment.read(manifest, next, header, walk, replay)?;
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

    /// The version and the length of a segment whose header is right, and whether
    /// the log begins anew with it.
    fn header(&self, first: Revision) -> Result<(u32, u64, bool), LogError> {
        let path = at(self.dir, &segment_name(first));
        let bytes = self
            .vfs
            .read_at(&path, 0, SEGMENT_HEADER_BYTES)
            .map_err(LogError::io("read", &path))?;
        let version = format::check_segment_header(&bytes, &path, &self.manifest.id, first)?;
        let len = self.vfs.len(&path).map_err(LogError::io("read", &path))?;
        Ok((version, len, format::begins_anew(&bytes)))
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
        Ok(Some(Dropped { path, offset: 0, bytes: len, what, is_damaged: false, upto: None }))
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

/// What may be cut; see [`Dropped`].
struct Tail {
    is_damaged: bool,
    upto: Option<Revision>,
}

struct Segment<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    first: Revision,
    is_last: bool,
}

impl Segment<'_> {
    /// `header` is what its header says: its version.
    fn read(
        &self,
        manifest: &Manifest,
        mut next: Revision,
        header: Result<u32, LogError>,
        walk: &mut Walk,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<Revision, LogError> {
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        let (mut buffer, mut assembly) = (Vec::new(), Assembly::default());
        let version = match header {
            Ok(version) => version,
            Err(error) => {
                let place = BlockPlace { id: manifest.id, segment: self.first, offset: 0 };
                (next, offset) = self.go_on(&place, next, error, walk)?;
                VERSION
            }
        };
        // Where the transaction begins that is being read.
        let mut begin = offset;
        loop {
            if !assembly.is_open() {
                begin = offset;
            }
            walk.reading = Some((self.first, begin));
            let place = BlockPlace { id: manifest.id, segment: self.first, offset };
            let (header, stored) = match assembly.block_at(self.bytes, &place) {
                Ok(found) => found,
                Err(NoBlock::End) => break,
                Err(problem) => {
                    let (tail, error) = match self.judge(&place, next, problem) {
                        Ok(tail) => (Some(tail), self.damaged(offset, problem.to_string())),
                        Err(error) => (None, error),
                    };
                    // Of a tail, too, what follows is worth more than a cut.
                    match (self.go_on(&place, next, error, walk), tail) {
                        (Ok(found), _) => (next, offset) = found,
                        (Err(error), None) => return Err(error),
                        (Err(_), Some(Tail { is_damaged, upto })) => {
                            walk.report.dropped = Some(Dropped {
                                path: self.path.to_path_buf(),
                                offset: begin,
                                bytes: self.bytes.len() as u64 - begin,
                                what: problem.words(),
                                is_damaged,
                                upto,
                            });
                            offset = begin;
                            break;
                        }
                    }
                    assembly = Assembly::default();
                    continue;
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
            let content = assembly
                .take(&header, content)
                .map_err(|what| self.damaged(offset, what.to_owned()))?;
            offset += BLOCK_HEADER_BYTES as u64 + u64::from(header.len);
            let Some(content) = content else { continue };
            let damaged = |what: &str| self.damaged(begin, what.to_owned());
            for record in format::records(header.first, header.count, content) {
                let record = record.map_err(damaged)?;
                walk.times.note(record.revision, record.header.time_ms);
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
        }
        walk.report.bytes += offset;
        if let Some(rest) = walk.rest.as_mut().filter(|rest| rest.segment == self.first) {
            rest.end = offset;
        }
        let begins_anew = format::begins_anew(self.bytes);
        let first = self.first;
        walk.segments.push(Whole { first, version, end: next, len: offset, begins_anew });
        Ok(next)
    }

    /// Where reading goes on behind damage that hits nothing above the base: at
    /// a later block with which nothing that is needed is lost. Answers its first
    /// revision and where it is.
    fn go_on(
        &self,
        place: &BlockPlace,
        next: Revision,
        error: LogError,
        walk: &mut Walk,
    ) -> Result<(Revision, u64), LogError> {
        let needed = walk.report.base.next();
        let LogError::Damaged { path, offset, what } = error else { return Err(error) };
        // The segment's own name must not be that of what is left of it.
        let is_whole =
            |header: &BlockHeader| header.first > self.first && header.part().number == 0;
        let found = self.blocks_after(place, next).find(|(header, _)| is_whole(header));
        match found.filter(|(header, _)| header.first <= needed) {
            Some((header, at)) => {
                let (segment, first) = (self.first, header.first);
                walk.rest = Some(Rest { segment, offset: at, end: at, first });
                walk.times = Times::default();
                let last = Revision(first.0 - 1);
                walk.report.unneeded.push(Unneeded { path, offset, first: next, last, what });
                Ok((first, at))
            }
            None => Err(LogError::Damaged { path, offset, what }),
        }
    }

    /// Whole blocks that begin after a place and hold nothing before `next`.
    fn blocks_after(
        &self,
        place: &BlockPlace,
        next: Revision,
    ) -> impl Iterator<Item = (BlockHeader, u64)> {
        let place = *place;
        (place.offset + 1..self.bytes.len() as u64).filter_map(move |offset| {
            if !format::looks_like_block(&self.bytes[offset as usize..], next) {
                return None;
            }
            let found = format::block_at(self.bytes, &BlockPlace { offset, ..place });
            found.ok().map(|(header, _)| (header, offset))
        })
    }

    /// A tail may be cut only in the last segment, and only if nothing proves
    /// that it was durable once: a later block that was written when revision
    /// `next` or a later one had been synced.
    fn judge(
        &self,
        place: &BlockPlace,
        next: Revision,
        problem: NoBlock,
    ) -> Result<Tail, LogError> {
        if !self.is_last {
            return Err(self.damaged(place.offset, problem.to_string()));
        }
        let rest = &self.bytes[place.offset as usize..];
        let mut last = format::claimed_last(rest, next);
        for (later, offset) in self.blocks_after(place, next) {
            if later.durable >= next {
                return Err(self.damaged(
                    place.offset,
                    format!(
                        "{problem}; a later block at byte {offset} shows that revisions up to {} were on disk",
                        later.durable
                    ),
                ));
            }
            last = last.max(later.end().map(|end| Revision(end.0 - 1)));
        }
        let upto = last.filter(|last| *last >= next);
        // Zeros are what a power cut leaves of a write that has only made the file
        // longer; a mark holds nothing.
        let is_damaged = upto.is_some()
            || matches!(problem, NoBlock::Wrong(_))
                && rest.len() > BLOCK_HEADER_BYTES
                && rest.iter().any(|byte| *byte != 0);
        Ok(Tail { is_damaged, upto })
    }

    fn damaged(&self, offset: u64, what: String) -> LogError {
        LogError::Damaged { path: self.path.to_path_buf(), offset, what }
    }
}
