use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Clock, Revision, Rng};
use parking_lot::Mutex;

use crate::block::{Block, Files, Place};
use crate::error::{LogError, LogFault};
use crate::format::{
    BLOCK_BYTES_MAX, Compression, DatabaseId, Record, RecordHeader, SEGMENT_HEADER_BYTES, VERSION,
    segment_name,
};
use crate::identity::{Manifest, new_id};
use crate::parts::PART_BYTES_MAX;
use crate::queue::Handed;
use crate::reader::LogReader;
use crate::recovery::{self, RecoveryReport, Walk, Whole};
use crate::salvage::{self, Unneeded};
use crate::segments::{End, Hold, SegmentInfo, Segments};
use crate::shared::Shared;
use crate::tap::{Concern, Tap};
use crate::times::Times;
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
    /// What is written at once is cut into blocks of at most so many bytes of
    /// records, so that one record can be read without much around it; eight
    /// times as many where they are compressed. A larger record is a block of
    /// its own.
    pub block_bytes_max: usize,
    /// A record of more bytes is written in parts of so many, each with a
    /// checksum of its own.
    pub part_bytes_max: usize,
    /// Bytes that may wait for the disk before writers are held up.
    pub buffer_bytes_max: usize,
    /// The id of the database, if this log is its first: a log that is there has
    /// one. `None` makes one up.
    pub new_id: Option<DatabaseId>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            fsync: FsyncPolicy::EverySec,
            compression: Compression::None,
            segment_bytes_max: 64 << 20,
            block_bytes_max: BLOCK_BYTES_MAX,
            part_bytes_max: PART_BYTES_MAX,
            buffer_bytes_max: 64 << 20,
            new_id: None,
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
    /// Writes, each of one or more blocks.
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

/// An open log.
#[derive(Debug)]
pub struct Log {
    files: Files,
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    buffer_bytes_max: usize,
    removal: Mutex<()>,
    /// See [`Log::unbroken_from`].
    unbroken_from: Revision,
    _lock: Box<dyn VfsLock>,
}

impl Log {
    /// Opens a log, or creates one in an empty folder, and replays what follows
    /// `base`: `replay` gets every later transaction in order. A torn tail is
    /// cut off; see [`RecoveryReport::dropped`].
    ///
    /// Whoever passes a base has everything up to it elsewhere, durably. Of
    /// segments that hold nothing above it only the headers are read, and they
    /// need not be there. A log that ends before its base (its last second was
    /// lost with the power, but had been read before) goes on after the base in
    /// a new segment; see [`RecoveryReport::ended_early`]. The older segments
    /// stay until [`Log::remove_before`].
    ///
    /// # Errors
    /// When the folder is in use or not ours, when anything before the tail is
    /// damaged or missing, or when `replay` refuses a transaction.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        base: Revision,
        clock: Arc<dyn Clock>,
        rng: &mut dyn Rng,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(Log, RecoveryReport), LogError> {
        let (log, report) = Log::open_manual(vfs, dir, options, base, clock, rng, replay)?;
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
        base: Revision,
        clock: Arc<dyn Clock>,
        rng: &mut dyn Rng,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), String>,
    ) -> Result<(Log, RecoveryReport), LogError> {
        vfs.create_dir_all(dir).map_err(LogError::io("create the folder", dir))?;
        vfs.check_owner(dir).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied if vfs.exists(dir) => {
                LogError::NotOurs { path: dir.to_path_buf() }
            }
            _ => LogError::Io { action: "write in", path: dir.to_path_buf(), source: error },
        })?;
        let lock_path = at(dir, "LOCK");
        let lock = vfs.lock(&lock_path).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => LogError::Locked { path: dir.to_path_buf() },
            _ => LogError::Io { action: "lock", path: lock_path.clone(), source: error },
        })?;
        let started_ns = clock.monotonic_ns();
        let manifest = match Manifest::read(&*vfs, dir)? {
            Some(manifest) => manifest,
            None => {
                let id = options.new_id.unwrap_or_else(|| new_id(rng));
                create(&*vfs, dir, id, base.next(), &*clock)?
            }
        };
        let mut walk = Walk::default();
        recovery::walk(&*vfs, dir, &manifest, Some(base), &mut walk, replay)?;
        let saved = salvage::mend(&*vfs, dir, &manifest, &mut walk, clock.now_ms())?;
        let mut report = walk.report;
        for damage in &report.unneeded {
            let Unneeded { path, offset, first, last, what } = damage;
            tracing::warn!(
                "{} at byte {offset} is damaged: {what}; revisions {first} to {last} cannot be read from it any more, \
                 but the archive has them: the log goes on without them",
                path.display()
            );
        }
        saved.iter().for_each(|path| tracing::warn!("kept what is damaged as {}", path.display()));
        report.set_aside = saved;
        let mut last = *walk.segments.last().expect("the manifest's segment was read");
        if let Some(dropped) = &report.dropped {
            tracing::warn!(
                "{} bytes at byte {} of {} are no whole transaction ({}); cutting the log there, at revision {}",
                dropped.bytes,
                dropped.offset,
                dropped.path.display(),
                dropped.what,
                last.last()
            );
            if dropped.offset == 0 {
                vfs.remove(&dropped.path).map_err(LogError::io("remove", &dropped.path))?;
                vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
            }
        }
        if last.version < VERSION && last.end == last.first && report.ended_early.is_none() {
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
        if let Some(ended) = report.ended_early {
            tracing::warn!(
                "the log in {} ends with revision {ended}, the archive has reached {base}; going on from there",
                dir.display()
            );
            let first = base.next();
            file = create_segment(&*vfs, dir, &manifest, first, clock.now_ms(), true)?;
            let len = SEGMENT_HEADER_BYTES as u64;
            last = Whole { first, version: VERSION, end: first, len, begins_anew: true };
            walk.times = Times::default();
            walk.segments.push(last);
        }
        let manifest = if last.first > manifest.newest_segment {
            let newer = Manifest { newest_segment: last.first, ..manifest };
            newer.write(&*vfs, dir)?;
            newer
        } else {
            manifest
        };
        report.seconds = (clock.monotonic_ns() - started_ns) as f64 / 1e9;
        let anew = walk.segments.iter().filter(|whole| whole.begins_anew).map(|whole| whole.first);
        let unbroken_from = anew.max().unwrap_or(Revision(1));
        let segments = walk.segments.iter().map(|whole| (whole.first, whole.last(), whole.len));
        let segments = Segments::new(segments);
        let shared = Arc::new(Shared::new(&options, clock, report.last, walk.times, segments));
        let writer = Writer::new(vfs.clone(), dir, manifest, shared.clone(), file, last);
        let files = Files::new(vfs, dir.to_path_buf(), manifest.id);
        Log::remove_rewrites(&files)?;
        let log = Log {
            files,
            shared,
            writer: Arc::new(Mutex::new(writer)),
            thread: Mutex::new(None),
            buffer_bytes_max: options.buffer_bytes_max,
            removal: Mutex::new(()),
            unbroken_from,
            _lock: lock,
        };
        Ok((log, report))
    }

    fn start(&self) {
        let (shared, log_writer) = (self.shared.clone(), self.writer.clone());
        let run = move || {
            // Blocks of a busy log gather for a few milliseconds; a log that
            // promises durability writes at once.
            const GATHER: Duration = Duration::from_millis(10);
            const REST: Duration = Duration::from_millis(200);
            loop {
                let at_once =
                    shared.policy() == FsyncPolicy::Always || log_writer.lock().is_clean();
                let closing = shared.queue.wait(at_once, if at_once { REST } else { GATHER });
                let mut writer = log_writer.lock();
                if closing {
                    // The fault, if any, is kept where `close` finds it.
                    let _ = writer.finish();
                    return;
                }
                let (worked, is_due) = writer.write_waiting();
                if !is_due {
                    if !worked {
                        writer.mark_durable();
                    }
                    continue;
                }
                match writer.begin_sync() {
                    // Whoever hurries goes on writing meanwhile.
                    Some(sync) => {
                        drop(writer);
                        let synced = sync.run();
                        log_writer.lock().end_sync(synced);
                    }
                    None => writer.sync(),
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(run)
            .expect("the system can start a thread");
        *self.thread.lock() = Some(thread);
    }

    /// What other files of this crate build on.
    pub(crate) fn parts(&self) -> (&Files, &Shared) {
        (&self.files, &self.shared)
    }

    /// Names the database: chosen at random when its log was created.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.files.id
    }

    /// The folder it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.files.dir
    }

    /// The next revision. Each one answered must be appended.
    #[must_use]
    pub fn reserve(&self) -> Revision {
        self.shared.queue.reserve()
    }

    /// Hands over a transaction's record. Returns at once; see
    /// [`Log::durable`].
    pub fn append(&self, revision: Revision, header: RecordHeader, effects: &[u8]) {
        self.append_quietly(revision, header, effects);
        self.wake_writer();
    }

    /// As [`Log::append`] for those who hold locks or have a client to answer
    /// first: a writer that sleeps is only woken where records must be durable
    /// before anybody is answered. [`Log::wake_writer`] is to follow.
    pub fn append_quietly(&self, revision: Revision, header: RecordHeader, effects: &[u8]) {
        self.hand_over(revision, header, Handed::Lent(effects));
    }

    /// As [`Log::append_quietly`], without a copy of what is large.
    pub fn append_shared(&self, revision: Revision, header: RecordHeader, effects: &Arc<Vec<u8>>) {
        self.hand_over(revision, header, Handed::Shared(effects));
    }

    fn hand_over(&self, revision: Revision, header: RecordHeader, effects: Handed<'_>) {
        let concern = match self.shared.tap.get() {
            Some(tap) => tap.concerns(&header, effects.bytes()),
            None => Concern::UNASKED,
        };
        let clock = &*self.shared.clock;
        if self.shared.queue.append(revision, &header, effects, concern, clock) {
            match self.shared.policy() {
                FsyncPolicy::Always => self.shared.queue.wake_writer(),
                FsyncPolicy::EverySec | FsyncPolicy::No => {
                    self.shared.is_asleep.store(true, Ordering::Release);
                }
            }
        }
        if concern.is_wanted {
            // Afterwards: who sees it finds the record.
            self.shared.is_urgent.store(true, Ordering::Release);
        }
    }

    /// Wakes the writer if something [waits](Log::append_quietly) for that.
    #[inline]
    pub fn wake_writer(&self) {
        let is_asleep = &self.shared.is_asleep;
        if is_asleep.load(Ordering::Relaxed) && is_asleep.swap(false, Ordering::Acquire) {
            self.shared.queue.wake_writer();
        }
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
        self.shared.durable()
    }

    /// The last revision stamped at or before a time (milliseconds since 1970),
    /// if it is one of the last minute or so: that is kept in memory. Of
    /// revisions that are appended.
    #[must_use]
    pub fn at_time(&self, time_ms: u64) -> Option<Revision> {
        self.shared.queue.at_time(time_ms)
    }

    /// Asks for what is appended to be written now, so that readers see it: a
    /// busy log lets records gather for some milliseconds. It is not synced for
    /// that.
    pub fn request_write(&self) {
        self.write_now();
    }

    /// Waits until a revision is durable.
    ///
    /// # Errors
    /// When the log failed first: it may or may not be on the disk.
    pub fn wait_durable(&self, revision: Revision) -> Result<(), LogFault> {
        let is_over = || self.durable() >= revision || self.shared.fault().is_some();
        self.shared.wait_until(Duration::MAX, is_over);
        if self.durable() >= revision {
            return Ok(());
        }
        self.shared.fault().map_or(Ok(()), Err)
    }

    /// Calls `callback` whenever [`Log::durable`] or [`Log::fault`] changes, on
    /// the writer's thread: it must be quick and must not call the log's
    /// writing methods.
    pub fn on_progress(&self, callback: impl Fn() + Send + Sync + 'static) {
        self.shared.on_progress(Box::new(callback));
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
        self.shared.set_policy(policy);
        self.shared.queue.request_sync();
    }

    /// The policy in force.
    #[must_use]
    pub fn fsync(&self) -> FsyncPolicy {
        self.shared.policy()
    }

    /// Changes how blocks are compressed, from the next one on.
    pub fn set_compression(&self, compression: Compression) {
        self.shared.set_compression(compression);
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
            segments: self.shared.segments.len(),
        }
    }

    /// Bytes written since it was opened.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.shared.counters.bytes.load(Ordering::Relaxed)
    }

    /// Lets somebody hear of all records that are not written yet, and of later
    /// ones. There can be one.
    ///
    /// # Panics
    /// When there is one already.
    pub fn attach(&self, tap: Arc<dyn Tap>) {
        self.writer.lock().attach(tap);
    }

    /// Writes what waits, if somebody waits for it ([`Tap::concerns`]): on this
    /// thread if that takes one short write, else on the writer's, soon. To be
    /// called when nothing is locked that others wait for.
    #[inline]
    pub fn hurry(&self) {
        let is_urgent = &self.shared.is_urgent;
        if is_urgent.load(Ordering::Relaxed) && is_urgent.swap(false, Ordering::Acquire) {
            self.write_now();
        }
    }

    #[cold]
    fn write_now(&self) {
        if self.shared.policy() == FsyncPolicy::Always {
            // The writer is at it.
            return;
        }
        let is_written = self.writer.try_lock().is_some_and(|mut writer| writer.turn_now());
        if !is_written {
            self.shared.queue.hurry();
        }
    }

    /// A reader that follows the log from `from` on: where the archive,
    /// replicas and feeds attach. It sees what is committed under the policy.
    #[must_use]
    pub fn reader(&self, from: Revision) -> LogReader {
        let reader = LogReader::new(self.files.clone(), self.shared.clone(), from);
        match self.shared.segments.end_before(from) {
            // What is before the end need not be read to find it.
            Some(position) => reader.standing_at(position),
            None => reader,
        }
    }

    /// A reader that follows the log from `from` on, of which `place` is known
    /// to be at or before it in the log: what is before that block is not read
    /// again to find it, unless the segment was rewritten since.
    #[must_use]
    pub fn reader_at(&self, place: Place, from: Revision) -> LogReader {
        let position = (place.segment, place.offset);
        LogReader::new(self.files.clone(), self.shared.clone(), from).standing_at(position)
    }

    /// Keeps everything that is in the log now from [`Log::remove_before`];
    /// [`Hold::set`] says from where on it is needed.
    #[must_use]
    pub fn hold(&self, name: &str) -> Hold {
        Hold::new(self.shared.clone(), name)
    }

    /// Who holds the log, and the revision above which they need its records.
    #[must_use]
    pub fn holders(&self) -> Vec<(String, Revision)> {
        self.shared.segments.holders()
    }

    /// The revision from which on the log has, or had, every record. Before it
    /// there may be segments of an earlier time, with records missing behind
    /// them that an archive had.
    #[must_use]
    pub fn unbroken_from(&self) -> Revision {
        self.unbroken_from
    }

    /// The segments, oldest first; the last one is being written.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments.list()
    }

    /// Removes the sealed segments that hold nothing above `revision`, up to
    /// the first that somebody holds, and answers which. Whoever calls it has
    /// everything up to `revision` elsewhere, durably.
    ///
    /// The oldest goes first, and its removal is durable before the next one
    /// goes: whenever the power fails, what is left has no gap that was not
    /// there before.
    ///
    /// # Errors
    /// When a file cannot be removed, which then still counts as there, or when
    /// the folder cannot be synced. What was removed before stays so.
    pub fn remove_before(&self, revision: Revision) -> Result<Vec<SegmentInfo>, LogError> {
        let Files { vfs, dir, .. } = &self.files;
        // Two removals at once could mix up the order.
        let _one = self.removal.lock();
        let mut removed = Vec::new();
        while let Some(segment) = self.shared.segments.forget_oldest(revision) {
            let path = self.files.path(segment.first);
            if let Err(error) = vfs.remove(&path)
                && error.kind() != ErrorKind::NotFound
            {
                self.shared.segments.remember(&segment);
                return Err(LogError::io("remove", path)(error));
            }
            self.files.forget(segment.first);
            vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
            removed.push(segment);
        }
        Ok(removed)
    }

    /// Ends the segment being written, after what has been appended in order;
    /// the next record goes into a new one. A segment without records stays.
    ///
    /// # Errors
    /// When the disk is full or the log has failed.
    pub fn roll(&self) -> Result<(), LogFault> {
        self.writer.lock().roll()
    }

    /// Reads one block of a segment, which a [`crate::Place`] names, and checks
    /// it. It must be committed.
    ///
    /// # Errors
    /// When the segment cannot be read, is damaged there or has been removed.
    pub fn read_records(&self, segment: Revision, offset: u64) -> Result<Block, LogError> {
        self.files.block(segment, offset).map_err(|error| self.unless_gone(segment, error))
    }

    /// As [`Log::read_records`], for whoever wants one record and nothing else of
    /// its block: that is read into `buffer`. Answers whether it has the record.
    ///
    /// # Errors
    /// As [`Log::read_records`].
    pub fn read_record(
        &self,
        place: Place,
        buffer: &mut Vec<u8>,
        read: &mut dyn FnMut(&Record<'_>),
    ) -> Result<bool, LogError> {
        self.files
            .record(place, buffer, read)
            .map_err(|error| self.unless_gone(place.segment, error))
    }

    /// Why a segment cannot be read, if it is there.
    fn unless_gone(&self, segment: Revision, error: LogError) -> LogError {
        if self.shared.segments.end(segment) != End::Gone {
            return error;
        }
        let found = self.shared.segments.oldest().unwrap_or_default();
        LogError::NotHeld { dir: self.files.dir.clone(), revision: segment, found }
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
    id: DatabaseId,
    first: Revision,
    clock: &dyn Clock,
) -> Result<Manifest, LogError> {
    // Without a manifest, only a first segment that holds nothing can be ours:
    // the server ended while it created the log.
    for found in recovery::segment_names(vfs, dir)? {
        let path = at(dir, &segment_name(found));
        let len = vfs.len(&path).map_err(LogError::io("read", &path))?;
        if found > first || len > SEGMENT_HEADER_BYTES as u64 {
            return Err(LogError::NoManifest { dir: dir.to_path_buf() });
        }
        vfs.remove(&path).map_err(LogError::io("remove", &path))?;
    }
    let manifest = Manifest { id, newest_segment: first };
    create_segment(vfs, dir, &manifest, first, clock.now_ms(), first > Revision(1))?;
    manifest.write(vfs, dir)?;
    Ok(manifest)
}
