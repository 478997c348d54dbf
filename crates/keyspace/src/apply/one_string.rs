//! The commonest record: one string is set. It needs no transaction around it.

use base::{DbIndex, Revision};

use super::{ApplyError, TOUCH, check_presence};
use crate::effect::{Effect, Effects};
use crate::shard::{Db, Keyspace, StringWrite};
use crate::txn::access_clock;
use crate::value::Value;

/// A record that sets one string and does nothing else.
#[derive(Clone, Copy, Debug)]
pub struct OneString<'a> {
    pub(super) key: &'a [u8],
    existed: Option<bool>,
    value: &'a [u8],
    deadline: Option<u64>,
}

impl<'a> OneString<'a> {
    /// The record with these effects, if it is one.
    #[must_use]
    pub fn of(effects: &'a [u8]) -> Option<OneString<'a>> {
        let mut effects = Effects::new(effects);
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
        access: u32,
    ) -> Result<Option<Box<Value>>, ApplyError> {
        let &OneString { key, existed, value, deadline } = self;
        let string = StringWrite { key, value, deadline, access, touch: TOUCH };
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
                _ => _ = db.load(hash, key, access)?,
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
    pub fn apply_string(
        &self,
        revision: Revision,
        time_ms: u64,
        db: DbIndex,
        record: &OneString<'_>,
    ) -> Result<(), ApplyError> {
        let databases = self.databases();
        if db >= databases {
            return Err(ApplyError::NoDatabase { number: 0, db, databases });
        }
        let (index, hash) = self.locate(record.key);
        let access = access_clock(time_ms);
        let mut shard = self.lock(index);
        let place = &mut shard.dbs[usize::from(db)];
        let result = record.apply(place, hash, revision, access);
        self.recount(index, place);
        let old = result?;
        self.note_access_clock(access);
        shard.last_revision = revision;
        // What may take long to free is freed off the lock.
        drop(shard);
        drop(old);
        Ok(())
    }
}
