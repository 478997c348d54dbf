//! Placeholder, replaced by its owner.
/// A set.
#[derive(Debug)]
pub struct Set;
