//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::{Engine, Home};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::connection::Connection;
use crate::unauthenticated::Unauthenticated;

/// Connections that wait to be accepted, at most.
const BACKLOG: u32 = 1024;

/// Tells listeners and connections to end.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// A signal that is given by sending `true`.
    #[must_use]
    pub fn new() -> (watch::Sender<bool>, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (sender, Shutdown(receiver))
    }

    /// Whether the signal was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the signal.
    pub async fn given(&mut self) {
        // A sender that is gone will never give it; its process is ending.
        let _ = self.0.wait_for(|given| *given).await;
    }
}

/// A bound address that serves the Redis protocol.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    home: Arc<Home>,
    unauthenticated: Unauthenticated,
}

impl Listener {
    /// Binds an address, whose clients begin at `home`. Listeners of one server
    /// share what counts those without a password.
    ///
    /// # Errors
    /// When it is taken or not ours.
    pub fn bind(
        address: SocketAddr,
        home: Arc<Home>,
        unauthenticated: Unauthenticated,
    ) -> io::Result<Listener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Listener { socket: socket.listen(BACKLOG)?, home, unauthenticated })
    }

    /// The address bound, with the port the system chose for port 0.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `shutdown`, then returns once the last connection that it
    /// accepted has ended.
    pub async fn serve(self, engine: Arc<Engine>, mut shutdown: Shutdown) {
        // Every connection holds a sender; the channel closes with the last.
        let (alive, mut all_gone) = mpsc::channel::<()>(1);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = shutdown.given() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.welcome(stream, peer, &engine, &shutdown, &alive);
                }
                Err(error) => {
                    // Out of descriptors, most likely. Accepting again at once
                    // would spin; the listening queue holds the clients.
                    tracing::error!(%error, "cannot accept a connection; trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(alive);
        // Connections look at the signal whenever they are woken.
        engine.all_clients().iter().for_each(|client| client.outbox.wake.notify_one());
        let _ = all_gone.recv().await;
    }

    fn welcome(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        engine: &Arc<Engine>,
        shutdown: &Shutdown,
        alive: &mpsc::Sender<()>,
    ) {
        let settings = engine.live().settings.clone();
        let connections_max = settings.max_connections as usize;
        let place = if settings.requirepass.is_empty() {
            None
        } else {
            self.unauthenticated.enter(peer.ip(), connections_max)
        };
        let has_share = settings.requirepass.is_empty() || place.is_some();
        if engine.clients.len() >= connections_max || !has_share {
            engine.stats.rejected_connections.fetch_add(1, Ordering::Relaxed);
            if !has_share {
                tracing::debug!(%peer, "refused: too many connections of it without a password");
            }
            tokio::spawn(async move {
                let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
            });
            return;
        }
        if let Err(error) = prepare(&stream, settings.tcp_keepalive_s) {
            tracing::debug!(%peer, %error, "cannot set socket options");
        }
        let local = stream.local_addr().map_or_else(|_| String::new(), |addr| addr.to_string());
        let session = engine.connect(peer.to_string(), local, self.home.clone());
        let connection = Connection::new(stream, session, engine.clone(), shutdown.clone(), place);
        let alive = alive.clone();
        tokio::spawn(async move {
            connection.run().await;
            drop(alive);
        });
    }
}

fn prepare(stream: &TcpStream, keepalive_s: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if keepalive_s > 0 {
        // As Redis: three probes in the last third of the interval.
        let probe = Duration::from_secs((keepalive_s / 3).max(1));
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(keepalive_s))
            .with_interval(probe)
            .with_retries(3);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}
