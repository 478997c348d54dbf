//! Mass deletions that can be taken back.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use base::{BranchId, DbIndex, Revision, SpaceId};
use keyspace::Branch;
use keyspace::effect::{Effect, Effects, Marked};
use log::Record;
use parking_lot::Mutex;

use crate::past::Visit;

/// A transaction that took all keys of databases away, keys by their names, or a
/// branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deletion {
    pub(super) revision: Revision,
    /// On which branch.
    pub(super) on: BranchId,
    pub(super) time_ms: u64,
    pub(super) command: Vec<u8>,
    pub(super) user: Vec<u8>,
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) until_ms: u64,
    /// The databases that it emptied.
    pub(super) dbs: Vec<DbIndex>,
    /// Whether it took single keys away.
    pub(super) has_named: bool,
    /// Where it left them, as far as it tells.
    pub(super) left: Vec<Left>,
    /// The branch that it deleted instead.
    pub(super) branch: Option<Branch>,
    /// Whether the transaction did anything else before: then it may have left
    /// keys there that were not there before it.
    pub(super) is_late: bool,
}

/// Keys that a flush left where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) db: DbIndex,
    pub(super) space: SpaceId,
    /// How many each shard has, as the record tells.
    pub(super) keys: Vec<u8>,
}

/// Bytes of a record from which on it is worth while to remember its marks.
const LARGE_BYTES: usize = 64 << 10;

/// What a record says of mass deletions.
#[derive(Clone, Debug)]
struct Marks {
    deletion: Option<Deletion>,
    undone: Vec<Revision>,
}

impl Marks {
    fn of(record: &Record<'_>) -> Marks {
        let mut deletion = Deletion {
            revision: record.revision,
            on: record.header.branch,
            time_ms: record.header.time_ms,
            command: Vec::new(),
            user: Vec::new(),
            keys: 0,
            bytes: 0,
            until_ms: 0,
            dbs: Vec::new(),
            has_named: false,
            left: Vec::new(),
            branch: None,
            is_late: false,
        };
        let (mut undone, mut is_marked, mut is_late) = (Vec::new(), false, false);
        let (mut place, mut marked) = (None, Marked::default());
        for effect in Effects::new(record.effects).flatten() {
            if marked.see(&effect) {
                (deletion.has_named, is_marked, is_late) = (true, false, true);
                continue;
            }
            match effect {
                Effect::Origin { command, user, .. } => {
                    (deletion.command, deletion.user) = (command.to_vec(), user.to_vec());
                }
                Effect::Undoable { keys, bytes, until_ms } => {
                    deletion.keys += keys;
                    deletion.bytes += bytes;
                    deletion.until_ms = until_ms;
                    is_marked = true;
                }
                Effect::Leaves { space, keys } => place = Some((space, keys)),
                Effect::Flush { db } if std::mem::take(&mut is_marked) => {
                    deletion.dbs.push(db);
                    deletion.is_late = is_late;
                    let left = place.take();
                    let left = left.map(|(space, keys)| Left { db, space, keys: keys.to_vec() });
                    deletion.left.extend(left);
                }
                Effect::Branch { row } => {
                    deletion.branch = Branch::decode(row).ok().filter(Branch::is_deleted);
                }
                Effect::Undone { revision } => undone.push(revision),
                Effect::Flush { .. } | Effect::Database(_) => {}
                _ => is_late = true,
            }
        }
        let is_any = !deletion.dbs.is_empty() || deletion.has_named || deletion.branch.is_some();
        Marks { deletion: is_any.then_some(deletion), undone }
    }
}

/// What records say of mass deletions, with a memory of the large ones: whoever
/// asks what can be taken back asks again, and to read a record means all of it.
#[derive(Debug, Default)]
pub struct UndoMarks {
    large: Mutex<BTreeMap<Revision, Marks>>,
}

impl UndoMarks {
    /// Mass deletions that can be taken back now, newest first, by the window that
    /// there is now if that is less than what their records promise. `visit` is to
    /// show every record after `oldest` that may say something, newest first, but
    /// for those that are known.
    ///
    /// # Errors
    /// Those of `visit`.
    pub(super) fn undoable<E>(
        &self,
        now_ms: u64,
        window_ms: u64,
        oldest: Revision,
        visit: impl FnOnce(&dyn Fn(Revision) -> bool, &mut Visit<'_>) -> Result<(), E>,
    ) -> Result<Vec<Deletion>, E> {
        self.large.lock().retain(|&revision, _| revision > oldest);
        let seen = RefCell::new(Vec::new());
        let is_known = |revision| {
            let known = self.large.lock().get(&revision).cloned();
            let is_known = known.is_some();
            seen.borrow_mut().extend(known);
            is_known
        };
        visit(&is_known, &mut |record| {
            let marks = Marks::of(&record);
            if record.effects.len() >= LARGE_BYTES {
                self.large.lock().insert(record.revision, marks.clone());
            }
            seen.borrow_mut().push(marks);
            ControlFlow::Continue(())
        })?;
        let seen = seen.into_inner();
        let undone: BTreeSet<Revision> =
            seen.iter().flat_map(|marks| &marks.undone).copied().collect();
        let deletions = seen.into_iter().filter_map(|marks| marks.deletion).map(|it| {
            let until_ms = it.until_ms.min(it.time_ms.saturating_add(window_ms));
            Deletion { until_ms, ..it }
        });
        Ok(deletions.filter(|it| it.until_ms > now_ms && !undone.contains(&it.revision)).collect())
    }

    /// The state that the oldest mass deletion needs which can be taken back now, in
    /// a window of so many milliseconds. `visit` is to show every record after `oldest` that may say something,
    /// newest first, but for those that are known.
    ///
    /// # Errors
    /// Those of `visit`.
    pub fn oldest_needed<E>(
        &self,
        now_ms: u64,
        window_ms: u64,
        oldest: Revision,
        visit: impl FnOnce(&dyn Fn(Revision) -> bool, &mut Visit<'_>) -> Result<(), E>,
    ) -> Result<Option<Revision>, E> {
        let deletions = self.undoable(now_ms, window_ms, oldest, visit)?;
        Ok(deletions.last().map(|oldest| Revision(oldest.revision.0 - 1)))
    }

    /// Records were rewritten.
    pub(super) fn forget(&self) {
        self.large.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use keyspace::effect::Cause;
    use log::RecordHeader;

    use super::*;

    fn record(effects: &[Effect<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        bytes
    }

    #[test]
    fn large_records_are_read_once() {
        let name = vec![b'k'; LARGE_BYTES];
        let (key, gone) =
            (Effect::Key { key: &name, existed: None }, Effect::Delete(Cause::Client));
        let mark = |until_ms| Effect::Undoable { keys: 1, bytes: 9, until_ms };
        let small = Effect::Key { key: b"k", existed: None };
        let records = [
            record(&[mark(500), small, gone]),
            record(&[mark(900), key, gone]),
            record(&[mark(900), small, gone]),
            record(&[Effect::Undone { revision: Revision(3) }, key, gone]),
        ];
        let marks = UndoMarks::default();
        let check_in = |window_ms, now_ms, oldest, expected: &[u64], expected_read: &[u64]| {
            let mut read = Vec::new();
            let found = marks.undoable(now_ms, window_ms, Revision(oldest), |is_known, visit| {
                for revision in (oldest + 1..=4).rev().filter(|&it| !is_known(Revision(it))) {
                    read.push(revision);
                    let header = RecordHeader { time_ms: 1, db: 0, branch: BranchId::MAIN };
                    let effects = &records[revision as usize - 1];
                    let _ = visit(Record { revision: Revision(revision), header, effects });
                }
                Ok::<_, ()>(())
            });
            let found = found.expect("nothing fails").into_iter();
            assert_eq!(found.map(|deletion| deletion.revision.0).collect::<Vec<_>>(), expected);
            assert_eq!(read, expected_read);
        };
        let check = |now_ms, oldest, found: &[u64], read: &[u64]| {
            check_in(1000, now_ms, oldest, found, read)
        };
        check(400, 0, &[2, 1], &[4, 3, 2, 1]);
        // They were made at 1.
        check_in(400, 400, 0, &[2, 1], &[3, 1]);
        check_in(399, 400, 0, &[], &[3, 1]);
        check_in(0, 400, 0, &[], &[3, 1]);
        check(400, 0, &[2, 1], &[3, 1]);
        check(600, 0, &[2], &[3, 1]);
        check(600, 2, &[], &[3]);
        // What was older is not remembered any more.
        check(600, 0, &[2], &[3, 2, 1]);
        marks.forget();
        check(600, 0, &[2], &[4, 3, 2, 1]);
    }
}
