//! kill -9 under load, again and again: under `always` every acknowledged write
//! is there, a transaction is whole or absent, and nothing else is seen.
//!
//! `KILL9_ROUNDS` sets how often (default 6), `KILL9_SEED` the choices.
//! `scripts/kill9.py` does the same for hours and for other programs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{Frame, Rng, SeededRng};
use resp::encode_command;
use testkit::Server;

use crate::ALCID;
use crate::wire::{Came, PATIENCE, Wire, eventually};

const CLIENTS: usize = 6;

/// A number that the environment may set.
pub fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// Writes numbered operations. Every third is a transaction over three keys.
struct Writer {
    name: String,
    /// Operations sent: all before this number.
    sent: u64,
    /// Operations acknowledged: all up to this number.
    acknowledged: u64,
    rng: SeededRng,
}

impl Writer {
    fn commands(&self, n: u64) -> Vec<Vec<String>> {
        let key = |part: &str| format!("{}:{part}", self.name);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let number = n.to_string();
        match n % 3 {
            0 => vec![words(&["RPUSH", &key("list"), &number])],
            1 => vec![words(&["HSET", &key("hash"), &number, "v"])],
            _ => vec![
                words(&["MULTI"]),
                words(&["SET", &key("a"), &number]),
                words(&["RPUSH", &key("pairs"), &number]),
                words(&["SET", &key("b"), &number]),
                words(&["EXEC"]),
            ],
        }
    }

    /// Writes until the server goes away.
    fn run(&mut self, addr: &str, count: &AtomicU64) {
        let Ok(mut wire) = Wire::try_connect(addr) else { return };
        loop {
            let batch = 1 + self.rng.below(8);
            let first = self.sent + 1;
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for n in first..first + batch {
                let commands = self.commands(n);
                commands.iter().for_each(|command| encode_command(&mut bytes, command));
                expected.push((n, commands.len()));
            }
            self.sent += batch;
            if !wire.raw(&bytes) {
                return;
            }
            for (n, replies) in expected {
                for _ in 0..replies {
                    match wire.read(PATIENCE) {
                        Came::Frame(Frame::Error(text)) => panic!("{}: {n}: {text}", self.name),
                        Came::Frame(_) => {}
                        Came::Closed => return,
                        Came::Nothing => panic!("{}: no reply to {n}", self.name),
                    }
                }
                self.acknowledged = n;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Compares what the server holds with what was acknowledged. What is
    /// there stays counted as sent and known.
    fn verify(&mut self, wire: &mut Wire) {
        let key = |part: &str| format!("{}:{part}", self.name);
        let numbers = |frame: Frame| -> Vec<u64> {
            let Frame::Array(items) = frame else { panic!("{frame:?}") };
            let number = |item: &Frame| {
                crate::wire::text_of(item.clone()).parse().expect("only numbers were written")
            };
            items.iter().map(number).collect()
        };
        let list = numbers(wire.call(&["LRANGE", &key("list"), "0", "-1"]));
        let pairs = numbers(wire.call(&["LRANGE", &key("pairs"), "0", "-1"]));
        let fields = numbers(wire.call(&["HKEYS", &key("hash")]));
        // One connection's commands run in order, so what is there is a prefix
        // of them: no hole, no double, nothing that was not sent.
        let mut there = [list.clone(), fields, pairs.clone()].concat();
        there.sort_unstable();
        let newest = there.last().copied().unwrap_or(0);
        assert_eq!(there, (1..=newest).collect::<Vec<_>>(), "{}", self.name);
        assert!(list.is_sorted() && pairs.is_sorted(), "{}: out of order", self.name);
        assert!(newest <= self.sent, "{}: {newest} was never sent", self.name);
        let acknowledged = self.acknowledged;
        assert!(newest >= acknowledged, "{}: {acknowledged} of {newest} lost", self.name);
        let last = pairs.last().map_or("(nil)".to_owned(), u64::to_string);
        for half in ["a", "b"] {
            assert_eq!(wire.text(&["GET", &key(half)]), last, "{}: half a MULTI", self.name);
        }
        // The next round goes on behind what is there.
        self.sent = newest;
        self.acknowledged = newest;
    }
}

#[test]
fn nothing_acknowledged_is_lost() {
    let mut rng = SeededRng::new(from_env("KILL9_SEED", 1));
    let mut server = Server::start(ALCID, &["--aof-fsync", "always"]);
    let mut writers: Vec<Writer> = (0..CLIENTS)
        .map(|number| Writer {
            name: format!("c{number}"),
            sent: 0,
            acknowledged: 0,
            rng: SeededRng::new(rng.next_u64()),
        })
        .collect();
    for round in 0..from_env("KILL9_ROUNDS", 6) {
        let addr = server.addr();
        let count = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let target = rng.below(3000);
        let running: Vec<_> = writers
            .drain(..)
            .map(|mut writer| {
                let (addr, count) = (addr.clone(), count.clone());
                std::thread::spawn(move || {
                    writer.run(&addr, &count);
                    writer
                })
            })
            .collect();
        // A reader never sees half a transaction, load or not.
        let reader = std::thread::spawn({
            let (addr, over) = (addr.clone(), over.clone());
            move || {
                let Ok(mut wire) = Wire::try_connect(&addr) else { return };
                while !over.load(Ordering::Relaxed) && wire.send(&["MGET", "c0:a", "c0:b"]) {
                    let Came::Frame(Frame::Array(halves)) = wire.read(PATIENCE) else { return };
                    assert_eq!(halves[0], halves[1], "half a MULTI is visible");
                }
            }
        });
        eventually("the clients write", || count.load(Ordering::Relaxed) >= target);
        server.kill();
        over.store(true, Ordering::Relaxed);
        reader.join().expect("the reader saw whole transactions");
        writers = running.into_iter().map(|run| run.join().expect("writes")).collect();
        if rng.below(3) == 0 {
            // Killed while it recovers, or soon after.
            server.restart();
            server.kill();
        }
        server.restart();
        let mut wire = Wire::connect(server.addr());
        for writer in &mut writers {
            writer.verify(&mut wire);
        }
        assert!(count.load(Ordering::Relaxed) >= target, "round {round}");
    }
}
