//! What the history needs of the log.

use base::Revision;
use log::{LogError, Record};

/// Where a record is: record `index` of the block at `offset` of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment's first revision.
    pub segment: Revision,
    /// Where in its file the block begins.
    pub offset: u64,
    /// Which of the block's records, from 0.
    pub index: u32,
}

/// A segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first revision, and its name.
    pub first: Revision,
    /// Its last revision so far.
    pub last: Revision,
    /// Whether nothing is added to it any more.
    pub is_sealed: bool,
}

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
}
