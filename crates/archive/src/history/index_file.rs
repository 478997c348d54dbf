//! Index files: writing one, and asking it page by page. `docs/FORMAT.md`
//! describes every byte.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use base::Revision;
use log::{Place, Vfs};
use parking_lot::Mutex;

use super::building::{Block, Building, relative_range};
use super::entry::{hash_of, pack, relative_of};
use super::error::HistoryError;
use super::page::{self, PAGE};
use super::records::Hit;

/// What names of files that are being written end with.
pub(super) const TEMPORARY: &str = ".idx.new";

const MAGIC: &[u8; 8] = b"ALCIDIDX";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 128;
const CHECKSUM_BYTES: usize = 4;
const ENTRY_PAGE_BYTES: usize = 16;
const BLOCK_PAGE_BYTES: usize = 20;

/// Directories that stay in memory: a lookup in a segment reads one, and then
/// a page for every thousand records found.
const DIRECTORIES: usize = 64;

/// Bytes up to which a buffer is kept.
const BUFFER_BYTES_MAX: usize = 16 << 20;

fn name(first: Revision) -> String {
    format!("{:020}.idx", first.0)
}

/// The segment that a file's name says.
pub(super) fn parse_name(name: &str) -> Option<Revision> {
    let digits = name.strip_suffix(".idx")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten().map(Revision)
}

/// Why an index file cannot be used: it is damaged, or cannot be read.
#[derive(Debug)]
pub(super) struct Unusable {
    path: PathBuf,
    what: String,
}

impl Unusable {
    pub(super) fn into_error(self) -> HistoryError {
        HistoryError::Unusable { path: self.path, what: self.what }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the index {} cannot be used: {}", self.path.display(), self.what)
    }
}

/// What files are read and written with.
#[derive(Debug)]
pub(super) struct Files {
    vfs: Arc<dyn Vfs>,
    database: [u8; 16],
    /// By segment and checksum, so that those of a file that was replaced are
    /// not mistaken for its successor's. The last used is the last.
    directories: Mutex<Vec<(DirectoryKey, Arc<Directory>)>>,
    /// What files are put together in, kept for the next one.
    buffer: Mutex<Vec<u8>>,
}

type DirectoryKey = (Revision, u32);

/// An index file whose header is whole.
#[derive(Debug)]
pub(super) struct IndexFile {
    path: PathBuf,
    header: Header,
    /// The least hash in it, once its directory was read: whole databases, whose
    /// changes every look at a key asks for, come before all keys.
    least: OnceLock<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    first: Revision,
    last: Revision,
    earliest_ms: u64,
    entries: u64,
    blocks: u64,
    directory: u64,
    entry_pages: u32,
    block_pages: u32,
    directory_checksum: u32,
}

/// Where pages begin, and with what.
#[derive(Debug, PartialEq, Eq)]
struct Directory {
    entry_pages: Vec<(u64, u64)>,
    block_pages: Vec<BlockPage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlockPage {
    first: u32,
    offset: u64,
    earliest_ms: u64,
}

impl Header {
    fn encode(&self, database: &[u8; 16]) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(database);
        bytes[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.last.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.earliest_ms.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.entries.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.directory.to_le_bytes());
        bytes[80..84].copy_from_slice(&self.entry_pages.to_le_bytes());
        bytes[84..88].copy_from_slice(&self.block_pages.to_le_bytes());
        bytes[88..92].copy_from_slice(&self.directory_checksum.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..HEADER_BYTES - CHECKSUM_BYTES]);
        bytes[HEADER_BYTES - CHECKSUM_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], database: &[u8; 16]) -> Result<Header, String> {
        if bytes.len() < HEADER_BYTES {
            return Err("it is shorter than its header".to_owned());
        }
        if crc32c::crc32c(&bytes[..HEADER_BYTES - CHECKSUM_BYTES])
            != u32_at(bytes, HEADER_BYTES - CHECKSUM_BYTES)
        {
            return Err("its header's checksum does not match".to_owned());
        }
        if &bytes[..8] != MAGIC {
            return Err("it does not begin as an index".to_owned());
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(format!("it has version {version}, this Alcid writes {VERSION}"));
        }
        if bytes[16..32] != database[..] {
            return Err("it belongs to another database".to_owned());
        }
        Ok(Header {
            first: Revision(u64_at(bytes, 32)),
            last: Revision(u64_at(bytes, 40)),
            earliest_ms: u64_at(bytes, 48),
            entries: u64_at(bytes, 56),
            blocks: u64_at(bytes, 64),
            directory: u64_at(bytes, 72),
            entry_pages: u32_at(bytes, 80),
            block_pages: u32_at(bytes, 84),
            directory_checksum: u32_at(bytes, 88),
        })
    }

    fn directory_bytes(&self) -> u64 {
        u64::from(self.entry_pages) * ENTRY_PAGE_BYTES as u64
            + u64::from(self.block_pages) * BLOCK_PAGE_BYTES as u64
    }

    /// The file's length.
    fn bytes(&self) -> Option<u64> {
        self.directory.checked_add(self.directory_bytes())
    }
}

impl Directory {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (first, offset) in &self.entry_pages {
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        for page in &self.block_pages {
            bytes.extend_from_slice(&page.first.to_le_bytes());
            bytes.extend_from_slice(&page.offset.to_le_bytes());
            bytes.extend_from_slice(&page.earliest_ms.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8], header: &Header) -> Directory {
        let (entries, blocks) = bytes.split_at(header.entry_pages as usize * ENTRY_PAGE_BYTES);
        let entry_page = |bytes: &[u8]| (u64_at(bytes, 0), u64_at(bytes, 8));
        let block_page = |bytes: &[u8]| BlockPage {
            first: u32_at(bytes, 0),
            offset: u64_at(bytes, 4),
            earliest_ms: u64_at(bytes, 12),
        };
        Directory {
            entry_pages: entries.chunks_exact(ENTRY_PAGE_BYTES).map(entry_page).collect(),
            block_pages: blocks.chunks_exact(BLOCK_PAGE_BYTES).map(block_page).collect(),
        }
    }

    /// Where a page of entries begins and ends.
    fn entry_page(&self, index: usize, header: &Header) -> (u64, u64) {
        let after = self.entry_pages.get(index + 1).map(|page| page.1);
        let end = after.or(self.block_pages.first().map(|page| page.offset));
        (self.entry_pages[index].1, end.unwrap_or(header.directory))
    }

    fn block_page(&self, index: usize, header: &Header) -> (u64, u64) {
        let after = self.block_pages.get(index + 1).map(|page| page.offset);
        (self.block_pages[index].offset, after.unwrap_or(header.directory))
    }
}

/// A page's checksum covers where it is, so that no page passes for another.
fn page_checksum(database: &[u8; 16], first: Revision, offset: u64, content: &[u8]) -> u32 {
    let mut crc = crc32c::crc32c(database);
    crc = crc32c::crc32c_append(crc, &first.0.to_le_bytes());
    crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
    crc32c::crc32c_append(crc, content)
}

/// Puts the whole of an index file into `out`.
fn encode(building: &Building, database: &[u8; 16], out: &mut Vec<u8>) -> Header {
    let first = building.first();
    out.clear();
    out.resize(HEADER_BYTES, 0);
    let mut directory = Directory { entry_pages: Vec::new(), block_pages: Vec::new() };
    let close = |out: &mut Vec<u8>, offset: usize| {
        let checksum = page_checksum(database, first, offset as u64, &out[offset..]);
        out.extend_from_slice(&checksum.to_le_bytes());
    };
    let mut put_page = |out: &mut Vec<u8>, entries: &[u64]| {
        let offset = out.len();
        directory.entry_pages.push((entries[0], offset as u64));
        page::put_entries(out, entries);
        close(out, offset);
    };
    let mut entries = 0;
    let mut pending: Vec<u64> = Vec::new();
    building.merge(&mut |part| {
        entries += part.len() as u64;
        pending.extend_from_slice(part);
        let whole = pending.len() / PAGE * PAGE;
        pending[..whole].chunks_exact(PAGE).for_each(|page| put_page(out, page));
        pending.drain(..whole);
    });
    if !pending.is_empty() {
        put_page(out, &pending);
    }
    let earliest = |blocks: &[Block]| blocks.iter().map(|block| block.earliest_ms).min();
    for blocks in building.blocks().chunks(PAGE) {
        let offset = out.len();
        directory.block_pages.push(BlockPage {
            first: blocks[0].first,
            offset: offset as u64,
            earliest_ms: earliest(blocks).expect("a page is not empty"),
        });
        page::put_blocks(out, blocks);
        close(out, offset);
    }
    let offset = out.len();
    out.extend(directory.encode());
    let header = Header {
        first,
        last: building.last(),
        earliest_ms: earliest(building.blocks()).unwrap_or(u64::MAX),
        entries,
        blocks: building.blocks().len() as u64,
        directory: offset as u64,
        entry_pages: directory.entry_pages.len() as u32,
        block_pages: directory.block_pages.len() as u32,
        directory_checksum: crc32c::crc32c(&out[offset..]),
    };
    out[..HEADER_BYTES].copy_from_slice(&header.encode(database));
    header
}

/// Entries of a page that are answered although fewer are wanted: to read the page
/// again takes longer than to look up where their records are.
const READ_ALONG: usize = 32;

impl Files {
    pub(super) fn new(vfs: Arc<dyn Vfs>, database: [u8; 16]) -> Files {
        let (directories, buffer) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        Files { vfs, database, directories, buffer }
    }

    /// Bytes of memory that are kept for the next file.
    pub(super) fn memory_bytes(&self) -> usize {
        self.buffer.lock().capacity()
    }

    /// Opens the index of a segment, if it has a file.
    pub(super) fn open(&self, dir: &Path, first: Revision) -> Result<Option<IndexFile>, Unusable> {
        let path = dir.join(name(first));
        if !self.vfs.exists(&path) {
            return Ok(None);
        }
        let unusable = |what: String| Unusable { path: path.clone(), what };
        let bytes = self.read_at(&path, 0, HEADER_BYTES as u64)?;
        let header = Header::decode(&bytes, &self.database).map_err(unusable)?;
        if header.first != first {
            return Err(unusable(format!("it is that of segment {}", header.first)));
        }
        let len = self.vfs.len(&path).map_err(|error| unusable(error.to_string()))?;
        if header.bytes() != Some(len) {
            return Err(unusable(format!("it has {len} bytes, and should not")));
        }
        Ok(Some(IndexFile { path, header, least: OnceLock::new() }))
    }

    /// Writes the index of a segment, whole or not at all, and over any that
    /// is there.
    pub(super) fn write(&self, dir: &Path, building: &Building) -> Result<IndexFile, HistoryError> {
        let mut bytes = std::mem::take(&mut *self.buffer.lock());
        let header = encode(building, &self.database, &mut bytes);
        let path = dir.join(name(building.first()));
        let temporary = dir.join(format!("{:020}{TEMPORARY}", building.first().0));
        if self.vfs.exists(&temporary) {
            self.remove(&temporary)?;
        }
        let create = HistoryError::io("create", &temporary);
        let mut file = self.vfs.create(&temporary).map_err(create)?;
        file.append(&bytes).map_err(HistoryError::io("write", &temporary))?;
        file.sync().map_err(HistoryError::io("sync", &temporary))?;
        drop(file);
        if bytes.capacity() <= BUFFER_BYTES_MAX {
            *self.buffer.lock() = bytes;
        }
        self.vfs.rename(&temporary, &path).map_err(HistoryError::io("rename", &temporary))?;
        self.sync_dir(dir)?;
        Ok(IndexFile { path, header, least: OnceLock::new() })
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), HistoryError> {
        self.vfs.remove(path).map_err(HistoryError::io("remove", path))
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> Result<(), HistoryError> {
        self.vfs.sync_dir(dir).map_err(HistoryError::io("sync the folder", dir))
    }

    fn read_at(&self, path: &Path, offset: u64, len: u64) -> Result<Vec<u8>, Unusable> {
        let unusable = |what: String| Unusable { path: path.to_path_buf(), what };
        let len = usize::try_from(len).map_err(|error| unusable(error.to_string()))?;
        self.vfs.read_at(path, offset, len).map_err(|error| unusable(error.to_string()))
    }

    fn directory(&self, file: &IndexFile) -> Result<Arc<Directory>, Unusable> {
        let header = &file.header;
        let key = (header.first, header.directory_checksum);
        {
            let mut cached = self.directories.lock();
            if let Some(at) = cached.iter().position(|(known, _)| *known == key) {
                let found = cached.remove(at);
                cached.push(found);
                return Ok(cached.last().expect("just pushed").1.clone());
            }
        }
        let len = header.directory_bytes();
        let bytes = self.read_at(&file.path, header.directory, len)?;
        if bytes.len() as u64 != len || crc32c::crc32c(&bytes) != header.directory_checksum {
            return Err(file.unusable("its directory's checksum does not match"));
        }
        let directory = Arc::new(Directory::decode(&bytes, header));
        let mut cached = self.directories.lock();
        if cached.len() >= DIRECTORIES {
            cached.remove(0);
        }
        cached.push((key, directory.clone()));
        Ok(directory)
    }

    /// The content of a page.
    fn page(&self, file: &IndexFile, (offset, end): (u64, u64)) -> Result<Vec<u8>, Unusable> {
        let len = end.saturating_sub(offset);
        let mut bytes = self.read_at(&file.path, offset, len)?;
        let Some(content) = bytes.len().checked_sub(CHECKSUM_BYTES) else {
            return Err(file.unusable("a page ends early"));
        };
        let checksum = page_checksum(&self.database, file.header.first, offset, &bytes[..content]);
        if bytes.len() as u64 != len || checksum != u32_at(&bytes, content) {
            return Err(file.unusable("a page's checksum does not match"));
        }
        bytes.truncate(content);
        Ok(bytes)
    }
}

impl IndexFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn last(&self) -> Revision {
        self.header.last
    }

    pub(super) fn bytes(&self) -> u64 {
        self.header.directory + self.header.directory_bytes()
    }

    fn unusable(&self, what: &str) -> Unusable {
        Unusable { path: self.path.clone(), what: what.to_owned() }
    }

    /// See `View::newest`.
    pub(super) fn newest(
        &self,
        hash: u32,
        after: Revision,
        upto: Revision,
        enough: usize,
        files: &Files,
    ) -> Result<Vec<Hit>, Unusable> {
        let (first, last) = (self.header.first, self.header.last);
        let Some((from, to)) = relative_range(first, last, after, upto) else {
            return Ok(Vec::new());
        };
        if self.least.get().is_some_and(|&least| hash < least) {
            return Ok(Vec::new());
        }
        let (from, to) = (pack(hash, from), pack(hash, to));
        let directory = files.directory(self)?;
        let least = directory.entry_pages.first().map_or(u32::MAX, |page| hash_of(page.0));
        self.least.get_or_init(|| least);
        let begun = directory.entry_pages.partition_point(|page| page.0 <= to);
        let Some(index) = begun.checked_sub(1) else { return Ok(Vec::new()) };
        let content = files.page(self, directory.entry_page(index, &self.header))?;
        let entries = page::entries(&content).map_err(|what| self.unusable(what))?;
        let begin = entries.partition_point(|&entry| entry < from);
        let end = entries.partition_point(|&entry| entry <= to);
        let begin = begin.max(end.saturating_sub(enough.max(READ_ALONG)));
        let mut blocks = Blocks { file: self, files, directory: &directory, page: None };
        let found = &entries[begin.min(end)..end];
        debug_assert!(found.iter().all(|&entry| hash_of(entry) == hash));
        let hit = |&entry: &u64| {
            let relative = relative_of(entry);
            let place = blocks.place(relative)?;
            Ok(Hit { revision: Revision(first.0 + u64::from(relative)), place })
        };
        found.iter().map(hit).collect()
    }

    /// See `View::place`.
    pub(super) fn place(
        &self,
        revision: Revision,
        files: &Files,
    ) -> Result<Option<Place>, Unusable> {
        let first = self.header.first;
        if revision < first || revision > self.header.last {
            return Ok(None);
        }
        let directory = files.directory(self)?;
        let mut blocks = Blocks { file: self, files, directory: &directory, page: None };
        blocks.place((revision.0 - first.0) as u32).map(Some)
    }

    /// See `View::block_at_time`.
    pub(super) fn block_at_time(
        &self,
        time_ms: u64,
        files: &Files,
    ) -> Result<Option<Place>, Unusable> {
        if self.header.earliest_ms > time_ms {
            return Ok(None);
        }
        let directory = files.directory(self)?;
        let pages = &directory.block_pages;
        let Some(index) = pages.iter().rposition(|page| page.earliest_ms <= time_ms) else {
            return Ok(None);
        };
        let content = files.page(self, directory.block_page(index, &self.header))?;
        let blocks = page::blocks(&content).map_err(|what| self.unusable(what))?;
        let block = blocks.iter().rfind(|block| block.earliest_ms <= time_ms);
        Ok(block.map(|block| block.place(self.header.first, block.first)))
    }
}

/// Finds blocks by revision, and keeps the page it read last.
struct Blocks<'a> {
    file: &'a IndexFile,
    files: &'a Files,
    directory: &'a Directory,
    page: Option<(usize, Vec<Block>)>,
}

impl Blocks<'_> {
    fn place(&mut self, relative: u32) -> Result<Place, Unusable> {
        let file = self.file;
        let lost = || file.unusable("a record is in no block");
        let begun = self.directory.block_pages.partition_point(|page| page.first <= relative);
        let index = begun.checked_sub(1).ok_or_else(lost)?;
        let blocks = match &mut self.page {
            Some((at, blocks)) if *at == index => blocks,
            page => {
                let range = self.directory.block_page(index, &file.header);
                let content = self.files.page(file, range)?;
                let blocks = page::blocks(&content).map_err(|what| file.unusable(what))?;
                &mut page.insert((index, blocks)).1
            }
        };
        let begun = blocks.partition_point(|block| block.first <= relative);
        let block = blocks.get(begun.wrapping_sub(1)).ok_or_else(lost)?;
        Ok(block.place(file.header.first, relative))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
