//! What happens once a revision is committed: events and other messages that
//! must not tell of a change that a crash could still take back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::Revision;
use parking_lot::Mutex;

use crate::engine::Engine;

/// Something to do after a commit.
pub(crate) type Action = Box<dyn FnOnce(&Engine) + Send>;

#[derive(Default)]
pub(crate) struct CommitQueue {
    waiting: Mutex<VecDeque<(Revision, Action)>>,
    len: AtomicUsize,
}

impl std::fmt::Debug for CommitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CommitQueue({})", self.len.load(Ordering::Relaxed))
    }
}

impl Engine {
    /// Runs `action` once `revision` is committed: at once if it is and nothing
    /// older waits, so that messages keep the order of the log.
    pub(crate) fn after_commit(&self, revision: Revision, action: Action) {
        let queue = &self.after_commit;
        if queue.len.load(Ordering::Acquire) == 0 && self.replicator.is_committed(revision) {
            action(self);
            return;
        }
        let mut waiting = queue.waiting.lock();
        // Two sessions may come here in another order than their revisions.
        let at = waiting.partition_point(|(other, _)| *other <= revision);
        waiting.insert(at, (revision, action));
        queue.len.store(waiting.len(), Ordering::Release);
        drop(waiting);
        self.run_committed();
    }

    /// Runs the actions whose revisions are committed. The binary calls it
    /// whenever the replicator reports progress.
    pub fn run_committed(&self) {
        self.answer_durable();
        self.answer_applied();
        let queue = &self.after_commit;
        loop {
            let mut waiting = queue.waiting.lock();
            let is_ready = waiting
                .front()
                .is_some_and(|(revision, _)| self.replicator.is_committed(*revision));
            let Some((_, action)) = is_ready.then(|| waiting.pop_front()).flatten() else { return };
            queue.len.store(waiting.len(), Ordering::Release);
            drop(waiting);
            action(self);
        }
    }
}
