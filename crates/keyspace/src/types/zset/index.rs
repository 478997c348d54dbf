//! From a member's hash to its number.
//!
//! Linear hashing (Litwin, 1980) over small tables: when members outgrow the
//! tables, one table is split, so no insertion ever moves more than one
//! table's numbers, however large the set is.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::types::SHARED_BYTES;

/// Members per table, on average, above which a table is split. A table half
/// of which has just moved away then fits 2048 buckets.
const SPLIT_AT: usize = 1750;

/// Members per table, on average, below which two tables become one.
const MERGE_AT: usize = SPLIT_AT / 4;

/// Numbers by hash. Whoever calls knows how to hash and compare them. Copies
/// share the tables that none of them has changed.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Table `t` of `n` holds the hashes that [`table_of`] gives `t`.
    tables: Vec<Arc<HashTable<u32>>>,
    len: usize,
    /// Heap bytes of the tables' allocations, which a copy of one has as well.
    bytes: usize,
}

impl Default for Index {
    fn default() -> Index {
        Index { tables: vec![Arc::default()], len: 0, bytes: 0 }
    }
}

/// The table out of `count` that a hash belongs to.
fn table_of(hash: u64, count: usize) -> usize {
    // A table uses the lowest bits and the highest seven itself.
    let bits = (hash >> 24) as usize;
    let power = count.next_power_of_two();
    let table = bits & (power - 1);
    if table < count { table } else { bits & (power / 2 - 1) }
}

/// The table that table `new` was or will be split from.
fn parent_of(new: usize) -> usize {
    new & !(1 << new.ilog2())
}

impl Index {
    pub(super) fn memory_bytes(&self) -> usize {
        let of_table = SHARED_BYTES + size_of::<HashTable<u32>>();
        self.bytes
            + self.tables.len() * of_table
            + self.tables.capacity() * size_of::<Arc<HashTable<u32>>>()
    }

    /// Makes every table this index's own.
    pub(super) fn unshare(&mut self) {
        self.tables.iter_mut().for_each(|table| _ = Arc::make_mut(table));
    }

    #[cfg(test)]
    pub(super) fn check(&self, hash_of: impl Fn(u32) -> u64) {
        assert_eq!(
            self.bytes,
            self.tables.iter().map(|table| table.allocation_size()).sum::<usize>()
        );
        assert_eq!(self.len, self.tables.iter().map(|table| table.len()).sum::<usize>());
        for (at, table) in self.tables.iter().enumerate() {
            assert!(table.iter().all(|&id| table_of(hash_of(id), self.tables.len()) == at));
        }
    }

    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let table = &self.tables[table_of(hash, self.tables.len())];
        table.find(hash, |&id| is_it(id)).copied()
    }

    /// Adds a number that is not there.
    pub(super) fn insert(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        if self.len >= self.tables.len() * SPLIT_AT {
            self.split(&hash_of);
        }
        let at = table_of(hash, self.tables.len());
        let table = Arc::make_mut(&mut self.tables[at]);
        self.bytes -= table.allocation_size();
        table.insert_unique(hash, id, |&id| hash_of(id));
        self.bytes += table.allocation_size();
        self.len += 1;
    }

    /// Takes out a number that is there.
    pub(super) fn remove(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        let at = table_of(hash, self.tables.len());
        let table = Arc::make_mut(&mut self.tables[at]);
        self.bytes -= table.allocation_size();
        table.find_entry(hash, |&other| other == id).expect("the member is indexed").remove();
        if table.capacity() > 8 * table.len().max(4) {
            table.shrink_to(2 * table.len(), |&id| hash_of(id));
        }
        self.bytes += table.allocation_size();
        self.len -= 1;
        if self.tables.len() > 1 && self.len < self.tables.len() * MERGE_AT {
            self.merge(&hash_of);
        }
    }

    /// A member that was number `from` is number `to` from now on.
    pub(super) fn renumber(&mut self, hash: u64, from: u32, to: u32) {
        let at = table_of(hash, self.tables.len());
        let id = Arc::make_mut(&mut self.tables[at]).find_mut(hash, |&id| id == from);
        *id.expect("the member is indexed") = to;
    }

    fn split(&mut self, hash_of: impl Fn(u32) -> u64) {
        let new = self.tables.len();
        let count = new + 1;
        let old = Arc::make_mut(&mut self.tables[parent_of(new)]);
        self.bytes -= old.allocation_size();
        let moves = |&mut id: &mut u32| table_of(hash_of(id), count) == new;
        let moved: Vec<u32> = old.extract_if(moves).collect();
        old.shrink_to(old.len(), |&id| hash_of(id));
        let mut table = HashTable::with_capacity(moved.len());
        for id in moved {
            table.insert_unique(hash_of(id), id, |&id| hash_of(id));
        }
        self.bytes += old.allocation_size() + table.allocation_size();
        self.tables.push(Arc::new(table));
    }

    fn merge(&mut self, hash_of: impl Fn(u32) -> u64) {
        let last = self.tables.pop().expect("there are two tables at least");
        let parent = parent_of(self.tables.len());
        let table = Arc::make_mut(&mut self.tables[parent]);
        self.bytes -= last.allocation_size() + table.allocation_size();
        for &id in last.iter() {
            table.insert_unique(hash_of(id), id, |&id| hash_of(id));
        }
        self.bytes += table.allocation_size();
        if self.tables.capacity() > 4 * self.tables.len() {
            self.tables.shrink_to(2 * self.tables.len());
        }
    }
}
