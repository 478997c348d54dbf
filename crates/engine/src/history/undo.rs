//! UNDO: takes mass deletions back, as a new revision.
//!
//! What they took away is the state before them, which is put back as it is; the
//! write waits for a moment at which the log has nothing that was not looked at,
//! as for REVERT.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, DbIndex, Frame, Revision};
use command::{Args, Error, Result};
use keyspace::{Keyspace, Restoration, ValueRef};

use super::events::{self, What};
use super::left::{self, TakenOver};
use super::many::{Place, check_bytes, each_shard, each_value};
use super::revert::{Author, Counts, Job};
use super::undoable::Deletion;
use super::{Span, count, number, whole};
use crate::aside::{self, Aside};
use crate::branch::Asker;
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::travel::{Moment, view_options};
use crate::whatif::{Asked, Report};

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("undo", undo)];

/// Deletions that UNDO LIST answers without COUNT.
const LIST_DEFAULT: usize = 10;

/// The words of UNDO, read.
struct Order {
    count_max: usize,
    user: Option<Vec<u8>>,
    is_dry: bool,
}

impl Order {
    fn read(words: &[&[u8]]) -> Result<Order> {
        let mut args = Args::new(words);
        let mut order = Order { count_max: 1, user: None, is_dry: false };
        while !args.is_empty() {
            if args.take_word("count") {
                order.count_max = count(&mut args)?;
            } else if args.take_word("user") {
                order.user = Some(args.next()?.to_vec());
            } else if args.take_word("dryrun") {
                order.is_dry = true;
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(order)
    }
}

fn undo(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let words = call.args;
    if asks_for_list(words) {
        return list(call);
    }
    run(call, Order::read(words)?, None)
}

/// Whether the words of UNDO ask what it could take back.
pub(crate) fn asks_for_list(words: &[&[u8]]) -> bool {
    Args::new(words).take_word("list")
}

/// WHATIF UNDO: a dry run that tells of the keys.
pub(crate) fn try_undo(call: &mut Call<'_, '_>, words: &[&[u8]], asked: Asked) -> Result<Outcome> {
    run(call, Order { is_dry: true, ..Order::read(words)? }, Some(asked))
}

fn run(call: &mut Call<'_, '_>, order: Order, asked: Option<Asked>) -> Result<Outcome> {
    let Order { count_max, user, is_dry } = order;
    let (author, asker) = (Author::of(call, "undo", None), call.asker());
    let (branch, db, now_ms) = (call.session.branch(), call.session.db, call.now_ms);
    aside::run(call, move |engine, reply| {
        let mut deletions = undoable(engine, branch, now_ms)?;
        deletions.retain(|deletion| user.as_ref().is_none_or(|user| deletion.user == *user));
        deletions.truncate(count_max);
        engine.check_database(deletions.iter().flat_map(|it| &it.dbs).copied().max())?;
        let undone: Vec<Frame> = deletions.iter().map(Deletion::named).collect();
        let gone: Vec<Deletion> = deletions.extract_if(.., |it| it.branch.is_some()).collect();
        check_can_return(engine, &gone)?;
        if !is_dry && let Some(deleted) = gone.iter().map(|it| it.revision).max() {
            engine.settle_deleted(deleted)?;
        }
        let undoes = deletions.iter().map(|deletion| deletion.revision).collect();
        let newest = engine.replicator.committed();
        // Deadlines that have passed since are looked at when it is written.
        let to = Moment::new(branch, newest, 0);
        let report = asked.map(|asked| RefCell::new(Report::about(asked, db, newest)));
        let job = Job { engine, db: 0, to, author: &author, is_dry, report, undoes };
        let written = match deletions.is_empty() {
            true => None,
            false => match left::take_over(&job, &deletions)? {
                TakenOver::As(revision) => Some(revision),
                TakenOver::Could => None,
                TakenOver::Not => take_back(&job, &deletions)?.0,
            },
        };
        // Last: the keys' part may yet refuse, and nothing is to be done then.
        let back = if is_dry { None } else { bring_back(engine, &asker, &gone)? };
        let written = back.or(written);
        let rev = written.map_or(Frame::Null, |revision| number(revision.0));
        let undone = (Frame::bulk("undone"), Frame::Array(undone));
        let map = Frame::Map(vec![(Frame::bulk("rev"), rev), undone]);
        match job.report.map(RefCell::into_inner) {
            Some(mut report) => {
                gone.iter()
                    .try_for_each(|deletion| tell_of_branch(engine, deletion, &mut report))?;
                report.write(&map, reply);
            }
            None => reply.frame(&map),
        }
        Ok(Aside { depends_on: written.unwrap_or(newest), written, ..Aside::default() })
    })
}

impl Deletion {
    fn named(&self) -> Frame {
        Frame::Array(vec![number(self.revision.0), Frame::bulk(&self.command)])
    }
}

/// Whether all branches that were deleted can be brought back.
fn check_can_return(engine: &Engine, gone: &[Deletion]) -> Result {
    let mut names = BTreeSet::new();
    for row in gone.iter().filter_map(|it| it.branch.as_ref()) {
        engine.check_can_return(row)?;
        if !names.insert(&row.name) {
            return Err(Error::new(format!(
                "BRANCHEXISTS two branches are to come back as '{}', nothing done; UNDO without COUNT brings back the last one",
                String::from_utf8_lossy(&row.name)
            )));
        }
    }
    Ok(())
}

/// Brings back the branches that were deleted, each by a revision of its own.
/// Answers the last revision.
fn bring_back(engine: &Arc<Engine>, asker: &Asker, gone: &[Deletion]) -> Result<Option<Revision>> {
    let mut last = None;
    for deletion in gone {
        let Some(row) = &deletion.branch else { continue };
        let deleted = deletion.revision;
        last = Some(engine.bring_back(asker, row, deleted)?);
    }
    Ok(last)
}

/// Tells of the keys that a deleted branch would come back with: all are counted,
/// those for which there is room are listed.
fn tell_of_branch(engine: &Engine, deletion: &Deletion, report: &mut Report) -> Result {
    let Some(row) = &deletion.branch else { return Ok(()) };
    report.total += deletion.keys;
    if report.room() == 0 || deletion.keys == 0 {
        return Ok(());
    }
    let before = Revision(deletion.revision.0 - 1);
    let at = Moment::new(row.id, before, deletion.time_ms);
    let (view, live) = (engine.view_at(at)?, engine.live());
    for db in 0..view.databases() {
        let options = view_options(&live, 0);
        for key in engine.some_keys(&view, db, report.room(), options)? {
            let frame = |value: Option<ValueRef<'_>>, _| value.map_or(Frame::Null, whole);
            let value = match report.has_values() {
                true => Some(engine.look_in(&view, 0, db, &key, frame)?),
                false => None,
            };
            report.list_back(&row.name, db, key, value);
        }
    }
    Ok(())
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
        Ok(Aside { depends_on: newest, ..Aside::default() })
    })
}

/// Deletions of a branch that can be taken back, newest first.
fn undoable(engine: &Engine, branch: BranchId, now_ms: u64) -> Result<Vec<Deletion>> {
    let past = engine.needs_past()?;
    let (oldest, newest) = (past.oldest(), engine.replicator.committed());
    let window_ms = engine.undo_window_ms();
    let mut deletions =
        engine.undo_marks.undoable(now_ms, window_ms, oldest, |is_known, visit| {
            past.taken_back(oldest, newest, is_known, visit)
        })?;
    let known = engine.branches.known.read();
    deletions.retain(|deletion| {
        // What was before a branch began anew is gone.
        deletion.on == branch
            && known.is_there(branch, deletion.revision)
            && deletion.revision > past.oldest()
            && deletion.branch.as_ref().is_none_or(|row| known.is_deleted(row.id))
    });
    Ok(deletions)
}

/// Since when keys must stand still: since the newest of the deletions that took
/// them away, which is what they were last.
enum Since {
    /// There is but one.
    Only(Revision),
    ByKey(BTreeMap<Place, Revision>),
}

impl Since {
    fn of(&self, restoration: &Restoration, db: DbIndex, key: &[u8]) -> Option<Revision> {
        match self {
            Since::Only(revision) => restoration.knows(db, key).then_some(*revision),
            Since::ByKey(revisions) => revisions.get(&(db, key.to_vec())).copied(),
        }
    }
}

fn take_back(job: &Job<'_>, deletions: &[Deletion]) -> Result<(Option<Revision>, Counts)> {
    let (wanted, since) = collect(job, deletions)?;
    let oldest = deletions.last().map_or(Revision::ZERO, |deletion| deletion.revision);
    let mut upto = Revision(oldest.0 - 1);
    job.restore(Restoration::to(wanted), &mut |restoration| {
        let changed = look_on(job, deletions, &since, restoration, &mut upto)?;
        match changed.len() {
            0 => Ok(upto),
            count => Err(conflict(count, deletions)),
        }
    })
}

/// Why deletions, newest first, are not taken back: so many keys are others now.
pub(super) fn conflict(keys: usize, deletions: &[Deletion]) -> Error {
    let oldest = deletions.last().map_or(Revision::ZERO, |deletion| deletion.revision);
    let s = if keys == 1 { "" } else { "s" };
    Error::new(format!("MERGECONFLICT {keys} key{s} changed since r:{oldest}, nothing done"))
}

/// What deletions took away, newest first. What a later one took away is what
/// the keys were last.
fn collect(job: &Job<'_>, deletions: &[Deletion]) -> Result<(Keyspace, Since)> {
    let branch = job.branch()?;
    if let [only] = deletions {
        let wanted = state_before(job, only)?.hashed_as(&branch.keyspace);
        return Ok((wanted, Since::Only(only.revision)));
    }
    let wanted = branch.keyspace.empty_like();
    let mut since = BTreeMap::new();
    for deletion in deletions {
        let state = state_before(job, deletion)?;
        for db in 0..state.databases() {
            job.engine.each_key(&state, db, &mut |key| {
                since.entry((db, key.to_vec())).or_insert(deletion.revision);
            })?;
        }
        wanted.absorb(&state);
        check_size(wanted.memory_bytes(), deletion, job.engine.revision_bytes_max())?;
    }
    Ok((wanted, Since::ByKey(since)))
}

/// What a deletion took away, as it was before its transaction.
fn state_before(job: &Job<'_>, deletion: &Deletion) -> Result<Keyspace> {
    let before = Moment { revision: Revision(deletion.revision.0 - 1), ..job.to };
    let state = match deletion.dbs.is_empty() {
        true => job.branch()?.keyspace.empty_like(),
        false => emptied_by(job, deletion, before)?,
    };
    if deletion.has_named {
        let (mut bytes, max) = (state.memory_bytes(), job.engine.revision_bytes_max());
        let named = named_by(job, deletion)?;
        each_value(job.engine, before, named, &mut |db, key, then| {
            let Some(stored) = then else { return Ok(()) };
            bytes += key.len() + stored.value.memory_bytes();
            check_size(bytes, deletion, max)?;
            state.give(db, key, stored);
            Ok(())
        })?;
    }
    Ok(state)
}

/// The databases that a deletion emptied, as they were.
fn emptied_by(job: &Job<'_>, deletion: &Deletion, before: Moment) -> Result<Keyspace> {
    let state = job.engine.state_at(before)?;
    let max = job.engine.revision_bytes_max();
    for db in 0..state.databases() {
        if !deletion.dbs.contains(&db) {
            state.clear(db);
            continue;
        }
        each_shard(&|shard| {
            state.load_shard(db, shard)?;
            check_size(state.memory_bytes(), deletion, max)
        })?;
    }
    // What was erased since does not come back, so to erase it is no conflict.
    for (db, key) in job.engine.erased_since(&state, before.branch, before.revision)? {
        state.take(db, &key)?;
    }
    Ok(state)
}

/// The keys that a deletion took away by their names; one may come again.
fn named_by(job: &Job<'_>, deletion: &Deletion) -> Result<Vec<Place>> {
    let after = Revision(deletion.revision.0 - 1);
    let span = Span { branch: job.to.branch, after, upto: deletion.revision };
    let mut named = Vec::new();
    span.visit(job.engine, |record| {
        events::read(&record, &mut |touch| {
            let key = touch.key.filter(|_| touch.is_undoable);
            named.extend(key.map(|key| (touch.db, key.to_vec())));
            Ok(())
        })?;
        Ok(ControlFlow::Continue(()))
    })?;
    job.engine.check_database(named.iter().map(|(db, _)| *db).max())?;
    Ok(named)
}

fn check_size(bytes: usize, deletion: &Deletion, max: usize) -> Result {
    let before = Revision(deletion.revision.0 - 1);
    let what_to_do = format!("REVERT PREFIX <p> TO r:{before} brings them back in parts");
    check_bytes(bytes, max, &what_to_do)
}

/// Keys that were changed after they were taken away, from `upto` to now,
/// which it becomes.
fn look_on(
    job: &Job<'_>,
    deletions: &[Deletion],
    since: &Since,
    restoration: &Restoration,
    upto: &mut Revision,
) -> Result<BTreeSet<Place>> {
    let newest = job.engine.replicator.newest();
    let mut changed = BTreeSet::new();
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
            if to_come.contains(&touch.db) {
                return Ok(());
            }
            if let Some(key) = touch.key.filter(|_| touch.is_undoable && is_own.is_some()) {
                changed.remove(&(touch.db, key.to_vec()));
                return Ok(());
            }
            let mut add = |key: &[u8]| {
                let at = since.of(restoration, touch.db, key);
                if at.is_some_and(|at| record.revision >= at) {
                    changed.insert((touch.db, key.to_vec()));
                }
            };
            match touch.key {
                Some(key) => add(key),
                // Keys that came back: those of them that went again were seen to.
                None if touch.what == What::Returned => {
                    let branch = job.branch()?;
                    for (db, key) in restoration.places() {
                        let is_there = |value: Option<ValueRef<'_>>, _| value.is_some();
                        if db != touch.db {
                            continue;
                        }
                        aside::bring(&branch.keyspace, db, &key)?;
                        if job.engine.look_in(&branch.keyspace, 0, db, &key, is_there)? {
                            add(&key);
                        }
                    }
                }
                // Databases changed places: so did all their keys.
                None => {
                    let places = restoration.places();
                    places.iter().filter(|(db, _)| *db == touch.db).for_each(|(_, key)| add(key));
                }
            }
            Ok(())
        })?;
        Ok(ControlFlow::Continue(()))
    })?;
    *upto = newest;
    Ok(changed)
}
