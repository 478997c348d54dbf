//! What the server knows of each client, shared between its connection and
//! everybody who asks about it, pushes to it or kills it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::outbox::Outbox;

/// A connected client.
#[derive(Debug)]
pub struct Client {
    /// Never reused while the process lives.
    pub id: u64,
    /// `host:port` of the other side.
    pub addr: String,
    /// `host:port` of our side.
    pub laddr: String,
    /// When it connected, in milliseconds since 1970.
    pub created_ms: u64,
    /// Pushes on their way.
    pub outbox: Outbox,
    /// What the client told about itself.
    pub identity: Mutex<Identity>,
    /// What it is doing.
    pub activity: Activity,
    /// Set to end the connection; `outbox.wake` tells it.
    killed: AtomicBool,
}

/// What a client told about itself.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// `CLIENT SETNAME`.
    pub name: String,
    /// `CLIENT SETINFO lib-name`.
    pub lib_name: String,
    /// `CLIENT SETINFO lib-ver`.
    pub lib_ver: String,
    /// The authenticated user.
    pub user: String,
}

/// Figures of `CLIENT LIST`, written by the client's own connection.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "named as in CLIENT LIST")]
pub struct Activity {
    pub db: AtomicUsize,
    pub resp3: AtomicBool,
    pub shows_revisions: AtomicBool,
    /// Id of the last command in the command table, plus one; 0: none yet.
    pub last_command: AtomicUsize,
    pub last_interaction_ms: AtomicU64,
    pub subscriptions: AtomicUsize,
    pub patterns: AtomicUsize,
    pub shard_subscriptions: AtomicUsize,
    /// Queued commands of a MULTI; -1 outside.
    pub multi: AtomicI64,
    /// The branch it is on.
    pub branch: AtomicU32,
    /// The revision that CLIENT TRAVEL reads at; `u64::MAX` for the present.
    pub travel: AtomicU64,
    /// Bytes of those commands.
    pub multi_bytes: AtomicUsize,
    pub watched: AtomicUsize,
    /// Open watches, see WATCHFROM.
    pub watches: AtomicUsize,
    pub blocked: AtomicBool,
    pub monitor: AtomicBool,
    pub tracking: AtomicBool,
    pub tracking_broadcast: AtomicBool,
    /// The client that invalidations should go to has left.
    pub redirect_broken: AtomicBool,
    pub no_evict: AtomicBool,
    pub no_touch: AtomicBool,
    /// Client id that invalidations go to; 0: this one.
    pub redirect: AtomicU64,
    /// Bytes in the query buffer, and its capacity.
    pub query_buffer: AtomicUsize,
    pub query_buffer_capacity: AtomicUsize,
    /// Bytes of replies not yet taken by the socket.
    pub output_buffer: AtomicUsize,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

impl Client {
    /// Ends the connection as soon as its task sees it.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.outbox.wake.notify_one();
    }

    /// Whether the connection is to end.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// Bytes the server holds for it: what it sent and what waits for it.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let activity = &self.activity;
        activity.query_buffer_capacity.load(Ordering::Relaxed)
            + activity.multi_bytes.load(Ordering::Relaxed)
            + activity.output_buffer.load(Ordering::Relaxed)
            + self.outbox.bytes()
    }

    /// Whether it is subscribed to anything.
    #[must_use]
    pub fn is_subscriber(&self) -> bool {
        let a = &self.activity;
        [&a.subscriptions, &a.patterns, &a.shard_subscriptions]
            .iter()
            .any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Whether it has a watch open.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.activity.watches.load(Ordering::Relaxed) > 0
    }
}

/// All connected clients.
#[derive(Debug, Default)]
pub struct Clients {
    next_id: AtomicU64,
    all: RwLock<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    /// Registers a client.
    pub(crate) fn connect(&self, addr: String, laddr: String, now_ms: u64) -> Arc<Client> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            addr,
            laddr,
            created_ms: now_ms,
            outbox: Outbox::default(),
            identity: Mutex::new(Identity { user: "default".to_owned(), ..Identity::default() }),
            activity: Activity {
                multi: AtomicI64::new(-1),
                travel: AtomicU64::new(u64::MAX),
                last_interaction_ms: AtomicU64::new(now_ms),
                ..Activity::default()
            },
            killed: AtomicBool::new(false),
        });
        self.all.write().insert(id, client.clone());
        client
    }

    /// Ends a client's connection. Nobody finds the client from here on, though
    /// its task takes a moment to end.
    pub(crate) fn kill(&self, client: &Client) {
        self.disconnect(client.id);
        client.kill();
    }

    pub(crate) fn disconnect(&self, id: u64) {
        self.all.write().remove(&id);
    }

    /// How many are connected.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.read().len()
    }

    /// Whether none is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client of this id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.all.read().get(&id).cloned()
    }

    /// Everybody, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.all.read().values().cloned().collect()
    }
}
