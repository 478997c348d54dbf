//! Bytes of the base's keys and values. See `docs/FORMAT.md`.
//!
//! A key of the LSM is a *head* or an *element*:
//!
//! ```text
//! space    born: length byte, then that many bytes big-endian; db: u16 big-endian
//! bucket   u16 big-endian: the leading bits of the key's hash
//! name     kind 0: length u16 big-endian, the key
//!          kind 1: SHA-256 of a key longer than NAME_BYTES_MAX, which the head's value holds
//! element  nothing for the head; of an element see `elements.rs`
//! ```
//!
//! So all keys of a bucket stand together, a key's head comes right before its
//! elements, and no head's bytes are the beginning of another's.

use base::{BranchId, DbIndex, Revision, SpaceId, leb128};
use keyspace::{EncodingLimits, Value, dump};
use sha2::{Digest, Sha256};

use crate::elements::Large;

/// Longest key that stands in the LSM as it is. The LSM's own limit is 65535
/// bytes for the whole.
pub(crate) const NAME_BYTES_MAX: usize = 32 << 10;

/// Begins the keys that are not of any space.
const META: u8 = 0xff;

/// The key of the directory: where databases stand, and the revision of all.
pub(crate) const DIRECTORY: &[u8] = &[META, b'd'];

const NAME_PLAIN: u8 = 0;
const NAME_DIGEST: u8 = 1;

const FORM_STRING: u8 = 0;
const FORM_WHOLE: u8 = 1;
pub(crate) const FORM_GONE: u8 = 2;
pub(crate) const FORM_DIRECTORY: u8 = 3;
pub(crate) const FORM_LARGE: u8 = 4;
pub(crate) const FORM_ELEMENT: u8 = 5;
pub(crate) const FORM_LARGE_OVER: u8 = 6;

/// The part of the hash range that is loaded at once.
pub(crate) fn bucket_of(hash: u64) -> u16 {
    (hash >> 48) as u16
}

/// Appends the prefix of all keys of a space.
pub(crate) fn put_space(out: &mut Vec<u8>, space: SpaceId) {
    let born = space.born.0.to_be_bytes();
    let zeros = (space.born.0.leading_zeros() / 8) as usize;
    out.push((8 - zeros) as u8);
    out.extend_from_slice(&born[zeros..]);
    out.extend_from_slice(&space.db.to_be_bytes());
}

/// The prefix of a bucket's keys.
pub(crate) fn bucket_prefix(space: SpaceId, bucket: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(13);
    put_space(&mut out, space);
    out.extend_from_slice(&bucket.to_be_bytes());
    out
}

/// The key of a head. Only what is after the prefix is written if `out` has
/// the bucket's prefix already.
pub(crate) fn put_name(out: &mut Vec<u8>, key: &[u8]) {
    match u16::try_from(key.len()) {
        Ok(len) if key.len() <= NAME_BYTES_MAX => {
            out.push(NAME_PLAIN);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(key);
        }
        _ => {
            out.push(NAME_DIGEST);
            out.extend_from_slice(&Sha256::digest(key));
        }
    }
}

/// The key of a head.
pub(crate) fn head_key(space: SpaceId, hash: u64, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + key.len().min(NAME_BYTES_MAX));
    put_space(&mut out, space);
    out.extend_from_slice(&bucket_of(hash).to_be_bytes());
    put_name(&mut out, key);
    out
}

/// The key of the head that another space has of the same key.
pub(crate) fn in_space(head: &[u8], space: SpaceId) -> Vec<u8> {
    let own = head.first().map_or(0, |&len| 1 + usize::from(len) + 2);
    let mut out = Vec::with_capacity(head.len() + 8);
    put_space(&mut out, space);
    out.extend_from_slice(head.get(own..).unwrap_or_default());
    out
}

/// What an entry says of the key that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// The key.
    Plain(&'a [u8]),
    /// Too long: the head's value holds it.
    Digest,
}

/// The name and the element that follow the bucket's prefix in an entry's key.
///
/// # Errors
/// What is wrong with the bytes.
pub(crate) fn split_name(rest: &[u8]) -> Result<(Name<'_>, &[u8]), &'static str> {
    match rest.split_first() {
        Some((&NAME_PLAIN, rest)) => {
            let (len, rest) = rest.split_at_checked(2).ok_or("a name ends early")?;
            let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
            let (key, element) = rest.split_at_checked(len).ok_or("a name has another length")?;
            Ok((Name::Plain(key), element))
        }
        Some((&NAME_DIGEST, rest)) if rest.len() >= 32 => Ok((Name::Digest, &rest[32..])),
        _ => Err("a name of an unknown kind"),
    }
}

/// The value of a head.
///
/// ```text
/// revision  LEB128: of the key's last change
/// form      0: a string, 1: a whole value in DUMP's form, 2: the key is gone,
///           4: a collection whose elements follow, 6: one that lies over another
/// deadline  LEB128: 0 for none, else milliseconds since 1970 and one more
/// key       only where the head's key has a digest: length LEB128, the key
/// content   the string, DUMP's body, or what `elements.rs` says
/// ```
///
/// A key that is gone is an entry too, for compaction has to see which
/// revision removed it. This appends such a one.
pub(crate) fn put_gone(out: &mut Vec<u8>, revision: Revision) {
    leb128::put(out, revision.0);
    out.push(FORM_GONE);
}

/// Appends the value of a string's head.
pub(crate) fn put_string(
    out: &mut Vec<u8>,
    key: &[u8],
    revision: Revision,
    deadline: Option<u64>,
    string: &[u8],
) {
    put_beginning(out, key, revision, FORM_STRING, deadline);
    out.extend_from_slice(string);
}

/// Appends the value of a head that has a whole value, in DUMP's form.
pub(crate) fn put_whole(
    out: &mut Vec<u8>,
    key: &[u8],
    revision: Revision,
    deadline: Option<u64>,
    body: &[u8],
) {
    put_beginning(out, key, revision, FORM_WHOLE, deadline);
    out.extend_from_slice(body);
}

/// Appends what comes before the content.
pub(crate) fn put_beginning(
    out: &mut Vec<u8>,
    key: &[u8],
    revision: Revision,
    form: u8,
    deadline: Option<u64>,
) {
    leb128::put(out, revision.0);
    out.push(form);
    // The last millisecond of 64 bits means never as well as no deadline does.
    leb128::put(out, deadline.map_or(0, |at| at.saturating_add(1)));
    if key.len() > NAME_BYTES_MAX {
        leb128::put(out, key.len() as u64);
        out.extend_from_slice(key);
    }
}

/// A key that exists, read from a head's value.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    /// The key, where the head's key is only a digest.
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) revision: Revision,
    pub(crate) deadline: Option<u64>,
    pub(crate) content: Content<'a>,
}

/// Whether the elements of a head have entries of their own, if it is well-formed.
pub(crate) fn is_large(mut head: &[u8]) -> bool {
    leb128::take(&mut head).is_ok()
        && head.first().is_some_and(|form| [FORM_LARGE, FORM_LARGE_OVER].contains(form))
}

/// What a key holds.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Str(&'a [u8]),
    /// In DUMP's form.
    Whole(&'a [u8]),
    /// Its elements have entries of their own.
    Large(Large),
}

impl Content<'_> {
    /// The value; none of what stands in other entries.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn value(
        &self,
        seed: u64,
        limits: &EncodingLimits,
    ) -> Result<Option<Value>, String> {
        match *self {
            Content::Str(bytes) => Ok(Some(Value::Str(bytes.to_vec()))),
            Content::Whole(body) => {
                let value = dump::decode_body(body, seed, limits);
                value.map(Some).map_err(|error| error.to_string())
            }
            Content::Large(_) => Ok(None),
        }
    }
}

/// When a key is due.
#[derive(Debug)]
pub(crate) struct Due<'a> {
    pub(crate) at: u64,
    /// The key, where the head's key is only a digest.
    pub(crate) key: Option<&'a [u8]>,
}

/// When the key of a head is due, read without its value; `None` when it never
/// is or is gone.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn deadline(bytes: &[u8], has_key: bool) -> Result<Option<Due<'_>>, &'static str> {
    let mut reader = Reader(bytes);
    reader.number()?;
    if reader.byte()? == FORM_GONE {
        return Ok(None);
    }
    let Some(at) = reader.number()?.checked_sub(1) else { return Ok(None) };
    let key = if has_key { Some(reader.bytes()?) } else { None };
    Ok(Some(Due { at, key }))
}

/// Reads a head's value; `None` when its key is gone. `has_key` says that its
/// key is only a digest.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn head(bytes: &[u8], has_key: bool) -> Result<Option<Head<'_>>, String> {
    let mut reader = Reader(bytes);
    let revision = Revision(reader.number()?);
    let form = reader.byte()?;
    if form == FORM_GONE {
        return Ok(None);
    }
    let deadline = reader.number()?.checked_sub(1);
    let key = if has_key { Some(reader.bytes()?) } else { None };
    let content = match form {
        FORM_STRING => Content::Str(reader.0),
        FORM_WHOLE => Content::Whole(reader.0),
        FORM_LARGE | FORM_LARGE_OVER => {
            let large = Large::read(&mut reader, form == FORM_LARGE_OVER)?;
            if !reader.0.is_empty() {
                return Err("bytes after what a collection's head says".to_owned());
            }
            Content::Large(large)
        }
        form => return Err(format!("a value has the unknown form {form}")),
    };
    Ok(Some(Head { key, revision, deadline, content }))
}

/// What compaction needs of any entry's value, the directory included: the revision of its last change,
/// and whether it says that the key is gone.
pub(crate) fn age(value: &[u8]) -> Result<(Revision, bool), &'static str> {
    let mut reader = Reader(value);
    Ok((Revision(reader.number()?), reader.byte()? == FORM_GONE))
}

/// What comes behind the space and the bucket in an entry's key: the name.
fn named(entry: &[u8]) -> Option<&[u8]> {
    // The length of a revision, the revision, the database and the bucket.
    entry.get(1 + usize::from(*entry.first()?) + 2 + 2..)
}

/// Where a head's key ends in an entry's key, if the entry is an element.
pub(crate) fn element_at(key: &[u8]) -> Option<usize> {
    let rest = named(key).filter(|_| key[0] <= 8)?;
    let (_, element) = split_name(rest).ok()?;
    (!element.is_empty()).then(|| key.len() - element.len())
}

/// Whether a head's key has only a digest of the key it names.
pub(crate) fn is_digest(head: &[u8]) -> bool {
    named(head).and_then(<[u8]>::first) == Some(&NAME_DIGEST)
}

/// The key that an entry is of, unless only a digest of it stands there.
pub(crate) fn plain_key(entry: &[u8]) -> Option<&[u8]> {
    match split_name(named(entry)?).ok()? {
        (Name::Plain(key), _) => Some(key),
        (Name::Digest, _) => None,
    }
}

/// The key that a head is of, where only a digest of it stands in its own key
/// and if it exists.
pub(crate) fn long_key<'v>(entry: &[u8], value: &'v [u8]) -> Option<&'v [u8]> {
    if !is_digest(entry) || element_at(entry).is_some() {
        return None;
    }
    let mut reader = Reader(value);
    reader.number().ok()?;
    if reader.byte().ok()? == FORM_GONE {
        return None;
    }
    reader.number().ok()?;
    reader.bytes().ok()
}

/// What stands in the place of a head's value that was erased: an empty string
/// without a deadline.
pub(crate) fn erased(entry: &[u8], value: &[u8]) -> Vec<u8> {
    let (revision, _) = age(value).unwrap_or_default();
    let key = plain_key(entry).or(long_key(entry, value)).unwrap_or_default();
    let mut out = Vec::new();
    put_string(&mut out, key, revision, None, b"");
    out
}

/// The space that a key of the LSM is in; `None` for what is in none.
pub(crate) fn space_of(key: &[u8]) -> Option<SpaceId> {
    let (&len, rest) = key.split_first()?;
    let (born, rest) = rest.split_at_checked(usize::from(len)).filter(|_| len <= 8)?;
    let mut bytes = [0; 8];
    bytes[8 - born.len()..].copy_from_slice(born);
    let db = DbIndex::from_be_bytes(rest.get(..2)?.try_into().ok()?);
    Some(SpaceId { born: Revision(u64::from_be_bytes(bytes)), db })
}

/// Reads what this module writes.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn number(&mut self) -> Result<u64, &'static str> {
        Ok(leb128::take(&mut self.0)?)
    }

    /// A space, as the directory has it.
    pub(crate) fn space(&mut self) -> Result<SpaceId, &'static str> {
        Ok(SpaceId { born: Revision(self.number()?), db: self.db()? })
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("it ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A length and so many bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], &'static str> {
        let len = self.number()?;
        self.take(usize::try_from(len).map_err(|_| "a length is too great")?)
    }

    pub(crate) fn branch(&mut self) -> Result<BranchId, &'static str> {
        u32::try_from(self.number()?).map(BranchId).map_err(|_| "a branch's number is too great")
    }

    pub(crate) fn db(&mut self) -> Result<DbIndex, &'static str> {
        DbIndex::try_from(self.number()?).map_err(|_| "a database number exceeds 65535")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: SpaceId = SpaceId { born: Revision(0x01_02), db: 3 };

    /// The bytes that `docs/FORMAT.md` describes: whoever changes them makes a
    /// new format.
    #[test]
    fn keys_are_as_documented() {
        let hash = 0xabcd_0000_0000_0000;
        assert_eq!(head_key(SPACE, hash, b"k1"), b"\x02\x01\x02\x00\x03\xab\xcd\x00\x00\x02k1");
        let first = SpaceId::first_of(0);
        assert_eq!(head_key(first, 0, b""), b"\x00\x00\x00\x00\x00\x00\x00\x00");
        let longest = vec![b'x'; NAME_BYTES_MAX];
        assert_eq!(head_key(first, 0, &longest)[5..8], [0, 0x80, 0]);
        let too_long = head_key(first, 0, &[&longest[..], b"x"].concat());
        assert_eq!((too_long.len(), too_long[5]), (38, 1));
        for key in [&b""[..], b"k", &longest] {
            let name = head_key(SPACE, hash, key);
            assert_eq!(split_name(&name[7..]), Ok((Name::Plain(key), &b""[..])));
            assert_eq!(element_at(&name), None);
            let of_element = [&name[..], b"\0\0e"].concat();
            assert_eq!(element_at(&of_element), Some(name.len()));
        }
        assert_eq!(split_name(&too_long[5..]), Ok((Name::Digest, &b""[..])));
        assert_eq!(space_of(&head_key(SPACE, hash, b"k1")), Some(SPACE));
        assert_eq!((space_of(DIRECTORY), element_at(DIRECTORY)), (None, None));
    }

    #[test]
    fn values_are_as_documented() {
        let revision = Revision(300);
        let string = |key: &[u8], deadline, string: &[u8]| {
            let mut out = Vec::new();
            put_string(&mut out, key, revision, deadline, string);
            out
        };
        let text = string(b"k", None, b"text");
        assert_eq!(text, b"\xac\x02\x00\x00text");
        let mortal = string(b"k", Some(127), b"");
        assert_eq!(mortal, b"\xac\x02\x00\x80\x01");
        let mut set = keyspace::types::Set::new(1);
        set.add(b"m", &EncodingLimits::default());
        let mut whole = Vec::new();
        let body = dump::encode_body(keyspace::ValueRef::Set(&set));
        put_whole(&mut whole, b"k", revision, None, &body);
        assert_eq!(whole, b"\xac\x02\x01\x00\x02\x01\x01m");
        let mut gone = Vec::new();
        put_gone(&mut gone, Revision(1));
        assert_eq!(gone, b"\x01\x02");
        assert_eq!(age(&text), Ok((Revision(300), false)));
        assert_eq!(age(&gone), Ok((Revision(1), true)));

        let found = head(&mortal, false).expect("whole").expect("it exists");
        assert_eq!((found.deadline, found.revision), (Some(127), revision));
        assert!(head(&gone, false).expect("whole").is_none());
        // The key of a digest stands in the value.
        let long = vec![b'x'; NAME_BYTES_MAX + 1];
        let bytes = string(&long, None, b"v");
        let found = head(&bytes, true).expect("whole").expect("it exists");
        assert_eq!(found.key, Some(&long[..]));
    }

    #[test]
    fn damaged_values_are_refused() {
        let limits = EncodingLimits::default();
        let large_of_nothing = b"\x01\x04\x00\x04\x01\x00";
        for bytes in [
            &b""[..],
            b"\xac",
            b"\xac\x02",
            b"\xac\x02\x07\x00",
            b"\x01\x01\x00\x02",
            large_of_nothing,
        ] {
            let value = head(bytes, false).and_then(|head| match head {
                Some(head) => head.content.value(1, &limits),
                None => Ok(None),
            });
            assert!(value.is_err(), "{bytes:?}");
        }
    }
}
