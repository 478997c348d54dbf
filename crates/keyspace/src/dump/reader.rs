//! Reading hostile bytes.

use std::borrow::Cow;

use super::lzf;

/// What is wrong with the bytes.
pub(super) type Bad = &'static str;

pub(super) const ENDS_EARLY: Bad = "the bytes end early";

/// What is still to be read. Nothing is taken on a length's word: every length
/// is held against what is left.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// A length, or the encoding of a string that has none.
enum Length {
    Bytes(u64),
    Encoded(u8),
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Bytes left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Bad> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Bad> {
        self.array().map(|[byte]| byte)
    }

    fn length_or_encoding(&mut self) -> Result<Length, Bad> {
        let first = self.byte()?;
        let low = first & 0x3f;
        Ok(match first >> 6 {
            0 => Length::Bytes(u64::from(low)),
            1 => Length::Bytes(u64::from(u16::from_be_bytes([low, self.byte()?]))),
            2 => match first {
                0x80 => Length::Bytes(u64::from(u32::from_be_bytes(self.array()?))),
                0x81 => Length::Bytes(u64::from_be_bytes(self.array()?)),
                _ => return Err("a length has an unknown form"),
            },
            _ => Length::Encoded(low),
        })
    }

    fn length(&mut self) -> Result<usize, Bad> {
        match self.length_or_encoding()? {
            Length::Bytes(len) => usize::try_from(len).map_err(|_| ENDS_EARLY),
            Length::Encoded(_) => Err("a length is expected, not an encoded string"),
        }
    }

    /// A small number in the form of a length.
    pub(super) fn number(&mut self) -> Result<usize, Bad> {
        self.length()
    }

    /// A count of elements that take at least `bytes_min` each; not zero.
    pub(super) fn count(&mut self, bytes_min: usize) -> Result<usize, Bad> {
        let count = self.length()?;
        if count == 0 {
            return Err("a collection is empty");
        }
        if count > self.left() / bytes_min {
            return Err("more elements are announced than bytes are left");
        }
        Ok(count)
    }

    /// A string in any of its forms.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, Bad> {
        let number = |number: i64| Cow::Owned(number.to_string().into_bytes());
        Ok(match self.length_or_encoding()? {
            Length::Bytes(len) => {
                let len = usize::try_from(len).map_err(|_| ENDS_EARLY)?;
                Cow::Borrowed(self.bytes(len)?)
            }
            Length::Encoded(0) => number(i8::from_le_bytes(self.array()?).into()),
            Length::Encoded(1) => number(i16::from_le_bytes(self.array()?).into()),
            Length::Encoded(2) => number(i32::from_le_bytes(self.array()?).into()),
            Length::Encoded(3) => {
                let compressed_len = self.length()?;
                let len = self.length()?;
                let compressed = self.bytes(compressed_len)?;
                let string = lzf::decompress(compressed, len);
                Cow::Owned(string.ok_or("a compressed string is malformed")?)
            }
            Length::Encoded(_) => return Err("a string has an unknown form"),
        })
    }
}
