//! One block, read on its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Revision;

use crate::error::LogError;
use crate::format::{
    self, BLOCK_HEADER_BYTES, BlockPlace, DatabaseId, RECORD_HEADER_BYTES, Record, segment_name,
    u32_at,
};
use crate::vfs::{Vfs, at};

/// Bytes to ask for before a block's length is known: with the default
/// [`crate::LogOptions::block_bytes_max`] it is whole then.
const FIRST_READ_BYTES: usize = BLOCK_HEADER_BYTES + (64 << 10);

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment, by its first revision.
    pub segment: Revision,
    /// Where the record's block begins in the segment.
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
}

impl Files {
    pub(crate) fn path(&self, segment: Revision) -> PathBuf {
        at(&self.dir, &segment_name(segment))
    }

    pub(crate) fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.vfs.read_at(path, offset, len)
    }

    /// Reads and checks the block at an offset of a segment.
    pub(crate) fn block(&self, segment: Revision, offset: u64) -> Result<Block, LogError> {
        let path = self.path(segment);
        let damaged = |what: String| LogError::Damaged { path: path.clone(), offset, what };
        let read = |len| self.read_at(&path, offset, len).map_err(LogError::io("read", &path));
        let mut bytes = read(FIRST_READ_BYTES)?;
        if bytes.len() >= BLOCK_HEADER_BYTES {
            let len = BLOCK_HEADER_BYTES + u32_at(&bytes, 0) as usize;
            if len > bytes.len() {
                bytes = read(len)?;
            }
        }
        let place = BlockPlace { id: self.id, segment, offset };
        let (header, stored) =
            format::block_from(&bytes, &place).map_err(|problem| damaged(problem.to_string()))?;
        let mut unpacked = Vec::new();
        let content = format::content(&header, stored, &mut unpacked).map_err(damaged)?;
        let content = if content.as_ptr() == stored.as_ptr() { content.to_vec() } else { unpacked };
        let mut starts = Vec::with_capacity(header.count as usize);
        let mut start = 0;
        for record in format::records(header.first, header.count, &content) {
            let record = record.map_err(|what| damaged(what.to_owned()))?;
            starts.push(start as u32);
            start += RECORD_HEADER_BYTES + record.effects.len();
        }
        let next_offset = offset + BLOCK_HEADER_BYTES as u64 + u64::from(header.len);
        Ok(Block {
            first: header.first,
            count: header.count,
            content,
            starts,
            segment,
            offset,
            next_offset,
        })
    }
}

/// A block of the log, checked: consecutive transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    first: Revision,
    count: u32,
    content: Vec<u8>,
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
        let records = format::records(self.first, self.count, &self.content).map_while(Result::ok);
        let (segment, offset) = (self.segment, self.offset);
        records.zip(0..).map(move |(record, index)| (record, Place { segment, offset, index }))
    }

    /// The record with so many before it in the block.
    #[must_use]
    pub fn record(&self, index: u32) -> Option<Record<'_>> {
        let start = *self.starts.get(index as usize)? as usize;
        let end = self.starts.get(index as usize + 1).map_or(self.content.len(), |&at| at as usize);
        let revision = Revision(self.first.0 + u64::from(index));
        format::records(revision, 1, &self.content[start..end]).next()?.ok()
    }

    /// Heap bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.content.capacity() + self.starts.capacity() * size_of::<u32>()
    }

    /// Where the next block of the segment begins, or the segment ends.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }
}
