//! How far the archive is behind the log, and what the log keeps for it and for
//! others.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use archive::Base;
use base::Revision;
use engine::{Engine, StandaloneLog};
use log::Log;
use settings::Settings;

/// How many bytes of the log the archive does not have.
#[derive(Debug, Default)]
pub struct Lag {
    /// What the log had written in all when the archive had everything, as it
    /// was counted at its last batch. May be before the start of the process.
    archived_bytes: AtomicI64,
}

impl Lag {
    /// Counts anew what the archive at `revision` lacks.
    pub fn measure(&self, log: &Log, revision: Revision) {
        let written = log.bytes_written() as i64;
        let lacking: u64 = log
            .segments()
            .iter()
            .filter(|segment| segment.last > revision && segment.last >= segment.first)
            .map(|segment| {
                // Of a segment that it has in part, as many bytes as revisions.
                let end = segment.last.0 + 1;
                let lacked = end - segment.first.0.max(revision.0 + 1);
                (segment.bytes as f64 * lacked as f64 / (end - segment.first.0) as f64) as u64
            })
            .sum();
        self.archived_bytes.store(written - lacking as i64, Ordering::Relaxed);
    }

    pub fn bytes(&self, log: &Log) -> u64 {
        let archived = self.archived_bytes.load(Ordering::Relaxed);
        (log.bytes_written() as i64 - archived).try_into().unwrap_or(0)
    }
}

/// The newest revision up to which the log may go, when recovery needs only
/// what follows `archived`.
pub fn removable(log: &Log, archived: Revision, settings: &Settings) -> Revision {
    let mut kept = (0, 0);
    let mut newest_first: Vec<_> =
        log.segments().into_iter().filter(|s| s.is_sealed && s.last <= archived).collect();
    newest_first.reverse();
    for segment in newest_first {
        kept = (kept.0 + 1, kept.1 + segment.bytes);
        let is_wanted = kept.0 <= settings.log_retention_count
            && (settings.max_log_bytes == 0 || kept.1 <= settings.max_log_bytes);
        if !is_wanted {
            return segment.last;
        }
    }
    Revision::ZERO
}

/// Removes segments of the log that nobody needs.
pub fn remove_old(
    engine: Weak<Engine>,
    base: Arc<Base>,
    log: Arc<StandaloneLog>,
) -> impl Fn() + Send + Sync {
    move || {
        let Some(engine) = engine.upgrade() else { return };
        let upto = removable(log.log(), base.revision(), &engine.live().settings);
        if let Err(error) = log.log().remove_before(upto) {
            tracing::warn!("remove old segments of the log: {error}; it is tried again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base::{BranchId, ManualClock, SeededRng};
    use log::{LogOptions, MemVfs, RecordHeader};

    use super::*;

    #[test]
    fn an_empty_segment_lacks_nothing() {
        let (log, _) = Log::open_manual(
            Arc::new(MemVfs::new()),
            Path::new("/log"),
            LogOptions::default(),
            Revision::ZERO,
            Arc::new(ManualClock::at_ms(0)),
            &mut SeededRng::new(1),
            &mut |_| Ok(()),
        )
        .expect("an empty log opens");
        for _ in 0..4 {
            let header = RecordHeader { time_ms: 0, db: 0, branch: BranchId::MAIN };
            log.append(log.reserve(), header, &[0; 1000]);
        }
        log.pump();
        log.roll().expect("memory takes everything");
        let bytes = log.segments()[0].bytes;
        let lag = Lag::default();
        for archived in 0..=4 {
            lag.measure(&log, Revision(archived));
            assert_eq!(lag.bytes(&log), bytes * (4 - archived) / 4, "{archived}");
        }
    }
}
