//! UNDO of flushes that left all their keys where they stood.
//!
//! A flush gives a database a fresh place in the archive. It need only stand in the
//! old one again, whatever the number of keys; they come into memory as after a
//! start. What the archive does not have yet has not been freed yet either, and is
//! put back as it was. Some keys that were written meanwhile are written there once
//! more. All else is done key by key, see [`super::undo`].

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{BranchId, Revision, SpaceId};
use command::{Error, Result};
use keyspace::{Buffers, Flush, Scope, Txn, class};

use super::late::{self, Late};
use super::many::LOOKS_MAX;
use super::revert::Job;
use super::undoable::{Deletion, Left};
use crate::checkpoint::Archive;
use crate::reclaim::TakenBack;

/// Keeps the archive from clearing places up that nobody has.
struct Claim {
    archive: Arc<dyn Archive>,
    spaces: Vec<SpaceId>,
    /// Until the archive has reached this, if there is anything to keep.
    upto: Option<Revision>,
}

impl Claim {
    /// `None` where nobody can keep them.
    fn on(archive: &Arc<dyn Archive>, spaces: Vec<SpaceId>) -> Option<Claim> {
        let claim = Claim { archive: archive.clone(), spaces, upto: None };
        claim.spaces.iter().all(|&space| archive.claim(space, None)).then_some(claim)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        for &space in &self.spaces {
            if self.upto.is_some() {
                self.archive.claim(space, self.upto);
            }
            self.archive.release(space);
        }
    }
}

/// What became of deletions.
pub(super) enum TakenOver {
    /// They cannot be taken over, and nothing is done.
    Not,
    /// They could be, and it was only asked.
    Could,
    As(Revision),
}

/// Takes deletions back, newest first, by giving databases the places that they
/// had.
///
/// # Errors
/// Where keys have changed since; nothing is done then.
pub(super) fn take_over(job: &Job<'_>, deletions: &[Deletion]) -> Result<TakenOver> {
    let engine = job.engine;
    let Some(archive) = engine.archive().filter(|_| is_possible(job, deletions)) else {
        return Ok(TakenOver::Not);
    };
    let left: Vec<&Left> = deletions.iter().flat_map(|deletion| &deletion.left).collect();
    let oldest = deletions[deletions.len() - 1].revision;
    let taken_back = TakenBack::of(engine, &flushes(deletions));
    // From then on the archive has all that was flushed, if not the flush.
    if taken_back.is_none() && archive.settle(Revision(deletions[0].revision.0 - 1)).is_err() {
        return Ok(TakenOver::Not);
    }
    let Some(mut claim) = Claim::on(archive, left.iter().map(|left| left.space).collect()) else {
        return Ok(TakenOver::Not);
    };
    // What merges take for past is older than what can be read.
    if engine.needs_past()?.oldest() >= oldest {
        return Ok(TakenOver::Not);
    }
    let (mut late, mut hold) = (Late::new(job, deletions), None);
    for _ in 0..LOOKS_MAX {
        let flushed = taken_back.as_ref().map_or(&[][..], TakenBack::dbs);
        let Some(upto) = late.look_on(flushed)? else { return Ok(TakenOver::Not) };
        if job.is_dry {
            return Ok(TakenOver::Could);
        }
        let (live, now_ms, branch) = (engine.live(), engine.clock.now_ms(), job.branch()?);
        let options = engine.txn_options(&live, now_ms, false);
        let (journal, mut buffers) = (engine.journal_of(&branch), Buffers::default());
        let mut txn = Txn::begin(&branch.keyspace, &Scope::All, journal, &mut buffers, options);
        // What was done after the last look to databases that nobody else has written
        // to is in memory.
        let is_current = left.iter().all(|left| txn.is_untouched(left.db, upto))
            || engine.replicator.newest() == upto;
        if !is_current {
            drop(txn);
            hold.get_or_insert_with(|| engine.writers_held.hold());
            continue;
        }
        if !put_back(job, &mut txn, &left, taken_back)? {
            return Ok(TakenOver::Not);
        }
        let told = engine.tracking.changes(job.author.client, &txn);
        let finished = txn.finish();
        claim.upto = finished.written;
        engine.settle_aside(&mut buffers, &finished, told, branch.id);
        engine.load_anew();
        return Ok(finished.written.map_or(TakenOver::Not, TakenOver::As));
    }
    Ok(TakenOver::Not)
}

/// Lets databases stand where flushes left their keys, with those that they have
/// now. Answers whether those are few enough; else nothing is done.
fn put_back(
    job: &Job<'_>,
    txn: &mut Txn<'_>,
    left: &[&Left],
    mut taken_back: Option<TakenBack<'_>>,
) -> Result<bool> {
    let mut kept = Vec::new();
    for left in left {
        let Some(keys) = late::keys_of(txn, left.db)? else { return Ok(false) };
        kept.push(keys);
    }
    txn.record_always();
    job.author.sign(txn);
    for (left, kept) in left.iter().zip(kept) {
        let flushed = taken_back.as_mut().and_then(TakenBack::next);
        // Their names were looked up, and would be in conflict.
        let back = txn.stand_again_beside(left.db, left.space, &left.keys, flushed, kept);
        back.map_err(|what| Error::new(format!("ERR {what}")))?;
    }
    job.undoes.iter().for_each(|&revision| txn.mark_undone(revision));
    Ok(true)
}

fn flushes(deletions: &[Deletion]) -> Vec<Flush> {
    deletions
        .iter()
        .flat_map(|deletion| {
            let revision = deletion.revision;
            deletion.left.iter().map(move |left| Flush { space: left.space, revision })
        })
        .collect()
}

/// Whether the records say that it can be done, and nobody is to be told of
/// single keys.
fn is_possible(job: &Job<'_>, deletions: &[Deletion]) -> bool {
    let engine = job.engine;
    let oldest = deletions.last().map_or(Revision::ZERO, |deletion| deletion.revision);
    let mut dbs = BTreeSet::new();
    job.to.branch == BranchId::MAIN
        && job.report.is_none()
        && engine.live().event_classes & (class::KEYSPACE | class::KEYEVENT) == 0
        && deletions.iter().all(|it| it.left.len() == it.dbs.len() && !it.has_named && !it.is_late)
        && deletions.iter().flat_map(|deletion| &deletion.dbs).all(|&db| dbs.insert(db))
        && !engine.purges().iter().any(|(_, purge)| purge.at > oldest)
}
