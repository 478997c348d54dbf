//! What disk remembers.
//!
//! The *base* is the state of every key at exactly one revision, in an LSM
//! tree. A [`Follower`] reads the log and moves the base forward in batches;
//! nothing in the path of a write waits for it. Recovery is: open the base at
//! revision J, replay the log from J+1. [`BaseBacking`] fills the misses of a
//! keyspace from the base, so a server answers before it has loaded anything.
//! [`Past`] keeps and reads the states before.

mod ahead;
mod backing;
pub mod backup;
mod base_tree;
mod catch_up;
mod codec;
mod compaction;
mod delta;
mod directory;
mod elements;
mod error;
mod follower;
pub mod history;
mod large;
mod layers;
mod manifest;
#[cfg(test)]
mod memory_log;
mod overlay;
mod part;
mod past;
mod sorted_run;
mod state;
mod table_file;
mod waiting;

pub use ahead::Awaited;
pub use backing::BaseBacking;
pub use base_tree::{Base, Hindered, Reach, Remake};
pub use catch_up::catch_up;
pub use directory::{Database, Directory, Left};
pub use elements::LargeFrom;
pub use error::ArchiveError;
pub use follower::{Advanced, Faulted, Follower, FollowerOptions, FollowerStats, Pace, Turn};
pub use overlay::Overlay;
pub use past::{Past, PastError, PastOptions, PastStats, Present, Retention, changes_max};
