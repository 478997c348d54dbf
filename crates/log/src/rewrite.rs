//! Sealed segments written anew, with other effects in some records.

use std::path::PathBuf;

use base::Revision;

use crate::block::Files;
use crate::error::LogError;
use crate::format::{self, BlockPlace, Label, Part, Record, segment_header, segment_name};
use crate::log::Log;
use crate::parts;
use crate::segments::End;
use crate::shared::Shared;
use crate::vfs::at;
use crate::whole::WholeBlocks;

/// Ends the name of a segment that is being written anew.
const TEMPORARY: &str = ".rewrite";

/// A segment that was written anew and is not in its place yet. Dropped, it
/// leaves nothing behind.
#[derive(Debug)]
pub struct Rewritten<'l> {
    files: &'l Files,
    shared: &'l Shared,
    segment: Revision,
    temporary: PathBuf,
    bytes: u64,
}

impl Log {
    /// Writes a sealed segment anew, durably, beside the old one. `change` gets
    /// every transaction and answers other effects for it, or `None` to leave
    /// it; revisions and headers stay. `None` if none was changed, or there is
    /// no such segment.
    ///
    /// # Errors
    /// When files cannot be read or written, or the segment is damaged.
    pub fn rewrite(
        &self,
        segment: Revision,
        change: &mut dyn FnMut(&Record<'_>) -> Option<Vec<u8>>,
    ) -> Result<Option<Rewritten<'_>>, LogError> {
        let (files, shared) = self.parts();
        if !matches!(shared.segments.end(segment), End::Sealed { .. }) {
            return Ok(None);
        }
        let path = files.path(segment);
        let old = files.vfs.read(&path).map_err(LogError::io("read", &path))?;
        let mut blocks = WholeBlocks::of(&old, &path, files.id, segment)?;
        let (created_ms, begins_anew) = format::segment_origin(&old);
        let mut new = segment_header(&files.id, segment, created_ms, begins_anew);
        let (mut is_changed, mut content) = (false, Vec::new());
        while let Some(block) = blocks.next()? {
            let header = &block.header;
            let place = BlockPlace { offset: new.len() as u64, ..block.place };
            let compression = header.compression();
            let (first, durable, count) = (header.first, header.durable, header.count);
            content.clear();
            for record in block.records() {
                let record = record?;
                let changed = change(&record);
                is_changed |= changed.is_some();
                let effects = changed.as_deref().unwrap_or(record.effects);
                if header.part().is_all() {
                    format::put_record(&mut content, &record.header, effects);
                } else {
                    let cut = parts::cut(&record.header, effects, shared.part_bytes_max);
                    parts::put(&mut new, &place, (first, durable), cut, compression);
                }
            }
            if header.part().is_all() {
                let label = Label { first, durable, count, part: Part::default() };
                format::put_block(&mut new, &place, &label, &content, compression);
            }
        }
        if !is_changed {
            return Ok(None);
        }
        let temporary = at(&files.dir, &format!("{}{TEMPORARY}", segment_name(segment)));
        if files.vfs.exists(&temporary) {
            files.vfs.remove(&temporary).map_err(LogError::io("remove", &temporary))?;
        }
        let bytes = new.len() as u64;
        let mut file = files.vfs.create(&temporary).map_err(LogError::io("create", &temporary))?;
        let rewritten = Rewritten { files, shared, segment, temporary, bytes };
        file.append(&new).map_err(LogError::io("write", &rewritten.temporary))?;
        file.sync().map_err(LogError::io("sync", &rewritten.temporary))?;
        Ok(Some(rewritten))
    }

    /// Removes what a rewrite that was cut short has left.
    pub(crate) fn remove_rewrites(files: &Files) -> Result<(), LogError> {
        let Files { vfs, dir, .. } = files;
        for name in vfs.list(dir).map_err(LogError::io("list", dir))? {
            if name.ends_with(TEMPORARY) {
                let path = at(dir, &name);
                vfs.remove(&path).map_err(LogError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

impl Rewritten<'_> {
    /// Puts the new segment into the place of the old one, durably: whenever
    /// the power fails, one of the two is there, whole. Places in the old one
    /// mean nothing any more; a [`crate::LogReader`] finds its way in the new one.
    ///
    /// Answers `false`, and the old one stays, when the segment is held under
    /// the name `blocker`, by somebody who reads its file as such, or is gone.
    ///
    /// # Errors
    /// When files cannot be renamed, or the folder not be synced.
    pub fn put_in_place(self, blocker: &str) -> Result<bool, LogError> {
        let Files { vfs, dir, .. } = self.files;
        let path = self.files.path(self.segment);
        let is_done = self.shared.segments.replace(self.segment, self.bytes, blocker, || {
            vfs.rename(&self.temporary, &path).map_err(LogError::io("rename", &self.temporary))
        })?;
        if is_done {
            self.files.forget(self.segment);
            vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
        }
        Ok(is_done)
    }
}

impl Drop for Rewritten<'_> {
    fn drop(&mut self) {
        if self.files.vfs.exists(&self.temporary) {
            // What stays is removed by the next start.
            let _ = self.files.vfs.remove(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use base::{BranchId, ManualClock, SeededRng};

    use super::*;
    use crate::{Compression, LogOptions, LogReader, MemVfs, Place, RecordHeader, Vfs};

    const DIR: &str = "/log";

    fn open(vfs: &MemVfs, compression: Compression) -> Log {
        let options = LogOptions { block_bytes_max: 300, compression, ..LogOptions::default() };
        let (vfs, clock) = (Arc::new(vfs.clone()), Arc::new(ManualClock::at_ms(5)));
        let (mut rng, replay) = (SeededRng::new(1), &mut |_: Record<'_>| Ok(()));
        let zero = Revision::ZERO;
        Log::open_manual(vfs, Path::new(DIR), options, zero, clock, &mut rng, replay)
            .expect("it opens")
            .0
    }

    fn append(log: &Log, count: u64) {
        for _ in 0..count {
            let revision = log.reserve();
            let header = RecordHeader { time_ms: revision.0, db: 3, branch: BranchId(7) };
            log.append(revision, header, format!("secret {revision} secret secret").as_bytes());
        }
        log.pump();
    }

    fn read(log: &Log) -> Vec<(u64, u64, Vec<u8>)> {
        let mut reader = log.reader(Revision(1));
        let mut all = Vec::new();
        while reader.next_revision() <= log.newest() {
            let read = reader.read(Duration::ZERO, &mut |record, _| {
                all.push((record.revision.0, record.header.time_ms, record.effects.to_vec()));
                ControlFlow::Continue(())
            });
            read.expect("whole");
        }
        all
    }

    fn odd(record: &Record<'_>) -> Option<Vec<u8>> {
        (record.revision.0 % 2 == 1).then(|| b"gone".to_vec())
    }

    #[test]
    fn a_segment_is_the_same_but_for_what_was_changed() {
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let vfs = MemVfs::new();
            let log = open(&vfs, compression);
            append(&log, 40);
            assert!(log.rewrite(Revision(1), &mut odd).expect("readable").is_none(), "not sealed");
            log.roll().expect("room");
            // Stands at the old segment's end.
            let mut follower = log.reader(Revision(1));
            while follower.next_revision() <= Revision(40) {
                let all = &mut |_: Record<'_>, _| ControlFlow::Continue(());
                follower.read(Duration::ZERO, all).expect("whole");
            }
            assert!(log.rewrite(Revision(1), &mut |_| None).expect("readable").is_none());
            let before = read(&log);
            let rewritten = log.rewrite(Revision(1), &mut odd).expect("readable").expect("odd");
            assert_eq!(read(&log), before, "not in its place yet");
            assert!(rewritten.put_in_place("backup").expect("room"));
            append(&log, 2);
            let expected: Vec<_> = (1..=42)
                .map(|n: u64| match n {
                    n if n % 2 == 1 && n <= 40 => (n, n, b"gone".to_vec()),
                    n => (n, n, format!("secret {n} secret secret").into_bytes()),
                })
                .collect();
            assert_eq!(read(&log), expected);
            let mut seen = Vec::new();
            let visit = &mut |record: Record<'_>, _| {
                seen.push(record.revision.0);
                ControlFlow::Continue(())
            };
            follower.read(Duration::ZERO, visit).expect("it goes on");
            assert_eq!(seen, [41, 42]);
            let bytes = vfs.len(&Path::new(DIR).join(log.segments()[0].file_name()));
            assert_eq!(bytes.expect("there"), log.segments()[0].bytes);
            log.close().expect("memory");
            drop(log);
            assert_eq!(read(&open(&vfs, compression)), expected);
        }
    }

    /// Reads on until the newest; the first at most so many.
    fn read_on(reader: &mut LogReader, upto: u64) -> Vec<(u64, Vec<u8>, Place)> {
        let mut seen = Vec::new();
        while reader.next_revision().0 <= upto {
            let visit = &mut |record: Record<'_>, place| {
                seen.push((record.revision.0, record.effects.to_vec(), place));
                if record.revision.0 == upto {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            reader.read(Duration::ZERO, visit).expect("whole");
        }
        seen
    }

    #[test]
    fn readers_anywhere_in_a_segment_go_on_when_it_was_rewritten() {
        const LAST: u64 = 40;
        for change in [b"".as_slice(), &[b'x'; 200]] {
            for compression in [Compression::None, Compression::Lz4] {
                let log = open(&MemVfs::new(), compression);
                append(&log, LAST);
                log.roll().expect("room");
                append(&log, 2);
                let places = read_on(&mut log.reader(Revision(1)), LAST + 2);
                let mut readers: Vec<LogReader> = Vec::new();
                for stop in 0..=LAST {
                    let mut reader = log.reader(Revision(1));
                    read_on(&mut reader, stop);
                    readers.push(reader);
                }
                for round in 0..2 {
                    let mut odd = |record: &Record<'_>| {
                        (record.revision.0 % 2 == round).then(|| change.to_vec())
                    };
                    let rewritten = log.rewrite(Revision(1), &mut odd).expect("readable");
                    assert!(rewritten.expect("some").put_in_place("backup").expect("room"));
                    let now = read_on(&mut log.reader(Revision(1)), LAST + 2);
                    assert_eq!(now.iter().filter(|(_, it, _)| it == change).count() as u64, {
                        (round + 1) * LAST / 2
                    });
                    for (reader, stop) in readers.iter_mut().zip(0..) {
                        let upto = if round == 0 { (stop + 3).min(LAST) } else { LAST + 2 };
                        let from = (if round == 0 { stop } else { (stop + 3).min(LAST) }) as usize;
                        let seen = read_on(reader, upto);
                        assert_eq!(seen, now[from..upto as usize], "{stop} in round {round}");
                    }
                    for (revision, _, place) in &places {
                        let seen =
                            read_on(&mut log.reader_at(*place, Revision(*revision)), LAST + 2);
                        assert_eq!(seen, now[*revision as usize - 1..], "{revision} at {place:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_backup_holds_or_nobody_finished_changes_nothing() {
        let vfs = MemVfs::new();
        let log = open(&vfs, Compression::None);
        append(&log, 10);
        log.roll().expect("room");
        let before = read(&log);
        // Those who only read records hold nobody up.
        let (_watch, theirs) = (log.hold("watch"), log.hold("backup"));
        let rewrite = || log.rewrite(Revision(1), &mut odd).expect("readable").expect("odd");
        assert!(!rewrite().put_in_place("backup").expect("nothing is tried"));
        drop(rewrite());
        assert_eq!(read(&log), before);
        assert_eq!(vfs.list(Path::new(DIR)).expect("there").len(), 3, "manifest, segments");
        theirs.set(Revision(10));
        // Cut short.
        std::mem::forget(rewrite());
        log.close().expect("memory");
        drop(log);
        let log = open(&vfs, Compression::None);
        assert_eq!(read(&log), before);
        assert_eq!(vfs.list(Path::new(DIR)).expect("there").len(), 3, "the rest is removed");
    }
}
