//! DEBUG: what tests and operators use of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{Frame, glob, number::parse_f64};
use command::args::integer;
use command::{Error, Result};

use crate::call::{Call, Handler, help};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("debug|change-repl-id", accepted),
    ("debug|help", debug_help),
    ("debug|jmap", accepted),
    ("debug|listpack", accepted),
    ("debug|panic", panic),
    ("debug|quicklist-packed-threshold", accepted),
    ("debug|reload", reload),
    ("debug|set-active-expire", set_active_expire),
    ("debug|set-disable-deny-scripts", accepted),
    ("debug|sleep", sleep),
    ("debug|stringmatch-len", stringmatch_len),
];

/// Knobs of structures that Alcid does not have, which test suites turn.
fn accepted(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.reply.ok();
    Ok(Outcome::Done)
}

fn panic(_call: &mut Call<'_, '_>) -> Result<Outcome> {
    panic!("asked for by DEBUG PANIC");
}

fn set_active_expire(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let is_on = integer(call.args[0])? != 0;
    call.engine.active_expire.store(is_on, Ordering::Relaxed);
    call.reply.ok();
    Ok(Outcome::Done)
}

/// Answers later. Other clients go on; inside EXEC, which cannot wait, the
/// thread sleeps with every lock held, so that everybody else waits as well.
fn sleep(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let seconds = parse_f64(call.args[0])
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .ok_or(Error::NOT_FLOAT)?
        .min(1e6);
    if call.open.is_some() {
        #[expect(clippy::disallowed_methods, reason = "stalling the server is what is asked for")]
        std::thread::sleep(Duration::from_secs_f64(seconds));
        call.reply.ok();
        return Ok(Outcome::Done);
    }
    let deadline_ms = call.now_ms.saturating_add((seconds * 1000.0).ceil() as u64);
    let ok = Frame::Simple("OK".to_owned());
    Ok(Outcome::Blocked(call.engine.blocking.register_plain(
        call.session,
        call.command,
        ok,
        Some(deadline_ms),
    )))
}

fn stringmatch_len(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let length = usize::try_from(integer(call.args[0])?).map_err(|_| Error::MUST_BE_POSITIVE)?;
    let max = call.live.data.string_bytes_max;
    if length > max {
        return Err(Error::STRING_TOO_LONG);
    }
    let text = vec![b'x'; length];
    call.reply.integer(i64::from(glob::matches(call.args[1], &text)));
    Ok(Outcome::Done)
}

fn reload(call: &mut Call<'_, '_>) -> Result<Outcome> {
    if call.open.is_some() {
        return Err(Error::new("ERR DEBUG RELOAD cannot run inside MULTI"));
    }
    let known: [&[u8]; 3] = [b"merge", b"noflush", b"nosave"];
    if !call.args.iter().all(|arg| known.iter().any(|word| arg.eq_ignore_ascii_case(word))) {
        return Err(Error::new(
            "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
        ));
    }
    let Some(hook) = &call.engine.hooks.reload else {
        return Err(Error::new("ERR DEBUG RELOAD needs the log, which is off (log.enabled)"));
    };
    hook(call.engine).map_err(|reason| Error::new(format!("ERR {reason}")))?;
    call.reply.ok();
    Ok(Outcome::Done)
}

fn debug_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "DEBUG",
        &[
            "CHANGE-REPL-ID",
            "    Accepted; there is no replication id to change.",
            "JMAP",
            "    Accepted; there is no Java heap to dump.",
            "LISTPACK <key>",
            "    Accepted; small collections have no listpack to show.",
            "OBJECT <key> [FAST]",
            "    Show low level info about `key` and associated value.",
            "PANIC",
            "    Crash the server simulating a panic.",
            "QUICKLIST-PACKED-THRESHOLD <size>",
            "    Accepted; long list elements need no nodes of their own.",
            "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
            "    Empty the keyspace and replay the log from disk into it.",
            "SET-ACTIVE-EXPIRE <0|1>",
            "    Setting it to 0 disables expiring keys in background when they are not",
            "    accessed (otherwise the behavior). Setting it to 1 reenables back the",
            "    default.",
            "SET-DISABLE-DENY-SCRIPTS <0|1>",
            "    Accepted; there are no scripts.",
            "SLEEP <seconds>",
            "    Answer after <seconds>. Decimals allowed. Inside MULTI every client waits.",
            "STRINGMATCH-LEN <length> <pattern>",
            "    Match a string of <length> times `x` against <pattern>.",
        ],
    )
}
