//! Where each watch is: at the head, behind, or parked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::Revision;
use log::{Hold, Log, Place, Written};

use super::WatchCounts;
use super::filter::Filter;
use super::group::{Group, Left, Watch};
use super::lanes::Lanes;
use crate::past::PastError;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Hub {
    ids: u64,
    watches: BTreeMap<u64, Arc<Watch>>,
    by_client: HashMap<u64, BTreeSet<u64>>,
    /// Those who have been told everything that may be told, which is up to
    /// where it stands; they may have been told more.
    pub(super) head: Group,
    /// Those behind who can be read to.
    behind: Lanes,
    /// Watches that were closed while one of these is read to.
    closed_meanwhile: Vec<u64>,
    /// Those whose clients have to take what waits.
    parked: HashMap<u64, (Arc<Watch>, Place)>,
    hold: Option<Hold>,
    filter: Arc<Filter>,
    /// The engine is gone.
    pub(super) is_stopping: bool,
}

impl Hub {
    pub(super) fn new(filter: Arc<Filter>) -> Hub {
        Hub {
            ids: 0,
            watches: BTreeMap::new(),
            by_client: HashMap::new(),
            head: Group::at(Revision::ZERO, None),
            behind: Lanes::default(),
            closed_meanwhile: Vec::new(),
            parked: HashMap::new(),
            hold: None,
            filter,
            is_stopping: false,
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// Whether anybody waits to be read to.
    pub(super) fn has_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Takes in a watch.
    pub(super) fn open(&mut self, watch: Arc<Watch>, hold: Hold) {
        // One hold is for all of them; a place that is behind it was there
        // already, and is held by this one until the next look.
        self.hold = Some(hold);
        self.watches.insert(watch.id, watch.clone());
        self.by_client.entry(watch.client.id).or_default().insert(watch.id);
        watch.client.activity.watches.fetch_add(1, Ordering::Relaxed);
        self.filter.add(&watch);
        if watch.from() >= self.head.next {
            self.head.add(watch);
        } else {
            self.behind.add(watch, None);
        }
    }

    /// Tells those at the head what was written.
    pub(super) fn tell(&mut self, written: &Written<'_>) {
        if self.is_stopping {
            return;
        }
        let concern = written.concern;
        let is_for_nobody = !concern.is_wanted && self.filter.is_current(concern);
        if self.head.is_empty() || is_for_nobody {
            self.head.pass(written);
            return;
        }
        for (record, place) in written.records() {
            let mut left = Left::default();
            self.head.offer(&record, place, None, &mut left);
            self.settle(left);
        }
    }

    /// Ends everything.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.hold = None;
    }

    /// Puts those who have left the head where they go on.
    pub(super) fn settle(&mut self, left: Left) {
        for (watch, place) in left.unread {
            self.behind.add_live(watch, Some(place));
        }
        for (watch, place) in left.costly {
            self.behind.add_alone(watch, Some(place));
        }
        for (watch, place) in left.full {
            if watch.client.outbox.await_room() {
                self.parked.insert(watch.id, (watch, place));
            } else {
                self.behind.add(watch, Some(place));
            }
        }
        for (watch, reason) in left.failed {
            self.fail(watch, &reason);
        }
        for (watch, reason) in left.ended {
            self.end(&watch, &reason);
        }
    }

    /// A client has taken what waited.
    pub(super) fn go_on(&mut self, client: u64) {
        let ids: Vec<u64> = self.by_client.get(&client).into_iter().flatten().copied().collect();
        for id in ids {
            if let Some((watch, place)) = self.parked.remove(&id) {
                self.behind.add(watch, Some(place));
            }
        }
    }

    /// Closes those of a client's watches that are meant; answers which.
    pub(super) fn close_of(&mut self, client: u64, is_meant: &dyn Fn(&Watch) -> bool) -> Vec<u64> {
        let ids = self.by_client.get(&client).into_iter().flatten().copied();
        let ids: Vec<u64> = ids.filter(|id| is_meant(&self.watches[id])).collect();
        for id in &ids {
            let watch = self.watches[id].clone();
            watch.close(None);
            self.forget(&watch);
        }
        ids
    }

    /// Lets a watch that cannot be told what comes next start over at the head,
    /// if it is one that can, or else end.
    fn fail(&mut self, watch: Arc<Watch>, reason: &str) {
        if watch.starts_over(self.head.next) {
            tracing::info!(client = watch.client.id, watch = watch.id, "told to forget: {reason}");
            self.parked.remove(&watch.id);
            self.head.add(watch);
        } else {
            self.end(&watch, reason);
        }
    }

    /// Ends a watch, and tells its client why.
    pub(super) fn end(&mut self, watch: &Watch, reason: &str) {
        tracing::info!(client = watch.client.id, watch = watch.id, "watch closed: {reason}");
        if watch.end(Revision(self.head.next.0.saturating_sub(1)), reason) {
            self.forget(watch);
        }
    }

    fn forget(&mut self, watch: &Watch) {
        let id = watch.id;
        if self.watches.remove(&id).is_none() {
            return;
        }
        self.filter.remove(watch, self.watches.values().map(|watch| &**watch));
        let client = watch.client.id;
        if let Some(ids) = self.by_client.get_mut(&client) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_client.remove(&client);
            }
        }
        watch.client.activity.watches.fetch_sub(1, Ordering::Relaxed);
        self.parked.remove(&id);
        self.head.remove(id);
        self.behind.remove(id);
        if self.behind.is_running() {
            self.closed_meanwhile.push(id);
        }
        if self.watches.is_empty() {
            self.hold = None;
        }
    }

    /// Gives out the group behind whose turn it is, and the place of the next
    /// one before it, where the two become one.
    pub(super) fn begin(&mut self) -> Option<(Group, Option<Revision>)> {
        self.closed_meanwhile.clear();
        self.behind.begin_turn()
    }

    /// Takes back a group that was read to, and those who have left it. `is_cut`
    /// says that there was more to read at once, but others wait.
    pub(super) fn finish(&mut self, mut group: Group, left: Left, is_cut: bool) {
        for id in std::mem::take(&mut self.closed_meanwhile) {
            group.remove(id);
        }
        let stands_at = group.next;
        let mut waits = None;
        if !group.is_empty() && stands_at >= self.head.next {
            self.head.merge(group);
        } else if !group.is_empty() {
            waits = Some(group);
        }
        self.behind.end_turn(stands_at, waits, is_cut);
        self.settle_open(left);
    }

    /// As [`Hub::settle`], for those who were behind already, and may have been
    /// closed meanwhile.
    fn settle_open(&mut self, mut left: Left) {
        let is_open = |watch: &Arc<Watch>| self.watches.contains_key(&watch.id);
        left.full.retain(|(watch, _)| is_open(watch));
        left.unread.retain(|(watch, _)| is_open(watch));
        left.costly.retain(|(watch, _)| is_open(watch));
        left.failed.retain(|(watch, _)| is_open(watch));
        left.ended.retain(|(watch, _)| is_open(watch));
        for (watch, place) in left.unread.drain(..) {
            self.behind.add(watch, Some(place));
        }
        self.settle(left);
    }

    /// What the slowest wants next.
    fn slowest(&self) -> Option<Revision> {
        let head = (!self.head.is_empty()).then_some(self.head.next);
        let parked = self.parked.values().map(|(watch, _)| watch.from()).min();
        [head, self.behind.slowest(), parked].into_iter().flatten().min()
    }

    pub(super) fn counts(&self, newest: Revision) -> WatchCounts {
        let (open, at_head) = (self.watches.len(), self.head.len());
        let lag = self.slowest().map_or(0, |next| (newest.0 + 1).saturating_sub(next.0));
        WatchCounts {
            open,
            behind: open - at_head,
            lag: usize::try_from(lag).unwrap_or(usize::MAX),
        }
    }

    /// Holds the log for the slowest, but no more than `bytes_max` of it, and
    /// ends those who wait where it is gone.
    pub(super) fn hold_on(&mut self, log: &Log, bytes_max: u64) {
        let (Some(hold), Some(slowest)) = (&self.hold, self.slowest()) else { return };
        let segments = log.segments();
        let mut bytes = 0;
        let too_old = segments.iter().rev().find(|segment| {
            bytes += segment.bytes;
            segment.is_sealed && bytes > bytes_max
        });
        let let_go = too_old.map_or(Revision::ZERO, |segment| segment.last);
        hold.set(Revision(slowest.0 - 1).max(let_go));
        let oldest = segments.first().map_or(Revision::ZERO, |segment| segment.first);
        let lost: Vec<Arc<Watch>> = self
            .parked
            .values()
            .filter(|(watch, _)| watch.from() < oldest)
            .map(|(watch, _)| watch.clone())
            .collect();
        for watch in lost {
            let reason = PastError::Compacted { asked: watch.from(), oldest }.to_string();
            self.fail(watch, &reason);
        }
    }
}
