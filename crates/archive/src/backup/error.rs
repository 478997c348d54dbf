use std::path::PathBuf;
use std::{fmt, io};

use base::Revision;
use base::when::utc;
use thiserror::Error;

use super::CONTENTS;
use crate::error::ArchiveError;
use crate::history::HistoryError;

/// Why there is no backup, or nothing restored from one.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum BackupError {
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the folder {path:?} is relative; name it from the root on, for it is the server that writes there"
    )]
    Relative { path: PathBuf },
    #[error(
        "the folder {} for a backup and {}, where the data is, are one inside the other; choose a folder \
         elsewhere, best on another disk",
        dir.display(), data.display()
    )]
    Inside { dir: PathBuf, data: PathBuf },
    #[error(
        "{} holds {name:?}, which is no part of a backup; choose an empty folder, or one with a backup of this \
         database",
        dir.display()
    )]
    Occupied { dir: PathBuf, name: String },
    #[error("{} holds a backup of another database ({found}, not {expected}); choose another folder", dir.display())]
    Foreign { dir: PathBuf, found: String, expected: String },
    #[error("another backup is being written to {}; wait until it is done", dir.display())]
    InUse { dir: PathBuf },
    #[error("there is no backup in {}: no file {CONTENTS}", dir.display())]
    NoBackup { dir: PathBuf },
    #[error("a newer backup has taken the place of the one in {} while that was read; try again", dir.display())]
    Replaced { dir: PathBuf },
    #[error("the backup in {} was removed while it was read; take a newer one", dir.display())]
    Removed { dir: PathBuf },
    #[error("{} is damaged: {what}; move the folder away and use, or make, another backup", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error(
        "{} is damaged: {what}; only the history up to revision {last} needs it: make the backup without the \
         history (NOHISTORY, `alcid backup --no-history`), or let go of it with HISTORY.COMPACT BEFORE a later one",
        path.display()
    )]
    DamagedHistory { path: PathBuf, what: String, last: Revision },
    #[error("{0}; only the history needs it: `alcid restore --no-history` goes on without it")]
    NoHistory(#[source] Box<BackupError>),
    #[error("{} has format {found}, this version reads up to {known}; use the newer version", path.display())]
    NewerFormat { path: PathBuf, found: u64, known: u64 },
    #[error("{} is not empty: it holds {name:?}; name a folder that is empty, or does not exist", dir.display())]
    NotEmpty { dir: PathBuf, name: String },
    #[error(
        "{} is inside of {}, which holds {what}; name a folder elsewhere",
        dir.display(), outer.display()
    )]
    InsideOf { dir: PathBuf, outer: PathBuf, what: &'static str },
    #[error(
        "revision {asked} is not in the backup: it has every state from revision {oldest} to {newest}"
    )]
    NoRevision { asked: Revision, oldest: Revision, newest: Revision },
    #[error(
        "the state of {} is not in the backup: it has every state from revision {oldest} of {} to revision \
         {newest}, the newest at {}",
        utc(*asked_ms), utc(*oldest_ms), utc(*newest_ms)
    )]
    NoTime { asked_ms: u64, oldest: Revision, oldest_ms: u64, newest: Revision, newest_ms: u64 },
    #[error("no tag of the backup is named '{name}'; it has {known}")]
    NoTag { name: String, known: Known },
    #[error("no branch was named '{name}' at revision {at}; there were {known}")]
    NoBranch { name: String, at: Revision, known: Known },
    #[error(
        "the branch '{name}' is deleted at revision {at}: restore a state from before that with --at, or everything, \
         and take its deletion back with UNDO; there were {known}"
    )]
    DeletedBranch { name: String, at: Revision, known: Known },
    #[error("{} is no sound backup: {problems}", dir.display())]
    Unsound { dir: PathBuf, problems: String },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Log(#[from] log::LogError),
    #[error("the log takes nothing more: {0}")]
    Fault(#[from] log::LogFault),
}

/// Names that there are.
#[derive(Debug)]
pub struct Known(pub(super) Vec<String>);

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "" })?;
        f.write_str(&self.0.join(", "))
    }
}

impl BackupError {
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> BackupError {
        let path = path.into();
        move |source| BackupError::Io { action, path, source }
    }

    pub(super) fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> BackupError {
        BackupError::Damaged { path: path.into(), what: what.into() }
    }
}
