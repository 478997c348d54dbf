use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::vfs::{Vfs, VfsFile, VfsLock, VfsRead};

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealVfs;

#[derive(Debug)]
struct RealFile(File);

#[derive(Debug)]
struct RealLock(#[allow(dead_code, reason = "held for its lock")] File);

impl VfsLock for RealLock {}

fn owner_only(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

impl Vfs for RealVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        read_at(&File::open(path)?, offset, len)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsRead>> {
        Ok(Box::new(RealFile(File::open(path)?)))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut options = OpenOptions::new();
        let file = owner_only(options.append(true).create_new(true)).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().append(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        #[cfg(unix)]
        File::open(dir)?.sync_all()?;
        #[cfg(not(unix))]
        let _ = dir;
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        let mut options = OpenOptions::new();
        let file = owner_only(options.write(true).create(true).truncate(false)).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock(file))),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn check_owner(&self, dir: &Path) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            // A file we create belongs to whoever we run as; asking the system
            // for the user would need unsafe code or another dependency.
            let probe = dir.join(".owner-probe");
            let mut options = OpenOptions::new();
            let file = owner_only(options.write(true).create(true).truncate(false)).open(&probe)?;
            let ours = file.metadata()?.uid();
            drop(file);
            fs::remove_file(&probe)?;
            if fs::metadata(dir)?.uid() != ours {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
        #[cfg(not(unix))]
        let _ = dir;
        Ok(())
    }
}

/// Up to `len` bytes from `offset` on.
fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    // What is asked for may be far more than there is.
    let there = usize::try_from(file.metadata()?.len().saturating_sub(offset));
    let mut bytes = vec![0; there.unwrap_or(len).min(len)];
    let read = read_into(file, offset, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// As many of the bytes from `offset` on as there are.
fn read_into(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match read_some(file, offset + read as u64, &mut bytes[read..]) {
            Ok(0) => break,
            Ok(some) => read += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Reads from a place without moving to it: many threads read one file.
fn read_some(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    #[cfg(unix)]
    let read = std::os::unix::fs::FileExt::read_at(file, bytes, offset);
    #[cfg(windows)]
    let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset);
    read
}

impl VfsRead for RealFile {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        read_at(&self.0, offset, len)
    }

    fn read_into(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        read_into(&self.0, offset, bytes)
    }
}

impl VfsFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn again(&self) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(RealFile(self.0.try_clone()?)))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}
