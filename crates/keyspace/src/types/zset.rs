//! Placeholder, replaced by its owner.
/// A sorted set.
#[derive(Debug)]
pub struct Zset;
