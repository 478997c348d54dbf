//! Handlers without an engine: a keyspace, one client, a clock that stands
//! still. Every transaction's recorded effects are applied to a second
//! keyspace, which must then hold the same.

#![allow(dead_code, reason = "each test file uses its part")]

mod presence;

use std::sync::Mutex;

use base::{DbIndex, Frame, FrameBuilder, Revision, SeededRng};
use command::{Block, Command, Ctx, DataLimits, Error, Handler, Run, ScopeRule, table};
use keyspace::effect::{Cause, Effect, Effects};
use keyspace::{
    Buffers, EncodingLimits, Journal, Keyspace, SHARDS, Scope, Txn, TxnOptions, ValueRef, class,
};
use presence::Presence;

/// Gives revisions and keeps the records of the last transaction: what it found to
/// be due has one of its own, before.
#[derive(Debug, Default)]
struct Journaled {
    newest: Mutex<Revision>,
    last: Mutex<Vec<Record>>,
}

/// A transaction as a log would keep it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its revision.
    pub revision: Revision,
    /// The database its effects begin in.
    pub db: DbIndex,
    /// What it changed.
    pub effects: Vec<u8>,
}

impl Journal for Journaled {
    fn reserve(&self) -> Revision {
        let mut newest = self.newest.lock().expect("no panic while locked");
        newest.0 += 1;
        *newest
    }

    fn append(&self, revision: Revision, _: u64, db: DbIndex, effects: &[u8]) {
        let record = Record { revision, db, effects: effects.to_vec() };
        self.last.lock().expect("no panic while locked").push(record);
    }
}

/// One client's view of a keyspace.
pub struct Harness {
    keyspace: Keyspace,
    replica: Keyspace,
    /// The keys, by what records say.
    presence: Presence,
    /// Both hash with one seed, so that tables have one shape.
    are_twins: bool,
    journal: Journaled,
    buffers: Buffers,
    rng: SeededRng,
    /// The database of SELECT.
    pub db: DbIndex,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Encoding limits of all commands.
    pub limits: EncodingLimits,
    /// Limits on values.
    pub data: DataLimits,
    /// What the reply sink says of the protocol.
    pub resp3: bool,
    /// Whether commands may wait.
    pub can_block: bool,
    /// What the last command waits for, if it does.
    pub blocked: Option<Block>,
    /// Events of the last command: `name key`.
    pub events: Vec<String>,
    /// The last transaction, if it changed anything.
    pub record: Option<Record>,
}

impl Default for Harness {
    fn default() -> Harness {
        Harness::new()
    }
}

impl Harness {
    /// An empty keyspace of 16 databases. The replica hashes with another
    /// seed, so that nothing can depend on the order in tables.
    #[must_use]
    pub fn new() -> Harness {
        Harness::over(Keyspace::new(16, 1), Keyspace::new(16, 2), false, 7)
    }

    /// A keyspace of that many databases and its replica, alike down to the
    /// memory they take; `seed` hashes and makes random choices.
    #[must_use]
    pub fn with_twin(databases: DbIndex, seed: u64) -> Harness {
        let keyspace = Keyspace::new(databases, seed);
        let replica = keyspace.empty_like();
        Harness::over(keyspace, replica, true, seed)
    }

    fn over(keyspace: Keyspace, replica: Keyspace, are_twins: bool, seed: u64) -> Harness {
        Harness {
            keyspace,
            replica,
            presence: Presence::default(),
            are_twins,
            journal: Journaled::default(),
            buffers: Buffers::default(),
            rng: SeededRng::new(seed),
            db: 0,
            now_ms: 1_700_000_000_000,
            limits: EncodingLimits::default(),
            data: DataLimits::default(),
            resp3: false,
            can_block: true,
            blocked: None,
            events: Vec::new(),
            record: None,
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
        self.record = None;
        let (command, handler) = match find(argv) {
            Ok(found) => found,
            Err(error) => return Some(Frame::Error(error)),
        };
        let scope = self.scope(command, argv);
        let options = options(self.now_ms, &self.limits, u32::MAX);
        let (keyspace, journal, buffers) = (&self.keyspace, &self.journal, &mut self.buffers);
        let mut tx = if command.single_key {
            Txn::begin_on_key(keyspace, argv[1], journal, buffers, options)
        } else {
            Txn::begin(keyspace, &scope, journal, buffers, options)
        };
        tx.select(self.db);
        command.learn_keys(&mut tx, argv);
        let mut sink = FrameBuilder::new(self.resp3);
        let mut ctx = Ctx {
            tx: &mut tx,
            rng: &mut self.rng,
            limits: &self.data,
            can_block: self.can_block,
            block: None,
        };
        let result = handler(&mut ctx, command.arguments(argv), &mut sink);
        self.blocked = ctx.block;
        let finished = tx.finish();
        let mut replies = sink.finish();
        let failed = result.is_err();
        if let Err(error) = result {
            assert!(replies.is_empty(), "{argv:?} answered before it failed");
            replies.push(Frame::Error(error.text().to_owned()));
        }
        assert_eq!(replies.len(), usize::from(self.blocked.is_none()), "replies of {argv:?}");
        self.end(finished.written);
        assert!(finished.depends_on >= finished.written.unwrap_or_default());
        if failed || self.blocked.is_some() || !command.flags.has(command::flags::WRITE) {
            self.assert_only_expired(argv);
        }
        let keys = command.keys(argv);
        keys.iter().for_each(|key| self.compare(argv[key.index]));
        replies.pop()
    }

    /// Runs commands, each in its database, in one transaction, as EXEC does.
    pub fn run_together(&mut self, commands: &[(DbIndex, Vec<Vec<u8>>)]) {
        self.record = None;
        let options = options(self.now_ms, &self.limits, u32::MAX);
        let mut tx =
            Txn::begin(&self.keyspace, &Scope::All, &self.journal, &mut self.buffers, options);
        for (db, argv) in commands {
            let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
            let Ok((command, handler)) = find(&argv) else { continue };
            tx.select(*db);
            command.learn_keys(&mut tx, &argv);
            let mut sink = FrameBuilder::new(self.resp3);
            let mut ctx = Ctx {
                tx: &mut tx,
                rng: &mut self.rng,
                limits: &self.data,
                can_block: false,
                block: None,
            };
            let result = handler(&mut ctx, command.arguments(&argv), &mut sink);
            assert_eq!(sink.finish().len(), usize::from(result.is_ok()), "replies of {argv:?}");
        }
        let written = tx.finish().written;
        self.end(written);
    }

    /// Removes what is due, as the expiry cycle does.
    pub fn expire_due(&mut self) -> usize {
        let mut removed = 0;
        for shard in 0..SHARDS {
            let options = options(self.now_ms, &self.limits, u32::MAX);
            let scope = Scope::Shards([shard].into_iter().collect());
            let (keyspace, journal) = (&self.keyspace, &self.journal);
            let mut tx = Txn::begin(keyspace, &scope, journal, &mut self.buffers, options);
            removed += tx.expire_due(shard, usize::MAX);
            let written = tx.finish().written;
            self.end(written);
            assert!(!self.keyspace.has_due(shard, self.now_ms));
        }
        removed
    }

    /// Sets or removes a key's deadline, as EXPIRE does.
    pub fn set_deadline(&mut self, key: &str, deadline: Option<u64>) {
        let options = options(self.now_ms, &self.limits, u32::MAX);
        let buffers = &mut self.buffers;
        let (keyspace, journal) = (&self.keyspace, &self.journal);
        let mut tx = Txn::begin_on_key(keyspace, key.as_bytes(), journal, buffers, options);
        tx.select(self.db);
        assert!(tx.set_deadline(key.as_bytes(), deadline), "{key} does not exist");
        let written = tx.finish().written;
        self.end(written);
    }

    /// Takes a finished transaction's events and applies its record to the
    /// replica.
    fn end(&mut self, written: Option<Revision>) {
        let records =
            std::mem::take(&mut *self.journal.last.lock().expect("no panic while locked"));
        self.record = records.last().cloned();
        if written.is_some() {
            assert_eq!(self.record.as_ref().map(|record| record.revision), written);
        }
        let events = self.buffers.take_events().into_iter();
        self.events = events
            .filter(|event| event.class != class::NEW)
            .map(|event| format!("{} {}", event.name, String::from_utf8_lossy(&event.key)))
            .collect();
        self.buffers.take_garbage();
        for Record { revision, db, effects } in &records {
            assert!(!effects.is_empty(), "a revision without a change");
            self.presence.follow(*db, effects);
            self.replica
                .apply(*revision, self.now_ms, *db, effects, &self.limits, &mut Buffers::default())
                .expect("the effects fit the state before");
        }
        if let Some(first) = records.first() {
            assert_eq!(self.buffers.first_db(), first.db, "where the effects begin");
        }
    }

    /// Whether the last transaction did more than remove keys past their
    /// deadline.
    #[must_use]
    pub fn changed_by_client(&self) -> bool {
        self.record.as_ref().is_some_and(|record| {
            Effects::new(&record.effects).flatten().any(|effect| {
                !matches!(
                    effect,
                    Effect::Database(_) | Effect::Key { .. } | Effect::Delete(Cause::Expired)
                )
            })
        })
    }

    /// The last transaction did nothing but remove keys past their deadline.
    fn assert_only_expired(&self, argv: &[&[u8]]) {
        let Some(record) = &self.record else { return };
        for effect in Effects::new(&record.effects) {
            let effect = effect.expect("well-formed");
            let is_expiry = matches!(
                effect,
                Effect::Database(_) | Effect::Key { .. } | Effect::Delete(Cause::Expired)
            );
            assert!(is_expiry, "{argv:?} should change nothing, but recorded {effect:?}");
        }
    }

    fn scope(&self, command: &Command, argv: &[&[u8]]) -> Scope {
        let mut rule = command.spec.scope;
        while let ScopeRule::ByArguments(choose) = rule {
            rule = choose(command.arguments(argv));
        }
        let keys = command.keys(argv);
        match rule {
            ScopeRule::All => Scope::All,
            ScopeRule::Sliced => Scope::Sliced,
            _ => Scope::Shards(
                keys.iter().map(|key| self.keyspace.shard_of(argv[key.index])).collect(),
            ),
        }
    }

    /// Compares one key with its replica.
    fn compare(&self, key: &[u8]) {
        let (mut here, mut there) = (Buffers::default(), Buffers::default());
        let mut options = options(self.now_ms, &self.limits, 0);
        options.expire = false;
        let mut here = Txn::begin_on_key(&self.keyspace, key, &self.journal, &mut here, options);
        let mut there = Txn::begin_on_key(&self.replica, key, &self.journal, &mut there, options);
        here.select(self.db);
        there.select(self.db);
        assert_same(self.db, key, &here, &there, self.are_twins);
    }

    /// Compares all of the keyspace with its twin, and both with their own sums
    /// and indices.
    pub fn compare_all(&self) {
        let (mut here, mut there) = (Buffers::default(), Buffers::default());
        let mut options = options(self.now_ms, &self.limits, 0);
        options.expire = false;
        let mut here = Txn::begin(&self.keyspace, &Scope::All, &self.journal, &mut here, options);
        let mut there = Txn::begin(&self.replica, &Scope::All, &self.journal, &mut there, options);
        let mut keys = 0;
        for db in 0..self.keyspace.databases() {
            here.select(db);
            there.select(db);
            keys += here.len();
            assert_eq!(here.len(), there.len(), "keys of database {db} and its replica");
            here.scan_resident(&mut |key, _| {
                assert!(self.presence.contains(db, key), "{key:?} of {db} stands in no record");
                assert_same(db, key, &here, &there, self.are_twins)
            });
        }
        assert_eq!(self.presence.len(), keys, "keys that records have left");
        assert_eq!(here.statistics(), there.statistics(), "counts and the replica's");
        drop((here, there));
        self.keyspace.check().expect("sums and indices agree");
        self.replica.check().expect("the replica's sums and indices agree");
        assert_eq!(
            self.keyspace.memory_bytes(),
            self.replica.memory_bytes(),
            "memory and the replica's"
        );
    }

    /// Runs the expiry cycle on the keyspace and, on its own, on its twin: both
    /// must find the same keys due, in the same order.
    pub fn expire_both(&mut self) {
        let mut options = options(self.now_ms, &self.limits, 0);
        options.expire = true;
        for shard in 0..SHARDS {
            let scope = Scope::Shards([shard].into_iter().collect());
            let due = |keyspace: &Keyspace| {
                let mut buffers = Buffers::default();
                let mut tx = Txn::begin(keyspace, &scope, &self.journal, &mut buffers, options);
                tx.expire_due(shard, usize::MAX);
                drop(tx);
                buffers.effects().to_vec()
            };
            assert_eq!(due(&self.keyspace), due(&self.replica), "what is due in shard {shard}");
        }
    }
}

/// The same value, encoding, deadline and revision on both sides, and of twins
/// the same memory.
fn assert_same(db: DbIndex, key: &[u8], here: &Txn<'_>, there: &Txn<'_>, are_twins: bool) {
    let name = key.escape_ascii();
    let (info, replicated) = (here.info(key), there.info(key));
    let (value, copy) = (here.look(key), there.look(key));
    let equal = match (value, copy) {
        (None, None) => true,
        (Some(ValueRef::Str(a)), Some(ValueRef::Str(b))) => a == b,
        (Some(ValueRef::List(a)), Some(ValueRef::List(b))) => a == b,
        (Some(ValueRef::Set(a)), Some(ValueRef::Set(b))) => a == b,
        (Some(ValueRef::Hash(a)), Some(ValueRef::Hash(b))) => a == b,
        (Some(ValueRef::Zset(a)), Some(ValueRef::Zset(b))) => a == b,
        _ => false,
    };
    assert!(equal, "\"{name}\" of database {db} is {value:.200?}, its replica {copy:.200?}");
    assert_eq!(value.map(encoding), copy.map(encoding), "encodings of \"{name}\" in {db}");
    let known = |info: keyspace::KeyInfo| (info.revision, info.deadline, info.is_raw);
    assert_eq!(info.map(known), replicated.map(known), "\"{name}\" of database {db}");
    if are_twins {
        let bytes = |info: keyspace::KeyInfo| info.memory_bytes;
        assert_eq!(info.map(bytes), replicated.map(bytes), "memory of \"{name}\" in {db}");
    }
}

fn encoding(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Str(_) => "string",
        ValueRef::List(list) => list.encoding(),
        ValueRef::Set(set) => set.encoding(),
        ValueRef::Hash(hash) => hash.encoding(),
        ValueRef::Zset(zset) => zset.encoding(),
    }
}

/// The data command that these words name, subcommands included.
fn find(argv: &[&[u8]]) -> Result<(&'static Command, Handler), String> {
    let unknown = || format!("unknown command {:?}", argv[0]);
    let mut command = table().find(argv[0]).ok_or_else(unknown)?;
    if !command.subcommands.is_empty() {
        let name = argv.get(1).ok_or_else(unknown)?;
        command = command.subcommand(name).ok_or_else(unknown)?;
    }
    if !command.spec.accepts(argv.len()) {
        return Err(Error::arity(&command.full_name).text().to_owned());
    }
    match command.spec.run {
        Run::Data(handler) => Ok((command, handler)),
        _ => panic!("{argv:?} is not on data"),
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
