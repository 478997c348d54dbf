//! What a transaction could have read, its reply depends on.

use std::sync::atomic::{AtomicU64, Ordering};

use base::{DbIndex, Revision, SeededRng};
use keyspace::types::Hash;
use keyspace::{
    Buffers, Editor, EncodingLimits, Finished, Journal, Keyspace, Scope, Txn, TxnOptions,
};

#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Journal for Counter {
    fn reserve(&self) -> Revision {
        Revision(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

fn run(
    keyspace: &Keyspace,
    journal: &Counter,
    scope: &Scope,
    act: impl FnOnce(&mut Txn<'_>),
) -> Finished {
    let limits = EncodingLimits::default();
    let options = TxnOptions {
        now_ms: 1,
        limits: &limits,
        event_classes: 0,
        always_record: false,
        expire: true,
        touch: false,
    };
    let mut buffers = Buffers::default();
    let mut txn = Txn::begin(keyspace, scope, journal, &mut buffers, options);
    act(&mut txn);
    txn.finish()
}

#[test]
fn a_sliced_read_depends_on_what_it_saw() {
    let keyspace = Keyspace::new(1, 5);
    let journal = Counter::default();
    let key = Scope::Shards([keyspace.shard_of(b"k")].into_iter().collect());
    let written = run(&keyspace, &journal, &key, |txn| txn.set_string(b"k", b"v", None)).written;
    assert_eq!(written, Some(Revision(1)));

    let looks: [fn(&mut Txn<'_>); 4] = [
        |txn| assert_eq!(txn.scan(0, 100, &mut |_, _| {}), Ok(0)),
        |txn| assert_eq!(txn.len(), 1),
        |txn| assert_eq!(txn.statistics().len(), 1),
        |txn| assert!(txn.random_key(&mut SeededRng::new(1)).unwrap().is_some()),
    ];
    for (case, look) in looks.into_iter().enumerate() {
        let finished = run(&keyspace, &journal, &Scope::Sliced, look);
        assert_eq!(finished.depends_on, Revision(1), "look {case}");
        assert_eq!(finished.written, None, "look {case}");
    }
    let idle = run(&keyspace, &journal, &Scope::Sliced, |_| {});
    assert_eq!(idle.depends_on, Revision::ZERO);
}

/// A shard with three keys: written first, written later, and one removed last.
fn three_keys(keyspace: &Keyspace, journal: &Counter) {
    for key in [b"old".as_slice(), b"new", b"gone"] {
        run(keyspace, journal, &Scope::All, |txn| txn.set_string(key, b"1", None));
    }
    run(keyspace, journal, &Scope::All, |txn| assert!(txn.delete(b"gone")));
}

#[test]
fn a_read_depends_on_its_keys_last_change_and_no_other() {
    /// Answers whether there is a key.
    type Look = fn(&mut Txn<'_>, &[u8]) -> bool;
    let looks: [(&str, Look); 10] = [
        ("get", |txn, key| txn.get(key).is_some()),
        ("get_in", |txn, key| txn.get_in(0, key).is_some()),
        ("look", |txn, key| txn.look(key).is_some()),
        ("contains", |txn, key| txn.contains(key)),
        ("string", |txn, key| txn.string(key).is_ok_and(|string| string.is_some())),
        // Of another type.
        ("collection", |txn, key| txn.collection::<Hash>(key).is_err()),
        ("info", |txn, key| txn.info(key).is_some()),
        ("deadline", |txn, key| txn.deadline(key).is_some()),
        ("update", |txn, key| {
            txn.update(key, |hash: &mut Editor<'_, '_, Hash>| hash.len()).is_err()
        }),
        ("idle", |_, _| false),
    ];
    for (name, look) in looks {
        let keyspace = Keyspace::new(1, 5);
        let journal = Counter::default();
        three_keys(&keyspace, &journal);
        for (key, revision) in [(b"old".as_slice(), 1), (b"new", 2), (b"gone", 4), (b"none", 4)] {
            let scope = Scope::Shards([keyspace.shard_of(key)].into_iter().collect());
            let mut found = false;
            let finished = run(&keyspace, &journal, &scope, |txn| found = look(txn, key));
            assert_eq!(found, name != "idle" && revision < 4, "{name}");
            // Nothing was ever removed from the shards of other keys.
            let same_shard = keyspace.shard_of(key) == keyspace.shard_of(b"gone");
            let expected = match (name, key) {
                ("idle", _) => 0,
                (_, b"none") if !same_shard => 0,
                _ => revision,
            };
            let shown = String::from_utf8_lossy(key);
            assert_eq!(finished.depends_on, Revision(expected), "{name} {shown}");
            assert_eq!(finished.written, None, "{name} {shown}");
        }
    }
}

#[test]
fn what_changes_nothing_depends_on_what_it_met() {
    type Attempt = fn(&mut Txn<'_>);
    let attempts: [(&str, Attempt, u64); 6] = [
        ("delete", |txn| assert!(!txn.delete(b"gone")), 4),
        ("set_deadline", |txn| assert!(!txn.set_deadline(b"gone", None)), 4),
        ("rename", |txn| assert!(!txn.rename(b"gone", 0, b"x")), 4),
        ("rename to itself", |txn| assert!(txn.rename(b"old", 0, b"old")), 1),
        (
            "update",
            |txn| {
                let updated = txn.update(b"gone", |hash: &mut Editor<'_, '_, Hash>| hash.len());
                assert_eq!(updated, Ok(None));
            },
            4,
        ),
        ("scan", |txn| assert_eq!(txn.scan(0, 100, &mut |_, _| {}), Ok(0)), 4),
    ];
    for (name, attempt, revision) in attempts {
        let keyspace = Keyspace::new(1, 5);
        let journal = Counter::default();
        three_keys(&keyspace, &journal);
        let finished = run(&keyspace, &journal, &Scope::All, attempt);
        assert_eq!(finished.depends_on, Revision(revision), "{name}");
        assert_eq!(finished.written, None, "{name}");
    }
}

#[test]
fn an_edit_that_changes_nothing_depends_on_the_collection() {
    let keyspace = Keyspace::new(1, 5);
    let journal = Counter::default();
    for key in [b"h".as_slice(), b"other"] {
        run(&keyspace, &journal, &Scope::All, |txn| {
            txn.update_or_create(key, |hash: &mut Editor<'_, '_, Hash>| hash.set(b"f", b"v"))
                .expect("there is no key of another type");
        });
    }
    let finished = run(&keyspace, &journal, &Scope::All, |txn| {
        let removed = txn.update(b"h", |hash: &mut Editor<'_, '_, Hash>| hash.remove(b"x"));
        assert_eq!(removed, Ok(Some(false)));
    });
    assert_eq!((finished.depends_on, finished.written), (Revision(1), None));
    let flushed = run(&keyspace, &journal, &Scope::All, |txn| txn.flush(0));
    let finished = run(&keyspace, &journal, &Scope::All, |txn| assert!(!txn.contains(b"h")));
    assert_eq!(Some(finished.depends_on), flushed.written);
}
