//! SLOWLOG: the last commands that took long.

use std::collections::VecDeque;

use base::number::parse_i64;
use command::flags::SKIP_SLOWLOG;
use command::{Command, Error, Result};
use parking_lot::Mutex;

use crate::call::{Call, Handler, help};
use crate::engine::Live;
use crate::execute::Outcome;
use crate::session::Session;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("slowlog|get", get),
    ("slowlog|help", slowlog_help),
    ("slowlog|len", len),
    ("slowlog|reset", reset),
];

/// Words of a command that are kept, and bytes of a word, as in Redis.
const WORDS_MAX: usize = 32;
const WORD_BYTES_MAX: usize = 128;

/// The last slow commands.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    next_id: i64,
    /// Newest first.
    entries: VecDeque<SlowCommand>,
}

#[derive(Clone, Debug)]
struct SlowCommand {
    id: i64,
    time_s: u64,
    us: u64,
    words: Vec<Vec<u8>>,
    addr: String,
    name: String,
}

impl SlowLog {
    /// Keeps a command that took `ns` nanoseconds.
    #[cold]
    pub(crate) fn record(
        &self,
        session: &Session,
        live: &Live,
        command: &Command,
        argv: &[&[u8]],
        ns: u64,
        now_ms: u64,
    ) {
        if command.flags.has(SKIP_SLOWLOG) {
            return;
        }
        let mut kept = self.kept.lock();
        let id = kept.next_id;
        kept.next_id += 1;
        kept.entries.push_front(SlowCommand {
            id,
            time_s: now_ms / 1000,
            us: ns / 1000,
            words: shortened(&without_secrets(command, argv)),
            addr: session.client.addr.clone(),
            name: session.client.identity.lock().name.clone(),
        });
        let max = usize::try_from(live.settings.slowlog_max_len).unwrap_or(usize::MAX);
        kept.entries.truncate(max);
    }
}

/// A command's words, with passwords and the names that go with them hidden.
fn without_secrets<'a>(command: &Command, argv: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let is_auth = |word: &&[u8]| word.eq_ignore_ascii_case(b"auth");
    let secrets = match command.full_name.as_str() {
        "auth" => 1..argv.len(),
        "hello" => {
            let first = argv.iter().skip(1).position(is_auth).map_or(argv.len(), |at| at + 2);
            first..(first + 2).min(argv.len())
        }
        _ => 0..0,
    };
    let mut words = argv.to_vec();
    words[secrets].fill(b"(redacted)");
    words
}

/// A command's words as the slow log keeps them: what is too much is counted.
fn shortened(argv: &[&[u8]]) -> Vec<Vec<u8>> {
    let shown = if argv.len() > WORDS_MAX { WORDS_MAX - 1 } else { argv.len() };
    let mut words: Vec<Vec<u8>> = argv[..shown]
        .iter()
        .map(|word| match word.len().checked_sub(WORD_BYTES_MAX) {
            None | Some(0) => word.to_vec(),
            Some(more) => {
                let mut short = word[..WORD_BYTES_MAX].to_vec();
                short.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
                short
            }
        })
        .collect();
    if shown < argv.len() {
        words.push(format!("... ({} more arguments)", argv.len() - shown).into_bytes());
    }
    words
}

fn get(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let count = match call.args {
        [] => 10,
        [count] => {
            let count = parse_i64(count)
                .filter(|&count| count >= -1)
                .ok_or_else(|| Error::new("ERR count should be greater than or equal to -1"))?;
            usize::try_from(count).unwrap_or(usize::MAX)
        }
        _ => return Err(Error::arity("slowlog|get")),
    };
    let entries: Vec<SlowCommand> =
        call.engine.slowlog.kept.lock().entries.iter().take(count).cloned().collect();
    call.reply.array(entries.len());
    for entry in entries {
        call.reply.array(6);
        call.reply.integer(entry.id);
        call.reply.integer(entry.time_s as i64);
        call.reply.integer(entry.us as i64);
        call.reply.array(entry.words.len());
        entry.words.iter().for_each(|word| call.reply.bulk(word));
        call.reply.bulk(entry.addr.as_bytes());
        call.reply.bulk(entry.name.as_bytes());
    }
    Ok(Outcome::Done)
}

fn len(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.reply.count(call.engine.slowlog.kept.lock().entries.len());
    Ok(Outcome::Done)
}

fn reset(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.engine.slowlog.kept.lock().entries.clear();
    call.reply.ok();
    Ok(Outcome::Done)
}

fn slowlog_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
            "    Entries are made of:",
            "    id, timestamp, time in microseconds, arguments array, client IP and port,",
            "    client name",
            "LEN",
            "    Return the length of the slowlog.",
            "RESET",
            "    Reset the slowlog.",
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        for (line, kept) in [
            ("AUTH secret", "AUTH (redacted)"),
            ("auth user secret", "auth (redacted) (redacted)"),
            ("HELLO 3 AUTH user secret SETNAME n", "HELLO 3 AUTH (redacted) (redacted) SETNAME n"),
            ("HELLO 3 SETNAME auth", "HELLO 3 SETNAME auth"),
            ("HELLO", "HELLO"),
            ("GET auth", "GET auth"),
        ] {
            let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let command = crate::execute::find(&argv).expect("a command");
            let words = without_secrets(command, &argv).join(&b" "[..]);
            assert_eq!(String::from_utf8_lossy(&words), kept);
        }
    }

    #[test]
    fn long_commands_are_counted_not_kept() {
        let long = vec![b'x'; 130];
        let words = shortened(&[b"SET", &long]);
        assert_eq!(words[0], b"SET");
        assert!(words[1].ends_with(b"x... (2 more bytes)"));
        let many = vec![b"a".as_slice(); 33];
        let words = shortened(&many);
        assert_eq!(words.len(), 32);
        assert_eq!(words[31], b"... (2 more arguments)");
        assert_eq!(shortened(&many[..32]).len(), 32);
    }
}
