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
use keyspace::effect::{Effect, Effects};
use keyspace::{Branch, Purge};
use log::{RealVfs, SegmentInfo};

use super::erase::{After, after, without};
use super::error::PastError;
use super::horizon::PURGED;
use super::view::Batch;
use super::{HOLDER, Past, horizon, key};
use crate::compaction::Erasure;

/// Keys that have their value from erased ones, as they were after a record.
type Heirs = BTreeMap<(Revision, DbIndex, Vec<u8>), After>;

impl Past {
    /// Erases what keys of a branch were before a purge, which the base must
    /// have reached. Answers how many transactions were changed for it.
    fn erase(&self, branch: BranchId, purge: &Purge) -> Result<u64, PastError> {
        let source = &self.source;
        let (archived, wanted) = (source.base.revision(), purge.at);
        if archived < wanted {
            return Err(PastError::Behind { archived, wanted });
        }
        source.know(purge.at)?;
        let erasure = Erasure { purge: purge.clone(), spaces: self.spaces_of(branch, purge)? };
        // Of the segment being written nothing can be changed.
        source.log.roll().map_err(|fault| PastError::Unrolled(fault.to_string()))?;
        let mut erased = 0;
        for segment in self.segments_with(purge)?.iter().rev() {
            erased += self.erase_in(segment, branch, purge)?;
        }
        source.base.erase(source.oldest(), vec![erasure])?;
        self.cache.clear();
        Ok(erased)
    }

    /// Erases what is left of purges, all that there ever were, up to a revision
    /// that the base has reached: the last one, and those that failed or that
    /// the stop of an earlier process has cut short. Answers how many
    /// transactions were changed for the last.
    ///
    /// Not for the follower's thread, for which those may wait whom this waits
    /// for.
    ///
    /// # Errors
    /// When a backup is being made, databases have changed places meanwhile, or
    /// files cannot be read or written. What is not erased by then can be by
    /// asking again.
    pub fn finish_purges(
        &self,
        mut purges: Vec<(BranchId, Purge)>,
        upto: Revision,
    ) -> Result<u64, PastError> {
        let _one = self.purging.lock();
        let done = horizon::read(&PURGED, &RealVfs, &self.dir, self.source.log.id());
        let done = done.unwrap_or_default();
        purges.retain(|(_, purge)| purge.at > done && purge.at <= upto);
        purges.sort_by_key(|(_, purge)| purge.at);
        let mut erased = 0;
        for (branch, purge) in &purges {
            erased = self.erase(*branch, purge)?;
            let id = self.source.log.id();
            horizon::write(&PURGED, &RealVfs, &self.dir, id, purge.at)?;
        }
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

    /// Where keys of the purge's database have stood, in states that may still
    /// be read. Where it changed places with another, that cannot be told by its
    /// number.
    fn spaces_of(&self, branch: BranchId, purge: &Purge) -> Result<Vec<SpaceId>, PastError> {
        let source = &self.source;
        let (oldest, at) = (source.oldest(), purge.at);
        let mut spaces = BTreeSet::new();
        let mut others = BTreeMap::new();
        let named = source.base.tagged();
        let states = named.range(..oldest).copied().chain([oldest, at]);
        for state in states {
            let directory = source.base.directory_at(state)?;
            let mut found = (branch == BranchId::MAIN).then(|| SpaceId::first_of(purge.db));
            for database in &directory.databases {
                if (database.branch, database.db) == (branch, purge.db) {
                    found = Some(database.space);
                } else {
                    others.insert(database.space, database.db);
                }
            }
            spaces.extend(found);
        }
        let mut swapped = Ok(());
        self.wide(oldest, at, &mut |record| {
            for effect in Effects::new(record.effects).flatten() {
                match effect {
                    Effect::Fork { row, .. } => {
                        let is_ours = Branch::decode(row).is_ok_and(|made| made.id == branch);
                        let born = record.revision;
                        spaces.extend(is_ours.then_some(SpaceId { born, db: purge.db }));
                    }
                    _ if record.header.branch != branch => {}
                    Effect::Swap { a, b } if a == purge.db || b == purge.db => {
                        swapped = Err(PastError::Swapped { a, b, revision: record.revision });
                    }
                    Effect::Return { db, space, .. } if db == purge.db => {
                        spaces.insert(space);
                    }
                    Effect::Flush { db } if db == purge.db => {
                        spaces.insert(SpaceId { born: record.revision, db });
                    }
                    _ => {}
                }
            }
            ControlFlow::Continue(())
        })?;
        swapped?;
        match others.iter().find(|(space, _)| spaces.contains(space)) {
            Some((_, &b)) => Err(PastError::Mixed { a: purge.db, b }),
            None => Ok(spaces.into_iter().collect()),
        }
    }

    /// Sealed segments that may have something to be erased, oldest first.
    fn segments_with(&self, purge: &Purge) -> Result<Vec<SegmentInfo>, PastError> {
        let source = &self.source;
        let mut segments = source.log.segments();
        segments.retain(|segment| segment.is_sealed && segment.first < purge.at);
        if purge.is_prefix {
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
            if record.revision >= purge.at || record.header.branch != branch {
                return None;
            }
            let revision = record.revision;
            let heir = &mut |db, key: &[u8]| heirs.get(&(revision, db, key.to_vec())).cloned()?;
            match without(record.effects, record.header.db, purge, heir) {
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
        if !rewritten.put_in_place(HOLDER)? {
            let is_there = source.log.segments().iter().any(|found| found.first == segment.first);
            let revision = segment.last;
            return if is_there { Err(PastError::BackedUp { revision }) } else { Ok(0) };
        }
        source.blocks.clear();
        source.history.renew(segment.first)?;
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
            let name = key::Name { db, hash, key: &key, named: None };
            let found = key::read(source, &batch, revision, &name)?;
            heirs.insert((revision, db, key), after(found));
        }
        Ok(heirs)
    }
}
