//! Rows about the server; their handlers are in `engine`, except those that
//! look at one key.

use base::Reply;
use keyspace::{Usage, ValueRef};

use crate::args::Args;
use crate::ctx::Ctx;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::flags::{
    ADMIN, ALLOW_BUSY, BLOCKING, FAST, Flags, LOADING, NO_ASYNC_LOADING, NO_MULTI, NOSCRIPT,
    READONLY, SKIP_MONITOR, SKIP_SLOWLOG, STALE, category,
};
use crate::keys::{KeySpec, key_flags::RO};
use crate::spec::{CommandSpec, Family, Group, ScopeRule};

type Row = CommandSpec;

const SHOW: Flags = LOADING.with(STALE);
const OPERATE: Flags = ADMIN.with(NOSCRIPT).with(LOADING).with(STALE);

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::Server,
    commands: &[
        Row::engine("backup", -3, ADMIN.with(NOSCRIPT).with(NO_ASYNC_LOADING).with(NO_MULTI), "alcid 0.1", "TO folder [NOHISTORY]", "Makes a backup in a folder of the server, or brings the one there up to date, and answers what it holds and what it took."),
        Row::engine("bgrewriteaof", 1, ADMIN.with(NOSCRIPT).with(NO_ASYNC_LOADING), "1.0.0", "", "Saves in the background, so that the log before needs to be kept no longer."),
        Row::engine("bgsave", -1, ADMIN.with(NOSCRIPT).with(NO_ASYNC_LOADING), "1.0.0", "[SCHEDULE]", "Saves in the background: the archive takes over what the log has."),
        Row { subcommands: COMMAND, ..Row::engine("command", -1, SHOW, "2.8.13", "", "Returns detailed information about all commands.") },
        Row::container("config", Flags(0), "2.0.0", "A container for server configuration commands.", CONFIG),
        Row::container("debug", OPERATE, "1.0.0", "A container for debugging commands.", DEBUG),
        Row::engine("info", -1, SHOW, "1.0.0", "[section [section ...]]", "Returns information and statistics about the server.").categories(category::DANGEROUS),
        Row::engine("lastrev", 1, LOADING.with(STALE).with(FAST), "alcid 0.1", "", "Returns the revision of the connection's last write."),
        Row::engine("lastsave", 1, LOADING.with(STALE).with(FAST), "1.0.0", "", "Returns the time of the last save, in seconds since 1970.").categories(category::ADMIN.with(category::DANGEROUS)),
        Row::container("latency", Flags(0), "2.8.13", "A container for latency diagnostics commands.", LATENCY),
        Row::engine("lolwut", -1, READONLY.with(FAST), "5.0.0", "[VERSION version]", "Displays computer art and the version."),
        Row::container("memory", Flags(0), "4.0.0", "A container for memory diagnostics commands.", MEMORY),
        Row::engine("monitor", 1, OPERATE, "1.0.0", "", "Listens for all requests received by the server in real-time."),
        Row::engine("role", 1, NOSCRIPT.with(LOADING).with(STALE).with(FAST), "2.8.12", "", "Returns the replication role.").categories(category::ADMIN.with(category::DANGEROUS)),
        Row::engine("save", 1, ADMIN.with(NOSCRIPT).with(NO_ASYNC_LOADING).with(NO_MULTI), "1.0.0", "", "Saves, and answers when it is done: the archive has everything the log has."),
        Row::engine("shutdown", -1, ADMIN.with(NOSCRIPT).with(LOADING).with(STALE).with(NO_MULTI).with(ALLOW_BUSY), "1.0.0", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]", "Finishes replies, makes the log durable, saves and ends the server."),
        Row::container("slowlog", Flags(0), "2.2.12", "A container for slow log commands.", SLOWLOG),
        Row::engine("time", 1, LOADING.with(STALE).with(FAST), "2.6.0", "", "Returns the server time."),
        Row::engine("wait", 3, BLOCKING, "3.0.0", "numreplicas timeout", "Blocks until the asynchronous replication of all preceding write commands sent by the connection is completed."),
        Row::engine("waitaof", 4, BLOCKING, "7.2.0", "numlocal numreplicas timeout", "Blocks until all of the preceding write commands sent by the connection are written to the append-only file of the master and/or replicas."),
        Row::engine("waitrev", 3, BLOCKING, "alcid 0.1", "revision timeout", "Blocks until this node has applied a revision, and returns the newest it has applied."),
    ],
};

#[rustfmt::skip]
const COMMAND: &[CommandSpec] = &[
    Row::engine("count", 2, SHOW, "2.8.13", "", "Returns a count of commands."),
    Row::engine("docs", -2, SHOW, "7.0.0", "[command-name [command-name ...]]", "Returns documentary information about one, multiple or all commands."),
    Row::engine("getkeys", -3, SHOW, "2.8.13", "command [arg [arg ...]]", "Extracts the key names from an arbitrary command."),
    Row::engine("getkeysandflags", -3, SHOW, "7.0.0", "command [arg [arg ...]]", "Extracts the key names and access flags for an arbitrary command."),
    Row::engine("help", 2, SHOW, "5.0.0", "", "Returns helpful text about the different subcommands."),
    Row::engine("info", -2, SHOW, "2.8.13", "[command-name [command-name ...]]", "Returns information about one, multiple or all commands."),
    Row::engine("list", -2, SHOW, "7.0.0", "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]", "Returns a list of command names."),
];

#[rustfmt::skip]
const CONFIG: &[CommandSpec] = &[
    Row::engine("get", -3, OPERATE, "2.0.0", "parameter [parameter ...]", "Returns the effective values of configuration parameters."),
    Row::engine("help", 2, SHOW, "5.0.0", "", "Returns helpful text about the different subcommands."),
    Row::engine("resetstat", 2, OPERATE, "2.0.0", "", "Resets the server's statistics."),
    Row::engine("rewrite", 2, OPERATE, "2.8.0", "", "Persists the effective configuration to file."),
    // May set a password, so MONITOR and the slow log do not see it.
    Row::engine("set", -4, OPERATE.with(SKIP_MONITOR).with(SKIP_SLOWLOG), "2.0.0", "parameter value [parameter value ...]", "Sets configuration parameters in-flight."),
];

#[rustfmt::skip]
const DEBUG: &[CommandSpec] = &[
    Row::engine("change-repl-id", 2, OPERATE, "1.0.0", "", "Accepted; there is no replication id to change."),
    Row::engine("error", 3, OPERATE, "2.8.0", "message", "Answers an error."),
    Row::engine("help", 2, SHOW, "1.0.0", "", "Returns helpful text about the different subcommands."),
    Row::engine("jmap", 2, OPERATE, "1.0.0", "", "Accepted; there is no Java heap to dump."),
    Row::engine("listpack", 3, OPERATE, "1.0.0", "key", "Accepted; small collections have no listpack to show."),
    Row::data("digest", 2, OPERATE, &[], "1.0.0", "", "Shows a fingerprint of all keys and values.", debug_digest).scope(ScopeRule::All),
    Row::data("digest-value", -3, OPERATE, &[KeySpec::range(2, -1, 1, RO)], "1.0.0", "key [key ...]", "Shows fingerprints of keys' values.", debug_digest_value),
    Row::data("object", -3, OPERATE, &[KeySpec::one(2, RO)], "1.0.0", "key [FAST]", "Shows low level details of a key and its value.", debug_object),
    Row::engine("panic", 2, OPERATE, "1.0.0", "", "Ends the server as an internal error would."),
    Row::engine("pause-cron", 3, OPERATE, "7.2.0", "<0 | 1>", "Holds the background cycles up, or lets them go on."),
    Row::engine("protocol", 3, OPERATE, "6.0.0", "type", "Answers a reply of that type."),
    Row::engine("quicklist-packed-threshold", 3, OPERATE, "1.0.0", "size", "Accepted; long list elements need no nodes of their own."),
    Row::engine("reload", -2, OPERATE, "1.0.0", "[MERGE] [NOFLUSH] [NOSAVE]", "Empties the keyspace and loads it from disk again."),
    Row::engine("set-active-expire", 3, OPERATE, "1.0.0", "<0 | 1>", "Turns the active expiry cycle off or on."),
    Row::engine("set-disable-deny-scripts", 3, OPERATE, "1.0.0", "<0 | 1>", "Accepted; there are no scripts."),
    Row::engine("sleep", 3, OPERATE, "1.0.0", "seconds", "Keeps the thread asleep, and every client that it serves waiting."),
    Row::engine("stringmatch-len", 4, OPERATE, "1.0.0", "length pattern", "Matches a string of that length against a pattern."),
];

#[rustfmt::skip]
const LATENCY: &[CommandSpec] = &[
    Row::engine("doctor", 2, OPERATE, "2.8.13", "", "Returns a human-readable latency analysis report."),
    Row::engine("graph", 3, OPERATE, "2.8.13", "event", "Returns a latency graph for an event."),
    Row::engine("help", 2, SHOW, "2.8.13", "", "Returns helpful text about the different subcommands."),
    Row::engine("histogram", -2, OPERATE, "7.0.0", "[command [command ...]]", "Returns the cumulative distribution of latencies of a subset or all commands."),
    Row::engine("history", 3, OPERATE, "2.8.13", "event", "Returns timestamp-latency samples for an event."),
    Row::engine("latest", 2, OPERATE, "2.8.13", "", "Returns the latest latency samples for all events."),
    Row::engine("reset", -2, OPERATE, "2.8.13", "[event [event ...]]", "Resets the latency data for one or more events."),
];

#[rustfmt::skip]
const MEMORY: &[CommandSpec] = &[
    Row::engine("doctor", 2, Flags(0), "4.0.0", "", "Outputs a memory problems report."),
    Row::engine("help", 2, SHOW, "4.0.0", "", "Returns helpful text about the different subcommands."),
    Row::engine("malloc-stats", 2, Flags(0), "4.0.0", "", "Returns the allocator statistics."),
    Row::engine("purge", 2, Flags(0), "4.0.0", "", "Asks the allocator to release memory."),
    Row::engine("stats", 2, Flags(0), "4.0.0", "", "Returns details about memory usage."),
    Row::data("usage", -3, READONLY, &[KeySpec::one(2, RO)], "4.0.0", "key [SAMPLES count]", "Estimates the memory usage of a key.", memory_usage),
];

#[rustfmt::skip]
const SLOWLOG: &[CommandSpec] = &[
    Row::engine("get", -2, OPERATE, "2.2.12", "[count]", "Returns the slow log's entries."),
    Row::engine("help", 2, SHOW, "6.2.0", "", "Returns helpful text about the different subcommands."),
    Row::engine("len", 2, OPERATE, "2.2.12", "", "Returns the number of entries in the slow log."),
    Row::engine("reset", 2, OPERATE, "2.2.12", "", "Clears all entries from the slow log."),
];

fn memory_usage(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let mut options = Args::new(&args[1..]);
    while !options.is_empty() {
        // Sizes are exact here, so how many elements to sample does not matter.
        if !options.take_word("samples") {
            return Err(Error::SYNTAX);
        }
        if options.next_i64()? < 0 {
            return Err(Error::SYNTAX);
        }
    }
    match ctx.tx.info(args[0]) {
        Some(info) => reply.count(info.memory_bytes),
        None => reply.null(),
    }
    Ok(())
}

fn debug_digest(ctx: &mut Ctx<'_, '_>, _: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let home = ctx.tx.db();
    let mut all = Digest::default();
    for db in 0..ctx.tx.databases() {
        ctx.tx.select(db);
        ctx.tx.visit_all(&mut |key, value, deadline| {
            let mut one = Digest::default();
            one.add(&db.to_be_bytes());
            one.add(key);
            one.add(&deadline.unwrap_or(0).to_be_bytes());
            one.add_value(value);
            all.unite(&one);
        })?;
    }
    ctx.tx.select(home);
    reply.simple(&all.to_string());
    Ok(())
}

fn debug_digest_value(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.array(args.len());
    for key in args {
        let mut digest = Digest::default();
        ctx.tx.look(key).into_iter().for_each(|value| digest.add_value(value));
        reply.simple(&digest.to_string());
    }
    Ok(())
}

fn debug_object(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let info = ctx.tx.info(args[0]).ok_or(Error::NO_SUCH_KEY)?;
    let value = ctx.tx.get(args[0]).ok_or(Error::NO_SUCH_KEY)?;
    let serialized = keyspace::dump::encode_body(value).len();
    let idle_s = match info.usage {
        Usage::IdleSeconds(seconds) => seconds,
        Usage::Frequency(_) => 0,
    };
    let mut line = format!(
        "Value at:0x0 refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}",
        crate::object::encoding_of(value, info.is_raw, ctx.tx.limits()),
        serialized.saturating_sub(1),
        info.access,
        idle_s,
    );
    if let ValueRef::List(list) = value {
        let nodes = list.node_count();
        line += &format!(
            " ql_nodes:{nodes} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:0 ql_uncompressed_size:{}",
            list.len() as f64 / nodes.max(1) as f64,
            ctx.tx.limits().list_max_listpack_size,
            list.memory_bytes(),
        );
    }
    reply.simple(&line);
    Ok(())
}
