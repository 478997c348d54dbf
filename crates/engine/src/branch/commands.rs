//! BRANCH and TAG, as far as they are about which branches there are.

use base::units::parse_size;
use base::{NAME_BYTES_MAX, Reply, Revision, glob, is_name};
use command::args::{duration_ms, is_word, shown};
use command::{Args, Error, Result};
use keyspace::Branch;
use keyspace::effect::Effect;

use super::create::Asker;
use super::delete::waiting_merge;
use super::{check_open, check_quota, no_branch, no_tag};
use crate::aside::{self, Aside};
use crate::call::{Call, Handler, help};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::history::revert;
use crate::travel::Point;

/// The handlers, a slice per file.
pub(crate) const FAMILIES: &[&[(&str, Handler)]] = &[
    HANDLERS,
    super::delete::HANDLERS,
    super::diff::HANDLERS,
    super::info::HANDLERS,
    super::merges::HANDLERS,
];

const HANDLERS: &[(&str, Handler)] = &[
    ("branch|create", create),
    ("branch|current", current),
    ("branch|help", branch_help),
    ("branch|list", list),
    ("branch|protect", protect),
    ("branch|rename", rename),
    ("branch|reset", reset),
    ("branch|use", move_to),
    ("tag|create", tag),
    ("tag|delete", untag),
    ("tag|help", tag_help),
    ("tag|list", tags),
];

impl Call<'_, '_> {
    pub(crate) fn asker(&self) -> Asker {
        Asker {
            command: self.command.full_name.clone(),
            user: self.session.user.clone(),
            address: self.session.client.addr.clone(),
            now_ms: self.now_ms,
        }
    }

    /// Replies wait for this revision, as for any write.
    pub(super) fn wrote(&mut self, revision: Revision) {
        let session = &mut *self.session;
        session.depends_on = session.depends_on.max(revision);
        session.saw(revision);
        session.last_write = revision;
    }
}

/// A name for something new.
fn new_name(name: &[u8]) -> Result<&[u8]> {
    if is_name(name) {
        return Ok(name);
    }
    Err(Error::new(format!(
        "ERR '{}' is no name for a branch or tag: 1 to {NAME_BYTES_MAX} letters, digits and any of -_./, of which a \
         letter or digit comes first",
        String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES_MAX)])
    )))
}

pub(super) fn check_free(engine: &Engine, name: &[u8]) -> Result {
    match engine.branches.known.read().named(name) {
        None => Ok(()),
        Some(_) => Err(Error::new(format!(
            "BRANCHEXISTS there is a branch named '{}'",
            String::from_utf8_lossy(name)
        ))),
    }
}

/// A branch that is not main.
pub(super) fn named(engine: &Engine, name: &[u8], what: &str) -> Result<Branch> {
    let known = engine.branches.known.read();
    match known.named(name) {
        None => Err(no_branch(name)),
        Some(id) => {
            known.get(id).cloned().ok_or_else(|| Error::new(format!("ERR main cannot be {what}")))
        }
    }
}

pub(super) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn create(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let name = new_name(args.next()?)?;
    let (mut from, mut at, mut ttl_ms, mut quota_bytes, mut is_readonly) =
        (None, None, None, 0, false);
    while !args.is_empty() {
        if args.take_word("from") {
            from = Some(args.next()?);
        } else if args.take_word("at") {
            at = Some(call.engine.parse_point(args.next()?)?);
        } else if args.take_word("ttl") {
            ttl_ms = Some(duration(args.next()?)?);
        } else if args.take_word("quota") {
            quota_bytes = size(args.next()?)?;
        } else if args.take_word("readonly") {
            is_readonly = true;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let engine = call.engine;
    engine.needs_branching()?;
    let parent = match from {
        Some(parent) => engine.branch_named(parent)?.id,
        None => {
            let own = engine.existing_branch_of(call.session)?;
            at.map_or(own, |at| at.branch_or(own))
        }
    };
    let turn = engine.branches.turn.lock();
    check_free(engine, name)?;
    let id = engine.branches.known.read().next_id();
    let row = Branch {
        created_ms: call.now_ms,
        created_by: call.session.user.clone().into_bytes(),
        deadline_ms: ttl_ms.map(|ms| call.now_ms.saturating_add(ms)),
        quota_bytes,
        is_readonly,
        ..Branch::new(id, name, parent)
    };
    let Some(when) = at else {
        let revision = engine.fork(&call.asker(), &row)?;
        let made = engine.branches.known.read().get(row.id).cloned();
        drop(turn);
        call.wrote(revision);
        write_made(engine, &made.expect("just made"), call.reply);
        return Ok(Outcome::Done);
    };
    drop(turn);
    create_at(call, row, when)
}

/// A branch from an earlier time: the disk is read for it.
fn create_at(call: &mut Call<'_, '_>, row: Branch, when: Point) -> Result<Outcome> {
    let asker = call.asker();
    aside::run(call, move |engine, reply| {
        let moment = engine.moment(row.parent, when, asker.now_ms)?;
        let (made, revision) = engine.fork_at(row, moment, &asker)?;
        write_made(engine, &made, reply);
        Ok(Aside { depends_on: revision, written: Some(revision), ..Aside::default() })
    })
}

fn write_made(engine: &Engine, made: &Branch, reply: &mut dyn Reply) {
    reply.map(3);
    reply.bulk(b"name");
    reply.bulk(&made.name);
    reply.bulk(b"parent");
    reply.bulk(&engine.branch_name(made.parent));
    reply.bulk(b"base_rev");
    reply.integer(number(made.base.0));
}

pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn duration(word: &[u8]) -> Result<u64> {
    duration_ms(word).filter(|&ms| ms > 0).ok_or_else(|| {
        Error::new(format!(
            "ERR '{}' is no duration; write one above 0, as 500ms, 30s, 10m, 2h30m or 7d, of at most \
             {}ms in all",
            shown(word),
            u64::MAX
        ))
    })
}

fn size(word: &[u8]) -> Result<u64> {
    let parsed = std::str::from_utf8(word).ok().and_then(parse_size);
    parsed.filter(|&bytes| bytes > 0).ok_or_else(|| {
        Error::new(format!("ERR '{}' is no size; write one as 64kb or 1GB", shown(word)))
    })
}

/// BRANCH USE, and what else puts a connection on a branch.
pub(crate) fn use_branch(call: &mut Call<'_, '_>, name: &[u8]) -> Result {
    let branch = call.engine.branch_named(name)?;
    if branch.id == call.session.branch() {
        return Ok(());
    }
    let (is_open, session) = (call.open.is_some(), &mut *call.session);
    let obstacles = [
        (is_open, "a transaction is on one branch; EXEC"),
        (!session.watched.is_empty(), "keys of this branch are watched; EXEC, or UNWATCH,"),
        (
            session.tracking.watch.is_some(),
            "this connection tracks keys of its branch FROM a revision; CLIENT TRACKING OFF",
        ),
    ];
    if let Some((_, what)) = obstacles.into_iter().find(|(is_there, _)| *is_there) {
        return Err(in_the_way(what, name));
    }
    call.engine.take_seat(session, &branch);
    Ok(())
}

/// The error for who cannot go to a branch, and what is to be done first.
pub(crate) fn in_the_way(what: &str, branch: &[u8]) -> Error {
    Error::new(format!("ERR {what} before you go to the branch '{}'", text(branch)))
}

fn move_to(call: &mut Call<'_, '_>) -> Result<Outcome> {
    use_branch(call, call.args[0])?;
    call.reply.ok();
    Ok(Outcome::Done)
}

fn current(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let known = call.engine.branches.known.read();
    // One that is gone is called what it was.
    let name = known.name_of(call.session.branch()).unwrap_or(&call.session.branch_name);
    call.reply.bulk(name);
    Ok(Outcome::Done)
}

fn list(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let pattern = if args.take_word("match") { Some(args.next()?) } else { None };
    if !args.is_empty() {
        return Err(Error::SYNTAX);
    }
    let known = call.engine.branches.known.read();
    let there = known.iter().filter(|branch| !branch.is_deleted());
    let mut names: Vec<&[u8]> = there.map(|branch| &branch.name[..]).collect();
    names.push(keyspace::MAIN);
    names.retain(|name| pattern.is_none_or(|pattern| glob::matches(pattern, name)));
    names.sort_unstable();
    call.reply.array(names.len());
    names.into_iter().for_each(|name| call.reply.bulk(name));
    Ok(Outcome::Done)
}

fn reset(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let &[name, word, when] = call.args else { return Err(Error::SYNTAX) };
    if !is_word(word, "to") {
        return Err(Error::SYNTAX);
    }
    let engine = call.engine;
    if !is_word(when, "parent") {
        let row = named(engine, name, "reset; REVERT ALL brings back what it was")?;
        check_open(&row)?;
        let when = engine.parse_point(when)?;
        // What it was may be more than it is, as with REVERT.
        if let Some(branch) = engine.branch(row.id) {
            check_quota(&row, &branch.keyspace)?;
        }
        return revert::reset(call, row.id, when);
    }
    let turn = engine.branches.turn.lock();
    let row = named(engine, name, "made anew from a parent: it has none")?;
    check_open(&row)?;
    if let Some(merge) = waiting_merge(engine, row.id) {
        return Err(Error::new(format!(
            "BRANCHBUSY the merge m{merge} waits for decisions; BRANCH ABORT m{merge} gives it up"
        )));
    }
    let revision = engine.fork_anew(&call.asker(), row)?;
    drop(turn);
    call.wrote(revision);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn rename(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let (engine, name) = (call.engine, new_name(call.args[1])?);
    let turn = engine.branches.turn.lock();
    let row = named(engine, call.args[0], "renamed")?;
    if row.name != name {
        check_free(engine, name)?;
        let row = Branch { name: name.to_vec(), ..row };
        let revision = engine.change_branch(&call.asker(), &row);
        call.wrote(revision);
    }
    drop(turn);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn protect(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let name = args.next()?;
    let (mut is_kept, mut is_merge_only) = (false, false);
    while !args.is_empty() {
        if args.take_word("no-delete") {
            is_kept = true;
        } else if args.take_word("merge-only") {
            is_merge_only = true;
        } else if args.take_word("require") {
            let hook = args.next()?;
            return Err(Error::new(format!(
                "NOHOOK no hook is named '{}'",
                text(&hook[..hook.len().min(NAME_BYTES_MAX)])
            )));
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let engine = call.engine;
    let turn = engine.branches.turn.lock();
    let row = named(engine, name, "protected: it is always there, and open to writes")?;
    let revision = engine.change_branch(&call.asker(), &Branch { is_kept, is_merge_only, ..row });
    drop(turn);
    call.wrote(revision);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn branch_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "BRANCH",
        &[
            "ABORT <merge>",
            "    Give up a merge that waits for decisions.",
            "CONFLICTS <merge>",
            "    List what a merge cannot decide.",
            "CREATE <name> [FROM <branch>] [AT <when>] [TTL <duration>] [QUOTA <size>] [READONLY]",
            "    Make a branch, which begins with what its parent has, or had.",
            "CURRENT",
            "    Name the connection's branch.",
            "DELETE <name> [FORCE] [NOUNDO]",
            "    Delete a branch; FORCE although connections or branches need it, NOUNDO for good.",
            "DIFF <a>[@<when>] <b>[@<when>] [MATCH <pattern>] [COUNT <n>] [CURSOR <cursor>] [VALUES] [SUMMARY]",
            "    List the keys in which two branches differ.",
            "INFO <name>",
            "    Tell about a branch.",
            "LIST [MATCH <pattern>]",
            "    Name the branches.",
            "MERGE <name> [INTO <name>] [MATCH <pattern>] [ON CONFLICT FAIL|OURS|THEIRS|MANUAL] [DRYRUN] [MSG <text>]",
            "    Take what another branch has changed.",
            "PROTECT <name> [NO-DELETE] [MERGE-ONLY] [REQUIRE <hook>]",
            "    Say what is not to be done to a branch.",
            "RENAME <name> <newname>",
            "    Give a branch another name.",
            "RESET <name> TO <when>|PARENT",
            "    Make a branch what it was, or what its parent is.",
            "RESOLVE <merge> <key> OURS|THEIRS|VALUE <value>",
            "    Decide what becomes of a key that a merge cannot decide.",
            "USE <name>",
            "    Put the connection on a branch.",
        ],
    )
}

fn tag(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let name = new_name(args.next()?)?;
    let (mut branch, mut at) = (None, None);
    while !args.is_empty() {
        if args.take_word("branch") {
            branch = Some(args.next()?);
        } else if args.take_word("at") {
            at = Some(call.engine.parse_point(args.next()?)?);
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let engine = call.engine;
    engine.needs_branching()?;
    let mut branch = match branch {
        Some(branch) => engine.branch_named(branch)?.id,
        None => {
            let own = engine.existing_branch_of(call.session)?;
            at.map_or(own, |at| at.branch_or(own))
        }
    };
    let turn = engine.branches.turn.lock();
    if engine.branches.known.read().tag(name).is_some() {
        return Err(Error::new(format!("ERR there is a tag named '{}'", text(name))));
    }
    let (revision, time_ms) = match at {
        None => (Revision::ZERO, 0),
        Some(when) => {
            let moment = engine.moment(branch, when, call.now_ms)?;
            let (owner, revision) = engine.line_of(moment).at(moment.revision);
            // What the branch had before it was made its parent goes on to have.
            if engine.branch(owner).is_some() {
                branch = owner;
            }
            // Without a time, no revision stands for the present.
            (revision, moment.time_ms.max(1))
        }
    };
    let effect = Effect::Tag { name, branch, revision, time_ms };
    let revision = engine.note_tag(&call.asker(), &effect);
    drop(turn);
    call.wrote(revision);
    let revision = engine.branches.known.read().tag(name).map(|tag| tag.revision);
    call.reply.integer(number(revision.unwrap_or_default().0));
    Ok(Outcome::Done)
}

fn untag(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let (engine, name) = (call.engine, call.args[0]);
    let turn = engine.branches.turn.lock();
    if engine.branches.known.read().tag(name).is_none() {
        return Err(no_tag(name));
    }
    let revision = engine.note_tag(&call.asker(), &Effect::TagGone { name });
    drop(turn);
    call.wrote(revision);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn tags(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let known = call.engine.branches.known.read();
    call.reply.array(known.shown_tags().count());
    for (name, tag) in known.shown_tags() {
        call.reply.map(5);
        call.reply.bulk(b"name");
        call.reply.bulk(name);
        call.reply.bulk(b"branch");
        call.reply.bulk(known.name_of(tag.branch).unwrap_or_default());
        call.reply.bulk(b"rev");
        call.reply.integer(number(tag.revision.0));
        call.reply.bulk(b"time_ms");
        call.reply.integer(number(tag.time_ms));
        call.reply.bulk(b"created_by");
        call.reply.bulk(&tag.created_by);
    }
    Ok(Outcome::Done)
}

fn tag_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "TAG",
        &[
            "CREATE <tag> [BRANCH <branch>] [AT <when>]",
            "    Name a revision, which stays readable as long as the tag exists.",
            "DELETE <tag>",
            "    Forget a tag.",
            "LIST",
            "    List the tags.",
        ],
    )
}
