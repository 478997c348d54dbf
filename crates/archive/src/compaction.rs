//! What compaction leaves out: states that nobody may read any more.
//!
//! The tree's own rule is a watermark, but it drops the newest version before
//! the watermark too, which reads right after it still see. So versions are
//! judged here, newest first, by the revision that each value begins with.
//!
//! Elements of a collection go by its head as well. A generation is born once
//! and never comes back, so one that was born at or before the horizon and is
//! not the head's at the horizon is in no state from there on. A version of a
//! list's element that the horizon would see goes if the head has no such
//! position then: a state that has it again has a newer version of it. The head
//! may stand in a table that is not being merged, so it is looked up.

use std::ops::ControlFlow;
use std::sync::Arc;

use base::{Revision, SpaceId};
use lsm_tree::compaction::filter::Context;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Verdict};
use parking_lot::Mutex;

use crate::base_tree::Frozen;
use crate::codec::{self, Content};
use crate::elements::{ElementKey, Kind, Large, position_of};

/// What may go, as of now. Shared with the tree's compactions.
#[derive(Default)]
pub(crate) struct Bounds(Mutex<Arc<Bound>>);

/// What may go.
#[derive(Clone, Default)]
pub(crate) struct Bound {
    /// The oldest state that may still be read; a state that a batch reached.
    pub(crate) horizon: Revision,
    /// Spaces that nobody has, at the horizon or after it. Sorted.
    pub(crate) dead: Vec<SpaceId>,
    /// The base at the horizon, while a compaction runs.
    pub(crate) heads: Option<Arc<Frozen>>,
}

impl Bounds {
    pub(crate) fn set(&self, bound: Bound) {
        *self.0.lock() = Arc::new(bound);
    }

    /// Lets compactions look up heads at the horizon until the answer is
    /// dropped: what they read from keeps its table files.
    pub(crate) fn lend(&self, at: impl FnOnce(Revision) -> Frozen) -> Lent<'_> {
        let mut bound = Bound::clone(&self.0.lock());
        bound.heads = Some(Arc::new(at(bound.horizon)));
        self.set(bound);
        Lent(self)
    }
}

/// See [`Bounds::lend`].
pub(crate) struct Lent<'b>(&'b Bounds);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut bound = Bound::clone(&self.0.0.lock());
        bound.heads = None;
        self.0.set(bound);
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
        Box::new(Judge {
            bound,
            key: Vec::new(),
            is_settled: false,
            space: (Vec::new(), false),
            head: (Vec::new(), Horizon::Unknown),
        })
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
    /// The head's key of the last element, and what it is at the horizon.
    head: (Vec<u8>, Horizon),
}

/// What a head is at the horizon.
#[derive(Clone, Copy)]
enum Horizon {
    /// It cannot be read: its elements stay.
    Unknown,
    /// Its elements have entries.
    Large(Large),
    /// Anything else, or nothing.
    Other,
}

impl Judge {
    /// Whether an entry, if it is an element, is of no use: all of it, or the
    /// version that the horizon would see.
    fn is_dead_element(&mut self, key: &[u8], is_seen: bool) -> bool {
        let Some(end) = codec::element_at(key) else { return false };
        let Ok(element) = ElementKey::read(&key[end..]) else { return false };
        if element.born > self.bound.horizon {
            return false;
        }
        if self.head.0 != key[..end] {
            self.head = (key[..end].to_vec(), self.head_at_horizon(&key[..end]));
        }
        match self.head.1 {
            Horizon::Unknown => false,
            Horizon::Other => true,
            Horizon::Large(large) if large.born != element.born => true,
            Horizon::Large(large) if is_seen && large.kind == Kind::List => {
                let position = element.name.and_then(position_of);
                position.is_some_and(|position| !large.has_position(position))
            }
            Horizon::Large(_) => false,
        }
    }

    fn head_at_horizon(&self, head: &[u8]) -> Horizon {
        let Some(heads) = &self.bound.heads else { return Horizon::Unknown };
        let is_digest = codec::is_digest(head);
        let mut found = Horizon::Other;
        let read = heads.range(&(head..=head), &mut |_, value| {
            found = match codec::head(value, is_digest) {
                Ok(Some(head)) => match head.content {
                    Content::Large(large) => Horizon::Large(large),
                    Content::Str(_) | Content::Whole(_) => Horizon::Other,
                },
                Ok(None) => Horizon::Other,
                Err(_) => Horizon::Unknown,
            };
            ControlFlow::Break(())
        });
        if read.is_ok() { found } else { Horizon::Unknown }
    }

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
        if self.is_dead_element(key, revision <= self.bound.horizon) {
            return Ok(Verdict::Destroy);
        }
        if revision <= self.bound.horizon {
            self.is_settled = true;
            if is_gone && context.is_last_level {
                return Ok(Verdict::Destroy);
            }
        }
        Ok(Verdict::Keep)
    }
}
