//! Which watches want to hear of a key.
//!
//! Keys are found by their hash, prefixes by at most a few steps in an ordered
//! map. A pattern stands under what it begins with before its first wildcard,
//! so only those are tried that the key begins with.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Bound, Range};

use base::{BranchId, DbIndex, glob};
use keyspace::effect::{Effect, Effects};
use smallvec::SmallVec;

/// What a watch is about: keys that any of these names; all keys without any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) prefixes: Vec<Vec<u8>>,
    pub(super) patterns: Vec<Vec<u8>>,
}

/// A watch, by its id.
type Id = u64;

impl Selection {
    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.prefixes.len() + self.patterns.len()
    }

    pub(super) fn is_everything(&self) -> bool {
        self.len() == 0
    }

    /// The prefixes to look under, with the pattern that the whole key has to
    /// match, if there is one.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let everything: Option<(&[u8], _)> = self.is_everything().then_some((b"", None));
        let prefixes = self.prefixes.iter().map(|prefix| (prefix.as_slice(), None));
        let patterns = self.patterns.iter().map(|pattern| {
            let wildcard = pattern.iter().position(|byte| b"*?[\\".contains(byte));
            (&pattern[..wildcard.unwrap_or(pattern.len())], Some(pattern.as_slice()))
        });
        everything.into_iter().chain(prefixes).chain(patterns)
    }
}

/// The selections of many watches.
#[derive(Debug, Default)]
pub(super) struct Rules {
    databases: BTreeMap<(BranchId, DbIndex), Database>,
}

#[derive(Debug)]
struct Database {
    watches: BTreeSet<Id>,
    keys: HashMap<Vec<u8>, BTreeSet<Id>>,
    /// Those that every key has.
    empty: Beginning,
    /// All others.
    beginnings: BTreeMap<Vec<u8>, Beginning>,
    /// How many of the beginnings have each first byte: most keys that nobody
    /// watches are known by that, without a search.
    by_first_byte: [u32; 256],
}

impl Default for Database {
    fn default() -> Database {
        Database {
            watches: BTreeSet::new(),
            keys: HashMap::new(),
            empty: Beginning::default(),
            beginnings: BTreeMap::new(),
            by_first_byte: [0; 256],
        }
    }
}

/// What stands under a prefix.
#[derive(Debug, Default)]
struct Beginning {
    /// Who wants every key with it.
    all: BTreeSet<Id>,
    patterns: BTreeMap<Vec<u8>, BTreeSet<Id>>,
}

impl Beginning {
    fn is_unused(&self) -> bool {
        self.all.is_empty() && self.patterns.is_empty()
    }
}

impl Rules {
    /// Adds a watch of these databases of a branch.
    pub(super) fn add(
        &mut self,
        id: Id,
        branch: BranchId,
        dbs: Range<DbIndex>,
        selection: &Selection,
    ) {
        for db in dbs {
            self.databases.entry((branch, db)).or_default().add(id, selection);
        }
    }

    /// Forgets a watch that was added with the same arguments.
    pub(super) fn remove(
        &mut self,
        id: Id,
        branch: BranchId,
        dbs: Range<DbIndex>,
        selection: &Selection,
    ) {
        for db in dbs {
            let Some(database) = self.databases.get_mut(&(branch, db)) else { continue };
            database.remove(id, selection);
            if database.watches.is_empty() {
                self.databases.remove(&(branch, db));
            }
        }
    }

    /// Whether any of it is about another branch.
    pub(super) fn has_other_than(&self, branch: BranchId) -> bool {
        self.databases.keys().any(|(other, _)| *other != branch)
    }

    /// Whether anybody hears of a transaction on a branch. Bytes that cannot be read are
    /// for those who say what is wrong with them.
    pub(super) fn is_touched_by(
        &self,
        branch: BranchId,
        first_db: DbIndex,
        effects: &[u8],
    ) -> bool {
        let (mut db, mut database) = (first_db, self.databases.get(&(branch, first_db)));
        for effect in Effects::new(effects) {
            let is_touched = match effect {
                Ok(Effect::Key { key, .. }) => database.is_some_and(|found| found.wants(key)),
                Ok(Effect::Rename { db: to, key, .. }) => self.wants(branch, to, Some(key)),
                Ok(Effect::Flush { db } | Effect::Return { db, .. }) => {
                    self.wants(branch, db, None)
                }
                Ok(Effect::Swap { a, b }) => {
                    self.wants(branch, a, None) || self.wants(branch, b, None)
                }
                Ok(Effect::Database(other)) => {
                    if other != db {
                        (db, database) = (other, self.databases.get(&(branch, other)));
                    }
                    false
                }
                Ok(_) => false,
                Err(_) => true,
            };
            if is_touched {
                return true;
            }
        }
        false
    }

    /// Whether anybody hears of a key, or of the database as a whole.
    pub(super) fn wants(&self, branch: BranchId, db: DbIndex, key: Option<&[u8]>) -> bool {
        let database = self.databases.get(&(branch, db));
        database.is_some_and(|found| key.is_none_or(|key| found.wants(key)))
    }

    /// Who hears of a key, or of the database as a whole: in order, each once.
    pub(super) fn listeners(
        &self,
        branch: BranchId,
        db: DbIndex,
        key: Option<&[u8]>,
    ) -> SmallVec<[Id; 4]> {
        let Some(database) = self.databases.get(&(branch, db)) else { return SmallVec::new() };
        let Some(key) = key else { return database.watches.iter().copied().collect() };
        let mut ids: SmallVec<[Id; 4]> = SmallVec::new();
        if !database.keys.is_empty() {
            ids.extend(database.keys.get(key).into_iter().flatten().copied());
        }
        database.find_beginning(key, |beginning| {
            ids.extend(beginning.all.iter().copied());
            for (pattern, watches) in &beginning.patterns {
                if glob::matches(pattern, key) {
                    ids.extend(watches.iter().copied());
                }
            }
            false
        });
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

impl Database {
    fn add(&mut self, id: Id, selection: &Selection) {
        self.watches.insert(id);
        for key in &selection.keys {
            self.keys.entry(key.clone()).or_default().insert(id);
        }
        for (prefix, pattern) in selection.beginnings() {
            let beginning = match prefix.first() {
                None => &mut self.empty,
                Some(first) => {
                    if !self.beginnings.contains_key(prefix) {
                        self.by_first_byte[usize::from(*first)] += 1;
                    }
                    self.beginnings.entry(prefix.to_vec()).or_default()
                }
            };
            match pattern {
                None => beginning.all.insert(id),
                Some(pattern) => beginning.patterns.entry(pattern.to_vec()).or_default().insert(id),
            };
        }
    }

    fn remove(&mut self, id: Id, selection: &Selection) {
        self.watches.remove(&id);
        for key in &selection.keys {
            if let Some(ids) = self.keys.get_mut(key) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.keys.remove(key);
                }
            }
        }
        for (prefix, pattern) in selection.beginnings() {
            let named = match prefix {
                [] => Some(&mut self.empty),
                _ => self.beginnings.get_mut(prefix),
            };
            let Some(beginning) = named else { continue };
            beginning.all.remove(&id);
            if let Some(pattern) = pattern
                && let Some(ids) = beginning.patterns.get_mut(pattern)
            {
                ids.remove(&id);
                if ids.is_empty() {
                    beginning.patterns.remove(pattern);
                }
            }
            if beginning.is_unused()
                && let Some(first) = prefix.first()
            {
                self.beginnings.remove(prefix);
                self.by_first_byte[usize::from(*first)] -= 1;
            }
        }
    }

    fn wants(&self, key: &[u8]) -> bool {
        (!self.keys.is_empty() && self.keys.contains_key(key))
            || self.find_beginning(key, |beginning| {
                !beginning.all.is_empty()
                    || beginning.patterns.keys().any(|pattern| glob::matches(pattern, key))
            })
    }

    /// Visits what stands under each prefix that the key has, until a visit
    /// answers `true`; whether one did.
    fn find_beginning(&self, key: &[u8], mut visit: impl FnMut(&Beginning) -> bool) -> bool {
        if !self.empty.is_unused() && visit(&self.empty) {
            return true;
        }
        let mut bound = match key.first() {
            Some(first) if self.by_first_byte[usize::from(*first)] > 0 => key,
            _ => return false,
        };
        while !bound.is_empty() {
            let upto = (Bound::Unbounded, Bound::Included(bound));
            let Some((prefix, beginning)) = self.beginnings.range::<[u8], _>(upto).next_back()
            else {
                return false;
            };
            let common = prefix.iter().zip(bound).take_while(|(a, b)| a == b).count();
            if common < prefix.len() {
                // A prefix of the key that is longer than what these two have
                // in common would stand behind this one.
                bound = &key[..common];
                continue;
            }
            if visit(beginning) {
                return true;
            }
            bound = &key[..common - 1];
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use base::{Rng, SeededRng};

    use super::*;

    const MAIN: BranchId = BranchId::MAIN;

    fn selection(keys: &[&str], prefixes: &[&str], patterns: &[&str]) -> Selection {
        let bytes = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Selection { keys: bytes(keys), prefixes: bytes(prefixes), patterns: bytes(patterns) }
    }

    fn is_meant(selection: &Selection, key: &[u8]) -> bool {
        selection.is_everything()
            || selection.keys.iter().any(|name| name == key)
            || selection.prefixes.iter().any(|prefix| key.starts_with(prefix))
            || selection.patterns.iter().any(|pattern| glob::matches(pattern, key))
    }

    #[test]
    fn finds_what_each_selection_means() {
        let selections = [
            selection(&["user:1", "x"], &[], &[]),
            selection(&[], &["user:", "us"], &[]),
            selection(&[], &[], &["user:*:mail", "*z", "u?er", "\\user"]),
            selection(&["user:12:mail"], &[""], &["[ux]*"]),
            Selection::default(),
        ];
        let mut rules = Rules::default();
        for (id, selection) in (0..).zip(&selections) {
            rules.add(id, MAIN, 3..4, selection);
        }
        for key in ["user:1", "user:12:mail", "u", "uzer", "us", "xyz", "x", "", "t", "user"] {
            let key = key.as_bytes();
            let expected: BTreeSet<Id> = (0..)
                .zip(&selections)
                .filter(|(_, selection)| is_meant(selection, key))
                .map(|(id, _)| id)
                .collect();
            let listeners = rules.listeners(MAIN, 3, Some(key));
            assert_eq!(listeners.into_iter().collect::<BTreeSet<_>>(), expected, "{key:?}");
            assert!(rules.wants(MAIN, 3, Some(key)) && !rules.wants(MAIN, 2, Some(key)));
            assert!(!rules.wants(BranchId(1), 3, Some(key)), "another branch");
        }
        assert_eq!(rules.listeners(MAIN, 3, None).len(), selections.len());
    }

    #[test]
    fn agrees_with_looking_at_all_of_them() {
        let mut rng = SeededRng::new(7);
        let word = |rng: &mut SeededRng, letters: &[u8]| -> Vec<u8> {
            (0..rng.below(5)).map(|_| letters[rng.below(letters.len() as u64) as usize]).collect()
        };
        let (mut rules, mut there) = (Rules::default(), BTreeMap::new());
        for id in 0..2000 {
            let one = Selection {
                keys: (0..rng.below(2)).map(|_| word(&mut rng, b"ab:")).collect(),
                prefixes: (0..rng.below(2)).map(|_| word(&mut rng, b"ab:")).collect(),
                patterns: (0..rng.below(2)).map(|_| word(&mut rng, b"ab:*?")).collect(),
            };
            if !one.is_everything() || rng.below(20) == 0 {
                rules.add(id, MAIN, 0..1, &one);
                there.insert(id, one);
            }
            while there.len() > 12 {
                let nth = rng.below(there.len() as u64) as usize;
                let gone = *there.keys().nth(nth).expect("below the length");
                let one = there.remove(&gone).expect("it is there");
                rules.remove(gone, MAIN, 0..1, &one);
            }
            let key = word(&mut rng, b"ab:");
            let expected: BTreeSet<Id> = there
                .iter()
                .filter(|(_, selection)| is_meant(selection, &key))
                .map(|(id, _)| *id)
                .collect();
            let listeners: BTreeSet<Id> =
                rules.listeners(MAIN, 0, Some(&key)).into_iter().collect();
            assert_eq!(listeners, expected, "{key:?} {there:?}");
            assert_eq!(rules.wants(MAIN, 0, Some(&key)), !expected.is_empty(), "{key:?} {there:?}");
        }
        for (id, one) in there {
            rules.remove(id, MAIN, 0..1, &one);
        }
        assert!(rules.databases.is_empty(), "nothing is left behind: {rules:?}");
    }
}
