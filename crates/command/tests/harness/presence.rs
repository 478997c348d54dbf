//! Which keys there are, told by records alone: whoever follows the log must
//! not need the values to know that a key came or went.

use std::collections::HashSet;

use base::DbIndex;
use keyspace::effect::{Effect, Effects};

/// The keys that the records so far have left.
#[derive(Debug, Default)]
pub struct Presence(HashSet<(DbIndex, Vec<u8>)>);

impl Presence {
    /// Follows a record that begins in `db`.
    ///
    /// # Panics
    /// When it says of a key what the records before it deny.
    pub fn follow(&mut self, db: DbIndex, effects: &[u8]) {
        let mut place = (db, Vec::new());
        for effect in Effects::new(effects) {
            match effect.expect("well-formed") {
                Effect::Database(db) => place.0 = db,
                Effect::Key { key, existed } => {
                    place.1 = key.to_vec();
                    assert_eq!(existed, Some(self.0.contains(&place)), "{}", show(&place));
                }
                Effect::Delete(_) | Effect::Emptied => {
                    assert!(self.0.remove(&place), "{} went twice", show(&place));
                }
                Effect::Rename { db, key, replaces } => {
                    assert!(self.0.remove(&place), "{} moved away, but was not", show(&place));
                    let is_new = self.0.insert((db, key.to_vec()));
                    assert_eq!(replaces, Some(!is_new), "{}", show(&(db, key.to_vec())));
                }
                Effect::Flush { db } => self.0.retain(|(at, _)| *at != db),
                Effect::Swap { a, b } => {
                    let keys = std::mem::take(&mut self.0).into_iter();
                    self.0 = keys
                        .map(|(db, key)| match db {
                            db if db == a => (b, key),
                            db if db == b => (a, key),
                            db => (db, key),
                        })
                        .collect();
                }
                effect if !effect.is_on_key() => {}
                _ => {
                    self.0.insert(place.clone());
                }
            }
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether that key is there.
    pub fn contains(&self, db: DbIndex, key: &[u8]) -> bool {
        self.0.contains(&(db, key.to_vec()))
    }
}

fn show((db, key): &(DbIndex, Vec<u8>)) -> String {
    format!("\"{}\" of database {db}", key.escape_ascii())
}
