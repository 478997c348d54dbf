//! Entries: what the index says about one record and one key.

use base::BranchId;
use keyspace::Merged;
use keyspace::effect::{Effect, EffectError, Effects};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Stands where a key's hash stands, for records that change whole databases.
pub const DATABASE_WIDE: u32 = 0;

/// The same for records that can be taken back, or take another back. They say
/// nothing of keys by that: who reads a key need not read them. A key may have the
/// same.
pub const TAKEN_BACK: u32 = 1;

/// What the index knows of a key. Neither its database nor its branch are in
/// it.
#[must_use]
pub fn key_hash(key: &[u8]) -> u32 {
    ((xxh3_64(key) >> 32) as u32).max(1)
}

/// Stands where a key's hash stands, for records whose branch is another one
/// than that of the record before. A key may have the same.
pub(super) fn branch_hash(branch: BranchId) -> u32 {
    ((xxh3_64_with_seed(&branch.0.to_le_bytes(), 1) >> 32) as u32).max(1)
}

/// A hash, and a revision counted from the segment's first. Entries sort by
/// hash, those of one hash by revision.
pub(super) fn pack(hash: u32, relative: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(relative)
}

pub(super) fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

pub(super) fn relative_of(entry: u64) -> u32 {
    entry as u32
}

/// Calls `each` with the hash of everything that a record's effects change. A
/// hash may come more than once.
pub(super) fn changed(effects: &[u8], mut each: impl FnMut(u32)) -> Result<(), EffectError> {
    for effect in Effects::new(effects) {
        match effect? {
            Effect::Key { key, .. } | Effect::Rename { key, .. } => each(key_hash(key)),
            Effect::Flush { .. } | Effect::Swap { .. } | Effect::Return { .. } => {
                each(DATABASE_WIDE);
            }
            Effect::Merged { row } => {
                let kept = Merged::decode(row).map(|merged| merged.kept).unwrap_or_default();
                kept.iter().for_each(|(_, key)| each(key_hash(key)));
            }
            Effect::Undoable { .. } | Effect::Undone { .. } => each(TAKEN_BACK),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_database_that_changes_is_named() {
        let mut bytes = Vec::new();
        for effect in [
            Effect::Key { key: b"a", existed: Some(true) },
            Effect::Rename { db: 3, key: b"b", replaces: None },
            Effect::Key { key: b"c", existed: None },
            Effect::StrAdd { delta: 1 },
            Effect::Flush { db: 1 },
            Effect::Swap { a: 0, b: 1 },
            Effect::Undone { revision: base::Revision(7) },
            Effect::Undoable { keys: 1, bytes: 2, until_ms: 3 },
        ] {
            effect.encode(&mut bytes);
        }
        let mut hashes = Vec::new();
        changed(&bytes, |hash| hashes.push(hash)).expect("well-formed");
        assert_eq!(hashes, [key_hash(b"a"), key_hash(b"b"), key_hash(b"c"), 0, 0, 1, 1]);
        bytes.push(255);
        assert!(changed(&bytes, |_| ()).is_err());
    }

    #[test]
    fn entries_sort_by_hash_and_then_revision() {
        let entries = [pack(1, u32::MAX), pack(2, 0), pack(2, 1), pack(u32::MAX, 0)];
        assert!(entries.is_sorted());
        assert_eq!((hash_of(entries[0]), relative_of(entries[0])), (1, u32::MAX));
    }
}
