//! Hashes, sets and sorted sets, merged element by element.

use std::ops::Deref;

use super::{Choice, ChoiceError, Conflict, Count, Counted, Plan, Step, merge_part, merge_text};
use crate::effect::Effect;
use crate::types::{Hash, Member, Set, Zset};

/// A collection whose elements have names.
pub(super) trait Elements<'a>: Copy {
    type Name: Deref<Target = [u8]>;
    /// What stands under a name.
    type Held: Copy + PartialEq;

    fn len(self) -> usize;
    fn entries(self) -> impl Iterator<Item = (Self::Name, Self::Held)>;
    /// The elements, but for some that another collection has as well.
    fn unshared(self, other: Self) -> impl Iterator<Item = (Self::Name, Self::Held)>;
    fn find(self, name: &[u8]) -> Option<Self::Held>;
    fn encoding(self) -> &'static str;

    fn put(name: &[u8], held: Self::Held, out: &mut Vec<u8>);
    fn remove(name: &[u8], out: &mut Vec<u8>);

    /// Merges an element. `counts` says what ours, and theirs, only counted.
    fn step(
        base: Option<Self::Held>,
        ours: Option<Self::Held>,
        theirs: Option<Self::Held>,
        _counts: [Count; 2],
    ) -> Step {
        merge_part(base, ours, theirs)
    }

    fn conflict(
        name: Self::Name,
        base: Option<Self::Held>,
        ours: Option<Self::Held>,
        theirs: Option<Self::Held>,
    ) -> Conflict<'a>;
}

impl<'a> Elements<'a> for &'a Hash {
    type Name = &'a [u8];
    type Held = &'a [u8];

    fn len(self) -> usize {
        Hash::len(self)
    }

    fn entries(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.iter()
    }

    fn unshared(self, other: &'a Hash) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.iter_unshared(other)
    }

    fn find(self, name: &[u8]) -> Option<&'a [u8]> {
        self.get(name)
    }

    fn encoding(self) -> &'static str {
        Hash::encoding(self)
    }

    fn put(field: &[u8], value: &'a [u8], out: &mut Vec<u8>) {
        Effect::HashSet { field, value }.encode(out);
    }

    fn remove(field: &[u8], out: &mut Vec<u8>) {
        Effect::HashDelete { field }.encode(out);
    }

    fn step(
        base: Option<&'a [u8]>,
        ours: Option<&'a [u8]>,
        theirs: Option<&'a [u8]>,
        counts: [Count; 2],
    ) -> Step {
        merge_text(base, ours, theirs, counts)
    }

    fn conflict(
        field: &'a [u8],
        base: Option<&'a [u8]>,
        ours: Option<&'a [u8]>,
        theirs: Option<&'a [u8]>,
    ) -> Conflict<'a> {
        Conflict::Field { field, base, ours, theirs }
    }
}

impl<'a> Elements<'a> for &'a Set {
    type Name = Member<'a>;
    type Held = ();

    fn len(self) -> usize {
        Set::len(self)
    }

    fn entries(self) -> impl Iterator<Item = (Member<'a>, ())> {
        self.iter().map(|member| (member, ()))
    }

    fn unshared(self, other: &'a Set) -> impl Iterator<Item = (Member<'a>, ())> {
        self.iter_unshared(other).map(|member| (member, ()))
    }

    fn find(self, name: &[u8]) -> Option<()> {
        self.contains(name).then_some(())
    }

    fn encoding(self) -> &'static str {
        Set::encoding(self)
    }

    fn put(member: &[u8], (): (), out: &mut Vec<u8>) {
        Effect::SetAdd { member }.encode(out);
    }

    fn remove(member: &[u8], out: &mut Vec<u8>) {
        Effect::SetRemove { member }.encode(out);
    }

    fn conflict(_: Member<'a>, _: Option<()>, _: Option<()>, _: Option<()>) -> Conflict<'a> {
        unreachable!("a member is there or not: two sides that change it agree")
    }
}

impl<'a> Elements<'a> for &'a Zset {
    type Name = &'a [u8];
    type Held = f64;

    fn len(self) -> usize {
        Zset::len(self)
    }

    fn entries(self) -> impl Iterator<Item = (&'a [u8], f64)> {
        self.iter()
    }

    fn unshared(self, other: &'a Zset) -> impl Iterator<Item = (&'a [u8], f64)> {
        self.iter_unshared(other)
    }

    fn find(self, name: &[u8]) -> Option<f64> {
        self.score(name)
    }

    fn encoding(self) -> &'static str {
        Zset::encoding(self)
    }

    fn put(member: &[u8], score: f64, out: &mut Vec<u8>) {
        Effect::ZsetSet { member, score }.encode(out);
    }

    fn remove(member: &[u8], out: &mut Vec<u8>) {
        Effect::ZsetRemove { member }.encode(out);
    }

    fn conflict(
        member: &'a [u8],
        base: Option<f64>,
        ours: Option<f64>,
        theirs: Option<f64>,
    ) -> Conflict<'a> {
        Conflict::Member { member, base, ours, theirs }
    }
}

/// Finds elements by name, fast in any encoding.
struct Index<'a, C: Elements<'a>> {
    collection: Option<C>,
    /// A listpack's elements by name; it finds them only by going through all.
    sorted: Option<Vec<(C::Name, C::Held)>>,
}

impl<'a, C: Elements<'a>> Index<'a, C> {
    fn new(collection: Option<C>) -> Index<'a, C> {
        let packed = collection.filter(|collection| collection.encoding() == "listpack");
        Index { collection, sorted: packed.map(sorted) }
    }

    fn find(&self, name: &[u8]) -> Option<C::Held> {
        match &self.sorted {
            Some(sorted) => {
                let at = sorted.binary_search_by(|(found, _)| found[..].cmp(name)).ok()?;
                Some(sorted[at].1)
            }
            None => self.collection?.find(name),
        }
    }
}

/// A collection's elements in the order of their names.
fn sorted<'a, C: Elements<'a>>(collection: C) -> Vec<(C::Name, C::Held)> {
    let mut entries: Vec<_> = collection.entries().collect();
    entries.sort_unstable_by(|(a, _), (b, _)| a[..].cmp(&b[..]));
    entries
}

/// The effects that make a collection, in the order of its elements' names.
pub(super) fn in_order<'a, C: Elements<'a>>(collection: C) -> Vec<u8> {
    let mut out = Vec::new();
    sorted(collection).iter().for_each(|(name, held)| C::put(name, *held, &mut out));
    out
}

/// Whether two collections have the same elements.
pub(super) fn is_same<'a, C: Elements<'a>>(a: C, b: C) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let index = Index::new(Some(b));
    a.unshared(b).all(|(name, held)| index.find(&name) == Some(held))
}

/// Effects on elements of ours. Those that put something go before those that
/// remove, lest the key go in between and take its deadline along.
#[derive(Clone, Debug)]
pub(super) struct Edits {
    puts: Vec<u8>,
    removals: Vec<u8>,
    /// Elements afterwards.
    len: usize,
}

impl Edits {
    /// How many elements the collection has afterwards.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.puts);
        out.extend_from_slice(&self.removals);
    }

    /// Settles a conflict about an element.
    pub(super) fn choose(
        &mut self,
        conflict: &Conflict<'_>,
        choice: Choice<'_>,
    ) -> Result<(), ChoiceError> {
        match *conflict {
            Conflict::Key { .. } => unreachable!("such a conflict has no elements"),
            Conflict::Field { field, ours, theirs, .. } => {
                let chosen = match choice {
                    Choice::Ours => return Ok(()),
                    Choice::Theirs => theirs,
                    Choice::Value(value) => Some(value),
                };
                self.set::<&Hash>(field, ours, chosen);
            }
            Conflict::Member { member, ours, theirs, .. } => {
                let chosen = match choice {
                    Choice::Ours => return Ok(()),
                    Choice::Theirs => theirs,
                    Choice::Value(value) => Some(score_of(value)?),
                };
                self.set::<&Zset>(member, ours, chosen);
            }
        }
        Ok(())
    }

    fn set<'a, C: Elements<'a>>(
        &mut self,
        name: &[u8],
        ours: Option<C::Held>,
        wanted: Option<C::Held>,
    ) {
        match wanted {
            _ if wanted == ours => {}
            Some(wanted) => {
                C::put(name, wanted, &mut self.puts);
                self.len += usize::from(ours.is_none());
            }
            None => {
                C::remove(name, &mut self.removals);
                self.len -= 1;
            }
        }
    }
}

fn score_of(value: &[u8]) -> Result<f64, ChoiceError> {
    base::number::parse_f64(value)
        .ok_or_else(|| ChoiceError::Score { value: String::from_utf8_lossy(value).into_owned() })
}

/// Merges a collection's elements. Ours is there unless nobody else but theirs
/// has the key.
pub(super) fn merge<'a, C: Elements<'a>>(
    base: Option<C>,
    ours: Option<C>,
    theirs: C,
    counted: [&Counted; 2],
    conflicts: &mut Vec<Conflict<'a>>,
) -> Plan {
    let ours_len = ours.map_or(0, Elements::len);
    let (in_base, in_ours) = (Index::new(base), Index::new(ours));
    let mut edits = Edits { puts: Vec::new(), removals: Vec::new(), len: ours_len };
    let (mut taken, mut removed) = (0, 0);
    let mut visit = |name: C::Name, base: Option<C::Held>, theirs: Option<C::Held>| {
        if theirs == base {
            return;
        }
        let ours = in_ours.find(&name);
        match C::step(base, ours, theirs, counted.map(|counted| counted.of_field(&name))) {
            Step::Keep => {}
            Step::Take => {
                edits.set::<C>(&name, ours, theirs);
                taken += usize::from(theirs.is_some());
                removed += usize::from(theirs.is_none());
            }
            Step::Add(delta) => {
                Effect::HashAdd { field: &name, delta }.encode(&mut edits.puts);
                edits.len += usize::from(ours.is_none());
            }
            Step::Conflict => conflicts.push(C::conflict(name, base, ours, theirs)),
        }
    };
    match base {
        // What the two share nobody has changed.
        Some(base) => theirs.unshared(base).for_each(|(name, held)| {
            let before = in_base.find(&name);
            visit(name, before, Some(held));
        }),
        None => theirs.entries().for_each(|(name, held)| visit(name, None, Some(held))),
    }
    if let Some(base) = base {
        let in_theirs = Index::new(Some(theirs));
        for (name, held) in base.unshared(theirs) {
            if in_theirs.find(&name).is_none() {
                visit(name, Some(held), None);
            }
        }
    }
    // Where nothing of ours stays, one value is shorter than all the removals.
    if taken == theirs.len() && removed == ours_len {
        return Plan::Take;
    }
    Plan::Elements(edits)
}
