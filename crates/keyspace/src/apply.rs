//! Making a recorded transaction's changes: replay, replicas, tests.

mod one_string;

use base::{DbIndex, Revision};
use thiserror::Error;

pub use self::one_string::{OneString, StringRecord};

use crate::EncodingLimits;
use crate::backing::BackingError;
use crate::dump::{self, DumpError};
use crate::edit::Editor;
use crate::effect::{Effect, EffectError, Effects};
use crate::recorder::{Buffers, Journal};
use crate::shard::Keyspace;
use crate::txn::{Scope, Txn, TxnOptions, WrongType};
use crate::types::{Hash, List, Set, Zset};

/// A record does not fit the state it is applied to, or is malformed. State
/// and log have diverged: the caller must stop.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ApplyError {
    #[error(transparent)]
    Malformed(#[from] EffectError),
    #[error("a whole value in the record is damaged: {0}")]
    Value(#[from] DumpError),
    #[error("effect {number} needs a key first")]
    NoKey { number: usize },
    #[error(
        "effect {number} is for database {db}, but server.databases is {databases}: raise it to {} at least",
        u32::from(*db) + 1
    )]
    NoDatabase { number: usize, db: DbIndex, databases: DbIndex },
    #[error("the archive cannot be read: {0}")]
    Backing(#[from] BackingError),
    #[error("effect {number} does not fit the value it finds: {what}")]
    Misfit { number: usize, what: &'static str },
}

/// Gives the revision of the record, and keeps nothing.
struct Replayed(Revision);

impl Journal for Replayed {
    fn reserve(&self) -> Revision {
        self.0
    }

    fn append(&self, _: Revision, _: u64, _: DbIndex, _: &[u8]) {}

    fn wants_effects(&self) -> bool {
        false
    }
}

impl Keyspace {
    /// Applies one recorded transaction: a pure function of state and record.
    ///
    /// # Errors
    /// When the record is malformed, and nothing is changed then; or when it
    /// does not fit. Effects before the one that does not have been applied in
    /// that case, so the keyspace must not be served.
    pub fn apply(
        &self,
        revision: Revision,
        time_ms: u64,
        db: DbIndex,
        effects: &[u8],
        limits: &EncodingLimits,
        buffers: &mut Buffers,
    ) -> Result<(), ApplyError> {
        if let Some(string) = OneString::of(effects) {
            buffers.clear();
            let hash = self.hash_of(string.key);
            return self.apply_string(&StringRecord { revision, time_ms, db, hash, string });
        }
        let journal = Replayed(revision);
        let options = TxnOptions {
            now_ms: time_ms,
            limits,
            event_classes: 0,
            always_record: false,
            // The log holds the deletes of what expired.
            expire: false,
            touch: TOUCH,
        };
        let scope = self.scope_of(db, effects)?;
        let mut txn = Txn::begin(self, &scope, &journal, buffers, options);
        let applier =
            Applier { txn: &mut txn, key: None, is_gone: false, is_left: false, db, number: 0 };
        let result = applier.run(effects);
        txn.finish();
        buffers.take_garbage();
        result
    }

    /// The shards that a record touches.
    fn scope_of(&self, db: DbIndex, effects: &[u8]) -> Result<Scope, ApplyError> {
        let databases = self.databases();
        let mut shards = smallvec::SmallVec::new();
        let mut all = false;
        let check = |number, db| {
            if db < databases {
                Ok(())
            } else {
                Err(ApplyError::NoDatabase { number, db, databases })
            }
        };
        check(0, db)?;
        for (number, effect) in Effects::new(effects).enumerate() {
            match effect? {
                Effect::Database(db) => check(number, db)?,
                Effect::Key { key, .. } => shards.push(self.shard_of(key)),
                Effect::Rename { db, key, .. } => {
                    check(number, db)?;
                    shards.push(self.shard_of(key));
                }
                Effect::Flush { db } => {
                    check(number, db)?;
                    all = true;
                }
                Effect::Swap { a, b } => {
                    check(number, a.max(b))?;
                    all = true;
                }
                Effect::Return { db, .. } => {
                    check(number, db)?;
                    all = true;
                }
                _ => {}
            }
        }
        Ok(if all { Scope::All } else { Scope::Shards(shards) })
    }
}

impl Txn<'_> {
    /// Makes changes to one key of the current database that are given as
    /// effects, as [`merge`](crate::merge) works them out. They are recorded as
    /// any change.
    ///
    /// # Errors
    /// When the effects are malformed or are not for the key as it stands.
    /// Those before the one in question have been made.
    pub fn amend(&mut self, key: &[u8], effects: &[u8]) -> Result<(), ApplyError> {
        self.purge(key);
        self.check_backing()?;
        let db = self.db();
        Applier { txn: self, key: Some(key), is_gone: false, is_left: false, db, number: 0 }
            .run(effects)
    }
}

/// Applying counts as an access.
const TOUCH: bool = true;

/// Whether a key is there as a record tells, if it does.
fn check_presence(number: usize, told: Option<bool>, is_there: bool) -> Result<(), ApplyError> {
    let what = match told {
        Some(true) if !is_there => "there is no such key",
        Some(false) if is_there => "there is a key where none belongs",
        _ => return Ok(()),
    };
    Err(ApplyError::Misfit { number, what })
}

/// The longest string that a record is believed to make without asking for the
/// memory first: Redis's own limit by default.
const STRING_BYTES_SURE: usize = 512 << 20;

/// What the effect after the one that names a key does to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It replaces the key, whatever it was.
    Overwritten,
    Removed,
    /// Anything else.
    Changed,
}

struct Applier<'a, 't, 'e> {
    txn: &'a mut Txn<'t>,
    key: Option<&'e [u8]>,
    /// The key went when it was named, since the next effect removes it.
    is_gone: bool,
    /// What the next flush takes away may come back.
    is_left: bool,
    db: DbIndex,
    number: usize,
}

impl<'e> Applier<'_, '_, 'e> {
    fn run(mut self, effects: &'e [u8]) -> Result<(), ApplyError> {
        self.txn.select(self.db);
        let mut effects = Effects::new(effects).enumerate().peekable();
        while let Some((number, effect)) = effects.next() {
            self.number = number;
            let next = effects.peek().map(|(_, next)| next);
            let fate = match next {
                Some(Ok(Effect::StrSet { .. } | Effect::Put { .. })) => Fate::Overwritten,
                Some(Ok(Effect::Delete(_))) => Fate::Removed,
                _ => Fate::Changed,
            };
            self.apply(effect?, fate)?;
        }
        Ok(())
    }

    /// Applies one effect; `fate` is what the next one does to its key.
    fn apply(&mut self, effect: Effect<'e>, fate: Fate) -> Result<(), ApplyError> {
        match effect {
            Effect::Database(db) => self.txn.select(db),
            Effect::Key { key, existed } => {
                self.key = Some(key);
                self.enter(key, existed, fate)?;
            }
            Effect::Leaves { .. } => self.is_left = true,
            Effect::Flush { db } => {
                let is_left = std::mem::take(&mut self.is_left);
                self.txn.flush_keeping(db, is_left);
            }
            Effect::Swap { a, b } => self.txn.swap(a, b),
            Effect::Return { db, space, keys } => {
                let back = self.txn.stand_again(db, space, keys, None);
                back.map_err(|what| ApplyError::Misfit { number: self.number, what })?;
            }
            // Those who keep the branches read the others.
            Effect::Origin { .. }
            | Effect::Branch { .. }
            | Effect::Fork { .. }
            | Effect::BranchGone { .. }
            | Effect::Tag { .. }
            | Effect::TagGone { .. }
            | Effect::Merged { .. }
            | Effect::MergeOpen { .. }
            | Effect::MergeSettled { .. }
            | Effect::MergeGone { .. }
            | Effect::Erased
            | Effect::Undoable { .. }
            | Effect::Undone { .. } => {}
            Effect::KeepRule { glob, keep, oldest } => self.txn.keep_past(glob, keep, oldest),
            Effect::KeepRuleGone { glob } => _ = self.txn.forget_rule(glob),
            Effect::Purge { db, key, is_prefix, oldest } => {
                self.txn.purge_past(db, key, is_prefix, oldest);
            }
            Effect::Erase => {
                let key = self.key()?;
                self.txn.erase(key);
            }
            Effect::Delete(_) if std::mem::take(&mut self.is_gone) => {}
            Effect::Delete(cause) => {
                let key = self.key()?;
                let existed = self.txn.remove(key, cause);
                self.fits(existed, "there is no such key")?;
            }
            Effect::Emptied => {
                let key = self.key()?;
                self.found(self.txn.db(), key, Some(false))?;
            }
            Effect::StrSet { value, deadline } => {
                let key = self.key()?;
                self.txn.set_string(key, value, deadline);
            }
            Effect::StrWrite { offset, bytes } => {
                let key = self.key()?;
                let offset = self.index(offset)?;
                // A damaged offset must not end the process for want of memory.
                let end = offset.checked_add(bytes.len());
                let has_room = |end| {
                    end <= STRING_BYTES_SURE || Vec::<u8>::new().try_reserve_exact(end).is_ok()
                };
                self.fits(end.is_some_and(has_room), "memory does not hold so long a string")?;
                let written = self.txn.write_string(key, offset, bytes);
                self.typed(written)?;
            }
            Effect::StrAdd { delta } => self.add_to_string(delta)?,
            Effect::Put { body, deadline } => {
                let key = self.key()?;
                let value = dump::decode_body(body, self.txn.seed(), self.txn.limits())?;
                self.txn.put_encoded(key, body, value, deadline);
            }
            Effect::Deadline(deadline) => {
                let key = self.key()?;
                let existed = self.txn.set_deadline(key, deadline);
                self.fits(existed, "there is no such key")?;
            }
            Effect::Rename { db, key: to, replaces } => {
                let key = self.key()?;
                self.txn.load_in(db, to);
                self.txn.check_backing()?;
                self.found(db, to, replaces)?;
                let existed = self.txn.rename(key, db, to);
                self.fits(existed, "there is no such key")?;
            }
            Effect::HashSet { field, value } => {
                self.create(|hash: &mut Editor<'_, '_, Hash>| {
                    hash.set(field, value);
                    true
                })?
            }
            Effect::HashDelete { field } => {
                self.change(|hash: &mut Editor<'_, '_, Hash>| hash.remove(field))?;
            }
            Effect::HashAdd { field, delta } => {
                self.create(|hash: &mut Editor<'_, '_, Hash>| {
                    let before = hash.get(field).map_or(Some(0), base::number::parse_i64);
                    let Some(after) = before.and_then(|n| n.checked_add(delta)) else {
                        return false;
                    };
                    hash.add(field, delta, after);
                    true
                })?;
            }
            Effect::ListPushFront { value } => self.create(|list: &mut Editor<'_, '_, List>| {
                list.push_front(value);
                true
            })?,
            Effect::ListPushBack { value } => self.create(|list: &mut Editor<'_, '_, List>| {
                list.push_back(value);
                true
            })?,
            Effect::ListPopFront { count } => {
                let count = self.index(count)?;
                self.change(|list: &mut Editor<'_, '_, List>| {
                    let fits = count <= list.len();
                    fits.then(|| list.drop_front(count));
                    fits
                })?;
            }
            Effect::ListPopBack { count } => {
                let count = self.index(count)?;
                self.change(|list: &mut Editor<'_, '_, List>| {
                    let fits = count <= list.len();
                    fits.then(|| list.drop_back(count));
                    fits
                })?;
            }
            Effect::ListSet { index, value } => {
                let index = self.index(index)?;
                self.change(|list: &mut Editor<'_, '_, List>| {
                    let fits = index < list.len();
                    fits.then(|| list.set(index, value));
                    fits
                })?;
            }
            Effect::ListInsert { index, value } => {
                let index = self.index(index)?;
                self.change(|list: &mut Editor<'_, '_, List>| {
                    let fits = index <= list.len();
                    fits.then(|| list.insert(index, value));
                    fits
                })?;
            }
            Effect::ListRemove { index } => {
                let index = self.index(index)?;
                self.change(|list: &mut Editor<'_, '_, List>| {
                    let fits = index < list.len();
                    fits.then(|| list.remove(index));
                    fits
                })?;
            }
            Effect::SetAdd { member } => {
                self.create(|set: &mut Editor<'_, '_, Set>| set.add(member))?;
            }
            Effect::SetRemove { member } => {
                self.change(|set: &mut Editor<'_, '_, Set>| set.remove(member))?;
            }
            Effect::ZsetSet { member, score } => {
                self.create(|zset: &mut Editor<'_, '_, Zset>| {
                    zset.set(member, score);
                    true
                })?;
            }
            Effect::ZsetRemove { member } => {
                self.change(|zset: &mut Editor<'_, '_, Zset>| zset.remove(member).is_some())?;
            }
        }
        Ok(())
    }

    fn add_to_string(&mut self, delta: i64) -> Result<(), ApplyError> {
        let key = self.key()?;
        let found = self.txn.string(key);
        let before = match self.typed(found)? {
            None => Some(0),
            Some(text) => base::number::parse_i64(text),
        };
        let after = before.and_then(|n| n.checked_add(delta));
        self.fits(after.is_some(), "the string is no integer or would overflow")?;
        self.txn.add_to_string(key, delta, after.expect("just checked"));
        Ok(())
    }

    fn create<C: crate::Collection>(
        &mut self,
        edit: impl FnOnce(&mut Editor<'_, '_, C>) -> bool,
    ) -> Result<(), ApplyError> {
        let key = self.key()?;
        let fits = self.txn.update_or_create(key, edit);
        let fits = self.typed(fits)?;
        self.fits(fits, "the element is not as the record expects")
    }

    fn change<C: crate::Collection>(
        &mut self,
        edit: impl FnOnce(&mut Editor<'_, '_, C>) -> bool,
    ) -> Result<(), ApplyError> {
        let key = self.key()?;
        let fits = self.txn.update(key, edit);
        let fits = self.typed(fits)?;
        self.fits(fits == Some(true), "the element is not as the record expects")
    }

    /// Makes what follows speak of a key of the current database.
    fn enter(&mut self, key: &[u8], existed: Option<bool>, fate: Fate) -> Result<(), ApplyError> {
        // What is overwritten or removed need not be fetched: replay would read
        // the whole archive for it, key by key.
        match (fate, existed) {
            (Fate::Overwritten, Some(existed)) if self.txn.settle_unread(key, existed)? => {
                return Ok(());
            }
            (Fate::Removed, Some(true)) if self.txn.remove_unread(key)? => {
                self.is_gone = true;
                return Ok(());
            }
            _ => {}
        }
        self.txn.load(key);
        self.txn.check_backing()?;
        self.found(self.txn.db(), key, existed)
    }

    /// Checks what the record tells of whether a key is there.
    fn found(&self, db: DbIndex, key: &[u8], told: Option<bool>) -> Result<(), ApplyError> {
        match told {
            Some(_) => check_presence(self.number, told, self.txn.holds(db, key)),
            None => Ok(()),
        }
    }

    fn key(&self) -> Result<&'e [u8], ApplyError> {
        self.key.ok_or(ApplyError::NoKey { number: self.number })
    }

    fn index(&self, index: u64) -> Result<usize, ApplyError> {
        usize::try_from(index).map_err(|_| ApplyError::Misfit {
            number: self.number,
            what: "an index exceeds this machine's memory",
        })
    }

    fn typed<T>(&self, result: Result<T, WrongType>) -> Result<T, ApplyError> {
        result.map_err(|WrongType| ApplyError::Misfit {
            number: self.number,
            what: "the key holds another type",
        })
    }

    fn fits(&self, fits: bool, what: &'static str) -> Result<(), ApplyError> {
        if fits { Ok(()) } else { Err(ApplyError::Misfit { number: self.number, what }) }
    }
}
