//! What those behind are told of that a record does not tell.

use std::cell::RefCell;
use std::collections::BTreeMap;

use base::{BranchId, DbIndex, Revision};
use command::Result;

use crate::engine::Engine;
use crate::history::kept::KeptOfMany;

/// Reads the past for a piece of the log.
pub(super) struct Reading<'e> {
    pub(super) engine: &'e Engine,
    kept: RefCell<BTreeMap<(BranchId, DbIndex), KeptOfMany<'e>>>,
}

impl<'e> Reading<'e> {
    pub(super) fn new(engine: &'e Engine) -> Reading<'e> {
        Reading { engine, kept: RefCell::default() }
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
