//! HISTORY and BLAME: what became of one key.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use base::{BranchId, DbIndex, Frame, FrameBuilder, Reply, Revision, Tape};
use command::{Args, Error, Result};
use keyspace::effect::Effect;
use keyspace::{Stored, ValueRef};
use log::{Record, RecordHeader};

use super::events::{self, What};
use super::{Bounds, Span, count, integer, keep};
use crate::aside::{self, Aside};
use crate::branch::Reach;
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::travel::Moment;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("blame", blame), ("history", history)];

/// Versions that HISTORY answers without COUNT.
const COUNT_DEFAULT: usize = 100;

/// An element of a collection.
#[derive(Clone, Debug)]
enum Element {
    Field(Vec<u8>),
    Member(Vec<u8>),
}

impl Element {
    fn name(&self) -> &[u8] {
        match self {
            Element::Field(name) | Element::Member(name) => name,
        }
    }

    /// Whether an effect on the key is one on this element.
    fn is_changed_by(&self, effect: Effect<'_>) -> bool {
        match (effect, self) {
            (
                Effect::HashSet { field, .. }
                | Effect::HashDelete { field }
                | Effect::HashAdd { field, .. },
                Element::Field(name),
            ) => field == name,
            (
                Effect::SetAdd { member }
                | Effect::SetRemove { member }
                | Effect::ZsetSet { member, .. }
                | Effect::ZsetRemove { member },
                Element::Member(name),
            ) => member == name,
            _ => false,
        }
    }

    fn is_in(&self, value: ValueRef<'_>) -> bool {
        match (self, value) {
            (Element::Field(name), ValueRef::Hash(hash)) => hash.get(name).is_some(),
            (Element::Member(name), ValueRef::Set(set)) => set.contains(name),
            (Element::Member(name), ValueRef::Zset(zset)) => zset.score(name).is_some(),
            _ => false,
        }
    }

    fn write_of(&self, value: ValueRef<'_>, reply: &mut Tape) {
        match (self, value) {
            (Element::Field(name), ValueRef::Hash(hash)) => reply.optional_bulk(hash.get(name)),
            (Element::Member(name), ValueRef::Set(set)) if set.contains(name) => reply.integer(1),
            (Element::Member(name), ValueRef::Zset(zset)) => match zset.score(name) {
                Some(score) => reply.double(score),
                None => reply.null(),
            },
            _ => reply.null(),
        }
    }
}

/// A value as a reply: a string, an array, a set, or a map of fields to values
/// or members to scores.
pub(crate) fn whole(value: ValueRef<'_>) -> Frame {
    let mut frame = FrameBuilder::new(true);
    write_whole(value, &mut frame);
    frame.finish().pop().expect("a value is one reply")
}

/// As [`whole`], written at once.
pub(crate) fn write_whole(value: ValueRef<'_>, reply: &mut impl Reply) {
    match value {
        ValueRef::Str(bytes) => reply.bulk(bytes),
        ValueRef::List(list) => {
            reply.array(list.len());
            list.iter().for_each(|element| reply.bulk(element));
        }
        ValueRef::Set(set) => {
            reply.set(set.len());
            set.iter().for_each(|member| reply.bulk(&member));
        }
        ValueRef::Hash(hash) => {
            reply.map(hash.len());
            hash.iter().for_each(|(field, value)| {
                reply.bulk(field);
                reply.bulk(value);
            });
        }
        ValueRef::Zset(zset) => {
            reply.map(zset.len());
            zset.iter().for_each(|(member, score)| {
                reply.bulk(member);
                reply.double(score);
            });
        }
    }
}

/// What HISTORY is asked for.
pub(super) struct Request {
    db: DbIndex,
    key: Vec<u8>,
    element: Option<Element>,
    span: Span,
    count: usize,
    oldest_first: bool,
    values: bool,
}

/// Bytes of a record up to which it is kept until the values are put together.
/// A longer one is read again.
const RECORD_BYTES_MAX: usize = 4 << 10;

/// Bytes of what is said of a version, mostly.
const ROW_BYTES: usize = 128;

/// What is said of a version besides its value.
const ROW_LEN: usize = 6;

/// A transaction that changed the key.
pub(super) struct Version {
    row: Tape,
    at: Moment,
    /// The value, where the record tells it.
    value: Option<Tape>,
    /// The record, where it does not and somebody wants to know.
    record: Option<(RecordHeader, Vec<u8>)>,
}

impl Version {
    pub(super) fn revision(&self) -> Revision {
        self.at.revision
    }
}

fn history(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let key = args.next()?.to_vec();
    let (mut element, mut bounds, mut count_max) = (None, Bounds::default(), COUNT_DEFAULT);
    let (mut oldest_first, mut values) = (false, false);
    while !args.is_empty() {
        if bounds.take(call.engine, &mut args)? {
        } else if element.is_none() && args.take_word("field") {
            element = Some(Element::Field(args.next()?.to_vec()));
        } else if element.is_none() && args.take_word("member") {
            element = Some(Element::Member(args.next()?.to_vec()));
        } else if args.take_word("path") {
            return Err(Error::new(
                "ERR PATH is for JSON values, and this version has none; FIELD and MEMBER name elements of the \
                 other types",
            ));
        } else if args.take_word("count") {
            count_max = count(&mut args)?;
        } else if args.take_word("rev") {
            oldest_first = true;
        } else if args.take_word("values") {
            values = true;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let (branch, db, now_ms) = (call.session.branch(), call.session.db, call.now_ms);
    aside::run(call, move |engine, reply| {
        let resolve = || bounds.resolve_for(engine, branch, now_ms, db, &key);
        bounds.read(engine, resolve, |span| {
            let (key, element) = (key.clone(), element.clone());
            let request =
                Request { db, key, element, span, count: count_max, oldest_first, values };
            request.answer(engine, reply)?;
            Ok(Aside { depends_on: span.upto, ..Aside::default() })
        })
    })
}

impl Request {
    /// For the newest versions of a key, whatever changed in it.
    pub(super) fn of_versions(db: DbIndex, key: &[u8], span: Span, count: usize) -> Request {
        let (key, element) = (key.to_vec(), None);
        Request { db, key, element, span, count, oldest_first: false, values: false }
    }

    /// Visits the versions, newest first.
    pub(super) fn visit(
        &self,
        engine: &Engine,
        visit: &mut dyn FnMut(Version) -> ControlFlow<()>,
    ) -> Result {
        visit_touched(engine, self.span, self.db, &self.key, &mut |record, what| {
            let version = self.version(engine, &record, what)?;
            Ok(version.map_or(ControlFlow::Continue(()), &mut *visit))
        })
    }

    fn answer(&self, engine: &Engine, reply: &mut dyn Reply) -> Result {
        let mut versions: VecDeque<Version> = VecDeque::new();
        self.visit(engine, &mut |version| {
            versions.push_back(version);
            if versions.len() > self.count && self.oldest_first {
                versions.pop_front();
            }
            let is_enough = versions.len() >= self.count && !self.oldest_first;
            if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if self.oldest_first {
            versions.make_contiguous().reverse();
        }
        if self.values {
            self.fill_in(engine, versions.make_contiguous())?;
        }
        reply.array(versions.len());
        for version in versions {
            let value = version.value.filter(|_| self.values);
            reply.array(ROW_LEN + usize::from(value.is_some()));
            reply.tape(&version.row);
            value.iter().for_each(|value| reply.tape(value));
        }
        Ok(())
    }

    /// Reads the values that the records do not tell.
    fn fill_in(&self, engine: &Engine, versions: &mut [Version]) -> Result {
        let line = engine.line(self.span.branch);
        let mut missing: Vec<((BranchId, Revision), &mut Version)> = versions
            .iter_mut()
            .filter(|version| version.value.is_none())
            .map(|version| (line.at(version.at.revision), version))
            .collect();
        missing.sort_by_key(|(_, version)| version.at.revision);
        let past = engine.needs_past()?;
        let name = self.element.as_ref().map(|element| [element.name()]);
        let names = name.as_ref().map(|name| &name[..]);
        for versions in missing.chunk_by_mut(|a, b| a.0.0 == b.0.0) {
            let branch = versions[0].0.0;
            // What makes the values was read already.
            let records: Vec<Option<(RecordHeader, Vec<u8>)>> =
                versions.iter_mut().map(|(_, version)| version.record.take()).collect();
            let revisions: Vec<(Revision, Option<Record<'_>>)> =
                std::iter::zip(&*versions, &records)
                    .map(|((at, version), record)| {
                        let revision = version.at.revision;
                        let record = record.as_ref().map(|(header, effects)| Record {
                            revision,
                            header: *header,
                            effects,
                        });
                        (at.1, record)
                    })
                    .collect();
            let (db, key, mut room) = (self.db, &self.key, 0);
            let first = revisions[0].0;
            let present = &|| engine.present(past, branch, first, db, key);
            past.key_at_each(branch, &revisions, db, key, names, present, &mut |at, stored| {
                let version = &mut *versions[at].1;
                // What was due by then was not there.
                let is_seen = |stored: &&Stored| {
                    stored.deadline.is_none_or(|deadline| deadline > version.at.time_ms)
                };
                // Most are about as long as the one before.
                let mut tape = Tape::with_room(true, room);
                match (stored.filter(is_seen), &self.element) {
                    (None, _) => tape.null(),
                    (Some(stored), Some(element)) => {
                        element.write_of(stored.value.as_ref(), &mut tape);
                    }
                    (Some(stored), None) => write_whole(stored.value.as_ref(), &mut tape),
                }
                room = tape.len();
                version.value = Some(tape);
            })?;
        }
        Ok(())
    }

    fn version<'r>(
        &self,
        engine: &Engine,
        record: &Record<'r>,
        what: What<'r>,
    ) -> Result<Option<Version>> {
        // What it did to the element: by itself, or perhaps with the whole key.
        let (mut is_its_own, mut is_whole) = (false, false);
        // None where the record does not tell it, and none in that where it is gone.
        let mut value: Option<Option<&[u8]>> = None;
        let who = events::read(record, &mut |touch| {
            if touch.is_about(self.db, &self.key) {
                let is_mine = |element: &Element| element.is_changed_by(touch.effect);
                match touch.what {
                    What::Deadline => {}
                    What::Part(_) => is_its_own |= self.element.as_ref().is_some_and(is_mine),
                    // What was before cannot be looked up.
                    What::Erased => is_its_own = true,
                    _ => is_whole = true,
                }
                match touch.effect {
                    Effect::StrSet { value: bytes, .. } => value = Some(Some(bytes)),
                    Effect::Deadline(_) => {}
                    _ if touch.what.is_removal() => value = Some(None),
                    _ => value = None,
                }
            }
            Ok(())
        })?;
        let (branch, time_ms) = (self.span.branch, record.header.time_ms);
        let at = Moment::new(branch, record.revision, time_ms);
        let is_wide = matches!(what, What::Swapped | What::Returned);
        let (place, element) = ((self.db, &self.key[..]), self.element.as_ref());
        let concerns = || concerns(engine, (branch, at.revision), place, element);
        let is_listed = match element {
            None => !is_wide || concerns()?,
            Some(_) => is_its_own || is_whole && concerns()?,
        };
        if !is_listed {
            return Ok(None);
        }
        let mut row = Tape::with_room(true, ROW_BYTES);
        row.integer(integer(at.revision.0));
        row.integer(integer(at.time_ms));
        events::write_origin(what, who, &mut row);
        if self.element.is_some() && value != Some(None) {
            value = None;
        }
        let value = value.filter(|_| self.values).map(|value| {
            let mut tape = Tape::new(true);
            tape.optional_bulk(value);
            tape
        });
        let keeps = self.values && value.is_none() && record.effects.len() <= RECORD_BYTES_MAX;
        let record = keeps.then(|| (record.header, record.effects.to_vec()));
        Ok(Some(Version { row, at, value, record }))
    }
}

/// Is shown a transaction and what became of a key by it.
type Visit<'v> = dyn for<'r> FnMut(Record<'r>, What<'r>) -> Result<ControlFlow<()>> + 'v;

/// Whether a key, or an element of it, was there before or after it changed as a
/// whole, perhaps with its database.
fn concerns(
    engine: &Engine,
    (branch, at): (BranchId, Revision),
    (db, key): (DbIndex, &[u8]),
    element: Option<&Element>,
) -> Result<bool> {
    let before = Revision(at.0 - 1);
    let (past, line) = (engine.needs_past()?, engine.line(branch));
    if before < past.oldest() {
        // Nobody knows any more.
        return Ok(true);
    }
    let name = element.map(|element| [element.name()]);
    let names = name.as_ref().map(|name| &name[..]);
    let is_there =
        |stored: Stored| element.is_none_or(|element| element.is_in(stored.value.as_ref()));
    for revision in [before, at] {
        let (branch, revision) = line.at(revision);
        // Deadlines aside: what was due stood there as well.
        if past.key(branch, revision, db, key, names)?.is_some_and(is_there) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Visits the transactions of a span that touch a key, newest first, each with what
/// became of the key. Flushes that found no such key are left out: what was done to
/// it before tells, so that it need not be read for each of them.
pub(super) fn visit_touched(
    engine: &Engine,
    span: Span,
    db: DbIndex,
    key: &[u8],
    visit: &mut Visit<'_>,
) -> Result {
    let mut flush: Option<(Revision, RecordHeader, Vec<u8>)> = None;
    let tell = |flush: (Revision, RecordHeader, Vec<u8>), was_there, visit: &mut Visit<'_>| {
        let (revision, header, effects) = flush;
        let is_told = match was_there {
            Some(was_there) => was_there,
            None => concerns(engine, (span.branch, revision), (db, key), None)?,
        };
        match is_told {
            true => visit(Record { revision, header, effects: &effects }, What::Flushed),
            false => Ok(ControlFlow::Continue(())),
        }
    };
    visit_key(engine, span, db, key, &mut |record| {
        let mut sum: Option<What<'_>> = None;
        events::read(&record, &mut |touch| {
            if touch.is_about(db, key) {
                sum = Some(sum.map_or(touch.what, |what| what.then(touch.what)));
            }
            Ok(())
        })?;
        let Some(what) = sum else { return Ok(ControlFlow::Continue(())) };
        if let Some(flush) = flush.take() {
            // What a branch begins with is not all that its parent's last record left.
            let is_of_one = flush.1.branch == record.header.branch;
            let was_there = what.leaves_key().filter(|_| is_of_one);
            if tell(flush, was_there, visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if what == What::Flushed {
            flush = Some((record.revision, record.header, record.effects.to_vec()));
            return Ok(ControlFlow::Continue(()));
        }
        visit(record, what)
    })?;
    match flush {
        Some(flush) => tell(flush, None, visit).map(|_| ()),
        None => Ok(()),
    }
}

/// Visits the transactions of a span that may have changed a key, newest first. What
/// made a branch is none: the keys it writes were there before.
pub(super) fn visit_key(
    engine: &Engine,
    span: Span,
    db: DbIndex,
    key: &[u8],
    visit: &mut dyn FnMut(Record<'_>) -> Result<ControlFlow<()>>,
) -> Result {
    if span.is_empty() {
        return Ok(());
    }
    let past = engine.needs_past()?;
    let line = engine.line(span.branch);
    for Reach { branch, after, upto } in line.between(span.after, span.upto) {
        let (mut failure, mut is_over) = (None, false);
        past.of_key(branch, db, key, after, upto, &mut |record| {
            if !line.goes_on(record.revision, record.header) {
                return ControlFlow::Continue(());
            }
            let flow = keep(visit(record), &mut failure);
            is_over = flow.is_break();
            flow
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if is_over {
            break;
        }
    }
    Ok(())
}

/// The user who last changed what is there now, if that is known.
type Blamed = Option<(Moment, Option<Vec<u8>>)>;

fn blame(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let (key, db, now_ms) = (call.args[0].to_vec(), call.session.db, call.now_ms);
    let branch = call.session.branch();
    aside::run(call, move |engine, reply| {
        let bounds = Bounds::default();
        let resolve = || bounds.resolve_for(engine, branch, now_ms, db, &key);
        bounds.read(engine, resolve, |span| {
            let at = Moment::new(branch, span.upto, now_ms);
            let elements = engine.look_at(at, db, &key, |value, _| value.map(elements))?;
            let blamed = match &elements {
                None => Vec::new(),
                Some(elements) => find_blame(engine, span, db, &key, elements)?,
            };
            write_blame(&elements.unwrap_or_default(), &blamed, reply);
            Ok(Aside { depends_on: span.upto, ..Aside::default() })
        })
    })
}

/// The elements that are blamed one by one; one without a name where the value
/// is blamed as a whole.
fn elements(value: ValueRef<'_>) -> Vec<Option<Vec<u8>>> {
    match value {
        ValueRef::Str(_) | ValueRef::List(_) => vec![None],
        ValueRef::Hash(hash) => hash.iter().map(|(field, _)| Some(field.to_vec())).collect(),
        ValueRef::Set(set) => set.iter().map(|member| Some(member.to_vec())).collect(),
        ValueRef::Zset(zset) => zset.iter().map(|(member, _)| Some(member.to_vec())).collect(),
    }
}

fn find_blame(
    engine: &Engine,
    span: Span,
    db: DbIndex,
    key: &[u8],
    elements: &[Option<Vec<u8>>],
) -> Result<Vec<Blamed>> {
    let mut blamed: Vec<Blamed> = vec![None; elements.len()];
    let mut open: BTreeMap<Option<Vec<u8>>, usize> =
        elements.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
    visit_key(engine, span, db, key, &mut |record| {
        let mut touched = Vec::new();
        let who = events::read(&record, &mut |touch| {
            if touch.is_about(db, key) {
                touched.push(touch.what);
            }
            Ok(())
        })?;
        let (branch, time_ms) = (span.branch, record.header.time_ms);
        let moment = Moment::new(branch, record.revision, time_ms);
        for what in touched {
            let hit: Vec<usize> = match what {
                What::Deadline => Vec::new(),
                What::Part(effect) => match element_of(effect) {
                    Some(name) => open.remove(&Some(name.to_vec())).into_iter().collect(),
                    None => std::mem::take(&mut open).into_values().collect(),
                },
                // What is there now has come with it, or after it.
                _ => std::mem::take(&mut open).into_values().collect(),
            };
            let user = || who.map(|who| who.user.to_vec());
            hit.into_iter().for_each(|at| blamed[at] = Some((moment, user())));
        }
        Ok(if open.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(blamed)
}

/// The element that an effect is about, where elements are blamed one by one.
fn element_of<'e>(effect: Effect<'e>) -> Option<&'e [u8]> {
    match effect {
        Effect::HashSet { field, .. }
        | Effect::HashDelete { field }
        | Effect::HashAdd { field, .. } => Some(field),
        Effect::SetAdd { member }
        | Effect::SetRemove { member }
        | Effect::ZsetSet { member, .. }
        | Effect::ZsetRemove { member } => Some(member),
        _ => None,
    }
}

fn write_blame(elements: &[Option<Vec<u8>>], blamed: &[Blamed], reply: &mut dyn Reply) {
    reply.array(elements.len());
    for (name, blamed) in elements.iter().zip(blamed) {
        reply.array(4);
        reply.optional_bulk(name.as_deref());
        match blamed {
            Some((moment, user)) => {
                reply.integer(integer(moment.revision.0));
                reply.integer(integer(moment.time_ms));
                reply.optional_bulk(user.as_deref());
            }
            // Older than what is kept.
            None => (0..3).for_each(|_| reply.null()),
        }
    }
}
