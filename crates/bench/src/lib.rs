//! `alcid bench`: load on a Redis-compatible server, latencies, and a check of
//! the answers.
//!
//! The life of a run:
//!
//! 1. [`BenchArgs`] become a `plan::Plan`: every bound is checked before the
//!    first connection is made.
//! 2. Each test of the plan is a `workload::Workload`: a request template in
//!    which key numbers and values are patched.
//! 3. `load::run` spreads the clients over threads; each thread drives its
//!    non-blocking sockets from one poll loop and records latencies.
//! 4. With `--verify`, `verify` prepares the keys, judges every reply and
//!    reads the result back.
//! 5. `report` prints.
//!
//! The loop is closed: a client sends its next batch when the replies of the
//! last have come. Latencies are those of a server that is asked as fast as
//! these clients can, and a stall is felt once by each client, not by the
//! requests that would have come meanwhile.

mod args;
mod load;
mod plan;
mod report;
mod skim;
mod verify;
mod workload;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
pub use args::BenchArgs;
use plan::Plan;
use report::Report;

/// Runs the tests that `args` ask for and prints the results on stdout. The
/// exit code is 1 when a reply was an error or a verified answer was wrong.
///
/// # Errors
/// When the arguments do not fit together, the server cannot be reached, or a
/// connection breaks.
pub fn run(args: BenchArgs) -> Result<ExitCode> {
    let is_clean = run_to(args, &mut std::io::stdout().lock())?;
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As [`run`], with the results written to `out`; whether no reply was an
/// error and no verified answer wrong.
///
/// # Errors
/// As [`run`], and when `out` cannot be written.
pub fn run_to(args: BenchArgs, out: &mut impl Write) -> Result<bool> {
    let plan = Plan::new(args)?;
    let mut report = Report::new(&plan);
    out.write_all(report.head().as_bytes())?;
    for workload in &plan.workloads {
        let result = load::run(&plan, workload)
            .with_context(|| format!("run the test {} against {}", workload.name, plan.addr))?;
        out.write_all(report.test(workload, &result).as_bytes())?;
        out.flush()?;
    }
    out.write_all(report.tail().as_bytes())?;
    out.flush()?;
    Ok(report.is_clean())
}
