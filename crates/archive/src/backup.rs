//! Backups: folders that hold a database as of every revision of a range.
//!
//! A backup is the base as of its newest batch, revision J, and the segments of
//! the log up to the newest revision: with everything from J+1, or from where the
//! past begins that the server keeps. States before J are made from those that
//! the base still has of itself. `BACKUP.json`
//! names every file with its length and SHA-256. Files are stored under their
//! SHA-256, so one that is there already is not copied again, and nothing of
//! an older backup is touched until the new `BACKUP.json` is in its place.
//! `docs/FORMAT.md` has the details.

mod contents;
mod error;
mod make;
mod restore;
mod rotate;
mod sums;
mod verify;

use std::fs::{self, File};
use std::path::Path;

pub use contents::{Contents, FORMAT};
pub use error::{BackupError, Known};
pub use make::{Made, Source, make, make_like};
pub use restore::{Goal, Restored, Wanted, restore};
pub use rotate::{Rotated, newest_ms, rotate};
pub use verify::{Verified, verify};

/// The file that makes a folder a backup.
pub const CONTENTS: &str = "BACKUP.json";

/// What becomes [`CONTENTS`].
const CONTENTS_NEW: &str = "BACKUP.json.new";

/// The folder of the files, each under the SHA-256 of its content.
const FILES: &str = "files";

/// The name under which the log is held while one is made.
pub(crate) const HOLDER: &str = "backup";

/// Locked while a backup is made.
const LOCK: &str = "LOCK";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it is the SHA-256 of something, as [`hex`] writes it.
fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Names in a folder, sorted.
fn names_in(dir: &Path) -> Result<Vec<String>, BackupError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(BackupError::io("list", dir))? {
        let entry = entry.map_err(BackupError::io("list", dir))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes a folder for its owner only.
fn make_private_dir(dir: &Path) -> Result<(), BackupError> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(BackupError::io("create the folder", dir))
}

/// Makes a file that must not exist, for its owner only.
fn create_private(path: &Path) -> Result<File, BackupError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(BackupError::io("create", path))
}

fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    use log::Vfs;
    log::RealVfs.sync_dir(dir).map_err(BackupError::io("sync the folder", dir))
}
