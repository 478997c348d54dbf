//! States of the past as keyspaces.

use std::collections::{BTreeSet, HashSet};
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, SpaceId};
use keyspace::{Backing, BackingError, Buffers, Keyspace, Purge, SHARDS, Stored};

use super::error::PastError;
use super::key;
use super::source::Source;
use super::trace::{self, Concern};
use crate::directory::Directory;
use crate::elements::Named;
use crate::state::{At, State};

/// More keys than a shard can have.
const MANY: u64 = 1 << 40;

/// A branch in a state of the base, as long as it is kept.
#[derive(Debug)]
pub(super) struct Batch {
    source: Arc<Source>,
    state: State,
    pub(super) branch: BranchId,
    pub(super) directory: Arc<Directory>,
}

impl Batch {
    /// The newest one at or before a revision.
    pub(super) fn at(
        source: &Arc<Source>,
        branch: BranchId,
        revision: Revision,
    ) -> Result<Batch, PastError> {
        // The base makes a state of the moment that a branch begins in.
        source.base.await_fork(branch, revision)?;
        let directory = source.directory_at(revision)?;
        if directory.branches.name_of(branch).is_none() {
            return Err(source.compacted(revision));
        }
        let at = At::Revision(directory.revision);
        let state = State::new(source.base.clone(), at, source.limits);
        Ok(Batch { source: source.clone(), state, branch, directory })
    }

    pub(super) fn revision(&self) -> Revision {
        self.directory.revision
    }

    /// Lets `keyspace` be filled from it.
    pub(super) fn back(self: &Arc<Batch>, keyspace: &Keyspace) {
        // A flush may be taken back behind this state.
        keyspace.keep_left();
        keyspace.evict_to(self.clone());
        self.directory.back(self.branch, keyspace, self);
    }

    /// As [`Backing::fetch`], with only some elements of a large collection, see
    /// [`State::fetch_named`].
    pub(super) fn fetch_named(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        named: &Named<'_>,
    ) -> Result<Option<Stored>, BackingError> {
        let found = self.state.fetch_named(space, hash, key, named)?;
        self.check()?;
        Ok(found)
    }

    /// Whether a key is a large collection of named elements.
    pub(super) fn has_named(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
    ) -> Result<bool, BackingError> {
        let found = self.state.has_named(space, hash, key)?;
        self.check()?;
        Ok(found)
    }

    /// Where a database of its branch stands.
    pub(super) fn space_of(&self, db: DbIndex) -> Option<SpaceId> {
        let mut databases = self.directory.databases.iter();
        let found = databases.find(|it| (it.branch, it.db) == (self.branch, db));
        found.map(|database| database.space)
    }

    /// What was read from it before this is right, if this does not fail.
    fn check(&self) -> Result<(), BackingError> {
        Ok(self.source.keeps_state(self.revision())?)
    }
}

impl Backing for Batch {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        let found = self.state.fetch(space, hash, key)?;
        self.check()?;
        Ok(found)
    }

    fn is_passed_through(&self) -> bool {
        true
    }

    fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        self.buckets(space, bucket..=bucket, each)
    }

    fn buckets(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        self.state.buckets(space, &buckets, each)?;
        self.check()
    }
}

/// The whole state at a revision, and the state of the base that it is made
/// from: that with every transaction since, as a start makes it.
pub(super) fn whole(
    source: &Arc<Source>,
    batch: &Arc<Batch>,
    revision: Revision,
) -> Result<(Revision, Keyspace), PastError> {
    let keyspace = Keyspace::new(source.databases, batch.directory.seed);
    keyspace.set_past_rules(batch.directory.rules_of(batch.branch));
    batch.back(&keyspace);
    let mut buffers = Buffers::default();
    let mut reached = batch.revision();
    let mut applied = Ok(());
    source.changes(batch.revision(), revision, &mut |record| {
        reached = record.revision;
        if record.header.branch != batch.branch {
            return ControlFlow::Continue(());
        }
        let (revision, header) = (record.revision, record.header);
        applied = keyspace
            .apply(
                revision,
                header.time_ms,
                header.db,
                record.effects,
                &source.limits,
                &mut buffers,
            )
            .map_err(|source| PastError::Misfit { revision, source });
        if applied.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    applied?;
    if reached != revision {
        return Err(source.compacted(revision));
    }
    keyspace.forget_left();
    Ok((batch.revision(), keyspace))
}

/// Takes out of a state what was erased later: of that, the base has names.
pub(super) fn hide(keyspace: &Keyspace, purge: &Purge) -> Result<(), BackingError> {
    if purge.db >= keyspace.databases() {
        return Ok(());
    }
    let mut names = BTreeSet::from([purge.key.clone()]);
    for shard in 0..if purge.is_prefix { SHARDS } else { 0 } {
        keyspace.load_shard(purge.db, shard)?;
        keyspace.changed_since(purge.db, shard, Revision::ZERO, &mut |_, key, _| {
            if purge.covers(purge.db, key) {
                names.insert(key.to_vec());
            }
        });
    }
    names.iter().try_for_each(|name| keyspace.take(purge.db, name).map(drop))
}

/// The state at a revision of the keys with some names, in every database: of
/// what was done since the state of the base, only that is done again which
/// concerns them. `None` if another key was given one of the names.
pub(super) fn of_names(
    source: &Arc<Source>,
    batch: &Arc<Batch>,
    revision: Revision,
    names: &HashSet<Vec<u8>>,
) -> Result<Option<Keyspace>, PastError> {
    let keyspace = Keyspace::new(source.databases, batch.directory.seed);
    batch.back(&keyspace);
    let has = |key: &[u8]| names.contains(key);
    let mut buffers = Buffers::default();
    let (mut reached, mut is_moved) = (batch.revision(), false);
    let mut applied = Ok(());
    source.changes(batch.revision(), revision, &mut |record| {
        reached = record.revision;
        if record.header.branch != batch.branch {
            return ControlFlow::Continue(());
        }
        let (revision, header) = (record.revision, record.header);
        let malformed = |source| PastError::Malformed { revision, source };
        let mut apply = |effects: &[u8]| {
            keyspace
                .apply(revision, header.time_ms, header.db, effects, &source.limits, &mut buffers)
                .map_err(|source| PastError::Misfit { revision, source })
        };
        applied = match trace::concern(record.effects, has).map_err(malformed) {
            Ok(Concern::Nothing) => Ok(()),
            Ok(Concern::Whole) => apply(record.effects),
            Ok(Concern::Part) => trace::of_keys(record.effects, has)
                .map_err(malformed)
                .and_then(|effects| apply(&effects)),
            Ok(Concern::Moved) => {
                is_moved = true;
                return ControlFlow::Break(());
            }
            Err(error) => Err(error),
        };
        if applied.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    applied?;
    if is_moved {
        return Ok(None);
    }
    if reached != revision {
        return Err(source.compacted(revision));
    }
    keyspace.forget_left();
    Ok(Some(keyspace))
}

/// The state at a revision for those who look at keys by name.
pub(super) fn of_keys(
    source: &Arc<Source>,
    batch: Arc<Batch>,
    revision: Revision,
) -> (Revision, Keyspace) {
    let (at, seed) = (batch.revision(), batch.directory.seed);
    let keys = Arc::new(Keys { source: source.clone(), batch, revision });
    let keyspace = Keyspace::new(source.databases, seed);
    for db in 0..source.databases {
        // The space says only which database is meant.
        keyspace.back(keys.clone(), db, SpaceId::first_of(db), &[MANY; SHARDS]);
    }
    (at, keyspace)
}

/// Single keys as they were.
#[derive(Debug)]
struct Keys {
    source: Arc<Source>,
    batch: Arc<Batch>,
    revision: Revision,
}

impl Backing for Keys {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        let name = key::Name { db: space.db, hash, key, named: None, is_hasty: false };
        Ok(key::read(&self.source, &self.batch, self.revision, &name, &|| None)?)
    }

    fn bucket(
        &self,
        _: SpaceId,
        _: u16,
        _: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        Err(BackingError::new("this view knows keys by their names only"))
    }
}
