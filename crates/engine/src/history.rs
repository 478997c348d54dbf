//! Commands about what has changed, by whom and when, and those that bring
//! back how it was. All of them read records of the log through [`Past`] and
//! hold no lock meanwhile.

mod changed;
mod changes;
pub(crate) mod events;
mod feed;
mod kept;
mod late;
mod left;
pub(crate) mod many;
pub(crate) mod of_key;
mod policy;
mod purge;
pub(crate) mod revert;
pub(crate) mod undo;
mod undoable;
mod upkeep;

use std::ops::ControlFlow;

use base::when::When;
use base::{BranchId, Frame, Revision};
use command::{Args, Error, Result, time_named};
use log::{Record, RecordHeader};

use crate::branch::Line;
use crate::call::Handler;
use crate::engine::Engine;
use crate::past::PastError;
use many::LOOKS_MAX;

pub use feed::Changes;
pub(crate) use feed::{Feeds, open_tracking};
pub(crate) use of_key::whole;
pub(crate) use revert::{Hold, WritersHeld, revision_bytes_max};
pub use undoable::UndoMarks;

/// The handlers, a slice per file.
pub(crate) const FAMILIES: &[&[(&str, Handler)]] = &[
    changes::HANDLERS,
    feed::HANDLERS,
    of_key::HANDLERS,
    policy::HANDLERS,
    purge::HANDLERS,
    revert::HANDLERS,
    undo::HANDLERS,
    upkeep::HANDLERS,
];

/// FROM and TO, both included.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    from: Option<When>,
    to: Option<When>,
}

impl Bounds {
    /// Reads FROM or TO if one of them comes next.
    fn take(&mut self, engine: &Engine, args: &mut Args<'_>) -> Result<bool> {
        let bound = if args.take_word("from") {
            &mut self.from
        } else if args.take_word("to") {
            &mut self.to
        } else {
            return Ok(false);
        };
        *bound = Some(engine.parse_when(args.next()?)?);
        Ok(true)
    }

    /// Reads the transactions that they hold, see [`Bounds::resolve`]. The oldest ones
    /// may be let go of while that goes on: who has not asked for them by FROM gets
    /// those that are left. `read` must have answered nothing when it fails.
    fn read<R>(
        self,
        engine: &Engine,
        resolve: impl Fn() -> Result<Span>,
        mut read: impl FnMut(Span) -> Result<R>,
    ) -> Result<R> {
        let mut looks = 1;
        loop {
            let span = resolve()?;
            let done = read(span);
            let is_late = self.from.is_none()
                && matches!(&done, Err(error) if error.code() == "COMPACTED")
                && engine.needs_past()?.oldest() > span.after;
            if !is_late || looks == LOOKS_MAX {
                return done;
            }
            looks += 1;
        }
    }

    /// The transactions that they hold: those after the first revision, up to
    /// the second. Without FROM as far back as there are any.
    fn resolve(self, engine: &Engine, branch: BranchId, now_ms: u64) -> Result<Span> {
        let past = engine.needs_past()?;
        let (oldest, newest) = (past.oldest(), engine.replicator.committed());
        let after = match self.from {
            None => oldest,
            // Right after the newest one is where a reader goes on later.
            Some(When::Revision(asked)) if asked > newest.next() => {
                return Err(PastError::Future { asked, newest }.into());
            }
            Some(When::Revision(asked)) => {
                let after = Revision(asked.0.saturating_sub(1));
                if after < oldest {
                    return Err(PastError::Compacted { asked, oldest: oldest.next() }.into());
                }
                after
            }
            Some(when) => match time_named(when, now_ms).unwrap_or(now_ms).checked_sub(1) {
                Some(before) => past.at_time(before)?.max(oldest),
                None => oldest,
            },
        };
        let upto = match self.to {
            None => newest,
            Some(to) => engine.moment(branch, to, now_ms)?.revision,
        };
        Ok(Span { branch, after, upto })
    }
}

/// Transactions of a branch's line: those after a revision, up to another.
#[derive(Clone, Copy, Debug)]
struct Span {
    branch: BranchId,
    after: Revision,
    upto: Revision,
}

impl Span {
    fn is_empty(self) -> bool {
        self.upto <= self.after
    }

    /// Visits them, oldest first, until a visit fails or breaks off.
    fn visit(
        self,
        engine: &Engine,
        visit: impl FnMut(Record<'_>) -> Result<ControlFlow<()>>,
    ) -> Result {
        self.visit_those(engine, Line::has, visit)
    }

    /// As [`Span::visit`], but for those that made a branch: what they write was
    /// there before.
    fn visit_changes(
        self,
        engine: &Engine,
        visit: impl FnMut(Record<'_>) -> Result<ControlFlow<()>>,
    ) -> Result {
        self.visit_those(engine, Line::goes_on, visit)
    }

    fn visit_those(
        self,
        engine: &Engine,
        is_one: fn(&Line, Revision, RecordHeader) -> bool,
        mut visit: impl FnMut(Record<'_>) -> Result<ControlFlow<()>>,
    ) -> Result {
        if self.is_empty() {
            return Ok(());
        }
        let (line, mut failure) = (engine.line(self.branch), None);
        engine.needs_past()?.all(self.after, self.upto, &mut |record| {
            if is_one(&line, record.revision, record.header) {
                keep(visit(record), &mut failure)
            } else {
                ControlFlow::Continue(())
            }
        })?;
        failure.map_or(Ok(()), Err)
    }
}

/// A visit's failure ends the visits; it is kept, as they cannot answer it.
fn keep(visited: Result<ControlFlow<()>>, failure: &mut Option<Error>) -> ControlFlow<()> {
    visited.unwrap_or_else(|error| {
        *failure = Some(error);
        ControlFlow::Break(())
    })
}

/// COUNT's argument, at least 1.
pub(crate) fn count(args: &mut Args<'_>) -> Result<usize> {
    let count = args.next_i64()?;
    usize::try_from(count).ok().filter(|&count| count > 0).ok_or_else(|| {
        Error::new(format!("ERR COUNT {count} is below 1, the least that can be asked for"))
    })
}

fn number(value: u64) -> Frame {
    Frame::Integer(integer(value))
}

fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
