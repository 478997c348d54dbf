use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use base::{Clock, Frame, SystemClock};
use resp::encode_command;

use crate::inbox::Inbox;
use crate::{ClientError, Options};

/// Requests of a pipeline written before their replies are read. Small enough
/// for the socket buffers, so that neither side waits for the other to read.
const BATCH_BYTES: usize = 32 * 1024;

/// A connection that blocks until the reply is there.
///
/// ```no_run
/// use client::{Client, Options};
/// let mut client = Client::connect(Options::new("127.0.0.1:6379"))?;
/// client.command(&["SET", "greeting", "hello"])?;
/// println!("{:?}", client.command(&["GET", "greeting"])?);
/// # Ok::<(), client::ClientError>(())
/// ```
#[derive(Debug)]
pub struct Client {
    options: Options,
    stream: TcpStream,
    inbox: Inbox,
    outgoing: Vec<u8>,
    /// After an error the place in the stream of replies is lost.
    broken: bool,
}

impl Client {
    /// Connects, authenticates, asks for the protocol and selects the database.
    ///
    /// # Errors
    /// When there is no connection, or the server refuses one of these steps.
    pub fn connect(options: Options) -> Result<Client, ClientError> {
        let stream = open(&options)?;
        let inbox = Inbox::new(options.reply_limits);
        let mut client = Client { options, stream, inbox, outgoing: Vec::new(), broken: false };
        client.handshake()?;
        Ok(client)
    }

    /// Replaces the connection by a new one in the state of [`Client::connect`].
    /// Transactions, subscriptions and unread pushes of the old one are gone.
    ///
    /// # Errors
    /// As [`Client::connect`]; the client stays closed then.
    pub fn reconnect(&mut self) -> Result<(), ClientError> {
        self.broken = true;
        self.stream = open(&self.options)?;
        self.inbox = Inbox::new(self.options.reply_limits);
        self.outgoing.clear();
        self.broken = false;
        let result = self.handshake();
        self.broken = result.is_err();
        result
    }

    /// What the next [`Client::reconnect`] goes by, to be changed at will;
    /// `reply_timeout` holds from the next request.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Whether only [`Client::reconnect`] helps.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.broken
    }

    /// Sends one request and waits for its reply.
    ///
    /// # Errors
    /// [`ClientError::Server`] for an error reply, and as [`Client::request`].
    pub fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Frame, ClientError> {
        match self.request(args)? {
            Frame::Error(message) => Err(ClientError::server(message)),
            reply => Ok(reply),
        }
    }

    /// Sends one request and waits for its reply, which may be a
    /// [`Frame::Error`].
    ///
    /// # Errors
    /// When the connection is closed or breaks.
    pub fn request<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Frame, ClientError> {
        let mut replies = self.pipeline(&[args])?;
        replies.pop().ok_or_else(|| self.closed())
    }

    /// Sends all requests, reading replies along the way; one reply each, in
    /// order, which may be [`Frame::Error`]s.
    ///
    /// # Errors
    /// When the connection is closed or breaks; the replies until then are in
    /// [`ClientError::UnknownOutcome`].
    pub fn pipeline<R, A>(&mut self, requests: &[R]) -> Result<Vec<Frame>, ClientError>
    where
        R: AsRef<[A]>,
        A: AsRef<[u8]>,
    {
        let mut replies = Vec::new();
        let mut sent = 0;
        while sent < requests.len() {
            self.outgoing.clear();
            let first = sent;
            while sent < requests.len() && self.outgoing.len() < BATCH_BYTES {
                encode_command(&mut self.outgoing, requests[sent].as_ref());
                sent += 1;
            }
            if let Err(cause) = self.write_outgoing() {
                // A batch of which no byte has left certainly did not run.
                if first == 0 && matches!(cause, ClientError::Closed { .. }) {
                    return Err(cause);
                }
                let cause = Box::new(cause);
                return Err(ClientError::UnknownOutcome { sent, answered: replies, cause });
            }
            let deadline = self.deadline_ns(self.options.reply_timeout);
            while replies.len() < sent {
                match self.read_until(deadline, Inbox::next_reply) {
                    Ok(Some(reply)) => replies.push(reply),
                    other => {
                        self.broken = true;
                        let cause = Box::new(other.err().unwrap_or_else(|| self.timed_out()));
                        return Err(ClientError::UnknownOutcome { sent, answered: replies, cause });
                    }
                }
            }
        }
        Ok(replies)
    }

    /// Sends a request without waiting for what it brings: `SUBSCRIBE`,
    /// `MONITOR`. Read on with [`Client::receive`].
    ///
    /// # Errors
    /// When the connection is closed or breaks.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<(), ClientError> {
        self.outgoing.clear();
        encode_command(&mut self.outgoing, args);
        self.write_outgoing()
    }

    /// The next reply or push, whichever comes first; `None` when nothing
    /// came within `timeout` (`None`: wait for ever).
    ///
    /// # Errors
    /// When the connection is closed or breaks.
    pub fn receive(&mut self, timeout: Option<Duration>) -> Result<Option<Frame>, ClientError> {
        if let Some(push) = self.inbox.pushes.pop_front() {
            return Ok(Some(push));
        }
        let deadline = self.deadline_ns(timeout);
        let result = self.read_until(deadline, Inbox::next_frame);
        self.broken |= result.is_err();
        result
    }

    /// The oldest push that came while a reply was awaited. Pushes are kept
    /// until they are taken.
    pub fn take_push(&mut self) -> Option<Frame> {
        self.inbox.pushes.pop_front()
    }

    /// What the server said about the newest reply that had attributes.
    pub fn take_attributes(&mut self) -> Vec<(Frame, Frame)> {
        std::mem::take(&mut self.inbox.attributes)
    }

    /// The bare socket, past the handshake, for a caller that speaks RESP
    /// itself. Pushes and replies that nobody has read are lost.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn handshake(&mut self) -> Result<(), ClientError> {
        let requests = self.options.handshake();
        // Nothing of it changes data, so a break here has no unknown outcome.
        let waiting = self.options.reply_timeout;
        self.options.reply_timeout = waiting.or(Some(self.options.connect_timeout));
        let replies = self.pipeline(&requests);
        let replies = replies.map_err(|error| match error {
            ClientError::UnknownOutcome { cause, .. } => *cause,
            other => other,
        });
        self.options.reply_timeout = waiting;
        for reply in replies? {
            if let Frame::Error(message) = reply {
                return Err(ClientError::server(message));
            }
        }
        Ok(())
    }

    /// Writes `outgoing`. [`ClientError::Closed`] when not one byte has left.
    fn write_outgoing(&mut self) -> Result<(), ClientError> {
        if self.broken {
            return Err(self.closed());
        }
        let mut written = 0;
        while written < self.outgoing.len() {
            match self.stream.write(&self.outgoing[written..]) {
                Ok(count) if count > 0 => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => {
                    self.broken = true;
                    let addr = self.options.addr.clone();
                    return Err(match result {
                        Err(source) if written > 0 => ClientError::Io { addr, source },
                        _ => ClientError::Closed { addr },
                    });
                }
            }
        }
        Ok(())
    }

    fn deadline_ns(&self, timeout: Option<Duration>) -> Option<u64> {
        let timeout_ns = u64::try_from(timeout?.as_nanos()).unwrap_or(u64::MAX);
        Some(SystemClock.monotonic_ns().saturating_add(timeout_ns))
    }

    /// Reads until `next` finds something; `None` at the deadline.
    fn read_until(
        &mut self,
        deadline_ns: Option<u64>,
        next: fn(&mut Inbox) -> Result<Option<Frame>, resp::ReplyError>,
    ) -> Result<Option<Frame>, ClientError> {
        if self.broken {
            return Err(self.closed());
        }
        loop {
            let found = next(&mut self.inbox).map_err(|source| ClientError::Protocol {
                addr: self.options.addr.clone(),
                source,
            })?;
            if found.is_some() {
                return Ok(found);
            }
            let remaining = match deadline_ns {
                None => None,
                Some(at) => match at.saturating_sub(SystemClock.monotonic_ns()) {
                    0 => return Ok(None),
                    left => Some(Duration::from_nanos(left)),
                },
            };
            let read = self
                .stream
                .set_read_timeout(remaining)
                .and_then(|()| self.stream.read(self.inbox.chunk()));
            match read {
                Ok(0) => return Err(self.closed()),
                Ok(count) => self.inbox.filled(count),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                    ErrorKind::ConnectionReset => return Err(self.closed()),
                    _ => {
                        let addr = self.options.addr.clone();
                        return Err(ClientError::Io { addr, source: error });
                    }
                },
            }
        }
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed { addr: self.options.addr.clone() }
    }

    fn timed_out(&self) -> ClientError {
        let timeout = self.options.reply_timeout.unwrap_or_default();
        ClientError::Timeout { addr: self.options.addr.clone(), timeout }
    }
}

fn open(options: &Options) -> Result<TcpStream, ClientError> {
    let addr = || options.addr.clone();
    let candidates: Vec<SocketAddr> = options
        .addr
        .to_socket_addrs()
        .map_err(|source| ClientError::Resolve { addr: addr(), source })?
        .collect();
    let mut last = ClientError::Resolve { addr: addr(), source: ErrorKind::NotFound.into() };
    for candidate in candidates {
        let connected = TcpStream::connect_timeout(&candidate, options.connect_timeout)
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match connected {
            Ok(stream) => return Ok(stream),
            Err(source) => last = connect_error(options, source),
        }
    }
    Err(last)
}

pub(crate) fn connect_error(options: &Options, source: std::io::Error) -> ClientError {
    let addr = options.addr.clone();
    match source.kind() {
        ErrorKind::ConnectionRefused => ClientError::ConnectRefused { addr },
        ErrorKind::TimedOut | ErrorKind::WouldBlock => {
            ClientError::ConnectTimeout { addr, timeout: options.connect_timeout }
        }
        _ => ClientError::Connect { addr, source },
    }
}
