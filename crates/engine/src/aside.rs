//! Work that may take long, beside the connections' threads.
//!
//! A connection's thread serves many clients. What may read much of the disk
//! runs on a thread of its own instead, while its client waits as for a
//! blocking command. Where there is no runtime that others share, as in tests
//! of the bare engine, it runs in place.

use std::sync::Arc;
use std::time::Duration;

use base::{BranchId, DbIndex, Frame, Reply, Revision, Tape};
use command::Result;
use keyspace::{BackingError, Buffers, Finished, Keyspace};
use tokio::runtime::Handle;

use crate::blocking::Answer;
use crate::call::Call;
use crate::engine::Engine;
use crate::execute::{Outcome, RETRY_MS};
use crate::tracking::Invalidations;

/// What a reply that was written aside depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Aside {
    /// It must not be sent before this is committed.
    pub(crate) depends_on: Revision,
    /// What was written on the client's behalf.
    pub(crate) written: Option<Revision>,
    /// Until when that can be taken back, in milliseconds since 1970, if it can.
    pub(crate) undo_until_ms: Option<u64>,
}

/// Ends the wait whatever happens to the work.
struct Wait {
    engine: Arc<Engine>,
    id: u64,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let text = "ERR the command ended early by a defect; the server's log says more";
        // False, and nothing happens, when the answer is there.
        self.engine.answer_wait(self.id, Frame::Error(text.to_owned()), Revision::ZERO);
    }
}

/// Runs `work`, which writes one reply or answers an error and has written none
/// then, and lets the client wait for it.
pub(crate) fn run(
    call: &mut Call<'_, '_>,
    work: impl FnOnce(&Arc<Engine>, &mut dyn Reply) -> Result<Aside> + Send + 'static,
) -> Result<Outcome> {
    let engine = call.engine;
    let Ok(runtime) = Handle::try_current() else {
        let aside = work(engine, call.reply);
        let session = &mut *call.session;
        let aside = aside.inspect_err(|_| {
            session.depends_on = session.depends_on.max(engine.newest_told());
        })?;
        session.depends_on = session.depends_on.max(aside.depends_on);
        session.saw(aside.depends_on);
        session.last_write = aside.written.unwrap_or(session.last_write);
        session.shown_undo = aside.undo_until_ms;
        return Ok(Outcome::Done);
    };
    // CLIENT UNBLOCK alone ends it early.
    let unblocked = Frame::Error("ERR the wait for the reply was ended".to_owned());
    let blocked = engine.blocking.register_plain(call.session, call.command, unblocked, None);
    let wait = Wait { engine: engine.clone(), id: blocked.id };
    let (is_resp3, told) = (call.reply.is_resp3(), call.told);
    runtime.spawn_blocking(move || {
        let mut reply = Tape::new(is_resp3);
        let aside = work(&wait.engine, &mut reply).unwrap_or_else(|error| {
            reply = Tape::new(is_resp3);
            reply.error(error.text());
            Aside { depends_on: wait.engine.newest_told(), ..Aside::default() }
        });
        let Aside { mut depends_on, written, undo_until_ms } = aside;
        if let Some(asked) = told
            && let Some(own) = reply.frames().last()
        {
            let revision = wait.engine.replicator.committed();
            depends_on = depends_on.max(revision);
            reply = asked.tell(own, revision, is_resp3);
        }
        if !reply.is_empty() {
            wait.engine.answer(wait.id, Answer { reply, depends_on, written, undo_until_ms });
        }
        wait.engine.wake_writer();
    });
    Ok(Outcome::Blocked(blocked))
}

/// Makes a key resident that may stand in the backing only, and waits for that with
/// no lock held. For whoever is about to look at it with locks that others wait for,
/// on a thread that serves nobody.
///
/// # Errors
/// When the backing cannot be read.
pub(crate) fn bring(
    keyspace: &Keyspace,
    db: DbIndex,
    key: &[u8],
) -> std::result::Result<(), BackingError> {
    loop {
        match keyspace.load_hastily(db, key) {
            Err(error) if error.is_later() => {
                std::thread::park_timeout(Duration::from_millis(RETRY_MS));
            }
            brought => return brought,
        }
    }
}

/// Effects that may take longer to write than a reply may be ahead of the disk.
const SLOW_BYTES: usize = 16 << 20;

impl Engine {
    /// What a reply depends on that may tell of everything there is, as an error
    /// does that says what is in the way. Where the log takes no writes, that is
    /// what it has: who asks is to hear an answer.
    pub(crate) fn newest_told(&self) -> Revision {
        match self.replicator.admit_write() {
            Ok(()) => self.replicator.newest(),
            Err(_) => self.replicator.committed(),
        }
    }

    /// After a transaction that no session of a client ran, with the locks open.
    pub(crate) fn settle_aside(
        self: &Arc<Self>,
        buffers: &mut Buffers,
        finished: &Finished,
        told: Invalidations,
        branch: BranchId,
    ) {
        self.count_expired(finished);
        self.dispose(buffers.take_garbage());
        let Some(revision) = finished.written else { return };
        self.revision_written(revision);
        if buffers.has_events() {
            let events = buffers.take_events();
            self.after_commit(
                revision,
                Box::new(move |engine| engine.publish_events(branch, &events)),
            );
        }
        self.tell(told, revision);
        if !self.blocking.is_empty() {
            self.serve_waiters(branch, buffers.first_db(), buffers.effects());
        }
        self.outlast(revision, buffers.effects());
    }

    /// Waits until a revision is on the disk if its effects take long to write.
    pub(crate) fn outlast(&self, revision: Revision, effects: &[u8]) {
        if effects.len() >= SLOW_BYTES {
            self.replicator.wait_durable(revision);
        }
    }
}
