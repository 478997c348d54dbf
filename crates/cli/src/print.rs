//! How a reply looks.

use base::Frame;
use base::number::format_f64;

use crate::args::Format;
use crate::{json, table};

/// One reply in the given format, line end included.
#[must_use]
pub fn print(frame: &Frame, format: Format) -> Vec<u8> {
    match format {
        Format::Redis => redis(frame),
        Format::Raw => raw(frame),
        Format::Json => {
            let mut out = json::encode(frame).into_bytes();
            out.push(b'\n');
            out
        }
        Format::Table => table::draw(frame).into_bytes(),
    }
}

/// The layout of redis-cli on a terminal.
fn redis(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    write_redis(frame, "", &mut out);
    out
}

fn write_redis(frame: &Frame, prefix: &str, out: &mut Vec<u8>) {
    match frame {
        Frame::Array(items) => write_items(items, ')', "(empty array)", prefix, out),
        Frame::Set(items) => write_items(items, '~', "(empty set)", prefix, out),
        Frame::Push(items) => write_items(items, ')', "(empty push)", prefix, out),
        Frame::Map(pairs) => write_pairs(pairs, '#', "(empty hash)", prefix, out),
        Frame::Attribute(pairs) => write_pairs(pairs, '|', "(empty attribute)", prefix, out),
        Frame::Verbatim(_, text) => {
            out.extend_from_slice(text.as_bytes());
            out.push(b'\n');
        }
        scalar => {
            out.extend_from_slice(one_line(scalar).as_bytes());
            out.push(b'\n');
        }
    }
}

/// A scalar in redis-cli's words, without a line end. Aggregates are the
/// callers' business and shown by their size.
pub(crate) fn one_line(frame: &Frame) -> String {
    match frame {
        // Never a second line: an error may echo what a user sent.
        Frame::Error(text) => format!("(error) {}", visible(text)),
        Frame::Simple(text) => visible(text),
        Frame::Integer(number) => format!("(integer) {number}"),
        Frame::Bulk(bytes) => quoted(bytes),
        Frame::Null | Frame::NullArray => "(nil)".to_owned(),
        Frame::Double(number) => format!("(double) {}", format_f64(*number)),
        Frame::Boolean(true) => "(true)".to_owned(),
        Frame::Boolean(false) => "(false)".to_owned(),
        Frame::BigNumber(digits) => format!("(big number) {}", visible(digits)),
        Frame::Verbatim(_, text) => quoted(text.as_bytes()),
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => {
            format!("({} elements)", items.len())
        }
        Frame::Map(pairs) | Frame::Attribute(pairs) => format!("({} pairs)", pairs.len()),
    }
}

fn write_items(items: &[Frame], mark: char, empty: &str, prefix: &str, out: &mut Vec<u8>) {
    if items.is_empty() {
        out.extend_from_slice(format!("{empty}\n").as_bytes());
    }
    let width = items.len().to_string().len();
    let inner = format!("{prefix}{}", " ".repeat(width + 2));
    for (i, item) in items.iter().enumerate() {
        // The caller has already written the prefix of the first line.
        let shown = if i == 0 { "" } else { prefix };
        out.extend_from_slice(format!("{shown}{:width$}{mark} ", i + 1).as_bytes());
        write_redis(item, &inner, out);
    }
}

fn write_pairs(pairs: &[(Frame, Frame)], mark: char, empty: &str, prefix: &str, out: &mut Vec<u8>) {
    if pairs.is_empty() {
        out.extend_from_slice(format!("{empty}\n").as_bytes());
    }
    let width = pairs.len().to_string().len();
    let inner = format!("{prefix}{}", " ".repeat(width + 2));
    for (i, (key, value)) in pairs.iter().enumerate() {
        let shown = if i == 0 { "" } else { prefix };
        out.extend_from_slice(format!("{shown}{:width$}{mark} ", i + 1).as_bytes());
        write_redis(key, &inner, out);
        out.pop();
        out.extend_from_slice(b" => ");
        if is_several_lines(value) {
            out.extend_from_slice(format!("\n{inner}").as_bytes());
        }
        write_redis(value, &inner, out);
    }
}

fn is_several_lines(frame: &Frame) -> bool {
    match frame {
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => match items.as_slice() {
            [] => false,
            [only] => is_several_lines(only),
            _ => true,
        },
        Frame::Map(pairs) | Frame::Attribute(pairs) => match pairs.as_slice() {
            [] => false,
            [(_, value)] => is_several_lines(value),
            _ => true,
        },
        _ => false,
    }
}

/// Bytes in quotes, with Redis's escapes, so that they can be typed again.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend(['\\', char::from(byte)]),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x07 => out.push_str("\\a"),
            0x08 => out.push_str("\\b"),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

/// Text with its control characters escaped: what a server says must not move
/// the cursor.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The bytes themselves, one element a line; a key and its value a line each.
fn raw(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    write_raw(frame, &mut out);
    out.push(b'\n');
    out
}

fn write_raw(frame: &Frame, out: &mut Vec<u8>) {
    match frame {
        Frame::Simple(text)
        | Frame::Error(text)
        | Frame::BigNumber(text)
        | Frame::Verbatim(_, text) => out.extend_from_slice(text.as_bytes()),
        Frame::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Frame::Bulk(bytes) => out.extend_from_slice(bytes),
        Frame::Null | Frame::NullArray => {}
        Frame::Double(number) => out.extend_from_slice(format_f64(*number).as_bytes()),
        Frame::Boolean(yes) => out.extend_from_slice(if *yes { b"true" } else { b"false" }),
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => {
            write_raw_lines(items.iter(), out);
        }
        Frame::Map(pairs) | Frame::Attribute(pairs) => {
            write_raw_lines(pairs.iter().flat_map(|(key, value)| [key, value]), out);
        }
    }
}

fn write_raw_lines<'a>(items: impl Iterator<Item = &'a Frame>, out: &mut Vec<u8>) {
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b'\n');
        }
        write_raw(item, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Frame {
        Frame::bulk(text)
    }

    /// Every type once, with its four faces.
    fn every_type() -> Vec<(Frame, &'static str, &'static str, &'static str, &'static str)> {
        let two = || vec![Frame::Integer(1), bulk("b")];
        let pairs = || vec![(bulk("k"), Frame::Integer(1)), (bulk("l"), Frame::Array(two()))];
        vec![
            (Frame::Simple("OK".into()), "OK\n", "OK\n", "\"OK\"\n", "OK\n"),
            (
                Frame::Error("ERR no".into()),
                "(error) ERR no\n",
                "ERR no\n",
                "{\"error\":\"ERR no\"}\n",
                "(error) ERR no\n",
            ),
            (Frame::Integer(-7), "(integer) -7\n", "-7\n", "-7\n", "-7\n"),
            (
                bulk("a\"\n\u{1}"),
                "\"a\\\"\\n\\x01\"\n",
                "a\"\n\u{1}\n",
                "\"a\\\"\\n\\u0001\"\n",
                "a\"\\n\\u{1}\n",
            ),
            (Frame::Null, "(nil)\n", "\n", "null\n", "(nil)\n"),
            (Frame::NullArray, "(nil)\n", "\n", "null\n", "(nil)\n"),
            (Frame::Double(0.5), "(double) 0.5\n", "0.5\n", "0.5\n", "0.5\n"),
            (Frame::Double(f64::INFINITY), "(double) inf\n", "inf\n", "\"inf\"\n", "inf\n"),
            (Frame::Boolean(true), "(true)\n", "true\n", "true\n", "true\n"),
            (Frame::Boolean(false), "(false)\n", "false\n", "false\n", "false\n"),
            (
                Frame::BigNumber("123456789012345678901".into()),
                "(big number) 123456789012345678901\n",
                "123456789012345678901\n",
                "123456789012345678901\n",
                "123456789012345678901\n",
            ),
            (
                Frame::Verbatim("txt".into(), "a\nb".into()),
                "a\nb\n",
                "a\nb\n",
                "\"a\\nb\"\n",
                "a\nb\n",
            ),
            (
                Frame::Array(two()),
                "1) (integer) 1\n2) \"b\"\n",
                "1\nb\n",
                "[1,\"b\"]\n",
                "+---+-------+\n| # | value |\n+---+-------+\n| 1 | 1     |\n| 2 | b     |\n+---+-------+\n",
            ),
            (
                Frame::Set(two()),
                "1~ (integer) 1\n2~ \"b\"\n",
                "1\nb\n",
                "[1,\"b\"]\n",
                "+---+-------+\n| # | value |\n+---+-------+\n| 1 | 1     |\n| 2 | b     |\n+---+-------+\n",
            ),
            (
                Frame::Push(two()),
                "1) (integer) 1\n2) \"b\"\n",
                "1\nb\n",
                "[1,\"b\"]\n",
                "+---+-------+\n| # | value |\n+---+-------+\n| 1 | 1     |\n| 2 | b     |\n+---+-------+\n",
            ),
            (
                Frame::Map(pairs()),
                "1# \"k\" => (integer) 1\n2# \"l\" => \n   1) (integer) 1\n   2) \"b\"\n",
                "k\n1\nl\n1\nb\n",
                "{\"k\":1,\"l\":[1,\"b\"]}\n",
                "+-----+---------+\n| key | value   |\n+-----+---------+\n| k   | 1       |\n| l   | [1,\"b\"] |\n+-----+---------+\n",
            ),
            (
                Frame::Attribute(vec![(bulk("k"), Frame::Integer(1))]),
                "1| \"k\" => (integer) 1\n",
                "k\n1\n",
                "{\"k\":1}\n",
                "+-----+-------+\n| key | value |\n+-----+-------+\n| k   | 1     |\n+-----+-------+\n",
            ),
            (Frame::Array(vec![]), "(empty array)\n", "\n", "[]\n", "(empty)\n"),
            (Frame::Set(vec![]), "(empty set)\n", "\n", "[]\n", "(empty)\n"),
            (Frame::Push(vec![]), "(empty push)\n", "\n", "[]\n", "(empty)\n"),
            (Frame::Map(vec![]), "(empty hash)\n", "\n", "{}\n", "(empty)\n"),
        ]
    }

    #[test]
    fn every_type_in_every_format() {
        for (frame, redis, raw, json, table) in every_type() {
            for (format, expected) in [
                (Format::Redis, redis),
                (Format::Raw, raw),
                (Format::Json, json),
                (Format::Table, table),
            ] {
                let printed = String::from_utf8(print(&frame, format)).unwrap();
                assert_eq!(printed, expected, "{frame:?} as {format:?}");
            }
        }
    }

    #[test]
    fn nesting_is_indented_as_redis_cli_does() {
        let inner = Frame::Array(vec![Frame::Integer(1), Frame::Array(vec![bulk("x"), bulk("y")])]);
        let mut items = vec![inner];
        items.extend((0..9).map(Frame::Integer));
        let printed = String::from_utf8(print(&Frame::Array(items), Format::Redis)).unwrap();
        assert!(
            printed.starts_with(
                " 1) 1) (integer) 1\n    2) 1) \"x\"\n       2) \"y\"\n 2) (integer) 0\n"
            ),
            "{printed}"
        );
        assert!(printed.ends_with("10) (integer) 8\n"));
    }

    #[test]
    fn a_server_cannot_move_the_cursor() {
        let error = Frame::Error("ERR \u{1b}[2J\r\nOK".into());
        assert_eq!(print(&error, Format::Redis), b"(error) ERR \\u{1b}[2J\\r\\nOK\n");
    }
}
