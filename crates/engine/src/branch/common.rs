//! What two branches have in common, and what one has beyond that.
//!
//! A branch *contains* its own line of revisions, and of every branch that it,
//! or one that it contains, has merged, that one's line up to then. A state that
//! both contain, and that contains all others which both do, is what a merge
//! compares both with. There may be none, where two branches took the same from
//! two others; then the newest serves, and nothing counts as a counter, since a
//! part of what both counted may be the same. A merge of some keys only is one
//! for these keys.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use base::{BranchId, DbIndex, Revision, glob};
use keyspace::{Branches, Merged};

use super::changes::Lens;
use super::line::{Line, Reach};
use super::values::{Keeper, Kept};
use crate::engine::Engine;
pub(super) use crate::travel::Then;

/// A key of a database.
pub(super) type Place = (DbIndex, Vec<u8>);

/// A branch from one of its beginnings on, which is after this revision.
pub(super) type Life = (BranchId, Revision);

/// Of each branch the newest of its states that is contained.
type Contents = BTreeMap<Life, Revision>;

/// A state that two branches have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Common {
    /// Of this branch as of that revision.
    state: (BranchId, Revision),
    /// Whether the archive keeps it, or the history has it still.
    keeper: Keeper,
    /// Its revision.
    pub(super) at: Revision,
    contents: Contents,
    /// What each of the two branches contains.
    sides: [Contents; 2],
    /// The revision from which on each had all of it, as far as that was one
    /// step: a merge of just this state, or where it began.
    since: [Option<Revision>; 2],
    /// It contains everything that both contain.
    pub(super) is_whole: bool,
    /// Whether all that each of the two contains is known.
    pub(super) is_sure: [bool; 2],
}

impl Common {
    /// Whether one of the two branches contains a record of a branch, and this
    /// does not.
    pub(super) fn lacks(&self, side: usize, branch: BranchId, revision: Revision) -> bool {
        has(&self.sides[side], branch, revision) && !has(&self.contents, branch, revision)
    }

    /// Whether a record of a branch came to one of the two on its own line, after
    /// that had all of this state.
    pub(super) fn is_late(
        &self,
        side: usize,
        line: &Line,
        branch: BranchId,
        revision: Revision,
    ) -> bool {
        let is_on_line = || {
            line.reaches().iter().any(|reach| {
                reach.branch == branch && reach.after < revision && revision <= reach.upto
            })
        };
        self.since[side].is_some_and(|since| revision > since) && is_on_line()
    }

    /// The revision after which one of the two has what this lacks.
    pub(super) fn upto(&self, side: usize) -> Revision {
        let lacking = self.sides[side].iter().filter_map(|(life, upto)| {
            let has = self.contents.get(life).copied().unwrap_or_default();
            (*upto > has).then_some(has.max(life.1))
        });
        lacking.min().unwrap_or(self.at)
    }
}

fn has(contents: &Contents, branch: BranchId, revision: Revision) -> bool {
    let lives = (branch, Revision::ZERO)..=(branch, Revision(u64::MAX));
    let has = |((_, after), upto): (&Life, &Revision)| *after < revision && revision <= *upto;
    contents.range(lives).any(has)
}

/// What two branches have in common, key by key.
pub(super) struct Commons {
    pub(super) known: Branches,
    pub(super) lines: [Line; 2],
    /// As far as the history reaches back.
    reaches_to: Option<Revision>,
    /// That of a key which was merged with all others only.
    oldest: Rc<Common>,
    /// By which merges of some keys only are about a key. Such a merge may be
    /// of a state that cannot be read any more, where the oldest can.
    found: RefCell<BTreeMap<Vec<bool>, Option<Rc<Common>>>>,
}

impl Commons {
    /// `None` when both are one, or no state that both have can be read.
    pub(super) fn new(
        known: Branches,
        lines: [Line; 2],
        reaches_to: Option<Revision>,
    ) -> Option<Commons> {
        let of_all = known.merged().iter().filter(|it| it.pattern.is_none());
        let merges: Vec<&Merged> = of_all.collect();
        let oldest = Rc::new(common(&known, &lines, &merges, reaches_to)?);
        Some(Commons { known, lines, reaches_to, oldest, found: RefCell::default() })
    }

    /// That of a key; `None` when it cannot be read any more.
    pub(super) fn of(&self, key: &[u8]) -> Option<Rc<Common>> {
        let is_about = |merged: &Merged| {
            merged.pattern.as_ref().is_some_and(|pattern| glob::matches(pattern, key))
        };
        let about: Vec<bool> = self.known.merged().iter().map(is_about).collect();
        if !about.contains(&true) {
            return Some(self.oldest.clone());
        }
        let mut found = self.found.borrow_mut();
        found.entry(about).or_insert_with_key(|about| self.find(about)).clone()
    }

    /// That of a key, or with none of a whole database.
    fn of_any(&self, key: Option<&[u8]>) -> Option<Rc<Common>> {
        key.map_or_else(|| Some(self.oldest.clone()), |key| self.of(key))
    }

    /// What one of the two has done that they have not in common.
    pub(super) fn side(&self, side: usize) -> OneSide<'_> {
        OneSide { commons: self, side }
    }

    /// That of a key which was merged with all others only: the oldest.
    pub(super) fn oldest(&self) -> Rc<Common> {
        self.oldest.clone()
    }

    /// Where the records are that one of the two contains, whatever is about a
    /// key.
    pub(super) fn parts(&self, side: usize) -> Vec<Reach> {
        let merges: Vec<&Merged> = self.known.merged().iter().collect();
        let (contents, _) = contents(&self.known, &self.lines[side], &merges);
        let reach = |((branch, after), upto)| Reach { branch, after, upto };
        contents.into_iter().map(reach).collect()
    }

    /// Whether nobody has merged, reset or deleted a branch since.
    pub(super) fn still_hold(&self, engine: &Engine) -> bool {
        let known = engine.branches.known.read();
        let ids = self.lines.each_ref().map(|line| line.reaches()[0].branch);
        known.merged() == self.known.merged() && ids.map(|id| Line::of(&known, id)) == self.lines
    }

    fn find(&self, about: &[bool]) -> Option<Rc<Common>> {
        let merges = self.known.merged().iter().zip(about);
        let counts = merges.filter(|(it, is_about)| it.pattern.is_none() || **is_about);
        let merges: Vec<&Merged> = counts.map(|(merged, _)| merged).collect();
        common(&self.known, &self.lines, &merges, self.reaches_to).map(Rc::new)
    }
}

/// See [`Commons::side`].
pub(super) struct OneSide<'c> {
    commons: &'c Commons,
    side: usize,
}

impl Lens for OneSide<'_> {
    /// See [`Common::lacks`]. Where nobody can say, it does.
    fn counts(&self, key: Option<&[u8]>, branch: BranchId, revision: Revision) -> bool {
        let common = self.commons.of_any(key);
        common.is_none_or(|common| common.lacks(self.side, branch, revision))
    }

    /// See [`Common::is_late`].
    fn is_late(&self, key: Option<&[u8]>, branch: BranchId, revision: Revision) -> bool {
        let line = &self.commons.lines[self.side];
        let common = self.commons.of_any(key);
        common.is_some_and(|common| common.is_late(self.side, line, branch, revision))
    }

    fn is_news(&self, key: &[u8], branch: BranchId, revision: Revision) -> bool {
        let common = self.commons.of(key);
        // Of a whole state nobody asks.
        common.is_some_and(|it| !it.is_whole && !has(&it.sides[1 - self.side], branch, revision))
    }

    fn sees_all(&self, key: &[u8]) -> bool {
        self.commons.of(key).is_none_or(|common| common.is_sure[self.side])
    }
}

pub(super) fn life(reach: &Reach) -> Life {
    (reach.branch, reach.after)
}

fn common(
    known: &Branches,
    lines: &[Line; 2],
    merges: &[&Merged],
    oldest: Option<Revision>,
) -> Option<Common> {
    let [(a, knows_a), (b, knows_b)] = [0, 1].map(|side| contents(known, &lines[side], merges));
    let both = |(life, upto): (&Life, &Revision)| b.get(life).map(|it| (*life, *upto.min(it)));
    let shared: Contents = a.iter().filter_map(both).collect();
    // The newest that can still be read.
    let states = shared.iter().filter_map(|(&(branch, _), &at)| {
        let kept = state_of(known, branch, at).map(|state| (state, Keeper::Archive));
        let in_history = || oldest.is_some_and(|oldest| oldest <= at);
        let state = kept.or_else(|| in_history().then_some(((branch, at), Keeper::History)));
        state.map(|state| (at, branch, state))
    });
    let (at, branch, (state, keeper)) = states.max_by_key(|(at, ..)| *at)?;
    let (contents, _) = contents(known, &Line::up_to(known, branch, at), merges);
    let has_all = shared.iter().all(|(life, at)| contents.get(life) >= Some(at));
    let is_sure = [knows_a, knows_b];
    let is_whole = has_all && knows_a && knows_b;
    let since = lines.each_ref().map(|line| {
        let has_it = |reach: &Reach| reach.branch == branch && reach.after < at && at <= reach.upto;
        let took_it = |it: &&&Merged| {
            (it.from, it.revision) == (branch, at)
                && line
                    .reaches()
                    .iter()
                    .any(|reach| reach.branch == it.into && reach.after < at && at <= reach.upto)
        };
        (line.reaches().iter().any(has_it) || merges.iter().any(|it| took_it(&it))).then_some(at)
    });
    Some(Common { state, keeper, at, contents, sides: [a, b], since, is_whole, is_sure })
}

/// What a line contains, and whether that is all: it may have begun between two
/// merges of which only the later one is known, and have something of that branch
/// that it has not merged since.
fn contents(known: &Branches, line: &Line, merges: &[&Merged]) -> (Contents, bool) {
    let (mut contents, mut later) = (Contents::new(), Vec::new());
    let mut lines = vec![line.clone()];
    while let Some(line) = lines.pop() {
        for reach in line.reaches() {
            let before = contents.get(&life(reach)).copied();
            if before >= Some(reach.upto) {
                continue;
            }
            contents.insert(life(reach), reach.upto);
            let its = merges
                .iter()
                .filter(|it| it.into == reach.branch && it.since <= reach.upto)
                .filter(|it| it.revision > reach.after);
            for merged in its {
                let taken = Line::up_to(known, merged.from, merged.revision);
                if merged.revision > reach.upto {
                    later.push(taken);
                } else if Some(merged.revision) > before {
                    lines.push(taken);
                }
            }
        }
    }
    let has = |reach: &Reach| contents.get(&life(reach)) >= Some(&reach.upto);
    let is_all = later.iter().all(|line| line.reaches().iter().all(has));
    (contents, is_all)
}

/// The state of the archive that is a branch's at a revision where others took
/// it or began with it.
fn state_of(known: &Branches, branch: BranchId, at: Revision) -> Option<(BranchId, Revision)> {
    let mut merged = known.merged().iter().filter(|_| known.is_there(branch, at));
    if merged.any(|merged| merged.from == branch && merged.revision == at) {
        return Some((branch, at));
    }
    // A branch that was made there begins with that state.
    let made = known.children(branch).find(|made| made.base == at)?;
    Some((made.id, made.forked))
}

impl Engine {
    /// What two branches have in common.
    pub(super) fn commons(&self, a: BranchId, b: BranchId) -> Option<Commons> {
        // What waits is nothing that they have, and is not copied for each decision.
        let known = self.branches.known.read().without_open_merges();
        let lines = [a, b].map(|branch| Line::of(&known, branch));
        Commons::new(known, lines, self.past().map(|past| past.oldest()))
    }

    /// The state of the archive that is a branch's at a revision, if others began
    /// with it or took it.
    pub(super) fn kept_state(
        &self,
        (branch, at): (BranchId, Revision),
    ) -> Option<(BranchId, Revision)> {
        state_of(&self.branches.known.read(), branch, at)
    }

    /// A state that two branches have in common.
    pub(super) fn common_state(&self, common: &Common) -> Kept {
        Kept::new(self, common.state, common.keeper)
    }
}

/// Up to which revision of which branch two lines are one; `None` when they
/// have nothing in common.
pub(super) fn parted(a: &Line, b: &Line) -> Option<(BranchId, Revision)> {
    let of_b = |of_a| b.reaches().iter().find(|reach| life(reach) == life(of_a));
    let (of_a, of_b) = a.reaches().iter().find_map(|it| Some((it, of_b(it)?)))?;
    Some((of_a.branch, of_a.upto.min(of_b.upto)))
}

#[cfg(test)]
mod tests {
    use keyspace::Branch;
    use keyspace::effect::Effect;

    use super::*;

    /// A log of forks and merges.
    #[derive(Default)]
    struct Log(Branches);

    impl Log {
        fn note(&mut self, at: u64, effect: &Effect<'_>) {
            let mut effects = Vec::new();
            effect.encode(&mut effects);
            self.0.apply(Revision(at), 0, &effects).expect("it fits");
        }

        fn fork(&mut self, at: u64, id: u32, parent: u32, base: u64) {
            let name = format!("b{id}");
            let branch = Branch {
                base: Revision(base),
                ..Branch::new(BranchId(id), name.as_bytes(), BranchId(parent))
            };
            self.note(at, &Effect::Fork { row: &branch.encode(), state: None });
        }

        fn merge(&mut self, at: u64, from: u32, into: u32, pattern: Option<&str>) {
            let row = Merged {
                from: BranchId(from),
                into: BranchId(into),
                revision: Revision::ZERO,
                since: Revision::ZERO,
                pattern: pattern.map(|pattern| pattern.as_bytes().to_vec()),
                ends: 0,
                kept: Vec::new(),
            };
            self.note(at, &Effect::Merged { row: &row.encode() });
        }

        fn common(&self, a: u32, b: u32, key: &str) -> (u32, u64, bool) {
            let of = |a, b| {
                let lines = [a, b].map(|id| Line::of(&self.0, BranchId(id)));
                let commons = Commons::new(self.0.clone(), lines, None).expect("they are two");
                commons.of(key.as_bytes()).expect("it is kept")
            };
            let (found, back) = (of(a, b), of(b, a));
            let mut turned = (*back).clone();
            turned.sides.reverse();
            turned.since.reverse();
            turned.is_sure.reverse();
            assert_eq!(*found, turned, "whichever way");
            (found.state.0.0, found.state.1.0, found.is_whole)
        }
    }

    #[test]
    fn branches_part_where_one_was_made() {
        let mut log = Log::default();
        log.fork(10, 1, 0, 10);
        log.fork(20, 2, 0, 5);
        log.fork(30, 3, 1, 30);
        for (a, b, expected) in [
            (0, 1, (1, 10)),
            (0, 2, (2, 20)),
            (1, 2, (2, 20)),
            (1, 3, (3, 30)),
            (0, 3, (1, 10)),
            (2, 3, (2, 20)),
        ] {
            assert_eq!(log.common(a, b, "k"), (expected.0, expected.1, true), "{a} {b}");
        }
        let line = Line::of(&log.0, BranchId::MAIN);
        assert!(Commons::new(log.0.clone(), [line.clone(), line], None).is_none());
    }

    #[test]
    fn merges_bring_branches_together() {
        let mut log = Log::default();
        (1..=4).for_each(|id| log.fork(10 + u64::from(id), id, 0, 10 + u64::from(id)));
        log.merge(20, 1, 2, None);
        assert_eq!(log.common(1, 2, "k"), (1, 20, true));
        // Through another one.
        log.merge(30, 2, 3, None);
        assert_eq!(log.common(1, 3, "k"), (1, 20, true));
        assert_eq!(log.common(2, 3, "k"), (2, 30, true));
        assert_eq!(log.common(1, 4, "k"), (1, 11, true));
        // What 3 has stays known when 2 takes more.
        log.merge(40, 1, 2, None);
        assert_eq!(log.common(1, 2, "k"), (1, 40, true));
        assert_eq!(log.common(1, 3, "k"), (1, 20, true));
        // Made from a branch that had merged.
        log.fork(50, 5, 2, 50);
        assert_eq!(log.common(1, 5, "k"), (1, 40, true));
        // Some keys only.
        log.merge(60, 4, 1, Some("a*"));
        assert_eq!(log.common(1, 4, "ab"), (4, 60, true));
        assert_eq!(log.common(1, 4, "b"), (1, 11, true));
    }

    #[test]
    fn two_that_took_the_same_from_two_others_have_no_whole_state_in_common() {
        let mut log = Log::default();
        (1..=4).for_each(|id| log.fork(10 + u64::from(id), id, 0, 10 + u64::from(id)));
        log.merge(21, 1, 3, None);
        log.merge(22, 2, 4, None);
        log.merge(23, 1, 4, None);
        log.merge(24, 2, 3, None);
        assert_eq!(log.common(3, 4, "k"), (2, 22, false));
    }

    #[test]
    fn who_began_between_two_merges_has_all_once_it_merged_what_they_took() {
        let mut log = Log::default();
        log.fork(10, 1, 0, 10);
        log.merge(20, 1, 0, None);
        log.merge(30, 1, 0, None);
        log.fork(40, 2, 0, 25);
        assert_eq!(log.common(0, 2, "k"), (2, 40, false));
        log.merge(50, 1, 2, None);
        assert_eq!(log.common(1, 2, "k"), (1, 50, true));
        // main has what it did from 25 to 30 besides.
        assert_eq!(log.common(0, 2, "k"), (1, 30, false));
        log.merge(60, 0, 2, None);
        assert_eq!(log.common(0, 2, "k"), (0, 60, true));
    }

    #[test]
    fn a_state_knows_what_a_line_has_beyond_it() {
        let mut log = Log::default();
        log.fork(10, 1, 0, 10);
        log.merge(20, 1, 0, None);
        let lines = [0, 1].map(|id| Line::of(&log.0, BranchId(id)));
        let commons = Commons::new(log.0.clone(), lines.clone(), None).expect("two");
        let common = commons.of(b"k").expect("it is kept");
        // What main did on its own since 10 is not in it, though main has it.
        assert!(common.lacks(0, BranchId::MAIN, Revision(11)));
        assert!(!common.lacks(0, BranchId::MAIN, Revision(10)));
        assert!(!common.lacks(0, BranchId(1), Revision(20)));
        assert!(!common.lacks(0, BranchId(1), Revision(21)), "nobody has merged that");
        assert!(common.lacks(1, BranchId(1), Revision(21)));
        assert_eq!([0, 1].map(|side| common.upto(side).0), [10, 20]);
        let late = |at| common.is_late(0, &lines[0], BranchId::MAIN, Revision(at));
        assert_eq!([11, 20, 21].map(late), [false, false, true]);
    }
}
