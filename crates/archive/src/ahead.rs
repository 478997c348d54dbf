//! Values that take long to read, on their way: what a branch inherits can be
//! read while nobody waits with a lock, because it does not change any more.

use std::sync::Arc;

use base::{Revision, SpaceId};
use keyspace::{BackingError, EncodingLimits, Stored};
use parking_lot::Mutex;

use crate::base_tree::Base;
use crate::state::{At, State};

/// Values that may be on their way, or wait to be taken, at a time.
const VALUES_MAX: usize = 8;

/// A key of a space, as of a state that the base reached.
type Place = (SpaceId, Revision, Box<[u8]>);

/// What was read, once it was.
type Read = Option<Result<Option<Stored>, BackingError>>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<Vec<(Place, Read)>>);

impl Ahead {
    /// The key, if it has been read, which it is from here on if not.
    pub(crate) fn take(
        self: &Arc<Ahead>,
        base: &Arc<Base>,
        limits: EncodingLimits,
        (space, at): (SpaceId, Revision),
        hash: u64,
        key: &[u8],
    ) -> Result<Option<Stored>, BackingError> {
        let mut values = self.0.lock();
        let found = values
            .iter()
            .position(|((of, as_of, name), _)| (*of, *as_of) == (space, at) && **name == *key);
        if let Some(found) = found {
            return match &values[found].1 {
                None => Err(later()),
                Some(_) => values.remove(found).1.expect("just seen"),
            };
        }
        if values.len() >= VALUES_MAX {
            // One that nobody has come back for.
            let Some(left) = values.iter().position(|(_, read)| read.is_some()) else {
                return Err(later());
            };
            values.remove(left);
        }
        let place: Place = (space, at, key.into());
        let (ahead, state) = (self.clone(), State::new(base.clone(), At::Newest, limits));
        let of = place.clone();
        let reader = std::thread::Builder::new().name("fetch".to_owned()).spawn(move || {
            let read = state.fetch_own(space, at, hash, &of.2);
            let mut values = ahead.0.lock();
            if let Some((_, value)) = values.iter_mut().find(|(place, _)| *place == of) {
                *value = Some(read);
            }
        });
        match reader {
            Ok(_) => values.push((place, None)),
            Err(error) => {
                return Err(BackingError::new(format!("no thread can be started: {error}")));
            }
        }
        Err(later())
    }
}

fn later() -> BackingError {
    BackingError::later("the value is being read")
}
