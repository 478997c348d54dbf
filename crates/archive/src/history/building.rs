//! The index of a segment in memory, as its records come.

use std::sync::Arc;

use base::{BranchId, Revision};
use log::{Place, Record};
use parking_lot::Mutex;

use super::entry::{DATABASE_WIDE, branch_hash, changed, hash_of, key_hash, pack, relative_of};
use super::error::HistoryError;
use super::records::Hit;

/// Entries that are sorted at a time: as many as stay in a processor's cache.
const CHUNK: usize = 16 * 1024;

/// A block of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Its first revision, counted from the segment's.
    pub(super) first: u32,
    /// Where in the segment's file it begins.
    pub(super) offset: u64,
    /// The earliest time of its records. Clocks may go back.
    pub(super) earliest_ms: u64,
}

impl Block {
    pub(super) fn place(&self, segment: Revision, relative: u32) -> Place {
        Place { segment, offset: self.offset, index: relative - self.first }
    }
}

/// Buffers of entries, for those of the next segment: memory that is mapped
/// anew for every chunk costs more than all that is done with it.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<Vec<u64>>>);

/// How many there are at most.
const SPARE_MAX: usize = 128;

impl Spare {
    fn take(&self) -> Vec<u64> {
        self.0.lock().pop().unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn give(&self, mut buffer: Vec<u64>) {
        buffer.clear();
        let mut kept = self.0.lock();
        // One transaction on very many keys makes a long one.
        if (CHUNK..=2 * CHUNK).contains(&buffer.capacity()) && kept.len() < SPARE_MAX {
            kept.push(buffer);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.lock().iter().map(|buffer| buffer.capacity() * size_of::<u64>()).sum()
    }
}

/// Sorted entries.
#[derive(Debug)]
struct Chunk {
    entries: Vec<u64>,
    /// The first and the last revision among them, counted from the segment's.
    revisions: (u32, u32),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Building {
    first: Revision,
    /// The revision that is noted next.
    next: Revision,
    /// With a revision in one chunk no earlier one is in a later chunk.
    chunks: Vec<Chunk>,
    /// The newest entries, in order of their revisions.
    open: Vec<u64>,
    /// Revisions that change whole databases, counted from the first: every
    /// look at a key asks for them, and there are hardly any.
    wide: Vec<u32>,
    blocks: Vec<Block>,
    /// The newest record's.
    branch: Option<BranchId>,
    spare: Arc<Spare>,
}

impl Drop for Building {
    fn drop(&mut self) {
        self.chunks.drain(..).for_each(|chunk| self.spare.give(chunk.entries));
        self.spare.give(std::mem::take(&mut self.open));
    }
}

impl Building {
    /// One that begins with the revision `first`, and takes its memory from
    /// `spare` and gives it back there.
    pub(super) fn new(first: Revision, spare: &Arc<Spare>) -> Building {
        Building {
            first,
            next: first,
            chunks: Vec::new(),
            open: Vec::new(),
            wide: Vec::new(),
            blocks: Vec::new(),
            branch: None,
            spare: spare.clone(),
        }
    }

    pub(super) fn first(&self) -> Revision {
        self.first
    }

    /// The newest revision in it; the one before its first if it is empty.
    pub(super) fn last(&self) -> Revision {
        Revision(self.next.0 - 1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next == self.first
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(|chunk| chunk.entries.capacity()).sum();
        (entries + self.open.capacity()) * size_of::<u64>()
            + self.wide.capacity() * size_of::<u32>()
            + self.blocks.capacity() * size_of::<Block>()
    }

    /// Takes in the next record; see `History::note_known`.
    pub(super) fn note(
        &mut self,
        record: &Record<'_>,
        place: Place,
        only: Option<&[u8]>,
    ) -> Result<(), HistoryError> {
        if record.revision != self.next {
            return Err(HistoryError::Gap { expected: self.next, found: record.revision });
        }
        let relative = u32::try_from(record.revision.0 - self.first.0).map_err(|_| {
            HistoryError::TooLong { segment: self.first, revision: record.revision }
        })?;
        let time_ms = record.header.time_ms;
        match self.blocks.last_mut() {
            Some(block) if block.offset == place.offset => {
                block.earliest_ms = block.earliest_ms.min(time_ms);
            }
            _ => self.blocks.push(Block {
                first: relative,
                offset: place.offset,
                earliest_ms: time_ms,
            }),
        }
        if self.open.capacity() == 0 {
            self.open = self.spare.take();
        }
        let (open, wide) = (&mut self.open, &mut self.wide);
        let branch = record.header.branch;
        if self.branch.replace(branch) != Some(branch) {
            open.push(pack(branch_hash(branch), relative));
        }
        let add = |hash| {
            open.push(pack(hash, relative));
            if hash == DATABASE_WIDE && wide.last() != Some(&relative) {
                wide.push(relative);
            }
        };
        match only {
            Some(key) => open.push(pack(key_hash(key), relative)),
            None => changed(record.effects, add)
                .map_err(|source| HistoryError::Malformed { revision: record.revision, source })?,
        }
        if self.open.len() >= CHUNK {
            self.close_chunk();
        }
        self.next = record.revision.next();
        Ok(())
    }

    /// Sorts the newest entries.
    pub(super) fn close_chunk(&mut self) {
        if let (Some(&first), Some(&last)) = (self.open.first(), self.open.last()) {
            let revisions = (relative_of(first), relative_of(last));
            let mut entries = self.spare.take();
            sort_by_hash(&mut self.open, &mut entries);
            entries.dedup();
            self.chunks.push(Chunk { entries, revisions });
        }
        self.open.clear();
    }

    /// Calls `each` with all entries in order, slice by slice.
    pub(super) fn merge(&self, each: &mut dyn FnMut(&[u64])) {
        let mut open = self.open.clone();
        open.sort_unstable();
        let mut rest: Vec<&[u64]> = self.chunks.iter().map(|chunk| &*chunk.entries).collect();
        rest.push(&open);
        let (mut part, mut sorted) = (self.spare.take(), self.spare.take());
        for leading in 0..=u64::from(u8::MAX) {
            part.clear();
            for run in &mut rest {
                let len = run.partition_point(|entry| entry >> 56 <= leading);
                part.extend_from_slice(&run[..len]);
                *run = &run[len..];
            }
            // Entries of one hash stand in order of their revisions already.
            sort_by_rest_of_hash(&mut part, &mut sorted);
            sorted.dedup();
            each(&sorted);
        }
        [part, sorted].into_iter().for_each(|buffer| self.spare.give(buffer));
    }

    /// See `View::newest`.
    pub(super) fn newest(
        &self,
        hash: u32,
        after: Revision,
        upto: Revision,
        enough: usize,
    ) -> Vec<Hit> {
        let Some((from, to)) = relative_range(self.first, self.last(), after, upto) else {
            return Vec::new();
        };
        let hit = |relative: u32| {
            let revision = Revision(self.first.0 + u64::from(relative));
            let place = self.place(revision).expect("every record is in a block");
            Hit { revision, place }
        };
        if hash == DATABASE_WIDE {
            let begin = self.wide.partition_point(|&relative| relative < from);
            let end = self.wide.partition_point(|&relative| relative <= to);
            let begin = begin.max(end.saturating_sub(enough));
            return self.wide[begin..end].iter().map(|&relative| hit(relative)).collect();
        }
        let (least, most) = (pack(hash, from), pack(hash, to));
        // In order of revisions, so only a part can be in question.
        let begin = self.open.partition_point(|&entry| relative_of(entry) < from);
        let end = self.open.partition_point(|&entry| relative_of(entry) <= to);
        let newest = newest_with_hash(&self.open[begin..end.max(begin)], hash, enough);
        let mut count = newest.len();
        let mut runs = vec![&newest[..]];
        for chunk in self.chunks.iter().rev() {
            if count >= enough {
                break;
            }
            let (earliest, latest) = chunk.revisions;
            if earliest > to {
                continue;
            }
            if latest < from {
                break;
            }
            // Of a key that changes all the time there are very many.
            let upto = &chunk.entries[..chunk.entries.partition_point(|&entry| entry <= most)];
            let wanted = upto.iter().rev().take(enough - count);
            let len = wanted.take_while(|&&entry| entry >= least).count();
            count += len;
            runs.push(&upto[upto.len() - len..]);
        }
        let mut found: Vec<u64> = Vec::with_capacity(count);
        runs.iter().rev().for_each(|run| found.extend_from_slice(run));
        found.dedup();
        debug_assert!(found.iter().all(|&entry| hash_of(entry) == hash));
        found.iter().map(|&entry| hit(relative_of(entry))).collect()
    }

    /// See `View::place`.
    pub(super) fn place(&self, revision: Revision) -> Option<Place> {
        if revision < self.first || revision >= self.next {
            return None;
        }
        let relative = (revision.0 - self.first.0) as u32;
        let after = blocks_up_to(&self.blocks, relative);
        Some(self.blocks[after.checked_sub(1)?].place(self.first, relative))
    }

    /// See `View::block_at_time`.
    pub(super) fn block_at_time(&self, time_ms: u64) -> Option<Place> {
        let block = self.blocks.iter().rev().find(|block| block.earliest_ms <= time_ms)?;
        Some(block.place(self.first, block.first))
    }
}

/// How many blocks begin at or before a revision. Most blocks have about as many
/// records, so it is looked for around the place that this would make it: that
/// is much less memory to touch than halving takes.
fn blocks_up_to(blocks: &[Block], relative: u32) -> usize {
    let begins = |at: usize| blocks.get(at).is_some_and(|block| block.first <= relative);
    let last = blocks.last().map_or(0, |block| u64::from(block.first));
    let guess = u64::from(relative) * blocks.len() as u64 / (last + 1);
    let (mut low, mut high) = (0, blocks.len());
    let (mut at, mut step) = ((guess as usize).min(high), 1);
    if begins(at) {
        while begins(at) {
            (low, at, step) = (at + 1, at + step, step * 2);
        }
        high = high.min(at);
    } else {
        while at > 0 && !begins(at) {
            (high, at, step) = (high.min(at), at.saturating_sub(step), step * 2);
        }
        low = at;
    }
    low + blocks[low..high].partition_point(|block| block.first <= relative)
}

/// Of unsorted entries the last ones with this hash, in order: `enough` of them, and
/// maybe more. Mostly there is none among very many, so they are looked through by
/// the handful, without a branch for each.
fn newest_with_hash(entries: &[u64], hash: u32, enough: usize) -> Vec<u64> {
    const HANDFUL: usize = 32;
    let mut found = Vec::new();
    for part in entries.rchunks(HANDFUL) {
        if part.iter().fold(false, |any, &entry| any | (hash_of(entry) == hash)) {
            found.extend(part.iter().rev().filter(|&&entry| hash_of(entry) == hash));
            if found.len() >= enough {
                break;
            }
        }
    }
    found.reverse();
    found
}

/// The part of a segment's revisions after `after` and up to `upto`, counted
/// from its first: both ends are in it.
pub(super) fn relative_range(
    first: Revision,
    last: Revision,
    after: Revision,
    upto: Revision,
) -> Option<(u32, u32)> {
    let (upto, from) = (upto.min(last), after.0.checked_add(1)?.max(first.0));
    if upto.0 < from {
        return None;
    }
    Some(((from - first.0) as u32, (upto.0 - first.0) as u32))
}

/// Entries in order of their revisions, sorted; see [`sort_by_digits`].
fn sort_by_hash(entries: &mut Vec<u64>, sorted: &mut Vec<u64>) {
    sort_by_digits::<{ 1 << 11 }>(entries, sorted);
}

/// As [`sort_by_hash`], of entries whose hashes begin with the same eight bits:
/// what is left has fewer digits to count.
fn sort_by_rest_of_hash(entries: &mut Vec<u64>, sorted: &mut Vec<u64>) {
    sort_by_digits::<{ 1 << 8 }>(entries, sorted);
}

/// Sorts entries by the lowest three digits of their hashes, each of which takes
/// `VALUES`, and keeps the order among equals: a radix sort takes half the time of
/// a comparing one, and every write of the server pays for it. `entries` is left
/// in disorder; what was in `sorted` goes.
fn sort_by_digits<const VALUES: usize>(entries: &mut Vec<u64>, sorted: &mut Vec<u64>) {
    // For a few entries the counting costs more than it saves.
    if entries.len() < VALUES / 8 {
        entries.sort_unstable();
        sorted.clone_from(entries);
        return;
    }
    let bits = VALUES.ilog2();
    let digit = |entry: u64, pass: u32| (entry >> (32 + pass * bits)) as usize % VALUES;
    let mut counts = [[0u32; VALUES]; 3];
    for &entry in &*entries {
        (0..3).for_each(|pass| counts[pass as usize][digit(entry, pass)] += 1);
    }
    // What is there already need not be cleared: all of it is written over.
    sorted.resize(entries.len(), 0);
    for (pass, counts) in (0..).zip(&mut counts) {
        let mut begin = 0;
        for count in counts.iter_mut() {
            begin += std::mem::replace(count, begin);
        }
        for &entry in &*entries {
            let at = &mut counts[digit(entry, pass)];
            sorted[*at as usize] = entry;
            *at += 1;
        }
        std::mem::swap(entries, sorted);
    }
    std::mem::swap(entries, sorted);
}

#[cfg(test)]
mod tests {
    use base::{Rng, SeededRng};

    use super::*;

    #[test]
    fn blocks_are_found_however_many_records_they_have() {
        let mut rng = SeededRng::new(1);
        for longest in [1, 2, 90, 10_000] {
            for count in [0, 1, 2, 3, 10, 1000] {
                let mut first = 0;
                let blocks: Vec<Block> = (0..count)
                    .map(|at| {
                        let block = Block { first, offset: at, earliest_ms: 0 };
                        // Some are much longer than the others.
                        let many = if rng.below(50) == 0 { 100 * longest } else { longest };
                        first += 1 + rng.below(many) as u32;
                        block
                    })
                    .collect();
                for relative in (0..1000).map(|_| rng.below(u64::from(first) + 2) as u32) {
                    let expected = blocks.partition_point(|block| block.first <= relative);
                    assert_eq!(blocks_up_to(&blocks, relative), expected, "{relative} {count}");
                }
            }
        }
    }

    #[test]
    fn entries_are_sorted_as_numbers_are() {
        let mut rng = SeededRng::new(1);
        for (hashes, count) in [(1, 5000), (2, 5000), (1 << 12, 5000), (1 << 32, 5000), (9, 50)] {
            let entry = |relative: u32| pack(rng.below(hashes) as u32, relative / 2);
            let entries: Vec<u64> = (0..count).map(entry).collect();
            let mut expected = entries.clone();
            expected.sort_unstable();
            // Whatever was in it before.
            let mut sorted = vec![7; 3];
            sort_by_hash(&mut entries.clone(), &mut sorted);
            assert_eq!(sorted, expected);
            // As long as all begin alike.
            let alike = |entry: u64| entry & u64::MAX >> 8 | 5 << 56;
            let mut entries: Vec<u64> = entries.into_iter().map(alike).collect();
            expected = entries.clone();
            expected.sort_unstable();
            sort_by_rest_of_hash(&mut entries, &mut sorted);
            assert_eq!(sorted, expected);
        }
        let mut sorted = vec![7; 3];
        sort_by_hash(&mut Vec::new(), &mut sorted);
        assert!(sorted.is_empty());
    }
}
