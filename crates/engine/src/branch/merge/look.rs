//! Which keys a merge looks at, and what they were when both branches had the
//! same.
//!
//! The log tells. The first look reads what was done since the two parted; each
//! one after it only what was written since the look before, and opens what was
//! worked out of these keys again. Where the log cannot tell that, or databases
//! were emptied or exchanged as a whole, all is looked for once more and every
//! key is open.

use std::collections::{BTreeMap, BTreeSet};

use base::{BranchId, DbIndex, Revision};
use command::Result;
use keyspace::merge::Counted;

use super::super::changes::{Changes, Everything, Search};
use super::super::common::{Common, Commons, Place, Then};
use super::super::values::Kept;
use super::outcome::Outcome;
use super::{Job, OURS, Seen, THEIRS, none_in_common};
use crate::aside;
use crate::engine::Engine;

/// Counters up to which each is looked up by itself rather than in everything
/// that was written.
const COUNTERS_MAX: usize = 256;

/// What was found out so far.
pub(super) struct Found<T> {
    pub(super) commons: Commons,
    /// States in common, as far as they were asked for.
    states: BTreeMap<Revision, Kept>,
    /// Whether the log tells all that theirs has done.
    reaches: bool,
    /// Up to where the log was read.
    upto: Revision,
    /// The newest revision at the last look.
    pub(super) seen: Revision,
    /// What to look at.
    pub(super) keys: BTreeMap<Place, Looked<T>>,
    /// Those of them of which nothing is worked out, or something else by now.
    pub(super) open: BTreeSet<Place>,
    /// When keys were compared last, in milliseconds since 1970.
    compared_ms: u64,
    /// When the first of those that were compared expires, or earlier.
    holds_until: u64,
    pub(super) theirs: Changes,
    /// Databases all of whose keys are among them.
    listed: BTreeSet<DbIndex>,
    ours: Ours,
}

/// A key that is looked at.
pub(super) struct Looked<T> {
    /// What it was when both had the same.
    pub(super) then: Then,
    /// What comes of it, unless that is open.
    pub(super) outcome: Option<Outcome<T>>,
}

/// What ours has done to keys that theirs has only counted.
#[derive(Default)]
struct Ours {
    /// The keys that were looked for.
    counters: BTreeSet<Place>,
    /// Up to where the log was read for them; `None` where it cannot be.
    upto: Option<Revision>,
    changes: Changes,
}

impl<T> Found<T> {
    pub(super) fn new(commons: Commons) -> Found<T> {
        Found {
            states: BTreeMap::new(),
            reaches: false,
            upto: commons.oldest().upto(THEIRS),
            seen: Revision::ZERO,
            commons,
            keys: BTreeMap::new(),
            open: BTreeSet::new(),
            compared_ms: 0,
            holds_until: u64::MAX,
            theirs: Changes::default(),
            listed: BTreeSet::new(),
            ours: Ours::default(),
        }
    }

    /// Forgets all but what keys were when both had the same.
    fn begin_anew(&mut self) {
        self.reaches = false;
        self.upto = self.commons.oldest().upto(THEIRS);
        self.theirs = Changes::default();
        self.listed.clear();
        self.ours = Ours::default();
        self.open_if(|_| true);
    }

    /// The time by which keys are due, in milliseconds since 1970. It does not go
    /// back: what was due stays so.
    pub(super) fn now_ms(&mut self, engine: &Engine) -> u64 {
        self.compared_ms = self.compared_ms.max(engine.clock.now_ms());
        self.compared_ms
    }

    /// See [`Seen`].
    pub(super) fn seen(&self) -> Seen {
        Seen { upto: self.seen, holds_until: self.holds_until }
    }

    /// Opens the keys that are due by now, and were not when they were compared.
    pub(super) fn open_due(&mut self, now_ms: u64) {
        if self.holds_until <= now_ms {
            self.open_if(|outcome| outcome.holds_until <= now_ms);
        }
    }

    fn open_if(&mut self, is_over: impl Fn(&Outcome<T>) -> bool) {
        self.holds_until = u64::MAX;
        for (place, looked) in &mut self.keys {
            match &looked.outcome {
                Some(outcome) if is_over(outcome) => {
                    looked.outcome = None;
                    self.open.insert(place.clone());
                }
                Some(outcome) => self.holds_until = self.holds_until.min(outcome.holds_until),
                None => {}
            }
        }
    }

    /// Notes what comes of a key that was open.
    pub(super) fn settle(&mut self, place: &Place, outcome: Outcome<T>) {
        self.holds_until = self.holds_until.min(outcome.holds_until);
        self.keys.get_mut(place).expect("it is looked at").outcome = Some(outcome);
    }

    /// A state in common, which is opened once.
    fn state(&mut self, engine: &Engine, common: &Common) -> &mut Kept {
        self.states.entry(common.at).or_insert_with(|| engine.common_state(common))
    }

    /// What ours, and theirs, have only counted of a key.
    pub(super) fn counts_of(&self, place: &Place) -> [Counted; 2] {
        let Some(common) = self.commons.of(&place.1) else { return Default::default() };
        let ours = self.ours.upto.map(|_| self.ours.changes.counted(place));
        let counts = [ours.unwrap_or_default(), self.theirs.counted(place)];
        if common.is_whole {
            return counts;
        }
        // They may have a part of what they counted in common. That is all of it
        // where one of them has nothing that the other lacks.
        let sides = [&self.ours.changes, &self.theirs];
        let may_have_news = |side: usize| !common.is_sure[side] || sides[side].has_news(place);
        match may_have_news(OURS) && may_have_news(THEIRS) {
            true => counts.map(Counted::shared),
            false => Default::default(),
        }
    }
}

impl Job<'_> {
    /// Looks at everything.
    pub(super) fn look<T>(&self, found: &mut Found<T>) -> Result {
        let engine = self.engine;
        let newest = engine.replicator.newest();
        let commons = &found.commons;
        let of_theirs = Search {
            engine,
            parts: &commons.parts(THEIRS),
            lens: &commons.side(THEIRS),
            wanted: &|_, key| self.is_wanted(key),
        };
        let reaches = match self.only {
            Some(only) => of_theirs.run_of_keys(only, found.upto, newest, &mut found.theirs)?,
            None => of_theirs.run(found.upto, newest, &mut found.theirs)?,
        };
        if !reaches {
            found.theirs = Changes::default();
        }
        self.look_at_ours(found, newest)?;
        let mut keys: BTreeSet<Place> = found.theirs.places().into_iter().cloned().collect();
        let whole = match reaches {
            true => found.theirs.whole(),
            false => (0..engine.keyspace.databases()).collect(),
        };
        // Names that come later are in the records.
        let whole: Vec<DbIndex> = whole.difference(&found.listed).copied().collect();
        if let Some(only) = self.only {
            let is_of = |place: &&Place| whole.contains(&place.0) && self.is_wanted(&place.1);
            keys.extend(only.iter().filter(is_of).cloned());
        } else if !whole.is_empty() {
            let common = found.commons.oldest();
            let from = self.branch(self.asked.from)?;
            let state = found.state(engine, &common).open(engine)?;
            found.listed.extend(&whole);
            for db in whole {
                let mut add = |key: &[u8]| {
                    if self.is_wanted(key) {
                        keys.insert((db, key.to_vec()));
                    }
                };
                engine.each_key(&state, db, &mut add)?;
                engine.each_key(&from.keyspace, db, &mut add)?;
                // Names that only a later state in common has.
                let into = self.branch(self.asked.into)?;
                engine.each_key(&into.keyspace, db, &mut add)?;
            }
        }
        keys.retain(|place| !found.keys.contains_key(place));
        self.add(found, keys)?;
        found.reaches = reaches;
        found.seen = newest;
        if reaches {
            found.upto = newest;
        }
        Ok(())
    }

    /// Finds what has changed since the last look.
    pub(super) fn look_again<T>(&self, found: &mut Found<T>) -> Result {
        let newest = self.engine.replicator.newest();
        if newest == found.seen {
            return Ok(());
        }
        if let Some(written) = self.written(found, newest)?
            && self.look_at(found, written, newest)?
        {
            return Ok(());
        }
        found.begin_anew();
        self.look(found)
    }

    /// The keys written on either branch since the last look; `None` where the
    /// log does not tell them one by one.
    fn written<T>(&self, found: &Found<T>, upto: Revision) -> Result<Option<BTreeSet<Place>>> {
        let mut changes = Changes::default();
        for line in &found.commons.lines {
            let search = Search {
                engine: self.engine,
                // All else that either contains is older.
                parts: &line.reaches()[..1],
                lens: &Everything,
                wanted: &|_, key| self.is_wanted(key),
            };
            if !search.run(found.seen, upto, &mut changes)? {
                return Ok(None);
            }
        }
        let is_by_key = changes.whole().is_empty();
        Ok(is_by_key.then(|| changes.places().into_iter().cloned().collect()))
    }

    /// Looks at the keys that were written since the last look. Answers false
    /// where that does not do.
    fn look_at<T>(
        &self,
        found: &mut Found<T>,
        written: BTreeSet<Place>,
        newest: Revision,
    ) -> Result<bool> {
        if found.reaches {
            let commons = &found.commons;
            let of_theirs = Search {
                engine: self.engine,
                parts: &commons.parts(THEIRS),
                lens: &commons.side(THEIRS),
                wanted: &|_, key| self.is_wanted(key),
            };
            if !of_theirs.run(found.upto, newest, &mut found.theirs)? {
                return Ok(false);
            }
            found.upto = newest;
            if !self.look_at_ours_again(found, &written, newest)? {
                return Ok(false);
            }
        }
        let mut new = BTreeSet::new();
        for place in written {
            if found.keys.contains_key(&place) {
                let common = found.commons.of(&place.1);
                let is_erased = common.is_none_or(|common| self.is_erased(&place, &common));
                let looked = found.keys.get_mut(&place).expect("it is there");
                looked.outcome = None;
                looked.then.take_if(|_| is_erased);
                found.open.insert(place);
            } else if !found.reaches || found.theirs.has(&place) {
                new.insert(place);
            }
        }
        self.add(found, new)?;
        found.seen = newest;
        Ok(true)
    }

    /// Adds keys, which are open.
    fn add<T>(&self, found: &mut Found<T>, keys: BTreeSet<Place>) -> Result {
        let engine = self.engine;
        // What has to be read is, before everything is locked.
        for id in [self.asked.from, self.asked.into] {
            let branch = self.branch(id)?;
            let is_there = |place: &&Place| place.0 < branch.keyspace.databases();
            for (db, key) in keys.iter().filter(is_there) {
                aside::bring(&branch.keyspace, *db, key)?;
            }
        }
        for place in keys {
            let common =
                found.commons.of(&place.1).ok_or_else(|| none_in_common(Some(&place.1)))?;
            let then = match self.is_erased(&place, &common) {
                true => None,
                false => found.state(engine, &common).value(engine, 0, place.0, &place.1)?,
            };
            found.keys.insert(place.clone(), Looked { then, outcome: None });
            found.open.insert(place);
        }
        Ok(())
    }

    /// Whether a key was erased from the history since both had the same: nobody
    /// knows what it was.
    fn is_erased(&self, (db, key): &Place, common: &Common) -> bool {
        let branches: [BranchId; 2] = [self.asked.from, self.asked.into];
        branches.into_iter().any(|branch| self.engine.purged_from(branch, *db, key) > common.at)
    }

    /// Finds what ours has done, since the last look, to the keys that theirs
    /// has counted: since the state in common, and after theirs was merged last.
    fn look_at_ours<T>(&self, found: &mut Found<T>, newest: Revision) -> Result {
        let counters = found.theirs.counters();
        let after = found.commons.oldest().upto(OURS);
        found.ours = Ours::default();
        if !counters.is_empty() {
            let reaches = self.search_ours(found, &counters, after, newest)?;
            found.ours.upto = reaches.then_some(newest);
            found.ours.counters = counters;
        }
        Ok(())
    }

    /// As [`Job::look_at_ours`], where only some keys were written since. Answers
    /// false where all has to be looked at.
    fn look_at_ours_again<T>(
        &self,
        found: &mut Found<T>,
        written: &BTreeSet<Place>,
        newest: Revision,
    ) -> Result<bool> {
        let is_counter = |place: &&Place| found.theirs.is_counter(place);
        let counters = written.iter().filter(is_counter);
        let (known, new): (BTreeSet<Place>, BTreeSet<Place>) =
            counters.cloned().partition(|place| found.ours.counters.contains(place));
        if new.len() > COUNTERS_MAX {
            return Ok(false);
        }
        let after = match found.ours.upto {
            Some(upto) => upto,
            None if found.ours.counters.is_empty() => newest,
            None => return Ok(false),
        };
        let start = found.commons.oldest().upto(OURS);
        let reaches = self.search_ours(found, &known, after, newest)?
            && self.search_ours(found, &new, start, newest)?;
        if reaches && !(new.is_empty() && found.ours.counters.is_empty()) {
            found.ours.upto = Some(newest);
            found.ours.counters.extend(new);
        }
        Ok(reaches)
    }

    /// Finds what ours has done to some keys. Answers false where the log does
    /// not reach so far back.
    fn search_ours<T>(
        &self,
        found: &mut Found<T>,
        keys: &BTreeSet<Place>,
        after: Revision,
        newest: Revision,
    ) -> Result<bool> {
        if keys.is_empty() {
            return Ok(true);
        }
        let commons = &found.commons;
        let search = Search {
            engine: self.engine,
            parts: &commons.parts(OURS),
            lens: &commons.side(OURS),
            wanted: &|db: DbIndex, key: &[u8]| keys.contains(&(db, key.to_vec())),
        };
        match keys.len() {
            // Mostly few: what else has been written is not looked at.
            0..=COUNTERS_MAX => search.run_of_keys(keys, after, newest, &mut found.ours.changes),
            _ => search.run(after, newest, &mut found.ours.changes),
        }
    }
}
