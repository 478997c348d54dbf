//! `alcid backup verify`: reads every file again.

use std::collections::BTreeSet;
use std::path::Path;

use base::Revision;
use log::LogError;

use super::contents::{Kind, StoredFile};
use super::sums::{Sums, check_segment};
use super::{BackupError, Contents, FILES, names_in};
use crate::base_tree::{CURRENT, TREE};
use crate::manifest;

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

/// Reads every file of a backup and compares it with what `BACKUP.json` says,
/// and with what files say of themselves and each other: what was damaged
/// before it was copied is found as well.
///
/// # Errors
/// When there is no backup, when `BACKUP.json` itself is damaged, or when files
/// are missing because this one was removed meanwhile, or a newer backup has taken
/// its place.
pub fn verify(dir: &Path) -> Result<Verified, BackupError> {
    check(dir, Contents::read(dir)?)
}

fn check(dir: &Path, contents: Contents) -> Result<Verified, BackupError> {
    let mut check = Check { dir, contents: &contents, manifest: None };
    let mut problems = Vec::new();
    for file in &contents.files {
        let problem = check.copied(file).and_then(|sums| check.written(file, &sums));
        problems.extend(problem.err().map(|problem| format!("{}: {problem}", file.path)));
    }
    if !problems.is_empty()
        && let Some(gone) = contents.gone_from(dir)
    {
        return Err(gone);
    }
    let named: BTreeSet<&str> = contents.files.iter().map(|file| file.sha256.as_str()).collect();
    let there = names_in(&dir.join(FILES)).unwrap_or_default();
    let unnamed = there.iter().filter(|name| !named.contains(name.as_str())).count();
    Ok(Verified { contents, problems, unnamed })
}

struct Check<'c> {
    dir: &'c Path,
    contents: &'c Contents,
    /// The place of the tree's manifest and its XXH3-128, once the file is read
    /// that says so. It stands before it.
    manifest: Option<(String, String)>,
}

impl Check<'_> {
    /// Whether a file is the one that was copied.
    fn copied(&self, file: &StoredFile) -> Result<Sums, String> {
        let path = file.stored_in(self.dir);
        let stored = path.display();
        // One byte more than it should have tells that it has grown.
        let sums = Sums::of(&path, file.bytes.saturating_add(1), &mut |_| Ok(()))
            .map_err(|error| error.to_string())?;
        if sums.bytes < file.bytes {
            return Err(format!("{stored} has {} bytes, not {}", sums.bytes, file.bytes));
        }
        if sums.bytes > file.bytes {
            return Err(format!("{stored} has more than its {} bytes", file.bytes));
        }
        if sums.sha256 != file.sha256 {
            return Err(format!("the content of {stored} has SHA-256 {}", sums.sha256));
        }
        Ok(sums)
    }

    /// Whether the file that was copied is the one that was written.
    fn written(&mut self, file: &StoredFile, sums: &Sums) -> Result<(), String> {
        let told = match file.kind() {
            Some(Kind::Segment(first)) => self.segment(file, first),
            Some(Kind::Archive) if file.path == in_tree(CURRENT) => self.current(file),
            _ => {
                let manifest = self.manifest.as_ref().filter(|(place, _)| *place == file.path);
                let expected = file.xxh3.as_ref().or(manifest.map(|(_, xxh3)| xxh3));
                expected.and_then(|expected| sums.unlike_written(expected)).map_or(Ok(()), Err)
            }
        };
        told.map_err(|what| format!("{what}; it was damaged before it was copied"))
    }

    /// Notes which manifest is in force.
    fn current(&mut self, file: &StoredFile) -> Result<(), String> {
        let bytes = std::fs::read(file.stored_in(self.dir)).map_err(|error| error.to_string())?;
        let (name, xxh3) = manifest::named(&bytes)?;
        let place = in_tree(&name);
        if !self.contents.files.iter().any(|file| file.path == place) {
            return Err(format!("it names {place}, which is not in the backup"));
        }
        self.manifest = Some((place, format!("{xxh3:032x}")));
        Ok(())
    }

    /// Reads every record of a segment.
    fn segment(&self, file: &StoredFile, first: Revision) -> Result<(), String> {
        let id = self.contents.id().expect("checked when it was read");
        let stored = file.stored_in(self.dir);
        let last = check_segment(&stored, id, first).map_err(|error| match error {
            LogError::Damaged { offset, what, .. } => {
                format!("{} at byte {offset}: {what}", stored.display())
            }
            error => error.to_string(),
        })?;
        // The next one begins with what follows.
        let begins = self.contents.files.iter().filter_map(|file| match file.kind() {
            Some(Kind::Segment(begins)) if begins > first => Some(begins.0 - 1),
            _ => None,
        });
        let expected = begins.min().map_or(self.contents.newest(), Revision);
        if last != expected {
            return Err(format!("its records end with revision {last}, not {expected}"));
        }
        Ok(())
    }
}

/// The place of a file of the tree.
fn in_tree(name: &str) -> String {
    format!("archive/{TREE}/{name}")
}

#[cfg(test)]
mod tests {
    use base::{SeededRng, SystemClock};
    use testkit::temp_dir;

    use super::*;
    use crate::backup::CONTENTS;
    use crate::backup::restore::{Goal, Wanted, restore_as};

    /// The file that it names is missing, because a newer backup has removed it.
    #[test]
    fn a_backup_that_is_there_no_more_is_not_called_damaged() {
        let folder = temp_dir();
        let dir = folder.path().join("backup");
        std::fs::create_dir(&dir).expect("ours");
        let file = StoredFile {
            path: "log/00000000000000000001.alog".to_owned(),
            bytes: 64,
            sha256: "0".repeat(64),
            xxh3: None,
        };
        let contents = Contents {
            format: 2,
            made_by: "alcid".to_owned(),
            database: "00".repeat(16),
            databases: 16,
            oldest_revision: 0,
            oldest_ms: 0,
            archive_revision: None,
            older_revisions: Vec::new(),
            newest_revision: 7,
            newest_ms: 2,
            newest_time: String::new(),
            files: vec![file],
            checksum: String::new(),
        };
        contents.clone().write(&dir).expect("ours");
        let older = Contents::read(&dir).expect("whole");
        let to = folder.path().join("restored");
        let restored = |contents: Contents| {
            let (wanted, mut rng) = (Wanted::all(Goal::Newest), SeededRng::new(1));
            let restored = restore_as(contents, &dir, &to, &wanted, &SystemClock, &mut rng);
            restored.expect_err("a file is missing").to_string()
        };
        assert_eq!(check(&dir, older.clone()).expect("it can be read").problems.len(), 1);
        let replaced = "a newer backup has taken the place";
        assert!(!restored(older.clone()).contains(replaced), "{}", restored(older));

        Contents { newest_revision: 8, ..contents }.write(&dir).expect("ours");
        let error = check(&dir, older.clone()).expect_err("it is another").to_string();
        assert!(error.contains(replaced), "{error}");
        let error = restored(older.clone());
        assert!(error.contains(replaced), "{error}");

        // As the oldest of a schedule's are.
        std::fs::remove_file(dir.join(CONTENTS)).expect("it is there");
        let removed = "was removed while it was read";
        let error = check(&dir, older.clone()).expect_err("there is none").to_string();
        assert!(error.contains(removed), "{error}");
        let error = restored(older);
        assert!(error.contains(removed), "{error}");
        assert!(!to.exists());
    }
}
