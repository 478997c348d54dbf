//! AT and CLIENT TRAVEL: commands that read, on the state of an earlier time.
//!
//! A view is a keyspace of its own, which the history fills as its keys are
//! asked for. A command runs on it with the same handler as on the present, at
//! the view's time, so that deadlines are compared with the clock as it was.
//!
//! Where the present is what the past was, it is the view: a command whose keys
//! have not changed since runs on them as they stand. Else, for a revision that
//! is not asked for again and again, the view is a keyspace that holds only the
//! keys that the command names.

mod moment;
mod views;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{BranchId, DbIndex, Reply, Revision, Rng, SeededRng};
use command::flags::{READONLY, WRITE};
use command::history::inner_of_at;
use command::{Command, Ctx, Error, Result, Run};
use keyspace::{Buffers, Keyspace, Scope, Since, Stored, Txn};
use smallvec::SmallVec;

use crate::aside::{self, Aside};
use crate::call::{Call, Handler};
use crate::engine::{Engine, Live};
use crate::execute::{Outcome, borrow, find, scope_in};
use crate::past::{Past, PastError};
use crate::session::Session;

use moment::{ANY_TIME, At};
pub(crate) use moment::{Moment, Point};
pub(crate) use views::{Then, Unchanged, view_options};

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("at", at), ("client|travel", travel)];

/// What is asked of a key as it was.
#[derive(Clone, Copy)]
struct Ask {
    branch: BranchId,
    revision: Revision,
    db: DbIndex,
    /// Not if it takes long.
    is_hasty: bool,
    /// How it was kept matters as well as what it held.
    is_exact: bool,
}

impl From<PastError> for Error {
    fn from(error: PastError) -> Error {
        Error::new(error.to_string().replace(['\r', '\n'], " "))
    }
}

impl Engine {
    /// The past, where there is one.
    pub(crate) fn needs_past(&self) -> Result<&Arc<dyn Past>> {
        self.past().ok_or(Error::new(
            "ERR no history is kept; start with storage.aof_enabled = true and storage.history_keep above 0",
        ))
    }

    /// Runs a command that [`check_may_read`] lets pass and that looks only at
    /// the keys it names. Answers whether it has: in haste, it does nothing where
    /// that would take longer than others on the same thread should wait.
    #[allow(clippy::too_many_arguments, reason = "one call with everything a command sees")]
    fn read_keys_at(
        &self,
        live: &Live,
        at: At,
        db: DbIndex,
        command: &'static Command,
        argv: &[&[u8]],
        is_hasty: bool,
        rng: &mut dyn Rng,
        buffers: &mut Buffers,
        reply: &mut dyn Reply,
    ) -> Result<bool> {
        let keys: SmallVec<[&[u8]; 4]> =
            command.keys(argv).iter().map(|key| argv[key.index]).collect();
        keys.iter()
            .try_for_each(|key| self.check_kept(at.moment.branch, at.moment.revision, db, key))?;
        // Which branch's state it is: before it was made, its parent's.
        let line = self.line_of(at.moment);
        let (branch, revision) = line.at(at.moment.revision);
        let needs_time = tells_how_it_is_kept(command);
        if !needs_time && branch == BranchId::MAIN {
            let on_main = (revision, at.time_ms());
            let done = self.read_present(live, on_main, db, command, argv, rng, buffers, reply);
            if let Some(done) = done {
                return done.map(|()| true);
            }
        }
        let past = self.needs_past()?;
        // A view does not know of what was before the state that it begins with.
        let moved = match command.full_name.as_str() {
            "object|revision" => Some(self.moved(&line, at.moment.revision, db)?),
            _ => None,
        };
        // Of a large collection only the elements that the command names are read,
        // be there a view at hand or not: that would have to read all.
        let names = command.spec.by_element.then(|| &argv[2..]);
        let mut view = match moved {
            None => past.view_at_hand(branch, revision)?,
            Some(_) => None,
        };
        if names.is_some() && view.is_some() && past.is_large(branch, revision, db, argv[1])? {
            view = None;
        }
        if db >= self.keyspace.databases() {
            return Err(Error::DB_OUT_OF_RANGE);
        }
        let ask = Ask { branch, revision, db, is_hasty, is_exact: needs_time };
        if let Some(view) = view {
            // It reads what it does not have yet, whatever that takes.
            if is_hasty && !self.bring_into(past, ask, &keys, &view)? {
                return Ok(false);
            }
            // Who shares the view does not wait.
            if !is_hasty {
                keys.iter().try_for_each(|name| aside::bring(&view, db, name))?;
            }
            let moment = self.time_of(at)?;
            read_in(&view, live, moment, db, command, argv, rng, buffers, reply)?;
            return Ok(true);
        }
        let scratch = self.scratches.take(&self.keyspace);
        let mut has_deadline = false;
        for name in &keys {
            match self.key_at(past, ask, name, names) {
                Ok(Some(mut stored)) => {
                    stored.revision = stored.revision.max(moved.unwrap_or_default());
                    has_deadline |= stored.deadline.is_some();
                    scratch.give(db, name, stored);
                }
                Ok(None) => {}
                Err(PastError::TakesLong) => {
                    self.empty(scratch, db, &keys)?;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let moment = match at.time_ms() {
            None if !has_deadline && !needs_time => Moment::new(branch, revision, ANY_TIME),
            _ => self.time_of(at)?,
        };
        let done = read_in(&scratch, live, moment, db, command, argv, rng, buffers, reply);
        self.empty(scratch, db, &keys)?;
        done.map(|()| true)
    }

    /// Gives back a keyspace that has only these keys.
    fn empty(&self, scratch: Keyspace, db: DbIndex, keys: &[&[u8]]) -> Result {
        for name in keys {
            scratch.take(db, name)?;
        }
        self.scratches.give_back(scratch);
        Ok(())
    }

    /// Brings keys into a view that it does not have yet; answers whether none of
    /// them takes long.
    fn bring_into(
        &self,
        past: &Arc<dyn Past>,
        ask: Ask,
        keys: &[&[u8]],
        view: &Keyspace,
    ) -> Result<bool> {
        for name in keys.iter().filter(|name| !view.has_at_hand(ask.db, name)) {
            match self.key_at(past, ask, name, None) {
                Ok(Some(stored)) => view.bring(ask.db, name, stored)?,
                Ok(None) => {}
                Err(PastError::TakesLong) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// A key as it was, or some elements of it.
    fn key_at(
        &self,
        past: &Arc<dyn Past>,
        ask: Ask,
        key: &[u8],
        names: Option<&[&[u8]]>,
    ) -> std::result::Result<Option<Stored>, PastError> {
        let Ask { branch, revision, db, is_hasty, is_exact } = ask;
        let now = || self.keyspace_since(past, branch, revision, db);
        if names.is_none() && is_hasty && now().is_some_and(|now| now.is_long(db, key)) {
            return Err(PastError::TakesLong);
        }
        if names.is_none()
            && !is_exact
            && !is_hasty
            && let Some(found) = self.key_near(past, branch, revision, db, key)?
        {
            return Ok(Some(found));
        }
        let present = || now().filter(|_| !is_exact)?.copy_small(db, key);
        past.key_with(branch, revision, db, key, names, &present, is_hasty)
    }

    /// Runs a command on main's present, if its keys are as they were then; does
    /// nothing if they are not, or if memory cannot tell.
    #[allow(clippy::too_many_arguments, reason = "one call with everything a command sees")]
    fn read_present(
        &self,
        live: &Live,
        (revision, time_ms): (Revision, Option<u64>),
        db: DbIndex,
        command: &'static Command,
        argv: &[&[u8]],
        rng: &mut dyn Rng,
        buffers: &mut Buffers,
        reply: &mut dyn Reply,
    ) -> Option<Result> {
        let Run::Data(handler) = command.spec.run else { return None };
        if db >= self.keyspace.databases() {
            return None;
        }
        let scope = scope_in(&self.keyspace, command, argv);
        let options = view_options(live, time_ms.unwrap_or(ANY_TIME));
        let mut txn = Txn::begin(&self.keyspace, &scope, &Unchanged, buffers, options);
        txn.keep_due();
        txn.select(db);
        for key in command.keys(argv) {
            match txn.since(argv[key.index], revision) {
                Since::Unchanged(Some(_)) if time_ms.is_none() => return None,
                Since::Unchanged(_) | Since::Absent => {}
                Since::Unknown => return None,
            }
        }
        let mut ctx = Ctx { tx: &mut txn, rng, limits: &live.data, can_block: false, block: None };
        Some(handler(&mut ctx, command.arguments(argv), reply))
    }

    /// Runs a command that [`check_may_read`] lets pass on a state as a whole.
    #[allow(clippy::too_many_arguments, reason = "one call with everything a command sees")]
    fn read_at(
        &self,
        live: &Live,
        moment: Moment,
        db: DbIndex,
        command: &'static Command,
        argv: &[&[u8]],
        rng: &mut dyn Rng,
        buffers: &mut Buffers,
        reply: &mut dyn Reply,
    ) -> Result {
        let keys = command.keys(argv);
        keys.iter().try_for_each(|key| {
            self.check_kept(moment.branch, moment.revision, db, argv[key.index])
        })?;
        if !keys.is_empty() {
            self.check_all_kept(moment.branch, moment.revision, &upper_name(command))?;
        }
        let view = self.view_at(moment)?;
        if db < view.databases() {
            keys.iter().try_for_each(|key| aside::bring(&view, db, argv[key.index]))?;
        }
        read_in(&view, live, moment, db, command, argv, rng, buffers, reply)
    }

    /// As the client's own command: in place for the keys it names, aside when
    /// it looks at all of them, or these take long.
    fn read_for(
        call: &mut Call<'_, '_>,
        at: At,
        command: &'static Command,
        argv: &[&[u8]],
    ) -> Result<Outcome> {
        let (engine, live, db) = (call.engine, call.live, call.session.db);
        call.session.shown_view = Some(at.moment.revision);
        let words = || argv.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
        if is_about_named_keys(&engine.keyspace, command, argv) {
            let session = &mut *call.session;
            let mut buffers = session.lend_buffers();
            let (rng, reply) = (&mut session.rng, &mut *call.reply);
            let done =
                engine.read_keys_at(live, at, db, command, argv, true, rng, &mut buffers, reply);
            session.buffers = Some(buffers);
            if done? {
                session.depends_on = session.depends_on.max(at.moment.revision);
                return Ok(Outcome::Done);
            }
            let words = words();
            return aside::run(call, move |engine, reply| {
                let mut rng = SeededRng::new(engine.clock.monotonic_ns());
                let (live, argv, mut buffers) = (engine.live(), borrow(&words), Buffers::default());
                let (rng, buffers) = (&mut rng, &mut buffers);
                engine.read_keys_at(&live, at, db, command, &argv, false, rng, buffers, reply)?;
                Ok(Aside { depends_on: at.moment.revision, ..Aside::default() })
            });
        }
        let (moment, words) = (engine.time_of(at)?, words());
        aside::run(call, move |engine, reply| {
            let mut rng = SeededRng::new(engine.clock.monotonic_ns());
            let (live, argv, mut buffers) = (engine.live(), borrow(&words), Buffers::default());
            engine.read_at(&live, moment, db, command, &argv, &mut rng, &mut buffers, reply)?;
            Ok(Aside { depends_on: moment.revision, ..Aside::default() })
        })
    }

    /// Runs a data command of a client that travels.
    #[allow(clippy::too_many_arguments, reason = "one call with everything a command sees")]
    pub(crate) fn run_travelling(
        self: &Arc<Self>,
        session: &mut Session,
        live: &Live,
        moment: Moment,
        command: &'static Command,
        argv: &[&[u8]],
        now_ms: u64,
        reply: &mut dyn Reply,
    ) -> Result<Outcome> {
        let args = command.arguments(argv);
        let (engine, open, told) = (self, None, None);
        let call = &mut Call { engine, session, command, args, reply, live, now_ms, open, told };
        Engine::read_for(call, moment.into(), command, argv)
    }
}

/// Runs a command on a view.
#[allow(clippy::too_many_arguments, reason = "one call with everything a command sees")]
fn read_in(
    view: &Keyspace,
    live: &Live,
    moment: Moment,
    db: DbIndex,
    command: &'static Command,
    argv: &[&[u8]],
    rng: &mut dyn Rng,
    buffers: &mut Buffers,
    reply: &mut dyn Reply,
) -> Result {
    let Run::Data(handler) = command.spec.run else {
        return Err(not_on_a_view(command));
    };
    if db >= view.databases() {
        return Err(Error::DB_OUT_OF_RANGE);
    }
    let options = view_options(live, moment.time_ms);
    let scope = scope_in(view, command, argv);
    let mut txn = Txn::begin(view, &scope, &Unchanged, buffers, options);
    // What was due then is not seen, and stays where it is.
    txn.keep_due();
    txn.select(db);
    command.keys(argv).iter().for_each(|key| txn.load(argv[key.index]));
    txn.check_backing()?;
    let mut ctx = Ctx { tx: &mut txn, rng, limits: &live.data, can_block: false, block: None };
    handler(&mut ctx, command.arguments(argv), reply)
}

/// Whether the reply depends on more than what a key holds: on how that is
/// encoded, or when it was used last. Cursors count encodings too, and go on
/// in calls that may not all find the present as it was.
fn tells_how_it_is_kept(command: &Command) -> bool {
    let name = command.full_name.as_str();
    name.ends_with("scan")
        || ["object|", "debug|", "memory|"].iter().any(|container| name.starts_with(container))
}

/// Whether the command looks at no more than the keys that its words name.
pub(crate) fn is_about_named_keys(keyspace: &Keyspace, command: &Command, argv: &[&[u8]]) -> bool {
    matches!(scope_in(keyspace, command, argv), Scope::Shards(_))
}

fn upper_name(command: &Command) -> String {
    command.full_name.replace('|', " ").to_ascii_uppercase()
}

pub(crate) fn not_on_a_view(command: &Command) -> Error {
    Error::new(format!("READONLYVIEW {} is not allowed on a view", upper_name(command)))
}

/// Data commands that read, though they are not marked so.
const ALSO_READ: &[&str] = &["debug|digest", "debug|digest-value", "debug|object"];

/// Whether AT may run a command.
pub(crate) fn check_may_read(command: &Command) -> Result {
    let is_data = matches!(command.spec.run, Run::Data(_));
    let reads = command.flags.has(READONLY)
        || command.spec.name == "help"
        || ALSO_READ.contains(&command.full_name.as_str())
        || command.full_name.starts_with("object|");
    if is_data && reads { Ok(()) } else { Err(not_on_a_view(command)) }
}

/// Whether a client that travels may run a command. Transactions are about the
/// present; everything else of the engine that changes no data runs as ever.
pub(crate) fn check_may_travel(command: &Command) -> Result {
    match command.spec.run {
        Run::Engine => {
            let is_about_now = command.flags.has(WRITE)
                || matches!(command.full_name.as_str(), "multi" | "exec" | "watch");
            if is_about_now { Err(not_on_a_view(command)) } else { Ok(()) }
        }
        _ => check_may_read(command),
    }
}

fn at(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let point = call.engine.parse_point(call.args[0])?;
    // The positions are those of all words, so a name stands in front.
    let words: Vec<&[u8]> = std::iter::once(&b"at"[..]).chain(call.args.iter().copied()).collect();
    let (begin, branch) = inner_of_at(&words);
    if words.len() == begin {
        return Err(Error::new(
            "ERR BRANCH needs a branch and a command behind it; say AT <when> BRANCH <branch> <command> [arg ...]",
        ));
    }
    let branch = match branch {
        Some(name) => call.engine.branch_named(name)?.id,
        // A tag names a branch as well.
        None => point.branch_or(call.session.branch()),
    };
    let argv = &words[begin..];
    let command = find(argv)?;
    if !command.spec.accepts(argv.len()) {
        return Err(Error::arity(&command.full_name));
    }
    check_may_read(command)?;
    let at = call.engine.at(branch, point, call.now_ms)?;
    Engine::read_for(call, at, command, argv)
}

fn travel(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let moment = match call.args[0] {
        word if command::args::is_word(word, "off") => None,
        when => {
            let (engine, branch) = (call.engine, call.engine.existing_branch_of(call.session)?);
            let point = engine.parse_point(when)?;
            let moment = engine.moment(point.branch_or(branch), point, call.now_ms)?;
            // Whether it can be read is told now, not with every command.
            call.engine.view_of_keys_at(moment)?;
            Some(moment)
        }
    };
    call.session.set_travel(moment);
    call.reply.ok();
    Ok(Outcome::Done)
}

impl Session {
    /// CLIENT TRAVEL.
    pub(crate) fn set_travel(&mut self, moment: Option<Moment>) {
        self.travel = moment;
        let shown = moment.map_or(u64::MAX, |moment| moment.revision.0);
        self.client.activity.travel.store(shown, Ordering::Relaxed);
    }
}
