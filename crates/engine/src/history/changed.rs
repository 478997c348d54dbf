//! What a transaction changed, each key and each database once.

use std::collections::HashMap;

use base::DbIndex;
use keyspace::effect::Effect;
use smallvec::SmallVec;

use super::events::{Touch, What};

/// What became of a key, or of a database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change<'r> {
    pub(crate) db: DbIndex,
    /// `None`: every key of the database.
    pub(crate) key: Option<&'r [u8]>,
    pub(crate) what: What<'r>,
    pub(crate) after: After<'r>,
    /// The number of the effect that was the last on it, from 1 on.
    pub(crate) last: usize,
}

/// The value after the transaction, as far as its record tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum After<'r> {
    Text(&'r [u8]),
    Nothing,
    Untold,
}

/// Gathers what a transaction did, effect by effect.
#[derive(Debug, Default)]
pub(crate) struct Changed<'r> {
    changes: SmallVec<[Change<'r>; 1]>,
    /// Where each is, once there are more than a few.
    places: HashMap<Name<'r>, usize>,
    effects: usize,
}

type Name<'r> = (DbIndex, Option<&'r [u8]>);

/// Changes up to which one is found by looking at each.
const FEW: usize = 16;

impl<'r> Changed<'r> {
    /// Takes in the next effect.
    pub(crate) fn add(&mut self, touch: Touch<'r>) {
        let Touch { db, key, what, effect, .. } = touch;
        if key.is_none() {
            self.change_whole(db, what);
        }
        let after = match effect {
            Effect::StrSet { value, .. } => Some(After::Text(value)),
            Effect::Deadline(_) => None,
            _ if key.is_none() || what.is_removal() => Some(After::Nothing),
            _ => Some(After::Untold),
        };
        self.effects += 1;
        let last = self.effects;
        match self.place_of((db, key)) {
            Some(place) => {
                let change = &mut self.changes[place];
                change.what = change.what.then(what);
                change.after = after.unwrap_or(change.after);
                change.last = last;
            }
            None => {
                let after = after.unwrap_or(After::Untold);
                self.changes.push(Change { db, key, what, after, last });
                match self.changes.len() {
                    0..=FEW => {}
                    len if len == FEW + 1 => self.find_places(),
                    len => drop(self.places.insert((db, key), len - 1)),
                }
            }
        }
    }

    /// Passes over an effect that is of no interest, so that the numbers of the
    /// others do not depend on what is.
    pub(crate) fn pass(&mut self) {
        self.effects += 1;
    }

    /// How many effects it was shown.
    pub(crate) fn effects(&self) -> usize {
        self.effects
    }

    /// All, in the order of the last effect on each: who follows them ends with
    /// what the transaction left.
    pub(crate) fn into_changes(mut self) -> SmallVec<[Change<'r>; 1]> {
        if !self.changes.is_sorted_by_key(|change| change.last) {
            self.changes.sort_unstable_by_key(|change| change.last);
        }
        self.changes
    }

    /// A database changes as a whole, and whatever became of its keys so far
    /// may not be so any more.
    fn change_whole(&mut self, db: DbIndex, what: What<'_>) {
        let is_of_it = |change: &Change<'_>| change.db == db && change.key.is_some();
        if what != What::Flushed {
            let of_it = self.changes.iter_mut().filter(|change| is_of_it(change));
            of_it.for_each(|change| change.after = After::Untold);
        } else if self.changes.iter().any(is_of_it) {
            // That they are gone is said of all at once.
            self.changes.retain(|change| !is_of_it(change));
            self.find_places();
        }
    }

    fn place_of(&self, name: Name<'r>) -> Option<usize> {
        if self.changes.len() <= FEW {
            self.changes.iter().position(|change| (change.db, change.key) == name)
        } else {
            self.places.get(&name).copied()
        }
    }

    fn find_places(&mut self) {
        self.places.clear();
        if self.changes.len() > FEW {
            let all = self.changes.iter().map(|change| (change.db, change.key));
            self.places.extend(all.zip(0..));
        }
    }
}
