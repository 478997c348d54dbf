//! Keys read from the base, as of now or as of an older batch.

use std::collections::HashSet;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{BackingError, EncodingLimits, Found, Knowing, Listed, Peek, Stored, Wanted};
use lsm_tree::UserValue;

use crate::base_tree::{Base, Frozen};
use crate::codec::{self, Content, Head, Name};
use crate::elements::{AFTER_ELEMENTS, Assembly, Large, LargeFrom, Named};
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

/// Sees the entries of a bucket, and says what becomes of the elements that follow.
type VisitEntry<'v> = dyn FnMut(Entry<'_>) -> Result<Elements, String> + 'v;

/// The same, with the bytes that name the key in its bucket first.
type VisitOwnEntry<'v> = dyn FnMut(&[u8], Entry<'_>) -> Result<Elements, String> + 'v;

/// A key whose elements are coming.
struct Open {
    key: Vec<u8>,
    deadline: Option<u64>,
    revision: Revision,
    large: Large,
    elements: Assembly,
    /// Bytes of them.
    bytes: usize,
}

impl Open {
    fn finish(self) -> Result<(Vec<u8>, Stored), String> {
        let Open { key, deadline, revision, elements, .. } = self;
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

/// Bytes of an inherited value that is read while somebody holds a lock.
const SOON_BYTES_MAX: usize = 64 << 10;

/// A collection that is read while somebody holds a lock has no more elements than
/// one that stands in one piece, and so many times the bytes.
const SOON_BYTES_SHARE: usize = 4;

/// What [`State::seek`] finds.
pub(crate) enum Sought {
    /// That.
    Is(Option<Found>),
    /// The base has not reached this revision.
    NotReached(Revision),
    /// It takes long to read.
    Long(Long),
}

/// A key that takes long to read.
pub(crate) struct Long {
    /// Where it stands.
    pub(crate) space: SpaceId,
    /// As of when.
    pub(crate) at: At,
    /// The value of its head, which tells it from what it was before and will be.
    pub(crate) head: UserValue,
}

/// What of a collection is read.
#[derive(Clone, Copy)]
enum Which<'n> {
    All,
    Named(&'n Named<'n>),
    /// All, unless its elements take more bytes.
    UpTo(usize),
}

/// What was read of a collection.
enum Read {
    Is(Option<Stored>),
    /// It takes more bytes than were to be read.
    TooMuch,
}

/// What becomes of the elements behind a head.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elements {
    /// They are visited, if there are any.
    Visit,
    /// They are passed over unread.
    Skip,
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
        loop {
            if !std::mem::take(&mut is_below) {
                let name = codec::head_key(space, hash, key);
                if let Some(head) = self.head(&name, at).map_err(unreadable)? {
                    return self.seek_own((&name, head), space, at, hash, wanted, is_hasty);
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
            (space, at) = (under, At::Revision(fork));
        }
    }

    /// As [`State::seek`], once it is known which space has the key's head.
    fn seek_own(
        &self,
        (name, value): (&[u8], UserValue),
        space: SpaceId,
        at: At,
        hash: u64,
        wanted: Option<Wanted<'_>>,
        is_hasty: bool,
    ) -> Result<Sought, BackingError> {
        if !codec::is_large(&value) {
            if is_hasty && matches!(at, At::Revision(_)) && value.len() > SOON_BYTES_MAX {
                return Ok(Sought::Long(Long { space, at, head: value }));
            }
            let own = self.own_from((name, &value), space, at, hash, None)?;
            return Ok(Sought::Is(own.flatten().map(Found::Whole)));
        }
        let bucket = codec::bucket_of(hash);
        let damaged = |what: String| self.damaged(space, &(bucket..=bucket), &what);
        let is_digest = codec::is_digest(name);
        let head = codec::head(&value, is_digest).map_err(damaged)?;
        let Some(Head { deadline, revision, content: Content::Large(large), .. }) = head else {
            return Err(damaged("a large collection has no count".to_owned()));
        };
        match wanted {
            Some(wanted) if wanted.names.is_empty() => {
                let value = large.stand_in(self.seed, &self.limits);
                let seen = Stored { value, deadline, revision };
                return Ok(Sought::Is(Some(Found::Part(seen, large.count))));
            }
            Some(wanted) if !large.is_list() && large.count > wanted.whole_upto => {
                let named = Named::new(wanted.names);
                let own = self.own_from((name, &value), space, at, hash, Some(&named))?;
                return Ok(Sought::Is(own.flatten().map(|it| Found::Part(it, large.count))));
            }
            _ => {}
        }
        let soon = self.soon();
        let which = if is_hasty { Which::UpTo(soon.bytes) } else { Which::All };
        if is_hasty && large.count > soon.elements as u64 {
            return Ok(Sought::Long(Long { space, at, head: value }));
        }
        let read = self.own_large(name, at, is_digest, which).map_err(unreadable)?;
        Ok(match read.map_err(damaged)? {
            Read::Is(stored) => Sought::Is(stored.map(Found::Whole)),
            Read::TooMuch => Sought::Long(Long { space, at, head: value }),
        })
    }

    /// The size of a collection that is read while somebody holds a lock.
    fn soon(&self) -> LargeFrom {
        let LargeFrom { elements, bytes } = self.base.large_from();
        LargeFrom { elements, bytes: bytes.saturating_mul(SOON_BYTES_SHARE) }
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

    /// A key of a space as of a state that the base has reached, whatever is below,
    /// and the value of its head in that state.
    pub(crate) fn fetch_own(
        &self,
        space: SpaceId,
        at: At,
        hash: u64,
        key: &[u8],
    ) -> Result<(Option<Stored>, Option<Vec<u8>>), BackingError> {
        let (name, bucket) = (codec::head_key(space, hash, key), codec::bucket_of(hash));
        let frozen = self.base.frozen();
        let Some(head) = frozen_head(&frozen, &name, at).map_err(unreadable)? else {
            return Ok((None, None));
        };
        let is_long = codec::is_digest(&name);
        let read = self.large_in(&frozen, (&name, &head), at, is_long, Which::All);
        match read.map_err(unreadable)? {
            Ok(Read::Is(stored)) => Ok((stored, Some(head))),
            Ok(Read::TooMuch) => unreachable!("all of it was to be read"),
            Err(what) => Err(self.damaged(space, &(bucket..=bucket), &what)),
        }
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
            Fetched::Large => {
                let which = named.map_or(Which::All, Which::Named);
                let read = self.own_large(name, at, is_long, which).map_err(unreadable)?;
                match read.map_err(damaged)? {
                    Read::Is(stored) => Ok(Some(stored)),
                    Read::TooMuch => unreachable!("nothing said how much"),
                }
            }
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
        which: Which<'_>,
    ) -> Result<Result<Read, String>, ArchiveError> {
        // Head and elements of one state, whatever batches come in between.
        let frozen = self.base.frozen();
        match frozen_head(&frozen, name, at)? {
            Some(head) => self.large_in(&frozen, (name, &head), at, is_long, which),
            None => Ok(Ok(Read::Is(None))),
        }
    }

    /// As [`State::own_large`], once the head's key and value are known.
    fn large_in(
        &self,
        frozen: &Frozen,
        (name, head): (&[u8], &[u8]),
        at: At,
        is_long: bool,
        which: Which<'_>,
    ) -> Result<Result<Read, String>, ArchiveError> {
        let head = match codec::head(head, is_long) {
            Ok(None) => return Ok(Ok(Read::Is(None))),
            Err(what) => return Ok(Err(what)),
            Ok(Some(head)) => head,
        };
        let (deadline, revision) = (head.deadline, head.revision);
        let stored = |value| Read::Is(Some(Stored { value, deadline, revision }));
        let Content::Large(large) = head.content else {
            let value = head.content.value(self.seed, &self.limits);
            return Ok(value.map(|value| value.map_or(Read::Is(None), stored)));
        };
        let layers = self.base.layers(name, at.revision(), revision, &large)?;
        let mut assembly = Assembly::new(large, self.seed);
        let (mut added, mut bytes) = (Ok(()), 0);
        let bytes_max = if let Which::UpTo(bytes) = which { bytes } else { usize::MAX };
        let mut add = |name: &[u8], value: &[u8]| {
            bytes += name.len() + value.len();
            if bytes > bytes_max {
                return ControlFlow::Break(());
            }
            // What was wrong with one element is wrong with all of it.
            if added.is_ok() {
                added = assembly.add_named(name, value, &self.limits);
            }
            if added.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let value = match which {
            Which::Named(named) if !large.is_list() => {
                layers::each_named(frozen, &layers, named.names(), &mut add)?;
                let part = added.map(|()| assembly.part());
                part.map_err(str::to_owned).map(|mut value| {
                    named.stand_in(&mut value, &self.limits);
                    value
                })
            }
            _ => {
                layers::each(frozen, &layers, &mut add)?;
                if bytes > bytes_max {
                    return Ok(Ok(Read::TooMuch));
                }
                added.map_err(str::to_owned).and_then(|()| assembly.finish())
            }
        };
        Ok(value.map(stored))
    }

    /// Every key of a run of buckets.
    pub(crate) fn buckets(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        let all = LargeFrom { elements: usize::MAX, bytes: usize::MAX };
        self.visit_keys(space, buckets, all, &mut |key, listed| match listed {
            Listed::Whole(stored) => each(key, stored),
            Listed::Long(_) => unreachable!("none is larger"),
        })
    }

    /// Every key of a run of buckets; of those that take long to read no more than
    /// what can be told without.
    pub(crate) fn list(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        each: &mut dyn FnMut(&[u8], Listed),
    ) -> Result<(), BackingError> {
        self.visit_keys(space, buckets, self.soon(), each)
    }

    /// Every key of a run of buckets, collections up to a size with all that they
    /// hold.
    fn visit_keys(
        &self,
        space: SpaceId,
        buckets: &RangeInclusive<u16>,
        upto: LargeFrom,
        each: &mut dyn FnMut(&[u8], Listed),
    ) -> Result<(), BackingError> {
        let mut open: Option<Open> = None;
        self.entries(space, buckets, &mut |entry| {
            let HeadEntry { name, at, key: plain, value } = match entry {
                Entry::Element(key, value) => {
                    // Else left by a collection that is gone or is small now.
                    let Some(of) = &mut open else { return Ok(Elements::Skip) };
                    of.bytes += key.len() + value.len();
                    if of.bytes <= upto.bytes {
                        of.elements.add(key, value, &self.limits)?;
                        return Ok(Elements::Visit);
                    }
                    let Open { key, deadline, revision, large, .. } =
                        open.take().expect("just seen");
                    each(&key, large.listed(deadline, revision));
                    return Ok(Elements::Skip);
                }
                Entry::Head(head) => head,
            };
            if let Some(complete) = open.take() {
                let (key, stored) = complete.finish()?;
                each(&key, Listed::Whole(stored));
            }
            let Some(head) = codec::head(value, plain.is_none())? else {
                return Ok(Elements::Skip);
            };
            let key = plain.or(head.key).ok_or("a key has no name")?;
            let (deadline, revision) = (head.deadline, head.revision);
            let Content::Large(large) = head.content else {
                let value = head.content.value(self.seed, &self.limits)?;
                let value = value.ok_or("a value has no content")?;
                each(key, Listed::Whole(Stored { value, deadline, revision }));
                return Ok(Elements::Visit);
            };
            if large.count > upto.elements as u64 {
                each(key, large.listed(deadline, revision));
                return Ok(Elements::Skip);
            }
            if !large.is_over {
                let (key, elements) = (key.to_vec(), Assembly::new(large, self.seed));
                open = Some(Open { key, deadline, revision, large, elements, bytes: 0 });
                return Ok(Elements::Visit);
            }
            // Some of its elements are elsewhere.
            let read = self.own_large(name, at, plain.is_none(), Which::UpTo(upto.bytes));
            match read.map_err(|error| error.to_string())?? {
                Read::Is(Some(stored)) => each(key, Listed::Whole(stored)),
                Read::Is(None) => {}
                Read::TooMuch => each(key, large.listed(deadline, revision)),
            }
            Ok(Elements::Skip)
        })?;
        if let Some(complete) = open.take() {
            let complete = complete.finish();
            let (key, stored) = complete.map_err(|what| self.damaged(space, buckets, &what))?;
            each(&key, Listed::Whole(stored));
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
            let Entry::Head(HeadEntry { key: plain, value, .. }) = entry else {
                return Ok(Elements::Skip);
            };
            if let Some(codec::Due { at, key }) = codec::deadline(value, plain.is_none())? {
                each(plain.or(key).ok_or("a key has no name")?, at);
            }
            Ok(if codec::is_large(value) { Elements::Skip } else { Elements::Visit })
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
                if is_top { visit(entry) } else { Ok(hidden(&entry)) }
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
            if is_top { visit(entry) } else { Ok(hidden(&entry)) }
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
        let mut first = codec::bucket_prefix(space, *buckets.start());
        let last = codec::bucket_prefix(space, *buckets.end());
        // No name is greater than this.
        let end = [&last[..], &[0xff; 8]].concat();
        let mut is_begin = true;
        loop {
            let (mut wrong, mut head, mut skipped) = (None, Vec::new(), false);
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
                        let head = HeadEntry { name: key, at, key: plain, value };
                        // Mostly a head has no elements, and the next one is next.
                        let next = visit(rest, Entry::Head(head));
                        next.map(|next| next == Elements::Skip && codec::is_large(value))
                    }
                    Ok((_, element)) if head == key[..key.len() - element.len()] => {
                        let name = &rest[..rest.len() - element.len()];
                        visit(name, Entry::Element(element, value)).map(|it| it == Elements::Skip)
                    }
                    Ok((_, element)) => {
                        head.clear();
                        head.extend_from_slice(&key[..key.len() - element.len()]);
                        Ok(true)
                    }
                    Err(what) => Err(what.to_owned()),
                };
                match visited {
                    Ok(false) => ControlFlow::Continue(()),
                    Ok(true) => {
                        skipped = true;
                        ControlFlow::Break(())
                    }
                    Err(what) => {
                        wrong = Some(what);
                        ControlFlow::Break(())
                    }
                }
            };
            let range = &first[..]..=&end[..];
            let is_one = is_begin && buckets.start() == buckets.end();
            let read = match at {
                At::Newest if is_one => self.base.prefix(&first, &mut each),
                At::Newest => self.base.range(&range, &mut each),
                At::Revision(at) => self.base.range_at(&range, at, &mut each),
            };
            read.map_err(unreadable)?;
            if let Some(what) = wrong {
                return Err(self.damaged(space, buckets, &what));
            }
            if !skipped {
                return Ok(());
            }
            // Behind all elements of the head.
            head.push(AFTER_ELEMENTS);
            (first, is_begin) = (head, false);
        }
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

impl At {
    /// `None` for the newest.
    fn revision(self) -> Option<Revision> {
        match self {
            At::Newest => None,
            At::Revision(at) => Some(at),
        }
    }
}

/// The value of a head in a state.
fn frozen_head(frozen: &Frozen, name: &[u8], at: At) -> Result<Option<Vec<u8>>, ArchiveError> {
    let mut head = None;
    frozen.range(&(name..=name), at.revision(), &mut |_, value| {
        head = Some(value.to_vec());
        ControlFlow::Break(())
    })?;
    Ok(head)
}

/// What becomes of the elements of an entry that another one hides.
fn hidden(entry: &Entry<'_>) -> Elements {
    match entry {
        Entry::Head(head) if !codec::is_large(head.value) => Elements::Visit,
        _ => Elements::Skip,
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: ArchiveError) -> BackingError {
    BackingError::new(error.to_string())
}
