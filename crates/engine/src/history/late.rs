//! What has been done to databases since flushes emptied them that are to be taken
//! back: keys that others have written meanwhile stay, and are conflicts where the
//! flush had taken away keys of these names.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use base::{DbIndex, Revision};
use command::Result;
use keyspace::{FlushedDb, Txn, Value};

use super::Span;
use super::events::{self, What};
use super::many::{Place, each_value};
use super::revert::Job;
use super::undo::conflict;
use super::undoable::Deletion;
use crate::travel::Moment;

/// Names of which more are not looked up: the write holds everybody up for as long
/// as their keys take to be written again.
const NAMES_MAX: usize = 100_000;

/// Bytes of values that are written again.
const BYTES_MAX: usize = 64 << 20;

/// See the module's documentation.
pub(super) struct Late<'j> {
    job: &'j Job<'j>,
    deletions: &'j [Deletion],
    /// The databases that are emptied at the revision looked up to.
    emptied: BTreeSet<DbIndex>,
    /// Every key that was written or removed since.
    names: BTreeSet<Place>,
    /// All before this was looked at.
    next: Revision,
}

impl<'j> Late<'j> {
    /// Looks at nothing yet. The deletions are flushes, newest first, each of other
    /// databases.
    pub(super) fn new(job: &'j Job<'j>, deletions: &'j [Deletion]) -> Late<'j> {
        let next = deletions.last().map_or(Revision::ZERO, |deletion| deletion.revision);
        let (emptied, names) = Default::default();
        Late { job, deletions, emptied, names, next }
    }

    /// Looks at what was done up to now, and answers the revision that is now; `None`
    /// where more was done than to write and remove some keys. `flushed` is what the
    /// flushes took, in their order, where it is in memory.
    ///
    /// # Errors
    /// Where keys are in conflict.
    pub(super) fn look_on(&mut self, flushed: &[FlushedDb]) -> Result<Option<Revision>> {
        let newest = self.job.engine.replicator.newest();
        let (mut news, mut is_more) = (BTreeSet::new(), false);
        let after = Revision(self.next.0 - 1);
        let span = Span { branch: self.job.to.branch, after, upto: newest };
        span.visit(self.job.engine, |record| {
            let own = self.deletions.iter().find(|it| it.revision == record.revision);
            events::read(&record, &mut |touch| {
                let is_own = own.is_some_and(|own| own.dbs.contains(&touch.db));
                match (touch.what, touch.key) {
                    // Before that it does not count.
                    (What::Flushed, _) if is_own => _ = self.emptied.insert(touch.db),
                    _ if !self.emptied.contains(&touch.db) => {}
                    // What is gone may have been in conflict.
                    (What::Flushed, _) => {}
                    (_, Some(key)) => {
                        let place = (touch.db, key.to_vec());
                        if !self.names.contains(&place) {
                            news.insert(place);
                        }
                    }
                    (_, None) => is_more = true,
                }
                Ok(())
            })?;
            is_more |= self.names.len() + news.len() > NAMES_MAX;
            Ok(if is_more { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if is_more {
            return Ok(None);
        }
        self.next = newest.next();
        match self.conflicts(&news, flushed)? {
            0 => {}
            count => return Err(conflict(count, self.deletions)),
        }
        self.names.append(&mut news);
        Ok(Some(newest))
    }

    /// How many of these keys the flushes took away.
    fn conflicts(&self, names: &BTreeSet<Place>, flushed: &[FlushedDb]) -> Result<usize> {
        let mut count = 0;
        if !flushed.is_empty() {
            let keyspace = &self.job.branch()?.keyspace;
            let dbs = self.deletions.iter().flat_map(|deletion| &deletion.left);
            for (left, flushed) in dbs.zip(flushed) {
                let of_db = names.iter().filter(|(db, _)| *db == left.db);
                count += of_db.filter(|(_, key)| flushed.has(keyspace.hash_of(key), key)).count();
            }
            return Ok(count);
        }
        for deletion in self.deletions {
            let revision = Revision(deletion.revision.0 - 1);
            let before = Moment { revision, ..self.job.to };
            let of_deletion = names.iter().filter(|(db, _)| deletion.dbs.contains(db)).cloned();
            each_value(self.job.engine, before, of_deletion.collect(), &mut |_, _, then| {
                count += usize::from(then.is_some());
                Ok(())
            })?;
        }
        Ok(count)
    }
}

/// Keys with their values and deadlines.
type Kept = Vec<(Vec<u8>, Value, Option<u64>)>;

/// The keys that a database has; `None` if they are too many to be written again.
pub(super) fn keys_of(txn: &mut Txn<'_>, db: DbIndex) -> Result<Option<Kept>> {
    txn.select(db);
    if txn.len() > NAMES_MAX {
        return Ok(None);
    }
    let (mut kept, mut bytes) = (Kept::new(), 0);
    txn.visit_all(&mut |key, value, deadline| {
        bytes += key.len() + value.memory_bytes();
        if bytes <= BYTES_MAX {
            kept.push((key.to_vec(), value.to_value(), deadline));
        }
    })?;
    Ok((bytes <= BYTES_MAX).then_some(kept))
}
