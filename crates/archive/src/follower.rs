//! The thread that follows the log and moves the base forward.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Clock, DbIndex, Revision};
use keyspace::EncodingLimits;
use log::{LogReader, Waker};
use parking_lot::{Condvar, Mutex};

use crate::backing::BaseBacking;
use crate::base_tree::Base;
use crate::delta::Delta;
use crate::error::ArchiveError;
use crate::past::{Noting, Past};
use crate::waiting::{OnlyKey, WAITING_BYTES, Waiting};

/// Longest wait for a record: an archive that is never idle looks at its age
/// that often.
const LOOK_AGAIN_MS: u64 = 1000;

/// How long it waits after a fault that may pass before it tries again: twice as
/// long each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often [`FollowerOptions::turn`] is called.
const TURN_MS: u64 = 5000;

/// A base that has grown to so many times what it had when everything in it
/// was merged is merged again once a part of the past may go.
const GROWN: u64 = 2;

/// Transactions that may wait for being noted before another thread helps: some
/// milliseconds' work for whoever asks for the newest.
const UNNOTED_MAX: u64 = 20_000;

/// Below this a base is not worth merging for its size.
const SMALL_BYTES: u64 = 64 << 20;

/// When the base moves forward.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes of effects in the log that the base does not have yet. The more,
    /// the more often a key was overwritten before it is written once, and the
    /// longer recovery takes after a crash.
    pub log_bytes: u64,
    /// Bytes of memory that the keys changed meanwhile may take.
    pub memory_bytes: usize,
    /// Milliseconds without a new record after which the base catches up.
    pub idle_ms: u64,
    /// Milliseconds after which it does so in any case.
    pub age_ms: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { log_bytes: 256 << 20, memory_bytes: 128 << 20, idle_ms: 1000, age_ms: 60_000 }
    }
}

/// A report of the base's revision and of the milliseconds its batch took.
pub type Advanced = Box<dyn Fn(Revision, u64) + Send + Sync>;

/// A report of why nothing is archived, and of the end of that.
pub type Faulted = Box<dyn Fn(Option<&str>) + Send>;

/// Something to be done now and then.
pub type Turn = Box<dyn Fn() + Send + Sync>;

/// What the follower needs besides the log.
pub struct FollowerOptions {
    /// When the base moves forward.
    pub pace: Pace,
    /// Databases of a branch.
    pub databases: DbIndex,
    /// When collections leave their compact encodings.
    pub limits: EncodingLimits,
    /// The past, if it is kept: it is told of every record.
    pub past: Option<Arc<Past>>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Called whenever the base has moved forward, with its revision and the
    /// milliseconds that the batch took.
    pub advanced: Advanced,
    /// Called every few seconds, whether anything is written or not. What it
    /// lets go of the past goes out of the base then.
    pub turn: Turn,
    /// Called whenever the archive cannot be read or written, with the reason and
    /// the next step, and with `None` when it can be again.
    pub faulted: Faulted,
}

impl std::fmt::Debug for FollowerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FollowerOptions").field("pace", &self.pace).finish_non_exhaustive()
    }
}

/// Counters of a follower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowerStats {
    /// The newest revision it has read.
    pub read: Revision,
    /// Batches written since the start.
    pub batches: u64,
    /// Milliseconds that the last batch took to write.
    pub batch_ms_last: u64,
    /// Bytes of effects read that the base does not have yet.
    pub lag_bytes: u64,
}

#[derive(Debug, Default)]
struct Shared {
    read: AtomicU64,
    batches: AtomicU64,
    batch_ms_last: AtomicU64,
    lag_bytes: AtomicU64,
    /// The revision that somebody wants the base to reach.
    wanted: AtomicU64,
    /// How many do nothing until it has.
    waiting: AtomicUsize,
    stopping: AtomicBool,
    condition: Mutex<Condition>,
    /// The base or the condition has changed.
    moved: Condvar,
}

/// Whether the thread does its work.
#[derive(Debug, Default)]
struct Condition {
    /// Why nothing is archived, and the next step.
    fault: Option<String>,
    /// It waits before it tries again.
    is_pausing: bool,
}

impl Shared {
    fn set_fault(&self, fault: Option<String>) {
        self.condition.lock().fault = fault;
        self.moved.notify_all();
    }

    /// Waits so long, or until somebody ends the pause.
    fn pause(&self, at_most: Duration) {
        let mut condition = self.condition.lock();
        condition.is_pausing = true;
        let mut is_on =
            |it: &mut Condition| it.is_pausing && !self.stopping.load(Ordering::Acquire);
        self.moved.wait_while_for(&mut condition, &mut is_on, at_most);
        condition.is_pausing = false;
    }
}

/// Somebody who does nothing until the base has moved.
struct Waiter<'s>(&'s Shared);

impl Waiter<'_> {
    fn on(shared: &Shared) -> Waiter<'_> {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        Waiter(shared)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The thread that follows the log. Stops when dropped; what it has read but
/// not written is read again at the next start. While the disk is full, or fails
/// otherwise in a way that may pass, it begins anew again and again, as a start
/// would.
#[derive(Debug)]
pub struct Follower {
    base: Arc<Base>,
    shared: Arc<Shared>,
    waker: Waker,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Follower {
    /// Follows `reader`, which stands right after the base's revision, or
    /// before that where the past has yet to note a record: see
    /// [`Follower::begin`].
    #[must_use]
    pub fn start(base: Arc<Base>, reader: LogReader, options: FollowerOptions) -> Follower {
        let shared = Arc::new(Shared::default());
        shared.read.store(base.revision().0, Ordering::Relaxed);
        let waker = reader.waker();
        let compacted = options.past.as_ref().map_or(base.revision(), |past| past.oldest());
        let follow = Following {
            failures: 0,
            merged_bytes: base.disk_bytes(),
            compacted,
            is_unmerged: false,
            turned_ms: 0,
            backing: BaseBacking::new(base.clone(), options.limits),
            base: base.clone(),
            shared: shared.clone(),
            reader,
            options,
        };
        let thread = std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || follow.run())
            .expect("a thread can be started");
        Follower { base, shared, waker, thread: Mutex::new(Some(thread)) }
    }

    /// The revision that a reader has to begin with.
    #[must_use]
    pub fn begin(base: &Base, past: Option<&Past>) -> Revision {
        past.map_or(base.revision(), |past| past.noted().min(base.revision())).next()
    }

    /// Waits until the base has reached `revision`.
    ///
    /// # Errors
    /// Why it never will, or not before something is done about a disk.
    pub fn checkpoint(&self, revision: Revision) -> Result<(), ArchiveError> {
        let _waiter = Waiter::on(&self.shared);
        self.request(revision);
        let mut condition = self.shared.condition.lock();
        while self.base.revision() < revision {
            if let Some(reason) = condition.fault.clone().or_else(|| self.withheld(revision)) {
                return Err(ArchiveError::Stopped(reason));
            }
            // Of the log's faults nobody tells.
            let look_again = Duration::from_millis(LOOK_AGAIN_MS);
            self.shared.moved.wait_for(&mut condition, look_again);
        }
        Ok(())
    }

    /// Why nobody should wait for the base to reach `revision`.
    #[must_use]
    pub fn hindrance(&self, revision: Revision) -> Option<String> {
        self.fault().or_else(|| self.withheld(revision))
    }

    fn withheld(&self, revision: Revision) -> Option<String> {
        self.waker.withheld(revision).map(|fault| fault.to_string())
    }

    /// Tries again at once if it waits before it does so after a fault, which
    /// counts as over until it is met again. Answers whether that was so.
    pub fn retry(&self) -> bool {
        let mut condition = self.shared.condition.lock();
        if !condition.is_pausing {
            return false;
        }
        *condition = Condition::default();
        self.shared.moved.notify_all();
        true
    }

    /// Asks for the base to reach `revision` soon.
    pub fn request(&self, revision: Revision) {
        self.shared.wanted.fetch_max(revision.0, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> FollowerStats {
        let shared = &self.shared;
        FollowerStats {
            read: Revision(shared.read.load(Ordering::Relaxed)),
            batches: shared.batches.load(Ordering::Relaxed),
            batch_ms_last: shared.batch_ms_last.load(Ordering::Relaxed),
            lag_bytes: shared.lag_bytes.load(Ordering::Relaxed),
        }
    }

    /// Why it does not follow the log, if it does not, and the next step.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.shared.condition.lock().fault.clone()
    }

    /// Ends the thread and waits for it.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        drop(self.shared.condition.lock());
        self.shared.moved.notify_all();
        self.waker.wake();
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread has been reported by the hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Following {
    base: Arc<Base>,
    /// How often in a row the archive could not be read or written.
    failures: u32,
    /// The past's horizon when the base was last compacted.
    compacted: Revision,
    /// Whether there are batches after which runs were not merged.
    is_unmerged: bool,
    /// The size of the base when everything in it was last merged.
    merged_bytes: u64,
    /// When the last turn was, on the monotonic clock.
    turned_ms: u64,
    backing: Arc<BaseBacking>,
    shared: Arc<Shared>,
    reader: LogReader,
    options: FollowerOptions,
}

impl Following {
    fn run(mut self) {
        while let Err(error) = self.follow() {
            // What a batch has left of its files takes room that others need.
            let is_whole = error.may_pass() && self.base.clear_away();
            if !is_whole {
                tracing::error!("{error}; the log grows until the server is restarted");
                self.fail(format!("{error}; a restart reads the archive and the log again"));
                return;
            }
            let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
            self.failures += 1;
            tracing::error!("{error}; the archive tries again in {} s", pause.as_secs());
            self.fail(format!(
                "{error}; it is tried again by itself every {} s at least, and at once after CONFIG SET appendonly yes",
                PAUSE_MAX.as_secs()
            ));
            self.shared.pause(pause);
            // As a start does: what was read and not written is read again.
            self.reader.go_to(Follower::begin(&self.base, self.options.past.as_deref()));
            self.shared.read.store(self.base.revision().0, Ordering::Relaxed);
            self.shared.lag_bytes.store(0, Ordering::Relaxed);
        }
        self.shared.set_fault(Some("it was stopped".to_owned()));
    }

    fn fail(&self, fault: String) {
        self.shared.set_fault(Some(fault.clone()));
        (self.options.faulted)(Some(&fault));
    }

    /// Ends a fault, once everything is written that was not.
    fn end_fault(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!("the archive is written again");
            self.shared.set_fault(None);
            (self.options.faulted)(None);
        }
    }

    /// Follows the log until it is stopped.
    fn follow(&mut self) -> Result<(), ArchiveError> {
        let mut delta = Delta::new(
            self.base.clone(),
            self.backing.clone(),
            self.options.limits,
            self.options.databases,
            Waiting::new(WAITING_BYTES),
        );
        let idle = Duration::from_millis(self.options.pace.idle_ms.clamp(1, LOOK_AGAIN_MS));
        let noting = self.options.past.clone().map(Noting::start);
        let past = self.options.past.clone();
        let past = past.as_deref();
        let set_behind = |is_behind| {
            if let (Some(noting), Some(past)) = (&noting, past) {
                noting.set_behind(is_behind && past.is_asked());
            }
        };
        let mut began_ms = None;
        while !self.shared.stopping.load(Ordering::Acquire) {
            let mut taken = Ok(false);
            let read = self.reader.read(idle, &mut |record, place| {
                let only = OnlyKey::of(&record);
                if let Some(past) = past {
                    past.note(&record, place, only.map(|only| only.key));
                }
                if record.revision <= delta.revision() {
                    return ControlFlow::Continue(());
                }
                taken = delta.add_known(&record, only);
                match taken {
                    Ok(false) => ControlFlow::Continue(()),
                    Ok(true) | Err(_) => ControlFlow::Break(()),
                }
            })?;
            let is_state = taken?;
            set_behind(past.is_some_and(|past| past.unnoted() > UNNOTED_MAX));
            // A state that others will read becomes one of the base's at once. There
            // may be thousands of them in a row: whether to stop is looked at after
            // each, and runs are merged behind the last, or when there are too many.
            if is_state {
                self.write(&mut delta, false)?;
                began_ms = None;
            }
            self.shared.read.store(delta.revision().0, Ordering::Relaxed);
            self.shared.lag_bytes.store(delta.log_bytes(), Ordering::Relaxed);
            let now_ms = self.options.clock.monotonic_ns() / 1_000_000;
            if now_ms >= self.turned_ms + TURN_MS {
                (self.options.turn)();
                if let Some(past) = past {
                    past.end_turn();
                }
                self.turned_ms = now_ms;
            }
            self.let_go()?;
            if delta.is_empty() {
                let is_idle = read == 0;
                if self.failures > 0 || (is_idle && self.is_unmerged) {
                    self.compact()?;
                    self.end_fault();
                }
                began_ms = None;
                continue;
            }
            let age_ms = now_ms - *began_ms.get_or_insert(now_ms);
            if self.is_due(&delta, read, age_ms) {
                set_behind(true);
                self.write(&mut delta, true)?;
                began_ms = None;
            }
        }
        Ok(())
    }

    fn is_due(&self, delta: &Delta, read: usize, age_ms: u64) -> bool {
        let pace = &self.options.pace;
        let wanted = self.shared.wanted.load(Ordering::Acquire);
        // Somebody waits, and what they wait for is here.
        let is_wanted = self.base.revision().0 < wanted && wanted <= delta.revision().0;
        let is_idle = read == 0 && age_ms >= pace.idle_ms;
        // Whether a fault is over only a batch tells.
        let is_trial = self.failures > 0 && age_ms >= LOOK_AGAIN_MS;
        is_wanted
            || is_idle
            || is_trial
            || age_ms >= pace.age_ms
            || delta.log_bytes() >= pace.log_bytes
            || delta.memory_bytes() >= pace.memory_bytes
    }

    fn write(&mut self, delta: &mut Delta, merges: bool) -> Result<(), ArchiveError> {
        let clock = &self.options.clock;
        let began_ns = clock.monotonic_ns();
        let in_haste = self.shared.waiting.load(Ordering::Relaxed) > 0;
        let written = delta.write(in_haste)?;
        let took_ms = (clock.monotonic_ns() - began_ns) / 1_000_000;
        // Nobody needs to wait for the memory.
        let result = self.wrote(took_ms, merges);
        drop(written);
        result
    }

    /// After a batch was written.
    fn wrote(&mut self, took_ms: u64, merges: bool) -> Result<(), ArchiveError> {
        let revision = self.base.revision();
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        self.shared.batch_ms_last.store(took_ms, Ordering::Relaxed);
        self.shared.lag_bytes.store(0, Ordering::Relaxed);
        drop(self.shared.condition.lock());
        self.shared.moved.notify_all();
        (self.options.advanced)(revision, took_ms);
        match merges {
            true => self.compact()?,
            false => self.is_unmerged = true,
        }
        self.end_fault();
        Ok(())
    }

    fn compact(&mut self) -> Result<(), ArchiveError> {
        self.is_unmerged = false;
        self.base.compact(self.horizon())
    }

    /// Takes out of the base what the past has let go of.
    fn let_go(&mut self) -> Result<(), ArchiveError> {
        let Some(past) = &self.options.past else { return Ok(()) };
        let is_asked = past.take_merge(self.base.revision());
        let horizon = past.oldest();
        if horizon == self.compacted && !is_asked {
            return Ok(());
        }
        self.compacted = horizon;
        let bytes = self.base.disk_bytes();
        if !is_asked && bytes < (GROWN * self.merged_bytes).max(SMALL_BYTES) {
            return self.base.compact(horizon);
        }
        self.base.merge(horizon)?;
        self.merged_bytes = self.base.disk_bytes();
        Ok(())
    }

    /// What is older may go.
    fn horizon(&self) -> Revision {
        self.options.past.as_ref().map_or(self.base.revision(), |past| past.oldest())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use base::{BranchId, SystemClock};
    use keyspace::effect::Effect;
    use log::{Log, LogOptions, RecordHeader};
    use testkit::temp_dir;

    use super::*;
    use crate::memory_log;

    const STATES: u64 = 40;

    /// A log of [`STATES`] tags.
    fn log_of_tags() -> Log {
        let log = memory_log::open(LogOptions::default());
        for number in 1..=STATES {
            let revision = log.reserve();
            let name = format!("v{number}");
            let (branch, time_ms) = (BranchId::MAIN, 1);
            let mut effects = Vec::new();
            Effect::Tag { name: name.as_bytes(), branch, revision, time_ms }.encode(&mut effects);
            log.append(revision, RecordHeader { time_ms, db: 0, branch }, &effects);
        }
        log.wait_durable(log.newest()).expect("memory takes everything");
        log
    }

    #[test]
    fn one_that_is_stopped_among_many_states_writes_no_more_of_them() {
        let (folder, log) = (temp_dir(), log_of_tags());
        let base = Arc::new(Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens"));
        let (give, shared) = mpsc::channel::<Arc<Shared>>();
        let shared = Mutex::new(shared);
        let stop_at_first = move |_, _| {
            let shared = shared.lock().recv().expect("once");
            shared.stopping.store(true, Ordering::Release);
        };
        let options = |advanced| FollowerOptions {
            pace: Pace::default(),
            databases: 1,
            limits: EncodingLimits::default(),
            past: None,
            turn: Box::new(|| {}),
            clock: Arc::new(SystemClock),
            advanced,
            faulted: Box::new(|_| {}),
        };
        let reader = log.reader(Revision(1));
        let follower = Follower::start(base.clone(), reader, options(Box::new(stop_at_first)));
        give.send(follower.shared.clone()).expect("it waits for it");
        follower.checkpoint(Revision(STATES)).expect_err("it was stopped");
        assert_eq!((base.revision(), follower.stats().batches), (Revision(1), 1));

        let reader = log.reader(Revision(2));
        let follower = Follower::start(base.clone(), reader, options(Box::new(|_, _| {})));
        follower.checkpoint(Revision(STATES)).expect("it goes on there");
        for state in 1..=STATES {
            assert_eq!(base.state_at(Revision(state)).expect("read"), Revision(state));
        }
    }
}
