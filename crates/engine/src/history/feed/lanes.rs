//! Those behind, and whose turn it is to be read to.
//!
//! One thread reads to all of them. A turn of theirs is short, but a value of
//! the past may take as long as ten thousand changes that need none. So who
//! needs values does not share turns with who needs none, who needs costly ones
//! shares them with nobody, and who is about to be back at the head has every
//! second turn.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base::Revision;
use log::Place;

use super::group::{Group, Watch};

/// Who shares turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those who have left the head for a value that has to be read.
    Live,
    /// Those to whom the log tells everything.
    Plain,
    /// Those who may need values.
    Valued,
}

/// The lanes' turns, over and over. A lane without anybody is passed over.
const TURNS: [Kind; 4] = [Kind::Live, Kind::Plain, Kind::Live, Kind::Valued];

/// Where a group stands, and whose it is: a watch's that is read to alone, or 0.
/// Watches that stand at the same place share a group else.
type At = (Revision, u64);

const SHARED: u64 = 0;

#[derive(Debug, Default)]
struct Lane {
    groups: BTreeMap<At, Group>,
    /// The first group after this place is next.
    turn: At,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    live: Lane,
    plain: Lane,
    valued: Lane,
    /// How many of [`TURNS`] there were.
    turn: usize,
    /// The group that is being read to: it is given out.
    running: Option<(Kind, At)>,
}

impl Lanes {
    /// Whether anybody waits to be read to.
    pub(super) fn is_empty(&self) -> bool {
        self.live.groups.is_empty() && self.plain.groups.is_empty() && self.valued.groups.is_empty()
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Lets a watch be read to from where it stands.
    pub(super) fn add(&mut self, watch: Arc<Watch>, near: Option<Place>) {
        let kind = if watch.form.needs_past() { Kind::Valued } else { Kind::Plain };
        self.lane(kind).add(SHARED, watch, near);
    }

    /// As [`Lanes::add`], for one that was at the head.
    pub(super) fn add_live(&mut self, watch: Arc<Watch>, near: Option<Place>) {
        self.lane(Kind::Live).add(SHARED, watch, near);
    }

    /// As [`Lanes::add`], for one whose values take long to read.
    pub(super) fn add_alone(&mut self, watch: Arc<Watch>, near: Option<Place>) {
        self.lane(Kind::Valued).add(watch.id, watch, near);
    }

    pub(super) fn remove(&mut self, id: u64) {
        for lane in [&mut self.live, &mut self.plain, &mut self.valued] {
            lane.groups.retain(|_, group| {
                group.remove(id);
                !group.is_empty()
            });
        }
    }

    /// What the slowest wants next, one that is being read to included.
    pub(super) fn slowest(&self) -> Option<Revision> {
        let lanes = [&self.live, &self.plain, &self.valued];
        let waiting = lanes.into_iter().filter_map(|lane| lane.groups.keys().next());
        waiting.chain(self.running.iter().map(|(_, at)| at)).map(|(next, _)| *next).min()
    }

    /// Gives out the group whose turn it is, and the place of the next one
    /// before it, where the two become one. [`Lanes::end_turn`] is to follow.
    pub(super) fn begin_turn(&mut self) -> Option<(Group, Option<Revision>)> {
        for step in 0..TURNS.len() {
            let kind = TURNS[(self.turn + step) % TURNS.len()];
            if let Some((at, group, ahead)) = self.lane(kind).take() {
                self.turn += step + 1;
                self.running = Some((kind, at));
                return Some((group, ahead));
            }
        }
        None
    }

    /// Ends a turn. A group that has yet to be read to is taken back; it is no
    /// longer one of those nearly at the head if its turn was too short.
    pub(super) fn end_turn(&mut self, stands_at: Revision, group: Option<Group>, is_cut: bool) {
        let Some((kind, (_, owner))) = self.running.take() else { return };
        // Of those nearly at the head the one that has waited longest is first.
        if kind != Kind::Live {
            self.lane(kind).turn = (stands_at, owner);
        }
        if let Some(group) = group {
            let kind = if kind == Kind::Live && is_cut { Kind::Valued } else { kind };
            self.lane(kind).put(owner, group);
        }
    }

    fn lane(&mut self, kind: Kind) -> &mut Lane {
        match kind {
            Kind::Live => &mut self.live,
            Kind::Plain => &mut self.plain,
            Kind::Valued => &mut self.valued,
        }
    }
}

impl Lane {
    fn add(&mut self, owner: u64, watch: Arc<Watch>, near: Option<Place>) {
        let from = watch.from();
        self.groups.entry((from, owner)).or_insert_with(|| Group::at(from, near)).add(watch);
    }

    fn put(&mut self, owner: u64, group: Group) {
        let at = (group.next, owner);
        let group = match self.groups.remove(&at) {
            Some(other) => joined(other, group),
            None => group,
        };
        self.groups.insert(at, group);
    }

    fn take(&mut self) -> Option<(At, Group, Option<Revision>)> {
        let after = (Bound::Excluded(self.turn), Bound::Unbounded);
        let next = self.groups.range(after).next().or_else(|| self.groups.iter().next());
        let at = *next?.0;
        let group = self.groups.remove(&at)?;
        let shares = at.1 == SHARED;
        let ahead = self.groups.range(at..).find(|((_, owner), _)| shares && *owner == SHARED);
        let ahead = ahead.map(|((next, _), _)| *next);
        Some((at, group, ahead))
    }
}

/// Two groups that stand at the same place as one.
fn joined(a: Group, b: Group) -> Group {
    // What is the same either way costs as much as what moves.
    let (mut one, other) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    one.merge(other);
    one
}

#[cfg(test)]
mod tests {
    use super::super::group::tests::watch_of;
    use super::super::rules::Selection;
    use super::*;

    fn watch(id: u64, from: u64) -> Arc<Watch> {
        watch_of(id, Revision(from), Selection::default())
    }

    /// Gives turns that each end `step` revisions later; answers where those
    /// began who had them.
    fn turns(lanes: &mut Lanes, count: usize, step: u64) -> Vec<u64> {
        let mut began = Vec::new();
        for _ in 0..count {
            let Some((mut group, ahead)) = lanes.begin_turn() else { break };
            began.push(group.next.0);
            let next = Revision(group.next.0 + step);
            group.next = ahead.map_or(next, |ahead| ahead.min(next));
            lanes.end_turn(group.next, Some(group), true);
        }
        began
    }

    #[test]
    fn nobody_has_a_second_turn_before_the_others_had_one() {
        let mut lanes = Lanes::default();
        for (id, from) in [(1, 10), (2, 5000), (3, 9000)] {
            lanes.add(watch(id, from), None);
        }
        let began = turns(&mut lanes, 7, 100);
        assert_eq!(began, [10, 5000, 9000, 110, 5100, 9100, 210]);
    }

    #[test]
    fn those_who_meet_share_their_turns_but_for_who_is_alone() {
        let mut lanes = Lanes::default();
        lanes.add(watch(1, 10), None);
        lanes.add(watch(2, 50), None);
        lanes.valued.add(SHARED, watch(3, 10), None);
        lanes.valued.add(SHARED, watch(4, 50), None);
        lanes.add_alone(watch(5, 20), None);
        turns(&mut lanes, 12, 100);
        assert_eq!(lanes.plain.groups.len(), 1);
        let owners: Vec<u64> = lanes.valued.groups.keys().map(|(_, owner)| *owner).collect();
        assert_eq!(owners.len(), 2);
        assert!(owners.contains(&SHARED) && owners.contains(&5), "{owners:?}");
    }

    #[test]
    fn values_take_no_turns_from_who_needs_none_nor_from_who_is_live() {
        let mut lanes = Lanes::default();
        for id in 1..=20 {
            lanes.add_alone(watch(id, 10 * id), None);
        }
        lanes.add(watch(30, 1_000_000), None);
        let mut began = turns(&mut lanes, 10, 1);
        assert_eq!(began.iter().filter(|at| **at >= 1_000_000).count(), 5, "{began:?}");
        lanes.add_live(watch(31, 2_000_000), None);
        began = turns(&mut lanes, 2, 1);
        assert!(began.contains(&2_000_000), "{began:?}");
        // Its turn did not bring it to the head, so it waits as others do.
        assert!(lanes.live.groups.is_empty());
        assert_eq!(lanes.valued.groups.len(), 21);
    }

    #[test]
    fn of_those_who_are_live_the_one_that_has_waited_longest_is_first() {
        let mut lanes = Lanes::default();
        lanes.add_live(watch(1, 10), None);
        lanes.add_live(watch(2, 12), None);
        let (mut group, ahead) = lanes.begin_turn().expect("somebody");
        assert_eq!((group.next, ahead), (Revision(10), Some(Revision(12))));
        group.next = Revision(12);
        lanes.end_turn(group.next, None, false);
        // It was at the head, and has left it again.
        lanes.add_live(watch(1, 14), None);
        assert_eq!(turns(&mut lanes, 1, 1), [12]);
    }

    #[test]
    fn a_group_that_is_read_to_counts_among_the_slowest() {
        let mut lanes = Lanes::default();
        lanes.add(watch(1, 10), None);
        lanes.add_alone(watch(2, 20), None);
        let (group, _) = lanes.begin_turn().expect("somebody");
        assert_eq!(group.next, Revision(10));
        assert_eq!(lanes.slowest(), Some(Revision(10)));
        lanes.end_turn(Revision(30), None, false);
        assert_eq!(lanes.slowest(), Some(Revision(20)));
        lanes.remove(2);
        assert!(lanes.is_empty() && lanes.slowest().is_none());
    }
}
