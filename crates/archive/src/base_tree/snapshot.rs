//! The files of a base at one revision, for a backup.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use base::Revision;
use lsm_tree::AbstractTree;

use super::{Base, CURRENT, Frozen, TABLES, TREE, check_manifest, read_directory};
use crate::codec::DIRECTORY;
use crate::directory::Directory;
use crate::error::ArchiveError;

/// The files of a base at one revision. Tables stay where they are as long as
/// this lives, whatever compaction does.
pub(crate) struct Snapshot {
    /// The archive's folder.
    dir: PathBuf,
    /// The state besides the keys.
    pub(crate) directory: Arc<Directory>,
    /// Files that the next batch replaces: name in the archive's folder, and
    /// content.
    pub(crate) small: Vec<(String, Vec<u8>)>,
    /// Files that never change.
    pub(crate) tables: Vec<SnapshotTable>,
    frozen: Frozen,
    /// The tree removes the file of a table when nobody has the table.
    _kept: Box<dyn std::any::Any + Send>,
}

impl Snapshot {
    /// The directory as of the newest batch at or before `at`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn directory_at(&self, at: Revision) -> Result<Directory, ArchiveError> {
        let mut found = None;
        self.frozen.range(&(DIRECTORY..=DIRECTORY), Some(at), &mut |_, value| {
            found = Some(read_directory(&self.dir, value));
            ControlFlow::Break(())
        })?;
        found.unwrap_or_else(|| Ok(Directory::empty(self.directory.seed)))
    }
}

/// A table file.
pub(crate) struct SnapshotTable {
    /// Its name in the archive's folder.
    pub(crate) name: String,
    /// XXH3-128 of its content, as the tree's manifest has it.
    pub(crate) checksum: u128,
}

impl Base {
    /// Its files as of the newest batch, for a backup.
    ///
    /// # Errors
    /// When its manifest cannot be read, or is damaged.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, ArchiveError> {
        let dir = self.dir.join(TREE);
        let _manifest = self.manifest.lock();
        check_manifest(&self.dir)?;
        let version = self.tree.current_version();
        let manifest = format!("v{}", version.id());
        let read = |name: &str| {
            std::fs::read(dir.join(name))
                .map_err(|error| ArchiveError::tree("read", &self.dir)(error.into()))
        };
        let small = vec![
            (format!("{TREE}/{CURRENT}"), read(CURRENT)?),
            (format!("{TREE}/{manifest}"), read(&manifest)?),
        ];
        let tables = version.iter_tables().map(|table| SnapshotTable {
            name: format!("{TREE}/{TABLES}/{}", table.id()),
            checksum: table.checksum().into_u128(),
        });
        Ok(Snapshot {
            dir: self.dir.clone(),
            directory: self.directory(),
            small,
            tables: tables.collect(),
            frozen: self.frozen(),
            _kept: Box::new(version),
        })
    }
}
