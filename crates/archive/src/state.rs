//! Keys read from the base, as of now or as of an older batch.

use std::collections::HashSet;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{BackingError, EncodingLimits, Found, Knowing, Peek, Stored, Wanted};
use lsm_tree::UserValue;

use crate::base_tree::Base;
use crate::codec::{self, Content, Name};
use crate::elements::{Assembly, Large, Named};
use crate::error::ArchiveError;
use crate::layers;

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
    Head(HeadEntry<'e>),
    /// What follows the head's key in the key of an element of the head before,
    /// and its value.
    Element(&'e [u8], &'e [u8]),
}

/// The head of a key.
#[derive(Clone, Copy)]
struct HeadEntry<'e> {
    /// Its own key.
    name: &'e [u8],
    /// As of when.
    at: At,
    /// The key that it is of, unless only a digest of it stands there.
    key: Option<&'e [u8]>,
    value: &'e [u8],
}

/// Sees the entries of a bucket.
type VisitEntry<'v> = dyn FnMut(Entry<'_>) -> Result<(), String> + 'v;

/// The same, with the bytes that name the key in its bucket first.
type VisitOwnEntry<'v> = dyn FnMut(&[u8], Entry<'_>) -> Result<(), String> + 'v;

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

/// What one entry says of a key.
enum Fetched {
    Gone,
    All(Stored),
    /// Its elements have entries of their own.
    Large,
}

/// Bytes of a value that is read while somebody holds a lock.
const SOON_BYTES_MAX: usize = 64 << 10;

/// What [`State::seek`] finds.
pub(crate) enum Sought {
    /// That.
    Is(Option<Found>),
    /// The base has not reached this revision.
    NotReached(Revision),
    /// It takes long to read, in this space as of that revision.
    Long(SpaceId, Revision),
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
        self.look(space, hash, key, None)
    }

    /// As [`State::fetch`]; of a collection that stands element by element, only
    /// the elements of these names, and one that stands for all others.
    pub(crate) fn fetch_named(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        named: &Named<'_>,
    ) -> Result<Option<Stored>, BackingError> {
        self.look(space, hash, key, Some(named))
    }

    /// Whether a key is a collection that stands element by element, each under
    /// its name.
    pub(crate) fn has_named(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
    ) -> Result<bool, BackingError> {
        let (mut space, mut at) = (space, self.at);
        let is_long = key.len() > codec::NAME_BYTES_MAX;
        loop {
            let value = self.head(&codec::head_key(space, hash, key), at).map_err(unreadable)?;
            if let Some(value) = value {
                let bucket = codec::bucket_of(hash);
                let head = codec::head(&value, is_long)
                    .map_err(|what| self.damaged(space, &(bucket..=bucket), &what))?;
                return Ok(head.is_some_and(|head| match head.content {
                    Content::Large(large) => !large.is_list(),
                    _ => false,
                }));
            }
            let Some(below) = self.below(space, at) else { return Ok(false) };
            (space, at) = self.reached(below)?;
        }
    }

    fn look(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        named: Option<&Named<'_>>,
    ) -> Result<Option<Stored>, BackingError> {
        let (mut space, mut at) = (space, self.at);
        loop {
            if let Some(found) = self.own(space, at, hash, key, named)? {
                return Ok(found);
            }
            let Some(below) = self.below(space, at) else { return Ok(None) };
            (space, at) = self.reached(below)?;
        }
    }

    /// A key, and what it holds; of a collection that stands element by element,
    /// each under its name, only the elements that are wanted. Before a space
    /// below is read, `peek` is asked whether memory knows the key as it was
    /// there.
    pub(crate) fn seek(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        wanted: Option<Wanted<'_>>,
        Knowing { is_inherited, is_hasty }: Knowing,
        peek: &mut dyn FnMut(SpaceId, Revision) -> Peek<Stored>,
    ) -> Result<Sought, BackingError> {
        let (mut space, mut at, mut is_below) = (space, self.at, is_inherited);
        // What is below does not change any more, so it can be read by somebody
        // else meanwhile.
        let mut may_wait = false;
        loop {
            if !std::mem::take(&mut is_below) {
                let name = codec::head_key(space, hash, key);
                if let Some(head) = self.head(&name, at).map_err(unreadable)? {
                    let head = (&name[..], &head[..]);
                    return self.seek_own(head, space, at, hash, wanted, may_wait);
                }
            }
            let Some((under, fork)) = self.below(space, at) else { return Ok(Sought::Is(None)) };
            match peek(under, fork) {
                Peek::Is(stored) => return Ok(Sought::Is(Some(Found::Whole(stored)))),
                Peek::Absent => return Ok(Sought::Is(None)),
                Peek::Below => is_below = true,
                Peek::Unknown
                    if is_hasty && self.base.revision() < fork && !self.base.is_hindered(fork) =>
                {
                    return Ok(Sought::NotReached(fork));
                }
                Peek::Unknown => self.base.await_revision(fork).map_err(unreadable)?,
            }
            (space, at, may_wait) = (under, At::Revision(fork), is_hasty);
        }
    }

    /// As [`State::seek`], once it is known which space has the key's head.
    fn seek_own(
        &self,
        (name, value): (&[u8], &[u8]),
        space: SpaceId,
        at: At,
        hash: u64,
        wanted: Option<Wanted<'_>>,
        may_wait: bool,
    ) -> Result<Sought, BackingError> {
        let is_large = codec::is_large(value);
        if is_large && let Some(wanted) = wanted {
            let bucket = codec::bucket_of(hash);
            let head = codec::head(value, codec::is_digest(name))
                .map_err(|what| self.damaged(space, &(bucket..=bucket), &what))?;
            if let Some(Content::Large(large)) = head.map(|head| head.content)
                && !large.is_list()
                && large.count > wanted.whole_upto
            {
                let named = Named::new(wanted.names);
                let own = self.own_from((name, value), space, at, hash, Some(&named))?;
                return Ok(Sought::Is(own.flatten().map(Found::Part)));
            }
        }
        if let At::Revision(at) = at
            && may_wait
            && (is_large || value.len() > SOON_BYTES_MAX)
        {
            return Ok(Sought::Long(space, at));
        }
        let own = self.own_from((name, value), space, at, hash, None)?;
        Ok(Sought::Is(own.flatten().map(Found::Whole)))
    }

    /// Whether a key exists that its space has nothing of, as far as `peek` tells.
    pub(crate) fn presence(
        &self,
        space: SpaceId,
        peek: &mut dyn FnMut(SpaceId, Revision) -> Peek<()>,
    ) -> Option<bool> {
        let (mut space, mut at) = (space, self.at);
        while let Some(below) = self.below(space, at) {
            match peek(below.0, below.1) {
                Peek::Is(()) => return Some(true),
                Peek::Absent => return Some(false),
                Peek::Below => (space, at) = (below.0, At::Revision(below.1)),
                Peek::Unknown => return None,
            }
        }
        Some(false)
    }

    /// A key of a space as of a revision that the base has reached, whatever is
    /// below.
    pub(crate) fn fetch_own(
        &self,
        space: SpaceId,
        at: Revision,
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Stored>, BackingError> {
        Ok(self.own(space, At::Revision(at), hash, key, None)?.flatten())
    }

    /// The space below another one, and as of when, in this state.
    pub(crate) fn under(&self, space: SpaceId) -> Option<(SpaceId, Revision)> {
        self.below(space, self.at)
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
        named: Option<&Named<'_>>,
    ) -> Result<Option<Option<Stored>>, BackingError> {
        let name = codec::head_key(space, hash, key);
        match self.head(&name, at).map_err(unreadable)? {
            Some(value) => self.own_from((&name, &value), space, at, hash, named),
            None => Ok(None),
        }
    }

    /// As [`State::own`], once the head's key and value are known.
    fn own_from(
        &self,
        (name, value): (&[u8], &[u8]),
        space: SpaceId,
        at: At,
        hash: u64,
        named: Option<&Named<'_>>,
    ) -> Result<Option<Option<Stored>>, BackingError> {
        let is_long = codec::is_digest(name);
        let bucket = codec::bucket_of(hash);
        let damaged = |what: String| self.damaged(space, &(bucket..=bucket), &what);
        match self.decode(value, is_long).map_err(damaged)? {
            Fetched::Gone => Ok(Some(None)),
            Fetched::All(stored) => Ok(Some(Some(stored))),
            Fetched::Large => self
                .own_large(name, at, is_long, named)
                .map_err(unreadable)?
                .map(Some)
                .map_err(damaged),
        }
    }

    fn head(&self, name: &[u8], at: At) -> Result<Option<UserValue>, ArchiveError> {
        match at {
            At::Newest => self.base.get(name),
            At::Revision(at) => self.base.get_at(name, at),
        }
    }

    fn decode(&self, value: &[u8], is_long: bool) -> Result<Fetched, String> {
        let Some(head) = codec::head(value, is_long)? else { return Ok(Fetched::Gone) };
        let (deadline, revision) = (head.deadline, head.revision);
        let value = head.content.value(self.seed, &self.limits)?;
        let stored = value.map(|value| Stored { value, deadline, revision });
        Ok(stored.map_or(Fetched::Large, Fetched::All))
    }

    /// A key that stands element by element, or did so just now. The inner error
    /// says what is wrong with its bytes.
    fn own_large(
        &self,
        name: &[u8],
        at: At,
        is_long: bool,
        named: Option<&Named<'_>>,
    ) -> Result<Result<Option<Stored>, String>, ArchiveError> {
        // Head and elements of one state, whatever batches come in between.
        let frozen = self.base.frozen();
        let at = match at {
            At::Newest => None,
            At::Revision(at) => Some(at),
        };
        let mut head = None;
        frozen.range(&(name..=name), at, &mut |_, value| {
            head = Some(value.to_vec());
            ControlFlow::Break(())
        })?;
        let head = match head.as_deref().map(|value| codec::head(value, is_long)) {
            None | Some(Ok(None)) => return Ok(Ok(None)),
            Some(Err(what)) => return Ok(Err(what)),
            Some(Ok(Some(head))) => head,
        };
        let (deadline, revision) = (head.deadline, head.revision);
        let Content::Large(large) = head.content else {
            let value = head.content.value(self.seed, &self.limits);
            return Ok(value.map(|value| value.map(|value| Stored { value, deadline, revision })));
        };
        let layers = self.base.layers(name, at, revision, &large)?;
        let mut assembly = Assembly::new(large, self.seed);
        let mut added = Ok(());
        let mut add = |name: &[u8], value: &[u8]| {
            // What was wrong with one element is wrong with all of it.
            if added.is_ok() {
                added = assembly.add_named(name, value, &self.limits);
            }
            if added.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let value = match named.filter(|_| !large.is_list()) {
            Some(named) => {
                layers::each_named(&frozen, &layers, named.names(), &mut add)?;
                let part = added.map(|()| assembly.part());
                part.map_err(str::to_owned).map(|mut value| {
                    named.stand_in(&mut value, &self.limits);
                    value
                })
            }
            None => {
                layers::each(&frozen, &layers, &mut add)?;
                added.map_err(str::to_owned).and_then(|()| assembly.finish())
            }
        };
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
            let HeadEntry { name, at, key: plain, value } = match entry {
                Entry::Element(key, value) => {
                    return match &mut open {
                        Some(open) => Ok(open.elements.add(key, value, &self.limits)?),
                        // Left by a collection that is gone or is small now.
                        None => Ok(()),
                    };
                }
                Entry::Head(head) => head,
            };
            if let Some(complete) = open.take() {
                let (key, stored) = complete.finish()?;
                each(&key, stored);
            }
            let Some(head) = codec::head(value, plain.is_none())? else { return Ok(()) };
            let key = plain.or(head.key).ok_or("a key has no name")?;
            let (deadline, revision) = (head.deadline, head.revision);
            if let Content::Large(Large { is_over: true, .. }) = head.content {
                // Some of its elements are elsewhere.
                let read = self.own_large(name, at, plain.is_none(), None);
                if let Some(stored) = read.map_err(|error| error.to_string())?? {
                    each(key, stored);
                }
            } else if let Content::Large(large) = head.content {
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
            let Entry::Head(HeadEntry { key: plain, value, .. }) = entry else { return Ok(()) };
            if let Some(codec::Due { at, key }) = codec::deadline(value, plain.is_none())? {
                each(plain.or(key).ok_or("a key has no name")?, at);
            }
            Ok(())
        })
    }

    /// Visits the entries of a run of buckets, each head and then its elements,
    /// those of spaces below included as far as nothing lies over them.
    fn entries(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), BackingError> {
        let Some(mut below) = self.below(space, self.at) else {
            return self.own_entries(space, self.at, buckets, &mut |_, entry| visit(entry));
        };
        let mut seen: HashSet<Box<[u8]>> = HashSet::new();
        let (mut space, mut at) = (space, self.at);
        // Whether the head before is to be seen, and its elements with it.
        let mut is_top = false;
        loop {
            self.own_entries(space, at, buckets, &mut |name, entry| {
                if let Entry::Head(..) = entry {
                    is_top = seen.insert(name.into());
                }
                if is_top { visit(entry) } else { Ok(()) }
            })?;
            (space, at) = self.reached(below)?;
            below = match self.below(space, at) {
                Some(below) => below,
                None => break,
            };
        }
        self.own_entries(space, at, buckets, &mut |name, entry| {
            if let Entry::Head(..) = entry {
                is_top = !seen.contains(name);
            }
            if is_top { visit(entry) } else { Ok(()) }
        })
    }

    /// Visits the entries that a space itself has of a run of buckets. Elements
    /// that no head stands before are left over from one that is gone.
    fn own_entries(
        &self,
        space: SpaceId,
        at: At,
        buckets: &RangeInclusive<u16>,
        visit: &mut VisitOwnEntry<'_>,
    ) -> Result<(), BackingError> {
        let first = codec::bucket_prefix(space, *buckets.start());
        let last = codec::bucket_prefix(space, *buckets.end());
        let mut wrong = None;
        let mut head = Vec::new();
        let mut each = |key: &[u8], value: &[u8]| {
            let rest = &key[last.len()..];
            let visited = match codec::split_name(rest) {
                Ok((name, [])) => {
                    head.clear();
                    head.extend_from_slice(key);
                    let plain = match name {
                        Name::Plain(key) => Some(key),
                        Name::Digest => None,
                    };
                    visit(rest, Entry::Head(HeadEntry { name: key, at, key: plain, value }))
                }
                Ok((_, element)) if head == key[..key.len() - element.len()] => {
                    visit(&rest[..rest.len() - element.len()], Entry::Element(element, value))
                }
                Ok(_) => Ok(()),
                Err(what) => Err(what.to_owned()),
            };
            match visited {
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
