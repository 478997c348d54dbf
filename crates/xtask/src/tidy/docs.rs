//! Relative links in Markdown files lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::Report;

/// Checks the links of every Markdown file.
pub fn check(root: &Path, files: &[PathBuf], report: &mut Report) {
    for path in files {
        if path.extension().is_some_and(|extension| extension == "md") {
            match fs::read_to_string(root.join(path)) {
                Ok(text) => check_file(root, path, &text, report),
                Err(error) => report.problem(path, None, format!("cannot be read: {error}")),
            }
        }
    }
}

fn check_file(root: &Path, path: &Path, text: &str, report: &mut Report) {
    for (number, line) in prose(text) {
        for target in links(&line) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = match target.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor)),
                None => (target, None),
            };
            let linked = if file.is_empty() {
                path.to_path_buf()
            } else {
                plain(&path.parent().unwrap_or(Path::new("")).join(file))
            };
            if !root.join(&linked).exists() {
                report.problem(path, Some(number), format!("dead link: {target}"));
                continue;
            }
            let Some(anchor) = anchor else { continue };
            if linked.extension().is_some_and(|extension| extension == "md") {
                let headings = fs::read_to_string(root.join(&linked)).map(|text| slugs(&text));
                if !headings.unwrap_or_default().contains(anchor) {
                    report.problem(path, Some(number), format!("no such heading: {target}"));
                }
            }
        }
    }
}

/// The lines outside fenced code, numbered from 1, without inline code.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((index + 1, line.split('`').step_by(2).collect()));
        }
    }
    lines
}

/// The targets of `[text](target)` and `[text](target "title")` in a line.
fn links(line: &str) -> Vec<&str> {
    line.match_indices("](")
        .filter_map(|(at, _)| {
            let rest = &line[at + 2..];
            let target = &rest[..rest.find(')')?];
            target.split_whitespace().next()
        })
        .collect()
}

/// The anchors of a file's headings, as code hosts derive them.
fn slugs(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with('#') {
            let title = line.trim_start_matches('#').trim();
            let slug: String = title
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            found.insert(slug);
        }
    }
    found
}

/// `a/../b` as `b`, without asking the file system.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read() {
        let line = "See [a](b.md), [c](d.md#e \"t\") and ![f](g.png).";
        assert_eq!(links(line), ["b.md", "d.md#e", "g.png"]);
        let text = "[a](b)\n```\n[c](d)\n```\n`[e](f)` g";
        assert_eq!(prose(text), [(1, "[a](b)".to_owned()), (5, " g".to_owned())]);
    }

    #[test]
    fn anchors_are_derived() {
        let found = slugs("# Commit rules (one trait, `Replicator`)\n## 2. Words");
        let expected = ["2-words", "commit-rules-one-trait-replicator"].map(str::to_owned);
        assert_eq!(found, BTreeSet::from(expected));
    }

    #[test]
    fn dead_links_are_reported() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut report = Report::default();
        let text =
            "# Here\n[a](Cargo.toml) [b](gone.md) [c](https://example.org) [d](#here) [e](#gone)";
        // The file itself need not exist for links to others; for `#here` it
        // is read, so borrow the name of one that has no such heading.
        check_file(root, Path::new("Cargo.toml"), text, &mut report);
        assert_eq!(report.problems, ["Cargo.toml:2: dead link: gone.md"]);
    }
}
