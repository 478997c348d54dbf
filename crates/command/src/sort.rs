//! SORT and SORT_RO.

use std::cmp::Ordering;

use base::Reply;
use keyspace::types::{Hash, List};
use keyspace::{Txn, Value, ValueRef, class};
use smallvec::SmallVec;

use crate::args::{Args, is_word, lenient_float};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::keys::{Begin, Find, KeyRef, KeySpec, key_flags::*};
use crate::spec::ScopeRule;

/// The key, and STORE's destination wherever it stands.
pub(crate) const KEYS: &[KeySpec] = &[
    KeySpec::one(1, RO.with(ACCESS)),
    KeySpec { flags: OW.with(UPDATE), begin: Begin::Index(1), find: Find::Custom(destination) },
];

/// The key; those that the patterns name show only when it is read.
pub(crate) const READ_KEYS: &[KeySpec] = &[
    KeySpec::one(1, RO.with(ACCESS)),
    KeySpec {
        flags: RO.with(ACCESS).with(INCOMPLETE),
        begin: Begin::Index(1),
        find: Find::Custom(|_| SmallVec::new()),
    },
];

/// The last STORE's argument, as Redis takes it.
fn destination(argv: &[&[u8]]) -> SmallVec<[KeyRef; 4]> {
    let mut found = None;
    let mut index = 2;
    while index < argv.len() {
        let arg = argv[index];
        if is_word(arg, "limit") {
            index += 2;
        } else if is_word(arg, "get") || is_word(arg, "by") {
            index += 1;
        } else if is_word(arg, "store") && index + 1 < argv.len() {
            index += 1;
            found = Some(index);
        }
        index += 1;
    }
    found.into_iter().map(|index| KeyRef { index, flags: OW.with(UPDATE) }).collect()
}

/// With patterns the command reads keys that its arguments do not name.
pub(crate) fn scope(args: &[&[u8]]) -> ScopeRule {
    let names_others = args
        .windows(2)
        .any(|pair| (is_word(pair[0], "by") || is_word(pair[0], "get")) && pair[1].contains(&b'*'));
    if names_others { ScopeRule::All } else { ScopeRule::Keys }
}

struct Request<'a> {
    by: Option<&'a [u8]>,
    /// BY a constant: leave the order as it is.
    keep_order: bool,
    limit: Option<(i64, i64)>,
    get: Vec<&'a [u8]>,
    descending: bool,
    alpha: bool,
    store: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    fn parse(args: &'a [&'a [u8]], may_store: bool) -> Result<Request<'a>> {
        let mut request = Request {
            by: None,
            keep_order: false,
            limit: None,
            get: Vec::new(),
            descending: false,
            alpha: false,
            store: None,
        };
        let mut args = Args::new(args);
        while !args.is_empty() {
            if args.take_word("asc") {
                request.descending = false;
            } else if args.take_word("desc") {
                request.descending = true;
            } else if args.take_word("alpha") {
                request.alpha = true;
            } else if args.len() >= 3 && args.take_word("limit") {
                request.limit = Some((args.next_i64()?, args.next_i64()?));
            } else if may_store && args.len() >= 2 && args.take_word("store") {
                request.store = Some(args.next()?);
            } else if args.len() >= 2 && args.take_word("by") {
                let pattern = args.next()?;
                request.keep_order = !pattern.contains(&b'*');
                request.by = Some(pattern).filter(|_| !request.keep_order);
            } else if args.len() >= 2 && args.take_word("get") {
                request.get.push(args.next()?);
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(request)
    }
}

/// An element with what it is ordered by.
struct Item {
    element: Vec<u8>,
    number: f64,
    text: Option<Vec<u8>>,
}

pub(crate) fn sort(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    run(ctx, args[0], &Request::parse(&args[1..], true)?, reply)
}

pub(crate) fn sort_ro(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], reply: &mut dyn Reply) -> Result {
    run(ctx, args[0], &Request::parse(&args[1..], false)?, reply)
}

fn run(ctx: &mut Ctx<'_, '_>, key: &[u8], request: &Request<'_>, reply: &mut dyn Reply) -> Result {
    let elements = elements(ctx.tx, key, request)?;
    let mut items = elements
        .into_iter()
        .map(|element| weigh(ctx.tx, element, request))
        .collect::<Result<Vec<_>>>()?;
    if !request.keep_order {
        items.sort_by(|a, b| {
            let order = compare(a, b, request);
            if request.descending { order.reverse() } else { order }
        });
    }
    let range = window(request.limit, items.len());
    let chosen = &items[range];
    let mut results: Vec<Option<Vec<u8>>> = Vec::new();
    for item in chosen {
        if request.get.is_empty() {
            results.push(Some(item.element.clone()));
        }
        for pattern in &request.get {
            results.push(lookup(ctx.tx, pattern, &item.element)?);
        }
    }
    match request.store {
        None => {
            reply.array(results.len());
            results.iter().for_each(|result| reply.optional_bulk(result.as_deref()));
        }
        Some(destination) => {
            let mut list = List::new();
            for result in &results {
                list.push_back(result.as_deref().unwrap_or_default(), ctx.tx.limits());
            }
            if list.is_empty() {
                if ctx.tx.delete(destination) {
                    ctx.tx.notify(class::GENERIC, "del", destination);
                }
            } else {
                ctx.tx.put(destination, Value::List(list), None);
                ctx.tx.notify(class::LIST, "sortstore", destination);
            }
            reply.count(results.len());
        }
    }
    Ok(())
}

/// The elements in their own order; a set stored or shown without an order
/// gets one by its bytes, so that the result can be told beforehand.
fn elements(tx: &Txn<'_>, key: &[u8], request: &Request<'_>) -> Result<Vec<Vec<u8>>> {
    Ok(match tx.get(key) {
        None => Vec::new(),
        Some(ValueRef::List(list)) if request.keep_order && request.descending => {
            list.iter().rev().map(<[u8]>::to_vec).collect()
        }
        Some(ValueRef::List(list)) => list.iter().map(<[u8]>::to_vec).collect(),
        Some(ValueRef::Set(set)) => {
            let mut members: Vec<Vec<u8>> = set.iter().map(|member| member.to_vec()).collect();
            if request.keep_order && request.store.is_some() {
                members.sort_unstable();
            }
            members
        }
        Some(ValueRef::Zset(zset)) => {
            let ranks = zset.range_by_rank(0..zset.len(), request.keep_order && request.descending);
            ranks.map(|(member, _)| member.to_vec()).collect()
        }
        Some(_) => return Err(Error::WRONG_TYPE),
    })
}

fn weigh(tx: &mut Txn<'_>, element: Vec<u8>, request: &Request<'_>) -> Result<Item> {
    if request.keep_order {
        return Ok(Item { element, number: 0.0, text: None });
    }
    let weight = match request.by {
        Some(pattern) => lookup(tx, pattern, &element)?,
        None => Some(element.clone()),
    };
    if request.alpha {
        return Ok(Item { element, number: 0.0, text: weight });
    }
    let number = match &weight {
        None => 0.0,
        // Infinity must be spelled out: a number too large is none here.
        Some(text) => lenient_float(text)
            .filter(|number| number.is_finite() || !text.iter().any(u8::is_ascii_digit))
            .ok_or(Error::new("ERR One or more scores can't be converted into double"))?,
    };
    Ok(Item { element, number, text: None })
}

fn compare(a: &Item, b: &Item, request: &Request<'_>) -> Ordering {
    if request.alpha {
        // What has no weight comes first; equal weights keep their order.
        return a.text.cmp(&b.text);
    }
    // Equal numbers are ordered by the elements, so that the order is one.
    let by_weight = a.number.partial_cmp(&b.number).unwrap_or(Ordering::Equal);
    by_weight.then_with(|| a.element.cmp(&b.element))
}

fn window(limit: Option<(i64, i64)>, len: usize) -> std::ops::Range<usize> {
    let Some((start, count)) = limit else { return 0..len };
    let start = usize::try_from(start).unwrap_or(0).min(len);
    let end = match usize::try_from(count) {
        Ok(count) => start.saturating_add(count).min(len),
        Err(_) => len,
    };
    start..end
}

/// The value that a pattern names for an element: `#` the element itself, else
/// `*` stands for it and `->field` asks for a field of a hash.
fn lookup(tx: &mut Txn<'_>, pattern: &[u8], element: &[u8]) -> Result<Option<Vec<u8>>> {
    if pattern == b"#" {
        return Ok(Some(element.to_vec()));
    }
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else { return Ok(None) };
    let arrow = pattern.windows(2).skip(star).position(|pair| pair == b"->").map(|at| at + star);
    let (name, field) = match arrow {
        Some(at) if at + 2 < pattern.len() => (&pattern[..at], Some(&pattern[at + 2..])),
        _ => (pattern, None),
    };
    let key = [&name[..star], element, &name[star + 1..]].concat();
    tx.load_first(tx.db(), &key);
    tx.check_backing()?;
    let found = match field {
        Some(field) => tx.collection::<Hash>(&key).ok().flatten().and_then(|hash| hash.get(field)),
        None => tx.string(&key).ok().flatten(),
    };
    Ok(found.map(<[u8]>::to_vec))
}
