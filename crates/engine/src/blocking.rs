//! Clients that wait for a key to hold something.
//!
//! A blocking command that finds nothing registers its client under the locks
//! of its keys' shards, so a later push cannot miss it. Whoever finishes a
//! transaction that may have filled a key serves the clients that wait for it,
//! first come first served, by running their own command again on their behalf.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::{BranchId, DbIndex, Frame, Reply, Revision, Rng, SeededRng, Tape};
use command::{Block, Command, Ctx, Run, TimeoutReply, WaitFor};
use keyspace::effect::{Effect, Effects};
use keyspace::{Buffers, Finished, Scope, Txn, ValueRef};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::branch::branch_deleted;
use crate::client::Client;
use crate::engine::Engine;
use crate::execute::{RETRY_MS, borrow, expire_named};
use crate::revisions::as_integer;
use crate::session::Session;
use crate::tracking::Invalidations;

/// How often serving a key's waiters is put off because what they look at is being
/// read: what was brought into memory for them went again each time.
const SERVE_TRIES_MAX: u32 = 10_000;

/// A client's wait, held by its connection.
#[derive(Debug)]
pub struct Blocked {
    /// Names the wait for [`Engine::cancel_wait`].
    pub id: u64,
    /// When it ends without success, in milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// The reply then.
    pub on_timeout: Frame,
    /// The reply, once there is one.
    pub answer: oneshot::Receiver<Answer>,
}

/// What ends a wait.
#[derive(Debug)]
pub struct Answer {
    /// The reply.
    pub reply: Tape,
    /// It must not be sent before this is committed.
    pub depends_on: Revision,
    /// What the client's command has written.
    pub written: Option<Revision>,
    /// Until when that can be taken back, in milliseconds since 1970, if it can.
    pub undo_until_ms: Option<u64>,
}

impl Answer {
    /// Of a command that has written nothing.
    fn of(frame: &Frame, depends_on: Revision) -> Answer {
        Answer { reply: Tape::from(frame), depends_on, written: None, undo_until_ms: None }
    }

    /// The reply as a frame.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn frame(&self) -> Frame {
        self.reply.frames().pop().expect("a command that does not wait replies")
    }
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(crate) struct Blocking {
    waiters: Mutex<Waiters>,
    count: AtomicUsize,
    /// Clients that CLIENT PAUSE holds up, which count as blocked.
    paused: AtomicUsize,
    /// Waits for this node's disk, WAITAOF's.
    for_disk: Mutex<Vec<DiskWait>>,
    /// Held while waiters are served, so that one key's waiters are served in
    /// order and a wait that is being served is not cancelled meanwhile.
    serving: Mutex<()>,
}

#[derive(Debug)]
struct DiskWait {
    /// A plain wait.
    id: u64,
    /// What must be on disk.
    revision: Revision,
    /// The reply from then on.
    frame: Frame,
    /// Whether the wait ends then; else it goes on to its deadline.
    ends: bool,
}

/// A key of a database of a branch.
type Place = (BranchId, DbIndex, Vec<u8>);

#[derive(Debug, Default)]
struct Waiters {
    next_id: u64,
    by_id: HashMap<u64, Waiter>,
    /// Ids in ascending order, which is the order they came in.
    by_key: HashMap<Place, BTreeMap<u64, ()>>,
}

#[derive(Debug)]
struct Waiter {
    client: u64,
    command: &'static Command,
    argv: Vec<Vec<u8>>,
    branch: BranchId,
    /// What the client calls it.
    branch_name: Vec<u8>,
    db: DbIndex,
    resp3: bool,
    keys: Vec<Vec<u8>>,
    wait_for: Option<WaitFor>,
    /// What WAITREV waits for.
    revision: Option<Revision>,
    on_timeout: Frame,
    answer: oneshot::Sender<Answer>,
}

impl Waiters {
    fn add(&mut self, id: u64, waiter: Waiter) {
        for key in &waiter.keys {
            let place = (waiter.branch, waiter.db, key.clone());
            self.by_key.entry(place).or_default().insert(id, ());
        }
        self.by_id.insert(id, waiter);
    }

    fn remove(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.by_id.remove(&id)?;
        for key in &waiter.keys {
            let place = (waiter.branch, waiter.db, key.clone());
            if let Some(ids) = self.by_key.get_mut(&place) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_key.remove(&place);
                }
            }
        }
        Some(waiter)
    }
}

impl Blocking {
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// How many clients wait.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst) + self.paused.load(Ordering::Relaxed)
    }

    /// Counts a client that CLIENT PAUSE holds up, or no longer does.
    pub(crate) fn set_paused(&self, client: &Client, is_paused: bool) {
        client.activity.blocked.store(is_paused, Ordering::Relaxed);
        if is_paused {
            self.paused.fetch_add(1, Ordering::Relaxed);
        } else {
            self.paused.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many keys are waited for.
    pub(crate) fn key_count(&self) -> usize {
        self.waiters.lock().by_key.len()
    }

    /// Called with the shards of the waiter's keys locked.
    pub(crate) fn register(
        &self,
        _engine: &Engine,
        session: &Session,
        command: &'static Command,
        argv: &[&[u8]],
        block: &Block,
        now_ms: u64,
    ) -> Blocked {
        let on_timeout = match block.on_timeout {
            TimeoutReply::Null => Frame::Null,
            TimeoutReply::NullArray => Frame::NullArray,
        };
        let deadline_ms = block.timeout_ms.map(|ms| now_ms.saturating_add(ms));
        let wait_for = Some(block.wait_for);
        self.add(session, command, argv, &block.keys, wait_for, None, on_timeout, deadline_ms)
    }

    /// A wait for something other than a key; its answer comes from
    /// [`Engine::answer_wait`] or from the deadline.
    pub(crate) fn register_plain(
        &self,
        session: &Session,
        command: &'static Command,
        on_timeout: Frame,
        deadline_ms: Option<u64>,
    ) -> Blocked {
        self.add(session, command, &[], &[], None, None, on_timeout, deadline_ms)
    }

    /// A wait for a revision; see [`Engine::answer_applied`].
    pub(crate) fn register_for_revision(
        &self,
        session: &Session,
        command: &'static Command,
        revision: Revision,
        applied: Revision,
        deadline_ms: Option<u64>,
    ) -> Blocked {
        let on_timeout = Frame::Integer(as_integer(applied));
        self.add(session, command, &[], &[], None, Some(revision), on_timeout, deadline_ms)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a waiter")]
    fn add(
        &self,
        session: &Session,
        command: &'static Command,
        argv: &[&[u8]],
        keys: &[Vec<u8>],
        wait_for: Option<WaitFor>,
        revision: Option<Revision>,
        on_timeout: Frame,
        deadline_ms: Option<u64>,
    ) -> Blocked {
        let (sender, receiver) = oneshot::channel();
        let waiter = Waiter {
            client: session.client.id,
            command,
            argv: argv.iter().map(|arg| arg.to_vec()).collect(),
            branch: session.branch(),
            branch_name: session.branch_name.clone(),
            db: session.db,
            resp3: session.client.activity.resp3.load(Ordering::Relaxed),
            keys: keys.to_vec(),
            wait_for,
            revision,
            on_timeout: on_timeout.clone(),
            answer: sender,
        };
        let mut waiters = self.waiters.lock();
        waiters.next_id += 1;
        let id = waiters.next_id;
        waiters.add(id, waiter);
        self.count.store(waiters.by_id.len(), Ordering::SeqCst);
        session.client.activity.blocked.store(true, Ordering::Relaxed);
        Blocked { id, deadline_ms, on_timeout, answer: receiver }
    }

    fn take(&self, id: u64) -> Option<Waiter> {
        let mut waiters = self.waiters.lock();
        let waiter = waiters.remove(id);
        self.count.store(waiters.by_id.len(), Ordering::SeqCst);
        waiter
    }

    fn put_back(&self, id: u64, waiter: Waiter) {
        let mut waiters = self.waiters.lock();
        waiters.add(id, waiter);
        self.count.store(waiters.by_id.len(), Ordering::SeqCst);
    }

    /// The first waiter of a key after `after`, in order of arrival.
    fn next(&self, place: &Place, after: u64) -> Option<u64> {
        let waiters = self.waiters.lock();
        let ids = waiters.by_key.get(place)?;
        ids.range(after + 1..).next().map(|(&id, ())| id)
    }

    /// Keys of one database of a branch that somebody waits for.
    fn keys_in(&self, branch: BranchId, db: DbIndex) -> Vec<Vec<u8>> {
        let waiters = self.waiters.lock();
        let here = |place: &&Place| (place.0, place.1) == (branch, db);
        waiters.by_key.keys().filter(here).map(|(_, _, key)| key.clone()).collect()
    }

    /// Takes the waits for keys of a branch.
    fn take_of(&self, branch: BranchId) -> Vec<Waiter> {
        let mut waiters = self.waiters.lock();
        let is_there = |(&id, waiter): (&u64, &Waiter)| {
            (waiter.branch == branch && !waiter.keys.is_empty()).then_some(id)
        };
        let ids: Vec<u64> = waiters.by_id.iter().filter_map(is_there).collect();
        let taken = ids.into_iter().filter_map(|id| waiters.remove(id)).collect();
        self.count.store(waiters.by_id.len(), Ordering::SeqCst);
        taken
    }

    fn find_client(&self, client: u64) -> Option<u64> {
        let waiters = self.waiters.lock();
        waiters.by_id.iter().find(|(_, w)| w.client == client).map(|(&id, _)| id)
    }
}

impl Engine {
    /// Ends a wait because of its deadline or its connection's end. False when
    /// an answer is there already.
    pub fn cancel_wait(&self, id: u64) -> bool {
        let _serving = self.blocking.serving.lock();
        match self.blocking.take(id) {
            Some(waiter) => {
                self.forget_revision_wait(id, &waiter);
                true
            }
            None => false,
        }
    }

    fn forget_revision_wait(&self, id: u64, waiter: &Waiter) {
        if let Some(revision) = waiter.revision {
            self.revision_waits.forget(revision, id);
        }
    }

    /// The reply to a wait that ends without success.
    fn give_up(&self, id: u64, waiter: &mut Waiter) -> Answer {
        self.forget_revision_wait(id, waiter);
        match waiter.revision {
            Some(_) => {
                let applied = self.replicator.committed();
                Answer::of(&Frame::Integer(as_integer(applied)), applied)
            }
            None => Answer::of(&waiter.on_timeout, Revision::ZERO),
        }
    }

    /// Ends a wait with the reply for the end of its time, which comes through
    /// [`Blocked::answer`] unless another answer is there already.
    pub fn time_out(&self, id: u64) {
        let _serving = self.blocking.serving.lock();
        if let Some(mut waiter) = self.blocking.take(id) {
            let answer = self.give_up(id, &mut waiter);
            // A connection that is gone has no use for it.
            let _ = waiter.answer.send(answer);
        }
    }

    /// Answers a wait with `frame` once `revision` is on disk; or, when other
    /// copies are asked for that there are not, changes its reply at the end of
    /// its time.
    pub(crate) fn answer_when_durable(
        &self,
        id: u64,
        revision: Revision,
        frame: Frame,
        ends: bool,
    ) {
        self.blocking.for_disk.lock().push(DiskWait { id, revision, frame, ends });
        self.replicator.request_sync();
        // What became durable before the wait stood in the list.
        self.answer_durable();
    }

    /// Answers the waits that the disk has reached. After a fault it will reach
    /// no more: those who can only wait for it hear why.
    pub(crate) fn answer_durable(&self) {
        let mut waits = self.blocking.for_disk.lock();
        if waits.is_empty() {
            return;
        }
        let durable = self.replicator.durable();
        let fault = self.replicator.admit_write().err();
        let over: Vec<DiskWait> = waits
            .extract_if(.., |wait| {
                wait.revision <= durable
                    || fault.is_some()
                    || !self.blocking.waiters.lock().by_id.contains_key(&wait.id)
            })
            .collect();
        drop(waits);
        for wait in over {
            if wait.revision > durable {
                if let Some(fault) = fault.as_ref().filter(|_| wait.ends) {
                    let frame = Frame::Error(fault.text().to_owned());
                    self.answer_wait(wait.id, frame, Revision::ZERO);
                }
            } else if wait.ends {
                self.answer_wait(wait.id, wait.frame, Revision::ZERO);
            } else if let Some(waiter) = self.blocking.waiters.lock().by_id.get_mut(&wait.id) {
                waiter.on_timeout = wait.frame;
            }
        }
    }

    /// Answers a plain wait. False when it has ended already.
    pub(crate) fn answer_wait(&self, id: u64, frame: Frame, depends_on: Revision) -> bool {
        self.answer(id, Answer::of(&frame, depends_on))
    }

    /// As [`Engine::answer_wait`], for a command that may have written.
    pub(crate) fn answer(&self, id: u64, answer: Answer) -> bool {
        match self.blocking.take(id) {
            Some(waiter) => waiter.answer.send(answer).is_ok(),
            None => false,
        }
    }

    /// CLIENT UNBLOCK: ends a client's wait as after its time, or with an error.
    pub(crate) fn unblock_client(&self, client: u64, with_error: bool) -> bool {
        let _serving = self.blocking.serving.lock();
        let Some(id) = self.blocking.find_client(client) else { return false };
        let Some(mut waiter) = self.blocking.take(id) else { return false };
        let mut answer = self.give_up(id, &mut waiter);
        if with_error {
            let text = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
            answer.reply = Tape::from(&Frame::Error(text.to_owned()));
        }
        waiter.answer.send(answer).is_ok()
    }

    /// Serves the clients that wait for keys which `effects` may have filled,
    /// and those that their own commands fill in turn.
    pub(crate) fn serve_waiters(self: &Arc<Self>, branch: BranchId, db: DbIndex, effects: &[u8]) {
        if self.blocking.is_empty() {
            return;
        }
        let mut ready = VecDeque::new();
        self.collect_ready(branch, db, effects, &mut ready);
        self.serve_ready(ready, 0);
    }

    /// Serves all who wait for keys of a branch that is made anew: which of them
    /// are there now, nobody knows.
    pub(crate) fn serve_branch(self: &Arc<Self>, branch: BranchId) {
        if self.blocking.is_empty() {
            return;
        }
        let places = |db| {
            let keys = self.blocking.keys_in(branch, db).into_iter();
            keys.map(move |key| (branch, db, key))
        };
        self.serve_ready((0..self.databases()).flat_map(places).collect(), 0);
    }

    /// Answers all who wait for keys of a branch that the revision `deleted`
    /// took away what their next command would be answered. Whoever finds
    /// nothing there from then on does not wait.
    pub(crate) fn end_waits_on(&self, branch: BranchId, deleted: Revision) {
        if self.blocking.is_empty() {
            return;
        }
        let _serving = self.blocking.serving.lock();
        for waiter in self.blocking.take_of(branch) {
            let error = branch_deleted(&waiter.branch_name);
            let answer = Answer::of(&Frame::Error(error.text().to_owned()), deleted);
            // A connection that is gone has no use for it.
            let _ = waiter.answer.send(answer);
        }
    }

    /// Serves the clients that wait for these keys, and those that their own
    /// commands fill in turn. Those whose commands look at what takes long to read are
    /// served in a moment: `tries` is how often they have been put off.
    fn serve_ready(self: &Arc<Self>, mut ready: VecDeque<Place>, tries: u32) {
        if ready.is_empty() {
            return;
        }
        let runtime = Handle::try_current().ok().filter(|_| tries < SERVE_TRIES_MAX);
        let is_patient = runtime.is_none();
        let mut later = VecDeque::new();
        let _serving = self.blocking.serving.lock();
        let mut buffers = Buffers::default();
        let mut rng = SeededRng::new(self.clock.monotonic_ns());
        while let Some(place) = ready.pop_front() {
            let mut after = 0;
            while let Some(id) = self.blocking.next(&place, after) {
                after = id;
                let Some(waiter) = self.blocking.take(id) else { continue };
                let served =
                    self.serve(&waiter, &place.2, is_patient, &mut buffers, &mut rng, &mut ready);
                match served {
                    Served::Answered(answer, told) => {
                        let revision = answer.depends_on;
                        // A connection that is gone has no use for the answer;
                        // what its command did stays done, as in Redis.
                        let _ = waiter.answer.send(answer);
                        // Invalidations come after the reply.
                        self.tell(told, revision);
                    }
                    Served::StillWaits => self.blocking.put_back(id, waiter),
                    Served::NothingThere => {
                        self.blocking.put_back(id, waiter);
                        break;
                    }
                    Served::Later => {
                        self.blocking.put_back(id, waiter);
                        later.push_back(place.clone());
                        break;
                    }
                }
            }
        }
        if let Some(runtime) = runtime.filter(|_| !later.is_empty()) {
            let engine = self.clone();
            runtime.spawn(async move {
                tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
                engine.serve_ready(later, tries + 1);
                engine.wake_writer();
            });
        }
    }

    fn serve(
        self: &Arc<Self>,
        waiter: &Waiter,
        key: &[u8],
        is_patient: bool,
        buffers: &mut Buffers,
        rng: &mut dyn Rng,
        ready: &mut VecDeque<Place>,
    ) -> Served {
        let Some(branch) = self.branch(waiter.branch) else { return Served::StillWaits };
        let Run::Data(handler) = waiter.command.spec.run else { return Served::StillWaits };
        let live = self.live();
        let argv = borrow(&waiter.argv);
        let now_ms = self.clock.now_ms();
        let scope = match self.scope(waiter.command, &argv) {
            Scope::Shards(mut shards) => {
                shards.push(self.keyspace.shard_of(key));
                Scope::Shards(shards)
            }
            scope => scope,
        };
        let mut options = self.txn_options(&live, now_ms, true);
        options.always_record = true;
        let journal = self.journal_of(&branch);
        let mut txn = Txn::begin(&branch.keyspace, &scope, journal, buffers, options);
        if branch.is_gone() {
            // Who deletes it ends the wait, who makes it anew serves it there.
            return Served::StillWaits;
        }
        if self.past().is_some()
            && let Some(client) = self.clients.get(waiter.client)
        {
            let user = client.identity.lock().user.clone();
            let command = waiter.command.full_name.as_bytes();
            txn.originate(command, user.as_bytes(), client.addr.as_bytes());
        }
        txn.select(waiter.db);
        txn.set_patience(is_patient);
        txn.load(key);
        let keys = waiter.command.keys(&argv);
        keys.iter().for_each(|key| txn.load(argv[key.index]));
        if txn.has_later() {
            return Served::Later;
        }
        // In the middle of a command nothing can be put off.
        txn.set_patience(true);
        let readable = txn.check_backing();
        let fits = readable.is_err()
            || matches!(
                (txn.get(key), waiter.wait_for),
                (Some(ValueRef::List(_)), Some(WaitFor::List))
                    | (Some(ValueRef::Zset(_)), Some(WaitFor::Zset))
            );
        if !fits {
            let is_missing = !txn.contains(key);
            txn.finish();
            return if is_missing { Served::NothingThere } else { Served::StillWaits };
        }
        expire_named(&mut txn, waiter.command, &argv);
        let mut reply = Tape::new(waiter.resp3);
        let mut ctx = Ctx { tx: &mut txn, rng, limits: &live.data, can_block: true, block: None };
        let result = match readable {
            Ok(()) => handler(&mut ctx, waiter.command.arguments(&argv), &mut reply),
            Err(error) => Err(error.into()),
        };
        let still_waits = ctx.block.is_some();
        let told = self.tracking.changes(waiter.client, &txn);
        let finished = txn.finish();
        finished.written.into_iter().for_each(|revision| self.revision_written(revision));
        let effects = buffers.effects().to_vec();
        self.count_expired(&finished);
        self.dispose(buffers.take_garbage());
        if buffers.has_events() {
            let events = buffers.take_events();
            let revision = finished.written.unwrap_or_default();
            let branch = waiter.branch;
            self.after_commit(
                revision,
                Box::new(move |engine| engine.publish_events(branch, &events)),
            );
        }
        if finished.written.is_some() {
            self.collect_ready(waiter.branch, buffers.first_db(), &effects, ready);
        }
        if still_waits {
            self.tell(told, finished.written.unwrap_or_default());
            return Served::StillWaits;
        }
        if let Err(error) = result {
            reply = Tape::new(waiter.resp3);
            reply.error(error.text());
        }
        let Finished { depends_on, undo_until_ms, .. } = finished;
        let written = finished.changed();
        Served::Answered(Answer { reply, depends_on, written, undo_until_ms }, told)
    }

    /// Keys that effects may have filled, in order.
    fn collect_ready(
        &self,
        branch: BranchId,
        db: DbIndex,
        effects: &[u8],
        ready: &mut VecDeque<Place>,
    ) {
        let mut add = |db: DbIndex, key: &[u8]| {
            if !ready.iter().any(|(_, other, known)| *other == db && known == key) {
                ready.push_back((branch, db, key.to_vec()));
            }
        };
        let (mut db, mut key): (DbIndex, &[u8]) = (db, b"");
        for effect in Effects::new(effects).flatten() {
            match effect {
                Effect::Database(other) => db = other,
                Effect::Key { key: name, .. } => key = name,
                Effect::ListPushFront { .. }
                | Effect::ListPushBack { .. }
                | Effect::ListInsert { .. }
                | Effect::ZsetSet { .. }
                | Effect::Put { .. } => add(db, key),
                Effect::Rename { db, key, .. } => add(db, key),
                Effect::Return { db, .. } => {
                    self.blocking.keys_in(branch, db).iter().for_each(|key| add(db, key));
                }
                Effect::Swap { a, b } => {
                    for db in [a, b] {
                        self.blocking.keys_in(branch, db).iter().for_each(|key| add(db, key));
                    }
                }
                _ => {}
            }
        }
    }
}

enum Served {
    /// With what its command made to be told.
    Answered(Answer, Invalidations),
    /// Its command found nothing it could use.
    StillWaits,
    /// The key is gone: no later waiter of it can be served either.
    NothingThere,
    /// What its command looks at takes long to read.
    Later,
}
