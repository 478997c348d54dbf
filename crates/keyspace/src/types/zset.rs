//! Sorted sets.
//!
//! A small one is a sorted byte string ([`compact`]), a large one is members,
//! an index and a counted tree ([`indexed`]). `OBJECT ENCODING` calls them
//! `listpack` and `skiplist`, as clients expect. A large one stays large.
//!
//! Members are in order of score, then of bytes. Every range, by rank, by
//! score or by bytes, is a range of ranks: find it with
//! [`Zset::rank_range_by_score`] or [`Zset::rank_range_by_lex`], then read it
//! with [`Zset::range_by_rank`].

mod bounds;
mod compact;
mod index;
mod indexed;
mod members;

use std::ops::Range;
use std::sync::Arc;

use base::Rng;

pub use self::bounds::{LexBound, ScoreBound};
use self::compact::{Compact, Entries, Entry};
use self::indexed::{Indexed, Pairs};
use super::SHARED_BYTES;
use crate::limits::EncodingLimits;

/// A sorted set. Scores are never NaN: whoever calls refuses it first.
#[derive(Clone, Debug)]
pub struct Zset(Form);

#[derive(Clone, Debug)]
enum Form {
    Compact {
        seed: u64,
        compact: Compact,
    },
    /// Shared with copies until one of them changes.
    Indexed(Arc<Indexed>),
}

impl Zset {
    /// An empty sorted set whose members are hashed with `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Zset {
        Zset(Form::Compact { seed, compact: Compact::default() })
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Compact { compact, .. } => compact.len(),
            Form::Indexed(indexed) => indexed.len(),
        }
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name `OBJECT ENCODING` answers with.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Form::Compact { .. } => "listpack",
            Form::Indexed(_) => "skiplist",
        }
    }

    /// Heap bytes, in constant time.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Compact { compact, .. } => compact.memory_bytes(),
            Form::Indexed(indexed) => SHARED_BYTES + indexed.memory_bytes(),
        }
    }

    /// A member's score.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Form::Compact { compact, .. } => compact.find(member).map(|entry| entry.score),
            Form::Indexed(indexed) => indexed.score(member),
        }
    }

    /// How many members stand before this one.
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.0 {
            Form::Compact { compact, .. } => {
                compact.entries().position(|entry| entry.member == member)
            }
            Form::Indexed(indexed) => indexed.rank(member),
        }
    }

    /// The member with that many before it, and its score.
    #[must_use]
    pub fn by_rank(&self, rank: usize) -> Option<(&[u8], f64)> {
        match &self.0 {
            Form::Compact { compact, .. } => {
                compact.entries().nth(rank).map(|entry| (entry.member, entry.score))
            }
            Form::Indexed(indexed) => indexed.by_rank(rank),
        }
    }

    /// Sets a member's score; answers the score it had, if it was there. -0
    /// becomes 0: Redis keeps whole scores of a listpack as integers.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &EncodingLimits) -> Option<f64> {
        debug_assert!(!score.is_nan(), "NaN has no place in an order");
        let score = score + 0.0;
        if let Form::Compact { compact, .. } = &self.0 {
            let outgrows = compact.len() >= limits.zset_max_listpack_entries
                || member.len() > limits.zset_max_listpack_value.min(compact::MEMBER_MAX);
            // A new score needs no room.
            if outgrows && compact.find(member).is_none() {
                self.grow();
            }
        }
        match &mut self.0 {
            Form::Compact { compact, .. } => compact.insert(member, score),
            Form::Indexed(indexed) => Arc::make_mut(indexed).insert(member, score),
        }
    }

    /// See `Value::own_outline`.
    pub(crate) fn own_outline(&mut self) {
        if let Form::Indexed(indexed) = &mut self.0 {
            Arc::make_mut(indexed);
        }
    }

    /// Makes what it has its own, if it is a copy.
    pub(crate) fn unshare(&mut self) {
        if let Form::Indexed(indexed) = &mut self.0 {
            Arc::make_mut(indexed).unshare();
        }
    }

    fn grow(&mut self) {
        let Form::Compact { seed, compact } = &self.0 else { return };
        let mut indexed = Indexed::new(*seed);
        for entry in compact.entries() {
            indexed.insert(entry.member, entry.score);
        }
        self.0 = Form::Indexed(Arc::new(indexed));
    }

    /// Takes a member out; answers the score it had.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.0 {
            Form::Compact { compact, .. } => compact.remove(member),
            Form::Indexed(indexed) => Arc::make_mut(indexed).remove(member),
        }
    }

    /// Takes out the members of the ranks in `ranks` that exist, lowest first,
    /// and shows each to `show` before. Answers how many.
    pub fn remove_rank_range(
        &mut self,
        ranks: Range<usize>,
        mut show: impl FnMut(&[u8], f64),
    ) -> usize {
        let end = ranks.end.min(self.len());
        let ranks = ranks.start.min(end)..end;
        let count = ranks.len();
        match &mut self.0 {
            Form::Compact { compact, .. } => compact.remove_ranks(ranks, show),
            Form::Indexed(indexed) => {
                let indexed = Arc::make_mut(indexed);
                for _ in 0..count {
                    indexed.remove_rank(ranks.start, &mut show);
                }
            }
        }
        count
    }

    /// Members and scores, lowest first.
    #[must_use]
    pub fn iter(&self) -> Ranked<'_> {
        self.range_by_rank(0..usize::MAX, false)
    }

    /// Members and scores in any order, but for some that another sorted set has
    /// as well because one is a copy of the other.
    pub(crate) fn iter_unshared<'a>(
        &'a self,
        other: &'a Zset,
    ) -> Box<dyn Iterator<Item = (&'a [u8], f64)> + 'a> {
        match (&self.0, &other.0) {
            (Form::Indexed(indexed), Form::Indexed(others)) => {
                Box::new(indexed.iter_unshared(others))
            }
            _ => Box::new(self.iter()),
        }
    }

    /// Members and scores, highest first.
    #[must_use]
    pub fn iter_rev(&self) -> Ranked<'_> {
        self.range_by_rank(0..usize::MAX, true)
    }

    /// Members and scores of the ranks in `ranks` that exist, lowest first or
    /// (`downwards`) highest first. Takes O(log n + k) once large.
    #[must_use]
    pub fn range_by_rank(&self, ranks: Range<usize>, downwards: bool) -> Ranked<'_> {
        let end = ranks.end.min(self.len());
        let ranks = ranks.start.min(end)..end;
        let left = ranks.len();
        let source = match &self.0 {
            Form::Indexed(indexed) => Source::Indexed(indexed.range(ranks, downwards)),
            Form::Compact { compact, .. } => {
                let mut entries = compact.entries();
                if ranks.start > 0 {
                    entries.nth(ranks.start - 1);
                }
                if downwards {
                    Source::Collected(entries.take(left).collect::<Vec<_>>().into_iter())
                } else {
                    Source::Compact(entries)
                }
            }
        };
        Ranked { source, left }
    }

    /// The ranks of the members with scores from `min` to `max`.
    #[must_use]
    pub fn rank_range_by_score(&self, min: ScoreBound, max: ScoreBound) -> Range<usize> {
        let start = self.count_by_score(|score| min.is_above(score));
        let end = self.count_by_score(|score| !max.is_below(score));
        start..end.max(start)
    }

    /// The ranks of the members from `min` to `max` by bytes. Means something
    /// when all scores are equal; else the range is some range, as in Redis.
    #[must_use]
    pub fn rank_range_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        let start = self.count_by_member(|member| min.is_above(member));
        let end = self.count_by_member(|member| !max.is_below(member));
        start..end.max(start)
    }

    fn count_by_score(&self, before: impl Fn(f64) -> bool) -> usize {
        match &self.0 {
            Form::Compact { compact, .. } => {
                compact.entries().take_while(|entry| before(entry.score)).count()
            }
            Form::Indexed(indexed) => indexed.count_by_score(before),
        }
    }

    fn count_by_member(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        match &self.0 {
            Form::Compact { compact, .. } => {
                compact.entries().take_while(|entry| before(entry.member)).count()
            }
            Form::Indexed(indexed) => indexed.count_by_member(before),
        }
    }

    /// A member and its score, each equally likely; `None` when there is none.
    #[must_use]
    pub fn random(&self, rng: &mut dyn Rng) -> Option<(&[u8], f64)> {
        if self.is_empty() {
            return None;
        }
        match &self.0 {
            Form::Compact { compact, .. } => self.by_rank(rng.below(compact.len() as u64) as usize),
            Form::Indexed(indexed) => Some(indexed.random(rng)),
        }
    }

    /// Visits about `count` members; start with `cursor` 0, go on with the
    /// answered cursor until it is 0 again. A member that is there all the
    /// while is visited at least once; a small set is visited at once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        match &self.0 {
            Form::Compact { compact, .. } => {
                compact.entries().for_each(|entry| visit(entry.member, entry.score));
                0
            }
            Form::Indexed(indexed) => indexed.scan(cursor, count, visit),
        }
    }
}

/// By members and scores, whatever the encoding.
impl PartialEq for Zset {
    fn eq(&self, other: &Zset) -> bool {
        let is_there = |(member, score)| other.score(member) == Some(score);
        self.len() == other.len() && self.iter_unshared(other).all(is_there)
    }
}

impl<'a> IntoIterator for &'a Zset {
    type Item = (&'a [u8], f64);
    type IntoIter = Ranked<'a>;

    fn into_iter(self) -> Ranked<'a> {
        self.iter()
    }
}

/// Members and scores in order of rank.
#[derive(Clone, Debug)]
pub struct Ranked<'a> {
    source: Source<'a>,
    left: usize,
}

#[derive(Clone, Debug)]
enum Source<'a> {
    Compact(Entries<'a>),
    /// To be read from its end.
    Collected(std::vec::IntoIter<Entry<'a>>),
    Indexed(Pairs<'a>),
}

impl<'a> Iterator for Ranked<'a> {
    type Item = (&'a [u8], f64);

    fn next(&mut self) -> Option<(&'a [u8], f64)> {
        self.left = self.left.checked_sub(1)?;
        let entry = match &mut self.source {
            Source::Compact(entries) => entries.next(),
            Source::Collected(entries) => entries.next_back(),
            Source::Indexed(pairs) => return pairs.next(),
        };
        entry.map(|entry| (entry.member, entry.score))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Ranked<'_> {}

#[cfg(test)]
mod tests;
