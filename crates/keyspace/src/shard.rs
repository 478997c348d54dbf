//! Shards: the tables of all databases for one part of the hash range, behind
//! one lock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{DbIndex, Revision, SpaceId};
use entry::{Content, Entry};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::access::{AccessMode, Moment};
use crate::backing::{Asked, Backed, Backing, Count, Removed};
use crate::due::NotedDeadlines;
use crate::garbage::Emptied;
use crate::gauges::{Counted, Gauges};
use crate::own::Own;
use crate::past_rules::PastRules;
use crate::sweep::{Going, Touched};
use crate::table::{Keyed, Table};
use crate::value::{Value, ValueRef};
use crate::victims::Pool;

/// Bits of a key's hash that choose its shard.
pub(crate) const SHARD_BITS: u32 = 6;

/// Number of shards. 64 stripes scale to the cores we serve on at no extra CPU
/// where one lock loses half (measured; DESIGN 8).
pub const SHARDS: usize = 1 << SHARD_BITS;

/// Bytes a node of the deadline index costs per key: 16 of payload in B-tree
/// leaves that are about two thirds full.
pub(crate) const DEADLINE_BYTES: usize = 24;

impl Keyed for Entry<Value> {
    fn key(&self) -> &[u8] {
        Entry::key(self)
    }
}

/// One database's part of a shard.
#[derive(Debug)]
pub(crate) struct Db {
    pub(crate) table: Table<Entry<Value>>,
    /// Keys with a deadline, soonest first, by the hash of the key.
    pub(crate) deadlines: BTreeSet<(u64, u64)>,
    /// Heap bytes of the entries and their values.
    pub(crate) entry_bytes: usize,
    /// What its keys are named by in a backing.
    pub(crate) space: SpaceId,
    /// There while keys may stand in a backing only.
    pub(crate) backed: Option<Box<Backed>>,
    /// The newest removal that was not remembered, or is no longer: a backing
    /// that has not reached it answers with keys that do not exist.
    pub(crate) forgotten_removal: Revision,
    /// Keys removed, where somebody wants to know.
    pub(crate) removals: Option<Box<Table<Removed>>>,
    /// Keys that came and went, where a sweep wants to know.
    pub(crate) touched: Option<Box<Touched>>,
    /// What a branch has changed itself, and what its own branches may ask.
    pub(crate) own: Own,
    /// The last transaction by which it changed places with another, or its keys
    /// came back that a flush had taken away.
    pub(crate) moved: Revision,
    /// What the shard's memory gauges count of this database.
    pub(crate) counted: Counted,
    /// Its place's bit among those that are used.
    pub(crate) bit: u64,
}

/// Sixteen of them, as many databases as there are mostly, fill a page, and
/// each branch has 64 times so many.
const _: () = assert!(size_of::<Db>() <= 256);

impl Db {
    pub(crate) fn new(seed: u64, space: SpaceId) -> Db {
        Db {
            table: Table::in_shard(seed, SHARD_BITS),
            deadlines: BTreeSet::new(),
            entry_bytes: 0,
            space,
            backed: None,
            forgotten_removal: Revision::ZERO,
            removals: None,
            touched: None,
            own: Own::default(),
            moved: Revision::ZERO,
            counted: Counted::default(),
            bit: 0,
        }
    }

    /// The deadline that comes first; `u64::MAX` when there is none.
    pub(crate) fn first_deadline(&self) -> u64 {
        self.deadlines.first().map_or(u64::MAX, |&(at, _)| at)
    }

    /// Adds or replaces; answers what stood there.
    pub(crate) fn insert(&mut self, hash: u64, mut entry: Entry<Value>) -> Option<Entry<Value>> {
        let Some(found) = self.table.get_mut(hash, entry.key()) else {
            self.add(hash, entry);
            return None;
        };
        self.own.replace(found, &mut entry);
        self.entry_bytes += entry_bytes(&entry);
        let deadline = entry.deadline();
        let old = std::mem::replace(found, entry);
        // The old entry leaves the index first: both may have one deadline.
        self.forget(hash, &old);
        deadline.into_iter().for_each(|at| {
            self.deadlines.insert((at, hash));
        });
        Some(old)
    }

    /// Adds an entry whose key has none.
    pub(crate) fn add(&mut self, hash: u64, entry: Entry<Value>) {
        self.note_inserted(hash, entry.key());
        self.entry_bytes += entry_bytes(&entry);
        self.own.came(hash, &entry);
        entry.deadline().into_iter().for_each(|at| {
            self.deadlines.insert((at, hash));
        });
        self.table.add(hash, entry);
    }

    /// Makes a key that has an entry this string, whatever it was, by one lookup.
    /// `begin` is called before anything changes, and answers the revision or
    /// ends it there. It counts as an access if the string says so. `None`, and
    /// nothing happens, where there is no entry.
    pub(crate) fn overwrite<E>(
        &mut self,
        hash: u64,
        string: &StringWrite<'_>,
        begin: impl FnOnce() -> Result<Revision, E>,
    ) -> Result<Option<Option<Box<Value>>>, E> {
        let Some(entry) = self.table.get_mut(hash, string.key) else { return Ok(None) };
        let revision = begin()?;
        // The common overwrite allocates nothing when the size fits.
        if string.value.len() <= entry::INLINE_BYTES_MAX && entry.deadline() == string.deadline {
            let before = entry_bytes(entry);
            self.own.change(entry, revision, before);
            let old = entry.set_inline(string.value);
            entry.set_marked(false);
            if string.touch {
                string.moment.touch(entry);
            }
            self.entry_bytes = self.entry_bytes - before + entry_bytes(entry);
            return Ok(Some(old));
        }
        let access = entry.access();
        let fresh = string.entry(revision);
        if string.touch {
            fresh.set_access(access);
            string.moment.touch(&fresh);
        }
        Ok(Some(self.insert(hash, fresh).and_then(Entry::into_boxed)))
    }

    /// Removes a key, as a change of `revision`.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        key: &[u8],
        revision: Revision,
    ) -> Option<Entry<Value>> {
        let old = self.table.remove(hash, key)?;
        self.own.went(&old);
        self.forget(hash, &old);
        self.note_removed(hash, key, revision);
        Some(old)
    }

    /// Takes a removed entry out of the sums and the index.
    fn forget(&mut self, hash: u64, old: &Entry<Value>) {
        self.entry_bytes -= entry_bytes(old);
        if let Some(at) = old.deadline() {
            self.deadlines.remove(&(at, hash));
        }
    }

    /// Begins to remember the keys that are removed; see
    /// [`Keyspace::remember_removals`](super::Keyspace::remember_removals).
    pub(crate) fn remember_removals(&mut self) {
        self.removals = Some(Box::new(Table::in_shard(self.table.seed(), SHARD_BITS)));
    }

    /// Whether it is as it was made, but for its space.
    pub(crate) fn is_pristine(&self) -> bool {
        self.table.is_empty()
            && self.backed.is_none()
            && self.deadlines.is_empty()
            && self.removals.as_ref().is_none_or(|removals| removals.is_empty())
            && self.forgotten_removal == Revision::ZERO
    }

    /// Takes all keys out and stands in a fresh space from here on, from which
    /// nothing was ever removed.
    fn begin_in(&mut self, fresh: SpaceId) -> Emptied {
        // Where it is not in the processor's cache, what is left alone is not
        // waited for.
        let Db {
            table,
            deadlines,
            entry_bytes,
            space,
            backed,
            forgotten_removal,
            removals,
            touched,
            own,
            moved,
            counted: _,
            bit: _,
        } = self;
        let (entry_bytes, is_whole) = (std::mem::take(entry_bytes), backed.is_none());
        (*space, *backed) = (fresh, None);
        (*forgotten_removal, *moved) = (Revision::ZERO, Revision::ZERO);
        *touched = None;
        *own = own.anew_in(fresh);
        let seed = table.seed();
        removals.iter_mut().for_each(|removals| **removals = Table::in_shard(seed, SHARD_BITS));
        let table = std::mem::replace(table, Table::in_shard(seed, SHARD_BITS));
        Emptied { table, deadlines: std::mem::take(deadlines), entry_bytes, is_whole }
    }

    /// As [`Db::begin_in`]; answers all that stood here, which the place goes on
    /// to count until the end of the transaction.
    fn put_by(&mut self, fresh: SpaceId) -> Db {
        let mut db = Db::new(self.table.seed(), fresh);
        db.own = self.own.anew_in(fresh);
        if self.removals.is_some() {
            db.remember_removals();
        }
        (db.counted, db.bit) = (self.counted, self.bit);
        let mut left = std::mem::replace(self, db);
        (left.counted, left.bit) = (Counted::default(), 0);
        left.touched = None;
        left
    }

    /// Takes every entry out. Nothing is remembered of the keys.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Entry<Value>> + use<> {
        self.deadlines.clear();
        self.entry_bytes = 0;
        self.own = self.own.anew();
        self.table.drain()
    }

    /// Drops every entry, and keeps the memory of a small table for the next
    /// ones. Nothing is remembered of the keys.
    pub(crate) fn empty(&mut self) {
        self.deadlines.clear();
        self.entry_bytes = 0;
        self.table.empty();
    }

    /// How many keys there are, in memory or not.
    pub(crate) fn len(&self) -> usize {
        self.table.len() + usize::try_from(self.unloaded_keys()).unwrap_or(usize::MAX)
    }

    /// Swaps contents. What the gauge counts stays: it belongs to the place.
    pub(crate) fn exchange(&mut self, other: &mut Db) {
        std::mem::swap(self, other);
        (self.touched, other.touched) = (None, None);
        std::mem::swap(&mut self.counted, &mut other.counted);
        std::mem::swap(&mut self.bit, &mut other.bit);
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entry_bytes
            + self.table.memory_bytes()
            + self.deadlines.len() * DEADLINE_BYTES
            + self.backed_bytes()
            + self.own.memory_bytes()
    }

    /// What a branch takes for its own changes, of [`Db::memory_bytes`]: those
    /// entries, their share of the table, and what is remembered of removed keys.
    fn own_bytes(&self) -> usize {
        if !self.own.is_counting() {
            return 0;
        }
        let places = self.table.memory_bytes() * self.own.entries() / self.table.len().max(1);
        self.entry_bytes - self.own.inherited_bytes() + places + self.own.memory_bytes()
    }

    pub(crate) fn count(&self) -> Counted {
        Counted { bytes: self.memory_bytes(), own_bytes: self.own_bytes() }
    }
}

/// Where databases stand, and how many keys each shard has of them, in memory
/// or not.
pub type Spaces = Vec<(DbIndex, SpaceId, [u64; SHARDS])>;

/// A string that a key is to be.
pub(crate) struct StringWrite<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) deadline: Option<u64>,
    pub(crate) moment: Moment,
    /// Whether to overwrite counts as an access.
    pub(crate) touch: bool,
}

impl StringWrite<'_> {
    /// As a new entry.
    pub(crate) fn entry(&self, revision: Revision) -> Entry<Value> {
        let mut entry = string_of(self.key, self.value, self.deadline);
        entry.set_revision(revision.0);
        entry.set_access(self.moment.fresh());
        entry
    }
}

/// A string and its key.
pub(crate) fn string_of(key: &[u8], value: &[u8], deadline: Option<u64>) -> Entry<Value> {
    if value.len() <= entry::INLINE_BYTES_MAX {
        Entry::inline(key, value, deadline)
    } else {
        Entry::boxed(key, Box::new(Value::Str(value.to_vec())), deadline)
    }
}

/// Heap bytes of an entry with its value.
pub(crate) fn entry_bytes(entry: &Entry<Value>) -> usize {
    entry.heap_bytes()
        + match entry.content() {
            Content::Inline(_) => 0,
            Content::Boxed(value) => size_of::<Value>() + value.memory_bytes(),
        }
}

/// The value an entry holds.
pub(crate) fn value_of(entry: &Entry<Value>) -> ValueRef<'_> {
    match entry.content() {
        Content::Inline(bytes) => ValueRef::Str(bytes),
        Content::Boxed(value) => value.as_ref(),
    }
}

/// The part of every database whose keys hash into one shard.
#[derive(Debug)]
pub struct Shard {
    pub(crate) dbs: Vec<Db>,
    /// The newest transaction that changed something here.
    pub(crate) last_revision: Revision,
    /// The newest one that took a key away. To see that a key is missing
    /// depends on this.
    pub(crate) last_removal: Revision,
    /// The newest one by which databases changed places, or got keys back.
    pub(crate) last_swap: Revision,
    /// Databases that were emptied and whose keys may come back, where they are
    /// kept for that.
    pub(crate) left: Option<Vec<Db>>,
    /// Elements that were read of collections which stayed in the backing.
    pub(crate) asked: Asked,
    /// Keys that are removed and still stand here. Nobody sees them: see
    /// [`Keyspace::lock`].
    pub(crate) going: Option<Box<Going>>,
}

impl Shard {
    /// Notes where its databases stand; it is the shard `index`.
    pub(crate) fn note_spaces(&self, index: usize, spaces: &mut Spaces) {
        for ((_, space, keys), db) in spaces.iter_mut().zip(&self.dbs) {
            *space = db.space;
            keys[index] = db.len() as u64;
        }
    }

    /// Notes that a transaction takes keys away.
    pub(crate) fn note_removal(&mut self, revision: Revision) {
        self.last_revision = revision;
        self.last_removal = revision;
    }

    /// A space that no database has, for one that is emptied at `revision`.
    pub(crate) fn fresh_space(&self, db: DbIndex, revision: Revision) -> SpaceId {
        let mut space = SpaceId { born: revision, db };
        // One transaction may make a branch, flush, swap and flush again: the
        // space that it made first has an owner by then.
        while self.dbs.iter().any(|other| other.space == space) {
            space.db = space.db.wrapping_add(1);
        }
        space
    }

    /// Lets two databases change places.
    pub(crate) fn swap(&mut self, a: DbIndex, b: DbIndex, revision: Revision) {
        let (a, b) = (usize::from(a), usize::from(b));
        self.dbs.swap(a, b);
        (self.dbs[a].moved, self.dbs[b].moved) = (revision, revision);
        let (of_b, of_a) = (self.dbs[a].bit, self.dbs[b].bit);
        (self.dbs[a].bit, self.dbs[b].bit) = (of_a, of_b);
    }

    /// Empties one database, which gets that space; answers what stood there, if
    /// anything, to be dropped elsewhere. If it `keeps` that, it is put by, where
    /// such things are.
    pub(crate) fn flush(&mut self, db: DbIndex, space: SpaceId, keeps: bool) -> Option<Emptied> {
        let db = &mut self.dbs[usize::from(db)];
        match &mut self.left {
            Some(left) if keeps => {
                left.push(db.put_by(space));
                None
            }
            _ if db.is_pristine() => {
                // Mostly so: there are more databases than anybody uses.
                db.space = space;
                db.own = db.own.anew_in(space);
                None
            }
            _ => Some(db.begin_in(space)),
        }
    }
}

/// A shard on cache lines of its own, so that neighbours' locks do not share.
#[derive(Debug)]
#[repr(align(128))]
struct Slot {
    lock: Mutex<Shard>,
    /// Of what is here as of the last transaction, readable unlocked.
    gauges: Gauges,
}

/// The current state of all databases of one branch.
#[derive(Debug)]
pub struct Keyspace {
    slots: Box<[Slot]>,
    seed: u64,
    databases: DbIndex,
    /// What keys can be evicted to.
    backing: Mutex<Option<Arc<dyn Backing>>>,
    backed_count: Arc<Count>,
    access_clock: AtomicU32,
    access_mode: AccessMode,
    pool: Mutex<Pool>,
    /// Held by who sweeps.
    sweeping: Mutex<()>,
    past_rules: RwLock<Arc<PastRules>>,
    /// Databases that ever took memory, the last bit for all that have none of
    /// their own.
    used: AtomicU64,
    noted: NotedDeadlines,
}

/// The hash of a key in keyspaces with this seed.
#[must_use]
pub fn hash_of(seed: u64, key: &[u8]) -> u64 {
    Table::<Entry<Value>>::hash(seed, key)
}

impl Keyspace {
    /// An empty keyspace with `databases` databases. `seed` keys the hash, so
    /// that clients cannot choose keys that collide; take it from an
    /// unpredictable source in production.
    #[must_use]
    pub fn new(databases: DbIndex, seed: u64) -> Keyspace {
        let shard = || Shard {
            dbs: (0..databases)
                .map(|db| Db { bit: bit_of(db), ..Db::new(seed, SpaceId::first_of(db)) })
                .collect(),
            last_revision: Revision::ZERO,
            last_removal: Revision::ZERO,
            last_swap: Revision::ZERO,
            left: None,
            asked: Asked::default(),
            going: None,
        };
        let slots = (0..SHARDS)
            .map(|_| Slot { lock: Mutex::new(shard()), gauges: Gauges::default() })
            .collect();
        Keyspace {
            slots,
            seed,
            databases,
            backing: Mutex::new(None),
            backed_count: Arc::default(),
            access_clock: AtomicU32::new(0),
            access_mode: AccessMode::default(),
            pool: Mutex::new(Pool::new(seed)),
            sweeping: Mutex::default(),
            past_rules: RwLock::default(),
            used: AtomicU64::new(0),
            noted: NotedDeadlines::default(),
        }
    }

    /// An empty keyspace that [`crate::Txn::replace_with`] takes in this one's
    /// place.
    #[must_use]
    pub fn empty_like(&self) -> Keyspace {
        let like = Keyspace::new(self.databases, self.seed);
        like.note_accesses(self.accesses());
        like
    }

    /// How many databases there are.
    #[must_use]
    pub fn databases(&self) -> DbIndex {
        self.databases
    }

    /// Heap bytes of keys, values and tables, as of each shard's last
    /// transaction.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.gauges.read().bytes).sum()
    }

    /// Bytes that it takes without any key, which [`Keyspace::memory_bytes`] does
    /// not count.
    #[must_use]
    pub fn empty_bytes(&self) -> usize {
        SHARDS * (size_of::<Slot>() + usize::from(self.databases) * size_of::<Db>())
    }

    /// How much of [`Keyspace::memory_bytes`] a branch takes for what it has
    /// changed itself; 0 where [that is not counted](Keyspace::count_own).
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.gauges.read().own_bytes).sum()
    }

    /// Counts of every database that has keys. Locks one shard at a time.
    #[must_use]
    pub fn statistics(&self) -> Vec<(DbIndex, DbStatistics)> {
        let mut sum = StatisticsSum::new(self.databases);
        (0..SHARDS).for_each(|index| sum.add(&self.lock(index)));
        sum.finish()
    }

    /// Waits until the transaction that holds a shard now, if one does, has let
    /// it go.
    pub fn wait_for_lock(&self, shard: usize) {
        drop(self.lock(shard));
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn backing(&self) -> &Mutex<Option<Arc<dyn Backing>>> {
        &self.backing
    }

    pub(crate) fn backed_count(&self) -> &Arc<Count> {
        &self.backed_count
    }

    pub(crate) fn past_rules_cell(&self) -> &RwLock<Arc<PastRules>> {
        &self.past_rules
    }

    pub(crate) fn access_clock_cell(&self) -> &AtomicU32 {
        &self.access_clock
    }

    /// Keys that were looked at for eviction.
    pub(crate) fn pool(&self) -> &Mutex<Pool> {
        &self.pool
    }

    pub(crate) fn access_mode(&self) -> &AccessMode {
        &self.access_mode
    }

    /// The hash of a key here.
    #[must_use]
    pub fn hash_of(&self, key: &[u8]) -> u64 {
        self.locate(key).1
    }

    /// The hash that finds `key`, and its shard.
    pub(crate) fn locate(&self, key: &[u8]) -> (usize, u64) {
        let hash = Table::<Entry<Value>>::hash(self.seed, key);
        (Keyspace::shard_of_hash(hash), hash)
    }

    /// The shard of a key with this [hash](Keyspace::hash_of), `0..SHARDS`.
    #[must_use]
    pub fn shard_of_hash(hash: u64) -> usize {
        (hash >> (64 - SHARD_BITS)) as usize
    }

    /// The shard a key lives in, `0..SHARDS`.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> usize {
        self.locate(key).0
    }

    /// Locks a shard. What is to go from it goes first.
    pub(crate) fn lock(&self, index: usize) -> MutexGuard<'_, Shard> {
        let mut shard = self.lock_as_is(index);
        if shard.going.is_some() {
            self.take_out(index, &mut shard);
        }
        shard
    }

    /// Locks a key's shard for who looks at no other key of it: that key goes
    /// first if it is to go.
    pub(crate) fn lock_for(&self, key: &[u8]) -> (usize, MutexGuard<'_, Shard>) {
        let (index, hash) = self.locate(key);
        let mut shard = self.lock_as_is(index);
        if shard.going.is_some() {
            self.take_out_key(index, &mut shard, hash, key);
        }
        (index, shard)
    }

    /// Locks a shard with what is to go from it.
    pub(crate) fn lock_as_is(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.slots[index].lock.lock()
    }

    /// What is noted of deadlines.
    pub(crate) fn noted(&self) -> &NotedDeadlines {
        &self.noted
    }

    pub(crate) fn sweeping(&self) -> &Mutex<()> {
        &self.sweeping
    }

    /// What the gauges of one shard say.
    pub(crate) fn slot_counts(&self, shard: usize) -> Counted {
        self.slots[shard].gauges.read()
    }

    /// Locks a shard if nobody has, and nothing is to go from it.
    pub(crate) fn try_lock(&self, index: usize) -> Option<MutexGuard<'_, Shard>> {
        self.slots[index].lock.try_lock().filter(|shard| shard.going.is_none())
    }

    /// Brings what is read of a shard without its lock up to date after a change of
    /// one database, under that lock: the sums of [`Keyspace::memory_bytes`] and
    /// [`Keyspace::own_bytes`], and whether there are deadlines.
    pub(crate) fn recount(&self, index: usize, db: &mut Db) {
        let (now, before) = (db.count(), db.counted);
        self.slots[index].gauges.move_by(before, now);
        db.counted = now;
        self.note_deadlines(index, db);
        if now.bytes > 0 && self.used.load(Ordering::Relaxed) & db.bit == 0 {
            self.used.fetch_or(db.bit, Ordering::Relaxed);
        }
    }

    /// Takes a part that goes out of the sum.
    pub(crate) fn uncount(&self, index: usize, db: &Db) {
        self.slots[index].gauges.move_by(db.counted, Counted::default());
    }

    /// Whether a database may have had a key since it was made. To be asked with
    /// every shard locked.
    pub(crate) fn is_used(&self, db: DbIndex) -> bool {
        self.used.load(Ordering::Relaxed) & bit_of(db) != 0
    }

    /// Takes every database for one that has had keys.
    pub fn assume_used(&self) {
        self.used.store(u64::MAX, Ordering::Relaxed);
    }
}

/// A database's bit among those that are used.
fn bit_of(db: DbIndex) -> u64 {
    1 << db.min(63)
}

/// Counts of all databases, shard by shard.
pub(crate) struct StatisticsSum {
    databases: Vec<DbStatistics>,
    deadline_sums_ms: Vec<u128>,
}

impl StatisticsSum {
    pub(crate) fn new(databases: DbIndex) -> StatisticsSum {
        let count = usize::from(databases);
        StatisticsSum {
            databases: vec![DbStatistics::default(); count],
            deadline_sums_ms: vec![0; count],
        }
    }

    pub(crate) fn add(&mut self, shard: &Shard) {
        for ((db, statistics), sum) in
            shard.dbs.iter().zip(&mut self.databases).zip(&mut self.deadline_sums_ms)
        {
            statistics.keys += db.len();
            statistics.deadlines += db.deadlines.len();
            // A sample is enough for a mean that is shown to people.
            let sample = db.deadlines.iter().take(16);
            let total: u128 = sample.clone().map(|&(at, _)| u128::from(at)).sum();
            let mean = total.checked_div(sample.count() as u128).unwrap_or(0);
            *sum += mean * db.deadlines.len() as u128;
        }
    }

    /// The counts of every database that has keys.
    pub(crate) fn finish(mut self) -> Vec<(DbIndex, DbStatistics)> {
        for (statistics, sum) in self.databases.iter_mut().zip(self.deadline_sums_ms) {
            if statistics.deadlines > 0 {
                statistics.deadline_ms_mean =
                    u64::try_from(sum / statistics.deadlines as u128).unwrap_or(u64::MAX);
            }
        }
        (0..).zip(self.databases).filter(|(_, statistics)| statistics.keys > 0).collect()
    }
}

/// Counts of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbStatistics {
    /// Keys, those not in memory and those past their deadline but not yet
    /// removed included.
    pub keys: usize,
    /// Keys with a deadline, as far as deadlines are known: of keys that stand in a
    /// backing since the start, only once they were indexed.
    pub deadlines: usize,
    /// Their mean deadline in milliseconds since 1970.
    pub deadline_ms_mean: u64,
}
