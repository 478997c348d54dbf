//! A branch that begins with what its parent had at an earlier time.
//!
//! It begins with a state of the archive, the newest before that time, and its
//! first record is also what its parent did from there on: all of it together
//! is one revision.
//!
//! The disk is read for it before those who change branches wait: then it is
//! seen whether what was read is still what the branch is to be.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use command::{Error, Result};
use keyspace::effect::{Cause, Effect};
use keyspace::{Branch, Buffers, Keyspace, Purge, Spaces, Value, dump};
use parking_lot::MutexGuard;

use super::commands::check_free;
use super::create::{Asker, no_parent};
use super::{Line, LiveBranch};
use crate::engine::Engine;
use crate::history::events;
use crate::travel::Moment;

/// How often what a branch begins with is read before others wait for it.
const LOOKS_MAX: usize = 4;

/// What may change what a branch is at a revision of its past.
#[derive(PartialEq, Eq)]
struct Basis {
    /// Whose state that is.
    parent: BranchId,
    /// The revision of it.
    base: Revision,
    /// The branch's line and that one's.
    lines: [Line; 2],
    /// Whether that one has not been deleted.
    has_parent: bool,
    purges: Vec<(BranchId, Purge)>,
}

/// What a branch begins with.
struct Beginning {
    basis: Basis,
    /// The state of the archive, and where the databases stood then.
    state: Revision,
    spaces: Spaces,
    /// What makes that state the one of the basis.
    effects: Vec<u8>,
}

impl Engine {
    /// Makes a branch that has what another one had at a moment of its line. Answers it, and the record's revision.
    pub(crate) fn fork_at(
        self: &Arc<Self>,
        row: Branch,
        at: Moment,
        asker: &Asker,
    ) -> Result<(Branch, Revision)> {
        let (turn, Beginning { basis, state, spaces, mut effects }) = self.begin(&row, at)?;
        if !self.branches.known.read().has(basis.parent) {
            return Err(gone_for_good(&self.branch_name(at.branch), at.revision));
        }
        let (branching, live, past) = (self.needs_branching()?, self.live(), self.needs_past()?);
        let id = self.branches.known.read().next_id();
        let row = &Branch { id, parent: basis.parent, base: basis.base, ..row };
        let mut first = Vec::new();
        asker.origin().iter().for_each(|origin| origin.encode(&mut first));
        Effect::Fork { row: &row.encode(), state: Some(state) }.encode(&mut first);
        effects.splice(..0, first);
        let revision = self.replicator.reserve();
        let ancestors = self.ancestors(row.parent);
        let child = branching.fork(ancestors, &spaces, state, revision);
        // From the fork on the archive keeps the state; before, the past did.
        let applied = past.keeps_state(state).map_err(Error::from).and_then(|()| {
            let mut buffers = Buffers::default();
            child
                .apply(revision, asker.now_ms, 0, &effects, &live.encoding, &mut buffers)
                .map_err(|error| Error::new(format!("ERR the branch cannot be made: {error}")))
        });
        // What is written later waits for this record meanwhile; but one that cannot
        // be applied, as a start would have to, must never be there.
        if let Err(error) = applied {
            // A revision that was given out is in the log whatever happens.
            self.replicator.append(revision, asker.now_ms, 0, &[]);
            self.revision_written(revision);
            return Err(error);
        }
        self.replicator.append_on(row.id, revision, asker.now_ms, 0, &effects);
        self.take_in(revision, asker.now_ms, &effects);
        self.recall_moves_of(row.id, &child, row.base);
        self.add_branch(LiveBranch::new(row, child, self.replicator.clone(), state));
        self.revision_written(revision);
        let made = self.branches.known.read().get(id).cloned();
        drop(turn);
        self.outlast(revision, &effects);
        Ok((made.expect("just made"), revision))
    }

    /// Reads what a branch begins with, and takes the turn of those who change
    /// branches. To read may take long, so others have their turns meanwhile,
    /// unless they come again and again with what makes it another.
    fn begin(&self, row: &Branch, at: Moment) -> Result<(MutexGuard<'_, ()>, Beginning)> {
        check_free(self, &row.name)?;
        let past = self.needs_past()?;
        for _ in 0..LOOKS_MAX {
            let found = self.read_beginning(at)?;
            let turn = self.branches.turn.lock();
            check_free(self, &row.name)?;
            if self.basis(at)? == found.basis && past.keeps_state(found.state).is_ok() {
                return Ok((turn, found));
            }
        }
        let turn = self.branches.turn.lock();
        check_free(self, &row.name)?;
        Ok((turn, self.read_beginning(at)?))
    }

    fn basis(&self, at: Moment) -> Result<Basis> {
        if self.branch(at.branch).is_none() {
            return Err(no_parent());
        }
        let line = self.line_of(at);
        let (parent, base) = line.at(at.revision);
        Ok(Basis {
            parent,
            base,
            lines: [line, self.line(parent)],
            has_parent: self.branch(parent).is_some(),
            purges: self.purges(),
        })
    }

    fn read_beginning(&self, at: Moment) -> Result<Beginning> {
        let basis = self.basis(at)?;
        let &Basis { parent, base, .. } = &basis;
        let past = self.needs_past()?;
        // Of what is older than the oldest, the archive keeps what tags name.
        past.keeps_state(base)?;
        let (state, spaces) = self.needs_branching()?.state_before(parent, base)?;
        past.keeps_state(state)?;
        let mut effects = Vec::new();
        self.write_since((parent, base), state, &mut effects)?;
        Ok(Beginning { basis, state, spaces, effects })
    }

    /// What makes a branch's state at `state` that at `base`.
    fn write_since(
        &self,
        (branch, base): (BranchId, Revision),
        state: Revision,
        effects: &mut Vec<u8>,
    ) -> Result {
        let past = self.needs_past()?;
        // Not by the branch's line: it may have begun anew since, and this is what it
        // was before.
        let before = past.state(branch, state)?;
        let mut keys = self.erased_since(&before, branch, base)?;
        if state == base && keys.is_empty() {
            return Ok(());
        }
        let mut whole = BTreeSet::new();
        let mut failure = None;
        past.all(state, base, &mut |record| {
            if record.header.branch != branch {
                return ControlFlow::Continue(());
            }
            let read = events::read(&record, &mut |touch| {
                match touch.key {
                    Some(key) => drop(keys.insert((touch.db, key.to_vec()))),
                    None => drop(whole.insert(touch.db)),
                }
                Ok(())
            });
            failure = read.err();
            if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let then = past.view(branch, base)?;
        let bytes_max = self.revision_bytes_max();
        let mut writer = Writer { engine: self, effects, db: 0, bytes_max };
        keys.retain(|(db, _)| !whole.contains(db));
        for (db, key) in keys {
            let existed = self.value_in(&before, 0, db, &key)?.is_some();
            let value = match self.purged_from(branch, db, &key) > base {
                true => None,
                false => self.value_in(&then, 0, db, &key)?,
            };
            writer.key(db, &key, existed, value)?;
        }
        for db in whole {
            writer.enter(db);
            Effect::Flush { db }.encode(writer.effects);
            writer.all_of(db, &then)?;
        }
        Ok(())
    }
}

impl Engine {
    /// Keys of a state whose past was erased after `base`: their names are all
    /// that is left of them.
    pub(crate) fn erased_since(
        &self,
        before: &Keyspace,
        branch: BranchId,
        base: Revision,
    ) -> Result<BTreeSet<(DbIndex, Vec<u8>)>> {
        let mut keys = BTreeSet::new();
        let has = |purge: &Purge| purge.at > base && purge.db < before.databases();
        for (_, purge) in self.purges().iter().filter(|(_, purge)| has(purge)) {
            let mut add = |key: &[u8]| {
                let is_erased = self.purged_from(branch, purge.db, key) > base;
                if purge.covers(purge.db, key) && is_erased {
                    keys.insert((purge.db, key.to_vec()));
                }
            };
            match purge.is_prefix {
                true => self.each_key(before, purge.db, &mut add)?,
                false => add(&purge.key),
            }
        }
        Ok(keys)
    }
}

fn gone_for_good(branch: &[u8], at: Revision) -> Error {
    let name = String::from_utf8_lossy(branch);
    Error::new(format!(
        "NOBRANCH what this was at revision {at} was the state of a branch that has been deleted for good: AT r:{at} \
         BRANCH {name} reads it, but no branch can begin with it"
    ))
}

/// Writes effects one after another.
struct Writer<'w> {
    engine: &'w Engine,
    effects: &'w mut Vec<u8>,
    /// The database that they are in.
    db: DbIndex,
    /// Bytes that they may take.
    bytes_max: usize,
}

impl Writer<'_> {
    fn enter(&mut self, db: DbIndex) {
        if self.db != db {
            Effect::Database(db).encode(self.effects);
            self.db = db;
        }
    }

    fn key(
        &mut self,
        db: DbIndex,
        key: &[u8],
        existed: bool,
        value: Option<(Value, Option<u64>)>,
    ) -> Result {
        if value.is_none() && !existed {
            return Ok(());
        }
        self.enter(db);
        Effect::Key { key, existed: Some(existed) }.encode(self.effects);
        match value {
            None => Effect::Delete(Cause::Client).encode(self.effects),
            Some((Value::Str(value), deadline)) => {
                Effect::StrSet { value: &value, deadline }.encode(self.effects);
            }
            Some((value, deadline)) => {
                let body = dump::encode_body(value.as_ref());
                Effect::Put { body: &body, deadline }.encode(self.effects);
            }
        }
        let max = self.bytes_max;
        if self.effects.len() > max {
            return Err(Error::new(format!(
                "ERR what the parent did since its last archived state exceeds {max} bytes, the most that one \
                 revision takes with this memory; choose a revision nearer to a checkpoint"
            )));
        }
        Ok(())
    }

    fn all_of(&mut self, db: DbIndex, view: &Keyspace) -> Result {
        let mut keys = Vec::new();
        self.engine.each_key(view, db, &mut |key| keys.push(key.to_vec()))?;
        for key in keys {
            let value = self.engine.value_in(view, 0, db, &key)?;
            self.key(db, &key, false, value)?;
        }
        Ok(())
    }
}
