//! Watches that stand at the same place of the log, and how they are fed.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::{BranchId, DbIndex, Frame, Revision};
use command::Result;
use keyspace::effect::Effects;
use log::{Place, Record, Written};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::change::{Telling, Told, Transaction};
use super::filter::ended_by;
use super::invalidation;
use super::packed::Changes;
use super::reading::Reading;
use super::request::{Events, Form, Request, event_of};
use super::rules::{Rules, Selection};
use crate::branch::Line;
use crate::client::Client;
use crate::history::changed::Change;
use crate::history::number;

/// Bytes of changes that are not made to wait for others.
const GATHERED_BYTES_MAX: usize = 32 * 1024;

/// A large transaction is told piece by piece, as each of its changes may be heard
/// of by many. How much is heard of in a piece, if that is more than a push of
/// keys to each.
const HEARD_MIN: usize = 16 * 1024;

/// A WATCHFROM that is open.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) id: u64,
    pub(super) client: Arc<Client>,
    /// Of whose changes it is told, and what that branch was called.
    line: Arc<Line>,
    branch_name: Vec<u8>,
    pub(super) dbs: Range<DbIndex>,
    pub(super) selection: Selection,
    pub(super) events: Events,
    pub(super) form: Form,
    pub(super) progress_ms: Option<u64>,
    /// Monotonic milliseconds from which it is due to be told how far it is.
    pub(super) progress_due_ms: AtomicU64,
    /// The first revision that is not told whole. Of older ones, which the
    /// head of the log may have yet to read, nothing is told.
    from: AtomicU64,
    /// The newest revision when it was opened.
    opened: Revision,
    /// Of that revision, the number of the effect up to which it is told.
    told: AtomicU64,
    /// Where it stands within that revision.
    mark: Mutex<Option<Mark>>,
    /// Nothing is pushed any more.
    is_closed: AtomicBool,
    /// Changes that are yet to be handed to the client's connection. Held while
    /// something is pushed, and to close the watch.
    gathered: Mutex<Changes>,
}

/// Where a watch stands within a transaction, for when a purge has taken effects out
/// of its record meanwhile.
#[derive(Debug)]
struct Mark {
    db: DbIndex,
    key: Option<Vec<u8>>,
    /// Whether it stands behind this key's change, and not before it.
    is_told: bool,
    /// How many effects the transaction had.
    effects: usize,
}

/// A change that a watch hears of.
struct Heard<'g, 'r> {
    watch: &'g Arc<Watch>,
    change: &'g Change<'r>,
    event: &'static str,
}

/// A transaction that a group is offered.
struct Offer<'t, 'r, 'e> {
    record: &'t Record<'r>,
    transaction: Transaction<'r>,
    /// To whose lines it belongs.
    branches: &'t [BranchId],
    place: Place,
    reading: Option<&'t Reading<'e>>,
}

/// Where a watch goes on after it was offered a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fed {
    /// With the next one.
    On,
    /// Once its client has taken what waits: where [`Watch::from`] says.
    Full,
    /// With this one, by somebody who may read values, or has time to.
    Unread,
    /// With this one, on a turn of its own: its values take long to read.
    Costly,
}

impl Watch {
    #[allow(clippy::too_many_arguments, reason = "what WATCHFROM says, and who")]
    pub(super) fn new(
        id: u64,
        client: Arc<Client>,
        (line, branch_name): (Line, Vec<u8>),
        dbs: Range<DbIndex>,
        request: Request,
        (from, opened): (Revision, Revision),
        now_ms: u64,
    ) -> Arc<Watch> {
        let Request { selection, events, form, progress_ms, .. } = request;
        Arc::new(Watch {
            id,
            client,
            line: Arc::new(line),
            branch_name,
            dbs,
            selection,
            events,
            form,
            progress_ms,
            progress_due_ms: AtomicU64::new(now_ms + progress_ms.unwrap_or(0)),
            from: AtomicU64::new(from.0),
            opened,
            told: AtomicU64::new(0),
            mark: Mutex::new(None),
            is_closed: AtomicBool::new(false),
            gathered: Mutex::new(Changes::of(id)),
        })
    }

    pub(super) fn branch(&self) -> BranchId {
        self.line.branch()
    }

    /// The revision that made its branch.
    pub(super) fn branch_made(&self) -> Revision {
        self.line.made()
    }

    pub(super) fn from(&self) -> Revision {
        Revision(self.from.load(Ordering::Relaxed))
    }

    /// Whether it was told what became of a key with an effect of a revision.
    fn is_told(&self, revision: Revision, effect: usize) -> bool {
        match self.from().cmp(&revision) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => effect as u64 <= self.told.load(Ordering::Relaxed),
            std::cmp::Ordering::Greater => true,
        }
    }

    /// From now on it wants what comes from `next` on.
    fn goes_on(&self, next: Revision) {
        self.from.store(next.0, Ordering::Relaxed);
        self.told.store(0, Ordering::Relaxed);
    }

    /// From now on it wants what comes after a change of a transaction, or this
    /// change first, if it is not told.
    fn stands_at(&self, transaction: &Transaction<'_>, change: &Change<'_>, is_told: bool) {
        let key = change.key.map(<[u8]>::to_vec);
        let mark = Mark { db: change.db, key, is_told, effects: transaction.effects };
        *self.mark.lock() = Some(mark);
        self.from.store(transaction.revision.0, Ordering::Relaxed);
        self.told.store(behind(change, is_told), Ordering::Relaxed);
    }

    /// Finds its place within a transaction again.
    fn find_place(&self, transaction: &Transaction<'_>) {
        let told = self.told.load(Ordering::Relaxed);
        let mark = self.mark.lock();
        let Some(mark) = mark.as_ref().filter(|_| self.from() == transaction.revision) else {
            return;
        };
        if told == 0 || mark.effects == transaction.effects {
            return;
        }
        let is_it =
            |change: &&Change<'_>| (change.db, change.key) == (mark.db, mark.key.as_deref());
        let told = match transaction.changes.iter().find(is_it) {
            Some(change) => behind(change, mark.is_told),
            // If what is gone stood behind it too, it hears some things again.
            None => told.saturating_sub(mark.effects.saturating_sub(transaction.effects) as u64),
        };
        self.told.store(told, Ordering::Relaxed);
    }

    /// Ends it: when this returns, nothing is pushed for it any more. Answers
    /// whether it was open, and leaves a last message.
    pub(super) fn close(&self, last: Option<Frame>) -> bool {
        let mut gathered = self.gathered.lock();
        let was_closed = self.is_closed.swap(true, Ordering::Relaxed);
        let gathered = self.take(&mut gathered);
        if let Some(last) = last.filter(|_| !was_closed) {
            if let Some(changes) = gathered {
                self.client.outbox.push(changes);
            }
            self.client.outbox.push(Arc::new(last));
        }
        !was_closed
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) || self.client.is_killed()
    }

    fn push(&self, frame: Frame) {
        let mut gathered = self.gathered.lock();
        self.push_gathered(&mut gathered);
        if !self.is_over() {
            self.client.outbox.push(Arc::new(frame));
        }
    }

    /// Hands over what `add` tells: at once, or with what follows it in what is
    /// read to those behind.
    fn gather(self: &Arc<Self>, reading: Option<&Reading<'_>>, add: impl FnOnce(&mut Changes)) {
        let mut gathered = self.gathered.lock();
        let (is_first, before) = (gathered.len() == 0, gathered.bytes());
        add(&mut gathered);
        self.client.outbox.gather(gathered.bytes() - before);
        match reading {
            Some(reading) if gathered.bytes() < GATHERED_BYTES_MAX => {
                if is_first {
                    reading.gathers(self);
                }
            }
            _ => self.push_gathered(&mut gathered),
        }
    }

    /// Hands over the changes that were gathered.
    pub(super) fn hand_over(&self) {
        self.push_gathered(&mut self.gathered.lock());
    }

    fn push_gathered(&self, gathered: &mut Changes) {
        if let Some(changes) = self.take(gathered).filter(|_| !self.is_over()) {
            self.client.outbox.push(changes);
        }
    }

    fn take(&self, gathered: &mut Changes) -> Option<Changes> {
        if gathered.len() == 0 {
            return None;
        }
        self.client.outbox.end_gathering(gathered.bytes());
        Some(std::mem::replace(gathered, Changes::of(self.id)))
    }

    /// Tells it that nothing up to `revision` is missing, if that is due.
    pub(super) fn beat(&self, revision: Revision, now_ms: u64) {
        let Some(interval_ms) = self.progress_ms else { return };
        if self.progress_due_ms.load(Ordering::Relaxed) > now_ms || self.client.outbox.is_full() {
            return;
        }
        self.progress_due_ms.store(now_ms + interval_ms, Ordering::Relaxed);
        let revision = revision.max(Revision(self.from().0 - 1));
        self.push(match self.form {
            Form::Changes { .. } => {
                Frame::Push(vec![Frame::bulk("progress"), number(self.id), number(revision.0)])
            }
            Form::Invalidations => invalidation::none(revision),
        });
    }

    /// Tells changes of a transaction.
    fn feed<'r>(
        self: &Arc<Self>,
        transaction: &Transaction<'r>,
        mine: &[Heard<'_, 'r>],
        reading: Option<&Reading<'_>>,
    ) -> Result<Fed> {
        let revision = transaction.revision;
        let stops_before = |heard: &Heard<'_, '_>, fed| {
            self.stands_at(transaction, heard.change, false);
            Ok(fed)
        };
        match self.form {
            Form::Changes { old, new } => {
                let (line, is_past) = (&*self.line, revision <= self.opened);
                let telling = Telling { line, old, new, is_past, reading };
                for heard in mine {
                    if self.client.outbox.is_full() {
                        return stops_before(heard, Fed::Full);
                    }
                    if (old || new) && reading.is_some_and(Reading::is_spent) {
                        return stops_before(heard, Fed::Unread);
                    }
                    match transaction.item(heard.change, heard.event, &telling)? {
                        Told::Item(item) => self.gather(reading, |changes| changes.add(&item)),
                        Told::Nothing => {}
                        Told::Unread => return stops_before(heard, Fed::Unread),
                    }
                    if reading.is_some_and(|reading| reading.charge(self.id)) {
                        self.stands_at(transaction, heard.change, true);
                        return Ok(Fed::Costly);
                    }
                }
            }
            Form::Invalidations => {
                let is_whole = mine.iter().any(|heard| heard.change.key.is_none());
                let count = if is_whole { mine.len() } else { invalidation::KEYS_MAX };
                for part in mine.chunks(count) {
                    if self.client.outbox.is_full() {
                        return stops_before(&part[0], Fed::Full);
                    }
                    let keys = part.iter().map(|heard| heard.change.key);
                    let frame = invalidation::of_keys(keys, revision);
                    self.gather(reading, |changes| changes.add_frame(&frame));
                }
            }
        }
        Ok(Fed::On)
    }

    /// Its last push, where it ends for a reason.
    fn last_words(&self, told: Revision, reason: &str) -> Frame {
        match self.form {
            Form::Changes { .. } => {
                Frame::Push(vec![Frame::bulk("closed"), number(self.id), Frame::bulk(reason)])
            }
            Form::Invalidations => invalidation::of_all(told),
        }
    }

    /// Ends it, and tells its client why; whether it was open.
    pub(super) fn end(&self, told: Revision, reason: &str) -> bool {
        self.close(Some(self.last_words(told, reason)))
    }

    /// Lets a client that only wants to know what to forget forget everything
    /// up to `next`, and go on from there. `false` for another's watch.
    pub(super) fn starts_over(&self, next: Revision) -> bool {
        if self.form != Form::Invalidations {
            return false;
        }
        self.push(invalidation::of_all(Revision(next.0.saturating_sub(1))));
        self.goes_on(next);
        true
    }
}

/// The number of the last effect that is told to who stands at a change.
fn behind(change: &Change<'_>, is_told: bool) -> u64 {
    change.last as u64 - u64::from(!is_told)
}

/// Watches that have to be offered the same transaction next.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) next: Revision,
    /// A place of the log at or before `next`.
    pub(super) near: Option<Place>,
    rules: Rules,
    members: HashMap<u64, Arc<Watch>>,
    /// Those of them who want to be told how far it is.
    beating: BTreeMap<u64, Arc<Watch>>,
    /// The lines of branches that they are about, with how many are.
    lines: Vec<(Arc<Line>, usize)>,
    /// Whether one of them may stand within the next transaction.
    is_within: bool,
}

/// Those who have left a group, with the place of the transaction that they
/// stand at or behind.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Their clients have to take what waits first.
    pub(super) full: Vec<(Arc<Watch>, Place)>,
    /// They need values that are yet to be read.
    pub(super) unread: Vec<(Arc<Watch>, Place)>,
    /// Others would wait too long for the values that they need.
    pub(super) costly: Vec<(Arc<Watch>, Place)>,
    /// What comes next cannot be told, and why.
    pub(super) failed: Vec<(Arc<Watch>, String)>,
    /// There is nothing to watch any more, and why.
    pub(super) ended: Vec<(Arc<Watch>, String)>,
}

impl Group {
    pub(super) fn at(next: Revision, near: Option<Place>) -> Group {
        Group {
            next,
            near,
            rules: Rules::default(),
            members: HashMap::new(),
            beating: BTreeMap::new(),
            lines: Vec::new(),
            is_within: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn add(&mut self, watch: Arc<Watch>) {
        self.rules.add(watch.id, watch.branch(), watch.dbs.clone(), &watch.selection);
        match self.lines.iter_mut().find(|(line, _)| *line == watch.line) {
            Some((_, count)) => *count += 1,
            None => self.lines.push((watch.line.clone(), 1)),
        }
        if watch.progress_ms.is_some() {
            self.beating.insert(watch.id, watch.clone());
        }
        self.is_within |= watch.told.load(Ordering::Relaxed) > 0;
        self.members.insert(watch.id, watch);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Arc<Watch>> {
        let watch = self.members.remove(&id)?;
        self.rules.remove(id, watch.branch(), watch.dbs.clone(), &watch.selection);
        self.beating.remove(&id);
        if let Some(at) = self.lines.iter().position(|(line, _)| *line == watch.line) {
            self.lines[at].1 -= 1;
            if self.lines[at].1 == 0 {
                self.lines.swap_remove(at);
            }
        }
        Some(watch)
    }

    /// Tells those who are due how far it is.
    pub(super) fn beat(&self, now_ms: u64) {
        let told = Revision(self.next.0.saturating_sub(1));
        self.beating.values().for_each(|watch| watch.beat(told, now_ms));
    }

    /// Takes in those of another group. They have been told everything before
    /// where they stand, which may be later than where this group stands.
    pub(super) fn merge(&mut self, other: Group) {
        let next = other.next;
        for watch in other.members.into_values().filter(|watch| !watch.is_over()) {
            if watch.from() < next {
                watch.goes_on(next);
            }
            self.add(watch);
        }
    }

    /// Everybody, at the end of the group.
    pub(super) fn into_watches(self) -> impl Iterator<Item = Arc<Watch>> {
        self.members.into_values()
    }

    /// Offers the next transaction to all. Those who cannot take it leave. What the record does not tell is read by `reading`;
    /// without it, those who want them leave too.
    pub(super) fn offer(
        &mut self,
        record: &Record<'_>,
        place: Place,
        reading: Option<&Reading<'_>>,
        left: &mut Left,
    ) {
        self.next = record.revision.next();
        self.near = Some(place);
        self.tell(record, place, reading, left);
        self.is_within = false;
        self.end_branches(record, reading, left);
    }

    /// Passes over the next transactions, of which nobody here hears.
    pub(super) fn pass(&mut self, written: &Written<'_>) {
        self.next = written.next();
        self.near = Some(written.place());
    }

    /// The branches to whose lines a transaction belongs. What made a branch
    /// does not: the keys it writes were there before.
    fn heard_on(&self, record: &Record<'_>) -> SmallVec<[BranchId; 2]> {
        let mut branches = SmallVec::new();
        for (line, _) in &self.lines {
            if line.goes_on(record.revision, record.header) && !branches.contains(&line.branch()) {
                branches.push(line.branch());
            }
        }
        branches
    }

    fn tell(
        &mut self,
        record: &Record<'_>,
        place: Place,
        reading: Option<&Reading<'_>>,
        left: &mut Left,
    ) {
        let (db, rules) = (record.header.db, &self.rules);
        let mut branches = self.heard_on(record);
        branches.retain(|branch| rules.is_touched_by(*branch, db, record.effects));
        if branches.is_empty() {
            return;
        }
        let is_wanted = |db: DbIndex, key: Option<&[u8]>| {
            branches.iter().any(|branch| rules.wants(*branch, db, key))
        };
        let transaction = match Transaction::read(record, &is_wanted) {
            Ok(transaction) => transaction,
            Err(error) => {
                let reason = error.text().to_owned();
                let all: Vec<u64> = self.members.keys().copied().collect();
                let gone = all.into_iter().filter_map(|id| self.remove(id));
                left.failed.extend(gone.map(|watch| (watch, reason.clone())));
                return;
            }
        };
        if self.is_within {
            self.members.values().for_each(|watch| watch.find_place(&transaction));
        }
        reading.iter().for_each(|reading| reading.begin_telling());
        let offer = Offer { record, transaction, branches: &branches, place, reading };
        let before = left.full.len();
        self.tell_all(&offer, left);
        // Who has room again soon is told more of it now: reading it may have
        // taken long.
        let Some(reading) = reading else { return };
        let mut full: Vec<_> = left.full.drain(before..).map(|(watch, _)| watch).collect();
        while let Some(ready) = reading.with_room(&mut full) {
            let mut again = Group::at(self.next, None);
            ready.into_iter().for_each(|watch| again.add(watch));
            again.tell_all(&offer, left);
            full.extend(left.full.drain(before..).map(|(watch, _)| watch));
            again.into_watches().for_each(|watch| self.add(watch));
        }
        left.full.extend(full.into_iter().map(|watch| (watch, place)));
    }

    /// Tells a transaction to all who have yet to be told of it.
    fn tell_all(&mut self, offer: &Offer<'_, '_, '_>, left: &mut Left) {
        let mut changes = self.untold(&offer.transaction);
        while !changes.is_empty() && !self.is_empty() {
            let count = self.tell_some(offer, changes, left);
            changes = &changes[count..];
        }
    }

    /// What of a large transaction somebody has yet to be told; all of another.
    fn untold<'t, 'r>(&self, transaction: &'t Transaction<'r>) -> &'t [Change<'r>] {
        let changes = &transaction.changes;
        if changes.len() < HEARD_MIN {
            return changes;
        }
        let is_told = |change: &Change<'_>| {
            self.members.values().all(|watch| watch.is_told(transaction.revision, change.last))
        };
        &changes[changes.partition_point(is_told)..]
    }

    /// Tells the first of a transaction's changes; answers how many.
    fn tell_some<'r>(
        &mut self,
        offer: &Offer<'_, 'r, '_>,
        changes: &[Change<'r>],
        left: &mut Left,
    ) -> usize {
        let &Offer { record, ref transaction, branches, place, reading } = offer;
        let (mut count, mut heard) = (0, SmallVec::<[Heard<'_, 'r>; 4]>::new());
        for change in changes {
            if heard.len() >= HEARD_MIN && count >= invalidation::KEYS_MAX {
                break;
            }
            count += 1;
            let event = event_of(change.what);
            for branch in branches {
                for id in self.rules.listeners(*branch, change.db, change.key) {
                    let watch = &self.members[&id];
                    // Of two who watch a branch, one may have meant what it was
                    // before it was made anew.
                    let is_its = watch.line.goes_on(record.revision, record.header);
                    if is_its
                        && watch.events.has(event)
                        && !watch.is_told(record.revision, change.last)
                    {
                        heard.push(Heard { watch, change, event });
                    }
                }
            }
        }
        heard.sort_unstable_by_key(|heard| (heard.watch.id, heard.change.last));
        let mut gone: SmallVec<[(u64, Option<Result<Fed>>); 1]> = SmallVec::new();
        for mine in heard.chunk_by(|a, b| a.watch.id == b.watch.id) {
            let watch = mine[0].watch;
            let fed = (!watch.is_over()).then(|| watch.feed(transaction, mine, reading));
            if !matches!(fed, Some(Ok(Fed::On))) {
                gone.push((watch.id, fed));
            }
        }
        drop(heard);
        for (id, fed) in gone {
            let watch = self.remove(id).expect("it is a member");
            match fed {
                None | Some(Ok(Fed::On)) => {}
                Some(Ok(Fed::Full)) => left.full.push((watch, place)),
                Some(Ok(Fed::Unread)) => left.unread.push((watch, place)),
                Some(Ok(Fed::Costly)) => left.costly.push((watch, place)),
                Some(Err(error)) => left.failed.push((watch, error.text().to_owned())),
            }
        }
        count
    }

    /// Ends the watches of branches that are no more what they were. Those behind
    /// pass over the end of one that was brought back since: nothing happened on it
    /// meanwhile.
    fn end_branches(
        &mut self,
        record: &Record<'_>,
        reading: Option<&Reading<'_>>,
        left: &mut Left,
    ) {
        if self.lines.iter().all(|(line, _)| line.branch() == BranchId::MAIN) {
            return;
        }
        for effect in Effects::new(record.effects).flatten() {
            let Some((branch, what)) = ended_by(&effect) else { continue };
            let is_back = |watch: &Watch| reading.is_some_and(|it| it.engine.is_still(&watch.line));
            let is_ended = |watch: &Watch| {
                watch.branch() == branch && watch.branch_made() < record.revision && !is_back(watch)
            };
            let ids: Vec<u64> =
                self.members.values().filter(|watch| is_ended(watch)).map(|it| it.id).collect();
            for watch in ids.into_iter().filter_map(|id| self.remove(id)) {
                let reason = format!(
                    "NOBRANCH the branch '{}' {what} at revision {}",
                    String::from_utf8_lossy(&watch.branch_name),
                    record.revision
                );
                left.ended.push((watch, reason));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use keyspace::Branches;

    use super::*;
    use crate::client::Clients;

    /// A watch of main that nobody listens to.
    pub(in crate::history::feed) fn watch_of(
        id: u64,
        from: Revision,
        selection: Selection,
    ) -> Arc<Watch> {
        let client = Clients::default().connect(String::new(), String::new(), 0);
        let request =
            Request { selection, ..Request::parse(&[b"now"], &|_| unreachable!()).unwrap() };
        let line = Line::of(&Branches::default(), BranchId::MAIN);
        Watch::new(id, client, (line, b"main".to_vec()), 0..1, request, (from, Revision::ZERO), 0)
    }
}
