//! The table of tracking: who reads which keys, who follows which prefixes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{BranchId, Frame, Rng, SeededRng};
use keyspace::effect::{Cause, Effect, Effects};
use smallvec::SmallVec;

use super::TrackingCounts;
use crate::client::Client;

/// A client that tracks.
#[derive(Clone, Debug)]
pub(super) struct Tracker {
    pub(super) client: Arc<Client>,
    /// The client that is told in its place; 0: itself.
    pub(super) redirect: u64,
    pub(super) noloop: bool,
    pub(super) broadcast: bool,
}

/// What one message says: an array of keys, or null for every key.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) keys: Frame,
    pub(super) to: Vec<Tracker>,
}

impl Notice {
    fn of_keys<'k>(keys: impl IntoIterator<Item = &'k [u8]>, to: Vec<Tracker>) -> Notice {
        Notice { keys: Frame::Array(keys.into_iter().map(Frame::bulk).collect()), to }
    }
}

/// What a transaction makes to be told, gathered while it runs.
#[derive(Debug, Default)]
pub(crate) struct Invalidations {
    pub(super) notices: Vec<Notice>,
    /// Keys for those who follow prefixes, who hear of a whole transaction at
    /// once, with the client that changed each last; 0: nobody, it expired.
    touched: BTreeMap<Vec<u8>, u64>,
}

impl Invalidations {
    pub(crate) fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.touched.is_empty()
    }
}

/// How far a transaction's effects have been read.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) offset: usize,
    /// The key that the effects from there on are about, until they name
    /// another.
    key: Vec<u8>,
}

/// The readers of a key.
#[derive(Debug)]
struct Readers {
    /// Ascending. A reader that left or switched tracking off stays until the
    /// key changes.
    ids: SmallVec<[u64; 2]>,
    /// Where the key stands in `Table::order`.
    at: usize,
}

#[derive(Debug)]
pub(super) struct Table {
    clients: HashMap<u64, Tracker>,
    keys: HashMap<Arc<[u8]>, Readers>,
    /// The keys again, in no order, to choose one at random.
    order: Vec<Arc<[u8]>>,
    /// Pairs of a key and a reader.
    items: usize,
    /// Clients in broadcast mode by prefix.
    prefixes: BTreeMap<Vec<u8>, BTreeSet<u64>>,
    rng: SeededRng,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            clients: HashMap::new(),
            keys: HashMap::new(),
            order: Vec::new(),
            items: 0,
            prefixes: BTreeMap::new(),
            rng: SeededRng::new(0),
        }
    }
}

impl Table {
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn counts(&self) -> TrackingCounts {
        TrackingCounts { keys: self.keys.len(), items: self.items, prefixes: self.prefixes.len() }
    }

    /// Adds a client or changes how it tracks; `prefixes` come to those it has.
    pub(super) fn add(&mut self, tracker: Tracker, prefixes: &[Vec<u8>]) {
        let id = tracker.client.id;
        for prefix in prefixes {
            self.prefixes.entry(prefix.clone()).or_default().insert(id);
        }
        self.clients.insert(id, tracker);
    }

    pub(super) fn remove(&mut self, client: u64) {
        let Some(tracker) = self.clients.remove(&client) else { return };
        if tracker.broadcast {
            self.prefixes.retain(|_, clients| {
                clients.remove(&client);
                !clients.is_empty()
            });
        }
        if self.clients.is_empty() {
            *self = Table::default();
        }
    }

    /// Remembers that a client has read a key.
    pub(super) fn remember(&mut self, key: &[u8], reader: u64) {
        if let Some(readers) = self.keys.get_mut(key) {
            if let Err(at) = readers.ids.binary_search(&reader) {
                readers.ids.insert(at, reader);
                self.items += 1;
            }
            return;
        }
        let key: Arc<[u8]> = key.into();
        let readers = Readers { ids: SmallVec::from_slice(&[reader]), at: self.order.len() };
        self.order.push(key.clone());
        self.keys.insert(key, readers);
        self.items += 1;
    }

    /// Forgets a key; answers who read it.
    fn forget(&mut self, key: &[u8]) -> SmallVec<[u64; 2]> {
        let Some(readers) = self.keys.remove(key) else { return SmallVec::new() };
        self.order.swap_remove(readers.at);
        if let Some(moved) = self.order.get(readers.at) {
            self.keys.get_mut(moved).expect("every key in order has readers").at = readers.at;
        }
        self.items -= readers.ids.len();
        readers.ids
    }

    /// Adds what is to be told of a key that `writer` changed.
    fn change(&mut self, key: &[u8], writer: u64, out: &mut Invalidations) {
        let readers = self.forget(key);
        let to: Vec<Tracker> = readers
            .iter()
            .filter_map(|reader| self.clients.get(reader))
            .filter(|tracker| !tracker.broadcast)
            .filter(|tracker| !(tracker.noloop && tracker.client.id == writer))
            .cloned()
            .collect();
        if !to.is_empty() {
            out.notices.push(Notice::of_keys([key], to));
        }
    }

    /// Adds what is to be told of the effects from `place` on, which `writer`
    /// made, and moves `place` to their end.
    pub(super) fn read_effects(
        &mut self,
        effects: &[u8],
        writer: u64,
        place: &mut Place,
        out: &mut Invalidations,
    ) {
        let has_prefixes = !self.prefixes.is_empty();
        let mut is_flushed = false;
        // A key that changes in a hundred fields is looked up once.
        let mut is_known = false;
        for effect in Effects::new(&effects[place.offset..]).flatten() {
            let cause_is_time = matches!(effect, Effect::Delete(Cause::Expired | Cause::Evicted));
            match effect {
                Effect::Key { key, .. } => {
                    place.key.clear();
                    place.key.extend_from_slice(key);
                    is_known = false;
                }
                Effect::Flush { .. } => is_flushed = true,
                // Keys are remembered without their database, so which of them
                // mean another value now cannot be told.
                Effect::Swap { .. } | Effect::Return { .. } => is_flushed = true,
                effect if !effect.is_on_key() => {}
                effect => {
                    if !is_known {
                        self.change(&place.key, writer, out);
                        is_known = true;
                    }
                    if has_prefixes {
                        // What expires is news to its last writer as well.
                        let by = if cause_is_time { 0 } else { writer };
                        out.touched.insert(place.key.clone(), by);
                    }
                    if let Effect::Rename { key, .. } = effect {
                        self.change(key, writer, out);
                        if has_prefixes {
                            out.touched.insert(key.to_vec(), writer);
                        }
                    }
                }
            }
        }
        place.offset = effects.len();
        if is_flushed {
            self.keys = HashMap::new();
            self.order = Vec::new();
            self.items = 0;
            let to = self.clients.values().cloned().collect();
            out.notices.push(Notice { keys: Frame::Null, to });
        }
    }

    /// Adds that the clients on a branch are to forget everything. What they have
    /// read stays noted: others may have read keys of these names elsewhere.
    pub(super) fn lose_branch(&self, branch: BranchId, out: &mut Invalidations) {
        let is_there =
            |tracker: &&Tracker| tracker.client.activity.branch.load(Ordering::Relaxed) == branch.0;
        let to: Vec<Tracker> = self.clients.values().filter(is_there).cloned().collect();
        if !to.is_empty() {
            out.notices.push(Notice { keys: Frame::Null, to });
        }
    }

    /// Turns the keys that were touched into notices for those who follow
    /// prefixes: one message per prefix.
    pub(super) fn broadcast(&self, out: &mut Invalidations) {
        let touched = std::mem::take(&mut out.touched);
        if touched.is_empty() {
            return;
        }
        for (prefix, clients) in &self.prefixes {
            let of_prefix = || {
                let from =
                    (std::ops::Bound::Included(prefix.as_slice()), std::ops::Bound::Unbounded);
                touched.range::<[u8], _>(from).take_while(|(key, _)| key.starts_with(prefix))
            };
            if of_prefix().next().is_none() {
                continue;
            }
            let (some, all): (Vec<_>, Vec<_>) = clients
                .iter()
                .filter_map(|id| self.clients.get(id))
                .cloned()
                .partition(|tracker| tracker.noloop);
            for tracker in some {
                let me = tracker.client.id;
                let mut keys = of_prefix().filter(|(_, by)| **by != me).peekable();
                if keys.peek().is_some() {
                    let keys: Vec<&[u8]> = keys.map(|(key, _)| key.as_slice()).collect();
                    out.notices.push(Notice::of_keys(keys, vec![tracker]));
                }
            }
            if !all.is_empty() {
                out.notices.push(Notice::of_keys(of_prefix().map(|(key, _)| key.as_slice()), all));
            }
        }
    }

    /// Forgets keys, chosen at random, until no more than `max` are left. What
    /// is forgotten must be told, or a client would keep it for ever.
    pub(super) fn shrink(&mut self, max: usize, out: &mut Invalidations) {
        while self.keys.len() > max {
            let chosen = self.rng.below(self.order.len() as u64) as usize;
            let key = self.order[chosen].clone();
            // Nobody wrote it.
            self.change(&key, 0, out);
        }
    }
}
