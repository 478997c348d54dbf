//! The records of one branch, without those in between that are of others.
//!
//! An index names the first of consecutive records of a branch, so what is
//! read of the log is what they are in.

use std::ops::ControlFlow;

use base::{BranchId, Revision};
use log::{Place, Record};

use super::entry::branch_hash;
use super::{History, HistoryError, Hit};

impl History {
    /// As [`History::changes`], of one branch. Blocks of the log that have no
    /// record of it are not read.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn changes_of(
        &self,
        branch: BranchId,
        after: Revision,
        upto: Revision,
        each: &mut dyn FnMut(&Record<'_>, Place) -> ControlFlow<()>,
    ) -> Result<(), HistoryError> {
        let (after, upto) = self.known_part(after, upto);
        if after >= upto {
            return Ok(());
        }
        let mut next = after.next();
        while next <= upto {
            let Some((first, last)) = self.segment_with(next) else { break };
            let last = last.min(upto);
            let mut runs = self.runs(branch, first, next, last)?.into_iter();
            let Some(start) = self.view(first, |view| view.place(next, &self.files))? else {
                break;
            };
            // What it begins in may be a run that began before. A block without
            // records ends none.
            let (mut at, mut is_on) = (Some(start.offset), true);
            while let Some(offset) = at
                && next <= last
            {
                let mut flow = ControlFlow::Continue(());
                let following = self.log.block(first, offset, &mut |record, place| {
                    if flow.is_continue() && record.revision >= next && record.revision <= last {
                        is_on = record.header.branch == branch;
                        next = record.revision.next();
                        if is_on {
                            flow = each(record, place);
                        }
                    }
                })?;
                if flow.is_break() {
                    return Ok(());
                }
                at = following;
                if !is_on {
                    let run = runs.find(|run| run.revision >= next);
                    at = run.map(|run| run.place.offset);
                    next = run.map_or(last.next(), |run| run.revision);
                }
            }
            if next <= last {
                return Err(HistoryError::Short { segment: first, revision: next });
            }
        }
        Ok(())
    }

    /// The newest record of a branch that is known and later than the horizon.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn newest_of(&self, branch: BranchId) -> Result<Option<Revision>, HistoryError> {
        let (after, upto) = self.known_part(Revision::ZERO, Revision(u64::MAX));
        if after >= upto {
            return Ok(None);
        }
        let mut begins = None;
        for hit in self.records(branch_hash(branch), after, upto) {
            let revision = hit?.revision;
            // Else it is a key's.
            if self.branch_at(revision)? == Some(branch) {
                begins = Some(revision);
                break;
            }
        }
        // The oldest ones that are known may have begun before.
        if begins.is_none() && self.branch_at(after.next())? == Some(branch) {
            begins = Some(after.next());
        }
        let Some(begins) = begins else { return Ok(None) };
        let Some((_, last)) = self.segment_with(begins) else { return Ok(None) };
        // From here on there is none but those that follow one another.
        let (mut on, mut end) = (begins, last.min(upto));
        while on < end {
            let middle = Revision(end.0 - (end.0 - on.0) / 2);
            match self.branch_at(middle)? == Some(branch) {
                true => on = middle,
                false => end = Revision(middle.0 - 1),
            }
        }
        Ok(Some(on))
    }

    /// The branch of a record, if it is known and later than the horizon.
    fn branch_at(&self, revision: Revision) -> Result<Option<BranchId>, HistoryError> {
        let Some(place) = self.place(revision)? else { return Ok(None) };
        let mut branch = None;
        self.log.block_again(place.segment, place.offset, &mut |record, _| {
            if record.revision == revision {
                branch = Some(record.header.branch);
            }
        })?;
        Ok(branch)
    }

    /// Where a branch's records begin to follow one another in a segment, from
    /// `from` to `upto`, in order. Keys with the same hash are among them.
    fn runs(
        &self,
        branch: BranchId,
        segment: Revision,
        from: Revision,
        upto: Revision,
    ) -> Result<Vec<Hit>, HistoryError> {
        let (hash, after) = (branch_hash(branch), Revision(from.0 - 1));
        let (mut parts, mut upto) = (Vec::new(), upto);
        while upto > after {
            let ask =
                |view: super::View<'_>| view.newest(hash, after, upto, usize::MAX, &self.files);
            let found = self.view(segment, ask)?;
            let Some(oldest) = found.first() else { break };
            upto = Revision(oldest.revision.0 - 1);
            parts.push(found);
        }
        Ok(parts.into_iter().rev().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_have_hashes_of_their_own() {
        let hashes: std::collections::BTreeSet<u32> =
            (0..1000).map(|id| branch_hash(BranchId(id))).collect();
        assert_eq!(hashes.len(), 1000);
        assert!(!hashes.contains(&super::super::DATABASE_WIDE));
    }
}
