//! Rows about the connection; their handlers are in `engine`.

use crate::flags::{
    ADMIN, ALLOW_BUSY, FAST, Flags, LOADING, NO_AUTH, NO_MULTI, NOSCRIPT, SKIP_MONITOR, STALE,
};
use crate::spec::{CommandSpec, Family, Group};

type Row = CommandSpec;

const ANYTIME: Flags = LOADING.with(STALE).with(NOSCRIPT);

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::Connection,
    commands: &[
        // What holds a password is never shown to MONITOR.
        Row::engine("auth", -2, ANYTIME.with(FAST).with(NO_AUTH).with(ALLOW_BUSY).with(SKIP_MONITOR), "1.0.0", "[username] password", "Authenticates the connection."),
        Row::engine("echo", 2, LOADING.with(STALE).with(FAST), "1.0.0", "message", "Returns the given string."),
        Row::engine("hello", -1, ANYTIME.with(FAST).with(NO_AUTH).with(ALLOW_BUSY).with(SKIP_MONITOR), "6.0.0", "[protover [AUTH username password] [SETNAME clientname]]", "Handshakes with the server."),
        Row::engine("ping", -1, FAST.with(LOADING).with(STALE), "1.0.0", "[message]", "Returns the server's liveliness response."),
        Row::engine("quit", -1, ANYTIME.with(FAST).with(NO_AUTH).with(ALLOW_BUSY), "1.0.0", "", "Closes the connection."),
        Row::engine("reset", 1, ANYTIME.with(FAST).with(NO_AUTH).with(ALLOW_BUSY), "6.2.0", "", "Resets the connection."),
        Row::engine("select", 2, LOADING.with(STALE).with(FAST), "1.0.0", "index", "Changes the selected database."),
        Row::container("client", Flags(0), "2.4.0", "A container for client connection commands.", CLIENT),
    ],
};

const OPERATOR: Flags = ANYTIME.with(ADMIN);

#[rustfmt::skip]
const CLIENT: &[CommandSpec] = &[
    Row::engine("caching", 3, ANYTIME, "6.0.0", "<YES | NO>", "Instructs the server whether to track the keys in the next request."),
    Row::engine("getname", 2, ANYTIME, "2.6.9", "", "Returns the name of the connection."),
    Row::engine("getredir", 2, ANYTIME, "6.0.0", "", "Returns the client ID to which the connection's tracking notifications are redirected."),
    Row::engine("help", 2, LOADING.with(STALE), "5.0.0", "", "Returns helpful text about the different subcommands."),
    Row::engine("id", 2, ANYTIME, "5.0.0", "", "Returns the unique client ID of the connection."),
    Row::engine("info", 2, ANYTIME, "6.2.0", "", "Returns information about the connection."),
    Row::engine("kill", -3, OPERATOR, "2.4.0", "<old-format | <[ID client-id] | [TYPE type] | [USER username] | [ADDR addr] | [LADDR addr] | [SKIPME yes/no] ...>>", "Terminates open connections."),
    Row::engine("list", -2, OPERATOR, "2.4.0", "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]]", "Lists open connections."),
    Row::engine("no-evict", 3, OPERATOR, "7.0.0", "<ON | OFF>", "Sets the client eviction mode of the connection."),
    Row::engine("no-touch", 3, ANYTIME, "7.2.0", "<ON | OFF>", "Controls whether commands sent by the client affect the LRU/LFU of accessed keys."),
    Row::engine("pause", -3, OPERATOR, "3.0.0", "timeout [WRITE | ALL]", "Suspends commands processing."),
    Row::engine("reply", 3, ANYTIME, "3.2.0", "<ON | OFF | SKIP>", "Instructs the server whether to reply to commands."),
    Row::engine("replyrev", 3, ANYTIME, "alcid 0.1", "<ON | OFF>", "Puts the revision in front of each reply, as a RESP3 attribute."),
    Row::engine("setinfo", 4, ANYTIME, "7.2.0", "<LIB-NAME libname | LIB-VER libver>", "Sets information specific to the client or connection."),
    Row::engine("setname", 3, ANYTIME, "2.6.9", "connection-name", "Sets the connection name."),
    Row::engine("tracking", -3, ANYTIME, "6.0.0", "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP] [FROM when | NOW]", "Controls server-assisted client-side caching for the connection."),
    Row::engine("trackinginfo", 2, ANYTIME, "6.2.0", "", "Returns information about server-assisted client-side caching for the connection."),
    Row::engine("travel", 3, ANYTIME.with(NO_MULTI), "alcid 0.1", "<when | OFF>", "Lets the connection read the state of an earlier time, or the present again."),
    Row::engine("unblock", -3, OPERATOR, "5.0.0", "client-id [TIMEOUT | ERROR]", "Unblocks a client blocked by a blocking command from a different connection."),
    Row::engine("unpause", 2, OPERATOR, "6.2.0", "", "Resumes processing commands from paused clients."),
];
