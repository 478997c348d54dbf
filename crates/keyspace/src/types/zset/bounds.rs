//! Ends of ranges.

/// An end of a range of scores. Infinities are ordinary values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreBound {
    /// The score; never NaN.
    pub value: f64,
    /// Whether the score itself is outside, as in `(1.5`.
    pub exclusive: bool,
}

impl ScoreBound {
    /// Whether `score` lies outside, below this lower end.
    pub(super) fn is_above(self, score: f64) -> bool {
        score < self.value || self.exclusive && score == self.value
    }

    /// Whether `score` lies outside, above this upper end.
    pub(super) fn is_below(self, score: f64) -> bool {
        score > self.value || self.exclusive && score == self.value
    }
}

/// An end of a range of members by their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Before every member: `-`.
    Min,
    /// After every member: `+`.
    Max,
    /// This member, which is inside: `[member`.
    Incl(&'a [u8]),
    /// This member, which is outside: `(member`.
    Excl(&'a [u8]),
}

impl LexBound<'_> {
    /// Whether `member` lies outside, below this lower end.
    pub(super) fn is_above(self, member: &[u8]) -> bool {
        match self {
            LexBound::Min => false,
            LexBound::Max => true,
            LexBound::Incl(end) => member < end,
            LexBound::Excl(end) => member <= end,
        }
    }

    /// Whether `member` lies outside, above this upper end.
    pub(super) fn is_below(self, member: &[u8]) -> bool {
        match self {
            LexBound::Min => true,
            LexBound::Max => false,
            LexBound::Incl(end) => member > end,
            LexBound::Excl(end) => member >= end,
        }
    }
}
