//! Letting go of the past.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use base::Revision;
use log::{RealVfs, SegmentInfo};

use super::error::PastError;
use super::horizon::HORIZON;
use super::{Past, horizon};

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What is older than so many milliseconds may go.
    pub age_ms: u64,
    /// What takes more bytes than this, in the log and beside it, may go; 0 is
    /// without limit.
    pub bytes: u64,
}

impl Past {
    /// Lets go of whole segments of the log that are too old, or too many, but
    /// nothing above what `pinned` answers; that is asked only when something
    /// could go. Answers whether the oldest revision has moved:
    /// segments may be removed then.
    ///
    /// # Errors
    /// When files cannot be read or changed.
    pub fn retain(
        &self,
        retention: &Retention,
        now_ms: u64,
        pinned: &dyn Fn() -> Revision,
    ) -> Result<bool, PastError> {
        let mut segments = self.source.log.segments();
        segments.retain(|segment| segment.is_sealed);
        let index_bytes = self.source.history.stats().file_bytes;
        let log_bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut bytes = log_bytes + index_bytes;
        let born_ms = now_ms.saturating_sub(retention.age_ms);
        let mut gone = None;
        for segment in &segments {
            let is_large = retention.bytes > 0 && bytes > retention.bytes;
            if !is_large && !self.is_older(segment, born_ms)? {
                break;
            }
            // Its share of the indexes goes with it.
            bytes = bytes
                .saturating_sub(segment.bytes + index_bytes * segment.bytes / log_bytes.max(1));
            gone = Some(segment.last);
        }
        match gone.filter(|&last| last > self.oldest()) {
            Some(last) => self.move_to(last.min(pinned())),
            None => Ok(false),
        }
    }

    /// Whether all of a segment that is known was stamped before then.
    fn is_older(&self, segment: &SegmentInfo, ms: u64) -> Result<bool, PastError> {
        let mut last_ms = None;
        if segment.last <= self.oldest() {
            return Ok(true);
        }
        let after = Revision(segment.last.0 - 1);
        self.source.changes(after, segment.last, &mut |record| {
            last_ms = Some(record.header.time_ms);
            ControlFlow::Break(())
        })?;
        Ok(last_ms.is_some_and(|last_ms| last_ms < ms))
    }

    /// Lets go of what is older than `before`, as far as there is a state of
    /// the base to begin with; answers the oldest revision from then on. The
    /// follower then merges the base, once that has all there is now: what was
    /// deleted just before, a tag say, is to be gone from it.
    ///
    /// # Errors
    /// When files cannot be changed.
    pub fn compact(&self, before: Revision) -> Result<Revision, PastError> {
        self.move_to(before)?;
        self.merge_from.fetch_max(self.source.log.newest().next().0, Ordering::AcqRel);
        Ok(self.oldest())
    }

    /// Whether the base is to be merged when it has reached a revision, told once.
    pub(crate) fn take_merge(&self, reached: Revision) -> bool {
        let order = Ordering::AcqRel;
        let is_due = |from: u64| (from > 0 && from <= reached.next().0).then_some(0);
        self.merge_from.fetch_update(order, Ordering::Acquire, is_due).is_ok()
    }

    /// The tags that need a part of the log, as `tag:<name>`, with the state from
    /// which on they need it.
    ///
    /// # Errors
    /// When the base cannot be read.
    pub fn held_by_tags(&self) -> Result<Vec<(String, Revision)>, PastError> {
        let base = &self.source.base;
        let mut held = Vec::new();
        for (name, tag) in base.directory().branches.tags() {
            let state = base.state_at(tag.revision)?;
            if state != tag.revision && tag.revision > self.oldest() {
                held.push((format!("tag:{}", String::from_utf8_lossy(name)), state));
            }
        }
        Ok(held)
    }

    /// Which of some revisions with names the archive has not heard of, so that
    /// it would not keep them by itself.
    pub fn unheard<'n>(
        &self,
        named: &'n BTreeSet<Revision>,
    ) -> impl Iterator<Item = Revision> + use<'n> {
        let heard = self.source.base.tagged();
        named.iter().copied().filter(move |at| !heard.contains(at))
    }

    /// The oldest revision before `wanted` that has a name and is no state of the
    /// base, or else `wanted`: it is made from the records before it as long as
    /// the tag exists.
    fn needed_by_tags(&self, wanted: Revision) -> Result<Revision, PastError> {
        let base = &self.source.base;
        for &tagged in base.tagged().range(self.oldest()..wanted) {
            if base.state_at(tagged)? != tagged {
                return Ok(tagged);
            }
        }
        Ok(wanted)
    }

    /// Moves the horizon to the newest state of the base at or before
    /// `wanted`; answers whether that is later than where it was.
    fn move_to(&self, wanted: Revision) -> Result<bool, PastError> {
        let source = &self.source;
        let _one = self.moving.lock();
        if wanted <= self.oldest() {
            return Ok(false);
        }
        let wanted = self.needed_by_tags(wanted)?;
        let horizon = source.directory_at(wanted)?.revision;
        if horizon <= self.oldest() {
            return Ok(false);
        }
        // Before anything goes, so that nobody believes later that it is there.
        horizon::write(&HORIZON, &RealVfs, &self.dir, source.log.id(), horizon)?;
        source.horizon.store(horizon.0, Ordering::Release);
        self.cache.forget_before(horizon);
        self.batches.forget_before(horizon);
        let forgotten = source.history.forget_before(horizon);
        self.hold.set(horizon);
        forgotten?;
        Ok(true)
    }
}
