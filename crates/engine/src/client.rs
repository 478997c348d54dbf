//! What the server knows of each client, shared between its connection and
//! everybody who asks about it, pushes to it or kills it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use base::Frame;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

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

/// Bytes that wait in an outbox from which on no changes are fed to it, and
/// below which they are again.
const FEED_BYTES_MAX: usize = 256 * 1024;
const FEED_BYTES_AGAIN: usize = FEED_BYTES_MAX / 2;

/// Pushes that wait for the client's connection to send them.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    bytes: AtomicUsize,
    /// See [`Outbox::take_drained`].
    drained: AtomicBool,
    /// Since when more waits than the soft limit allows, in milliseconds since
    /// 1970; 0: it does not.
    pub(crate) over_soft_since_ms: AtomicU64,
    /// Told when something waits, on kill and at the end of the server.
    pub wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Arc<Frame>>,
    /// Watches wait until there is room again.
    is_awaited: bool,
}

impl Outbox {
    /// Adds a push; answers the bytes that wait now, roughly as they will be on
    /// the wire.
    pub fn push(&self, frame: Arc<Frame>) -> usize {
        let size = frame_bytes(&frame);
        let mut queue = self.queue.lock();
        let is_first = queue.frames.is_empty();
        queue.frames.push_back(frame);
        let bytes = self.bytes.fetch_add(size, Ordering::Relaxed) + size;
        drop(queue);
        // Else somebody has been told, and takes all there is.
        if is_first {
            self.wake.notify_one();
        }
        bytes
    }

    /// Whether nothing waits. Cheap enough to ask after every command.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) == 0
    }

    /// Bytes that wait, roughly as they will be on the wire.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many pushes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.lock().frames.len()
    }

    /// Whether watches should wait, so that what is queued has a bound.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() >= FEED_BYTES_MAX
    }

    /// Asks to be told by [`Outbox::take_drained`] when there is room again;
    /// `false` when there is already.
    pub(crate) fn await_room(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.is_awaited = self.bytes() >= FEED_BYTES_AGAIN;
        queue.is_awaited
    }

    /// Whether there is room again for which watches wait; says so once.
    pub(crate) fn take_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed) && self.drained.swap(false, Ordering::Relaxed)
    }

    /// Drops the pushes that `is_stale` picks.
    pub(crate) fn drop_stale(&self, is_stale: impl Fn(&Frame) -> bool) {
        let mut queue = self.queue.lock();
        queue.frames.retain(|frame| {
            let stays = !is_stale(frame);
            if !stays {
                self.bytes.fetch_sub(frame_bytes(frame), Ordering::Relaxed);
            }
            stays
        });
        self.look_for_room(&mut queue);
    }

    fn look_for_room(&self, queue: &mut Queue) {
        if queue.is_awaited && self.bytes() < FEED_BYTES_AGAIN {
            queue.is_awaited = false;
            self.drained.store(true, Ordering::Relaxed);
        }
    }

    /// Drops what waits: the client is being disconnected.
    pub(crate) fn clear(&self) {
        let mut queue = self.queue.lock();
        queue.frames.clear();
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Takes the oldest push.
    pub fn pop(&self) -> Option<Arc<Frame>> {
        let mut queue = self.queue.lock();
        let frame = queue.frames.pop_front()?;
        self.bytes.fetch_sub(frame_bytes(&frame), Ordering::Relaxed);
        self.look_for_room(&mut queue);
        Some(frame)
    }
}

/// About the bytes a frame takes on the wire; never zero.
fn frame_bytes(frame: &Frame) -> usize {
    16 + match frame {
        Frame::Simple(text) | Frame::Error(text) | Frame::BigNumber(text) => text.len(),
        Frame::Verbatim(_, text) => text.len(),
        Frame::Bulk(bytes) => bytes.len(),
        Frame::Array(items) | Frame::Set(items) | Frame::Push(items) => {
            items.iter().map(frame_bytes).sum()
        }
        Frame::Map(pairs) | Frame::Attribute(pairs) => {
            pairs.iter().map(|(key, value)| frame_bytes(key) + frame_bytes(value)).sum()
        }
        _ => 0,
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
