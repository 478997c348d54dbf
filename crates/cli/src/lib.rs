//! `alcid cli`: commands from a terminal, a script or a file, to any server
//! that speaks RESP.
//!
//! A command goes through `args` (what was asked), `session` (the connection,
//! reconnected when it broke), and `print` (how the reply looks). The modes
//! differ in where commands come from: the command line, lines of a file or of
//! standard input, the prompt (`repl`), or raw requests (`pipe`).
//!
//! Exit status: 0 when every command was answered without an error, 1 when one
//! was not (a missing key included, where one key was asked for), 2 when there
//! was no answer: no connection, a time-out, a file that cannot be read.

mod args;
mod hints;
mod json;
mod pipe;
mod print;
mod repl;
mod run;
mod session;
mod table;
mod way_back;

pub use args::{CliArgs, Format};
pub use hints::CommandHint;
pub use print::print;
pub use run::{Terminal, run, run_on};
