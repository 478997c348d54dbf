//! The history of a log as it is.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use archive::history::{History, key_hash};
use base::{BranchId, ManualClock, Revision, SeededRng};
use keyspace::effect::Effect;
use log::{Log, LogOptions, MemVfs, RecordHeader, Vfs};

use crate::fake_log::{DATABASE, hits};

/// Each of three keys is changed by every third record; some blocks have many
/// records, some one, and segments are small.
#[test]
fn records_are_found_where_the_log_has_them() {
    const RECORDS: u64 = 400;
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let options = LogOptions { segment_bytes_max: 2000, ..LogOptions::default() };
    let clock = Arc::new(ManualClock::at_ms(1));
    let mut rng = SeededRng::new(1);
    let mut replay = |_: log::Record<'_>| Ok(());
    let (log, _) = Log::open_manual(
        vfs.clone(),
        Path::new("/log"),
        options,
        Revision::ZERO,
        clock,
        &mut rng,
        &mut replay,
    )
    .expect("a new log");
    let log = Arc::new(log);
    let name = |number: u64| format!("key:{}", number % 3);
    for number in 1..=RECORDS {
        let mut effects = Vec::new();
        Effect::Key { key: name(number).as_bytes(), existed: None }.encode(&mut effects);
        Effect::StrAdd { delta: 1 }.encode(&mut effects);
        let header = RecordHeader { time_ms: number * 10, db: 0, branch: BranchId::MAIN };
        log.append(log.reserve(), header, &effects);
        if number % 7 == 0 || number % 5 == 0 {
            log.pump();
        }
    }
    while log.pump() {}
    let open = || History::open(vfs.clone(), Path::new("/history"), DATABASE, log.clone());
    let follow = |history: &History| {
        let mut reader = log.reader(history.noted().next());
        while history.noted() < Revision(RECORDS) {
            let mut each = |record: log::Record<'_>, place| {
                history.note(&record, place).expect("nothing is missing");
                ControlFlow::Continue(())
            };
            reader.read(Duration::ZERO, &mut each).expect("memory does not fail");
        }
    };
    let check = |history: &History| {
        for number in 0..3 {
            let hash = key_hash(name(number).as_bytes());
            let found = hits(history, hash, Revision::ZERO, Revision(u64::MAX));
            let expected: Vec<u64> =
                (1..=RECORDS).rev().filter(|revision| revision % 3 == number).collect();
            let revisions: Vec<u64> = found.iter().map(|hit| hit.revision.0).collect();
            assert_eq!(revisions, expected);
            for hit in found {
                let block = log.read_records(hit.place.segment, hit.place.offset).expect("whole");
                let revision = block.records().find(|(_, place)| *place == hit.place);
                assert_eq!(revision.map(|(record, _)| record.revision), Some(hit.revision));
            }
        }
        for revision in 0..=RECORDS {
            let found = history.at_time(revision * 10 + 5).expect("works");
            assert_eq!(found, Some(Revision(revision)));
        }
        let mut next = Revision(1);
        let mut each = |record: &log::Record<'_>, _| {
            assert_eq!(record.revision, next);
            next = next.next();
            ControlFlow::Continue(())
        };
        history.changes(Revision::ZERO, Revision(u64::MAX), &mut each).expect("works");
        assert_eq!(next, Revision(RECORDS + 1));
    };
    let history = open().expect("a new history");
    follow(&history);
    assert!(history.stats().segments > 3);
    check(&history);
    History::discard(&*vfs, Path::new("/history")).expect("removed");
    let history = open().expect("an empty folder");
    assert!(history.stats().missing > 3);
    follow(&history);
    check(&history);
    assert_eq!(history.stats().missing, 0, "made again from the log");
}
