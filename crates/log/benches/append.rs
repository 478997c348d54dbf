//! What a record costs: `cargo bench -p alcid-log`.
//!
//! First the way into memory and on to the disk without waiting, by
//! compression; then writers that wait until their record is durable, for
//! which group commit must keep the number of syncs far below that of records.

use std::sync::Arc;
use std::time::Duration;

use alcid_log::{Compression, FsyncPolicy, Log, LogOptions, RealVfs, RecordHeader};
use base::{BranchId, Clock, Revision, SeededRng, SystemClock};
use testkit::temp_dir;

/// As much as `SET key:000000000001 <32 bytes>` leaves.
const EFFECT_BYTES: usize = 54;

/// How long writers that wait go on.
const WAITING: Duration = Duration::from_secs(1);

const HEADER: RecordHeader = RecordHeader { time_ms: 0, db: 0, branch: BranchId::MAIN };

fn main() {
    println!("without waiting, one writer, {EFFECT_BYTES} bytes of effects, everysec");
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd, Compression::Gzip] {
        without_waiting(compression, 2_000_000);
    }
    println!("waiting until durable, always");
    for writers in [1, 16, 256] {
        waiting(writers);
    }
}

fn open(folder: &std::path::Path, options: LogOptions) -> Log {
    let clock = Arc::new(SystemClock);
    let mut rng = SeededRng::new(1);
    Log::open(Arc::new(RealVfs), folder, options, Revision::ZERO, clock, &mut rng, &mut |_| Ok(()))
        .expect("a new log")
        .0
}

fn without_waiting(compression: Compression, records: u64) {
    let folder = temp_dir();
    let options = LogOptions { compression, ..LogOptions::default() };
    let log = open(folder.path(), options);
    let mut effects = [b'x'; EFFECT_BYTES];
    let (started_ns, cpu) = (SystemClock.monotonic_ns(), cpu());
    for record in 0..records {
        effects[..8].copy_from_slice(&record.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        log.append(log.reserve(), HEADER, &effects);
        if record % 1024 == 0 {
            while log.is_congested() {
                std::thread::yield_now();
            }
        }
    }
    log.close().expect("the disk works");
    let ns = (SystemClock.monotonic_ns() - started_ns) / records;
    println!(
        "  {compression:?}: {ns} ns and {} of CPU a record, {:.1} bytes on disk",
        cpu_since(cpu, records),
        log.stats().bytes as f64 / records as f64,
    );
}

fn waiting(writers: usize) {
    let folder = temp_dir();
    let options = LogOptions { fsync: FsyncPolicy::Always, ..LogOptions::default() };
    let log = open(folder.path(), options);
    let (started_ns, cpu) = (SystemClock.monotonic_ns(), cpu());
    let end_ns = started_ns + WAITING.as_nanos() as u64;
    std::thread::scope(|scope| {
        for _ in 0..writers {
            scope.spawn(|| {
                while SystemClock.monotonic_ns() < end_ns {
                    let revision = log.reserve();
                    log.append(revision, HEADER, &[b'x'; EFFECT_BYTES]);
                    log.wait_durable(revision).expect("the disk works");
                }
            });
        }
    });
    let stats = log.stats();
    let ns = (SystemClock.monotonic_ns() - started_ns) / stats.records;
    println!(
        "  {writers} writers: {ns} ns and {} of CPU a record, {:.1} records a sync, last sync {} us",
        cpu_since(cpu, stats.records),
        stats.records as f64 / stats.fsyncs as f64,
        stats.fsync_ns_last / 1000,
    );
}

/// Processor time of this process so far, in Linux's ticks of 10 ms; nothing
/// elsewhere.
fn cpu() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name before the last ")" may hold anything; user and system time are
    // the 12th and 13th field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn cpu_since(before: Option<u64>, records: u64) -> String {
    match (before, cpu()) {
        (Some(before), Some(now)) => format!("{} ns", (now - before) * 10_000_000 / records),
        _ => "an unknown amount".to_owned(),
    }
}
