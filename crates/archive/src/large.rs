//! Changes to large collections that are not in memory.
//!
//! The delta does not read a collection that stands element by element to change
//! one element of it. What a record does to such a key stands here: the newest
//! of each element that it names, and what the head becomes. Whether an element
//! was there before, which the count depends on, takes one read of that
//! element. One that a branch has from its parent comes to lie over that so.
//!
//! What cannot be done so (the key gets another name or value, an element comes
//! into the middle of a list, the last element goes) is left to the delta's
//! keyspace. Its miss is filled from here, with the collection as it is by then.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use base::{DbIndex, Revision, SpaceId};
use keyspace::effect::{Effect, Effects};
use keyspace::types::List;
use keyspace::{Backing, BackingError, EncodingLimits, Keyspace, Stored, Value};
use log::Record;
use lsm_tree::UserValue;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::base_tree::Base;
use crate::codec::{self, Content};
use crate::elements::{self, Kind, Large, position_name};
use crate::error::ArchiveError;
use crate::layers::{Layer, Lower};

/// Bytes of memory that an element takes besides its name and content, about.
const ELEMENT_BYTES: usize = 96;

/// Bytes of memory that a key takes besides its elements, about.
const KEY_BYTES: usize = 256;

/// The generation of a collection that the base does not have yet: the batch to
/// come.
const UNBORN: Revision = Revision::ZERO;

/// Where a key stands: its space, hash and name.
type Place = (SpaceId, u64, Box<[u8]>);

/// Fills the misses of a delta's keyspace, and has what it lets stand where it
/// is. See the module's documentation.
#[derive(Debug)]
pub(crate) struct LargeKeys {
    base: Arc<Base>,
    backing: Arc<dyn Backing>,
    limits: EncodingLimits,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<Place, Pending>,
    bytes: usize,
    /// A head that was read and is of no large collection: the keyspace asks for
    /// it next.
    read: Option<(Place, UserValue)>,
}

/// What has become of a large collection.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) key: Box<[u8]>,
    /// The key of its head.
    pub(crate) head: Vec<u8>,
    /// As the base has it.
    before: Large,
    /// Where its elements stand there.
    layers: Vec<Layer>,
    large: Large,
    pub(crate) deadline: Option<u64>,
    pub(crate) revision: Revision,
    pub(crate) elements: BTreeMap<Box<[u8]>, Element>,
    bytes: usize,
}

/// What has become of an element.
#[derive(Debug)]
pub(crate) struct Element {
    pub(crate) revision: Revision,
    /// What it holds; `None` when it is gone.
    pub(crate) content: Option<Box<[u8]>>,
    /// Whether the base has it.
    is_stored: bool,
}

/// Why a record cannot be applied.
enum Wrong {
    Misfit(&'static str),
    Archive(ArchiveError),
}

impl From<&'static str> for Wrong {
    fn from(what: &'static str) -> Wrong {
        Wrong::Misfit(what)
    }
}

impl From<ArchiveError> for Wrong {
    fn from(error: ArchiveError) -> Wrong {
        Wrong::Archive(error)
    }
}

const NOT_AS_EXPECTED: &str = "the element is not as the record expects";

/// Keys by database and name, and where they stand.
type Ours<'r> = SmallVec<[(DbIndex, &'r [u8], Place); 1]>;

/// What a record does to one key.
struct Touch<'e> {
    db: DbIndex,
    key: &'e [u8],
    /// Nothing that needs the whole collection.
    is_blind: bool,
    /// Elements it takes away at most.
    removals: u64,
}

impl LargeKeys {
    pub(crate) fn new(
        base: Arc<Base>,
        backing: Arc<dyn Backing>,
        limits: EncodingLimits,
    ) -> LargeKeys {
        let seed = base.directory().seed;
        LargeKeys { base, backing, limits, seed, state: Mutex::default() }
    }

    /// Bytes of memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Takes out of a record's effects those on large collections that are not
    /// in `keyspace`; answers the others.
    pub(crate) fn take<'r>(
        &self,
        keyspace: &Keyspace,
        record: &Record<'r>,
    ) -> Result<Cow<'r, [u8]>, ArchiveError> {
        let ours = self.ours(keyspace, record)?;
        if ours.is_empty() {
            return Ok(Cow::Borrowed(record.effects));
        }
        let mut others = Vec::new();
        let (mut db, mut our_place) = (record.header.db, None);
        let mut state = self.state.lock();
        for (number, effect) in Effects::new(record.effects).enumerate() {
            let effect = effect.expect("read before");
            match effect {
                Effect::Database(of) => (db, our_place) = (of, None),
                Effect::Key { key, .. } => {
                    let found = ours.binary_search_by_key(&(db, key), |(db, key, _)| (*db, *key));
                    our_place = found.ok().map(|index| &ours[index].2);
                    if our_place.is_some() {
                        continue;
                    }
                }
                _ => {}
            }
            // Not every effect behind a key's name is about the key.
            let Some(place) = our_place.filter(|_| effect.is_on_key()) else {
                effect.encode(&mut others);
                continue;
            };
            let State { pending, bytes, .. } = &mut *state;
            let pending = pending.get_mut(place).expect("made when it was chosen");
            *bytes -= pending.bytes;
            let applied = pending.apply(&self.base, record.revision, &effect);
            *bytes += pending.bytes;
            applied.map_err(|wrong| match wrong {
                Wrong::Archive(error) => error,
                Wrong::Misfit(what) => ArchiveError::Misfit {
                    dir: self.base.dir().to_owned(),
                    revision: record.revision,
                    what: format!("effect {number} does not fit the value it finds: {what}"),
                },
            })?;
        }
        Ok(Cow::Owned(others))
    }

    /// The keys of a record, in order, that stay where they are, and where that
    /// is. What is malformed is for the keyspace to report.
    fn ours<'r>(&self, keyspace: &Keyspace, record: &Record<'r>) -> Result<Ours<'r>, ArchiveError> {
        let mut ours = Ours::new();
        let Some(touches) = touches(record) else { return Ok(ours) };
        for touch in touches.iter().filter(|touch| touch.is_blind) {
            let Touch { db, key, removals, .. } = *touch;
            if db >= keyspace.databases() {
                continue;
            }
            let Some((space, hash)) = keyspace.unknown(db, key) else { continue };
            let place = (space, hash, key.into());
            if self.find(&place)?.is_some_and(|count| removals < count) {
                ours.push((db, key, place));
            }
        }
        Ok(ours)
    }

    /// How many elements the collection has, if it is a large one.
    fn find(&self, place: &Place) -> Result<Option<u64>, ArchiveError> {
        let mut state = self.state.lock();
        if let Some(pending) = state.pending.get(place) {
            return Ok(Some(pending.large.count));
        }
        let (space, hash, key) = place;
        let head = codec::head_key(*space, *hash, key);
        // What the space itself has nothing of it has from below.
        let mut from_below = None;
        let value = match self.base.get(&head)? {
            Some(value) => value,
            None => match self.base.lower(&head, None)? {
                Some(Lower { head, at, value }) if at <= self.base.revision() => {
                    from_below = Some((head, at));
                    value
                }
                _ => return Ok(None),
            },
        };
        let read = codec::head(&value, key.len() > codec::NAME_BYTES_MAX);
        let read = read.map_err(|what| ArchiveError::Damaged {
            dir: self.base.dir().to_owned(),
            what: format!("in space {space}: {what}"),
        })?;
        let Some(read) = read else { return Ok(None) };
        let Content::Large(large) = read.content else {
            state.read = Some((place.clone(), value));
            return Ok(None);
        };
        let (own, layers) = match from_below {
            None => (large, self.base.layers(&head, None, read.revision, &large)?),
            Some((head, at)) => {
                let own = Large { born: UNBORN, is_over: true, ..large };
                (own, self.base.layers(&head, Some(at), read.revision, &large)?)
            }
        };
        let pending = Pending {
            key: key.clone(),
            bytes: KEY_BYTES + 2 * key.len() + head.len(),
            head,
            before: large,
            layers,
            large: own,
            deadline: read.deadline,
            revision: read.revision,
            elements: BTreeMap::new(),
        };
        state.bytes += pending.bytes;
        state.pending.insert(place.clone(), pending);
        Ok(Some(large.count))
    }

    /// Hands everything over, to be written.
    pub(crate) fn drain(&self) -> Drained {
        let mut state = self.state.lock();
        state.bytes = 0;
        Drained(std::mem::take(&mut state.pending))
    }
}

/// What stood there.
pub(crate) struct Drained(BTreeMap<Place, Pending>);

impl Drained {
    /// Visits what is to be written of a space and a part of the hash range, if
    /// `keyspace` does not know better.
    pub(crate) fn each(
        &self,
        keyspace: &Keyspace,
        space: SpaceId,
        hashes: RangeInclusive<u64>,
        visit: &mut dyn FnMut(&Pending),
    ) {
        let from = (space, *hashes.start(), Box::default());
        for ((of, hash, key), pending) in self.0.range(from..) {
            if *of != space || hash > hashes.end() {
                break;
            }
            if keyspace.is_unknown_in(space, key) {
                visit(pending);
            }
        }
    }
}

/// What a record does to each key, in the order of their names; `None` if it
/// needs none of this: it does nothing to elements, or changes databases.
fn touches<'r>(record: &Record<'r>) -> Option<SmallVec<[Touch<'r>; 2]>> {
    let mut touches: SmallVec<[Touch<'r>; 2]> = SmallVec::new();
    // Whether the key was named since the database was.
    let (mut db, mut is_named) = (record.header.db, false);
    for effect in Effects::new(record.effects) {
        let mut removed = 0;
        let is_blind = match effect.ok()? {
            Effect::Database(of) => {
                (db, is_named) = (of, false);
                continue;
            }
            Effect::Key { key, existed } => {
                is_named = true;
                let is_blind = existed != Some(false);
                touches.push(Touch { db, key, is_blind, removals: 0 });
                continue;
            }
            Effect::Flush { .. } | Effect::Swap { .. } | Effect::Return { .. } => return None,
            effect if !effect.is_on_key() => continue,
            _ if !is_named => return None,
            Effect::Rename { db, key, .. } => {
                let last = touches.last_mut()?;
                last.is_blind = false;
                touches.push(Touch { db, key, is_blind: false, removals: 0 });
                continue;
            }
            Effect::HashDelete { .. } | Effect::SetRemove { .. } | Effect::ZsetRemove { .. } => {
                removed = 1;
                true
            }
            Effect::ListPopFront { count } | Effect::ListPopBack { count } => {
                removed = count;
                true
            }
            Effect::HashSet { .. }
            | Effect::HashAdd { .. }
            | Effect::SetAdd { .. }
            | Effect::ZsetSet { .. }
            | Effect::ListPushFront { .. }
            | Effect::ListPushBack { .. }
            | Effect::ListSet { .. }
            | Effect::Deadline(_) => true,
            // Anything else needs the whole collection, or replaces it.
            _ => false,
        };
        let last = touches.last_mut()?;
        last.is_blind &= is_blind;
        last.removals = last.removals.saturating_add(removed);
    }
    if !touches.iter().any(|touch| touch.is_blind) {
        return None;
    }
    // A key may be named again later.
    touches.sort_by(|a, b| (a.db, a.key).cmp(&(b.db, b.key)));
    touches.dedup_by(|next, touch| {
        let is_same = (next.db, next.key) == (touch.db, touch.key);
        if is_same {
            touch.is_blind &= next.is_blind;
            touch.removals = touch.removals.saturating_add(next.removals);
        }
        is_same
    });
    Some(touches)
}

impl Pending {
    /// What its head says, in the batch of this revision.
    pub(crate) fn large_born(&self, batch: Revision) -> Large {
        let born = if self.large.born == UNBORN { batch } else { self.large.born };
        Large { born, ..self.large }
    }

    fn apply(&mut self, base: &Base, revision: Revision, effect: &Effect<'_>) -> Result<(), Wrong> {
        self.revision = revision;
        match *effect {
            Effect::Deadline(deadline) => self.deadline = deadline,
            Effect::HashSet { field, value } => {
                self.is(Kind::Hash)?;
                self.put(base, revision, field, value)?;
            }
            Effect::HashAdd { field, delta } => {
                self.is(Kind::Hash)?;
                let before = self.content(base, field)?;
                let before = before.as_deref().map_or(Some(0), base::number::parse_i64);
                let after = before.and_then(|n| n.checked_add(delta)).ok_or(NOT_AS_EXPECTED)?;
                self.put(base, revision, field, after.to_string().as_bytes())?;
            }
            Effect::HashDelete { field } => {
                self.is(Kind::Hash)?;
                self.remove(base, revision, field)?;
            }
            Effect::SetAdd { member } => {
                self.is(Kind::Set)?;
                if !self.put(base, revision, member, b"")? {
                    return Err(NOT_AS_EXPECTED.into());
                }
            }
            Effect::SetRemove { member } => {
                self.is(Kind::Set)?;
                self.remove(base, revision, member)?;
            }
            Effect::ZsetSet { member, score } => {
                self.is(Kind::Zset)?;
                self.put(base, revision, member, &score.to_le_bytes())?;
            }
            Effect::ZsetRemove { member } => {
                self.is(Kind::Zset)?;
                self.remove(base, revision, member)?;
            }
            Effect::ListPushFront { value } => {
                self.is(Kind::List)?;
                let first = self.large.first.checked_sub(1).ok_or(NOT_AS_EXPECTED)?;
                (self.large.first, self.large.count) = (first, self.large.count + 1);
                self.place(revision, first, value);
            }
            Effect::ListPushBack { value } => {
                self.is(Kind::List)?;
                let position = self.position(self.large.count)?;
                self.large.count += 1;
                self.place(revision, position, value);
            }
            Effect::ListPopFront { count } => {
                self.is(Kind::List)?;
                self.large.first = self.position(count)?;
                self.shrink(count)?;
            }
            Effect::ListPopBack { count } => {
                self.is(Kind::List)?;
                self.shrink(count)?;
            }
            Effect::ListSet { index, value } => {
                self.is(Kind::List)?;
                if index >= self.large.count {
                    return Err(NOT_AS_EXPECTED.into());
                }
                let position = self.position(index)?;
                self.place(revision, position, value);
            }
            _ => unreachable!("only what is blind comes here"),
        }
        Ok(())
    }

    fn is(&self, kind: Kind) -> Result<(), &'static str> {
        if self.large.kind == kind { Ok(()) } else { Err("the key holds another type") }
    }

    /// Where the element of an index stands, or would at the end.
    fn position(&self, index: u64) -> Result<i64, &'static str> {
        let position = i128::from(self.large.first) + i128::from(index);
        i64::try_from(position)
            .ok()
            .filter(|&position| position < i64::MAX)
            .ok_or("a list has no more positions")
    }

    /// Takes elements off a list, of which `first` says already where it begins.
    fn shrink(&mut self, count: u64) -> Result<(), &'static str> {
        // What takes the last one is not done here.
        let left = self.large.count.checked_sub(count).filter(|&left| left > 0);
        self.large.count = left.ok_or(NOT_AS_EXPECTED)?;
        let begin = position_name(self.large.first);
        let end = position_name(self.position(self.large.count)?);
        while let Some((name, _)) = self.elements.first_key_value()
            && **name < begin[..]
        {
            let (name, element) = self.elements.pop_first().expect("just seen");
            self.bytes -= bytes_of(&name, &element);
        }
        while let Some((name, _)) = self.elements.last_key_value()
            && **name >= end[..]
        {
            let (name, element) = self.elements.pop_last().expect("just seen");
            self.bytes -= bytes_of(&name, &element);
        }
        Ok(())
    }

    fn place(&mut self, revision: Revision, position: i64, content: &[u8]) {
        let content = Some(content.into());
        self.insert(&position_name(position), Element { revision, content, is_stored: false });
    }

    fn insert(&mut self, name: &[u8], element: Element) {
        self.bytes += bytes_of(name, &element);
        if let Some(old) = self.elements.insert(name.into(), element) {
            self.bytes -= bytes_of(name, &old);
        }
    }

    /// What an element of a hash, set or sorted set holds.
    fn content(&self, base: &Base, name: &[u8]) -> Result<Option<Cow<'_, [u8]>>, ArchiveError> {
        if let Some(element) = self.elements.get(name) {
            return Ok(element.content.as_deref().map(Cow::Borrowed));
        }
        let has_name = name.len() > elements::ELEMENT_NAME_BYTES_MAX;
        for layer in &self.layers {
            let Some(value) = layer.get(base, name)? else { continue };
            let found = elements::element(&value, has_name).map_err(|what| {
                ArchiveError::Damaged { dir: base.dir().to_owned(), what: what.to_owned() }
            })?;
            return Ok(found.map(|element| Cow::Owned(element.content.to_vec())));
        }
        Ok(None)
    }

    /// Whether an element is there, and whether the base has it.
    fn presence(&self, base: &Base, name: &[u8]) -> Result<(bool, bool), ArchiveError> {
        if let Some(element) = self.elements.get(name) {
            return Ok((element.content.is_some(), element.is_stored));
        }
        let is_there = self.content(base, name)?.is_some();
        Ok((is_there, is_there))
    }

    /// Answers whether the element is new.
    fn put(
        &mut self,
        base: &Base,
        revision: Revision,
        name: &[u8],
        content: &[u8],
    ) -> Result<bool, ArchiveError> {
        let (is_there, is_stored) = self.presence(base, name)?;
        self.large.count += u64::from(!is_there);
        self.insert(name, Element { revision, content: Some(content.into()), is_stored });
        Ok(!is_there)
    }

    fn remove(&mut self, base: &Base, revision: Revision, name: &[u8]) -> Result<(), Wrong> {
        let (is_there, is_stored) = self.presence(base, name)?;
        if !is_there || self.large.count == 1 {
            return Err(NOT_AS_EXPECTED.into());
        }
        self.large.count -= 1;
        self.insert(name, Element { revision, content: None, is_stored });
        if !is_stored {
            // It came and went between two batches.
            let element = self.elements.remove(name).expect("just inserted");
            self.bytes -= bytes_of(name, &element);
        }
        Ok(())
    }

    /// The whole value, made from the base's.
    fn complete(self, stored: Stored, limits: &EncodingLimits) -> Result<Stored, String> {
        let Stored { mut value, .. } = stored;
        let mut names = self.elements.iter();
        match &mut value {
            Value::List(list) => value = Value::List(self.list(list, limits)?),
            Value::Str(_) => return Err("a large collection is a string".to_owned()),
            Value::Hash(hash) => names.for_each(|(field, element)| match &element.content {
                Some(value) => _ = hash.set(field, value, limits),
                None => _ = hash.remove(field),
            }),
            Value::Set(set) => names.for_each(|(member, element)| match element.content {
                Some(_) => _ = set.add(member, limits),
                None => _ = set.remove(member),
            }),
            Value::Zset(zset) => names.try_for_each(|(member, element)| {
                match &element.content {
                    Some(score) => _ = zset.insert(member, elements::score(score)?, limits),
                    None => _ = zset.remove(member),
                }
                Ok::<_, &'static str>(())
            })?,
        }
        let found = value.as_ref().element_count() as u64;
        if found != self.large.count {
            return Err(format!("a collection of {} elements has {found}", self.large.count));
        }
        Ok(Stored { value, deadline: self.deadline, revision: self.revision })
    }

    fn list(&self, before: &List, limits: &EncodingLimits) -> Result<List, String> {
        let mut list = List::new();
        // The first of those that the base has and that are still there.
        let kept = self.large.first.max(self.before.first);
        let skipped = usize::try_from(kept - self.before.first).map_err(|e| e.to_string())?;
        let mut stored = before.iter_from(skipped.min(before.len()));
        for (position, _) in (self.large.first..).zip(0..self.large.count) {
            let old = if position >= kept { stored.next() } else { None };
            let new = self.elements.get(&position_name(position)[..]);
            let element = new.and_then(|element| element.content.as_deref()).or(old);
            list.push_back(element.ok_or("a list lacks an element")?, limits);
        }
        Ok(list)
    }
}

fn bytes_of(name: &[u8], element: &Element) -> usize {
    ELEMENT_BYTES + name.len() + element.content.as_ref().map_or(0, |content| content.len())
}

impl Backing for LargeKeys {
    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        let place = (space, hash, key.into());
        let (pending, read) = {
            let mut state = self.state.lock();
            let pending = state.pending.remove(&place);
            state.bytes -= pending.as_ref().map_or(0, |pending| pending.bytes);
            (pending, state.read.take().filter(|(of, _)| *of == place))
        };
        let damaged = |what: String| {
            BackingError::new(format!(
                "the archive in {} is damaged in space {space}: {what}",
                self.base.dir().display()
            ))
        };
        if let Some((_, value)) = read {
            let head = codec::head(&value, key.len() > codec::NAME_BYTES_MAX).map_err(damaged)?;
            if let Some(head) = head
                && let Some(value) = head.content.value(self.seed, &self.limits).map_err(damaged)?
            {
                let (deadline, revision) = (head.deadline, head.revision);
                return Ok(Some(Stored { value, deadline, revision }));
            }
        }
        let stored = self.backing.fetch(space, hash, key)?;
        match (pending, stored) {
            (None, stored) => Ok(stored),
            (Some(pending), Some(stored)) => {
                pending.complete(stored, &self.limits).map(Some).map_err(damaged)
            }
            (Some(_), None) => Err(damaged("a large collection is missing".to_owned())),
        }
    }

    fn bucket(
        &self,
        _: SpaceId,
        _: u16,
        _: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        Err(BackingError::new("the delta knows keys by their names only"))
    }
}

#[cfg(test)]
mod tests;
