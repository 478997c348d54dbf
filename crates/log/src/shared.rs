//! What the writer, the threads that append and the readers of a log share.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::{Clock, Revision};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::LogFault;
use crate::format::{Compression, SEGMENT_HEADER_BYTES};
use crate::log::{FsyncPolicy, LogOptions};
use crate::parts::part_max;
use crate::queue::Queue;
use crate::segments::Segments;
use crate::tap::Tap;
use crate::times::Times;

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) fsyncs: AtomicU64,
    pub(crate) fsync_ns_last: AtomicU64,
}

/// A report of progress or of a fault.
type Callback = Box<dyn Fn() + Send + Sync>;

/// What the writer, the threads that append and the readers share.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Counters,
    pub(crate) segment_bytes_max: u64,
    pub(crate) block_bytes_max: usize,
    /// Bytes of content that one part of a transaction takes.
    pub(crate) part_bytes_max: usize,
    policy: AtomicU8,
    compression: AtomicU8,
    /// Who hears of records without reading them.
    pub(crate) tap: OnceLock<Arc<dyn Tap>>,
    /// Something was appended that somebody waits for.
    pub(crate) is_urgent: AtomicBool,
    /// The writer slept when something was appended, and nobody has woken it yet.
    pub(crate) is_asleep: AtomicBool,
    /// More is written than those who wait were woken for.
    is_unannounced: AtomicBool,
    /// Held while a file is being synced: a failure is noted before the next
    /// one begins.
    pub(crate) sync_turn: Mutex<()>,
    written: AtomicU64,
    durable: AtomicU64,
    fault: RwLock<Option<LogFault>>,
    has_fault: AtomicU8,
    callbacks: RwLock<Vec<Callback>>,
    progress: Mutex<()>,
    progressed: Condvar,
    pub(crate) segments: Segments,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("written", &self.written)
            .field("durable", &self.durable)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The state of a log that ends with `newest`, all of it durable.
    pub(crate) fn new(
        options: &LogOptions,
        clock: Arc<dyn Clock>,
        newest: Revision,
        times: Times,
        segments: Segments,
    ) -> Shared {
        let part_bytes_max = part_max(options.part_bytes_max);
        Shared {
            queue: Queue::new(newest.next(), times, part_bytes_max),
            clock,
            counters: Counters::default(),
            segment_bytes_max: options.segment_bytes_max.max(SEGMENT_HEADER_BYTES as u64 + 1),
            block_bytes_max: options.block_bytes_max,
            part_bytes_max,
            segments,
            policy: AtomicU8::new(options.fsync as u8),
            compression: AtomicU8::new(options.compression as u8),
            tap: OnceLock::new(),
            is_urgent: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            is_unannounced: AtomicBool::new(false),
            sync_turn: Mutex::new(()),
            written: AtomicU64::new(newest.0),
            durable: AtomicU64::new(newest.0),
            fault: RwLock::new(None),
            has_fault: AtomicU8::new(0),
            callbacks: RwLock::new(Vec::new()),
            progress: Mutex::new(()),
            progressed: Condvar::new(),
        }
    }

    pub(crate) fn set_policy(&self, policy: FsyncPolicy) {
        self.policy.store(policy as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_compression(&self, compression: Compression) {
        self.compression.store(compression as u8, Ordering::Relaxed);
    }

    pub(crate) fn on_progress(&self, callback: Callback) {
        self.callbacks.write().push(callback);
    }

    /// The newest revision that a sync covers.
    pub(crate) fn durable(&self) -> Revision {
        Revision(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn policy(&self) -> FsyncPolicy {
        match self.policy.load(Ordering::Relaxed) {
            0 => FsyncPolicy::Always,
            1 => FsyncPolicy::EverySec,
            _ => FsyncPolicy::No,
        }
    }

    pub(crate) fn compression(&self) -> Compression {
        match self.compression.load(Ordering::Relaxed) {
            0 => Compression::None,
            1 => Compression::Lz4,
            2 => Compression::Zstd,
            _ => Compression::Gzip,
        }
    }

    pub(crate) fn fault(&self) -> Option<LogFault> {
        if self.has_fault.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.fault.read().clone()
    }

    /// Notes a fault; the first poisoning stays.
    pub(crate) fn fail(&self, fault: LogFault) {
        tracing::error!("{fault}");
        let mut current = self.fault.write();
        if !matches!(*current, Some(LogFault::Poisoned(_))) {
            *current = Some(fault);
        }
        self.has_fault.store(1, Ordering::Release);
        drop(current);
        self.report();
    }

    pub(crate) fn clear_full(&self) {
        let mut current = self.fault.write();
        if matches!(*current, Some(LogFault::Full(_))) {
            *current = None;
            self.has_fault.store(0, Ordering::Release);
        }
    }

    pub(crate) fn publish_written(&self, revision: Revision) {
        self.written.store(revision.0, Ordering::Release);
        if self.policy() != FsyncPolicy::Always {
            self.wake_all();
        }
    }

    /// As [`Shared::publish_written`]; readers who wait are woken later, by
    /// [`Shared::announce`].
    pub(crate) fn publish_written_quietly(&self, revision: Revision) {
        self.written.store(revision.0, Ordering::Release);
        self.is_unannounced.store(true, Ordering::Release);
    }

    pub(crate) fn announce(&self) {
        if self.is_unannounced.swap(false, Ordering::AcqRel) {
            self.wake_all();
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        matches!(self.fault(), Some(LogFault::Poisoned(_)))
    }

    pub(crate) fn publish_durable(&self, revision: Revision) {
        self.durable.store(revision.0, Ordering::Release);
        self.report();
    }

    /// The newest revision that readers of the log may see: durable under
    /// `always`, else written.
    pub(crate) fn readable(&self) -> Revision {
        let source =
            if self.policy() == FsyncPolicy::Always { &self.durable } else { &self.written };
        Revision(source.load(Ordering::Acquire))
    }

    /// Waits until `is_over`, or so long.
    pub(crate) fn wait_until(&self, at_most: Duration, is_over: impl Fn() -> bool) {
        // Whoever changes what is waited for takes this mutex afterwards, so no
        // change falls between the question and the sleep.
        let mut guard = self.progress.lock();
        self.progressed.wait_while_for(&mut guard, |()| !is_over(), at_most);
    }

    /// Lets everybody who waits look again.
    pub(crate) fn wake_all(&self) {
        drop(self.progress.lock());
        self.progressed.notify_all();
    }

    fn report(&self) {
        self.wake_all();
        self.callbacks.read().iter().for_each(|callback| callback());
    }
}
