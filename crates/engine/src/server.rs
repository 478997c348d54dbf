//! Commands about the server.

use command::{Command, Error, Result};

use crate::call::{Call, Handler};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("command|count", unsupported),
    ("command|docs", unsupported),
    ("command|getkeys", unsupported),
    ("command|getkeysandflags", unsupported),
    ("command|help", unsupported),
    ("command|info", unsupported),
    ("command|list", unsupported),
    ("config|get", unsupported),
    ("config|help", unsupported),
    ("config|resetstat", unsupported),
    ("config|rewrite", unsupported),
    ("config|set", unsupported),
    ("debug|change-repl-id", unsupported),
    ("debug|help", unsupported),
    ("debug|jmap", unsupported),
    ("debug|listpack", unsupported),
    ("debug|quicklist-packed-threshold", unsupported),
    ("debug|reload", unsupported),
    ("debug|set-active-expire", unsupported),
    ("debug|set-disable-deny-scripts", unsupported),
    ("debug|sleep", unsupported),
    ("debug|stringmatch-len", unsupported),
    ("latency|doctor", unsupported),
    ("latency|graph", unsupported),
    ("latency|help", unsupported),
    ("latency|histogram", unsupported),
    ("latency|history", unsupported),
    ("latency|latest", unsupported),
    ("latency|reset", unsupported),
    ("memory|doctor", unsupported),
    ("memory|help", unsupported),
    ("memory|purge", unsupported),
    ("memory|stats", unsupported),
    ("slowlog|get", unsupported),
    ("slowlog|help", unsupported),
    ("slowlog|len", unsupported),
    ("slowlog|reset", unsupported),
    ("info", unsupported),
    ("lolwut", unsupported),
    ("role", unsupported),
    ("shutdown", unsupported),
    ("time", unsupported),
];

/// Whether a command of the engine looks at keys, so that EXEC must hold all
/// locks for it and it must go through `call.open`.
pub(crate) fn looks_at_data(command: &Command) -> bool {
    matches!(command.full_name.as_str(), "info" | "memory|stats")
}

fn unsupported(_call: &mut Call<'_, '_>) -> Result<Outcome> {
    Err(Error::new("ERR under construction"))
}
