//! What the engine asks of the archive: how far it is, to go further, and to
//! make a backup.

use std::path::Path;
use std::sync::Arc;

use base::{Revision, SpaceId};
use tokio::sync::watch;

use crate::engine::Engine;

/// How far the archive is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpointed {
    /// A restart needs the log after this revision only.
    pub revision: Revision,
    /// When the last checkpoint ended, in milliseconds since 1970; 0 when
    /// there was none since the server started.
    pub finished_ms: u64,
    /// Milliseconds that it took.
    pub took_ms: u64,
    /// Checkpoints since the server started.
    pub count: u64,
    /// Why there is none now, and the next step.
    pub fault: Option<String>,
}

/// A backup, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The newest state in it.
    pub revision: Revision,
    /// The oldest.
    pub oldest: Revision,
    /// Its files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them were not there before.
    pub copied: usize,
    /// Bytes of those.
    pub copied_bytes: u64,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// What disk remembers besides the log. It follows the log by itself; a
/// checkpoint is the moment at which it has reached a revision.
pub trait Archive: Send + Sync {
    /// Follows how far it is.
    fn progress(&self) -> watch::Receiver<Checkpointed>;

    /// Asks for a checkpoint at `revision` or later, soon. Returns at once.
    fn request(&self, revision: Revision);

    /// As [`Archive::request`], for what only wants to have it archived: nothing
    /// else that goes with a checkpoint is done.
    fn hurry(&self, revision: Revision) {
        self.request(revision);
    }

    /// After a fault that may be over: it need not wait any longer before it tries
    /// again.
    fn retry(&self) {}

    /// Waits until it has reached a revision.
    ///
    /// # Errors
    /// Why it does not.
    fn settle(&self, revision: Revision) -> Result<(), String>;

    /// Keeps a space that a flush left, which the past has not let go of, until it
    /// has reached `upto`, with which a database stands there again, or until it is
    /// released. Answers whether it can.
    fn claim(&self, _space: SpaceId, _upto: Option<Revision>) -> bool {
        false
    }

    /// Ends a claim without a revision.
    fn release(&self, _space: SpaceId) {}

    /// Bytes of the log that it does not have. Past
    /// `Settings::archive_lag_bytes_max` writers wait, so every write asks.
    fn lag_bytes(&self) -> u64;

    /// Makes a backup of everything in the folder `to`, or brings the one there
    /// up to date; with the history, or only with states from the archive's on.
    /// Takes its time, and nobody else's.
    ///
    /// # Errors
    /// Why there is none; one that was there is what it was.
    fn backup(&self, to: &Path, with_history: bool) -> Result<BackedUp, String>;

    /// As [`Archive::backup`], in a new folder in `row`, of which no more than
    /// `keep` stay. It is read again before older ones go.
    ///
    /// # Errors
    /// As [`Archive::backup`].
    fn backup_in_row(
        &self,
        row: &Path,
        keep: usize,
        with_history: bool,
    ) -> Result<BackedUp, String>;

    /// When the newest backup in `row` was made, in milliseconds since 1970.
    fn newest_backup_ms(&self, row: &Path) -> Option<u64>;

    /// Lines for `INFO persistence`, as `(field, value)`.
    fn info(&self) -> Vec<(&'static str, String)>;
}

impl Engine {
    /// Gives the engine its archive, once.
    ///
    /// # Panics
    /// When it has one.
    pub fn attach_archive(&self, archive: Arc<dyn Archive>) {
        assert!(self.archive.set(archive).is_ok(), "the engine has an archive already");
    }

    /// The archive; a server without a log has none.
    #[must_use]
    pub fn archive(&self) -> Option<&Arc<dyn Archive>> {
        self.archive.get()
    }
}
