//! WHATIF EXEC: what the queue of MULTI would do. The client stays between
//! MULTI and EXEC, so that EXEC can follow.

use base::Frame;
use command::flags::{DENYOOM, WRITE};
use command::{Error, Result, Run};

use super::{Asked, Report, Step, cannot, simulate};
use crate::call::Call;
use crate::execute::{Outcome, borrow};
use crate::session::{Multi, Session, Watched};

/// Commands of the engine that a queue may hold: what they look at and change
/// is the session's, which is put back.
const HARMLESS: &[&str] = &["echo", "lastrev", "ping", "select", "time"];

pub(super) fn try_exec(call: &mut Call<'_, '_>, asked: Asked) -> Result<Outcome> {
    let Some(multi) = call.session.multi.take() else {
        return Err(Error::new("ERR EXEC without MULTI"));
    };
    let watched = std::mem::take(&mut call.session.watched);
    let outcome = try_queue(call, &multi, &watched, asked);
    call.session.multi = Some(multi);
    call.session.watched = watched;
    outcome
}

fn try_queue(
    call: &mut Call<'_, '_>,
    multi: &Multi,
    watched: &[Watched],
    asked: Asked,
) -> Result<Outcome> {
    if multi.aborted {
        return Err(Error::new("EXECABORT Transaction discarded because of previous errors."));
    }
    let engine = call.engine.clone();
    for queued in &multi.queue {
        let is_data = matches!(queued.command.spec.run, Run::Data(_));
        if !is_data && !HARMLESS.contains(&queued.command.full_name.as_str()) {
            return Err(cannot(queued.command));
        }
    }
    if multi.has_any(WRITE) {
        engine.replicator.admit_write().map_err(|error| crate::transaction::discarded(&error))?;
    }
    if multi.has_any(DENYOOM) && engine.would_be_out_of_memory(call.live) {
        return Err(crate::transaction::discarded(&Error::OUT_OF_MEMORY));
    }
    let scope = engine.scope_of_queue(multi, watched);
    let steps: Vec<Step<'_>> = multi
        .queue
        .iter()
        .map(|queued| Step { command: queued.command, argv: borrow(&queued.argv) })
        .collect();
    simulate::run_in_scope(call, &steps, Some(watched), scope, asked)
}

/// What an EXEC answers whose watched keys have changed.
pub(super) fn write_refusal(call: &mut Call<'_, '_>, report: &Report) {
    report.write(&Frame::NullArray, call.reply);
}

/// What commands of a queue change of a session.
pub(super) struct Kept {
    rng: base::SeededRng,
    db: base::DbIndex,
}

impl Kept {
    pub(super) fn of(session: &Session) -> Kept {
        Kept { rng: session.rng.clone(), db: session.db }
    }

    pub(super) fn put_back(self, session: &mut Session) {
        session.rng = self.rng;
        session.db = self.db;
        let shown = &session.client.activity.db;
        shown.store(usize::from(self.db), std::sync::atomic::Ordering::Relaxed);
    }
}
