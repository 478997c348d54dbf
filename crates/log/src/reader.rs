//! Following a log from any revision.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::Revision;

use crate::block::{Files, Place};
use crate::error::{LogError, LogFault};
use crate::format::{
    self, BLOCK_HEADER_BYTES, BlockHeader, BlockPlace, Record, SEGMENT_HEADER_BYTES, u32_at,
};
use crate::parts::Assembly;
use crate::segments::End;
use crate::shared::Shared;

/// Bytes to read at once; more if a block is larger.
const CHUNK_BYTES: usize = 256 << 10;

/// Visits committed transactions in order and waits for new ones.
///
/// Nothing keeps the segments it has yet to read but a hold, see
/// [`crate::Log::hold`].
#[derive(Debug)]
pub struct LogReader {
    files: Files,
    shared: Arc<Shared>,
    next: Revision,
    position: Option<Position>,
    chunk: Chunk,
    /// The content of a compressed block.
    unpacked: Vec<u8>,
    woken: Arc<AtomicBool>,
}

/// Where the next block is.
#[derive(Clone, Copy, Debug)]
struct Position {
    segment: Revision,
    offset: u64,
    /// How many rewrites the file has had in which it is there. `None` where
    /// that is not known: then it may not be there.
    rewrites: Option<u32>,
}

impl Position {
    /// That of every segment is the same.
    fn beginning_of(segment: Revision) -> Position {
        Position { segment, offset: SEGMENT_HEADER_BYTES as u64, rewrites: None }
    }
}

/// Bytes of a segment.
#[derive(Debug, Default)]
struct Chunk {
    segment: Revision,
    offset: u64,
    bytes: Vec<u8>,
    /// The newest revision that was committed before it was read. Bytes of
    /// later ones may have been incomplete, or have been cut off again.
    committed: Revision,
}

impl Chunk {
    /// Its bytes from `offset` on, if these are bytes of the block that holds
    /// `next`.
    fn from(&self, segment: Revision, offset: u64, next: Revision) -> Option<&[u8]> {
        let is_good = self.segment == segment && self.committed >= next;
        let skipped = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        is_good.then(|| self.bytes.get(skipped..)).flatten()
    }
}

/// Interrupts a [`LogReader`] that waits.
#[derive(Clone, Debug)]
pub struct Waker {
    shared: Arc<Shared>,
    woken: Arc<AtomicBool>,
}

impl Waker {
    /// Lets the reader return from its wait; if it does not wait, from the
    /// next one.
    pub fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.shared.wake_all();
    }

    /// Why the reader does not come to `revision`, where the log has failed
    /// before it was written.
    #[must_use]
    pub fn withheld(&self, revision: Revision) -> Option<LogFault> {
        if self.shared.readable() >= revision { None } else { self.shared.fault() }
    }
}

impl LogReader {
    pub(crate) fn new(files: Files, shared: Arc<Shared>, from: Revision) -> LogReader {
        LogReader {
            files,
            shared,
            next: from.max(Revision(1)),
            position: None,
            chunk: Chunk::default(),
            unpacked: Vec::new(),
            woken: Arc::default(),
        }
    }

    /// Begins at this block of a segment, or where that was before the segment
    /// was rewritten.
    pub(crate) fn standing_at(self, (segment, offset): (Revision, u64)) -> LogReader {
        let position = Some(Position { segment, offset, rewrites: None });
        LogReader { position, ..self }
    }

    /// The revision that is visited next.
    #[must_use]
    pub fn next_revision(&self) -> Revision {
        self.next
    }

    /// Goes on with `revision`, whatever was visited last.
    pub fn go_to(&mut self, revision: Revision) {
        self.next = revision.max(Revision(1));
        self.position = None;
        self.chunk = Chunk::default();
    }

    /// A handle that interrupts a wait.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker { shared: self.shared.clone(), woken: self.woken.clone() }
    }

    /// Hands the next committed transactions to `each`, those of a few blocks,
    /// borrowed from the reader. Waits for the first one at most so long;
    /// [`Waker::wake`] ends the wait. Answers how many there were: 0 when the
    /// wait was in vain.
    ///
    /// `each` ends it by `Break`; what comes after that transaction is visited
    /// next time.
    ///
    /// # Errors
    /// When a segment cannot be read, is damaged or has been removed.
    pub fn read(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(Record<'_>, Place) -> ControlFlow<()>,
    ) -> Result<usize, LogError> {
        if self.shared.readable() < self.next {
            let is_over =
                || self.shared.readable() >= self.next || self.woken.load(Ordering::Acquire);
            self.shared.wait_until(timeout, is_over);
            self.woken.store(false, Ordering::Release);
        }
        let mut visited = 0;
        while self.shared.readable() >= self.next && (visited == 0 || self.has_more_at_hand()) {
            if self.read_block(&mut visited, each)?.is_break() {
                break;
            }
        }
        Ok(visited)
    }

    /// Whether going on takes no read of the disk, or only one of a block's
    /// end.
    fn has_more_at_hand(&self) -> bool {
        let at_hand =
            self.position.and_then(|it| self.chunk.from(it.segment, it.offset, self.next));
        at_hand.is_some_and(|bytes| !bytes.is_empty())
    }

    /// Visits what the next block holds of the revisions from `next` on, which
    /// are committed.
    fn read_block(
        &mut self,
        visited: &mut usize,
        each: &mut dyn FnMut(Record<'_>, Place) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LogError> {
        let (at, rewrites) = self.locate()?;
        let read = self.read_block_at(at, visited, each);
        if read.is_ok() {
            self.position.iter_mut().for_each(|position| position.rewrites = Some(rewrites));
            return read;
        }
        match self.shared.segments.end(at.segment) {
            End::Sealed { rewrites, .. } if at.rewrites != Some(rewrites) => {
                self.begin_again(at.segment, rewrites);
                Ok(ControlFlow::Continue(()))
            }
            _ => read,
        }
    }

    fn read_block_at(
        &mut self,
        at: Position,
        visited: &mut usize,
        each: &mut dyn FnMut(Record<'_>, Place) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LogError> {
        let segment = at.segment;
        let (mut assembly, mut after) = (Assembly::default(), at.offset);
        loop {
            let offset = after;
            let Some(header) = self.fetch(segment, offset)? else {
                return Ok(ControlFlow::Continue(()));
            };
            after = offset + BLOCK_HEADER_BYTES as u64 + u64::from(header.len);
            let end = header.end().expect("checked with the block");
            if header.first > self.next {
                return Err(self.not_held(header.first));
            }
            let is_part_of_next = header.first == self.next && !header.part().is_all();
            if end <= self.next && !is_part_of_next {
                break;
            }
            let LogReader { files, chunk, unpacked, next, .. } = self;
            let damaged =
                |what: String| LogError::Damaged { path: files.path(segment), offset, what };
            let bytes = chunk.from(segment, offset, *next).expect("it was just read");
            let stored = &bytes[BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + header.len as usize];
            let content = format::content(&header, stored, unpacked).map_err(damaged)?;
            let content =
                assembly.take(&header, content).map_err(|what| damaged(what.to_owned()))?;
            let Some(content) = content else { continue };
            for (record, index) in format::records(header.first, header.count, content).zip(0..) {
                let record = record.map_err(|what| damaged(what.to_owned()))?;
                if record.revision < *next {
                    continue;
                }
                *next = record.revision.next();
                *visited += 1;
                if each(record, Place { segment, offset: at.offset, index }).is_break() {
                    // Who stops at a block's last record does not read it again,
                    // which of a record in parts would be all of them.
                    if *next == end {
                        self.position = Some(Position { offset: after, ..at });
                    }
                    return Ok(ControlFlow::Break(()));
                }
            }
            break;
        }
        self.position = Some(Position { offset: after, ..at });
        Ok(ControlFlow::Continue(()))
    }

    /// Where the next block is, and how many rewrites the segment has had.
    fn locate(&mut self) -> Result<(Position, u32), LogError> {
        loop {
            let segments = &self.shared.segments;
            let Some(at) = self.position else {
                match segments.holding(self.next) {
                    Some(segment) => self.position = Some(Position::beginning_of(segment)),
                    None => return Err(self.not_held(segments.oldest().unwrap_or_default())),
                }
                continue;
            };
            let (bytes, after, rewrites) = match segments.end(at.segment) {
                // What was read of it is read; the rest may be in the next one.
                End::Gone => {
                    self.position = None;
                    continue;
                }
                End::Open => return Ok((at, 0)),
                End::Sealed { bytes, after, rewrites } => (bytes, after, rewrites),
            };
            let (is_known, is_at_end) = (at.rewrites == Some(rewrites), at.offset >= bytes);
            if self.next >= after || (is_at_end && is_known) {
                self.position = Some(Position::beginning_of(after));
            } else if is_at_end || (at.rewrites.is_some() && !is_known) {
                self.begin_again(at.segment, rewrites);
            } else {
                return Ok((at, rewrites));
            }
        }
    }

    /// Goes back to a segment's beginning, as places in the file that it was are
    /// none in the one that it is after so many rewrites.
    fn begin_again(&mut self, segment: Revision, rewrites: u32) {
        let beginning = Position::beginning_of(segment);
        self.position = Some(Position { rewrites: Some(rewrites), ..beginning });
        self.chunk = Chunk::default();
    }

    /// Brings a block into the chunk and checks it. `None` when the segment was
    /// removed in the meantime.
    fn fetch(&mut self, segment: Revision, offset: u64) -> Result<Option<BlockHeader>, LogError> {
        let len_of = |bytes: &[u8]| {
            let is_there = bytes.len() >= BLOCK_HEADER_BYTES;
            is_there.then(|| BLOCK_HEADER_BYTES + u32_at(bytes, 0) as usize)
        };
        let mut len = self.chunk.from(segment, offset, self.next).and_then(len_of);
        let is_whole = |chunk: &Chunk, len| {
            let bytes = chunk.from(segment, offset, self.next);
            bytes.zip(len).is_some_and(|(bytes, len)| bytes.len() >= len)
        };
        if !is_whole(&self.chunk, len) {
            let path = self.files.path(segment);
            let committed = self.shared.readable();
            let mut wanted = len.unwrap_or(0).max(CHUNK_BYTES);
            loop {
                let bytes = match self.files.read_at(&path, offset, wanted) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        let is_gone = error.kind() == io::ErrorKind::NotFound
                            && self.shared.segments.end(segment) == End::Gone;
                        if is_gone {
                            return Ok(None);
                        }
                        return Err(LogError::io("read", path)(error));
                    }
                };
                len = len_of(&bytes);
                self.chunk = Chunk { segment, offset, bytes, committed };
                match len {
                    Some(len) if len > wanted => wanted = len,
                    _ => break,
                }
            }
        }
        let bytes = self.chunk.from(segment, offset, self.next).unwrap_or_default();
        let place = BlockPlace { id: self.files.id, segment, offset };
        match format::block_from(bytes, &place) {
            Ok((header, _)) => Ok(Some(header)),
            Err(problem) => Err(LogError::Damaged {
                path: self.files.path(segment),
                offset,
                what: format!("{problem}, but revision {} was committed", self.next),
            }),
        }
    }

    fn not_held(&self, found: Revision) -> LogError {
        LogError::NotHeld { dir: self.files.dir.clone(), revision: self.next, found }
    }
}
