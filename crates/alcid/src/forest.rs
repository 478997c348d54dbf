//! The keyspaces of all branches, filled from the archive and brought up to
//! date by the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use archive::{Base, BaseBacking, Database};
use base::{BranchId, DbIndex, Revision};
use engine::{Branching, Engine};
use keyspace::effect::{Effect, Effects};
use keyspace::{Backing, Branch, Branches, Buffers, EncodingLimits, Keyspace, Spaces, Turn};
use log::Record;
use settings::Settings;

/// See the module's documentation.
pub struct Forest {
    base: Arc<Base>,
    limits: EncodingLimits,
    databases: DbIndex,
    branches: Branches,
    keyspaces: BTreeMap<BranchId, Arc<Keyspace>>,
    buffers: Buffers,
}

impl Forest {
    /// Every branch as the archive has it.
    ///
    /// # Errors
    /// When it has keys where the settings have no database.
    pub fn open(base: &Arc<Base>, settings: &Settings) -> Result<Forest, String> {
        let directory = base.directory();
        let mut forest = Forest {
            base: base.clone(),
            limits: engine::encoding_limits(settings),
            databases: settings.databases,
            branches: directory.branches.clone(),
            keyspaces: BTreeMap::new(),
            buffers: Buffers::default(),
        };
        forest.add(BranchId::MAIN)?;
        // A parent's number is below its branches'.
        let ids: Vec<BranchId> = forest.branches.iter().map(|branch| branch.id).collect();
        ids.into_iter().try_for_each(|id| forest.add(id))?;
        Ok(forest)
    }

    fn add(&mut self, id: BranchId) -> Result<(), String> {
        let (row, ancestors) = (self.branches.get(id), self.ancestors(id));
        let keyspace = reopen(&self.base, self.limits, self.databases, (id, row), ancestors)?;
        // The log may tell of flushes that were taken back.
        keyspace.keep_left();
        self.keyspaces.insert(id, keyspace);
        Ok(())
    }

    /// The keyspaces of a branch's parent, of that one's and so on, as far as
    /// they are there.
    fn ancestors(&self, id: BranchId) -> Vec<Arc<Keyspace>> {
        let parent = |id: BranchId| self.branches.get(id).map(|branch| branch.parent);
        let ids = std::iter::successors(parent(id), |id| parent(*id));
        ids.map_while(|id| self.keyspaces.get(&id).cloned()).collect()
    }

    /// Whether a record makes a branch that begins with what its parent has by
    /// then.
    #[must_use]
    pub fn forks_now(&self, record: &Record<'_>) -> bool {
        Effects::new(record.effects)
            .map_while(Result::ok)
            .find(|effect| !matches!(effect, Effect::Origin { .. }))
            .is_some_and(|first| matches!(first, Effect::Fork { state: None, .. }))
    }

    /// Applies the next record of the log.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<(), String> {
        let Record { revision, header, effects } = *record;
        match self.branches.apply(revision, header.time_ms, effects)? {
            None | Some(Turn::Tagged) => {}
            Some(Turn::Gone(branch)) => drop(self.keyspaces.remove(&branch)),
            Some(Turn::Fork { branch, state }) => {
                let (spaces, at) = match state {
                    None => (self.keyspace(branch.parent)?.spaces(), revision),
                    Some(at) => {
                        let spaces = self.base.spaces_at(branch.parent, self.databases, at);
                        (spaces.map_err(|error| error.to_string())?, at)
                    }
                };
                let ancestors = self.ancestors(branch.id);
                let child = fork(&self.base, self.limits, ancestors, &spaces, at, revision);
                self.keyspaces.insert(branch.id, child);
            }
        }
        let mut buffers = std::mem::take(&mut self.buffers);
        let keyspace = self.keyspace(header.branch)?;
        let applied = keyspace.apply(
            revision,
            header.time_ms,
            header.db,
            effects,
            &self.limits,
            &mut buffers,
        );
        self.buffers = buffers;
        applied.map_err(|error| error.to_string())
    }

    /// To be called when everything up to `newest` is applied.
    pub fn finish(&self, newest: Revision) {
        let left = &self.base.directory().left;
        for keyspace in self.keyspaces.values() {
            keyspace.forget_left();
            for (_, space, _) in keyspace.spaces() {
                if left.iter().any(|left| left.space == space) {
                    self.base.claim(space, Some(newest));
                }
            }
        }
    }

    fn keyspace(&self, id: BranchId) -> Result<&Arc<Keyspace>, String> {
        self.keyspaces.get(&id).ok_or_else(|| format!("there is no branch {}", id.0))
    }

    /// main's keyspace.
    #[must_use]
    pub fn main(&self) -> Arc<Keyspace> {
        self.keyspaces[&BranchId::MAIN].clone()
    }

    /// Hands the branches over to the engine, which has main already.
    pub fn attach(mut self, engine: &Engine, branching: Arc<dyn Branching>) {
        let branches = &self.branches;
        self.keyspaces.retain(|id, _| *id != BranchId::MAIN && !branches.is_deleted(*id));
        engine.attach_branches(branching, self.branches, self.keyspaces.into_iter().collect());
    }
}

/// The keyspace of a branch as the archive has it.
///
/// # Errors
/// As [`back`].
pub fn reopen(
    base: &Arc<Base>,
    limits: EncodingLimits,
    databases: DbIndex,
    (id, row): (BranchId, Option<&Branch>),
    ancestors: Vec<Arc<Keyspace>>,
) -> Result<Arc<Keyspace>, String> {
    let keyspace = Arc::new(Keyspace::new(databases, base.directory().seed));
    let backing = BaseBacking::of_branch(base.clone(), limits, ancestors);
    if let Some(row) = row {
        keyspace.count_own(row.forked.next(), false);
    }
    back(&keyspace, id, base, &backing)?;
    Ok(keyspace)
}

/// The keyspace of a branch that the revision `forked` makes; see
/// [`Base::fork`].
pub fn fork(
    base: &Arc<Base>,
    limits: EncodingLimits,
    ancestors: Vec<Arc<Keyspace>>,
    parent: &Spaces,
    at: Revision,
    forked: Revision,
) -> Arc<Keyspace> {
    let databases = DbIndex::try_from(parent.len()).expect("a database is named by 16 bits");
    let child = Arc::new(Keyspace::new(databases, base.directory().seed));
    let backing: Arc<dyn Backing> = BaseBacking::of_branch(base.clone(), limits, ancestors);
    base.fork(&child, &backing, parent, at, forked);
    // The record that makes one from an earlier time gives it keys of its own.
    child.count_own(forked.next(), at == forked);
    child
}

/// Lets `keyspace`, which must be made with the base's seed, be filled with
/// what a branch has there.
///
/// # Errors
/// When there are keys in a database that `keyspace` does not have.
pub fn back(
    keyspace: &Keyspace,
    branch: BranchId,
    base: &Base,
    backing: &Arc<BaseBacking>,
) -> Result<(), String> {
    keyspace.evict_to(backing.clone());
    keyspace.assume_removals(base.revision());
    keyspace.set_past_rules(base.directory().rules_of(branch));
    let directory = base.directory();
    let is_of_branch = branch != BranchId::MAIN;
    let keys = |database: &Database| database.keys.iter().sum::<u64>();
    let beyond = directory.databases.iter().filter(|it| {
        it.branch == branch && it.db >= keyspace.databases() && (is_of_branch || keys(it) > 0)
    });
    if let Some(last) = beyond.max_by_key(|it| it.db) {
        let of_branch = directory.branches.name_of(branch).filter(|_| is_of_branch);
        let of_branch = of_branch.map(|name| {
            let name = String::from_utf8_lossy(name);
            match directory.branches.is_deleted(branch) {
                true => format!(
                    " of the branch '{name}', which is deleted and can come back (BRANCH DELETE {name} NOUNDO ends that)"
                ),
                false => format!(" of the branch '{name}', which keeps the databases that it has used"),
            }
        });
        return Err(format!(
            "the archive in {} has {} keys in database {}{}, but server.databases is {}: raise it to {} at least",
            base.dir().display(),
            keys(last),
            last.db,
            of_branch.unwrap_or_default(),
            keyspace.databases(),
            u32::from(last.db) + 1
        ));
    }
    directory.back(branch, keyspace, backing);
    Ok(())
}
