//! One user's connection: what was typed, sent, answered, and sent again when
//! that is safe.

use base::Frame;
use client::{Client, ClientError, Options, Protocol};

use crate::args::{CliArgs, Format};

/// A connection that remembers how to come back.
pub(crate) struct Session {
    options: Options,
    client: Option<Client>,
}

/// What became of a command.
pub(crate) struct Answer {
    /// The reply, as this tool shows it.
    pub(crate) frame: Frame,
    /// Messages that arrived with it.
    pub(crate) pushes: Vec<Frame>,
}

impl Session {
    /// Connects as `args` say.
    ///
    /// # Errors
    /// When there is no connection, or the server refuses the user, the
    /// protocol or the database.
    pub(crate) fn connect(args: &CliArgs) -> Result<Session, ClientError> {
        let mut options = Options::new(args.address());
        options.user.clone_from(&args.user);
        options.password = args.password.clone().filter(|password| !password.is_empty());
        options.db = args.db;
        if let Some(timeout) = args.timeout {
            options.connect_timeout = timeout;
            options.reply_timeout = Some(timeout);
        }
        // Only RESP3 tells maps and doubles apart.
        let prefers_resp3 = matches!(args.format, Some(Format::Json | Format::Table));
        if args.resp3 || prefers_resp3 {
            options.protocol = Protocol::Resp3;
        }
        match Client::connect(options.clone()) {
            Err(ClientError::Server { code, message })
                if prefers_resp3 && !args.resp3 && is_old_server(&code, &message) =>
            {
                options.protocol = Protocol::Resp2;
                let client = Some(Client::connect(options.clone())?);
                Ok(Session { options, client })
            }
            connected => Ok(Session { client: Some(connected?), options }),
        }
    }

    /// A session that connects with its first command.
    pub(crate) fn offline(args: &CliArgs) -> Session {
        let mut options = Options::new(args.address());
        options.user.clone_from(&args.user);
        options.password = args.password.clone().filter(|password| !password.is_empty());
        options.db = args.db;
        options.reply_timeout = args.timeout;
        options.connect_timeout = args.timeout.unwrap_or(options.connect_timeout);
        if args.resp3 {
            options.protocol = Protocol::Resp3;
        }
        Session { options, client: None }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.is_closed())
    }

    /// `host:port`, with `[db]` behind it when that is not 0.
    pub(crate) fn prompt(&self) -> String {
        if !self.is_connected() {
            return "not connected> ".to_owned();
        }
        match self.options.db {
            0 => format!("{}> ", self.options.addr),
            db => format!("{}[{db}]> ", self.options.addr),
        }
    }

    fn client(&mut self) -> Result<&mut Client, ClientError> {
        if !self.is_connected() {
            self.client = None;
        }
        if self.client.is_none() {
            self.client = Some(Client::connect(self.options.clone())?);
        }
        Ok(self.client.as_mut().expect("connected above"))
    }

    /// Sends one command and waits for its reply. A command that certainly did
    /// not leave is sent again over a new connection, once.
    ///
    /// # Errors
    /// When there is no reply. After [`ClientError::UnknownOutcome`] nobody
    /// knows whether the command ran.
    pub(crate) fn execute(&mut self, words: &[Vec<u8>]) -> Result<Answer, ClientError> {
        let frame = match self.client()?.request(words) {
            Err(error) if error.is_retryable() => self.client()?.request(words)?,
            result => result?,
        };
        self.remember(words, &frame);
        let mut pushes = Vec::new();
        while let Some(push) = self.client.as_mut().and_then(Client::take_push) {
            pushes.push(push);
        }
        Ok(Answer { frame: as_typed(words, frame), pushes })
    }

    /// Sends all requests at once; one reply each.
    ///
    /// # Errors
    /// As [`Session::execute`], and never sent again.
    pub(crate) fn pipeline(
        &mut self,
        requests: &[Vec<Vec<u8>>],
    ) -> Result<Vec<Frame>, ClientError> {
        self.client()?.pipeline(requests)
    }

    /// Sends a command that brings a stream of messages.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub(crate) fn stream(&mut self, words: &[Vec<u8>]) -> Result<(), ClientError> {
        match self.client()?.send(words) {
            Err(error) if error.is_retryable() => self.client()?.send(words),
            result => result,
        }
    }

    /// The next message of a stream, however long it takes.
    ///
    /// # Errors
    /// When the connection ends.
    pub(crate) fn next_message(&mut self) -> Result<Frame, ClientError> {
        loop {
            if let Some(frame) = self.client()?.receive(None)? {
                return Ok(frame);
            }
        }
    }

    /// Keeps what a new connection must be told again.
    fn remember(&mut self, words: &[Vec<u8>], reply: &Frame) {
        if matches!(reply, Frame::Error(_)) {
            return;
        }
        let text = |i: usize| words.get(i).map(|word| String::from_utf8_lossy(word).into_owned());
        let Some(name) = text(0) else { return };
        match (name.to_ascii_lowercase().as_str(), words.len()) {
            ("select", 2) => {
                let db = text(1).and_then(|db| db.parse().ok());
                self.options.db = db.unwrap_or(self.options.db);
            }
            ("auth", 2) => (self.options.user, self.options.password) = (None, text(1)),
            ("auth", 3) => (self.options.user, self.options.password) = (text(1), text(2)),
            ("hello", count) if count >= 2 => {
                let is_3 = text(1).as_deref() == Some("3");
                self.options.protocol = if is_3 { Protocol::Resp3 } else { Protocol::Resp2 };
            }
            ("reset", 1) => {
                self.options.db = 0;
                self.options.protocol = Protocol::Resp2;
            }
            _ => return,
        }
        if let Some(client) = &mut self.client {
            *client.options_mut() = self.options.clone();
        }
    }
}

/// A server from before `HELLO`, or one that refuses RESP3.
fn is_old_server(code: &str, message: &str) -> bool {
    code == "NOPROTO" || (code == "ERR" && message.to_ascii_lowercase().contains("unknown command"))
}

/// `DELETE` is `DEL` for people: it answers the word, not the count.
fn as_typed(words: &[Vec<u8>], frame: Frame) -> Frame {
    let is_delete = words.first().is_some_and(|name| name.eq_ignore_ascii_case(b"delete"));
    match frame {
        Frame::Integer(0) if is_delete => Frame::Null,
        Frame::Integer(_) if is_delete => Frame::Simple("OK".to_owned()),
        other => other,
    }
}

/// Whether the command opens a stream of messages.
pub(crate) fn is_streaming(words: &[Vec<u8>]) -> bool {
    const NAMES: [&[u8]; 4] = [b"monitor", b"subscribe", b"psubscribe", b"ssubscribe"];
    words.first().is_some_and(|name| NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

/// Whether a nil reply means that the key which was asked for is missing, as
/// against a time-out, an unmet condition or a missing member.
pub(crate) fn asks_for_a_key(words: &[Vec<u8>]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"get",
        b"getdel",
        b"getex",
        b"delete",
        b"dump",
        b"lpop",
        b"rpop",
        b"spop",
        b"srandmember",
    ];
    words.first().is_some_and(|name| NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)))
}

/// Whether the line holds a password, and must not be kept in the history.
pub(crate) fn holds_secret(line: &str) -> bool {
    let words: Vec<String> = line.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
    let has = |word: &str| words.iter().any(|other| other.trim_matches(['"', '\'']) == word);
    match words.first().map(|word| word.trim_matches(['"', '\''])) {
        Some("auth" | "acl" | "migrate") => true,
        Some("hello") => has("auth"),
        Some("config") => has("requirepass") || has("security.password") || has("masterauth"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn delete_answers_the_word_typed() {
        for (line, reply, expected) in [
            ("DELETE a", Frame::Integer(1), Frame::Simple("OK".to_owned())),
            ("delete a", Frame::Integer(0), Frame::Null),
            ("del a", Frame::Integer(1), Frame::Integer(1)),
            ("delete a", Frame::Error("ERR no".into()), Frame::Error("ERR no".into())),
        ] {
            assert_eq!(as_typed(&words(line), reply), expected, "{line}");
        }
    }

    #[test]
    fn secrets_stay_out_of_the_history() {
        for line in [
            "AUTH pw",
            "auth user pw",
            "HELLO 3 AUTH u p",
            "config set requirepass pw",
            "CONFIG SET \"requirepass\" pw",
            "ACL SETUSER a >pw",
        ] {
            assert!(holds_secret(line), "{line}");
        }
        for line in ["get auth", "hello 3", "config set maxmemory 1", ""] {
            assert!(!holds_secret(line), "{line}");
        }
    }
}
