//! WAIT and WAITAOF.

use base::Frame;
use command::args::{at_least, integer};
use command::{Error, Result};

use crate::call::{Call, Handler};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("wait", wait), ("waitaof", waitaof)];

/// A node that stands alone has no replicas.
const REPLICAS: i64 = 0;

/// `timeout` in milliseconds as a point in time; 0 is for ever.
pub(crate) fn deadline_ms(arg: &[u8], now_ms: u64) -> Result<Option<u64>> {
    let ms = base::number::parse_i64(arg)
        .ok_or(Error::new("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| Error::TIMEOUT_NEGATIVE)?;
    let at = now_ms.checked_add(ms).filter(|&at| i64::try_from(at).is_ok());
    let at = at.ok_or(Error::TIMEOUT_OUT_OF_RANGE)?;
    Ok((ms > 0).then_some(at))
}

fn wait(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let wanted = integer(call.args[0])?;
    let deadline_ms = deadline_ms(call.args[1], call.now_ms)?;
    if wanted <= REPLICAS || call.open.is_some() {
        call.reply.integer(REPLICAS);
        return Ok(Outcome::Done);
    }
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
        return Err(Error::not_between(0, 1));
    }
    let replicas = at_least(0, call.args[1], Error::MUST_BE_POSITIVE)?;
    let deadline_ms = deadline_ms(call.args[2], call.now_ms)?;
    let engine = call.engine;
    if local == 1 && !engine.replicator.keeps_log() {
        return Err(Error::new(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    let revision = call.session.last_write;
    let is_durable = engine.replicator.durable() >= revision;
    let enough_replicas = replicas as i64 <= REPLICAS;
    if (enough_replicas && (local == 0 || is_durable)) || call.open.is_some() {
        call.reply.frame(&copies(is_durable));
        return Ok(Outcome::Done);
    }
    let on_timeout = copies(is_durable);
    let blocked =
        engine.blocking.register_plain(call.session, call.command, on_timeout, deadline_ms);
    if !is_durable && engine.replicator.keeps_log() {
        engine.answer_when_durable(blocked.id, revision, copies(true), enough_replicas);
    }
    Ok(Outcome::Blocked(blocked))
}
