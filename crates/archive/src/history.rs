//! The history: which records of the log changed a key.
//!
//! The log itself is what is kept; this is an index of it, one file beside
//! each sealed segment (`docs/FORMAT.md`), and the same in memory for the
//! segment being written. All of it can be made again from the log, and is,
//! whenever a file is missing or damaged.

mod branch;
mod building;
mod entry;
mod error;
mod index_file;
mod page;
mod records;
mod source;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Revision;
use log::{Place, Record, SegmentInfo, Vfs};
use parking_lot::Mutex;

use building::{Building, Spare};
pub use entry::{DATABASE_WIDE, TAKEN_BACK, key_hash};
pub use error::HistoryError;
use index_file::{Files, IndexFile, Unusable};
pub use records::{Hit, Records};
pub use source::LogBlocks;

/// See the module's documentation. One thread notes records; any number look
/// them up meanwhile.
#[derive(Debug)]
pub struct History {
    dir: PathBuf,
    log: Arc<dyn LogBlocks>,
    files: Files,
    state: Mutex<State>,
    /// Held while an index is made again, so that it is made once.
    rebuilding: Mutex<()>,
    spare: Arc<Spare>,
}

#[derive(Debug)]
struct State {
    /// Sealed segments by their first revision.
    sealed: BTreeMap<Revision, Sealed>,
    /// The one whose records are being noted.
    writing: Building,
    horizon: Revision,
    spare: Arc<Spare>,
}

#[derive(Debug)]
struct Sealed {
    last: Revision,
    index: Index,
}

#[derive(Clone, Debug)]
enum Index {
    /// To be made again when somebody asks.
    Missing,
    /// Being written, or could not be.
    Memory(Arc<Building>),
    File(Arc<IndexFile>),
}

/// An index that can be asked.
enum View<'a> {
    Memory(&'a Building),
    File(&'a IndexFile),
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryStats {
    /// Sealed segments.
    pub segments: usize,
    /// Those of them that have no index until somebody asks.
    pub missing: usize,
    /// Bytes of index files.
    pub file_bytes: u64,
    /// Bytes of memory that indexes take which are in no file yet.
    pub memory_bytes: usize,
}

impl History {
    /// Opens the history in `dir`, or begins one. Files of segments that the
    /// log does not have are removed; sealed segments without a file that fits
    /// get theirs when they are first asked about, or by [`History::mend`].
    ///
    /// `database` is the log's identity. While no history is kept of a log,
    /// `dir` must not exist: [`History::discard`].
    ///
    /// # Errors
    /// When the folder cannot be read or changed.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        database: [u8; 16],
        log: Arc<dyn LogBlocks>,
    ) -> Result<History, HistoryError> {
        vfs.create_dir_all(dir).map_err(HistoryError::io("create the folder", dir))?;
        let segments = log.segments();
        let files = Files::new(vfs.clone(), database);
        let mut sealed = BTreeMap::new();
        for segment in segments.iter().filter(|segment| segment.is_sealed) {
            let index = open_index(&files, dir, segment);
            sealed.insert(segment.first, Sealed { last: segment.last, index });
        }
        for name in vfs.list(dir).map_err(HistoryError::io("list", dir))? {
            let is_needed = match index_file::parse_name(&name) {
                Some(first) => sealed.contains_key(&first),
                None => !name.ends_with(index_file::TEMPORARY),
            };
            if !is_needed {
                let path = dir.join(name);
                vfs.remove(&path).map_err(HistoryError::io("remove", &path))?;
            }
        }
        let next = match segments.last() {
            Some(segment) if segment.is_sealed => segment.last.next(),
            Some(segment) => segment.first,
            None => Revision::ZERO.next(),
        };
        let oldest = segments.first().map_or(next, |segment| segment.first);
        let spare = Arc::new(Spare::default());
        let writing = Building::new(next, &spare);
        let horizon = Revision(oldest.0 - 1);
        let state = State { sealed, writing, horizon, spare: spare.clone() };
        Ok(History {
            dir: dir.to_path_buf(),
            log,
            files,
            state: Mutex::new(state),
            rebuilding: Mutex::new(()),
            spare,
        })
    }

    /// First revisions of segments up to `upto` that are not among `segments` of the
    /// log `database`: there are indexes of them, which are removed before their
    /// segments are, or the index before them ends earlier than the next segment
    /// begins. The last that was filled may have had none itself.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn missing_segments(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        database: [u8; 16],
        segments: &[SegmentInfo],
        upto: Revision,
    ) -> Result<Vec<Revision>, HistoryError> {
        if !vfs.exists(dir) {
            return Ok(Vec::new());
        }
        let names = vfs.list(dir).map_err(HistoryError::io("list", dir))?;
        let is_there = |first: &Revision| segments.iter().any(|segment| segment.first == *first);
        let indexed = names.iter().filter_map(|name| index_file::parse_name(name));
        let mut missing: Vec<Revision> = indexed.filter(|first| !is_there(first)).collect();
        let files = Files::new(vfs, database);
        for segment in segments.iter().filter(|segment| segment.is_sealed) {
            // What is wrong with one that cannot be read is told when it is opened.
            let Ok(Some(index)) = files.open(dir, segment.first) else { continue };
            if index.last() < segment.last {
                missing.push(index.last().next());
            }
        }
        missing.retain(|first| *first <= upto);
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }

    /// Removes a history's files, as when it is switched off. What is not
    /// noted while it is off must not be believed later.
    ///
    /// # Errors
    /// When the folder cannot be read or changed.
    pub fn discard(vfs: &dyn Vfs, dir: &Path) -> Result<(), HistoryError> {
        if !vfs.exists(dir) {
            return Ok(());
        }
        for name in vfs.list(dir).map_err(HistoryError::io("list", dir))? {
            if index_file::parse_name(&name).is_some() || name.ends_with(index_file::TEMPORARY) {
                let path = dir.join(name);
                vfs.remove(&path).map_err(HistoryError::io("remove", &path))?;
            }
        }
        vfs.sync_dir(dir).map_err(HistoryError::io("sync the folder", dir))
    }

    /// The newest revision that it knows of. After [`History::open`] every
    /// later one must be noted, from the log's newest segment's beginning.
    #[must_use]
    pub fn noted(&self) -> Revision {
        self.state.lock().writing.last()
    }

    /// The newest revision that it knows of and where its record is; `None` when
    /// a segment begins with the next one, as far as it knows. Others may note
    /// more at any time, so the two are asked for at once.
    #[must_use]
    pub fn newest(&self) -> (Revision, Option<Place>) {
        let state = self.state.lock();
        let last = state.writing.last();
        (last, state.writing.place(last))
    }

    /// The oldest revision whose state can still be read: every record after
    /// it is known.
    #[must_use]
    pub fn horizon(&self) -> Revision {
        self.state.lock().horizon
    }

    /// How much there is.
    #[must_use]
    pub fn stats(&self) -> HistoryStats {
        let state = self.state.lock();
        let mut stats = HistoryStats {
            segments: state.sealed.len(),
            memory_bytes: state.writing.memory_bytes()
                + self.spare.memory_bytes()
                + self.files.memory_bytes(),
            ..HistoryStats::default()
        };
        for sealed in state.sealed.values() {
            match &sealed.index {
                Index::Missing => stats.missing += 1,
                Index::Memory(building) => stats.memory_bytes += building.memory_bytes(),
                Index::File(file) => stats.file_bytes += file.bytes(),
            }
        }
        stats
    }

    /// Takes in the next record of the log. One that is known is ignored. The
    /// first record of a segment seals the segment before it: its index is
    /// written to a file. If that fails the index is made again when it is
    /// needed; nothing is lost.
    ///
    /// # Errors
    /// When records are missing between the newest known and this one, or its
    /// effects are malformed.
    pub fn note(&self, record: &Record<'_>, place: Place) -> Result<(), HistoryError> {
        self.note_known(record, place, None)
    }

    /// As [`History::note`]; `only` is the one key that the record changes, if
    /// its caller has found that it is one, and no database as a whole.
    ///
    /// # Errors
    /// As [`History::note`].
    pub(crate) fn note_known(
        &self,
        record: &Record<'_>,
        place: Place,
        only: Option<&[u8]>,
    ) -> Result<(), HistoryError> {
        let mut state = self.state.lock();
        let expected = state.writing.last().next();
        if record.revision < expected {
            return Ok(());
        }
        let is_first = place.segment == expected;
        if record.revision != expected || !(is_first || place.segment == state.writing.first()) {
            return Err(HistoryError::Gap { expected, found: record.revision });
        }
        let ended = if is_first { state.begin_segment(expected) } else { None };
        let noted = state.writing.note(record, place, only);
        drop(state);
        if let Some(first) = ended {
            self.seal(first);
        }
        noted
    }

    /// Records that may have changed a key with this [`key_hash`], or a whole
    /// database ([`DATABASE_WIDE`]), or can be [`TAKEN_BACK`], newest first: those after `after`, up to
    /// and with `upto`, as far as they are known and later than the horizon.
    /// Other keys, and the same key of other databases and branches, may have
    /// the same hash: whoever reads the records compares.
    #[must_use]
    pub fn records(&self, hash: u32, after: Revision, upto: Revision) -> Records<'_> {
        Records::new(self, hash, after, upto)
    }

    /// Where a record is, if it is known and later than the horizon.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn place(&self, revision: Revision) -> Result<Option<Place>, HistoryError> {
        if revision <= self.horizon() || revision > self.noted() {
            return Ok(None);
        }
        let Some(first) = self.segment_of(revision) else { return Ok(None) };
        self.view(first, |view| view.place(revision, &self.files))
    }

    /// Every record after `after`, up to and with `upto`, in order, as far as
    /// they are known and later than the horizon.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn changes(
        &self,
        after: Revision,
        upto: Revision,
        each: &mut dyn FnMut(&Record<'_>, Place) -> ControlFlow<()>,
    ) -> Result<(), HistoryError> {
        let (after, upto) = self.known_part(after, upto);
        if after >= upto {
            return Ok(());
        }
        let mut next = after.next();
        while next <= upto {
            let Some(first) = self.segment_of(next) else { break };
            let Some(start) = self.view(first, |view| view.place(next, &self.files))? else {
                break;
            };
            let mut at = Some(start.offset);
            while let Some(offset) = at
                && next <= upto
            {
                let mut flow = ControlFlow::Continue(());
                at = self.log.block(first, offset, &mut |record, place| {
                    if flow.is_continue() && record.revision >= next && record.revision <= upto {
                        flow = each(record, place);
                        next = record.revision.next();
                    }
                })?;
                if flow.is_break() {
                    return Ok(());
                }
            }
            if next <= upto && self.segment_of(next) == Some(first) {
                return Err(HistoryError::Short { segment: first, revision: next });
            }
        }
        Ok(())
    }

    /// The last revision that is stamped at or before this time; that of the
    /// empty database if every record is later. `None` when it is older than
    /// the horizon, so that its state cannot be read any more.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn at_time(&self, time_ms: u64) -> Result<Option<Revision>, HistoryError> {
        let mut upto = self.noted();
        while upto > Revision::ZERO {
            let Some(first) = self.segment_of(upto) else { break };
            let found = self.view(first, |view| view.block_at_time(time_ms, &self.files))?;
            if let Some(place) = found {
                let mut found = None;
                self.log.block_again(first, place.offset, &mut |record, _| {
                    if record.revision <= upto && record.header.time_ms <= time_ms {
                        found = Some(record.revision);
                    }
                })?;
                let found = found.ok_or(HistoryError::Short { segment: first, revision: upto })?;
                return Ok((found >= self.horizon()).then_some(found));
            }
            upto = Revision(first.0 - 1);
        }
        Ok((self.horizon() == Revision::ZERO).then_some(Revision::ZERO))
    }

    /// Gives up the states before `revision`: moves the horizon there and
    /// removes the indexes of segments that have nothing later; only after that
    /// may the log remove the segments. It moves only forward, and is kept in
    /// memory only: after [`History::open`] it is where the log's oldest
    /// segment begins.
    ///
    /// # Errors
    /// When files cannot be removed; the horizon has moved nevertheless.
    pub fn forget_before(&self, revision: Revision) -> Result<(), HistoryError> {
        let mut gone = Vec::new();
        {
            let mut state = self.state.lock();
            state.horizon = state.horizon.max(revision.min(state.writing.last()));
            let horizon = state.horizon;
            while let Some(entry) = state.sealed.first_entry()
                && entry.get().last <= horizon
            {
                gone.push(entry.remove_entry());
            }
        }
        let mut is_changed = false;
        for (_, sealed) in gone {
            if let Index::File(file) = sealed.index {
                self.files.remove(file.path())?;
                is_changed = true;
            }
        }
        if is_changed { self.files.sync_dir(&self.dir) } else { Ok(()) }
    }

    /// Forgets where the records of a segment are, which was rewritten: they
    /// are looked for again. What a file says of it is to be
    /// [forgotten before](History::forget_index).
    ///
    /// # Errors
    /// When the segment cannot be read, or its file not be removed.
    pub fn renew(&self, first: Revision) -> Result<(), HistoryError> {
        {
            let _rebuilding = self.rebuilding.lock();
            let mut state = self.state.lock();
            if state.writing.first() == first && !state.writing.is_empty() {
                state.writing = self.read_segment(first, None)?;
                return Ok(());
            }
        }
        self.forget_index(first)
    }

    /// Removes the index of a segment that has ended, durably, if there is one;
    /// it is made again when it is needed. So to be done before the segment
    /// changes: an index that a crash has left beside it would not be true.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn forget_index(&self, first: Revision) -> Result<(), HistoryError> {
        let _rebuilding = self.rebuilding.lock();
        let mut state = self.state.lock();
        let Some(sealed) = state.sealed.get_mut(&first) else { return Ok(()) };
        let Index::File(file) = std::mem::replace(&mut sealed.index, Index::Missing) else {
            return Ok(());
        };
        drop(state);
        self.files.remove(file.path())?;
        self.files.sync_dir(&self.dir)
    }

    /// Makes the index of one segment again that has none. Answers whether
    /// there was any.
    ///
    /// # Errors
    /// When its segment cannot be read or the file not be written.
    pub fn mend(&self) -> Result<bool, HistoryError> {
        let missing = {
            let state = self.state.lock();
            let mut all = state.sealed.iter();
            all.find(|(_, sealed)| !matches!(sealed.index, Index::File(_))).map(|(first, _)| *first)
        };
        let Some(first) = missing else { return Ok(false) };
        let _rebuilding = self.rebuilding.lock();
        let Some((index, last)) = self.index_of(first) else { return Ok(true) };
        let building = match index {
            Index::File(_) => return Ok(true),
            Index::Memory(building) => building,
            Index::Missing => Arc::new(self.read_segment(first, Some(last))?),
        };
        self.write(&building)?;
        Ok(true)
    }

    /// The first revision of the segment that has a revision which is known.
    fn segment_of(&self, revision: Revision) -> Option<Revision> {
        self.segment_with(revision).map(|(first, _)| first)
    }

    /// The first and the last known revision of the segment that has one.
    fn segment_with(&self, revision: Revision) -> Option<(Revision, Revision)> {
        let state = self.state.lock();
        if revision >= state.writing.first() {
            return Some((state.writing.first(), state.writing.last()));
        }
        let (first, sealed) = state.sealed.range(..=revision).next_back()?;
        (revision <= sealed.last).then_some((*first, sealed.last))
    }

    /// Of the revisions after `after`, up to `upto`, those that are known and
    /// later than the horizon.
    fn known_part(&self, after: Revision, upto: Revision) -> (Revision, Revision) {
        let state = self.state.lock();
        (after.max(state.horizon), upto.min(state.writing.last()))
    }

    fn index_of(&self, first: Revision) -> Option<(Index, Revision)> {
        let state = self.state.lock();
        state.sealed.get(&first).map(|sealed| (sealed.index.clone(), sealed.last))
    }

    /// Asks the index of a segment; `T::default()` if there is no such segment
    /// any more. An index that turns out to be unusable is made again.
    fn view<T: Default>(
        &self,
        first: Revision,
        ask: impl Fn(View<'_>) -> Result<T, Unusable>,
    ) -> Result<T, HistoryError> {
        let broken = {
            let state = self.state.lock();
            if state.writing.first() == first {
                return ask(View::Memory(&state.writing)).map_err(Unusable::into_error);
            }
            let Some(sealed) = state.sealed.get(&first) else { return Ok(T::default()) };
            let index = sealed.index.clone();
            drop(state);
            match index {
                Index::Missing => None,
                Index::Memory(building) => {
                    return ask(View::Memory(&building)).map_err(Unusable::into_error);
                }
                Index::File(file) => match ask(View::File(&file)) {
                    Ok(answer) => return Ok(answer),
                    Err(unusable) => {
                        tracing::warn!("{unusable}; making it again from the log");
                        Some(file)
                    }
                },
            }
        };
        match self.rebuild(first, broken)? {
            Index::Missing => Ok(T::default()),
            Index::Memory(building) => ask(View::Memory(&building)).map_err(Unusable::into_error),
            Index::File(file) => ask(View::File(&file)).map_err(Unusable::into_error),
        }
    }

    /// Makes an index again, unless somebody else just did. `Missing` if its
    /// segment has been forgotten.
    fn rebuild(
        &self,
        first: Revision,
        broken: Option<Arc<IndexFile>>,
    ) -> Result<Index, HistoryError> {
        let _rebuilding = self.rebuilding.lock();
        let Some((index, last)) = self.index_of(first) else { return Ok(Index::Missing) };
        match (&index, &broken) {
            (Index::Memory(_), _) | (Index::File(_), None) => return Ok(index),
            (Index::File(file), Some(broken)) if !Arc::ptr_eq(file, broken) => return Ok(index),
            _ => {}
        }
        let building = Arc::new(self.read_segment(first, Some(last))?);
        match self.write(&building) {
            Ok(file) => Ok(Index::File(file)),
            Err(error) => {
                // The answer does not depend on there being a file.
                tracing::warn!("{error}; the index is made again whenever it is needed");
                Ok(Index::Memory(building))
            }
        }
    }

    /// The index of a segment, out of the segment, which must have everything
    /// up to `last`.
    fn read_segment(
        &self,
        first: Revision,
        last: Option<Revision>,
    ) -> Result<Building, HistoryError> {
        let mut building = Building::new(first, &self.spare);
        let mut at = Some(0);
        while let Some(offset) = at {
            let mut noted = Ok(());
            at = self.log.block(first, offset, &mut |record, place| {
                if noted.is_ok() {
                    noted = building.note(record, place, None);
                }
            })?;
            noted?;
        }
        if last.is_some_and(|last| building.last() != last) {
            let revision = building.last().next();
            return Err(HistoryError::Short { segment: first, revision });
        }
        Ok(building)
    }

    fn seal(&self, first: Revision) {
        let _rebuilding = self.rebuilding.lock();
        let Some((Index::Memory(building), _)) = self.index_of(first) else { return };
        if let Err(error) = self.write(&building) {
            tracing::warn!("{error}; the index is made again when it is needed");
        }
    }

    /// Writes an index and puts the file in its place.
    fn write(&self, building: &Building) -> Result<Arc<IndexFile>, HistoryError> {
        let first = building.first();
        let file = Arc::new(self.files.write(&self.dir, building)?);
        let mut state = self.state.lock();
        match state.sealed.get_mut(&first) {
            Some(sealed) => sealed.index = Index::File(file.clone()),
            None => {
                drop(state);
                self.files.remove(file.path())?;
            }
        }
        Ok(file)
    }
}

impl State {
    /// Ends the segment being written; answers which it was, if it had any
    /// record.
    fn begin_segment(&mut self, first: Revision) -> Option<Revision> {
        if self.writing.is_empty() {
            return None;
        }
        // What could not be written until now is let go, so that memory holds
        // two segments at most.
        for sealed in self.sealed.values_mut() {
            if matches!(sealed.index, Index::Memory(_)) {
                sealed.index = Index::Missing;
            }
        }
        let next = Building::new(first, &self.spare);
        let mut ended = std::mem::replace(&mut self.writing, next);
        let (first, last) = (ended.first(), ended.last());
        ended.close_chunk();
        self.sealed.insert(first, Sealed { last, index: Index::Memory(Arc::new(ended)) });
        Some(first)
    }
}

fn open_index(files: &Files, dir: &Path, segment: &SegmentInfo) -> Index {
    match files.open(dir, segment.first) {
        Ok(Some(file)) if file.last() == segment.last => Index::File(Arc::new(file)),
        Ok(Some(file)) => {
            tracing::warn!(
                "{} ends at revision {}, its segment at {}; making it again when it is needed",
                file.path().display(),
                file.last(),
                segment.last
            );
            Index::Missing
        }
        Ok(None) => Index::Missing,
        Err(unusable) => {
            tracing::warn!("{unusable}; making it again when it is needed");
            Index::Missing
        }
    }
}

impl View<'_> {
    /// Some of the records with this hash between two revisions: the newest of
    /// them, in order, and none left out in between; if there are `enough`, it
    /// need not look for more. Empty if there are none.
    fn newest(
        &self,
        hash: u32,
        after: Revision,
        upto: Revision,
        enough: usize,
        files: &Files,
    ) -> Result<Vec<Hit>, Unusable> {
        match self {
            View::Memory(building) => Ok(building.newest(hash, after, upto, enough)),
            View::File(file) => file.newest(hash, after, upto, enough, files),
        }
    }

    /// Where a record is.
    fn place(&self, revision: Revision, files: &Files) -> Result<Option<Place>, Unusable> {
        match self {
            View::Memory(building) => Ok(building.place(revision)),
            View::File(file) => file.place(revision, files),
        }
    }

    /// The last block with a record stamped at or before this time.
    fn block_at_time(&self, time_ms: u64, files: &Files) -> Result<Option<Place>, Unusable> {
        match self {
            View::Memory(building) => Ok(building.block_at_time(time_ms)),
            View::File(file) => file.block_at_time(time_ms, files),
        }
    }
}
