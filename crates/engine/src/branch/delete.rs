//! BRANCH DELETE and what takes it back.
//!
//! Inside the undo window a deleted branch is only put away: the row that says
//! so stays known, and with it what the archive has of the branch, what it begins
//! with and what was merged. UNDO opens it again. When the window is over it is
//! gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{BranchId, Revision};
use command::{Args, Error, Result};
use keyspace::effect::Effect;
use keyspace::{Branch, Scope};

use super::LiveBranch;
use super::commands::{check_free, named, text};
use super::create::Asker;
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::session::Session;

pub(super) const HANDLERS: &[(&str, Handler)] = &[("branch|delete", delete)];

fn delete(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let name = args.next()?;
    let (mut is_forced, mut is_for_good) = (false, false);
    while !args.is_empty() {
        if args.take_word("force") {
            is_forced = true;
        } else if args.take_word("noundo") {
            is_for_good = true;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let engine = call.engine;
    let turn = engine.branches.turn.lock();
    let row = match named(engine, name, "deleted") {
        Err(error) if is_for_good => engine.deleted(name).ok_or(error)?,
        row => row?,
    };
    let revision = if row.is_deleted() {
        engine.forget_branch(&call.asker(), row.id)
    } else {
        check_may_go(call, &row, is_forced)?;
        let undo_until_ms = engine.undo_until_ms(call.live, call.now_ms).filter(|_| !is_for_good);
        call.session.shown_undo = undo_until_ms;
        engine.remove_branch(&call.asker(), Branch { undo_until_ms, ..row })?
    };
    drop(turn);
    call.wrote(revision);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn check_may_go(call: &Call<'_, '_>, row: &Branch, is_forced: bool) -> Result {
    if row.is_kept {
        return Err(Error::new(format!(
            "BRANCHBUSY the branch '{}' is protected with NO-DELETE; BRANCH PROTECT {0} takes that away",
            text(&row.name)
        )));
    }
    if !is_forced && let Some(why) = busy(call.engine, row.id, call.session) {
        return Err(Error::new(format!(
            "BRANCHBUSY {why}; BRANCH DELETE {} FORCE deletes it all the same",
            text(&row.name)
        )));
    }
    Ok(())
}

/// Why a branch may not go: somebody is on it, or another one begins with it.
fn busy(engine: &Engine, id: BranchId, except: &Session) -> Option<String> {
    if let Some(merge) = waiting_merge(engine, id) {
        return Some(format!("the merge m{merge} waits for decisions"));
    }
    let known = engine.branches.known.read();
    let children = known.children(id).filter(|child| !child.is_deleted()).count();
    drop(known);
    let live = engine.branches.get(id)?;
    let own = usize::from(except.branch() == id);
    let sessions = live.sessions.load(Ordering::Relaxed).saturating_sub(own);
    match (children, sessions) {
        (0, 0) => None,
        (0, sessions) => Some(format!("{sessions} connections are on it")),
        (children, _) => Some(format!("{children} branches begin with it")),
    }
}

/// A merge of a branch, or into it, that waits for decisions.
pub(super) fn waiting_merge(engine: &Engine, id: BranchId) -> Option<u64> {
    let known = engine.branches.known.read();
    let mut waiting = known.open_merges().values();
    waiting.find(|open| open.from == id || open.into == id).map(|open| open.id)
}

impl Engine {
    /// The branch of this name that was put away last.
    fn deleted(&self, name: &[u8]) -> Option<Branch> {
        self.branches.known.read().deleted(name).cloned()
    }

    /// Removes a branch, or puts it away if its row says that it can be brought
    /// back. Whoever is on it hears so with the next command, or at once if it
    /// waits there.
    fn remove_branch(self: &Arc<Self>, asker: &Asker, row: Branch) -> Result<Revision> {
        let branch =
            self.branch(row.id).ok_or_else(|| Error::new("NOBRANCH it was deleted meanwhile"))?;
        // With every shard locked nobody is in the middle of a change.
        let revision = self.declare(asker, &branch.keyspace, &Scope::All, |txn| {
            branch.journal.close();
            let Some(until_ms) = row.undo_until_ms else {
                txn.declare(&Effect::BranchGone { branch: row.id });
                return;
            };
            let keys = txn.spaces().iter().flat_map(|(_, _, keys)| keys).sum();
            let bytes = branch.keyspace.memory_bytes() as u64;
            txn.declare(&Effect::Branch { row: &row.encode() });
            txn.declare(&Effect::Undoable { keys, bytes, until_ms });
        });
        self.branches.remove(row.id);
        self.end_waits_on(row.id, revision);
        self.tell(self.tracking.lost_branch(row.id), revision);
        Ok(revision)
    }

    /// Lets go of a branch that was put away.
    fn forget_branch(self: &Arc<Self>, asker: &Asker, id: BranchId) -> Revision {
        self.declare(asker, &self.keyspace, &Scope::Sliced, |txn| {
            txn.declare(&Effect::BranchGone { branch: id });
        })
    }

    /// Whether a deleted branch could be brought back now.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_can_return(&self, row: &Branch) -> Result {
        if !self.branches.known.read().is_deleted(row.id) {
            return Err(Error::new(format!(
                "NOBRANCH the branch '{}' is deleted for good by now",
                text(&row.name)
            )));
        }
        check_free(self, &row.name).map_err(|error| {
            Error::new(format!(
                "{}; BRANCH RENAME it, and UNDO brings the deleted one back",
                error.text()
            ))
        })
    }

    /// Waits until the archive has all of a branch that the revision `deleted` put
    /// away: nobody has written there since.
    ///
    /// # Errors
    /// When it cannot get there.
    pub(crate) fn settle_deleted(&self, deleted: Revision) -> Result {
        let archive = self.archive().ok_or_else(|| Error::new("ERR there is no archive"))?;
        archive.settle(deleted).map_err(|why| Error::new(format!("ERR {why}")))
    }

    /// Brings back a branch that the revision `deleted` put away, after
    /// [`Engine::settle_deleted`].
    pub(crate) fn bring_back(
        self: &Arc<Self>,
        asker: &Asker,
        row: &Branch,
        deleted: Revision,
    ) -> Result<Revision> {
        let branching = self.needs_branching()?;
        let turn = self.branches.turn.lock();
        self.check_can_return(row)?;
        let row = Branch { undo_until_ms: None, ..row.clone() };
        let keyspace = branching.reopen(row.id, self.ancestors(row.parent))?;
        let revision = self.declare(asker, &self.keyspace, &Scope::Sliced, |txn| {
            txn.declare(&Effect::Branch { row: &row.encode() });
            txn.mark_undone(deleted);
        });
        self.recall_moves_of(row.id, &keyspace, deleted);
        self.add_branch(LiveBranch::new(&row, keyspace, self.replicator.clone(), Revision::ZERO));
        drop(turn);
        Ok(revision)
    }

    /// Deletes the branches whose time is up, and lets go of deleted ones that
    /// can no longer be brought back, by the undo window of now. Those who are on
    /// one hear so.
    pub fn expire_branches(self: &Arc<Self>) {
        let (now_ms, window_ms) = (self.clock.now_ms(), self.undo_window_ms());
        let window_end_ms = now_ms.saturating_add(window_ms);
        let is_due = |row: &Branch| match row.undo_until_ms {
            Some(until_ms) => until_ms <= now_ms || until_ms > window_end_ms,
            None => row.deadline_ms.is_some_and(|at| at <= now_ms) && !row.is_kept,
        };
        let due = |engine: &Engine| -> Vec<Branch> {
            let known = engine.branches.known.read();
            known.iter().filter(|row| is_due(row)).cloned().collect()
        };
        if due(self).is_empty() {
            return;
        }
        let _turn = self.branches.turn.lock();
        let asker = Asker { now_ms, ..Asker::default() };
        for row in due(self) {
            if row.undo_until_ms.is_some_and(|until_ms| until_ms > now_ms && window_ms > 0) {
                // The window is shorter by now. When the branch was deleted its row
                // does not say; UNDO knows.
                self.change_branch(&asker, &Branch { undo_until_ms: Some(window_end_ms), ..row });
            } else if row.is_deleted() {
                self.forget_branch(&asker, row.id);
            } else if let Err(error) = self.remove_branch(&asker, row) {
                tracing::warn!("delete a branch whose time is up: {}", error.text());
            }
        }
    }
}
