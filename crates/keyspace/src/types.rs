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

/// A copy with the room that this has, so that both take the same bytes.
fn copy_with_room<T: Clone>(items: &Vec<T>) -> Vec<T> {
    let mut copy = Vec::with_capacity(items.capacity());
    copy.extend_from_slice(items);
    copy
}
