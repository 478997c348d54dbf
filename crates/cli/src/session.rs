//! One user's connection: what was typed, sent, answered, and sent again when
//! that is safe.

use std::time::Duration;

use base::Frame;
use client::{Client, ClientError, Options, Protocol};

use crate::args::{CliArgs, Format};
use crate::way_back::{self, NEWEST_UNDO, NEWEST_WRITE};

/// A connection that remembers how to come back.
pub(crate) struct Session {
    options: Options,
    client: Option<Client>,
    /// Between `MULTI` and `EXEC`: the server holds a queue of commands that a
    /// new connection would not have.
    in_transaction: bool,
    /// CLIENT REPLYREV ON.
    shows_revisions: bool,
    /// The revision that the user was told last how to take back.
    hinted: i64,
}

/// What became of a command.
pub(crate) struct Answer {
    /// What the server says about the reply, such as its revision.
    pub(crate) attributes: Vec<(Frame, Frame)>,
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
        let mut session = Session::offline(args);
        // JSON and tables ask for RESP3 and can do without.
        let is_wish = session.options.protocol == Protocol::Resp3 && !args.resp3;
        match session.client() {
            Err(ClientError::Server { code, message })
                if is_wish && is_old_server(&code, &message) =>
            {
                session.options.protocol = Protocol::Resp2;
                session.client()?;
            }
            connected => drop(connected?),
        }
        Ok(session)
    }

    /// A session that connects with its first command.
    pub(crate) fn offline(args: &CliArgs) -> Session {
        let mut options = Options::new(args.address());
        options.user.clone_from(&args.user);
        options.password = args.password.clone().filter(|password| !password.is_empty());
        options.db = args.db;
        options.reply_timeout = args.timeout;
        options.connect_timeout = args.timeout.unwrap_or(options.connect_timeout);
        // Only RESP3 tells maps and doubles apart.
        if args.resp3 || matches!(args.format, Some(Format::Json | Format::Table)) {
            options.protocol = Protocol::Resp3;
        }
        let (in_transaction, shows_revisions) = (false, false);
        Session { options, client: None, in_transaction, shows_revisions, hinted: 0 }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.is_closed())
    }

    /// `host:port`, with `[db]` behind it when that is not 0 and `(TX)` inside
    /// a transaction.
    pub(crate) fn prompt(&self) -> String {
        if !self.is_connected() {
            return "not connected> ".to_owned();
        }
        let db = match self.options.db {
            0 => String::new(),
            db => format!("[{db}]"),
        };
        let transaction = if self.in_transaction { "(TX)" } else { "" };
        format!("{}{db}{transaction}> ", self.options.addr)
    }

    /// A message that has come without being asked for. Finds out, too, that
    /// the server has closed the connection since the last command.
    pub(crate) fn poll(&mut self) -> Option<Frame> {
        let client = self.client.as_mut().filter(|client| !client.is_closed())?;
        client.receive(Some(Duration::from_millis(1))).ok().flatten()
    }

    fn client(&mut self) -> Result<&mut Client, ClientError> {
        if !self.is_connected() {
            self.client = None;
        }
        if self.client.is_none() {
            let mut client = Client::connect(self.options.clone())?;
            if self.shows_revisions {
                client.command(&["CLIENT", "REPLYREV", "ON"])?;
                client.take_attributes();
            }
            self.client = Some(client);
        }
        Ok(self.client.as_mut().expect("connected above"))
    }

    /// Sends one command and waits for its reply. A command that certainly did
    /// not leave is sent again over a new connection, once; inside a
    /// transaction it is not, because the commands before it are gone.
    ///
    /// # Errors
    /// When there is no reply. After [`ClientError::UnknownOutcome`] nobody
    /// knows whether the command ran.
    pub(crate) fn execute(&mut self, words: &[Vec<u8>]) -> Result<Answer, ClientError> {
        let was_in_transaction = std::mem::take(&mut self.in_transaction);
        if was_in_transaction && !self.is_connected() {
            return Err(ClientError::Closed { addr: self.options.addr.clone() });
        }
        let frame = match self.client()?.request(words) {
            Err(error) if error.is_retryable() && !was_in_transaction => {
                self.client()?.request(words)?
            }
            result => result?,
        };
        self.in_transaction = was_in_transaction;
        self.remember(words, &frame);
        let mut pushes = Vec::new();
        while let Some(push) = self.client.as_mut().and_then(Client::take_push) {
            pushes.push(push);
        }
        let attributes = self.client.as_mut().map(Client::take_attributes).unwrap_or_default();
        Ok(Answer { attributes, frame: as_typed(words, frame), pushes })
    }

    /// How the user can take back what `words` took away, if that is new to them.
    pub(crate) fn way_back(&mut self, words: &[Vec<u8>]) -> Option<String> {
        if self.in_transaction || !way_back::takes_away(words) {
            return None;
        }
        let client = self.client.as_mut().filter(|client| !client.is_closed())?;
        // Whatever goes wrong here, the command has been answered.
        let newest_write = client.request(&NEWEST_WRITE).ok()?;
        let newest_undo = client.request(&NEWEST_UNDO).ok()?;
        client.take_attributes();
        let (revision, hint) = way_back::hint(&newest_write, &newest_undo)?;
        let is_new = std::mem::replace(&mut self.hinted, revision) != revision;
        is_new.then_some(hint)
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
        let is_name = |name: &[u8]| words.first().is_some_and(|w| w.eq_ignore_ascii_case(name));
        // EXEC ends a transaction even by an error, unless there was none.
        if is_name(b"exec") {
            self.in_transaction = false;
        }
        // A queued command has not run yet.
        let is_queued = *reply == Frame::Simple("QUEUED".to_owned());
        if matches!(reply, Frame::Error(_)) || is_queued {
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
                self.shows_revisions &= is_3;
            }
            ("client", 3) if text(1).is_some_and(|sub| sub.eq_ignore_ascii_case("replyrev")) => {
                self.shows_revisions = text(2).is_some_and(|mode| mode.eq_ignore_ascii_case("on"));
            }
            ("multi", 1) => self.in_transaction = true,
            ("discard", 1) => self.in_transaction = false,
            ("reset", 1) => {
                self.in_transaction = false;
                self.options.db = 0;
                self.options.protocol = Protocol::Resp2;
                self.shows_revisions = false;
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
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

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

    /// A server that says OK to so many requests of each connection and closes
    /// it. Tells its address and every request.
    fn serve_each(requests: usize) -> (String, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, received) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                for _ in 0..requests {
                    let mut request = [0; 1024];
                    let count = stream.read(&mut request).unwrap_or(0);
                    if count > 0 {
                        // A test that listens no more does not mind.
                        let _ = sender.send(String::from_utf8_lossy(&request[..count]).into());
                        stream.write_all(b"+OK\r\n").unwrap();
                    }
                }
            }
        });
        (address, received)
    }

    fn session() -> Session {
        session_at(&serve_each(1).0)
    }

    fn session_at(address: &str) -> Session {
        #[derive(clap::Parser)]
        struct Probe {
            #[command(flatten)]
            cli: CliArgs,
        }
        let args = <Probe as clap::Parser>::parse_from(["probe", "--addr", address]).cli;
        Session::offline(&args)
    }

    fn wait_for_the_end(session: &mut Session) {
        while session.is_connected() {
            assert_eq!(session.poll(), None);
        }
    }

    #[test]
    fn a_closed_connection_is_made_again() {
        let mut session = session();
        assert_eq!(session.prompt(), "not connected> ");
        for db in ["1", "2"] {
            let answer = session.execute(&words(&format!("select {db}"))).unwrap();
            assert_eq!(answer.frame, Frame::Simple("OK".to_owned()));
            assert!(session.prompt().ends_with(&format!("[{db}]> ")), "{}", session.prompt());
            wait_for_the_end(&mut session);
            // The new connection would answer SELECT, its one request.
            session.options.db = 0;
        }
    }

    #[test]
    fn a_new_connection_shows_revisions_as_the_old_one_did() {
        let (address, received) = serve_each(2);
        let mut session = session_at(&address);
        for line in ["client replyrev on", "ping"] {
            session.execute(&words(line)).unwrap();
        }
        wait_for_the_end(&mut session);
        session.execute(&words("CLIENT REPLYREV OFF")).unwrap();
        wait_for_the_end(&mut session);
        session.execute(&words("ping")).unwrap();
        let asked: Vec<bool> =
            received.try_iter().map(|text| text.to_lowercase().contains("replyrev")).collect();
        // The third is the session's own, on its second connection.
        assert_eq!(asked, [true, false, true, true, false]);
    }

    #[test]
    fn a_transaction_does_not_go_on_over_a_new_connection() {
        let mut session = session();
        session.execute(&words("multi")).unwrap();
        assert!(session.prompt().ends_with("(TX)> "), "{}", session.prompt());
        wait_for_the_end(&mut session);
        let refused = session.execute(&words("set a 1"));
        assert!(matches!(refused, Err(ClientError::Closed { .. })));
        // The user has been told; what comes next is outside the transaction.
        session.execute(&words("set a 2")).unwrap();
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
