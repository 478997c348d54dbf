//! The blocks of a segment that must be whole: nothing in it counts as torn.

use std::path::Path;

use base::Revision;

use crate::error::LogError;
use crate::format::{
    self, BLOCK_HEADER_BYTES, BlockHeader, BlockPlace, DatabaseId, NoBlock, Record,
    SEGMENT_HEADER_BYTES, check_segment_header,
};
use crate::parts::Assembly;

/// A segment's blocks, in order.
pub(crate) struct WholeBlocks<'s> {
    path: &'s Path,
    bytes: &'s [u8],
    /// Of the next one.
    place: BlockPlace,
    /// What it must begin with, unless a transaction goes on in it.
    next: Revision,
    buffer: Vec<u8>,
    assembly: Assembly,
}

/// One of them.
pub(crate) struct WholeBlock<'b> {
    pub(crate) header: BlockHeader,
    pub(crate) place: BlockPlace,
    path: &'b Path,
    /// What its transactions are read from; `None` where it holds a part of one
    /// that goes on.
    content: Option<&'b [u8]>,
}

impl<'s> WholeBlocks<'s> {
    /// Those of a file's bytes: of the segment that begins with `first`.
    pub(crate) fn of(
        bytes: &'s [u8],
        path: &'s Path,
        id: DatabaseId,
        first: Revision,
    ) -> Result<WholeBlocks<'s>, LogError> {
        check_segment_header(bytes, path, &id, first)?;
        let place = BlockPlace { id, segment: first, offset: SEGMENT_HEADER_BYTES as u64 };
        let (buffer, assembly) = (Vec::new(), Assembly::default());
        Ok(WholeBlocks { path, bytes, place, next: first, buffer, assembly })
    }

    pub(crate) fn next(&mut self) -> Result<Option<WholeBlock<'_>>, LogError> {
        let (path, place) = (self.path, self.place);
        let damaged = |what: String| damaged(path, &place, what);
        let (header, stored) = match self.assembly.block_at(self.bytes, &place) {
            Ok(found) => found,
            Err(NoBlock::End) => return Ok(None),
            Err(problem) => return Err(damaged(problem.to_string())),
        };
        if header.first != self.next {
            let (found, next) = (header.first, self.next);
            return Err(damaged(format!("it holds revision {found} where {next} belongs")));
        }
        let content = format::content(&header, stored, &mut self.buffer).map_err(damaged)?;
        let content = self.assembly.take(&header, content);
        let content = content.map_err(|what| damaged(what.to_owned()))?;
        self.place.offset += BLOCK_HEADER_BYTES as u64 + u64::from(header.len);
        if content.is_some() {
            self.next = header.end().expect("checked with the block");
        }
        Ok(Some(WholeBlock { header, place, path, content }))
    }
}

impl<'b> WholeBlock<'b> {
    /// Whether it ends what it holds.
    pub(crate) fn is_complete(&self) -> bool {
        self.content.is_some()
    }

    /// Where the next one begins.
    pub(crate) fn end(&self) -> u64 {
        self.place.offset + BLOCK_HEADER_BYTES as u64 + u64::from(self.header.len)
    }

    /// Its transactions; of a part, none before it is the last one.
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<Record<'b>, LogError>> + use<'b> {
        let BlockHeader { first, count, .. } = self.header;
        let (path, place) = (self.path, self.place);
        let records = self.content.into_iter();
        let records = records.flat_map(move |content| format::records(first, count, content));
        records.map(move |record| record.map_err(|what| damaged(path, &place, what.to_owned())))
    }
}

fn damaged(path: &Path, place: &BlockPlace, what: String) -> LogError {
    LogError::Damaged { path: path.to_path_buf(), offset: place.offset, what }
}
