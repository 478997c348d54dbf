//! Batches, states and compaction, on entries of no key in particular.

use base::leb128;
use testkit::temp_dir;

use super::*;

fn write(base: &Base, revision: u64, entries: &[(&[u8], Option<&[u8]>)]) {
    let mut batch = base.batch().expect("a file can be made");
    for (key, value) in entries {
        let mut bytes = Vec::new();
        leb128::put(&mut bytes, revision);
        match value {
            Some(value) => bytes.extend_from_slice(&[&[0, 0], *value].concat()),
            None => bytes.push(2),
        }
        batch.put(key, &bytes).expect("it can be written");
    }
    let directory = Directory { revision: Revision(revision), ..Directory::empty(1) };
    batch.finish(directory).expect("it can be made durable");
}

fn at(base: &Base, key: &[u8], revision: u64) -> Option<Vec<u8>> {
    let mut found = None;
    base.range_at(&(key..=key), Revision(revision), &mut |_, value| {
        let (_, is_gone) = codec::age(value).expect("ours");
        found = (!is_gone).then(|| value[value.len() - 2..].to_vec());
        ControlFlow::Break(())
    })
    .expect("it can be read");
    found
}

#[test]
fn the_files_of_a_snapshot_stay_while_it_does() {
    let folder = temp_dir();
    let base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
    let key = &[0, 0, 0, 0, 1, b'a'][..];
    write(&base, 10, &[(key, Some(b"10"))]);
    let snapshot = base.snapshot().expect("it can be read");
    assert_eq!(snapshot.directory.revision, Revision(10));
    let table = folder.path().join(&snapshot.tables[0].name);
    let bytes = std::fs::read(&table).expect("it is there");
    let checksum = xxhash_rust::xxh3::xxh3_128(&bytes);
    assert_eq!((snapshot.tables.len(), snapshot.tables[0].checksum), (1, checksum));
    for n in 2..=20 {
        write(&base, 10 * n, &[(key, Some(format!("{n}0").as_bytes()))]);
        base.compact(Revision(10 * n)).expect("it can be compacted");
    }
    assert_eq!(std::fs::read(&table).expect("it is there still"), bytes);
    for (name, content) in &snapshot.small {
        let now = std::fs::read(folder.path().join(name)).ok();
        assert_ne!(now.as_ref(), Some(content), "{name} is of another time by now");
    }
    drop(snapshot);
    assert!(!table.exists(), "nobody needs it any more");
}

#[test]
fn as_many_batches_as_come_without_compaction_can_be_opened_again() {
    let folder = temp_dir();
    let mut base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
    let key = &[0, 0, 0, 0, 1, b'a'][..];
    let text = |n: u64| format!("{:02}", n % 100).into_bytes();
    for n in 1..=300 {
        write(&base, n, &[(key, Some(&text(n)))]);
        assert!(base.tree.l0_run_count() <= RUNS_IN_HASTE);
    }
    for _ in 0..2 {
        for n in 1..=300 {
            assert_eq!(at(&base, key, n), Some(text(n)), "nobody has let go of {n}");
        }
        drop(base);
        base = Base::open(folder.path(), 1, 1 << 20).expect("it opens again");
    }
}

#[test]
fn states_from_the_horizon_on_stay_and_others_go() {
    let folder = temp_dir();
    let (a, b) = (&[0, 0, 0, 0, 1, b'a'][..], &[0, 0, 0, 0, 2, b'b'][..]);
    let mut base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
    for n in 1..=20 {
        let removed = n % 5 == 0;
        let text = format!("{n:02}");
        let value = (!removed).then_some(text.as_bytes());
        write(&base, 10 * n, &[(a, value), (b, (n == 3).then_some(b"once"))]);
        // The horizon stays at the tenth batch.
        base.compact(Revision(10 * n.min(10))).expect("it can be compacted");
    }
    for again in [false, true] {
        if again {
            drop(base);
            base = Base::open(folder.path(), 1, 1 << 20).expect("it opens again");
        }
        for n in 10..=20u64 {
            let expected = (n % 5 != 0).then(|| format!("{n:02}").into_bytes());
            for revision in [10 * n, 10 * n + 9] {
                assert_eq!(at(&base, a, revision), expected, "at {revision}");
                assert_eq!(at(&base, b, revision), None, "at {revision}");
            }
            let directory = base.directory_at(Revision(10 * n + 9)).expect("readable");
            assert_eq!(directory.revision, Revision(10 * n));
        }
    }
}

#[test]
fn a_space_that_nobody_has_is_left_out() {
    let folder = temp_dir();
    let base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
    let dead = SpaceId { born: Revision::ZERO, db: 0 };
    let key = |db: u8, n: u8| vec![0, 0, db, 0, 1, n];
    let left = |base: &Base| base.has_any(dead).expect("it can be read");
    for n in 1..=12 {
        let mut batch = base.batch().expect("a file can be made");
        for db in 0..2 {
            batch.put(&key(db, n), &[n, 0, 0, b'v', b'v']).expect("it can be written");
        }
        let gone = Left { space: dead, at: Revision(2), keys: 2 };
        let left = if n > 2 { vec![gone] } else { Vec::new() };
        let revision = Revision(u64::from(n));
        let directory = Directory { revision, left, ..Directory::empty(1) };
        batch.finish(directory).expect("it can be made durable");
        if n < 12 {
            base.compact(Revision(1)).expect("it can be compacted");
        }
    }
    assert!(left(&base), "the horizon still sees it");
    base.compact(Revision(12)).expect("it can be compacted");
    assert!(!left(&base));
    assert_eq!(at(&base, &key(1, 7), 12), Some(b"vv".to_vec()));
}

#[test]
fn damage_is_refused_by_name() {
    let folder = temp_dir();
    let base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
    write(&base, 1, &[(&[0, 0, 0, 0, 1, b'a'], Some(b"v"))]);
    drop(base);
    let tree = folder.path().join(TREE);
    let current = std::fs::read(tree.join("current")).expect("there");
    let manifest = tree.join(format!("v{}", current[0]));
    let whole = std::fs::read(&manifest).expect("there");
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        std::fs::write(&manifest, bytes).expect("ours");
        let error = Base::open(folder.path(), 1, 1 << 20).expect_err("damaged").to_string();
        assert!(error.contains(&*manifest.to_string_lossy()), "byte {place}: {error}");
    }
    std::fs::write(&manifest, whole).expect("ours");
    Base::open(folder.path(), 1, 1 << 20).expect("whole again");
}

/// A base of two tables, of which the second hides the first one's value, and its
/// table files.
fn of_two_tables(folder: &Path) -> (Vec<u8>, Vec<PathBuf>) {
    let key = [0, 0, 0, 0, 1, b'a'].to_vec();
    let base = Base::open(folder, 1, 1 << 20).expect("an empty one opens");
    write(&base, 1, &[(&key, Some(b"v1"))]);
    write(&base, 2, &[(&key, None)]);
    let tables = base.snapshot().expect("it can be read").tables;
    (key, tables.iter().map(|table| folder.join(&table.name)).collect())
}

#[test]
fn tables_that_have_changed_places_are_refused_by_name() {
    let folder = temp_dir();
    let (_, tables) = of_two_tables(folder.path());
    let aside = folder.path().join("aside");
    let swap = || {
        std::fs::rename(&tables[0], &aside).expect("ours");
        std::fs::rename(&tables[1], &tables[0]).expect("ours");
        std::fs::rename(&aside, &tables[1]).expect("ours");
    };
    swap();
    let error = Base::open(folder.path(), 1, 1 << 20).expect_err("swapped").to_string();
    for (found, written) in [(0, 1), (1, 0)] {
        let [found, written] = [found, written].map(|n: usize| tables[n].display().to_string());
        let said = format!("{found}: it is what was written as {written}");
        assert!(error.contains(&said), "no {said:?} in {error}");
    }
    swap();
    Base::open(folder.path(), 1, 1 << 20).expect("whole again");
}

#[test]
fn a_manifest_that_nothing_names_is_no_new_base() {
    let folder = temp_dir();
    let current = folder.path().join(TREE).join(CURRENT);
    // A start that was cut short before anything was written begins anew.
    drop(Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens"));
    std::fs::remove_file(&current).expect("ours");
    of_two_tables(folder.path());
    std::fs::remove_file(&current).expect("ours");
    let error = Base::open(folder.path(), 1, 1 << 20).expect_err("there are tables").to_string();
    assert!(error.contains(&format!("{}: it is not there", current.display())), "{error}");
}

#[test]
fn whoever_reads_damage_is_told_file_and_place() {
    let folder = temp_dir();
    let (key, tables) = of_two_tables(folder.path());
    let [newest, older] = &tables[..] else { panic!("{tables:?}") };
    let damage = |table: &Path| {
        let whole = std::fs::read(table).expect("there");
        let mut bytes = whole.clone();
        // In the first block.
        bytes[40] ^= 1;
        std::fs::write(table, bytes).expect("ours");
        whole
    };
    let whole = damage(newest);
    let error = Base::open(folder.path(), 1, 1 << 20).expect_err("damaged").to_string();
    let said = format!("{}: at byte 0 its content is not", newest.display());
    assert!(error.contains(&said), "no {said:?} in {error}");
    std::fs::write(newest, whole).expect("ours");

    let whole = damage(older);
    let base = Base::open(folder.path(), 1, 1 << 20).expect("nothing of it is read");
    let none = &mut |_: &[u8], _: &[u8]| ControlFlow::Continue(());
    let range = &(&key[..]..=&key[..]);
    let said = format!("{} at byte 0", older.display());
    for error in [
        base.get_at(&key, Revision(1)).map(drop),
        base.prefix(&key, none),
        base.range(range, none),
        base.range_at(range, Revision(1), none),
    ] {
        let error = error.expect_err("damaged").to_string();
        assert!(error.contains(&said), "no {said:?} in {error}");
    }
    let error = base.merge(Revision(2)).expect_err("damaged").to_string();
    let said = format!("{}: at byte 0 its content", older.display());
    assert!(error.contains(&said), "no {said:?} in {error}");
    drop(base);
    std::fs::write(older, whole).expect("ours");
    Base::open(folder.path(), 1, 1 << 20).expect("whole again");
}

/// Lets the next manifest be written to a full disk; answers its path.
#[cfg(target_os = "linux")]
fn fill_disk(base: &Base) -> std::path::PathBuf {
    let next = base.tree.current_version().id() + 1;
    let manifest = base.dir().join(TREE).join(format!("v{next}"));
    std::os::unix::fs::symlink("/dev/full", &manifest).expect("a free name");
    manifest
}

#[cfg(target_os = "linux")]
fn has_what_it_names_only(base: &Base) {
    let tables = std::fs::read_dir(base.dir().join(TREE).join(TABLES)).expect("it is there");
    let found: BTreeSet<String> = tables
        .map(|it| it.expect("it is there").file_name().into_string().expect("ours"))
        .collect();
    let version = base.tree.current_version();
    let named: BTreeSet<String> = version.iter_tables().map(|it| it.id().to_string()).collect();
    assert_eq!(found, named);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_a_batch_or_a_compaction_and_nothing_else() {
    let folder = temp_dir();
    let base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
    let key = &[0, 0, 0, 0, 1, b'a'][..];
    write(&base, 10, &[(key, Some(b"10"))]);
    let full = fill_disk(&base);
    let mut batch = base.batch().expect("a file can be made");
    batch.put(key, &[20, 0, 0, b'2', b'0']).expect("it is written later");
    let directory = Directory { revision: Revision(20), ..Directory::empty(1) };
    let error = batch.finish(directory).expect_err("there is no room");
    assert!(error.may_pass() && error.to_string().contains("No space left on device"), "{error}");
    assert!(base.clear_away());
    has_what_it_names_only(&base);
    assert_eq!((base.revision(), at(&base, key, 20)), (Revision(10), Some(b"10".to_vec())));
    std::fs::remove_file(full).expect("ours");
    write(&base, 20, &[(key, Some(b"20"))]);
    let full = fill_disk(&base);
    let error = base.merge(Revision(20)).expect_err("there is no room");
    assert!(error.may_pass(), "{error}");
    assert!(base.clear_away());
    has_what_it_names_only(&base);
    assert_eq!(at(&base, key, 10), Some(b"10".to_vec()));
    std::fs::remove_file(full).expect("ours");
    base.merge(Revision(20)).expect("there is room");
    assert_eq!((at(&base, key, 10), at(&base, key, 20)), (None, Some(b"20".to_vec())));
    drop(base);
    let base = Base::open(folder.path(), 1, 1 << 20).expect("it is whole");
    assert_eq!(at(&base, key, 20), Some(b"20".to_vec()));
}

#[test]
fn a_manifest_that_memory_does_not_know_is_for_a_start() {
    let folder = temp_dir();
    let base = Base::open(folder.path(), 1, 1 << 20).expect("an empty one opens");
    write(&base, 10, &[(&[0, 0, 0, 0, 1, b'a'], Some(b"10"))]);
    assert!(base.clear_away());
    let current = folder.path().join(TREE).join(CURRENT);
    let mut bytes = std::fs::read(&current).expect("it is there");
    bytes[0] += 1;
    std::fs::write(&current, bytes).expect("ours");
    assert!(!base.clear_away());
}
