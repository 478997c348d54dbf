//! Where a session begins: on main, or on the branch that its port stands for.
//!
//! A port may stand for a branch that does not exist. Its sessions are then
//! nowhere: on a branch that is gone, from which every command is refused that
//! would need one, as for sessions whose branch was deleted. They are on it from
//! their first command after it is made.

use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use command::{Error, Result};
use keyspace::{Keyspace, MAIN};

use super::{Held, LiveBranch, Seat};
use crate::engine::Engine;
use crate::session::Session;

/// The id of no branch.
const NOWHERE: BranchId = BranchId(u32::MAX);

/// Where sessions of one port begin, and where `RESET` puts them back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The branch's name. It need not exist.
    pub branch: Vec<u8>,
    /// The branch's database.
    pub db: DbIndex,
}

/// main's first database.
impl Default for Home {
    fn default() -> Home {
        Home { branch: MAIN.to_vec(), db: 0 }
    }
}

impl Engine {
    /// Puts a session where it begins.
    pub(crate) fn go_home(&self, session: &mut Session) {
        let home = session.home.clone();
        match self.branch_named(&home.branch) {
            Ok(branch) => self.take_seat(session, &branch),
            Err(_) => {
                self.take_seat(session, &self.nowhere());
                session.branch_name.clone_from(&home.branch);
            }
        }
        session.select(home.db);
    }

    /// Puts a session whose branch is gone on what is in its place now: the
    /// branch itself, begun anew or brought back, or the one that has the name
    /// that the session's port stands for. What it watches it watches there:
    /// keys have their revisions on all branches, so EXEC finds what differs.
    pub(crate) fn renew_seat(&self, session: &mut Session) {
        let Some(Seat { branch, .. }) = &session.seat else { return };
        if !branch.is_gone() {
            return;
        }
        let is_home = session.branch_name == session.home.branch;
        let successor = match self.branch(branch.id) {
            None if is_home => self.branch_named(&session.home.branch).ok(),
            found => found,
        };
        if let Some(branch) = successor {
            self.take_seat(session, &branch);
        }
    }

    /// The branch that a session is on, for commands that run wherever it is.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn existing_branch_of(&self, session: &Session) -> Result<BranchId> {
        match &session.seat {
            Some(Seat { branch, .. }) if branch.is_gone() => Err(gone(session, branch)),
            _ => Ok(session.branch()),
        }
    }

    /// A branch that never was, for all who wait for theirs.
    fn nowhere(&self) -> Held<'_> {
        let nowhere = self.branches.nowhere.get_or_init(|| {
            let keyspace = Arc::new(Keyspace::new(self.databases(), 0));
            let replicator = self.replicator.clone();
            let branch = LiveBranch::with(NOWHERE, keyspace, replicator, Revision::ZERO);
            branch.journal.close();
            Arc::new(branch)
        });
        Held::Other(nowhere.clone())
    }
}

/// The error for what needs a session's branch, which is gone.
pub(super) fn gone(session: &Session, branch: &LiveBranch) -> Error {
    if branch.id != NOWHERE {
        return branch_deleted(&session.branch_name);
    }
    let name = String::from_utf8_lossy(&session.branch_name);
    Error::new(format!(
        "NOBRANCH this port is for the branch '{name}', which does not exist; make it, or BRANCH USE another"
    ))
}

/// The error for a connection whose branch, which it calls `name`, was deleted.
pub(crate) fn branch_deleted(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::new(format!(
        "NOBRANCH the branch '{name}' of this connection was deleted; BRANCH USE another"
    ))
}
