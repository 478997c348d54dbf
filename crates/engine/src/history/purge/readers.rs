//! Who else reads what a purge is to erase: tags that name a revision with it,
//! and branches that have it from this one since they were made.
//!
//! A branch reads on through its fork until it has something of its own, be it
//! that the key is gone. So the oldest state of it that may still be read tells:
//! what stands there by a revision of its own, or does not stand there, never
//! comes from below again. But a large collection may have elements from below
//! as long as the branch has not written all of it.

use base::{BranchId, Revision};
use command::{Error, Result};
use keyspace::{Branch, Branches, Tag};

use super::Job;
use crate::branch::Line;
use crate::past::PastError;
use crate::travel::Moment;

/// A state in which a key may be that is to be erased.
struct Reader {
    /// For whoever is told.
    name: String,
    moment: Moment,
    /// Its line, if the branch has begun anew since.
    before: Option<Line>,
}

impl Reader {
    fn of(name: String, branch: BranchId, at: Revision) -> Reader {
        Reader { name, moment: Moment::new(branch, at, 0), before: None }
    }

    /// That of a tag of what a branch was before it began anew, if `own` is on
    /// that line.
    fn of_before(name: String, known: &Branches, tag: &Tag, own: BranchId) -> Option<Reader> {
        let &Tag { branch, revision: at, .. } = tag;
        if known.is_there(branch, at) || known.lineage(branch, at).is_none() {
            return None;
        }
        let line = Line::up_to(known, branch, at);
        let moment = Moment { as_of: at, ..Moment::new(branch, at, 0) };
        let is_on = line.reaches().iter().any(|reach| reach.branch == own);
        is_on.then_some(Reader { name, moment, before: Some(line) })
    }
}

impl Job<'_> {
    /// Fails where a branch or a tag would be left with a hole.
    pub(super) fn check_readers(&self, known: &Branches) -> Result {
        let mut found = Vec::new();
        for reader in self.readers(known)? {
            if let Some(key) = self.read_by(known, &reader)? {
                found.push(format!("{} has '{}' from here", reader.name, key.escape_ascii()));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(Error::new(format!(
            "BRANCHBUSY {}; let a branch have its own by HISTORY.PURGE there, or delete it for good (BRANCH DELETE \
             … NOUNDO), and delete the tags (TAG DELETE)",
            found.join(", ")
        )))
    }

    /// The oldest state of a branch that can be read.
    pub(super) fn begin(&self, branch: BranchId) -> Result<Revision> {
        let forked = self.engine.branches.known.read().get(branch).map(|row| row.forked);
        Ok(self.engine.needs_past()?.oldest().max(forked.unwrap_or_default()))
    }

    fn readers(&self, known: &Branches) -> Result<Vec<Reader>> {
        let own = self.branch.id;
        let heirs = || known.iter().filter(|row| row.id != own && may_have(known, row, own));
        let mut readers = Vec::new();
        for (name, tag) in known.tags() {
            let name = String::from_utf8_lossy(name);
            let at = tag.revision;
            readers.push(Reader::of(format!("the tag '{name}'"), own, at));
            readers.extend(Reader::of_before(format!("the tag '{name}'"), known, tag, own));
            for row in heirs().filter(|row| row.forked <= at) {
                let branch = String::from_utf8_lossy(&row.name);
                let name = format!("the tag '{name}' on the branch '{branch}'");
                readers.push(Reader::of(name, row.id, at));
            }
        }
        for row in heirs() {
            let what = if row.is_deleted() { "the deleted branch" } else { "the branch" };
            let name = format!("{what} '{}'", String::from_utf8_lossy(&row.name));
            readers.push(Reader::of(name, row.id, self.begin(row.id)?));
        }
        Ok(readers)
    }

    /// Whether a state can be read still. A tag's cannot where no history was kept for
    /// a while and no batch of the archive ended with it, or with that of which a
    /// branch on its line was made.
    fn is_kept(&self, moment: Moment) -> Result<bool> {
        let (_, at) = self.engine.line_of(moment).at(moment.revision);
        match self.engine.needs_past()?.keeps_state(at) {
            Ok(()) => Ok(true),
            Err(PastError::Compacted { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A key to be erased that a reader has from this branch.
    fn read_by(&self, known: &Branches, reader: &Reader) -> Result<Option<Vec<u8>>> {
        if !self.is_kept(reader.moment)? {
            return Ok(None);
        }
        if !self.is_prefix {
            let is_read = self.is_read_by(known, reader, self.key)?;
            return Ok(is_read.then(|| self.key.to_vec()));
        }
        let view = self.engine.view_at(reader.moment)?;
        let mut keys = Vec::new();
        self.engine.each_key(&view, self.db, &mut |key| {
            if key.starts_with(self.key) {
                keys.push(key.to_vec());
            }
        })?;
        for key in keys {
            if self.is_read_by(known, reader, &key)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    fn is_read_by(&self, known: &Branches, reader: &Reader, key: &[u8]) -> Result<bool> {
        // What is erased already is read by nobody.
        let moment = reader.moment;
        if self.engine.purged_from(moment.branch, self.db, key) > moment.revision {
            return Ok(false);
        }
        let (branch, at) = self.engine.line_of(moment).at(moment.revision);
        let past = self.engine.needs_past()?;
        let is_ours = |revision: Revision| match &reader.before {
            Some(line) => line.at(revision).0 == self.branch.id,
            None => is_from(known, moment.branch, revision, self.branch.id),
        };
        let Some(stored) = past.key(branch, at, self.db, key, None)? else { return Ok(false) };
        Ok(is_ours(stored.revision)
            || past.lies_over(branch, at, self.db, key)?.into_iter().any(is_ours))
    }
}

/// Whether a branch may have keys from another one.
fn may_have(known: &Branches, row: &Branch, from: BranchId) -> bool {
    let (mut branch, mut upto) = (row.parent, row.base);
    loop {
        if branch == from {
            return true;
        }
        match known.get(branch) {
            Some(row) if row.forked <= upto => (branch, upto) = (row.parent, row.base),
            // Gone or begun anew: whose it had nobody knows.
            found => return found.is_some() || branch != BranchId::MAIN,
        }
    }
}

/// Whether what a branch has by a revision may be another one's.
fn is_from(known: &Branches, branch: BranchId, revision: Revision, from: BranchId) -> bool {
    let (mut branch, mut upto) = (branch, Revision(u64::MAX));
    loop {
        match known.get(branch) {
            None => return branch == from || branch != BranchId::MAIN,
            // It began anew since.
            Some(row) if row.forked > upto => return true,
            Some(row) if revision >= row.forked => return branch == from,
            // It is older than the other one.
            Some(_) if branch == from => return false,
            Some(row) => (branch, upto) = (row.parent, row.base),
        }
    }
}

#[cfg(test)]
mod tests {
    use keyspace::effect::Effect;

    use super::*;

    /// Branch 1 of main at 10, 2 of 1 at 20, 3 of main at 30.
    fn known() -> Branches {
        let mut known = Branches::default();
        [(1, 0, 10), (2, 1, 20), (3, 0, 30)].into_iter().for_each(|it| fork(&mut known, it));
        known
    }

    fn fork(known: &mut Branches, (id, parent, at): (u32, u32, u64)) {
        let row = Branch::new(BranchId(id), format!("b{id}").as_bytes(), BranchId(parent));
        record(known, at, &Effect::Fork { row: &row.encode(), state: None });
    }

    fn record(known: &mut Branches, at: u64, effect: &Effect<'_>) {
        let mut effects = Vec::new();
        effect.encode(&mut effects);
        known.apply(Revision(at), 0, &effects).expect("it fits");
    }

    fn from(known: &Branches, branch: u32, revision: u64, from: u32) -> bool {
        is_from(known, BranchId(branch), Revision(revision), BranchId(from))
    }

    fn heir(known: &Branches, branch: u32, from: u32) -> bool {
        let row = known.get(BranchId(branch)).expect("it is there");
        may_have(known, row, BranchId(from))
    }

    #[test]
    fn whose_a_value_is_says_its_revision() {
        let known = known();
        assert!(from(&known, 0, 5, 0));
        assert!(from(&known, 2, 5, 0) && from(&known, 2, 15, 1) && from(&known, 2, 25, 2));
        assert!(!from(&known, 2, 15, 0) && !from(&known, 2, 25, 1) && !from(&known, 2, 5, 1));
        assert!(heir(&known, 1, 0) && heir(&known, 2, 1) && heir(&known, 2, 0));
        assert!(!heir(&known, 3, 1) && !heir(&known, 1, 2));
    }

    #[test]
    fn what_nobody_knows_may_be_anybodys() {
        let mut gone = known();
        record(&mut gone, 40, &Effect::BranchGone { branch: BranchId(1) });
        let mut anew = known();
        fork(&mut anew, (1, 0, 40));
        for known in [gone, anew] {
            assert!(from(&known, 2, 15, 0) && from(&known, 2, 15, 3) && heir(&known, 2, 3));
            assert!(!from(&known, 2, 25, 0) && !from(&known, 3, 5, 1));
        }
    }
}
