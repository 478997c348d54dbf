//! What compaction leaves out: states that nobody may read any more.
//!
//! The tree's own rule is a watermark, but it drops the newest version before
//! the watermark too, which reads right after it still see. So versions are
//! judged here, newest first, by the revision that each value begins with.

use std::sync::Arc;

use base::{Revision, SpaceId};
use lsm_tree::compaction::filter::Context;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Verdict};
use parking_lot::Mutex;

use crate::codec;

/// What may go, as of now. Shared with the tree's compactions.
#[derive(Debug, Default)]
pub(crate) struct Bounds(Mutex<Arc<Bound>>);

/// What may go.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// The oldest state that may still be read; a state that a batch reached.
    pub(crate) horizon: Revision,
    /// Spaces that nobody has, at the horizon or after it. Sorted.
    pub(crate) dead: Vec<SpaceId>,
}

impl Bounds {
    pub(crate) fn set(&self, bound: Bound) {
        *self.0.lock() = Arc::new(bound);
    }
}

/// Makes a [`Judge`] for each compaction.
pub(crate) struct Judges(pub(crate) Arc<Bounds>);

// A panic ends the process (`end_on_panic`), so nobody sees what it broke.
impl std::panic::RefUnwindSafe for Judges {}

impl Factory for Judges {
    fn name(&self) -> &str {
        "horizon"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let bound = self.0.0.lock().clone();
        Box::new(Judge { bound, key: Vec::new(), is_settled: false, space: (Vec::new(), false) })
    }
}

struct Judge {
    bound: Arc<Bound>,
    /// The key whose versions are coming, newest first.
    key: Vec<u8>,
    /// Whether the version that the horizon sees has come.
    is_settled: bool,
    /// The prefix of the space that keys are coming from, and whether it is
    /// dead.
    space: (Vec<u8>, bool),
}

impl Judge {
    fn is_dead(&mut self, key: &[u8]) -> bool {
        if self.bound.dead.is_empty() {
            return false;
        }
        let (prefix, is_dead) = &mut self.space;
        if prefix.is_empty() || !key.starts_with(prefix) {
            let Some(space) = codec::space_of(key) else { return false };
            prefix.clear();
            codec::put_space(prefix, space);
            *is_dead = self.bound.dead.binary_search(&space).is_ok();
        }
        *is_dead
    }
}

impl CompactionFilter for Judge {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        context: &Context,
    ) -> lsm_tree::Result<Verdict> {
        let key = item.key();
        if self.is_dead(key) {
            return Ok(Verdict::Destroy);
        }
        if self.key != **key {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.is_settled = false;
        }
        if self.is_settled {
            return Ok(Verdict::Destroy);
        }
        // What cannot be read is kept, for whoever reads it to report.
        let Ok((revision, is_gone)) = codec::age(&item.value()?) else {
            return Ok(Verdict::Keep);
        };
        if revision <= self.bound.horizon {
            self.is_settled = true;
            if is_gone && context.is_last_level {
                return Ok(Verdict::Destroy);
            }
        }
        Ok(Verdict::Keep)
    }
}
