//! The members of a large sorted set: dense numbers, scores, bytes.

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

/// Numbered members. The numbers in use are always `0..len`: a removed
/// member's number goes to the one that had the last.
///
/// Pages keep growth from copying everything and from holding twice the room.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Every page but the last is full.
    pages: Vec<Vec<Member>>,
    /// Heap bytes of pages and names.
    bytes: usize,
}

impl Clone for Members {
    fn clone(&self) -> Members {
        let mut pages = Vec::with_capacity(self.pages.len());
        pages.extend(self.pages.iter().map(|page| copy_of(page)));
        // A copied page has no room to spare; the names are the same.
        let of_pages = |pages: &[Vec<Member>]| pages.iter().map(page_bytes).sum::<usize>();
        let bytes = self.bytes - of_pages(&self.pages) + of_pages(&pages);
        Members { pages, bytes }
    }
}

/// Member for member into their places: a clone of each is put together
/// elsewhere first, in pieces that the processor has to wait for.
fn copy_of(page: &[Member]) -> Vec<Member> {
    let empty = || Member { score: 0.0, name: Name::Inline { len: 0, bytes: [0; INLINE_MAX] } };
    let mut copy = Vec::with_capacity(page.len());
    copy.resize_with(page.len(), empty);
    for (to, from) in copy.iter_mut().zip(page) {
        to.score = from.score;
        match (&mut to.name, &from.name) {
            (Name::Inline { len, bytes }, Name::Inline { len: of, bytes: from }) => {
                *len = *of;
                *bytes = *from;
            }
            (to, from) => *to = from.clone(),
        }
    }
    copy
}

fn page_bytes(page: &Vec<Member>) -> usize {
    page.capacity() * size_of::<Member>()
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * PAGE + last.len())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.pages.capacity() * size_of::<Vec<Member>>()
    }

    #[cfg(test)]
    fn count_bytes(&self) -> usize {
        let names = self.pages.iter().flatten().map(|member| member.name.heap_bytes());
        names.sum::<usize>() + self.pages.iter().map(page_bytes).sum::<usize>()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.bytes, self.count_bytes());
        let full = self.pages.split_last().map_or(&[][..], |(_, full)| full);
        assert!(full.iter().all(|page| page.len() == PAGE));
        assert!(self.pages.iter().all(|page| !page.is_empty()));
    }

    fn member(&self, id: u32) -> &Member {
        &self.pages[id as usize / PAGE][id as usize % PAGE]
    }

    pub(super) fn name(&self, id: u32) -> &[u8] {
        self.member(id).name.as_bytes()
    }

    pub(super) fn score(&self, id: u32) -> f64 {
        self.member(id).score
    }

    pub(super) fn set_score(&mut self, id: u32, score: f64) {
        self.pages[id as usize / PAGE][id as usize % PAGE].score = score;
    }

    /// Adds a member and answers its number.
    pub(super) fn push(&mut self, name: &[u8], score: f64) -> u32 {
        // 2^32 members take more than 200 GiB before this could fail.
        let id = u32::try_from(self.len()).expect("a sorted set has fewer than 2^32 members");
        if self.pages.last().is_none_or(|last| last.len() == PAGE) {
            self.pages.push(Vec::new());
        }
        let page = self.pages.last_mut().expect("pushed when there was none");
        self.bytes -= page_bytes(page);
        if page.len() == page.capacity() {
            page.reserve_exact(page.len().clamp(8, PAGE - page.len()));
        }
        let member = Member { score, name: Name::new(name) };
        self.bytes += member.name.heap_bytes();
        page.push(member);
        self.bytes += page_bytes(page);
        id
    }

    /// Removes a member. The one with the last number takes over its number.
    pub(super) fn swap_remove(&mut self, id: u32) {
        let page = self.pages.last_mut().expect("the member is there");
        let mut gone = page.pop().expect("the last page is not empty");
        if page.is_empty() {
            self.bytes -= page_bytes(page);
            self.pages.pop();
        }
        if (id as usize) < self.len() {
            let slot = &mut self.pages[id as usize / PAGE][id as usize % PAGE];
            std::mem::swap(slot, &mut gone);
        }
        self.bytes -= gone.name.heap_bytes();
        if self.pages.capacity() > 4 * self.pages.len() {
            self.pages.shrink_to(2 * self.pages.len());
        }
    }
}

const _: () = assert!(size_of::<Member>() == 32);
