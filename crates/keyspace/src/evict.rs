//! Taking values out of memory that a backing has.

use std::cmp::Reverse;

use base::Revision;
use entry::Entry;

use crate::backing::Backed;
use crate::garbage::Garbage;
use crate::shard::{Db, Keyspace, entry_bytes};
use crate::value::Value;

/// Entries looked at together, of which the least recently used ones go.
const SAMPLE: usize = 192;

/// The part of a sample that goes: one in so many.
const SAMPLE_SHARE: usize = 4;

/// Entries that one call looks at, about, so that clients do not wait long for
/// the shard.
const LOOKED_MAX: usize = 768;

/// What [`Keyspace::evict`] did.
#[derive(Debug, Default)]
pub struct Evicted {
    /// Keys that left memory.
    pub keys: u64,
    /// Heap bytes of them and their values.
    pub bytes: usize,
    /// Keys that were looked at.
    pub seen: u64,
    /// Those of them that could not go, changed later than the backing knows.
    pub too_new: u64,
    /// To be dropped off the lock and, if it is much, off this thread.
    pub garbage: Vec<Garbage>,
    /// Whether nothing is left that could go: the keys in memory were changed
    /// later than the backing knows, or most were and the others are in use.
    pub is_spent: bool,
}

impl Keyspace {
    /// Takes keys of one shard out of memory whose last change is not later
    /// than `upto`, which the backing has reached: least used ones of
    /// samples, of each database by its share of the memory, until about `bytes`
    /// are free, none is left, or some hundred entries were looked at; the next
    /// call goes on behind them. Does nothing without a backing, see
    /// [`Keyspace::back`].
    ///
    /// Keys removed after `upto` hold a database up that did not evict before:
    /// the backing still has them, and they were not remembered. Once it has
    /// reached their removal, evicting works.
    pub fn evict(&self, shard: usize, upto: Revision, bytes: usize) -> Evicted {
        self.evict_upto(shard, upto, bytes, |_| Some(upto))
    }

    /// As [`Keyspace::evict`], of keys of a branch that it has not changed
    /// itself. On main nothing goes.
    pub fn evict_inherited(&self, shard: usize, upto: Revision, bytes: usize) -> Evicted {
        self.evict_upto(shard, upto, bytes, |db| db.own.inherited_upto().map(|it| it.min(upto)))
    }

    fn evict_upto(
        &self,
        shard: usize,
        upto: Revision,
        bytes: usize,
        newest_of: impl Fn(&Db) -> Option<Revision>,
    ) -> Evicted {
        let mut evicted = Evicted { is_spent: true, ..Evicted::default() };
        let Some(backing) = self.backing().lock().clone() else { return evicted };
        let (accesses, clock) = (self.accesses(), self.access_clock());
        let disuse = |entry: &Entry<Value>| accesses.disuse(entry.access(), clock);
        let mut guard = self.lock(shard);
        let all_bytes: usize = guard.dbs.iter().map(|db| db.entry_bytes).sum();
        for db in &mut guard.dbs {
            let Some(newest) = newest_of(db).filter(|_| !db.table.is_empty()) else { continue };
            let count = self.backed_count();
            let backed = db.backed.get_or_insert_with(|| {
                Box::new(Backed::everything_loaded(backing.clone(), self.seed(), count))
            });
            backed.remember_removals();
            if db.forgotten_removal <= upto {
                let part = db.entry_bytes as f64 / all_bytes as f64;
                let wanted = ((bytes as f64 * part) as usize).max(1);
                let goal = evicted.bytes.saturating_add(wanted);
                evicted.is_spent &= db.evict((upto, newest), goal, &disuse, &mut evicted);
            }
            self.recount(shard, db);
        }
        evicted
    }
}

impl Db {
    /// Answers whether nothing is left that could go: of what was changed by
    /// `newest`, which is not later than what the backing has reached.
    fn evict(
        &mut self,
        (upto, newest): (Revision, Revision),
        goal: usize,
        disuse: &dyn Fn(&Entry<Value>) -> u32,
        evicted: &mut Evicted,
    ) -> bool {
        let mut looked = 0;
        while !self.table.is_empty() {
            let backed = self.backed.as_mut().expect("only backed databases evict");
            if backed.looked_in_vain.0 != upto {
                backed.looked_in_vain = (upto, 0);
            }
            if backed.looked_in_vain.1 > self.table.len() {
                return true;
            }
            if evicted.bytes >= goal || looked >= LOOKED_MAX {
                return false;
            }
            let (mut seen, mut sample) = (0, Vec::new());
            // Hash order is as good as chance, and neighbours share a bucket.
            backed.hand = self.table.scan(backed.hand, SAMPLE, &mut |entry| {
                seen += 1;
                if Revision(entry.revision()) <= newest {
                    // Once is no habit: else every key that is read once would drive
                    // one out that is read all the time.
                    let habit = entry.heat().saturating_sub(1);
                    let rank = (habit, Reverse(disuse(entry)));
                    sample.push((rank, entry.key().to_vec()));
                }
            });
            looked += seen.max(1);
            evicted.seen += seen as u64;
            evicted.too_new += (seen - sample.len()) as u64;
            // Where most is newer than the backing, its next state frees enough:
            // what is in use need not go.
            if sample.len() * 2 < seen {
                sample.retain(|((habit, _), _)| *habit == 0);
            }
            let share = sample.len().div_ceil(SAMPLE_SHARE);
            if share == 0 {
                backed.looked_in_vain.1 += seen.max(1);
                continue;
            }
            backed.looked_in_vain.1 = 0;
            // Habits last as long as there is enough without one.
            if sample.iter().filter(|((habit, _), _)| *habit == 0).count() < share {
                for (_, key) in &sample {
                    self.table.get(self.table.hash_of(key), key).iter().for_each(|e| e.cool());
                }
            }
            sample.select_nth_unstable_by_key(share - 1, |&(rank, _)| rank);
            for (_, key) in &sample[..share] {
                if evicted.bytes >= goal {
                    return false;
                }
                self.evict_key(key, evicted);
            }
        }
        true
    }

    fn evict_key(&mut self, key: &[u8], evicted: &mut Evicted) {
        let hash = self.table.hash_of(key);
        let old = self.table.remove(hash, key).expect("just seen");
        let bytes = entry_bytes(&old);
        self.entry_bytes -= bytes;
        self.own.went(&old);
        self.own.note_away(hash, old.revision());
        // The deadline stays in the index: the key is due then all the same.
        self.backed.as_mut().expect("only backed databases evict").note_evicted(hash);
        evicted.keys += 1;
        evicted.bytes += bytes;
        evicted.garbage.extend(Entry::into_boxed(old).map(Garbage::Value));
    }
}
