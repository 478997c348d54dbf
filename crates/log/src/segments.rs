//! The segments of an open log.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::Revision;
use parking_lot::Mutex;

use crate::format::segment_name;
use crate::shared::Shared;

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

impl SegmentInfo {
    /// The name of its file in the log's folder.
    #[must_use]
    pub fn file_name(&self) -> String {
        SegmentInfo::name_of(self.first)
    }

    /// The name of the file of a segment that begins with this revision.
    #[must_use]
    pub fn name_of(first: Revision) -> String {
        segment_name(first)
    }
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The segment has been removed.
    Gone,
    /// It is still written.
    Open,
    /// It has so many bytes, that segment follows it, and its file is the one
    /// that so many rewrites have made.
    Sealed { bytes: u64, after: Revision, rewrites: u32 },
}

/// The segments by their first revision; the last one is being written.
#[derive(Debug)]
pub(crate) struct Segments {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<Revision, Extent>,
    /// Who needs the records above which revision, by the number of the hold.
    holds: BTreeMap<u64, (String, Revision)>,
    next_hold: u64,
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    last: Revision,
    bytes: u64,
    /// How often its file was replaced since the log was opened.
    rewrites: u32,
}

impl Segments {
    /// The segments that recovery found: first and last revision, bytes.
    pub(crate) fn new(found: impl Iterator<Item = (Revision, Revision, u64)>) -> Segments {
        let extent = |(first, last, bytes)| (first, Extent { last, bytes, rewrites: 0 });
        let segments = found.map(extent).collect();
        Segments { state: Mutex::new(State { segments, ..State::default() }) }
    }

    /// A new segment; the one before is sealed thereby.
    pub(crate) fn begin(&self, first: Revision, bytes: u64) {
        let last = Revision(first.0 - 1);
        self.state.lock().segments.insert(first, Extent { last, bytes, rewrites: 0 });
    }

    /// The newest segment now reaches this revision and length.
    pub(crate) fn grew(&self, last: Revision, bytes: u64) {
        if let Some(mut newest) = self.state.lock().segments.last_entry() {
            *newest.get_mut() = Extent { last, bytes, rewrites: 0 };
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().segments.len()
    }

    /// The segment that holds a revision, if any does, or is going to.
    pub(crate) fn holding(&self, revision: Revision) -> Option<Revision> {
        self.state.lock().segments.range(..=revision).next_back().map(|(first, _)| *first)
    }

    /// Where the newest segment ends, if nothing in it is as new as `from`.
    pub(crate) fn end_before(&self, from: Revision) -> Option<(Revision, u64)> {
        let state = self.state.lock();
        let (first, extent) = state.segments.last_key_value()?;
        (extent.last < from && *first <= from).then_some((*first, extent.bytes))
    }

    /// The first revision of the oldest segment.
    pub(crate) fn oldest(&self) -> Option<Revision> {
        self.state.lock().segments.first_key_value().map(|(first, _)| *first)
    }

    /// Where a segment ends.
    pub(crate) fn end(&self, first: Revision) -> End {
        let state = self.state.lock();
        let mut from_here = state.segments.range(first..);
        match (from_here.next(), from_here.next()) {
            (Some((found, _)), _) if *found != first => End::Gone,
            (Some((_, extent)), Some((&after, _))) => {
                End::Sealed { bytes: extent.bytes, after, rewrites: extent.rewrites }
            }
            (Some(_), None) => End::Open,
            (None, _) => End::Gone,
        }
    }

    /// All of them, oldest first.
    pub(crate) fn list(&self) -> Vec<SegmentInfo> {
        list(&self.state.lock().segments)
    }

    /// Forgets the oldest segment if it is sealed, holds nothing above
    /// `revision` and nobody holds it: from now on no reader begins with it,
    /// and its file can go.
    pub(crate) fn forget_oldest(&self, revision: Revision) -> Option<SegmentInfo> {
        let mut state = self.state.lock();
        let held = state.holds.values().map(|(_, held)| *held).min();
        let limit = held.map_or(revision, |held| held.min(revision));
        let oldest = list(&state.segments).into_iter().next()?;
        if !oldest.is_sealed || oldest.last > limit {
            return None;
        }
        state.segments.remove(&oldest.first);
        Some(oldest)
    }

    /// Takes back [`Segments::forget_oldest`]: the file is still there.
    pub(crate) fn remember(&self, segment: &SegmentInfo) {
        // Who reads it by now begins anew with it.
        let extent = Extent { last: segment.last, bytes: segment.bytes, rewrites: 0 };
        self.state.lock().segments.insert(segment.first, extent);
    }

    /// Replaces a sealed segment's file by another of so many bytes, unless it
    /// is held under the name `blocker`. Answers whether it did.
    pub(crate) fn replace<E>(
        &self,
        first: Revision,
        bytes: u64,
        blocker: &str,
        replace: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut state = self.state.lock();
        let is_sealed = state.segments.last_key_value().is_some_and(|(newest, _)| *newest > first);
        let Some(&extent) = state.segments.get(&first).filter(|_| is_sealed) else {
            return Ok(false);
        };
        let mut holds = state.holds.values();
        if holds.any(|(name, held)| name == blocker && *held < extent.last) {
            return Ok(false);
        }
        replace()?;
        state.segments.insert(first, Extent { bytes, rewrites: extent.rewrites + 1, ..extent });
        Ok(true)
    }

    /// Who holds what, by name.
    pub(crate) fn holders(&self) -> Vec<(String, Revision)> {
        let mut holders: Vec<_> = self.state.lock().holds.values().cloned().collect();
        holders.sort();
        holders
    }
}

/// Keeps segments of a log from being removed, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    shared: Arc<Shared>,
    number: u64,
}

impl Hold {
    /// A hold of everything there is.
    pub(crate) fn new(shared: Arc<Shared>, name: &str) -> Hold {
        let mut state = shared.segments.state.lock();
        let number = state.next_hold;
        state.next_hold += 1;
        state.holds.insert(number, (name.to_owned(), Revision::ZERO));
        drop(state);
        Hold { shared, number }
    }

    /// From now on, records above `revision` are needed, and no others. To go
    /// back brings back nothing that was removed.
    pub fn set(&self, revision: Revision) {
        if let Some((_, held)) = self.shared.segments.state.lock().holds.get_mut(&self.number) {
            *held = revision;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.segments.state.lock().holds.remove(&self.number);
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
