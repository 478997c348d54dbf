//! `alcid server`: wiring. Opens the log, fills the keyspace from it, starts
//! the listeners and the background turns, and ends everything in order.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use base::{Clock, Revision, Rng, SeededRng, SystemClock};
use engine::{Engine, Hooks, Identity, NoLog, Replicator};
use front_resp::Shutdown;
use keyspace::Keyspace;
use settings::{LogLevel, Settings};
use tokio::sync::watch;

use crate::archiving::Archiving;
use crate::config_cmd::Found;
use crate::descriptors;
use crate::listeners::{self, Bound};
use crate::logging::{self, LogHandle};
use crate::signals::{LoadAgain, Reloader, Signals, watch_signals};
use crate::storage::Storage;

/// Microseconds of the expiry cycle between which clients are served.
const EXPIRE_SLICE_US: u64 = 1000;

/// How long connections may take to end before the process does.
const GRACE: Duration = Duration::from_secs(10);

/// How long the last checkpoint may take. Container runtimes kill what has not
/// ended after 10 s.
const SAVE_GRACE: Duration = Duration::from_secs(5);

/// How long a start waits to know when its databases changed places.
const RECALL_PATIENCE: Duration = Duration::from_millis(100);

/// Runs a server until SIGTERM, Ctrl+C or SHUTDOWN.
///
/// # Errors
/// What stands in the way of starting, in one message for the operator.
pub fn run(found: Found, load_again: LoadAgain) -> Result<(), String> {
    let rust_log = std::env::var("RUST_LOG").ok();
    let mut settings = found.loaded.settings.clone();
    let diagnostics = logging::start(&settings.logging, rust_log.as_deref())
        .map_err(|error| error.to_string())?;
    for warning in &found.loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Whatever is created, by whichever library, is its owner's alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    end_on_panic();
    if let Some(most) = descriptors::clients_max().filter(|most| *most < settings.max_connections) {
        tracing::warn!(
            "server.max_connections is {}, but the limit on open files leaves room for {most}: that is the \
             limit now; raise it with `ulimit -n` or LimitNOFILE",
            settings.max_connections
        );
        settings.max_connections = most;
    }
    let runtime = runtime(&settings).map_err(|error| format!("start the runtime: {error}"))?;
    let listeners = {
        let _inside = runtime.enter();
        listeners::bind(&settings)?
    };
    let is_open = listeners.iter().any(|bound| !bound.address.ip().is_loopback());
    if is_open && settings.requirepass.is_empty() {
        tracing::warn!(
            "other machines can reach the server and there is no password: whoever does owns the data"
        );
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut rng = SeededRng::from_system();
    let (keyspace, kept) = if settings.log_enabled {
        let Storage { forest, log, base, past } =
            crate::storage::open(&settings, clock.clone(), &mut rng)?;
        (forest.main(), Some((log, base, past, forest)))
    } else {
        (Arc::new(Keyspace::new(settings.databases, rng.next_u64())), None)
    };
    let replicator: Arc<dyn Replicator> = match &kept {
        Some((log, ..)) => log.clone(),
        None => Arc::new(NoLog::default()),
    };
    let (stop, shutdown) = Shutdown::new();
    let stop = Arc::new(stop);
    let identity = Identity {
        run_id: hex(&mut rng, 40),
        config_file: found.path.clone(),
        executable: std::env::current_exe()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        tcp_port: listeners.first().map_or(0, |bound| bound.address.port()),
    };
    let archiving = Arc::new(OnceLock::new());
    let hooks =
        hooks(stop.clone(), diagnostics, settings.logging.level, found.path, archiving.clone());
    let engine = Arc::new(Engine::new(
        keyspace,
        replicator,
        clock,
        rng.next_u64(),
        settings.clone(),
        identity,
        hooks,
    ));
    if let Some((log, base, past, forest)) = kept {
        let archived = base.revision();
        let started = Archiving::start(&engine, base, past, log);
        forest.attach(&engine, started.clone());
        recall_moves(engine.clone(), archived);
        started.finish_purges(&engine);
        // Those whose time was up while there was no server are seen by nobody.
        engine.expire_branches();
        archiving.set(started).expect("set once");
    }
    // Before anybody can know that the server is there.
    let signals = {
        let _inside = runtime.enter();
        Signals::install()?
    };
    announce(&listeners, &settings);
    let reloader = Reloader::new(load_again, settings);
    runtime.block_on(serve(engine.clone(), listeners, signals, reloader, stop, shutdown));
    if let Some(archiving) = archiving.get() {
        archiving.stop(&engine);
    }
    engine.replicator.close()?;
    Ok(())
}

/// Tells the engine when its databases changed places, as far as the archive goes.
/// A long history takes its time to look through, beside everybody: until then
/// `OBJECT REVISION` may name an earlier change, and `EXEC` fails where it learns of
/// the later one. Others are waited for.
fn recall_moves(engine: Arc<Engine>, archived: Revision) {
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::Builder::new()
        .name("moves".to_owned())
        .spawn(move || {
            engine.recall_moves(archived);
            drop(done);
        })
        .expect("a thread can be started");
    // Nothing is ever sent: the end of the thread ends it.
    let _ = is_done.recv_timeout(RECALL_PATIENCE);
}

/// A panic ends the process: what a transaction had changed in memory when it
/// panicked is in no log, and a restart is what brings the two together.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        tracing::error!("{panic}; the server ends, a restart reads the log");
        std::process::abort();
    }));
}

/// The threads that serve clients. The other half of the cores is for what they
/// cause: the kernel's network work, the log's writer, freeing memory.
fn runtime(settings: &Settings) -> std::io::Result<tokio::runtime::Runtime> {
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
        threads => threads as usize,
    };
    let mut builder = if threads == 1 {
        // Without others to share with, clients are served in the order in
        // which their requests arrive, and no work is moved between threads.
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.worker_threads(threads).enable_all().build()
}

fn announce(listeners: &[Bound], settings: &Settings) {
    listeners.iter().for_each(Bound::announce);
    if settings.log_enabled {
        println!("Data folder {}", settings.data_dir.display());
        let promise = match settings.fsync {
            settings::Fsync::Always => "always: every acknowledged write is on disk",
            settings::Fsync::EverySec => "everysec: a crash takes at most the last second",
            settings::Fsync::No => "no: the operating system decides when writes reach the disk",
        };
        println!("Durability {promise}");
    } else {
        println!("Durability none: the log is off and data is lost when the server ends");
    }
}

fn hooks(
    stop: Arc<watch::Sender<bool>>,
    diagnostics: LogHandle,
    level: LogLevel,
    config_file: Option<PathBuf>,
    archiving: Arc<OnceLock<Arc<Archiving>>>,
) -> Hooks {
    let level = std::sync::Mutex::new(level);
    Hooks {
        shutdown: Some(Box::new(move || {
            stop.send_replace(true);
        })),
        settings_changed: Some(Box::new(move |settings| {
            if let Some(most) = descriptors::clients_max()
                && settings.max_connections > most
            {
                // Redis's words.
                return Err(format!(
                    "The operating system is not able to handle the specified number of clients, try with {most}"
                ));
            }
            let mut level = level.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let wanted = settings.logging.level;
            // RUST_LOG rules until the level is really changed.
            if std::mem::replace(&mut *level, wanted) != wanted {
                diagnostics.set_level(wanted);
            }
            Ok(())
        })),
        rewrite_config: Some(Box::new(move |settings| {
            let path = config_file.as_ref().ok_or("The server is running without a config file")?;
            crate::config_cmd::rewrite(path, settings).map_err(|error| error.to_string())
        })),
        reload: Some(Box::new(move |engine| match archiving.get() {
            Some(archiving) => archiving.reload(engine),
            None => Err("there is no log to load from".to_owned()),
        })),
    }
}

async fn serve(
    engine: Arc<Engine>,
    listeners: Vec<Bound>,
    signals: Signals,
    reloader: Reloader,
    stop: Arc<watch::Sender<bool>>,
    mut shutdown: Shutdown,
) {
    let serving: Vec<_> = listeners
        .into_iter()
        .map(|bound| tokio::spawn(bound.listener.serve(engine.clone(), shutdown.clone())))
        .collect();
    let turns = tokio::spawn(background(engine.clone()));
    let disk = tokio::spawn(crate::disk::watch(engine.clone()));
    let commits = tokio::spawn(follow_commits(engine.clone()));
    let checkpoints = tokio::spawn(follow_archive(engine.clone()));
    tokio::spawn(watch_signals(signals, reloader, engine.clone(), stop));
    shutdown.given().await;
    tracing::info!("shutting down: finishing replies");
    let ended = async {
        for listener in serving {
            let _ = listener.await;
        }
    };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::warn!("connections did not end within {} s", GRACE.as_secs());
    }
    turns.abort();
    disk.abort();
    save_at_end(&engine).await;
    commits.abort();
    checkpoints.abort();
}

/// Saves what connections that have ended wrote, so that the next start has
/// little of the log to replay. The log has everything: when this takes too
/// long, or fails, only that start takes longer.
async fn save_at_end(engine: &Engine) {
    if !engine.saves_at_end() {
        return;
    }
    match tokio::time::timeout(SAVE_GRACE, engine.checkpoint()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("no checkpoint at the end: {error}"),
        Err(_) => tracing::warn!(
            "no checkpoint at the end: the archive took more than {} s; the next start reads the log instead",
            SAVE_GRACE.as_secs()
        ),
    }
}

/// The turns that run `hz` times a second.
async fn background(engine: Arc<Engine>) {
    loop {
        let settings = engine.live().settings.clone();
        let interval = Duration::from_millis(1000 / u64::from(settings.hz.max(1)));
        tokio::time::sleep(interval).await;
        // Effort 1 to 10 is 25% to 75% of the interval, as in Redis.
        let share = 25 + 5 * u64::from(settings.active_expire_effort.clamp(1, 10) - 1);
        let budget_us = interval.as_micros() as u64 * share / 100;
        // In small pieces: clients of this thread are served in between.
        let mut left_us = budget_us;
        while left_us > 0 && engine.expire_cycle(left_us.min(EXPIRE_SLICE_US)) > 0 {
            left_us = left_us.saturating_sub(EXPIRE_SLICE_US);
            tokio::task::yield_now().await;
        }
        engine.expire_branches();
        engine.wake_writer();
        engine.run_backups();
        engine.evict_clients();
        engine.forget_listings();
        engine.sample_gauges();
    }
}

/// Ends saves whenever the archive has moved.
async fn follow_archive(engine: Arc<Engine>) {
    let Some(mut progress) = engine.archive().map(|archive| archive.progress()) else { return };
    while progress.changed().await.is_ok() {
        engine.checkpoints_moved();
    }
}

/// Runs what waits for commits whenever there are some.
async fn follow_commits(engine: Arc<Engine>) {
    let mut commits = engine.replicator.commits();
    while commits.changed().await.is_ok() {
        engine.run_committed();
    }
}

fn hex(rng: &mut SeededRng, digits: usize) -> String {
    (0..digits).map(|_| char::from(b"0123456789abcdef"[rng.below(16) as usize])).collect()
}
