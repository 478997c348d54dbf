//! Moments of the past: how a client names them, and what they are.

use base::when::When;
use base::{BranchId, Revision};
use command::{Result, parse_when, tag_name, time_named};

use crate::branch::no_tag;
use crate::engine::Engine;
use crate::past::PastError;

/// A moment of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// On whose line.
    pub(crate) branch: BranchId,
    pub(crate) revision: Revision,
    /// What the clock said, in milliseconds since 1970: the revision's own
    /// time, or the time that was asked for.
    pub(crate) time_ms: u64,
    /// The branch as it was at this revision, should it have begun anew since;
    /// `Revision(u64::MAX)` for the one that is there.
    pub(crate) as_of: Revision,
}

/// A `<when>` as a client names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    when: When,
    /// The branch of the tag that it names, if it does.
    tagged: Option<BranchId>,
}

impl From<When> for Point {
    fn from(when: When) -> Point {
        Point { when, tagged: None }
    }
}

impl Point {
    /// The branch of the tag that it names, or another one.
    pub(crate) fn branch_or(self, other: BranchId) -> BranchId {
        self.tagged.unwrap_or(other)
    }
}

impl Moment {
    /// One of the line that a branch has.
    pub(crate) fn new(branch: BranchId, revision: Revision, time_ms: u64) -> Moment {
        Moment { branch, revision, time_ms, as_of: Revision(u64::MAX) }
    }
}

/// A moment whose time may not be known yet: to look it up takes the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) moment: Moment,
    is_timed: bool,
}

impl From<Moment> for At {
    fn from(moment: Moment) -> At {
        At { moment, is_timed: true }
    }
}

impl At {
    pub(super) fn time_ms(self) -> Option<u64> {
        self.is_timed.then_some(self.moment.time_ms)
    }
}

/// What the clock says where no key has a deadline.
pub(super) const ANY_TIME: u64 = 0;

impl Engine {
    /// Reads a `<when>`; a tag stands for the revision that it names.
    pub(crate) fn parse_when(&self, arg: &[u8]) -> Result<When> {
        self.parse_point(arg).map(|point| point.when)
    }

    /// As [`Engine::parse_when`], for those to whom a tag's branch matters too.
    pub(crate) fn parse_point(&self, arg: &[u8]) -> Result<Point> {
        let Some(name) = tag_name(arg) else { return parse_when(arg).map(Point::from) };
        let known = self.branches.known.read();
        let tag = known.tag(name).ok_or_else(|| no_tag(name))?;
        Ok(Point { when: When::Revision(tag.revision), tagged: Some(tag.branch) })
    }

    /// When a revision ran. That of a tag is known as long as the tag.
    fn time_ms_of(&self, revision: Revision) -> Result<u64> {
        let known = self.branches.known.read();
        let tagged = known.tags().values().find(|tag| tag.revision == revision);
        match tagged.map(|tag| tag.time_ms) {
            Some(time_ms) => Ok(time_ms),
            None => Ok(self.needs_past()?.time_of(revision)?),
        }
    }

    /// The moment of a branch's line that a client names. A tag of the branch names
    /// it as it was, whether or not it has begun anew since.
    pub(crate) fn moment(
        &self,
        branch: BranchId,
        point: impl Into<Point>,
        now_ms: u64,
    ) -> Result<Moment> {
        let (past, point) = (self.needs_past()?, point.into());
        let newest = self.replicator.committed();
        let (revision, time_ms) = match (point.when, time_named(point.when, now_ms)) {
            (When::Revision(asked), _) if asked > newest => {
                return Err(PastError::Future { asked, newest }.into());
            }
            // The empty database was never written.
            (When::Revision(Revision::ZERO), _) if past.oldest() == Revision::ZERO => {
                (Revision::ZERO, 0)
            }
            (When::Revision(revision), _) => (revision, self.time_ms_of(revision)?),
            (_, time_ms) => {
                let time_ms = time_ms.unwrap_or(now_ms);
                (past.at_time(time_ms)?.min(newest), time_ms)
            }
        };
        let moment = Moment::new(branch, revision, time_ms);
        Ok(Moment { as_of: self.life_of(branch, point), ..moment })
    }

    /// As of which revision a branch is meant: that of a tag of it.
    pub(crate) fn life_of(&self, branch: BranchId, point: Point) -> Revision {
        let known = self.branches.known.read();
        match point {
            Point { when: When::Revision(at), tagged: Some(tagged) }
                if tagged == branch && known.lineage(branch, at).is_some() =>
            {
                at
            }
            _ => Revision(u64::MAX),
        }
    }

    /// As [`Engine::moment`], but of a revision the time is looked up only when
    /// somebody needs it.
    pub(super) fn at(&self, branch: BranchId, point: Point, now_ms: u64) -> Result<At> {
        let past = self.needs_past()?;
        match point.when {
            When::Revision(revision)
                if revision >= past.oldest() && revision <= self.replicator.committed() =>
            {
                let as_of = self.life_of(branch, point);
                let moment = Moment { as_of, ..Moment::new(branch, revision, ANY_TIME) };
                Ok(At { moment, is_timed: false })
            }
            _ => self.moment(branch, point, now_ms).map(At::from),
        }
    }

    pub(super) fn time_of(&self, at: At) -> Result<Moment> {
        let At { moment, is_timed } = at;
        if is_timed {
            return Ok(moment);
        }
        let timed = self.moment(moment.branch, When::Revision(moment.revision), 0)?;
        Ok(Moment { time_ms: timed.time_ms, ..moment })
    }
}
