use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where time comes from. Deadlines use wall time; durations and timeouts use
/// the monotonic reading, which never jumps.
pub trait Clock: Send + Sync {
    /// Wall time in microseconds since 1970-01-01 UTC.
    fn now_us(&self) -> u64;

    /// Nanoseconds since an arbitrary start; never goes back.
    fn monotonic_ns(&self) -> u64;

    /// Wall time in milliseconds since 1970-01-01 UTC.
    fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[allow(clippy::disallowed_methods, reason = "the one place that reads the system clocks")]
impl Clock for SystemClock {
    fn now_us(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn monotonic_ns(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A clock that moves only when told to.
///
/// ```
/// use base::{Clock, ManualClock};
/// let clock = ManualClock::at_ms(1_000);
/// clock.advance_ms(5);
/// assert_eq!(clock.now_ms(), 1_005);
/// ```
#[derive(Debug, Default)]
pub struct ManualClock {
    us: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `ms` milliseconds since 1970.
    #[must_use]
    pub fn at_ms(ms: u64) -> ManualClock {
        ManualClock { us: AtomicU64::new(ms * 1000) }
    }

    /// Moves both the wall and the monotonic reading forward.
    pub fn advance_ms(&self, ms: u64) {
        self.us.fetch_add(ms * 1000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> u64 {
        self.us.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        self.now_us().saturating_mul(1000)
    }
}
