//! Keys put in and taken out as they are, for keyspaces that past states are
//! worked out in, and those that a command is tried on.

use base::{DbIndex, Revision};
use entry::{Content, Entry};
use smallvec::SmallVec;

use crate::backing::{BackingError, Stored, entry_of};
use crate::event::class;
use crate::shard::{Keyspace, SHARDS, entry_bytes, string_of};
use crate::txn::{KeyInfo, Txn, info_bytes};
use crate::value::{Value, ValueRef};

impl Keyspace {
    /// Puts a key in as it is, over any that is there. No change is recorded:
    /// this is for keyspaces that [`Keyspace::apply`] works out a past state in.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn give(&self, db: DbIndex, key: &[u8], stored: Stored) {
        self.give_entry(db, entry_of(key, stored, self.access_clock()));
    }

    /// Brings a key into memory which the caller has read in the backing's place,
    /// unless it is there, or known to be missing, by now.
    ///
    /// # Errors
    /// When the backing has no more keys.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn bring(&self, db: DbIndex, key: &[u8], stored: Stored) -> Result<(), BackingError> {
        let (index, hash) = self.locate(key);
        let access = self.access_clock();
        let mut shard = self.lock(index);
        let db = &mut shard.dbs[usize::from(db)];
        let brought = db.bring(hash, key, stored, access);
        self.recount(index, db);
        brought
    }

    fn give_entry(&self, db: DbIndex, entry: Entry<Value>) {
        let (index, hash) = self.locate(entry.key());
        let mut shard = self.lock(index);
        let db = &mut shard.dbs[usize::from(db)];
        let old = db.insert(hash, entry);
        self.recount(index, db);
        drop(shard);
        drop(old);
    }

    /// Takes a key out, from memory or from the backing. As
    /// [`Keyspace::give`], this records nothing.
    ///
    /// # Errors
    /// When the backing cannot be read.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn take(&self, db: DbIndex, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        let (index, hash) = self.locate(key);
        let access = self.access_clock();
        let mut shard = self.lock(index);
        let db = &mut shard.dbs[usize::from(db)];
        db.load(hash, key, access)?;
        let entry = db.remove(hash, key, Revision::ZERO);
        self.recount(index, db);
        drop(shard);
        Ok(entry.map(|entry| {
            let (deadline, revision) = (entry.deadline(), Revision(entry.revision()));
            let value = match entry.content() {
                Content::Inline(bytes) => Value::Str(bytes.to_vec()),
                Content::Boxed(_) => *entry.into_boxed().expect("it is boxed"),
            };
            Stored { value, deadline, revision }
        }))
    }
}

/// States as wholes. No change is recorded.
impl Keyspace {
    /// Removes every key of a database, whatever a backing has of it.
    ///
    /// # Panics
    /// When there is no such database.
    pub fn clear(&self, db: DbIndex) {
        for index in 0..SHARDS {
            let mut shard = self.lock(index);
            let space = shard.fresh_space(db, Revision::ZERO);
            let cleared = shard.flush(db, space, false);
            self.recount(index, &mut shard.dbs[usize::from(db)]);
            drop(shard);
            drop(cleared);
        }
    }

    /// Takes over the keys that another keyspace has in memory, as far as it has
    /// none of these names itself.
    ///
    /// # Panics
    /// When the other has more databases.
    pub fn absorb(&self, other: &Keyspace) {
        for index in 0..SHARDS {
            let mut theirs = other.lock(index);
            for (db, theirs) in theirs.dbs.iter_mut().enumerate() {
                for entry in theirs.drain() {
                    let (index, hash) = self.locate(entry.key());
                    let mut shard = self.lock(index);
                    let ours = &mut shard.dbs[db];
                    if ours.table.get(hash, entry.key()).is_none() {
                        ours.insert(hash, entry);
                        self.recount(index, ours);
                    }
                }
                other.recount(index, theirs);
            }
        }
    }

    /// Itself, if it hashes as another one does, else its keys in memory in a
    /// keyspace that does.
    #[must_use]
    pub fn hashed_as(self, other: &Keyspace) -> Keyspace {
        if self.seed() == other.seed() {
            return self;
        }
        let keyspace = other.empty_like();
        keyspace.absorb(&self);
        keyspace
    }
}

impl Txn<'_> {
    /// Puts a copy of a key, if there is one, due or not, into the same database
    /// of another transaction's keyspace, which must be made by
    /// [`Keyspace::empty_like`], with all that is known of the key. Answers what
    /// [`Txn::look_closely`] does. Not an access, and recorded by neither. `hash`
    /// is the key's [`Txn::hash_of`].
    ///
    /// # Errors
    /// What it takes in memory, if that is more than `left`. Else it is taken off.
    ///
    /// # Panics
    /// When one of the two has not locked the key's shard.
    pub fn copy_to(
        &self,
        db: DbIndex,
        hash: u64,
        key: &[u8],
        other: &mut Txn<'_>,
        left: &mut u64,
    ) -> Result<Option<(ValueRef<'_>, KeyInfo)>, u64> {
        let index = Keyspace::shard_of_hash(hash);
        let Some(entry) = self.lookup(db, index, hash, key) else { return Ok(None) };
        let bytes = entry_bytes(entry) as u64;
        *left = left.checked_sub(bytes).ok_or(bytes)?;
        let deadline = entry.deadline();
        let mut copy = match entry.content() {
            Content::Inline(bytes) => Entry::inline(key, bytes, deadline),
            Content::Boxed(value) => {
                Entry::boxed(key, Box::new(value.as_ref().to_shared()), deadline)
            }
        };
        copy.set_access(entry.access());
        copy.set_marked(entry.marked());
        copy.set_revision(entry.revision());
        other.shard_mut(index).dbs[usize::from(db)].insert(hash, copy);
        other.changed(index, db);
        Ok(self.seen_closely(db, hash, entry))
    }

    /// What [`Txn::set_string`] without a deadline finds at a key of the current
    /// database, and the bytes of memory that it makes of it. Nothing is changed;
    /// the events are announced. `hash` is the key's [`Txn::hash_of`].
    ///
    /// # Panics
    /// When the key's shard is not locked.
    pub fn try_set_string(
        &self,
        hash: u64,
        key: &[u8],
        value: &[u8],
    ) -> (Option<(ValueRef<'_>, KeyInfo)>, usize) {
        let entry = self.lookup(self.db(), Keyspace::shard_of_hash(hash), hash, key);
        let old = entry.and_then(|entry| self.seen_closely(self.db(), hash, entry));
        if entry.is_some() && old.is_none() {
            self.notify(class::EXPIRED, "expired", key);
        }
        if old.is_none() {
            self.notify(class::NEW, "new", key);
        }
        (old, info_bytes(&string_of(key, value, None)))
    }

    /// Removes, unrecorded, every key that stands where this transaction has
    /// changed anything: all there are, if there was none when it began and no
    /// database was swapped or flushed. The memory of tables is kept.
    pub fn clear_changed(&mut self) {
        let changed: SmallVec<[(usize, DbIndex); 8]> = self.changed_parts().collect();
        for (shard, db) in changed {
            self.shard_mut(shard).dbs[usize::from(db)].empty();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::types::Set;
    use crate::{Buffers, EncodingLimits, Journal, Scope, TxnOptions};

    #[test]
    fn a_key_comes_out_as_it_went_in() {
        let keyspace = Keyspace::new(2, 1);
        let mut set = Set::new(1);
        set.add(b"member", &crate::EncodingLimits::default());
        let values = [Value::Str(b"short".to_vec()), Value::Str(vec![7; 5000]), Value::Set(set)];
        for (value, deadline) in values.into_iter().zip([None, Some(9), Some(u64::MAX)]) {
            let expected = format!("{value:?}");
            // Over one that is there.
            let old = Stored { value: Value::Str(Vec::new()), deadline, revision: Revision(1) };
            keyspace.give(1, b"k", old);
            keyspace.give(1, b"k", Stored { value, deadline, revision: Revision(5) });
            assert!(keyspace.take(0, b"k").expect("nothing is backed").is_none());
            let stored = keyspace.take(1, b"k").expect("nothing is backed").expect("there");
            assert_eq!(format!("{:?}", stored.value), expected);
            assert_eq!((stored.deadline, stored.revision), (deadline, Revision(5)));
            assert!(keyspace.take(1, b"k").expect("nothing is backed").is_none());
        }
        assert_eq!(keyspace.statistics(), []);
    }

    /// Gives revisions and keeps nothing.
    struct Numbers(AtomicU64);

    impl Journal for Numbers {
        fn reserve(&self) -> Revision {
            Revision(self.0.fetch_add(1, Ordering::Relaxed) + 1)
        }

        fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
    }

    #[test]
    fn a_copy_is_all_that_the_key_is() {
        let (keyspace, journal, limits) =
            (Keyspace::new(2, 1), Numbers(AtomicU64::new(6)), EncodingLimits::default());
        let (other, mut buffers) = (keyspace.empty_like(), Buffers::default());
        let options = TxnOptions { now_ms: 50_000, touch: true, ..TxnOptions::quiet(&limits) };
        let mut txn = Txn::begin(&keyspace, &Scope::All, &journal, &mut buffers, options);
        txn.select(1);
        txn.set_string(b"short", b"x", Some(90_000));
        txn.set_string(b"long", &[7; 5000], None);
        txn.set_string(b"due", b"x", Some(50_000));
        let keys: [&[u8]; 2] = [b"short", b"long"];
        let mut left = 6000;
        let (numbers, mut copied) = (Numbers(AtomicU64::new(70)), Buffers::default());
        let mut copies = Txn::begin(&other, &Scope::All, &numbers, &mut copied, options);
        copies.select(1);
        let copy = |copies: &mut Txn<'_>, key: &[u8], left: &mut u64| {
            let copied = txn.copy_to(1, txn.hash_of(key), key, copies, left);
            copied.map(|told| told.map(|(value, info)| (format!("{value:?}"), info)))
        };
        for key in [keys[0], keys[1], b"none"] {
            let told = txn.look_closely(1, key).map(|(value, info)| (format!("{value:?}"), info));
            assert_eq!(copy(&mut copies, key, &mut left), Ok(told));
        }
        assert!((5000..6000).contains(&(6000 - left)), "{left} bytes are left");
        let refused = copy(&mut copies, b"due", &mut 10).expect_err("10 bytes are too few");
        assert!((11..100).contains(&refused), "{refused}");
        // It is copied, and told of nobody.
        assert_eq!(copy(&mut copies, b"due", &mut left), Ok(None));
        for key in keys {
            assert!(copies.look(key).expect("copied").is_same(txn.look(key).expect("there")));
            let known = |txn: &Txn<'_>| {
                let info = txn.info(key).expect("there");
                (info.revision, info.deadline, info.access, info.is_raw)
            };
            assert_eq!(known(&copies), known(&txn));
        }
        // What was copied and what was made besides go alike, and tell nobody.
        assert!(copies.look(b"due").is_none());
        assert_eq!(copies.size_of(1).1, 3);
        assert_eq!(copies.size_of(0), (0, 0));
        assert_eq!(txn.size_of(1).1, 3);
        copies.select(0);
        copies.set_string(b"made", b"x", Some(60_000));
        let effects = copies.effects().len();
        copies.clear_changed();
        assert_eq!((copies.size_of(0).1, copies.size_of(1).1), (0, 0));
        assert_eq!(copies.effects().len(), effects);
        drop(copies);
        assert_eq!(other.statistics(), []);
        // It can be used again.
        let mut copies = Txn::begin(&other, &Scope::All, &numbers, &mut copied, options);
        copies.select(1);
        copy(&mut copies, keys[1], &mut 6000).expect("there is room");
        assert!(copies.look(keys[1]).is_some() && copies.look(keys[0]).is_none());
    }
}
