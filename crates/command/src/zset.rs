//! Sorted sets.

mod combine;
mod pop;
mod range;

use base::Reply;
use keyspace::types::Zset;
use keyspace::{Editor, class};

use crate::args::{Args, float, is_word, random_count};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::flags::{BLOCKING, DENYOOM, FAST, NOSCRIPT, READONLY, WRITE};
use crate::keys::{KeySpec, key_flags::*};
use crate::scan;
use crate::spec::{CommandSpec, Family, Group, Known};

type Row = CommandSpec;
type ZsetEditor<'e, 't> = Editor<'e, 't, Zset>;

/// The rows.
#[rustfmt::skip]
pub const FAMILY: Family = Family {
    group: Group::SortedSet,
    commands: &[
        Row::data("bzmpop", -5, WRITE.with(BLOCKING), &[KeySpec::counted(2, POP_FLAGS)], "7.0.0", "timeout numkeys key [key ...] <MIN | MAX> [COUNT count]", "Removes and returns a member by score from one or more sorted sets. Blocks until a member is available otherwise. Deletes the sorted set if the last element was popped.", pop::bzmpop),
        Row::data("bzpopmax", -3, WRITE.with(FAST).with(BLOCKING).with(NOSCRIPT), &[KeySpec::range(1, -2, 1, POP_FLAGS)], "5.0.0", "key [key ...] timeout", "Removes and returns the member with the highest score from one or more sorted sets. Blocks until a member available otherwise. Deletes the sorted set if the last element was popped.", pop::bzpopmax),
        Row::data("bzpopmin", -3, WRITE.with(FAST).with(BLOCKING).with(NOSCRIPT), &[KeySpec::range(1, -2, 1, POP_FLAGS)], "5.0.0", "key [key ...] timeout", "Removes and returns the member with the lowest score from one or more sorted sets. Blocks until a member is available otherwise. Deletes the sorted set if the last element was popped.", pop::bzpopmin),
        Row::data("zadd", -4, WRITE.with(DENYOOM).with(FAST), &[KeySpec::one(1, RW.with(UPDATE))], "1.2.0", "key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]", "Adds one or more members to a sorted set, or updates their scores. Creates the key if it doesn't exist.", zadd),
        Row::data("zcard", 2, READONLY.with(FAST), LOOK, "1.2.0", "key", "Returns the number of members in a sorted set.", zcard).known(Known::Outline),
        Row::data("zcount", 4, READONLY.with(FAST), READ, "2.0.0", "key min max", "Returns the count of members in a sorted set that have scores within a range.", range::zcount),
        Row::data("zdiff", -3, READONLY, COUNTED, "6.2.0", "numkeys key [key ...] [WITHSCORES]", "Returns the difference between multiple sorted sets.", combine::zdiff),
        Row::data("zdiffstore", -4, WRITE.with(DENYOOM), STORED, "6.2.0", "destination numkeys key [key ...]", "Stores the difference of multiple sorted sets in a key.", combine::zdiffstore),
        Row::data("zincrby", 4, WRITE.with(DENYOOM).with(FAST), &[KeySpec::one(1, RW.with(ACCESS).with(UPDATE))], "1.2.0", "key increment member", "Increments the score of a member in a sorted set.", zincrby),
        Row::data("zinter", -3, READONLY, COUNTED, "6.2.0", "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]", "Returns the intersect of multiple sorted sets.", combine::zinter),
        Row::data("zintercard", -3, READONLY, COUNTED, "7.0.0", "numkeys key [key ...] [LIMIT limit]", "Returns the number of members of the intersect of multiple sorted sets.", combine::zintercard),
        Row::data("zinterstore", -4, WRITE.with(DENYOOM), STORED, "2.0.0", "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]", "Stores the intersect of multiple sorted sets in a key.", combine::zinterstore),
        Row::data("zlexcount", 4, READONLY.with(FAST), READ, "2.8.9", "key min max", "Returns the number of members in a sorted set within a lexicographical range.", range::zlexcount),
        Row::data("zmpop", -4, WRITE, &[KeySpec::counted(1, POP_FLAGS)], "7.0.0", "numkeys key [key ...] <MIN | MAX> [COUNT count]", "Returns the highest- or lowest-scoring members from one or more sorted sets after removing them. Deletes the sorted set if the last member was popped.", pop::zmpop),
        Row::data("zmscore", -3, READONLY.with(FAST), READ, "6.2.0", "key member [member ...]", "Returns the score of one or more members in a sorted set.", zmscore).by_element(),
        Row::data("zpopmax", -2, WRITE.with(FAST), &[KeySpec::one(1, POP_FLAGS)], "5.0.0", "key [count]", "Returns the highest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.", pop::zpopmax),
        Row::data("zpopmin", -2, WRITE.with(FAST), &[KeySpec::one(1, POP_FLAGS)], "5.0.0", "key [count]", "Returns the lowest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.", pop::zpopmin),
        Row::data("zrandmember", -2, READONLY, READ, "6.2.0", "key [count [WITHSCORES]]", "Returns one or more random members from a sorted set.", zrandmember),
        Row::data("zrange", -4, READONLY, READ, "1.2.0", "key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]", "Returns members in a sorted set within a range of indexes.", range::zrange),
        Row::data("zrangebylex", -4, READONLY, READ, "2.8.9", "key min max [LIMIT offset count]", "Returns members in a sorted set within a lexicographical range.", range::zrangebylex),
        Row::data("zrangebyscore", -4, READONLY, READ, "1.0.5", "key min max [WITHSCORES] [LIMIT offset count]", "Returns members in a sorted set within a range of scores.", range::zrangebyscore),
        Row::data("zrangestore", -5, WRITE.with(DENYOOM), &[KeySpec::one(1, OW.with(UPDATE)), KeySpec::one(2, RO.with(ACCESS))], "6.2.0", "dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]", "Stores a range of members from sorted set in a key.", range::zrangestore),
        Row::data("zrank", -3, READONLY.with(FAST), READ, "2.0.0", "key member [WITHSCORE]", "Returns the index of a member in a sorted set ordered by ascending scores.", |ctx, args, reply| rank(ctx, args, reply, false)),
        Row::data("zrem", -3, WRITE.with(FAST), REMOVE, "1.2.0", "key member [member ...]", "Removes one or more members from a sorted set. Deletes the sorted set if all members were removed.", zrem),
        Row::data("zremrangebylex", 4, WRITE, REMOVE, "2.8.9", "key min max", "Removes members in a sorted set within a lexicographical range. Deletes the sorted set if all members were removed.", range::zremrangebylex),
        Row::data("zremrangebyrank", 4, WRITE, REMOVE, "2.0.0", "key start stop", "Removes members in a sorted set within a range of indexes. Deletes the sorted set if all members were removed.", range::zremrangebyrank),
        Row::data("zremrangebyscore", 4, WRITE, REMOVE, "1.2.0", "key min max", "Removes members in a sorted set within a range of scores. Deletes the sorted set if all members were removed.", range::zremrangebyscore),
        Row::data("zrevrange", -4, READONLY, READ, "1.2.0", "key start stop [WITHSCORES]", "Returns members in a sorted set within a range of indexes in reverse order.", range::zrevrange),
        Row::data("zrevrangebylex", -4, READONLY, READ, "2.8.9", "key max min [LIMIT offset count]", "Returns members in a sorted set within a lexicographical range in reverse order.", range::zrevrangebylex),
        Row::data("zrevrangebyscore", -4, READONLY, READ, "2.2.0", "key max min [WITHSCORES] [LIMIT offset count]", "Returns members in a sorted set within a range of scores in reverse order.", range::zrevrangebyscore),
        Row::data("zrevrank", -3, READONLY.with(FAST), READ, "2.0.0", "key member [WITHSCORE]", "Returns the index of a member in a sorted set ordered by descending scores.", |ctx, args, reply| rank(ctx, args, reply, true)),
        Row::data("zscan", -3, READONLY, READ, "2.8.0", "key cursor [MATCH pattern] [COUNT count]", "Iterates over members and scores of a sorted set.", zscan),
        Row::data("zscore", 3, READONLY.with(FAST), READ, "1.2.0", "key member", "Returns the score of a member in a sorted set.", zscore).by_element(),
        Row::data("zunion", -3, READONLY, COUNTED, "6.2.0", "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]", "Returns the union of multiple sorted sets.", combine::zunion),
        Row::data("zunionstore", -4, WRITE.with(DENYOOM), STORED, "2.0.0", "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]", "Stores the union of multiple sorted sets in a key.", combine::zunionstore),
    ],
};

const POP_FLAGS: crate::flags::Flags = RW.with(ACCESS).with(DELETE);
const LOOK: &[KeySpec] = &[KeySpec::one(1, RO)];
const READ: &[KeySpec] = &[KeySpec::one(1, RO.with(ACCESS))];
const REMOVE: &[KeySpec] = &[KeySpec::one(1, RW.with(DELETE))];
const COUNTED: &[KeySpec] = &[KeySpec::counted(1, RO.with(ACCESS))];
const STORED: &[KeySpec] =
    &[KeySpec::one(1, OW.with(UPDATE)), KeySpec::counted(2, RO.with(ACCESS))];

const NAN: Error = Error::RESULTING_SCORE_NAN;

/// Writes members with or without scores: RESP3 nests pairs, RESP2 is flat.
fn write_members<'a>(
    members: impl Iterator<Item = (&'a [u8], f64)>,
    len: usize,
    with_scores: bool,
    reply: &mut dyn Reply,
) {
    let nested = with_scores && reply.is_resp3();
    reply.array(if with_scores && !nested { len * 2 } else { len });
    for (member, score) in members {
        if nested {
            reply.array(2);
        }
        reply.bulk(member);
        if with_scores {
            reply.double(score);
        }
    }
}

/// ZADD's options.
#[derive(Clone, Copy, Default)]
struct AddOptions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
    changed: bool,
    increment: bool,
}

/// What ZADD did with a member.
enum Added {
    New(f64),
    Changed(f64),
    Same(f64),
    Refused,
}

impl AddOptions {
    fn apply(self, zset: &mut ZsetEditor<'_, '_>, member: &[u8], score: f64) -> Result<Added> {
        let current = zset.score(member);
        if (self.nx && current.is_some()) || (self.xx && current.is_none()) {
            return Ok(Added::Refused);
        }
        let mut score = score;
        if let (true, Some(current)) = (self.increment, current) {
            score += current;
            if score.is_nan() {
                return Err(NAN);
            }
        }
        match current {
            None => {
                zset.set(member, score);
                Ok(Added::New(score))
            }
            Some(current) => {
                if (self.gt && score <= current) || (self.lt && score >= current) {
                    return Ok(Added::Refused);
                }
                if score == current {
                    return Ok(Added::Same(score));
                }
                zset.set(member, score);
                Ok(Added::Changed(score))
            }
        }
    }
}

fn zadd(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let mut options = AddOptions::default();
    let mut rest = Args::new(&args[1..]);
    loop {
        if rest.take_word("nx") {
            options.nx = true;
        } else if rest.take_word("xx") {
            options.xx = true;
        } else if rest.take_word("gt") {
            options.gt = true;
        } else if rest.take_word("lt") {
            options.lt = true;
        } else if rest.take_word("ch") {
            options.changed = true;
        } else if rest.take_word("incr") {
            options.increment = true;
        } else {
            break;
        }
    }
    let pairs = rest.rest();
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Error::SYNTAX);
    }
    if options.nx && options.xx {
        return Err(Error::new("ERR XX and NX options at the same time are not compatible"));
    }
    if (options.gt && (options.nx || options.lt)) || (options.lt && options.nx) {
        return Err(Error::new(
            "ERR GT, LT, and/or NX options at the same time are not compatible",
        ));
    }
    if options.increment && pairs.len() > 2 {
        return Err(Error::new("ERR INCR option supports a single increment-element pair"));
    }
    let pairs: Vec<(f64, &[u8])> =
        pairs.chunks_exact(2).map(|pair| Ok((float(pair[0])?, pair[1]))).collect::<Result<_>>()?;
    let exists = ctx.tx.collection::<Zset>(args[0])?.is_some();
    if !exists && options.xx {
        if options.increment {
            reply.null();
        } else {
            reply.integer(0);
        }
        return Ok(());
    }
    add(ctx, args[0], options, &pairs, reply)
}

fn add(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    options: AddOptions,
    pairs: &[(f64, &[u8])],
    reply: &mut dyn Reply,
) -> Result {
    let (mut added, mut changed, mut last) = (0, 0, None);
    ctx.tx.update_or_create(key, |zset: &mut ZsetEditor<'_, '_>| {
        for &(score, member) in pairs {
            last = match options.apply(zset, member, score)? {
                Added::New(score) => {
                    added += 1;
                    Some(score)
                }
                Added::Changed(score) => {
                    changed += 1;
                    Some(score)
                }
                Added::Same(score) => Some(score),
                Added::Refused => None,
            };
        }
        if added + changed > 0 {
            zset.notify(class::ZSET, if options.increment { "zincr" } else { "zadd" });
        }
        Ok::<(), Error>(())
    })??;
    match (options.increment, last) {
        (true, Some(score)) => reply.double(score),
        (true, None) => reply.null(),
        (false, _) => reply.integer(if options.changed { added + changed } else { added }),
    }
    Ok(())
}

fn zincrby(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let delta = float(args[1])?;
    let options = AddOptions { increment: true, ..AddOptions::default() };
    add(ctx, args[0], options, &[(delta, args[2])], reply)
}

fn zrem(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let removed = ctx.tx.update(args[0], |zset: &mut ZsetEditor<'_, '_>| {
        let removed = args[1..].iter().filter(|member| zset.remove(member).is_some()).count();
        if removed > 0 {
            zset.notify(class::ZSET, "zrem");
        }
        removed
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn zcard(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.count(ctx.tx.element_count::<Zset>(args[0])?);
    Ok(())
}

fn write_score(score: Option<f64>, reply: &mut dyn Reply) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

fn zscore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let zset = ctx.tx.collection::<Zset>(args[0])?;
    write_score(zset.and_then(|zset| zset.score(args[1])), reply);
    Ok(())
}

fn zmscore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let zset = ctx.tx.collection::<Zset>(args[0])?;
    reply.array(args.len() - 1);
    for member in &args[1..] {
        write_score(zset.and_then(|zset| zset.score(member)), reply);
    }
    Ok(())
}

fn rank(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply, from_top: bool) -> Result {
    let with_score = match &args[2..] {
        [] => false,
        [word] if is_word(word, "withscore") => true,
        [_] => return Err(Error::SYNTAX),
        _ => return Err(Error::arity(if from_top { "zrevrank" } else { "zrank" })),
    };
    let zset = ctx.tx.collection::<Zset>(args[0])?;
    let found = zset.and_then(|zset| {
        let rank = zset.rank(args[1])?;
        let score = zset.score(args[1])?;
        Some((if from_top { zset.len() - 1 - rank } else { rank }, score))
    });
    match (found, with_score) {
        (Some((rank, _)), false) => reply.count(rank),
        (Some((rank, score)), true) => {
            reply.array(2);
            reply.count(rank);
            reply.double(score);
        }
        (None, false) => reply.null(),
        (None, true) => reply.null_array(),
    }
    Ok(())
}

fn zrandmember(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let zset = ctx.tx.collection::<Zset>(args[0]);
    let (count, with_scores) = match &args[1..] {
        [] => {
            let picked = zset?.and_then(|zset| zset.random(ctx.rng));
            reply.optional_bulk(picked.map(|(member, _)| member));
            return Ok(());
        }
        rest => random_count(rest, "withscores")?,
    };
    let Some(zset) = zset?.filter(|_| count != 0) else {
        reply.array(0);
        return Ok(());
    };
    let rng = &mut *ctx.rng;
    if count < 0 {
        let len = count.unsigned_abs() as usize;
        let picks = (0..len).map(|_| zset.random(rng).expect("it has a member"));
        write_members(picks, len, with_scores, reply);
        return Ok(());
    }
    let len = usize::try_from(count).unwrap_or(usize::MAX).min(zset.len());
    // Selection sampling (Knuth 3.4.2 S), as in HRANDFIELD.
    let (mut wanted, mut left) = (len as u64, zset.len() as u64);
    let picks = zset.iter().filter(|_| {
        let take = wanted > 0 && rng.below(left) < wanted;
        left -= 1;
        wanted -= u64::from(take);
        take
    });
    write_members(picks, len, with_scores, reply);
    Ok(())
}

fn zscan(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let cursor = scan::cursor(args[1])?;
    let Some(zset) = ctx.tx.collection::<Zset>(args[0])? else {
        scan::write_end(reply);
        return Ok(());
    };
    let options = scan::Options::parse(Args::new(&args[2..]))?;
    let mut found = Vec::new();
    let next = zset.scan(cursor, options.count, |member, score| {
        if options.matches(member) {
            found.push((member.to_vec(), score));
        }
    });
    scan::write_page(next, found.len() * 2, reply);
    for (member, score) in found {
        reply.bulk(&member);
        // A string in both protocols, as Redis has it here.
        reply.bulk(base::number::format_f64(score).as_bytes());
    }
    Ok(())
}
