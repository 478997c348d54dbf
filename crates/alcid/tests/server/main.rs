//! The server as a process: everything that needs a socket, a signal, a data
//! folder or an exit status.

mod archive;
mod backup;
mod backups;
mod beside;
mod branch_ports;
mod branches;
mod cold;
mod collections;
mod config;
mod databases;
mod decisions;
mod eviction;
mod faults;
mod forks;
mod full_disk;
mod golden;
mod guides;
mod inherited;
mod kill9;
mod limits;
mod listing;
mod merges;
mod parts;
mod patience;
mod policy;
mod purge;
mod restart;
mod revisions;
mod run;
mod security;
mod tier;
mod undo;
mod undo_branch;
mod undo_left;
mod undo_removed;
mod watch;
mod watch_branches;
mod watch_slow;
mod wire;

/// The program under test.
const ALCID: &str = env!("CARGO_BIN_EXE_alcid");
