//! Large collections that lie over others: of one that a branch has from its
//! parent, the branch's space holds only what has changed there.
//!
//! Such a collection's head stands in the branch's space, with the count of all
//! elements. An element that has no entry of its generation, not even one that
//! says that it is gone, is as it is in the same key of the space below, whose
//! collection may lie over another one in turn. A collection never comes to lie
//! over another later: either its first own version does, or none.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use base::Revision;
use lsm_tree::UserValue;

use crate::base_tree::{Base, Frozen, Visit};
use crate::codec::{self, Content};
use crate::elements::{self, Large};
use crate::error::ArchiveError;

/// One generation of elements.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The key of its head.
    head: Vec<u8>,
    /// As of when; the newest if `None`.
    at: Option<Revision>,
    born: Revision,
}

/// A key as a space below has it.
pub(crate) struct Lower {
    /// The key of its head there.
    pub(crate) head: Vec<u8>,
    /// As of when.
    pub(crate) at: Revision,
    pub(crate) value: UserValue,
}

impl Base {
    /// The key of a head in the first space below its own that has it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn lower(
        &self,
        head: &[u8],
        at: Option<Revision>,
    ) -> Result<Option<Lower>, ArchiveError> {
        let (mut space, mut upto) = (codec::space_of(head), at);
        while let Some((under, fork)) = space.and_then(|space| self.overlays().under(space)) {
            let at = upto.map_or(fork, |upto| upto.min(fork));
            let head = codec::in_space(head, under);
            if let Some(value) = self.get_at(&head, at)? {
                return Ok(Some(Lower { head, at, value }));
            }
            (space, upto) = (Some(under), Some(at));
        }
        Ok(None)
    }

    /// Where the elements of a large collection stand, the top first.
    ///
    /// # Errors
    /// When that cannot be read or is damaged.
    pub(crate) fn layers(
        &self,
        head: &[u8],
        at: Option<Revision>,
        large: &Large,
    ) -> Result<Vec<Layer>, ArchiveError> {
        let is_digest = codec::is_digest(head);
        let damaged = |what: &str| ArchiveError::Damaged {
            dir: self.dir().to_owned(),
            what: format!("a collection that lies over another: {what}"),
        };
        let mut layers = vec![Layer { head: head.to_vec(), at, born: large.born }];
        let mut is_over = large.is_over;
        while is_over {
            let top = layers.last().expect("it has one");
            let lower = self.lower(&top.head, top.at)?;
            let lower = lower.ok_or_else(|| damaged("there is none below"))?;
            let read = codec::head(&lower.value, is_digest).map_err(|what| damaged(&what))?;
            let Some(Content::Large(large)) = read.map(|read| read.content) else {
                return Err(damaged("what is below is none"));
            };
            is_over = large.is_over;
            layers.push(Layer { head: lower.head, at: Some(lower.at), born: large.born });
        }
        Ok(layers)
    }
}

impl Base {
    /// Of the collections that one lies over as of a state, the revisions of
    /// their last changes there. What its own space has nothing of counts as one
    /// that lies over what is below.
    ///
    /// # Errors
    /// When that cannot be read or is damaged.
    pub(crate) fn lies_over(
        &self,
        head: &[u8],
        at: Revision,
    ) -> Result<Vec<Revision>, ArchiveError> {
        let is_digest = codec::is_digest(head);
        let read = |value: &[u8]| match codec::head(value, is_digest) {
            Ok(Some(read)) => match read.content {
                Content::Large(large) => Ok(Some((read.revision, large.is_over))),
                Content::Str(_) | Content::Whole(_) => Ok(None),
            },
            Ok(None) => Ok(None),
            Err(what) => Err(ArchiveError::Damaged { dir: self.dir().to_owned(), what }),
        };
        let mut is_over = match self.get_at(head, at)? {
            Some(value) => read(&value)?.is_some_and(|(_, is_over)| is_over),
            None => true,
        };
        let (mut head, mut at, mut found) = (head.to_vec(), at, Vec::new());
        while is_over && let Some(lower) = self.lower(&head, Some(at))? {
            let Some((revision, goes_on)) = read(&lower.value)? else { break };
            found.push(revision);
            (head, at, is_over) = (lower.head, lower.at, goes_on);
        }
        Ok(found)
    }
}

impl Layer {
    /// What the keys of its elements begin with.
    fn beginning(&self) -> Vec<u8> {
        let mut beginning = self.head.clone();
        elements::put_born(&mut beginning, self.born);
        beginning
    }

    /// The entry of an element, with what says that it is gone.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn get(&self, base: &Base, name: &[u8]) -> Result<Option<UserValue>, ArchiveError> {
        let mut key = self.beginning();
        elements::put_name(&mut key, name);
        match self.at {
            None => base.get(&key),
            Some(at) => base.get_at(&key, at),
        }
    }
}

/// Visits the entries of all elements, in the order of their names, with keys
/// as the top's have them, without the head's. All is read from `frozen`.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn each(
    frozen: &Frozen,
    layers: &[Layer],
    visit: &mut Visit<'_>,
) -> Result<(), ArchiveError> {
    let (lowest, upper) = layers.split_last().expect("there is one");
    let all = |layer: &Layer, visit: &mut Visit<'_>| {
        let first = layer.beginning();
        let last = [&first[..], &[elements::AFTER_NAMES]].concat();
        frozen.range(&(&first[..]..=&last[..]), layer.at, &mut |key, value| {
            visit(&key[first.len()..], value)
        })
    };
    // By name: the first that has an element has it.
    let mut changed: BTreeMap<Box<[u8]>, Box<[u8]>> = BTreeMap::new();
    for layer in upper {
        all(layer, &mut |name, value| {
            changed.entry(name.into()).or_insert_with(|| value.into());
            ControlFlow::Continue(())
        })?;
    }
    let mut key = Vec::new();
    elements::put_born(&mut key, layers[0].born);
    let beginning = key.len();
    let mut tell = |name: &[u8], value: &[u8]| {
        key.truncate(beginning);
        key.extend_from_slice(name);
        visit(&key, value)
    };
    let mut changed = changed.into_iter().peekable();
    let mut has_ended = false;
    all(lowest, &mut |name, value| {
        while let Some((before, value)) = changed.next_if(|(other, _)| **other < *name) {
            if tell(&before, &value).is_break() {
                has_ended = true;
                return ControlFlow::Break(());
            }
        }
        let newer = changed.next_if(|(other, _)| **other == *name);
        let told = tell(name, newer.as_ref().map_or(value, |(_, value)| value));
        has_ended = told.is_break();
        told
    })?;
    if !has_ended {
        // What only the upper ones have.
        let _ = changed.try_for_each(|(name, value)| tell(&name, &value));
    }
    Ok(())
}

/// Visits the entries of the elements of some names, as [`each`] does.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn each_named<'n>(
    frozen: &Frozen,
    layers: &[Layer],
    names: impl IntoIterator<Item = &'n [u8]>,
    visit: &mut Visit<'_>,
) -> Result<(), ArchiveError> {
    let mut told = Vec::new();
    elements::put_born(&mut told, layers[0].born);
    let beginning = told.len();
    for name in names {
        told.truncate(beginning);
        elements::put_name(&mut told, name);
        for layer in layers {
            let mut key = layer.beginning();
            elements::put_name(&mut key, name);
            let mut found = None;
            frozen.range(&(&key[..]..=&key[..]), layer.at, &mut |_, value| {
                found = Some(visit(&told, value));
                ControlFlow::Break(())
            })?;
            match found {
                Some(ControlFlow::Break(())) => return Ok(()),
                Some(ControlFlow::Continue(())) => break,
                None => {}
            }
        }
    }
    Ok(())
}
