//! Restoring where the past of keys was erased.

use std::path::Path;
use std::sync::Arc;

use archive::backup::{Goal, Wanted};
use archive::{Base, Past, PastOptions};
use base::{BranchId, DbIndex, Revision};
use keyspace::effect::Effect;
use keyspace::{EncodingLimits, Value};

use crate::database::{DATABASES, Database, State, contents, open_log};

const DEV: BranchId = BranchId(1);

fn set<'e>(key: &'e [u8], value: &'e [u8]) -> [Effect<'e>; 2] {
    let set = Effect::StrSet { value, deadline: None };
    [Effect::Key { key, existed: None }, set]
}

/// Erases what a key of database 0 was before it is `value`.
fn purge(database: &Database, branch: BranchId, key: &[u8], value: &[u8]) -> Revision {
    let past = database.past.clone().expect("it is kept");
    let oldest = past.oldest();
    let rule = Effect::Purge { db: 0, key, is_prefix: false, oldest };
    let [named, set] = set(key, value);
    let at = database.append(branch, &[rule, named, Effect::Erase, set]);
    database.checkpoint();
    past.finish_purges(at).expect("it can be erased");
    at
}

/// What is there after the first start of a server on what was restored.
fn start(folder: &Path) -> State {
    let base = Base::open(&folder.join("archive"), 5, 1 << 20).expect("it is whole");
    let log = Arc::new(open_log(&folder.join("log"), base.revision()));
    base.adopt(log.id()).expect("the two belong together");
    let base = Arc::new(base);
    let limits = EncodingLimits::default();
    let options = PastOptions { databases: DATABASES, limits, is_broken: false };
    let past = Past::open(base.clone(), log, options).expect("an empty folder");
    past.finish_purges(base.revision()).expect("there is nothing to be erased");
    contents(&base)
}

/// Compares what is restored with what it should be; some names are very long.
fn check(database: &Database, wanted: &Wanted, expected: &State) {
    let (folder, _) = database.restore_as(wanted).expect("it is there");
    let found = start(folder.path());
    let differs = |key: &&(DbIndex, Vec<u8>)| found.get(*key) != expected.get(*key);
    let wrong: Vec<_> = found.keys().chain(expected.keys()).filter(differs).collect();
    assert!(wrong.is_empty(), "{wanted:?}: {wrong:?}");
}

#[test]
fn what_main_erased_is_what_a_branch_has() {
    let mut database = Database { is_wild: false, ..Database::new(27) };
    database.remember();
    database.steps(60);
    let forked = database.fork(DEV.0, "dev");
    let mut expected = database.states[&Revision(forked.0 - 1)].clone();
    for (key, value) in [(b"a", b"1"), (b"b", b"2")] {
        database.append(DEV, &set(key, value));
        database.append(BranchId::MAIN, &set(key, b"?"));
        expected.insert((0, key.to_vec()), (value.to_vec(), None));
    }
    let at = purge(&database, BranchId::MAIN, b"a", b"!");
    database.steps(60);
    purge(&database, BranchId::MAIN, b"b", b"!");
    database.backup();
    for goal in [Goal::Revision(at), Goal::Newest] {
        let wanted = Wanted { goal, branch: Some(b"dev".to_vec()), prefix: None, history: true };
        check(&database, &wanted, &expected);
    }
}

#[test]
fn what_a_counter_was_in_between_is_forgotten() {
    let mut database = Database { is_wild: false, ..Database::new(31) };
    database.remember();
    let add = [Effect::Key { key: b"n", existed: None }, Effect::StrAdd { delta: 1 }];
    let added: Vec<Revision> = (0..300).map(|_| database.append(BranchId::MAIN, &add)).collect();
    let past = database.past.clone().expect("it is kept");
    let number = |at: Revision| {
        let found = past.key(BranchId::MAIN, at, 0, b"n", None).expect("it can be read");
        found.map(|stored| match stored.value {
            Value::Str(text) => String::from_utf8(text).expect("a number"),
            other => panic!("{other:?}"),
        })
    };
    // Who looks leaves values behind, with which others begin.
    let before = past.stats().memory_bytes;
    assert_eq!(number(added[280]).as_deref(), Some("281"));
    assert!(past.stats().memory_bytes > before);
    purge(&database, BranchId::MAIN, b"n", b"!");
    for at in [200, 280, 299] {
        assert_eq!(number(added[at]), None, "{at}");
    }
}

#[test]
fn what_was_erased_is_in_no_earlier_state() {
    let mut database = Database { is_wild: false, ..Database::new(29) };
    database.remember();
    database.steps(30);
    let forked = database.fork(DEV.0, "dev");
    for (key, value) in [(b"a", b"1"), (b"b", b"2")] {
        database.append(DEV, &set(key, value));
        database.append(BranchId::MAIN, &set(key, value));
    }
    database.checkpoint();
    let (state, later) = (database.base.revision(), database.append(DEV, &set(b"b", b"3")));
    let expected = |revision: Revision, keys: &[(&[u8], &[u8])]| {
        let mut expected = database.states.range(..=revision).next_back().expect("one").1.clone();
        expected.extend(keys.iter().map(|(key, it)| ((0, key.to_vec()), (it.to_vec(), None))));
        expected
    };
    let on_main = expected(later, &[(b"b", b"2")]);
    let on_dev = |b| expected(forked, &[(b"b", b)]);
    let on_dev = [on_dev(b"2"), on_dev(b"3")];
    purge(&database, BranchId::MAIN, b"a", b"!");
    purge(&database, DEV, b"a", b"!");
    database.backup();
    for (at, on_dev) in [state, later].into_iter().zip(&on_dev) {
        for (branch, expected) in
            [(None, &on_main), (Some("main"), &on_main), (Some("dev"), on_dev)]
        {
            let branch = branch.map(|name| name.as_bytes().to_vec());
            let wanted = Wanted { goal: Goal::Revision(at), branch, prefix: None, history: true };
            check(&database, &wanted, expected);
        }
    }
}
