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
use keyspace::effect::Effect;
use keyspace::{
    Backing, Branches, Buffers, EncodingLimits, Keyspace, OneString, PastRules, Purge, SHARDS,
    StringRecord, Turn, WARM_KEYS_MAX,
};
use log::{Record, RecordHeader};
use smallvec::SmallVec;

use crate::base_tree::Base;
use crate::codec;
use crate::directory::{Database, Directory, Left};
use crate::error::ArchiveError;
use crate::large::LargeKeys;
use crate::overlay::needed;
use crate::sorted_run::{SortedRun, write_runs};
use crate::state::{At, State};
use crate::waiting::{Few, OnlyKey, Waiting};

/// What a delta had that is in the base by now.
pub(crate) type Written = BTreeMap<BranchId, Keyspace>;

/// A database that a batch takes from.
struct Source<'d> {
    /// What its entries' keys begin with.
    prefix: Vec<u8>,
    keyspace: &'d Keyspace,
    space: SpaceId,
    /// Changes after this revision are new to the base.
    since: Revision,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Delta {
    base: Arc<Base>,
    backing: Arc<dyn Backing>,
    large: Arc<LargeKeys>,
    limits: EncodingLimits,
    databases: DbIndex,
    /// Of the hashes of all its keyspaces.
    seed: u64,
    keyspaces: BTreeMap<BranchId, Keyspace>,
    /// The branches that there are at its revision.
    branches: Branches,
    /// How many databases they were given.
    begun_with: BTreeMap<BranchId, DbIndex>,
    /// What was erased on branches that have begun anew since or are gone.
    ended: Vec<(BranchId, Purge)>,
    buffers: Buffers,
    /// The newest record in it, and its time.
    newest: (Revision, u64),
    log_bytes: u64,
    /// Records that are part of it and not yet in `keyspaces`.
    waiting: Waiting,
}

impl Delta {
    /// An empty one on top of the base as it is now.
    pub(crate) fn new(
        base: Arc<Base>,
        backing: Arc<dyn Backing>,
        limits: EncodingLimits,
        databases: DbIndex,
        waiting: Waiting,
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
            seed: directory.seed,
            keyspaces: BTreeMap::new(),
            branches: directory.branches.clone(),
            begun_with: directory.begun_with.clone(),
            ended: Vec::new(),
            buffers: Buffers::default(),
            newest,
            log_bytes: 0,
            waiting,
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
            let keyspace = empty(self.databases, self.seed);
            keyspace.evict_to(self.large.clone());
            keyspace.set_past_rules(directory.rules_of(branch));
            directory.back(branch, &keyspace, &self.large);
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
        only: Option<OnlyKey<'_>>,
    ) -> Result<bool, ArchiveError> {
        debug_assert_eq!(record.revision, self.newest.0.next());
        let mut is_state = false;
        let branch = record.header.branch;
        match only {
            Some(_) if !self.waiting.takes(branch) => self.apply(record)?,
            Some(_) if self.waiting.is_too_large(record) => {
                self.apply_waiting()?;
                self.apply(record)?;
            }
            Some(only) => {
                self.waiting.push(record, &only, keyspace::hash_of(self.seed, only.key));
                if self.waiting.is_full() {
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

    /// Takes keys out of a branch that were erased after its newest record, as if
    /// that had done so: of those the base has names.
    pub(crate) fn forget(&mut self, branch: BranchId, purge: &Purge) -> Result<(), ArchiveError> {
        self.apply_waiting()?;
        if self.branches.name_of(branch).is_none() || purge.db >= self.databases {
            return Ok(());
        }
        let mut names = BTreeSet::from([purge.key.clone()]);
        let base = self.base.clone();
        let directory = base.directory();
        let is_it = |it: &&Database| purge.is_prefix && (it.branch, it.db) == (branch, purge.db);
        if let Some(Database { space, .. }) = directory.databases.iter().find(is_it) {
            let state = State::new(base.clone(), At::Newest, self.limits);
            let read = state.buckets(*space, &(0..=u16::MAX), &mut |key, _| {
                if purge.covers(purge.db, key) {
                    names.insert(key.to_vec());
                }
            });
            read.map_err(|error| ArchiveError::Damaged {
                dir: base.dir().to_owned(),
                what: error.to_string(),
            })?;
        }
        let (revision, time_ms) = self.newest;
        let header = RecordHeader { time_ms, db: purge.db, branch };
        for key in names {
            let mut effects = Vec::new();
            Effect::Key { key: &key, existed: None }.encode(&mut effects);
            Effect::Erase.encode(&mut effects);
            self.apply(&Record { revision, header, effects: &effects })?;
        }
        Ok(())
    }

    fn apply_waiting(&mut self) -> Result<(), ArchiveError> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let branch = waiting.branch();
        waiting.drain(|few| match few {
            Few::Strings(strings) => {
                let applied = self.keyspace(branch).apply_strings(strings);
                applied.map_err(|(revision, error)| self.misfit(revision, error.to_string()))
            }
            Few::Others(records) => {
                let db = records[0].0.header.db;
                let of_db = records.iter().filter(|(record, _)| record.header.db == db);
                let keys: SmallVec<[&[u8]; WARM_KEYS_MAX]> = of_db.map(|(_, key)| *key).collect();
                self.keyspace(branch).warm(db, &keys);
                records.iter().try_for_each(|(record, _)| self.apply(record))
            }
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
            Some(Turn::Gone(branch)) => self.end(branch),
            Some(Turn::Fork { branch, state }) => {
                let (spaces, at) = match state {
                    None => (self.keyspace(branch.parent).spaces(), revision),
                    Some(at) => (self.base.spaces_at(branch.parent, self.databases, at)?, at),
                };
                let child = empty(self.databases, self.seed);
                let backing: Arc<dyn Backing> = self.large.clone();
                self.base.fork(&child, &backing, &spaces, at, revision);
                self.end(branch.id);
                self.begun_with.insert(branch.id, self.databases);
                self.keyspaces.insert(branch.id, child);
            }
        }
        Ok(true)
    }

    /// Forgets a branch's keys.
    fn end(&mut self, branch: BranchId) {
        let Some(keyspace) = self.keyspaces.remove(&branch) else { return };
        let rules = keyspace.past_rules();
        self.ended.extend(rules.purges().iter().map(|purge| (branch, purge.clone())));
    }

    fn misfit(&self, revision: Revision, what: String) -> ArchiveError {
        ArchiveError::Misfit { dir: self.base.dir().to_owned(), revision, what }
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), ArchiveError> {
        let (revision, RecordHeader { time_ms, db, branch, .. }) = (record.revision, record.header);
        // Most records: nothing in them is for a large collection.
        if let Some(string) = OneString::of(record.effects) {
            let hash = keyspace::hash_of(self.seed, string.key);
            let string = StringRecord { revision, time_ms, db, hash, string };
            let applied = self.keyspace(branch).apply_string(&string);
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
    /// empty; in haste with a thread more. Answers what it had, which takes time
    /// to drop.
    pub(crate) fn write(&mut self, in_haste: bool) -> Result<Written, ArchiveError> {
        self.apply_waiting()?;
        let before = self.base.directory();
        let known = known(&before);
        let mut sources = Vec::new();
        for keyspace in self.keyspaces.values() {
            let stands = keyspace.spaces().into_iter().map(|(_, space, _)| space);
            // What was flushed and may come back is complete with this batch.
            let left = keyspace.left().into_iter().map(|(space, _)| space);
            for space in stands.chain(left) {
                let mut prefix = Vec::new();
                codec::put_space(&mut prefix, space);
                // Of a space that the base knows, what changed since; of a new
                // one that lies over another, what was not there; else all.
                let below = self.base.overlays().under(space);
                let since = match below {
                    _ if known.contains(&space) => before.revision,
                    Some((_, at)) => at,
                    None => Revision::ZERO,
                };
                sources.push(Source { prefix, keyspace, space, since });
            }
        }
        sources.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        let mut batch = self.base.batch()?;
        let large = self.large.drain();
        let parts = sources.iter().flat_map(|source| (0..SHARDS).map(move |shard| (source, shard)));
        let fill = |run: &mut SortedRun, (source, shard): (&Source<'_>, usize)| {
            let Source { prefix, keyspace, space, since } = source;
            keyspace.changed_in(*space, shard, *since, &mut |hash, key, change| {
                run.add(prefix, hash, key, &change);
            });
            large.each(keyspace, *space, hashes_of(shard), &mut |pending| run.add_pending(pending));
        };
        let run = SortedRun::new(self.newest.0, self.base.large_from());
        write_runs(run, parts, &fill, &mut batch, in_haste)?;
        drop(sources);
        batch.finish(self.directory(&before, &known)?)?;
        let (base, backing) = (self.base.clone(), self.backing.clone());
        let waiting = std::mem::take(&mut self.waiting);
        let fresh = Delta::new(base, backing, self.limits, self.databases, waiting);
        let written = std::mem::replace(self, fresh);
        Ok(written.keyspaces)
    }

    /// The directory once this delta is written. `known` are the spaces of the one
    /// `before`.
    fn directory(
        &self,
        before: &Directory,
        known: &BTreeSet<SpaceId>,
    ) -> Result<Directory, ArchiveError> {
        let main = self.keyspaces.get(&BranchId::MAIN).expect("made with the delta");
        let mut begun_with = self.begun_with.clone();
        begun_with.retain(|branch, _| self.branches.get(*branch).is_some());
        let lapsed = self.branches.pins().filter(|pin| before.lapsed.contains(pin)).collect();
        let mut after = Directory {
            revision: self.newest.0,
            time_ms: self.newest.1,
            seed: before.seed,
            database: before.database,
            databases: Vec::new(),
            left: Vec::new(),
            overlays: Vec::new(),
            branches: self.branches.clone(),
            begun_with,
            rules: main.past_rules(),
            purged: self.purged(before),
            lapsed,
        };
        // A branch that nobody wrote to stays as it is, unless it is gone.
        let is_untouched = |database: &&Database| {
            !self.keyspaces.contains_key(&database.branch)
                && self.branches.name_of(database.branch).is_some()
        };
        let mut databases: Vec<Database> =
            before.databases.iter().filter(is_untouched).cloned().collect();
        let mut stood_in = BTreeSet::new();
        for (&branch, keyspace) in &self.keyspaces {
            for (db, space, keys) in keyspace.spaces() {
                stood_in.insert(space);
                // Of a branch, what the tree may have of a space is erased when it
                // is gone, if it is named until then. main is always there.
                let is_named = space != after.unnamed(branch, db)
                    || keys.iter().any(|&count| count > 0)
                    || (branch != BranchId::MAIN && known.contains(&space));
                if is_named {
                    databases.push(Database { branch, db, space, keys: Arc::new(keys) });
                }
            }
        }
        // As of this batch, whatever was known of them before: they may have had
        // databases meanwhile.
        let put_by = self.keyspaces.values().flat_map(Keyspace::left);
        let mut left: Vec<Left> =
            put_by.map(|(space, keys)| Left { space, at: self.newest.0, keys }).collect();
        let anew: BTreeSet<SpaceId> = left.iter().map(|left| left.space).collect();
        for &old in &before.left {
            if anew.contains(&old.space) {
                continue;
            }
            // What lies below one is read through it, although it has nothing.
            let is_read = self.base.overlays().under(old.space).is_some()
                && !self.base.may_forget(&old, &self.branches);
            if !stood_in.contains(&old.space) && (is_read || self.base.has_any(old.space)?) {
                left.push(old);
            }
        }
        // A database without keys may not be named, and is not gone for that.
        let is_gone = |old: &&Database| {
            !is_untouched(old) && !stood_in.contains(&old.space) && !anew.contains(&old.space)
        };
        let gone = before.databases.iter().filter(is_gone);
        left.extend(gone.map(|old| Left {
            space: old.space,
            at: self.newest.0,
            keys: old.keys.iter().sum(),
        }));
        let stands = databases.iter().map(|database| database.space);
        let spaces = stands.chain(left.iter().map(|left| left.space)).collect();
        after.overlays = needed(&self.base.overlays().all(), &spaces);
        (after.databases, after.left) = (databases, left);
        Ok(after)
    }
}

impl Delta {
    /// What was erased on branches once this delta is written.
    fn purged(&self, before: &Directory) -> BTreeMap<BranchId, Arc<PastRules>> {
        let known = before.purged.iter();
        let known = known.flat_map(|(id, it)| it.purges().iter().map(|purge| (*id, purge.clone())));
        let mut purges = BTreeMap::new();
        for (branch, purge) in known.chain(self.ended.iter().cloned()) {
            let row = self.branches.get(branch);
            let is_kept = match row.is_some_and(|row| purge.at > row.forked) {
                // A branch that was touched knows itself.
                true => !self.keyspaces.contains_key(&branch),
                // Nobody else will say that it is still to be done.
                false => purge.at > self.base.horizon(),
            };
            if is_kept {
                purges.insert((branch, purge.at), purge);
            }
        }
        for (&branch, keyspace) in self.keyspaces.iter().filter(|(id, _)| **id != BranchId::MAIN) {
            let rules = keyspace.past_rules();
            let own = rules.purges().iter().map(|purge| ((branch, purge.at), purge.clone()));
            purges.extend(own);
        }
        let mut purged: BTreeMap<BranchId, Vec<Purge>> = BTreeMap::new();
        for ((branch, _), purge) in purges {
            purged.entry(branch).or_default().push(purge);
        }
        let rules = |(branch, it)| (branch, Arc::new(PastRules::of_purges(it)));
        purged.into_iter().map(rules).collect()
    }
}

/// The spaces that a directory names.
fn known(directory: &Directory) -> BTreeSet<SpaceId> {
    let stands = directory.databases.iter().map(|database| database.space);
    stands.chain(directory.left.iter().map(|left| left.space)).collect()
}

/// A keyspace that knows everything that is removed from it.
fn empty(databases: DbIndex, seed: u64) -> Keyspace {
    let keyspace = Keyspace::new(databases, seed);
    keyspace.remember_removals();
    keyspace.keep_left();
    keyspace
}

/// The hashes of a shard's keys.
fn hashes_of(shard: usize) -> RangeInclusive<u64> {
    let first = shard as u64 * (u64::MAX / SHARDS as u64 + 1);
    first..=first + u64::MAX / SHARDS as u64
}
