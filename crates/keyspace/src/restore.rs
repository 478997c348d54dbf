//! Many keys made what they are to be, by one transaction that holds its locks
//! for as short as can be.
//!
//! What is to be stands in a keyspace of its own. It is compared with what is
//! a few keys at a time, and the record of what differs is encoded with no lock
//! held. Then all locks are taken at once; if nothing has changed since the
//! comparison, the record goes to the journal, and the entries change hands
//! shard by shard, each of which is open again as soon as it has its own. Who
//! gets in sees all of it, for what it has yet to meet is still locked.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{DbIndex, Revision};
use entry::{Content, Entry};
use parking_lot::{Mutex, MutexGuard};

use crate::backing::{BackingError, Stored};
use crate::dump;
use crate::effect::{Cause, Effect, Effects};
use crate::event::{Event, class};
use crate::limits::EncodingLimits;
use crate::recorder::{Buffers, Journal};
use crate::shard::{Db, Keyspace, SHARDS, Shard, entry_bytes, hash_of, value_of};
use crate::txn::Finished;
use crate::value::Value;

/// Keys that are compared before their shard's lock opens for others.
const KEYS_AT_ONCE: usize = 64;

/// A key and its database.
type Place = (DbIndex, Box<[u8]>);

/// Keys to be made what they were. See the module's documentation.
#[derive(Debug)]
pub struct Restoration {
    /// Keys as they are to be; of those that were compared, only what differs.
    wanted: Keyspace,
    parts: Vec<Mutex<Part>>,
    /// The record's first database and its effects.
    record: Option<(DbIndex, Arc<Vec<u8>>)>,
    /// The revision that all wanted entries say they are of.
    stamp: Option<Revision>,
}

/// What is known of the keys of one shard.
#[derive(Debug, Default)]
struct Part {
    is_compared: bool,
    /// The shard's newest change before it was compared.
    seen: Revision,
    /// Keys that are not to be.
    unwanted: BTreeSet<Place>,
    /// Those of them that are.
    removed: Vec<Place>,
    restored: usize,
    /// What the record is to say, by database.
    effects: Vec<(DbIndex, Vec<u8>)>,
}

/// How keys are compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'c> {
    /// Milliseconds since 1970: what is due by then does not exist.
    pub now_ms: u64,
    /// When collections leave their compact encodings.
    pub limits: &'c EncodingLimits,
}

/// What a wanted key finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    /// What it is to be.
    Same,
    Other,
    Nothing,
    /// Nothing that matters: its own deadline has passed.
    TooLate,
}

impl Restoration {
    /// Keys are to be what they are in `wanted`, which hashes as the keyspace in
    /// question does ([`Keyspace::hashed_as`]) and has all its keys in memory.
    #[must_use]
    pub fn to(wanted: Keyspace) -> Restoration {
        let parts = (0..SHARDS).map(|_| Mutex::default()).collect();
        Restoration { wanted, parts, record: None, stamp: None }
    }

    /// A key is to be this, or is not to be.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn want(&mut self, db: DbIndex, key: &[u8], value: Option<Stored>) {
        let part = self.touch(key);
        match value {
            Some(stored) => {
                part.unwanted.remove(&(db, key.into()));
                self.wanted.give(db, key, stored);
            }
            None => {
                part.unwanted.insert((db, key.into()));
                self.wanted.take(db, key).expect("all its keys are in memory");
            }
        }
    }

    /// Notes that a key has changed. False if it is not known here what it is to
    /// be: then it has to be said again.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn note_changed(&mut self, db: DbIndex, key: &[u8]) -> bool {
        let is_known = self.knows(db, key);
        if is_known {
            self.touch(key);
        }
        is_known
    }

    /// Notes that any key may have changed, as where a database was emptied or
    /// changed places: its keys of now do not tell which it had when they were
    /// compared.
    pub fn note_all_changed(&mut self) {
        (self.record, self.stamp) = (None, None);
        self.parts.iter_mut().for_each(|part| part.get_mut().is_compared = false);
    }

    /// Whether it was said what a key is to be, and that is not what it was when
    /// it was compared.
    ///
    /// # Panics
    /// When there is no such database.
    #[must_use]
    pub fn knows(&self, db: DbIndex, key: &[u8]) -> bool {
        let (index, hash) = self.wanted.locate(key);
        self.wanted.lock(index).dbs[usize::from(db)].table.get(hash, key).is_some()
            || self.parts[index].lock().unwanted.contains(&(db, key.into()))
    }

    /// The part of a key's shard, which has to be compared from here on.
    fn touch(&mut self, key: &[u8]) -> &mut Part {
        (self.record, self.stamp) = (None, None);
        let part = self.parts[self.wanted.shard_of(key)].get_mut();
        part.is_compared = false;
        part
    }

    /// The keys that are to have a value, as far as they differ.
    #[must_use]
    pub fn wanted(&self) -> &Keyspace {
        &self.wanted
    }

    /// Whether every key was compared since it was said what it is to be, or
    /// was noted to have changed.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        self.parts.iter().all(|part| part.lock().is_compared)
    }

    /// How many keys get a value, and how many go.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let add = |(restored, removed): (u64, u64), part: &Mutex<Part>| {
            let part = part.lock();
            (restored + part.restored as u64, removed + part.removed.len() as u64)
        };
        self.parts.iter().fold((0, 0), add)
    }

    /// The keys that change, in order.
    #[must_use]
    pub fn places(&self) -> Vec<(DbIndex, Box<[u8]>)> {
        let mut places: Vec<Place> =
            self.parts.iter().flat_map(|part| part.lock().removed.clone()).collect();
        for index in 0..SHARDS {
            for (db, part) in (0..).zip(&self.wanted.lock(index).dbs) {
                places.extend(part.table.iter().map(|entry| (db, entry.key().into())));
            }
        }
        places.sort_unstable();
        places
    }

    /// The keys that are to be compared.
    #[must_use]
    pub fn open_places(&self) -> Vec<(DbIndex, Box<[u8]>)> {
        let mut places: Vec<Place> = Vec::new();
        for index in 0..SHARDS {
            let part = self.parts[index].lock();
            if part.is_compared {
                continue;
            }
            places.extend(part.unwanted.iter().cloned());
            for (db, part) in (0..).zip(&self.wanted.lock(index).dbs) {
                places.extend(part.table.iter().map(|entry| (db, entry.key().into())));
            }
        }
        places
    }

    /// How many keys are to have a value, as far as is known.
    #[must_use]
    pub fn keys(&self) -> usize {
        let of_shard = |index| -> usize {
            self.wanted.lock(index).dbs.iter().map(|wanted| wanted.table.len()).sum()
        };
        (0..SHARDS).map(of_shard).sum()
    }

    /// Compares the keys that have to be. Those that are what they are to be are
    /// let go.
    ///
    /// # Errors
    /// When a key cannot be brought into memory.
    pub fn compare(&self, live: &Keyspace, how: Comparison<'_>) -> Result<(), BackingError> {
        (0..SHARDS).try_for_each(|index| self.compare_shard(live, index, how))
    }

    /// The same of one shard, a few keys at a time under its lock.
    ///
    /// # Errors
    /// As [`Restoration::compare`].
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn compare_shard(
        &self,
        live: &Keyspace,
        index: usize,
        how: Comparison<'_>,
    ) -> Result<(), BackingError> {
        let part = &mut *self.parts[index].lock();
        if part.is_compared {
            part.follow(live, &live.lock(index));
            return Ok(());
        }
        part.effects.clear();
        part.restored = 0;
        part.seen = live.lock(index).last_revision;
        let mut shard = self.wanted.lock(index);
        for (db, wanted) in (0..).zip(&mut shard.dbs) {
            part.compare_wanted(live, (index, db), wanted, how)?;
            self.wanted.recount(index, wanted);
        }
        drop(shard);
        part.compare_unwanted(live, index, how)?;
        part.is_compared = true;
        Ok(())
    }

    /// Puts the record together, with `head` in front; it need not be done again
    /// until something has changed.
    pub fn encode(&mut self, head: &[Effect<'_>]) {
        if self.record.is_some() {
            return;
        }
        let groups: Vec<&(DbIndex, Vec<u8>)> =
            self.parts.iter_mut().flat_map(|part| &part.get_mut().effects).collect();
        let bytes: usize = groups.iter().map(|(_, effects)| effects.len() + 8).sum();
        let mut effects = Vec::with_capacity(bytes + 256);
        head.iter().for_each(|effect| effect.encode(&mut effects));
        let first = groups.first().map_or(0, |(db, _)| *db);
        let mut at = first;
        for (db, group) in groups {
            if *db != at {
                Effect::Database(*db).encode(&mut effects);
                at = *db;
            }
            effects.extend_from_slice(group);
        }
        self.record = Some((first, Arc::new(effects)));
    }

    /// Makes the change, once for all, if `is_current` says so when every lock is
    /// held: from then on nobody else need be held up, who would have to wait for
    /// a lock anyway. Then `see` is shown the effects that [`Restoration::encode`]
    /// has put together. `None`, and nothing has changed, where it does not say so,
    /// or where the record would not fit the keys that are there: those have to be
    /// compared anew.
    ///
    /// # Errors
    /// When keys that were put out of memory since cannot be read. Nothing has
    /// changed then.
    ///
    /// # Panics
    /// When not every key is compared, the record is not put together, or the
    /// wanted keys are hashed in another way.
    pub fn write(
        &mut self,
        live: &Keyspace,
        journal: &dyn Journal,
        now_ms: u64,
        is_current: &mut dyn FnMut() -> bool,
        see: &mut dyn FnMut(&[u8]),
    ) -> Result<Option<Finished>, BackingError> {
        assert!(self.is_compared(), "keys are compared before they are written");
        assert_eq!(self.wanted.seed(), live.seed(), "entries stand in the order of one hash");
        // Dropped when no lock is held any more.
        let mut replaced = Vec::new();
        let mut guards: Vec<_> = (0..SHARDS).map(|index| live.lock(index)).collect();
        if !is_current() {
            return Ok(None);
        }
        let access = live.fresh_access(now_ms);
        if live.is_backed() {
            for (index, shard) in guards.iter_mut().enumerate() {
                self.load_again(live, index, shard, access)?;
            }
        }
        // Replay would refuse it, and all that comes after it.
        if !self.fits(live, &guards) {
            drop(guards);
            self.note_all_changed();
            return Ok(None);
        }
        let (db, effects) = self.record.as_ref().expect("the record is put together");
        see(effects);
        let revision = journal.reserve();
        // Before the first shard opens: what others do there comes later.
        journal.append_shared(revision, now_ms, *db, effects);
        for (index, mut shard) in guards.into_iter().enumerate() {
            self.hand_over(live, index, &mut shard, revision, &mut replaced);
        }
        live.note_access_clock(access);
        Ok(Some(Finished::of_write(revision)))
    }

    /// What the caller of [`Restoration::write`] has to deal with afterwards;
    /// `classes` are the events that somebody listens to.
    ///
    /// # Panics
    /// When the record is not put together.
    #[must_use]
    pub fn into_buffers(self, classes: u32) -> Buffers {
        let (db, effects) = self.record.expect("the record is put together");
        let events = events_of(db, &effects, classes);
        Buffers::of(db, effects, events)
    }

    /// Says of every entry that it is of this revision, which the record probably
    /// gets: else it is said with the locks held.
    pub fn expect(&mut self, revision: Revision) {
        if self.stamp == Some(revision) {
            return;
        }
        for index in 0..SHARDS {
            for wanted in &mut self.wanted.lock(index).dbs {
                wanted.table.iter_mut().for_each(|entry| entry.set_revision(revision.0));
            }
        }
        self.stamp = Some(revision);
    }

    /// Brings in again what was put out of memory since it was compared.
    fn load_again(
        &self,
        live: &Keyspace,
        index: usize,
        shard: &mut Shard,
        access: u32,
    ) -> Result<(), BackingError> {
        let wanted = self.wanted.lock(index);
        for (part, wanted) in shard.dbs.iter_mut().zip(&wanted.dbs) {
            if part.is_backed() {
                for entry in wanted.table.iter() {
                    part.load(wanted.table.hash_of(entry.key()), entry.key(), access)?;
                }
            }
        }
        for (db, key) in &self.parts[index].lock().removed {
            shard.dbs[usize::from(*db)].load(live.locate(key).1, key, access)?;
        }
        shard.dbs.iter_mut().for_each(|part| live.recount(index, part));
        Ok(())
    }

    /// Whether the keys that the record names are there as it tells. Where nothing
    /// has changed since they were compared, they are.
    fn fits(&self, live: &Keyspace, shards: &[MutexGuard<'_, Shard>]) -> bool {
        self.parts.iter().zip(shards).all(|(part, shard)| {
            let part = part.lock();
            let is_as_compared = part.seen == shard.last_revision && !cfg!(debug_assertions);
            is_as_compared || part.fits(live, shard)
        })
    }

    fn hand_over(
        &self,
        live: &Keyspace,
        index: usize,
        shard: &mut Shard,
        revision: Revision,
        replaced: &mut Vec<Entry<Value>>,
    ) {
        let mut wanted = self.wanted.lock(index);
        let stamp = (self.stamp != Some(revision)).then_some(revision);
        for (part, wanted) in shard.dbs.iter_mut().zip(&mut wanted.dbs) {
            if !wanted.table.is_empty() {
                shard.last_revision = revision;
                part.take_over(wanted, stamp, replaced);
                live.recount(index, part);
            }
        }
        for (db, key) in &self.parts[index].lock().removed {
            shard.note_removal(revision);
            let part = &mut shard.dbs[usize::from(*db)];
            replaced.extend(part.remove(live.locate(key).1, key, revision));
            live.recount(index, part);
        }
    }
}

impl Part {
    /// Takes note of changes that leave its keys as they were, so that nobody has to
    /// look for them with all locks held.
    fn follow(&mut self, live: &Keyspace, shard: &Shard) {
        if self.seen != shard.last_revision && self.fits(live, shard) {
            self.seen = shard.last_revision;
        }
    }

    /// Whether its keys are there as its effects tell, all of them in memory.
    fn fits(&self, live: &Keyspace, shard: &Shard) -> bool {
        self.effects.iter().all(|(db, effects)| {
            let table = &shard.dbs[usize::from(*db)].table;
            Effects::new(effects).map_while(Result::ok).all(|effect| match effect {
                Effect::Key { key, existed } => {
                    existed == Some(table.get(live.locate(key).1, key).is_some())
                }
                _ => true,
            })
        })
    }

    /// Compares the keys of a database that are to have a value.
    fn compare_wanted(
        &mut self,
        live: &Keyspace,
        (index, db): (usize, DbIndex),
        wanted: &mut Db,
        how: Comparison<'_>,
    ) -> Result<(), BackingError> {
        let (seed, access) = (live.seed(), live.fresh_access(how.now_ms));
        // Mostly a record takes less than what it makes.
        let mut effects = Vec::with_capacity(wanted.entry_bytes);
        let mut to_let_go = Vec::new();
        let mut entries: Vec<&mut Entry<Value>> = wanted.table.iter_mut().collect();
        for entries in entries.chunks_mut(KEYS_AT_ONCE) {
            let mut found = [Found::TooLate; KEYS_AT_ONCE];
            {
                let mut shard = live.lock(index);
                let ours = &mut shard.dbs[usize::from(db)];
                for (entry, found) in entries.iter().zip(&mut found) {
                    *found = find(ours, entry, how.now_ms, access)?;
                }
                live.recount(index, ours);
            }
            for (entry, found) in entries.iter_mut().zip(found) {
                let key = entry.key();
                let existed = match found {
                    Found::Other => true,
                    Found::Nothing => false,
                    Found::Same => {
                        to_let_go.push(Box::from(key));
                        continue;
                    }
                    Found::TooLate => {
                        to_let_go.push(Box::from(key));
                        self.unwanted.insert((db, key.into()));
                        continue;
                    }
                };
                self.restored += 1;
                Effect::Key { key, existed: Some(existed) }.encode(&mut effects);
                settle(entry, seed, how.limits, &mut effects);
                entry.set_marked(false);
                entry.set_access(access);
            }
        }
        wanted.entry_bytes = wanted.table.iter().map(entry_bytes).sum();
        for key in to_let_go {
            wanted.remove(hash_of(seed, &key), &key, Revision::ZERO);
        }
        if !effects.is_empty() {
            self.effects.push((db, effects));
        }
        Ok(())
    }

    /// Finds out which of the keys are there that are not to be.
    fn compare_unwanted(
        &mut self,
        live: &Keyspace,
        index: usize,
        how: Comparison<'_>,
    ) -> Result<(), BackingError> {
        let access = live.fresh_access(how.now_ms);
        self.removed.clear();
        let unwanted: Vec<&Place> = self.unwanted.iter().collect();
        for places in unwanted.chunks(KEYS_AT_ONCE) {
            let mut shard = live.lock(index);
            for (db, key) in places {
                let (hash, part) = (live.locate(key).1, &mut shard.dbs[usize::from(*db)]);
                part.load(hash, key, access)?;
                // What is due goes by itself, and nobody has removed it.
                let is_there = |entry: &Entry<Value>| !is_due(entry, how.now_ms);
                if part.table.get(hash, key).is_some_and(is_there) {
                    self.removed.push((*db, key.clone()));
                }
                live.recount(index, part);
            }
        }
        for (db, key) in &self.removed {
            if self.effects.last().is_none_or(|(last, _)| last != db) {
                self.effects.push((*db, Vec::new()));
            }
            let (_, effects) = self.effects.last_mut().expect("just seen");
            Effect::Key { key, existed: Some(true) }.encode(effects);
            Effect::Delete(Cause::Client).encode(effects);
        }
        Ok(())
    }
}

impl Db {
    /// Takes every entry of another one in its own, and says of them that they are
    /// of the revision `stamp`; what was replaced goes to `replaced`.
    fn take_over(
        &mut self,
        other: &mut Db,
        stamp: Option<Revision>,
        replaced: &mut Vec<Entry<Value>>,
    ) {
        let knows_none = self.removals.as_ref().is_none_or(|removals| removals.is_empty());
        let is_plain = !self.own.is_counting() && self.touched.is_none();
        if self.table.is_empty() && !self.is_backed() && knows_none && is_plain {
            if let Some(revision) = stamp {
                other.table.iter_mut().for_each(|entry| entry.set_revision(revision.0));
            }
            std::mem::swap(&mut self.table, &mut other.table);
            std::mem::swap(&mut self.deadlines, &mut other.deadlines);
            std::mem::swap(&mut self.entry_bytes, &mut other.entry_bytes);
            return;
        }
        for mut entry in other.drain() {
            stamp.into_iter().for_each(|revision| entry.set_revision(revision.0));
            let hash = self.table.hash_of(entry.key());
            replaced.extend(self.insert(hash, entry));
        }
    }
}

fn find(
    ours: &mut Db,
    wanted: &Entry<Value>,
    now_ms: u64,
    access: u32,
) -> Result<Found, BackingError> {
    if is_due(wanted, now_ms) {
        return Ok(Found::TooLate);
    }
    let (key, hash) = (wanted.key(), ours.table.hash_of(wanted.key()));
    if ours.is_backed() {
        ours.load(hash, key, access)?;
    }
    Ok(match ours.table.get(hash, key) {
        None => Found::Nothing,
        Some(now) if !is_due(now, now_ms) && is_same(now, wanted) => Found::Same,
        Some(_) => Found::Other,
    })
}

fn is_due(entry: &Entry<Value>, now_ms: u64) -> bool {
    entry.deadline().is_some_and(|at| at <= now_ms)
}

fn is_same(a: &Entry<Value>, b: &Entry<Value>) -> bool {
    a.deadline() == b.deadline() && value_of(a).is_same(value_of(b))
}

/// Records the value of an entry, and makes it what the record makes of it: it
/// may have been built in another order or encoding than replay builds it in.
fn settle(entry: &mut Entry<Value>, seed: u64, limits: &EncodingLimits, effects: &mut Vec<u8>) {
    let deadline = entry.deadline();
    let built = match entry.content() {
        Content::Inline(value) => {
            Effect::StrSet { value, deadline }.encode(effects);
            return;
        }
        Content::Boxed(Value::Str(value)) => {
            Effect::StrSet { value, deadline }.encode(effects);
            if value.capacity() == value.len() {
                return;
            }
            Value::Str(value.as_slice().to_vec())
        }
        Content::Boxed(value) => {
            let body = dump::encode_body(value.as_ref());
            Effect::Put { body: &body, deadline }.encode(effects);
            dump::decode_body(&body, seed, limits).expect("what was just encoded can be read")
        }
    };
    entry.set_boxed(Box::new(built));
}

/// The events of a record that sets and removes keys as wholes.
pub(crate) fn events_of(mut db: DbIndex, effects: &[u8], classes: u32) -> Vec<Event> {
    let mut events = Vec::new();
    if classes & (class::KEYSPACE | class::KEYEVENT) == 0 {
        return events;
    }
    let mut at: (&[u8], Option<bool>) = (b"", None);
    for effect in Effects::new(effects).map_while(Result::ok) {
        let mut add = |class: u32, name: &'static str| {
            if classes & class != 0 {
                events.push(Event { class, name, db, key: at.0.to_vec() });
            }
        };
        match effect {
            Effect::Database(other) => db = other,
            Effect::Key { key, existed } => at = (key, existed),
            Effect::StrSet { .. } | Effect::Put { .. } => {
                if at.1 == Some(false) {
                    add(class::NEW, "new");
                }
                add(class::GENERIC, "restore");
            }
            Effect::Delete(_) => add(class::GENERIC, "del"),
            _ => {}
        }
    }
    events
}
