use std::io;
use std::path::PathBuf;

use base::Revision;
use keyspace::effect::EffectError;
use log::LogError;
use thiserror::Error;

/// Why the history cannot be kept or read.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum HistoryError {
    #[error("{action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("read the log for its history: {0}")]
    Log(#[from] LogError),
    #[error(
        "{} cannot be used ({what}), though it was just made; check the disk",
        path.display()
    )]
    Unusable { path: PathBuf, what: String },
    #[error(
        "the history lacks revisions {expected} to {}; it goes on after a restart",
        found.0.saturating_sub(1)
    )]
    Gap { expected: Revision, found: Revision },
    #[error("revision {revision} has no place in the history: {source}; a newer Alcid wrote it")]
    Malformed { revision: Revision, source: EffectError },
    #[error(
        "the segment that begins with revision {segment} has no room for revision {revision} in its index: \
         a segment has at most {} records; make segments smaller",
        1u64 << 32
    )]
    TooLong { segment: Revision, revision: Revision },
    #[error(
        "the segment that begins with revision {segment} ends before revision {revision}, which it should \
         hold; inspect it with `alcid log check`"
    )]
    Short { segment: Revision, revision: Revision },
}

impl HistoryError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> HistoryError {
        let path = path.into();
        move |source| HistoryError::Io { action, path, source }
    }
}
