//! A counted B+ tree: the order of a sorted set's members.
//!
//! An item is a score and the number of a member. The tree keeps items sorted
//! and counts them per subtree, so that an item's rank and the item of a rank
//! both take one walk from the root. It never sees the members' bytes: whoever
//! searches brings a predicate "stands before the sought place", which must be
//! true for a prefix of the order and false for the rest.
//!
//! Beside every child stands its exact first item. A removal or a renumbering
//! brings those up to date on its way back up, so no item number in the tree
//! outlives its member.
//!
//! A copy of a tree shares every node that neither of the two changes, but for
//! leaves, which stand in their parents: there is less to look up so.
//!
//! Left out: borrowing between siblings. A node is merged into a neighbour when
//! both together fill at most three quarters of one, so two siblings always
//! hold more than that, and the average sibling is three eighths full or more.
//! Items added in ascending or descending order leave full nodes behind.

use std::ops::Range;
use std::sync::Arc;

use super::{SHARED_BYTES, copy_with_room};

/// Items of a full leaf.
const LEAF_MAX: usize = 64;

/// Children of a full inner node.
const FANOUT: usize = 32;

/// A score and the number of the member that has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) score: f64,
    pub(super) id: u32,
}

/// Items in two columns: 12 bytes each instead of 16.
#[derive(Debug, Default)]
struct Leaf {
    scores: Vec<f64>,
    ids: Vec<u32>,
}

/// Invariant: the columns are equally long, and never empty except while the
/// last child is on its way out.
#[derive(Debug, Default)]
struct Inner {
    /// The first item below each child.
    firsts: Vec<Item>,
    /// How many items are below each child.
    counts: Vec<u32>,
    children: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Leaf),
    Inner(Arc<Inner>),
}

impl Clone for Leaf {
    fn clone(&self) -> Leaf {
        Leaf { scores: copy_with_room(&self.scores), ids: copy_with_room(&self.ids) }
    }
}

impl Clone for Inner {
    fn clone(&self) -> Inner {
        Inner {
            firsts: copy_with_room(&self.firsts),
            counts: copy_with_room(&self.counts),
            children: copy_with_room(&self.children),
        }
    }
}

/// The number of leading positions of `0..len` for which `before` holds.
fn partition(len: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = usize::midpoint(low, high);
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl Leaf {
    fn item(&self, at: usize) -> Item {
        Item { score: self.scores[at], id: self.ids[at] }
    }

    fn heap_bytes(&self) -> usize {
        self.scores.capacity() * size_of::<f64>() + self.ids.capacity() * size_of::<u32>()
    }

    fn put(&mut self, at: usize, item: Item) {
        self.scores.insert(at, item.score);
        self.ids.insert(at, item.id);
    }

    /// Adds an item in its place; answers the new right neighbour when the
    /// leaf was full.
    fn insert(&mut self, item: Item, before: &impl Fn(Item) -> bool) -> Option<Leaf> {
        let len = self.ids.len();
        let at = partition(len, |at| before(self.item(at)));
        if len < LEAF_MAX {
            self.put(at, item);
            return None;
        }
        let mut right = Leaf::default();
        if at == len {
            right.put(0, item);
        } else if at == 0 {
            right.put(0, item);
            std::mem::swap(self, &mut right);
        } else {
            right.scores = self.scores.split_off(LEAF_MAX / 2);
            right.ids = self.ids.split_off(LEAF_MAX / 2);
            match at.checked_sub(LEAF_MAX / 2) {
                Some(at) => right.put(at, item),
                None => self.put(at, item),
            }
        }
        Some(right)
    }
}

impl Inner {
    fn heap_bytes(&self) -> usize {
        SHARED_BYTES
            + size_of::<Inner>()
            + self.firsts.capacity() * size_of::<Item>()
            + self.counts.capacity() * size_of::<u32>()
            + self.children.capacity() * size_of::<Node>()
    }

    fn put(&mut self, at: usize, child: Node) {
        self.firsts.insert(at, child.first());
        self.counts.insert(at, child.count());
        self.children.insert(at, child);
    }

    fn take(&mut self, at: usize) -> Node {
        self.firsts.remove(at);
        self.counts.remove(at);
        self.children.remove(at)
    }

    fn refresh(&mut self, at: usize) {
        self.firsts[at] = self.children[at].first();
        self.counts[at] = self.children[at].count();
    }

    /// The child that holds the item of `rank`, and its rank there.
    fn child_of_rank(&self, mut rank: usize) -> (usize, usize) {
        for (at, &count) in self.counts.iter().enumerate() {
            if rank < count as usize {
                return (at, rank);
            }
            rank -= count as usize;
        }
        unreachable!("the caller checked the rank against the count")
    }

    fn insert(
        &mut self,
        item: Item,
        before: &impl Fn(Item) -> bool,
        bytes: &mut usize,
    ) -> Option<Inner> {
        let at = partition(self.firsts.len(), |at| before(self.firsts[at])).saturating_sub(1);
        let Some(child) = self.children[at].insert(item, before, bytes) else {
            self.counts[at] += 1;
            self.firsts[at] = self.children[at].first();
            return None;
        };
        self.refresh(at);
        *bytes -= self.heap_bytes();
        self.put(at + 1, child);
        let len = self.children.len();
        let right = (len > FANOUT).then(|| {
            // A node that grows at its end is left full.
            let keep = if at + 2 == len { len - 1 } else { len / 2 };
            Inner {
                firsts: self.firsts.split_off(keep),
                counts: self.counts.split_off(keep),
                children: self.children.split_off(keep),
            }
        });
        *bytes += self.heap_bytes();
        *bytes += right.as_ref().map_or(0, |right| right.heap_bytes());
        right
    }

    fn remove(&mut self, rank: usize, bytes: &mut usize) -> Item {
        let (at, rank) = self.child_of_rank(rank);
        let item = self.children[at].remove(rank, bytes);
        self.counts[at] -= 1;
        if self.counts[at] == 0 {
            *bytes -= self.take(at).heap_bytes();
            return item;
        }
        self.firsts[at] = self.children[at].first();
        let left = at.saturating_sub(1);
        if !(self.merge(at, bytes) || left < at && self.merge(left, bytes)) {
            self.children[at].trim(bytes);
        }
        item
    }

    /// Merges a child with its right neighbour, if there is one and both are
    /// small enough.
    fn merge(&mut self, at: usize, bytes: &mut usize) -> bool {
        let Some(right) = self.children.get(at + 1) else { return false };
        let left = &self.children[at];
        if left.width() + right.width() > left.width_max() / 4 * 3 {
            return false;
        }
        let right = self.take(at + 1);
        *bytes -= self.children[at].heap_bytes() + right.heap_bytes();
        match (&mut self.children[at], right) {
            (Node::Leaf(left), Node::Leaf(mut right)) => {
                left.scores.append(&mut right.scores);
                left.ids.append(&mut right.ids);
            }
            (Node::Inner(left), Node::Inner(right)) => {
                let (left, mut right) = (Arc::make_mut(left), Arc::unwrap_or_clone(right));
                left.firsts.append(&mut right.firsts);
                left.counts.append(&mut right.counts);
                left.children.append(&mut right.children);
            }
            _ => unreachable!("all leaves are equally deep"),
        }
        *bytes += self.children[at].heap_bytes();
        self.refresh(at);
        true
    }
}

impl Default for Node {
    fn default() -> Node {
        Node::Leaf(Leaf::default())
    }
}

impl Node {
    fn first(&self) -> Item {
        match self {
            Node::Leaf(leaf) => leaf.item(0),
            Node::Inner(inner) => inner.firsts[0],
        }
    }

    fn count(&self) -> u32 {
        match self {
            Node::Leaf(leaf) => leaf.ids.len() as u32,
            Node::Inner(inner) => inner.counts.iter().sum(),
        }
    }

    fn width(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.ids.len(),
            Node::Inner(inner) => inner.children.len(),
        }
    }

    fn width_max(&self) -> usize {
        match self {
            Node::Leaf(_) => LEAF_MAX,
            Node::Inner(_) => FANOUT,
        }
    }

    /// Bytes of this node alone.
    fn heap_bytes(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.heap_bytes(),
            Node::Inner(inner) => inner.heap_bytes(),
        }
    }

    /// Bytes of this node and all below.
    #[cfg(test)]
    fn heap_bytes_deep(&self) -> usize {
        let below = match self {
            Node::Leaf(_) => 0,
            Node::Inner(inner) => inner.children.iter().map(Node::heap_bytes_deep).sum(),
        };
        self.heap_bytes() + below
    }

    /// Makes every node below this one's own.
    fn unshare(&mut self) {
        if let Node::Inner(inner) = self {
            Arc::make_mut(inner).children.iter_mut().for_each(Node::unshare);
        }
    }

    /// Gives back the room of a leaf that has become mostly empty but finds no
    /// neighbour to join.
    fn trim(&mut self, bytes: &mut usize) {
        if let Node::Leaf(leaf) = self
            && leaf.ids.capacity() > 4 * leaf.ids.len().max(4)
        {
            *bytes -= leaf.heap_bytes();
            let room = 2 * leaf.ids.len();
            leaf.scores.shrink_to(room);
            leaf.ids.shrink_to(room);
            *bytes += leaf.heap_bytes();
        }
    }

    fn insert(
        &mut self,
        item: Item,
        before: &impl Fn(Item) -> bool,
        bytes: &mut usize,
    ) -> Option<Node> {
        match self {
            Node::Leaf(leaf) => {
                *bytes -= leaf.heap_bytes();
                let right = leaf.insert(item, before);
                *bytes += leaf.heap_bytes() + right.as_ref().map_or(0, Leaf::heap_bytes);
                right.map(Node::Leaf)
            }
            Node::Inner(inner) => {
                let right = Arc::make_mut(inner).insert(item, before, bytes);
                right.map(|right| Node::Inner(Arc::new(right)))
            }
        }
    }

    fn remove(&mut self, rank: usize, bytes: &mut usize) -> Item {
        match self {
            Node::Leaf(leaf) => Item { score: leaf.scores.remove(rank), id: leaf.ids.remove(rank) },
            Node::Inner(inner) => Arc::make_mut(inner).remove(rank, bytes),
        }
    }

    fn replace(&mut self, rank: usize, item: Item) {
        match self {
            Node::Leaf(leaf) => {
                leaf.scores[rank] = item.score;
                leaf.ids[rank] = item.id;
            }
            Node::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                let (at, rank) = inner.child_of_rank(rank);
                inner.children[at].replace(rank, item);
                inner.firsts[at] = inner.children[at].first();
            }
        }
    }
}

/// The tree. See the module's description.
#[derive(Clone, Debug, Default)]
pub(super) struct OrderTree {
    root: Node,
    len: usize,
    /// Heap bytes of all nodes.
    bytes: usize,
}

impl OrderTree {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Makes what it has its own, if it is a copy.
    pub(super) fn unshare(&mut self) {
        self.root.unshare();
    }

    /// How many items stand before the place that `before` describes.
    pub(super) fn rank(&self, before: impl Fn(Item) -> bool) -> usize {
        let mut node = &self.root;
        let mut rank = 0usize;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    return rank + partition(leaf.ids.len(), |at| before(leaf.item(at)));
                }
                Node::Inner(inner) => {
                    let at = partition(inner.firsts.len(), |at| before(inner.firsts[at]));
                    let at = at.saturating_sub(1);
                    rank += inner.counts[..at].iter().map(|&count| count as usize).sum::<usize>();
                    node = &inner.children[at];
                }
            }
        }
    }

    /// Adds an item where `before` turns false.
    pub(super) fn insert(&mut self, item: Item, before: impl Fn(Item) -> bool) {
        if let Some(right) = self.root.insert(item, &before, &mut self.bytes) {
            let mut root = Inner::default();
            root.put(0, std::mem::take(&mut self.root));
            root.put(1, right);
            self.bytes += root.heap_bytes();
            self.root = Node::Inner(Arc::new(root));
        }
        self.len += 1;
    }

    /// Takes out the item of `rank`, which must be below the length.
    pub(super) fn remove(&mut self, rank: usize) -> Item {
        assert!(rank < self.len, "no item has rank {rank} of {}", self.len);
        let item = self.root.remove(rank, &mut self.bytes);
        self.len -= 1;
        while let Node::Inner(inner) = &mut self.root
            && inner.children.len() == 1
        {
            self.bytes -= inner.heap_bytes();
            self.root = Arc::make_mut(inner).take(0);
        }
        self.root.trim(&mut self.bytes);
        item
    }

    /// Puts `item` in the place of the item of `rank`. The order must hold.
    pub(super) fn replace(&mut self, rank: usize, item: Item) {
        assert!(rank < self.len, "no item has rank {rank} of {}", self.len);
        self.root.replace(rank, item);
    }

    /// The item of `rank`, if there is one.
    pub(super) fn get(&self, rank: usize) -> Option<Item> {
        (rank < self.len).then(|| {
            let (leaf, at) = self.leaf_of_rank(rank);
            leaf.item(at)
        })
    }

    fn leaf_of_rank(&self, mut rank: usize) -> (&Leaf, usize) {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return (leaf, rank),
                Node::Inner(inner) => {
                    let (at, below) = inner.child_of_rank(rank);
                    (node, rank) = (&inner.children[at], below);
                }
            }
        }
    }

    /// The items of the ranks in `range` that exist, upwards or downwards.
    pub(super) fn range(&self, range: Range<usize>, downwards: bool) -> Items<'_> {
        let end = range.end.min(self.len);
        Items { tree: self, ranks: range.start.min(end)..end, downwards, leaf: None }
    }

    #[cfg(test)]
    fn check(&self) {
        fn depth(node: &Node, root: bool) -> usize {
            assert!(root || node.width() > 0);
            assert!(node.width() <= node.width_max());
            let Node::Inner(inner) = node else { return 0 };
            assert!(!root || inner.children.len() > 1);
            for (at, child) in inner.children.iter().enumerate() {
                assert_eq!(inner.firsts[at], child.first());
                assert_eq!(inner.counts[at], child.count());
            }
            let depths: Vec<_> = inner.children.iter().map(|node| depth(node, false)).collect();
            assert!(depths.iter().all(|&depth| depth == depths[0]));
            depths[0] + 1
        }
        depth(&self.root, true);
        assert_eq!(self.root.count() as usize, self.len);
        assert_eq!(self.root.heap_bytes_deep(), self.bytes);
    }
}

/// Items by rank. Walks from the root once per leaf.
#[derive(Clone, Debug)]
pub(super) struct Items<'a> {
    tree: &'a OrderTree,
    /// Ranks still to come.
    ranks: Range<usize>,
    downwards: bool,
    /// The leaf of the last item and that item's place in it.
    leaf: Option<(&'a Leaf, usize)>,
}

impl Iterator for Items<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let rank = if self.downwards { self.ranks.next_back()? } else { self.ranks.next()? };
        let neighbour = self.leaf.and_then(|(leaf, at)| {
            let at = if self.downwards { at.checked_sub(1)? } else { at + 1 };
            (at < leaf.ids.len()).then_some((leaf, at))
        });
        let (leaf, at) = neighbour.unwrap_or_else(|| self.tree.leaf_of_rank(rank));
        self.leaf = Some((leaf, at));
        Some(leaf.item(at))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ranks.size_hint()
    }
}

impl ExactSizeIterator for Items<'_> {}

#[cfg(test)]
mod tests {
    use base::{Rng, SeededRng};

    use super::*;

    /// Orders by score, then by number.
    fn precedes(a: Item, b: Item) -> bool {
        (a.score, a.id) < (b.score, b.id)
    }

    fn item(score: u64, id: u64) -> Item {
        Item { score: score as f64, id: u32::try_from(id).unwrap() }
    }

    fn add(tree: &mut OrderTree, model: &mut Vec<Item>, item: Item) {
        tree.insert(item, |other| precedes(other, item));
        model.insert(model.partition_point(|&other| precedes(other, item)), item);
    }

    fn check(tree: &OrderTree, model: &[Item]) {
        tree.check();
        assert_eq!(tree.len(), model.len());
        assert!(tree.range(0..usize::MAX, false).eq(model.iter().copied()));
        assert!(tree.range(0..usize::MAX, true).eq(model.iter().rev().copied()));
        let (start, end) = (model.len() / 3, model.len() * 2 / 3);
        assert!(tree.range(start..end, false).eq(model[start..end].iter().copied()));
        assert!(tree.range(start..end, true).eq(model[start..end].iter().rev().copied()));
        for rank in (0..model.len()).step_by(17) {
            assert_eq!(tree.get(rank), Some(model[rank]));
            assert_eq!(tree.rank(|other| precedes(other, model[rank])), rank);
        }
        assert_eq!(tree.get(model.len()), None);
    }

    #[test]
    fn behaves_as_a_sorted_vector() {
        let mut rng = SeededRng::new(11);
        let (mut tree, mut model) = (OrderTree::default(), Vec::new());
        let mut next_id = 0;
        for round in 0u64..40 {
            // Swells to thousands of items, shrinks to none, and does so again.
            let chance = if round % 20 < 10 { 8 } else { 1 };
            for _ in 0..800 {
                if rng.below(10) < chance {
                    next_id += 1;
                    add(&mut tree, &mut model, item(rng.below(300), next_id));
                } else if !model.is_empty() {
                    let rank = rng.below(model.len() as u64) as usize;
                    assert_eq!(tree.remove(rank), model.remove(rank));
                }
            }
            check(&tree, &model);
            check(&tree.clone(), &model);
        }
        while !model.is_empty() {
            assert_eq!(tree.remove(0), model.remove(0));
        }
        check(&tree, &model);
    }

    #[test]
    fn sorted_input_fills_the_nodes() {
        for descending in [false, true] {
            let mut tree = OrderTree::default();
            let count = 100_000u64;
            for at in 0..count {
                let item = item(if descending { count - at } else { at }, at);
                tree.insert(item, |other| precedes(other, item));
            }
            tree.check();
            let each = tree.memory_bytes() as f64 / count as f64;
            assert!(each < 15.5, "{each} bytes an item, descending: {descending}");
        }
    }

    #[test]
    fn replace_renumbers_the_first_item_of_a_subtree() {
        let (mut tree, mut model) = (OrderTree::default(), Vec::new());
        (0..5000).for_each(|at| add(&mut tree, &mut model, item(at, at)));
        for (rank, slot) in model.iter_mut().enumerate() {
            slot.id += 10_000;
            tree.replace(rank, *slot);
        }
        check(&tree, &model);
    }
}
