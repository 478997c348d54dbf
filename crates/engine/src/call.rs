//! Commands that the engine runs itself, because they are about sessions or the
//! server: the shape of their handlers and the list of them.

use std::sync::Arc;

use base::Reply;
use command::{Command, Result};
use keyspace::Txn;

use crate::engine::{Engine, Live};
use crate::execute::Outcome;
use crate::session::Session;
use crate::whatif::Asked;

/// A handler: reads the arguments, acts, writes one reply or answers an error.
pub(crate) type Handler = fn(&mut Call<'_, '_>) -> Result<Outcome>;

/// A call of such a command.
pub(crate) struct Call<'c, 't> {
    pub(crate) engine: &'c Arc<Engine>,
    pub(crate) session: &'c mut Session,
    pub(crate) command: &'static Command,
    /// The arguments, without the command's (and subcommand's) name.
    pub(crate) args: &'c [&'c [u8]],
    pub(crate) reply: &'c mut dyn Reply,
    pub(crate) live: &'c Live,
    pub(crate) now_ms: u64,
    /// Inside EXEC: the transaction, which holds the locks. Whoever needs the
    /// keyspace must go through it then.
    pub(crate) open: Option<&'c mut Txn<'t>>,
    /// WHATIF is to tell of the reply.
    pub(crate) told: Option<Asked>,
}

/// The handlers by full name, a slice per file.
const FAMILIES: &[&[(&str, Handler)]] = &[
    crate::connection::HANDLERS,
    crate::transaction::HANDLERS,
    crate::pubsub::HANDLERS,
    crate::waiting::HANDLERS,
    crate::revisions::HANDLERS,
    crate::travel::HANDLERS,
];

pub(crate) fn handler(full_name: &str) -> Option<Handler> {
    FAMILIES
        .iter()
        .chain(crate::clients_command::FAMILIES)
        .chain(crate::server::FAMILIES)
        .chain(crate::history::FAMILIES)
        .chain(crate::branch::FAMILIES)
        .chain(crate::whatif::FAMILIES)
        .flat_map(|family| family.iter())
        .find(|(name, _)| *name == full_name)
        .map(|(_, handler)| *handler)
}

/// Answers a container's HELP: `usage` lines between Redis's first and last.
pub(crate) fn help(call: &mut Call<'_, '_>, container: &str, lines: &[&str]) -> Result<Outcome> {
    let head = format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    call.reply.array(lines.len() + 3);
    call.reply.simple(&head);
    lines.iter().for_each(|line| call.reply.simple(line));
    call.reply.simple("HELP");
    call.reply.simple("    Print this help.");
    Ok(Outcome::Done)
}
