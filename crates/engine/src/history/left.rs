//! UNDO of flushes that left all their keys where they stood.
//!
//! A flush gives a database a fresh place in the archive. Where nothing has been
//! written there since, it need only stand in the old one again, whatever the
//! number of keys; they come into memory as after a start. What the archive does
//! not have yet has not been freed yet either, and is put back as it was. All else
//! is done key by key, see [`super::undo`].

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision, SpaceId};
use command::{Error, Result};
use keyspace::{Buffers, Flush, Scope, Txn, class};

use super::Span;
use super::events::{self, What};
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

/// Takes deletions back, newest first, by giving databases the places that they
/// had. Answers the revision; `None` where that does not do, and nothing is done.
pub(super) fn take_over(job: &Job<'_>, deletions: &[Deletion]) -> Result<Option<Revision>> {
    let engine = job.engine;
    let Some(archive) = engine.archive().filter(|_| is_possible(job, deletions)) else {
        return Ok(None);
    };
    let left: Vec<&Left> = deletions.iter().flat_map(|deletion| &deletion.left).collect();
    let oldest = deletions[deletions.len() - 1].revision;
    let mut taken_back = TakenBack::of(engine, &flushes(deletions));
    // From then on the archive has all that was flushed, if not the flush.
    if taken_back.is_none() && archive.settle(Revision(deletions[0].revision.0 - 1)).is_err() {
        return Ok(None);
    }
    let Some(mut claim) = Claim::on(archive, left.iter().map(|left| left.space).collect()) else {
        return Ok(None);
    };
    // What merges take for past is older than what can be read.
    if engine.needs_past()?.oldest() >= oldest {
        return Ok(None);
    }
    let Some(upto) = untouched_until(job, deletions)? else { return Ok(None) };
    let (live, now_ms, branch) = (engine.live(), engine.clock.now_ms(), job.branch()?);
    let options = engine.txn_options(&live, now_ms, false);
    let (journal, mut buffers) = (engine.journal_of(&branch), Buffers::default());
    let mut txn = Txn::begin(&branch.keyspace, &Scope::All, journal, &mut buffers, options);
    // What was done after the last look is in memory.
    if !left.iter().all(|left| txn.is_untouched(left.db, upto)) {
        return Ok(None);
    }
    txn.record_always();
    job.author.sign(&mut txn);
    for left in left {
        let flushed = taken_back.as_mut().and_then(TakenBack::next);
        let back = txn.stand_again(left.db, left.space, &left.keys, flushed);
        back.map_err(|what| Error::new(format!("ERR {what}")))?;
    }
    job.undoes.iter().for_each(|&revision| txn.mark_undone(revision));
    let told = engine.tracking.changes(job.author.client, &txn);
    let finished = txn.finish();
    claim.upto = finished.written;
    engine.settle_aside(&mut buffers, &finished, told, branch.id);
    engine.load_anew();
    Ok(finished.written)
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
        && !job.is_dry
        && engine.live().event_classes & (class::KEYSPACE | class::KEYEVENT) == 0
        && deletions.iter().all(|it| it.left.len() == it.dbs.len() && !it.has_named && !it.is_late)
        && deletions.iter().flat_map(|deletion| &deletion.dbs).all(|&db| dbs.insert(db))
        && !engine.purges().iter().any(|(_, purge)| purge.at > oldest)
}

/// The revision up to which nothing was done to the databases since they were
/// flushed; `None` if something was.
fn untouched_until(job: &Job<'_>, deletions: &[Deletion]) -> Result<Option<Revision>> {
    // All up to there can be read; a later one that is under way is met in memory.
    let newest = job.engine.replicator.committed();
    let oldest = deletions.last().map_or(newest, |deletion| deletion.revision);
    let mut flushed: BTreeSet<DbIndex> = BTreeSet::new();
    let mut is_touched = false;
    let span = Span { branch: job.to.branch, after: Revision(oldest.0 - 1), upto: newest };
    span.visit(job.engine, |record| {
        let own = deletions.iter().find(|deletion| deletion.revision == record.revision);
        events::read(&record, &mut |touch| {
            match (touch.what, own) {
                // Before that it does not count.
                (What::Flushed, Some(own)) if own.dbs.contains(&touch.db) => {
                    flushed.insert(touch.db);
                }
                // What is empty may well be emptied.
                (What::Flushed, _) => {}
                _ => is_touched |= flushed.contains(&touch.db),
            }
            Ok(())
        })?;
        Ok(if is_touched { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok((!is_touched).then_some(newest))
}
