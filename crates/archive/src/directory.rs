//! The directory: where the databases of every branch stand, how many keys
//! they have, what is kept of their past, and which revision all of it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, SpaceId, leb128};
use keyspace::{Branches, PastRules, Purge, SHARDS, Spaces};

use crate::codec::{FORM_DIRECTORY, Reader};
use crate::overlay::Overlay;

/// The version this code writes, and the newest it reads. Version 2 has the
/// branches and the rules on the past, which version 1 has not; version 3 what
/// was erased on branches; beside version 4 collections may lie over others.
pub(crate) const FORMAT: u64 = 4;

/// The first version that has branches.
const FORMAT_OF_BRANCHES: u64 = 2;

/// The first version that has what was erased on branches.
const FORMAT_OF_PURGES: u64 = 3;

/// The state of the archive besides the keys themselves. It is written with
/// every batch, in the same run, so it is always that of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The revision that the keys are at.
    pub revision: Revision,
    /// When that transaction ran, in milliseconds since 1970.
    pub time_ms: u64,
    /// The seed that the keys' hashes are made with.
    pub seed: u64,
    /// The log that it follows: no other fits.
    pub database: [u8; 16],
    /// Where databases stand; see [`Directory::spaces_of`] for those that are not
    /// named.
    pub databases: Vec<Database>,
    /// Spaces that no database has any more, whose keys are still to be
    /// erased.
    pub left: Vec<Left>,
    /// Spaces that lie over others.
    pub overlays: Vec<Overlay>,
    /// The branches and tags that there are.
    pub branches: Branches,
    /// What is kept of the past of which keys, and what was erased on main.
    pub rules: Arc<PastRules>,
    /// What was erased on other branches: also before they began anew, or were
    /// deleted, as long as their past can be read.
    pub purged: BTreeMap<BranchId, Arc<PastRules>>,
}

/// A space that no database has any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which.
    pub space: SpaceId,
    /// The batch that found it left.
    pub at: Revision,
    /// How many keys it had.
    pub keys: u64,
}

/// Where a database stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its branch.
    pub branch: BranchId,
    /// Its number.
    pub db: DbIndex,
    /// Where its keys are.
    pub space: SpaceId,
    /// How many keys each shard has.
    pub keys: Box<[u64; SHARDS]>,
}

impl Directory {
    /// That of an empty archive, which follows no log yet.
    #[must_use]
    pub fn empty(seed: u64) -> Directory {
        Directory {
            revision: Revision::ZERO,
            time_ms: 0,
            seed,
            database: [0; 16],
            databases: Vec::new(),
            left: Vec::new(),
            overlays: Vec::new(),
            branches: Branches::default(),
            rules: Arc::default(),
            purged: BTreeMap::new(),
        }
    }

    /// Where a branch's databases stand, and how many keys they have. One that is
    /// not named is empty: of main it stands where it stood at first, and another
    /// branch was made when there were fewer.
    #[must_use]
    pub fn spaces_of(&self, branch: BranchId, databases: DbIndex) -> Spaces {
        let forked = self.branches.get(branch).map(|row| row.forked);
        let unnamed =
            |db| forked.map_or(SpaceId::first_of(db), |forked| SpaceId::added_to(forked, db));
        let mut spaces: Spaces = (0..databases).map(|db| (db, unnamed(db), [0; SHARDS])).collect();
        for database in self.databases.iter().filter(|it| it.branch == branch) {
            if let Some(place) = spaces.get_mut(usize::from(database.db)) {
                *place = (database.db, database.space, *database.keys);
            }
        }
        spaces
    }

    /// The last database of a branch that has keys, if there is one besides the
    /// first `databases`.
    #[must_use]
    pub fn last_beyond(&self, branch: BranchId, databases: DbIndex) -> Option<DbIndex> {
        let has_keys = |it: &&Database| it.keys.iter().any(|&count| count > 0);
        let of_branch =
            self.databases.iter().filter(|it| it.branch == branch && it.db >= databases);
        of_branch.filter(has_keys).map(|it| it.db).max()
    }

    /// What a branch's keyspace knows of what is kept of the past.
    #[must_use]
    pub fn rules_of(&self, branch: BranchId) -> Arc<PastRules> {
        if branch == BranchId::MAIN {
            return self.rules.clone();
        }
        let (Some(purged), Some(row)) = (self.purged.get(&branch), self.branches.get(branch))
        else {
            return Arc::default();
        };
        let is_its_own = |purge: &&Purge| purge.at > row.forked;
        match purged.purges().iter().all(|purge| is_its_own(&purge)) {
            true => purged.clone(),
            false => {
                let own = purged.purges().iter().filter(is_its_own).cloned();
                Arc::new(PastRules::of_purges(own.collect()))
            }
        }
    }

    /// Everything that was erased, with its branch.
    pub fn purges(&self) -> impl Iterator<Item = (BranchId, &Purge)> {
        let of_main = self.rules.purges().iter().map(|purge| (BranchId::MAIN, purge));
        let of_others = self.purged.iter();
        of_main.chain(of_others.flat_map(|(id, it)| it.purges().iter().map(|purge| (*id, purge))))
    }

    /// Keys of all databases.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.databases.iter().flat_map(|database| database.keys.iter()).sum()
    }

    /// Those of the branches that are not deleted.
    #[must_use]
    pub fn keys_there(&self) -> u64 {
        let there = self.databases.iter().filter(|it| !self.branches.is_deleted(it.branch));
        there.flat_map(|database| database.keys.iter()).sum()
    }

    /// See `docs/FORMAT.md`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        leb128::put(&mut out, self.revision.0);
        out.push(FORM_DIRECTORY);
        for number in [FORMAT, self.time_ms, self.seed] {
            leb128::put(&mut out, number);
        }
        out.extend_from_slice(&self.database);
        leb128::put(&mut out, self.databases.len() as u64);
        for Database { branch, db, space, keys } in &self.databases {
            for number in [u64::from(branch.0), u64::from(*db), space.born.0, u64::from(space.db)] {
                leb128::put(&mut out, number);
            }
            keys.iter().for_each(|&count| leb128::put(&mut out, count));
        }
        leb128::put(&mut out, self.left.len() as u64);
        for Left { space, at, keys } in &self.left {
            for number in [space.born.0, u64::from(space.db), at.0, *keys] {
                leb128::put(&mut out, number);
            }
        }
        leb128::put(&mut out, self.overlays.len() as u64);
        for Overlay { space, under, at } in &self.overlays {
            let numbers = [space.born.0, space.db.into(), under.born.0, under.db.into(), at.0];
            numbers.into_iter().for_each(|number| leb128::put(&mut out, number));
        }
        self.branches.encode(&mut out);
        self.rules.encode(&mut out);
        leb128::put(&mut out, self.purged.len() as u64);
        for (branch, rules) in &self.purged {
            leb128::put(&mut out, u64::from(branch.0));
            rules.encode(&mut out);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Directory, DirectoryError> {
        let mut reader = Reader(bytes);
        let revision = Revision(reader.number()?);
        if reader.byte()? != FORM_DIRECTORY {
            return Err(DirectoryError::Malformed("it has the form of something else"));
        }
        let format = reader.number()?;
        if format > FORMAT {
            return Err(DirectoryError::Newer(format));
        }
        let (time_ms, seed) = (reader.number()?, reader.number()?);
        let database = reader.take(16)?.try_into().expect("16 bytes taken");
        let mut databases = Vec::new();
        for _ in 0..reader.number()? {
            let branch = reader.branch()?;
            let db = reader.db()?;
            let space = reader.space()?;
            let mut keys = Box::new([0; SHARDS]);
            for count in keys.iter_mut() {
                *count = reader.number()?;
            }
            databases.push(Database { branch, db, space, keys });
        }
        let mut left = Vec::new();
        for _ in 0..reader.number()? {
            let space = reader.space()?;
            left.push(Left { space, at: Revision(reader.number()?), keys: reader.number()? });
        }
        let (mut overlays, mut branches) = (Vec::new(), Branches::default());
        let (mut rules, mut purged) = (PastRules::default(), BTreeMap::new());
        if format >= FORMAT_OF_BRANCHES {
            for _ in 0..reader.number()? {
                let (space, under) = (reader.space()?, reader.space()?);
                overlays.push(Overlay { space, under, at: Revision(reader.number()?) });
            }
            branches = Branches::take(&mut reader.0)?;
            rules = PastRules::decode(&mut reader.0)?;
        }
        if format >= FORMAT_OF_PURGES {
            for _ in 0..reader.number()? {
                let branch = reader.branch()?;
                purged.insert(branch, Arc::new(PastRules::decode(&mut reader.0)?));
            }
        }
        if !reader.0.is_empty() {
            return Err(DirectoryError::Malformed("bytes after its end"));
        }
        let rules = Arc::new(rules);
        Ok(Directory {
            revision,
            time_ms,
            seed,
            database,
            databases,
            left,
            overlays,
            branches,
            rules,
            purged,
        })
    }
}

/// Why bytes are no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirectoryError {
    Newer(u64),
    Malformed(&'static str),
}

impl From<&'static str> for DirectoryError {
    fn from(what: &'static str) -> DirectoryError {
        DirectoryError::Malformed(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule that keeps nothing of the keys that `c*` matches, made by
    /// revision 7.
    const RULES: &[u8] = &[1, 2, b'c', b'*', 3, 7, 0];

    fn rules() -> Arc<PastRules> {
        Arc::new(PastRules::decode(&mut &RULES[..]).expect("well-formed"))
    }

    /// The key k of database 5 was erased by revision 300.
    const PURGED: &[u8] = &[0, 1, 5, 0, 1, b'k', 0xac, 2];

    fn purged() -> Arc<PastRules> {
        Arc::new(PastRules::decode(&mut &PURGED[..]).expect("well-formed"))
    }

    fn sample() -> Directory {
        let mut keys = Box::new([0; SHARDS]);
        keys[3] = 300;
        let space = SpaceId { born: Revision(70_000), db: 2 };
        Directory {
            revision: Revision(1 << 40),
            time_ms: 1_700_000_000_000,
            seed: u64::MAX,
            database: *b"0123456789abcdef",
            databases: vec![Database { branch: BranchId(7), db: 5, space, keys }],
            left: vec![Left {
                space: SpaceId { born: Revision::ZERO, db: 3 },
                at: Revision(300),
                keys: 1 << 33,
            }],
            overlays: vec![Overlay {
                space,
                under: SpaceId { born: Revision(9), db: 1 },
                at: Revision(69_999),
            }],
            branches: Branches::default(),
            rules: rules(),
            purged: BTreeMap::from([(BranchId(7), purged())]),
        }
    }

    /// [`sample`] with a branch and a tag.
    fn with_branches() -> Directory {
        use keyspace::Branch;
        use keyspace::effect::Effect;

        let row = Branch {
            id: BranchId(7),
            name: b"dev".to_vec(),
            parent: BranchId(2),
            base: Revision(69_999),
            forked: Revision(70_000),
            created_ms: 300,
            created_by: b"ann".to_vec(),
            deadline_ms: Some(299),
            quota_bytes: 0,
            is_readonly: true,
            is_kept: false,
            is_merge_only: true,
            undo_until_ms: None,
        };
        // Its parent was made before, and is gone, but for what it tells of this.
        let parent = Branch { id: BranchId(2), parent: BranchId::MAIN, ..row.clone() };
        let (name, revision, time_ms) = (b"v1", Revision(70_001), 5);
        let origin = Effect::Origin { command: b"tag|create", user: b"ann", address: b"" };
        let records = [
            (1, vec![Effect::Fork { row: &parent.encode(), state: None }]),
            (70_000, vec![Effect::Fork { row: &row.encode(), state: Some(Revision(1)) }]),
            (70_001, vec![origin, Effect::Tag { name, branch: row.id, revision, time_ms }]),
            (70_002, vec![Effect::BranchGone { branch: parent.id }]),
        ]
        .map(|(revision, effects)| {
            let mut bytes = Vec::new();
            effects.iter().for_each(|effect| effect.encode(&mut bytes));
            (Revision(revision), bytes)
        });
        let mut branches = Branches::default();
        for (revision, effects) in records {
            branches.apply(revision, 0, &effects).expect("it fits");
        }
        Directory { branches, ..sample() }
    }

    const OVERLAYS: &[u8] = &[1, 0xf0, 0xa2, 4, 2, 9, 1, 0xef, 0xa2, 4];

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let numbers = [7, 2, 0xf0, 0xa2, 4, 7, 2, 0xef, 0xa2, 4, 0xac, 2, 0xac, 2, 0, 5];
        let branch = [&numbers, &[3][..], b"dev", &[3], b"ann"].concat();
        let of_gone = [1, 2, 0, 0xef, 0xa2, 4, 0xac, 2, 0xac, 2, 0, 13];
        let gone = [&of_gone, &[3][..], b"dev", &[3], b"ann"].concat();
        let tag = [&[1, 2], &b"v1"[..], &[7, 0xf1, 0xa2, 4, 5, 3], b"ann"].concat();
        let bytes = with_branches().encode();
        let head =
            [&[128, 128, 128, 128, 128, 32, 3, 4][..], &[0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31]];
        assert_eq!(bytes[..14], head.concat());
        let mut end = vec![1, 0, 3, 0xac, 2, 128, 128, 128, 128, 32];
        // Nothing was merged.
        end.extend_from_slice(
            &[OVERLAYS, &branch, &gone, &tag, &[0, 0, 0], RULES, &[1, 7], PURGED].concat(),
        );
        assert_eq!(bytes[bytes.len() - end.len()..], end);
        assert_eq!(Directory::decode(&bytes), Ok(with_branches()));
    }

    #[test]
    fn a_branch_knows_what_was_erased_since_it_began() {
        let purge = |at| Purge { db: 5, key: b"k".to_vec(), is_prefix: false, at: Revision(at) };
        let all = [300, 70_000, 70_001].map(purge).to_vec();
        let purged = BTreeMap::from([(BranchId(7), Arc::new(PastRules::of_purges(all)))]);
        let directory = Directory { purged, ..with_branches() };
        assert_eq!(directory.rules_of(BranchId(7)).purges(), [purge(70_001)]);
        assert_eq!(directory.rules_of(BranchId(9)).purges(), []);
        assert_eq!(directory.purges().count(), 3);
    }

    #[test]
    fn survives_the_round_trip() {
        assert_eq!(Directory::decode(&sample().encode()), Ok(sample()));
        assert_eq!(sample().keys(), 300);
    }

    #[test]
    fn the_versions_before_are_read() {
        let mut bytes = with_branches().encode();
        // The revision takes six bytes, the form one.
        assert_eq!(bytes[7], 4);
        bytes[7] = 3;
        assert_eq!(Directory::decode(&bytes), Ok(with_branches()));

        let second = Directory { purged: BTreeMap::new(), ..with_branches() };
        let mut bytes = second.encode();
        assert_eq!(bytes.pop(), Some(0));
        bytes[7] = 2;
        assert_eq!(Directory::decode(&bytes), Ok(second));

        let older = Directory {
            overlays: Vec::new(),
            rules: Arc::default(),
            purged: BTreeMap::new(),
            ..sample()
        };
        let mut bytes = older.encode();
        // No overlays; the last branch's number, no branches, no tags; the last
        // merge's, none made, none open; then the rules, and none of branches.
        let mut newer = vec![0; 7];
        older.rules.encode(&mut newer);
        newer.push(0);
        assert!(bytes.ends_with(&newer));
        bytes.truncate(bytes.len() - newer.len());
        bytes[7] = 1;
        assert_eq!(Directory::decode(&bytes), Ok(older));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let bytes = sample().encode();
        for end in 0..bytes.len() {
            assert!(Directory::decode(&bytes[..end]).is_err(), "{end}");
        }
        assert_eq!(
            Directory::decode(&[bytes, vec![0]].concat()),
            Err(DirectoryError::Malformed("bytes after its end"))
        );
        assert_eq!(
            Directory::decode(&[9, 3, FORMAT as u8 + 1]),
            Err(DirectoryError::Newer(FORMAT + 1))
        );
    }
}
