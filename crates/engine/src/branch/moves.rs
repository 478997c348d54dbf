//! When databases as wholes became what they are: changed places, or got back
//! what a flush had taken. The history knows; a keyspace knows what was done
//! since it was opened, and is told of the rest.

use std::ops::ControlFlow;

use base::{BranchId, DbIndex, Revision};
use keyspace::Keyspace;
use keyspace::effect::{Effect, Effects};

use super::Line;
use crate::engine::Engine;
use crate::past::PastError;

impl Engine {
    /// Tells every branch when its databases moved last, from as far back as the
    /// history reaches up to `upto`; later records were replayed. It takes as long
    /// as there are flushes and moves.
    pub fn recall_moves(&self, upto: Revision) {
        self.recall_moves_of(BranchId::MAIN, &self.keyspace, upto);
        for branch in self.branches.all() {
            self.recall_moves_of(branch.id, &branch.keyspace, upto);
        }
    }

    /// As [`Engine::recall_moves`], of one branch that nobody is on yet.
    pub(super) fn recall_moves_of(&self, branch: BranchId, keyspace: &Keyspace, upto: Revision) {
        let told = self.each_move(&self.line(branch), upto, &mut |db, revision| {
            if db < keyspace.databases() {
                keyspace.assume_moved(db, revision);
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = told {
            tracing::warn!(
                "look up when databases changed places: {error}; OBJECT REVISION may name earlier changes"
            );
        }
    }

    /// When a database of a branch's line moved last up to a revision; zero if
    /// never, as far as the history tells.
    pub(crate) fn moved(
        &self,
        line: &Line,
        upto: Revision,
        wanted: DbIndex,
    ) -> Result<Revision, PastError> {
        let mut last = Revision::ZERO;
        self.each_move(line, upto, &mut |db, revision| {
            if db != wanted {
                return ControlFlow::Continue(());
            }
            last = revision;
            ControlFlow::Break(())
        })?;
        Ok(last)
    }

    /// Visits the moves of a line's databases up to a revision, newest first.
    fn each_move(
        &self,
        line: &Line,
        upto: Revision,
        visit: &mut dyn FnMut(DbIndex, Revision) -> ControlFlow<()>,
    ) -> Result<(), PastError> {
        let Some(past) = self.past() else { return Ok(()) };
        let upto = upto.min(self.replicator.committed());
        past.wide(past.oldest(), upto, &mut |record| {
            if !line.has(record.revision, record.header) {
                return ControlFlow::Continue(());
            }
            for effect in Effects::new(record.effects).flatten() {
                let (first, second) = match effect {
                    Effect::Swap { a, b } => (a, Some(b)),
                    Effect::Return { db, .. } => (db, None),
                    _ => continue,
                };
                visit(first, record.revision)?;
                second.map_or(ControlFlow::Continue(()), |db| visit(db, record.revision))?;
            }
            ControlFlow::Continue(())
        })
    }
}
