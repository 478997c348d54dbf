//! What is damaged is found: in a backup, and before it is copied into one.

use std::fs;
use std::path::{Path, PathBuf};

use archive::backup::{BackupError, CONTENTS, Contents, Goal, Wanted, restore, verify};
use base::{Revision, SeededRng};
use log::SegmentInfo;
use sha2::{Digest, Sha256};

use crate::database::{Database, backed_up};
use crate::stored;

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

/// Files of the live database that never change, or only grow.
fn tables(database: &Database) -> Vec<PathBuf> {
    let tables = database.path("data/archive/base/tables");
    let mut found: Vec<PathBuf> =
        fs::read_dir(tables).expect("there").map(|entry| entry.expect("readable").path()).collect();
    found.sort();
    found
}

/// Changes a byte of a file in its place, as a disk would.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("there");
    bytes[at] ^= 4;
    fs::write(path, bytes).expect("ours");
}

#[test]
fn what_is_damaged_is_not_copied() {
    let (database, _) = backed_up(13);
    let to = database.path("second");
    let refused = |path: &Path, at: usize, named: &Path| {
        flip(path, at);
        let error = database.try_backup(&to).expect_err("damaged");
        let text = error.to_string();
        assert!(text.contains(&named.display().to_string()), "{text}");
        assert!(text.contains("is damaged"), "{text}");
        flip(path, at);
        assert!(!to.join(CONTENTS).exists());
        assert_eq!(fs::read_dir(to.join("files")).expect("there").count(), 0, "nothing is left");
        error
    };
    for table in tables(&database) {
        let len = fs::metadata(&table).expect("there").len() as usize;
        for at in [0, len / 2, len - 1] {
            refused(&table, at, &table);
        }
    }
    let current = database.path("data/archive/base/current");
    let number = fs::read(&current).expect("there")[0];
    let manifest = current.with_file_name(format!("v{number}"));
    // It has the manifest's checksum, and one of the two is wrong.
    refused(&current, 20, &manifest);
    refused(&manifest, 20, &manifest);
    let needed = |segment: &SegmentInfo| segment.last > database.base.revision();
    let segments: Vec<SegmentInfo> = database.log.segments().into_iter().filter(needed).collect();
    assert!(segments.len() > 2, "sealed ones and the newest");
    for segment in segments {
        let path = database.log.dir().join(segment.file_name());
        for at in [10, segment.bytes as usize / 2, segment.bytes as usize - 1] {
            let error = refused(&path, at, &path);
            assert!(matches!(error, BackupError::Log(_)), "{error}");
        }
    }
    database.try_backup(&to).expect("all is whole again");
    assert_eq!(verify(&to).expect("there is one").problems, [""; 0]);
}

#[test]
fn a_backup_without_the_history_does_without_what_is_damaged_of_it() {
    let mut database = Database::new(14);
    database.remember();
    database.steps(150);
    database.checkpoint();
    database.steps(50);
    let oldest = database.log.segments()[0];
    assert!(oldest.last <= database.base.revision(), "the history alone needs it");
    let path = database.log.dir().join(oldest.file_name());
    flip(&path, oldest.bytes as usize / 2);
    let error = database.try_backup(&database.path("backup")).expect_err("damaged").to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(error.contains("--no-history"), "{error}");
    database.past = None;
    let made = database.backup();
    let (folder, _) = database.restore(Goal::Newest, None).expect("it needs none of it");
    assert_eq!(database.read(folder.path(), made.newest), database.states[&made.newest]);
}

#[test]
fn a_state_is_restored_without_a_history_that_is_damaged() {
    let mut database = Database::new(16);
    database.remember();
    database.steps(150);
    database.checkpoint();
    database.steps(50);
    let made = database.backup();
    let contents = Contents::read(&database.path("backup")).expect("whole");
    let oldest = format!("log/{}", database.log.segments()[0].file_name());
    let stored = contents.files.iter().find(|file| file.path == oldest).expect("the history");
    let path = database.path("backup").join("files").join(&stored.sha256);
    flip(&path, stored.bytes as usize / 2);
    // A state before the archive's is made of it, so nothing goes on without it.
    let early = Wanted::all(Goal::Revision(Revision(100)));
    for wanted in [Wanted { history: false, ..early.clone() }, early] {
        let error = database.restore_as(&wanted).expect_err("damaged").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(!error.contains("--no-history"), "{error}");
    }
    let all = Wanted::all(Goal::Newest);
    let error = database.restore_as(&all).expect_err("damaged").to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(error.contains("`alcid restore --no-history` goes on without it"), "{error}");
    for wanted in
        [Wanted { history: false, ..all.clone() }, Wanted { branch: Some(b"main".to_vec()), ..all }]
    {
        let (folder, restored) = database.restore_as(&wanted).expect("it needs none of it");
        assert_eq!((restored.revision, restored.oldest), (made.newest, made.newest));
        let expected = &database.states[&made.newest];
        assert_eq!(&database.read(folder.path(), made.newest), expected);
    }
}

/// Makes a backup say of a file that it was `content` when it was copied, as
/// one does that took it as it was.
fn copy_damaged(dir: &Path, sha256: &str, content: &[u8]) -> String {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|it| format!("{it:02x}")).collect() };
    let name = hex(&Sha256::digest(content));
    fs::write(dir.join("files").join(&name), content).expect("ours");
    let path = dir.join(CONTENTS);
    let text = fs::read_to_string(&path).expect("there").replace(sha256, &name);
    let checksum = text.rsplit('"').nth(1).expect("it is last").to_owned();
    let zeros = text.replace(&checksum, &"0".repeat(64));
    let checksum = hex(&Sha256::digest(&zeros));
    fs::write(&path, zeros.replace(&"0".repeat(64), &checksum)).expect("ours");
    name
}

#[test]
fn what_was_damaged_before_it_was_copied_is_found_and_not_restored() {
    let (database, _) = backed_up(15);
    let dir = database.path("backup");
    let text = fs::read(dir.join(CONTENTS)).expect("there");
    let contents = Contents::read(&dir).expect("whole");
    for file in &contents.files {
        let whole = fs::read(dir.join("files").join(&file.sha256)).expect("there");
        for at in [whole.len() / 2, whole.len() - 1] {
            let mut content = whole.clone();
            content[at] ^= 1;
            let name = copy_damaged(&dir, &file.sha256, &content);
            let problems = verify(&dir).expect("there is one").problems;
            // The last byte of `current` says nothing.
            let is_spare = file.path.ends_with("/current") && at == whole.len() - 1;
            if is_spare {
                assert_eq!(problems, [""; 0]);
            } else {
                assert_eq!(problems.len(), 1, "{}: {problems:?}", file.path);
                let about = match file.path.strip_suffix("/current") {
                    // It tells the manifest's checksum, and one of the two is wrong.
                    Some(tree) => format!("{tree}/v"),
                    None => file.path.clone(),
                };
                assert!(problems[0].starts_with(&about), "{problems:?}");
                assert!(problems[0].ends_with("; it was damaged before it was copied"));
                let (to, mut rng) = (database.path("restored"), SeededRng::new(1));
                let all = Wanted::all(Goal::Newest);
                restore(&dir, &to, &all, &database.clock, &mut rng).expect_err("damaged");
                assert!(!to.exists(), "nothing is left of it");
            }
            fs::remove_file(dir.join("files").join(name)).expect("ours");
            fs::write(dir.join(CONTENTS), &text).expect("ours");
        }
    }
    assert_eq!(verify(&dir).expect("whole again").problems, [""; 0]);
}
