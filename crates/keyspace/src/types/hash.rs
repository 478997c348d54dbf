//! Placeholder, replaced by its owner.
/// A hash.
#[derive(Debug)]
pub struct Hash;
