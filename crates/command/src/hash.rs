//! Hashes.

use base::{Reply, number};
use keyspace::types::Hash;
use keyspace::{Editor, class};

use crate::args::{Args, integer, random_count};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::flags::{DENYOOM, FAST, READONLY, WRITE};
use crate::keys::{KeySpec, key_flags::*};
use crate::scan;
use crate::spec::{CommandSpec, Family, Group, Known};

type Row = CommandSpec;
type HashEditor<'e, 't> = Editor<'e, 't, Hash>;

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::Hash,
    commands: &[
        Row::data("hdel", -3, WRITE.with(FAST), &[KeySpec::one(1, RW.with(DELETE))], "2.0.0", "key field [field ...]", "Deletes one or more fields and their values from a hash. Deletes the hash if no fields remain.", hdel),
        Row::data("hexists", 3, READONLY.with(FAST), LOOK, "2.0.0", "key field", "Determines whether a field exists in a hash.", hexists).by_element(),
        Row::data("hget", 3, READONLY.with(FAST), READ, "2.0.0", "key field", "Returns the value of a field in a hash.", hget).by_element(),
        Row::data("hgetall", 2, READONLY, READ, "2.0.0", "key", "Returns all fields and values in a hash.", hgetall),
        Row::data("hincrby", 4, WRITE.with(DENYOOM).with(FAST), COUNT, "2.0.0", "key field increment", "Increments the integer value of a field in a hash by a number. Uses 0 as initial value if the field doesn't exist.", hincrby),
        Row::data("hincrbyfloat", 4, WRITE.with(DENYOOM).with(FAST), COUNT, "2.6.0", "key field increment", "Increments the floating point value of a field by a number. Uses 0 as initial value if the field doesn't exist.", hincrbyfloat),
        Row::data("hkeys", 2, READONLY, READ, "2.0.0", "key", "Returns all fields in a hash.", hkeys),
        Row::data("hlen", 2, READONLY.with(FAST), LOOK, "2.0.0", "key", "Returns the number of fields in a hash.", hlen).known(Known::Outline),
        Row::data("hmget", -3, READONLY.with(FAST), READ, "2.0.0", "key field [field ...]", "Returns the values of all fields in a hash.", hmget).by_element(),
        Row::data("hmset", -4, WRITE.with(DENYOOM).with(FAST), SET, "2.0.0", "key field value [field value ...]", "Sets the values of multiple fields.", hmset),
        Row::data("hrandfield", -2, READONLY, READ, "6.2.0", "key [count [WITHVALUES]]", "Returns one or more random fields from a hash.", hrandfield),
        Row::data("hscan", -3, READONLY, READ, "2.8.0", "key cursor [MATCH pattern] [COUNT count]", "Iterates over fields and values of a hash.", hscan),
        Row::data("hset", -4, WRITE.with(DENYOOM).with(FAST), SET, "2.0.0", "key field value [field value ...]", "Creates or modifies the value of a field in a hash.", hset),
        Row::data("hsetnx", 4, WRITE.with(DENYOOM).with(FAST), &[KeySpec::one(1, RW.with(INSERT))], "2.0.0", "key field value", "Sets the value of a field in a hash only when the field doesn't exist.", hsetnx),
        Row::data("hstrlen", 3, READONLY.with(FAST), LOOK, "3.2.0", "key field", "Returns the length of the value of a field.", hstrlen).by_element(),
        Row::data("hvals", 2, READONLY, READ, "2.0.0", "key", "Returns all values in a hash.", hvals),
    ],
};

const LOOK: &[KeySpec] = &[KeySpec::one(1, RO)];
const READ: &[KeySpec] = &[KeySpec::one(1, RO.with(ACCESS))];
const COUNT: &[KeySpec] = &[KeySpec::one(1, RW.with(ACCESS).with(UPDATE))];
const SET: &[KeySpec] = &[KeySpec::one(1, RW.with(UPDATE))];

fn hset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let added = set_fields(ctx, args, "hset")?;
    reply.integer(added);
    Ok(())
}

fn hmset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    set_fields(ctx, args, "hmset")?;
    reply.ok();
    Ok(())
}

fn set_fields(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], command: &str) -> Result<i64> {
    let pairs = &args[1..];
    if !pairs.len().is_multiple_of(2) {
        return Err(Error::arity(command));
    }
    let added = ctx.tx.update_or_create(args[0], |hash: &mut HashEditor<'_, '_>| {
        let added = pairs.chunks_exact(2).map(|pair| i64::from(hash.set(pair[0], pair[1]))).sum();
        hash.notify(class::HASH, "hset");
        added
    })?;
    Ok(added)
}

fn hsetnx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let there = ctx.tx.collection::<Hash>(args[0])?.is_some_and(|hash| hash.get(args[1]).is_some());
    if !there {
        ctx.tx.update_or_create(args[0], |hash: &mut HashEditor<'_, '_>| {
            hash.set(args[1], args[2]);
            hash.notify(class::HASH, "hset");
        })?;
    }
    reply.integer(i64::from(!there));
    Ok(())
}

fn hdel(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let removed = ctx.tx.update(args[0], |hash: &mut HashEditor<'_, '_>| {
        let removed = args[1..].iter().filter(|field| hash.remove(field)).count();
        if removed > 0 {
            hash.notify(class::HASH, "hdel");
        }
        removed
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn field<'a>(ctx: &'a Ctx<'_, '_>, key: &[u8], field: &[u8]) -> Result<Option<&'a [u8]>> {
    Ok(ctx.tx.collection::<Hash>(key)?.and_then(|hash| hash.get(field)))
}

fn hget(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.optional_bulk(field(ctx, args[0], args[1])?);
    Ok(())
}

fn hexists(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.integer(i64::from(field(ctx, args[0], args[1])?.is_some()));
    Ok(())
}

fn hstrlen(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.count(field(ctx, args[0], args[1])?.map_or(0, <[u8]>::len));
    Ok(())
}

fn hmget(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let hash = ctx.tx.collection::<Hash>(args[0])?;
    reply.array(args.len() - 1);
    for field in &args[1..] {
        reply.optional_bulk(hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

fn hlen(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.count(ctx.tx.element_count::<Hash>(args[0])?);
    Ok(())
}

fn hgetall(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let Some(hash) = ctx.tx.collection::<Hash>(args[0])? else {
        reply.map(0);
        return Ok(());
    };
    reply.map(hash.len());
    for (field, value) in hash.iter() {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}

fn hkeys(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    write_all(ctx, args[0], |(field, _)| field, reply)
}

fn hvals(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    write_all(ctx, args[0], |(_, value)| value, reply)
}

/// What of a field and its value a reply shows.
type Choose = for<'a> fn((&'a [u8], &'a [u8])) -> &'a [u8];

fn write_all(ctx: &Ctx<'_, '_>, key: &[u8], choose: Choose, reply: &mut dyn Reply) -> Result {
    let hash = ctx.tx.collection::<Hash>(key)?;
    reply.array(hash.map_or(0, Hash::len));
    hash.into_iter().flat_map(Hash::iter).for_each(|pair| reply.bulk(choose(pair)));
    Ok(())
}

fn hincrby(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let delta = integer(args[2])?;
    let before = match field(ctx, args[0], args[1])? {
        None => 0,
        Some(text) => {
            number::parse_i64(text).ok_or(Error::new("ERR hash value is not an integer"))?
        }
    };
    let after = before.checked_add(delta).ok_or(Error::OVERFLOW)?;
    ctx.tx.update_or_create(args[0], |hash: &mut HashEditor<'_, '_>| {
        hash.add(args[1], delta, after);
        hash.notify(class::HASH, "hincrby");
    })?;
    reply.integer(after);
    Ok(())
}

fn hincrbyfloat(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    if !number::parse_f64(args[2]).ok_or(Error::NOT_FLOAT)?.is_finite() {
        return Err(Error::new("ERR value is NaN or Infinity"));
    }
    let before = field(ctx, args[0], args[1])?.unwrap_or(b"0");
    number::parse_f64(before).ok_or(Error::new("ERR hash value is not a float"))?;
    let after = number::add_decimal(before, args[2]).ok_or(Error::NAN_OR_INFINITY)?;
    ctx.tx.update_or_create(args[0], |hash: &mut HashEditor<'_, '_>| {
        hash.set(args[1], after.as_bytes());
        hash.notify(class::HASH, "hincrbyfloat");
    })?;
    reply.bulk(after.as_bytes());
    Ok(())
}

fn hrandfield(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let hash = ctx.tx.collection::<Hash>(args[0]);
    let (count, with_values) = match &args[1..] {
        [] => {
            reply
                .optional_bulk(hash?.and_then(|hash| hash.random(ctx.rng)).map(|(field, _)| field));
            return Ok(());
        }
        rest => random_count(rest, "withvalues")?,
    };
    let Some(hash) = hash?.filter(|_| count != 0) else {
        reply.array(0);
        return Ok(());
    };
    let mut write = |pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>, len: usize| {
        let nested = with_values && reply.is_resp3();
        reply.array(if with_values && !nested { len * 2 } else { len });
        for (field, value) in pairs {
            if nested {
                reply.array(2);
            }
            reply.bulk(field);
            if with_values {
                reply.bulk(value);
            }
        }
    };
    if count < 0 {
        let len = count.unsigned_abs() as usize;
        let rng = &mut *ctx.rng;
        let mut picks = (0..len).map(|_| hash.random(rng).expect("a hash that exists has a field"));
        write(&mut picks, len);
        return Ok(());
    }
    let len = usize::try_from(count).unwrap_or(usize::MAX).min(hash.len());
    // Selection sampling (Knuth 3.4.2 S): each field is taken with the chance
    // that is left for it, so every choice of `len` fields is equally likely.
    let (mut wanted, mut left) = (len as u64, hash.len() as u64);
    let rng = &mut *ctx.rng;
    let mut picks = hash.iter().filter(|_| {
        let take = wanted > 0 && rng.below(left) < wanted;
        left -= 1;
        wanted -= u64::from(take);
        take
    });
    write(&mut picks, len);
    Ok(())
}

fn hscan(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let cursor = scan::cursor(args[1])?;
    let Some(hash) = ctx.tx.collection::<Hash>(args[0])? else {
        scan::write_end(reply);
        return Ok(());
    };
    let options = scan::Options::parse(Args::new(&args[2..]))?;
    let mut pairs = Vec::new();
    let next = hash.scan(cursor, options.count, &mut |field, value| {
        if options.matches(field) {
            pairs.push((field.to_vec(), value.to_vec()));
        }
    });
    scan::write_page(next, pairs.len() * 2, reply);
    for (field, value) in pairs {
        reply.bulk(&field);
        reply.bulk(&value);
    }
    Ok(())
}
