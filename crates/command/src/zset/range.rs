//! Ranges by rank, score and bytes: every one is a range of ranks in the end.

use std::ops::Range;

use base::Reply;
use keyspace::types::{LexBound, ScoreBound, Zset};
use keyspace::{Value, class};

use super::{ZsetEditor, write_members};
use crate::args::{Args, index_range, integer, lenient_float};
use crate::ctx::Ctx;
use crate::error::{Error, Result};

/// What a range is over.
#[derive(Clone, Copy)]
enum Span<'a> {
    Ranks(i64, i64),
    Scores(ScoreBound, ScoreBound),
    Members(LexBound<'a>, LexBound<'a>),
}

impl Span<'_> {
    /// The ranks inside, lowest first. `from_top` counts ranks from the highest.
    fn ranks(self, zset: &Zset, from_top: bool) -> Range<usize> {
        match self {
            Span::Ranks(start, stop) => {
                let range = index_range(start, stop, zset.len());
                if from_top { zset.len() - range.end..zset.len() - range.start } else { range }
            }
            Span::Scores(min, max) => zset.rank_range_by_score(min, max),
            Span::Members(min, max) => zset.rank_range_by_lex(min, max),
        }
    }
}

fn score_bound(arg: &[u8]) -> Result<ScoreBound> {
    let (exclusive, text) = match arg {
        [b'(', rest @ ..] => (true, rest),
        _ => (false, arg),
    };
    let value = lenient_float(text).ok_or(Error::MIN_MAX_NOT_FLOAT)?;
    Ok(ScoreBound { value, exclusive })
}

fn lex_bound(arg: &[u8]) -> Result<LexBound<'_>> {
    match arg {
        b"-" => Ok(LexBound::Min),
        b"+" => Ok(LexBound::Max),
        [b'[', member @ ..] => Ok(LexBound::Incl(member)),
        [b'(', member @ ..] => Ok(LexBound::Excl(member)),
        _ => Err(Error::MIN_MAX_NOT_STRING),
    }
}

fn scores<'a>(min: &[u8], max: &[u8]) -> Result<Span<'a>> {
    Ok(Span::Scores(score_bound(min)?, score_bound(max)?))
}

fn members<'a>(min: &'a [u8], max: &'a [u8]) -> Result<Span<'a>> {
    Ok(Span::Members(lex_bound(min)?, lex_bound(max)?))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rank,
    Score,
    Lex,
}

/// Which options a command of the family takes.
#[derive(Clone, Copy)]
struct Dialect {
    /// What its name says; `None`: options say it.
    kind: Option<Kind>,
    /// What its name says.
    reversed: Option<bool>,
    /// Whether WITHSCORES is an option, if only to be refused by bytes.
    with_scores: bool,
}

struct Request<'a> {
    span: Span<'a>,
    reversed: bool,
    with_scores: bool,
    limit: Option<(i64, i64)>,
}

impl<'a> Request<'a> {
    /// Reads `start stop [options]`.
    fn parse(args: &'a [&'a [u8]], dialect: Dialect) -> Result<Request<'a>> {
        let (mut kind, mut reversed) = (dialect.kind, dialect.reversed);
        let (mut with_scores, mut limit) = (false, None);
        let mut options = Args::new(&args[2..]);
        while !options.is_empty() {
            if dialect.with_scores && options.take_word("withscores") {
                with_scores = true;
            } else if options.len() >= 3 && options.take_word("limit") {
                limit = Some((options.next_i64()?, options.next_i64()?));
            } else if dialect.reversed.is_none() && options.take_word("rev") {
                reversed = Some(true);
            } else if kind.is_none() && options.take_word("bylex") {
                kind = Some(Kind::Lex);
            } else if kind.is_none() && options.take_word("byscore") {
                kind = Some(Kind::Score);
            } else {
                return Err(Error::SYNTAX);
            }
        }
        let (kind, reversed) = (kind.unwrap_or(Kind::Rank), reversed.unwrap_or(false));
        // As in Redis: -1, which is no limit, counts as none.
        if kind == Kind::Rank && limit.take().is_some_and(|(_, count)| count != -1) {
            return Err(Error::new(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && kind == Kind::Lex {
            return Err(Error::new(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // Downwards the higher end comes first.
        let (low, high) = if reversed { (args[1], args[0]) } else { (args[0], args[1]) };
        let span = match kind {
            Kind::Rank => Span::Ranks(integer(args[0])?, integer(args[1])?),
            Kind::Score => scores(low, high)?,
            Kind::Lex => members(low, high)?,
        };
        Ok(Request { span, reversed, with_scores, limit })
    }

    /// The ranks asked for, lowest first.
    fn ranks(&self, zset: &Zset) -> Range<usize> {
        let ranks = self.span.ranks(zset, self.reversed);
        let Some((offset, count)) = self.limit else { return ranks };
        let Ok(offset) = usize::try_from(offset) else { return 0..0 };
        let offset = offset.min(ranks.len());
        // A negative count is no limit.
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(ranks.len() - offset);
        if self.reversed {
            let end = ranks.end - offset;
            end - count..end
        } else {
            let start = ranks.start + offset;
            start..start + count
        }
    }
}

fn run(ctx: &Ctx<'_, '_>, args: &[&[u8]], dialect: Dialect, reply: &mut dyn Reply) -> Result {
    let request = Request::parse(&args[1..], dialect)?;
    let Some(zset) = ctx.tx.collection::<Zset>(args[0])? else {
        reply.array(0);
        return Ok(());
    };
    let ranks = request.ranks(zset);
    let len = ranks.len();
    let found = zset.range_by_rank(ranks, request.reversed);
    write_members(found, len, request.with_scores, reply);
    Ok(())
}

pub(super) fn zrange(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    run(ctx, args, Dialect { kind: None, reversed: None, with_scores: true }, reply)
}

pub(super) fn zrevrange(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let kind = Some(Kind::Rank);
    run(ctx, args, Dialect { kind, reversed: Some(true), with_scores: true }, reply)
}

pub(super) fn zrangebyscore(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
) -> Result {
    let kind = Some(Kind::Score);
    run(ctx, args, Dialect { kind, reversed: Some(false), with_scores: true }, reply)
}

pub(super) fn zrevrangebyscore(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
) -> Result {
    let kind = Some(Kind::Score);
    run(ctx, args, Dialect { kind, reversed: Some(true), with_scores: true }, reply)
}

pub(super) fn zrangebylex(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let kind = Some(Kind::Lex);
    run(ctx, args, Dialect { kind, reversed: Some(false), with_scores: true }, reply)
}

pub(super) fn zrevrangebylex(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
) -> Result {
    let kind = Some(Kind::Lex);
    run(ctx, args, Dialect { kind, reversed: Some(true), with_scores: true }, reply)
}

pub(super) fn zrangestore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let dialect = Dialect { kind: None, reversed: None, with_scores: false };
    let request = Request::parse(&args[2..], dialect)?;
    let mut stored = Zset::new(ctx.tx.seed());
    if let Some(source) = ctx.tx.collection::<Zset>(args[1])? {
        for (member, score) in source.range_by_rank(request.ranks(source), false) {
            stored.insert(member, score, ctx.tx.limits());
        }
    }
    store(ctx, args[0], stored, "zrangestore", reply);
    Ok(())
}

/// Puts a result where it belongs; an empty one removes the key.
pub(super) fn store(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    zset: Zset,
    event: &'static str,
    reply: &mut dyn Reply,
) {
    let len = zset.len();
    if len > 0 {
        ctx.tx.put(key, Value::Zset(zset), None);
        ctx.tx.notify(class::ZSET, event, key);
    } else if ctx.tx.delete(key) {
        ctx.tx.notify(class::GENERIC, "del", key);
    }
    reply.count(len);
}

fn count(ctx: &Ctx<'_, '_>, key: &[u8], span: Span<'_>, reply: &mut dyn Reply) -> Result {
    let zset = ctx.tx.collection::<Zset>(key)?;
    reply.count(zset.map_or(0, |zset| span.ranks(zset, false).len()));
    Ok(())
}

pub(super) fn zcount(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    count(ctx, args[0], scores(args[1], args[2])?, reply)
}

pub(super) fn zlexcount(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    count(ctx, args[0], members(args[1], args[2])?, reply)
}

fn remove(
    ctx: &mut Ctx<'_, '_>,
    key: &[u8],
    span: Span<'_>,
    event: &'static str,
    reply: &mut dyn Reply,
) -> Result {
    let removed = ctx.tx.update(key, |zset: &mut ZsetEditor<'_, '_>| {
        let ranks = span.ranks(zset, false);
        let doomed: Vec<Vec<u8>> =
            zset.range_by_rank(ranks, false).map(|(member, _)| member.to_vec()).collect();
        doomed.iter().for_each(|member| {
            zset.remove(member);
        });
        if !doomed.is_empty() {
            zset.notify(class::ZSET, event);
        }
        doomed.len()
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

pub(super) fn zremrangebyrank(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
) -> Result {
    let span = Span::Ranks(integer(args[1])?, integer(args[2])?);
    remove(ctx, args[0], span, "zremrangebyrank", reply)
}

pub(super) fn zremrangebyscore(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
) -> Result {
    remove(ctx, args[0], scores(args[1], args[2])?, "zremrangebyscore", reply)
}

pub(super) fn zremrangebylex(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
) -> Result {
    remove(ctx, args[0], members(args[1], args[2])?, "zremrangebylex", reply)
}
