//! Strings and counters.

use base::{Reply, number};
use keyspace::{Txn, class};

use crate::args::{Args, from_end, integer};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::expire::deadline_from;
use crate::flags::{DENYOOM, FAST, READONLY, WRITE};
use crate::keys::{KeySpec, key_flags::*};
use crate::spec::{CommandSpec, Family, Group, Known};

type Row = CommandSpec;

/// The rows.
pub const FAMILY: Family = Family {
    group: Group::String,
    commands: &[
        Row::data(
            "append",
            3,
            WRITE.with(DENYOOM).with(FAST),
            &[KeySpec::one(1, RW.with(INSERT))],
            "2.0.0",
            "key value",
            "Appends a string to the value of a key. Creates the key if it doesn't exist.",
            append,
        ),
        Row::data(
            "decr",
            2,
            WRITE.with(DENYOOM).with(FAST),
            COUNTER,
            "1.0.0",
            "key",
            "Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
            decr,
        ),
        Row::data(
            "decrby",
            3,
            WRITE.with(DENYOOM).with(FAST),
            COUNTER,
            "1.0.0",
            "key decrement",
            "Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist.",
            decrby,
        ),
        Row::data(
            "get",
            2,
            READONLY.with(FAST),
            READ_ONE,
            "1.0.0",
            "key",
            "Returns the string value of a key.",
            get,
        ),
        Row::data(
            "getdel",
            2,
            WRITE.with(FAST),
            &[KeySpec::one(1, RW.with(ACCESS).with(DELETE))],
            "6.2.0",
            "key",
            "Returns the string value of a key after deleting the key.",
            getdel,
        ),
        Row::data(
            "getex",
            -2,
            WRITE.with(FAST),
            &[KeySpec::one(1, RW.with(ACCESS).with(UPDATE))],
            "6.2.0",
            "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
            "Returns the string value of a key after setting its expiration time.",
            getex,
        ),
        Row::data(
            "getrange",
            4,
            READONLY,
            READ_ONE,
            "2.4.0",
            "key start end",
            "Returns a substring of the string stored at a key.",
            getrange,
        ),
        Row::data(
            "getset",
            3,
            WRITE.with(DENYOOM).with(FAST),
            COUNTER,
            "1.0.0",
            "key value",
            "Returns the previous string value of a key after setting it to a new value.",
            getset,
        ),
        Row::data(
            "incr",
            2,
            WRITE.with(DENYOOM).with(FAST),
            COUNTER,
            "1.0.0",
            "key",
            "Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
            incr,
        ),
        Row::data(
            "incrby",
            3,
            WRITE.with(DENYOOM).with(FAST),
            COUNTER,
            "1.0.0",
            "key increment",
            "Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
            incrby,
        ),
        Row::data(
            "incrbyfloat",
            3,
            WRITE.with(DENYOOM).with(FAST),
            COUNTER,
            "2.6.0",
            "key increment",
            "Increments the floating point value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
            incrbyfloat,
        ),
        Row::data(
            "lcs",
            -3,
            READONLY,
            &[KeySpec::range(1, 1, 1, RO.with(ACCESS))],
            "7.0.0",
            "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
            "Finds the longest common substring.",
            lcs,
        ),
        Row::data(
            "mget",
            -2,
            READONLY.with(FAST),
            &[KeySpec::range(1, -1, 1, RO.with(ACCESS))],
            "1.0.0",
            "key [key ...]",
            "Atomically returns the string values of one or more keys.",
            mget,
        ),
        Row::data(
            "mset",
            -3,
            WRITE.with(DENYOOM),
            &[KeySpec::range(1, -1, 2, OW.with(UPDATE))],
            "1.0.1",
            "key value [key value ...]",
            "Atomically creates or modifies the string values of one or more keys.",
            mset,
        )
        .known(Known::Existence),
        Row::data(
            "msetnx",
            -3,
            WRITE.with(DENYOOM),
            &[KeySpec::range(1, -1, 2, OW.with(INSERT))],
            "1.0.1",
            "key value [key value ...]",
            "Atomically modifies the string values of one or more keys only when all keys don't exist.",
            msetnx,
        )
        .known(Known::Existence),
        Row::data(
            "psetex",
            4,
            WRITE.with(DENYOOM),
            &[KeySpec::one(1, OW.with(UPDATE))],
            "2.6.0",
            "key milliseconds value",
            "Sets both string value and expiration time in milliseconds of a key. The key is created if it doesn't exist.",
            psetex,
        )
        .known(Known::Nothing),
        Row::data(
            "set",
            -3,
            WRITE.with(DENYOOM),
            &[KeySpec::one(1, RW.with(ACCESS).with(UPDATE).with(VARIABLE_FLAGS))],
            "1.0.0",
            "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
            "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.",
            set,
        )
        .known(Known::ByArguments(known_by_set)),
        Row::data(
            "setex",
            4,
            WRITE.with(DENYOOM),
            &[KeySpec::one(1, OW.with(UPDATE))],
            "2.0.0",
            "key seconds value",
            "Sets the string value and expiration time of a key. Creates the key if it doesn't exist.",
            setex,
        )
        .known(Known::Nothing),
        Row::data(
            "setnx",
            3,
            WRITE.with(DENYOOM).with(FAST),
            &[KeySpec::one(1, OW.with(INSERT))],
            "1.0.0",
            "key value",
            "Set the string value of a key only when the key doesn't exist.",
            setnx,
        )
        .known(Known::Existence),
        Row::data(
            "setrange",
            4,
            WRITE.with(DENYOOM),
            &[KeySpec::one(1, RW.with(UPDATE))],
            "2.2.0",
            "key offset value",
            "Overwrites a part of a string value with another by an offset. Creates the key if it doesn't exist.",
            setrange,
        ),
        Row::data(
            "strlen",
            2,
            READONLY.with(FAST),
            &[KeySpec::one(1, RO)],
            "2.2.0",
            "key",
            "Returns the length of a string value.",
            strlen,
        ),
        Row::data(
            "substr",
            4,
            READONLY,
            READ_ONE,
            "1.0.0",
            "key start end",
            "Returns a substring from a string value.",
            getrange,
        ),
    ],
};

const READ_ONE: &[KeySpec] = &[KeySpec::one(1, RO.with(ACCESS))];
const COUNTER: &[KeySpec] = &[KeySpec::one(1, RW.with(ACCESS).with(UPDATE))];

fn get(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.optional_bulk(ctx.tx.string(args[0])?);
    Ok(())
}

/// The options of SET and GETEX.
#[derive(Default)]
struct SetOptions<'a> {
    only_if_missing: bool,
    only_if_present: bool,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    /// The option's word and its argument.
    expire: Option<(ExpireUnit, &'a [u8])>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExpireUnit {
    pub(crate) seconds: bool,
    pub(crate) absolute: bool,
}

impl<'a> SetOptions<'a> {
    fn parse(args: &'a [&'a [u8]], is_set: bool) -> Result<SetOptions<'a>> {
        let mut options = SetOptions::default();
        let mut args = Args::new(args);
        while !args.is_empty() {
            // The same option may come twice; two that contradict each other may not.
            let no_time = options.expire.is_none();
            if is_set && !options.only_if_present && args.take_word("nx") {
                options.only_if_missing = true;
            } else if is_set && !options.only_if_missing && args.take_word("xx") {
                options.only_if_present = true;
            } else if is_set && args.take_word("get") {
                options.get = true;
            } else if is_set && no_time && args.take_word("keepttl") {
                options.keep_ttl = true;
            } else if !is_set && no_time && args.take_word("persist") {
                options.persist = true;
            } else {
                let unit = expire_unit(args.next()?).ok_or(Error::SYNTAX)?;
                let is_other = options.expire.is_some_and(|(before, _)| before != unit);
                if is_other || options.keep_ttl || options.persist {
                    return Err(Error::SYNTAX);
                }
                options.expire = Some((unit, args.next()?));
            }
        }
        Ok(options)
    }

    fn deadline(&self, now_ms: u64, command: &str) -> Result<Option<u64>> {
        match self.expire {
            None => Ok(None),
            Some((unit, text)) => {
                deadline_from(integer(text)?, unit.seconds, unit.absolute, now_ms, true, command)
                    .map(Some)
            }
        }
    }
}

fn expire_unit(word: &[u8]) -> Option<ExpireUnit> {
    let words: [(&str, bool, bool); 4] =
        [("ex", true, false), ("px", false, false), ("exat", true, true), ("pxat", false, true)];
    words
        .into_iter()
        .find(|(name, ..)| crate::args::is_word(word, name))
        .map(|(_, seconds, absolute)| ExpireUnit { seconds, absolute })
}

fn set(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let (key, value) = (args[0], args[1]);
    if args.len() == 2 {
        store(ctx.tx, key, value, None)?;
        reply.ok();
        return Ok(());
    }
    let options = SetOptions::parse(&args[2..], true)?;
    let mut deadline = options.deadline(ctx.tx.now_ms(), "set")?;
    let old = if options.get { ctx.tx.string(key)?.map(<[u8]>::to_vec) } else { None };
    let refused = (options.only_if_missing && ctx.tx.contains(key))
        || (options.only_if_present && !ctx.tx.contains(key));
    if !refused {
        if options.keep_ttl {
            deadline = ctx.tx.deadline(key).flatten();
        }
        store_until(ctx.tx, key, value, deadline, options.expire.is_some())?;
    }
    match (options.get, refused) {
        (true, _) => reply.optional_bulk(old.as_deref()),
        (false, true) => reply.null(),
        (false, false) => reply.ok(),
    }
    Ok(())
}

/// What SET has to know of its key.
fn known_by_set(args: &[&[u8]]) -> Known {
    let has_any = |words: [&str; 2]| {
        args[2..].iter().any(|arg| words.iter().any(|word| crate::args::is_word(arg, word)))
    };
    match args.len() {
        2 => Known::Nothing,
        _ if has_any(["get", "keepttl"]) => Known::Value,
        _ if has_any(["nx", "xx"]) => Known::Existence,
        _ => Known::Nothing,
    }
}

/// Sets the string and announces it. Nothing need be known of the key.
fn store(tx: &mut Txn<'_>, key: &[u8], value: &[u8], deadline: Option<u64>) -> Result {
    tx.overwrite(key, value, deadline)?;
    tx.notify(class::STRING, "set", key);
    Ok(())
}

/// As [`store`]; a deadline that has passed already removes the key instead.
fn store_until(
    tx: &mut Txn<'_>,
    key: &[u8],
    value: &[u8],
    deadline: Option<u64>,
    announce_expire: bool,
) -> Result {
    if announce_expire && deadline.is_some_and(|at| at <= tx.now_ms()) {
        tx.look_for(key);
        tx.check_backing()?;
        // Redis sets and then deletes; what remains is the same.
        if tx.delete(key) {
            tx.notify(class::GENERIC, "del", key);
        }
        return Ok(());
    }
    store(tx, key, value, deadline)?;
    if announce_expire {
        tx.notify(class::GENERIC, "expire", key);
    }
    Ok(())
}

fn setnx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let is_free = !ctx.tx.contains(args[0]);
    if is_free {
        store(ctx.tx, args[0], args[1], None)?;
    }
    reply.integer(i64::from(is_free));
    Ok(())
}

fn setex(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let now_ms = ctx.tx.now_ms();
    let deadline = deadline_from(integer(args[1])?, true, false, now_ms, true, "setex")?;
    store_until(ctx.tx, args[0], args[2], Some(deadline), true)?;
    reply.ok();
    Ok(())
}

fn psetex(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let now_ms = ctx.tx.now_ms();
    let deadline = deadline_from(integer(args[1])?, false, false, now_ms, true, "psetex")?;
    store_until(ctx.tx, args[0], args[2], Some(deadline), true)?;
    reply.ok();
    Ok(())
}

fn getset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.optional_bulk(ctx.tx.string(args[0])?);
    store(ctx.tx, args[0], args[1], None)
}

fn getdel(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let value = ctx.tx.string(args[0])?;
    reply.optional_bulk(value);
    if value.is_some() {
        ctx.tx.delete(args[0]);
        ctx.tx.notify(class::GENERIC, "del", args[0]);
    }
    Ok(())
}

fn getex(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let key = args[0];
    let options = SetOptions::parse(&args[1..], false)?;
    let now_ms = ctx.tx.now_ms();
    let value = ctx.tx.string(key)?;
    if value.is_none() {
        reply.null();
        return Ok(());
    }
    let deadline = options.deadline(now_ms, "getex")?;
    reply.optional_bulk(value);
    match deadline {
        Some(at) if at <= now_ms => {
            ctx.tx.delete(key);
            ctx.tx.notify(class::GENERIC, "del", key);
        }
        Some(at) => {
            ctx.tx.set_deadline(key, Some(at));
            ctx.tx.notify(class::GENERIC, "expire", key);
        }
        None if options.persist && ctx.tx.deadline(key).flatten().is_some() => {
            ctx.tx.set_deadline(key, None);
            ctx.tx.notify(class::GENERIC, "persist", key);
        }
        None => {}
    }
    Ok(())
}

fn strlen(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.count(ctx.tx.string(args[0])?.map_or(0, <[u8]>::len));
    Ok(())
}

fn getrange(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let (start, end) = (integer(args[1])?, integer(args[2])?);
    let value = ctx.tx.string(args[0])?.unwrap_or_default();
    // Both negative and crossed gives nothing, whatever they clip to.
    let crossed = start < 0 && end < 0 && start > end;
    let first = from_end(start, value.len()).max(0);
    let last = from_end(end, value.len()).max(0).min(value.len() as i64 - 1);
    if crossed || first > last {
        reply.bulk(b"");
    } else {
        reply.bulk(&value[first as usize..=last as usize]);
    }
    Ok(())
}

fn setrange(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let (key, offset, value) = (args[0], integer(args[1])?, args[2]);
    let offset = usize::try_from(offset).map_err(|_| Error::new("ERR offset is out of range"))?;
    let before = ctx.tx.string(key)?.map_or(0, <[u8]>::len);
    if value.is_empty() {
        reply.count(before);
        return Ok(());
    }
    check_length(ctx, offset, value.len())?;
    let len = ctx.tx.write_string(key, offset, value)?;
    ctx.tx.notify(class::STRING, "setrange", key);
    reply.count(len);
    Ok(())
}

fn append(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let (key, value) = (args[0], args[1]);
    let before = ctx.tx.string(key)?.map(<[u8]>::len);
    match before {
        // A fresh string is a plain SET, so its encoding is one too.
        None => ctx.tx.set_string(key, value, None),
        Some(before) => {
            check_length(ctx, before, value.len())?;
            ctx.tx.write_string(key, before, value)?;
        }
    }
    ctx.tx.notify(class::STRING, "append", key);
    reply.count(before.unwrap_or(0) + value.len());
    Ok(())
}

fn check_length(ctx: &Ctx<'_, '_>, offset: usize, len: usize) -> Result {
    let total = offset.checked_add(len);
    if total.is_some_and(|total| total <= ctx.limits.string_bytes_max) {
        Ok(())
    } else {
        Err(Error::STRING_TOO_LONG)
    }
}

fn incr(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    add(ctx, args[0], 1, reply)
}

fn decr(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    add(ctx, args[0], -1, reply)
}

fn incrby(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    add(ctx, args[0], integer(args[1])?, reply)
}

fn decrby(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let delta = integer(args[1])?;
    let delta = delta.checked_neg().ok_or(Error::new("ERR decrement would overflow"))?;
    add(ctx, args[0], delta, reply)
}

fn add(ctx: &mut Ctx<'_, '_>, key: &[u8], delta: i64, reply: &mut dyn Reply) -> Result {
    let before = match ctx.tx.string(key)? {
        None => 0,
        Some(text) => integer(text)?,
    };
    let after = before.checked_add(delta).ok_or(Error::OVERFLOW)?;
    ctx.tx.add_to_string(key, delta, after);
    ctx.tx.notify(class::STRING, "incrby", key);
    reply.integer(after);
    Ok(())
}

fn incrbyfloat(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let (key, delta) = (args[0], args[1]);
    // To overwrite it is the access.
    let before = ctx.tx.look_string(key)?.unwrap_or(b"0");
    number::parse_f64(before).ok_or(Error::NOT_FLOAT)?;
    number::parse_f64(delta).ok_or(Error::NOT_FLOAT)?;
    let after = number::add_decimal(before, delta).ok_or(Error::NAN_OR_INFINITY)?;
    let deadline = ctx.tx.deadline(key).flatten();
    ctx.tx.set_string(key, after.as_bytes(), deadline);
    ctx.tx.notify(class::STRING, "incrbyfloat", key);
    reply.bulk(after.as_bytes());
    Ok(())
}

fn mget(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.array(args.len());
    for key in args {
        // A key of another type reads as missing here.
        reply.optional_bulk(ctx.tx.string(key).unwrap_or(None));
    }
    Ok(())
}

fn pairs<'a>(args: &'a [&'a [u8]], command: &str) -> Result<std::slice::ChunksExact<'a, &'a [u8]>> {
    if args.len().is_multiple_of(2) { Ok(args.chunks_exact(2)) } else { Err(Error::arity(command)) }
}

/// Keys and values of MSET's arguments. All it does is to make each key this
/// string, one after another, with the event `set`.
///
/// # Errors
/// When a key has no value.
pub fn mset_pairs<'a>(args: &'a [&'a [u8]]) -> Result<std::slice::ChunksExact<'a, &'a [u8]>> {
    pairs(args, "mset")
}

fn mset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    mset_pairs(args)?.try_for_each(|pair| store(ctx.tx, pair[0], pair[1], None))?;
    reply.ok();
    Ok(())
}

fn msetnx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let all_free = pairs(args, "msetnx")?.all(|pair| !ctx.tx.contains(pair[0]));
    if all_free {
        pairs(args, "msetnx")?.try_for_each(|pair| store(ctx.tx, pair[0], pair[1], None))?;
    }
    reply.integer(i64::from(all_free));
    Ok(())
}

/// A common run of bytes, both ends included, in each of the two strings.
struct Match {
    a: (usize, usize),
    b: (usize, usize),
}

fn lcs(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let not_strings = || Error::new("ERR The specified keys must contain string values");
    let a = ctx.tx.string(args[0]).map_err(|_| not_strings())?.unwrap_or_default();
    let b = ctx.tx.string(args[1]).map_err(|_| not_strings())?.unwrap_or_default();
    let (mut len_only, mut indices, mut with_len, mut min_len) = (false, false, false, 0);
    let mut options = Args::new(&args[2..]);
    while !options.is_empty() {
        if options.take_word("idx") {
            indices = true;
        } else if options.take_word("len") {
            len_only = true;
        } else if options.take_word("withmatchlen") {
            with_len = true;
        } else if options.take_word("minmatchlen") {
            min_len = options.next_i64()?.max(0) as usize;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    if len_only && indices {
        return Err(Error::new(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    // The table of the classic algorithm has a cell for every pair of bytes.
    let cells = (a.len() + 1).checked_mul(b.len() + 1);
    if cells.is_none_or(|cells| cells > LCS_CELLS_MAX) {
        return Err(Error::new(format!(
            "ERR Insufficient memory, failed allocating transient memory for LCS: the product of the \
             lengths {} and {} exceeds {LCS_CELLS_MAX}",
            a.len(),
            b.len()
        )));
    }
    let table = LcsTable::new(a, b);
    if len_only {
        reply.count(table.length());
        return Ok(());
    }
    let (common, matches) = table.trace(a, b);
    if !indices {
        reply.bulk(&common);
        return Ok(());
    }
    let matches: Vec<_> = matches.iter().filter(|m| m.a.1 - m.a.0 + 1 >= min_len.max(1)).collect();
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(matches.len());
    for found in matches {
        reply.array(if with_len { 3 } else { 2 });
        for (first, last) in [found.a, found.b] {
            reply.array(2);
            reply.count(first);
            reply.count(last);
        }
        if with_len {
            reply.count(found.a.1 - found.a.0 + 1);
        }
    }
    reply.bulk(b"len");
    reply.count(table.length());
    Ok(())
}

/// Bounds memory (four bytes a cell) and time of one LCS: 1 GiB and seconds.
const LCS_CELLS_MAX: usize = 1 << 28;

/// Lengths of the longest common subsequences of all pairs of prefixes.
struct LcsTable {
    lengths: Vec<u32>,
    columns: usize,
}

impl LcsTable {
    fn new(a: &[u8], b: &[u8]) -> LcsTable {
        let columns = b.len() + 1;
        let mut lengths = vec![0u32; (a.len() + 1) * columns];
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                lengths[(i + 1) * columns + j + 1] = if x == y {
                    lengths[i * columns + j] + 1
                } else {
                    lengths[i * columns + j + 1].max(lengths[(i + 1) * columns + j])
                };
            }
        }
        LcsTable { lengths, columns }
    }

    fn length(&self) -> usize {
        self.lengths.last().map_or(0, |&n| n as usize)
    }

    /// Walks back from the end; matches come out last first, as in Redis.
    fn trace(&self, a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Match>) {
        let (mut i, mut j) = (a.len(), b.len());
        let mut common = Vec::with_capacity(self.length());
        let mut matches: Vec<Match> = Vec::new();
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                common.push(a[i - 1]);
                match matches.last_mut() {
                    Some(run) if run.a.0 == i && run.b.0 == j => {
                        run.a.0 = i - 1;
                        run.b.0 = j - 1;
                    }
                    _ => matches.push(Match { a: (i - 1, i - 1), b: (j - 1, j - 1) }),
                }
                i -= 1;
                j -= 1;
            } else if self.lengths[(i - 1) * self.columns + j]
                > self.lengths[i * self.columns + j - 1]
            {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        common.reverse();
        (common, matches)
    }
}
