//! What has to be known of branches that are gone.
//!
//! Whoever was made from a branch, or merged it, has what that branch had, and
//! through it what that one came from and had merged. Two that are to be merged
//! must not take twice what both have from a third, so a branch that is gone
//! stays known for as long as it tells what others have in common.
//!
//! What a branch was before it began anew is gone as well. So each has lives,
//! and a revision tells which of them is meant. Tags go with their branch, but
//! not when it begins anew: a life that a tag names stays known too.

use std::collections::BTreeSet;

use base::{BranchId, Revision};

use super::{Branch, Branches};

/// A branch from one of its beginnings on.
pub(super) type Life = (BranchId, Revision);

impl Branches {
    /// What a branch was at a revision, if it is there still, or others come from
    /// it, or a tag names it.
    #[must_use]
    pub fn lineage(&self, branch: BranchId, at: Revision) -> Option<&Branch> {
        let there = self.by_id.get(&branch).filter(|row| row.forked <= at);
        let gone = || self.gone.range((branch, Revision::ZERO)..=(branch, at)).next_back();
        there.or_else(|| gone().map(|(_, row)| row))
    }

    /// Whether a branch is there, and has not begun anew since a revision.
    #[must_use]
    pub fn is_there(&self, branch: BranchId, since: Revision) -> bool {
        branch == BranchId::MAIN || self.by_id.get(&branch).is_some_and(|row| row.forked <= since)
    }

    fn life(&self, branch: BranchId, at: Revision) -> Life {
        (branch, self.lineage(branch, at).map_or(Revision::ZERO, |row| row.forked))
    }

    /// Takes in that a branch has gone, or is about to begin anew.
    pub(super) fn is_over(&mut self, row: Branch) {
        self.open.retain(|_, open| open.from != row.id && open.into != row.id);
        self.by_id.remove(&row.id);
        self.gone.insert((row.id, row.forked), row);
        self.forget_needless();
    }

    /// Lets go of those that are gone and tell nothing any more.
    pub(super) fn forget_needless(&mut self) {
        while let Some(life) = self.gone.keys().copied().find(|life| self.is_needless(*life)) {
            let mut merged = std::mem::take(&mut self.merged);
            merged.retain(|it| {
                [it.from, it.into].iter().all(|id| self.life(*id, it.revision) != life)
            });
            self.merged = merged;
            self.gone.remove(&life);
        }
    }

    /// Whether one that is gone tells nothing of those that are there: what it
    /// had, at most one has, which had what it came from anyway.
    fn is_needless(&self, gone: Life) -> bool {
        let is_it = |branch, at| branch == gone.0 && self.life(branch, at) == gone;
        let rows = self.by_id.values().chain(self.gone.values());
        let made = rows.filter(|row| is_it(row.parent, row.base)).map(|row| (row.id, row.forked));
        let took = self.merged.iter().filter(|it| is_it(it.from, it.revision));
        let took = took.map(|it| self.life(it.into, it.revision));
        let takers: BTreeSet<Life> = made.chain(took).collect();
        let had = self.merged.iter().filter(|it| is_it(it.into, it.revision));
        let had = had.map(|it| self.life(it.from, it.revision));
        let parent = self.gone.get(&gone).map(|row| self.life(row.parent, row.base));
        let is_tagged = self.tags.values().any(|tag| is_it(tag.branch, tag.revision));
        !is_tagged
            && (takers.is_empty()
                || takers.len() == 1 && had.chain(parent).all(|life| takers.contains(&life)))
    }
}

#[cfg(test)]
mod tests {
    use base::Revision;

    use super::super::tests::note;
    use super::*;
    use crate::Merged;
    use crate::effect::Effect;

    fn fork(branches: &mut Branches, at: u64, id: u32, parent: u32) {
        let row = Branch::new(BranchId(id), format!("b{id}").as_bytes(), BranchId(parent));
        note(branches, at, &Effect::Fork { row: &row.encode(), state: None });
    }

    fn merge(branches: &mut Branches, at: u64, from: u32, into: u32) {
        let (revision, since) = (Revision::ZERO, Revision::ZERO);
        let (from, into) = (BranchId(from), BranchId(into));
        let row = Merged { from, into, revision, since, pattern: None, ends: 0, kept: Vec::new() };
        note(branches, at, &Effect::Merged { row: &row.encode() });
    }

    fn remove(branches: &mut Branches, at: u64, id: u32) {
        note(branches, at, &Effect::BranchGone { branch: BranchId(id) });
    }

    fn gone(branches: &Branches) -> Vec<u32> {
        let mut bytes = Vec::new();
        branches.encode(&mut bytes);
        assert_eq!(Branches::take(&mut &bytes[..]).as_ref(), Ok(branches), "it can be kept");
        for it in branches.merged() {
            for id in [it.from, it.into] {
                let is_known = branches.lineage(id, it.revision).is_some();
                assert!(id == BranchId::MAIN || is_known, "{it:?}");
            }
        }
        branches.gone.keys().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn what_only_its_parent_took_is_forgotten_with_a_branch() {
        let mut branches = Branches::default();
        fork(&mut branches, 10, 1, 0);
        merge(&mut branches, 11, 0, 1);
        merge(&mut branches, 12, 1, 0);
        remove(&mut branches, 13, 1);
        assert_eq!((gone(&branches), branches.merged().len()), (vec![], 0));
    }

    #[test]
    fn what_two_took_is_known_until_one_of_them_goes() {
        let mut branches = Branches::default();
        fork(&mut branches, 10, 1, 0);
        fork(&mut branches, 11, 2, 0);
        merge(&mut branches, 12, 1, 2);
        merge(&mut branches, 13, 1, 0);
        remove(&mut branches, 14, 1);
        assert_eq!((gone(&branches), branches.merged().len()), (vec![1], 2));
        let pins: Vec<u64> = branches.pins().map(|at| at.0).collect();
        assert_eq!(pins, [11], "its states cannot be read any more");
        remove(&mut branches, 15, 2);
        assert_eq!((gone(&branches), branches.merged().len()), (vec![], 0));
    }

    #[test]
    fn what_another_was_made_from_is_known_while_that_is_there() {
        let mut branches = Branches::default();
        fork(&mut branches, 10, 1, 0);
        fork(&mut branches, 11, 2, 1);
        fork(&mut branches, 12, 3, 2);
        remove(&mut branches, 13, 1);
        remove(&mut branches, 14, 2);
        assert_eq!(gone(&branches), [1, 2]);
        assert_eq!(
            branches.lineage(BranchId(2), Revision(99)).map(|row| row.parent),
            Some(BranchId(1))
        );
        remove(&mut branches, 15, 3);
        assert_eq!(gone(&branches), [0; 0]);
    }

    #[test]
    fn what_a_tag_names_is_known_until_the_tag_goes() {
        let mut branches = Branches::default();
        fork(&mut branches, 10, 1, 0);
        let (branch, revision) = (BranchId(1), Revision::ZERO);
        note(&mut branches, 11, &Effect::Tag { name: b"t", branch, revision, time_ms: 0 });
        fork(&mut branches, 12, 1, 0);
        assert_eq!(gone(&branches), [1]);
        assert_eq!(branches.lineage(branch, Revision(11)).map(|row| row.forked.0), Some(10));
        note(&mut branches, 13, &Effect::TagGone { name: b"t" });
        assert_eq!(gone(&branches), [0; 0]);
    }

    #[test]
    fn what_a_branch_was_before_it_began_anew_is_gone() {
        let mut branches = Branches::default();
        fork(&mut branches, 10, 1, 0);
        fork(&mut branches, 11, 2, 0);
        fork(&mut branches, 12, 3, 1);
        merge(&mut branches, 13, 1, 2);
        merge(&mut branches, 14, 1, 0);
        fork(&mut branches, 15, 1, 0);
        fork(&mut branches, 16, 4, 1);
        assert_eq!((gone(&branches), branches.merged().len()), (vec![1], 2));
        let began = |at| branches.lineage(BranchId(1), Revision(at)).map(|row| row.forked.0);
        assert_eq!([began(12), began(14), began(16)], [Some(10), Some(10), Some(15)]);
        assert!(!branches.is_there(BranchId(1), Revision(14)));
        // What is only its own is nobody's matter.
        merge(&mut branches, 17, 0, 1);
        remove(&mut branches, 18, 4);
        fork(&mut branches, 19, 1, 0);
        assert_eq!((gone(&branches), branches.merged().len()), (vec![1], 2));
        for (at, id) in [(20, 2), (21, 3)] {
            remove(&mut branches, at, id);
        }
        assert_eq!((gone(&branches), branches.merged().len()), (vec![], 0));
    }
}
