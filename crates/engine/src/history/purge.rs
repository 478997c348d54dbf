//! HISTORY.PURGE: what keys were is erased, what they are stays. It is about
//! the branch that the client is on.

mod readers;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{DbIndex, Revision};
use command::args::is_word;
use command::{Args, Error, Result};
use keyspace::effect::{Effect, Effects};
use keyspace::{Buffers, OpenMerge, Purge, Scope, Txn, ValueRef};
use parking_lot::MutexGuard;

use super::many::LOOKS_MAX;
use super::revert::Author;
use super::{Span, events, number};
use crate::aside::{self, Aside};
use crate::branch::{LiveBranch, no_branch};
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("history.purge", purge)];

fn purge(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    // A key may be called `prefix`.
    let is_prefix = args.len() == 3 && args.take_word("prefix");
    let key = args.next()?.to_vec();
    if !args.rest().last().is_some_and(|word| is_word(word, "confirm")) {
        return Err(Error::new(
            "ERR HISTORY.PURGE erases the past of the keys for good; say CONFIRM at the end to do so",
        ));
    }
    args.take_word("confirm");
    args.end()?;
    let author = Author::of(call, "history.purge", None);
    let (branch, db) = (call.session.branch(), call.session.db);
    aside::run(call, move |engine, reply| {
        let at = {
            let held = engine.branch(branch);
            let held = held.ok_or_else(|| no_branch(&engine.branch_name(branch)))?;
            let job = Job { engine, branch: &held, db, key: &key, is_prefix, author: &author };
            job.check_swaps()?;
            let looked = job.look()?;
            if !job.may_have_past(&looked)? {
                reply.integer(0);
                return Ok(Aside { depends_on: engine.replicator.newest(), ..Aside::default() });
            }
            // Until their past begins anew nobody makes a branch or a tag.
            let _turn = job.take_turn()?;
            job.drop_decisions();
            job.begin_anew(looked)?
        };
        if let Some(archive) = engine.archive() {
            archive.settle(at).map_err(|reason| unfinished(at, &reason))?;
        }
        let erased = engine
            .needs_past()?
            .purge(branch, &Purge { db, key, is_prefix, at })
            .map_err(|error| unfinished(at, &error.to_string()))?;
        engine.undo_marks.forget();
        reply.frame(&number(erased));
        Ok(Aside { depends_on: at, written: Some(at), ..Aside::default() })
    })
}

fn unfinished(at: Revision, reason: &str) -> Error {
    let reason = reason.strip_prefix("ERR ").unwrap_or(reason).replace(['\r', '\n'], " ");
    Error::new(format!(
        "ERR nobody can read the past of the keys since revision {at}, but it is not erased from every file: \
         {reason}; HISTORY.PURGE again, or a restart, goes on"
    ))
}

/// Keys that were found.
struct Looked {
    names: BTreeSet<Vec<u8>>,
    /// How far the log was read for them; one key needs no search.
    upto: Option<Revision>,
}

struct Job<'j> {
    engine: &'j Arc<Engine>,
    branch: &'j LiveBranch,
    db: DbIndex,
    key: &'j [u8],
    is_prefix: bool,
    author: &'j Author,
}

impl Job<'_> {
    /// Where databases have changed places, their keys' files cannot be told.
    fn check_swaps(&self) -> Result {
        let past = self.engine.needs_past()?;
        let (oldest, newest) = (past.oldest(), self.engine.replicator.committed());
        let mut swapped = None;
        past.wide(oldest, newest, &mut |record| {
            if record.header.branch != self.branch.id {
                return ControlFlow::Continue(());
            }
            for effect in Effects::new(record.effects).flatten() {
                if let Effect::Swap { a, b } = effect
                    && (a == self.db || b == self.db)
                {
                    swapped = swapped.or(Some((a, b, record.revision)));
                }
            }
            ControlFlow::Continue(())
        })?;
        let Some((a, b, revision)) = swapped else {
            return Ok(past.check_erasable(self.branch.id, self.db)?);
        };
        Err(Error::new(format!(
            "ERR databases {a} and {b} changed places at revision {revision}, so it cannot be told whose past is \
             whose; HISTORY.COMPACT BEFORE r:{} first",
            revision.next()
        )))
    }

    /// Takes the turn of those who change branches, once nobody reads what is to
    /// be erased. To find that out may take long, so others have their turns
    /// meanwhile, unless they come again and again.
    fn take_turn(&self) -> Result<MutexGuard<'_, ()>> {
        let branches = &self.engine.branches;
        for _ in 0..LOOKS_MAX {
            let known = branches.known.read().clone();
            self.check_readers(&known)?;
            let turn = branches.turn.lock();
            if *branches.known.read() == known {
                return Ok(turn);
            }
        }
        let turn = branches.turn.lock();
        let known = branches.known.read().clone();
        self.check_readers(&known)?;
        Ok(turn)
    }

    /// The keys to be erased, as far as they can be found before others wait.
    fn look(&self) -> Result<Looked> {
        if !self.is_prefix {
            return Ok(Looked { names: BTreeSet::from([self.key.to_vec()]), upto: None });
        }
        let mut names = BTreeSet::new();
        let mut upto = self.begin(self.branch.id)?;
        let oldest = self.engine.needs_past()?.view(self.branch.id, upto)?;
        let mut add = |key: &[u8]| {
            if key.starts_with(self.key) {
                names.insert(key.to_vec());
            }
        };
        self.engine.each_key(&oldest, self.db, &mut add)?;
        // Those that were there before rules and the log began.
        self.engine.each_key(&self.branch.keyspace, self.db, &mut add)?;
        self.look_on(&mut names, &mut upto)?;
        Ok(Looked { names, upto: Some(upto) })
    }

    /// Whether there may be anything to erase. Of what is older than the history
    /// nobody knows that.
    fn may_have_past(&self, looked: &Looked) -> Result<bool> {
        let past = self.engine.needs_past()?;
        if past.oldest() > Revision::ZERO || !self.decisions().is_empty() {
            return Ok(true);
        }
        let (branch, begin) = (self.branch.id, self.begin(self.branch.id)?);
        if self.is_prefix {
            // A branch that began anew has lived before.
            return Ok(begin > Revision::ZERO || !looked.names.is_empty());
        }
        let mut is_any = past.key(branch, begin, self.db, self.key, None)?.is_some();
        let newest = self.engine.replicator.newest();
        past.of_key(branch, self.db, self.key, Revision::ZERO, newest, &mut |record| {
            let told = events::read(&record, &mut |touch| {
                is_any |= touch.db == self.db && touch.key == Some(self.key);
                Ok(())
            });
            // What cannot be read may be about it.
            is_any |= told.is_err();
            if is_any { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(is_any)
    }

    /// Merges that wait, without what was decided about the keys to be erased.
    fn decisions(&self) -> Vec<OpenMerge> {
        let (db, key, is_prefix) = (self.db, self.key.to_vec(), self.is_prefix);
        let purge = Purge { db, key, is_prefix, at: Revision::ZERO };
        let known = self.engine.branches.known.read();
        let without = |open: &OpenMerge| open.without(self.branch.id, &purge);
        known.open_merges().values().filter_map(without).collect()
    }

    /// Makes keys undecided again about which merges that wait have decisions. Before
    /// the purge, for whose records everything up to it is rewritten.
    fn drop_decisions(&self) {
        for open in self.decisions() {
            self.engine.note_merge(self.author, &Effect::MergeOpen { row: &open.encode() });
        }
    }

    /// Writes the transaction with which the past of the keys begins anew.
    fn begin_anew(&self, looked: Looked) -> Result<Revision> {
        let Looked { mut names, upto } = looked;
        let Some(mut upto) = upto else {
            let shard = self.engine.keyspace.shard_of(self.key);
            let scope = Scope::Shards(smallvec::smallvec![shard]);
            let done = self.write(&scope, &names, None)?;
            return Ok(done.expect("nothing has to stand still for one key"));
        };
        let _hold = self.engine.writers_held.hold();
        for _ in 0..LOOKS_MAX {
            self.look_on(&mut names, &mut upto)?;
            if let Some(revision) = self.write(&Scope::All, &names, Some(upto))? {
                return Ok(revision);
            }
        }
        Err(Error::new(format!(
            "TRYAGAIN keys changed during each of {LOOKS_MAX} looks at them, though writers were held up; nothing \
             is erased"
        )))
    }

    /// Adds the keys that the log says have been there from `upto` to now, which
    /// it becomes.
    fn look_on(&self, names: &mut BTreeSet<Vec<u8>>, upto: &mut Revision) -> Result {
        let newest = self.engine.replicator.newest();
        let span = Span { branch: self.branch.id, after: *upto, upto: newest };
        span.visit(self.engine, |record| {
            events::read(&record, &mut |touch| {
                if let Some(key) = touch.key
                    && touch.db == self.db
                    && key.starts_with(self.key)
                {
                    names.insert(key.to_vec());
                }
                Ok(())
            })?;
            Ok(ControlFlow::Continue(()))
        })?;
        *upto = newest;
        Ok(())
    }

    /// Tells what the keys are, as the beginning of their past; `None`, and
    /// nothing is done, when the newest revision is not `upto` once the locks
    /// are held.
    fn write(
        &self,
        scope: &Scope,
        names: &BTreeSet<Vec<u8>>,
        upto: Option<Revision>,
    ) -> Result<Option<Revision>> {
        let engine = self.engine;
        let oldest = engine.needs_past()?.oldest();
        let (live, now_ms) = (engine.live(), engine.clock.now_ms());
        let options = engine.txn_options(&live, now_ms, false);
        let mut buffers = Buffers::default();
        let journal = engine.journal_of(self.branch);
        for key in names {
            aside::bring(&self.branch.keyspace, self.db, key)?;
        }
        let mut txn = Txn::begin(&self.branch.keyspace, scope, journal, &mut buffers, options);
        if self.branch.is_gone() {
            let name = engine.branch_name(self.branch.id);
            drop(txn);
            return Err(no_branch(&name));
        }
        if upto.is_some_and(|upto| upto != engine.replicator.newest()) {
            return Ok(None);
        }
        txn.select(self.db);
        names.iter().for_each(|key| txn.load(key));
        txn.check_backing()?;
        let bytes = |key: &Vec<u8>| txn.info(key).map_or(0, |info| info.memory_bytes);
        let max = engine.revision_bytes_max();
        if names.iter().map(bytes).sum::<usize>() > max {
            return Err(Error::new(format!(
                "ERR the values that stay exceed {max} bytes, the most that one revision takes with this memory; \
                 purge by smaller prefixes"
            )));
        }
        self.author.sign(&mut txn);
        txn.purge_past(self.db, self.key, self.is_prefix, oldest);
        for key in names {
            let now = txn.look(key).map(ValueRef::to_value);
            let deadline = txn.deadline(key).flatten();
            txn.erase(key);
            if let Some(value) = now {
                txn.put(key, value, deadline);
            }
        }
        txn.revision().into_iter().for_each(|revision| engine.note_declared(revision));
        let told = engine.tracking.changes(self.author.client, &txn);
        let finished = txn.finish();
        engine.settle_aside(&mut buffers, &finished, told, self.branch.id);
        Ok(finished.written)
    }
}
