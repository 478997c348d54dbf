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

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::when::When;
use base::{BranchId, DbIndex, Reply, Revision, Rng, SeededRng};
use command::flags::{READONLY, WRITE};
use command::history::inner_of_at;
use command::{Command, Ctx, Error, Result, Run, parse_when, tag_name, time_named};
use keyspace::{
    Buffers, Journal, Keyspace, NEAR_ELEMENTS, Scope, Since, Stored, Txn, TxnOptions, Value,
    ValueRef,
};
use smallvec::SmallVec;

use crate::aside::{self, Aside};
use crate::branch::no_tag;
use crate::call::{Call, Handler};
use crate::engine::{Engine, Live};
use crate::execute::{Outcome, borrow, find, scope_in};
use crate::past::{Past, PastError};
use crate::session::Session;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("at", at), ("client|travel", travel)];

/// A moment of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// On whose line.
    pub(crate) branch: BranchId,
    pub(crate) revision: Revision,
    /// What the clock said, in milliseconds since 1970: the revision's own
    /// time, or the time that was asked for.
    pub(crate) time_ms: u64,
    /// The branch as it was at this revision, should it have begun anew since;
    /// `Revision(u64::MAX)` for the one that is there.
    pub(crate) as_of: Revision,
}

/// A `<when>` as a client names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    when: When,
    /// The branch of the tag that it names, if it does.
    tagged: Option<BranchId>,
}

impl From<When> for Point {
    fn from(when: When) -> Point {
        Point { when, tagged: None }
    }
}

impl Point {
    /// The branch of the tag that it names, or another one.
    pub(crate) fn branch_or(self, other: BranchId) -> BranchId {
        self.tagged.unwrap_or(other)
    }
}

impl Moment {
    /// One of the line that a branch has.
    pub(crate) fn new(branch: BranchId, revision: Revision, time_ms: u64) -> Moment {
        Moment { branch, revision, time_ms, as_of: Revision(u64::MAX) }
    }
}

/// A moment whose time may not be known yet: to look it up takes the log.
#[derive(Clone, Copy, Debug)]
struct At {
    moment: Moment,
    is_timed: bool,
}

impl From<Moment> for At {
    fn from(moment: Moment) -> At {
        At { moment, is_timed: true }
    }
}

impl At {
    fn time_ms(self) -> Option<u64> {
        self.is_timed.then_some(self.moment.time_ms)
    }
}

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

/// What the clock says where no key has a deadline.
const ANY_TIME: u64 = 0;

/// What a key held, with its deadline, if it existed.
pub(crate) type Then = Option<(Value, Option<u64>)>;

/// Nobody writes to the past.
pub(crate) struct Unchanged;

impl Journal for Unchanged {
    fn reserve(&self) -> Revision {
        unreachable!("a command that only reads has changed a view")
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}

    fn wants_effects(&self) -> bool {
        false
    }
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

    /// Reads a `<when>`; a tag stands for the revision that it names.
    pub(crate) fn parse_when(&self, arg: &[u8]) -> Result<When> {
        self.parse_point(arg).map(|point| point.when)
    }

    /// As [`Engine::parse_when`], for those to whom a tag's branch matters too.
    pub(crate) fn parse_point(&self, arg: &[u8]) -> Result<Point> {
        let Some(name) = tag_name(arg) else { return parse_when(arg).map(Point::from) };
        let known = self.branches.known.read();
        let tag = known.tag(name).ok_or_else(|| no_tag(name))?;
        Ok(Point { when: When::Revision(tag.revision), tagged: Some(tag.branch) })
    }

    /// When a revision ran. That of a tag is known as long as the tag.
    fn time_ms_of(&self, revision: Revision) -> Result<u64> {
        let known = self.branches.known.read();
        let tagged = known.tags().values().find(|tag| tag.revision == revision);
        match tagged.map(|tag| tag.time_ms) {
            Some(time_ms) => Ok(time_ms),
            None => Ok(self.needs_past()?.time_of(revision)?),
        }
    }

    /// The moment of a branch's line that a client names. A tag of the branch names
    /// it as it was, whether or not it has begun anew since.
    pub(crate) fn moment(
        &self,
        branch: BranchId,
        point: impl Into<Point>,
        now_ms: u64,
    ) -> Result<Moment> {
        let (past, point) = (self.needs_past()?, point.into());
        let newest = self.replicator.committed();
        let (revision, time_ms) = match (point.when, time_named(point.when, now_ms)) {
            (When::Revision(asked), _) if asked > newest => {
                return Err(PastError::Future { asked, newest }.into());
            }
            // The empty database was never written.
            (When::Revision(Revision::ZERO), _) if past.oldest() == Revision::ZERO => {
                (Revision::ZERO, 0)
            }
            (When::Revision(revision), _) => (revision, self.time_ms_of(revision)?),
            (_, time_ms) => {
                let time_ms = time_ms.unwrap_or(now_ms);
                (past.at_time(time_ms)?.min(newest), time_ms)
            }
        };
        let moment = Moment::new(branch, revision, time_ms);
        Ok(Moment { as_of: self.life_of(branch, point), ..moment })
    }

    /// As of which revision a branch is meant: that of a tag of it.
    pub(crate) fn life_of(&self, branch: BranchId, point: Point) -> Revision {
        let known = self.branches.known.read();
        match point {
            Point { when: When::Revision(at), tagged: Some(tagged) }
                if tagged == branch && known.lineage(branch, at).is_some() =>
            {
                at
            }
            _ => Revision(u64::MAX),
        }
    }

    /// As [`Engine::moment`], but of a revision the time is looked up only when
    /// somebody needs it.
    fn at(&self, branch: BranchId, point: Point, now_ms: u64) -> Result<At> {
        let past = self.needs_past()?;
        match point.when {
            When::Revision(revision)
                if revision >= past.oldest() && revision <= self.replicator.committed() =>
            {
                let as_of = self.life_of(branch, point);
                let moment = Moment { as_of, ..Moment::new(branch, revision, ANY_TIME) };
                Ok(At { moment, is_timed: false })
            }
            _ => self.moment(branch, point, now_ms).map(At::from),
        }
    }

    fn time_of(&self, at: At) -> Result<Moment> {
        let At { moment, is_timed } = at;
        if is_timed {
            return Ok(moment);
        }
        let timed = self.moment(moment.branch, When::Revision(moment.revision), 0)?;
        Ok(Moment { time_ms: timed.time_ms, ..moment })
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

    /// A key as it was, made from what its branch has now, if that is a large
    /// collection of which little has changed since.
    fn key_near(
        &self,
        past: &Arc<dyn Past>,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> std::result::Result<Option<Stored>, PastError> {
        let Some(keyspace) = self.keyspace_since(past, branch, revision, db) else {
            return Ok(None);
        };
        match keyspace.copy_large(db, key, NEAR_ELEMENTS) {
            Some(present) => past.key_from(branch, revision, db, key, present),
            None => Ok(None),
        }
    }

    /// What a branch has now of a key, if that is small and the branch is still the
    /// one of this revision.
    pub(crate) fn present(
        &self,
        past: &Arc<dyn Past>,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> Option<Stored> {
        self.keyspace_since(past, branch, revision, db)?.copy_small(db, key)
    }

    /// What a branch has in memory, if it has been the same since a revision and
    /// has such a database.
    fn keyspace_since(
        &self,
        past: &Arc<dyn Past>,
        branch: BranchId,
        revision: Revision,
        db: DbIndex,
    ) -> Option<Arc<Keyspace>> {
        let keyspace = self.branch(branch)?.keyspace.clone();
        // One that has begun anew since is another; it is known as such before it
        // serves.
        let forked = self.branches.known.read().get(branch).map(|row| row.forked);
        let begins = forked.unwrap_or_default().max(past.oldest());
        (db < keyspace.databases() && revision >= begins).then_some(keyspace)
    }

    /// The state at a moment, all of it.
    pub(crate) fn view_at(&self, at: Moment) -> Result<Arc<Keyspace>> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        Ok(self.needs_past()?.view(branch, revision)?)
    }

    /// As [`Engine::view_at`], to be changed, with keys that are read when they are asked for.
    pub(crate) fn state_at(&self, at: Moment) -> Result<Keyspace> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        Ok(self.needs_past()?.state(branch, revision)?)
    }

    /// As [`Engine::state_at`], for those who look only at keys with some names,
    /// in whatever database.
    pub(crate) fn state_of_at(&self, at: Moment, names: &HashSet<Vec<u8>>) -> Result<Keyspace> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        Ok(self.needs_past()?.state_of(branch, revision, names)?)
    }

    /// The same, for those who look at keys by name only.
    pub(crate) fn view_of_keys_at(&self, at: Moment) -> Result<Arc<Keyspace>> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        Ok(self.needs_past()?.view_of_keys(branch, revision)?)
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

/// Looks at the past by other commands than those of a client.
impl Engine {
    /// A key as it was; `look` sees `None` where there was none.
    pub(crate) fn look_at<R>(
        &self,
        at: Moment,
        db: DbIndex,
        key: &[u8],
        look: impl FnOnce(Option<ValueRef<'_>>, Option<u64>) -> R,
    ) -> Result<R> {
        let (past, (branch, revision)) = (self.needs_past()?, self.line_of(at).at(at.revision));
        // To make a view costs more than to read what is small.
        if self.present(past, branch, revision, db, key).is_some() {
            let present = &|| self.present(past, branch, revision, db, key);
            let found = past.key_with(branch, revision, db, key, None, present, false)?;
            let seen = found.filter(|it| it.deadline.is_none_or(|due| due > at.time_ms));
            let deadline = seen.as_ref().and_then(|stored| stored.deadline);
            return Ok(look(seen.as_ref().map(|stored| stored.value.as_ref()), deadline));
        }
        let view = self.view_of_keys_at(at)?;
        self.look_in(&view, at.time_ms, db, key, look)
    }

    /// As [`Engine::look_at`], in a keyspace that is there already.
    pub(crate) fn look_in<R>(
        &self,
        view: &Keyspace,
        time_ms: u64,
        db: DbIndex,
        key: &[u8],
        look: impl FnOnce(Option<ValueRef<'_>>, Option<u64>) -> R,
    ) -> Result<R> {
        if db >= view.databases() {
            return Ok(look(None, None));
        }
        let (live, mut buffers) = (self.live(), Buffers::default());
        let options = view_options(&live, time_ms);
        let mut txn = Txn::begin_on_key(view, key, &Unchanged, &mut buffers, options);
        txn.keep_due();
        txn.select(db);
        txn.load(key);
        txn.check_backing()?;
        Ok(look(txn.look(key), txn.deadline(key).flatten()))
    }

    /// A copy of a key's value as it was, with its deadline.
    pub(crate) fn value_at(&self, at: Moment, db: DbIndex, key: &[u8]) -> Result<Then> {
        let (branch, revision) = self.line_of(at).at(at.revision);
        if let Some(near) = self.value_near(branch, revision, at.time_ms, db, key)? {
            return Ok(near);
        }
        let copy = |value: Option<ValueRef<'_>>, deadline| Some((value?.to_shared(), deadline));
        self.look_at(at, db, key, copy)
    }

    /// As [`Engine::value_at`] of a revision of a branch's own, if the key can be
    /// made from what the branch has now; `None` if it has to be read.
    pub(crate) fn value_near(
        &self,
        branch: BranchId,
        revision: Revision,
        time_ms: u64,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Option<Then>> {
        let Some(past) = self.past() else { return Ok(None) };
        let near = self.key_near(past, branch, revision, db, key)?;
        Ok(near.map(|Stored { value, deadline, .. }| {
            let is_due = deadline.is_some_and(|at| at <= time_ms);
            (!is_due).then_some((value, deadline))
        }))
    }

    /// As [`Engine::value_at`], in a view that is there already.
    pub(crate) fn value_in(
        &self,
        view: &Keyspace,
        time_ms: u64,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Then> {
        let copy = |value: Option<ValueRef<'_>>, deadline| Some((value?.to_shared(), deadline));
        self.look_in(view, time_ms, db, key, copy)
    }

    /// Fails for a database that there is not: an earlier start had more. To be
    /// called before anything is changed.
    pub(crate) fn check_database(&self, db: Option<DbIndex>) -> Result {
        let databases = self.keyspace.databases();
        match db.filter(|db| *db >= databases) {
            None => Ok(()),
            Some(db) => Err(Error::new(format!(
                "ERR keys of database {db} changed then, but server.databases is {databases}: raise it to {} at least \
                 and restart; nothing is done",
                u32::from(db) + 1
            ))),
        }
    }

    /// Visits the names of all keys of a database, those that are due included.
    pub(crate) fn each_key(
        &self,
        keyspace: &Keyspace,
        db: DbIndex,
        visit: &mut dyn FnMut(&[u8]),
    ) -> Result {
        if db >= keyspace.databases() {
            return Ok(());
        }
        let (live, mut buffers) = (self.live(), Buffers::default());
        // At this time no deadline has passed.
        let options = view_options(&live, 0);
        let scope = Scope::Sliced;
        let mut txn = Txn::begin(keyspace, &scope, &Unchanged, &mut buffers, options);
        txn.keep_due();
        txn.select(db);
        txn.scan(0, usize::MAX, &mut |key, _| visit(key))?;
        Ok(())
    }
}

pub(crate) fn view_options(live: &Live, now_ms: u64) -> TxnOptions<'_> {
    TxnOptions {
        now_ms,
        limits: &live.encoding,
        event_classes: 0,
        always_record: false,
        expire: true,
        touch: false,
    }
}
