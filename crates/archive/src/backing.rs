//! The base as what fills the misses of a keyspace.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use base::SpaceId;
use keyspace::{Backing, BackingError, EncodingLimits, Stored};

use crate::base_tree::Base;
use crate::codec;

/// Sees a head: the key, unless only a digest of it stands there, and the value.
type VisitHead<'v> = dyn FnMut(Option<&[u8]>, &[u8]) -> Result<(), String> + 'v;

/// The newest state of the base, read key by key.
#[derive(Debug)]
pub struct BaseBacking {
    base: Arc<Base>,
    /// When collections that are read leave their compact encodings.
    limits: EncodingLimits,
}

impl BaseBacking {
    /// Reads from `base`.
    #[must_use]
    pub fn new(base: Arc<Base>, limits: EncodingLimits) -> Arc<BaseBacking> {
        Arc::new(BaseBacking { base, limits })
    }

    fn damaged(&self, space: SpaceId, buckets: &RangeInclusive<u16>, what: &str) -> BackingError {
        let (first, last) = (buckets.start(), buckets.end());
        let place = if first == last {
            format!("bucket {first}")
        } else {
            format!("buckets {first} to {last}")
        };
        BackingError::new(format!(
            "the archive in {} is damaged in {place} of {space}: {what}",
            self.base.dir().display()
        ))
    }

    /// Visits the heads of a run of buckets.
    fn heads(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        visit: &mut VisitHead<'_>,
    ) -> Result<(), BackingError> {
        let first = codec::bucket_prefix(space, *buckets.start());
        let last = codec::bucket_prefix(space, *buckets.end());
        let mut wrong = None;
        let mut each = |name: &[u8], value: &[u8]| {
            if name.get(..last.len()).is_none_or(|prefix| prefix > &last[..]) {
                return ControlFlow::Break(());
            }
            let plain = codec::name(&name[last.len()..]).map_err(str::to_owned);
            match plain.and_then(|plain| visit(plain, value)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(what) => {
                    wrong = Some(what);
                    ControlFlow::Break(())
                }
            }
        };
        let read = if buckets.start() == buckets.end() {
            self.base.prefix(&first, &mut each)
        } else {
            self.base.from(&first, &mut each)
        };
        read.map_err(|error| BackingError::new(error.to_string()))?;
        wrong.map_or(Ok(()), |what| Err(self.damaged(space, buckets, &what)))
    }
}

impl Backing for BaseBacking {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        let name = codec::head_key(space, hash, key);
        let found = self.base.get(&name).map_err(|error| BackingError::new(error.to_string()))?;
        let Some(bytes) = found else { return Ok(None) };
        let is_long = key.len() > codec::NAME_BYTES_MAX;
        let head = codec::head(&bytes, is_long, self.base.directory().seed, &self.limits).map_err(
            |what| {
                let bucket = codec::bucket_of(hash);
                self.damaged(space, &(bucket..=bucket), &what)
            },
        )?;
        Ok(head.map(|head| head.stored))
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
        let seed = self.base.directory().seed;
        self.heads(space, &buckets, &mut |plain, value| {
            if let Some(head) = codec::head(value, plain.is_none(), seed, &self.limits)? {
                each(plain.or(head.key).ok_or("a key has no name")?, head.stored);
            }
            Ok(())
        })
    }

    fn deadlines(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), BackingError> {
        self.heads(space, &buckets, &mut |plain, value| {
            if let Some(codec::Due { at, key }) = codec::deadline(value, plain.is_none())? {
                each(plain.or(key).ok_or("a key has no name")?, at);
            }
            Ok(())
        })
    }
}
