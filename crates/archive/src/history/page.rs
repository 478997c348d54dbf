//! Pages of an index file: a thousand entries or blocks, delta-coded.

use base::leb128::{self, NoNumber};

use super::building::Block;
use super::entry::{hash_of, pack, relative_of};

/// Entries, or blocks, that a page has at most.
pub(super) const PAGE: usize = 1024;

/// Appends a page of entries, which are in order.
pub(super) fn put_entries(out: &mut Vec<u8>, entries: &[u64]) {
    let mut before = 0;
    for &entry in entries {
        let hashes = hash_of(entry) - hash_of(before);
        leb128::put(out, u64::from(hashes));
        // Among entries of one hash the revision counts from the one before.
        let base = if hashes == 0 { relative_of(before) } else { 0 };
        leb128::put(out, u64::from(relative_of(entry) - base));
        before = entry;
    }
}

/// The entries of a page.
pub(super) fn entries(mut bytes: &[u8]) -> Result<Vec<u64>, &'static str> {
    let mut entries = Vec::with_capacity(PAGE);
    let mut before = 0;
    while !bytes.is_empty() {
        if entries.len() == PAGE {
            return Err(TOO_MANY);
        }
        let hashes = number32(&mut bytes)?;
        let hash = hash_of(before).checked_add(hashes).ok_or(TOO_GREAT)?;
        let base = if hashes == 0 { relative_of(before) } else { 0 };
        let relative = base.checked_add(number32(&mut bytes)?).ok_or(TOO_GREAT)?;
        before = pack(hash, relative);
        entries.push(before);
    }
    Ok(entries)
}

/// Appends a page of blocks, which are in order.
pub(super) fn put_blocks(out: &mut Vec<u8>, blocks: &[Block]) {
    let mut before = Block { first: 0, offset: 0, earliest_ms: 0 };
    for block in blocks {
        leb128::put(out, u64::from(block.first - before.first));
        leb128::put(out, block.offset - before.offset);
        leb128::put(out, leb128::zigzag(block.earliest_ms.wrapping_sub(before.earliest_ms) as i64));
        before = *block;
    }
}

/// The blocks of a page.
pub(super) fn blocks(mut bytes: &[u8]) -> Result<Vec<Block>, &'static str> {
    let mut blocks = Vec::with_capacity(PAGE);
    let mut before = Block { first: 0, offset: 0, earliest_ms: 0 };
    while !bytes.is_empty() {
        if blocks.len() == PAGE {
            return Err(TOO_MANY);
        }
        let first = before.first.checked_add(number32(&mut bytes)?).ok_or(TOO_GREAT)?;
        let offset = before.offset.checked_add(number(&mut bytes)?).ok_or(TOO_GREAT)?;
        let later = leb128::unzigzag(number(&mut bytes)?);
        let earliest_ms = before.earliest_ms.wrapping_add(later as u64);
        before = Block { first, offset, earliest_ms };
        blocks.push(before);
    }
    Ok(blocks)
}

const TOO_MANY: &str = "a page has more than 1024 parts";
const TOO_GREAT: &str = "a number in a page is too great";

fn number(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    leb128::take(bytes).map_err(|what| match what {
        NoNumber::EndsEarly => "a page ends early",
        NoNumber::TooGreat => TOO_GREAT,
    })
}

fn number32(bytes: &mut &[u8]) -> Result<u32, &'static str> {
    u32::try_from(number(bytes)?).map_err(|_| TOO_GREAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_survive_the_round_trip() {
        let all = [0, 5, pack(0, u32::MAX), pack(1, 0), pack(u32::MAX, 7), u64::MAX];
        let mut bytes = Vec::new();
        put_entries(&mut bytes, &all);
        assert_eq!(entries(&bytes).as_deref(), Ok(&all[..]));

        let all = [
            Block { first: 0, offset: 64, earliest_ms: u64::MAX },
            Block { first: 1, offset: 65, earliest_ms: 0 },
            Block { first: u32::MAX, offset: u64::MAX, earliest_ms: 1 << 63 },
        ];
        let mut bytes = Vec::new();
        put_blocks(&mut bytes, &all);
        assert_eq!(blocks(&bytes).as_deref(), Ok(&all[..]));
    }

    #[test]
    fn hostile_pages_are_refused() {
        let greatest = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(entries(&[0x80]), Err("a page ends early"));
        assert_eq!(entries(&[1]), Err("a page ends early"));
        assert_eq!(entries(&[0xff; 11]), Err(TOO_GREAT));
        assert_eq!(entries(&[&greatest[..], &[0, 1, 0]].concat()), Err(TOO_GREAT));
        assert_eq!(entries(&[0; 2 * PAGE + 2]), Err(TOO_MANY));
        assert_eq!(blocks(&[0; 3 * PAGE + 3]), Err(TOO_MANY));
        assert_eq!(blocks(&[&greatest[..], &[0, 0, 1, 0, 0]].concat()), Err(TOO_GREAT));
    }
}
