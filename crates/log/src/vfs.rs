use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What the log needs of a file system.
///
/// The contract is what file systems really promise (RELIABILITY 4): bytes and
/// lengths survive a power cut only once [`VfsFile::sync`] has returned, names
/// only once [`Vfs::sync_dir`] has; until then any part of them may be there.
pub trait Vfs: fmt::Debug + Send + Sync {
    /// Creates a folder and its parents; new ones are for their owner only.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Names in a folder, sorted.
    ///
    /// # Errors
    /// When it is no folder or cannot be read.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Whether a file or folder of this name exists.
    fn exists(&self, path: &Path) -> bool;

    /// The whole content of a file.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Up to `len` bytes of a file from `offset` on; fewer at its end.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Opens a file to be read in several places, while others append to it.
    /// Whatever becomes of its name, it stays the same file.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsRead>>;

    /// A file's length in bytes.
    ///
    /// # Errors
    /// When it is missing.
    fn len(&self, path: &Path) -> io::Result<u64>;

    /// Creates a file that must not exist, to append to; for its owner only.
    ///
    /// # Errors
    /// When it exists or cannot be created.
    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Opens a file that exists, to append to.
    ///
    /// # Errors
    /// When it is missing or cannot be written.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;

    /// Gives a file another name, replacing what has it.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it is missing or may not be removed.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file against every other process until the lock is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when somebody holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>>;

    /// Checks that the folder belongs to the user this process runs as.
    ///
    /// # Errors
    /// `PermissionDenied` when it does not.
    fn check_owner(&self, dir: &Path) -> io::Result<()>;
}

/// A file open for appending.
pub trait VfsFile: fmt::Debug + Send {
    /// Appends all bytes. After an error any part of them may be in the file.
    ///
    /// # Errors
    /// As the system says.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes content and length durable. After an error nothing is known, and
    /// asking again proves nothing: systems report a lost write once.
    ///
    /// # Errors
    /// As the system says.
    fn sync(&mut self) -> io::Result<()>;

    /// Another handle of the file: a thread may sync by it what this one has
    /// appended, while this one goes on.
    ///
    /// # Errors
    /// As the system says.
    fn again(&self) -> io::Result<Box<dyn VfsFile>>;

    /// Cuts the file to a length.
    ///
    /// # Errors
    /// As the system says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// A file open for reading.
pub trait VfsRead: fmt::Debug + Send + Sync {
    /// As [`Vfs::read_at`].
    ///
    /// # Errors
    /// As the system says.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// As [`VfsRead::read_at`], into memory that is there; answers how many bytes
    /// there were.
    ///
    /// # Errors
    /// As the system says.
    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(offset, bytes.len())?;
        bytes[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }
}

/// A lock, held until it is dropped.
pub trait VfsLock: fmt::Debug + Send + Sync {}

/// Joins a folder and a name; short enough to be read at a glance.
pub(crate) fn at(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}
