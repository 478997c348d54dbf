//! States of the past that were looked at lately: who looks through keys comes
//! back.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{BranchId, Revision};
use keyspace::Keyspace;
use parking_lot::Mutex;

/// States that are kept.
const VIEWS_MAX: usize = 16;

/// Bytes of memory that all but the newest of them may take.
const BYTES_MAX: usize = 64 << 20;

/// Revisions of which it is counted how often they were asked for.
const COUNTED_MAX: usize = 32;

/// Times that a revision is asked for before its state is worth making: that
/// costs as much as to read so many keys, about.
const ASKED_ENOUGH: u32 = 8;

/// States are handed out so often before their memory is counted again.
const TURNS: u32 = 64;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last asked for is the last.
    kept: Vec<Kept>,
    /// Revisions whose state is not kept, and how often they were asked for.
    asked: VecDeque<(Place, u32)>,
    turn: u32,
}

/// What to do about a state.
#[derive(Debug)]
pub(super) enum Wanted {
    /// It is kept.
    Kept(Arc<Keyspace>),
    /// It has been asked for often enough to be made.
    Again,
    /// It has not.
    Seldom,
}

/// Whose state it is, and when.
type Place = (BranchId, Revision);

#[derive(Debug)]
struct Kept {
    place: Place,
    /// The state of the base that it is made from.
    batch: Revision,
    is_whole: bool,
    keyspace: Arc<Keyspace>,
}

impl Cache {
    /// The state of a branch at a revision; all of it, if `whole`. What was made
    /// from an older state of the base than `oldest` is let go, unless it is that
    /// state.
    pub(super) fn get(&self, place: Place, whole: bool, oldest: Revision) -> Option<Arc<Keyspace>> {
        self.0.lock().get(place, whole, oldest)
    }

    /// As [`Cache::get`] for keys by name, and counts that it was asked for.
    pub(super) fn get_or_count(&self, place: Place, oldest: Revision) -> Wanted {
        let mut state = self.0.lock();
        if let Some(found) = state.get(place, false, oldest) {
            return Wanted::Kept(found);
        }
        if let Some(at) = state.asked.iter().position(|&(asked, _)| asked == place) {
            state.asked[at].1 += 1;
            if state.asked[at].1 < ASKED_ENOUGH {
                return Wanted::Seldom;
            }
            state.asked.remove(at);
            return Wanted::Again;
        }
        if state.asked.len() >= COUNTED_MAX {
            state.asked.pop_front();
        }
        state.asked.push_back((place, 1));
        Wanted::Seldom
    }

    /// Keeps a state; answers the one to use, for somebody else may have made
    /// the same.
    pub(super) fn put(
        &self,
        place: Place,
        batch: Revision,
        is_whole: bool,
        keyspace: Keyspace,
    ) -> Arc<Keyspace> {
        let kept = &mut self.0.lock().kept;
        let same =
            |view: &Kept| (view.place, view.batch, view.is_whole) == (place, batch, is_whole);
        if let Some(found) = kept.iter().find(|view| same(view)) {
            return found.keyspace.clone();
        }
        let keyspace = Arc::new(keyspace);
        kept.push(Kept { place, batch, is_whole, keyspace: keyspace.clone() });
        trim(kept);
        keyspace
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.lock().kept.iter().map(|view| view.keyspace.memory_bytes()).sum()
    }

    /// Lets go of everything.
    pub(super) fn clear(&self) {
        self.0.lock().kept.clear();
    }

    /// Lets go of what was made from a state of the base older than this.
    pub(super) fn forget_before(&self, oldest: Revision) {
        self.0.lock().kept.retain(|view| view.is_kept(oldest));
    }
}

impl Kept {
    /// Whether the state of the base that it is made from, and what came since,
    /// may be there still, if nothing before `oldest` is but states that have a
    /// name.
    fn is_kept(&self, oldest: Revision) -> bool {
        self.batch >= oldest || self.batch == self.place.1
    }
}

impl State {
    fn get(&mut self, place: Place, whole: bool, oldest: Revision) -> Option<Arc<Keyspace>> {
        self.kept.retain(|view| view.is_kept(oldest));
        let fits = |view: &Kept| view.place == place && (view.is_whole || !whole);
        let found = self.kept.iter().rposition(fits)?;
        let found = self.kept.remove(found);
        let keyspace = found.keyspace.clone();
        self.kept.push(found);
        self.turn = (self.turn + 1) % TURNS;
        if self.turn == 0 {
            trim(&mut self.kept);
        }
        Some(keyspace)
    }
}

/// Lets go of what was not looked at for longest. They grow while they are
/// looked at, so this is asked now and then.
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
