//! The commonest record: one string is set. It needs no transaction around it.

use base::{DbIndex, Revision};
use smallvec::SmallVec;

use super::{ApplyError, TOUCH, check_presence};
use crate::access::Moment;
use crate::effect::{Effect, Effects};
use crate::shard::{Db, Keyspace, Shard, StringWrite};
use crate::value::Value;
use crate::warm::bring_near;

/// What a record does that sets one string and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct OneString<'a> {
    /// The string's name.
    pub key: &'a [u8],
    /// Whether there was a key of that name, if the record says so.
    pub existed: Option<bool>,
    /// The string.
    pub value: &'a [u8],
    /// When it expires, in milliseconds since 1970.
    pub deadline: Option<u64>,
}

/// A record that sets one string.
#[derive(Clone, Copy, Debug)]
pub struct StringRecord<'a> {
    /// The record's revision.
    pub revision: Revision,
    /// Its time, in milliseconds since 1970.
    pub time_ms: u64,
    /// The database it is about.
    pub db: DbIndex,
    /// The [hash](Keyspace::hash_of) of the string's name.
    pub hash: u64,
    /// The string.
    pub string: OneString<'a>,
}

impl<'a> OneString<'a> {
    /// The record with these effects, if it is one.
    #[must_use]
    pub fn of(effects: &'a [u8]) -> Option<OneString<'a>> {
        let mut effects = Effects::new(effects);
        effects.skip_origin();
        let mut first = effects.next()?.ok()?;
        if let Effect::Origin { .. } = first {
            first = effects.next()?.ok()?;
        }
        let Effect::Key { key, existed } = first else { return None };
        let Effect::StrSet { value, deadline } = effects.next()?.ok()? else { return None };
        effects.next().is_none().then_some(OneString { key, existed, value, deadline })
    }

    /// Answers what stood there in an allocation of its own.
    fn apply(
        &self,
        db: &mut Db,
        hash: u64,
        revision: Revision,
        moment: Moment,
    ) -> Result<Option<Box<Value>>, ApplyError> {
        let &OneString { key, existed, value, deadline } = self;
        let string = StringWrite { key, value, deadline, moment, touch: TOUCH };
        let fits = |is_there| check_presence(0, existed, is_there).map(|()| revision);
        if let Some(old) = db.overwrite(hash, &string, || fits(true))? {
            return Ok(old);
        }
        if !db.knows_missing(hash, key) {
            match existed {
                // As in `Applier::enter`: what is overwritten is not fetched.
                Some(was_there) if db.takes_unread() => {
                    if was_there {
                        db.supersede()?;
                    }
                    db.own.came_back(revision.0);
                    db.add(hash, string.entry(revision));
                    return Ok(None);
                }
                _ => _ = db.load(hash, key, moment.fresh())?,
            }
            if let Some(old) = db.overwrite(hash, &string, || fits(true))? {
                return Ok(old);
            }
        }
        fits(false)?;
        db.add(hash, string.entry(revision));
        Ok(None)
    }
}

impl Keyspace {
    /// [`Keyspace::apply`] of such a record, which the caller knows already:
    /// one lock, one lookup, and no allocation where the new value fits the
    /// old one's place.
    ///
    /// # Errors
    /// When it does not fit; nothing is changed then.
    pub fn apply_string(&self, record: &StringRecord<'_>) -> Result<(), ApplyError> {
        let index = Keyspace::shard_of_hash(record.hash);
        let mut shard = self.lock(index);
        let old = self.set_string(&mut shard, index, record)?;
        // What may take long to free is freed off the lock.
        drop(shard);
        drop(old);
        Ok(())
    }

    /// As [`Keyspace::apply_string`], of up to [`WARM_KEYS_MAX`](crate::WARM_KEYS_MAX) records one after
    /// the other whose names are all of one shard: their waits for memory overlap.
    ///
    /// # Errors
    /// Which one does not fit. Those before it are applied.
    pub fn apply_strings(
        &self,
        records: &[StringRecord<'_>],
    ) -> Result<(), (Revision, ApplyError)> {
        let Some(first) = records.first() else { return Ok(()) };
        let index = Keyspace::shard_of_hash(first.hash);
        debug_assert!(records.iter().all(|it| Keyspace::shard_of_hash(it.hash) == index));
        let mut old: SmallVec<[Box<Value>; 1]> = SmallVec::new();
        let mut shard = self.lock(index);
        let near = records.iter().filter(|it| it.db == first.db).map(|it| it.hash);
        bring_near(usize::from(first.db), near, |_| Some(&*shard));
        for record in records {
            let set = self.set_string(&mut shard, index, record);
            old.extend(set.map_err(|error| (record.revision, error))?);
        }
        drop(shard);
        drop(old);
        Ok(())
    }

    /// Answers what stood there in an allocation of its own.
    fn set_string(
        &self,
        shard: &mut Shard,
        index: usize,
        record: &StringRecord<'_>,
    ) -> Result<Option<Box<Value>>, ApplyError> {
        let &StringRecord { revision, time_ms, db, hash, ref string } = record;
        let moment = self.moment(time_ms);
        let databases = self.databases();
        let Some(place) = shard.dbs.get_mut(usize::from(db)) else {
            return Err(ApplyError::NoDatabase { number: 0, db, databases });
        };
        let result = string.apply(place, hash, revision, moment);
        self.recount(index, place);
        let old = result?;
        self.note_access_clock(moment.fresh());
        shard.last_revision = revision;
        Ok(old)
    }
}
