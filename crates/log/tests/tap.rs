//! Hearing of records without reading them: each once, in order, in its place,
//! and not before readers may see it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alcid_log::{
    Compression, Concern, Fault, FaultyVfs, FsyncPolicy, Log, LogOptions, MemVfs, Place, Record,
    RecordHeader, Tap, Vfs, VfsFile, VfsLock, VfsRead, Written,
};
use base::{BranchId, Clock, ManualClock, Revision, Rng, SeededRng, SystemClock};
use parking_lot::{Condvar, Mutex};

const DIR: &str = "/data";
const HEADER: RecordHeader = RecordHeader { time_ms: 7, db: 0, branch: BranchId::MAIN };

/// Remembers what it is told. It wants records that begin with `!`.
#[derive(Debug, Default)]
struct Ear {
    begun: Mutex<Option<Revision>>,
    told: Mutex<Vec<(u64, Place, Vec<u8>)>>,
    /// Of each block, its first revision and what was said of it.
    concerns: Mutex<Vec<(u64, Concern)>>,
    epoch: Mutex<u64>,
}

impl Tap for Ear {
    fn concerns(&self, _: &RecordHeader, effects: &[u8]) -> Concern {
        Concern { is_wanted: effects.starts_with(b"!"), epoch: *self.epoch.lock() }
    }

    fn begin(&self, next: Revision) {
        *self.begun.lock() = Some(next);
    }

    fn tell(&self, written: &Written<'_>) {
        self.concerns.lock().push((written.first.0, written.concern));
        let mut told = self.told.lock();
        for (record, place) in written.records() {
            assert_eq!(record.header, HEADER);
            told.push((record.revision.0, place, record.effects.to_vec()));
        }
        assert_eq!(told.last().map(|last| last.0 + 1), Some(written.next().0));
    }
}

impl Ear {
    fn revisions(&self) -> Vec<u64> {
        self.told.lock().iter().map(|(revision, ..)| *revision).collect()
    }
}

fn options() -> LogOptions {
    LogOptions {
        segment_bytes_max: 2000,
        block_bytes_max: 200,
        part_bytes_max: 250,
        ..LogOptions::default()
    }
}

fn open(vfs: impl Vfs + 'static, options: LogOptions) -> (Log, Arc<Ear>) {
    open_at(vfs, options, Arc::new(ManualClock::at_ms(1)))
}

fn open_at(
    vfs: impl Vfs + 'static,
    options: LogOptions,
    clock: Arc<ManualClock>,
) -> (Log, Arc<Ear>) {
    let mut rng = SeededRng::new(7);
    let replay = &mut |_: Record<'_>| Ok(());
    let (log, _) = Log::open_manual(
        Arc::new(vfs),
        Path::new(DIR),
        options,
        Revision::ZERO,
        clock,
        &mut rng,
        replay,
    )
    .expect("a whole log");
    let ear = Arc::new(Ear::default());
    log.attach(ear.clone());
    (log, ear)
}

fn append(log: &Log, effects: &str) {
    log.append(log.reserve(), HEADER, effects.as_bytes());
}

#[test]
fn each_record_once_in_its_place() {
    for (seed, compression) in [(1, Compression::None), (2, Compression::Lz4)] {
        let (log, ear) = open(MemVfs::new(), LogOptions { compression, ..options() });
        assert_eq!(*ear.begun.lock(), Some(Revision(1)));
        let mut rng = SeededRng::new(seed);
        let mut expected = Vec::new();
        for _ in 0..300 {
            // Threads that come in another order than their revisions.
            let mut reserved: Vec<Revision> =
                (0..1 + rng.below(4)).map(|_| log.reserve()).collect();
            let mark = if rng.below(3) == 0 { "!" } else { "" };
            let most = if rng.below(9) == 0 { 600 } else { 60 };
            let pad = "x".repeat(rng.below(most) as usize);
            expected
                .extend(reserved.iter().map(|it| (it.0, format!("{mark}{pad}{it}").into_bytes())));
            while !reserved.is_empty() {
                let nth = rng.below(reserved.len() as u64) as usize;
                let revision = reserved.remove(nth);
                log.append(revision, HEADER, format!("{mark}{pad}{revision}").as_bytes());
            }
            match rng.below(4) {
                0 => drop(log.pump()),
                1 => {}
                _ => log.hurry(),
            }
        }
        log.pump();
        assert!(log.stats().segments > 5, "{:?}", log.stats());
        let told = ear.told.lock();
        let said: Vec<(u64, Vec<u8>)> =
            told.iter().map(|(revision, _, effects)| (*revision, effects.clone())).collect();
        assert_eq!(said, expected);
        for (revision, place, effects) in told.iter() {
            let block = log.read_records(place.segment, place.offset).expect("a block is there");
            let record = block.record(place.index).expect("so many records");
            assert_eq!((record.revision.0, record.effects), (*revision, &effects[..]));
        }
    }
}

/// Kept until it is durable, as what is small is.
#[test]
fn what_is_in_parts_is_told_once_and_whole() {
    for fsync in [FsyncPolicy::Always, FsyncPolicy::No] {
        let (log, ear) = open(MemVfs::new(), LogOptions { fsync, ..options() });
        let large = format!("!{}", "x".repeat(2000));
        for effects in ["a", &large, "b", "c"] {
            append(&log, effects);
            log.hurry();
        }
        log.pump();
        let told = ear.told.lock();
        let said: Vec<(u64, usize)> = told.iter().map(|it| (it.0, it.2.len())).collect();
        assert_eq!(said, [(1, 1), (2, 2001), (3, 1), (4, 1)]);
        let place = told[1].1;
        let block = log.read_records(place.segment, place.offset).expect("its first part");
        assert_eq!(block.record(place.index).expect("one").effects, large.as_bytes());
    }
}

#[test]
fn only_what_somebody_waits_for_is_hurried() {
    let (log, ear) = open(MemVfs::new(), LogOptions::default());
    append(&log, "a");
    log.hurry();
    assert_eq!(ear.revisions(), []);
    append(&log, "!b");
    append(&log, "c");
    log.hurry();
    assert_eq!(ear.revisions(), [1, 2, 3]);
    append(&log, "d");
    log.hurry();
    assert_eq!(ear.revisions(), [1, 2, 3], "what was hurried is done");
    log.pump();
    assert_eq!(ear.revisions(), [1, 2, 3, 4]);
    let said: Vec<bool> = ear.concerns.lock().iter().map(|(_, it)| it.is_wanted).collect();
    assert_eq!(said, [true, false]);
}

#[test]
fn nothing_is_hurried_before_a_sync_that_is_late() {
    let clock = Arc::new(ManualClock::at_ms(1));
    let (log, ear) = open_at(MemVfs::new(), LogOptions::default(), clock.clone());
    append(&log, "!a");
    log.hurry();
    clock.advance_ms(1900);
    append(&log, "!b");
    log.hurry();
    assert_eq!(ear.revisions(), [1, 2]);
    clock.advance_ms(200);
    append(&log, "!c");
    log.hurry();
    assert_eq!(ear.revisions(), [1, 2], "what was written first waits for 2 s");
    log.pump();
    assert_eq!((ear.revisions(), log.durable()), (vec![1, 2, 3], Revision(3)));
    clock.advance_ms(5000);
    append(&log, "!d");
    log.hurry();
    assert_eq!(ear.revisions(), [1, 2, 3, 4]);
}

#[test]
fn what_was_said_first_counts_for_all_of_a_block() {
    let (log, ear) = open(MemVfs::new(), LogOptions::default());
    for epoch in [5, 3, 9] {
        *ear.epoch.lock() = epoch;
        append(&log, "x");
    }
    log.pump();
    assert_eq!(*ear.concerns.lock(), [(1, Concern { is_wanted: false, epoch: 3 })]);
}

#[test]
fn what_is_not_durable_is_not_told_under_always() {
    let always = LogOptions { fsync: FsyncPolicy::Always, ..options() };
    let vfs = FaultyVfs::new();
    let (log, ear) = open(vfs.clone(), always);
    for _ in 0..40 {
        append(&log, "!some bytes to fill segments with");
        log.hurry();
        assert_eq!(ear.told.lock().len() as u64, log.durable().0);
        log.pump();
        assert_eq!(ear.told.lock().len() as u64, log.durable().0);
    }
    assert_eq!(log.durable(), Revision(40));
    // The write is done, the sync after it fails.
    vfs.inject(vfs.operations() + 2, Fault::Eio);
    append(&log, "!lost");
    log.pump();
    assert!(log.fault().is_some());
    assert_eq!(ear.told.lock().len(), 40);
}

#[test]
fn a_full_disk_takes_nothing_away() {
    let vfs = FaultyVfs::new();
    let (log, ear) = open(vfs.clone(), options());
    append(&log, "before");
    log.pump();
    vfs.inject(vfs.operations() + 2, Fault::NoSpace);
    for n in 0..60 {
        append(&log, &format!("!number {n} of those that are too many"));
        log.hurry();
    }
    log.pump();
    assert!(log.fault().is_some());
    assert!(ear.told.lock().len() < 61);
    vfs.make_room();
    log.resume().expect("there is room");
    assert_eq!(ear.revisions(), (1..=61).collect::<Vec<_>>());
}

/// A disk in memory whose syncs wait while its gate is closed.
#[derive(Debug)]
struct Gated {
    disk: MemVfs,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    waiting: usize,
    fails: bool,
}

#[derive(Debug)]
struct GatedFile {
    file: Box<dyn VfsFile>,
    gate: Arc<Gate>,
}

impl Gate {
    fn set(&self, is_closed: bool, fails: bool) {
        let mut state = self.state.lock();
        (state.is_closed, state.fails) = (is_closed, fails);
        self.moved.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.waiting += 1;
        self.moved.notify_all();
        self.moved.wait_while(&mut state, |state| state.is_closed);
        state.waiting -= 1;
        if state.fails { Err(io::Error::other("a bad disk")) } else { Ok(()) }
    }

    fn await_somebody(&self) {
        self.moved.wait_while(&mut self.state.lock(), |state| state.waiting == 0);
    }
}

impl Gated {
    fn gated(&self, file: io::Result<Box<dyn VfsFile>>) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(GatedFile { file: file?, gate: self.gate.clone() }))
    }
}

impl VfsFile for GatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.gate.pass()?;
        self.file.sync()
    }

    fn again(&self) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(GatedFile { file: self.file.again()?, gate: self.gate.clone() }))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

impl Vfs for Gated {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.exists(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.disk.read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.disk.read_at(path, offset, len)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsRead>> {
        self.disk.open_read(path)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.disk.len(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.gated(self.disk.create(path))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        self.gated(self.disk.open_append(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        self.disk.lock(path)
    }

    fn check_owner(&self, dir: &Path) -> io::Result<()> {
        self.disk.check_owner(dir)
    }
}

/// A log with a writer of its own, in whose first sync the gate holds it.
fn open_in_sync() -> (Log, Arc<Ear>, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let vfs = Gated { disk: MemVfs::new(), gate: gate.clone() };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (log, _) = Log::open(
        Arc::new(vfs),
        Path::new(DIR),
        LogOptions::default(),
        Revision::ZERO,
        clock,
        &mut SeededRng::new(7),
        &mut |_| Ok(()),
    )
    .expect("a whole log");
    let ear = Arc::new(Ear::default());
    log.attach(ear.clone());
    append(&log, "first");
    gate.set(true, false);
    log.request_sync();
    gate.await_somebody();
    (log, ear, gate)
}

#[test]
fn what_is_hurried_does_not_wait_for_a_sync() {
    let (log, ear, gate) = open_in_sync();
    assert_eq!((ear.revisions(), log.durable()), (vec![1], Revision::ZERO));
    append(&log, "!second");
    log.hurry();
    assert_eq!((ear.revisions(), log.durable()), (vec![1, 2], Revision::ZERO));
    // Readers who wait are woken though nobody woke them at once.
    let mut reader = log.reader(Revision(2));
    let mut seen = 0;
    let mut each = |record: Record<'_>, _: Place| {
        seen = record.revision.0;
        std::ops::ControlFlow::Continue(())
    };
    assert_eq!(reader.read(Duration::ZERO, &mut each).expect("a whole log"), 1);
    assert_eq!(seen, 2);
    gate.set(false, false);
    log.wait_durable(Revision(1)).expect("a disk that works");
    log.request_sync();
    log.wait_durable(Revision(2)).expect("a disk that works");
    log.close().expect("a disk that works");
}

#[test]
fn a_sync_that_fails_beside_writes_ends_the_log() {
    let (log, ear, gate) = open_in_sync();
    append(&log, "!second");
    log.hurry();
    gate.set(false, true);
    assert!(log.wait_durable(Revision(1)).is_err());
    gate.set(false, false);
    append(&log, "!third");
    log.hurry();
    assert!(log.close().is_err());
    assert_eq!((ear.revisions(), log.durable()), (vec![1, 2], Revision::ZERO));
}
