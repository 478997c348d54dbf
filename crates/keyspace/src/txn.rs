//! Transactions: the only way to a keyspace, for reads and for changes.
//!
//! A transaction holds the locks of its shards from beginning to end. Its
//! changes happen at once, each recorded as an [`Effect`]; when it ends, still
//! under the locks, the record goes to the [`Journal`]. [`Txn::apply`] makes
//! the same changes from a record, through the same methods, which is why a
//! replayed log gives the same state. Keys that it finds to be due before its
//! first change are a record of their own, before that.

mod control;
mod databases;
mod load;
mod part;
mod read;
mod removal;
mod scan;
mod shards;

use std::cell::Cell;
use std::convert::Infallible;
use std::hint::cold_path;

use base::{DbIndex, Revision};
use entry::Entry;
use smallvec::SmallVec;

use crate::access::Usage;
use crate::backing::BackingError;
use crate::effect::{Cause, Effect};
use crate::event::class;
use crate::limits::EncodingLimits;
use crate::recorder::{Buffers, Journal, Recorder};
use crate::shard::{Keyspace, SHARD_BITS, Shard, StringWrite, entry_bytes};
use crate::table::POSITION_BITS;
use crate::value::Value;

pub use read::KeyInfo;
use read::ReadCounts;
pub(crate) use read::{info_bytes, place_of};
pub use removal::Chosen;
pub(crate) use removal::MARK_BYTES;
pub use scan::Look;
use shards::{Changed, Locked};

/// Which shards a transaction locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// None at first: methods over the whole keyspace lock one shard after
    /// another, methods on a key lock nothing and panic.
    Sliced,
    /// The shards of these keys, by [`Keyspace::shard_of`].
    Shards(SmallVec<[usize; 4]>),
    /// Every shard.
    All,
}

/// How a transaction runs.
#[derive(Clone, Copy, Debug)]
pub struct TxnOptions<'t> {
    /// Milliseconds since 1970: what is due by then does not exist.
    pub now_ms: u64,
    /// When collections leave their compact encodings.
    pub limits: &'t EncodingLimits,
    /// Bits of [`class`] that somebody listens to.
    pub event_classes: u32,
    /// Record effects even if the journal does not want them: somebody else
    /// (client tracking, blocked clients) reads them.
    pub always_record: bool,
    /// Whether keys past their deadline are removed when met. Replicas and
    /// replay wait for the logged delete instead.
    pub expire: bool,
    /// Whether reads note the access for eviction and `OBJECT IDLETIME`.
    pub touch: bool,
}

#[cfg(test)]
impl<'t> TxnOptions<'t> {
    /// At the beginning of 1970, with nobody who listens.
    pub(crate) fn quiet(limits: &'t EncodingLimits) -> TxnOptions<'t> {
        TxnOptions {
            now_ms: 0,
            limits,
            event_classes: 0,
            always_record: false,
            expire: true,
            touch: false,
        }
    }
}

/// The operation is against a key that holds another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
pub struct WrongType;

/// A transaction. See the module's documentation.
pub struct Txn<'t> {
    pub(crate) keyspace: &'t Keyspace,
    locked: Locked<'t>,
    pub(crate) recorder: Recorder<'t>,
    pub(crate) options: TxnOptions<'t>,
    db: DbIndex,
    changed: Changed,
    /// Keys removed because their deadline had passed.
    expired: u32,
    keeps_due: bool,
    /// Until when what it flushes, or removes by name, can be taken back
    /// (milliseconds since 1970).
    undo_until_ms: Option<u64>,
    /// From how many keys on its record tells where they stay.
    left_from: u64,
    /// It has taken keys away that can be brought back.
    is_undoable: bool,
    reads: ReadCounts,
    /// The entry that was read last, until something is changed.
    pub(crate) accessed: Cell<Option<usize>>,
    /// The newest change that what it read can depend on.
    seen: Cell<Revision>,
    /// Why a key could not be brought into memory.
    backing_error: Option<BackingError>,
    /// Whether to wait for keys that take long to be brought into memory.
    is_patient: bool,
    /// Whether it did not have to at first.
    may_put_off: bool,
    /// One of these was met although it is not.
    has_later: bool,
    unread: load::Unread,
    /// The one key of which it sees only a part, see [`Txn::look_at`].
    part: Option<Box<part::Part>>,
    /// Keys brought into memory.
    loaded: u32,
}

/// What a finished transaction tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The last revision that it made, if any.
    pub written: Option<Revision>,
    /// That is of keys whose deadline had passed, and nobody's doing.
    pub only_expired: bool,
    /// The newest revision that what it read or wrote can depend on. A reply
    /// must not leave before this is committed.
    pub depends_on: Revision,
    /// Keys it removed because their deadline had passed.
    pub expired: u32,
    /// Reads that found their key, see [`Txn::count_reads`].
    pub hits: u32,
    /// Reads that did not.
    pub misses: u32,
    /// Keys it had to bring into memory, see [`Txn::loaded`].
    pub loaded: u32,
    /// Until when the keys that it took away can be brought back, if so, in
    /// milliseconds since 1970.
    pub undo_until_ms: Option<u64>,
}

impl Finished {
    /// Its revision, if it changed anything itself.
    #[must_use]
    pub fn changed(&self) -> Option<Revision> {
        self.written.filter(|_| !self.only_expired)
    }

    /// Of a transaction that wrote, and read nothing newer.
    pub(crate) fn of_write(revision: Revision) -> Finished {
        Finished {
            written: Some(revision),
            only_expired: false,
            depends_on: revision,
            expired: 0,
            hits: 0,
            misses: 0,
            loaded: 0,
            undo_until_ms: None,
        }
    }
}

impl<'t> Txn<'t> {
    /// Locks the scope's shards, in order, and begins.
    #[must_use]
    pub fn begin(
        keyspace: &'t Keyspace,
        scope: &Scope,
        journal: &'t dyn Journal,
        buffers: &'t mut Buffers,
        options: TxnOptions<'t>,
    ) -> Txn<'t> {
        let locked = match scope {
            Scope::Sliced => Locked::None,
            Scope::Shards(shards) => Locked::these(keyspace, shards),
            Scope::All => Locked::all(keyspace),
        };
        Txn::with(keyspace, locked, journal, buffers, options)
    }

    /// As [`Txn::begin`] with the one shard `key` lives in; the common case.
    #[must_use]
    pub fn begin_on_key(
        keyspace: &'t Keyspace,
        key: &[u8],
        journal: &'t dyn Journal,
        buffers: &'t mut Buffers,
        options: TxnOptions<'t>,
    ) -> Txn<'t> {
        let (shard, guard) = keyspace.lock_for(key);
        let locked = Locked::One(shard, guard);
        Txn::with(keyspace, locked, journal, buffers, options)
    }

    fn with(
        keyspace: &'t Keyspace,
        locked: Locked<'t>,
        journal: &'t dyn Journal,
        buffers: &'t mut Buffers,
        options: TxnOptions<'t>,
    ) -> Txn<'t> {
        let recorder =
            Recorder::new(journal, buffers, options.event_classes, options.always_record);
        Txn {
            keyspace,
            locked,
            recorder,
            options,
            db: 0,
            changed: Changed::default(),
            expired: 0,
            keeps_due: false,
            undo_until_ms: None,
            left_from: u64::MAX,
            is_undoable: false,
            reads: ReadCounts::default(),
            accessed: Cell::new(None),
            seen: Cell::new(Revision::ZERO),
            backing_error: None,
            is_patient: true,
            may_put_off: false,
            has_later: false,
            unread: load::Unread::default(),
            part: None,
            loaded: 0,
        }
    }

    /// Records effects from here on even if the journal does not want them.
    /// To be called before the first change: for callers that learn only under
    /// the lock that somebody waits for a key.
    pub fn record_always(&mut self) {
        debug_assert!(!self.has_noted(), "the first change is not recorded");
        self.recorder.record_always();
    }

    /// Says who makes the transaction. Its record, if there will be one, begins
    /// with that. To be called before the first change.
    pub fn originate(&mut self, command: &[u8], user: &[u8], address: &[u8]) {
        debug_assert!(!self.has_noted(), "an origin is the first effect");
        self.recorder.originate(&Effect::Origin { command, user, address });
    }

    /// As [`Txn::originate`], of an encoded [`Effect::Origin`].
    #[inline]
    pub fn originate_encoded(&mut self, origin: &[u8]) {
        debug_assert!(!self.has_noted(), "an origin is the first effect");
        self.recorder.originate_encoded(origin);
    }

    fn has_noted(&self) -> bool {
        self.recorder.reserved().or(self.recorder.expired()).is_some()
    }

    /// Leaves keys past their deadline where they are, unseen. Only for
    /// transactions that change nothing else: a change would meet them.
    pub fn keep_due(&mut self) {
        self.keeps_due = true;
    }

    /// Ends the transaction: its record goes to the journal, its locks open.
    pub fn finish(self) -> Finished {
        self.finished()
    }

    /// What it has done, for who ends it by dropping it. To move it costs: the
    /// copy waits until what was just written has reached the processor's cache,
    /// and a new entry's memory is mostly not there.
    #[must_use]
    pub fn finished(&self) -> Finished {
        let changed = self.recorder.reserved();
        let written = changed.or(self.recorder.expired());
        Finished {
            written,
            only_expired: changed.is_none() && written.is_some(),
            // What it wrote comes after everything it can have met.
            depends_on: self.seen.get().max(written.unwrap_or_default()),
            expired: self.expired,
            hits: self.reads.hits.get(),
            misses: self.reads.misses.get(),
            loaded: self.loaded,
            undo_until_ms: self.undo_until_ms.filter(|_| self.is_undoable),
        }
    }

    /// The database that methods on keys work in.
    #[must_use]
    pub fn db(&self) -> DbIndex {
        self.db
    }

    /// Chooses the database that methods on keys work in.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn select(&mut self, db: DbIndex) {
        assert!(db < self.keyspace.databases(), "database {db} does not exist");
        self.db = db;
    }

    /// How many databases there are.
    #[must_use]
    pub fn databases(&self) -> DbIndex {
        self.keyspace.databases()
    }

    /// Milliseconds since 1970 of this transaction.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.options.now_ms
    }

    /// The encoding limits in force.
    #[must_use]
    pub fn limits(&self) -> &'t EncodingLimits {
        self.options.limits
    }

    /// Revision of this transaction, if it has changed anything itself yet.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.recorder.reserved()
    }

    /// The effects so far, for those who must see them with the locks held;
    /// empty when nobody records them. An origin stands there from the start, and
    /// again after those of what was due before the first change.
    #[must_use]
    pub fn effects(&self) -> &[u8] {
        &self.recorder.buffers.effects
    }

    /// The database that [`Txn::effects`] begin in.
    #[must_use]
    pub fn first_db(&self) -> DbIndex {
        self.recorder.buffers.first_db()
    }

    /// The hash of a key in its keyspace.
    #[must_use]
    pub fn hash_of(&self, key: &[u8]) -> u64 {
        self.keyspace.hash_of(key)
    }

    /// The seed that new collections and detached values hash with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.keyspace.seed()
    }

    /// Announces a keyspace event about `key` in the current database.
    pub fn notify(&self, class: u32, name: &'static str, key: &[u8]) {
        self.recorder.notify(class, name, self.db, key);
    }

    // ---- whole keys ----

    /// Makes the key this string, whatever it was. Its caller has brought it into
    /// memory before, or sees to [`Txn::backing_error`].
    pub fn set_string(&mut self, key: &[u8], value: &[u8], deadline: Option<u64>) {
        if let Err(error) = self.overwrite(key, value, deadline) {
            self.fail(error);
        }
    }

    /// Makes the key this string, whatever it was, which need not be in memory
    /// and is not brought there if it is known whether it exists.
    ///
    /// # Errors
    /// When that cannot be found out; nothing has changed then. See also
    /// [`Txn::has_later`].
    pub fn overwrite(
        &mut self,
        key: &[u8],
        value: &[u8],
        deadline: Option<u64>,
    ) -> Result<(), BackingError> {
        let (index, hash) = self.keyspace.locate(key);
        let (db_index, moment) = (self.db, self.keyspace.moment(self.options.now_ms));
        let string = StringWrite { key, value, deadline, moment, touch: self.options.touch };
        let effect = Effect::StrSet { value, deadline };
        self.remove_due(index, hash, key);
        loop {
            let (shard, recorder) = self.split(index);
            let part = &mut shard.dbs[usize::from(db_index)];
            let begin = || Ok::<_, Infallible>(recorder.on_key(db_index, key, true, &effect));
            let Ok(overwritten) = part.overwrite(hash, &string, begin);
            if let Some(old) = overwritten {
                shard.last_revision = recorder.revision();
                recorder.throw_away(old);
                break;
            }
            // It may be due as soon as it is there.
            let Some(existed) = self.learn(index, hash, key)? else { continue };
            let deadline = self.unread.deadline(db_index, hash, key);
            let (shard, recorder) = self.split(index);
            let part = &mut shard.dbs[usize::from(db_index)];
            if existed {
                part.supersede_due(hash, deadline)?;
            }
            shard.last_revision = recorder.on_key(db_index, key, existed, &effect);
            let mut entry = string.entry(shard.last_revision);
            // If it has never changed here, it existed when the newest branch began as
            // well; else that is not known.
            let is_inherited = part.own.lacks(hash);
            entry.set_noted(existed && is_inherited && deadline.is_none());
            if existed && (!is_inherited || deadline.is_some()) {
                part.own.came_back(shard.last_revision.0);
            }
            part.add(hash, entry);
            if !existed {
                recorder.notify(class::NEW, "new", db_index, key);
            }
            break;
        }
        self.changed(index, db_index);
        Ok(())
    }

    /// Makes the key this value, whatever it was. An empty collection removes
    /// the key.
    pub fn put(&mut self, key: &[u8], value: Value, deadline: Option<u64>) {
        if let Value::Str(bytes) = &value {
            self.set_string(key, bytes, deadline);
            return;
        }
        if value.as_ref().element_count() == 0 {
            self.delete(key);
            return;
        }
        self.purge(key);
        // Stored is what the record says, read back: a value may have been
        // built in another order or encoding than replicas and replay build it
        // in, and they must count the same memory and name the same encoding.
        let body = crate::dump::encode_body(value.as_ref());
        let value = crate::dump::decode_body(&body, self.seed(), self.options.limits)
            .expect("what was just encoded can be read");
        self.put_encoded(key, &body, value, deadline);
    }

    /// Makes the key `value`, which was read from `body`.
    pub(crate) fn put_encoded(
        &mut self,
        key: &[u8],
        body: &[u8],
        value: Value,
        deadline: Option<u64>,
    ) {
        self.purge(key);
        let existed = self.holds(self.db, key);
        let revision = self.note(key, existed, &Effect::Put { body, deadline });
        let entry = match value {
            Value::Str(bytes) => crate::edit::string_entry(key, bytes, deadline),
            value => Entry::boxed(key, Box::new(value), deadline),
        };
        self.insert(self.db, entry, revision);
    }

    /// Removes a key; answers whether it existed. After [`Txn::look_for`] it need
    /// not be in memory. Errors as of [`Txn::load`].
    pub fn delete(&mut self, key: &[u8]) -> bool {
        if self.is_unread(self.db, key) {
            return match self.delete_unread(key) {
                Ok(()) => true,
                Err(error) => {
                    self.fail(error);
                    false
                }
            };
        }
        self.purge(key);
        self.remove(key, Cause::Client)
    }

    /// Removes a key for a reason other than a command, expiry included.
    pub fn remove(&mut self, key: &[u8], cause: Cause) -> bool {
        self.load(key);
        let (shard, hash) = self.keyspace.locate(key);
        if self.lookup(self.db, shard, hash, key).is_none() {
            return false;
        }
        let revision = self.note(key, true, &Effect::Delete(cause));
        self.take_out(shard, hash, key, revision);
        self.expired += u32::from(cause == Cause::Expired);
        true
    }

    /// Takes out a key that is there.
    fn take_out(&mut self, shard: usize, hash: u64, key: &[u8], revision: Revision) {
        let db = usize::from(self.db);
        self.changed(shard, self.db);
        let shard = self.locked.get_mut(shard);
        shard.note_removal(revision);
        let old = shard.dbs[db].remove(hash, key, revision).expect("just seen");
        self.recorder.throw_away(old.into_boxed());
    }

    /// Sets or removes the deadline of a key; answers whether the key exists.
    pub fn set_deadline(&mut self, key: &[u8], deadline: Option<u64>) -> bool {
        self.purge(key);
        let (shard, hash) = self.keyspace.locate(key);
        let Some(entry) = self.lookup(self.db, shard, hash, key) else { return false };
        let before = entry.deadline();
        let db = usize::from(self.db);
        let revision = self.note(key, true, &Effect::Deadline(deadline));
        self.changed(shard, self.db);
        let shard = self.locked.get_mut(shard);
        shard.last_revision = revision;
        let db = &mut shard.dbs[db];
        let entry = db.table.get_mut(hash, key).expect("just seen");
        let bytes = entry_bytes(entry);
        db.own.change(entry, revision, bytes);
        entry.set_deadline(deadline);
        db.entry_bytes = db.entry_bytes - bytes + entry_bytes(entry);
        before.into_iter().for_each(|at| {
            db.deadlines.remove(&(at, hash));
        });
        deadline.into_iter().for_each(|at| {
            db.deadlines.insert((at, hash));
        });
        true
    }

    /// Notes how much a key is used, where its keyspace keeps such, see
    /// [`Accesses`](crate::Accesses). That is no change.
    pub fn note_usage(&mut self, key: &[u8], usage: Usage) {
        let access = self.keyspace.accesses().of_usage(usage, self.options.now_ms);
        if let (Some(access), Some(entry)) = (access, self.found(self.db, key)) {
            entry.set_access(access);
        }
    }

    /// Moves a key's value, deadline included, to another key or database,
    /// replacing what is there. Answers whether the key exists.
    pub fn rename(&mut self, key: &[u8], to_db: DbIndex, to: &[u8]) -> bool {
        self.purge(key);
        let (shard, hash) = self.keyspace.locate(key);
        if self.lookup(self.db, shard, hash, key).is_none() {
            return false;
        }
        let from_db = usize::from(self.db);
        if to_db == self.db && to == key {
            return true;
        }
        let home = self.db;
        self.db = to_db;
        self.purge(to);
        self.db = home;
        let replaces = Some(self.holds(to_db, to));
        let revision = self.note(key, true, &Effect::Rename { db: to_db, key: to, replaces });
        self.changed(shard, self.db);
        let shard = self.locked.get_mut(shard);
        shard.note_removal(revision);
        let old = shard.dbs[from_db].remove(hash, key, revision).expect("just seen");
        let (deadline, access, marked) = (old.deadline(), old.access(), old.marked());
        let mut moved = match old.content() {
            entry::Content::Inline(value) => Entry::inline(to, value, deadline),
            entry::Content::Boxed(_) => {
                Entry::boxed(to, old.into_boxed().expect("just seen"), deadline)
            }
        };
        moved.set_access(access);
        moved.set_marked(marked);
        self.insert(to_db, moved, revision);
        true
    }

    // ---- expiry ----

    /// Brings the key into memory, see [`Txn::load`], and removes it if its
    /// deadline has passed, as a logged delete.
    pub fn purge(&mut self, key: &[u8]) {
        self.load(key);
        if self.options.expire && !self.keeps_due {
            let (shard, hash) = self.keyspace.locate(key);
            self.remove_due(shard, hash, key);
        }
    }

    /// Removes a key that is in memory if its deadline has passed.
    fn remove_due(&mut self, shard: usize, hash: u64, key: &[u8]) {
        let db = &self.shard(shard).dbs[usize::from(self.db)];
        if db.first_deadline() > self.options.now_ms || !self.options.expire || self.keeps_due {
            return;
        }
        let is_due = db.table.get(hash, key).is_some_and(|entry| self.is_due(entry));
        if is_due {
            cold_path();
            let is_apart = self.recorder.begin_expiry();
            self.remove(key, Cause::Expired);
            if is_apart {
                self.recorder.end_expiry();
            }
            self.notify(class::EXPIRED, "expired", key);
        }
    }

    /// Whether a key of the current database may be past its deadline, in any
    /// shard that is locked.
    #[must_use]
    pub fn may_be_due(&self) -> bool {
        let db = usize::from(self.db);
        self.locked.any(|shard| shard.dbs[db].first_deadline() <= self.options.now_ms)
    }

    /// Removes a key that is in memory if its deadline has passed: for who is
    /// about to change several, so that all of it comes before the first change.
    ///
    /// # Panics
    /// When the key's shard is not locked.
    pub fn expire(&mut self, key: &[u8]) {
        let (shard, hash) = self.keyspace.locate(key);
        self.remove_due(shard, hash, key);
    }

    /// Removes up to `limit` keys past their deadline from one shard, in every
    /// database, soonest first. Answers how many it removed.
    ///
    /// # Panics
    /// When the shard is not locked.
    pub fn expire_due(&mut self, shard: usize, limit: usize) -> usize {
        let home = self.db;
        let mut removed = 0;
        for db in 0..self.keyspace.databases() {
            self.db = db;
            while removed < limit {
                let db = &self.shard(shard).dbs[usize::from(db)];
                let Some(&(at, hash)) = db.deadlines.first() else { break };
                if at > self.options.now_ms {
                    break;
                }
                let found = db.table.find(hash, |entry| entry.deadline() == Some(at));
                let Some(key) = found.map(|entry| entry.key().to_vec()) else {
                    let Some(gone) = self.load_due(shard, at, hash) else { break };
                    removed += gone;
                    continue;
                };
                self.remove(&key, Cause::Expired);
                self.notify(class::EXPIRED, "expired", &key);
                removed += 1;
            }
        }
        self.db = home;
        removed
    }

    // ---- inside ----

    /// Notes an effect on a key of the current database.
    pub(crate) fn note(&mut self, key: &[u8], existed: bool, effect: &Effect<'_>) -> Revision {
        self.recorder.on_key(self.db, key, existed, effect)
    }

    /// Whether a key stands in its table, due or not: what effects tell of it.
    pub(crate) fn holds(&self, db: DbIndex, key: &[u8]) -> bool {
        let (shard, hash) = self.keyspace.locate(key);
        self.lookup(db, shard, hash, key).is_some()
    }

    /// Puts an entry that was noted before into its table.
    pub(crate) fn insert(&mut self, db: DbIndex, entry: Entry<Value>, revision: Revision) {
        let (shard, hash) = self.keyspace.locate(entry.key());
        if self.shard(shard).dbs[usize::from(db)].table.get(hash, entry.key()).is_none() {
            self.recorder.notify(class::NEW, "new", db, entry.key());
        }
        self.insert_quietly(db, entry, revision);
    }

    /// As [`Txn::insert`], without the event for a new key.
    pub(crate) fn insert_quietly(
        &mut self,
        db: DbIndex,
        mut entry: Entry<Value>,
        revision: Revision,
    ) {
        let (shard, hash) = self.keyspace.locate(entry.key());
        self.changed(shard, db);
        entry.set_revision(revision.0);
        if entry.access() == 0 {
            entry.set_access(self.keyspace.fresh_access(self.options.now_ms));
        }
        let shard = self.locked.get_mut(shard);
        shard.last_revision = revision;
        let old = shard.dbs[usize::from(db)].insert(hash, entry);
        self.recorder.throw_away(old.and_then(Entry::into_boxed));
    }

    pub(crate) fn changed(&mut self, shard: usize, db: DbIndex) {
        self.changed.note(shard, db);
    }

    /// Shards and databases that were changed so far.
    pub(crate) fn changed_parts(&self) -> impl Iterator<Item = (usize, DbIndex)> {
        self.changed.iter()
    }

    pub(crate) fn is_due(&self, entry: &Entry<Value>) -> bool {
        entry.deadline().is_some_and(|at| at <= self.options.now_ms) && self.options.expire
    }

    pub(crate) fn shard(&self, index: usize) -> &Shard {
        self.locked.get(index)
    }

    pub(crate) fn shard_mut(&mut self, index: usize) -> &mut Shard {
        self.locked.get_mut(index)
    }

    /// The shard and the recorder, which an edit needs at once.
    pub(crate) fn split(&mut self, index: usize) -> (&mut Shard, &mut Recorder<'t>) {
        (self.locked.get_mut(index), &mut self.recorder)
    }
}

impl Drop for Txn<'_> {
    /// The record reaches the journal whatever ends the transaction, so state
    /// and log agree even after a handler's panic.
    fn drop(&mut self) {
        self.recorder.append(self.options.now_ms);
        let changed = std::mem::take(&mut self.changed);
        if !changed.is_empty() {
            self.keyspace.note_access_clock(self.keyspace.fresh_access(self.options.now_ms));
        }
        for (shard, db) in changed.iter() {
            let keyspace = self.keyspace;
            keyspace.recount(shard, &mut self.shard_mut(shard).dbs[usize::from(db)]);
        }
    }
}

const _: () = assert!(SHARD_BITS + POSITION_BITS <= 53, "cursors fit in a double");
