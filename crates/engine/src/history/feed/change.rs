//! What one transaction changed, key by key, as watches tell it.

use std::collections::BTreeMap;

use base::{BranchId, DbIndex, Reply, Revision, Tape};
use command::{Error, Result};
use keyspace::effect::{Cause, Effect};
use log::{Record, RecordHeader};

use smallvec::SmallVec;

use super::packed::{Item, Part};
use super::reading::Reading;
use crate::history::events::{self, Touch, What};
use crate::history::of_key::write_whole;
use crate::travel::Moment;

/// What became of a key, or of a database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change<'r> {
    pub(super) db: DbIndex,
    /// `None`: every key of the database.
    pub(super) key: Option<&'r [u8]>,
    pub(super) what: What<'r>,
    after: After<'r>,
}

/// The value after the transaction, as far as its record tells.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After<'r> {
    Text(&'r [u8]),
    Nothing,
    Untold,
}

/// Whom a change is told.
pub(super) struct Telling<'t, 'e> {
    pub(super) branch: BranchId,
    pub(super) old: bool,
    pub(super) new: bool,
    /// The change was made before the watch was opened.
    pub(super) is_past: bool,
    /// `None`: nothing can be read now.
    pub(super) reading: Option<&'t Reading<'e>>,
}

/// How it is told.
pub(super) enum Told<'i> {
    Item(Item<'i>),
    /// Not at all: that is not to be known any more.
    Nothing,
    /// By somebody who can read.
    Unread,
}

/// A transaction, as far as somebody wants to hear of it.
#[derive(Debug)]
pub(super) struct Transaction<'r> {
    pub(super) revision: Revision,
    branch: BranchId,
    time_ms: u64,
    /// Who made it, if it tells.
    user: Option<&'r [u8]>,
    /// In the order in which the keys were first touched.
    pub(super) changes: SmallVec<[Change<'r>; 1]>,
}

/// Changes up to which one is found by looking at each.
const FEW: usize = 16;

impl<'r> Transaction<'r> {
    /// Reads what a record says of the keys, or of databases as a whole
    /// (`None`), that `is_wanted` picks.
    pub(super) fn read(
        record: &Record<'r>,
        is_wanted: &dyn Fn(DbIndex, Option<&[u8]>) -> bool,
    ) -> Result<Transaction<'r>> {
        let mut changes: SmallVec<[Change<'r>; 1]> = SmallVec::new();
        // Where each is, once there are more than a few.
        let mut places: BTreeMap<(DbIndex, Option<&'r [u8]>), usize> = BTreeMap::new();
        let who = events::read(record, &mut |touch: Touch<'r>| {
            let Touch { db, key, what, effect, .. } = touch;
            if key.is_none() {
                // Whatever was told of its keys so far may not be so any more.
                let of_it = changes.iter_mut().filter(|change| change.db == db);
                of_it.for_each(|change| change.after = After::Untold);
            }
            if !is_wanted(db, key) {
                return Ok(());
            }
            let after = match effect {
                Effect::StrSet { value, .. } => Some(After::Text(value)),
                Effect::Deadline(_) => None,
                _ if key.is_none() || what.is_removal() => Some(After::Nothing),
                _ => Some(After::Untold),
            };
            let known = if changes.len() <= FEW {
                changes.iter().position(|change| (change.db, change.key) == (db, key))
            } else {
                places.get(&(db, key)).copied()
            };
            match known {
                Some(place) => {
                    let change: &mut Change<'r> = &mut changes[place];
                    change.what = change.what.then(what);
                    change.after = after.unwrap_or(change.after);
                }
                None => {
                    changes.push(Change { db, key, what, after: after.unwrap_or(After::Untold) });
                    match changes.len() {
                        0..=FEW => {}
                        len if len == FEW + 1 => {
                            let all = changes.iter().map(|change| (change.db, change.key));
                            places.extend(all.zip(0..));
                        }
                        len => drop(places.insert((db, key), len - 1)),
                    }
                }
            }
            Ok(())
        })?;
        let RecordHeader { time_ms, branch, .. } = record.header;
        let user = who.map(|who| who.user);
        Ok(Transaction { revision: record.revision, branch, time_ms, user, changes })
    }

    /// Tells a change, of which `event` is the name. The values are read where
    /// the record does not tell them.
    pub(super) fn item(
        &self,
        change: &Change<'r>,
        event: &'static str,
        watch: &Telling<'_, '_>,
    ) -> Result<Told<'r>> {
        // The server's own doing, whoever's command brought it to light.
        let by_itself = matches!(change.what, What::Gone(Cause::Expired | Cause::Evicted));
        let may_tell = |at: Revision| match (change.key, watch.reading) {
            (Some(key), Some(reading)) => {
                reading.may_tell((watch.branch, change.db), key, at, watch.is_past).map(Some)
            }
            (Some(_), None) if watch.is_past => Ok(None),
            _ => Ok(Some(true)),
        };
        match may_tell(self.revision)? {
            None => return Ok(Told::Unread),
            Some(false) => return Ok(Told::Nothing),
            Some(true) => {}
        }
        let mut item = Item {
            revision: self.revision,
            time_ms: self.time_ms,
            event,
            key: change.key.into(),
            user: self.user.filter(|_| !by_itself).into(),
            old: Part::Unasked,
            new: Part::Unasked,
        };
        if watch.old {
            let before = Revision(self.revision.0 - 1);
            let value = match may_tell(before)? {
                Some(false) => Some(Part::Nil),
                _ => self.value_at(watch.reading, change, before)?.map(Part::Read),
            };
            let Some(value) = value else { return Ok(Told::Unread) };
            item.old = value;
        }
        if watch.new {
            let value = match change.after {
                After::Text(bytes) => Some(Part::Text(bytes)),
                After::Nothing => Some(Part::Nil),
                After::Untold => {
                    self.value_at(watch.reading, change, self.revision)?.map(Part::Read)
                }
            };
            let Some(value) = value else { return Ok(Told::Unread) };
            item.new = value;
        }
        Ok(Told::Item(item))
    }

    /// The key's value at a revision, deadlines aside: a key that is due stands
    /// there until a revision removes it.
    fn value_at(
        &self,
        reading: Option<&Reading<'_>>,
        change: &Change<'_>,
        revision: Revision,
    ) -> Result<Option<Tape>> {
        let mut tape = Tape::default();
        let Some(key) = change.key else {
            tape.null();
            return Ok(Some(tape));
        };
        let Some(reading) = reading else { return Ok(None) };
        // Nobody who has been told something waits for it.
        reading.hand_over();
        let engine = reading.engine;
        let branch = self.branch;
        if engine.branch(branch).is_none() || engine.line(branch).made() > self.revision {
            return Err(Error::new(format!(
                "NOBRANCH the branch of revision {} was deleted or made anew, and what its keys were is gone with it; \
                 watch without OLD and NEW",
                self.revision
            )));
        }
        let at = Moment { branch, revision, time_ms: 0 };
        engine.look_at(at, change.db, key, |value, _| match value {
            Some(value) => write_whole(value, &mut tape),
            None => tape.null(),
        })?;
        Ok(Some(tape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(effects: &[Effect<'_>], check: impl FnOnce(Transaction<'_>)) {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        let header = RecordHeader { time_ms: 5, db: 0, branch: BranchId::MAIN };
        let record = Record { revision: Revision(9), header, effects: &bytes };
        check(Transaction::read(&record, &|_, _| true).expect("effects of ours"));
    }

    const KEY: Effect<'static> = Effect::Key { key: b"k", existed: Some(false) };
    const SET: Effect<'static> = Effect::StrSet { value: b"v", deadline: None };

    #[test]
    fn a_key_that_changes_twice_is_told_once() {
        let part = Effect::StrAdd { delta: 1 };
        for (effects, event, after) in [
            (vec![KEY, SET], "set", After::Text(b"v")),
            (vec![KEY, SET, Effect::Deadline(Some(7))], "set", After::Text(b"v")),
            (vec![KEY, SET, part], "set", After::Untold),
            (vec![KEY, part, SET], "set", After::Text(b"v")),
            (vec![KEY, Effect::Deadline(None)], "deadline", After::Untold),
            (vec![KEY, SET, Effect::Delete(Cause::Client)], "removed", After::Nothing),
            (vec![KEY, Effect::Delete(Cause::Evicted), SET], "set", After::Text(b"v")),
        ] {
            read(&effects, |transaction| {
                let [change] = transaction.changes[..] else { panic!("{effects:?}") };
                assert_eq!((change.what.word(), change.after), (event, after), "{effects:?}");
            });
        }
    }

    #[test]
    fn a_flush_makes_what_was_told_before_it_doubtful() {
        let other = Effect::Key { key: b"l", existed: None };
        read(&[KEY, SET, Effect::Flush { db: 0 }, other, SET], |transaction| {
            let seen: Vec<_> = transaction.changes.iter().map(|it| (it.key, it.after)).collect();
            let k: Option<&[u8]> = Some(b"k");
            let l: Option<&[u8]> = Some(b"l");
            let expected = [(k, After::Untold), (None, After::Nothing), (l, After::Text(b"v"))];
            assert_eq!(seen, expected);
        });
    }

    #[test]
    fn a_rename_is_told_of_both_keys() {
        let to = Effect::Rename { db: 1, key: b"there", replaces: Some(false) };
        read(&[KEY, to], |transaction| {
            let seen: Vec<_> =
                transaction.changes.iter().map(|it| (it.db, it.key, it.what.word())).collect();
            let (from, to): (&[u8], &[u8]) = (b"k", b"there");
            assert_eq!(seen, [(0, Some(from), "removed"), (1, Some(to), "set")]);
        });
    }
}
