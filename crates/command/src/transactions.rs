//! Rows of transactions; their handlers are in `engine`.

use crate::flags::{ALLOW_BUSY, FAST, Flags, LOADING, NOSCRIPT, SKIP_SLOWLOG, STALE};
use crate::keys::{KeySpec, key_flags::RO};
use crate::spec::{CommandSpec, Family, Group};

type Row = CommandSpec;

const ANYTIME: Flags = NOSCRIPT.with(LOADING).with(STALE).with(ALLOW_BUSY);

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::Transactions,
    commands: &[
        Row::engine("discard", 1, ANYTIME.with(FAST), "2.0.0", "", "Discards a transaction."),
        Row::engine("exec", 1, NOSCRIPT.with(LOADING).with(STALE).with(SKIP_SLOWLOG), "1.2.0", "", "Executes all commands in a transaction."),
        Row::engine("multi", 1, ANYTIME.with(FAST), "1.2.0", "", "Starts a transaction."),
        Row::engine("unwatch", 1, ANYTIME.with(FAST), "2.2.0", "", "Forgets about watched keys of a transaction."),
        Row::engine("watch", -2, ANYTIME.with(FAST), "2.2.0", "key [key ...]", "Monitors changes to keys to determine the execution of a transaction.").keys(&[KeySpec::range(1, -1, 1, RO)]),
    ],
};
