//! Reading log, history and base together.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use base::{BranchId, DbIndex, Revision};
use keyspace::{EncodingLimits, Keyspace};
use log::{Log, LogReader, Record};
use parking_lot::{Mutex, RecursiveRwLock};

use super::blocks::Blocks;
use super::error::PastError;
use super::milestones::Milestones;
use crate::base_tree::Base;
use crate::directory::Directory;
use crate::history::{DATABASE_WIDE, History, HistoryError, Hit, key_hash};

/// Longest wait for the log to write what has been handed to it.
const WAIT: Duration = Duration::from_secs(2);

/// Records that are noted in haste at most.
const UNNOTED_MAX: u64 = 2000;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Source {
    pub(super) base: Arc<Base>,
    pub(super) log: Arc<Log>,
    pub(super) blocks: Arc<Blocks>,
    pub(super) history: History,
    /// The oldest revision whose state can be read, a state of the base.
    pub(super) horizon: AtomicU64,
    pub(super) databases: DbIndex,
    pub(super) limits: EncodingLimits,
    /// Held by whoever notes records because the follower has not yet.
    pub(super) catching_up: Mutex<()>,
    /// See [`Source::take_scratch`].
    pub(super) scratch: Mutex<Option<Keyspace>>,
    pub(super) milestones: Milestones,
    /// Held for reading while places in the log are looked up and used, which
    /// a segment that is rewritten changes. Who holds it may come again.
    pub(super) layout: RecursiveRwLock<()>,
    /// Why records are not noted any more.
    pub(super) fault: Mutex<Option<String>>,
    /// Turns of the follower for which somebody counts as having asked lately.
    pub(super) asked_turns: AtomicU32,
}

/// So many turns after the last question nobody needs be ready for another.
const ASKED_TURNS: u32 = 12;

impl Source {
    /// The oldest revision whose state can be read.
    pub(super) fn oldest(&self) -> Revision {
        Revision(self.horizon.load(Ordering::Acquire))
    }

    /// The newest state of the base at or before a revision.
    pub(super) fn directory_at(&self, revision: Revision) -> Result<Arc<Directory>, PastError> {
        let newest = self.base.directory();
        if newest.revision <= revision {
            return Ok(newest);
        }
        let found = self.base.directory_at(revision)?;
        self.keeps_state(revision)?;
        Ok(Arc::new(found))
    }

    /// Makes sure that every record up to `upto` is noted. Mostly the follower
    /// has done so; while it is busy writing a batch, this reads the rest.
    pub(super) fn know(&self, upto: Revision) -> Result<(), PastError> {
        self.asked_turns.store(ASKED_TURNS, Ordering::Relaxed);
        if self.history.noted() >= upto {
            return Ok(());
        }
        let _one = self.catching_up.lock();
        if self.history.noted() >= upto {
            return Ok(());
        }
        let _layout = self.layout.read();
        let mut reader = self.unnoted()?;
        // What was written just now waits a little for more to come.
        self.log.request_write();
        while self.history.noted() < upto {
            if self.note_next(&mut reader, WAIT)? == 0 && self.history.noted() < upto {
                return Err(PastError::NotYet { asked: upto });
            }
        }
        Ok(())
    }

    /// As [`Source::know`]; in haste, it is an error if that may take long.
    pub(super) fn know_soon(&self, upto: Revision, is_hasty: bool) -> Result<(), PastError> {
        if is_hasty && self.history.noted().0 + UNNOTED_MAX < upto.0 {
            return Err(PastError::TakesLong);
        }
        self.know(upto)
    }

    /// Notes what has been written by now, without waiting for more.
    pub(super) fn note_written(&self) -> Result<(), PastError> {
        let upto = self.log.buffered();
        let _one = self.catching_up.lock();
        let _layout = self.layout.read();
        let mut reader = self.unnoted()?;
        while self.history.noted() < upto && self.note_next(&mut reader, Duration::ZERO)? > 0 {}
        Ok(())
    }

    /// A reader of what follows the newest record that is noted.
    fn unnoted(&self) -> Result<LogReader, PastError> {
        let (noted, place) = self.history.newest();
        if let Some(reason) = self.fault.lock().clone() {
            return Err(PastError::Stopped { noted, reason });
        }
        Ok(match place {
            Some(place) => self.log.reader_at(place, noted.next()),
            None => self.log.reader(noted.next()),
        })
    }

    /// Notes the records of the next blocks; answers how many there were.
    fn note_next(&self, reader: &mut LogReader, wait: Duration) -> Result<usize, PastError> {
        let mut failed = Ok(());
        let mut note = |record: Record<'_>, place| {
            failed = self.history.note(&record, place);
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let read = reader.read(wait, &mut note)?;
        failed?;
        Ok(read)
    }

    /// Makes sure that the state at a revision can be read.
    pub(super) fn reach(&self, revision: Revision) -> Result<(), PastError> {
        self.reach_soon(revision, false)
    }

    /// As [`Source::reach`]; in haste, it is an error if that may take long.
    pub(super) fn reach_soon(&self, revision: Revision, is_hasty: bool) -> Result<(), PastError> {
        self.keeps_state(revision)?;
        // Who asks may have been told of what is being appended.
        let newest = self.log.newest();
        if revision > newest {
            return Err(PastError::Future { asked: revision, newest });
        }
        self.know_soon(revision, is_hasty)
    }

    /// Fails when what came after a revision is not kept any more. What was
    /// read before this is right if it does not.
    pub(super) fn keeps(&self, revision: Revision) -> Result<(), PastError> {
        if revision < self.oldest() { Err(self.compacted(revision)) } else { Ok(()) }
    }

    /// Fails when the base does not keep what it was at a revision any more: of
    /// what is older than the oldest, it keeps the states that have a name.
    pub(super) fn keeps_state(&self, revision: Revision) -> Result<(), PastError> {
        let kept = self.keeps(revision);
        if kept.is_err() && self.base.is_tagged_state(revision)? { Ok(()) } else { kept }
    }

    pub(super) fn compacted(&self, asked: Revision) -> PastError {
        PastError::Compacted { asked, oldest: self.oldest() }
    }

    /// A keyspace of one database, with nothing in it.
    pub(super) fn take_scratch(&self, seed: u64) -> Keyspace {
        self.scratch.lock().take().unwrap_or_else(|| Keyspace::new(1, seed))
    }

    /// Takes one back, with nothing in it again.
    pub(super) fn give_scratch(&self, scratch: Keyspace) {
        *self.scratch.lock() = Some(scratch);
    }

    /// Visits all records after `after`, up to `upto`, in order.
    pub(super) fn changes(
        &self,
        after: Revision,
        upto: Revision,
        each: &mut dyn FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let _layout = self.layout.read();
        Ok(self.history.changes(after, upto, &mut |record, _| each(record))?)
    }

    /// The same of one branch.
    pub(super) fn changes_of(
        &self,
        branch: BranchId,
        after: Revision,
        upto: Revision,
        each: &mut dyn FnMut(&Record<'_>) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let _layout = self.layout.read();
        Ok(self.history.changes_of(branch, after, upto, &mut |record, _| each(record))?)
    }

    /// Records that may have changed a key, or whole databases.
    pub(super) fn newest_first(
        &self,
        key: &[u8],
        after: Revision,
        upto: Revision,
    ) -> impl Iterator<Item = Result<Hit, HistoryError>> {
        self.with_wide(key_hash(key), after, upto)
    }

    /// Records with this hash in the index, or of whole databases, newest first.
    pub(super) fn with_wide(
        &self,
        hash: u32,
        after: Revision,
        upto: Revision,
    ) -> impl Iterator<Item = Result<Hit, HistoryError>> {
        let mut one = self.history.records(hash, after, upto).peekable();
        let mut wide = self.history.records(DATABASE_WIDE, after, upto).peekable();
        std::iter::from_fn(move || {
            let revision = |hit: Option<&Result<Hit, HistoryError>>| {
                // An error comes first.
                hit.map(|hit| hit.as_ref().map_or(Revision(u64::MAX), |hit| hit.revision))
            };
            let (of_one, of_wide) = (revision(one.peek()), revision(wide.peek()));
            if of_one == of_wide && of_one.is_some() {
                wide.next();
            }
            if of_one >= of_wide { one.next() } else { wide.next() }
        })
    }

    /// When a revision ran that is not older than the oldest segment.
    pub(super) fn time_of(&self, revision: Revision) -> Result<Option<u64>, PastError> {
        let _layout = self.layout.read();
        let Some(place) = self.history.place(revision)? else { return Ok(None) };
        self.record(Hit { revision, place }, &mut |record| record.header.time_ms).map(Some)
    }

    /// Reads one record. The caller has held the layout since it looked the place
    /// up.
    pub(super) fn record<T>(
        &self,
        hit: Hit,
        read: &mut dyn FnMut(&Record<'_>) -> T,
    ) -> Result<T, PastError> {
        let Hit { revision, place } = hit;
        let found = self
            .blocks
            .record(place, &mut |record| (record.revision == revision).then(|| read(record)))?;
        let segment = place.segment;
        found.flatten().ok_or_else(|| HistoryError::Short { segment, revision }.into())
    }
}
