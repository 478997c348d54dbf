//! What keys were in between, where many changes make them what they are: a
//! counter's value is the sum of its increments. Who has gone through them leaves
//! some values behind, and who comes next begins with the nearest.

use std::collections::BTreeMap;

use base::{BranchId, DbIndex, Revision};
use keyspace::{SMALL_BYTES_MAX, Stored};
use parking_lot::Mutex;

/// Changes between two values that are left behind, if these are small.
pub(super) const APART: usize = 8;

/// Bytes of a value for which it is kept half as often.
const SPARING_BYTES: usize = 512;

/// Changes from a value that is left behind to the next one: larger ones are kept
/// more sparingly.
pub(super) fn apart(stored: &Stored) -> usize {
    APART * (1 + stored.value.as_ref().memory_bytes() / SPARING_BYTES)
}

/// Bytes that values take which are kept. One more, and it begins anew.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Bytes that one takes besides its name and its content, about.
const ENTRY_BYTES: usize = 128;

/// Bytes of a key's name up to which its values are kept.
const NAME_BYTES_MAX: usize = 256;

/// A key of a branch's database.
type Place = (BranchId, DbIndex, Vec<u8>);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Milestones(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    values: BTreeMap<(Place, Revision), Stored>,
    bytes: usize,
}

impl Milestones {
    /// The newest value after `after`, up to and with `upto`.
    pub(super) fn newest(
        &self,
        (branch, db, key): (BranchId, DbIndex, &[u8]),
        after: Revision,
        upto: Revision,
    ) -> Option<(Revision, Stored)> {
        let kept = self.0.lock();
        // Mostly nobody has asked for counters.
        if kept.values.is_empty() {
            return None;
        }
        let place = (branch, db, key.to_vec());
        let span = (place.clone(), after.next())..=(place, upto);
        if span.is_empty() {
            return None;
        }
        let ((_, revision), stored) = kept.values.range(span).next_back()?;
        Some((*revision, copy(stored)))
    }

    /// Keeps what a key was from a revision on, up to its next change, if that is
    /// small.
    pub(super) fn put(
        &self,
        (branch, db, key): (BranchId, DbIndex, &[u8]),
        revision: Revision,
        stored: &Stored,
    ) {
        let value_bytes = stored.value.as_ref().memory_bytes();
        if key.len() > NAME_BYTES_MAX || value_bytes > SMALL_BYTES_MAX {
            return;
        }
        let bytes = ENTRY_BYTES + key.len() + value_bytes;
        let stored = copy(stored);
        let mut kept = self.0.lock();
        if kept.bytes + bytes > KEPT_BYTES_MAX {
            *kept = Kept::default();
        }
        // The same revision has the same value.
        if kept.values.insert(((branch, db, key.to_vec()), revision), stored).is_none() {
            kept.bytes += bytes;
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&self) {
        *self.0.lock() = Kept::default();
    }

    /// What they take in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.0.lock().bytes
    }
}

fn copy(stored: &Stored) -> Stored {
    let Stored { value, deadline, revision } = stored;
    Stored { value: value.as_ref().to_shared(), deadline: *deadline, revision: *revision }
}

#[cfg(test)]
mod tests {
    use keyspace::Value;

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
        kept.put(place, Revision(25), &stored(25, SMALL_BYTES_MAX + 1));
        assert_eq!(found(place, 0, 29), Some((20, Some(20))));
        assert_eq!(found(place, 19, 20), Some((20, Some(20))));
        assert_eq!(found(place, 20, 29), None);
        assert_eq!(found(place, 20, 20), None);
        assert_eq!(found(place, 0, 9), None);
        assert_eq!(found((BranchId::MAIN, 1, b"k"), 0, 99), None);
        assert_eq!(found((BranchId::MAIN, 0, b"kk"), 0, 99), None);
        let before = kept.memory_bytes();
        kept.put(place, Revision(30), &stored(30, 1));
        assert_eq!(kept.memory_bytes(), before, "it was there");
        kept.clear();
        for n in 0..2 * KEPT_BYTES_MAX as u64 / SMALL_BYTES_MAX as u64 {
            kept.put(place, Revision(100 + n), &stored(n, SMALL_BYTES_MAX));
            assert!(kept.memory_bytes() <= KEPT_BYTES_MAX);
            assert!(kept.memory_bytes() >= SMALL_BYTES_MAX * kept.0.lock().values.len());
        }
        kept.clear();
        assert_eq!(kept.memory_bytes(), 0);
        assert_eq!(found(place, 0, u64::MAX), None);
    }
}
