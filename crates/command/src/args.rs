//! Reading arguments.

use base::number;

use crate::error::{Error, Result};

/// A cursor over a command's arguments, its name not included.
///
/// ```
/// use command::Args;
/// let mut args = Args::new(&[b"key", b"EX", b"10"]);
/// let key = args.next()?;
/// assert_eq!(key, b"key");
/// if args.take_word("ex") {
///     assert_eq!(args.next_i64()?, 10);
/// }
/// args.end()?;
/// # Ok::<(), command::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    rest: &'a [&'a [u8]],
}

impl<'a> Args<'a> {
    /// A cursor at the first of `args`.
    #[must_use]
    pub fn new(args: &'a [&'a [u8]]) -> Args<'a> {
        Args { rest: args }
    }

    /// The arguments not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [&'a [u8]] {
        self.rest
    }

    /// How many arguments are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next argument.
    ///
    /// # Errors
    /// `ERR syntax error` when there is none.
    #[allow(clippy::should_implement_trait, reason = "an error, not an end")]
    pub fn next(&mut self) -> Result<&'a [u8]> {
        let (first, rest) = self.rest.split_first().ok_or(Error::SYNTAX)?;
        self.rest = rest;
        Ok(first)
    }

    /// The next `count` arguments.
    ///
    /// # Errors
    /// `ERR syntax error` when there are fewer.
    pub fn take(&mut self, count: usize) -> Result<&'a [&'a [u8]]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Error::SYNTAX)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads the next argument if it is `word` in any case.
    pub fn take_word(&mut self, word: &str) -> bool {
        let hit = self.rest.first().is_some_and(|arg| is_word(arg, word));
        if hit {
            self.rest = &self.rest[1..];
        }
        hit
    }

    /// The next argument as a 64-bit integer.
    ///
    /// # Errors
    /// `ERR value is not an integer or out of range`.
    pub fn next_i64(&mut self) -> Result<i64> {
        integer(self.next()?)
    }

    /// The next argument as a count that is not negative.
    ///
    /// # Errors
    /// `ERR value is not an integer or out of range`, or `…, must be positive`.
    pub fn next_count(&mut self) -> Result<usize> {
        usize::try_from(self.next_i64()?).map_err(|_| Error::MUST_BE_POSITIVE)
    }

    /// The next argument as a double.
    ///
    /// # Errors
    /// `ERR value is not a valid float`.
    pub fn next_f64(&mut self) -> Result<f64> {
        float(self.next()?)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// `ERR syntax error` otherwise.
    pub fn end(&self) -> Result {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::SYNTAX) }
    }
}

/// Reads a duration in milliseconds: `500ms 30s 10m 2h 7d`; a bare number is
/// seconds. `None` for anything else.
#[must_use]
pub fn duration_ms(arg: &[u8]) -> Option<u64> {
    base::units::parse_duration_ms(std::str::from_utf8(arg).ok()?, 1000)
}

/// Whether an argument is `word`, in any case.
#[must_use]
pub fn is_word(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// At most 64 bytes of what a client sent, for a message.
#[must_use]
pub fn shown(arg: &[u8]) -> String {
    String::from_utf8_lossy(&arg[..arg.len().min(64)]).into_owned()
}

/// An argument as a 64-bit integer.
///
/// # Errors
/// `ERR value is not an integer or out of range`.
pub fn integer(arg: &[u8]) -> Result<i64> {
    number::parse_i64(arg).ok_or(Error::NOT_INTEGER)
}

/// An argument as a double.
///
/// # Errors
/// `ERR value is not a valid float`.
pub fn float(arg: &[u8]) -> Result<f64> {
    number::parse_f64(arg).ok_or(Error::NOT_FLOAT)
}

/// Text as a double, read as C's `strtod` does, which Redis uses for bounds of
/// scores and in SORT: leading blanks are skipped, nothing at all is zero, and
/// what is too large is infinite. `None` when that is not all of the text, or
/// no number.
#[must_use]
pub fn lenient_float(text: &[u8]) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    let blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let digits = &text[text.iter().take_while(|byte| blank(byte)).count()..];
    let value: f64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// An argument as an integer of at least `least`. Every other argument is
/// `error`, as in Redis's range checks that have a message of their own.
///
/// # Errors
/// `error`.
pub fn at_least(least: i64, arg: &[u8], error: Error) -> Result<usize> {
    number::parse_i64(arg)
        .filter(|&n| n >= least)
        .and_then(|n| usize::try_from(n).ok())
        .ok_or(error)
}

/// Most repeated picks of one HRANDFIELD or ZRANDMEMBER: their reply is built
/// whole.
const REPEATS_MAX: i64 = 1 << 24;

/// `count [word]` of HRANDFIELD and ZRANDMEMBER: the count and whether the word
/// is there.
///
/// # Errors
/// When the count is no integer or out of range, or another word follows.
pub fn random_count(args: &[&[u8]], word: &str) -> Result<(i64, bool)> {
    let (count, rest) = args.split_first().ok_or(Error::SYNTAX)?;
    let count = integer(count)?;
    if count == i64::MIN {
        return Err(Error::not_between(-i64::MAX, i64::MAX));
    }
    let is_paired = match rest {
        [] => false,
        [other] if is_word(other, word) => true,
        _ => return Err(Error::SYNTAX),
    };
    if is_paired && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(Error::new("ERR value is out of range"));
    }
    let repeats_max = if is_paired { REPEATS_MAX / 2 } else { REPEATS_MAX };
    if count < -repeats_max {
        return Err(Error::not_between(-repeats_max, i64::MAX));
    }
    Ok((count, is_paired))
}

/// The timeout of a blocking command: seconds, with a fraction, as
/// milliseconds rounded up; `None`, for ever, when it is zero.
///
/// # Errors
/// One of the three `ERR timeout is …`.
pub fn timeout_ms(arg: &[u8], now_ms: u64) -> Result<Option<u64>> {
    let ms = number::parse_f64(arg).ok_or(Error::TIMEOUT_NOT_FLOAT)? * 1000.0;
    if ms > i64::MAX as f64 {
        return Err(Error::TIMEOUT_OUT_OF_RANGE);
    }
    let ms = u64::try_from(ms.ceil() as i64).map_err(|_| Error::TIMEOUT_NEGATIVE)?;
    if ms > (i64::MAX as u64).saturating_sub(now_ms) {
        return Err(Error::TIMEOUT_OUT_OF_RANGE);
    }
    Ok((ms > 0).then_some(ms))
}

/// Redis's index rule: negative counts from the end.
#[must_use]
pub fn from_end(index: i64, len: usize) -> i64 {
    if index < 0 { index.saturating_add(len as i64) } else { index }
}

/// Start and stop (both included, negative from the end) of a range command as
/// a range of indices; empty when they do not meet.
#[must_use]
pub fn index_range(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let start = from_end(start, len).max(0);
    let stop = from_end(stop, len).min(len as i64 - 1);
    if start > stop { 0..0 } else { start as usize..stop as usize + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_clip_as_redis_does() {
        for (start, stop, len, expected) in [
            (0, -1, 5, 0..5),
            (-3, -1, 5, 2..5),
            (-100, 100, 5, 0..5),
            (3, 1, 5, 0..0),
            (5, 9, 5, 0..0),
            (0, -1, 0, 0..0),
            (i64::MIN, i64::MAX, 3, 0..3),
        ] {
            assert_eq!(index_range(start, stop, len), expected, "{start} {stop} {len}");
        }
    }

    #[test]
    fn lenient_floats() {
        for (text, expected) in [
            ("", Some(0.0)),
            (" \t1.5", Some(1.5)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("1e999", Some(f64::INFINITY)),
            ("1 ", None),
            (" ", None),
            ("nan", None),
            ("abc", None),
        ] {
            assert_eq!(lenient_float(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn timeouts_round_up_and_zero_is_for_ever() {
        for (text, expected) in [
            ("0", Ok(None)),
            ("-0.0001", Ok(None)),
            ("0.0001", Ok(Some(1))),
            ("1.5", Ok(Some(1500))),
            ("-1", Err(Error::TIMEOUT_NEGATIVE)),
            ("-inf", Err(Error::TIMEOUT_NEGATIVE)),
            ("inf", Err(Error::TIMEOUT_OUT_OF_RANGE)),
            ("9223372036854775", Err(Error::TIMEOUT_OUT_OF_RANGE)),
            ("1s", Err(Error::TIMEOUT_NOT_FLOAT)),
        ] {
            assert_eq!(timeout_ms(text.as_bytes(), 1 << 40), expected, "{text}");
        }
    }

    #[test]
    fn the_cursor_stops_at_the_end() {
        let mut args = Args::new(&[b"1", b"x"]);
        assert_eq!(args.next_i64(), Ok(1));
        assert!(!args.take_word("y"));
        assert_eq!(args.end(), Err(Error::SYNTAX));
        assert_eq!(args.next_f64(), Err(Error::NOT_FLOAT));
        assert_eq!(args.next(), Err(Error::SYNTAX));
    }
}
