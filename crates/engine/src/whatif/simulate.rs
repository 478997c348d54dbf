//! Commands tried on copies of the keys that they name.

use std::borrow::Cow;
use std::collections::HashSet;

use base::{DbIndex, Frame, Reply, Revision, Tape};
use command::{Result, Run};
use keyspace::{Buffers, Finished, Keyspace, Scope, Txn, TxnOptions, class};

use super::ground::Ground;
use super::keys::{Keys, Place, is_about_databases, too_much};
use super::numbers::Numbers;
use super::queue::{Kept, write_refusal};
use super::report::{Asked, Report, Version};
use super::{Step, reply_of, sink};
use crate::call::Call;
use crate::engine::{Engine, Live};
use crate::execute::{Outcome, expire_named};
use crate::session::Watched;
use crate::travel::{Unchanged, view_options};

/// Keys that are read from a whole keyspace at a time.
const SCAN_KEYS: usize = 1024;

/// After a look at live keys: the reply waits for what it tells of.
pub(super) fn settle(call: &mut Call<'_, '_>, finished: &Finished, revision: Revision) {
    let depends_on = finished.depends_on.max(revision);
    call.session.depends_on = call.session.depends_on.max(depends_on);
    call.session.saw(depends_on);
    if finished.loaded > 0 {
        call.engine.count_loaded(finished.loaded);
    }
}

/// A command that only reads runs as it is, but counts as no access.
pub(super) fn read(call: &mut Call<'_, '_>, step: &Step<'_>, asked: Asked) -> Result<Outcome> {
    let Run::Data(handler) = step.command.spec.run else { unreachable!("it is on data") };
    let engine = call.engine.clone();
    let ground = Ground::of(call, places_of(step, call.session.db))?;
    let (mut buffers, mut sink) = (Buffers::default(), sink(call));
    let options = with_events(call.live, view_options(call.live, ground.now_ms));
    let scope = engine.scope(step.command, &step.argv);
    let mut txn = Txn::begin(&ground.keyspace, &scope, &Unchanged, &mut buffers, options);
    txn.keep_due();
    let mut report = Report::new(asked, call.session.db);
    report.revision = ground.revision(&engine);
    let kept = Kept::of(call.session);
    txn.select(call.session.db);
    let (session, live, argv) = (&mut *call.session, call.live, &step.argv);
    let result = engine
        .run_in(&mut txn, session, live, step.command, handler, argv, &mut sink, false)
        .map(drop);
    kept.put_back(call.session);
    let finished = txn.finish();
    report.listeners = ground.listeners_to(&engine, &buffers.take_events());
    settle(call, &finished, report.revision);
    report.write(reply_of(sink, result), call.reply);
    Ok(Outcome::Done)
}

/// DEL and UNLINK: what they remove is seen without copying it, so they can be
/// tried on keys of any size.
pub(super) fn remove(call: &mut Call<'_, '_>, step: &Step<'_>, asked: Asked) -> Result<Outcome> {
    look_at_keys(call, step, asked, |txn, report| {
        let (db, keys) = (txn.db(), &step.argv[1..]);
        let mut seen = HashSet::with_capacity(keys.len());
        for &key in keys {
            let old = Version::of(txn, db, key);
            if old.is_some() && seen.insert(key) {
                report.note(db, key, old, None);
                txn.notify(class::GENERIC, "del", key);
            }
        }
        Frame::Integer(i64::try_from(report.total).unwrap_or(i64::MAX))
    })
}

/// MSET: what it makes of its keys is in its words, so nothing is copied either.
pub(super) fn overwrite(call: &mut Call<'_, '_>, step: &Step<'_>, asked: Asked) -> Result<Outcome> {
    let Ok(pairs) = command::mset_pairs(&step.argv[1..]) else {
        return run(call, std::slice::from_ref(step), asked);
    };
    look_at_keys(call, step, asked, |txn, report| {
        Keys::tell_strings(txn, pairs.map(|pair| (pair[0], pair[1])), report);
        Frame::Simple("OK".to_owned())
    })
}

/// Tries a command whose reply and changes `tell` knows from the keys as they
/// are.
fn look_at_keys(
    call: &mut Call<'_, '_>,
    step: &Step<'_>,
    asked: Asked,
    tell: impl FnOnce(&Txn<'_>, &mut Report) -> Frame,
) -> Result<Outcome> {
    let engine = call.engine.clone();
    let ground = Ground::of(call, places_of(step, call.session.db))?;
    let mut buffers = Buffers::default();
    let options = with_events(call.live, view_options(call.live, ground.now_ms));
    let scope = engine.scope(step.command, &step.argv);
    let mut txn = Txn::begin(&ground.keyspace, &scope, &Unchanged, &mut buffers, options);
    txn.keep_due();
    let db = call.session.db;
    txn.select(db);
    let mut report = Report::new(asked, db);
    report.revision = ground.revision(&engine);
    step.command.keys(&step.argv).iter().for_each(|key| txn.load(step.argv[key.index]));
    txn.check_backing()?;
    let own = tell(&txn, &mut report);
    let finished = txn.finish();
    report.listeners = ground.listeners_to(&engine, &buffers.take_events());
    settle(call, &finished, report.revision);
    report.write(&own, call.reply);
    Ok(Outcome::Done)
}

/// A command that writes.
pub(super) fn run(call: &mut Call<'_, '_>, steps: &[Step<'_>], asked: Asked) -> Result<Outcome> {
    let scope = call.engine.scope(steps[0].command, &steps[0].argv);
    run_in_scope(call, steps, None, scope, asked)
}

/// Tries commands one after another; `watched` is there for those of an EXEC.
pub(super) fn run_in_scope(
    call: &mut Call<'_, '_>,
    steps: &[Step<'_>],
    watched: Option<&[Watched]>,
    scope: Scope,
    asked: Asked,
) -> Result<Outcome> {
    let scope = if matches!(scope, Scope::Sliced) { Scope::All } else { scope };
    let is_whole = matches!(scope, Scope::All);
    let engine = call.engine.clone();
    let named = match is_whole {
        true => Vec::new(),
        false => named_places(steps, call.session.db, engine.keyspace.databases()),
    };
    let ground = Ground::of(call, named.iter().map(|(db, key)| (*db, &**key)))?;
    let mut buffers = Buffers::default();
    let still = view_options(call.live, ground.now_ms);
    let mut txn = Txn::begin(&ground.keyspace, &scope, &Unchanged, &mut buffers, still);
    txn.keep_due();
    let mut report = Report::new(asked, call.session.db);
    report.revision = ground.revision(&engine);
    if !is_unchanged(&mut txn, watched.unwrap_or_default())? {
        let finished = txn.finish();
        settle(call, &finished, report.revision);
        write_refusal(call, &report);
        return Ok(Outcome::Done);
    }
    let bytes_max = call.live.settings.whatif_bytes_max;
    let places = match is_whole {
        true => all_places(&mut txn, bytes_max)?,
        false => named,
    };
    places.iter().for_each(|(db, key)| txn.load_in(*db, key));
    txn.check_backing()?;
    let scratch = engine.scratches.take(&ground.keyspace);
    let (journal, mut tried) = (Numbers::after(report.revision), Buffers::default());
    let options = TxnOptions {
        always_record: true,
        ..engine.txn_options(call.live, ground.now_ms, !call.session.no_touch)
    };
    let mut copies = Txn::begin(&scratch, &scope, &journal, &mut tried, options);
    let keys = Keys::copy(&txn, &places, bytes_max, &mut copies)?;
    let own = try_steps(call, &mut copies, steps, watched.is_some());
    let is_about_databases = is_whole && is_about_databases(&copies, &report)?;
    match is_about_databases {
        true => keys.tell_all(&mut copies, &mut report)?,
        false => keys.tell(&txn, &copies, &mut report)?,
    }
    // Copies that share what they hold with the keys themselves go first: who
    // changed such a key meanwhile would have to copy it.
    if is_about_databases {
        copies.finish();
        drop(scratch);
    } else {
        copies.clear_changed();
        copies.finish();
        engine.scratches.give_back(scratch);
    }
    drop(tried.take_garbage());
    let finished = txn.finish();
    report.listeners = ground.listeners_to(&engine, &tried.take_events());
    settle(call, &finished, report.revision);
    report.write(own, call.reply);
    Ok(Outcome::Done)
}

fn is_unchanged(txn: &mut Txn<'_>, watched: &[Watched]) -> Result<bool> {
    watched.iter().for_each(|watched| txn.load_in(watched.db, &watched.key));
    txn.check_backing()?;
    Ok(watched.iter().all(|watched| {
        txn.select(watched.db);
        let now = txn.info(&watched.key).map_or(Revision::ZERO, |info| info.last_change());
        now == watched.revision
    }))
}

/// The keys that a command names, in the client's database.
fn places_of<'s>(step: &'s Step<'_>, db: DbIndex) -> impl Iterator<Item = (DbIndex, &'s [u8])> {
    let keys = step.command.keys(&step.argv);
    keys.into_iter().map(move |key| (db, step.argv[key.index]))
}

/// The keys that the commands name, in every database that they can mean.
fn named_places<'s>(steps: &'s [Step<'_>], home: DbIndex, databases: DbIndex) -> Vec<Place<'s>> {
    const NAME_DATABASES: &[&str] = &["copy", "move", "select"];
    let stay = !steps.iter().any(|step| NAME_DATABASES.contains(&step.command.spec.name));
    let reached = if stay { home..home + 1 } else { 0..databases };
    let mut places = Vec::new();
    for step in steps {
        for key in step.command.keys(&step.argv) {
            let key = step.argv[key.index];
            places.extend(reached.clone().map(|db| (db, Cow::Borrowed(key))));
        }
    }
    places
}

/// Every key there is, due or not. What does not fit is refused before it is all
/// visited.
fn all_places(txn: &mut Txn<'_>, bytes_max: u64) -> Result<Vec<Place<'static>>> {
    let (mut places, mut bytes) = (Vec::new(), 0);
    for db in 0..txn.databases() {
        txn.select(db);
        let mut cursor = 0;
        loop {
            cursor = txn.scan_with_due(cursor, SCAN_KEYS, &mut |key, seen| {
                bytes += (key.len() + seen.memory_bytes()) as u64;
                places.push((db, Cow::Owned(key.to_vec())));
            })?;
            if bytes > bytes_max {
                return Err(too_much(bytes, bytes_max));
            }
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(places)
}

/// Runs the commands on the copies; answers their reply.
fn try_steps(
    call: &mut Call<'_, '_>,
    copies: &mut Txn<'_>,
    steps: &[Step<'_>],
    is_exec: bool,
) -> Tape {
    let engine = call.engine.clone();
    let (live, now_ms) = (call.live, call.now_ms);
    let mut sink = sink(call);
    let kept = Kept::of(call.session);
    let session = &mut *call.session;
    if is_exec {
        sink.array(steps.len());
    }
    copies.select(session.db);
    steps.iter().for_each(|Step { command, argv }| expire_named(copies, command, argv));
    let mut failure = None;
    for Step { command, argv } in steps {
        copies.select(session.db);
        let result = match command.spec.run {
            Run::Data(handler) => engine
                .run_in(copies, session, live, command, handler, argv, &mut sink, false)
                .map(drop),
            _ => engine
                .run_engine(session, live, command, argv, now_ms, &mut sink, Some(&mut *copies))
                .map(drop),
        };
        match result {
            Err(error) if is_exec => sink.error(error.text()),
            Err(error) => failure = Some(error),
            Ok(()) => {}
        }
    }
    kept.put_back(session);
    reply_of(sink, failure.map_or(Ok(()), Err))
}

/// The same, with the events that somebody listens to.
pub(super) fn with_events<'t>(live: &Live, options: TxnOptions<'t>) -> TxnOptions<'t> {
    TxnOptions { event_classes: live.event_classes, ..options }
}

impl Engine {
    /// Names of up to `count` keys of a database.
    pub(crate) fn some_keys(
        &self,
        keyspace: &Keyspace,
        db: DbIndex,
        count: usize,
        options: TxnOptions<'_>,
    ) -> Result<Vec<Vec<u8>>> {
        let (mut buffers, mut names, mut cursor) = (Buffers::default(), Vec::new(), 0);
        let mut txn = Txn::begin(keyspace, &Scope::Sliced, &Unchanged, &mut buffers, options);
        txn.keep_due();
        txn.select(db);
        while names.len() < count {
            let missing = count - names.len();
            cursor = txn.scan(cursor, missing, &mut |key, _| names.push(key.to_vec()))?;
            if cursor == 0 {
                break;
            }
        }
        names.truncate(count);
        Ok(names)
    }
}
