//! CLIENT TRACKING: telling clients that cache which of their keys changed.
//!
//! The race to respect is a read beside a write of the same key. Both go to the
//! table while they hold the key's shard: a read to be remembered there, a
//! write to find who read. So for each key the table sees reads and writes in
//! the very order in which they happened, and whoever has read a value that a
//! write replaces is found by that write. The messages leave later, once the
//! write is committed; on a client's own connection they come after the reply
//! of the command that ran before them, because only that connection's task
//! takes them from the outbox, between commands.
//!
//! The table's lock is taken inside the shards' locks, and nothing is locked
//! inside it.
//!
//! As in Redis, keys are remembered without their database.
//!
//! With FROM nothing of this is at work: such a client has a watch of the log
//! ([`crate::history::open_tracking`]), which tells it in the order of revisions,
//! so that it knows from which one to go on after a break.

mod table;

use std::hint::cold_path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{BranchId, Frame, Revision};
use command::Command;
use command::flags::{PUBSUB, READONLY};
use command::keys::key_flags::NOT_KEY;
use keyspace::Txn;
use parking_lot::Mutex;

use crate::client::Client;
use crate::engine::{Engine, Live};
use crate::session::Session;
pub(crate) use table::Invalidations;
use table::{Notice, Place, Table, Tracker};

/// Where RESP2 clients listen for invalidations.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// What makes a key one that a client is told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The client read it.
    EveryRead,
    /// The client read it right after CLIENT CACHING YES.
    OptIn,
    /// The client read it, not right after CLIENT CACHING NO.
    OptOut,
    /// It begins with one of the client's prefixes.
    Broadcast,
}

/// CLIENT CACHING, for the next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caching {
    Yes,
    No,
}

/// A session's side of tracking.
#[derive(Debug, Default)]
pub(crate) struct TrackingState {
    /// `None` while tracking is off.
    pub(crate) mode: Option<Mode>,
    pub(crate) caching: Option<Caching>,
    pub(crate) noloop: bool,
    /// Ascending.
    pub(crate) prefixes: Vec<Vec<u8>>,
    /// The watch that tells it, with FROM.
    pub(crate) watch: Option<u64>,
    /// How far the transaction that runs has been looked at, and what it makes
    /// to be told so far.
    place: Place,
    told: Invalidations,
}

/// Which clients cache which keys.
#[derive(Debug, Default)]
pub(crate) struct Tracking {
    table: Mutex<Table>,
    /// Clients that track, readable without the lock.
    clients: AtomicUsize,
}

/// Figures for INFO.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrackingCounts {
    pub(crate) keys: usize,
    /// Pairs of a key and a reader.
    pub(crate) items: usize,
    pub(crate) prefixes: usize,
}

impl Tracking {
    /// Whether no client tracks anything: nobody reads effects for us then.
    pub(crate) fn is_empty(&self) -> bool {
        self.clients.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn counts(&self) -> TrackingCounts {
        self.table.lock().counts()
    }

    /// Forgets a client that left.
    pub(crate) fn forget(&self, client: u64) {
        if self.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        table.remove(client);
        self.clients.store(table.clients(), Ordering::SeqCst);
    }

    /// What is to be told of a transaction that `writer` made: a client's
    /// blocked command or, with 0, the server (expiry). Called with the shards
    /// of its keys locked.
    pub(crate) fn changes(&self, writer: u64, txn: &Txn<'_>) -> Invalidations {
        self.changes_of(writer, txn.effects())
    }

    /// What is to be told where a branch is gone or made anew: clients that are on it
    /// know nothing of its keys any more.
    pub(crate) fn lost_branch(&self, branch: BranchId) -> Invalidations {
        let mut told = Invalidations::default();
        if !self.is_empty() {
            self.table.lock().lose_branch(branch, &mut told);
        }
        told
    }

    /// As [`Tracking::changes`], of a transaction with these effects.
    pub(crate) fn changes_of(&self, writer: u64, effects: &[u8]) -> Invalidations {
        let mut told = Invalidations::default();
        if !self.is_empty() && !effects.is_empty() {
            let mut place = Place::default();
            self.table.lock().read_effects(effects, writer, &mut place, &mut told);
        }
        told
    }
}

impl Engine {
    /// Switches tracking on for a client, or changes how it tracks.
    pub(crate) fn track(
        &self,
        session: &mut Session,
        mode: Mode,
        redirect: u64,
        noloop: bool,
        mut prefixes: Vec<Vec<u8>>,
    ) {
        let broadcast = mode == Mode::Broadcast;
        if broadcast && prefixes.is_empty() {
            // Every key, whatever prefixes it named before.
            prefixes.push(Vec::new());
        }
        let client = session.client.clone();
        let activity = &client.activity;
        activity.tracking.store(true, Ordering::Relaxed);
        activity.tracking_broadcast.store(broadcast, Ordering::Relaxed);
        activity.redirect.store(redirect, Ordering::Relaxed);
        activity.redirect_broken.store(false, Ordering::Relaxed);
        let tracker = Tracker { client: client.clone(), redirect, noloop, broadcast };
        let mut table = self.tracking.table.lock();
        table.add(tracker, &prefixes);
        self.tracking.clients.store(table.clients(), Ordering::SeqCst);
        drop(table);
        let state = &mut session.tracking;
        state.mode = Some(mode);
        state.noloop = noloop;
        state.prefixes.append(&mut prefixes);
        state.prefixes.sort();
        state.prefixes.dedup();
    }

    /// Switches tracking on for a client that a watch tells.
    pub(crate) fn track_from(&self, session: &mut Session, watch: u64, mut prefixes: Vec<Vec<u8>>) {
        let activity = &session.client.activity;
        activity.tracking.store(true, Ordering::Relaxed);
        activity.tracking_broadcast.store(true, Ordering::Relaxed);
        prefixes.sort();
        let state = &mut session.tracking;
        (state.mode, state.watch, state.prefixes) = (Some(Mode::Broadcast), Some(watch), prefixes);
    }

    /// Switches tracking off for a client.
    pub(crate) fn untrack(&self, session: &mut Session) {
        self.tracking.forget(session.client.id);
        if let Some(watch) = session.tracking.watch.take() {
            self.close_tracking(&session.client, watch);
        }
        // What a transaction has gathered so far is for others too: it stays.
        let state = &mut session.tracking;
        (state.mode, state.caching, state.noloop) = (None, None, false);
        state.prefixes.clear();
        let activity = &session.client.activity;
        activity.redirect.store(0, Ordering::Relaxed);
        for flag in [&activity.tracking, &activity.tracking_broadcast, &activity.redirect_broken] {
            flag.store(false, Ordering::Relaxed);
        }
    }

    /// Looks at what a command of this session changed and read. Called after
    /// each command of a transaction, with its shards locked: what a command
    /// reads is remembered after what those before it changed.
    #[inline]
    pub(crate) fn observe(
        &self,
        session: &mut Session,
        live: &Live,
        txn: &Txn<'_>,
        command: &Command,
        argv: &[&[u8]],
    ) {
        if !self.tracking.is_empty() {
            self.observe_closely(session, live, txn, command, argv);
        }
    }

    #[cold]
    fn observe_closely(
        &self,
        session: &mut Session,
        live: &Live,
        txn: &Txn<'_>,
        command: &Command,
        argv: &[&[u8]],
    ) {
        let id = session.client.id;
        let state = &mut session.tracking;
        let reads = state.remembers() && command.flags.has(READONLY) && !command.flags.has(PUBSUB);
        if !reads && txn.effects().len() == state.place.offset {
            return;
        }
        let mut table = self.tracking.table.lock();
        table.read_effects(txn.effects(), id, &mut state.place, &mut state.told);
        if reads {
            for key in command.keys(argv).iter().filter(|key| !key.flags.has(NOT_KEY)) {
                table.remember(argv[key.index], id);
            }
            table.shrink(keys_max(live), &mut state.told);
        }
    }

    /// Tells what `observe` has gathered, once `revision` is committed. Called
    /// at the end of a transaction, with the locks open.
    pub(crate) fn tell_observed(&self, session: &mut Session, revision: Revision) {
        let state = &mut session.tracking;
        state.place = Place::default();
        if !state.told.is_empty() {
            cold_path();
            self.tell(std::mem::take(&mut state.told), revision);
        }
    }

    /// Tells what a transaction has made to be told, once it is committed.
    pub(crate) fn tell(&self, mut told: Invalidations, revision: Revision) {
        if told.is_empty() {
            return;
        }
        self.tracking.table.lock().broadcast(&mut told);
        let notices = told.notices;
        if !notices.is_empty() {
            let deliver = move |engine: &Engine| {
                notices.iter().for_each(|notice| engine.deliver(notice));
            };
            self.after_commit(revision, Box::new(deliver));
        }
    }

    /// Brings the table under a limit that was lowered.
    pub(crate) fn limit_tracked_keys(&self, live: &Live) {
        if self.tracking.is_empty() {
            return;
        }
        let mut told = Invalidations::default();
        self.tracking.table.lock().shrink(keys_max(live), &mut told);
        self.tell(told, Revision::ZERO);
    }

    /// Sends a notice to clients that track, or to whom they redirect.
    fn deliver(&self, notice: &Notice) {
        let push = |head: &[&[u8]]| {
            let mut items: Vec<Frame> = head.iter().map(Frame::bulk).collect();
            items.push(notice.keys.clone());
            Arc::new(Frame::Push(items))
        };
        // One frame for all who get it.
        let (mut direct, mut message) = (None, None);
        for tracker in &notice.to {
            let Some(target) = self.target_of(tracker) else { continue };
            if target.activity.resp3.load(Ordering::Relaxed) {
                let frame = direct.get_or_insert_with(|| push(&[b"invalidate"]));
                self.push(&target, frame.clone());
            } else if tracker.redirect != 0 && target.is_subscriber() {
                let frame = message.get_or_insert_with(|| push(&[b"message", CHANNEL]));
                self.push(&target, frame.clone());
            }
            // Else RESP2, which has no way to tell a push from a reply.
        }
    }

    /// Who is told for a client that tracks. When that one has left, the
    /// client itself hears of it.
    fn target_of(&self, tracker: &Tracker) -> Option<Arc<Client>> {
        if tracker.redirect == 0 {
            return Some(tracker.client.clone());
        }
        let target = self.clients.get(tracker.redirect);
        if target.is_none() {
            let activity = &tracker.client.activity;
            activity.redirect_broken.store(true, Ordering::Relaxed);
            if activity.resp3.load(Ordering::Relaxed) {
                let broken = Frame::Push(vec![
                    Frame::bulk("tracking-redir-broken"),
                    Frame::Integer(tracker.redirect as i64),
                ]);
                self.push(&tracker.client, Arc::new(broken));
            }
        }
        target
    }
}

/// Keys that the table may hold: tracking-table-max-keys, 0 for no limit.
fn keys_max(live: &Live) -> usize {
    match live.settings.tracking_table_max_keys {
        0 => usize::MAX,
        max => usize::try_from(max).unwrap_or(usize::MAX),
    }
}

impl TrackingState {
    /// Whether what the client reads now is remembered.
    fn remembers(&self) -> bool {
        match self.mode {
            None | Some(Mode::Broadcast) => false,
            Some(Mode::EveryRead) => true,
            Some(Mode::OptIn) => self.caching == Some(Caching::Yes),
            Some(Mode::OptOut) => self.caching != Some(Caching::No),
        }
    }

    /// CLIENT CACHING is about one command, or about a whole transaction.
    pub(crate) fn end_of_command(&mut self, command: &Command, in_multi: bool) {
        if self.caching.is_some() && !in_multi && !command.full_name.starts_with("client|") {
            self.caching = None;
        }
    }
}
