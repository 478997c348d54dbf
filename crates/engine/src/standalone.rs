//! The commit rule of a node that stands alone: its own log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{BranchId, DbIndex, Revision};
use command::Error;
use keyspace::Journal;
use log::{Compression, FsyncPolicy, Log, LogFault, RecordHeader};
use settings::{Fsync, Settings};
use tokio::sync::watch;

use crate::replicator::{Commit, Replicator};

/// Commits by this node's log: under `always` a revision is committed when a
/// sync covers it, else as soon as it is in the log's buffer.
#[derive(Debug)]
pub struct StandaloneLog {
    log: Arc<Log>,
    commits: watch::Sender<Commit>,
    /// What recovery found, for INFO.
    recovered: Recovered,
    /// Transactions that waited for a commit, to show how many share a sync.
    waits: AtomicU64,
}

/// What recovery found.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Transactions replayed.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Bytes cut off the tail.
    pub dropped_bytes: u64,
    /// Damaged segments that were set aside, because nothing in them was needed,
    /// by the names that they have now.
    pub set_aside: Vec<String>,
}

/// The log's words for a setting.
#[must_use]
pub fn fsync_policy(settings: &Settings) -> FsyncPolicy {
    match settings.fsync {
        Fsync::Always => FsyncPolicy::Always,
        Fsync::EverySec => FsyncPolicy::EverySec,
        Fsync::No => FsyncPolicy::No,
    }
}

/// The log's words for a setting.
#[must_use]
pub fn compression(settings: &Settings) -> Compression {
    match settings.compression {
        settings::Compression::None => Compression::None,
        settings::Compression::Gzip => Compression::Gzip,
        settings::Compression::Lz4 => Compression::Lz4,
        settings::Compression::Zstd => Compression::Zstd,
    }
}

impl StandaloneLog {
    /// Commits by `log`, which recovery has read to its end.
    #[must_use]
    pub fn new(log: Log, recovered: Recovered) -> Arc<StandaloneLog> {
        let (commits, _) = watch::channel(Commit { revision: log.durable(), fault: None });
        let standalone = Arc::new(StandaloneLog {
            log: Arc::new(log),
            commits,
            recovered,
            waits: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&standalone);
        standalone.log.on_progress(move || {
            if let Some(standalone) = weak.upgrade() {
                standalone.publish();
            }
        });
        standalone
    }

    /// The log itself, for its readers.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    fn publish(&self) {
        let fault = self.log.fault().map(|fault| fault.to_string());
        self.commits.send_replace(Commit { revision: self.log.durable(), fault });
    }
}

impl Journal for StandaloneLog {
    fn reserve(&self) -> Revision {
        self.log.reserve()
    }

    fn append(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &[u8]) {
        self.append_on(BranchId::MAIN, revision, time_ms, db, effects);
    }

    fn append_shared(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &Arc<Vec<u8>>) {
        self.append_shared_on(BranchId::MAIN, revision, time_ms, db, effects);
    }
}

impl Replicator for StandaloneLog {
    fn append_on(
        &self,
        branch: BranchId,
        revision: Revision,
        time_ms: u64,
        db: DbIndex,
        effects: &[u8],
    ) {
        self.log.append_quietly(revision, RecordHeader { time_ms, db, branch }, effects);
    }

    fn wake_writer(&self) {
        self.log.wake_writer();
    }

    fn append_shared_on(
        &self,
        branch: BranchId,
        revision: Revision,
        time_ms: u64,
        db: DbIndex,
        effects: &Arc<Vec<u8>>,
    ) {
        self.log.append_shared(revision, RecordHeader { time_ms, db, branch }, effects);
    }

    fn wait_durable(&self, revision: Revision) {
        self.log.request_sync();
        // Writers hear of a fault, and so does whoever waits for the reply.
        let _ = self.log.wait_durable(revision);
    }

    fn is_committed(&self, revision: Revision) -> bool {
        self.log.fsync() != FsyncPolicy::Always || revision <= self.log.durable()
    }

    fn committed(&self) -> Revision {
        match self.log.fsync() {
            FsyncPolicy::Always => self.log.durable(),
            FsyncPolicy::EverySec | FsyncPolicy::No => self.log.newest(),
        }
    }

    fn commits(&self) -> watch::Receiver<Commit> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.commits.subscribe()
    }

    fn admit_write(&self) -> command::Result {
        match self.log.fault() {
            None => Ok(()),
            Some(fault @ LogFault::Poisoned(_)) => {
                Err(Error::new(format!("MISCONF Errors writing to the append-only log: {fault}")))
            }
            Some(fault @ LogFault::Full(_)) => {
                Err(Error::new(format!("MISCONF Writes are refused: {fault}")))
            }
        }
    }

    fn is_congested(&self) -> bool {
        self.log.is_congested()
    }

    fn followed_log(&self) -> Option<&Arc<Log>> {
        Some(&self.log)
    }

    fn durable(&self) -> Revision {
        self.log.durable()
    }

    fn request_sync(&self) {
        self.log.request_sync();
    }

    fn newest(&self) -> Revision {
        self.log.newest()
    }

    fn reconfigure(&self, settings: &Settings) {
        if self.log.fsync() != fsync_policy(settings) {
            self.log.set_fsync(fsync_policy(settings));
            self.publish();
        }
        self.log.set_compression(compression(settings));
    }

    fn resume(&self) -> Result<(), String> {
        let resumed = self.log.resume();
        self.publish();
        resumed
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        let stats = self.log.stats();
        let fault = self.log.fault();
        let per_fsync = stats.records as f64 / stats.fsyncs.max(1) as f64;
        vec![
            ("aof_enabled", "1".to_owned()),
            ("aof_last_write_status", if fault.is_none() { "ok" } else { "err" }.to_owned()),
            ("aof_pending_bytes", stats.pending_bytes.to_string()),
            ("log_newest_revision", self.log.newest().to_string()),
            ("log_durable_revision", self.log.durable().to_string()),
            ("log_segments", stats.segments.to_string()),
            ("log_records", stats.records.to_string()),
            ("log_bytes_written", stats.bytes.to_string()),
            ("log_writes", stats.writes.to_string()),
            ("log_fsyncs", stats.fsyncs.to_string()),
            ("log_records_per_fsync", format!("{per_fsync:.2}")),
            ("log_fsync_us_last", (stats.fsync_ns_last / 1000).to_string()),
            ("log_commit_waits", self.waits.load(Ordering::Relaxed).to_string()),
            ("log_recovered_records", self.recovered.records.to_string()),
            ("log_recovered_bytes", self.recovered.bytes.to_string()),
            ("log_recovery_seconds", format!("{:.3}", self.recovered.seconds)),
            ("log_recovery_dropped_bytes", self.recovered.dropped_bytes.to_string()),
            ("log_recovery_set_aside", self.recovered.set_aside.join(",")),
            (
                "log_fault",
                fault
                    .map_or_else(String::new, |fault| fault.to_string().replace(['\r', '\n'], " ")),
            ),
        ]
    }

    fn close(&self) -> Result<(), String> {
        self.log.close()
    }
}
