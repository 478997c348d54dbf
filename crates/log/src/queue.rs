//! Transactions on their way from the threads that make them to the writer.

use std::collections::{BTreeMap, VecDeque};
use std::hint::cold_path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, Revision};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::format::{RECORD_HEADER_BYTES, RecordHeader, put_record, u32_at, u64_at};
use crate::parts::{Large, is_large};
use crate::tap::Concern;
use crate::times::Times;

/// Bytes that wake a writer that waits for its next turn.
pub(crate) const WAKE_BYTES: usize = 256 * 1024;

/// A batch that would grow beyond this is followed by another: what gathers while
/// the disk is waited for is never moved to make room for more, and its memory
/// serves again. One record may be larger.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Buffers of that size that wait for the next ones.
const SPARE_MAX: usize = 16;

/// A record of so many bytes is encoded before anybody else has to wait, and is a
/// batch of its own.
const LARGE_BYTES: usize = 1 << 20;

/// Consecutive records, encoded, or a large one as it is.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) first: Revision,
    pub(crate) count: u32,
    pub(crate) content: Vec<u8>,
    /// A record that is to be written in parts, or is not encoded yet, instead of
    /// the content.
    pub(crate) large: Option<Large>,
    /// Whether anybody waits for one of them.
    pub(crate) concern: Concern,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch {
            first: Revision::ZERO,
            count: 0,
            content: Vec::new(),
            large: None,
            concern: Concern::NONE,
        }
    }
}

impl Batch {
    /// Bytes and number of the records from byte `from` of the content on that
    /// make a block of at most `max` bytes, or the one that exceeds it.
    pub(crate) fn first_block(&self, from: usize, max: usize) -> (usize, u32) {
        let rest = &self.content[from..];
        let (mut bytes, mut count) = (0, 0);
        while bytes < rest.len() {
            let record = RECORD_HEADER_BYTES + u32_at(rest, bytes) as usize;
            if count > 0 && bytes + record > max {
                break;
            }
            (bytes, count) = (bytes + record, count + 1);
        }
        (bytes, count)
    }
}

/// A transaction's effects, on their way to the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Handed<'a> {
    Lent(&'a [u8]),
    Shared(&'a Arc<Vec<u8>>),
}

impl<'a> Handed<'a> {
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Handed::Lent(bytes) => bytes,
            Handed::Shared(bytes) => bytes,
        }
    }

    fn share(self) -> Arc<Vec<u8>> {
        match self {
            Handed::Lent(bytes) => Arc::new(bytes.to_vec()),
            Handed::Shared(bytes) => bytes.clone(),
        }
    }
}

/// A record, ready to wait.
#[derive(Debug)]
enum Ready {
    Encoded(Vec<u8>),
    Large(Large),
}

impl Ready {
    fn len(&self) -> usize {
        match self {
            Ready::Encoded(record) => record.len(),
            Ready::Large(large) => large.len(),
        }
    }

    fn time_ms(&self) -> u64 {
        match self {
            Ready::Encoded(record) => u64_at(record, 4),
            Ready::Large(large) => large.header.time_ms,
        }
    }
}

#[derive(Debug)]
struct State {
    /// The revision that goes on the end of `batch`.
    next: u64,
    batch: Batch,
    /// Batches before `batch`, each as large as one may be. Normally none.
    full: VecDeque<Batch>,
    full_bytes: usize,
    /// Empty buffers for batches.
    spare: Vec<Vec<u8>>,
    /// Records whose predecessors have not been appended yet: another thread
    /// reserved them and is about to. Normally empty, a handful at most.
    early: BTreeMap<u64, (Ready, Concern)>,
    early_bytes: usize,
    /// The writer sleeps and wants to be woken by the first record.
    wants_first: bool,
    /// Monotonic time of the oldest record in `batch`.
    oldest_ns: u64,
    /// The stamp of the newest record, as far as there was one.
    newest_ms: Option<u64>,
    /// Asked to write what waits without letting more gather.
    is_urgent: bool,
    /// Asked to sync whatever the policy.
    sync_requested: bool,
    closing: bool,
}

impl State {
    /// Puts the last batch into `batch`, whose buffer is reused.
    fn hand_over(&mut self, batch: &mut Batch) {
        batch.content.clear();
        std::mem::swap(&mut self.batch, batch);
        let content = std::mem::take(&mut self.batch.content);
        self.batch = Batch { first: Revision(self.next), content, ..Batch::default() };
    }

    /// Begins another batch if the current one cannot take `len` bytes more.
    fn make_room(&mut self, len: usize) {
        if self.batch.content.len() + len > BATCH_BYTES_MAX {
            cold_path();
            self.end_batch();
            let spare = self.spare.pop();
            self.batch.content = spare.unwrap_or_else(|| Vec::with_capacity(BATCH_BYTES_MAX));
        }
    }

    /// Puts the current batch to those that are full, unless it is empty.
    fn end_batch(&mut self) {
        if self.batch.count > 0 {
            let empty = Batch { first: Revision(self.next), ..Batch::default() };
            let full = std::mem::replace(&mut self.batch, empty);
            self.full_bytes += full.content.len();
            self.full.push_back(full);
        }
    }

    /// Takes the next record; what is large becomes a batch of its own.
    fn push(&mut self, record: Ready, concern: Concern) {
        let bytes = record.len();
        let (content, large) = match record {
            Ready::Encoded(record) if bytes <= LARGE_BYTES => {
                self.make_room(bytes);
                self.batch.content.extend_from_slice(&record);
                self.note_pushed(concern);
                return;
            }
            Ready::Encoded(record) => (record, None),
            Ready::Large(large) => (Vec::new(), Some(large)),
        };
        self.end_batch();
        self.full_bytes += bytes;
        self.full.push_back(Batch {
            first: Revision(self.next),
            count: 1,
            content,
            large,
            concern,
        });
        self.next += 1;
        self.batch.first = Revision(self.next);
    }

    /// The next record has come to the end of the batch.
    fn note_pushed(&mut self, concern: Concern) {
        self.batch.count += 1;
        self.batch.concern.add(concern);
        self.next += 1;
    }

    /// Whether the writer is to write what waits without waiting for more.
    fn is_much(&self) -> bool {
        self.batch.content.len() >= WAKE_BYTES || !self.full.is_empty()
    }
}

/// The queue. Order of revisions is restored here.
#[derive(Debug)]
pub(crate) struct Queue {
    reserved: AtomicU64,
    /// The newest revision that has everything before it appended.
    appended: AtomicU64,
    /// Of the revisions up to that one. Whoever changes both does so under this
    /// lock, and under that of the state.
    times: RwLock<Times>,
    state: Mutex<State>,
    wake: Condvar,
    /// What takes more is written in parts.
    part_bytes_max: usize,
}

impl Queue {
    /// `times` are those of what came before `next`.
    pub(crate) fn new(next: Revision, times: Times, part_bytes_max: usize) -> Queue {
        let newest_ms = times.newest_ms();
        Queue {
            reserved: AtomicU64::new(next.0 - 1),
            appended: AtomicU64::new(next.0 - 1),
            times: RwLock::new(times),
            state: Mutex::new(State {
                next: next.0,
                batch: Batch { first: next, ..Batch::default() },
                full: VecDeque::new(),
                full_bytes: 0,
                spare: Vec::new(),
                early: BTreeMap::new(),
                early_bytes: 0,
                wants_first: false,
                oldest_ns: 0,
                newest_ms,
                is_urgent: false,
                sync_requested: false,
                closing: false,
            }),
            wake: Condvar::new(),
            part_bytes_max,
        }
    }

    pub(crate) fn reserve(&self) -> Revision {
        Revision(self.reserved.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn newest(&self) -> Revision {
        Revision(self.reserved.load(Ordering::Relaxed))
    }

    /// Answers whether the writer sleeps and is to be [woken](Queue::wake_writer)
    /// soon; where there is much to write, that is done here.
    pub(crate) fn append(
        &self,
        revision: Revision,
        header: &RecordHeader,
        handed: Handed<'_>,
        concern: Concern,
        clock: &dyn Clock,
    ) -> bool {
        let effects = handed.bytes();
        let ready = || {
            // What is shared is for the writer to copy: nobody waits for him.
            let is_long = matches!(handed, Handed::Shared(_)) && effects.len() > LARGE_BYTES;
            if is_long || is_large(effects.len(), self.part_bytes_max) {
                return Ready::Large(Large { header: *header, effects: handed.share() });
            }
            let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + effects.len());
            put_record(&mut record, header, effects);
            Ready::Encoded(record)
        };
        let bytes = RECORD_HEADER_BYTES + effects.len();
        let large = if bytes > LARGE_BYTES.min(self.part_bytes_max) {
            cold_path();
            Some(ready())
        } else {
            None
        };
        let mut state = self.state.lock();
        if revision.0 != state.next {
            cold_path();
            let record = large.unwrap_or_else(ready);
            state.early_bytes += record.len();
            let before = state.early.insert(revision.0, (record, concern));
            assert!(before.is_none(), "revision {revision} was appended twice");
            return false;
        }
        if state.batch.count == 0 {
            cold_path();
            state.oldest_ns = clock.monotonic_ns();
        }
        let mut times = None;
        let mut note = |state: &mut State, time_ms| {
            if state.newest_ms != Some(time_ms) {
                cold_path();
                let times = times.get_or_insert_with(|| self.times.write());
                times.note(Revision(state.next), time_ms);
                state.newest_ms = Some(time_ms);
            }
        };
        note(&mut state, header.time_ms);
        if let Some(record) = large {
            cold_path();
            state.push(record, concern);
        } else {
            state.make_room(bytes);
            put_record(&mut state.batch.content, header, effects);
            state.note_pushed(concern);
        }
        while let Some((record, concern)) = {
            let next = state.next;
            state.early.remove(&next)
        } {
            cold_path();
            state.early_bytes -= record.len();
            note(&mut state, record.time_ms());
            state.push(record, concern);
        }
        self.appended.store(state.next - 1, Ordering::Release);
        drop(times);
        if state.is_much() {
            cold_path();
            state.wants_first = false;
            drop(state);
            self.wake.notify_one();
            return false;
        }
        state.wants_first
    }

    /// Wakes the writer if it sleeps though there is something to write.
    pub(crate) fn wake_writer(&self) {
        let mut state = self.state.lock();
        if state.wants_first && state.batch.count > 0 {
            state.wants_first = false;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// The newest revision that has everything before it appended.
    pub(crate) fn buffered(&self) -> Revision {
        Revision(self.appended.load(Ordering::Acquire))
    }

    /// The last of the appended revisions that is stamped at or before a time,
    /// if it is not too long ago.
    pub(crate) fn at_time(&self, time_ms: u64) -> Option<Revision> {
        let times = self.times.read();
        times.at(time_ms, self.buffered())
    }

    /// Bytes that wait for the writer.
    pub(crate) fn bytes(&self) -> usize {
        let state = self.state.lock();
        state.batch.content.len() + state.full_bytes + state.early_bytes
    }

    pub(crate) fn request_sync(&self) {
        self.state.lock().sync_requested = true;
        self.wake.notify_one();
    }

    /// Ends the writer's wait for more.
    pub(crate) fn hurry(&self) {
        self.state.lock().is_urgent = true;
        self.wake.notify_one();
    }

    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }

    /// Takes what waits: full batches to the end of `held`, the last one into
    /// `batch`, whose buffer is reused. Answers whether a sync was asked for.
    pub(crate) fn take(&self, batch: &mut Batch, held: &mut VecDeque<Batch>) -> bool {
        let mut state = self.state.lock();
        held.append(&mut state.full);
        state.full_bytes = 0;
        state.is_urgent = false;
        state.hand_over(batch);
        std::mem::take(&mut state.sync_requested)
    }

    /// Takes the buffer of a batch that is written.
    pub(crate) fn give_back(&self, mut content: Vec<u8>) {
        if (BATCH_BYTES_MAX..=2 * BATCH_BYTES_MAX).contains(&content.capacity()) {
            content.clear();
            let mut state = self.state.lock();
            if state.spare.len() < SPARE_MAX {
                state.spare.push(content);
            }
        }
    }

    /// Frees the buffers that wait for the next burst.
    pub(crate) fn free_spare(&self) {
        let spare = std::mem::take(&mut self.state.lock().spare);
        drop(spare);
    }

    /// As [`Queue::take`], if what waits is at most `bytes_max` long; answers
    /// whether it was.
    pub(crate) fn take_small(&self, batch: &mut Batch, bytes_max: usize) -> bool {
        let mut state = self.state.lock();
        let is_small = state.full.is_empty() && state.batch.content.len() <= bytes_max;
        if is_small {
            state.hand_over(batch);
        }
        is_small
    }

    /// Waits for work: the first record when `for_first`, else `at_most` or
    /// much data; a request to sync or to close ends it too, and so does
    /// [`Queue::hurry`]. Answers whether the log closes.
    pub(crate) fn wait(&self, for_first: bool, at_most: Duration) -> bool {
        let mut state = self.state.lock();
        let has_work = |state: &State| {
            state.closing
                || state.sync_requested
                || state.is_urgent
                || state.is_much()
                || (for_first && state.batch.count > 0)
        };
        if !has_work(&state) {
            state.wants_first = for_first;
            self.wake.wait_for(&mut state, at_most);
            state.wants_first = false;
        }
        state.closing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use base::{BranchId, ManualClock};

    use super::*;
    use crate::parts::PART_BYTES_MAX;

    #[test]
    fn whoever_asks_for_a_write_ends_the_wait_for_more() {
        let queue = Queue::new(Revision(5), Times::default(), PART_BYTES_MAX);
        let clock = ManualClock::at_ms(1);
        let header = RecordHeader { time_ms: 70, db: 0, branch: BranchId::MAIN };
        // The one before is still on its way.
        queue.append(
            Revision(6),
            &RecordHeader { time_ms: 90, ..header },
            Handed::Lent(b"b"),
            Concern::UNASKED,
            &clock,
        );
        assert_eq!((queue.buffered(), queue.at_time(100)), (Revision(4), None));
        queue.append(Revision(5), &header, Handed::Lent(b"a"), Concern::UNASKED, &clock);
        assert_eq!(queue.buffered(), Revision(6));
        let at = [69, 70, 89, 90, u64::MAX].map(|time_ms| queue.at_time(time_ms));
        let [five, six] = [5, 6].map(|revision| Some(Revision(revision)));
        assert_eq!(at, [None, five, five, six, six]);
        queue.hurry();
        // Longer than any test may take.
        assert!(!queue.wait(false, Duration::from_secs(1 << 20)));
        let (mut batch, mut held) = (Batch::default(), VecDeque::new());
        assert!(!queue.take(&mut batch, &mut held));
        assert_eq!((batch.first, batch.count, held.len()), (Revision(5), 2, 0));
    }

    #[test]
    fn a_writer_that_sleeps_is_woken_by_who_appended() {
        let queue = Queue::new(Revision(1), Times::default(), PART_BYTES_MAX);
        let clock = ManualClock::at_ms(1);
        let header = RecordHeader { time_ms: 70, db: 0, branch: BranchId::MAIN };
        let (taken, batches) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut batch, mut held) = (Batch::default(), VecDeque::new());
                while !queue.wait(true, Duration::from_secs(1 << 20)) {
                    queue.take(&mut batch, &mut held);
                    taken.send(batch.first.0 + u64::from(batch.count)).expect("somebody listens");
                }
            });
            // Until then it meets what is appended before it goes to sleep.
            let slept = (1..).find(|&revision| {
                std::thread::yield_now();
                let a = Handed::Lent(b"a");
                queue.append(Revision(revision), &header, a, Concern::UNASKED, &clock)
            });
            queue.wake_writer();
            let next = slept.expect("it sleeps at last") + 1;
            // Longer than any wait for a processor.
            let ends = || batches.recv_timeout(Duration::from_secs(60)).ok();
            let was_taken = std::iter::from_fn(ends).any(|end| end == next);
            queue.close();
            assert!(was_taken);
        });
    }

    #[test]
    fn a_large_record_is_a_batch_of_its_own() {
        let queue = Queue::new(Revision(1), Times::default(), PART_BYTES_MAX);
        let clock = ManualClock::at_ms(1);
        let header = RecordHeader { time_ms: 70, db: 0, branch: BranchId::MAIN };
        let large = vec![7; LARGE_BYTES];
        let append = |revision, effects: &[u8]| {
            let effects = Handed::Lent(effects);
            queue.append(Revision(revision), &header, effects, Concern::UNASKED, &clock);
        };
        append(1, b"a");
        append(2, &large);
        // Early or not.
        append(4, &large);
        append(3, b"c");
        append(5, &large);
        assert_eq!(queue.buffered(), Revision(5));
        let bytes = 3 * LARGE_BYTES + 2 + 5 * RECORD_HEADER_BYTES;
        assert_eq!(queue.bytes(), bytes);
        assert!(!queue.wait(false, Duration::from_secs(1 << 20)), "there is much to write");
        let (mut batch, mut held) = (Batch::default(), VecDeque::new());
        queue.take(&mut batch, &mut held);
        held.push_back(batch);
        let batches: Vec<_> = held.iter().map(|batch| (batch.first.0, batch.count)).collect();
        assert_eq!(batches, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 0)]);
        assert_eq!(held.iter().map(|batch| batch.content.len()).sum::<usize>(), bytes);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_burst_gathers_in_buffers_that_serve_again() {
        const RECORDS: u64 = 64;
        let queue = Queue::new(Revision(1), Times::default(), PART_BYTES_MAX);
        let clock = ManualClock::at_ms(1);
        let header = RecordHeader { time_ms: 70, db: 0, branch: BranchId::MAIN };
        let effects = vec![7; BATCH_BYTES_MAX / 8];
        let mut newest = 0;
        let mut burst = || {
            for _ in 0..RECORDS {
                newest += 1;
                let effects = Handed::Lent(&effects);
                queue.append(Revision(newest), &header, effects, Concern::UNASKED, &clock);
            }
            let (mut batch, mut held) = (Batch::default(), VecDeque::new());
            queue.take(&mut batch, &mut held);
            held.push_back(batch);
            let records: u32 = held.iter().map(|batch| batch.count).sum();
            assert_eq!(u64::from(records), RECORDS);
            assert!(held.iter().all(|batch| batch.content.len() <= BATCH_BYTES_MAX));
            held.into_iter().map(|batch| batch.content).collect::<Vec<_>>()
        };
        let first = burst();
        let used: Vec<_> = first.iter().skip(1).map(Vec::as_ptr).collect();
        assert!(used.len() > 5, "{}", used.len());
        first.into_iter().for_each(|buffer| queue.give_back(buffer));
        let again = burst();
        assert!(again.iter().skip(1).all(|buffer| used.contains(&buffer.as_ptr())));
        again.into_iter().for_each(|buffer| queue.give_back(buffer));
        queue.free_spare();
        assert!(queue.state.lock().spare.is_empty());
    }

    #[test]
    fn what_goes_in_parts_is_not_copied() {
        let queue = Queue::new(Revision(1), Times::default(), 100);
        let clock = ManualClock::at_ms(1);
        let header = RecordHeader { time_ms: 70, db: 0, branch: BranchId::MAIN };
        let sizes = [100 - RECORD_HEADER_BYTES, 101 - RECORD_HEADER_BYTES];
        let effects = sizes.map(|bytes| Arc::new(vec![1; bytes]));
        // The second one comes early, the third in its turn.
        for (revision, which) in [(2, 1), (1, 0), (3, 1)] {
            let effects = Handed::Shared(&effects[which]);
            queue.append(Revision(revision), &header, effects, Concern::UNASKED, &clock);
        }
        assert_eq!(queue.bytes(), 302);
        let (mut batch, mut held) = (Batch::default(), VecDeque::new());
        queue.take(&mut batch, &mut held);
        let large: Vec<_> = held.iter().map(|batch| (batch.content.len(), &batch.large)).collect();
        let [(100, None), (0, Some(second)), (0, Some(third))] = large[..] else {
            panic!("{large:?}");
        };
        for large in [second, third] {
            assert!(Arc::ptr_eq(&large.effects, &effects[1]));
        }
    }
}
