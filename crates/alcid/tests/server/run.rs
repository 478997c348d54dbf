//! Runs of the program that end by themselves, and programs around it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Clock, SystemClock};
use testkit::write_program;

use crate::ALCID;
use crate::wire::PATIENCE;

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// The program with these arguments, in `folder`, with no setting from outside.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(ALCID);
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits for the end of a run, whose output is short.
pub fn end(mut child: Child) -> Ended {
    let end_ns = SystemClock.monotonic_ns() + PATIENCE.as_nanos() as u64;
    let code = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status.code();
        }
        if SystemClock.monotonic_ns() > end_ns {
            let _ = child.kill();
            let _ = child.wait();
            panic!("a run that should have ended went on");
        }
        // Another process's state has no event to wait for in std.
        std::thread::park_timeout(Duration::from_millis(5));
    };
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("text");
    Ended { code, out, err }
}

/// Runs the program to its end.
pub fn alcid(folder: &Path, arguments: &[&str]) -> Ended {
    end(command(folder, arguments).spawn().expect("the program starts"))
}

/// Whether a program of this name can be run.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A program in `folder` that runs the one under test after `setup`.
pub fn wrapped(folder: &Path, setup: &str) -> PathBuf {
    let path = folder.join("alcid-wrapped");
    write_program(&path, &format!("#!/bin/bash\n{setup} {ALCID} \"$@\"\n"));
    path
}
