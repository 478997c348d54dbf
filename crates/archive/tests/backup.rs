//! A backup holds every state of a range of revisions, and says so itself when
//! it does not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::backup::{
    BackupError, CONTENTS, Contents, Goal, Made, Restored, Source, Wanted, make, newest_ms,
    restore, rotate, verify,
};
use archive::{Base, BaseBacking, Follower, FollowerOptions, Pace, Past, PastOptions};
use base::{BranchId, DbIndex, ManualClock, Revision, Rng, SeededRng, SystemClock};
use keyspace::effect::Effect;
use keyspace::types::{Hash, List, Zset};
use keyspace::{
    Branch, Buffers, Editor, EncodingLimits, Journal, Keyspace, Scope, Txn, TxnOptions, Value,
    ValueRef, dump,
};
use log::{FsyncPolicy, Log, LogOptions, RealVfs, RecordHeader, Vfs};
use testkit::{TempDir, temp_dir};

const DATABASES: DbIndex = 3;

/// A deadline that no test reaches.
const FAR_MS: u64 = 4_102_444_800_000;

/// Value and deadline of every key.
type State = BTreeMap<(DbIndex, Vec<u8>), (Vec<u8>, Option<u64>)>;

/// A database in a folder, and what it held at each revision.
struct Database {
    folder: TempDir,
    keyspace: Keyspace,
    log: Arc<Log>,
    base: Arc<Base>,
    past: Option<Arc<Past>>,
    follower: Option<Follower>,
    rng: SeededRng,
    clock: ManualClock,
    now_ms: u64,
    states: BTreeMap<Revision, State>,
    times: BTreeMap<Revision, u64>,
    /// Whether databases are flushed and swapped. The archive may then merge
    /// all its tables.
    is_wild: bool,
}

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

fn open_log(dir: &Path, base: Revision) -> Log {
    let options = LogOptions {
        fsync: FsyncPolicy::No,
        segment_bytes_max: 4000,
        block_bytes_max: 300,
        ..LogOptions::default()
    };
    let (clock, mut rng) = (Arc::new(SystemClock), SeededRng::from_system());
    Log::open(Arc::new(RealVfs), dir, options, base, clock, &mut rng, &mut |_| Ok(()))
        .expect("the log opens")
        .0
}

fn options(now_ms: u64, limits: &EncodingLimits) -> TxnOptions<'_> {
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
    fn new(seed: u64) -> Database {
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

    fn follow(&mut self) {
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
            failed: Box::new(|reason| panic!("{reason}")),
        };
        let reader = self.log.reader(self.base.revision().next());
        self.follower = Some(Follower::start(self.base.clone(), reader, options));
    }

    fn checkpoint(&self) {
        let follower = self.follower.as_ref().expect("it follows");
        follower.checkpoint(self.log.newest()).expect("it can be written");
    }

    /// One random transaction, a hundredth of a second after the last.
    fn step(&mut self) {
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

    fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn try_backup(&self, to: &Path) -> Result<Made, BackupError> {
        let folders = [self.path("data")];
        make(&self.source(&folders), to, &self.clock)
    }

    fn source<'s>(&'s self, folders: &'s [PathBuf]) -> Source<'s> {
        let past = self.past.as_deref();
        Source { base: &self.base, log: &self.log, databases: DATABASES, folders, past }
    }

    /// Keeps what was from here on.
    fn remember(&mut self) {
        drop(self.follower.take());
        let limits = EncodingLimits::default();
        let options = PastOptions { databases: DATABASES, limits, is_broken: false };
        let past = Past::open(self.base.clone(), self.log.clone(), options);
        self.past = Some(Arc::new(past.expect("an empty folder")));
        self.follow();
    }

    /// Appends a record that says something of branches.
    fn declare(&self, effect: &Effect<'_>) -> Revision {
        let mut effects = Vec::new();
        effect.encode(&mut effects);
        let revision = self.log.reserve();
        ToLog(&self.log).append(revision, self.now_ms, 0, &effects);
        revision
    }

    fn fork(&self, id: u32, name: &str) -> Revision {
        let branch = Branch {
            id: BranchId(id),
            name: name.into(),
            parent: BranchId::MAIN,
            base: Revision::ZERO,
            forked: Revision::ZERO,
            created_ms: self.now_ms,
            created_by: b"ann".to_vec(),
            deadline_ms: None,
            quota_bytes: 0,
            is_readonly: false,
            is_kept: false,
            is_merge_only: false,
        };
        self.declare(&Effect::Fork { row: &branch.encode(), state: None })
    }

    fn restore_as(&self, wanted: &Wanted) -> Result<(TempDir, Restored), BackupError> {
        let (to, mut rng) = (temp_dir(), SeededRng::new(9));
        let from = self.path("backup");
        let restored = restore(&from, to.path(), wanted, &self.clock, &mut rng)?;
        Ok((to, restored))
    }

    fn backup(&self) -> Made {
        self.try_backup(&self.path("backup")).expect("it can be made")
    }

    fn restore(
        &self,
        goal: Goal,
        prefix: Option<&str>,
    ) -> Result<(TempDir, Restored), BackupError> {
        let prefix = prefix.map(|prefix| prefix.as_bytes().to_vec());
        self.restore_as(&Wanted { goal, branch: None, prefix })
    }

    /// What a server would find in a restored folder.
    fn read(&self, folder: &Path, revision: Revision) -> State {
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
struct NoJournal;

impl Journal for NoJournal {
    fn reserve(&self) -> Revision {
        unreachable!("nothing is changed")
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

fn contents(base: &Arc<Base>) -> State {
    let directory = base.directory();
    let keyspace = Keyspace::new(DATABASES, directory.seed);
    let limits = EncodingLimits::default();
    let backing = BaseBacking::new(base.clone(), limits);
    for database in &directory.databases {
        keyspace.back(backing.clone(), database.db, database.space, &database.keys);
    }
    let mut buffers = Buffers::default();
    let mut txn = Txn::begin(&keyspace, &Scope::All, &NoJournal, &mut buffers, options(0, &limits));
    let mut found = State::new();
    for db in 0..DATABASES {
        txn.select(db);
        let count = txn.len();
        let mut values = Vec::new();
        txn.scan(0, usize::MAX, &mut |key, value| {
            let ValueRef::Str(value) = value else { panic!("only strings were written") };
            values.push((key.to_vec(), value.to_vec()));
        })
        .expect("the base can be read");
        assert_eq!(values.len(), count, "keys of database {db}");
        for (key, value) in values {
            let deadline = txn.info(&key).expect("just seen").deadline;
            found.insert((db, key), (value, deadline));
        }
    }
    assert_eq!(directory.keys(), found.len() as u64);
    found
}

/// A database whose base is behind its log, with a backup of it.
fn backed_up(seed: u64) -> (Database, Made) {
    back_up(Database::new(seed))
}

fn back_up(mut database: Database) -> (Database, Made) {
    database.steps(150);
    database.checkpoint();
    database.steps(150);
    let made = database.backup();
    (database, made)
}

#[test]
fn every_state_from_the_base_on_can_be_restored() {
    for seed in 1..=2 {
        let (database, made) = backed_up(seed);
        assert_eq!((made.oldest, made.newest), (database.base.revision(), database.log.newest()));
        assert!(made.oldest.0 + 50 < made.newest.0, "{made:?}");
        let verified = verify(&database.path("backup")).expect("there is one");
        assert_eq!((verified.problems, verified.unnamed), (vec![], 0));
        for revision in (made.oldest.0..=made.newest.0).step_by(29).chain([made.newest.0]) {
            let revision = Revision(revision);
            let (folder, restored) =
                database.restore(Goal::Revision(revision), None).expect("it is there");
            let expected = &database.states[&revision];
            assert_eq!(restored.keys, expected.len() as u64);
            assert_eq!(restored.time_ms, database.times[&revision]);
            assert_eq!(&database.read(folder.path(), revision), expected, "{seed} {revision}");
            // A moment before the next transaction is the same state.
            let time = Goal::Time(database.times[&revision] + 9);
            if revision < made.newest {
                let (_, by_time) = database.restore(time, None).expect("it is there");
                assert_eq!(by_time, restored);
            }
        }
        let (_, newest) = database.restore(Goal::Newest, None).expect("it is there");
        assert_eq!(newest.revision, made.newest);
    }
}

#[test]
fn states_that_are_not_there_are_refused_with_those_that_are() {
    let (database, made) = backed_up(3);
    let refused = |goal| database.restore(goal, None).expect_err("not there").to_string();
    for revision in [made.oldest.0 - 1, made.newest.0 + 1] {
        assert_eq!(
            refused(Goal::Revision(Revision(revision))),
            format!(
                "revision {revision} is not in the backup: it has every state from revision {} to {}",
                made.oldest, made.newest
            )
        );
    }
    let error = refused(Goal::Time(database.times[&made.oldest] - 1));
    assert!(
        error.contains(&format!("from revision {} of 1970-01-01T00:16:41", made.oldest)),
        "{error}"
    );
    refused(Goal::Time(database.now_ms + 1));
    // The newest state was the newest until the backup was made.
    let (_, restored) = database.restore(Goal::Time(database.now_ms), None).expect("it is there");
    assert_eq!(restored.revision, made.newest);
}

#[test]
fn a_part_is_the_keys_with_a_prefix() {
    let (database, made) = backed_up(4);
    for (revision, prefix) in
        [(made.newest, "user:"), (made.oldest, "use"), (made.newest, ""), (made.newest, "nothing")]
    {
        let (folder, restored) =
            database.restore(Goal::Revision(revision), Some(prefix)).expect("it is there");
        let mut expected = database.states[&revision].clone();
        let all = expected.len();
        expected.retain(|(_, key), _| key.starts_with(prefix.as_bytes()));
        assert_eq!(expected.len() == all, prefix.is_empty());
        assert_eq!(expected.is_empty(), prefix == "nothing");
        assert_eq!(restored.keys, expected.len() as u64);
        assert_eq!(database.read(folder.path(), revision), expected, "{prefix}");
    }
    let long = database.states[&made.newest].keys().any(|(_, key)| key.len() > 65_535);
    assert!(long, "keys that stand as a digest are among them");
}

/// Type and elements of every collection.
fn collections(keyspace: &Keyspace) -> BTreeMap<Vec<u8>, (&'static str, Vec<u8>)> {
    let (limits, mut buffers) = (EncodingLimits::default(), Buffers::default());
    let (nothing, options) = (NoJournal, options(0, &limits));
    let mut txn = Txn::begin(keyspace, &Scope::All, &nothing, &mut buffers, options);
    let mut found = BTreeMap::new();
    txn.scan(0, usize::MAX, &mut |key, value| {
        // Two orders of one set are one set.
        let mut body = dump::encode_body(value);
        body.sort_unstable();
        found.insert(key.to_vec(), (value.type_name(), body));
    })
    .expect("the base can be read");
    found
}

#[test]
fn large_collections_are_restored_element_by_element() {
    let database = Database::new(6);
    let limits = EncodingLimits::default();
    let change = |change: &mut dyn FnMut(&mut Txn<'_>)| {
        let journal = ToLog(&database.log);
        let (mut buffers, options) = (Buffers::default(), options(0, &limits));
        let mut txn = Txn::begin(&database.keyspace, &Scope::All, &journal, &mut buffers, options);
        change(&mut txn);
        txn.finish();
    };
    let name = |n: u32| format!("element {n}").into_bytes();
    let all = 0..3000;
    change(&mut |txn| {
        for key in [&b"user:hash"[..], b"job:hash", b"user:gone"] {
            _ = txn.update_or_create(key, |hash: &mut Editor<'_, '_, Hash>| {
                all.clone().for_each(|n| _ = hash.set(&name(n), key));
            });
        }
        let long = [&b"user:"[..], &[b'x'; 70_000]].concat();
        _ = txn.update_or_create(&long, |zset: &mut Editor<'_, '_, Zset>| {
            all.clone().for_each(|n| _ = zset.set(&name(n), n.into()));
        });
        _ = txn.update_or_create(b"user:list", |list: &mut Editor<'_, '_, List>| {
            all.clone().for_each(|n| list.push_back(&name(n)));
        });
    });
    database.checkpoint();
    // Of some there is an older generation, of others a newer state.
    change(&mut |txn| {
        _ = txn.delete(b"user:gone");
        _ = txn.update(b"user:hash", |hash: &mut Editor<'_, '_, Hash>| hash.remove(&name(7)));
        _ = txn.rename(b"job:hash", 0, b"job:moved");
    });
    database.checkpoint();
    change(&mut |txn| {
        _ = txn.update(b"user:hash", |hash: &mut Editor<'_, '_, Hash>| hash.set(b"new", b""));
        _ = txn.update(b"user:list", |list: &mut Editor<'_, '_, List>| list.drop_front(2));
    });
    database.backup();
    let now = collections(&database.keyspace);
    for prefix in [None, Some("user:"), Some("job:")] {
        let (folder, restored) = database.restore(Goal::Newest, prefix).expect("it is there");
        let base = Base::open(&folder.path().join("archive"), 5, 1 << 20).expect("it is whole");
        let base = Arc::new(base);
        let keyspace = Keyspace::new(DATABASES, base.directory().seed);
        let backing = BaseBacking::new(base.clone(), limits);
        for database in &base.directory().databases {
            keyspace.back(backing.clone(), database.db, database.space, &database.keys);
        }
        let mut expected = now.clone();
        expected.retain(|key, _| key.starts_with(prefix.unwrap_or("").as_bytes()));
        assert_eq!(restored.keys, expected.len() as u64);
        assert!(collections(&keyspace) == expected, "{prefix:?}");
    }
}

#[test]
fn branches_are_restored_with_what_their_parent_had() {
    let mut database = Database::new(13);
    database.steps(20);
    // From here on all is in the log only.
    drop(database.follower.take());
    let set = |value: &[u8]| {
        let (limits, mut buffers) = (EncodingLimits::default(), Buffers::default());
        let (journal, options) = (ToLog(&database.log), options(database.now_ms, &limits));
        let mut txn = Txn::begin(&database.keyspace, &Scope::All, &journal, &mut buffers, options);
        txn.select(0);
        txn.set_string(b"key", value, None);
        txn.finish();
    };
    set(b"old");
    database.fork(1, "dev");
    set(b"new");
    let made = database.backup();
    assert!(made.oldest.0 + 3 <= made.newest.0, "{made:?}");
    let (folder, _) = database.restore(Goal::Newest, None).expect("it is there");
    let base = Base::open(&folder.path().join("archive"), 5, 1 << 20).expect("it is whole");
    let base = Arc::new(base);
    for (id, expected) in [(BranchId::MAIN, b"new"), (BranchId(1), b"old")] {
        let (directory, limits) = (base.directory(), EncodingLimits::default());
        let keyspace = Keyspace::new(DATABASES, directory.seed);
        let backing = BaseBacking::new(base.clone(), limits);
        for database in directory.databases.iter().filter(|database| database.branch == id) {
            keyspace.back(backing.clone(), database.db, database.space, &database.keys);
        }
        let stored = keyspace.take(0, b"key").expect("it can be read").expect("it is there");
        let Value::Str(value) = stored.value else { panic!("a string") };
        assert_eq!(value, expected, "on {id:?}");
    }
}

#[test]
fn an_empty_database_is_backed_up_too() {
    let database = Database::new(5);
    let made = database.backup();
    assert_eq!((made.oldest, made.newest), (Revision::ZERO, Revision::ZERO));
    for prefix in [None, Some("x")] {
        let (folder, restored) = database.restore(Goal::Newest, prefix).expect("it is there");
        assert_eq!((restored.revision, restored.keys), (Revision::ZERO, 0));
        let base = Base::open(&folder.path().join("archive"), 5, 1 << 20).expect("it is whole");
        let log = open_log(&folder.path().join("log"), Revision::ZERO);
        base.adopt(log.id()).expect("an empty one takes any");
    }
}

/// The files of a backup and their inodes' content.
fn stored(database: &Database) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(database.path("backup/files")).expect("there");
    entries
        .map(|entry| {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("readable"))
        })
        .collect()
}

#[test]
fn only_what_is_new_is_copied() {
    let (mut database, first) = back_up(Database { is_wild: false, ..Database::new(6) });
    assert_eq!(first.copied, first.files);
    assert_eq!(first.copied_bytes, first.bytes);
    let again = database.backup();
    // The log may have marked its last sync in its newest segment.
    assert!(again.copied <= 1 && again.files == first.files, "{again:?}");

    // The log goes on: its newest segment is another one now, and no other.
    database.step();
    let third = database.backup();
    assert!((1..=2).contains(&third.copied), "{third:?}");
    assert_eq!(third.newest, database.log.newest());

    // The base too: its new tables come, segments that nobody needs go.
    database.checkpoint();
    let fourth = database.backup();
    assert_eq!((fourth.oldest, fourth.newest), (third.newest, third.newest));
    assert!(fourth.copied < fourth.files, "{fourth:?}");
    assert_eq!(stored(&database).len(), fourth.files);
    let (folder, _) = database.restore(Goal::Newest, None).expect("whole");
    assert_eq!(database.read(folder.path(), third.newest), database.states[&third.newest]);

    // What is missing or was cut comes again.
    let (name, bytes) = stored(&database).pop_first().expect("there are files");
    let path = database.path("backup/files").join(name);
    fs::remove_file(&path).expect("ours");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("ours");
    assert_eq!(database.backup().copied, 1);
    assert_eq!(verify(&database.path("backup")).expect("there is one").problems, [""; 0]);
}

#[test]
fn damage_anywhere_is_found_and_nothing_is_restored() {
    let (database, _) = backed_up(7);
    let dir = database.path("backup");
    let files = stored(&database);
    let contents = Contents::read(&dir).expect("whole");
    for (name, bytes) in &files {
        let path = dir.join("files").join(name);
        let place = &contents.files.iter().find(|file| file.sha256 == *name).expect("named").path;
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 3] ^= 4;
        let longer = [&bytes[..], b"x"].concat();
        // Tables are links to the archive's own: only the name is ours.
        for damaged in [Some(&flipped), Some(&longer), Some(&bytes[1..].to_vec()), None] {
            fs::remove_file(&path).expect("ours");
            if let Some(damaged) = damaged {
                fs::write(&path, damaged).expect("ours");
            }
            let problems = verify(&dir).expect("there is one").problems;
            assert_eq!(problems.len(), 1, "{place}: {problems:?}");
            assert!(problems[0].starts_with(place.as_str()), "{problems:?}");
            let to = database.path("restored");
            let mut rng = SeededRng::new(1);
            let all = Wanted::all(Goal::Newest);
            let error = restore(&dir, &to, &all, &database.clock, &mut rng).expect_err("damaged");
            assert!(matches!(error, BackupError::Damaged { .. }), "{place}: {error}");
            assert!(!to.exists(), "nothing is left of it");
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).expect("ours");
        }
    }
    let path = dir.join(CONTENTS);
    let text = fs::read(&path).expect("there");
    for at in 0..text.len() {
        let mut flipped = text.clone();
        flipped[at] ^= 2;
        fs::write(&path, &flipped).expect("ours");
        match Contents::read(&dir).expect_err("damaged") {
            BackupError::Damaged { .. } => {}
            BackupError::NewerFormat { .. } if flipped[at].is_ascii_digit() => {}
            error => panic!("byte {at}: {error}"),
        }
    }
    fs::write(&path, &text[..text.len() - 1]).expect("ours");
    database.try_backup(&dir).expect_err("a damaged backup is not gone over");
    fs::write(&path, &text).expect("ours");
    assert_eq!(verify(&dir).expect("whole again").problems, [""; 0]);
}

#[test]
fn what_an_interrupted_backup_left_is_in_nobodys_way() {
    let (mut database, first) = backed_up(8);
    let dir = database.path("backup");
    let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    fs::write(dir.join("files").join(nothing), "").expect("ours");
    fs::write(dir.join("files/new-1"), "half").expect("ours");
    fs::write(dir.join("BACKUP.json.new"), "{").expect("ours");
    let verified = verify(&dir).expect("the older one is whole");
    assert_eq!((verified.problems, verified.unnamed), (vec![], 2));
    let (_, restored) = database.restore(Goal::Newest, None).expect("the older one is whole");
    assert_eq!(restored.revision, first.newest);
    database.step();
    database.backup();
    assert_eq!(verify(&dir).expect("whole").unnamed, 0);
    assert!(!dir.join("BACKUP.json.new").exists());

    // The first one was interrupted.
    fs::remove_file(dir.join(CONTENTS)).expect("ours");
    assert!(matches!(verify(&dir), Err(BackupError::NoBackup { .. })));
    assert!(database.backup().copied <= 1);
}

#[test]
fn a_backup_that_fails_leaves_the_older_one() {
    let (mut database, first) = backed_up(12);
    let before = stored(&database);
    database.steps(100);
    database.log.request_sync();
    database.log.wait_durable(database.log.newest()).expect("the disk takes it");
    let segments = database.log.segments();
    let (last, sealed) = segments.split_last().expect("there are some");
    assert!(sealed.last().expect("more than one").first > first.newest, "one is new and whole");
    // The newest is copied last.
    let (path, aside) = (database.log.dir().join(last.file_name()), database.path("aside"));
    fs::rename(&path, &aside).expect("ours");
    let error = database.try_backup(&database.path("backup")).expect_err("it cannot be read");
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(stored(&database) == before, "what it copied is gone, and nothing else");
    assert_eq!(verify(&database.path("backup")).expect("whole").contents.newest(), first.newest);
    assert_eq!(database.log.holders(), []);
    fs::rename(&aside, &path).expect("ours");
    assert_eq!(database.backup().newest, database.log.newest());

    let lock = RealVfs.lock(&database.path("backup/LOCK")).expect("nobody has it");
    let error = database.try_backup(&database.path("backup")).expect_err("somebody writes");
    assert!(matches!(error, BackupError::InUse { .. }), "{error}");
    drop(lock);
    database.backup();
}

#[test]
fn other_folders_are_left_alone() {
    let (database, _) = backed_up(9);
    let refused = |to: &Path| database.try_backup(to).expect_err("refused").to_string();
    assert!(refused(Path::new("backup")).contains("is relative"));
    let data = database.path("data");
    for inside in [data.clone(), data.join("b"), data.join("log/b"), data.join("../data/b")] {
        assert!(refused(&inside).contains("one inside the other"), "{}", inside.display());
    }
    assert!(refused(database.folder.path()).contains("one inside the other"));
    assert!(refused(&database.path("missing/b")).contains("missing"));

    let foreign = database.path("foreign");
    fs::create_dir(&foreign).expect("ours");
    fs::write(foreign.join("letter.txt"), "dear").expect("ours");
    assert!(refused(&foreign).contains("\"letter.txt\""));
    fs::remove_file(foreign.join("letter.txt")).expect("ours");
    fs::create_dir(foreign.join("files")).expect("ours");
    fs::write(foreign.join("files/letter.txt"), "dear").expect("ours");
    assert!(refused(&foreign).contains("\"files/letter.txt\""));
    fs::remove_dir_all(foreign.join("files")).expect("ours");
    std::os::unix::fs::symlink(&data, foreign.join("files")).expect("ours");
    assert!(refused(&foreign).contains("\"files\""));
    assert!(data.join("log").exists());

    let linked = database.path("linked");
    std::os::unix::fs::symlink(&data, &linked).expect("ours");
    assert!(refused(&linked).contains("one inside the other"));

    let other = Database::new(10);
    let error = other.try_backup(&database.path("backup")).expect_err("refused").to_string();
    assert!(error.contains("another database"), "{error}");

    use std::os::unix::fs::PermissionsExt;
    let empty = database.path("empty");
    fs::create_dir(&empty).expect("ours");
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o755)).expect("ours");
    database.try_backup(&empty).expect("an empty folder is fine");
    for folder in [&empty, &empty.join("files"), &database.path("backup")] {
        let mode = fs::metadata(folder).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }

    let to = temp_dir();
    fs::write(to.path().join("letter.txt"), "dear").expect("ours");
    let mut rng = SeededRng::new(1);
    let (from, all) = (database.path("backup"), Wanted::all(Goal::Newest));
    let error =
        restore(&from, to.path(), &all, &database.clock, &mut rng).expect_err("it is not empty");
    assert!(error.to_string().contains("\"letter.txt\""), "{error}");
    assert!(to.path().join("letter.txt").exists());
}

#[test]
fn a_backup_keeps_the_log_that_it_needs() {
    let (database, made) = backed_up(11);
    // By now the base has everything, and the log may go as far as it wants.
    database.checkpoint();
    database.log.remove_before(database.base.revision()).expect("it can be removed");
    let (folder, _) = database.restore(Goal::Newest, None).expect("the backup has its own");
    assert_eq!(database.read(folder.path(), made.newest), database.states[&made.newest]);
    assert_eq!(database.log.holders(), [], "it holds nothing once it is made");
}

#[test]
fn every_state_of_the_past_that_is_kept_can_be_restored() {
    for seed in 21..=22 {
        let mut database = Database::new(seed);
        database.steps(40);
        database.checkpoint();
        let first = database.base.revision();
        database.remember();
        for _ in 0..4 {
            database.steps(40);
            database.checkpoint();
        }
        database.steps(40);
        for move_to in [first.0, first.0 + 70] {
            let past = database.past.as_ref().expect("it is kept");
            let oldest = past.compact(Revision(move_to)).expect("files can be changed");
            let made = database.backup();
            assert_eq!((made.oldest, made.newest), (oldest, database.log.newest()));
            let contents = Contents::read(&database.path("backup")).expect("whole");
            assert_eq!(contents.archived(), database.base.revision());
            assert!(oldest.0 + 30 < contents.archived().0, "{oldest}");
            for revision in (oldest.0..=made.newest.0).step_by(13).chain([made.newest.0]) {
                let revision = Revision(revision);
                let (folder, restored) =
                    database.restore(Goal::Revision(revision), None).expect("it is there");
                let expected = &database.states[&revision];
                assert_eq!(&database.read(folder.path(), revision), expected, "{seed} {revision}");
                assert_eq!(restored.time_ms, database.times[&revision]);
                let time_ms = (database.times[&revision] + 9).min(database.now_ms);
                let by_time = database.restore(Goal::Time(time_ms), Some("user:"));
                let (_, by_time) = by_time.expect("it is there");
                assert_eq!(by_time.revision, revision);
            }
            let early = Revision(oldest.0 - 1);
            let error = database.restore(Goal::Revision(early), None).expect_err("not there");
            assert!(matches!(error, BackupError::NoRevision { .. }), "{error}");
        }
    }
}

#[test]
fn the_past_begins_with_nothing() {
    let mut database = Database::new(23);
    database.remember();
    database.steps(60);
    database.checkpoint();
    assert_eq!(database.backup().oldest, Revision::ZERO);
    for revision in [Revision(0), Revision(1), Revision(30), database.log.newest()] {
        let (folder, _) = database.restore(Goal::Revision(revision), None).expect("it is there");
        assert_eq!(database.read(folder.path(), revision), database.states[&revision]);
    }
}

#[test]
fn tags_and_branches_are_restored_by_name() {
    let mut database = Database::new(24);
    database.is_wild = false;
    database.remember();
    database.steps(60);
    let dev = database.fork(1, "dev");
    // Their states are the base's.
    database.checkpoint();
    database.steps(60);
    let (name, time_ms) = (b"v1", 0);
    let (branch, revision) = (BranchId::MAIN, Revision::ZERO);
    let tagged = database.declare(&Effect::Tag { name, branch, revision, time_ms });
    database.checkpoint();
    database.steps(60);
    database.checkpoint();
    let past = database.past.clone().expect("it is kept");
    let oldest = past.compact(database.base.revision()).expect("files can be changed");
    database.steps(30);
    let (name, branch) = (b"late", BranchId(1));
    database.declare(&Effect::Tag { name, branch, revision: Revision::ZERO, time_ms });
    let made = database.backup();
    assert!(tagged < oldest && oldest == made.oldest);

    let state_at = |revision: Revision| {
        database.states.range(..=revision).next_back().expect("the empty one").1.clone()
    };
    let (folder, restored) = database.restore(Goal::Tag(b"v1".to_vec()), None).expect("there");
    assert_eq!((restored.revision, restored.branch), (tagged, None));
    let base = Base::open(&folder.path().join("archive"), 5, 1 << 20).expect("it is whole");
    assert!(base.directory().branches.tags().contains_key(&b"v1"[..]));
    drop(base);
    let wanted = |goal, branch: &str, prefix: &str| Wanted {
        goal,
        branch: Some(branch.into()),
        prefix: (!prefix.is_empty()).then(|| prefix.into()),
    };
    let tag = Goal::Tag(b"v1".to_vec());
    for (goal, branch, prefix, revision, at) in [
        (Goal::Newest, "dev", "", made.newest, dev),
        (Goal::Newest, "dev", "user:", made.newest, dev),
        (Goal::Newest, "main", "", made.newest, made.newest),
        (tag.clone(), "dev", "", tagged, dev),
        (tag.clone(), "main", "use", tagged, tagged),
        (Goal::Revision(dev), "dev", "", dev, dev),
        (Goal::Tag(b"late".to_vec()), "dev", "", made.newest, dev),
    ] {
        let told = format!("{goal:?} {branch} {prefix}");
        let (folder, restored) =
            database.restore_as(&wanted(goal, branch, prefix)).expect("it is there");
        assert_eq!(restored.branch.as_deref(), Some(branch));
        let mut expected = state_at(at);
        expected.retain(|(_, key), _| key.starts_with(prefix.as_bytes()));
        assert!(!expected.is_empty());
        assert_eq!(database.read(folder.path(), revision), expected, "{told}");
    }
    // A part is of the tag's branch.
    let late = Wanted { branch: None, ..wanted(Goal::Tag(b"late".to_vec()), "", "u") };
    let (_, restored) = database.restore_as(&late).expect("it is there");
    assert_eq!(restored.branch.as_deref(), Some("dev"));

    let refused = |wanted: &Wanted| database.restore_as(wanted).expect_err("refused").to_string();
    let error = refused(&Wanted::all(Goal::Tag(b"v2".to_vec())));
    assert_eq!(error, "no tag of the backup is named 'v2'; it has late, v1");
    let error = refused(&wanted(Goal::Newest, "prod", ""));
    assert_eq!(
        error,
        format!("no branch was named 'prod' at revision {}; there were main, dev", made.newest)
    );
    let between = Revision(tagged.0 + 1);
    let error = refused(&Wanted::all(Goal::Revision(between)));
    assert!(error.starts_with(&format!("revision {between} is not in the backup")), "{error}");
}

#[test]
fn a_row_of_backups_has_the_newest_and_stores_the_same_once() {
    let (mut database, _) = back_up(Database { is_wild: false, ..Database::new(25) });
    let row = database.path("row");
    let folders = [database.path("data")];
    let made = |database: &Database, keep| {
        rotate(&database.source(&folders), &row, keep, &database.clock).expect("it can be made")
    };
    let first = made(&database, 2);
    assert_eq!((first.kept, first.removed), (1, 0));
    assert_eq!(newest_ms(&row), Some(database.now_ms));
    database.step();
    let second = made(&database, 2);
    assert!((1..=2).contains(&second.made.copied), "{second:?}");
    database.step();
    // What is not ours stays.
    fs::create_dir(row.join("2001-01-01T00-00-00.000Z")).expect("ours");
    fs::write(row.join("2001-01-01T00-00-00.000Z/letter.txt"), "dear").expect("ours");
    fs::create_dir(row.join("new-2001-01-01T00-00-00.000Z")).expect("ours");
    let third = made(&database, 2);
    assert_eq!((third.kept, third.removed), (2, 1));
    assert!(!first.dir.exists() && second.dir.exists());
    assert!(row.join("2001-01-01T00-00-00.000Z/letter.txt").exists());
    assert!(!row.join("new-2001-01-01T00-00-00.000Z").exists());
    for dir in [&second.dir, &third.dir] {
        assert_eq!(verify(dir).expect("there").problems, [""; 0]);
    }

    // A damaged one is not gone on with.
    let contents = Contents::read(&third.dir).expect("whole");
    let table = contents.files.iter().find(|file| file.path.contains("tables")).expect("one");
    let stored = third.dir.join("files").join(&table.sha256);
    let mut bytes = fs::read(&stored).expect("there");
    bytes[7] ^= 1;
    fs::remove_file(&stored).expect("ours");
    fs::write(&stored, bytes).expect("ours");
    database.step();
    let fourth = made(&database, 2);
    assert_eq!(fourth.made.copied, fourth.made.files);
    assert_eq!(verify(&fourth.dir).expect("there").problems, [""; 0]);

    let data = database.path("data/row");
    let error = rotate(&database.source(&folders), &data, 2, &database.clock).expect_err("inside");
    assert!(matches!(error, BackupError::Inside { .. }) && !data.exists(), "{error}");
}
