//! Which shards a transaction has locked, and which it has changed.

use base::DbIndex;
use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::shard::{Keyspace, SHARDS, Shard};

/// Some of the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShardSet(u64);

impl ShardSet {
    pub(super) const ALL: ShardSet = ShardSet(u64::MAX);

    pub(super) fn insert(&mut self, shard: usize) {
        self.0 |= 1 << shard;
    }

    /// Those in it, in ascending order.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let shard = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(shard)
        })
    }

    /// How many of those in it come before one that is.
    fn rank(self, shard: usize) -> Option<usize> {
        let bit = 1_u64 << shard;
        (self.0 & bit != 0).then(|| (self.0 & (bit - 1)).count_ones() as usize)
    }
}

impl FromIterator<usize> for ShardSet {
    fn from_iter<I: IntoIterator<Item = usize>>(shards: I) -> ShardSet {
        let mut set = ShardSet::default();
        shards.into_iter().for_each(|shard| set.insert(shard));
        set
    }
}

/// The locks that a transaction holds.
pub(super) enum Locked<'t> {
    None,
    One(usize, MutexGuard<'t, Shard>),
    /// In ascending order of shard: the order they were locked in.
    Many(ShardSet, Vec<MutexGuard<'t, Shard>>),
    All(Vec<MutexGuard<'t, Shard>>),
}

impl<'t> Locked<'t> {
    /// Locks these shards, in order, each once.
    pub(super) fn these(keyspace: &'t Keyspace, shards: &[usize]) -> Locked<'t> {
        match shards {
            [] => Locked::None,
            &[shard] => Locked::One(shard, keyspace.lock(shard)),
            shards => match shards.iter().copied().collect() {
                ShardSet::ALL => Locked::all(keyspace),
                set => Locked::Many(set, set.iter().map(|shard| keyspace.lock(shard)).collect()),
            },
        }
    }

    pub(super) fn all(keyspace: &'t Keyspace) -> Locked<'t> {
        Locked::All((0..SHARDS).map(|shard| keyspace.lock(shard)).collect())
    }

    /// A shard that is locked.
    pub(super) fn get(&self, shard: usize) -> &Shard {
        match self {
            Locked::One(at, guard) if *at == shard => guard,
            Locked::Many(set, guards) => {
                &guards[set.rank(shard).unwrap_or_else(|| not_locked(shard))]
            }
            Locked::All(guards) => &guards[shard],
            _ => not_locked(shard),
        }
    }

    /// Whether one of those that are locked is so.
    pub(super) fn any(&self, is_so: impl Fn(&Shard) -> bool) -> bool {
        match self {
            Locked::None => false,
            Locked::One(_, guard) => is_so(guard),
            Locked::Many(_, guards) | Locked::All(guards) => {
                guards.iter().any(|guard| is_so(guard))
            }
        }
    }

    /// A shard that is locked, to change.
    pub(super) fn get_mut(&mut self, shard: usize) -> &mut Shard {
        match self {
            Locked::One(at, guard) if *at == shard => guard,
            Locked::Many(set, guards) => {
                &mut guards[set.rank(shard).unwrap_or_else(|| not_locked(shard))]
            }
            Locked::All(guards) => &mut guards[shard],
            _ => not_locked(shard),
        }
    }
}

#[cold]
fn not_locked(shard: usize) -> ! {
    panic!("shard {shard} is not locked: the command's row does not declare this key")
}

/// The parts of databases that a transaction has changed: their memory is
/// recounted when it ends.
#[derive(Default)]
pub(super) struct Changed(SmallVec<[(DbIndex, ShardSet); 2]>);

impl Changed {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn note(&mut self, shard: usize, db: DbIndex) {
        self.of(db).insert(shard);
    }

    /// Notes a database in every shard.
    pub(super) fn note_whole(&mut self, db: DbIndex) {
        *self.of(db) = ShardSet::ALL;
    }

    fn of(&mut self, db: DbIndex) -> &mut ShardSet {
        let at = self.0.iter().position(|(changed, _)| *changed == db);
        let at = at.unwrap_or_else(|| {
            self.0.push((db, ShardSet::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// Two databases have changed places, and what was changed of them.
    pub(super) fn swap(&mut self, a: DbIndex, b: DbIndex) {
        for (db, _) in &mut self.0 {
            *db = match *db {
                db if db == a => b,
                db if db == b => a,
                db => db,
            };
        }
    }

    /// Shards and databases.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, DbIndex)> {
        self.0.iter().flat_map(|&(db, shards)| shards.iter().map(move |shard| (shard, db)))
    }
}

const _: () = assert!(SHARDS == 64, "a set of shards fits in 64 bits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_shards_is_in_order_and_knows_where_each_stands() {
        let set: ShardSet = [63, 0, 5, 5, 17].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 5, 17, 63]);
        for (rank, shard) in set.iter().enumerate() {
            assert_eq!(set.rank(shard), Some(rank));
        }
        assert_eq!(set.rank(6), None);
        assert_eq!((0..SHARDS).collect::<ShardSet>(), ShardSet::ALL);
        assert_eq!(ShardSet::default().iter().next(), None);
    }

    #[test]
    fn what_was_changed_follows_its_database() {
        let mut changed = Changed::default();
        changed.note(3, 7);
        changed.note(1, 7);
        changed.note(3, 7);
        changed.note_whole(2);
        changed.swap(7, 2);
        let of = |db| changed.iter().filter(move |(_, of)| *of == db).map(|(shard, _)| shard);
        assert_eq!(of(2).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(of(7).count(), SHARDS);
        assert!(!changed.is_empty() && Changed::default().is_empty());
    }
}
