//! Keys read from the base, as of now or as of an older batch.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{BackingError, EncodingLimits, Stored};

use crate::base_tree::Base;
use crate::codec::{self, Content, Name};
use crate::elements::{self, Assembly};
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

/// An entry of a bucket.
enum Entry<'e> {
    /// A key, unless only a digest of it stands there, and the head's value.
    Head(Option<&'e [u8]>, &'e [u8]),
    /// What follows the head's key in the key of an element of the head before,
    /// and its value.
    Element(&'e [u8], &'e [u8]),
}

/// Sees the entries of a bucket.
type VisitEntry<'v> = dyn FnMut(Entry<'_>) -> Result<(), String> + 'v;

/// A key whose elements are coming.
struct Open {
    key: Vec<u8>,
    deadline: Option<u64>,
    revision: Revision,
    elements: Assembly,
}

impl Open {
    fn finish(self) -> Result<(Vec<u8>, Stored), String> {
        let Open { key, deadline, revision, elements } = self;
        Ok((key, Stored { value: elements.finish()?, deadline, revision }))
    }
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
        let mut found = Ok(Fetched::Nothing);
        let read = match self.at {
            At::Newest => self.base.get(&name).map(|value| {
                found = value.map_or(Ok(Fetched::Nothing), |value| self.decode(&value, is_long));
            }),
            At::Revision(at) => {
                let range = &name[..]..=&name[..];
                self.base.range_at(&range, at, &mut |_, value| {
                    found = self.decode(value, is_long);
                    ControlFlow::Break(())
                })
            }
        };
        read.map_err(unreadable)?;
        let bucket = codec::bucket_of(hash);
        let damaged = |what: String| self.damaged(space, &(bucket..=bucket), &what);
        match found.map_err(damaged)? {
            Fetched::Nothing => Ok(None),
            Fetched::All(stored) => Ok(Some(stored)),
            Fetched::Large => self.fetch_large(&name, is_long)?.map_err(damaged),
        }
    }

    fn decode(&self, value: &[u8], is_long: bool) -> Result<Fetched, String> {
        let Some(head) = codec::head(value, is_long)? else { return Ok(Fetched::Nothing) };
        let (deadline, revision) = (head.deadline, head.revision);
        let value = head.content.value(self.seed, &self.limits)?;
        Ok(value.map_or(Fetched::Large, |value| Fetched::All(Stored { value, deadline, revision })))
    }

    /// A key that stands element by element. The inner error is of its bytes.
    #[allow(clippy::type_complexity, reason = "two kinds of errors")]
    fn fetch_large(
        &self,
        name: &[u8],
        is_long: bool,
    ) -> Result<Result<Option<Stored>, String>, BackingError> {
        // Head and elements of one state, whatever batches come in between.
        let frozen = self.base.frozen(match self.at {
            At::Newest => None,
            At::Revision(at) => Some(at),
        });
        let mut found = Ok(Fetched::Nothing);
        let mut large = None;
        let head = frozen.range(&(name..=name), &mut |_, value| {
            found = self.decode(value, is_long);
            if let Ok(Some(head)) = codec::head(value, is_long)
                && let Content::Large(of) = head.content
            {
                large = Some((of, head.deadline, head.revision));
            }
            ControlFlow::Break(())
        });
        head.map_err(unreadable)?;
        let Some((large, deadline, revision)) = large else {
            // It was replaced meanwhile.
            return Ok(found.map(|found| match found {
                Fetched::All(stored) => Some(stored),
                Fetched::Nothing | Fetched::Large => None,
            }));
        };
        let mut first = name.to_vec();
        elements::put_born(&mut first, large.born);
        let last = [&first[..], &[elements::AFTER_NAMES]].concat();
        let mut assembly = Assembly::new(large, self.seed);
        let mut added = Ok(());
        let read = frozen.range(&(&first[..]..=&last[..]), &mut |key, value| {
            added = assembly.add(&key[name.len()..], value, &self.limits);
            if added.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        read.map_err(unreadable)?;
        let value = added.map_err(str::to_owned).and_then(|()| assembly.finish());
        Ok(value.map(|value| Some(Stored { value, deadline, revision })))
    }

    /// Every key of a run of buckets.
    pub(crate) fn buckets(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        let mut open: Option<Open> = None;
        self.entries(space, buckets, &mut |entry| {
            let (plain, value) = match entry {
                Entry::Element(key, value) => {
                    return match &mut open {
                        Some(open) => Ok(open.elements.add(key, value, &self.limits)?),
                        // Left by a collection that is gone or another now.
                        None => Ok(()),
                    };
                }
                Entry::Head(plain, value) => (plain, value),
            };
            if let Some(complete) = open.take() {
                let (key, stored) = complete.finish()?;
                each(&key, stored);
            }
            let Some(head) = codec::head(value, plain.is_none())? else { return Ok(()) };
            let key = plain.or(head.key).ok_or("a key has no name")?;
            let (deadline, revision) = (head.deadline, head.revision);
            if let Content::Large(large) = head.content {
                let elements = Assembly::new(large, self.seed);
                open = Some(Open { key: key.to_vec(), deadline, revision, elements });
            } else if let Some(value) = head.content.value(self.seed, &self.limits)? {
                each(key, Stored { value, deadline, revision });
            }
            Ok(())
        })?;
        if let Some(complete) = open.take() {
            let complete = complete.finish();
            let (key, stored) = complete.map_err(|what| self.damaged(space, buckets, &what))?;
            each(&key, stored);
        }
        Ok(())
    }

    /// The keys of a run of buckets that have a deadline, and it.
    pub(crate) fn deadlines(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), BackingError> {
        self.entries(space, buckets, &mut |entry| {
            let Entry::Head(plain, value) = entry else { return Ok(()) };
            if let Some(codec::Due { at, key }) = codec::deadline(value, plain.is_none())? {
                each(plain.or(key).ok_or("a key has no name")?, at);
            }
            Ok(())
        })
    }

    /// Visits the entries of a run of buckets: each head, then its elements.
    fn entries(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), BackingError> {
        let first = codec::bucket_prefix(space, *buckets.start());
        let last = codec::bucket_prefix(space, *buckets.end());
        let mut wrong = None;
        let mut each = |name: &[u8], value: &[u8]| {
            let entry = codec::split_name(&name[last.len()..]).map(|split| match split {
                (Name::Plain(key), []) => Entry::Head(Some(key), value),
                (Name::Digest, []) => Entry::Head(None, value),
                (_, element) => Entry::Element(element, value),
            });
            match entry.map_err(str::to_owned).and_then(&mut *visit) {
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

/// What one entry says of a key.
enum Fetched {
    Nothing,
    All(Stored),
    /// Its elements have entries of their own.
    Large,
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: ArchiveError) -> BackingError {
    BackingError::new(error.to_string())
}
