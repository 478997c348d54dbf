//! Commands on keys that stand in a backing only.

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::{DbIndex, Frame, Revision, SpaceId};
use harness::{Peer, Server, bulk, error, integer, ok};
use keyspace::{
    Backing, BackingError, Buffers, EncodingLimits, SHARDS, Scope, Stored, Txn, TxnOptions, dump,
};

const DATABASES: DbIndex = 16;

/// What a server had, by database and key: shard, body, deadline, revision.
type Content = BTreeMap<(DbIndex, Vec<u8>), (usize, Vec<u8>, Option<u64>, Revision)>;

#[derive(Debug, Default)]
struct Kept {
    content: Content,
    is_broken: AtomicBool,
}

impl Kept {
    fn stored(&self, space: SpaceId, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(BackingError::new("it is broken"));
        }
        let found = self.content.get(&(space.db, key.to_vec()));
        Ok(found.map(|(_, body, deadline, revision)| Stored {
            value: dump::decode_body(body, 1, &EncodingLimits::default()).expect("encoded before"),
            deadline: *deadline,
            revision: *revision,
        }))
    }
}

impl Backing for Kept {
    fn fetch(&self, space: SpaceId, _: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        self.stored(space, key)
    }

    fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        // A bucket per shard: the first has all the keys.
        self.stored(space, b"")?;
        for (db, key) in self.content.keys().filter(|(db, _)| *db == space.db) {
            let hash = keyspace::table::Table::<Name>::hash(1, key);
            if (hash >> 48) as u16 == bucket {
                each(key, self.stored(SpaceId::first_of(*db), key)?.expect("just seen"));
            }
        }
        Ok(())
    }
}

struct Name;

impl keyspace::table::Keyed for Name {
    fn key(&self) -> &[u8] {
        b""
    }
}

/// What the databases of a server hold.
fn content(server: &Server) -> Content {
    let limits = EncodingLimits::default();
    let options = TxnOptions {
        now_ms: 0,
        limits: &limits,
        event_classes: 0,
        always_record: false,
        expire: false,
        touch: false,
    };
    let keyspace = &server.engine.keyspace;
    let mut buffers = Buffers::default();
    let journal = engine::NoLog::default();
    let mut txn = Txn::begin(keyspace, &Scope::All, &journal, &mut buffers, options);
    let mut content = Content::new();
    for db in 0..DATABASES {
        txn.select(db);
        txn.scan_resident(&mut |key, value| {
            let info = txn.info(key).expect("just visited");
            let stored =
                (keyspace.shard_of(key), dump::encode_body(value), info.deadline, info.revision);
            content.insert((db, key.to_vec()), stored);
        });
    }
    content
}

const FILL: &[&str] = &[
    "SET s 10",
    "SET other 20 EX 100",
    "SET due 1 PX 50",
    "RPUSH l 3 1 2",
    "SADD set a b c",
    "SADD set2 b c d",
    "HSET h f v n 5",
    "ZADD z 1 a 2 b",
    "SET w_1 9",
    "SET w_2 8",
    "SET w_3 7",
    "HSET o_1 name one",
    "HSET o_2 name two",
    "HSET o_3 name three",
    "SELECT 1",
    "SET s elsewhere",
    "SET moved 1",
    "SELECT 0",
];

/// A server that holds what `FILL` makes, and one whose backing does; the clock
/// of both stands behind a deadline.
fn pair() -> (Server, Server, Arc<Kept>) {
    let full = Server::new();
    let mut peer = full.connect();
    FILL.iter().for_each(|line| drop(peer.run(line)));
    let kept = Arc::new(Kept { content: content(&full), ..Kept::default() });
    let backed = Server::new();
    // What it writes comes after what is stored.
    let mut peer = backed.connect();
    FILL.iter().for_each(|_| drop((peer.run("SET key 1"), peer.run("DEL key"))));
    for db in 0..DATABASES {
        let mut keys = [0; SHARDS];
        let here = kept.content.iter().filter(|((at, _), _)| *at == db);
        here.for_each(|(_, (shard, ..))| keys[*shard] += 1);
        backed.engine.keyspace.back(kept.clone(), db, SpaceId::first_of(db), &keys);
    }
    for server in [&full, &backed] {
        server.clock.advance_ms(60);
    }
    (full, backed, kept)
}

/// Runs lines on a fresh pair, the first on keys of which none is in memory.
fn same(lines: &[&str]) {
    let (full, backed, _) = pair();
    let (mut full, mut backed) = (full.connect(), backed.connect());
    for line in lines {
        let sorted = |frame: Frame| match frame {
            Frame::Array(mut items) if line.starts_with("KEYS") => {
                items.sort_by_key(|item| format!("{item:?}"));
                Frame::Array(items)
            }
            frame => frame,
        };
        assert_eq!(sorted(backed.run(line)), sorted(full.run(line)), "{line} of {lines:?}");
    }
}

#[test]
fn commands_find_what_is_not_in_memory() {
    for line in [
        "GET s",
        "GET due",
        "GET none",
        "MGET s other due none",
        "INCRBY s 5",
        "APPEND s x",
        "SETNX s 1",
        "SET s 1 GET",
        "TTL other",
        "TYPE z",
        "OBJECT ENCODING set",
        "EXISTS s l due none",
        "DEL s l due none",
        "LPUSH l 9",
        "LPUSHX none 1",
        "LMOVE l l2 LEFT RIGHT",
        "BLMOVE l s LEFT RIGHT 0",
        "SMOVE set set2 a",
        "SINTER set set2",
        "SUNIONSTORE set3 set set2",
        "HINCRBY h n 1",
        "ZRANGESTORE z2 z 0 -1",
        "RENAME s l",
        "RENAMENX s l",
        "COPY s l",
        "COPY s other REPLACE",
        "COPY s s DB 1",
        "COPY s s DB 1 REPLACE",
        "COPY moved moved DB 1",
        "MOVE s 1",
        "MOVE other 1",
        "SORT l",
        "SORT l BY w_* GET # GET o_*->name GET none_*",
        "SORT l BY o_*->name ALPHA STORE s",
        "EXPIRE s 10",
        "PERSIST other",
        "DBSIZE",
        "KEYS *",
        "KEYS w_*",
        "SCAN 0 COUNT 100 MATCH h",
        "DEBUG DIGEST",
        "DEBUG DIGEST-VALUE s l set h z",
        "FLUSHDB",
        "SWAPDB 0 1",
    ] {
        same(&[line, "DEBUG DIGEST", "DBSIZE", "GET s", "KEYS *"]);
    }
}

#[test]
fn transactions_find_what_is_not_in_memory() {
    same(&["WATCH s", "MULTI", "INCR s", "GET other", "DBSIZE", "EXEC", "DEBUG DIGEST"]);
    same(&["WATCH s due", "SET s 1", "MULTI", "INCR s", "EXEC", "DEBUG DIGEST"]);
    same(&["MULTI", "SORT l BY w_*", "KEYS o_2", "COPY s s DB 1 REPLACE", "EXEC", "DEBUG DIGEST"]);
    same(&["MULTI", "FLUSHDB", "DBSIZE", "SET s 1", "KEYS *", "EXEC", "DEBUG DIGEST"]);
    same(&["MULTI", "SWAPDB 0 1", "GET moved", "SET s 1", "EXEC", "DEBUG DIGEST"]);
}

#[test]
fn a_waiter_is_served_with_keys_that_are_not_in_memory() {
    let (_, backed, _) = pair();
    let (mut waiter, mut peer) = (backed.connect(), backed.connect());
    let mut blocked = waiter.block("BLMOVE none l LEFT RIGHT 0");
    assert_eq!(peer.run("RPUSH none x"), integer(1));
    assert_eq!(blocked.answer.try_recv().expect("it is served").frame(), bulk("x"));
    assert_eq!(peer.run("LLEN l"), integer(4));
}

#[test]
fn a_random_key_may_be_one_that_is_not_in_memory() {
    let (_, backed, kept) = pair();
    let Frame::Bulk(key) = backed.connect().run("RANDOMKEY") else { panic!("there are keys") };
    assert!(kept.content.contains_key(&(0, key.to_vec())));
}

const BROKEN: &str = "ERR the archive cannot be read: it is broken";

fn fails(peer: &mut Peer, line: &str) {
    assert_eq!(peer.run(line), error(BROKEN), "{line}");
}

#[test]
fn a_backing_that_cannot_be_read_is_an_error_that_changes_nothing() {
    let (full, backed, kept) = pair();
    let mut peer = backed.connect();
    peer.run("SET here 1");
    full.connect().run("SET here 1");
    kept.is_broken.store(true, Ordering::Relaxed);
    for line in [
        "GET s",
        "SET s 1",
        "DEL here s",
        "MSET here 2 s 2",
        "RENAME here s",
        "COPY here s DB 1 REPLACE",
        "LPUSH l 1",
        "SORT l BY w_*",
        "KEYS *",
        "SCAN 0 COUNT 1000",
        "DEBUG DIGEST",
        "WATCH s",
    ] {
        fails(&mut peer, line);
    }
    assert_eq!(peer.run("GET here"), bulk("1"), "what is in memory can be read");
    peer.run("MULTI");
    peer.run("INCR s");
    peer.run("INCR here");
    peer.run("DECR here");
    let expected = vec![error(BROKEN), integer(2), integer(1)];
    assert_eq!(peer.run("EXEC"), Frame::Array(expected), "each command for itself");
    kept.is_broken.store(false, Ordering::Relaxed);
    assert_eq!(peer.run("DEBUG DIGEST"), full.connect().run("DEBUG DIGEST"));
}

#[test]
fn what_is_watched_and_cannot_be_read_ends_the_transaction() {
    let (_, backed, kept) = pair();
    let mut peer = backed.connect();
    // Not there, so it is asked for again.
    assert_eq!(peer.run("WATCH none"), ok());
    peer.run("MULTI");
    peer.run("SET here 1");
    kept.is_broken.store(true, Ordering::Relaxed);
    let expected = format!("EXECABORT Transaction discarded because of: {BROKEN}");
    assert_eq!(peer.run("EXEC"), error(&expected));
    kept.is_broken.store(false, Ordering::Relaxed);
    assert_eq!(peer.run("EXISTS here"), integer(0));
}
