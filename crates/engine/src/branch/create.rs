//! Making, changing and removing branches and tags: each is a record of the
//! log, and is done by what the record says.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{BranchId, Revision};
use command::{Command, Error, Result};
use keyspace::effect::Effect;
use keyspace::{Branch, Buffers, Keyspace, Scope, Turn, Txn};

use super::{Branching, LiveBranch};
use crate::engine::{Engine, Live};
use crate::session::Session;

/// Who asks, and when.
pub(crate) struct Asked<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) command: &'static Command,
    pub(crate) live: &'a Live,
    pub(crate) now_ms: u64,
}

impl Engine {
    pub(crate) fn needs_branching(&self) -> Result<&Arc<dyn Branching>> {
        self.branches.branching.get().ok_or(Error::new(
            "ERR branches stand in the log and the archive; start with storage.aof_enabled = true",
        ))
    }

    /// Gives `row` its databases, which begin with what its parent has now: a
    /// branch that is new, or one that begins anew. Answers the row as it is
    /// then. The caller holds `branches.turn`.
    ///
    /// Takes all locks of the parent, whose state is what the branch begins
    /// with, for as long as it takes to note where that stands.
    pub(crate) fn fork(self: &Arc<Self>, asked: &mut Asked<'_>, row: Branch) -> Result<Branch> {
        let branching = self.needs_branching()?.clone();
        let parent = self.branch(row.parent).ok_or_else(no_parent)?;
        let ancestors = self.ancestors(row.parent);
        let id = row.id;
        let mut child = None;
        self.declare(asked, &parent.keyspace, &Scope::All, |txn| {
            let effect = Effect::Fork { row: &row.encode(), state: Revision::ZERO };
            let revision = txn.declare(&effect);
            child = Some(branching.fork(ancestors, &txn.spaces(), revision, revision));
        });
        let child = child.expect("the transaction ran");
        self.branches.add(LiveBranch::new(id, child, self.replicator.clone()));
        Ok(self.branches.known.read().get(id).expect("just made").clone())
    }

    /// Lets a branch begin anew with what its parent has now.
    pub(crate) fn fork_anew(
        self: &Arc<Self>,
        asked: &mut Asked<'_>,
        row: Branch,
    ) -> Result<Branch> {
        let old =
            self.branch(row.id).ok_or_else(|| Error::new("NOBRANCH it was deleted meanwhile"))?;
        if self.branch(row.parent).is_none() {
            return Err(no_parent());
        }
        let mut buffers = Buffers::default();
        let options = self.txn_options(asked.live, asked.now_ms, false);
        // Before the parent's locks, as whoever fills a branch from its parent.
        let all = Txn::begin(&old.keyspace, &Scope::All, &*self.replicator, &mut buffers, options);
        old.journal.close();
        let made = self.fork(asked, Branch { base: Revision::ZERO, ..row });
        all.finish();
        made
    }

    /// Changes what is known of a branch besides its keys.
    pub(crate) fn change_branch(self: &Arc<Self>, asked: &mut Asked<'_>, row: &Branch) -> Revision {
        self.declare(asked, &self.keyspace, &Scope::Sliced, |txn| {
            txn.declare(&Effect::Branch { row: &row.encode() });
        })
    }

    /// Removes a branch. Whoever is on it hears so with the next command.
    pub(crate) fn remove_branch(
        self: &Arc<Self>,
        asked: &mut Asked<'_>,
        id: BranchId,
    ) -> Result<Revision> {
        let branch =
            self.branch(id).ok_or_else(|| Error::new("NOBRANCH it was deleted meanwhile"))?;
        // With every shard locked nobody is in the middle of a change.
        let revision = self.declare(asked, &branch.keyspace, &Scope::All, |txn| {
            branch.journal.close();
            txn.declare(&Effect::BranchGone { branch: id });
        });
        Ok(revision)
    }

    /// Records a tag, or that it is gone.
    pub(crate) fn note_tag(
        self: &Arc<Self>,
        asked: &mut Asked<'_>,
        effect: &Effect<'_>,
    ) -> Revision {
        self.declare(asked, &self.keyspace, &Scope::Sliced, |txn| {
            txn.declare(effect);
        })
    }

    /// Runs a transaction that declares one thing about branches, and does what
    /// its record says. Answers its revision.
    fn declare(
        self: &Arc<Self>,
        asked: &mut Asked<'_>,
        keyspace: &Keyspace,
        scope: &Scope,
        run: impl FnOnce(&mut Txn<'_>),
    ) -> Revision {
        let Asked { session, command, live, now_ms } = asked;
        let mut buffers = Buffers::default();
        let options = self.txn_options(live, *now_ms, false);
        let mut txn = Txn::begin(keyspace, scope, &*self.replicator, &mut buffers, options);
        txn.record_always();
        let (user, address) = (session.user.as_bytes(), session.client.addr.as_bytes());
        txn.originate(command.full_name.as_bytes(), user, address);
        run(&mut txn);
        let revision = txn.revision().expect("it declares something");
        let turn = self.branches.known.write().apply(revision, *now_ms, txn.effects());
        let turn = turn.unwrap_or_else(|what| panic!("a record of our own does not fit: {what}"));
        txn.finish();
        if let Some(Turn::Gone(id)) = turn {
            self.branches.remove(id);
        }
        self.settle_declared(session, revision);
        revision
    }

    fn settle_declared(self: &Arc<Self>, session: &mut Session, revision: Revision) {
        session.depends_on = session.depends_on.max(revision);
        session.saw(revision);
        session.last_write = revision;
        self.revision_written(revision);
    }

    /// The keyspaces of a branch, its parent and so on.
    fn ancestors(&self, branch: BranchId) -> Vec<Arc<Keyspace>> {
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

fn no_parent() -> Error {
    Error::new("NOBRANCH the parent was deleted")
}

/// Whether a branch may go: nobody is on it, and none begins with it.
pub(crate) fn busy(engine: &Engine, id: BranchId, except: &Session) -> Option<String> {
    let children = engine.branches.known.read().children(id).count();
    let live = engine.branches.get(id)?;
    let own = usize::from(except.branch() == id);
    let sessions = live.sessions.load(Ordering::Relaxed).saturating_sub(own);
    match (children, sessions) {
        (0, 0) => None,
        (0, sessions) => Some(format!("{sessions} connections are on it")),
        (children, _) => Some(format!("{children} branches begin with it")),
    }
}
