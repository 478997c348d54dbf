//! The past: the database as it was, and what changed it.
//!
//! Three things together know it. The log has every transaction, the history
//! says which of them changed a key, and the base has the states that its
//! batches reached. Of all three, what is needed to read the states from the
//! *horizon* on is kept; the horizon is one of the base's states.
//!
//! The state at a revision is that of the newest batch before it, with the
//! transactions since: all of them, or for a single key those that the history
//! names.

mod batches;
mod blocks;
mod cache;
mod erase;
mod error;
mod horizon;
mod key;
mod milestones;
mod near;
mod noting;
mod purge;
mod remains;
mod retention;
mod source;
mod trace;
mod view;

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{BranchId, DbIndex, Revision};
use keyspace::{EncodingLimits, Keyspace, Stored};
use log::{Hold, Log, Place, RealVfs, Record, Vfs};
use parking_lot::{Mutex, RecursiveRwLock};

use crate::base_tree::Base;
use crate::codec;
use crate::history::{DATABASE_WIDE, History, HistoryError, TAKEN_BACK};
use batches::Batches;
use blocks::Blocks;
use cache::{Cache, Wanted};
pub use error::PastError;
use horizon::{HORIZON, PURGED};
use key::Name;
pub use key::Present;
use milestones::Milestones;
pub use near::changes_max;
pub(crate) use noting::Noting;
pub use retention::Retention;
use source::Source;
use view::Batch;

/// The folder in the archive's that the history has to itself.
const HISTORY: &str = "history";

/// The name of the hold that keeps the log's segments.
const HOLDER: &str = "history";

/// What the past needs besides base and log.
#[derive(Clone, Copy, Debug)]
pub struct PastOptions {
    /// Databases of a branch.
    pub databases: DbIndex,
    /// When collections leave their compact encodings.
    pub limits: EncodingLimits,
    /// The log has everything that it ever had after the base's revision at
    /// least, but not before: it was cut short and went on behind the base.
    pub is_broken: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Past {
    source: Arc<Source>,
    cache: Cache,
    batches: Batches,
    hold: Hold,
    dir: PathBuf,
    /// Held while the horizon moves.
    moving: Mutex<()>,
    /// Somebody wants the space back that the base has for the past, once it has
    /// reached the revision before this; 0 when nobody does.
    merge_from: AtomicU64,
    /// Held while the past of keys is erased.
    purging: Mutex<()>,
    /// Purges that were finished since the start.
    erased: Mutex<BTreeSet<Revision>>,
}

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PastStats {
    /// Transactions that are kept.
    pub versions: u64,
    /// Bytes of the log that only the past needs.
    pub log_bytes: u64,
    /// Bytes of the files that say which transactions changed a key.
    pub index_bytes: u64,
    /// Bytes of the base, whose older states are among them.
    pub base_bytes: u64,
    /// Bytes of memory: of the index of the newest transactions, and of states
    /// that were looked at lately.
    pub memory_bytes: u64,
    /// The newest transaction whose place in the log is known.
    pub noted: Revision,
}

impl Past {
    /// Opens the past that is kept with `base`, or begins to keep it: then it
    /// begins with the state that the base has.
    ///
    /// # Errors
    /// When its files cannot be read or written.
    pub fn open(base: Arc<Base>, log: Arc<Log>, options: PastOptions) -> Result<Past, PastError> {
        let dir = base.dir().join(HISTORY);
        let hold = log.hold(HOLDER);
        let blocks = Arc::new(Blocks::new(log.clone()));
        // First: whoever opens the history removes what belongs to no segment.
        let horizon = remains::oldest(&log, &base, &dir, options.is_broken)?;
        let history = History::open(Arc::new(RealVfs), &dir, log.id(), blocks.clone())?;
        if horizon::read(&HORIZON, &RealVfs, &dir, log.id()) != Some(horizon) {
            horizon::write(&HORIZON, &RealVfs, &dir, log.id(), horizon)?;
        }
        history.forget_before(horizon)?;
        hold.set(horizon);
        let source = Arc::new(Source {
            base,
            log,
            blocks,
            history,
            horizon: AtomicU64::new(horizon.0),
            databases: options.databases,
            limits: options.limits,
            catching_up: Mutex::new(()),
            scratch: Mutex::new(None),
            milestones: Milestones::default(),
            layout: RecursiveRwLock::new(()),
            fault: Mutex::new(None),
            asked_turns: AtomicU32::new(0),
        });
        Ok(Past {
            source,
            cache: Cache::default(),
            batches: Batches::default(),
            hold,
            dir,
            moving: Mutex::new(()),
            merge_from: AtomicU64::new(0),
            purging: Mutex::new(()),
            erased: Mutex::default(),
        })
    }

    /// Says of an archive that is being made of the database `id` that every state
    /// from `oldest` on can be read, which is one of its own: its log has all that
    /// came after.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn begin_with(archive: &Path, id: [u8; 16], oldest: Revision) -> Result<(), HistoryError> {
        let dir = archive.join(HISTORY);
        RealVfs.create_dir_all(&dir).map_err(HistoryError::io("create", &dir))?;
        horizon::write(&HORIZON, &RealVfs, &dir, id, oldest)
    }

    /// Removes what is kept of the past with `base`: without somebody who
    /// follows the log for it, it would not be true any more.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn discard(base: &Base) -> Result<(), PastError> {
        let dir = base.dir().join(HISTORY);
        // First: without it nothing else is believed.
        horizon::remove(&HORIZON, &RealVfs, &dir)?;
        horizon::remove(&PURGED, &RealVfs, &dir)?;
        Ok(History::discard(&RealVfs, &dir)?)
    }

    /// Takes in the next record of the log, as [`History::note_known`] does. When
    /// that fails, what comes later has no history.
    pub(crate) fn note(&self, record: &Record<'_>, place: Place, only: Option<&[u8]>) {
        let source = &self.source;
        if let Err(error) = source.history.note_known(record, place, only) {
            let mut fault = source.fault.lock();
            if fault.is_none() {
                tracing::error!("{error}; what comes later has no history");
                *fault = Some(error.to_string());
            }
        }
    }

    /// Whether somebody has asked for the past lately.
    pub(crate) fn is_asked(&self) -> bool {
        self.source.asked_turns.load(Ordering::Relaxed) > 0
    }

    /// A turn of the follower is over.
    pub(crate) fn end_turn(&self) {
        let one_less = |turns: u32| turns.checked_sub(1);
        let _ =
            self.source.asked_turns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
    }

    /// Transactions that the log has and that are not noted.
    pub(crate) fn unnoted(&self) -> u64 {
        self.source.log.buffered().0.saturating_sub(self.noted().0)
    }

    /// The newest revision that need not be noted.
    #[must_use]
    pub fn noted(&self) -> Revision {
        self.source.history.noted()
    }

    /// The oldest revision from which on every state can be read. Of what is
    /// older, tags keep some.
    #[must_use]
    pub fn oldest(&self) -> Revision {
        self.source.oldest()
    }

    /// Fails when a state is not kept that the base has reached: it is older than
    /// the oldest, and no tag or branch keeps it.
    ///
    /// # Errors
    /// That, or when the base cannot be read.
    pub fn keeps_state(&self, revision: Revision) -> Result<(), PastError> {
        self.source.keeps_state(revision)
    }

    /// The last revision stamped at or before `time_ms`.
    ///
    /// # Errors
    /// When that is older than the oldest.
    pub fn at_time(&self, time_ms: u64) -> Result<Revision, PastError> {
        // Mostly somebody asks for a moment ago, which takes no look at the log.
        let recent = self.source.log.at_time(time_ms);
        if let Some(found) = recent.filter(|&found| found >= self.oldest()) {
            return Ok(found);
        }
        self.source.know(self.source.log.buffered())?;
        self.noted_at_time(time_ms)
    }

    /// As [`Past::at_time`], of the transactions that are noted, without
    /// waiting for others.
    ///
    /// # Errors
    /// As [`Past::at_time`].
    pub fn noted_at_time(&self, time_ms: u64) -> Result<Revision, PastError> {
        let source = &self.source;
        let _layout = source.layout.read();
        let oldest = source.oldest();
        let found = source.history.at_time(time_ms)?;
        match found.filter(|&found| found >= oldest) {
            Some(found) => Ok(found),
            None if source.base.directory_at(oldest)?.time_ms <= time_ms => Ok(oldest),
            None => {
                let asked = found.unwrap_or(Revision(oldest.0.saturating_sub(1)));
                Err(PastError::Compacted { asked, oldest })
            }
        }
    }

    /// When a revision ran.
    ///
    /// # Errors
    /// When it is older than the oldest or newer than the newest.
    pub fn time_of(&self, revision: Revision) -> Result<u64, PastError> {
        let source = &self.source;
        source.reach(revision)?;
        if revision <= source.oldest() {
            return Ok(source.base.directory_at(revision)?.time_ms);
        }
        source.time_of(revision)?.ok_or_else(|| source.compacted(revision))
    }

    /// The state of a branch at a revision, not before it was made: all of it, but
    /// for what was erased since. Nobody may change it.
    ///
    /// # Errors
    /// As [`Past::time_of`], or when it cannot be read.
    pub fn view(&self, branch: BranchId, revision: Revision) -> Result<Arc<Keyspace>, PastError> {
        self.source.reach(revision)?;
        if let Some(found) = self.cache.get((branch, revision), true, self.oldest()) {
            return Ok(found);
        }
        let (batch, keyspace) = self.whole(branch, revision)?;
        let rules = self.source.base.directory().rules_of(branch);
        for purge in rules.purges().iter().filter(|purge| purge.at > revision) {
            view::hide(&keyspace, purge)?;
        }
        Ok(self.cache.put((branch, revision), batch, true, keyspace))
    }

    /// As [`Past::view`], as a keyspace of one's own, where the names of what was
    /// erased since may stand with empty values.
    ///
    /// # Errors
    /// As [`Past::view`].
    pub fn state(&self, branch: BranchId, revision: Revision) -> Result<Keyspace, PastError> {
        self.source.reach(revision)?;
        Ok(self.whole(branch, revision)?.1)
    }

    /// As [`view::whole`], of the newest batch before. When the horizon passes that
    /// batch, though not the revision, there is a newer one to begin with.
    fn whole(
        &self,
        branch: BranchId,
        revision: Revision,
    ) -> Result<(Revision, Keyspace), PastError> {
        loop {
            let oldest = self.oldest();
            let batch = self.batch_at(branch, revision);
            let found = batch.and_then(|batch| view::whole(&self.source, &batch, revision));
            match found {
                Err(error)
                    if error.as_compacted().is_some()
                        && (oldest.next()..=revision).contains(&self.oldest()) => {}
                found => return found,
            }
        }
    }

    /// As [`Past::state`], for those who look only at keys with some names, in
    /// whatever database: what was done to others need not be done again.
    ///
    /// # Errors
    /// As [`Past::view`].
    pub fn state_of(
        &self,
        branch: BranchId,
        revision: Revision,
        names: &HashSet<Vec<u8>>,
    ) -> Result<Keyspace, PastError> {
        self.source.reach(revision)?;
        let batch = self.batch_at(branch, revision)?;
        if let Some(found) = view::of_names(&self.source, &batch, revision, names)? {
            return Ok(found);
        }
        Ok(view::whole(&self.source, &batch, revision)?.1)
    }

    /// As [`Past::view`], for those who look at keys by name only: each costs
    /// what it has to read. Counts are wrong, and to look through keys is an
    /// error.
    ///
    /// # Errors
    /// As [`Past::view`].
    pub fn view_of_keys(
        &self,
        branch: BranchId,
        revision: Revision,
    ) -> Result<Arc<Keyspace>, PastError> {
        self.source.reach(revision)?;
        if let Some(found) = self.cache.get((branch, revision), false, self.oldest()) {
            return Ok(found);
        }
        let batch = self.batch_at(branch, revision)?;
        let (batch, keyspace) = view::of_keys(&self.source, batch, revision);
        Ok(self.cache.put((branch, revision), batch, false, keyspace))
    }

    /// What [`Past::view_of_keys`] answers, if it is there, or if the revision
    /// was asked for so often lately that it is worth making. Of what is not noted
    /// yet there is none.
    ///
    /// # Errors
    /// As [`Past::view`].
    pub fn view_at_hand(
        &self,
        branch: BranchId,
        revision: Revision,
    ) -> Result<Option<Arc<Keyspace>>, PastError> {
        if self.noted() < revision {
            return Ok(None);
        }
        self.source.reach(revision)?;
        match self.cache.get_or_count((branch, revision), self.oldest()) {
            Wanted::Kept(found) => Ok(Some(found)),
            Wanted::Again => self.view_of_keys(branch, revision).map(Some),
            Wanted::Seldom => Ok(None),
        }
    }

    /// A key of a branch's database at a revision, due or not. It costs what has to be
    /// read for it, and nothing is kept. With `names`, for those who ask for
    /// elements of a collection by these names: the others may be missing, but
    /// for one that stands for them.
    ///
    /// # Errors
    /// As [`Past::view`].
    pub fn key(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
        names: Option<&[&[u8]]>,
    ) -> Result<Option<Stored>, PastError> {
        self.key_with(branch, revision, db, key, names, &|| None, false)
    }

    /// As [`Past::key`]. Where many changes have made the key what it was, it is
    /// asked what the branch has now: mostly fewer have come since. In haste, what
    /// takes longer than others on the same thread should wait is not read.
    ///
    /// # Errors
    /// As [`Past::view`]; [`PastError::TakesLong`] in haste.
    #[allow(clippy::too_many_arguments, reason = "one call with everything that says which")]
    pub fn key_with(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
        names: Option<&[&[u8]]>,
        present: Present<'_>,
        is_hasty: bool,
    ) -> Result<Option<Stored>, PastError> {
        self.source.reach_soon(revision, is_hasty)?;
        let batch = self.batch_at(branch, revision)?;
        let name = Name::new(batch.directory.seed, db, key).with_elements(names);
        let name = name.in_haste(is_hasty);
        key::read(&self.source, &batch, revision, &name, present)
    }

    /// Whether [`Past::key`] reads less with names than without, because the base
    /// has elements of the key one by one.
    ///
    /// # Errors
    /// As [`Past::view`].
    pub fn is_large(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> Result<bool, PastError> {
        self.source.reach(revision)?;
        let batch = self.batch_at(branch, revision)?;
        let name = Name::new(batch.directory.seed, db, key);
        let Some(space) = batch.space_of(db) else { return Ok(false) };
        Ok(batch.has_named(space, name.hash, name.key)?)
    }

    /// Of the collections whose elements are some of a branch's key, the
    /// revisions of their last changes: none of them is the branch's own. Of a
    /// key that the branch has not changed some may be told, too.
    ///
    /// # Errors
    /// As [`Past::view`].
    pub fn lies_over(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Vec<Revision>, PastError> {
        self.source.reach(revision)?;
        let batch = self.batch_at(branch, revision)?;
        let hash = keyspace::hash_of(batch.directory.seed, key);
        // Since then it may have come from another database.
        let wide = self.source.history.records(DATABASE_WIDE, batch.revision(), revision);
        let may_have_moved = wide.into_iter().next().transpose()?.is_some();
        let mut found = Vec::new();
        let databases = batch.directory.databases.iter().filter(|it| it.branch == branch);
        for database in databases.filter(|it| it.db == db || may_have_moved) {
            let head = codec::head_key(database.space, hash, key);
            found.extend(self.source.base.lies_over(&head, batch.revision())?);
        }
        Ok(found)
    }

    /// A key at several revisions, the oldest first, each told to `visit` with
    /// its place among them. What was done to the key is read once for all. With
    /// `names` and `present`, as [`Past::key_with`].
    ///
    /// # Errors
    /// As [`Past::view`].
    #[allow(clippy::too_many_arguments, reason = "one call with everything that says which")]
    pub fn key_at_each(
        &self,
        branch: BranchId,
        revisions: &[(Revision, Option<Record<'_>>)],
        db: DbIndex,
        key: &[u8],
        names: Option<&[&[u8]]>,
        present: Present<'_>,
        visit: &mut dyn FnMut(usize, Option<&Stored>),
    ) -> Result<(), PastError> {
        let (Some(&(oldest, _)), Some(&(newest, _))) = (revisions.first(), revisions.last()) else {
            return Ok(());
        };
        self.source.reach(oldest)?;
        self.source.reach(newest)?;
        let batch = self.batch_at(branch, oldest)?;
        let name = Name::new(batch.directory.seed, db, key).with_elements(names);
        key::read_each(&self.source, &batch, revisions, &name, present, visit)
    }

    /// The newest state of the base at or before a revision, or one that was
    /// not long ago.
    fn batch_at(&self, branch: BranchId, revision: Revision) -> Result<Arc<Batch>, PastError> {
        if let Some(found) = self.batches.get(branch, revision, self.oldest()) {
            return Ok(found);
        }
        let batch = Arc::new(Batch::at(&self.source, branch, revision)?);
        Ok(self.batches.put(revision, batch))
    }

    /// Where visits of what comes after `after`, up to `upto`, end: all of it is
    /// kept and noted.
    fn begin_visits(&self, after: Revision, upto: Revision) -> Result<Revision, PastError> {
        // Those that are given out are about to be appended: it is waited for them.
        let upto = upto.min(self.source.log.newest());
        self.source.know(upto)?;
        self.source.keeps(after)?;
        Ok(upto)
    }

    /// Visits the transactions of a branch after `after`, up to `upto`, that
    /// changed a key or everything in its database, newest first.
    ///
    /// # Errors
    /// When a part of them is not kept any more, or cannot be read.
    pub fn of_key(
        &self,
        branch: BranchId,
        db: DbIndex,
        key: &[u8],
        after: Revision,
        upto: Revision,
        visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let source = &self.source;
        let upto = self.begin_visits(after, upto)?;
        let _layout = source.layout.read();
        for hit in source.newest_first(key, after, upto) {
            let hit = hit?;
            let flow = source.record(hit, &mut |record| {
                let touches = trace::touches(record.effects, record.header.db, db, key);
                let is_ours = record.header.branch == branch;
                touches.map(|it| match it && is_ours {
                    true => visit(*record),
                    false => ControlFlow::Continue(()),
                })
            })?;
            let malformed = |source| PastError::Malformed { revision: hit.revision, source };
            if flow.map_err(malformed)?.is_break() {
                return Ok(());
            }
        }
        // Had something gone meanwhile, the visits would not have been all.
        source.keeps(after)
    }

    /// Visits the transactions after `after`, up to `upto`, that changed
    /// databases as a whole, newest first.
    ///
    /// # Errors
    /// As [`Past::of_key`].
    pub fn wide(
        &self,
        after: Revision,
        upto: Revision,
        visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let upto = self.begin_visits(after, upto)?;
        let source = &self.source;
        let _layout = source.layout.read();
        for hit in source.history.records(DATABASE_WIDE, after, upto) {
            if source.record(hit?, &mut |record| visit(*record))?.is_break() {
                break;
            }
        }
        source.keeps(after)
    }

    /// Visits the transactions after `after`, up to `upto`, that can be taken back
    /// or took others back, newest first, and maybe others; those that `is_known`
    /// are not read.
    ///
    /// # Errors
    /// As [`Past::of_key`].
    pub fn taken_back(
        &self,
        after: Revision,
        upto: Revision,
        is_known: &dyn Fn(Revision) -> bool,
        visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let upto = self.begin_visits(after, upto)?;
        self.noted_taken_back(after, upto, is_known, visit)
    }

    /// As [`Past::taken_back`], of the transactions that are noted, without
    /// waiting for others.
    ///
    /// # Errors
    /// As [`Past::of_key`].
    pub fn noted_taken_back(
        &self,
        after: Revision,
        upto: Revision,
        is_known: &dyn Fn(Revision) -> bool,
        visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let source = &self.source;
        source.keeps(after)?;
        let _layout = source.layout.read();
        // Older indexes have all of them as changes of databases.
        for hit in source.with_wide(TAKEN_BACK, after, upto) {
            let hit = hit?;
            if !is_known(hit.revision)
                && source.record(hit, &mut |record| visit(*record))?.is_break()
            {
                break;
            }
        }
        source.keeps(after)
    }

    /// Visits all transactions after `after`, up to `upto`, whatever branch they
    /// are on, oldest first.
    ///
    /// # Errors
    /// As [`Past::of_key`].
    pub fn all(
        &self,
        after: Revision,
        upto: Revision,
        visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let source = &self.source;
        let upto = self.begin_visits(after, upto)?;
        source.changes(after, upto, &mut |record| visit(*record))?;
        source.keeps(after)
    }

    /// Visits all transactions on a branch after `after`, up to `upto`, oldest
    /// first. Costs what has to be read for these, not for those of others.
    ///
    /// # Errors
    /// As [`Past::of_key`].
    pub fn of_branch(
        &self,
        branch: BranchId,
        after: Revision,
        upto: Revision,
        visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let source = &self.source;
        let upto = self.begin_visits(after, upto)?;
        source.changes_of(branch, after, upto, &mut |record| visit(*record))?;
        source.keeps(after)
    }

    /// The newest transaction of a branch, if one is kept.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn newest_of(&self, branch: BranchId) -> Result<Option<Revision>, PastError> {
        let source = &self.source;
        source.know(source.log.buffered())?;
        let _layout = source.layout.read();
        Ok(source.history.newest_of(branch)?)
    }

    /// Makes the index of one segment of the log that has none, as after a stop
    /// right behind the segment's end: else whoever asks first waits for it.
    /// Answers whether there was one.
    ///
    /// # Errors
    /// When the segment cannot be read, or the index not be written.
    pub fn mend(&self) -> Result<bool, PastError> {
        let _layout = self.source.layout.read();
        Ok(self.source.history.mend()?)
    }

    /// How much is kept.
    #[must_use]
    pub fn stats(&self) -> PastStats {
        let source = &self.source;
        let archived = source.base.revision();
        let history = source.history.stats();
        let segments = source.log.segments();
        let old = segments.iter().filter(|segment| segment.is_sealed && segment.last <= archived);
        PastStats {
            versions: self.noted().0.saturating_sub(self.oldest().0),
            log_bytes: old.map(|segment| segment.bytes).sum(),
            index_bytes: history.file_bytes,
            base_bytes: source.base.disk_bytes(),
            memory_bytes: (history.memory_bytes
                + self.cache.memory_bytes()
                + source.blocks.memory_bytes()
                + source.milestones.memory_bytes()) as u64,
            noted: self.noted(),
        }
    }
}
