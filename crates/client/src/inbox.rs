//! What has arrived on a connection: bytes, pushes, attributes.

use std::collections::VecDeque;

use base::Frame;
use resp::{ReplyDecoder, ReplyError, ReplyLimits};

/// Bytes asked from the socket at a time.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Inbox {
    decoder: ReplyDecoder,
    bytes: Vec<u8>,
    /// Everything in `bytes` before this offset is decoded.
    start: usize,
    chunk: Box<[u8]>,
    /// Pushes that came while a reply was awaited, oldest first.
    pub(crate) pushes: VecDeque<Frame>,
    /// What the server said about the last reply.
    pub(crate) attributes: Vec<(Frame, Frame)>,
}

impl Inbox {
    pub(crate) fn new(limits: ReplyLimits) -> Inbox {
        Inbox {
            decoder: ReplyDecoder::new(limits),
            bytes: Vec::new(),
            start: 0,
            chunk: vec![0; READ_BYTES].into_boxed_slice(),
            pushes: VecDeque::new(),
            attributes: Vec::new(),
        }
    }

    /// Where the next bytes of the socket go; see [`Inbox::filled`].
    pub(crate) fn chunk(&mut self) -> &mut [u8] {
        &mut self.chunk
    }

    /// Takes over the first `count` bytes of the chunk.
    pub(crate) fn filled(&mut self, count: usize) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(&self.chunk[..count]);
    }

    /// The next reply or push among the bytes that are here.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, ReplyError> {
        loop {
            let progress = self.decoder.decode(&self.bytes[self.start..])?;
            self.start += progress.consumed;
            match progress.frame {
                Some(Frame::Attribute(pairs)) => self.attributes = pairs,
                other => return Ok(other),
            }
        }
    }

    /// The next reply among the bytes that are here; pushes are put aside.
    pub(crate) fn next_reply(&mut self) -> Result<Option<Frame>, ReplyError> {
        loop {
            match self.next_frame()? {
                Some(push @ Frame::Push(_)) => self.pushes.push_back(push),
                other => return Ok(other),
            }
        }
    }
}
