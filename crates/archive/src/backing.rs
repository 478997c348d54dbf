//! The base as what fills the misses of a keyspace.

use std::ops::RangeInclusive;
use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{
    Backing, BackingError, EncodingLimits, Found, Keyspace, Knowing, Listed, NEAR_ELEMENTS, Peek,
    Stored, Wanted,
};

use crate::base_tree::Base;
use crate::state::{At, Sought, State};

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

    fn ask(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        wanted: Option<Wanted<'_>>,
        knowing: Knowing,
    ) -> Result<Option<Found>, BackingError> {
        let peek = &mut self.peek(hash, key);
        match self.state.seek(space, hash, key, wanted, knowing, peek)? {
            Sought::Is(found) => Ok(found),
            // Which the follower sees to.
            Sought::NotReached(at) => {
                Err(BackingError::later(format!("the archive has not reached revision {at}")))
            }
            Sought::Long(long) => {
                let present = &|| {
                    let mut ancestors = self.ancestors.iter();
                    ancestors.find_map(|it| it.copy_large_in(long.space, key, NEAR_ELEMENTS))
                };
                let read =
                    self.base.ahead().take(&self.base, self.limits, &long, hash, key, present)?;
                Ok(read.map(Found::Whole))
            }
        }
    }
}

impl Backing for BaseBacking {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        let knowing = Knowing { is_inherited: false, is_hasty: false };
        self.fetch_knowing(space, hash, key, knowing)
    }

    fn fetch_knowing(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        knowing: Knowing,
    ) -> Result<Option<Stored>, BackingError> {
        let found = self.ask(space, hash, key, None, knowing)?;
        Ok(found.map(|found| match found {
            Found::Whole(stored) => stored,
            Found::Part(..) => unreachable!("no elements were named"),
        }))
    }

    fn fetch_wanted(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        wanted: Wanted<'_>,
        knowing: Knowing,
    ) -> Result<Option<Found>, BackingError> {
        self.ask(space, hash, key, Some(wanted), knowing)
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

    fn is_passed_through(&self) -> bool {
        !self.ancestors.is_empty()
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

    fn list(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Listed),
    ) -> Result<(), BackingError> {
        self.state.list(space, &buckets, each)
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
