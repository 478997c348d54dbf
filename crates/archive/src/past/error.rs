use base::{DbIndex, Revision};
use keyspace::effect::EffectError;
use keyspace::{ApplyError, BackingError};
use log::LogError;
use thiserror::Error;

use crate::error::ArchiveError;
use crate::history::HistoryError;

/// Why the past does not answer.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum PastError {
    #[error("revision {asked} is older than the oldest kept, {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("revision {asked} is newer than the current revision, {newest}")]
    Future { asked: Revision, newest: Revision },
    #[error(
        "revision {asked} is not in the log's files yet; ask again once its disk has caught up"
    )]
    NotYet { asked: Revision },
    #[error("it takes long to read, and was asked for in haste")]
    TakesLong,
    #[error("no history is kept since revision {noted}: {reason}; it goes on after a restart")]
    Stopped { noted: Revision, reason: String },
    #[error("revision {revision} does not fit the state before it: {source}")]
    Misfit { revision: Revision, source: ApplyError },
    #[error("revision {revision} of the log is malformed: {source}")]
    Malformed { revision: Revision, source: EffectError },
    #[error(
        "a backup is being made of what is to be erased, up to revision {revision}; try again when it is done"
    )]
    BackedUp { revision: Revision },
    #[error(
        "databases {a} and {b} changed places at revision {revision}; HISTORY.COMPACT BEFORE it first"
    )]
    Swapped { a: DbIndex, b: DbIndex, revision: Revision },
    #[error(
        "databases {a} and {b} have changed places since a state that a branch or a tag keeps; delete those older \
         than that first"
    )]
    Mixed { a: DbIndex, b: DbIndex },
    #[error("the log begins no new segment: {0}")]
    Unrolled(String),
    #[error("the archive is at revision {archived}, which is not yet {wanted}")]
    Behind { archived: Revision, wanted: Revision },
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Backing(#[from] BackingError),
    #[error("read the log for its history: {0}")]
    Log(#[from] LogError),
}

impl PastError {
    /// The revision asked for and the oldest kept, if retention has dropped it, also
    /// where that was found out in the middle of reading.
    #[must_use]
    pub fn as_compacted(&self) -> Option<(Revision, Revision)> {
        match self {
            PastError::Compacted { asked, oldest } => Some((*asked, *oldest)),
            PastError::Backing(error)
            | PastError::Misfit { source: ApplyError::Backing(error), .. } => error.as_compacted(),
            _ => None,
        }
    }
}

impl From<PastError> for BackingError {
    fn from(error: PastError) -> BackingError {
        match error.as_compacted() {
            Some((asked, oldest)) => BackingError::compacted(asked, oldest),
            None => BackingError::new(error.to_string()),
        }
    }
}
