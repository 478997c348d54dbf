//! What a command is tried on: the keys of the client's branch as they are, or, of
//! a client that travels, as they were.

use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use command::Result;
use keyspace::{Event, Keyspace};

use crate::call::Call;
use crate::engine::Engine;
use crate::travel::Moment;

/// See the module's documentation.
pub(super) struct Ground {
    pub(super) keyspace: Arc<Keyspace>,
    /// The time there, in milliseconds since 1970.
    pub(super) now_ms: u64,
    branch: BranchId,
    view: Option<Moment>,
}

impl Ground {
    /// That of the client, for commands that look at no more than these keys.
    pub(super) fn of<'p>(
        call: &Call<'_, '_>,
        places: impl IntoIterator<Item = (DbIndex, &'p [u8])>,
    ) -> Result<Ground> {
        let (engine, branch) = (call.engine, call.session.branch());
        let Some(moment) = call.session.travel else {
            let keyspace = engine.branch_of(call.session).keyspace.clone();
            return Ok(Ground { keyspace, now_ms: call.now_ms, branch, view: None });
        };
        for (db, key) in places {
            engine.check_kept(moment.branch, moment.revision, db, key)?;
        }
        let keyspace = engine.view_of_keys_at(moment)?;
        Ok(Ground { keyspace, now_ms: moment.time_ms, branch, view: Some(moment) })
    }

    /// The revision that it has, or at least that.
    pub(super) fn revision(&self, engine: &Engine) -> Revision {
        self.view.map_or_else(|| engine.replicator.newest(), |moment| moment.revision)
    }

    /// How many clients would be told of events: nobody listens in the past.
    pub(super) fn listeners_to(&self, engine: &Engine, events: &[Event]) -> usize {
        if self.view.is_some() { 0 } else { engine.listeners_to(self.branch, events) }
    }
}
