//! The base as what fills the misses of a keyspace.

use std::ops::RangeInclusive;
use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{Backing, BackingError, EncodingLimits, Stored};

use crate::base_tree::Base;
use crate::state::{At, State};

/// A state of the base, the newest or an older one, read key by key.
#[derive(Debug)]
pub struct BaseBacking(State);

impl BaseBacking {
    /// Reads what `base` holds by the time it is asked. Collections that are
    /// read leave their compact encodings by `limits`.
    #[must_use]
    pub fn new(base: Arc<Base>, limits: EncodingLimits) -> Arc<BaseBacking> {
        Arc::new(BaseBacking(State::new(base, At::Newest, limits)))
    }

    /// As [`BaseBacking::new`], as of the newest batch at or before `at`, which
    /// must not be older than what compaction keeps.
    #[must_use]
    pub fn at(base: Arc<Base>, at: Revision, limits: EncodingLimits) -> Arc<BaseBacking> {
        Arc::new(BaseBacking(State::new(base, At::Revision(at), limits)))
    }
}

impl Backing for BaseBacking {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        self.0.fetch(space, hash, key)
    }

    fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        self.0.buckets(space, &(bucket..=bucket), each)
    }

    fn buckets(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        self.0.buckets(space, &buckets, each)
    }

    fn deadlines(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), BackingError> {
        self.0.deadlines(space, &buckets, each)
    }
}
