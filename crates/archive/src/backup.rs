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
mod verify;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

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

/// Bytes read or written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Reads a file, hands its bytes on and answers their number and SHA-256. No
/// more than `limit` bytes are read.
fn digest(
    path: &Path,
    limit: u64,
    each: &mut dyn FnMut(&[u8]) -> Result<(), BackupError>,
) -> Result<(u64, String), BackupError> {
    let mut file = File::open(path).map_err(BackupError::io("read", path))?.take(limit);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        match file.read(&mut chunk).map_err(BackupError::io("read", path))? {
            0 => return Ok((bytes, hex(&hash.finalize()))),
            count => {
                hash.update(&chunk[..count]);
                each(&chunk[..count])?;
                bytes += count as u64;
            }
        }
    }
}

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
