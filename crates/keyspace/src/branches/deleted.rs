//! Branches that were deleted and can be brought back: for a while all that is
//! known of them stays, but their names are free, and nobody is shown them.

use base::BranchId;

use super::{Branch, Branches, Tag};

impl Branch {
    /// Whether it was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.undo_until_ms.is_some()
    }
}

impl Branches {
    /// Whether a branch was deleted and can be brought back.
    #[must_use]
    pub fn is_deleted(&self, id: BranchId) -> bool {
        self.get(id).is_some_and(Branch::is_deleted)
    }

    /// The newest deleted branch of this name that can be brought back.
    #[must_use]
    pub fn deleted(&self, name: &[u8]) -> Option<&Branch> {
        self.by_id.values().rev().find(|branch| branch.is_deleted() && branch.name == name)
    }

    /// A tag of a branch that is not deleted.
    #[must_use]
    pub fn tag(&self, name: &[u8]) -> Option<&Tag> {
        self.tags.get(name).filter(|tag| !self.is_deleted(tag.branch))
    }

    /// All tags of branches that are not deleted, by name.
    pub fn shown_tags(&self) -> impl Iterator<Item = (&Vec<u8>, &Tag)> {
        self.tags.iter().filter(|(_, tag)| !self.is_deleted(tag.branch))
    }

    /// Takes in what is known of a branch from here on.
    pub(super) fn change(&mut self, row: Branch) -> Result<(), &'static str> {
        if row.is_deleted() {
            self.open.retain(|_, open| open.from != row.id && open.into != row.id);
        }
        let known = self.by_id.get_mut(&row.id).ok_or("there is no such branch")?;
        *known = Branch { forked: known.forked, ..row };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base::Revision;

    use super::super::tests::note;
    use super::*;
    use crate::OpenMerge;
    use crate::effect::Effect;

    fn row(id: u32, undo_until_ms: Option<u64>) -> Branch {
        Branch { undo_until_ms, ..Branch::new(BranchId(id), b"dev", BranchId::MAIN) }
    }

    fn fork(branches: &mut Branches, at: u64, id: u32) {
        note(branches, at, &Effect::Fork { row: &row(id, None).encode(), state: None });
    }

    fn change(branches: &mut Branches, at: u64, row: &Branch) {
        note(branches, at, &Effect::Branch { row: &row.encode() });
    }

    #[test]
    fn its_bytes_are_those_of_the_document() {
        let bytes = [&[1, 0, 0, 0, 0, 0, 16, 99, 3][..], b"dev", &[0]].concat();
        assert_eq!(row(1, Some(99)).encode(), bytes);
        assert_eq!(Branch::decode(&bytes), Ok(row(1, Some(99))));
        assert!(Branch::decode(&bytes[..7]).is_err());
    }

    #[test]
    fn a_deleted_branch_is_shown_to_nobody_and_stays_known() {
        let mut branches = Branches::default();
        fork(&mut branches, 1, 1);
        let tag = |revision| Effect::Tag {
            name: b"v1",
            branch: BranchId(1),
            revision: Revision(revision),
            time_ms: 0,
        };
        note(&mut branches, 2, &tag(2));
        let open = OpenMerge {
            id: 1,
            from: BranchId(1),
            into: BranchId::MAIN,
            pattern: None,
            message: Vec::new(),
            settled: BTreeMap::new(),
            changed: Revision::ZERO,
        };
        note(&mut branches, 3, &Effect::MergeOpen { row: &open.encode() });
        let there = branches.clone();
        change(&mut branches, 4, &row(1, Some(99)));
        assert_eq!(branches.named(b"dev"), None);
        assert_eq!((branches.tag(b"v1"), branches.shown_tags().count()), (None, 0));
        assert_eq!(branches.deleted(b"dev").map(|row| row.undo_until_ms), Some(Some(99)));
        assert!(branches.is_deleted(BranchId(1)) && !branches.is_deleted(BranchId::MAIN));
        assert!(branches.open_merges().is_empty(), "nobody can decide it");
        assert_eq!(branches.pins().collect::<Vec<_>>(), there.pins().collect::<Vec<_>>());
        assert_eq!(branches.name_of(BranchId(1)), Some(&b"dev"[..]), "to who holds its keys");
        // The archive keeps it, and gives it back.
        let mut bytes = Vec::new();
        branches.encode(&mut bytes);
        assert_eq!(Branches::take(&mut &bytes[..]), Ok(branches.clone()));
        // Its name is free meanwhile.
        fork(&mut branches, 5, 2);
        assert_eq!(branches.named(b"dev"), Some(BranchId(2)));
        change(&mut branches, 6, &row(2, Some(100)));
        assert_eq!(branches.deleted(b"dev").map(|row| row.id), Some(BranchId(2)), "the newest");
        change(&mut branches, 7, &row(1, None));
        assert_eq!(branches.named(b"dev"), Some(BranchId(1)));
        assert_eq!(branches.tag(b"v1").map(|tag| tag.revision), Some(Revision(2)));
        assert_eq!(branches.get(BranchId(1)).map(|row| row.forked), Some(Revision(1)));
    }
}
