//! States before the archive's, tags and branches, and backups in a row.

use std::fs;
use std::sync::Arc;

use archive::backup::{BackupError, Contents, Goal, Wanted, newest_ms, rotate, verify};
use archive::{Base, PastError};
use base::{BranchId, Revision};
use keyspace::effect::Effect;

use crate::database::{Database, back_up};

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
                assert_eq!(restored.oldest, oldest);
                database.check_past(folder.path(), &restored, 29);
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
        let (folder, restored) =
            database.restore(Goal::Revision(revision), None).expect("it is there");
        assert_eq!(database.read(folder.path(), revision), database.states[&revision]);
        assert_eq!(restored.oldest, Revision::ZERO);
        database.check_past(folder.path(), &restored, 1);
    }
    // Unless it is not wanted, or it is a part.
    let all = Wanted::all(Goal::Newest);
    for wanted in [
        Wanted { history: false, ..all.clone() },
        Wanted { prefix: Some(b"".to_vec()), ..all.clone() },
        Wanted { branch: Some(b"main".to_vec()), ..all },
    ] {
        let (folder, restored) = database.restore_as(&wanted).expect("it is there");
        assert_eq!((restored.revision, restored.oldest), (restored.oldest, database.log.newest()));
        database.check_past(folder.path(), &restored, 1);
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
        history: true,
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
fn the_state_of_a_tag_is_kept_in_memory_like_others() {
    let mut database = Database::new(28);
    database.remember();
    database.steps(60);
    let (branch, revision) = (BranchId::MAIN, Revision::ZERO);
    let tagged = database.declare(&Effect::Tag { name: b"v1", branch, revision, time_ms: 0 });
    database.checkpoint();
    database.steps(60);
    database.checkpoint();
    let past = database.past.clone().expect("it is kept");
    assert!(past.compact(database.base.revision()).expect("files can be changed") > tagged);
    let view = || past.view(BranchId::MAIN, tagged).expect("it has a name");
    assert!(Arc::ptr_eq(&view(), &view()), "made once");
    database.declare(&Effect::TagGone { name: b"v1" });
    database.checkpoint();
    let gone = past.view(BranchId::MAIN, tagged).expect_err("it had a name");
    assert!(matches!(gone, PastError::Compacted { .. }), "{gone}");
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
    assert_eq!(newest_ms(&row, database.log.id()), Some(database.now_ms));
    database.step();
    let second = made(&database, 2);
    assert!((1..=2).contains(&second.made.copied), "{second:?}");
    database.step();
    // What is not ours stays.
    fs::create_dir(row.join("2001-01-01T00-00-00.000Z")).expect("ours");
    fs::write(row.join("2001-01-01T00-00-00.000Z/letter.txt"), "dear").expect("ours");
    // Nor does anybody else's; what was cut short goes.
    let unfinished = |id: [u8; 16]| {
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        row.join(format!("new-{id}-2001-01-01T00-00-00.000Z"))
    };
    let (ours, theirs) = (unfinished(database.log.id()), unfinished([7; 16]));
    [&ours, &theirs].iter().for_each(|dir| fs::create_dir(dir).expect("ours"));
    assert_eq!(newest_ms(&row, [7; 16]), None);
    let third = made(&database, 2);
    assert_eq!((third.kept, third.removed), (2, 1));
    assert!(!first.dir.exists() && second.dir.exists());
    assert!(row.join("2001-01-01T00-00-00.000Z/letter.txt").exists());
    assert!(!ours.exists() && theirs.exists());
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
