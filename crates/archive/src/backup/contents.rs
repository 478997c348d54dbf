//! `BACKUP.json`: what a backup holds.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use base::{DbIndex, Revision};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{BackupError, CONTENTS, CONTENTS_NEW, FILES, create_private, hex, is_sha256, sync_dir};
use crate::base_tree::{CURRENT, TABLES, TREE};

/// The version this code writes, and the newest it reads. In version 1 the
/// oldest state is that of the archive.
pub const FORMAT: u64 = 2;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// [`FORMAT`].
    pub format: u64,
    /// The program that made it.
    pub made_by: String,
    /// The database's name, 32 hexadecimal digits.
    pub database: String,
    /// Databases that it had.
    pub databases: DbIndex,
    /// The oldest state from which on it has every one.
    pub oldest_revision: u64,
    /// When that transaction ran, in milliseconds since 1970.
    pub oldest_ms: u64,
    /// The state that the archive is at; missing if it is the oldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_revision: Option<u64>,
    /// Older states that it has, because branches and tags keep them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub older_revisions: Vec<u64>,
    /// The newest state in it: the last record of the log.
    pub newest_revision: u64,
    /// When that was the newest, in milliseconds since 1970.
    pub newest_ms: u64,
    /// The same for people.
    pub newest_time: String,
    /// Its files.
    pub files: Vec<StoredFile>,
    /// SHA-256 of this file with zeros in this place.
    pub checksum: String,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its place in a data folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Of its content, and its name in the backup.
    pub sha256: String,
    /// What the archive knew of a table's content without reading it:
    /// XXH3-128, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xxh3: Option<String>,
}

/// What a file is, by its place in a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of the archive.
    Archive,
    /// A segment of the log that begins with this revision.
    Segment(Revision),
}

impl StoredFile {
    /// Where it is.
    pub(super) fn stored_in(&self, dir: &Path) -> PathBuf {
        dir.join(FILES).join(&self.sha256)
    }

    /// What it is; `None` when no backup holds such a file.
    pub(super) fn kind(&self) -> Option<Kind> {
        let is_number = |text: &str| {
            !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if let Some(name) = self.path.strip_prefix("log/") {
            let digits = name.strip_suffix(".alog")?;
            let first = digits.parse().ok().filter(|_| digits.len() == 20 && is_number(digits))?;
            return Some(Kind::Segment(Revision(first)));
        }
        let name = self.path.strip_prefix("archive/")?.strip_prefix(TREE)?.strip_prefix('/')?;
        let table = name.strip_prefix(TABLES).and_then(|name| name.strip_prefix('/'));
        let is_ours = name == CURRENT
            || name.strip_prefix('v').is_some_and(is_number)
            || table.is_some_and(is_number);
        is_ours.then_some(Kind::Archive)
    }
}

impl Contents {
    /// Reads and checks the file in a backup's folder.
    ///
    /// # Errors
    /// When there is none, or it is not whole.
    pub fn read(dir: &Path) -> Result<Contents, BackupError> {
        Contents::find(dir)?.ok_or_else(|| BackupError::NoBackup { dir: dir.to_owned() })
    }

    /// What has become of this backup in its folder, if it is there no more:
    /// another one has taken its place, or it was removed.
    pub(super) fn gone_from(&self, dir: &Path) -> Option<BackupError> {
        let dir = dir.to_owned();
        match Contents::find(&dir) {
            Ok(Some(now)) if now != *self => Some(BackupError::Replaced { dir }),
            Ok(None) => Some(BackupError::Removed { dir }),
            _ => None,
        }
    }

    /// As [`Contents::read`]; `None` when there is none.
    pub(super) fn find(dir: &Path) -> Result<Option<Contents>, BackupError> {
        let path = dir.join(CONTENTS);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BackupError::io("read", path)(error)),
        };
        let damaged = |what: &str| BackupError::damaged(&path, what);
        /// What every format has.
        #[derive(Deserialize)]
        struct Head {
            format: u64,
            checksum: String,
        }
        let head: Head = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(&format!("it is no description of a backup: {error}")))?;
        if head.format > FORMAT {
            return Err(BackupError::NewerFormat { path, found: head.format, known: FORMAT });
        }
        if !is_sha256(&head.checksum) || checksum(&bytes, &head.checksum) != Some(head.checksum) {
            return Err(damaged("its checksum does not match"));
        }
        let contents: Contents = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(&format!("it is no description of a backup: {error}")))?;
        for file in &contents.files {
            if !is_sha256(&file.sha256) || file.kind().is_none() {
                return Err(damaged(&format!("{:?} is no file of a backup", file.path)));
            }
        }
        if contents.id().is_none() {
            return Err(damaged("the database's name is malformed"));
        }
        Ok(Some(contents))
    }

    /// Puts it in its place, durably: from then on the folder is this backup.
    pub(super) fn write(mut self, dir: &Path) -> Result<(), BackupError> {
        self.checksum = "0".repeat(64);
        let zeros = serde_json::to_string_pretty(&self).expect("no map with odd keys") + "\n";
        self.checksum = hex(&Sha256::digest(&zeros));
        let text = serde_json::to_string_pretty(&self).expect("no map with odd keys") + "\n";
        let new = dir.join(CONTENTS_NEW);
        let mut file = create_private(&new)?;
        file.write_all(text.as_bytes()).map_err(BackupError::io("write", &new))?;
        file.sync_all().map_err(BackupError::io("sync", &new))?;
        fs::rename(&new, dir.join(CONTENTS)).map_err(BackupError::io("rename", &new))?;
        sync_dir(dir)
    }

    /// The database's name.
    pub(super) fn id(&self) -> Option<[u8; 16]> {
        let mut id = [0; 16];
        if self.database.len() != 32 || !self.database.is_ascii() {
            return None;
        }
        for (byte, at) in id.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&self.database[at..at + 2], 16).ok()?;
        }
        Some(id)
    }

    /// The oldest revision that can be restored.
    #[must_use]
    pub fn oldest(&self) -> Revision {
        Revision(self.oldest_revision)
    }

    /// The state that the archive is at.
    #[must_use]
    pub fn archived(&self) -> Revision {
        Revision(self.archive_revision.unwrap_or(self.oldest_revision))
    }

    /// Whether it has the state of a revision.
    #[must_use]
    pub fn has(&self, revision: Revision) -> bool {
        (self.oldest()..=self.newest()).contains(&revision)
            || self.older_revisions.contains(&revision.0)
    }

    /// The newest.
    #[must_use]
    pub fn newest(&self) -> Revision {
        Revision(self.newest_revision)
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// The SHA-256 of `bytes` with zeros for the checksum in them, which must be
/// there once and last.
fn checksum(bytes: &[u8], checksum: &str) -> Option<String> {
    let field = format!("\"checksum\": \"{checksum}\"\n}}\n");
    let before = bytes.strip_suffix(field.as_bytes())?;
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(field.replace(checksum, &"0".repeat(64)));
    Some(hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use testkit::temp_dir;

    use super::*;

    #[test]
    fn the_first_version_begins_with_its_archive() {
        let folder = temp_dir();
        let contents = Contents {
            format: 1,
            made_by: "alcid".to_owned(),
            database: "00".repeat(16),
            databases: 16,
            oldest_revision: 3,
            oldest_ms: 1,
            archive_revision: None,
            older_revisions: Vec::new(),
            newest_revision: 7,
            newest_ms: 2,
            newest_time: String::new(),
            files: Vec::new(),
            checksum: String::new(),
        };
        contents.clone().write(folder.path()).expect("ours");
        let read = Contents::read(folder.path()).expect("whole");
        assert_eq!((read.format, read.archived(), read.oldest()), (1, Revision(3), Revision(3)));
        assert!(read.has(Revision(7)) && !read.has(Revision(2)));
        let older = Contents { older_revisions: vec![2], archive_revision: Some(5), ..contents };
        assert!(older.has(Revision(2)) && !older.has(Revision(1)));
        assert_eq!(older.archived(), Revision(5));
    }
}
