//! BRANCH MERGE: one branch takes what another has changed since both were the
//! same.
//!
//! Which keys these are is looked up in the log, beside all writers, and what
//! they were in the archive. Then writers are held up for a last look, both
//! branches are locked, and all keys are merged as of one revision and written
//! by one transaction. Where the history does not reach back to the common
//! state, every key of it is compared, and nothing is known to be a counter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, glob};
use command::{Error, Result};
use keyspace::effect::{Effect, Effects};
use keyspace::merge::{Choice, Counted, Merge, Side, Version, difference, merge};
use keyspace::{Buffers, Merged, OpenMerge, Scope, Settled, Txn, Verdict, class};

use super::changes::{Changes, Search};
use super::common::{Common, Commons, Place, Then};
use super::no_branch;
use super::values::{Kept, Values};
use crate::aside;
use crate::engine::Engine;
use crate::history::many::LOOKS_MAX;
use crate::history::revert::Author;
use crate::travel::Moment;

/// The sides of [`Commons`].
const OURS: usize = 0;
const THEIRS: usize = 1;

/// Counters up to which each is looked up by itself rather than in everything
/// that was written.
const COUNTERS_MAX: usize = 256;

/// Bytes of a key that an error names.
pub(super) const NAMED_BYTES_MAX: usize = 64;

/// What becomes of conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Nothing is merged.
    Fail,
    /// All stay as they are.
    Ours,
    /// All become what the other branch has.
    Theirs,
    /// Nothing is merged until each is decided.
    Manual,
}

/// What is to be merged.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) from: BranchId,
    pub(super) into: BranchId,
    /// Which keys alone, as a glob.
    pub(super) pattern: Option<Vec<u8>>,
    pub(super) policy: Policy,
    /// What was decided key by key.
    pub(super) settled: Vec<Settled>,
    /// The open merge that this ends; 0 for none.
    pub(super) ends: u64,
}

/// A key that needs a decision.
#[derive(Debug)]
pub(super) struct Undecided<T> {
    pub(super) place: Place,
    pub(super) digest: u64,
    /// What the caller wanted of its conflicts.
    pub(super) seen: T,
}

/// What a merge did, or would do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) added: u64,
    pub(super) changed: u64,
    pub(super) removed: u64,
    /// Keys that both sides had changed, and nobody had to decide.
    pub(super) auto_merged: u64,
}

/// How a merge ended, and what was looked at.
#[derive(Debug)]
pub(super) struct Done<T> {
    pub(super) end: End<T>,
    pub(super) seen: Seen,
}

/// How a merge ended.
#[derive(Debug)]
pub(super) enum End<T> {
    Merged {
        written: Option<Revision>,
        counts: Counts,
    },
    /// Nothing is merged.
    Undecided(Vec<Undecided<T>>),
}

impl<T> Done<T> {
    /// The keys that nobody has decided.
    pub(super) fn undecided(&self) -> &[Undecided<T>] {
        match &self.end {
            End::Merged { .. } => &[],
            End::Undecided(undecided) => undecided,
        }
    }

    /// As [`Done::undecided`].
    pub(super) fn into_undecided(self) -> Vec<Undecided<T>> {
        match self.end {
            End::Merged { .. } => Vec::new(),
            End::Undecided(undecided) => undecided,
        }
    }
}

/// What a merge is worked out from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Both branches at this revision.
    pub(super) upto: Revision,
    /// When the first of the keys expires that were compared, in milliseconds
    /// since 1970.
    pub(super) holds_until: u64,
}

/// A merge at work.
pub(super) struct Job<'j> {
    pub(super) engine: &'j Arc<Engine>,
    pub(super) asked: &'j Asked,
    /// In whose name it writes; `None`: it only counts.
    pub(super) author: Option<&'j Author>,
    /// The keys alone that are looked at, each by itself; `None`: all.
    pub(super) only: Option<&'j BTreeSet<Place>>,
}

/// What was found out before the locks.
struct Found {
    commons: Commons,
    /// States in common, as far as they were asked for.
    states: BTreeMap<Revision, Kept>,
    /// Up to where the log was read.
    upto: Revision,
    /// The newest revision at the last look.
    seen: Revision,
    /// What to look at, and how it was.
    keys: BTreeMap<Place, Then>,
    theirs: Changes,
    /// Databases all of whose keys are among them.
    listed: BTreeSet<DbIndex>,
    ours: Ours,
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

/// A key to be written.
struct Write {
    place: Place,
    effects: Vec<u8>,
}

/// What comes of all keys.
struct Sum<T> {
    now_ms: u64,
    writes: Vec<Write>,
    counts: Counts,
    undecided: Vec<Undecided<T>>,
    /// What both have done alike, or theirs has taken back, is something to
    /// remember: else a later merge would begin with what was there before.
    is_something: bool,
    kept: Vec<Place>,
    bytes: usize,
    /// See [`Seen::holds_until`].
    holds_until: u64,
}

impl<T> Sum<T> {
    fn new(found: &Found, now_ms: u64) -> Sum<T> {
        Sum {
            now_ms,
            writes: Vec::new(),
            counts: Counts::default(),
            undecided: Vec::new(),
            is_something: found.theirs.has_own(),
            kept: Vec::new(),
            bytes: 0,
            holds_until: u64::MAX,
        }
    }
}

impl Job<'_> {
    /// Merges, or finds out what nobody has decided; `see` is shown each merge
    /// with such conflicts.
    pub(super) fn run<T>(&self, see: &dyn Fn(&Merge<'_>) -> T) -> Result<Done<T>> {
        let engine = self.engine;
        if self.asked.into == self.asked.from {
            return Err(Error::new("ERR a branch cannot be merged with itself"));
        }
        let commons =
            engine.commons(self.asked.into, self.asked.from).ok_or_else(|| none_in_common(None))?;
        let mut found = Found {
            states: BTreeMap::new(),
            upto: commons.oldest().upto(THEIRS),
            seen: Revision::ZERO,
            commons,
            keys: BTreeMap::new(),
            theirs: Changes::default(),
            listed: BTreeSet::new(),
            ours: Ours::default(),
        };
        // The long look, beside all writers.
        self.look(&mut found)?;
        // What the history has of a moment can be read without stopping anybody.
        if self.author.is_none() && engine.past().is_some() {
            return self.count(&found, see);
        }
        let _hold = engine.writers_held.hold();
        for _ in 0..LOOKS_MAX {
            self.look(&mut found)?;
            if let Some(done) = self.finish(&found, see)? {
                return Ok(done);
            }
        }
        Err(Error::new(format!(
            "TRYAGAIN keys changed during each of {LOOKS_MAX} looks at them, though writers were held up; nothing \
             is merged"
        )))
    }

    fn is_wanted(&self, key: &[u8]) -> bool {
        self.asked.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key))
    }

    /// Finds what has changed since the last look.
    fn look(&self, found: &mut Found) -> Result {
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
            // Of what was erased since nobody knows what it was.
            let is_erased = [self.asked.from, self.asked.into]
                .into_iter()
                .any(|branch| engine.purged_from(branch, place.0, &place.1) > common.at);
            let then = match is_erased {
                true => None,
                false => found.state(engine, &common).value(engine, 0, place.0, &place.1)?,
            };
            found.keys.insert(place, then);
        }
        found.seen = newest;
        if reaches {
            found.upto = newest;
        }
        Ok(())
    }

    /// Finds what ours has done, since the last look, to the keys that theirs
    /// has counted: since the state in common, and after theirs was merged last.
    fn look_at_ours(&self, found: &mut Found, newest: Revision) -> Result {
        let counters = found.theirs.counters();
        let commons = &found.commons;
        let ours = &mut found.ours;
        let after = match ours.upto {
            Some(upto) if counters.is_subset(&ours.counters) => upto,
            _ => {
                *ours = Ours::default();
                commons.oldest().upto(OURS)
            }
        };
        if counters.is_empty() {
            return Ok(());
        }
        let search = Search {
            engine: self.engine,
            parts: &commons.parts(OURS),
            lens: &commons.side(OURS),
            wanted: &|db: DbIndex, key: &[u8]| counters.contains(&(db, key.to_vec())),
        };
        let reaches = match counters.len() {
            // Mostly few: what else has been written is not looked at.
            0..=COUNTERS_MAX => search.run_of_keys(&counters, after, newest, &mut ours.changes)?,
            _ => search.run(after, newest, &mut ours.changes)?,
        };
        ours.upto = reaches.then_some(newest);
        ours.counters = counters;
        Ok(())
    }

    fn branch(&self, id: BranchId) -> Result<super::Held<'_>> {
        self.engine.branch(id).ok_or_else(|| no_branch(&self.engine.branch_name(id)))
    }

    /// Merges with both branches locked; `None`, and nothing is done, when
    /// something has happened since the last look.
    fn finish<T>(&self, found: &Found, see: &dyn Fn(&Merge<'_>) -> T) -> Result<Option<Done<T>>> {
        let engine = self.engine;
        let _turn = engine.branches.turn.lock();
        if !found.commons.still_hold(engine) {
            return Err(Error::new("TRYAGAIN the branches were merged or made anew meanwhile"));
        }
        let (from, into) = (self.branch(self.asked.from)?, self.branch(self.asked.into)?);
        engine.check_may_merge(&into)?;
        let (live, now_ms) = (engine.live(), engine.clock.now_ms());
        let options = engine.txn_options(&live, now_ms, false);
        let (mut reading, mut writing) = (Buffers::default(), Buffers::default());
        let all = &Scope::All;
        // Filling a branch locks its ancestors', whose numbers are below its
        // own: so the greater one is locked, and filled, first.
        let (mut theirs, mut ours);
        if from.id > into.id {
            let journal = engine.journal_of(&from);
            theirs =
                filled(Txn::begin(&from.keyspace, all, journal, &mut reading, options), found)?;
            let journal = engine.journal_of(&into);
            ours = filled(Txn::begin(&into.keyspace, all, journal, &mut writing, options), found)?;
        } else {
            let journal = engine.journal_of(&into);
            ours = filled(Txn::begin(&into.keyspace, all, journal, &mut writing, options), found)?;
            let journal = engine.journal_of(&from);
            theirs =
                filled(Txn::begin(&from.keyspace, all, journal, &mut reading, options), found)?;
        }
        if engine.replicator.newest() != found.seen {
            return Ok(None);
        }
        let mut sum = Sum::new(found, now_ms);
        for (place, then) in &found.keys {
            ours.select(place.0);
            theirs.select(place.0);
            let sides = [version(&ours, &place.1), version(&theirs, &place.1)];
            self.add(&mut sum, found, (place, then), sides, see)?;
        }
        theirs.finish();
        self.check_bytes(&sum)?;
        let seen = Seen { upto: found.seen, holds_until: sum.holds_until };
        let Sum { writes, counts, undecided, is_something, kept, .. } = sum;
        if !undecided.is_empty() {
            return Ok(Some(Done { end: End::Undecided(undecided), seen }));
        }
        let Some(author) = self.author.filter(|_| is_something || self.asked.ends > 0) else {
            return Ok(Some(Done { end: End::Merged { written: None, counts }, seen }));
        };
        ours.record_always();
        author.sign(&mut ours);
        ours.select(0);
        let merged = Merged {
            from: from.id,
            into: into.id,
            revision: Revision::ZERO,
            since: Revision::ZERO,
            pattern: self.asked.pattern.clone(),
            ends: self.asked.ends,
            kept,
        };
        let revision = ours.declare(&Effect::Merged { row: &merged.encode() });
        for Write { place: (db, key), effects } in &writes {
            ours.select(*db);
            ours.amend(key, effects).expect("it was worked out under these locks");
            let name = if ours.contains(key) { "restore" } else { "del" };
            ours.notify(class::GENERIC, name, key);
        }
        engine.note_declared(revision);
        let turn = engine.branches.known.write().apply(revision, now_ms, ours.effects());
        turn.unwrap_or_else(|what| panic!("a record of our own does not fit: {what}"));
        let told = engine.tracking.changes(author.client, &ours);
        let finished = ours.finish();
        engine.settle_aside(&mut writing, &finished, told, into.id);
        let end = End::Merged { written: finished.written, counts };
        Ok(Some(Done { end, seen }))
    }

    /// What [`Job::finish`] would do with both branches as they were at the last
    /// look: nobody has to wait for what only counts.
    fn count<T>(&self, found: &Found, see: &dyn Fn(&Merge<'_>) -> T) -> Result<Done<T>> {
        let (engine, now_ms) = (self.engine, self.engine.clock.now_ms());
        engine.check_may_merge(&*self.branch(self.asked.into)?)?;
        self.branch(self.asked.from)?;
        let moment = |branch| Moment::new(branch, found.seen, now_ms);
        let moments = [self.asked.into, self.asked.from].map(moment);
        let (mut sum, mut values) = (Sum::new(found, now_ms), None);
        for (place, then) in &found.keys {
            let (db, key) = (place.0, &place.1[..]);
            let (of_db, [ours, theirs]) = values.get_or_insert_with(|| of_db(engine, moments, db));
            if *of_db != db {
                (*of_db, [*ours, *theirs]) = self::of_db(engine, moments, db);
            }
            let sides = [ours.get(key)?, theirs.get(key)?];
            let sides = sides.each_ref().map(|then| there(then, now_ms));
            self.add(&mut sum, found, (place, then), sides, see)?;
        }
        if !found.commons.still_hold(engine) {
            return Err(Error::new("TRYAGAIN the branches were merged or made anew meanwhile"));
        }
        self.check_bytes(&sum)?;
        let seen = Seen { upto: found.seen, holds_until: sum.holds_until };
        let end = match sum.undecided.is_empty() {
            true => End::Merged { written: None, counts: sum.counts },
            false => End::Undecided(sum.undecided),
        };
        Ok(Done { end, seen })
    }

    /// Merges a key that is so on our side and on theirs.
    fn add<T>(
        &self,
        sum: &mut Sum<T>,
        found: &Found,
        (place, then): (&Place, &Then),
        [was, is]: [Option<Version<'_>>; 2],
        see: &dyn Fn(&Merge<'_>) -> T,
    ) -> Result {
        let base = there(then, sum.now_ms);
        let due = [base, was, is].into_iter().flatten().filter_map(|version| version.deadline);
        sum.holds_until = due.fold(sum.holds_until, u64::min);
        let [our_counts, their_counts] = found.counts_of(place);
        let our_side = Side { version: was, counted: &our_counts };
        let their_side = Side { version: is, counted: &their_counts };
        let merged = merge(base, our_side, their_side);
        let Some(choices) = self.choices(place, &merged) else {
            let (place, digest) = (place.clone(), merged.digest());
            sum.undecided.push(Undecided { place, digest, seen: see(&merged) });
            return Ok(());
        };
        let effects =
            merged.effects(&choices).map_err(|error| Error::new(format!("ERR {error}")))?;
        sum.is_something |= difference(base, is).is_some();
        let both = difference(base, was).is_some() && difference(base, is).is_some();
        sum.counts.auto_merged +=
            u64::from(both && choices.is_empty() && difference(was, is).is_some());
        if effects.is_empty() {
            if difference(was, is).is_some() {
                sum.kept.push(place.clone());
            }
            return Ok(());
        }
        match Effects::new(&effects).next() {
            Some(Ok(Effect::Delete(_))) => sum.counts.removed += 1,
            _ if was.is_none() => sum.counts.added += 1,
            _ => sum.counts.changed += 1,
        }
        sum.bytes += effects.len() + place.1.len();
        // Who only counts does not need them.
        if self.author.is_some() {
            sum.writes.push(Write { place: place.clone(), effects });
        }
        Ok(())
    }

    fn check_bytes<T>(&self, sum: &Sum<T>) -> Result {
        let max = self.engine.revision_bytes_max();
        if sum.bytes <= max {
            return Ok(());
        }
        Err(Error::new(format!(
            "ERR what changed exceeds {max} bytes, the most that one revision takes with this memory; merge by parts \
             with MATCH"
        )))
    }

    /// What becomes of a key's conflicts; `None` when nobody has said.
    fn choices<'c>(&'c self, (db, key): &Place, merged: &Merge<'_>) -> Option<Vec<Choice<'c>>> {
        let count = merged.conflicts().len();
        if count == 0 {
            return Some(Vec::new());
        }
        let is_it = |it: &&Settled| it.db == *db && it.key == *key && it.digest == merged.digest();
        let settled = self.asked.settled.iter().find(is_it);
        let choice = match (settled.map(|it| &it.verdict), self.asked.policy) {
            (Some(Verdict::Ours), _) | (None, Policy::Ours) => Choice::Ours,
            (Some(Verdict::Theirs), _) | (None, Policy::Theirs) => Choice::Theirs,
            (Some(Verdict::Value(value)), _) => Choice::Value(value),
            (None, Policy::Fail | Policy::Manual) => return None,
        };
        Some(vec![choice; count])
    }
}

/// The error for two branches, or a key that was merged by itself, of which
/// nobody knows any more what both had.
fn none_in_common(key: Option<&[u8]>) -> Error {
    let named = key.map(|key| key[..key.len().min(NAMED_BYTES_MAX)].escape_ascii());
    let (of, next) = match named {
        Some(name) => (format!(" of the key '{name}'"), "; MATCH merges others"),
        None => (String::new(), ""),
    };
    Error::new(format!(
        "NOBRANCH no state{of} that both have in common can be read: a branch between them was deleted or made \
         anew{next}"
    ))
}

/// With all keys in memory that are looked at.
fn filled<'t>(mut txn: Txn<'t>, found: &Found) -> Result<Txn<'t>> {
    found.keys.keys().for_each(|(db, key)| txn.load_in(*db, key));
    txn.check_backing()?;
    Ok(txn)
}

/// What both branches hold in a database.
fn of_db(engine: &Arc<Engine>, moments: [Moment; 2], db: DbIndex) -> (DbIndex, [Values<'_>; 2]) {
    (db, moments.map(|moment| Values::new(engine, moment, db, None)))
}

/// What is due by now is no version on any side.
fn there(then: &Then, now_ms: u64) -> Option<Version<'_>> {
    let (value, deadline) = then.as_ref()?;
    let is_there = deadline.is_none_or(|at| at > now_ms);
    is_there.then(|| Version { value: value.as_ref(), deadline: *deadline })
}

fn version<'v>(txn: &'v Txn<'_>, key: &[u8]) -> Option<Version<'v>> {
    let value = txn.look(key)?;
    Some(Version { value, deadline: txn.deadline(key).flatten() })
}

impl Found {
    /// A state in common, which is opened once.
    fn state(&mut self, engine: &Engine, common: &Common) -> &mut Kept {
        self.states.entry(common.at).or_insert_with(|| engine.common_state(common))
    }

    /// What ours, and theirs, have only counted of a key.
    fn counts_of(&self, place: &Place) -> [Counted; 2] {
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

impl Engine {
    /// Whether a branch takes merges.
    fn check_may_merge(&self, into: &super::LiveBranch) -> Result {
        let known = self.branches.known.read();
        let Some(row) = known.get(into.id) else { return Ok(()) };
        if row.is_readonly {
            return Err(super::read_only(&row.name));
        }
        super::check_quota(row, &into.keyspace)
    }
}

/// An open merge as it was asked for.
impl From<&OpenMerge> for Asked {
    fn from(open: &OpenMerge) -> Asked {
        Asked {
            from: open.from,
            into: open.into,
            pattern: open.pattern.clone(),
            policy: Policy::Manual,
            settled: open.settled.clone(),
            ends: open.id,
        }
    }
}
