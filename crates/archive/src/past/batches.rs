//! States of the base that were read lately, by the revisions that they are the
//! newest state for.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{BranchId, Revision};
use parking_lot::Mutex;

use super::view::Batch;

/// States that are kept.
const BATCHES_MAX: usize = 16;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Batches(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    batch: Arc<Batch>,
    /// It was the newest state at or before this revision.
    upto: Revision,
}

impl Batches {
    /// A state of a branch at or before a revision, if one that is not older than
    /// `oldest`, or is just that revision's, was the newest not long ago.
    pub(super) fn get(
        &self,
        branch: BranchId,
        revision: Revision,
        oldest: Revision,
    ) -> Option<Arc<Batch>> {
        let kept = self.0.lock();
        let covers = |kept: &&Kept| {
            let from = kept.batch.revision();
            let is_between = from >= oldest && from <= revision && revision <= kept.upto;
            (is_between || from == revision) && kept.batch.branch == branch
        };
        let found = kept.iter().filter(covers).max_by_key(|kept| kept.batch.revision());
        found.map(|kept| kept.batch.clone())
    }

    /// `batch` is the newest state at or before `revision`.
    pub(super) fn put(&self, revision: Revision, batch: Arc<Batch>) -> Arc<Batch> {
        let mut kept = self.0.lock();
        let is_same = |kept: &&mut Kept| {
            (kept.batch.branch, kept.batch.revision()) == (batch.branch, batch.revision())
        };
        if let Some(same) = kept.iter_mut().find(is_same) {
            same.upto = same.upto.max(revision);
            return same.batch.clone();
        }
        if kept.len() >= BATCHES_MAX {
            kept.pop_front();
        }
        kept.push_back(Kept { batch: batch.clone(), upto: revision });
        batch
    }

    /// Lets go of states older than this.
    pub(super) fn forget_before(&self, oldest: Revision) {
        self.0.lock().retain(|kept| kept.batch.revision() >= oldest);
    }
}
