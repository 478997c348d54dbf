//! A log in memory, with what the history may be asked about it computed the
//! long way.

use std::collections::BTreeSet;
use std::sync::Arc;

use archive::history::{DATABASE_WIDE, History, HistoryError, Hit, LogBlocks, key_hash};
use base::{BranchId, Revision, Rng, SeededRng};
use keyspace::effect::Effect;
use log::{LogError, Place, Record, RecordHeader, SegmentInfo};
use parking_lot::Mutex;

pub const DATABASE: [u8; 16] = *b"a database's id.";

/// One record.
#[derive(Clone, Debug)]
pub struct Entry {
    pub revision: Revision,
    pub place: Place,
    pub time_ms: u64,
    pub branch: BranchId,
    pub effects: Vec<u8>,
    pub hashes: Vec<u32>,
}

impl Entry {
    pub fn record(&self) -> Record<'_> {
        let header = RecordHeader { time_ms: self.time_ms, db: 0, branch: self.branch };
        Record { revision: self.revision, header, effects: &self.effects }
    }

    pub fn hit(&self) -> Hit {
        Hit { revision: self.revision, place: self.place }
    }
}

#[derive(Debug)]
struct State {
    entries: Vec<Entry>,
    /// First revisions of segments; the last one is being written.
    segments: Vec<Revision>,
    /// Blocks without records: their segments and offsets.
    marks: BTreeSet<(Revision, u64)>,
    /// The place after the newest record; the block's first revision.
    next: Place,
    end: u64,
    /// The next record's.
    branch: BranchId,
    /// Blocks read so far.
    reads: usize,
}

/// See the module's documentation. Clones share it.
#[derive(Clone, Debug)]
pub struct FakeLog(Arc<Mutex<State>>);

const FIRST_BLOCK: u64 = 64;

impl FakeLog {
    /// An empty log.
    pub fn new() -> FakeLog {
        FakeLog::beginning_with(Revision(1))
    }

    /// One whose segments before this revision have been removed.
    pub fn beginning_with(first: Revision) -> FakeLog {
        let next = Place { segment: first, offset: FIRST_BLOCK, index: 0 };
        let (entries, segments, branch) = (Vec::new(), vec![first], BranchId::MAIN);
        let marks = BTreeSet::new();
        let state = State { entries, segments, marks, next, end: FIRST_BLOCK, branch, reads: 0 };
        FakeLog(Arc::new(Mutex::new(state)))
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().entries.clone()
    }

    pub fn last(&self) -> Revision {
        let state = self.0.lock();
        let first = state.segments[0];
        Revision(first.0 - 1 + state.entries.len() as u64)
    }

    /// Appends a record that changes these keys, or flushes (`None`).
    pub fn append(&self, time_ms: u64, keys: &[Option<&[u8]>]) -> Entry {
        let (mut effects, mut hashes) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                Some(key) => {
                    Effect::Key { key, existed: Some(true) }.encode(&mut effects);
                    Effect::StrSet { value: b"v", deadline: None }.encode(&mut effects);
                    hashes.push(key_hash(key));
                }
                None => {
                    Effect::Flush { db: 0 }.encode(&mut effects);
                    hashes.push(DATABASE_WIDE);
                }
            }
        }
        let revision = self.last().next();
        let mut state = self.0.lock();
        let (place, branch) = (state.next, state.branch);
        let entry = Entry { revision, place, time_ms, branch, effects, hashes };
        state.next.index += 1;
        state.end += 18 + entry.effects.len() as u64;
        state.entries.push(entry.clone());
        entry
    }

    /// Later records are on this branch.
    pub fn go_on(&self, branch: BranchId) {
        self.0.lock().branch = branch;
    }

    /// How many blocks were read so far.
    pub fn reads(&self) -> usize {
        self.0.lock().reads
    }

    /// The next record is in another block.
    pub fn end_block(&self) {
        let mut state = self.0.lock();
        if state.next.index > 0 {
            state.end += 36;
            state.next = Place { offset: state.end, index: 0, ..state.next };
        }
    }

    /// As [`FakeLog::end_block`], with a block of no records in between.
    pub fn mark(&self) {
        self.end_block();
        let mut state = self.0.lock();
        let (segment, offset) = (state.next.segment, state.next.offset);
        state.marks.insert((segment, offset));
        state.end += 36;
        state.next.offset = state.end;
    }

    /// The next record is in another segment.
    pub fn roll(&self) {
        let next = self.last().next();
        let mut state = self.0.lock();
        if state.segments.last() != Some(&next) {
            state.segments.push(next);
            state.next = Place { segment: next, offset: FIRST_BLOCK, index: 0 };
            state.end = FIRST_BLOCK;
        }
    }

    /// What `records` must find.
    pub fn expected(&self, hash: u32, after: Revision, upto: Revision) -> Vec<Hit> {
        let state = self.0.lock();
        let found = state.entries.iter().rev().filter(|entry| {
            entry.revision > after && entry.revision <= upto && entry.hashes.contains(&hash)
        });
        found.map(Entry::hit).collect()
    }

    /// What `at_time` must find: the last revision up to `upto` that is stamped
    /// no later, 0 if all are.
    pub fn expected_at(&self, time_ms: u64, upto: Revision) -> Revision {
        let state = self.0.lock();
        let mut entries = state.entries.iter().rev();
        let found = entries.find(|entry| entry.revision <= upto && entry.time_ms <= time_ms);
        found.map_or(Revision::ZERO, |entry| entry.revision)
    }
}

impl LogBlocks for FakeLog {
    fn segments(&self) -> Vec<SegmentInfo> {
        let last = self.last();
        let state = self.0.lock();
        let ends = state.segments.iter().skip(1).map(|next| Revision(next.0 - 1));
        let ends = ends.map(|end| (end, true)).chain([(last, false)]);
        let segments = state.segments.iter().zip(ends);
        segments
            .map(|(&first, (last, is_sealed))| SegmentInfo { first, last, bytes: 0, is_sealed })
            .collect()
    }

    fn block(
        &self,
        segment: Revision,
        offset: u64,
        each: &mut dyn FnMut(&Record<'_>, Place),
    ) -> Result<Option<u64>, LogError> {
        let offset = offset.max(FIRST_BLOCK);
        let (of_block, next) = {
            let mut state = self.0.lock();
            state.reads += 1;
            let at = |entry: &Entry| (entry.place.segment, entry.place.offset);
            let begin = state.entries.partition_point(|entry| at(entry) < (segment, offset));
            let end = state.entries.partition_point(|entry| at(entry) <= (segment, offset));
            let next_mark = state.marks.range((segment, offset + 1)..).next().copied();
            let next = state.entries.get(end).map(at).into_iter().chain(next_mark).min();
            let next = next.filter(|next| next.0 == segment);
            let is_mark = state.marks.contains(&(segment, offset));
            assert!(begin < end || is_mark, "there is no block at {offset} of {segment}");
            (state.entries[begin..end].to_vec(), next.map(|next| next.1))
        };
        of_block.iter().for_each(|entry| each(&entry.record(), entry.place));
        Ok(next)
    }
}

/// Appends random records of one of `keys` keys each, mostly. The clock goes
/// back at times.
pub fn append_some(log: &FakeLog, rng: &mut SeededRng, keys: u64, count: u64) {
    for _ in 0..count {
        let names: Vec<Vec<u8>> = (0..1 + rng.below(8) / 7 * rng.below(4))
            .map(|_| format!("key:{}", rng.below(keys)).into_bytes())
            .collect();
        let mut names: Vec<Option<&[u8]>> = names.iter().map(|name| Some(&name[..])).collect();
        if rng.below(50) == 0 {
            names.push(None);
        }
        if rng.below(10) == 0 {
            log.go_on(BranchId(rng.below(3) as u32));
        }
        let revision = log.last().next().0;
        log.append((revision * 10 + rng.below(60)).saturating_sub(30), &names);
        match rng.below(10) {
            0 => log.end_block(),
            1 => log.mark(),
            _ => {}
        }
    }
}

/// Notes everything that the history does not know yet.
pub fn follow(history: &History, log: &FakeLog) -> Result<(), HistoryError> {
    follow_upto(history, log, log.last())
}

pub fn follow_upto(history: &History, log: &FakeLog, upto: Revision) -> Result<(), HistoryError> {
    let noted = history.noted();
    let entries = log.entries();
    let new = entries.iter().filter(|entry| entry.revision > noted && entry.revision <= upto);
    new.into_iter().try_for_each(|entry| history.note(&entry.record(), entry.place))
}

pub fn hits(history: &History, hash: u32, after: Revision, upto: Revision) -> Vec<Hit> {
    let found: Result<Vec<Hit>, HistoryError> = history.records(hash, after, upto).collect();
    found.expect("the log and memory do not fail")
}

/// Compares everything that the history can be asked with the log.
pub fn compare(history: &History, log: &FakeLog, keys: u64, context: &str) {
    let (horizon, noted) = (history.horizon(), history.noted());
    let hashes = (0..keys).map(|key| key_hash(format!("key:{key}").as_bytes()));
    for hash in hashes.chain([DATABASE_WIDE, 12345]) {
        let found = hits(history, hash, Revision::ZERO, Revision(u64::MAX));
        assert_eq!(found, log.expected(hash, horizon, noted), "{context}");
    }
    for time_ms in (0..noted.0 * 10 + 100).step_by(7) {
        let expected = log.expected_at(time_ms, noted);
        let expected = (expected >= horizon).then_some(expected);
        assert_eq!(history.at_time(time_ms).expect("works"), expected, "{context}: {time_ms}");
    }
}
