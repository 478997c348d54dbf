//! A database with branches, its archive, and the model: for every branch a
//! keyspace in memory that a fork copies whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use archive::{Base, Follower, FollowerOptions, LargeFrom, Pace, Past, PastOptions, catch_up};
use base::{BranchId, DbIndex, Revision, Rng, SeededRng, SystemClock};
use keyspace::effect::{Cause, Effect, Effects};
use keyspace::{
    Branch, Branches, Buffers, EncodingLimits, Journal, Keyspace, SHARDS, Scope, Stored, Tag, Txn,
    TxnOptions, Value, ValueRef, dump,
};
use log::{FsyncPolicy, Log, LogOptions, MemVfs, Record, RecordHeader};

use crate::changes::{Change, make, random_key};
use crate::forest::{Forest, fork, forks_now};
use crate::random::{DATABASES, Key, State, look};

/// A key as the model has it.
#[derive(Debug)]
pub struct Kept {
    value: Value,
    deadline: Option<u64>,
    revision: Revision,
}

impl Kept {
    fn copy(&self) -> Kept {
        let Kept { value, deadline, revision } = self;
        Kept { value: value.as_ref().to_value(), deadline: *deadline, revision: *revision }
    }
}

/// What a branch held.
pub type Snapshot = Arc<BTreeMap<Key, Kept>>;

/// See the module's documentation.
pub struct World {
    dir: PathBuf,
    vfs: Arc<MemVfs>,
    pub rng: SeededRng,
    pub now_ms: u64,
    limits: EncodingLimits,
    pace: Pace,
    large_from: LargeFrom,
    log: Option<Arc<Log>>,
    base: Option<Arc<Base>>,
    past: Option<Arc<Past>>,
    follower: Option<Arc<Follower>>,
    pub known: Branches,
    live: BTreeMap<BranchId, Arc<Keyspace>>,
    model: BTreeMap<BranchId, Keyspace>,
    /// Of one connection that is on all branches by turns.
    buffers: Buffers,
    /// What every branch held after each revision that changed it; `None` when
    /// it was gone.
    states: BTreeMap<BranchId, BTreeMap<Revision, Option<Snapshot>>>,
    /// Keys of the past that were made from the present.
    pub remade_keys: usize,
}

struct ToLog<'l> {
    log: &'l Log,
    branch: BranchId,
}

impl Journal for ToLog<'_> {
    fn reserve(&self) -> Revision {
        self.log.reserve()
    }

    fn append(&self, revision: Revision, time_ms: u64, db: DbIndex, effects: &[u8]) {
        self.log.append(revision, RecordHeader { time_ms, db, branch: self.branch }, effects);
    }
}

/// Gives the model the revisions that the branch got, and keeps its records: that
/// of what was found to be due comes before that of the changes.
struct Same {
    next: AtomicU64,
    records: Mutex<Vec<(Revision, DbIndex, Vec<u8>)>>,
}

impl Journal for Same {
    fn reserve(&self) -> Revision {
        Revision(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn append(&self, revision: Revision, _: u64, db: DbIndex, effects: &[u8]) {
        self.records.lock().expect("nobody panics with it").push((revision, db, effects.to_vec()));
    }
}

/// Half of the worlds have no compact collections, whose copies share nothing.
fn limits_of(seed: u64) -> EncodingLimits {
    if seed % 4 < 2 {
        return EncodingLimits::default();
    }
    EncodingLimits {
        hash_max_listpack_entries: 1,
        list_max_listpack_size: 2,
        set_max_intset_entries: 1,
        set_max_listpack_entries: 1,
        zset_max_listpack_entries: 1,
        ..EncodingLimits::default()
    }
}

impl World {
    /// An empty one, whose archive does not follow the log yet: it is brought
    /// to a revision when somebody needs it there.
    pub fn new(dir: &Path, seed: u64, pace: Pace, large_from: LargeFrom) -> World {
        let main = BranchId::MAIN;
        let mut world = World {
            dir: dir.to_owned(),
            vfs: Arc::new(MemVfs::new()),
            rng: SeededRng::new(seed),
            now_ms: 1_000_000,
            limits: limits_of(seed),
            pace,
            large_from,
            remade_keys: 0,
            log: None,
            base: None,
            past: None,
            follower: None,
            known: Branches::default(),
            live: BTreeMap::new(),
            model: BTreeMap::from([(main, Keyspace::new(DATABASES, seed))]),
            buffers: Buffers::default(),
            states: BTreeMap::from([(
                main,
                BTreeMap::from([(Revision::ZERO, Some(Snapshot::default()))]),
            )]),
        };
        world.open(seed);
        world
    }

    /// As a start of the server does.
    fn open(&mut self, seed: u64) {
        let base = Base::open(&self.dir, seed, 1 << 20).expect("it opens");
        let base = Arc::new(base.with_large_from(self.large_from));
        let mut forest = Forest::open(&base);
        let options = LogOptions {
            fsync: FsyncPolicy::Always,
            segment_bytes_max: 20_000,
            block_bytes_max: 2_000,
            part_bytes_max: 300,
            ..LogOptions::default()
        };
        let mut is_unknown = false;
        let mut replay = |record: Record<'_>| {
            is_unknown |= forks_now(record.effects);
            if is_unknown { Ok(()) } else { forest.apply(&record) }
        };
        let (vfs, clock) = (self.vfs.clone(), Arc::new(SystemClock));
        let (dir, archived) = (Path::new("/log"), base.revision());
        let (log, report) =
            Log::open(vfs, dir, options, archived, clock, &mut self.rng, &mut replay)
                .expect("a log in memory opens");
        base.adopt(log.id()).expect("it is ours");
        if is_unknown {
            let reader = log.reader(base.revision().next());
            catch_up(&base, reader, report.last, DATABASES, self.limits).expect("it can");
            forest = Forest::open(&base);
        }
        let log = Arc::new(log);
        let options = PastOptions { databases: DATABASES, limits: self.limits, is_broken: false };
        let past = Past::open(base.clone(), log.clone(), options).expect("it opens");
        (self.known, self.live) = forest.take();
        let (of_base, of_log, limits) = (Arc::downgrade(&base), Arc::downgrade(&log), self.limits);
        base.set_reach(Arc::new(move |at| {
            let (base, log) = (of_base.upgrade(), of_log.upgrade());
            let (base, log) = (base.expect("it is open"), log.expect("it is open"));
            catch_up(&base, log.reader(base.revision().next()), at, DATABASES, limits)
        }));
        (self.log, self.base, self.past) = (Some(log), Some(base), Some(Arc::new(past)));
    }

    /// Ends everything and opens it again.
    pub fn reopen(&mut self) {
        self.halt();
        self.live.clear();
        self.past.take().map(|past| Arc::into_inner(past).expect("nobody has it"));
        let base = self.base.take().expect("it is open");
        // Some may still be reading.
        while Arc::strong_count(&base) > 1 {
            std::thread::yield_now();
        }
        drop(Arc::into_inner(base).expect("nobody has it"));
        let log = self.log.take().expect("it is open");
        log.close().expect("memory takes everything");
        drop(Arc::into_inner(log).expect("nobody has it"));
        let known = self.known.clone();
        self.open(0);
        assert_eq!(self.known, known);
    }

    /// What is kept of the past is gone, and no more is, until it is opened again.
    /// Until then nobody may ask for it.
    pub fn follow_without_history(&mut self) {
        self.halt();
        let past = self.past.take().expect("it is open");
        drop(Arc::into_inner(past).expect("nobody has it"));
        Past::discard(self.base()).expect("it can be removed");
        self.follow();
    }

    /// The archive follows the log from here on.
    pub fn follow(&mut self) {
        self.halt();
        let options = FollowerOptions {
            pace: self.pace,
            databases: DATABASES,
            limits: self.limits,
            past: self.past.clone(),
            turn: Box::new(|| {}),
            clock: Arc::new(SystemClock),
            advanced: Box::new(|_, _| {}),
            faulted: Box::new(|fault| assert_eq!(fault, None)),
        };
        let base = self.base().clone();
        let reader = self.log().reader(Follower::begin(&base, self.past.as_deref()));
        let follower = Arc::new(Follower::start(base.clone(), reader, options));
        let weak: Weak<Follower> = Arc::downgrade(&follower);
        base.set_reach(Arc::new(move |at| weak.upgrade().expect("it follows").checkpoint(at)));
        self.follower = Some(follower);
    }

    fn halt(&mut self) {
        // A base has one follower at a time.
        if let Some(follower) = self.follower.take() {
            drop(Arc::into_inner(follower).expect("nobody waits"));
        }
    }

    pub fn log(&self) -> &Arc<Log> {
        self.log.as_ref().expect("it is open")
    }

    pub fn base(&self) -> &Arc<Base> {
        self.base.as_ref().expect("it is open")
    }

    pub fn past(&self) -> &Arc<Past> {
        self.past.as_ref().expect("it is open")
    }

    pub fn newest(&self) -> Revision {
        self.log().newest()
    }

    pub fn checkpoint(&self) {
        self.follower.as_ref().expect("it follows").checkpoint(self.newest()).expect("it follows");
    }

    /// Nothing of the past is kept but what has a name, and nothing that only
    /// the past needed.
    pub fn merge(&mut self) {
        self.checkpoint();
        self.past().compact(self.newest()).expect("it can be compacted");
        // The follower has merged by the time it writes the second batch.
        for value in [b"1", b"2"] {
            self.change(BranchId::MAIN, &[Change::set(0, b"merge", value)]);
            self.checkpoint();
        }
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }

    fn options(&self) -> TxnOptions<'_> {
        TxnOptions {
            now_ms: self.now_ms,
            limits: &self.limits,
            event_classes: 0,
            always_record: false,
            expire: true,
            touch: true,
        }
    }

    /// One transaction on a branch.
    pub fn change(&mut self, branch: BranchId, changes: &[Change]) {
        let mut buffers = std::mem::take(&mut self.buffers);
        let looks_ahead = self.below(2) == 0;
        let first = self.newest().next();
        let journal = ToLog { log: self.log(), branch };
        let live = &self.live[&branch];
        if looks_ahead {
            let keys: Vec<&[u8]> = changes.iter().map(Change::key).collect();
            live.look_ahead(changes[0].db(), &keys, &mut buffers);
        }
        let mut txn = Txn::begin(live, &Scope::All, &journal, &mut buffers, self.options());
        let existed = make(changes, &mut txn);
        let written = txn.finish().written;
        let effects = buffers.effects().to_vec();
        live.check().expect("what is counted agrees");
        let same = Same { next: AtomicU64::new(first.0), records: Mutex::default() };
        let model = &self.model[&branch];
        let mut txn = Txn::begin(model, &Scope::All, &same, &mut buffers, self.options());
        assert_eq!(make(changes, &mut txn), existed, "what it finds out is so");
        assert_eq!(txn.finish().written, written, "the model changes too");
        assert_eq!(buffers.effects(), effects, "the record tells what was there");
        self.buffers = buffers;
        assert_eq!(
            same.next.into_inner(),
            self.newest().next().0,
            "the model takes as many revisions"
        );
        let Some(revision) = written else { return };
        let records = same.records.into_inner().expect("nobody panics with it");
        assert_eq!(records.last().map(|record| record.0), Some(revision));
        for (expired, db, effects) in &records[..records.len() - 1] {
            let before = self.state(branch, *expired).expect("it is there");
            let without = Some(without_due(&before, *db, effects));
            self.states.entry(branch).or_default().insert(*expired, without);
        }
        self.note(branch, revision);
    }

    /// What a branch holds from a revision on.
    fn note(&mut self, branch: BranchId, revision: Revision) {
        let snapshot = self.model.get(&branch).map(snapshot);
        self.states.entry(branch).or_default().insert(revision, snapshot);
    }

    /// Runs a transaction that declares one thing, as the engine does.
    fn declare(
        &mut self,
        on: BranchId,
        effect: &Effect<'_>,
        run: impl FnOnce(&mut Txn<'_>, Revision),
    ) -> Revision {
        let journal = ToLog { log: self.log(), branch: BranchId::MAIN };
        let mut buffers = Buffers::default();
        let live = &self.live[&on];
        let mut txn = Txn::begin(live, &Scope::All, &journal, &mut buffers, self.options());
        txn.record_always();
        txn.originate(b"branch", b"ann", b"here");
        let revision = txn.declare(effect);
        run(&mut txn, revision);
        let mut known = self.known.clone();
        known.apply(revision, self.now_ms, txn.effects()).expect("it fits");
        txn.finish();
        self.known = known;
        revision
    }

    fn row(&self, id: BranchId, parent: BranchId, base: Revision) -> Branch {
        Branch {
            base,
            created_ms: self.now_ms,
            created_by: b"ann".to_vec(),
            ..Branch::new(id, format!("branch-{}", id.0).as_bytes(), parent)
        }
    }

    /// The keyspaces of a branch, its parent and so on.
    fn ancestors(&self, branch: BranchId) -> Vec<Arc<Keyspace>> {
        let parent = |id: &BranchId| self.known.get(*id).map(|row| row.parent);
        let ids = std::iter::successors(Some(branch), parent);
        ids.map_while(|id| self.live.get(&id).cloned()).collect()
    }

    /// A branch that begins with what its parent has now.
    pub fn fork(&mut self, parent: BranchId) -> BranchId {
        let id = self.known.next_id();
        self.fork_as(id, parent);
        id
    }

    /// Lets a branch begin anew with what its parent has.
    pub fn reset(&mut self, branch: BranchId) {
        let parent = self.known.get(branch).expect("there").parent;
        self.fork_as(branch, parent);
    }

    fn fork_as(&mut self, id: BranchId, parent: BranchId) {
        let row = self.row(id, parent, Revision::ZERO).encode();
        let (base, ancestors) = (self.base().clone(), self.ancestors(parent));
        let mut child = None;
        let effect = Effect::Fork { row: &row, state: None };
        let revision = self.declare(parent, &effect, |txn, revision| {
            child = Some(fork(&base, ancestors, &txn.spaces(), revision, revision));
        });
        self.live.insert(id, child.expect("it ran"));
        let copied = copy(&snapshot(&self.model[&parent]), self.base().directory().seed);
        self.model.insert(id, copied);
        self.note(id, revision);
    }

    /// A branch that begins with a state of the archive at or before `at`, and
    /// with changes that are part of its first record. Answers it and the state.
    pub fn fork_at(&mut self, parent: BranchId, at: Revision) -> (BranchId, Revision) {
        let (base, id) = (self.base().clone(), self.known.next_id());
        let (state, spaces) = base.state_before(parent, DATABASES, at).expect("it is kept");
        let snapshot = self.state(parent, state).expect("the archive says that it was there");
        let model = copy(&snapshot, base.directory().seed);
        let row = self.row(id, parent, at).encode();
        let mut effects = Vec::new();
        Effect::Fork { row: &row, state: Some(state) }.encode(&mut effects);
        if self.below(3) == 0 {
            Effect::Flush { db: 1 }.encode(&mut effects);
        }
        let key = random_key(&mut self.rng);
        let existed = Some(snapshot.contains_key(&(0, key.clone())));
        Effect::Key { key: &key, existed }.encode(&mut effects);
        Effect::StrSet { value: b"at the fork", deadline: None }.encode(&mut effects);
        let revision = self.log().reserve();
        let child = fork(&base, self.ancestors(parent), &spaces, state, revision);
        let mut buffers = Buffers::default();
        for keyspace in [&*child, &model] {
            keyspace
                .apply(revision, self.now_ms, 0, &effects, &self.limits, &mut buffers)
                .expect("it fits");
        }
        self.known.apply(revision, self.now_ms, &effects).expect("it fits");
        let journal = ToLog { log: self.log(), branch: id };
        journal.append(revision, self.now_ms, 0, &effects);
        self.live.insert(id, child);
        self.model.insert(id, model);
        self.note(id, revision);
        (id, state)
    }

    /// Removes a branch, whatever begins with it.
    pub fn delete(&mut self, branch: BranchId) {
        let revision = self.declare(branch, &Effect::BranchGone { branch }, |_, _| {});
        self.live.remove(&branch);
        self.model.remove(&branch);
        self.note(branch, revision);
    }

    /// Names a revision; `None`: that of the tag's own record.
    pub fn tag(&mut self, name: &str, branch: BranchId, revision: Option<Revision>) {
        let time_of = |revision| self.past().time_of(revision).expect("it is kept");
        let time_ms = revision.map_or(0, time_of);
        let revision = revision.unwrap_or_default();
        let effect = Effect::Tag { name: name.as_bytes(), branch, revision, time_ms };
        self.declare(BranchId::MAIN, &effect, |_, _| {});
    }

    pub fn untag(&mut self, name: &[u8]) {
        self.declare(BranchId::MAIN, &Effect::TagGone { name }, |_, _| {});
    }

    /// Renames a branch: nobody's keys change.
    pub fn rename(&mut self, branch: BranchId, name: &str) {
        let row = Branch { name: name.into(), ..self.known.get(branch).expect("there").clone() };
        self.declare(BranchId::MAIN, &Effect::Branch { row: &row.encode() }, |_, _| {});
    }

    /// Takes some of what the archive has out of memory.
    pub fn evict(&mut self, branch: BranchId) {
        let upto = self.base().revision();
        let live = self.live[&branch].clone();
        for _ in 0..20 {
            let shard = self.below(SHARDS as u64) as usize;
            live.evict(shard, upto, usize::MAX / 2);
        }
    }

    /// Asks for some keys of a branch in haste, whatever comes of it: what is read
    /// then may be taken when it is not what the key is any more.
    pub fn ask_hastily(&mut self, branch: BranchId) {
        let live = self.live[&branch].clone();
        for _ in 0..4 {
            let (db, key) = self.key();
            let _ = live.load_hastily(db, &key);
        }
    }

    /// Asks for a key in haste; answers whether that has come to anything.
    pub fn ask(&self, branch: BranchId, (db, key): (DbIndex, &[u8])) -> bool {
        match self.live[&branch].load_hastily(db, key) {
            Err(error) if error.is_later() => false,
            asked => asked.map(|()| true).expect("it can be read"),
        }
    }

    /// A key stands in the archive only from here on.
    pub fn leave(&self, branch: BranchId, (db, key): (DbIndex, &[u8])) {
        self.checkpoint();
        let live = &self.live[&branch];
        while live.has_at_hand(db, key) {
            live.evict(live.shard_of(key), self.base().revision(), usize::MAX / 2);
        }
    }

    /// Forgets what memory need not know any more.
    pub fn forget_removals(&self) {
        let upto = self.base().revision();
        self.live.values().for_each(|live| live.forget_removals(upto));
    }

    /// Keys of a branch that are not in memory.
    pub fn unloaded(&self, branch: BranchId) -> u64 {
        self.live[&branch].unloaded()
    }

    /// main, and the other branches that there are.
    pub fn branches(&self) -> Vec<BranchId> {
        self.live.keys().copied().collect()
    }

    pub fn any_branch(&mut self) -> BranchId {
        let all = self.branches();
        all[self.below(all.len() as u64) as usize]
    }

    /// Branches that there ever were.
    pub fn ever(&self) -> Vec<BranchId> {
        self.states.keys().copied().collect()
    }

    /// What a branch held at a revision, if it was there.
    pub fn state(&self, branch: BranchId, at: Revision) -> Option<Snapshot> {
        self.states[&branch].range(..=at).next_back().and_then(|(_, state)| state.clone())
    }

    /// Some revision that is kept.
    pub fn revision(&mut self) -> Revision {
        let (oldest, newest) = (self.past().oldest().0, self.newest().0);
        Revision(oldest + self.below(newest + 1 - oldest))
    }

    /// Compares counts and some keys of a branch, one by one.
    pub fn check_some(&mut self, branch: BranchId) {
        let live = self.live[&branch].clone();
        self.check_some_of(branch, &live);
    }

    fn check_some_of(&mut self, branch: BranchId, live: &Keyspace) {
        let expected = self.state(branch, self.newest()).expect("it is there");
        let counted = |db| expected.keys().filter(|key| key.0 == db).count();
        for db in 0..DATABASES {
            assert_eq!(look(live, db, &mut |txn| txn.len()), counted(db), "{branch:?} {db}");
        }
        for _ in 0..4 {
            let key = self.key();
            let text = String::from_utf8_lossy(&key.1).into_owned();
            let found = key_of(live, &key);
            let expected = expected.get(&key).map(state_of);
            assert_eq!(found, expected, "{branch:?} {}:{text} at {}", key.0, self.newest());
        }
    }

    /// Compares everything on a branch.
    pub fn check_all(&self, branch: BranchId) {
        let expected = states_of(&self.state(branch, self.newest()).expect("it is there"));
        assert_eq!(contents(&self.live[&branch]), expected, "{branch:?} at {}", self.newest());
    }

    /// Compares what somebody would see who starts with the archive, which is at
    /// the newest revision: everything on one branch, some of the others.
    pub fn check_forest(&mut self) {
        assert_eq!(self.base().revision(), self.newest());
        let (known, keyspaces) = Forest::open(self.base()).take();
        assert_eq!(known, self.known);
        assert_eq!(keyspaces.len(), self.live.len());
        for (branch, keyspace) in &keyspaces {
            (0..3).for_each(|_| self.check_some_of(*branch, keyspace));
        }
        let branch = self.any_branch();
        let expected = states_of(&self.state(branch, self.newest()).expect("it is there"));
        assert_eq!(contents(&keyspaces[&branch]), expected, "{branch:?} at {}", self.newest());
    }

    /// Compares some revision of some branch that ever was.
    pub fn check_past(&mut self) {
        let (ever, revision) = (self.ever(), self.revision());
        let branch = ever[self.below(ever.len() as u64) as usize];
        if self.state(branch, revision).is_some() {
            self.check_at(branch, revision);
        }
        self.check_remade();
    }

    /// Compares a revision of a branch, as a whole and key by key.
    pub fn check_at(&mut self, branch: BranchId, revision: Revision) {
        let expected = self.state(branch, revision).expect("it was there");
        // To look through all keys takes long.
        if self.below(3) == 0 {
            let view = self.past().view(branch, revision).expect("it is kept");
            assert_eq!(contents(&view), states_of(&expected), "{branch:?} at {revision}");
        }
        let view = self.past().view_of_keys(branch, revision).expect("it is kept");
        for _ in 0..6 {
            let key = self.key();
            let text = String::from_utf8_lossy(&key.1).into_owned();
            let expected = expected.get(&key).map(state_of);
            assert_eq!(key_of(&view, &key), expected, "{branch:?} {}:{text} at {revision}", key.0);
        }
    }

    /// Compares collections of a moment ago, made from what a branch has now.
    fn check_remade(&mut self) {
        let branch = self.any_branch();
        let revision = Revision(self.newest().0.saturating_sub(self.below(12)));
        let revision = revision.max(self.past().oldest());
        let Some(expected) = self.state(branch, revision) else { return };
        for key in expected.keys() {
            if let Some(found) = self.remade(branch, revision, key) {
                let text = String::from_utf8_lossy(&key.1).into_owned();
                let expected = state_of(&expected[key]);
                assert_eq!(found, expected, "{branch:?} {}:{text} at {revision} from now", key.0);
                self.remade_keys += 1;
            }
        }
    }

    /// A collection as it was, made from what the branch has now.
    fn remade(&self, branch: BranchId, revision: Revision, key: &Key) -> Option<State> {
        let live = self.live.get(&branch)?;
        // Before that it was another one's.
        if self.known.get(branch).is_some_and(|row| revision < row.forked) {
            return None;
        }
        let (db, name) = key;
        let present = live.copy_large(*db, name, 0)?;
        let found = self.past().key_from(branch, revision, *db, name, present, usize::MAX);
        found.expect("it is kept").map(|found| {
            let Stored { value, deadline, revision } = found;
            state_of(&Kept { value, deadline, revision })
        })
    }

    /// Compares what tags name, however old it is, but for what can only be read by
    /// means of a history that was not kept.
    pub fn check_tags(&mut self) {
        let tags: Vec<_> = self.known.tags().values().cloned().collect();
        for Tag { branch, revision, time_ms, .. } in tags {
            let state = self.base().directory_at(revision).expect("it can be read").revision;
            if revision < self.past().oldest() && state < revision {
                continue;
            }
            self.check_at(branch, revision);
            assert_eq!(self.past().time_of(revision).expect("it is kept"), time_ms);
        }
    }

    fn key(&mut self) -> Key {
        (self.below(DATABASES.into()) as DbIndex, random_key(&mut self.rng))
    }
}

/// One key, asked for by name: in haste, if that comes to anything.
fn key_of(keyspace: &Keyspace, (db, key): &Key) -> Option<State> {
    for _ in 0..100 {
        match keyspace.load_hastily(*db, key) {
            Err(error) if error.is_later() => std::thread::yield_now(),
            _ => break,
        }
    }
    look(keyspace, *db, &mut |txn| {
        txn.load(key);
        txn.check_backing().expect("it can be read");
        let info = txn.info(key)?;
        let mut body = dump::encode_body(txn.get(key)?);
        body.sort_unstable();
        Some((body, info.deadline, info.revision))
    })
}

/// Everything that a keyspace holds, whatever of it is in memory.
fn contents(keyspace: &Keyspace) -> BTreeMap<Key, State> {
    let mut found = BTreeMap::new();
    for db in 0..DATABASES {
        let mut keys = Vec::new();
        look(keyspace, db, &mut |txn| {
            let see = &mut |key: &[u8], _: ValueRef<'_>, _| keys.push((db, key.to_vec()));
            txn.visit_all(see).expect("it can be read");
            assert_eq!(keys.len(), txn.len(), "keys of database {db}");
        });
        for key in keys {
            let state = key_of(keyspace, &key).expect("just seen");
            found.insert(key, state);
        }
    }
    found
}

fn state_of(kept: &Kept) -> State {
    // Two orders of one set are one set.
    let mut body = dump::encode_body(kept.value.as_ref());
    body.sort_unstable();
    (body, kept.deadline, kept.revision)
}

fn states_of(snapshot: &Snapshot) -> BTreeMap<Key, State> {
    snapshot.iter().map(|(key, kept)| (key.clone(), state_of(kept))).collect()
}

fn snapshot(model: &Keyspace) -> Snapshot {
    let mut found = BTreeMap::new();
    for db in 0..DATABASES {
        look(model, db, &mut |txn| {
            let mut values = Vec::new();
            txn.visit_all(&mut |key, value, _| {
                values.push((key.to_vec(), value.to_value()));
            })
            .expect("it is in memory");
            for (key, value) in values {
                let info = txn.info(&key).expect("just seen");
                let (deadline, revision) = (info.deadline, info.revision);
                found.insert((db, key), Kept { value, deadline, revision });
            }
        });
    }
    Arc::new(found)
}

/// What is left when a record has removed what was due.
fn without_due(snapshot: &Snapshot, db: DbIndex, effects: &[u8]) -> Snapshot {
    let mut left: BTreeMap<Key, Kept> =
        snapshot.iter().map(|(k, it)| (k.clone(), it.copy())).collect();
    let mut at = (db, Vec::new());
    for effect in Effects::new(effects) {
        match effect.expect("just written") {
            Effect::Database(db) => at.0 = db,
            Effect::Key { key, .. } => at.1 = key.to_vec(),
            Effect::Delete(Cause::Expired) => assert!(left.remove(&at).is_some(), "it was there"),
            other => panic!("{other:?} is no removal of what was due"),
        }
    }
    Arc::new(left)
}

fn copy(snapshot: &Snapshot, seed: u64) -> Keyspace {
    let copied = Keyspace::new(DATABASES, seed);
    for ((db, key), kept) in &**snapshot {
        let (value, deadline) = (kept.value.as_ref().to_value(), kept.deadline);
        copied.give(*db, key, Stored { value, deadline, revision: kept.revision });
    }
    copied
}
