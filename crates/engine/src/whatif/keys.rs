//! The keys that a command is tried on: what they are before, the copies, and
//! what became of them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use base::DbIndex;
use command::{Error, Result};
use keyspace::{AsItIs, Txn, ValueRef, class};

use super::report::{Report, Version};
use crate::history::events;

/// A key and its database.
pub(super) type Place<'p> = (DbIndex, Cow<'p, [u8]>);

/// See the module's description.
#[derive(Default)]
pub(super) struct Keys<'k> {
    keys: Vec<Held<'k>>,
    /// Where each stands, by its hash, or one of the next numbers if another has
    /// the same.
    known: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
}

struct Held<'k> {
    db: DbIndex,
    key: &'k [u8],
    hash: u64,
    /// What it is before.
    old: Option<Version<'k>>,
    is_told: bool,
}

impl<'k> Keys<'k> {
    fn with_room_for(count: usize) -> Keys<'k> {
        let mut keys = Keys { keys: Vec::with_capacity(count), ..Keys::default() };
        keys.known.reserve(count);
        keys
    }

    /// Copies those of the keys that exist, due or not. They must have been
    /// brought into memory.
    pub(super) fn copy(
        txn: &'k Txn<'_>,
        places: &'k [Place<'_>],
        bytes_max: u64,
        copies: &mut Txn<'_>,
    ) -> Result<Keys<'k>> {
        let mut keys = Keys::with_room_for(places.len());
        let mut left = bytes_max;
        for (db, key) in places {
            let hash = txn.hash_of(key);
            let (at, is_new) = keys.find_or_add(*db, key, hash);
            if is_new {
                let copied = txn.copy_to(*db, hash, key, copies, &mut left);
                let copied = copied.map_err(|bytes| too_much(bytes_max - left + bytes, bytes_max));
                keys.keys[at].old = copied?.map(Version::from);
            }
        }
        Ok(keys)
    }

    /// Tells what becomes of keys of the current database that are made strings
    /// one after another: of two values for one key the last. Only what is there
    /// is looked up, and must have been brought into memory.
    pub(super) fn tell_strings(
        txn: &Txn<'_>,
        strings: impl ExactSizeIterator<Item = (&'k [u8], &'k [u8])>,
        report: &mut Report,
    ) {
        let mut values = Vec::with_capacity(strings.len());
        let mut keys = Keys::with_room_for(strings.len());
        for (key, value) in strings {
            let (at, is_new) = keys.find_or_add(txn.db(), key, txn.hash_of(key));
            match is_new {
                true => values.push(value),
                false => values[at] = value,
            }
        }
        for (Held { db, key, hash, .. }, value) in keys.keys.iter().zip(values) {
            let (old, bytes) = txn.try_set_string(*hash, key, value);
            txn.notify(class::STRING, "set", key);
            let new = Version { value: ValueRef::Str(value), deadline: None, bytes };
            report.note(*db, key, old.map(Version::from), Some(new));
        }
    }

    /// Where a key stands, and whether it did not until now.
    fn find_or_add(&mut self, db: DbIndex, key: &'k [u8], hash: u64) -> (usize, bool) {
        let mut number = hash;
        while let Some(&at) = self.known.get(&number) {
            if (self.keys[at].db, self.keys[at].key) == (db, key) {
                return (at, false);
            }
            number = number.wrapping_add(1);
        }
        self.known.insert(number, self.keys.len());
        self.keys.push(Held { db, key, hash, old: None, is_told: false });
        (self.keys.len() - 1, true)
    }

    /// Tells of the keys that were written, in that order.
    pub(super) fn tell(
        mut self,
        txn: &'k Txn<'_>,
        copies: &'k Txn<'_>,
        report: &mut Report,
    ) -> Result {
        let mut last: Option<(DbIndex, &[u8])> = None;
        let mut next = 0;
        let revision = report.revision;
        events::read_effects(revision, copies.first_db(), copies.effects(), &mut |touch| {
            let Some(key) = touch.key else { return Ok(()) };
            // Effects on one key follow each other, and name it once.
            if last.is_some_and(|(db, last)| db == touch.db && std::ptr::eq(last, key)) {
                return Ok(());
            }
            last = Some((touch.db, key));
            // Mostly keys are written in the order in which they are named.
            let is_next = |held: &Held<'_>| (held.db, held.key) == (touch.db, key);
            let at = match self.keys.get(next) {
                Some(held) if is_next(held) => next,
                _ => {
                    let hash = txn.hash_of(key);
                    let (at, is_new) = self.find_or_add(touch.db, key, hash);
                    if is_new {
                        let old = txn.look_closely_at(touch.db, hash, key);
                        self.keys[at].old = old.map(Version::from);
                    }
                    at
                }
            };
            next = at + 1;
            let held = &mut self.keys[at];
            if !std::mem::replace(&mut held.is_told, true) {
                let new = copies.look_closely_at(held.db, held.hash, key).map(Version::from);
                report.note(held.db, key, held.old, new);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Tells of every key that there was before, or is now, by database.
    pub(super) fn tell_all(self, copies: &mut Txn<'_>, report: &mut Report) -> Result {
        let mut olds: Vec<(Place<'_>, Option<Version<'_>>)> = Vec::new();
        olds.extend(self.keys.iter().map(|held| ((held.db, Cow::Borrowed(held.key)), held.old)));
        for db in 0..copies.databases() {
            copies.select(db);
            copies.scan(0, usize::MAX, &mut |key, _| {
                olds.push(((db, Cow::Owned(key.to_vec())), None));
            })?;
        }
        // Of two that are the same, the one that was there stays the first.
        olds.sort_by(|(a, _), (b, _)| a.cmp(b));
        olds.dedup_by(|(later, _), (earlier, _)| later == earlier);
        for ((db, key), old) in &olds {
            report.note(*db, key, *old, Version::of(copies, *db, key));
        }
        Ok(())
    }
}

/// Whether databases were flushed or swapped as a whole.
pub(super) fn is_about_databases(copies: &Txn<'_>, report: &Report) -> Result<bool> {
    let mut is_about_them = false;
    events::read_effects(report.revision, copies.first_db(), copies.effects(), &mut |touch| {
        is_about_them |= touch.key.is_none();
        Ok(())
    })?;
    Ok(is_about_them)
}

pub(super) fn too_much(bytes: u64, max: u64) -> Error {
    Error::new(format!(
        "ERR WHATIF would copy {bytes} bytes or more of values, whatif-max-bytes is {max}; name fewer keys, or raise \
         it with CONFIG SET"
    ))
}
