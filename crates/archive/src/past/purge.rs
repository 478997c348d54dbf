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

use base::{BranchId, DbIndex, Revision};
use keyspace::effect::{Effect, Effects};
use keyspace::{PastRules, Purge};
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
    /// Erases what keys were before a purge, which the base must have reached.
    /// Answers how many transactions were changed for it.
    ///
    /// # Errors
    /// When a backup is being made, databases have changed places meanwhile, or
    /// files cannot be read or written. What is not erased by then can be by
    /// asking again.
    pub fn erase(&self, purge: &Purge) -> Result<u64, PastError> {
        let _one = self.purging.lock();
        let source = &self.source;
        let (archived, wanted) = (source.base.revision(), purge.at);
        if archived < wanted {
            return Err(PastError::Behind { archived, wanted });
        }
        source.know(purge.at)?;
        let erasure = Erasure { purge: purge.clone(), spaces: self.spaces_of(purge)? };
        // Of the segment being written nothing can be changed.
        source.log.roll().map_err(|fault| PastError::Unrolled(fault.to_string()))?;
        let mut erased = 0;
        for segment in self.segments_with(purge)?.iter().rev() {
            erased += self.erase_in(segment, purge)?;
        }
        source.base.erase(vec![erasure])?;
        self.cache.clear();
        horizon::write(&PURGED, &RealVfs, &self.dir, source.log.id(), purge.at)?;
        Ok(erased)
    }

    /// Ends purges that a stop of the process has cut short.
    ///
    /// # Errors
    /// As [`Past::erase`].
    pub fn finish_purges(&self, rules: &PastRules) -> Result<(), PastError> {
        let due =
            |purge: &&Purge| purge.at <= self.opened && purge.at <= self.source.base.revision();
        let Some(newest) = rules.purges().iter().filter(due).map(|purge| purge.at).max() else {
            return Ok(());
        };
        let done = horizon::read(&PURGED, &RealVfs, &self.dir, self.source.log.id());
        let done = done.unwrap_or_default();
        if newest <= done {
            return Ok(());
        }
        let unfinished = rules.purges().iter().filter(due).filter(|purge| purge.at > done);
        unfinished.map(|purge| self.erase(purge)).try_for_each(|erased| erased.map(drop))
    }

    /// Where keys of the purge's database have stood since the horizon. Where
    /// it changed places with another, that cannot be told by its number.
    fn spaces_of(&self, purge: &Purge) -> Result<Vec<base::SpaceId>, PastError> {
        let source = &self.source;
        let mut spaces = BTreeSet::new();
        for directory in [source.directory_at(source.oldest())?, source.base.directory()] {
            let of_main =
                |found: &&crate::Database| found.branch == BranchId::MAIN && found.db == purge.db;
            let space = directory.databases.iter().find(of_main).map(|found| found.space);
            spaces.insert(space.unwrap_or(base::SpaceId::first_of(purge.db)));
        }
        let mut swapped = Ok(());
        self.wide(source.oldest(), purge.at, &mut |record| {
            for effect in Effects::new(record.effects).flatten() {
                match effect {
                    Effect::Swap { a, b } if a == purge.db || b == purge.db => {
                        swapped = Err(PastError::Swapped { a, b, revision: record.revision });
                    }
                    Effect::Flush { db } if db == purge.db => {
                        spaces.insert(base::SpaceId { born: record.revision, db });
                    }
                    _ => {}
                }
            }
            ControlFlow::Continue(())
        })?;
        swapped?;
        Ok(spaces.into_iter().collect())
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

    fn erase_in(&self, segment: &SegmentInfo, purge: &Purge) -> Result<u64, PastError> {
        let source = &self.source;
        let heirs = self.heirs_in(segment, purge)?;
        let mut malformed = Ok(());
        let mut erased = 0;
        let rewritten = source.log.rewrite(segment.first, &mut |record| {
            if record.revision >= purge.at || record.header.branch != BranchId::MAIN {
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
    fn heirs_in(&self, segment: &SegmentInfo, purge: &Purge) -> Result<Heirs, PastError> {
        let source = &self.source;
        let upto = segment.last.min(Revision(purge.at.0 - 1));
        let after_first = Revision(segment.first.0 - 1).max(source.oldest());
        let mut names = Vec::new();
        let mut malformed = Ok(());
        if after_first < upto {
            source.changes(after_first, upto, &mut |record| {
                if record.header.branch != BranchId::MAIN {
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
            let batch = Arc::new(Batch::at(source, BranchId::MAIN, revision)?);
            let hash = keyspace::hash_of(batch.directory.seed, &key);
            let name = key::Name { db, hash, key: &key, named: None };
            let found = key::read(source, &batch, revision, &name)?;
            heirs.insert((revision, db, key), after(found));
        }
        Ok(heirs)
    }
}
