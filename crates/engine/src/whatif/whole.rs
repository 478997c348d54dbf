//! FLUSHALL, FLUSHDB and SWAPDB: they are answered from counters, and list
//! some keys for all. REMOVE: of the keys that it finds some are looked at.

use base::{DbIndex, Frame, Revision, Tape};
use command::flags::WRITE;
use command::remove::Removal;
use command::{Result, Run};
use keyspace::effect::Effect;
use keyspace::{Buffers, Keyspace, Scope, Txn, TxnOptions, ValueRef, class};

use super::numbers::Numbers;
use super::report::{Asked, Report};
use super::simulate::{settle, with_events};
use super::{Step, reply_of, sink};
use crate::aside::{self, Aside};
use crate::branch::{LiveBranch, no_branch};
use crate::call::Call;
use crate::engine::Engine;
use crate::execute::{Outcome, borrow};
use crate::history::events::{self, Touch};
use crate::history::many::LOOKS_MAX;
use crate::history::whole;
use crate::removal::{changes_always, find_beside};
use crate::travel::{Unchanged, view_options};

/// Whether the command writes and names no key.
pub(super) fn is_about_databases(step: &Step<'_>) -> bool {
    step.command.flags.has(WRITE) && step.command.keys(&step.argv).is_empty()
}

/// A database that is flushed, or changes places with another.
#[derive(Clone, Copy)]
struct Touched {
    db: DbIndex,
    swapped_with: Option<DbIndex>,
}

pub(super) fn run(call: &mut Call<'_, '_>, step: &Step<'_>, asked: Asked) -> Result<Outcome> {
    let (own, touched) = on_nothing(call, step)?;
    let engine = call.engine.clone();
    let branch = engine.branch_of(call.session);
    let mut report = Report::new(asked, call.session.db);
    let options = view_options(call.live, call.now_ms);
    let mut buffers = Buffers::default();
    // All locks for the moment that the counters take: they fit each other.
    let mut txn = Txn::begin(&branch.keyspace, &Scope::All, &Unchanged, &mut buffers, options);
    txn.keep_due();
    report.revision = engine.replicator.newest();
    let mut reached = Vec::new();
    for touched in touched {
        let (bytes, keys) = txn.size_of(touched.db);
        if keys == 0 {
            continue;
        }
        report.total += keys as u64;
        if touched.swapped_with.is_none() {
            report.bytes_before += bytes as u64;
        }
        reached.push(touched);
    }
    let finished = txn.finish();
    settle(call, &finished, report.revision);
    for touched in reached {
        let room = report.room();
        if room == 0 {
            break;
        }
        let change = if touched.swapped_with.is_some() { "changed" } else { "removed" };
        for key in engine.some_keys(&branch.keyspace, touched.db, room, options)? {
            let values = match asked.values {
                true => Some(values(call, &branch.keyspace, touched, &key)?),
                false => None,
            };
            report.list(touched.db, &key, change, values);
        }
    }
    report.write(own, call.reply);
    Ok(Outcome::Done)
}

/// REMOVE: nothing is copied, and only keys that are listed with their values are
/// brought into memory.
pub(super) fn remove(call: &mut Call<'_, '_>, step: &Step<'_>, asked: Asked) -> Result<Outcome> {
    let (id, db) = (call.session.branch(), call.session.db);
    let words: Vec<Vec<u8>> = step.argv.iter().map(|word| word.to_vec()).collect();
    aside::run(call, move |engine, reply| {
        let branch = engine.branch(id).ok_or_else(|| no_branch(&engine.branch_name(id)))?;
        let mut report = Report::about(asked, db, engine.replicator.newest());
        let own = Removal::read(&borrow(&words))
            .and_then(|removal| try_removal(engine, &branch, &removal, &mut report))
            .unwrap_or_else(|error| Frame::Error(error.text().to_owned()));
        report.write(&own, reply);
        Ok(Aside { depends_on: report.revision, ..Aside::default() })
    })
}

/// Tells what a removal would do; answers its own reply.
fn try_removal(
    engine: &Engine,
    branch: &LiveBranch,
    removal: &Removal<'_>,
    report: &mut Report,
) -> Result<Frame> {
    let (live, db) = (engine.live(), report.home());
    let mut sweep = removal.sweep(&branch.keyspace, db, &live.data);
    for _ in 0..LOOKS_MAX {
        find_beside(engine, &mut sweep, removal)?;
        let options = with_events(&live, view_options(&live, engine.clock.now_ms()));
        let mut buffers = Buffers::default();
        let mut txn = Txn::begin(&branch.keyspace, &Scope::All, &Unchanged, &mut buffers, options);
        txn.keep_due();
        txn.select(db);
        if !removal.settle(&mut txn, &mut sweep, &live.data)? {
            continue;
        }
        report.revision = engine.replicator.newest();
        if !removal.is_dry {
            report.total = sweep.len() as u64;
            report.bytes_before = sweep.bytes();
            for key in sweep.names().take(report.room()) {
                let values = match report.has_values() {
                    true => Some([value_of(&mut txn, key)?, Frame::Null]),
                    false => None,
                };
                report.list(db, key, "removed", values);
            }
        }
        txn.finish();
        if !removal.is_dry {
            let told =
                Txn::begin(&branch.keyspace, &Scope::Sliced, &Unchanged, &mut buffers, options);
            sweep.names().for_each(|key| told.notify(class::GENERIC, "del", key));
            told.finish();
            report.listeners = engine.listeners_to(branch.id, &buffers.take_events());
        }
        return Ok(Frame::Integer(i64::try_from(sweep.len()).unwrap_or(i64::MAX)));
    }
    Err(changes_always())
}

fn value_of(txn: &mut Txn<'_>, key: &[u8]) -> Result<Frame> {
    txn.load(key);
    txn.check_backing()?;
    Ok(txn.look(key).map_or(Frame::Null, whole))
}

/// Runs the command on an empty keyspace: its reply, and the databases it is
/// about.
fn on_nothing(call: &mut Call<'_, '_>, step: &Step<'_>) -> Result<(Tape, Vec<Touched>)> {
    let Run::Data(handler) = step.command.spec.run else { unreachable!("it is on data") };
    let engine = call.engine.clone();
    let nothing = engine.keyspace.empty_like();
    nothing.assume_used();
    let (mut buffers, mut sink) = (Buffers::default(), sink(call));
    let journal = Numbers::after(Revision::ZERO);
    let options = TxnOptions { always_record: true, ..view_options(call.live, call.now_ms) };
    let mut txn = Txn::begin(&nothing, &Scope::All, &journal, &mut buffers, options);
    txn.select(call.session.db);
    let (session, live, argv) = (&mut *call.session, call.live, &step.argv);
    let result = engine
        .run_in(&mut txn, session, live, step.command, handler, argv, &mut sink, false)
        .map(drop);
    txn.finish();
    let mut touched = Vec::new();
    events::read_effects(
        Revision::ZERO,
        buffers.first_db(),
        buffers.effects(),
        &mut |Touch { db, effect, .. }| {
            touched.push(match effect {
                Effect::Swap { a, b } => {
                    Touched { db, swapped_with: Some(if db == a { b } else { a }) }
                }
                _ => Touched { db, swapped_with: None },
            });
            Ok(())
        },
    )?;
    Ok((reply_of(sink, result), touched))
}

/// A key's values before and after.
fn values(
    call: &Call<'_, '_>,
    keyspace: &Keyspace,
    touched: Touched,
    key: &[u8],
) -> Result<[Frame; 2]> {
    let value_in = |db| {
        let frame = |value: Option<ValueRef<'_>>, _| value.map_or(Frame::Null, whole);
        call.engine.look_in(keyspace, call.now_ms, db, key, frame)
    };
    let new = touched.swapped_with.map_or(Ok(Frame::Null), value_in)?;
    Ok([value_in(touched.db)?, new])
}
