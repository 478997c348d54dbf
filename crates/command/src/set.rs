//! Sets.

use std::collections::BTreeSet;

use base::Reply;
use keyspace::types::{Member, Set};
use keyspace::{Editor, Txn, Value, class};
use smallvec::SmallVec;

use crate::args::{Args, at_least, integer};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::flags::{DENYOOM, FAST, Flags, READONLY, WRITE};
use crate::keys::{KeySpec, key_flags::*};
use crate::scan;
use crate::spec::{CommandSpec, Family, Group, Known};

type Row = CommandSpec;

/// The rows.
pub const FAMILY: Family = Family {
    group: Group::Set,
    commands: &[
        Row::data(
            "sadd",
            -3,
            WRITE.with(DENYOOM).with(FAST),
            INSERT_ONE,
            "1.0.0",
            "key member [member ...]",
            "Adds one or more members to a set. Creates the key if it doesn't exist.",
            sadd,
        ),
        Row::data(
            "scard",
            2,
            READONLY.with(FAST),
            &[KeySpec::one(1, RO)],
            "1.0.0",
            "key",
            "Returns the number of members in a set.",
            scard,
        )
        .known(Known::Outline),
        Row::data(
            "sdiff",
            -2,
            READONLY,
            READ_ALL,
            "1.0.0",
            "key [key ...]",
            "Returns the difference of multiple sets.",
            sdiff,
        ),
        Row::data(
            "sdiffstore",
            -3,
            WRITE.with(DENYOOM),
            STORE,
            "1.0.0",
            "destination key [key ...]",
            "Stores the difference of multiple sets in a key.",
            sdiffstore,
        ),
        Row::data(
            "sinter",
            -2,
            READONLY,
            READ_ALL,
            "1.0.0",
            "key [key ...]",
            "Returns the intersect of multiple sets.",
            sinter,
        ),
        Row::data(
            "sintercard",
            -3,
            READONLY,
            &[KeySpec::counted(1, RO.with(ACCESS))],
            "7.0.0",
            "numkeys key [key ...] [LIMIT limit]",
            "Returns the number of members of the intersect of multiple sets.",
            sintercard,
        ),
        Row::data(
            "sinterstore",
            -3,
            WRITE.with(DENYOOM),
            &[KeySpec::one(1, RW.with(UPDATE)), KeySpec::range(2, -1, 1, RO.with(ACCESS))],
            "1.0.0",
            "destination key [key ...]",
            "Stores the intersect of multiple sets in a key.",
            sinterstore,
        ),
        Row::data(
            "sismember",
            3,
            READONLY.with(FAST),
            &[KeySpec::one(1, RO)],
            "1.0.0",
            "key member",
            "Determines whether a member belongs to a set.",
            sismember,
        )
        .by_element(),
        Row::data(
            "smembers",
            2,
            READONLY,
            READ_ONE,
            "1.0.0",
            "key",
            "Returns all members of a set.",
            smembers,
        ),
        Row::data(
            "smismember",
            -3,
            READONLY.with(FAST),
            READ_ONE,
            "6.2.0",
            "key member [member ...]",
            "Determines whether multiple members belong to a set.",
            smismember,
        )
        .by_element(),
        Row::data(
            "smove",
            4,
            WRITE.with(FAST),
            &[KeySpec::one(1, POP), KeySpec::one(2, RW.with(INSERT))],
            "1.0.0",
            "source destination member",
            "Moves a member from one set to another.",
            smove,
        ),
        Row::data(
            "spop",
            -2,
            WRITE.with(FAST),
            &[KeySpec::one(1, POP)],
            "1.0.0",
            "key [count]",
            "Returns one or more random members from a set after removing them. Deletes the set if the last member was popped.",
            spop,
        ),
        Row::data(
            "srandmember",
            -2,
            READONLY,
            READ_ONE,
            "1.0.0",
            "key [count]",
            "Get one or multiple random members from a set.",
            srandmember,
        ),
        Row::data(
            "srem",
            -3,
            WRITE.with(FAST),
            &[KeySpec::one(1, RW.with(DELETE))],
            "1.0.0",
            "key member [member ...]",
            "Removes one or more members from a set. Deletes the set if the last member was removed.",
            srem,
        ),
        Row::data(
            "sscan",
            -3,
            READONLY,
            READ_ONE,
            "2.8.0",
            "key cursor [MATCH pattern] [COUNT count]",
            "Iterates over members of a set.",
            sscan,
        ),
        Row::data(
            "sunion",
            -2,
            READONLY,
            READ_ALL,
            "1.0.0",
            "key [key ...]",
            "Returns the union of multiple sets.",
            sunion,
        ),
        Row::data(
            "sunionstore",
            -3,
            WRITE.with(DENYOOM),
            STORE,
            "1.0.0",
            "destination key [key ...]",
            "Stores the union of multiple sets in a key.",
            sunionstore,
        ),
    ],
};

const POP: Flags = RW.with(ACCESS).with(DELETE);
const READ_ONE: &[KeySpec] = &[KeySpec::one(1, RO.with(ACCESS))];
const READ_ALL: &[KeySpec] = &[KeySpec::range(1, -1, 1, RO.with(ACCESS))];
const INSERT_ONE: &[KeySpec] = &[KeySpec::one(1, RW.with(INSERT))];
const STORE: &[KeySpec] =
    &[KeySpec::one(1, OW.with(UPDATE)), KeySpec::range(2, -1, 1, RO.with(ACCESS))];

type SetEditor<'e, 't> = Editor<'e, 't, Set>;

// ---- members ----

fn sadd(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let added = ctx.tx.update_or_create(args[0], |set: &mut SetEditor<'_, '_>| {
        let added = args[1..].iter().filter(|member| set.add(member)).count();
        if added > 0 {
            set.notify(class::SET, "sadd");
        }
        added
    })?;
    reply.count(added);
    Ok(())
}

fn srem(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let removed = ctx.tx.update(args[0], |set: &mut SetEditor<'_, '_>| {
        let removed = args[1..].iter().filter(|member| set.remove(member)).count();
        if removed > 0 {
            set.notify(class::SET, "srem");
        }
        removed
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn smove(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let (source, destination, member) = (args[0], args[1], args[2]);
    let Some(set) = ctx.tx.collection::<Set>(source)? else {
        reply.integer(0);
        return Ok(());
    };
    let is_member = set.contains(member);
    ctx.tx.collection::<Set>(destination)?;
    if is_member && source != destination {
        ctx.tx.update(source, |set: &mut SetEditor<'_, '_>| {
            set.remove(member);
            set.notify(class::SET, "srem");
        })?;
        ctx.tx.update_or_create(destination, |set: &mut SetEditor<'_, '_>| {
            if set.add(member) {
                set.notify(class::SET, "sadd");
            }
        })?;
    }
    reply.integer(i64::from(is_member));
    Ok(())
}

fn scard(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.count(ctx.tx.element_count::<Set>(args[0])?);
    Ok(())
}

fn sismember(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let set = ctx.tx.collection::<Set>(args[0])?;
    reply.integer(i64::from(set.is_some_and(|set| set.contains(args[1]))));
    Ok(())
}

fn smismember(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let set = ctx.tx.collection::<Set>(args[0])?;
    reply.array(args.len() - 1);
    for member in &args[1..] {
        reply.integer(i64::from(set.is_some_and(|set| set.contains(member))));
    }
    Ok(())
}

fn smembers(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    match ctx.tx.collection::<Set>(args[0])? {
        None => reply.set(0),
        Some(set) => write_members(set, reply),
    }
    Ok(())
}

fn write_members(set: &Set, reply: &mut dyn Reply) {
    reply.set(set.len());
    set.iter().for_each(|member| reply.bulk(&member));
}

fn sscan(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let cursor = scan::cursor(args[1])?;
    let Some(set) = ctx.tx.collection::<Set>(args[0])? else {
        scan::write_end(reply);
        return Ok(());
    };
    let options = scan::Options::parse(Args::new(&args[2..]))?;
    let mut members = Vec::new();
    let next = set.scan(cursor, options.count, &mut |member| {
        if options.matches(member) {
            members.push(member.to_vec());
        }
    });
    scan::write_page(next, members.len(), reply);
    members.iter().for_each(|member| reply.bulk(member));
    Ok(())
}

// ---- random members ----

fn spop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    match args {
        [key] => spop_one(ctx, key, reply),
        [key, count] => {
            let count = at_least(0, count, Error::MUST_BE_POSITIVE)?;
            spop_many(ctx, key, count, reply)
        }
        _ => Err(Error::SYNTAX),
    }
}

fn spop_one(ctx: &mut Ctx<'_, '_>, key: &[u8], reply: &mut dyn Reply) -> Result {
    let rng = &mut *ctx.rng;
    let popped = ctx.tx.update(key, |set: &mut SetEditor<'_, '_>| {
        let member = set.random(rng)?.to_vec();
        set.remove(&member);
        set.notify(class::SET, "spop");
        Some(member)
    })?;
    reply.optional_bulk(popped.flatten().as_deref());
    Ok(())
}

fn spop_many(ctx: &mut Ctx<'_, '_>, key: &[u8], count: usize, reply: &mut dyn Reply) -> Result {
    let Some(set) = ctx.tx.collection::<Set>(key)? else {
        reply.set(0);
        return Ok(());
    };
    if count == 0 {
        reply.set(0);
        return Ok(());
    }
    if count >= set.len() {
        write_members(set, reply);
        ctx.tx.notify(class::SET, "spop", key);
        delete(ctx.tx, key);
        return Ok(());
    }
    let rng = &mut *ctx.rng;
    reply.set(count);
    ctx.tx.update(key, |set: &mut SetEditor<'_, '_>| {
        set.notify(class::SET, "spop");
        for _ in 0..count {
            let member = set.random(rng).expect("fewer are popped than there are").to_vec();
            set.remove(&member);
            reply.bulk(&member);
        }
    })?;
    Ok(())
}

/// How many members SRANDMEMBER repeats at most. Redis has no bound here and
/// lets the output buffer's limit end the connection; a reply is built whole
/// here, so a wrong count must not exhaust memory.
const REPEATS_MAX: i64 = 1 << 24;

fn srandmember(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let count = match args {
        [_] => None,
        [_, count] => Some(integer(count)?),
        _ => return Err(Error::SYNTAX),
    };
    match count {
        Some(i64::MIN) => return Err(Error::not_between(-i64::MAX, i64::MAX)),
        Some(count) if count < -REPEATS_MAX => {
            return Err(Error::not_between(-REPEATS_MAX, i64::MAX));
        }
        _ => {}
    }
    match (ctx.tx.collection::<Set>(args[0])?, count) {
        (None, None) => reply.null(),
        (None, Some(_)) | (_, Some(0)) => reply.array(0),
        (Some(set), None) => write_random(set, ctx.rng, reply),
        (Some(set), Some(count)) if count < 0 => {
            reply.array(count.unsigned_abs() as usize);
            (0..count.unsigned_abs()).for_each(|_| write_random(set, ctx.rng, reply));
        }
        (Some(set), Some(count)) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(set.len());
            reply.array(count);
            write_distinct(set, count, ctx.rng, reply);
        }
    }
    Ok(())
}

fn write_random(set: &Set, rng: &mut dyn base::Rng, reply: &mut dyn Reply) {
    let member = set.random(rng).expect("a set that exists has members");
    reply.bulk(&member);
}

/// Writes `count` different members, of `set.len()` at most.
fn write_distinct(set: &Set, count: usize, rng: &mut dyn base::Rng, reply: &mut dyn Reply) {
    if count == set.len() {
        set.iter().for_each(|member| reply.bulk(&member));
    } else if count < set.len() / 3 {
        // Few of many: what comes twice is drawn again.
        let mut seen = BTreeSet::new();
        while seen.len() < count {
            let member = set.random(rng).expect("a set that exists has members");
            if !seen.contains(&*member) {
                reply.bulk(&member);
                seen.insert(member.to_vec());
            }
        }
    } else {
        // Many of few: the first part of a shuffle (Fisher and Yates).
        let mut members: Vec<_> = set.iter().collect();
        for place in 0..count {
            let left = (members.len() - place) as u64;
            members.swap(place, place + rng.below(left) as usize);
            reply.bulk(&members[place]);
        }
    }
}

// ---- several sets ----

/// The sets at some keys; a key that does not exist is an empty set.
type Sets<'a> = SmallVec<[Option<&'a Set>; 4]>;

fn sets_at<'a>(tx: &'a Txn<'_>, keys: &[&[u8]]) -> Result<Sets<'a>> {
    keys.iter().map(|key| Ok(tx.collection::<Set>(key)?)).collect()
}

/// The members of the smallest set that are in all others too.
fn intersection<'a>(sets: &Sets<'a>) -> impl Iterator<Item = Member<'a>> + use<'a> {
    let is_empty = sets.iter().any(Option::is_none);
    let mut sets: SmallVec<[&Set; 4]> = sets.iter().flatten().copied().collect();
    if is_empty {
        sets.clear();
    }
    // The smaller, the likelier it lacks a member and ends the test.
    sets.sort_by_key(|set| set.len());
    let smallest = sets.first().copied();
    let members = smallest.into_iter().flat_map(Set::iter);
    members.filter(move |member| sets[1..].iter().all(|set| set.contains(member)))
}

fn union(sets: &Sets<'_>, tx: &Txn<'_>) -> Set {
    let mut all = Set::new(tx.seed());
    for set in sets.iter().flatten() {
        set.iter().for_each(|member| {
            all.add(&member, tx.limits());
        });
    }
    all
}

/// The members of the first set that are in no other.
fn difference(sets: &Sets<'_>, tx: &Txn<'_>) -> Set {
    let Some((Some(first), others)) = sets.split_first() else { return Set::new(tx.seed()) };
    let mut others: SmallVec<[&Set; 4]> = others.iter().flatten().copied().collect();
    // Two ways: to ask all other sets about each member of the first, or to
    // remove all their members from a copy of it. The first way asks less than
    // its worst case, hence the half.
    let asking = first.len() * (others.len() + 1) / 2;
    let removing = first.len() + others.iter().map(|set| set.len()).sum::<usize>();
    if asking <= removing {
        // The larger, the likelier it has a member and ends the test.
        others.sort_by_key(|set| std::cmp::Reverse(set.len()));
        let mut rest = Set::new(tx.seed());
        for member in first.iter() {
            if !others.iter().any(|set| set.contains(&member)) {
                rest.add(&member, tx.limits());
            }
        }
        return rest;
    }
    let mut rest = (*first).clone();
    for set in others {
        set.iter().for_each(|member| {
            rest.remove(&member);
        });
        if rest.is_empty() {
            break;
        }
    }
    rest
}

fn sinter(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let members: Vec<_> = intersection(&sets_at(ctx.tx, args)?).collect();
    reply.set(members.len());
    members.iter().for_each(|member| reply.bulk(member));
    Ok(())
}

fn sunion(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    write_members(&union(&sets_at(ctx.tx, args)?, ctx.tx), reply);
    Ok(())
}

fn sdiff(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    write_members(&difference(&sets_at(ctx.tx, args)?, ctx.tx), reply);
    Ok(())
}

fn sintercard(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let mut args = Args::new(args);
    let numkeys = at_least(1, args.next()?, Error::NUMKEYS_NOT_POSITIVE)?;
    if numkeys > args.len() {
        return Err(Error::new("ERR Number of keys can't be greater than number of args"));
    }
    let keys = args.take(numkeys)?;
    let mut limit = 0;
    while !args.is_empty() {
        if args.len() < 2 || !args.take_word("limit") {
            return Err(Error::SYNTAX);
        }
        limit = at_least(0, args.next()?, Error::new("ERR LIMIT can't be negative"))?;
    }
    let limit = if limit == 0 { usize::MAX } else { limit };
    reply.count(intersection(&sets_at(ctx.tx, keys)?).take(limit).count());
    Ok(())
}

fn sinterstore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let mut result = Set::new(ctx.tx.seed());
    for member in intersection(&sets_at(ctx.tx, &args[1..])?) {
        result.add(&member, ctx.tx.limits());
    }
    store(ctx.tx, args[0], result, "sinterstore", reply);
    Ok(())
}

fn sunionstore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let result = union(&sets_at(ctx.tx, &args[1..])?, ctx.tx);
    store(ctx.tx, args[0], result, "sunionstore", reply);
    Ok(())
}

fn sdiffstore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let result = difference(&sets_at(ctx.tx, &args[1..])?, ctx.tx);
    store(ctx.tx, args[0], result, "sdiffstore", reply);
    Ok(())
}

/// Makes `key` the set, or removes it for an empty one; answers the size.
fn store(tx: &mut Txn<'_>, key: &[u8], set: Set, event: &'static str, reply: &mut dyn Reply) {
    let len = set.len();
    if len == 0 {
        delete(tx, key);
    } else {
        tx.put(key, Value::Set(set), None);
        tx.notify(class::SET, event, key);
    }
    reply.count(len);
}

fn delete(tx: &mut Txn<'_>, key: &[u8]) {
    if tx.delete(key) {
        tx.notify(class::GENERIC, "del", key);
    }
}
