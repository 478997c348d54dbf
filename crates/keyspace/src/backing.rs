//! Keyspaces of which a part stands elsewhere: what is missed in memory is
//! filled from a [`Backing`].
//!
//! A key that the table holds is as the table says. Of one that it does not
//! hold, the database's [`Backed`] says whether it is known not to exist; else
//! the backing's answer is the truth. A backing lags behind: keys that were
//! removed since are remembered until it has caught up.

mod asking;
mod deadlines;
mod part;
mod whole;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{Revision, SpaceId};
use entry::Entry;

use crate::shard::{Db, SHARD_BITS, value_of};
use crate::table::{Keyed, POSITION_BITS, POSITION_END, Table};
use crate::value::{Value, ValueRef};
use crate::warm::Foreseen;

pub use asking::{Backing, BackingError, Found, Knowing, Listed, Stored, Unread, Wanted};
pub(crate) use deadlines::Due;
pub(crate) use part::{Asked, Loaded};

/// Bits of a key's hash that choose its bucket, the shard's included.
const BUCKET_BITS: u32 = 16;

/// Buckets of one shard.
const BUCKETS: usize = 1 << (BUCKET_BITS - SHARD_BITS);

/// Log2 of the scan positions in a bucket.
const BUCKET_POSITION_BITS: u32 = POSITION_BITS - (BUCKET_BITS - SHARD_BITS);

/// Keys asked of a backing at once, about: of a sparse database that is many
/// buckets.
const RUN_KEYS: u64 = 64;

/// A key that nobody named.
pub(crate) enum Met<'a> {
    /// It is in memory.
    Entry(&'a Entry<Value>),
    /// It stays in the backing.
    Stored(&'a [u8], &'a Stored),
    /// As well, and has not been read.
    Unread(&'a [u8], Unread),
}

/// What is seen of a key that nobody named.
#[derive(Clone, Copy)]
pub enum Seen<'v> {
    /// What it holds.
    Value(ValueRef<'v>),
    /// It stays in the backing, and takes long to read.
    Unread(Unread),
}

impl Seen<'_> {
    /// As [`ValueRef::type_name`].
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Seen::Value(value) => value.type_name(),
            Seen::Unread(unread) => unread.type_name,
        }
    }

    /// As [`ValueRef::memory_bytes`]; no more than what it takes at least where it
    /// has not been read.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Seen::Value(value) => value.memory_bytes(),
            Seen::Unread(unread) => usize::try_from(unread.elements).unwrap_or(usize::MAX),
        }
    }
}

impl Met<'_> {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Met::Entry(entry) => entry.key(),
            Met::Stored(key, _) | Met::Unread(key, _) => key,
        }
    }

    pub(crate) fn seen(&self) -> Seen<'_> {
        match self {
            Met::Entry(entry) => Seen::Value(value_of(entry)),
            Met::Stored(_, stored) => Seen::Value(stored.value.as_ref()),
            Met::Unread(_, unread) => Seen::Unread(*unread),
        }
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        match self {
            Met::Entry(entry) => entry.deadline(),
            Met::Stored(_, stored) => stored.deadline,
            Met::Unread(_, unread) => unread.deadline,
        }
    }

    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.deadline().is_some_and(|at| at <= now_ms)
    }
}

/// Names of keys that are left in the backing because they take long to read.
pub(crate) type Left = Vec<Box<[u8]>>;

/// A key that was removed since the backing last knew of it.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) key: Box<[u8]>,
    pub(crate) revision: Revision,
}

impl Keyed for Removed {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// How many parts of databases are backed, so that none costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicUsize);

/// A part that is counted while this stands.
#[derive(Debug)]
struct Counted(Arc<Count>);

impl Counted {
    fn new(count: &Arc<Count>) -> Counted {
        count.0.fetch_add(1, Ordering::Relaxed);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Count {
    pub(crate) fn get(&self) -> usize {
        // Who looks holds the lock under which the part came to be backed, or
        // will look again under it.
        self.0.load(Ordering::Relaxed)
    }
}

/// What is known of the keys of one database's part of a shard that are not in
/// its table.
#[derive(Debug)]
pub(crate) struct Backed {
    backing: Arc<dyn Backing>,
    /// A bit per bucket: the table holds all its keys.
    loaded: [u64; BUCKETS / 64],
    /// Keys that stand in the backing only.
    unloaded_keys: u64,
    /// Keys that the backing may have and that do not exist.
    removed: Table<Removed>,
    /// Heap bytes of their names.
    removed_bytes: usize,
    /// The newest of them, those already forgotten included.
    newest_removal: Revision,
    /// Whether removals are remembered even while everything is loaded, since
    /// keys are evicted now and then.
    evicts: bool,
    /// So many buckets, from the first on, have all their deadlines in the index.
    indexed: usize,
    /// No key of the others is due before; 0 where nothing is known.
    due_from: u64,
    /// The scan position from which on to look for what to evict.
    pub(crate) hand: u64,
    /// Entries looked at since one was found to evict, and up to which revision
    /// they could go.
    pub(crate) looked_in_vain: (Revision, usize),
    counted: Counted,
}

impl Backed {
    pub(crate) fn new(
        backing: Arc<dyn Backing>,
        unloaded_keys: u64,
        seed: u64,
        count: &Arc<Count>,
    ) -> Backed {
        Backed {
            backing,
            loaded: [0; BUCKETS / 64],
            unloaded_keys,
            removed: Table::in_shard(seed, SHARD_BITS),
            removed_bytes: 0,
            newest_removal: Revision::ZERO,
            evicts: false,
            indexed: 0,
            due_from: 0,
            hand: 0,
            looked_in_vain: (Revision::ZERO, 0),
            counted: Counted::new(count),
        }
    }

    /// For a part that has all its keys and is to evict some.
    pub(crate) fn everything_loaded(
        backing: Arc<dyn Backing>,
        seed: u64,
        count: &Arc<Count>,
    ) -> Backed {
        let loaded = [u64::MAX; BUCKETS / 64];
        Backed { loaded, indexed: BUCKETS, ..Backed::new(backing, 0, seed, count) }
    }

    /// From here on removals are remembered, whatever is loaded.
    pub(crate) fn remember_removals(&mut self) {
        self.evicts = true;
    }

    /// A key stands in the backing only from here on.
    pub(crate) fn note_evicted(&mut self, hash: u64) {
        let bucket = bucket_of(hash);
        self.loaded[bucket / 64] &= !(1 << (bucket % 64));
        self.unloaded_keys += 1;
    }

    /// The deadlines of a run of buckets are in the index, as are those of keys in
    /// memory.
    fn note_indexed(&mut self, run: &RangeInclusive<u16>) {
        let [first, last] = [run.start(), run.end()].map(|bucket| usize::from(*bucket) % BUCKETS);
        while self.indexed < BUCKETS
            && ((first..=last).contains(&self.indexed) || self.is_loaded(self.indexed))
        {
            self.indexed += 1;
        }
    }

    fn is_loaded(&self, bucket: usize) -> bool {
        self.unloaded_keys == 0 || self.loaded[bucket / 64] >> (bucket % 64) & 1 == 1
    }

    fn is_loaded_at(&self, hash: u64) -> bool {
        self.is_loaded(bucket_of(hash))
    }

    /// A key of the space stands no longer in the backing only.
    fn count_down(&mut self, space: SpaceId) -> Result<(), BackingError> {
        self.unloaded_keys = self.unloaded_keys.checked_sub(1).ok_or_else(|| {
            BackingError::new(format!("space {space} holds more keys than it counts"))
        })?;
        Ok(())
    }

    /// Whether the removal of a key is remembered.
    fn knows_removed(&self, hash: u64, key: &[u8]) -> bool {
        self.removed.get(hash, key).is_some()
    }

    fn note_removal(&mut self, hash: u64, key: &[u8], revision: Revision) {
        self.newest_removal = self.newest_removal.max(revision);
        let old = self.removed.insert(hash, Removed { key: key.into(), revision });
        self.removed_bytes += if old.is_none() { key.len() } else { 0 };
    }

    fn forget_removal(&mut self, hash: u64, key: &[u8]) {
        // Mostly it is empty, and a lookup would go through the motions.
        if !self.removed.is_empty() && self.removed.remove(hash, key).is_some() {
            self.removed_bytes -= key.len();
        }
    }

    fn forget_removals(&mut self, upto: Revision) {
        let known: Vec<(u64, Box<[u8]>)> = self
            .removed
            .iter()
            .filter(|removed| removed.revision <= upto)
            .map(|removed| (self.removed.hash_of(&removed.key), removed.key.clone()))
            .collect();
        known.iter().for_each(|(hash, key)| self.forget_removal(*hash, key));
    }

    /// Counts for another keyspace from here on.
    pub(crate) fn move_to(&mut self, count: &Arc<Count>) {
        self.counted = Counted::new(count);
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Backed>() + self.removed.memory_bytes() + self.removed_bytes
    }
}

/// The bucket of a hash, counted from the beginning of its shard.
fn bucket_of(hash: u64) -> usize {
    (hash >> (64 - BUCKET_BITS)) as usize % BUCKETS
}

impl Db {
    /// Heap bytes of what it takes to be backed.
    pub(crate) fn backed_bytes(&self) -> usize {
        self.backed.as_ref().map_or(0, |backed| backed.memory_bytes())
    }

    /// Whether a key that the table does not hold may stand in the backing.
    pub(crate) fn is_backed(&self) -> bool {
        self.backed.is_some()
    }

    /// Keys that stand in the backing only.
    pub(crate) fn unloaded_keys(&self) -> u64 {
        self.backed.as_ref().map_or(0, |backed| backed.unloaded_keys)
    }

    /// Whether a key that the table does not hold does not exist.
    pub(crate) fn knows_missing(&self, hash: u64, key: &[u8]) -> bool {
        self.backed.as_ref().is_none_or(|backed| {
            backed.is_loaded_at(hash) || backed.removed.get(hash, key).is_some()
        })
    }

    /// What the table gets to know of a key that comes into it.
    pub(crate) fn note_inserted(&mut self, hash: u64, key: &[u8]) {
        if let Some(backed) = &mut self.backed {
            backed.forget_removal(hash, key);
        }
        if let Some(removals) = &mut self.removals {
            removals.remove(hash, key);
        }
        if let Some(touched) = &mut self.touched {
            touched.note(key);
        }
    }

    /// What is to be remembered of a key that goes.
    pub(crate) fn note_removed(&mut self, hash: u64, key: &[u8], revision: Revision) {
        self.own.note_away(hash, revision.0);
        match &mut self.backed {
            Some(backed) => backed.note_removal(hash, key, revision),
            // Of many, some may be taken out after newer ones.
            None => self.forgotten_removal = self.forgotten_removal.max(revision),
        }
        if let Some(removals) = &mut self.removals {
            removals.insert(hash, Removed { key: key.into(), revision });
        }
        if let Some(touched) = &mut self.touched {
            touched.note(key);
        }
    }

    /// Makes a key resident if it may stand in the backing. Answers whether
    /// anything changed; `None` when the backing does not have it.
    pub(crate) fn load(
        &mut self,
        hash: u64,
        key: &[u8],
        access: u32,
    ) -> Result<Option<bool>, BackingError> {
        self.load_hastily(hash, key, access, false)
    }

    /// As [`Db::load`]; what takes long is an error if `is_hasty`.
    pub(crate) fn load_hastily(
        &mut self,
        hash: u64,
        key: &[u8],
        access: u32,
        is_hasty: bool,
    ) -> Result<Option<bool>, BackingError> {
        if self.table.get(hash, key).is_some() || self.knows_missing(hash, key) {
            return Ok(Some(false));
        }
        let backed = self.backed.as_ref().expect("else everything is known");
        let knowing = Knowing { is_inherited: self.own.lacks(hash), is_hasty };
        let stored = backed.backing.fetch_knowing(self.space, hash, key, knowing)?;
        let Some(stored) = stored else { return Ok(None) };
        self.admit(hash, key, stored, access)?;
        self.settle();
        Ok(Some(true))
    }

    /// Makes a whole bucket resident, and, where keys are sparse, those behind it.
    /// Answers the names of those that are left because they take long to read,
    /// which nobody leaves who is patient; `None` when it was resident.
    pub(crate) fn load_bucket(
        &mut self,
        bucket: u16,
        access: u32,
        is_patient: bool,
    ) -> Result<Option<Left>, BackingError> {
        let place = usize::from(bucket) % BUCKETS;
        let Some(backed) = self.backed.as_ref().filter(|backed| !backed.is_loaded(place)) else {
            return Ok(None);
        };
        self.load_run(run_of(bucket, backed.unloaded_keys), access, is_patient).map(Some)
    }

    /// Makes every key of a run of buckets resident; see [`Db::load_bucket`].
    fn load_run(
        &mut self,
        run: RangeInclusive<u16>,
        access: u32,
        is_patient: bool,
    ) -> Result<Left, BackingError> {
        let mut left = Left::new();
        let Some(backed) = &self.backed else { return Ok(left) };
        let backing = backed.backing.clone();
        let mut admitted = Ok(());
        list(&*backing, self.space, run.clone(), is_patient, &mut |key, listed| {
            if admitted.is_ok() {
                admitted = self.unknown_of(&run, key).and_then(|hash| match (hash, listed) {
                    (Some(hash), Listed::Whole(stored)) => self.admit(hash, key, stored, access),
                    (Some(_), Listed::Long(_)) => {
                        left.push(key.into());
                        Ok(())
                    }
                    (None, _) => Ok(()),
                });
            }
        })?;
        if let Err(error) = admitted {
            self.settle();
            return Err(error);
        }
        let lacking: BTreeSet<usize> =
            left.iter().map(|key| bucket_of(self.table.hash_of(key))).collect();
        let backed = self.backed.as_mut().expect("only settling ends it");
        let mut loaded = backed.loaded;
        if lacking.is_empty() {
            backed.note_indexed(&run);
        }
        for bucket in run {
            let place = usize::from(bucket) % BUCKETS;
            loaded[place / 64] |= u64::from(!lacking.contains(&place)) << (place % 64);
        }
        if backed.unloaded_keys > 0 && loaded.iter().all(|&word| word == u64::MAX) {
            return Err(BackingError::new(format!(
                "space {} lacks {} of the keys that it counts",
                self.space, backed.unloaded_keys
            )));
        }
        backed.loaded = loaded;
        self.settle();
        Ok(left)
    }

    /// The hash of a key that the backing answers for a run of buckets, unless
    /// it is known better here.
    fn unknown_of(
        &self,
        run: &RangeInclusive<u16>,
        key: &[u8],
    ) -> Result<Option<u64>, BackingError> {
        let hash = self.table.hash_of(key);
        if self.table.get(hash, key).is_some()
            || self.backed.as_ref().is_some_and(|backed| backed.knows_removed(hash, key))
        {
            return Ok(None);
        }
        if run.contains(&((hash >> (64 - BUCKET_BITS)) as u16)) {
            return Ok(Some(hash));
        }
        Err(BackingError::new(format!(
            "key \"{}\" of space {} stands among buckets {} to {}, where it does not belong",
            key.escape_ascii(),
            self.space,
            run.start(),
            run.end()
        )))
    }

    /// Whether what is only looked at is to stay where it is: memory is short, or
    /// the backing says so.
    fn passes_through(&self, position: u64) -> bool {
        self.backed.as_ref().is_some_and(|backed| {
            let stays = backed.evicts || backed.backing.is_passed_through();
            stays && !backed.is_loaded(place_of(position))
        })
    }

    /// Meets about so many keys from `position` on, of the shard `index`, and
    /// answers the position behind. What is not in memory is brought there first,
    /// a bucket at a time; where it is to [stay](Backing::is_passed_through), it only
    /// passes through, as it does for what takes long to read and is not told whole to
    /// who is not patient.
    pub(crate) fn meet(
        &mut self,
        index: usize,
        position: u64,
        (count, access): (usize, u32),
        is_patient: bool,
        meet: &mut dyn FnMut(Met<'_>),
    ) -> Result<u64, BackingError> {
        if !self.passes_through(position) {
            self.load_at(index, position, access, is_patient)?;
        }
        // The next bucket that is not loaded gets a lock of its own.
        let end = self.loaded_until(position);
        if end <= position {
            return self.pass_through(index, position, is_patient, meet);
        }
        Ok(self.table.scan_to(position, end, count, &mut |entry| meet(Met::Entry(entry))))
    }

    /// Meets every key from `position` up to the end of a run of buckets,
    /// those in memory and those in the backing only, which stay there. Answers
    /// the position behind.
    fn pass_through(
        &self,
        shard: usize,
        position: u64,
        is_patient: bool,
        meet: &mut dyn FnMut(Met<'_>),
    ) -> Result<u64, BackingError> {
        let backed = self.backed.as_ref().expect("else all is loaded");
        let run = run_of(bucket_at(shard, position), self.len() as u64);
        let last = usize::from(*run.end()) % BUCKETS;
        let end = (last as u64 + 1) << BUCKET_POSITION_BITS;
        self.table.scan_to(position, end, usize::MAX, &mut |entry| meet(Met::Entry(entry)));
        let mut belong = Ok(());
        list(&*backed.backing, self.space, run.clone(), is_patient, &mut |key, listed| match self
            .unknown_of(&run, key)
        {
            Ok(Some(hash)) if self.table.position_of(hash) >= position => match &listed {
                Listed::Whole(stored) => meet(Met::Stored(key, stored)),
                Listed::Long(unread) => meet(Met::Unread(key, *unread)),
            },
            Ok(_) => {}
            Err(error) => belong = Err(error),
        })?;
        belong.map(|()| end)
    }

    /// Makes the bucket at a scan position resident, see [`Db::load_bucket`].
    pub(crate) fn load_at(
        &mut self,
        shard: usize,
        position: u64,
        access: u32,
        is_patient: bool,
    ) -> Result<(), BackingError> {
        self.load_bucket(bucket_at(shard, position), access, is_patient).map(drop)
    }

    /// The scan position behind the loaded buckets that begin with the one at
    /// `position`.
    pub(crate) fn loaded_until(&self, position: u64) -> u64 {
        let Some(backed) = &self.backed else { return POSITION_END };
        let unloaded = (place_of(position)..BUCKETS).find(|&bucket| !backed.is_loaded(bucket));
        (unloaded.unwrap_or(BUCKETS) as u64) << BUCKET_POSITION_BITS
    }

    /// Makes a key that may stand in the backing one that does not exist, as a
    /// change of `revision`; `existed` says whether it did. Answers false, and
    /// does nothing, when it is known already.
    pub(crate) fn settle_unread(
        &mut self,
        hash: u64,
        key: &[u8],
        existed: bool,
        revision: Revision,
    ) -> Result<bool, BackingError> {
        if self.table.get(hash, key).is_some() || self.knows_missing(hash, key) {
            return Ok(false);
        }
        let backed = self.backed.as_mut().expect("else everything is known");
        // Its deadline may stand in the index, by which it must be found.
        if backed.evicts {
            return Ok(false);
        }
        if existed {
            backed.count_down(self.space)?;
        }
        backed.note_removal(hash, key, revision);
        if let Some(touched) = &mut self.touched {
            touched.note(key);
        }
        self.settle();
        Ok(true)
    }

    /// Whether a key exists that the table does not hold and that is not known to
    /// be missing, as far as the backing can tell at once; that it does, only if
    /// it has no deadline.
    pub(crate) fn presence(
        &self,
        hash: u64,
        key: &[u8],
        foreseen: Option<&Foreseen>,
    ) -> Option<bool> {
        // What was changed here may stand here, whatever was inherited.
        let backed = self.backed.as_ref().filter(|_| self.own.lacks(hash))?;
        let presence = foreseen.and_then(|it| it.presence(self.space, hash, key));
        presence.or_else(|| backed.backing.presence(self.space, hash, key))
    }

    /// Whether a key without an entry can be overwritten on somebody's word that
    /// it exists: its deadline, if it has one, is in no index.
    pub(crate) fn takes_unread(&self) -> bool {
        self.backed.as_ref().is_none_or(|backed| !backed.evicts)
    }

    /// A key that stands in the backing only, and has this deadline, is about to be
    /// overwritten or removed.
    pub(crate) fn supersede_due(
        &mut self,
        hash: u64,
        deadline: Option<u64>,
    ) -> Result<(), BackingError> {
        self.supersede()?;
        deadline.into_iter().for_each(|at| _ = self.deadlines.remove(&(at, hash)));
        Ok(())
    }

    /// A key that stands in the backing only is about to be overwritten.
    pub(crate) fn supersede(&mut self) -> Result<(), BackingError> {
        let space = self.space;
        if let Some(backed) = &mut self.backed {
            backed.count_down(space)?;
        }
        self.settle();
        Ok(())
    }

    /// Makes a key resident that somebody else has read from where the backing
    /// stands, unless it is or is known to be missing by now.
    pub(crate) fn bring(
        &mut self,
        hash: u64,
        key: &[u8],
        stored: Stored,
        access: u32,
    ) -> Result<(), BackingError> {
        if self.table.get(hash, key).is_none() && !self.knows_missing(hash, key) {
            self.admit(hash, key, stored, access)?;
            self.settle();
        }
        Ok(())
    }

    /// Takes a key in that stood in the backing only.
    fn admit(
        &mut self,
        hash: u64,
        key: &[u8],
        stored: Stored,
        access: u32,
    ) -> Result<(), BackingError> {
        let space = self.space;
        let backed = self.backed.as_mut().expect("the caller asked its backing");
        backed.count_down(space)?;
        backed.looked_in_vain.1 = 0;
        self.own.came_back(stored.revision.0);
        self.add(hash, entry_of(key, stored, access));
        Ok(())
    }

    /// What does not agree in what is remembered of keys that are not here.
    pub(crate) fn check_backed(&self) -> Option<String> {
        let backed = self.backed.as_ref()?;
        let bytes: usize = backed.removed.iter().map(|removed| removed.key.len()).sum();
        if bytes != backed.removed_bytes {
            let counted = backed.removed_bytes;
            return Some(format!("removed keys count as {counted} bytes, they have {bytes}"));
        }
        let both = backed.removed.iter().find(|removed| {
            self.table.get(self.table.hash_of(&removed.key), &removed.key).is_some()
        });
        if let Some(both) = both {
            return Some(format!("key \"{}\" exists and is removed", both.key.escape_ascii()));
        }
        if backed.unloaded_keys == 0 && !backed.evicts {
            return Some("it is backed, and has everything".to_owned());
        }
        None
    }

    /// Stops asking the backing once it has nothing that is not here.
    fn settle(&mut self) {
        match &mut self.backed {
            Some(backed) if backed.unloaded_keys > 0 => {}
            Some(backed) if backed.evicts => {
                (backed.loaded, backed.indexed) = ([u64::MAX; BUCKETS / 64], BUCKETS);
            }
            Some(backed) => {
                self.forgotten_removal = self.forgotten_removal.max(backed.newest_removal);
                self.backed = None;
            }
            None => {}
        }
    }
}

/// The keys of a run of buckets: all with what they hold, or as [`Backing::list`].
fn list(
    backing: &dyn Backing,
    space: SpaceId,
    run: RangeInclusive<u16>,
    is_patient: bool,
    each: &mut dyn FnMut(&[u8], Listed),
) -> Result<(), BackingError> {
    match is_patient {
        true => backing.buckets(space, run, &mut |key, stored| each(key, Listed::Whole(stored))),
        false => backing.list(space, run, each),
    }
}

pub(crate) fn entry_of(key: &[u8], stored: Stored, access: u32) -> Entry<Value> {
    let Stored { value, deadline, revision } = stored;
    let mut entry = match value {
        Value::Str(bytes) => crate::edit::string_entry(key, bytes, deadline),
        value => Entry::boxed(key, Box::new(value), deadline),
    };
    entry.set_revision(revision.0);
    entry.set_access(access);
    entry
}

/// About [`RUN_KEYS`] keys of a part of `keys` keys, as buckets from `bucket` to
/// at most the end of its shard.
fn run_of(bucket: u16, keys: u64) -> RangeInclusive<u16> {
    let ahead = BUCKETS as u64 - u64::from(bucket) % BUCKETS as u64;
    let width = (BUCKETS as u64 * RUN_KEYS).checked_div(keys).unwrap_or(ahead).clamp(1, ahead);
    bucket..=bucket + (width - 1) as u16
}

/// The bucket at a scan position of a shard.
fn bucket_at(shard: usize, position: u64) -> u16 {
    (shard << (BUCKET_BITS - SHARD_BITS) | place_of(position)) as u16
}

/// The bucket of a scan position, counted from the beginning of its shard.
fn place_of(position: u64) -> usize {
    (position >> BUCKET_POSITION_BITS) as usize
}
