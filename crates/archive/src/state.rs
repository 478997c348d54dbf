//! Keys read from the base, as of now or as of an older batch.

use std::collections::HashSet;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{BackingError, EncodingLimits, Peek, Stored};

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

/// The same, with the bytes that name the key in its bucket first.
type VisitOwnHead<'v> = dyn FnMut(&[u8], Option<&[u8]>, &[u8]) -> Result<(), String> + 'v;

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
        self.fetch_peeking(space, hash, key, &mut |_, _| Peek::Unknown)
    }

    /// As [`State::fetch`], but before a space below is read, `peek` is asked
    /// whether memory knows the key as it was there.
    pub(crate) fn fetch_peeking(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        peek: &mut dyn FnMut(SpaceId, Revision) -> Peek,
    ) -> Result<Option<Stored>, BackingError> {
        let (mut space, mut at) = (space, self.at);
        loop {
            if let Some(found) = self.own(space, at, hash, key)? {
                return Ok(found);
            }
            let Some(below) = self.below(space, at) else { return Ok(None) };
            match peek(below.0, below.1) {
                Peek::Is(stored) => return Ok(Some(stored)),
                Peek::Absent => return Ok(None),
                Peek::Unknown => {}
            }
            (space, at) = self.reached(below)?;
        }
    }

    /// The space below another one, and as of when.
    fn below(&self, space: SpaceId, at: At) -> Option<(SpaceId, Revision)> {
        let (under, fork) = self.base.overlays().under(space)?;
        Some(match at {
            At::Newest => (under, fork),
            At::Revision(at) => (under, fork.min(at)),
        })
    }

    /// Waits until a state can be read.
    fn reached(&self, (space, at): (SpaceId, Revision)) -> Result<(SpaceId, At), BackingError> {
        self.base.await_revision(at).map_err(unreadable)?;
        Ok((space, At::Revision(at)))
    }

    /// What a space itself has of a key: nothing, that it is gone, or a value.
    fn own(
        &self,
        space: SpaceId,
        at: At,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Option<Stored>>, BackingError> {
        let name = codec::head_key(space, hash, key);
        let is_long = key.len() > codec::NAME_BYTES_MAX;
        let decode = |value: &[u8]| {
            let head = codec::head(value, is_long, self.seed, &self.limits)?;
            Ok::<_, String>(head.map(|head| head.stored))
        };
        let value = match at {
            At::Newest => self.base.get(&name),
            At::Revision(at) => self.base.get_at(&name, at),
        };
        let found = value.map_err(unreadable)?.map(|value| decode(&value)).transpose();
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

    /// Visits the heads of a run of buckets, those of spaces below included as
    /// far as nothing lies over them.
    fn heads(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        visit: &mut VisitHead<'_>,
    ) -> Result<(), BackingError> {
        let Some(mut below) = self.below(space, self.at) else {
            return self
                .own_heads(space, self.at, buckets, &mut |_, plain, value| visit(plain, value));
        };
        let mut seen: HashSet<Box<[u8]>> = HashSet::new();
        let (mut space, mut at) = (space, self.at);
        loop {
            self.own_heads(space, at, buckets, &mut |name, plain, value| {
                if seen.insert(name.into()) { visit(plain, value) } else { Ok(()) }
            })?;
            (space, at) = self.reached(below)?;
            below = match self.below(space, at) {
                Some(below) => below,
                None => break,
            };
        }
        self.own_heads(space, at, buckets, &mut |name, plain, value| {
            if seen.contains(name) { Ok(()) } else { visit(plain, value) }
        })
    }

    /// Visits the heads that a space itself has of a run of buckets.
    fn own_heads(
        &self,
        space: SpaceId,
        at: At,
        buckets: &RangeInclusive<u16>,
        visit: &mut VisitOwnHead<'_>,
    ) -> Result<(), BackingError> {
        let first = codec::bucket_prefix(space, *buckets.start());
        let last = codec::bucket_prefix(space, *buckets.end());
        let mut wrong = None;
        let mut each = |name: &[u8], value: &[u8]| {
            let rest = &name[last.len()..];
            let plain = codec::name(rest).map_err(str::to_owned);
            match plain.and_then(|plain| visit(rest, plain, value)) {
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
        let read = match at {
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
