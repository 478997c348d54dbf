//! BRANCH MERGE: one branch takes what another has changed since both were the
//! same.
//!
//! Which keys these are is looked up in the log, what they were in the archive,
//! and what is to become of each is worked out a key at a time, beside all
//! writers. What they change meanwhile the log tells too: these keys are worked
//! out anew, until few are left. Then writers are held up for a last look, both
//! branches are locked, and all is written by one transaction, if nothing has
//! changed since: so it is what both were at one revision. Where the history does
//! not reach back to the common state, every key of it is compared, and nothing
//! is known to be a counter. Without a history, all is worked out with both
//! branches locked.

mod look;
mod outcome;

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, glob};
use command::{Error, Result};
use keyspace::effect::{Effect, Effects};
use keyspace::merge::{Choice, Merge, Side, Version, difference, merge};
use keyspace::{Buffers, Merged, OpenMerge, Scope, Txn, Verdict, class};

use super::common::{Place, Then};
use super::no_branch;
use super::values::{Values, present};
use crate::engine::Engine;
use crate::history::Hold;
use crate::history::many::LOOKS_MAX;
use crate::history::revert::Author;
use crate::travel::Moment;
use look::Found;
use outcome::{Outcome, Step, Sum, What};

/// The sides of [`Commons`].
const OURS: usize = 0;
const THEIRS: usize = 1;

/// Keys that are left to be compared with writers held up, about.
const FEW_KEYS: usize = 100;

/// Looks beside writers who keep changing much.
const LOOKS_BESIDE_MAX: usize = 8;

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
    /// The merge that waits, whose decisions count and which this ends.
    pub(super) waits: Option<Waits>,
}

/// A merge that waits, as it was when somebody looked.
#[derive(Clone, Debug)]
pub(super) struct Waits {
    pub(super) id: u64,
    /// The newest record about it, see [`OpenMerge::changed`].
    pub(super) changed: Revision,
    /// The key that is decided about now, whatever was decided before.
    pub(super) anew: Option<Place>,
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

/// Is shown each merge with conflicts that nobody has decided.
type See<'s, T> = dyn Fn(&Merge<'_>) -> T + 's;

/// A merge at work.
pub(super) struct Job<'j> {
    pub(super) engine: &'j Arc<Engine>,
    pub(super) asked: &'j Asked,
    /// In whose name it writes; `None`: it only counts.
    pub(super) author: Option<&'j Author>,
    /// The keys alone that are looked at, each by itself; `None`: all.
    pub(super) only: Option<&'j BTreeSet<Place>>,
}

impl Job<'_> {
    /// Merges, or finds out what nobody has decided; `see` is shown each merge
    /// with such conflicts.
    pub(super) fn run<T>(&self, see: &See<'_, T>) -> Result<Done<T>> {
        let engine = self.engine;
        if self.asked.into == self.asked.from {
            return Err(Error::new("ERR a branch cannot be merged with itself"));
        }
        let commons =
            engine.commons(self.asked.into, self.asked.from).ok_or_else(|| none_in_common(None))?;
        let mut found = Found::new(commons);
        // The long look, beside all writers.
        self.look(&mut found)?;
        // What the history has of a moment can be read without stopping anybody.
        let has_past = engine.past().is_some();
        if self.author.is_none() && has_past {
            return self.count(found, see);
        }
        // Without it nobody knows afterwards what has changed since.
        if has_past {
            for _ in 0..LOOKS_BESIDE_MAX {
                self.compare_beside(&mut found, see)?;
                self.look_again(&mut found)?;
                if found.open.len() <= FEW_KEYS {
                    break;
                }
            }
        }
        let mut hold = Some(engine.writers_held.hold());
        for _ in 0..LOOKS_MAX {
            self.look_again(&mut found)?;
            if has_past {
                self.compare_beside(&mut found, see)?;
            }
            if let Some(done) = self.finish(&mut found, &mut hold, see)? {
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

    fn branch(&self, id: BranchId) -> Result<super::Held<'_>> {
        self.engine.branch(id).ok_or_else(|| no_branch(&self.engine.branch_name(id)))
    }

    /// Works out what comes of the keys that are open, as they are now. What is
    /// written meanwhile the next look tells, and opens them again.
    fn compare_beside<T>(&self, found: &mut Found<T>, see: &See<'_, T>) -> Result {
        let engine = self.engine;
        let now_ms = found.now_ms(engine);
        found.open_due(now_ms);
        let (into, from) = (self.branch(self.asked.into)?, self.branch(self.asked.from)?);
        for place in std::mem::take(&mut found.open) {
            let ours = present(engine, &into.keyspace, &place)?;
            let theirs = present(engine, &from.keyspace, &place)?;
            let sides = [&ours, &theirs].map(|then| there(then, now_ms));
            self.compare(found, &place, sides, now_ms, see)?;
        }
        Ok(())
    }

    /// Merges with both branches locked, and lets go of the hold as soon as they
    /// are; `None`, and nothing is done, when something has happened since the
    /// last look.
    fn finish<T>(
        &self,
        found: &mut Found<T>,
        hold: &mut Option<Hold<'_>>,
        see: &See<'_, T>,
    ) -> Result<Option<Done<T>>> {
        let engine = self.engine;
        let _turn = engine.branches.turn.lock();
        if !found.commons.still_hold(engine) {
            return Err(Error::new("TRYAGAIN the branches were merged or made anew meanwhile"));
        }
        let (from, into) = (self.branch(self.asked.from)?, self.branch(self.asked.into)?);
        engine.check_may_merge(&into)?;
        let (live, now_ms) = (engine.live(), found.now_ms(engine));
        found.open_due(now_ms);
        let options = engine.txn_options(&live, now_ms, false);
        let (mut reading, mut writing) = (Buffers::default(), Buffers::default());
        let all = &Scope::All;
        // What is compared or written is to be in memory. Filling a branch locks
        // its ancestors', whose numbers are below its own: so the greater one is
        // locked, and filled, first.
        let (looked_at, written) =
            (|| found.open.iter(), || found.writes().map(|(place, _)| place));
        let (mut theirs, mut ours);
        if from.id > into.id {
            let journal = engine.journal_of(&from);
            theirs = Txn::begin(&from.keyspace, all, journal, &mut reading, options);
            theirs = filled(theirs, looked_at())?;
            let journal = engine.journal_of(&into);
            ours = Txn::begin(&into.keyspace, all, journal, &mut writing, options);
            ours = filled(ours, looked_at().chain(written()))?;
        } else {
            let journal = engine.journal_of(&into);
            ours = Txn::begin(&into.keyspace, all, journal, &mut writing, options);
            ours = filled(ours, looked_at().chain(written()))?;
            let journal = engine.journal_of(&from);
            theirs = Txn::begin(&from.keyspace, all, journal, &mut reading, options);
            theirs = filled(theirs, looked_at())?;
        }
        if engine.replicator.newest() != found.seen {
            return Ok(None);
        }
        // Who writes on these two would wait for a lock anyway.
        *hold = None;
        for place in std::mem::take(&mut found.open) {
            ours.select(place.0);
            theirs.select(place.0);
            let sides = [version(&ours, &place.1), version(&theirs, &place.1)];
            self.compare(found, &place, sides, now_ms, see)?;
        }
        let sum = self.sum(found)?;
        let seen = found.seen();
        if sum.is_undecided {
            return Ok(Some(Done { end: End::Undecided(found.take_undecided()), seen }));
        }
        let counts = sum.counts;
        if let Some(waits) = &self.asked.waits {
            waits.check(engine)?;
        }
        let ends = self.asked.waits.as_ref().map_or(0, |waits| waits.id);
        let Some(author) = self.author.filter(|_| sum.is_something || ends > 0) else {
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
            ends,
            kept: found.kept(),
        };
        let revision = ours.declare(&Effect::Merged { row: &merged.encode() });
        // What is written there from here on is no part of this.
        theirs.finish();
        for ((db, key), effects) in found.writes() {
            ours.select(*db);
            ours.amend(key, effects).expect("it was worked out for what stands there");
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
    fn count<T>(&self, mut found: Found<T>, see: &See<'_, T>) -> Result<Done<T>> {
        let (engine, now_ms) = (self.engine, self.engine.clock.now_ms());
        engine.check_may_merge(&*self.branch(self.asked.into)?)?;
        self.branch(self.asked.from)?;
        let moment = |branch| Moment::new(branch, found.seen, now_ms);
        let moments = [self.asked.into, self.asked.from].map(moment);
        let mut values = None;
        for place in std::mem::take(&mut found.open) {
            let (db, key) = (place.0, &place.1[..]);
            let (of_db, [ours, theirs]) = values.get_or_insert_with(|| of_db(engine, moments, db));
            if *of_db != db {
                (*of_db, [*ours, *theirs]) = self::of_db(engine, moments, db);
            }
            let sides = [ours.get(key)?, theirs.get(key)?];
            let sides = sides.each_ref().map(|then| there(then, now_ms));
            self.compare(&mut found, &place, sides, now_ms, see)?;
        }
        if !found.commons.still_hold(engine) {
            return Err(Error::new("TRYAGAIN the branches were merged or made anew meanwhile"));
        }
        let (sum, seen) = (self.sum(&found)?, found.seen());
        let end = match sum.is_undecided {
            true => End::Undecided(found.take_undecided()),
            false => End::Merged { written: None, counts: sum.counts },
        };
        Ok(Done { end, seen })
    }

    /// Works out what comes of a key that is so on our side and on theirs.
    fn compare<T>(
        &self,
        found: &mut Found<T>,
        place: &Place,
        [was, is]: [Option<Version<'_>>; 2],
        now_ms: u64,
        see: &See<'_, T>,
    ) -> Result {
        let base = there(&found.keys[place].then, now_ms);
        let due = [base, was, is].into_iter().flatten().filter_map(|version| version.deadline);
        let holds_until = due.min().unwrap_or(u64::MAX);
        let [our_counts, their_counts] = found.counts_of(place);
        let our_side = Side { version: was, counted: &our_counts };
        let their_side = Side { version: is, counted: &their_counts };
        let merged = merge(base, our_side, their_side);
        let (theirs_changed, differ) =
            (difference(base, is).is_some(), difference(was, is).is_some());
        let count = merged.conflicts().len();
        let decided = (count > 0).then(|| self.decided(place, merged.digest())).flatten();
        let choices = match (count, self.choice(decided.as_ref())) {
            (0, _) => Some(Vec::new()),
            (_, choice) => choice.map(|choice| vec![choice; count]),
        };
        let outcome = match choices {
            None => {
                let step = Step::Undecided { digest: merged.digest(), seen: see(&merged) };
                Outcome { holds_until, is_something: false, is_auto_merged: false, step }
            }
            Some(choices) => Outcome {
                holds_until,
                is_something: theirs_changed,
                is_auto_merged: theirs_changed
                    && differ
                    && choices.is_empty()
                    && difference(base, was).is_some(),
                step: self.step(place, &merged, &choices, [was.is_some(), differ])?,
            },
        };
        found.settle(place, outcome);
        Ok(())
    }

    /// What becomes of a key by these choices.
    fn step<T>(
        &self,
        place: &Place,
        merged: &Merge<'_>,
        choices: &[Choice<'_>],
        [was_there, differ]: [bool; 2],
    ) -> Result<Step<T>> {
        let effects =
            merged.effects(choices).map_err(|error| Error::new(format!("ERR {error}")))?;
        if effects.is_empty() {
            return Ok(if differ { Step::Kept } else { Step::Nothing });
        }
        let what = match Effects::new(&effects).next() {
            Some(Ok(Effect::Delete(_))) => What::Remove,
            _ if was_there => What::Change,
            _ => What::Add,
        };
        let bytes = effects.len() + place.1.len();
        // Who only counts does not need them.
        let effects = if self.author.is_some() { effects } else { Vec::new() };
        Ok(Step::Write { what, effects, bytes })
    }

    /// What comes of all keys, if one revision takes it.
    fn sum<T>(&self, found: &Found<T>) -> Result<Sum> {
        let (sum, max) = (found.sum(), self.engine.revision_bytes_max());
        if sum.bytes <= max {
            return Ok(sum);
        }
        Err(Error::new(format!(
            "ERR what changed exceeds {max} bytes, the most that one revision takes with this memory; merge by parts \
             with MATCH"
        )))
    }

    /// What was decided about a key and this conflict of it.
    fn decided(&self, place: &Place, digest: u64) -> Option<Verdict> {
        let waits = self.asked.waits.as_ref()?;
        if waits.anew.as_ref() == Some(place) {
            return None;
        }
        let known = self.engine.branches.known.read();
        let settled = known.open_merges().get(&waits.id)?.settled.get(place)?;
        (settled.digest == digest).then(|| settled.verdict.clone())
    }

    /// What becomes of conflicts; `None` when nobody has said.
    fn choice<'v>(&self, decided: Option<&'v Verdict>) -> Option<Choice<'v>> {
        match (decided, self.asked.policy) {
            (Some(Verdict::Ours), _) | (None, Policy::Ours) => Some(Choice::Ours),
            (Some(Verdict::Theirs), _) | (None, Policy::Theirs) => Some(Choice::Theirs),
            (Some(Verdict::Value(value)), _) => Some(Choice::Value(value)),
            (None, Policy::Fail | Policy::Manual) => None,
        }
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

/// With these keys in memory.
fn filled<'t, 'p>(mut txn: Txn<'t>, places: impl Iterator<Item = &'p Place>) -> Result<Txn<'t>> {
    if txn.is_backed() {
        places.for_each(|(db, key)| txn.load_in(*db, key));
        txn.check_backing()?;
    }
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
            waits: Some(Waits { id: open.id, changed: open.changed, anew: None }),
        }
    }
}

impl Waits {
    /// Whether the merge is as it was.
    ///
    /// # Errors
    /// When somebody has decided something meanwhile, or it has ended.
    pub(super) fn check(&self, engine: &Engine) -> Result {
        let known = engine.branches.known.read();
        match known.open_merges().get(&self.id) {
            Some(open) if open.changed == self.changed => Ok(()),
            _ => Err(Error::new("TRYAGAIN the merge was decided about or ended meanwhile")),
        }
    }

    /// Whether somebody has decided about a key.
    pub(super) fn has_decided(&self, engine: &Engine, place: &Place) -> bool {
        let known = engine.branches.known.read();
        known.open_merges().get(&self.id).is_some_and(|open| open.settled.contains_key(place))
    }
}
