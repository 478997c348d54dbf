//! A data folder from a backup.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use base::{BranchId, Clock, Revision, Rng};
use keyspace::{Branches, EncodingLimits, Purge, Tag};
use log::{RealVfs, Record, SegmentCopy, create_from, read_copy};

use super::contents::{Kind, StoredFile};
use super::error::Known;
use super::sums::Sums;
use super::{
    BackupError, CONTENTS, Contents, create_private, make_private_dir, names_in, sync_dir,
};
use crate::backing::BaseBacking;
use crate::base_tree::{Base, TABLES, TREE};
use crate::delta::Delta;
use crate::part::write_part;
use crate::past::Past;
use crate::waiting::{WAITING_BYTES, Waiting};

/// The folder in the data folder where everything is made. It gets its place
/// when all of it is whole.
const STAGE: &str = "restoring";

/// Bytes of memory that changes may take before they are written.
const MEMORY_BYTES: usize = 128 << 20;

/// Bytes of tables kept in memory meanwhile.
const CACHE_BYTES: u64 = 32 << 20;

/// Which state is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The newest in the backup.
    Newest,
    /// That of a revision.
    Revision(Revision),
    /// That of the last revision stamped at or before a time, in milliseconds
    /// since 1970.
    Time(u64),
    /// That of the revision that a tag names.
    Tag(Vec<u8>),
}

/// What is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As of when.
    pub goal: Goal,
    /// This branch alone, as main.
    pub branch: Option<Vec<u8>>,
    /// Only keys that begin with this, of one branch: that which is named, or
    /// the tag's, or main.
    pub prefix: Option<Vec<u8>>,
    /// With what came before, if it is everything.
    pub history: bool,
}

impl Wanted {
    /// Everything.
    #[must_use]
    pub fn all(goal: Goal) -> Wanted {
        Wanted { goal, branch: None, prefix: None, history: true }
    }
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The revision.
    pub revision: Revision,
    /// When that transaction ran, in milliseconds since 1970.
    pub time_ms: u64,
    /// The branch that is main now, if it is not all.
    pub branch: Option<String>,
    /// Keys of all databases of the branches that are there.
    pub keys: u64,
    /// Every state from this on can be read: that which was restored, where it has
    /// no history.
    pub oldest: Revision,
}

/// Makes a data folder in `to`, which must be empty or not exist. Every file of
/// the backup that is read is checked.
///
/// # Errors
/// When the backup is damaged, has no such state, or was replaced meanwhile, or
/// when the folder cannot be written; nothing is left in it then.
pub fn restore(
    from: &Path,
    to: &Path,
    wanted: &Wanted,
    clock: &dyn Clock,
    rng: &mut dyn Rng,
) -> Result<Restored, BackupError> {
    restore_as(Contents::read(from)?, from, to, wanted, clock, rng)
}

/// Restores what the folder `from` holds by `contents`.
pub(super) fn restore_as(
    contents: Contents,
    from: &Path,
    to: &Path,
    wanted: &Wanted,
    clock: &dyn Clock,
    rng: &mut dyn Rng,
) -> Result<Restored, BackupError> {
    let backup = Backup { dir: from, contents, checked: RefCell::default() };
    let is_new = !to.exists();
    if let Some(name) = if is_new { None } else { names_in(to)?.into_iter().next() } {
        return Err(BackupError::NotEmpty { dir: to.to_owned(), name });
    }
    check_outside(to)?;
    // What a newer backup, or who keeps only some, has removed meanwhile is no damage.
    let told = |error| backup.contents.gone_from(from).unwrap_or(error);
    // What the archive need not be asked for is known at once.
    let upto = backup.resolve(&wanted.goal).map_err(told)?;
    let (archived, newest) = (backup.contents.archived(), backup.contents.newest());
    let replayed = upto.map_or((archived, newest), |upto| (archived.min(upto), upto));
    backup.check_log(replayed).map_err(told)?;
    if is_new {
        make_private_dir(to)?;
    }
    let stage = to.join(STAGE);
    let restored = make_private_dir(&stage)
        .and_then(|()| backup.restore(&stage, upto, wanted, clock, rng).map_err(told))
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

/// Refuses a folder inside of a backup or of a database's: it would go with it,
/// and be in the way of the next backup.
fn check_outside(to: &Path) -> Result<(), BackupError> {
    let absolute = std::path::absolute(to).map_err(BackupError::io("find", to))?;
    let there = absolute.ancestors().find(|folder| folder.exists()).unwrap_or(&absolute);
    let there = there.canonicalize().map_err(BackupError::io("find", there))?;
    let holds = |folder: &Path| {
        let has = |name: &str| folder.join(name).exists();
        match () {
            () if has(CONTENTS) => Some("a backup"),
            () if has("log/MANIFEST") || has("archive/base") => Some("a database"),
            () => None,
        }
    };
    match there.ancestors().find_map(|folder| Some((folder, holds(folder)?))) {
        None => Ok(()),
        Some((outer, what)) => {
            let (dir, outer) = (to.to_owned(), outer.to_owned());
            Err(BackupError::InsideOf { dir, outer, what })
        }
    }
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
    /// Files of the log that are known to be whole.
    checked: RefCell<BTreeSet<Revision>>,
}

impl Backup<'_> {
    /// The revision that a goal means; of a tag only the archive knows.
    fn resolve(&self, goal: &Goal) -> Result<Option<Revision>, BackupError> {
        let (oldest, newest) = (self.contents.oldest(), self.contents.newest());
        match *goal {
            Goal::Newest => Ok(Some(newest)),
            Goal::Tag(_) => Ok(None),
            Goal::Revision(asked) if self.contents.has(asked) => Ok(Some(asked)),
            Goal::Revision(asked) => Err(BackupError::NoRevision { asked, oldest, newest }),
            Goal::Time(asked_ms) => {
                let (oldest_ms, newest_ms) = (self.contents.oldest_ms, self.contents.newest_ms);
                if !(oldest_ms..=newest_ms).contains(&asked_ms) {
                    let error =
                        BackupError::NoTime { asked_ms, oldest, oldest_ms, newest, newest_ms };
                    return Err(error);
                }
                let mut found = oldest;
                self.replay((oldest, newest), &mut |record| {
                    if record.header.time_ms <= asked_ms {
                        found = found.max(record.revision);
                    }
                    Ok(())
                })?;
                Ok(Some(found))
            }
        }
    }

    /// The log's segments in order, each with its first revision.
    fn segments(&self) -> Vec<(Revision, &StoredFile)> {
        let files = self.contents.files.iter().filter_map(|file| match file.kind() {
            Some(Kind::Segment(first)) => Some((first, file)),
            _ => None,
        });
        let mut segments: Vec<_> = files.collect();
        segments.sort_unstable_by_key(|(first, _)| *first);
        segments
    }

    /// Those that have what came after a revision, up to another.
    fn segments_with(&self, (after, upto): (Revision, Revision)) -> Vec<(Revision, &StoredFile)> {
        let mut segments = self.segments();
        let begins = segments.partition_point(|(first, _)| *first <= after.next());
        segments.drain(..begins.saturating_sub(1));
        segments.retain(|(first, _)| *first <= upto.next());
        segments
    }

    /// Checks that the files of the log are whole that have what came after a
    /// revision, up to another.
    fn check_log(&self, records: (Revision, Revision)) -> Result<(), BackupError> {
        for (first, file) in self.segments_with(records) {
            if !self.checked.borrow().contains(&first) {
                self.check(file, &mut |_| Ok(()))?;
                self.checked.borrow_mut().insert(first);
            }
        }
        Ok(())
    }

    /// Makes `archive` and `log` in the folder.
    fn restore(
        &self,
        stage: &Path,
        upto: Option<Revision>,
        wanted: &Wanted,
        clock: &dyn Clock,
        rng: &mut dyn Rng,
    ) -> Result<Restored, BackupError> {
        let archive = stage.join("archive");
        self.copy_archive(&archive)?;
        let mut base = self.open(&archive, rng)?;
        if base.revision() != self.contents.archived() {
            let (found, expected) = (base.revision(), self.contents.archived());
            let what = format!("its archive is at revision {found}, not {expected}");
            return Err(BackupError::damaged(self.dir, what));
        }
        let mut tagged = None;
        let upto = match (&wanted.goal, upto) {
            (Goal::Tag(name), None) => {
                let tag = self.tag(&base, name)?;
                tagged = Some(tag.branch);
                tag.revision
            }
            (_, upto) => upto.expect("only a tag is not known before"),
        };
        // Of a branch that was renamed since, the newest name is known too.
        let newest = match &wanted.branch {
            Some(_) => Some(self.newest_branches(&base)?),
            None => None,
        };
        // What was erased later has left names in the states before.
        let erased: Vec<(BranchId, Purge)> = base
            .directory()
            .purges()
            .filter(|(_, purge)| purge.at > upto)
            .map(|(branch, purge)| (branch, purge.clone()))
            .collect();
        base = self.go_back(base, &archive, upto, !erased.is_empty(), rng)?;
        self.apply(&base, upto, &erased)?;
        let mut restored_branch = None;
        let is_part = wanted.branch.is_some() || wanted.prefix.is_some();
        if is_part {
            let id = match (&wanted.branch, &newest) {
                (Some(name), Some(newest)) => branch_named(&base, newest, name)?,
                _ => tagged.unwrap_or(BranchId::MAIN),
            };
            let name = base.directory().branches.name_of(id).unwrap_or_default().to_vec();
            restored_branch = Some(String::from_utf8_lossy(&name).into_owned());
            let part = stage.join("part");
            let chosen = self.open(&part, rng)?;
            let prefix = wanted.prefix.as_deref().unwrap_or_default();
            write_part(&base, &chosen, id, &|db, key| {
                let is_erased = erased.iter().any(|(of, purge)| *of == id && purge.covers(db, key));
                key.starts_with(prefix) && !is_erased
            })?;
            drop((base, chosen));
            base = self.replace(&archive, &part, rng)?;
        }
        // The states before have names that were erased later.
        let has_history = wanted.history && !is_part && erased.is_empty();
        let oldest = self.make_log(stage, upto, has_history, clock)?;
        let directory = base.directory();
        let (revision, time_ms, keys) =
            (directory.revision, directory.time_ms, directory.keys_there());
        Ok(Restored { revision, time_ms, branch: restored_branch, keys, oldest })
    }

    /// Makes `log`; answers the oldest state that can be read with it.
    fn make_log(
        &self,
        stage: &Path,
        upto: Revision,
        has_history: bool,
        clock: &dyn Clock,
    ) -> Result<Revision, BackupError> {
        let (dir, oldest) = (stage.join("log"), self.contents.oldest());
        if !has_history || oldest >= upto {
            create_from(&RealVfs, &dir, self.id(), &[], upto, clock)?;
            Past::begin_with(&stage.join("archive"), self.id(), upto)?;
            return Ok(upto);
        }
        // What the state itself needs was checked when it was made.
        let checked = self.check_log((oldest, upto));
        checked.map_err(|error| BackupError::NoHistory(Box::new(error)))?;
        let segments = self.segments_with((oldest, upto)).into_iter();
        let copies: Vec<SegmentCopy> = segments
            .map(|(first, file)| SegmentCopy { first, path: file.stored_in(self.dir) })
            .collect();
        create_from(&RealVfs, &dir, self.id(), &copies, upto, clock)?;
        Past::begin_with(&stage.join("archive"), self.id(), oldest)?;
        Ok(oldest)
    }

    /// Puts another archive in the place of the one that was made first.
    fn replace(
        &self,
        archive: &Path,
        by: &Path,
        rng: &mut dyn Rng,
    ) -> Result<Arc<Base>, BackupError> {
        fs::remove_dir_all(archive).map_err(BackupError::io("remove", archive))?;
        fs::rename(by, archive).map_err(BackupError::io("rename", by))?;
        self.open(archive, rng)
    }

    /// The branches and tags that there were in the end.
    fn newest_branches(&self, base: &Base) -> Result<Branches, BackupError> {
        let mut branches = base.directory().branches.clone();
        self.replay((self.contents.archived(), self.contents.newest()), &mut |record| {
            let applied = branches.apply(record.revision, record.header.time_ms, record.effects);
            applied.map(drop).map_err(|what| {
                let what = format!("revision {} does not fit: {what}", record.revision);
                BackupError::damaged(self.dir, what)
            })
        })?;
        Ok(branches)
    }

    fn tag(&self, base: &Base, name: &[u8]) -> Result<Tag, BackupError> {
        let branches = self.newest_branches(base)?;
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let tag = branches.tags().get(name).cloned().ok_or_else(|| {
            let known = branches.tags().keys().map(|name| text(name)).collect();
            BackupError::NoTag { name: text(name), known: Known(known) }
        })?;
        let (oldest, newest) = (self.contents.oldest(), self.contents.newest());
        match self.contents.has(tag.revision) {
            true => Ok(tag),
            false => Err(BackupError::NoRevision { asked: tag.revision, oldest, newest }),
        }
    }

    /// A base to which what came up to a revision is to be applied, from one
    /// that may have come further; if it can be, one to which there is something.
    fn go_back(
        &self,
        base: Arc<Base>,
        archive: &Path,
        upto: Revision,
        is_to_be_changed: bool,
        rng: &mut dyn Rng,
    ) -> Result<Arc<Base>, BackupError> {
        if base.revision() <= upto {
            return Ok(base);
        }
        let goal = if is_to_be_changed && upto > self.contents.oldest() {
            Revision(upto.0 - 1)
        } else {
            upto
        };
        let state = base.directory_at(goal)?;
        let reached = if state.revision == Revision::ZERO {
            let fresh = archive.with_extension("fresh");
            // Hashed alike: it goes on as the one that it takes the place of.
            let made = Base::open(&fresh, state.seed, CACHE_BYTES)?;
            drop((base, made));
            fs::remove_dir_all(archive).map_err(BackupError::io("remove", archive))?;
            fs::rename(&fresh, archive).map_err(BackupError::io("rename", fresh))?;
            let base = Base::open(archive, state.seed, CACHE_BYTES)?;
            base.adopt(self.id())?;
            Arc::new(base)
        } else {
            let base = Arc::into_inner(base).expect("nobody else has it");
            base.go_back(state.revision, |state| self.contents.has(state))?;
            self.open(archive, rng)?
        };
        if reached.revision() != state.revision || upto < state.revision {
            let (found, expected) = (reached.revision(), state.revision);
            let what = format!("its archive goes back to revision {found}, not {expected}");
            return Err(BackupError::damaged(self.dir, what));
        }
        Ok(reached)
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
        let read = Sums::of(&path, file.bytes.saturating_add(1), each);
        let sums = read.map_err(|error| match error {
            BackupError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
                let what = format!("the file is missing that {CONTENTS} names for {}", file.path);
                BackupError::damaged(&path, what)
            }
            error => error,
        })?;
        if sums.bytes != file.bytes || sums.sha256 != file.sha256 {
            let what = format!("it is not the {} bytes that {} had", file.bytes, file.path);
            return Err(BackupError::damaged(path, what));
        }
        match file.xxh3.as_ref().and_then(|written| sums.unlike_written(written)) {
            Some(what) => {
                let what = format!("{}: {what}; it was damaged before it was copied", file.path);
                Err(BackupError::damaged(path, what))
            }
            None => Ok(()),
        }
    }

    /// Brings the base to `upto`, without what was `erased` later.
    fn apply(
        &self,
        base: &Arc<Base>,
        upto: Revision,
        erased: &[(BranchId, Purge)],
    ) -> Result<(), BackupError> {
        let limits = EncodingLimits::default();
        let backing = BaseBacking::new(base.clone(), limits);
        let databases = self.contents.databases;
        let mut delta =
            Delta::new(base.clone(), backing, limits, databases, Waiting::new(WAITING_BYTES));
        if upto > delta.revision() {
            self.replay((delta.revision(), upto), &mut |record| {
                // What a branch begins with is read from the base.
                let is_state = delta.add(&record)?;
                if record.revision == upto {
                    erased.iter().try_for_each(|(of, purge)| delta.forget(*of, purge))?;
                }
                if is_state || delta.memory_bytes() > MEMORY_BYTES {
                    delta.write(true)?;
                }
                Ok(())
            })?;
        }
        if !delta.is_empty() {
            delta.write(true)?;
        }
        Ok(())
    }

    /// Visits the transactions after a revision, up to another, in order, and
    /// checks on the way that they are there.
    fn replay(
        &self,
        (after, upto): (Revision, Revision),
        each: &mut dyn FnMut(Record<'_>) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        self.check_log((after, upto))?;
        let mut last = after;
        for (first, file) in self.segments_with((after, upto)) {
            if last >= upto {
                break;
            }
            if first > last.next() {
                let what = format!("revision {} is missing, {} follows", last.next(), file.path);
                return Err(BackupError::damaged(self.dir, what));
            }
            let mut failed = Ok(());
            let visit = &mut |record: Record<'_>| {
                if record.revision <= last {
                    return ControlFlow::Continue(());
                }
                last = record.revision;
                failed = each(record);
                if failed.is_ok() && last < upto {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            };
            read_copy(&RealVfs, &file.stored_in(self.dir), self.id(), first, visit)?;
            failed?;
        }
        if last < upto {
            let what = format!("its log ends with revision {last}, not {upto}");
            return Err(BackupError::damaged(self.dir, what));
        }
        Ok(())
    }
}

/// The branch of a name at the base's revision, or in the end.
fn branch_named(base: &Base, newest: &Branches, name: &[u8]) -> Result<BranchId, BackupError> {
    let directory = base.directory();
    let branches = &directory.branches;
    let later = newest.named(name).filter(|id| branches.name_of(*id).is_some());
    branches.named(name).or(later).ok_or_else(|| {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let there = branches.iter().filter(|it| !it.is_deleted());
        let known = std::iter::once(&b"main"[..]).chain(there.map(|it| &it.name[..]));
        let (known, at) = (Known(known.map(text).collect()), directory.revision);
        match branches.deleted(name) {
            Some(_) => BackupError::DeletedBranch { name: text(name), at, known },
            None => BackupError::NoBranch { name: text(name), at, known },
        }
    })
}
