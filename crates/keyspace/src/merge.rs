//! Difference and three-way merge of one key.
//!
//! Two lines of revisions, *ours* and *theirs*, have grown apart from a common
//! *base*. [`merge`] looks at the three versions of one key and works out what
//! must be done to ours so that it has the changes of both. That is a list of
//! effects, as small as the changes are, for [`Txn::amend`](crate::Txn::amend);
//! and what cannot be decided is a list of [`Conflict`]s, for which somebody
//! must make a [`Choice`]. The rules, for each part of a key on its own:
//!
//! - *Counters.* What both sides changed by counting only (`INCR`, `HINCRBY`;
//!   see [`Counted`]) is changed by both sides' amounts. That comes before the
//!   next rule: two sides that both count 1 have equal values and counted 2. A
//!   sum or an amount past 64 bits is a conflict, and so is every part that both
//!   counted where they may have a part of it in common that the base lacks.
//! - *Equal* on both sides, or *changed on one side only*: taken.
//! - *Changed on both sides, differently*: a conflict.
//!
//! The parts of a hash are its fields, of a set and a sorted set their members;
//! a string and a list are one part each. Where the base has no key, both sides
//! have added to an empty one. A key is one part where its type differs among
//! the versions, or where one side has removed it: removed here, and there
//! changed in any way, its deadline included, is a conflict.
//!
//! A *deadline* is a part of its own, and never a conflict while both sides
//! have the key: where both changed it, the later one stays, and none at all is
//! later than any. It is merged whatever becomes of a conflict in the value.
//!
//! Versions are what a reader sees: a key past its deadline is no version. All
//! of it takes time in proportion to the key's elements, sorting those of
//! listpacks.

mod bodies;
mod counted;
mod elements;

use thiserror::Error;

use counted::Count;
pub use counted::Counted;

use crate::edit::Collection;
use crate::effect::{Cause, Effect};
use crate::types::{Hash, Set, Zset};
use crate::value::ValueRef;
use elements::Edits;

/// A key as it stands on one side.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// Its value.
    pub value: ValueRef<'a>,
    /// When it expires, in milliseconds since 1970.
    pub deadline: Option<u64>,
}

/// One side of a merge.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The key, if there is one.
    pub version: Option<Version<'a>>,
    /// What the side has only counted since the base.
    pub counted: &'a Counted,
}

impl<'a> From<Option<Version<'a>>> for Side<'a> {
    /// A side that has not counted, or of which nobody knows.
    fn from(version: Option<Version<'a>>) -> Side<'a> {
        Side { version, counted: Counted::nothing() }
    }
}

/// How two versions of a key differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the new one is there.
    Added,
    /// The values differ.
    Changed,
    /// Only the old one is there.
    Removed,
    /// The values are equal, the deadlines are not.
    Deadline,
}

/// How `new` differs from `old`; `None` when it does not.
#[must_use]
pub fn difference(old: Option<Version<'_>>, new: Option<Version<'_>>) -> Option<Difference> {
    match (old, new) {
        (None, None) => None,
        (None, Some(_)) => Some(Difference::Added),
        (Some(_), None) => Some(Difference::Removed),
        (Some(old), Some(new)) if !is_same_value(old.value, new.value) => Some(Difference::Changed),
        (Some(old), Some(new)) => (old.deadline != new.deadline).then_some(Difference::Deadline),
    }
}

/// A part of a key that both sides changed, each in its own way.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each variant has the part's three versions")]
pub enum Conflict<'a> {
    /// The key as a whole.
    Key { base: Option<Version<'a>>, ours: Option<Version<'a>>, theirs: Option<Version<'a>> },
    /// A hash's field.
    Field {
        field: &'a [u8],
        base: Option<&'a [u8]>,
        ours: Option<&'a [u8]>,
        theirs: Option<&'a [u8]>,
    },
    /// A sorted set's member, by its score.
    Member { member: &'a [u8], base: Option<f64>, ours: Option<f64>, theirs: Option<f64> },
}

impl<'a> Conflict<'a> {
    /// The field or member; `None` when it is about the key as a whole.
    #[must_use]
    pub fn element(&self) -> Option<&'a [u8]> {
        match *self {
            Conflict::Key { .. } => None,
            Conflict::Field { field, .. } => Some(field),
            Conflict::Member { member, .. } => Some(member),
        }
    }
}

/// What becomes of a part in conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice<'a> {
    /// It stays as ours has it.
    Ours,
    /// It becomes what theirs has, or goes as there.
    Theirs,
    /// It becomes this: a string, a field's value or a member's score.
    Value(&'a [u8]),
}

/// A [`Choice::Value`] that the part cannot have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChoiceError {
    /// The part is a score.
    #[error("{value:?} is no score; a member takes a number, OURS or THEIRS")]
    Score {
        /// What was given.
        value: String,
    },
    /// The part is a collection.
    #[error("a {type_name} cannot be given as one value; the key takes OURS or THEIRS")]
    Type {
        /// What it is.
        type_name: &'static str,
    },
}

/// A merge worked out: see [`merge`].
#[derive(Debug)]
pub struct Merge<'a> {
    ours: Option<Version<'a>>,
    theirs: Option<Version<'a>>,
    /// Of both sides.
    deadline: Option<u64>,
    plan: Plan,
    conflicts: Vec<Conflict<'a>>,
}

/// What becomes of ours, but for the deadline.
#[derive(Debug)]
enum Plan {
    Keep,
    Remove,
    /// It becomes what theirs has.
    Take,
    /// The string is greater by so much.
    Add(i64),
    Elements(Edits),
    /// The only conflict is about the key as a whole.
    Conflict,
}

/// What becomes of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Keep,
    Take,
    Add(i64),
    Conflict,
}

/// Merges a key: what to do to ours for it to have theirs' changes since the
/// base too. See the module's documentation for the rules.
///
/// ```
/// use keyspace::ValueRef;
/// use keyspace::effect::{Effect, Effects};
/// use keyspace::merge::{Choice, Version, merge};
///
/// let text = |text: &'static str| {
///     Some(Version { value: ValueRef::Str(text.as_bytes()), deadline: None })
/// };
/// // Changed on their side only.
/// let taken = merge(text("a"), text("a").into(), text("b").into()).effects(&[])?;
/// let expected = Effect::StrSet { value: b"b", deadline: None };
/// assert_eq!(Effects::new(&taken).next(), Some(Ok(expected)));
/// // Changed on both.
/// let merged = merge(text("a"), text("c").into(), text("b").into());
/// assert_eq!(merged.conflicts().len(), 1);
/// assert_eq!(merged.effects(&[Choice::Theirs])?, taken);
/// # Ok::<(), keyspace::merge::ChoiceError>(())
/// ```
#[must_use]
pub fn merge<'a>(base: Option<Version<'a>>, ours: Side<'a>, theirs: Side<'a>) -> Merge<'a> {
    let mut conflicts = Vec::new();
    let plan = plan(base, ours, theirs, &mut conflicts);
    let (ours, theirs) = (ours.version, theirs.version);
    if let Plan::Conflict = plan {
        conflicts.push(Conflict::Key { base, ours, theirs });
    }
    conflicts.sort_unstable_by_key(Conflict::element);
    Merge { ours, theirs, deadline: merged_deadline(base, ours, theirs), plan, conflicts }
}

fn plan<'a>(
    base: Option<Version<'a>>,
    our_side: Side<'a>,
    their_side: Side<'a>,
    conflicts: &mut Vec<Conflict<'a>>,
) -> Plan {
    let (ours, theirs) = match (our_side.version, their_side.version) {
        (Some(ours), Some(theirs)) => (ours.value, theirs.value),
        (None, None) => return Plan::Keep,
        (None, Some(theirs)) if base.is_none() => {
            return take_new(theirs.value, their_side.counted);
        }
        (Some(_), None) if base.is_none() => return Plan::Keep,
        (None, theirs) => {
            let is_changed = difference(base, theirs).is_some();
            return if is_changed { Plan::Conflict } else { Plan::Keep };
        }
        (ours, None) => {
            let is_changed = difference(base, ours).is_some();
            return if is_changed { Plan::Conflict } else { Plan::Remove };
        }
    };
    let base = base.map(|base| base.value);
    let counted = [our_side.counted, their_side.counted];
    let is_one_type = base.is_none_or(|base| base.type_name() == ours.type_name());
    match (ours, theirs) {
        (ValueRef::Str(ours), ValueRef::Str(theirs)) if is_one_type => {
            let base = match base {
                Some(ValueRef::Str(base)) => Some(base),
                _ => None,
            };
            let counts = counted.map(Counted::of_string);
            match merge_text(base, Some(ours), Some(theirs), counts) {
                Step::Keep => Plan::Keep,
                Step::Take => Plan::Take,
                Step::Add(amount) => Plan::Add(amount),
                Step::Conflict => Plan::Conflict,
            }
        }
        (ValueRef::Hash(ours), ValueRef::Hash(theirs)) if is_one_type => {
            let base = base.and_then(Hash::from_ref);
            elements::merge(base, Some(ours), theirs, counted, conflicts)
        }
        (ValueRef::Set(ours), ValueRef::Set(theirs)) if is_one_type => {
            let base = base.and_then(Set::from_ref);
            elements::merge(base, Some(ours), theirs, counted, conflicts)
        }
        (ValueRef::Zset(ours), ValueRef::Zset(theirs)) if is_one_type => {
            let base = base.and_then(Zset::from_ref);
            elements::merge(base, Some(ours), theirs, counted, conflicts)
        }
        _ if is_same_value(ours, theirs) => Plan::Keep,
        _ if base.is_some_and(|base| is_same_value(base, theirs)) => Plan::Keep,
        _ if base.is_some_and(|base| is_same_value(base, ours)) => Plan::Take,
        _ => Plan::Conflict,
    }
}

/// Takes a key that only their side has. What they counted is counted here, so
/// that it adds to what others counted when these merge.
fn take_new(theirs: ValueRef<'_>, counted: &Counted) -> Plan {
    match theirs {
        ValueRef::Str(text) if counted.string() => {
            base::number::parse_i64(text).map_or(Plan::Take, Plan::Add)
        }
        ValueRef::Hash(theirs) if counted.has_fields() => {
            elements::merge(None, None, theirs, [counted; 2], &mut Vec::new())
        }
        _ => Plan::Take,
    }
}

/// Merges a part that is there or not, and has one value.
fn merge_part<T: PartialEq>(base: Option<T>, ours: Option<T>, theirs: Option<T>) -> Step {
    if theirs == base || ours == theirs {
        Step::Keep
    } else if ours == base {
        Step::Take
    } else {
        Step::Conflict
    }
}

/// As [`merge_part`] for a part that may be a counter. `counts` says what ours,
/// and theirs, only counted.
fn merge_text(
    base: Option<&[u8]>,
    ours: Option<&[u8]>,
    theirs: Option<&[u8]>,
    counts: [Count; 2],
) -> Step {
    if counts == [Count::Shared; 2] {
        return Step::Conflict;
    }
    if theirs == base {
        return Step::Keep;
    }
    let [ours_count, theirs_count] = counts;
    if theirs_count == Count::Own && (ours_count == Count::Own || ours == base) {
        match counted_amount(base, ours, theirs) {
            // A counter that began at 0 on both sides.
            Some(0) if ours.is_some() => return Step::Keep,
            Some(amount) => return Step::Add(amount),
            None if ours != base => return Step::Conflict,
            None => {}
        }
    }
    merge_part(base, ours, theirs)
}

/// What theirs counted, if ours can be greater by that. The amount of ours must
/// fit as well: a merge the other way round is to have the same result.
fn counted_amount(base: Option<&[u8]>, ours: Option<&[u8]>, theirs: Option<&[u8]>) -> Option<i64> {
    let number = |text: Option<&[u8]>| text.map_or(Some(0), base::number::parse_i64);
    let theirs = base::number::parse_i64(theirs?)?;
    // What was removed has no amount.
    if base.is_some() && ours.is_none() {
        return None;
    }
    let (base, ours) = (number(base)?, number(ours)?);
    let amount = theirs.checked_sub(base)?;
    ours.checked_sub(base)?;
    ours.checked_add(amount)?;
    Some(amount)
}

fn merged_deadline(
    base: Option<Version<'_>>,
    ours: Option<Version<'_>>,
    theirs: Option<Version<'_>>,
) -> Option<u64> {
    let (ours, theirs) = match (ours, theirs) {
        (Some(ours), Some(theirs)) => (ours.deadline, theirs.deadline),
        (one, other) => return one.or(other).and_then(|version| version.deadline),
    };
    match base.map(|base| base.deadline) {
        Some(base) if theirs == base => ours,
        Some(base) if ours == base => theirs,
        _ => ours.zip(theirs).map(|(ours, theirs)| ours.max(theirs)),
    }
}

fn is_same_value(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Str(a), ValueRef::Str(b)) => a == b,
        (ValueRef::List(a), ValueRef::List(b)) => a == b,
        (ValueRef::Hash(a), ValueRef::Hash(b)) => elements::is_same::<&Hash>(a, b),
        (ValueRef::Set(a), ValueRef::Set(b)) => elements::is_same::<&Set>(a, b),
        (ValueRef::Zset(a), ValueRef::Zset(b)) => elements::is_same::<&Zset>(a, b),
        _ => false,
    }
}

/// A value's bytes, its elements in an order that no table has a say in.
fn in_order(value: ValueRef<'_>) -> Vec<u8> {
    match value {
        ValueRef::Str(_) | ValueRef::List(_) => crate::dump::encode_body(value),
        ValueRef::Hash(hash) => elements::in_order::<&Hash>(hash),
        ValueRef::Set(set) => elements::in_order::<&Set>(set),
        ValueRef::Zset(zset) => elements::in_order::<&Zset>(zset),
    }
}

impl<'a> Merge<'a> {
    /// What could not be decided: the key as a whole, or fields or members in
    /// the order of their names.
    #[must_use]
    pub fn conflicts(&self) -> &[Conflict<'a>] {
        &self.conflicts
    }

    /// A digest of the conflicts, to tell whether they are those that somebody
    /// has seen before. The same for the same values, in whatever order tables
    /// have their elements, which differs from run to run.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut bytes = Vec::new();
        let mut put = |part: Option<&[u8]>| {
            bytes.push(u8::from(part.is_some()));
            let part = part.unwrap_or_default();
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        };
        for conflict in &self.conflicts {
            put(conflict.element());
            match *conflict {
                Conflict::Key { base, ours, theirs } => [base, ours, theirs].map(|version| {
                    let deadline = version.and_then(|version| version.deadline);
                    put(deadline.map(u64::to_le_bytes).as_ref().map(|bytes| &bytes[..]));
                    put(version.map(|it| in_order(it.value)).as_deref());
                }),
                Conflict::Field { base, ours, theirs, .. } => [base, ours, theirs].map(&mut put),
                Conflict::Member { base, ours, theirs, .. } => [base, ours, theirs]
                    .map(|score| put(score.map(f64::to_le_bytes).as_ref().map(|bytes| &bytes[..]))),
            };
        }
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    /// The effects that make ours the merged key, encoded, with a choice for
    /// each conflict; empty when there is nothing to do.
    ///
    /// # Errors
    /// When a choice's value does not fit its part.
    ///
    /// # Panics
    /// When there is not one choice for each conflict.
    pub fn effects(&self, choices: &[Choice<'_>]) -> Result<Vec<u8>, ChoiceError> {
        assert_eq!(choices.len(), self.conflicts.len(), "one choice for each conflict");
        let mut out = Vec::new();
        match &self.plan {
            Plan::Keep => self.keep(&mut out),
            Plan::Remove => self.remove(&mut out),
            Plan::Take => self.take(&mut out),
            Plan::Add(amount) => {
                Effect::StrAdd { delta: *amount }.encode(&mut out);
                self.settle_deadline(&mut out);
            }
            Plan::Elements(edits) => {
                let mut edits = edits.clone();
                for (conflict, &choice) in self.conflicts.iter().zip(choices) {
                    edits.choose(conflict, choice)?;
                }
                if edits.len() == 0 {
                    self.remove(&mut out);
                } else {
                    edits.encode(&mut out);
                    self.settle_deadline(&mut out);
                }
            }
            Plan::Conflict => match choices[0] {
                Choice::Ours => self.keep(&mut out),
                // Equal counters whose sum is too large.
                Choice::Theirs if self.is_equal() => self.keep(&mut out),
                Choice::Theirs => self.take(&mut out),
                Choice::Value(value) => {
                    self.check_strings()?;
                    Effect::StrSet { value, deadline: self.deadline }.encode(&mut out);
                }
            },
        }
        Ok(out)
    }

    fn is_equal(&self) -> bool {
        let sides = self.ours.zip(self.theirs);
        sides.is_some_and(|(ours, theirs)| is_same_value(ours.value, theirs.value))
    }

    fn keep(&self, out: &mut Vec<u8>) {
        if self.ours.is_some() {
            self.settle_deadline(out);
        }
    }

    fn remove(&self, out: &mut Vec<u8>) {
        if self.ours.is_some() {
            Effect::Delete(Cause::Client).encode(out);
        }
    }

    fn take(&self, out: &mut Vec<u8>) {
        let Some(theirs) = self.theirs else { return self.remove(out) };
        let ours = self.ours.map(|ours| ours.value);
        if bodies::turn(ours, theirs.value, out) {
            self.settle_deadline(out);
            return;
        }
        let deadline = self.deadline;
        match theirs.value {
            ValueRef::Str(value) => Effect::StrSet { value, deadline }.encode(out),
            value => {
                let body = crate::dump::encode_body(value);
                Effect::Put { body: &body, deadline }.encode(out);
            }
        }
    }

    /// After effects that leave the deadline as ours has it.
    fn settle_deadline(&self, out: &mut Vec<u8>) {
        if self.ours.and_then(|ours| ours.deadline) != self.deadline {
            Effect::Deadline(self.deadline).encode(out);
        }
    }

    /// Whether the conflict is one about strings.
    fn check_strings(&self) -> Result<(), ChoiceError> {
        for version in [self.ours, self.theirs].into_iter().flatten() {
            let ValueRef::Str(_) = version.value else {
                return Err(ChoiceError::Type { type_name: version.value.type_name() });
            };
        }
        Ok(())
    }
}
