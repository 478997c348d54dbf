//! REVERT of many keys, and what UNDO has in common with it.
//!
//! The keys to bring back are those that the log says have changed. It is read
//! beside all writers, again and again until little is left, and then once more
//! with writers held up. What the keys were is compared with what they are, and
//! the record encoded, with at most one lock held at a time; of what changes
//! meanwhile the next look tells, and it is compared anew. The write itself
//! begins only when all locks are held and the newest revision is still the one
//! looked up to, see [`Restoration`].

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{DbIndex, Revision};
use command::{Error, Result};
use keyspace::effect::Effect;
use keyspace::{Buffers, Comparison, Keyspace, Restoration, SHARDS, Stored, Txn};

use super::revert::{Counts, Job, Target};
use super::{Span, events};
use crate::aside;
use crate::branch::{LiveBranch, no_branch};
use crate::engine::Engine;
use crate::travel::{Moment, Unchanged, view_options};
use crate::whatif::Version;

/// Keys up to which each is read by itself rather than from the whole state.
const NAMED_KEYS_MAX: usize = 64;

/// Of a database that does not have more than so many keys for each that is
/// wanted, all are read at one go.
const READ_ALL_SHARE: u64 = 4;

/// Transactions that are looked at with writers held up, about.
const FEW_RECORDS: u64 = 100;

/// Looks beside writers who keep changing much.
pub(super) const LOOKS_BESIDE_MAX: usize = 8;

/// Looks for what has changed, with writers held up, before it is given up.
/// They only come to nothing when keys expire meanwhile.
pub(crate) const LOOKS_MAX: usize = 64;

/// Threads that read and compare.
const THREADS_MAX: usize = 4;

/// Keys from which on it is worth while to begin threads.
const MANY_KEYS: usize = 10_000;

/// A key and its database.
pub(super) type Place = (DbIndex, Vec<u8>);

/// Names of keys, by database.
type Names = BTreeMap<DbIndex, HashSet<Vec<u8>>>;

/// Brings a restoration up to now, and answers the revision that is now.
type Look<'l> = dyn FnMut(&mut Restoration) -> Result<Revision> + 'l;

/// Hears what a key was.
type Tell<'t> = dyn FnMut(DbIndex, &[u8], Option<Stored>) -> Result + 't;

impl Job<'_> {
    pub(super) fn revert_many(&self, target: &Target) -> Result<(Option<Revision>, Counts)> {
        let restoration = Restoration::to(self.branch()?.keyspace.empty_like());
        let (mut upto, mut skipped) = (self.to.revision, BTreeSet::new());
        let (written, counts) = self.restore(restoration, &mut |restoration| {
            self.look_on(target, restoration, &mut skipped, &mut upto)?;
            Ok(upto)
        })?;
        Ok((written, Counts { skipped: skipped.len() as u64, ..counts }))
    }

    /// Makes keys what a restoration says that they are to be, as one revision.
    pub(super) fn restore(
        &self,
        mut restoration: Restoration,
        look: &mut Look<'_>,
    ) -> Result<(Option<Revision>, Counts)> {
        let (engine, branch) = (self.engine, self.branch()?);
        let mut upto = look(&mut restoration)?;
        self.compare(&restoration, &branch)?;
        for _ in 0..LOOKS_BESIDE_MAX {
            let before = std::mem::replace(&mut upto, look(&mut restoration)?);
            self.compare(&restoration, &branch)?;
            if upto.0 - before.0 <= FEW_RECORDS {
                break;
            }
        }
        // Most of what there is to encode, before anybody waits.
        restoration.encode(&self.head());
        restoration.expect(upto.next());
        let mut hold = Some(engine.writers_held.hold());
        let mut is_told = false;
        for _ in 0..LOOKS_MAX {
            upto = look(&mut restoration)?;
            is_told &= restoration.is_compared();
            self.compare(&restoration, &branch)?;
            let (restored, removed) = restoration.counts();
            let counts = Counts { restored, removed, skipped: 0 };
            let is_write = !self.is_dry && (restored + removed > 0 || !self.undoes.is_empty());
            if !is_write {
                // That nothing has come in between is for the next look to tell.
                if is_told {
                    self.count_listeners(restoration, &branch);
                    return Ok((None, counts));
                }
                self.tell_of(&restoration, &branch, upto);
                is_told = true;
                continue;
            }
            restoration.encode(&self.head());
            let now_ms = engine.clock.now_ms();
            let (journal, client) = (engine.journal_of(&branch), self.author.client);
            let mut told = Default::default();
            let written = restoration.write(
                &branch.keyspace,
                journal,
                now_ms,
                &mut || {
                    let is_current = engine.replicator.newest() == upto && !branch.is_gone();
                    if is_current {
                        hold = None;
                    }
                    is_current
                },
                &mut |effects| told = engine.tracking.changes_of(client, effects),
            )?;
            if let Some(finished) = written {
                let mut buffers = restoration.into_buffers(engine.live().event_classes);
                engine.settle_aside(&mut buffers, &finished, told, branch.id);
                return Ok((finished.written, counts));
            }
            if branch.is_gone() {
                return Err(no_branch(&engine.branch_name(branch.id)));
            }
        }
        Err(Error::new(format!(
            "TRYAGAIN keys changed during each of {LOOKS_MAX} looks at them, though writers were held up; nothing \
             is changed"
        )))
    }

    fn compare(&self, restoration: &Restoration, branch: &LiveBranch) -> Result {
        let (live, now_ms) = (self.engine.live(), self.engine.clock.now_ms());
        let how = Comparison { now_ms, limits: &live.encoding };
        if branch.keyspace.is_backed() {
            for (db, key) in restoration.open_places() {
                aside::bring(&branch.keyspace, db, &key)?;
            }
        }
        if restoration.keys() < MANY_KEYS {
            return Ok(restoration.compare(&branch.keyspace, how)?);
        }
        each_shard(&|shard| Ok(restoration.compare_shard(&branch.keyspace, shard, how)?))
    }

    /// What the record begins with.
    fn head(&self) -> Vec<Effect<'_>> {
        let undone = |revision: &Revision| Effect::Undone { revision: *revision };
        std::iter::once(self.author.origin()).chain(self.undoes.iter().map(undone)).collect()
    }

    /// Tells of each key what becomes of it, where somebody asked.
    fn tell_of(&self, restoration: &Restoration, branch: &LiveBranch, revision: Revision) {
        let Some(report) = &self.report else { return };
        let (engine, live) = (self.engine, self.engine.live());
        let mut report = report.borrow_mut();
        report.begin(revision);
        let (now, then) = (view_options(&live, engine.clock.now_ms()), view_options(&live, 0));
        for (db, key) in restoration.places() {
            let (mut ours, mut theirs) = (Buffers::default(), Buffers::default());
            let begin = |keyspace, buffers, options| {
                let mut txn = Txn::begin_on_key(keyspace, &key, &Unchanged, buffers, options);
                txn.keep_due();
                txn.select(db);
                txn
            };
            let mut now = begin(&branch.keyspace, &mut ours, now);
            now.load(&key);
            let then = begin(restoration.wanted(), &mut theirs, then);
            report.note(db, &key, Version::of(&now, db, &key), Version::of(&then, db, &key));
        }
    }

    /// Counts who would hear of it, where somebody asked.
    fn count_listeners(&self, mut restoration: Restoration, branch: &LiveBranch) {
        let Some(report) = &self.report else { return };
        restoration.encode(&[]);
        let mut buffers = restoration.into_buffers(self.engine.live().event_classes);
        report.borrow_mut().listeners = self.engine.listeners_to(branch.id, &buffers.take_events());
    }

    /// Adds to a restoration what has changed from `upto` to now, which it
    /// becomes.
    fn look_on(
        &self,
        target: &Target,
        restoration: &mut Restoration,
        skipped: &mut BTreeSet<Place>,
        upto: &mut Revision,
    ) -> Result {
        let engine = self.engine;
        let newest = engine.replicator.newest();
        let prefix: &[u8] = match target {
            Target::Prefix(prefix) => prefix,
            Target::Key(_) | Target::All => b"",
        };
        let is_wanted = |db: DbIndex, key: &[u8]| {
            (matches!(target, Target::All) || db == self.db) && key.starts_with(prefix)
        };
        let (mut names, mut whole): (Names, BTreeSet<DbIndex>) = Default::default();
        let add = |names: &mut Names, db: DbIndex, key: &[u8]| {
            if !is_wanted(db, key) {
                return;
            }
            let names = names.entry(db).or_default();
            if !names.contains(key) {
                names.insert(key.to_vec());
            }
        };
        if *upto < engine.needs_past()?.oldest() {
            // What a tag keeps: the records from there on are gone.
            let (parent, base) = engine.line_of(self.to).at(*upto);
            engine.needs_branching()?.state_before(parent, base)?;
            whole.extend((0..engine.keyspace.databases()).filter(|&db| is_wanted(db, prefix)));
        } else if *upto == self.to.as_of && *upto < engine.line(self.to.branch).made() {
            // What it did since is no part of its line: it has begun anew.
            whole.extend((0..engine.keyspace.databases()).filter(|&db| is_wanted(db, prefix)));
        } else {
            let span = Span { branch: self.to.branch, after: *upto, upto: newest };
            span.visit(engine, |record| {
                events::read(&record, &mut |touch| {
                    match touch.key {
                        Some(key) => add(&mut names, touch.db, key),
                        None if is_wanted(touch.db, prefix) => _ = whole.insert(touch.db),
                        None => {}
                    }
                    Ok(())
                })?;
                Ok(ControlFlow::Continue(()))
            })?;
        }
        engine.check_database(names.keys().chain(&whole).copied().max())?;
        if !whole.is_empty() {
            // Keys that are to go, and have gone by now, are neither here nor there.
            restoration.note_all_changed();
            let (view, branch) = (engine.view_at(self.to)?, self.branch()?);
            for db in whole {
                engine.each_key(&view, db, &mut |key| add(&mut names, db, key))?;
                engine.each_key(&branch.keyspace, db, &mut |key| add(&mut names, db, key))?;
            }
        }
        let mut unknown = Vec::new();
        for (db, names) in names {
            let of_db = names.into_iter().map(|key| (db, key));
            unknown.extend(of_db.filter(|place| !skipped.contains(place)));
        }
        unknown.retain(|(db, key)| !restoration.note_changed(*db, key));
        self.add_values(unknown, restoration, skipped)?;
        *upto = newest;
        Ok(())
    }

    /// Adds what keys were.
    fn add_values(
        &self,
        places: Vec<Place>,
        restoration: &mut Restoration,
        skipped: &mut BTreeSet<Place>,
    ) -> Result {
        let engine = self.engine;
        let mut readable = Vec::with_capacity(places.len());
        for (db, key) in places {
            if self.to.revision < engine.kept_from(self.to.branch, db, &key)? {
                skipped.insert((db, key));
            } else {
                readable.push((db, key));
            }
        }
        let (mut bytes, max) = (restoration.wanted().memory_bytes(), engine.revision_bytes_max());
        each_value(engine, self.to, readable, &mut |db, key, then| {
            bytes += then.as_ref().map_or(0, |stored| stored.value.memory_bytes()) + key.len();
            check_bytes(bytes, max, "revert by smaller prefixes")?;
            restoration.want(db, key, then);
            Ok(())
        })
    }
}

/// Tells what each of some keys was, whatever the rules on the past say.
pub(super) fn each_value(
    engine: &Engine,
    at: Moment,
    mut places: Vec<Place>,
    tell: &mut Tell<'_>,
) -> Result {
    let is_many = places.len() > NAMED_KEYS_MAX;
    let state = is_many.then(|| state_of(engine, at, &mut places)).transpose()?;
    for (db, key) in places {
        let then = match &state {
            Some(state) => state
                .take(db, &key)?
                .filter(|stored| stored.deadline.is_none_or(|due| due > at.time_ms)),
            None => engine.value_at(at, db, &key)?.map(|(value, deadline)| Stored {
                value,
                deadline,
                revision: Revision::ZERO,
            }),
        };
        tell(db, &key, then)?;
    }
    Ok(())
}

/// The state that has what these keys were. They are put in the order in which
/// it has them.
fn state_of(engine: &Engine, at: Moment, places: &mut Vec<Place>) -> Result<Keyspace> {
    let names: HashSet<Vec<u8>> = places.iter().map(|(_, key)| key.clone()).collect();
    let state = engine.state_of_at(at, &names)?;
    places.retain(|(db, _)| *db < state.databases());
    places.sort_by_cached_key(|(db, key)| (*db, state.hash_of(key)));
    for of_db in places.chunk_by(|a, b| a.0 == b.0) {
        let db = of_db[0].0;
        if state.unloaded_of(db) <= of_db.len() as u64 * READ_ALL_SHARE {
            each_shard(&|shard| Ok(state.load_shard(db, shard)?))?;
        }
    }
    Ok(state)
}

/// Does something for each shard, on as many threads as the machine has, up to a
/// few.
pub(super) fn each_shard(work: &(dyn Fn(usize) -> Result + Sync)) -> Result {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
    let next = AtomicUsize::new(0);
    let run = || -> Result {
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            if shard >= SHARDS {
                return Ok(());
            }
            work(shard)?;
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut result = run();
        for other in others {
            let done = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(done);
        }
        result
    })
}

/// Fails where values are more than one revision brings back.
pub(super) fn check_bytes(bytes: usize, max: usize, what_to_do: &str) -> Result {
    if bytes <= max {
        return Ok(());
    }
    Err(Error::new(format!(
        "ERR the values to bring back exceed {max} bytes, the most that one revision takes with this memory; \
         {what_to_do}"
    )))
}
