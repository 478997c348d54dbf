//! The large form of a sorted set: members by number, an index from their
//! hash, a tree of their order.
//!
//! Neither index nor tree holds a member's bytes, only its 32-bit number. A
//! member of up to 22 bytes costs 32 bytes in its slot, about 16 in the tree
//! and 8 in the index.

use std::ops::Range;

use base::Rng;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::index::Index;
use super::members::Members;
use crate::types::order_tree::{Item, Items, OrderTree};

/// A copy shares what neither of the two has changed since.
#[derive(Clone, Debug)]
pub(super) struct Indexed {
    seed: u64,
    members: Members,
    index: Index,
    tree: OrderTree,
}

impl Indexed {
    pub(super) fn new(seed: u64) -> Indexed {
        Indexed {
            seed,
            members: Members::default(),
            index: Index::default(),
            tree: OrderTree::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tree.len()
    }

    /// Makes what it has its own, if it is a copy.
    pub(super) fn unshare(&mut self) {
        self.members.unshare();
        self.index.unshare();
        self.tree.unshare();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Indexed>()
            + self.members.memory_bytes()
            + self.index.memory_bytes()
            + self.tree.memory_bytes()
    }

    fn hash(&self, member: &[u8]) -> u64 {
        xxh3_64_with_seed(member, self.seed)
    }

    fn find(&self, hash: u64, member: &[u8]) -> Option<u32> {
        self.index.find(hash, |id| self.members.name(id) == member)
    }

    /// How many members stand before this score and member.
    fn rank_of(&self, score: f64, member: &[u8]) -> usize {
        self.tree.rank(|item| precedes(&self.members, item, score, member))
    }

    pub(super) fn score(&self, member: &[u8]) -> Option<f64> {
        self.find(self.hash(member), member).map(|id| self.members.score(id))
    }

    pub(super) fn rank(&self, member: &[u8]) -> Option<usize> {
        self.score(member).map(|score| self.rank_of(score, member))
    }

    pub(super) fn by_rank(&self, rank: usize) -> Option<(&[u8], f64)> {
        self.tree.get(rank).map(|item| (self.members.name(item.id), item.score))
    }

    /// How many leading members have a score for which `before` holds.
    pub(super) fn count_by_score(&self, before: impl Fn(f64) -> bool) -> usize {
        self.tree.rank(|item| before(item.score))
    }

    /// How many leading members there are for which `before` holds.
    pub(super) fn count_by_member(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        self.tree.rank(|item| before(self.members.name(item.id)))
    }

    pub(super) fn range(&self, ranks: Range<usize>, downwards: bool) -> Pairs<'_> {
        Pairs { items: self.tree.range(ranks, downwards), members: &self.members }
    }

    /// Sets a member's score; answers the score it had.
    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let hash = self.hash(member);
        if let Some(id) = self.find(hash, member) {
            let old = self.members.score(id);
            self.move_to(id, member, old, score);
            return Some(old);
        }
        let id = self.members.push(member, score);
        let members = &self.members;
        self.index.insert(hash, id, |id| xxh3_64_with_seed(members.name(id), self.seed));
        self.tree.insert(Item { score, id }, |item| precedes(members, item, score, member));
        None
    }

    fn move_to(&mut self, id: u32, member: &[u8], old: f64, new: f64) {
        if old == new {
            return;
        }
        let from = self.rank_of(old, member);
        let to = self.rank_of(new, member);
        let item = Item { score: new, id };
        // The new place is counted with the member still in its old one.
        if to == from || to == from + 1 {
            self.tree.replace(from, item);
        } else {
            self.tree.remove(from);
            self.tree.insert(item, |item| precedes(&self.members, item, new, member));
        }
        self.members.set_score(id, new);
    }

    /// Takes a member out; answers the score it had.
    pub(super) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let id = self.find(self.hash(member), member)?;
        let score = self.members.score(id);
        let rank = self.rank_of(score, member);
        self.remove_rank(rank, |_, _| ());
        Some(score)
    }

    /// Takes out the member of a rank that exists, after showing it.
    pub(super) fn remove_rank(&mut self, rank: usize, show: impl FnOnce(&[u8], f64)) {
        let Item { score, id } = self.tree.remove(rank);
        let members = &self.members;
        let hash_of = |id| xxh3_64_with_seed(members.name(id), self.seed);
        show(members.name(id), score);
        self.index.remove(hash_of(id), id, hash_of);
        let last = (members.len() - 1) as u32;
        if id != last {
            // The last member takes over the number that became free.
            let (score, name) = (members.score(last), members.name(last));
            let rank = self.tree.rank(|item| precedes(members, item, score, name));
            self.tree.replace(rank, Item { score, id });
            self.index.renumber(hash_of(last), last, id);
        }
        self.members.swap_remove(id);
    }

    /// Members and scores in the order of their numbers, but for those in pages
    /// that are shared with another one: it has them under the same numbers.
    pub(super) fn iter_unshared<'a>(
        &'a self,
        other: &'a Indexed,
    ) -> impl Iterator<Item = (&'a [u8], f64)> {
        self.members.iter_unshared(&other.members)
    }

    /// A member, each equally likely. There must be one.
    pub(super) fn random(&self, rng: &mut dyn Rng) -> (&[u8], f64) {
        let id = rng.below(self.members.len() as u64) as u32;
        (self.members.name(id), self.members.score(id))
    }

    /// Visits the `count` members below number `cursor` (0: all), highest
    /// first; answers the next cursor, 0 at the end.
    ///
    /// A member only ever moves to a smaller number, so one that stays in the
    /// set cannot get past a scan unseen.
    pub(super) fn scan(&self, cursor: u64, count: usize, mut f: impl FnMut(&[u8], f64)) -> u64 {
        let len = self.members.len();
        let end = match usize::try_from(cursor) {
            Ok(cursor) if cursor != 0 => cursor.min(len),
            _ => len,
        };
        let start = end.saturating_sub(count.max(1));
        for id in (start..end).rev() {
            let id = id as u32;
            f(self.members.name(id), self.members.score(id));
        }
        start as u64
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.members.check();
        self.index.check(|id| self.hash(self.members.name(id)));
        assert_eq!(self.members.len(), self.tree.len());
        for (rank, item) in self.tree.range(0..usize::MAX, false).enumerate() {
            let name = self.members.name(item.id);
            assert_eq!(self.members.score(item.id), item.score);
            assert_eq!(self.find(self.hash(name), name), Some(item.id));
            assert_eq!(self.rank(name), Some(rank));
        }
    }
}

/// Members and scores by rank.
#[derive(Clone, Debug)]
pub(super) struct Pairs<'a> {
    items: Items<'a>,
    members: &'a Members,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], f64);

    fn next(&mut self) -> Option<(&'a [u8], f64)> {
        self.items.next().map(|item| (self.members.name(item.id), item.score))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

/// Whether an item stands before a score and member.
fn precedes(members: &Members, item: Item, score: f64, member: &[u8]) -> bool {
    item.score < score || item.score == score && members.name(item.id) < member
}
