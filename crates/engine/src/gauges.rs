//! What is measured by looking at it regularly: rates and the memory peak.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::engine::Engine;

/// Samples that a rate looks back over, as in Redis: 1.6 s at ten a second.
const SAMPLES: usize = 16;
/// The least time between two samples.
const INTERVAL_NS: u64 = 100_000_000;

#[derive(Debug, Default)]
pub(crate) struct Gauges {
    samples: Mutex<VecDeque<Sample>>,
    /// Bytes of the process before it held any data of clients.
    pub(crate) startup_bytes: u64,
    /// The most bytes in use that were seen.
    pub(crate) memory_peak: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at_ns: u64,
    commands: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) commands: f64,
    pub(crate) bytes_in: f64,
    pub(crate) bytes_out: f64,
}

impl Gauges {
    /// Gauges of a process that holds `data_bytes` of data already.
    pub(crate) fn new(data_bytes: u64) -> Gauges {
        let resident = crate::server::process::resident_bytes().unwrap_or(0);
        Gauges { startup_bytes: resident.saturating_sub(data_bytes), ..Gauges::default() }
    }

    pub(crate) fn rates(&self) -> Rates {
        let samples = self.samples.lock();
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return Rates::default();
        };
        let seconds = (last.at_ns - first.at_ns) as f64 / 1e9;
        if seconds == 0.0 {
            return Rates::default();
        }
        // Counters go back to zero at CONFIG RESETSTAT.
        let rate =
            |count: fn(&Sample) -> u64| count(last).saturating_sub(count(first)) as f64 / seconds;
        Rates {
            commands: rate(|sample| sample.commands),
            bytes_in: rate(|sample| sample.bytes_in),
            bytes_out: rate(|sample| sample.bytes_out),
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.samples.lock();
        if samples.back().is_some_and(|last| sample.at_ns - last.at_ns < INTERVAL_NS) {
            return;
        }
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

impl Engine {
    /// Looks at what INFO shows rates and peaks of. The binary calls it `hz`
    /// times a second.
    pub fn sample_gauges(&self) {
        let stats = &self.stats;
        self.gauges.add(Sample {
            at_ns: self.clock.monotonic_ns(),
            commands: stats.commands_processed.load(Ordering::Relaxed),
            bytes_in: stats.bytes_in.load(Ordering::Relaxed),
            bytes_out: stats.bytes_out.load(Ordering::Relaxed),
        });
        self.gauges
            .memory_peak
            .fetch_max(self.gauges.startup_bytes + self.used_memory(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_cover_the_samples_kept() {
        let gauges = Gauges::default();
        assert_eq!(gauges.rates(), Rates::default());
        for turn in 0..40u64 {
            gauges.add(Sample {
                at_ns: turn * INTERVAL_NS,
                commands: turn * 10,
                bytes_in: turn * 100,
                bytes_out: 0,
            });
            // Too early: not counted.
            gauges.add(Sample {
                at_ns: turn * INTERVAL_NS + 1,
                commands: u64::MAX,
                bytes_in: 0,
                bytes_out: 0,
            });
        }
        let rates = gauges.rates();
        assert!((rates.commands - 100.0).abs() < 1e-6, "{rates:?}");
        assert!((rates.bytes_in - 1000.0).abs() < 1e-6, "{rates:?}");
    }
}
