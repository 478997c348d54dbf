//! The file `MANIFEST`: which database a folder belongs to, and how far its
//! log reached at least.

use std::path::Path;

use base::{Revision, Rng};

use crate::error::LogError;
use crate::format::{DatabaseId, u32_at, u64_at};
use crate::vfs::{Vfs, at};

/// The file in a log's folder that says which database it is of.
pub const NAME: &str = "MANIFEST";
const TEMPORARY: &str = "MANIFEST.new";
const MAGIC: &[u8; 8] = b"ALCIDMAN";
const BYTES: usize = 40;

/// The version of the manifest, which is not that of the segments.
const VERSION: u32 = 1;

/// The id of the database whose log a folder holds; `None` when it holds none.
///
/// # Errors
/// When the file that says so is damaged, of a newer version, or cannot be read.
pub fn database_id(vfs: &dyn Vfs, dir: &Path) -> Result<Option<DatabaseId>, LogError> {
    Ok(Manifest::read(vfs, dir)?.map(|manifest| manifest.id))
}

/// An id that no other database has.
pub fn new_id(rng: &mut dyn Rng) -> DatabaseId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    id[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
    id
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) id: DatabaseId,
    /// First revision of a segment that exists; later ones may too. Without
    /// it a lost newest segment could not be told from one never written.
    pub(crate) newest_segment: Revision,
}

impl Manifest {
    /// Reads the file; `None` when there is none.
    pub(crate) fn read(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Manifest>, LogError> {
        let path = at(dir, NAME);
        if !vfs.exists(&path) {
            return Ok(None);
        }
        let bytes = vfs.read(&path).map_err(LogError::io("read", &path))?;
        let damaged =
            |what: &str| LogError::Damaged { path: path.clone(), offset: 0, what: what.to_owned() };
        if bytes.len() != BYTES || crc32c::crc32c(&bytes[..36]) != u32_at(&bytes, 36) {
            return Err(damaged("its length or checksum is wrong"));
        }
        if &bytes[..8] != MAGIC {
            return Err(damaged("it does not begin as a manifest"));
        }
        let version = u32_at(&bytes, 8);
        if version > VERSION {
            return Err(LogError::NewerFormat { path, found: version, known: VERSION });
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[12..28]);
        Ok(Some(Manifest { id, newest_segment: Revision(u64_at(&bytes, 28)) }))
    }

    /// Replaces the file: new content, sync, rename, sync of the folder.
    pub(crate) fn write(&self, vfs: &dyn Vfs, dir: &Path) -> Result<(), LogError> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.newest_segment.0.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        let temporary = at(dir, TEMPORARY);
        if vfs.exists(&temporary) {
            vfs.remove(&temporary).map_err(LogError::io("remove", &temporary))?;
        }
        let mut file = vfs.create(&temporary).map_err(LogError::io("create", &temporary))?;
        file.append(&bytes).map_err(LogError::io("write", &temporary))?;
        file.sync().map_err(LogError::io("sync", &temporary))?;
        let path = at(dir, NAME);
        vfs.rename(&temporary, &path).map_err(LogError::io("rename", &temporary))?;
        vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))
    }
}
