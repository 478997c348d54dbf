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

/// A report of why nothing is archived any more.
pub type Failed = Box<dyn FnOnce(String) + Send>;

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
    /// Called when the thread ends for another reason than [`Follower::stop`].
    pub failed: Failed,
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
    /// Why the thread has ended.
    ended: Mutex<Option<String>>,
    moved: Condvar,
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
/// not written is read again at the next start.
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
            merged_bytes: base.disk_bytes(),
            compacted,
            turned_ms: 0,
            backing: BaseBacking::new(base.clone(), options.limits),
            base: base.clone(),
            shared: shared.clone(),
            reader,
            options,
        };
        let ended = shared.clone();
        let thread = std::thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || {
                let (result, failed) = follow.run();
                let reason =
                    result.as_ref().map_or_else(ToString::to_string, |()| "it was stopped".into());
                *ended.ended.lock() = Some(reason.clone());
                ended.moved.notify_all();
                if let Err(error) = result {
                    tracing::error!("{error}; the log grows until the server is restarted");
                    failed(reason);
                }
            })
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
    /// Why it never will.
    pub fn checkpoint(&self, revision: Revision) -> Result<(), ArchiveError> {
        let _waiter = Waiter::on(&self.shared);
        self.request(revision);
        let mut ended = self.shared.ended.lock();
        while self.base.revision() < revision {
            if let Some(reason) = &*ended {
                return Err(ArchiveError::Stopped(reason.clone()));
            }
            self.shared.moved.wait(&mut ended);
        }
        Ok(())
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

    /// Why it no longer follows the log, if it does not.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.shared.ended.lock().clone()
    }

    /// Ends the thread and waits for it.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
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
    /// The past's horizon when the base was last compacted.
    compacted: Revision,
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
    fn run(mut self) -> (Result<(), ArchiveError>, Failed) {
        (self.follow(), self.options.failed)
    }

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
            let mut failed = None;
            let mut states = 0;
            let read = self.reader.read(idle, &mut |record, place| {
                let only = OnlyKey::of(&record);
                if let Some(past) = past {
                    past.note(&record, place, only.map(|only| only.key));
                }
                if record.revision <= delta.revision() {
                    return ControlFlow::Continue(());
                }
                // A state that others will read becomes one of the base's at once.
                let added = delta.add_known(&record, only).and_then(|is_state| {
                    states += usize::from(is_state);
                    if is_state { delta.write(false).map(drop) } else { Ok(()) }
                });
                match added {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            set_behind(past.is_some_and(|past| past.unnoted() > UNNOTED_MAX));
            if states > 0 {
                self.wrote(states, 0)?;
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
                began_ms = None;
                continue;
            }
            let age_ms = now_ms - *began_ms.get_or_insert(now_ms);
            if self.is_due(&delta, read, age_ms) {
                set_behind(true);
                self.write(&mut delta)?;
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
        is_wanted
            || is_idle
            || age_ms >= pace.age_ms
            || delta.log_bytes() >= pace.log_bytes
            || delta.memory_bytes() >= pace.memory_bytes
    }

    fn write(&mut self, delta: &mut Delta) -> Result<(), ArchiveError> {
        let clock = &self.options.clock;
        let began_ns = clock.monotonic_ns();
        let in_haste = self.shared.waiting.load(Ordering::Relaxed) > 0;
        let written = delta.write(in_haste)?;
        let took_ms = (clock.monotonic_ns() - began_ns) / 1_000_000;
        // Nobody needs to wait for the memory.
        let result = self.wrote(1, took_ms);
        drop(written);
        result
    }

    /// After batches were written.
    fn wrote(&mut self, batches: usize, took_ms: u64) -> Result<(), ArchiveError> {
        let revision = self.base.revision();
        self.shared.batches.fetch_add(batches as u64, Ordering::Relaxed);
        self.shared.batch_ms_last.store(took_ms, Ordering::Relaxed);
        self.shared.lag_bytes.store(0, Ordering::Relaxed);
        drop(self.shared.ended.lock());
        self.shared.moved.notify_all();
        (self.options.advanced)(revision, took_ms);
        self.base.compact(self.horizon())
    }

    /// Takes out of the base what the past has let go of.
    fn let_go(&mut self) -> Result<(), ArchiveError> {
        let Some(past) = &self.options.past else { return Ok(()) };
        let is_asked = past.take_merge();
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
