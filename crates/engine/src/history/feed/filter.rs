//! Which records somebody hears of, asked by those who write them.
//!
//! A writer of a key that nobody watches must not pay for watches of other
//! keys. So it looks at a few bits first, which all watches share: those of a
//! key that is watched are set. Where they are, the rules are asked.
//!
//! An answer is good for the watches that were open when it was given, which
//! its epoch tells. Records whose answers are older are looked at again by
//! whoever tells them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base::BranchId;
use keyspace::Branch;
use keyspace::effect::{Effect, Effects};
use log::{Concern, RecordHeader};
use parking_lot::RwLock;
use xxhash_rust::xxh3::xxh3_64;

use super::group::Watch;
use super::rules::{Rules, Selection};

/// Words of bits: 32 KiB, so that ten thousand names leave them nearly empty
/// and they stay near the processor.
const WORDS: usize = 4096;

/// Names removed, beyond as many as there are, before the bits are made anew.
const STALE_MAX: usize = 1024;

/// Beginnings are told apart by at most so many bytes.
const BEGINNING_MAX: usize = 63;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Filter {
    /// Grows with every change after which older answers are too few.
    epoch: AtomicU64,
    watches: AtomicUsize,
    /// Two bits of one word for each name.
    words: Box<[AtomicU64]>,
    /// Bit n: there are beginnings of n bytes, n above 0.
    lengths: AtomicU64,
    /// A bit for each byte that one of these begins with: most keys that nobody
    /// watches are known by that.
    firsts: [AtomicU64; 4],
    /// Beginnings of no bytes: all keys have them.
    empty: AtomicUsize,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    rules: Rules,
    names: usize,
    /// Names that were removed and have their bits still.
    stale: usize,
}

impl Filter {
    pub(super) fn new() -> Filter {
        Filter {
            // Zero is what was never asked.
            epoch: AtomicU64::new(1),
            watches: AtomicUsize::new(0),
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            lengths: AtomicU64::new(0),
            firsts: std::array::from_fn(|_| AtomicU64::new(0)),
            empty: AtomicUsize::new(0),
            known: RwLock::default(),
        }
    }

    /// Whether an answer holds for all watches.
    pub(super) fn is_current(&self, concern: Concern) -> bool {
        concern.epoch == self.epoch.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, watch: &Watch) {
        let mut known = self.known.write();
        known.rules.add(watch.id, watch.branch(), watch.dbs.clone(), &watch.selection);
        known.names += watch.selection.len();
        self.watches.fetch_add(1, Ordering::Relaxed);
        self.empty.fetch_add(empty_beginnings(&watch.selection), Ordering::Relaxed);
        self.set_bits(&watch.selection);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Forgets a watch; `others` are those that stay.
    pub(super) fn remove<'w>(&self, watch: &Watch, others: impl Iterator<Item = &'w Watch>) {
        let mut known = self.known.write();
        known.rules.remove(watch.id, watch.branch(), watch.dbs.clone(), &watch.selection);
        let names = watch.selection.len();
        known.names -= names;
        known.stale += names;
        self.watches.fetch_sub(1, Ordering::Relaxed);
        self.empty.fetch_sub(empty_beginnings(&watch.selection), Ordering::Relaxed);
        if known.stale < known.names + STALE_MAX {
            return;
        }
        known.stale = 0;
        // What is answered between the two, with bits missing, is no longer
        // current after the second.
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let all = self.words.iter().chain(&self.firsts);
        all.for_each(|word| word.store(0, Ordering::SeqCst));
        self.lengths.store(0, Ordering::SeqCst);
        others.for_each(|watch| self.set_bits(&watch.selection));
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether somebody hears of a record.
    pub(super) fn concerns(&self, header: &RecordHeader, effects: &[u8]) -> Concern {
        // Before anything else: what is seen then is at least as new.
        let epoch = self.epoch.load(Ordering::Acquire);
        let is_wanted = self.watches.load(Ordering::Relaxed) > 0
            && self.may_touch(effects)
            && self.is_touched(header, effects);
        Concern { is_wanted, epoch }
    }

    #[cold]
    fn is_touched(&self, header: &RecordHeader, effects: &[u8]) -> bool {
        let known = self.known.read();
        known.rules.is_touched_by(header.branch, header.db, effects)
            || known.rules.has_other_than(BranchId::MAIN) && ends_a_branch(effects)
    }

    /// Whether a record may be one that somebody hears of.
    fn may_touch(&self, effects: &[u8]) -> bool {
        Effects::new(effects).any(|effect| match effect {
            Ok(Effect::Key { key, .. } | Effect::Rename { key, .. }) => self.may_want(key),
            Ok(
                Effect::Flush { .. }
                | Effect::Swap { .. }
                | Effect::Return { .. }
                | Effect::Fork { .. }
                | Effect::Branch { .. }
                | Effect::BranchGone { .. },
            )
            | Err(_) => true,
            Ok(_) => false,
        })
    }

    fn may_want(&self, key: &[u8]) -> bool {
        if self.empty.load(Ordering::Relaxed) > 0 || self.has_bits(key) {
            return true;
        }
        let Some(&first) = key.first() else { return false };
        let (word, bit) = bit_of(first);
        if self.firsts[word].load(Ordering::Relaxed) & bit == 0 {
            return false;
        }
        let mut lengths = self.lengths.load(Ordering::Relaxed);
        while lengths != 0 {
            let len = lengths.trailing_zeros() as usize;
            if len > key.len() {
                return false;
            }
            if self.has_bits(&key[..len]) {
                return true;
            }
            lengths &= lengths - 1;
        }
        false
    }

    fn has_bits(&self, name: &[u8]) -> bool {
        let (word, bits) = bits_of(name);
        self.words[word].load(Ordering::Relaxed) & bits == bits
    }

    fn set_bits(&self, selection: &Selection) {
        for key in &selection.keys {
            self.set_bits_of(key);
        }
        for (beginning, _) in selection.beginnings() {
            let len = beginning.len().min(BEGINNING_MAX);
            let Some(&first) = beginning.first() else { continue };
            let (word, bit) = bit_of(first);
            self.firsts[word].fetch_or(bit, Ordering::SeqCst);
            self.set_bits_of(&beginning[..len]);
            self.lengths.fetch_or(1 << len, Ordering::SeqCst);
        }
    }

    fn set_bits_of(&self, name: &[u8]) {
        let (word, bits) = bits_of(name);
        self.words[word].fetch_or(bits, Ordering::SeqCst);
    }
}

fn empty_beginnings(selection: &Selection) -> usize {
    selection.beginnings().filter(|(beginning, _)| beginning.is_empty()).count()
}

fn bit_of(byte: u8) -> (usize, u64) {
    (usize::from(byte / 64), 1 << (byte % 64))
}

/// A name's word and its bits there.
fn bits_of(name: &[u8]) -> (usize, u64) {
    let hash = xxh3_64(name);
    ((hash >> 32) as usize % WORDS, 1 << (hash & 63) | 1 << (hash >> 6 & 63))
}

/// Whether a branch is gone or begins anew by a record.
fn ends_a_branch(effects: &[u8]) -> bool {
    Effects::new(effects).flatten().any(|effect| ended_by(&effect).is_some())
}

/// Which branch is no more what it was, and what became of it.
pub(super) fn ended_by(effect: &Effect<'_>) -> Option<(BranchId, &'static str)> {
    match effect {
        Effect::BranchGone { branch } => Some((*branch, "was deleted")),
        Effect::Branch { row } => {
            let row = Branch::decode(row).ok().filter(Branch::is_deleted)?;
            Some((row.id, "was deleted"))
        }
        Effect::Fork { row, .. } => {
            Some((Branch::decode(row).ok()?.id, "was made anew from its parent"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base::{Revision, Rng, SeededRng};

    use super::super::group::tests::watch_of;
    use super::*;

    fn set(key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Effect::Key { key, existed: None }.encode(&mut bytes);
        Effect::StrSet { value: b"v", deadline: None }.encode(&mut bytes);
        bytes
    }

    const HEADER: RecordHeader = RecordHeader { time_ms: 0, db: 0, branch: BranchId::MAIN };

    #[test]
    fn it_says_what_the_rules_say_while_watches_come_and_go() {
        let mut rng = SeededRng::new(3);
        let filter = Filter::new();
        let mut there: Vec<Arc<Watch>> = Vec::new();
        let word = |rng: &mut SeededRng, letters: &[u8]| -> Vec<u8> {
            (0..rng.below(6)).map(|_| letters[rng.below(letters.len() as u64) as usize]).collect()
        };
        let mut was_wanted = [0; 2];
        for id in 0..6000 {
            let before = filter.concerns(&HEADER, &set(b"a"));
            let selection = Selection {
                keys: vec![word(&mut rng, b"ab:")],
                prefixes: (0..rng.below(2)).map(|_| word(&mut rng, b"bc:x")).collect(),
                patterns: (0..rng.below(2)).map(|_| word(&mut rng, b"c:*?")).collect(),
            };
            let watch = watch_of(id, Revision(1), selection);
            filter.add(&watch);
            there.push(watch);
            assert!(!filter.is_current(before), "an answer without it");
            while there.len() > 3 {
                let nth = rng.below(there.len() as u64) as usize;
                let gone = there.swap_remove(nth);
                filter.remove(&gone, there.iter().map(|watch| &**watch));
            }
            let mut rules = Rules::default();
            there.iter().for_each(|it| rules.add(it.id, BranchId::MAIN, 0..1, &it.selection));
            for _ in 0..5 {
                let key = word(&mut rng, b"abc:x");
                let concern = filter.concerns(&HEADER, &set(&key));
                assert!(filter.is_current(concern));
                assert_eq!(
                    concern.is_wanted,
                    rules.wants(BranchId::MAIN, 0, Some(&key)),
                    "{key:?}"
                );
                was_wanted[usize::from(concern.is_wanted)] += 1;
            }
        }
        assert!(was_wanted.iter().all(|count| *count > 1000), "{was_wanted:?}");
        for watch in &there {
            filter.remove(watch, std::iter::empty());
        }
        assert!(!filter.concerns(&HEADER, &set(b"a")).is_wanted);
    }

    #[test]
    fn what_is_about_whole_databases_and_branches_is_not_overlooked() {
        let filter = Filter::new();
        let encoded = |effect: Effect<'_>| {
            let mut bytes = Vec::new();
            effect.encode(&mut bytes);
            bytes
        };
        let flush = encoded(Effect::Flush { db: 0 });
        let gone = encoded(Effect::BranchGone { branch: BranchId(3) });
        assert!(!filter.concerns(&HEADER, &flush).is_wanted);
        let keys = Selection { keys: vec![b"k".to_vec()], ..Selection::default() };
        filter.add(&watch_of(1, Revision(1), keys));
        assert!(filter.concerns(&HEADER, &flush).is_wanted);
        assert!(!filter.concerns(&HEADER, &gone).is_wanted, "main never ends");
        let elsewhere = RecordHeader { branch: BranchId(3), ..HEADER };
        assert!(!filter.concerns(&elsewhere, &set(b"k")).is_wanted);
    }
}
