//! What two branches have in common, and what one has changed since.
//!
//! Two lines of revisions part where one branch was made, and meet again where
//! one took what the other had. The last such state is what a merge compares
//! both with. A merge of some keys only is one for these keys.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, glob};
use command::{Error, Result};
use keyspace::merge::Counted;
use keyspace::{Branches, Keyspace, Value};

use super::line::Line;
use crate::engine::Engine;
use crate::history::events;
use crate::past::PastError;

/// A state that two lines have in common; one that the archive keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Common {
    /// Which keys alone, as a glob; `None`: all.
    pattern: Option<Vec<u8>>,
    /// The state: of this branch as of that revision.
    state: (BranchId, Revision),
    /// What comes after this on either line is not in it.
    pub(super) after: Revision,
}

/// A key of a database.
pub(super) type Place = (DbIndex, Vec<u8>);

/// A value with its deadline.
pub(super) type Then = Option<(Value, Option<u64>)>;

/// Where two lines parted; `None` when they are of one branch.
pub(super) fn fork_of(a: &Line, b: &Line) -> Option<Common> {
    let find = |line: &Line, branch| line.reaches().iter().position(|reach| reach.branch == branch);
    let (at_a, at_b) =
        a.reaches().iter().enumerate().find_map(|(at, it)| Some((at, find(b, it.branch)?)))?;
    let (upto_a, upto_b) = (a.reaches()[at_a].upto, b.reaches()[at_b].upto);
    // The branch that was made there begins with that state.
    let (line, at) = if upto_a <= upto_b { (a, at_a) } else { (b, at_b) };
    let made = line.reaches().get(at.checked_sub(1)?)?;
    let state = (made.branch, made.after.next());
    Some(Common { pattern: None, state, after: upto_a.min(upto_b) })
}

/// All states that two lines have in common and that matter, newest first. The
/// last one is of all keys.
pub(super) fn commons(known: &Branches, a: &Line, b: &Line) -> Option<Vec<Common>> {
    let mut found = Vec::new();
    for merged in known.merged().iter().rev() {
        let at = merged.revision;
        let is_on = |x: &Line, y: &Line| x.passes(merged.from, at) && y.passes(merged.into, at);
        if is_on(a, b) || is_on(b, a) {
            let pattern = merged.pattern.clone();
            let is_whole = pattern.is_none();
            found.push(Common { pattern, state: (merged.from, at), after: at });
            if is_whole {
                return Some(found);
            }
        }
    }
    found.push(fork_of(a, b)?);
    Some(found)
}

/// The index of the state that a key is to be compared with.
pub(super) fn common_of(commons: &[Common], key: &[u8]) -> usize {
    let is_for =
        |common: &Common| common.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key));
    commons.iter().position(is_for).expect("the last is of all keys")
}

impl Engine {
    /// A state that two lines have in common. Waits for the archive to have it.
    pub(super) fn common_state(&self, common: &Common) -> Result<Arc<Keyspace>> {
        let (branch, revision) = common.state;
        self.needs_branching()?.state(branch, revision)
    }
}

/// What happened on a line.
#[derive(Default)]
pub(super) struct Changes {
    /// The keys that effects name, with what was only counted.
    pub(super) keys: BTreeMap<Place, Counted>,
    /// Databases that were emptied or exchanged.
    pub(super) whole: BTreeSet<DbIndex>,
}

/// What is looked for on a line.
pub(super) struct Search<'s> {
    pub(super) engine: &'s Engine,
    pub(super) line: &'s Line,
    /// The revision after which a key's changes count.
    pub(super) since: &'s dyn Fn(&[u8]) -> Revision,
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
        if upto <= after {
            return Ok(true);
        }
        let mut failure = None;
        let visited = past.all(after, upto, &mut |record| {
            let at = record.revision;
            if !self.line.goes_on(at, record.header) {
                return ControlFlow::Continue(());
            }
            let read = events::read(&record, &mut |touch| {
                self.note(at, &touch, changes);
                Ok(())
            });
            failure = read.err();
            if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match (visited, failure) {
            (_, Some(failure)) => Err(failure),
            // It was let go of meanwhile.
            (Err(PastError::Compacted { .. }), None) => Ok(false),
            (visited, None) => visited.map(|()| true).map_err(Error::from),
        }
    }

    fn note(&self, at: Revision, touch: &events::Touch<'_>, changes: &mut Changes) {
        let Some(key) = touch.key else {
            changes.whole.insert(touch.db);
            for ((_, _), counted) in changes.keys.iter_mut().filter(|((db, _), _)| *db == touch.db)
            {
                counted.rewrite();
            }
            return;
        };
        if at <= (self.since)(key) || !(self.wanted)(touch.db, key) {
            return;
        }
        let counted = changes.keys.entry((touch.db, key.to_vec())).or_default();
        match touch.what {
            events::What::MovedHere => counted.rewrite(),
            _ => counted.note(&touch.effect),
        }
    }
}

#[cfg(test)]
mod tests {
    use keyspace::Merged;
    use keyspace::effect::Effect;

    use super::super::line::Reach;
    use super::*;

    fn line(reaches: &[(u32, u64, u64)]) -> Line {
        Line::new(
            reaches
                .iter()
                .map(|&(branch, after, upto)| Reach {
                    branch: BranchId(branch),
                    after: Revision(after),
                    upto: Revision(upto),
                })
                .collect(),
        )
    }

    const NOW: u64 = u64::MAX;

    #[test]
    fn lines_part_where_a_branch_was_made() {
        let main = line(&[(0, 0, NOW)]);
        let dev = line(&[(1, 9, NOW), (0, 0, 10)]);
        // As of 5, made at 20.
        let old = line(&[(2, 19, NOW), (0, 0, 5)]);
        let child = line(&[(3, 29, NOW), (1, 9, 30), (0, 0, 10)]);
        let fork = |a, b| {
            fork_of(a, b).map(|common| {
                let ((branch, revision), after) = (common.state, common.after);
                (branch.0, revision.0, after.0)
            })
        };
        for (a, b, expected) in [
            (&main, &dev, Some((1, 10, 10))),
            (&main, &old, Some((2, 20, 5))),
            (&dev, &old, Some((2, 20, 5))),
            (&dev, &child, Some((3, 30, 30))),
            (&main, &child, Some((1, 10, 10))),
            (&old, &child, Some((2, 20, 5))),
            (&main, &main, None),
            (&child, &child, None),
        ] {
            assert_eq!(fork(a, b), expected);
            assert_eq!(fork(b, a), expected);
        }
    }

    #[test]
    fn merges_bring_lines_together() {
        let mut known = Branches::default();
        for id in 1..=2 {
            let branch = keyspace::Branch {
                id: BranchId(id),
                name: format!("b{id}").into_bytes(),
                parent: BranchId::MAIN,
                base: Revision(10),
                forked: Revision::ZERO,
                created_ms: 0,
                created_by: Vec::new(),
                deadline_ms: None,
                quota_bytes: 0,
                is_readonly: false,
                is_kept: false,
                is_merge_only: false,
            };
            let mut effects = Vec::new();
            Effect::Fork { row: &branch.encode(), state: None }.encode(&mut effects);
            known.apply(Revision(10), 0, &effects).expect("it fits");
        }
        let main = line(&[(0, 0, NOW)]);
        let [one, two] = [1, 2].map(|id| line(&[(id, 9, NOW), (0, 0, 10)]));
        let mut merge = |from: u32, into: u32, at: u64, pattern: Option<&str>| {
            let row = Merged {
                from: BranchId(from),
                into: BranchId(into),
                revision: Revision::ZERO,
                pattern: pattern.map(|pattern| pattern.as_bytes().to_vec()),
                ends: 0,
            };
            let mut effects = Vec::new();
            Effect::Merged { row: &row.encode() }.encode(&mut effects);
            known.apply(Revision(at), 0, &effects).expect("it fits");
            known.clone()
        };
        let after = |known: &Branches, a, b| -> Vec<u64> {
            let found = commons(known, a, b).expect("they are two");
            assert_eq!(commons(known, b, a), Some(found.clone()));
            found.iter().map(|common| common.after.0).collect()
        };
        let known = merge(1, 0, 20, None);
        assert_eq!(after(&known, &main, &one), [20]);
        assert_eq!(after(&known, &main, &two), [10]);
        let known = merge(1, 0, 30, Some("a*"));
        assert_eq!(after(&known, &main, &one), [30, 20]);
        let found = commons(&known, &main, &one).expect("they are two");
        assert_eq!((common_of(&found, b"ab"), common_of(&found, b"b")), (0, 1));
        // A branch made from main later has what main took.
        let later = line(&[(3, 49, NOW), (0, 0, 50)]);
        assert_eq!(after(&known, &later, &one), [30, 20]);
        let earlier = line(&[(3, 49, NOW), (0, 0, 25)]);
        assert_eq!(after(&known, &earlier, &one), [20]);
    }
}
