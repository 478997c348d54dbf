//! Bytes of segments: headers, blocks, records. See `docs/FORMAT.md`.

use std::fmt;
use std::io::{Read, Write};
use std::path::Path;

use base::{BranchId, DbIndex, Revision};

use crate::error::LogError;

/// The version of the segments this code writes, and the newest it reads.
/// Version 2 has effects that version 1 has not, version 3 records in parts.
pub(crate) const VERSION: u32 = 3;

/// Names a database: chosen at random when its log is created, and part of
/// every checksum, so that files of another database never pass for ours.
pub type DatabaseId = [u8; 16];

const SEGMENT_MAGIC: &[u8; 8] = b"ALCIDLOG";
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
pub(crate) const BLOCK_HEADER_BYTES: usize = 36;
pub(crate) const RECORD_HEADER_BYTES: usize = 18;

/// As the length of a record: it goes to the end of the content.
const TO_THE_END: u32 = u32::MAX;

/// Bytes of content that blocks are cut at unless somebody says otherwise. The
/// less, the less is read and checked for one old record; the more, the fewer
/// headers there are.
pub(crate) const BLOCK_BYTES_MAX: usize = 8 << 10;

/// Blocks that are compressed may have so many times as much: they take less
/// space then, and whoever compresses wants that.
pub(crate) const PACKED_BLOCKS: usize = 8;

/// Content larger than this is stored as it is. So a reader never unpacks more
/// than this, whatever a file claims.
pub(crate) const PACKED_CONTENT_MAX: usize = 64 << 20;

/// How blocks are compressed from now on. Readers need no setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 blocks: cheap, about half the size for text.
    Lz4,
    /// Zstandard level 1.
    Zstd,
    /// Gzip, for tools that know nothing else.
    Gzip,
}

impl Compression {
    fn code(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Lz4 => 1,
            Compression::Zstd => 2,
            Compression::Gzip => 3,
        }
    }

    fn from_code(code: u8) -> Option<Compression> {
        [Compression::None, Compression::Lz4, Compression::Zstd, Compression::Gzip]
            .into_iter()
            .find(|compression| compression.code() == code)
    }
}

/// What a record says besides its effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// When the transaction ran, in milliseconds since 1970.
    pub time_ms: u64,
    /// The database its effects begin in.
    pub db: DbIndex,
    /// The branch it changed.
    pub branch: BranchId,
}

/// One transaction of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its position.
    pub revision: Revision,
    /// When and where.
    pub header: RecordHeader,
    /// Its effects, opaque to the log.
    pub effects: &'a [u8],
}

/// Appends a record to a block's content.
pub(crate) fn put_record(out: &mut Vec<u8>, header: &RecordHeader, effects: &[u8]) {
    let len = u32::try_from(effects.len()).expect("more than a part takes is put in parts");
    put_record_header(out, header, len);
    out.extend_from_slice(effects);
}

/// Appends what a record begins with whose effects are all that follows.
pub(crate) fn put_open_record(out: &mut Vec<u8>, header: &RecordHeader) {
    put_record_header(out, header, TO_THE_END);
}

fn put_record_header(out: &mut Vec<u8>, header: &RecordHeader, len: u32) {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    bytes[0..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..12].copy_from_slice(&header.time_ms.to_le_bytes());
    bytes[12..14].copy_from_slice(&header.db.to_le_bytes());
    bytes[14..18].copy_from_slice(&header.branch.0.to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// The records of a block's content, which its checksum vouches for.
pub(crate) fn records(
    first: Revision,
    count: u32,
    content: &[u8],
) -> impl Iterator<Item = Result<Record<'_>, &'static str>> {
    let mut rest = content;
    let mut revision = first;
    let mut left = count;
    std::iter::from_fn(move || {
        if left == 0 {
            return (!rest.is_empty()).then(|| {
                rest = &[];
                Err("bytes after the last record")
            });
        }
        left -= 1;
        let Some((header, tail)) = rest.split_at_checked(RECORD_HEADER_BYTES) else {
            left = 0;
            rest = &[];
            return Some(Err("a record's header ends early"));
        };
        let len = match u32_at(header, 0) {
            TO_THE_END => tail.len(),
            len => len as usize,
        };
        let Some((effects, tail)) = tail.split_at_checked(len) else {
            left = 0;
            rest = &[];
            return Some(Err("a record ends early"));
        };
        rest = tail;
        let db = DbIndex::from_le_bytes([header[12], header[13]]);
        let record = Record {
            revision,
            header: RecordHeader {
                time_ms: u64_at(header, 4),
                db,
                branch: BranchId(u32_at(header, 14)),
            },
            effects,
        };
        revision = revision.next();
        Some(Ok(record))
    })
}

/// A block's header, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    /// Bytes of the stored content.
    pub(crate) len: u32,
    checksum: u32,
    /// Revision of the first record; of the next one when there is none.
    pub(crate) first: Revision,
    /// The newest revision that was synced when the block was written. Proves
    /// that everything up to it was durable once.
    pub(crate) durable: Revision,
    pub(crate) count: u32,
    content_len: u32,
    compression: u8,
    flags: u8,
    part_number: u16,
}

/// Bit of a block's flags: the transaction goes on in the next block.
const HAS_MORE: u8 = 1;

/// Which part of a transaction a block is; of most, all of one or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: u16,
    /// Another one follows in the next block.
    pub(crate) has_more: bool,
}

impl Part {
    /// Whether a block is no part, but has all of each of its transactions.
    pub(crate) fn is_all(self) -> bool {
        self == Part::default()
    }
}

impl BlockHeader {
    /// Which part of a transaction it is.
    pub(crate) fn part(&self) -> Part {
        Part { number: self.part_number, has_more: self.flags & HAS_MORE != 0 }
    }

    /// Whether it says something that nobody knows.
    pub(crate) fn has_unknown_flags(&self) -> bool {
        self.flags & !HAS_MORE != 0
    }

    /// How its content is stored; that of an unknown code does not unpack.
    pub(crate) fn compression(&self) -> Compression {
        Compression::from_code(self.compression).unwrap_or_default()
    }

    pub(crate) fn end(&self) -> Option<Revision> {
        self.first.0.checked_add(u64::from(self.count)).map(Revision)
    }
}

/// What a block's checksum covers besides its own bytes: the database, the
/// segment and the place in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockPlace {
    pub(crate) id: DatabaseId,
    pub(crate) segment: Revision,
    pub(crate) offset: u64,
}

impl BlockPlace {
    fn checksum(&self, header: &[u8], content: &[u8]) -> u32 {
        let mut crc = crc32c::crc32c(&self.id);
        crc = crc32c::crc32c_append(crc, &self.segment.0.to_le_bytes());
        crc = crc32c::crc32c_append(crc, &self.offset.to_le_bytes());
        // Length first, then all after the checksum's own field.
        crc = crc32c::crc32c_append(crc, &header[0..4]);
        crc = crc32c::crc32c_append(crc, &header[8..BLOCK_HEADER_BYTES]);
        crc32c::crc32c_append(crc, content)
    }
}

/// What a block says of its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    pub(crate) first: Revision,
    pub(crate) durable: Revision,
    pub(crate) count: u32,
    pub(crate) part: Part,
}

/// Appends a block to `out`.
pub(crate) fn put_block(
    out: &mut Vec<u8>,
    place: &BlockPlace,
    label: &Label,
    content: &[u8],
    compression: Compression,
) {
    let Label { first, durable, count, part } = label;
    let packed =
        (content.len() <= PACKED_CONTENT_MAX).then(|| compress(compression, content)).flatten();
    // What does not shrink is stored as it is.
    let (code, stored) = match &packed {
        Some(packed) if packed.len() < content.len() => (compression.code(), packed.as_slice()),
        _ => (Compression::None.code(), content),
    };
    let mut header = [0u8; BLOCK_HEADER_BYTES];
    header[0..4].copy_from_slice(&(stored.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&first.0.to_le_bytes());
    header[16..24].copy_from_slice(&durable.0.to_le_bytes());
    header[24..28].copy_from_slice(&count.to_le_bytes());
    header[28..32].copy_from_slice(&(content.len() as u32).to_le_bytes());
    header[32] = code;
    header[33] = if part.has_more { HAS_MORE } else { 0 };
    header[34..36].copy_from_slice(&part.number.to_le_bytes());
    let checksum = place.checksum(&header, stored);
    header[4..8].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(stored);
}

/// Appends a block that stood elsewhere, whole, as one of this place.
pub(crate) fn put_block_again(out: &mut Vec<u8>, place: &BlockPlace, block: &[u8]) {
    let (header, stored) = block.split_at(BLOCK_HEADER_BYTES);
    let begin = out.len();
    out.extend_from_slice(block);
    let checksum = place.checksum(header, stored);
    out[begin + 4..begin + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Why there is no block at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoBlock {
    /// The segment ends exactly here.
    End,
    /// The segment ends within the block, or what would be its header says so.
    Short,
    /// The checksum or a field is wrong.
    Wrong(&'static str),
}

impl NoBlock {
    pub(crate) fn words(self) -> &'static str {
        match self {
            NoBlock::End => "the file ends",
            NoBlock::Short => "the file ends within a block",
            NoBlock::Wrong(what) => what,
        }
    }
}

impl fmt::Display for NoBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// The block at an offset of a segment's bytes, with its stored content.
pub(crate) fn block_at<'a>(
    segment: &'a [u8],
    place: &BlockPlace,
) -> Result<(BlockHeader, &'a [u8]), NoBlock> {
    let offset = usize::try_from(place.offset).map_err(|_| NoBlock::End)?;
    block_from(segment.get(offset..).ok_or(NoBlock::End)?, place)
}

/// The block that `bytes`, read from `place`, begin with.
pub(crate) fn block_from<'a>(
    bytes: &'a [u8],
    place: &BlockPlace,
) -> Result<(BlockHeader, &'a [u8]), NoBlock> {
    if bytes.is_empty() {
        return Err(NoBlock::End);
    }
    let Some((header_bytes, rest)) = bytes.split_at_checked(BLOCK_HEADER_BYTES) else {
        return Err(NoBlock::Short);
    };
    let header = BlockHeader {
        len: u32_at(header_bytes, 0),
        checksum: u32_at(header_bytes, 4),
        first: Revision(u64_at(header_bytes, 8)),
        durable: Revision(u64_at(header_bytes, 16)),
        count: u32_at(header_bytes, 24),
        content_len: u32_at(header_bytes, 28),
        compression: header_bytes[32],
        flags: header_bytes[33],
        part_number: u16::from_le_bytes([header_bytes[34], header_bytes[35]]),
    };
    let Some(stored) = rest.get(..header.len as usize) else { return Err(NoBlock::Short) };
    if place.checksum(header_bytes, stored) != header.checksum {
        return Err(NoBlock::Wrong("its checksum does not match"));
    }
    if header.end().is_none() {
        return Err(NoBlock::Wrong("its revisions exceed 64 bits"));
    }
    Ok((header, stored))
}

/// Whether `bytes` may begin a block that follows revision `before`: cheap, so
/// that a search of every offset does not take a checksum at each.
pub(crate) fn looks_like_block(bytes: &[u8], before: Revision) -> bool {
    let Some(header) = bytes.get(..BLOCK_HEADER_BYTES) else { return false };
    let (len, count, content_len) = (u32_at(header, 0), u32_at(header, 24), u32_at(header, 28));
    let (first, durable) = (u64_at(header, 8), u64_at(header, 16));
    let least = u64::from(count) * RECORD_HEADER_BYTES as u64;
    header[33] & !HAS_MORE == 0
        && match Compression::from_code(header[32]) {
            Some(Compression::None) => len == content_len,
            Some(_) => len < content_len,
            None => false,
        }
        && u64::from(content_len) >= least
        && first >= before.0
        && durable < first
        && len as usize <= bytes.len() - BLOCK_HEADER_BYTES
}

/// A block's content, unpacked into `buffer` if it is compressed.
pub(crate) fn content<'a>(
    header: &BlockHeader,
    stored: &'a [u8],
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], String> {
    let compression = Compression::from_code(header.compression)
        .ok_or_else(|| format!("unknown compression {}", header.compression))?;
    if compression == Compression::None {
        return Ok(stored);
    }
    if header.content_len as usize > PACKED_CONTENT_MAX {
        return Err(format!(
            "its content claims {} bytes; what is compressed has at most {PACKED_CONTENT_MAX}",
            header.content_len
        ));
    }
    decompress(compression, stored, header.content_len as usize, buffer)
        .map_err(|error| format!("its content does not unpack: {error}"))?;
    if buffer.len() != header.content_len as usize {
        return Err(format!(
            "its content unpacks to {} bytes, not {}",
            buffer.len(),
            header.content_len
        ));
    }
    Ok(buffer)
}

fn compress(compression: Compression, content: &[u8]) -> Option<Vec<u8>> {
    match compression {
        Compression::None => None,
        Compression::Lz4 => Some(lz4_flex::block::compress(content)),
        Compression::Zstd => zstd::bulk::compress(content, 1).ok(),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).ok()?;
            encoder.finish().ok()
        }
    }
}

fn decompress(
    compression: Compression,
    stored: &[u8],
    len: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), String> {
    buffer.clear();
    match compression {
        Compression::None => buffer.extend_from_slice(stored),
        Compression::Lz4 => {
            *buffer =
                lz4_flex::block::decompress(stored, len).map_err(|error| error.to_string())?;
        }
        Compression::Zstd => {
            *buffer = zstd::bulk::decompress(stored, len).map_err(|error| error.to_string())?;
        }
        Compression::Gzip => {
            let limit = len as u64 + 1;
            flate2::read::GzDecoder::new(stored)
                .take(limit)
                .read_to_end(buffer)
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// The header at the beginning of a segment.
pub(crate) fn segment_header(
    id: &DatabaseId,
    first: Revision,
    created_ms: u64,
    begins_anew: bool,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    bytes.extend_from_slice(SEGMENT_MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(SEGMENT_HEADER_BYTES as u32).to_le_bytes());
    bytes.extend_from_slice(id);
    bytes.extend_from_slice(&first.0.to_le_bytes());
    bytes.extend_from_slice(&created_ms.to_le_bytes());
    bytes.push(u8::from(begins_anew));
    bytes.resize(SEGMENT_HEADER_BYTES - 4, 0);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// When a segment was created, in milliseconds since 1970, and whether it
/// begins anew; its header is right.
pub(crate) fn segment_origin(header: &[u8]) -> (u64, bool) {
    (u64_at(header, 40), header[48] != 0)
}

/// Checks a segment's header against its name and the database; answers its
/// version.
pub(crate) fn check_segment_header(
    bytes: &[u8],
    path: &Path,
    id: &DatabaseId,
    first: Revision,
) -> Result<u32, LogError> {
    let damaged = |offset, what: &str| LogError::Damaged {
        path: path.to_path_buf(),
        offset,
        what: what.to_owned(),
    };
    let header = bytes
        .get(..SEGMENT_HEADER_BYTES)
        .ok_or_else(|| damaged(bytes.len() as u64, "the file is shorter than its header"))?;
    if crc32c::crc32c(&header[..60]) != u32_at(header, 60) {
        return Err(damaged(0, "the header's checksum does not match"));
    }
    if &header[..8] != SEGMENT_MAGIC {
        return Err(damaged(0, "it does not begin as a segment"));
    }
    let version = u32_at(header, 8);
    if version > VERSION {
        return Err(LogError::NewerFormat {
            path: path.to_path_buf(),
            found: version,
            known: VERSION,
        });
    }
    if header[16..32] != id[..] {
        let mut found = [0; 16];
        found.copy_from_slice(&header[16..32]);
        return Err(LogError::Foreign {
            path: path.to_path_buf(),
            found: show_id(&found),
            expected: show_id(id),
        });
    }
    let inside = Revision(u64_at(header, 32));
    if inside != first {
        return Err(damaged(
            32,
            &format!("it begins with revision {inside}, its name says {first}"),
        ));
    }
    Ok(version)
}

/// Whether the log began with this segment, or went on with it behind a gap:
/// an archive holds what came before. `header` need not have been checked.
pub(crate) fn begins_anew(header: &[u8]) -> bool {
    header.get(48) == Some(&1)
}

/// A segment's file name: its first revision in 20 digits, so that names sort
/// as revisions do.
pub(crate) fn segment_name(first: Revision) -> String {
    format!("{:020}.alog", first.0)
}

/// The first revision that a segment's file name says.
pub(crate) fn parse_segment_name(name: &str) -> Option<Revision> {
    let digits = name.strip_suffix(".alog")?;
    let first = (digits.len() == 20).then(|| digits.parse().ok()).flatten()?;
    // No transaction has revision 0.
    (first > 0).then_some(Revision(first))
}

pub(crate) fn show_id(id: &DatabaseId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
