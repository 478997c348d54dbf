//! Rust files: leftovers, `unsafe`, purity, length.

use std::fs;
use std::path::{Path, PathBuf};

use super::Report;
use super::crates::PURE;

/// Above this many lines a file may hold two ideas.
const LINES_MAX: usize = 700;

/// Notes to oneself that do not belong in a finished change; whole words in
/// comments. Spelled in halves so that this list does not find itself.
const NOTES: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];

/// Macros of unfinished code.
const UNFINISHED: &[&str] =
    &[concat!("to", "do!("), concat!("unimple", "mented!("), concat!("db", "g!(")];

const IGNORED_TEST: &str = concat!("#[ig", "nore]");

/// The keyword where it introduces code, not as a word in a sentence.
const UNSAFE: &[&str] = &[
    concat!("uns", "afe {"),
    concat!("uns", "afe fn "),
    concat!("uns", "afe impl"),
    concat!("uns", "afe trait"),
    concat!("uns", "afe extern"),
];

/// What a pure crate's library code does not reach for.
const IMPURE: &[&str] = &["std::fs", "std::net", "std::process", "std::thread::spawn", "tokio::"];

/// Looks through every Rust file below `crates/`.
pub fn check(root: &Path, files: &[PathBuf], report: &mut Report) {
    for path in files {
        if path.extension().is_some_and(|extension| extension == "rs") && path.starts_with("crates")
        {
            match fs::read_to_string(root.join(path)) {
                Ok(text) => check_file(path, &text, report),
                Err(error) => report.problem(path, None, format!("cannot be read: {error}")),
            }
        }
    }
}

fn check_file(path: &Path, text: &str, report: &mut Report) {
    let krate = path.iter().nth(1).map(|name| name.to_string_lossy().into_owned());
    let krate = krate.unwrap_or_default();
    let in_library = path.iter().nth(2).is_some_and(|folder| folder == "src")
        && path.file_stem().is_none_or(|stem| stem != "tests");
    let mut in_tests = false;
    for (index, line) in text.lines().enumerate() {
        let number = Some(index + 1);
        let (code, comment) = split_comment(line);
        in_tests |= code.trim_start().starts_with("#[cfg(test)]");
        if let Some(note) = NOTES.iter().find(|note| has_word(comment, note)) {
            report.problem(path, number, format!("{note}: finish it, or open an issue"));
        }
        if let Some(left) = UNFINISHED.iter().find(|left| code.contains(**left)) {
            report.problem(path, number, format!("{left}…): unfinished code"));
        }
        if code.contains(IGNORED_TEST) {
            report.problem(path, number, "an ignored test says why: #[ignore = \"…\"]");
        }
        if krate != "entry" && UNSAFE.iter().any(|form| code.contains(form)) {
            report.problem(path, number, "unsafe code belongs in the crate entry");
        }
        if PURE.contains(&&*krate)
            && in_library
            && !in_tests
            && let Some(used) = IMPURE.iter().find(|used| code.contains(**used))
        {
            report.problem(path, number, format!("{krate} is pure: no {used}"));
        }
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        report.warn(path, None, format!("{lines} lines: do two ideas share it?"));
    }
}

/// Code and line comment of a line. A `//` inside a string literal (after an
/// odd number of quotes) is code.
fn split_comment(line: &str) -> (&str, &str) {
    for (at, _) in line.match_indices("//") {
        if line[..at].matches('"').count().is_multiple_of(2) {
            return line.split_at(at);
        }
    }
    (line, "")
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(path: &str, text: &str) -> Report {
        let mut report = Report::default();
        check_file(Path::new(path), text, &mut report);
        report
    }

    #[test]
    fn leftovers_are_found() {
        let note = NOTES[0];
        for (path, text, expected) in [
            ("crates/base/src/a.rs", format!("// {note}: later"), 1),
            ("crates/base/src/a.rs", format!("let s = \"// {note}\";"), 0),
            ("crates/base/src/a.rs", format!("{}1)", UNFINISHED[0]), 1),
            ("crates/base/src/a.rs", IGNORED_TEST.to_owned(), 1),
            ("crates/base/src/a.rs", "#[ignore = \"takes an hour\"]".to_owned(), 0),
            ("crates/base/src/a.rs", format!("{} }}", UNSAFE[0]), 1),
            ("crates/entry/src/a.rs", format!("{} }}", UNSAFE[0]), 0),
            ("crates/base/src/a.rs", format!("// {} is a comment", UNSAFE[0]), 0),
            ("crates/base/src/a.rs", "use std::fs;".to_owned(), 1),
            ("crates/base/tests/a.rs", "use std::fs;".to_owned(), 0),
            ("crates/base/src/a.rs", "#[cfg(test)]\nuse std::fs;".to_owned(), 0),
            ("crates/engine/src/a.rs", "use std::fs;".to_owned(), 0),
        ] {
            assert_eq!(report(path, &text).problems.len(), expected, "{path}: {text}");
        }
    }

    #[test]
    fn long_files_get_a_warning() {
        let long = report("crates/base/src/a.rs", &"\n".repeat(LINES_MAX + 1));
        assert_eq!((long.problems.len(), long.warnings.len()), (0, 1));
    }
}
