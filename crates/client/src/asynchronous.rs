use std::io::ErrorKind;
use std::time::Duration;

use base::Frame;
use resp::encode_command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::blocking::connect_error;
use crate::inbox::Inbox;
use crate::{ClientError, Options};

/// A connection for tokio programs.
///
/// A future of this client that is dropped half way leaves the place in the
/// stream of replies unknown: the client is closed then, until
/// [`AsyncClient::reconnect`]. [`AsyncClient::receive`] may be dropped.
#[derive(Debug)]
pub struct AsyncClient {
    options: Options,
    stream: TcpStream,
    inbox: Inbox,
    outgoing: Vec<u8>,
    broken: bool,
}

impl AsyncClient {
    /// Connects, authenticates, asks for the protocol and selects the database.
    ///
    /// # Errors
    /// When there is no connection, or the server refuses one of these steps.
    pub async fn connect(options: Options) -> Result<AsyncClient, ClientError> {
        let stream = open(&options).await?;
        let inbox = Inbox::new(options.reply_limits);
        let outgoing = Vec::new();
        let mut client = AsyncClient { options, stream, inbox, outgoing, broken: false };
        client.handshake().await?;
        Ok(client)
    }

    /// Replaces the connection by a new one in the state of
    /// [`AsyncClient::connect`].
    ///
    /// # Errors
    /// As [`AsyncClient::connect`]; the client stays closed then.
    pub async fn reconnect(&mut self) -> Result<(), ClientError> {
        self.broken = true;
        self.stream = open(&self.options).await?;
        self.inbox = Inbox::new(self.options.reply_limits);
        self.broken = false;
        let result = self.handshake().await;
        self.broken |= result.is_err();
        result
    }

    /// What the next [`AsyncClient::reconnect`] goes by, to be changed at will;
    /// `reply_timeout` holds from the next request.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Whether only [`AsyncClient::reconnect`] helps.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.broken
    }

    /// Sends one request and waits for its reply.
    ///
    /// # Errors
    /// [`ClientError::Server`] for an error reply, and as
    /// [`AsyncClient::pipeline`].
    pub async fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Frame, ClientError> {
        match self.request(args).await? {
            Frame::Error(message) => Err(ClientError::server(message)),
            reply => Ok(reply),
        }
    }

    /// Sends one request and waits for its reply, which may be a
    /// [`Frame::Error`].
    ///
    /// # Errors
    /// As [`AsyncClient::pipeline`].
    pub async fn request<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Frame, ClientError> {
        let mut replies = self.pipeline(&[args]).await?;
        replies.pop().ok_or_else(|| self.closed())
    }

    /// Sends all requests while it reads the replies; one reply each, in
    /// order, which may be [`Frame::Error`]s.
    ///
    /// # Errors
    /// When the connection is closed or breaks; the replies until then are in
    /// [`ClientError::UnknownOutcome`].
    pub async fn pipeline<R, A>(&mut self, requests: &[R]) -> Result<Vec<Frame>, ClientError>
    where
        R: AsRef<[A]>,
        A: AsRef<[u8]>,
    {
        if self.broken {
            return Err(self.closed());
        }
        self.outgoing.clear();
        for request in requests {
            encode_command(&mut self.outgoing, request.as_ref());
        }
        let sent = requests.len();
        let mut answered = Vec::new();
        // Stays so when this future is dropped before its end.
        self.broken = true;
        let limit = self.options.reply_timeout;
        let exchange = self.exchange(sent, &mut answered);
        let result = match limit {
            None => exchange.await,
            Some(limit) => match timeout(limit, exchange).await {
                Ok(result) => result,
                Err(_) => {
                    let addr = self.options.addr.clone();
                    Err(ClientError::Timeout { addr, timeout: limit })
                }
            },
        };
        match result {
            Ok(()) => {
                self.broken = false;
                Ok(answered)
            }
            Err(cause) => {
                Err(ClientError::UnknownOutcome { sent, answered, cause: Box::new(cause) })
            }
        }
    }

    /// Sends a request without waiting for what it brings. Read on with
    /// [`AsyncClient::receive`].
    ///
    /// # Errors
    /// When the connection is closed or breaks.
    pub async fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<(), ClientError> {
        if self.broken {
            return Err(self.closed());
        }
        self.outgoing.clear();
        encode_command(&mut self.outgoing, args);
        self.broken = true;
        let written = self.stream.write_all(&self.outgoing).await;
        written.map_err(|source| self.io_error(source))?;
        self.broken = false;
        Ok(())
    }

    /// The next reply or push; `None` when nothing came within `limit`
    /// (`None`: wait for ever).
    ///
    /// # Errors
    /// When the connection is closed or breaks.
    pub async fn receive(&mut self, limit: Option<Duration>) -> Result<Option<Frame>, ClientError> {
        if let Some(push) = self.inbox.pushes.pop_front() {
            return Ok(Some(push));
        }
        if self.broken {
            return Err(self.closed());
        }
        let frame = self.read_frame();
        let result = match limit {
            None => frame.await.map(Some),
            Some(limit) => timeout(limit, frame).await.map_or(Ok(None), |frame| frame.map(Some)),
        };
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

    async fn handshake(&mut self) -> Result<(), ClientError> {
        let requests = self.options.handshake();
        let waiting = self.options.reply_timeout;
        self.options.reply_timeout = waiting.or(Some(self.options.connect_timeout));
        let replies = self.pipeline(&requests).await;
        self.options.reply_timeout = waiting;
        // Nothing of it changes data, so a break here has no unknown outcome.
        let replies = replies.map_err(|error| match error {
            ClientError::UnknownOutcome { cause, .. } => *cause,
            other => other,
        })?;
        for reply in replies {
            if let Frame::Error(message) = reply {
                return Err(ClientError::server(message));
            }
        }
        Ok(())
    }

    /// Writes `outgoing` and reads `count` replies at the same time, so that
    /// neither side waits for the other to read.
    async fn exchange(
        &mut self,
        count: usize,
        replies: &mut Vec<Frame>,
    ) -> Result<(), ClientError> {
        let addr = &self.options.addr;
        let (mut read_half, mut write_half) = self.stream.split();
        let outgoing = &self.outgoing;
        let inbox = &mut self.inbox;
        let write = async {
            write_half.write_all(outgoing).await.map_err(|source| broken_by(addr, source))
        };
        let read = async {
            while replies.len() < count {
                let reply = inbox.next_reply();
                let reply = reply.map_err(|source| not_resp(addr, source))?;
                match reply {
                    Some(reply) => replies.push(reply),
                    None => match read_half.read(inbox.chunk()).await {
                        Ok(0) => return Err(ClientError::Closed { addr: addr.clone() }),
                        Ok(filled) => inbox.filled(filled),
                        Err(source) => return Err(broken_by(addr, source)),
                    },
                }
            }
            Ok(())
        };
        // Both ends are waited for: a write error has its replies before it,
        // and replies cannot be complete before the requests are written.
        let mut write = std::pin::pin!(write);
        let mut read = std::pin::pin!(read);
        tokio::select! {
            result = &mut read => result,
            written = &mut write => match written {
                Ok(()) => read.await,
                Err(error) => read.await.and(Err(error)),
            },
        }
    }

    async fn read_frame(&mut self) -> Result<Frame, ClientError> {
        loop {
            let frame = self.inbox.next_frame();
            if let Some(frame) = frame.map_err(|source| not_resp(&self.options.addr, source))? {
                return Ok(frame);
            }
            match self.stream.read(self.inbox.chunk()).await {
                Ok(0) => return Err(self.closed()),
                Ok(filled) => self.inbox.filled(filled),
                Err(source) => return Err(self.io_error(source)),
            }
        }
    }

    fn closed(&self) -> ClientError {
        ClientError::Closed { addr: self.options.addr.clone() }
    }

    fn io_error(&self, source: std::io::Error) -> ClientError {
        broken_by(&self.options.addr, source)
    }
}

fn broken_by(addr: &str, source: std::io::Error) -> ClientError {
    let addr = addr.to_owned();
    match source.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ClientError::Closed { addr },
        _ => ClientError::Io { addr, source },
    }
}

fn not_resp(addr: &str, source: resp::ReplyError) -> ClientError {
    ClientError::Protocol { addr: addr.to_owned(), source }
}

async fn open(options: &Options) -> Result<TcpStream, ClientError> {
    let limit = options.connect_timeout;
    match timeout(limit, TcpStream::connect(&options.addr)).await {
        Ok(Ok(stream)) => {
            stream.set_nodelay(true).map_err(|source| connect_error(options, source))?;
            Ok(stream)
        }
        Ok(Err(source)) if matches!(source.kind(), ErrorKind::InvalidInput | ErrorKind::Other) => {
            Err(ClientError::Resolve { addr: options.addr.clone(), source })
        }
        Ok(Err(source)) => Err(connect_error(options, source)),
        Err(_) => Err(ClientError::ConnectTimeout { addr: options.addr.clone(), timeout: limit }),
    }
}
