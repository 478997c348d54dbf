//! Freeing memory away from clients: UNLINK, FLUSHALL and large overwrites
//! hand their values to one background thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use keyspace::Garbage;

use crate::stats::Stats;

/// The background thread's queue.
#[derive(Debug)]
pub(crate) struct Reclaimer {
    queue: mpsc::Sender<Garbage>,
    freed: Arc<AtomicU64>,
    given: AtomicU64,
}

impl Reclaimer {
    pub(crate) fn start() -> Reclaimer {
        let (queue, garbage) = mpsc::channel::<Garbage>();
        let freed = Arc::new(AtomicU64::new(0));
        let counter = freed.clone();
        std::thread::Builder::new()
            .name("reclaim".to_owned())
            .spawn(move || {
                for piece in garbage {
                    // Clients come first where there are not processors for all.
                    piece.drop_in_parts(std::thread::yield_now);
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .expect("the system can start a thread");
        Reclaimer { queue, freed, given: AtomicU64::new(0) }
    }

    pub(crate) fn drop_later(&self, piece: Garbage, stats: &Stats) {
        self.given.fetch_add(1, Ordering::Relaxed);
        // Without the thread the piece comes back in the error and is dropped here.
        let _ = self.queue.send(piece);
        self.publish(stats);
    }

    pub(crate) fn publish(&self, stats: &Stats) {
        let freed = self.freed.load(Ordering::Relaxed);
        let given = self.given.load(Ordering::Relaxed);
        stats.lazyfreed.store(freed, Ordering::Relaxed);
        stats.lazyfree_pending.store(given.saturating_sub(freed), Ordering::Relaxed);
    }
}
