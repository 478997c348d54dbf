//! The past as the engine knows it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

use archive::{Base, PastOptions, Retention};
use base::{BranchId, DbIndex, Revision};
use engine::{Engine, PastError, Present, StandaloneLog, Visit};
use keyspace::{Keyspace, Purge, Stored};
use log::Record;
use settings::Settings;

use crate::pins::{pinned, pins};

/// The past that an archive keeps.
pub struct Past {
    past: Arc<archive::Past>,
    log: Arc<StandaloneLog>,
    /// Removes segments of the log that nobody holds any more.
    remove: Box<dyn Fn() + Send + Sync>,
    /// Whose past it is: it has the rules on what is kept.
    engine: Weak<Engine>,
}

impl std::fmt::Debug for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Past").field("past", &self.past).finish_non_exhaustive()
    }
}

/// Opens the past that is kept with `base`, as far as the settings want one.
/// `is_broken` says that the log went on behind the base after a part of it
/// was lost.
///
/// # Errors
/// When its files cannot be read or changed.
pub fn open(
    base: &Arc<Base>,
    log: &StandaloneLog,
    settings: &Settings,
    is_broken: bool,
) -> Result<Option<Arc<archive::Past>>, String> {
    if settings.history_keep_s == 0 {
        archive::Past::discard(base).map_err(|error| error.to_string())?;
        return Ok(None);
    }
    let options = PastOptions {
        databases: settings.databases,
        limits: engine::encoding_limits(settings),
        is_broken,
    };
    let past = archive::Past::open(base.clone(), log.log().clone(), options);
    Ok(Some(Arc::new(past.map_err(|error| error.to_string())?)))
}

impl Past {
    /// Tells the engine. `remove` removes segments of the log that nobody holds
    /// any more.
    pub fn attach(
        engine: &Arc<Engine>,
        past: Arc<archive::Past>,
        log: Arc<StandaloneLog>,
        remove: Box<dyn Fn() + Send + Sync>,
    ) {
        let whose = Arc::downgrade(engine);
        engine.attach_past(Arc::new(Past { past, log, remove, engine: whose }));
    }
}

/// Lets go of what neither the settings nor anybody else want kept.
pub fn retain(past: &archive::Past, engine: &Engine) {
    let settings = &engine.live().settings;
    let age_ms = settings.history_keep_s.saturating_mul(1000);
    let retention = Retention { age_ms, bytes: settings.history_bytes };
    let now_ms = engine.clock.now_ms();
    let held = RefCell::new(None);
    let pinned = || {
        // Until the horizon has moved. Who changes branches may wait for this thread.
        let mut held = held.borrow_mut();
        *held = engine.hold_branches(false);
        held.as_ref().map_or(Revision::ZERO, |_| pinned(engine, past))
    };
    if let Err(error) = past.retain(&retention, now_ms, &pinned) {
        tracing::warn!("let go of old history: {error}; it is tried again");
    }
}

/// Makes the index of a segment that has none.
pub fn mend(past: &archive::Past) {
    if let Err(error) = past.mend() {
        tracing::warn!("index the history: {error}; it is tried again");
    }
}

impl engine::Past for Past {
    fn oldest(&self) -> Revision {
        self.past.oldest()
    }

    fn keeps_state(&self, revision: Revision) -> Result<(), PastError> {
        self.past.keeps_state(revision).map_err(told)
    }

    fn at_time(&self, time_ms: u64) -> Result<Revision, PastError> {
        self.past.at_time(time_ms).map_err(told)
    }

    fn time_of(&self, revision: Revision) -> Result<u64, PastError> {
        self.past.time_of(revision).map_err(told)
    }

    fn view(&self, branch: BranchId, revision: Revision) -> Result<Arc<Keyspace>, PastError> {
        self.past.view(branch, revision).map_err(told)
    }

    fn state(&self, branch: BranchId, revision: Revision) -> Result<Keyspace, PastError> {
        self.past.state(branch, revision).map_err(told)
    }

    fn state_of(
        &self,
        branch: BranchId,
        revision: Revision,
        names: &HashSet<Vec<u8>>,
    ) -> Result<Keyspace, PastError> {
        self.past.state_of(branch, revision, names).map_err(told)
    }

    fn view_of_keys(
        &self,
        branch: BranchId,
        revision: Revision,
    ) -> Result<Arc<Keyspace>, PastError> {
        self.past.view_of_keys(branch, revision).map_err(told)
    }

    fn view_at_hand(
        &self,
        branch: BranchId,
        revision: Revision,
    ) -> Result<Option<Arc<Keyspace>>, PastError> {
        self.past.view_at_hand(branch, revision).map_err(told)
    }

    fn key(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
        names: Option<&[&[u8]]>,
    ) -> Result<Option<Stored>, PastError> {
        self.past.key(branch, revision, db, key, names).map_err(told)
    }

    fn key_with(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
        names: Option<&[&[u8]]>,
        present: Present<'_>,
        is_hasty: bool,
    ) -> Result<Option<Stored>, PastError> {
        self.past.key_with(branch, revision, db, key, names, present, is_hasty).map_err(told)
    }

    fn is_large(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> Result<bool, PastError> {
        self.past.is_large(branch, revision, db, key).map_err(told)
    }

    fn key_from(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
        present: Stored,
    ) -> Result<Option<Stored>, PastError> {
        let max = archive::changes_max(&present);
        self.past.key_from(branch, revision, db, key, present, max).map_err(told)
    }

    fn lies_over(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Vec<Revision>, PastError> {
        self.past.lies_over(branch, revision, db, key).map_err(told)
    }

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
        self.past.key_at_each(branch, revisions, db, key, names, present, visit).map_err(told)
    }

    fn of_key(
        &self,
        branch: BranchId,
        db: DbIndex,
        key: &[u8],
        after: Revision,
        upto: Revision,
        visit: &mut Visit<'_>,
    ) -> Result<(), PastError> {
        self.past.of_key(branch, db, key, after, upto, visit).map_err(told)
    }

    fn all(&self, after: Revision, upto: Revision, visit: &mut Visit<'_>) -> Result<(), PastError> {
        self.past.all(after, upto, visit).map_err(told)
    }

    fn of_branch(
        &self,
        branch: BranchId,
        after: Revision,
        upto: Revision,
        visit: &mut Visit<'_>,
    ) -> Result<(), PastError> {
        self.past.of_branch(branch, after, upto, visit).map_err(told)
    }

    fn newest_of(&self, branch: BranchId) -> Result<Option<Revision>, PastError> {
        self.past.newest_of(branch).map_err(told)
    }

    fn wide(
        &self,
        after: Revision,
        upto: Revision,
        visit: &mut Visit<'_>,
    ) -> Result<(), PastError> {
        self.past.wide(after, upto, visit).map_err(told)
    }

    fn taken_back(
        &self,
        after: Revision,
        upto: Revision,
        is_known: &dyn Fn(Revision) -> bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), PastError> {
        self.past.taken_back(after, upto, is_known, visit).map_err(told)
    }

    fn check_erasable(&self, branch: BranchId, db: DbIndex) -> Result<(), PastError> {
        self.past.check_erasable(branch, db).map_err(told)
    }

    fn purge(&self, _: BranchId, purge: &Purge) -> Result<u64, PastError> {
        // The archive knows of it by now, and of those that failed, which come first.
        self.past.finish_purges(purge.at).map_err(told)
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let stats = self.past.stats();
        vec![
            ("versions", stats.versions),
            ("bytes", stats.log_bytes + stats.index_bytes),
            ("log_bytes", stats.log_bytes),
            ("index_bytes", stats.index_bytes),
            ("base_bytes", stats.base_bytes),
            ("memory_bytes", stats.memory_bytes),
            ("oldest_rev", self.past.oldest().0),
            ("noted_rev", stats.noted.0),
        ]
    }

    fn pins(&self) -> Vec<(String, Revision)> {
        let mut all = self.log.log().holders();
        all.extend(self.engine.upgrade().iter().flat_map(|engine| pins(engine, &self.past)));
        all.sort();
        all
    }

    fn compact(&self, before: Revision) -> Result<Revision, PastError> {
        // Without an engine nobody knows what is needed.
        let Some(engine) = self.engine.upgrade() else { return Ok(self.past.oldest()) };
        let held = engine.hold_branches(true);
        let before = before.min(pinned(&engine, &self.past));
        let oldest = self.past.compact(before).map_err(told)?;
        drop(held);
        (self.remove)();
        Ok(oldest)
    }
}

fn told(error: archive::PastError) -> PastError {
    if let Some((asked, oldest)) = error.as_compacted() {
        return PastError::Compacted { asked, oldest };
    }
    match error {
        archive::PastError::Future { asked, newest } => PastError::Future { asked, newest },
        archive::PastError::TakesLong => PastError::TakesLong,
        error => PastError::Unreadable(error.to_string()),
    }
}
