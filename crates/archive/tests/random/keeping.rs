//! Who keeps the spaces that flushes of a random database left.

use std::sync::Arc;

use archive::Base;

use crate::random::{Keeper, Kept};

/// A base that does.
pub fn keeper(base: &Arc<Base>) -> Keeper {
    let base = base.clone();
    Box::new(move |space, kept| match kept {
        Kept::ForNow => base.claim(space, None),
        Kept::Upto(revision) => {
            base.claim(space, Some(revision));
            base.release(space);
        }
        Kept::NoMore => base.release(space),
    })
}
