use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use base::{Frame, glob};

use crate::notation;
use crate::script::{Action, Block, Script, Step};
use crate::target::{After, Outcome, Target};

/// What [`run_dir`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Scripts that ran.
    pub files: usize,
    /// Commands and directives in them.
    pub steps: usize,
    /// Scripts left out, because the target's clock is not the test's.
    pub skipped: usize,
}

/// Runs every `*.txt` below `dir`, each against a fresh target.
///
/// With `UPDATE_EXPECT=1` in the environment the expected replies are
/// rewritten to what the target answered, instead of being compared.
///
/// # Panics
/// Where [`try_run_dir`] fails.
pub fn run_dir<T: Target>(
    dir: impl AsRef<Path>,
    make_target: &mut dyn FnMut() -> io::Result<T>,
) -> Summary {
    try_run_dir(dir, make_target).unwrap_or_else(|text| panic!("{text}"))
}

/// As [`run_dir`], for callers that are no test.
///
/// # Errors
/// When a reply is not the expected one, with every difference in the text;
/// when a script cannot be read, a target fails, or no script ran.
pub fn try_run_dir<T: Target>(
    dir: impl AsRef<Path>,
    make_target: &mut dyn FnMut() -> io::Result<T>,
) -> Result<Summary, String> {
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1");
    let dir = dir.as_ref();
    let mut files = Vec::new();
    collect(dir, &mut files).map_err(|error| format!("{}: {error}", dir.display()))?;
    files.sort();
    let mut summary = Summary::default();
    let mut failures = String::new();
    for path in &files {
        let mut target = make_target()
            .map_err(|error| format!("{}: cannot make a target: {error}", path.display()))?;
        match run_file(path, &mut target, update) {
            Ok(Some(steps)) => {
                summary.files += 1;
                summary.steps += steps;
            }
            Ok(None) => summary.skipped += 1,
            Err(text) => failures.push_str(&text),
        }
    }
    if !failures.is_empty() {
        return Err(format!(
            "golden scripts differ (UPDATE_EXPECT=1 rewrites them; commit only what you understand):\n{failures}"
        ));
    }
    if summary.files == 0 {
        return Err(format!("no script ran below {}", dir.display()));
    }
    Ok(summary)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            files.push(path);
        }
    }
    Ok(())
}

/// Runs one file; `Ok(None)` when it needs a clock that the target lacks.
fn run_file(path: &Path, target: &mut dyn Target, update: bool) -> Result<Option<usize>, String> {
    let located = |what: String| format!("{}: {what}\n", path.display());
    let text = fs::read_to_string(path).map_err(|error| located(error.to_string()))?;
    let script = Script::parse(&text).map_err(|error| located(error.to_string()))?;
    if script.needs_manual_clock() && !target.has_manual_clock() {
        return Ok(None);
    }
    let (seen, differences) = run_script(&script, target);
    let steps = seen.blocks.iter().filter(|block| matches!(block, Block::Step(_))).count();
    let failed = differences.iter().any(|difference| difference.is_failure);
    if update && !failed {
        let seen = seen.to_text();
        if seen != text {
            fs::write(path, seen).map_err(|error| located(error.to_string()))?;
        }
        return Ok(Some(steps));
    }
    if differences.is_empty() {
        return Ok(Some(steps));
    }
    let mut out = String::new();
    for difference in differences.iter().filter(|found| found.is_failure || !update) {
        let _ = write!(out, "{}:{}", path.display(), difference.text);
    }
    Err(out)
}

/// What was not as a script said.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The line, the step and both versions, for a person.
    pub text: String,
    /// The target failed or a demand was not met: an update cannot cure it.
    pub is_failure: bool,
}

/// Runs a script; returns it with the replies that came, and the differences
/// to those it expected. Stops where the target fails.
pub fn run_script(script: &Script, target: &mut dyn Target) -> (Script, Vec<Difference>) {
    let mut seen = script.clone();
    let mut differences = Vec::new();
    for block in &mut seen.blocks {
        let Block::Step(step) = block else { continue };
        let actual = match run_step(step, target) {
            Ok(actual) => actual,
            Err(what) => {
                let text = format!("{}: {}\n    {what}\n", step.line, step.source.join("; "));
                differences.push(Difference { text, is_failure: true });
                break;
            }
        };
        if !matches(&step.expected, &actual, step.glob) {
            differences.push(Difference { text: describe(step, &actual), is_failure: false });
            step.expected = actual;
        }
    }
    (seen, differences)
}

/// The lines a step leads to; `Err` when the target fails or a demand is not
/// met.
fn run_step(step: &Step, target: &mut dyn Target) -> Result<Vec<String>, String> {
    let failed = |error: io::Error| error.to_string();
    let demand = |met: bool, what: &str| if met { Ok(Vec::new()) } else { Err(what.to_owned()) };
    match &step.action {
        Action::Command { client, args } => {
            let mut outcome = target.exec(client, args).map_err(failed)?;
            if step.wait && outcome.after == After::Blocked {
                outcome.replies.push(target.next(client).map_err(failed)?);
                outcome.after = After::Open;
            }
            Ok(outcome_lines(outcome, step.sort))
        }
        Action::Await(client) => {
            let frame = target.next(client).map_err(failed)?;
            Ok(reply_lines(frame, step.sort))
        }
        Action::Blocked(client) => {
            demand(target.is_blocked(client).map_err(failed)?, "the client does not wait")
        }
        Action::Quiet(client) => {
            demand(target.is_quiet(client).map_err(failed)?, "something has come for the client")
        }
        Action::Advance(ms) => target.advance_ms(*ms).map(|()| Vec::new()).map_err(failed),
    }
}

fn outcome_lines(outcome: Outcome, sort: bool) -> Vec<String> {
    let mut lines: Vec<String> =
        outcome.replies.into_iter().flat_map(|frame| reply_lines(frame, sort)).collect();
    match outcome.after {
        After::Open if lines.is_empty() => lines.push("(no reply)".to_owned()),
        After::Open => {}
        After::Blocked => lines.push("(blocked)".to_owned()),
        After::Closed => lines.push("(closed)".to_owned()),
    }
    lines
}

fn reply_lines(frame: Frame, sort: bool) -> Vec<String> {
    notation::lines(&if sort { notation::sorted(frame) } else { frame })
}

fn matches(expected: &[String], actual: &[String], as_globs: bool) -> bool {
    expected.len() == actual.len()
        && expected.iter().zip(actual).all(|(expected, actual)| {
            expected == actual || as_globs && glob::matches(expected.as_bytes(), actual.as_bytes())
        })
}

fn describe(step: &Step, actual: &[String]) -> String {
    let mut out = format!("{}: {}\n", step.line, step.source.join("; "));
    for (title, lines) in [("expected", step.expected.as_slice()), ("got", actual)] {
        let _ = writeln!(out, "  {title}:");
        for line in lines {
            let _ = writeln!(out, "    {line}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp_dir;

    /// Answers with its arguments; knows a few words.
    struct Echo {
        manual_clock: bool,
        now_ms: u64,
    }

    impl Target for Echo {
        fn exec(&mut self, client: &str, args: &[Vec<u8>]) -> io::Result<Outcome> {
            match args[0].as_slice() {
                b"WAIT" => Ok(Outcome::blocked()),
                b"QUIET" => Ok(Outcome { replies: Vec::new(), after: After::Open }),
                b"QUIT" => Ok(Outcome {
                    replies: vec![Frame::Simple("OK".to_owned())],
                    after: After::Closed,
                }),
                b"NOW" => Ok(Outcome::reply(Frame::Integer(self.now_ms as i64))),
                b"BREAK" => Err(io::Error::other(format!("{client} broke"))),
                _ => Ok(Outcome::reply(Frame::Array(args.iter().map(Frame::bulk).collect()))),
            }
        }

        fn next(&mut self, client: &str) -> io::Result<Frame> {
            Ok(Frame::bulk(client))
        }

        fn is_blocked(&mut self, client: &str) -> io::Result<bool> {
            Ok(client == "waiting")
        }

        fn is_quiet(&mut self, client: &str) -> io::Result<bool> {
            Ok(client == "quiet")
        }

        fn has_manual_clock(&self) -> bool {
            self.manual_clock
        }

        fn advance_ms(&mut self, ms: u64) -> io::Result<()> {
            self.now_ms += ms;
            Ok(())
        }
    }

    fn run(text: &str) -> (String, Vec<Difference>) {
        let script = Script::parse(text).expect("a script");
        let mut target = Echo { manual_clock: true, now_ms: 0 };
        let (seen, differences) = run_script(&script, &mut target);
        (seen.to_text(), differences)
    }

    #[test]
    fn right_scripts_pass() {
        let text = "\
> b a
1) \"b\"
2) \"a\"
!sort
> b a
1) \"a\"
2) \"b\"
!glob
> value-123
1) \"value-*\"
> WAIT
(blocked)
!wait
x> WAIT
\"x\"
> QUIET
(no reply)
> QUIT
OK
(closed)
!await a
\"a\"
!blocked waiting
!quiet quiet
!advance 1500ms
> NOW
(integer) 1500
";
        let (seen, differences) = run(text);
        assert_eq!(seen, text);
        assert!(differences.is_empty(), "{differences:?}");
    }

    #[test]
    fn differences_are_reported_and_written_back() {
        let (seen, differences) = run("# Why.\n> a\n1) \"b\"\n\n> c\n!glob\n> d\n1) \"x*\"\n");
        assert_eq!(seen, "# Why.\n> a\n1) \"a\"\n\n> c\n1) \"c\"\n!glob\n> d\n1) \"d\"\n");
        assert_eq!(differences.len(), 3);
        let expected = "2: > a\n  expected:\n    1) \"b\"\n  got:\n    1) \"a\"\n";
        assert_eq!(differences[0].text, expected);
    }

    #[test]
    fn unmet_demands_stop_the_script() {
        for (text, what) in [
            ("!blocked a\n> a\n", "does not wait"),
            ("!quiet a\n> a\n", "something has come"),
            ("x> BREAK\n> a\n", "x broke"),
        ] {
            let (_, differences) = run(text);
            assert_eq!(differences.len(), 1, "{text}");
            assert!(differences[0].is_failure && differences[0].text.contains(what), "{text}");
        }
    }

    #[test]
    fn files_are_skipped_or_updated() {
        let dir = temp_dir();
        let family = dir.path().join("family");
        fs::create_dir(&family).expect("a folder");
        let timed = family.join("timed.txt");
        fs::write(&timed, "!advance 1s\n> NOW\n").expect("a file");
        fs::write(dir.path().join("plain.txt"), "> a\n1) \"a\"\n").expect("a file");
        let summary = run_dir(dir.path(), &mut || Ok(Echo { manual_clock: false, now_ms: 0 }));
        assert_eq!(summary, Summary { files: 1, steps: 1, skipped: 1 });

        let mut target = Echo { manual_clock: true, now_ms: 0 };
        let error = run_file(&timed, &mut target, false).expect_err("no reply was expected yet");
        assert!(error.contains("timed.txt:2: > NOW"), "{error}");
        let mut target = Echo { manual_clock: true, now_ms: 0 };
        assert_eq!(run_file(&timed, &mut target, true), Ok(Some(2)));
        let updated = fs::read_to_string(&timed).expect("a file");
        assert_eq!(updated, "!advance 1s\n> NOW\n(integer) 1000\n");
    }
}
