use std::ops::Deref;
use std::sync::Arc;

use base::{Rng, number};

use super::SHARED_BYTES;
use super::packed::Packed;
use crate::limits::EncodingLimits;
use crate::table::{Keyed, SharedTable};

/// A set of members.
///
/// Integers only: a sorted array; small: one allocation in order of insertion;
/// else a table. The limits are Redis's, see [`EncodingLimits`].
#[derive(Clone, Debug)]
pub struct Set {
    seed: u64,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Ints(Vec<i64>),
    Packed(Packed),
    /// Shared with copies until one of them changes.
    Table(Arc<Members>),
}

#[derive(Clone, Debug)]
struct Members {
    table: SharedTable<Box<[u8]>>,
    /// Heap bytes of the members.
    member_bytes: usize,
}

impl Keyed for Box<[u8]> {
    fn key(&self) -> &[u8] {
        self
    }
}

impl Members {
    fn add(&mut self, member: &[u8]) -> bool {
        let hash = self.table.hash_of(member);
        if self.table.get(hash, member).is_some() {
            return false;
        }
        self.member_bytes += member.len();
        self.table.insert(hash, member.into());
        true
    }
}

/// A member as bytes: borrowed, or the text of an integer.
#[derive(Clone, Debug)]
pub struct Member<'a>(Inner<'a>);

#[derive(Clone, Debug)]
enum Inner<'a> {
    Bytes(&'a [u8]),
    /// An integer's decimal text and its length; 20 bytes hold any.
    Int([u8; 20], u8),
}

impl<'a> Member<'a> {
    fn bytes(bytes: &'a [u8]) -> Member<'a> {
        Member(Inner::Bytes(bytes))
    }

    fn int(value: i64) -> Member<'a> {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(value).as_bytes();
        let mut text = [0; 20];
        text[..digits.len()].copy_from_slice(digits);
        Member(Inner::Int(text, digits.len() as u8))
    }
}

impl Deref for Member<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Inner::Bytes(bytes) => bytes,
            Inner::Int(text, len) => &text[..usize::from(*len)],
        }
    }
}

impl Set {
    /// An empty set whose table, if it gets one, hashes with `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Set {
        Set { seed, form: Form::Ints(Vec::new()) }
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Ints(ints) => ints.len(),
            Form::Packed(packed) => packed.len(),
            Form::Table(members) => members.table.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `OBJECT ENCODING` says.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match &self.form {
            Form::Ints(_) => "intset",
            Form::Packed(_) => "listpack",
            Form::Table(_) => "hashtable",
        }
    }

    /// Heap bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.form {
            Form::Ints(ints) => ints.capacity() * size_of::<i64>(),
            Form::Packed(packed) => packed.memory_bytes(),
            Form::Table(members) => {
                SHARED_BYTES
                    + size_of::<Members>()
                    + members.table.memory_bytes()
                    + members.member_bytes
            }
        }
    }

    /// Whether a member is there.
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.form {
            Form::Ints(ints) => {
                number::parse_i64(member).is_some_and(|n| ints.binary_search(&n).is_ok())
            }
            Form::Packed(packed) => packed.iter().any(|found| found == member),
            Form::Table(members) => {
                members.table.get(members.table.hash_of(member), member).is_some()
            }
        }
    }

    /// Adds a member; answers whether it is new.
    pub fn add(&mut self, member: &[u8], limits: &EncodingLimits) -> bool {
        if let Form::Ints(ints) = &mut self.form {
            if let Some(n) = number::parse_i64(member) {
                let Err(at) = ints.binary_search(&n) else { return false };
                if ints.len() < limits.set_max_intset_entries {
                    if ints.len() == ints.capacity() {
                        ints.reserve_exact(1 + ints.len() / 4);
                    }
                    ints.insert(at, n);
                    return true;
                }
            }
            self.leave_ints(member, limits);
        }
        if let Form::Packed(packed) = &mut self.form {
            if packed.iter().any(|found| found == member) {
                return false;
            }
            if packed.len() < limits.set_max_listpack_entries
                && member.len() <= limits.set_max_listpack_value
            {
                packed.push_back(member);
                return true;
            }
        }
        self.members().add(member)
    }

    /// Removes a member; answers whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.form {
            Form::Ints(ints) => {
                let at = number::parse_i64(member).and_then(|n| ints.binary_search(&n).ok());
                if let Some(at) = at {
                    ints.remove(at);
                    if ints.len() * 2 < ints.capacity() {
                        ints.shrink_to(ints.len() + ints.len() / 4);
                    }
                }
                at.is_some()
            }
            Form::Packed(packed) => {
                let at = packed.iter().position(|found| found == member);
                at.into_iter().for_each(|at| packed.remove(at));
                at.is_some()
            }
            Form::Table(members) => {
                let members = Arc::make_mut(members);
                let removed = members.table.remove(members.table.hash_of(member), member);
                members.member_bytes -= removed.as_ref().map_or(0, |removed| removed.len());
                removed.is_some()
            }
        }
    }

    /// The members.
    #[must_use]
    pub fn iter(&self) -> Box<dyn Iterator<Item = Member<'_>> + '_> {
        match &self.form {
            Form::Ints(ints) => Box::new(ints.iter().map(|&n| Member::int(n))),
            Form::Packed(packed) => Box::new(packed.iter().map(Member::bytes)),
            Form::Table(members) => Box::new(members.table.iter().map(|m| Member::bytes(m))),
        }
    }

    /// The members, but for some that another set has as well because one is a
    /// copy of the other.
    pub(crate) fn iter_unshared<'a>(
        &'a self,
        other: &'a Set,
    ) -> Box<dyn Iterator<Item = Member<'a>> + 'a> {
        match (&self.form, &other.form) {
            (Form::Table(members), Form::Table(others)) => {
                Box::new(members.table.iter_unshared(&others.table).map(|m| Member::bytes(m)))
            }
            _ => self.iter(),
        }
    }

    /// A member chosen uniformly.
    #[must_use]
    pub fn random(&self, rng: &mut dyn Rng) -> Option<Member<'_>> {
        if self.is_empty() {
            return None;
        }
        match &self.form {
            Form::Ints(ints) => Some(Member::int(ints[rng.below(ints.len() as u64) as usize])),
            Form::Packed(packed) => {
                packed.get(rng.below(packed.len() as u64) as usize).map(Member::bytes)
            }
            Form::Table(members) => members.table.random(rng).map(|m| Member::bytes(m)),
        }
    }

    /// Visits about `count` members from `cursor` on; see `Table::scan`. A
    /// small set is visited whole.
    pub fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8])) -> u64 {
        match &self.form {
            Form::Table(members) => members.table.scan(cursor, count, &mut |m| visit(m)),
            _ => {
                self.iter().for_each(|member| visit(&member));
                0
            }
        }
    }

    /// Turns the integers into the form that can take `member` too.
    fn leave_ints(&mut self, member: &[u8], limits: &EncodingLimits) {
        let Form::Ints(ints) = &self.form else { return };
        let longest = |n: &i64| Member::int(*n).len();
        let ends = [ints.first(), ints.last()];
        let widest = ends.into_iter().flatten().map(longest).max().unwrap_or(0);
        if ints.len() < limits.set_max_listpack_entries
            && member.len().max(widest) <= limits.set_max_listpack_value
        {
            let mut packed = Packed::new();
            ints.iter().for_each(|&n| packed.push_back(&Member::int(n)));
            self.form = Form::Packed(packed);
        } else {
            self.members();
        }
    }

    /// See `Value::own_outline`.
    pub(crate) fn own_outline(&mut self) {
        if let Form::Table(members) = &mut self.form {
            Arc::make_mut(members);
        }
    }

    /// Makes what it has its own, if it is a copy.
    pub(crate) fn unshare(&mut self) {
        if let Form::Table(members) = &mut self.form {
            Arc::make_mut(members).table.unshare();
        }
    }

    /// The table, made from the other forms if there is none yet.
    fn members(&mut self) -> &mut Members {
        if !matches!(self.form, Form::Table(_)) {
            let mut members = Members { table: SharedTable::new(self.seed), member_bytes: 0 };
            self.iter().for_each(|member| {
                members.add(&member);
            });
            self.form = Form::Table(Arc::new(members));
        }
        match &mut self.form {
            Form::Table(members) => Arc::make_mut(members),
            _ => unreachable!("just converted"),
        }
    }
}

/// Equal members, whatever the encoding.
impl PartialEq for Set {
    fn eq(&self, other: &Set) -> bool {
        self.len() == other.len() && self.iter_unshared(other).all(|member| other.contains(&member))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use base::SeededRng;
    use proptest::prelude::*;

    use super::*;

    fn small() -> EncodingLimits {
        EncodingLimits {
            set_max_intset_entries: 6,
            set_max_listpack_entries: 8,
            set_max_listpack_value: 5,
            ..EncodingLimits::default()
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(
            steps in prop::collection::vec((prop_oneof![(-20i32..20).prop_map(|n| n.to_string()), "[a-c]{0,6}"], 0u8..3), 0..200),
        ) {
            let mut set = Set::new(9);
            let mut model = BTreeSet::new();
            for (member, what) in steps {
                let member = member.into_bytes();
                if what > 0 {
                    prop_assert_eq!(set.add(&member, &small()), model.insert(member));
                } else {
                    prop_assert_eq!(set.remove(&member), model.remove(&member));
                }
                prop_assert_eq!(set.len(), model.len());
                if let Form::Table(members) = &set.form {
                    let bytes: usize = members.table.iter().map(|m| m.len()).sum();
                    prop_assert_eq!(members.member_bytes, bytes);
                }
            }
            let mut found: Vec<_> = set.iter().map(|m| m.to_vec()).collect();
            found.sort();
            prop_assert_eq!(&found, &model.iter().cloned().collect::<Vec<_>>());
            let mut scanned = Vec::new();
            let mut cursor = 0;
            loop {
                cursor = set.scan(cursor, 3, &mut |m| scanned.push(m.to_vec()));
                if cursor == 0 { break; }
            }
            scanned.sort();
            prop_assert_eq!(&scanned, &found);
            let random = set.random(&mut SeededRng::new(1)).map(|m| m.to_vec());
            prop_assert_eq!(random.is_some(), !model.is_empty());
            prop_assert!(random.is_none_or(|m| model.contains(&m)));
            prop_assert_eq!(set.clone(), set);
        }
    }

    #[test]
    fn encodings_follow_redis() {
        let limits = EncodingLimits::default();
        let mut set = Set::new(0);
        (0..512).for_each(|n: i32| assert!(set.add(n.to_string().as_bytes(), &limits)));
        assert_eq!(set.encoding(), "intset");
        set.add(b"512", &limits);
        assert_eq!(set.encoding(), "hashtable");
        let mut set = Set::new(0);
        set.add(b"1", &limits);
        set.add(b"a", &limits);
        assert_eq!(set.encoding(), "listpack");
        set.add(&[b'x'; 65], &limits);
        assert_eq!(set.encoding(), "hashtable");
        let mut set = Set::new(0);
        set.add(b"a", &limits);
        assert_eq!(set.encoding(), "listpack");
        set.add(b"01", &limits);
        assert!(set.contains(b"01") && !set.contains(b"1"));
    }
}
