//! AUTH, ECHO, HELLO, PING, QUIT, RESET, SELECT.

use std::sync::atomic::Ordering;

use base::number::parse_i64;
use command::args::is_word;
use command::{Args, Command, Error, Result};
use settings::MappedBranch;

use crate::branch::{in_the_way, use_branch};
use crate::call::{Call, Handler};
use crate::engine::{Engine, Live};
use crate::execute::Outcome;
use crate::session::{ReplyMode, Session};

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("auth", auth),
    ("echo", echo),
    ("hello", hello),
    ("ping", ping),
    ("quit", quit),
    ("reset", reset),
    ("select", select),
];

/// The version of Redis whose behaviour we follow, for programs that ask.
pub(crate) const REDIS_VERSION: &str = "7.2.4";

fn ping(call: &mut Call<'_, '_>) -> Result<Outcome> {
    if call.args.len() > 1 {
        return Err(Error::arity("ping"));
    }
    let message = call.args.first().copied();
    if call.session.is_listening() && !call.reply.is_resp3() {
        call.reply.array(2);
        call.reply.bulk(b"pong");
        call.reply.bulk(message.unwrap_or_default());
    } else {
        match message {
            Some(message) => call.reply.bulk(message),
            None => call.reply.simple("PONG"),
        }
    }
    Ok(Outcome::Done)
}

fn echo(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.reply.bulk(call.args[0]);
    Ok(Outcome::Done)
}

fn quit(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.reply.ok();
    Ok(Outcome::Close)
}

fn select(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let number = command::args::integer(call.args[0])?;
    let is_database = |db: &u16| *db < call.engine.databases();
    let db = match u16::try_from(number).ok().filter(is_database) {
        Some(db) => db,
        None => select_on_branch(call, number)?,
    };
    call.session.select(db);
    call.reply.ok();
    Ok(Outcome::Done)
}

/// What the settings say that a number stands for.
fn mapped(live: &Live, number: i64) -> Option<&MappedBranch> {
    live.select_branches.iter().find(|mapped| i64::from(mapped.number) == number)
}

/// A number that the settings give to a database of a branch.
fn select_on_branch(call: &mut Call<'_, '_>, number: i64) -> Result<u16> {
    let mapped = mapped(call.live, number).ok_or(Error::DB_OUT_OF_RANGE)?;
    if mapped.db >= call.engine.databases() {
        return Err(Error::DB_OUT_OF_RANGE);
    }
    use_branch(call, mapped.branch.as_bytes())?;
    Ok(mapped.db)
}

/// Refuses to queue what would put the connection on another branch: EXEC could not
/// do it, and what comes behind it would be done to the branch that it is on.
pub(crate) fn check_stays(
    engine: &Engine,
    session: &Session,
    live: &Live,
    command: &Command,
    args: &[&[u8]],
) -> Result {
    let name = match (command.full_name.as_str(), args) {
        ("select", [number]) => {
            let number = parse_i64(number);
            number.and_then(|number| mapped(live, number)).map(|mapped| mapped.branch.as_bytes())
        }
        ("auth", [user, _]) => split_user(user).1,
        ("hello", args) => {
            let user = |words: &&[&[u8]]| is_word(words[0], "auth");
            args.windows(2).filter(user).find_map(|words| split_user(words[1]).1)
        }
        _ => None,
    };
    match name {
        Some(name) if engine.branch_named(name)?.id != session.branch() => {
            Err(in_the_way("a transaction is on one branch; EXEC", name))
        }
        _ => Ok(()),
    }
}

fn reset(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let session = &mut *call.session;
    session.leave_multi();
    call.engine.pubsub.forget(session);
    call.engine.untrack(session);
    call.engine.close_watches(&session.client);
    session.monitoring = false;
    session.no_touch = false;
    session.reply_mode = ReplyMode::On;
    session.set_shows_revisions(false);
    session.set_travel(None);
    call.engine.go_home(session);
    session.authenticated = call.live.settings.requirepass.is_empty();
    let activity = &session.client.activity;
    for flag in [&activity.resp3, &activity.monitor, &activity.no_evict, &activity.no_touch] {
        flag.store(false, Ordering::Relaxed);
    }
    session.client.identity.lock().name.clear();
    call.reply.set_resp3(false);
    call.reply.simple("RESET");
    Ok(Outcome::Done)
}

fn auth(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let (user, password) = match call.args {
        [password] => {
            if call.live.settings.requirepass.is_empty() {
                return Err(Error::new(
                    "ERR AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                ));
            }
            (&b"default"[..], *password)
        }
        [user, password] => (*user, *password),
        _ => return Err(Error::SYNTAX),
    };
    authenticate(call, user, password)?;
    call.reply.ok();
    Ok(Outcome::Done)
}

/// The two parts of `user@branch`.
fn split_user(user: &[u8]) -> (&[u8], Option<&[u8]>) {
    match user.iter().rposition(|&byte| byte == b'@') {
        Some(at) => (&user[..at], Some(&user[at + 1..])),
        None => (user, None),
    }
}

/// Checks who it is; `user@branch` also puts the connection on a branch, which
/// clients that know nothing of branches can say.
fn authenticate(call: &mut Call<'_, '_>, user: &[u8], password: &[u8]) -> Result {
    let (user, branch) = split_user(user);
    let expected = call.live.settings.requirepass.expose().as_bytes();
    // Without a password the default user takes any, as Redis's `nopass`.
    let is_right =
        user == b"default" && (expected.is_empty() || equal_in_constant_time(expected, password));
    if !is_right {
        tracing::warn!(client = call.session.client.id, addr = %call.session.client.addr, "authentication failed");
        return Err(Error::new("WRONGPASS invalid username-password pair or user is disabled."));
    }
    if let Some(name) = branch {
        use_branch(call, name)?;
    }
    call.session.authenticated = true;
    "default".clone_into(&mut call.session.user);
    "default".clone_into(&mut call.session.client.identity.lock().user);
    Ok(())
}

/// Takes the same time wherever the first difference is.
fn equal_in_constant_time(expected: &[u8], given: &[u8]) -> bool {
    let mut difference = expected.len() ^ given.len();
    for (index, byte) in given.iter().enumerate() {
        difference |= usize::from(byte ^ expected.get(index).copied().unwrap_or(!byte));
    }
    difference == 0
}

fn hello(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let mut resp3 = call.reply.is_resp3();
    if !args.is_empty() {
        let version = args
            .next_i64()
            .map_err(|_| Error::new("ERR Protocol version is not an integer or out of range"))?;
        resp3 = match version {
            2 => false,
            3 => true,
            _ => return Err(Error::new("NOPROTO unsupported protocol version")),
        };
    }
    let (mut credentials, mut name) = (None, None);
    while !args.is_empty() {
        if args.len() >= 3 && args.take_word("auth") {
            credentials = Some((args.next()?, args.next()?));
        } else if args.len() >= 2 && args.take_word("setname") {
            let given = args.next()?;
            check_name(given, "Client names")?;
            name = Some(String::from_utf8_lossy(given).into_owned());
        } else {
            let option = String::from_utf8_lossy(args.next()?).into_owned();
            return Err(Error::new(format!("ERR Syntax error in HELLO option '{option}'")));
        }
    }
    if let Some((user, password)) = credentials {
        authenticate(call, user, password)?;
    }
    if !call.session.authenticated {
        return Err(Error::new(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
             AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol \
             version at the same time",
        ));
    }
    if let Some(name) = name {
        call.session.client.identity.lock().name = name;
    }
    call.reply.set_resp3(resp3);
    call.session.client.activity.resp3.store(resp3, Ordering::Relaxed);
    if !resp3 {
        call.session.set_shows_revisions(false);
        if call.session.tracking.watch.is_some() {
            call.engine.untrack(call.session);
        }
    }
    let reply = &mut *call.reply;
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(if resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(call.session.client.id as i64);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(Outcome::Done)
}

/// Names and library information hold printable characters without spaces.
pub(crate) fn check_name(name: &[u8], what: &str) -> Result {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        Ok(())
    } else {
        Err(Error::new(format!(
            "ERR {what} cannot contain spaces, newlines or special characters."
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_compare_whole() {
        for (expected, given, equal) in [
            ("secret", "secret", true),
            ("secret", "secreT", false),
            ("secret", "secre", false),
            ("secret", "secrets", false),
            ("", "x", false),
        ] {
            assert_eq!(
                equal_in_constant_time(expected.as_bytes(), given.as_bytes()),
                equal,
                "{expected} {given}"
            );
        }
    }
}
