use std::collections::VecDeque;
use std::sync::Arc;

use super::SHARED_BYTES;
use super::packed::Packed;
use crate::limits::EncodingLimits;

/// A list: a deque of packed nodes.
///
/// A list that fits in one node is in Redis's terms a listpack; past the
/// limits it becomes a quicklist, and becomes a listpack again only when it
/// has shrunk to half of them, so that it does not change back and forth.
#[derive(Debug, Default)]
pub struct List {
    nodes: VecDeque<Node>,
    len: usize,
    /// Heap bytes of the nodes.
    node_bytes: usize,
    is_quicklist: bool,
}

/// A piece of a list.
#[derive(Clone, Debug)]
enum Node {
    /// In place, as the first and the last mostly are, which are changed all the
    /// time. A copy of the list copies them.
    Own(Packed),
    /// Shared with copies of the list until one of them changes it. Its length
    /// stands beside: whoever looks for a place in a long list walks over nodes
    /// without touching what they hold.
    Shared { elements: Arc<Packed>, len: usize },
}

/// Bytes of a node that stands in place. It has more only for an element that is
/// larger.
const OWN_BYTES_MAX: usize = 64 << 10;

impl Node {
    /// Heap bytes that sharing takes.
    const SHARED_BYTES: usize = SHARED_BYTES + size_of::<Packed>();

    fn len(&self) -> usize {
        match self {
            Node::Own(elements) => elements.len(),
            Node::Shared { len, .. } => *len,
        }
    }

    fn elements(&self) -> &Packed {
        match self {
            Node::Own(elements) => elements,
            Node::Shared { elements, .. } => elements,
        }
    }

    /// Changes what it holds, which is its list's own from here on.
    fn edit<R>(&mut self, change: impl FnOnce(&mut Packed) -> R) -> R {
        match self {
            Node::Own(elements) => {
                let result = change(elements);
                if elements.size() > OWN_BYTES_MAX {
                    self.settle();
                }
                result
            }
            Node::Shared { elements, len } => {
                let elements = Arc::make_mut(elements);
                let result = change(elements);
                *len = elements.len();
                result
            }
        }
    }

    /// It is not at an end of the list any more, or too large to be copied with
    /// the list.
    fn settle(&mut self) {
        if let Node::Own(elements) = self {
            let len = elements.len();
            *self = Node::Shared { elements: Arc::new(std::mem::take(elements)), len };
        }
    }

    fn is_shared_with(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Shared { elements: a, .. }, Node::Shared { elements: b, .. }) => {
                Arc::ptr_eq(a, b)
            }
            _ => false,
        }
    }
}

impl Default for Node {
    fn default() -> Node {
        Node::Own(Packed::new())
    }
}

impl Clone for List {
    fn clone(&self) -> List {
        let nodes = self.nodes.clone();
        // What is copied has no room to spare.
        let own = |nodes: &VecDeque<Node>| -> usize {
            let own = nodes.iter().map(|node| match node {
                Node::Own(elements) => elements.memory_bytes(),
                Node::Shared { .. } => 0,
            });
            own.sum()
        };
        let node_bytes = self.node_bytes - own(&self.nodes) + own(&nodes);
        List { nodes, node_bytes, ..*self }
    }
}

/// How much one node holds.
#[derive(Clone, Copy)]
struct NodeLimit {
    bytes: usize,
    count: usize,
}

impl NodeLimit {
    fn of(limits: &EncodingLimits) -> NodeLimit {
        match limits.list_max_listpack_size {
            size @ ..=-1 => {
                let class = size.max(-5).unsigned_abs() as usize;
                NodeLimit { bytes: 4096 << (class - 1), count: usize::MAX }
            }
            // A positive limit counts elements; 8 KiB keeps nodes movable.
            count => NodeLimit { bytes: 8192, count: (count as usize).max(1) },
        }
    }

    /// Whether a node of this size can take an element of `len` bytes.
    fn admits(self, node: &Packed, len: usize) -> bool {
        node.size() + Packed::size_of_element(len) <= self.bytes && node.len() < self.count
    }

    fn half(self) -> NodeLimit {
        NodeLimit { bytes: self.bytes / 2, count: self.count / 2 }
    }
}

impl List {
    /// An empty list. Allocates nothing.
    #[must_use]
    pub fn new() -> List {
        List::default()
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What `OBJECT ENCODING` says.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        if self.is_quicklist { "quicklist" } else { "listpack" }
    }

    /// Heap bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let sharing = self.nodes.len().saturating_sub(2) * Node::SHARED_BYTES;
        self.nodes.capacity() * size_of::<Node>() + sharing + self.node_bytes
    }

    /// How many nodes hold the elements.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Adds an element before the first.
    pub fn push_front(&mut self, element: &[u8], limits: &EncodingLimits) {
        let limit = NodeLimit::of(limits);
        if !self.nodes.front().is_some_and(|node| limit.admits(node.elements(), element.len())) {
            self.nodes.front_mut().into_iter().for_each(Node::settle);
            self.nodes.push_front(Node::default());
        }
        self.edit(0, |node| node.push_front(element));
        self.grew(limit);
    }

    /// Adds an element after the last.
    pub fn push_back(&mut self, element: &[u8], limits: &EncodingLimits) {
        let limit = NodeLimit::of(limits);
        if !self.nodes.back().is_some_and(|node| limit.admits(node.elements(), element.len())) {
            self.nodes.back_mut().into_iter().for_each(Node::settle);
            self.nodes.push_back(Node::default());
        }
        self.edit(self.nodes.len() - 1, |node| node.push_back(element));
        self.grew(limit);
    }

    /// Removes the first element.
    pub fn pop_front(&mut self, limits: &EncodingLimits) -> Option<Vec<u8>> {
        let element = self.nodes.front()?.elements().get(0)?.to_vec();
        self.cut(0, 0, 1);
        self.shrank(limits);
        Some(element)
    }

    /// Removes the last element.
    pub fn pop_back(&mut self, limits: &EncodingLimits) -> Option<Vec<u8>> {
        let last = self.nodes.back()?;
        let index = last.len().checked_sub(1)?;
        let element = last.elements().get(index)?.to_vec();
        self.cut(self.nodes.len() - 1, index, 1);
        self.shrank(limits);
        Some(element)
    }

    /// The element at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (node, offset) = self.locate(index)?;
        self.nodes[node].elements().get(offset)
    }

    /// Replaces the element at `index`.
    ///
    /// # Panics
    /// When there is none.
    pub fn set(&mut self, index: usize, element: &[u8], limits: &EncodingLimits) {
        let (node, offset) = self.locate(index).expect("the element exists");
        let limit = NodeLimit::of(limits);
        let old = self.nodes[node].elements().get(offset).map_or(0, <[u8]>::len);
        let size = self.nodes[node].elements().size() - Packed::size_of_element(old)
            + Packed::size_of_element(element.len());
        if size <= limit.bytes || self.nodes[node].len() == 1 {
            self.edit(node, |node| node.replace(offset, element));
        } else {
            self.cut(node, offset, 1);
            self.insert_at(index, element, limits);
        }
        self.grew(limit);
    }

    /// Adds an element before the one at `index`, or at the end.
    ///
    /// # Panics
    /// When `index` exceeds the length.
    pub fn insert_at(&mut self, index: usize, element: &[u8], limits: &EncodingLimits) {
        if index == self.len {
            return self.push_back(element, limits);
        }
        if index == 0 {
            return self.push_front(element, limits);
        }
        let limit = NodeLimit::of(limits);
        let (node, offset) = self.locate(index).expect("the index is within the list");
        if limit.admits(self.nodes[node].elements(), element.len()) {
            self.edit(node, |node| node.insert(offset, element));
        } else {
            // Split where the element goes, and give it the first half or a
            // node of its own.
            let tail = self.edit(node, |node| node.split_off(offset));
            let mut at = node;
            let head = self.nodes[node].elements();
            if !head.is_empty() && !limit.admits(head, element.len()) {
                at += 1;
                self.nodes.insert(at, Node::default());
            }
            self.edit(at, |node| node.push_back(element));
            self.node_bytes += tail.memory_bytes();
            self.len += tail.len();
            self.nodes.insert(at + 1, Node::Own(tail));
        }
        self.grew(limit);
    }

    /// Removes the element at `index`.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove_at(&mut self, index: usize, limits: &EncodingLimits) {
        let (node, offset) = self.locate(index).expect("the element exists");
        self.cut(node, offset, 1);
        self.shrank(limits);
    }

    /// Keeps `len` elements from `start` on, or as many as there are.
    pub fn trim(&mut self, start: usize, len: usize, limits: &EncodingLimits) {
        let start = start.min(self.len);
        let end = start.saturating_add(len).min(self.len);
        let mut drop_back = self.len - end;
        while drop_back > 0 {
            let last = self.nodes.len() - 1;
            let count = drop_back.min(self.nodes[last].len());
            let offset = self.nodes[last].len() - count;
            self.cut(last, offset, count);
            drop_back -= count;
        }
        let mut drop_front = start;
        while drop_front > 0 {
            let count = drop_front.min(self.nodes[0].len());
            self.cut(0, 0, count);
            drop_front -= count;
        }
        self.shrank(limits);
    }

    /// The elements from first to last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.nodes.iter().flat_map(|node| node.elements().iter())
    }

    /// The elements from `index` on.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = &[u8]> + Clone {
        let (node, offset) = self.locate(index).unwrap_or((self.nodes.len(), 0));
        let rest = self.nodes.range(node..).flat_map(|node| node.elements().iter());
        rest.skip(offset)
    }

    /// The node of an element and its place there, found from the nearer end.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        if index >= self.len {
            return None;
        }
        if index < self.len / 2 {
            let mut before = 0;
            for (at, node) in self.nodes.iter().enumerate() {
                if index < before + node.len() {
                    return Some((at, index - before));
                }
                before += node.len();
            }
        } else {
            let mut before = self.len;
            for (at, node) in self.nodes.iter().enumerate().rev() {
                before -= node.len();
                if index >= before {
                    return Some((at, index - before));
                }
            }
        }
        unreachable!("the nodes hold as many elements as the list")
    }

    /// Makes what it has its own, if it is a copy.
    pub(crate) fn unshare(&mut self) {
        (0..self.nodes.len()).for_each(|at| self.edit(at, |_| ()));
    }

    /// Changes a node, whose elements are its own from here on, and keeps the
    /// sums right.
    fn edit<R>(&mut self, at: usize, change: impl FnOnce(&mut Packed) -> R) -> R {
        let node = &mut self.nodes[at];
        let (bytes, len) = (node.elements().memory_bytes(), node.len());
        let result = node.edit(change);
        self.node_bytes = self.node_bytes - bytes + node.elements().memory_bytes();
        self.len = self.len - len + node.len();
        result
    }

    /// Takes elements out of a node, and a node that has no others.
    fn cut(&mut self, at: usize, offset: usize, count: usize) {
        let node = &self.nodes[at];
        if count < node.len() {
            self.edit(at, |elements| elements.remove_range(offset, count));
            return;
        }
        self.node_bytes -= node.elements().memory_bytes();
        self.len -= count;
        self.nodes.remove(at);
        if self.nodes.len() * 4 < self.nodes.capacity() {
            self.nodes.shrink_to(self.nodes.len() * 2);
        }
    }

    fn grew(&mut self, limit: NodeLimit) {
        let beyond = match self.nodes.front() {
            Some(node) if self.nodes.len() == 1 => {
                node.elements().size() > limit.bytes || node.len() > limit.count
            }
            Some(_) => true,
            None => false,
        };
        self.is_quicklist |= beyond;
    }

    fn shrank(&mut self, limits: &EncodingLimits) {
        let half = NodeLimit::of(limits).half();
        match self.nodes.front() {
            None => self.is_quicklist = false,
            Some(node) if self.nodes.len() == 1 => {
                if node.elements().size() <= half.bytes && node.len() <= half.count {
                    self.is_quicklist = false;
                }
            }
            Some(_) => {}
        }
    }
}

/// Equal elements in equal order, whatever the nodes.
impl PartialEq for List {
    fn eq(&self, other: &List) -> bool {
        let is_shared = |(a, b): (&Node, &Node)| a.is_shared_with(b);
        // What both begin and end with because one is a copy of the other.
        let pairs = || self.nodes.iter().zip(&other.nodes);
        let begin = pairs().take_while(|pair| is_shared(*pair)).count();
        let skipped: usize = self.nodes.range(..begin).map(Node::len).sum();
        let back = self.nodes.iter().rev().zip(other.nodes.iter().rev());
        let rest = self.nodes.len().min(other.nodes.len()) - begin;
        let end = back.take_while(|pair| is_shared(*pair)).take(rest).count();
        let left: usize = self.nodes.range(self.nodes.len() - end..).map(Node::len).sum();
        let between = self.len - skipped - left;
        self.len == other.len
            && self.iter_from(skipped).take(between).eq(other.iter_from(skipped).take(between))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        PushFront(Vec<u8>),
        PushBack(Vec<u8>),
        PopFront,
        PopBack,
        Set(usize, Vec<u8>),
        Insert(usize, Vec<u8>),
        Remove(usize),
        Trim(usize, usize),
        /// Keeps a copy, and goes on with an older one.
        Copy(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = prop_oneof![
            6 => prop::collection::vec(any::<u8>(), 0..30),
            1 => prop::collection::vec(any::<u8>(), 2000..6000),
        ];
        prop_oneof![
            4 => bytes.clone().prop_map(Step::PushFront),
            4 => bytes.clone().prop_map(Step::PushBack),
            2 => Just(Step::PopFront),
            2 => Just(Step::PopBack),
            2 => (any::<usize>(), bytes.clone()).prop_map(|(i, b)| Step::Set(i, b)),
            4 => (any::<usize>(), bytes).prop_map(|(i, b)| Step::Insert(i, b)),
            2 => any::<usize>().prop_map(Step::Remove),
            1 => (0usize..3, 20usize..200).prop_map(|(s, l)| Step::Trim(s, l)),
            2 => any::<usize>().prop_map(Step::Copy),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_deque(
            steps in prop::collection::vec(step(), 0..150),
            size in prop_oneof![Just(-1i64), Just(-2), Just(1), Just(3), Just(10)],
        ) {
            let limits = EncodingLimits { list_max_listpack_size: size, ..EncodingLimits::default() };
            let mut list = List::new();
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let mut copies = Vec::new();
            for step in steps {
                let len = model.len();
                match step {
                    Step::PushFront(b) => { list.push_front(&b, &limits); model.push_front(b); }
                    Step::PushBack(b) => { list.push_back(&b, &limits); model.push_back(b); }
                    Step::PopFront => prop_assert_eq!(list.pop_front(&limits), model.pop_front()),
                    Step::PopBack => prop_assert_eq!(list.pop_back(&limits), model.pop_back()),
                    Step::Set(i, b) if len > 0 => { list.set(i % len, &b, &limits); model[i % len] = b; }
                    Step::Insert(i, b) => {
                        list.insert_at(i % (len + 1), &b, &limits);
                        model.insert(i % (len + 1), b);
                    }
                    Step::Remove(i) if len > 0 => { list.remove_at(i % len, &limits); model.remove(i % len); }
                    Step::Trim(start, keep) => {
                        list.trim(start, keep, &limits);
                        model = model.into_iter().skip(start).take(keep).collect();
                    }
                    Step::Copy(older) => {
                        copies.push((list.clone(), model.clone()));
                        let older = older % copies.len();
                        (list, model) = copies[older].clone();
                    }
                    _ => {}
                }
                prop_assert_eq!(list.len(), model.len());
                prop_assert!(list.nodes.iter().all(|node| node.len() > 0 && node.len() == node.elements().len()));
                let bytes: usize = list.nodes.iter().map(|node| node.elements().memory_bytes()).sum();
                prop_assert_eq!(list.node_bytes, bytes);
            }
            for (copy, other) in &copies {
                prop_assert_eq!(*copy == list, *other == model);
            }
            for (copy, model) in &mut copies {
                prop_assert!(copy.iter().eq(model.iter().map(Vec::as_slice)));
                copy.unshare();
                let bytes: usize = copy.nodes.iter().map(|node| node.elements().memory_bytes()).sum();
                prop_assert_eq!(copy.node_bytes, bytes);
            }
            prop_assert!(list.iter().eq(model.iter().map(Vec::as_slice)));
            prop_assert!(list.iter().rev().eq(model.iter().rev().map(Vec::as_slice)));
            for at in 0..=model.len() {
                prop_assert_eq!(list.get(at), model.get(at).map(Vec::as_slice));
                prop_assert!(list.iter_from(at).eq(model.iter().skip(at).map(Vec::as_slice)));
            }
        }
    }

    #[test]
    fn a_copy_shares_what_is_large() {
        let limits = EncodingLimits::default();
        let mut list = List::new();
        list.push_back(&vec![b'x'; 1 << 20], &limits);
        list.push_front(b"small", &limits);
        let copy = list.clone();
        let shared = list.nodes.iter().zip(&copy.nodes).filter(|(a, b)| a.is_shared_with(b));
        assert_eq!((shared.count(), list.nodes.len()), (1, 2));
        list.set(1, b"y", &limits);
        assert_eq!((copy.get(1).map(<[u8]>::len), list.get(1)), (Some(1 << 20), Some(&b"y"[..])));
    }

    #[test]
    fn the_encoding_changes_back_only_at_half() {
        let limits = EncodingLimits { list_max_listpack_size: 4, ..EncodingLimits::default() };
        let mut list = List::new();
        (0..4).for_each(|_| list.push_back(b"x", &limits));
        assert_eq!(list.encoding(), "listpack");
        list.push_back(b"x", &limits);
        assert_eq!(list.encoding(), "quicklist");
        list.pop_back(&limits);
        list.pop_back(&limits);
        assert_eq!(list.encoding(), "quicklist");
        list.pop_back(&limits);
        assert_eq!(list.encoding(), "listpack");
    }
}
