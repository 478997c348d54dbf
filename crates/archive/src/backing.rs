//! The base as what fills the misses of a keyspace.

use std::ops::ControlFlow;
use std::sync::Arc;

use base::SpaceId;
use keyspace::{Backing, BackingError, EncodingLimits, Stored};

use crate::base_tree::Base;
use crate::codec;

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

    fn damaged(&self, space: SpaceId, bucket: u16, what: &str) -> BackingError {
        BackingError::new(format!(
            "the archive in {} is damaged in bucket {bucket} of {space}: {what}",
            self.base.dir().display()
        ))
    }
}

impl Backing for BaseBacking {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        let name = codec::head_key(space, hash, key);
        let found = self.base.get(&name).map_err(|error| BackingError::new(error.to_string()))?;
        let Some(bytes) = found else { return Ok(None) };
        let is_long = key.len() > codec::NAME_BYTES_MAX;
        let head = codec::head(&bytes, is_long, self.base.directory().seed, &self.limits)
            .map_err(|what| self.damaged(space, codec::bucket_of(hash), &what))?;
        Ok(head.map(|head| head.stored))
    }

    fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        let prefix = codec::bucket_prefix(space, bucket);
        let seed = self.base.directory().seed;
        let mut wrong = None;
        let mut visit = |name: &[u8], value: &[u8]| -> Result<(), String> {
            let plain = codec::name(&name[prefix.len()..])?;
            if let Some(head) = codec::head(value, plain.is_none(), seed, &self.limits)? {
                each(plain.or(head.key).ok_or("a key has no name")?, head.stored);
            }
            Ok(())
        };
        self.base
            .prefix(&prefix, &mut |name, value| match visit(name, value) {
                Ok(()) => ControlFlow::Continue(()),
                Err(what) => {
                    wrong = Some(what);
                    ControlFlow::Break(())
                }
            })
            .map_err(|error| BackingError::new(error.to_string()))?;
        wrong.map_or(Ok(()), |what| Err(self.damaged(space, bucket, &what)))
    }
}
