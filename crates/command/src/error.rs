//! Errors in Redis's words. Clients match on the first word, programs on whole
//! messages, so these texts are part of the protocol.

use std::borrow::Cow;
use std::fmt;

use keyspace::{BackingError, WrongType};

/// What a handler answers instead of a reply.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// An error reply. The text's first word is its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Cow<'static, str>);

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl Error {
            $($(#[$doc])* pub const $name: Error = Error(Cow::Borrowed($text));)*
        }
    };
}

words! {
    /// The key holds another type.
    WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value";
    /// Options that do not fit together or are unknown.
    SYNTAX = "ERR syntax error";
    /// An argument should be a 64-bit integer.
    NOT_INTEGER = "ERR value is not an integer or out of range";
    /// An argument should be a double.
    NOT_FLOAT = "ERR value is not a valid float";
    /// An integer outside its range.
    OUT_OF_RANGE = "ERR value is out of range";
    /// A count or length that must not be negative.
    MUST_BE_POSITIVE = "ERR value is out of range, must be positive";
    /// The key must exist.
    NO_SUCH_KEY = "ERR no such key";
    /// A list index outside the list.
    INDEX_OUT_OF_RANGE = "ERR index out of range";
    /// INCR and its family left the 64-bit range.
    OVERFLOW = "ERR increment or decrement would overflow";
    /// A float operation gave no finite number.
    NAN_OR_INFINITY = "ERR increment would produce NaN or Infinity";
    /// A string would exceed `proto-max-bulk-len`.
    STRING_TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    /// COPY, MOVE and RENAME-like commands on one and the same key.
    SAME_OBJECT = "ERR source and destination objects are the same";
    /// SELECT and others beyond `databases`.
    DB_OUT_OF_RANGE = "ERR DB index is out of range";
    /// RESTORE onto a key that exists.
    BUSY_KEY = "BUSYKEY Target key name already exists.";
    /// A timeout that is no number.
    TIMEOUT_NOT_FLOAT = "ERR timeout is not a float or out of range";
    /// A timeout below zero.
    TIMEOUT_NEGATIVE = "ERR timeout is negative";
    /// A timeout too large for the clock.
    TIMEOUT_OUT_OF_RANGE = "ERR timeout is out of range";
    /// A cursor that is no number.
    INVALID_CURSOR = "ERR invalid cursor";
    /// A write beyond `maxmemory`.
    OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'.";
    /// A score range that cannot be read.
    MIN_MAX_NOT_FLOAT = "ERR min or max is not a float";
    /// A lexicographic range that cannot be read.
    MIN_MAX_NOT_STRING = "ERR min or max not valid string range item";
    /// A sorted set's arithmetic gave no number.
    RESULTING_SCORE_NAN = "ERR resulting score is not a number (NaN)";
    /// NUMKEYS of zero or below.
    NUMKEYS_NOT_POSITIVE = "ERR numkeys should be greater than 0";
}

impl Error {
    /// An error with a text made for the occasion; it starts with its code.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Error {
        Error(Cow::Owned(text.into()))
    }

    /// `ERR wrong number of arguments for 'x' command`; for a subcommand the
    /// name is `container|sub`.
    #[must_use]
    pub fn arity(name: &str) -> Error {
        Error::new(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// `ERR value is out of range, value must between x and y`.
    #[must_use]
    pub fn not_between(min: i64, max: i64) -> Error {
        Error::new(format!("ERR value is out of range, value must between {min} and {max}"))
    }

    /// `ERR invalid expire time in 'x' command`.
    #[must_use]
    pub fn invalid_expire(name: &str) -> Error {
        Error::new(format!("ERR invalid expire time in '{name}' command"))
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The first word.
    #[must_use]
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<WrongType> for Error {
    fn from(_: WrongType) -> Error {
        Error::WRONG_TYPE
    }
}

impl From<BackingError> for Error {
    fn from(error: BackingError) -> Error {
        match error.as_compacted() {
            Some(_) => Error::new(format!("COMPACTED {error}")),
            None => Error::new(format!("ERR the archive cannot be read: {error}")),
        }
    }
}
