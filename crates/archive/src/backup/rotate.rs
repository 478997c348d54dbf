//! Backups in a row: each in a folder of its own, named after its time, and no
//! more of them than are wanted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base::Clock;
use base::when::{When, utc};

use super::make::{Made, Source, make_like, place};
use super::verify::verify;
use super::{
    BackupError, CONTENTS, Contents, FILES, LOCK, hex, make_private_dir, names_in, sync_dir,
};

/// Begins the name of a backup that is being made; that of its database and its
/// time follow.
const UNFINISHED: &str = "new-";

/// What became of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The new backup.
    pub made: Made,
    /// Its folder.
    pub dir: PathBuf,
    /// Backups that there are now.
    pub kept: usize,
    /// Old ones that were removed.
    pub removed: usize,
}

/// Makes a backup in a new folder in `row`, reads all of it again, and removes
/// the oldest ones beyond `keep` of this database. What it has in common with
/// the one before is stored once.
///
/// # Errors
/// As [`make_like`], or when what was written does not read as it should. The
/// older backups are what they were then.
pub fn rotate(
    source: &Source<'_>,
    row: &Path,
    keep: usize,
    clock: &dyn Clock,
) -> Result<Rotated, BackupError> {
    let row = &place(source, row)?;
    if !row.exists() {
        make_private_dir(row)?;
    }
    let (database, name) = (hex(&source.log.id()), name_of(clock.now_ms()));
    // Of another database's somebody else may be in the middle.
    for left in names_in(row)?.iter().filter(|name| is_unfinished(name, &database)) {
        if let Err(error) = remove(&row.join(left)) {
            tracing::warn!("{error}; the next backup tries again");
        }
    }
    let mut older: Vec<PathBuf> =
        backups(row, &database)?.into_iter().map(|(_, dir)| dir).collect();
    let unfinished = row.join(format!("{UNFINISHED}{database}-{name}"));
    let dir = row.join(name);
    let made = make_in(source, &unfinished, older.last().map(PathBuf::as_path), clock);
    let placed = made.and_then(|made| {
        fs::rename(&unfinished, &dir).map_err(BackupError::io("rename", &unfinished))?;
        sync_dir(row)?;
        Ok(made)
    });
    if placed.is_err() {
        // If this fails too, the next one tries again.
        let _ = remove(&unfinished);
    }
    let made = placed?;
    older.push(dir.clone());
    let surplus = older.len().saturating_sub(keep.max(1));
    let mut removed = 0;
    for old in &older[..surplus] {
        match remove(old) {
            Ok(()) => removed += 1,
            Err(error) => tracing::warn!("{error}; the next backup tries again"),
        }
    }
    Ok(Rotated { made, dir, kept: older.len() - removed, removed })
}

/// Makes a backup that reads as it should.
fn make_in(
    source: &Source<'_>,
    dir: &Path,
    like: Option<&Path>,
    clock: &dyn Clock,
) -> Result<Made, BackupError> {
    let made = make_like(source, dir, like, clock);
    match made.and_then(|made| check(dir).map(|()| made)) {
        // The one before may be damaged: then nothing is taken from it.
        Err(error) if like.is_some() => {
            tracing::warn!("{error}; once more without the backup before");
            remove(dir)?;
            let made = make_like(source, dir, None, clock)?;
            check(dir).map(|()| made)
        }
        made => made,
    }
}

fn check(dir: &Path) -> Result<(), BackupError> {
    let problems = verify(dir)?.problems;
    if problems.is_empty() {
        return Ok(());
    }
    Err(BackupError::Unsound { dir: dir.to_owned(), problems: problems.join("; ") })
}

/// The time of the newest backup of a database in a row, in milliseconds since
/// 1970.
#[must_use]
pub fn newest_ms(row: &Path, database: [u8; 16]) -> Option<u64> {
    backups(row, &hex(&database)).ok()?.last().map(|(time_ms, _)| *time_ms)
}

/// The backups of a database in a row, oldest first, each with its time.
fn backups(row: &Path, database: &str) -> Result<Vec<(u64, PathBuf)>, BackupError> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for name in names_in(row)? {
        let Some(time_ms) = time_of(&name) else { continue };
        let dir = row.join(name);
        if Contents::read(&dir).is_ok_and(|contents| contents.database == database) {
            found.push((time_ms, dir));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes a backup and nothing else: what it does not know stays, and the
/// folder with it.
fn remove(dir: &Path) -> Result<(), BackupError> {
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    };
    // First: without it the rest is no backup.
    let contents = dir.join(CONTENTS);
    gone(fs::remove_file(&contents)).map_err(BackupError::io("remove", contents))?;
    let files = dir.join(FILES);
    gone(fs::remove_dir_all(&files)).map_err(BackupError::io("remove", files))?;
    for name in [LOCK, super::CONTENTS_NEW] {
        let path = dir.join(name);
        gone(fs::remove_file(&path)).map_err(BackupError::io("remove", path))?;
    }
    gone(fs::remove_dir(dir)).map_err(BackupError::io("remove", dir))
}

/// The name of a folder: its time, in letters that every file system takes.
fn name_of(ms: u64) -> String {
    utc(ms).replace(':', "-")
}

/// The time that a name tells, if it is one of ours.
fn time_of(name: &str) -> Option<u64> {
    let (date, time) = name.split_once('T')?;
    match When::parse(&format!("{date}T{}", time.replace('-', ":"))) {
        Some(When::Time(ms)) if name_of(ms) == name => Some(ms),
        _ => None,
    }
}

fn is_unfinished(name: &str, database: &str) -> bool {
    let time = name.strip_prefix(UNFINISHED).and_then(|name| name.strip_prefix(database));
    time.and_then(|time| time_of(time.strip_prefix('-')?)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_time() {
        let name = name_of(1_795_230_720_001);
        assert_eq!(name, "2026-11-21T03-12-00.001Z");
        assert_eq!(time_of(&name), Some(1_795_230_720_001));
        for other in ["Monday", "2026-11-21", "2026-11-21T03-12-00Z", "2026-11-21T03:12:00.001Z"] {
            assert_eq!(time_of(other), None, "{other}");
        }
        assert!(is_unfinished(&format!("new-0a-{name}"), "0a"));
        for other in [format!("new-0b-{name}"), format!("new-{name}"), "new-0a-year".to_owned()] {
            assert!(!is_unfinished(&other, "0a"), "{other}");
        }
    }
}
