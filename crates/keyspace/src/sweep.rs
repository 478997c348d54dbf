//! Keys removed by what they are called, many at one go, by one transaction that
//! holds its locks for as short as can be.
//!
//! The names are looked at a few at a time under their shard's lock. Who makes or
//! removes a wanted key from then on notes it in the shard ([`Touched`]); what was
//! noted is looked at again, until little is left. The record is put together with
//! no lock held. Then all locks are taken, what was noted last is put right in the
//! record, and each shard is told what is to go ([`Going`]). With that the locks
//! open, and the keys are taken out, a few at a time. Nobody sees them any more:
//! who locks a shard before takes the rest of its keys out himself, and who wants
//! one key of it only that one.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use base::{DbIndex, Revision};
use entry::Entry;
use parking_lot::{Mutex, MutexGuard};

use crate::backing::{BackingError, Loaded, Met};
use crate::effect::{Cause, Effect};
use crate::garbage::Garbage;
use crate::shard::{Db, Keyspace, SHARDS, Shard};
use crate::table::POSITION_END;
use crate::txn::{MARK_BYTES, info_bytes};
use crate::value::Value;

/// Keys that are looked at before their shard's lock opens for others.
const KEYS_AT_ONCE: usize = 512;

/// Keys that are taken out before it opens: each takes longer.
const OUT_AT_ONCE: usize = 64;

/// Which names are wanted.
pub type IsWanted = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Of a database's part of a shard whose names were looked at: wanted keys that
/// have come or gone since.
pub(crate) struct Touched {
    /// Whose, too.
    is_wanted: Arc<IsWanted>,
    names: BTreeSet<Box<[u8]>>,
}

impl std::fmt::Debug for Touched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Touched").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

impl Touched {
    #[cold]
    pub(crate) fn note(&mut self, key: &[u8]) {
        if (self.is_wanted)(key) && !self.names.contains(key) {
            self.names.insert(key.into());
        }
    }
}

/// Keys to be removed. See the module's documentation.
pub struct Sweep<'k> {
    live: &'k Keyspace,
    db: DbIndex,
    is_wanted: Arc<IsWanted>,
    record_bytes_max: usize,
    /// By shard.
    parts: Vec<Part>,
    /// What was different once all locks were held, by shard.
    amends: Vec<Amend>,
    /// What the record says, with its head in front.
    record: Vec<u8>,
    head_bytes: usize,
    is_begun: bool,
    /// Whether shards note what is touched.
    is_noted: bool,
    gone: Arc<Mutex<Gone>>,
    /// One at a time.
    _turn: MutexGuard<'k, ()>,
}

/// The keys of one shard, in the order of their hashes.
#[derive(Debug)]
struct Part {
    keys: Vec<Key>,
    names: Vec<u8>,
    /// What they take in memory.
    bytes: u64,
    /// The deadline that comes first; `u64::MAX` when there is none.
    first_deadline: u64,
}

impl Default for Part {
    fn default() -> Part {
        Part { keys: Vec::new(), names: Vec::new(), bytes: 0, first_deadline: u64::MAX }
    }
}

#[derive(Clone, Copy, Debug)]
struct Key {
    hash: u64,
    /// `u64::MAX` when there is none.
    deadline: u64,
    /// What it takes in memory; 0 if it was not there.
    bytes: usize,
    /// Where its name stands, and how long it is.
    at: usize,
    len: usize,
    /// Where what the record says of it ends.
    end: usize,
}

/// What is to be different from a [`Part`].
#[derive(Debug, Default)]
struct Amend {
    /// Places of keys that stay, or are no more.
    cut: BTreeSet<usize>,
    /// Keys besides.
    added: Part,
}

/// What is to go from one shard before anybody sees it.
#[derive(Debug)]
pub(crate) struct Going {
    db: DbIndex,
    revision: Revision,
    /// Those that were found with no lock held, and those besides.
    piles: [Pile; 2],
    gone: Arc<Mutex<Gone>>,
}

#[derive(Debug)]
struct Pile {
    part: Part,
    /// Places of keys that stay, or have gone out of turn.
    cut: BTreeSet<usize>,
    /// Those before have gone.
    next: usize,
}

/// What went, for the sweep to have it dropped.
#[derive(Debug, Default)]
struct Gone {
    entries: Vec<Vec<Entry<Value>>>,
    /// What was wrong with the backing.
    error: Option<BackingError>,
}

/// Does something with a shard that is locked.
type OnShard<'s> = dyn FnMut(usize, &mut dyn FnMut(&mut Shard)) + 's;

impl std::fmt::Debug for Sweep<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep").field("db", &self.db).finish_non_exhaustive()
    }
}

impl<'k> Sweep<'k> {
    /// Of the keys of a database whose names are wanted, as many as a record of so
    /// many bytes takes. Waits while there is another one of the keyspace.
    ///
    /// # Panics
    /// When there is no such database.
    #[must_use]
    pub fn of(
        live: &'k Keyspace,
        db: DbIndex,
        is_wanted: IsWanted,
        record_bytes_max: usize,
    ) -> Sweep<'k> {
        assert!(db < live.databases(), "database {db} does not exist");
        Sweep {
            live,
            db,
            is_wanted: Arc::new(is_wanted),
            record_bytes_max,
            parts: (0..SHARDS).map(|_| Part::default()).collect(),
            amends: (0..SHARDS).map(|_| Amend::default()).collect(),
            record: Vec::new(),
            head_bytes: 0,
            is_begun: false,
            is_noted: false,
            gone: Arc::default(),
            _turn: live.sweeping().lock(),
        }
    }

    /// Looks at the names; from the second time on only at those that were touched
    /// since. Answers at how many, `None` when the record would be too long. To be
    /// called with no lock held.
    ///
    /// # Errors
    /// When the backing cannot be read.
    pub fn look(&mut self, now_ms: u64) -> Result<Option<usize>, BackingError> {
        self.record = Vec::new();
        let mut looked = 0;
        self.is_noted = true;
        if !self.is_begun {
            self.amends.iter_mut().for_each(|amend| *amend = Amend::default());
        }
        for index in 0..SHARDS {
            looked += match self.is_begun {
                true => self.look_again(index, now_ms)?,
                false => self.look_at(index, now_ms)?,
            };
            if !self.fits() {
                return Ok(None);
            }
        }
        self.is_begun = true;
        Ok(Some(looked))
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let of_parts: usize = self.parts.iter().map(|part| part.keys.len()).sum();
        let amended =
            |(cut, added), amend: &Amend| (cut + amend.cut.len(), added + amend.added.keys.len());
        let (cut, added) = self.amends.iter().fold((0, 0), amended);
        of_parts - cut + added
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that they take in memory, as of when they were looked at: those that
    /// are not there take none.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let of = |(part, amend): (&Part, &Amend)| {
            let cut: u64 = amend.cut.iter().map(|&at| part.keys[at].bytes as u64).sum();
            part.bytes - cut + amend.added.bytes
        };
        self.parts.iter().zip(&self.amends).map(of).sum()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.parts.iter().zip(&self.amends);
        parts.flat_map(|(part, amend)| amend.each(part)).map(|(part, key)| part.name(key))
    }

    /// Whether a record takes them.
    fn fits(&self) -> bool {
        let of = |(part, amend): (&Part, &Amend)| {
            let bytes = |at: &usize| part.keys[*at].len + MARK_BYTES;
            let cut: usize = amend.cut.iter().map(bytes).sum();
            part.record_bytes() - cut + amend.added.record_bytes()
        };
        self.parts.iter().zip(&self.amends).map(of).sum::<usize>() <= self.record_bytes_max
    }

    /// Looks at all names of a shard.
    fn look_at(&mut self, index: usize, now_ms: u64) -> Result<usize, BackingError> {
        let (access, mut position, mut looked) = (self.live.fresh_access(now_ms), 0, 0);
        let mut part = Part::default();
        while position < POSITION_END {
            let mut shard = self.live.lock(index);
            let db = &mut shard.dbs[usize::from(self.db)];
            if position == 0 {
                let (is_wanted, names) = (self.is_wanted.clone(), BTreeSet::new());
                db.touched = Some(Box::new(Touched { is_wanted, names }));
            }
            position = db.meet(index, position, (KEYS_AT_ONCE, access), false, &mut |met| {
                looked += 1;
                if (self.is_wanted)(met.key()) && !met.is_due(now_ms) {
                    part.add(self.live.locate(met.key()).1, &met);
                }
            })?;
            self.live.recount(index, db);
            // Else it would be taken again before anybody has woken up.
            MutexGuard::unlock_fair(shard);
        }
        part.keys.sort_by_key(|key| key.hash);
        self.parts[index] = part;
        Ok(looked)
    }

    /// Looks again at the names of a shard that were touched since.
    fn look_again(&mut self, index: usize, now_ms: u64) -> Result<usize, BackingError> {
        let mut shard = self.live.lock(index);
        let db = &mut shard.dbs[usize::from(self.db)];
        let Some(touched) = db.touched.as_mut().filter(|it| it.is_of(&self.is_wanted)) else {
            return Ok(0);
        };
        let names = std::mem::take(&mut touched.names);
        let part = &self.parts[index];
        let amend = part.amend(self.live, db, &names, now_ms)?;
        self.live.recount(index, db);
        drop(shard);
        if !amend.is_empty() {
            self.parts[index] = amend.applied_to(part);
        }
        Ok(names.len())
    }

    /// Puts the record together. What is in front of the removals may be another
    /// in the end: this is how long it probably is.
    pub fn encode(&mut self, head: &[Effect<'_>]) {
        let names: usize = self.parts.iter().map(|part| part.names.len()).sum();
        let keys: usize = self.parts.iter().map(|part| part.keys.len()).sum();
        // With some room for what comes in the end.
        let mut record = Vec::with_capacity(names + keys * 6 + (64 << 10));
        head.iter().for_each(|effect| effect.encode(&mut record));
        self.head_bytes = record.len();
        for part in &mut self.parts {
            part.encode(&mut record);
        }
        self.record = record;
    }

    /// Brings what was found up to the moment, with all locks held: false if the
    /// database is another one now, and all has to begin anew. `None` when the
    /// record would be too long.
    pub(crate) fn settle(
        &mut self,
        now_ms: u64,
        on_shard: &mut OnShard<'_>,
    ) -> Result<Option<bool>, BackingError> {
        let (mut is_same, mut result) = (self.is_begun, Ok(()));
        for (index, part) in self.parts.iter().enumerate() {
            on_shard(index, &mut |shard| {
                let touched = take_touched(shard, self.db, &self.is_wanted);
                is_same &= touched.is_some();
                let Some(mut names) = touched.filter(|_| is_same && result.is_ok()) else { return };
                let db = &mut shard.dbs[usize::from(self.db)];
                part.add_due(db, now_ms, &mut names);
                match part.amend(self.live, db, &names, now_ms) {
                    Ok(amend) => self.amends[index] = amend,
                    Err(error) => result = Err(error),
                }
            });
        }
        self.is_noted = false;
        self.is_begun &= is_same;
        result.map(|()| self.fits().then_some(is_same))
    }

    /// Takes the record, put right, with this head.
    pub(crate) fn take_record(&mut self, head: Vec<u8>) -> Vec<u8> {
        let mut record = std::mem::take(&mut self.record);
        let cut: Vec<Range<usize>> = self.cut_ranges();
        cut_out(&mut record, &cut);
        for amend in &mut self.amends {
            amend.added.encode(&mut record);
        }
        record.splice(..self.head_bytes, head);
        record
    }

    /// Where the record tells of keys that are not to go.
    fn cut_ranges(&self) -> Vec<Range<usize>> {
        let (mut ranges, mut begin) = (Vec::new(), self.head_bytes);
        for (part, amend) in self.parts.iter().zip(&self.amends) {
            ranges.extend(amend.cut.iter().map(|&at| {
                let begin = at.checked_sub(1).map_or(begin, |before| part.keys[before].end);
                begin..part.keys[at].end
            }));
            begin = part.keys.last().map_or(begin, |last| last.end);
        }
        ranges
    }

    /// What is to go from a shard, if anything.
    pub(crate) fn take_going(&mut self, index: usize, revision: Revision) -> Option<Box<Going>> {
        let part = std::mem::take(&mut self.parts[index]);
        let Amend { cut, added } = std::mem::take(&mut self.amends[index]);
        let is_any = part.keys.len() > cut.len() || !added.keys.is_empty();
        let (db, gone) = (self.db, self.gone.clone());
        let piles =
            [(part, cut), (added, BTreeSet::new())].map(|(part, cut)| Pile { part, cut, next: 0 });
        is_any.then(|| Box::new(Going { db, revision, piles, gone }))
    }

    /// Takes out what nobody has taken out yet, a few keys at a time with a pause
    /// after each, and answers all that went. To be called when the locks are open.
    ///
    /// # Errors
    /// When the backing has other keys than it counts. All are removed all the
    /// same.
    pub fn finish(self, pause: impl Fn()) -> Result<Garbage, BackingError> {
        for index in 0..SHARDS {
            let mut is_more = true;
            while is_more {
                let mut shard = self.live.lock_as_is(index);
                is_more = self.live.take_out_some(index, &mut shard, OUT_AT_ONCE);
                MutexGuard::unlock_fair(shard);
                pause();
            }
        }
        let Gone { entries, error } = std::mem::take(&mut *self.gone.lock());
        error.map_or(Ok(Garbage::Entries(entries)), Err)
    }

    pub(crate) fn db(&self) -> DbIndex {
        self.db
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        if self.is_noted {
            for index in 0..SHARDS {
                take_touched(&mut self.live.lock(index), self.db, &self.is_wanted);
            }
        }
    }
}

/// Ends the notes for a sweep. Answers them if they are still those of its
/// database.
fn take_touched(
    shard: &mut Shard,
    db: DbIndex,
    is_wanted: &Arc<IsWanted>,
) -> Option<BTreeSet<Box<[u8]>>> {
    let mut names = None;
    for (at, part) in (0..).zip(&mut shard.dbs) {
        let own = part.touched.take_if(|touched| touched.is_of(is_wanted));
        if at == db {
            names = own.map(|touched| touched.names);
        }
    }
    names
}

/// Takes ranges, which are in order, out of a vector.
fn cut_out(bytes: &mut Vec<u8>, ranges: &[Range<usize>]) {
    let Some(first) = ranges.first() else { return };
    let mut to = first.start;
    for (at, range) in ranges.iter().enumerate() {
        let end = ranges.get(at + 1).map_or(bytes.len(), |next| next.start);
        bytes.copy_within(range.end..end, to);
        to += end - range.end;
    }
    bytes.truncate(to);
}

impl Touched {
    fn is_of(&self, is_wanted: &Arc<IsWanted>) -> bool {
        Arc::ptr_eq(&self.is_wanted, is_wanted)
    }
}

impl Part {
    fn name(&self, key: &Key) -> &[u8] {
        &self.names[key.at..key.at + key.len]
    }

    fn add(&mut self, hash: u64, met: &Met<'_>) {
        let (bytes, deadline) = match met {
            Met::Entry(entry) => (info_bytes(entry), entry.deadline()),
            Met::Stored(..) | Met::Unread(..) => (0, met.deadline()),
        };
        let deadline = deadline.unwrap_or(u64::MAX);
        self.push(Key { hash, deadline, bytes, at: 0, len: 0, end: 0 }, met.key());
    }

    /// About what a record takes for them, and no less.
    fn record_bytes(&self) -> usize {
        self.names.len() + self.keys.len() * MARK_BYTES
    }

    fn push(&mut self, key: Key, name: &[u8]) {
        self.bytes += key.bytes as u64;
        self.first_deadline = self.first_deadline.min(key.deadline);
        self.keys.push(Key { at: self.names.len(), len: name.len(), ..key });
        self.names.extend_from_slice(name);
    }

    /// Where a key stands.
    fn position(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let first = self.keys.partition_point(|key| key.hash < hash);
        let alike = self.keys[first..].iter().take_while(|key| key.hash == hash);
        alike.into_iter().position(|key| self.name(key) == name).map(|at| first + at)
    }

    /// Adds those of its keys that may be due by now.
    fn add_due(&self, db: &Db, now_ms: u64, names: &mut BTreeSet<Box<[u8]>>) {
        if self.first_deadline <= now_ms {
            let due = self.keys.iter().filter(|key| key.deadline <= now_ms);
            names.extend(due.map(|key| self.name(key).into()));
        }
        // They may have got a deadline since.
        for &(_, hash) in db.deadlines.range(..=(now_ms, u64::MAX)) {
            let first = self.keys.partition_point(|key| key.hash < hash);
            let alike = self.keys[first..].iter().take_while(|key| key.hash == hash);
            names.extend(alike.map(|key| self.name(key).into()));
        }
    }

    /// Looks what has become of keys, with their shard locked.
    fn amend(
        &self,
        live: &Keyspace,
        db: &mut Db,
        names: &BTreeSet<Box<[u8]>>,
        now_ms: u64,
    ) -> Result<Amend, BackingError> {
        let (mut amend, access) = (Amend::default(), live.fresh_access(now_ms));
        for name in names {
            let hash = live.locate(name).1;
            let glanced = db.glance(hash, name, access, false)?;
            let met = match &glanced {
                Loaded::Part(stored, _) => Some(Met::Stored(name, stored)),
                _ => db.table.get(hash, name).map(Met::Entry),
            };
            match (self.position(hash, name), met.filter(|met| !met.is_due(now_ms))) {
                (Some(at), None) => _ = amend.cut.insert(at),
                (None, Some(met)) => amend.added.add(hash, &met),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        amend.added.keys.sort_by_key(|key| key.hash);
        Ok(amend)
    }

    /// Says in the record that they go.
    fn encode(&mut self, record: &mut Vec<u8>) {
        for key in &mut self.keys {
            let name = &self.names[key.at..key.at + key.len];
            Effect::Key { key: name, existed: Some(true) }.encode(record);
            Effect::Delete(Cause::Client).encode(record);
            key.end = record.len();
        }
    }
}

impl Amend {
    fn is_empty(&self) -> bool {
        self.cut.is_empty() && self.added.keys.is_empty()
    }

    /// The keys of a part with this.
    fn each<'a>(&'a self, part: &'a Part) -> impl Iterator<Item = (&'a Part, &'a Key)> {
        let mut cut = self.cut.iter().copied().peekable();
        let kept = part.keys.iter().enumerate();
        let kept = kept.filter(move |(at, _)| cut.next_if_eq(at).is_none());
        kept.map(move |(_, key)| (part, key))
            .chain(self.added.keys.iter().map(|key| (&self.added, key)))
    }

    fn applied_to(&self, part: &Part) -> Part {
        let mut whole = Part::default();
        whole.keys.reserve(part.keys.len() + self.added.keys.len());
        self.each(part).for_each(|(of, key)| whole.push(*key, of.name(key)));
        whole.keys.sort_by_key(|key| key.hash);
        whole
    }
}

impl Pile {
    /// The place of a key that still stands there.
    fn place(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let at = self.part.position(hash, name)?;
        (at >= self.next && !self.cut.contains(&at)).then_some(at)
    }

    /// The next place of a key that still stands there.
    fn next(&mut self) -> Option<usize> {
        while self.next < self.part.keys.len() {
            self.next += 1;
            if !self.cut.contains(&(self.next - 1)) {
                return Some(self.next - 1);
            }
        }
        None
    }
}

impl Going {
    /// Takes up to so many keys out of their database; answers whether there may
    /// be more.
    fn take_some(&mut self, db: &mut Db, count: usize) -> bool {
        let mut out = Out::default();
        for pile in &mut self.piles {
            while out.looked < count {
                let Some(at) = pile.next() else { break };
                out.take(db, (&pile.part, at), self.revision);
            }
        }
        let is_more = out.looked == count;
        out.finish(db, &self.gone);
        is_more
    }

    /// Takes out one key if it is to go.
    fn take_one(&mut self, db: &mut Db, hash: u64, name: &[u8]) {
        for pile in &mut self.piles {
            if let Some(at) = pile.place(hash, name) {
                pile.cut.insert(at);
                let mut out = Out::default();
                out.take(db, (&pile.part, at), self.revision);
                out.finish(db, &self.gone);
            }
        }
    }
}

/// Keys that are taken out at one go.
#[derive(Default)]
struct Out {
    looked: usize,
    entries: Vec<Entry<Value>>,
    error: Option<BackingError>,
    /// Hashes of those that may be due at a time which is not known here.
    strays: BTreeSet<u64>,
}

impl Out {
    fn take(&mut self, db: &mut Db, (part, at): (&Part, usize), revision: Revision) {
        self.looked += 1;
        let key = &part.keys[at];
        if let Some(entry) = db.remove(key.hash, part.name(key), revision) {
            self.entries.push(entry);
            return;
        }
        self.error = db.supersede().err().or(self.error.take());
        db.note_removed(key.hash, part.name(key), revision);
        // The index may know when it would have been due. If it has been evicted
        // since it was looked at, that may be another time now.
        if !db.deadlines.remove(&(key.deadline, key.hash)) && key.bytes > 0 {
            self.strays.insert(key.hash);
        }
    }

    fn finish(self, db: &mut Db, gone: &Mutex<Gone>) {
        if !self.strays.is_empty() {
            db.deadlines.retain(|(_, hash)| !self.strays.contains(hash));
        }
        let mut gone = gone.lock();
        gone.entries.push(self.entries);
        gone.error = gone.error.take().or(self.error);
    }
}

impl Keyspace {
    /// Takes out all that is to go from a shard that was just locked.
    #[cold]
    pub(crate) fn take_out(&self, index: usize, shard: &mut Shard) {
        self.take_out_some(index, shard, usize::MAX);
    }

    /// The same of up to so many keys; answers whether there may be more.
    fn take_out_some(&self, index: usize, shard: &mut Shard, count: usize) -> bool {
        let Some(mut going) = shard.going.take() else { return false };
        let db = &mut shard.dbs[usize::from(going.db)];
        let is_more = going.take_some(db, count);
        self.recount(index, db);
        shard.going = is_more.then_some(going);
        is_more
    }

    /// The same of one key of any database, if it is one of those.
    #[cold]
    pub(crate) fn take_out_key(&self, index: usize, shard: &mut Shard, hash: u64, name: &[u8]) {
        let Shard { going: Some(going), dbs, .. } = shard else { return };
        let db = &mut dbs[usize::from(going.db)];
        going.take_one(db, hash, name);
        self.recount(index, db);
    }
}
