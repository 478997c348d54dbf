//! How entries note that they are used: for eviction, `OBJECT IDLETIME` and
//! `OBJECT FREQ`.
//!
//! An entry has 24 bits for it. They are the second of the last access, or, as
//! Redis has them under its LFU policies
//! (<https://redis.io/docs/latest/develop/reference/eviction/>), 16 bits for the
//! minute of the last access and 8 for a counter. Each access adds to the
//! counter with a chance that falls as it grows, so that 255 stands for about a
//! million accesses; and it is taken down as minutes go by.

use std::sync::atomic::{AtomicU64, Ordering};

use entry::Entry;

use crate::shard::Keyspace;
use crate::value::Value;

/// Bits of an entry's access field.
const ACCESS_BITS: u32 = 24;

/// Those that count, under [`Accesses::Frequency`].
const COUNTER: u32 = 0xff;

/// What the counter of a new key begins with: else it would be the first to go,
/// before it can be used again.
const COUNTER_FIRST: u32 = 5;

/// The minute of an access: all bits that do not count.
const MINUTE_BITS: u32 = ACCESS_BITS - COUNTER.count_ones();

/// What the access bits of a keyspace's entries mean.
///
/// They are taken for what they are not when this changes, until the keys are
/// used again or their counters have come down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Accesses {
    /// The second of the last access.
    #[default]
    Recency,
    /// The minute of the last access, and a counter of accesses.
    Frequency {
        /// How slowly the counter grows: its chance is one in so many times the
        /// counter.
        log_factor: u32,
        /// Minutes in which it is taken down by one; 0 for never.
        decay_minutes: u32,
    },
}

/// How much a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Seconds since it was.
    IdleSeconds(u32),
    /// Its counter of accesses.
    Frequency(u8),
}

impl Accesses {
    /// The access bits of an entry that is made, and so used, now.
    pub(crate) fn fresh(self, now_ms: u64) -> u32 {
        match self {
            Accesses::Recency => (now_ms / 1000) as u32 & ((1 << ACCESS_BITS) - 1),
            Accesses::Frequency { .. } => with_counter(now_ms / 60_000, COUNTER_FIRST),
        }
    }

    /// The access bits of one that is used again; `fresh` is what they would be
    /// if it were new, `lot` any number.
    fn again(self, access: u32, fresh: u32, lot: u64) -> u32 {
        match self {
            Accesses::Recency => fresh,
            Accesses::Frequency { log_factor, decay_minutes } => {
                let counter = decayed(access, fresh, decay_minutes);
                (fresh & !COUNTER) | counted_up(counter, log_factor, lot)
            }
        }
    }

    /// How much an entry with these access bits is used.
    pub(crate) fn usage(self, access: u32, fresh: u32) -> Usage {
        match self {
            Accesses::Recency => Usage::IdleSeconds(idle_s(access, fresh)),
            Accesses::Frequency { decay_minutes, .. } => {
                Usage::Frequency(decayed(access, fresh, decay_minutes) as u8)
            }
        }
    }

    /// Orders entries: of the least used one it is the highest.
    pub(crate) fn disuse(self, access: u32, fresh: u32) -> u32 {
        match self.usage(access, fresh) {
            Usage::IdleSeconds(seconds) => seconds,
            Usage::Frequency(counter) => COUNTER - u32::from(counter),
        }
    }

    /// The access bits that tell of this usage; `None` where they do not tell
    /// of such.
    pub(crate) fn of_usage(self, usage: Usage, now_ms: u64) -> Option<u32> {
        match (self, usage) {
            (Accesses::Recency, Usage::IdleSeconds(seconds)) => {
                let seconds = seconds.min((1 << (ACCESS_BITS - 1)) - 1);
                Some(self.fresh(now_ms).wrapping_sub(seconds) & ((1 << ACCESS_BITS) - 1))
            }
            (Accesses::Frequency { .. }, Usage::Frequency(counter)) => {
                Some(with_counter(now_ms / 60_000, u32::from(counter)))
            }
            _ => None,
        }
    }
}

fn with_counter(minutes: u64, counter: u32) -> u32 {
    ((minutes as u32 & ((1 << MINUTE_BITS) - 1)) << COUNTER.count_ones()) | counter
}

/// Seconds since an access. One that is later than the clock was just now.
fn idle_s(access: u32, clock: u32) -> u32 {
    let idle = clock.wrapping_sub(access) & ((1 << ACCESS_BITS) - 1);
    if idle >> (ACCESS_BITS - 1) == 0 { idle } else { 0 }
}

/// The counter after the minutes since the last access.
fn decayed(access: u32, fresh: u32, decay_minutes: u32) -> u32 {
    let minutes = ((fresh & !COUNTER).wrapping_sub(access & !COUNTER) >> COUNTER.count_ones())
        & ((1 << MINUTE_BITS) - 1);
    let periods = minutes.checked_div(decay_minutes).unwrap_or(0);
    (access & COUNTER).saturating_sub(periods)
}

/// The counter after one more access, mostly the same.
fn counted_up(counter: u32, log_factor: u32, lot: u64) -> u32 {
    if counter == COUNTER {
        return counter;
    }
    let chance = u64::from(counter.saturating_sub(COUNTER_FIRST)) * u64::from(log_factor) + 1;
    counter + u32::from(lot.is_multiple_of(chance))
}

/// When something is used, and what that does to its access bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    accesses: Accesses,
    fresh: u32,
    lot: u64,
}

impl Moment {
    /// The access bits of an entry that is made now.
    pub(crate) fn fresh(self) -> u32 {
        self.fresh
    }

    /// Notes that an entry is used now.
    pub(crate) fn touch(self, entry: &Entry<Value>) {
        // Each of many at one moment has a lot of its own.
        let lot = self.lot ^ entry.revision();
        entry.touch(self.accesses.again(entry.access(), self.fresh, mixed(lot)));
    }
}

/// `SplitMix64`'s output function: as good as chance.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// [`Accesses`] that may change while others read.
#[derive(Debug, Default)]
pub(crate) struct AccessMode {
    word: AtomicU64,
    /// The last lot that was drawn, before it was mixed.
    lots: AtomicU64,
}

/// Marks frequency in a word. What is left are two numbers of as many bits as
/// settings give them.
const IS_FREQUENCY: u64 = 1 << 63;
const FACTOR_BITS: u32 = 31;

impl AccessMode {
    fn load(&self) -> Accesses {
        let word = self.word.load(Ordering::Relaxed);
        if word & IS_FREQUENCY == 0 {
            return Accesses::Recency;
        }
        let mask = (1 << FACTOR_BITS) - 1;
        Accesses::Frequency {
            log_factor: (word & mask) as u32,
            decay_minutes: (word >> FACTOR_BITS & mask) as u32,
        }
    }

    fn store(&self, accesses: Accesses) {
        let most = (1 << FACTOR_BITS) - 1;
        let word = match accesses {
            Accesses::Recency => 0,
            Accesses::Frequency { log_factor, decay_minutes } => {
                IS_FREQUENCY
                    | u64::from(log_factor.min(most))
                    | u64::from(decay_minutes.min(most)) << FACTOR_BITS
            }
        };
        self.word.store(word, Ordering::Relaxed);
    }

    fn draw(&self) -> u64 {
        // Two threads at once may draw the same: that is chance too.
        let lot = self.lots.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.lots.store(lot, Ordering::Relaxed);
        lot
    }
}

impl Keyspace {
    /// What the access bits of its entries mean.
    #[must_use]
    pub fn accesses(&self) -> Accesses {
        self.access_mode().load()
    }

    /// Sets what they mean from here on.
    pub fn note_accesses(&self, accesses: Accesses) {
        if self.accesses() != accesses {
            self.access_mode().store(accesses);
        }
    }

    /// The access bits of an entry that is made now.
    pub(crate) fn fresh_access(&self, now_ms: u64) -> u32 {
        self.accesses().fresh(now_ms)
    }

    /// A moment at which entries are used.
    pub(crate) fn moment(&self, now_ms: u64) -> Moment {
        let accesses = self.accesses();
        let lot = match accesses {
            Accesses::Recency => 0,
            Accesses::Frequency { .. } => self.access_mode().draw(),
        };
        Moment { accesses, fresh: accesses.fresh(now_ms), lot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LFU: Accesses = Accesses::Frequency { log_factor: 10, decay_minutes: 1 };
    const MINUTE_MS: u64 = 60_000;

    fn counter(accesses: Accesses, access: u32, now_ms: u64) -> u8 {
        match accesses.usage(access, accesses.fresh(now_ms)) {
            Usage::Frequency(counter) => counter,
            Usage::IdleSeconds(_) => panic!("a counter was asked for"),
        }
    }

    #[test]
    fn seconds_since_an_access_survive_the_clock_s_turn() {
        let turn_ms = 1000 << ACCESS_BITS;
        let access = Accesses::Recency.fresh(turn_ms - 3000);
        let fresh = Accesses::Recency.fresh(turn_ms + 4000);
        assert_eq!(Accesses::Recency.usage(access, fresh), Usage::IdleSeconds(7));
        assert_eq!(Accesses::Recency.usage(fresh, access), Usage::IdleSeconds(0), "from later");
    }

    #[test]
    fn a_counter_grows_by_the_logarithm_of_accesses() {
        // The table in redis.conf: with factor 10, 100 accesses make about 10,
        // 1000 about 18, 100,000 about 142.
        let (mut access, mode) = (LFU.fresh(0), AccessMode::default());
        assert_eq!(counter(LFU, access, 0), 5);
        for (accesses, about) in [(100, 8..=13), (900, 15..=22), (99_000, 130..=155)] {
            (0..accesses)
                .for_each(|_| access = LFU.again(access, LFU.fresh(0), mixed(mode.draw())));
            let counter = counter(LFU, access, 0);
            assert!(about.contains(&counter), "{counter} is not within {about:?}");
        }
        let never_more = with_counter(0, 255);
        assert_eq!(LFU.again(never_more, LFU.fresh(0), 0), never_more);
        let quick = Accesses::Frequency { log_factor: 0, decay_minutes: 1 };
        assert_eq!(counter(quick, quick.again(quick.fresh(0), quick.fresh(0), 1), 0), 6);
    }

    #[test]
    fn a_counter_comes_down_as_minutes_go_by() {
        let access = with_counter(0, 20);
        assert_eq!(counter(LFU, access, 3 * MINUTE_MS), 17);
        assert_eq!(counter(LFU, access, 300 * MINUTE_MS), 0);
        let slow = Accesses::Frequency { log_factor: 10, decay_minutes: 5 };
        assert_eq!(counter(slow, access, 14 * MINUTE_MS), 18);
        let never = Accesses::Frequency { log_factor: 10, decay_minutes: 0 };
        assert_eq!(counter(never, access, 30_000 * MINUTE_MS), 20);
        let turn = 1 << MINUTE_BITS;
        let before_the_turn = with_counter(turn - 1, 20);
        assert_eq!(counter(LFU, before_the_turn, (turn + 1) * MINUTE_MS), 18);
    }

    #[test]
    fn usage_is_noted_where_the_bits_can_tell_it() {
        let access = Accesses::Recency.of_usage(Usage::IdleSeconds(100), 500_000).unwrap();
        let fresh = Accesses::Recency.fresh(500_000);
        assert_eq!(Accesses::Recency.usage(access, fresh), Usage::IdleSeconds(100));
        assert_eq!(counter(LFU, LFU.of_usage(Usage::Frequency(77), 0).unwrap(), 0), 77);
        assert_eq!(LFU.of_usage(Usage::IdleSeconds(1), 0), None);
        assert_eq!(Accesses::Recency.of_usage(Usage::Frequency(1), 0), None);
    }

    #[test]
    fn more_seconds_than_the_bits_hold_count_as_the_most() {
        let (fresh, most) = (Accesses::Recency.fresh(500_000), (1 << 23) - 1);
        for seconds in [501, most, most + 1, u32::MAX] {
            let access = Accesses::Recency.of_usage(Usage::IdleSeconds(seconds), 500_000).unwrap();
            let told = Accesses::Recency.usage(access, fresh);
            assert_eq!(told, Usage::IdleSeconds(seconds.min(most)));
        }
    }

    #[test]
    fn a_mode_is_read_as_it_was_stored() {
        let mode = AccessMode::default();
        assert_eq!(mode.load(), Accesses::Recency);
        let most = i32::MAX as u32;
        for (log_factor, decay_minutes) in [(10, 1), (0, 0), (most, 7), (7, most)] {
            let accesses = Accesses::Frequency { log_factor, decay_minutes };
            mode.store(accesses);
            assert_eq!(mode.load(), accesses);
        }
    }
}
