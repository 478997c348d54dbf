//! The current state of a database in RAM: native Redis types in sharded
//! tables, changed only through transactions that record their effects.
//!
//! Pure: no I/O, no async runtime, no clock, no global random source.

pub mod dump;
pub mod limits;
pub mod table;
pub mod types;
mod value;

pub use limits::EncodingLimits;
pub use value::{Value, ValueRef};
