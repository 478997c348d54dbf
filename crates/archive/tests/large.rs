//! Large collections in the base: what one change of them costs, and what a
//! crash leaves.

mod random;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::{Base, BaseBacking, Follower, FollowerOptions, LargeFrom, Pace};
use base::{Revision, SystemClock};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{Editor, EncodingLimits, Keyspace, Txn, ValueRef};
use parking_lot::Mutex;
use testkit::temp_dir;

use random::{DATABASES, Database, Key, State, contents, look};

fn filled_from(base: &Arc<Base>) -> Keyspace {
    let directory = base.directory();
    let keyspace = Keyspace::new(DATABASES, directory.seed);
    let backing = BaseBacking::new(base.clone(), EncodingLimits::default());
    for database in &directory.databases {
        keyspace.back(backing.clone(), database.db, database.space, &database.keys);
    }
    keyspace
}

fn follow(
    base: &Arc<Base>,
    database: &Database,
    pace: Pace,
    advanced: impl Fn(Revision) + Send + Sync + 'static,
) -> Follower {
    let options = FollowerOptions {
        pace,
        databases: DATABASES,
        limits: EncodingLimits::default(),
        past: None,
        turn: Box::new(|| {}),
        clock: Arc::new(SystemClock),
        advanced: Box::new(move |revision, _| advanced(revision)),
        faulted: Box::new(|fault| assert_eq!(fault, None)),
    };
    Follower::start(base.clone(), database.log().reader(base.revision().next()), options)
}

/// What a transaction does.
type Change<'c> = &'c dyn Fn(&mut Txn<'_>);

#[test]
fn one_element_is_one_small_write() {
    const ELEMENTS: u32 = 100_000;
    let folder = temp_dir();
    let database = Database::new(1);
    let base = Arc::new(Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens"));
    // It moves when it is told to.
    let pace = Pace { idle_ms: u64::MAX, age_ms: u64::MAX, ..Pace::default() };
    let follower = follow(&base, &database, pace, |_| {});
    let written = |change: Change<'_>| {
        let before = base.written_bytes();
        database.change(change);
        follower.checkpoint(database.log().newest()).expect("it follows");
        base.written_bytes() - before
    };
    let filled = written(&|txn| {
        let name = |n: u32| format!("element:{n:06}").into_bytes();
        _ = txn.update_or_create(b"hash", |hash: &mut Editor<'_, '_, Hash>| {
            (0..ELEMENTS).for_each(|n| _ = hash.set(&name(n), b"some value"));
        });
        _ = txn.update_or_create(b"set", |set: &mut Editor<'_, '_, Set>| {
            (0..ELEMENTS).for_each(|n| _ = set.add(&name(n)));
        });
        _ = txn.update_or_create(b"zset", |zset: &mut Editor<'_, '_, Zset>| {
            (0..ELEMENTS).for_each(|n| _ = zset.set(&name(n), f64::from(n)));
        });
        _ = txn.update_or_create(b"list", |list: &mut Editor<'_, '_, List>| {
            (0..ELEMENTS).for_each(|n| list.push_back(&name(n)));
        });
    });
    assert!(filled > 4 * 20 * u64::from(ELEMENTS), "all of it: {filled} bytes");
    let changes: [(&str, Change<'_>); 9] = [
        ("HSET", &|txn| {
            _ = txn.update(b"hash", |hash: &mut Editor<'_, '_, Hash>| {
                hash.set(b"element:000007", b"another value")
            });
        }),
        ("HSET of a new field", &|txn| {
            _ = txn.update(b"hash", |hash: &mut Editor<'_, '_, Hash>| hash.set(b"new", b"value"));
        }),
        ("HDEL", &|txn| {
            _ = txn
                .update(b"hash", |hash: &mut Editor<'_, '_, Hash>| hash.remove(b"element:000009"));
        }),
        ("SADD", &|txn| {
            _ = txn.update(b"set", |set: &mut Editor<'_, '_, Set>| set.add(b"new"));
        }),
        ("ZADD", &|txn| {
            _ = txn.update(b"zset", |zset: &mut Editor<'_, '_, Zset>| {
                zset.set(b"element:000007", -1.0)
            });
        }),
        ("RPUSH and LPOP", &|txn| {
            _ = txn.update(b"list", |list: &mut Editor<'_, '_, List>| {
                list.push_back(b"new");
                list.drop_front(1);
            });
        }),
        ("LTRIM", &|txn| {
            _ = txn.update(b"list", |list: &mut Editor<'_, '_, List>| list.drop_back(90_000));
        }),
        ("PEXPIREAT", &|txn| _ = txn.set_deadline(b"set", Some(4_000_000_000_000))),
        ("DEL", &|txn| _ = txn.delete(b"zset")),
    ];
    for (name, change) in changes {
        let bytes = written(change);
        assert!(bytes < 500, "{name}: {bytes} bytes, the directory included");
        // Whole values are compared now and then: that takes a while.
        if matches!(name, "HDEL" | "DEL") {
            let recovered = contents(&filled_from(&base));
            assert_eq!(recovered, contents(&database.keyspace), "after {name}");
        }
    }
}

#[test]
fn one_element_is_read_alone() {
    const ELEMENTS: u32 = 20_000;
    let folder = temp_dir();
    let database = Database::new(2);
    let base = Arc::new(Base::open(folder.path(), 2, 1 << 20).expect("an empty one opens"));
    let pace = Pace { idle_ms: u64::MAX, age_ms: u64::MAX, ..Pace::default() };
    let follower = follow(&base, &database, pace, |_| {});
    let name = |n: u32| format!("element:{n:06}").into_bytes();
    // Longer than the tree takes.
    let long = vec![b'n'; 20_000];
    database.change(|txn| {
        _ = txn.update_or_create(b"hash", |hash: &mut Editor<'_, '_, Hash>| {
            (0..ELEMENTS).for_each(|n| _ = hash.set(&name(n), &name(n + 1)));
        });
        _ = txn.update_or_create(b"set", |set: &mut Editor<'_, '_, Set>| {
            (0..ELEMENTS).for_each(|n| _ = set.add(&name(n)));
            set.add(&long);
        });
        _ = txn.update_or_create(b"zset", |zset: &mut Editor<'_, '_, Zset>| {
            (0..ELEMENTS).for_each(|n| _ = zset.set(&name(n), f64::from(n)));
        });
        _ = txn.update_or_create(b"list", |list: &mut Editor<'_, '_, List>| {
            (0..ELEMENTS).for_each(|n| list.push_back(&name(n)));
        });
    });
    // Of what was there, and of what came to it.
    for n in [7, 8] {
        database.change(|txn| {
            _ = txn.update(b"hash", |hash: &mut Editor<'_, '_, Hash>| hash.set(&name(n), b"new"));
            _ = txn.update(b"set", |set: &mut Editor<'_, '_, Set>| set.remove(&name(n)));
        });
        follower.checkpoint(database.log().newest()).expect("it follows");
    }
    let keyspace = filled_from(&base);
    let see = |key: &[u8], names: &[&[u8]]| {
        let each = |found: &dyn Fn(&[u8]) -> String| {
            names.iter().map(|name| found(name)).collect::<Vec<_>>().join(" ")
        };
        look(&keyspace, 0, &mut |txn| {
            txn.look_at(key, names);
            assert_eq!(txn.backing_error(), None);
            match txn.get(key).expect("it is there") {
                ValueRef::Hash(hash) => each(&|name| {
                    String::from_utf8_lossy(hash.get(name).unwrap_or(b"-")).into_owned()
                }),
                ValueRef::Set(set) => each(&|name| set.contains(name).to_string()),
                ValueRef::Zset(zset) => each(&|name| format!("{:?}", zset.score(name))),
                value => value.type_name().to_owned(),
            }
        })
    };
    let (two, seven, eight, nine) = (name(2), name(7), name(8), name(9));
    let bytes = keyspace.memory_bytes();
    assert_eq!(see(b"hash", &[&seven, &eight, &nine, b"none"]), "new new element:000010 -");
    assert_eq!(see(b"set", &[&seven, &eight, &nine, &long]), "false false true true");
    assert_eq!(see(b"zset", &[&two, b"none", &two]), "Some(2.0) None Some(2.0)");
    assert_eq!(keyspace.unloaded(), 4, "they stay where they are");
    assert_eq!(keyspace.memory_bytes(), bytes);
    // A list has no names, so it comes whole.
    assert_eq!((see(b"list", &[b"0"]), keyspace.unloaded()), ("list".to_owned(), 3));
    // Who asks for much of it has all of it in the end.
    let looks = (0..ELEMENTS).take_while(|n| {
        assert_eq!(see(b"zset", &[&name(*n)]), format!("Some({:?})", f64::from(*n)));
        keyspace.unloaded() == 3
    });
    let looks = looks.count() as u32;
    assert!((ELEMENTS / 50..ELEMENTS / 5).contains(&looks), "{looks}");
    assert_eq!(contents(&keyspace), contents(&database.keyspace));
}

/// Copies the files of a tree as they are between two batches.
fn copy(from: &Path, to: &Path) {
    for dir in ["base", "base/tables"] {
        fs::create_dir_all(to.join(dir)).expect("ours");
        for entry in fs::read_dir(from.join(dir)).expect("it is there") {
            let entry = entry.expect("it is there");
            if entry.file_type().expect("it is there").is_file() {
                fs::copy(entry.path(), to.join(dir).join(entry.file_name())).expect("ours");
            }
        }
    }
}

/// After a batch, and after a crash at any point of the next one, the base has
/// exactly one state, elements and counts included.
#[test]
fn a_crash_leaves_one_revision() {
    let folder = temp_dir();
    let images = temp_dir();
    let large_from = LargeFrom { elements: 3, bytes: 200 };
    let mut database = Database::of_collections(5);
    let base = Base::open(&folder.path().join("archive"), 5, 1 << 20).expect("an empty one opens");
    let base = Arc::new(base.with_large_from(large_from));
    let taken: Arc<Mutex<Vec<(Revision, PathBuf)>>> = Arc::default();
    let take = {
        let (from, to, taken) = (base.dir().to_owned(), images.path().to_owned(), taken.clone());
        move |revision: Revision| {
            let image = to.join(revision.to_string());
            copy(&from, &image);
            taken.lock().push((revision, image));
        }
    };
    let pace = Pace { log_bytes: 2000, idle_ms: u64::MAX, age_ms: u64::MAX, ..Pace::default() };
    let follower = follow(&base, &database, pace, take);
    let mut states: BTreeMap<Revision, BTreeMap<Key, State>> = BTreeMap::new();
    for step in 0..400 {
        database.step();
        let newest = database.log().newest();
        states.entry(newest).or_insert_with(|| contents(&database.keyspace));
        if step % 50 == 49 {
            follower.checkpoint(newest).expect("it follows");
        }
    }
    drop(follower);
    let taken = std::mem::take(&mut *taken.lock());
    assert!(taken.len() >= 8, "{} batches", taken.len());
    let holds = |image: &Path, revision: Revision| {
        let base = Arc::new(Base::open(image, 0, 1 << 20).expect("it opens"));
        assert_eq!(base.revision(), revision);
        assert_eq!(contents(&filled_from(&base)), states[&revision], "at {revision}");
    };
    for pair in taken.windows(2) {
        let ((before, old), (_, new)) = (&pair[0], &pair[1]);
        // Everything of the next batch is there but the name of its manifest,
        // and of one table only a half.
        let (current, crashed) = (old.join("base/current"), images.path().join("crashed"));
        copy(new, &crashed);
        copy(old, &crashed);
        fs::copy(&current, crashed.join("base/current")).expect("ours");
        let tables = |image: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(image.join("base/tables")).expect("it is there");
            entries.map(|entry| entry.expect("it is there").file_name().into()).collect()
        };
        let known = tables(old);
        if let Some(name) = tables(new).iter().find(|name| !known.contains(name)) {
            let table = crashed.join("base/tables").join(name);
            let bytes = fs::read(&table).expect("ours");
            fs::write(&table, &bytes[..bytes.len() / 2]).expect("ours");
        }
        holds(&crashed, *before);
        fs::remove_dir_all(&crashed).expect("ours");
        holds(old, *before);
    }
}
