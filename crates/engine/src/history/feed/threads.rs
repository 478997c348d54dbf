//! The two threads that read the log for watches.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{Clock, Revision};
use log::{Log, LogError, LogReader, Place, Record, Waker};
use parking_lot::{Condvar, Mutex};

use super::group::{Group, Left};
use super::hub::Hub;
use crate::engine::Engine;
use crate::past::PastError;

/// How often it is looked who is due to be told how far it is, and what of the
/// log has to be held.
const TURN_MS: u64 = 100;

/// How long after the last change that somebody heard of the log goes on to
/// write without delay.
const EAGER_MS: u64 = 1000;

/// Transactions that one piece of the log may have for those behind.
const HEARD_MAX: usize = 256;

/// What the threads share with those who open and close watches.
pub(super) struct Shared {
    pub(super) log: Arc<Log>,
    pub(super) hub: Mutex<Hub>,
    clock: Arc<dyn Clock>,
    engine: Weak<Engine>,
    head_moved: Condvar,
    behind_moved: Condvar,
    /// Interrupts the head's wait for the log.
    waker: Mutex<Option<Waker>>,
    is_eager: AtomicBool,
    eager_until_ms: AtomicU64,
    turned_ms: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn start(log: Arc<Log>, engine: &Arc<Engine>) -> Arc<Shared> {
        let shared = Arc::new(Shared {
            log,
            hub: Mutex::new(Hub::new()),
            clock: engine.clock.clone(),
            engine: Arc::downgrade(engine),
            head_moved: Condvar::new(),
            behind_moved: Condvar::new(),
            waker: Mutex::new(None),
            is_eager: AtomicBool::new(false),
            eager_until_ms: AtomicU64::new(0),
            turned_ms: AtomicU64::new(0),
        });
        let spawn = |name: &str, run: fn(&Shared)| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || run(&shared)).expect("a thread can be started");
        };
        spawn("watch-head", Shared::follow);
        spawn("watch-behind", Shared::catch_up);
        shared
    }

    /// Ends the threads soon.
    pub(super) fn stop(&self) {
        self.hub.lock().is_stopping = true;
        self.log.set_eager(false);
        self.look_again();
        self.waker.lock().iter().for_each(Waker::wake);
    }

    /// To be called when the hub has changed.
    pub(super) fn look_again(&self) {
        self.head_moved.notify_one();
        self.behind_moved.notify_one();
    }

    /// Monotonic time.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.monotonic_ns() / 1_000_000
    }

    /// The oldest revision in the log.
    pub(super) fn oldest(&self) -> Revision {
        self.log.segments().first().map_or(Revision::ZERO, |segment| segment.first)
    }

    /// The head: reads what is new, for ever.
    fn follow(&self) {
        let mut reader: Option<LogReader> = None;
        while let Some(place) = self.head_stands_at() {
            self.turn();
            let Some((next, near)) = place else {
                reader = None;
                continue;
            };
            let reader = match &mut reader {
                Some(reader) if reader.next_revision() == next => reader,
                other => {
                    let fresh = self.reader(next, near);
                    *self.waker.lock() = Some(fresh.waker());
                    other.insert(fresh)
                }
            };
            let read = reader.read(Duration::from_millis(TURN_MS), &mut |record, place| {
                self.offer_head(&record, place)
            });
            if let Err(error) = read {
                let mut hub = self.hub.lock();
                let hub = &mut *hub;
                let head = std::mem::replace(&mut hub.head, Group::at(Revision::ZERO, None));
                let reason = why(&error, head.next);
                head.into_watches().for_each(|watch| hub.end(&watch, &reason));
            }
        }
    }

    /// Waits until somebody is at the head and answers where that is, or
    /// `None` after a while in which nobody was; nothing at the end.
    fn head_stands_at(&self) -> Option<Option<(Revision, Option<Place>)>> {
        let mut hub = self.hub.lock();
        if hub.head.is_empty() && !hub.is_stopping {
            match hub.is_empty() {
                true => self.head_moved.wait(&mut hub),
                // Those who are parked are looked after.
                false => {
                    self.head_moved.wait_for(&mut hub, Duration::from_millis(TURN_MS));
                }
            }
        }
        let head = &hub.head;
        (!hub.is_stopping).then(|| (!head.is_empty()).then_some((head.next, head.near)))
    }

    fn reader(&self, next: Revision, near: Option<Place>) -> LogReader {
        match near {
            Some(place) => self.log.reader_at(place, next),
            None => self.log.reader(next),
        }
    }

    fn offer_head(&self, record: &Record<'_>, place: Place) -> ControlFlow<()> {
        let mut hub = self.hub.lock();
        if hub.is_stopping || hub.head.is_empty() || hub.head.next != record.revision {
            // It stands somewhere else now.
            return ControlFlow::Break(());
        }
        let left = hub.head.offer(record, place, None);
        let is_heard = left.is_heard;
        hub.settle(left);
        let has_behind = hub.has_behind();
        drop(hub);
        if is_heard {
            self.hurry();
        }
        if has_behind {
            self.behind_moved.notify_one();
        }
        ControlFlow::Continue(())
    }

    /// Somebody hears of what is written: the next change should not wait until
    /// more has gathered. Watches of which nobody hears cost nothing.
    fn hurry(&self) {
        self.eager_until_ms.store(self.now_ms() + EAGER_MS, Ordering::Relaxed);
        if !self.is_eager.swap(true, Ordering::Relaxed) {
            self.log.set_eager(true);
        }
    }

    /// What is to be done now and then.
    fn turn(&self) {
        let now_ms = self.now_ms();
        let turned_ms = self.turned_ms.load(Ordering::Relaxed);
        if now_ms < turned_ms + TURN_MS {
            return;
        }
        self.turned_ms.store(now_ms, Ordering::Relaxed);
        if now_ms >= self.eager_until_ms.load(Ordering::Relaxed)
            && self.is_eager.swap(false, Ordering::Relaxed)
        {
            self.log.set_eager(false);
        }
        let bytes_max = self.engine.upgrade().map_or(0, |it| it.live().settings.watch_log_bytes);
        let mut hub = self.hub.lock();
        beat(&hub.head, now_ms);
        hub.hold_on(&self.log, bytes_max);
    }

    /// Reads to those behind, in turn, a piece at a time.
    fn catch_up(&self) {
        let mut reader: Option<LogReader> = None;
        while let Some((mut group, ahead)) = self.next_behind() {
            let Some(engine) = self.engine.upgrade() else { return };
            let reader = match &mut reader {
                Some(reader) if reader.next_revision() == group.next => reader,
                other => other.insert(self.reader(group.next, group.near)),
            };
            let (mut left, mut heard) = (Left::default(), 0);
            let read = reader.read(Duration::ZERO, &mut |record, place| {
                let more = group.offer(&record, place, Some(&engine));
                heard += usize::from(more.is_heard);
                left.add(more);
                let is_enough = group.is_empty()
                    || heard >= HEARD_MAX
                    || ahead.is_some_and(|at| at <= group.next);
                if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            drop(engine);
            beat(&group, self.now_ms());
            if let Err(error) = &read {
                let reason = why(error, group.next);
                let failed = std::mem::replace(&mut group, Group::at(Revision::ZERO, None));
                left.failed.extend(failed.into_watches().map(|watch| (watch, reason.clone())));
            }
            let is_at_end = matches!(read, Ok(0));
            let moves_head = self.hub.lock().finish(group, left, is_at_end);
            if moves_head {
                self.head_moved.notify_one();
                self.waker.lock().iter().for_each(Waker::wake);
            }
        }
    }

    /// Waits for a group that is behind; nothing at the end.
    fn next_behind(&self) -> Option<(Group, Option<Revision>)> {
        let mut hub = self.hub.lock();
        loop {
            if hub.is_stopping {
                return None;
            }
            if let Some(next) = hub.begin() {
                return Some(next);
            }
            self.behind_moved.wait(&mut hub);
        }
    }
}

/// Tells those of a group who are due how far it is.
fn beat(group: &Group, now_ms: u64) {
    if group.is_empty() {
        return;
    }
    let told = Revision(group.next.0 - 1);
    group.watches().for_each(|watch| watch.beat(told, now_ms));
}

/// Why the log cannot be read from a revision on, for the clients.
fn why(error: &LogError, next: Revision) -> String {
    match error {
        LogError::NotHeld { found, .. } => {
            PastError::Compacted { asked: next, oldest: *found }.to_string()
        }
        error => PastError::Unreadable(error.to_string()).to_string(),
    }
}
