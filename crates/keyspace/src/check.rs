//! Recounting what transactions keep in step: sums, indices, places.

use std::collections::BTreeSet;

use crate::gauges::Counted;
use crate::shard::{Db, Keyspace, SHARDS, entry_bytes, value_of};

impl Keyspace {
    /// Recounts what every transaction keeps in step with its changes: memory
    /// sums, the deadline index, the shard of each key, and that no collection
    /// is empty. Locks one shard at a time; takes time in proportion to the
    /// number of keys.
    ///
    /// # Errors
    /// What does not agree, and where.
    pub fn check(&self) -> Result<(), String> {
        for index in 0..SHARDS {
            let shard = self.lock(index);
            let mut sum = Counted::default();
            for (number, db) in shard.dbs.iter().enumerate() {
                self.check_db(index, db)
                    .map_err(|what| format!("database {number}, shard {index}: {what}"))?;
                sum += db.count();
            }
            for db in shard.left.iter().flatten() {
                self.check_db(index, db)
                    .map_err(|what| format!("space {}, shard {index}: {what}", db.space))?;
                sum += db.count();
            }
            if !self.knows_deadlines(index, &shard) {
                return Err(format!("shard {index}: it has deadlines that are not noted"));
            }
            let gauges = self.slot_counts(index);
            if gauges != sum {
                return Err(format!("shard {index}: the gauges say {gauges:?}, it is {sum:?}"));
            }
        }
        Ok(())
    }

    fn check_db(&self, shard: usize, db: &Db) -> Result<(), String> {
        if let Some(what) = db.check_backed() {
            return Err(what);
        }
        if let Some(what) = db.own.check(db.table.iter()) {
            return Err(what);
        }
        let (mut keys, mut bytes, mut deadlines) = (0, 0, BTreeSet::new());
        for entry in db.table.iter() {
            let key = entry.key().escape_ascii();
            let (home, hash) = self.locate(entry.key());
            if home != shard {
                return Err(format!("key \"{key}\" belongs to shard {home}"));
            }
            if db.table.get(hash, entry.key()).is_none() {
                return Err(format!("key \"{key}\" cannot be found"));
            }
            if value_of(entry).element_count() == 0 {
                return Err(format!("the collection at \"{key}\" is empty"));
            }
            keys += 1;
            bytes += entry_bytes(entry);
            deadlines.extend(entry.deadline().map(|at| (at, hash)));
        }
        if keys != db.table.len() {
            return Err(format!("the table counts {} keys, it holds {keys}", db.table.len()));
        }
        if bytes != db.entry_bytes {
            return Err(format!("entries count as {} bytes, they have {bytes}", db.entry_bytes));
        }
        // The index also names keys that were evicted.
        let evicted = db.deadlines.difference(&deadlines).count() as u64;
        if !deadlines.is_subset(&db.deadlines) || evicted > db.unloaded_keys() {
            return Err(format!(
                "the index has {} deadlines, the keys {}",
                db.deadlines.len(),
                deadlines.len()
            ));
        }
        Ok(())
    }
}
