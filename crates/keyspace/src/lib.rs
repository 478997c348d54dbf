//! The current state of a database in RAM: native Redis types in sharded
//! tables, changed only through transactions that record their effects.
//!
//! Pure: no I/O, no async runtime, no clock, no global random source.

mod access;
mod apply;
mod backing;
mod branches;
mod changes;
mod check;
mod due;
pub mod dump;
mod edit;
pub mod effect;
mod event;
mod evict;
mod garbage;
mod gauges;
mod left;
mod limits;
pub mod merge;
mod own;
mod past_rules;
mod peek;
mod recorder;
mod restore;
mod scratch;
mod shard;
mod sweep;
pub mod table;
mod txn;
pub mod types;
mod value;
mod victims;
mod warm;

pub use access::{Accesses, Usage};
pub use apply::{ApplyError, OneString, StringRecord};
pub use backing::{Backing, BackingError, Found, Knowing, Listed, Seen, Stored, Unread, Wanted};
pub use branches::{
    Branch, Branches, Decision, MAIN, Merged, OpenMerge, Settled, Tag, Turn, Verdict,
};
pub use changes::Change;
pub use edit::{Collection, Editor};
pub use event::{Event, class};
pub use evict::Evicted;
pub use garbage::{Flush, FlushedDb, Garbage};
pub use limits::EncodingLimits;
pub use own::{AsItIs, OwnKeys};
pub use past_rules::{Keep, PastRules, Purge, Rule};
pub use peek::{LONG_BYTES, NEAR_ELEMENTS, Peek, SMALL_BYTES_MAX, Since};
pub use recorder::{Buffers, Journal};
pub use restore::{Comparison, Restoration};
pub use shard::{DbStatistics, Keyspace, SHARDS, Spaces, hash_of};
pub use sweep::{IsWanted, Sweep};
pub use txn::{Chosen, Finished, KeyInfo, Look, Scope, Txn, TxnOptions, WrongType};
pub use value::{Value, ValueRef};
pub use victims::{EvictionOrder, EvictionRule, Hunt, Victim};
pub use warm::WARM_KEYS_MAX;
