//! What of a key's past may be read: what the rules of HISTORY.POLICY keep, and
//! nothing of before HISTORY.PURGE.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use command::{Error, Result};
use keyspace::{Keep, PastRules, Purge};

use super::of_key::Request;
use super::{Bounds, Span};
use crate::engine::Engine;
use crate::past::PastError;

impl Engine {
    /// The oldest state of a key that may be read, as far as rules and purges
    /// say: what is older may be gone nevertheless.
    pub(crate) fn kept_from(&self, branch: BranchId, db: DbIndex, key: &[u8]) -> Result<Revision> {
        let rules = self.keyspace.past_rules();
        if branch == BranchId::MAIN && rules.is_empty() {
            return Ok(Revision::ZERO);
        }
        self.kept_by(&rules, branch, db, key)
    }

    /// The rules are those of every branch.
    fn kept_by(
        &self,
        rules: &PastRules,
        branch: BranchId,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Revision> {
        let purged = self.purged_from(branch, db, key);
        let Some(rule) = rules.rule_of(key) else { return Ok(purged) };
        let kept = match rule.keep {
            Keep::Forever => Revision::ZERO,
            Keep::Nothing => self.replicator.committed().next(),
            // Nobody knows how old what the log has is.
            Keep::Age(_) | Keep::Versions(_) if self.past().is_none() => Revision::ZERO,
            Keep::Age(ms) => {
                let at_ms = self.clock.now_ms().saturating_sub(ms);
                match self.needs_past()?.at_time(at_ms) {
                    Ok(revision) => revision,
                    // All that there is is younger.
                    Err(PastError::Compacted { .. }) => Revision::ZERO,
                    Err(error) => return Err(error.into()),
                }
            }
            Keep::Versions(count) => self.nth_version(branch, db, key, count)?,
        };
        Ok(kept.max(purged))
    }

    /// The oldest state of a key on a branch's line that was not erased.
    pub(crate) fn purged_from(&self, branch: BranchId, db: DbIndex, key: &[u8]) -> Revision {
        if branch == BranchId::MAIN {
            return self.keyspace.past_rules().purged(db, key).unwrap_or_default();
        }
        let (mut oldest, mut left) = (Revision::ZERO, Revision::ZERO);
        for reach in self.line(branch).reaches() {
            let purged = self.branch(reach.branch).and_then(|branch| {
                let rules = branch.keyspace.past_rules();
                rules.purged(db, key)
            });
            // What was purged after a line had left that branch is all that it
            // had of it.
            let from = purged.map(|at| if at <= reach.upto { at } else { left });
            oldest = oldest.max(from.unwrap_or_default());
            left = reach.after.next();
        }
        oldest
    }

    /// Whether the past of any key of a branch's line was erased.
    fn has_purges(&self, branch: BranchId) -> bool {
        let line = self.line(branch);
        let mut branches = line.reaches().iter().filter_map(|reach| self.branch(reach.branch));
        branches.any(|branch| !branch.keyspace.past_rules().purges().is_empty())
    }

    /// Everything that was erased, with its branch.
    #[must_use]
    pub fn purges(&self) -> Vec<(BranchId, Purge)> {
        let main = self.keyspace.past_rules();
        let mut all: Vec<_> =
            main.purges().iter().map(|purge| (BranchId::MAIN, purge.clone())).collect();
        for branch in self.branches.all() {
            let rules = branch.keyspace.past_rules();
            all.extend(rules.purges().iter().map(|purge| (branch.id, purge.clone())));
        }
        all
    }

    /// The revision of a key's version on a branch that so many come after,
    /// itself included; zero when there are fewer.
    fn nth_version(
        &self,
        branch: BranchId,
        db: DbIndex,
        key: &[u8],
        count: u64,
    ) -> Result<Revision> {
        let span = Bounds::default().resolve(self, branch, 0)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let request = Request::of_versions(db, key, span, count);
        let (mut seen, mut found) = (0, Revision::ZERO);
        request.visit(self, &mut |version| {
            seen += 1;
            if seen < count {
                return ControlFlow::Continue(());
            }
            found = version.revision();
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Whether the state at a revision is the present, which is always to be read.
    fn is_present(&self, asked: Revision) -> bool {
        asked >= self.replicator.committed()
    }

    /// Fails when a key's state at a revision of a branch's line is not to be
    /// read.
    pub(crate) fn check_kept(
        &self,
        branch: BranchId,
        asked: Revision,
        db: DbIndex,
        key: &[u8],
    ) -> Result {
        if self.is_present(asked) {
            return Ok(());
        }
        let oldest = self.kept_from(branch, db, key)?;
        if asked < oldest { Err(PastError::Compacted { asked, oldest }.into()) } else { Ok(()) }
    }

    /// For a command that reads keys of a branch's past which its words do not
    /// name: fails when a key of them may have a past that is not to be read.
    pub(crate) fn check_all_kept(
        &self,
        branch: BranchId,
        asked: Revision,
        command: &str,
    ) -> Result {
        if self.is_present(asked) {
            return Ok(());
        }
        let rules = self.keyspace.past_rules();
        let narrows = rules.rules().iter().any(|rule| rule.keep != Keep::Forever);
        if !narrows && !self.has_purges(branch) {
            return Ok(());
        }
        Err(Error::new(format!(
            "COMPACTED {command} reads keys that it does not name, and the past of some keys is not kept; see \
             HISTORY.POLICY LIST"
        )))
    }
}

impl Bounds {
    /// As [`Bounds::resolve`], for the transactions of one key: those that may
    /// be read.
    pub(super) fn resolve_for(
        self,
        engine: &Engine,
        branch: BranchId,
        now_ms: u64,
        db: DbIndex,
        key: &[u8],
    ) -> Result<Span> {
        let span = self.resolve(engine, branch, now_ms)?;
        let oldest = engine.kept_from(branch, db, key)?;
        // The oldest state that is kept is what its transaction made.
        let before = Revision(oldest.0.saturating_sub(1));
        if span.after >= before {
            return Ok(span);
        }
        match self.from {
            Some(_) => Err(PastError::Compacted { asked: span.after.next(), oldest }.into()),
            None => Ok(Span { after: before, ..span }),
        }
    }
}

/// What of many keys' past may be read.
pub(super) struct KeptOfMany<'e> {
    engine: &'e Engine,
    rules: Arc<PastRules>,
    /// Whether the past of some keys is kept otherwise than that of all.
    differs: bool,
    branch: BranchId,
    db: DbIndex,
    known: BTreeMap<Vec<u8>, Revision>,
}

impl KeptOfMany<'_> {
    pub(super) fn new(engine: &Engine, branch: BranchId, db: DbIndex) -> KeptOfMany<'_> {
        let rules = engine.keyspace.past_rules();
        let differs = !rules.rules().is_empty() || engine.has_purges(branch);
        KeptOfMany { engine, rules, differs, branch, db, known: BTreeMap::new() }
    }

    /// Whether the past of some keys is kept otherwise than that of all.
    pub(super) fn differs(&self) -> bool {
        self.differs
    }

    /// Whether it may be told what a key was at a revision.
    pub(super) fn keeps(&mut self, key: &[u8], at: Revision) -> Result<bool> {
        if !self.differs {
            return Ok(true);
        }
        let oldest = match self.known.get(key) {
            Some(&oldest) => oldest,
            None => {
                let oldest = self.engine.kept_by(&self.rules, self.branch, self.db, key)?;
                self.known.insert(key.to_vec(), oldest);
                oldest
            }
        };
        Ok(at >= oldest)
    }

    /// As [`KeptOfMany::keeps`], for whoever has waited for it since: rules are
    /// about the past alone.
    pub(super) fn has(&self, key: &[u8], at: Revision) -> bool {
        !self.differs || at >= self.engine.purged_from(self.branch, self.db, key)
    }
}
