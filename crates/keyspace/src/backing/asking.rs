//! What is asked of whoever stands in for memory, and what it answers.

use std::ops::RangeInclusive;

use base::{Revision, SpaceId};
use thiserror::Error;

use crate::value::Value;

/// A key's value as a backing has it.
#[derive(Debug)]
pub struct Stored {
    /// The value; a collection is not empty.
    pub value: Value,
    /// When the key expires, in milliseconds since 1970.
    pub deadline: Option<u64>,
    /// Revision of the key's last change.
    pub revision: Revision,
}

/// Elements of a collection that a [`Backing`] is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'n> {
    /// Their names.
    pub names: &'n [&'n [u8]],
    /// A collection of no more elements than this is wanted whole.
    pub whole_upto: u64,
}

/// What a backing has of a key of which it was asked for some elements.
#[derive(Debug)]
pub enum Found {
    /// All of it.
    Whole(Stored),
    /// Of a collection those elements that it has, and one of another name that
    /// stands for all others, with deadline and revision of the whole; and how many
    /// elements that has.
    Part(Stored, u64),
}

/// A key of a bucket.
#[derive(Debug)]
pub enum Listed {
    /// With what it holds.
    Whole(Stored),
    /// What it holds takes long to read.
    Long(Unread),
}

/// What is told of a key without reading what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// As [`ValueRef::type_name`](crate::ValueRef::type_name).
    pub type_name: &'static str,
    /// Elements that it has.
    pub elements: u64,
    /// When the key expires, in milliseconds since 1970.
    pub deadline: Option<u64>,
    /// Revision of the key's last change.
    pub revision: Revision,
}

/// Why a backing cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct BackingError {
    reason: String,
    is_later: bool,
    compacted: Option<(Revision, Revision)>,
}

impl BackingError {
    /// An error with this reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> BackingError {
        BackingError { reason: reason.into(), is_later: false, compacted: None }
    }

    /// It cannot answer yet; to be asked again in a moment.
    #[must_use]
    pub fn later(reason: impl Into<String>) -> BackingError {
        BackingError { reason: reason.into(), is_later: true, compacted: None }
    }

    /// Retention has dropped the state at `asked`; the oldest kept is `oldest`.
    #[must_use]
    pub fn compacted(asked: Revision, oldest: Revision) -> BackingError {
        let reason = format!("revision {asked} is older than the oldest kept, {oldest}");
        BackingError { reason, is_later: false, compacted: Some((asked, oldest)) }
    }

    /// The revision asked for and the oldest kept, if retention has dropped it.
    #[must_use]
    pub fn as_compacted(&self) -> Option<(Revision, Revision)> {
        self.compacted
    }

    /// Whether it is to be asked again: only who is in haste ([`Knowing`]) hears so.
    #[must_use]
    pub fn is_later(&self) -> bool {
        self.is_later
    }
}

/// What somebody who asks a [`Backing`] for a key knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knowing {
    /// The key was never changed in its space, so that it is what it is in the
    /// space below.
    pub is_inherited: bool,
    /// What takes long, so that nobody should hold a lock for it, is to go on by
    /// itself and to be an error that [`BackingError::is_later`].
    pub is_hasty: bool,
}

/// Where keys stand that are not in memory. It is asked with a shard locked,
/// so it must not ask the keyspace anything.
pub trait Backing: Send + Sync + std::fmt::Debug {
    /// The key as the backing has it. `hash` is [`crate::hash_of`] it under
    /// the keyspace's seed.
    ///
    /// # Errors
    /// When that cannot be told.
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError>;

    /// As [`Backing::fetch`], with what the caller knows, which may be ignored.
    ///
    /// # Errors
    /// As [`Backing::fetch`].
    fn fetch_knowing(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        _: Knowing,
    ) -> Result<Option<Stored>, BackingError> {
        self.fetch(space, hash, key)
    }

    /// As [`Backing::fetch_knowing`], for somebody who looks at no more of a
    /// collection than some elements; if there are none of them, at no more than its
    /// type, deadline and revision. All of it is an answer too.
    ///
    /// # Errors
    /// As [`Backing::fetch`].
    fn fetch_wanted(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        _: Wanted<'_>,
        knowing: Knowing,
    ) -> Result<Option<Found>, BackingError> {
        Ok(self.fetch_knowing(space, hash, key, knowing)?.map(Found::Whole))
    }

    /// Whether a key exists that was never changed in its space, as far as that
    /// can be told at once: `Some(true)` only if it has no deadline.
    fn presence(&self, _: SpaceId, _: u64, _: &[u8]) -> Option<bool> {
        None
    }

    /// As [`Backing::presence`], of a few keys with their hashes at one go; those
    /// of which it cannot be told are left out. Nobody holds a lock meanwhile.
    fn foresee<'k>(
        &self,
        _: SpaceId,
        _: &[(u64, &'k [u8])],
        _: &mut dyn FnMut((u64, &'k [u8]), bool),
    ) {
    }

    /// Every key of a bucket (the leading 16 bits of the hash), in any order.
    ///
    /// # Errors
    /// When it cannot be read; some keys may have been answered by then.
    fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError>;

    /// As [`Backing::bucket`], of a run of buckets. A backing that has them side
    /// by side answers them at one go.
    ///
    /// # Errors
    /// As [`Backing::bucket`].
    fn buckets(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        buckets.into_iter().try_for_each(|bucket| self.bucket(space, bucket, each))
    }

    /// Whether keys that are only looked at by somebody who named none stay where
    /// they are: who lists the keys of a branch, or of the past, should not have all
    /// of their values in memory from then on.
    fn is_passed_through(&self) -> bool {
        false
    }

    /// As [`Backing::buckets`], for somebody who holds a lock: what takes long to
    /// read is not read.
    ///
    /// # Errors
    /// As [`Backing::bucket`].
    fn list(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Listed),
    ) -> Result<(), BackingError> {
        self.buckets(space, buckets, &mut |key, stored| each(key, Listed::Whole(stored)))
    }

    /// The keys of a run of buckets that have a deadline, and it. A backing that
    /// can tell without reading values does.
    ///
    /// # Errors
    /// As [`Backing::bucket`].
    fn deadlines(
        &self,
        space: SpaceId,
        buckets: RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), BackingError> {
        self.buckets(space, buckets, &mut |key, stored| {
            stored.deadline.into_iter().for_each(|at| each(key, at));
        })
    }
}
