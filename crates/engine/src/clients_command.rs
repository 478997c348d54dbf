//! CLIENT.

mod select;
mod tracking;

use std::sync::atomic::{AtomicBool, Ordering};

use base::number::parse_i64;
use command::args::{integer, is_word};
use command::{Error, Result};

use crate::call::{Call, Handler, help};
use crate::connection::check_name;
use crate::execute::Outcome;
use crate::session::ReplyMode;

/// The handlers, a slice per file.
pub(crate) const FAMILIES: &[&[(&str, Handler)]] =
    &[HANDLERS, select::HANDLERS, tracking::HANDLERS];

const HANDLERS: &[(&str, Handler)] = &[
    ("client|getname", getname),
    ("client|help", client_help),
    ("client|id", id),
    ("client|no-evict", |call| switch(call, |activity| &activity.no_evict)),
    ("client|no-touch", no_touch),
    ("client|pause", pause),
    ("client|reply", reply),
    ("client|replyrev", replyrev),
    ("client|setinfo", setinfo),
    ("client|setname", setname),
    ("client|unblock", unblock),
    ("client|unpause", unpause),
];

fn id(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.reply.integer(call.session.client.id as i64);
    Ok(Outcome::Done)
}

fn getname(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let name = call.session.client.identity.lock().name.clone();
    call.reply.optional_bulk((!name.is_empty()).then_some(name.as_bytes()));
    Ok(Outcome::Done)
}

fn setname(call: &mut Call<'_, '_>) -> Result<Outcome> {
    check_name(call.args[0], "Client names")?;
    let name = String::from_utf8_lossy(call.args[0]).into_owned();
    call.session.client.identity.lock().name = name;
    call.reply.ok();
    Ok(Outcome::Done)
}

fn setinfo(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let (option, value) = (call.args[0], call.args[1]);
    let is_name = is_word(option, "lib-name");
    if !is_name && !is_word(option, "lib-ver") {
        let option = String::from_utf8_lossy(option);
        return Err(Error::new(format!("ERR Unrecognized option '{option}'")));
    }
    check_name(value, &String::from_utf8_lossy(option))?;
    let value = String::from_utf8_lossy(value).into_owned();
    let mut identity = call.session.client.identity.lock();
    if is_name {
        identity.lib_name = value;
    } else {
        identity.lib_ver = value;
    }
    drop(identity);
    call.reply.ok();
    Ok(Outcome::Done)
}

/// `ON` or `OFF`.
fn on_or_off(word: &[u8]) -> Result<bool> {
    if is_word(word, "on") {
        Ok(true)
    } else if is_word(word, "off") {
        Ok(false)
    } else {
        Err(Error::SYNTAX)
    }
}

fn switch(
    call: &mut Call<'_, '_>,
    flag: fn(&crate::client::Activity) -> &AtomicBool,
) -> Result<Outcome> {
    let is_on = on_or_off(call.args[0])?;
    flag(&call.session.client.activity).store(is_on, Ordering::Relaxed);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn no_touch(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.session.no_touch = on_or_off(call.args[0])?;
    switch(call, |activity| &activity.no_touch)
}

fn pause(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let writes_only = match &call.args[1..] {
        [] => false,
        [mode] if is_word(mode, "write") => true,
        [mode] if is_word(mode, "all") => false,
        [_] => return Err(Error::new("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(wrong_words("pause")),
    };
    let ms = parse_i64(call.args[0])
        .ok_or(Error::new("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| Error::TIMEOUT_NEGATIVE)?;
    if ms > (i64::MAX as u64).saturating_sub(call.now_ms) {
        return Err(Error::TIMEOUT_OUT_OF_RANGE);
    }
    call.engine.pause.begin(call.now_ms + ms, writes_only, call.now_ms);
    call.reply.ok();
    Ok(Outcome::Done)
}

/// More words than any form of the subcommand has.
fn wrong_words(subcommand: &str) -> Error {
    Error::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try CLIENT HELP."
    ))
}

fn unpause(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.engine.pause.end();
    call.reply.ok();
    Ok(Outcome::Done)
}

/// OFF and SKIP have no reply of their own, except inside EXEC, whose reply has
/// a place for each command.
fn reply(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mode = call.args[0];
    let has_place = call.open.is_some();
    if is_word(mode, "on") {
        call.session.reply_mode = ReplyMode::On;
        call.reply.ok();
    } else if is_word(mode, "off") {
        call.session.reply_mode = ReplyMode::Off;
    } else if is_word(mode, "skip") {
        if call.session.reply_mode != ReplyMode::Off {
            call.session.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(Error::SYNTAX);
    }
    if has_place && !is_word(mode, "on") {
        call.reply.ok();
    }
    Ok(Outcome::Done)
}

/// Alcid's own. RESP2 has no place for what stands beside a reply.
fn replyrev(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let is_on = on_or_off(call.args[0])?;
    if is_on && !call.reply.is_resp3() {
        return Err(Error::new("ERR CLIENT REPLYREV needs RESP3: say HELLO 3 first"));
    }
    if is_on {
        call.session.saw(call.engine.replicator.committed());
    }
    call.session.set_shows_revisions(is_on);
    call.reply.ok();
    Ok(Outcome::Done)
}

fn unblock(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let with_error = match &call.args[1..] {
        [] => false,
        [reason] if is_word(reason, "timeout") => false,
        [reason] if is_word(reason, "error") => true,
        [_] => {
            return Err(Error::new("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
        _ => return Err(wrong_words("unblock")),
    };
    let client = u64::try_from(integer(call.args[0])?).unwrap_or(0);
    let unblocked = call.engine.unblock_client(client, with_error);
    call.reply.integer(i64::from(unblocked));
    Ok(Outcome::Done)
}

fn client_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "CLIENT",
        &[
            "CACHING (YES|NO)",
            "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
            "GETREDIR",
            "    Return the client ID we are redirecting to when tracking is enabled.",
            "GETNAME",
            "    Return the name of the current connection.",
            "ID",
            "    Return the ID of the current connection.",
            "INFO",
            "    Return information about the current client connection.",
            "KILL <ip:port>",
            "    Kill connection made from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Kill connections. Options are:",
            "    * ADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made from the specified address",
            "    * LADDR (<ip:port>|<unixsocket>:0)",
            "      Kill connections made to specified local address",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Kill connections by type.",
            "    * USER <username>",
            "      Kill connections authenticated by <username>.",
            "    * SKIPME (YES|NO)",
            "      Skip killing current connection (default: yes).",
            "    * ID <client-id>",
            "      Kill connections by client id.",
            "LIST [options ...]",
            "    Return information about client connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Return clients of specified type.",
            "UNPAUSE",
            "    Stop the current client pause, resuming traffic.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Suspend all, or just write, clients for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Control the replies sent to the current connection.",
            "REPLYREV (ON|OFF)",
            "    Put the revision in front of each reply, as an attribute (RESP3 only).",
            "SETNAME <name>",
            "    Assign the name <name> to the current connection.",
            "SETINFO <option> <value>",
            "    Set client meta attr. Options are:",
            "    * LIB-NAME: the client lib name.",
            "    * LIB-VER: the client lib version.",
            "TRAVEL (<when>|OFF)",
            "    Read the state of an earlier time: r:<revision>, an ISO time, -<duration>.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    Unblock the specified blocked client.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
            "         [OPTIN] [OPTOUT] [NOLOOP]",
            "    Control server assisted client side caching.",
            "TRACKINGINFO",
            "    Report tracking status for the current connection.",
            "NO-EVICT (ON|OFF)",
            "    Protect current client connection from eviction.",
            "NO-TOUCH (ON|OFF)",
            "    Will not touch LRU/LFU stats when this mode is on.",
        ],
    )
}
