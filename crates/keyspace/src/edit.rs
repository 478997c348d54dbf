//! Changes inside a collection: an [`Editor`] changes one element at a time and
//! records each change.

use std::ops::Deref;

use base::{DbIndex, Revision};
use entry::{ContentMut, Entry};

use crate::effect::Effect;
use crate::event::class;
use crate::limits::EncodingLimits;
use crate::recorder::Recorder;
use crate::shard::entry_bytes;
use crate::txn::{Txn, WrongType, place_of};
use crate::types::{Hash, List, Set, Zset};
use crate::value::{Value, ValueRef};

/// A type whose elements change one by one.
pub trait Collection: Sized {
    /// An empty collection whose tables hash with `seed`.
    fn create(seed: u64) -> Self;
    /// Whether it has no element; then its key does not exist.
    fn is_empty(&self) -> bool;
    /// The collection in a value of this type.
    fn from_ref(value: ValueRef<'_>) -> Option<&Self>;
    /// As [`Collection::from_ref`], to change.
    fn from_mut(value: &mut Value) -> Option<&mut Self>;
    /// As a value.
    fn into_value(self) -> Value;
}

macro_rules! collection {
    ($type:ident, $create:expr) => {
        impl Collection for $type {
            fn create(seed: u64) -> $type {
                $create(seed)
            }
            fn is_empty(&self) -> bool {
                self.len() == 0
            }
            fn from_ref(value: ValueRef<'_>) -> Option<&$type> {
                if let ValueRef::$type(found) = value { Some(found) } else { None }
            }
            fn from_mut(value: &mut Value) -> Option<&mut $type> {
                if let Value::$type(found) = value { Some(found) } else { None }
            }
            fn into_value(self) -> Value {
                Value::$type(self)
            }
        }
    };
}

collection!(List, |_| List::new());
collection!(Set, Set::new);
collection!(Hash, Hash::new);
collection!(Zset, Zset::new);

/// Changes a collection and records each change. Reads go to the collection
/// itself, through `Deref`.
pub struct Editor<'e, 't, C> {
    value: &'e mut C,
    db: DbIndex,
    key: &'e [u8],
    recorder: &'e mut Recorder<'t>,
    limits: &'e EncodingLimits,
    existed: bool,
    changed: bool,
}

impl<C> Deref for Editor<'_, '_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.value
    }
}

impl<C> Editor<'_, '_, C> {
    /// Announces a keyspace event about this key.
    pub fn notify(&self, class: u32, name: &'static str) {
        self.recorder.notify(class, name, self.db, self.key);
    }

    fn note(&mut self, effect: &Effect<'_>) {
        self.changed = true;
        self.recorder.on_key(self.db, self.key, self.existed, effect);
    }
}

impl Txn<'_> {
    /// Changes the collection at `key`; `None` when there is no key. When the
    /// last element goes, the key goes too (event `del`).
    ///
    /// # Errors
    /// When the key holds another type.
    pub fn update<C: Collection, R>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut Editor<'_, '_, C>) -> R,
    ) -> Result<Option<R>, WrongType> {
        self.purge(key);
        let (index, hash) = self.keyspace.locate(key);
        let (db_index, limits) = (self.db(), self.options.limits);
        let moment = self.options.touch.then(|| self.keyspace.moment(self.options.now_ms));
        // Who has just read it to change it does not use it twice.
        let accessed = self.accessed.take();
        let (shard, recorder) = self.split(index);
        let swapped = shard.last_swap;
        let db = &mut shard.dbs[usize::from(db_index)];
        let Some(entry) = db.table.get_mut(hash, key) else {
            let removed = shard.last_removal.max(swapped);
            self.see(removed);
            return Ok(None);
        };
        let found = Revision(entry.revision()).max(swapped);
        let before = entry_bytes(entry);
        let value = match entry.content_mut() {
            ContentMut::Boxed(value) => C::from_mut(value),
            ContentMut::Inline(_) => None,
        };
        let Some(value) = value else {
            self.see(found);
            return Err(WrongType);
        };
        let mut editor =
            Editor { value, db: db_index, key, recorder, limits, existed: true, changed: false };
        let result = edit(&mut editor);
        let (changed, is_empty) = (editor.changed, editor.value.is_empty());
        if let Some(moment) = moment.filter(|_| accessed != Some(place_of(entry))) {
            moment.touch(entry);
        }
        if !changed {
            self.see(found);
            return Ok(Some(result));
        }
        let after = entry_bytes(entry);
        let revision = recorder.revision();
        db.own.change(entry, revision, before);
        db.entry_bytes = db.entry_bytes - before + after;
        shard.last_revision = revision;
        if is_empty {
            shard.note_removal(revision);
            let gone =
                shard.dbs[usize::from(db_index)].remove(hash, key, revision).expect("just edited");
            recorder.throw_away(gone.into_boxed());
            recorder.on_key(db_index, key, true, &Effect::Emptied);
            recorder.notify(class::GENERIC, "del", db_index, key);
        }
        self.changed(index, db_index);
        Ok(Some(result))
    }

    /// As [`Txn::update`], with an empty collection where there is no key.
    ///
    /// # Errors
    /// When the key holds another type.
    pub fn update_or_create<C: Collection, R>(
        &mut self,
        key: &[u8],
        edit: impl FnOnce(&mut Editor<'_, '_, C>) -> R,
    ) -> Result<R, WrongType> {
        self.purge(key);
        if self.exists_quietly(key) {
            let result = self.update(key, edit)?;
            return Ok(result.expect("the key exists"));
        }
        let mut value = C::create(self.seed());
        let (db, limits) = (self.db(), self.options.limits);
        self.recorder.notify(class::NEW, "new", db, key);
        let recorder = &mut self.recorder;
        let mut editor =
            Editor { value: &mut value, db, key, recorder, limits, existed: false, changed: false };
        let result = edit(&mut editor);
        let changed = editor.changed;
        if changed && value.is_empty() {
            self.note(key, false, &Effect::Emptied);
        } else if changed {
            let revision = self.recorder.revision();
            let entry = Entry::boxed(key, Box::new(value.into_value()), None);
            self.insert_quietly(db, entry, revision);
        }
        Ok(result)
    }

    /// Overwrites a part of a string, or of nothing, with `bytes` from
    /// `offset` on; a gap is zeros. Answers the string's length.
    ///
    /// # Errors
    /// When the key holds another type.
    pub fn write_string(
        &mut self,
        key: &[u8],
        offset: usize,
        bytes: &[u8],
    ) -> Result<usize, WrongType> {
        self.purge(key);
        // Who writes has read it, which was the access.
        let existed = self.look_string(key)?.is_some();
        let effect = Effect::StrWrite { offset: offset as u64, bytes };
        let revision = self.note(key, existed, &effect);
        let (index, hash) = self.keyspace.locate(key);
        let db_index = self.db();
        self.changed(index, db_index);
        let (shard, recorder) = self.split(index);
        shard.last_revision = revision;
        let db = &mut shard.dbs[usize::from(db_index)];
        let end = offset + bytes.len();
        let Some(entry) = db.table.get_mut(hash, key) else {
            let mut value = vec![0; offset];
            value.extend_from_slice(bytes);
            let mut entry = string_entry(key, value, None);
            entry.set_marked(true);
            self.insert(db_index, entry, revision);
            return Ok(end);
        };
        let before = entry_bytes(entry);
        let len = match entry.content_mut() {
            ContentMut::Inline(value) if end <= value.len() => {
                value[offset..end].copy_from_slice(bytes);
                value.len()
            }
            ContentMut::Boxed(Value::Str(value)) => {
                if value.len() < end {
                    value.resize(end, 0);
                }
                value[offset..end].copy_from_slice(bytes);
                value.len()
            }
            ContentMut::Inline(value) => {
                let mut value = value.to_vec();
                value.resize(end, 0);
                value[offset..end].copy_from_slice(bytes);
                if end <= entry::INLINE_BYTES_MAX {
                    recorder.throw_away(entry.set_inline(&value));
                } else {
                    recorder.throw_away(entry.set_boxed(Box::new(Value::Str(value))));
                }
                end
            }
            ContentMut::Boxed(_) => unreachable!("the type was checked"),
        };
        entry.set_marked(true);
        db.own.change(entry, revision, before);
        db.entry_bytes = db.entry_bytes - before + entry_bytes(entry);
        Ok(len)
    }

    /// Sets the integer string at `key` to `value`, which is `delta` more than
    /// it was; the deadline stays. The record holds the delta, so that merges
    /// can add both sides' changes.
    pub fn add_to_string(&mut self, key: &[u8], delta: i64, value: i64) {
        self.purge(key);
        let existed = self.holds(self.db(), key);
        let revision = self.note(key, existed, &Effect::StrAdd { delta });
        let mut digits = itoa::Buffer::new();
        let text = digits.format(value).as_bytes();
        let (index, hash) = self.keyspace.locate(key);
        let db_index = self.db();
        self.changed(index, db_index);
        let (shard, recorder) = self.split(index);
        shard.last_revision = revision;
        let db = &mut shard.dbs[usize::from(db_index)];
        match db.table.get_mut(hash, key) {
            Some(entry) => {
                let before = entry_bytes(entry);
                recorder.throw_away(entry.set_inline(text));
                entry.set_marked(false);
                db.own.change(entry, revision, before);
                db.entry_bytes = db.entry_bytes - before + entry_bytes(entry);
            }
            None => self.insert(db_index, Entry::inline(key, text, None), revision),
        }
    }

    /// Whether the key exists, without counting as an access.
    pub(crate) fn exists_quietly(&self, key: &[u8]) -> bool {
        self.info(key).is_some()
    }
}

/// An entry for a string of any length.
pub(crate) fn string_entry(key: &[u8], value: Vec<u8>, deadline: Option<u64>) -> Entry<Value> {
    if value.len() <= entry::INLINE_BYTES_MAX {
        Entry::inline(key, &value, deadline)
    } else {
        Entry::boxed(key, Box::new(Value::Str(value)), deadline)
    }
}

impl Editor<'_, '_, Hash> {
    /// Sets a field; answers whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.note(&Effect::HashSet { field, value });
        self.value.set(field, value, self.limits)
    }

    /// Sets a field to the integer `value`, `delta` more than it was.
    pub fn add(&mut self, field: &[u8], delta: i64, value: i64) {
        self.note(&Effect::HashAdd { field, delta });
        self.value.set(field, itoa::Buffer::new().format(value).as_bytes(), self.limits);
    }

    /// Removes a field; answers whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let there = self.value.get(field).is_some();
        if there {
            self.note(&Effect::HashDelete { field });
            self.value.remove(field);
        }
        there
    }
}

impl Editor<'_, '_, Set> {
    /// Adds a member; answers whether it is new.
    pub fn add(&mut self, member: &[u8]) -> bool {
        let is_new = self.value.add(member, self.limits);
        if is_new {
            self.note(&Effect::SetAdd { member });
        }
        is_new
    }

    /// Removes a member; answers whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let there = self.value.remove(member);
        if there {
            self.note(&Effect::SetRemove { member });
        }
        there
    }
}

impl Editor<'_, '_, Zset> {
    /// Sets a member's score; answers the score it had.
    ///
    /// # Panics
    /// When the score is not a number.
    pub fn set(&mut self, member: &[u8], score: f64) -> Option<f64> {
        assert!(!score.is_nan(), "a score is a number");
        self.note(&Effect::ZsetSet { member, score });
        self.value.insert(member, score, self.limits)
    }

    /// Removes a member; answers its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.value.remove(member);
        if score.is_some() {
            self.note(&Effect::ZsetRemove { member });
        }
        score
    }
}

impl Editor<'_, '_, List> {
    /// Adds an element before the first.
    pub fn push_front(&mut self, value: &[u8]) {
        self.note(&Effect::ListPushFront { value });
        self.value.push_front(value, self.limits);
    }

    /// Adds an element after the last.
    pub fn push_back(&mut self, value: &[u8]) {
        self.note(&Effect::ListPushBack { value });
        self.value.push_back(value, self.limits);
    }

    /// Removes the first element.
    pub fn pop_front(&mut self) -> Option<Vec<u8>> {
        let popped = self.value.pop_front(self.limits)?;
        self.note(&Effect::ListPopFront { count: 1 });
        Some(popped)
    }

    /// Removes the last element.
    pub fn pop_back(&mut self) -> Option<Vec<u8>> {
        let popped = self.value.pop_back(self.limits)?;
        self.note(&Effect::ListPopBack { count: 1 });
        Some(popped)
    }

    /// Replaces the element at `index`, which must exist.
    pub fn set(&mut self, index: usize, value: &[u8]) {
        self.note(&Effect::ListSet { index: index as u64, value });
        self.value.set(index, value, self.limits);
    }

    /// Puts an element before the one at `index`, or at the end.
    pub fn insert(&mut self, index: usize, value: &[u8]) {
        self.note(&Effect::ListInsert { index: index as u64, value });
        self.value.insert_at(index, value, self.limits);
    }

    /// Removes the element at `index`, which must exist.
    pub fn remove(&mut self, index: usize) {
        self.note(&Effect::ListRemove { index: index as u64 });
        self.value.remove_at(index, self.limits);
    }

    /// Removes the first `count` elements, or all.
    pub fn drop_front(&mut self, count: usize) {
        let count = count.min(self.value.len());
        if count > 0 {
            self.note(&Effect::ListPopFront { count: count as u64 });
            self.value.trim(count, usize::MAX, self.limits);
        }
    }

    /// Removes the last `count` elements, or all.
    pub fn drop_back(&mut self, count: usize) {
        let count = count.min(self.value.len());
        if count > 0 {
            self.note(&Effect::ListPopBack { count: count as u64 });
            let keep = self.value.len() - count;
            self.value.trim(0, keep, self.limits);
        }
    }
}
