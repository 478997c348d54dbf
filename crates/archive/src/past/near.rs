//! What a large collection or a counter was, made from what it is now.
//!
//! To put one together from the base takes as long as it has elements. Mostly
//! few of them have changed since a moment that somebody asks for: then these
//! are read by their names, as they were, and put back in a copy of the present.
//! From a counter, what has been added since is taken away again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use base::number::parse_i64;
use base::{BranchId, DbIndex, Revision, SpaceId};
use keyspace::{EncodingLimits, Stored, Value};

use super::Past;
use super::error::PastError;
use super::key::{Name, of_branch};
use super::source::Source;
use super::trace;
use crate::history::{DATABASE_WIDE, key_hash};

/// To read an element alone, and the record that changed it, costs what so many
/// cost that are read with all others.
const ELEMENT_COST: usize = 16;

/// How many elements of a collection may have changed if it is to pay to make it
/// what it was from what it is.
#[must_use]
pub fn changes_max(present: &Stored) -> usize {
    present.value.as_ref().element_count() / ELEMENT_COST
}

impl Past {
    /// As [`Past::key`], of a key of which a branch has `present` now, best as a
    /// shared copy: it is made from that. `None` if more than `max` elements have
    /// changed, or anything else than elements by their names.
    ///
    /// # Errors
    /// As [`Past::view`].
    pub fn key_from(
        &self,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
        present: Stored,
        max: usize,
    ) -> Result<Option<Stored>, PastError> {
        self.source.reach(revision)?;
        // Whatever may have made it what it is.
        let newest = self.source.log.buffered();
        self.source.know(newest)?;
        let changed = revision..newest;
        let names = self.changed_elements(branch, changed, (db, key), present.revision, max)?;
        let Some(names) = names else { return Ok(None) };
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let then = self.key(branch, revision, db, key, Some(&names))?;
        Ok(then.and_then(|then| put_back(present.value, &names, then, &self.source.limits)))
    }

    /// As [`Past::key_from`], of a key of a space of which a branch's database has
    /// `present` now, if it still stands there.
    ///
    /// # Errors
    /// As [`Past::view`].
    pub fn key_of_space(
        &self,
        space: SpaceId,
        revision: Revision,
        key: &[u8],
        present: Stored,
    ) -> Result<Option<Stored>, PastError> {
        let directory = self.source.base.directory();
        let Some(database) = directory.databases.iter().find(|it| it.space == space) else {
            return Ok(None);
        };
        let max = changes_max(&present);
        self.key_from(database.branch, revision, database.db, key, present, max)
    }

    /// The elements that a branch has changed of a key after a revision, up to
    /// another, if nothing else was done to the key, nor to databases since.
    fn changed_elements(
        &self,
        branch: BranchId,
        Range { start: after, end: newest }: Range<Revision>,
        (db, key): (DbIndex, &[u8]),
        upto: Revision,
        max: usize,
    ) -> Result<Option<BTreeSet<Vec<u8>>>, PastError> {
        let source = &self.source;
        let _layout = source.layout.read();
        // Else it may be what stood in another database then.
        if source.history.records(DATABASE_WIDE, after, newest).next().transpose()?.is_some() {
            return Ok(None);
        }
        let mut names = BTreeSet::new();
        for (count, hit) in source.history.records(key_hash(key), after, upto).enumerate() {
            let are_elements = of_branch(source, branch, hit?, &mut |record| {
                trace::elements(record.effects, record.header.db, (db, key), &mut names)
            })?;
            if count >= max || names.len() > max || are_elements == Some(false) {
                return Ok(None);
            }
        }
        // Of what a tag keeps the state only, records may be missing.
        Ok(source.keeps(after).is_ok().then_some(names))
    }
}

/// Records with increments of a counter up to which it is made from what it is now.
const INCREMENTS_MAX: usize = 1024;

/// What was added, to a string or to fields.
type Added = BTreeMap<Option<Vec<u8>>, i64>;

/// A key at a revision, whose `last` change before that is known, made from what a
/// branch has now; `None` if anything else was done since than to add to it or to
/// its fields, or that too often.
pub(super) fn counter(
    source: &Source,
    branch: BranchId,
    (revision, last): (Revision, Revision),
    name: &Name<'_>,
    present: Stored,
) -> Result<Option<Stored>, PastError> {
    // Whatever may have made it what it is.
    let newest = source.log.buffered();
    source.know_soon(newest, name.is_hasty)?;
    let _layout = source.layout.read();
    if source.history.records(DATABASE_WIDE, revision, newest).next().transpose()?.is_some() {
        return Ok(None);
    }
    let mut added = Added::new();
    let since = source.history.records(key_hash(name.key), revision, present.revision);
    for (count, hit) in since.enumerate() {
        let is_added = count < INCREMENTS_MAX
            && of_branch(source, branch, hit?, &mut |record| {
                let mut fits = true;
                let mut add = |field: Option<&[u8]>, delta| {
                    let sum = added.entry(field.map(<[u8]>::to_vec)).or_default();
                    let more = sum.checked_add(delta);
                    fits &= more.is_some();
                    *sum = more.unwrap_or_default();
                };
                let place = (name.db, name.key);
                let only = trace::added(record.effects, record.header.db, place, &mut add)?;
                Ok(only && fits)
            })? != Some(false);
        if !is_added {
            return Ok(None);
        }
    }
    source.keeps(revision)?;
    let Stored { value, deadline, .. } = present;
    let value = without(value, &added, &source.limits);
    Ok(value.map(|value| Stored { value, deadline, revision: last }))
}

/// What a counter was before this was added. Of a field that was 0 it is not known
/// whether it was there: `None`.
fn without(mut value: Value, added: &Added, limits: &EncodingLimits) -> Option<Value> {
    let before = |now: &[u8], added| parse_i64(now)?.checked_sub(added);
    for (field, &added) in added {
        match (&mut value, field) {
            (Value::Str(text), None) => {
                *text = before(text, added)?.to_string().into_bytes();
            }
            (Value::Hash(hash), Some(field)) => {
                let number = before(hash.get(field)?, added).filter(|&number| number != 0)?;
                hash.set(field, number.to_string().as_bytes(), limits);
            }
            _ => return None,
        }
    }
    Some(value)
}

/// Makes some elements of a collection what they were `then`, of which the others
/// need not be there. `None` if it was of another type.
fn put_back(
    mut value: Value,
    names: &[&[u8]],
    then: Stored,
    limits: &EncodingLimits,
) -> Option<Stored> {
    match (&mut value, &then.value) {
        (Value::Hash(now), Value::Hash(then)) => {
            for field in names {
                match then.get(field) {
                    Some(value) => _ = now.set(field, value, limits),
                    None => _ = now.remove(field),
                }
            }
        }
        (Value::Set(now), Value::Set(then)) => {
            for member in names {
                _ = if then.contains(member) {
                    now.add(member, limits)
                } else {
                    now.remove(member)
                };
            }
        }
        (Value::Zset(now), Value::Zset(then)) => {
            for member in names {
                match then.score(member) {
                    Some(score) => _ = now.insert(member, score, limits),
                    None => _ = now.remove(member),
                }
            }
        }
        _ => return None,
    }
    Some(Stored { value, ..then })
}
