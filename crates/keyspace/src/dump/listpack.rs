//! Listpacks, Redis's compact sequences since version 7.
//!
//! ```text
//! bytes  u32, all of them
//! count  u16, 65535 for unknown
//! entry* encoding and data, then their size, written to be read backwards
//! end    0xff
//! ```

use super::reader::{Bad, Reader};

const HEADER: usize = 6;
const END: u8 = 0xff;

/// Shows every element in order.
pub(super) fn for_each(
    blob: &[u8],
    mut f: impl FnMut(&[u8]) -> Result<(), Bad>,
) -> Result<(), Bad> {
    let (Some((header, _)), Some((&END, body))) =
        (blob.split_first_chunk::<HEADER>(), blob.split_last())
    else {
        return Err("a listpack lacks its header or end");
    };
    let [a, b, c, d, count_low, count_high] = *header;
    if u32::from_le_bytes([a, b, c, d]) as usize != blob.len() {
        return Err("a listpack's size is not what it says");
    }
    let announced = u16::from_le_bytes([count_low, count_high]);
    let entries = body.get(HEADER..).ok_or("a listpack lacks its header or end")?;
    let mut reader = Reader::new(entries);
    let mut count = 0usize;
    while reader.left() > 0 {
        let before = reader.left();
        entry(&mut reader, &mut f)?;
        let (backwards, len) = backwards(before - reader.left());
        if reader.bytes(len)? != &backwards[5 - len..] {
            return Err("a listpack entry's size is wrong");
        }
        count += 1;
    }
    if announced != u16::MAX && usize::from(announced) != count {
        return Err("a listpack's count is wrong");
    }
    Ok(())
}

fn entry(reader: &mut Reader<'_>, f: &mut impl FnMut(&[u8]) -> Result<(), Bad>) -> Result<(), Bad> {
    let first = reader.byte()?;
    let len = match first {
        0x80..=0xbf => usize::from(first & 0x3f),
        0xe0..=0xef => usize::from(u16::from_be_bytes([first & 0x0f, reader.byte()?])),
        0xf0 => u32::from_le_bytes(reader.array()?) as usize,
        _ => {
            let number = match first {
                0..=0x7f => i64::from(first),
                0xc0..=0xdf => {
                    // 13 bits, brought to the top so that the sign extends.
                    let bits = u16::from_be_bytes([first & 0x1f, reader.byte()?]);
                    i64::from(((bits << 3) as i16) >> 3)
                }
                0xf1 => i16::from_le_bytes(reader.array()?).into(),
                0xf2 => {
                    let [a, b, c] = reader.array()?;
                    i64::from(i32::from_le_bytes([0, a, b, c]) >> 8)
                }
                0xf3 => i32::from_le_bytes(reader.array()?).into(),
                0xf4 => i64::from_le_bytes(reader.array()?),
                _ => return Err("a listpack entry has an unknown encoding"),
            };
            return f(number.to_string().as_bytes());
        }
    };
    f(reader.bytes(len)?)
}

/// The size of an entry as it stands behind it: seven bits a byte, the most
/// significant first, all but the first marked. The last `.1` bytes of `.0`.
fn backwards(size: usize) -> ([u8; 5], usize) {
    // Redis takes one byte more than needed at the upper end of each width.
    let len = match size {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    };
    let mut bytes = [0; 5];
    for at in 0..len {
        let mark = if at + 1 == len { 0 } else { 0x80 };
        bytes[4 - at] = (size >> (7 * at)) as u8 & 0x7f | mark;
    }
    (bytes, len)
}
