//! REVERT and UNDELETE: a new revision with values of an old one.
//!
//! The old values are read first, with no lock held: reading them may take the
//! disk. Of many keys, see [`super::many`].

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{BranchId, DbIndex, Frame, Revision};
use command::args::is_word;
use command::{Args, Error, Result};
use keyspace::effect::Effect;
use keyspace::{Buffers, Txn, Value, class};

use super::events::What;
use super::many::{LOOKS_BESIDE_MAX, LOOKS_MAX};
use super::of_key::visit_touched;
use super::{Bounds, number};
use crate::aside::{self, Aside};
use crate::branch::{Held, no_branch};
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::travel::{Moment, Point, Then};
use crate::whatif::{Asked, Report, Version};

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("revert", revert), ("undelete", undelete)];

/// Of the memory, one part in so many is what one revision may take. While it is
/// written its values are there three times, besides those that they replace: as
/// they are to be, encoded shard by shard, and as the record.
const MEMORY_SHARE: u64 = 8;

/// What one revision may take however little memory there is.
const BYTES_LEAST: u64 = 1 << 30;

/// What is to be as it was.
#[derive(Clone, Debug)]
pub(super) enum Target {
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

    /// What the record says of it.
    pub(crate) fn origin(&self) -> Effect<'_> {
        let (user, address) = (self.user.as_bytes(), self.address.as_bytes());
        Effect::Origin { command: &self.command, user, address }
    }
}

impl Engine {
    /// Bytes that one revision may bring back or merge.
    pub(crate) fn revision_bytes_max(&self) -> usize {
        self.live().data.revision_bytes_max
    }
}

/// What one revision may take of a machine's memory, as far as that is known, and
/// of the setting `max_memory`, which is 0 for none. It is in memory as a whole;
/// the log takes any.
pub(crate) fn revision_bytes_max(machine: Option<u64>, max_memory: u64) -> usize {
    let limits = [machine, Some(max_memory).filter(|max| *max > 0)];
    let memory = limits.into_iter().flatten().min().unwrap_or(0);
    usize::try_from((memory / MEMORY_SHARE).max(BYTES_LEAST)).unwrap_or(usize::MAX)
}

/// What a write did, or would do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) restored: u64,
    pub(super) removed: u64,
    /// Keys that stay as they are, for what they were is not kept.
    pub(super) skipped: u64,
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
    when: Point,
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
        let when = engine.parse_point(args.next()?)?;
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
        Ok(Aside { depends_on: written.unwrap_or(to.revision), written, ..Aside::default() })
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
        Ok(Aside { depends_on: report.revision.max(to.revision), ..Aside::default() })
    })
}

/// BRANCH RESET … TO a time: REVERT ALL of that branch.
pub(crate) fn reset(call: &mut Call<'_, '_>, branch: BranchId, when: Point) -> Result<Outcome> {
    let author = Author::of(call, "branch|reset", None);
    let now_ms = call.now_ms;
    aside::run(call, move |engine, reply| {
        let to = engine.moment(branch, when, now_ms)?;
        let undoes = Vec::new();
        let job = Job { engine, db: 0, to, author: &author, is_dry: false, report: None, undoes };
        let (written, _) = job.revert(&Target::All)?;
        reply.ok();
        Ok(Aside { depends_on: written.unwrap_or(to.revision), written, ..Aside::default() })
    })
}

fn undelete(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let words = call.args;
    bring_back(call, words, None)
}

/// WHATIF UNDELETE.
pub(crate) fn try_undelete(
    call: &mut Call<'_, '_>,
    words: &[&[u8]],
    asked: Asked,
) -> Result<Outcome> {
    bring_back(call, words, Some(asked))
}

fn bring_back(call: &mut Call<'_, '_>, words: &[&[u8]], asked: Option<Asked>) -> Result<Outcome> {
    let mut args = Args::new(words);
    let key = args.next()?.to_vec();
    let when =
        if args.take_word("at") { Some(call.engine.parse_point(args.next()?)?) } else { None };
    args.end()?;
    let author = Author::of(call, "undelete", None);
    let (branch, db, now_ms) = (call.session.branch(), call.session.db, call.now_ms);
    aside::run(call, move |engine, reply| {
        let report = asked.map(|asked| RefCell::new(Report::new(asked, db)));
        let (to, undoes) = (Moment::new(branch, engine.replicator.committed(), now_ms), Vec::new());
        let mut job =
            Job { engine, db, to, author: &author, is_dry: asked.is_some(), report, undoes };
        let written = match when {
            Some(when) => {
                let at = engine.moment(branch, when, now_ms)?;
                engine.check_kept(branch, at.revision, db, &key)?;
                let then = engine.value_at(at, db, &key)?;
                job.write(&key, then, Wanted::Missing)?.and_then(|(written, _)| written)
            }
            None => job.undelete_last(&key)?,
        };
        let depends_on = job.to.revision;
        let Some(report) = job.report.map(RefCell::into_inner) else {
            reply.frame(&written.map_or(Frame::Null, |revision| number(revision.0)));
            return Ok(Aside {
                depends_on: written.unwrap_or(depends_on),
                written,
                ..Aside::default()
            });
        };
        // What it would get if nobody wrote before.
        let next = report.revision.next();
        let own = if report.total > 0 { number(next.0) } else { Frame::Null };
        report.write(&own, reply);
        Ok(Aside { depends_on: report.revision.max(depends_on), ..Aside::default() })
    })
}

/// What a key was just before it went the last time, as of a revision: what it is,
/// if it is due and has not been removed yet.
struct LastValue {
    as_of: Revision,
    then: Then,
}

impl LastValue {
    fn of(engine: &Engine, branch: BranchId, db: DbIndex, key: &[u8]) -> Result<LastValue> {
        let bounds = Bounds::default();
        let resolve = || bounds.resolve_for(engine, branch, 0, db, key);
        bounds.read(engine, resolve, |span| {
            // Deadlines aside: one may be what removed it, or is about to.
            let value_at = |revision| engine.value_at(Moment::new(branch, revision, 0), db, key);
            let kept_from = engine.kept_from(branch, db, key)?;
            let mut then = if span.upto >= kept_from { value_at(span.upto)? } else { None };
            if then.is_none() {
                visit_touched(engine, span, db, key, &mut |record, what| {
                    if what.is_removal() || what == What::Swapped {
                        let before = Revision(record.revision.0 - 1);
                        if before < kept_from {
                            return Ok(ControlFlow::Break(()));
                        }
                        then = value_at(before)?;
                    }
                    Ok(if then.is_some() {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    })
                })?;
            }
            Ok(LastValue { as_of: span.upto, then })
        })
    }
}

/// When a key is made what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Always,
    /// When it does not exist; `BUSYKEY` is the answer otherwise.
    Missing,
    /// The same, and nothing is done where it may have gone after that revision.
    MissingSince(Revision),
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
    pub(super) fn branch(&self) -> Result<Held<'j>> {
        let id = self.to.branch;
        self.engine.branch(id).ok_or_else(|| no_branch(&self.engine.branch_name(id)))
    }

    fn revert(&self, target: &Target) -> Result<(Option<Revision>, Counts)> {
        let Target::Key(key) = target else { return self.revert_many(target) };
        self.engine.check_kept(self.to.branch, self.to.revision, self.db, key)?;
        let then = self.engine.value_at(self.to, self.db, key)?;
        Ok(self.write(key, then, Wanted::Always)?.expect("always"))
    }

    /// Gives a key that does not exist the last value that it had, if it had one.
    /// That is read beside others, who may make and remove the key meanwhile: it is
    /// read again then, in the end with writers held up.
    ///
    /// # Errors
    /// `BUSYKEY` when it exists.
    fn undelete_last(&mut self, key: &[u8]) -> Result<Option<Revision>> {
        let (engine, mut hold) = (self.engine, None);
        for look in 0..LOOKS_MAX {
            if look >= LOOKS_BESIDE_MAX {
                hold.get_or_insert_with(|| engine.writers_held.hold());
            }
            let last = LastValue::of(engine, self.to.branch, self.db, key)?;
            self.to.revision = last.as_of;
            let wanted = Wanted::MissingSince(last.as_of);
            if let Some((written, _)) = self.write(key, last.then, wanted)? {
                return Ok(written);
            }
            let newest = engine.replicator.newest();
            if !engine.replicator.is_committed(newest) {
                engine.replicator.wait_durable(newest);
            }
        }
        Err(Error::new(format!(
            "TRYAGAIN keys were removed during each of {LOOKS_MAX} looks at the key's past; nothing was done, send \
             the command again"
        )))
    }

    /// Makes one key what it was, `None` if that is not wanted.
    fn write(
        &self,
        key: &[u8],
        then: Then,
        wanted: Wanted,
    ) -> Result<Option<(Option<Revision>, Counts)>> {
        let engine = self.engine;
        let (live, now_ms) = (engine.live(), engine.clock.now_ms());
        let options = engine.txn_options(&live, now_ms, false);
        let mut buffers = Buffers::default();
        let branch = self.branch()?;
        let journal = engine.journal_of(&branch);
        aside::bring(&branch.keyspace, self.db, key)?;
        let mut txn = Txn::begin_on_key(&branch.keyspace, key, journal, &mut buffers, options);
        if branch.is_gone() {
            drop(txn);
            return Err(no_branch(&engine.branch_name(branch.id)));
        }
        txn.select(self.db);
        // All that must be read is read before the first change.
        txn.load(key);
        txn.check_backing()?;
        if wanted != Wanted::Always && txn.get_in(self.db, key).is_some() {
            return Err(Error::new(
                "BUSYKEY the key exists; REVERT <key> TO <when> would replace it",
            ));
        }
        if matches!(wanted, Wanted::MissingSince(as_of) if txn.depends_on() > as_of) {
            return Ok(None);
        }
        if self.is_dry {
            txn.keep_due();
        } else {
            self.author.sign(&mut txn);
        }
        if let Some(report) = &self.report {
            report.borrow_mut().revision = engine.replicator.newest();
        }
        let mut counts = Counts::default();
        let is_left = |deadline: &u64| *deadline > now_ms;
        let then = match wanted {
            // A deadline that has passed since is kept: the key is gone.
            Wanted::Always => then.filter(|(_, deadline)| deadline.as_ref().is_none_or(is_left)),
            // One that has passed may be why it went.
            Wanted::Missing | Wanted::MissingSince(_) => {
                then.map(|(value, deadline)| (value, deadline.filter(is_left)))
            }
        };
        self.write_key(&mut txn, key, then, &mut counts);
        let told = engine.tracking.changes(self.author.client, &txn);
        let finished = txn.finish();
        if let Some(report) = &self.report {
            report.borrow_mut().listeners = engine.listeners_to(branch.id, &buffers.take_events());
        }
        engine.settle_aside(&mut buffers, &finished, told, branch.id);
        Ok(Some((finished.changed(), counts)))
    }

    fn write_key(&self, txn: &mut Txn<'_>, key: &[u8], then: Then, counts: &mut Counts) {
        match then {
            Some((value, deadline)) => {
                let is_same = txn.deadline(key) == Some(deadline)
                    && txn.look(key).is_some_and(|now| now.is_same(value.as_ref()));
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
        report.borrow_mut().note(txn.db(), key, Version::of(txn, txn.db(), key), then);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_revision_takes_a_share_of_the_memory() {
        const GIB: u64 = 1 << 30;
        for (machine, max_memory, gib) in [
            (None, 0, 1),
            (Some(4 * GIB), 0, 1),
            (Some(32 * GIB), 0, 4),
            (Some(32 * GIB), 16 * GIB, 2),
            (Some(32 * GIB), 64 * GIB, 4),
            (Some(32 * GIB), GIB, 1),
            (None, 24 * GIB, 3),
        ] {
            let bytes = revision_bytes_max(machine, max_memory);
            assert_eq!(bytes as u64, gib * GIB, "{machine:?}, {max_memory}");
        }
    }
}
