//! Replies as text: close to redis-cli's, but telling every RESP3 shape apart.
//!
//! | Reply | Text |
//! | --- | --- |
//! | simple string | `OK` |
//! | error | `(error) ERR no such key` |
//! | integer | `(integer) 1` |
//! | bulk string | `"a\x00b"` |
//! | null, null array | `(nil)`, `(nil array)` |
//! | array | `1) …` per element; `(empty array)` |
//! | map | `1# key => value` per pair; `(empty map)` |
//! | set | `1~ …` per element; `(empty set)` |
//! | push | `1> …` per element; `(empty push)` |
//! | attribute | `1\| key => value` per pair |
//! | double | `(double) 1.5` |
//! | boolean | `(boolean) true` |
//! | big number | `(big) 123…` |
//! | verbatim string | `(verbatim txt) "…"` |
//!
//! An aggregate inside an aggregate continues on its line and is indented
//! below it.

use std::fmt::Write as _;

use base::Frame;
use base::number::format_f64;

/// The lines of one reply.
///
/// ```
/// use base::Frame;
/// let frame = Frame::Array(vec![Frame::bulk("a"), Frame::Set(vec![Frame::Integer(1), Frame::Null])]);
/// let expected = ["1) \"a\"", "2) 1~ (integer) 1", "   2~ (nil)"];
/// assert_eq!(testkit::notation::lines(&frame), expected);
/// ```
#[must_use]
pub fn lines(frame: &Frame) -> Vec<String> {
    match frame {
        Frame::Simple(text) if is_plain(text) => vec![text.clone()],
        Frame::Simple(text) => vec![format!("(simple) {}", quote(text.as_bytes()))],
        Frame::Error(text) => vec![format!("(error) {}", escape_line(text))],
        Frame::Integer(value) => vec![format!("(integer) {value}")],
        Frame::Bulk(bytes) => vec![quote(bytes)],
        Frame::Null => vec!["(nil)".to_owned()],
        Frame::NullArray => vec!["(nil array)".to_owned()],
        Frame::Array(items) => list(items, ')', "(empty array)"),
        Frame::Set(items) => list(items, '~', "(empty set)"),
        Frame::Push(items) => list(items, '>', "(empty push)"),
        Frame::Map(pairs) => table(pairs, '#', "(empty map)"),
        Frame::Attribute(pairs) => table(pairs, '|', "(empty attribute)"),
        Frame::Double(value) => vec![format!("(double) {}", format_f64(*value))],
        Frame::Boolean(value) => vec![format!("(boolean) {value}")],
        Frame::BigNumber(digits) => vec![format!("(big) {digits}")],
        Frame::Verbatim(format, text) => {
            vec![format!("(verbatim {format}) {}", quote(text.as_bytes()))]
        }
    }
}

/// The reply with the elements of its outermost array, set, push or map in a
/// fixed order, for replies that come in any order.
#[must_use]
pub fn sorted(frame: Frame) -> Frame {
    let by_text = |items: &mut Vec<Frame>| items.sort_by_key(lines);
    match frame {
        Frame::Array(mut items) => {
            by_text(&mut items);
            Frame::Array(items)
        }
        Frame::Set(mut items) => {
            by_text(&mut items);
            Frame::Set(items)
        }
        Frame::Push(mut items) => {
            by_text(&mut items);
            Frame::Push(items)
        }
        Frame::Map(mut pairs) => {
            pairs.sort_by_key(|(key, _)| lines(key));
            Frame::Map(pairs)
        }
        other => other,
    }
}

/// `bytes` in double quotes; [`resp::split_args`] reads it back.
#[must_use]
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for &byte in bytes {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x07 => out.push_str("\\a"),
            0x08 => out.push_str("\\b"),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => write!(out, "\\x{byte:02x}").expect("a String takes any text"),
        }
    }
    out.push('"');
    out
}

/// Whether a simple string can stand as it is without being taken for another
/// reply or for a line of a script.
fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '@')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " _-.,:@|".contains(c))
        && !text.ends_with(' ')
}

/// An error keeps its words, but stays on its line, and a space at its end
/// stays visible.
fn escape_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if out.ends_with(' ') {
        out.pop();
        out.push_str("\\x20");
    }
    out
}

fn list(items: &[Frame], mark: char, empty: &str) -> Vec<String> {
    if items.is_empty() {
        return vec![empty.to_owned()];
    }
    let rows = items.iter().enumerate();
    rows.flat_map(|(index, item)| indented(&format!("{}{mark} ", index + 1), lines(item))).collect()
}

fn table(pairs: &[(Frame, Frame)], mark: char, empty: &str) -> Vec<String> {
    if pairs.is_empty() {
        return vec![empty.to_owned()];
    }
    let mut out = Vec::new();
    for (index, (key, value)) in pairs.iter().enumerate() {
        let head = format!("{}{mark} ", index + 1);
        let mut key = indented(&head, lines(key));
        let last = key.pop().expect("a reply has a line");
        out.append(&mut key);
        let value = lines(value);
        // A value of several lines goes below its key, or it would start at a
        // column that depends on the key.
        if value.len() == 1 {
            out.push(format!("{last} => {}", value[0]));
        } else {
            out.push(format!("{last} =>"));
            out.extend(indented(&" ".repeat(head.len()), value));
        }
    }
    out
}

/// `head` before the first line, as many spaces before the others.
fn indented(head: &str, lines: Vec<String>) -> Vec<String> {
    let blank = " ".repeat(head.len());
    let rows = lines.into_iter().enumerate();
    rows.map(|(index, line)| format!("{}{line}", if index == 0 { head } else { &blank })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_replies() {
        for (frame, expected) in [
            (Frame::Simple("OK".to_owned()), "OK"),
            (Frame::Simple("1 0.0 [0]".to_owned()), "(simple) \"1 0.0 [0]\""),
            (Frame::Simple(String::new()), "(simple) \"\""),
            (Frame::Error("ERR no\r\nsuch ".to_owned()), "(error) ERR no\\r\\nsuch\\x20"),
            (Frame::Integer(-1), "(integer) -1"),
            (Frame::bulk(b"a\"\\\n\0\xff"), r#""a\"\\\n\x00\xff""#),
            (Frame::bulk(""), "\"\""),
            (Frame::Null, "(nil)"),
            (Frame::NullArray, "(nil array)"),
            (Frame::Array(vec![]), "(empty array)"),
            (Frame::Map(vec![]), "(empty map)"),
            (Frame::Set(vec![]), "(empty set)"),
            (Frame::Double(f64::INFINITY), "(double) inf"),
            (Frame::Boolean(true), "(boolean) true"),
            (Frame::BigNumber("12".to_owned()), "(big) 12"),
            (Frame::Verbatim("txt".to_owned(), "a".to_owned()), "(verbatim txt) \"a\""),
        ] {
            assert_eq!(lines(&frame), [expected], "{frame:?}");
        }
    }

    #[test]
    fn nested_replies() {
        let inner = Frame::Array(vec![Frame::Integer(1), Frame::Integer(2)]);
        let map = Frame::Map(vec![
            (Frame::bulk("a"), Frame::Null),
            (Frame::bulk("b"), inner.clone()),
            (Frame::bulk("c"), Frame::Set(vec![inner.clone()])),
        ]);
        let frame = Frame::Push(vec![inner, map]);
        let expected = [
            "1> 1) (integer) 1",
            "   2) (integer) 2",
            "2> 1# \"a\" => (nil)",
            "   2# \"b\" =>",
            "      1) (integer) 1",
            "      2) (integer) 2",
            "   3# \"c\" =>",
            "      1~ 1) (integer) 1",
            "         2) (integer) 2",
        ];
        assert_eq!(lines(&frame), expected);
    }

    #[test]
    fn sorting_is_for_the_outermost_aggregate() {
        let unsorted = Frame::Array(vec![
            Frame::bulk("b"),
            Frame::Array(vec![Frame::bulk("z"), Frame::bulk("y")]),
            Frame::bulk("a"),
        ]);
        assert_eq!(
            lines(&sorted(unsorted)),
            ["1) \"a\"", "2) \"b\"", "3) 1) \"z\"", "   2) \"y\""]
        );
        let map =
            Frame::Map(vec![(Frame::bulk("b"), Frame::Null), (Frame::bulk("a"), Frame::Null)]);
        assert_eq!(lines(&sorted(map))[0], "1# \"a\" => (nil)");
    }

    #[test]
    fn quoted_bytes_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(resp::split_args(quote(&all).as_bytes()), Some(vec![all]));
    }
}
