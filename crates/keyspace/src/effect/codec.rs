//! The bytes of effects, both ways.

use base::{BranchId, DbIndex, Revision, SpaceId, leb128};
use thiserror::Error;

use super::{Cause, Effect};
use crate::past_rules::Keep;
use crate::shard::SHARDS;

/// Bytes that are no effects. From a log whose checksum holds this means a
/// newer format or a defect; from elsewhere it means damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("effect at byte {offset} is malformed: {what}")]
pub struct EffectError {
    /// Where in the transaction's bytes.
    pub offset: usize,
    /// What is wrong there.
    pub what: &'static str,
}

mod tag {
    pub const DATABASE: u8 = 1;
    pub const KEY: u8 = 2;
    pub const DELETE: u8 = 3;
    pub const STR_SET: u8 = 4;
    pub const STR_SET_DEADLINE: u8 = 5;
    pub const STR_WRITE: u8 = 6;
    pub const STR_ADD: u8 = 7;
    pub const PUT: u8 = 8;
    pub const PUT_DEADLINE: u8 = 9;
    pub const DEADLINE: u8 = 10;
    pub const PERSIST: u8 = 11;
    pub const RENAME: u8 = 12;
    pub const KEY_NEW: u8 = 13;
    pub const KEY_OLD: u8 = 14;
    pub const EMPTIED: u8 = 15;
    pub const HASH_SET: u8 = 16;
    pub const HASH_DELETE: u8 = 17;
    pub const HASH_ADD: u8 = 18;
    pub const RENAME_TO_FREE: u8 = 20;
    pub const RENAME_OVER: u8 = 21;
    pub const LIST_PUSH_FRONT: u8 = 24;
    pub const LIST_PUSH_BACK: u8 = 25;
    pub const LIST_POP_FRONT: u8 = 26;
    pub const LIST_POP_BACK: u8 = 27;
    pub const LIST_SET: u8 = 28;
    pub const LIST_INSERT: u8 = 29;
    pub const LIST_REMOVE: u8 = 30;
    pub const SET_ADD: u8 = 32;
    pub const SET_REMOVE: u8 = 33;
    pub const ZSET_SET: u8 = 40;
    pub const ZSET_REMOVE: u8 = 41;
    pub const FLUSH: u8 = 64;
    pub const SWAP: u8 = 65;
    pub const ORIGIN: u8 = 66;
    pub const BRANCH: u8 = 96;
    pub const FORK: u8 = 97;
    pub const BRANCH_GONE: u8 = 98;
    pub const TAG: u8 = 99;
    pub const TAG_GONE: u8 = 100;
    pub const KEEP_RULE: u8 = 80;
    pub const KEEP_RULE_GONE: u8 = 81;
    pub const PURGE: u8 = 82;
    pub const PURGE_PREFIX: u8 = 83;
    pub const ERASE: u8 = 84;
    pub const ERASED: u8 = 85;
    pub const UNDOABLE: u8 = 86;
    pub const UNDONE: u8 = 87;
    pub const LEAVES: u8 = 88;
    pub const RETURN: u8 = 89;
    pub const MERGED: u8 = 101;
    pub const MERGE_OPEN: u8 = 102;
    pub const MERGE_GONE: u8 = 103;
    pub const MERGE_SETTLED: u8 = 104;
}

impl Effect<'_> {
    /// Appends the effect's bytes.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        // What nearly every record consists of stands where it is asked for.
        match *self {
            Effect::Key { key, existed } => put_tagged(out, key_tag(existed), key),
            Effect::StrSet { value, deadline: None } => put_tagged(out, tag::STR_SET, value),
            Effect::Origin { command, user, address } => put_origin(out, command, user, address),
            _ => self.encode_any(out),
        }
    }

    #[inline(never)]
    fn encode_any(&self, out: &mut Vec<u8>) {
        match *self {
            Effect::Database(db) => {
                out.push(tag::DATABASE);
                leb128::put(out, u64::from(db));
            }
            Effect::Key { key, existed } => put_tagged(out, key_tag(existed), key),
            Effect::Delete(cause) => {
                out.push(tag::DELETE);
                out.push(cause as u8);
            }
            Effect::Emptied => out.push(tag::EMPTIED),
            Effect::StrSet { value, deadline } => {
                out.push(if deadline.is_some() { tag::STR_SET_DEADLINE } else { tag::STR_SET });
                put_bytes(out, value);
                deadline.into_iter().for_each(|at| leb128::put(out, at));
            }
            Effect::StrWrite { offset, bytes } => {
                out.push(tag::STR_WRITE);
                leb128::put(out, offset);
                put_bytes(out, bytes);
            }
            Effect::StrAdd { delta } => {
                out.push(tag::STR_ADD);
                leb128::put(out, leb128::zigzag(delta));
            }
            Effect::Put { body, deadline } => {
                out.push(if deadline.is_some() { tag::PUT_DEADLINE } else { tag::PUT });
                put_bytes(out, body);
                deadline.into_iter().for_each(|at| leb128::put(out, at));
            }
            Effect::Deadline(Some(at)) => {
                out.push(tag::DEADLINE);
                leb128::put(out, at);
            }
            Effect::Deadline(None) => out.push(tag::PERSIST),
            Effect::Rename { db, key, replaces } => {
                out.push(match replaces {
                    None => tag::RENAME,
                    Some(false) => tag::RENAME_TO_FREE,
                    Some(true) => tag::RENAME_OVER,
                });
                leb128::put(out, u64::from(db));
                put_bytes(out, key);
            }
            Effect::HashSet { field, value } => {
                out.push(tag::HASH_SET);
                put_bytes(out, field);
                put_bytes(out, value);
            }
            Effect::HashDelete { field } => put_tagged(out, tag::HASH_DELETE, field),
            Effect::HashAdd { field, delta } => {
                put_tagged(out, tag::HASH_ADD, field);
                leb128::put(out, leb128::zigzag(delta));
            }
            Effect::ListPushFront { value } => put_tagged(out, tag::LIST_PUSH_FRONT, value),
            Effect::ListPushBack { value } => put_tagged(out, tag::LIST_PUSH_BACK, value),
            Effect::ListPopFront { count } => {
                out.push(tag::LIST_POP_FRONT);
                leb128::put(out, count);
            }
            Effect::ListPopBack { count } => {
                out.push(tag::LIST_POP_BACK);
                leb128::put(out, count);
            }
            Effect::ListSet { index, value } => {
                out.push(tag::LIST_SET);
                leb128::put(out, index);
                put_bytes(out, value);
            }
            Effect::ListInsert { index, value } => {
                out.push(tag::LIST_INSERT);
                leb128::put(out, index);
                put_bytes(out, value);
            }
            Effect::ListRemove { index } => {
                out.push(tag::LIST_REMOVE);
                leb128::put(out, index);
            }
            Effect::SetAdd { member } => put_tagged(out, tag::SET_ADD, member),
            Effect::SetRemove { member } => put_tagged(out, tag::SET_REMOVE, member),
            Effect::ZsetSet { member, score } => {
                put_tagged(out, tag::ZSET_SET, member);
                out.extend_from_slice(&score.to_bits().to_le_bytes());
            }
            Effect::ZsetRemove { member } => put_tagged(out, tag::ZSET_REMOVE, member),
            Effect::Flush { db } => {
                out.push(tag::FLUSH);
                leb128::put(out, u64::from(db));
            }
            Effect::Swap { a, b } => {
                out.push(tag::SWAP);
                leb128::put(out, u64::from(a));
                leb128::put(out, u64::from(b));
            }
            Effect::Origin { command, user, address } => put_origin(out, command, user, address),
            Effect::Branch { row } => put_tagged(out, tag::BRANCH, row),
            Effect::Fork { row, state } => {
                put_tagged(out, tag::FORK, row);
                leb128::put(out, state.map_or(0, |state| state.0 + 1));
            }
            Effect::BranchGone { branch } => {
                out.push(tag::BRANCH_GONE);
                leb128::put(out, u64::from(branch.0));
            }
            Effect::Tag { name, branch, revision, time_ms } => {
                put_tagged(out, tag::TAG, name);
                for number in [u64::from(branch.0), revision.0, time_ms] {
                    leb128::put(out, number);
                }
            }
            Effect::TagGone { name } => put_tagged(out, tag::TAG_GONE, name),
            Effect::KeepRule { glob, keep, oldest } => {
                put_tagged(out, tag::KEEP_RULE, glob);
                keep.encode(out);
                leb128::put(out, oldest.0);
            }
            Effect::KeepRuleGone { glob } => put_tagged(out, tag::KEEP_RULE_GONE, glob),
            Effect::Purge { db, key, is_prefix, oldest } => {
                out.push(if is_prefix { tag::PURGE_PREFIX } else { tag::PURGE });
                leb128::put(out, u64::from(db));
                put_bytes(out, key);
                leb128::put(out, oldest.0);
            }
            Effect::Erase => out.push(tag::ERASE),
            Effect::Erased => out.push(tag::ERASED),
            Effect::Undoable { keys, bytes, until_ms } => {
                out.push(tag::UNDOABLE);
                [keys, bytes, until_ms].into_iter().for_each(|number| leb128::put(out, number));
            }
            Effect::Undone { revision } => {
                out.push(tag::UNDONE);
                leb128::put(out, revision.0);
            }
            Effect::Leaves { space, keys } => {
                out.push(tag::LEAVES);
                put_space(out, space);
                out.extend_from_slice(keys);
            }
            Effect::Return { db, space, keys } => {
                out.push(tag::RETURN);
                leb128::put(out, u64::from(db));
                put_space(out, space);
                out.extend_from_slice(keys);
            }
            Effect::Merged { row } => put_tagged(out, tag::MERGED, row),
            Effect::MergeOpen { row } => put_tagged(out, tag::MERGE_OPEN, row),
            Effect::MergeSettled { row } => put_tagged(out, tag::MERGE_SETTLED, row),
            Effect::MergeGone { id } => {
                out.push(tag::MERGE_GONE);
                leb128::put(out, id);
            }
        }
    }
}

/// Reads the effects of a transaction in order.
///
/// ```
/// use keyspace::effect::{Effect, Effects};
/// let mut bytes = Vec::new();
/// let key = Effect::Key { key: b"k", existed: Some(false) };
/// key.encode(&mut bytes);
/// Effect::SetAdd { member: b"m" }.encode(&mut bytes);
/// let effects: Result<Vec<_>, _> = Effects::new(&bytes).collect();
/// assert_eq!(effects?, [key, Effect::SetAdd { member: b"m" }]);
/// # Ok::<(), keyspace::effect::EffectError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Effects<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Effects<'a> {
    /// The effects in `bytes`, which need not be trusted.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Effects<'a> {
        Effects { bytes, offset: 0 }
    }

    /// Goes past an origin that comes next, unless it has a word of 128 bytes or
    /// more: who only wants to know what changes need not read who did it.
    #[inline]
    pub fn skip_origin(&mut self) {
        let Some((&tag::ORIGIN, mut rest)) = self.bytes[self.offset..].split_first() else {
            return;
        };
        for _ in 0..3 {
            let Some((&len @ ..0x80, behind)) = rest.split_first() else { return };
            let Some(behind) = behind.get(usize::from(len)..) else { return };
            rest = behind;
        }
        self.offset = self.bytes.len() - rest.len();
    }

    /// Where the next one begins.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    fn decode(&mut self) -> Result<Effect<'a>, &'static str> {
        Ok(match self.byte()? {
            tag::DATABASE => Effect::Database(self.db()?),
            tag::KEY => Effect::Key { key: self.slice()?, existed: None },
            tag::KEY_NEW => Effect::Key { key: self.slice()?, existed: Some(false) },
            tag::KEY_OLD => Effect::Key { key: self.slice()?, existed: Some(true) },
            tag::DELETE => Effect::Delete(match self.byte()? {
                0 => Cause::Client,
                1 => Cause::Expired,
                2 => Cause::Evicted,
                _ => return Err("unknown cause of a delete"),
            }),
            tag::EMPTIED => Effect::Emptied,
            tag::STR_SET => Effect::StrSet { value: self.slice()?, deadline: None },
            tag::STR_SET_DEADLINE => {
                Effect::StrSet { value: self.slice()?, deadline: Some(self.number()?) }
            }
            tag::STR_WRITE => Effect::StrWrite { offset: self.number()?, bytes: self.slice()? },
            tag::STR_ADD => Effect::StrAdd { delta: leb128::unzigzag(self.number()?) },
            tag::PUT => Effect::Put { body: self.slice()?, deadline: None },
            tag::PUT_DEADLINE => {
                Effect::Put { body: self.slice()?, deadline: Some(self.number()?) }
            }
            tag::DEADLINE => Effect::Deadline(Some(self.number()?)),
            tag::PERSIST => Effect::Deadline(None),
            tag::RENAME => self.rename(None)?,
            tag::RENAME_TO_FREE => self.rename(Some(false))?,
            tag::RENAME_OVER => self.rename(Some(true))?,
            tag::HASH_SET => Effect::HashSet { field: self.slice()?, value: self.slice()? },
            tag::HASH_DELETE => Effect::HashDelete { field: self.slice()? },
            tag::HASH_ADD => {
                Effect::HashAdd { field: self.slice()?, delta: leb128::unzigzag(self.number()?) }
            }
            tag::LIST_PUSH_FRONT => Effect::ListPushFront { value: self.slice()? },
            tag::LIST_PUSH_BACK => Effect::ListPushBack { value: self.slice()? },
            tag::LIST_POP_FRONT => Effect::ListPopFront { count: self.number()? },
            tag::LIST_POP_BACK => Effect::ListPopBack { count: self.number()? },
            tag::LIST_SET => Effect::ListSet { index: self.number()?, value: self.slice()? },
            tag::LIST_INSERT => Effect::ListInsert { index: self.number()?, value: self.slice()? },
            tag::LIST_REMOVE => Effect::ListRemove { index: self.number()? },
            tag::SET_ADD => Effect::SetAdd { member: self.slice()? },
            tag::SET_REMOVE => Effect::SetRemove { member: self.slice()? },
            tag::ZSET_SET => {
                let member = self.slice()?;
                let bits: [u8; 8] = self.take(8)?.try_into().expect("eight bytes taken");
                let score = f64::from_bits(u64::from_le_bytes(bits));
                if score.is_nan() {
                    return Err("a score is not a number");
                }
                Effect::ZsetSet { member, score }
            }
            tag::ZSET_REMOVE => Effect::ZsetRemove { member: self.slice()? },
            tag::FLUSH => Effect::Flush { db: self.db()? },
            tag::SWAP => Effect::Swap { a: self.db()?, b: self.db()? },
            tag::ORIGIN => Effect::Origin {
                command: self.slice()?,
                user: self.slice()?,
                address: self.slice()?,
            },
            tag::BRANCH => Effect::Branch { row: self.slice()? },
            tag::FORK => Effect::Fork {
                row: self.slice()?,
                state: self.number()?.checked_sub(1).map(Revision),
            },
            tag::BRANCH_GONE => Effect::BranchGone { branch: self.branch()? },
            tag::TAG => Effect::Tag {
                name: self.slice()?,
                branch: self.branch()?,
                revision: Revision(self.number()?),
                time_ms: self.number()?,
            },
            tag::TAG_GONE => Effect::TagGone { name: self.slice()? },
            tag::KEEP_RULE => Effect::KeepRule {
                glob: self.slice()?,
                keep: self.keep()?,
                oldest: Revision(self.number()?),
            },
            tag::KEEP_RULE_GONE => Effect::KeepRuleGone { glob: self.slice()? },
            tag::PURGE => self.purge(false)?,
            tag::PURGE_PREFIX => self.purge(true)?,
            tag::ERASE => Effect::Erase,
            tag::ERASED => Effect::Erased,
            tag::UNDOABLE => Effect::Undoable {
                keys: self.number()?,
                bytes: self.number()?,
                until_ms: self.number()?,
            },
            tag::UNDONE => Effect::Undone { revision: Revision(self.number()?) },
            tag::LEAVES => Effect::Leaves { space: self.space()?, keys: self.counts()? },
            tag::RETURN => {
                Effect::Return { db: self.db()?, space: self.space()?, keys: self.counts()? }
            }
            tag::MERGED => Effect::Merged { row: self.slice()? },
            tag::MERGE_OPEN => Effect::MergeOpen { row: self.slice()? },
            tag::MERGE_SETTLED => Effect::MergeSettled { row: self.slice()? },
            tag::MERGE_GONE => Effect::MergeGone { id: self.number()? },
            _ => return Err("unknown tag; a newer version of Alcid may know it"),
        })
    }

    fn rename(&mut self, replaces: Option<bool>) -> Result<Effect<'a>, &'static str> {
        Ok(Effect::Rename { db: self.db()?, key: self.slice()?, replaces })
    }

    fn branch(&mut self) -> Result<BranchId, &'static str> {
        let number = u32::try_from(self.number()?);
        number.map(BranchId).map_err(|_| "a branch's number is too great")
    }

    fn purge(&mut self, is_prefix: bool) -> Result<Effect<'a>, &'static str> {
        let (db, key) = (self.db()?, self.slice()?);
        Ok(Effect::Purge { db, key, is_prefix, oldest: Revision(self.number()?) })
    }

    fn keep(&mut self) -> Result<Keep, &'static str> {
        let mut rest = &self.bytes[self.offset..];
        let keep = Keep::decode(&mut rest)?;
        self.offset = self.bytes.len() - rest.len();
        Ok(keep)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let rest = &self.bytes[self.offset..];
        let taken = rest.get(..len).ok_or("it ends early")?;
        self.offset += len;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let mut rest = &self.bytes[self.offset..];
        let number = leb128::take(&mut rest)?;
        self.offset = self.bytes.len() - rest.len();
        Ok(number)
    }

    #[inline]
    fn slice(&mut self) -> Result<&'a [u8], &'static str> {
        let len = self.number()?;
        self.take(usize::try_from(len).map_err(|_| "it ends early")?)
    }

    fn space(&mut self) -> Result<SpaceId, &'static str> {
        Ok(SpaceId { born: Revision(self.number()?), db: self.db()? })
    }

    fn counts(&mut self) -> Result<&'a [u8], &'static str> {
        let begin = self.offset;
        for _ in 0..SHARDS {
            self.number()?;
        }
        Ok(&self.bytes[begin..self.offset])
    }

    fn db(&mut self) -> Result<DbIndex, &'static str> {
        DbIndex::try_from(self.number()?).map_err(|_| "a database number exceeds 65535")
    }
}

impl<'a> Iterator for Effects<'a> {
    type Item = Result<Effect<'a>, EffectError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.bytes.len() {
            return None;
        }
        let offset = self.offset;
        Some(self.decode().map_err(|what| {
            // Nothing after a malformed effect can be trusted.
            self.offset = self.bytes.len();
            EffectError { offset, what }
        }))
    }
}

fn put_origin(out: &mut Vec<u8>, command: &[u8], user: &[u8], address: &[u8]) {
    put_tagged(out, tag::ORIGIN, command);
    put_bytes(out, user);
    put_bytes(out, address);
}

fn key_tag(existed: Option<bool>) -> u8 {
    match existed {
        None => tag::KEY,
        Some(false) => tag::KEY_NEW,
        Some(true) => tag::KEY_OLD,
    }
}

#[inline(never)]
fn put_tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if bytes.len() < 0x80 {
        // The tag and a short length go in one step.
        out.reserve(2 + bytes.len());
        out.extend_from_slice(&[tag, bytes.len() as u8]);
        out.extend_from_slice(bytes);
    } else {
        out.push(tag);
        put_bytes(out, bytes);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    leb128::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_space(out: &mut Vec<u8>, space: SpaceId) {
    leb128::put(out, space.born.0);
    leb128::put(out, u64::from(space.db));
}

/// Appends how many keys each shard has.
pub fn put_counts(out: &mut Vec<u8>, keys: &[u64; SHARDS]) {
    keys.iter().for_each(|&count| leb128::put(out, count));
}

/// Reads [`put_counts`].
///
/// # Errors
/// When these bytes are something else.
pub fn take_counts(mut bytes: &[u8]) -> Result<[u64; SHARDS], &'static str> {
    let mut keys = [0; SHARDS];
    for count in &mut keys {
        *count = leb128::take(&mut bytes)?;
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Effect<'static>> {
        vec![
            Effect::Database(3),
            Effect::Key { key: b"old", existed: None },
            Effect::Key { key: b"key", existed: Some(false) },
            Effect::Key { key: b"", existed: Some(true) },
            Effect::Delete(Cause::Expired),
            Effect::Emptied,
            Effect::StrSet { value: b"v", deadline: None },
            Effect::StrSet { value: b"", deadline: Some(u64::MAX) },
            Effect::StrWrite { offset: 300, bytes: b"x" },
            Effect::StrAdd { delta: i64::MIN },
            Effect::Put { body: b"\x00\x01a", deadline: Some(1) },
            Effect::Deadline(Some(1_700_000_000_000)),
            Effect::Deadline(None),
            Effect::Rename { db: 65535, key: b"to", replaces: None },
            Effect::Rename { db: 0, key: b"to", replaces: Some(false) },
            Effect::Rename { db: 128, key: b"", replaces: Some(true) },
            Effect::HashSet { field: b"f", value: b"v" },
            Effect::HashDelete { field: b"f" },
            Effect::HashAdd { field: b"f", delta: -1 },
            Effect::ListPushFront { value: b"a" },
            Effect::ListPushBack { value: b"b" },
            Effect::ListPopFront { count: 1 },
            Effect::ListPopBack { count: 128 },
            Effect::ListSet { index: 4, value: b"c" },
            Effect::ListInsert { index: 5, value: b"d" },
            Effect::ListRemove { index: 6 },
            Effect::SetAdd { member: b"m" },
            Effect::SetRemove { member: b"m" },
            Effect::ZsetSet { member: b"m", score: -0.5 },
            Effect::ZsetRemove { member: b"m" },
            Effect::Flush { db: 0 },
            Effect::Swap { a: 0, b: 15 },
            Effect::Origin { command: b"set", user: b"default", address: b"127.0.0.1:6379" },
            Effect::KeepRule { glob: b"a*", keep: Keep::Age(1 << 40), oldest: Revision(300) },
            Effect::KeepRule { glob: b"b*", keep: Keep::Versions(10), oldest: Revision(300) },
            Effect::KeepRule { glob: b"", keep: Keep::Forever, oldest: Revision(300) },
            Effect::KeepRule { glob: b"c*", keep: Keep::Nothing, oldest: Revision(300) },
            Effect::KeepRuleGone { glob: b"a*" },
            Effect::Purge { db: 3, key: b"k", is_prefix: false, oldest: Revision(300) },
            Effect::Purge { db: 0, key: b"", is_prefix: true, oldest: Revision(0) },
            Effect::Erase,
            Effect::Erased,
            Effect::Undoable { keys: 5, bytes: 1 << 33, until_ms: 1_700_000_000_000 },
            Effect::Undone { revision: Revision(300) },
            Effect::Leaves { space: SpaceId { born: Revision(300), db: 3 }, keys: &[7; SHARDS] },
            Effect::Return {
                db: 128,
                space: SpaceId { born: Revision(0), db: 0 },
                keys: &[1; SHARDS],
            },
            Effect::Merged { row: b"m" },
            Effect::MergeOpen { row: b"" },
            Effect::MergeSettled { row: b"" },
            Effect::MergeGone { id: u64::MAX },
        ]
    }

    #[test]
    fn every_effect_survives_the_round_trip() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|effect| effect.encode(&mut bytes));
        let decoded: Vec<_> = Effects::new(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(decoded, samples());
    }

    #[test]
    fn an_origin_is_skipped_where_its_words_are_short() {
        let key = Effect::Key { key: b"k", existed: None };
        for (len, is_skipped) in [(0, true), (1, true), (127, true), (128, false), (300, false)] {
            let word = vec![b'x'; len];
            let origin = Effect::Origin { command: b"set", user: &word, address: b"" };
            let mut bytes = Vec::new();
            [origin, key].iter().for_each(|effect| effect.encode(&mut bytes));
            let mut effects = Effects::new(&bytes);
            effects.skip_origin();
            let expected = if is_skipped { vec![key] } else { vec![origin, key] };
            assert_eq!(effects.collect::<Result<Vec<_>, _>>(), Ok(expected), "{len}");
            for end in 0..bytes.len() - 3 {
                let mut effects = Effects::new(&bytes[..end]);
                effects.skip_origin();
                assert_eq!(effects.offset(), 0, "{len}: it is not whole at {end}");
            }
        }
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        let mut effects = Effects::new(&bytes);
        effects.skip_origin();
        assert_eq!(effects.next(), Some(Ok(key)));
    }

    #[test]
    fn hostile_bytes_are_refused_with_their_place() {
        for (bytes, offset, what) in [
            (&[0u8][..], 0, "unknown tag"),
            (&[tag::KEY, 5, b'a'], 0, "ends early"),
            (&[tag::PERSIST, tag::DELETE, 9], 1, "unknown cause"),
            (&[tag::ORIGIN, 1, b'a', 0], 0, "ends early"),
            (&[tag::KEEP_RULE, 0, 4], 0, "unknown way"),
            (&[tag::PURGE, 0, 1, b'k'], 0, "early"),
            (
                &[tag::STR_ADD, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2],
                0,
                "64 bits",
            ),
            (&[tag::FLUSH, 0x80, 0x80, 4], 0, "database number"),
            (&[&[tag::RETURN, 0, 0, 0][..], &[1; SHARDS - 1]].concat(), 0, "early"),
        ] {
            let error = Effects::new(bytes).find_map(Result::err).expect("malformed");
            assert_eq!(error.offset, offset);
            assert!(error.what.contains(what), "{error}");
        }
    }

    #[test]
    fn truncation_anywhere_is_an_error_or_a_prefix() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|effect| effect.encode(&mut bytes));
        for end in 0..bytes.len() {
            let mut expected = samples().into_iter();
            for effect in Effects::new(&bytes[..end]).flatten() {
                assert_eq!(Some(effect), expected.next());
            }
        }
    }
}
