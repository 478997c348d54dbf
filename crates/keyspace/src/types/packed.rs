use std::fmt;

/// A sequence of byte strings in one allocation: small collections and the
/// nodes of large lists.
///
/// An element is its length (LEB128), its bytes, and the size of both together
/// once more in a form that is read backwards, so iteration goes both ways.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
    len: u32,
}

impl Packed {
    /// An empty sequence. Allocates nothing.
    #[must_use]
    pub const fn new() -> Packed {
        Packed { bytes: Vec::new(), len: 0 }
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the elements with their lengths.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Heap bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Bytes that an element of `len` bytes takes.
    #[must_use]
    pub fn size_of_element(len: usize) -> usize {
        let front = number_size(len) + len;
        front + number_size(front)
    }

    /// Adds an element at the end.
    pub fn push_back(&mut self, element: &[u8]) {
        self.reserve(Packed::size_of_element(element.len()));
        let start = self.bytes.len();
        push_number(&mut self.bytes, element.len());
        self.bytes.extend_from_slice(element);
        let front = self.bytes.len() - start;
        push_number_backwards(&mut self.bytes, front);
        self.len += 1;
    }

    /// Adds an element at the beginning.
    pub fn push_front(&mut self, element: &[u8]) {
        self.insert_at_offset(0, element);
    }

    /// Adds an element before the one at `index`, or at the end.
    ///
    /// # Panics
    /// When `index` exceeds the length.
    pub fn insert(&mut self, index: usize, element: &[u8]) {
        if index == self.len() {
            self.push_back(element);
        } else {
            let offset = self.offset_of(index);
            self.insert_at_offset(offset, element);
        }
    }

    /// The element at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        (index < self.len()).then(|| self.element_at(self.offset_of(index)).0)
    }

    /// Replaces the element at `index`.
    ///
    /// # Panics
    /// When there is none.
    pub fn replace(&mut self, index: usize, element: &[u8]) {
        let offset = self.offset_of(index);
        let (old, end) = self.element_at(offset);
        if old.len() == element.len() {
            let start = offset + number_size(element.len());
            self.bytes[start..start + element.len()].copy_from_slice(element);
        } else {
            self.cut(offset, end, 1);
            self.insert_at_offset(offset, element);
        }
    }

    /// Removes the element at `index`.
    ///
    /// # Panics
    /// When there is none.
    pub fn remove(&mut self, index: usize) {
        self.remove_range(index, 1);
    }

    /// Removes `count` elements from `index` on.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn remove_range(&mut self, index: usize, count: usize) {
        if count == 0 {
            return;
        }
        let start = self.offset_of(index);
        let end = if index + count == self.len() {
            self.bytes.len()
        } else {
            self.offset_of(index + count)
        };
        self.cut(start, end, count);
    }

    /// The elements from first to last.
    #[must_use]
    pub fn iter(&self) -> PackedIter<'_> {
        PackedIter { packed: self, front: 0, back: self.bytes.len(), left: self.len() }
    }

    /// Moves the elements from `index` on into a sequence of their own.
    ///
    /// # Panics
    /// When `index` exceeds the length.
    #[must_use]
    pub fn split_off(&mut self, index: usize) -> Packed {
        if index == self.len() {
            return Packed::new();
        }
        let offset = self.offset_of(index);
        let tail = self.bytes[offset..].to_vec();
        let moved = self.len - index as u32;
        self.bytes.truncate(offset);
        self.bytes.shrink_to_fit();
        self.len = index as u32;
        Packed { bytes: tail, len: moved }
    }

    /// Adds all elements of another sequence.
    pub fn append(&mut self, other: &Packed) {
        self.reserve(other.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.len += other.len;
    }

    /// Grows by an eighth rather than doubling: many of these are small, and
    /// what is spare here is spare a million times.
    fn reserve(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            self.bytes.reserve_exact(more + needed / 8);
        }
    }

    fn insert_at_offset(&mut self, offset: usize, element: &[u8]) {
        let tail = self.bytes.len() - offset;
        self.push_back(element);
        self.bytes[offset..].rotate_left(tail);
    }

    fn cut(&mut self, start: usize, end: usize, count: usize) {
        self.bytes.drain(start..end);
        self.len -= count as u32;
        if self.bytes.len() * 2 < self.bytes.capacity() {
            self.bytes.shrink_to(self.bytes.len() + self.bytes.len() / 8);
        }
    }

    /// Where the element at `index` starts, found from the nearer end.
    fn offset_of(&self, index: usize) -> usize {
        assert!(index < self.len(), "element {index} of {}", self.len());
        if index < self.len() / 2 {
            (0..index).fold(0, |offset, _| self.element_at(offset).1)
        } else {
            (index..self.len()).fold(self.bytes.len(), |end, _| self.start_before(end))
        }
    }

    /// The element at an offset, and the offset after it.
    fn element_at(&self, offset: usize) -> (&[u8], usize) {
        let (len, start) = number_at(&self.bytes, offset);
        let end = start + len;
        (&self.bytes[start..end], end + number_size(end - offset))
    }

    /// Where the element that ends at `end` starts.
    fn start_before(&self, end: usize) -> usize {
        let (mut front, mut shift, mut at) = (0usize, 0, end);
        loop {
            at -= 1;
            let byte = self.bytes[at];
            front |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return at - front;
            }
        }
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|e| e.escape_ascii().to_string())).finish()
    }
}

/// Iterator over a [`Packed`].
#[derive(Clone, Debug)]
pub struct PackedIter<'a> {
    packed: &'a Packed,
    front: usize,
    back: usize,
    left: usize,
}

impl<'a> Iterator for PackedIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let (element, end) = self.packed.element_at(self.front);
        self.front = end;
        Some(element)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for PackedIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.back = self.packed.start_before(self.back);
        Some(self.packed.element_at(self.back).0)
    }
}

impl ExactSizeIterator for PackedIter<'_> {}

fn number_size(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn push_number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The lowest seven bits come last; a set high bit says that more stand before.
fn push_number_backwards(out: &mut Vec<u8>, value: usize) {
    for group in (0..number_size(value)).rev() {
        let bits = (value >> (7 * group)) as u8 & 0x7f;
        let is_first = group + 1 == number_size(value);
        out.push(if is_first { bits } else { bits | 0x80 });
    }
}

fn number_at(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[at];
        at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return (value, at);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        RemoveRange(usize, usize),
        Split(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..20),
            1 => prop::collection::vec(any::<u8>(), 100..300),
        ];
        prop_oneof![
            5 => (any::<usize>(), bytes.clone()).prop_map(|(i, b)| Step::Insert(i, b)),
            2 => (any::<usize>(), bytes).prop_map(|(i, b)| Step::Replace(i, b)),
            2 => (any::<usize>(), 0usize..4).prop_map(|(i, n)| Step::RemoveRange(i, n)),
            1 => any::<usize>().prop_map(Step::Split),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector(steps in prop::collection::vec(step(), 0..60)) {
            let mut packed = Packed::new();
            let mut model: Vec<Vec<u8>> = Vec::new();
            for step in steps {
                let len = model.len();
                match step {
                    Step::Insert(at, bytes) => {
                        packed.insert(at % (len + 1), &bytes);
                        model.insert(at % (len + 1), bytes);
                    }
                    Step::Replace(at, bytes) if len > 0 => {
                        packed.replace(at % len, &bytes);
                        model[at % len] = bytes;
                    }
                    Step::RemoveRange(at, count) if len > 0 => {
                        let at = at % len;
                        let count = count.min(len - at);
                        packed.remove_range(at, count);
                        model.drain(at..at + count);
                    }
                    Step::Split(at) => {
                        let tail = packed.split_off(at % (len + 1));
                        packed.append(&tail);
                    }
                    _ => {}
                }
                prop_assert_eq!(packed.len(), model.len());
                let size: usize = model.iter().map(|e| Packed::size_of_element(e.len())).sum();
                prop_assert_eq!(packed.size(), size);
            }
            let forward: Vec<_> = packed.iter().map(<[u8]>::to_vec).collect();
            prop_assert_eq!(&forward, &model);
            let mut backward: Vec<_> = packed.iter().rev().map(<[u8]>::to_vec).collect();
            backward.reverse();
            prop_assert_eq!(&backward, &model);
            for (index, element) in model.iter().enumerate() {
                prop_assert_eq!(packed.get(index), Some(element.as_slice()));
            }
            prop_assert_eq!(packed.get(model.len()), None);
        }
    }

    #[test]
    fn a_small_pair_is_tight() {
        let mut packed = Packed::new();
        packed.push_back(b"field");
        packed.push_back(b"value");
        assert_eq!(packed.size(), 14);
        assert!(packed.memory_bytes() <= 16);
    }
}
