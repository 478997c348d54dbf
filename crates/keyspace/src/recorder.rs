//! What a transaction writes down while it changes the keyspace.

use std::cell::RefCell;
use std::hint::cold_path;
use std::ops::Range;
use std::sync::Arc;

use base::{DbIndex, Revision};

use crate::effect::Effect;
use crate::event::{Event, class};
use crate::garbage::{FlushedDb, Garbage};
use crate::restore::events_of;
use crate::value::Value;
use crate::warm::Foreseen;

/// Where transactions get their revisions and leave their effects.
///
/// Both calls are made under the locks of the shards that the transaction
/// touches, so for any two transactions that touch the same key the order of
/// revisions is the order in which they changed it.
pub trait Journal: Send + Sync {
    /// The next revision. Each one answered is appended, soon, exactly once.
    fn reserve(&self) -> Revision;

    /// The effects of the transaction that reserved `revision`. They may be
    /// empty when the journal does not [want](Journal::wants_effects) them.
    fn append(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &[u8]);

    /// As [`Journal::append`], of effects that the caller goes on reading: who
    /// keeps many need not copy them.
    fn append_shared(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &Arc<Vec<u8>>) {
        self.append(revision, time_ms, db, effects);
    }

    /// Whether anybody reads effects. Without a reader they are not encoded.
    fn wants_effects(&self) -> bool {
        true
    }
}

/// Bytes of effects from which on they are shared with the journal.
const SHARED_BYTES: usize = 1 << 20;

/// Buffers of transactions, kept between them so that a write allocates
/// nothing for its record once they are warm.
#[derive(Debug, Default)]
pub struct Buffers {
    pub(crate) effects: Vec<u8>,
    /// The effects, instead, if they are so many that the journal has the same.
    shared: Option<Arc<Vec<u8>>>,
    first_db: DbIndex,
    pub(crate) events: RefCell<Vec<Event>>,
    pub(crate) garbage: Vec<Garbage>,
    /// What a look ahead found out for the transactions to come. Elsewhere:
    /// every connection has buffers, and few are on a branch.
    pub(crate) foreseen: Option<Box<Foreseen>>,
}

impl Buffers {
    /// As they are after a transaction with these effects and events.
    pub(crate) fn of(first_db: DbIndex, effects: Arc<Vec<u8>>, events: Vec<Event>) -> Buffers {
        let shared = Some(effects);
        Buffers { shared, first_db, events: RefCell::new(events), ..Buffers::default() }
    }

    /// The last transaction's effects, empty if nobody wanted them. If it made
    /// none, there is at most an origin.
    #[must_use]
    pub fn effects(&self) -> &[u8] {
        self.shared.as_ref().map_or(&self.effects, |shared| shared)
    }

    /// The database that the last transaction's effects begin in, which need
    /// not be the one its client has selected.
    #[must_use]
    pub fn first_db(&self) -> DbIndex {
        self.first_db
    }

    /// Forgets the last transaction.
    pub(crate) fn clear(&mut self) {
        self.effects.clear();
        self.shared = None;
        self.events.get_mut().clear();
    }

    /// Takes the events of the last transaction.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(self.events.get_mut())
    }

    /// Adds the events of a transaction that set and removed keys as wholes and
    /// has told none; `classes` are those that somebody listens to.
    pub fn add_events(&mut self, classes: u32) {
        let events = events_of(self.first_db, self.effects(), classes);
        self.events.get_mut().extend(events);
    }

    /// Whether there are events to take.
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.events.borrow().is_empty()
    }

    /// Whether the last transaction threw anything away.
    #[must_use]
    pub fn has_garbage(&self) -> bool {
        !self.garbage.is_empty()
    }

    /// Takes what the last transaction threw away, to be dropped off the locks
    /// and, if it is much, off this thread.
    pub fn take_garbage(&mut self) -> Vec<Garbage> {
        std::mem::take(&mut self.garbage)
    }
}

/// The half of a transaction that remembers.
pub(crate) struct Recorder<'t> {
    journal: &'t dyn Journal,
    revision: Option<Revision>,
    /// What was found to be due before the first change: a record of its own,
    /// which is nobody's.
    expired: Option<Expired>,
    /// Bytes of the origin that the effects begin with.
    origin_bytes: usize,
    pub(crate) buffers: &'t mut Buffers,
    recording: bool,
    event_classes: u32,
    /// The database of the record's header, once there is an effect.
    header_db: Option<DbIndex>,
    /// The database that the following effects are taken to be in.
    db: DbIndex,
    /// Where the key stands in the record that they are taken to be on.
    key: Option<Range<usize>>,
}

/// The record of keys that were due. Its effects follow the origin.
#[derive(Clone, Copy, Debug)]
struct Expired {
    revision: Revision,
    /// Where its effects end.
    end: usize,
}

impl<'t> Recorder<'t> {
    pub(crate) fn new(
        journal: &'t dyn Journal,
        buffers: &'t mut Buffers,
        event_classes: u32,
        always_record: bool,
    ) -> Recorder<'t> {
        buffers.clear();
        Recorder {
            recording: always_record || journal.wants_effects(),
            journal,
            revision: None,
            expired: None,
            origin_bytes: 0,
            buffers,
            event_classes,
            header_db: None,
            db: 0,
            key: None,
        }
    }

    /// This transaction's revision, reserved at the first change.
    pub(crate) fn revision(&mut self) -> Revision {
        if let Some(revision) = self.revision {
            return revision;
        }
        if self.expired.is_some() {
            self.begin_after_expired();
        }
        *self.revision.insert(self.journal.reserve())
    }

    pub(crate) fn reserved(&self) -> Option<Revision> {
        self.revision
    }

    /// Revision of the keys that were due before the first change.
    pub(crate) fn expired(&self) -> Option<Revision> {
        self.expired.map(|expired| expired.revision)
    }

    /// To be called before a key is removed that is due. Answers whether that is
    /// recorded apart, as it is before the first change: then
    /// [`Recorder::end_expiry`] is to be called as well.
    pub(crate) fn begin_expiry(&mut self) -> bool {
        let is_apart = self.revision.is_none();
        if is_apart {
            self.revision = self.expired();
        }
        is_apart
    }

    /// What is noted from here on is the transaction's own again.
    pub(crate) fn end_expiry(&mut self) {
        let end = self.buffers.effects.len();
        self.expired = self.revision.take().map(|revision| Expired { revision, end });
    }

    /// The transaction's own record begins behind that of what was due.
    #[cold]
    fn begin_after_expired(&mut self) {
        self.buffers.effects.extend_from_within(..self.origin_bytes);
        (self.header_db, self.key) = (None, None);
    }

    pub(crate) fn record_always(&mut self) {
        self.recording = true;
    }

    /// Puts an origin in front of the record that may follow.
    pub(crate) fn originate(&mut self, origin: &Effect<'_>) {
        if self.recording {
            origin.encode(&mut self.buffers.effects);
            self.origin_bytes = self.buffers.effects.len();
        }
    }

    /// As [`Recorder::originate`], of an encoded one.
    #[inline]
    pub(crate) fn originate_encoded(&mut self, origin: &[u8]) {
        if self.recording {
            self.buffers.effects.extend_from_slice(origin);
            self.origin_bytes = origin.len();
        }
    }

    /// Keeps a removed value for the caller to drop off the locks.
    pub(crate) fn throw_away(&mut self, value: Option<Box<Value>>) {
        self.buffers.garbage.extend(value.map(Garbage::Value));
    }

    /// Keeps a flushed database for the caller to drop off the locks.
    pub(crate) fn throw_away_db(&mut self, flushed: Option<FlushedDb>) {
        self.buffers.garbage.extend(flushed.map(Garbage::Db));
    }

    /// Notes an effect on a key. `existed` says whether the key did before the
    /// effect, due or not.
    pub(crate) fn on_key(
        &mut self,
        db: DbIndex,
        key: &[u8],
        existed: bool,
        effect: &Effect<'_>,
    ) -> Revision {
        self.on_key_told(db, key, Some(existed), effect)
    }

    /// As [`Recorder::on_key`], where the record need not say whether the key
    /// existed.
    pub(crate) fn on_key_told(
        &mut self,
        db: DbIndex,
        key: &[u8],
        existed: Option<bool>,
        effect: &Effect<'_>,
    ) -> Revision {
        let revision = self.revision();
        if !self.recording {
            return revision;
        }
        let same_key = self.db == db
            && self.key.as_ref().is_some_and(|at| &self.buffers.effects[at.clone()] == key);
        if !same_key {
            self.begin_in(db);
            self.enter(db);
            Effect::Key { key, existed }.encode(&mut self.buffers.effects);
            let end = self.buffers.effects.len();
            self.key = Some(end - key.len()..end);
        }
        effect.encode(&mut self.buffers.effects);
        revision
    }

    /// Notes effects on many keys of a database, which nothing was noted before.
    /// `record` is given what the record begins with, and answers all of it.
    pub(crate) fn on_many(
        &mut self,
        db: DbIndex,
        record: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> Revision {
        assert!(self.revision.is_none(), "effects on many keys stand by themselves");
        let revision = self.revision();
        if self.recording {
            self.begin_in(db);
            let head = std::mem::take(&mut self.buffers.effects);
            self.buffers.effects = record(head);
            self.key = None;
        }
        revision
    }

    /// Notes an effect on whole databases.
    pub(crate) fn on_database(&mut self, db: DbIndex, effect: &Effect<'_>) -> Revision {
        let revision = self.revision();
        if self.recording {
            self.begin_in(db);
            effect.encode(&mut self.buffers.effects);
            // The key may be another now, or gone: it is to be named again,
            // with what is true of it then.
            self.key = None;
        }
        revision
    }

    /// The first effect's database is that of the record's header.
    fn begin_in(&mut self, db: DbIndex) {
        if self.header_db.is_none() {
            self.header_db = Some(db);
            if self.expired.is_none() {
                self.buffers.first_db = db;
                self.db = db;
            }
            // For who reads the effects of both records in one go.
            self.enter(db);
        }
    }

    /// Later effects are on this database's keys.
    fn enter(&mut self, db: DbIndex) {
        if self.db != db {
            Effect::Database(db).encode(&mut self.buffers.effects);
            self.db = db;
        }
    }

    #[inline]
    pub(crate) fn notify(&self, class: u32, name: &'static str, db: DbIndex, key: &[u8]) {
        if self.event_classes & class != 0
            && self.event_classes & (class::KEYSPACE | class::KEYEVENT) != 0
        {
            cold_path();
            let event = Event { class, name, db, key: key.to_vec() };
            self.buffers.events.borrow_mut().push(event);
        }
    }

    pub(crate) fn append(&mut self, time_ms: u64) {
        if self.expired.is_some() {
            self.append_both(time_ms);
        } else if let Some(revision) = self.revision {
            let db = self.header_db.unwrap_or(0);
            let Buffers { effects, shared, .. } = &mut *self.buffers;
            if effects.len() < SHARED_BYTES {
                self.journal.append(revision, time_ms, db, effects);
            } else {
                cold_path();
                let effects = shared.insert(Arc::new(std::mem::take(effects)));
                self.journal.append_shared(revision, time_ms, db, effects);
            }
        }
    }

    /// Appends what was due, and after it what was changed, if anything was.
    #[cold]
    fn append_both(&mut self, time_ms: u64) {
        let Expired { revision, end } = self.expired.expect("its caller has looked");
        let Buffers { effects, first_db, .. } = &*self.buffers;
        self.journal.append(revision, time_ms, *first_db, &effects[self.origin_bytes..end]);
        if let Some(revision) = self.revision {
            self.journal.append(revision, time_ms, self.header_db.unwrap_or(0), &effects[end..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Taker {
        copied: Mutex<Vec<usize>>,
        shared: Mutex<Vec<Arc<Vec<u8>>>>,
    }

    impl Journal for Taker {
        fn reserve(&self) -> Revision {
            Revision(7)
        }

        fn append(&self, _: Revision, _: u64, _: DbIndex, effects: &[u8]) {
            self.copied.lock().push(effects.len());
        }

        fn append_shared(&self, _: Revision, _: u64, _: DbIndex, effects: &Arc<Vec<u8>>) {
            self.shared.lock().push(effects.clone());
        }
    }

    #[test]
    fn many_effects_are_shared_with_the_journal() {
        let (taker, mut buffers) = (Taker::default(), Buffers::default());
        let large = vec![b'v'; SHARED_BYTES];
        for value in [b"small", &large[..], b"small"] {
            let mut recorder = Recorder::new(&taker, &mut buffers, 0, false);
            let effect = Effect::StrSet { value, deadline: None };
            recorder.on_key(3, b"k", false, &effect);
            recorder.append(1);
            let mut expected = Vec::new();
            Effect::Key { key: b"k", existed: Some(false) }.encode(&mut expected);
            effect.encode(&mut expected);
            assert_eq!((buffers.effects(), buffers.first_db()), (&expected[..], 3));
            if value.len() > 5 {
                assert_eq!(buffers.effects().as_ptr(), taker.shared.lock()[0].as_ptr());
            }
        }
        assert_eq!((taker.shared.lock().len(), taker.copied.lock().len()), (1, 2));
    }
}
