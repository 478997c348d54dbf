//! Runs golden scripts against any server: Alcid, or a real Redis to see where
//! the two differ, or to write the expected replies of a new script.
//!
//! ```text
//! cargo run -p testkit --bin golden -- 127.0.0.1:6379 crates/testkit/scripts
//! UPDATE_EXPECT=1 cargo run -p testkit --bin golden -- 127.0.0.1:6379 new/
//! ```
//!
//! It empties the server's databases before every script.

use std::process::ExitCode;

use testkit::{SocketTarget, try_run_dir};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addr, folders @ ..] = arguments.as_slice() else {
        eprintln!("golden HOST:PORT FOLDER…   (empties the server's databases)");
        return ExitCode::FAILURE;
    };
    for folder in folders {
        match try_run_dir(folder, &mut || SocketTarget::connect(addr)) {
            Ok(summary) => println!("{folder}: {summary:?}"),
            Err(text) => {
                eprint!("{text}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
