//! What the engine asks of the archive: how far it is, and to go further.

use std::sync::Arc;

use base::Revision;
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
    /// Why there will be none any more.
    pub fault: Option<String>,
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

    /// Whether writers should wait: it lags further behind than is allowed.
    fn is_congested(&self) -> bool;

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
