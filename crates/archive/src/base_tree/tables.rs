//! The tree's table files: which of them is not the one that its name says, and
//! which cannot be read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lsm_tree::{AbstractTree, AnyTree, Error, Table, TableId, UserKey};
use parking_lot::Mutex;

use super::{TABLES, TREE};
use crate::error::ArchiveError;
use crate::table_file::damaged_block;

/// The files in an archive's folder, and what was found out about those that are
/// damaged.
#[derive(Debug)]
pub(super) struct Tables {
    archive: PathBuf,
    dir: PathBuf,
    /// Where the damage is, where that can be told, by the file's number: to look
    /// for it takes reading all of the file.
    damaged: Mutex<BTreeMap<TableId, Option<u64>>>,
}

impl Tables {
    pub(super) fn new(archive: &Path) -> Tables {
        Tables {
            archive: archive.to_owned(),
            dir: archive.join(TREE).join(TABLES),
            damaged: Mutex::default(),
        }
    }

    /// Checks that every file has the table that its name says: each has its number
    /// inside, which the tree does not compare.
    ///
    /// # Errors
    /// How files have changed places.
    pub(super) fn check_names<'t>(
        &self,
        tables: impl Iterator<Item = &'t Table>,
    ) -> Result<(), String> {
        let is_misplaced = |table: &&Table| *table.path != table.path.with_file_name(number(table));
        let misplaced: Vec<String> = tables
            .filter(is_misplaced)
            .map(|table| {
                let name = table.path.file_name().unwrap_or_default();
                let [found, wanted] = [Path::new(name), Path::new(&number(table))]
                    .map(|name| self.dir.join(name).display().to_string());
                format!("{found}: it is what was written as {wanted}")
            })
            .collect();
        match &misplaced[..] {
            [] => Ok(()),
            found => Err(format!("{}; give the files their names back", found.join("; "))),
        }
    }

    /// Why this table could not be read. Damage is told to the server's log, once a
    /// table.
    pub(super) fn unreadable(&self, table: &Table, error: Error) -> ArchiveError {
        let path = self.dir.join(number(table));
        if let Error::Io(source) = error {
            return ArchiveError::Table { path, offset: None, what: source.to_string() };
        }
        let mut damaged = self.damaged.lock();
        let offset = *damaged.entry(table.id()).or_insert_with(|| {
            let offset = damaged_block(&path);
            tracing::error!(
                offset,
                "{} is damaged: {error}; what it holds is answered with errors: restore a backup (`alcid restore`), \
                 or stop the server and move the archive's folder away if the log still begins at revision 1, and it \
                 is made again from it",
                path.display()
            );
            offset
        });
        ArchiveError::Table { path, offset, what: "it is not what was written".to_owned() }
    }

    /// As [`Tables::unreadable`], of whichever of the tree's cannot be read from `from`
    /// on, as long as keys are `wanted`.
    pub(super) fn unreadable_in(
        &self,
        tree: &AnyTree,
        from: &[u8],
        wanted: impl Fn(&[u8]) -> bool,
        error: Error,
    ) -> ArchiveError {
        let version = tree.current_version();
        let fails = |table: &&Table| {
            let entries = table.range(UserKey::from(from)..);
            let mut seen = entries
                .take_while(|entry| !matches!(entry, Ok(entry) if !wanted(&entry.key.user_key)));
            seen.any(|entry| entry.is_err())
        };
        match version.iter_tables().find(fails) {
            Some(table) => self.unreadable(table, error),
            None => ArchiveError::tree("read", &self.archive)(error),
        }
    }
}

/// The name of a table's file.
fn number(table: &Table) -> String {
    table.id().to_string()
}
