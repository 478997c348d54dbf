use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::vfs::{Vfs, VfsFile, VfsLock, VfsRead};

/// Files in memory. Clones share them, as processes share a disk.
#[derive(Clone, Debug, Default)]
pub struct MemVfs {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<PathBuf, Arc<Mutex<Vec<u8>>>>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
}

impl MemVfs {
    /// An empty disk.
    #[must_use]
    pub fn new() -> MemVfs {
        MemVfs::default()
    }

    /// A disk with these files; their folders exist.
    #[must_use]
    pub fn with_files(files: BTreeMap<PathBuf, Vec<u8>>) -> MemVfs {
        let vfs = MemVfs::new();
        for (path, bytes) in files {
            vfs.write(&path, bytes);
        }
        vfs
    }

    /// Every file with its content.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let disk = self.disk.lock();
        disk.files.iter().map(|(path, bytes)| (path.clone(), bytes.lock().clone())).collect()
    }

    /// A copy that shares nothing, locks released.
    #[must_use]
    pub fn snapshot(&self) -> MemVfs {
        MemVfs::with_files(self.files())
    }

    /// Makes a file have this content, as damage or an operator would.
    pub fn write(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.disk.lock();
        if let Some(parent) = path.parent() {
            disk.dirs.extend(parent.ancestors().map(Path::to_path_buf));
        }
        disk.files.insert(path.to_path_buf(), Arc::new(Mutex::new(bytes)));
    }

    fn file(&self, path: &Path) -> io::Result<Arc<Mutex<Vec<u8>>>> {
        let disk = self.disk.lock();
        disk.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Debug)]
struct MemFile(Arc<Mutex<Vec<u8>>>);

#[derive(Debug)]
struct MemLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl VfsLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

impl Vfs for MemVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.lock().dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        if !disk.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = disk.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let disk = self.disk.lock();
        disk.files.contains_key(path) || disk.dirs.contains(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.file(path)?.lock().clone())
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.open_read(path)?.read_at(offset, len)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsRead>> {
        Ok(Box::new(MemFile(self.file(path)?)))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(self.file(path)?.lock().len() as u64)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut disk = self.disk.lock();
        if !path.parent().is_some_and(|parent| disk.dirs.contains(parent)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if disk.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = Arc::new(Mutex::new(Vec::new()));
        disk.files.insert(path.to_path_buf(), bytes.clone());
        Ok(Box::new(MemFile(bytes)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(MemFile(self.file(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let file = disk.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.disk.lock().files.remove(path);
        removed.map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        let mut disk = self.disk.lock();
        if !disk.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemLock { disk: self.disk.clone(), path: path.to_path_buf() }))
    }

    fn check_owner(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl VfsRead for MemFile {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.0.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[start..start.saturating_add(len).min(bytes.len())].to_vec())
    }
}

impl VfsFile for MemFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn again(&self) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(MemFile(self.0.clone())))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.lock().truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }
}
