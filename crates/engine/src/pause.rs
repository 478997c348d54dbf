//! CLIENT PAUSE.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

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
    pub(crate) fn holds(&self, is_write: bool, now_ms: u64) -> Option<u64> {
        if self.until_ms.load(Ordering::Acquire) <= now_ms {
            return None;
        }
        let state = self.state.lock();
        (state.until_ms > now_ms && (is_write || !state.writes_only)).then_some(state.until_ms)
    }

    /// What is paused: `None`, or whether only writes are.
    pub(crate) fn current(&self, now_ms: u64) -> Option<bool> {
        let state = self.state.lock();
        (state.until_ms > now_ms).then_some(state.writes_only)
    }

    pub(crate) fn ended(&self) -> &Notify {
        &self.ended
    }
}
