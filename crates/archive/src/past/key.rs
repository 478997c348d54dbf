//! One key as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use keyspace::{Backing, Buffers, Keyspace, Stored};
use log::{Record, RecordHeader};

use super::error::PastError;
use super::milestones;
use super::near;
use super::source::Source;
use super::trace::{self, Part};
use super::view::Batch;
use crate::elements::Named;
use crate::history::{DATABASE_WIDE, Hit, key_hash};

/// Which key.
pub(super) struct Name<'k> {
    pub(super) db: DbIndex,
    pub(super) hash: u64,
    pub(super) key: &'k [u8],
    /// Only these elements matter, if it is a collection.
    pub(super) named: Option<Named<'k>>,
    /// Nobody can wait for what takes long to read: it is an error.
    pub(super) is_hasty: bool,
}

impl<'k> Name<'k> {
    /// `seed` is that of the keyspace's hash.
    pub(super) fn new(seed: u64, db: DbIndex, key: &'k [u8]) -> Name<'k> {
        let hash = keyspace::hash_of(seed, key);
        Name { db, hash, key, named: None, is_hasty: false }
    }

    /// The same key, if only some of its elements matter.
    pub(super) fn with_elements(self, names: Option<&'k [&'k [u8]]>) -> Name<'k> {
        Name { named: names.map(Named::new), ..self }
    }

    /// The same key, in haste or not.
    pub(super) fn in_haste(self, is_hasty: bool) -> Name<'k> {
        Name { is_hasty, ..self }
    }

    /// The same key, of which every element matters.
    fn whole(&self) -> Name<'k> {
        let Name { db, hash, key, is_hasty, .. } = *self;
        Name { db, hash, key, named: None, is_hasty }
    }
}

/// Effects of one record.
struct Effects {
    revision: Revision,
    header: RecordHeader,
    bytes: Vec<u8>,
    /// What the key was before does not matter: it counts as none.
    settles: bool,
    /// Something was done to elements that do not matter.
    leaves_out: bool,
}

/// What a branch has now of a key, if memory knows.
pub type Present<'p> = &'p dyn Fn() -> Option<Stored>;

/// The key at a revision: as `batch` has it, or what it is known to have been later,
/// with what was done to it since. Where that is much, it is made from the present.
pub(super) fn read(
    source: &Source,
    batch: &Arc<Batch>,
    revision: Revision,
    name: &Name<'_>,
    present: Present<'_>,
) -> Result<Option<Stored>, PastError> {
    let place = (batch.branch, name.db, name.key);
    let known = || match source.milestones.newest(place, batch.revision(), revision) {
        Some((after, stored)) => (after, Some(stored)),
        None => (batch.revision(), None),
    };
    let whole = name.whole();
    let nearest = known();
    // What is left behind has all elements; the next is not far.
    let (name, max) = match &nearest.1 {
        Some(stored) => (&whole, milestones::apart(stored)),
        None => (name, milestones::APART),
    };
    let last = match read_after(source, batch, nearest, revision, name, max)? {
        Chain::Whole(found) => return Ok(found),
        Chain::Longer { last } => last,
    };
    let mut name = name;
    if let Some(present) = present() {
        // It is small: whoever comes for other elements finds what is left behind.
        name = &whole;
        let near = near::counter(source, batch.branch, (revision, last), name, present)?;
        if let Some(found) = near {
            // So many of a larger one would drive out others.
            if milestones::apart(&found) == milestones::APART {
                source.milestones.put(place, last, &found);
            }
            return Ok(Some(found));
        }
    }
    if name.is_hasty {
        return Err(PastError::TakesLong);
    }
    match read_after(source, batch, known(), revision, name, usize::MAX)? {
        Chain::Whole(found) => Ok(found),
        Chain::Longer { .. } => unreachable!("all of it was read"),
    }
}

/// What following the changes of a key has come to.
enum Chain {
    /// The key as it was.
    Whole(Option<Stored>),
    /// There are more changes, of which the last is this.
    Longer { last: Revision },
}

/// The key as `batch` has it, or as it was after a later revision, with what was
/// done to it since, unless that is more than `max` changes.
fn read_after(
    source: &Source,
    batch: &Arc<Batch>,
    (after, known): (Revision, Option<Stored>),
    revision: Revision,
    name: &Name<'_>,
    max: usize,
) -> Result<Chain, PastError> {
    let _layout = source.layout.read();
    let found = match own_effects(source, batch, after, &[(revision, None)], name, max)? {
        Some(own) if own.is_cut => return Ok(Chain::Longer { last: own.effects[0].revision }),
        Some(own) => apply_own(source, batch, name, &own, known)?,
        None if name.is_hasty => return Err(PastError::TakesLong),
        None => apply_all(source, batch, revision, name)?,
    };
    if batch.revision() < revision {
        // Else some records may have been missing.
        source.keeps(batch.revision())?;
    }
    Ok(Chain::Whole(found))
}

/// The key at several revisions, the oldest first, each with its record if that
/// was read already; `batch` is not later than the first.
pub(super) fn read_each(
    source: &Source,
    batch: &Arc<Batch>,
    revisions: &[(Revision, Option<Record<'_>>)],
    name: &Name<'_>,
    present: Present<'_>,
    visit: &mut dyn FnMut(usize, Option<&Stored>),
) -> Result<(), PastError> {
    let first = revisions[0].0;
    let at_first = read(source, batch, first, name, present)?;
    let _layout = source.layout.read();
    let Some(own) = own_effects(source, batch, first, revisions, name, usize::MAX)? else {
        for (at, &(revision, _)) in revisions.iter().enumerate() {
            visit(at, read(source, batch, revision, name, &|| None)?.as_ref());
        }
        return Ok(());
    };
    source.keeps(batch.revision())?;
    let scratch = source.take_scratch(batch.directory.seed);
    if let Some(stored) = at_first {
        scratch.give(0, name.key, stored);
    }
    let mut buffers = Buffers::default();
    let mut oldest_first = own.effects.iter().rev().peekable();
    for (at, &(revision, _)) in revisions.iter().enumerate() {
        while let Some(effects) = oldest_first.next_if(|effects| effects.revision <= revision) {
            if effects.settles {
                scratch.take(0, name.key)?;
            }
            if effects.is_felt() {
                effects.apply_own(source, &scratch, name, &mut buffers)?;
            }
        }
        let stored = scratch.take(0, name.key)?;
        visit(at, stored.as_ref());
        if let Some(stored) = stored {
            scratch.give(0, name.key, stored);
        }
    }
    scratch.take(0, name.key)?;
    source.give_scratch(scratch);
    Ok(())
}

/// What was done to a key.
struct Own {
    /// Newest first.
    effects: Vec<Effects>,
    /// What the key was before the oldest of them does not matter.
    is_settled: bool,
    /// There are older ones that matter.
    is_cut: bool,
}

/// What was done to a key after a revision, as far as one needs to
/// know for the first and the last of some revisions and those between, if it
/// was done under this one name: `None` if its database changed places, or
/// another key was given its name. Records that stand beside the revisions are
/// not read again. Of more than `max` changes some are left out.
fn own_effects(
    source: &Source,
    batch: &Batch,
    after: Revision,
    revisions: &[(Revision, Option<Record<'_>>)],
    name: &Name<'_>,
    max: usize,
) -> Result<Option<Own>, PastError> {
    let (first, last) = (revisions[0].0, revisions[revisions.len() - 1].0);
    let known = |revision: Revision| {
        let at = revisions.binary_search_by_key(&revision, |(revision, _)| *revision).ok()?;
        revisions[at].1.filter(|record| record.revision == revision)
    };
    let mut own = Own { effects: Vec::new(), is_settled: false, is_cut: false };
    // A flush settles what the key was, as a deletion does.
    for hit in source.newest_first(name.key, after, last) {
        let hit = hit?;
        let mut read = |record: &Record<'_>| {
            let part = trace::of_key(record.effects, record.header.db, name);
            part.map(|part| (part, record.header))
        };
        let part = match known(hit.revision) {
            Some(record) if record.header.branch == batch.branch => {
                let revision = hit.revision;
                Some(read(&record).map_err(|source| PastError::Malformed { revision, source })?)
            }
            Some(_) => None,
            None => of_branch(source, batch.branch, hit, &mut read)?,
        };
        let Some((part, header)) = part else { continue };
        match part {
            Part::Nothing => {}
            Part::Moved => return Ok(None),
            Part::Done { bytes, settles, leaves_out } => {
                let revision = hit.revision;
                own.effects.push(Effects { revision, header, bytes, settles, leaves_out });
                own.is_settled = settles && hit.revision <= first;
            }
        }
        own.is_cut = !own.is_settled && own.effects.len() > max;
        if own.is_settled || own.is_cut {
            break;
        }
    }
    Ok(Some(own))
}

/// The key as the base has it.
fn own_before(
    source: &Source,
    batch: &Batch,
    name: &Name<'_>,
) -> Result<Option<Stored>, PastError> {
    let Some(space) = batch.space_of(name.db) else { return Ok(None) };
    let Some(named) = &name.named else {
        if name.is_hasty && batch.has_named(space, name.hash, name.key)? {
            return Err(PastError::TakesLong);
        }
        return Ok(batch.fetch(space, name.hash, name.key)?);
    };
    let mut found = batch.fetch_named(space, name.hash, name.key, named)?;
    if let Some(stored) = &mut found {
        named.stand_in(&mut stored.value, &source.limits);
    }
    Ok(found)
}

/// The key with what was done to it; before, it was as it is `known` to have been,
/// or else as the base has it.
fn apply_own(
    source: &Source,
    batch: &Batch,
    name: &Name<'_>,
    own: &Own,
    known: Option<Stored>,
) -> Result<Option<Stored>, PastError> {
    let before = match known {
        _ if own.is_settled => None,
        Some(known) => Some(known),
        None => own_before(source, batch, name)?,
    };
    let mut oldest_first = own.effects.iter().rev().filter(|it| it.is_felt()).peekable();
    if oldest_first.peek().is_none() {
        return Ok(before);
    }
    let scratch = source.take_scratch(batch.directory.seed);
    if let Some(stored) = before {
        scratch.give(0, name.key, stored);
    }
    let mut buffers = Buffers::default();
    // Of a part of a collection none are left behind.
    let mut next = if name.named.is_none() { milestones::APART } else { usize::MAX };
    for (count, effects) in (1..).zip(oldest_first) {
        effects.apply_own(source, &scratch, name, &mut buffers)?;
        if count >= next
            && let Some(stored) = scratch.take(0, name.key)?
        {
            source.milestones.put((batch.branch, name.db, name.key), effects.revision, &stored);
            next = count + milestones::apart(&stored);
            scratch.give(0, name.key, stored);
        }
    }
    let found = scratch.take(0, name.key)?;
    source.give_scratch(scratch);
    Ok(found)
}

/// The key where names and databases changed places: what was done to every
/// key that may have become this one is done again, in all databases.
fn apply_all(
    source: &Source,
    batch: &Arc<Batch>,
    revision: Revision,
    name: &Name<'_>,
) -> Result<Option<Stored>, PastError> {
    let after = batch.revision();
    let mut keys = BTreeSet::from([name.key.to_vec()]);
    let mut records = BTreeMap::new();
    let mut to_find = vec![name.key.to_vec()];
    let mut add = |hit: Hit, wanted: Option<&[u8]>, found: &mut Vec<Vec<u8>>| {
        let copied = of_branch(source, batch.branch, hit, &mut |record| {
            if let Some(wanted) = wanted {
                trace::sources(record.effects, wanted, found)?;
            }
            let (revision, header) = (record.revision, record.header);
            let bytes = record.effects.to_vec();
            Ok(Effects { revision, header, bytes, settles: false, leaves_out: false })
        })?;
        if let Some(copied) = copied {
            records.insert(hit.revision, copied);
        }
        Ok::<_, PastError>(())
    };
    for hit in source.history.records(DATABASE_WIDE, after, revision) {
        add(hit?, None, &mut Vec::new())?;
    }
    while let Some(wanted) = to_find.pop() {
        let mut found = Vec::new();
        for hit in source.history.records(key_hash(&wanted), after, revision) {
            add(hit?, Some(&wanted), &mut found)?;
        }
        found.retain(|key| keys.insert(key.clone()));
        to_find.append(&mut found);
    }
    let scratch = Keyspace::new(source.databases, batch.directory.seed);
    batch.back(&scratch);
    let mut buffers = Buffers::default();
    for effects in records.values_mut() {
        let filtered = trace::of_keys(&effects.bytes, |key| keys.contains(key));
        let revision = effects.revision;
        effects.bytes = filtered.map_err(|source| PastError::Malformed { revision, source })?;
        effects.apply(source, &scratch, effects.header.db, &mut buffers)?;
    }
    Ok(scratch.take(name.db, name.key)?)
}

/// Reads a record, if it is one of a branch.
pub(super) fn of_branch<T>(
    source: &Source,
    branch: BranchId,
    hit: Hit,
    read: &mut dyn FnMut(&Record<'_>) -> Result<T, keyspace::effect::EffectError>,
) -> Result<Option<T>, PastError> {
    let found = source.record(hit, &mut |record| {
        (record.header.branch == branch).then(|| read(record)).transpose()
    })?;
    found.map_err(|source| PastError::Malformed { revision: hit.revision, source })
}

impl Effects {
    /// Whether a key that it does not remove is another one after it.
    fn is_felt(&self) -> bool {
        self.leaves_out || !self.bytes.is_empty()
    }

    /// Applies what is done to one key, the only one in `scratch`.
    fn apply_own(
        &self,
        source: &Source,
        scratch: &Keyspace,
        name: &Name<'_>,
        buffers: &mut Buffers,
    ) -> Result<(), PastError> {
        if !self.bytes.is_empty() {
            self.apply(source, scratch, 0, buffers)?;
        }
        if let Some(named) = &name.named
            && let Some(mut stored) = scratch.take(0, name.key)?
        {
            // What was done to other elements since is left out from here on.
            named.stand_in(&mut stored.value, &source.limits);
            if self.leaves_out {
                stored.revision = self.revision;
            }
            scratch.give(0, name.key, stored);
        }
        Ok(())
    }

    fn apply(
        &self,
        source: &Source,
        scratch: &Keyspace,
        db: DbIndex,
        buffers: &mut Buffers,
    ) -> Result<(), PastError> {
        let (revision, time_ms) = (self.revision, self.header.time_ms);
        scratch
            .apply(revision, time_ms, db, &self.bytes, &source.limits, buffers)
            .map_err(|source| PastError::Misfit { revision, source })
    }
}
