//! How long the server waits for a client: RELIABILITY 6, S3 and S17. The
//! runtime's clock is the test's, so half a minute takes no time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::SystemClock;
use engine::{Engine, Hooks, Identity, NoLog};
use front_resp::{Listener, Shutdown};
use keyspace::Keyspace;
use settings::{SecretString, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Serves with these settings as long as the answer lives.
fn serve(settings: Settings) -> (SocketAddr, impl Drop) {
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
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = listener.address().expect("bound");
    tokio::spawn(listener.serve(engine, shutdown));
    (address, StopOnDrop(stop))
}

struct StopOnDrop(tokio::sync::watch::Sender<bool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

fn locked() -> Settings {
    Settings { requirepass: SecretString::new("secret"), ..Settings::default() }
}

/// A connection whose bytes leave at once: the kernel's time is not the test's.
async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("accepted");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Seconds until the server ends the connection, while the client sends `byte`
/// every `pause` seconds.
async fn drip(stream: &mut TcpStream, byte: &[u8], pause: u64) -> u64 {
    let begun = Instant::now();
    loop {
        let mut reply = [0; 64];
        tokio::select! {
            read = stream.read(&mut reply) => match read {
                Ok(0) | Err(_) => return begun.elapsed().as_secs(),
                Ok(_) => {}
            },
            () = tokio::time::sleep(Duration::from_secs(pause)) => {
                let _ = stream.write_all(byte).await;
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(600), "it is never cut off");
    }
}

#[tokio::test(start_paused = true)]
async fn s3_ten_seconds_to_authenticate() {
    let (address, _server) = serve(locked());
    let mut silent = connect(address).await;
    assert_eq!(drip(&mut silent, b"", 3600).await, 10);
    // Nor does talking help.
    let mut chatty = connect(address).await;
    assert_eq!(drip(&mut chatty, b"PING\r\n", 3).await, 10);
}

#[tokio::test(start_paused = true)]
async fn s17_a_request_has_half_a_minute() {
    let (address, _server) = serve(Settings::default());
    for beginning in [&b"*2\r\n$3\r\nGET\r\n$1000\r\n"[..], b"*", b"GET "] {
        let mut slow = connect(address).await;
        slow.write_all(beginning).await.expect("taken");
        assert_eq!(drip(&mut slow, b"1", 9).await, 30, "{}", beginning.escape_ascii());
    }
}

#[tokio::test(start_paused = true)]
async fn s17_what_arrives_buys_time_and_what_is_complete_starts_anew() {
    let (address, _server) = serve(Settings::default());
    let mut large = connect(address).await;
    large.write_all(b"*2\r\n$4\r\nECHO\r\n$200000\r\n").await.expect("taken");
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        large.write_all(&[b'x'; 1000]).await.expect("a kilobyte a second is fast enough");
    }
    large.write_all(b"\r\n").await.expect("taken");
    let mut reply = vec![0; 9 + 200_000 + 2];
    large.read_exact(&mut reply).await.expect("the whole value");
    assert!(reply.starts_with(b"$200000\r\n"));
    // A request a byte a second for minutes: each is done in its time.
    for round in 0..10 {
        eprintln!("{round} {:?}", Instant::now());
        for byte in b"*1\r\n$4\r\nPING\r\n" {
            tokio::time::sleep(Duration::from_secs(1)).await;
            large.write_all(&[*byte]).await.expect("taken");
        }
        let mut reply = [0; 7];
        large.read_exact(&mut reply).await.expect("a reply");
        assert_eq!(&reply, b"+PONG\r\n");
    }
    // And silence between requests is nobody's business.
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    large.write_all(b"PING\r\n").await.expect("still open");
    let mut reply = [0; 7];
    large.read_exact(&mut reply).await.expect("a reply");
}
