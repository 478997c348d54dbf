//! DEBUG: what tests and operators use of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use base::{glob, number::parse_f64};
use command::args::integer;
use command::{Error, Result};

use crate::call::{Call, Handler, help};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("debug|change-repl-id", accepted),
    ("debug|error", error),
    ("debug|help", debug_help),
    ("debug|jmap", accepted),
    ("debug|listpack", accepted),
    ("debug|panic", panic),
    ("debug|pause-cron", pause_cron),
    ("debug|protocol", protocol),
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

/// For tests of clients: the error is the argument.
fn error(call: &mut Call<'_, '_>) -> Result<Outcome> {
    Err(Error::new(String::from_utf8_lossy(call.args[0])))
}

fn set_active_expire(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let is_on = integer(call.args[0])? != 0;
    call.engine.active_expire.store(is_on, Ordering::Relaxed);
    call.reply.ok();
    Ok(Outcome::Done)
}

/// Every client that this thread serves waits, and inside EXEC everybody, for
/// the locks are held.
fn sleep(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let seconds = parse_f64(call.args[0])
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .ok_or(Error::NOT_FLOAT)?
        .min(1e6);
    #[expect(clippy::disallowed_methods, reason = "stalling the server is what is asked for")]
    std::thread::sleep(Duration::from_secs_f64(seconds));
    call.reply.ok();
    Ok(Outcome::Done)
}

fn pause_cron(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let is_paused = integer(call.args[0])? != 0;
    call.engine.cron_paused.store(is_paused, Ordering::Relaxed);
    call.reply.ok();
    Ok(Outcome::Done)
}

/// A reply of every type, for tests of clients.
fn protocol(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let reply = &mut *call.reply;
    match call.args[0].to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double(3141.0 / 1000.0),
        b"bignum" => reply.big_number("1234567999999999999999999999999999999"),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"attrib" => {
            if reply.is_resp3() {
                reply.attribute(1);
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if !reply.is_resp3() {
                return Err(Error::new("ERR RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            // Clients that drop the push still wait for a reply.
            reply.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => reply.verbatim("txt", "This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        _ => {
            return Err(Error::new(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(Outcome::Done)
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
            "ERROR <string>",
            "    Return a protocol error with <string> as message.",
            "JMAP",
            "    Accepted; there is no Java heap to dump.",
            "LISTPACK <key>",
            "    Accepted; small collections have no listpack to show.",
            "OBJECT <key> [FAST]",
            "    Show low level info about `key` and associated value.",
            "PANIC",
            "    Crash the server simulating a panic.",
            "PAUSE-CRON <0|1>",
            "    Stop the background cycles, or let them go on.",
            "PROTOCOL <type>",
            "    Reply with a test value of the specified type. <type> can be: string,",
            "    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
            "    true, false.",
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
            "    Stop the server for <seconds>. Decimals allowed.",
            "STRINGMATCH-LEN <length> <pattern>",
            "    Match a string of <length> times `x` against <pattern>.",
        ],
    )
}
