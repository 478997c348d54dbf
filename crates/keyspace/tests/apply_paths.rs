//! The commonest record, one string, is applied by a path of its own: it must
//! leave the same as the general one, which is taken when there is any effect
//! more.

use base::{DbIndex, Revision, Rng, SeededRng};
use keyspace::effect::Effect;
use keyspace::{
    ApplyError, Buffers, EncodingLimits, Journal, Keyspace, SHARDS, Scope, Txn, TxnOptions,
};

const DATABASES: DbIndex = 2;
const NOW_MS: u64 = 1_700_000_000_000;

struct Nowhere;

impl Journal for Nowhere {
    fn reserve(&self) -> Revision {
        unreachable!("what only reads changes nothing")
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}
}

/// Everything that can be seen of a keyspace, what it looks up included.
fn seen(keyspace: &Keyspace) -> Vec<String> {
    let limits = EncodingLimits::default();
    let options = TxnOptions {
        now_ms: NOW_MS,
        limits: &limits,
        event_classes: 0,
        always_record: false,
        expire: false,
        touch: false,
    };
    let begin = |scope: &Scope, look: &mut dyn FnMut(&mut Txn<'_>)| {
        let mut buffers = Buffers::default();
        let mut txn = Txn::begin(keyspace, scope, &Nowhere, &mut buffers, options);
        look(&mut txn);
        txn.finish().depends_on
    };
    let mut all = vec![format!("{:?} {}", keyspace.statistics(), keyspace.memory_bytes())];
    begin(&Scope::All, &mut |txn| {
        for db in 0..DATABASES {
            txn.select(db);
            txn.scan(0, usize::MAX, &mut |key, value| {
                let payload = keyspace::dump::encode(value);
                all.push(format!("{db} {key:?} {payload:?} {:?}", txn.info(key)));
            });
        }
    });
    // What a miss depends on, and what a look at all depends on.
    let missing = |key: &[u8]| {
        let scope = Scope::Shards([keyspace.shard_of(key)].into_iter().collect());
        begin(&scope, &mut |txn| assert!(!txn.contains(key)))
    };
    let mut shards = vec![None; SHARDS];
    for number in 0..2000 {
        let key = format!("missing-{number}").into_bytes();
        let shard = keyspace.shard_of(&key);
        shards[shard].get_or_insert_with(|| missing(&key));
    }
    all.push(format!("{shards:?} {}", begin(&Scope::All, &mut |txn| _ = txn.len())));
    keyspace.check().expect("sums and indices agree");
    all
}

struct Pair {
    special: Keyspace,
    general: Keyspace,
    revision: Revision,
    applied: u32,
    refused: u32,
}

impl Pair {
    /// Applies a record to one keyspace, and to the other with an effect more
    /// that does nothing.
    fn apply(&mut self, time_ms: u64, db: DbIndex, effects: &[Effect<'_>]) {
        self.revision = self.revision.next();
        let mut bytes = Vec::new();
        effects.iter().for_each(|effect| effect.encode(&mut bytes));
        let limits = EncodingLimits::default();
        let apply = |keyspace: &Keyspace, bytes: &[u8]| {
            let mut buffers = Buffers::default();
            let result = keyspace.apply(self.revision, time_ms, db, bytes, &limits, &mut buffers);
            assert!(buffers.effects().is_empty() && !buffers.has_events());
            assert!(buffers.take_garbage().is_empty());
            result.map_err(|error: ApplyError| error.to_string())
        };
        let special = apply(&self.special, &bytes);
        Effect::Database(0).encode(&mut bytes);
        let general = apply(&self.general, &bytes);
        assert_eq!(special, general, "{effects:?} in {db}");
        if special.is_ok() {
            self.applied += 1;
        } else {
            self.refused += 1;
        }
    }
}

#[test]
fn the_path_for_one_string_leaves_what_the_general_one_leaves() {
    let (mut applied, mut refused) = (0, 0);
    for seed in 1..=30 {
        let mut rng = SeededRng::new(seed);
        let special = Keyspace::new(DATABASES, seed);
        let general = special.empty_like();
        let mut pair = Pair { special, general, revision: Revision::ZERO, applied: 0, refused: 0 };
        for step in 0..300 {
            let key = format!("key{}", rng.below(12)).into_bytes();
            let existed = [None, None, Some(false), Some(true)][rng.below(4) as usize];
            let db = rng.below(u64::from(DATABASES) + 1) as DbIndex;
            let name = Effect::Key { key: &key, existed };
            let time_ms = NOW_MS + 1000 * rng.below(3);
            let len =
                [0, 3, 4, 32, 100, entry::INLINE_BYTES_MAX, entry::INLINE_BYTES_MAX + 1, 5000];
            let value = vec![rng.below(256) as u8; len[rng.below(8) as usize]];
            let deadline = [None, Some(NOW_MS), Some(NOW_MS + 5)][rng.below(3) as usize];
            let change = match rng.below(12) {
                // What a string may be put over; these take the general path.
                0 => Effect::SetAdd { member: &value },
                1 => Effect::ListPushBack { value: &value },
                2 => Effect::StrWrite { offset: rng.below(8), bytes: &value },
                3 => Effect::Delete(keyspace::effect::Cause::Client),
                _ => Effect::StrSet { value: &value, deadline },
            };
            pair.apply(time_ms, db, &[name, change]);
            if step % 20 == 0 {
                assert_eq!(seen(&pair.special), seen(&pair.general), "seed {seed}, step {step}");
            }
        }
        assert_eq!(seen(&pair.special), seen(&pair.general), "seed {seed}");
        applied += pair.applied;
        refused += pair.refused;
    }
    assert!(applied > 3000 && refused > 1000, "{applied} applied, {refused} refused");
}
