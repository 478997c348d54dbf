//! What one transaction changed, key by key, as watches tell it.

use base::{DbIndex, Reply, Revision, Tape};
use command::{Error, Result};
use keyspace::effect::Cause;
use log::Record;
use smallvec::SmallVec;

use super::packed::{Item, Part};
use super::reading::Reading;
use crate::branch::Line;
use crate::history::changed::{After, Change, Changed};
use crate::history::events::{self, Touch, What};
use crate::history::of_key::write_whole;
use crate::travel::Moment;

/// Whom a change is told.
pub(super) struct Telling<'t, 'e> {
    /// Of the branch that is watched, as it was when the watch was opened.
    pub(super) line: &'t Line,
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
    time_ms: u64,
    /// Who made it, if it tells.
    user: Option<&'r [u8]>,
    /// In the order in which they took effect.
    pub(super) changes: SmallVec<[Change<'r>; 1]>,
    /// How many effects on keys and databases it has, wanted or not.
    pub(super) effects: usize,
}

impl<'r> Transaction<'r> {
    /// Reads what a record says of the keys, or of databases as a whole
    /// (`None`), that `is_wanted` picks.
    pub(super) fn read(
        record: &Record<'r>,
        is_wanted: &dyn Fn(DbIndex, Option<&[u8]>) -> bool,
    ) -> Result<Transaction<'r>> {
        let mut changed = Changed::default();
        let who = events::read(record, &mut |touch: Touch<'r>| {
            if is_wanted(touch.db, touch.key) {
                changed.add(touch);
            } else {
                changed.pass();
            }
            Ok(())
        })?;
        let (revision, time_ms) = (record.revision, record.header.time_ms);
        let (user, effects) = (who.map(|who| who.user), changed.effects());
        Ok(Transaction { revision, time_ms, user, changes: changed.into_changes(), effects })
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
                let place = (watch.line.branch(), change.db);
                reading.may_tell(place, key, at, watch.is_past).map(Some)
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
                _ => value_at(watch, change, before)?.map(Part::Read),
            };
            let Some(value) = value else { return Ok(Told::Unread) };
            item.old = value;
        }
        if watch.new {
            let value = match change.after {
                After::Text(bytes) => Some(Part::Text(bytes)),
                After::Nothing => Some(Part::Nil),
                After::Untold => value_at(watch, change, self.revision)?.map(Part::Read),
            };
            let Some(value) = value else { return Ok(Told::Unread) };
            item.new = value;
        }
        Ok(Told::Item(item))
    }
}

/// The key's value at a revision of a watch's line, deadlines aside: a key that is
/// due stands there until a revision removes it. `None`: it cannot be read now.
fn value_at(
    watch: &Telling<'_, '_>,
    change: &Change<'_>,
    revision: Revision,
) -> Result<Option<Tape>> {
    let mut tape = Tape::default();
    let Some(key) = change.key else {
        tape.null();
        return Ok(Some(tape));
    };
    let Some(reading) = watch.reading else { return Ok(None) };
    // Nobody who has been told something waits for it.
    reading.hand_over();
    let (engine, branch) = (reading.engine, watch.line.branch());
    // What a parent had that was deleted can be read as long as the branch is there.
    if !engine.is_still(watch.line) {
        return Err(Error::new(format!(
            "NOBRANCH the branch was deleted or made anew, and what its keys were at revision {revision} is gone with \
             it; watch without OLD and NEW"
        )));
    }
    let at = Moment::new(branch, revision, 0);
    reading.timed(|| {
        engine.look_at(at, change.db, key, |value, _| match value {
            Some(value) => write_whole(value, &mut tape),
            None => tape.null(),
        })
    })?;
    Ok(Some(tape))
}

#[cfg(test)]
mod tests {
    use base::BranchId;
    use keyspace::effect::Effect;
    use log::RecordHeader;

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

    /// The keys of database 0, or nil, with what became of each, as they are
    /// told.
    fn seen(effects: &[Effect<'_>]) -> Vec<(Option<String>, &'static str, String)> {
        let mut seen = Vec::new();
        read(effects, |transaction| {
            seen.extend(transaction.changes.iter().filter(|it| it.db == 0).map(|it| {
                let key = it.key.map(|key| String::from_utf8_lossy(key).into_owned());
                (
                    key,
                    it.what.word(),
                    match it.after {
                        After::Text(text) => String::from_utf8_lossy(text).into_owned(),
                        other => format!("{other:?}"),
                    },
                )
            }));
        });
        seen
    }

    fn key(key: &'static [u8]) -> Effect<'static> {
        Effect::Key { key, existed: None }
    }

    const FLUSH: Effect<'static> = Effect::Flush { db: 0 };
    const SWAP: Effect<'static> = Effect::Swap { a: 0, b: 1 };

    #[test]
    fn a_change_stands_where_its_last_effect_is() {
        let again = Effect::StrSet { value: b"again", deadline: None };
        let delete = Effect::Delete(Cause::Client);
        let flushed = || (None, "flushed", "Nothing".to_owned());
        let swapped = || (None, "swapped", "Nothing".to_owned());
        let set = |key: &str, value: &str| (Some(key.to_owned()), "set", value.to_owned());
        for (effects, expected) in [
            (vec![KEY, SET, FLUSH, KEY, again], vec![flushed(), set("k", "again")]),
            (vec![KEY, delete, FLUSH, KEY, again], vec![flushed(), set("k", "again")]),
            (vec![KEY, SET, FLUSH, key(b"l"), SET], vec![flushed(), set("l", "v")]),
            (vec![KEY, SET, FLUSH, KEY, SET, FLUSH], vec![flushed()]),
            (
                vec![FLUSH, KEY, SET, key(b"l"), SET, KEY, again],
                vec![flushed(), set("l", "v"), set("k", "again")],
            ),
            // What is of another database stays.
            (vec![KEY, SET, Effect::Flush { db: 1 }], vec![set("k", "v")]),
            // Whose value it is after a swap, the record does not tell.
            (vec![KEY, SET, SWAP], vec![set("k", "Untold"), swapped()]),
            (vec![KEY, SET, SWAP, KEY, again], vec![swapped(), set("k", "again")]),
        ] {
            assert_eq!(seen(&effects), expected, "{effects:?}");
        }
    }

    #[test]
    fn a_flush_takes_many_keys_and_those_after_it_are_found() {
        let names: Vec<Vec<u8>> = (0..40).map(|n| format!("k{n}").into_bytes()).collect();
        let put = |name| [Effect::Key { key: name, existed: None }, SET];
        let before = names.iter().flat_map(|name| put(name));
        // More than a few are left, each of which changes twice.
        let after = names.iter().take(20).chain(names.iter().take(20)).flat_map(|name| put(name));
        let effects: Vec<_> = before.chain([FLUSH]).chain(after).collect();
        let told: Vec<_> = seen(&effects).into_iter().map(|(key, ..)| key).collect();
        let kept = (0..20).map(|n| Some(format!("k{n}")));
        assert_eq!(told, [None].into_iter().chain(kept).collect::<Vec<_>>());
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
