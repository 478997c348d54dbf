//! What Alcid's tests are made of.
//!
//! * **Golden scripts** ([`run_dir`]): text files of commands and the replies
//!   they must get. One script runs against every [`Target`]: the bare engine,
//!   a server over a socket ([`SocketTarget`]), a real Redis. `UPDATE_EXPECT=1`
//!   rewrites the replies; the diff is then reviewed like code. The form of a
//!   script is described in [`script`].
//! * [`Server`]: an Alcid process that a test starts, kills and starts again;
//!   [`free_ports`] for whatever else is to listen.
//! * [`temp_dir`]: a folder that goes away with its guard.
//! * [`fuzz`]: a bounded fuzzer that runs in the ordinary toolchain.

pub mod fuzz;
pub mod notation;
mod runner;
pub mod script;
mod server;
mod socket;
mod target;
mod temp;

/// What a client of a target speaks, for [`as_seen_by_client`].
pub use resp::Protocol;
pub use runner::{Difference, Summary, run_dir, run_script, try_run_dir};
pub use server::{Server, free_ports, write_program};
pub use socket::SocketTarget;
pub use target::{After, Outcome, Target, as_seen_by_client};
pub use temp::{TempDir, temp_dir};
