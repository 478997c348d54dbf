//! A reply as JSON.
//!
//! Bytes that are not UTF-8 become the code points of the same number
//! (`\u00ff`), so nothing is lost. Doubles that JSON does not know are strings.

use std::fmt::Write;

use base::Frame;
use base::number::format_f64;

/// One JSON value, on one line.
pub(crate) fn encode(frame: &Frame) -> String {
    let mut out = String::new();
    write(frame, &mut out);
    out
}

fn write(frame: &Frame, out: &mut String) {
    match frame {
        Frame::Simple(text) | Frame::Verbatim(_, text) => string(text.chars(), out),
        Frame::Error(text) => {
            out.push_str("{\"error\":");
            string(text.chars(), out);
            out.push('}');
        }
        Frame::Integer(number) => out.push_str(&number.to_string()),
        Frame::Bulk(bytes) => bulk(bytes, out),
        Frame::Null | Frame::NullArray => out.push_str("null"),
        Frame::Double(number) if number.is_finite() => out.push_str(&format_f64(*number)),
        Frame::Double(number) => string(format_f64(*number).chars(), out),
        Frame::Boolean(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Frame::BigNumber(digits) if is_integer(digits) => out.push_str(digits),
        Frame::BigNumber(digits) => string(digits.chars(), out),
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                write(item, out);
            }
            out.push(']');
        }
        Frame::Map(pairs) | Frame::Attribute(pairs) => {
            out.push('{');
            for (i, (key, value)) in pairs.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                name(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

/// A member's name is a string in JSON, whatever the key is in RESP.
fn name(key: &Frame, out: &mut String) {
    match key {
        Frame::Bulk(bytes) => bulk(bytes, out),
        Frame::Simple(text) | Frame::Error(text) | Frame::Verbatim(_, text) => {
            string(text.chars(), out);
        }
        other => {
            let text = encode(other);
            let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            string(bare.unwrap_or(&text).chars(), out);
        }
    }
}

fn bulk(bytes: &[u8], out: &mut String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => string(text.chars(), out),
        Err(_) => string(bytes.iter().map(|&byte| char::from(byte)), out),
    }
}

fn string(chars: impl Iterator<Item = char>, out: &mut String) {
    out.push('"');
    for c in chars {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Beyond JSON's demand, what a terminal would obey.
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether `digits` is an integer in JSON's sense.
fn is_integer(digits: &str) -> bool {
    let bare = digits.strip_prefix('-').unwrap_or(digits);
    !bare.is_empty()
        && bare.bytes().all(|byte| byte.is_ascii_digit())
        && (bare == "0" || !bare.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_stay_valid_json() {
        for (frame, expected) in [
            (Frame::bulk(b"\xff\x00"), "\"\u{ff}\\u0000\""),
            (Frame::bulk("snow ☃"), "\"snow ☃\""),
            (Frame::Double(f64::NAN), "\"nan\""),
            (Frame::Double(1e21), "1e+21"),
            (Frame::BigNumber("007".into()), "\"007\""),
            (Frame::Map(vec![(Frame::Integer(1), Frame::Null)]), "{\"1\":null}"),
            (Frame::Map(vec![(Frame::Double(f64::INFINITY), Frame::Null)]), "{\"inf\":null}"),
            (
                Frame::Map(vec![(Frame::Array(vec![Frame::bulk("a")]), Frame::Null)]),
                "{\"[\\\"a\\\"]\":null}",
            ),
        ] {
            assert_eq!(encode(&frame), expected);
        }
    }
}
