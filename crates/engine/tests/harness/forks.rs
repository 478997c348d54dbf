//! Branches without an archive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{BranchId, Revision, SpaceId};
use engine::{Branching, Past};
use keyspace::{Keyspace, Spaces};
use parking_lot::Mutex;

use super::past::MemoryPast;

/// What others do while a branch of the past is read, for the nth time.
pub type During = Box<dyn FnMut(u64) + Send>;

/// Keeps nothing: every branch begins with what its first record says.
#[derive(Default)]
pub struct Forks {
    /// How often somebody has read what a branch of the past begins with.
    pub looks: AtomicU64,
    pub during: Mutex<Option<During>>,
    /// Who knows what branches were, where somebody merges.
    pub past: Option<Arc<MemoryPast>>,
}

impl Branching for Forks {
    fn fork(&self, _: Vec<Arc<Keyspace>>, _: &Spaces, _: Revision, _: Revision) -> Arc<Keyspace> {
        // All keyspaces of a server hash alike.
        Arc::new(Keyspace::new(16, 1))
    }

    fn reopen(&self, _: BranchId, _: Vec<Arc<Keyspace>>) -> command::Result<Arc<Keyspace>> {
        unreachable!("nobody brings one back")
    }

    fn state_before(&self, _: BranchId, _: Revision) -> command::Result<(Revision, Spaces)> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        self.during.lock().iter_mut().for_each(|during| during(looks));
        Ok((Revision::ZERO, Keyspace::new(16, 7).spaces()))
    }

    fn own_keys(&self, _: SpaceId, _: &mut dyn FnMut(u64, Revision)) -> command::Result {
        unreachable!("nobody counts keys")
    }

    fn has_reached(&self, _: Revision) -> bool {
        true
    }

    fn state(&self, branch: BranchId, at: Revision) -> command::Result<Arc<Keyspace>> {
        let past = self.past.as_ref().expect("nobody merges");
        Ok(past.view(branch, at)?)
    }
}
