//! Taste that can be checked is a test, not a review comment.
//!
//! Every check reads files and adds what it finds to a [`Report`]. A problem
//! fails the run; a warning asks for a second look.

mod crates;
mod docs;
mod generated;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs every check over the checkout at `root` and prints what it found.
pub fn run(root: &Path) -> ExitCode {
    let mut report = Report::default();
    let files = files_below(root);
    crates::check(root, &mut report);
    sources::check(root, &files, &mut report);
    docs::check(root, &files, &mut report);
    generated::check(root, &files, &mut report);
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    for problem in &report.problems {
        println!("error: {problem}");
    }
    println!(
        "tidy: {} files, {} problems, {} warnings",
        files.len(),
        report.problems.len(),
        report.warnings.len()
    );
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the checks found.
#[derive(Debug, Default)]
pub struct Report {
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Report {
    /// Something that must be changed. `line` counts from 1.
    fn problem(&mut self, path: &Path, line: Option<usize>, text: impl AsRef<str>) {
        self.problems.push(located(path, line, text.as_ref()));
    }

    /// Something worth a second look.
    fn warn(&mut self, path: &Path, line: Option<usize>, text: impl AsRef<str>) {
        self.warnings.push(located(path, line, text.as_ref()));
    }
}

fn located(path: &Path, line: Option<usize>, text: &str) -> String {
    match line {
        Some(line) => format!("{}:{line}: {text}", path.display()),
        None => format!("{}: {text}", path.display()),
    }
}

/// Every file of the checkout, relative to `root`, sorted; without build
/// output and hidden folders other than `.ci` and `.cargo`.
fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = folder.join(&*name);
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
                if !hidden && name != "target" && name != "node_modules" {
                    open.push(path);
                }
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
