//! A backup holds every state of a range of revisions, and says so itself when
//! it does not.

mod damage;
mod database;
mod erased;
mod past;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use archive::backup::{BackupError, CONTENTS, Goal, Wanted, restore, verify};
use archive::{Base, BaseBacking};
use base::{BranchId, Revision, SeededRng};
use keyspace::types::{Hash, List, Zset};
use keyspace::{Buffers, Editor, EncodingLimits, Keyspace, Scope, Txn, Value, dump};
use log::{RealVfs, Vfs};
use testkit::temp_dir;

use database::{DATABASES, Database, NoJournal, ToLog, back_up, backed_up, open_log, options};

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
    txn.visit_all(&mut |key, value, _| {
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
pub fn stored(database: &Database) -> BTreeMap<String, Vec<u8>> {
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
