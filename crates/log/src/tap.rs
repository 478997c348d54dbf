//! Hearing of records as soon as they may be read, without reading the log.

use base::Revision;

use crate::block::Place;
use crate::format::{self, Record, RecordHeader};
use crate::parts::Large;

/// Hears of every record, in order, once, as soon as readers may see it.
pub trait Tap: Send + Sync {
    /// Whether anybody waits for a record. Called by [`crate::Log::append`] on
    /// its caller's thread, with whatever that has locked.
    fn concerns(&self, header: &RecordHeader, effects: &[u8]) -> Concern;

    /// Records are told from this revision on.
    fn begin(&self, next: Revision);

    /// The next records. Called with the log's writer locked, by whoever
    /// writes: it must be quick and must not call the log's writing methods.
    fn tell(&self, written: &Written<'_>);
}

/// Whether anybody waits for a record, or for any of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concern {
    /// Somebody does.
    pub is_wanted: bool,
    /// What the tap knew when it said so, as a number that grows; of several
    /// records the least.
    pub epoch: u64,
}

impl Concern {
    /// Of no record.
    pub(crate) const NONE: Concern = Concern { is_wanted: false, epoch: u64::MAX };
    /// Of a record that nobody was asked about.
    pub(crate) const UNASKED: Concern = Concern { is_wanted: false, epoch: 0 };

    pub(crate) fn add(&mut self, other: Concern) {
        self.is_wanted |= other.is_wanted;
        self.epoch = self.epoch.min(other.epoch);
    }
}

/// Records of a block that was written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// The first one's revision.
    pub first: Revision,
    /// How many there are.
    pub count: u32,
    /// What [`Tap::concerns`] said of them and of others written with them.
    pub concern: Concern,
    pub(crate) content: Content<'a>,
    pub(crate) segment: Revision,
    pub(crate) offset: u64,
}

/// What records are told from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'a> {
    Block(&'a [u8]),
    Large(&'a Large),
}

impl<'a> Written<'a> {
    /// The revision after the last one.
    #[must_use]
    pub fn next(&self) -> Revision {
        Revision(self.first.0 + u64::from(self.count))
    }

    /// Where the block stands.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { segment: self.segment, offset: self.offset, index: 0 }
    }

    /// They, and where they stand.
    pub fn records(&self) -> impl Iterator<Item = (Record<'a>, Place)> + use<'a> {
        let (content, large) = match self.content {
            Content::Block(content) => (Some(content), None),
            Content::Large(large) => (None, Some(large)),
        };
        let (first, count) = (self.first, self.count);
        // They are as the queue encoded them.
        let records = content
            .into_iter()
            .flat_map(move |content| format::records(first, count, content).map_while(Result::ok));
        let large = large.into_iter().map(move |Large { header, effects }| Record {
            revision: first,
            header: *header,
            effects,
        });
        let place = self.place();
        records.chain(large).zip(0..).map(move |(record, index)| (record, Place { index, ..place }))
    }
}

/// Records that are written and may not be seen yet, as `always` waits for a
/// sync.
#[derive(Debug)]
pub(crate) struct Untold {
    pub(crate) first: Revision,
    pub(crate) content: Vec<u8>,
    /// What was written in parts, instead of the content.
    pub(crate) large: Option<Large>,
    pub(crate) concern: Concern,
    pub(crate) segment: Revision,
    pub(crate) blocks: Vec<WrittenBlock>,
}

/// A block of what was written at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenBlock {
    pub(crate) offset: u64,
    /// Records, and bytes of them.
    pub(crate) count: u32,
    pub(crate) bytes: usize,
}

/// What a tap is told of what was written at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct News<'a> {
    pub(crate) first: Revision,
    pub(crate) content: Content<'a>,
    pub(crate) concern: Concern,
    pub(crate) segment: Revision,
    /// The blocks that hold it; of a large record the first one.
    pub(crate) blocks: &'a [WrittenBlock],
}

impl News<'_> {
    pub(crate) fn tell(&self, tap: &dyn Tap) {
        let News { mut first, content, concern, segment, .. } = *self;
        let mut at = 0;
        for block in self.blocks {
            let WrittenBlock { offset, count, bytes } = *block;
            let content = match content {
                Content::Block(content) => Content::Block(&content[at..at + bytes]),
                large @ Content::Large(_) => large,
            };
            tap.tell(&Written { first, count, concern, content, segment, offset });
            at += bytes;
            first = Revision(first.0 + u64::from(count));
        }
    }
}

impl Untold {
    /// Keeps news for later.
    pub(crate) fn of(news: &News<'_>) -> Untold {
        let News { first, content, concern, segment, blocks } = *news;
        let (content, large) = match content {
            Content::Block(content) => (content.to_vec(), None),
            Content::Large(large) => (Vec::new(), Some(large.clone())),
        };
        Untold { first, content, large, concern, segment, blocks: blocks.to_vec() }
    }

    pub(crate) fn news(&self) -> News<'_> {
        let Untold { first, content, large, concern, segment, blocks } = self;
        let content = large.as_ref().map_or(Content::Block(content), Content::Large);
        News { first: *first, content, concern: *concern, segment: *segment, blocks }
    }

    /// The last revision of it.
    pub(crate) fn last(&self) -> Revision {
        let count: u32 = self.blocks.iter().map(|block| block.count).sum();
        Revision(self.first.0 + u64::from(count) - 1)
    }
}
