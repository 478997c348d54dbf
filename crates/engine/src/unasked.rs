//! Changes that no client asks for: keys that expire or are evicted.

use base::Revision;
use keyspace::{Buffers, Scope, Txn};

use crate::branch::LiveBranch;
use crate::engine::{Engine, Live};

impl Engine {
    /// Runs one transaction on a branch, and tells of it everybody who is to know.
    pub(crate) fn change_unasked<R>(
        &self,
        branch: &LiveBranch,
        live: &Live,
        scope: &Scope,
        buffers: &mut Buffers,
        change: impl FnOnce(&mut Txn<'_>) -> R,
    ) -> R {
        let (keyspace, journal) = (&*branch.keyspace, self.journal_of(branch));
        let options = self.txn_options(live, self.clock.now_ms(), false);
        let mut txn = Txn::begin(keyspace, scope, journal, buffers, options);
        if self.has_effect_readers() {
            txn.record_always();
        }
        let changed = change(&mut txn);
        let told = self.tracking.changes(0, &txn);
        let finished = txn.finish();
        finished.written.into_iter().for_each(|revision| self.revision_written(revision));
        self.count_expired(&finished);
        if finished.loaded > 0 {
            self.count_loaded(finished.loaded);
        }
        self.dispose(buffers.take_garbage());
        if buffers.has_events() {
            let (branch, events) = (branch.id, buffers.take_events());
            let revision = finished.written.unwrap_or(Revision::ZERO);
            let publish = move |engine: &Engine| engine.publish_events(branch, &events);
            self.after_commit(revision, Box::new(publish));
        }
        self.tell(told, finished.written.unwrap_or_default());
        changed
    }
}
