//! The one writer of a log: takes batches from the queue, writes them as
//! blocks, syncs by the policy, starts new segments.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::Revision;

use crate::error::{LogError, LogFault, is_no_room};
use crate::format::{
    BLOCK_HEADER_BYTES, BlockPlace, Compression, Label, PACKED_BLOCKS, Part, SEGMENT_HEADER_BYTES,
    VERSION, put_block, put_record, segment_header, segment_name,
};
use crate::identity::Manifest;
use crate::log::FsyncPolicy;
use crate::parts::{self, Large};
use crate::queue::Batch;
use crate::recovery::Whole;
use crate::shared::Shared;
use crate::tap::{Concern, Content, News, Tap, Untold, WrittenBlock};
use crate::vfs::{Vfs, VfsFile, at};

/// One second: what `everysec` may lose.
const SECOND_NS: u64 = 1_000_000_000;

/// How long what is written may wait for a sync before nothing more is hurried:
/// a disk that does not keep up then holds writers up as they fill the queue.
const LATE_NS: u64 = 2 * SECOND_NS;

#[derive(Debug)]
pub(crate) struct Writer {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    manifest: Manifest,
    shared: Arc<Shared>,
    file: Box<dyn VfsFile>,
    segment: Revision,
    /// An older Alcid began the segment and could not read what this one
    /// writes.
    is_old: bool,
    /// Where the next block goes.
    offset: u64,
    /// The newest revision in the file.
    written: Revision,
    synced: Revision,
    /// Monotonic time of the last sync.
    synced_ns: u64,
    /// Monotonic time from which on something is written that no sync covers.
    unsynced_ns: u64,
    /// The block that proves `synced`, see `BlockHeader::durable`, is written.
    marked: Revision,
    batch: Batch,
    /// Batches that did not fit on the disk, oldest first.
    held: VecDeque<Batch>,
    out: Vec<u8>,
    /// The blocks that `out` was, where there is a tap.
    blocks: Vec<WrittenBlock>,
    /// What the tap is to be told as soon as readers may see it.
    untold: VecDeque<Untold>,
    /// Who waits for what is written is woken later.
    is_quiet: bool,
}

/// A sync of what is written so far, for a thread that has not locked the
/// writer.
#[derive(Debug)]
pub(crate) struct SyncJob {
    file: Box<dyn VfsFile>,
    path: PathBuf,
    upto: Revision,
    began_ns: u64,
    shared: Arc<Shared>,
}

/// A [`SyncJob`] that was done.
#[derive(Debug)]
pub(crate) struct Synced {
    upto: Revision,
    began_ns: u64,
}

impl SyncJob {
    /// Does it; nothing when it fails, which is noted.
    pub(crate) fn run(mut self) -> Option<Synced> {
        let _turn = self.shared.sync_turn.lock();
        if self.shared.is_poisoned() {
            return None;
        }
        match self.file.sync() {
            Ok(()) => Some(Synced { upto: self.upto, began_ns: self.began_ns }),
            Err(error) => {
                let what = format!("sync {}: {error}", self.path.display());
                self.shared.fail(LogFault::Poisoned(what));
                None
            }
        }
    }
}

impl Writer {
    /// A writer that goes on at the end of a segment.
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        manifest: Manifest,
        shared: Arc<Shared>,
        file: Box<dyn VfsFile>,
        last: Whole,
    ) -> Writer {
        let synced_ns = shared.clock.monotonic_ns();
        let written = Revision(last.end.0 - 1);
        Writer {
            vfs,
            dir: dir.to_path_buf(),
            manifest,
            shared,
            file,
            segment: last.first,
            is_old: last.version < VERSION,
            offset: last.len,
            written,
            synced: written,
            synced_ns,
            unsynced_ns: synced_ns,
            marked: Revision::ZERO,
            batch: Batch::default(),
            held: VecDeque::new(),
            out: Vec::new(),
            blocks: Vec::new(),
            untold: VecDeque::new(),
            is_quiet: false,
        }
    }

    /// One turn: writes what waits and syncs if it is time. Answers whether
    /// anything was done.
    pub(crate) fn turn(&mut self) -> bool {
        let (worked, is_due) = self.write_waiting();
        if is_due {
            self.sync();
        }
        worked || is_due
    }

    /// Writes what waits. Answers whether there was anything, and whether it
    /// is time to sync.
    pub(crate) fn write_waiting(&mut self) -> (bool, bool) {
        self.shared.is_urgent.store(false, Ordering::Relaxed);
        // Even if nothing is written any more: what was asked for would keep
        // the writer from waiting.
        let sync_requested = self.take();
        if self.shared.is_poisoned() {
            return (false, false);
        }
        self.shared.announce();
        if matches!(self.shared.fault(), Some(LogFault::Full(_))) {
            return (false, false);
        }
        let mut worked = false;
        while let Some(batch) = self.held.pop_front() {
            worked = true;
            if let Err(batch) = self.write(batch) {
                self.held.push_front(batch);
                return (true, false);
            }
        }
        self.tell_seen();
        let policy = self.shared.policy();
        let is_due = match policy {
            FsyncPolicy::Always => true,
            FsyncPolicy::EverySec => {
                self.shared.clock.monotonic_ns().saturating_sub(self.synced_ns) >= SECOND_NS
            }
            FsyncPolicy::No => false,
        };
        (worked, self.written > self.synced && (is_due || sync_requested))
    }

    /// Writes what waits if that is one short block of this segment and
    /// everybody may see it then; answers whether it did, or nothing waits.
    pub(crate) fn turn_now(&mut self) -> bool {
        let is_possible = self.held.is_empty()
            && !self.is_old
            && self.shared.fault().is_none()
            && match self.shared.policy() {
                FsyncPolicy::Always => false,
                FsyncPolicy::EverySec => !self.is_late(),
                FsyncPolicy::No => true,
            };
        let room = self.shared.segment_bytes_max.saturating_sub(self.offset);
        let bytes_max = usize::try_from(room).unwrap_or(usize::MAX).min(self.block_max());
        let mut batch = std::mem::take(&mut self.batch);
        if !is_possible || !self.shared.queue.take_small(&mut batch, bytes_max) {
            self.batch = batch;
            return false;
        }
        if batch.count == 0 {
            self.batch = batch;
            return true;
        }
        self.is_quiet = true;
        let written = self.write(batch);
        self.is_quiet = false;
        if let Err(batch) = written {
            self.held.push_front(batch);
        }
        true
    }

    /// Whether a sync takes too long.
    fn is_late(&self) -> bool {
        let now_ns = self.shared.clock.monotonic_ns();
        self.written > self.synced && now_ns.saturating_sub(self.unsynced_ns) >= LATE_NS
    }

    /// From now on the tap is told.
    pub(crate) fn attach(&mut self, tap: Arc<dyn Tap>) {
        tap.begin(self.written.next());
        assert!(self.shared.tap.set(tap).is_ok(), "a log has one tap");
    }

    /// Tells the tap of what was just written, in `blocks`, or keeps it until
    /// readers may see it.
    fn tell(&mut self, first: Revision, content: Content<'_>, concern: Concern) {
        let Some(tap) = self.shared.tap.get() else { return };
        let (segment, blocks) = (self.segment, &self.blocks);
        let news = News { first, content, concern, segment, blocks };
        if self.untold.is_empty() && self.shared.policy() != FsyncPolicy::Always {
            news.tell(&**tap);
        } else {
            self.untold.push_back(Untold::of(&news));
        }
    }

    /// Tells the tap of what readers may see by now.
    fn tell_seen(&mut self) {
        while let Some(next) = self.untold.front()
            && let Some(tap) = self.shared.tap.get()
        {
            if next.last() > self.shared.readable() {
                return;
            }
            next.news().tell(&**tap);
            self.untold.pop_front();
        }
    }

    /// Whether the writer has nothing left that a sync would make durable.
    pub(crate) fn is_clean(&self) -> bool {
        self.written == self.synced && self.held.is_empty()
    }

    /// Writes and syncs all that waits, and the mark that proves it.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        self.shared.queue.request_sync();
        self.turn();
        self.mark_durable();
        match self.shared.fault() {
            Some(fault) => Err(fault.to_string()),
            None => Ok(()),
        }
    }

    /// Writes an empty block that proves how far the log was durable, so that
    /// later damage to the last records cannot pass for a torn tail. Done when
    /// the log rests; it needs no sync of its own.
    pub(crate) fn mark_durable(&mut self) {
        if self.shared.fault().is_some() || !self.is_clean() || self.marked == self.synced {
            return;
        }
        let mark = Batch { first: self.written.next(), ..Batch::default() };
        self.marked = self.synced;
        self.shared.queue.free_spare();
        let _ = self.append_blocks(&mark, 0);
    }

    /// Tries again after the disk was full.
    pub(crate) fn resume(&mut self) -> Result<(), String> {
        if let Some(fault @ LogFault::Poisoned(_)) = self.shared.fault() {
            return Err(fault.to_string());
        }
        self.shared.clear_full();
        self.turn();
        match self.shared.fault() {
            Some(fault) => Err(fault.to_string()),
            None => Ok(()),
        }
    }

    /// Writes what waits and ends the segment, unless it holds no record.
    pub(crate) fn roll(&mut self) -> Result<(), LogFault> {
        self.turn();
        let next = self.written.next();
        if self.shared.fault().is_none() && self.segment != next {
            let _ = self.rotate(next);
        }
        self.shared.fault().map_or(Ok(()), Err)
    }

    fn take(&mut self) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        let sync_requested = self.shared.queue.take(&mut batch, &mut self.held);
        if batch.count > 0 {
            self.held.push_back(batch);
        } else {
            self.batch = batch;
        }
        sync_requested
    }

    /// Writes a batch as blocks, all of those that go into one segment at
    /// once; hands back what is left of it when the disk is full.
    fn write(&mut self, mut batch: Batch) -> Result<(), Batch> {
        if self.written == self.synced {
            self.unsynced_ns = self.shared.clock.monotonic_ns();
        }
        let part_max = self.shared.part_bytes_max;
        let is_in_parts = |large: &mut Large| parts::is_large(large.effects.len(), part_max);
        if let Some(large) = batch.large.take_if(is_in_parts) {
            return self.write_large(batch.first, &large, batch.concern).map_err(|()| {
                batch.large = Some(large);
                batch
            });
        }
        if let Some(large) = batch.large.take() {
            put_record(&mut batch.content, &large.header, &large.effects);
        }
        let mut done = 0;
        while done < batch.content.len() {
            // A segment without a record is never full: the next one would have
            // its name.
            let is_full = batch.first != self.segment
                && (self.is_old || !self.fits(batch.first_block(done, self.block_max()).0, 0));
            let written = match is_full && self.rotate(batch.first).is_err() {
                true => Err(()),
                false => self.append_blocks(&batch, done),
            };
            let Ok((bytes, count)) = written else {
                batch.content.drain(..done);
                return Err(batch);
            };
            let (first, from) = (batch.first, done);
            done += bytes;
            batch.first = Revision(first.0 + u64::from(count));
            batch.count -= count;
            self.note_written(count);
            self.tell(first, Content::Block(&batch.content[from..done]), batch.concern);
        }
        // The buffer goes on living, unless one huge batch made it huge.
        if self.batch.content.capacity() > 0 {
            self.shared.queue.give_back(batch.content);
        } else if batch.content.capacity() <= 4 << 20 {
            batch.content.clear();
            self.batch = Batch { content: batch.content, ..Batch::default() };
        }
        Ok(())
    }

    /// So many records more are written. The tap is told afterwards: who has read
    /// to the end of the log has read what the tap is told.
    fn note_written(&mut self, count: u32) {
        self.written = Revision(self.written.0 + u64::from(count));
        self.shared.counters.records.fetch_add(u64::from(count), Ordering::Relaxed);
        match self.is_quiet {
            true => self.shared.publish_written_quietly(self.written),
            false => self.shared.publish_written(self.written),
        }
    }

    /// Writes one record in parts, all of them into one segment. If one fails,
    /// none counts.
    fn write_large(
        &mut self,
        revision: Revision,
        large: &Large,
        concern: Concern,
    ) -> Result<(), ()> {
        let part_max = self.shared.part_bytes_max;
        let Large { header, effects } = large;
        let is_full = revision != self.segment
            && (self.is_old || !self.fits(parts::bytes_of(effects.len(), part_max), 0));
        if is_full {
            self.rotate(revision)?;
        }
        let begin = self.offset;
        for (part, piece) in parts::cut(header, effects, part_max) {
            self.out.clear();
            put_block(
                &mut self.out,
                &BlockPlace { id: self.manifest.id, segment: self.segment, offset: self.offset },
                &parts::label(revision, self.synced, part),
                &piece,
                self.shared.compression(),
            );
            self.append_out(begin)?;
        }
        self.out = Vec::new();
        self.shared.segments.grew(revision, self.offset);
        self.note_written(1);
        self.blocks.clear();
        self.blocks.push(WrittenBlock { offset: begin, count: 1, bytes: large.len() });
        self.tell(revision, Content::Large(large), concern);
        Ok(())
    }

    fn block_max(&self) -> usize {
        let is_packed = self.shared.compression() != Compression::None;
        self.shared.block_bytes_max * if is_packed { PACKED_BLOCKS } else { 1 }
    }

    /// Whether a block of `content` bytes fits into the segment behind `more`
    /// bytes that are about to be written.
    fn fits(&self, content: usize, more: usize) -> bool {
        self.offset + (more + content) as u64 <= self.shared.segment_bytes_max
    }

    /// Writes the blocks of a batch, from byte `from` of its content on, that
    /// fit into the segment, at least one. Answers how many bytes and records
    /// these were.
    fn append_blocks(&mut self, batch: &Batch, from: usize) -> Result<(usize, u32), ()> {
        self.out.clear();
        self.blocks.clear();
        let has_tap = self.shared.tap.get().is_some();
        let (mut at, mut count) = (from, 0);
        let mut block = batch.first_block(at, self.block_max());
        loop {
            let (bytes, records) = block;
            let offset = self.offset + self.out.len() as u64;
            put_block(
                &mut self.out,
                &BlockPlace { id: self.manifest.id, segment: self.segment, offset },
                &Label {
                    first: Revision(batch.first.0 + u64::from(count)),
                    durable: self.synced,
                    count: records,
                    part: Part::default(),
                },
                &batch.content[at..at + bytes],
                self.shared.compression(),
            );
            if has_tap {
                self.blocks.push(WrittenBlock { offset, count: records, bytes });
            }
            (at, count) = (at + bytes, count + records);
            block = batch.first_block(at, self.block_max());
            if block.1 == 0 || !self.fits(block.0, self.out.len()) {
                break;
            }
        }
        self.append_out(self.offset)?;
        if self.out.capacity() > 4 << 20 {
            self.out = Vec::new();
        }
        let last = Revision(batch.first.0 + u64::from(count) - 1);
        self.shared.segments.grew(last, self.offset);
        Ok((at - from, count))
    }

    /// Appends the blocks in `out` to the segment, of which only what is before
    /// `keep` stays if the disk is full.
    fn append_out(&mut self, keep: u64) -> Result<(), ()> {
        let len = self.out.len() as u64;
        debug_assert!(len >= BLOCK_HEADER_BYTES as u64);
        if let Err(error) = self.file.append(&self.out) {
            self.failed_append(&error, keep);
            return Err(());
        }
        self.offset += len;
        let stats = &self.shared.counters;
        stats.bytes.fetch_add(len, Ordering::Relaxed);
        stats.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn failed_append(&mut self, error: &io::Error, keep: u64) {
        let path = at(&self.dir, &segment_name(self.segment));
        let what = format!("write {} at byte {}: {error}", path.display(), self.offset);
        // A full disk leaves a part of what was to be written; without it the file
        // is whole again, and nothing of it was ever promised to anybody.
        if is_no_room(error) && self.file.truncate(keep).is_ok() {
            self.offset = keep;
            self.shared.fail(LogFault::Full(what));
        } else {
            self.shared.fail(LogFault::Poisoned(what));
        }
    }

    pub(crate) fn sync(&mut self) {
        let shared = self.shared.clone();
        let turn = shared.sync_turn.lock();
        let began_ns = shared.clock.monotonic_ns();
        if shared.is_poisoned() {
            return;
        }
        if let Err(error) = self.file.sync() {
            let path = at(&self.dir, &segment_name(self.segment));
            let what = format!("sync {}: {error}", path.display());
            shared.fail(LogFault::Poisoned(what));
            return;
        }
        drop(turn);
        self.end_sync(Some(Synced { upto: self.written, began_ns }));
    }

    /// A sync of what is written, to be run without the writer; `None` where
    /// nobody may see it before.
    pub(crate) fn begin_sync(&self) -> Option<SyncJob> {
        if self.shared.policy() == FsyncPolicy::Always {
            return None;
        }
        Some(SyncJob {
            file: self.file.again().ok()?,
            path: at(&self.dir, &segment_name(self.segment)),
            upto: self.written,
            began_ns: self.shared.clock.monotonic_ns(),
            shared: self.shared.clone(),
        })
    }

    /// Notes a sync that was done, if it was.
    pub(crate) fn end_sync(&mut self, synced: Option<Synced>) {
        let Some(Synced { upto, began_ns }) = synced else { return };
        self.synced_ns = self.shared.clock.monotonic_ns();
        self.synced = self.synced.max(upto);
        self.unsynced_ns = began_ns;
        let stats = &self.shared.counters;
        stats.fsyncs.fetch_add(1, Ordering::Relaxed);
        stats.fsync_ns_last.store(self.synced_ns - began_ns, Ordering::Relaxed);
        self.shared.publish_durable(self.synced);
        self.tell_seen();
    }

    /// Ends the segment durably and begins the next one, so that everything
    /// before the newest segment is whole.
    fn rotate(&mut self, first: Revision) -> Result<(), ()> {
        self.sync();
        if self.shared.fault().is_some() {
            return Err(());
        }
        match self.begin_segment(first) {
            Ok(()) => Ok(()),
            Err(error) => {
                let is_full = matches!(&error, LogError::Io { source, .. } if is_no_room(source));
                // On a full disk the manifest was not replaced, so what was begun
                // of the new segment can go and be begun again. After any other
                // error nothing is known, and recovery sorts it out.
                let leftover = at(&self.dir, &segment_name(first));
                let is_gone =
                    is_full && (!self.vfs.exists(&leftover) || self.vfs.remove(&leftover).is_ok());
                if is_gone {
                    self.shared.fail(LogFault::Full(error.to_string()));
                } else {
                    self.shared.fail(LogFault::Poisoned(error.to_string()));
                }
                Err(())
            }
        }
    }

    fn begin_segment(&mut self, first: Revision) -> Result<(), LogError> {
        let file = create_segment(
            &*self.vfs,
            &self.dir,
            &self.manifest,
            first,
            self.shared.clock.now_ms(),
            false,
        )?;
        let manifest = Manifest { newest_segment: first, ..self.manifest };
        manifest.write(&*self.vfs, &self.dir)?;
        self.manifest = manifest;
        self.file = file;
        self.segment = first;
        self.is_old = false;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.shared.segments.begin(first, SEGMENT_HEADER_BYTES as u64);
        Ok(())
    }
}

/// Puts an empty segment of today's version in the place of an older one that
/// holds no record. The caller makes its name durable.
pub(crate) fn renew_segment(
    vfs: &dyn Vfs,
    dir: &Path,
    manifest: &Manifest,
    first: Revision,
    now_ms: u64,
) -> Result<(), LogError> {
    let path = at(dir, &segment_name(first));
    let temporary = at(dir, &format!("{}.new", segment_name(first)));
    if vfs.exists(&temporary) {
        vfs.remove(&temporary).map_err(LogError::io("remove", &temporary))?;
    }
    let mut file = vfs.create(&temporary).map_err(LogError::io("create", &temporary))?;
    file.append(&segment_header(&manifest.id, first, now_ms, false))
        .map_err(LogError::io("write", &temporary))?;
    file.sync().map_err(LogError::io("sync", &temporary))?;
    vfs.rename(&temporary, &path).map_err(LogError::io("rename", &temporary))
}

/// Creates a segment, durable with its name.
pub(crate) fn create_segment(
    vfs: &dyn Vfs,
    dir: &Path,
    manifest: &Manifest,
    first: Revision,
    now_ms: u64,
    begins_anew: bool,
) -> Result<Box<dyn VfsFile>, LogError> {
    let path = at(dir, &segment_name(first));
    let mut file = vfs.create(&path).map_err(LogError::io("create", &path))?;
    file.append(&segment_header(&manifest.id, first, now_ms, begins_anew))
        .map_err(LogError::io("write", &path))?;
    file.sync().map_err(LogError::io("sync", &path))?;
    vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
    Ok(file)
}
