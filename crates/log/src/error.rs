use std::io;
use std::path::PathBuf;

use base::Revision;
use thiserror::Error;

use crate::identity::NAME as MANIFEST;
use crate::vfs::at;

/// Why a log cannot be opened. Each message names the file, the offset where
/// there is one, and the next step.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum LogError {
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} is in use by another server; stop it, or choose another --data-dir",
        path.display()
    )]
    Locked { path: PathBuf },
    #[error(
        "{} belongs to another user; run the server as its owner or choose another --data-dir",
        path.display()
    )]
    NotOurs { path: PathBuf },
    #[error(
        "{} at byte {offset} is damaged: {what}; inspect it with `alcid log check --data-dir <folder>`, \
         restore a backup, or cut the log there with `alcid log check --repair`",
        path.display()
    )]
    Damaged { path: PathBuf, offset: u64, what: String },
    #[error(
        "the segment with revision {revision} is missing from {} ({found}); put the file back, restore a backup, \
         or see what is left with `alcid log check --data-dir <folder>`",
        dir.display()
    )]
    MissingSegment { dir: PathBuf, revision: Revision, found: String },
    #[error(
        "{} belongs to another database ({found}, not {expected}); move it out of the folder",
        path.display()
    )]
    Foreign { path: PathBuf, found: String, expected: String },
    #[error(
        "{} is what was written as {name}; give the segments their names back, or restore a backup (`alcid restore`)",
        path.display()
    )]
    Misnamed { path: PathBuf, name: String },
    #[error(
        "{} has format version {found}, this Alcid reads up to {known}; start a newer Alcid",
        path.display()
    )]
    NewerFormat { path: PathBuf, found: u32, known: u32 },
    #[error(
        "{} is not there, though there are segments of the log beside it; put the file back, or restore a backup \
         (`alcid restore`)",
        at(dir, MANIFEST).display()
    )]
    NoManifest { dir: PathBuf },
    #[error(
        "there is no log in {}: name the server's data folder with --data-dir, or the log's own with --aof-path",
        dir.display()
    )]
    NoLog { dir: PathBuf },
    #[error(
        "the log in {} begins with revision {first}, so an archive must hold what came before; say with \
         `--base <revision>` which revision that archive has reached, so that nothing above it is cut without need",
        dir.display()
    )]
    UnknownBase { dir: PathBuf, first: Revision },
    #[error(
        "revision {revision} is not in the log in {} any more, the next one there is {found}; restore a backup \
         that reaches that far",
        dir.display()
    )]
    NotHeld { dir: PathBuf, revision: Revision, found: Revision },
    #[error("revision {revision} cannot be applied: {reason}")]
    Refused { revision: Revision, reason: String },
}

impl LogError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> LogError {
        let path = path.into();
        move |source| LogError::Io { action, path, source }
    }
}

/// Why a running log takes no more transactions.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogFault {
    /// A write or a sync failed. It is never tried again: what the disk holds
    /// is known only after a restart reads it back.
    #[error("the log has failed for good ({0}); restart the server once the disk is well")]
    Poisoned(String),
    /// There is no room: on the disk, in a quota, for another open file. What was
    /// acknowledged is safe; writes go on after room is made and the log resumes.
    #[error(
        "there is no room for the log ({0}); make some: writes go on by themselves then, and at once after CONFIG SET appendonly yes"
    )]
    Full(String),
}

/// Whether what the system refused can be done later as it is: nothing is known to
/// be wrong with the disk, there is only no room.
pub(crate) fn is_no_room(error: &io::Error) -> bool {
    /// Too many open files, in the system (ENFILE) or the process (EMFILE), which
    /// have no kind of their own.
    const OPEN_FILES: [i32; 2] = [23, 24];
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || cfg!(unix) && error.raw_os_error().is_some_and(|code| OPEN_FILES.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_is_told_from_broken_disks() {
        // ENOSPC, EDQUOT, ENFILE and EMFILE; EIO, EROFS, EACCES and EFBIG.
        let codes = [28, 122, 23, 24, 5, 30, 13, 27];
        let found = codes.map(|code| is_no_room(&io::Error::from_raw_os_error(code)));
        assert_eq!(found, [true, true, true, true, false, false, false, false]);
    }
}
