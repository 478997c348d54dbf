//! What a transaction could have read, its reply depends on.

use std::sync::atomic::{AtomicU64, Ordering};

use base::{DbIndex, Revision, SeededRng};
use keyspace::{Buffers, EncodingLimits, Finished, Journal, Keyspace, Scope, Txn, TxnOptions};

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

    let looks: [fn(&Txn<'_>); 4] = [
        |txn| assert_eq!(txn.scan(0, 100, &mut |_, _| {}), 0),
        |txn| assert_eq!(txn.len(), 1),
        |txn| assert_eq!(txn.statistics().len(), 1),
        |txn| assert!(txn.random_key(&mut SeededRng::new(1)).is_some()),
    ];
    for (case, look) in looks.into_iter().enumerate() {
        let finished = run(&keyspace, &journal, &Scope::Sliced, |txn| look(txn));
        assert_eq!(finished.depends_on, Revision(1), "look {case}");
        assert_eq!(finished.written, None, "look {case}");
    }
    let idle = run(&keyspace, &journal, &Scope::Sliced, |_| {});
    assert_eq!(idle.depends_on, Revision::ZERO);
}
