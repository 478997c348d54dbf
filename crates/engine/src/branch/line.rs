//! The line of revisions that a branch is made of: its own, before them its
//! parent's up to where it begins, and so on back to main's.

use base::{BranchId, Revision};
use keyspace::Branches;
use log::RecordHeader;

use crate::engine::Engine;
use crate::travel::Moment;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Line(Vec<Reach>);

/// The part of a line that is one branch's: the revisions after one, up to
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) branch: BranchId,
    pub(crate) after: Revision,
    pub(crate) upto: Revision,
}

impl Reach {
    /// The part of it after a revision, up to another.
    pub(crate) fn between(self, after: Revision, upto: Revision) -> Option<Reach> {
        let part = Reach { after: self.after.max(after), upto: self.upto.min(upto), ..self };
        (part.after < part.upto).then_some(part)
    }

    /// Whether a revision made the branch: what its record does was there before.
    pub(crate) fn begins_with(self, revision: Revision) -> bool {
        self.branch != BranchId::MAIN && self.after.next() == revision
    }
}

impl Engine {
    /// The line of a branch. That of one which was deleted is known while others
    /// come from it.
    pub(crate) fn line(&self, branch: BranchId) -> Line {
        Line::of(&self.branches.known.read(), branch)
    }

    /// The line that a moment is on.
    pub(crate) fn line_of(&self, moment: Moment) -> Line {
        Line::up_to(&self.branches.known.read(), moment.branch, moment.as_of)
    }

    /// Whether the branch whose line it was is there, and has not begun anew since.
    pub(crate) fn is_still(&self, line: &Line) -> bool {
        let (branch, known) = (line.branch(), self.branches.known.read());
        let is_there = known.get(branch).is_some_and(|row| !row.is_deleted());
        branch == BranchId::MAIN || is_there && Line::of(&known, branch).made() == line.made()
    }
}

impl Line {
    /// See [`Engine::line`].
    pub(crate) fn of(known: &Branches, branch: BranchId) -> Line {
        Line::up_to(known, branch, Revision(u64::MAX))
    }

    /// That of a branch as it was at a revision, which may have gone or begun
    /// anew since.
    pub(crate) fn up_to(known: &Branches, branch: BranchId, upto: Revision) -> Line {
        let mut reaches = Vec::new();
        let (mut branch, mut upto) = (branch, upto);
        while let Some(row) = known.lineage(branch, upto) {
            let after = Revision(row.forked.0.saturating_sub(1));
            reaches.push(Reach { branch, after, upto });
            (branch, upto) = (row.parent, row.base);
        }
        reaches.push(Reach { branch, after: Revision::ZERO, upto });
        Line(reaches)
    }
}

impl Line {
    /// The parts of it, newest first.
    pub(crate) fn reaches(&self) -> &[Reach] {
        &self.0
    }

    /// As [`Line::has`], but for the records that made its branches: what these
    /// do was there before.
    pub(crate) fn goes_on(&self, revision: Revision, header: RecordHeader) -> bool {
        let made = |reach: &Reach| reach.branch == header.branch && reach.begins_with(revision);
        self.has(revision, header) && !self.0.iter().any(made)
    }

    /// Whose it is.
    pub(crate) fn branch(&self) -> BranchId {
        self.0.first().expect("a line has an end").branch
    }

    /// The revision that made it; zero for main's.
    pub(crate) fn made(&self) -> Revision {
        match self.0.first().expect("a line has an end") {
            Reach { branch: BranchId::MAIN, .. } => Revision::ZERO,
            reach => reach.after.next(),
        }
    }

    /// It as it was at a revision.
    pub(super) fn until(&self, revision: Revision) -> Line {
        let mut reaches: Vec<Reach> = self
            .0
            .iter()
            .filter(|reach| reach.after < revision)
            .map(|reach| Reach { upto: reach.upto.min(revision), ..*reach })
            .collect();
        if reaches.is_empty() {
            reaches.extend(self.0.last().map(|reach| Reach { upto: revision, ..*reach }));
        }
        Line(reaches)
    }

    /// Whose state a revision is, and which.
    pub(crate) fn at(&self, revision: Revision) -> (BranchId, Revision) {
        let found = self.0.iter().find(|reach| revision > reach.after);
        let reach = found.or(self.0.last()).expect("a line ends somewhere");
        (reach.branch, revision.min(reach.upto))
    }

    /// Whether a record belongs to it.
    pub(crate) fn has(&self, revision: Revision, header: RecordHeader) -> bool {
        self.0.iter().any(|reach| {
            reach.branch == header.branch && revision > reach.after && revision <= reach.upto
        })
    }

    /// The parts of it after a revision, up to another, newest first.
    pub(crate) fn between(
        &self,
        after: Revision,
        upto: Revision,
    ) -> impl Iterator<Item = Reach> + use<'_> {
        self.0.iter().filter_map(move |reach| reach.between(after, upto))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_of_whoever_had_it() {
        let reach = |branch, after, upto| Reach {
            branch: BranchId(branch),
            after: Revision(after),
            upto: Revision(upto),
        };
        // Branch 2 was made at 30 as of 20, branch 1 at 10 from main as it was.
        let line = Line(vec![reach(2, 29, u64::MAX), reach(1, 9, 20), reach(0, 0, 10)]);
        let at = |revision| {
            let (branch, revision) = line.at(Revision(revision));
            (branch.0, revision.0)
        };
        assert_eq!([at(99), at(30), at(25)], [(2, 99), (2, 30), (1, 20)]);
        assert_eq!([at(10), at(9), at(0)], [(1, 10), (0, 9), (0, 0)]);
        let has = |branch, revision| {
            let header = RecordHeader { time_ms: 0, db: 0, branch: BranchId(branch) };
            line.has(Revision(revision), header)
        };
        assert!(has(2, 30) && has(1, 20) && has(0, 10));
        assert!(!has(2, 29) && !has(1, 21) && !has(0, 11) && !has(3, 99));
        let between: Vec<Reach> = line.between(Revision(15), Revision(40)).collect();
        assert_eq!(between, [reach(2, 29, 40), reach(1, 15, 20)]);
    }
}
