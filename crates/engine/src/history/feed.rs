//! WATCHFROM: every change from a revision on, each once, in order, as it is
//! made.
//!
//! A watch is a place in the log, and nothing gathers for it anywhere else.
//!
//! - Those at the *head* have been told everything. Whoever writes records to
//!   the log tells them at once ([`threads::Board`]), and looks up who wants to
//!   hear of each key ([`rules`]). Most records are of no concern to anybody:
//!   that is found out when they are appended ([`filter`]), by a glance at a
//!   few bits. One that is makes its connection write the log itself, at the
//!   end of its batch of commands, so that nobody has to be woken for it.
//! - Those who are *behind* are read to by a thread, a piece of the log at a
//!   time and in turn: who has asked for an earlier revision, who wants values
//!   that a record does not tell, and whose client did not take what waited for
//!   it. Watches at the same place are read to together, as a [`group`], and
//!   whoever reaches the head joins it. A turn is a few milliseconds, and those
//!   whose values take long have theirs alone ([`lanes`]).
//!
//! A watch whose client has [`Outbox`](crate::client::Outbox) full is *parked*:
//! only its place is kept, a revision and up to which of its effects it is told,
//! until the client's connection has sent what waits. A turn that took long to
//! read its transaction waits for that itself for a while, as who goes on within
//! a transaction needs it read again.
//!
//! The log is held for the slowest of them ([`hub`]), up to a bound. Who falls
//! behind that is told so and closed.
//!
//! What is written and could still be lost with the machine's power is told
//! under `everysec` and `no`, as it is answered; what a crash of the process
//! alone could lose is not.
//!
//! A watch of a branch is about the branch's line: what its parent did up to
//! where it begins, and what happened on it. It ends with its branch.

mod change;
mod filter;
mod group;
mod hub;
mod invalidation;
mod lanes;
mod packed;
mod reading;
mod request;
mod rules;
mod threads;

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use base::number::parse_i64;
use base::{BranchId, DbIndex, Revision};
use command::args::{is_word, shown};
use command::{Error, Result};

use crate::branch::{Line, no_branch};
use crate::call::{Call, Handler};
use crate::client::Client;
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::history::{Bounds, number};
use crate::past::PastError;
use crate::session::Session;
use base::when::When;
use group::Watch;
pub use packed::Changes;
use request::{Form, Request};
use threads::Shared;

pub(crate) const HANDLERS: &[(&str, Handler)] =
    &[("unwatchfrom", unwatchfrom), ("watchfrom", watchfrom)];

/// The name under which the log is held.
const HOLDER: &str = "watch";

/// All watches.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    /// From the first watch on.
    shared: OnceLock<Arc<Shared>>,
}

/// Figures for INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchCounts {
    pub(crate) open: usize,
    /// Those that are not at the end of the log.
    pub(crate) behind: usize,
    /// Revisions that the slowest has yet to be told.
    pub(crate) lag: usize,
}

impl Drop for Feeds {
    fn drop(&mut self) {
        self.shared.get().iter().for_each(|shared| shared.stop());
    }
}

fn watchfrom(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let request = Request::parse(call.args, &|arg| call.engine.parse_when(arg))?;
    let db = call.session.db;
    let (id, from) = open(call, request, db..db + 1)?;
    call.reply.array(2);
    call.reply.frame(&number(id));
    call.reply.frame(&number(from.0));
    Ok(Outcome::Done)
}

/// Opens the watch that CLIENT TRACKING … FROM is: of all databases of the
/// connection's branch, and of keys that begin with one of these prefixes.
/// Answers its id.
pub(crate) fn open_tracking(
    call: &mut Call<'_, '_>,
    from: Option<When>,
    prefixes: Vec<Vec<u8>>,
) -> Result<u64> {
    let dbs = 0..call.engine.databases();
    Ok(open(call, Request::invalidations(from, prefixes), dbs)?.0)
}

/// Opens a watch; answers its id, and the first revision that it is told.
fn open(call: &Call<'_, '_>, request: Request, dbs: Range<DbIndex>) -> Result<(u64, Revision)> {
    let (engine, client) = (call.engine, &call.session.client);
    let (line, name) = line_of(engine, &request, call.session)?;
    let most = call.live.settings.watches_per_client as usize;
    if client.activity.watches.load(Ordering::Relaxed) >= most {
        return Err(Error::new(format!(
            "ERR this connection has {most} watches, the most that limits.watches_per_client allows; close one with \
             UNWATCHFROM, or name more keys in one watch"
        )));
    }
    if request.form.needs_past() {
        engine.needs_past()?;
    }
    let shared = engine.feeds(engine)?;
    // From here on nothing that is there goes, until the watch holds it.
    let hold = shared.log.hold(HOLDER);
    let newest = engine.replicator.committed();
    let first = match request.from {
        None => Ok(newest.next()),
        Some(when) => first_of(engine, shared, line.branch(), when, newest, call.now_ms),
    };
    let is_tracking = request.form == Form::Invalidations;
    let (from, greeting) = match first {
        Ok(from) => {
            (from, is_tracking.then(|| invalidation::none(Revision(from.0.saturating_sub(1)))))
        }
        // Whoever caches can forget all it has, and go on from now.
        Err(error) if is_tracking && matches!(error.code(), "COMPACTED" | "FUTUREREV") => {
            (newest.next(), Some(invalidation::of_all(newest)))
        }
        Err(error) => return Err(error),
    };
    let opened = line.clone();
    let (id, now_ms) = (shared.board.hub.lock().next_id(), shared.now_ms());
    let of = (line, name.clone());
    let at = (from, newest);
    let watch = Watch::new(id, client.clone(), of, dbs, request, at, now_ms);
    if let Some(frame) = greeting {
        client.outbox.push(Arc::new(frame));
    }
    shared.open(watch, hold);
    if !engine.is_still(&opened) {
        // It went before anybody could tell this watch.
        engine.close_those(client, &|watch| watch.id == id);
        return Err(no_branch(&name));
    }
    Ok((id, from))
}

/// The line that is watched: that of the branch that is named, or of the
/// connection's; and what the branch is called.
fn line_of(engine: &Engine, request: &Request, session: &Session) -> Result<(Line, Vec<u8>)> {
    let name = request.branch.as_ref().unwrap_or(&session.branch_name);
    let branch = match &request.branch {
        Some(name) => engine.branch_named(name)?.id,
        None => engine.branch(session.branch()).ok_or_else(|| no_branch(name))?.id,
    };
    Ok((engine.line(branch), name.clone()))
}

/// The first revision that a watch from `when` on is told.
fn first_of(
    engine: &Engine,
    shared: &Shared,
    branch: BranchId,
    when: When,
    newest: Revision,
    now_ms: u64,
) -> Result<Revision> {
    if engine.past().is_some() {
        let bounds = Bounds { from: Some(when), to: None };
        return Ok(bounds.resolve(engine, branch, now_ms)?.after.next());
    }
    // Without a history there is still what the log has not let go of.
    let When::Revision(asked) = when else { return Err(engine.needs_past().err().expect("none")) };
    let asked = asked.max(Revision(1));
    let oldest = shared.oldest();
    if asked > newest.next() {
        return Err(PastError::Future { asked, newest }.into());
    }
    if asked < oldest {
        return Err(PastError::Compacted { asked, oldest }.into());
    }
    Ok(asked)
}

fn unwatchfrom(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let (engine, client) = (call.engine, &call.session.client);
    let closed = if is_word(call.args[0], "all") {
        engine.close_those(client, &|watch| watch.form != Form::Invalidations)
    } else {
        let id = parse_i64(call.args[0]).and_then(|id| u64::try_from(id).ok());
        let id = id.ok_or_else(|| {
            Error::new(format!(
                "ERR '{}' is no watch; say the number that WATCHFROM answered, or ALL",
                shown(call.args[0])
            ))
        })?;
        engine.close_those(client, &|watch| watch.id == id && watch.form != Form::Invalidations)
    };
    call.reply.count(closed);
    Ok(Outcome::Done)
}

impl Engine {
    fn feeds(&self, this: &Arc<Engine>) -> Result<&Arc<Shared>> {
        let log = self.replicator.followed_log().ok_or(Error::new(
            "ERR there is no log to watch; start with storage.aof_enabled = true",
        ))?;
        Ok(self.feeds.shared.get_or_init(|| Shared::start(log.clone(), this)))
    }

    /// Closes all watches of a client; answers how many there were. Nothing is
    /// pushed for them any more.
    pub(crate) fn close_watches(&self, client: &Arc<Client>) -> usize {
        if !client.is_watching() {
            return 0;
        }
        self.close_those(client, &|_| true)
    }

    /// Closes what [`open_tracking`] opened.
    pub(crate) fn close_tracking(&self, client: &Arc<Client>, id: u64) {
        self.close_those(client, &|watch| watch.id == id);
    }

    fn close_those(&self, client: &Arc<Client>, is_meant: &dyn Fn(&Watch) -> bool) -> usize {
        let Some(shared) = self.feeds.shared.get() else { return 0 };
        let closed = shared.board.hub.lock().close_of(client.id, is_meant);
        if !closed.is_empty() {
            client.outbox.drop_stale(|pushed| pushed.is_of_watch(|id| closed.contains(&id)));
            self.feed_again(client);
        }
        closed.len()
    }

    /// To be called by a connection that has sent pushes, all but `left` bytes of
    /// them: changes that waited for room in its client's outbox go on.
    pub fn pushes_sent(&self, client: &Client, left: usize) {
        client.outbox.sent(left);
        self.feed_again(client);
    }

    fn feed_again(&self, client: &Client) {
        if client.outbox.take_drained()
            && let Some(shared) = self.feeds.shared.get()
        {
            shared.board.hub.lock().go_on(client.id);
            shared.look_again();
        }
    }

    /// Lets those hear of what was written who wait for it.
    pub(crate) fn hurry_changes(&self) {
        if let Some(shared) = self.feeds.shared.get() {
            shared.log.hurry();
        }
    }

    pub(crate) fn watch_counts(&self) -> WatchCounts {
        let shared = self.feeds.shared.get();
        shared.map_or_else(WatchCounts::default, |shared| {
            shared.board.hub.lock().counts(self.replicator.committed())
        })
    }
}
