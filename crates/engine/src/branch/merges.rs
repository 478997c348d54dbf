//! BRANCH MERGE, and CONFLICTS, RESOLVE and ABORT for merges that somebody must
//! decide about.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Frame, Reply, Revision};
use command::args::{is_word, shown};
use command::{Args, Error, Result};
use keyspace::effect::Effect;
use keyspace::merge::{Choice, ChoiceError, Conflict, Merge, Version};
use keyspace::{Decision, OpenMerge, Settled, Verdict};

use super::common::Place;
use super::merge::{Asked, Counts, End, Job, NAMED_BYTES_MAX, Policy, Undecided, Waits};
use super::standing::{Ground, Standing};
use crate::aside::{self, Aside};
use crate::call::{Call, Handler};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::history::of_key::whole;
use crate::history::revert::Author;

pub(super) const HANDLERS: &[(&str, Handler)] = &[
    ("branch|abort", abort),
    ("branch|conflicts", conflicts),
    ("branch|merge", merge),
    ("branch|resolve", resolve),
];

/// Merges that failed and are remembered, so that their conflicts can be seen.
const REPORTS_MAX: usize = 64;

/// Keys that a merge which was only tried names.
const NAMED_MAX: usize = 3;

/// Merges that failed lately, by id.
#[derive(Debug, Default)]
pub(super) struct Reports {
    known: BTreeMap<u64, Asked>,
}

impl Reports {
    fn add(&mut self, id: u64, asked: Asked) {
        self.known.insert(id, asked);
        if self.known.len() > REPORTS_MAX {
            self.known.pop_first();
        }
    }
}

fn merge(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let engine = call.engine;
    engine.needs_branching()?;
    let from = engine.branch_named(args.next()?)?.id;
    let (mut into, mut policy) = (None, Policy::Fail);
    let (mut pattern, mut is_dry, mut message) = (None, false, None);
    while !args.is_empty() {
        if args.take_word("into") {
            into = Some(engine.branch_named(args.next()?)?.id);
        } else if args.take_word("match") {
            pattern = Some(args.next()?.to_vec());
        } else if args.take_word("dryrun") {
            is_dry = true;
        } else if args.take_word("msg") {
            message = Some(args.next()?);
        } else if args.take_word("on") && args.take_word("conflict") {
            policy = policy_of(args.next()?)?;
        } else {
            return Err(Error::SYNTAX);
        }
    }
    let into = into.map_or_else(|| engine.existing_branch_of(call.session), Ok)?;
    let author = Author::of(call, "branch|merge", message);
    let message = message.unwrap_or_default().to_vec();
    let asked = Asked { from, into, pattern, policy, waits: None };
    aside::run(call, move |engine, reply| {
        let ground = Ground::of(engine, [asked.into, asked.from]);
        let author_of_it = (!is_dry).then_some(&author);
        let job = Job { engine, asked: &asked, author: author_of_it, only: None };
        let done = job.run(&|_| ())?;
        let undecided = match &done.end {
            End::Merged { written, counts } => {
                let written = *written;
                write_merged(written, *counts, reply);
                return Ok(Aside {
                    depends_on: seen(engine, written),
                    written,
                    ..Aside::default()
                });
            }
            End::Undecided(undecided) if is_dry => {
                return Err(would_conflict(undecided, policy));
            }
            End::Undecided(undecided) => undecided.len(),
        };
        let (id, noted) = if policy == Policy::Manual {
            let (id, noted) = open_anew(engine, &author, &asked, message)?;
            let waits = Waits { id, changed: noted, anew: None };
            engine.keep_standing(Standing::new(&asked, &waits, ground, &done));
            (id, noted)
        } else {
            let (id, noted) = use_up_id(engine, &author);
            engine.branches.reports.lock().add(id, asked.clone());
            (id, noted)
        };
        let keys = keys_in_words(undecided);
        reply.error(&format!("MERGECONFLICT {keys}, see BRANCH CONFLICTS m{id}"));
        Ok(Aside { depends_on: noted, written: Some(noted), ..Aside::default() })
    })
}

fn keys_in_words(count: usize) -> String {
    format!("{count} {}", if count == 1 { "key" } else { "keys" })
}

/// What a merge that was only tried says of its conflicts, which nobody can look
/// up or decide about: for that something would have to be written.
fn would_conflict<T>(undecided: &[Undecided<T>], policy: Policy) -> Error {
    let name = |it: &Undecided<T>| {
        let key = &it.place.1;
        let cut = if key.len() > NAMED_BYTES_MAX { "…" } else { "" };
        format!("\"{}{cut}\"", key[..key.len().min(NAMED_BYTES_MAX)].escape_ascii())
    };
    let mut names: Vec<String> = undecided.iter().take(NAMED_MAX).map(name).collect();
    if undecided.len() > NAMED_MAX {
        names.push(format!("{} more", undecided.len() - NAMED_MAX));
    }
    let would = match policy {
        Policy::Manual => "the merge would wait for decisions",
        _ => "nothing would be merged",
    };
    Error::new(format!(
        "MERGECONFLICT {} ({}): {would}; without DRYRUN it names a number for BRANCH CONFLICTS",
        keys_in_words(undecided.len()),
        names.join(", ")
    ))
}

fn policy_of(word: &[u8]) -> Result<Policy> {
    let policies = [
        ("fail", Policy::Fail),
        ("ours", Policy::Ours),
        ("theirs", Policy::Theirs),
        ("manual", Policy::Manual),
    ];
    let found = policies.into_iter().find(|(name, _)| is_word(word, name));
    found.map(|(_, policy)| policy).ok_or(Error::SYNTAX)
}

/// What a reply depends on that tells of what was read or written.
fn seen(engine: &Engine, written: Option<Revision>) -> Revision {
    written.unwrap_or_else(|| engine.replicator.newest())
}

/// Takes an id for a merge that failed, which no other gets, whatever happens to
/// the server; answers the record that says so as well.
fn use_up_id(engine: &Arc<Engine>, author: &Author) -> (u64, Revision) {
    let _turn = engine.branches.turn.lock();
    let id = engine.branches.known.read().next_merge();
    (id, engine.note_merge(author, &Effect::MergeGone { id }))
}

/// Records a merge that waits from here on, and gives it its id; answers the
/// record as well.
fn open_anew(
    engine: &Arc<Engine>,
    author: &Author,
    asked: &Asked,
    message: Vec<u8>,
) -> Result<(u64, Revision)> {
    let _turn = engine.branches.turn.lock();
    check_branches(engine, asked)?;
    let id = engine.branches.known.read().next_merge();
    let Asked { from, into, pattern, .. } = asked.clone();
    let (settled, changed) = (BTreeMap::new(), Revision::ZERO);
    let open = OpenMerge { id, from, into, pattern, message, settled, changed };
    Ok((id, engine.note_merge(author, &Effect::MergeOpen { row: &open.encode() })))
}

/// Records what was decided about a key of a merge that waits, if it is as it was.
fn note_decision(
    engine: &Arc<Engine>,
    author: &Author,
    asked: &Asked,
    waits: &Waits,
    (db, key): Place,
    settled: Settled,
) -> Result<Revision> {
    let _turn = engine.branches.turn.lock();
    waits.check(engine)?;
    check_branches(engine, asked)?;
    let decision =
        Decision { merge: waits.id, from: asked.from, into: asked.into, db, key, settled };
    Ok(engine.note_merge(author, &Effect::MergeSettled { row: &decision.encode() }))
}

fn check_branches(engine: &Engine, asked: &Asked) -> Result {
    for id in [asked.from, asked.into] {
        engine.branch(id).ok_or_else(|| super::no_branch(&engine.branch_name(id)))?;
    }
    Ok(())
}

fn write_merged(written: Option<Revision>, counts: Counts, reply: &mut dyn Reply) {
    let Counts { added, changed, removed, auto_merged } = counts;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    reply.map(6);
    reply.bulk(b"rev");
    match written {
        Some(revision) => reply.integer(number(revision.0)),
        None => reply.null(),
    }
    for (name, value) in [
        ("merged", added + changed + removed),
        ("added", added),
        ("changed", changed),
        ("removed", removed),
        ("auto_merged", auto_merged),
    ] {
        reply.bulk(name.as_bytes());
        reply.integer(number(value));
    }
}

/// The number in `m17`.
fn merge_id(word: &[u8]) -> Result<u64> {
    let digits = word.strip_prefix(b"m").or(word.strip_prefix(b"M"));
    let id = digits.and_then(base::number::parse_i64).and_then(|id| u64::try_from(id).ok());
    id.ok_or_else(|| unknown(word))
}

fn unknown(word: &[u8]) -> Error {
    Error::new(format!(
        "ERR no merge is known as '{}'; the error of BRANCH MERGE names it, and those without MANUAL are forgotten at a \
         restart",
        shown(word)
    ))
}

/// A merge that waits, by its name.
struct Waiting {
    asked: Asked,
    waits: Waits,
    message: Vec<u8>,
}

/// `None` for a merge that failed and is remembered.
fn waiting(engine: &Engine, word: &[u8]) -> Result<Option<Waiting>> {
    let id = merge_id(word)?;
    if let Some(open) = engine.branches.known.read().open_merges().get(&id) {
        let waits = Waits { id, changed: open.changed, anew: None };
        return Ok(Some(Waiting {
            asked: Asked::from(open),
            waits,
            message: open.message.clone(),
        }));
    }
    if engine.branches.reports.lock().known.contains_key(&id) {
        return Ok(None);
    }
    Err(unknown(word))
}

fn conflicts(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let word = call.args[0];
    let asked = match waiting(call.engine, word)? {
        Some(waiting) => waiting.asked,
        None => {
            let reports = call.engine.branches.reports.lock();
            reports.known.get(&merge_id(word)?).cloned().ok_or_else(|| unknown(word))?
        }
    };
    aside::run(call, move |engine, reply| {
        let job = Job { engine, asked: &asked, author: None, only: None };
        let rows = job.run(&rows)?.into_undecided();
        let rows = rows.into_iter().flat_map(|Undecided { place: (db, key), seen, .. }| {
            let number = Frame::Integer(i64::from(db));
            let key = Frame::Bulk(key);
            seen.into_iter().map(move |row| {
                Frame::Array([vec![key.clone()], row, vec![number.clone()]].concat())
            })
        });
        reply.frame(&Frame::Array(rows.collect()));
        Ok(Aside { depends_on: seen(engine, None), ..Aside::default() })
    })
}

/// A key's conflicts: the element, and what each side has.
fn rows(merged: &Merge<'_>) -> Vec<Vec<Frame>> {
    let of_key = |version: Option<Version<'_>>| version.map_or(Frame::Null, |it| whole(it.value));
    let of_field = |value: Option<&[u8]>| value.map_or(Frame::Null, Frame::bulk);
    let of_member = |score: Option<f64>| score.map_or(Frame::Null, Frame::Double);
    let row = |conflict: &Conflict<'_>| {
        let element = conflict.element().map_or(Frame::Null, Frame::bulk);
        let sides = match *conflict {
            Conflict::Key { base, ours, theirs } => [base, ours, theirs].map(of_key),
            Conflict::Field { base, ours, theirs, .. } => [base, ours, theirs].map(of_field),
            Conflict::Member { base, ours, theirs, .. } => [base, ours, theirs].map(of_member),
        };
        std::iter::once(element).chain(sides).collect()
    };
    merged.conflicts().iter().map(row).collect()
}

fn resolve(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let verdict = match &call.args[2..] {
        [word] if is_word(word, "ours") => Verdict::Ours,
        [word] if is_word(word, "theirs") => Verdict::Theirs,
        [word, value] if is_word(word, "value") => Verdict::Value(value.to_vec()),
        _ => return Err(Error::SYNTAX),
    };
    let Some(Waiting { asked, waits, message }) = waiting(call.engine, call.args[0])? else {
        return Err(Error::new(
            "ERR the merge does not wait: it failed. BRANCH MERGE … ON CONFLICT MANUAL begins one that does",
        ));
    };
    let (db, key) = (call.session.db, call.args[1].to_vec());
    let author =
        Author::of(call, "branch|merge", Some(&message[..]).filter(|message| !message.is_empty()));
    aside::run(call, move |engine, reply| {
        let fits = |merged: &Merge<'_>| {
            let choice = match &verdict {
                Verdict::Ours => Choice::Ours,
                Verdict::Theirs => Choice::Theirs,
                Verdict::Value(value) => Choice::Value(value),
            };
            let count = merged.conflicts().len();
            merged.effects(&vec![choice; count]).map(|_| count)
        };
        let place = (db, key);
        // What was decided of the key before is decided anew.
        let (mut standing, undecided) = engine.standing(&asked, &waits, &place, &fits)?;
        let decided = match undecided {
            None if standing.left() > 0 => Err(Error::new(format!(
                "ERR the key is not in conflict in database {db}; BRANCH CONFLICTS m{} lists those that are",
                waits.id
            ))),
            // All was decided, and nothing was merged because it did not stand still.
            None => Ok(None),
            Some(undecided) => settled(&undecided, verdict.clone()).map(Some),
        };
        let decided = match decided {
            Ok(decided) => decided,
            Err(error) => {
                // But for this key, of which what was decided before still holds.
                if !waits.has_decided(engine, &place) {
                    engine.keep_standing(standing);
                }
                return Err(error);
            }
        };
        let mut written = None;
        if let Some(settled) = decided {
            let noted = note_decision(engine, &author, &asked, &waits, place.clone(), settled)?;
            standing.decided(noted, &place);
            written = Some(noted);
        }
        if standing.left() == 0 {
            let waits = Waits { changed: written.unwrap_or(waits.changed), ..waits };
            let asked = Asked { waits: Some(waits.clone()), ..asked };
            let ground = Ground::of(engine, [asked.into, asked.from]);
            let job = Job { engine, asked: &asked, author: Some(&author), only: None };
            let done = job.run(&|_| ())?;
            if let End::Merged { written: Some(revision), .. } = done.end {
                written = Some(revision);
            }
            standing = Standing::new(&asked, &waits, ground, &done);
        }
        reply.count(standing.left());
        engine.keep_standing(standing);
        Ok(Aside { depends_on: seen(engine, written), written, ..Aside::default() })
    })
}

/// What is decided about a key in conflict.
fn settled(
    undecided: &Undecided<std::result::Result<usize, ChoiceError>>,
    verdict: Verdict,
) -> Result<Settled> {
    let count = *undecided.seen.as_ref().map_err(|error| Error::new(format!("ERR {error}")))?;
    if count > 1 && matches!(verdict, Verdict::Value(_)) {
        return Err(Error::new(format!(
            "ERR {count} elements of the key are in conflict; one VALUE cannot be for all of them, choose OURS or \
             THEIRS"
        )));
    }
    Ok(Settled { verdict, digest: undecided.digest })
}

fn abort(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let id = merge_id(call.args[0])?;
    if waiting(call.engine, call.args[0])?.is_none() {
        call.engine.branches.reports.lock().known.remove(&id);
        call.reply.ok();
        return Ok(Outcome::Done);
    }
    let author = Author::of(call, "branch|abort", None);
    aside::run(call, move |engine, reply| {
        let _turn = engine.branches.turn.lock();
        if !engine.branches.known.read().open_merges().contains_key(&id) {
            return Err(Error::new("ERR the merge has ended meanwhile"));
        }
        let written = engine.note_merge(&author, &Effect::MergeGone { id });
        reply.ok();
        Ok(Aside { depends_on: written, written: Some(written), ..Aside::default() })
    })
}
