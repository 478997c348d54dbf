//! Keys read from the base, as of now or as of an older batch.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{BackingError, EncodingLimits, Stored};

use crate::base_tree::Base;
use crate::codec;
use crate::error::ArchiveError;

/// Which state of the base is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The newest, whatever batches come in between.
    Newest,
    /// That of the newest batch at or before a revision, see
    /// [`Base::directory_at`].
    Revision(Revision),
}

/// Sees a head: the key, unless only a digest of it stands there, and the value.
type VisitHead<'v> = dyn FnMut(Option<&[u8]>, &[u8]) -> Result<(), String> + 'v;

/// One state of the base.
#[derive(Debug)]
pub(crate) struct State {
    base: Arc<Base>,
    at: At,
    /// When collections that are read leave their compact encodings.
    limits: EncodingLimits,
    seed: u64,
}

impl State {
    pub(crate) fn new(base: Arc<Base>, at: At, limits: EncodingLimits) -> State {
        let seed = base.directory().seed;
        State { base, at, limits, seed }
    }

    /// A key and what it holds, if it exists.
    pub(crate) fn fetch(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Stored>, BackingError> {
        let name = codec::head_key(space, hash, key);
        let is_long = key.len() > codec::NAME_BYTES_MAX;
        let decode = |value: &[u8]| {
            let head = codec::head(value, is_long, self.seed, &self.limits)?;
            Ok::<_, String>(head.map(|head| head.stored))
        };
        let mut found = Ok(None);
        let read = match self.at {
            At::Newest => self.base.get(&name).map(|value| {
                found = value.map_or(Ok(None), |value| decode(&value));
            }),
            At::Revision(at) => {
                let range = &name[..]..=&name[..];
                self.base.range_at(&range, at, &mut |_, value| {
                    found = decode(value);
                    ControlFlow::Break(())
                })
            }
        };
        read.map_err(unreadable)?;
        let bucket = codec::bucket_of(hash);
        found.map_err(|what| self.damaged(space, &(bucket..=bucket), &what))
    }

    /// Every key of a run of buckets.
    pub(crate) fn buckets(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        self.heads(space, buckets, &mut |plain, value| {
            if let Some(head) = codec::head(value, plain.is_none(), self.seed, &self.limits)? {
                each(plain.or(head.key).ok_or("a key has no name")?, head.stored);
            }
            Ok(())
        })
    }

    /// The keys of a run of buckets that have a deadline, and it.
    pub(crate) fn deadlines(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), BackingError> {
        self.heads(space, buckets, &mut |plain, value| {
            if let Some(codec::Due { at, key }) = codec::deadline(value, plain.is_none())? {
                each(plain.or(key).ok_or("a key has no name")?, at);
            }
            Ok(())
        })
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
            let plain = codec::name(&name[last.len()..]).map_err(str::to_owned);
            match plain.and_then(|plain| visit(plain, value)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(what) => {
                    wrong = Some(what);
                    ControlFlow::Break(())
                }
            }
        };
        // No name is greater than this.
        let end = [&last[..], &[0xff; 8]].concat();
        let range = &first[..]..=&end[..];
        let read = match self.at {
            At::Newest if buckets.start() == buckets.end() => self.base.prefix(&first, &mut each),
            At::Newest => self.base.range(&range, &mut each),
            At::Revision(at) => self.base.range_at(&range, at, &mut each),
        };
        read.map_err(unreadable)?;
        wrong.map_or(Ok(()), |what| Err(self.damaged(space, buckets, &what)))
    }

    fn damaged(&self, space: SpaceId, buckets: &RangeInclusive<u16>, what: &str) -> BackingError {
        let (first, last) = (buckets.start(), buckets.end());
        let place = if first == last {
            format!("bucket {first}")
        } else {
            format!("buckets {first} to {last}")
        };
        BackingError::new(format!(
            "the archive in {} is damaged in {place} of space {space}: {what}",
            self.base.dir().display()
        ))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: ArchiveError) -> BackingError {
    BackingError::new(error.to_string())
}
