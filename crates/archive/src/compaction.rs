//! What compaction leaves out: states that nobody may read any more.
//!
//! The tree's own rule is a watermark, but it drops the newest version before
//! the watermark too, which reads right after it still see. So versions are
//! judged here, newest first, by the revision that each value begins with.
//!
//! Elements of a large collection go by its head as well. A version of one is of
//! use to the first kept state that sees it, if the head is of its generation
//! then and, for a list, has its position; if not, it is of use to no later one:
//! a generation never comes back, and a position that does has a newer version.
//! The head may stand in a table that is not being merged, so it is looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, Revision, SpaceId};
use keyspace::Purge;
use lsm_tree::compaction::filter::Context;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Verdict};
use parking_lot::Mutex;

use crate::base_tree::Frozen;
use crate::codec::{self, Content, DIRECTORY};
use crate::directory::Directory;
use crate::elements::{ElementKey, Large, position_of};
use crate::overlay::Overlay;

/// What may go, as of now. Shared with the tree's compactions.
#[derive(Default)]
pub(crate) struct Bounds {
    bound: Mutex<Arc<Bound>>,
    erasures: Mutex<Arc<Erasures>>,
    /// What came after a state is to be forgotten.
    back: Mutex<Option<Arc<GoBack>>>,
}

/// Going back to a state.
pub(crate) struct GoBack {
    pub(crate) to: Revision,
    /// See [`Directory::lapsed`]: what its directory has from then on.
    pub(crate) lapsed: BTreeSet<Revision>,
}

/// What is to be erased.
#[derive(Default)]
pub(crate) struct Erasures {
    pub(crate) all: Vec<Erasure>,
    /// Spaces that databases stand in.
    pub(crate) standing: BTreeSet<SpaceId>,
}

/// What the values of some keys were before a revision must not be left.
#[derive(Clone, Debug)]
pub(crate) struct Erasure {
    /// On which branch.
    pub(crate) branch: BranchId,
    /// Which keys.
    pub(crate) purge: Purge,
    /// Where they stand or stood. Sorted.
    pub(crate) spaces: Vec<SpaceId>,
}

impl Erasure {
    /// Whether an entry of the key `name` is to be erased.
    fn covers(&self, entry: &[u8], name: &[u8], revision: Revision) -> bool {
        let is_here = |space| self.spaces.binary_search(&space).is_ok();
        revision < self.purge.at
            && codec::space_of(entry).is_some_and(is_here)
            && self.purge.covers(self.purge.db, name)
    }
}

/// What may go.
#[derive(Clone, Default)]
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
    /// The base, while a compaction runs.
    heads: Option<Arc<Frozen>>,
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
        Bound { horizon, dead: dead.collect(), tags, pins, overlays, heads: None }
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

impl GoBack {
    /// The directory of the state, with what has lapsed; `None` if that is nothing.
    fn with_lapsed(&self, directory: &[u8]) -> Option<Vec<u8>> {
        if self.lapsed.is_empty() {
            return None;
        }
        let mut directory = Directory::decode(directory).ok()?;
        directory.lapsed.extend(&self.lapsed);
        Some(directory.encode())
    }
}

impl Bounds {
    pub(crate) fn set(&self, bound: Bound) {
        *self.bound.lock() = Arc::new(bound);
    }

    /// What compactions from here on erase.
    pub(crate) fn erase(&self, erasures: Erasures) {
        *self.erasures.lock() = Arc::new(erasures);
    }

    /// Compactions from here on forget what came after a state.
    pub(crate) fn go_back(&self, back: GoBack) {
        *self.back.lock() = Some(Arc::new(back));
    }

    /// The oldest state from which on every one may be read, as far as is known
    /// here.
    pub(crate) fn horizon(&self) -> Revision {
        self.bound.lock().horizon
    }

    /// Lets compactions look up heads until the answer is dropped: what they read
    /// from keeps its table files.
    pub(crate) fn lend(&self, heads: Frozen) -> Lent<'_> {
        self.set_heads(Some(Arc::new(heads)));
        Lent(self)
    }

    fn set_heads(&self, heads: Option<Arc<Frozen>>) {
        Arc::make_mut(&mut self.bound.lock()).heads = heads;
    }
}

/// See [`Bounds::lend`].
pub(crate) struct Lent<'b>(&'b Bounds);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.set_heads(None);
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
            back: self.0.back.lock().clone(),
            key: Vec::new(),
            newer: None,
            place: None,
            head: Vec::new(),
            head_at: BTreeMap::new(),
            long: (Vec::new(), Vec::new()),
        })
    }
}

/// The state that every batch belongs to.
const NOW: Revision = Revision(u64::MAX);

struct Judge {
    bound: Arc<Bound>,
    erasures: Arc<Erasures>,
    back: Option<Arc<GoBack>>,
    /// The key whose versions are coming, newest first.
    key: Vec<u8>,
    /// The version that came before the next one.
    newer: Option<Revision>,
    /// The space that keys are coming from.
    place: Option<Place>,
    /// The head's key of the last element.
    head: Vec<u8>,
    /// What it is at some states.
    head_at: BTreeMap<Revision, Head>,
    /// The last head that has only a digest of its key, and that key.
    long: (Vec<u8>, Vec<u8>),
}

/// What a head is at a state.
#[derive(Clone, Copy)]
enum Head {
    /// It cannot be read: its elements stay.
    Unknown,
    /// Its elements have entries.
    Large(Large),
    /// Anything else, or nothing.
    Other,
}

/// What is known of the space that keys are coming from.
struct Place {
    /// How its keys begin; empty for what is in no space.
    prefix: Vec<u8>,
    is_dead: bool,
    is_standing: bool,
    is_overlay: bool,
    /// See [`Bound::states`].
    states: Vec<Revision>,
}

impl Judge {
    fn place(&mut self, key: &[u8]) -> &Place {
        let is_same = |place: &Place| match &place.prefix[..] {
            [] => codec::space_of(key).is_none(),
            prefix => key.starts_with(prefix),
        };
        if !self.place.as_ref().is_some_and(is_same) {
            let space = codec::space_of(key);
            let mut prefix = Vec::new();
            space.iter().for_each(|space| codec::put_space(&mut prefix, *space));
            let among = |spaces: &BTreeSet<SpaceId>| space.is_some_and(|it| spaces.contains(&it));
            self.place = Some(Place {
                prefix,
                is_dead: among(&self.bound.dead),
                is_standing: among(&self.erasures.standing),
                is_overlay: among(&self.bound.overlays),
                states: self.bound.states(space),
            });
        }
        self.place.as_ref().expect("just made")
    }

    /// Whether an element, whose head's key ends at `end`, is in a state that
    /// sees this version of it.
    fn is_element_in(&mut self, key: &[u8], end: usize, state: Revision) -> bool {
        // What cannot be read is kept.
        let Ok(element) = ElementKey::read(&key[end..]) else { return true };
        if self.head != key[..end] {
            self.head.clear();
            self.head.extend_from_slice(&key[..end]);
            self.head_at.clear();
        }
        let (bound, head) = (&self.bound, &self.head);
        match *self.head_at.entry(state).or_insert_with(|| bound.head_at(head, state)) {
            Head::Unknown => true,
            Head::Other => false,
            Head::Large(large) => {
                large.born == element.born
                    && (!large.is_list()
                        || element
                            .name
                            .and_then(position_of)
                            .is_none_or(|position| large.has_position(position)))
            }
        }
    }

    /// Whether the collection of the element that was looked at last may lie over
    /// another at a state.
    fn may_lie_over(&self, state: Revision) -> bool {
        match self.head_at.get(&state) {
            Some(Head::Large(large)) => large.is_over,
            Some(Head::Other) => false,
            Some(Head::Unknown) | None => true,
        }
    }
}

impl Bound {
    fn head_at(&self, head: &[u8], state: Revision) -> Head {
        let Some(heads) = &self.heads else { return Head::Unknown };
        let is_digest = codec::is_digest(head);
        let mut found = Head::Other;
        let read = heads.range(&(head..=head), Some(state), &mut |_, value| {
            found = match codec::head(value, is_digest) {
                Ok(Some(head)) => match head.content {
                    Content::Large(large) => Head::Large(large),
                    Content::Str(_) | Content::Whole(_) => Head::Other,
                },
                Ok(None) => Head::Other,
                Err(_) => Head::Unknown,
            };
            ControlFlow::Break(())
        });
        if read.is_ok() { found } else { Head::Unknown }
    }
}

impl Judge {
    /// Whether no state that may still be read sees a version, the next of its
    /// key after newer ones.
    fn may_go(&mut self, key: &[u8], revision: Revision, is_gone: bool, is_last: bool) -> bool {
        let newer = self.newer.replace(revision);
        let Place { states, is_overlay, .. } = self.place(key);
        let last = *states.last().expect("the horizon is one");
        if revision > last {
            return false;
        }
        // The first state that sees it, unless a newer version hides it there.
        let seen = states[states.partition_point(|state| *state < revision)];
        if newer.is_some_and(|newer| newer <= seen) {
            return true;
        }
        let is_oldest = revision <= states[0] && is_last;
        let is_overlay = *is_overlay;
        let element = codec::element_at(key);
        if let Some(end) = element
            && !self.is_element_in(key, end, seen)
        {
            // Where a state that is none were taken for one, the present would not
            // be what pays for it.
            let is_seen_last = newer.is_none_or(|newer| newer > last);
            return !(is_seen_last && self.is_element_in(key, end, last));
        }
        if !is_gone || !is_oldest {
            return false;
        }
        // What is gone hides what is below; so does an element, if its collection
        // lies over another.
        !is_overlay || element.is_some() && !self.may_lie_over(seen)
    }

    /// A directory without what was decided about erased keys in merges that wait;
    /// `None` if that is nothing.
    fn undecided(&self, value: &[u8], at: Revision) -> Option<Vec<u8>> {
        let mut erasures = self.erasures.all.iter().filter(|it| at < it.purge.at).peekable();
        erasures.peek()?;
        let mut directory = Directory::decode(value).ok()?;
        let mut is_changed = false;
        for Erasure { branch, purge, .. } in erasures {
            is_changed |= directory.branches.forget_decisions(*branch, purge);
        }
        is_changed.then(|| directory.encode())
    }

    /// Whether an entry tells what was erased. `is_newest` says that none of its
    /// versions is newer.
    fn is_erased(&mut self, entry: &[u8], value: &[u8], at: Revision, is_newest: bool) -> bool {
        if self.erasures.all.is_empty() {
            return false;
        }
        let element = codec::element_at(entry);
        let head = &entry[..element.unwrap_or(entry.len())];
        // Heads come before their elements, which have no name if it is long.
        if let Some(key) = codec::long_key(entry, value) {
            self.long = (head.to_vec(), key.to_vec());
        }
        let long = (self.long.0 == head).then_some(&self.long.1[..]);
        let Some(key) = codec::plain_key(entry).or(long) else { return false };
        if !self.erasures.all.iter().any(|erasure| erasure.covers(entry, key, at)) {
            return false;
        }
        // What keys of the purge's database are now was written anew by its
        // record: what is older came from elsewhere.
        let is_present = is_newest
            && self.place(entry).is_standing
            && element.is_none_or(|end| self.is_element_in(entry, end, NOW));
        !is_present
    }
}

impl CompactionFilter for Judge {
    fn filter_item(
        &mut self,
        item: ItemAccessor<'_>,
        context: &Context,
    ) -> lsm_tree::Result<Verdict> {
        let key = item.key();
        if let Some(back) = &self.back {
            // What a batch wrote begins with the revision of a change in it.
            let value = item.value()?;
            return Ok(match codec::age(&value) {
                Ok((revision, _)) if revision > back.to => Verdict::Destroy,
                Ok((revision, _)) if revision == back.to && **key == *DIRECTORY => {
                    let lapsed = back.with_lapsed(&value);
                    lapsed.map_or(Verdict::Keep, |it| Verdict::ReplaceValue(it.into()))
                }
                _ => Verdict::Keep,
            });
        }
        if self.place(key).is_dead {
            return Ok(Verdict::Destroy);
        }
        if self.key != **key {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.newer = None;
        }
        // What cannot be read is kept, for whoever reads it to report.
        let value = item.value()?;
        let Ok((revision, is_gone)) = codec::age(&value) else {
            return Ok(Verdict::Keep);
        };
        let is_newest = self.newer.is_none();
        let is_erased = self.is_erased(key, &value, revision, is_newest);
        if self.may_go(key, revision, is_gone, context.is_last_level) {
            return Ok(Verdict::Destroy);
        }
        if **key == *DIRECTORY {
            let undecided = self.undecided(&value, revision);
            return Ok(undecided.map_or(Verdict::Keep, |it| Verdict::ReplaceValue(it.into())));
        }
        Ok(match (is_erased, codec::element_at(key)) {
            // Even one that is gone has a name.
            (true, Some(_)) => Verdict::Destroy,
            // The key stays, so that the keys of that state are as many as its
            // directory counts.
            (true, None) if !is_gone => Verdict::ReplaceValue(codec::erased(key, &value).into()),
            _ => Verdict::Keep,
        })
    }
}
