//! Unions, intersections and differences of sorted sets and sets.

use std::collections::HashMap;

use base::{Reply, number};
use keyspace::types::{Set, Zset};
use keyspace::{Txn, ValueRef};

use super::range::store;
use super::write_members;
use crate::args::{Args, at_least, integer};
use crate::ctx::Ctx;
use crate::error::{Error, Result};

/// An input: a sorted set, a set whose members all score 1, or nothing.
#[derive(Clone, Copy)]
enum Input<'a> {
    Missing,
    Zset(&'a Zset),
    Set(&'a Set),
}

impl<'a> Input<'a> {
    fn of(tx: &'a Txn<'_>, key: &[u8]) -> Result<Input<'a>> {
        match tx.get(key) {
            None => Ok(Input::Missing),
            Some(ValueRef::Zset(zset)) => Ok(Input::Zset(zset)),
            Some(ValueRef::Set(set)) => Ok(Input::Set(set)),
            Some(_) => Err(Error::WRONG_TYPE),
        }
    }

    fn len(self) -> usize {
        match self {
            Input::Missing => 0,
            Input::Zset(zset) => zset.len(),
            Input::Set(set) => set.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Input::Missing => None,
            Input::Zset(zset) => zset.score(member),
            Input::Set(set) => set.contains(member).then_some(1.0),
        }
    }

    fn visit(self, mut visit: impl FnMut(&[u8], f64)) {
        match self {
            Input::Missing => {}
            Input::Zset(zset) => zset.iter().for_each(|(member, score)| visit(member, score)),
            Input::Set(set) => set.iter().for_each(|member| visit(&member, 1.0)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn combine(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Sum => not_nan(a + b),
            Aggregate::Min => a.min(b),
            Aggregate::Max => a.max(b),
        }
    }
}

/// Infinities of both signs add up to zero here, as in Redis.
fn not_nan(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value }
}

struct Request<'t> {
    inputs: Vec<Input<'t>>,
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

/// `numkeys key [key …]`.
fn take_keys<'a>(args: &mut Args<'a>, command: &str) -> Result<&'a [&'a [u8]]> {
    let count = integer(args.next()?)?;
    if count < 1 {
        return Err(Error::new(format!(
            "ERR at least 1 input key is needed for '{command}' command"
        )));
    }
    args.take(usize::try_from(count).unwrap_or(usize::MAX))
}

/// What is at the keys. As in Redis, a wrong type is told before wrong options.
fn inputs<'t>(tx: &'t Txn<'_>, keys: &[&[u8]]) -> Result<Vec<Input<'t>>> {
    keys.iter().map(|key| Input::of(tx, key)).collect()
}

impl<'t> Request<'t> {
    fn parse(
        tx: &'t Txn<'_>,
        args: &[&[u8]],
        operation: Operation,
        stores: bool,
        command: &str,
    ) -> Result<Request<'t>> {
        let mut args = Args::new(args);
        let keys = take_keys(&mut args, command)?;
        let mut request = Request {
            inputs: inputs(tx, keys)?,
            weights: vec![1.0; keys.len()],
            aggregate: Aggregate::Sum,
            with_scores: false,
        };
        while !args.is_empty() {
            let weighs = operation != Operation::Diff;
            if weighs && args.len() > keys.len() && args.take_word("weights") {
                for (weight, text) in request.weights.iter_mut().zip(args.take(keys.len())?) {
                    *weight = number::parse_f64(text)
                        .ok_or(Error::new("ERR weight value is not a float"))?;
                }
            } else if weighs && args.len() >= 2 && args.take_word("aggregate") {
                request.aggregate = if args.take_word("sum") {
                    Aggregate::Sum
                } else if args.take_word("min") {
                    Aggregate::Min
                } else if args.take_word("max") {
                    Aggregate::Max
                } else {
                    return Err(Error::SYNTAX);
                };
            } else if !stores && args.take_word("withscores") {
                request.with_scores = true;
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(request)
    }

    fn run(self, tx: &Txn<'_>, operation: Operation) -> Zset {
        let inputs: Vec<(Input<'_>, f64)> = self.inputs.into_iter().zip(self.weights).collect();
        let mut result = Zset::new(tx.seed());
        match operation {
            Operation::Union => {
                let mut scores: HashMap<Vec<u8>, f64> = HashMap::new();
                for (input, weight) in inputs {
                    input.visit(|member, score| {
                        let score = not_nan(score * weight);
                        match scores.get_mut(member) {
                            Some(sum) => *sum = self.aggregate.combine(*sum, score),
                            None => {
                                scores.insert(member.to_vec(), score);
                            }
                        }
                    });
                }
                for (member, score) in scores {
                    result.insert(&member, score, tx.limits());
                }
            }
            Operation::Inter => {
                let smallest = inputs.iter().enumerate().min_by_key(|(_, (input, _))| input.len());
                let Some((at, (input, weight))) = smallest else { return result };
                input.visit(|member, score| {
                    let mut sum = not_nan(score * weight);
                    for (index, (other, weight)) in inputs.iter().enumerate() {
                        if index != at {
                            let Some(score) = other.score(member) else { return };
                            sum = self.aggregate.combine(sum, not_nan(score * weight));
                        }
                    }
                    result.insert(member, sum, tx.limits());
                });
            }
            Operation::Diff => {
                let Some(((first, _), others)) = inputs.split_first() else { return result };
                first.visit(|member, score| {
                    if others.iter().all(|(other, _)| other.score(member).is_none()) {
                        result.insert(member, score, tx.limits());
                    }
                });
            }
        }
        result
    }
}

fn show(
    ctx: &Ctx<'_, '_>,
    args: &[&[u8]],
    operation: Operation,
    command: &str,
    reply: &mut dyn Reply,
) -> Result {
    let request = Request::parse(ctx.tx, args, operation, false, command)?;
    let with_scores = request.with_scores;
    let result = request.run(ctx.tx, operation);
    write_members(result.iter(), result.len(), with_scores, reply);
    Ok(())
}

fn keep(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    operation: Operation,
    command: &'static str,
    reply: &mut dyn Reply,
) -> Result {
    let request = Request::parse(ctx.tx, &args[1..], operation, true, command)?;
    let result = request.run(ctx.tx, operation);
    store(ctx, args[0], result, command, reply);
    Ok(())
}

pub(super) fn zunion(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    show(ctx, args, Operation::Union, "zunion", reply)
}

pub(super) fn zinter(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    show(ctx, args, Operation::Inter, "zinter", reply)
}

pub(super) fn zdiff(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    show(ctx, args, Operation::Diff, "zdiff", reply)
}

pub(super) fn zunionstore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    keep(ctx, args, Operation::Union, "zunionstore", reply)
}

pub(super) fn zinterstore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    keep(ctx, args, Operation::Inter, "zinterstore", reply)
}

pub(super) fn zdiffstore(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    keep(ctx, args, Operation::Diff, "zdiffstore", reply)
}

pub(super) fn zintercard(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let mut rest = Args::new(args);
    let inputs = inputs(ctx.tx, take_keys(&mut rest, "zintercard")?)?;
    let mut limit = 0;
    while !rest.is_empty() {
        if rest.len() < 2 || !rest.take_word("limit") {
            return Err(Error::SYNTAX);
        }
        limit = at_least(0, rest.next()?, Error::new("ERR LIMIT can't be negative"))?;
    }
    let mut count = 0;
    if let Some(smallest) = inputs.iter().min_by_key(|input| input.len()) {
        smallest.visit(|member, _| {
            let in_all = inputs.iter().all(|input| input.score(member).is_some());
            if in_all && (limit == 0 || count < limit) {
                count += 1;
            }
        });
    }
    reply.count(count);
    Ok(())
}
