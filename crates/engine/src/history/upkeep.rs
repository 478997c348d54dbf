//! HISTORY.STATS and HISTORY.COMPACT.

use base::{BranchId, Frame};
use command::args::is_word;
use command::{Error, Result};

use super::number;
use crate::aside::{self, Aside};
use crate::call::{Call, Handler};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] =
    &[("history.compact", compact), ("history.stats", stats)];

fn stats(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let past = call.engine.needs_past()?;
    let mut pairs: Vec<(Frame, Frame)> = past
        .stats()
        .into_iter()
        .filter(|(name, _)| !matches!(*name, "oldest_rev" | "newest_rev"))
        .map(|(name, value)| (Frame::bulk(name), number(value)))
        .collect();
    let newest = call.engine.replicator.committed();
    pairs.push((Frame::bulk("oldest_rev"), number(past.oldest().0)));
    pairs.push((Frame::bulk("newest_rev"), number(newest.0)));
    let pin = |(holder, revision): (String, base::Revision)| {
        Frame::Array(vec![Frame::bulk(holder), number(revision.0)])
    };
    let pins = past.pins().into_iter().map(pin).collect();
    pairs.push((Frame::bulk("pins"), Frame::Array(pins)));
    call.reply.frame(&Frame::Map(pairs));
    Ok(Outcome::Done)
}

fn compact(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let before = match call.args {
        [] => None,
        [word, when] if is_word(word, "before") => Some(call.engine.parse_when(when)?),
        _ => return Err(Error::SYNTAX),
    };
    let now_ms = call.now_ms;
    aside::run(call, move |engine, reply| {
        let before = match before.map(|when| engine.moment(BranchId::MAIN, when, now_ms)) {
            Some(Ok(moment)) => moment.revision,
            // That is gone already.
            Some(Err(error)) if error.code() == "COMPACTED" => engine.needs_past()?.oldest(),
            Some(Err(error)) => return Err(error),
            None => engine.replicator.committed(),
        };
        let oldest = engine.needs_past()?.compact(before)?;
        reply.frame(&number(oldest.0));
        Ok(Aside::default())
    })
}
