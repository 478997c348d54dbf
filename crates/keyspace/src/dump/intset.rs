//! Intsets: integers of one width (u32, in bytes), their count (u32), and the
//! integers in ascending order, all little-endian.

use super::reader::{Bad, Reader};

/// Shows every member in ascending order.
pub(super) fn for_each(
    blob: &[u8],
    mut f: impl FnMut(&[u8]) -> Result<(), Bad>,
) -> Result<(), Bad> {
    let mut reader = Reader::new(blob);
    let width = u32::from_le_bytes(reader.array()?);
    let count = u32::from_le_bytes(reader.array()?) as usize;
    if !matches!(width, 2 | 4 | 8) {
        return Err("an intset's integers are not 2, 4 or 8 bytes wide");
    }
    if count.checked_mul(width as usize) != Some(reader.left()) {
        return Err("an intset's count is wrong");
    }
    let mut last = None;
    for _ in 0..count {
        let number = match width {
            2 => i16::from_le_bytes(reader.array()?).into(),
            4 => i32::from_le_bytes(reader.array()?).into(),
            _ => i64::from_le_bytes(reader.array()?),
        };
        if last.is_some_and(|last| last >= number) {
            return Err("an intset's members are not in order");
        }
        last = Some(number);
        f(number.to_string().as_bytes())?;
    }
    Ok(())
}
