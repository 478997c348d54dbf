use std::fmt;

/// The position of a transaction in the log, and the name of the state of the
/// whole database right after it.
///
/// Revisions are dense: the first transaction has revision 1, each later one
/// the next number. [`Revision::ZERO`] names the empty database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The state before the first transaction.
    pub const ZERO: Revision = Revision(0);

    /// The revision after this one.
    ///
    /// # Panics
    /// After 2^64-1 transactions, which no log can hold.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0.checked_add(1).expect("revisions fit in 64 bits"))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
