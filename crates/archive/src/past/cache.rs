//! States of the past that were looked at lately: who looks through keys comes
//! back.

use std::sync::Arc;

use base::{BranchId, Revision};
use keyspace::Keyspace;
use parking_lot::Mutex;

/// States that are kept.
const VIEWS_MAX: usize = 16;

/// Bytes of memory that all but the newest of them may take.
const BYTES_MAX: usize = 64 << 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    /// Whose state it is, and when.
    place: (BranchId, Revision),
    /// The state of the base that it is made from.
    batch: Revision,
    is_whole: bool,
    keyspace: Arc<Keyspace>,
}

impl Cache {
    /// The state of a branch at a revision; all of it, if `whole`. What was made from a
    /// state of the base that is older than `oldest` is let go.
    pub(super) fn get(
        &self,
        place: (BranchId, Revision),
        whole: bool,
        oldest: Revision,
    ) -> Option<Arc<Keyspace>> {
        let mut kept = self.0.lock();
        kept.retain(|view| view.batch >= oldest);
        let fits = |view: &Kept| view.place == place && (view.is_whole || !whole);
        let found = kept.iter().rposition(fits)?;
        let found = kept.remove(found);
        let keyspace = found.keyspace.clone();
        kept.push(found);
        trim(&mut kept);
        Some(keyspace)
    }

    /// Keeps a state; answers the one to use, for somebody else may have made
    /// the same.
    pub(super) fn put(
        &self,
        place: (BranchId, Revision),
        batch: Revision,
        is_whole: bool,
        keyspace: Keyspace,
    ) -> Arc<Keyspace> {
        let mut kept = self.0.lock();
        let same =
            |view: &Kept| (view.place, view.batch, view.is_whole) == (place, batch, is_whole);
        if let Some(found) = kept.iter().find(|view| same(view)) {
            return found.keyspace.clone();
        }
        let keyspace = Arc::new(keyspace);
        kept.push(Kept { place, batch, is_whole, keyspace: keyspace.clone() });
        trim(&mut kept);
        keyspace
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.lock().iter().map(|view| view.keyspace.memory_bytes()).sum()
    }

    /// Lets go of everything.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Lets go of what was made from a state of the base older than this.
    pub(super) fn forget_before(&self, oldest: Revision) {
        self.0.lock().retain(|view| view.batch >= oldest);
    }
}

/// Lets go of what was not looked at for longest. They grow while they are
/// looked at, so this is asked every time.
fn trim(kept: &mut Vec<Kept>) {
    let Some(newest) = kept.len().checked_sub(1) else { return };
    let mut bytes = 0;
    let fits = |view: &&Kept| {
        bytes += view.keyspace.memory_bytes();
        bytes <= BYTES_MAX
    };
    let stay = kept[..newest].iter().rev().take(VIEWS_MAX - 1).take_while(fits).count();
    kept.drain(..newest - stay);
}
