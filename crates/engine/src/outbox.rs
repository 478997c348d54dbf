//! What waits to be pushed to a client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use base::{Frame, Reply};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::history::Changes;

/// Bytes on their way to a client from which on no changes are fed to its outbox,
/// and below which they are again.
const FEED_BYTES_MAX: usize = 512 * 1024;
const FEED_BYTES_AGAIN: usize = FEED_BYTES_MAX / 2;

/// Pushes that wait for the client's connection to send them.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    bytes: AtomicUsize,
    /// Bytes of pushes that the connection has taken and not sent yet.
    unsent: AtomicUsize,
    /// Bytes of changes that are about to be pushed together.
    gathering: AtomicUsize,
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
    waiting: VecDeque<Pushed>,
    /// Watches wait until there is room again.
    is_awaited: bool,
}

/// A push, or changes of one watch that go together.
#[derive(Debug)]
pub struct Pushed(Kind);

#[derive(Debug)]
enum Kind {
    Frame(Arc<Frame>),
    Changes(Changes),
}

impl From<Arc<Frame>> for Pushed {
    fn from(frame: Arc<Frame>) -> Pushed {
        Pushed(Kind::Frame(frame))
    }
}

impl From<Changes> for Pushed {
    fn from(changes: Changes) -> Pushed {
        Pushed(Kind::Changes(changes))
    }
}

impl Pushed {
    /// Whether RESP3 sets it apart from replies; what MONITOR shows is not.
    #[must_use]
    pub fn is_push(&self) -> bool {
        match &self.0 {
            Kind::Frame(frame) => matches!(**frame, Frame::Push(_)),
            Kind::Changes(_) => true,
        }
    }

    /// Writes it as it is sent.
    pub fn write(&self, reply: &mut impl Reply) {
        match &self.0 {
            Kind::Frame(frame) => reply.frame(frame),
            Kind::Changes(changes) => changes.write(reply),
        }
    }

    /// Whether it tells of a watch that is meant by its id.
    pub(crate) fn is_of_watch(&self, is_meant: impl Fn(u64) -> bool) -> bool {
        match &self.0 {
            Kind::Changes(changes) => is_meant(changes.watch()),
            Kind::Frame(frame) => match &**frame {
                Frame::Push(items) => match &items[..] {
                    [Frame::Bulk(word), Frame::Integer(id), ..] if &word[..] == b"progress" => {
                        u64::try_from(*id).is_ok_and(is_meant)
                    }
                    _ => false,
                },
                _ => false,
            },
        }
    }

    fn len(&self) -> usize {
        match &self.0 {
            Kind::Frame(_) => 1,
            Kind::Changes(changes) => changes.len(),
        }
    }

    /// Never zero.
    fn bytes(&self) -> usize {
        match &self.0 {
            Kind::Frame(frame) => frame_bytes(frame),
            Kind::Changes(changes) => changes.bytes(),
        }
    }
}

impl Outbox {
    /// Adds a push; answers the bytes that wait now, roughly as they will be on
    /// the wire.
    pub fn push(&self, pushed: impl Into<Pushed>) -> usize {
        let pushed = pushed.into();
        let size = pushed.bytes();
        let mut queue = self.queue.lock();
        let is_first = queue.waiting.is_empty();
        queue.waiting.push_back(pushed);
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
        self.queue.lock().waiting.iter().map(Pushed::len).sum()
    }

    /// Whether watches should wait, so that what is gathered, queued or being
    /// sent has a bound.
    pub(crate) fn is_full(&self) -> bool {
        self.on_the_way() + self.gathering.load(Ordering::Relaxed) >= FEED_BYTES_MAX
    }

    /// Whether watches that have found it full should go on.
    pub(crate) fn has_room(&self) -> bool {
        self.on_the_way() < FEED_BYTES_AGAIN
    }

    fn on_the_way(&self) -> usize {
        self.bytes() + self.unsent.load(Ordering::Relaxed)
    }

    /// Changes are gathered to be pushed.
    pub(crate) fn gather(&self, bytes: usize) {
        self.gathering.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are pushed, or dropped.
    pub(crate) fn end_gathering(&self, bytes: usize) {
        self.gathering.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Asks to be told by [`Outbox::take_drained`] when there is room again;
    /// `false` when there is already.
    pub(crate) fn await_room(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.is_awaited = !self.has_room();
        queue.is_awaited
    }

    /// Whether there is room again for which watches wait; says so once.
    pub(crate) fn take_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed) && self.drained.swap(false, Ordering::Relaxed)
    }

    /// Drops the pushes that `is_stale` picks.
    pub(crate) fn drop_stale(&self, is_stale: impl Fn(&Pushed) -> bool) {
        let mut queue = self.queue.lock();
        queue.waiting.retain(|pushed| {
            let stays = !is_stale(pushed);
            if !stays {
                self.bytes.fetch_sub(pushed.bytes(), Ordering::Relaxed);
            }
            stays
        });
        self.look_for_room(&mut queue);
    }

    fn look_for_room(&self, queue: &mut Queue) {
        if queue.is_awaited && self.has_room() {
            queue.is_awaited = false;
            self.drained.store(true, Ordering::Relaxed);
        }
    }

    /// Drops what waits: the client is being disconnected.
    pub(crate) fn clear(&self) {
        let mut queue = self.queue.lock();
        queue.waiting.clear();
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Takes what has waited longest. It counts as being on its way until
    /// [`Outbox::sent`].
    pub fn pop(&self) -> Option<Pushed> {
        let mut queue = self.queue.lock();
        let pushed = queue.waiting.pop_front()?;
        let size = pushed.bytes();
        self.unsent.fetch_add(size, Ordering::Relaxed);
        self.bytes.fetch_sub(size, Ordering::Relaxed);
        Some(pushed)
    }

    /// To be called by whoever takes pushes, when it has sent some: at most
    /// `left` bytes of them are yet to be.
    pub fn sent(&self, left: usize) {
        if self.unsent.load(Ordering::Relaxed) > left {
            let mut queue = self.queue.lock();
            self.unsent.store(left, Ordering::Relaxed);
            self.look_for_room(&mut queue);
        }
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
