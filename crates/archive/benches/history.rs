//! What the history costs a write: `cargo bench -p archive --bench history`.
//!
//! Records of one key are noted until some segments are sealed: parsing,
//! hashing, sorting, merging and writing are all in it. Then keys are looked
//! up. At last, keys are read as they were at revisions of the recent past.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use archive::history::{History, LogBlocks, key_hash};
use archive::{Base, Follower, FollowerOptions, Pace, Past, PastOptions};
use base::{BranchId, Clock, Revision, Rng, SeededRng, SystemClock};
use keyspace::EncodingLimits;
use keyspace::effect::Effect;
use log::{Log, LogError, LogOptions, Place, RealVfs, Record, RecordHeader, SegmentInfo};
use testkit::temp_dir;

/// As many as a segment of 64 MiB holds of `SET key:000000000001 <32 bytes>`.
const SEGMENT_RECORDS: u64 = 900_000;
const SEGMENTS: u64 = 4;
const LOOKUPS: u64 = 2000;

/// Segments that are never read.
#[derive(Debug)]
struct NoLog;

impl LogBlocks for NoLog {
    fn segments(&self) -> Vec<SegmentInfo> {
        let (first, last) = (Revision(1), Revision(0));
        vec![SegmentInfo { first, last, bytes: 64, is_sealed: false }]
    }

    fn block(
        &self,
        _: Revision,
        _: u64,
        _: &mut dyn FnMut(&Record<'_>, Place),
    ) -> Result<Option<u64>, LogError> {
        unreachable!("every index has its file")
    }
}

fn main() {
    for (keys, block_records) in [(1, 600), (10_000, 600), (10_000_000, 600), (10_000_000, 1)] {
        let folder = temp_dir();
        measure(folder.path(), keys, block_records);
    }
    for keys in [1000, 100_000] {
        measure_views(keys);
    }
}

/// Reads single keys at random revisions, some in the base's newest batch, some
/// after it, and whole states.
fn measure_views(keys: u64) {
    const RECORDS: u64 = 200_000;
    const READS: u64 = 2000;
    let (log_folder, folder) = (temp_dir(), temp_dir());
    let mut rng = SeededRng::new(1);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (options, base_at) = (LogOptions::default(), Revision::ZERO);
    let dir = log_folder.path();
    let mut replay = |_: Record<'_>| Ok(());
    let vfs = Arc::new(RealVfs);
    let opened = Log::open(vfs, dir, options, base_at, clock.clone(), &mut rng, &mut replay);
    let log = Arc::new(opened.expect("a new log").0);
    let base = Arc::new(Base::open(folder.path(), 1, 64 << 20).expect("opens"));
    base.adopt(log.id()).expect("it is new");
    let limits = EncodingLimits::default();
    let options = PastOptions { databases: 16, limits, is_broken: false };
    let past = Arc::new(Past::open(base.clone(), log.clone(), options).expect("opens"));
    let options = FollowerOptions {
        pace: Pace { idle_ms: u64::MAX, age_ms: u64::MAX, ..Pace::default() },
        databases: 16,
        limits,
        past: Some(past.clone()),
        turn: Box::new(|| {}),
        clock,
        advanced: Box::new(|_, _| {}),
        faulted: Box::new(|fault| assert_eq!(fault, None)),
    };
    let reader = log.reader(Follower::begin(&base, Some(&past)));
    let follower = Follower::start(base, reader, options);
    let name = |number: u64| format!("key:{number:012}");
    let mut there = vec![false; keys as usize];
    for record in 0..RECORDS {
        let number = rng.below(keys);
        let (key, value) = (name(number), record.to_le_bytes().repeat(4));
        let mut effects = Vec::new();
        let existed = Some(std::mem::replace(&mut there[number as usize], true));
        Effect::Key { key: key.as_bytes(), existed }.encode(&mut effects);
        Effect::StrSet { value: &value, deadline: None }.encode(&mut effects);
        let header = RecordHeader { time_ms: record, db: 0, branch: BranchId::MAIN };
        log.append(log.reserve(), header, &effects);
        if record == RECORDS / 2 {
            follower.checkpoint(log.newest()).expect("it follows");
        }
    }
    past.at_time(u64::MAX).expect("all are noted");
    let mut reads = |after: u64, text: &str| {
        let (mut made_ns, mut read_ns) = (0, 0);
        for _ in 0..READS {
            let revision = Revision(after + rng.below(RECORDS / 2));
            let key = name(rng.below(keys));
            let began_ns = cpu_ns();
            let view = past.view_of_keys(BranchId::MAIN, revision).expect("it is kept");
            let made_at_ns = cpu_ns();
            view.take(0, key.as_bytes()).expect("it can be read");
            read_ns += cpu_ns() - made_at_ns;
            made_ns += made_at_ns - began_ns;
        }
        println!(
            "{keys} keys, {text}: {:.1} us of CPU to make a view, {:.1} us to read a key of it",
            made_ns as f64 / READS as f64 / 1000.0,
            read_ns as f64 / READS as f64 / 1000.0
        );
    };
    reads(1, "before the base's batch");
    reads(RECORDS / 2 + 2, "after it");
    let began_ns = cpu_ns();
    past.view(BranchId::MAIN, Revision(RECORDS - 1)).expect("it is kept");
    let ms = (cpu_ns() - began_ns) / 1_000_000;
    println!(
        "{keys} keys: {ms} ms of CPU for a whole state, {} records after its batch",
        RECORDS / 2
    );
}

fn measure(dir: &Path, keys: u64, block_records: u64) {
    let history = History::open(Arc::new(RealVfs), dir, [7; 16], Arc::new(NoLog)).expect("opens");
    let mut rng = SeededRng::new(1);
    let name = |number: u64| format!("key:{number:012}");
    let clock = SystemClock;
    let (mut effects, mut ends) = (Vec::new(), Vec::new());
    let (mut spent_ns, mut slowest_ns) = (0, 0);
    for segment in 0..SEGMENTS {
        // Made outside the measured time.
        effects.clear();
        ends.clear();
        for _ in 0..SEGMENT_RECORDS {
            let key = name(rng.below(keys));
            Effect::Key { key: key.as_bytes(), existed: Some(true) }.encode(&mut effects);
            Effect::StrSet { value: &[b'x'; 32], deadline: None }.encode(&mut effects);
            ends.push(effects.len());
        }
        let began_ns = cpu_ns();
        let first = Revision(1 + segment * SEGMENT_RECORDS);
        let mut begin = 0;
        for (index, &end) in (0..).zip(&ends) {
            let revision = Revision(first.0 + index);
            let header = RecordHeader { time_ms: revision.0 / 500, db: 0, branch: BranchId::MAIN };
            let place = Place {
                segment: first,
                offset: 64 + index / block_records * (36 + block_records * 72),
                index: (index % block_records) as u32,
            };
            let record = Record { revision, header, effects: &effects[begin..end] };
            begin = end;
            if index == 0 {
                let began_ns = clock.monotonic_ns();
                history.note(&record, place).expect("noted");
                slowest_ns = slowest_ns.max(clock.monotonic_ns() - began_ns);
            } else {
                history.note(&record, place).expect("noted");
            }
        }
        spent_ns += cpu_ns() - began_ns;
    }
    let stats = history.stats();
    let sealed = (SEGMENTS - 1) * SEGMENT_RECORDS;
    println!(
        "{keys} keys, {block_records} records a block: {} ns of CPU and {:.2} bytes a record; {:.1} MiB of memory; \
         sealing took {} ms at most",
        spent_ns / (SEGMENTS * SEGMENT_RECORDS),
        stats.file_bytes as f64 / sealed as f64,
        stats.memory_bytes as f64 / f64::from(1 << 20),
        slowest_ns / 1_000_000,
    );
    let began_ns = cpu_ns();
    let mut found = 0;
    for _ in 0..LOOKUPS {
        let hash = key_hash(name(rng.below(keys)).as_bytes());
        let mut records = history.records(hash, Revision::ZERO, Revision(u64::MAX)).take(100);
        let flow = records.try_for_each(|hit| {
            found += u64::from(hit.is_ok());
            if hit.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert_eq!(flow, ControlFlow::Continue(()), "every index can be read");
    }
    let us = (cpu_ns() - began_ns) as f64 / LOOKUPS as f64 / 1000.0;
    println!(
        "  the newest 100 of a key: {us:.1} us of CPU, {:.1} found",
        found as f64 / LOOKUPS as f64
    );
}

/// Processor time of this thread so far, where the system tells (Linux); else
/// the time.
fn cpu_ns() -> u64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    spent.unwrap_or_else(|| SystemClock.monotonic_ns())
}
