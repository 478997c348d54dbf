//! CLIENT PAUSE.
//!
//! Nothing that a client can see changes by itself while it lasts: keys past
//! their deadline are hidden but not removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::client::Client;
use crate::engine::Engine;

/// Until when which commands wait.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    state: Mutex<State>,
    /// Mirrors `until_ms`, so that the common case costs one load.
    until_ms: AtomicU64,
    ended: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    until_ms: u64,
    writes_only: bool,
}

impl Pause {
    /// Begins or lengthens a pause. A pause of everything is not weakened by a
    /// later pause of writes.
    pub(crate) fn begin(&self, until_ms: u64, writes_only: bool, now_ms: u64) {
        let mut state = self.state.lock();
        if state.until_ms <= now_ms {
            *state = State { until_ms, writes_only };
        } else {
            state.until_ms = state.until_ms.max(until_ms);
            state.writes_only &= writes_only;
        }
        self.until_ms.store(state.until_ms, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        *self.state.lock() = State::default();
        self.until_ms.store(0, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// Until when a command waits, if it does.
    #[inline]
    pub(crate) fn holds(&self, is_write: bool, now_ms: u64) -> Option<u64> {
        if self.is_active(now_ms) { self.holds_now(is_write, now_ms) } else { None }
    }

    #[cold]
    fn holds_now(&self, is_write: bool, now_ms: u64) -> Option<u64> {
        let state = self.state.lock();
        (state.until_ms > now_ms && (is_write || !state.writes_only)).then_some(state.until_ms)
    }

    /// Whether anything is paused.
    #[inline]
    pub(crate) fn is_active(&self, now_ms: u64) -> bool {
        self.until_ms.load(Ordering::Acquire) > now_ms
    }

    pub(crate) fn ended(&self) -> &Notify {
        &self.ended
    }
}

/// A client that a pause holds up; it counts as blocked until this is dropped.
pub struct HeldUp {
    engine: Arc<Engine>,
    client: Arc<Client>,
}

impl std::fmt::Debug for HeldUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeldUp({})", self.client.id)
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        self.engine.blocking.set_paused(&self.client, false);
    }
}

impl Engine {
    /// Whether CLIENT PAUSE holds anything up now.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pause.is_active(self.clock.now_ms())
    }

    /// Counts a client as blocked by CLIENT PAUSE.
    #[must_use]
    pub fn hold_up(self: &Arc<Self>, client: Arc<Client>) -> HeldUp {
        self.blocking.set_paused(&client, true);
        HeldUp { engine: self.clone(), client }
    }

    /// Told when CLIENT UNPAUSE ends a pause early, or anything else that a command
    /// was put off for.
    pub fn pause_ended(&self) -> &Notify {
        self.pause.ended()
    }

    /// Has commands that were put off run again: what they wait for may be in
    /// memory.
    pub fn wake_put_off(&self) {
        self.pause.ended().notify_waiters();
    }
}
