//! Views of the past, and looks into them by other commands than those of a client.

use std::collections::HashSet;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use command::{Error, Result};
use keyspace::{
    Buffers, Journal, Keyspace, NEAR_ELEMENTS, Scope, Stored, Txn, TxnOptions, Value, ValueRef,
};

use super::moment::Moment;
use crate::engine::{Engine, Live};
use crate::past::{Past, PastError};

/// What a key held, with its deadline, if it existed.
pub(crate) type Then = Option<(Value, Option<u64>)>;

/// Nobody writes to the past.
pub(crate) struct Unchanged;

impl Journal for Unchanged {
    fn reserve(&self) -> Revision {
        unreachable!("a command that only reads has changed a view")
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}

    fn wants_effects(&self) -> bool {
        false
    }
}

impl Engine {
    /// A key as it was, made from what its branch has now, if that is a large
    /// collection of which little has changed since.
    pub(super) fn key_near(
        &self,
        past: &Arc<dyn Past>,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> std::result::Result<Option<Stored>, PastError> {
        let Some(keyspace) = self.keyspace_since(past, branch, revision, db) else {
            return Ok(None);
        };
        match keyspace.copy_large(db, key, NEAR_ELEMENTS) {
            Some(present) => past.key_from(branch, revision, db, key, present),
            None => Ok(None),
        }
    }

    /// What a branch has now of a key, if that is small and the branch is still the
    /// one of this revision.
    pub(crate) fn present(
        &self,
        past: &Arc<dyn Past>,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> Option<Stored> {
        self.keyspace_since(past, branch, revision, db)?.copy_small(db, key)
    }

    /// What a branch has in memory, if it has been the same since a revision and
    /// has such a database.
    pub(super) fn keyspace_since(
        &self,
        past: &Arc<dyn Past>,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
    ) -> Option<Arc<Keyspace>> {
        let keyspace = self.branch(branch)?.keyspace.clone();
        // One that has begun anew since is another; it is known as such before it
        // serves.
        let forked = self.branches.known.read().get(branch).map(|row| row.forked);
        let begins = forked.unwrap_or_default().max(past.oldest());
        (db < keyspace.databases() && revision >= begins).then_some(keyspace)
    }

    /// The state at a moment, all of it.
    pub(crate) fn view_at(&self, at: Moment) -> Result<Arc<Keyspace>> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        Ok(self.needs_past()?.view(branch, revision)?)
    }

    /// As [`Engine::view_at`], to be changed, with keys that are read when they are asked for.
    pub(crate) fn state_at(&self, at: Moment) -> Result<Keyspace> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        Ok(self.needs_past()?.state(branch, revision)?)
    }

    /// As [`Engine::state_at`], for those who look only at keys with some names,
    /// in whatever database.
    pub(crate) fn state_of_at(&self, at: Moment, names: &HashSet<Vec<u8>>) -> Result<Keyspace> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        Ok(self.needs_past()?.state_of(branch, revision, names)?)
    }

    /// The same, for those who look at keys by name only.
    pub(crate) fn view_of_keys_at(&self, at: Moment) -> Result<Arc<Keyspace>> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        Ok(self.needs_past()?.view_of_keys(branch, revision)?)
    }

    /// A key as it was; `look` sees `None` where there was none.
    pub(crate) fn look_at<R>(
        &self,
        at: Moment,
        db: DbIndex,
        key: &[u8],
        look: impl FnOnce(Option<ValueRef<'_>>, Option<u64>) -> R,
    ) -> Result<R> {
        let (past, (branch, revision)) = (self.needs_past()?, self.line_of(at).at(at.revision));
        // To make a view costs more than to read what is small.
        if self.present(past, branch, revision, db, key).is_some() {
            let present = &|| self.present(past, branch, revision, db, key);
            let found = past.key_with(branch, revision, db, key, None, present, false)?;
            let seen = found.filter(|it| it.deadline.is_none_or(|due| due > at.time_ms));
            let deadline = seen.as_ref().and_then(|stored| stored.deadline);
            return Ok(look(seen.as_ref().map(|stored| stored.value.as_ref()), deadline));
        }
        let view = self.view_of_keys_at(at)?;
        self.look_in(&view, at.time_ms, db, key, look)
    }

    /// As [`Engine::look_at`], in a keyspace that is there already.
    pub(crate) fn look_in<R>(
        &self,
        view: &Keyspace,
        time_ms: u64,
        db: DbIndex,
        key: &[u8],
        look: impl FnOnce(Option<ValueRef<'_>>, Option<u64>) -> R,
    ) -> Result<R> {
        if db >= view.databases() {
            return Ok(look(None, None));
        }
        let (live, mut buffers) = (self.live(), Buffers::default());
        let options = view_options(&live, time_ms);
        let mut txn = Txn::begin_on_key(view, key, &Unchanged, &mut buffers, options);
        txn.keep_due();
        txn.select(db);
        txn.load(key);
        txn.check_backing()?;
        Ok(look(txn.look(key), txn.deadline(key).flatten()))
    }

    /// A copy of a key's value as it was, with its deadline.
    pub(crate) fn value_at(&self, at: Moment, db: DbIndex, key: &[u8]) -> Result<Then> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        if let Some(near) = self.value_near(branch, revision, at.time_ms, db, key)? {
            return Ok(near);
        }
        let copy = |value: Option<ValueRef<'_>>, deadline| Some((value?.to_shared(), deadline));
        self.look_at(at, db, key, copy)
    }

    /// As [`Engine::value_at`] of a revision of a branch's own, if the key can be
    /// made from what the branch has now; `None` if it has to be read.
    pub(crate) fn value_near(
        &self,
        branch: BranchId,
        revision: Revision,
        time_ms: u64,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Option<Then>> {
        let Some(past) = self.past() else { return Ok(None) };
        let near = self.key_near(past, branch, revision, db, key)?;
        Ok(near.map(|Stored { value, deadline, .. }| {
            let is_due = deadline.is_some_and(|at| at <= time_ms);
            (!is_due).then_some((value, deadline))
        }))
    }

    /// As [`Engine::value_at`], in a view that is there already.
    pub(crate) fn value_in(
        &self,
        view: &Keyspace,
        time_ms: u64,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Then> {
        let copy = |value: Option<ValueRef<'_>>, deadline| Some((value?.to_shared(), deadline));
        self.look_in(view, time_ms, db, key, copy)
    }

    /// Fails for a database that there is not: an earlier start had more. To be
    /// called before anything is changed.
    pub(crate) fn check_database(&self, db: Option<DbIndex>) -> Result {
        let databases = self.keyspace.databases();
        match db.filter(|db| *db >= databases) {
            None => Ok(()),
            Some(db) => Err(Error::new(format!(
                "ERR keys of database {db} changed then, but server.databases is {databases}: raise it to {} at least \
                 and restart; nothing is done",
                u32::from(db) + 1
            ))),
        }
    }

    /// Visits the names of all keys of a database, those that are due included.
    pub(crate) fn each_key(
        &self,
        keyspace: &Keyspace,
        db: DbIndex,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result {
        if db >= keyspace.databases() {
            return Ok(());
        }
        let (live, mut buffers) = (self.live(), Buffers::default());
        // At this time no deadline has passed.
        let options = view_options(&live, 0);
        let scope = Scope::Sliced;
        let mut txn = Txn::begin(keyspace, &scope, &Unchanged, &mut buffers, options);
        txn.keep_due();
        txn.select(db);
        txn.scan(0, usize::MAX, &mut |key, _| visit(key))?;
        Ok(())
    }
}

pub(crate) fn view_options(live: &Live, now_ms: u64) -> TxnOptions<'_> {
    TxnOptions {
        now_ms,
        limits: &live.encoding,
        event_classes: 0,
        always_record: false,
        expire: true,
        touch: false,
    }
}
