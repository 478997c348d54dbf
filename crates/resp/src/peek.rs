//! Looking ahead in a pipeline.

/// The second word of a request, and where the request ends.
///
/// In nearly every command the second word is a key, which makes this worth
/// knowing before the request's turn comes. It is a hint and gives up (`None`)
/// at anything unusual: an incomplete or an inline request, a length of more
/// than four digits, fewer than two words. It checks nothing that
/// [`Decoder`](crate::Decoder) does not check again.
///
/// ```
/// let pipeline = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n";
/// assert_eq!(resp::peek_second_word(pipeline), Some((&b"k"[..], 20)));
/// assert_eq!(resp::peek_second_word(&pipeline[20..]), None);
/// ```
#[inline]
#[must_use]
pub fn peek_second_word(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (words, mut at) = number_line(bytes, 0, b'*')?;
    if words < 2 {
        return None;
    }
    let mut second: &[u8] = b"";
    for word in 0..words {
        let (len, start) = number_line(bytes, at, b'$')?;
        at = start + len + 2;
        if at > bytes.len() {
            return None;
        }
        if word == 1 {
            second = &bytes[start..start + len];
        }
    }
    Some((second, at))
}

/// The number of a length line, and the offset after it.
#[inline]
fn number_line(bytes: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let line = bytes.get(at..)?;
    // One or two digits are nearly all lengths there are.
    match line {
        [first, digit @ b'0'..=b'9', b'\r', ..] if *first == kind => {
            Some((usize::from(digit - b'0'), at + 4))
        }
        [first, tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'\r', ..] if *first == kind => {
            Some((usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), at + 5))
        }
        [first, digits @ ..] if *first == kind => {
            let digits = &digits[..digits.len().min(LENGTH_DIGITS_MAX + 1)];
            let len = digits.iter().position(|&byte| byte == b'\r')?;
            let number = base::number::parse_i64(&digits[..len])?;
            Some((usize::try_from(number).ok()?, at + len + 3))
        }
        _ => None,
    }
}

/// A longer length is no usual request.
const LENGTH_DIGITS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unusual_gives_nothing() {
        for bytes in [
            &b""[..],
            b"*",
            b"*2\r\n",
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r",
            b"*2\r\n$3\r\nGET\r\n$-1\r\n",
            b"*2\r\n$99999\r\n",
            b"*2\r\n$3\r\nGET\r\n:1\r\n",
            b"*\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            b"GET k\r\n",
        ] {
            assert_eq!(peek_second_word(bytes), None, "{bytes:?}");
        }
        let set = b"*3\r\n$3\r\nSET\r\n$2\r\nkk\r\n$0\r\n\r\n";
        assert_eq!(peek_second_word(set), Some((&b"kk"[..], set.len())));
    }
}
