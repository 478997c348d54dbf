//! The one vocabulary of replies.
//!
//! A command writes its answer into a [`Reply`] sink; RESP2, RESP3, JSON and
//! protobuf are encoders of that sink. [`Frame`] is the same vocabulary as an
//! owned tree, for what outlives the command: pushes, replies of blocked
//! clients, tests.

use crate::tape::Tape;

/// A sink for one reply, written front to back.
///
/// An aggregate call (`array`, `map`, …) announces how many replies follow as
/// its elements; a map of `n` pairs is followed by `2n` replies.
pub trait Reply {
    /// `+OK` and other fixed words. Must not hold CR or LF.
    fn simple(&mut self, text: &str);
    /// An error; its first word is stable (`ERR`, `WRONGTYPE`, …). Encoders
    /// replace CR, LF and NUL, so user data cannot forge a second reply.
    fn error(&mut self, text: &str);
    /// A 64-bit integer.
    fn integer(&mut self, value: i64);
    /// A binary-safe string.
    fn bulk(&mut self, bytes: &[u8]);
    /// A missing value: RESP2 `$-1`, RESP3 `_`.
    fn null(&mut self);
    /// A missing list: RESP2 `*-1`, RESP3 `_`.
    fn null_array(&mut self);
    /// An array of `len` replies.
    fn array(&mut self, len: usize);
    /// A map of `pairs` key/value pairs; RESP2 gets a flat array.
    fn map(&mut self, pairs: usize);
    /// A set of `len` replies; RESP2 gets an array.
    fn set(&mut self, len: usize);
    /// A push of `len` replies; RESP2 gets an array.
    fn push(&mut self, len: usize);
    /// An attribute of `pairs` pairs in front of the next reply. RESP2 cannot
    /// carry it: callers must ask [`Reply::is_resp3`] first.
    fn attribute(&mut self, pairs: usize);
    /// A double; RESP2 gets its text as a bulk string.
    fn double(&mut self, value: f64);
    /// A boolean; RESP2 gets 1 or 0.
    fn boolean(&mut self, value: bool);
    /// An integer beyond 64 bits, in decimal digits; RESP2 gets a bulk string.
    fn big_number(&mut self, digits: &str);
    /// Text with a three-letter format (`txt`, `mkd`); RESP2 gets a bulk string.
    fn verbatim(&mut self, format: &str, text: &str);
    /// Whether the other side tells maps, sets, doubles and pushes apart.
    /// A few commands change their shape with it, as in Redis.
    fn is_resp3(&self) -> bool;
    /// Changes what [`Reply::is_resp3`] answers, from the next reply on.
    fn set_resp3(&mut self, resp3: bool);

    /// `+OK`.
    fn ok(&mut self) {
        self.simple("OK");
    }

    /// A bulk string, or null.
    fn optional_bulk(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// An unsigned count as an integer, saturating.
    fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Writes what was written to a tape.
    fn tape(&mut self, tape: &Tape) {
        tape.play(self);
    }

    /// Writes an owned reply.
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
                items.iter().for_each(|item| self.frame(item));
            }
            Frame::Map(pairs) => {
                self.map(pairs.len());
                pairs.iter().for_each(|(key, value)| {
                    self.frame(key);
                    self.frame(value);
                });
            }
            Frame::Set(items) => {
                self.set(count_elements(items));
                items.iter().for_each(|item| self.frame(item));
            }
            Frame::Push(items) => {
                self.push(count_elements(items));
                items.iter().for_each(|item| self.frame(item));
            }
            Frame::Attribute(pairs) => {
                self.attribute(pairs.len());
                pairs.iter().for_each(|(key, value)| {
                    self.frame(key);
                    self.frame(value);
                });
            }
            Frame::Double(value) => self.double(*value),
            Frame::Boolean(value) => self.boolean(*value),
            Frame::BigNumber(digits) => self.big_number(digits),
            Frame::Verbatim(format, text) => self.verbatim(format, text),
        }
    }
}

/// Elements of an aggregate; an attribute stands in front of one and is none.
fn count_elements(items: &[Frame]) -> usize {
    items.iter().filter(|item| !matches!(item, Frame::Attribute(_))).count()
}

/// An owned reply.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are the methods of Reply")]
pub enum Frame {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    NullArray,
    Array(Vec<Frame>),
    Map(Vec<(Frame, Frame)>),
    Set(Vec<Frame>),
    Push(Vec<Frame>),
    Attribute(Vec<(Frame, Frame)>),
    Double(f64),
    Boolean(bool),
    BigNumber(String),
    Verbatim(String, String),
}

impl Frame {
    /// A bulk string.
    #[must_use]
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Frame {
        Frame::Bulk(bytes.as_ref().to_vec())
    }
}

/// A [`Reply`] sink that builds [`Frame`]s.
///
/// ```
/// use base::{Frame, FrameBuilder, Reply};
/// let mut sink = FrameBuilder::new(true);
/// sink.array(2);
/// sink.integer(1);
/// sink.null();
/// assert_eq!(sink.finish(), [Frame::Array(vec![Frame::Integer(1), Frame::Null])]);
/// ```
#[derive(Debug)]
pub struct FrameBuilder {
    resp3: bool,
    done: Vec<Frame>,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    kind: Kind,
    missing: usize,
    items: Vec<Frame>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Array,
    Map,
    Set,
    Push,
    Attribute,
}

impl FrameBuilder {
    /// A sink that answers [`Reply::is_resp3`] with `resp3`.
    #[must_use]
    pub fn new(resp3: bool) -> FrameBuilder {
        FrameBuilder { resp3, done: Vec::new(), open: Vec::new() }
    }

    /// The complete replies written so far.
    ///
    /// # Panics
    /// When an aggregate still misses elements: the command announced more
    /// than it wrote.
    #[must_use]
    pub fn finish(self) -> Vec<Frame> {
        assert!(self.open.is_empty(), "an aggregate misses elements: {:?}", self.open);
        self.done
    }

    fn item(&mut self, mut frame: Frame) {
        loop {
            let Some(top) = self.open.last_mut() else {
                self.done.push(frame);
                return;
            };
            // An attribute stands in front of an element and is not one.
            let is_element = !matches!(frame, Frame::Attribute(_));
            top.items.push(frame);
            top.missing -= usize::from(is_element);
            if top.missing > 0 {
                return;
            }
            let top = self.open.pop().expect("just seen");
            frame = close(top.kind, top.items);
        }
    }

    fn aggregate(&mut self, kind: Kind, items: usize) {
        if items == 0 {
            self.item(close(kind, Vec::new()));
        } else {
            // The announced length is not trusted with memory.
            let items_now = Vec::with_capacity(items.min(1024));
            self.open.push(Open { kind, missing: items, items: items_now });
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

impl Reply for FrameBuilder {
    fn simple(&mut self, text: &str) {
        self.item(Frame::Simple(text.to_owned()));
    }
    fn error(&mut self, text: &str) {
        self.item(Frame::Error(text.to_owned()));
    }
    fn integer(&mut self, value: i64) {
        self.item(Frame::Integer(value));
    }
    fn bulk(&mut self, bytes: &[u8]) {
        self.item(Frame::Bulk(bytes.to_vec()));
    }
    fn null(&mut self) {
        self.item(Frame::Null);
    }
    fn null_array(&mut self) {
        self.item(Frame::NullArray);
    }
    fn array(&mut self, len: usize) {
        self.aggregate(Kind::Array, len);
    }
    fn map(&mut self, pairs: usize) {
        self.aggregate(Kind::Map, pairs * 2);
    }
    fn set(&mut self, len: usize) {
        self.aggregate(Kind::Set, len);
    }
    fn push(&mut self, len: usize) {
        self.aggregate(Kind::Push, len);
    }
    fn attribute(&mut self, pairs: usize) {
        self.aggregate(Kind::Attribute, pairs * 2);
    }
    fn double(&mut self, value: f64) {
        self.item(Frame::Double(value));
    }
    fn boolean(&mut self, value: bool) {
        self.item(Frame::Boolean(value));
    }
    fn big_number(&mut self, digits: &str) {
        self.item(Frame::BigNumber(digits.to_owned()));
    }
    fn verbatim(&mut self, format: &str, text: &str) {
        self.item(Frame::Verbatim(format.to_owned(), text.to_owned()));
    }
    fn is_resp3(&self) -> bool {
        self.resp3
    }
    fn set_resp3(&mut self, resp3: bool) {
        self.resp3 = resp3;
    }
}
