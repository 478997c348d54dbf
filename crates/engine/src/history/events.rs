//! What a record did, key by key.

use base::{DbIndex, Reply, Revision};
use command::Result;
use keyspace::effect::{Cause, Effect, Effects, Marked};
use log::Record;

use crate::past::PastError;

/// Who made a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who<'r> {
    pub(crate) command: &'r [u8],
    pub(crate) user: &'r [u8],
    address: &'r [u8],
}

/// What became of a key, or of every key of a database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What<'r> {
    /// It has a new value as a whole.
    Set,
    /// This element of it changed.
    Part(Effect<'r>),
    Deadline,
    Gone(Cause),
    /// Renamed; it is at another place now.
    MovedAway,
    /// Renamed; another's value is here now.
    MovedHere,
    /// Its database was emptied.
    Flushed,
    /// Its database changed places with another.
    Swapped,
    /// Its database has again what a flush took away.
    Returned,
    /// What it was before is not to be read any more.
    Erased,
}

/// One effect and the place it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touch<'r> {
    pub(crate) db: DbIndex,
    /// `None`: every key of the database.
    pub(crate) key: Option<&'r [u8]>,
    pub(crate) what: What<'r>,
    /// The effect itself, for those who want its operands.
    pub(crate) effect: Effect<'r>,
    /// The key goes, and the record says that this can be taken back.
    pub(crate) is_undoable: bool,
}

impl Touch<'_> {
    /// Whether it is about this key, alone or with all others.
    pub(crate) fn is_about(&self, db: DbIndex, key: &[u8]) -> bool {
        self.db == db && self.key.is_none_or(|name| name == key)
    }
}

/// Visits what a record did, in order; answers who made it, if it tells.
pub(crate) fn read<'r>(
    record: &Record<'r>,
    visit: &mut dyn FnMut(Touch<'r>) -> Result,
) -> Result<Option<Who<'r>>> {
    read_effects(record.revision, record.header.db, record.effects, visit)
}

/// As [`read`], for the effects of a revision that begin in `db`.
pub(crate) fn read_effects<'r>(
    revision: Revision,
    mut db: DbIndex,
    effects: &'r [u8],
    visit: &mut dyn FnMut(Touch<'r>) -> Result,
) -> Result<Option<Who<'r>>> {
    let (mut key, mut who, mut marked) = (None, None, Marked::default());
    for effect in Effects::new(effects) {
        let effect = effect
            .map_err(|error| PastError::Unreadable(format!("revision {revision}: {error}")))?;
        let is_undoable = marked.see(&effect);
        let touch = |db, key, what| Touch { db, key, what, effect, is_undoable };
        let what = match effect {
            Effect::Database(other) => {
                db = other;
                continue;
            }
            Effect::Key { key: name, .. } => {
                key = Some(name);
                continue;
            }
            Effect::Origin { command, user, address } => {
                who = Some(Who { command, user, address });
                continue;
            }
            // The effect before has said which element went.
            Effect::Emptied => What::Gone(Cause::Client),
            Effect::Delete(cause) => What::Gone(cause),
            Effect::Erase => What::Erased,
            Effect::StrSet { .. } | Effect::Put { .. } => What::Set,
            Effect::Deadline(_) => What::Deadline,
            Effect::Flush { db } => {
                visit(touch(db, None, What::Flushed))?;
                continue;
            }
            Effect::Return { db, .. } => {
                visit(touch(db, None, What::Returned))?;
                continue;
            }
            Effect::Swap { a, b } => {
                for db in [a, b] {
                    visit(touch(db, None, What::Swapped))?;
                }
                continue;
            }
            Effect::Rename { db: to_db, key: to, .. } => {
                visit(touch(db, key, What::MovedAway))?;
                visit(touch(to_db, Some(to), What::MovedHere))?;
                continue;
            }
            effect if !effect.is_on_key() => continue,
            _ => What::Part(effect),
        };
        visit(touch(db, key, what))?;
    }
    Ok(who)
}

impl What<'_> {
    /// Both as one, when a transaction did first this and then `next`.
    pub(crate) fn then(self, next: Self) -> Self {
        let was_whole = matches!(self, What::Set | What::MovedHere);
        match next {
            What::Part(_) if was_whole => self,
            // It was made anew.
            What::Part(_) if self.is_removal() => What::Set,
            What::Deadline => self,
            next => next,
        }
    }

    pub(crate) fn is_removal(self) -> bool {
        matches!(self, What::Gone(_) | What::MovedAway | What::Flushed)
    }

    /// Whether the key is there after it, due or not, as far as that is told.
    pub(crate) fn leaves_key(self) -> Option<bool> {
        match self {
            What::Set | What::Part(_) | What::Deadline | What::MovedHere => Some(true),
            What::Gone(_) | What::MovedAway | What::Flushed => Some(false),
            What::Swapped | What::Returned | What::Erased => None,
        }
    }

    /// The word for it in CHANGES.
    pub(crate) fn word(self) -> &'static str {
        match self {
            What::Set | What::MovedHere => "set",
            What::Part(_) => "changed",
            What::Deadline => "deadline",
            What::Gone(_) | What::MovedAway => "removed",
            What::Flushed => "flushed",
            What::Swapped => "swapped",
            What::Returned => "returned",
            What::Erased => "purged",
        }
    }
}

/// Writes the words for what a change came from: command, user, address and
/// cause. What the server did by itself is nobody's.
pub(crate) fn write_origin(what: What<'_>, who: Option<Who<'_>>, reply: &mut dyn Reply) {
    let by_itself = match what {
        What::Gone(Cause::Expired) => Some("expire"),
        What::Gone(Cause::Evicted) => Some("evict"),
        _ => None,
    };
    let who = who.filter(|_| by_itself.is_none());
    reply.optional_bulk(who.map(|who| who.command));
    reply.optional_bulk(who.map(|who| who.user));
    reply.optional_bulk(who.map(|who| who.address));
    let cause = by_itself.unwrap_or_else(|| who.map_or("client", |who| who.cause()));
    reply.bulk(cause.as_bytes());
}

impl<'r> Who<'r> {
    /// The command's name; a message may follow it in the record.
    pub(crate) fn name(&self) -> &'r [u8] {
        self.command.split(|byte| *byte == b' ').next().unwrap_or_default()
    }

    fn cause(&self) -> &'static str {
        match self.name() {
            b"revert" | b"undelete" | b"undo" => "revert",
            b"branch|merge" => "merge",
            b"history.purge" => "purge",
            _ => "client",
        }
    }
}
