//! Values that take long to read, on their way: what a branch inherits can be
//! read while nobody waits with a lock, because it does not change any more.

use std::sync::Arc;
use std::time::Duration;

use base::{Revision, SpaceId};
use keyspace::{BackingError, EncodingLimits, Stored};
use parking_lot::{Condvar, Mutex};

use crate::base_tree::Base;
use crate::state::{At, State};

/// Values that may be on their way, or wait to be taken, at a time.
const VALUES_MAX: usize = 16;

/// How long a value waits to be taken: whoever wants it asks again at once,
/// unless the client is gone.
const WAIT: Duration = Duration::from_secs(2);

/// A key of a space, as of a state that the base reached.
type Place = (SpaceId, Revision, Box<[u8]>);

/// A value, or that it is on its way.
#[derive(Debug)]
struct Slot {
    number: u64,
    place: Place,
    read: Option<Result<Option<Stored>, BackingError>>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    last: u64,
}

/// See the module's documentation. A base has one.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    slots: Mutex<Slots>,
    changed: Condvar,
}

impl Ahead {
    /// The key, if it has been read, which it is from here on if not. `present`
    /// tells what memory has of it, changed since, if that may be of use.
    pub(crate) fn take(
        self: &Arc<Ahead>,
        base: &Arc<Base>,
        limits: EncodingLimits,
        (space, at): (SpaceId, Revision),
        hash: u64,
        key: &[u8],
        present: &dyn Fn() -> Option<Stored>,
    ) -> Result<Option<Stored>, BackingError> {
        let mut held = self.slots.lock();
        let Slots { slots, last } = &mut *held;
        let is_it = |slot: &Slot| {
            let (of, as_of, name) = &slot.place;
            (*of, *as_of) == (space, at) && **name == *key
        };
        if let Some(found) = slots.iter().position(is_it) {
            if slots[found].read.is_none() {
                return Err(later());
            }
            self.changed.notify_all();
            return slots.remove(found).read.expect("just seen");
        }
        if slots.len() >= VALUES_MAX {
            // One that nobody has come back for.
            let Some(left) = slots.iter().position(|slot| slot.read.is_some()) else {
                return Err(later());
            };
            slots.remove(left);
            self.changed.notify_all();
        }
        *last += 1;
        let reading = Reading { ahead: self.clone(), number: *last };
        let place: Place = (space, at, key.into());
        let (state, of) = (State::new(base.clone(), At::Newest, limits), place.clone());
        slots.push(Slot { number: *last, place, read: None });
        // If there is no thread, its place has to be taken back; and memory is asked
        // with locks that others hold who come here.
        drop(held);
        let (base, present) = (base.clone(), present());
        let reader = std::thread::Builder::new()
            .name("fetch".to_owned())
            .spawn(move || reading.run(base, state, of, hash, present));
        match reader {
            Ok(_) => Err(later()),
            Err(error) => Err(BackingError::new(format!("no thread can be started: {error}"))),
        }
    }
}

/// Whoever reads a value. What nobody has taken goes with it.
struct Reading {
    ahead: Arc<Ahead>,
    number: u64,
}

impl Reading {
    fn run(
        self,
        base: Arc<Base>,
        state: State,
        (space, at, key): Place,
        hash: u64,
        present: Option<Stored>,
    ) {
        let made = present.and_then(|present| base.remake(space, at, &key, present));
        let read = match made {
            Some(made) => Ok(Some(made)),
            None => state.fetch_own(space, at, hash, &key),
        };
        // Nobody need wait for this one to close the base.
        drop((base, state));
        let mut held = self.ahead.slots.lock();
        if let Some(slot) = held.slots.iter_mut().find(|slot| slot.number == self.number) {
            slot.read = Some(read);
        }
        let is_there = |held: &mut Slots| held.slots.iter().any(|it| it.number == self.number);
        self.ahead.changed.wait_while_for(&mut held, is_there, WAIT);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.ahead.slots.lock().slots.retain(|slot| slot.number != self.number);
        self.ahead.changed.notify_all();
    }
}

fn later() -> BackingError {
    BackingError::later("the value is being read")
}

#[cfg(test)]
mod tests {
    use testkit::temp_dir;

    use super::*;

    fn count(ahead: &Ahead) -> usize {
        ahead.slots.lock().slots.len()
    }

    #[test]
    fn what_nobody_takes_does_not_stay() {
        let folder = temp_dir();
        let base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
        let (base, ahead) = (Arc::new(base), Arc::new(Ahead::default()));
        let limits = EncodingLimits::default();
        let take = |key: &[u8]| {
            let place = (SpaceId::first_of(0), Revision::ZERO);
            ahead.take(&base, limits, place, 1, key, &|| None)
        };
        assert!(take(b"left").expect_err("it is being read").is_later());
        // Whoever comes back gets it, once.
        let found = loop {
            match take(b"taken") {
                Err(error) if error.is_later() => std::thread::yield_now(),
                found => break found,
            }
        };
        assert!(found.expect("it can be read").is_none());
        ahead.changed.wait_while(&mut ahead.slots.lock(), |held| !held.slots.is_empty());
    }

    #[test]
    fn a_reader_that_ends_early_leaves_nothing() {
        let ahead = Arc::new(Ahead::default());
        let place = (SpaceId::first_of(0), Revision::ZERO, b"k"[..].into());
        ahead.slots.lock().slots.push(Slot { number: 7, place, read: None });
        drop(Reading { ahead: ahead.clone(), number: 6 });
        assert_eq!(count(&ahead), 1);
        drop(Reading { ahead: ahead.clone(), number: 7 });
        assert_eq!(count(&ahead), 0);
    }
}
