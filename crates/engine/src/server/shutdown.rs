//! SHUTDOWN.

use std::sync::atomic::Ordering;

use command::{Args, Error, Result};

use crate::call::{Call, Handler};
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("shutdown", shutdown)];

/// What was acknowledged is in the log, with SAVE and NOSAVE alike. Without
/// NOSAVE a checkpoint comes last, so that the next start has no log to replay;
/// it may fail without harm. NOW skips waiting for replicas, of which there are
/// none; FORCE ends the process even when the log cannot take its last bytes.
fn shutdown(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let (mut save, mut nosave, mut force, mut abort) = (false, false, false, false);
    while !args.is_empty() {
        if args.take_word("save") {
            save = true;
        } else if args.take_word("nosave") {
            nosave = true;
        } else if args.take_word("force") {
            force = true;
        } else if args.take_word("abort") {
            abort = true;
        } else if !args.take_word("now") {
            return Err(Error::SYNTAX);
        }
    }
    if (abort && call.args.len() > 1) || (save && nosave) {
        return Err(Error::SYNTAX);
    }
    if abort {
        return Err(Error::new("ERR No shutdown in progress."));
    }
    let Some(hook) = &call.engine.hooks.shutdown else {
        return Err(Error::new("ERR Errors trying to SHUTDOWN. Check logs."));
    };
    if !force && let Err(fault) = call.engine.replicator.admit_write() {
        tracing::error!("SHUTDOWN refused: {fault}; SHUTDOWN FORCE ends the process all the same");
        return Err(Error::new("ERR Errors trying to SHUTDOWN. Check logs."));
    }
    tracing::info!(client = call.session.client.id, "SHUTDOWN requested");
    call.engine.saves.not_at_end.store(nosave, Ordering::Relaxed);
    hook();
    Ok(Outcome::Close)
}
