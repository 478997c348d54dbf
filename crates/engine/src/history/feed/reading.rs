//! A piece of the log that is read to those behind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use command::Result;

use super::group::Watch;
use crate::engine::Engine;
use crate::history::kept::KeptOfMany;

/// What is read of the past for the records of a piece, and who is told of it.
pub(super) struct Reading<'e> {
    pub(super) engine: &'e Engine,
    kept: RefCell<BTreeMap<(BranchId, DbIndex), KeptOfMany<'e>>>,
    /// Those who have changes to be handed over.
    told: RefCell<Vec<Arc<Watch>>>,
}

impl<'e> Reading<'e> {
    pub(super) fn new(engine: &'e Engine) -> Reading<'e> {
        Reading { engine, kept: RefCell::default(), told: RefCell::default() }
    }

    /// A watch has changes that wait for those that come after them.
    pub(super) fn gathers(&self, watch: &Arc<Watch>) {
        self.told.borrow_mut().push(watch.clone());
    }

    /// Hands over what was gathered.
    pub(super) fn hand_over(&self) {
        self.told.borrow_mut().drain(..).for_each(|watch| watch.hand_over());
    }

    /// Whether a watch of a branch may be told what a key was at a revision,
    /// which is one of before the watch or not.
    pub(super) fn may_tell(
        &self,
        (branch, db): (BranchId, DbIndex),
        key: &[u8],
        at: Revision,
        is_past: bool,
    ) -> Result<bool> {
        let mut all = self.kept.borrow_mut();
        let kept =
            all.entry((branch, db)).or_insert_with(|| KeptOfMany::new(self.engine, branch, db));
        if is_past { kept.keeps(key, at) } else { Ok(kept.has(key, at)) }
    }
}
