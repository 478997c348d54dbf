//! `alcid backup verify`: reads every file again.

use std::collections::BTreeSet;
use std::path::Path;

use super::{BackupError, Contents, FILES, digest, names_in};

/// What reading a whole backup found.
#[derive(Debug)]
pub struct Verified {
    /// What it should hold.
    pub contents: Contents,
    /// What is wrong, a sentence per file.
    pub problems: Vec<String>,
    /// Files that it does not name: left by a backup that was interrupted. The
    /// next one removes them.
    pub unnamed: usize,
}

/// Reads every file of a backup and compares it with what `BACKUP.json` says.
///
/// # Errors
/// When there is no backup, or `BACKUP.json` itself is damaged.
pub fn verify(dir: &Path) -> Result<Verified, BackupError> {
    let contents = Contents::read(dir)?;
    let mut problems = Vec::new();
    let mut named = BTreeSet::new();
    for file in &contents.files {
        named.insert(file.sha256.as_str());
        let path = file.stored_in(dir);
        let (place, stored) = (&file.path, path.display());
        // One byte more than it should have tells that it has grown.
        match digest(&path, file.bytes.saturating_add(1), &mut |_| Ok(())) {
            Err(error) => problems.push(format!("{place}: {error}")),
            Ok((bytes, _)) if bytes < file.bytes => {
                problems.push(format!("{place}: {stored} has {bytes} bytes, not {}", file.bytes));
            }
            Ok((bytes, _)) if bytes > file.bytes => {
                problems.push(format!("{place}: {stored} has more than its {} bytes", file.bytes));
            }
            Ok((_, sha256)) if sha256 != file.sha256 => {
                problems.push(format!("{place}: the content of {stored} has SHA-256 {sha256}"));
            }
            Ok(_) => {}
        }
    }
    let there = names_in(&dir.join(FILES)).unwrap_or_default();
    let unnamed = there.iter().filter(|name| !named.contains(name.as_str())).count();
    Ok(Verified { contents, problems, unnamed })
}
