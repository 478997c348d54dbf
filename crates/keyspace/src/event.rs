//! Keyspace events: what `notify-keyspace-events` publishes.

use base::DbIndex;

/// A class of events, as one bit; the letters are Redis's.
pub mod class {
    /// `K`: publish on `__keyspace@<db>__:<key>`.
    pub const KEYSPACE: u32 = 1;
    /// `E`: publish on `__keyevent@<db>__:<event>`.
    pub const KEYEVENT: u32 = 1 << 1;
    /// `g`: commands of no type, such as DEL, EXPIRE, RENAME.
    pub const GENERIC: u32 = 1 << 2;
    /// `$`
    pub const STRING: u32 = 1 << 3;
    /// `l`
    pub const LIST: u32 = 1 << 4;
    /// `s`
    pub const SET: u32 = 1 << 5;
    /// `h`
    pub const HASH: u32 = 1 << 6;
    /// `z`
    pub const ZSET: u32 = 1 << 7;
    /// `x`: a deadline passed.
    pub const EXPIRED: u32 = 1 << 8;
    /// `e`: removed to stay under the memory limit.
    pub const EVICTED: u32 = 1 << 9;
    /// `t`
    pub const STREAM: u32 = 1 << 10;
    /// `m`: a read found nothing. Not part of `A`.
    pub const KEY_MISS: u32 = 1 << 11;
    /// `d`: types of modules.
    pub const MODULE: u32 = 1 << 12;
    /// `n`: a key came to be. Not part of `A`.
    pub const NEW: u32 = 1 << 13;
    /// `A`: all of `g$lshzxetd`.
    pub const ALL: u32 =
        GENERIC | STRING | LIST | SET | HASH | ZSET | EXPIRED | EVICTED | STREAM | MODULE;
}

/// Something that happened to a key, to be published after commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// One bit of [`class`].
    pub class: u32,
    /// The event's name, such as `set` or `expired`.
    pub name: &'static str,
    /// Where the key is.
    pub db: DbIndex,
    /// The key.
    pub key: Vec<u8>,
}
