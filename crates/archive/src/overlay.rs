//! Spaces that lie over others: what a key of a branch is, that nobody has
//! changed there.
//!
//! A space lies over another one as of a revision, a state that the base
//! reached. A key that has no entry in a space, not even one that says that it
//! is gone, is as it was then in the space below.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, SpaceId};
use keyspace::{Backing, Keyspace, Spaces};
use parking_lot::RwLock;

use crate::base_tree::Base;
use crate::codec::{self, Name};
use crate::error::ArchiveError;

/// A space that lies over another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Overlay {
    /// The space.
    pub space: SpaceId,
    /// What is below.
    pub under: SpaceId,
    /// As of which state of the base.
    pub at: Revision,
}

/// All of them that may be read. What lies over what never changes.
#[derive(Debug, Default)]
pub(crate) struct Overlays {
    below: RwLock<BTreeMap<SpaceId, (SpaceId, Revision)>>,
    /// Revisions that made branches, or let them begin anew, and that the base
    /// has not reached.
    forks: RwLock<BTreeSet<Revision>>,
}

impl Overlays {
    pub(crate) fn add(&self, overlay: Overlay) {
        self.below.write().insert(overlay.space, (overlay.under, overlay.at));
    }

    /// What is below a space.
    pub(crate) fn under(&self, space: SpaceId) -> Option<(SpaceId, Revision)> {
        self.below.read().get(&space).copied()
    }

    pub(crate) fn all(&self) -> Vec<Overlay> {
        let all = self.below.read();
        all.iter().map(|(&space, &(under, at))| Overlay { space, under, at }).collect()
    }

    fn add_fork(&self, revision: Revision) {
        self.forks.write().insert(revision);
    }

    /// The newest fork up to a revision that the base has not reached.
    fn newest_fork(&self, upto: Revision) -> Option<Revision> {
        self.forks.read().range(..=upto).next_back().copied()
    }

    /// Forgets those that are not among `kept`, which is everything that there
    /// was at `revision`, which the base has reached.
    pub(crate) fn retain(&self, kept: &[Overlay], revision: Revision) {
        let kept: BTreeSet<SpaceId> = kept.iter().map(|overlay| overlay.space).collect();
        self.below.write().retain(|space, _| space.born > revision || kept.contains(space));
        self.forks.write().retain(|fork| *fork > revision);
    }
}

/// Of `overlays`, those that `spaces` or others among them need.
pub(crate) fn needed(overlays: &[Overlay], spaces: &BTreeSet<SpaceId>) -> Vec<Overlay> {
    let by_space: BTreeMap<SpaceId, Overlay> = overlays.iter().map(|it| (it.space, *it)).collect();
    let mut needed = BTreeSet::new();
    for space in spaces {
        let mut next = by_space.get(space);
        while let Some(overlay) = next {
            if !needed.insert(*overlay) {
                break;
            }
            next = by_space.get(&overlay.under);
        }
    }
    needed.into_iter().collect()
}

impl Base {
    /// Gives `child`, which must be empty, the databases of a branch that the
    /// revision `forked` made: each over one of `parent`'s as of `at`, and
    /// filled from `backing`, which must read from this base.
    pub fn fork(
        &self,
        child: &Keyspace,
        backing: &Arc<dyn Backing>,
        parent: &Spaces,
        at: Revision,
        forked: Revision,
    ) {
        if forked > self.revision() {
            self.overlays().add_fork(forked);
        }
        for &(db, under, keys) in parent {
            let space = SpaceId { born: forked, db };
            if keys.iter().any(|&count| count > 0) {
                self.overlays().add(Overlay { space, under, at });
            }
            child.back(backing.clone(), db, space, &keys);
        }
    }

    /// Where a branch's databases stood as of a state that the base reached.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn spaces_at(
        &self,
        branch: BranchId,
        databases: DbIndex,
        at: Revision,
    ) -> Result<Spaces, ArchiveError> {
        Ok(self.directory_at(at)?.spaces_of(branch, databases))
    }
}

impl Base {
    /// Visits the keys that a space has entries of itself, gone ones included:
    /// the hash of each, and the revision of its last change.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn own_keys(
        &self,
        space: SpaceId,
        each: &mut dyn FnMut(u64, Revision),
    ) -> Result<(), ArchiveError> {
        let mut prefix = Vec::new();
        codec::put_space(&mut prefix, space);
        let (seed, bucket_at) = (self.directory().seed, prefix.len());
        let mut wrong = None;
        self.prefix(&prefix, &mut |entry, value| {
            match own_key(seed, &entry[bucket_at..], value) {
                Ok(Some((hash, revision))) => each(hash, revision),
                // An element; its head counts.
                Ok(None) => {}
                Err(what) => wrong = Some(what),
            }
            if wrong.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let damaged = |what| ArchiveError::Damaged {
            dir: self.dir().to_owned(),
            what: format!("a key of space {space}: {what}"),
        };
        wrong.map_or(Ok(()), |what| Err(damaged(what)))
    }

    /// Waits until the base knows how a branch began that was there at `at`:
    /// one that is new, or began anew. main was always there.
    ///
    /// # Errors
    /// When it never will.
    pub(crate) fn await_fork(&self, branch: BranchId, at: Revision) -> Result<(), ArchiveError> {
        match self.overlays().newest_fork(at) {
            Some(fork) if branch != BranchId::MAIN => self.await_revision(fork),
            _ => Ok(()),
        }
    }

    /// The newest state at or before `at` that the base reached, and where a
    /// branch's databases stood then. Waits for it where the branch is so new
    /// that the base does not know it yet.
    ///
    /// # Errors
    /// When it cannot be read, the branch was not there, or it had keys in
    /// databases that there are not now.
    pub fn state_before(
        &self,
        branch: BranchId,
        databases: DbIndex,
        at: Revision,
    ) -> Result<(Revision, Spaces), ArchiveError> {
        self.await_fork(branch, at)?;
        let found = self.directory_at(at)?;
        if found.branches.name_of(branch).is_none() {
            return Err(ArchiveError::Behind { dir: self.dir().to_owned(), asked: at });
        }
        if let Some(db) = found.last_beyond(branch, databases) {
            return Err(ArchiveError::NoDatabase { db, databases });
        }
        Ok((found.revision, found.spaces_of(branch, databases)))
    }
}

/// The hash of a head's key and the revision of its last change; `None` for an
/// element. `entry` begins with the bucket.
fn own_key(seed: u64, entry: &[u8], value: &[u8]) -> Result<Option<(u64, Revision)>, String> {
    let (bucket, rest) = entry.split_first_chunk::<2>().ok_or("it has no bucket")?;
    let (name, element) = codec::split_name(rest)?;
    if !element.is_empty() {
        return Ok(None);
    }
    let (revision, is_gone) = codec::age(value)?;
    let hash = match name {
        Name::Plain(key) => keyspace::hash_of(seed, key),
        Name::Digest => match codec::head(value, true)?.and_then(|head| head.key) {
            Some(key) if !is_gone => keyspace::hash_of(seed, key),
            // Its name is not there any more: the digest does as well, in its bucket.
            _ => {
                let mut hash = [0; 8];
                hash[..2].copy_from_slice(bucket);
                hash[2..].copy_from_slice(&rest[1..7]);
                u64::from_be_bytes(hash)
            }
        },
    };
    Ok(Some((hash, revision)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_is_kept_as_long_as_what_lies_over_it() {
        let space = |born| SpaceId { born: Revision(born), db: 0 };
        let over = |above, below| Overlay {
            space: space(above),
            under: space(below),
            at: Revision(above),
        };
        let all = [over(10, 0), over(20, 10), over(30, 0)];
        assert_eq!(needed(&all, &BTreeSet::from([space(20)])), [over(10, 0), over(20, 10)]);
        let overlays = Overlays::default();
        all.iter().for_each(|it| overlays.add(*it));
        overlays.retain(&all[..1], Revision(29));
        assert_eq!(overlays.all(), [over(10, 0), over(30, 0)]);
        [25, 30, 35].into_iter().for_each(|fork| overlays.add_fork(Revision(fork)));
        assert_eq!(overlays.newest_fork(Revision(34)), Some(Revision(30)));
        overlays.retain(&all, Revision(30));
        assert_eq!(overlays.newest_fork(Revision(34)), None);
        assert_eq!(overlays.newest_fork(Revision(99)), Some(Revision(35)));
    }
}
