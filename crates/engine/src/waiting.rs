//! WAIT and WAITAOF.

use std::sync::Arc;

use base::{Frame, Revision};
use command::args::integer;
use command::{Error, Result};

use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("wait", wait), ("waitaof", waitaof)];

/// A node that stands alone has no replicas.
const REPLICAS: i64 = 0;

/// `timeout` in milliseconds; 0 is for ever.
fn timeout_ms(arg: &[u8]) -> Result<Option<u64>> {
    let ms = base::number::parse_i64(arg)
        .ok_or(Error::new("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| Error::TIMEOUT_NEGATIVE)?;
    Ok((ms > 0).then_some(ms))
}

fn wait(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let wanted = integer(call.args[0])?;
    let timeout_ms = timeout_ms(call.args[1])?;
    if wanted <= REPLICAS || call.open.is_some() {
        call.reply.integer(REPLICAS);
        return Ok(Outcome::Done);
    }
    let deadline_ms = timeout_ms.map(|ms| call.now_ms.saturating_add(ms));
    let too_few = Frame::Integer(REPLICAS);
    let blocking = &call.engine.blocking;
    Ok(Outcome::Blocked(blocking.register_plain(call.session, call.command, too_few, deadline_ms)))
}

/// `[copies on this node's disk, copies on replicas]`.
fn copies(local: bool) -> Frame {
    Frame::Array(vec![Frame::Integer(i64::from(local)), Frame::Integer(REPLICAS)])
}

fn waitaof(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let local = integer(call.args[0])?;
    if !(0..=1).contains(&local) {
        return Err(Error::new("ERR value is out of range, must be between 0 and 1"));
    }
    let replicas = integer(call.args[1])?;
    if replicas < 0 {
        return Err(Error::MUST_BE_POSITIVE);
    }
    let timeout_ms = timeout_ms(call.args[2])?;
    if local == 1 && !call.live.settings.log_enabled {
        return Err(Error::new(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    let revision = call.session.last_write;
    let engine = call.engine;
    let is_durable = engine.replicator.durable() >= revision;
    if (replicas <= REPLICAS && (local == 0 || is_durable)) || call.open.is_some() {
        call.reply.frame(&copies(is_durable));
        return Ok(Outcome::Done);
    }
    let deadline_ms = timeout_ms.map(|ms| call.now_ms.saturating_add(ms));
    let on_timeout = copies(is_durable);
    let blocked =
        engine.blocking.register_plain(call.session, call.command, on_timeout, deadline_ms);
    if replicas <= REPLICAS {
        engine.replicator.request_sync();
        answer_when_durable(engine, blocked.id, revision);
    }
    Ok(Outcome::Blocked(blocked))
}

/// Answers a wait as soon as the log's syncs cover `revision`.
fn answer_when_durable(engine: &Arc<Engine>, wait: u64, revision: Revision) {
    let mut commits = engine.replicator.commits();
    let engine = engine.clone();
    tokio::spawn(async move {
        // The receiver follows every sync; the wait may end before by its
        // deadline, which `answer_wait` notices.
        let reached = commits
            .wait_for(|commit| commit.revision >= revision || commit.fault.is_some())
            .await
            .is_ok_and(|commit| commit.revision >= revision);
        if reached {
            engine.answer_wait(wait, copies(true), revision);
        }
    });
}
