//! What compaction leaves out: states that nobody may read any more.
//!
//! The tree's own rule is a watermark, but it drops the newest version before
//! the watermark too, which reads right after it still see. So versions are
//! judged here, newest first, by the revision that each value begins with.

use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::Purge;
use lsm_tree::compaction::filter::Context;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Verdict};
use parking_lot::Mutex;

use crate::codec;

/// What may go, as of now. Shared with the tree's compactions.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    bound: Mutex<Arc<Bound>>,
    erasures: Mutex<Arc<[Erasure]>>,
}

/// What the values of some keys were before a revision must not be left.
#[derive(Clone, Debug)]
pub(crate) struct Erasure {
    /// Whose.
    pub(crate) purge: Purge,
    /// Where they stand or stood. Sorted.
    pub(crate) spaces: Vec<SpaceId>,
}

impl Erasure {
    /// Whether an entry is to be erased, which is not of an element.
    fn covers(&self, key: &[u8], value: &[u8], revision: Revision) -> bool {
        let Some(space) = codec::space_of(key) else { return false };
        if revision >= self.purge.at || self.spaces.binary_search(&space).is_err() {
            return false;
        }
        codec::key_of_entry(key, value).is_some_and(|key| self.purge.covers(self.purge.db, key))
    }
}

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
        *self.bound.lock() = Arc::new(bound);
    }

    /// What compactions from here on erase.
    pub(crate) fn erase(&self, erasures: Vec<Erasure>) {
        *self.erasures.lock() = erasures.into();
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
        let bound = self.0.bound.lock().clone();
        let erasures = self.0.erasures.lock().clone();
        Box::new(Judge {
            bound,
            erasures,
            key: Vec::new(),
            is_settled: false,
            space: (Vec::new(), false),
        })
    }
}

struct Judge {
    bound: Arc<Bound>,
    erasures: Arc<[Erasure]>,
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
        let value = item.value()?;
        let Ok((revision, is_gone)) = codec::age(&value) else {
            return Ok(Verdict::Keep);
        };
        if revision <= self.bound.horizon {
            self.is_settled = true;
            if is_gone && context.is_last_level {
                return Ok(Verdict::Destroy);
            }
        }
        let key = item.key();
        if !is_gone && self.erasures.iter().any(|erasure| erasure.covers(key, &value, revision)) {
            // The key stays, so that the keys of that state are as many as its
            // directory counts.
            return Ok(Verdict::ReplaceValue(codec::erased(key, &value).into()));
        }
        Ok(Verdict::Keep)
    }
}
