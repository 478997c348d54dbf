//! Transactions on their way from the threads that make them to the writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, Revision};
use parking_lot::{Condvar, Mutex};

use crate::format::{PACKED_CONTENT_MAX, RECORD_HEADER_BYTES, RecordHeader, put_record, u32_at};
use crate::tap::Concern;

/// Bytes that wake a writer that waits for its next turn.
pub(crate) const WAKE_BYTES: usize = 256 * 1024;

/// A batch that would grow beyond this is followed by another, so that what is
/// written at once has a bound. One record may be larger.
const BATCH_BYTES_MAX: usize = PACKED_CONTENT_MAX;

/// Consecutive records, encoded.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) first: Revision,
    pub(crate) count: u32,
    pub(crate) content: Vec<u8>,
    /// Whether anybody waits for one of them.
    pub(crate) concern: Concern,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch { first: Revision::ZERO, count: 0, content: Vec::new(), concern: Concern::NONE }
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

#[derive(Debug)]
struct State {
    /// The revision that goes on the end of `batch`.
    next: u64,
    batch: Batch,
    /// Batches before `batch`, each as large as one may be. Normally none.
    full: VecDeque<Batch>,
    full_bytes: usize,
    /// Records whose predecessors have not been appended yet: another thread
    /// reserved them and is about to. Normally empty, a handful at most.
    early: BTreeMap<u64, (Vec<u8>, Concern)>,
    early_bytes: usize,
    /// The writer sleeps and wants to be woken by the first record.
    wants_first: bool,
    /// Monotonic time of the oldest record in `batch`.
    oldest_ns: u64,
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
        if self.batch.count > 0 && self.batch.content.len() + len > BATCH_BYTES_MAX {
            let empty = Batch { first: Revision(self.next), ..Batch::default() };
            let full = std::mem::replace(&mut self.batch, empty);
            self.full_bytes += full.content.len();
            self.full.push_back(full);
        }
    }
}

/// The queue. Order of revisions is restored here.
#[derive(Debug)]
pub(crate) struct Queue {
    reserved: AtomicU64,
    state: Mutex<State>,
    wake: Condvar,
}

impl Queue {
    pub(crate) fn new(next: Revision) -> Queue {
        Queue {
            reserved: AtomicU64::new(next.0 - 1),
            state: Mutex::new(State {
                next: next.0,
                batch: Batch { first: next, ..Batch::default() },
                full: VecDeque::new(),
                full_bytes: 0,
                early: BTreeMap::new(),
                early_bytes: 0,
                wants_first: false,
                oldest_ns: 0,
                is_urgent: false,
                sync_requested: false,
                closing: false,
            }),
            wake: Condvar::new(),
        }
    }

    pub(crate) fn reserve(&self) -> Revision {
        Revision(self.reserved.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn newest(&self) -> Revision {
        Revision(self.reserved.load(Ordering::Relaxed))
    }

    pub(crate) fn append(
        &self,
        revision: Revision,
        header: &RecordHeader,
        effects: &[u8],
        concern: Concern,
        clock: &dyn Clock,
    ) {
        let mut state = self.state.lock();
        if revision.0 != state.next {
            let mut record = Vec::new();
            put_record(&mut record, header, effects);
            state.early_bytes += record.len();
            let before = state.early.insert(revision.0, (record, concern));
            assert!(before.is_none(), "revision {revision} was appended twice");
            return;
        }
        if state.batch.count == 0 {
            state.oldest_ns = clock.monotonic_ns();
        }
        state.make_room(RECORD_HEADER_BYTES + effects.len());
        put_record(&mut state.batch.content, header, effects);
        state.batch.count += 1;
        state.batch.concern.add(concern);
        state.next += 1;
        while let Some((record, concern)) = {
            let next = state.next;
            state.early.remove(&next)
        } {
            state.early_bytes -= record.len();
            state.make_room(record.len());
            state.batch.content.extend_from_slice(&record);
            state.batch.count += 1;
            state.batch.concern.add(concern);
            state.next += 1;
        }
        let wakes = state.wants_first || state.batch.content.len() >= WAKE_BYTES;
        if wakes {
            state.wants_first = false;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// The newest revision that has everything before it appended.
    pub(crate) fn buffered(&self) -> Revision {
        Revision(self.state.lock().next - 1)
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
    /// much data; a request to sync or to close ends it too. Answers whether
    /// the log closes.
    pub(crate) fn wait(&self, for_first: bool, at_most: Duration) -> bool {
        let mut state = self.state.lock();
        let has_work = |state: &State| {
            state.closing
                || state.sync_requested
                || state.is_urgent
                || state.batch.content.len() >= WAKE_BYTES
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
