//! Counters of the whole server.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Counters that `INFO stats` shows and `CONFIG RESETSTAT` clears.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "named as in INFO stats")]
pub struct Stats {
    pub connections_received: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub commands_processed: AtomicU64,
    pub expired_keys: AtomicU64,
    pub keyspace_hits: AtomicU64,
    pub keyspace_misses: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub error_replies: AtomicU64,
    pub unexpected_error_replies: AtomicU64,
    pub query_buffer_limit_disconnections: AtomicU64,
    pub output_buffer_limit_disconnections: AtomicU64,
    pub evicted_clients: AtomicU64,
    /// Keys deleted because memory was full.
    pub evicted_keys: AtomicU64,
    pub client_timeouts: AtomicU64,
    /// Microseconds the active expiry cycle has used.
    pub expire_cycle_us: AtomicU64,
    /// Times the cycle ended because its time was up.
    pub expire_cycle_cut: AtomicU64,
    /// Per command id of the command table.
    pub commands: Vec<CommandStats>,
    /// Errors by their first word.
    pub errors: Mutex<std::collections::BTreeMap<String, u64>>,
    /// Keys whose values left memory for the archive, and their bytes.
    pub tier_evicted_keys: AtomicU64,
    pub tier_evicted_bytes: AtomicU64,
    /// Keys that commands brought back, and the microseconds they waited.
    pub tier_loaded_keys: AtomicU64,
    pub tier_load_us: AtomicU64,
    /// Objects waiting to be freed in the background, and those freed so far.
    pub lazyfree_pending: AtomicU64,
    pub lazyfreed: AtomicU64,
}

/// Counters of one command.
#[derive(Debug, Default)]
pub struct CommandStats {
    /// Calls that reached the handler.
    pub calls: AtomicU64,
    /// Nanoseconds in the handler.
    pub ns: AtomicU64,
    /// Calls refused before the handler: arity, authentication, memory.
    pub rejected: AtomicU64,
    /// Calls that answered an error.
    pub failed: AtomicU64,
    /// Durations by their number of bits, for `INFO latencystats`.
    pub histogram: [AtomicU64; 32],
}

impl Stats {
    pub(crate) fn new(commands: usize) -> Stats {
        Stats {
            commands: std::iter::repeat_with(CommandStats::default).take(commands).collect(),
            ..Stats::default()
        }
    }

    /// Clears every counter that is not a gauge.
    pub fn reset(&self) {
        let counters = [
            &self.connections_received,
            &self.rejected_connections,
            &self.commands_processed,
            &self.expired_keys,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.bytes_in,
            &self.bytes_out,
            &self.error_replies,
            &self.unexpected_error_replies,
            &self.query_buffer_limit_disconnections,
            &self.output_buffer_limit_disconnections,
            &self.evicted_clients,
            &self.evicted_keys,
            &self.client_timeouts,
            &self.expire_cycle_us,
            &self.expire_cycle_cut,
            &self.tier_evicted_keys,
            &self.tier_evicted_bytes,
            &self.tier_loaded_keys,
            &self.tier_load_us,
            &self.lazyfreed,
        ];
        counters.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
        for command in &self.commands {
            let counters = [&command.calls, &command.ns, &command.rejected, &command.failed];
            counters.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
            command.histogram.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
        }
        self.errors.lock().clear();
    }

    /// Counts an error reply under its first word.
    pub(crate) fn count_error(&self, text: &str) {
        self.error_replies.fetch_add(1, Ordering::Relaxed);
        let code = text.split(' ').next().unwrap_or_default();
        let mut errors = self.errors.lock();
        // User-made codes (scripts) must not fill the memory.
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < 128 {
            errors.insert(code.to_owned(), 1);
        }
    }
}

/// A session's count of one command, given to [`Stats`] when another command
/// comes: in a pipeline of equal commands the shared counters are touched once.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    command: usize,
    calls: u64,
    ns: u64,
    buckets: [u32; 32],
    /// A bit per bucket that is not zero.
    used: u32,
    hits: u64,
    misses: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, command: usize, ns: u64, stats: &Stats) {
        if self.command != command {
            self.flush(stats);
            self.command = command;
        }
        self.calls += 1;
        self.ns += ns;
        let index = (64 - ns.leading_zeros() as usize).min(31);
        self.buckets[index] += 1;
        self.used |= 1 << index;
    }

    /// Counts reads that found their key and those that did not.
    pub(crate) fn looks(&mut self, hits: u32, misses: u32) {
        self.hits += u64::from(hits);
        self.misses += u64::from(misses);
    }

    pub(crate) fn flush(&mut self, stats: &Stats) {
        for (count, counter) in
            [(&mut self.hits, &stats.keyspace_hits), (&mut self.misses, &stats.keyspace_misses)]
        {
            if *count > 0 {
                counter.fetch_add(std::mem::take(count), Ordering::Relaxed);
            }
        }
        if self.calls == 0 {
            return;
        }
        let command = &stats.commands[self.command];
        command.calls.fetch_add(self.calls, Ordering::Relaxed);
        command.ns.fetch_add(self.ns, Ordering::Relaxed);
        stats.commands_processed.fetch_add(self.calls, Ordering::Relaxed);
        // Only the buckets in use: a batch of one command has one.
        while self.used != 0 {
            let index = self.used.trailing_zeros() as usize;
            self.used &= self.used - 1;
            let count = std::mem::take(&mut self.buckets[index]);
            command.histogram[index].fetch_add(u64::from(count), Ordering::Relaxed);
        }
        (self.calls, self.ns) = (0, 0);
    }
}
