//! Memory is full: what each policy does about it, and deleting keys by Redis's.
//!
//! A key is deleted by a transaction as a client's deletion would be, so that the
//! log tells of it, and so do `HISTORY`, events and invalidations. Whoever is
//! about to take memory deletes first, for a bounded time; a thread goes on where
//! that was not enough. Of a branch that reads through to its parent, what is not
//! its own leaves memory without being deleted: to delete it would free nothing
//! that cannot be had for nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use base::{BranchId, Rng};
use keyspace::{Accesses, Buffers, EvictionOrder, EvictionRule, Hunt, SHARDS, Scope, Victim};
use settings::{EvictionPolicy, Settings};
use smallvec::SmallVec;

use crate::branch::{Held, LiveBranch};
use crate::engine::{Engine, Live};

/// Keys deleted by one transaction, at most: it holds their shards meanwhile.
const BATCH_KEYS: usize = 32;

/// Eviction goes on a little below the limit, so that not each write after it
/// has to evict: this part of the limit, and no more than so many bytes.
const SLACK_SHARE: u64 = 1024;
const SLACK_BYTES_MAX: u64 = 16 << 10;

/// What happens when data takes more memory than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtLimit {
    /// Commands that take more are refused.
    Refuse,
    /// Values leave memory for the archive, see [`crate::tier`].
    Tier,
    /// Keys are deleted.
    Delete(EvictionRule),
}

impl AtLimit {
    pub(crate) fn of(policy: EvictionPolicy) -> AtLimit {
        use EvictionOrder::{LeastUsed, Random, SoonestDue};
        let (volatile, order) = match policy {
            EvictionPolicy::NoEviction => return AtLimit::Refuse,
            EvictionPolicy::Tier => return AtLimit::Tier,
            EvictionPolicy::AllKeysLru | EvictionPolicy::AllKeysLfu => (false, LeastUsed),
            EvictionPolicy::AllKeysRandom => (false, Random),
            EvictionPolicy::VolatileLru | EvictionPolicy::VolatileLfu => (true, LeastUsed),
            EvictionPolicy::VolatileRandom => (true, Random),
            EvictionPolicy::VolatileTtl => (true, SoonestDue),
        };
        AtLimit::Delete(EvictionRule { volatile, order })
    }
}

/// What entries note of their use under a policy.
pub(crate) fn accesses_under(settings: &Settings) -> Accesses {
    match settings.policy {
        EvictionPolicy::AllKeysLfu | EvictionPolicy::VolatileLfu => Accesses::Frequency {
            log_factor: settings.lfu_log_factor,
            decay_minutes: settings.lfu_decay_minutes,
        },
        _ => Accesses::Recency,
    }
}

/// Microseconds for which a command may evict before it runs: Redis's scale for
/// `maxmemory-eviction-tenacity`. `None` is as long as it takes.
fn patience_us(tenacity: u32) -> Option<u64> {
    match tenacity {
        0..=10 => Some(50 * u64::from(tenacity)),
        11..100 => Some((500.0 * 1.15_f64.powi(tenacity.cast_signed() - 10)) as u64),
        _ => None,
    }
}

/// How deleting keys ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// Memory is within the limit.
    Enough,
    /// There was no time for more, or nothing may change for the moment.
    NotYet,
    /// There is no key that may go.
    Nothing,
}

/// Deleting keys at the limit.
#[derive(Debug, Default)]
pub(crate) struct Eviction {
    /// Whether no key could go lately.
    is_stuck: AtomicBool,
    /// The shard of branches to look at next.
    next_shard: AtomicUsize,
    /// Since when memory has been past the limit, in microseconds of the
    /// monotonic clock, and 1; 0 if it is not.
    exceeded_since_us: AtomicU64,
    /// Microseconds for which it was before.
    exceeded_us: AtomicU64,
}

impl Engine {
    /// Whether a command that takes memory is to be refused. Makes room for it if
    /// the policy is to delete keys.
    pub(crate) fn is_out_of_memory(&self, live: &Live) -> bool {
        self.is_past_limit(live)
            && match live.at_limit {
                AtLimit::Tier if self.tiers(live) => self.is_tier_stuck(),
                AtLimit::Delete(rule) => {
                    let patience = patience_us(live.settings.eviction_tenacity);
                    let deleted = self.delete_keys(live, rule, patience, &|| true);
                    if deleted == Deleted::NotYet {
                        self.wake_tier();
                    }
                    deleted == Deleted::Nothing
                }
                AtLimit::Refuse | AtLimit::Tier => true,
            }
    }

    /// As [`Engine::is_out_of_memory`], for who is only asking: nothing is
    /// deleted.
    pub(crate) fn would_be_out_of_memory(&self, live: &Live) -> bool {
        match live.at_limit {
            AtLimit::Delete(_) => {
                self.is_past_limit(live) && self.eviction.is_stuck.load(Ordering::Relaxed)
            }
            AtLimit::Refuse | AtLimit::Tier => self.is_out_of_memory(live),
        }
    }

    /// Whether the data takes more memory than it may.
    pub(crate) fn is_past_limit(&self, live: &Live) -> bool {
        if live.max_memory == 0 {
            return false;
        }
        let used = self.used_memory();
        self.reclaimer.make_room(used, live.max_memory);
        used > live.max_memory
    }

    /// Deletes keys until memory is within the limit, for so many microseconds
    /// and while `goes_on`.
    pub(crate) fn delete_keys(
        &self,
        live: &Live,
        rule: EvictionRule,
        patience_us: Option<u64>,
        goes_on: &dyn Fn() -> bool,
    ) -> Deleted {
        let started_ns = self.clock.monotonic_ns();
        let goal = live.max_memory - (live.max_memory / SLACK_SHARE).min(SLACK_BYTES_MAX);
        let mut buffers = Buffers::default();
        let deleted = loop {
            let used = self.used_memory();
            if used <= goal {
                break Deleted::Enough;
            }
            if self.is_paused()
                || self.writers_held.is_on()
                || self.replicator.admit_write().is_err()
                || !goes_on()
            {
                break Deleted::NotYet;
            }
            if !self.free_some(live, rule, used - goal, &mut buffers) {
                break if used <= live.max_memory { Deleted::Enough } else { Deleted::Nothing };
            }
            let used_us = (self.clock.monotonic_ns() - started_ns) / 1000;
            if patience_us.is_some_and(|patience| used_us >= patience) {
                let is_enough = self.used_memory() <= live.max_memory;
                break if is_enough { Deleted::Enough } else { Deleted::NotYet };
            }
        };
        let now_ns = self.clock.monotonic_ns();
        self.latency.event(live, "eviction-cycle", now_ns - started_ns, self.clock.now_ms());
        self.note_exceeded(deleted, now_ns / 1000);
        deleted
    }

    fn note_exceeded(&self, deleted: Deleted, now_us: u64) {
        let Eviction { is_stuck, exceeded_since_us, exceeded_us, .. } = &self.eviction;
        is_stuck.store(deleted == Deleted::Nothing, Ordering::Relaxed);
        if deleted == Deleted::Enough {
            let since_us = exceeded_since_us.swap(0, Ordering::Relaxed);
            if let Some(since_us) = since_us.checked_sub(1) {
                exceeded_us.fetch_add(now_us.saturating_sub(since_us), Ordering::Relaxed);
            }
        } else {
            let (none, now) = (0, now_us + 1);
            let order = Ordering::Relaxed;
            // It is kept where it has been so for longer.
            _ = exceeded_since_us.compare_exchange(none, now, order, order);
        }
    }

    /// Milliseconds for which memory has been past the limit by now, and was in
    /// all, as far as eviction has met it.
    pub(crate) fn exceeded_ms(&self) -> (u64, u64) {
        let since_us = self.eviction.exceeded_since_us.load(Ordering::Relaxed);
        let now_us = self.clock.monotonic_ns() / 1000;
        let current_us = since_us.checked_sub(1).map_or(0, |since| now_us.saturating_sub(since));
        let total_us = self.eviction.exceeded_us.load(Ordering::Relaxed) + current_us;
        (current_us / 1000, total_us / 1000)
    }

    /// Frees about so many bytes, or fewer; answers whether there was anything
    /// that could go. Branches take turns by the memory that they take.
    fn free_some(
        &self,
        live: &Live,
        rule: EvictionRule,
        bytes: u64,
        buffers: &mut Buffers,
    ) -> bool {
        let mut branches = vec![Held::Main(&self.main)];
        branches.extend(self.branches.all().into_iter().map(Held::Other));
        if branches.len() > 1 {
            let weights: Vec<u64> =
                branches.iter().map(|branch| branch.keyspace.memory_bytes() as u64).collect();
            let lot = self.rng.lock().below(weights.iter().sum::<u64>().max(1));
            branches.rotate_left(chosen_by(lot, &weights));
        }
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        branches.iter().any(|branch| {
            branch.id != BranchId::MAIN && self.let_inherited_go(branch, bytes)
                || self.delete_some(branch, live, rule, bytes, buffers)
        })
    }

    /// Takes keys of a branch out of memory that are its parent's.
    fn let_inherited_go(&self, branch: &LiveBranch, bytes: usize) -> bool {
        let archived = self.archived().revision;
        (0..SHARDS).any(|_| {
            let shard = self.eviction.next_shard.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let evicted = branch.keyspace.evict_inherited(shard, archived, bytes);
            self.note_tiered(evicted).keys > 0
        })
    }

    /// Deletes some keys of a branch.
    fn delete_some(
        &self,
        branch: &LiveBranch,
        live: &Live,
        rule: EvictionRule,
        bytes: usize,
        buffers: &mut Buffers,
    ) -> bool {
        if branch.is_gone() {
            return false;
        }
        let samples = live.settings.eviction_samples as usize;
        let hunt = Hunt { rule, samples, now_ms: self.clock.now_ms() };
        let victims = branch.keyspace.choose_victims(&hunt, bytes, BATCH_KEYS);
        if victims.is_empty() {
            return false;
        }
        let mut shards: SmallVec<[usize; 4]> = victims.iter().map(Victim::shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let scope = Scope::Shards(shards);
        let evicted =
            self.change_unasked(branch, live, &scope, buffers, |txn| txn.evict(rule, &victims));
        self.stats.evicted_keys.fetch_add(evicted, Ordering::Relaxed);
        true
    }
}

/// Which of these a lot below their sum falls on.
fn chosen_by(mut lot: u64, weights: &[u64]) -> usize {
    let is_hit = |weight: &u64| {
        let is_hit = lot < *weight;
        lot = lot.saturating_sub(*weight);
        is_hit
    };
    weights.iter().position(is_hit).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lot_falls_on_each_by_its_weight() {
        let chosen = |lot| chosen_by(lot, &[3, 0, 2]);
        assert_eq!([0, 2, 3, 4].map(chosen), [0, 0, 2, 2]);
        assert_eq!(chosen_by(0, &[0, 0]), 0);
    }

    #[test]
    fn patience_follows_redis_s_scale() {
        let patience = [0, 1, 10, 11, 50, 99, 100].map(patience_us);
        assert_eq!(patience[..4], [Some(0), Some(50), Some(500), Some(575)]);
        assert_eq!(patience[4..], [Some(133_931), Some(126_205_358), None]);
    }

    #[test]
    fn every_policy_is_told_apart() {
        let policies = EvictionPolicy::WORDS.iter().map(|word| EvictionPolicy::from_word(word));
        let kinds: Vec<_> = policies.map(|policy| AtLimit::of(policy.unwrap())).collect();
        assert_eq!(kinds.iter().filter(|kind| matches!(kind, AtLimit::Delete(_))).count(), 7);
    }
}
