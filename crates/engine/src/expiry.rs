//! The active expiry cycle: removing keys past their deadline that nobody asks
//! for, a bounded time at each turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::Revision;
use keyspace::{Buffers, SHARDS, Scope, Txn};

use crate::branch::{Held, LiveBranch};
use crate::engine::{Engine, Live};

/// Keys removed under one lock before it is released.
const BATCH: usize = 64;

impl Engine {
    /// One turn of the cycle: visits every shard that has keys due, for at most
    /// `budget_us` microseconds. Answers how many keys it removed. The binary
    /// calls it `hz` times a second.
    pub fn expire_cycle(self: &Arc<Self>, budget_us: u64) -> usize {
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
        self: &Arc<Self>,
        branch: &LiveBranch,
        live: &Live,
        deadline_ns: u64,
        removed: &mut usize,
    ) -> bool {
        let (keyspace, journal) = (&branch.keyspace, self.journal_of(branch));
        let mut buffers = Buffers::default();
        for shard in 0..SHARDS {
            loop {
                let now_ms = self.clock.now_ms();
                if !keyspace.has_due(shard, now_ms) {
                    break;
                }
                let options = self.txn_options(live, now_ms, false);
                let scope = Scope::Shards(smallvec::smallvec![shard]);
                let mut txn = Txn::begin(keyspace, &scope, journal, &mut buffers, options);
                if self.has_effect_readers() {
                    txn.record_always();
                }
                let batch = txn.expire_due(shard, BATCH);
                let told = self.tracking.changes(0, &txn);
                let finished = txn.finish();
                finished.written.into_iter().for_each(|revision| self.revision_written(revision));
                *removed += batch;
                self.count_expired(&finished);
                if finished.loaded > 0 {
                    self.count_loaded(finished.loaded);
                }
                self.dispose(buffers.take_garbage());
                if buffers.has_events() {
                    let events = buffers.take_events();
                    let revision = finished.written.unwrap_or(Revision::ZERO);
                    let branch = branch.id;
                    self.after_commit(
                        revision,
                        Box::new(move |engine| engine.publish_events(branch, &events)),
                    );
                }
                self.tell(told, finished.written.unwrap_or_default());
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
