//! Writing Redis's lengths and strings.

use super::lzf;

/// Shortest string worth compressing, as in Redis.
const COMPRESSED_BYTES_MIN: usize = 21;

/// Longest text of a number in 32 bits.
const NUMBER_BYTES_MAX: usize = 11;

/// A value in the making.
#[derive(Debug)]
pub(super) struct Writer {
    out: Vec<u8>,
    compresses: bool,
}

impl Writer {
    pub(super) fn new(compresses: bool) -> Writer {
        Writer { out: Vec::new(), compresses }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A length: 6 bits, 14, 32 or 64.
    pub(super) fn length(&mut self, len: usize) {
        match len {
            0..0x40 => self.byte(len as u8),
            0x40..0x4000 => self.bytes(&(0x4000 | len as u16).to_be_bytes()),
            _ => match u32::try_from(len) {
                Ok(len) => {
                    self.byte(0x80);
                    self.bytes(&len.to_be_bytes());
                }
                Err(_) => {
                    self.byte(0x81);
                    self.bytes(&(len as u64).to_be_bytes());
                }
            },
        }
    }

    /// A string: as a number where it is the exact text of one, compressed
    /// where that helps, or plain.
    pub(super) fn string(&mut self, string: &[u8]) {
        if string.len() <= NUMBER_BYTES_MAX
            && let Some(number) = base::number::parse_i64(string)
            && let Ok(number) = i32::try_from(number)
        {
            return self.number(number);
        }
        if self.compresses
            && string.len() >= COMPRESSED_BYTES_MIN
            && let Some(compressed) = lzf::compress(string)
        {
            self.byte(0xc3);
            self.length(compressed.len());
            self.length(string.len());
            return self.bytes(&compressed);
        }
        self.length(string.len());
        self.bytes(string);
    }

    fn number(&mut self, number: i32) {
        if let Ok(number) = i8::try_from(number) {
            self.byte(0xc0);
            self.bytes(&number.to_le_bytes());
        } else if let Ok(number) = i16::try_from(number) {
            self.byte(0xc1);
            self.bytes(&number.to_le_bytes());
        } else {
            self.byte(0xc2);
            self.bytes(&number.to_le_bytes());
        }
    }
}
