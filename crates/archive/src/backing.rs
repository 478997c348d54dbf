//! The base as what fills the misses of a keyspace.

use std::ops::RangeInclusive;
use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{
    Backing, BackingError, EncodingLimits, Found, Keyspace, Knowing, Peek, Stored, Wanted,
};

use crate::base_tree::Base;
use crate::state::{At, Soon, State};

/// A state of the base, the newest or an older one, read key by key.
#[derive(Debug)]
pub struct BaseBacking {
    state: State,
    /// Those whose branch it is of, the parent first: what they have in memory
    /// need not be read.
    ancestors: Vec<Arc<Keyspace>>,
    base: Arc<Base>,
    limits: EncodingLimits,
}

impl BaseBacking {
    /// Reads what `base` holds by the time it is asked. Collections that are
    /// read leave their compact encodings by `limits`.
    #[must_use]
    pub fn new(base: Arc<Base>, limits: EncodingLimits) -> Arc<BaseBacking> {
        BaseBacking::of_branch(base, limits, Vec::new())
    }

    /// As [`BaseBacking::new`], for a branch that serves, with the keyspaces of
    /// its parent, the parent's parent and so on.
    #[must_use]
    pub fn of_branch(
        base: Arc<Base>,
        limits: EncodingLimits,
        ancestors: Vec<Arc<Keyspace>>,
    ) -> Arc<BaseBacking> {
        BaseBacking::with(base, At::Newest, limits, ancestors)
    }

    /// As [`BaseBacking::new`], as of the newest batch at or before `at`, which
    /// must not be older than what compaction keeps.
    #[must_use]
    pub fn at(base: Arc<Base>, at: Revision, limits: EncodingLimits) -> Arc<BaseBacking> {
        BaseBacking::with(base, At::Revision(at), limits, Vec::new())
    }

    fn with(
        base: Arc<Base>,
        at: At,
        limits: EncodingLimits,
        ancestors: Vec<Arc<Keyspace>>,
    ) -> Arc<BaseBacking> {
        let state = State::new(base.clone(), at, limits);
        Arc::new(BaseBacking { state, ancestors, base, limits })
    }

    /// Asks the parent, then its parent and so on.
    fn peek<'p>(
        &'p self,
        hash: u64,
        key: &'p [u8],
    ) -> impl FnMut(SpaceId, Revision) -> Peek<Stored> + use<'p> {
        let mut ancestors = self.ancestors.iter();
        move |under, at| match ancestors.next() {
            Some(ancestor) => ancestor.peek(under, hash, key, at),
            None => Peek::Unknown,
        }
    }
}

impl Backing for BaseBacking {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        self.state.fetch_peeking(space, hash, key, false, &mut self.peek(hash, key))
    }

    fn fetch_knowing(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        Knowing { is_inherited, is_hasty }: Knowing,
    ) -> Result<Option<Stored>, BackingError> {
        let peek = &mut self.peek(hash, key);
        if !is_hasty {
            return self.state.fetch_peeking(space, hash, key, is_inherited, peek);
        }
        match self.state.fetch_soon(space, hash, key, is_inherited, peek)? {
            Soon::Now(stored) => Ok(stored),
            // Which the follower sees to.
            Soon::NotReached(at) => {
                Err(BackingError::later(format!("the archive has not reached revision {at}")))
            }
            Soon::Long(space, at) => {
                self.base.ahead().take(&self.base, self.limits, (space, at), hash, key)
            }
        }
    }

    fn fetch_wanted(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        wanted: Wanted<'_>,
        knowing: Knowing,
    ) -> Result<Option<Found>, BackingError> {
        if self.state.under(space).is_none() {
            return self.state.fetch_wanted(space, hash, key, wanted);
        }
        // What is inherited may stand in a parent's memory, and nobody waits for
        // the rest with a lock.
        Ok(self.fetch_knowing(space, hash, key, knowing)?.map(Found::Whole))
    }

    fn presence(&self, space: SpaceId, hash: u64, key: &[u8]) -> Option<bool> {
        let mut ancestors = self.ancestors.iter();
        self.state.presence(space, &mut |under, at| match ancestors.next() {
            Some(ancestor) => ancestor.peek_presence(under, hash, key, at),
            None => Peek::Unknown,
        })
    }

    fn foresee<'k>(
        &self,
        space: SpaceId,
        keys: &[(u64, &'k [u8])],
        found: &mut dyn FnMut((u64, &'k [u8]), bool),
    ) {
        if let (Some(parent), Some((under, at))) = (self.ancestors.first(), self.state.under(space))
        {
            parent.peek_presences(under, keys, at, found);
        }
    }

    fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        self.state.buckets(space, &(bucket..=bucket), each)
    }

    fn buckets(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        self.state.buckets(space, &buckets, each)
    }

    fn deadlines(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), BackingError> {
        self.state.deadlines(space, &buckets, each)
    }
}
