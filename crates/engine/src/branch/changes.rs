//! What has happened to a branch, record by record of all that it contains.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use base::{BranchId, DbIndex, Revision};
use command::{Error, Result};
use keyspace::Merged;
use keyspace::effect::{Effect, Effects};
use keyspace::merge::Counted;
use log::{Record, RecordHeader};

use super::common::{Life, Place, life};
use super::line::Reach;
use crate::engine::Engine;
use crate::history::events;
use crate::past::PastError;

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Changes(BTreeMap<Life, Happened>);

/// What happened to one life of a branch.
#[derive(Debug, Default)]
struct Happened {
    /// The keys that effects name, with what was only counted.
    keys: BTreeMap<Place, Counted>,
    /// The same, of the changes that came late.
    late: BTreeMap<Place, Counted>,
    /// Of these, those with something that the other side may lack.
    news: BTreeSet<Place>,
    /// Databases that were emptied or exchanged.
    whole: BTreeSet<DbIndex>,
    /// Not all keys are there by merges.
    has_own: bool,
}

impl Changes {
    /// Whether any key was changed by others than merges, which take over what
    /// is counted where it comes from.
    pub(super) fn has_own(&self) -> bool {
        self.0.values().any(|happened| happened.has_own)
    }

    /// The keys that effects name.
    pub(super) fn places(&self) -> BTreeSet<&Place> {
        self.0.values().flat_map(|happened| happened.keys.keys()).collect()
    }

    /// Whether effects name a key.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.0.values().any(|happened| happened.keys.contains_key(place))
    }

    /// Whether something happened to a key that the other side may lack.
    pub(super) fn has_news(&self, place: &Place) -> bool {
        self.0.values().any(|happened| happened.news.contains(place))
    }

    /// What was only counted of a key: of all that happened to it, or of what
    /// came late.
    pub(super) fn counted(&self, place: &Place) -> Counted {
        let mut sums = [Counted::default(), Counted::default()];
        for happened in self.0.values() {
            for (sum, keys) in sums.iter_mut().zip([&happened.keys, &happened.late]) {
                keys.get(place).into_iter().for_each(|counted| sum.join(counted));
            }
        }
        let [all, late] = sums;
        all.or(&late)
    }

    /// Whether something of a key was only counted.
    pub(super) fn is_counter(&self, place: &Place) -> bool {
        let counted = self.counted(place);
        counted.string() || counted.has_fields()
    }

    /// Keys of which something was only counted.
    pub(super) fn counters(&self) -> BTreeSet<Place> {
        let places = self.places().into_iter();
        places.filter(|place| self.is_counter(place)).cloned().collect()
    }

    /// Databases that were emptied or exchanged.
    pub(super) fn whole(&self) -> BTreeSet<DbIndex> {
        self.0.values().flat_map(|happened| happened.whole.iter().copied()).collect()
    }
}

/// What is asked about a change of a key, or of a whole database, which is named
/// by its branch and revision.
pub(super) trait Lens {
    /// Whether it counts.
    fn counts(&self, key: Option<&[u8]>, branch: BranchId, revision: Revision) -> bool;
    /// Whether it came late.
    fn is_late(&self, key: Option<&[u8]>, branch: BranchId, revision: Revision) -> bool;
    /// Whether the other side may lack it.
    fn is_news(&self, key: &[u8], branch: BranchId, revision: Revision) -> bool;
    /// Whether all that was taken of a key is looked at where it comes from.
    fn sees_all(&self, key: &[u8]) -> bool;
}

/// Every change counts, and there is no other side.
pub(super) struct Everything;

impl Lens for Everything {
    fn counts(&self, _: Option<&[u8]>, _: BranchId, _: Revision) -> bool {
        true
    }
    fn is_late(&self, _: Option<&[u8]>, _: BranchId, _: Revision) -> bool {
        false
    }
    fn is_news(&self, _: &[u8], _: BranchId, _: Revision) -> bool {
        false
    }
    fn sees_all(&self, _: &[u8]) -> bool {
        true
    }
}

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Search<'s> {
    pub(super) engine: &'s Engine,
    /// Where: in these parts of branches, each from where that life of it began.
    pub(super) parts: &'s [Reach],
    pub(super) lens: &'s dyn Lens,
    /// Which keys.
    pub(super) wanted: &'s dyn Fn(DbIndex, &[u8]) -> bool,
}

impl Search<'_> {
    /// Adds what happened after a revision, up to another. Answers false, and
    /// may have added a part, where the history does not reach so far back.
    pub(super) fn run(
        &self,
        after: Revision,
        upto: Revision,
        changes: &mut Changes,
    ) -> Result<bool> {
        let Some(past) = self.engine.past() else { return Ok(false) };
        if past.oldest() > after {
            return Ok(false);
        }
        for part in self.parts {
            let Some(Reach { branch, after, upto }) = part.between(after, upto) else { continue };
            let happened = changes.0.entry(life(part)).or_default();
            let mut failure = None;
            // What others did meanwhile is not read.
            let visited = past.of_branch(branch, after, upto, &mut |record| {
                if !part.begins_with(record.revision) {
                    failure = self.note_record(&record, None, happened).err();
                }
                if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            match (visited, failure) {
                (_, Some(failure)) => return Err(failure),
                // It was let go of meanwhile.
                (Err(PastError::Compacted { .. }), None) => return Ok(false),
                (visited, None) => visited.map_err(Error::from)?,
            }
        }
        Ok(true)
    }

    /// As [`Search::run`], of these keys alone: each costs what was done to it.
    pub(super) fn run_of_keys(
        &self,
        keys: &BTreeSet<Place>,
        after: Revision,
        upto: Revision,
        changes: &mut Changes,
    ) -> Result<bool> {
        let Some(past) = self.engine.past().filter(|past| past.oldest() <= after) else {
            return Ok(false);
        };
        for part in self.parts {
            let Some(Reach { branch, after, upto }) = part.between(after, upto) else { continue };
            let happened = changes.0.entry(life(part)).or_default();
            for place @ (db, key) in keys {
                let mut records: Vec<(Revision, RecordHeader, Vec<u8>)> = Vec::new();
                let visited = past.of_key(branch, *db, key, after, upto, &mut |record| {
                    if !part.begins_with(record.revision) {
                        records.push((record.revision, record.header, record.effects.to_vec()));
                    }
                    ControlFlow::Continue(())
                });
                match visited {
                    Err(PastError::Compacted { .. }) => return Ok(false),
                    visited => visited?,
                }
                for (revision, header, effects) in records.iter().rev() {
                    let (revision, header) = (*revision, *header);
                    let record = Record { revision, header, effects };
                    self.note_record(&record, Some(place), happened)?;
                }
            }
        }
        Ok(true)
    }

    /// Notes what a record did, to one key alone or to all.
    fn note_record(
        &self,
        record: &Record<'_>,
        only: Option<&Place>,
        happened: &mut Happened,
    ) -> Result {
        let at = (record.header.branch, record.revision);
        let merged = merged_by(record.effects);
        events::read(record, &mut |touch| {
            if only.is_none_or(|(db, key)| touch.is_about(*db, key)) {
                self.note(at, &touch, merged.is_some(), happened);
            }
            Ok(())
        })?;
        for place in merged.into_iter().flat_map(|merged| merged.kept) {
            let (db, key) = (place.0, &place.1[..]);
            if only.is_none_or(|only| *only == place)
                && (self.wanted)(db, key)
                && self.lens.counts(Some(key), at.0, at.1)
            {
                happened.keys.entry(place).or_default();
            }
        }
        Ok(())
    }

    fn note(
        &self,
        (branch, at): (BranchId, Revision),
        touch: &events::Touch<'_>,
        is_merge: bool,
        happened: &mut Happened,
    ) {
        let is_wanted = touch.key.is_none_or(|key| (self.wanted)(touch.db, key));
        if !is_wanted || !self.lens.counts(touch.key, branch, at) {
            return;
        }
        let is_late = self.lens.is_late(touch.key, branch, at);
        let Happened { keys, late, news, whole, has_own } = happened;
        let Some(key) = touch.key else {
            whole.insert(touch.db);
            let all = keys.iter_mut().chain(late.iter_mut().filter(|_| is_late));
            all.filter(|((db, _), _)| *db == touch.db).for_each(|(_, counted)| counted.rewrite());
            return;
        };
        *has_own |= !is_merge;
        // What a merge took is news where it comes from.
        if !is_merge && self.lens.is_news(key, branch, at) {
            news.insert((touch.db, key.to_vec()));
        }
        let was_emptied = whole.contains(&touch.db);
        let note = |keys: &mut BTreeMap<Place, Counted>| {
            let counted = keys.entry((touch.db, key.to_vec())).or_insert_with(|| {
                let mut counted = Counted::default();
                if was_emptied {
                    counted.rewrite();
                }
                counted
            });
            match touch.what {
                events::What::MovedHere => counted.rewrite(),
                _ if is_merge && self.lens.sees_all(key) => counted.note_merged(&touch.effect),
                _ if is_merge => counted.note_taken(&touch.effect),
                _ => counted.note(&touch.effect),
            }
        };
        note(keys);
        if is_late {
            note(late);
        }
    }
}

/// The merge whose record it is, if it is one's.
fn merged_by(effects: &[u8]) -> Option<Merged> {
    let row = Effects::new(effects).take(2).find_map(|effect| match effect {
        Ok(Effect::Merged { row }) => Some(row),
        _ => None,
    })?;
    Merged::decode(row).ok()
}
