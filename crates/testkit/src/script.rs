//! The form of a golden script.
//!
//! ```text
//! # Prose: what this scenario shows.
//! > SET greeting "hello\n"
//! OK
//! > GET greeting
//! "hello\n"
//!
//! # Several clients, by name. A waiting command says so.
//! a> BLPOP queue 0
//! (blocked)
//! b> RPUSH queue x
//! (integer) 1
//! !await a
//! 1) "queue"
//! 2) "x"
//! ```
//!
//! * `> COMMAND …` runs a command, quoted as an inline command; `name> …` runs
//!   it on the connection `name`, which is opened when first used.
//! * The lines up to the next blank line, comment, command or directive are
//!   the expected replies, in the form of [`crate::notation`], or `(blocked)`,
//!   `(no reply)`, and `(closed)` when the server closes the connection.
//! * `!sort` before a command: its reply comes in any order.
//! * `!glob` before a command: each expected line is a glob (`*`, `?`, `[…]`).
//!   An update leaves lines alone that match.
//! * `!wait` before a command that may block: its reply is waited for, so a short
//!   timeout gives the same lines on a fast and on a slow machine.
//! * `!await name`: the next reply or pushed message of that client.
//! * `!blocked name`, `!quiet name`: the client waits; nothing has come for it.
//! * `!advance 1500ms`: time passes. Targets with a real clock skip the file.
//! * `!engine-only`: targets with a real clock skip the file.

use base::units::parse_duration_ms;

/// A script: what to do, and the text around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// The file's content in order.
    pub blocks: Vec<Block>,
}

/// A piece of a script.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A comment, a blank line or a file directive, as it stands.
    Text(String),
    /// Something to run and the replies it must get.
    Step(Step),
}

/// One command or directive.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where [`Step::source`] starts, counted from 1.
    pub line: usize,
    /// The lines as they stand, without the expected ones.
    pub source: Vec<String>,
    /// What to do.
    pub action: Action,
    /// Whether the reply comes in any order.
    pub sort: bool,
    /// Whether expected lines are globs.
    pub glob: bool,
    /// Whether the reply of a command that blocks is waited for.
    pub wait: bool,
    /// The expected lines.
    pub expected: Vec<String>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Runs a command.
    Command {
        /// Name of the connection; empty for the unnamed one.
        client: String,
        /// The command's name and arguments.
        args: Vec<Vec<u8>>,
    },
    /// Takes the next reply or pushed message of a client.
    Await(String),
    /// Demands that a client waits.
    Blocked(String),
    /// Demands that nothing has come for a client.
    Quiet(String),
    /// Lets time pass, in milliseconds.
    Advance(u64),
}

/// Why a script cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ScriptError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub what: String,
}

/// Directives that change how the next command is treated.
const MODIFIERS: &[&str] = &["!sort", "!glob", "!wait"];

/// The directive that keeps a script from targets with a real clock.
const ENGINE_ONLY: &str = "!engine-only";

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// When a line is neither prose, a command, a directive nor an expected
    /// reply of a step.
    pub fn parse(text: &str) -> Result<Script, ScriptError> {
        let mut blocks = Vec::new();
        let mut lines = text.lines().enumerate().peekable();
        let mut pending = Pending::default();
        while let Some((index, line)) = lines.next() {
            let fail = |what: String| ScriptError { line: index + 1, what };
            if is_prose(line) || line == ENGINE_ONLY {
                pending.must_be_empty().map_err(fail)?;
                blocks.push(Block::Text(line.to_owned()));
                continue;
            }
            if MODIFIERS.contains(&line) {
                pending.add(index + 1, line);
                continue;
            }
            let action = if let Some(directive) = line.strip_prefix('!') {
                pending.must_be_empty_before(directive).map_err(fail)?;
                parse_directive(directive).map_err(fail)?
            } else if let Some((client, command)) = split_command(line) {
                parse_command(client, command).map_err(fail)?
            } else {
                let advice =
                    format!("\"{line}\" belongs to no command; commands start with \"> \"");
                return Err(fail(advice));
            };
            let mut step = pending.take(index + 1, line, action);
            while let Some((_, line)) = lines.next_if(|(_, line)| is_expected(line)) {
                step.expected.push(line.trim_end().to_owned());
            }
            blocks.push(Block::Step(step));
        }
        let last = text.lines().count();
        pending.must_be_empty().map_err(|what| ScriptError { line: last, what })?;
        Ok(Script { blocks })
    }

    /// Whether the script needs a clock that the test can move.
    #[must_use]
    pub fn needs_manual_clock(&self) -> bool {
        self.blocks.iter().any(|block| match block {
            Block::Text(text) => text == ENGINE_ONLY,
            Block::Step(step) => matches!(step.action, Action::Advance(_)),
        })
    }

    /// The script as text; what [`Script::parse`] reads back.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text);
            out.push('\n');
        };
        for block in &self.blocks {
            match block {
                Block::Text(text) => line(text),
                Block::Step(step) => {
                    step.source.iter().chain(&step.expected).for_each(|text| line(text));
                }
            }
        }
        out
    }
}

/// [`MODIFIERS`] that wait for their command.
#[derive(Default)]
struct Pending {
    line: usize,
    source: Vec<String>,
}

impl Pending {
    fn add(&mut self, line: usize, text: &str) {
        if self.source.is_empty() {
            self.line = line;
        }
        self.source.push(text.to_owned());
    }

    fn must_be_empty(&self) -> Result<(), String> {
        if self.source.is_empty() {
            return Ok(());
        }
        Err(format!("{} must stand directly before a command", self.source.join(" and ")))
    }

    /// Only a directive that yields a reply may follow.
    fn must_be_empty_before(&self, directive: &str) -> Result<(), String> {
        if directive.starts_with("await ") { Ok(()) } else { self.must_be_empty() }
    }

    fn take(&mut self, line: usize, text: &str, action: Action) -> Step {
        let start = if self.source.is_empty() { line } else { self.line };
        let mut source = std::mem::take(&mut self.source);
        let has = |name: &str| source.iter().any(|line| line == name);
        let (sort, glob, wait) = (has("!sort"), has("!glob"), has("!wait"));
        source.push(text.to_owned());
        Step { line: start, source, action, sort, glob, wait, expected: Vec::new() }
    }
}

fn is_prose(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with('#')
}

fn is_expected(line: &str) -> bool {
    !is_prose(line) && !line.starts_with('!') && split_command(line).is_none()
}

/// The client and the command of `> …` and `name> …`. A name starts with a
/// letter, so the `1> ` of a push is none.
fn split_command(line: &str) -> Option<(&str, &str)> {
    let (client, command) = line.split_once("> ")?;
    let is_name = client.is_empty()
        || (client.starts_with(|c: char| c.is_ascii_lowercase())
            && client.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
    is_name.then_some((client, command))
}

fn parse_command(client: &str, command: &str) -> Result<Action, String> {
    match resp::split_args(command.as_bytes()) {
        Some(args) if args.is_empty() => Err("a command is missing after \"> \"".to_owned()),
        Some(args) => Ok(Action::Command { client: client.to_owned(), args }),
        None => Err(format!("unbalanced quotes in: {command}")),
    }
}

fn parse_directive(directive: &str) -> Result<Action, String> {
    const KNOWN: &str = "!sort, !glob, !wait, !await NAME, !blocked NAME, !quiet NAME, !advance DURATION, !engine-only";
    let unknown = || format!("unknown directive \"!{directive}\"; known are {KNOWN}");
    let (name, argument) = directive.split_once(' ').ok_or_else(unknown)?;
    let argument = argument.trim();
    match name {
        "await" => Ok(Action::Await(argument.to_owned())),
        "blocked" => Ok(Action::Blocked(argument.to_owned())),
        "quiet" => Ok(Action::Quiet(argument.to_owned())),
        "advance" => parse_duration_ms(argument, 1)
            .map(Action::Advance)
            .ok_or_else(|| format!("\"{argument}\" is no duration, such as 1500ms or 2s")),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Prose.

> SET k \"a b\"
OK
a> BLPOP q 0
(blocked)
!sort
!glob
> KEYS *
1) \"*\"
!await a
1> \"x\"
2> \"y\"

!advance 1500ms
!blocked a
!quiet a
";

    fn steps(text: &str) -> Vec<Step> {
        let script = Script::parse(text).expect("a script");
        let blocks = script.blocks.into_iter();
        blocks
            .filter_map(|block| if let Block::Step(step) = block { Some(step) } else { None })
            .collect()
    }

    #[test]
    fn every_form_is_read() {
        let steps = steps(TEXT);
        let command = |client: &str, words: &[&str]| Action::Command {
            client: client.to_owned(),
            args: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        };
        let actions: Vec<_> = steps.iter().map(|step| (step.line, step.action.clone())).collect();
        let expected = vec![
            (3, command("", &["SET", "k", "a b"])),
            (5, command("a", &["BLPOP", "q", "0"])),
            (7, command("", &["KEYS", "*"])),
            (11, Action::Await("a".to_owned())),
            (15, Action::Advance(1500)),
            (16, Action::Blocked("a".to_owned())),
            (17, Action::Quiet("a".to_owned())),
        ];
        assert_eq!(actions, expected);
        assert_eq!(steps[0].expected, ["OK"]);
        assert_eq!((steps[2].sort, steps[2].glob), (true, true));
        assert_eq!((steps[3].sort, steps[3].glob), (false, false));
        assert_eq!(steps[3].expected, ["1> \"x\"", "2> \"y\""]);
    }

    #[test]
    fn text_survives() {
        assert_eq!(Script::parse(TEXT).map(|script| script.to_text()), Ok(TEXT.to_owned()));
    }

    #[test]
    fn clocks_are_asked_for() {
        for (text, expected) in
            [("> PING\n", false), ("!advance 1s\n", true), ("!engine-only\n> PING\n", true)]
        {
            let script = Script::parse(text).expect("a script");
            assert_eq!(script.needs_manual_clock(), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_have_a_line_and_an_advice() {
        for (text, line, what) in [
            ("OK\n", 1, "belongs to no command"),
            ("# a\n> GET \"k\n", 2, "unbalanced quotes"),
            ("> \n", 1, "a command is missing"),
            ("!sort\n\n> PING\n", 2, "directly before a command"),
            ("!sort\n!advance 1s\n", 2, "directly before a command"),
            ("> PING\n!glob\n", 2, "directly before a command"),
            ("!sleep 1\n", 1, "unknown directive \"!sleep 1\""),
            ("!await\n", 1, "unknown directive"),
            ("!advance soon\n", 1, "is no duration"),
        ] {
            let error = Script::parse(text).expect_err(text);
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.what.contains(what), "{text:?}: {error}");
        }
    }
}
