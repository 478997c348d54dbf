//! Making a backup of a database in use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use base::{Clock, DbIndex, Revision};
use log::{Log, LogError, RealVfs, SegmentInfo, Vfs, VfsLock};
use sha2::{Digest, Sha256};

use super::contents::StoredFile;
use super::sums::{Sums, check_segment};
use super::{
    BackupError, CONTENTS, CONTENTS_NEW, Contents, FILES, FORMAT, HOLDER, LOCK, create_private,
    hex, is_sha256, make_private_dir, names_in, sync_dir,
};
use crate::base_tree::{Base, Snapshot};
use crate::error::ArchiveError;
use crate::past::Past;

/// Begins the names of files that are not yet whole.
const UNFINISHED: &str = "new-";

/// Milliseconds by which the clock of a file system may be behind.
const CLOCK_MS: u128 = 2000;

/// What is backed up.
#[derive(Clone, Copy)]
pub struct Source<'s> {
    /// The archive.
    pub base: &'s Base,
    /// Its log.
    pub log: &'s Log,
    /// Databases of a branch.
    pub databases: DbIndex,
    /// The folders that the database is in.
    pub folders: &'s [PathBuf],
    /// What of its past comes with it; without, states from the archive's on.
    pub past: Option<&'s Past>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("folders", &self.folders).finish_non_exhaustive()
    }
}

/// What a backup holds and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The oldest state in it.
    pub oldest: Revision,
    /// The newest.
    pub newest: Revision,
    /// Its files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them were not there before.
    pub copied: usize,
    /// Bytes of those.
    pub copied_bytes: u64,
}

/// Makes a backup in the folder `to`, or brings the one there up to date.
/// Nobody else waits for it: what it reads does not change, and stays.
///
/// Until it is done, a backup that was there is what it was.
///
/// # Errors
/// When the folder is not one for a backup of this database, when files cannot
/// be read or written, or when one that is to be copied is damaged.
pub fn make(source: &Source<'_>, to: &Path, clock: &dyn Clock) -> Result<Made, BackupError> {
    make_like(source, to, None, clock)
}

/// As [`make`]. What an older backup of the database, in a folder beside, has as
/// well is not copied: both have one file then.
///
/// # Errors
/// As [`make`].
pub fn make_like(
    source: &Source<'_>,
    to: &Path,
    like: Option<&Path>,
    clock: &dyn Clock,
) -> Result<Made, BackupError> {
    let folder = Folder::open(source, to, like)?;
    // From here on nothing of the log goes away.
    let hold = source.log.hold(HOLDER);
    let snapshot = source.base.snapshot()?;
    let archived = snapshot.directory.revision;
    let newest_ms = clock.now_ms();
    // What compaction had left out by then is older than what it is now.
    let wanted = source.past.map_or(archived, |past| past.oldest().min(archived));
    let mut oldest = match snapshot.directory_at(wanted)? {
        found if found.revision == wanted => found,
        _ => (*snapshot.directory).clone(),
    };
    let mut segments = durable_segments(source.log, oldest.revision)?;
    if segments.first().is_none_or(|first| first.first > oldest.revision.next()) {
        oldest = (*snapshot.directory).clone();
        segments.retain(|segment| segment.last > archived);
    }
    let (oldest, oldest_ms) = (oldest.revision, oldest.time_ms);
    let newest = segments.last().map_or(archived, |segment| segment.last);
    // Of those before, nothing is needed.
    hold.set(Revision(segments.first().map_or(0, |segment| segment.first.0 - 1)));

    let mut copying = Copying { folder: &folder, copied: BTreeSet::new(), copied_bytes: 0 };
    let files = match copying.all(source, &snapshot, &segments) {
        Ok(files) => files,
        Err(error) => {
            // The disk may be full. What stays is removed by the next one.
            let _ = folder.remove_all_but(&names(folder.before.values()));
            return Err(error);
        }
    };
    let Copying { copied, copied_bytes, .. } = copying;
    let contents = Contents {
        format: FORMAT,
        made_by: concat!("alcid ", env!("CARGO_PKG_VERSION")).to_owned(),
        database: hex(&source.log.id()),
        databases: source.databases,
        oldest_revision: oldest.0,
        oldest_ms,
        archive_revision: (archived != oldest).then_some(archived.0),
        older_revisions: older_than(oldest, &snapshot)?,
        newest_revision: newest.0,
        newest_ms,
        newest_time: base::when::utc(newest_ms),
        files,
        checksum: String::new(),
    };
    let made = Made {
        oldest,
        newest,
        files: contents.files.len(),
        bytes: contents.bytes(),
        copied: copied.len(),
        copied_bytes,
    };
    let named = names(contents.files.iter());
    contents.write(&folder.dir)?;
    if let Err(error) = folder.remove_all_but(&named) {
        tracing::warn!("{error}; the backup is made, the next one tries again");
    }
    Ok(made)
}

fn names<'f>(files: impl Iterator<Item = &'f StoredFile>) -> BTreeSet<String> {
    files.map(|file| file.sha256.clone()).collect()
}

/// States of the archive before `oldest` that branches and tags keep.
fn older_than(oldest: Revision, snapshot: &Snapshot) -> Result<Vec<u64>, BackupError> {
    let pins = snapshot.directory.named_states();
    let mut older = Vec::new();
    for &pin in pins.range(..oldest) {
        let is_state = snapshot.directory_at(pin)?.revision == pin;
        older.extend(is_state.then_some(pin.0));
    }
    Ok(older)
}

/// The segments with everything above `base` that is written now, made durable;
/// the last one in any case.
fn durable_segments(log: &Log, base: Revision) -> Result<Vec<SegmentInfo>, BackupError> {
    let sync = |revision| {
        log.request_sync();
        log.wait_durable(revision)
    };
    sync(log.buffered())?;
    let mut segments = log.segments();
    let newest = segments.last().map_or(base, |segment| segment.last);
    // Some of it may have been written after that sync.
    sync(newest)?;
    let needed = segments.iter().position(|segment| segment.last > base);
    let needed = needed.unwrap_or(segments.len().saturating_sub(1));
    segments.drain(..needed);
    Ok(segments)
}

/// The folder of a backup, locked.
struct Folder {
    dir: PathBuf,
    /// The files of the backup that is there, by place.
    before: BTreeMap<String, StoredFile>,
    /// When that was begun, in milliseconds since 1970.
    before_ms: u64,
    _lock: Box<dyn VfsLock>,
}

impl Folder {
    /// Takes a folder, or makes it, unless it holds anything else or is not
    /// safe.
    fn open(source: &Source<'_>, to: &Path, like: Option<&Path>) -> Result<Folder, BackupError> {
        let dir = place(source, to)?;
        if dir.exists() {
            check_names(&dir)?;
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                // The owner alone may do that, so it is ours then.
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))
                    .map_err(BackupError::io("make private", &dir))?;
            }
        } else {
            make_private_dir(&dir)?;
        }
        let path = dir.join(LOCK);
        let lock = RealVfs.lock(&path).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => BackupError::InUse { dir: dir.clone() },
            _ => BackupError::io("lock", &path)(error),
        })?;
        let before = Contents::find(&dir)?;
        let expected = hex(&source.log.id());
        if let Some(found) = before.as_ref().filter(|before| before.database != expected) {
            return Err(BackupError::Foreign { dir, found: found.database.clone(), expected });
        }
        let is_new = before.is_none();
        let (mut files, mut before_ms) =
            before.map(|before| (before.files, before.newest_ms)).unwrap_or_default();
        let stored = dir.join(FILES);
        if !stored.exists() {
            make_private_dir(&stored)?;
        }
        if let Some(like) = like.filter(|_| is_new) {
            let model = Contents::read(like)?;
            if model.database == expected {
                (files, before_ms) = (model.files, model.newest_ms);
                // What has no second name is copied.
                files.retain(|file| {
                    fs::hard_link(file.stored_in(like), stored.join(&file.sha256)).is_ok()
                });
            }
        }
        let before = files.into_iter().map(|file| (file.path.clone(), file)).collect();
        let folder = Folder { dir, before, before_ms, _lock: lock };
        folder.remove_unfinished()?;
        Ok(folder)
    }

    fn files(&self) -> PathBuf {
        self.dir.join(FILES)
    }

    /// What a backup left that did not end.
    fn remove_unfinished(&self) -> Result<(), BackupError> {
        let new = self.dir.join(CONTENTS_NEW);
        if new.exists() {
            fs::remove_file(&new).map_err(BackupError::io("remove", new))?;
        }
        self.remove_files(|name| name.starts_with(UNFINISHED))
    }

    fn remove_all_but(&self, named: &BTreeSet<String>) -> Result<(), BackupError> {
        self.remove_files(|name| !named.contains(name))
    }

    fn remove_files(&self, is_to_go: impl Fn(&str) -> bool) -> Result<(), BackupError> {
        for name in names_in(&self.files())?.iter().filter(|name| is_to_go(name)) {
            let path = self.files().join(name);
            fs::remove_file(&path).map_err(BackupError::io("remove", path))?;
        }
        Ok(())
    }
}

/// Where a folder is, unless backups are not safe there.
pub(super) fn place(source: &Source<'_>, to: &Path) -> Result<PathBuf, BackupError> {
    if !to.is_absolute() {
        return Err(BackupError::Relative { path: to.to_owned() });
    }
    let dir = resolved(to)?;
    for data in source.folders {
        let data = data.canonicalize().map_err(BackupError::io("find", data))?;
        if dir.starts_with(&data) || data.starts_with(&dir) {
            return Err(BackupError::Inside { dir, data });
        }
    }
    Ok(dir)
}

/// The folder without links and dots. Its parent must be there.
fn resolved(dir: &Path) -> Result<PathBuf, BackupError> {
    match (dir.canonicalize(), dir.parent(), dir.file_name()) {
        (Ok(dir), ..) => Ok(dir),
        (Err(error), Some(parent), Some(name)) if error.kind() == ErrorKind::NotFound => {
            let parent = parent.canonicalize().map_err(BackupError::io("find", parent))?;
            Ok(parent.join(name))
        }
        (Err(error), ..) => Err(BackupError::io("find", dir)(error)),
    }
}

/// A folder is for a backup if it is empty or holds a backup and nothing else,
/// even one that did not end.
fn check_names(dir: &Path) -> Result<(), BackupError> {
    let occupied =
        |name: &str| BackupError::Occupied { dir: dir.to_owned(), name: name.to_owned() };
    for name in names_in(dir)? {
        if ![CONTENTS, CONTENTS_NEW, FILES, LOCK].contains(&name.as_str()) {
            return Err(occupied(&name));
        }
    }
    let files = dir.join(FILES);
    match files.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BackupError::io("find", files)(error)),
        // What is behind a link is somebody else's.
        Ok(found) if !found.is_dir() => return Err(occupied(FILES)),
        Ok(_) => {}
    }
    for name in names_in(&files)? {
        if !is_sha256(&name) && !name.starts_with(UNFINISHED) {
            return Err(occupied(&format!("{FILES}/{name}")));
        }
    }
    Ok(())
}

/// Brings files into the folder.
struct Copying<'f> {
    folder: &'f Folder,
    /// What was not there.
    copied: BTreeSet<String>,
    copied_bytes: u64,
}

impl Copying<'_> {
    /// Everything, durably.
    fn all(
        &mut self,
        source: &Source<'_>,
        snapshot: &Snapshot,
        segments: &[SegmentInfo],
    ) -> Result<Vec<StoredFile>, BackupError> {
        let mut files = self.archive(source.base.dir(), snapshot)?;
        for segment in segments {
            let archived = snapshot.directory.revision;
            files.push(self.segment(source.log, segment, archived)?);
        }
        sync_dir(&self.folder.files())?;
        Ok(files)
    }

    fn archive(&mut self, dir: &Path, snapshot: &Snapshot) -> Result<Vec<StoredFile>, BackupError> {
        let mut files = Vec::new();
        for (name, content) in &snapshot.small {
            let (bytes, sha256) = (content.len() as u64, hex(&Sha256::digest(content)));
            if !self.has(&sha256, bytes) {
                self.write(&sha256, bytes, &mut |file, path| {
                    file.write_all(content).map_err(BackupError::io("write", path))
                })?;
            }
            files.push(StoredFile { path: format!("archive/{name}"), bytes, sha256, xxh3: None });
        }
        for table in &snapshot.tables {
            files.push(self.table(dir, &table.name, format!("{:032x}", table.checksum))?);
        }
        Ok(files)
    }

    /// A table never changes, and the archive knows a checksum of it: one that
    /// the backup has is not even read, and no other content is copied.
    fn table(&mut self, dir: &Path, name: &str, xxh3: String) -> Result<StoredFile, BackupError> {
        let (from, path) = (&dir.join(name), format!("archive/{name}"));
        let len = from.metadata().map_err(BackupError::io("read", from))?.len();
        if let Some(before) = self.folder.before.get(&path) {
            let is_same = before.bytes == len && before.xxh3.as_ref() == Some(&xxh3);
            if is_same && self.has(&before.sha256, len) {
                return Ok(before.clone());
            }
        }
        let sums = Sums::of(from, u64::MAX, &mut |_| Ok(()))?;
        if let Some(what) = sums.unlike_written(&xxh3) {
            let what = format!("{}: {what}", from.display());
            return Err(ArchiveError::Damaged { dir: dir.to_owned(), what }.into());
        }
        let Sums { bytes, sha256, .. } = sums;
        if !self.has(&sha256, bytes) {
            let linked = self.unfinished(&sha256);
            if fs::hard_link(from, &linked).is_ok() {
                self.publish(&linked, &sha256, bytes)?;
            } else {
                self.copy(from, &sha256, bytes)?;
            }
        }
        Ok(StoredFile { path, bytes, sha256, xxh3: Some(xxh3) })
    }

    /// The segment as far as it is known to be written. Its records are read in
    /// the copy, for the segment itself may grow meanwhile.
    fn segment(
        &mut self,
        log: &Log,
        segment: &SegmentInfo,
        archived: Revision,
    ) -> Result<StoredFile, BackupError> {
        let name = segment.file_name();
        let (from, path) = (log.dir().join(&name), format!("log/{name}"));
        if let Some(before) = self.folder.before.get(&path) {
            let is_same = segment.is_sealed && before.bytes == segment.bytes;
            if is_same && self.has(&before.sha256, segment.bytes) && self.is_older(&from) {
                return Ok(before.clone());
            }
        }
        let damaged = |offset, what| match segment.last <= archived {
            true => {
                let what = format!("byte {offset}: {what}");
                BackupError::DamagedHistory { path: from.clone(), what, last: segment.last }
            }
            false => LogError::Damaged { path: from.clone(), offset, what }.into(),
        };
        let Sums { bytes, sha256, .. } = Sums::of(&from, segment.bytes, &mut |_| Ok(()))?;
        if bytes < segment.bytes {
            let what = format!("it ends there, {} bytes have been written", segment.bytes);
            return Err(damaged(bytes, what));
        }
        if !self.has(&sha256, bytes) {
            self.copy(&from, &sha256, bytes)?;
        }
        let copy = self.folder.files().join(&sha256);
        match check_segment(&copy, log.id(), segment.first) {
            Ok(last) if last == segment.last => {}
            Ok(last) => {
                let what = format!("its records end with revision {last}, not {}", segment.last);
                return Err(damaged(bytes, what));
            }
            Err(LogError::Damaged { offset, what, .. }) => return Err(damaged(offset, what)),
            Err(error) => return Err(error.into()),
        }
        Ok(StoredFile { path, bytes, sha256, xxh3: None })
    }

    /// Whether a file was written before the backup that is there: a segment that
    /// is sealed changes only where a new file takes its place.
    fn is_older(&self, path: &Path) -> bool {
        let written = path.metadata().and_then(|found| found.modified());
        let since_1970 = written.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let before_ms = u128::from(self.folder.before_ms);
        since_1970.is_some_and(|since| since.as_millis() + CLOCK_MS < before_ms)
    }

    fn has(&self, sha256: &str, bytes: u64) -> bool {
        let found = self.folder.files().join(sha256).symlink_metadata();
        found.is_ok_and(|found| found.is_file() && found.len() == bytes)
    }

    fn unfinished(&self, sha256: &str) -> PathBuf {
        self.folder.files().join(format!("{UNFINISHED}{sha256}"))
    }

    /// Copies the first `bytes` of a file that were just found to have this
    /// content.
    fn copy(&mut self, from: &Path, sha256: &str, bytes: u64) -> Result<(), BackupError> {
        self.write(sha256, bytes, &mut |file, path| {
            let mut write =
                |chunk: &[u8]| file.write_all(chunk).map_err(BackupError::io("write", path));
            if Sums::of(from, bytes, &mut write)?.sha256 != sha256 {
                return Err(BackupError::damaged(from, "it changed while it was copied"));
            }
            Ok(())
        })
    }

    fn write(
        &mut self,
        sha256: &str,
        bytes: u64,
        write: &mut dyn FnMut(&mut File, &Path) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let path = self.unfinished(sha256);
        let mut file = create_private(&path)?;
        write(&mut file, &path)?;
        file.sync_all().map_err(BackupError::io("sync", &path))?;
        self.publish(&path, sha256, bytes)
    }

    /// A whole file gets its name.
    fn publish(&mut self, unfinished: &Path, sha256: &str, bytes: u64) -> Result<(), BackupError> {
        let path = self.folder.files().join(sha256);
        fs::rename(unfinished, path).map_err(BackupError::io("rename", unfinished))?;
        self.copied.insert(sha256.to_owned());
        self.copied_bytes += bytes;
        Ok(())
    }
}
