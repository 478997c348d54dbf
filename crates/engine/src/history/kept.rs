//! What of a key's past may be read: what the rules of HISTORY.POLICY keep, and
//! nothing of before HISTORY.PURGE.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use base::{BranchId, DbIndex, Revision};
use command::{Error, Result};
use keyspace::{Keep, PastRules};

use super::of_key::Request;
use super::{Bounds, Span};
use crate::engine::Engine;
use crate::past::PastError;

impl Engine {
    /// The oldest state of a key that may be read, as far as rules and purges
    /// say: what is older may be gone nevertheless.
    pub(crate) fn kept_from(&self, db: DbIndex, key: &[u8]) -> Result<Revision> {
        let rules = self.keyspace.past_rules();
        if rules.is_empty() { Ok(Revision::ZERO) } else { self.kept_by(&rules, db, key) }
    }

    fn kept_by(&self, rules: &PastRules, db: DbIndex, key: &[u8]) -> Result<Revision> {
        let purged = rules.purged(db, key).unwrap_or_default();
        let Some(rule) = rules.rule_of(key) else { return Ok(purged) };
        let kept = match rule.keep {
            Keep::Forever => Revision::ZERO,
            Keep::Nothing => self.replicator.committed().next(),
            Keep::Age(ms) => {
                let at_ms = self.clock.now_ms().saturating_sub(ms);
                match self.needs_past()?.at_time(at_ms) {
                    Ok(revision) => revision,
                    // All that there is is younger.
                    Err(PastError::Compacted { .. }) => Revision::ZERO,
                    Err(error) => return Err(error.into()),
                }
            }
            Keep::Versions(count) => self.nth_version(db, key, count)?,
        };
        Ok(kept.max(purged))
    }

    /// The revision of a key's version that so many come after, itself
    /// included; zero when there are fewer.
    fn nth_version(&self, db: DbIndex, key: &[u8], count: u64) -> Result<Revision> {
        let span = Bounds::default().resolve(self, BranchId::MAIN, 0)?;
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

    /// Fails when a key's state at a revision is not to be read.
    pub(crate) fn check_kept(&self, db: DbIndex, key: &[u8], asked: Revision) -> Result {
        let oldest = self.kept_from(db, key)?;
        if asked < oldest { Err(PastError::Compacted { asked, oldest }.into()) } else { Ok(()) }
    }

    /// For a command that reads keys which its words do not name: fails when a
    /// key of them may have a past that is not to be read.
    pub(crate) fn check_all_kept(&self, command: &str) -> Result {
        let rules = self.keyspace.past_rules();
        let narrows = rules.rules().iter().any(|rule| rule.keep != Keep::Forever);
        if !narrows && rules.purges().is_empty() {
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
        let oldest = engine.kept_from(db, key)?;
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
    db: DbIndex,
    known: BTreeMap<Vec<u8>, Revision>,
}

impl KeptOfMany<'_> {
    pub(super) fn new(engine: &Engine, db: DbIndex) -> KeptOfMany<'_> {
        KeptOfMany { engine, rules: engine.keyspace.past_rules(), db, known: BTreeMap::new() }
    }

    /// Whether it may be told what a key was at a revision.
    pub(super) fn keeps(&mut self, key: &[u8], at: Revision) -> Result<bool> {
        if self.rules.is_empty() {
            return Ok(true);
        }
        let oldest = match self.known.get(key) {
            Some(&oldest) => oldest,
            None => {
                let oldest = self.engine.kept_by(&self.rules, self.db, key)?;
                self.known.insert(key.to_vec(), oldest);
                oldest
            }
        };
        Ok(at >= oldest)
    }
}
