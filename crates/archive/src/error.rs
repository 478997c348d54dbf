use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the archive cannot be used. Every message names the folder.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The LSM cannot be opened, read or written.
    #[error("{what} the archive in {}: {}", .dir.display(), plain(.source))]
    Tree {
        /// What was being done.
        what: &'static str,
        /// The archive's folder.
        dir: PathBuf,
        /// The LSM's own words.
        source: lsm_tree::Error,
    },
    /// A table of the LSM cannot be read.
    #[error(
        "{}{}: {what}; restore a backup (`alcid restore`), or see the server's log",
        .path.display(), .offset.map_or(String::new(), |at| format!(" at byte {at}"))
    )]
    Table {
        /// The file.
        path: PathBuf,
        /// Where in it, if that is known.
        offset: Option<u64>,
        /// What is wrong with it.
        what: String,
    },
    /// Bytes in it are not what this version writes.
    #[error(
        "the archive in {} is damaged: {what}; restore a backup (`alcid restore`), or move the folder away if the log \
         still begins at revision 1, and the archive is made again from it",
        .dir.display()
    )]
    Damaged {
        /// The archive's folder.
        dir: PathBuf,
        /// What was found.
        what: String,
    },
    /// Written by a newer version.
    #[error(
        "the archive in {} has format {found}, this version reads up to {known}; start the newer version",
        .dir.display()
    )]
    NewerFormat {
        /// The archive's folder.
        dir: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format known here.
        known: u64,
    },
    /// Another server has it open.
    #[error("the archive in {} is in use by another server", .dir.display())]
    InUse {
        /// The archive's folder.
        dir: PathBuf,
    },
    /// It belongs to another log.
    #[error("the archive in {} belongs to another database than the log beside it", .dir.display())]
    Foreign {
        /// The archive's folder.
        dir: PathBuf,
    },
    /// A transaction of the log does not fit the state before it.
    #[error("revision {revision} of the log does not fit the archive in {}: {what}", .dir.display())]
    Misfit {
        /// The archive's folder.
        dir: PathBuf,
        /// The transaction.
        revision: base::Revision,
        /// How it does not fit.
        what: String,
    },
    /// A state is asked for that it has not reached.
    #[error("the archive in {} has not reached revision {asked} yet", .dir.display())]
    Behind {
        /// The archive's folder.
        dir: PathBuf,
        /// The state.
        asked: base::Revision,
    },
    /// There were more databases then than there are now.
    #[error(
        "there were keys in database {db} then, but server.databases is {databases}: raise it to {} at least",
        u32::from(*db) + 1
    )]
    NoDatabase {
        /// The last database that had keys.
        db: base::DbIndex,
        /// Databases that there are.
        databases: base::DbIndex,
    },
    /// The log cannot be followed.
    #[error("follow the log: {0}")]
    Log(#[from] log::LogError),
    /// It does not come to what is asked for.
    #[error("the archive does not follow the log: {0}")]
    Stopped(String),
}

/// The LSM shows what the system says as a value of its own.
fn plain(error: &lsm_tree::Error) -> String {
    match error {
        lsm_tree::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

impl ArchiveError {
    /// Whether it may do to try again: what the system refused, such as room on
    /// the disk, and not what is wrong with bytes that are there.
    pub(crate) fn may_pass(&self) -> bool {
        let refused = match self {
            ArchiveError::Tree { source: lsm_tree::Error::Io(error), .. } => error,
            ArchiveError::Log(log::LogError::Io { source, .. }) => source,
            _ => return false,
        };
        !matches!(
            refused.kind(),
            ErrorKind::NotFound
                | ErrorKind::UnexpectedEof
                | ErrorKind::InvalidData
                | ErrorKind::InvalidInput
        )
    }

    pub(crate) fn tree(
        what: &'static str,
        dir: &Path,
    ) -> impl FnOnce(lsm_tree::Error) -> ArchiveError {
        let dir = dir.to_owned();
        move |source| ArchiveError::Tree { what, dir, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_told_in_its_words() {
        let refused = std::io::Error::from_raw_os_error(30);
        let error = ArchiveError::tree("lock", Path::new("/data/archive"))(refused.into());
        let expected = "lock the archive in /data/archive: Read-only file system (os error 30)";
        assert_eq!(error.to_string(), expected);
    }
}
