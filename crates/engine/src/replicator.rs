//! When a change counts as committed, and who makes it so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{BranchId, DbIndex, Revision};
use keyspace::Journal;
use log::Log;
use tokio::sync::watch;

/// A commit rule. It takes the effects of every transaction ([`Journal`]) and
/// says from when on clients may hear of it.
///
/// Contract: a revision that was committed once stays committed, and every
/// revision before it is committed too. During a fault nothing more is committed:
/// that of a full disk can end, any other lasts as long as the process.
pub trait Replicator: Journal {
    /// As [`Journal::append`], of a transaction on another branch than main. A
    /// rule that keeps no log takes no notice.
    fn append_on(
        &self,
        branch: BranchId,
        revision: Revision,
        time_ms: u64,
        db: DbIndex,
        effects: &[u8],
    ) {
        let _ = branch;
        self.append(revision, time_ms, db, effects);
    }

    /// As [`Replicator::append_on`], without a copy where a log keeps them.
    fn append_shared_on(
        &self,
        branch: BranchId,
        revision: Revision,
        time_ms: u64,
        db: DbIndex,
        effects: &Arc<Vec<u8>>,
    ) {
        self.append_on(branch, revision, time_ms, db, effects);
    }

    /// Lets what was appended be written, where no reply waits for that. To be
    /// called soon afterwards, with no lock held and the client answered: it may
    /// wake a thread, which takes longer than many a command.
    fn wake_writer(&self) {}

    /// Whether replies that depend on `revision` may leave.
    fn is_committed(&self, revision: Revision) -> bool;

    /// The newest revision that [`Replicator::is_committed`] says yes to and that
    /// was given out: what this node has applied.
    fn committed(&self) -> Revision;

    /// Follows what [`Replicator::is_committed`] answers.
    fn commits(&self) -> watch::Receiver<Commit>;

    /// Whether writes are taken at all.
    ///
    /// # Errors
    /// The error reply for the client: the log has failed, the disk is full.
    fn admit_write(&self) -> command::Result;

    /// Whether writers should wait: the disk does not keep up and what waits
    /// for it has reached its bound.
    fn is_congested(&self) -> bool {
        false
    }

    /// Whether changes are kept on disk at all.
    fn keeps_log(&self) -> bool {
        true
    }

    /// The log, for those who follow it; `None` where there is none.
    fn followed_log(&self) -> Option<&Arc<Log>> {
        None
    }

    /// The newest revision that is on this node's disk.
    fn durable(&self) -> Revision;

    /// Waits until a revision is on this node's disk, whatever the policy, or will
    /// never be.
    fn wait_durable(&self, _: Revision) {}

    /// Asks for a sync as soon as possible, whatever the policy.
    fn request_sync(&self) {}

    /// The newest revision given out.
    fn newest(&self) -> Revision;

    /// Reacts to changed settings: sync policy, compression.
    fn reconfigure(&self, _settings: &settings::Settings) {}

    /// Tries to take writes again after the disk was full.
    ///
    /// # Errors
    /// Why it is not possible.
    fn resume(&self) -> Result<(), String> {
        Ok(())
    }

    /// Lines for `INFO persistence`, as `(field, value)`.
    fn info(&self) -> Vec<(&'static str, String)>;

    /// Flushes and syncs everything; nothing is appended afterwards.
    ///
    /// # Errors
    /// When the last changes could not be made durable.
    fn close(&self) -> Result<(), String> {
        Ok(())
    }
}

/// How far the log is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The newest committed revision.
    pub revision: Revision,
    /// Why nothing later is committed now.
    pub fault: Option<String>,
}

/// No log: every change is committed as soon as it is made, and lost with the
/// process. For caches and tests.
#[derive(Debug, Default)]
pub struct NoLog {
    newest: AtomicU64,
}

impl Journal for NoLog {
    fn reserve(&self) -> Revision {
        Revision(self.newest.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}

    fn wants_effects(&self) -> bool {
        false
    }
}

impl Replicator for NoLog {
    fn is_committed(&self, _: Revision) -> bool {
        true
    }

    fn committed(&self) -> Revision {
        self.newest()
    }

    fn commits(&self) -> watch::Receiver<Commit> {
        watch::channel(Commit::default()).1
    }

    fn admit_write(&self) -> command::Result {
        Ok(())
    }

    fn keeps_log(&self) -> bool {
        false
    }

    fn durable(&self) -> Revision {
        Revision::ZERO
    }

    fn newest(&self) -> Revision {
        Revision(self.newest.load(Ordering::Relaxed))
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        vec![("aof_enabled", "0".to_owned())]
    }
}
