use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{Rng, SeededRng};
use parking_lot::Mutex;

use crate::mem_vfs::MemVfs;
use crate::vfs::{Vfs, VfsFile, VfsLock, VfsRead};

/// A disk that fails on demand and knows what a power cut would leave.
///
/// It keeps two images: what a running process sees, and what has been made
/// durable. [`FaultyVfs::crash_image`] is one of the states a power cut may
/// leave: all that was synced, and of the rest any part, in any order, torn
/// anywhere. Names follow a journal: some prefix of the unsynced changes.
#[derive(Clone, Debug, Default)]
pub struct FaultyVfs {
    state: Arc<Mutex<State>>,
    locks: MemVfs,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// From that operation on the disk is full, until [`FaultyVfs::make_room`].
    /// An append leaves a part of its bytes.
    NoSpace,
    /// The same for what a quota allows.
    NoQuota,
    /// That operation fails. After a failed sync the bytes it should have made
    /// durable never will be, though a later sync says so.
    Eio,
}

#[derive(Debug, Default)]
struct State {
    /// Files by number; names point to them.
    files: Vec<FileState>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// Name changes since the last sync of a folder.
    renames: Vec<NameChange>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    full: Option<Fault>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, usize),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct FileState {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since the last sync, in order.
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl State {
    /// Counts an operation; answers what goes wrong with it.
    fn step(&mut self) -> Option<Fault> {
        self.operations += 1;
        match self.fault {
            Some((at, fault @ (Fault::NoSpace | Fault::NoQuota))) if self.operations >= at => {
                self.full = Some(fault);
            }
            Some((at, Fault::Eio)) if self.operations == at => return Some(Fault::Eio),
            _ => {}
        }
        self.full
    }

    fn number(&self, path: &Path) -> io::Result<usize> {
        self.live.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) {
        apply(&mut self.live, &change);
        self.renames.push(change);
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Set(path, file) => {
            names.insert(path.clone(), *file);
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::NoSpace => io::ErrorKind::StorageFull.into(),
        Fault::NoQuota => io::ErrorKind::QuotaExceeded.into(),
        Fault::Eio => io::Error::other("injected input/output error"),
    }
}

impl FaultyVfs {
    /// An empty disk that works.
    #[must_use]
    pub fn new() -> FaultyVfs {
        FaultyVfs::default()
    }

    /// A disk that holds these files durably.
    #[must_use]
    pub fn with_files(files: BTreeMap<PathBuf, Vec<u8>>) -> FaultyVfs {
        let vfs = FaultyVfs::new();
        let mut state = vfs.state.lock();
        for (path, bytes) in files {
            let number = state.files.len();
            state.files.push(FileState {
                live: bytes.clone(),
                durable: bytes,
                unsynced: Vec::new(),
            });
            state.live.insert(path.clone(), number);
            state.durable.insert(path, number);
        }
        drop(state);
        vfs
    }

    /// Lets something go wrong at the `operation`-th change from the beginning.
    pub fn inject(&self, operation: u64, fault: Fault) {
        self.state.lock().fault = Some((operation, fault));
    }

    /// Ends [`Fault::NoSpace`] and [`Fault::NoQuota`].
    pub fn make_room(&self) {
        let mut state = self.state.lock();
        state.fault = None;
        state.full = None;
    }

    /// How many changes there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// A state that a power cut at this moment may leave, chosen by `seed`.
    #[must_use]
    pub fn crash_image(&self, seed: u64) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut rng = SeededRng::new(seed);
        let state = self.state.lock();
        let mut names = state.durable.clone();
        let kept = rng.below(state.renames.len() as u64 + 1) as usize;
        state.renames[..kept].iter().for_each(|change| apply(&mut names, change));
        names
            .into_iter()
            .map(|(path, number)| (path, state.files[number].survive(&mut rng)))
            .collect()
    }
}

impl FileState {
    /// The content after a power cut.
    fn survive(&self, rng: &mut SeededRng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            match change {
                Change::Truncate(len) => {
                    if rng.below(2) == 0 {
                        bytes.truncate(*len);
                    }
                }
                Change::Write(offset, data) => {
                    let kept = match rng.below(4) {
                        0 => 0,
                        1 => rng.below(data.len() as u64 + 1) as usize,
                        _ => data.len(),
                    };
                    if kept > 0 {
                        // A gap before what survived reads as zeros.
                        bytes.resize(bytes.len().max(offset + kept), 0);
                        bytes[*offset..offset + kept].copy_from_slice(&data[..kept]);
                    }
                }
            }
        }
        bytes
    }
}

#[derive(Debug)]
struct FaultyFile {
    state: Arc<Mutex<State>>,
    number: usize,
}

impl VfsRead for FaultyFile {
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        let bytes = &state.files[self.number].live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(bytes[start..start.saturating_add(len).min(bytes.len())].to_vec())
    }
}

impl VfsFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.step();
        let file = &mut state.files[self.number];
        // What fails leaves half of it behind.
        let kept = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        file.unsynced.push(Change::Write(file.live.len(), kept.to_vec()));
        file.live.extend_from_slice(kept);
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.step();
        let file = &mut state.files[self.number];
        match fault {
            Some(Fault::Eio) => {
                // The pages are marked clean without having reached the disk.
                file.unsynced.clear();
                Err(error(Fault::Eio))
            }
            // A full disk has room for what was already accepted.
            _ => {
                for change in std::mem::take(&mut file.unsynced) {
                    match change {
                        Change::Write(offset, data) => {
                            let end = offset + data.len();
                            let len = file.durable.len().max(end);
                            file.durable.resize(len, 0);
                            file.durable[offset..end].copy_from_slice(&data);
                        }
                        Change::Truncate(len) => file.durable.truncate(len),
                    }
                }
                Ok(())
            }
        }
    }

    fn again(&self) -> io::Result<Box<dyn VfsFile>> {
        Ok(Box::new(FaultyFile { state: self.state.clone(), number: self.number }))
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(Fault::Eio) = state.step() {
            return Err(error(Fault::Eio));
        }
        let file = &mut state.files[self.number];
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        file.live.truncate(len);
        file.unsynced.push(Change::Truncate(len));
        Ok(())
    }
}

impl Vfs for FaultyVfs {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let inside = state.live.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state.lock().live.contains_key(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        Ok(state.files[state.number(path)?].live.clone())
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.open_read(path)?.read_at(offset, len)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsRead>> {
        let number = self.state.lock().number(path)?;
        Ok(Box::new(FaultyFile { state: self.state.clone(), number }))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(self.read(path)?.len() as u64)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.state.lock();
        if state.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(fault) = state.step() {
            return Err(error(fault));
        }
        let number = state.files.len();
        state.files.push(FileState::default());
        state.change_name(NameChange::Set(path.to_path_buf(), number));
        Ok(Box::new(FaultyFile { state: self.state.clone(), number }))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let number = self.state.lock().number(path)?;
        Ok(Box::new(FaultyFile { state: self.state.clone(), number }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let number = state.number(from)?;
        if let Some(Fault::Eio) = state.step() {
            return Err(error(Fault::Eio));
        }
        // One journal entry: after a crash the file has one of the two names.
        state.change_name(NameChange::Set(to.to_path_buf(), number));
        state.change_name(NameChange::Remove(from.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.number(path)?;
        if let Some(Fault::Eio) = state.step() {
            return Err(error(Fault::Eio));
        }
        state.change_name(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(Fault::Eio) = state.step() {
            return Err(error(Fault::Eio));
        }
        state.durable = state.live.clone();
        state.renames.clear();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        self.locks.lock(path)
    }

    fn check_owner(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}
