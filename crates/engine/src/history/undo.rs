//! UNDO: takes mass deletions back, as a new revision.
//!
//! What they took away is read from the state before them; the write waits for
//! a moment at which the log has nothing that was not looked at, as for REVERT.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use base::{BranchId, DbIndex, Frame, Revision};
use command::{Args, Error, Result};
use keyspace::{Keyspace, Scope};

use super::events::{self, What};
use super::revert::{Author, BYTES_MAX, Counts, Job, LOOKS_MAX, Plan, bytes_of};
use super::undoable::{Deletion, Undoables};
use super::{Span, count, number};
use crate::aside::{self, Aside};
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::travel::Moment;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("undo", undo)];

/// Deletions that UNDO LIST answers without COUNT.
const LIST_DEFAULT: usize = 10;

fn undo(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    if args.take_word("list") {
        return list(call);
    }
    let (mut count_max, mut user, mut is_dry) = (1, None, false);
    while !args.is_empty() {
        if args.take_word("count") {
            count_max = count(&mut args)?;
        } else if args.take_word("user") {
            user = Some(args.next()?.to_vec());
        } else if args.take_word("dryrun") {
            is_dry = true;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let author = Author::of(call, "undo", None);
    let (branch, now_ms) = (call.session.branch(), call.now_ms);
    aside::run(call, move |engine, reply| {
        let mut deletions = undoable(engine, branch, now_ms)?;
        deletions.retain(|deletion| user.as_ref().is_none_or(|user| deletion.user == *user));
        deletions.truncate(count_max);
        let undoes = deletions.iter().map(|deletion| deletion.revision).collect();
        let newest = engine.replicator.committed();
        // Deadlines that have passed since are looked at when it is written.
        let to = Moment { branch, revision: newest, time_ms: 0 };
        let job = Job { engine, db: 0, to, author: &author, is_dry, report: None, undoes };
        let written = if deletions.is_empty() { None } else { take_back(&job, &deletions)?.0 };
        let rev = written.map_or(Frame::Null, |revision| number(revision.0));
        let row = |deletion: &Deletion| {
            Frame::Array(vec![number(deletion.revision.0), Frame::bulk(&deletion.command)])
        };
        let undone = Frame::Array(deletions.iter().map(row).collect());
        let map = vec![(Frame::bulk("rev"), rev), (Frame::bulk("undone"), undone)];
        reply.frame(&Frame::Map(map));
        Ok(Aside { depends_on: written.unwrap_or(newest), written })
    })
}

fn list(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(&call.args[1..]);
    let count_max = if args.take_word("count") { count(&mut args)? } else { LIST_DEFAULT };
    args.end()?;
    let (branch, now_ms) = (call.session.branch(), call.now_ms);
    aside::run(call, move |engine, reply| {
        let newest = engine.replicator.committed();
        let row = |deletion: Deletion| {
            Frame::Array(vec![
                number(deletion.revision.0),
                number(deletion.time_ms),
                Frame::bulk(&deletion.command),
                number(deletion.keys),
                number(deletion.bytes),
                number(deletion.until_ms),
            ])
        };
        let rows = undoable(engine, branch, now_ms)?.into_iter().take(count_max).map(row);
        reply.frame(&Frame::Array(rows.collect()));
        Ok(Aside { depends_on: newest, written: None })
    })
}

/// Deletions of a branch that can be taken back, newest first.
fn undoable(engine: &Engine, branch: BranchId, now_ms: u64) -> Result<Vec<Deletion>> {
    let past = engine.needs_past()?;
    let mut undoables = Undoables::default();
    past.wide(past.oldest(), engine.replicator.committed(), &mut |record| {
        if record.header.branch == branch {
            undoables.see(&record);
        }
        ControlFlow::Continue(())
    })?;
    let mut deletions = undoables.at(now_ms);
    deletions.retain(|deletion| deletion.revision > past.oldest());
    Ok(deletions)
}

/// Keys that came back, by the deletion that took them away.
type Owners = BTreeMap<(DbIndex, Vec<u8>), Revision>;

fn take_back(job: &Job<'_>, deletions: &[Deletion]) -> Result<(Option<Revision>, Counts)> {
    let (mut plan, mut owners) = (Plan::new(), Owners::new());
    deletions.iter().try_for_each(|deletion| collect(job, deletion, &mut plan, &mut owners))?;
    let oldest = deletions.last().map_or(Revision::ZERO, |deletion| deletion.revision);
    let mut upto = Revision(oldest.0 - 1);
    let mut changed = BTreeSet::new();
    look_on(job, deletions, &owners, &mut changed, &mut upto)?;
    let _hold = job.engine.writers_held.hold();
    for _ in 0..LOOKS_MAX {
        look_on(job, deletions, &owners, &mut changed, &mut upto)?;
        if !changed.is_empty() {
            return Err(Error::new(format!(
                "MERGECONFLICT {} keys changed since r:{oldest}, nothing done",
                changed.len()
            )));
        }
        if let Some(done) = job.write(&Scope::All, &mut plan, Some(upto), false)? {
            return Ok(done);
        }
    }
    Err(Error::new(format!(
        "TRYAGAIN keys changed during each of {LOOKS_MAX} looks at them, though writers were held up; nothing is \
         undone"
    )))
}

/// Adds what a deletion took away to the plan. What a later one took away comes
/// first: it is what the keys were last.
fn collect(job: &Job<'_>, deletion: &Deletion, plan: &mut Plan, owners: &mut Owners) -> Result {
    let engine = job.engine;
    let before = Revision(deletion.revision.0 - 1);
    let view: &Keyspace = &*engine.view_at(Moment { revision: before, ..job.to })?;
    let mut bytes: usize = plan.values().map(bytes_of).sum();
    for &db in &deletion.dbs {
        let mut names = Vec::new();
        engine.each_key(view, db, &mut |key| names.push(key.to_vec()))?;
        for key in names {
            let then = engine.value_in(view, 0, db, &key)?;
            bytes += bytes_of(&then);
            if bytes > BYTES_MAX {
                return Err(Error::new(format!(
                    "ERR the values to bring back exceed {BYTES_MAX} bytes, the most that one revision takes; \
                     REVERT PREFIX <p> TO r:{before} brings them back in parts"
                )));
            }
            // The oldest one that took it away says since when it must stand still.
            owners.insert((db, key.clone()), deletion.revision);
            plan.entry((db, key)).or_insert(then);
        }
    }
    Ok(())
}

/// Adds keys that were changed after they were taken away, from `upto` to now,
/// which it becomes.
fn look_on(
    job: &Job<'_>,
    deletions: &[Deletion],
    owners: &Owners,
    changed: &mut BTreeSet<(DbIndex, Vec<u8>)>,
    upto: &mut Revision,
) -> Result {
    let newest = job.engine.replicator.newest();
    let span = Span { branch: job.to.branch, after: *upto, upto: newest };
    span.visit(job.engine, |record| {
        // What a transaction did before it took everything away does not count.
        let is_own = deletions.iter().find(|deletion| deletion.revision == record.revision);
        let mut to_come: Vec<DbIndex> = is_own.map_or_else(Vec::new, |own| own.dbs.clone());
        events::read(&record, &mut |touch| {
            if touch.what == What::Flushed {
                to_come.retain(|db| *db != touch.db);
                return Ok(());
            }
            let since = |at: Revision| record.revision >= at && !to_come.contains(&touch.db);
            match touch.key {
                Some(key) => {
                    let place = (touch.db, key.to_vec());
                    if owners.get(&place).is_some_and(|&at| since(at)) {
                        changed.insert(place);
                    }
                }
                // Databases changed places: so did all their keys.
                None => {
                    let of_db =
                        owners.iter().filter(|((db, _), at)| *db == touch.db && since(**at));
                    changed.extend(of_db.map(|(place, _)| place.clone()));
                }
            }
            Ok(())
        })?;
        Ok(ControlFlow::Continue(()))
    })?;
    *upto = newest;
    Ok(())
}
