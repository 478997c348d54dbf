//! How long the server waits for a client: RELIABILITY 6, S3 and S17. The
//! runtime's clock is the test's, so half a minute takes no time; it moves only
//! when the test says so, however long the kernel takes to deliver bytes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::SystemClock;
use engine::{Engine, Hooks, Identity, NoLog};
use front_resp::{Listener, Shutdown, Unauthenticated};
use keyspace::Keyspace;
use settings::{SecretString, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server in the test's own runtime and time.
struct Served {
    address: SocketAddr,
    _stop: tokio::sync::watch::Sender<bool>,
    /// A paused clock moves by itself when nothing is left to run, but not
    /// while a blocking task runs: this one waits for the test's end.
    _holds_time: std::sync::mpsc::Sender<()>,
}

fn serve(settings: Settings) -> Served {
    let (holds_time, ended) = std::sync::mpsc::channel();
    // Should the test hang, time moves on in the end, and its patience ends.
    tokio::task::spawn_blocking(move || ended.recv_timeout(crate::wire::PATIENCE));
    let engine = Arc::new(Engine::new(
        Keyspace::new(1, 1),
        Arc::new(NoLog::default()),
        Arc::new(SystemClock),
        1,
        settings,
        Identity::default(),
        Hooks::default(),
    ));
    let (stop, shutdown) = Shutdown::new();
    let listener = Listener::bind(
        SocketAddr::from(([127, 0, 0, 1], 0)),
        Arc::default(),
        Unauthenticated::default(),
    )
    .expect("a free port");
    let address = listener.address().expect("bound");
    tokio::spawn(listener.serve(engine, shutdown));
    Served { address, _stop: stop, _holds_time: holds_time }
}

impl Served {
    /// A connection whose bytes leave at once.
    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.expect("accepted");
        stream.set_nodelay(true).expect("a socket");
        stream
    }

    /// Lets time pass, once the server has seen what was sent before. `other`
    /// is a connection that is in order.
    async fn pass(&self, other: &mut TcpStream, seconds: u64) {
        for _ in 0..2 {
            ask(other).await;
        }
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }
}

/// One PING and whatever the server says to it.
async fn ask(stream: &mut TcpStream) -> Vec<u8> {
    stream.write_all(b"PING\r\n").await.expect("the connection is open");
    let mut reply = vec![0; 64];
    let count = stream.read(&mut reply).await.expect("the connection is open");
    assert!(count > 0, "closed");
    reply.truncate(count);
    reply
}

/// Waits for the server to end the connection.
async fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    let read = tokio::time::timeout(Duration::from_secs(3600), read).await;
    // An error is an end as well: the server left bytes of ours unread.
    let _ = read.expect("the server ends the connection");
}

/// Whether the server has not ended the connection.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    stream.try_read(&mut byte).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn locked() -> Settings {
    Settings { requirepass: SecretString::new("secret"), ..Settings::default() }
}

#[tokio::test(start_paused = true)]
async fn s3_ten_seconds_to_authenticate() {
    let server = serve(locked());
    let mut silent = server.connect().await;
    let mut chatty = server.connect().await;
    server.pass(&mut chatty, 9).await;
    assert!(ask(&mut chatty).await.starts_with(b"-NOAUTH"));
    assert!(is_open(&silent));
    // Talking does not help.
    server.pass(&mut chatty, 1).await;
    ends(&mut silent).await;
    ends(&mut chatty).await;
}

#[tokio::test(start_paused = true)]
async fn s17_a_request_has_half_a_minute() {
    let server = serve(Settings::default());
    let mut other = server.connect().await;
    for beginning in [&b"*2\r\n$3\r\nGET\r\n$1000\r\n"[..], b"*", b"GET "] {
        let mut slow = server.connect().await;
        slow.write_all(beginning).await.expect("taken");
        for _ in 0..3 {
            server.pass(&mut other, 9).await;
            slow.write_all(b"1").await.expect("taken");
        }
        assert!(ask(&mut other).await.starts_with(b"+PONG"));
        assert!(is_open(&slow), "{}", beginning.escape_ascii());
        server.pass(&mut other, 3).await;
        ends(&mut slow).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s17_what_arrives_buys_time_and_what_is_complete_starts_anew() {
    let server = serve(Settings::default());
    let mut other = server.connect().await;
    let mut large = server.connect().await;
    large.write_all(b"*2\r\n$4\r\nECHO\r\n$200000\r\n").await.expect("taken");
    for _ in 0..200 {
        server.pass(&mut other, 1).await;
        large.write_all(&[b'x'; 1000]).await.expect("a kilobyte a second is fast enough");
    }
    large.write_all(b"\r\n").await.expect("taken");
    let mut reply = vec![0; 9 + 200_000 + 2];
    large.read_exact(&mut reply).await.expect("the whole value");
    assert!(reply.starts_with(b"$200000\r\n"));
    // A byte a second for minutes: each request is done in its time.
    for _ in 0..10 {
        for byte in b"*1\r\n$4\r\nPING\r\n" {
            server.pass(&mut other, 1).await;
            large.write_all(&[*byte]).await.expect("taken");
        }
        let mut reply = [0; 7];
        large.read_exact(&mut reply).await.expect("a reply");
        assert_eq!(&reply, b"+PONG\r\n");
    }
    // And silence between requests is nobody's business.
    server.pass(&mut other, 86_400).await;
    assert!(ask(&mut large).await.starts_with(b"+PONG"));
}
