//! Mass deletions that can be taken back.

use std::collections::BTreeSet;

use base::{DbIndex, Revision, SpaceId};
use keyspace::Branch;
use keyspace::effect::{Effect, Effects, Marked};
use log::Record;

/// A transaction that took all keys of databases away, keys by their names, or a
/// branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deletion {
    pub(super) revision: Revision,
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

/// Mass deletions that can be taken back, as records tell that are seen newest
/// first.
#[derive(Debug, Default)]
pub struct Undoables {
    found: Vec<Deletion>,
    undone: BTreeSet<Revision>,
}

impl Undoables {
    /// Sees the next record.
    pub fn see(&mut self, record: &Record<'_>) {
        let mut deletion = Deletion {
            revision: record.revision,
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
        let (mut is_marked, mut is_late) = (false, false);
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
                Effect::Undone { revision } => _ = self.undone.insert(revision),
                Effect::Flush { .. } | Effect::Database(_) => {}
                _ => is_late = true,
            }
        }
        let is_any = !deletion.dbs.is_empty() || deletion.has_named || deletion.branch.is_some();
        if is_any && !self.undone.contains(&record.revision) {
            self.found.push(deletion);
        }
    }

    /// Those that can be taken back now, newest first.
    pub(super) fn at(self, now_ms: u64) -> Vec<Deletion> {
        let mut found = self.found;
        found.retain(|deletion| deletion.until_ms > now_ms);
        found
    }

    /// The state that the oldest of them needs.
    #[must_use]
    pub fn oldest_needed(self, now_ms: u64) -> Option<Revision> {
        self.at(now_ms).last().map(|oldest| Revision(oldest.revision.0 - 1))
    }
}
