//! The small form of a sorted set: one byte string, sorted.
//!
//! An entry is its score, its member's length and its member:
//!
//! ```text
//! score   0 and an i8 | 1 and an i16 | 2 and an i32 | 3 and an f64, little-endian
//! length  one byte below 255, or 255 and a u32
//! member  that many bytes
//! ```

use std::cmp::Ordering;

/// Members and scores in order, found by looking at each.
#[derive(Clone, Debug, Default)]
pub(super) struct Compact {
    bytes: Vec<u8>,
    len: usize,
}

/// An entry and where it stands in the bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) member: &'a [u8],
    pub(super) score: f64,
    start: usize,
    end: usize,
}

/// Longest member that fits: the length is 32 bits wide.
pub(super) const MEMBER_MAX: usize = u32::MAX as usize;

fn encode(out: &mut Vec<u8>, member: &[u8], score: f64) {
    let whole = score as i32;
    // By bits, so that -0.0 keeps its sign.
    if f64::from(whole).to_bits() != score.to_bits() {
        out.push(3);
        out.extend_from_slice(&score.to_le_bytes());
    } else if let Ok(small) = i8::try_from(whole) {
        out.push(0);
        out.extend_from_slice(&small.to_le_bytes());
    } else if let Ok(small) = i16::try_from(whole) {
        out.push(1);
        out.extend_from_slice(&small.to_le_bytes());
    } else {
        out.push(2);
        out.extend_from_slice(&whole.to_le_bytes());
    }
    match u8::try_from(member.len()) {
        Ok(len) if len < 255 => out.push(len),
        _ => {
            out.push(255);
            // The caller keeps members longer than MEMBER_MAX out.
            out.extend_from_slice(&(member.len() as u32).to_le_bytes());
        }
    }
    out.extend_from_slice(member);
}

/// Takes `N` bytes at `*at`. The bytes are our own, so they are there.
fn take<const N: usize>(bytes: &[u8], at: &mut usize) -> [u8; N] {
    let taken = bytes[*at..*at + N].try_into().expect("N bytes were taken");
    *at += N;
    taken
}

fn decode(bytes: &[u8], start: usize) -> Entry<'_> {
    let mut at = start;
    let [kind] = take(bytes, &mut at);
    let score = match kind {
        0 => f64::from(i8::from_le_bytes(take(bytes, &mut at))),
        1 => f64::from(i16::from_le_bytes(take(bytes, &mut at))),
        2 => f64::from(i32::from_le_bytes(take(bytes, &mut at))),
        _ => f64::from_le_bytes(take(bytes, &mut at)),
    };
    let len = match take(bytes, &mut at) {
        [255] => u32::from_le_bytes(take(bytes, &mut at)) as usize,
        [len] => usize::from(len),
    };
    Entry { member: &bytes[at..at + len], score, start, end: at + len }
}

impl Compact {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn entries(&self) -> Entries<'_> {
        Entries { bytes: &self.bytes, at: 0, left: self.len }
    }

    pub(super) fn find(&self, member: &[u8]) -> Option<Entry<'_>> {
        self.entries().find(|entry| entry.member == member)
    }

    /// Sets a member's score; answers the score it had.
    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let old = self.find(member).map(|old| (old.score, old.start, old.end));
        if let Some((old, start, end)) = old {
            if old == score {
                return Some(old);
            }
            self.bytes.drain(start..end);
            self.len -= 1;
        }
        let order = |entry: &Entry<'_>| {
            // Scores are never NaN.
            let scores = entry.score.partial_cmp(&score).unwrap_or(Ordering::Equal);
            scores.then_with(|| entry.member.cmp(member))
        };
        let next = self.entries().find(|entry| order(entry) == Ordering::Greater);
        let at = next.map_or(self.bytes.len(), |entry| entry.start);
        let mut entry = Vec::with_capacity(14 + member.len());
        encode(&mut entry, member, score);
        if self.bytes.capacity() - self.bytes.len() < entry.len() {
            // An eighth of spare room: these are many and small.
            self.bytes.reserve_exact(entry.len() + self.bytes.len() / 8);
        }
        self.bytes.splice(at..at, entry);
        self.len += 1;
        old.map(|(old, ..)| old)
    }

    /// Takes out the entries of the ranks in `ranks`, after showing each.
    pub(super) fn remove_ranks(
        &mut self,
        ranks: std::ops::Range<usize>,
        mut show: impl FnMut(&[u8], f64),
    ) {
        let mut gone: Option<(usize, usize)> = None;
        let mut count = 0;
        for entry in self.entries().skip(ranks.start).take(ranks.len()) {
            show(entry.member, entry.score);
            gone = Some((gone.map_or(entry.start, |(start, _)| start), entry.end));
            count += 1;
        }
        if let Some((start, end)) = gone {
            self.bytes.drain(start..end);
            self.len -= count;
        }
        if self.bytes.capacity() > 2 * self.bytes.len() {
            self.bytes.shrink_to(self.bytes.len() + self.bytes.len() / 8);
        }
    }

    /// Takes a member out; answers the score it had.
    pub(super) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let rank = self.entries().position(|entry| entry.member == member)?;
        let mut score = None;
        self.remove_ranks(rank..rank + 1, |_, old| score = Some(old));
        score
    }
}

/// Entries upwards.
#[derive(Clone, Debug)]
pub(super) struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        self.left = self.left.checked_sub(1)?;
        let entry = decode(self.bytes, self.at);
        self.at = entry.end;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
