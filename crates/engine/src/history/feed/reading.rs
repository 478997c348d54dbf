//! A piece of the log that is read to those behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{BranchId, DbIndex, Revision};
use command::Result;

use super::group::Watch;
use super::threads::Board;
use crate::engine::Engine;
use crate::history::kept::KeptOfMany;

/// How long reading a piece may take, in nanoseconds, before others have their
/// turn; one value more is read whole.
const PIECE_NS: u64 = 10_000_000;

/// What is read of the past for the records of a piece, and who is told of it.
pub(super) struct Reading<'e> {
    pub(super) engine: &'e Engine,
    board: &'e Board,
    began_ns: u64,
    /// When the last transaction was read, and how long those who are told of it
    /// may take: as long as reading it did, so that at most half of the time goes
    /// into reading what is told in several turns.
    read_ns: Cell<u64>,
    granted_ns: Cell<u64>,
    kept: RefCell<BTreeMap<(BranchId, DbIndex), KeptOfMany<'e>>>,
    /// Those who have changes to be handed over.
    told: RefCell<Vec<Arc<Watch>>>,
    /// How long the past was read, and how much of that is not yet on a watch's
    /// account.
    spent_ns: Cell<u64>,
    open_ns: Cell<u64>,
    /// How long it was read for each watch, by id.
    accounts: RefCell<BTreeMap<u64, u64>>,
}

impl<'e> Reading<'e> {
    pub(super) fn new(engine: &'e Engine, board: &'e Board) -> Reading<'e> {
        Reading {
            engine,
            board,
            began_ns: engine.clock.monotonic_ns(),
            read_ns: Cell::new(0),
            granted_ns: Cell::new(PIECE_NS),
            kept: RefCell::default(),
            told: RefCell::default(),
            spent_ns: Cell::new(0),
            open_ns: Cell::new(0),
            accounts: RefCell::default(),
        }
    }

    /// Whether others have waited long enough.
    pub(super) fn is_over(&self) -> bool {
        self.engine.clock.monotonic_ns() - self.began_ns >= PIECE_NS
    }

    /// A transaction is read, and about to be told.
    pub(super) fn begin_telling(&self) {
        let now_ns = self.engine.clock.monotonic_ns();
        let took_ns = (now_ns - self.began_ns).saturating_sub(self.spent_ns.get());
        self.read_ns.set(now_ns);
        self.granted_ns.set(took_ns.max(PIECE_NS));
    }

    /// Takes those out of `full` whose clients have room again, for whom it waits
    /// if the transaction took long to read. `None`: they are to go on in another
    /// turn.
    pub(super) fn with_room(&self, full: &mut Vec<Arc<Watch>>) -> Option<Vec<Arc<Watch>>> {
        self.hand_over();
        if self.granted_ns.get() <= PIECE_NS {
            return None;
        }
        while !full.is_empty() {
            let over_ns = self.read_ns.get() + self.granted_ns.get();
            let left_ns = over_ns.checked_sub(self.engine.clock.monotonic_ns())?;
            let has_room = |watch: &mut Arc<Watch>| watch.client.outbox.has_room();
            let ready: Vec<Arc<Watch>> = full.extract_if(.., has_room).collect();
            if !ready.is_empty() {
                return Some(ready);
            }
            self.board.wait_for_room(full, Duration::from_nanos(left_ns));
        }
        None
    }

    /// Reads of the past.
    pub(super) fn timed<T>(&self, read: impl FnOnce() -> T) -> T {
        let began_ns = self.engine.clock.monotonic_ns();
        let value = read();
        let took_ns = self.engine.clock.monotonic_ns() - began_ns;
        self.spent_ns.set(self.spent_ns.get() + took_ns);
        self.open_ns.set(self.open_ns.get() + took_ns);
        value
    }

    /// Whether the past was read for so long that who needs more of it should
    /// wait for another turn. Never before something was read.
    pub(super) fn is_spent(&self) -> bool {
        self.spent_ns.get() >= self.granted_ns.get()
    }

    /// Puts what was read of the past since the last time on a watch's account.
    /// Whether it is too much for those who share the piece.
    pub(super) fn charge(&self, watch: u64) -> bool {
        match self.open_ns.take() {
            0 => false,
            open_ns => {
                let mut accounts = self.accounts.borrow_mut();
                let account = accounts.entry(watch).or_default();
                *account += open_ns;
                *account >= self.granted_ns.get() / 2
            }
        }
    }

    /// A watch has changes that wait for those that come after them.
    pub(super) fn gathers(&self, watch: &Arc<Watch>) {
        self.told.borrow_mut().push(watch.clone());
    }

    /// Hands over what was gathered.
    pub(super) fn hand_over(&self) {
        self.told.borrow_mut().drain(..).for_each(|watch| watch.hand_over());
    }

    /// Whether a watch of a branch may be told what a key was at a revision,
    /// which is one of before the watch or not.
    pub(super) fn may_tell(
        &self,
        (branch, db): (BranchId, DbIndex),
        key: &[u8],
        at: Revision,
        is_past: bool,
    ) -> Result<bool> {
        let mut all = self.kept.borrow_mut();
        let kept =
            all.entry((branch, db)).or_insert_with(|| KeptOfMany::new(self.engine, branch, db));
        match is_past {
            // How far a rule goes back may have to be counted.
            true if kept.differs() => self.timed(|| kept.keeps(key, at)),
            true => Ok(true),
            false => Ok(kept.has(key, at)),
        }
    }
}
