//! A data folder from a backup.

use std::fs;
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use base::{Clock, Revision, Rng};
use keyspace::EncodingLimits;
use log::{RealVfs, Record, create_after, read_copy};

use super::contents::{Kind, StoredFile};
use super::{
    BackupError, CONTENTS, Contents, create_private, digest, make_private_dir, names_in, sync_dir,
};
use crate::backing::BaseBacking;
use crate::base_tree::{Base, TABLES, TREE};
use crate::delta::Delta;
use crate::part::write_part;

/// The folder in the data folder where everything is made. It gets its place
/// when all of it is whole.
const STAGE: &str = "restoring";

/// Bytes of memory that changes may take before they are written.
const MEMORY_BYTES: usize = 128 << 20;

/// Bytes of records that may wait to be applied together.
const WAITING_BYTES: usize = 1 << 20;

/// Bytes of tables kept in memory meanwhile.
const CACHE_BYTES: u64 = 32 << 20;

/// Which state is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The newest in the backup.
    Newest,
    /// That of a revision.
    Revision(Revision),
    /// That of the last revision stamped at or before a time, in milliseconds
    /// since 1970.
    Time(u64),
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The revision.
    pub revision: Revision,
    /// When that transaction ran, in milliseconds since 1970.
    pub time_ms: u64,
    /// Keys of all databases.
    pub keys: u64,
}

/// Makes a data folder in `to`, which must be empty or not exist, with the
/// state of `goal`, and of it, if `prefix` is given, only keys that begin with
/// it. Every file of the backup that is read is checked.
///
/// # Errors
/// When the backup is damaged or has no such state, or when the folder cannot
/// be written; nothing is left in it then.
pub fn restore(
    from: &Path,
    to: &Path,
    goal: Goal,
    prefix: Option<&[u8]>,
    clock: &dyn Clock,
    rng: &mut dyn Rng,
) -> Result<Restored, BackupError> {
    let contents = Contents::read(from)?;
    let backup = Backup { dir: from, contents };
    let is_new = !to.exists();
    if let Some(name) = if is_new { None } else { names_in(to)?.into_iter().next() } {
        return Err(BackupError::NotEmpty { dir: to.to_owned(), name });
    }
    backup.segments().try_for_each(|(_, file)| backup.check(file, &mut |_| Ok(())))?;
    let upto = backup.resolve(goal)?;
    if is_new {
        make_private_dir(to)?;
    }
    let stage = to.join(STAGE);
    let restored = make_private_dir(&stage)
        .and_then(|()| backup.restore(&stage, upto, prefix, clock, rng))
        .and_then(|restored| place(&stage, to).map(|()| restored));
    if restored.is_err() {
        // What cannot be removed says itself that it is not whole.
        let _ = fs::remove_dir_all(&stage);
        if is_new {
            let _ = fs::remove_dir(to);
        }
    }
    restored
}

/// Moves what is whole to where a server looks for it. The log comes first: a
/// server that starts between the two sees that the archive is missing.
fn place(stage: &Path, to: &Path) -> Result<(), BackupError> {
    for name in ["log", "archive"] {
        let from = stage.join(name);
        sync_dir(&from)?;
        fs::rename(&from, to.join(name)).map_err(BackupError::io("rename", from))?;
        sync_dir(to)?;
    }
    fs::remove_dir(stage).map_err(BackupError::io("remove", stage))?;
    sync_dir(to)
}

struct Backup<'b> {
    dir: &'b Path,
    contents: Contents,
}

impl Backup<'_> {
    /// The revision that a goal means.
    fn resolve(&self, goal: Goal) -> Result<Revision, BackupError> {
        let (oldest, newest) = (self.contents.oldest(), self.contents.newest());
        match goal {
            Goal::Newest => Ok(newest),
            Goal::Revision(asked) if (oldest..=newest).contains(&asked) => Ok(asked),
            Goal::Revision(asked) => Err(BackupError::NoRevision { asked, oldest, newest }),
            Goal::Time(asked_ms) => {
                let (oldest_ms, newest_ms) = (self.contents.oldest_ms, self.contents.newest_ms);
                if !(oldest_ms..=newest_ms).contains(&asked_ms) {
                    let error =
                        BackupError::NoTime { asked_ms, oldest, oldest_ms, newest, newest_ms };
                    return Err(error);
                }
                let mut found = oldest;
                self.replay(&mut |record| {
                    if record.header.time_ms <= asked_ms {
                        found = found.max(record.revision);
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
                Ok(found)
            }
        }
    }

    /// The log's segments by their first revision.
    fn segments(&self) -> impl Iterator<Item = (Revision, &StoredFile)> {
        self.contents.files.iter().filter_map(|file| match file.kind() {
            Some(Kind::Segment(first)) => Some((first, file)),
            _ => None,
        })
    }

    /// Makes `archive` and `log` in the folder.
    fn restore(
        &self,
        stage: &Path,
        upto: Revision,
        prefix: Option<&[u8]>,
        clock: &dyn Clock,
        rng: &mut dyn Rng,
    ) -> Result<Restored, BackupError> {
        let archive = stage.join("archive");
        self.copy_archive(&archive)?;
        let mut base = self.open(&archive, rng)?;
        if base.revision() != self.contents.oldest() {
            let (found, expected) = (base.revision(), self.contents.oldest());
            let what = format!("its archive is at revision {found}, not {expected}");
            return Err(BackupError::damaged(self.dir, what));
        }
        self.apply(&base, upto)?;
        if let Some(prefix) = prefix {
            let part = stage.join("part");
            let chosen = self.open(&part, rng)?;
            write_part(&base, &chosen, prefix)?;
            drop((base, chosen));
            fs::remove_dir_all(&archive).map_err(BackupError::io("remove", &archive))?;
            fs::rename(&part, &archive).map_err(BackupError::io("rename", part))?;
            base = self.open(&archive, rng)?;
        }
        create_after(&RealVfs, &stage.join("log"), self.id(), upto, clock)?;
        let directory = base.directory();
        let (revision, time_ms, keys) = (directory.revision, directory.time_ms, directory.keys());
        Ok(Restored { revision, time_ms, keys })
    }

    fn id(&self) -> [u8; 16] {
        self.contents.id().expect("checked when it was read")
    }

    fn open(&self, dir: &Path, rng: &mut dyn Rng) -> Result<Arc<Base>, BackupError> {
        let base = Base::open(dir, rng.next_u64(), CACHE_BYTES)?;
        base.adopt(self.id())?;
        Ok(Arc::new(base))
    }

    fn copy_archive(&self, archive: &Path) -> Result<(), BackupError> {
        let tree = archive.join(TREE);
        let tables = tree.join(TABLES);
        for dir in [archive, &tree, &tables] {
            make_private_dir(dir)?;
        }
        let data = archive.parent().expect("it is in the stage");
        for file in &self.contents.files {
            if file.kind() == Some(Kind::Archive) {
                let to = data.join(&file.path);
                let mut copy = create_private(&to)?;
                self.check(file, &mut |chunk| {
                    copy.write_all(chunk).map_err(BackupError::io("write", &to))
                })?;
                copy.sync_all().map_err(BackupError::io("sync", &to))?;
            }
        }
        [&tables, &tree].into_iter().try_for_each(|dir| sync_dir(dir))
    }

    /// Reads a file of the backup and checks that it is whole.
    fn check(
        &self,
        file: &StoredFile,
        each: &mut dyn FnMut(&[u8]) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let path = file.stored_in(self.dir);
        let read = digest(&path, file.bytes.saturating_add(1), each);
        let (bytes, sha256) = read.map_err(|error| match error {
            BackupError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                let what = format!("the file is missing that {CONTENTS} names for {}", file.path);
                BackupError::damaged(&path, what)
            }
            error => error,
        })?;
        if bytes != file.bytes || sha256 != file.sha256 {
            let what = format!("it is not the {} bytes that {} had", file.bytes, file.path);
            return Err(BackupError::damaged(path, what));
        }
        Ok(())
    }

    /// Brings the base to `upto`.
    fn apply(&self, base: &Arc<Base>, upto: Revision) -> Result<(), BackupError> {
        let limits = EncodingLimits::default();
        let backing = BaseBacking::new(base.clone(), limits);
        let databases = self.contents.databases;
        let mut delta = Delta::new(base.clone(), backing, limits, databases, WAITING_BYTES);
        if upto > delta.revision() {
            self.replay(&mut |record| {
                // What a branch begins with is read from the base.
                let is_state = delta.add(&record)?;
                if is_state || delta.memory_bytes() > MEMORY_BYTES {
                    delta.write()?;
                }
                let is_done = delta.revision() >= upto;
                Ok(if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        if !delta.is_empty() {
            delta.write()?;
        }
        Ok(())
    }

    /// Visits the transactions after the base's revision, in order, and checks
    /// on the way that they are there.
    fn replay(
        &self,
        each: &mut dyn FnMut(Record<'_>) -> Result<ControlFlow<()>, BackupError>,
    ) -> Result<(), BackupError> {
        let mut segments: Vec<_> = self.segments().collect();
        segments.sort_unstable_by_key(|(first, _)| *first);
        let mut last = self.contents.oldest();
        for (first, file) in segments {
            if first > last.next() {
                let what = format!("revision {} is missing, {} follows", last.next(), file.path);
                return Err(BackupError::damaged(self.dir, what));
            }
            let mut ended = Ok(ControlFlow::Continue(()));
            let visit = &mut |record: Record<'_>| {
                if record.revision <= last {
                    return ControlFlow::Continue(());
                }
                last = record.revision;
                ended = each(record);
                if matches!(ended, Ok(ControlFlow::Continue(()))) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            };
            read_copy(&RealVfs, &file.stored_in(self.dir), self.id(), first, visit)?;
            if ended?.is_break() {
                return Ok(());
            }
        }
        if last != self.contents.newest() {
            let what = format!("its log ends with revision {last}, not {}", self.contents.newest());
            return Err(BackupError::damaged(self.dir, what));
        }
        Ok(())
    }
}
