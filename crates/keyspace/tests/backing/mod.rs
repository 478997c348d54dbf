//! A backing in memory, and what goes with it.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{DbIndex, Revision, SpaceId};
use keyspace::dump;
use keyspace::table::Table;
use keyspace::types::{Hash, Set, Zset};
use keyspace::{
    Backing, BackingError, Buffers, EncodingLimits, Found, Journal, Keyspace, Knowing, SHARDS,
    Scope, Stored, Txn, TxnOptions, Value, ValueRef, Wanted,
};

pub const SEED: u64 = 5;
pub const DATABASES: DbIndex = 3;
pub const NOW_MS: u64 = 1_700_000_000_000;

/// Keys by bucket and name: body, deadline, revision.
pub type Content = BTreeMap<(u16, Vec<u8>), (Vec<u8>, Option<u64>, Revision)>;

/// A backing that a test fills.
#[derive(Debug, Default)]
pub struct MemoryBacking {
    spaces: Mutex<BTreeMap<SpaceId, Content>>,
    pub is_broken: AtomicBool,
    /// Questions asked of it.
    pub fetches: AtomicU64,
}

struct Name;

impl keyspace::table::Keyed for Name {
    fn key(&self) -> &[u8] {
        b""
    }
}

pub fn hash_of(key: &[u8]) -> u64 {
    Table::<Name>::hash(SEED, key)
}

impl MemoryBacking {
    pub fn bucket_of(key: &[u8]) -> u16 {
        (hash_of(key) >> 48) as u16
    }

    pub fn replace(&self, contents: BTreeMap<SpaceId, Content>) {
        *self.spaces.lock().unwrap() = contents;
    }

    /// How many keys each shard has.
    pub fn counts(&self, space: SpaceId) -> [u64; SHARDS] {
        let mut counts = [0; SHARDS];
        for (bucket, _) in
            self.spaces.lock().unwrap().get(&space).into_iter().flat_map(|s| s.keys())
        {
            counts[usize::from(bucket >> 10)] += 1;
        }
        counts
    }

    fn check(&self) -> Result<(), BackingError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(BackingError::new("it is broken"));
        }
        Ok(())
    }
}

fn stored((body, deadline, revision): &(Vec<u8>, Option<u64>, Revision)) -> Stored {
    let limits = EncodingLimits::default();
    let value = dump::decode_body(body, SEED, &limits).expect("encoded before");
    Stored { value, deadline: *deadline, revision: *revision }
}

/// The elements of these names, and one that stands for all others.
fn part_of(value: &Value, names: &[&[u8]]) -> Option<Value> {
    let limits = EncodingLimits::default();
    Some(match value {
        Value::Str(_) | Value::List(_) => return None,
        Value::Set(whole) => {
            let mut set = Set::new(SEED);
            set.add(b"another", &limits);
            names.iter().filter(|name| whole.contains(name)).for_each(|name| {
                set.add(name, &limits);
            });
            Value::Set(set)
        }
        Value::Hash(whole) => {
            let mut hash = Hash::new(SEED);
            hash.set(b"another", b"", &limits);
            for name in names {
                whole.get(name).into_iter().for_each(|value| {
                    hash.set(name, value, &limits);
                });
            }
            Value::Hash(hash)
        }
        Value::Zset(whole) => {
            let mut zset = Zset::new(SEED);
            zset.insert(b"another", 0.0, &limits);
            for name in names {
                whole.score(name).into_iter().for_each(|score| {
                    zset.insert(name, score, &limits);
                });
            }
            Value::Zset(zset)
        }
    })
}

impl Backing for MemoryBacking {
    /// Even of small collections a part, unless much of them has been asked for.
    fn fetch_wanted(
        &self,
        space: SpaceId,
        hash: u64,
        key: &[u8],
        wanted: Wanted<'_>,
        _: Knowing,
    ) -> Result<Option<Found>, BackingError> {
        let Some(stored) = self.fetch(space, hash, key)? else { return Ok(None) };
        match part_of(&stored.value, wanted.names).filter(|_| wanted.whole_upto < 100) {
            Some(value) => {
                let elements = stored.value.as_ref().element_count() as u64;
                Ok(Some(Found::Part(Stored { value, ..stored }, elements)))
            }
            None => Ok(Some(Found::Whole(stored))),
        }
    }

    fn fetch(&self, space: SpaceId, hash: u64, key: &[u8]) -> Result<Option<Stored>, BackingError> {
        self.check()?;
        assert_eq!(hash, hash_of(key));
        let spaces = self.spaces.lock().unwrap();
        let place = ((hash >> 48) as u16, key.to_vec());
        Ok(spaces.get(&space).and_then(|keys| keys.get(&place)).map(stored))
    }

    fn bucket(
        &self,
        space: SpaceId,
        bucket: u16,
        each: &mut dyn FnMut(&[u8], Stored),
    ) -> Result<(), BackingError> {
        self.check()?;
        let spaces = self.spaces.lock().unwrap();
        let Some(keys) = spaces.get(&space) else { return Ok(()) };
        for ((at, key), value) in keys.range((bucket, Vec::new())..) {
            if *at != bucket {
                break;
            }
            each(key, stored(value));
        }
        Ok(())
    }
}

/// Revisions from 1 on, and every record.
#[derive(Debug, Default)]
pub struct Journaled {
    newest: AtomicU64,
    #[allow(clippy::type_complexity, reason = "a record's parts as `apply` takes them")]
    pub records: Mutex<Vec<(Revision, u64, DbIndex, Vec<u8>)>>,
}

impl Journaled {
    pub fn newest(&self) -> Revision {
        Revision(self.newest.load(Ordering::Relaxed))
    }
}

impl Journal for Journaled {
    fn reserve(&self) -> Revision {
        Revision(self.newest.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn append(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &[u8]) {
        self.records.lock().unwrap().push((revision, time_ms, db, effects.to_vec()));
    }
}

pub fn spaces_of(databases: DbIndex) -> Vec<SpaceId> {
    (0..databases).map(SpaceId::first_of).collect()
}

/// A value in words, whatever its encoding.
pub fn seen(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Str(bytes) => format!("{:?}", bytes),
        ValueRef::List(list) => format!("{:?}", list.iter().collect::<Vec<_>>()),
        ValueRef::Set(set) => {
            let mut members: Vec<Vec<u8>> = set.iter().map(|member| member.to_vec()).collect();
            members.sort_unstable();
            format!("set {members:?}")
        }
        ValueRef::Hash(hash) => {
            let fields: BTreeMap<_, _> = hash.iter().collect();
            format!("hash {fields:?}")
        }
        ValueRef::Zset(zset) => format!("zset {:?}", zset.iter().collect::<Vec<_>>()),
    }
}

/// What stands in memory of a database, due or not, as a backing keeps it.
pub fn contents(keyspace: &Keyspace, db: DbIndex) -> Content {
    let mut all = Content::new();
    visit(keyspace, db, &mut |key, value, deadline, revision| {
        let place = (MemoryBacking::bucket_of(key), key.to_vec());
        all.insert(place, (dump::encode_body(value), deadline, revision));
    });
    all
}

/// What stands in memory of a database, due or not, in words.
pub fn described(keyspace: &Keyspace, db: DbIndex) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    visit(keyspace, db, &mut |key, value, deadline, revision| {
        all.insert(key.to_vec(), format!("{} {deadline:?} {revision}", seen(value)));
    });
    all
}

type Visit<'v> = dyn FnMut(&[u8], ValueRef<'_>, Option<u64>, Revision) + 'v;

fn visit(keyspace: &Keyspace, db: DbIndex, each: &mut Visit<'_>) {
    let limits = EncodingLimits::default();
    let options = TxnOptions {
        now_ms: 0,
        limits: &limits,
        event_classes: 0,
        always_record: false,
        expire: false,
        touch: false,
    };
    let journal = Journaled::default();
    let mut buffers = Buffers::default();
    let mut txn = Txn::begin(keyspace, &Scope::All, &journal, &mut buffers, options);
    txn.select(db);
    txn.scan_resident(&mut |key, value| {
        let info = txn.info(key).expect("just visited");
        each(key, value, info.deadline, info.revision);
    });
}
