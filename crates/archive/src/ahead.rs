//! Values that take long to read, on their way: they are read while nobody waits
//! with a lock.
//!
//! What a branch inherits does not change any more. What a space has itself may be
//! taken into memory, changed and put back meanwhile; so what was read counts only
//! as long as the head that the key has by then is the one that was read. It tells
//! of the key's last change.

use std::sync::Arc;
use std::time::Duration;

use base::SpaceId;
use keyspace::{BackingError, EncodingLimits, Stored};
use lsm_tree::UserValue;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::base_tree::Base;
use crate::state::{At, Long, State};

/// Values that may be on their way, or wait to be taken, at a time.
const VALUES_MAX: usize = 16;

/// Values that are read at the same time: processors are for clients first.
const READERS_MAX: usize = 2;

/// How often a value is read in vain before it is read where it is asked for: its
/// key was changed meanwhile each time.
const TRIES_MAX: u32 = 3;

/// Whoever wants a value asks again at once. After this time one that was not taken
/// makes room for others that are wanted.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long a value waits to be taken at most: the client is gone.
const WAIT: Duration = Duration::from_secs(2);

/// A key of a space, as of a state that the base reached.
type Place = (SpaceId, At, Box<[u8]>);

/// A value, or that it is on its way.
#[derive(Debug)]
struct Slot {
    number: u64,
    place: Place,
    /// How often it was read in vain before.
    tries: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Others are read first.
    Waits,
    IsRead,
    /// `is_left`: nobody has come back for it in time.
    Done {
        read: Result<Sealed, BackingError>,
        is_left: bool,
    },
}

/// A key, and the value of the head that it was read with.
#[derive(Debug)]
struct Sealed {
    stored: Option<Stored>,
    head: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    last: u64,
}

impl Slots {
    /// Whether it is the turn of a slot that waits.
    fn is_turn(&self, number: u64) -> bool {
        let is_read = |slot: &&Slot| matches!(slot.stage, Stage::IsRead);
        let waits = |slot: &&Slot| matches!(slot.stage, Stage::Waits);
        self.slots.iter().filter(is_read).count() < READERS_MAX
            && self.slots.iter().find(waits).is_none_or(|first| first.number >= number)
    }

    fn get(&mut self, number: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.number == number)
    }
}

/// Tells those who were put off that it pays to ask again.
pub type Awaited = Arc<dyn Fn() + Send + Sync>;

/// See the module's documentation. A base has one.
#[derive(Default)]
pub(crate) struct Ahead {
    slots: Mutex<Slots>,
    changed: Condvar,
    awaited: RwLock<Option<Awaited>>,
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Ahead {
    /// From here on this is called when a value has been read, and when there is
    /// room for another one where there was none.
    pub(crate) fn set_awaited(&self, awaited: Awaited) {
        *self.awaited.write() = Some(awaited);
    }

    /// The caller holds no lock that who asks again needs.
    fn tell(&self) {
        let awaited = self.awaited.read().clone();
        awaited.iter().for_each(|awaited| awaited());
    }

    /// The key, if it has been read, which it is from here on if not. `present`
    /// tells what memory has of one that is inherited, changed since, if that may be
    /// of use. The caller holds the lock under which the key comes into memory.
    pub(crate) fn take(
        self: &Arc<Ahead>,
        base: &Arc<Base>,
        limits: EncodingLimits,
        &Long { space, at, ref head }: &Long,
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
        let mut tries = 0;
        if let Some(found) = slots.iter().position(is_it) {
            if !matches!(slots[found].stage, Stage::Done { .. }) {
                return Err(later());
            }
            self.changed.notify_all();
            let slot = slots.remove(found);
            let Stage::Done { read, .. } = slot.stage else { unreachable!("just seen") };
            let Sealed { stored, head: was } = read?;
            if was.as_deref() == Some(&head[..]) {
                return Ok(stored);
            }
            tries = slot.tries + 1;
            if tries == TRIES_MAX {
                drop(held);
                let (stored, _) =
                    State::new(base.clone(), At::Newest, limits).fetch_own(space, at, hash, key)?;
                return Ok(stored);
            }
        }
        if slots.len() >= VALUES_MAX {
            let is_left = |slot: &Slot| matches!(slot.stage, Stage::Done { is_left: true, .. });
            let Some(left) = slots.iter().position(is_left) else { return Err(later()) };
            slots.remove(left);
            self.changed.notify_all();
        }
        *last += 1;
        let reading = Reading { ahead: self.clone(), number: *last };
        let place: Place = (space, at, key.into());
        let (state, of) = (State::new(base.clone(), At::Newest, limits), place.clone());
        slots.push(Slot { number: *last, place, tries, stage: Stage::Waits });
        // If there is no thread, its place has to be taken back; and memory is asked
        // with locks that others hold who come here.
        drop(held);
        let present = match at {
            At::Newest => None,
            At::Revision(_) => present(),
        };
        let (base, head) = (base.clone(), head.clone());
        let reader = std::thread::Builder::new()
            .name("fetch".to_owned())
            .spawn(move || reading.run(base, state, of, hash, head, present));
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
    #[allow(clippy::too_many_arguments, reason = "all that a thread is given")]
    fn run(
        self,
        base: Arc<Base>,
        state: State,
        (space, at, key): Place,
        hash: u64,
        head: UserValue,
        present: Option<Stored>,
    ) {
        let (ahead, number) = (&self.ahead, self.number);
        let mut held = ahead.slots.lock();
        ahead.changed.wait_while(&mut held, |held| !held.is_turn(number));
        held.get(number).into_iter().for_each(|slot| slot.stage = Stage::IsRead);
        drop(held);
        let made = match (present, at) {
            (Some(present), At::Revision(at)) => base.remake(space, at, &key, present),
            _ => None,
        };
        let read = match made {
            Some(made) => Ok(Sealed { stored: Some(made), head: Some(head.to_vec()) }),
            None => {
                let read = state.fetch_own(space, at, hash, &key);
                read.map(|(stored, head)| Sealed { stored, head })
            }
        };
        // Nobody need wait for this one to close the base.
        drop((base, state));
        let mut held = ahead.slots.lock();
        if let Some(slot) = held.get(number) {
            slot.stage = Stage::Done { read, is_left: false };
        }
        ahead.changed.notify_all();
        drop(held);
        ahead.tell();
        held = ahead.slots.lock();
        let is_there = |held: &mut Slots| held.get(number).is_some();
        ahead.changed.wait_while_for(&mut held, is_there, PATIENCE);
        if let Some(Slot { stage: Stage::Done { is_left, .. }, .. }) = held.get(number) {
            *is_left = true;
        }
        ahead.changed.wait_while_for(&mut held, is_there, WAIT);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut held = self.ahead.slots.lock();
        held.slots.retain(|slot| slot.number != self.number);
        let had_no_room = held.slots.len() + 1 >= VALUES_MAX;
        drop(held);
        self.ahead.changed.notify_all();
        if had_no_room {
            self.ahead.tell();
        }
    }
}

fn later() -> BackingError {
    BackingError::later("the value is being read")
}

#[cfg(test)]
mod tests {
    use base::Revision;
    use testkit::temp_dir;

    use super::*;

    fn count(ahead: &Ahead) -> usize {
        ahead.slots.lock().slots.len()
    }

    fn opened() -> (testkit::TempDir, Arc<Base>, Arc<Ahead>) {
        let folder = temp_dir();
        let base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
        (folder, Arc::new(base), Arc::new(Ahead::default()))
    }

    fn take(
        (base, ahead): (&Arc<Base>, &Arc<Ahead>),
        key: &[u8],
    ) -> Result<Option<Stored>, BackingError> {
        let (space, at) = (SpaceId::first_of(0), At::Revision(Revision::ZERO));
        let long = Long { space, at, head: (&b"head"[..]).into() };
        ahead.take(base, EncodingLimits::default(), &long, 1, key, &|| None)
    }

    fn is_later(read: &Result<Option<Stored>, BackingError>) -> bool {
        matches!(read, Err(error) if error.is_later())
    }

    #[test]
    fn what_nobody_takes_does_not_stay() {
        let (_folder, base, ahead) = opened();
        let of = (&base, &ahead);
        assert!(is_later(&take(of, b"left")));
        // Whoever comes back gets it, though its head is never what it was.
        let found = loop {
            match take(of, b"taken") {
                later if is_later(&later) => std::thread::yield_now(),
                found => break found,
            }
        };
        assert!(found.expect("it can be read").is_none());
        ahead.changed.wait_while(&mut ahead.slots.lock(), |held| !held.slots.is_empty());
    }

    #[test]
    fn who_comes_back_finds_a_value_however_many_others_want_theirs() {
        let (_folder, base, ahead) = opened();
        let of = (&base, &ahead);
        let mut left: Vec<String> = (0..3 * VALUES_MAX).map(|n| n.to_string()).collect();
        while !left.is_empty() {
            left.retain(|key| is_later(&take(of, key.as_bytes())));
            assert!(count(&ahead) <= VALUES_MAX);
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_was_put_off_is_told_when_to_ask_again() {
        let (_folder, base, ahead) = opened();
        let (told, tells) = std::sync::mpsc::channel();
        ahead.set_awaited(Arc::new(move || _ = told.send(())));
        // Its head is never what it was.
        for _ in 0..TRIES_MAX {
            assert!(is_later(&take((&base, &ahead), b"k")));
            tells.recv().expect("the reader tells");
        }
        assert!(!is_later(&take((&base, &ahead), b"k")));

        let wait = |n: usize| Slot {
            number: n as u64,
            place: (SpaceId::first_of(0), At::Newest, n.to_string().into_bytes().into()),
            tries: 0,
            stage: Stage::IsRead,
        };
        ahead.changed.wait_while(&mut ahead.slots.lock(), |held| !held.slots.is_empty());
        ahead.slots.lock().slots.extend((100..100 + VALUES_MAX).map(wait));
        assert!(is_later(&take((&base, &ahead), b"k")));
        assert!(tells.try_recv().is_err(), "no more than was read");
        drop(Reading { ahead: ahead.clone(), number: 100 });
        tells.recv().expect("there is room");
    }

    #[test]
    fn a_reader_that_ends_early_leaves_nothing() {
        let ahead = Arc::new(Ahead::default());
        let place = (SpaceId::first_of(0), At::Newest, b"k"[..].into());
        let slot = Slot { number: 7, place, tries: 0, stage: Stage::Waits };
        ahead.slots.lock().slots.push(slot);
        drop(Reading { ahead: ahead.clone(), number: 6 });
        assert_eq!(count(&ahead), 1);
        drop(Reading { ahead: ahead.clone(), number: 7 });
        assert_eq!(count(&ahead), 0);
    }
}
