//! Placeholder, replaced by its owner.
/// A packed sequence.
#[derive(Debug)]
pub struct Packed;
