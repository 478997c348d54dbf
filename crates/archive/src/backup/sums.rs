//! What a file's bytes add up to, and what files say of themselves.
//!
//! A backup names every file by its SHA-256, which tells what happens to the
//! copy. What was damaged before it was copied only the file itself tells, and
//! who wrote it: the archive knows an XXH3-128 of each table, the tree's
//! `current` one of its manifest, and every block of the log has a checksum.

use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use base::Revision;
use log::{LogError, RealVfs, read_copy};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use super::{BackupError, hex};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// What the bytes of a file add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    /// Their number.
    pub(super) bytes: u64,
    /// 64 hexadecimal digits.
    pub(super) sha256: String,
    /// XXH3-128, 32 hexadecimal digits.
    pub(super) xxh3: String,
}

impl Sums {
    /// Reads a file, no more than `limit` bytes of it, and hands its bytes on.
    pub(super) fn of(
        path: &Path,
        limit: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), BackupError>,
    ) -> Result<Sums, BackupError> {
        let mut file = File::open(path).map_err(BackupError::io("read", path))?.take(limit);
        let (mut sha256, mut xxh3) = (Sha256::new(), Xxh3::new());
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut bytes = 0;
        loop {
            let count = file.read(&mut chunk).map_err(BackupError::io("read", path))?;
            if count == 0 {
                break;
            }
            let read = &chunk[..count];
            sha256.update(read);
            xxh3.update(read);
            each(read)?;
            bytes += count as u64;
        }
        let xxh3 = hex(&xxh3.digest128().to_be_bytes());
        Ok(Sums { bytes, sha256: hex(&sha256.finalize()), xxh3 })
    }

    /// How a table's bytes are not those that the archive wrote; `expected` is
    /// what it says of them.
    pub(super) fn unlike_written(&self, expected: &str) -> Option<String> {
        (self.xxh3 != expected).then(|| {
            format!("its content has XXH3-128 {}, what was written had {expected}", self.xxh3)
        })
    }
}

/// Reads every record of a copy of a segment; answers the last one's revision.
pub(super) fn check_segment(
    copy: &Path,
    id: [u8; 16],
    first: Revision,
) -> Result<Revision, LogError> {
    read_copy(&RealVfs, copy, id, first, &mut |_| ControlFlow::Continue(()))
}
