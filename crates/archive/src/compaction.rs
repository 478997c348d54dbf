//! What compaction leaves out: states that nobody may read any more.
//!
//! The tree's own rule is a watermark, but it drops the newest version before
//! the watermark too, which reads right after it still see. So versions are
//! judged here, newest first, by the revision that each value begins with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Revision, SpaceId};
use lsm_tree::compaction::filter::Context;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Verdict};
use parking_lot::Mutex;

use crate::codec;
use crate::overlay::Overlay;

/// What may go, as of now. Shared with the tree's compactions.
#[derive(Debug, Default)]
pub(crate) struct Bounds(Mutex<Arc<Bound>>);

/// What may go.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// The oldest state from which on every one may still be read; a state
    /// that a batch reached.
    horizon: Revision,
    /// Spaces that nobody has, at the horizon or after it.
    dead: BTreeSet<SpaceId>,
    /// States before the horizon that may still be read of every space.
    tags: BTreeSet<Revision>,
    /// The same of a space that others lie over.
    pins: BTreeMap<SpaceId, BTreeSet<Revision>>,
    /// Spaces that lie over others, where a key that is gone hides another.
    overlays: BTreeSet<SpaceId>,
}

impl Bound {
    pub(crate) fn new(
        horizon: Revision,
        dead: impl Iterator<Item = SpaceId>,
        overlays: &[Overlay],
        tags: BTreeSet<Revision>,
    ) -> Bound {
        let mut pins: BTreeMap<SpaceId, BTreeSet<Revision>> = BTreeMap::new();
        for overlay in overlays {
            pins.entry(overlay.under).or_default().insert(overlay.at);
        }
        let overlays = overlays.iter().map(|overlay| overlay.space).collect();
        Bound { horizon, dead: dead.collect(), tags, pins, overlays }
    }

    /// The states at which a space is read, oldest first, and from the last on
    /// every one.
    fn states(&self, space: Option<SpaceId>) -> Vec<Revision> {
        let mut states: BTreeSet<Revision> = self.tags.iter().copied().collect();
        match space {
            Some(space) => states.extend(self.pins.get(&space).into_iter().flatten()),
            // Where what is below stood.
            None => states.extend(self.pins.values().flatten()),
        }
        states.retain(|state| *state < self.horizon);
        states.insert(self.horizon);
        states.into_iter().collect()
    }
}

impl Bounds {
    pub(crate) fn set(&self, bound: Bound) {
        *self.0.lock() = Arc::new(bound);
    }

    /// The oldest state from which on every one may be read, as far as is known
    /// here.
    pub(crate) fn horizon(&self) -> Revision {
        self.0.lock().horizon
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
        Box::new(Judge { bound, key: Vec::new(), newer: None, place: None })
    }
}

struct Judge {
    bound: Arc<Bound>,
    /// The key whose versions are coming, newest first.
    key: Vec<u8>,
    /// The version that came before the next one.
    newer: Option<Revision>,
    /// The space that keys are coming from.
    place: Option<Place>,
}

/// What is known of the space that keys are coming from.
struct Place {
    /// How its keys begin; empty for what is in no space.
    prefix: Vec<u8>,
    is_dead: bool,
    is_overlay: bool,
    /// See [`Bound::states`].
    states: Vec<Revision>,
}

impl Judge {
    fn place(&mut self, key: &[u8]) -> &Place {
        let is_same = |place: &Place| !place.prefix.is_empty() && key.starts_with(&place.prefix);
        if !self.place.as_ref().is_some_and(is_same) {
            let space = codec::space_of(key);
            let mut prefix = Vec::new();
            space.iter().for_each(|space| codec::put_space(&mut prefix, *space));
            let among = |spaces: &BTreeSet<SpaceId>| space.is_some_and(|it| spaces.contains(&it));
            self.place = Some(Place {
                prefix,
                is_dead: among(&self.bound.dead),
                is_overlay: among(&self.bound.overlays),
                states: self.bound.states(space),
            });
        }
        self.place.as_ref().expect("just made")
    }
}

impl CompactionFilter for Judge {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        context: &Context,
    ) -> lsm_tree::Result<Verdict> {
        let key = item.key();
        if self.place(key).is_dead {
            return Ok(Verdict::Destroy);
        }
        if self.key != **key {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.newer = None;
        }
        // What cannot be read is kept, for whoever reads it to report.
        let Ok((revision, is_gone)) = codec::age(&item.value()?) else {
            return Ok(Verdict::Keep);
        };
        let newer = self.newer.replace(revision);
        let Place { states, is_overlay, .. } = self.place(key);
        if revision > *states.last().expect("the horizon is one") {
            return Ok(Verdict::Keep);
        }
        // The first state that sees it, unless a newer version hides it there.
        let seen = states[states.partition_point(|state| *state < revision)];
        if newer.is_some_and(|newer| newer <= seen) {
            return Ok(Verdict::Destroy);
        }
        let hides_nothing = revision <= states[0] && context.is_last_level && !is_overlay;
        if is_gone && hides_nothing {
            return Ok(Verdict::Destroy);
        }
        Ok(Verdict::Keep)
    }
}
