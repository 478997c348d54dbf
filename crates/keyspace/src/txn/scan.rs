//! Looks at keys that nobody named: SCAN, KEYS, RANDOMKEY. What they look at
//! they bring into memory first, a bucket at a time; of a database that evicts,
//! of what a branch inherits and of the past it only passes through.

use base::Rng;

use super::{Locked, Txn};
use crate::backing::{BackingError, Met, Seen};
use crate::shard::{Db, SHARDS, value_of};
use crate::table::{POSITION_BITS, POSITION_END};
use crate::value::ValueRef;

/// Keys that a look for one at random sees at once, about.
const RANDOM_KEYS: usize = 64;

/// Sees a key, its value and its deadline.
pub type Look<'l> = dyn FnMut(&[u8], ValueRef<'_>, Option<u64>) + 'l;

impl Txn<'_> {
    /// Visits the keys of the current database that exist, about `count` of
    /// them from `cursor` on (0: the beginning), and answers the next cursor
    /// (0: the end). A key present from the first call to the last is visited.
    /// Cursors stay below 2^53, which programs that keep numbers as doubles
    /// rely on.
    ///
    /// # Errors
    /// When the backing cannot be read; some keys may have been visited then.
    pub fn scan(
        &mut self,
        cursor: u64,
        count: usize,
        visit: &mut dyn FnMut(&[u8], Seen<'_>),
    ) -> Result<u64, BackingError> {
        self.scan_entries(cursor, count, false, &mut |met| visit(met.key(), met.seen()))
    }

    /// As [`Txn::scan`], keys past their deadline included.
    ///
    /// # Errors
    /// As [`Txn::scan`].
    pub fn scan_with_due(
        &mut self,
        cursor: u64,
        count: usize,
        visit: &mut dyn FnMut(&[u8], Seen<'_>),
    ) -> Result<u64, BackingError> {
        let expire = std::mem::replace(&mut self.options.expire, false);
        let next = self.scan(cursor, count, visit);
        self.options.expire = expire;
        next
    }

    /// Visits every key of the current database that exists, with its value
    /// and deadline, however long that takes to read.
    ///
    /// # Errors
    /// When the backing cannot be read; some keys may have been visited then.
    pub fn visit_all(&mut self, visit: &mut Look<'_>) -> Result<(), BackingError> {
        let mut visit = |met: &Met<'_>| {
            if let Seen::Value(value) = met.seen() {
                visit(met.key(), value, met.deadline());
            }
        };
        self.scan_entries(0, usize::MAX, true, &mut visit).map(drop)
    }

    /// Visits every key of the current database that exists, with its deadline.
    ///
    /// # Errors
    /// As [`Txn::visit_all`].
    pub fn visit_names(
        &mut self,
        visit: &mut dyn FnMut(&[u8], Option<u64>),
    ) -> Result<(), BackingError> {
        let mut visit = |met: &Met<'_>| visit(met.key(), met.deadline());
        self.scan_entries(0, usize::MAX, false, &mut visit).map(drop)
    }

    fn scan_entries(
        &mut self,
        cursor: u64,
        count: usize,
        is_patient: bool,
        visit: &mut dyn FnMut(&Met<'_>),
    ) -> Result<u64, BackingError> {
        let mut shard = (cursor >> POSITION_BITS) as usize;
        let mut position = cursor & (POSITION_END - 1);
        let mut seen = 0;
        let (now_ms, expire) = (self.options.now_ms, self.options.expire);
        while shard < SHARDS {
            position = self.with_part(shard, |part, access| {
                let missing = count.saturating_sub(seen).max(1);
                part.meet(shard, position, (missing, access), is_patient, &mut |met| {
                    seen += 1;
                    if !(expire && met.is_due(now_ms)) {
                        visit(&met);
                    }
                })
            })?;
            if position == POSITION_END {
                position = 0;
                shard += 1;
            }
            if seen >= count && shard < SHARDS {
                return Ok(((shard as u64) << POSITION_BITS) | position);
            }
        }
        Ok(0)
    }

    /// Visits the keys of the current database that exist and are in memory.
    pub fn scan_resident(&self, visit: &mut dyn FnMut(&[u8], ValueRef<'_>)) {
        for shard in 0..SHARDS {
            self.with_shard(shard, |shard| {
                shard.dbs[usize::from(self.db)].table.scan(0, usize::MAX, &mut |entry| {
                    if !self.is_due(entry) {
                        visit(entry.key(), value_of(entry));
                    }
                });
            });
        }
    }

    /// Brings every key of the current database into memory.
    ///
    /// # Errors
    /// When the backing cannot be read.
    pub fn load_all(&mut self) -> Result<(), BackingError> {
        for shard in 0..SHARDS {
            let mut position = 0;
            while position < POSITION_END {
                position = self.with_part(shard, |part, access| {
                    part.load_at(shard, position, access, true)?;
                    Ok(part.loaded_until(position))
                })?;
            }
        }
        Ok(())
    }

    /// A key that exists, chosen at random; `None` when the current database
    /// is empty.
    ///
    /// # Errors
    /// When the backing cannot be read.
    pub fn random_key(&mut self, rng: &mut dyn Rng) -> Result<Option<Vec<u8>>, BackingError> {
        let db = usize::from(self.db);
        // Keys past their deadline may fill the database until the expiry
        // cycle has removed them, so the search by chance is bounded.
        for _ in 0..100 {
            let sizes: Vec<usize> =
                (0..SHARDS).map(|i| self.with_shard(i, |s| s.dbs[db].len())).collect();
            let total: usize = sizes.iter().sum();
            if total == 0 {
                return Ok(None);
            }
            let mut nth = rng.below(total as u64) as usize;
            let shard = sizes.iter().position(|&size| {
                let here = nth < size;
                nth = if here { nth } else { nth - size };
                here
            });
            let shard = shard.expect("the lot is below the sum");
            let resident = self.with_shard(shard, |s| s.dbs[db].table.len());
            let found = if nth < resident {
                self.random_resident(shard, rng)
            } else {
                self.random_unloaded(shard, rng)?
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        let mut first = None;
        self.scan(0, usize::MAX, &mut |key, _| {
            first.get_or_insert_with(|| key.to_vec());
        })?;
        Ok(first)
    }

    fn random_resident(&self, shard: usize, rng: &mut dyn Rng) -> Option<Vec<u8>> {
        self.with_shard(shard, |s| {
            let entry = s.dbs[usize::from(self.db)].table.random(rng)?;
            (!self.is_due(entry)).then(|| entry.key().to_vec())
        })
    }

    /// A key of the first bucket that is not loaded and not empty, from a
    /// random one on; `None` when there is none to be seen up to the end.
    fn random_unloaded(
        &mut self,
        shard: usize,
        rng: &mut dyn Rng,
    ) -> Result<Option<Vec<u8>>, BackingError> {
        let (now_ms, expire) = (self.options.now_ms, self.options.expire);
        let mut position = rng.below(POSITION_END);
        while position < POSITION_END {
            let mut keys = Vec::new();
            position = self.with_part(shard, |part, access| {
                let start = part.loaded_until(position);
                if start == POSITION_END {
                    return Ok(start);
                }
                part.meet(shard, start, (RANDOM_KEYS, access), false, &mut |met| {
                    if !(expire && met.is_due(now_ms)) {
                        keys.push(met.key().to_vec());
                    }
                })
            })?;
            if !keys.is_empty() {
                let lot = rng.below(keys.len() as u64) as usize;
                return Ok(Some(keys.swap_remove(lot)));
            }
        }
        Ok(None)
    }

    /// A look at the current database's part of a shard that may load, locked
    /// for the moment if the transaction holds no lock at all.
    fn with_part<R>(
        &mut self,
        index: usize,
        look: impl FnOnce(&mut Db, u32) -> Result<R, BackingError>,
    ) -> Result<R, BackingError> {
        let db = self.db;
        let access = self.keyspace.fresh_access(self.options.now_ms);
        if matches!(self.locked, Locked::None) {
            // Only here is a lock taken out of order, and no other is held.
            let mut shard = self.keyspace.lock(index);
            self.see(shard.last_revision);
            let part = &mut shard.dbs[usize::from(db)];
            let is_backed = part.backed.is_some();
            let result = look(part, access);
            if is_backed {
                self.keyspace.recount(index, part);
            }
            return result;
        }
        self.see(self.shard(index).last_revision);
        let part = &mut self.shard_mut(index).dbs[usize::from(db)];
        let is_backed = part.backed.is_some();
        let result = look(part, access);
        if is_backed {
            self.changed(index, db);
        }
        result
    }
}
