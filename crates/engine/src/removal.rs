//! REMOVE by itself: the keys are found and their record is put together beside
//! everybody else, see [`Sweep`]; all locks are held for a moment only. In EXEC it
//! is a command on data as others are.

use std::sync::Arc;

use base::{BranchId, DbIndex};
use command::remove::Removal;
use command::{Command, Error, Result};
use keyspace::effect::Effect;
use keyspace::{Buffers, Finished, Scope, Sweep, Txn, class};

use crate::aside::{self, Aside};
use crate::branch::no_branch;
use crate::call::Call;
use crate::engine::Engine;
use crate::execute::{Outcome, borrow};
use crate::history::many::LOOKS_MAX;
use crate::history::revert::Author;

/// Looks beside writers who keep making and removing such keys.
const LOOKS_BESIDE_MAX: usize = 8;

/// Names that are looked at with all locks held, about.
const FEW_NAMES: usize = 100;

/// Whether a command on data runs here instead.
pub(crate) fn is_removal(command: &Command) -> bool {
    matches!(command.full_name.as_str(), "remove|prefix" | "remove|match")
}

/// A REMOVE on its way.
struct Job<'j> {
    engine: &'j Arc<Engine>,
    branch: BranchId,
    db: DbIndex,
    author: &'j Author,
    removal: Removal<'j>,
}

/// REMOVE PREFIX and REMOVE MATCH, with all their words.
pub(crate) fn run(call: &mut Call<'_, '_>, argv: &[&[u8]]) -> Result<Outcome> {
    Removal::read(argv)?;
    let author = Author::of(call, &call.command.full_name, None);
    let (branch, db) = (call.session.branch(), call.session.db);
    let words: Vec<Vec<u8>> = argv.iter().map(|word| word.to_vec()).collect();
    aside::run(call, move |engine, reply| {
        let removal = Removal::read(&borrow(&words))?;
        let (keys, finished) = Job { engine, branch, db, author: &author, removal }.run()?;
        reply.count(keys);
        let Finished { depends_on, written, undo_until_ms, .. } = finished;
        Ok(Aside { depends_on, written, undo_until_ms })
    })
}

impl Job<'_> {
    /// Answers how many keys there were.
    fn run(&self) -> Result<(usize, Finished)> {
        let (engine, live) = (self.engine, self.engine.live());
        let branch = engine.branch(self.branch);
        let branch = branch.ok_or_else(|| no_branch(&engine.branch_name(self.branch)))?;
        let mut sweep = self.removal.sweep(&branch.keyspace, self.db, &live.data);
        let mut buffers = Buffers::default();
        for _ in 0..LOOKS_MAX {
            find_beside(engine, &mut sweep, &self.removal)?;
            if !self.removal.is_dry {
                self.encode(&mut sweep);
            }
            let options = engine.txn_options(&live, engine.clock.now_ms(), false);
            let journal = engine.journal_of(&branch);
            let mut txn = Txn::begin(&branch.keyspace, &Scope::All, journal, &mut buffers, options);
            if branch.is_gone() {
                drop(txn);
                return Err(no_branch(&engine.branch_name(self.branch)));
            }
            if !self.removal.settle(&mut txn, &mut sweep, &live.data)? {
                continue;
            }
            let keys = sweep.len();
            if self.removal.is_dry {
                return Ok((keys, txn.finish()));
            }
            let has_listeners = live.event_classes & (class::KEYSPACE | class::KEYEVENT) != 0;
            if has_listeners || engine.has_effect_readers() {
                txn.record_always();
            }
            if engine.past().is_some() {
                self.author.sign(&mut txn);
                if let Some(until_ms) = engine.undo_until_ms(&live, txn.now_ms()) {
                    txn.keep_flushed(until_ms, u64::MAX);
                }
            }
            txn.remove_swept(&mut sweep, self.removal.is_for_good);
            let told = engine.tracking.changes(self.author.client, &txn);
            let finished = txn.finish();
            engine.wake_writer();
            // Clients come first where there are not processors for all.
            let gone = sweep.finish(std::thread::yield_now);
            buffers.add_events(live.event_classes);
            engine.settle_aside(&mut buffers, &finished, told, branch.id);
            engine.dispose(vec![gone?]);
            return Ok((keys, finished));
        }
        Err(changes_always())
    }

    /// Puts the record together, about as it will be.
    fn encode(&self, sweep: &mut Sweep<'_>) {
        let (engine, mut head) = (self.engine, Vec::new());
        if engine.past().is_some() {
            head.push(self.author.origin());
            let until_ms = engine.undo_until_ms(&engine.live(), engine.clock.now_ms());
            let until_ms = until_ms.filter(|_| !self.removal.is_for_good);
            let (keys, bytes) = (sweep.len() as u64, sweep.bytes());
            head.extend(until_ms.map(|until_ms| Effect::Undoable { keys, bytes, until_ms }));
        }
        sweep.encode(&head);
    }
}

/// Finds keys until there is little left to be looked at.
pub(crate) fn find_beside(engine: &Engine, sweep: &mut Sweep<'_>, removal: &Removal<'_>) -> Result {
    for _ in 0..LOOKS_BESIDE_MAX {
        let names = removal.look(sweep, engine.clock.now_ms(), &engine.live().data)?;
        if names <= FEW_NAMES {
            break;
        }
    }
    Ok(())
}

/// Whenever all locks were held, the database was another one.
pub(crate) fn changes_always() -> Error {
    Error::new(format!(
        "TRYAGAIN the database was flushed, or changed places, during each of {LOOKS_MAX} looks at it; nothing is \
         changed"
    ))
}
