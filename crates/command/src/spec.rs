//! The shape of a row.

use base::Reply;

use crate::ctx::Ctx;
use crate::error::Result;
use crate::flags::{Flags, category};
use crate::keys::KeySpec;

/// A handler: reads `args` (the command's name not included), acts on the
/// transaction, writes one reply. On an error it has changed nothing and
/// written nothing.
pub type Handler = fn(&mut Ctx<'_, '_>, &[&[u8]], &mut dyn Reply) -> Result;

/// Who runs a command.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// A handler on data.
    Data(Handler),
    /// `engine`, which knows sessions and the server.
    Engine,
    /// A subcommand.
    Container,
}

/// What a data command locks before its handler runs.
#[derive(Clone, Copy, Debug)]
pub enum ScopeRule {
    /// The shards of its keys.
    Keys,
    /// Every shard.
    All,
    /// None; the handler visits one shard after another.
    Sliced,
    /// One of the above, by the arguments (name not included).
    ByArguments(fn(&[&[u8]]) -> ScopeRule),
}

/// Groups of commands, as `COMMAND DOCS` names them: Redis's, and Alcid's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the groups")]
pub enum Group {
    Generic,
    String,
    List,
    Set,
    SortedSet,
    Hash,
    PubSub,
    Transactions,
    Connection,
    Server,
    History,
    Branches,
}

impl Group {
    /// Redis's name of the group.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::PubSub => "pubsub",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::History => "history",
            Group::Branches => "branches",
        }
    }

    /// The ACL category that every command of the group is in.
    #[must_use]
    pub const fn category(self) -> Flags {
        match self {
            Group::Generic | Group::History | Group::Branches => category::KEYSPACE,
            Group::String => category::STRING,
            Group::List => category::LIST,
            Group::Set => category::SET,
            Group::SortedSet => category::SORTED_SET,
            Group::Hash => category::HASH,
            Group::PubSub => category::PUBSUB,
            Group::Transactions => category::TRANSACTION,
            Group::Connection => category::CONNECTION,
            Group::Server => Flags(0),
        }
    }
}

/// What is known of a command's keys when its handler begins. What is not in
/// memory costs the less the less has to be known of it.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// What they hold: they are in memory.
    Value,
    /// Of the one key its type, its deadline, its revision and how many elements it
    /// has, see [`keyspace::Txn::look_at`].
    Outline,
    /// Whether they exist, see [`keyspace::Txn::look_for`].
    Existence,
    /// Nothing: its handler sees to that, and needs to know no more than whether
    /// they exist.
    Nothing,
    /// One of these, by the arguments, the command's name excluded.
    ByArguments(fn(&[&[u8]]) -> Known),
}

/// A row of the command table.
#[derive(Clone, Copy, Debug)]
pub struct CommandSpec {
    /// Lowercase; of a subcommand only its own word.
    pub name: &'static str,
    /// Redis's arity: the number of words, name included; negative: at least.
    pub arity: i32,
    /// Command flags.
    pub flags: Flags,
    /// Which arguments are keys.
    pub keys: &'static [KeySpec],
    /// What is locked before the handler runs.
    pub scope: ScopeRule,
    /// It has one key, its first argument; the others name elements of the
    /// collection there, and its reply depends on those elements alone.
    pub by_element: bool,
    /// What is known of its keys when its handler begins.
    pub known: Known,
    /// ACL categories that flags and group do not imply.
    pub categories: Flags,
    /// The version of Redis that brought it; an Alcid command says `alcid 0.1`.
    pub since: &'static str,
    /// Arguments in the notation of `HELP`: `key [EX seconds | PX ms]`.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// The handler.
    pub run: Run,
    /// Rows of a container's subcommands.
    pub subcommands: &'static [CommandSpec],
}

impl CommandSpec {
    /// A command on data. Without keys it is sliced, see [`ScopeRule`].
    #[must_use]
    #[allow(clippy::too_many_arguments, reason = "a row of a table")]
    pub const fn data(
        name: &'static str,
        arity: i32,
        flags: Flags,
        keys: &'static [KeySpec],
        since: &'static str,
        syntax: &'static str,
        summary: &'static str,
        handler: Handler,
    ) -> CommandSpec {
        CommandSpec {
            name,
            arity,
            flags,
            keys,
            scope: if keys.is_empty() { ScopeRule::Sliced } else { ScopeRule::Keys },
            by_element: false,
            known: Known::Value,
            categories: Flags(0),
            since,
            syntax,
            summary,
            run: Run::Data(handler),
            subcommands: &[],
        }
    }

    /// A command that `engine` runs.
    #[must_use]
    pub const fn engine(
        name: &'static str,
        arity: i32,
        flags: Flags,
        since: &'static str,
        syntax: &'static str,
        summary: &'static str,
    ) -> CommandSpec {
        CommandSpec {
            name,
            arity,
            flags,
            keys: &[],
            scope: ScopeRule::Sliced,
            by_element: false,
            known: Known::Value,
            categories: Flags(0),
            since,
            syntax,
            summary,
            run: Run::Engine,
            subcommands: &[],
        }
    }

    /// A container of subcommands.
    #[must_use]
    pub const fn container(
        name: &'static str,
        flags: Flags,
        since: &'static str,
        summary: &'static str,
        subcommands: &'static [CommandSpec],
    ) -> CommandSpec {
        CommandSpec {
            name,
            arity: -2,
            flags,
            keys: &[],
            scope: ScopeRule::Sliced,
            by_element: false,
            known: Known::Value,
            categories: Flags(0),
            since,
            syntax: "subcommand [argument …]",
            summary,
            run: Run::Container,
            subcommands,
        }
    }

    /// The same row with another scope.
    #[must_use]
    pub const fn scope(mut self, scope: ScopeRule) -> CommandSpec {
        self.scope = scope;
        self
    }

    /// The same row of a command that looks at no elements but those it names.
    #[must_use]
    pub const fn by_element(mut self) -> CommandSpec {
        self.by_element = true;
        self
    }

    /// The same row of a command that needs to know less of its keys.
    #[must_use]
    pub const fn known(mut self, known: Known) -> CommandSpec {
        self.known = known;
        self
    }

    /// The same row with further ACL categories.
    #[must_use]
    pub const fn categories(mut self, categories: Flags) -> CommandSpec {
        self.categories = categories;
        self
    }

    /// The same row with keys.
    #[must_use]
    pub const fn keys(mut self, keys: &'static [KeySpec]) -> CommandSpec {
        self.keys = keys;
        self
    }

    /// Whether this many words, name included, can be the command.
    #[must_use]
    pub const fn accepts(&self, words: usize) -> bool {
        if self.arity >= 0 {
            words == self.arity as usize
        } else {
            words >= self.arity.unsigned_abs() as usize
        }
    }
}

/// A family's rows.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The group all rows are in.
    pub group: Group,
    /// The rows.
    pub commands: &'static [CommandSpec],
}
