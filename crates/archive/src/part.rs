//! A part of a base as a base of its own.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use base::{BranchId, Revision, SpaceId};
use keyspace::{Branches, SHARDS};

use crate::base_tree::Base;
use crate::codec::{self, Content, Name};
use crate::directory::{Database, Directory};
use crate::elements::ElementKey;
use crate::error::ArchiveError;

/// Writes the keys of `from` that begin with `prefix` to `to`, which is empty,
/// and brings it to the same revision.
pub(crate) fn write_part(from: &Base, to: &Base, prefix: &[u8]) -> Result<(), ArchiveError> {
    let directory = from.directory();
    if directory.revision == to.revision() {
        return Ok(());
    }
    let mut spaces: Vec<(Vec<u8>, &Database)> = Vec::new();
    // A branch is more than its own keys: a part is of main.
    for database in directory.databases.iter().filter(|it| it.branch == BranchId::MAIN) {
        let mut space = Vec::new();
        codec::put_space(&mut space, database.space);
        spaces.push((space, database));
    }
    spaces.sort_by(|a, b| a.0.cmp(&b.0));
    let mut batch = to.batch()?;
    let mut databases = Vec::new();
    for (space, database) in spaces {
        let mut keys = Box::new([0; SHARDS]);
        let mut chosen = Chosen { prefix, head: Vec::new(), born: None };
        let mut ended = Ok(());
        from.prefix(&space, &mut |key, value| {
            let written = match chosen.judge(&space, key, value) {
                Ok(Some(is_head)) => {
                    if is_head {
                        keys[shard_of(key, space.len())] += 1;
                    }
                    batch.put(key, value)
                }
                Ok(None) => Ok(()),
                Err(what) => Err(ArchiveError::Damaged {
                    dir: from.dir().to_owned(),
                    what: format!("in space {}: {what}", database.space),
                }),
            };
            ended = written;
            if ended.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        ended?;
        if database.space != SpaceId::first_of(database.db) || keys.iter().any(|&count| count > 0) {
            databases.push(Database { keys, ..database.clone() });
        }
    }
    batch.finish(Directory {
        databases,
        left: Vec::new(),
        overlays: Vec::new(),
        branches: Branches::default(),
        purged: BTreeMap::new(),
        ..(*directory).clone()
    })
}

/// The leading six bits of the hash, which the bucket begins with.
fn shard_of(key: &[u8], bucket_at: usize) -> usize {
    usize::from(key[bucket_at] >> 2)
}

/// Which entries belong to a key that begins with the prefix.
struct Chosen<'p> {
    prefix: &'p [u8],
    /// The entry of the last such key; its elements follow it.
    head: Vec<u8>,
    /// Which elements of it exist.
    born: Option<Revision>,
}

impl Chosen<'_> {
    /// `None`: not chosen. `Some(true)`: a key. `Some(false)`: an element.
    fn judge(&mut self, space: &[u8], entry: &[u8], value: &[u8]) -> Result<Option<bool>, String> {
        let rest = entry.get(space.len() + 2..).ok_or("an entry ends before its name")?;
        let (name, element) = codec::split_name(rest)?;
        if !element.is_empty() {
            let head = entry.len() - element.len();
            let is_there = self.head == entry[..head]
                && self.born == Some(ElementKey::read(element)?.born)
                && !codec::age(value)?.1;
            return Ok(is_there.then_some(false));
        }
        let Some(head) = codec::head(value, name == Name::Digest)? else { return Ok(None) };
        let key = match name {
            Name::Plain(key) => Some(key),
            Name::Digest => head.key,
        };
        let is_chosen = key.is_some_and(|key| key.starts_with(self.prefix));
        if is_chosen {
            self.head = entry.to_vec();
            self.born = match head.content {
                Content::Large(large) => Some(large.born),
                Content::Str(_) | Content::Whole(_) => None,
            };
        }
        Ok(is_chosen.then_some(true))
    }
}
