//! What keys of a branch held at a moment, from where that is read at the least
//! cost.
//!
//! Mostly memory has it: a key that has not changed since the moment is what it
//! is now. A key that the branch has not changed since it parted from another is
//! what both had then, which the archive keeps. Only for the others the past is
//! asked.

use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use command::Result;
use keyspace::{Buffers, Keyspace, Since, Txn};

use super::common::{Changes, Then};
use crate::engine::Engine;
use crate::travel::{Moment, Unchanged, view_options};

/// Keys up to which each is read by itself rather than from the whole state.
const NAMED_KEYS_MAX: usize = 1000;

/// See the module's documentation.
pub(super) struct Values<'v> {
    engine: &'v Arc<Engine>,
    db: DbIndex,
    moment: Moment,
    /// Whose state that is, and which.
    at: Revision,
    /// The branch as it is now, if that tells of the moment at all.
    present: Option<Arc<Keyspace>>,
    /// What has changed since a state that the archive keeps, up to the moment.
    since: Option<(Changes, (BranchId, Revision))>,
    kept: Option<Arc<Keyspace>>,
    past: Option<Arc<Keyspace>>,
    asked: usize,
}

impl<'v> Values<'v> {
    /// Those of a database. `since`: all that has changed on the branch from a
    /// state of the archive, of that branch as of that revision, up to the
    /// moment.
    pub(super) fn new(
        engine: &'v Arc<Engine>,
        moment: Moment,
        db: DbIndex,
        since: Option<(Changes, (BranchId, Revision))>,
    ) -> Values<'v> {
        let (branch, at) = engine.line(moment.branch).at(moment.revision);
        let present = engine.branch(branch).map(|live| live.keyspace.clone());
        // One that has begun anew since is another; it is known as such before it
        // serves.
        let forked = engine.branches.known.read().get(branch).map(|row| row.forked);
        let present = present.filter(|it| {
            forked.unwrap_or_default() <= at && db < it.databases()
        });
        let since = since.filter(|(changes, _)| !changes.whole.contains(&db));
        Values { engine, db, moment, at, present, since, kept: None, past: None, asked: 0 }
    }

    /// What a key held, if it existed.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Then> {
        if let Some(then) = self.from_memory(key) {
            return Ok(then);
        }
        let (engine, db, time_ms) = (self.engine, self.db, self.moment.time_ms);
        if let Some((changes, state)) = &self.since
            && !changes.keys.contains_key(&(db, key.to_vec()))
            && let Some(branching) = engine.branches.branching.get()
        {
            if self.kept.is_none() {
                self.kept = Some(branching.state(state.0, state.1)?);
            }
            let kept = self.kept.as_ref().expect("just opened");
            return engine.value_in(kept, time_ms, db, key);
        }
        self.asked += 1;
        if self.past.is_none() || self.asked == NAMED_KEYS_MAX {
            self.past = Some(match self.asked < NAMED_KEYS_MAX {
                true => engine.view_of_keys_at(self.moment)?,
                false => engine.view_at(self.moment)?,
            });
        }
        let past = self.past.as_ref().expect("just opened");
        engine.value_in(past, time_ms, db, key)
    }

    fn from_memory(&self, key: &[u8]) -> Option<Then> {
        let keyspace = self.present.as_ref()?;
        let (live, mut buffers) = (self.engine.live(), Buffers::default());
        let options = view_options(&live, self.moment.time_ms);
        let mut txn = Txn::begin_on_key(keyspace, key, &Unchanged, &mut buffers, options);
        txn.keep_due();
        txn.select(self.db);
        match txn.since(key, self.at) {
            Since::Unchanged(_) => {
                let value = txn.look(key).map(|value| value.to_value());
                Some(value.map(|value| (value, txn.deadline(key).flatten())))
            }
            Since::Absent => Some(None),
            Since::Unknown => None,
        }
    }
}
