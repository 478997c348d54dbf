//! Deadlines: EXPIRE and its relatives.

use base::Reply;
use keyspace::class;

use crate::args::{Args, integer};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::flags::{FAST, READONLY, WRITE};
use crate::keys::{KeySpec, key_flags::*};
use crate::spec::{CommandSpec, Family, Group, Known};

type Row = CommandSpec;

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::Generic,
    commands: &[
        Row::data("expire", -3, WRITE.with(FAST), CHANGE, "1.0.0", "key seconds [NX | XX | GT | LT]", "Sets the expiration time of a key in seconds.", |ctx, args, reply| expire(ctx, args, reply, Unit { seconds: true, absolute: false }, "expire")),
        Row::data("expireat", -3, WRITE.with(FAST), CHANGE, "1.2.0", "key unix-time-seconds [NX | XX | GT | LT]", "Sets the expiration time of a key to a Unix timestamp.", |ctx, args, reply| expire(ctx, args, reply, Unit { seconds: true, absolute: true }, "expireat")),
        Row::data("expiretime", 2, READONLY.with(FAST), LOOK, "7.0.0", "key", "Returns the expiration time of a key as a Unix timestamp.", |ctx, args, reply| remaining(ctx, args, reply, Unit { seconds: true, absolute: true })).known(Known::Outline),
        Row::data("persist", 2, WRITE.with(FAST), CHANGE, "2.2.0", "key", "Removes the expiration time of a key.", persist),
        Row::data("pexpire", -3, WRITE.with(FAST), CHANGE, "2.6.0", "key milliseconds [NX | XX | GT | LT]", "Sets the expiration time of a key in milliseconds.", |ctx, args, reply| expire(ctx, args, reply, Unit { seconds: false, absolute: false }, "pexpire")),
        Row::data("pexpireat", -3, WRITE.with(FAST), CHANGE, "2.6.0", "key unix-time-milliseconds [NX | XX | GT | LT]", "Sets the expiration time of a key to a Unix milliseconds timestamp.", |ctx, args, reply| expire(ctx, args, reply, Unit { seconds: false, absolute: true }, "pexpireat")),
        Row::data("pexpiretime", 2, READONLY.with(FAST), LOOK, "7.0.0", "key", "Returns the expiration time of a key as a Unix milliseconds timestamp.", |ctx, args, reply| remaining(ctx, args, reply, Unit { seconds: false, absolute: true })).known(Known::Outline),
        Row::data("pttl", 2, READONLY.with(FAST), LOOK, "2.6.0", "key", "Returns the expiration time in milliseconds of a key.", |ctx, args, reply| remaining(ctx, args, reply, Unit { seconds: false, absolute: false })).known(Known::Outline),
        Row::data("ttl", 2, READONLY.with(FAST), LOOK, "1.0.0", "key", "Returns the expiration time in seconds of a key.", |ctx, args, reply| remaining(ctx, args, reply, Unit { seconds: true, absolute: false })).known(Known::Outline),
    ],
};

const CHANGE: &[KeySpec] = &[KeySpec::one(1, RW.with(UPDATE))];
const LOOK: &[KeySpec] = &[KeySpec::one(1, RO.with(ACCESS))];

/// How a command counts time.
#[derive(Clone, Copy)]
struct Unit {
    seconds: bool,
    absolute: bool,
}

/// The deadline, in milliseconds since 1970, that a command's argument names.
///
/// # Errors
/// `ERR invalid expire time in 'x' command` when it leaves the range of times,
/// or, with `must_be_positive`, when the argument is zero or below.
pub(crate) fn deadline_from(
    value: i64,
    seconds: bool,
    absolute: bool,
    now_ms: u64,
    must_be_positive: bool,
    command: &str,
) -> Result<u64> {
    let invalid = || Error::invalid_expire(command);
    if must_be_positive && value <= 0 {
        return Err(invalid());
    }
    let ms = if seconds { value.checked_mul(1000).ok_or_else(invalid)? } else { value };
    let base_ms = if absolute { 0 } else { now_ms as i64 };
    let at = base_ms.checked_add(ms).ok_or_else(invalid)?;
    // A time before 1970 has passed like any other in the past.
    Ok(at.max(0) as u64)
}

/// NX, XX, GT and LT.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: &[&[u8]]) -> Result<Conditions> {
        let mut conditions = Conditions::default();
        let mut args = Args::new(args);
        while !args.is_empty() {
            if args.take_word("nx") {
                conditions.nx = true;
            } else if args.take_word("xx") {
                conditions.xx = true;
            } else if args.take_word("gt") {
                conditions.gt = true;
            } else if args.take_word("lt") {
                conditions.lt = true;
            } else {
                let word = String::from_utf8_lossy(args.next()?).into_owned();
                return Err(Error::new(format!("ERR Unsupported option {word}")));
            }
        }
        if conditions.nx && (conditions.xx || conditions.gt || conditions.lt) {
            return Err(Error::new(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if conditions.gt && conditions.lt {
            return Err(Error::new("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether the deadline may go from `current` to `at`. No deadline counts
    /// as infinitely late.
    fn allow(&self, current: Option<u64>, at: u64) -> bool {
        let refused = (self.nx && current.is_some())
            || (self.xx && current.is_none())
            || (self.gt && current.is_none_or(|current| at <= current))
            || (self.lt && current.is_some_and(|current| at >= current));
        !refused
    }
}

fn expire(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
    unit: Unit,
    command: &str,
) -> Result {
    let key = args[0];
    let conditions = Conditions::parse(&args[2..])?;
    let now_ms = ctx.tx.now_ms();
    let at = deadline_from(integer(args[1])?, unit.seconds, unit.absolute, now_ms, false, command)?;
    if !ctx.tx.deadline(key).is_some_and(|current| conditions.allow(current, at)) {
        reply.integer(0);
        return Ok(());
    }
    if at <= now_ms {
        ctx.tx.delete(key);
        ctx.tx.notify(class::GENERIC, "del", key);
    } else {
        ctx.tx.set_deadline(key, Some(at));
        ctx.tx.notify(class::GENERIC, "expire", key);
    }
    reply.integer(1);
    Ok(())
}

fn persist(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let had_one = ctx.tx.deadline(args[0]).flatten().is_some();
    if had_one {
        ctx.tx.set_deadline(args[0], None);
        ctx.tx.notify(class::GENERIC, "persist", args[0]);
    }
    reply.integer(i64::from(had_one));
    Ok(())
}

/// -2: no key; -1: no deadline.
fn remaining(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply, unit: Unit) -> Result {
    let value = match ctx.tx.info(args[0]).map(|info| info.deadline) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => {
            let ms = if unit.absolute { at } else { at.saturating_sub(ctx.tx.now_ms()) };
            let value = if unit.seconds { ms.saturating_add(500) / 1000 } else { ms };
            i64::try_from(value).unwrap_or(i64::MAX)
        }
    };
    reply.integer(value);
    Ok(())
}
