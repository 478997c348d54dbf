//! The keyspaces of all branches, as a server has them after a start.

use std::collections::BTreeMap;
use std::sync::Arc;

use archive::{Base, BaseBacking};
use base::{BranchId, Revision};
use keyspace::effect::{Effect, Effects};
use keyspace::{Backing, Branches, Buffers, EncodingLimits, Keyspace, Spaces, Turn};
use log::Record;

use crate::random::DATABASES;

pub type Keyspaces = BTreeMap<BranchId, Arc<Keyspace>>;

/// See the module's documentation.
pub struct Forest {
    base: Arc<Base>,
    branches: Branches,
    keyspaces: Keyspaces,
    buffers: Buffers,
}

impl Forest {
    /// Every branch as the archive has it.
    pub fn open(base: &Arc<Base>) -> Forest {
        let branches = base.directory().branches.clone();
        let ids: Vec<BranchId> = branches.iter().map(|branch| branch.id).collect();
        let (base, buffers) = (base.clone(), Buffers::default());
        let mut forest = Forest { base, branches, keyspaces: BTreeMap::new(), buffers };
        forest.add(BranchId::MAIN);
        ids.into_iter().for_each(|id| forest.add(id));
        forest
    }

    fn add(&mut self, id: BranchId) {
        let directory = self.base.directory();
        let keyspace = Keyspace::new(DATABASES, directory.seed);
        let limits = EncodingLimits::default();
        let backing = BaseBacking::of_branch(self.base.clone(), limits, self.ancestors(id));
        keyspace.evict_to(backing.clone());
        keyspace.assume_removals(directory.revision);
        directory.back(id, &keyspace, &backing);
        self.keyspaces.insert(id, Arc::new(keyspace));
    }

    fn ancestors(&self, id: BranchId) -> Vec<Arc<Keyspace>> {
        let parent = |id: BranchId| self.branches.get(id).map(|branch| branch.parent);
        let ids = std::iter::successors(parent(id), |id| parent(*id));
        ids.map_while(|id| self.keyspaces.get(&id).cloned()).collect()
    }

    /// Applies the next record of the log.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<(), String> {
        let Record { revision, header, effects } = *record;
        match self.branches.apply(revision, header.time_ms, effects)? {
            None | Some(Turn::Tagged) => {}
            Some(Turn::Gone(branch)) => drop(self.keyspaces.remove(&branch)),
            Some(Turn::Fork { branch, state }) => {
                let at = state.expect("others are not replayed");
                let spaces = self.base.spaces_at(branch.parent, DATABASES, at);
                let spaces = spaces.map_err(|error| error.to_string())?;
                let child = fork(&self.base, self.ancestors(branch.id), &spaces, at, revision);
                self.keyspaces.insert(branch.id, child);
            }
        }
        let limits = EncodingLimits::default();
        self.keyspaces[&header.branch]
            .apply(revision, header.time_ms, header.db, effects, &limits, &mut self.buffers)
            .map_err(|error| error.to_string())
    }

    pub fn take(self) -> (Branches, Keyspaces) {
        (self.branches, self.keyspaces)
    }
}

/// Whether a record makes a branch that begins with what its parent has by then.
pub fn forks_now(effects: &[u8]) -> bool {
    let mut effects = Effects::new(effects).map_while(Result::ok);
    let first = effects.find(|effect| !matches!(effect, Effect::Origin { .. }));
    matches!(first, Some(Effect::Fork { state: None, .. }))
}

/// The keyspace of a branch that the revision `forked` makes.
pub fn fork(
    base: &Arc<Base>,
    ancestors: Vec<Arc<Keyspace>>,
    parent: &Spaces,
    at: Revision,
    forked: Revision,
) -> Arc<Keyspace> {
    let child = Arc::new(Keyspace::new(DATABASES, base.directory().seed));
    let limits = EncodingLimits::default();
    let backing: Arc<dyn Backing> = BaseBacking::of_branch(base.clone(), limits, ancestors);
    base.fork(&child, &backing, parent, at, forked);
    child.count_own(forked.next(), at == forked);
    child
}
