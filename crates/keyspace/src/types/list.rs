//! Placeholder, replaced by its owner.
/// A list.
#[derive(Debug)]
pub struct List;
