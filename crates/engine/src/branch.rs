//! Branches: keyspaces besides main's, and who is on which.
//!
//! Every branch has a keyspace of its own, filled from its parent's state at
//! the fork as its keys are asked for, and every record of the log says whose
//! it is. So a command neither knows nor cares which branch it runs on.

mod changes;
mod commands;
mod common;
mod create;
mod create_at;
mod delete;
mod diff;
mod early;
mod home;
mod info;
mod line;
mod merge;
mod merges;
mod moves;
mod standing;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use base::{BranchId, DbIndex, NAME_BYTES_MAX, Revision, SpaceId};
use command::flags::{DENYOOM, WRITE};
use command::{Command, Error, Group, Result};
use keyspace::{Branch, Branches, Journal, Keyspace, Spaces};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::engine::Engine;
use crate::replicator::Replicator;
use crate::session::Session;
use crate::travel::Moment;

pub(crate) use commands::{FAMILIES, in_the_way, use_branch};
pub(crate) use create::Asker;
pub use home::Home;
pub(crate) use home::branch_deleted;
pub(crate) use line::{Line, Reach};

/// A branch that serves.
#[derive(Debug)]
pub struct LiveBranch {
    /// Which.
    pub id: BranchId,
    /// Its keys.
    pub keyspace: Arc<Keyspace>,
    pub(crate) journal: BranchJournal,
    /// Whether what is known of it may refuse a write.
    is_guarded: AtomicBool,
    /// Sessions on it.
    sessions: AtomicUsize,
    /// The state of the archive that it begins with; 0 of one that was there
    /// before the start.
    begins: Revision,
    /// Whether the archive is known to have reached that.
    is_settled: AtomicBool,
    /// Whether memory knows all that it has changed: because it was here all the
    /// time since it began, or somebody has looked.
    is_counted: AtomicBool,
    /// Its newest record, as far as that is not one of keys in memory.
    head: AtomicU64,
}

/// Where transactions on a branch leave their effects.
pub(crate) struct BranchJournal {
    replicator: Arc<dyn Replicator>,
    branch: BranchId,
    /// Set with every shard of the branch locked: what comes after is on no
    /// branch, and changes nothing.
    is_gone: AtomicBool,
}

impl BranchJournal {
    /// To be called with every shard of the branch locked, before the record
    /// that removes it.
    fn close(&self) {
        self.is_gone.store(true, Ordering::Release);
    }
}

impl std::fmt::Debug for BranchJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BranchJournal").field("branch", &self.branch).finish_non_exhaustive()
    }
}

impl Journal for BranchJournal {
    fn reserve(&self) -> Revision {
        self.replicator.reserve()
    }

    fn append(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &[u8]) {
        if self.is_gone.load(Ordering::Acquire) {
            // A revision that was given out is in the log whatever happens.
            self.replicator.append(revision, time_ms, 0, &[]);
        } else {
            self.replicator.append_on(self.branch, revision, time_ms, db, effects);
        }
    }

    fn append_shared(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &Arc<Vec<u8>>) {
        if self.is_gone.load(Ordering::Acquire) {
            self.append(revision, time_ms, db, effects);
        } else {
            self.replicator.append_shared_on(self.branch, revision, time_ms, db, effects);
        }
    }

    fn wants_effects(&self) -> bool {
        self.replicator.wants_effects()
    }
}

impl LiveBranch {
    /// main, which nobody guards.
    pub(crate) fn main(keyspace: Arc<Keyspace>, replicator: Arc<dyn Replicator>) -> LiveBranch {
        LiveBranch::with(BranchId::MAIN, keyspace, replicator, Revision::ZERO)
    }

    /// The branch of this row, which begins with the state `begins` of the
    /// archive.
    pub(crate) fn new(
        row: &Branch,
        keyspace: Arc<Keyspace>,
        replicator: Arc<dyn Replicator>,
        begins: Revision,
    ) -> LiveBranch {
        let branch = LiveBranch::with(row.id, keyspace, replicator, begins);
        branch.guard(row);
        branch
    }

    fn with(
        id: BranchId,
        keyspace: Arc<Keyspace>,
        replicator: Arc<dyn Replicator>,
        begins: Revision,
    ) -> LiveBranch {
        let journal = BranchJournal { replicator, branch: id, is_gone: AtomicBool::new(false) };
        LiveBranch {
            id,
            keyspace,
            journal,
            is_guarded: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            begins,
            is_settled: AtomicBool::new(false),
            is_counted: AtomicBool::new(begins > Revision::ZERO),
            head: AtomicU64::new(0),
        }
    }

    /// Notes what is known of it from here on.
    pub(crate) fn guard(&self, row: &Branch) {
        let is_guarded = row.is_readonly || row.is_merge_only || row.quota_bytes > 0;
        self.is_guarded.store(is_guarded, Ordering::Release);
    }

    /// Whether sessions are on it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.sessions.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.journal.is_gone.load(Ordering::Acquire)
    }
}

/// A place on a branch that counts as a session there.
#[derive(Debug)]
pub(crate) struct Seat {
    branch: Arc<LiveBranch>,
    /// The same once more, for the session's transactions: to count another one
    /// waits for all that was written before.
    spare: Option<Arc<LiveBranch>>,
}

impl Seat {
    fn take(branch: Arc<LiveBranch>) -> Seat {
        branch.sessions.fetch_add(1, Ordering::Relaxed);
        Seat { spare: Some(branch.clone()), branch }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.branch.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A branch that somebody works with for a moment: main costs no counting.
pub(crate) enum Held<'e> {
    Main(&'e LiveBranch),
    Other(Arc<LiveBranch>),
}

impl std::ops::Deref for Held<'_> {
    type Target = LiveBranch;

    fn deref(&self) -> &LiveBranch {
        match self {
            Held::Main(branch) => branch,
            Held::Other(branch) => branch,
        }
    }
}

/// Where the keys of branches stand: the archive.
pub trait Branching: Send + Sync {
    /// The keyspace of a branch that the revision `forked` makes: each database
    /// is filled from one of the parent's as of `at`, which is `forked` itself
    /// or a state of the archive. `ancestors` are the parent's keyspace, its
    /// parent's and so on.
    fn fork(
        &self,
        ancestors: Vec<Arc<Keyspace>>,
        parent: &Spaces,
        at: Revision,
        forked: Revision,
    ) -> Arc<Keyspace>;

    /// The keyspace of a branch that the archive has all of.
    ///
    /// # Errors
    /// When it cannot be read.
    fn reopen(&self, branch: BranchId, ancestors: Vec<Arc<Keyspace>>) -> Result<Arc<Keyspace>>;

    /// The newest state of the archive at or before `at`, and where a branch's
    /// databases stood then.
    ///
    /// # Errors
    /// When it cannot be read.
    fn state_before(&self, branch: BranchId, at: Revision) -> Result<(Revision, Spaces)>;

    /// Visits the hashes of the keys that a space has entries of itself, and when
    /// each was changed last: what a branch has written or removed since its
    /// database was made, as far as the archive knows.
    ///
    /// # Errors
    /// When it cannot be read.
    fn own_keys(&self, space: SpaceId, each: &mut dyn FnMut(u64, Revision)) -> Result;

    /// Whether the archive has reached a state.
    fn has_reached(&self, at: Revision) -> bool;

    /// Whether a fault keeps the archive from a state, so that nobody should wait
    /// for it.
    fn is_hindered(&self, _at: Revision) -> bool {
        false
    }

    /// A branch's databases as of a state that the archive keeps: one of
    /// [`Branches::pins`]. Waits for it. Nobody may change them.
    ///
    /// # Errors
    /// When it cannot be read.
    fn state(&self, branch: BranchId, at: Revision) -> Result<Arc<Keyspace>>;
}

/// All branches but main.
#[derive(Default)]
pub(crate) struct LiveBranches {
    /// Those who make, change or remove branches take turns, so that the log
    /// has it in the order in which it happened.
    pub(crate) turn: Mutex<()>,
    pub(crate) known: RwLock<Branches>,
    /// The newest record that says something of branches, tags, or what is kept of
    /// the past.
    declared: AtomicU64,
    live: RwLock<BTreeMap<BranchId, Arc<LiveBranch>>>,
    /// Whether there is any.
    any: AtomicBool,
    /// Where sessions are whose branch does not exist.
    nowhere: OnceLock<Arc<LiveBranch>>,
    pub(crate) branching: OnceLock<Arc<dyn Branching>>,
    reports: Mutex<merges::Reports>,
    standings: Mutex<standing::Standings>,
    listings: diff::Listings,
}

impl LiveBranches {
    pub(crate) fn get(&self, id: BranchId) -> Option<Arc<LiveBranch>> {
        self.live.read().get(&id).cloned()
    }

    pub(crate) fn add(&self, branch: LiveBranch) {
        self.live.write().insert(branch.id, Arc::new(branch));
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn remove(&self, id: BranchId) -> Option<Arc<LiveBranch>> {
        let mut live = self.live.write();
        let gone = live.remove(&id);
        self.any.store(!live.is_empty(), Ordering::Release);
        gone
    }

    /// All of them now.
    pub(crate) fn all(&self) -> Vec<Arc<LiveBranch>> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.live.read().values().cloned().collect()
    }
}

impl Engine {
    /// Gives the engine what keeps the keys of branches, and the branches that
    /// there are with their keyspaces, once.
    ///
    /// # Panics
    /// When it has that already.
    pub fn attach_branches(
        &self,
        branching: Arc<dyn Branching>,
        known: Branches,
        keyspaces: Vec<(BranchId, Arc<Keyspace>)>,
    ) {
        for (id, keyspace) in keyspaces {
            let (row, replicator) = (known.get(id).expect("it has keys"), self.replicator.clone());
            self.branches.add(LiveBranch::new(row, keyspace, replicator, Revision::ZERO));
        }
        *self.branches.known.write() = known;
        assert!(self.branches.branching.set(branching).is_ok(), "branches are attached once");
    }

    /// The branch that a session is on.
    pub(crate) fn branch_of(&self, session: &Session) -> Held<'_> {
        match &session.seat {
            None => Held::Main(&self.main),
            Some(seat) => Held::Other(seat.branch.clone()),
        }
    }

    /// As [`Engine::branch_of`], until [`Session::give_back`].
    pub(crate) fn borrow_branch(&self, session: &mut Session) -> Held<'_> {
        match session.seat.as_mut().and_then(|seat| seat.spare.take()) {
            None => self.branch_of(session),
            Some(branch) => Held::Other(branch),
        }
    }

    /// Where transactions on a branch leave their effects.
    pub(crate) fn journal_of<'e>(&'e self, branch: &'e LiveBranch) -> &'e dyn Journal {
        if branch.id == BranchId::MAIN { &*self.replicator } else { &branch.journal }
    }

    /// A branch that exists.
    pub(crate) fn branch(&self, id: BranchId) -> Option<Held<'_>> {
        if id == BranchId::MAIN {
            return Some(Held::Main(&self.main));
        }
        self.branches.get(id).map(Held::Other)
    }

    /// The branch of this name.
    pub(crate) fn branch_named(&self, name: &[u8]) -> Result<Held<'_>> {
        let id = self.branches.known.read().named(name);
        id.and_then(|id| self.branch(id)).ok_or_else(|| no_branch(name))
    }

    /// A branch's name; of one that is gone, its number.
    pub(crate) fn branch_name(&self, id: BranchId) -> Vec<u8> {
        let known = self.branches.known.read();
        let name = known.name_of(id).filter(|_| !known.is_deleted(id));
        name.map_or_else(|| format!("#{}", id.0).into_bytes(), <[u8]>::to_vec)
    }

    /// Lets a branch be.
    fn add_branch(&self, branch: LiveBranch) {
        branch.keyspace.note_accesses(self.keyspace.accesses());
        self.branches.add(branch);
    }

    /// main, and every other branch.
    pub fn each_keyspace(&self, mut each: impl FnMut(&Keyspace)) {
        each(&self.keyspace);
        self.branches.all().iter().for_each(|branch| each(&branch.keyspace));
    }

    /// Whether a session's branch lets it do what it asks.
    pub(crate) fn check_branch(&self, session: &Session, command: &Command) -> Result {
        let Some(Seat { branch, .. }) = &session.seat else { return Ok(()) };
        if matches!(command.group, Group::Branches | Group::Connection) {
            return Ok(());
        }
        if branch.is_gone() {
            return match crate::transaction::looks_at_nothing(command) {
                true => Ok(()),
                false => Err(home::gone(session, branch)),
            };
        }
        let writes = command.flags.has(WRITE) || session.exec_writes(command);
        if !writes || !branch.is_guarded.load(Ordering::Acquire) {
            return Ok(());
        }
        let known = self.branches.known.read();
        let Some(row) = known.get(branch.id) else { return Ok(()) };
        check_open(row)?;
        // What takes no memory is how a branch becomes smaller again.
        if command.flags.has(DENYOOM) || session.exec_takes_memory(command) {
            check_quota(row, &branch.keyspace)?;
        }
        Ok(())
    }

    /// Holds tags and branches as they are, until the answer is dropped. Who does not
    /// wait gets `None` while somebody changes them.
    #[must_use]
    pub fn hold_branches(&self, waits: bool) -> Option<MutexGuard<'_, ()>> {
        let turn = &self.branches.turn;
        if waits { Some(turn.lock()) } else { turn.try_lock() }
    }

    /// The states that tags, branches and merges keep by now, whether the archive
    /// knows or not.
    #[must_use]
    pub fn named_states(&self) -> BTreeSet<Revision> {
        self.branches.known.read().pins().collect()
    }

    /// Notes a record that says something of branches, tags, or what is kept of the
    /// past, before anybody can see that.
    pub(crate) fn note_declared(&self, revision: Revision) {
        self.branches.declared.fetch_max(revision.0, Ordering::AcqRel);
    }

    /// Lets the reply of a session, which is to show something of them, depend on
    /// that record.
    pub(crate) fn depend_on_declared(&self, session: &mut Session) {
        let declared = Revision(self.branches.declared.load(Ordering::Acquire));
        session.depends_on = session.depends_on.max(declared);
        session.saw(declared);
    }

    /// Whether a session's branch is being deleted or made anew at this moment.
    pub(crate) fn is_between(&self, session: &Session) -> bool {
        let Some(Seat { branch, .. }) = &session.seat else { return false };
        branch.is_gone() && self.branches.get(branch.id).is_some_and(|there| there.is_gone())
    }

    /// Puts a session on a branch. What it reads there depends on the branch.
    pub(crate) fn take_seat(&self, session: &mut Session, branch: &Held<'_>) {
        self.depend_on_declared(session);
        session.branch_name = self.branch_name(branch.id);
        // One that begins anew is where it was.
        if session.branch() != branch.id {
            let there = |moment: Moment| Moment::new(branch.id, moment.revision, moment.time_ms);
            session.travel = session.travel.map(there);
        }
        session.seat = match branch {
            Held::Main(_) => None,
            Held::Other(branch) => Some(Seat::take(branch.clone())),
        };
        session.client.activity.branch.store(branch.id.0, Ordering::Relaxed);
    }
}

impl Session {
    /// The branch it is on.
    pub(crate) fn branch(&self) -> BranchId {
        self.seat.as_ref().map_or(BranchId::MAIN, |seat| seat.branch.id)
    }

    /// Whether its branch is gone.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.seat.as_ref().is_some_and(|seat| seat.branch.is_gone())
    }

    /// Takes back what [`Engine::borrow_branch`] gave.
    pub(crate) fn give_back(&mut self, held: Held<'_>) {
        if let (Held::Other(branch), Some(seat)) = (held, &mut self.seat)
            && Arc::ptr_eq(&branch, &seat.branch)
        {
            seat.spare = Some(branch);
        }
    }
}

/// Whether a branch may be written to by other means than merges.
fn check_open(row: &Branch) -> Result {
    if row.is_readonly {
        return Err(read_only(&row.name));
    }
    if row.is_merge_only {
        let name = String::from_utf8_lossy(&row.name);
        return Err(Error::new(format!(
            "READONLY the branch '{name}' is written to by BRANCH MERGE only; BRANCH PROTECT {name} takes that away"
        )));
    }
    Ok(())
}

/// The error for what would change a branch that nothing changes.
fn read_only(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::new(format!(
        "READONLY the branch '{name}' is read-only; BRANCH CREATE <name> FROM {name} makes one to write to"
    ))
}

/// Whether a branch may take more memory for what it changes.
fn check_quota(row: &Branch, keyspace: &Keyspace) -> Result {
    if row.quota_bytes == 0 {
        return Ok(());
    }
    let used = keyspace.own_bytes() as u64;
    if used < row.quota_bytes {
        return Ok(());
    }
    Err(Error::new(format!(
        "QUOTA {}: its changes take {used} of {} bytes of memory (merge it, delete keys, or make one with a greater QUOTA)",
        String::from_utf8_lossy(&row.name),
        row.quota_bytes
    )))
}

/// The error for a name that no tag has.
pub(crate) fn no_tag(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES_MAX)]);
    Error::new(format!("ERR no tag is named '{name}'; TAG LIST names those that there are"))
}

/// The error for a name that no branch has.
pub(crate) fn no_branch(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES_MAX)]).into_owned();
    Error::new(format!(
        "NOBRANCH no branch is named '{name}'; BRANCH LIST names those that there are"
    ))
}
