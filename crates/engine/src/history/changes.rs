//! CHANGES and TIMELINE: what became of many keys.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use base::{Frame, Reply, Revision, Tape, glob};
use command::args::{duration_ms, shown};
use command::{Args, Error, Result};
use keyspace::effect::Cause;

use super::changed::{Change, Changed};
use super::events::{self, What, Who};
use super::kept::KeptOfMany;
use super::{Bounds, count, integer, number};
use crate::aside::{self, Aside};
use crate::call::{Call, Handler};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("changes", changes), ("timeline", timeline)];

/// Changes that CHANGES answers without COUNT.
const COUNT_DEFAULT: usize = 1000;

fn changes(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let (mut bounds, mut pattern, mut count_max) = (Bounds::default(), None, COUNT_DEFAULT);
    while !args.is_empty() {
        if bounds.take(call.engine, &mut args)? {
        } else if args.take_word("match") {
            pattern = Some(args.next()?.to_vec());
        } else if args.take_word("count") {
            count_max = count(&mut args)?;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let (branch, db, now_ms) = (call.session.branch(), call.session.db, call.now_ms);
    aside::run(call, move |engine, reply| {
        let resolve = || bounds.resolve(engine, branch, now_ms);
        bounds.read(engine, resolve, |span| {
            let (mut rows, mut len) = (Tape::new(reply.is_resp3()), 0);
            let mut kept = KeptOfMany::new(engine, branch, db);
            let mut is_wanted = |key: Option<&[u8]>, at: Revision| -> Result<bool> {
                // What is about every key is about those that match.
                let Some(key) = key else { return Ok(true) };
                let matches = pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key));
                Ok(matches && kept.keeps(key, at)?)
            };
            span.visit_changes(engine, |record| {
                let mut changed = Changed::default();
                let who = events::read(&record, &mut |touch| {
                    if touch.db == db && is_wanted(touch.key, record.revision)? {
                        changed.add(touch);
                    }
                    Ok(())
                })?;
                for Change { key, what, .. } in changed.into_changes() {
                    rows.array(8);
                    rows.integer(integer(record.revision.0));
                    rows.integer(integer(record.header.time_ms));
                    rows.optional_bulk(key);
                    events::write_origin(what, who, &mut rows);
                    rows.bulk(what.word().as_bytes());
                    len += 1;
                }
                // A reader goes on after a revision, so none is cut in two.
                let is_enough = len >= count_max;
                Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            reply.array(len);
            reply.tape(&rows);
            Ok(Aside { depends_on: span.upto, ..Aside::default() })
        })
    })
}

/// What TIMELINE counts.
#[derive(Clone, Copy)]
enum By {
    /// Transactions by the command that made them.
    Command,
    /// Transactions by user.
    User,
    /// Changed keys by what stands before the first colon of their names, it
    /// included; databases that changed as wholes by what became of them.
    Prefix,
}

fn timeline(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let (mut bounds, mut by, mut bucket_ms) = (Bounds::default(), By::Command, 60_000);
    while !args.is_empty() {
        if bounds.take(call.engine, &mut args)? {
        } else if args.take_word("by") {
            by = match args.next()?.to_ascii_lowercase().as_slice() {
                b"command" => By::Command,
                b"user" => By::User,
                b"prefix" => By::Prefix,
                _ => return Err(Error::new("ERR BY takes COMMAND, USER or PREFIX")),
            };
        } else if args.take_word("bucket") {
            bucket_ms = bucket(args.next()?)?;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let (branch, db, now_ms) = (call.session.branch(), call.session.db, call.now_ms);
    aside::run(call, move |engine, reply| {
        let resolve = || bounds.resolve(engine, branch, now_ms);
        bounds.read(engine, resolve, |span| {
            let mut counts: BTreeMap<(u64, Option<Vec<u8>>), u64> = BTreeMap::new();
            let mut kept = KeptOfMany::new(engine, branch, db);
            span.visit_changes(engine, |record| {
                let bucket = record.header.time_ms / bucket_ms * bucket_ms;
                let mut changed = Changed::default();
                let who = events::read(&record, &mut |touch| {
                    let is_kept = |kept: &mut KeptOfMany<'_>| match touch.key {
                        Some(key) => kept.keeps(key, record.revision),
                        None => Ok(true),
                    };
                    if touch.db == db && is_kept(&mut kept)? {
                        changed.add(touch);
                    }
                    Ok(())
                })?;
                for name in names(by, &changed.into_changes(), who) {
                    *counts.entry((bucket, name)).or_default() += 1;
                }
                Ok(ControlFlow::Continue(()))
            })?;
            let row = |((time_ms, name), count): ((u64, Option<Vec<u8>>), u64)| {
                let name = name.map_or(Frame::Null, Frame::Bulk);
                Frame::Array(vec![number(time_ms), name, number(count)])
            };
            reply.frame(&Frame::Array(counts.into_iter().map(row).collect()));
            Ok(Aside { depends_on: span.upto, ..Aside::default() })
        })
    })
}

fn bucket(arg: &[u8]) -> Result<u64> {
    duration_ms(arg).filter(|&ms| ms > 0).ok_or_else(|| {
        Error::new(format!(
            "ERR BUCKET '{}' is no duration above zero, such as 30s, 10m or 2h",
            shown(arg)
        ))
    })
}

/// What a transaction counts under.
fn names(by: By, changes: &[Change<'_>], who: Option<Who<'_>>) -> Vec<Option<Vec<u8>>> {
    if changes.is_empty() {
        return Vec::new();
    }
    // No command is called so.
    let gone_by = |cause| changes.iter().all(|change| change.what == What::Gone(cause));
    let by_itself = match () {
        () if gone_by(Cause::Expired) => Some("expired"),
        () if gone_by(Cause::Evicted) => Some("evicted"),
        () => None,
    };
    // That a command has brought it to light makes it nobody's doing.
    let who = who.filter(|_| by_itself.is_none());
    match by {
        By::Command => {
            let name = who.map(|who| who.name()).or(by_itself.map(str::as_bytes));
            vec![name.map(<[u8]>::to_vec)]
        }
        By::User => vec![who.map(|who| who.user.to_vec())],
        By::Prefix => {
            // No prefix is like these words, which have no colon.
            let whole = |change: &Change<'_>| change.what.word().as_bytes().to_vec();
            let name = |change: &Change<'_>| change.key.map_or_else(|| whole(change), prefix);
            changes.iter().map(|change| Some(name(change))).collect()
        }
    }
}

fn prefix(key: &[u8]) -> Vec<u8> {
    let end = key.iter().position(|byte| *byte == b':').map_or(0, |colon| colon + 1);
    key[..end].to_vec()
}
