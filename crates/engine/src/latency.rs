//! LATENCY: samples of events that took long.

use command::Command;

use crate::engine::Live;

/// Samples by event.
#[derive(Debug, Default)]
pub(crate) struct Latency;

impl Latency {
    /// Samples a command that took `ns` nanoseconds if that is over the
    /// threshold. On the path of every command: the common case is one compare.
    pub(crate) fn command(&self, _live: &Live, _command: &Command, _ns: u64, _now_ms: u64) {}
}
