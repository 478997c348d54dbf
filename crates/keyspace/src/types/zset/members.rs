//! The members of a large sorted set: dense numbers, scores, bytes.

use std::sync::Arc;

use crate::types::SHARED_BYTES;

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

#[derive(Debug)]
struct Member {
    score: f64,
    name: Name,
}

/// Members of a page; a power of two.
const PAGE: usize = 256;

/// A page, with the room that it has.
#[derive(Debug, Default)]
struct Page(Vec<Member>);

impl Page {
    /// Heap bytes of the page itself, the names' not included.
    fn bytes(&self) -> usize {
        SHARED_BYTES + size_of::<Page>() + self.0.capacity() * size_of::<Member>()
    }
}

/// Member for member into their places: a clone of each is put together
/// elsewhere first, in pieces that the processor has to wait for.
impl Clone for Page {
    fn clone(&self) -> Page {
        let empty = || Member { score: 0.0, name: Name::Inline { len: 0, bytes: [0; INLINE_MAX] } };
        let mut copy = Vec::with_capacity(self.0.capacity());
        copy.resize_with(self.0.len(), empty);
        for (to, from) in copy.iter_mut().zip(&self.0) {
            to.score = from.score;
            match (&mut to.name, &from.name) {
                (Name::Inline { len, bytes }, Name::Inline { len: of, bytes: from }) => {
                    *len = *of;
                    *bytes = *from;
                }
                (to, from) => *to = from.clone(),
            }
        }
        Page(copy)
    }
}

/// Numbered members. The numbers in use are always `0..len`: a removed
/// member's number goes to the one that had the last.
///
/// Pages keep growth from copying everything and from holding twice the room.
/// Copies of the set share those that none of them has changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    /// Every page but the last is full.
    pages: Vec<Arc<Page>>,
    /// Heap bytes of pages and names.
    bytes: usize,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * PAGE + last.0.len())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.pages.capacity() * size_of::<Arc<Page>>()
    }

    #[cfg(test)]
    fn count_bytes(&self) -> usize {
        let names = |page: &Arc<Page>| -> usize {
            page.0.iter().map(|member| member.name.heap_bytes()).sum()
        };
        self.pages.iter().map(|page| names(page) + page.bytes()).sum()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.bytes, self.count_bytes());
        let full = self.pages.split_last().map_or(&[][..], |(_, full)| full);
        assert!(full.iter().all(|page| page.0.len() == PAGE));
        assert!(self.pages.iter().all(|page| !page.0.is_empty()));
    }

    fn member(&self, id: u32) -> &Member {
        &self.pages[id as usize / PAGE].0[id as usize % PAGE]
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

    /// A member to change, for which its page becomes this set's own.
    fn member_mut(&mut self, id: u32) -> &mut Member {
        &mut Arc::make_mut(&mut self.pages[id as usize / PAGE]).0[id as usize % PAGE]
    }

    /// Makes every page this set's own.
    pub(super) fn unshare(&mut self) {
        self.pages.iter_mut().for_each(|page| _ = Arc::make_mut(page));
    }

    /// Names and scores of the members in pages that another one does not share.
    pub(super) fn iter_unshared<'a>(
        &'a self,
        other: &'a Members,
    ) -> impl Iterator<Item = (&'a [u8], f64)> {
        let is_own = |(at, page): &(usize, &Arc<Page>)| {
            other.pages.get(*at).is_none_or(|theirs| !Arc::ptr_eq(page, theirs))
        };
        let own = self.pages.iter().enumerate().filter(is_own);
        let members = own.flat_map(|(_, page)| page.0.iter());
        members.map(|member| (member.name.as_bytes(), member.score))
    }

    /// Adds a member and answers its number.
    pub(super) fn push(&mut self, name: &[u8], score: f64) -> u32 {
        // 2^32 members take more than 200 GiB before this could fail.
        let id = u32::try_from(self.len()).expect("a sorted set has fewer than 2^32 members");
        if self.pages.last().is_none_or(|last| last.0.len() == PAGE) {
            let page = Page::default();
            self.bytes += page.bytes();
            self.pages.push(Arc::new(page));
        }
        let page = self.pages.last_mut().expect("pushed when there was none");
        self.bytes -= page.bytes();
        let Page(members) = Arc::make_mut(page);
        if members.len() == members.capacity() {
            members.reserve_exact(members.len().clamp(8, PAGE - members.len()));
        }
        let member = Member { score, name: Name::new(name) };
        self.bytes += member.name.heap_bytes();
        members.push(member);
        self.bytes += page.bytes();
        id
    }

    /// Removes a member. The one with the last number takes over its number.
    pub(super) fn swap_remove(&mut self, id: u32) {
        let page = self.pages.last_mut().expect("the member is there");
        let Page(members) = Arc::make_mut(page);
        let mut gone = members.pop().expect("the last page is not empty");
        if members.is_empty() {
            self.bytes -= page.bytes();
            self.pages.pop();
        }
        if (id as usize) < self.len() {
            std::mem::swap(self.member_mut(id), &mut gone);
        }
        self.bytes -= gone.name.heap_bytes();
        if self.pages.capacity() > 4 * self.pages.len() {
            self.pages.shrink_to(2 * self.pages.len());
        }
    }
}

const _: () = assert!(size_of::<Member>() == 32);
