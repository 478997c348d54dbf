//! SAVE, BGSAVE, BGREWRITEAOF and LASTSAVE: checkpoints for those who ask.
//!
//! The archive follows the log by itself, so to save is to ask it for the
//! newest revision soon. Nothing is forked and nobody waits but who says SAVE.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{Frame, Revision};
use command::{Args, Error, Result};
use parking_lot::Mutex;

use crate::call::{Call, Handler};
use crate::checkpoint::{Archive, Checkpointed};
use crate::engine::Engine;
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] =
    &[("bgrewriteaof", bgrewriteaof), ("bgsave", bgsave), ("lastsave", lastsave), ("save", save)];

/// What is saved for somebody.
#[derive(Debug, Default)]
pub(crate) struct Saves {
    jobs: Mutex<Jobs>,
    /// Somebody waits for the archive. Spares those who only report progress
    /// the lock.
    is_waited_for: AtomicBool,
    /// SHUTDOWN NOSAVE.
    pub(crate) not_at_end: AtomicBool,
}

#[derive(Debug, Default)]
struct Jobs {
    /// SAVE's clients.
    waiting: Vec<Waiting>,
    bgsave: Job,
    bgrewriteaof: Job,
    /// Saves for which there was nothing to write.
    empty: u64,
    /// When the last one of them was, in milliseconds since 1970.
    empty_ms: u64,
}

#[derive(Debug)]
struct Waiting {
    /// A plain wait.
    id: u64,
    revision: Revision,
}

/// What runs in the background, one of a kind at a time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    goal: Option<Goal>,
    /// Seconds that the last one took.
    pub(crate) seconds: Option<u64>,
    /// How the last one ended.
    pub(crate) failed: bool,
    /// How many ended well.
    pub(crate) done: u64,
}

#[derive(Clone, Copy, Debug)]
struct Goal {
    revision: Revision,
    began_ns: u64,
}

impl Job {
    pub(crate) fn is_running(&self) -> bool {
        self.goal.is_some()
    }

    /// Seconds since it began.
    pub(crate) fn running_seconds(&self, now_ns: u64) -> Option<u64> {
        self.goal.map(|goal| now_ns.saturating_sub(goal.began_ns) / 1_000_000_000)
    }

    fn end(&mut self, is_saved: bool, now_ns: u64) {
        self.seconds = self.running_seconds(now_ns);
        self.goal = None;
        self.failed = !is_saved;
        self.done += u64::from(is_saved);
    }
}

/// A job by its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Background {
    Bgsave,
    Bgrewriteaof,
}

impl Jobs {
    fn job(&mut self, which: Background) -> &mut Job {
        match which {
            Background::Bgsave => &mut self.bgsave,
            Background::Bgrewriteaof => &mut self.bgrewriteaof,
        }
    }

    fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty() || self.bgsave.is_running() || self.bgrewriteaof.is_running()
    }
}

/// What `INFO persistence` says of saves.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Revisions that the archive does not have.
    pub(crate) unsaved: u64,
    pub(crate) last_save_ms: u64,
    pub(crate) saves: u64,
    /// Seconds that the last one took, whoever asked for it.
    pub(crate) seconds: Option<u64>,
    pub(crate) has_fault: bool,
    pub(crate) bgsave: Job,
    pub(crate) bgrewriteaof: Job,
}

pub(crate) fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// `fault` keeps the archive from saving.
fn failed(fault: &str) -> Error {
    Error::new(format!(
        "ERR the archive cannot save: {}; the log still has every change",
        one_line(fault)
    ))
}

impl Engine {
    pub(crate) fn archived(&self) -> Checkpointed {
        let progress = self.archive().map(|archive| archive.progress());
        progress.map_or_else(Checkpointed::default, |progress| progress.borrow().clone())
    }

    /// The archive, where it can still save.
    fn saving_archive(&self) -> Result<&Arc<dyn Archive>> {
        let archive = self.archive().ok_or(Error::new(
            "ERR there is no data folder to save to: the log is off; start with storage.aof_enabled = true",
        ))?;
        match &archive.progress().borrow().fault {
            Some(fault) => Err(failed(fault)),
            None => Ok(archive),
        }
    }

    /// Whether the archive has reached `goal`, or why it never will; `None`
    /// while that is open.
    fn fate(&self, goal: Revision, archived: &Checkpointed) -> Option<Result> {
        if archived.revision >= goal {
            return Some(Ok(()));
        }
        if let Some(fault) = &archived.fault {
            return Some(Err(failed(fault)));
        }
        // The archive reads the log: what is not in it never arrives.
        match self.replicator.admit_write() {
            Err(fault) if self.replicator.durable() < goal => Some(Err(fault)),
            _ => None,
        }
    }

    /// Asks for a checkpoint with everything, unless there is one. Answers its
    /// revision then.
    fn ask(&self, archive: &dyn Archive, jobs: &mut Jobs) -> Option<Revision> {
        let newest = self.replicator.newest();
        if archive.progress().borrow().revision >= newest {
            jobs.empty += 1;
            jobs.empty_ms = self.clock.now_ms();
            return None;
        }
        archive.request(newest);
        Some(newest)
    }

    /// Starts a job; nothing where it runs.
    fn start(&self, which: Background, archive: &dyn Archive) {
        let mut jobs = self.saves.jobs.lock();
        if jobs.job(which).is_running() {
            return;
        }
        let began_ns = self.clock.monotonic_ns();
        let goal = self.ask(archive, &mut jobs);
        let job = jobs.job(which);
        job.goal = Some(Goal { revision: goal.unwrap_or_default(), began_ns });
        if goal.is_none() {
            job.end(true, began_ns);
        }
        self.saves.is_waited_for.store(jobs.is_waited_for(), Ordering::Release);
        drop(jobs);
        // What the archive reached before the goal stood there.
        self.checkpoints_moved();
    }

    /// Starts what the transaction of an EXEC asked for, which is part of it.
    pub(crate) fn start_after_exec(&self, asked: Vec<Background>) {
        for which in asked {
            // With a fault that came meanwhile there is nobody left to tell.
            if let Ok(archive) = self.saving_archive() {
                self.start(which, &**archive);
            }
        }
    }

    /// Ends the saves that the archive has reached, or never will. The binary
    /// calls it whenever the archive reports progress.
    pub fn checkpoints_moved(&self) {
        let saves = &self.saves;
        if !saves.is_waited_for.load(Ordering::Acquire) {
            return;
        }
        let archived = self.archived();
        let now_ns = self.clock.monotonic_ns();
        let mut jobs = saves.jobs.lock();
        for which in [Background::Bgsave, Background::Bgrewriteaof] {
            let job = jobs.job(which);
            let fate = job.goal.and_then(|goal| self.fate(goal.revision, &archived));
            if let Some(fate) = fate {
                job.end(fate.is_ok(), now_ns);
                if let Err(error) = fate {
                    tracing::error!("{which:?} failed: {error}");
                }
            }
        }
        let mut over = Vec::new();
        jobs.waiting.retain(|waiting| match self.fate(waiting.revision, &archived) {
            Some(fate) => {
                over.push((waiting.id, fate));
                false
            }
            None => true,
        });
        saves.is_waited_for.store(jobs.is_waited_for(), Ordering::Release);
        drop(jobs);
        for (id, fate) in over {
            let frame = match fate {
                Ok(()) => Frame::Simple("OK".to_owned()),
                Err(error) => Frame::Error(error.text().to_owned()),
            };
            self.answer_wait(id, frame, Revision::ZERO);
        }
    }

    pub(crate) fn report_saves(&self) -> Report {
        self.checkpoints_moved();
        let archived = self.archived();
        let jobs = self.saves.jobs.lock();
        let by_itself = (archived.count > 0).then_some(archived.took_ms / 1000);
        Report {
            unsaved: self.replicator.newest().0.saturating_sub(archived.revision.0),
            last_save_ms: self.started_ms.max(archived.finished_ms).max(jobs.empty_ms),
            saves: archived.count + jobs.empty,
            seconds: jobs.bgsave.seconds.or(by_itself),
            has_fault: archived.fault.is_some(),
            bgsave: jobs.bgsave.clone(),
            bgrewriteaof: jobs.bgrewriteaof.clone(),
        }
    }

    /// Whether a checkpoint should come last; SHUTDOWN NOSAVE says no.
    #[must_use]
    pub fn saves_at_end(&self) -> bool {
        self.archive().is_some() && !self.saves.not_at_end.load(Ordering::Relaxed)
    }

    /// Waits until the archive has everything that was written before the call.
    ///
    /// # Errors
    /// Why it never will.
    pub async fn checkpoint(&self) -> Result {
        let archive = self.saving_archive()?;
        let mut progress = archive.progress();
        let newest = self.replicator.newest();
        archive.request(newest);
        let ended = progress
            .wait_for(|archived| archived.revision >= newest || archived.fault.is_some())
            .await
            .map_err(|_| failed("it has ended"))?;
        match &ended.fault {
            Some(fault) if ended.revision < newest => Err(failed(fault)),
            _ => Ok(()),
        }
    }
}

const BGSAVE_RUNS: &str = "ERR Background save already in progress";

fn save(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let engine = call.engine;
    engine.checkpoints_moved();
    let archive = engine.saving_archive()?;
    let mut jobs = engine.saves.jobs.lock();
    if jobs.bgsave.is_running() {
        return Err(Error::new(BGSAVE_RUNS));
    }
    let Some(revision) = engine.ask(&**archive, &mut jobs) else {
        call.reply.ok();
        return Ok(Outcome::Done);
    };
    // CLIENT UNBLOCK alone ends it early.
    let unblocked =
        Frame::Error("ERR the wait for the save was ended; the save goes on".to_owned());
    let blocked = engine.blocking.register_plain(call.session, call.command, unblocked, None);
    jobs.waiting.push(Waiting { id: blocked.id, revision });
    engine.saves.is_waited_for.store(true, Ordering::Release);
    drop(jobs);
    // What the archive reached before the wait stood in the list.
    engine.checkpoints_moved();
    Ok(Outcome::Blocked(blocked))
}

/// Starts a job, or answers that it runs. In EXEC it starts at the end: the
/// transaction belongs to what is saved.
fn start(call: &mut Call<'_, '_>, which: Background, runs: &'static str) -> Result<bool> {
    let engine = call.engine;
    engine.checkpoints_moved();
    let archive = engine.saving_archive()?;
    if engine.saves.jobs.lock().job(which).is_running() {
        return Err(Error::new(runs));
    }
    if call.open.is_some() {
        call.session.saves_after_exec.push(which);
        return Ok(false);
    }
    engine.start(which, &**archive);
    Ok(true)
}

/// SCHEDULE lets it wait for the end of a rewrite of the log in Redis; here the
/// two run beside each other.
fn bgsave(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    args.take_word("schedule");
    if !args.is_empty() {
        return Err(Error::SYNTAX);
    }
    let is_started = start(call, Background::Bgsave, BGSAVE_RUNS)?;
    call.reply.simple(if is_started {
        "Background saving started"
    } else {
        "Background saving scheduled"
    });
    Ok(Outcome::Done)
}

/// Redis writes a shorter log with the same outcome. Here the archive takes
/// over, and what it has reached needs no log.
fn bgrewriteaof(call: &mut Call<'_, '_>) -> Result<Outcome> {
    const RUNS: &str = "ERR Background append only file rewriting already in progress";
    let is_started = start(call, Background::Bgrewriteaof, RUNS)?;
    call.reply.simple(if is_started {
        "Background append only file rewriting started"
    } else {
        "Background append only file rewriting scheduled"
    });
    Ok(Outcome::Done)
}

fn lastsave(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let seconds = call.engine.report_saves().last_save_ms / 1000;
    call.reply.integer(seconds.cast_signed());
    Ok(Outcome::Done)
}
