//! List commands that wait for an element.
//!
//! Each tries as its non-blocking relative does, and asks to wait when there is
//! nothing. The handler runs again when one of the keys has become a list, so
//! there is no second path for waiting clients.

use base::Reply;
use smallvec::SmallVec;

use super::{End, ListEditor, Move, MultiPop};
use crate::args::{Args, timeout_ms};
use crate::ctx::{Block, Ctx, TimeoutReply, WaitFor};
use crate::error::Result;

fn wait(
    ctx: &mut Ctx<'_, '_>,
    keys: &[&[u8]],
    timeout_ms: Option<u64>,
    reply: &mut dyn Reply,
) -> Result {
    let keys: SmallVec<[Vec<u8>; 2]> = keys.iter().map(|key| key.to_vec()).collect();
    let on_timeout = TimeoutReply::NullArray;
    ctx.wait(Block { keys, wait_for: WaitFor::List, timeout_ms, on_timeout }, reply);
    Ok(())
}

fn pop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply, end: End) -> Result {
    let (timeout, keys) = args.split_last().expect("the arity asks for a timeout");
    let timeout_ms = timeout_ms(timeout, ctx.tx.now_ms())?;
    for key in keys {
        let found = ctx.tx.update(key, |list: &mut ListEditor<'_, '_>| {
            reply.array(2);
            reply.bulk(key);
            reply.optional_bulk(end.pop(list).as_deref());
        })?;
        if found.is_some() {
            return Ok(());
        }
    }
    wait(ctx, keys, timeout_ms, reply)
}

pub(super) fn blpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    pop(ctx, args, reply, End::Left)
}

pub(super) fn brpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    pop(ctx, args, reply, End::Right)
}

pub(super) fn blmpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let pops = MultiPop::parse(Args::new(&args[1..]))?;
    let timeout_ms = timeout_ms(args[0], ctx.tx.now_ms())?;
    if pops.run(ctx, reply)? { Ok(()) } else { wait(ctx, pops.keys, timeout_ms, reply) }
}

fn move_or_wait(
    ctx: &mut Ctx<'_, '_>,
    moving: &Move<'_>,
    timeout: &[u8],
    reply: &mut dyn Reply,
) -> Result {
    let timeout_ms = timeout_ms(timeout, ctx.tx.now_ms())?;
    if moving.run(ctx, reply)? {
        return Ok(());
    }
    if !ctx.can_block {
        // Unlike after a timeout, the reply is the null of LMOVE here.
        reply.null();
        return Ok(());
    }
    wait(ctx, &[moving.source], timeout_ms, reply)
}

pub(super) fn blmove(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    move_or_wait(ctx, &Move::parse(args)?, args[4], reply)
}

pub(super) fn brpoplpush(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    move_or_wait(ctx, &Move::right_to_left(args), args[2], reply)
}
