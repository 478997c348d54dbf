//! One command from its words to its reply: admission, then execution in place.

use std::hint::cold_path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use base::{Frame, Reply, Revision, Tape};
use command::flags::{
    ADMIN, DENYOOM, MAY_REPLICATE, NO_AUTH, NO_MULTI, READONLY, SKIP_MONITOR, WRITE,
};
use command::{Block, Command, Ctx, Error, Group, Handler, Run, ScopeRule, table};
use keyspace::{Finished, Garbage, Keyspace, Scope, Txn};
use smallvec::SmallVec;

use crate::blocking::{Answer, Blocked};
use crate::call::Call;
use crate::engine::{Engine, Live};
use crate::removal;
use crate::session::{ReplyMode, Session};
use crate::travel::check_may_travel;

/// How long a writer waits before it looks again whether the disk has caught up.
const CONGESTION_MS: u64 = 5;

/// How long a command waits before it is tried again that asked for what takes
/// long to read.
pub(crate) const RETRY_MS: u64 = 2;

/// From so many keys on a flush leaves them to be taken over as they are. Less
/// come back one by one in no time, and the archive need not have them.
const LEFT_KEYS_MIN: u64 = 10_000;

/// What a front-end does after a command.
#[derive(Debug)]
pub enum Outcome {
    /// The reply is written.
    Done,
    /// The reply is written; close the connection once it is sent.
    Close,
    /// No reply yet: wait, see [`Blocked`].
    Blocked(Blocked),
    /// Nothing happened; run the same command again at that time (milliseconds
    /// since 1970) or when [`Engine::pause_ended`] says so.
    Paused(u64),
}

/// How a run of a data command ended.
pub(crate) enum Ran {
    Replied,
    Wants(Block),
    /// Its branch went while it waited for the locks: nothing has happened.
    TooLate,
}

impl Engine {
    /// Runs one command. `argv` holds its words, the name first, at least one.
    ///
    /// The reply is written before this returns, except where [`Outcome`] says
    /// otherwise. It must not be sent before `session.depends_on` is committed.
    pub fn execute(
        self: &Arc<Self>,
        session: &mut Session,
        live: &Live,
        argv: &[&[u8]],
        reply: &mut dyn Reply,
    ) -> Outcome {
        let reply_mode = session.reply_mode;
        session.reply_mode = match session.reply_mode {
            ReplyMode::SkipNext => ReplyMode::Skip,
            ReplyMode::Skip => ReplyMode::On,
            mode => mode,
        };
        session.reply_is_push = false;
        if session.shows_revisions {
            cold_path();
            session.saw(self.replicator.committed());
            session.shown_view = None;
            session.shown_undo = None;
        }
        if session.tick_ns == 0 {
            cold_path();
            session.tick_ns = self.clock.monotonic_ns().max(1);
            session.batch_began = (self.clock.now_us(), session.tick_ns);
            let now_ms = session.now_ms();
            session.client.activity.last_interaction_ms.store(now_ms, Ordering::Relaxed);
        }
        let now_ms = session.now_ms();
        if session.seat.is_some() {
            self.renew_seat(session);
        }
        let command = match find(argv) {
            Ok(command) => command,
            Err(error) => {
                cold_path();
                return self.refuse(session, None, &error, reply);
            }
        };
        let outcome = self.execute_found(session, live, command, argv, now_ms, reply);
        if let Outcome::Paused(_) = outcome {
            cold_path();
            session.reply_mode = reply_mode;
            return outcome;
        }
        session.brought_in.set(0);
        // After it has run: who sees it as the last command sees its effect too.
        session.client.activity.last_command.store(command.id + 1, Ordering::Relaxed);
        outcome
    }

    fn execute_found(
        self: &Arc<Self>,
        session: &mut Session,
        live: &Live,
        command: &'static Command,
        argv: &[&[u8]],
        now_ms: u64,
        reply: &mut dyn Reply,
    ) -> Outcome {
        match self.admit(session, live, command, argv, now_ms) {
            Ok(Admitted::Run) => {}
            Ok(Admitted::Queue) => {
                cold_path();
                self.queue(session, live, command, argv);
                reply.simple("QUEUED");
                return Outcome::Done;
            }
            Ok(Admitted::Pause(until_ms)) => {
                cold_path();
                return Outcome::Paused(until_ms);
            }
            Err(error) => {
                cold_path();
                return self.refuse(session, Some(command), &error, reply);
            }
        }
        if matches!(command.group, Group::Branches | Group::History) {
            cold_path();
            self.depend_on_declared(session);
        }
        let outcome = match (command.spec.run, session.travel) {
            (Run::Data(_), Some(moment)) => {
                cold_path();
                self.depend_on_declared(session);
                self.run_travelling(session, live, moment, command, argv, now_ms, reply)
            }
            (Run::Data(_), None) if removal::is_removal(command) => {
                cold_path();
                let (engine, args) = (self, command.arguments(argv));
                let (open, told) = (None, None);
                let mut call =
                    Call { engine, session, command, args, reply, live, now_ms, open, told };
                removal::run(&mut call, argv)
            }
            (Run::Data(handler), None) => {
                self.run_data(session, live, command, handler, argv, now_ms, reply)
            }
            (Run::Engine, _) => self.run_engine(session, live, command, argv, now_ms, reply, None),
            (Run::Container, _) => unreachable!("find() answers subcommands, never containers"),
        };
        if let Ok(Outcome::Paused(until_ms)) = outcome {
            cold_path();
            return Outcome::Paused(until_ms);
        }
        // Afterwards, as Redis does: RESET has ended the client's own stream, and
        // EXEC follows what it ran.
        self.feed_monitors(session, command, argv, now_ms);
        self.account(session, live, command, argv, now_ms);
        session.tracking.end_of_command(command, session.multi.is_some());
        match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                cold_path();
                self.stats.commands[command.id].failed.fetch_add(1, Ordering::Relaxed);
                self.stats.count_error(error.text());
                reply.error(error.text());
                Outcome::Done
            }
        }
    }

    /// Ends a batch of pipelined commands: gives the counters away, tells those
    /// who watch what it changed and makes the next command read the clock.
    pub fn end_batch(&self, session: &mut Session) {
        session.tally.flush(&self.stats);
        self.hurry_changes();
        if session.tick_ns > 0 {
            let now_ms = session.now_ms();
            session.client.activity.last_interaction_ms.store(now_ms, Ordering::Relaxed);
            session.tick_ns = 0;
        }
    }

    /// Ends a turn, once the replies of its batch are on their way: to write what
    /// it changed and to drop what it threw away wakes threads, and takes its time.
    pub fn end_turn(&self, session: &mut Session) {
        self.wake_writer();
        if !session.garbage.is_empty() {
            self.dispose(std::mem::take(&mut session.garbage));
        }
    }

    /// Lets what was changed be written, if the log's writer sleeps. Whoever ends
    /// a turn does it; to be called now and then for what is changed elsewhere.
    pub fn wake_writer(&self) {
        self.replicator.wake_writer();
    }

    #[cold]
    #[inline(never)]
    fn refuse(
        &self,
        session: &mut Session,
        command: Option<&Command>,
        error: &Error,
        reply: &mut dyn Reply,
    ) -> Outcome {
        let is_exec = command.is_some_and(|command| command.full_name == "exec");
        if session.multi.is_some() && is_exec && session.is_nowhere() {
            // There is no branch any more that it could be tried on again.
            session.leave_multi();
        }
        if let Some(multi) = &mut session.multi {
            multi.aborted = true;
        }
        if let Some(command) = command {
            self.stats.commands[command.id].rejected.fetch_add(1, Ordering::Relaxed);
        }
        self.stats.count_error(error.text());
        reply.error(error.text());
        Outcome::Done
    }

    /// The one place that decides whether a command may run now.
    fn admit(
        &self,
        session: &Session,
        live: &Live,
        command: &'static Command,
        argv: &[&[u8]],
        now_ms: u64,
    ) -> command::Result<Admitted> {
        let flags = command.flags;
        if !command.spec.accepts(argv.len()) {
            cold_path();
            return Err(Error::arity(&command.full_name));
        }
        if !session.authenticated && !flags.has(NO_AUTH) {
            cold_path();
            return Err(Error::new("NOAUTH Authentication required."));
        }
        if session.travel.is_some() {
            cold_path();
            check_may_travel(command)?;
        }
        let in_multi = session.multi.is_some();
        let looks_at_queue = in_multi && crate::whatif::looks_at_queue(command, argv);
        if in_multi && flags.has(NO_MULTI) && !looks_at_queue {
            cold_path();
            return Err(Error::new("ERR Command not allowed inside a transaction"));
        }
        if session.seat.is_some() {
            let needs_it = !matches!(command.group, Group::Branches | Group::Connection);
            if needs_it && self.is_between(session) {
                cold_path();
                return Ok(Admitted::Pause(now_ms + RETRY_MS));
            }
            self.check_branch(session, command)?;
        }
        if flags.has(DENYOOM) && self.is_out_of_memory(live) {
            cold_path();
            return Err(Error::OUT_OF_MEMORY);
        }
        if flags.has(WRITE) {
            self.replicator.admit_write()?;
            self.admit_room()?;
        }
        let speaks_resp2 = !session.client.activity.resp3.load(Ordering::Relaxed);
        if speaks_resp2 && session.is_listening() && !allowed_while_listening(command) {
            cold_path();
            let watching = if session.client.is_watching() { "(UN)WATCHFROM / " } else { "" };
            return Err(Error::new(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / {watching}PING / QUIT / RESET \
                 are allowed in this context",
                command.full_name.to_ascii_lowercase()
            )));
        }
        if in_multi && !looks_at_queue && !crate::transaction::runs_inside_multi(command) {
            cold_path();
            crate::connection::check_stays(self, session, live, command, &argv[1..])?;
            return Ok(Admitted::Queue);
        }
        if flags.has(WRITE) {
            self.admit_behind(live)?;
        }
        // A disk that does not keep up slows writers instead of growing memory.
        // REVERT needs everything to stand still for a moment.
        let waits = flags.has(WRITE) && self.is_congested(live)
            || self.writers_held.is_on() && (flags.has(WRITE) || session.exec_writes(command));
        if waits {
            cold_path();
            return Ok(Admitted::Pause(now_ms + CONGESTION_MS));
        }
        // So does memory that is not free yet. Who has been let in and put off would
        // have to bring in anew what goes meanwhile.
        if live.max_memory > 0
            && session.brought_in.get() == 0
            && (flags.has(DENYOOM) || session.exec_takes_memory(command))
            && self.waits_for_memory(live)
        {
            cold_path();
            return Ok(Admitted::Pause(now_ms + CONGESTION_MS));
        }
        // What replicas would hear of waits as writes do; EXEC counts as a
        // write when its queue holds one.
        let is_write = flags.has_any(WRITE | MAY_REPLICATE) || session.exec_writes(command);
        if let Some(until_ms) = self.pause.holds(is_write, now_ms)
            // Else a pause of everything could not be ended.
            && command.full_name != "client|unpause"
        {
            cold_path();
            return Ok(Admitted::Pause(until_ms));
        }
        // At last: what it brings into memory is to be there when it runs.
        let may_be_early = session.seat.is_some()
            || matches!(command.spec.run, Run::Engine) && self.keyspace.is_backed();
        if may_be_early && self.is_too_early(session, live, command, argv, now_ms) {
            cold_path();
            return Ok(Admitted::Pause(now_ms + RETRY_MS));
        }
        Ok(Admitted::Run)
    }

    fn is_congested(&self, live: &Live) -> bool {
        self.replicator.is_congested() || self.lag_beyond(live).is_some()
    }

    /// How many bytes the archive is behind the log, if writers are to wait.
    fn lag_beyond(&self, live: &Live) -> Option<u64> {
        let lag_max = live.settings.archive_lag_bytes_max;
        let archive = self.archive.get().filter(|_| lag_max > 0)?;
        Some(archive.lag_bytes()).filter(|lag| *lag > lag_max)
    }

    /// Refuses a write that would wait for an archive that does not come nearer.
    fn admit_behind(&self, live: &Live) -> command::Result {
        let Some(lag) = self.lag_beyond(live) else { return Ok(()) };
        let Some(fault) = self.archived().fault else { return Ok(()) };
        Err(Error::new(format!(
            "MISCONF Writes are refused: the archive lacks {lag} bytes of the log, storage.archive_lag_max is {}, \
             and {}",
            live.settings.archive_lag_bytes_max,
            crate::server::save::one_line(&fault)
        )))
    }

    #[allow(clippy::too_many_arguments, reason = "one call with everything a command sees")]
    fn run_data(
        self: &Arc<Self>,
        session: &mut Session,
        live: &Live,
        command: &'static Command,
        handler: Handler,
        argv: &[&[u8]],
        now_ms: u64,
        reply: &mut dyn Reply,
    ) -> command::Result<Outcome> {
        let options = self.txn_options(live, now_ms, !session.no_touch);
        let mut buffers = session.lend_buffers();
        let branch = self.borrow_branch(session);
        let (keyspace, journal) = (&*branch.keyspace, self.journal_of(&branch));
        let (ran, waits, has_later, finished) = {
            let mut txn = if command.single_key {
                Txn::begin_on_key(keyspace, argv[1], journal, &mut buffers, options)
            } else {
                let scope = self.scope(command, argv);
                Txn::begin(keyspace, &scope, journal, &mut buffers, options)
            };
            txn.set_patience(session.waits_in_vain(|| command.keys(argv).len()));
            if self.has_effect_readers() {
                cold_path();
                txn.record_always();
            }
            if command.flags.has(WRITE) {
                self.originate(&mut txn, live, session, command);
            } else if self.pause.is_active(now_ms) {
                cold_path();
                txn.keep_due();
            }
            txn.select(session.db);
            if branch.is_gone() {
                cold_path();
                (Ok(Ran::TooLate), None, false, txn.finished())
            } else {
                if !command.single_key && command.flags.has(WRITE) {
                    expire_named(&mut txn, command, argv);
                }
                let ran = self.run_in(&mut txn, session, live, command, handler, argv, reply, true);
                let waits = match &ran {
                    // Registered under the locks: whoever pushes next will see it, and
                    // so will who deletes the branch or makes it anew.
                    Ok(Ran::Wants(block)) => {
                        cold_path();
                        Some(self.blocking.register(self, session, command, argv, block, now_ms))
                    }
                    _ => None,
                };
                self.observe(session, live, &txn, command, argv);
                // It is dropped where it stands, see [`Txn::finished`].
                (ran, waits, txn.has_later(), txn.finished())
            }
        };
        session.give_back(branch);
        session.buffers = Some(buffers);
        self.settle(session, &finished, command.flags.has(WRITE));
        if has_later && ran.is_err() {
            cold_path();
            session.brought_in.set(session.brought_in.get().saturating_add(finished.loaded));
            return Ok(Outcome::Paused(now_ms + RETRY_MS));
        }
        Ok(match (ran?, waits) {
            (Ran::Replied, _) => Outcome::Done,
            (Ran::Wants(_), Some(blocked)) => {
                cold_path();
                Outcome::Blocked(blocked)
            }
            (Ran::Wants(_), None) => unreachable!("who wants to wait is registered"),
            // On what is there instead.
            (Ran::TooLate, _) => {
                cold_path();
                Outcome::Paused(now_ms + RETRY_MS)
            }
        })
    }

    /// Lets the record tell who makes the transaction, and what it flushes be
    /// kept for a while, where there is a history.
    #[inline]
    pub(crate) fn originate(
        &self,
        txn: &mut Txn<'_>,
        live: &Live,
        session: &mut Session,
        command: &'static Command,
    ) {
        if self.past().is_none() {
            return;
        }
        let origin = session.last_origin.of(command, &session.user, &session.client.addr);
        txn.originate_encoded(origin);
        if let Some(until_ms) = self.undo_until_ms(live, txn.now_ms()) {
            // Branches' keys come back one by one.
            let left_from = if session.seat.is_some() { u64::MAX } else { LEFT_KEYS_MIN };
            txn.keep_flushed(until_ms, left_from);
        }
    }

    /// How long a deletion can be taken back, in milliseconds; 0 if not at all.
    pub fn undo_window_ms(&self) -> u64 {
        self.live().undo_window_ms()
    }

    /// Until when a deletion of now can be taken back, if it can.
    pub(crate) fn undo_until_ms(&self, live: &Live, now_ms: u64) -> Option<u64> {
        let window_ms = live.undo_window_ms();
        (window_ms > 0 && self.past().is_some()).then(|| now_ms.saturating_add(window_ms))
    }

    /// Runs a data handler inside a transaction that is open already.
    #[allow(clippy::too_many_arguments, reason = "one call with everything a command sees")]
    pub(crate) fn run_in(
        &self,
        txn: &mut Txn<'_>,
        session: &mut Session,
        live: &Live,
        command: &Command,
        handler: Handler,
        argv: &[&[u8]],
        reply: &mut dyn Reply,
        can_block: bool,
    ) -> command::Result<Ran> {
        txn.count_reads(counts_reads(command));
        let before = txn.loaded();
        let has_learnt = command.learn_keys(txn, argv);
        if has_learnt {
            self.count_loading(session, before, txn);
            txn.check_backing()?;
            // In the middle of a command nothing can be put off.
            txn.set_patience(true);
        }
        let mut ctx =
            Ctx { tx: txn, rng: &mut session.rng, limits: &live.data, can_block, block: None };
        let ran = handler(&mut ctx, command.arguments(argv), reply);
        let block = ctx.block;
        if !has_learnt {
            self.count_loading(session, before, txn);
        }
        ran?;
        Ok(match block {
            Some(block) => Ran::Wants(block),
            None => Ran::Replied,
        })
    }

    /// Counts how long it took to bring a command's keys into memory, if any had
    /// to be.
    fn count_loading(&self, session: &Session, before: u32, txn: &Txn<'_>) {
        if before < txn.loaded() && session.tick_ns > 0 {
            cold_path();
            // From where the command began: mostly nobody has to ask the clock.
            let us = self.clock.monotonic_ns().saturating_sub(session.tick_ns) / 1000;
            self.stats.tier_load_us.fetch_add(us, Ordering::Relaxed);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one call with everything a command sees")]
    pub(crate) fn run_engine(
        self: &Arc<Self>,
        session: &mut Session,
        live: &Live,
        command: &'static Command,
        argv: &[&[u8]],
        now_ms: u64,
        reply: &mut dyn Reply,
        open: Option<&mut Txn<'_>>,
    ) -> command::Result<Outcome> {
        let handler = self.handler_of(command);
        let args = command.arguments(argv);
        let engine = self;
        handler(&mut Call { engine, session, command, args, reply, live, now_ms, open, told: None })
    }

    /// The shards a data command locks.
    pub(crate) fn scope(&self, command: &Command, argv: &[&[u8]]) -> Scope {
        scope_in(&self.keyspace, command, argv)
    }

    /// After a transaction, with the locks open: garbage, events, waiters,
    /// invalidations. `is_write`: what was written is the client's doing, not
    /// just a key that was found to be due.
    pub(crate) fn settle(
        self: &Arc<Self>,
        session: &mut Session,
        finished: &Finished,
        is_write: bool,
    ) {
        session.depends_on = session.depends_on.max(finished.depends_on);
        session.saw(finished.depends_on);
        if let Some(revision) = finished.written {
            if is_write && !finished.only_expired {
                session.last_write = revision;
                session.shown_undo = finished.undo_until_ms;
            }
            self.revision_written(revision);
        }
        session.tally.looks(finished.hits, finished.misses);
        self.count_expired(finished);
        if finished.loaded > 0 {
            cold_path();
            self.count_loaded(finished.loaded);
        }
        if session.buffers().has_garbage() {
            let garbage = session.buffers().take_garbage();
            session.garbage.extend(garbage.into_iter().filter(Garbage::is_much));
        }
        if session.buffers().has_events() {
            cold_path();
            let events = session.buffers().take_events();
            let revision = finished.written.unwrap_or(Revision::ZERO);
            let branch = session.branch();
            self.after_commit(
                revision,
                Box::new(move |engine| engine.publish_events(branch, &events)),
            );
        }
        self.tell_observed(session, finished.written.unwrap_or_default());
        if finished.written.is_some()
            && !self.blocking.is_empty()
            && !session.buffers().effects().is_empty()
        {
            cold_path();
            let buffers = session.buffers();
            let (first_db, effects) = (buffers.first_db(), buffers.effects().to_vec());
            self.serve_waiters(session.branch(), first_db, &effects);
        }
    }

    pub(crate) fn count_expired(&self, finished: &Finished) {
        if finished.expired > 0 {
            cold_path();
            self.stats.expired_keys.fetch_add(u64::from(finished.expired), Ordering::Relaxed);
        }
    }

    /// Counts a command that ran and keeps it if it was slow.
    pub(crate) fn account(
        &self,
        session: &mut Session,
        live: &Live,
        command: &'static Command,
        argv: &[&[u8]],
        now_ms: u64,
    ) {
        let end_ns = self.clock.monotonic_ns();
        let ns = end_ns - session.tick_ns.min(end_ns);
        session.tick_ns = end_ns.max(1);
        session.tally.count(command.id, ns, &self.stats);
        if ns >= live.slow_ns {
            cold_path();
            self.slowlog.record(session, live, command, argv, ns, now_ms);
        }
        self.latency.command(live, command, ns, now_ms);
    }

    #[inline]
    pub(crate) fn feed_monitors(
        &self,
        session: &Session,
        command: &Command,
        argv: &[&[u8]],
        now_ms: u64,
    ) {
        if self.pubsub.has_monitors() && !command.flags.has_any(SKIP_MONITOR.with(ADMIN)) {
            cold_path();
            let now_us = self.clock.now_us().max(now_ms * 1000);
            self.pubsub.feed_monitors(self, session, argv, now_us);
        }
    }

    /// Writes the reply of a client that was blocked: the answer, or `on_timeout`
    /// when there was none in time.
    pub fn reply_blocked(
        &self,
        session: &mut Session,
        reply: &mut dyn Reply,
        answer: Option<&Answer>,
        on_timeout: &Frame,
    ) {
        session.tick_ns = 0;
        if let Some(answer) = answer {
            session.depends_on = session.depends_on.max(answer.depends_on);
            session.saw(answer.depends_on);
            session.last_write = answer.written.unwrap_or(session.last_write);
            session.shown_undo = answer.undo_until_ms;
        }
        let in_vain;
        let tape = match answer {
            Some(answer) => &answer.reply,
            None => {
                in_vain = Tape::from(on_timeout);
                &in_vain
            }
        };
        if let Some(text) = tape.error_text() {
            self.stats.count_error(text);
        }
        tape.play(reply);
    }
}

enum Admitted {
    Run,
    Queue,
    Pause(u64),
}

/// The shards of `keyspace` that a data command locks.
pub(crate) fn scope_in(keyspace: &Keyspace, command: &Command, argv: &[&[u8]]) -> Scope {
    let mut rule = command.spec.scope;
    if let ScopeRule::ByArguments(choose) = rule {
        rule = choose(command.arguments(argv));
    }
    match rule {
        ScopeRule::All => Scope::All,
        ScopeRule::Sliced => Scope::Sliced,
        ScopeRule::Keys | ScopeRule::ByArguments(_) => Scope::Shards(
            command.keys(argv).iter().map(|key| keyspace.shard_of(argv[key.index])).collect(),
        ),
    }
}

/// Removes what is due of the keys that a command on data names, whose shards are
/// locked: before anything is changed it is a revision of its own.
pub(crate) fn expire_named(txn: &mut Txn<'_>, command: &Command, argv: &[&[u8]]) {
    if matches!(command.spec.run, Run::Data(_)) && txn.may_be_due() {
        cold_path();
        command.keys(argv).iter().for_each(|key| txn.expire(argv[key.index]));
    }
}

/// Whether what a command looks up counts as hits and misses. Of the commands
/// that write, those do that answer or keep what they find.
fn counts_reads(command: &Command) -> bool {
    const ALSO_WRITE: &[&str] = &[
        "copy",
        "getdel",
        "getex",
        "getset",
        "sdiffstore",
        "sinterstore",
        "sort",
        "sunionstore",
        "zdiffstore",
        "zinterstore",
        "zrangestore",
        "zunionstore",
    ];
    static COUNT: OnceLock<Vec<bool>> = OnceLock::new();
    let by_id = COUNT.get_or_init(|| {
        let mut by_id = vec![false; table().id_count()];
        for command in table().all() {
            by_id[command.id] =
                command.flags.has(READONLY) || ALSO_WRITE.contains(&command.full_name.as_str());
        }
        by_id
    });
    by_id[command.id]
}

/// The command that these words name; a container's subcommand rather than
/// the container.
pub(crate) fn find(argv: &[&[u8]]) -> command::Result<&'static Command> {
    let command = table().find(argv[0]).ok_or_else(|| unknown_command(argv))?;
    if command.subcommands.is_empty() {
        return Ok(command);
    }
    find_subcommand(command, argv)
}

fn find_subcommand(command: &'static Command, argv: &[&[u8]]) -> command::Result<&'static Command> {
    let Some(name) = argv.get(1) else {
        // COMMAND is a command of its own and a container as well.
        return match command.spec.run {
            Run::Container => Err(Error::arity(&command.full_name)),
            Run::Data(_) | Run::Engine => Ok(command),
        };
    };
    command.subcommand(name).ok_or_else(|| {
        Error::new(format!(
            "ERR unknown subcommand '{}'. Try {} HELP.",
            shown(name, 128),
            command.full_name.to_ascii_uppercase()
        ))
    })
}

#[cold]
fn unknown_command(argv: &[&[u8]]) -> Error {
    // As Redis: arguments are shown until 128 bytes are used.
    let mut shown_args = String::new();
    for arg in &argv[1..] {
        if shown_args.len() >= 128 {
            break;
        }
        shown_args += &format!("'{}' ", shown(arg, 128 - shown_args.len()));
    }
    Error::new(format!(
        "ERR unknown command '{}', with args beginning with: {shown_args}",
        shown(argv[0], 128)
    ))
}

fn shown(bytes: &[u8], max: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into_owned()
}

fn allowed_while_listening(command: &Command) -> bool {
    matches!(
        command.full_name.as_str(),
        "ping"
            | "subscribe"
            | "unsubscribe"
            | "psubscribe"
            | "punsubscribe"
            | "ssubscribe"
            | "sunsubscribe"
            | "watchfrom"
            | "unwatchfrom"
            | "quit"
            | "reset"
    )
}

/// Borrowed words of an owned command.
pub(crate) fn borrow(argv: &[Vec<u8>]) -> SmallVec<[&[u8]; 8]> {
    argv.iter().map(Vec::as_slice).collect()
}
