//! The data types: plain structures, each with a memory size in constant time
//! and a model test. They know nothing of keys, commands or the log.

mod hash;
mod list;
mod order_tree;
mod packed;
mod set;
mod zset;

pub use hash::Hash;
pub use list::List;
pub use packed::Packed;
pub use set::{Member, Set};
pub use zset::{LexBound, Ranked, ScoreBound, Zset};

/// What an allocation takes more for being shared: two counts.
const SHARED_BYTES: usize = 2 * size_of::<usize>();
