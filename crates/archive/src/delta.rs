//! The delta: what the log has changed since the base's revision.
//!
//! It is a keyspace whose misses are filled from the base, so a record is
//! applied here as it is anywhere else, and a key overwritten a thousand times
//! is written to the base once. Of large collections it has only what changed
//! (`large.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, SpaceId};
use keyspace::{
    Backing, Branches, Buffers, EncodingLimits, Keyspace, OneString, SHARDS, Turn, WARM_KEYS_MAX,
};
use log::{Record, RecordHeader};
use smallvec::SmallVec;

use crate::base_tree::Base;
use crate::codec;
use crate::directory::{Database, Directory, Left};
use crate::error::ArchiveError;
use crate::large::LargeKeys;
use crate::overlay::needed;
use crate::sorted_run::SortedRun;
use crate::waiting::{OnlyKey, Waiting};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Delta {
    base: Arc<Base>,
    backing: Arc<dyn Backing>,
    large: Arc<LargeKeys>,
    limits: EncodingLimits,
    databases: DbIndex,
    keyspaces: BTreeMap<BranchId, Keyspace>,
    /// The branches that there are at its revision.
    branches: Branches,
    buffers: Buffers,
    /// The newest record in it, and its time.
    newest: (Revision, u64),
    log_bytes: u64,
    /// Records that are part of it and not yet in `keyspaces`.
    waiting: Waiting,
    waiting_bytes_max: usize,
}

impl Delta {
    /// An empty one on top of the base as it is now. Records of up to
    /// `waiting_bytes_max` wait to be applied together.
    pub(crate) fn new(
        base: Arc<Base>,
        backing: Arc<dyn Backing>,
        limits: EncodingLimits,
        databases: DbIndex,
        waiting_bytes_max: usize,
    ) -> Delta {
        let directory = base.directory();
        let newest = (directory.revision, directory.time_ms);
        let large = Arc::new(LargeKeys::new(base.clone(), backing.clone(), limits));
        let mut delta = Delta {
            base,
            backing,
            large,
            limits,
            databases,
            keyspaces: BTreeMap::new(),
            branches: directory.branches.clone(),
            buffers: Buffers::default(),
            newest,
            log_bytes: 0,
            waiting: Waiting::default(),
            waiting_bytes_max,
        };
        delta.keyspace(BranchId::MAIN);
        delta
    }

    /// The newest revision it has.
    pub(crate) fn revision(&self) -> Revision {
        self.newest.0
    }

    /// Whether it says nothing that the base does not.
    pub(crate) fn is_empty(&self) -> bool {
        self.newest.0 == self.base.revision()
    }

    /// Bytes of effects applied.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        let applied: usize = self.keyspaces.values().map(Keyspace::memory_bytes).sum();
        applied + self.waiting.bytes() + self.large.memory_bytes()
    }

    fn keyspace(&mut self, branch: BranchId) -> &mut Keyspace {
        self.keyspaces.entry(branch).or_insert_with(|| {
            let directory = self.base.directory();
            let keyspace = empty(self.databases, directory.seed);
            keyspace.set_past_rules(directory.rules_of(branch));
            for database in &directory.databases {
                if database.branch == branch && database.db < self.databases {
                    let (db, space) = (database.db, database.space);
                    keyspace.back(self.large.clone(), db, space, &database.keys);
                }
            }
            keyspace
        })
    }

    /// Takes a record of the log, which must be the next one. Answers whether
    /// the state that it ends with is to be one of the base's.
    pub(crate) fn add(&mut self, record: &Record<'_>) -> Result<bool, ArchiveError> {
        self.add_known(record, OnlyKey::of(record))
    }

    /// As [`Delta::add`], of a record that was looked at already.
    pub(crate) fn add_known(
        &mut self,
        record: &Record<'_>,
        only: Option<OnlyKey>,
    ) -> Result<bool, ArchiveError> {
        debug_assert_eq!(record.revision, self.newest.0.next());
        let mut is_state = false;
        let branch = record.header.branch;
        match only {
            Some(_) if !self.waiting.takes(branch) => self.apply(record)?,
            Some(only) => {
                let shard = self.keyspace(branch).shard_of(&record.effects[only.at.clone()]);
                self.waiting.push(shard, record, only);
                if self.waiting.bytes() >= self.waiting_bytes_max {
                    self.apply_waiting()?;
                }
            }
            None => {
                self.apply_waiting()?;
                is_state = self.turn(record)?;
                self.apply(record)?;
            }
        }
        self.newest = (record.revision, record.header.time_ms);
        self.log_bytes += record.effects.len() as u64;
        Ok(is_state)
    }

    fn apply_waiting(&mut self) -> Result<(), ArchiveError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let branch = waiting.branch();
        waiting.drain(|records| {
            let db = records[0].0.header.db;
            let keys: SmallVec<[&[u8]; WARM_KEYS_MAX]> =
                records.iter().filter(|(r, _)| r.header.db == db).map(|(_, key)| *key).collect();
            self.keyspace(branch).warm(db, &keys);
            records.iter().try_for_each(|(record, _)| self.apply(record))
        })?;
        // What it allocated serves again.
        self.waiting = waiting;
        Ok(())
    }

    /// Does what a record says of branches and tags. Answers whether somebody
    /// will read the state that it ends with.
    fn turn(&mut self, record: &Record<'_>) -> Result<bool, ArchiveError> {
        let (revision, time_ms) = (record.revision, record.header.time_ms);
        let turn = self
            .branches
            .apply(revision, time_ms, record.effects)
            .map_err(|what| self.misfit(revision, what.to_owned()))?;
        match turn {
            None => return Ok(false),
            Some(Turn::Tagged) => {}
            Some(Turn::Gone(branch)) => drop(self.keyspaces.remove(&branch)),
            Some(Turn::Fork { branch, state }) => {
                let (spaces, at) = match state {
                    None => (self.keyspace(branch.parent).spaces(), revision),
                    Some(at) => (self.base.spaces_at(branch.parent, self.databases, at)?, at),
                };
                let child = empty(self.databases, self.base.directory().seed);
                let backing: Arc<dyn Backing> = self.large.clone();
                self.base.fork(&child, &backing, &spaces, at, revision);
                self.keyspaces.insert(branch.id, child);
            }
        }
        Ok(true)
    }

    fn misfit(&self, revision: Revision, what: String) -> ArchiveError {
        ArchiveError::Misfit { dir: self.base.dir().to_owned(), revision, what }
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), ArchiveError> {
        let (revision, RecordHeader { time_ms, db, branch, .. }) = (record.revision, record.header);
        // Most records: nothing in them is for a large collection.
        if let Some(string) = OneString::of(record.effects) {
            let applied = self.keyspace(branch).apply_string(revision, time_ms, db, &string);
            return applied.map_err(|error| self.misfit(revision, error.to_string()));
        }
        let large = self.large.clone();
        let effects = large.take(self.keyspace(branch), record)?;
        if effects.is_empty() {
            return Ok(());
        }
        let mut buffers = std::mem::take(&mut self.buffers);
        let limits = self.limits;
        let keyspace = self.keyspace(branch);
        let applied = keyspace.apply(revision, time_ms, db, &effects, &limits, &mut buffers);
        self.buffers = buffers;
        applied.map_err(|error| self.misfit(revision, error.to_string()))
    }

    /// Moves the base forward to this delta's revision and leaves the delta
    /// empty.
    pub(crate) fn write(&mut self) -> Result<(), ArchiveError> {
        self.apply_waiting()?;
        let before = self.base.directory();
        let mut spaces = Vec::new();
        for keyspace in self.keyspaces.values() {
            for (db, space, _) in keyspace.spaces() {
                let mut prefix = Vec::new();
                codec::put_space(&mut prefix, space);
                // Of a space that the base knows, what changed since; of a new
                // one that lies over another, what was not there; else all.
                let is_known = before.databases.iter().any(|database| database.space == space);
                let below = self.base.overlays().under(space);
                let since = match below {
                    _ if is_known => before.revision,
                    Some((_, at)) => at,
                    None => Revision::ZERO,
                };
                spaces.push((prefix, keyspace, (db, space), since));
            }
        }
        spaces.sort_by(|a, b| a.0.cmp(&b.0));
        let mut batch = self.base.batch()?;
        let large = self.large.drain();
        let mut run = SortedRun::new(self.newest.0, self.base.large_from());
        for (prefix, keyspace, (db, space), since) in spaces {
            for shard in 0..SHARDS {
                keyspace.changed_since(db, shard, since, &mut |hash, key, change| {
                    run.add(&prefix, hash, key, &change);
                });
                large.each(keyspace, db, space, hashes_of(shard), &mut |pending| {
                    run.add_pending(pending);
                });
                run.write(&mut batch)?;
            }
        }
        batch.finish(self.directory(&before)?)?;
        let (base, backing) = (self.base.clone(), self.backing.clone());
        let waiting = std::mem::take(&mut self.waiting);
        *self = Delta::new(base, backing, self.limits, self.databases, self.waiting_bytes_max);
        self.waiting = waiting;
        Ok(())
    }

    /// The directory once this delta is written.
    fn directory(&self, before: &Directory) -> Result<Directory, ArchiveError> {
        // A branch that nobody wrote to stays as it is, unless it is gone.
        let untouched = before.databases.iter().filter(|database| {
            !self.keyspaces.contains_key(&database.branch)
                && self.branches.name_of(database.branch).is_some()
        });
        let mut databases: Vec<Database> = untouched.cloned().collect();
        let mut stood_in = BTreeSet::new();
        for (&branch, keyspace) in &self.keyspaces {
            for (db, space, keys) in keyspace.spaces() {
                stood_in.insert(space);
                if space != SpaceId::first_of(db) || keys.iter().any(|&count| count > 0) {
                    databases.push(Database { branch, db, space, keys: Box::new(keys) });
                }
            }
        }
        let mut left = Vec::new();
        for &old in &before.left {
            // What lies below one is read through it, although it has nothing.
            let is_read = self.base.overlays().under(old.space).is_some()
                && !self.base.may_forget(&old, &self.branches);
            if !stood_in.contains(&old.space) && (is_read || self.base.has_any(old.space)?) {
                left.push(old);
            }
        }
        // A database without keys may not be named, and is not gone for that.
        let is_gone = |old: &&Database| {
            !stood_in.contains(&old.space)
                && !databases.iter().any(|database| database.space == old.space)
        };
        let gone = before.databases.iter().filter(is_gone);
        left.extend(gone.map(|old| Left {
            space: old.space,
            at: self.newest.0,
            keys: old.keys.iter().sum(),
        }));
        let (revision, time_ms) = self.newest;
        let (seed, database) = (before.seed, before.database);
        let stands = databases.iter().map(|database| database.space);
        let spaces = stands.chain(left.iter().map(|left| left.space)).collect();
        let overlays = needed(&self.base.overlays().all(), &spaces);
        let branches = self.branches.clone();
        let main = self.keyspaces.get(&BranchId::MAIN).expect("made with the delta");
        let rules = main.past_rules();
        let mut purged = before.purged.clone();
        purged.retain(|&branch, _| branches.name_of(branch).is_some());
        for (&branch, keyspace) in self.keyspaces.iter().filter(|(id, _)| **id != BranchId::MAIN) {
            let rules = keyspace.past_rules();
            match rules.is_empty() {
                true => purged.remove(&branch),
                false => purged.insert(branch, rules),
            };
        }
        Ok(Directory {
            revision,
            time_ms,
            seed,
            database,
            databases,
            left,
            overlays,
            branches,
            rules,
            purged,
        })
    }
}

/// A keyspace that knows everything that is removed from it.
fn empty(databases: DbIndex, seed: u64) -> Keyspace {
    let keyspace = Keyspace::new(databases, seed);
    keyspace.remember_removals();
    keyspace
}

/// The hashes of a shard's keys.
fn hashes_of(shard: usize) -> RangeInclusive<u64> {
    let first = shard as u64 * (u64::MAX / SHARDS as u64 + 1);
    first..=first + u64::MAX / SHARDS as u64
}
