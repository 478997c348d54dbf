//! Commands tried on copies of the keys that they name.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use base::{DbIndex, Frame, Reply, Revision};
use command::{Error, Result, Run};
use keyspace::{Buffers, Finished, Keyspace, Scope, Txn, TxnOptions, class};

use super::numbers::Numbers;
use super::queue::{Kept, write_refusal};
use super::report::{Asked, Report, Version};
use super::{Step, frame_of, sink};
use crate::call::Call;
use crate::engine::{Engine, Live};
use crate::execute::Outcome;
use crate::history::events;
use crate::session::Watched;
use crate::travel::{Unchanged, view_options};

/// A key and its database.
type Place<'p> = (DbIndex, Cow<'p, [u8]>);

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
    let branch = engine.branch_of(call.session);
    let (mut buffers, mut sink) = (Buffers::default(), sink(call));
    let options = with_events(call.live, view_options(call.live, call.now_ms));
    let scope = engine.scope(step.command, &step.argv);
    let mut txn = Txn::begin(&branch.keyspace, &scope, &Unchanged, &mut buffers, options);
    txn.keep_due();
    let mut report = Report::new(asked, call.session.db);
    report.revision = engine.replicator.newest();
    let kept = Kept::of(call.session);
    txn.select(call.session.db);
    let (session, live, argv) = (&mut *call.session, call.live, &step.argv);
    let result = engine
        .run_in(&mut txn, session, live, step.command, handler, argv, &mut sink, false)
        .map(drop);
    kept.put_back(call.session);
    let finished = txn.finish();
    report.listeners = engine.listeners_to(branch.id, &buffers.take_events());
    settle(call, &finished, report.revision);
    report.write(&frame_of(sink, result), call.reply);
    Ok(Outcome::Done)
}

/// DEL and UNLINK: what they remove is seen without copying it, so they can be
/// tried on keys of any size.
pub(super) fn remove(call: &mut Call<'_, '_>, step: &Step<'_>, asked: Asked) -> Result<Outcome> {
    let engine = call.engine.clone();
    let branch = engine.branch_of(call.session);
    let mut buffers = Buffers::default();
    let options = with_events(call.live, view_options(call.live, call.now_ms));
    let scope = engine.scope(step.command, &step.argv);
    let mut txn = Txn::begin(&branch.keyspace, &scope, &Unchanged, &mut buffers, options);
    txn.keep_due();
    let db = call.session.db;
    txn.select(db);
    let mut report = Report::new(asked, db);
    report.revision = engine.replicator.newest();
    let keys = &step.argv[1..];
    keys.iter().for_each(|key| txn.load(key));
    txn.check_backing()?;
    let mut seen = HashSet::with_capacity(keys.len());
    for &key in keys {
        let old = Version::of(&txn, key);
        if old.is_some() && seen.insert(key) {
            report.note(db, key, old, None);
            txn.notify(class::GENERIC, "del", key);
        }
    }
    let finished = txn.finish();
    report.listeners = engine.listeners_to(branch.id, &buffers.take_events());
    settle(call, &finished, report.revision);
    let removed = Frame::Integer(i64::try_from(report.total).unwrap_or(i64::MAX));
    report.write(&removed, call.reply);
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
    let branch = engine.branch_of(call.session);
    let mut buffers = Buffers::default();
    let still = view_options(call.live, call.now_ms);
    let mut txn = Txn::begin(&branch.keyspace, &scope, &Unchanged, &mut buffers, still);
    txn.keep_due();
    let mut report = Report::new(asked, call.session.db);
    report.revision = engine.replicator.newest();
    if !is_unchanged(&mut txn, watched.unwrap_or_default())? {
        let finished = txn.finish();
        settle(call, &finished, report.revision);
        write_refusal(call, &report);
        return Ok(Outcome::Done);
    }
    let bytes_max = call.live.settings.whatif_bytes_max;
    let places = match is_whole {
        true => all_places(&mut txn, bytes_max)?,
        false => named_places(steps, call.session.db, txn.databases()),
    };
    let scratch = engine.scratches.take(&branch.keyspace);
    copy(&mut txn, &places, bytes_max, &scratch)?;

    let journal = Numbers::after(report.revision);
    let mut tried = Buffers::default();
    let own = try_steps(call, &scratch, &scope, &journal, steps, watched.is_some(), &mut tried);

    let events = tried.take_events();
    let (touched, is_about_databases) = places_of(&tried, report.revision, &scratch)?;
    let mut looks = Buffers::default();
    let mut after = Txn::begin(&scratch, &scope, &Unchanged, &mut looks, still);
    let touched = match is_about_databases {
        true => everywhere(&mut after, places.clone(), touched)?,
        false => touched,
    };
    for (db, key) in &touched {
        txn.select(*db);
        after.select(*db);
        report.note(*db, key, Version::of(&txn, key), Version::of(&after, key));
    }
    drop(after);
    // Copies that share what they hold with the keys themselves go first: who
    // changed such a key meanwhile would have to copy it.
    if is_about_databases {
        drop(scratch);
    } else {
        let left = places.iter().chain(&touched).map(|(db, key)| (*db, &**key));
        engine.scratches.give_back(scratch, left);
    }
    let finished = txn.finish();
    report.listeners = engine.listeners_to(branch.id, &events);
    settle(call, &finished, report.revision);
    report.write(&own, call.reply);
    Ok(Outcome::Done)
}

fn is_unchanged(txn: &mut Txn<'_>, watched: &[Watched]) -> Result<bool> {
    watched.iter().for_each(|watched| txn.load_in(watched.db, &watched.key));
    txn.check_backing()?;
    Ok(watched.iter().all(|watched| {
        txn.select(watched.db);
        let now = txn.info(&watched.key).map_or(Revision::ZERO, |info| info.revision);
        now == watched.revision
    }))
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
            cursor = txn.scan_with_due(cursor, SCAN_KEYS, &mut |key, value| {
                bytes += (key.len() + value.memory_bytes()) as u64;
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

/// Copies those of the keys that exist, due or not.
fn copy(txn: &mut Txn<'_>, places: &[Place<'_>], bytes_max: u64, scratch: &Keyspace) -> Result {
    let mut left = bytes_max;
    for (db, key) in places {
        txn.select(*db);
        txn.load(key);
        let copied = txn.copy_to(key, scratch, &mut left);
        copied.map_err(|bytes| too_much(bytes_max - left + bytes, bytes_max))?;
    }
    Ok(txn.check_backing()?)
}

fn too_much(bytes: u64, max: u64) -> Error {
    Error::new(format!(
        "ERR WHATIF would copy {bytes} bytes or more of values, whatif-max-bytes is {max}; name fewer keys, or raise \
         it with CONFIG SET"
    ))
}

/// Runs the commands on the copies; answers their reply.
fn try_steps(
    call: &mut Call<'_, '_>,
    scratch: &Keyspace,
    scope: &Scope,
    journal: &Numbers,
    steps: &[Step<'_>],
    is_exec: bool,
    buffers: &mut Buffers,
) -> Frame {
    let engine = call.engine.clone();
    let (live, now_ms) = (call.live, call.now_ms);
    let options = TxnOptions {
        always_record: true,
        ..engine.txn_options(live, now_ms, !call.session.no_touch)
    };
    let mut sink = sink(call);
    let kept = Kept::of(call.session);
    let session = &mut *call.session;
    let mut txn = Txn::begin(scratch, scope, journal, buffers, options);
    if is_exec {
        sink.array(steps.len());
    }
    let mut failure = None;
    for Step { command, argv } in steps {
        txn.select(session.db);
        let result = match command.spec.run {
            Run::Data(handler) => engine
                .run_in(&mut txn, session, live, command, handler, argv, &mut sink, false)
                .map(drop),
            _ => engine
                .run_engine(session, live, command, argv, now_ms, &mut sink, Some(&mut txn))
                .map(drop),
        };
        match result {
            Err(error) if is_exec => sink.error(error.text()),
            Err(error) => failure = Some(error),
            Ok(()) => {}
        }
    }
    txn.finish();
    kept.put_back(session);
    frame_of(sink, failure.map_or(Ok(()), Err))
}

/// The keys that were written, in that order, and whether databases were
/// flushed or swapped as a whole.
fn places_of<'t>(
    tried: &'t Buffers,
    revision: Revision,
    scratch: &Keyspace,
) -> Result<(Vec<Place<'t>>, bool)> {
    let (mut places, mut is_about_databases) = (Vec::<Place<'t>>::new(), false);
    // Where each stands, by its hash, or one of the next numbers if another has
    // the same.
    let mut known: HashMap<u64, usize, BuildHasherDefault<Hashed>> = HashMap::default();
    events::read_effects(revision, tried.first_db(), tried.effects(), &mut |touch| {
        let Some(key) = touch.key else {
            is_about_databases = true;
            return Ok(());
        };
        let mut at = scratch.hash_of(key);
        while let Some(&place) = known.get(&at) {
            if places[place] == (touch.db, Cow::Borrowed(key)) {
                return Ok(());
            }
            at = at.wrapping_add(1);
        }
        known.insert(at, places.len());
        places.push((touch.db, Cow::Borrowed(key)));
        Ok(())
    })?;
    Ok((places, is_about_databases))
}

/// For numbers that are hashes.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Every key that was there, is there now, or was in between.
fn everywhere<'p>(
    after: &mut Txn<'_>,
    mut places: Vec<Place<'p>>,
    touched: Vec<Place<'p>>,
) -> Result<Vec<Place<'p>>> {
    places.extend(touched);
    for db in 0..after.databases() {
        after.select(db);
        after.scan(0, usize::MAX, &mut |key, _| {
            places.push((db, Cow::Owned(key.to_vec())));
        })?;
    }
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

/// The same, with the events that somebody listens to.
pub(super) fn with_events<'t>(live: &Live, options: TxnOptions<'t>) -> TxnOptions<'t> {
    TxnOptions { event_classes: live.event_classes, ..options }
}

impl Engine {
    /// Names of up to `count` keys of a database.
    pub(super) fn some_keys(
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
