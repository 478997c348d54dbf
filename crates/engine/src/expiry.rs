//! The active expiry cycle: removing keys past their deadline that nobody asks
//! for, a bounded time at each turn.

use std::sync::atomic::Ordering;

use keyspace::{Buffers, SHARDS, Scope, Txn};

use crate::branch::{Held, LiveBranch};
use crate::engine::{Engine, Live};

/// Keys removed under one lock before it is released.
const BATCH: usize = 64;

impl Engine {
    /// One turn of the cycle: visits every shard that has keys due, for at most
    /// `budget_us` microseconds. Answers how many keys it removed. The binary
    /// calls it `hz` times a second.
    pub fn expire_cycle(&self, budget_us: u64) -> usize {
        // CLIENT PAUSE keeps the data as it is.
        if self.cron_paused.load(Ordering::Relaxed)
            || !self.active_expire.load(Ordering::Relaxed)
            || self.is_paused()
        {
            return 0;
        }
        let started_ns = self.clock.monotonic_ns();
        let deadline_ns = started_ns + budget_us * 1000;
        let live = self.live();
        let mut branches = vec![Held::Main(&self.main)];
        branches.extend(self.branches.all().into_iter().map(Held::Other));
        let mut removed = 0;
        for branch in &branches {
            let is_cut = self.expire_on(branch, &live, deadline_ns, &mut removed);
            if is_cut {
                self.stats.expire_cycle_cut.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        let used_ns = self.clock.monotonic_ns() - started_ns;
        self.stats.expire_cycle_us.fetch_add(used_ns / 1000, Ordering::Relaxed);
        self.latency.event(&live, "expire-cycle", used_ns, self.clock.now_ms());
        removed
    }

    /// The turn of one branch. Answers whether time was up before its end.
    fn expire_on(
        &self,
        branch: &LiveBranch,
        live: &Live,
        deadline_ns: u64,
        removed: &mut usize,
    ) -> bool {
        let mut buffers = Buffers::default();
        for shard in 0..SHARDS {
            while branch.keyspace.has_due(shard, self.clock.now_ms()) {
                let scope = Scope::Shards(smallvec::smallvec![shard]);
                let expire = |txn: &mut Txn<'_>| txn.expire_due(shard, BATCH);
                let batch = self.change_unasked(branch, live, &scope, &mut buffers, expire);
                *removed += batch;
                if self.clock.monotonic_ns() >= deadline_ns {
                    return true;
                }
                if batch < BATCH {
                    break;
                }
            }
        }
        false
    }
}
