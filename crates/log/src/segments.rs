//! The segments of an open log.

use std::collections::BTreeMap;

use base::Revision;
use parking_lot::Mutex;

/// A segment of an open log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The first revision in it, after which it is named.
    pub first: Revision,
    /// The newest revision in it; the one before `first` when it holds none.
    /// Of a segment that the start skipped, the one before the next segment.
    pub last: Revision,
    /// Bytes of the file.
    pub bytes: u64,
    /// Nothing more is written to it.
    pub is_sealed: bool,
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The segment has been removed.
    Gone,
    /// It is still written.
    Open,
    /// It has so many bytes, and that segment follows it.
    Sealed(u64, Revision),
}

/// The segments by their first revision; the last one is being written.
#[derive(Debug)]
pub(crate) struct Segments {
    state: Mutex<BTreeMap<Revision, Extent>>,
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    last: Revision,
    bytes: u64,
}

impl Segments {
    /// The segments that recovery found: first and last revision, bytes.
    pub(crate) fn new(found: impl Iterator<Item = (Revision, Revision, u64)>) -> Segments {
        let state = found.map(|(first, last, bytes)| (first, Extent { last, bytes })).collect();
        Segments { state: Mutex::new(state) }
    }

    /// A new segment; the one before is sealed thereby.
    pub(crate) fn begin(&self, first: Revision, bytes: u64) {
        let last = Revision(first.0 - 1);
        self.state.lock().insert(first, Extent { last, bytes });
    }

    /// The newest segment now reaches this revision and length.
    pub(crate) fn grew(&self, last: Revision, bytes: u64) {
        if let Some(mut newest) = self.state.lock().last_entry() {
            *newest.get_mut() = Extent { last, bytes };
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().len()
    }

    /// The segment that holds a revision, if any does, or is going to.
    pub(crate) fn holding(&self, revision: Revision) -> Option<Revision> {
        self.state.lock().range(..=revision).next_back().map(|(first, _)| *first)
    }

    /// The first revision of the oldest segment.
    pub(crate) fn oldest(&self) -> Option<Revision> {
        self.state.lock().first_key_value().map(|(first, _)| *first)
    }

    /// Where a segment ends.
    pub(crate) fn end(&self, first: Revision) -> End {
        let segments = self.state.lock();
        let mut from_here = segments.range(first..);
        match (from_here.next(), from_here.next()) {
            (Some((found, _)), _) if *found != first => End::Gone,
            (Some((_, extent)), Some((after, _))) => End::Sealed(extent.bytes, *after),
            (Some(_), None) => End::Open,
            (None, _) => End::Gone,
        }
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<SegmentInfo> {
        list(&self.state.lock())
    }
}

fn list(segments: &BTreeMap<Revision, Extent>) -> Vec<SegmentInfo> {
    let newest = segments.last_key_value().map(|(first, _)| *first);
    let info = |(&first, extent): (&Revision, &Extent)| SegmentInfo {
        first,
        last: extent.last,
        bytes: extent.bytes,
        is_sealed: Some(first) != newest,
    };
    segments.iter().map(info).collect()
}
