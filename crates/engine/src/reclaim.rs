//! Freeing memory away from clients: UNLINK, FLUSHALL and large overwrites
//! hand their values to one background thread. What a flush took that the archive
//! does not have waits until it does, for the flush may be taken back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use base::Revision;
use keyspace::{Flush, FlushedDb, Garbage};
use parking_lot::Mutex;

use crate::engine::Engine;
use crate::stats::Stats;

/// The background thread's queue.
#[derive(Debug)]
pub(crate) struct Reclaimer {
    queue: mpsc::Sender<Garbage>,
    freed: Arc<AtomicU64>,
    given: AtomicU64,
    /// What one revision flushed: of an older one there would be as much again.
    waiting: Mutex<Vec<(Flush, FlushedDb)>>,
    /// Bytes of memory that it takes.
    waiting_bytes: AtomicU64,
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
        Reclaimer {
            queue,
            freed,
            given: AtomicU64::new(0),
            waiting: Mutex::default(),
            waiting_bytes: AtomicU64::new(0),
        }
    }

    fn drop_later(&self, piece: Garbage) {
        self.given.fetch_add(1, Ordering::Relaxed);
        // Without the thread the piece comes back in the error and is dropped here.
        let _ = self.queue.send(piece);
    }

    /// Lets what a flush took wait until it is [let go](Reclaimer::let_go).
    fn keep(&self, flush: Flush, db: FlushedDb) {
        let mut waiting = self.waiting.lock();
        let newest = waiting.first().map_or(Revision::ZERO, |(flush, _)| flush.revision);
        if flush.revision < newest {
            return self.drop_later(Garbage::Db(db));
        }
        if flush.revision > newest {
            waiting.drain(..).for_each(|(_, older)| self.drop_later(Garbage::Db(older)));
        }
        waiting.push((flush, db));
        self.measure(&waiting);
    }

    fn measure(&self, waiting: &[(Flush, FlushedDb)]) {
        let bytes = waiting.iter().map(|(_, db)| db.memory_bytes() as u64).sum();
        self.waiting_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Answers what these flushes took, in their order, if all of it waits.
    fn take(&self, flushes: &[Flush]) -> Option<Vec<FlushedDb>> {
        let mut waiting = self.waiting.lock();
        let has = |flush: &Flush| waiting.iter().any(|(of, _)| of == flush);
        if !flushes.iter().all(has) {
            return None;
        }
        let mut take = |flush: &Flush| {
            let at = waiting.iter().position(|(of, _)| of == flush)?;
            Some(waiting.swap_remove(at).1)
        };
        let taken = flushes.iter().map(&mut take).collect();
        self.measure(&waiting);
        taken
    }

    /// Frees what flushes took up to and with `upto`.
    pub(crate) fn let_go(&self, upto: Revision) {
        let mut waiting = self.waiting.lock();
        let goes = |(flush, _): &mut (Flush, FlushedDb)| flush.revision <= upto;
        waiting.extract_if(.., goes).for_each(|(_, db)| self.drop_later(Garbage::Db(db)));
        self.measure(&waiting);
    }

    /// Frees what waits if it does not fit into a limit beside what is used.
    pub(crate) fn make_room(&self, used: u64, limit: u64) {
        let waiting = self.waiting_bytes.load(Ordering::Relaxed);
        if waiting > 0 && used + waiting > limit {
            self.let_go(Revision(u64::MAX));
        }
    }

    pub(crate) fn publish(&self, stats: &Stats) {
        let freed = self.freed.load(Ordering::Relaxed);
        let given = self.given.load(Ordering::Relaxed);
        let waiting = self.waiting.lock().len() as u64;
        stats.lazyfreed.store(freed, Ordering::Relaxed);
        stats.lazyfree_pending.store(given.saturating_sub(freed) + waiting, Ordering::Relaxed);
    }
}

impl Engine {
    /// Drops what a transaction threw away: little at once, much in the
    /// background. Called after the locks are open.
    pub(crate) fn dispose(&self, garbage: Vec<Garbage>) {
        for piece in garbage {
            if let Some(piece) = self.keep_flushed(piece)
                && piece.is_much()
            {
                self.reclaimer.drop_later(piece);
            }
        }
    }

    /// Lets what a flush took wait until the archive has it, which is asked to
    /// hurry. Answers what need not wait.
    fn keep_flushed(&self, piece: Garbage) -> Option<Garbage> {
        let Garbage::Db(db) = piece else { return Some(piece) };
        let Some(flush) = db.flush() else { return Some(Garbage::Db(db)) };
        let (before, limit) = (Revision(flush.revision.0 - 1), self.live().max_memory);
        let (archived, bytes) = (self.archived(), self.used_memory() + db.memory_bytes() as u64);
        let is_needed = archived.revision < before && archived.fault.is_none();
        let has_room = limit == 0 || bytes <= limit;
        let Some(archive) = self.archive().filter(|_| is_needed && has_room) else {
            return Some(Garbage::Db(db));
        };
        archive.hurry(before);
        self.reclaimer.keep(flush, db);
        // It may have got there meanwhile.
        self.reclaimer.let_go(self.archived().revision.next());
        None
    }
}

/// What flushes took, on its way back: the rest of it is garbage again when this
/// goes.
pub(crate) struct TakenBack<'e> {
    engine: &'e Engine,
    dbs: std::vec::IntoIter<FlushedDb>,
}

impl TakenBack<'_> {
    /// `None` where not all of it is in memory.
    pub(crate) fn of<'e>(engine: &'e Engine, flushes: &[Flush]) -> Option<TakenBack<'e>> {
        Some(TakenBack { engine, dbs: engine.reclaimer.take(flushes)?.into_iter() })
    }

    /// What the flushes took that are still to come, in their order.
    pub(crate) fn dbs(&self) -> &[FlushedDb] {
        self.dbs.as_slice()
    }

    /// What the next of the flushes took.
    pub(crate) fn next(&mut self) -> Option<FlushedDb> {
        self.dbs.next()
    }
}

impl Drop for TakenBack<'_> {
    fn drop(&mut self) {
        self.engine.dispose(self.dbs.by_ref().map(Garbage::Db).collect());
    }
}
