//! Making and changing branches and tags: each is a record of the
//! log, and is done by what the record says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{BranchId, Revision};
use command::{Error, Result};
use keyspace::effect::Effect;
use keyspace::{Branch, Buffers, Keyspace, Scope, Turn, Txn};

use super::{Branching, LiveBranch};
use crate::engine::Engine;
use crate::history::revert::Author;

/// Who asks, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker {
    pub(crate) command: String,
    pub(crate) user: String,
    pub(crate) address: String,
    pub(crate) now_ms: u64,
}

impl Asker {
    /// For the record's beginning; what the server does by itself has none.
    pub(crate) fn origin(&self) -> Option<Effect<'_>> {
        (!self.command.is_empty()).then_some(Effect::Origin {
            command: self.command.as_bytes(),
            user: self.user.as_bytes(),
            address: self.address.as_bytes(),
        })
    }
}

impl Engine {
    pub(crate) fn needs_branching(&self) -> Result<&Arc<dyn Branching>> {
        self.branches.branching.get().ok_or(Error::new(
            "ERR branches stand in the log and the archive; start with storage.aof_enabled = true",
        ))
    }

    /// Gives `row` its databases, which begin with what its parent has now: a
    /// branch that is new, or one that begins anew. Answers the record's
    /// revision. The caller holds `branches.turn`.
    ///
    /// Takes all locks of the parent, whose state is what the branch begins
    /// with, for as long as it takes to note where that stands.
    pub(crate) fn fork(self: &Arc<Self>, asker: &Asker, row: &Branch) -> Result<Revision> {
        let branching = self.needs_branching()?.clone();
        let parent = self.branch(row.parent).ok_or_else(no_parent)?;
        let ancestors = self.ancestors(row.parent);
        let mut child = None;
        let forked = self.declare(asker, &parent.keyspace, &Scope::All, |txn| {
            let effect = Effect::Fork { row: &row.encode(), state: None };
            let revision = txn.declare(&effect);
            let forked = branching.fork(ancestors, &txn.spaces(), revision, revision);
            forked.expect_deadlines(&txn.first_deadlines());
            for (db, moved) in (0..).zip(txn.moves()) {
                forked.assume_moved(db, moved);
            }
            child = Some(forked);
        });
        let child = child.expect("the transaction ran");
        self.add_branch(LiveBranch::new(row, child, self.replicator.clone(), forked));
        Ok(forked)
    }

    /// Lets a branch begin anew with what its parent has now.
    pub(crate) fn fork_anew(self: &Arc<Self>, asker: &Asker, row: Branch) -> Result<Revision> {
        let old =
            self.branch(row.id).ok_or_else(|| Error::new("NOBRANCH it was deleted meanwhile"))?;
        if self.branch(row.parent).is_none() {
            return Err(no_parent());
        }
        let mut buffers = Buffers::default();
        let live = self.live();
        let options = self.txn_options(&live, asker.now_ms, false);
        // Before the parent's locks, as whoever fills a branch from its parent.
        let all = Txn::begin(&old.keyspace, &Scope::All, &*self.replicator, &mut buffers, options);
        old.journal.close();
        let id = row.id;
        let made = self.fork(asker, &Branch { base: Revision::ZERO, ..row });
        match &made {
            Ok(revision) => self.tell(self.tracking.lost_branch(id), *revision),
            // Else whoever is on it would wait for what does not come.
            Err(_) => drop(self.branches.remove(id)),
        }
        all.finish();
        self.serve_branch(id);
        made
    }

    /// Changes what is known of a branch besides its keys.
    pub(crate) fn change_branch(self: &Arc<Self>, asker: &Asker, row: &Branch) -> Revision {
        let revision = self.declare(asker, &self.keyspace, &Scope::Sliced, |txn| {
            txn.declare(&Effect::Branch { row: &row.encode() });
        });
        if let Some(branch) = self.branch(row.id) {
            branch.guard(row);
        }
        revision
    }

    /// Records a tag, or that it is gone.
    pub(crate) fn note_tag(self: &Arc<Self>, asker: &Asker, effect: &Effect<'_>) -> Revision {
        self.declare(asker, &self.keyspace, &Scope::Sliced, |txn| {
            txn.declare(effect);
        })
    }

    /// Records what is known of a merge that waits.
    pub(crate) fn note_merge(self: &Arc<Self>, author: &Author, effect: &Effect<'_>) -> Revision {
        let (live, now_ms, mut buffers) = (self.live(), self.clock.now_ms(), Buffers::default());
        let options = self.txn_options(&live, now_ms, false);
        let journal = &*self.replicator;
        let mut txn = Txn::begin(&self.keyspace, &Scope::Sliced, journal, &mut buffers, options);
        txn.record_always();
        author.sign(&mut txn);
        let revision = txn.declare(effect);
        self.take_in(revision, now_ms, txn.effects());
        txn.finish();
        self.revision_written(revision);
        revision
    }

    /// Takes in what a record of this node's says of branches.
    pub(super) fn take_in(&self, revision: Revision, time_ms: u64, effects: &[u8]) -> Option<Turn> {
        self.note_declared(revision);
        let turn = self.branches.known.write().apply(revision, time_ms, effects);
        turn.unwrap_or_else(|what| panic!("a record of our own does not fit: {what}"))
    }

    /// Runs a transaction that declares one thing about branches, and does what
    /// its record says. Answers its revision.
    pub(super) fn declare(
        self: &Arc<Self>,
        asker: &Asker,
        keyspace: &Keyspace,
        scope: &Scope,
        run: impl FnOnce(&mut Txn<'_>),
    ) -> Revision {
        let (live, mut buffers) = (self.live(), Buffers::default());
        let options = self.txn_options(&live, asker.now_ms, false);
        let mut txn = Txn::begin(keyspace, scope, &*self.replicator, &mut buffers, options);
        txn.record_always();
        if !asker.command.is_empty() {
            let (user, address) = (asker.user.as_bytes(), asker.address.as_bytes());
            txn.originate(asker.command.as_bytes(), user, address);
        }
        run(&mut txn);
        let revision = txn.revision().expect("it declares something");
        let turn = self.take_in(revision, asker.now_ms, txn.effects());
        txn.finish();
        if let Some(Turn::Gone(id)) = turn {
            self.branches.remove(id);
        }
        // What is said of branches is in main's line.
        self.main.head.fetch_max(revision.0, Ordering::AcqRel);
        self.revision_written(revision);
        revision
    }

    /// The keyspaces of a branch, its parent and so on.
    pub(crate) fn ancestors(&self, branch: BranchId) -> Vec<Arc<Keyspace>> {
        let known = self.branches.known.read();
        let mut next = Some(branch);
        let mut found = Vec::new();
        while let Some(id) = next {
            match self.branch(id) {
                Some(branch) => found.push(branch.keyspace.clone()),
                // What was in its memory is in the archive only.
                None => break,
            }
            next = known.get(id).map(|row| row.parent);
        }
        found
    }
}

pub(super) fn no_parent() -> Error {
    Error::new("NOBRANCH the parent was deleted")
}
