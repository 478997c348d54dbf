//! REVERT and UNDELETE: a new revision with values of an old one.
//!
//! The old values are read first, with no lock held: reading them may take the
//! disk. For one key that is all. For many, the keys to bring back are those
//! that the log says have changed, and it must not grow between that look and
//! the write: writers are held up for the last, short look, and the write
//! begins only when all locks are held and the newest revision is still the one
//! looked up to.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::when::When;
use base::{BranchId, DbIndex, Frame, Revision};
use command::args::is_word;
use command::{Args, Error, Result};
use keyspace::{Buffers, Scope, Txn, Value, ValueRef, class, dump};

use super::events::{self, What};
use super::of_key::visit_key;
use super::{Bounds, Span, number};
use crate::aside::{self, Aside};
use crate::branch::{Held, no_branch};
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::travel::Moment;
use crate::whatif::{Asked, Report, Version};

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("revert", revert), ("undelete", undelete)];

/// Bytes of values that one revision brings back: a transaction is one record.
pub(super) const BYTES_MAX: usize = 1 << 30;

/// Keys up to which each is read by itself rather than from the whole state.
const NAMED_KEYS_MAX: usize = 64;

/// Looks for what has changed, with writers held up, before it is given up.
/// They only come to nothing when keys expire meanwhile.
pub(crate) const LOOKS_MAX: usize = 64;

/// What is to be as it was.
#[derive(Clone, Debug)]
enum Target {
    Key(Vec<u8>),
    Prefix(Vec<u8>),
    /// Every key of every database.
    All,
}

/// The client behind the write, for its record.
pub(crate) struct Author {
    pub(crate) client: u64,
    command: Vec<u8>,
    user: String,
    address: String,
}

impl Counts {
    fn frame(self, written: Option<Revision>) -> Frame {
        let entry = |name: &str, value| (Frame::bulk(name), value);
        let mut entries = vec![
            entry("rev", written.map_or(Frame::Null, |revision| number(revision.0))),
            entry("restored", number(self.restored)),
            entry("removed", number(self.removed)),
        ];
        if self.skipped > 0 {
            entries.push(entry("skipped", number(self.skipped)));
        }
        Frame::Map(entries)
    }
}

impl Author {
    pub(crate) fn of(call: &Call<'_, '_>, command: &str, message: Option<&[u8]>) -> Author {
        let mut command = command.as_bytes().to_vec();
        if let Some(message) = message {
            command.push(b' ');
            command.extend_from_slice(message);
        }
        let session = &*call.session;
        let (client, user) = (session.client.id, session.user.clone());
        Author { client, command, user, address: session.client.addr.clone() }
    }

    /// Lets the record of a transaction tell who makes it.
    pub(crate) fn sign(&self, txn: &mut Txn<'_>) {
        txn.originate(&self.command, self.user.as_bytes(), self.address.as_bytes());
    }
}

/// A value with its deadline.
pub(super) type Then = Option<(Value, Option<u64>)>;

/// Keys and what they are to be.
pub(super) type Plan = BTreeMap<(DbIndex, Vec<u8>), Then>;

/// What a write did, or would do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    restored: u64,
    removed: u64,
    /// Keys that stay as they are, for what they were is not kept.
    skipped: u64,
}

/// How many REVERTs and merges hold writers up.
#[derive(Debug, Default)]
pub(crate) struct WritersHeld(AtomicUsize);

pub(crate) struct Hold<'e>(&'e WritersHeld);

impl WritersHeld {
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn hold(&self) -> Hold<'_> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Hold(self)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The words of REVERT, read.
struct Order<'a> {
    target: Target,
    when: When,
    is_dry: bool,
    message: Option<&'a [u8]>,
}

impl<'a> Order<'a> {
    fn read(engine: &Engine, words: &'a [&'a [u8]]) -> Result<Order<'a>> {
        let mut args = Args::new(words);
        let is_to = |index: usize| words.get(index).is_some_and(|word| is_word(word, "to"));
        let target = if is_to(1) && args.take_word("all") {
            Target::All
        } else if is_to(2) && args.take_word("prefix") {
            Target::Prefix(args.next()?.to_vec())
        } else {
            Target::Key(args.next()?.to_vec())
        };
        if !args.take_word("to") {
            return Err(Error::SYNTAX);
        }
        let when = engine.parse_when(args.next()?)?;
        let (mut is_dry, mut message) = (false, None);
        while !args.is_empty() {
            if args.take_word("dryrun") {
                is_dry = true;
            } else if args.take_word("msg") {
                message = Some(args.next()?);
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(Order { target, when, is_dry, message })
    }
}

fn revert(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let Order { target, when, is_dry, message } = Order::read(call.engine, call.args)?;
    let author = Author::of(call, "revert", message);
    let (branch, db, now_ms) = (call.session.branch(), call.session.db, call.now_ms);
    aside::run(call, move |engine, reply| {
        let to = engine.moment(branch, when, now_ms)?;
        let undoes = Vec::new();
        let job = Job { engine, db, to, author: &author, is_dry, report: None, undoes };
        let (written, counts) = job.revert(&target)?;
        reply.frame(&counts.frame(written));
        Ok(Aside { depends_on: written.unwrap_or(to.revision), written })
    })
}

/// WHATIF REVERT: a dry run that tells of the keys.
pub(crate) fn try_revert(
    call: &mut Call<'_, '_>,
    words: &[&[u8]],
    asked: Asked,
) -> Result<Outcome> {
    let Order { target, when, message, .. } = Order::read(call.engine, words)?;
    let author = Author::of(call, "revert", message);
    let (branch, db, now_ms) = (call.session.branch(), call.session.db, call.now_ms);
    aside::run(call, move |engine, reply| {
        let to = engine.moment(branch, when, now_ms)?;
        let report = Some(RefCell::new(Report::new(asked, db)));
        let job = Job { engine, db, to, author: &author, is_dry: true, report, undoes: Vec::new() };
        let (_, counts) = job.revert(&target)?;
        let report = job.report.expect("made above").into_inner();
        report.write(&counts.frame(None), reply);
        Ok(Aside { depends_on: report.revision.max(to.revision), written: None })
    })
}

/// BRANCH RESET … TO a time: REVERT ALL of that branch.
pub(crate) fn reset(call: &mut Call<'_, '_>, branch: BranchId, when: When) -> Result<Outcome> {
    let author = Author::of(call, "branch|reset", None);
    let now_ms = call.now_ms;
    aside::run(call, move |engine, reply| {
        let to = engine.moment(branch, when, now_ms)?;
        let undoes = Vec::new();
        let job = Job { engine, db: 0, to, author: &author, is_dry: false, report: None, undoes };
        let (written, _) = job.revert(&Target::All)?;
        reply.ok();
        Ok(Aside { depends_on: written.unwrap_or(to.revision), written })
    })
}

fn undelete(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let key = args.next()?.to_vec();
    let when =
        if args.take_word("at") { Some(call.engine.parse_when(args.next()?)?) } else { None };
    args.end()?;
    let author = Author::of(call, "undelete", None);
    let (branch, db, now_ms) = (call.session.branch(), call.session.db, call.now_ms);
    aside::run(call, move |engine, reply| {
        let then = match when {
            Some(when) => {
                let at = engine.moment(branch, when, now_ms)?;
                engine.check_kept(branch, at.revision, db, &key)?;
                let seen = (engine.replicator.committed(), engine.value_at(at, db, &key)?);
                (seen.1.is_some()).then_some(seen)
            }
            None => last_value(engine, branch, db, &key)?,
        };
        let Some((depends_on, then)) = then else {
            reply.null();
            return Ok(Aside { depends_on: engine.replicator.committed(), written: None });
        };
        let then = then.map(|(value, deadline)| (value, deadline.filter(|at| *at > now_ms)));
        let to = Moment { branch, revision: depends_on, time_ms: now_ms };
        let undoes = Vec::new();
        let job = Job { engine, db, to, author: &author, is_dry: false, report: None, undoes };
        let written = job.undelete(&key, then)?;
        match written {
            Some(revision) => reply.frame(&number(revision.0)),
            None => reply.null(),
        }
        Ok(Aside { depends_on: written.unwrap_or(depends_on), written })
    })
}

/// What a key was just before it went the last time.
fn last_value(
    engine: &Engine,
    branch: BranchId,
    db: DbIndex,
    key: &[u8],
) -> Result<Option<(Revision, Then)>> {
    let span = Bounds::default().resolve_for(engine, branch, 0, db, key)?;
    let mut found = None;
    visit_key(engine, span, db, key, &mut |record| {
        let mut sum: Option<What<'_>> = None;
        events::read(&record, &mut |touch| {
            if touch.is_about(db, key) {
                sum = Some(sum.map_or(touch.what, |what| what.then(touch.what)));
            }
            Ok(())
        })?;
        let went = sum.is_some_and(|what| what.is_removal() || what == What::Swapped);
        if went {
            // Deadlines aside: one may be what removed it.
            let before = Revision(record.revision.0 - 1);
            if before < engine.kept_from(branch, db, key)? {
                return Ok(ControlFlow::Break(()));
            }
            let at = Moment { branch, revision: before, time_ms: 0 };
            let then = engine.value_at(at, db, key)?;
            found = then.map(|then| (record.revision, Some(then)));
        }
        Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

pub(super) struct Job<'j> {
    pub(super) engine: &'j Arc<Engine>,
    pub(super) db: DbIndex,
    pub(super) to: Moment,
    pub(super) author: &'j Author,
    /// Count only.
    pub(super) is_dry: bool,
    /// Where to tell what becomes of each key.
    pub(super) report: Option<RefCell<Report>>,
    /// Transactions that this one takes back.
    pub(super) undoes: Vec<Revision>,
}

impl<'j> Job<'j> {
    /// Where it writes.
    fn branch(&self) -> Result<Held<'j>> {
        let id = self.to.branch;
        self.engine.branch(id).ok_or_else(|| no_branch(&self.engine.branch_name(id)))
    }

    fn revert(&self, target: &Target) -> Result<(Option<Revision>, Counts)> {
        if let Target::Key(key) = target {
            self.engine.check_kept(self.to.branch, self.to.revision, self.db, key)?;
            let then = self.engine.value_at(self.to, self.db, key)?;
            let mut plan = Plan::from([((self.db, key.clone()), then)]);
            let scope = Scope::Shards(smallvec::smallvec![self.engine.keyspace.shard_of(key)]);
            let done = self.write(&scope, &mut plan, None, false)?;
            return Ok(done.expect("nothing has to stand still for one key"));
        }
        let (mut plan, mut upto) = (Plan::new(), self.to.revision);
        let mut skipped = BTreeSet::new();
        // The long look back, beside all writers.
        self.look_on(target, &mut plan, &mut skipped, &mut upto)?;
        let _hold = self.engine.writers_held.hold();
        for _ in 0..LOOKS_MAX {
            self.look_on(target, &mut plan, &mut skipped, &mut upto)?;
            if let Some((written, counts)) =
                self.write(&Scope::All, &mut plan, Some(upto), false)?
            {
                return Ok((written, Counts { skipped: skipped.len() as u64, ..counts }));
            }
        }
        Err(Error::new(format!(
            "TRYAGAIN keys changed during each of {LOOKS_MAX} looks at them, though writers were held up; nothing \
             is reverted"
        )))
    }

    fn undelete(&self, key: &[u8], then: Then) -> Result<Option<Revision>> {
        let mut plan = Plan::from([((self.db, key.to_vec()), then)]);
        let scope = Scope::Shards(smallvec::smallvec![self.engine.keyspace.shard_of(key)]);
        let done = self.write(&scope, &mut plan, None, true)?;
        Ok(done.expect("nothing has to stand still for one key").0)
    }

    /// Adds to the plan what has changed from `upto` to now, which it becomes.
    fn look_on(
        &self,
        target: &Target,
        plan: &mut Plan,
        skipped: &mut BTreeSet<(DbIndex, Vec<u8>)>,
        upto: &mut Revision,
    ) -> Result {
        let engine = self.engine;
        let newest = engine.replicator.newest();
        let prefix: &[u8] = match target {
            Target::Prefix(prefix) => prefix,
            Target::Key(_) | Target::All => b"",
        };
        let is_wanted = |db: DbIndex, key: &[u8]| {
            (matches!(target, Target::All) || db == self.db) && key.starts_with(prefix)
        };
        let (mut keys, mut whole): (BTreeSet<(DbIndex, Vec<u8>)>, BTreeSet<DbIndex>) =
            Default::default();
        let span = Span { branch: self.to.branch, after: *upto, upto: newest };
        span.visit(engine, |record| {
            events::read(&record, &mut |touch| {
                match touch.key {
                    Some(key) if is_wanted(touch.db, key) => {
                        keys.insert((touch.db, key.to_vec()));
                    }
                    None if is_wanted(touch.db, prefix) => {
                        whole.insert(touch.db);
                    }
                    _ => {}
                }
                Ok(())
            })?;
            Ok(ControlFlow::Continue(()))
        })?;
        if !whole.is_empty() {
            let (view, branch) = (engine.view_at(self.to)?, self.branch()?);
            for db in whole {
                let mut add = |key: &[u8]| {
                    if is_wanted(db, key) {
                        keys.insert((db, key.to_vec()));
                    }
                };
                engine.each_key(&view, db, &mut add)?;
                engine.each_key(&branch.keyspace, db, &mut add)?;
            }
        }
        keys.retain(|place| !plan.contains_key(place) && !skipped.contains(place));
        let mut bytes: usize = plan.values().map(bytes_of).sum();
        let view = match keys.len() > NAMED_KEYS_MAX {
            true => engine.view_at(self.to)?,
            false => engine.view_of_keys_at(self.to)?,
        };
        for (db, key) in keys {
            if self.to.revision < engine.kept_from(self.to.branch, db, &key)? {
                skipped.insert((db, key));
                continue;
            }
            let then = engine.value_in(&view, self.to.time_ms, db, &key)?;
            bytes += bytes_of(&then);
            if bytes > BYTES_MAX {
                return Err(Error::new(format!(
                    "ERR the values to bring back exceed {BYTES_MAX} bytes, the most that one revision takes; revert \
                     by smaller prefixes"
                )));
            }
            plan.insert((db, key), then);
        }
        *upto = newest;
        Ok(())
    }

    /// Makes the keys what the plan says; `None`, and nothing is done, when the
    /// newest revision is not `upto` once the locks are held.
    pub(super) fn write(
        &self,
        scope: &Scope,
        plan: &mut Plan,
        upto: Option<Revision>,
        only_missing: bool,
    ) -> Result<Option<(Option<Revision>, Counts)>> {
        let engine = self.engine;
        let (live, now_ms) = (engine.live(), engine.clock.now_ms());
        let options = engine.txn_options(&live, now_ms, false);
        let mut buffers = Buffers::default();
        let branch = self.branch()?;
        let journal = engine.journal_of(&branch);
        let mut txn = Txn::begin(&branch.keyspace, scope, journal, &mut buffers, options);
        if upto.is_some_and(|upto| upto != engine.replicator.newest()) {
            return Ok(None);
        }
        // All that must be read is read before the first change.
        for (db, key) in plan.keys() {
            txn.load_in(*db, key);
        }
        txn.check_backing()?;
        if only_missing && plan.keys().any(|(db, key)| txn.get_in(*db, key).is_some()) {
            return Err(Error::new(
                "BUSYKEY the key exists; REVERT <key> TO <when> would replace it",
            ));
        }
        if self.is_dry {
            txn.keep_due();
        } else {
            self.author.sign(&mut txn);
            self.undoes.iter().for_each(|revision| txn.mark_undone(*revision));
        }
        if let Some(report) = &self.report {
            report.borrow_mut().revision = engine.replicator.newest();
        }
        let mut counts = Counts::default();
        for ((db, key), then) in plan {
            txn.select(*db);
            // A deadline that has passed since is kept: the key is gone.
            let then = then.take().filter(|(_, deadline)| deadline.is_none_or(|at| at > now_ms));
            self.write_key(&mut txn, key, then, &mut counts);
        }
        let told = engine.tracking.changes(self.author.client, &txn);
        let finished = txn.finish();
        if let Some(report) = &self.report {
            report.borrow_mut().listeners = engine.listeners_to(branch.id, &buffers.take_events());
        }
        engine.settle_aside(&mut buffers, &finished, told, branch.id);
        Ok(Some((finished.written, counts)))
    }

    fn write_key(&self, txn: &mut Txn<'_>, key: &[u8], then: Then, counts: &mut Counts) {
        match then {
            Some((value, deadline)) => {
                let is_same = txn.deadline(key) == Some(deadline)
                    && txn.look(key).is_some_and(|now| is_same(now, value.as_ref()));
                if is_same {
                    return;
                }
                counts.restored += 1;
                self.tell(txn, key, Some((&value, deadline)));
                if !self.is_dry {
                    txn.put(key, value, deadline);
                }
                txn.notify(class::GENERIC, "restore", key);
            }
            None if txn.contains(key) => {
                counts.removed += 1;
                self.tell(txn, key, None);
                if !self.is_dry {
                    txn.delete(key);
                }
                txn.notify(class::GENERIC, "del", key);
            }
            None => {}
        }
    }

    fn tell(&self, txn: &Txn<'_>, key: &[u8], then: Option<(&Value, Option<u64>)>) {
        let Some(report) = &self.report else { return };
        let then = then.map(|(value, deadline)| {
            let bytes = size_of::<Value>() + value.memory_bytes();
            Version { value: value.as_ref(), deadline, bytes }
        });
        report.borrow_mut().note(txn.db(), key, Version::of(txn, key), then);
    }
}

fn is_same(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Str(a), ValueRef::Str(b)) => a == b,
        (ValueRef::Str(_), _) | (_, ValueRef::Str(_)) => false,
        _ => dump::encode_body(a) == dump::encode_body(b),
    }
}

pub(super) fn bytes_of(then: &Then) -> usize {
    then.as_ref().map_or(0, |(value, _)| size_of::<Value>() + value.memory_bytes())
}
