use std::io;

use base::{Frame, Reply};
use resp::{Encoder, Protocol, ReplyDecoder, ReplyLimits};

/// What golden scripts run against.
///
/// An `Err` means that the target itself failed (a socket broke, a reply never
/// came) and fails the script at that line; an error reply is an ordinary
/// [`Frame::Error`].
pub trait Target {
    /// Runs one command on the connection `client`, which is opened when its
    /// name is new.
    ///
    /// # Errors
    /// When the target failed.
    fn exec(&mut self, client: &str, args: &[Vec<u8>]) -> io::Result<Outcome>;

    /// The next reply of a blocked command or the next pushed message of
    /// `client`; waits for it within reason. A target with a manual clock moves
    /// it to the end of the client's timeout when nothing else can come.
    ///
    /// # Errors
    /// When nothing came, or the target failed.
    fn next(&mut self, client: &str) -> io::Result<Frame>;

    /// Whether `client` waits for data.
    ///
    /// # Errors
    /// When the target failed.
    fn is_blocked(&mut self, client: &str) -> io::Result<bool>;

    /// Whether nothing has come for `client` that [`Target::next`] would
    /// return.
    ///
    /// # Errors
    /// When the target failed.
    fn is_quiet(&mut self, client: &str) -> io::Result<bool>;

    /// Whether [`Target::advance_ms`] works: the target's clock is the test's.
    fn has_manual_clock(&self) -> bool;

    /// Lets `ms` milliseconds pass, with everything that is due in them.
    /// Only called when [`Target::has_manual_clock`] says so.
    ///
    /// # Errors
    /// When the target failed.
    fn advance_ms(&mut self, ms: u64) -> io::Result<()>;
}

/// What a command led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Its replies: usually one; `SUBSCRIBE a b` has two, `CLIENT REPLY SKIP`
    /// none.
    pub replies: Vec<Frame>,
    /// How the connection stands after them.
    pub after: After,
}

/// How a connection stands after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It takes the next command.
    Open,
    /// The command waits; its reply comes through [`Target::next`].
    Blocked,
    /// The server closed it.
    Closed,
}

impl Outcome {
    /// One reply, and the connection takes the next command.
    #[must_use]
    pub fn reply(frame: Frame) -> Outcome {
        Outcome { replies: vec![frame], after: After::Open }
    }

    /// The command waits.
    #[must_use]
    pub fn blocked() -> Outcome {
        Outcome { replies: Vec::new(), after: After::Blocked }
    }
}

/// `frame` after a trip through the wire in `protocol`: what a client sees of
/// a reply that an engine gave. RESP2 turns maps into arrays, doubles into
/// bulk strings and so on; a target without a socket uses this, so that one
/// script fits all targets.
///
/// # Panics
/// When the crate `resp` cannot read what it wrote.
#[must_use]
pub fn as_seen_by_client(frame: &Frame, protocol: Protocol) -> Frame {
    let mut encoder = Encoder::new(protocol);
    encoder.frame(frame);
    let mut decoder = ReplyDecoder::new(ReplyLimits::default());
    let progress = decoder.decode(&encoder.out).expect("resp reads what it wrote");
    progress.frame.expect("resp wrote a whole reply")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resp2_flattens_shapes() {
        let map = Frame::Map(vec![(Frame::bulk("a"), Frame::Double(1.5))]);
        let flat = Frame::Array(vec![Frame::bulk("a"), Frame::bulk("1.5")]);
        assert_eq!(as_seen_by_client(&map, Protocol::Resp2), flat);
        assert_eq!(as_seen_by_client(&map, Protocol::Resp3), map);
        assert_eq!(as_seen_by_client(&Frame::NullArray, Protocol::Resp3), Frame::Null);
    }
}
