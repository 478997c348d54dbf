//! The `alcid` binary: configuration, wiring and sub-commands.
fn main() {}
