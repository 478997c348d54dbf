//! What one batch costs that changes little of a large hash:
//! `cargo bench -p archive --bench elements`.
//!
//! Options: `fields=1000000`, `batches=10`, and `changed=1`, the fields that a
//! batch changes, at random. The hash stands as a whole first, as any did before
//! large collections stood element by element, and then as it does now.

use std::collections::HashMap;
use std::sync::Arc;

use archive::{Base, Follower, FollowerOptions, LargeFrom, Pace};
use base::{BranchId, Clock, Revision, Rng, SeededRng, SystemClock};
use keyspace::EncodingLimits;
use keyspace::effect::Effect;
use log::{FsyncPolicy, Log, LogOptions, RealVfs, Record, RecordHeader};
use testkit::temp_dir;

const WHOLE: LargeFrom = LargeFrom { elements: usize::MAX, bytes: usize::MAX };

fn main() {
    let options: HashMap<String, u64> = std::env::args()
        .filter_map(|arg| {
            let (name, value) = arg.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect();
    let option = |name: &str, usual: u64| options.get(name).copied().unwrap_or(usual);
    let (fields, changed) = (option("fields", 1_000_000), option("changed", 1));
    for (how, large_from) in [("as a whole", WHOLE), ("by element", LargeFrom::default())] {
        measure(how, large_from, fields, changed, option("batches", 10));
    }
}

fn measure(how: &str, large_from: LargeFrom, fields: u64, changed: u64, batches: u64) {
    let (log_folder, folder) = (temp_dir(), temp_dir());
    let mut rng = SeededRng::new(1);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut replay = |_: Record<'_>| Ok(());
    let options = LogOptions { fsync: FsyncPolicy::No, ..LogOptions::default() };
    let (vfs, dir) = (Arc::new(RealVfs), log_folder.path());
    let opened = Log::open(vfs, dir, options, Revision::ZERO, clock.clone(), &mut rng, &mut replay);
    let log = opened.expect("a new log").0;
    let base = Base::open(folder.path(), 1, 64 << 20).expect("opens");
    let base = Arc::new(base.with_large_from(large_from));
    let options = FollowerOptions {
        pace: Pace {
            log_bytes: u64::MAX,
            memory_bytes: usize::MAX,
            idle_ms: u64::MAX,
            age_ms: u64::MAX,
        },
        databases: 16,
        limits: EncodingLimits::default(),
        past: None,
        turn: Box::new(|| {}),
        clock: clock.clone(),
        advanced: Box::new(|_, _| {}),
        faulted: Box::new(|fault| assert_eq!(fault, None)),
    };
    let follower = Follower::start(base.clone(), log.reader(Revision(1)), options);
    let append = |existed: bool, change: &mut dyn FnMut(&mut Vec<u8>)| {
        let mut effects = Vec::new();
        Effect::Key { key: b"hash", existed: Some(existed) }.encode(&mut effects);
        change(&mut effects);
        let header = RecordHeader { time_ms: 1, db: 0, branch: BranchId::MAIN };
        log.append(log.reserve(), header, &effects);
    };
    let set = |effects: &mut Vec<u8>, field: u64, value: u64| {
        let (field, value) = (format!("field:{field:010}"), format!("{value:032x}"));
        let effect = Effect::HashSet { field: field.as_bytes(), value: value.as_bytes() };
        effect.encode(effects);
    };
    append(false, &mut |effects| (0..fields).for_each(|field| set(effects, field, field)));
    follower.checkpoint(log.newest()).expect("it follows");
    // What is done behind a batch is done before the next.
    append(true, &mut |effects| set(effects, 0, 1));
    follower.checkpoint(log.newest()).expect("it follows");

    let (bytes, began_ns, cpu) = (base.written_bytes(), clock.monotonic_ns(), cpu_ms());
    for batch in 0..batches {
        append(true, &mut |effects| {
            (0..changed).for_each(|n| set(effects, rng.below(fields), batch * changed + n));
        });
        follower.checkpoint(log.newest()).expect("it follows");
    }
    // So that the last one is compacted too.
    follower.stop();
    let per_batch = |sum: f64| sum / batches as f64;
    println!(
        "{changed} of {fields} fields, {how}: {:.0} bytes, {:.1} ms, {:.1} ms of CPU a batch; {} bytes on disk",
        per_batch((base.written_bytes() - bytes) as f64),
        per_batch((clock.monotonic_ns() - began_ns) as f64 / 1e6),
        per_batch(cpu_ms() - cpu),
        base.disk_bytes(),
    );
}

/// Processor time of the process so far, in milliseconds, where the system
/// tells (Linux); else nothing.
fn cpu_ms() -> f64 {
    let ticks = |text: String| {
        // The name before may hold spaces.
        let rest = text.rsplit_once(')')?.1.to_owned();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    std::fs::read_to_string("/proc/self/stat").ok().and_then(ticks).unwrap_or(0.0) * 10.0
}
