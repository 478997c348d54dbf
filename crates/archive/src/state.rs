//! Keys read from the base, as of now or as of an older batch.

use std::ops::ControlFlow;
use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{BackingError, EncodingLimits, Stored};

use crate::base_tree::{Base, Visit};
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
        found.map_err(|what| self.damaged(space, codec::bucket_of(hash), &what))
    }

    /// Every key of a bucket.
    pub(crate) fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        let prefix = codec::bucket_prefix(space, bucket);
        let mut wrong = None;
        let mut visit = |name: &[u8], value: &[u8]| -> Result<(), String> {
            let plain = codec::name(&name[prefix.len()..])?;
            if let Some(head) = codec::head(value, plain.is_none(), self.seed, &self.limits)? {
                each(plain.or(head.key).ok_or("a key has no name")?, head.stored);
            }
            Ok(())
        };
        let visit: &mut Visit<'_> = &mut |name, value| match visit(name, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(what) => {
                wrong = Some(what);
                ControlFlow::Break(())
            }
        };
        let read = match self.at {
            At::Newest => self.base.prefix(&prefix, visit),
            At::Revision(at) => {
                // No name has more bytes than this one, nor greater ones.
                let end = [&prefix[..], &[0xff; 64]].concat();
                self.base.range_at(&(&prefix[..]..=&end[..]), at, visit)
            }
        };
        read.map_err(unreadable)?;
        wrong.map_or(Ok(()), |what| Err(self.damaged(space, bucket, &what)))
    }

    fn damaged(&self, space: SpaceId, bucket: u16, what: &str) -> BackingError {
        BackingError::new(format!(
            "the archive in {} is damaged in bucket {bucket} of space {space}: {what}",
            self.base.dir().display()
        ))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: ArchiveError) -> BackingError {
    BackingError::new(error.to_string())
}
