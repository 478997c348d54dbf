//! CLIENT TRACKING and the commands around it.

use std::sync::atomic::Ordering;

use base::when::When;
use command::args::{integer, is_word};
use command::{Args, Error, Result};

use super::on_or_off;
use crate::call::{Call, Handler};
use crate::execute::Outcome;
use crate::history::open_tracking;
use crate::session::Session;
use crate::tracking::{Caching, Mode};

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("client|caching", caching),
    ("client|getredir", getredir),
    ("client|tracking", tracking),
    ("client|trackinginfo", trackinginfo),
];

/// The options of CLIENT TRACKING.
#[derive(Default)]
struct Options {
    redirect: u64,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    noloop: bool,
    prefixes: Vec<Vec<u8>>,
    from: Option<Since>,
}

/// What FROM says.
#[derive(Clone, Copy)]
enum Since {
    Now,
    When(When),
}

fn tracking(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let options = parse(call)?;
    if on_or_off(call.args[0])? {
        let mode = compatible(&options, call.session)?;
        match options.from {
            None => {
                call.engine.track(
                    call.session,
                    mode,
                    options.redirect,
                    options.noloop,
                    options.prefixes,
                );
            }
            Some(from) => track_from(call, options, from)?,
        }
    } else {
        call.engine.untrack(call.session);
    }
    call.reply.ok();
    Ok(Outcome::Done)
}

/// Tracks by a watch of the log.
fn track_from(call: &mut Call<'_, '_>, options: Options, from: Since) -> Result {
    let refused = |reason: &str| Err(Error::new(format!("ERR FROM {reason}")));
    if !call.reply.is_resp3() {
        return refused("needs RESP3, where pushes can be told from replies; say HELLO 3 first");
    }
    if !options.broadcast {
        return refused("needs BCAST: what this client has read before is not known");
    }
    if options.redirect != 0 || options.noloop {
        return refused(
            "tells this connection of every change: REDIRECT and NOLOOP do not go with it",
        );
    }
    if call.session.tracking.mode.is_some() {
        return refused("begins a new order of things; say CLIENT TRACKING OFF first");
    }
    if call.open.is_some() {
        return refused("does not go into a transaction");
    }
    let when = match from {
        Since::Now => None,
        Since::When(when) => Some(when),
    };
    let watch = open_tracking(call, when, options.prefixes.clone())?;
    call.engine.track_from(call.session, watch, options.prefixes);
    Ok(())
}

fn parse(call: &Call<'_, '_>) -> Result<Options> {
    let mut options = Options::default();
    let mut args = Args::new(&call.args[1..]);
    while !args.is_empty() {
        if args.len() > 1 && args.take_word("redirect") {
            if options.redirect != 0 {
                return Err(Error::new("ERR A client can only redirect to a single other client"));
            }
            options.redirect = u64::try_from(integer(args.next()?)?)
                .ok()
                .filter(|&id| call.engine.clients.get(id).is_some())
                .ok_or(Error::new("ERR The client ID you want redirect to does not exist"))?;
        } else if args.take_word("bcast") {
            options.broadcast = true;
        } else if args.take_word("optin") {
            options.opt_in = true;
        } else if args.take_word("optout") {
            options.opt_out = true;
        } else if args.take_word("noloop") {
            options.noloop = true;
        } else if args.len() > 1 && args.take_word("prefix") {
            options.prefixes.push(args.next()?.to_vec());
        } else if args.len() > 1 && args.take_word("from") {
            options.from = Some(match args.take_word("now") {
                true => Since::Now,
                false => Since::When(call.engine.parse_when(args.next()?)?),
            });
        } else {
            return Err(Error::SYNTAX);
        }
    }
    Ok(options)
}

/// The mode that the options name, if they fit together and to what the client
/// does already.
fn compatible(options: &Options, session: &Session) -> Result<Mode> {
    if !options.broadcast && !options.prefixes.is_empty() {
        return Err(Error::new("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    let before = session.tracking.mode;
    if session.tracking.watch.is_some() {
        return Err(Error::new(
            "ERR this client tracks FROM a revision; say CLIENT TRACKING OFF before it tracks otherwise",
        ));
    }
    if before.is_some_and(|mode| (mode == Mode::Broadcast) != options.broadcast) {
        return Err(Error::new(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        ));
    }
    if options.broadcast && (options.opt_in || options.opt_out) {
        return Err(Error::new("ERR OPTIN and OPTOUT are not compatible with BCAST"));
    }
    if options.opt_in && options.opt_out {
        return Err(Error::new("ERR You can't specify both OPTIN mode and OPTOUT mode"));
    }
    if (options.opt_in && before == Some(Mode::OptOut))
        || (options.opt_out && before == Some(Mode::OptIn))
    {
        return Err(Error::new(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        ));
    }
    check_overlaps(&options.prefixes, &session.tracking.prefixes)?;
    Ok(match (options.broadcast, options.opt_in, options.opt_out) {
        (true, ..) => Mode::Broadcast,
        (_, true, _) => Mode::OptIn,
        (.., true) => Mode::OptOut,
        _ => Mode::EveryRead,
    })
}

/// Two prefixes of one client must not name the same key.
fn check_overlaps(given: &[Vec<u8>], existing: &[Vec<u8>]) -> Result {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let refuse = |a: &[u8], what: &str, b: &[u8]| {
        Err(Error::new(format!(
            "ERR Prefix '{}' overlaps with {what} prefix '{}'. Prefixes for a single client must not overlap.",
            String::from_utf8_lossy(a),
            String::from_utf8_lossy(b)
        )))
    };
    for (at, prefix) in given.iter().enumerate() {
        if let Some(other) = existing.iter().find(|other| overlap(prefix, other)) {
            return refuse(prefix, "an existing", other);
        }
        if let Some(other) = given[at + 1..].iter().find(|other| overlap(prefix, other)) {
            return refuse(prefix, "another provided", other);
        }
    }
    Ok(())
}

fn caching(call: &mut Call<'_, '_>) -> Result<Outcome> {
    if call.session.tracking.mode.is_none() {
        return Err(Error::new(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
             mode enabled",
        ));
    }
    let wanted = if is_word(call.args[0], "yes") {
        Caching::Yes
    } else if is_word(call.args[0], "no") {
        Caching::No
    } else {
        return Err(Error::SYNTAX);
    };
    match (call.session.tracking.mode, wanted) {
        (Some(Mode::OptIn), Caching::Yes) | (Some(Mode::OptOut), Caching::No) => {}
        (_, Caching::Yes) => {
            return Err(Error::new(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
        (_, Caching::No) => {
            return Err(Error::new(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
    }
    call.session.tracking.caching = Some(wanted);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn getredir(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.reply.integer(redirect_of(call.session));
    Ok(Outcome::Done)
}

/// The client that invalidations go to; 0: this one; -1: tracking is off.
fn redirect_of(session: &Session) -> i64 {
    match session.tracking.mode {
        Some(_) => session.client.activity.redirect.load(Ordering::Relaxed) as i64,
        None => -1,
    }
}

fn trackinginfo(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let state = &call.session.tracking;
    let activity = &call.session.client.activity;
    let is = |mode: Mode| state.mode == Some(mode);
    let flags: Vec<&str> = [
        (state.mode.is_none(), "off"),
        (state.mode.is_some(), "on"),
        (is(Mode::Broadcast), "bcast"),
        (is(Mode::OptIn), "optin"),
        (state.caching == Some(Caching::Yes), "caching-yes"),
        (is(Mode::OptOut), "optout"),
        (state.caching == Some(Caching::No), "caching-no"),
        (state.noloop, "noloop"),
        (state.watch.is_some(), "from"),
        (activity.redirect_broken.load(Ordering::Relaxed), "broken_redirect"),
    ]
    .into_iter()
    .filter(|(is_set, _)| *is_set)
    .map(|(_, name)| name)
    .collect();
    let redirect = redirect_of(call.session);
    let reply = &mut *call.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirect);
    reply.bulk(b"prefixes");
    reply.array(state.prefixes.len());
    state.prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(Outcome::Done)
}
