//! What has to be known of branches that are gone.
//!
//! Whoever was made from a branch, or merged it, has what that branch had, and
//! through it what that one came from and had merged. Two that are to be merged
//! must not take twice what both have from a third, so a branch that is gone
//! stays known for as long as it tells what others have in common.
//!
//! What a branch was before it began anew is one that is gone, with a number of
//! its own.

use std::collections::BTreeSet;

use base::BranchId;

use super::{Branch, Branches};

impl Branches {
    /// The row of a branch that is there, or of one that is gone and that others
    /// come from.
    #[must_use]
    pub fn lineage(&self, branch: BranchId) -> Option<&Branch> {
        self.by_id.get(&branch).or_else(|| self.gone.get(&branch))
    }

    /// Whether a branch is there.
    pub(super) fn exists(&self, branch: BranchId) -> bool {
        branch == BranchId::MAIN || self.by_id.contains_key(&branch)
    }

    /// Takes in that a branch has gone.
    pub(super) fn is_gone(&mut self, row: Branch) {
        self.open.retain(|_, open| open.from != row.id && open.into != row.id);
        self.gone.insert(row.id, row);
        while let Some(id) = self.gone.keys().copied().find(|id| self.is_needless(*id)) {
            self.gone.remove(&id);
            self.merged.retain(|merged| merged.from != id && merged.into != id);
        }
    }

    /// Takes in that a branch is about to begin anew, if it is there.
    pub(super) fn begins_anew(&mut self, branch: BranchId) {
        let Some(row) = self.by_id.get(&branch) else { return };
        self.last += 1;
        let was = Branch { id: BranchId(self.last), ..row.clone() };
        for merged in &mut self.merged {
            for id in [&mut merged.from, &mut merged.into] {
                if *id == branch {
                    *id = was.id;
                }
            }
        }
        self.open.retain(|_, open| open.from != branch && open.into != branch);
        self.is_gone(was);
    }

    /// Whether a branch that is gone tells nothing of those that are there: what
    /// it had, at most one has, which had what it came from anyway.
    fn is_needless(&self, gone: BranchId) -> bool {
        let rows = self.by_id.values().chain(self.gone.values());
        let made = rows.filter(|row| row.parent == gone).map(|row| row.id);
        let took = self.merged.iter().filter(|it| it.from == gone).map(|it| it.into);
        let takers: BTreeSet<BranchId> = made.chain(took).collect();
        let had = self.merged.iter().filter(|it| it.into == gone).map(|it| it.from);
        let mut had = had.chain(self.gone.get(&gone).map(|row| row.parent));
        takers.is_empty() || (takers.len() == 1 && had.all(|id| takers.contains(&id)))
    }
}

#[cfg(test)]
mod tests {
    use base::Revision;

    use super::*;
    use crate::Merged;
    use crate::effect::Effect;

    fn note(branches: &mut Branches, at: u64, effect: &Effect<'_>) {
        let mut bytes = Vec::new();
        effect.encode(&mut bytes);
        branches.apply(Revision(at), 5, &bytes).expect("it fits");
    }

    fn fork(branches: &mut Branches, at: u64, id: u32, parent: u32) {
        let row = Branch {
            id: BranchId(id),
            name: format!("b{id}").into(),
            parent: BranchId(parent),
            base: Revision::ZERO,
            forked: Revision::ZERO,
            created_ms: 0,
            created_by: Vec::new(),
            deadline_ms: None,
            quota_bytes: 0,
            is_readonly: false,
            is_kept: false,
            is_merge_only: false,
        };
        note(branches, at, &Effect::Fork { row: &row.encode(), state: None });
    }

    fn merge(branches: &mut Branches, at: u64, from: u32, into: u32) {
        let (revision, since) = (Revision::ZERO, Revision::ZERO);
        let (from, into) = (BranchId(from), BranchId(into));
        let row = Merged { from, into, revision, since, pattern: None, ends: 0 };
        note(branches, at, &Effect::Merged { row: &row.encode() });
    }

    fn remove(branches: &mut Branches, at: u64, id: u32) {
        note(branches, at, &Effect::BranchGone { branch: BranchId(id) });
    }

    fn gone(branches: &Branches) -> Vec<u32> {
        let mut bytes = Vec::new();
        branches.encode(&mut bytes);
        assert_eq!(Branches::take(&mut &bytes[..]).as_ref(), Ok(branches), "it can be kept");
        assert!(branches.merged().iter().all(|it| {
            [it.from, it.into]
                .iter()
                .all(|id| branches.exists(*id) || branches.gone.contains_key(id))
        }));
        branches.gone.keys().map(|id| id.0).collect()
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
        assert_eq!(branches.lineage(BranchId(2)).map(|row| row.parent), Some(BranchId(1)));
        remove(&mut branches, 15, 3);
        assert_eq!(gone(&branches), [0; 0]);
    }

    #[test]
    fn what_a_branch_was_before_it_began_anew_has_a_number_of_its_own() {
        let mut branches = Branches::default();
        fork(&mut branches, 10, 1, 0);
        fork(&mut branches, 11, 2, 0);
        merge(&mut branches, 12, 1, 2);
        merge(&mut branches, 13, 1, 0);
        fork(&mut branches, 14, 1, 0);
        assert_eq!(gone(&branches), [3]);
        let taken: Vec<u32> = branches.merged().iter().map(|it| it.from.0).collect();
        assert_eq!((taken, branches.next_id()), (vec![3, 3], BranchId(4)));
        // Without anything that it told, nothing is left but the number.
        fork(&mut branches, 15, 1, 0);
        assert_eq!((gone(&branches), branches.next_id()), (vec![3], BranchId(5)));
    }
}
