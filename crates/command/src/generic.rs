//! Commands on keys of any type.

use base::{DbIndex, Reply, glob, number};
use keyspace::{Usage, Value, ValueRef, class, dump};

use crate::args::{Args, integer, is_word};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::flags::{DENYOOM, FAST, Flags, LOADING, READONLY, STALE, WRITE, category};
use crate::keys::{KeySpec, key_flags::*};
use crate::remove;
use crate::scan;
use crate::sort;
use crate::spec::{CommandSpec, Family, Group, Known, ScopeRule};

type Row = CommandSpec;

/// The rows. EXPIRE and its relatives are in `expire.rs`.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::Generic,
    commands: &[
        Row::data("copy", -3, WRITE.with(DENYOOM), &[KeySpec::one(1, RO.with(ACCESS)), KeySpec::one(2, OW.with(UPDATE))], "6.2.0", "source destination [DB destination-db] [REPLACE]", "Copies the value of a key to a new key.", copy),
        Row::data("del", -2, WRITE, REMOVE, "1.0.0", "key [key ...]", "Deletes one or more keys.", del).known(Known::Existence),
        // Alcid's own: what people type.
        Row::data("delete", -2, WRITE, REMOVE, "1.0.0", "key [key ...]", "Deletes one or more keys, as DEL.", del).known(Known::Existence),
        Row::data("dump", 2, READONLY, READ, "2.6.0", "key", "Returns a serialized representation of the value stored at a key.", dump_value),
        Row::data("exists", -2, READONLY.with(FAST), LOOK_ALL, "1.0.0", "key [key ...]", "Determines whether one or more keys exist.", exists).known(Known::Existence),
        Row::data("keys", 2, READONLY, &[], "1.0.0", "pattern", "Returns all key names that match a pattern.", keys).categories(category::DANGEROUS),
        Row::data("move", 3, WRITE.with(FAST), &[KeySpec::one(1, RW.with(ACCESS).with(DELETE))], "1.0.0", "key db", "Moves a key to another database.", move_key),
        Row::container("object", Flags(0), "2.2.3", "A container for object introspection commands.", OBJECT),
        Row::data("randomkey", 1, READONLY, &[], "1.0.0", "", "Returns a random key name from the database.", randomkey),
        Row::container("remove", Flags(0), "alcid 0.1", "A container for commands that remove the keys that have a name in common.", remove::COMMANDS),
        Row::data("rename", 3, WRITE, &[KeySpec::one(1, RW.with(ACCESS).with(DELETE)), KeySpec::one(2, OW.with(UPDATE))], "1.0.0", "key newkey", "Renames a key and overwrites the destination.", rename),
        Row::data("renamenx", 3, WRITE.with(FAST), &[KeySpec::one(1, RW.with(ACCESS).with(DELETE)), KeySpec::one(2, OW.with(INSERT))], "1.0.0", "key newkey", "Renames a key only when the target key name doesn't exist.", renamenx),
        Row::data("restore", -4, WRITE.with(DENYOOM), &[KeySpec::one(1, OW.with(UPDATE))], "2.6.0", "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]", "Creates a key from the serialized representation of a value.", restore).categories(category::DANGEROUS),
        Row::data("scan", -2, READONLY, &[], "2.8.0", "cursor [MATCH pattern] [COUNT count] [TYPE type]", "Iterates over the key names in the database.", scan_keys),
        Row::data("sort", -2, WRITE.with(DENYOOM), sort::KEYS, "1.0.0", "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA] [STORE destination]", "Sorts the elements in a list, a set, or a sorted set, optionally storing the result.", sort::sort).scope(ScopeRule::ByArguments(sort::scope)).categories(category::SET.with(category::SORTED_SET).with(category::LIST).with(category::DANGEROUS)),
        Row::data("sort_ro", -2, READONLY, sort::READ_KEYS, "7.0.0", "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA]", "Returns the sorted elements of a list, a set, or a sorted set.", sort::sort_ro).scope(ScopeRule::ByArguments(sort::scope)).categories(category::SET.with(category::SORTED_SET).with(category::LIST).with(category::DANGEROUS)),
        Row::data("touch", -2, READONLY.with(FAST), LOOK_ALL, "3.2.1", "key [key ...]", "Returns the number of existing keys out of those specified after updating the time they were last accessed.", touch),
        Row::data("type", 2, READONLY.with(FAST), LOOK, "1.0.0", "key", "Determines the type of value stored at a key.", type_of).known(Known::Outline),
        Row::data("unlink", -2, WRITE.with(FAST), REMOVE, "4.0.0", "key [key ...]", "Asynchronously deletes one or more keys.", del).known(Known::Existence),
    ],
};

/// Rows about whole databases, which Redis counts to the server.
#[rustfmt::skip]
pub const DATABASES: Family = Family {
    group: Group::Server,
    commands: &[
        Row::data("dbsize", 1, READONLY.with(FAST), &[], "1.0.0", "", "Returns the number of keys in the database.", dbsize).categories(category::KEYSPACE),
        Row::data("flushall", -1, WRITE, &[], "1.0.0", "[ASYNC | SYNC] [NOUNDO]", "Removes all keys from all databases.", flushall).scope(ScopeRule::All).categories(category::KEYSPACE.with(category::DANGEROUS)),
        Row::data("flushdb", -1, WRITE, &[], "1.0.0", "[ASYNC | SYNC] [NOUNDO]", "Removes all keys from the current database.", flushdb).scope(ScopeRule::All).categories(category::KEYSPACE.with(category::DANGEROUS)),
        Row::data("swapdb", 3, WRITE.with(FAST), &[], "4.0.0", "index1 index2", "Swaps two Redis databases.", swapdb).scope(ScopeRule::All).categories(category::KEYSPACE.with(category::DANGEROUS)),
    ],
};

#[rustfmt::skip]
const OBJECT: &[CommandSpec] = &[
    Row::data("encoding", 3, READONLY, OBJECT_KEY, "2.2.3", "key", "Returns the internal encoding of a key's value.", object_encoding),
    Row::data("freq", 3, READONLY, OBJECT_KEY, "4.0.0", "key", "Returns the logarithmic access frequency counter of a key.", object_freq),
    Row::data("help", 2, LOADING.with(STALE), &[], "6.2.0", "", "Returns helpful text about the different subcommands.", object_help),
    Row::data("idletime", 3, READONLY, OBJECT_KEY, "2.2.3", "key", "Returns the time since the last access to a key.", object_idletime),
    Row::data("refcount", 3, READONLY, OBJECT_KEY, "2.2.3", "key", "Returns the reference count of a value of a key.", object_refcount),
    Row::data("revision", 3, READONLY, OBJECT_KEY, "alcid 0.1", "key", "Returns the revision of a key's last change.", object_revision).known(Known::Outline),
];

const READ: &[KeySpec] = &[KeySpec::one(1, RO.with(ACCESS))];
const LOOK: &[KeySpec] = &[KeySpec::one(1, RO)];
const LOOK_ALL: &[KeySpec] = &[KeySpec::range(1, -1, 1, RO)];
const REMOVE: &[KeySpec] = &[KeySpec::range(1, -1, 1, RM.with(DELETE))];
const OBJECT_KEY: &[KeySpec] = &[KeySpec::one(2, RO)];

fn del(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let mut deleted = 0;
    for key in args {
        if ctx.tx.delete(key) {
            ctx.tx.notify(class::GENERIC, "del", key);
            deleted += 1;
        }
    }
    ctx.tx.check_backing()?;
    reply.integer(deleted);
    Ok(())
}

fn exists(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.count(args.iter().filter(|key| ctx.tx.contains(key)).count());
    Ok(())
}

fn touch(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.count(args.iter().filter(|key| ctx.tx.get(key).is_some()).count());
    Ok(())
}

fn type_of(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.simple(ctx.tx.look(args[0]).map_or("none", ValueRef::type_name));
    Ok(())
}

fn dbsize(ctx: &mut Ctx<'_, '_>, _args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.count(ctx.tx.len());
    Ok(())
}

fn randomkey(ctx: &mut Ctx<'_, '_>, _args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.optional_bulk(ctx.tx.random_key(ctx.rng)?.as_deref());
    Ok(())
}

fn keys(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let everything = args[0] == b"*";
    let mut found = Vec::new();
    ctx.tx.scan(0, usize::MAX, &mut |key, _| {
        if everything || glob::matches(args[0], key) {
            found.push(key.to_vec());
        }
    })?;
    reply.array(found.len());
    found.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

fn scan_keys(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let cursor = scan::cursor(args[0])?;
    // TYPE is SCAN's alone; the rest is as for collections.
    let mut wanted: Option<String> = None;
    let mut rest: Vec<&[u8]> = Vec::new();
    let mut options = Args::new(&args[1..]);
    while !options.is_empty() {
        if options.len() >= 2 && options.take_word("type") {
            wanted = Some(String::from_utf8_lossy(options.next()?).to_ascii_lowercase());
        } else {
            rest.push(options.next()?);
            rest.extend(options.take(1).unwrap_or_default());
        }
    }
    let options = scan::Options::parse(Args::new(&rest))?;
    let mut found = Vec::new();
    let next = ctx.tx.scan(cursor, options.count, &mut |key, seen| {
        let fits = wanted.as_deref().is_none_or(|name| name == seen.type_name());
        if fits && options.matches(key) {
            found.push(key.to_vec());
        }
    })?;
    scan::write_page(next, found.len(), reply);
    found.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

fn rename(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    move_name(ctx, args[0], args[1])?;
    reply.ok();
    Ok(())
}

fn renamenx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    if !ctx.tx.contains(args[0]) {
        return Err(Error::NO_SUCH_KEY);
    }
    let is_free = !ctx.tx.contains(args[1]);
    if is_free {
        move_name(ctx, args[0], args[1])?;
    }
    reply.integer(i64::from(is_free));
    Ok(())
}

fn move_name(ctx: &mut Ctx<'_, '_>, from: &[u8], to: &[u8]) -> Result {
    let db = ctx.tx.db();
    if !ctx.tx.contains(from) {
        return Err(Error::NO_SUCH_KEY);
    }
    if from != to {
        ctx.tx.rename(from, db, to);
        ctx.tx.notify(class::GENERIC, "rename_from", from);
        ctx.tx.notify(class::GENERIC, "rename_to", to);
    }
    Ok(())
}

fn database(ctx: &Ctx<'_, '_>, arg: &[u8], error: Error) -> Result<DbIndex> {
    let db = number::parse_i64(arg).ok_or(error)?;
    let db = DbIndex::try_from(db).ok().filter(|&db| db < ctx.tx.databases());
    db.ok_or(Error::DB_OUT_OF_RANGE)
}

fn move_key(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let to = database(ctx, args[1], Error::NOT_INTEGER)?;
    let home = ctx.tx.db();
    if to == home {
        return Err(Error::SAME_OBJECT);
    }
    ctx.tx.load_first(to, args[0]);
    ctx.tx.check_backing()?;
    let is_free = ctx.tx.get_in(to, args[0]).is_none();
    let moved = is_free && ctx.tx.rename(args[0], to, args[0]);
    if moved {
        ctx.tx.notify(class::GENERIC, "move_from", args[0]);
        ctx.tx.select(to);
        ctx.tx.notify(class::GENERIC, "move_to", args[0]);
        ctx.tx.select(home);
    }
    reply.integer(i64::from(moved));
    Ok(())
}

fn copy(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let home = ctx.tx.db();
    let (mut to, mut replace) = (home, false);
    let mut options = Args::new(&args[2..]);
    while !options.is_empty() {
        if options.take_word("replace") {
            replace = true;
        } else if options.len() >= 2 && options.take_word("db") {
            to = database(ctx, options.next()?, Error::NOT_INTEGER)?;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let (from, target) = (args[0], args[1]);
    if to == home && from == target {
        return Err(Error::SAME_OBJECT);
    }
    ctx.tx.load_first(to, target);
    ctx.tx.check_backing()?;
    let occupied = ctx.tx.get_in(to, target).is_some();
    let source = ctx.tx.get(from).map(ValueRef::to_value);
    let Some(value) = source.filter(|_| replace || !occupied) else {
        reply.integer(0);
        return Ok(());
    };
    let deadline = ctx.tx.deadline(from).flatten();
    ctx.tx.select(to);
    ctx.tx.put(target, value, deadline);
    ctx.tx.notify(class::GENERIC, "copy_to", target);
    ctx.tx.select(home);
    reply.integer(1);
    Ok(())
}

/// Reads how to flush; answers whether it is for good.
fn is_for_good(args: &[&[u8]]) -> Result<bool> {
    let is_how = |word: &[u8]| is_word(word, "async") || is_word(word, "sync");
    match args {
        [] => Ok(false),
        [word] if is_how(word) => Ok(false),
        [word] if is_word(word, "noundo") => Ok(true),
        [how, word] if is_how(how) && is_word(word, "noundo") => Ok(true),
        _ => Err(Error::SYNTAX),
    }
}

fn flushdb(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let db = ctx.tx.db();
    if is_for_good(args)? {
        ctx.tx.flush(db)
    } else {
        ctx.tx.flush_undoably(db)
    }
    reply.ok();
    Ok(())
}

fn flushall(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    ctx.tx.flush_all(is_for_good(args)?);
    reply.ok();
    Ok(())
}

fn swapdb(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let first = database(ctx, args[0], Error::new("ERR invalid first DB index"))?;
    let second = database(ctx, args[1], Error::new("ERR invalid second DB index"))?;
    ctx.tx.swap(first, second);
    reply.ok();
    Ok(())
}

fn dump_value(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let payload = ctx.tx.get(args[0]).map(dump::encode);
    reply.optional_bulk(payload.as_deref());
    Ok(())
}

fn restore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let (mut replace, mut absolute, mut usage) = (false, false, None);
    let mut options = Args::new(&args[3..]);
    while !options.is_empty() {
        if options.take_word("replace") {
            replace = true;
        } else if options.take_word("absttl") {
            absolute = true;
        } else if options.len() >= 2 && options.take_word("idletime") {
            let seconds = options.next_i64()?;
            if seconds < 0 {
                return Err(Error::new("ERR Invalid IDLETIME value, must be >= 0"));
            }
            usage = Some(Usage::IdleSeconds(u32::try_from(seconds).unwrap_or(u32::MAX)));
        } else if options.len() >= 2 && options.take_word("freq") {
            let Ok(counter) = u8::try_from(options.next_i64()?) else {
                return Err(Error::new("ERR Invalid FREQ value, must be >= 0 and <= 255"));
            };
            usage = Some(Usage::Frequency(counter));
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let key = args[0];
    if !replace && ctx.tx.contains(key) {
        return Err(Error::BUSY_KEY);
    }
    let ttl = integer(args[1])?;
    if ttl < 0 {
        return Err(Error::new("ERR Invalid TTL value, must be >= 0"));
    }
    let value: Value = dump::decode(args[2], ctx.tx.seed(), ctx.tx.limits())
        .map_err(|error| Error::new(format!("ERR {}", error.redis_message())))?;
    let now_ms = ctx.tx.now_ms();
    let deadline = match (ttl, absolute) {
        (0, _) => None,
        (ttl, true) => Some(ttl as u64),
        (ttl, false) => Some(now_ms.saturating_add(ttl as u64)),
    };
    if deadline.is_some_and(|at| at <= now_ms) {
        // It would be gone at once.
        if ctx.tx.delete(key) {
            ctx.tx.notify(class::GENERIC, "del", key);
        }
    } else {
        ctx.tx.put(key, value, deadline);
        usage.into_iter().for_each(|usage| ctx.tx.note_usage(key, usage));
        ctx.tx.notify(class::GENERIC, "restore", key);
    }
    reply.ok();
    Ok(())
}

fn object_encoding(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let Some(info) = ctx.tx.info(args[0]) else {
        reply.null();
        return Ok(());
    };
    let value = ctx.tx.look(args[0]).ok_or(Error::NO_SUCH_KEY)?;
    reply.bulk(crate::object::encoding_of(value, info.is_raw, ctx.tx.limits()).as_bytes());
    Ok(())
}

fn object_refcount(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    // Redis shares the objects of these numbers, and tests look for it.
    let is_shared =
        |value: &[u8]| number::parse_i64(value).is_some_and(|n| (0..10_000).contains(&n));
    match ctx.tx.look(args[0]) {
        Some(ValueRef::Str(value)) if is_shared(value) => reply.integer(i64::from(i32::MAX)),
        Some(_) => reply.integer(1),
        None => reply.null(),
    }
    Ok(())
}

fn object_revision(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    match ctx.tx.info(args[0]) {
        Some(info) => reply.integer(i64::try_from(info.last_change().0).unwrap_or(i64::MAX)),
        None => reply.null(),
    }
    Ok(())
}

fn object_idletime(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    match ctx.tx.info(args[0]).map(|info| info.usage) {
        Some(Usage::IdleSeconds(seconds)) => reply.integer(i64::from(seconds)),
        Some(Usage::Frequency(_)) => {
            return Err(Error::new(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching \
                 between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        None => reply.null(),
    }
    Ok(())
}

fn object_freq(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    match ctx.tx.info(args[0]).map(|info| info.usage) {
        Some(Usage::Frequency(counter)) => reply.integer(i64::from(counter)),
        Some(Usage::IdleSeconds(_)) => {
            return Err(Error::new(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
        None => reply.null(),
    }
    Ok(())
}

fn object_help(_ctx: &mut Ctx<'_, '_>, _args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let lines = [
        "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ENCODING <key>",
        "    Return the kind of internal representation used in order to store the value",
        "    associated with a <key>.",
        "FREQ <key>",
        "    Return the access frequency index of the <key>. The returned integer is",
        "    proportional to the logarithm of the recent access frequency of the key.",
        "IDLETIME <key>",
        "    Return the idle time of the <key>, that is the approximated number of",
        "    seconds elapsed since the last access to the key.",
        "REFCOUNT <key>",
        "    Return the number of references of the value associated with the specified",
        "    <key>.",
        "REVISION <key>",
        "    Return the revision of the last change of the <key>.",
        "HELP",
        "    Print this help.",
    ];
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
    Ok(())
}
