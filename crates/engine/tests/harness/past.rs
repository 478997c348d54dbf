//! A past in memory: every record, and views made by replaying them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{BranchId, DbIndex, Revision};
use engine::{Commit, Past, PastError, Replicator, Visit};
use keyspace::effect::{Effect, Effects};
use keyspace::{Buffers, EncodingLimits, Journal, Keyspace, Purge, Stored};
use log::{Record, RecordHeader};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

struct Kept {
    branch: BranchId,
    time_ms: u64,
    db: DbIndex,
    effects: Vec<u8>,
}

/// A log and its history without a disk. Everything is committed at once.
#[derive(Default)]
pub struct MemoryPast {
    newest: AtomicU64,
    /// By revision. Transactions of disjoint keys may come out of order.
    records: Mutex<BTreeMap<u64, Kept>>,
    appended: Condvar,
    oldest: AtomicU64,
    /// The last revision that somebody has awaited on the disk.
    pub awaited: AtomicU64,
    /// How many views were made.
    pub views: AtomicU64,
    /// Runs when a key or a whole state is asked for next.
    pub before_key: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Runs when a write is admitted next, before it takes its locks.
    pub before_write: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Runs whenever somebody asks for the newest revision, but not while it runs.
    pub before_newest: Mutex<Option<Box<dyn FnMut() + Send>>>,
    /// Run one after the other, each before records are read the next time.
    pub before_reads: Mutex<VecDeque<Box<dyn FnOnce() + Send>>>,
}

impl MemoryPast {
    pub fn new() -> Arc<MemoryPast> {
        Arc::default()
    }

    /// Bytes of all effects.
    #[allow(dead_code, reason = "not every test measures")]
    pub fn bytes(&self) -> usize {
        self.records.lock().values().map(|kept| kept.effects.len()).sum()
    }

    fn check(&self, revision: Revision) -> Result<(), PastError> {
        let (oldest, newest) = (self.oldest(), self.newest());
        if revision < oldest {
            return Err(PastError::Compacted { asked: revision, oldest });
        }
        if revision > newest {
            return Err(PastError::Future { asked: revision, newest });
        }
        Ok(())
    }

    fn visit(
        &self,
        revisions: impl Iterator<Item = u64>,
        visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) {
        for revision in revisions {
            // A visitor may ask for a view.
            let (header, effects) = {
                let mut records = self.records.lock();
                while !records.contains_key(&revision) {
                    self.appended.wait(&mut records);
                }
                let kept = &records[&revision];
                let (branch, time_ms, db) = (kept.branch, kept.time_ms, kept.db);
                (RecordHeader { time_ms, db, branch }, kept.effects.clone())
            };
            let record = Record { revision: Revision(revision), header, effects: &effects };
            if visit(record).is_break() {
                return;
            }
        }
    }

    /// Visits those with such an effect, newest first.
    fn visit_with(
        &self,
        is_it: &dyn Fn(&Effect<'_>) -> bool,
        after: Revision,
        upto: Revision,
        visit: &mut Visit<'_>,
    ) {
        self.visit((after.0 + 1..=upto.0).rev(), &mut |record| {
            let mut effects = Effects::new(record.effects).map(|effect| effect.expect("ours"));
            if effects.any(|effect| is_it(&effect)) {
                visit(record)
            } else {
                ControlFlow::Continue(())
            }
        });
    }
}

fn touches(record: &Record<'_>, db: DbIndex, key: &[u8]) -> bool {
    let mut at = record.header.db;
    Effects::new(record.effects).any(|effect| match effect.expect("our own bytes") {
        Effect::Database(other) => {
            at = other;
            false
        }
        Effect::Key { key: name, .. } => at == db && name == key,
        Effect::Rename { db: to, key: name, .. } => to == db && name == key,
        Effect::Flush { db: flushed } => flushed == db,
        Effect::Swap { a, b } => a == db || b == db,
        _ => false,
    })
}

impl Journal for MemoryPast {
    fn reserve(&self) -> Revision {
        Revision(self.newest.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn append(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &[u8]) {
        self.append_on(BranchId::MAIN, revision, time_ms, db, effects);
    }
}

impl Replicator for MemoryPast {
    fn append_on(
        &self,
        branch: BranchId,
        revision: Revision,
        time_ms: u64,
        db: DbIndex,
        effects: &[u8],
    ) {
        let kept = Kept { branch, time_ms, db, effects: effects.to_vec() };
        self.records.lock().insert(revision.0, kept);
        self.appended.notify_all();
    }

    fn wait_durable(&self, revision: Revision) {
        self.awaited.store(revision.0, Ordering::SeqCst);
    }

    fn is_committed(&self, _: Revision) -> bool {
        true
    }

    fn committed(&self) -> Revision {
        self.newest()
    }

    fn commits(&self) -> watch::Receiver<Commit> {
        watch::channel(Commit::default()).1
    }

    fn admit_write(&self) -> command::Result {
        let before = self.before_write.lock().take();
        if let Some(before) = before {
            before();
        }
        Ok(())
    }

    fn durable(&self) -> Revision {
        self.newest()
    }

    fn newest(&self) -> Revision {
        let before = self.before_newest.lock().take();
        if let Some(mut before) = before {
            before();
            *self.before_newest.lock() = Some(before);
        }
        Revision(self.newest.load(Ordering::SeqCst))
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

impl Past for MemoryPast {
    fn oldest(&self) -> Revision {
        Revision(self.oldest.load(Ordering::SeqCst))
    }

    fn at_time(&self, time_ms: u64) -> Result<Revision, PastError> {
        let count = self.records.lock().values().take_while(|kept| kept.time_ms <= time_ms).count();
        let revision = Revision(count as u64);
        self.check(revision).map(|()| revision)
    }

    fn time_of(&self, revision: Revision) -> Result<u64, PastError> {
        self.check(revision)?;
        Ok(self.records.lock()[&revision.0].time_ms)
    }

    fn view(&self, branch: BranchId, revision: Revision) -> Result<Arc<Keyspace>, PastError> {
        self.state(branch, revision).map(Arc::new)
    }

    /// What a branch has written by then: each begins with nothing.
    fn state(&self, branch: BranchId, revision: Revision) -> Result<Keyspace, PastError> {
        let before = self.before_key.lock().take();
        before.into_iter().for_each(|before| before());
        self.check(revision)?;
        self.views.fetch_add(1, Ordering::Relaxed);
        let view = Keyspace::new(16, 7);
        let (limits, mut buffers) = (EncodingLimits::default(), Buffers::default());
        self.visit(1..=revision.0, &mut |Record { revision, header, effects }| {
            let RecordHeader { time_ms, db, .. } = header;
            if header.branch == branch {
                view.apply(revision, time_ms, db, effects, &limits, &mut buffers).expect("replays");
            }
            ControlFlow::Continue(())
        });
        Ok(view)
    }

    fn view_at_hand(&self, _: BranchId, _: Revision) -> Result<Option<Arc<Keyspace>>, PastError> {
        Ok(None)
    }

    fn key(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
        _: Option<&[&[u8]]>,
    ) -> Result<Option<Stored>, PastError> {
        Ok(self.view(branch, revision)?.take(db, key).expect("nothing is backed"))
    }

    fn lies_over(
        &self,
        _: BranchId,
        _: Revision,
        _: DbIndex,
        _: &[u8],
    ) -> Result<Vec<Revision>, PastError> {
        Ok(Vec::new())
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
        let before = self.before_reads.lock().pop_front();
        before.into_iter().for_each(|before| before());
        self.check(after)?;
        self.check(upto)?;
        self.visit(
            (after.0 + 1..=upto.0).rev(),
            &mut |record| match record.header.branch == branch && touches(&record, db, key) {
                true => visit(record),
                false => ControlFlow::Continue(()),
            },
        );
        Ok(())
    }

    fn all(&self, after: Revision, upto: Revision, visit: &mut Visit<'_>) -> Result<(), PastError> {
        let before = self.before_reads.lock().pop_front();
        before.into_iter().for_each(|before| before());
        self.check(after)?;
        self.check(upto)?;
        self.visit(after.0 + 1..=upto.0, visit);
        Ok(())
    }

    fn wide(
        &self,
        after: Revision,
        upto: Revision,
        visit: &mut Visit<'_>,
    ) -> Result<(), PastError> {
        self.check(after)?;
        self.check(upto)?;
        let is_wide = |effect: &Effect<'_>| {
            matches!(effect, Effect::Flush { .. } | Effect::Swap { .. } | Effect::Return { .. })
        };
        self.visit_with(&is_wide, after, upto, visit);
        Ok(())
    }

    fn taken_back(
        &self,
        after: Revision,
        upto: Revision,
        is_known: &dyn Fn(Revision) -> bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), PastError> {
        self.check(after)?;
        self.check(upto)?;
        let is_mark =
            |effect: &Effect<'_>| matches!(effect, Effect::Undoable { .. } | Effect::Undone { .. });
        self.visit_with(&is_mark, after, upto, &mut |record| match is_known(record.revision) {
            true => ControlFlow::Continue(()),
            false => visit(record),
        });
        Ok(())
    }

    /// Counts only: there are no files.
    fn purge(&self, _: BranchId, purge: &Purge) -> Result<u64, PastError> {
        let mut erased = 0;
        self.visit(1..=purge.at.0 - 1, &mut |record| {
            let mut db = record.header.db;
            erased += u64::from(Effects::new(record.effects).any(|effect| {
                match effect.expect("our own bytes") {
                    Effect::Database(other) => {
                        db = other;
                        false
                    }
                    Effect::Key { key, .. } | Effect::Rename { key, .. } => purge.covers(db, key),
                    _ => false,
                }
            }));
            ControlFlow::Continue(())
        });
        Ok(erased)
    }

    fn stats(&self) -> Vec<(&'static str, u64)> {
        let versions = self.newest.load(Ordering::SeqCst) - self.oldest.load(Ordering::SeqCst);
        vec![("versions", versions), ("bytes", 0)]
    }

    fn pins(&self) -> Vec<(String, Revision)> {
        vec![("archive".to_owned(), self.newest())]
    }

    fn compact(&self, before: Revision) -> Result<Revision, PastError> {
        let oldest = self.oldest.fetch_max(before.0, Ordering::SeqCst).max(before.0);
        Ok(Revision(oldest))
    }
}
