//! What is left to decide of merges that wait, so that a decision about one key
//! costs what that key costs.
//!
//! Whoever works a merge out keeps the keys that nobody has decided. The next
//! decision looks only at its own key, and at those that were written since.
//! Where something else has changed on which conflicts depend, all is worked out
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{BranchId, Revision, glob};
use command::Result;
use keyspace::merge::Merge;
use keyspace::{Merged, PastRules};

use super::changes::{Changes, Everything, Search};
use super::common::Place;
use super::line::Line;
use super::merge::{Asked, Done, Job, Undecided, Waits};
use crate::engine::Engine;

/// Merges of which it is kept.
const STANDINGS_MAX: usize = 16;

/// Keys written since, up to which each is looked at by itself.
const WRITTEN_MAX: usize = 1000;

/// Those of the merges that wait, by id.
pub(super) type Standings = BTreeMap<u64, Standing>;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Standing {
    /// Which merge.
    id: u64,
    /// What was decided of it by then, see [`keyspace::OpenMerge::changed`].
    changed: Revision,
    /// Which keys alone it is about, as a glob.
    pattern: Option<Vec<u8>>,
    ground: Ground,
    /// Up to this revision.
    upto: Revision,
    /// When the first key expires that is looked at, in milliseconds since 1970.
    holds_until: u64,
    undecided: BTreeSet<Place>,
}

/// What conflicts depend on beside what is written to the two branches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ground {
    merged: Vec<Merged>,
    lines: [Line; 2],
    /// How far the history reaches back.
    oldest: Option<Revision>,
    /// What was erased of the past, by the branches of both lines.
    rules: Vec<Option<Arc<PastRules>>>,
}

impl Ground {
    /// That of two branches now.
    pub(super) fn of(engine: &Engine, branches: [BranchId; 2]) -> Ground {
        let known = engine.branches.known.read();
        let merged = known.merged().to_vec();
        let lines = branches.map(|branch| Line::of(&known, branch));
        drop(known);
        let reaches = lines.iter().flat_map(Line::reaches);
        let rules = reaches.map(|reach| Some(engine.branch(reach.branch)?.keyspace.past_rules()));
        let rules = rules.collect();
        Ground { merged, lines, oldest: engine.past().map(|past| past.oldest()), rules }
    }
}

impl Standing {
    /// What was found out of all keys of a merge that waits, on a ground that was
    /// looked at before.
    pub(super) fn new<T>(asked: &Asked, waits: &Waits, ground: Ground, done: &Done<T>) -> Standing {
        let undecided = done.undecided().iter().map(|it| it.place.clone()).collect();
        let (upto, holds_until) = (done.seen.upto, done.seen.holds_until);
        let (id, changed, pattern) = (waits.id, waits.changed, asked.pattern.clone());
        Standing { id, changed, pattern, ground, upto, holds_until, undecided }
    }

    /// Keys that nobody has decided.
    pub(super) fn left(&self) -> usize {
        self.undecided.len()
    }

    /// Goes on with a merge in which a record has decided about a key.
    pub(super) fn decided(&mut self, record: Revision, place: &Place) {
        self.changed = record;
        self.undecided.remove(place);
    }

    /// The keys written on either branch since, up to a revision; `None` when
    /// they are too many, or nobody can say.
    fn written(&self, engine: &Engine, upto: Revision) -> Result<Option<BTreeSet<Place>>> {
        let pattern = self.pattern.as_deref();
        let mut changes = Changes::default();
        for line in &self.ground.lines {
            let search = Search {
                engine,
                parts: &line.reaches()[..1],
                lens: &Everything,
                wanted: &|_, key| pattern.is_none_or(|pattern| glob::matches(pattern, key)),
            };
            if !search.run(self.upto, upto, &mut changes)? {
                return Ok(None);
            }
        }
        let places = changes.places();
        let is_few = places.len() <= WRITTEN_MAX && changes.whole().is_empty();
        Ok(is_few.then(|| places.into_iter().cloned().collect()))
    }
}

impl Engine {
    /// How a merge that waits stands, `place` as if nobody had decided about it,
    /// and what `see` says of that key's conflicts.
    pub(super) fn standing<T>(
        self: &Arc<Engine>,
        asked: &Asked,
        waits: &Waits,
        place: &Place,
        see: &dyn Fn(&Merge<'_>) -> T,
    ) -> Result<(Standing, Option<Undecided<T>>)> {
        let anew = Waits { anew: Some(place.clone()), ..waits.clone() };
        let asked = &Asked { waits: Some(anew), ..asked.clone() };
        let ground = Ground::of(self, [asked.into, asked.from]);
        let (newest, now_ms) = (self.replicator.newest(), self.clock.now_ms());
        let known = self.branches.standings.lock().remove(&waits.id).filter(|it| {
            it.changed == waits.changed
                && it.ground == ground
                && it.holds_until > now_ms
                && it.upto <= newest
        });
        let known = match known {
            Some(it) => it.written(self, newest)?.map(|written| (it, written)),
            None => None,
        };
        let job = |only| Job { engine: self, asked, author: None, only };
        let is_it = |it: &Undecided<T>| it.place == *place;
        let Some((mut standing, mut only)) = known else {
            let done = job(None).run(see)?;
            let standing = Standing::new(asked, waits, ground, &done);
            return Ok((standing, done.into_undecided().into_iter().find(is_it)));
        };
        only.insert(place.clone());
        let done = job(Some(&only)).run(see)?;
        for place in &only {
            standing.undecided.remove(place);
        }
        standing.undecided.extend(done.undecided().iter().map(|it| it.place.clone()));
        standing.upto = newest;
        standing.holds_until = standing.holds_until.min(done.seen.holds_until);
        Ok((standing, done.into_undecided().into_iter().find(is_it)))
    }

    /// Keeps how a merge stands for its next decision.
    pub(super) fn keep_standing(&self, standing: Standing) {
        let mut standings = self.branches.standings.lock();
        let known = self.branches.known.read();
        standings.insert(standing.id, standing);
        standings.retain(|id, _| known.open_merges().contains_key(id));
        if standings.len() > STANDINGS_MAX {
            standings.pop_first();
        }
    }
}
