//! Bytes of collections that stand element by element. See `docs/FORMAT.md`.
//!
//! A *large* collection is a head, which has no content of its own, and an
//! entry for each element. So a change of one element is one small write.
//!
//! ```text
//! head's key     as any head's
//! element's key  head's key, born: length byte, then that many bytes big-endian,
//!                name: 0 and the name, or 1 and the SHA-256 of a longer one
//! ```
//!
//! `born` names the *generation*: the batch that wrote the collection as a
//! whole. Elements of another generation than the head's do not exist, so a
//! collection that is removed or replaced leaves its elements to compaction.
//!
//! The name of a list's element is its position. The head says which positions
//! there are, so that taking elements off an end writes nothing but the head.

use base::{Revision, leb128};
use keyspace::types::{Hash, List, Set, Zset};
use keyspace::{EncodingLimits, Listed, Unread, Value, ValueRef};
use sha2::{Digest, Sha256};

use crate::codec::{FORM_ELEMENT, FORM_GONE, FORM_LARGE, FORM_LARGE_OVER, Reader, put_beginning};

/// Longest name of an element that stands in the LSM as it is. With the longest
/// name of a head before it, it fits what the LSM takes.
pub(crate) const ELEMENT_NAME_BYTES_MAX: usize = 16 << 10;

const NAME_PLAIN: u8 = 0;
const NAME_DIGEST: u8 = 1;

/// From which size on a collection stands element by element. One that does
/// stays so until it is written as a whole for another reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeFrom {
    /// More elements than this.
    pub elements: usize,
    /// More bytes than this, if there are two elements at least.
    pub bytes: usize,
}

impl Default for LargeFrom {
    fn default() -> LargeFrom {
        LargeFrom { elements: 1024, bytes: 64 << 10 }
    }
}

/// A collection's type; the number is its type byte in `DUMP`'s form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    List = 1,
    Set = 2,
    Hash = 4,
    Zset = 5,
}

impl Kind {
    fn of(value: ValueRef<'_>) -> Option<Kind> {
        match value {
            ValueRef::Str(_) => None,
            ValueRef::List(_) => Some(Kind::List),
            ValueRef::Set(_) => Some(Kind::Set),
            ValueRef::Hash(_) => Some(Kind::Hash),
            ValueRef::Zset(_) => Some(Kind::Zset),
        }
    }
}

/// What a head says of a collection that stands element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Large {
    pub(crate) kind: Kind,
    /// The batch that wrote all of it.
    pub(crate) born: Revision,
    /// Elements it has.
    pub(crate) count: u64,
    /// The position of a list's first element; else 0.
    pub(crate) first: i64,
    /// Whether elements without an entry are those of the key in the space below,
    /// see `layers.rs`.
    pub(crate) is_over: bool,
}

impl Large {
    /// That of a collection written as a whole by the batch of `born`; `None`
    /// for a string.
    pub(crate) fn of(value: ValueRef<'_>, born: Revision) -> Option<Large> {
        let count = value.element_count() as u64;
        Kind::of(value).map(|kind| Large { kind, born, count, first: 0, is_over: false })
    }

    pub(crate) fn is_list(&self) -> bool {
        self.kind == Kind::List
    }

    /// A collection of this type that holds nothing.
    fn empty(&self, seed: u64) -> Value {
        match self.kind {
            Kind::List => Value::List(List::new()),
            Kind::Set => Value::Set(Set::new(seed)),
            Kind::Hash => Value::Hash(Hash::new(seed)),
            Kind::Zset => Value::Zset(Zset::new(seed)),
        }
    }

    /// One element that stands for all.
    pub(crate) fn stand_in(&self, seed: u64, limits: &EncodingLimits) -> Value {
        let mut value = self.empty(seed);
        match &mut value {
            Value::List(list) => list.push_back(b"", limits),
            value => Named::new(&[]).stand_in(value, limits),
        }
        value
    }

    /// What a list of keys tells of it.
    pub(crate) fn listed(&self, deadline: Option<u64>, revision: Revision) -> Listed {
        let type_name = self.empty(0).as_ref().type_name();
        Listed::Long(Unread { type_name, elements: self.count, deadline, revision })
    }

    /// Whether a list has an element at a position.
    pub(crate) fn has_position(&self, position: i64) -> bool {
        self.index_of(position) < u128::from(self.count)
    }

    /// Of a position before the first, more than any count.
    fn index_of(&self, position: i64) -> u128 {
        (i128::from(position) - i128::from(self.first)) as u128
    }

    pub(crate) fn read(reader: &mut Reader<'_>, is_over: bool) -> Result<Large, &'static str> {
        let kind = match reader.byte()? {
            1 => Kind::List,
            2 => Kind::Set,
            4 => Kind::Hash,
            5 => Kind::Zset,
            _ => return Err("a collection has an unknown type"),
        };
        let born = Revision(reader.number()?);
        let count = reader.number()?;
        let first = if kind == Kind::List { leb128::unzigzag(reader.number()?) } else { 0 };
        if count == 0 || i128::from(first) + i128::from(count) > i128::from(i64::MAX) {
            return Err("a collection's count cannot be");
        }
        Ok(Large { kind, born, count, first, is_over })
    }

    /// Appends the value of its head.
    pub(crate) fn put_head(
        &self,
        out: &mut Vec<u8>,
        key: &[u8],
        revision: Revision,
        deadline: Option<u64>,
    ) {
        let form = if self.is_over { FORM_LARGE_OVER } else { FORM_LARGE };
        put_beginning(out, key, revision, form, deadline);
        out.push(self.kind as u8);
        leb128::put(out, self.born.0);
        leb128::put(out, self.count);
        if self.kind == Kind::List {
            leb128::put(out, leb128::zigzag(self.first));
        }
    }
}

/// Appends what comes between a head's key and the names of its elements.
pub(crate) fn put_born(out: &mut Vec<u8>, born: Revision) {
    let zeros = (born.0.leading_zeros() / 8) as usize;
    out.push((8 - zeros) as u8);
    out.extend_from_slice(&born.0.to_be_bytes()[zeros..]);
}

/// Appends an element's name as it stands in its key.
pub(crate) fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    if name.len() <= ELEMENT_NAME_BYTES_MAX {
        out.push(NAME_PLAIN);
        out.extend_from_slice(name);
    } else {
        out.push(NAME_DIGEST);
        out.extend_from_slice(&Sha256::digest(name));
    }
}

/// Greater than every name of an element.
pub(crate) const AFTER_NAMES: u8 = 2;

/// Behind a head's key, greater than the keys of all its elements: a generation
/// begins with its length.
pub(crate) const AFTER_ELEMENTS: u8 = 9;

/// The name of a list's element: positions in order are names in order.
pub(crate) fn position_name(position: i64) -> [u8; 8] {
    (position as u64 ^ 1 << 63).to_be_bytes()
}

/// The position that a name is of.
pub(crate) fn position_of(name: &[u8]) -> Option<i64> {
    Some((u64::from_be_bytes(name.try_into().ok()?) ^ 1 << 63) as i64)
}

/// Which element an entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ElementKey<'a> {
    pub(crate) born: Revision,
    /// `None` where only a digest stands there.
    pub(crate) name: Option<&'a [u8]>,
}

impl<'a> ElementKey<'a> {
    /// Reads what follows the head's key in an element's.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<ElementKey<'a>, &'static str> {
        let (&len, rest) = bytes.split_first().ok_or("an element has no name")?;
        let (born, name) = rest
            .split_at_checked(usize::from(len))
            .filter(|_| len <= 8)
            .ok_or("an element's generation ends early")?;
        let mut number = [0; 8];
        number[8 - born.len()..].copy_from_slice(born);
        let born = Revision(u64::from_be_bytes(number));
        Ok(ElementKey { born, name: read_name(name)? })
    }
}

/// Reads what [`put_name`] wrote; `None` where only a digest stands there.
fn read_name(bytes: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    match bytes.split_first() {
        Some((&NAME_PLAIN, name)) => Ok(Some(name)),
        Some((&NAME_DIGEST, digest)) if digest.len() == 32 => Ok(None),
        _ => Err("an element's name is of an unknown kind"),
    }
}

/// Appends the value of an element: what it holds, or that it is gone.
///
/// ```text
/// revision  LEB128: of its last change, or of the collection's when that was
///           written as a whole
/// form      5: it is there, 2: it is gone
/// name      only where its key has a digest: length LEB128, the name
/// content   a field's value, an element of a list, a score of 8 bytes, or
///           nothing for a member of a set
/// ```
pub(crate) fn put_element(
    out: &mut Vec<u8>,
    name: &[u8],
    revision: Revision,
    content: Option<&[u8]>,
) {
    leb128::put(out, revision.0);
    let Some(content) = content else {
        out.push(FORM_GONE);
        return;
    };
    out.push(FORM_ELEMENT);
    if name.len() > ELEMENT_NAME_BYTES_MAX {
        leb128::put(out, name.len() as u64);
        out.extend_from_slice(name);
    }
    out.extend_from_slice(content);
}

/// An element that is there, read from its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// Its name, where its key has only a digest.
    pub(crate) name: Option<&'a [u8]>,
    /// What it holds.
    pub(crate) content: &'a [u8],
}

/// Reads an element's value; `None` when it is gone. `has_name` says that its
/// key has only a digest.
pub(crate) fn element(value: &[u8], has_name: bool) -> Result<Option<Element<'_>>, &'static str> {
    let mut reader = Reader(value);
    reader.number()?;
    match reader.byte()? {
        FORM_GONE => return Ok(None),
        FORM_ELEMENT => {}
        _ => return Err("an element has an unknown form"),
    }
    let name = if has_name { Some(reader.bytes()?) } else { None };
    Ok(Some(Element { name, content: reader.0 }))
}

/// Visits the elements of a collection with their names, as they are stored.
pub(crate) fn each(value: ValueRef<'_>, visit: &mut dyn FnMut(&[u8], &[u8])) {
    match value {
        ValueRef::Str(_) => {}
        ValueRef::List(list) => {
            for (position, element) in (0..).zip(list.iter()) {
                visit(&position_name(position), element);
            }
        }
        ValueRef::Set(set) => set.iter().for_each(|member| visit(&member, b"")),
        ValueRef::Hash(hash) => hash.iter().for_each(|(field, value)| visit(field, value)),
        ValueRef::Zset(zset) => {
            zset.iter().for_each(|(member, score)| visit(member, &score.to_le_bytes()));
        }
    }
}

/// Some elements of a collection, when the others are not asked for.
#[derive(Clone, Debug)]
pub(crate) struct Named<'n> {
    /// Each once, in order.
    names: Vec<&'n [u8]>,
    /// None of the names.
    other: Vec<u8>,
}

impl<'n> Named<'n> {
    pub(crate) fn new(names: &[&'n [u8]]) -> Named<'n> {
        let mut names = names.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut named = Named { names, other: Vec::new() };
        while named.has(&named.other) {
            named.other.push(0);
        }
        named
    }

    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.names.binary_search(&name).is_ok()
    }

    /// Each name once, in order.
    pub(crate) fn names(&self) -> &[&'n [u8]] {
        &self.names
    }

    /// Puts an element of another name in that stands for all that were not
    /// read, so that the collection does not end with those that were. Of lists,
    /// whose elements have no names of their own, all are read.
    pub(crate) fn stand_in(&self, value: &mut Value, limits: &EncodingLimits) {
        match value {
            Value::Str(_) | Value::List(_) => {}
            Value::Set(set) => _ = set.add(&self.other, limits),
            Value::Hash(hash) => {
                if hash.get(&self.other).is_none() {
                    hash.set(&self.other, b"", limits);
                }
            }
            Value::Zset(zset) => {
                if zset.score(&self.other).is_none() {
                    zset.insert(&self.other, 0.0, limits);
                }
            }
        }
    }
}

/// The score that an element of a sorted set holds.
pub(crate) fn score(content: &[u8]) -> Result<f64, &'static str> {
    let bytes = content.try_into().map_err(|_| "a score does not have 8 bytes")?;
    let score = f64::from_le_bytes(bytes);
    if score.is_nan() { Err("a score is not a number") } else { Ok(score) }
}

/// A collection that is put together from its elements, which come in the order
/// of their keys.
#[derive(Debug)]
pub(crate) struct Assembly {
    large: Large,
    value: Value,
    /// Elements there are so far.
    count: u64,
}

impl Assembly {
    pub(crate) fn new(large: Large, seed: u64) -> Assembly {
        Assembly { large, value: large.empty(seed), count: 0 }
    }

    /// Takes an entry of the key in, if it is of this generation: what follows
    /// the head's key in its key, and its value.
    pub(crate) fn add(
        &mut self,
        key: &[u8],
        value: &[u8],
        limits: &EncodingLimits,
    ) -> Result<(), &'static str> {
        let ElementKey { born, name } = ElementKey::read(key)?;
        if born == self.large.born { self.add_element(name, value, limits) } else { Ok(()) }
    }

    /// Takes the entry of an element in, of whatever generation: its name as it
    /// stands at the end of its key, and its value.
    pub(crate) fn add_named(
        &mut self,
        name: &[u8],
        value: &[u8],
        limits: &EncodingLimits,
    ) -> Result<(), &'static str> {
        self.add_element(read_name(name)?, value, limits)
    }

    fn add_element(
        &mut self,
        plain: Option<&[u8]>,
        value: &[u8],
        limits: &EncodingLimits,
    ) -> Result<(), &'static str> {
        let Some(Element { name, content }) = element(value, plain.is_none())? else {
            return Ok(());
        };
        let name = plain.or(name).ok_or("an element has no name")?;
        let is_new = match &mut self.value {
            Value::Str(_) => unreachable!("it is a collection"),
            Value::List(list) => {
                let position = position_of(name).ok_or("a position does not have 8 bytes")?;
                if !self.large.has_position(position) {
                    return Ok(());
                }
                list.push_back(content, limits);
                self.large.index_of(position) == u128::from(self.count)
            }
            Value::Set(set) => set.add(name, limits),
            Value::Hash(hash) => hash.set(name, content, limits),
            Value::Zset(zset) => zset.insert(name, score(content)?, limits).is_none(),
        };
        self.count += 1;
        if is_new { Ok(()) } else { Err("a collection has an element twice, or lacks one") }
    }

    /// What there is so far, where only some elements are wanted.
    pub(crate) fn part(self) -> Value {
        self.value
    }

    pub(crate) fn finish(self) -> Result<Value, String> {
        let (found, expected) = (self.count, self.large.count);
        if found != expected {
            return Err(format!("a collection of {expected} elements has {found}"));
        }
        Ok(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{self, Content};

    const LIMITS: EncodingLimits = EncodingLimits {
        hash_max_listpack_entries: 128,
        hash_max_listpack_value: 64,
        list_max_listpack_size: -2,
        set_max_intset_entries: 512,
        set_max_listpack_entries: 128,
        set_max_listpack_value: 64,
        zset_max_listpack_entries: 128,
        zset_max_listpack_value: 64,
        listpack_lists_and_sets: false,
    };

    /// The bytes that `docs/FORMAT.md` describes: whoever changes them makes a
    /// new format.
    #[test]
    fn bytes_are_as_documented() {
        let head = |large: &Large, deadline| {
            let mut out = Vec::new();
            large.put_head(&mut out, b"k", Revision(300), deadline);
            out
        };
        let hash =
            Large { kind: Kind::Hash, born: Revision(258), count: 200, first: 0, is_over: false };
        assert_eq!(head(&hash, None), b"\xac\x02\x04\x00\x04\x82\x02\xc8\x01");
        let list =
            Large { kind: Kind::List, born: Revision(1), count: 3, first: -2, is_over: false };
        assert_eq!(head(&list, Some(127)), b"\xac\x02\x04\x80\x01\x01\x01\x03\x03");
        let over = Large { is_over: true, ..hash };
        assert_eq!(head(&over, None), b"\xac\x02\x06\x00\x04\x82\x02\xc8\x01");
        for (large, deadline) in [(hash, None), (list, Some(127)), (over, None)] {
            let bytes = head(&large, deadline);
            let read = codec::head(&bytes, false).expect("whole").expect("it exists");
            assert_eq!((read.revision, read.deadline), (Revision(300), deadline));
            assert!(matches!(read.content, Content::Large(found) if found == large));
        }

        let key = |born, name: &[u8]| {
            let mut out = Vec::new();
            put_born(&mut out, Revision(born));
            put_name(&mut out, name);
            out
        };
        assert_eq!(key(258, b"field"), b"\x02\x01\x02\x00field");
        assert_eq!(key(0, b""), b"\x00\x00");
        assert_eq!(key(1, &position_name(-2)), b"\x01\x01\x00\x7f\xff\xff\xff\xff\xff\xff\xfe");
        assert_eq!(key(1, &position_name(0)), b"\x01\x01\x00\x80\0\0\0\0\0\0\0");
        let long = vec![b'x'; ELEMENT_NAME_BYTES_MAX + 1];
        assert_eq!((key(1, &long).len(), key(1, &long)[2]), (35, 1));
        let read = |bytes: &[u8]| ElementKey::read(bytes).map(|key| key.name.map(<[u8]>::to_vec));
        assert_eq!(read(&key(258, b"field")), Ok(Some(b"field".to_vec())));
        assert_eq!(read(&key(258, &long)), Ok(None));
        assert_eq!(position_of(&position_name(i64::MIN)), Some(i64::MIN));

        let value = |name: &[u8], content: Option<&[u8]>| {
            let mut out = Vec::new();
            put_element(&mut out, name, Revision(300), content);
            out
        };
        assert_eq!(value(b"field", Some(b"value")), b"\xac\x02\x05value");
        assert_eq!(
            value(b"member", Some(&1.5f64.to_le_bytes())),
            b"\xac\x02\x05\0\0\0\0\0\0\xf8\x3f"
        );
        assert_eq!(value(&long, None), b"\xac\x02\x02");
        let long_value = value(&long, Some(b"v"));
        assert_eq!(long_value[..6], *b"\xac\x02\x05\x81\x80\x01");
        assert_eq!(
            element(&long_value, true),
            Ok(Some(Element { name: Some(&long[..]), content: b"v" }))
        );
        assert_eq!(codec::age(&value(b"", Some(b""))), Ok((Revision(300), false)));
    }

    fn assemble(large: Large, entries: &[(&[u8], &[u8])]) -> Result<Value, String> {
        let mut assembly = Assembly::new(large, 1);
        for (key, value) in entries {
            assembly.add(key, value, &LIMITS)?;
        }
        assembly.finish()
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let set =
            |count| Large { kind: Kind::Set, born: Revision(7), count, first: 0, is_over: false };
        let (a, b): (&[u8], &[u8]) = (b"\x01\x07\x00a", b"\x01\x07\x00b");
        let (there, gone): (&[u8], &[u8]) = (b"\x09\x05", b"\x09\x02");
        assert!(matches!(assemble(set(1), &[(a, there), (b, gone)]), Ok(Value::Set(_))));
        let other: &[u8] = b"\x01\x06\x00c";
        assert!(assemble(set(2), &[(other, there), (a, there), (b, there)]).is_ok());
        assert!(assemble(set(2), &[(a, there)]).is_err(), "one is missing");
        assert!(assemble(set(1), &[(a, there), (b, there)]).is_err(), "one is too many");
        for bad in
            [&b""[..], b"\x09", b"\x02\x07", b"\x01\x07", b"\x01\x07\x01short", b"\x01\x07\x02a"]
        {
            assert!(assemble(set(1), &[(bad, there)]).is_err(), "{bad:?}");
        }
        assert!(assemble(set(1), &[(a, b"\x09\x00")]).is_err(), "a form of a head's");
        let list = Large { kind: Kind::List, count: 2, first: -1, ..set(0) };
        let at = |position| [&b"\x01\x07\x00"[..], &position_name(position)].concat();
        let positions = |found: &[i64]| {
            let keys: Vec<Vec<u8>> = found.iter().map(|&position| at(position)).collect();
            let entries: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (&key[..], there)).collect();
            assemble(list, &entries)
        };
        assert!(positions(&[-2, -1, 0, 1]).is_ok(), "those outside are no part of it");
        assert!(positions(&[-1, 1]).is_err());
        assert!(positions(&[0]).is_err());
        let zset = Large { kind: Kind::Zset, ..set(1) };
        assert!(assemble(zset, &[(a, b"\x09\x05\0\0\0\0\0\0\xf8\x3f")]).is_ok());
        assert!(assemble(zset, &[(a, b"\x09\x05\0\0\0\0\0\0\xf8\x7f")]).is_err(), "not a number");
        assert!(assemble(zset, &[(a, b"\x09\x05\0")]).is_err());
    }
}
