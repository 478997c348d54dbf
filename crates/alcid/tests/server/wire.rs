//! A client that shows every byte and knows no better than the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use base::{Clock, Frame, SystemClock};
use resp::{ReplyDecoder, ReplyLimits, encode_command};

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub struct Wire {
    pub stream: TcpStream,
    decoder: ReplyDecoder,
    buffer: Vec<u8>,
}

/// What came.
#[derive(Debug, PartialEq)]
pub enum Came {
    Frame(Frame),
    Nothing,
    Closed,
}

impl Wire {
    pub fn connect(addr: impl ToSocketAddrs) -> Wire {
        Wire::try_connect(addr).expect("the server accepts connections")
    }

    pub fn try_connect(addr: impl ToSocketAddrs) -> std::io::Result<Wire> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let decoder = ReplyDecoder::new(ReplyLimits::default());
        Ok(Wire { stream, decoder, buffer: Vec::new() })
    }

    /// Sends a command; `false` when the server has closed the connection.
    pub fn send<A: AsRef<[u8]>>(&mut self, words: &[A]) -> bool {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, words);
        self.raw(&bytes)
    }

    /// Sends bytes as they are; `false` when the server has closed the
    /// connection.
    pub fn raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a command and waits for its reply.
    pub fn call<A: AsRef<[u8]> + std::fmt::Debug>(&mut self, words: &[A]) -> Frame {
        assert!(self.send(words), "closed before {words:?}");
        match self.read(PATIENCE) {
            Came::Frame(frame) => frame,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    /// The text of a reply that is one: a bulk string, a status or an error.
    pub fn text(&mut self, words: &[&str]) -> String {
        text_of(self.call(words))
    }

    /// The next frame.
    pub fn frame(&mut self) -> Frame {
        match self.read(PATIENCE) {
            Came::Frame(frame) => frame,
            other => panic!("a reply is missing: {other:?}"),
        }
    }

    /// Whether the server ends the connection, after whatever it still sends.
    pub fn ends(&mut self) -> bool {
        let end_ns = SystemClock.monotonic_ns() + PATIENCE.as_nanos() as u64;
        while SystemClock.monotonic_ns() < end_ns {
            match self.read(PATIENCE) {
                Came::Closed => return true,
                Came::Frame(_) => {}
                Came::Nothing => return false,
            }
        }
        false
    }

    /// The next frame, if one comes in time.
    pub fn read(&mut self, patience: Duration) -> Came {
        let end_ns = SystemClock.monotonic_ns() + patience.as_nanos() as u64;
        loop {
            let progress = self.decoder.decode(&self.buffer).expect("a valid reply");
            self.buffer.drain(..progress.consumed);
            if let Some(frame) = progress.frame {
                return Came::Frame(frame);
            }
            let now_ns = SystemClock.monotonic_ns();
            if now_ns >= end_ns {
                return Came::Nothing;
            }
            let left = Duration::from_nanos(end_ns - now_ns);
            self.stream.set_read_timeout(Some(left)).expect("a socket");
            let mut chunk = [0; 64 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Came::Closed,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Came::Nothing,
                    ErrorKind::Interrupted => {}
                    _ => return Came::Closed,
                },
            }
        }
    }
}

/// The text of a reply that is one.
pub fn text_of(frame: Frame) -> String {
    match frame {
        Frame::Bulk(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Frame::Simple(text) | Frame::Error(text) | Frame::Verbatim(_, text) => text,
        Frame::Integer(number) => number.to_string(),
        Frame::Null => "(nil)".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A number that INFO tells.
pub fn field(wire: &mut Wire, section: &str, name: &str) -> u64 {
    let info = wire.text(&["INFO", section]);
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {info}"))
}

/// Calls `look` until it answers `true`; fails when patience ends.
pub fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let end_ns = SystemClock.monotonic_ns() + PATIENCE.as_nanos() as u64;
    while !look() {
        assert!(SystemClock.monotonic_ns() < end_ns, "not within {PATIENCE:?}: {what}");
        // Another process's state has no event to wait for in std.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A figure of `/proc/<pid>/status`, in bytes: `VmRSS`, `VmHWM`.
pub fn memory_of(pid: u32, figure: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with(figure)).expect("a figure of it");
    let kilobytes = line.split_whitespace().nth(1).expect("a number");
    kilobytes.parse::<u64>().expect("a number") * 1024
}
