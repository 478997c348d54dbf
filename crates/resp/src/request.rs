//! Requests: bytes of a client to borrowed arguments.

use memchr::{memchr, memchr2};
use smallvec::SmallVec;

use crate::inline::split_into;

/// Argument vectors up to this many entries are kept for the next request; a
/// larger one is given back, so one huge request does not hold its memory for
/// the life of the connection.
const KEPT_ARGS_MAX: usize = 1024;

/// How much of a request may be announced or sent. The defaults are Redis's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest inline command and longest length line, in bytes.
    pub inline_bytes_max: u32,
    /// Most arguments of one request.
    pub multibulk_len_max: u32,
    /// Longest argument, in bytes (`proto-max-bulk-len`).
    pub bulk_len_max: u64,
    /// Longest whole request, in bytes (`client-query-buffer-limit`).
    pub request_bytes_max: u32,
    /// Most arguments before the client has authenticated.
    pub unauthenticated_multibulk_len_max: u32,
    /// Longest argument before the client has authenticated, in bytes.
    pub unauthenticated_bulk_len_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            inline_bytes_max: 64 * 1024,
            multibulk_len_max: i32::MAX.unsigned_abs(),
            bulk_len_max: 512 * 1024 * 1024,
            request_bytes_max: 1024 * 1024 * 1024,
            unauthenticated_multibulk_len_max: 10,
            unauthenticated_bulk_len_max: 16 * 1024,
        }
    }
}

/// Why a request cannot be understood. The text is the reply, in Redis's
/// words; the connection must be closed after it, because where the next
/// request starts is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The argument count is no number, or above the limit.
    #[error("ERR Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// An argument's length is no number, negative or above the limit, or the
    /// argument does not end where its length says.
    #[error("ERR Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument does not start with `$` but with this byte.
    #[error("ERR Protocol error: expected '$', got '{}'", printable(*.0))]
    ExpectedBulk(u8),
    /// The line with the argument count does not end.
    #[error("ERR Protocol error: too big mbulk count string")]
    TooBigMultibulkCount,
    /// The line with an argument's length does not end.
    #[error("ERR Protocol error: too big bulk count string")]
    TooBigBulkCount,
    /// An inline command does not end.
    #[error("ERR Protocol error: too big inline request")]
    TooBigInline,
    /// An inline command's quotes do not match.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// Too many arguments for a client that has not authenticated.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// Too long an argument for a client that has not authenticated.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// The whole request is longer than [`Limits::request_bytes_max`].
    #[error("ERR Protocol error: request is longer than client-query-buffer-limit ({limit} bytes)")]
    TooBigRequest {
        /// The limit in bytes.
        limit: u32,
    },
}

fn printable(byte: u8) -> char {
    if byte.is_ascii() { char::from(byte) } else { '?' }
}

/// Whether a request's first word shows that an HTTP client talks to us.
///
/// A web page can make a browser send such lines to a local port, with
/// commands in the body. Redis closes the connection at the first of them, and
/// so must the caller, before it runs anything.
///
/// ```
/// assert!(resp::is_http_start(b"POST"));
/// assert!(resp::is_http_start(b"host:"));
/// assert!(!resp::is_http_start(b"GET"));
/// ```
#[must_use]
#[inline]
pub fn is_http_start(first_word: &[u8]) -> bool {
    first_word.eq_ignore_ascii_case(b"POST") || first_word.eq_ignore_ascii_case(b"Host:")
}

/// Where an argument stands. 32 bits are enough because
/// [`Limits::request_bytes_max`] is 32 bits wide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArgRange {
    start: u32,
    len: u32,
}

impl ArgRange {
    #[inline]
    pub(crate) fn new(start: usize, len: usize) -> ArgRange {
        debug_assert!(u32::try_from(start + len).is_ok(), "requests are below 4 GiB");
        ArgRange { start: start as u32, len: len as u32 }
    }

    #[inline]
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        let start = self.start as usize;
        &bytes[start..start + self.len as usize]
    }
}

/// One complete request. Its arguments are slices of the caller's buffer (or,
/// for an inline command, of the decoder's).
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Bytes of the buffer that this request took.
    pub consumed: usize,
    bytes: &'a [u8],
    ranges: &'a [ArgRange],
}

/// The arguments of a request, as slices; on the stack up to eight.
pub type Args<'a> = SmallVec<[&'a [u8]; 8]>;

impl<'a> Request<'a> {
    /// The number of arguments, the command's name included. Zero for an empty
    /// line and for `*0`: consume and go on, nothing is answered.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is nothing to run; see [`Request::len`].
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The argument at `index`; 0 is the command's name.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.ranges.get(index).map(|range| range.of(self.bytes))
    }

    /// All arguments in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.ranges.iter().map(move |range| range.of(bytes))
    }

    /// All arguments in one slice of slices.
    #[inline]
    #[must_use]
    pub fn args(&self) -> Args<'a> {
        self.iter().collect()
    }
}

/// Turns the bytes of one connection into requests.
///
/// The caller owns a growing buffer, hands in everything from the start of the
/// current request, and drops `consumed` bytes after each request. Until then
/// the decoder remembers how far it got, so calling again with more bytes
/// continues instead of starting over.
///
/// ```
/// use resp::{Decoder, Limits};
/// let mut decoder = Decoder::new(Limits::default());
/// let mut buffer = b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nPIN".to_vec();
/// let request = decoder.decode(&buffer)?.expect("complete");
/// assert_eq!(request.args()[..], [&b"ECHO"[..], b"hi"]);
/// let consumed = request.consumed;
/// buffer.drain(..consumed);
/// assert!(decoder.decode(&buffer)?.is_none());
/// buffer.extend(b"G\r\n");
/// assert_eq!(decoder.decode(&buffer)?.expect("complete").get(0), Some(&b"PING"[..]));
/// # Ok::<(), resp::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    authenticated: bool,
    /// Everything before this offset of the request is understood.
    at: usize,
    /// No line end stands between `at` and this offset.
    scanned: usize,
    /// Arguments that the current request still misses; zero between requests.
    missing: u32,
    /// Length of the argument at `at`, once its length line is read.
    bulk_len: Option<usize>,
    ranges: Vec<ArgRange>,
    /// The words of the last inline command, unquoted.
    words: Vec<u8>,
}

enum Line {
    Partial,
    TooLong,
    /// The number (`None`: not one) and the offset after the line.
    Number(Option<i64>, usize),
}

impl Decoder {
    /// A decoder at the start of a connection whose client needs no
    /// authentication; see [`Decoder::set_authenticated`].
    #[must_use]
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits,
            authenticated: true,
            at: 0,
            scanned: 0,
            missing: 0,
            bulk_len: None,
            ranges: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Whether the client may send requests of full size. Say `false` at the
    /// start of a connection that must authenticate, `true` once it has.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    /// Replaces the limits, from the next length that is read.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How many bytes are still missing from the argument that is being
    /// received, its line end included, when the buffer holds `buffered`
    /// bytes. Zero when that is not known: read what there is.
    ///
    /// It comes from the client and may be as large as
    /// [`Limits::bulk_len_max`]; reserve memory for it in steps.
    #[must_use]
    pub fn bytes_missing(&self, buffered: usize) -> usize {
        self.bulk_len.map_or(0, |len| (self.at + len + 2).saturating_sub(buffered))
    }

    /// Whether a request has begun and is not complete.
    #[must_use]
    pub fn is_mid_request(&self) -> bool {
        self.missing > 0 || self.scanned > 0
    }

    /// The next request of `buf`, which starts at the first byte that was not
    /// consumed; `None` when it is not complete yet.
    ///
    /// # Errors
    /// When the bytes are no request. The connection must then be closed.
    #[inline]
    pub fn decode<'a>(&'a mut self, buf: &'a [u8]) -> Result<Option<Request<'a>>, ProtocolError> {
        if self.missing == 0 {
            match buf.first() {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.decode_inline(buf),
            }
            let (count, next) = match self.number_line(buf, 0) {
                Line::Partial => return Ok(None),
                Line::TooLong => return Err(ProtocolError::TooBigMultibulkCount),
                Line::Number(count, next) => (count, next),
            };
            let count = self.check_count(count)?;
            self.begin(next);
            if count == 0 {
                return Ok(Some(self.complete(buf)));
            }
            self.missing = count;
        }
        while self.missing > 0 {
            let len = match self.bulk_len {
                Some(len) => len,
                None => {
                    let (len, next) = match self.number_line(buf, self.at) {
                        Line::Partial => return Ok(None),
                        Line::TooLong => return Err(ProtocolError::TooBigBulkCount),
                        Line::Number(len, next) => (len, next),
                    };
                    let len = self.check_bulk(buf[self.at], len, next)?;
                    self.at = next;
                    self.bulk_len = Some(len);
                    len
                }
            };
            let end = self.at + len;
            let Some(line_end) = buf.get(end..end + 2) else { return Ok(None) };
            if line_end != b"\r\n" {
                return Err(ProtocolError::InvalidBulkLength);
            }
            self.ranges.push(ArgRange::new(self.at, len));
            self.bulk_len = None;
            self.missing -= 1;
            self.at = end + 2;
            self.scanned = self.at;
        }
        Ok(Some(self.complete(buf)))
    }

    /// Starts to collect arguments at `at`.
    #[inline]
    fn begin(&mut self, at: usize) {
        if self.ranges.capacity() > KEPT_ARGS_MAX {
            self.ranges = Vec::new();
        }
        self.ranges.clear();
        self.at = at;
        self.scanned = at;
    }

    #[inline]
    fn complete<'a>(&'a mut self, bytes: &'a [u8]) -> Request<'a> {
        let consumed = self.at;
        self.at = 0;
        self.scanned = 0;
        Request { consumed, bytes, ranges: &self.ranges }
    }

    #[inline]
    fn check_count(&self, count: Option<i64>) -> Result<u32, ProtocolError> {
        let count = count.ok_or(ProtocolError::InvalidMultibulkLength)?;
        if count > i64::from(self.limits.multibulk_len_max) {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if !self.authenticated && count > i64::from(self.limits.unauthenticated_multibulk_len_max) {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        // Redis takes any count below one for an empty request.
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// Checks an argument's length line that starts with `first` and whose
    /// payload starts at `payload`.
    #[inline]
    fn check_bulk(
        &self,
        first: u8,
        len: Option<i64>,
        payload: usize,
    ) -> Result<usize, ProtocolError> {
        if first != b'$' {
            return Err(ProtocolError::ExpectedBulk(first));
        }
        let len = len
            .and_then(|len| u64::try_from(len).ok())
            .filter(|len| *len <= self.limits.bulk_len_max)
            .ok_or(ProtocolError::InvalidBulkLength)?;
        if !self.authenticated && len > self.limits.unauthenticated_bulk_len_max {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        let limit = self.limits.request_bytes_max;
        let end = (payload as u64).saturating_add(len).saturating_add(2);
        if end > u64::from(limit) {
            return Err(ProtocolError::TooBigRequest { limit });
        }
        Ok(len as usize)
    }

    /// Reads the line at `at`: one type byte, a number, CR, LF.
    #[inline]
    fn number_line(&mut self, buf: &[u8], at: usize) -> Line {
        // One or two digits are nearly all lengths there are.
        match buf.get(at + 1..) {
            Some([digit @ b'0'..=b'9', b'\r', b'\n', ..]) => {
                Line::Number(Some(i64::from(digit - b'0')), at + 4)
            }
            Some([tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n', ..]) => {
                let number = i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
                Line::Number(Some(number), at + 5)
            }
            _ => self.any_number_line(buf, at),
        }
    }

    #[inline(never)]
    fn any_number_line(&mut self, buf: &[u8], at: usize) -> Line {
        let line_max = self.limits.inline_bytes_max as usize;
        let from = self.scanned.max(at).min(buf.len());
        let Some(offset) = memchr(b'\r', &buf[from..]) else {
            self.scanned = buf.len();
            return if buf.len().saturating_sub(at) > line_max {
                Line::TooLong
            } else {
                Line::Partial
            };
        };
        let cr = from + offset;
        self.scanned = cr;
        if cr - at > line_max {
            return Line::TooLong;
        }
        match buf.get(cr + 1) {
            None => Line::Partial,
            Some(b'\n') if cr > at => {
                Line::Number(base::number::parse_i64(&buf[at + 1..cr]), cr + 2)
            }
            // Where the line ends is unknown; the error closes the connection.
            Some(_) => Line::Number(None, cr + 2),
        }
    }

    #[cold]
    #[inline(never)]
    fn decode_inline<'a>(
        &'a mut self,
        buf: &'a [u8],
    ) -> Result<Option<Request<'a>>, ProtocolError> {
        let line_max = self.limits.inline_bytes_max as usize;
        let from = self.scanned.min(buf.len());
        // A NUL hides the line end behind it, as in Redis, where it ends the
        // C string that is searched.
        let found = memchr2(b'\n', 0, &buf[from..]).map(|offset| from + offset);
        let end = match found {
            Some(end) if buf[end] == b'\n' && end <= line_max => end,
            Some(end) if buf[end] == b'\n' => return Err(ProtocolError::TooBigInline),
            other => {
                self.scanned = other.unwrap_or(buf.len());
                return if buf.len() > line_max {
                    Err(ProtocolError::TooBigInline)
                } else {
                    Ok(None)
                };
            }
        };
        self.begin(end + 1);
        self.words.clear();
        let line = buf[..end].strip_suffix(b"\r").unwrap_or(&buf[..end]);
        split_into(line, &mut self.words, &mut self.ranges)
            .map_err(|_| ProtocolError::UnbalancedQuotes)?;
        let consumed = end + 1;
        self.at = 0;
        self.scanned = 0;
        Ok(Some(Request { consumed, bytes: &self.words, ranges: &self.ranges }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_lengths_take_no_memory() {
        let mut decoder = Decoder::new(Limits::default());
        assert!(decoder.decode(b"*2147483647\r\n$536870912\r\n").expect("valid").is_none());
        assert_eq!(decoder.ranges.capacity(), 0);
        assert_eq!(decoder.words.capacity(), 0);
    }

    #[test]
    fn the_argument_vector_is_reused_unless_it_grew_huge() {
        let mut decoder = Decoder::new(Limits::default());
        let ping = b"*1\r\n$4\r\nPING\r\n";
        let huge = [b"*5000\r\n".to_vec(), b"$1\r\na\r\n".repeat(5000)].concat();
        assert_eq!(decoder.decode(&huge).expect("valid").expect("complete").len(), 5000);
        assert_eq!(decoder.decode(ping).expect("valid").expect("complete").len(), 1);
        let capacity = decoder.ranges.capacity();
        assert!(capacity <= KEPT_ARGS_MAX, "{capacity}");
        assert_eq!(decoder.decode(ping).expect("valid").expect("complete").len(), 1);
        assert_eq!(decoder.ranges.capacity(), capacity);
    }
}
