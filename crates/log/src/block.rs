//! One block, read on its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Revision;
use parking_lot::Mutex;

use crate::error::LogError;
use crate::format::{
    self, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BlockPlace, DatabaseId, RECORD_HEADER_BYTES, Record,
    segment_name, u32_at,
};
use crate::parts::Assembly;
use crate::vfs::{Vfs, VfsRead, at};

/// Bytes to ask for before a block's length is known: with the default
/// [`crate::LogOptions::block_bytes_max`] it is whole then.
const FIRST_READ_BYTES: usize = BLOCK_HEADER_BYTES + BLOCK_BYTES_MAX;

/// Segments that stay open to be read.
const OPEN_MAX: usize = 8;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment, by its first revision.
    pub segment: Revision,
    /// Where the record's block begins in the segment; of one that is written
    /// in parts, the first part's.
    pub offset: u64,
    /// Records before it in the block.
    pub index: u32,
}

/// The files of a log.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) id: DatabaseId,
    open: Arc<OpenFiles>,
}

/// Segments that single blocks were read from lately. The last used is the last.
#[derive(Debug, Default)]
struct OpenFiles(Mutex<Vec<(Revision, Arc<dyn VfsRead>)>>);

impl Files {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, dir: PathBuf, id: DatabaseId) -> Files {
        Files { vfs, dir, id, open: Arc::default() }
    }

    pub(crate) fn path(&self, segment: Revision) -> PathBuf {
        at(&self.dir, &segment_name(segment))
    }

    pub(crate) fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.vfs.read_at(path, offset, len)
    }

    /// A segment, open to be read.
    fn open(&self, segment: Revision) -> io::Result<Arc<dyn VfsRead>> {
        let mut open = self.open.0.lock();
        if let Some(found) = open.iter().position(|(known, _)| *known == segment) {
            open[found..].rotate_left(1);
        } else {
            // Opened under the lock: what `forget` is told of is not kept.
            let file = Arc::from(self.vfs.open_read(&self.path(segment))?);
            if open.len() >= OPEN_MAX {
                open.remove(0);
            }
            open.push((segment, file));
        }
        Ok(open.last().expect("just moved there").1.clone())
    }

    /// A segment's name is gone, or that of another file.
    pub(crate) fn forget(&self, segment: Revision) {
        self.open.0.lock().retain(|(known, _)| *known != segment);
    }

    /// Reads and checks the block at an offset of a segment; with all other
    /// parts where it is the first part of a transaction.
    pub(crate) fn block(&self, segment: Revision, offset: u64) -> Result<Block, LogError> {
        let (begin, mut offset) = (offset, offset);
        let file = self.open(segment).map_err(|error| self.unreadable(segment, error))?;
        let mut assembly = Assembly::default();
        loop {
            let damaged =
                |what: String| LogError::Damaged { path: self.path(segment), offset, what };
            let mut bytes = Vec::new();
            let there = self.bytes_at(&*file, segment, offset, &mut bytes)?;
            bytes.truncate(there);
            let place = BlockPlace { id: self.id, segment, offset };
            let (header, stored) = format::block_from(&bytes, &place)
                .map_err(|problem| damaged(problem.to_string()))?;
            let mut unpacked = Vec::new();
            let content = format::content(&header, stored, &mut unpacked).map_err(damaged)?;
            let content =
                assembly.take(&header, content).map_err(|what| damaged(what.to_owned()))?;
            let next_offset = offset + BLOCK_HEADER_BYTES as u64 + u64::from(header.len);
            let Some(content) = content else {
                offset = next_offset;
                continue;
            };
            let mut starts = Vec::with_capacity((header.count as usize).min(content.len()));
            let mut start = 0;
            for record in format::records(header.first, header.count, content) {
                let record = record.map_err(|what| damaged(what.to_owned()))?;
                starts.push(start as u32);
                start += RECORD_HEADER_BYTES + record.effects.len();
            }
            let is_packed = content.as_ptr() != stored.as_ptr();
            let (mut bytes, content) = match header.part().is_all() {
                false => (assembly.into_record(), 0),
                true if is_packed => (unpacked, 0),
                true => (bytes, BLOCK_HEADER_BYTES),
            };
            // Whoever keeps it keeps no more than is in it.
            bytes.shrink_to_fit();
            let (first, count) = (header.first, header.count);
            return Ok(Block {
                first,
                count,
                bytes,
                content,
                starts,
                segment,
                offset: begin,
                next_offset,
            });
        }
    }

    /// Reads one record and keeps nothing of its block, in `buffer`; whether the
    /// block, which is checked, has it.
    pub(crate) fn record(
        &self,
        place: Place,
        buffer: &mut Vec<u8>,
        read: &mut dyn FnMut(&Record<'_>),
    ) -> Result<bool, LogError> {
        let Place { segment, offset, index } = place;
        let file = self.open(segment).map_err(|error| self.unreadable(segment, error))?;
        let there = self.bytes_at(&*file, segment, offset, buffer)?;
        let damaged = |what: String| LogError::Damaged { path: self.path(segment), offset, what };
        let at = BlockPlace { id: self.id, segment, offset };
        let (header, stored) = format::block_from(&buffer[..there], &at)
            .map_err(|problem| damaged(problem.to_string()))?;
        if !header.part().is_all() {
            let block = self.block(segment, offset)?;
            return Ok(block.record(index).as_ref().map(read).is_some());
        }
        let mut unpacked = Vec::new();
        let content = format::content(&header, stored, &mut unpacked).map_err(damaged)?;
        let mut records = format::records(header.first, header.count, content);
        let found = records.nth(index as usize).transpose();
        let found = found.map_err(|what| damaged(what.to_owned()))?;
        Ok(found.as_ref().map(read).is_some())
    }

    fn unreadable(&self, segment: Revision, error: io::Error) -> LogError {
        LogError::io("read", self.path(segment))(error)
    }

    /// Reads the block at an offset to the beginning of `buffer`; answers how many
    /// of its bytes the file has.
    fn bytes_at(
        &self,
        file: &dyn VfsRead,
        segment: Revision,
        offset: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<usize, LogError> {
        let unreadable = |error| self.unreadable(segment, error);
        if buffer.len() < FIRST_READ_BYTES {
            buffer.resize(FIRST_READ_BYTES, 0);
        }
        let there = file.read_into(offset, &mut buffer[..FIRST_READ_BYTES]).map_err(unreadable)?;
        if there < BLOCK_HEADER_BYTES {
            return Ok(there);
        }
        let len = BLOCK_HEADER_BYTES + u32_at(buffer, 0) as usize;
        if len <= there {
            return Ok(len);
        }
        let rest = file.read_at(offset + there as u64, len - there).map_err(unreadable)?;
        buffer.truncate(there);
        buffer.extend_from_slice(&rest);
        Ok(buffer.len())
    }
}

/// A block of the log, checked: consecutive transactions, or all parts of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    first: Revision,
    count: u32,
    bytes: Vec<u8>,
    /// Where in the bytes its content begins.
    content: usize,
    /// Where in the content each record begins.
    starts: Vec<u32>,
    segment: Revision,
    offset: u64,
    next_offset: u64,
}

impl Block {
    /// Its transactions in order, and where they stand.
    pub fn records(&self) -> impl Iterator<Item = (Record<'_>, Place)> {
        // All of them were checked when the block was read.
        let records = format::records(self.first, self.count, self.content());
        let records = records.map_while(Result::ok);
        let (segment, offset) = (self.segment, self.offset);
        records.zip(0..).map(move |(record, index)| (record, Place { segment, offset, index }))
    }

    /// The record with so many before it in the block.
    #[must_use]
    pub fn record(&self, index: u32) -> Option<Record<'_>> {
        let start = *self.starts.get(index as usize)? as usize;
        let content = self.content();
        let end = self.starts.get(index as usize + 1).map_or(content.len(), |&at| at as usize);
        let revision = Revision(self.first.0 + u64::from(index));
        format::records(revision, 1, &content[start..end]).next()?.ok()
    }

    fn content(&self) -> &[u8] {
        &self.bytes[self.content..]
    }

    /// Heap bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.starts.capacity() * size_of::<u32>()
    }

    /// Where the next block of the segment begins, or the segment ends.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }
}
