//! Noting records while the follower has no time for it.
//!
//! The follower notes each record that it reads. While it writes a batch, or
//! cannot keep up with the writers, records would gather, and whoever asks for
//! the newest would have to note them all first. Then this thread reads along,
//! if somebody has asked lately: it reads what the follower reads again.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Past;

/// How often it looks for more.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct State {
    is_behind: bool,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The thread. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Noting {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Noting {
    pub(crate) fn start(past: Arc<Past>) -> Noting {
        let shared = Arc::new(Shared::default());
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || of_thread.run(&past))
            .expect("a thread can be started");
        Noting { shared, thread: Some(thread) }
    }

    /// Whether the follower is behind from now on.
    pub(crate) fn set_behind(&self, is_behind: bool) {
        let mut state = self.shared.state.lock();
        if state.is_behind != is_behind {
            state.is_behind = is_behind;
            drop(state);
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        self.shared.state.lock().is_over = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, past: &Past) {
        let mut state = self.state.lock();
        while !state.is_over {
            if !state.is_behind {
                self.changed.wait(&mut state);
                continue;
            }
            // What stands in the way is met by the follower too, which reports it.
            let _ = MutexGuard::unlocked(&mut state, || past.source.note_written());
            if state.is_behind && !state.is_over {
                self.changed.wait_for(&mut state, AGAIN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base::{BranchId, Revision};
    use keyspace::EncodingLimits;
    use log::{LogOptions, RecordHeader};
    use testkit::temp_dir;

    use super::*;
    use crate::base_tree::Base;
    use crate::memory_log;
    use crate::past::PastOptions;

    #[test]
    fn what_nobody_follows_is_noted_while_it_is_wanted() {
        let folder = temp_dir();
        let log = Arc::new(memory_log::open(LogOptions::default()));
        let base = Arc::new(Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens"));
        base.adopt(log.id()).expect("it is new");
        let limits = EncodingLimits::default();
        let options = PastOptions { databases: 1, limits, is_broken: false };
        let past = Arc::new(Past::open(base, log.clone(), options).expect("it opens"));
        let noting = Noting::start(past.clone());
        let append = |count: u64| {
            for _ in 0..count {
                let header = RecordHeader { time_ms: 1, db: 0, branch: BranchId::MAIN };
                log.append(log.reserve(), header, b"");
            }
            log.request_sync();
            log.wait_durable(log.newest()).expect("memory takes everything");
        };
        append(100);
        assert_eq!((past.noted(), past.unnoted()), (Revision::ZERO, 100));
        noting.set_behind(true);
        for newest in [100, 250] {
            // It has no end to wait for but this one.
            while past.noted() < Revision(newest) {
                std::thread::yield_now();
            }
            append(150);
        }
        noting.set_behind(false);
    }
}
