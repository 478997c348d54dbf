//! [`Table`]: a hash table that grows without ever stalling.
//!
//! Extendible hashing (Fagin et al., 1979): a directory of small segments,
//! indexed by the leading bits of the hash. A full segment splits in two by
//! the next bit, so the longest single step moves one segment's elements,
//! whatever the table holds. The directory doubles now and then, which copies
//! four bytes per segment.
//!
//! Elements stand in hash order across segments, which gives [`Table::scan`] a
//! cursor that stays valid through any change.

use std::hint::black_box;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use base::Rng;
use hashbrown::HashTable;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bits of a scan position.
pub const POSITION_BITS: u32 = 46;

/// The position behind the last one.
pub const POSITION_END: u64 = 1 << POSITION_BITS;

/// Elements of a segment that is split, mostly.
const SPLIT_LEN: usize = <HashTable<()> as Elements<()>>::LEN_MAX;

/// An element that knows its key.
pub trait Keyed {
    /// The key, which does not change while the element is in a table.
    fn key(&self) -> &[u8];
}

/// How a table keeps the elements of a segment.
pub trait Elements<T>: From<HashTable<T>> {
    /// Heap bytes that this takes besides the elements.
    const BYTES: usize;
    /// Elements of a full segment.
    const LEN_MAX: usize;
    /// Two neighbours that hold no more than this together become one. Well
    /// below half of the maximum, so that a table that hovers at a size does not
    /// split and merge by turns.
    const MERGE_LEN_MAX: usize = Self::LEN_MAX * 2 / 7;
    /// The elements.
    fn get(&self) -> &HashTable<T>;
    /// The elements, to change.
    fn get_mut(&mut self) -> &mut HashTable<T>;
    /// The elements by themselves.
    fn into_own(self) -> HashTable<T>;
}

/// In place.
impl<T> Elements<T> for HashTable<T> {
    const BYTES: usize = 0;
    /// What hashbrown keeps in 256 buckets.
    const LEN_MAX: usize = 224;

    fn get(&self) -> &HashTable<T> {
        self
    }

    fn get_mut(&mut self) -> &mut HashTable<T> {
        self
    }

    fn into_own(self) -> HashTable<T> {
        self
    }
}

/// Shared with copies of the table until one of them changes it: a copy of the
/// table costs little, and so does its first change.
impl<T: Clone> Elements<T> for Arc<HashTable<T>> {
    const BYTES: usize = 2 * size_of::<usize>() + size_of::<HashTable<T>>();
    /// What hashbrown keeps in 64 buckets: so many are copied for a change of one.
    const LEN_MAX: usize = 56;

    fn get(&self) -> &HashTable<T> {
        self
    }

    fn get_mut(&mut self) -> &mut HashTable<T> {
        Arc::make_mut(self)
    }

    fn into_own(self) -> HashTable<T> {
        Arc::unwrap_or_clone(self)
    }
}

/// A table whose copies share what they have in common.
pub type SharedTable<T> = Table<T, Arc<HashTable<T>>>;

/// A hash table of elements that hold their own keys.
///
/// Methods that take a `hash` expect [`Table::hash`] of the key with this
/// table's seed, so that a caller that needs the hash for something else
/// computes it once.
#[derive(Debug, Clone)]
pub struct Table<T, E = HashTable<T>> {
    seed: u64,
    /// Leading bits of the hash that are equal for all keys here.
    skip_bits: u32,
    /// log2 of the directory's length.
    depth: u32,
    /// Index into `segments` by the hash's `depth` bits after the skipped
    /// ones. Empty until the first insert.
    directory: Vec<u32>,
    segments: Vec<Segment<E>>,
    /// How many segments need the directory's full depth.
    deepest: usize,
    len: usize,
    /// Sum of the segments' allocations.
    bucket_bytes: usize,
    holds: PhantomData<T>,
}

#[derive(Debug, Clone)]
struct Segment<E> {
    elements: E,
    /// How many bits of the hash all elements share.
    depth: u32,
    /// Those bits.
    prefix: u64,
}

impl<T: Keyed> Table<T> {
    /// The hash of a key under a seed.
    #[must_use]
    pub fn hash(seed: u64, key: &[u8]) -> u64 {
        hash_under(seed, key)
    }
}

impl<T: Keyed, E: Elements<T>> Table<T, E> {
    /// An empty table whose hash is keyed by `seed`. Allocates nothing.
    #[must_use]
    pub fn new(seed: u64) -> Table<T, E> {
        Table::in_shard(seed, 0)
    }

    /// An empty table for keys whose hashes agree in the leading `shard_bits`.
    #[must_use]
    pub fn in_shard(seed: u64, shard_bits: u32) -> Table<T, E> {
        Table {
            seed,
            skip_bits: shard_bits,
            depth: 0,
            directory: Vec::new(),
            segments: Vec::new(),
            deepest: 0,
            len: 0,
            bucket_bytes: 0,
            holds: PhantomData,
        }
    }

    /// The hash of a key in this table.
    #[must_use]
    pub fn hash_of(&self, key: &[u8]) -> u64 {
        hash_under(self.seed, key)
    }

    /// The seed of the hash.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Heap bytes of the table itself; what elements point to is not counted.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bucket_bytes
            + self.directory.capacity() * size_of::<u32>()
            + self.segments.capacity() * size_of::<Segment<E>>()
            + self.segments.len() * E::BYTES
    }

    /// The element with this key.
    #[must_use]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<&T> {
        self.find(hash, |element| element.key() == key)
    }

    /// The elements among which one with this hash is, see [`near`].
    #[must_use]
    pub fn around(&self, hash: u64) -> Option<&HashTable<T>> {
        Some(self.segments[self.segment_index(hash)?].elements.get())
    }

    /// The element with this key, to change. Its key must stay.
    #[must_use]
    pub fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut T> {
        let segment = self.segment_index(hash)?;
        self.segments[segment]
            .elements
            .get_mut()
            .find_mut(spread(hash), |element| element.key() == key)
    }

    /// An element with this hash that satisfies `is_it`.
    #[must_use]
    pub fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        let segment = self.segment_index(hash)?;
        self.segments[segment].elements.get().find(spread(hash), is_it)
    }

    /// Adds an element, or replaces the one with the same key and answers it.
    pub fn insert(&mut self, hash: u64, element: T) -> Option<T> {
        if let Some(found) = self.get_mut(hash, element.key()) {
            return Some(std::mem::replace(found, element));
        }
        self.add(hash, element);
        None
    }

    /// Adds an element whose key no other one has.
    pub fn add(&mut self, hash: u64, element: T) {
        debug_assert!(self.get(hash, element.key()).is_none(), "a key stands in a table once");
        if self.directory.is_empty() {
            self.begin();
        }
        let mut index = self.segment_index(hash).expect("there is a segment");
        // More than one round only when all elements fall on one side.
        while self.segments[index].elements.get().len() >= E::LEN_MAX && self.can_split(index) {
            self.split(index);
            index = self.segment_index(hash).expect("there is a segment");
        }
        let seed = self.seed;
        let elements = self.segments[index].elements.get_mut();
        let before = (elements.len() == elements.capacity()).then(|| elements.allocation_size());
        elements.insert_unique(spread(hash), element, |e| spread(hash_under(seed, e.key())));
        // It grows only where it was full.
        if let Some(before) = before {
            self.bucket_bytes = self.bucket_bytes - before + elements.allocation_size();
        }
        self.len += 1;
    }

    /// Makes the first segment.
    #[cold]
    #[inline(never)]
    fn begin(&mut self) {
        self.directory.push(0);
        let elements = HashTable::new().into();
        self.segments.push(Segment { elements, depth: 0, prefix: 0 });
        self.deepest = 1;
    }

    /// Removes the element with this key.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        let index = self.segment_index(hash)?;
        let elements = self.segments[index].elements.get_mut();
        let found = elements.find_entry(spread(hash), |element| element.key() == key).ok()?;
        let (removed, _) = found.remove();
        self.len -= 1;
        if self.len == 0 {
            self.clear();
        } else {
            self.shrink(index);
        }
        Some(removed)
    }

    /// Removes every element and frees the table's memory.
    pub fn clear(&mut self) {
        *self = Table::in_shard(self.seed, self.skip_bits);
    }

    /// Removes every element; a table of one segment keeps its memory.
    pub fn empty(&mut self) {
        match self.segments.as_mut_slice() {
            [only] => {
                only.elements.get_mut().clear();
                self.len = 0;
            }
            _ => self.clear(),
        }
    }

    /// The elements, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments.iter().flat_map(|segment| segment.elements.get().iter())
    }

    /// The elements that do not stand in a segment which a copy of this table
    /// shares with it.
    pub fn iter_unshared(&self, other: &Table<T, E>) -> impl Iterator<Item = &T> {
        let theirs = move |at: usize| other.segments.get(at).map(|theirs| theirs.elements.get());
        let is_own = move |(at, ours): &(usize, &Segment<E>)| {
            theirs(*at).is_none_or(|theirs| !std::ptr::eq(theirs, ours.elements.get()))
        };
        let own = self.segments.iter().enumerate().filter(is_own);
        own.flat_map(|(_, segment)| segment.elements.get().iter())
    }

    /// Copies what is shared with a copy of this table.
    pub fn unshare(&mut self) {
        self.segments.iter_mut().for_each(|segment| _ = segment.elements.get_mut());
    }

    /// The elements, to change. Their keys must stay.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.segments.iter_mut().flat_map(|segment| segment.elements.get_mut().iter_mut())
    }

    /// Takes every element out, in no order that means anything.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T, E> {
        let empty = Table::in_shard(self.seed, self.skip_bits);
        let full = std::mem::replace(self, empty);
        full.segments.into_iter().flat_map(|segment| segment.elements.into_own())
    }

    /// An element chosen uniformly.
    #[must_use]
    pub fn random(&self, rng: &mut dyn Rng) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        loop {
            let segment = &self.segments[rng.below(self.segments.len() as u64) as usize];
            let len = segment.elements.get().len();
            // A segment is taken in proportion to its length, which makes the
            // choice among all elements uniform.
            let lot = if self.segments.len() == 1 {
                rng.below(len as u64) as usize
            } else {
                rng.below(E::LEN_MAX.max(len) as u64) as usize
            };
            if lot < len {
                return segment.elements.get().iter().nth(lot);
            }
        }
    }

    /// So many neighbours chosen by chance, or all elements if there are fewer.
    /// Cheaper than to choose each by itself, and as good: which elements are
    /// neighbours is chance too.
    pub fn sample(&self, rng: &mut dyn Rng, count: usize) -> impl Iterator<Item = &T> {
        let segments = self.segments.len();
        let buckets = |at: usize| {
            self.segments.get(at).map_or(0, |segment| segment.elements.get().num_buckets())
        };
        let first = rng.below(segments.max(1) as u64) as usize;
        let begin = rng.below(buckets(first).max(1) as u64) as usize;
        // Where too few follow, the next segments make up for them.
        let others = (first + 1..segments).chain(0..first).map(move |at| (at, 0..buckets(at)));
        let here = std::iter::once((first, begin..buckets(first)));
        let all = here.chain(others).chain([(first, 0..begin)]);
        let elements = move |(at, buckets): (usize, Range<usize>)| {
            buckets.filter_map(move |bucket| self.segments[at].elements.get().get_bucket(bucket))
        };
        all.flat_map(elements).take(count)
    }

    /// Visits about `count` elements in hash order from position `cursor` on
    /// and answers the position to go on from, 0 at the end. Elements at one
    /// position are visited together, so one that is there from the first call
    /// to the last is visited exactly once, whatever else comes and goes.
    pub fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(&T)) -> u64 {
        let next = self.scan_to(cursor, POSITION_END, count, visit);
        if next == POSITION_END { 0 } else { next }
    }

    /// As [`Table::scan`], up to position `end`, which is answered when there
    /// is nothing left before it.
    pub fn scan_to(&self, cursor: u64, end: u64, count: usize, visit: &mut dyn FnMut(&T)) -> u64 {
        let limit = end.min(POSITION_END);
        let mut position = cursor;
        let mut missing = count.max(1);
        let mut positions = Vec::new();
        // Cursors come from clients: one beyond the last position is the end.
        while position < limit && !self.directory.is_empty() {
            let slot = (position >> (POSITION_BITS - self.depth)) as usize;
            let segment = &self.segments[self.directory[slot] as usize];
            positions.clear();
            let end = limit.min((segment.prefix + 1) << (POSITION_BITS - segment.depth));
            let ahead = position..end;
            positions.extend(
                segment
                    .elements
                    .get()
                    .iter()
                    .map(|e| self.position(e))
                    .filter(|p| ahead.contains(p)),
            );
            let next = if positions.len() <= missing {
                end
            } else {
                let (_, &mut last, _) = positions.select_nth_unstable(missing - 1);
                last + 1
            };
            let in_reach = |e: &&T| (position..next).contains(&self.position(e));
            segment.elements.get().iter().filter(in_reach).for_each(&mut *visit);
            missing = missing.saturating_sub(positions.len());
            if missing == 0 {
                return next;
            }
            position = next;
        }
        limit
    }

    fn position(&self, element: &T) -> u64 {
        self.position_of(self.hash_of(element.key()))
    }

    /// The scan position of what has this hash.
    #[must_use]
    pub fn position_of(&self, hash: u64) -> u64 {
        (hash << self.skip_bits) >> (64 - POSITION_BITS)
    }

    fn segment_index(&self, hash: u64) -> Option<usize> {
        // The double shift is a shift by 64 - depth that also works for 0.
        let slot = (hash << self.skip_bits) >> 1 >> (63 - self.depth);
        self.directory.get(slot as usize).map(|&index| index as usize)
    }

    /// Positions run out of bits before hashes do; then a segment just grows.
    fn can_split(&self, index: usize) -> bool {
        self.segments[index].depth < POSITION_BITS - 8
    }

    #[cold]
    #[inline(never)]
    fn split(&mut self, index: usize) {
        if self.segments[index].depth == self.depth {
            self.directory = self.directory.iter().flat_map(|&i| [i, i]).collect();
            self.depth += 1;
            self.deepest = 0;
        }
        let (seed, skip_bits) = (self.seed, self.skip_bits);
        let segment = &mut self.segments[index];
        self.bucket_bytes -= segment.elements.get().allocation_size();
        segment.depth += 1;
        segment.prefix <<= 1;
        let (depth, prefix) = (segment.depth, segment.prefix);
        let rehash = |e: &T| spread(hash_under(seed, e.key()));
        let mut low = take(&mut segment.elements);
        // The keys are scattered: where nothing else is done meanwhile, the
        // processor overlaps the waits for them.
        low.iter().for_each(|element| _ = black_box(element.key().len()));
        let all: SmallVec<[(u64, T); SPLIT_LEN]> =
            low.drain().map(|element| (hash_under(seed, element.key()), element)).collect();
        // About as many as a smaller allocation holds: one of the two would be
        // moved at once, and the other soon.
        let mut high = HashTable::with_capacity(E::LEN_MAX);
        for (hash, element) in all {
            let goes_high = (hash << skip_bits) >> (64 - depth) & 1 == 1;
            let side = if goes_high { &mut high } else { &mut low };
            side.insert_unique(spread(hash), element, rehash);
        }
        self.bucket_bytes += low.allocation_size() + high.allocation_size();
        self.segments[index].elements = low.into();
        let new_index = self.segments.len();
        self.segments.push(Segment { elements: high.into(), depth, prefix: prefix | 1 });
        self.point_directory_at(new_index);
        if depth == self.depth {
            self.deepest += 2;
        }
    }

    /// Gives memory back after a removal from a segment.
    fn shrink(&mut self, index: usize) {
        let elements = self.segments[index].elements.get_mut();
        if elements.len() * 4 < elements.capacity() {
            let seed = self.seed;
            let before = elements.allocation_size();
            let room = elements.len() * 2;
            elements.shrink_to(room, |e| spread(hash_under(seed, e.key())));
            self.bucket_bytes = self.bucket_bytes - before + elements.allocation_size();
        }
        self.merge(index);
    }

    /// Unites a segment with its neighbour while both are small.
    fn merge(&mut self, mut index: usize) {
        loop {
            let Segment { depth, prefix, .. } = self.segments[index];
            if depth == 0 {
                return;
            }
            let buddy_slot = ((prefix ^ 1) << (self.depth - depth)) as usize;
            let buddy = self.directory[buddy_slot] as usize;
            let len = |index: usize| self.segments[index].elements.get().len();
            let together = len(index) + len(buddy);
            if self.segments[buddy].depth != depth || together > E::MERGE_LEN_MAX {
                return;
            }
            if depth == self.depth {
                self.deepest -= 2;
            }
            let seed = self.seed;
            let gone = take(&mut self.segments[buddy].elements);
            let segment = &mut self.segments[index];
            let elements = segment.elements.get_mut();
            self.bucket_bytes -= gone.allocation_size() + elements.allocation_size();
            let rehash = |e: &T| spread(hash_under(seed, e.key()));
            for element in gone {
                elements.insert_unique(rehash(&element), element, rehash);
            }
            self.bucket_bytes += elements.allocation_size();
            segment.depth -= 1;
            segment.prefix >>= 1;
            self.point_directory_at(index);
            self.segments.swap_remove(buddy);
            if buddy < self.segments.len() {
                self.point_directory_at(buddy);
            }
            if index == self.segments.len() {
                index = buddy;
            }
            self.halve_directory();
        }
    }

    fn halve_directory(&mut self) {
        while self.depth > 0 && self.deepest == 0 {
            self.directory = self.directory.iter().step_by(2).copied().collect();
            self.depth -= 1;
            self.deepest = self.segments.iter().filter(|s| s.depth == self.depth).count();
            self.segments.shrink_to(self.segments.len() * 2);
        }
    }

    fn point_directory_at(&mut self, index: usize) {
        let Segment { depth, prefix, .. } = self.segments[index];
        let width = self.depth - depth;
        let first = (prefix << width) as usize;
        let index = u32::try_from(index).expect("fewer than 2^32 segments");
        self.directory[first..first + (1 << width)].fill(index);
    }
}

/// An element that probably has this hash, if there is any. No element has been
/// looked at for that.
#[must_use]
pub fn near<T>(around: &HashTable<T>, hash: u64) -> Option<&T> {
    around.find(spread(hash), |_| true)
}

/// An element beside the place that one with this hash would take. No element
/// has been looked at for that.
#[must_use]
pub fn beside<T>(around: &HashTable<T>, hash: u64) -> Option<&T> {
    line_of(around, hash).find_map(|at| around.get_bucket(at))
}

/// The buckets that share a line of the processor's cache with the first one that
/// hashbrown tries for a hash.
fn line_of<T>(around: &HashTable<T>, hash: u64) -> Range<usize> {
    let home = spread(hash) as usize & (around.num_buckets() - 1);
    let line = home & !7;
    line..line + 8
}

fn hash_under(seed: u64, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, seed)
}

fn take<T, E: Elements<T>>(elements: &mut E) -> HashTable<T> {
    std::mem::replace(elements, HashTable::new().into()).into_own()
}

/// The hash as hashbrown sees it: its tag (leading bits) and its bucket
/// (trailing bits) must not be the bits that a segment's elements share.
fn spread(hash: u64) -> u64 {
    hash.rotate_left(32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base::SeededRng;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Pair(Vec<u8>, u32);

    impl Keyed for Pair {
        fn key(&self) -> &[u8] {
            &self.0
        }
    }

    const LEN_MAX: usize = <HashTable<Pair> as Elements<Pair>>::LEN_MAX;

    fn key(n: u32) -> Vec<u8> {
        n.to_be_bytes().to_vec()
    }

    fn insert(table: &mut Table<Pair>, n: u32, value: u32) -> Option<Pair> {
        table.insert(table.hash_of(&key(n)), Pair(key(n), value))
    }

    fn remove(table: &mut Table<Pair>, n: u32) -> Option<Pair> {
        table.remove(table.hash_of(&key(n)), &key(n))
    }

    fn check_structure(table: &Table<Pair>) {
        let bytes: usize = table.segments.iter().map(|s| s.elements.allocation_size()).sum();
        assert_eq!(table.bucket_bytes, bytes);
        assert_eq!(table.len, table.segments.iter().map(|s| s.elements.len()).sum::<usize>());
        let deepest = table.segments.iter().filter(|s| s.depth == table.depth).count();
        assert_eq!(table.deepest, deepest);
        for (slot, &index) in table.directory.iter().enumerate() {
            let segment = &table.segments[index as usize];
            assert_eq!(slot as u64 >> (table.depth - segment.depth), segment.prefix);
        }
    }

    #[test]
    fn a_new_element_mostly_comes_to_where_it_is_expected() {
        let mut table = HashTable::new();
        assert_eq!(beside::<Pair>(&table, 1), None);
        table.reserve(LEN_MAX, |_| unreachable!("there is none"));
        let mut expected = 0;
        for n in 0..LEN_MAX as u32 {
            let hash = hash_under(1, &key(n));
            table.insert_unique(spread(hash), Pair(key(n), n), |_| unreachable!("there is room"));
            let at = table.find_bucket_index(spread(hash), |pair| pair.1 == n).expect("it is in");
            expected += usize::from(line_of(&table, hash).contains(&at));
        }
        assert!(expected > LEN_MAX / 2, "{expected} of {LEN_MAX}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_as_a_map(
            steps in prop::collection::vec((0u32..3000, any::<u32>(), 0u8..5), 1..4000),
            growing in any::<bool>(),
        ) {
            let mut table = Table::new(7);
            let mut model = BTreeMap::new();
            for (n, value, what) in steps {
                if (what > 0) == growing {
                    let old = insert(&mut table, n, value);
                    prop_assert_eq!(old.map(|p| p.1), model.insert(n, value));
                } else {
                    let old = remove(&mut table, n);
                    prop_assert_eq!(old.map(|p| p.1), model.remove(&n));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            check_structure(&table);
            for n in 0..3000 {
                let found = table.get(table.hash_of(&key(n)), &key(n)).map(|p| p.1);
                prop_assert_eq!(found, model.get(&n).copied());
            }
        }

        #[test]
        fn a_scan_visits_what_stays_exactly_once(
            count in 1usize..50,
            changes in prop::collection::vec((1000u32..6000, any::<bool>()), 0..3000),
            seed in any::<u64>(),
        ) {
            let mut table = Table::in_shard(seed, 0);
            (0..1000).for_each(|n| { insert(&mut table, n, 0); });
            let mut visits = vec![0; 1000];
            let mut cursor = 0;
            let mut changes = changes.into_iter();
            loop {
                cursor = table.scan(cursor, count, &mut |pair| {
                    let n = u32::from_be_bytes(pair.0.as_slice().try_into().unwrap());
                    if n < 1000 {
                        visits[n as usize] += 1;
                    }
                });
                if cursor == 0 {
                    break;
                }
                for (n, add) in changes.by_ref().take(40) {
                    if add { insert(&mut table, n, 1); } else { remove(&mut table, n); }
                }
            }
            prop_assert!(visits.iter().all(|&n| n == 1), "{:?}", visits);
        }
    }

    #[test]
    fn memory_comes_back_after_a_large_table_empties() {
        let mut table = Table::new(1);
        (0..100_000).for_each(|n| {
            insert(&mut table, n, n);
        });
        let full = table.memory_bytes();
        (10..100_000).for_each(|n| {
            remove(&mut table, n);
        });
        check_structure(&table);
        assert!(table.memory_bytes() < full / 100, "{} of {full}", table.memory_bytes());
        (0..10).for_each(|n| {
            remove(&mut table, n);
        });
        assert_eq!(table.memory_bytes(), 0);
    }

    #[test]
    fn no_insert_moves_more_than_one_segment() {
        let mut table = Table::new(3);
        let mut segments = 0;
        for n in 0..200_000 {
            insert(&mut table, n, n);
            assert!(
                table.segments.len() <= segments + 2,
                "{} after {segments}",
                table.segments.len()
            );
            segments = table.segments.len();
            assert!(table.segments.last().unwrap().elements.len() <= LEN_MAX);
        }
    }

    #[test]
    fn keys_of_one_shard_spread_over_segments() {
        let mut table = Table::in_shard(5, 6);
        let mine = (0u32..).filter(|n| table.hash_of(&key(*n)) >> 58 == 9).take(5000);
        for n in mine.collect::<Vec<_>>() {
            insert(&mut table, n, n);
        }
        check_structure(&table);
        assert!(table.segments.len() >= 5000 / LEN_MAX);
        let mut seen = 0;
        assert_eq!(table.scan(0, usize::MAX, &mut |_| seen += 1), 0);
        assert_eq!(seen, 5000);
    }

    #[test]
    fn a_sample_is_of_different_elements_any_of_which_it_may_hold() {
        let mut rng = SeededRng::new(3);
        let mut table = Table::<Pair>::in_shard(1, 6);
        assert_eq!(table.sample(&mut rng, 5).count(), 0);
        for number in 0..2000_u32 {
            let pair = Pair(number.to_be_bytes().to_vec(), number);
            let hash = (table.hash_of(&pair.0) >> 6) | (7 << 58);
            table.insert(hash, pair);
        }
        let mut seen = vec![0; 2000];
        for _ in 0..4000 {
            let sample: Vec<u32> = table.sample(&mut rng, 10).map(|pair| pair.1).collect();
            let mut distinct = sample.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!((sample.len(), distinct.len()), (10, 10));
            sample.iter().for_each(|&number| seen[number as usize] += 1);
        }
        // 20 times each in the mean; a segment's first and last are as likely.
        assert!(seen.iter().all(|&times| times > 0), "{seen:?}");
        assert_eq!(table.sample(&mut rng, 5000).count(), 2000, "all there are, once");
    }

    #[test]
    fn random_is_uniform() {
        let mut table = Table::new(11);
        (0..1000).for_each(|n| {
            insert(&mut table, n, n);
        });
        let mut rng = SeededRng::new(5);
        let mut hits = vec![0u32; 1000];
        (0..200_000).for_each(|_| hits[table.random(&mut rng).unwrap().1 as usize] += 1);
        // 200 expected each, standard deviation 14.
        assert!(hits.iter().all(|&n| (120..290).contains(&n)), "{hits:?}");
    }
}
