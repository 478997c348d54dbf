//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! EXEC is one transaction of the keyspace: it locks the shards of every queued
//! command and every watched key, in order, compares the watched revisions and
//! runs the queue. Readers see all of it or nothing, and it is one record.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{Reply, Revision};
use command::flags::{DENYOOM, Flags, MAY_REPLICATE, WRITE};
use command::{Command, Error, Result, Run};
use keyspace::{Scope, Txn};
use smallvec::SmallVec;

use crate::call::{Call, Handler};
use crate::client::Activity;
use crate::engine::{Engine, Live};
use crate::execute::{Outcome, RETRY_MS, borrow, expire_named};
use crate::session::{Multi, Queued, Session, Watched};

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("multi", multi),
    ("exec", exec),
    ("discard", discard),
    ("watch", watch),
    ("unwatch", unwatch),
];

/// Commands that take effect at once between MULTI and EXEC.
pub(crate) fn runs_inside_multi(command: &Command) -> bool {
    matches!(command.full_name.as_str(), "exec" | "discard" | "multi" | "watch" | "quit" | "reset")
}

/// Commands that end a transaction, or what is watched for one, whatever has become
/// of the branch that it is on.
pub(crate) fn looks_at_nothing(command: &Command) -> bool {
    matches!(command.full_name.as_str(), "discard" | "unwatch")
}

fn multi(call: &mut Call<'_, '_>) -> Result<Outcome> {
    if call.session.multi.is_some() {
        return Err(Error::new("ERR MULTI calls can not be nested"));
    }
    call.session.multi = Some(Multi::default());
    call.session.client.activity.multi.store(0, Ordering::Relaxed);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn discard(call: &mut Call<'_, '_>) -> Result<Outcome> {
    if call.session.multi.is_none() {
        return Err(Error::new("ERR DISCARD without MULTI"));
    }
    call.session.leave_multi();
    call.reply.ok();
    Ok(Outcome::Done)
}

fn watch(call: &mut Call<'_, '_>) -> Result<Outcome> {
    if call.session.multi.is_some() {
        return Err(Error::new("ERR WATCH inside MULTI is not allowed"));
    }
    let engine = call.engine.clone();
    let branch = engine.branch_of(call.session);
    let shards = call.args.iter().map(|key| engine.keyspace.shard_of(key)).collect();
    let mut buffers = call.session.lend_buffers();
    let options = engine.txn_options(call.live, call.now_ms, false);
    let mut txn = Txn::begin(
        &branch.keyspace,
        &Scope::Shards(shards),
        engine.journal_of(&branch),
        &mut buffers,
        options,
    );
    txn.select(call.session.db);
    call.args.iter().for_each(|key| txn.load(key));
    if let Err(error) = txn.check_backing() {
        drop(txn);
        call.session.buffers = Some(buffers);
        return Err(error.into());
    }
    for key in call.args {
        let watched = Watched {
            db: call.session.db,
            key: key.to_vec(),
            revision: txn.info(key).map_or(Revision::ZERO, |info| info.last_change()),
        };
        let known = |other: &Watched| other.db == watched.db && other.key == watched.key;
        if !call.session.watched.iter().any(known) {
            call.session.watched.push(watched);
        }
    }
    txn.finish();
    call.session.buffers = Some(buffers);
    call.session.client.activity.watched.store(call.session.watched.len(), Ordering::Relaxed);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn unwatch(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.session.forget_watched();
    call.reply.ok();
    Ok(Outcome::Done)
}

fn exec(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let Some(multi) = call.session.multi.take() else {
        return Err(Error::new("ERR EXEC without MULTI"));
    };
    let watched = std::mem::take(&mut call.session.watched);
    call.session.leave_multi();
    if multi.aborted {
        return Err(Error::new("EXECABORT Transaction discarded because of previous errors."));
    }
    let engine = call.engine.clone();
    let writes = multi.queue.iter().any(|queued| queued.command.flags.has(WRITE));
    if writes {
        let admitted = engine.replicator.admit_write().and_then(|()| engine.admit_room());
        admitted.map_err(|error| discarded(&error))?;
    }
    let refuses_memory = multi.queue.iter().any(|queued| queued.command.flags.has(DENYOOM));
    if refuses_memory && engine.is_out_of_memory(call.live) {
        return Err(discarded(&Error::OUT_OF_MEMORY));
    }
    let outcome = engine.run_queue(
        call.session,
        call.live,
        call.command,
        &multi,
        &watched,
        call.now_ms,
        call.reply,
    );
    if let Outcome::Paused(_) = outcome {
        call.session.go_back_to(multi, watched);
    }
    Ok(outcome)
}

pub(crate) fn discarded(error: &Error) -> Error {
    Error::new(format!("EXECABORT Transaction discarded because of: {error}"))
}

impl Multi {
    /// Whether a queued command has any of these flags.
    pub(crate) fn has_any(&self, flags: Flags) -> bool {
        self.queue.iter().any(|queued| queued.command.flags.has_any(flags))
    }

    /// Tells CLIENT LIST what is queued.
    fn show(&self, activity: &Activity) {
        activity.multi.store(self.queue.len() as i64, Ordering::Relaxed);
        activity.multi_bytes.store(self.bytes, Ordering::Relaxed);
    }
}

impl Session {
    pub(crate) fn leave_multi(&mut self) {
        self.multi = None;
        self.client.activity.multi.store(-1, Ordering::Relaxed);
        self.client.activity.multi_bytes.store(0, Ordering::Relaxed);
        self.forget_watched();
    }

    /// Stands before an EXEC that has not run.
    fn go_back_to(&mut self, multi: Multi, watched: Vec<Watched>) {
        multi.show(&self.client.activity);
        self.client.activity.watched.store(watched.len(), Ordering::Relaxed);
        (self.multi, self.watched) = (Some(multi), watched);
    }

    pub(crate) fn forget_watched(&mut self) {
        self.watched.clear();
        self.client.activity.watched.store(0, Ordering::Relaxed);
    }

    /// Whether `command` is an EXEC whose queue holds a write.
    pub(crate) fn exec_writes(&self, command: &Command) -> bool {
        command.full_name == "exec"
            && self.multi.as_ref().is_some_and(|multi| multi.has_any(WRITE | MAY_REPLICATE))
    }
}

impl Session {
    /// Whether `command` is an EXEC whose queue holds what takes memory.
    pub(crate) fn exec_takes_memory(&self, command: &Command) -> bool {
        command.full_name == "exec" && self.multi.as_ref().is_some_and(|m| m.has_any(DENYOOM))
    }
}

impl Engine {
    /// Keeps a command for EXEC. What waits counts as input of the client: one
    /// that queues more than client-query-buffer-limit is disconnected.
    pub(crate) fn queue(
        &self,
        session: &mut Session,
        live: &Live,
        command: &'static Command,
        argv: &[&[u8]],
    ) {
        let multi = session.multi.as_mut().expect("admitted for queueing inside MULTI");
        // EXEC will refuse it anyway.
        if multi.aborted {
            return;
        }
        multi.bytes += argv.iter().map(|arg| arg.len() + 16).sum::<usize>();
        if multi.bytes as u64 > live.settings.query_buffer_limit {
            multi.aborted = true;
            multi.queue = Vec::new();
            multi.bytes = 0;
            self.stats.query_buffer_limit_disconnections.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                client = session.client.id,
                "closed: MULTI queues more than client-query-buffer-limit"
            );
            session.client.kill();
        } else {
            let argv = argv.iter().map(|arg| arg.to_vec()).collect();
            multi.queue.push(Queued { command, argv });
        }
        multi.show(&session.client.activity);
    }

    #[allow(clippy::too_many_arguments, reason = "one call with everything a command sees")]
    fn run_queue(
        self: &Arc<Self>,
        session: &mut Session,
        live: &Live,
        command: &'static Command,
        multi: &Multi,
        watched: &[Watched],
        now_ms: u64,
        reply: &mut dyn Reply,
    ) -> Outcome {
        let scope = self.scope_of_queue(multi, watched);
        let mut buffers = session.lend_buffers();
        let options = self.txn_options(live, now_ms, !session.no_touch);
        let branch = self.branch_of(session);
        let journal = self.journal_of(&branch);
        let mut txn = Txn::begin(&branch.keyspace, &scope, journal, &mut buffers, options);
        if branch.is_gone() {
            // While this waited for the locks: it runs on what is there instead.
            drop(txn);
            session.buffers = Some(buffers);
            return Outcome::Paused(now_ms + RETRY_MS);
        }
        if self.has_effect_readers() {
            txn.record_always();
        }
        if multi.has_any(WRITE) {
            self.originate(&mut txn, live, session, command);
        } else if self.pause.is_active(now_ms) {
            txn.keep_due();
        }
        watched.iter().for_each(|watched| txn.load_in(watched.db, &watched.key));
        let readable = txn.check_backing();
        let unchanged = readable.is_ok()
            && watched.iter().all(|watched| {
                txn.select(watched.db);
                let now = txn.info(&watched.key);
                now.map_or(Revision::ZERO, |now| now.last_change()) == watched.revision
            });
        if !unchanged {
            let finished = txn.finish();
            session.buffers = Some(buffers);
            self.settle(session, &finished, multi.has_any(WRITE));
            match readable {
                Ok(()) => reply.null_array(),
                Err(error) => {
                    let error = discarded(&error.into());
                    self.stats.count_error(error.text());
                    reply.error(error.text());
                }
            }
            return Outcome::Done;
        }
        txn.select(session.db);
        for Queued { command, argv } in &multi.queue {
            expire_named(&mut txn, command, &borrow(argv));
        }
        reply.array(multi.queue.len());
        let mut close = false;
        for queued in &multi.queue {
            let argv: SmallVec<[&[u8]; 8]> = borrow(&queued.argv);
            txn.select(session.db);
            let result = match queued.command.spec.run {
                Run::Data(handler) => self
                    .run_in(&mut txn, session, live, queued.command, handler, &argv, reply, false)
                    .map(|_| Outcome::Done),
                _ => {
                    let open = Some(&mut txn);
                    self.run_engine(session, live, queued.command, &argv, now_ms, reply, open)
                }
            };
            self.observe(session, live, &txn, queued.command, &argv);
            self.feed_monitors(session, queued.command, &argv, now_ms);
            self.account(session, live, queued.command, &argv, now_ms);
            match result {
                Ok(Outcome::Close) => close = true,
                Ok(_) => {}
                Err(error) => {
                    self.stats.commands[queued.command.id].failed.fetch_add(1, Ordering::Relaxed);
                    self.stats.count_error(error.text());
                    reply.error(error.text());
                }
            }
        }
        let finished = txn.finish();
        session.buffers = Some(buffers);
        self.settle(session, &finished, multi.has_any(WRITE));
        self.start_after_exec(std::mem::take(&mut session.saves_after_exec));
        if close { Outcome::Close } else { Outcome::Done }
    }

    /// Every shard that the queue and the watched keys need.
    pub(crate) fn scope_of_queue(&self, multi: &Multi, watched: &[Watched]) -> Scope {
        let mut shards: SmallVec<[usize; 4]> =
            watched.iter().map(|watched| self.keyspace.shard_of(&watched.key)).collect();
        for queued in &multi.queue {
            // Commands of the engine that look at data go through the open
            // transaction too; they may look anywhere.
            if let Run::Engine = queued.command.spec.run {
                if crate::server::looks_at_data(queued.command) {
                    return Scope::All;
                }
                continue;
            }
            let argv = borrow(&queued.argv);
            match self.scope(queued.command, &argv) {
                Scope::Shards(more) => shards.extend(more),
                // What is sliced alone must see one moment here.
                Scope::All | Scope::Sliced => return Scope::All,
            }
        }
        Scope::Shards(shards)
    }
}
