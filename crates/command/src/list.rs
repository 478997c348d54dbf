//! Lists.

mod blocking;
mod position;

use base::Reply;
use keyspace::types::List;
use keyspace::{Editor, Value, class};

use crate::args::{Args, at_least, from_end, index_range, integer, is_word};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::flags::{BLOCKING, DENYOOM, FAST, Flags, NOSCRIPT, READONLY, WRITE};
use crate::keys::{KeySpec, key_flags::*};
use crate::spec::{CommandSpec, Family, Group, Known};

type Row = CommandSpec;

/// The rows.
pub const FAMILY: Family = Family {
    group: Group::List,
    commands: &[
        Row::data(
            "blmove",
            6,
            WRITE.with(DENYOOM).with(NOSCRIPT).with(BLOCKING),
            MOVE_KEYS,
            "6.2.0",
            "source destination <LEFT | RIGHT> <LEFT | RIGHT> timeout",
            "Pops an element from a list, pushes it to another list and returns it. Blocks until an element is available otherwise. Deletes the list if the last element was moved.",
            blocking::blmove,
        ),
        Row::data(
            "blmpop",
            -5,
            WRITE.with(BLOCKING),
            &[KeySpec::counted(2, POP)],
            "7.0.0",
            "timeout numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
            "Pops the first element from one of multiple lists. Blocks until an element is available otherwise. Deletes the list if the last element was popped.",
            blocking::blmpop,
        ),
        Row::data(
            "blpop",
            -3,
            WRITE.with(NOSCRIPT).with(BLOCKING),
            &[KeySpec::range(1, -2, 1, POP)],
            "2.0.0",
            "key [key ...] timeout",
            "Removes and returns the first element in a list. Blocks until an element is available otherwise. Deletes the list if the last element was popped.",
            blocking::blpop,
        ),
        Row::data(
            "brpop",
            -3,
            WRITE.with(NOSCRIPT).with(BLOCKING),
            &[KeySpec::range(1, -2, 1, POP)],
            "2.0.0",
            "key [key ...] timeout",
            "Removes and returns the last element in a list. Blocks until an element is available otherwise. Deletes the list if the last element was popped.",
            blocking::brpop,
        ),
        Row::data(
            "brpoplpush",
            4,
            WRITE.with(DENYOOM).with(NOSCRIPT).with(BLOCKING),
            MOVE_KEYS,
            "2.2.0",
            "source destination timeout",
            "Pops an element from a list, pushes it to another list and returns it. Block until an element is available otherwise. Deletes the list if the last element was popped.",
            blocking::brpoplpush,
        ),
        Row::data(
            "lindex",
            3,
            READONLY,
            READ_ONE,
            "1.0.0",
            "key index",
            "Returns an element from a list by its index.",
            lindex,
        ),
        Row::data(
            "linsert",
            5,
            WRITE.with(DENYOOM),
            INSERT_ONE,
            "2.2.0",
            "key <BEFORE | AFTER> pivot element",
            "Inserts an element before or after another element in a list.",
            linsert,
        ),
        Row::data(
            "llen",
            2,
            READONLY.with(FAST),
            &[KeySpec::one(1, RO)],
            "1.0.0",
            "key",
            "Returns the length of a list.",
            llen,
        )
        .known(Known::Outline),
        Row::data(
            "lmove",
            5,
            WRITE.with(DENYOOM),
            MOVE_KEYS,
            "6.2.0",
            "source destination <LEFT | RIGHT> <LEFT | RIGHT>",
            "Returns an element after popping it from one list and pushing it to another. Deletes the list if the last element was moved.",
            lmove,
        ),
        Row::data(
            "lmpop",
            -4,
            WRITE,
            &[KeySpec::counted(1, POP)],
            "7.0.0",
            "numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
            "Returns multiple elements from a list after removing them. Deletes the list if the last element was popped.",
            lmpop,
        ),
        Row::data(
            "lpop",
            -2,
            WRITE.with(FAST),
            POP_ONE,
            "1.0.0",
            "key [count]",
            "Returns the first elements in a list after removing it. Deletes the list if the last element was popped.",
            lpop,
        ),
        Row::data(
            "lpos",
            -3,
            READONLY,
            READ_ONE,
            "6.0.6",
            "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
            "Returns the index of matching elements in a list.",
            position::lpos,
        ),
        Row::data(
            "lpush",
            -3,
            WRITE.with(DENYOOM).with(FAST),
            INSERT_ONE,
            "1.0.0",
            "key element [element ...]",
            "Prepends one or more elements to a list. Creates the key if it doesn't exist.",
            lpush,
        ),
        Row::data(
            "lpushx",
            -3,
            WRITE.with(DENYOOM).with(FAST),
            INSERT_ONE,
            "2.2.0",
            "key element [element ...]",
            "Prepends one or more elements to a list only when the list exists.",
            lpushx,
        ),
        Row::data(
            "lrange",
            4,
            READONLY,
            READ_ONE,
            "1.0.0",
            "key start stop",
            "Returns a range of elements from a list.",
            lrange,
        ),
        Row::data(
            "lrem",
            4,
            WRITE,
            DELETE_ONE,
            "1.0.0",
            "key count element",
            "Removes elements from a list. Deletes the list if the last element was removed.",
            lrem,
        ),
        Row::data(
            "lset",
            4,
            WRITE.with(DENYOOM),
            &[KeySpec::one(1, RW.with(UPDATE))],
            "1.0.0",
            "key index element",
            "Sets the value of an element in a list by its index.",
            lset,
        ),
        Row::data(
            "ltrim",
            4,
            WRITE,
            DELETE_ONE,
            "1.0.0",
            "key start stop",
            "Removes elements from both ends a list. Deletes the list if all elements were trimmed.",
            ltrim,
        ),
        Row::data(
            "rpop",
            -2,
            WRITE.with(FAST),
            POP_ONE,
            "1.0.0",
            "key [count]",
            "Returns and removes the last elements of a list. Deletes the list if the last element was popped.",
            rpop,
        ),
        Row::data(
            "rpoplpush",
            3,
            WRITE.with(DENYOOM),
            MOVE_KEYS,
            "1.2.0",
            "source destination",
            "Returns the last element of a list after removing and pushing it to another list. Deletes the list if the last element was popped.",
            rpoplpush,
        ),
        Row::data(
            "rpush",
            -3,
            WRITE.with(DENYOOM).with(FAST),
            INSERT_ONE,
            "1.0.0",
            "key element [element ...]",
            "Appends one or more elements to a list. Creates the key if it doesn't exist.",
            rpush,
        ),
        Row::data(
            "rpushx",
            -3,
            WRITE.with(DENYOOM).with(FAST),
            INSERT_ONE,
            "2.2.0",
            "key element [element ...]",
            "Appends an element to a list only when the list exists.",
            rpushx,
        ),
    ],
};

const POP: Flags = RW.with(ACCESS).with(DELETE);
const READ_ONE: &[KeySpec] = &[KeySpec::one(1, RO.with(ACCESS))];
const INSERT_ONE: &[KeySpec] = &[KeySpec::one(1, RW.with(INSERT))];
const DELETE_ONE: &[KeySpec] = &[KeySpec::one(1, RW.with(DELETE))];
const POP_ONE: &[KeySpec] = &[KeySpec::one(1, POP)];
const MOVE_KEYS: &[KeySpec] = &[KeySpec::one(1, POP), KeySpec::one(2, RW.with(INSERT))];

type ListEditor<'e, 't> = Editor<'e, 't, List>;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

impl End {
    fn parse(arg: &[u8]) -> Result<End> {
        if is_word(arg, "left") {
            Ok(End::Left)
        } else if is_word(arg, "right") {
            Ok(End::Right)
        } else {
            Err(Error::SYNTAX)
        }
    }

    fn peek(self, list: &List) -> Option<&[u8]> {
        match self {
            End::Left => list.iter().next(),
            End::Right => list.iter().next_back(),
        }
    }

    // ---- pushing and popping ----

    fn push(self, list: &mut ListEditor<'_, '_>, value: &[u8]) {
        match self {
            End::Left => list.push_front(value),
            End::Right => list.push_back(value),
        }
    }

    fn announce_push(self, list: &ListEditor<'_, '_>) {
        list.notify(class::LIST, if self == End::Left { "lpush" } else { "rpush" });
    }

    /// Pops one element.
    fn pop(self, list: &mut ListEditor<'_, '_>) -> Option<Vec<u8>> {
        let (popped, event) = match self {
            End::Left => (list.pop_front(), "lpop"),
            End::Right => (list.pop_back(), "rpop"),
        };
        list.notify(class::LIST, event);
        popped
    }

    /// Pops up to `count` elements into the reply, as an array.
    fn pop_many(self, list: &mut ListEditor<'_, '_>, count: usize, reply: &mut dyn Reply) {
        let count = count.min(list.len());
        reply.array(count);
        match self {
            End::Left => {
                list.iter().take(count).for_each(|value| reply.bulk(value));
                list.drop_front(count);
                list.notify(class::LIST, "lpop");
            }
            End::Right => {
                list.iter().rev().take(count).for_each(|value| reply.bulk(value));
                list.drop_back(count);
                list.notify(class::LIST, "rpop");
            }
        }
    }
}

// ---- reads ----

fn llen(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    reply.count(ctx.tx.element_count::<List>(args[0])?);
    Ok(())
}

fn lindex(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let Some(list) = ctx.tx.collection::<List>(args[0])? else {
        reply.null();
        return Ok(());
    };
    let index = from_end(integer(args[1])?, list.len());
    reply.optional_bulk(usize::try_from(index).ok().and_then(|index| list.get(index)));
    Ok(())
}

fn lrange(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let (start, stop) = (integer(args[1])?, integer(args[2])?);
    let Some(list) = ctx.tx.collection::<List>(args[0])? else {
        reply.array(0);
        return Ok(());
    };
    let range = index_range(start, stop, list.len());
    reply.array(range.len());
    list.iter_from(range.start).take(range.len()).for_each(|value| reply.bulk(value));
    Ok(())
}

// ---- pushing and popping ----

fn push(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
    end: End,
    only_if_present: bool,
) -> Result {
    let (key, values) = (args[0], &args[1..]);
    let edit = |list: &mut ListEditor<'_, '_>| {
        values.iter().for_each(|value| end.push(list, value));
        end.announce_push(list);
        list.len()
    };
    let len = if only_if_present {
        ctx.tx.update(key, edit)?.unwrap_or(0)
    } else {
        ctx.tx.update_or_create(key, edit)?
    };
    reply.count(len);
    Ok(())
}

fn lpush(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    push(ctx, args, reply, End::Left, false)
}

fn rpush(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    push(ctx, args, reply, End::Right, false)
}

fn lpushx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    push(ctx, args, reply, End::Left, true)
}

fn rpushx(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    push(ctx, args, reply, End::Right, true)
}

fn pop(
    ctx: &mut Ctx<'_, '_>,
    args: &[&[u8]],
    reply: &mut dyn Reply,
    end: End,
    name: &str,
) -> Result {
    let count = match args {
        [_] => None,
        [_, count] => Some(at_least(0, count, Error::MUST_BE_POSITIVE)?),
        _ => return Err(Error::arity(name)),
    };
    let found = ctx.tx.update(args[0], |list: &mut ListEditor<'_, '_>| match count {
        None => reply.optional_bulk(end.pop(list).as_deref()),
        Some(0) => reply.array(0),
        Some(count) => end.pop_many(list, count, reply),
    })?;
    match (found, count) {
        (Some(()), _) => {}
        (None, Some(_)) => reply.null_array(),
        (None, None) => reply.null(),
    }
    Ok(())
}

fn lpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    pop(ctx, args, reply, End::Left, "lpop")
}

fn rpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    pop(ctx, args, reply, End::Right, "rpop")
}

/// The arguments of LMPOP, and of BLMPOP after its timeout.
struct MultiPop<'a> {
    keys: &'a [&'a [u8]],
    end: End,
    count: usize,
}

impl<'a> MultiPop<'a> {
    fn parse(mut args: Args<'a>) -> Result<MultiPop<'a>> {
        let numkeys = at_least(1, args.next()?, Error::NUMKEYS_NOT_POSITIVE)?;
        let keys = args.take(numkeys)?;
        let end = End::parse(args.next()?)?;
        let mut count = 1;
        if args.take_word("count") {
            let error = Error::new("ERR count should be greater than 0");
            count = at_least(1, args.next()?, error)?;
        }
        args.end()?;
        Ok(MultiPop { keys, end, count })
    }

    /// Pops from the first list that exists; answers whether there is one.
    fn run(&self, ctx: &mut Ctx<'_, '_>, reply: &mut dyn Reply) -> Result<bool> {
        for key in self.keys {
            let found = ctx.tx.update(key, |list: &mut ListEditor<'_, '_>| {
                reply.array(2);
                reply.bulk(key);
                self.end.pop_many(list, self.count, reply);
            })?;
            if found.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn lmpop(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    if !MultiPop::parse(Args::new(args))?.run(ctx, reply)? {
        reply.null_array();
    }
    Ok(())
}

/// LMOVE's arguments: what it moves from where to where.
struct Move<'a> {
    source: &'a [u8],
    destination: &'a [u8],
    from: End,
    to: End,
}

impl<'a> Move<'a> {
    fn parse(args: &[&'a [u8]]) -> Result<Move<'a>> {
        let (from, to) = (End::parse(args[2])?, End::parse(args[3])?);
        Ok(Move { source: args[0], destination: args[1], from, to })
    }

    /// RPOPLPUSH's ends.
    fn right_to_left(args: &[&'a [u8]]) -> Move<'a> {
        Move { source: args[0], destination: args[1], from: End::Right, to: End::Left }
    }

    /// Moves an element; answers whether there was one.
    fn run(&self, ctx: &mut Ctx<'_, '_>, reply: &mut dyn Reply) -> Result<bool> {
        // The changes are the accesses.
        let Some(source) = ctx.tx.look_collection::<List>(self.source)? else {
            return Ok(false);
        };
        let value = self.from.peek(source).expect("a list that exists has elements").to_vec();
        ctx.tx.look_collection::<List>(self.destination)?;
        // The push comes first because its event does. On one and the same
        // list the popped element is still the one that was copied, except
        // when both ends are the same; then the two are equal.
        ctx.tx.update_or_create(self.destination, |list: &mut ListEditor<'_, '_>| {
            self.to.push(list, &value);
            self.to.announce_push(list);
        })?;
        ctx.tx.update(self.source, |list: &mut ListEditor<'_, '_>| self.from.pop(list))?;
        reply.bulk(&value);
        Ok(true)
    }
}

fn lmove(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    if !Move::parse(args)?.run(ctx, reply)? {
        reply.null();
    }
    Ok(())
}

fn rpoplpush(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    if !Move::right_to_left(args).run(ctx, reply)? {
        reply.null();
    }
    Ok(())
}

// ---- changes in the middle ----

fn linsert(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let after = if is_word(args[1], "after") {
        1
    } else if is_word(args[1], "before") {
        0
    } else {
        return Err(Error::SYNTAX);
    };
    let (pivot, element) = (args[2], args[3]);
    let len = ctx.tx.update(args[0], |list: &mut ListEditor<'_, '_>| {
        let at = list.iter().position(|value| value == pivot)?;
        list.insert(at + after, element);
        list.notify(class::LIST, "linsert");
        Some(list.len())
    })?;
    match len {
        None => reply.integer(0),
        Some(None) => reply.integer(-1),
        Some(Some(len)) => reply.count(len),
    }
    Ok(())
}

fn lset(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let list = ctx.tx.collection::<List>(args[0])?.ok_or(Error::NO_SUCH_KEY)?;
    let len = list.len();
    let index = usize::try_from(from_end(integer(args[1])?, len))
        .ok()
        .filter(|&index| index < len)
        .ok_or(Error::INDEX_OUT_OF_RANGE)?;
    ctx.tx.update(args[0], |list: &mut ListEditor<'_, '_>| {
        list.set(index, args[2]);
        list.notify(class::LIST, "lset");
    })?;
    reply.ok();
    Ok(())
}

fn ltrim(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let (start, stop) = (integer(args[1])?, integer(args[2])?);
    ctx.tx.update(args[0], |list: &mut ListEditor<'_, '_>| {
        let keep = index_range(start, stop, list.len());
        if keep.is_empty() {
            list.drop_front(list.len());
        } else {
            list.drop_back(list.len() - keep.end);
            list.drop_front(keep.start);
        }
        list.notify(class::LIST, "ltrim");
    })?;
    reply.ok();
    Ok(())
}

/// Below so many elements LREM removes them one by one.
const REMOVE_SINGLY_MAX: usize = 64;

fn lrem(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    let count = integer(args[1])?;
    let (key, element) = (args[0], args[2]);
    let Some(list) = ctx.tx.collection::<List>(key)? else {
        reply.integer(0);
        return Ok(());
    };
    let len = list.len();
    let at = matches_to_remove(list, count, element);
    reply.count(at.len());
    if at.is_empty() {
        return Ok(());
    }
    // Each removal seeks its element, so removing a good part of a long list
    // one by one would take quadratic time. Writing the rest anew takes linear
    // time, and the record stays in proportion to what was removed.
    if at.len() < len && at.len() > REMOVE_SINGLY_MAX && at.len() >= len / 8 {
        let rest = without(list, &at, ctx.tx.limits());
        let deadline = ctx.tx.deadline(key).flatten();
        ctx.tx.put(key, Value::List(rest), deadline);
        ctx.tx.notify(class::LIST, "lrem", key);
        return Ok(());
    }
    ctx.tx.update(key, |list: &mut ListEditor<'_, '_>| {
        if at.len() == len {
            list.drop_front(len);
        } else {
            at.iter().rev().for_each(|&index| list.remove(index));
        }
        list.notify(class::LIST, "lrem");
    })?;
    Ok(())
}

/// The indices that LREM removes, ascending: the first `count` matches, the
/// last for a negative count, all for zero.
fn matches_to_remove(list: &List, count: i64, element: &[u8]) -> Vec<usize> {
    let most = match usize::try_from(count.unsigned_abs()) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(count) => count,
    };
    if count >= 0 {
        let all = list.iter().enumerate();
        return all.filter(|(_, value)| *value == element).map(|(at, _)| at).take(most).collect();
    }
    let all = list.iter().rev().zip((0..list.len()).rev());
    let mut at: Vec<usize> =
        all.filter(|(value, _)| *value == element).map(|(_, at)| at).take(most).collect();
    at.reverse();
    at
}

/// A copy of `list` without the elements at the indices `at`, ascending.
fn without(list: &List, at: &[usize], limits: &keyspace::EncodingLimits) -> List {
    let mut rest = List::new();
    let mut at = at.iter().copied().peekable();
    for (index, value) in list.iter().enumerate() {
        if at.next_if_eq(&index).is_none() {
            rest.push_back(value, limits);
        }
    }
    rest
}
