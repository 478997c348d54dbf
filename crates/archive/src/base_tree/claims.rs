//! Spaces that were left and that somebody is about to return to.

use std::collections::{BTreeMap, BTreeSet};

use base::{Revision, SpaceId};
use parking_lot::Mutex;

use super::Base;

/// No base gets there.
const SOME_DAY: Revision = Revision(u64::MAX);

/// Spaces that merges are not to take for dead, each until the base has reached
/// a revision; how often.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<(SpaceId, Revision), usize>>);

impl Claims {
    /// The spaces.
    pub(super) fn spaces(&self) -> BTreeSet<SpaceId> {
        self.0.lock().keys().map(|(space, _)| *space).collect()
    }

    /// The base is at `revision`.
    pub(super) fn reached(&self, revision: Revision) {
        self.0.lock().retain(|(_, upto), _| *upto > revision);
    }
}

impl Base {
    /// A space that was left stays until the base has reached `upto`, with which
    /// a database has it again; until it is [released](Base::release), if nobody
    /// knows that yet. What merges may have taken for past by now, the past's
    /// horizon tells.
    pub fn claim(&self, space: SpaceId, upto: Option<Revision>) {
        let upto = upto.unwrap_or(SOME_DAY);
        let mut claims = self.claims.0.lock();
        if upto > self.revision() {
            *claims.entry((space, upto)).or_default() += 1;
        }
    }

    /// Ends a claim to a space until nobody knew when.
    pub fn release(&self, space: SpaceId) {
        let mut claims = self.claims.0.lock();
        if let Some(count) = claims.get_mut(&(space, SOME_DAY)) {
            *count -= 1;
            if *count == 0 {
                claims.remove(&(space, SOME_DAY));
            }
        }
    }
}
