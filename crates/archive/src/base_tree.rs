//! The base: the state of every key at one revision, in an LSM tree.
//!
//! A batch is one *ingestion*: a sorted run written straight into table files
//! and made part of the tree by one atomic change of its manifest, with the
//! directory among its entries. So the base stands at exactly one revision,
//! whenever the process ends. The tree's memtable stays empty and it has no
//! journal: our log is the journal. `docs/decisions/0003-archive-base.md` has
//! the measurements.
//!
//! The tree orders versions of an entry by a sequence number, and the number
//! of a batch is the revision it reaches: a read at revision R sees the newest
//! batch at or before R, as long as compaction has kept it.

mod claims;
mod snapshot;
mod tables;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Revision, SpaceId};
use keyspace::{Branches, Stored};
use log::{RealVfs, Vfs, VfsLock};
use lsm_tree::compaction::Leveled;
use lsm_tree::config::CompressionPolicy;
use lsm_tree::table::filter::standard_bloom::Builder;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, CompressionType, Config, DescriptorTable, Guard, SeqNo,
    SequenceNumberCounter, Tree, UserValue,
};
use parking_lot::{Mutex, RwLock};

use crate::ahead::{Ahead, Awaited};
use crate::codec::{self, DIRECTORY};
use crate::compaction::{Bound, Bounds, Erasure, Erasures, GoBack, Judges};
use crate::directory::{Directory, DirectoryError, FORMAT, Left, named_states};
use crate::elements::LargeFrom;
use crate::error::ArchiveError;
use crate::manifest;
use crate::overlay::{Overlays, needed};

use claims::Claims;
pub(crate) use snapshot::Snapshot;
use tables::Tables;

/// The file in the archive's folder that is locked while it is open.
const LOCK: &str = "LOCK";

/// The folder in the archive's that the tree has to itself.
pub(crate) const TREE: &str = "base";

/// The file in the tree's folder that names its manifest.
pub(crate) const CURRENT: &str = "current";

/// The folder of the table files in the tree's.
pub(crate) const TABLES: &str = "tables";

/// Table files kept open.
const OPEN_FILES_MAX: usize = 256;

/// Sorted runs of recent batches that may stand before they are merged.
const RUNS_MAX: u8 = 4;

/// As many as may stand before the next batch has to wait until they are merged:
/// every look at a key goes through them, and the tree counts those of a level in
/// one byte of its manifest.
const RUNS_IN_HASTE: usize = 32;

/// One of so many keys may be dead before everything is merged to be rid of
/// them.
const DEAD_SHARE: u64 = 4;

/// Bytes of a table file after a merge of everything, and at most.
const TABLE_BYTES: u64 = 64 << 20;

/// Bytes of a table file that there is reason to fill. The first level has
/// `RUNS_MAX` of them.
const TABLE_BYTES_MIN: u64 = 4 << 20;

/// Sees a key of the tree and its value, and says whether to go on.
pub(crate) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// Waits until the base has reached a revision.
pub type Reach = Arc<dyn Fn(Revision) -> Result<(), ArchiveError> + Send + Sync>;

/// Whether a fault keeps the base from a revision for now.
pub type Hindered = Arc<dyn Fn(Revision) -> bool + Send + Sync>;

/// Makes a key of a space what it was at a revision from what it is, if that is
/// less work than to read all of it.
pub type Remake = Arc<dyn Fn(SpaceId, Revision, &[u8], Stored) -> Option<Stored> + Send + Sync>;

/// See the module's documentation.
pub struct Base {
    dir: PathBuf,
    tree: AnyTree,
    tables: Arc<Tables>,
    numbers: SequenceNumberCounter,
    directory: RwLock<Arc<Directory>>,
    bounds: Arc<Bounds>,
    overlays: Overlays,
    claims: Claims,
    /// Brings the base to a revision; see [`Base::set_reach`].
    reach: RwLock<Option<Reach>>,
    /// See [`Base::set_hindered`].
    hindered: RwLock<Option<Hindered>>,
    /// See [`Base::set_remake`].
    remake: RwLock<Option<Remake>>,
    /// Held by whoever makes a manifest, which takes a number: a batch or a
    /// compaction.
    manifest: Mutex<()>,
    /// The first table that the newest batch or compaction may have made.
    tables_from: AtomicU64,
    large_from: LargeFrom,
    ahead: Arc<Ahead>,
    /// Bytes of keys and values in batches since it was opened.
    written_bytes: AtomicU64,
    /// Of revisions before the horizon that have names, whether they are states.
    /// That stays as it is as long as they have.
    named: Mutex<BTreeMap<Revision, bool>>,
    _lock: Box<dyn VfsLock>,
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Base").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Base {
    /// Opens the base in the archive's folder, or makes an empty one, for its
    /// owner only, whose keys are hashed with `seed`. Up to `cache_bytes` of
    /// what was read lately stay in memory.
    ///
    /// # Errors
    /// When it is in use, damaged, of a newer format, or cannot be read.
    pub fn open(dir: &Path, seed: u64, cache_bytes: u64) -> Result<Base, ArchiveError> {
        RealVfs
            .create_dir_all(dir)
            .map_err(|error| ArchiveError::tree("create the folder of", dir)(error.into()))?;
        // The tree itself would take a folder that is in use, and spoil it.
        let lock = RealVfs.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ArchiveError::InUse { dir: dir.to_owned() },
            _ => ArchiveError::tree("lock", dir)(error.into()),
        })?;
        let tree_dir = dir.join(TREE);
        check_manifest(dir)?;
        let numbers = SequenceNumberCounter::default();
        let bounds = Arc::new(Bounds::default());
        let tree = Config::new(&tree_dir, numbers.clone(), SequenceNumberCounter::default())
            .use_cache(Arc::new(Cache::with_capacity_bytes(cache_bytes)))
            .use_descriptor_table(Some(Arc::new(DescriptorTable::new(OPEN_FILES_MAX))))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
            .with_compaction_filter_factory(Some(Arc::new(Judges(bounds.clone()))))
            .open()
            .map_err(|error| not_as_written("open", dir, error))?;
        let tables = Tables::new(dir);
        tables
            .check_names(tree.current_version().iter_tables())
            .map_err(|what| ArchiveError::Damaged { dir: dir.to_owned(), what })?;
        let directory = match tree.get(DIRECTORY, SeqNo::MAX) {
            Ok(Some(bytes)) => read_directory(dir, &bytes)?,
            Ok(None) => Directory::empty(seed),
            Err(error) => return Err(not_as_written("read", dir, error)),
        };
        let overlays = Overlays::default();
        directory.overlays.iter().for_each(|overlay| overlays.add(*overlay));
        Ok(Base {
            dir: dir.to_owned(),
            tree,
            tables: Arc::new(tables),
            numbers,
            directory: RwLock::new(Arc::new(directory)),
            bounds,
            overlays,
            claims: Claims::default(),
            reach: RwLock::new(None),
            hindered: RwLock::new(None),
            remake: RwLock::new(None),
            manifest: Mutex::new(()),
            tables_from: AtomicU64::new(u64::MAX),
            large_from: LargeFrom::default(),
            ahead: Arc::default(),
            written_bytes: AtomicU64::new(0),
            named: Mutex::default(),
            _lock: lock,
        })
    }

    /// Collections that are written from here on stand element by element from
    /// this size on. Those that are there are read as they are.
    #[must_use]
    pub fn with_large_from(self, large_from: LargeFrom) -> Base {
        Base { large_from, ..self }
    }

    /// From which size on collections are written element by element.
    pub(crate) fn large_from(&self) -> LargeFrom {
        self.large_from
    }

    /// Values of branches on their way.
    pub(crate) fn ahead(&self) -> &Arc<Ahead> {
        &self.ahead
    }

    /// Bytes of keys and values that batches have brought since it was opened,
    /// before compaction.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Ties it to its log. An empty one takes any.
    ///
    /// # Errors
    /// When it was made from another log.
    pub fn adopt(&self, database: [u8; 16]) -> Result<(), ArchiveError> {
        let mut directory = self.directory.write();
        if directory.revision == Revision::ZERO {
            Arc::make_mut(&mut directory).database = database;
        }
        if directory.database != database {
            return Err(ArchiveError::Foreign { dir: self.dir.clone() });
        }
        Ok(())
    }

    /// Which spaces lie over others.
    pub(crate) fn overlays(&self) -> &Overlays {
        &self.overlays
    }

    /// From here on, whoever reads a state that the base has not reached yet
    /// waits for `reach`, which must not wait for anybody who reads.
    pub fn set_reach(&self, reach: Reach) {
        *self.reach.write() = Some(reach);
    }

    /// From here on, whoever would come back for a state until the base has reached
    /// it asks this first, and hears why it does not.
    pub fn set_hindered(&self, hindered: Hindered) {
        *self.hindered.write() = Some(hindered);
    }

    /// See [`Base::set_hindered`].
    pub(crate) fn is_hindered(&self, at: Revision) -> bool {
        self.hindered.read().as_ref().is_some_and(|hindered| hindered(at))
    }

    /// From here on this is called when it pays to ask again for a value that
    /// [takes long](keyspace::Knowing::is_hasty) to read.
    pub fn set_awaited(&self, awaited: Awaited) {
        self.ahead.set_awaited(awaited);
    }

    /// From here on, who reads a large value that memory has otherwise asks this
    /// first.
    pub fn set_remake(&self, remake: Remake) {
        *self.remake.write() = Some(remake);
    }

    /// See [`Base::set_remake`].
    pub(crate) fn remake(
        &self,
        space: SpaceId,
        at: Revision,
        key: &[u8],
        present: Stored,
    ) -> Option<Stored> {
        let remake = self.remake.read().clone()?;
        remake(space, at, key, present)
    }

    /// Waits until it has reached `at`.
    ///
    /// # Errors
    /// When it never will.
    pub fn await_revision(&self, at: Revision) -> Result<(), ArchiveError> {
        if self.revision() >= at {
            return Ok(());
        }
        let reach = self.reach.read().clone();
        match reach {
            Some(reach) => reach(at),
            None => Err(ArchiveError::Behind { dir: self.dir.clone(), asked: at }),
        }
    }

    /// The folder it is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory as of the newest batch.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        self.directory.read().clone()
    }

    /// The directory as of the newest batch at or before `at`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn directory_at(&self, at: Revision) -> Result<Directory, ArchiveError> {
        match self.get_at(DIRECTORY, at)? {
            Some(bytes) => read_directory(&self.dir, &bytes),
            None => Ok(Directory::empty(self.directory().seed)),
        }
    }

    /// The revision of the newest batch at or before `at`.
    pub(crate) fn state_at(&self, at: Revision) -> Result<Revision, ArchiveError> {
        let Some(bytes) = self.get_at(DIRECTORY, at)? else { return Ok(Revision::ZERO) };
        codec::age(&bytes).map(|(revision, _)| revision).map_err(|what| ArchiveError::Damaged {
            dir: self.dir.clone(),
            what: format!("its directory is malformed: {what}"),
        })
    }

    /// Revisions that somebody needs by themselves.
    pub(crate) fn tagged(&self) -> BTreeSet<Revision> {
        self.directory().named_states()
    }

    /// Whether somebody needs a revision by itself, and it is a state that the
    /// base reached.
    pub(crate) fn is_tagged_state(&self, revision: Revision) -> Result<bool, ArchiveError> {
        let directory = self.directory();
        let is_named = directory.branches.pins().any(|pin| pin == revision);
        Ok(is_named
            && !directory.lapsed.contains(&revision)
            && self.state_at(revision)? == revision)
    }

    /// The revision it is at.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.directory.read().revision
    }

    /// Bytes of its table files.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.tree.disk_space()
    }

    /// Begins a batch, and merges the runs of those before it where they are very
    /// many.
    ///
    /// # Errors
    /// When its file cannot be made, or as [`Base::compact`].
    pub(crate) fn batch(&self) -> Result<Batch<'_>, ArchiveError> {
        if self.tree.l0_run_count() >= RUNS_IN_HASTE {
            self.compact(self.horizon())?;
        }
        self.tables_from.store(self.tree.next_table_id(), Ordering::Relaxed);
        let run = self.tree.ingestion().map_err(ArchiveError::tree("write", &self.dir))?;
        Ok(Batch { base: self, run, bytes: 0 })
    }

    /// The entry at `key`, as of now.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<UserValue>, ArchiveError> {
        self.get_at(key, Revision(u64::MAX))
    }

    /// As [`Base::get`], as of the newest batch at or before `at`.
    pub(crate) fn get_at(
        &self,
        key: &[u8],
        at: Revision,
    ) -> Result<Option<UserValue>, ArchiveError> {
        // Through the newest manifest, as in `range_at`. Its runs stand in order,
        // the newest first, and the memtable is empty.
        let version = self.tree.current_version();
        let hash = Builder::get_hash(key);
        let runs = version.iter_levels().flat_map(|level| level.iter());
        for table in runs.filter_map(|run| run.get_for_key(key)) {
            let found = table.get(key, at.0.saturating_add(1), hash);
            if let Some(entry) = found.map_err(|error| self.tables.unreadable(table, error))? {
                return Ok((!entry.is_tombstone()).then_some(entry.value));
            }
        }
        Ok(None)
    }

    /// Visits the entries whose keys begin with `prefix`, in order, as of now.
    pub(crate) fn prefix(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), ArchiveError> {
        let wanted = |key: &[u8]| key.starts_with(prefix);
        for entry in self.tree.prefix(prefix, SeqNo::MAX, None) {
            let (key, value) = entry
                .into_inner()
                .map_err(|error| self.tables.unreadable_in(&self.tree, prefix, wanted, error))?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Visits the entries of a range, in order, as of now.
    pub(crate) fn range(
        &self,
        range: &RangeInclusive<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), ArchiveError> {
        self.frozen().range(range, None, visit)
    }

    /// Visits the entries of a range as of the newest batch at or before `at`.
    pub(crate) fn range_at(
        &self,
        range: &RangeInclusive<&[u8]>,
        at: Revision,
        visit: &mut Visit<'_>,
    ) -> Result<(), ArchiveError> {
        self.frozen().range(range, Some(at), visit)
    }

    /// It as it is now: batches to come do not change that.
    pub(crate) fn frozen(&self) -> Frozen {
        // The newest manifest: the tree's own reads look for one of the time
        // that they read of, which is gone.
        let version = self.tree.get_version_history_lock().latest_version();
        let (tree, tables) = (self.tree.clone(), self.tables.clone());
        Frozen(Box::new(move |range, number, visit| {
            let wanted = |key: &[u8]| key <= *range.end();
            for entry in Tree::create_internal_range(version.clone(), range, number, None) {
                let entry = entry
                    .map_err(|error| tables.unreadable_in(&tree, range.start(), wanted, error))?;
                if visit(&entry.key.user_key, &entry.value).is_break() {
                    break;
                }
            }
            Ok(())
        }))
    }

    /// Whether anything is left of a space.
    pub(crate) fn has_any(&self, space: SpaceId) -> Result<bool, ArchiveError> {
        let mut prefix = Vec::new();
        codec::put_space(&mut prefix, space);
        let mut found = false;
        self.prefix(&prefix, &mut |_, _| {
            found = true;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Merges sorted runs while there are too many. What only reads before
    /// `horizon`, a revision that a batch reached, could see is left out.
    ///
    /// # Errors
    /// When tables cannot be read or written; the base is what it was then.
    pub(crate) fn compact(&self, horizon: Revision) -> Result<(), ArchiveError> {
        let (directory, due) = self.bind(horizon)?;
        // Levels begin with the size of what comes: else a batch of one entry would
        // have everything merged that fits the largest first level.
        let recent_bytes = self.tree.current_version().level(0).map_or(0, |level| level.size());
        let table_bytes = recent_bytes.clamp(TABLE_BYTES_MIN, TABLE_BYTES);
        let strategy = Leveled::default().with_l0_threshold(RUNS_MAX);
        let strategy = Arc::new(strategy.with_table_target_size(table_bytes));
        while self.one_compaction(&directory, |tree| tree.compact(strategy.clone(), 0))? {}
        // Much that is dead is not left to merges that may never come.
        let dead_keys: u64 = due.iter().map(|left| left.keys).sum();
        let is_much = dead_keys > directory.keys() / DEAD_SHARE;
        let mut left = due.iter().map(|left| self.has_any(left.space));
        if is_much && left.try_fold(false, |any, left| Ok::<_, ArchiveError>(any | left?))? {
            self.one_compaction(&directory, |tree| tree.major_compact(TABLE_BYTES, 0))?;
        }
        self.forget_manifests()
    }

    /// As [`Base::compact`], and merges everything, so that what may go is gone.
    ///
    /// # Errors
    /// As [`Base::compact`].
    pub(crate) fn merge(&self, horizon: Revision) -> Result<(), ArchiveError> {
        let (directory, _) = self.bind(horizon)?;
        self.one_compaction(&directory, |tree| tree.major_compact(TABLE_BYTES, 0))?;
        self.forget_manifests()
    }

    /// Erases values of the past, wherever they stand, and everything that only
    /// reads before `horizon` could see.
    ///
    /// # Errors
    /// As [`Base::compact`].
    pub(crate) fn erase(
        &self,
        horizon: Revision,
        erasures: Vec<Erasure>,
    ) -> Result<(), ArchiveError> {
        let (directory, _) = self.bind(horizon)?;
        let standing = directory.databases.iter().map(|database| database.space).collect();
        self.bounds.erase(Erasures { all: erasures, standing });
        let merged = self.one_compaction(&directory, |tree| tree.major_compact(TABLE_BYTES, 0));
        self.bounds.erase(Erasures::default());
        merged?;
        self.forget_manifests()
    }

    /// Goes back to a state that it can still be read at, and forgets what came
    /// later. It is to be opened again then. Of the states that have names at that
    /// one, those have lapsed that it has not now, as `has` says.
    ///
    /// # Errors
    /// When tables cannot be read or written.
    pub(crate) fn go_back(
        self,
        to: Revision,
        has: impl Fn(Revision) -> bool,
    ) -> Result<(), ArchiveError> {
        let named = self.directory_at(to)?.named_states();
        let lapsed = named.range(..to).copied().filter(|state| !has(*state)).collect();
        self.bounds.go_back(GoBack { to, lapsed });
        let directory = self.directory();
        self.one_compaction(&directory, |tree| tree.major_compact(TABLE_BYTES, 0))?;
        self.forget_manifests()
    }

    /// Tells compactions what may go; answers which spaces may, and the directory
    /// that says so.
    fn bind(&self, horizon: Revision) -> Result<(Arc<Directory>, Vec<Left>), ArchiveError> {
        // First: a claim ends when a directory has what it is for.
        let claimed = self.claims.spaces();
        let directory = self.directory();
        let tags = directory.named_states();
        let (past, left): (Vec<Left>, Vec<Left>) = directory
            .left
            .iter()
            .partition(|left| is_past(left, horizon, &tags) && !claimed.contains(&left.space));
        // What nobody reads any more pins nothing; what is newer than the
        // directory is read.
        let all = self.overlays.all();
        let new = all.iter().map(|overlay| overlay.space);
        let new = new.filter(|space| space.born > directory.revision);
        let standing = directory.databases.iter().map(|database| database.space);
        let read = standing.chain(left.iter().map(|left| left.space)).chain(new).collect();
        let overlays = needed(&all, &read);
        let below: BTreeSet<SpaceId> = overlays.iter().map(|overlay| overlay.under).collect();
        let due: Vec<Left> = past.into_iter().filter(|left| !below.contains(&left.space)).collect();
        let dead = due.iter().map(|left| left.space);
        let tags = self.states_among(tags, horizon)?;
        self.bounds.set(Bound::new(horizon, dead, &overlays, tags));
        Ok((directory, due))
    }

    /// Of revisions with names, without those before the horizon that no batch ended
    /// with. They were read by means of the history; now that it begins later, or is
    /// not kept, nobody reads them. As states they would be wrong ones: what changed
    /// before such a revision may have come with the batch after it, and that is not
    /// seen there.
    fn states_among(
        &self,
        mut tags: BTreeSet<Revision>,
        horizon: Revision,
    ) -> Result<BTreeSet<Revision>, ArchiveError> {
        let mut named = self.named.lock();
        named.retain(|revision, _| tags.contains(revision));
        for &tag in tags.range(..horizon) {
            if let Entry::Vacant(vacant) = named.entry(tag) {
                vacant.insert(self.state_at(tag)? == tag);
            }
        }
        tags.retain(|tag| named.get(tag).is_none_or(|is_state| *is_state));
        Ok(tags)
    }

    /// Whether nobody may read a space any more that no database has: nobody but
    /// those who read it through another.
    pub(crate) fn may_forget(&self, left: &Left, branches: &Branches) -> bool {
        let tags = named_states(branches, &self.directory().lapsed);
        is_past(left, self.bounds.horizon(), &tags)
    }

    /// The oldest state from which on every one may be read, as far as
    /// compactions know.
    pub(crate) fn horizon(&self) -> Revision {
        self.bounds.horizon()
    }

    /// Runs one compaction; answers whether it found anything to do. Its
    /// watermark is 0, below which nothing is: the filter judges, not the tree.
    fn one_compaction(
        &self,
        directory: &Directory,
        compact: impl FnOnce(&AnyTree) -> lsm_tree::Result<()>,
    ) -> Result<bool, ArchiveError> {
        let before = self.tree.current_version().id();
        let _manifest = self.manifest.lock();
        self.numbers.set(directory.revision.0);
        self.tables_from.store(self.tree.next_table_id(), Ordering::Relaxed);
        let _heads = self.bounds.lend(self.frozen());
        compact(&self.tree).map_err(|error| match error {
            lsm_tree::Error::Io(_) => ArchiveError::tree("compact", &self.dir)(error),
            _ => not_as_written("compact", &self.dir, error),
        })?;
        Ok(self.tree.current_version().id() != before)
    }

    /// Removes the tables of a batch or compaction that has failed, as far as that
    /// is possible; a start removes the rest. Answers whether the base can go on:
    /// not where the disk has a newer manifest than memory, which failed too late.
    ///
    /// For whoever makes the batches, while there is none.
    pub(crate) fn clear_away(&self) -> bool {
        let _manifest = self.manifest.lock();
        let dir = self.dir.join(TREE);
        let version = self.tree.current_version();
        if manifest::in_force(&dir) != Some(version.id()) {
            return false;
        }
        let from = self.tables_from.load(Ordering::Relaxed);
        let standing: BTreeSet<u64> = version.iter_tables().map(|table| table.id()).collect();
        let found = std::fs::read_dir(dir.join(TABLES)).into_iter().flatten().flatten();
        for table in found {
            let id = table.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
            if id.is_some_and(|id| id >= from && !standing.contains(&id)) {
                let _ = std::fs::remove_file(table.path());
            }
        }
        true
    }

    /// Lets go of manifests before the newest, and with them of the table
    /// files that only they name. Reads under way keep theirs.
    fn forget_manifests(&self) -> Result<(), ArchiveError> {
        self.tree
            .get_version_history_lock()
            .maintenance(&self.dir.join(TREE), SeqNo::MAX)
            .map_err(ArchiveError::tree("clean up", &self.dir))
    }
}

/// Revisions that somebody needs by themselves: those that have a name, and
/// those that merges begin with.
/// Whether a space was left before everything that may still be read.
fn is_past(left: &Left, horizon: Revision, tags: &BTreeSet<Revision>) -> bool {
    left.at <= horizon && tags.range(left.space.born..left.at).next().is_none()
}

/// How a [`Frozen`] reads what has numbers below one.
type ReadRange =
    dyn Fn(&RangeInclusive<&[u8]>, SeqNo, &mut Visit<'_>) -> Result<(), ArchiveError> + Send + Sync;

/// The base at one time, for reads that belong together. Its table files stay
/// as long as this lives.
pub(crate) struct Frozen(Box<ReadRange>);

impl Frozen {
    /// Visits the entries of a range, in order, as of the newest batch at or
    /// before `at`, or of the newest that it has.
    pub(crate) fn range(
        &self,
        range: &RangeInclusive<&[u8]>,
        at: Option<Revision>,
        visit: &mut Visit<'_>,
    ) -> Result<(), ArchiveError> {
        (self.0)(range, at.map_or(SeqNo::MAX, |at| at.0.saturating_add(1)), visit)
    }
}

/// Checks the manifest of the tree in the archive's folder.
fn check_manifest(dir: &Path) -> Result<(), ArchiveError> {
    manifest::check(&dir.join(TREE)).map_err(|(path, what)| ArchiveError::Damaged {
        dir: dir.to_owned(),
        what: format!("{}: {what}", path.display()),
    })
}

/// Why the tree cannot be opened or merged: its error names no file, so those that it
/// needs are looked through.
fn not_as_written(doing: &'static str, dir: &Path, error: lsm_tree::Error) -> ArchiveError {
    match manifest::damaged_table(&dir.join(TREE)) {
        None => ArchiveError::tree(doing, dir)(error),
        Some((path, what)) => ArchiveError::Damaged {
            dir: dir.to_owned(),
            what: format!("{}: {what}", path.display()),
        },
    }
}

fn read_directory(dir: &Path, bytes: &[u8]) -> Result<Directory, ArchiveError> {
    let dir = dir.to_owned();
    Directory::decode(bytes).map_err(|error| match error {
        DirectoryError::Newer(found) => ArchiveError::NewerFormat { dir, found, known: FORMAT },
        DirectoryError::Malformed(what) => {
            ArchiveError::Damaged { dir, what: format!("its directory is malformed: {what}") }
        }
    })
}

/// Entries in ascending order of their keys that become part of the base
/// together, or, if this is dropped, never.
pub(crate) struct Batch<'b> {
    base: &'b Base,
    run: lsm_tree::AnyIngestion<'b>,
    bytes: u64,
}

impl Batch<'_> {
    /// Adds an entry.
    ///
    /// # Panics
    /// When keys do not ascend.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        self.bytes += (key.len() + value.len()) as u64;
        self.run.write(key, value).map_err(ArchiveError::tree("write", &self.base.dir))
    }

    /// Makes the base stand at the directory's revision, durably.
    pub(crate) fn finish(mut self, directory: Directory) -> Result<(), ArchiveError> {
        let base = self.base;
        debug_assert!(directory.revision > base.revision(), "batches go forward");
        self.put(DIRECTORY, &directory.encode())?;
        let _manifest = base.manifest.lock();
        base.numbers.set(directory.revision.0);
        self.run.finish().map_err(ArchiveError::tree("write", &base.dir))?;
        base.written_bytes.fetch_add(self.bytes, Ordering::Relaxed);
        base.overlays.retain(&directory.overlays, directory.revision);
        let revision = directory.revision;
        *base.directory.write() = Arc::new(directory);
        base.claims.reached(revision);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
