//! The archive beside the engine: opening it, following the log, letting
//! values come from it and go to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use archive::backup::{Made, Source};
use archive::{Advanced, ArchiveError, Base, BaseBacking, Follower, FollowerOptions, Pace, Turn};
use base::{BranchId, Clock, DbIndex, Revision, SpaceId};
use engine::{BackedUp, Checkpointed, Engine, StandaloneLog};
use keyspace::{EncodingLimits, Keyspace, Spaces};
use parking_lot::Mutex;
use settings::Settings;
use tokio::sync::watch;

use crate::forest::{back, fork, reopen};
use crate::lag::{Lag, removable, remove_old};
use crate::past::Past;

/// The archive as the engine knows it.
pub struct Archiving {
    base: Arc<Base>,
    past: Option<Arc<archive::Past>>,
    follower: Follower,
    progress: watch::Sender<Checkpointed>,
    log: Arc<StandaloneLog>,
    lag: Arc<Lag>,
    /// Somebody asked for a checkpoint: the log is to begin a new segment with
    /// it, so that all of the old one can go.
    rolls: Arc<AtomicBool>,
    goes_on: Arc<AtomicBool>,
    tier: Mutex<Option<JoinHandle<()>>>,
    clock: Arc<dyn Clock>,
    databases: DbIndex,
    limits: EncodingLimits,
    /// What no backup may be inside of.
    folders: Vec<PathBuf>,
}

impl std::fmt::Debug for Archiving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archiving").field("folders", &self.folders).finish_non_exhaustive()
    }
}

impl Archiving {
    /// Starts to follow the log and to load what the keyspace lacks, and tells
    /// the engine.
    pub fn start(
        engine: &Arc<Engine>,
        base: Arc<Base>,
        past: Option<Arc<archive::Past>>,
        log: Arc<StandaloneLog>,
    ) -> Arc<Archiving> {
        let settings = engine.live().settings.clone();
        let (progress, _) =
            watch::channel(Checkpointed { revision: base.revision(), ..Checkpointed::default() });
        let clock = engine.clock.clone();
        let lag = Arc::new(Lag::default());
        lag.measure(log.log(), base.revision());
        let rolls = Arc::new(AtomicBool::new(false));
        let advanced = advanced(
            Arc::downgrade(engine),
            clock.clone(),
            progress.clone(),
            log.clone(),
            lag.clone(),
            rolls.clone(),
        );
        let failing = progress.clone();
        let told = Arc::downgrade(engine);
        let faulted = Box::new(move |fault: Option<&str>| {
            failing.send_modify(|now| now.fault = fault.map(str::to_owned));
            told.upgrade().iter().for_each(|engine| engine.tier_moved());
        });
        let options = FollowerOptions {
            pace: pace(&settings),
            databases: engine.keyspace.databases(),
            limits: engine::encoding_limits(&settings),
            past: past.clone(),
            turn: turn(engine, past.clone(), &base, &log),
            clock,
            advanced,
            faulted,
        };
        let reader = log.log().reader(Follower::begin(&base, past.as_deref()));
        let kept = past.clone();
        if let Some(past) = past {
            let remove = remove_old(Arc::downgrade(engine), base.clone(), log.clone());
            Past::attach(engine, past, log.clone(), Box::new(remove));
        }
        let follower = Follower::start(base.clone(), reader, options);
        let goes_on = Arc::new(AtomicBool::new(true));
        let folders =
            vec![settings.data_dir.clone(), base.dir().to_owned(), log.log().dir().to_owned()];
        let archiving = Arc::new(Archiving {
            base,
            past: kept,
            follower,
            progress,
            log,
            lag,
            rolls,
            goes_on,
            tier: Mutex::new(None),
            clock: engine.clock.clone(),
            databases: engine.keyspace.databases(),
            limits: engine::encoding_limits(&settings),
            folders,
        });
        engine.attach_archive(archiving.clone());
        let weak = Arc::downgrade(&archiving);
        archiving.base.set_reach(Arc::new(move |at| match weak.upgrade() {
            Some(archiving) => archiving.follower.checkpoint(at),
            None => Err(ArchiveError::Stopped("the server ends".to_owned())),
        }));
        let weak = Arc::downgrade(&archiving);
        archiving.base.set_hindered(Arc::new(move |at| {
            weak.upgrade().is_none_or(|archiving| archiving.follower.hindrance(at).is_some())
        }));
        let told = Arc::downgrade(engine);
        archiving.base.set_awaited(Arc::new(move || {
            told.upgrade().iter().for_each(|engine| engine.wake_put_off());
        }));
        if let Some(past) = &archiving.past {
            let past = Arc::downgrade(past);
            // What cannot be told so is read as ever, and its error told.
            archiving.base.set_remake(Arc::new(move |space, at, key, present| {
                past.upgrade()?.key_of_space(space, at, key, present).ok().flatten()
            }));
        }
        *archiving.tier.lock() = Some(keep_tier(engine, archiving.goes_on.clone()));
        archiving
    }

    /// Ends purges that the stop of an earlier process has cut short, once the
    /// engine knows all branches. On a thread of its own: they wait for whoever
    /// reads the past, who may wait for the follower.
    pub fn finish_purges(self: &Arc<Self>, engine: &Engine) {
        let Some(past) = self.past.clone() else { return };
        let directory = self.base.directory();
        let of_engine = engine.purges();
        let archived = directory.purges().map(|(_, purge)| purge.at);
        let newest = of_engine.iter().map(|(_, purge)| purge.at).chain(archived).max();
        let Some(newest) = newest else { return };
        let archiving = self.clone();
        std::thread::Builder::new()
            .name("purge".to_owned())
            .spawn(move || {
                let reached = engine::Archive::settle(&*archiving, newest);
                let done =
                    reached.and_then(|()| past.finish_purges(newest).map_err(|e| e.to_string()));
                if let Err(reason) = done {
                    tracing::warn!("erase the past of keys: {reason}; the next start tries again");
                }
            })
            .expect("a thread can be started");
    }

    /// Waits until the archive has reached the newest revision.
    ///
    /// # Errors
    /// Why it never will.
    fn checkpoint(&self) -> Result<(), String> {
        let newest = self.log.log().newest();
        self.follower.checkpoint(newest).map_err(|error| error.to_string())
    }

    /// DEBUG RELOAD: empties the keyspace, which is filled from the archive
    /// from then on, as after a restart.
    ///
    /// # Errors
    /// Why the archive has not everything; the keyspace is what it was then.
    pub fn reload(&self, engine: &Engine) -> Result<(), String> {
        let settings = engine.live().settings.clone();
        // Most of the work is done before clients are held off.
        self.checkpoint()?;
        engine.reload(|fresh| {
            self.checkpoint()?;
            let limits = engine::encoding_limits(&settings);
            let backing = BaseBacking::new(self.base.clone(), limits);
            back(fresh, BranchId::MAIN, &self.base, &backing)
        })
    }

    /// Ends its threads.
    pub fn stop(&self, engine: &Engine) {
        self.goes_on.store(false, Ordering::SeqCst);
        engine.tier_moved();
        if let Some(tier) = self.tier.lock().take() {
            // A panic of the thread has been reported by the hook.
            let _ = tier.join();
        }
        self.follower.stop();
    }
}

impl engine::Branching for Archiving {
    fn fork(
        &self,
        ancestors: Vec<Arc<Keyspace>>,
        parent: &Spaces,
        at: Revision,
        forked: Revision,
    ) -> Arc<Keyspace> {
        fork(&self.base, self.limits, ancestors, parent, at, forked)
    }

    fn reopen(
        &self,
        branch: BranchId,
        ancestors: Vec<Arc<Keyspace>>,
    ) -> command::Result<Arc<Keyspace>> {
        let directory = self.base.directory();
        let row = (branch, directory.branches.get(branch));
        let reopened = reopen(&self.base, self.limits, self.databases, row, ancestors);
        reopened.map_err(|what| command::Error::new(format!("ERR {what}")))
    }

    fn state_before(&self, branch: BranchId, at: Revision) -> command::Result<(Revision, Spaces)> {
        let found = self.base.state_before(branch, self.databases, at);
        found.map_err(|error| command::Error::new(format!("ERR {error}")))
    }

    fn own_keys(&self, space: SpaceId, each: &mut dyn FnMut(u64, Revision)) -> command::Result {
        self.base.own_keys(space, each).map_err(|error| command::Error::new(format!("ERR {error}")))
    }

    fn has_reached(&self, at: Revision) -> bool {
        self.base.revision() >= at
    }

    fn is_hindered(&self, at: Revision) -> bool {
        self.follower.hindrance(at).is_some()
    }

    fn state(&self, branch: BranchId, at: Revision) -> command::Result<Arc<Keyspace>> {
        let error = |error| command::Error::new(format!("ERR {error}"));
        self.base.await_revision(at).map_err(error)?;
        let spaces = self.base.spaces_at(branch, self.databases, at).map_err(error)?;
        let keyspace = Arc::new(Keyspace::new(self.databases, self.base.directory().seed));
        let backing = BaseBacking::at(self.base.clone(), at, self.limits);
        for (db, space, keys) in spaces {
            keyspace.back(backing.clone(), db, space, &keys);
        }
        Ok(keyspace)
    }
}

impl engine::Archive for Archiving {
    fn progress(&self) -> watch::Receiver<Checkpointed> {
        self.progress.subscribe()
    }

    fn request(&self, revision: Revision) {
        self.rolls.store(true, Ordering::Relaxed);
        self.follower.request(revision);
    }

    fn hurry(&self, revision: Revision) {
        self.follower.request(revision);
    }

    fn settle(&self, revision: Revision) -> Result<(), String> {
        self.follower.checkpoint(revision).map_err(|error| error.to_string())
    }

    fn retry(&self) {
        if self.follower.retry() {
            self.progress.send_modify(|now| now.fault = None);
        }
    }

    fn claim(&self, space: SpaceId, upto: Option<Revision>) -> bool {
        self.base.claim(space, upto);
        true
    }

    fn release(&self, space: SpaceId) {
        self.base.release(space);
    }

    fn lag_bytes(&self) -> u64 {
        self.lag.bytes(self.log.log())
    }

    fn backup(&self, to: &Path, with_history: bool) -> Result<BackedUp, String> {
        let began_ns = self.clock.monotonic_ns();
        let source = self.source(with_history);
        let made = archive::backup::make(&source, to, &*self.clock).map_err(|e| e.to_string())?;
        Ok(self.backed_up(to, made, began_ns))
    }

    fn backup_in_row(
        &self,
        row: &Path,
        keep: usize,
        with_history: bool,
    ) -> Result<BackedUp, String> {
        let began_ns = self.clock.monotonic_ns();
        // One that was named relatively is one of where the server was started.
        let row =
            std::path::absolute(row).map_err(|error| format!("{}: {error}", row.display()))?;
        let source = self.source(with_history);
        let rotated = archive::backup::rotate(&source, &row, keep, &*self.clock);
        let rotated = rotated.map_err(|error| error.to_string())?;
        tracing::info!(kept = rotated.kept, removed = rotated.removed, "scheduled backup");
        Ok(self.backed_up(&rotated.dir, rotated.made, began_ns))
    }

    fn newest_backup_ms(&self, row: &Path) -> Option<u64> {
        archive::backup::newest_ms(row, self.log.log().id())
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        let stats = self.follower.stats();
        let newest = self.log.log().newest();
        vec![
            ("archive_revision", self.base.revision().to_string()),
            ("archive_lag_revisions", (newest.0 - self.base.revision().0).to_string()),
            ("archive_read_revision", stats.read.to_string()),
            ("archive_lag_bytes", engine::Archive::lag_bytes(self).to_string()),
            ("archive_pending_bytes", stats.lag_bytes.to_string()),
            ("archive_batches", stats.batches.to_string()),
            ("archive_batch_ms_last", stats.batch_ms_last.to_string()),
            ("archive_disk_bytes", self.base.disk_bytes().to_string()),
            ("archive_fault", self.follower.fault().unwrap_or_default()),
            ("log_held_by", self.held_by()),
        ]
    }
}

impl Archiving {
    /// What a backup is made of.
    fn source(&self, with_history: bool) -> Source<'_> {
        Source {
            base: &self.base,
            log: self.log.log(),
            databases: self.databases,
            folders: &self.folders,
            past: self.past.as_deref().filter(|_| with_history),
        }
    }

    /// Who keeps old parts of the log, tags among them, as `name>revision`.
    fn held_by(&self) -> String {
        let tags = self.past.as_ref().map(|past| past.held_by_tags().unwrap_or_default());
        let held = self.log.log().holders().into_iter().chain(tags.into_iter().flatten());
        let held = held.map(|(name, revision)| format!("{name}>{revision}"));
        held.collect::<Vec<_>>().join(",")
    }

    /// Tells of a backup that was made.
    fn backed_up(&self, to: &Path, made: Made, began_ns: u64) -> BackedUp {
        let took_ms = (self.clock.monotonic_ns() - began_ns) / 1_000_000;
        tracing::info!(
            folder = %to.display(),
            copied = made.copied,
            copied_bytes = made.copied_bytes,
            took_ms,
            "backup of revisions {} to {}",
            made.oldest,
            made.newest
        );
        BackedUp {
            revision: made.newest,
            oldest: made.oldest,
            files: made.files,
            bytes: made.bytes,
            copied: made.copied,
            copied_bytes: made.copied_bytes,
            took_ms,
        }
    }
}

/// Lets go of the past that is too old, and of the log that the settings do not want
/// any more, also while nothing is written.
fn turn(
    engine: &Arc<Engine>,
    past: Option<Arc<archive::Past>>,
    base: &Arc<Base>,
    log: &Arc<StandaloneLog>,
) -> Turn {
    let engine = Arc::downgrade(engine);
    let remove = remove_old(engine.clone(), base.clone(), log.clone());
    Box::new(move || {
        if let (Some(past), Some(engine)) = (&past, engine.upgrade()) {
            crate::past::retain(past, &engine);
            crate::past::mend(past);
        }
        remove();
    })
}

/// When the base moves forward, by the settings.
fn pace(settings: &Settings) -> Pace {
    let ms_or_never = |seconds: u64| if seconds == 0 { u64::MAX } else { seconds * 1000 };
    Pace {
        log_bytes: settings.archive_lag_bytes,
        memory_bytes: usize::try_from(settings.write_buffer_bytes).unwrap_or(usize::MAX),
        idle_ms: ms_or_never(settings.archive_idle_s),
        age_ms: ms_or_never(settings.archive_interval_s),
    }
}

/// What happens whenever the base has moved forward.
fn advanced(
    engine: Weak<Engine>,
    clock: Arc<dyn Clock>,
    progress: watch::Sender<Checkpointed>,
    log: Arc<StandaloneLog>,
    lag: Arc<Lag>,
    rolls: Arc<AtomicBool>,
) -> Advanced {
    let report = move |revision, took_ms| {
        progress.send_modify(|now| {
            let finished_ms = clock.now_us() / 1000;
            *now = Checkpointed {
                revision,
                finished_ms,
                took_ms,
                count: now.count + 1,
                ..now.clone()
            };
        });
    };
    Box::new(move |revision, took_ms| {
        if let Some(engine) = engine.upgrade() {
            engine.tier_moved();
            engine.wake_put_off();
            let (log, settings) = (log.log(), &engine.live().settings);
            // A fault of the log is told by the log.
            if rolls.swap(false, Ordering::Relaxed) {
                let _ = log.roll();
            }
            if let Err(error) = log.remove_before(removable(log, revision, settings)) {
                tracing::warn!(
                    "remove old segments of the log: {error}; the next batch tries again"
                );
            }
            lag.measure(log, revision);
        }
        report(revision, took_ms);
        engine.upgrade().iter().for_each(|engine| engine.tier_moved());
    })
}

/// Loads what stands in the archive only, and takes values out of memory when
/// it is full, beside the clients.
fn keep_tier(engine: &Arc<Engine>, goes_on: Arc<AtomicBool>) -> JoinHandle<()> {
    let engine = engine.clone();
    std::thread::Builder::new()
        .name("tier".to_owned())
        .spawn(move || engine.keep_tier(&goes_on))
        .expect("a thread can be started")
}
