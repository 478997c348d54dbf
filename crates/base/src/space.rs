use std::fmt;

use crate::{DbIndex, Revision};

/// Names a set of keys in storage: the database `db` as it was made empty at
/// revision `born`.
///
/// Emptying a database gives it a fresh space, and databases that change
/// places take their spaces along, so neither has to touch what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId {
    /// The transaction that made it; [`Revision::ZERO`] for the first ones.
    pub born: Revision,
    /// The number that the database had then, or the next that is free where
    /// one transaction empties several databases under one number.
    pub db: DbIndex,
}

impl SpaceId {
    /// The space that a database begins with.
    #[must_use]
    pub fn first_of(db: DbIndex) -> SpaceId {
        SpaceId { born: Revision::ZERO, db }
    }

    /// The space of a database that a branch was not made with, since there were
    /// fewer of them when the revision `forked` made it. Those that it was made
    /// with are counted from 0, so these are counted from the other end.
    #[must_use]
    pub fn added_to(forked: Revision, db: DbIndex) -> SpaceId {
        SpaceId { born: forked, db: DbIndex::MAX - db }
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.db, self.born)
    }
}
