//! The invariant that log, replicas and archive rest on: applying the recorded
//! effects of a transaction to a copy of the state before gives the state
//! after, for every command of the table, whatever the arguments and the state.
//!
//! `EFFECTS_ROUNDS` sets how many rounds run (each with limits and a state of
//! its own) and `EFFECTS_SEED` the first seed; a failure names its seed.

mod harness;
mod syntax;

use base::{DbIndex, Frame};
use command::flags::WRITE;
use command::{Command, DataLimits, Group, Run, table};
use harness::Harness;
use keyspace::EncodingLimits;
use syntax::Generator;

/// Rounds when `EFFECTS_ROUNDS` is not set.
const ROUNDS_DEFAULT: u64 = 40;

/// Transactions of a round.
const STEPS: usize = 1500;

const DATABASES: DbIndex = 2;

fn from_env(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no whole number")),
        Err(_) => default,
    }
}

/// Says what ran when a panic ends the round.
struct Trace {
    seed: u64,
    step: usize,
    last: String,
}

impl Drop for Trace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "EFFECTS_SEED={} EFFECTS_ROUNDS=1 repeats this; step {}: {}",
                self.seed, self.step, self.last
            );
        }
    }
}

fn data_commands() -> impl Iterator<Item = &'static Command> {
    table().all().filter(|command| matches!(command.spec.run, Run::Data(_)))
}

fn show(argv: &[Vec<u8>]) -> String {
    let words = argv.iter().map(|word| format!("\"{}\"", word.escape_ascii()));
    words.collect::<Vec<_>>().join(" ")
}

struct Round {
    harness: Harness,
    generator: Generator,
    commands: Vec<&'static Command>,
    writes: Vec<&'static Command>,
}

impl Round {
    fn new(seed: u64) -> Round {
        let mut generator = Generator::new(seed);
        let mut harness = Harness::with_twin(DATABASES, seed);
        // Small limits make values change their encoding all the time.
        if !seed.is_multiple_of(3) {
            let entries = 1 + generator.below(12);
            let bytes = 4 + generator.below(70);
            harness.limits = EncodingLimits {
                hash_max_listpack_entries: entries,
                hash_max_listpack_value: bytes,
                list_max_listpack_size: [-1, 1, 2, 5, 128][generator.below(5)],
                set_max_intset_entries: entries,
                set_max_listpack_entries: entries,
                set_max_listpack_value: bytes,
                zset_max_listpack_entries: entries,
                zset_max_listpack_value: bytes,
                listpack_lists_and_sets: true,
            };
        }
        harness.data = DataLimits { string_bytes_max: 20_000, ..DataLimits::default() };
        harness.resp3 = seed.is_multiple_of(2);
        let commands: Vec<_> = data_commands().collect();
        let writes = commands.iter().copied().filter(|c| c.flags.has(WRITE)).collect();
        Round { harness, generator, commands, writes }
    }

    fn call(&mut self) -> Vec<Vec<u8>> {
        // Whole databases go seldom, or there would never be much in them.
        loop {
            let from = if self.generator.one_in(4) { &self.commands } else { &self.writes };
            let command = from[self.generator.below(from.len())];
            let clears = ["flush", "remove"].iter().any(|it| command.full_name.starts_with(it));
            if !clears || self.generator.one_in(20) {
                return self.call_of(command);
            }
        }
    }

    fn call_of(&mut self, command: &Command) -> Vec<Vec<u8>> {
        let group = match command.group {
            Group::Generic | Group::Server => "any",
            group => group.name(),
        };
        self.generator.now_ms = self.harness.now_ms;
        self.generator.call(&command.full_name, group, command.spec.syntax)
    }

    /// A command that makes a large value, where random ones make small ones.
    fn fill(&mut self) -> Vec<Vec<u8>> {
        let (name, group, pairs) = [
            ("rpush", "list", false),
            ("sadd", "set", false),
            ("hset", "hash", true),
            ("zadd", "sorted-set", true),
            ("mset", "string", false),
        ][self.generator.below(5)];
        if name == "mset" {
            return vec![b"mset".to_vec(), self.generator.key(group), self.generator.element()];
        }
        let only_numbers = self.generator.one_in(3);
        let mut argv = vec![name.as_bytes().to_vec(), self.generator.key(group)];
        for _ in 0..1 + self.generator.below(300) {
            if pairs && name == "zadd" {
                argv.push(self.generator.below(50).to_string().into_bytes());
            }
            argv.push(if only_numbers {
                self.generator.below(1 << 20).to_string().into_bytes()
            } else {
                self.generator.element()
            });
            if name == "hset" {
                argv.push(self.generator.element());
            }
        }
        argv
    }

    fn step(&mut self, trace: &mut Trace) {
        self.harness.now_ms += self.generator.one_of(&[0, 0, 1, 30, 500, 3_000]);
        if self.generator.one_in(200) {
            self.harness.now_ms += 3_600_000;
        }
        self.harness.db = DbIndex::from(self.generator.one_in(4));
        match self.generator.below(20) {
            0 => {
                trace.last = "the expiry cycle".to_owned();
                self.harness.expire_due();
            }
            1 | 2 => {
                let commands: Vec<_> = (0..1 + self.generator.below(4))
                    .map(|_| (DbIndex::from(self.generator.one_in(3)), self.call()))
                    .collect();
                let shown = commands.iter().map(|(db, argv)| format!("{db}: {}", show(argv)));
                trace.last = format!("together {}", shown.collect::<Vec<_>>().join("; "));
                self.harness.run_together(&commands);
            }
            what => {
                let argv = if what == 3 { self.fill() } else { self.call() };
                trace.last = format!("in {}: {}", self.harness.db, show(&argv));
                let words: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
                let reply = self.harness.run_bytes(&words);
                if let (b"dump", Some(Frame::Bulk(payload))) = (argv[0].as_slice(), reply) {
                    self.generator.keep_payload(payload);
                }
            }
        }
        self.harness.compare_all();
    }
}

#[test]
fn effects_applied_to_the_state_before_give_the_state_after() {
    let first = from_env("EFFECTS_SEED", 1);
    for seed in first..first + from_env("EFFECTS_ROUNDS", ROUNDS_DEFAULT) {
        let mut round = Round::new(seed);
        let mut trace = Trace { seed, step: 0, last: String::new() };
        for step in 0..STEPS {
            trace.step = step;
            round.step(&mut trace);
        }
        trace.last = "the end of time".to_owned();
        round.harness.now_ms += 1 << 40;
        round.harness.expire_both();
    }
}

/// Random calls are worth something only if they reach what they are for: each
/// write command must have changed something, and each read have answered.
#[test]
fn every_command_is_driven_to_success() {
    let mut round = Round::new(3);
    for command in data_commands() {
        let is_write = command.flags.has(WRITE);
        let reached = (0..20_000).any(|_| {
            let fill = round.fill();
            let fill: Vec<&[u8]> = fill.iter().map(Vec::as_slice).collect();
            round.harness.db = 0;
            if round.generator.one_in(100) {
                // Else strings, which replace anything, would be all there is.
                round.harness.line("FLUSHALL");
            }
            round.harness.run_bytes(&fill);
            let argv = round.call_of(command);
            let words: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
            let reply = round.harness.run_bytes(&words);
            if let (b"dump", Some(Frame::Bulk(payload))) = (argv[0].as_slice(), &reply) {
                round.generator.keep_payload(payload.clone());
            }
            let failed =
                matches!(reply, None | Some(Frame::Error(_) | Frame::Null | Frame::NullArray));
            // Blocking commands and deletes answer nothing where there is nothing.
            if is_write { round.harness.changed_by_client() } else { !failed }
        });
        // OBJECT FREQ has no policy that would count.
        assert!(
            reached || command.full_name == "object|freq",
            "{} never did what it is for: look at its arguments in the generator",
            command.full_name
        );
    }
}

#[test]
fn commands_that_write_data_are_data_commands() {
    // Those about the past put and delete whole keys, or change rules; the
    // engine's scripts of the history compare what their records make with the
    // state. Those about branches and tags change no key.
    let is_about_the_past = |name: &str| {
        matches!(
            name,
            "revert"
                | "undelete"
                | "undo"
                | "history.policy|del"
                | "history.policy|set"
                | "history.purge"
        )
    };
    let is_known = |command: &&Command| {
        is_about_the_past(&command.full_name) || command.group == Group::Branches
    };
    let writers = table().all().filter(|command| command.flags.has(WRITE));
    for command in writers.filter(|command| !is_known(command)) {
        assert!(
            matches!(command.spec.run, Run::Data(_)),
            "{} writes outside of the table's handlers, where no test of effects sees it",
            command.full_name
        );
    }
}
