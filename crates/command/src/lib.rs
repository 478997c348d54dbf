//! The command table and the handlers.
//!
//! A command is one row in its family's file: name, arity, flags, keys, summary
//! and handler stand together, and everything that speaks of commands (dispatch,
//! `COMMAND`, routing, hints, documentation) is derived from the rows.
//!
//! Pure: a handler sees a transaction, the arguments and a reply sink; nothing
//! of sockets, disks or clusters. Commands about connections and the server
//! have rows here too and their handlers in `engine`.

pub mod args;
pub mod branch;
mod connection;
mod ctx;
mod digest;
mod error;
mod expire;
pub mod flags;
mod generic;
mod hash;
pub mod history;
pub mod keys;
mod list;
mod object;
mod pubsub;
mod reference;
pub mod remove;
mod scan;
mod server;
mod set;
mod sort;
mod spec;
mod string;
mod table;
mod transactions;
mod when;
mod zset;

pub use args::Args;
pub use ctx::{Block, Ctx, DataLimits, TimeoutReply, WaitFor};
pub use error::{Error, Result};
pub use keys::{Begin, Find, KeyRef, KeySpec};
pub use reference::reference;
pub use spec::{CommandSpec, Family, Group, Handler, Known, Run, ScopeRule};
pub use string::mset_pairs;
pub use table::{Command, Table, table};
pub use when::{parse_when, tag_name, time_named};
