//! What SCAN, SSCAN, HSCAN and ZSCAN share: cursors, options, the reply.

use base::{Reply, glob};

use crate::args::Args;
use crate::error::{Error, Result};

/// MATCH and COUNT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    /// `None`: everything matches.
    pattern: Option<&'a [u8]>,
    /// About how many elements to visit.
    pub(crate) count: usize,
}

impl<'a> Options<'a> {
    /// Reads the options after the cursor.
    ///
    /// # Errors
    /// When one is unknown, lacks its value, or the count is no integer above
    /// zero.
    pub(crate) fn parse(mut args: Args<'a>) -> Result<Options<'a>> {
        let mut options = Options { pattern: None, count: 10 };
        while !args.is_empty() {
            if args.len() < 2 {
                return Err(Error::SYNTAX);
            }
            if args.take_word("count") {
                let count = args.next_i64()?;
                if count < 1 {
                    return Err(Error::SYNTAX);
                }
                options.count = usize::try_from(count).unwrap_or(usize::MAX);
            } else if args.take_word("match") {
                options.pattern = Some(args.next()?).filter(|&pattern| pattern != b"*");
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(options)
    }

    /// Whether an element is wanted.
    pub(crate) fn matches(&self, element: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, element))
    }
}

/// A cursor, read as `strtoul` does, which Redis uses: a sign is allowed, a
/// negative number wraps around, nothing is zero.
///
/// # Errors
/// `ERR invalid cursor`.
pub(crate) fn cursor(arg: &[u8]) -> Result<u64> {
    let (negative, digits) = match arg {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
    let number: u64 = digits.and_then(|text| text.parse().ok()).ok_or(Error::INVALID_CURSOR)?;
    Ok(if negative { number.wrapping_neg() } else { number })
}

/// Begins a reply: the next cursor and an array whose `len` elements the caller
/// writes.
pub(crate) fn write_page(next: u64, len: usize, reply: &mut dyn Reply) {
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(next).as_bytes());
    reply.array(len);
}

/// The reply for a key that does not exist.
pub(crate) fn write_end(reply: &mut dyn Reply) {
    write_page(0, 0, reply);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors() {
        for (text, expected) in
            [("18446744073709551615", u64::MAX), ("", 0), ("007", 7), ("+7", 7), ("-1", u64::MAX)]
        {
            assert_eq!(cursor(text.as_bytes()), Ok(expected), "{text:?}");
        }
        for bad in [" 1", "1 ", "1x", "-", "+-1", "++1", "18446744073709551616"] {
            assert_eq!(cursor(bad.as_bytes()), Err(Error::INVALID_CURSOR), "{bad:?}");
        }
    }

    #[test]
    fn options() {
        let parse = |words: &[&'static [u8]]| {
            Options::parse(Args::new(words)).map(|o| (o.count, o.pattern.map(<[u8]>::to_vec)))
        };
        assert_eq!(parse(&[]), Ok((10, None)));
        assert_eq!(parse(&[b"match", b"*", b"COUNT", b"3"]), Ok((3, None)));
        assert_eq!(parse(&[b"MATCH", b"a*"]), Ok((10, Some(b"a*".to_vec()))));
        assert_eq!(parse(&[b"count", b"0"]), Err(Error::SYNTAX));
        assert_eq!(parse(&[b"count", b"x"]), Err(Error::NOT_INTEGER));
        assert_eq!(parse(&[b"count"]), Err(Error::SYNTAX));
        assert_eq!(parse(&[b"type", b"set"]), Err(Error::SYNTAX));
    }
}
