//! The prompt.

use std::borrow::Cow;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};

use crate::args::CliArgs;
use crate::hints::{self, CommandHint};
use crate::run::{Runner, Stop, Terminal};
use crate::session::{Session, holds_secret};

const HELP: &str = "\
Type a command, such as SET key value. Tab completes, the arrows recall.
help COMMAND   what a command takes and does
clear          clear the screen
exit, quit     leave (Ctrl-D does too)
";

/// Runs the prompt until the user leaves. Its exit status is 0: each error has
/// been seen.
pub(crate) fn run(terminal: &mut Terminal<'_>, args: &CliArgs, commands: &[CommandHint]) -> u8 {
    let session = match Session::connect(args) {
        Ok(session) => session,
        Err(error) => {
            // A server may come up while the user waits at the prompt.
            let _ = writeln!(terminal.err, "ERROR: {error}");
            Session::offline(args)
        }
    };
    let mut runner = Runner::new(session, args, terminal);
    match prompt(&mut runner, commands) {
        Ok(()) => 0,
        Err(stop) => {
            let _ = runner.complain(&format!("ERROR: {stop}"));
            2
        }
    }
}

fn prompt(runner: &mut Runner<'_, '_>, commands: &[CommandHint]) -> Result<(), Stop> {
    let failed = |error: ReadlineError| Stop::Other(format!("read from the terminal: {error}"));
    let config = rustyline::Config::builder().auto_add_history(false).build();
    let mut editor: Editor<Prompter<'_>, FileHistory> =
        Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Prompter { commands }));
    let history = history_file();
    if let Some(path) = &history {
        // There is none before the first session.
        let _ = editor.load_history(path);
    }
    loop {
        runner.show_messages()?;
        let line = match editor.readline(&runner.session.prompt()) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !line.trim().is_empty() && !holds_secret(&line) {
            let _ = editor.add_history_entry(line.trim());
            // Written at once: Ctrl-C in a stream ends the process.
            if let Some(path) = &history {
                let _ = editor.append_history(path);
            }
        }
        match own_command(&line, commands) {
            Own::Exit => return Ok(()),
            Own::Clear => editor.clear_screen().map_err(failed)?,
            Own::Say(text) => runner.say(&text)?,
            Own::No => match runner.show_messages().and_then(|()| runner.line(line.as_bytes())) {
                Ok(_) => {}
                Err(Stop::Output(error)) => return Err(Stop::Output(error)),
                Err(stop) => runner.complain(&format!("ERROR: {stop}"))?,
            },
        }
    }
}

/// What a line means that is not for the server.
#[derive(Debug, PartialEq, Eq)]
enum Own {
    Exit,
    Clear,
    Say(String),
    No,
}

fn own_command(line: &str, commands: &[CommandHint]) -> Own {
    let words: Vec<&str> = line.split_whitespace().collect();
    let Some((first, rest)) = words.split_first() else { return Own::No };
    match (first.to_ascii_lowercase().as_str(), rest) {
        ("exit" | "quit", []) => Own::Exit,
        ("clear", []) => Own::Clear,
        ("help" | "?", []) => Own::Say(HELP.to_owned()),
        ("help" | "?", rest) => {
            let found = hints::describe(commands, rest);
            Own::Say(found.unwrap_or_else(|| format!("no command {}\n", rest.join(" "))))
        }
        _ => Own::No,
    }
}

/// `~/.alcid_history`; none without a home.
fn history_file() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"))?;
    (!home.is_empty()).then(|| PathBuf::from(home).join(".alcid_history"))
}

/// Ties the command table to the line editor.
struct Prompter<'a> {
    commands: &'a [CommandHint],
}

impl Completer for Prompter<'_> {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(hints::complete(self.commands, &line[..pos]))
    }
}

impl Hinter for Prompter<'_> {
    type Hint = ArgumentHint;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<ArgumentHint> {
        (pos == line.len()).then(|| hints::hint(self.commands, line)).flatten().map(ArgumentHint)
    }
}

/// Shown behind the line and never taken over into it: it holds names of
/// arguments, not arguments.
struct ArgumentHint(String);

impl rustyline::hint::Hint for ArgumentHint {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Highlighter for Prompter<'_> {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[90m{hint}\x1b[0m"))
    }
}

impl Validator for Prompter<'_> {}
impl Helper for Prompter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompts_own_commands() {
        let commands = [CommandHint {
            name: "get".to_owned(),
            arguments: "key".to_owned(),
            summary: "Returns it.".to_owned(),
        }];
        assert_eq!(own_command(" Exit ", &commands), Own::Exit);
        assert_eq!(own_command("quit", &commands), Own::Exit);
        assert_eq!(own_command("clear", &commands), Own::Clear);
        assert_eq!(own_command("help", &commands), Own::Say(HELP.to_owned()));
        assert_eq!(
            own_command("help get", &commands),
            Own::Say("GET key\nReturns it.\n".to_owned())
        );
        assert_eq!(own_command("? nope", &commands), Own::Say("no command nope\n".to_owned()));
        for line in ["", "get a", "exit now"] {
            assert_eq!(own_command(line, &commands), Own::No, "{line:?}");
        }
    }
}
