//! Replies that are written before they are sent.

use crate::leb128;
use crate::reply::{Frame, FrameBuilder, Reply};

/// A [`Reply`] sink that keeps what it is told in one piece of memory, to be
/// [played](Tape::play) to another: a long reply takes much less room and time
/// so than as [`Frame`]s.
///
/// ```
/// use base::{Frame, Reply, Tape};
/// let mut tape = Tape::new(true);
/// tape.array(2);
/// tape.integer(1);
/// tape.bulk(b"one");
/// assert_eq!(tape.frames(), [Frame::Array(vec![Frame::Integer(1), Frame::bulk("one")])]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tape {
    bytes: Vec<u8>,
    resp3: bool,
}

const SIMPLE: u8 = 0;
const ERROR: u8 = 1;
const INTEGER: u8 = 2;
const BULK: u8 = 3;
const NULL: u8 = 4;
const NULL_ARRAY: u8 = 5;
const ARRAY: u8 = 6;
const MAP: u8 = 7;
const SET: u8 = 8;
const PUSH: u8 = 9;
const ATTRIBUTE: u8 = 10;
const DOUBLE: u8 = 11;
const FALSE: u8 = 12;
const TRUE: u8 = 13;
const BIG_NUMBER: u8 = 14;
const VERBATIM: u8 = 15;

/// One call of a sink.
enum Call<'t> {
    Simple(&'t str),
    Error(&'t str),
    Integer(i64),
    Bulk(&'t [u8]),
    Null,
    NullArray,
    Array(usize),
    Map(usize),
    Set(usize),
    Push(usize),
    Attribute(usize),
    Double(f64),
    Boolean(bool),
    BigNumber(&'t str),
    Verbatim(&'t str, &'t str),
}

/// What is left to be played. Only a tape's own methods write it, so it is
/// always whole.
struct Calls<'t>(&'t [u8]);

impl<'t> Calls<'t> {
    #[inline]
    fn number(&mut self) -> u64 {
        leb128::take(&mut self.0).expect("a tape is whole")
    }

    #[inline]
    fn len(&mut self) -> usize {
        self.number() as usize
    }

    #[inline]
    fn eight(&mut self) -> [u8; 8] {
        let (bytes, rest) = self.0.split_first_chunk().expect("a tape is whole");
        self.0 = rest;
        *bytes
    }

    #[inline]
    fn bytes(&mut self) -> &'t [u8] {
        let len = self.len();
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    fn text(&mut self) -> &'t str {
        std::str::from_utf8(self.bytes()).expect("it was text")
    }

    /// Passes over so many replies with all that is in them.
    fn pass_over(&mut self, replies: usize) {
        let mut left = replies;
        while left > 0 {
            left -= 1;
            left += match self.next().expect("a tape is whole") {
                Call::Array(len) | Call::Set(len) | Call::Push(len) => len,
                Call::Map(pairs) => 2 * pairs,
                // It stands in front of one, and is none.
                Call::Attribute(pairs) => 2 * pairs + 1,
                _ => 0,
            };
        }
    }
}

impl<'t> Iterator for Calls<'t> {
    type Item = Call<'t>;

    #[inline]
    fn next(&mut self) -> Option<Call<'t>> {
        let (&kind, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match kind {
            SIMPLE => Call::Simple(self.text()),
            ERROR => Call::Error(self.text()),
            INTEGER => Call::Integer(i64::from_le_bytes(self.eight())),
            BULK => Call::Bulk(self.bytes()),
            NULL => Call::Null,
            NULL_ARRAY => Call::NullArray,
            ARRAY => Call::Array(self.len()),
            MAP => Call::Map(self.len()),
            SET => Call::Set(self.len()),
            PUSH => Call::Push(self.len()),
            ATTRIBUTE => Call::Attribute(self.len()),
            DOUBLE => Call::Double(f64::from_le_bytes(self.eight())),
            FALSE => Call::Boolean(false),
            TRUE => Call::Boolean(true),
            BIG_NUMBER => Call::BigNumber(self.text()),
            VERBATIM => Call::Verbatim(self.text(), self.text()),
            kind => unreachable!("no call has the number {kind}"),
        })
    }
}

impl Tape {
    /// A sink that answers [`Reply::is_resp3`] with `resp3`.
    #[must_use]
    pub fn new(resp3: bool) -> Tape {
        Tape { bytes: Vec::new(), resp3 }
    }

    /// As [`Tape::new`], with room for so many bytes.
    #[must_use]
    pub fn with_room(resp3: bool, bytes: usize) -> Tape {
        Tape { bytes: Vec::with_capacity(bytes), resp3 }
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its bytes, which are about as many as those on the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes to another sink what was written to this one. One that speaks
    /// RESP2 gets no attributes.
    pub fn play(&self, to: &mut (impl Reply + ?Sized)) {
        let mut calls = Calls(&self.bytes);
        while let Some(call) = calls.next() {
            match call {
                Call::Simple(text) => to.simple(text),
                Call::Error(text) => to.error(text),
                Call::Integer(value) => to.integer(value),
                Call::Bulk(bytes) => to.bulk(bytes),
                Call::Null => to.null(),
                Call::NullArray => to.null_array(),
                Call::Array(len) => to.array(len),
                Call::Map(pairs) => to.map(pairs),
                Call::Set(len) => to.set(len),
                Call::Push(len) => to.push(len),
                Call::Attribute(pairs) if !to.is_resp3() => calls.pass_over(2 * pairs),
                Call::Attribute(pairs) => to.attribute(pairs),
                Call::Double(value) => to.double(value),
                Call::Boolean(value) => to.boolean(value),
                Call::BigNumber(digits) => to.big_number(digits),
                Call::Verbatim(format, text) => to.verbatim(format, text),
            }
        }
    }

    /// What was written, as frames.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        let mut builder = FrameBuilder::new(true);
        self.play(&mut builder);
        builder.finish()
    }

    /// The text of the error that was written, if what was written begins with
    /// one.
    #[must_use]
    pub fn error_text(&self) -> Option<&str> {
        match Calls(&self.bytes).next() {
            Some(Call::Error(text)) => Some(text),
            _ => None,
        }
    }

    #[inline]
    fn put_len(&mut self, kind: u8, len: usize) {
        self.bytes.push(kind);
        leb128::put(&mut self.bytes, len as u64);
    }

    #[inline]
    fn put_bytes(&mut self, kind: u8, bytes: &[u8]) {
        // The kind, and a length that hardly ever takes more.
        self.bytes.reserve(bytes.len() + 6);
        self.put_len(kind, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    #[inline]
    fn put_eight(&mut self, kind: u8, eight: [u8; 8]) {
        let mut bytes = [kind; 9];
        bytes[1..].copy_from_slice(&eight);
        self.bytes.extend_from_slice(&bytes);
    }
}

impl From<&Frame> for Tape {
    fn from(frame: &Frame) -> Tape {
        let mut tape = Tape::new(true);
        tape.frame(frame);
        tape
    }
}

impl Reply for Tape {
    fn simple(&mut self, text: &str) {
        self.put_bytes(SIMPLE, text.as_bytes());
    }
    fn error(&mut self, text: &str) {
        self.put_bytes(ERROR, text.as_bytes());
    }
    #[inline]
    fn integer(&mut self, value: i64) {
        self.put_eight(INTEGER, value.to_le_bytes());
    }
    #[inline]
    fn bulk(&mut self, bytes: &[u8]) {
        self.put_bytes(BULK, bytes);
    }
    #[inline]
    fn null(&mut self) {
        self.bytes.push(NULL);
    }
    fn null_array(&mut self) {
        self.bytes.push(NULL_ARRAY);
    }
    #[inline]
    fn array(&mut self, len: usize) {
        self.put_len(ARRAY, len);
    }
    fn map(&mut self, pairs: usize) {
        self.put_len(MAP, pairs);
    }
    fn set(&mut self, len: usize) {
        self.put_len(SET, len);
    }
    fn push(&mut self, len: usize) {
        self.put_len(PUSH, len);
    }
    fn attribute(&mut self, pairs: usize) {
        self.put_len(ATTRIBUTE, pairs);
    }
    fn double(&mut self, value: f64) {
        self.put_eight(DOUBLE, value.to_le_bytes());
    }
    fn boolean(&mut self, value: bool) {
        self.bytes.push(if value { TRUE } else { FALSE });
    }
    fn big_number(&mut self, digits: &str) {
        self.put_bytes(BIG_NUMBER, digits.as_bytes());
    }
    fn verbatim(&mut self, format: &str, text: &str) {
        self.put_bytes(VERBATIM, format.as_bytes());
        let len = text.len() as u64;
        leb128::put(&mut self.bytes, len);
        self.bytes.extend_from_slice(text.as_bytes());
    }
    fn is_resp3(&self) -> bool {
        self.resp3
    }
    fn set_resp3(&mut self, resp3: bool) {
        self.resp3 = resp3;
    }

    fn tape(&mut self, tape: &Tape) {
        // Attributes stay until it is played to one who does not know them.
        self.bytes.extend_from_slice(&tape.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> Vec<Frame> {
        let text = |text: &str| text.to_owned();
        let pair = || (Frame::bulk("field"), Frame::Double(0.5));
        vec![
            Frame::Simple(text("OK")),
            Frame::Error(text("ERR no")),
            Frame::Integer(i64::MIN),
            Frame::Bulk(vec![b'x'; 300]),
            Frame::Null,
            Frame::NullArray,
            Frame::Array(vec![Frame::Array(Vec::new()), Frame::Set(vec![Frame::bulk("")])]),
            Frame::Map(vec![pair(), pair()]),
            Frame::Push(vec![Frame::Boolean(true), Frame::Boolean(false)]),
            Frame::BigNumber(text("12")),
            Frame::Verbatim(text("txt"), text("ä")),
        ]
    }

    #[test]
    fn what_is_played_is_what_was_written() {
        let mut tape = Tape::default();
        assert!(tape.is_empty() && tape.frames().is_empty());
        everything().iter().for_each(|frame| tape.frame(frame));
        assert_eq!(tape.frames(), everything());
        let mut copy = Tape::default();
        tape.play(&mut copy);
        assert_eq!((copy.len(), &copy), (tape.len(), &tape));
        let mut twice = tape.clone();
        twice.tape(&tape);
        assert_eq!(twice.frames(), [everything(), everything()].concat());
        for frame in everything() {
            let error = match &frame {
                Frame::Error(text) => Some(text.as_str()),
                _ => None,
            };
            assert_eq!(Tape::from(&frame).error_text(), error);
        }
    }

    #[test]
    fn attributes_are_for_those_who_know_them() {
        let attribute = Frame::Attribute(vec![
            (Frame::bulk("rev"), Frame::Integer(7)),
            (Frame::bulk("all"), Frame::Array(everything())),
        ]);
        let with = Frame::Array(vec![Frame::Integer(1), attribute, Frame::Integer(2)]);
        let tape = Tape::from(&with);
        assert_eq!(tape.frames(), [with]);
        let mut resp2 = Tape::new(false);
        tape.play(&mut resp2);
        let without = Frame::Array(vec![Frame::Integer(1), Frame::Integer(2)]);
        assert_eq!(resp2.frames(), [without]);
    }
}
