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

use super::changes::Changes;
use super::common::{Place, Then};
use crate::aside;
use crate::engine::Engine;
use crate::travel::{Moment, Unchanged, view_options};

/// Keys up to which each is read by itself rather than from the whole state.
const NAMED_KEYS_MAX: usize = 1000;

/// A branch as it is now, and a revision of it that memory may tell of.
type Near = (Arc<Keyspace>, Revision);

/// Who has a state of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The archive, as one that others began with or took.
    Archive,
    /// The history, as long as it reaches so far back.
    History,
}

/// A state of a branch as of a revision that can be read.
pub(super) struct Kept {
    state: (BranchId, Revision),
    keeper: Keeper,
    /// Who has the same in memory, where it has not changed since.
    near: Vec<Near>,
    opened: Option<Arc<Keyspace>>,
}

impl Kept {
    pub(super) fn new(engine: &Engine, state: (BranchId, Revision), keeper: Keeper) -> Kept {
        let (branch, at) = state;
        let mut near = Vec::from_iter(near(engine, branch, at));
        let row = engine.branches.known.read().get(branch).cloned();
        // It is what the branch began with: what its parent had then.
        if let Some(row) = row.filter(|row| row.forked == at && row.base == at) {
            near.extend(self::near(engine, row.parent, row.base));
        }
        Kept { state, keeper, near, opened: None }
    }

    /// All of it. Waits for the archive to have it.
    pub(super) fn open(&mut self, engine: &Engine) -> Result<Arc<Keyspace>> {
        if let Some(opened) = &self.opened {
            return Ok(opened.clone());
        }
        let (branch, at) = self.state;
        let opened = match self.keeper {
            Keeper::Archive => engine.needs_branching()?.state(branch, at)?,
            Keeper::History => engine.needs_past()?.view(branch, at)?,
        };
        self.opened = Some(opened.clone());
        Ok(opened)
    }

    /// What a key held at a time, if it existed.
    pub(super) fn value(
        &mut self,
        engine: &Engine,
        time_ms: u64,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Then> {
        let mut known = self.near.iter().map(|near| from_memory(engine, near, time_ms, db, key));
        if let Some(then) = known.find_map(|known| known) {
            return Ok(then);
        }
        let (branch, at) = self.state;
        match engine.value_near(branch, at, time_ms, db, key)? {
            Some(near) => Ok(near),
            None => engine.value_in(&*self.open(engine)?, time_ms, db, key),
        }
    }
}

/// What memory may tell of a branch at a revision, if anything.
fn near(engine: &Engine, branch: BranchId, at: Revision) -> Option<Near> {
    let keyspace = engine.branch(branch)?.keyspace.clone();
    // One that has begun anew since is another; it is known as such before it
    // serves.
    let forked = engine.branches.known.read().get(branch).map(|row| row.forked);
    (forked.unwrap_or_default() <= at).then_some((keyspace, at))
}

fn from_memory(
    engine: &Engine,
    (keyspace, at): &Near,
    time_ms: u64,
    db: DbIndex,
    key: &[u8],
) -> Option<Then> {
    if db >= keyspace.databases() {
        return None;
    }
    let (live, mut buffers) = (engine.live(), Buffers::default());
    let options = view_options(&live, time_ms);
    let mut txn = Txn::begin_on_key(keyspace, key, &Unchanged, &mut buffers, options);
    txn.keep_due();
    txn.select(db);
    match txn.since(key, *at) {
        Since::Unchanged(_) => {
            let value = txn.look(key).map(|value| value.to_shared());
            let deadline = txn.deadline(key).flatten();
            drop(txn);
            Some(value.map(|mut value| {
                value.own_outline();
                (value, deadline)
            }))
        }
        Since::Absent => Some(None),
        Since::Unknown => None,
    }
}

/// What a key of a branch holds now, due or not. Waits for what takes long to
/// read with no lock held.
pub(super) fn present(engine: &Engine, keyspace: &Keyspace, (db, key): &Place) -> Result<Then> {
    if *db < keyspace.databases() {
        aside::bring(keyspace, *db, key)?;
    }
    let mut then = engine.value_in(keyspace, 0, *db, key)?;
    then.iter_mut().for_each(|(value, _)| value.own_outline());
    Ok(then)
}

/// See the module's documentation.
pub(super) struct Values<'v> {
    engine: &'v Arc<Engine>,
    db: DbIndex,
    moment: Moment,
    /// The branch as it is now, if that tells of the moment at all.
    present: Option<Near>,
    /// What has changed since a state that the archive keeps, up to the moment.
    since: Option<(Arc<Changes>, Kept)>,
    past: Option<Arc<Keyspace>>,
    /// Keys that the past was asked for.
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
        since: Option<(Arc<Changes>, (BranchId, Revision))>,
    ) -> Values<'v> {
        let (branch, at) = engine.line_of(moment).at(moment.revision);
        let present = near(engine, branch, at);
        let since = since.filter(|(changes, _)| !changes.whole().contains(&db));
        let since =
            since.map(|(changes, state)| (changes, Kept::new(engine, state, Keeper::Archive)));
        Values { engine, db, moment, present, since, past: None, asked: 0 }
    }

    /// What a key held, if it existed.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Then> {
        let (engine, db, time_ms) = (self.engine, self.db, self.moment.time_ms);
        let present = self.present.as_ref();
        if let Some(then) = present.and_then(|near| from_memory(engine, near, time_ms, db, key)) {
            return Ok(then);
        }
        if let Some((changes, kept)) = &mut self.since
            && !changes.has(&(db, key.to_vec()))
        {
            return kept.value(engine, time_ms, db, key);
        }
        let (branch, at) = engine.line_of(self.moment).at(self.moment.revision);
        if let Some(near) = engine.value_near(branch, at, time_ms, db, key)? {
            return Ok(near);
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
}
