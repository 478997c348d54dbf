//! Who reads to watches: whoever writes the log to those at the head, a thread
//! to those behind. Another looks after all of them.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{Clock, Revision};
use log::{Concern, Hold, Log, LogError, LogReader, Place, RecordHeader, Tap, Written};
use parking_lot::{Condvar, Mutex};

use super::filter::Filter;
use super::group::{Group, Left, Watch};
use super::hub::Hub;
use super::reading::Reading;
use crate::engine::Engine;
use crate::past::PastError;

/// How often it is looked who is due to be told how far it is, and what of the
/// log has to be held.
const TURN: Duration = Duration::from_millis(100);

/// How long to wait for what the head was told to be readable.
const READABLE: Duration = Duration::from_millis(5);

/// What the threads share with those who open and close watches.
pub(super) struct Shared {
    pub(super) log: Arc<Log>,
    pub(super) board: Arc<Board>,
    clock: Arc<dyn Clock>,
    engine: Weak<Engine>,
}

/// What the log knows of watches. It has no way back to the log, which has it.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) hub: Mutex<Hub>,
    filter: Arc<Filter>,
    behind_moved: Condvar,
    /// There is somebody to look after, or it is over.
    opened: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("board", &self.board).finish_non_exhaustive()
    }
}

impl Tap for Board {
    fn concerns(&self, header: &RecordHeader, effects: &[u8]) -> Concern {
        self.filter.concerns(header, effects)
    }

    fn begin(&self, next: Revision) {
        self.hub.lock().head = Group::at(next, None);
    }

    fn tell(&self, written: &Written<'_>) {
        let mut hub = self.hub.lock();
        hub.tell(written);
        let has_behind = hub.has_behind();
        drop(hub);
        if has_behind {
            self.behind_moved.notify_one();
        }
    }
}

impl Board {
    /// Waits until one of those whose clients have to take what waits may have room
    /// again, at most so long.
    pub(super) fn wait_for_room(&self, full: &[Arc<Watch>], timeout: Duration) {
        // Who makes room takes this lock before it says so.
        let mut hub = self.hub.lock();
        if full.iter().all(|watch| watch.client.outbox.await_room()) {
            self.behind_moved.wait_for(&mut hub, timeout);
        }
    }
}

impl Shared {
    pub(super) fn start(log: Arc<Log>, engine: &Arc<Engine>) -> Arc<Shared> {
        let filter = Arc::new(Filter::new());
        let board = Arc::new(Board {
            hub: Mutex::new(Hub::new(filter.clone())),
            filter,
            behind_moved: Condvar::new(),
            opened: Condvar::new(),
        });
        log.attach(board.clone());
        let (clock, engine) = (engine.clock.clone(), Arc::downgrade(engine));
        let shared = Arc::new(Shared { log, board, clock, engine });
        let spawn = |name: &str, run: fn(&Shared)| {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || run(&shared)).expect("a thread can be started");
        };
        spawn("watch-upkeep", Shared::look_after);
        spawn("watch-behind", Shared::catch_up);
        shared
    }

    /// Ends the threads soon.
    pub(super) fn stop(&self) {
        self.board.hub.lock().stop();
        self.board.opened.notify_one();
        self.look_again();
    }

    pub(super) fn open(&self, watch: Arc<Watch>, hold: Hold) {
        self.board.hub.lock().open(watch, hold);
        self.board.opened.notify_one();
        self.look_again();
    }

    /// To be called when there may be more to read to those behind.
    pub(super) fn look_again(&self) {
        self.board.behind_moved.notify_one();
    }

    /// Monotonic time.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.monotonic_ns() / 1_000_000
    }

    /// The oldest revision in the log.
    pub(super) fn oldest(&self) -> Revision {
        self.log.segments().first().map_or(Revision::ZERO, |segment| segment.first)
    }

    /// Does what is to be done now and then, for ever.
    fn look_after(&self) {
        while self.rest() {
            let Some(engine) = self.engine.upgrade() else { return };
            let bytes_max = engine.live().settings.watch_log_bytes;
            // The last one to let go of the engine stops the hub.
            drop(engine);
            let mut hub = self.board.hub.lock();
            hub.head.beat(self.now_ms());
            hub.hold_on(&self.log, bytes_max);
        }
    }

    /// Waits until there is somebody to look after; whether there will be.
    fn rest(&self) -> bool {
        let mut hub = self.board.hub.lock();
        while hub.is_empty() && !hub.is_stopping {
            self.board.opened.wait(&mut hub);
        }
        if !hub.is_stopping {
            self.board.opened.wait_for(&mut hub, TURN);
        }
        !hub.is_stopping
    }

    fn reader(&self, next: Revision, near: Option<Place>) -> LogReader {
        match near {
            Some(place) => self.log.reader_at(place, next),
            None => self.log.reader(next),
        }
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
            let (mut left, mut is_cut, reading) =
                (Left::default(), false, Reading::new(&engine, &self.board));
            let read = reader.read(READABLE, &mut |record, place| {
                group.offer(&record, place, Some(&reading), &mut left);
                is_cut = reading.is_over();
                let is_enough =
                    group.is_empty() || is_cut || ahead.is_some_and(|at| at <= group.next);
                if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            reading.hand_over();
            drop(reading);
            drop(engine);
            let now_ms = self.now_ms();
            group.beat(now_ms);
            left.costly.iter().for_each(|(watch, _)| watch.beat(Revision::ZERO, now_ms));
            if let Err(error) = &read {
                let reason = why(error, group.next);
                let failed = std::mem::replace(&mut group, Group::at(Revision::ZERO, None));
                left.failed.extend(failed.into_watches().map(|watch| (watch, reason.clone())));
            }
            self.board.hub.lock().finish(group, left, is_cut);
        }
    }

    /// Waits for a group that is behind; nothing at the end.
    fn next_behind(&self) -> Option<(Group, Option<Revision>)> {
        let mut hub = self.board.hub.lock();
        loop {
            if hub.is_stopping {
                return None;
            }
            if let Some(next) = hub.begin() {
                return Some(next);
            }
            self.board.behind_moved.wait(&mut hub);
        }
    }
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
