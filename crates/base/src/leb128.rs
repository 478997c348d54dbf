//! Unsigned numbers in as few bytes as they need: LEB128, seven bits a byte,
//! lowest first. Signed ones take the way of zigzag: 0, -1, 1, -2, …

/// Why bytes are no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNumber {
    /// The bytes end within it.
    EndsEarly,
    /// It does not fit.
    TooGreat,
}

impl From<NoNumber> for &'static str {
    fn from(what: NoNumber) -> &'static str {
        match what {
            NoNumber::EndsEarly => "it ends early",
            NoNumber::TooGreat => "a number exceeds 64 bits",
        }
    }
}

/// Appends a number.
#[inline]
pub fn put(out: &mut Vec<u8>, value: u64) {
    // As with `take`: most are short.
    if value < 0x80 {
        out.push(value as u8);
    } else {
        put_long(out, value);
    }
}

#[inline(never)]
fn put_long(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front.
///
/// # Errors
/// When there is none, or one of more than 64 bits.
///
/// ```
/// let mut out = Vec::new();
/// base::leb128::put(&mut out, 300);
/// assert_eq!(base::leb128::take(&mut &out[..]), Ok(300));
/// ```
#[inline]
pub fn take(bytes: &mut &[u8]) -> Result<u64, NoNumber> {
    // Most are short, and every record has several.
    if let Some((&byte @ ..0x80, rest)) = bytes.split_first() {
        *bytes = rest;
        return Ok(u64::from(byte));
    }
    take_long(bytes)
}

fn take_long(bytes: &mut &[u8]) -> Result<u64, NoNumber> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(NoNumber::EndsEarly)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(NoNumber::TooGreat);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(NoNumber::TooGreat)
}

/// The unsigned number of a signed one, small where that is near zero.
#[must_use]
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The signed number that [`zigzag`] made.
#[must_use]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_round_trip() {
        for value in (0..64).map(|bit| 1u64 << bit).flat_map(|n| [n - 1, n, n + 1]) {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out.len(), (64 - (value | 1).leading_zeros()).div_ceil(7) as usize);
            let mut rest = &out[..];
            assert_eq!((take(&mut rest), rest.len()), (Ok(value), 0));
            assert_eq!(take(&mut &out[..out.len() - 1]), Err(NoNumber::EndsEarly));
            for signed in [value as i64, (value as i64).wrapping_neg()] {
                assert_eq!(unzigzag(zigzag(signed)), signed);
            }
        }
        let mut greatest = vec![0xff; 9];
        greatest.push(1);
        assert_eq!(take(&mut &greatest[..]), Ok(u64::MAX));
        greatest[9] = 2;
        assert_eq!(take(&mut &greatest[..]), Err(NoNumber::TooGreat));
    }
}
