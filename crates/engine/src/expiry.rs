//! The active expiry cycle: removing keys past their deadline that nobody asks
//! for, a bounded time at each turn.
//!
//! A shard's index of deadlines names the keys that are due. What a branch has
//! from its parent is not in it at first: the branch only knows when the first
//! key of a shard was due when it began. From then on, and not before, the
//! cycle looks through what it inherits there, a few keys at a time.

use std::sync::atomic::Ordering;

use base::BranchId;
use keyspace::{Buffers, SHARDS, Scope, Txn};

use crate::branch::{Held, LiveBranch};
use crate::engine::{Engine, Live};

/// Keys removed under one lock before it is released.
const BATCH: usize = 64;

impl Engine {
    /// One turn of the cycle: visits every shard that has keys due, for at most
    /// `budget_us` microseconds. Answers how much it did: keys removed, and times
    /// that it looked for deadlines. The binary calls it `hz` times a second.
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
        let (mut removed, mut looked) = (0, 0);
        let is_cut = branches
            .iter()
            .any(|branch| self.expire_on(branch, &live, deadline_ns, &mut removed))
            || branches.iter().any(|branch| self.look_for_due(branch, deadline_ns, &mut looked));
        if is_cut {
            self.stats.expire_cycle_cut.fetch_add(1, Ordering::Relaxed);
        }
        let used_ns = self.clock.monotonic_ns() - started_ns;
        self.stats.expire_cycle_us.fetch_add(used_ns / 1000, Ordering::Relaxed);
        self.latency.event(&live, "expire-cycle", used_ns, self.clock.now_ms());
        removed + looked
    }

    /// Notes when keys are due that a branch inherits, where one may be by now.
    /// Answers whether time was up before its end.
    fn look_for_due(&self, branch: &LiveBranch, deadline_ns: u64, looked: &mut usize) -> bool {
        // main's are brought in after a start, or noted then.
        if branch.id == BranchId::MAIN {
            return false;
        }
        // Nothing is known after a start, and what is not known costs a look at
        // every key. Nobody misses it while nobody is there.
        let from = u64::from(!branch.is_in_use());
        if !branch.keyspace.has_unindexed(&(from..=self.clock.now_ms())) {
            return false;
        }
        // Who looks there before would wait for the archive.
        if !self.is_settled(branch) || !self.has_forked(branch) {
            return false;
        }
        for shard in 0..SHARDS {
            loop {
                match branch.keyspace.index_due(shard, from..=self.clock.now_ms()) {
                    Ok(true) => *looked += 1,
                    Ok(false) => break,
                    Err(error) => {
                        let name = self.branch_name(branch.id);
                        tracing::error!(
                            "look for keys of the branch '{}' that are due: {error}",
                            String::from_utf8_lossy(&name)
                        );
                    }
                }
                if self.clock.monotonic_ns() >= deadline_ns {
                    return true;
                }
            }
        }
        false
    }

    /// The turn of one branch. Answers whether time was up before its end.
    fn expire_on(
        &self,
        branch: &LiveBranch,
        live: &Live,
        deadline_ns: u64,
        removed: &mut usize,
    ) -> bool {
        if !branch.keyspace.has_deadlines() {
            return false;
        }
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
