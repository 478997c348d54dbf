//! Files that name a revision: from where on the past can be read, and up to
//! where it was erased as clients wanted. See `docs/FORMAT.md`.
//!
//! The first is written before anything older goes. Without it, or when it does
//! not read well, the past begins with what the base has now.

use std::path::Path;

use base::Revision;
use log::Vfs;

use crate::history::HistoryError;

/// A file of the kind.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) name: &'static str,
    temporary: &'static str,
    magic: &'static [u8; 8],
}

/// The oldest revision whose state can be read.
pub(super) const HORIZON: Mark =
    Mark { name: "HORIZON", temporary: "HORIZON.new", magic: b"ALCIDHZN" };

/// The newest purge that is done.
pub(super) const PURGED: Mark =
    Mark { name: "PURGED", temporary: "PURGED.new", magic: b"ALCIDPRG" };

const VERSION: u32 = 1;
const BYTES: usize = 40;

fn encode(mark: &Mark, database: [u8; 16], horizon: Revision) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(mark.magic);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&database);
    bytes.extend_from_slice(&horizon.0.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The revision in a folder, if there is one of this database.
pub(super) fn read(mark: &Mark, vfs: &dyn Vfs, dir: &Path, database: [u8; 16]) -> Option<Revision> {
    let path = dir.join(mark.name);
    if !vfs.exists(&path) {
        return None;
    }
    let found = vfs.read(&path).ok().and_then(|bytes| decode(mark, &bytes));
    if found.is_none() {
        tracing::warn!("{} cannot be read; it counts as missing", path.display());
    }
    // Another database's is of no interest: the base has nothing then.
    found.filter(|(of, _)| *of == database).map(|(_, horizon)| horizon)
}

fn decode(mark: &Mark, bytes: &[u8]) -> Option<([u8; 16], Revision)> {
    let database = bytes.get(12..28)?.try_into().ok()?;
    let horizon = Revision(u64::from_le_bytes(bytes.get(28..36)?.try_into().ok()?));
    (bytes == encode(mark, database, horizon)).then_some((database, horizon))
}

/// Puts a revision in its place, durably.
pub(super) fn write(
    mark: &Mark,
    vfs: &dyn Vfs,
    dir: &Path,
    database: [u8; 16],
    horizon: Revision,
) -> Result<(), HistoryError> {
    let (path, temporary) = (dir.join(mark.name), dir.join(mark.temporary));
    if vfs.exists(&temporary) {
        vfs.remove(&temporary).map_err(HistoryError::io("remove", &temporary))?;
    }
    let mut file = vfs.create(&temporary).map_err(HistoryError::io("create", &temporary))?;
    let bytes = encode(mark, database, horizon);
    file.append(&bytes).map_err(HistoryError::io("write", &temporary))?;
    file.sync().map_err(HistoryError::io("sync", &temporary))?;
    drop(file);
    vfs.rename(&temporary, &path).map_err(HistoryError::io("rename", &temporary))?;
    vfs.sync_dir(dir).map_err(HistoryError::io("sync the folder", dir))
}

/// Takes the file away, durably.
pub(super) fn remove(mark: &Mark, vfs: &dyn Vfs, dir: &Path) -> Result<(), HistoryError> {
    let mut is_changed = false;
    for path in [dir.join(mark.name), dir.join(mark.temporary)] {
        if vfs.exists(&path) {
            vfs.remove(&path).map_err(HistoryError::io("remove", &path))?;
            is_changed = true;
        }
    }
    let sync = || vfs.sync_dir(dir).map_err(HistoryError::io("sync the folder", dir));
    if is_changed { sync() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use log::MemVfs;

    use super::*;

    #[test]
    fn what_is_not_whole_or_ours_is_not_believed() {
        let (vfs, dir) = (MemVfs::new(), Path::new("/history"));
        vfs.create_dir_all(dir).expect("memory");
        assert_eq!(read(&HORIZON, &vfs, dir, [1; 16]), None);
        for revision in [7, 300] {
            write(&HORIZON, &vfs, dir, [1; 16], Revision(revision)).expect("memory");
            assert_eq!(read(&HORIZON, &vfs, dir, [1; 16]), Some(Revision(revision)));
        }
        assert_eq!(read(&HORIZON, &vfs, dir, [2; 16]), None);
        let whole = vfs.read(&dir.join(HORIZON.name)).expect("there");
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 8);
            vfs.write(&dir.join(HORIZON.name), bytes);
            assert_eq!(read(&HORIZON, &vfs, dir, [1; 16]), None, "byte {place}");
            vfs.write(&dir.join(HORIZON.name), whole[..place].to_vec());
            assert_eq!(read(&HORIZON, &vfs, dir, [1; 16]), None, "{place} bytes");
        }
        remove(&HORIZON, &vfs, dir).expect("memory");
        assert_eq!(vfs.list(dir).expect("memory"), Vec::<String>::new());
    }
}
