//! BRANCH DIFF: the keys in which two branches differ.
//!
//! What neither has changed since they were one is equal in both; so their
//! records since then name all that can differ, and what others wrote meanwhile
//! is not read. Only where the history does not reach so far back every key of
//! both is compared.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use base::{BranchId, DbIndex, Frame, Reply, Revision, glob};
use command::{Args, Error, Result};
use keyspace::merge::{Difference, Version, difference};
use parking_lot::Mutex;

use super::changes::{Changes, Everything, Search};
use super::common::{Then, parted};
use super::line::Line;
use super::values::Values;
use crate::aside::{self, Aside};
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::history::of_key::whole;
use crate::travel::{Moment, Point};

pub(super) const HANDLERS: &[(&str, Handler)] = &[("branch|diff", diff)];

/// Listings whose keys are kept for their next page.
const LISTINGS_MAX: usize = 8;

/// Bytes of them all, about.
const LISTINGS_BYTES_MAX: usize = 64 << 20;

/// How long a listing is kept of which no page is asked for: who has not
/// come back by then mostly does not.
const LISTING_IDLE_NS: u64 = 60_000_000_000;

/// Rows of a reply without COUNT.
const ROWS: usize = 100;

struct Asked {
    db: DbIndex,
    pattern: Option<Vec<u8>>,
    count: usize,
    with_values: bool,
    is_summary: bool,
}

/// Where a listing goes on: at which revisions, behind which key.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    revisions: [Revision; 2],
    key: Vec<u8>,
}

impl Cursor {
    /// `0` is the beginning.
    fn parse(word: &[u8]) -> Result<Option<Cursor>> {
        if word == b"0" {
            return Ok(None);
        }
        let parsed = std::str::from_utf8(word).ok().and_then(|text| {
            let mut parts = text.split('-');
            let mut revision = || parts.next()?.parse().ok().map(Revision);
            let revisions = [revision()?, revision()?];
            let hex = parts.next().filter(|hex| hex.len() % 2 == 0)?;
            let key = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
            parts.next().is_none().then_some(())?;
            Some(Cursor { revisions, key: key.collect::<Option<_>>()? })
        });
        parsed.map(Some).ok_or_else(|| {
            Error::new("ERR the CURSOR is none that BRANCH DIFF gave; 0 begins anew")
        })
    }

    fn write(&self) -> String {
        let [a, b] = self.revisions;
        let hex: String = self.key.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{a}-{b}-{hex}")
    }
}

fn diff(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let sides = [args.next()?, args.next()?];
    let mut asked = Asked {
        db: call.session.db,
        pattern: None,
        count: ROWS,
        with_values: false,
        is_summary: false,
    };
    let mut cursor = None;
    while !args.is_empty() {
        if args.take_word("match") {
            asked.pattern = Some(args.next()?.to_vec());
        } else if args.take_word("count") {
            asked.count = crate::history::count(&mut args)?;
        } else if args.take_word("cursor") {
            cursor = Cursor::parse(args.next()?)?;
        } else if args.take_word("values") {
            asked.with_values = true;
        } else if args.take_word("summary") {
            asked.is_summary = true;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let sides = sides.map(|side| named(call.engine, side));
    let [a, b] = sides;
    let (sides, now_ms) = ([a?, b?], call.now_ms);
    aside::run(call, move |engine, reply| {
        let newest = engine.replicator.committed();
        let is_past = sides.map(|(_, when)| when.is_some());
        let mut moments = Vec::new();
        for (at, (branch, when)) in sides.into_iter().enumerate() {
            let revision = match (&cursor, when) {
                (Some(cursor), _) => cursor.revisions[at],
                (None, Some(when)) => engine.moment(branch, when, now_ms)?.revision,
                (None, None) => newest,
            };
            // A time just now may name what was written since this began.
            let newest = engine.replicator.committed();
            if revision > newest {
                return Err(Error::new(format!(
                    "FUTUREREV {revision} is newer than the current revision, {newest}"
                )));
            }
            let moment = Moment::new(branch, revision, now_ms);
            let as_of = when.map_or(moment.as_of, |point| engine.life_of(branch, point));
            moments.push(Moment { as_of, ..moment });
        }
        let moments = [moments[0], moments[1]];
        let after = cursor.map(|cursor| cursor.key);
        Listing { engine, asked: &asked, moments, is_past }.write(after, reply)?;
        let depends_on = moments.iter().map(|moment| moment.revision).fold(newest, Revision::max);
        Ok(Aside { depends_on, ..Aside::default() })
    })
}

/// A branch and perhaps a time: `dev@-10m`.
fn named(engine: &Engine, side: &[u8]) -> Result<(BranchId, Option<Point>)> {
    let at = side.iter().position(|byte| *byte == b'@');
    let (name, when) = match at {
        Some(at) => (&side[..at], Some(engine.parse_point(&side[at + 1..])?)),
        None => (side, None),
    };
    Ok((engine.branch_named(name)?.id, when))
}

/// What a listing is of. As long as all of it is the same, so are the keys that
/// may differ: what is written later is on neither side.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    db: DbIndex,
    pattern: Option<Vec<u8>>,
    /// Up to the revisions of the listing.
    lines: [Line; 2],
    /// How far the history reaches back.
    oldest: Option<Revision>,
}

/// The keys that may differ.
#[derive(Debug)]
struct Candidates {
    keys: BTreeSet<Vec<u8>>,
    /// What has happened on each side since they parted.
    sides: [Arc<Changes>; 2],
    /// Whether the history reaches so far back.
    reaches: bool,
    /// What they take in memory, about.
    bytes: usize,
}

/// What a key of [`Candidates`] takes beside its name, which is there twice at
/// least, about.
const KEY_BYTES: usize = 200;

/// The keys of the listings that go on, the one asked for last at the end.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    subject: Subject,
    candidates: Arc<Candidates>,
    /// When it was asked for last, by the monotonic clock.
    asked_ns: u64,
}

impl Listings {
    /// Takes out what is known of a listing.
    fn take(&self, subject: &Subject) -> Option<Arc<Candidates>> {
        let mut kept = self.0.lock();
        let at = kept.iter().position(|it| it.subject == *subject)?;
        Some(kept.remove(at).candidates)
    }

    /// Keeps it for the next page, instead of what was not asked for longest.
    fn keep(&self, subject: Subject, candidates: Arc<Candidates>, asked_ns: u64) {
        if candidates.bytes > LISTINGS_BYTES_MAX {
            return;
        }
        let mut kept = self.0.lock();
        kept.push(Kept { subject, candidates, asked_ns });
        while kept.len() > LISTINGS_MAX
            || kept.iter().map(|it| it.candidates.bytes).sum::<usize>() > LISTINGS_BYTES_MAX
        {
            kept.remove(0);
        }
    }

    /// Lets go of those that nobody has asked for lately; of all where memory is
    /// short.
    fn forget_idle(&self, now_ns: u64, is_memory_short: impl FnOnce() -> bool) {
        let mut kept = self.0.lock();
        if kept.is_empty() {
            return;
        }
        if is_memory_short() {
            kept.clear();
        }
        kept.retain(|it| now_ns.saturating_sub(it.asked_ns) < LISTING_IDLE_NS);
    }
}

impl Engine {
    /// Lets go of what is kept for the next page of BRANCH DIFF and is not asked
    /// for. The binary calls it `hz` times a second.
    pub fn forget_listings(&self) {
        let is_memory_short = || self.is_past_limit(&self.live());
        self.branches.listings.forget_idle(self.clock.monotonic_ns(), is_memory_short);
    }
}

struct Listing<'l> {
    engine: &'l Arc<Engine>,
    asked: &'l Asked,
    moments: [Moment; 2],
    /// Which of them were asked for by a time.
    is_past: [bool; 2],
}

impl Listing<'_> {
    fn write(&self, after: Option<Vec<u8>>, reply: &mut dyn Reply) -> Result {
        let lines = self.moments.map(|it| self.engine.line_of(it).until(it.revision));
        let (db, pattern) = (self.asked.db, self.asked.pattern.clone());
        let oldest = self.engine.past().map(|past| past.oldest());
        let subject = Subject { db, pattern, lines, oldest };
        let listings = &self.engine.branches.listings;
        let known = after.as_ref().and_then(|_| listings.take(&subject));
        let candidates = known.map_or_else(|| self.candidates(&subject.lines).map(Arc::new), Ok)?;
        let [mut was, mut is] = self.values(&candidates, &subject.lines);
        let (mut rows, mut sums) = (Vec::new(), [0i64; 4]);
        let mut next = None;
        let behind = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        for key in candidates.keys.range::<Vec<u8>, _>((behind, Bound::Unbounded)) {
            if !self.asked.is_summary && rows.len() == self.asked.count {
                next = Some(());
                break;
            }
            if !self.is_kept(0, key)? || !self.is_kept(1, key)? {
                continue;
            }
            let [old, new] = [was.get(key)?, is.get(key)?];
            let Some(kind) = difference(version(&old), version(&new)) else { continue };
            sums[kind as usize] += 1;
            if !self.asked.is_summary {
                let row = self.row(key, kind, &old, &new);
                rows.push((key, row));
            }
        }
        if self.asked.is_summary {
            reply.map(4);
            for (name, sum) in ["added", "changed", "removed", "ttl"].iter().zip(sums) {
                reply.bulk(name.as_bytes());
                reply.integer(sum);
            }
            return Ok(());
        }
        if next.is_some() {
            listings.keep(subject, candidates.clone(), self.engine.clock.monotonic_ns());
        }
        let cursor = next.and(rows.last()).map_or("0".to_owned(), |(key, _)| {
            let revisions = self.moments.map(|moment| moment.revision);
            Cursor { revisions, key: key.to_vec() }.write()
        });
        reply.array(2);
        reply.bulk(cursor.as_bytes());
        reply.frame(&Frame::Array(rows.into_iter().map(|(_, row)| row).collect()));
        Ok(())
    }

    fn row(&self, key: &[u8], kind: Difference, old: &Then, new: &Then) -> Frame {
        let word = match kind {
            Difference::Added => "added",
            Difference::Changed => "changed",
            Difference::Removed => "removed",
            Difference::Deadline => "ttl",
        };
        let type_name = new.as_ref().or(old.as_ref()).map(|(it, _)| it.as_ref().type_name());
        let mut row = vec![
            Frame::bulk(key),
            Frame::bulk(word),
            Frame::bulk(type_name.expect("one of both is there")),
        ];
        if self.asked.with_values {
            let shown =
                |then: &Then| then.as_ref().map_or(Frame::Null, |(value, _)| whole(value.as_ref()));
            row.extend([shown(old), shown(new)]);
        }
        Frame::Array(row)
    }

    /// Whether it may be told what a key was on a side. Rules on the past are
    /// not about the present, of which a listing in pages goes on to tell.
    fn is_kept(&self, side: usize, key: &[u8]) -> Result<bool> {
        let (Moment { branch, revision, .. }, db) = (self.moments[side], self.asked.db);
        let oldest = match self.is_past[side] {
            true => self.engine.kept_from(branch, db, key)?,
            false => self.engine.purged_from(branch, db, key),
        };
        Ok(revision >= oldest)
    }

    /// The keys that may differ.
    fn candidates(&self, lines: &[Line; 2]) -> Result<Candidates> {
        let (engine, db) = (self.engine, self.asked.db);
        let is_wanted = |key: &[u8]| {
            self.asked.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key))
        };
        let after = parted(&lines[0], &lines[1]).map_or(Revision::ZERO, |(_, at)| at);
        let mut sides = [Changes::default(), Changes::default()];
        let mut reaches = true;
        for ((line, moment), changes) in lines.iter().zip(self.moments).zip(&mut sides) {
            let search = Search {
                engine,
                parts: line.reaches(),
                lens: &Everything,
                wanted: &|at, key| at == db && is_wanted(key),
            };
            reaches &= search.run(after, moment.revision, changes)?;
        }
        let mut keys: BTreeSet<Vec<u8>> =
            sides.iter().flat_map(Changes::places).map(|(_, key)| key.clone()).collect();
        if !reaches || sides.iter().any(|side| side.whole().contains(&db)) {
            let mut add = |key: &[u8]| {
                if is_wanted(key) {
                    keys.insert(key.to_vec());
                }
            };
            for moment in self.moments {
                engine.each_key(&*engine.view_at(moment)?, db, &mut add)?;
            }
        }
        let bytes = keys.iter().map(|key| 2 * key.len() + KEY_BYTES).sum();
        Ok(Candidates { keys, sides: sides.map(Arc::new), reaches, bytes })
    }

    /// What tells what each side has of them.
    fn values(&self, candidates: &Candidates, lines: &[Line; 2]) -> [Values<'_>; 2] {
        let (engine, db) = (self.engine, self.asked.db);
        let parted = parted(&lines[0], &lines[1]).filter(|_| candidates.reaches);
        let kept = parted.and_then(|parted| engine.kept_state(parted));
        let since = candidates.sides.each_ref().map(|side| kept.map(|kept| (side.clone(), kept)));
        let ([old, new], [a, b]) = (since, self.moments);
        [Values::new(engine, a, db, old), Values::new(engine, b, db, new)]
    }
}

fn version(then: &Then) -> Option<Version<'_>> {
    then.as_ref().map(|(value, deadline)| Version { value: value.as_ref(), deadline: *deadline })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_that_nobody_goes_on_with_are_let_go() {
        let subject = |db| Subject { db, pattern: None, lines: Default::default(), oldest: None };
        let candidates = || {
            let (keys, sides) = (BTreeSet::new(), Default::default());
            Arc::new(Candidates { keys, sides, reaches: true, bytes: 100 })
        };
        let listings = Listings::default();
        listings.keep(subject(0), candidates(), 0);
        listings.keep(subject(1), candidates(), 1);
        listings.forget_idle(LISTING_IDLE_NS - 1, || false);
        assert_eq!(listings.0.lock().len(), 2);
        listings.forget_idle(LISTING_IDLE_NS, || false);
        assert!(listings.take(&subject(0)).is_none());
        assert!(listings.take(&subject(1)).is_some());
        listings.keep(subject(1), candidates(), 2);
        listings.forget_idle(3, || true);
        assert!(listings.take(&subject(1)).is_none(), "memory is short");
    }

    #[test]
    fn cursors_are_read_as_written() {
        for key in [&b""[..], b"key", b"\x00\xff-"] {
            let cursor = Cursor { revisions: [Revision(7), Revision(1 << 50)], key: key.to_vec() };
            assert_eq!(Cursor::parse(cursor.write().as_bytes()).ok(), Some(Some(cursor)));
        }
        assert_eq!(Cursor::parse(b"0").ok(), Some(None));
        for word in ["", "1", "1-2", "1-2-0", "1-2-zz", "1-2-00-", "a-2-00", "1-2-é"] {
            assert!(Cursor::parse(word.as_bytes()).is_err(), "{word}");
        }
    }
}
