//! What the history needs of the log.

use base::Revision;
use log::{Log, LogError, Place, Record, SegmentInfo};

/// Where the first block of a segment begins: see `docs/FORMAT.md`.
const FIRST_BLOCK: u64 = 64;

/// Reading the log by place.
pub trait LogBlocks: std::fmt::Debug + Send + Sync {
    /// The segments that there are, in order; all but the last are sealed.
    fn segments(&self) -> Vec<SegmentInfo>;

    /// Calls `each` with the records of the block at `offset` of a segment, in
    /// order; 0 stands for the first block. Answers where the next block
    /// begins, `None` if the segment ends there.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    fn block(
        &self,
        segment: Revision,
        offset: u64,
        each: &mut dyn FnMut(&Record<'_>, Place),
    ) -> Result<Option<u64>, LogError>;

    /// As [`LogBlocks::block`], for those who mostly ask for the same few blocks.
    ///
    /// # Errors
    /// As [`LogBlocks::block`].
    fn block_again(
        &self,
        segment: Revision,
        offset: u64,
        each: &mut dyn FnMut(&Record<'_>, Place),
    ) -> Result<(), LogError> {
        self.block(segment, offset, each).map(drop)
    }
}

impl LogBlocks for Log {
    fn segments(&self) -> Vec<SegmentInfo> {
        Log::segments(self)
    }

    fn block(
        &self,
        segment: Revision,
        offset: u64,
        each: &mut dyn FnMut(&Record<'_>, Place),
    ) -> Result<Option<u64>, LogError> {
        let block = self.read_records(segment, offset.max(FIRST_BLOCK))?;
        block.records().for_each(|(record, place)| each(&record, place));
        let segments = Log::segments(self);
        let known = segments.binary_search_by_key(&segment, |known| known.first);
        let end = known.map_or(0, |at| segments[at].bytes);
        Ok(Some(block.next_offset()).filter(|&next| next < end))
    }
}
