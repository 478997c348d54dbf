//! Values as Redis serialises them: `DUMP`'s payload, and the same without its
//! trailer for the log.
//!
//! ```text
//! type    one byte
//! body    by type
//! version u16, little-endian      } the trailer,
//! crc64   of all before it, same  } not in the log
//! ```
//!
//! Written is the plain form of each type (a count, then the elements), which
//! every Redis since 4.0 reads and turns into the encoding its own settings
//! ask for. Read are the forms of every Redis up to 7.2, whose payloads have
//! version 11. A Redis refuses payloads of a version above its own, whatever is
//! in them: 7.0 reads up to 10.
//!
//! Bytes to read are hostile. No length is believed before the bytes for it
//! are there, and what Redis calls a bad format is refused: an empty
//! collection, an element twice, a score that is no number. So is anything
//! after the value, which Redis ignores.

mod crc64;
mod intset;
mod listpack;
mod lzf;
mod reader;
mod writer;
mod ziplist;
mod zipmap;

use thiserror::Error;

use self::crc64::crc64;
use self::reader::{Bad, Reader};
use self::writer::Writer;
use crate::limits::EncodingLimits;
use crate::types::{Hash, List, Set, Zset};
use crate::value::{Value, ValueRef};

/// Version of the payloads written, and the newest that is read: Redis 7.2's.
pub const VERSION: u16 = 11;

/// Bytes of version and checksum.
const TRAILER: usize = 10;

/// Type bytes, by Redis's names.
mod kind {
    pub(super) const STRING: u8 = 0;
    pub(super) const LIST: u8 = 1;
    pub(super) const SET: u8 = 2;
    pub(super) const ZSET: u8 = 3;
    pub(super) const HASH: u8 = 4;
    pub(super) const ZSET_2: u8 = 5;
    pub(super) const HASH_ZIPMAP: u8 = 9;
    pub(super) const LIST_ZIPLIST: u8 = 10;
    pub(super) const SET_INTSET: u8 = 11;
    pub(super) const ZSET_ZIPLIST: u8 = 12;
    pub(super) const HASH_ZIPLIST: u8 = 13;
    pub(super) const LIST_QUICKLIST: u8 = 14;
    pub(super) const HASH_LISTPACK: u8 = 16;
    pub(super) const ZSET_LISTPACK: u8 = 17;
    pub(super) const LIST_QUICKLIST_2: u8 = 18;
    pub(super) const SET_LISTPACK: u8 = 20;
}

/// Why bytes are no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DumpError {
    /// Too short for a trailer.
    #[error("the payload has {len} bytes; its version and checksum alone take {TRAILER}")]
    Short {
        /// Bytes there are.
        len: usize,
    },
    /// Written by something newer.
    #[error(
        "the payload has version {version}, {VERSION} is the newest known; dump it from Redis 7.2 or older"
    )]
    Version {
        /// Version found.
        version: u16,
    },
    /// Changed on its way.
    #[error(
        "the payload says checksum {said:016x} but has {computed:016x}; send it as it was dumped"
    )]
    Checksum {
        /// Checksum found.
        said: u64,
        /// Checksum of the bytes.
        computed: u64,
    },
    /// No value of a known type.
    #[error("the value is malformed, noticed at byte {offset}: {what}")]
    Malformed {
        /// How far reading had come.
        offset: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl DumpError {
    /// What Redis's `RESTORE` answers, without the leading `ERR`.
    #[must_use]
    pub fn redis_message(&self) -> &'static str {
        match self {
            DumpError::Malformed { .. } => "Bad data format",
            _ => "DUMP payload version or checksum are wrong",
        }
    }
}

/// The payload `DUMP` answers.
///
/// ```
/// use keyspace::{EncodingLimits, Value, ValueRef, dump};
/// let payload = dump::encode(ValueRef::Str(b"hello"));
/// let value = dump::decode(&payload, 0, &EncodingLimits::default())?;
/// assert!(matches!(value, Value::Str(text) if text == b"hello"));
/// # Ok::<(), dump::DumpError>(())
/// ```
#[must_use]
pub fn encode(value: ValueRef<'_>) -> Vec<u8> {
    let mut payload = body(value, true);
    payload.extend_from_slice(&VERSION.to_le_bytes());
    payload.extend_from_slice(&crc64(&payload).to_le_bytes());
    payload
}

/// Type byte and body, for the log: strings stay uncompressed, as time is
/// dearer there than room.
#[must_use]
pub fn encode_body(value: ValueRef<'_>) -> Vec<u8> {
    body(value, false)
}

fn body(value: ValueRef<'_>, compresses: bool) -> Vec<u8> {
    let mut out = Writer::new(compresses);
    match value {
        ValueRef::Str(bytes) => {
            out.byte(kind::STRING);
            out.string(bytes);
        }
        ValueRef::List(list) => {
            out.byte(kind::LIST);
            out.length(list.len());
            list.iter().for_each(|element| out.string(element));
        }
        ValueRef::Set(set) => {
            out.byte(kind::SET);
            out.length(set.len());
            set.iter().for_each(|member| out.string(&member));
        }
        ValueRef::Hash(hash) => {
            out.byte(kind::HASH);
            out.length(hash.len());
            for (field, value) in hash.iter() {
                out.string(field);
                out.string(value);
            }
        }
        ValueRef::Zset(zset) => {
            out.byte(kind::ZSET_2);
            out.length(zset.len());
            // Highest first, as Redis does: it inserts at a skip list's head.
            for (member, score) in zset.iter_rev() {
                out.string(member);
                out.bytes(&score.to_le_bytes());
            }
        }
    }
    out.finish()
}

/// Reads a payload of `DUMP`, of Alcid or of any Redis up to 7.2. Tables of
/// the value hash with `seed`.
///
/// # Errors
/// When the payload is damaged, newer, or holds no value of a known type.
pub fn decode(payload: &[u8], seed: u64, limits: &EncodingLimits) -> Result<Value, DumpError> {
    let short = DumpError::Short { len: payload.len() };
    let Some((signed, said)) = payload.split_last_chunk::<8>() else { return Err(short) };
    let Some((body, version)) = signed.split_last_chunk::<2>() else { return Err(short) };
    let version = u16::from_le_bytes(*version);
    if version > VERSION {
        return Err(DumpError::Version { version });
    }
    let (said, computed) = (u64::from_le_bytes(*said), crc64(signed));
    if said != computed {
        return Err(DumpError::Checksum { said, computed });
    }
    decode_body(body, seed, limits)
}

/// Reads what [`encode_body`] wrote.
///
/// # Errors
/// [`DumpError::Malformed`] when the bytes are no value of a known type.
pub fn decode_body(body: &[u8], seed: u64, limits: &EncodingLimits) -> Result<Value, DumpError> {
    let mut reader = Reader::new(body);
    let value = value(&mut reader, seed, limits).and_then(|value| match reader.left() {
        0 => Ok(value),
        _ => Err("the value ends before the bytes do"),
    });
    value.map_err(|what| DumpError::Malformed { offset: body.len() - reader.left(), what })
}

fn value(reader: &mut Reader<'_>, seed: u64, limits: &EncodingLimits) -> Result<Value, Bad> {
    let mut new = Builder { seed, limits };
    match reader.byte()? {
        kind::STRING => Ok(Value::Str(reader.string()?.into_owned())),
        kind::LIST => new.list(|list| {
            for _ in 0..reader.count(1)? {
                list.push_back(&reader.string()?, limits);
            }
            Ok(())
        }),
        kind::LIST_ZIPLIST => {
            let blob = reader.string()?;
            new.list(|list| ziplist::for_each(&blob, push_to(list, limits)))
        }
        kind::LIST_QUICKLIST => new.list(|list| {
            for _ in 0..reader.count(1)? {
                ziplist::for_each(&reader.string()?, push_to(list, limits))?;
            }
            Ok(())
        }),
        kind::LIST_QUICKLIST_2 => new.list(|list| {
            for _ in 0..reader.count(2)? {
                match reader.number()? {
                    1 => match reader.string()? {
                        element if element.is_empty() => return Err("a list node is empty"),
                        element => list.push_back(&element, limits),
                    },
                    2 => listpack::for_each(&reader.string()?, push_to(list, limits))?,
                    _ => return Err("a list node has an unknown form"),
                }
            }
            Ok(())
        }),
        kind::SET => new.set(|add| {
            for _ in 0..reader.count(1)? {
                add(&reader.string()?)?;
            }
            Ok(())
        }),
        kind::SET_INTSET => {
            let blob = reader.string()?;
            new.set(|add| intset::for_each(&blob, add))
        }
        kind::SET_LISTPACK => {
            let blob = reader.string()?;
            new.set(|add| listpack::for_each(&blob, add))
        }
        kind::HASH => new.hash(|add| {
            for _ in 0..reader.count(2)? {
                let field = reader.string()?;
                add(&field, &reader.string()?)?;
            }
            Ok(())
        }),
        kind::HASH_ZIPMAP => {
            let blob = reader.string()?;
            new.hash(|add| zipmap::for_each(&blob, add))
        }
        kind::HASH_ZIPLIST => {
            let blob = reader.string()?;
            new.hash(|add| in_pairs(add, |each| ziplist::for_each(&blob, each)))
        }
        kind::HASH_LISTPACK => {
            let blob = reader.string()?;
            new.hash(|add| in_pairs(add, |each| listpack::for_each(&blob, each)))
        }
        kind::ZSET => new.zset(|add| {
            for _ in 0..reader.count(2)? {
                let member = reader.string()?;
                add(&member, old_score(reader)?)?;
            }
            Ok(())
        }),
        kind::ZSET_2 => new.zset(|add| {
            for _ in 0..reader.count(1 + 8)? {
                let member = reader.string()?;
                add(&member, f64::from_le_bytes(reader.array()?))?;
            }
            Ok(())
        }),
        kind::ZSET_ZIPLIST => {
            let blob = reader.string()?;
            new.zset(|add| in_pairs(with_score(add), |each| ziplist::for_each(&blob, each)))
        }
        kind::ZSET_LISTPACK => {
            let blob = reader.string()?;
            new.zset(|add| in_pairs(with_score(add), |each| listpack::for_each(&blob, each)))
        }
        _ => Err("the type is unknown; strings, lists, sets, hashes and sorted sets are known"),
    }
}

/// Makes collections that are not empty and hold nothing twice.
struct Builder<'a> {
    seed: u64,
    limits: &'a EncodingLimits,
}

const EMPTY: Bad = "a collection is empty";
const TWICE: Bad = "an element is there twice";

impl Builder<'_> {
    fn list(&mut self, fill: impl FnOnce(&mut List) -> Result<(), Bad>) -> Result<Value, Bad> {
        let mut list = List::new();
        fill(&mut list)?;
        if list.is_empty() { Err(EMPTY) } else { Ok(Value::List(list)) }
    }

    fn set(
        &mut self,
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), Bad>) -> Result<(), Bad>,
    ) -> Result<Value, Bad> {
        let mut set = Set::new(self.seed);
        fill(&mut |member| if set.add(member, self.limits) { Ok(()) } else { Err(TWICE) })?;
        if set.is_empty() { Err(EMPTY) } else { Ok(Value::Set(set)) }
    }

    fn hash(
        &mut self,
        fill: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> Result<(), Bad>) -> Result<(), Bad>,
    ) -> Result<Value, Bad> {
        let mut hash = Hash::new(self.seed);
        fill(&mut |field, value| {
            if hash.set(field, value, self.limits) { Ok(()) } else { Err(TWICE) }
        })?;
        if hash.is_empty() { Err(EMPTY) } else { Ok(Value::Hash(hash)) }
    }

    fn zset(
        &mut self,
        fill: impl FnOnce(&mut dyn FnMut(&[u8], f64) -> Result<(), Bad>) -> Result<(), Bad>,
    ) -> Result<Value, Bad> {
        let mut zset = Zset::new(self.seed);
        fill(&mut |member, score| {
            if score.is_nan() {
                return Err("a score is no number");
            }
            if zset.insert(member, score, self.limits).is_none() { Ok(()) } else { Err(TWICE) }
        })?;
        if zset.is_empty() { Err(EMPTY) } else { Ok(Value::Zset(zset)) }
    }
}

fn push_to<'a>(
    list: &'a mut List,
    limits: &'a EncodingLimits,
) -> impl FnMut(&[u8]) -> Result<(), Bad> + 'a {
    |element| {
        list.push_back(element, limits);
        Ok(())
    }
}

/// Gives `add` every two elements that `source` shows.
fn in_pairs(
    mut add: impl FnMut(&[u8], &[u8]) -> Result<(), Bad>,
    source: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), Bad>) -> Result<(), Bad>,
) -> Result<(), Bad> {
    let mut first: Option<Vec<u8>> = None;
    source(&mut |element| match first.take() {
        None => {
            first = Some(element.to_vec());
            Ok(())
        }
        Some(first) => add(&first, element),
    })?;
    if first.is_some() { Err("the last element lacks its pair") } else { Ok(()) }
}

fn with_score(
    mut add: impl FnMut(&[u8], f64) -> Result<(), Bad>,
) -> impl FnMut(&[u8], &[u8]) -> Result<(), Bad> {
    move |member, score| {
        let score = base::number::parse_f64(score).ok_or("a score is no number")?;
        add(member, score)
    }
}

/// A score as Redis wrote it before 4.0: a length and decimal text, or a mark.
fn old_score(reader: &mut Reader<'_>) -> Result<f64, Bad> {
    match reader.byte()? {
        253 => Ok(f64::NAN),
        254 => Ok(f64::INFINITY),
        255 => Ok(f64::NEG_INFINITY),
        len => {
            let text = reader.bytes(usize::from(len))?;
            base::number::parse_f64(text).ok_or("a score is no number")
        }
    }
}
