//! The directory: where the databases of every branch stand, how many keys
//! they have, what is kept of their past, and which revision all of it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, SpaceId, leb128};
use keyspace::{Backing, Branches, Keyspace, PastRules, Purge, SHARDS, Spaces};

use crate::codec::{FORM_DIRECTORY, Reader};
use crate::overlay::Overlay;

/// The version this code writes, and the newest it reads. Version 2 has the
/// branches and the rules on the past, which version 1 has not; version 3 what
/// was erased on branches; beside version 4 collections may lie over others;
/// version 5 is compressed, says of counts only where they differ, and how many
/// databases branches were given; version 6, which is written where there are any,
/// names the states that have lapsed.
pub(crate) const FORMAT: u64 = 6;

/// The first version that has branches.
const FORMAT_OF_BRANCHES: u64 = 2;

/// The first version that has what was erased on branches.
const FORMAT_OF_PURGES: u64 = 3;

/// The first version that is compressed.
const FORMAT_OF_COMPRESSION: u64 = 5;

/// The first version that has states that have lapsed.
const FORMAT_OF_LAPSES: u64 = 6;

/// So many bytes and more are compressed.
const COMPRESSED_FROM: usize = 512;

/// Whether what follows the head is compressed.
const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// LZ4 makes no more of a byte.
const LZ4_RATIO_MAX: usize = 255;

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
    /// How many databases the branches were given by the revision that made
    /// them, or let them begin anew. One that is not here was made by a build that
    /// named all of them.
    pub begun_with: BTreeMap<BranchId, DbIndex>,
    /// What is kept of the past of which keys, and what was erased on main.
    pub rules: Arc<PastRules>,
    /// What was erased on other branches: also before they began anew, or were
    /// deleted, as long as their past can be read.
    pub purged: BTreeMap<BranchId, Arc<PastRules>>,
    /// States that branches and tags name, and that cannot be read: what only they
    /// needed was left out while nothing named them, before the archive was taken
    /// back to a time when something did. Some of it may be there.
    pub lapsed: BTreeSet<Revision>,
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
    pub keys: Arc<[u64; SHARDS]>,
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
            begun_with: BTreeMap::new(),
            rules: Arc::default(),
            purged: BTreeMap::new(),
            lapsed: BTreeSet::new(),
        }
    }

    /// States that stay readable however old they are; some may be none of the
    /// archive's own.
    #[must_use]
    pub fn named_states(&self) -> BTreeSet<Revision> {
        named_states(&self.branches, &self.lapsed)
    }

    /// Where a branch's database stands if it is not named, which is to say that it
    /// is empty: where it stood at first.
    pub(crate) fn unnamed(&self, branch: BranchId, db: DbIndex) -> SpaceId {
        let begun_with = self.begun_with.get(&branch).copied().unwrap_or(0);
        match self.branches.get(branch).map(|row| row.forked) {
            None => SpaceId::first_of(db),
            Some(born) if db < begun_with => SpaceId { born, db },
            Some(forked) => SpaceId::added_to(forked, db),
        }
    }

    /// Where a branch's database stands; `None` if there is no such branch.
    pub(crate) fn space_of(&self, branch: BranchId, db: DbIndex) -> Option<SpaceId> {
        let found = self.databases.iter().find(|it| (it.branch, it.db) == (branch, db));
        let is_there = || self.branches.name_of(branch).is_some();
        match found {
            Some(database) => Some(database.space),
            None => is_there().then(|| self.unnamed(branch, db)),
        }
    }

    /// Where a branch's databases stand, and how many keys they have.
    #[must_use]
    pub fn spaces_of(&self, branch: BranchId, databases: DbIndex) -> Spaces {
        let mut spaces: Spaces =
            (0..databases).map(|db| (db, self.unnamed(branch, db), [0; SHARDS])).collect();
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

    /// Lets an empty keyspace be filled from `backing` with what a branch has.
    pub fn back<B: Backing + 'static>(
        &self,
        branch: BranchId,
        keyspace: &Keyspace,
        backing: &Arc<B>,
    ) {
        for (db, space, keys) in self.spaces_of(branch, keyspace.databases()) {
            if space != SpaceId::first_of(db) || keys.iter().any(|&count| count > 0) {
                keyspace.back(backing.clone(), db, space, &keys);
            }
        }
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
        let format = if self.lapsed.is_empty() { FORMAT_OF_LAPSES - 1 } else { FORMAT };
        leb128::put(&mut out, format);
        let body = self.body();
        if body.len() < COMPRESSED_FROM {
            out.push(PLAIN);
            out.extend_from_slice(&body);
        } else {
            out.push(LZ4);
            leb128::put(&mut out, body.len() as u64);
            out.extend_from_slice(&lz4_flex::block::compress(&body));
        }
        out
    }

    /// What follows the head, not compressed.
    fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        leb128::put(&mut out, self.time_ms);
        leb128::put(&mut out, self.seed);
        out.extend_from_slice(&self.database);
        leb128::put(&mut out, self.databases.len() as u64);
        let mut before: BTreeMap<DbIndex, &[u64; SHARDS]> = BTreeMap::new();
        for Database { branch, db, space, keys } in &self.databases {
            for number in [u64::from(branch.0), u64::from(*db), space.born.0, u64::from(space.db)] {
                leb128::put(&mut out, number);
            }
            let before = before.insert(*db, keys).unwrap_or(&[0; SHARDS]);
            let differ =
                || (0_u8..).zip(keys.iter().zip(before)).filter(|(_, (now, it))| now != it);
            leb128::put(&mut out, differ().count() as u64);
            for (shard, (&count, _)) in differ() {
                out.push(shard);
                leb128::put(&mut out, count);
            }
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
        for branch in self.branches.iter() {
            let begun_with = self.begun_with.get(&branch.id).copied().unwrap_or(0);
            leb128::put(&mut out, begun_with.into());
        }
        if !self.lapsed.is_empty() {
            leb128::put(&mut out, self.lapsed.len() as u64);
            self.lapsed.iter().for_each(|state| leb128::put(&mut out, state.0));
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
        if format < FORMAT_OF_COMPRESSION {
            return Directory::decode_body(revision, format, reader);
        }
        match reader.byte()? {
            PLAIN => Directory::decode_body(revision, format, reader),
            LZ4 => {
                let len = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
                if len > reader.0.len().saturating_mul(LZ4_RATIO_MAX) {
                    return Err(DirectoryError::Malformed("it is shorter than it says"));
                }
                let body = lz4_flex::block::decompress(reader.0, len)
                    .map_err(|_| DirectoryError::Malformed("it cannot be decompressed"))?;
                if body.len() != len {
                    return Err(DirectoryError::Malformed("it is shorter than it says"));
                }
                Directory::decode_body(revision, format, Reader(&body))
            }
            _ => Err(DirectoryError::Malformed("it is compressed in an unknown way")),
        }
    }

    /// What follows the head, not compressed.
    fn decode_body(
        revision: Revision,
        format: u64,
        mut reader: Reader<'_>,
    ) -> Result<Directory, DirectoryError> {
        let (time_ms, seed) = (reader.number()?, reader.number()?);
        let database = reader.take(16)?.try_into().expect("16 bytes taken");
        let mut databases = Vec::new();
        let mut before: BTreeMap<DbIndex, Arc<[u64; SHARDS]>> = BTreeMap::new();
        for _ in 0..reader.number()? {
            let branch = reader.branch()?;
            let db = reader.db()?;
            let space = reader.space()?;
            let keys = if format < FORMAT_OF_COMPRESSION {
                Arc::new(every_count(&mut reader)?)
            } else {
                let before = before.entry(db).or_insert_with(|| Arc::new([0; SHARDS]));
                change_counts(before, &mut reader)?;
                before.clone()
            };
            databases.push(Database { branch, db, space, keys });
        }
        let mut left = Vec::new();
        for _ in 0..reader.number()? {
            let space = reader.space()?;
            left.push(Left { space, at: Revision(reader.number()?), keys: reader.number()? });
        }
        let (mut overlays, mut branches) = (Vec::new(), Branches::default());
        let (mut rules, mut purged) = (PastRules::default(), BTreeMap::new());
        let mut begun_with = BTreeMap::new();
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
        if format >= FORMAT_OF_COMPRESSION {
            for branch in branches.iter() {
                let databases = reader.db()?;
                if databases > 0 {
                    begun_with.insert(branch.id, databases);
                }
            }
        }
        let mut lapsed = BTreeSet::new();
        if format >= FORMAT_OF_LAPSES {
            for _ in 0..reader.number()? {
                lapsed.insert(Revision(reader.number()?));
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
            begun_with,
            rules,
            purged,
            lapsed,
        })
    }
}

/// See [`Directory::named_states`].
pub(crate) fn named_states(branches: &Branches, lapsed: &BTreeSet<Revision>) -> BTreeSet<Revision> {
    branches.pins().filter(|pin| !lapsed.contains(pin)).collect()
}

/// The counts of all shards.
fn every_count(reader: &mut Reader<'_>) -> Result<[u64; SHARDS], &'static str> {
    let mut keys = [0; SHARDS];
    for count in &mut keys {
        *count = reader.number()?;
    }
    Ok(keys)
}

/// The counts of shards where they differ. Where none does, they are shared.
fn change_counts(
    keys: &mut Arc<[u64; SHARDS]>,
    reader: &mut Reader<'_>,
) -> Result<(), &'static str> {
    for _ in 0..reader.number()? {
        let shard = usize::from(reader.byte()?);
        let count = Arc::make_mut(keys).get_mut(shard).ok_or("a shard that there is not")?;
        *count = reader.number()?;
    }
    Ok(())
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
        let mut keys = [0; SHARDS];
        keys[3] = 300;
        let keys = Arc::new(keys);
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
            begun_with: BTreeMap::new(),
            rules: rules(),
            purged: BTreeMap::from([(BranchId(7), purged())]),
            lapsed: BTreeSet::new(),
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
        Directory { branches, begun_with: BTreeMap::from([(BranchId(7), 16)]), ..sample() }
    }

    const OVERLAYS: &[u8] = &[1, 0xf0, 0xa2, 4, 2, 9, 1, 0xef, 0xa2, 4];

    /// The bytes of a sample that has one database, in a format before 5.
    fn as_before(directory: &Directory, format: u8) -> Vec<u8> {
        let mut out = Vec::new();
        leb128::put(&mut out, directory.revision.0);
        out.extend_from_slice(&[FORM_DIRECTORY, format]);
        leb128::put(&mut out, directory.time_ms);
        leb128::put(&mut out, directory.seed);
        out.extend_from_slice(&directory.database);
        let [database] = &directory.databases[..] else { panic!("a sample") };
        out.extend_from_slice(&[1, 7, 5, 0xf0, 0xa2, 4, 2]);
        database.keys.iter().for_each(|&count| leb128::put(&mut out, count));
        out.extend_from_slice(LEFT);
        if format >= 2 {
            out.extend_from_slice(OVERLAYS);
            directory.branches.encode(&mut out);
            directory.rules.encode(&mut out);
        }
        if format >= 3 {
            out.extend_from_slice(&[&[1, 7], PURGED].concat());
        }
        out
    }

    const LEFT: &[u8] = &[1, 0, 3, 0xac, 2, 128, 128, 128, 128, 32];

    #[test]
    fn the_bytes_are_those_of_the_document() {
        let numbers = [7, 2, 0xf0, 0xa2, 4, 7, 2, 0xef, 0xa2, 4, 0xac, 2, 0xac, 2, 0, 5];
        let branch = [&numbers, &[3][..], b"dev", &[3], b"ann"].concat();
        let of_gone = [1, 2, 0, 0xef, 0xa2, 4, 0xac, 2, 0xac, 2, 0, 13];
        let gone = [&of_gone, &[3][..], b"dev", &[3], b"ann"].concat();
        let tag = [&[1, 2], &b"v1"[..], &[7, 0xf1, 0xa2, 4, 5, 3], b"ann"].concat();
        let bytes = with_branches().encode();
        let head = [128, 128, 128, 128, 128, 32, 3, 5, 0];
        let time = [0x80, 0xd0, 0x95, 0xff, 0xbc, 0x31];
        assert_eq!(bytes[..15], [&head[..], &time].concat());
        // Of the 64 shards only one has other than no keys.
        let database = [1, 7, 5, 0xf0, 0xa2, 4, 2, 1, 3, 0xac, 2];
        let merges = [0, 0, 0];
        let purged = [&[1, 7], PURGED].concat();
        let begun_with = [16];
        let end = [
            &database[..],
            LEFT,
            OVERLAYS,
            &branch,
            &gone,
            &tag,
            &merges,
            RULES,
            &purged,
            &begun_with,
        ];
        let end = end.concat();
        assert_eq!(bytes[bytes.len() - end.len()..], end);
        assert_eq!(Directory::decode(&bytes), Ok(with_branches()));
    }

    /// [`sample`] with so many databases, of which those with even numbers have
    /// the same counts.
    fn of_many(databases: DbIndex) -> Directory {
        let [Database { branch, space, keys, .. }] = &sample().databases[..] else {
            panic!("a sample")
        };
        let row = |n: DbIndex| {
            let mut keys = keys.clone();
            if !n.is_multiple_of(2) {
                *Arc::make_mut(&mut keys) = [1000 + u64::from(n % 3); SHARDS];
            }
            let space = SpaceId { born: Revision(u64::from(n)), ..*space };
            Database { branch: *branch, db: n % 4, space, keys }
        };
        Directory { databases: (0..databases).map(row).collect(), ..sample() }
    }

    #[test]
    fn what_is_long_is_compressed() {
        let directory = of_many(400);
        let bytes = directory.encode();
        // The revision takes six bytes.
        assert_eq!(bytes[6..9], [FORM_DIRECTORY, 5, LZ4]);
        let body = directory.body();
        assert!(bytes.len() < body.len() / 2, "{} of {}", bytes.len(), body.len());
        let mut len = Vec::new();
        leb128::put(&mut len, body.len() as u64);
        assert_eq!(bytes[9..9 + len.len()], len);
        let stored = &bytes[9 + len.len()..];
        let decompressed = lz4_flex::block::decompress(stored, body.len());
        assert_eq!(decompressed.expect("well-formed"), body);

        let read = Directory::decode(&bytes).expect("well-formed");
        assert_eq!(read, directory);
        assert!(Arc::ptr_eq(&read.databases[0].keys, &read.databases[396].keys), "they share them");
        assert_eq!(Directory::decode(&of_many(1).encode()), Ok(of_many(1)));
    }

    #[test]
    fn a_database_that_is_not_named_stands_where_it_did_at_first() {
        let directory = with_branches();
        let (dev, main) = (BranchId(7), BranchId::MAIN);
        let born = Revision(70_000);
        assert_eq!(directory.space_of(dev, 5), Some(SpaceId { born, db: 2 }));
        assert_eq!(directory.space_of(dev, 15), Some(SpaceId { born, db: 15 }));
        assert_eq!(directory.space_of(dev, 16), Some(SpaceId::added_to(born, 16)));
        assert_eq!(directory.space_of(main, 16), Some(SpaceId::first_of(16)));
        assert_eq!(directory.space_of(BranchId(2), 0), None, "it is gone");
        // A build before this named all.
        let before = Directory { begun_with: BTreeMap::new(), ..directory };
        assert_eq!(before.space_of(dev, 15), Some(SpaceId::added_to(born, 15)));
        let spaces = before.spaces_of(dev, 7);
        assert_eq!(spaces[5], (5, SpaceId { born, db: 2 }, *before.databases[0].keys));
        assert_eq!(spaces[6], (6, SpaceId::added_to(born, 6), [0; SHARDS]));
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

    /// [`with_branches`], whose branch begins with a state that cannot be read.
    fn with_a_lapse() -> Directory {
        Directory { lapsed: BTreeSet::from([Revision(70_000)]), ..with_branches() }
    }

    #[test]
    fn what_has_lapsed_stands_at_the_end() {
        let (before, after) = (with_branches().encode(), with_a_lapse().encode());
        let format = before.len() - with_branches().body().len() - 2;
        assert_eq!((before[format], after[format]), (5, 6));
        assert_eq!(after[format + 1..], [&before[format + 1..], &[1, 0xf0, 0xa2, 4]].concat());
        let named = |directory: Directory| directory.named_states().into_iter().collect::<Vec<_>>();
        assert_eq!(named(with_branches()), [70_000, 70_001].map(Revision));
        assert_eq!(named(with_a_lapse()), [Revision(70_001)]);
    }

    #[test]
    fn survives_the_round_trip() {
        assert_eq!(Directory::decode(&with_a_lapse().encode()), Ok(with_a_lapse()));
        assert_eq!(Directory::decode(&sample().encode()), Ok(sample()));
        assert_eq!(sample().keys(), 300);
    }

    #[test]
    fn the_versions_before_are_read() {
        let mut before = Directory { begun_with: BTreeMap::new(), ..with_branches() };
        for format in [4, 3] {
            assert_eq!(Directory::decode(&as_before(&before, format)), Ok(before.clone()));
        }
        before.purged = BTreeMap::new();
        assert_eq!(Directory::decode(&as_before(&before, 2)), Ok(before));

        let older = Directory {
            overlays: Vec::new(),
            rules: Arc::default(),
            purged: BTreeMap::new(),
            ..sample()
        };
        assert_eq!(Directory::decode(&as_before(&older, 1)), Ok(older));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        for directory in [sample(), of_many(400), with_a_lapse()] {
            let bytes = directory.encode();
            for end in 0..bytes.len() {
                assert!(Directory::decode(&bytes[..end]).is_err(), "{end}");
            }
            assert!(Directory::decode(&[bytes, vec![0]].concat()).is_err());
        }
        let refused = |bytes: &[u8], what| {
            assert_eq!(Directory::decode(bytes), Err(DirectoryError::Malformed(what)));
        };
        refused(&[sample().encode(), vec![0]].concat(), "bytes after its end");
        refused(&[9, 3, 5, 2, 0], "it is compressed in an unknown way");
        refused(&[9, 3, 5, 1, 255, 255, 255, 255, 15, 0], "it is shorter than it says");
        let mut bytes = sample().encode();
        let shard = bytes.windows(4).position(|it| it == [1, 3, 0xac, 2]).expect("its count") + 1;
        bytes[shard] = SHARDS as u8;
        refused(&bytes, "a shard that there is not");
        assert_eq!(
            Directory::decode(&[9, 3, FORMAT as u8 + 1]),
            Err(DirectoryError::Newer(FORMAT + 1))
        );
    }
}
