use std::io;
use std::time::Duration;

use base::Frame;
use resp::ReplyError;

/// Why a request has no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not `host:port`, or its host is not known.
    #[error("cannot resolve {addr}: {source}; an address is HOST:PORT, such as 127.0.0.1:6379")]
    Resolve {
        /// The address as it was given.
        addr: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nothing listens there.
    #[error("connection to {addr} refused: is the server running, and is this its port?")]
    ConnectRefused {
        /// The address as it was given.
        addr: String,
    },
    /// No answer to the connection attempt in time.
    #[error("no connection to {addr} within {timeout:?}")]
    ConnectTimeout {
        /// The address as it was given.
        addr: String,
        /// [`crate::Options::connect_timeout`].
        timeout: Duration,
    },
    /// The connection could not be made for another reason.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// The address as it was given.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// No reply in time.
    #[error("no reply from {addr} within {timeout:?}")]
    Timeout {
        /// The address as it was given.
        addr: String,
        /// [`crate::Options::reply_timeout`].
        timeout: Duration,
    },
    /// The server has closed the connection, or it was given up after an
    /// earlier error.
    #[error("the connection to {addr} is closed")]
    Closed {
        /// The address as it was given.
        addr: String,
    },
    /// Reading or writing failed.
    #[error("the connection to {addr} failed: {source}")]
    Io {
        /// The address as it was given.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// What the server sent is not RESP.
    #[error("{addr} does not answer in RESP: {source}")]
    Protocol {
        /// The address as it was given.
        addr: String,
        /// What is wrong with it.
        source: ReplyError,
    },
    /// The server answered with an error.
    #[error("{message}")]
    Server {
        /// The first word: `ERR`, `WRONGTYPE`, `NOAUTH`, …
        code: String,
        /// The whole text, first word included.
        message: String,
    },
    /// The connection broke after requests had left. Those without a reply
    /// may or may not have run; whether to repeat them is the caller's choice.
    #[error(
        "the outcome of {} of {sent} requests is unknown: {cause}; check before repeating them",
        .sent - .answered.len()
    )]
    UnknownOutcome {
        /// How many requests the call sent.
        sent: usize,
        /// The replies that came before the break, in order.
        answered: Vec<Frame>,
        /// What broke the connection.
        cause: Box<ClientError>,
    },
}

impl ClientError {
    /// The server's error behind an error reply, split at its first word.
    pub(crate) fn server(message: String) -> ClientError {
        let code = message.split(' ').next().unwrap_or_default().to_owned();
        ClientError::Server { code, message }
    }

    /// Whether the request certainly did not run and may run when it is sent
    /// again over a new connection.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            ClientError::ConnectRefused { .. }
                | ClientError::ConnectTimeout { .. }
                | ClientError::Connect { .. }
                | ClientError::Closed { .. }
        )
    }

    /// The error itself, or what is behind an unknown outcome.
    #[must_use]
    pub fn root(&self) -> &ClientError {
        match self {
            ClientError::UnknownOutcome { cause, .. } => cause.root(),
            other => other,
        }
    }
}
