//! Some elements of a collection that stands in the backing only.
//!
//! To bring a large collection into memory for one of its elements costs a
//! thousand times what the element does, and takes memory from others. So it
//! stays where it is, until as much has been read of it in small as it would
//! have cost to bring it in: from then on it is in memory. Whatever comes, that
//! is at most about twice the price of what would have been best.

use super::{BackingError, Found, Knowing, Stored, Wanted};
use crate::shard::Db;

/// So many elements are read with all of a collection at the price of one that
/// is read alone.
const ELEMENT_COST: u64 = 16;

/// Collections of which it is remembered how much of them was read.
const ASKED_MAX: usize = 8;

/// How many elements were read of collections which stayed in the backing, by
/// their keys' hashes; nothing of most.
#[derive(Debug, Default)]
pub(crate) struct Asked(Option<Box<Counts>>);

type Counts = [(u64, u32); ASKED_MAX];

impl Asked {
    fn of(&self, hash: u64) -> u64 {
        let mut counts = self.0.iter().flat_map(|counts| counts.iter());
        let found = counts.find(|(of, count)| *of == hash && *count > 0);
        found.map_or(0, |(_, count)| u64::from(*count))
    }

    fn add(&mut self, hash: u64, elements: usize) {
        let elements = u32::try_from(elements).unwrap_or(u32::MAX);
        let counts = self.0.get_or_insert_default();
        let known = counts.iter().position(|(of, count)| *of == hash && *count > 0);
        let place = known.or_else(|| counts.iter().position(|(_, count)| *count == 0));
        match place {
            Some(place) => {
                let (of, count) = &mut counts[place];
                (*of, *count) = (hash, count.saturating_add(elements));
            }
            // Those that are asked for most stay.
            None => counts.iter_mut().for_each(|(_, count)| *count /= 2),
        }
    }

    fn forget(&mut self, hash: u64) {
        let counts = self.0.iter_mut().flat_map(|counts| counts.iter_mut());
        counts.filter(|(of, _)| *of == hash).for_each(|(_, count)| *count = 0);
    }
}

/// What became of a key that a command looks at.
pub(crate) enum Loaded {
    /// It is in memory, or known to be missing.
    Known,
    /// It has been brought into memory.
    Whole,
    /// It stands in the backing only, which does not have it.
    Absent,
    /// It stays in the backing; this is what is wanted of it, and how many elements
    /// it has.
    Part(Stored, u64),
}

impl Db {
    /// As [`Db::load_hastily`], for somebody who looks at no more of a key than its
    /// type, deadline and revision. What takes long to read stays where it is.
    pub(crate) fn glance(
        &mut self,
        hash: u64,
        key: &[u8],
        access: u32,
        is_hasty: bool,
    ) -> Result<Loaded, BackingError> {
        self.load_wanted(hash, key, &[], &mut Asked::default(), (access, is_hasty))
    }

    /// As [`Db::load_hastily`], for a command that looks at no more of a
    /// collection than the elements of these names.
    pub(crate) fn load_wanted(
        &mut self,
        hash: u64,
        key: &[u8],
        names: &[&[u8]],
        asked: &mut Asked,
        (access, is_hasty): (u32, bool),
    ) -> Result<Loaded, BackingError> {
        if self.table.get(hash, key).is_some() || self.knows_missing(hash, key) {
            return Ok(Loaded::Known);
        }
        let backed = self.backed.as_ref().expect("else everything is known");
        let elements = asked.of(hash).saturating_add(names.len() as u64);
        let wanted = Wanted { names, whole_upto: elements.saturating_mul(ELEMENT_COST) };
        let knowing = Knowing { is_inherited: self.own.lacks(hash), is_hasty };
        match backed.backing.fetch_wanted(self.space, hash, key, wanted, knowing)? {
            None => Ok(Loaded::Absent),
            Some(Found::Part(stored, elements)) => {
                if !names.is_empty() {
                    asked.add(hash, names.len());
                }
                Ok(Loaded::Part(stored, elements))
            }
            Some(Found::Whole(stored)) => {
                asked.forget(hash);
                self.admit(hash, key, stored, access)?;
                self.settle();
                Ok(Loaded::Whole)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_asked_for_most_are_remembered() {
        let mut asked = Asked::default();
        let (often, max) = (1000, ASKED_MAX as u64);
        for round in 1..=50 {
            asked.add(often, 2);
            assert_eq!(asked.of(often), 2 * round);
        }
        for other in 0..10 * max {
            asked.add(other, 1);
            asked.add(often, 3 * ASKED_MAX);
        }
        assert!(asked.of(often) > 100);
        assert!((0..10 * max).filter(|hash| asked.of(*hash) > 0).count() < ASKED_MAX);
        asked.forget(often);
        assert_eq!((asked.of(often), Asked::default().of(0)), (0, 0));
    }
}
