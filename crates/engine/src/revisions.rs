//! Revisions as clients see them: LASTREV, WAITREV, and the revision that goes
//! with a reply.
//!
//! A reply is true of the whole database at its session's
//! [`Session::revision`]: the newest revision that was committed when the
//! command began, or the newest that the reply depends on if that is later.
//! Everything up to it that the command could have read was done by then, and
//! it is committed when the reply leaves. It never goes down on a connection.
//! A reply about the past has the revision of its view instead.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use base::number::parse_i64;
use base::{Frame, Revision};
use command::args::shown;
use command::{Error, Result};
use keyspace::SHARDS;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::blocking::Blocked;
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::session::Session;
use crate::waiting::deadline_ms;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("lastrev", lastrev), ("waitrev", waitrev)];

/// Clients that wait for a revision.
#[derive(Debug)]
pub(crate) struct RevisionWaits {
    /// The revisions with the ids of the waits.
    waits: Mutex<BTreeSet<(Revision, u64)>>,
    /// The first of them, which every write looks at; `u64::MAX` for none.
    first: AtomicU64,
}

impl Default for RevisionWaits {
    fn default() -> RevisionWaits {
        RevisionWaits { waits: Mutex::default(), first: AtomicU64::new(u64::MAX) }
    }
}

impl RevisionWaits {
    fn change<R>(&self, change: impl FnOnce(&mut BTreeSet<(Revision, u64)>) -> R) -> R {
        let mut waits = self.waits.lock();
        let result = change(&mut waits);
        let first = waits.first().map_or(u64::MAX, |(revision, _)| revision.0);
        self.first.store(first, Ordering::Relaxed);
        result
    }

    pub(crate) fn forget(&self, revision: Revision, id: u64) {
        self.change(|waits| waits.remove(&(revision, id)));
    }
}

/// A revision as the integer of a reply.
pub(crate) fn as_integer(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn lastrev(call: &mut Call<'_, '_>) -> Result<Outcome> {
    // Inside EXEC what the queue has changed so far counts already.
    let open = call.open.as_ref().and_then(|txn| txn.revision());
    match open.unwrap_or(call.session.last_write) {
        Revision::ZERO => call.reply.null(),
        revision => call.reply.integer(as_integer(revision)),
    }
    Ok(Outcome::Done)
}

fn waitrev(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let wanted = parse_i64(call.args[0]).and_then(|number| u64::try_from(number).ok());
    let wanted = Revision(wanted.ok_or_else(|| {
        Error::new(format!(
            "ERR revision '{}' is not an integer from 0 to {}; LASTREV answers one",
            shown(call.args[0]),
            i64::MAX
        ))
    })?);
    let deadline_ms = deadline_ms(call.args[1], call.now_ms)?;
    let applied = call.engine.replicator.committed();
    if wanted <= applied || call.open.is_some() {
        call.session.saw(applied);
        call.reply.integer(as_integer(applied));
        return Ok(Outcome::Done);
    }
    let (blocking, session) = (&call.engine.blocking, &*call.session);
    let blocked =
        blocking.register_for_revision(session, call.command, wanted, applied, deadline_ms);
    call.engine.answer_when_applied(&blocked, wanted);
    Ok(Outcome::Blocked(blocked))
}

impl Session {
    /// Notes what the replies from here on are at least as new as.
    pub(crate) fn saw(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// CLIENT REPLYREV. A front-end whose protocol has a place beside every
    /// reply turns it on by itself.
    pub fn set_shows_revisions(&mut self, is_on: bool) {
        self.shows_revisions = is_on;
        // Of commands before it.
        (self.shown_view, self.shown_undo) = (None, None);
        self.client.activity.shows_revisions.store(is_on, Ordering::Relaxed);
    }

    /// Whether replies are to tell their revision.
    #[inline]
    #[must_use]
    pub fn shows_revisions(&self) -> bool {
        self.shows_revisions
    }

    /// What to put in front of the last command's reply, if the client wants
    /// it: the revision, and until when (milliseconds since 1970) UNDO takes the
    /// command back. Pushes, SUBSCRIBE's replies among them, carry none.
    #[must_use]
    pub fn shown(&self) -> SmallVec<[(&'static str, i64); 2]> {
        let mut shown = SmallVec::new();
        if self.shows_revisions && !self.reply_is_push {
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            shown.push(("rev", number(self.shown_view.unwrap_or(self.revision).0)));
            shown.extend(self.shown_undo.map(|until_ms| ("undo", number(until_ms))));
        }
        shown
    }
}

impl Engine {
    fn answer_when_applied(&self, blocked: &Blocked, wanted: Revision) {
        self.revision_waits.change(|waits| waits.insert((wanted, blocked.id)));
        // Whoever writes from here on sees the wait when it lets its locks go.
        // Whoever had a lock before has reserved its revision by the time that
        // the lock is free, so that the look below sees it.
        (0..SHARDS).for_each(|shard| self.keyspace.wait_for_lock(shard));
        self.answer_applied();
    }

    /// After a transaction that wrote `revision`, with its locks open.
    #[inline]
    pub(crate) fn revision_written(&self, revision: Revision) {
        if revision.0 >= self.revision_waits.first.load(Ordering::Relaxed) {
            self.answer_applied();
        }
    }

    /// Answers the waits for revisions that are committed now. When the log has
    /// failed the others hear why: none of theirs will come.
    pub(crate) fn answer_applied(&self) {
        let applied = self.replicator.committed();
        let over = self.revision_waits.change(|waits| {
            let later = waits.split_off(&(applied.next(), 0));
            std::mem::replace(waits, later)
        });
        for (_, id) in over {
            self.answer_wait(id, Frame::Integer(as_integer(applied)), applied);
        }
        if self.revision_waits.first.load(Ordering::Relaxed) == u64::MAX {
            return;
        }
        if let Err(fault) = self.replicator.admit_write() {
            for (_, id) in self.revision_waits.change(std::mem::take) {
                self.answer_wait(id, Frame::Error(fault.text().to_owned()), Revision::ZERO);
            }
        }
    }
}
