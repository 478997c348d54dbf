//! What comes of the keys of a merge, each by itself and all together.

use super::super::common::Place;
use super::look::Found;
use super::{Counts, Undecided};

/// What comes of a key, as long as neither branch changes it.
pub(super) struct Outcome<T> {
    /// When it expires on one of the sides, in milliseconds since 1970: from
    /// then on something else comes of it.
    pub(super) holds_until: u64,
    /// What both have done alike, or theirs has taken back, is something to
    /// remember: else a later merge would begin with what was there before.
    pub(super) is_something: bool,
    /// Both sides had changed it, and nobody had to decide.
    pub(super) is_auto_merged: bool,
    pub(super) step: Step<T>,
}

/// What becomes of a key on our side.
pub(super) enum Step<T> {
    Nothing,
    /// Nothing, but it is not what theirs has.
    Kept,
    Write {
        what: What,
        /// Those that make it so; empty for who only counts.
        effects: Vec<u8>,
        bytes: usize,
    },
    Undecided {
        digest: u64,
        seen: T,
    },
}

/// What a write does to a key.
#[derive(Clone, Copy)]
pub(super) enum What {
    Add,
    Change,
    Remove,
}

/// What comes of all keys.
#[derive(Default)]
pub(super) struct Sum {
    pub(super) counts: Counts,
    /// As of [`Outcome::is_something`].
    pub(super) is_something: bool,
    pub(super) is_undecided: bool,
    pub(super) bytes: usize,
}

impl<T> Found<T> {
    /// All outcomes together.
    pub(super) fn sum(&self) -> Sum {
        let mut sum = Sum { is_something: self.theirs.has_own(), ..Sum::default() };
        for outcome in self.keys.values().filter_map(|looked| looked.outcome.as_ref()) {
            sum.is_something |= outcome.is_something;
            sum.counts.auto_merged += u64::from(outcome.is_auto_merged);
            match &outcome.step {
                Step::Nothing | Step::Kept => {}
                Step::Write { what, bytes, .. } => {
                    sum.bytes += bytes;
                    *match what {
                        What::Add => &mut sum.counts.added,
                        What::Change => &mut sum.counts.changed,
                        What::Remove => &mut sum.counts.removed,
                    } += 1;
                }
                Step::Undecided { .. } => sum.is_undecided = true,
            }
        }
        sum
    }

    /// The keys that are to be written, and by which effects.
    pub(super) fn writes(&self) -> impl Iterator<Item = (&Place, &[u8])> {
        self.keys.iter().filter_map(|(place, looked)| match &looked.outcome.as_ref()?.step {
            Step::Write { effects, .. } => Some((place, &effects[..])),
            Step::Nothing | Step::Kept | Step::Undecided { .. } => None,
        })
    }

    /// The keys that stay as they are, although theirs has something else.
    pub(super) fn kept(&self) -> Vec<Place> {
        let is_kept = |looked: &Option<Outcome<T>>| {
            looked.as_ref().is_some_and(|outcome| matches!(outcome.step, Step::Kept))
        };
        let kept = self.keys.iter().filter(|(_, looked)| is_kept(&looked.outcome));
        kept.map(|(place, _)| place.clone()).collect()
    }

    /// Takes out the keys that nobody has decided.
    pub(super) fn take_undecided(&mut self) -> Vec<Undecided<T>> {
        let keys = std::mem::take(&mut self.keys).into_iter();
        let undecided = keys.filter_map(|(place, looked)| match looked.outcome?.step {
            Step::Undecided { digest, seen } => Some(Undecided { place, digest, seen }),
            Step::Nothing | Step::Kept | Step::Write { .. } => None,
        });
        undecided.collect()
    }
}
