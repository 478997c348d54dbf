//! The Redis protocol's front-end: bytes of sockets to commands of the engine,
//! replies back to bytes.
//!
//! A connection is one task. It reads what has arrived, runs every complete
//! request in place, waits once for the newest revision its replies depend on,
//! and sends them together. It owns no buffer while it is idle: requests are
//! parsed in a buffer of the thread, and only what is left of an incomplete one
//! is kept.

mod connection;
mod listener;
mod scratch;
mod unauthenticated;
mod uncommitted;

pub use listener::{Listener, Shutdown};
pub use unauthenticated::Unauthenticated;
