//! WHATIF: what a command would do and answer.
//!
//! The keys that a command names are copied into a keyspace of their own, and
//! the command runs there, by the same handler: the keys as they are, or as they
//! were where the client travels. Meanwhile the locks of the live keys are held, so that what is compared at the end is what was copied at the
//! beginning. Nothing of it leaves: the journal gives numbers and keeps nothing,
//! and the events are only counted.

mod ground;
mod keys;
mod look;
mod numbers;
mod queue;
mod report;
mod simulate;
mod whole;

use base::{Frame, Tape};
use command::branch::read_whatif;
use command::flags::{DENYOOM, WRITE};
use command::{Command, Error, Result, Run};
use smallvec::SmallVec;

use crate::call::{Call, Handler};
use crate::execute::{Outcome, find};
use crate::history::revert::{try_revert, try_undelete};
use crate::history::undo::{asks_for_list, try_undo};
use crate::travel::{check_may_read, is_about_named_keys, not_on_a_view};

pub(crate) use report::{Asked, Report, Version};

pub(crate) const FAMILIES: &[&[(&str, Handler)]] = &[&[("whatif", whatif)]];

/// Keys that are listed without COUNT.
const COUNT_DEFAULT: usize = 100;

/// A command to try, its words whole.
struct Step<'s> {
    command: &'static Command,
    argv: SmallVec<[&'s [u8]; 8]>,
}

/// Whether these words are WHATIF EXEC, which runs at once between MULTI and
/// EXEC.
pub(crate) fn looks_at_queue(command: &Command, argv: &[&[u8]]) -> bool {
    command.full_name == "whatif"
        && argv
            .get(read_whatif(argv).begin)
            .is_some_and(|word| command::args::is_word(word, "exec"))
}

fn whatif(call: &mut Call<'_, '_>) -> Result<Outcome> {
    // The positions are those of all words, so a name stands in front.
    let words: Vec<&[u8]> =
        std::iter::once(&b"whatif"[..]).chain(call.args.iter().copied()).collect();
    let read = read_whatif(&words);
    let asked = Asked { values: read.values, count: read.count.map_or(Ok(COUNT_DEFAULT), count)? };
    let argv = &words[read.begin..];
    if argv.is_empty() {
        return Err(Error::arity(&call.command.full_name));
    }
    let command = find(argv)?;
    if !command.spec.accepts(argv.len()) {
        return Err(Error::arity(&command.full_name));
    }
    check_may_run(call, command, argv)?;
    let step = Step { command, argv: SmallVec::from_slice(argv) };
    match (command.spec.run, command.full_name.as_str()) {
        (Run::Engine, "exec") => queue::try_exec(call, asked),
        (Run::Engine, "revert") => try_revert(call, &argv[1..], asked),
        (Run::Engine, "undelete") => try_undelete(call, &argv[1..], asked),
        (Run::Engine, "undo") if asks_for_list(&argv[1..]) => look::run(call, &step, asked),
        (Run::Engine, "undo") => try_undo(call, &argv[1..], asked),
        (Run::Engine, _) if look::only_looks(command) => look::run(call, &step, asked),
        (Run::Data(_), "del" | "unlink") => simulate::remove(call, &step, asked),
        (Run::Data(_), "remove|match" | "remove|prefix") => whole::remove(call, &step, asked),
        (Run::Data(_), "mset") => simulate::overwrite(call, &step, asked),
        (Run::Data(_), _) if check_may_read(command).is_ok() => simulate::read(call, &step, asked),
        (Run::Data(_), _) if whole::is_about_databases(&step) => whole::run(call, &step, asked),
        (Run::Data(_), _) => simulate::run(call, &[step], asked),
        _ => Err(cannot(command)),
    }
}

/// What would refuse the command itself refuses to try it.
fn check_may_run(call: &Call<'_, '_>, command: &Command, argv: &[&[u8]]) -> Result {
    let (engine, session) = (call.engine, &*call.session);
    let is_possible = match command.spec.run {
        Run::Data(_) => is_about_named_keys(&engine.keyspace, command, argv),
        _ => look::only_looks(command),
    };
    // A view of keys by their names is at hand; all of it would have to be made.
    if session.travel.is_some() && !is_possible {
        let writes = command.flags.has(WRITE) || command.full_name == "exec";
        return Err(not_on_a_view(if writes { command } else { call.command }));
    }
    engine.check_branch(session, command)?;
    if command.flags.has(DENYOOM) && engine.would_be_out_of_memory(call.live) {
        return Err(Error::OUT_OF_MEMORY);
    }
    if command.flags.has(WRITE) {
        engine.replicator.admit_write()?;
    }
    Ok(())
}

fn cannot(command: &Command) -> Error {
    let name = command.full_name.replace('|', " ").to_ascii_uppercase();
    Error::new(format!("ERR cannot be simulated: {name} is not about data alone"))
}

fn count(word: &[u8]) -> Result<usize> {
    let count = command::args::integer(word)?;
    usize::try_from(count).ok().filter(|&count| count > 0).ok_or_else(|| {
        Error::new(format!("ERR COUNT {count} is below 1, the least that can be asked for"))
    })
}

/// A sink for the reply of the command that is tried.
fn sink(call: &Call<'_, '_>) -> Tape {
    Tape::new(call.reply.is_resp3())
}

/// The one reply that a sink took, or the error instead.
fn reply_of(sink: Tape, result: Result) -> Tape {
    match result {
        Ok(()) => sink,
        Err(error) => Tape::from(&Frame::Error(error.text().to_owned())),
    }
}
