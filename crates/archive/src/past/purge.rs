//! Erasing the past of keys, so that no file has it any more.
//!
//! The transaction that asks for it tells what the keys are now, so nothing
//! after it needs what was before. First the log goes, its newest segment
//! first: what another key has by a rename is worked out from older records,
//! which are still there then. Then the base. Cut short anywhere, it can be
//! done again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, SpaceId};
use keyspace::Purge;
use keyspace::effect::{Effect, Effects};
use log::{RealVfs, SegmentInfo};

use super::erase::{After, after, without, without_decisions};
use super::error::PastError;
use super::horizon::PURGED;
use super::view::Batch;
use super::{Past, horizon, key};
use crate::compaction::Erasure;

/// Keys that have their value from erased ones, as they were after a record.
type Heirs = BTreeMap<(Revision, DbIndex, Vec<u8>), After>;

impl Past {
    /// Erases what keys of a branch were before a purge, which the base has
    /// reached. Answers how many transactions were changed for it.
    fn erase(&self, branch: BranchId, purge: &Purge) -> Result<u64, PastError> {
        let source = &self.source;
        source.know(purge.at)?;
        let spaces = self.spaces_of(branch, purge)?;
        let erasure = Erasure { branch, purge: purge.clone(), spaces };
        // Of the segment being written nothing can be changed.
        source.log.roll().map_err(|fault| PastError::Unrolled(fault.to_string()))?;
        let mut erased = 0;
        for segment in self.segments_with(purge)?.iter().rev() {
            erased += self.erase_in(segment, branch, purge)?;
        }
        source.base.erase(source.oldest(), vec![erasure])?;
        self.cache.clear();
        // Who still reads what is erased holds it.
        let _layout = source.layout.write();
        source.milestones.clear();
        Ok(erased)
    }

    /// Erases what is left of purges up to a revision that the base has reached:
    /// the last one, and those that failed or that the stop of an earlier process
    /// has cut short, also where their branch is gone or has begun anew since.
    /// Answers how many transactions were changed for the last, or why that failed; of
    /// others the log tells.
    ///
    /// Not for the follower's thread, for which those may wait whom this waits
    /// for.
    ///
    /// # Errors
    /// When a backup is being made, databases have changed places meanwhile, or
    /// files cannot be read or written. What is not erased by then can be by
    /// asking again.
    pub fn finish_purges(&self, upto: Revision) -> Result<u64, PastError> {
        let _one = self.purging.lock();
        let directory = self.source.base.directory();
        if directory.revision < upto {
            return Err(PastError::Behind { archived: directory.revision, wanted: upto });
        }
        let done = horizon::read(&PURGED, &RealVfs, &self.dir, self.source.log.id());
        let done = done.unwrap_or_default();
        let mut purges: Vec<(BranchId, &Purge)> = directory.purges().collect();
        purges.retain(|(_, purge)| purge.at > done && purge.at <= upto);
        purges.sort_by_key(|(_, purge)| purge.at);
        let (mut last, mut has_failed) = (Ok(0), false);
        for (branch, purge) in purges {
            // One that cannot be finished is in no other's way.
            if let Err(error) = std::mem::replace(&mut last, Ok(0)) {
                tracing::warn!("erase the past of keys: {error}; the next start tries again");
            }
            last = self.erase_once(branch, purge);
            has_failed |= last.is_err();
            if !has_failed {
                let id = self.source.log.id();
                horizon::write(&PURGED, &RealVfs, &self.dir, id, purge.at)?;
            }
        }
        last
    }

    /// As [`Past::erase`], unless that was done since the start: what comes after one
    /// that failed is not noted as done in the file.
    fn erase_once(&self, branch: BranchId, purge: &Purge) -> Result<u64, PastError> {
        if self.erased.lock().contains(&purge.at) {
            return Ok(0);
        }
        let erased = self.erase(branch, purge)?;
        self.erased.lock().insert(purge.at);
        Ok(erased)
    }

    /// Fails when what keys of a branch's database were cannot be erased, because
    /// it has changed places with another.
    ///
    /// # Errors
    /// That, or when files cannot be read.
    pub fn check_erasable(&self, branch: BranchId, db: DbIndex) -> Result<(), PastError> {
        let at = self.source.log.buffered();
        self.spaces_of(branch, &Purge { db, key: Vec::new(), is_prefix: true, at }).map(drop)
    }

    /// Where keys of the purge's database have stood, in states before it that may
    /// still be read. Where it changed places with another, that cannot be told by
    /// its number.
    fn spaces_of(&self, branch: BranchId, purge: &Purge) -> Result<Vec<SpaceId>, PastError> {
        let source = &self.source;
        let (oldest, at, db) = (source.oldest(), purge.at, purge.db);
        let named = source.base.tagged();
        let mut states: BTreeSet<Revision> = named.range(..oldest.min(at)).copied().collect();
        if oldest <= at {
            states.extend([oldest, at]);
            states.extend(self.left_by(branch, db, (oldest, at))?);
        }
        let (mut spaces, mut others) = (BTreeSet::new(), BTreeMap::new());
        let mut look_at = |state, is_before| {
            let directory = source.base.directory_at(state)?;
            let rest = directory.databases.iter().filter(|it| (it.branch, it.db) != (branch, db));
            others.extend(rest.map(|database| (database.space, database.db)));
            spaces.extend(directory.space_of(branch, db).filter(|_| is_before));
            Ok::<_, PastError>(())
        };
        states.iter().try_for_each(|state| look_at(*state, true))?;
        // Of what came since, nothing is to be erased.
        if oldest > at {
            look_at(oldest, false)?;
        }
        match others.iter().find(|(space, _)| spaces.contains(space)) {
            Some((_, &b)) => Err(PastError::Mixed { a: db, b }),
            None => Ok(spaces.into_iter().collect()),
        }
    }

    /// The last revisions in which a branch's database stood where it did before
    /// it was flushed or the branch began anew, after a state up to another.
    fn left_by(
        &self,
        branch: BranchId,
        db: DbIndex,
        (after, upto): (Revision, Revision),
    ) -> Result<Vec<Revision>, PastError> {
        let before = |revision: Revision| Revision(revision.0 - 1);
        // The base made a state of each moment in which it began.
        let (mut left, mut state) = (Vec::new(), upto);
        while let Some(row) = self.source.base.directory_at(state)?.branches.get(branch)
            && row.forked > after
        {
            state = before(row.forked);
            left.push(state);
        }
        let mut swapped = Ok(());
        self.wide(after, upto, &mut |record| {
            let effects = Effects::new(record.effects).flatten();
            for effect in effects.filter(|_| record.header.branch == branch) {
                match effect {
                    Effect::Swap { a, b } if a == db || b == db => {
                        swapped = Err(PastError::Swapped { a, b, revision: record.revision });
                    }
                    Effect::Flush { db: whole } | Effect::Return { db: whole, .. }
                        if whole == db =>
                    {
                        left.push(before(record.revision));
                    }
                    _ => {}
                }
            }
            ControlFlow::Continue(())
        })?;
        swapped.map(|()| left)
    }

    /// Sealed segments that may have something to be erased, oldest first.
    fn segments_with(&self, purge: &Purge) -> Result<Vec<SegmentInfo>, PastError> {
        let source = &self.source;
        let mut segments = source.log.segments();
        segments.retain(|segment| segment.is_sealed && segment.first < purge.at);
        // Decisions of merges are found by reading all that there is.
        let has_merges = source.base.directory().branches.next_merge() > 1;
        if purge.is_prefix || has_merges {
            return Ok(segments);
        }
        let _layout = source.layout.read();
        let mut named = BTreeSet::new();
        for hit in source.newest_first(&purge.key, source.oldest(), purge.at) {
            named.insert(hit?.place.segment);
        }
        // There is no index of what is older than the horizon.
        let oldest = source.oldest();
        segments.retain(|segment| segment.first <= oldest || named.contains(&segment.first));
        Ok(segments)
    }

    fn erase_in(
        &self,
        segment: &SegmentInfo,
        branch: BranchId,
        purge: &Purge,
    ) -> Result<u64, PastError> {
        let source = &self.source;
        let heirs = self.heirs_in(segment, branch, purge)?;
        let mut malformed = Ok(());
        let mut erased = 0;
        let rewritten = source.log.rewrite(segment.first, &mut |record| {
            if record.revision >= purge.at {
                return None;
            }
            let revision = record.revision;
            let heir = &mut |db, key: &[u8]| heirs.get(&(revision, db, key.to_vec())).cloned()?;
            // Whose a merge is, its record's header does not say.
            let undecided = without_decisions(record.effects, branch, purge);
            let changed = undecided.and_then(|undecided| {
                if record.header.branch != branch {
                    return Ok(undecided);
                }
                let effects = undecided.as_deref().unwrap_or(record.effects);
                Ok(without(effects, record.header.db, purge, heir)?.or(undecided))
            });
            match changed {
                Ok(changed) => {
                    erased += u64::from(changed.is_some());
                    changed
                }
                Err(source) => {
                    malformed = Err(PastError::Malformed { revision, source });
                    None
                }
            }
        })?;
        malformed?;
        let Some(rewritten) = rewritten else { return Ok(0) };
        // Whoever looks a place up uses it before this.
        let _layout = source.layout.write();
        source.history.forget_index(segment.first)?;
        let placed = rewritten.put_in_place(crate::backup::HOLDER);
        // Also where it is in its place and the folder could not be synced.
        source.blocks.clear();
        source.history.renew(segment.first)?;
        if !placed? {
            let is_there = source.log.segments().iter().any(|found| found.first == segment.first);
            let revision = segment.last;
            return if is_there { Err(PastError::BackedUp { revision }) } else { Ok(0) };
        }
        Ok(erased)
    }

    /// The keys that a segment's records make out of those to be erased, and
    /// what they were then.
    fn heirs_in(
        &self,
        segment: &SegmentInfo,
        branch: BranchId,
        purge: &Purge,
    ) -> Result<Heirs, PastError> {
        let source = &self.source;
        let upto = segment.last.min(Revision(purge.at.0 - 1));
        let after_first = Revision(segment.first.0 - 1).max(source.oldest());
        let mut names = Vec::new();
        let mut malformed = Ok(());
        if after_first < upto {
            source.changes(after_first, upto, &mut |record| {
                if record.header.branch != branch {
                    return ControlFlow::Continue(());
                }
                let revision = record.revision;
                let heir = &mut |db, key: &[u8]| {
                    names.push((revision, db, key.to_vec()));
                    None
                };
                match without(record.effects, record.header.db, purge, heir) {
                    Ok(_) => ControlFlow::Continue(()),
                    Err(source) => {
                        malformed = Err(PastError::Malformed { revision, source });
                        ControlFlow::Break(())
                    }
                }
            })?;
        }
        malformed?;
        let mut heirs = Heirs::new();
        for (revision, db, key) in names {
            let batch = Arc::new(Batch::at(source, branch, revision)?);
            let hash = keyspace::hash_of(batch.directory.seed, &key);
            let name = key::Name { db, hash, key: &key, named: None, is_hasty: false };
            let found = key::read(source, &batch, revision, &name, &|| None)?;
            heirs.insert((revision, db, key), after(found));
        }
        Ok(heirs)
    }
}
