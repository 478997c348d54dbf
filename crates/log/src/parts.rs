//! Transactions that are written in several parts, as one block takes no more
//! than so much.

use std::borrow::Cow;
use std::sync::Arc;

use base::Revision;

use crate::format::{
    self, BLOCK_HEADER_BYTES, BlockHeader, BlockPlace, Compression, Label, NoBlock, Part,
    RECORD_HEADER_BYTES, RecordHeader, put_open_record,
};

/// Bytes of content from which on a record is written in parts, unless somebody
/// says otherwise.
pub(crate) const PART_BYTES_MAX: usize = 16 << 20;

/// Parts that have a number.
const PARTS_MAX: usize = 1 << 16;

/// A record that is written in parts.
#[derive(Clone, Debug)]
pub(crate) struct Large {
    pub(crate) header: RecordHeader,
    pub(crate) effects: Arc<Vec<u8>>,
}

impl Large {
    /// Bytes of the record.
    pub(crate) fn len(&self) -> usize {
        RECORD_HEADER_BYTES + self.effects.len()
    }
}

/// The least and the most that a part may be asked to take.
pub(crate) fn part_max(wanted: usize) -> usize {
    wanted.clamp(RECORD_HEADER_BYTES + 1, 1 << 30)
}

/// Whether a record with so many bytes of effects is written in parts of at
/// most `max` bytes.
pub(crate) fn is_large(effects: usize, max: usize) -> bool {
    RECORD_HEADER_BYTES + effects > max
}

/// A record's parts of at most `max` bytes, or of as many more as it takes for
/// each to have a number.
pub(crate) fn cut<'a>(
    header: &RecordHeader,
    effects: &'a [u8],
    max: usize,
) -> impl Iterator<Item = (Part, Cow<'a, [u8]>)> {
    let max = max.max((RECORD_HEADER_BYTES + effects.len()).div_ceil(PARTS_MAX));
    let (begin, rest) = effects.split_at(effects.len().min(max - RECORD_HEADER_BYTES));
    let mut first = Vec::with_capacity(RECORD_HEADER_BYTES + begin.len());
    put_open_record(&mut first, header);
    first.extend_from_slice(begin);
    let mut pieces =
        std::iter::once(Cow::Owned(first)).chain(rest.chunks(max).map(Cow::Borrowed)).peekable();
    let mut number = 0;
    std::iter::from_fn(move || {
        let piece = pieces.next()?;
        let part = Part { number, has_more: pieces.peek().is_some() };
        number = number.wrapping_add(1);
        Some((part, piece))
    })
}

/// Bytes of the blocks that a record's parts take, uncompressed.
pub(crate) fn bytes_of(effects: usize, max: usize) -> usize {
    let record = RECORD_HEADER_BYTES + effects;
    record + record.div_ceil(max).min(PARTS_MAX) * BLOCK_HEADER_BYTES
}

/// Appends the blocks of a record in parts.
pub(crate) fn put<'a>(
    out: &mut Vec<u8>,
    place: &BlockPlace,
    (revision, durable): (Revision, Revision),
    parts: impl Iterator<Item = (Part, Cow<'a, [u8]>)>,
    compression: Compression,
) {
    let (begin, first) = (out.len() as u64, place.offset);
    for (part, piece) in parts {
        let place = BlockPlace { offset: first + out.len() as u64 - begin, ..*place };
        format::put_block(out, &place, &label(revision, durable, part), &piece, compression);
    }
}

/// What the block of a part says: the transaction is in the last one.
pub(crate) fn label(first: Revision, durable: Revision, part: Part) -> Label {
    Label { first, durable, count: u32::from(!part.has_more), part }
}

/// Puts transactions together whose parts are read one after another.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    record: Vec<u8>,
    revision: Revision,
    /// The part that follows those that are here; 0 when there is none.
    next: u32,
}

impl Assembly {
    /// Whether the last part of a transaction is still to come.
    pub(crate) fn is_open(&self) -> bool {
        self.next > 0
    }

    /// The transaction that was put together last.
    pub(crate) fn into_record(self) -> Vec<u8> {
        self.record
    }

    /// The block at a place of a segment's bytes, which must not end before the
    /// transaction does.
    pub(crate) fn block_at<'b>(
        &self,
        segment: &'b [u8],
        place: &BlockPlace,
    ) -> Result<(BlockHeader, &'b [u8]), NoBlock> {
        match format::block_at(segment, place) {
            Err(NoBlock::End) if self.is_open() => {
                Err(NoBlock::Wrong("the file ends within a transaction"))
            }
            found => found,
        }
    }

    /// Takes the content of the next block. Answers the content that its
    /// transactions are to be read from; `None` where more parts are to come.
    pub(crate) fn take<'a>(
        &'a mut self,
        header: &BlockHeader,
        content: &'a [u8],
    ) -> Result<Option<&'a [u8]>, &'static str> {
        if header.has_unknown_flags() {
            return Err("it says something that this Alcid does not know");
        }
        let part = header.part();
        if part.number == 0 {
            if self.is_open() {
                return Err("the transaction before it lacks its last part");
            }
            // What a large one took is free as soon as it was used.
            self.record = Vec::new();
            if part.is_all() {
                return Ok(Some(content));
            }
            self.revision = header.first;
        } else if self.next != u32::from(part.number) || self.revision != header.first {
            return Err("it is a part of a transaction whose part before it is not there");
        }
        if header.count != u32::from(!part.has_more) {
            return Err("it is a part of one transaction, and says that it holds others");
        }
        self.record.extend_from_slice(content);
        if part.has_more {
            self.next += 1;
            return Ok(None);
        }
        self.next = 0;
        Ok(Some(&self.record))
    }
}

#[cfg(test)]
mod tests {
    use base::BranchId;

    use super::*;

    const HEADER: RecordHeader = RecordHeader { time_ms: 9, db: 3, branch: BranchId(7) };

    #[test]
    fn what_is_cut_is_put_together_again() {
        for len in [0, 1, 2, 100, 101, 102, 1000, 200_000] {
            let effects: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            for max in [1, 20, 100, 119, 120, PART_BYTES_MAX].map(part_max) {
                let parts: Vec<_> = cut(&HEADER, &effects, max).collect();
                assert_eq!(parts.len() > 1, is_large(len, max), "{len} by {max}");
                let mut blocks = Vec::new();
                let place = BlockPlace { id: [1; 16], segment: Revision(1), offset: 0 };
                let revisions = (Revision(5), Revision(2));
                put(&mut blocks, &place, revisions, parts.into_iter(), Compression::None);
                assert!(blocks.len() <= bytes_of(len, max), "{len} by {max}");
                let (mut assembly, mut at) = (Assembly::default(), 0);
                loop {
                    let place = BlockPlace { offset: at, ..place };
                    let (header, stored) = format::block_at(&blocks, &place).expect("whole");
                    at += (BLOCK_HEADER_BYTES + stored.len()) as u64;
                    let is_last = at == blocks.len() as u64;
                    let Some(content) = assembly.take(&header, stored).expect("in order") else {
                        assert!(!is_last && header.end() == Some(Revision(5)));
                        continue;
                    };
                    assert!(is_last && header.end() == Some(Revision(6)));
                    let mut records = format::records(header.first, header.count, content);
                    let record = records.next().expect("one").expect("whole");
                    assert_eq!((record.header, record.effects), (HEADER, &effects[..]));
                    assert!(records.next().is_none());
                    break;
                }
            }
        }
    }

    #[test]
    fn parts_that_do_not_follow_each_other_are_refused() {
        let effects = vec![7; 100];
        let place = BlockPlace { id: [1; 16], segment: Revision(1), offset: 0 };
        let block = |revision: u64, part: Part, count| {
            let mut out = Vec::new();
            let (first, durable) = (Revision(revision), Revision::ZERO);
            let label = Label { first, durable, count, part };
            format::put_block(&mut out, &place, &label, &effects, Compression::None);
            format::block_at(&out, &place).expect("whole").0
        };
        let part = |number, has_more| Part { number, has_more };
        let [first, all] = [block(5, part(0, true), 0), block(5, part(0, false), 1)];
        let second = block(5, part(1, true), 0);
        for (headers, what) in [
            (&[second][..], "part before it is not there"),
            (&[first, first], "lacks its last part"),
            (&[first, all], "lacks its last part"),
            (&[first, second, second], "part before it is not there"),
            (&[first, block(6, part(1, true), 0)], "part before it is not there"),
            (&[first, block(5, part(2, true), 0)], "part before it is not there"),
            (&[block(5, part(0, true), 1)], "holds others"),
            (&[first, block(5, part(1, false), 0)], "holds others"),
            (&[first, block(5, part(1, false), 2)], "holds others"),
        ] {
            let mut assembly = Assembly::default();
            let (last, before) = headers.split_last().expect("some");
            for header in before {
                assert_eq!(assembly.take(header, &effects), Ok(None));
            }
            let refused = assembly.take(last, &effects).expect_err(what);
            assert!(refused.contains(what), "{refused}, not {what}");
        }
    }

    /// A part's number has two bytes.
    #[test]
    fn parts_grow_before_numbers_run_out() {
        let effects = vec![7; 3_000_000];
        let (mut count, mut bytes) = (0, 0);
        for (part, piece) in cut(&HEADER, &effects, part_max(0)) {
            assert_eq!(
                (part.number as usize, part.has_more),
                (count, bytes + piece.len() < 3_000_018)
            );
            (count, bytes) = (count + 1, bytes + piece.len());
        }
        assert!(count <= PARTS_MAX && count > PARTS_MAX / 2, "{count}");
        assert_eq!(bytes, 3_000_018);
    }
}
