//! Replies: bytes of a server to [`Frame`]s, for clients.

use base::Frame;
use base::number::{parse_f64, parse_i64};
use memchr::memchr;

/// What a client accepts from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Deepest nesting of aggregates.
    pub depth_max: usize,
    /// Longest line (simple string, error, number), in bytes.
    pub line_bytes_max: usize,
    /// Longest bulk string, in bytes.
    pub bulk_len_max: u64,
    /// Most elements of one aggregate.
    pub aggregate_len_max: u64,
}

impl Default for ReplyLimits {
    fn default() -> ReplyLimits {
        ReplyLimits {
            depth_max: 64,
            line_bytes_max: 1024 * 1024,
            bulk_len_max: 1024 * 1024 * 1024,
            aggregate_len_max: i32::MAX.unsigned_abs().into(),
        }
    }
}

/// Why the bytes of a server are no reply. The connection is of no use after
/// it, because where the next reply starts is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The first byte names no reply type.
    #[error("expected the first byte of a reply, got '{}'", .0.escape_ascii())]
    UnknownType(u8),
    /// The text after a type byte is not what the type needs.
    #[error("invalid {what}: \"{text}\"")]
    Invalid {
        /// What was expected.
        what: &'static str,
        /// What came, escaped, its first bytes only.
        text: String,
    },
    /// A line, bulk string or aggregate is longer than the client accepts.
    #[error("{what} of more than {limit} is not accepted")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The limit, in bytes or elements.
        limit: u64,
    },
    /// Aggregates inside aggregates beyond [`ReplyLimits::depth_max`].
    #[error("replies nested deeper than {limit} are not accepted")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// A line or bulk string does not end in CR LF where it must.
    #[error("a reply does not end in CR LF")]
    MissingLineEnd,
    /// A streamed string or aggregate (`$?`, `*?`), which no Redis command
    /// answers with.
    #[error("streamed replies ('{}?') are not supported", char::from(*.0))]
    Streamed(u8),
}

/// What one call of [`ReplyDecoder::decode`] achieved.
#[derive(Debug, PartialEq)]
pub struct Progress {
    /// Bytes that are dealt with and must not be handed in again; they may be
    /// some even when no reply is complete.
    pub consumed: usize,
    /// The complete reply, if there is one. An attribute in front of a reply
    /// comes as a [`Frame::Attribute`] of its own.
    pub frame: Option<Frame>,
}

/// Turns the bytes of one connection into replies.
///
/// ```
/// use base::Frame;
/// use resp::{ReplyDecoder, ReplyLimits};
/// let mut decoder = ReplyDecoder::new(ReplyLimits::default());
/// let part = decoder.decode(b"*2\r\n:1\r\n$3\r\nab")?;
/// assert_eq!((part.consumed, part.frame), (12, None));
/// let rest = decoder.decode(b"abc\r\n")?;
/// assert_eq!(rest.frame, Some(Frame::Array(vec![Frame::Integer(1), Frame::bulk("abc")])));
/// # Ok::<(), resp::ReplyError>(())
/// ```
#[derive(Debug)]
pub struct ReplyDecoder {
    limits: ReplyLimits,
    /// Aggregates that still miss elements, outermost first.
    open: Vec<Open>,
    /// A bulk string whose length line is read: its type byte and length.
    bulk: Option<(u8, usize)>,
    /// No CR stands in this many bytes from the first that was not consumed.
    scanned: usize,
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    /// Elements that have not come yet; at least one.
    missing: u64,
    items: Vec<Frame>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Map,
    Set,
    Push,
    Attribute,
}

enum Step {
    Partial,
    Frame(Frame),
    Open(Kind, u64),
    Bulk(u8, usize),
}

impl ReplyDecoder {
    /// A decoder at the start of a connection.
    #[must_use]
    pub fn new(limits: ReplyLimits) -> ReplyDecoder {
        ReplyDecoder { limits, open: Vec::new(), bulk: None, scanned: 0 }
    }

    /// Whether a reply has begun and is not complete.
    #[must_use]
    pub fn is_mid_reply(&self) -> bool {
        !self.open.is_empty() || self.bulk.is_some() || self.scanned > 0
    }

    /// Continues with `buf`, which starts at the first byte that was not
    /// consumed.
    ///
    /// # Errors
    /// When the bytes are no reply, or one beyond the limits.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Progress, ReplyError> {
        let mut at = 0;
        loop {
            let mut frame = match self.step(buf, &mut at)? {
                Step::Partial => return Ok(Progress { consumed: at, frame: None }),
                Step::Bulk(kind, len) => {
                    self.bulk = Some((kind, len));
                    continue;
                }
                Step::Open(kind, 0) => close(kind, Vec::new()),
                Step::Open(kind, missing) => {
                    if self.open.len() >= self.limits.depth_max {
                        return Err(ReplyError::TooDeep { limit: self.limits.depth_max });
                    }
                    self.open.push(Open { kind, missing, items: Vec::new() });
                    continue;
                }
                Step::Frame(frame) => frame,
            };
            // The frame may be the last element of aggregates around it.
            loop {
                let Some(top) = self.open.last_mut() else {
                    return Ok(Progress { consumed: at, frame: Some(frame) });
                };
                if matches!(frame, Frame::Attribute(_)) {
                    // An attribute stands in front of an element and is none.
                    // Between keys and values there is no place to keep it.
                    if !matches!(top.kind, Kind::Map | Kind::Attribute) {
                        top.items.push(frame);
                    }
                    break;
                }
                top.items.push(frame);
                top.missing -= 1;
                if top.missing > 0 {
                    break;
                }
                let Some(top) = self.open.pop() else { break };
                frame = close(top.kind, top.items);
            }
        }
    }

    /// Reads one line or one bulk string at `at` and moves `at` behind it.
    fn step(&mut self, buf: &[u8], at: &mut usize) -> Result<Step, ReplyError> {
        let rest = &buf[*at..];
        if let Some((kind, len)) = self.bulk {
            let Some(line_end) = rest.get(len..len + 2) else { return Ok(Step::Partial) };
            if line_end != b"\r\n" {
                return Err(ReplyError::MissingLineEnd);
            }
            self.bulk = None;
            *at += len + 2;
            return bulk_frame(kind, &rest[..len]).map(Step::Frame);
        }
        let Some(line_end) = self.line_end(rest)? else { return Ok(Step::Partial) };
        *at += line_end + 2;
        self.scanned = 0;
        match &rest[..line_end] {
            [kind, text @ ..] => self.line(*kind, text),
            [] => Err(ReplyError::UnknownType(b'\r')),
        }
    }

    /// The offset of the CR that ends the line at the start of `rest`.
    fn line_end(&mut self, rest: &[u8]) -> Result<Option<usize>, ReplyError> {
        let from = self.scanned.min(rest.len());
        let found = memchr(b'\r', &rest[from..]).map(|offset| from + offset);
        let length = found.unwrap_or(rest.len());
        self.scanned = length;
        if length > self.limits.line_bytes_max {
            let limit = self.limits.line_bytes_max as u64;
            return Err(ReplyError::TooLong { what: "a line (bytes)", limit });
        }
        match found.and_then(|cr| rest.get(cr + 1)) {
            Some(b'\n') => Ok(found),
            Some(_) => Err(ReplyError::MissingLineEnd),
            None => Ok(None),
        }
    }

    fn line(&self, kind: u8, text: &[u8]) -> Result<Step, ReplyError> {
        let lossy = || String::from_utf8_lossy(text).into_owned();
        let frame = match kind {
            b'+' => Frame::Simple(lossy()),
            b'-' => Frame::Error(lossy()),
            b':' => Frame::Integer(parse_i64(text).ok_or_else(|| invalid("integer", text))?),
            b'_' if text.is_empty() => Frame::Null,
            b'_' => return Err(invalid("null", text)),
            b'#' => match text {
                b"t" => Frame::Boolean(true),
                b"f" => Frame::Boolean(false),
                _ => return Err(invalid("boolean", text)),
            },
            b',' => Frame::Double(parse_double(text).ok_or_else(|| invalid("double", text))?),
            b'(' => {
                let digits = text.strip_prefix(b"-").unwrap_or(text);
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(invalid("big number", text));
                }
                Frame::BigNumber(lossy())
            }
            b'$' | b'!' | b'=' => {
                return match self.length(kind, text, self.limits.bulk_len_max)? {
                    Some(len) => Ok(Step::Bulk(kind, len as usize)),
                    None => Ok(Step::Frame(Frame::Null)),
                };
            }
            b'*' | b'%' | b'~' | b'>' | b'|' => {
                let Some(len) = self.length(kind, text, self.limits.aggregate_len_max)? else {
                    return Ok(Step::Frame(Frame::NullArray));
                };
                return Ok(match kind {
                    b'*' => Step::Open(Kind::Array, len),
                    b'%' => Step::Open(Kind::Map, len * 2),
                    b'~' => Step::Open(Kind::Set, len),
                    b'>' => Step::Open(Kind::Push, len),
                    _ => Step::Open(Kind::Attribute, len * 2),
                });
            }
            other => return Err(ReplyError::UnknownType(other)),
        };
        Ok(Step::Frame(frame))
    }

    /// A length; `None` for the `-1` of RESP2's null replies.
    fn length(&self, kind: u8, text: &[u8], limit: u64) -> Result<Option<u64>, ReplyError> {
        if text == b"?" {
            return Err(ReplyError::Streamed(kind));
        }
        if text == b"-1" && matches!(kind, b'$' | b'*') {
            return Ok(None);
        }
        let len = parse_i64(text)
            .and_then(|len| u64::try_from(len).ok())
            .ok_or_else(|| invalid("length", text))?;
        // Half of what fits, because maps count their elements twice.
        if len > limit.min(u64::from(u32::MAX)) {
            let what = if matches!(kind, b'$' | b'!' | b'=') {
                "a bulk string (bytes)"
            } else {
                "an aggregate (elements)"
            };
            return Err(ReplyError::TooLong { what, limit });
        }
        Ok(Some(len))
    }
}

fn invalid(what: &'static str, text: &[u8]) -> ReplyError {
    let shown = &text[..text.len().min(64)];
    ReplyError::Invalid { what, text: shown.escape_ascii().to_string() }
}

fn parse_double(text: &[u8]) -> Option<f64> {
    if text.eq_ignore_ascii_case(b"nan") || text.eq_ignore_ascii_case(b"-nan") {
        return Some(f64::NAN);
    }
    parse_f64(text)
}

fn bulk_frame(kind: u8, bytes: &[u8]) -> Result<Frame, ReplyError> {
    match kind {
        b'$' => Ok(Frame::Bulk(bytes.to_vec())),
        b'!' => Ok(Frame::Error(String::from_utf8_lossy(bytes).into_owned())),
        _ => {
            let (format, text) = match bytes {
                [a, b, c, b':', text @ ..] => ([*a, *b, *c], text),
                _ => return Err(invalid("verbatim string", bytes)),
            };
            Ok(Frame::Verbatim(
                String::from_utf8_lossy(&format).into_owned(),
                String::from_utf8_lossy(text).into_owned(),
            ))
        }
    }
}

fn close(kind: Kind, items: Vec<Frame>) -> Frame {
    fn pairs(items: Vec<Frame>) -> Vec<(Frame, Frame)> {
        let mut items = items.into_iter();
        std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
    }
    match kind {
        Kind::Array => Frame::Array(items),
        Kind::Map => Frame::Map(pairs(items)),
        Kind::Set => Frame::Set(items),
        Kind::Push => Frame::Push(items),
        Kind::Attribute => Frame::Attribute(pairs(items)),
    }
}
