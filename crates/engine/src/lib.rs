//! Sessions, admission, execution, commit gate, blocking and pub/sub.
//!
//! # The life of a write
//!
//! 1. A front-end takes every complete pipelined request from its read buffer
//!    and calls [`Engine::execute`] for each, with arguments borrowed from it.
//! 2. `Engine::admit` decides in one place whether the command may run: arity,
//!    authentication, MULTI, memory, the log's health, pauses.
//! 3. The handler (`command`) runs on the connection's own thread, inside a
//!    [`keyspace::Txn`] that holds the locks of the shards its keys live in.
//! 4. When the transaction ends, still under the locks, its effects go to the
//!    [`Replicator`]: log order is apply order.
//! 5. The reply is in the front-end's output buffer and waits there until
//!    `session.depends_on` is committed: the newest revision that the batch
//!    wrote or could have read.
//! 6. With the locks open, `Engine::settle` hands over what the transaction
//!    leaves: memory to free, events, keys that blocked clients wait for,
//!    keys that tracking clients have cached.

mod aside;
mod blocking;
mod branch;
mod call;
mod checkpoint;
mod client;
mod clients_command;
mod commit_queue;
mod connection;
mod engine;
mod eviction;
mod execute;
mod expiry;
mod gauges;
mod history;
mod notify;
mod origin;
mod outbox;
mod past;
mod pause;
mod pubsub;
mod push;
mod reclaim;
mod reload;
mod removal;
mod replicator;
mod revisions;
mod room;
mod scratches;
mod server;
mod session;
mod standalone;
mod stats;
mod tier;
mod tracking;
mod transaction;
mod travel;
mod unasked;
mod waiting;
mod whatif;

pub use blocking::{Answer, Blocked};
pub use branch::{Branching, Home, LiveBranch};
pub use checkpoint::{Archive, BackedUp, Checkpointed};
pub use client::{Activity, Client, Clients, Identity as ClientIdentity};
pub use engine::{Engine, Hooks, Identity, Live, ReloadHook, encoding_limits};
pub use execute::Outcome;
pub use history::{Changes, UndoMarks};
pub use keyspace::WARM_KEYS_MAX;
pub use outbox::{Outbox, Pushed};
pub use past::{Past, PastError, Present, Visit};
pub use pause::HeldUp;
pub use replicator::{Commit, NoLog, Replicator};
pub use session::{ReplyMode, Session};
pub use standalone::{Recovered, StandaloneLog, compression, fsync_policy};
pub use stats::{CommandStats, Stats};
pub use tier::EvictionEnd;
