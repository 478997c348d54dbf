use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Clock, Revision, Rng};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::{LogError, LogFault};
use crate::format::{
    Compression, DatabaseId, Record, RecordHeader, SEGMENT_HEADER_BYTES, VERSION, segment_name,
};
use crate::identity::Manifest;
use crate::queue::Queue;
use crate::reader::LogReader;
use crate::recovery::{self, RecoveryReport, Walk};
use crate::vfs::{Vfs, VfsLock, at};
use crate::writer::{Writer, create_segment, renew_segment};

/// When written blocks are synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FsyncPolicy {
    /// As soon as they are written; a transaction is committed then.
    Always,
    /// Once a second.
    #[default]
    EverySec,
    /// When a segment ends and when the log closes.
    No,
}

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// When to sync.
    pub fsync: FsyncPolicy,
    /// How blocks are compressed.
    pub compression: Compression,
    /// A segment that would grow beyond this is followed by a new one. One
    /// block may be larger.
    pub segment_bytes_max: u64,
    /// Bytes that may wait for the disk before writers are held up.
    pub buffer_bytes_max: usize,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            fsync: FsyncPolicy::EverySec,
            compression: Compression::None,
            segment_bytes_max: 64 << 20,
            buffer_bytes_max: 64 << 20,
        }
    }
}

/// Counters of a log since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Transactions written.
    pub records: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Blocks written.
    pub writes: u64,
    /// Syncs.
    pub fsyncs: u64,
    /// Nanoseconds the last sync took.
    pub fsync_ns_last: u64,
    /// Bytes that wait for the disk.
    pub pending_bytes: usize,
    /// Segment files.
    pub segments: usize,
}

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
    policy: AtomicU8,
    compression: AtomicU8,
    written: AtomicU64,
    durable: AtomicU64,
    fault: RwLock<Option<LogFault>>,
    has_fault: AtomicU8,
    callbacks: RwLock<Vec<Callback>>,
    progress: Mutex<()>,
    progressed: Condvar,
    segments: Mutex<BTreeSet<Revision>>,
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
            self.wake_readers();
        }
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

    pub(crate) fn add_segment(&self, first: Revision) {
        self.segments.lock().insert(first);
    }

    /// The segment that holds a revision, and the one after it.
    pub(crate) fn segment_of(&self, revision: Revision) -> (Option<Revision>, Option<Revision>) {
        let segments = self.segments.lock();
        let here = segments.range(..=revision).next_back().copied();
        let next = segments.range(revision.next()..).next().copied();
        (here, next)
    }

    pub(crate) fn wait_for_progress(&self, at_most: Duration) {
        let mut guard = self.progress.lock();
        self.progressed.wait_for(&mut guard, at_most);
    }

    fn wake_readers(&self) {
        drop(self.progress.lock());
        self.progressed.notify_all();
    }

    fn report(&self) {
        self.wake_readers();
        self.callbacks.read().iter().for_each(|callback| callback());
    }
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    id: DatabaseId,
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    buffer_bytes_max: usize,
    _lock: Box<dyn VfsLock>,
}

impl Log {
    /// Opens a log, or creates one in an empty folder, and replays it: `replay`
    /// gets every transaction in order. A torn tail is cut off; see
    /// [`RecoveryReport::dropped`].
    ///
    /// # Errors
    /// When the folder is in use or not ours, when anything before the tail is
    /// damaged or missing, or when `replay` refuses a transaction.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        clock: Arc<dyn Clock>,
        rng: &mut dyn Rng,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let (log, report) = Log::open_manual(vfs, dir, options, clock, rng, replay)?;
        log.start();
        Ok((log, report))
    }

    /// As [`Log::open`], without a writer thread: nothing reaches the disk but
    /// by [`Log::pump`]. For tests that own every step.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_manual(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        clock: Arc<dyn Clock>,
        rng: &mut dyn Rng,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(Log, RecoveryReport), LogError> {
        vfs.create_dir_all(dir).map_err(LogError::io("create the folder", dir))?;
        vfs.check_owner(dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied if vfs.exists(dir) => {
                LogError::NotOurs { path: dir.to_path_buf() }
            }
            _ => LogError::Io { action: "write in", path: dir.to_path_buf(), source: error },
        })?;
        let lock_path = at(dir, "LOCK");
        let lock = vfs.lock(&lock_path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => LogError::Locked { path: dir.to_path_buf() },
            _ => LogError::Io { action: "lock", path: lock_path.clone(), source: error },
        })?;
        let started_ns = clock.monotonic_ns();
        let manifest = match Manifest::read(&*vfs, dir)? {
            Some(manifest) => manifest,
            None => create(&*vfs, dir, &*clock, rng)?,
        };
        let mut walk = Walk::default();
        recovery::walk(&*vfs, dir, &manifest, &mut walk, replay)?;
        let mut report = walk.report;
        let mut last = *walk.segments.last().expect("the manifest's segment was read");
        if let Some(dropped) = &report.dropped {
            tracing::warn!(
                "{} bytes at byte {} of {} are no whole transaction ({}); cutting the log there, at revision {}",
                dropped.bytes,
                dropped.offset,
                dropped.path.display(),
                dropped.what,
                report.last
            );
            if dropped.offset == 0 {
                vfs.remove(&dropped.path).map_err(LogError::io("remove", &dropped.path))?;
                vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
            }
        }
        if last.version < VERSION && last.end == last.first {
            // The next record belongs into a segment of today's version, which
            // would have this one's name.
            renew_segment(&*vfs, dir, &manifest, last.first, clock.now_ms())?;
            (last.version, last.len) = (VERSION, SEGMENT_HEADER_BYTES as u64);
        }
        let path = at(dir, &segment_name(last.first));
        let mut file = vfs.open_append(&path).map_err(LogError::io("open", &path))?;
        file.truncate(last.len).map_err(LogError::io("cut", &path))?;
        // What was read may never have been synced; from here on it counts as
        // durable, so it must be.
        file.sync().map_err(LogError::io("sync", &path))?;
        vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
        let manifest = if last.first > manifest.newest_segment {
            let newer = Manifest { newest_segment: last.first, ..manifest };
            newer.write(&*vfs, dir)?;
            newer
        } else {
            manifest
        };
        report.seconds = (clock.monotonic_ns() - started_ns) as f64 / 1e9;
        let shared = Arc::new(Shared {
            queue: Queue::new(report.last.next()),
            clock,
            counters: Counters::default(),
            segment_bytes_max: options.segment_bytes_max.max(SEGMENT_HEADER_BYTES as u64 + 1),
            policy: AtomicU8::new(options.fsync as u8),
            compression: AtomicU8::new(crate::writer::compression_code(options.compression)),
            written: AtomicU64::new(report.last.0),
            durable: AtomicU64::new(report.last.0),
            fault: RwLock::new(None),
            has_fault: AtomicU8::new(0),
            callbacks: RwLock::new(Vec::new()),
            progress: Mutex::new(()),
            progressed: Condvar::new(),
            segments: Mutex::new(walk.segments.iter().map(|segment| segment.first).collect()),
        });
        let writer = Writer::new(vfs.clone(), dir, manifest, shared.clone(), file, last);
        let log = Log {
            vfs,
            dir: dir.to_path_buf(),
            id: manifest.id,
            shared,
            writer: Arc::new(Mutex::new(writer)),
            thread: Mutex::new(None),
            buffer_bytes_max: options.buffer_bytes_max,
            _lock: lock,
        };
        Ok((log, report))
    }

    fn start(&self) {
        let (shared, writer) = (self.shared.clone(), self.writer.clone());
        let run = move || {
            // Blocks of a busy log gather for a few milliseconds; a log that
            // promises durability writes at once.
            const GATHER: Duration = Duration::from_millis(10);
            const REST: Duration = Duration::from_millis(200);
            loop {
                let always = shared.policy() == FsyncPolicy::Always;
                let is_clean = writer.lock().is_clean();
                let closing = shared
                    .queue
                    .wait(always || is_clean, if always || is_clean { REST } else { GATHER });
                let mut writer = writer.lock();
                if closing {
                    // The fault, if any, is kept where `close` finds it.
                    let _ = writer.finish();
                    return;
                }
                if !writer.turn() {
                    writer.mark_durable();
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(run)
            .expect("the system can start a thread");
        *self.thread.lock() = Some(thread);
    }

    /// Names the database: chosen at random when its log was created.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The next revision. Each one answered must be appended.
    #[must_use]
    pub fn reserve(&self) -> Revision {
        self.shared.queue.reserve()
    }

    /// Hands over a transaction's record. Returns at once; see
    /// [`Log::durable`].
    pub fn append(&self, revision: Revision, header: RecordHeader, effects: &[u8]) {
        self.shared.queue.append(revision, &header, effects, &*self.shared.clock);
    }

    /// The newest revision reserved.
    #[must_use]
    pub fn newest(&self) -> Revision {
        self.shared.queue.newest()
    }

    /// The newest revision that has everything before it appended.
    #[must_use]
    pub fn buffered(&self) -> Revision {
        self.shared.queue.buffered()
    }

    /// The newest revision that a sync covers.
    #[must_use]
    pub fn durable(&self) -> Revision {
        Revision(self.shared.durable.load(Ordering::Acquire))
    }

    /// Waits until a revision is durable.
    ///
    /// # Errors
    /// When the log failed first: it may or may not be on the disk.
    pub fn wait_durable(&self, revision: Revision) -> Result<(), LogFault> {
        while self.durable() < revision {
            if let Some(fault) = self.shared.fault() {
                return Err(fault);
            }
            self.shared.wait_for_progress(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Calls `callback` whenever [`Log::durable`] or [`Log::fault`] changes, on
    /// the writer's thread: it must be quick and must not call the log's
    /// writing methods.
    pub fn on_progress(&self, callback: impl Fn() + Send + Sync + 'static) {
        self.shared.callbacks.write().push(Box::new(callback));
    }

    /// Asks for a sync of all that is appended, as soon as possible.
    pub fn request_sync(&self) {
        self.shared.queue.request_sync();
    }

    /// Why nothing more becomes durable, if so.
    #[must_use]
    pub fn fault(&self) -> Option<LogFault> {
        self.shared.fault()
    }

    /// Whether more waits for the disk than the bound, so writers should wait.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.shared.queue.bytes() > self.buffer_bytes_max
    }

    /// Goes on after the disk was full.
    ///
    /// # Errors
    /// When it still is, or the log has failed for good.
    pub fn resume(&self) -> Result<(), String> {
        self.writer.lock().resume()
    }

    /// Changes when blocks are synced, from the next one on.
    pub fn set_fsync(&self, policy: FsyncPolicy) {
        self.shared.policy.store(policy as u8, Ordering::Relaxed);
        self.shared.queue.request_sync();
    }

    /// The policy in force.
    #[must_use]
    pub fn fsync(&self) -> FsyncPolicy {
        self.shared.policy()
    }

    /// Changes how blocks are compressed, from the next one on.
    pub fn set_compression(&self, compression: Compression) {
        let code = crate::writer::compression_code(compression);
        self.shared.compression.store(code, Ordering::Relaxed);
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let counters = &self.shared.counters;
        LogStats {
            records: counters.records.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            writes: counters.writes.load(Ordering::Relaxed),
            fsyncs: counters.fsyncs.load(Ordering::Relaxed),
            fsync_ns_last: counters.fsync_ns_last.load(Ordering::Relaxed),
            pending_bytes: self.shared.queue.bytes(),
            segments: self.shared.segments.lock().len(),
        }
    }

    /// A reader that follows the log from `from` on: where the archive,
    /// replicas and feeds attach. It sees what is committed under the policy.
    #[must_use]
    pub fn reader(&self, from: Revision) -> LogReader {
        LogReader::new(self.vfs.clone(), &self.dir, self.id, self.shared.clone(), from)
    }

    /// One turn of the writer, on the caller's thread. Answers whether it did
    /// anything.
    pub fn pump(&self) -> bool {
        self.writer.lock().turn()
    }

    /// Writes and syncs everything and ends the writer.
    ///
    /// # Errors
    /// When something could not be made durable.
    pub fn close(&self) -> Result<(), String> {
        match self.thread.lock().take() {
            Some(thread) => {
                self.shared.queue.close();
                thread.join().map_err(|_| "the log's writer panicked".to_owned())?;
                self.shared.fault().map_or(Ok(()), |fault| Err(fault.to_string()))
            }
            None => self.writer.lock().finish(),
        }
    }
}

impl Drop for Log {
    /// Ends the writer thread, if [`Log::close`] did not.
    fn drop(&mut self) {
        if self.thread.lock().is_some()
            && let Err(error) = self.close()
        {
            tracing::error!("the log was not closed cleanly: {error}");
        }
    }
}

/// Makes an empty log in a folder that holds none.
fn create(
    vfs: &dyn Vfs,
    dir: &Path,
    clock: &dyn Clock,
    rng: &mut dyn Rng,
) -> Result<Manifest, LogError> {
    // Without a manifest, only a first segment that holds nothing can be ours:
    // the server ended while it created the log.
    for first in recovery::segment_names(vfs, dir)? {
        let path = at(dir, &segment_name(first));
        let len = vfs.len(&path).map_err(LogError::io("read", &path))?;
        if first != Revision(1) || len > SEGMENT_HEADER_BYTES as u64 {
            return Err(LogError::NoManifest { dir: dir.to_path_buf() });
        }
        vfs.remove(&path).map_err(LogError::io("remove", &path))?;
    }
    let mut id = [0; 16];
    id[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    id[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
    let manifest = Manifest { id, newest_segment: Revision(1) };
    create_segment(vfs, dir, &manifest, Revision(1), clock.now_ms())?;
    manifest.write(vfs, dir)?;
    Ok(manifest)
}
