//! Inline commands: one line of words with Redis's quoting.

use crate::request::ArgRange;

/// The line has a quote that is not closed, or is closed inside a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unbalanced;

/// Splits a line into words by Redis's rules; `None` when quotes do not match.
///
/// Words are separated by white space. Inside `"…"` the escapes `\n \r \t \b
/// \a \xHH` hold, and `\` keeps any other character; inside `'…'` only `\'`
/// does. A closing quote must be followed by white space or the end.
///
/// ```
/// use resp::split_args;
/// let words = split_args(br#"SET key "a\x00b" 'it\'s'"#).unwrap();
/// assert_eq!(words, [&b"SET"[..], b"key", b"a\0b", b"it's"]);
/// assert_eq!(split_args(b"GET \"open"), None);
/// ```
#[must_use]
pub fn split_args(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut words, mut ranges) = (Vec::new(), Vec::new());
    split_into(line, &mut words, &mut ranges).ok()?;
    Some(ranges.iter().map(|range| range.of(&words).to_vec()).collect())
}

/// Appends the unquoted words of `line` to `words` and their places to
/// `ranges`. Unquoting never makes a word longer.
pub(crate) fn split_into(
    line: &[u8],
    words: &mut Vec<u8>,
    ranges: &mut Vec<ArgRange>,
) -> Result<(), Unbalanced> {
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|&&byte| is_space(byte)).count();
        rest = &rest[blanks..];
        if rest.is_empty() {
            return Ok(());
        }
        let start = words.len();
        rest = take_word(rest, words)?;
        ranges.push(ArgRange::new(start, words.len() - start));
    }
}

/// Appends the first word of `rest` to `words`; returns what follows it.
fn take_word<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            // A quote inside a word opens too (`a"b c"` is one word), and its
            // closing quote ends the word.
            [b'"', tail @ ..] => return closed(take_double_quoted(tail, words)?),
            [b'\'', tail @ ..] => return closed(take_single_quoted(tail, words)?),
            [byte, tail @ ..] => {
                words.push(*byte);
                rest = tail;
            }
        }
    }
}

fn closed(rest: &[u8]) -> Result<&[u8], Unbalanced> {
    match rest {
        [byte, ..] if !is_space(*byte) => Err(Unbalanced),
        _ => Ok(rest),
    }
}

fn take_double_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        let (byte, tail) = match rest {
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex_value(*high) * 16 + hex_value(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => (unescape(*escaped), tail),
            [b'"', tail @ ..] => return Ok(tail),
            [byte, tail @ ..] => (*byte, tail),
            [] => return Err(Unbalanced),
        };
        words.push(byte);
        rest = tail;
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        let (byte, tail) = match rest {
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [b'\'', tail @ ..] => return Ok(tail),
            [byte, tail @ ..] => (*byte, tail),
            [] => return Err(Unbalanced),
        };
        words.push(byte);
        rest = tail;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// C's `isspace`, which Rust's `is_ascii_whitespace` misses the vertical tab of.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_quotes() {
        type Words = Option<&'static [&'static [u8]]>;
        let cases: &[(&[u8], Words)] = &[
            (b"", Some(&[])),
            (b" \t\x0b\x0c ", Some(&[])),
            (b"PING", Some(&[b"PING"])),
            (b"  GET   key  ", Some(&[b"GET", b"key"])),
            (b"a\tb", Some(&[b"a", b"b"])),
            (b"\"\"", Some(&[b""])),
            (b"''", Some(&[b""])),
            (br#""\n\r\t\b\a\x41\xfF\\\"\q""#, Some(&[b"\n\r\t\x08\x07A\xff\\\"q"])),
            (br#""\xg1\x4""#, Some(&[b"xg1x4"])),
            (br"'\n\'\\ '", Some(&[br"\n'\\ "])),
            (br"'a\\'", None),
            (br#"a"b c""#, Some(&[b"ab c"])),
            (br#"a"b"c"#, None),
            (br#""a"b"#, None),
            (b"'a'b", None),
            (b"\"open", None),
            (b"'open", None),
            (b"\"open\\", None),
            (b"\"a\"\x0b\"b\"", Some(&[b"a", b"b"])),
            (b"a\x0bb", Some(&[b"a\x0bb"])),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|words| words.iter().map(|w| w.to_vec()).collect());
            assert_eq!(split_args(line), expected, "{:?}", line.escape_ascii().to_string());
        }
    }
}
