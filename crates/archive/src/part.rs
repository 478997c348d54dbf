//! A part of a base as a base of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use base::{BranchId, DbIndex, SpaceId};
use keyspace::{Branches, Change, EncodingLimits, Keyspace, SHARDS};

use crate::base_tree::Base;
use crate::codec;
use crate::directory::{Database, Directory};
use crate::error::ArchiveError;
use crate::sorted_run::SortedRun;
use crate::state::{At, State};

/// About so many keys are in memory at once.
const KEYS_AT_ONCE: u64 = 4096;

/// Writes what a branch of `from` has, of the keys that `is_wanted` names, to
/// `to`, which is empty, as its main, and brings it to the same revision.
pub(crate) fn write_part(
    from: &Arc<Base>,
    to: &Base,
    branch: BranchId,
    is_wanted: &dyn Fn(DbIndex, &[u8]) -> bool,
) -> Result<(), ArchiveError> {
    let directory = from.directory();
    if directory.revision == to.revision() {
        return Ok(());
    }
    let state = State::new(from.clone(), At::Newest, EncodingLimits::default());
    let mut standing: Vec<&Database> =
        directory.databases.iter().filter(|it| it.branch == branch).collect();
    standing.sort_by_key(|database| database.db);
    let mut batch = to.batch()?;
    let mut databases = Vec::new();
    for database in standing {
        let (db, space) = (database.db, SpaceId::first_of(database.db));
        let mut place = Vec::new();
        codec::put_space(&mut place, space);
        let mut keys = [0; SHARDS];
        for buckets in buckets(database.keys.iter().sum()) {
            let mut run = SortedRun::new(directory.revision, to.large_from());
            let mut add = |key: &[u8], stored: keyspace::Stored| {
                if is_wanted(db, key) {
                    let hash = keyspace::hash_of(directory.seed, key);
                    keys[Keyspace::shard_of_hash(hash)] += 1;
                    let value = stored.value.as_ref();
                    let (deadline, revision) = (stored.deadline, stored.revision);
                    run.add(&place, hash, key, &Change::Is { value, deadline, revision });
                }
            };
            let read = state.buckets(database.space, &buckets, &mut add);
            read.map_err(|error| ArchiveError::Damaged {
                dir: from.dir().to_owned(),
                what: format!("in space {}: {error}", database.space),
            })?;
            run.write(&mut batch)?;
        }
        if keys.iter().any(|&count| count > 0) {
            databases.push(Database { branch: BranchId::MAIN, db, space, keys: Arc::new(keys) });
        }
    }
    batch.finish(Directory {
        databases,
        left: Vec::new(),
        overlays: Vec::new(),
        branches: Branches::default(),
        begun_with: BTreeMap::new(),
        // It has no past that anything of could be erased.
        rules: Arc::new(directory.rules.without_purges()),
        purged: BTreeMap::new(),
        lapsed: BTreeSet::new(),
        ..(*directory).clone()
    })
}

/// All buckets, in runs with about [`KEYS_AT_ONCE`] of so many keys.
fn buckets(keys: u64) -> impl Iterator<Item = RangeInclusive<u16>> {
    let all = u64::from(u16::MAX) + 1;
    let at_once = (KEYS_AT_ONCE * all / keys.max(1)).clamp(1, all) as usize;
    (0..=u16::MAX).step_by(at_once).map(move |first| {
        let last = usize::from(first) + at_once - 1;
        first..=u16::try_from(last).unwrap_or(u16::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_is_in_one_run() {
        for keys in [0, 1, 5000, 1 << 20, 1 << 40] {
            let mut next = 0;
            for run in buckets(keys) {
                assert_eq!(u32::from(*run.start()), next);
                next = u32::from(*run.end()) + 1;
            }
            assert_eq!(next, 1 << 16, "{keys} keys");
        }
        assert_eq!(buckets(5000).count(), 2);
    }
}
