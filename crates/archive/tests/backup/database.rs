//! A database with a backup, and what it held at each revision.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::backup::{BackupError, Goal, Made, Restored, Source, Wanted, make, restore};
use archive::{Base, BaseBacking, Follower, FollowerOptions, Pace, Past, PastOptions};
use base::{BranchId, DbIndex, ManualClock, Revision, Rng, SeededRng, SystemClock};
use keyspace::effect::Effect;
use keyspace::{
    Branch, Buffers, EncodingLimits, Journal, Keyspace, Scope, Txn, TxnOptions, ValueRef,
};
use log::{FsyncPolicy, Log, LogOptions, RealVfs, RecordHeader};
use testkit::{TempDir, temp_dir};

pub const DATABASES: DbIndex = 3;

/// A deadline that no test reaches.
pub const FAR_MS: u64 = 4_102_444_800_000;

/// Value and deadline of every key.
pub type State = BTreeMap<(DbIndex, Vec<u8>), (Vec<u8>, Option<u64>)>;

/// A database in a folder, and what it held at each revision.
pub struct Database {
    pub folder: TempDir,
    pub keyspace: Keyspace,
    pub log: Arc<Log>,
    pub base: Arc<Base>,
    pub past: Option<Arc<Past>>,
    pub follower: Option<Follower>,
    pub rng: SeededRng,
    pub clock: ManualClock,
    pub now_ms: u64,
    pub states: BTreeMap<Revision, State>,
    pub times: BTreeMap<Revision, u64>,
    /// Whether databases are flushed and swapped. The archive may then merge
    /// all its tables.
    pub is_wild: bool,
}

pub struct ToLog<'l>(pub &'l Log);

impl Journal for ToLog<'_> {
    fn reserve(&self) -> Revision {
        self.0.reserve()
    }

    fn append(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &[u8]) {
        let header = RecordHeader { time_ms, db, branch: BranchId::MAIN };
        self.0.append(revision, header, effects);
    }
}

pub fn open_log(dir: &Path, base: Revision) -> Log {
    let options = LogOptions {
        fsync: FsyncPolicy::No,
        segment_bytes_max: 4000,
        block_bytes_max: 300,
        part_bytes_max: 100,
        ..LogOptions::default()
    };
    let (clock, mut rng) = (Arc::new(SystemClock), SeededRng::from_system());
    Log::open(Arc::new(RealVfs), dir, options, base, clock, &mut rng, &mut |_| Ok(()))
        .expect("the log opens")
        .0
}

pub fn options(now_ms: u64, limits: &EncodingLimits) -> TxnOptions<'_> {
    TxnOptions {
        now_ms,
        limits,
        event_classes: 0,
        always_record: false,
        expire: false,
        touch: false,
    }
}

impl Database {
    pub fn new(seed: u64) -> Database {
        let folder = temp_dir();
        let log = Arc::new(open_log(&folder.path().join("data/log"), Revision::ZERO));
        let base = Base::open(&folder.path().join("data/archive"), seed, 1 << 20);
        let base = Arc::new(base.expect("an empty one opens"));
        base.adopt(log.id()).expect("an empty one takes any");
        let mut database = Database {
            folder,
            keyspace: Keyspace::new(DATABASES, seed),
            log,
            base,
            past: None,
            follower: None,
            rng: SeededRng::new(seed),
            clock: ManualClock::at_ms(1_000_000),
            now_ms: 1_000_000,
            states: BTreeMap::from([(Revision::ZERO, State::new())]),
            times: BTreeMap::from([(Revision::ZERO, 0)]),
            is_wild: true,
        };
        database.follow();
        database
    }

    pub fn follow(&mut self) {
        // A base has one follower at a time.
        drop(self.follower.take());
        let options = FollowerOptions {
            // It moves when it is told to.
            past: self.past.clone(),
            pace: Pace { idle_ms: u64::MAX, age_ms: u64::MAX, ..Pace::default() },
            databases: DATABASES,
            limits: EncodingLimits::default(),
            clock: Arc::new(SystemClock),
            advanced: Box::new(|_, _| {}),
            turn: Box::new(|| {}),
            faulted: Box::new(|fault| assert_eq!(fault, None)),
        };
        let reader = self.log.reader(self.base.revision().next());
        self.follower = Some(Follower::start(self.base.clone(), reader, options));
    }

    pub fn checkpoint(&self) {
        let follower = self.follower.as_ref().expect("it follows");
        follower.checkpoint(self.log.newest()).expect("it can be written");
    }

    /// One random transaction, a hundredth of a second after the last.
    pub fn step(&mut self) {
        self.now_ms += 10;
        self.clock.advance_ms(10);
        let mut state = self.states.last_key_value().expect("there is one").1.clone();
        let db = self.rng.below(u64::from(DATABASES)) as DbIndex;
        let n = self.rng.below(60);
        let mut key = format!("{}:{n}", ["user", "use", "job"][n as usize % 3]).into_bytes();
        if self.rng.below(40) == 0 {
            // Longer than the tree takes.
            key.resize(70_000, b'x');
        }
        let value = format!("{}", self.rng.next_u64()).into_bytes();
        let deadline = n.is_multiple_of(7).then_some(FAR_MS + n);
        let limits = EncodingLimits::default();
        let journal = ToLog(&self.log);
        let mut buffers = Buffers::default();
        let options = options(self.now_ms, &limits);
        let mut txn = Txn::begin(&self.keyspace, &Scope::All, &journal, &mut buffers, options);
        txn.select(db);
        match self.rng.below(if self.is_wild { 100 } else { 97 }) {
            0..=79 => {
                txn.set_string(&key, &value, deadline);
                state.insert((db, key), (value, deadline));
            }
            80..=96 => {
                txn.delete(&key);
                state.remove(&(db, key));
            }
            97 => {
                txn.flush(db);
                state.retain(|(of, _), _| *of != db);
            }
            _ => {
                let other = (db + 1) % DATABASES;
                txn.swap(db, other);
                let swapped = |of| match of {
                    of if of == db => other,
                    of if of == other => db,
                    of => of,
                };
                state = state.into_iter().map(|((of, key), v)| ((swapped(of), key), v)).collect();
            }
        }
        txn.finish();
        let newest = self.log.newest();
        self.times.entry(newest).or_insert(self.now_ms);
        self.states.insert(newest, state);
    }

    pub fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn try_backup(&self, to: &Path) -> Result<Made, BackupError> {
        let folders = [self.path("data")];
        make(&self.source(&folders), to, &self.clock)
    }

    pub fn source<'s>(&'s self, folders: &'s [PathBuf]) -> Source<'s> {
        let past = self.past.as_deref();
        Source { base: &self.base, log: &self.log, databases: DATABASES, folders, past }
    }

    /// Keeps what was from here on.
    pub fn remember(&mut self) {
        drop(self.follower.take());
        let limits = EncodingLimits::default();
        let options = PastOptions { databases: DATABASES, limits, is_broken: false };
        let past = Past::open(self.base.clone(), self.log.clone(), options);
        self.past = Some(Arc::new(past.expect("an empty folder")));
        self.follow();
    }

    /// Appends a record that says something of branches.
    pub fn declare(&self, effect: &Effect<'_>) -> Revision {
        self.append(BranchId::MAIN, std::slice::from_ref(effect))
    }

    /// Appends a record that `states` do not tell of.
    pub fn append(&self, branch: BranchId, effects: &[Effect<'_>]) -> Revision {
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        let revision = self.log.reserve();
        self.log.append(revision, RecordHeader { time_ms: self.now_ms, db: 0, branch }, &bytes);
        revision
    }

    pub fn fork(&self, id: u32, name: &str) -> Revision {
        let branch = Branch {
            created_ms: self.now_ms,
            created_by: b"ann".to_vec(),
            ..Branch::new(BranchId(id), name.as_bytes(), BranchId::MAIN)
        };
        self.declare(&Effect::Fork { row: &branch.encode(), state: None })
    }

    pub fn restore_as(&self, wanted: &Wanted) -> Result<(TempDir, Restored), BackupError> {
        let (to, mut rng) = (temp_dir(), SeededRng::new(9));
        let from = self.path("backup");
        let restored = restore(&from, to.path(), wanted, &self.clock, &mut rng)?;
        Ok((to, restored))
    }

    pub fn backup(&self) -> Made {
        self.try_backup(&self.path("backup")).expect("it can be made")
    }

    pub fn restore(
        &self,
        goal: Goal,
        prefix: Option<&str>,
    ) -> Result<(TempDir, Restored), BackupError> {
        let prefix = prefix.map(|prefix| prefix.as_bytes().to_vec());
        self.restore_as(&Wanted { prefix, ..Wanted::all(goal) })
    }

    /// Checks every so many of the states before the one that was restored, from the
    /// oldest on, and that no others can be read.
    pub fn check_past(&self, folder: &Path, restored: &Restored, step: usize) {
        let base = Base::open(&folder.join("archive"), 5, 1 << 20).expect("it is whole");
        let log = Arc::new(open_log(&folder.join("log"), base.revision()));
        let limits = EncodingLimits::default();
        let options = PastOptions { databases: DATABASES, limits, is_broken: false };
        let past = Past::open(Arc::new(base), log.clone(), options).expect("it reads well");
        let (oldest, revision) = (restored.oldest, restored.revision);
        assert_eq!((past.oldest(), log.newest()), (oldest, revision));
        for revision in (oldest.0..=revision.0).rev().step_by(step).chain([oldest.0]) {
            let revision = Revision(revision);
            let view = past.view(BranchId::MAIN, revision).expect("it is kept");
            assert_eq!(&contents_of(&view), &self.states[&revision], "{revision} in {folder:?}");
        }
        if oldest > Revision::ZERO {
            let early = Revision(oldest.0 - 1);
            past.view(BranchId::MAIN, early).expect_err("it is not there");
        }
        assert!(past.view(BranchId::MAIN, revision.next()).is_err());
    }

    /// What a server would find in a restored folder.
    pub fn read(&self, folder: &Path, revision: Revision) -> State {
        let base = Base::open(&folder.join("archive"), 5, 1 << 20).expect("it is whole");
        let log = open_log(&folder.join("log"), base.revision());
        assert_eq!((log.id(), base.revision()), (self.log.id(), revision));
        assert_eq!(log.newest(), revision, "the log goes on there");
        base.adopt(log.id()).expect("the two belong together");
        // An empty one takes any.
        let is_seeded = revision > Revision::ZERO;
        assert!(!is_seeded || base.directory().seed == self.base.directory().seed);
        contents(&Arc::new(base))
    }
}

/// Of those who change nothing.
pub struct NoJournal;

impl Journal for NoJournal {
    fn reserve(&self) -> Revision {
        unreachable!("nothing is changed")
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

/// What main has.
pub fn contents(base: &Arc<Base>) -> State {
    let directory = base.directory();
    let keyspace = Keyspace::new(DATABASES, directory.seed);
    let backing = BaseBacking::new(base.clone(), EncodingLimits::default());
    let mut keys = 0;
    for database in directory.databases.iter().filter(|it| it.branch == BranchId::MAIN) {
        keys += database.keys.iter().sum::<u64>();
        keyspace.back(backing.clone(), database.db, database.space, &database.keys);
    }
    let found = contents_of(&keyspace);
    assert_eq!(keys, found.len() as u64);
    found
}

fn contents_of(keyspace: &Keyspace) -> State {
    let (limits, mut buffers) = (EncodingLimits::default(), Buffers::default());
    let mut txn = Txn::begin(keyspace, &Scope::All, &NoJournal, &mut buffers, options(0, &limits));
    let mut found = State::new();
    for db in 0..DATABASES {
        txn.select(db);
        let count = txn.len();
        let mut values = Vec::new();
        txn.visit_all(&mut |key, value, _| {
            let ValueRef::Str(value) = value else { panic!("only strings were written") };
            values.push((key.to_vec(), value.to_vec()));
        })
        .expect("the base can be read");
        assert_eq!(values.len(), count, "keys of database {db}");
        for (key, value) in values {
            // Of keys that only pass through none is kept.
            txn.load(&key);
            let deadline = txn.info(&key).expect("just seen").deadline;
            found.insert((db, key), (value, deadline));
        }
    }
    found
}

/// A database whose base is behind its log, with a backup of it.
pub fn backed_up(seed: u64) -> (Database, Made) {
    back_up(Database::new(seed))
}

pub fn back_up(mut database: Database) -> (Database, Made) {
    database.steps(150);
    database.checkpoint();
    database.steps(150);
    let made = database.backup();
    (database, made)
}
