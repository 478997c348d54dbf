//! Handlers without an engine: a keyspace, one client, a clock that stands
//! still. Every command's recorded effects are applied to a second keyspace,
//! which must then hold the same.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::atomic::{AtomicU64, Ordering};

use base::{DbIndex, Frame, FrameBuilder, Revision, SeededRng};
use command::{Block, Ctx, DataLimits, Error, Run, ScopeRule, table};
use keyspace::{
    Buffers, EncodingLimits, Journal, Keyspace, Scope, Txn, TxnOptions, Value, ValueRef, class,
};

/// Gives revisions; the effects are read from the transaction's buffers.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Journal for Counter {
    fn reserve(&self) -> Revision {
        Revision(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

/// One client's view of a keyspace.
pub struct Harness {
    keyspace: Keyspace,
    replica: Keyspace,
    journal: Counter,
    buffers: Buffers,
    rng: SeededRng,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Encoding limits of all commands.
    pub limits: EncodingLimits,
    /// What the reply sink says of the protocol.
    pub resp3: bool,
    /// Whether commands may wait.
    pub can_block: bool,
    /// What the last command waits for, if it does.
    pub blocked: Option<Block>,
    /// Events of the last command: `name key`.
    pub events: Vec<String>,
}

impl Default for Harness {
    fn default() -> Harness {
        Harness::new()
    }
}

impl Harness {
    /// An empty keyspace.
    #[must_use]
    pub fn new() -> Harness {
        Harness {
            keyspace: Keyspace::new(16, 1),
            replica: Keyspace::new(16, 2),
            journal: Counter::default(),
            buffers: Buffers::default(),
            rng: SeededRng::new(7),
            now_ms: 1_700_000_000_000,
            limits: EncodingLimits::default(),
            resp3: false,
            can_block: true,
            blocked: None,
            events: Vec::new(),
        }
    }

    /// Runs a command and answers its reply.
    ///
    /// # Panics
    /// When it waits, breaks a rule of handlers, or its effects do not give
    /// the same state elsewhere.
    pub fn run(&mut self, words: &[&str]) -> Frame {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.run_bytes(&words).expect("the command answers at once")
    }

    /// As [`Harness::run`], with the words of a line, separated by spaces.
    pub fn line(&mut self, line: &str) -> Frame {
        self.run(&line.split(' ').collect::<Vec<_>>())
    }

    /// As [`Harness::run`]; `None` when the command waits.
    pub fn run_bytes(&mut self, argv: &[&[u8]]) -> Option<Frame> {
        self.blocked = None;
        self.events.clear();
        let Some(command) = table().find(argv[0]) else {
            return Some(Frame::Error(format!("unknown command {:?}", argv[0])));
        };
        if !command.spec.accepts(argv.len()) {
            return Some(Frame::Error(Error::arity(&command.full_name).text().to_owned()));
        }
        let Run::Data(handler) = command.spec.run else { panic!("{argv:?} is not on data") };
        let keys: Vec<&[u8]> = command.keys(argv).iter().map(|key| argv[key.index]).collect();
        let mut rule = command.spec.scope;
        while let ScopeRule::ByArguments(choose) = rule {
            rule = choose(&argv[1..]);
        }
        let scope = match rule {
            ScopeRule::All => Scope::All,
            ScopeRule::Sliced => Scope::Sliced,
            _ => Scope::Shards(keys.iter().map(|key| self.keyspace.shard_of(key)).collect()),
        };
        let options = options(self.now_ms, &self.limits, u32::MAX);
        let mut tx = Txn::begin(&self.keyspace, &scope, &self.journal, &mut self.buffers, options);
        keys.iter().for_each(|key| tx.purge(key));
        let mut sink = FrameBuilder::new(self.resp3);
        let mut ctx = Ctx {
            tx: &mut tx,
            rng: &mut self.rng,
            limits: &DataLimits::default(),
            can_block: self.can_block,
            block: None,
        };
        let result = handler(&mut ctx, &argv[1..], &mut sink);
        self.blocked = ctx.block;
        let written = tx.finish().written;
        let mut replies = sink.finish();
        if let Err(error) = result {
            assert!(written.is_none() && replies.is_empty(), "{argv:?} failed half way");
            replies.push(Frame::Error(error.text().to_owned()));
        }
        assert_eq!(replies.len(), usize::from(self.blocked.is_none()), "replies of {argv:?}");
        let events = self.buffers.take_events().into_iter();
        self.events = events
            .filter(|event| event.class != class::NEW)
            .map(|event| format!("{} {}", event.name, String::from_utf8_lossy(&event.key)))
            .collect();
        if let Some(revision) = written {
            self.replicate(revision);
        }
        for key in keys {
            self.compare(key);
        }
        replies.pop()
    }

    /// Sets or removes a key's deadline, as EXPIRE does.
    pub fn set_deadline(&mut self, key: &str, deadline: Option<u64>) {
        let options = options(self.now_ms, &self.limits, u32::MAX);
        let buffers = &mut self.buffers;
        let (keyspace, journal) = (&self.keyspace, &self.journal);
        let mut tx = Txn::begin_on_key(keyspace, key.as_bytes(), journal, buffers, options);
        assert!(tx.set_deadline(key.as_bytes(), deadline), "{key} does not exist");
        let written = tx.finish().written.expect("a deadline is a change");
        self.replicate(written);
    }

    fn replicate(&mut self, revision: Revision) {
        let effects = self.buffers.effects().to_vec();
        let mut buffers = Buffers::default();
        self.replica
            .apply(revision, self.now_ms, 0, &effects, &self.limits, &mut buffers)
            .expect("the effects fit the state before");
    }

    fn compare(&self, key: &[u8]) {
        let state = |keyspace: &Keyspace| {
            let options = options(self.now_ms, &self.limits, 0);
            let mut buffers = Buffers::default();
            let tx = Txn::begin_on_key(keyspace, key, &self.journal, &mut buffers, options);
            let revision = tx.info(key).map(|info| info.revision);
            (tx.get(key).map(ValueRef::to_value), tx.deadline(key), revision)
        };
        let (here, there) = (state(&self.keyspace), state(&self.replica));
        let equal = match (&here.0, &there.0) {
            (None, None) => true,
            (Some(Value::Str(a)), Some(Value::Str(b))) => a == b,
            (Some(Value::List(a)), Some(Value::List(b))) => a == b,
            (Some(Value::Set(a)), Some(Value::Set(b))) => a == b,
            (Some(Value::Hash(a)), Some(Value::Hash(b))) => a == b,
            (Some(Value::Zset(a)), Some(Value::Zset(b))) => a == b,
            _ => false,
        };
        assert!(
            equal && here.1 == there.1 && here.2 == there.2,
            "{:?} is {here:?}, its replica {there:?}",
            String::from_utf8_lossy(key)
        );
    }
}

fn options(now_ms: u64, limits: &EncodingLimits, event_classes: u32) -> TxnOptions<'_> {
    TxnOptions { now_ms, limits, event_classes, always_record: false, expire: true, touch: true }
}

/// A reply as text in one line: `1`, `"x"`, `nil`, `[1, "x"]`, `~["x"]` for a
/// set, `!ERR …` for an error.
#[must_use]
pub fn text(frame: &Frame) -> String {
    let list = |items: &[Frame]| items.iter().map(text).collect::<Vec<_>>().join(", ");
    match frame {
        Frame::Simple(word) => word.clone(),
        Frame::Error(words) => format!("!{words}"),
        Frame::Integer(value) => value.to_string(),
        Frame::Bulk(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
        Frame::Null => "nil".to_owned(),
        Frame::NullArray => "nil array".to_owned(),
        Frame::Array(items) => format!("[{}]", list(items)),
        Frame::Set(items) => format!("~[{}]", list(items)),
        Frame::Map(pairs) => {
            let pairs: Vec<_> =
                pairs.iter().map(|(k, v)| format!("{} => {}", text(k), text(v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Frame::Double(value) => format!("{value:?}"),
        other => format!("{other:?}"),
    }
}
