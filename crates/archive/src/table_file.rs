//! A table file of the tree, byte by byte: its errors do not say where the
//! damage is.
//!
//! A table is sections of blocks, found as those of a [manifest](crate::manifest)
//! are. Each block has a header with a checksum of itself and one of the block.

use std::fs;
use std::path::Path;

use lsm_tree::coding::Decode;
use lsm_tree::table::block::Header;
use xxhash_rust::xxh3::xxh3_128;

use crate::manifest::section;

/// The sections of a table that are blocks.
const SECTIONS: [&[u8]; 6] = [b"data", b"index", b"tli", b"filter", b"filter_tli", b"meta"];

/// Where the first block begins that is not what was written, if the file can be
/// read at all and its table of contents is whole.
pub(crate) fn damaged_block(path: &Path) -> Option<u64> {
    let bytes = fs::read(path).ok()?;
    let sections = SECTIONS.iter().filter_map(|name| section(&bytes, name));
    let damaged = sections.filter_map(|section| {
        let mut at = section.start;
        while at < section.end {
            let block = bytes.get(at..section.end)?;
            match whole_block(block) {
                Some(len) => at += len,
                None => return Some(at as u64),
            }
        }
        None
    });
    damaged.min()
}

/// The length of the block that begins here, if it is whole.
fn whole_block(bytes: &[u8]) -> Option<usize> {
    let header = Header::decode_from(&mut &bytes[..]).ok()?;
    let end = Header::serialized_len() + header.data_length as usize;
    let content = bytes.get(Header::serialized_len()..end)?;
    (xxh3_128(content) == header.checksum.into_u128()).then_some(end)
}
