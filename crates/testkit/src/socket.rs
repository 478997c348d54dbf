use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base::{Clock, Frame, SystemClock};
use resp::{ReplyDecoder, ReplyLimits, encode_command};

use crate::target::{After, Outcome, Target};

/// Longest wait for a reply that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a read waits before the server is asked whether the client blocks.
const GLANCE: Duration = Duration::from_millis(10);

/// How long nothing must come for a client to count as quiet.
const QUIET: Duration = Duration::from_millis(50);

/// A server reached over TCP: Alcid, or a Redis to compare with.
///
/// A command counts as blocked when the server says so (`CLIENT LIST`, flag
/// `b`), asked on a connection of its own, so nothing depends on how fast the
/// machine is.
#[derive(Debug)]
pub struct SocketTarget {
    addr: String,
    control: Connection,
    clients: BTreeMap<String, Client>,
}

impl SocketTarget {
    /// Connects to a server and empties all its databases.
    ///
    /// # Errors
    /// When it cannot be reached or refuses `FLUSHALL`.
    pub fn connect(addr: impl Into<String>) -> io::Result<SocketTarget> {
        let addr = addr.into();
        let mut control = Connection::open(&addr)?;
        match control.call(&["FLUSHALL"])? {
            Frame::Simple(ok) if ok == "OK" => {}
            other => return Err(io::Error::other(format!("FLUSHALL answered {other:?}"))),
        }
        Ok(SocketTarget { addr, control, clients: BTreeMap::new() })
    }

    fn client(&mut self, name: &str) -> io::Result<&mut Client> {
        if !self.clients.contains_key(name) {
            let client = Client::open(&self.addr)?;
            self.clients.insert(name.to_owned(), client);
        }
        Ok(self.clients.get_mut(name).expect("inserted above"))
    }

    fn known(&mut self, name: &str) -> io::Result<&mut Client> {
        let unknown = || io::Error::other(format!("no client is named \"{name}\""));
        self.clients.get_mut(name).ok_or_else(unknown)
    }

    /// Whether the server holds the client `id` as blocked.
    fn server_says_blocked(&mut self, id: i64) -> io::Result<bool> {
        let id = id.to_string();
        let line = match self.control.call(&["CLIENT", "LIST", "ID", &id])? {
            Frame::Bulk(line) => String::from_utf8_lossy(&line).into_owned(),
            Frame::Verbatim(_, line) => line,
            other => return Err(io::Error::other(format!("CLIENT LIST ID answered {other:?}"))),
        };
        let flags = line.split(' ').find_map(|field| field.strip_prefix("flags="));
        Ok(flags.is_some_and(|flags| flags.contains('b')))
    }
}

impl Target for SocketTarget {
    fn exec(&mut self, client: &str, args: &[Vec<u8>]) -> io::Result<Outcome> {
        let name = client;
        let client = self.client(name)?;
        if client.owed > 0 {
            let advice = format!("client \"{name}\" still waits for a reply: use !await first");
            return Err(io::Error::other(advice));
        }
        client.send(args)?;
        let id = client.id;
        let end_ns = deadline();
        let mut replies = Vec::new();
        while self.client(name)?.owed > 0 {
            match self.client(name)?.reply(GLANCE)? {
                Arrival::Frame(frame) => replies.push(frame),
                Arrival::Closed => return Ok(Outcome { replies, after: After::Closed }),
                Arrival::Nothing => {
                    if let Some(id) = id
                        && self.server_says_blocked(id)?
                    {
                        return Ok(Outcome { replies, after: After::Blocked });
                    }
                    if SystemClock.monotonic_ns() > end_ns {
                        let what = format!("no reply within {PATIENCE:?}, and not blocked");
                        return Err(io::Error::new(ErrorKind::TimedOut, what));
                    }
                }
            }
        }
        // The end of the connection follows the reply to QUIT, in its own time.
        let is_goodbye = args.len() == 1 && args[0].eq_ignore_ascii_case(b"quit");
        if is_goodbye && matches!(self.client(name)?.connection.read(PATIENCE)?, Arrival::Closed) {
            return Ok(Outcome { replies, after: After::Closed });
        }
        Ok(Outcome { replies, after: After::Open })
    }

    fn next(&mut self, client: &str) -> io::Result<Frame> {
        let client = self.known(client)?;
        if let Some(frame) = client.inbox.pop_front() {
            return Ok(frame);
        }
        match client.connection.read(PATIENCE)? {
            Arrival::Frame(frame) => {
                if !is_message(&frame) && !matches!(frame, Frame::Attribute(_)) {
                    client.owed = client.owed.saturating_sub(1);
                }
                Ok(frame)
            }
            Arrival::Closed => Err(io::Error::other("the server closed the connection")),
            Arrival::Nothing => {
                let what = format!("nothing came within {PATIENCE:?}");
                Err(io::Error::new(ErrorKind::TimedOut, what))
            }
        }
    }

    fn is_blocked(&mut self, client: &str) -> io::Result<bool> {
        let client = self.known(client)?;
        let (id, owed) = (client.id, client.owed);
        match id {
            Some(id) if owed > 0 => self.server_says_blocked(id),
            _ => Ok(false),
        }
    }

    fn is_quiet(&mut self, client: &str) -> io::Result<bool> {
        let client = self.known(client)?;
        if !client.inbox.is_empty() {
            return Ok(false);
        }
        match client.connection.read(QUIET)? {
            Arrival::Frame(frame) => {
                client.inbox.push_back(frame);
                Ok(false)
            }
            Arrival::Nothing | Arrival::Closed => Ok(true),
        }
    }

    fn has_manual_clock(&self) -> bool {
        false
    }

    fn advance_ms(&mut self, _ms: u64) -> io::Result<()> {
        Err(io::Error::new(ErrorKind::Unsupported, "a server's clock cannot be moved"))
    }
}

/// One named connection and what it is still owed.
#[derive(Debug)]
struct Client {
    connection: Connection,
    /// `CLIENT ID`; none when the server asks for a password first.
    id: Option<i64>,
    /// Messages that came in front of a reply.
    inbox: VecDeque<Frame>,
    /// Replies of the last command that have not come.
    owed: usize,
    /// Names subscribed to, each with the first letter of its kind: `s`
    /// channel, `p` pattern, `h` shard channel.
    subscribed: BTreeSet<(char, Vec<u8>)>,
    replies: Replies,
}

/// What `CLIENT REPLY` has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replies {
    On,
    Off,
    SkipNext,
}

impl Client {
    fn open(addr: &str) -> io::Result<Client> {
        let mut connection = Connection::open(addr)?;
        let id = match connection.call(&["CLIENT", "ID"])? {
            Frame::Integer(id) => Some(id),
            _ => None,
        };
        Ok(Client {
            connection,
            id,
            inbox: VecDeque::new(),
            owed: 0,
            subscribed: BTreeSet::new(),
            replies: Replies::On,
        })
    }

    /// Sends a command and notes how many replies it leads to.
    fn send(&mut self, args: &[Vec<u8>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, args);
        let words: Vec<String> =
            args.iter().map(|arg| String::from_utf8_lossy(arg).to_lowercase()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.owed = match (words.as_slice(), self.replies) {
            (["client", "reply", "on"], _) => {
                self.replies = Replies::On;
                1
            }
            (["reset"], _) => {
                self.replies = Replies::On;
                self.subscribed.clear();
                1
            }
            (["client", "reply", "off"], _) => {
                self.replies = Replies::Off;
                0
            }
            (["client", "reply", "skip"], Replies::On) => {
                self.replies = Replies::SkipNext;
                0
            }
            (_, Replies::Off) => 0,
            (_, Replies::SkipNext) => {
                self.replies = Replies::On;
                0
            }
            (_, Replies::On) => self.replies_of(&words),
        };
        match self.connection.stream.write_all(&bytes) {
            // The read that follows tells that the server closed it.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    /// `SUBSCRIBE` and its like answer once per name.
    fn replies_of(&self, words: &[&str]) -> usize {
        match words {
            ["subscribe" | "psubscribe" | "ssubscribe", names @ ..] => names.len().max(1),
            [command @ ("unsubscribe" | "punsubscribe" | "sunsubscribe"), names @ ..] => {
                let kind = kind_of(command);
                let all = self.subscribed.iter().filter(|(k, _)| *k == kind).count();
                if names.is_empty() { all.max(1) } else { names.len() }
            }
            _ => 1,
        }
    }

    /// The next reply of the last command; messages before it go to the inbox.
    fn reply(&mut self, patience: Duration) -> io::Result<Arrival> {
        loop {
            let read = self.connection.read(patience)?;
            let Arrival::Frame(frame) = read else { return Ok(read) };
            if is_message(&frame) {
                self.inbox.push_back(frame);
                continue;
            }
            // Stands in front of a reply and is none.
            if matches!(frame, Frame::Attribute(_)) {
                return Ok(Arrival::Frame(frame));
            }
            match subscription(&frame) {
                Some((true, kind, name)) => {
                    self.subscribed.insert((kind, name));
                    self.owed -= 1;
                }
                Some((false, kind, name)) => {
                    self.subscribed.remove(&(kind, name));
                    self.owed -= 1;
                }
                // `+QUEUED` or an error stands for all of them.
                None => self.owed = 0,
            }
            return Ok(Arrival::Frame(frame));
        }
    }
}

fn kind_of(command: &str) -> char {
    match command.as_bytes()[0] {
        b'p' => 'p',
        b's' if command.starts_with("ss") || command.starts_with("sun") => 'h',
        _ => 's',
    }
}

fn words_of(frame: &Frame) -> Option<&[Frame]> {
    match frame {
        Frame::Push(items) | Frame::Array(items) => Some(items),
        _ => None,
    }
}

/// Whether the frame is something the client did not ask for just now.
fn is_message(frame: &Frame) -> bool {
    let first = match words_of(frame) {
        Some([Frame::Bulk(first), ..]) => first.as_slice(),
        _ => return false,
    };
    let is_published = matches!(first, b"message" | b"pmessage" | b"smessage");
    match frame {
        Frame::Push(_) => subscription(frame).is_none(),
        Frame::Array(items) => is_published && (items.len() == 3 || items.len() == 4),
        _ => false,
    }
}

/// Whether the frame answers `SUBSCRIBE` and its like: joined or left, kind,
/// name.
fn subscription(frame: &Frame) -> Option<(bool, char, Vec<u8>)> {
    let [Frame::Bulk(word), name, Frame::Integer(_)] = words_of(frame)? else { return None };
    let name = if let Frame::Bulk(name) = name { name.clone() } else { Vec::new() };
    let word = std::str::from_utf8(word).ok()?;
    match word {
        "subscribe" | "psubscribe" | "ssubscribe" => Some((true, kind_of(word), name)),
        "unsubscribe" | "punsubscribe" | "sunsubscribe" => Some((false, kind_of(word), name)),
        _ => None,
    }
}

/// What one read brought.
#[derive(Debug)]
enum Arrival {
    Frame(Frame),
    Nothing,
    Closed,
}

/// A socket with a reply decoder.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    decoder: ReplyDecoder,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(addr: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let decoder = ReplyDecoder::new(ReplyLimits::default());
        Ok(Connection { stream, decoder, buffer: Vec::new() })
    }

    /// Sends a command that has one reply and waits for it.
    fn call(&mut self, words: &[&str]) -> io::Result<Frame> {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, words);
        self.stream.write_all(&bytes)?;
        match self.read(PATIENCE)? {
            Arrival::Frame(frame) => Ok(frame),
            Arrival::Nothing => {
                Err(io::Error::new(ErrorKind::TimedOut, format!("no reply to {words:?}")))
            }
            Arrival::Closed => Err(io::Error::other(format!("closed after {words:?}"))),
        }
    }

    /// The next frame, if one comes in time.
    fn read(&mut self, patience: Duration) -> io::Result<Arrival> {
        let end_ns = SystemClock.monotonic_ns() + patience.as_nanos() as u64;
        loop {
            let progress = self.decoder.decode(&self.buffer).map_err(io::Error::other)?;
            self.buffer.drain(..progress.consumed);
            if let Some(frame) = progress.frame {
                return Ok(Arrival::Frame(frame));
            }
            let now_ns = SystemClock.monotonic_ns();
            if now_ns >= end_ns {
                return Ok(Arrival::Nothing);
            }
            self.stream.set_read_timeout(Some(Duration::from_nanos(end_ns - now_ns)))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Arrival::Closed),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(Arrival::Nothing),
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset => return Ok(Arrival::Closed),
                    _ => return Err(error),
                },
            }
        }
    }
}

fn deadline() -> u64 {
    SystemClock.monotonic_ns() + PATIENCE.as_nanos() as u64
}
