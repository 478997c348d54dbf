//! Opening archive and log: recovery into a keyspace, and `alcid log`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::Base;
use base::{Clock, Revision, Rng};
use clap::Subcommand;
use engine::{Recovered, StandaloneLog};
use log::{DatabaseId, Log, LogError, LogOptions, RealVfs, RecoveryReport};
use settings::Settings;

use crate::forest::Forest;

/// What a start finds on disk.
pub struct Storage {
    /// The state that the log ends with; keys that the archive has come in
    /// when they are asked for.
    pub forest: Forest,
    /// The log.
    pub log: Arc<StandaloneLog>,
    /// The archive's base.
    pub base: Arc<Base>,
    /// The past, if it is kept.
    pub past: Option<Arc<archive::Past>>,
}

/// Opens the archive and the log of `settings`, and replays of the log what
/// the archive does not have.
///
/// # Errors
/// What stands in the way, naming file, offset and the command to run.
pub fn open(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    rng: &mut dyn Rng,
) -> Result<Storage, String> {
    let dir = settings.log_dir();
    let log_error = |error: LogError| format!("open the log: {error}");
    let id = log::database_id(&RealVfs, &dir).map_err(log_error)?;
    let id = id.unwrap_or_else(|| log::new_id(rng));
    let base = Base::open(&settings.archive_dir(), hash_seed(&id), settings.block_cache_bytes)
        .map_err(|error| error.to_string())?;
    let base = Arc::new(base);
    let mut forest = Forest::open(&base, settings)?;
    let archived = base.revision();
    let options = LogOptions {
        fsync: engine::fsync_policy(settings),
        compression: engine::compression(settings),
        segment_bytes_max: settings.log_segment_bytes,
        new_id: Some(id),
        ..LogOptions::default()
    };
    if archived > Revision::ZERO && !dir.join(log::MANIFEST).exists() {
        return Err(format!(
            "there is no log in {}, but the archive in {} has followed one up to revision {archived}: name the \
             log's folder with --aof-path, or bring it back from a copy",
            dir.display(),
            base.dir().display()
        ));
    }
    // A branch that the archive does not know yet is not made by a replay.
    let mut unknown_branch = false;
    let mut replay = |record: log::Record<'_>| {
        unknown_branch |= forest.forks_now(&record);
        if unknown_branch { Ok(()) } else { forest.apply(&record) }
    };
    let (log, report) =
        Log::open(Arc::new(RealVfs), &dir, options, archived, clock, rng, &mut replay)
            .map_err(log_error)?;
    base.adopt(log.id()).map_err(|error| error.to_string())?;
    if let Some(ended) = report.ended_early {
        tracing::warn!(
            "the log ends with revision {ended}, the archive has everything up to {archived}: the log goes on \
             after that. Whatever was written later stood in the log alone: if it was cut or changed by hand, that is \
             lost, and only a backup of the log has it"
        );
    }
    tracing::info!(
        folder = %dir.display(),
        archived = archived.0,
        revisions = report.records,
        bytes = report.bytes,
        segments = report.segments,
        seconds = report.seconds,
        "log replayed up to revision {}",
        report.last
    );
    let recovered = Recovered {
        records: report.records,
        bytes: report.bytes,
        seconds: report.seconds,
        dropped_bytes: report.dropped.as_ref().map_or(0, |dropped| dropped.bytes),
        set_aside: report.set_aside.iter().map(|path| file_name(path)).collect(),
    };
    let log = StandaloneLog::new(log, recovered);
    if unknown_branch {
        let reader = log.log().reader(base.revision().next());
        let limits = engine::encoding_limits(settings);
        archive::catch_up(&base, reader, report.last, settings.databases, limits)
            .map_err(|error| error.to_string())?;
        forest = Forest::open(&base, settings)?;
    }
    forest.finish(report.last);
    let past = crate::past::open(&base, &log, settings, report.ended_early.is_some())?;
    Ok(Storage { forest, log, base, past })
}

/// The seed of the hashes by which a database spreads its keys, if its archive has
/// none yet. Records of the log count keys by shard: an archive that is made anew
/// from the log must spread them as the one before did. Who knows it can make
/// many keys of one bucket, so clients are told neither it nor the id.
fn hash_seed(id: &DatabaseId) -> u64 {
    keyspace::hash_of(0, id)
}

/// `alcid log …`
#[derive(Subcommand)]
pub enum LogCommand {
    /// Read a log whole and say what is wrong with it. Status 1 if anything is.
    Check {
        /// The server's data folder.
        #[arg(long, value_name = "PATH", default_value = "alcid-data")]
        data_dir: PathBuf,
        /// The log's folder, if it is not `log` in the data folder.
        #[arg(long, visible_alias = "log-path", value_name = "PATH")]
        aof_path: Option<PathBuf>,
        /// The revision that the archive has reached: what the log held up to there is not needed. Without it the
        /// log is read from where it begins.
        #[arg(long, value_name = "REVISION")]
        base: Option<u64>,
        /// Cut the log at the damage. What is cut off is kept in copies.
        #[arg(long)]
        repair: bool,
    },
}

/// Runs `alcid log …`.
///
/// # Errors
/// The damage, or why the log cannot be read or mended.
pub fn run(command: &LogCommand) -> Result<(), String> {
    let LogCommand::Check { data_dir, aof_path, base, repair } = command;
    let base = base.map(Revision);
    let dir = aof_path.clone().unwrap_or_else(|| data_dir.join("log"));
    let report = log::check(&RealVfs, &dir, base).map_err(|error| error.to_string())?;
    describe(&report.report);
    let Some(finding) = report.finding else {
        println!(
            "{}",
            if report.report.dropped.is_some() {
                "The rest is whole."
            } else {
                "The log is whole."
            }
        );
        return Ok(());
    };
    if !repair {
        return Err(format!(
            "{}\nThe log is whole up to revision {}. `alcid log check --repair` cuts it there and keeps what it \
             cuts off in copies.",
            finding.error, finding.last_whole
        ));
    }
    let base = match base {
        Some(base) => Some(base),
        None => archived(data_dir)?,
    };
    let (saved, last) = log::repair(&RealVfs, &dir, base).map_err(|error| error.to_string())?;
    for path in saved {
        println!("Kept {}", path.display());
    }
    println!("Cut: the log now ends with revision {last}.");
    Ok(())
}

/// What the archive in a data folder has reached, if there is one: damage in
/// what it holds need not cost what comes after.
fn archived(data_dir: &Path) -> Result<Option<Revision>, String> {
    let dir = data_dir.join("archive");
    if !dir.exists() {
        return Ok(None);
    }
    let base = Base::open(&dir, 0, 1 << 20).map_err(|error| error.to_string())?;
    Ok(Some(base.revision()).filter(|revision| *revision > Revision::ZERO))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn describe(report: &RecoveryReport) {
    println!("{} transactions up to revision {}.", report.records, report.last);
    if report.base > Revision::ZERO {
        println!(
            "They begin with revision {}: a start needs an archive with all before it.",
            report.base.next()
        );
    }
    if report.segments_skipped > 0 {
        println!(
            "Of {} segments before it only the headers were checked.",
            report.segments_skipped
        );
    }
    if let Some(ended) = report.ended_early {
        println!(
            "The log ends with revision {ended}; the next start goes on after revision {}.",
            report.base
        );
    }
    for damage in &report.unneeded {
        println!(
            "{} at byte {} is damaged: {}. The archive has revisions {} to {}, so the next start goes on without them \
             and keeps the file as ….damaged-<n>; the history begins later then.",
            damage.path.display(),
            damage.offset,
            damage.what,
            damage.first,
            damage.last
        );
    }
    if let Some(dropped) = &report.dropped {
        println!(
            "{} bytes at byte {} of {} are no whole transaction ({}); the next start cuts them off.",
            dropped.bytes,
            dropped.offset,
            dropped.path.display(),
            dropped.what
        );
    }
}
