//! Replies and commands to bytes.

use base::number::format_f64;
use base::{Frame, Reply};

use crate::attribute::Latest;

/// The protocol version a connection speaks, chosen by `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Version 2, where every connection starts.
    #[default]
    Resp2,
    /// Version 3: maps, sets, doubles, booleans, pushes and attributes.
    Resp3,
}

/// A [`Reply`] sink that appends RESP to a buffer.
///
/// ```
/// use base::Reply;
/// use resp::{Encoder, Protocol};
/// let mut encoder = Encoder::new(Protocol::Resp3);
/// encoder.map(1);
/// encoder.bulk(b"k");
/// encoder.double(0.5);
/// assert_eq!(encoder.out, b"%1\r\n$1\r\nk\r\n,0.5\r\n");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    /// The encoded replies; the caller takes what it has sent.
    pub out: Vec<u8>,
    /// How replies are encoded from now on.
    pub protocol: Protocol,
    latest: Latest,
}

impl Encoder {
    /// An encoder with an empty buffer.
    #[must_use]
    pub fn new(protocol: Protocol) -> Encoder {
        Encoder { protocol, ..Encoder::default() }
    }

    #[inline]
    fn resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// Puts an attribute of these pairs in front of what is encoded from `start`
    /// on: for what is only known once the reply is written.
    ///
    /// ```
    /// use base::Reply;
    /// use resp::{Encoder, Protocol};
    /// let mut encoder = Encoder::new(Protocol::Resp3);
    /// encoder.ok();
    /// encoder.put_attributes_before(0, &[("rev", 7)]);
    /// assert_eq!(encoder.out, b"|1\r\n$3\r\nrev\r\n:7\r\n+OK\r\n");
    /// ```
    ///
    /// # Panics
    /// On RESP2, as [`Reply::attribute`].
    pub fn put_attributes_before(&mut self, start: usize, pairs: &[(&'static str, i64)]) {
        assert!(self.resp3(), "attributes are written to RESP3 connections only");
        let end = self.out.len();
        if let [(name, value)] = pairs {
            let attribute = self.latest.of(name, *value);
            let len = attribute.len();
            self.out.extend_from_slice(attribute);
            self.out.copy_within(start..end, start + len);
            self.out[start..start + len].copy_from_slice(attribute);
            return;
        }
        self.attribute(pairs.len());
        for (name, value) in pairs {
            self.bulk(name.as_bytes());
            self.integer(*value);
        }
        let len = self.out.len() - end;
        self.out[start..].rotate_right(len);
    }

    /// A line of text that may come from a user.
    fn text_line(&mut self, kind: u8, text: &str) {
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(text.as_bytes());
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n' | 0) {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    fn aggregate(&mut self, resp3_kind: u8, len: usize, resp2_len: usize) {
        if self.resp3() {
            push_header(&mut self.out, resp3_kind, len);
        } else {
            push_header(&mut self.out, b'*', resp2_len);
        }
    }

    fn frames(&mut self, items: &[Frame]) {
        items.iter().for_each(|item| self.frame(item));
    }

    fn pairs(&mut self, pairs: &[(Frame, Frame)]) {
        for (key, value) in pairs {
            self.frame(key);
            self.frame(value);
        }
    }
}

/// A type byte, a count and a line end.
#[inline]
fn push_header(out: &mut Vec<u8>, kind: u8, len: usize) {
    if len < 10 {
        out.extend_from_slice(&[kind, b'0' + len as u8, b'\r', b'\n']);
    } else if len < 100 {
        let (tens, ones) = (len as u8 / 10, len as u8 % 10);
        out.extend_from_slice(&[kind, b'0' + tens, b'0' + ones, b'\r', b'\n']);
    } else {
        out.push(kind);
        out.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[inline]
fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    // Room for the type byte, 20 digits and two line ends.
    out.reserve(bytes.len() + 25);
    push_header(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a request with these arguments, the command's name first.
///
/// ```
/// let mut out = Vec::new();
/// resp::encode_command(&mut out, &["GET", "key"]);
/// assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
/// ```
pub fn encode_command<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    push_header(out, b'*', args.len());
    for arg in args {
        push_bulk(out, arg.as_ref());
    }
}

/// Elements of an aggregate; an attribute stands in front of one and is none.
fn count_elements(items: &[Frame]) -> usize {
    items.iter().filter(|item| !matches!(item, Frame::Attribute(_))).count()
}

impl Reply for Encoder {
    #[inline]
    fn simple(&mut self, text: &str) {
        self.text_line(b'+', text);
    }

    fn error(&mut self, text: &str) {
        self.text_line(b'-', text);
    }

    #[inline]
    fn integer(&mut self, value: i64) {
        match u8::try_from(value) {
            Ok(digit @ 0..=9) => self.out.extend_from_slice(&[b':', b'0' + digit, b'\r', b'\n']),
            _ => {
                self.out.push(b':');
                self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    #[inline]
    fn bulk(&mut self, bytes: &[u8]) {
        push_bulk(&mut self.out, bytes);
    }

    #[inline]
    fn null(&mut self) {
        let text: &[u8] = if self.resp3() { b"_\r\n" } else { b"$-1\r\n" };
        self.out.extend_from_slice(text);
    }

    fn null_array(&mut self) {
        let text: &[u8] = if self.resp3() { b"_\r\n" } else { b"*-1\r\n" };
        self.out.extend_from_slice(text);
    }

    #[inline]
    fn array(&mut self, len: usize) {
        push_header(&mut self.out, b'*', len);
    }

    fn map(&mut self, pairs: usize) {
        self.aggregate(b'%', pairs, pairs * 2);
    }

    fn set(&mut self, len: usize) {
        self.aggregate(b'~', len, len);
    }

    fn push(&mut self, len: usize) {
        self.aggregate(b'>', len, len);
    }

    /// # Panics
    /// On RESP2, which has no attributes: what follows would be read as the
    /// reply. Ask [`Reply::is_resp3`] first.
    fn attribute(&mut self, pairs: usize) {
        assert!(self.resp3(), "attributes are written to RESP3 connections only");
        push_header(&mut self.out, b'|', pairs);
    }

    fn double(&mut self, value: f64) {
        let text = format_f64(value);
        if self.resp3() {
            self.text_line(b',', &text);
        } else {
            push_bulk(&mut self.out, text.as_bytes());
        }
    }

    fn boolean(&mut self, value: bool) {
        let text: &[u8] = match (self.resp3(), value) {
            (true, true) => b"#t\r\n",
            (true, false) => b"#f\r\n",
            (false, true) => b":1\r\n",
            (false, false) => b":0\r\n",
        };
        self.out.extend_from_slice(text);
    }

    fn big_number(&mut self, digits: &str) {
        if self.resp3() {
            self.text_line(b'(', digits);
        } else {
            push_bulk(&mut self.out, digits.as_bytes());
        }
    }

    fn verbatim(&mut self, format: &str, text: &str) {
        if !self.resp3() {
            push_bulk(&mut self.out, text.as_bytes());
            return;
        }
        // The format is three bytes on the wire, without exception.
        let format = if format.len() == 3 { format } else { "txt" };
        push_header(&mut self.out, b'=', text.len() + 4);
        self.out.extend_from_slice(format.as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn is_resp3(&self) -> bool {
        self.resp3()
    }

    fn set_resp3(&mut self, resp3: bool) {
        self.protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
    }

    #[inline]
    fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// Writes an owned reply; RESP2 leaves its attributes out.
    fn frame(&mut self, frame: &Frame) {
        match frame {
            Frame::Simple(text) => self.simple(text),
            Frame::Error(text) => self.error(text),
            Frame::Integer(value) => self.integer(*value),
            Frame::Bulk(bytes) => self.bulk(bytes),
            Frame::Null => self.null(),
            Frame::NullArray => self.null_array(),
            Frame::Array(items) => {
                self.array(count_elements(items));
                self.frames(items);
            }
            Frame::Map(pairs) => {
                self.map(pairs.len());
                self.pairs(pairs);
            }
            Frame::Set(items) => {
                self.set(count_elements(items));
                self.frames(items);
            }
            Frame::Push(items) => {
                self.push(count_elements(items));
                self.frames(items);
            }
            Frame::Attribute(pairs) => {
                if self.resp3() {
                    self.attribute(pairs.len());
                    self.pairs(pairs);
                }
            }
            Frame::Double(value) => self.double(*value),
            Frame::Boolean(value) => self.boolean(*value),
            Frame::BigNumber(digits) => self.big_number(digits),
            Frame::Verbatim(format, text) => self.verbatim(format, text),
        }
    }
}
