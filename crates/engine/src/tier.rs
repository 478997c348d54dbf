//! Larger than memory. Under `eviction_policy = tier`, values that the archive
//! has leave memory past `max_memory`, the least recently used first, and come
//! back when they are asked for. One thread sees to that, and to loading what
//! a restart left in the archive.
//!
//! A value can go once the archive has reached its last change. When too few
//! can, the archive is asked to go on; writers wait only when memory is an
//! eighth past the limit meanwhile, and are refused only when the archive has
//! everything and still nothing can go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use base::{DbIndex, Revision};
use keyspace::{BackingError, Evicted, SHARDS};
use parking_lot::{Condvar, Mutex};

use crate::checkpoint::Checkpointed;
use crate::engine::{Engine, Live};
use crate::eviction::{AtLimit, Deleted};
use crate::execute::RETRY_MS;

/// Buckets of a database: all values of the leading 16 bits of a hash.
const BUCKETS: u32 = 1 << 16;

/// Bytes that one look at a shard is to free, at most and at least.
const SLICE_BYTES: std::ops::RangeInclusive<u64> = 4 << 10..=64 << 10;

/// The archive is asked to go on when more than one in so many keys looked at
/// could not go.
const TOO_NEW_SHARE: u64 = 4;

/// Keys to look at before that is judged.
const SEEN_MIN: u64 = 256;

/// Bytes of memory at which something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    /// Eviction goes on down to here, and loading up to here.
    target: u64,
    /// Eviction begins past it: `max_memory`.
    limit: u64,
    /// Writers wait past it.
    brake: u64,
}

impl Marks {
    fn of(limit: u64) -> Marks {
        Marks { target: limit - limit / 16, limit, brake: limit.saturating_add(limit / 8) }
    }
}

/// What the thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Works,
    /// Waits until memory passes the limit.
    Idle,
    /// Waits for the archive.
    Waits,
}

/// What clients and the thread tell each other.
#[derive(Debug)]
pub(crate) struct Tier {
    phase: AtomicU8,
    is_woken: Mutex<bool>,
    woken: Condvar,
    /// Whether nothing could go lately although the archive had everything.
    is_stuck: AtomicBool,
    /// The shard to evict from next.
    next_shard: AtomicUsize,
    /// Whether to load from the beginning.
    loads_anew: AtomicBool,
}

impl Default for Tier {
    fn default() -> Tier {
        Tier {
            phase: AtomicU8::new(Phase::Works as u8),
            is_woken: Mutex::new(false),
            woken: Condvar::new(),
            is_stuck: AtomicBool::new(false),
            next_shard: AtomicUsize::new(0),
            loads_anew: AtomicBool::new(true),
        }
    }
}

impl Tier {
    fn is_at(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) == phase as u8
    }

    fn wake(&self) {
        *self.is_woken.lock() = true;
        self.woken.notify_one();
    }

    /// Sleeps until somebody wakes the thread, unless `is_over` says, once
    /// everybody can see the phase, that there is no need to.
    fn sleep(&self, phase: Phase, is_over: impl Fn() -> bool) {
        self.phase.store(phase as u8, Ordering::SeqCst);
        let mut is_woken = self.is_woken.lock();
        while !*is_woken && !is_over() {
            self.woken.wait(&mut is_woken);
        }
        *is_woken = false;
        self.phase.store(Phase::Works as u8, Ordering::SeqCst);
    }

    /// Lets some time pass, unless somebody wakes the thread.
    fn pause(&self) {
        let mut is_woken = self.is_woken.lock();
        self.woken.wait_for(&mut is_woken, Duration::from_millis(RETRY_MS));
    }
}

/// How far loading is.
#[derive(Debug)]
struct Loading {
    /// Under which policy it began.
    tiers: bool,
    db: DbIndex,
    bucket: u32,
    /// Keys that take long to read, with their databases and buckets: they are read
    /// before others are found.
    left: VecDeque<(DbIndex, u32, Box<[u8]>)>,
    /// Whether memory is full, so that only deadlines are read.
    is_full: bool,
    is_done: bool,
    keys: u64,
    began_ms: u64,
}

/// How a bout of eviction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionEnd {
    /// Memory is within the limit.
    Enough,
    /// Nothing more can go before the archive has reached this revision, for
    /// which it was asked.
    Lags(Revision),
    /// The archive has everything, or ended, and nothing can go; or no key may
    /// be deleted.
    Stuck,
    /// Nothing may change for the moment.
    Held,
}

impl Engine {
    /// Whether values leave memory for the archive.
    pub(crate) fn tiers(&self, live: &Live) -> bool {
        live.at_limit == AtLimit::Tier && self.archive().is_some()
    }

    fn marks(&self, live: &Live) -> Option<Marks> {
        let frees = self.tiers(live) || matches!(live.at_limit, AtLimit::Delete(_));
        (live.max_memory > 0 && frees).then(|| Marks::of(live.max_memory))
    }

    /// Asks for values to leave memory; answers whether none could lately.
    pub(crate) fn is_tier_stuck(&self) -> bool {
        if self.tier.is_at(Phase::Idle) {
            self.tier.wake();
        }
        self.tier.is_stuck.load(Ordering::SeqCst)
    }

    /// Whether a command that takes memory is to wait until some is free.
    pub(crate) fn waits_for_memory(&self, live: &Live) -> bool {
        self.marks(live).is_some_and(|marks| self.used_memory() > marks.brake)
    }

    /// Has the thread look at memory, once more if it does so now: it may be about
    /// to say that nothing can go, having passed what has come just now.
    pub(crate) fn wake_tier(&self) {
        self.tier.wake();
    }

    /// After a transaction that brought keys into memory.
    #[cold]
    pub(crate) fn count_loaded(&self, keys: u32) {
        self.stats.tier_loaded_keys.fetch_add(u64::from(keys), Ordering::Relaxed);
        let live = self.live();
        let Some(marks) = self.marks(&live) else { return };
        let used = self.used_memory();
        self.reclaimer.make_room(used, live.max_memory);
        if used <= marks.limit {
            return;
        }
        self.wake_tier();
        // Readers are not held up; those who outrun the thread help it.
        if used > marks.brake && self.tiers(&live) {
            self.evict_slice(&marks, used, self.archived().revision);
        }
    }

    /// To be called when the archive has moved on, or anything else may let
    /// eviction and loading go on.
    pub fn tier_moved(&self) {
        self.tier.wake();
    }

    /// What is in the archive only is to be loaded again, from the beginning.
    pub(crate) fn load_anew(&self) {
        self.tier.loads_anew.store(true, Ordering::SeqCst);
        self.tier_moved();
    }

    /// Loads what stands in the archive only, and evicts when memory is past
    /// the limit, until `goes_on` is false and [`Engine::tier_moved`] is called.
    /// For a thread of its own.
    pub fn keep_tier(&self, goes_on: &AtomicBool) {
        let mut loading = None;
        let mut forgotten = Revision::ZERO;
        while goes_on.load(Ordering::SeqCst) {
            // Not on the archive's own thread: who holds a shard may wait for
            // that one.
            let archived = self.archived().revision;
            if archived > forgotten {
                self.each_keyspace(|keyspace| keyspace.forget_removals(archived));
                self.reclaimer.let_go(archived.next());
                forgotten = archived;
            }
            let live = self.live();
            let (marks, tiers) = (self.marks(&live), self.tiers(&live));
            let over = |marks: &Marks| self.used_memory() > marks.limit;
            let is_anew = self.tier.loads_anew.swap(false, Ordering::SeqCst);
            let loading = match &mut loading {
                Some(loading) if !is_anew => loading,
                loading => loading.insert(self.begin_loading(&live)),
            };
            if self.evict(goes_on) != EvictionEnd::Enough {
                self.tier.sleep(Phase::Waits, || false);
            } else if !loading.is_done {
                self.load_step(loading, marks.as_ref().filter(|_| tiers));
            } else {
                self.tier.sleep(Phase::Idle, || marks.as_ref().is_some_and(over));
            }
        }
    }

    /// When memory is past the limit and the policy is to free some, does so until
    /// it is within, or `goes_on` is false.
    pub fn evict(&self, goes_on: &AtomicBool) -> EvictionEnd {
        let (live, version) = (self.live(), self.live_version());
        let marks = self.marks(&live).filter(|marks| self.used_memory() > marks.limit);
        let end = match (marks, live.at_limit) {
            (None, _) => EvictionEnd::Enough,
            (Some(_), AtLimit::Delete(rule)) => {
                // Another limit, or another policy, may be the setting by now.
                let is_wanted = || goes_on.load(Ordering::SeqCst) && self.live_version() == version;
                match self.delete_keys(&live, rule, None, &is_wanted) {
                    Deleted::Enough => EvictionEnd::Enough,
                    Deleted::NotYet => EvictionEnd::Held,
                    Deleted::Nothing => EvictionEnd::Stuck,
                }
            }
            (Some(marks), _) => self.evict_down(&marks, goes_on),
        };
        self.tier.is_stuck.store(end == EvictionEnd::Stuck, Ordering::SeqCst);
        end
    }

    fn evict_down(&self, marks: &Marks, goes_on: &AtomicBool) -> EvictionEnd {
        let (mut spent, mut seen, mut too_new) = (0, 0, 0);
        let (mut upto, mut requested) = (Revision::ZERO, Revision::ZERO);
        loop {
            let used = self.used_memory();
            if used <= marks.target || !goes_on.load(Ordering::SeqCst) {
                return EvictionEnd::Enough;
            }
            let Checkpointed { revision: archived, fault, .. } = self.archived();
            let newest = self.replicator.newest();
            if archived > upto {
                (upto, spent) = (archived, 0);
            }
            if spent >= SHARDS * (1 + self.branches.all().len()) {
                if used <= marks.limit {
                    return EvictionEnd::Enough;
                }
                if fault.is_some() || newest <= archived {
                    return EvictionEnd::Stuck;
                }
                self.hurry(newest);
                return EvictionEnd::Lags(newest);
            }
            let slice = self.evict_slice(marks, used, upto);
            spent = if slice.is_spent { spent + 1 } else { 0 };
            (seen, too_new) = (seen + slice.seen, too_new + slice.too_new);
            if seen >= SEEN_MIN && too_new * TOO_NEW_SHARE > seen && archived < newest {
                if requested <= archived {
                    self.hurry(newest);
                    requested = newest;
                }
                // Else the rest would have to go, however much it is in use.
                if too_new * 2 > seen && fault.is_none() {
                    return EvictionEnd::Lags(newest);
                }
                (seen, too_new) = (0, 0);
            }
            std::thread::yield_now();
        }
    }

    fn hurry(&self, revision: Revision) {
        self.archive().into_iter().for_each(|archive| archive.hurry(revision));
    }

    /// Frees a little of one shard.
    fn evict_slice(&self, marks: &Marks, used: u64, upto: Revision) -> Evicted {
        let wanted = (used.saturating_sub(marks.target) / SHARDS as u64)
            .clamp(*SLICE_BYTES.start(), *SLICE_BYTES.end());
        let branches = self.branches.all();
        let turn =
            self.tier.next_shard.fetch_add(1, Ordering::Relaxed) % (SHARDS * (1 + branches.len()));
        let (shard, keyspace) = match (turn / SHARDS).checked_sub(1) {
            None => (turn, &self.keyspace),
            Some(branch) => (turn % SHARDS, &branches[branch].keyspace),
        };
        self.note_tiered(keyspace.evict(shard, upto, wanted as usize))
    }

    /// Counts and drops what has left memory for the archive.
    pub(crate) fn note_tiered(&self, mut evicted: Evicted) -> Evicted {
        self.stats.tier_evicted_keys.fetch_add(evicted.keys, Ordering::Relaxed);
        self.stats.tier_evicted_bytes.fetch_add(evicted.bytes as u64, Ordering::Relaxed);
        self.dispose(std::mem::take(&mut evicted.garbage));
        evicted
    }

    fn begin_loading(&self, live: &Live) -> Loading {
        let keys = self.keyspace.unloaded();
        Loading {
            tiers: self.tiers(live),
            db: 0,
            bucket: 0,
            left: VecDeque::new(),
            is_full: false,
            is_done: keys == 0 && !self.keyspace.is_backed(),
            keys,
            began_ms: self.clock.now_us() / 1000,
        }
    }

    /// Loads some keys, or reads when they are due.
    fn load_step(&self, loading: &mut Loading, marks: Option<&Marks>) {
        loading.is_full |= marks.is_some_and(|marks| self.used_memory() >= marks.target);
        match self.load_next(loading) {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(
                    "load the keys of database {} from the archive: {error}",
                    loading.db
                );
                loading.is_done = true;
                return;
            }
        }
        if loading.bucket >= BUCKETS {
            loading.bucket = 0;
            loading.db += 1;
        }
        let is_more = loading.db < self.keyspace.databases() || !loading.left.is_empty();
        if is_more && self.keyspace.is_backed() {
            return;
        }
        loading.is_done = true;
        if !loading.tiers {
            self.keyspace.keep_all();
        }
        if loading.keys > 0 {
            let left = self.keyspace.unloaded();
            let seconds = (self.clock.now_us() / 1000 - loading.began_ms) as f64 / 1000.0;
            tracing::info!(keys = loading.keys, left, seconds, "loaded from the archive");
        }
    }

    fn load_next(&self, loading: &mut Loading) -> Result<(), BackingError> {
        if loading.is_full
            && let Some((db, bucket, _)) = loading.left.pop_front()
        {
            // They stay in the archive, and when they are due is to be known.
            (loading.db, loading.bucket) = (db, bucket);
            loading.left.clear();
        }
        if let Some((db, _, key)) = loading.left.front() {
            match self.keyspace.load_hastily(*db, key) {
                Err(error) if error.is_later() => self.tier.pause(),
                loaded => {
                    loading.left.pop_front();
                    loaded?;
                }
            }
            return Ok(());
        }
        let bucket = loading.bucket as u16;
        if loading.is_full {
            loading.bucket += u32::from(self.keyspace.index_deadlines(loading.db, bucket)?);
        } else {
            let left = self.keyspace.load_bucket(loading.db, bucket)?.unwrap_or_default();
            let of = |key| (loading.db, loading.bucket, key);
            loading.left = left.into_iter().map(of).collect();
            loading.bucket += 1;
        }
        Ok(())
    }
}
