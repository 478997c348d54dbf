//! The slow log: the last commands that took long.

use command::Command;

use crate::engine::Live;
use crate::session::Session;

/// The last slow commands, newest first.
#[derive(Debug, Default)]
pub(crate) struct SlowLog;

impl SlowLog {
    /// Keeps a command that took `ns` nanoseconds.
    pub(crate) fn record(
        &self,
        _session: &Session,
        _live: &Live,
        _command: &Command,
        _argv: &[&[u8]],
        _ns: u64,
        _now_ms: u64,
    ) {
    }
}
