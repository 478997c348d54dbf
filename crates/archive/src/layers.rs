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
use crate::codec::{self, Content, Head};
use crate::elements::{self, Large};
use crate::error::ArchiveError;

/// One generation of elements.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The key of its head.
    head: Vec<u8>,
    /// As of when; the newest if `None`.
    at: Option<Revision>,
    /// Of the collection's last change there.
    revision: Revision,
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
        revision: Revision,
        large: &Large,
    ) -> Result<Vec<Layer>, ArchiveError> {
        let is_digest = codec::is_digest(head);
        let damaged = |what: &str| ArchiveError::Damaged {
            dir: self.dir().to_owned(),
            what: format!("a collection that lies over another: {what}"),
        };
        let mut layers = vec![Layer { head: head.to_vec(), at, revision, born: large.born }];
        let mut is_over = large.is_over;
        while is_over {
            let top = layers.last().expect("it has one");
            let lower = self.lower(&top.head, top.at)?;
            let Lower { head, at, value } = lower.ok_or_else(|| damaged("there is none below"))?;
            let read = codec::head(&value, is_digest).map_err(|what| damaged(&what))?;
            let Some(Head { revision, content: Content::Large(large), .. }) = read else {
                return Err(damaged("what is below is none"));
            };
            is_over = large.is_over;
            layers.push(Layer { head, at: Some(at), revision, born: large.born });
        }
        Ok(layers)
    }

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
        let own = self.get_at(head, at)?.map(|value| Lower { head: head.to_vec(), at, value });
        let own_layers = usize::from(own.is_some());
        let top = match own {
            Some(own) => Some(own),
            None => self.lower(head, Some(at))?,
        };
        let Some(Lower { head, at, value }) = top else { return Ok(Vec::new()) };
        let read = codec::head(&value, codec::is_digest(&head));
        let read =
            read.map_err(|what| ArchiveError::Damaged { dir: self.dir().to_owned(), what })?;
        let Some(Head { revision, content: Content::Large(large), .. }) = read else {
            return Ok(Vec::new());
        };
        let layers = self.layers(&head, Some(at), revision, &large)?;
        Ok(layers.iter().skip(own_layers).map(|layer| layer.revision).collect())
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

/// Visits the entries of all elements, in the order of their names: these as they
/// stand at the end of a key, and the values. All is read from `frozen`.
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
    let mut changed = changed.into_iter().peekable();
    let mut told = ControlFlow::Continue(());
    all(lowest, &mut |name, value| {
        while let Some((before, value)) = changed.next_if(|(other, _)| **other < *name) {
            told = visit(&before, &value);
            if told.is_break() {
                return told;
            }
        }
        let newer = changed.next_if(|(other, _)| **other == *name);
        told = visit(name, newer.as_ref().map_or(value, |(_, value)| value));
        told
    })?;
    if told.is_continue() {
        // What only the upper ones have.
        let _ = changed.try_for_each(|(name, value)| visit(&name, &value));
    }
    Ok(())
}

/// Visits the entries of the elements of some names, as [`each`] does.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn each_named(
    frozen: &Frozen,
    layers: &[Layer],
    names: &[&[u8]],
    visit: &mut Visit<'_>,
) -> Result<(), ArchiveError> {
    for name in names {
        let mut told = None;
        for layer in layers {
            let mut key = layer.beginning();
            let first = key.len();
            elements::put_name(&mut key, name);
            frozen.range(&(&key[..]..=&key[..]), layer.at, &mut |key, value| {
                told = Some(visit(&key[first..], value));
                ControlFlow::Break(())
            })?;
            if told.is_some() {
                break;
            }
        }
        if told.is_some_and(|told| told.is_break()) {
            break;
        }
    }
    Ok(())
}
