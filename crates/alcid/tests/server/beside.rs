//! What makes many keys what they were, beside others who empty databases, let them
//! change places and remove keys: what is written can be replayed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{Clock, Frame, Rng, SeededRng, SystemClock};
use testkit::Server;

use crate::ALCID;
use crate::kill9::from_env;
use crate::undo::{ALWAYS, digest, ok};
use crate::wire::Wire;

const BRANCHES: [&str; 2] = ["main", "dev"];

/// Few, so that all meet.
const KEYS: u64 = 12;

fn on(server: &Server, branch: &str) -> Wire {
    let mut wire = Wire::connect(server.addr());
    ok(&mut wire, &["BRANCH", "USE", branch]);
    wire
}

/// Runs a line, for which others may leave nothing to do; whether it did it.
fn try_line(wire: &mut Wire, line: &str) -> bool {
    let answer = wire.call(&line.split(' ').collect::<Vec<_>>());
    if let Frame::Error(text) = &answer {
        let is_sound = !["MISCONF", "COMPACTED", "ERR the archive", "ERR keys stand"]
            .iter()
            .any(|start| text.starts_with(start));
        assert!(is_sound, "{line}: {text}");
    }
    !matches!(answer, Frame::Error(_))
}

/// A change of one key.
fn write(rng: &mut SeededRng) -> String {
    let (key, other) = (rng.below(KEYS), rng.below(KEYS));
    match rng.below(10) {
        0..3 => format!("SET p:{key} {other}"),
        3 => format!("SET p:{key} {other} EX 10000"),
        4..6 => format!("DEL p:{key} p:{other}"),
        6 => format!("RENAME p:{key} p:{other}"),
        7 => format!("COPY p:{key} p:{other} DB 1 REPLACE"),
        8 => format!("HSET h:{key} f{other} {key}"),
        _ => format!("RPUSH l:{key} {other}"),
    }
}

/// A change of a database, now and then.
fn write_all(rng: &mut SeededRng) -> &'static str {
    ["FLUSHDB", "FLUSHALL", "SWAPDB 0 1", "FLUSHDB", "REMOVE PREFIX p:1"][rng.below(5) as usize]
}

fn keep_writing(wire: &mut Wire, rng: &mut SeededRng, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        try_line(wire, &format!("SELECT {}", rng.below(2)));
        let is_one = rng.below(5) == 0;
        if is_one {
            try_line(wire, "MULTI");
        }
        (0..8).for_each(|_| _ = try_line(wire, &write(rng)));
        if rng.below(3) == 0 {
            try_line(wire, write_all(rng));
            try_line(wire, &write(rng));
        }
        if is_one {
            try_line(wire, "EXEC");
        }
    }
}

/// Commands that prepare what they write beside everybody else.
fn go_back(rng: &mut SeededRng, from: u64, upto: u64) -> String {
    // Mostly to the first state, which is not what the newest one happens to be.
    let to = [from, from, from + rng.below(upto - from + 1)][rng.below(3) as usize];
    match rng.below(9) {
        0 | 1 => format!("REVERT ALL TO r:{to}"),
        2 => format!("REVERT PREFIX p: TO r:{to}"),
        3 => format!("BRANCH RESET dev TO r:{to}"),
        4 => "BRANCH MERGE dev INTO main ON CONFLICT THEIRS".to_owned(),
        5 => "BRANCH MERGE main INTO dev ON CONFLICT OURS".to_owned(),
        6 => format!("UNDO COUNT {}", 1 + rng.below(2)),
        7 => format!("UNDELETE p:{}", rng.below(KEYS)),
        _ => "REMOVE PREFIX p:".to_owned(),
    }
}

/// The last revision that a connection has written, if any.
fn last(wire: &mut Wire) -> Option<u64> {
    wire.text(&["LASTREV"]).parse().ok()
}

fn digests(server: &Server) -> Vec<String> {
    BRANCHES.iter().map(|branch| digest(&mut on(server, branch))).collect()
}

/// `BESIDE_SECONDS` sets how long (default 3), `BESIDE_SEED` the choices.
#[test]
fn what_is_written_beside_flushes_can_be_replayed() {
    let (seed, seconds) = (from_env("BESIDE_SEED", 1), from_env("BESIDE_SECONDS", 3));
    let mut server = Server::start(ALCID, ALWAYS);
    let mut wire = Wire::connect(server.addr());
    for key in 0..KEYS / 2 {
        ok(&mut wire, &["SET", &format!("p:{key}"), "first"]);
        ok(&mut wire, &["RPUSH", &format!("l:{key}"), "first"]);
    }
    ok(&mut wire, &["BRANCH", "CREATE", "dev"]);
    let from = last(&mut wire).expect("it has written");
    let is_over = AtomicBool::new(false);
    let counts: Vec<u64> = std::thread::scope(|scope| {
        for writer in 0..5 {
            let (server, is_over) = (&server, &is_over);
            scope.spawn(move || {
                let mut rng = SeededRng::new(seed * 100 + writer);
                let mut wire = on(server, BRANCHES[writer as usize % 2]);
                keep_writing(&mut wire, &mut rng, is_over);
            });
        }
        let others: Vec<_> = (0..2)
            .map(|other| {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || {
                    let mut rng = SeededRng::new(seed * 100 + 50 + other);
                    let mut wire = on(server, BRANCHES[other as usize]);
                    let mut count = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let upto = last(&mut wire).map_or(from, |last| last.max(from));
                        let line = go_back(&mut rng, from, upto);
                        count += u64::from(try_line(&mut wire, &line));
                    }
                    count
                })
            })
            .collect();
        let end_ns = SystemClock.monotonic_ns() + Duration::from_secs(seconds).as_nanos() as u64;
        while SystemClock.monotonic_ns() < end_ns && !others.iter().any(|other| other.is_finished())
        {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        is_over.store(true, Ordering::Relaxed);
        others.into_iter().map(|other| other.join().expect("they go on")).collect()
    });
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
    // The archive has applied every record.
    ok(&mut wire, &["SAVE"]);
    let before = digests(&server);
    for _ in 0..2 {
        server.kill();
        server.restart();
        assert_eq!(digests(&server), before, "seed {seed}");
    }
}
