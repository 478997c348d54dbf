//! Zipmaps, the compact hashes of Redis before 2.6.
//!
//! ```text
//! count  one byte, 254 or more for unknown
//! (length field, length free value spare*)*
//! end    0xff
//! ```
//!
//! A length is one byte below 254, or 254 and a u32. `free` is a byte: how
//! many spare bytes follow the value.

use super::reader::{Bad, Reader};

const BIG: u8 = 254;
const END: u8 = 255;

/// Shows every field and value.
pub(super) fn for_each(
    blob: &[u8],
    mut f: impl FnMut(&[u8], &[u8]) -> Result<(), Bad>,
) -> Result<(), Bad> {
    let Some((&END, body)) = blob.split_last() else {
        return Err("a zipmap lacks its end");
    };
    let mut reader = Reader::new(body);
    let announced = reader.byte()?;
    let mut count = 0usize;
    while reader.left() > 0 {
        let len = length(&mut reader)?;
        let field = reader.bytes(len)?;
        let len = length(&mut reader)?;
        let free = reader.byte()?;
        let value = reader.bytes(len)?;
        reader.bytes(usize::from(free))?;
        f(field, value)?;
        count += 1;
    }
    if announced < BIG && usize::from(announced) != count {
        return Err("a zipmap's count is wrong");
    }
    Ok(())
}

fn length(reader: &mut Reader<'_>) -> Result<usize, Bad> {
    match reader.byte()? {
        END => Err("a zipmap ends before its end"),
        BIG => match u32::from_le_bytes(reader.array()?) as usize {
            len if len < usize::from(BIG) => Err("a zipmap's length has the wrong form"),
            len => Ok(len),
        },
        len => Ok(usize::from(len)),
    }
}
