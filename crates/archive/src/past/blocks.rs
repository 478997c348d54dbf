//! Blocks of the log that were read lately, unpacked: who reads one record of a
//! key's past mostly comes back for others beside it. A block is kept when it is
//! asked for the second time: memory that nobody has used before costs more than
//! to read a block again. Whoever reads everything in order has no use for them,
//! and does not come here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use base::Revision;
use log::{Block, Log, LogError, Place, Record, SegmentInfo};
use parking_lot::Mutex;

use crate::history::LogBlocks;

/// Bytes of memory that blocks may take: the last half million small writes.
const BYTES_MAX: usize = 32 << 20;

/// What a block takes besides its content, about.
const BLOCK_BYTES: usize = 256;

/// Blocks of which is known that they were asked for once, at most.
const ASKED_MAX: usize = 4096;

/// The log, with a memory.
#[derive(Debug)]
pub(super) struct Blocks {
    log: Arc<Log>,
    bytes_max: usize,
    kept: Mutex<Kept>,
    /// What a block that is not kept was read into last.
    buffer: Mutex<Vec<u8>>,
}

/// Bytes of it that are kept for the next one at most.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// A block's place: its segment's first revision, and its offset there.
type At = (Revision, u64);

#[derive(Debug, Default)]
struct Kept {
    blocks: HashMap<At, Slot>,
    /// In the order in which they are looked at when one has to go.
    order: VecDeque<At>,
    bytes: usize,
    /// Blocks that were asked for once, each where its place says; one that
    /// comes to the same place takes the other's.
    asked: Vec<At>,
}

#[derive(Debug)]
struct Slot {
    block: Arc<Block>,
    /// Asked for since it was looked at last.
    is_used: bool,
}

impl Kept {
    fn get(&mut self, at: At) -> Option<Arc<Block>> {
        let slot = self.blocks.get_mut(&at)?;
        slot.is_used = true;
        Some(slot.block.clone())
    }

    /// Whether a block was asked for before, as far as one remembers; from now
    /// on it was.
    fn ask(&mut self, at: At) -> bool {
        self.asked.resize(ASKED_MAX, (Revision::ZERO, 0));
        let mixed = (at.0.0 ^ at.1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        std::mem::replace(&mut self.asked[(mixed >> 32) as usize % ASKED_MAX], at) == at
    }

    fn put(&mut self, at: At, block: Arc<Block>, bytes_max: usize) {
        self.bytes += bytes_of(&block);
        match self.blocks.insert(at, Slot { block, is_used: false }) {
            // Somebody else has read it too.
            Some(same) => self.bytes -= bytes_of(&same.block),
            None => self.order.push_back(at),
        }
        while self.bytes > bytes_max
            && let Some(at) = self.order.pop_front()
        {
            let slot = self.blocks.get_mut(&at).expect("what is in order is there");
            if std::mem::take(&mut slot.is_used) {
                self.order.push_back(at);
            } else {
                self.bytes -= bytes_of(&slot.block);
                self.blocks.remove(&at);
            }
        }
    }
}

fn bytes_of(block: &Block) -> usize {
    block.memory_bytes() + BLOCK_BYTES
}

impl Blocks {
    pub(super) fn new(log: Arc<Log>) -> Blocks {
        Blocks { log, bytes_max: BYTES_MAX, kept: Mutex::default(), buffer: Mutex::default() }
    }

    /// One block.
    pub(super) fn get(&self, segment: Revision, offset: u64) -> Result<Arc<Block>, LogError> {
        let at = (segment, offset);
        let is_again = {
            let mut kept = self.kept.lock();
            if let Some(block) = kept.get(at) {
                return Ok(block);
            }
            kept.ask(at)
        };
        let block = Arc::new(self.log.read_records(segment, offset)?);
        // One that drives most others out is read again.
        if is_again && bytes_of(&block) <= self.bytes_max / 2 {
            self.kept.lock().put(at, block.clone(), self.bytes_max);
        }
        Ok(block)
    }

    /// One record, if its block has it.
    pub(super) fn record<T>(
        &self,
        place: Place,
        read: &mut dyn FnMut(&Record<'_>) -> T,
    ) -> Result<Option<T>, LogError> {
        let Place { segment, offset, index } = place;
        {
            let mut kept = self.kept.lock();
            let block = kept.get((segment, offset));
            if block.is_some() || kept.ask((segment, offset)) {
                drop(kept);
                let block = block.map_or_else(|| self.get(segment, offset), Ok)?;
                return Ok(block.record(index).as_ref().map(read));
            }
        }
        let mut found = None;
        // Whoever reads may come again for another meanwhile.
        let mut buffer = std::mem::take(&mut *self.buffer.lock());
        self.log.read_record(place, &mut buffer, &mut |record| found = Some(read(record)))?;
        if buffer.len() <= BUFFER_BYTES_MAX {
            *self.buffer.lock() = buffer;
        }
        Ok(found)
    }

    /// Lets go of everything.
    pub(super) fn clear(&self) {
        *self.kept.lock() = Kept::default();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.kept.lock().bytes
    }
}

impl LogBlocks for Blocks {
    fn segments(&self) -> Vec<SegmentInfo> {
        self.log.segments()
    }

    fn block(
        &self,
        segment: Revision,
        offset: u64,
        each: &mut dyn FnMut(&Record<'_>, Place),
    ) -> Result<Option<u64>, LogError> {
        LogBlocks::block(&*self.log, segment, offset, each)
    }

    fn block_again(
        &self,
        segment: Revision,
        offset: u64,
        each: &mut dyn FnMut(&Record<'_>, Place),
    ) -> Result<(), LogError> {
        self.get(segment, offset)?.records().for_each(|(record, place)| each(&record, place));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base::BranchId;
    use log::{FsyncPolicy, LogOptions, RecordHeader};

    use super::*;
    use crate::memory_log;

    #[test]
    fn what_is_asked_for_stays_and_memory_is_bounded() {
        let options = LogOptions { fsync: FsyncPolicy::Always, ..LogOptions::default() };
        let log = Arc::new(memory_log::open(options));
        // Each record is a block of its own.
        let effects = vec![b'x'; 10_000];
        let (count, bytes_max) = (60, 200_000);
        let huge = vec![b'h'; bytes_max / 2];
        for n in 0..count + 1 {
            let header = RecordHeader { time_ms: 1, db: 0, branch: BranchId::MAIN };
            let revision = log.reserve();
            log.append(revision, header, if n < count { &effects } else { &huge });
            log.wait_durable(revision).expect("memory takes everything");
        }
        let mut places = Vec::new();
        let mut reader = log.reader(Revision(1));
        while places.len() < count + 1 {
            let wait = std::time::Duration::from_secs(9);
            reader
                .read(wait, &mut |record, place| {
                    places.push((record.revision, place));
                    std::ops::ControlFlow::Continue(())
                })
                .expect("it is there");
        }
        let blocks = Blocks { bytes_max, ..Blocks::new(log) };
        let get = |place: Place| blocks.get(place.segment, place.offset).expect("it is there");
        let (_, first) = places[0];
        assert_eq!(get(first).record(first.index).map(|record| record.revision), Some(Revision(1)));
        assert_eq!(blocks.memory_bytes(), 0, "nobody has come back");
        let favourite = get(first);
        let (_, last) = places.pop().expect("the huge one");
        for _ in 0..3 {
            assert_eq!(get(last).record(0).map(|record| record.effects.len()), Some(huge.len()));
            assert!(Arc::ptr_eq(&get(first), &favourite));
        }
        let one = |place: Place| blocks.record(place, &mut |record| record.revision);
        for (revision, place) in places {
            let before = blocks.memory_bytes();
            // Half of them are asked first for a record that they do not have.
            let (index, found) = match revision.0 % 2 {
                0 => (place.index + 1, None),
                _ => (place.index, Some(revision)),
            };
            assert_eq!(one(Place { index, ..place }).expect("its block is there"), found);
            assert_eq!(blocks.memory_bytes(), before, "nobody has come back for {revision}");
            let block = get(place);
            let record = block.record(place.index).expect("it is in its block");
            assert_eq!((record.revision, record.effects), (revision, &effects[..]));
            assert!(blocks.memory_bytes() <= bytes_max);
            let again = get(first);
            assert!(Arc::ptr_eq(&again, &favourite), "read again at {revision}");
        }
        assert!(blocks.memory_bytes() > bytes_max / 2);
    }
}
