//! A database that changes at random, and what it holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, Rng, SeededRng, SpaceId, SystemClock};
use keyspace::effect::{Effect, Effects};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{
    Buffers, Editor, EncodingLimits, Journal, Keyspace, Scope, Txn, TxnOptions, Value, dump,
};
use log::{FsyncPolicy, Log, LogOptions, MemVfs, Record, RecordHeader};

pub const DATABASES: DbIndex = 3;

/// A database whose every transaction goes to a log.
pub struct Database {
    pub keyspace: Keyspace,
    /// Nobody else may have it when it is opened again.
    pub log: Option<Arc<Log>>,
    vfs: Arc<MemVfs>,
    rng: SeededRng,
    pub limits: EncodingLimits,
    pub now_ms: u64,
    /// Mostly collections are changed, of few keys, so that they grow.
    is_of_collections: bool,
    /// Told of spaces that are left and may be returned to, and until when they
    /// are to stay. While nobody is told, there are none.
    keeper: Option<Keeper>,
    /// A database that was flushed, and what the record tells of it.
    flushed: Option<(DbIndex, SpaceId, Vec<u8>)>,
    /// New keys that were written to such a database since.
    late: u64,
    /// Spaces that were returned to.
    returned: Vec<(SpaceId, Revision)>,
}

/// How long a space is to be kept that was left.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "not every test keeps any")]
pub enum Kept {
    ForNow,
    /// No longer for now, but until its archive has reached this.
    Upto(Revision),
    NoMore,
}

/// Keeps a space.
pub type Keeper = Box<dyn Fn(SpaceId, Kept)>;

struct ToLog<'l>(&'l Log);

impl Journal for ToLog<'_> {
    fn reserve(&self) -> Revision {
        self.0.reserve()
    }

    fn append(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &[u8]) {
        let header = RecordHeader { time_ms, db, branch: BranchId::MAIN };
        self.0.append(revision, header, effects);
    }
}

/// The changes of collections: of hashes, lists, sets, sorted sets.
const KINDS: [u64; 4] = [140, 170, 205, 240];

impl Database {
    pub fn new(seed: u64) -> Database {
        let keyspace = Keyspace::new(DATABASES, seed);
        let (vfs, rng) = (Arc::new(MemVfs::new()), SeededRng::new(seed));
        let limits = EncodingLimits::default();
        let (now_ms, is_of_collections) = (1_000_000, false);
        keyspace.keep_left();
        let mut database = Database {
            keyspace,
            log: None,
            vfs,
            rng,
            limits,
            now_ms,
            is_of_collections,
            keeper: None,
            flushed: None,
            late: 0,
            returned: Vec::new(),
        };
        database.open_log(Revision::ZERO);
        database
    }

    /// One whose keys hold collections mostly, with more elements.
    #[allow(dead_code, reason = "not every test has one")]
    pub fn of_collections(seed: u64) -> Database {
        Database { is_of_collections: true, ..Database::new(seed) }
    }

    /// From here on databases are flushed and get their keys back now and then;
    /// `keeper` keeps the spaces.
    #[allow(dead_code, reason = "not every test has it")]
    pub fn take_back(&mut self, keeper: Keeper) {
        self.flushed.iter().for_each(|(_, space, _)| keeper(*space, Kept::ForNow));
        for &(space, revision) in &self.returned {
            keeper(space, Kept::ForNow);
            keeper(space, Kept::Upto(revision));
        }
        self.keeper = Some(keeper);
    }

    /// A transaction that flushes a database so that its keys may come back, or
    /// lets them, or changes another one meanwhile.
    fn step_back(&mut self) -> bool {
        let Some(keeper) = self.keeper.take() else { return false };
        let what = self.below(120);
        let done = match self.flushed.take() {
            None if what < 4 => {
                let db = self.below(u64::from(DATABASES)) as DbIndex;
                let space = self.keyspace.spaces()[usize::from(db)].1;
                keeper(space, Kept::ForNow);
                let mut flushed = None;
                self.change(|txn| {
                    txn.keep_flushed(u64::MAX, 1);
                    txn.flush_undoably(db);
                    for effect in Effects::new(txn.effects()).flatten() {
                        if let Effect::Leaves { space, keys } = effect {
                            flushed = Some((db, space, keys.to_vec()));
                        }
                    }
                });
                if flushed.is_none() {
                    keeper(space, Kept::NoMore);
                }
                self.flushed = flushed;
                true
            }
            None => false,
            Some((db, space, keys)) if what < 40 => {
                self.change(|txn| {
                    // What was written meanwhile stays.
                    let mut kept = Vec::new();
                    txn.select(db);
                    txn.visit_all(&mut |key, value, deadline| {
                        kept.push((key.to_vec(), value.to_value(), deadline));
                    })
                    .expect("memory");
                    assert_eq!(txn.is_untouched(db, Revision(u64::MAX)), kept.is_empty());
                    let back = txn.stand_again_beside(db, space, &keys, None, kept);
                    back.expect("it was put by");
                });
                let revision = self.log().newest();
                self.returned.push((space, revision));
                keeper(space, Kept::Upto(revision));
                true
            }
            Some((_, space, _)) if what < 45 => {
                keeper(space, Kept::NoMore);
                false
            }
            Some(flushed) => {
                let (mut db, mut key) = ((flushed.0 + 1) % DATABASES, self.key());
                if self.below(4) == 0 {
                    self.late += 1;
                    (db, key) = (flushed.0, format!("late:{}", self.late).into_bytes());
                }
                let value = self.element();
                self.change(|txn| {
                    txn.select(db);
                    txn.set_string(&key, &value, None);
                });
                self.flushed = Some(flushed);
                true
            }
        };
        self.keeper = Some(keeper);
        done
    }

    /// Opens its log anew. An archive has everything up to `base`.
    pub fn open_log(&mut self, base: Revision) {
        if let Some(log) = self.log.take() {
            log.close().expect("memory takes everything");
            drop(Arc::into_inner(log).expect("nobody has it"));
        }
        let options = LogOptions {
            fsync: FsyncPolicy::Always,
            segment_bytes_max: 20_000,
            block_bytes_max: 2_000,
            part_bytes_max: 300,
            ..LogOptions::default()
        };
        let clock = Arc::new(SystemClock);
        let mut replay = |_: Record<'_>| Ok(());
        let (vfs, dir) = (self.vfs.clone(), Path::new("/log"));
        let (log, _) = Log::open(vfs, dir, options, base, clock, &mut self.rng, &mut replay)
            .expect("a log in memory opens");
        self.log = Some(Arc::new(log));
    }

    pub fn log(&self) -> &Arc<Log> {
        self.log.as_ref().expect("it is open")
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }

    fn key(&mut self) -> Vec<u8> {
        match self.below(200) {
            // Longer than the tree takes.
            0 => vec![b'x'; 70_000],
            n if self.is_of_collections => format!("key:{}", n % 12).into_bytes(),
            n => format!("key:{}", n % 60).into_bytes(),
        }
    }

    /// The name of some element.
    pub fn element(&mut self) -> Vec<u8> {
        if self.is_of_collections && self.below(50) == 0 {
            // Longer than an element's name can be in the tree.
            return vec![b'a' + self.below(3) as u8; 20_000];
        }
        if self.is_of_collections && self.below(3) == 0 {
            return self.below(30).to_string().into_bytes();
        }
        let len = [1, 5, 20, 90][self.below(4) as usize];
        let first = b'a' + self.below(20) as u8;
        vec![first; len]
    }

    /// One random transaction of one to three changes.
    pub fn step(&mut self) {
        self.now_ms += self.below(50);
        if self.step_back() {
            return;
        }
        let changes: Vec<_> = (0..1 + self.below(3))
            .map(|_| {
                let mut what = self.below(300);
                if self.is_of_collections && (what < 97 || (110..120).contains(&what)) {
                    what += 140;
                }
                let (db, key) = (self.below(u64::from(DATABASES)) as DbIndex, self.key());
                // Else they would hold now this, now that, and never much.
                if self.is_of_collections && (140..290).contains(&what) {
                    let kind = usize::from(key[key.len() - 1]) % KINDS.len();
                    what = KINDS[kind] + what % 30;
                }
                (what, db, key, self.key(), self.element(), self.element(), self.below(9))
            })
            .collect();
        let now_ms = self.now_ms;
        let play = |txn: &mut Txn<'_>| {
            for (what, db, key, other, a, b, n) in changes {
                txn.select(db);
                let deadline = (n == 0).then_some(now_ms + 700);
                // Commands of another type than the key's change nothing.
                match what {
                    0..=99 => txn.set_string(&key, &a, deadline),
                    100..=119 => _ = txn.delete(&key),
                    120..=129 => _ = txn.rename(&key, (db + n as DbIndex) % DATABASES, &other),
                    130..=138 => _ = txn.set_deadline(&key, deadline),
                    // Many at one go, told apart from others by a mark.
                    139 => {
                        txn.keep_flushed(u64::MAX, u64::MAX);
                        let is_wanted = |name: &[u8]| name.last() == key.last();
                        let chosen = txn.choose(&is_wanted, usize::MAX).expect("all is in memory");
                        let chosen = chosen.expect("there are few");
                        txn.remove_chosen(&chosen, n == 0).expect("they are there");
                    }
                    140..=169 => {
                        _ = txn.update_or_create(&key, |hash: &mut Editor<'_, '_, Hash>| match n {
                            0..3 => _ = hash.remove(&a),
                            3 => {
                                let before = hash.get(&a).map_or(Some(0), base::number::parse_i64);
                                let after = before.and_then(|before| before.checked_add(7));
                                after.into_iter().for_each(|after| hash.add(&a, 7, after));
                            }
                            _ => _ = hash.set(&a, &b),
                        });
                    }
                    170..=199 => {
                        _ = txn.update_or_create(&key, |list: &mut Editor<'_, '_, List>| match n {
                            0 if !list.is_empty() => list.drop_front(1),
                            1 if !list.is_empty() => list.drop_back(1),
                            2 if !list.is_empty() => list.insert(list.len() / 2, &b),
                            3 if !list.is_empty() => list.set(list.len() / 3, &b),
                            4 if list.len() > 5 => list.drop_front(3),
                            3..=5 => list.push_front(&a),
                            _ => list.push_back(&b),
                        });
                    }
                    200..=239 => {
                        _ = txn.update_or_create(&key, |set: &mut Editor<'_, '_, Set>| match n {
                            0..3 => set.remove(&a),
                            _ => set.add(&a),
                        });
                    }
                    240..=269 => {
                        _ = txn.update_or_create(&key, |zset: &mut Editor<'_, '_, Zset>| match n {
                            0..3 => _ = zset.remove(&a),
                            _ => _ = zset.set(&a, n as f64 / 3.0),
                        });
                    }
                    270..=295 => txn.put(&key, Value::Str(a), deadline),
                    296 => txn.flush(db),
                    _ => txn.swap(db, (db + 1) % DATABASES),
                }
            }
        };
        self.change(play);
    }

    /// One transaction.
    pub fn change(&self, change: impl FnOnce(&mut Txn<'_>)) {
        let options = TxnOptions {
            now_ms: self.now_ms,
            limits: &self.limits,
            event_classes: 0,
            always_record: false,
            expire: true,
            touch: true,
        };
        let journal = ToLog(self.log());
        let mut buffers = Buffers::default();
        let mut txn = Txn::begin(&self.keyspace, &Scope::All, &journal, &mut buffers, options);
        change(&mut txn);
        txn.finish();
    }
}

pub type Key = (DbIndex, Vec<u8>);
pub type State = (Vec<u8>, Option<u64>, Revision);

/// Looks at one database of a keyspace.
pub fn look<T>(keyspace: &Keyspace, db: DbIndex, see: &mut dyn FnMut(&mut Txn<'_>) -> T) -> T {
    struct None;
    impl Journal for None {
        fn reserve(&self) -> Revision {
            unreachable!("nothing is changed")
        }
        fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
    }
    let limits = EncodingLimits::default();
    let options = TxnOptions {
        now_ms: 0,
        limits: &limits,
        event_classes: 0,
        always_record: false,
        expire: false,
        touch: false,
    };
    let mut buffers = Buffers::default();
    let mut txn = Txn::begin(keyspace, &Scope::All, &None, &mut buffers, options);
    txn.select(db);
    see(&mut txn)
}

/// Everything a keyspace holds.
pub fn contents(keyspace: &Keyspace) -> BTreeMap<Key, State> {
    let mut found = BTreeMap::new();
    for db in 0..DATABASES {
        look(keyspace, db, &mut |txn| {
            let count = txn.len();
            let (mut types, mut values) = (BTreeMap::new(), Vec::new());
            // What takes long to read is met unread.
            txn.scan(0, usize::MAX, &mut |key, seen| {
                types.insert(key.to_vec(), seen.type_name());
            })
            .expect("the base can be read");
            txn.visit_all(&mut |key, value, _| {
                // Two orders of one set are one set.
                let mut body = dump::encode_body(value);
                body.sort_unstable();
                assert_eq!(types.get(key), Some(&value.type_name()));
                values.push((key.to_vec(), body));
            })
            .expect("the base can be read");
            assert_eq!((types.len(), values.len()), (count, count), "keys of database {db}");
            for (key, body) in values {
                // Of keys that only pass through none is kept.
                txn.load(&key);
                let info = txn.info(&key).expect("just seen");
                found.insert((db, key.clone()), (body, info.deadline, info.revision));
            }
        });
    }
    found
}
