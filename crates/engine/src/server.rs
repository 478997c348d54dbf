//! Commands about the server, a file per container.

pub(crate) mod backup;
pub(crate) mod backups;
mod commands;
mod config;
mod debug;
mod docs;
pub(crate) mod info;
pub(crate) mod latency;
mod memory;
pub(crate) mod process;
pub(crate) mod save;
mod shutdown;
pub(crate) mod slowlog;

use base::number::parse_i64;
use command::{Args, Command, Error, Result};

use crate::call::{Call, Handler};
use crate::connection::REDIS_VERSION;
use crate::execute::Outcome;

/// The handlers, a slice per file.
pub(crate) const FAMILIES: &[&[(&str, Handler)]] = &[
    HANDLERS,
    backup::HANDLERS,
    commands::HANDLERS,
    config::HANDLERS,
    debug::HANDLERS,
    info::HANDLERS,
    latency::HANDLERS,
    memory::HANDLERS,
    save::HANDLERS,
    shutdown::HANDLERS,
    slowlog::HANDLERS,
];

const HANDLERS: &[(&str, Handler)] = &[("lolwut", lolwut), ("role", role), ("time", time)];

/// Whether a command of the engine looks at keys, so that EXEC must hold all
/// locks for it and it must go through `call.open`.
pub(crate) fn looks_at_data(command: &Command) -> bool {
    matches!(command.full_name.as_str(), "info" | "memory|stats" | "debug|sleep")
}

fn time(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let now_us = call.engine.clock.now_us();
    call.reply.array(2);
    call.reply.bulk((now_us / 1_000_000).to_string().as_bytes());
    call.reply.bulk((now_us % 1_000_000).to_string().as_bytes());
    Ok(Outcome::Done)
}

/// A node that stands alone leads nobody. Its place in history is the revision.
fn role(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.reply.array(3);
    call.reply.bulk(b"master");
    call.reply.integer(call.engine.replicator.newest().0 as i64);
    call.reply.array(0);
    Ok(Outcome::Done)
}

/// An alcid: a bird of the family of the auks and puffins.
const BIRD: &str = r"
        .--.
       / o  \___
      |      __/
     /|     |
    / |     |
   (  |     |
    \_|     |
       \___/
        ^ ^
";

fn lolwut(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    if args.take_word("version") {
        // The picture has one version; a number is all that is asked for.
        parse_i64(args.next()?).ok_or(Error::NOT_INTEGER)?;
    }
    // Programs look for Redis's version in the last line.
    let text =
        format!("{BIRD}\nAlcid ver. {}\nRedis ver. {REDIS_VERSION}\n", env!("CARGO_PKG_VERSION"));
    call.reply.verbatim("txt", &text);
    Ok(Outcome::Done)
}
