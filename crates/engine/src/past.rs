//! What the engine asks of the history: states as they were, and who changed
//! what and when.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use keyspace::{Keyspace, Purge, Stored};
use log::Record;
use thiserror::Error;

use crate::engine::Engine;

/// Sees a transaction of the log, and says whether to go on.
pub type Visit<'v> = dyn FnMut(Record<'_>) -> ControlFlow<()> + 'v;

/// What a branch has now of a key, if memory knows.
pub type Present<'p> = &'p dyn Fn() -> Option<Stored>;

/// The past of the database. All of it may read the disk.
pub trait Past: Send + Sync {
    /// The oldest revision whose state can be read.
    fn oldest(&self) -> Revision;

    /// Fails when a state is not kept that the archive has reached: it is older
    /// than the oldest, and no tag keeps it.
    ///
    /// # Errors
    /// That, or when the archive cannot be read.
    fn keeps_state(&self, revision: Revision) -> Result<(), PastError> {
        match self.oldest() {
            oldest if revision < oldest => Err(PastError::Compacted { asked: revision, oldest }),
            _ => Ok(()),
        }
    }

    /// The last revision stamped at or before `time_ms` (milliseconds since
    /// 1970).
    ///
    /// # Errors
    /// When that is older than the oldest.
    fn at_time(&self, time_ms: u64) -> Result<Revision, PastError>;

    /// When a revision ran, in milliseconds since 1970.
    ///
    /// # Errors
    /// When it is older than the oldest or newer than the newest.
    fn time_of(&self, revision: Revision) -> Result<u64, PastError>;

    /// The state of a branch at a revision, not before it was made, as a keyspace that is filled when its keys are
    /// asked for. Nobody may change it.
    ///
    /// # Errors
    /// As [`Past::time_of`], or when it cannot be read.
    fn view(&self, branch: BranchId, revision: Revision) -> Result<Arc<Keyspace>, PastError>;

    /// As [`Past::view`], as a keyspace of one's own.
    ///
    /// # Errors
    /// As [`Past::view`].
    fn state(&self, branch: BranchId, revision: Revision) -> Result<Keyspace, PastError>;

    /// As [`Past::state`], for those who look only at keys with some names, in
    /// whatever database.
    ///
    /// # Errors
    /// As [`Past::view`].
    fn state_of(
        &self,
        branch: BranchId,
        revision: Revision,
        names: &HashSet<Vec<u8>>,
    ) -> Result<Keyspace, PastError> {
        let _ = names;
        self.state(branch, revision)
    }

    /// As [`Past::view`], for commands that look at the keys they name and at
    /// nothing else: each key costs what it has to read, and nothing is
    /// replayed. What it says about databases as a whole is not so: counts are
    /// wrong, and to look through keys is an error.
    ///
    /// # Errors
    /// As [`Past::view`].
    fn view_of_keys(
        &self,
        branch: BranchId,
        revision: Revision,
    ) -> Result<Arc<Keyspace>, PastError> {
        self.view(branch, revision)
    }

    /// What [`Past::view_of_keys`] answers, if that is there or worth making,
    /// because the revision is asked for again and again. `None` says to ask for
    /// each key by [`Past::key`].
    ///
    /// # Errors
    /// As [`Past::view`].
    fn view_at_hand(
        &self,
        branch: BranchId,
        revision: Revision,
    ) -> Result<Option<Arc<Keyspace>>, PastError> {
        self.view_of_keys(branch, revision).map(Some)
    }

    /// A key of a branch's database as it was right after a revision, due or not.
    /// With `names`, for those who ask for elements of a collection by these
    /// names: the others may be missing, but for one that stands for them.
    ///
    /// # Errors
    /// As [`Past::view`].
    fn key(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
        names: Option<&[&[u8]]>,
    ) -> Result<Option<Stored>, PastError>;

    /// As [`Past::key`], which may be made from what the branch has now of the key,
    /// if memory knows: `present` is asked for that where it would help. In haste,
    /// what takes longer than others on the same thread should wait is not read.
    ///
    /// # Errors
    /// As [`Past::view`]; [`PastError::TakesLong`] in haste.
    #[allow(clippy::too_many_arguments, reason = "one call with everything that says which")]
    fn key_with(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
        names: Option<&[&[u8]]>,
        _present: Present<'_>,
        _is_hasty: bool,
    ) -> Result<Option<Stored>, PastError> {
        self.key(branch, revision, db, key, names)
    }

    /// As [`Past::key`], of a key of which a branch has `present` now, best as a
    /// shared copy: it is made from that. `None` if that would take longer, or
    /// cannot be done.
    ///
    /// # Errors
    /// As [`Past::view`].
    fn key_from(
        &self,
        _branch: BranchId,
        _revision: Revision,
        _db: DbIndex,
        _key: &[u8],
        _present: Stored,
    ) -> Result<Option<Stored>, PastError> {
        Ok(None)
    }

    /// Of the collections whose elements are some of a branch's key, the
    /// revisions of their last changes: none of them is the branch's own. Of a
    /// key that the branch has not changed some may be told, too.
    ///
    /// # Errors
    /// As [`Past::view`].
    fn lies_over(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Vec<Revision>, PastError>;

    /// Whether [`Past::key`] reads less with names than without.
    ///
    /// # Errors
    /// As [`Past::view`].
    fn is_large(
        &self,
        _branch: BranchId,
        _revision: Revision,
        _db: DbIndex,
        _key: &[u8],
    ) -> Result<bool, PastError> {
        Ok(false)
    }

    /// A key at several revisions, the oldest first, each told to `visit` with
    /// its place among them. Beside each stands its record, if the caller has
    /// read it: it is not read again then. With `names` and `present`, as
    /// [`Past::key_with`].
    ///
    /// # Errors
    /// As [`Past::view`].
    #[allow(clippy::too_many_arguments, reason = "one call with everything that says which")]
    fn key_at_each(
        &self,
        branch: BranchId,
        revisions: &[(Revision, Option<Record<'_>>)],
        db: DbIndex,
        key: &[u8],
        names: Option<&[&[u8]]>,
        present: Present<'_>,
        visit: &mut dyn FnMut(usize, Option<&Stored>),
    ) -> Result<(), PastError> {
        for (at, &(revision, _)) in revisions.iter().enumerate() {
            let found = self.key_with(branch, revision, db, key, names, present, false)?;
            visit(at, found.as_ref());
        }
        Ok(())
    }

    /// Visits the transactions of a branch after `after`, up to `upto`, that
    /// changed a key or everything in its database, newest first.
    ///
    /// # Errors
    /// When a part of them is not kept any more, or cannot be read.
    fn of_key(
        &self,
        branch: BranchId,
        db: DbIndex,
        key: &[u8],
        after: Revision,
        upto: Revision,
        visit: &mut Visit<'_>,
    ) -> Result<(), PastError>;

    /// Visits all transactions after `after`, up to `upto`, whatever branch they
    /// are on, oldest first.
    ///
    /// # Errors
    /// As [`Past::of_key`].
    fn all(&self, after: Revision, upto: Revision, visit: &mut Visit<'_>) -> Result<(), PastError>;

    /// As [`Past::all`], of one branch. A past that can tell without reading
    /// what others wrote does.
    ///
    /// # Errors
    /// As [`Past::of_key`].
    fn of_branch(
        &self,
        branch: BranchId,
        after: Revision,
        upto: Revision,
        visit: &mut Visit<'_>,
    ) -> Result<(), PastError> {
        self.all(after, upto, &mut |record| match record.header.branch == branch {
            true => visit(record),
            false => ControlFlow::Continue(()),
        })
    }

    /// The newest transaction of a branch, if one is kept.
    ///
    /// # Errors
    /// When that cannot be told.
    fn newest_of(&self, branch: BranchId) -> Result<Option<Revision>, PastError> {
        let mut newest = None;
        self.of_branch(branch, self.oldest(), Revision(u64::MAX), &mut |record| {
            newest = Some(record.revision);
            ControlFlow::Continue(())
        })?;
        Ok(newest)
    }

    /// Visits the transactions after `after`, up to `upto`, that changed
    /// databases as a whole, newest first.
    ///
    /// # Errors
    /// As [`Past::of_key`].
    fn wide(&self, after: Revision, upto: Revision, visit: &mut Visit<'_>)
    -> Result<(), PastError>;

    /// Visits the transactions after `after`, up to `upto`, that can be taken back
    /// or took others back, newest first, and maybe others; those that `is_known`
    /// are not read.
    ///
    /// # Errors
    /// As [`Past::of_key`].
    fn taken_back(
        &self,
        after: Revision,
        upto: Revision,
        is_known: &dyn Fn(Revision) -> bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), PastError>;

    /// Fails when [`Past::purge`] could not erase what keys of a branch's database
    /// were.
    ///
    /// # Errors
    /// Why not.
    fn check_erasable(&self, _branch: BranchId, _db: DbIndex) -> Result<(), PastError> {
        Ok(())
    }

    /// Erases what keys of a branch were before a transaction, from every file;
    /// the archive has reached it. Answers how many transactions were changed
    /// for it.
    ///
    /// # Errors
    /// When not everything is erased; it can be asked for again.
    fn purge(&self, branch: BranchId, purge: &Purge) -> Result<u64, PastError>;

    /// What HISTORY.STATS says, as `(name, number)`.
    fn stats(&self) -> Vec<(&'static str, u64)>;

    /// Who keeps what: a holder's name and the revision it keeps everything
    /// after.
    fn pins(&self) -> Vec<(String, Revision)>;

    /// Lets go of what is older than `before`, as far as nobody holds it;
    /// answers the oldest revision kept from then on.
    ///
    /// # Errors
    /// When files cannot be removed.
    fn compact(&self, before: Revision) -> Result<Revision, PastError>;
}

/// Why the past does not answer. The messages are error replies.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PastError {
    /// Retention has dropped it.
    #[error("COMPACTED revision {asked} is older than the oldest kept, {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// What can be read.
        oldest: Revision,
    },
    /// It has not happened yet.
    #[error("FUTUREREV {asked} is newer than the current revision, {newest}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The current revision.
        newest: Revision,
    },
    /// It takes longer to read than whoever asked in haste can wait; asked
    /// otherwise, it is answered.
    #[error("ERR the history takes long to read")]
    TakesLong,
    /// The disk, or damage.
    #[error("ERR the history cannot be read: {0}")]
    Unreadable(String),
}

impl Engine {
    /// Gives the engine its past, once.
    ///
    /// # Panics
    /// When it has one.
    pub fn attach_past(&self, past: Arc<dyn Past>) {
        assert!(self.past.set(past).is_ok(), "the engine has a past already");
    }

    /// The past; a server without a log has none.
    #[must_use]
    pub fn past(&self) -> Option<&Arc<dyn Past>> {
        self.past.get()
    }
}
