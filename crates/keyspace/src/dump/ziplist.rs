//! Ziplists, Redis's compact sequences before version 7.
//!
//! ```text
//! bytes  u32, all of them
//! tail   u32, where the last entry starts
//! count  u16, 65535 for unknown
//! entry* size of the entry before (one byte below 254, or 254 and a u32),
//!        encoding, data
//! end    0xff
//! ```

use super::reader::{Bad, Reader};

const HEADER: usize = 10;
const END: u8 = 0xff;

/// Shows every element in order.
pub(super) fn for_each(
    blob: &[u8],
    mut f: impl FnMut(&[u8]) -> Result<(), Bad>,
) -> Result<(), Bad> {
    let Some((&END, body)) = blob.split_last() else {
        return Err("a ziplist lacks its end");
    };
    let mut reader = Reader::new(body);
    if u32::from_le_bytes(reader.array()?) as usize != blob.len() {
        return Err("a ziplist's size is not what it says");
    }
    let tail = u32::from_le_bytes(reader.array()?) as usize;
    let announced = u16::from_le_bytes(reader.array()?);
    let mut count = 0usize;
    let mut last_start = HEADER;
    let mut last_size = 0;
    while reader.left() > 0 {
        let before = reader.left();
        let previous = match reader.byte()? {
            254 => u32::from_le_bytes(reader.array()?) as usize,
            255 => return Err("a ziplist ends before its end"),
            size => usize::from(size),
        };
        if previous != last_size {
            return Err("a ziplist entry has another size than the next one says");
        }
        entry(&mut reader, &mut f)?;
        last_start = body.len() - before;
        last_size = before - reader.left();
        count += 1;
    }
    if tail != last_start {
        return Err("a ziplist's last entry is elsewhere");
    }
    if announced != u16::MAX && usize::from(announced) != count {
        return Err("a ziplist's count is wrong");
    }
    Ok(())
}

fn entry(reader: &mut Reader<'_>, f: &mut impl FnMut(&[u8]) -> Result<(), Bad>) -> Result<(), Bad> {
    let first = reader.byte()?;
    let len = match first {
        0..=0x3f => usize::from(first),
        0x40..=0x7f => usize::from(u16::from_be_bytes([first & 0x3f, reader.byte()?])),
        0x80..=0xbf => u32::from_be_bytes(reader.array()?) as usize,
        _ => {
            let number = match first {
                0xc0 => i16::from_le_bytes(reader.array()?).into(),
                0xd0 => i32::from_le_bytes(reader.array()?).into(),
                0xe0 => i64::from_le_bytes(reader.array()?),
                0xf0 => {
                    let [a, b, c] = reader.array()?;
                    i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)
                }
                0xf1..=0xfd => i64::from(first - 0xf1),
                0xfe => i8::from_le_bytes(reader.array()?).into(),
                _ => return Err("a ziplist entry has an unknown encoding"),
            };
            return f(number.to_string().as_bytes());
        }
    };
    f(reader.bytes(len)?)
}
