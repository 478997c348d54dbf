//! The members of a large sorted set: dense numbers, scores, bytes.

use std::sync::Arc;

use crate::types::{SHARED_BYTES, copy_with_room};

/// Longest member kept inside its slot.
const INLINE_MAX: usize = 22;

/// A member's bytes. 24 bytes, and a heap block only for long ones.
#[derive(Clone, Debug)]
enum Name {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Heap(Box<[u8]>),
}

impl Name {
    fn new(name: &[u8]) -> Name {
        if name.len() > INLINE_MAX {
            return Name::Heap(name.into());
        }
        let mut bytes = [0; INLINE_MAX];
        bytes[..name.len()].copy_from_slice(name);
        Name::Inline { len: name.len() as u8, bytes }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Name::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Name::Heap(bytes) => bytes,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Name::Inline { .. } => 0,
            Name::Heap(bytes) => bytes.len(),
        }
    }
}

#[derive(Clone, Debug)]
struct Member {
    score: f64,
    name: Name,
}

/// Members of a page; a power of two.
const PAGE: usize = 256;

/// Numbered members. The numbers in use are always `0..len`: a removed
/// member's number goes to the one that had the last.
///
/// Pages keep growth from copying everything and from holding twice the room.
/// Copies of the set share those that none of them has changed.
#[derive(Debug, Default)]
pub(super) struct Members {
    full: Vec<Arc<[Member]>>,
    /// The members behind the full pages, up to a page.
    last: Vec<Member>,
    /// Heap bytes of pages and names.
    bytes: usize,
}

impl Clone for Members {
    fn clone(&self) -> Members {
        let last = copy_with_room(&self.last);
        Members { full: self.full.clone(), last, bytes: self.bytes }
    }
}

/// Heap bytes of a full page.
const PAGE_BYTES: usize = SHARED_BYTES + PAGE * size_of::<Member>();

impl Members {
    pub(super) fn len(&self) -> usize {
        self.full.len() * PAGE + self.last.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.full.capacity() * size_of::<Arc<[Member]>>()
    }

    #[cfg(test)]
    fn count_bytes(&self) -> usize {
        let members = self.full.iter().flat_map(|page| page.iter()).chain(&self.last);
        let names: usize = members.map(|member| member.name.heap_bytes()).sum();
        names + self.full.len() * PAGE_BYTES + self.last_bytes()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.bytes, self.count_bytes());
        assert!(self.full.iter().all(|page| page.len() == PAGE));
        assert!(self.last.len() <= PAGE);
    }

    /// Heap bytes of the last members.
    fn last_bytes(&self) -> usize {
        self.last.capacity() * size_of::<Member>()
    }

    fn member(&self, id: u32) -> &Member {
        let (page, at) = (id as usize / PAGE, id as usize % PAGE);
        match self.full.get(page) {
            Some(page) => &page[at],
            None => &self.last[at],
        }
    }

    /// A member to change, for which its page becomes this set's own.
    fn member_mut(&mut self, id: u32) -> &mut Member {
        let (page, at) = (id as usize / PAGE, id as usize % PAGE);
        match self.full.get_mut(page) {
            Some(page) => &mut Arc::make_mut(page)[at],
            None => &mut self.last[at],
        }
    }

    pub(super) fn name(&self, id: u32) -> &[u8] {
        self.member(id).name.as_bytes()
    }

    pub(super) fn score(&self, id: u32) -> f64 {
        self.member(id).score
    }

    pub(super) fn set_score(&mut self, id: u32, score: f64) {
        self.member_mut(id).score = score;
    }

    /// Makes every page this set's own.
    pub(super) fn unshare(&mut self) {
        self.full.iter_mut().for_each(|page| _ = Arc::make_mut(page));
    }

    /// Names and scores of the members in pages that another one does not share.
    pub(super) fn iter_unshared<'a>(
        &'a self,
        other: &'a Members,
    ) -> impl Iterator<Item = (&'a [u8], f64)> {
        let is_own = |(at, page): &(usize, &Arc<[Member]>)| {
            other.full.get(*at).is_none_or(|theirs| !Arc::ptr_eq(page, theirs))
        };
        let own = self.full.iter().enumerate().filter(is_own).flat_map(|(_, page)| page.iter());
        own.chain(&self.last).map(|member| (member.name.as_bytes(), member.score))
    }

    /// Adds a member and answers its number.
    pub(super) fn push(&mut self, name: &[u8], score: f64) -> u32 {
        // 2^32 members take more than 200 GiB before this could fail.
        let id = u32::try_from(self.len()).expect("a sorted set has fewer than 2^32 members");
        self.bytes -= self.last_bytes();
        if self.last.len() == PAGE {
            self.full.push(Arc::from(std::mem::take(&mut self.last)));
            self.bytes += PAGE_BYTES;
        }
        if self.last.len() == self.last.capacity() {
            self.last.reserve_exact(self.last.len().clamp(8, PAGE - self.last.len()));
        }
        let member = Member { score, name: Name::new(name) };
        self.bytes += member.name.heap_bytes();
        self.last.push(member);
        self.bytes += self.last_bytes();
        id
    }

    /// Removes a member. The one with the last number takes over its number.
    pub(super) fn swap_remove(&mut self, id: u32) {
        if self.last.is_empty() {
            let page = self.full.pop().expect("the member is there");
            self.bytes -= PAGE_BYTES + self.last_bytes();
            self.last.extend_from_slice(&page);
            self.bytes += self.last_bytes();
        }
        let mut gone = self.last.pop().expect("it is not empty");
        if (id as usize) < self.len() {
            std::mem::swap(self.member_mut(id), &mut gone);
        }
        self.bytes -= gone.name.heap_bytes();
        if self.full.capacity() > 4 * self.full.len() {
            self.full.shrink_to(2 * self.full.len());
        }
    }
}

const _: () = assert!(size_of::<Member>() == 32);
