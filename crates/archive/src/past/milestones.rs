//! What keys were in between, where many changes make them what they are: a
//! counter's value is the sum of its increments. Who has gone through them leaves
//! some values behind, and who comes next begins with the nearest.

use std::collections::BTreeMap;

use base::{BranchId, DbIndex, Revision};
use keyspace::{Stored, Value};
use parking_lot::Mutex;

/// Changes between two values that are left behind.
pub(super) const APART: usize = 64;

/// Values that are kept. One more, and it begins anew.
const KEPT_MAX: usize = 8192;

/// Bytes of a key's name, and of its value, up to which it is kept.
const BYTES_MAX: usize = 256;

/// A key of a branch's database.
type Place = (BranchId, DbIndex, Vec<u8>);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Milestones(Mutex<BTreeMap<(Place, Revision), Stored>>);

impl Milestones {
    /// The newest value after `after`, up to and with `upto`.
    pub(super) fn newest(
        &self,
        (branch, db, key): (BranchId, DbIndex, &[u8]),
        after: Revision,
        upto: Revision,
    ) -> Option<(Revision, Stored)> {
        let place = (branch, db, key.to_vec());
        let kept = self.0.lock();
        let span = (place.clone(), after.next())..=(place, upto);
        if span.is_empty() {
            return None;
        }
        let ((_, revision), stored) = kept.range(span).next_back()?;
        Some((*revision, copy(stored)?))
    }

    /// Keeps what a key was from a revision on, up to its next change, if that is a
    /// short string.
    pub(super) fn put(
        &self,
        (branch, db, key): (BranchId, DbIndex, &[u8]),
        revision: Revision,
        stored: &Stored,
    ) {
        if key.len() > BYTES_MAX {
            return;
        }
        let Some(stored) = copy(stored) else { return };
        let mut kept = self.0.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(((branch, db, key.to_vec()), revision), stored);
    }

    /// What they take in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        let bytes = |((place, revision), stored): (&(Place, Revision), &Stored)| {
            let Value::Str(text) = &stored.value else { unreachable!("only strings are kept") };
            size_of_val(place)
                + place.2.len()
                + size_of_val(revision)
                + size_of_val(stored)
                + text.len()
        };
        self.0.lock().iter().map(bytes).sum()
    }

    /// Lets go of everything.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

fn copy(stored: &Stored) -> Option<Stored> {
    let Stored { value: Value::Str(text), deadline, revision } = stored else { return None };
    let is_short = text.len() <= BYTES_MAX;
    let (deadline, revision) = (*deadline, *revision);
    is_short.then(|| Stored { value: Value::Str(text.clone()), deadline, revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_value_before_is_found_and_memory_is_bounded() {
        let kept = Milestones::default();
        let place = (BranchId::MAIN, 0, &b"k"[..]);
        let stored = |n: u64, len| Stored {
            value: Value::Str(vec![b'7'; len]),
            deadline: Some(n),
            revision: Revision(n),
        };
        let found = |place, after, upto| {
            let found = kept.newest(place, Revision(after), Revision(upto));
            found.map(|(at, stored)| (at.0, stored.deadline))
        };
        for n in [10, 20, 30] {
            kept.put(place, Revision(n), &stored(n, 1));
        }
        kept.put(place, Revision(25), &stored(25, BYTES_MAX + 1));
        assert_eq!(found(place, 0, 29), Some((20, Some(20))));
        assert_eq!(found(place, 19, 20), Some((20, Some(20))));
        assert_eq!(found(place, 20, 29), None);
        assert_eq!(found(place, 20, 20), None);
        assert_eq!(found(place, 0, 9), None);
        assert_eq!(found((BranchId::MAIN, 1, b"k"), 0, 99), None);
        assert_eq!(found((BranchId::MAIN, 0, b"kk"), 0, 99), None);
        for n in 0..10 * KEPT_MAX as u64 {
            kept.put(place, Revision(100 + n), &stored(n, 1));
        }
        assert!(kept.0.lock().len() <= KEPT_MAX);
        assert!(kept.memory_bytes() > kept.0.lock().len() * 2);
        kept.clear();
        assert_eq!(kept.memory_bytes(), 0);
        assert_eq!(found(place, 0, u64::MAX), None);
    }
}
