//! Blocks of the log that were read lately, unpacked: who reads one record of a
//! key's past mostly comes back for others beside it. Whoever reads everything
//! in order has no use for them, and does not come here.

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

/// The log, with a memory.
#[derive(Debug)]
pub(super) struct Blocks {
    log: Arc<Log>,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

/// A block's place: its segment's first revision, and its offset there.
type At = (Revision, u64);

#[derive(Debug, Default)]
struct Kept {
    blocks: HashMap<At, Slot>,
    /// In the order in which they are looked at when one has to go.
    order: VecDeque<At>,
    bytes: usize,
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
        Blocks { log, bytes_max: BYTES_MAX, kept: Mutex::default() }
    }

    /// One block.
    pub(super) fn get(&self, segment: Revision, offset: u64) -> Result<Arc<Block>, LogError> {
        if let Some(block) = self.kept.lock().get((segment, offset)) {
            return Ok(block);
        }
        let block = Arc::new(self.log.read_records(segment, offset)?);
        self.kept.lock().put((segment, offset), block.clone(), self.bytes_max);
        Ok(block)
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
    use std::path::Path;

    use base::{BranchId, SeededRng, SystemClock};
    use log::{FsyncPolicy, LogOptions, MemVfs, RecordHeader};

    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_memory_is_bounded() {
        let options = LogOptions { fsync: FsyncPolicy::Always, ..LogOptions::default() };
        let (vfs, clock) = (Arc::new(MemVfs::new()), Arc::new(SystemClock));
        let mut rng = SeededRng::new(1);
        let (log, _) = Log::open(
            vfs,
            Path::new("/log"),
            options,
            Revision::ZERO,
            clock,
            &mut rng,
            &mut |_| Ok(()),
        )
        .expect("a log in memory opens");
        let log = Arc::new(log);
        // Each record is a block of its own.
        let effects = vec![b'x'; 10_000];
        let (count, bytes_max) = (60, 200_000);
        for _ in 0..count {
            let header = RecordHeader { time_ms: 1, db: 0, branch: BranchId::MAIN };
            let revision = log.reserve();
            log.append(revision, header, &effects);
            log.wait_durable(revision).expect("memory takes everything");
        }
        let mut places = Vec::new();
        let mut reader = log.reader(Revision(1));
        while places.len() < count {
            let wait = std::time::Duration::from_secs(9);
            reader
                .read(wait, &mut |record, place| {
                    places.push((record.revision, place));
                    std::ops::ControlFlow::Continue(())
                })
                .expect("it is there");
        }
        let blocks = Blocks { bytes_max, ..Blocks::new(log) };
        let (_, first) = places[0];
        let favourite = blocks.get(first.segment, first.offset).expect("it is there");
        for (revision, place) in places {
            let block = blocks.get(place.segment, place.offset).expect("it is there");
            let record = block.record(place.index).expect("it is in its block");
            assert_eq!((record.revision, record.effects), (revision, &effects[..]));
            assert!(blocks.memory_bytes() <= bytes_max);
            let again = blocks.get(first.segment, first.offset).expect("it is there");
            assert!(Arc::ptr_eq(&again, &favourite), "read again at {revision}");
        }
        assert!(blocks.memory_bytes() > bytes_max / 2);
    }
}
