//! CLIENT TRACKING: telling clients that cache which of their keys changed.

use command::Command;
use keyspace::Finished;

use crate::engine::Engine;
use crate::session::Session;

/// A session's side of tracking.
#[derive(Debug, Default)]
pub(crate) struct TrackingState;

/// Which clients cache which keys.
#[derive(Debug, Default)]
pub(crate) struct Tracking;

impl Tracking {
    /// Whether no client tracks anything: nobody reads effects for us then.
    pub(crate) fn is_empty(&self) -> bool {
        true
    }

    /// Forgets a client that left.
    pub(crate) fn forget(&self, _client: u64) {}

    /// Tells clients that cache keys which `effects` changed. `session` made
    /// the change.
    pub(crate) fn invalidate(
        &self,
        engine: &Engine,
        session: &Session,
        finished: &Finished,
        effects: &[u8],
    ) {
        self.invalidate_for(engine, session.client.id, finished, session.db, effects);
    }

    /// As `invalidate`, for a change made by that client's blocked command or,
    /// with 0, by the server (expiry).
    pub(crate) fn invalidate_for(
        &self,
        _engine: &Engine,
        _client: u64,
        _finished: &Finished,
        _db: u16,
        _effects: &[u8],
    ) {
    }
}

impl Engine {
    /// Remembers the keys that a client read, if it tracks.
    pub(crate) fn track_reads(&self, _session: &mut Session, _command: &Command, _argv: &[&[u8]]) {}
}
