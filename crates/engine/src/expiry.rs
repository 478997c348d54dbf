//! The active expiry cycle: removing keys past their deadline that nobody asks
//! for, a bounded time at each turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::Revision;
use keyspace::{Buffers, SHARDS, Scope, Txn};

use crate::engine::Engine;

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
        let mut buffers = Buffers::default();
        let mut removed = 0;
        'shards: for shard in 0..SHARDS {
            loop {
                let now_ms = self.clock.now_ms();
                if !self.keyspace.has_due(shard, now_ms) {
                    break;
                }
                let options = self.txn_options(&live, now_ms, false);
                let scope = Scope::Shards(smallvec::smallvec![shard]);
                let mut txn =
                    Txn::begin(&self.keyspace, &scope, &*self.replicator, &mut buffers, options);
                if self.has_effect_readers() {
                    txn.record_always();
                }
                let batch = txn.expire_due(shard, BATCH);
                let told = self.tracking.changes(0, &txn);
                let finished = txn.finish();
                finished.written.into_iter().for_each(|revision| self.revision_written(revision));
                removed += batch;
                self.count_expired(&finished);
                if finished.loaded > 0 {
                    self.count_loaded(finished.loaded);
                }
                self.dispose(buffers.take_garbage());
                if buffers.has_events() {
                    let events = buffers.take_events();
                    let revision = finished.written.unwrap_or(Revision::ZERO);
                    self.after_commit(
                        revision,
                        Box::new(move |engine| engine.publish_events(&events)),
                    );
                }
                self.tell(told, finished.written.unwrap_or_default());
                if self.clock.monotonic_ns() >= deadline_ns {
                    self.stats.expire_cycle_cut.fetch_add(1, Ordering::Relaxed);
                    break 'shards;
                }
                if batch < BATCH {
                    break;
                }
            }
        }
        let used_ns = self.clock.monotonic_ns() - started_ns;
        self.stats.expire_cycle_us.fetch_add(used_ns / 1000, Ordering::Relaxed);
        self.latency.event(&live, "expire-cycle", used_ns, self.clock.now_ms());
        removed
    }
}
