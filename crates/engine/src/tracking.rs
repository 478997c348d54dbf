//! CLIENT TRACKING: telling clients that cache which of their keys changed.
//!
//! A read is remembered while its shard is locked, and a change looks for
//! readers after its own locks are open. So whoever reads the old value is in
//! the table before the change can happen, and is told; whoever reads the new
//! one may be told without need, never the other way round.
//!
//! As in Redis, keys are remembered without their database.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::Frame;
use command::Command;
use command::flags::{PUBSUB, READONLY};
use keyspace::Finished;
use keyspace::effect::{Effect, Effects};
use parking_lot::Mutex;

use crate::client::Client;
use crate::engine::{Engine, Live};
use crate::session::Session;

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
    pub(crate) prefixes: Vec<Vec<u8>>,
}

/// Which clients cache which keys.
#[derive(Debug, Default)]
pub(crate) struct Tracking {
    table: Mutex<Table>,
    /// Clients that track, readable without the lock.
    clients: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    clients: HashMap<u64, Tracker>,
    /// Readers by key. A reader that left or switched tracking off stays until
    /// the key changes.
    keys: HashMap<Vec<u8>, BTreeSet<u64>>,
    /// Clients in broadcast mode by prefix.
    prefixes: BTreeMap<Vec<u8>, BTreeSet<u64>>,
}

/// A client that tracks.
#[derive(Clone, Debug)]
struct Tracker {
    client: Arc<Client>,
    /// The client that is told in its place; 0: itself.
    redirect: u64,
    noloop: bool,
    broadcast: bool,
}

/// Figures for INFO.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrackingCounts {
    pub(crate) clients: usize,
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
        let table = self.table.lock();
        TrackingCounts {
            clients: table.clients.len(),
            keys: table.keys.len(),
            items: table.keys.values().map(BTreeSet::len).sum(),
            prefixes: table.prefixes.len(),
        }
    }

    /// Forgets a client that left.
    pub(crate) fn forget(&self, client: u64) {
        if self.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        table.clients.remove(&client);
        table.prefixes.retain(|_, clients| {
            clients.remove(&client);
            !clients.is_empty()
        });
        if table.clients.is_empty() {
            table.keys = HashMap::new();
        }
        self.clients.store(table.clients.len(), Ordering::SeqCst);
    }

    /// Tells clients that cache keys which `effects` changed. `session` made
    /// the change.
    pub(crate) fn invalidate(
        &self,
        engine: &Engine,
        session: &Session,
        finished: &Finished,
        effects: &[u8],
    ) {
        self.invalidate_for(engine, session.client.id, finished, effects);
    }

    /// As `invalidate`, for a change made by that client's blocked command or,
    /// with 0, by the server (expiry).
    pub(crate) fn invalidate_for(
        &self,
        engine: &Engine,
        writer: u64,
        finished: &Finished,
        effects: &[u8],
    ) {
        if self.is_empty() {
            return;
        }
        let messages = self.table.lock().changed(writer, &Changes::of(effects));
        if !messages.is_empty() {
            let revision = finished.written.unwrap_or_default();
            let deliver = move |engine: &Engine| {
                messages.into_iter().for_each(|(tracker, keys)| engine.deliver(&tracker, keys));
            };
            engine.after_commit(revision, Box::new(deliver));
        }
    }
}

/// The keys that a transaction changed.
#[derive(Debug, Default)]
struct Changes<'e> {
    keys: BTreeSet<&'e [u8]>,
    /// A whole database.
    flushed: bool,
}

impl<'e> Changes<'e> {
    fn of(effects: &'e [u8]) -> Changes<'e> {
        let mut changes = Changes::default();
        for effect in Effects::new(effects).flatten() {
            match effect {
                Effect::Key(key) | Effect::Rename { key, .. } => {
                    changes.keys.insert(key);
                }
                Effect::Flush { .. } | Effect::Swap { .. } => changes.flushed = true,
                _ => {}
            }
        }
        changes
    }
}

/// Keys of one message; `None` stands for every key.
type Keys = Option<Vec<Vec<u8>>>;

impl Table {
    /// Whom to tell of what, and forgets who has been told.
    fn changed(&mut self, writer: u64, changes: &Changes<'_>) -> Vec<(Tracker, Keys)> {
        let mut messages = Vec::new();
        if changes.flushed {
            self.keys.clear();
            messages.extend(self.clients.values().map(|tracker| (tracker.clone(), None)));
        }
        let is_told = |tracker: &Tracker| !(tracker.noloop && tracker.client.id == writer);
        for &key in &changes.keys {
            for reader in self.keys.remove(key).into_iter().flatten() {
                let tracker = self.clients.get(&reader).filter(|t| !t.broadcast && is_told(t));
                messages.extend(tracker.map(|tracker| (tracker.clone(), Some(vec![key.to_vec()]))));
            }
        }
        for (prefix, clients) in &self.prefixes {
            let of_prefix = changes.keys.iter().filter(|key| key.starts_with(prefix));
            let keys: Vec<Vec<u8>> = of_prefix.map(|key| key.to_vec()).collect();
            if keys.is_empty() {
                continue;
            }
            for tracker in clients.iter().filter_map(|id| self.clients.get(id)) {
                if is_told(tracker) {
                    messages.push((tracker.clone(), Some(keys.clone())));
                }
            }
        }
        messages
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
        if broadcast && prefixes.is_empty() && session.tracking.prefixes.is_empty() {
            prefixes.push(Vec::new());
        }
        let client = session.client.clone();
        let id = client.id;
        let activity = &client.activity;
        activity.tracking.store(true, Ordering::Relaxed);
        activity.tracking_broadcast.store(broadcast, Ordering::Relaxed);
        activity.redirect.store(redirect, Ordering::Relaxed);
        activity.redirect_broken.store(false, Ordering::Relaxed);
        let mut table = self.tracking.table.lock();
        for prefix in &prefixes {
            table.prefixes.entry(prefix.clone()).or_default().insert(id);
        }
        let tracker = Tracker { client: session.client.clone(), redirect, noloop, broadcast };
        table.clients.insert(id, tracker);
        self.tracking.clients.store(table.clients.len(), Ordering::SeqCst);
        drop(table);
        let state = &mut session.tracking;
        state.mode = Some(mode);
        state.noloop = noloop;
        state.prefixes.append(&mut prefixes);
        state.prefixes.sort();
    }

    /// Switches tracking off for a client.
    pub(crate) fn untrack(&self, session: &mut Session) {
        self.tracking.forget(session.client.id);
        session.tracking = TrackingState::default();
        let activity = &session.client.activity;
        activity.redirect.store(0, Ordering::Relaxed);
        for flag in [&activity.tracking, &activity.tracking_broadcast, &activity.redirect_broken] {
            flag.store(false, Ordering::Relaxed);
        }
    }

    /// Remembers the keys that a client reads, if it tracks. Called with the
    /// keys' shards locked.
    pub(crate) fn track_reads(
        &self,
        session: &Session,
        live: &Live,
        command: &Command,
        argv: &[&[u8]],
    ) {
        let state = &session.tracking;
        let is_wanted = match state.mode {
            None | Some(Mode::Broadcast) => false,
            Some(Mode::EveryRead) => true,
            Some(Mode::OptIn) => state.caching == Some(Caching::Yes),
            Some(Mode::OptOut) => state.caching != Some(Caching::No),
        };
        if !is_wanted || !command.flags.has(READONLY) || command.flags.has(PUBSUB) {
            return;
        }
        let reader = session.client.id;
        let max = usize::try_from(live.settings.tracking_table_max_keys).unwrap_or(usize::MAX);
        let mut forgotten = Vec::new();
        let mut table = self.tracking.table.lock();
        for key in command.keys(argv) {
            table.keys.entry(argv[key.index].to_vec()).or_default().insert(reader);
        }
        while max > 0 && table.keys.len() > max {
            // What is forgotten must be told, or a client would keep it for ever.
            let Some(key) = table.keys.keys().next().cloned() else { break };
            let changes = Changes { keys: BTreeSet::from([key.as_slice()]), flushed: false };
            forgotten.extend(table.changed(0, &changes).into_iter().filter(|(t, _)| !t.broadcast));
        }
        drop(table);
        forgotten.into_iter().for_each(|(tracker, keys)| self.deliver(&tracker, keys));
    }

    /// Sends an invalidation to a client that tracks, or to whom it redirects.
    fn deliver(&self, tracker: &Tracker, keys: Keys) {
        let activity = &tracker.client.activity;
        let target = match tracker.redirect {
            0 => Some(tracker.client.clone()),
            id => self.clients.get(id),
        };
        let Some(target) = target else {
            activity.redirect_broken.store(true, Ordering::Relaxed);
            if activity.resp3.load(Ordering::Relaxed) {
                let broken = Frame::Push(vec![
                    Frame::Bulk(b"tracking-redir-broken".to_vec()),
                    Frame::Integer(tracker.redirect as i64),
                ]);
                self.push(&tracker.client, Arc::new(broken));
            }
            return;
        };
        let keys = match keys {
            Some(keys) => Frame::Array(keys.into_iter().map(Frame::Bulk).collect()),
            None => Frame::Null,
        };
        let message = if target.activity.resp3.load(Ordering::Relaxed) {
            vec![Frame::Bulk(b"invalidate".to_vec()), keys]
        } else if tracker.redirect != 0 && target.is_subscriber() {
            vec![Frame::Bulk(b"message".to_vec()), Frame::Bulk(CHANNEL.to_vec()), keys]
        } else {
            // RESP2 has no way to tell a push from a reply.
            return;
        };
        self.push(&target, Arc::new(Frame::Push(message)));
    }
}

impl TrackingState {
    /// CLIENT CACHING is about one command, or about a whole transaction.
    pub(crate) fn end_of_command(&mut self, command: &Command, in_multi: bool) {
        if self.caching.is_some() && !in_multi && !command.full_name.starts_with("client|") {
            self.caching = None;
        }
    }
}
