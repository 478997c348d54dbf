//! Bits of a command's row. The names are Redis's.

use std::ops::BitOr;

/// A set of command flags or ACL categories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u64);

impl Flags {
    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any flag of `other` is set.
    #[must_use]
    pub const fn has_any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Both together, in constants.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The names of the flags set, in the order of `names`.
    pub fn names(
        self,
        names: &'static [(Flags, &'static str)],
    ) -> impl Iterator<Item = &'static str> {
        names.iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| *name)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        self.with(other)
    }
}

macro_rules! flags {
    ($table:ident; $($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*
        /// Every flag with the name `COMMAND INFO` shows, in its order.
        pub const $table: &[(Flags, &str)] = &[$(($name, $text)),*];
    };
}

flags! { COMMAND_FLAGS;
    /// May change data.
    WRITE = 0, "write";
    /// Never changes data.
    READONLY = 1, "readonly";
    /// Refused when memory is short.
    DENYOOM = 2, "denyoom";
    /// Operators only.
    ADMIN = 3, "admin";
    /// About pub/sub.
    PUBSUB = 4, "pubsub";
    /// Not from scripts.
    NOSCRIPT = 5, "noscript";
    /// May wait.
    BLOCKING = 6, "blocking";
    /// Allowed while loading.
    LOADING = 7, "loading";
    /// Allowed on a replica without its leader.
    STALE = 8, "stale";
    /// Not shown to MONITOR.
    SKIP_MONITOR = 9, "skip_monitor";
    /// Not kept in the slow log.
    SKIP_SLOWLOG = 10, "skip_slowlog";
    /// Constant or logarithmic time.
    FAST = 11, "fast";
    /// Allowed before AUTH.
    NO_AUTH = 12, "no_auth";
    /// Published to replicas though it changes nothing.
    MAY_REPLICATE = 13, "may_replicate";
    /// The rows' key specifications do not find all keys.
    MOVABLE_KEYS = 14, "movablekeys";
    /// Not inside MULTI.
    NO_MULTI = 15, "no_multi";
    /// Allowed while a script runs too long.
    ALLOW_BUSY = 16, "allow_busy";
    /// Not in asynchronous loading.
    NO_ASYNC_LOADING = 17, "no_async_loading";
    /// Names keys only in its payload's place of subcommands.
    NO_MANDATORY_KEYS = 18, "no_mandatory_keys";
}

/// ACL categories.
pub mod category {
    use super::Flags;

    flags! { ACL_CATEGORIES;
        /// Commands on keys of any type.
        KEYSPACE = 0, "keyspace";
        /// May read values.
        READ = 1, "read";
        /// May write values.
        WRITE = 2, "write";
        /// Sets.
        SET = 3, "set";
        /// Sorted sets.
        SORTED_SET = 4, "sortedset";
        /// Lists.
        LIST = 5, "list";
        /// Hashes.
        HASH = 6, "hash";
        /// Strings.
        STRING = 7, "string";
        /// Bitmaps.
        BITMAP = 8, "bitmap";
        /// HyperLogLog.
        HYPERLOGLOG = 9, "hyperloglog";
        /// Geo.
        GEO = 10, "geo";
        /// Streams.
        STREAM = 11, "stream";
        /// Pub/sub.
        PUBSUB = 12, "pubsub";
        /// Operators.
        ADMIN = 13, "admin";
        /// Fast commands.
        FAST = 14, "fast";
        /// All others.
        SLOW = 15, "slow";
        /// May wait.
        BLOCKING = 16, "blocking";
        /// Can harm the service.
        DANGEROUS = 17, "dangerous";
        /// About the connection.
        CONNECTION = 18, "connection";
        /// MULTI and friends.
        TRANSACTION = 19, "transaction";
        /// Scripts.
        SCRIPTING = 20, "scripting";
    }
}
