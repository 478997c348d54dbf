//! Taking the lowest or the highest members, at once or waiting for them.

use base::Reply;
use keyspace::class;
use keyspace::types::Zset;

use super::ZsetEditor;
use crate::args::{Args, at_least, timeout_ms};
use crate::ctx::{Block, Ctx, TimeoutReply, WaitFor};
use crate::error::{Error, Result};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Min,
    Max,
}

impl Side {
    fn event(self) -> &'static str {
        match self {
            Side::Min => "zpopmin",
            Side::Max => "zpopmax",
        }
    }
}

/// Members that left, with their scores, in the order of the reply.
type Taken = Vec<(Vec<u8>, f64)>;

/// Removes up to `count` members; `None` when there is no key.
fn take(ctx: &mut Ctx<'_, '_>, key: &[u8], side: Side, count: usize) -> Result<Option<Taken>> {
    let taken = ctx.tx.update(key, |zset: &mut ZsetEditor<'_, '_>| {
        let len = zset.len();
        let ranks = match side {
            Side::Min => 0..count.min(len),
            Side::Max => len.saturating_sub(count)..len,
        };
        let taken: Taken = zset
            .range_by_rank(ranks, side == Side::Max)
            .map(|(member, score)| (member.to_vec(), score))
            .collect();
        for (member, _) in &taken {
            zset.remove(member);
        }
        if !taken.is_empty() {
            zset.notify(class::ZSET, side.event());
        }
        taken
    })?;
    Ok(taken)
}

fn pop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply, side: Side) -> Result {
    let (count, has_count) = match args {
        [_] => (1, false),
        [_, count] => (at_least(0, count, Error::MUST_BE_POSITIVE)?, true),
        _ => return Err(Error::SYNTAX),
    };
    let taken = take(ctx, args[0], side, count)?.unwrap_or_default();
    // RESP3 with a count nests pairs; without one the pair is the reply.
    let nested = has_count && reply.is_resp3();
    reply.array(if nested { taken.len() } else { taken.len() * 2 });
    for (member, score) in taken {
        if nested {
            reply.array(2);
        }
        reply.bulk(&member);
        reply.double(score);
    }
    Ok(())
}

pub(super) fn zpopmin(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    pop(ctx, args, reply, Side::Min)
}

pub(super) fn zpopmax(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    pop(ctx, args, reply, Side::Max)
}

fn wait(
    ctx: &mut Ctx<'_, '_>,
    keys: &[&[u8]],
    timeout_ms: Option<u64>,
    reply: &mut dyn Reply,
) -> Result {
    let keys = keys.iter().map(|key| key.to_vec()).collect();
    let on_timeout = TimeoutReply::NullArray;
    ctx.wait(Block { keys, wait_for: WaitFor::Zset, timeout_ms, on_timeout }, reply);
    Ok(())
}

fn blocking_pop(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
    side: Side,
) -> Result {
    let (timeout, keys) = args.split_last().expect("the arity asks for a timeout");
    let timeout_ms = timeout_ms(timeout, ctx.tx.now_ms())?;
    for key in keys {
        if let Some(taken) = take(ctx, key, side, 1)? {
            let (member, score) = &taken[0];
            reply.array(3);
            reply.bulk(key);
            reply.bulk(member);
            reply.double(*score);
            return Ok(());
        }
    }
    wait(ctx, keys, timeout_ms, reply)
}

pub(super) fn bzpopmin(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    blocking_pop(ctx, args, reply, Side::Min)
}

pub(super) fn bzpopmax(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    blocking_pop(ctx, args, reply, Side::Max)
}

struct MultiPop<'a> {
    keys: &'a [&'a [u8]],
    side: Side,
    count: usize,
}

impl<'a> MultiPop<'a> {
    fn parse(mut args: Args<'a>) -> Result<MultiPop<'a>> {
        let keys = at_least(1, args.next()?, Error::NUMKEYS_NOT_POSITIVE)?;
        let keys = args.take(keys)?;
        let side = if args.take_word("min") {
            Side::Min
        } else if args.take_word("max") {
            Side::Max
        } else {
            return Err(Error::SYNTAX);
        };
        let mut count = None;
        while !args.is_empty() {
            if count.is_some() || args.len() < 2 || !args.take_word("count") {
                return Err(Error::SYNTAX);
            }
            let error = Error::new("ERR count should be greater than 0");
            count = Some(at_least(1, args.next()?, error)?);
        }
        Ok(MultiPop { keys, side, count: count.unwrap_or(1) })
    }

    /// Pops from the first key that exists; answers whether one did.
    fn run(&self, ctx: &mut Ctx<'_, '_>, reply: &mut dyn Reply) -> Result<bool> {
        for key in self.keys {
            ctx.tx.collection::<Zset>(key)?;
            let Some(taken) = take(ctx, key, self.side, self.count)? else { continue };
            reply.array(2);
            reply.bulk(key);
            reply.array(taken.len());
            for (member, score) in taken {
                reply.array(2);
                reply.bulk(&member);
                reply.double(score);
            }
            return Ok(true);
        }
        Ok(false)
    }
}

pub(super) fn zmpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    if !MultiPop::parse(Args::new(args))?.run(ctx, reply)? {
        reply.null_array();
    }
    Ok(())
}

pub(super) fn bzmpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let timeout_ms = timeout_ms(args[0], ctx.tx.now_ms())?;
    let pops = MultiPop::parse(Args::new(&args[1..]))?;
    if pops.run(ctx, reply)? { Ok(()) } else { wait(ctx, pops.keys, timeout_ms, reply) }
}
