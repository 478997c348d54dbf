//! An engine without sockets or disk, and clients of it.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod forks;
pub mod past;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use base::{DbIndex, Frame, FrameBuilder, ManualClock, Revision};
use engine::{Blocked, Commit, Engine, Hooks, Identity, NoLog, Outcome, Replicator, Session};
use keyspace::{Journal, Keyspace};
use parking_lot::Mutex;
use settings::Settings;
use tokio::sync::watch;

/// An engine over an empty keyspace, with a clock that stands still.
pub struct Server {
    pub engine: Arc<Engine>,
    pub clock: Arc<ManualClock>,
}

impl Server {
    /// Without a log.
    pub fn new() -> Server {
        Server::with(Arc::new(NoLog::default()))
    }

    pub fn with(replicator: Arc<dyn Replicator>) -> Server {
        let clock = Arc::new(ManualClock::at_ms(1_700_000_000_000));
        let engine = Engine::new(
            Keyspace::new(16, 1),
            replicator,
            clock.clone(),
            1,
            Settings::default(),
            Identity::default(),
            Hooks { shutdown: Some(Box::new(|| {})), ..Hooks::default() },
        );
        Server { engine: Arc::new(engine), clock }
    }

    /// With a history in memory.
    pub fn with_past() -> (Server, Arc<past::MemoryPast>) {
        let past = past::MemoryPast::new();
        let server = Server::with(past.clone());
        server.engine.attach_past(past.clone());
        (server, past)
    }

    /// A client that speaks RESP2.
    pub fn connect(&self) -> Peer {
        let number = self.engine.clients.len() + 1;
        let addr = format!("127.0.0.1:{}", 1000 + number);
        let session = self.engine.connect(addr, "127.0.0.1:6379".to_owned(), Arc::default());
        Peer { engine: self.engine.clone(), session }
    }

    /// A client that speaks RESP3.
    pub fn resp3(&self) -> Peer {
        let mut peer = self.connect();
        peer.run("HELLO 3");
        peer
    }
}

/// A client.
pub struct Peer {
    engine: Arc<Engine>,
    pub session: Session,
}

impl Peer {
    pub fn id(&self) -> u64 {
        self.session.client.id
    }

    /// Runs a line, its words split at spaces (`_` in an argument of CONFIG SET
    /// stands for one); answers the complete replies and the outcome.
    pub fn call(&mut self, line: &str) -> (Vec<Frame>, Outcome) {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if words[0] == "CONFIG" {
            let values = words.iter_mut().skip(3).step_by(2);
            values.for_each(|word| *word = word.replace('_', " "));
        }
        let argv: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let resp3 = self.session.client.activity.resp3.load(Ordering::Relaxed);
        let mut reply = FrameBuilder::new(resp3);
        let live = self.engine.live();
        let outcome = self.engine.execute(&mut self.session, &live, &argv, &mut reply);
        self.engine.end_batch(&mut self.session);
        (reply.finish(), outcome)
    }

    /// Runs a line that has one reply.
    pub fn run(&mut self, line: &str) -> Frame {
        let (mut replies, outcome) = self.call(line);
        assert!(matches!(outcome, Outcome::Done), "{line}: {outcome:?}");
        assert_eq!(replies.len(), 1, "{line}: {replies:?}");
        replies.remove(0)
    }

    /// Runs a line that waits.
    pub fn block(&mut self, line: &str) -> Blocked {
        match self.call(line) {
            (replies, Outcome::Blocked(blocked)) if replies.is_empty() => blocked,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// Takes what was pushed.
    pub fn pushes(&mut self) -> Vec<Frame> {
        let outbox = &self.session.client.outbox;
        let mut frames = FrameBuilder::new(true);
        std::iter::from_fn(|| outbox.pop()).for_each(|pushed| pushed.write(&mut frames));
        self.engine.pushes_sent(&self.session.client, 0);
        frames.finish()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.engine.disconnect(&mut self.session);
    }
}

/// A commit rule that a test moves on by hand.
pub struct Gate {
    newest: AtomicU64,
    committed: AtomicU64,
    durable: AtomicU64,
    syncs_asked: AtomicUsize,
    fault: Mutex<Option<String>>,
}

impl Gate {
    fn committed_to(revision: u64) -> Arc<Gate> {
        Arc::new(Gate {
            newest: AtomicU64::new(0),
            committed: AtomicU64::new(revision),
            durable: AtomicU64::new(0),
            syncs_asked: AtomicUsize::new(0),
            fault: Mutex::new(None),
        })
    }

    /// Commits nothing by itself.
    pub fn shut() -> Arc<Gate> {
        Gate::committed_to(0)
    }

    /// Commits everything; what is on disk is another matter.
    pub fn open() -> Arc<Gate> {
        Gate::committed_to(u64::MAX)
    }

    pub fn reach(&self, revision: u64) {
        self.committed.store(revision, Ordering::SeqCst);
    }

    pub fn sync(&self, revision: u64) {
        self.durable.store(revision, Ordering::SeqCst);
    }

    pub fn syncs_asked(&self) -> usize {
        self.syncs_asked.load(Ordering::SeqCst)
    }

    pub fn fail(&self) {
        *self.fault.lock() = Some("MISCONF broken".to_owned());
    }
}

impl Journal for Gate {
    fn reserve(&self) -> Revision {
        Revision(self.newest.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

impl Replicator for Gate {
    fn is_committed(&self, revision: Revision) -> bool {
        revision.0 <= self.committed.load(Ordering::SeqCst)
    }

    fn committed(&self) -> Revision {
        self.newest().min(Revision(self.committed.load(Ordering::SeqCst)))
    }

    fn commits(&self) -> watch::Receiver<Commit> {
        watch::channel(Commit::default()).1
    }

    fn admit_write(&self) -> command::Result {
        match &*self.fault.lock() {
            Some(text) => Err(command::Error::new(text.clone())),
            None => Ok(()),
        }
    }

    fn durable(&self) -> Revision {
        Revision(self.durable.load(Ordering::SeqCst))
    }

    fn request_sync(&self) {
        self.syncs_asked.fetch_add(1, Ordering::SeqCst);
    }

    fn newest(&self) -> Revision {
        Revision(self.newest.load(Ordering::SeqCst))
    }

    fn info(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

pub fn ok() -> Frame {
    simple("OK")
}

pub fn simple(text: &str) -> Frame {
    Frame::Simple(text.to_owned())
}

pub fn error(text: &str) -> Frame {
    Frame::Error(text.to_owned())
}

pub fn integer(value: i64) -> Frame {
    Frame::Integer(value)
}

pub fn bulk(text: impl AsRef<str>) -> Frame {
    Frame::bulk(text.as_ref())
}
