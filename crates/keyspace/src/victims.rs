//! Choosing keys to delete where memory is full.
//!
//! As Redis does (<https://redis.io/docs/latest/develop/reference/eviction/>):
//! of few keys that are looked at those which are least worth keeping go into a
//! pool with the like of earlier looks, and the least of the pool is deleted.
//! That comes near to an exact order and needs no list through all keys.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Bound;

use base::{DbIndex, Rng, SeededRng};
use entry::Entry;

use crate::effect::Cause;
use crate::event::class;
use crate::shard::{Db, Keyspace, SHARDS, entry_bytes};
use crate::txn::Txn;
use crate::value::Value;

/// Keys that were looked at and are remembered.
const POOL_KEYS: usize = 16;

/// Keys with a deadline are looked for among all keys where at least one in so
/// many has one, and else by their deadlines.
const DENSE: usize = 16;

/// Which keys are deleted where memory is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvictionRule {
    /// Only those with a deadline.
    pub volatile: bool,
    /// Which of them go first.
    pub order: EvictionOrder,
}

/// Which keys go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionOrder {
    /// Those used least, in the sense of [`Accesses`](crate::Accesses).
    LeastUsed,
    /// Any.
    Random,
    /// Those whose deadline comes first.
    SoonestDue,
}

/// The higher, the sooner a key goes: by the rule's order, and among equals by the
/// age of the last change.
type Rank = (u64, Reverse<u64>);

/// A key that is to go.
#[derive(Clone, Copy, Debug)]
pub struct Victim {
    db: DbIndex,
    hash: u64,
    rank: Rank,
    bytes: usize,
    access: u32,
    deadline: Option<u64>,
}

impl Victim {
    /// The shard it lives in.
    #[must_use]
    pub fn shard(&self) -> usize {
        Keyspace::shard_of_hash(self.hash)
    }

    fn is(&self, other: &Victim) -> bool {
        (self.hash, self.db) == (other.hash, other.db)
    }
}

/// Keys that were looked at, least worth keeping last.
#[derive(Debug)]
pub(crate) struct Pool {
    victims: Vec<Victim>,
    /// What they were looked at for.
    rule: Option<EvictionRule>,
    next_shard: usize,
    /// Where to go on among the deadlines of a database's part.
    hands: HashMap<(usize, usize), (u64, u64)>,
    rng: SeededRng,
}

impl Pool {
    pub(crate) fn new(seed: u64) -> Pool {
        Pool {
            victims: Vec::new(),
            rule: None,
            next_shard: 0,
            hands: HashMap::new(),
            rng: SeededRng::new(seed),
        }
    }

    fn begin(&mut self, rule: EvictionRule) {
        if self.rule != Some(rule) {
            self.rule = Some(rule);
            self.victims.clear();
        }
    }

    /// Whether there is room for a key of this rank.
    fn takes(&self, rank: Rank) -> bool {
        self.victims.len() < POOL_KEYS || self.victims[0].rank < rank
    }

    /// Adds a key that it [takes](Pool::takes).
    fn add(&mut self, victim: Victim) {
        self.victims.retain(|other| !other.is(&victim));
        if self.victims.len() == POOL_KEYS {
            self.victims.remove(0);
        }
        let at = self.victims.partition_point(|other| other.rank <= victim.rank);
        self.victims.insert(at, victim);
    }
}

/// How to look for victims.
#[derive(Clone, Copy, Debug)]
pub struct Hunt {
    /// Which keys, and in which order.
    pub rule: EvictionRule,
    /// Keys to look at for each that goes, at least 1.
    pub samples: usize,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

impl Keyspace {
    /// Chooses keys to delete, the least worth keeping first, until they take
    /// `bytes` or are `keys`, or there is none. They stay until [`Txn::evict`].
    /// Only keys in memory are chosen, and of a branch only those that it has
    /// changed itself: to delete others frees nothing. Locks one shard at a time.
    #[must_use]
    pub fn choose_victims(&self, hunt: &Hunt, bytes: usize, keys: usize) -> Vec<Victim> {
        let (mut chosen, mut sum) = (Vec::<Victim>::new(), 0);
        let mut pool = self.pool().lock();
        pool.begin(hunt.rule);
        // Deadlines stand in order, so that one look at all shards finds the first.
        let looks_at_all = hunt.rule.order == EvictionOrder::SoonestDue;
        while sum < bytes && chosen.len() < keys {
            if !looks_at_all || chosen.is_empty() || pool.victims.is_empty() {
                self.look_for_victims(hunt, &chosen, &mut pool);
            }
            let Some(victim) = pool.victims.pop() else { break };
            sum += victim.bytes;
            chosen.push(victim);
        }
        chosen
    }

    /// Looks at some keys, and remembers the ones that are least worth keeping
    /// and not chosen yet.
    fn look_for_victims(&self, hunt: &Hunt, chosen: &[Victim], pool: &mut Pool) {
        let (accesses, mut seen) = (self.accesses(), 0);
        let fresh = accesses.fresh(hunt.now_ms);
        for _ in 0..SHARDS {
            let index = pool.next_shard;
            pool.next_shard = (index + 1) % SHARDS;
            let shard = self.lock(index);
            for (number, db) in shard.dbs.iter().enumerate() {
                let mut sample = Sample { hunt, place: (index, number), db, found: Vec::new() };
                sample.take(pool);
                seen += sample.found.len();
                for entry in sample.found {
                    let order = match hunt.rule.order {
                        EvictionOrder::LeastUsed => {
                            u64::from(accesses.disuse(entry.access(), fresh))
                        }
                        EvictionOrder::Random => pool.rng.next_u64(),
                        EvictionOrder::SoonestDue => {
                            u64::MAX - entry.deadline().unwrap_or(u64::MAX)
                        }
                    };
                    let rank = (order, Reverse(entry.revision()));
                    if !pool.takes(rank) {
                        continue;
                    }
                    let victim = Victim {
                        db: number as DbIndex,
                        hash: self.hash_of(entry.key()),
                        rank,
                        bytes: entry_bytes(entry),
                        access: entry.access(),
                        deadline: entry.deadline(),
                    };
                    if !chosen.iter().any(|other| other.is(&victim)) {
                        pool.add(victim);
                    }
                }
            }
            if seen >= hunt.samples && hunt.rule.order != EvictionOrder::SoonestDue {
                return;
            }
        }
    }
}

/// A look at one database's part of a shard.
struct Sample<'d> {
    hunt: &'d Hunt,
    place: (usize, usize),
    db: &'d Db,
    found: Vec<&'d Entry<Value>>,
}

impl<'d> Sample<'d> {
    fn take(&mut self, pool: &mut Pool) {
        let (keys, volatile) = (self.db.table.len(), self.db.deadlines.len());
        let samples = self.hunt.samples;
        if !self.hunt.rule.volatile {
            self.among_all(samples, pool);
        } else if self.hunt.rule.order == EvictionOrder::SoonestDue {
            self.by_deadline((0, 0), samples);
        } else if volatile.saturating_mul(DENSE) >= keys && volatile > 0 {
            self.among_all(samples * keys.div_ceil(volatile), pool);
        } else if volatile > 0 {
            let hand = pool.hands.get(&self.place).copied().unwrap_or_default();
            let next = self.by_deadline(hand, samples);
            pool.hands.insert(self.place, next);
        }
    }

    /// Looks at so many keys chosen by chance.
    fn among_all(&mut self, keys: usize, pool: &mut Pool) {
        let (db, volatile) = (self.db, self.hunt.rule.volatile);
        let is_wanted =
            |entry: &&Entry<Value>| db.own.has(entry) && (entry.deadline().is_some() || !volatile);
        self.found.extend(db.table.sample(&mut pool.rng, keys).filter(is_wanted));
    }

    /// Looks at so many keys by their deadlines, from one behind `hand` on, and
    /// answers where it came to: the beginning after the last.
    fn by_deadline(&mut self, hand: (u64, u64), keys: usize) -> (u64, u64) {
        let range = (Bound::Excluded(hand), Bound::Unbounded);
        let mut ahead = self.db.deadlines.range(range);
        for &(at, hash) in ahead.by_ref().take(keys) {
            // Those that are not in memory free nothing.
            let found = self.db.table.find(hash, |entry| entry.deadline() == Some(at));
            self.found.extend(found.filter(|entry| self.db.own.has(entry)));
        }
        ahead.next().copied().unwrap_or_default()
    }
}

impl Txn<'_> {
    /// Deletes keys that were chosen, but for those that have been used or changed
    /// since. Answers how many there were, without those that were due anyway.
    ///
    /// # Panics
    /// When one of their shards is not locked.
    pub fn evict(&mut self, rule: EvictionRule, victims: &[Victim]) -> u64 {
        let (home, mut evicted) = (self.db(), 0);
        for victim in victims {
            self.select(victim.db);
            let table = &self.shard(victim.shard()).dbs[usize::from(victim.db)].table;
            let is_as_it_was = |entry: &Entry<Value>| match rule.order {
                EvictionOrder::LeastUsed => {
                    entry.access() == victim.access && entry.deadline() == victim.deadline
                }
                EvictionOrder::Random => entry.deadline().is_some() || !rule.volatile,
                EvictionOrder::SoonestDue => entry.deadline() == victim.deadline,
            };
            let is_it = |entry: &Entry<Value>| {
                table.hash_of(entry.key()) == victim.hash && is_as_it_was(entry)
            };
            let Some(entry) = table.find(victim.hash, is_it) else { continue };
            let key = entry.key().to_vec();
            if self.is_due(entry) {
                self.purge(&key);
            } else {
                self.remove(&key, Cause::Evicted);
                self.notify(class::EVICTED, "evicted", &key);
                evicted += 1;
            }
        }
        self.select(home);
        evicted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU64, Ordering};

    use base::Revision;

    use super::*;
    use crate::access::Accesses;
    use crate::limits::EncodingLimits;
    use crate::recorder::{Buffers, Journal};
    use crate::txn::{Scope, TxnOptions};

    /// Gives revisions and keeps nothing.
    struct Numbers(AtomicU64);

    impl Journal for Numbers {
        fn reserve(&self) -> Revision {
            Revision(self.0.fetch_add(1, Ordering::Relaxed) + 1)
        }

        fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
    }

    struct World {
        keyspace: Keyspace,
        journal: Numbers,
        limits: EncodingLimits,
    }

    const LRU: EvictionRule = EvictionRule { volatile: false, order: EvictionOrder::LeastUsed };
    const VOLATILE: EvictionRule = EvictionRule { volatile: true, ..LRU };

    impl World {
        fn new() -> World {
            let (journal, limits) = (Numbers(AtomicU64::new(0)), EncodingLimits::default());
            World { keyspace: Keyspace::new(2, 1), journal, limits }
        }

        fn at<R>(&self, second: u64, run: impl FnOnce(&mut Txn<'_>) -> R) -> R {
            let (now_ms, mut buffers) = (1000 * second, Buffers::default());
            let options = TxnOptions { now_ms, touch: true, ..TxnOptions::quiet(&self.limits) };
            run(&mut Txn::begin(&self.keyspace, &Scope::All, &self.journal, &mut buffers, options))
        }

        fn set(&self, second: u64, db: DbIndex, key: &str, deadline: Option<u64>) {
            self.at(second, |txn| {
                txn.select(db);
                txn.set_string(key.as_bytes(), b"value", deadline);
            });
        }

        fn victims(&self, second: u64, rule: EvictionRule, keys: usize) -> Vec<Victim> {
            let hunt = Hunt { rule, samples: 10, now_ms: 1000 * second };
            self.keyspace.choose_victims(&hunt, usize::MAX, keys)
        }

        /// Evicts so many keys and answers their names.
        fn evict(&self, second: u64, rule: EvictionRule, keys: usize) -> BTreeSet<String> {
            let before = self.names();
            let victims = self.victims(second, rule, keys);
            let evicted = self.at(second, |txn| txn.evict(rule, &victims));
            let gone: BTreeSet<String> = before.difference(&self.names()).cloned().collect();
            assert_eq!(evicted, gone.len() as u64);
            gone
        }

        fn names(&self) -> BTreeSet<String> {
            let mut names = BTreeSet::new();
            for index in 0..SHARDS {
                let shard = self.keyspace.lock(index);
                let entries = shard.dbs.iter().flat_map(|db| db.table.iter());
                names.extend(entries.map(|entry| String::from_utf8_lossy(entry.key()).into()));
            }
            names
        }
    }

    fn set_of<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        names.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn of_few_keys_the_least_recently_used_go_whatever_their_shards() {
        let world = World::new();
        for number in 0..10 {
            world.set(100 + number, (number % 2) as DbIndex, &format!("k{number}"), None);
        }
        // To read is to use.
        world.at(200, |txn| txn.get(b"k0").map(|_| ()));
        assert_eq!(world.evict(300, LRU, 3), set_of(["k1", "k2", "k3"]));
        assert_eq!(world.evict(300, LRU, 100).len(), 7);
        assert!(world.victims(300, LRU, 1).is_empty(), "nothing is left");
    }

    #[test]
    fn of_many_keys_those_that_go_are_among_the_least_used() {
        let world = World::new();
        world.at(100, |txn| {
            (0..20_000).for_each(|n| txn.set_string(format!("cold{n}").as_bytes(), b"v", None));
        });
        world.at(500, |txn| {
            (0..20_000).for_each(|n| txn.set_string(format!("hot{n}").as_bytes(), b"v", None));
        });
        let (before, mut gone) = (world.names(), 0);
        while gone < 10_000 {
            let victims = world.victims(600, LRU, 32);
            gone += world.at(600, |txn| txn.evict(LRU, &victims));
        }
        let after = world.names();
        let hot = before.difference(&after).filter(|name| name.starts_with("hot")).count();
        assert!(hot < 100, "{hot} of {gone} were in use");
    }

    #[test]
    fn keys_without_a_deadline_stay_under_volatile_policies() {
        // Where most keys have a deadline, and where few do.
        for (volatile, others) in [(200, 50), (3, 400)] {
            let world = World::new();
            (0..others).for_each(|n| world.set(100, 0, &format!("keep{n}"), None));
            (0..volatile).for_each(|n| {
                world.set(101 + n, 0, &format!("go{n}"), Some(10_000_000 - n));
            });
            let is_to_go = |name: &String| name.starts_with("go");
            let first = world.evict(5000, VOLATILE, 1);
            assert!(first.iter().all(is_to_go) && first.len() == 1, "{first:?}");
            let soonest = EvictionRule { order: EvictionOrder::SoonestDue, ..VOLATILE };
            let last = format!("go{}", volatile - 1);
            assert_eq!(world.evict(5000, soonest, 1), set_of([&*last]));
            let any = EvictionRule { order: EvictionOrder::Random, ..VOLATILE };
            while world.names().iter().any(is_to_go) {
                assert!(!world.evict(5000, any, 10).is_empty());
            }
            assert!(world.victims(5000, any, 1).is_empty());
            assert_eq!(world.names().len(), others as usize);
        }
    }

    #[test]
    fn the_least_frequently_used_go_first_under_lfu() {
        let world = World::new();
        world.keyspace.note_accesses(Accesses::Frequency { log_factor: 0, decay_minutes: 0 });
        for number in 0..10 {
            world.set(100, 0, &format!("k{number}"), None);
            for _ in 0..number {
                world.at(100, |txn| txn.get(format!("k{number}").as_bytes()).map(|_| ()));
            }
        }
        assert_eq!(world.evict(100, LRU, 4), set_of(["k0", "k1", "k2", "k3"]));
    }

    #[test]
    fn what_was_used_since_it_was_chosen_stays() {
        let world = World::new();
        world.set(100, 0, "a", None);
        world.set(100, 0, "b", None);
        let victims = world.victims(200, LRU, 2);
        assert_eq!(victims.len(), 2);
        world.at(300, |txn| txn.get(b"a").map(|_| ()));
        assert_eq!(world.at(300, |txn| txn.evict(LRU, &victims)), 1);
        assert_eq!(world.names(), set_of(["a"]));
        // And what has no deadline any more.
        world.set(300, 0, "c", Some(999_000));
        let victims = world.victims(300, VOLATILE, 1);
        world.at(300, |txn| txn.set_deadline(b"c", None));
        assert_eq!(world.at(300, |txn| txn.evict(VOLATILE, &victims)), 0);
    }

    #[test]
    fn what_is_due_expires_and_is_not_counted() {
        let world = World::new();
        world.set(100, 0, "due", Some(150_000));
        let victims = world.victims(200, LRU, 1);
        let (evicted, expired) =
            world.at(200, |txn| (txn.evict(LRU, &victims), txn.finished().expired));
        assert_eq!((evicted, expired, world.names().len()), (0, 1, 0));
    }

    #[test]
    fn only_what_a_branch_has_changed_itself_is_chosen_there() {
        let world = World::new();
        world.set(100, 0, "inherited", None);
        let fork = world.at(100, |txn| {
            txn.set_string(b"last", b"v", None);
            txn.revision().expect("it wrote")
        });
        world.keyspace.count_own(fork.next(), true);
        world.set(200, 0, "own", None);
        assert_eq!(world.evict(300, LRU, 10), set_of(["own"]));
        // Nothing stands behind this keyspace: it stays in memory.
        let evicted = world.keyspace.evict_inherited(0, fork, usize::MAX);
        assert_eq!(evicted.keys, 0);
    }

    #[test]
    fn bytes_bound_what_is_chosen() {
        let world = World::new();
        (0..100).for_each(|n| world.set(100, 0, &format!("k{n}"), None));
        let hunt = Hunt { rule: LRU, samples: 5, now_ms: 200_000 };
        let one = world.keyspace.choose_victims(&hunt, 1, 100);
        assert_eq!(one.len(), 1);
        let some = world.keyspace.choose_victims(&hunt, one[0].bytes * 10, 100);
        assert!((8..=12).contains(&some.len()), "{}", some.len());
    }
}
