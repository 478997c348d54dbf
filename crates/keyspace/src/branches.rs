//! Branches, tags and merges: which there are. Where their keys stand is not
//! said here.
//!
//! A *branch* is a line of revisions with a parent and a base revision, at
//! which it begins with what the parent had. `main` has neither and always
//! exists; it is not listed.

mod deleted;
mod gone;
mod merges;

use std::collections::BTreeMap;

use base::{BranchId, Revision, is_name, leb128};

use crate::effect::{Effect, Effects};
use crate::past_rules::Purge;
use gone::Life;
pub use merges::{Decision, Merged, OpenMerge, Settled, Verdict};

/// The name of the branch that always exists.
pub const MAIN: &[u8] = b"main";

/// What is known of a branch besides its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Never given to another.
    pub id: BranchId,
    /// Its name. Changes when it is renamed.
    pub name: Vec<u8>,
    /// Whose state it begins with.
    pub parent: BranchId,
    /// As of which revision. In the record that makes it 0 stands for that
    /// record's.
    pub base: Revision,
    /// The revision that gave it its databases.
    pub forked: Revision,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// The user who made it.
    pub created_by: Vec<u8>,
    /// When it is deleted by itself, in milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// Bytes that its changes may take in memory; 0 without limit.
    pub quota_bytes: u64,
    /// Nobody may write to it.
    pub is_readonly: bool,
    /// It cannot be deleted.
    pub is_kept: bool,
    /// It is written to by merges only.
    pub is_merge_only: bool,
    /// It is deleted, and can be brought back until then (milliseconds since
    /// 1970).
    pub undo_until_ms: Option<u64>,
}

/// A name for a revision of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Of which branch.
    pub branch: BranchId,
    /// Which revision.
    pub revision: Revision,
    /// When that revision was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who made the tag.
    pub created_by: Vec<u8>,
}

/// All branches but main, all tags, and what was merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branches {
    by_id: BTreeMap<BranchId, Branch>,
    /// Those that are gone and that others come from, see [`gone`].
    gone: BTreeMap<Life, Branch>,
    tags: BTreeMap<Vec<u8>, Tag>,
    /// The greatest id that was ever given.
    last: u32,
    /// Those that later ones begin with, oldest first.
    merged: Vec<Merged>,
    open: BTreeMap<u64, OpenMerge>,
    /// The greatest id that a merge was ever given.
    last_merge: u64,
}

/// What a record asks of whoever holds the keys of branches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The branch gets its databases, in the place of those that it had. They
    /// begin with what its parent has now, or had at `state` of the archive.
    Fork {
        /// It.
        branch: Branch,
        /// A state that the archive reached by itself; `None`: what the parent
        /// has right before this record.
        state: Option<Revision>,
    },
    /// The branch is gone, and its keys with it.
    Gone(BranchId),
    /// Something was named that is to stay readable as it is now.
    Tagged,
}

const READONLY: u64 = 1;
const KEPT: u64 = 2;
const MERGE_ONLY: u64 = 4;
/// Of rows in the archive only.
const GONE: u64 = 8;
/// Behind the flags stands until when it can be brought back.
const DELETED: u64 = 16;

impl Branch {
    /// One that begins with what its parent has when its record is made, without
    /// limits, that nobody has made at no time.
    #[must_use]
    pub fn new(id: BranchId, name: &[u8], parent: BranchId) -> Branch {
        Branch {
            id,
            name: name.to_vec(),
            parent,
            base: Revision::ZERO,
            forked: Revision::ZERO,
            created_ms: 0,
            created_by: Vec::new(),
            deadline_ms: None,
            quota_bytes: 0,
            is_readonly: false,
            is_kept: false,
            is_merge_only: false,
            undo_until_ms: None,
        }
    }

    /// The bytes that records and the archive keep of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(0)
    }

    fn encode_with(&self, more_flags: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let flags = [
            (self.is_readonly, READONLY),
            (self.is_kept, KEPT),
            (self.is_merge_only, MERGE_ONLY),
            (self.is_deleted(), DELETED),
        ];
        let flags: u64 = flags.iter().filter(|(is, _)| *is).map(|(_, bit)| bit).sum();
        let flags = flags | more_flags;
        let deadline = self.deadline_ms.map_or(0, |at| at.saturating_add(1));
        for number in [
            u64::from(self.id.0),
            u64::from(self.parent.0),
            self.base.0,
            self.created_ms,
            deadline,
            self.quota_bytes,
            flags,
        ] {
            leb128::put(&mut out, number);
        }
        self.undo_until_ms.iter().for_each(|&until_ms| leb128::put(&mut out, until_ms));
        put_bytes(&mut out, &self.name);
        put_bytes(&mut out, &self.created_by);
        out
    }

    /// Reads [`Branch::encode`], which need not be trusted; `forked` is not in
    /// it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(mut bytes: &[u8]) -> Result<Branch, &'static str> {
        match Branch::take(&mut bytes)? {
            (_, true) => Err("a branch that is gone is made"),
            (branch, false) if bytes.is_empty() => Ok(branch),
            _ => Err("bytes after a branch's end"),
        }
    }

    /// It, and whether it is gone.
    fn take(bytes: &mut &[u8]) -> Result<(Branch, bool), &'static str> {
        let mut numbers = [0; 7];
        for number in &mut numbers {
            *number = leb128::take(bytes)?;
        }
        let [id, parent, base, created_ms, deadline, quota_bytes, flags] = numbers;
        if flags >= DELETED * 2 {
            return Err("a branch has unknown flags");
        }
        let (id, parent) = (branch_id(id)?, branch_id(parent)?);
        if id == BranchId::MAIN || parent >= id {
            return Err("a branch's number does not fit its parent's");
        }
        let is_deleted = flags & DELETED != 0;
        let branch = Branch {
            undo_until_ms: is_deleted.then(|| leb128::take(bytes)).transpose()?,
            id,
            parent,
            base: Revision(base),
            forked: Revision::ZERO,
            created_ms,
            deadline_ms: deadline.checked_sub(1),
            quota_bytes,
            is_readonly: flags & READONLY != 0,
            is_kept: flags & KEPT != 0,
            is_merge_only: flags & MERGE_ONLY != 0,
            name: take_name(bytes)?.to_vec(),
            created_by: take_bytes(bytes)?.to_vec(),
        };
        Ok((branch, flags & GONE != 0))
    }
}

impl Branches {
    /// A branch by its id; `None` for main as well.
    #[must_use]
    pub fn get(&self, id: BranchId) -> Option<&Branch> {
        self.by_id.get(&id)
    }

    /// The id of a name, main's included; no deleted branch has one.
    #[must_use]
    pub fn named(&self, name: &[u8]) -> Option<BranchId> {
        if name == MAIN {
            return Some(BranchId::MAIN);
        }
        let has_it = |branch: &&Branch| branch.name == name && !branch.is_deleted();
        self.by_id.values().find(has_it).map(|branch| branch.id)
    }

    /// The name of a branch that exists, if only to be brought back.
    #[must_use]
    pub fn name_of(&self, id: BranchId) -> Option<&[u8]> {
        if id == BranchId::MAIN { Some(MAIN) } else { Some(&self.get(id)?.name) }
    }

    /// All of them, oldest first, deleted ones that can be brought back among them.
    pub fn iter(&self) -> impl Iterator<Item = &Branch> {
        self.by_id.values()
    }

    /// The tags, by name, those of deleted branches among them.
    #[must_use]
    pub fn tags(&self) -> &BTreeMap<Vec<u8>, Tag> {
        &self.tags
    }

    /// Branches that begin with what `id` had.
    pub fn children(&self, id: BranchId) -> impl Iterator<Item = &Branch> {
        self.by_id.values().filter(move |branch| branch.parent == id)
    }

    /// Merges that were made, oldest first, as far as later ones need to know:
    /// the last one of a branch into another, and those before it that a third
    /// has taken over.
    #[must_use]
    pub fn merged(&self) -> &[Merged] {
        &self.merged
    }

    /// Merges that wait for decisions, by id.
    #[must_use]
    pub fn open_merges(&self) -> &BTreeMap<u64, OpenMerge> {
        &self.open
    }

    /// Forgets what was decided, in merges that wait, about keys that are erased on a
    /// branch; answers whether there was any.
    pub fn forget_decisions(&mut self, branch: BranchId, purge: &Purge) -> bool {
        let mut is_changed = false;
        for open in self.open.values_mut() {
            if let Some(left) = open.without(branch, purge) {
                (*open, is_changed) = (left, true);
            }
        }
        is_changed
    }

    /// All of it but the merges that wait, whose decisions may be many.
    #[must_use]
    pub fn without_open_merges(&self) -> Branches {
        Branches {
            by_id: self.by_id.clone(),
            gone: self.gone.clone(),
            tags: self.tags.clone(),
            last: self.last,
            merged: self.merged.clone(),
            open: BTreeMap::new(),
            last_merge: self.last_merge,
        }
    }

    /// The id that the next merge gets.
    #[must_use]
    pub fn next_merge(&self) -> u64 {
        self.last_merge + 1
    }

    /// States that stay readable: those that tags name, those that branches
    /// begin with and those that merges will begin with.
    pub fn pins(&self) -> impl Iterator<Item = Revision> {
        let tags = self.tags.values().map(|tag| tag.revision);
        let forks = self.by_id.values().map(|branch| branch.forked);
        let merged = self.merged.iter().filter(|it| self.is_there(it.from, it.revision));
        tags.chain(forks).chain(merged.map(|merged| merged.revision))
    }

    fn note_merged(&mut self, mut merged: Merged) {
        let (from, into, until) = (merged.from, merged.into, merged.revision);
        // Who took or began with what was there between the two knows only the
        // old one.
        let is_used = |old: &Merged| {
            let is_between = |at: Revision| old.revision <= at && at < until;
            self.by_id.values().any(|made| made.parent == into && is_between(made.base))
                || self.merged.iter().any(|it| it.from == into && is_between(it.revision))
        };
        let is_over = |old: &Merged| {
            (old.from, old.into) == (from, into)
                && (merged.pattern.is_none() || merged.pattern == old.pattern)
                && !is_used(old)
        };
        let over: Vec<bool> = self.merged.iter().map(is_over).collect();
        let stood_for = self.merged.iter().zip(&over).filter(|(_, is_over)| **is_over);
        let since = stood_for.map(|(old, _)| old.since).min();
        merged.since = since.unwrap_or(until);
        merged.kept = Vec::new();
        let mut over = over.into_iter();
        self.merged.retain(|_| over.next() == Some(false));
        self.open.remove(&merged.ends);
        self.merged.push(merged);
    }

    /// Whether there is such a branch, or one that was deleted and can come back:
    /// another one can be made of it.
    #[must_use]
    pub fn has(&self, branch: BranchId) -> bool {
        branch == BranchId::MAIN || self.by_id.contains_key(&branch)
    }

    /// The id that the next branch gets.
    #[must_use]
    pub fn next_id(&self) -> BranchId {
        BranchId(self.last + 1)
    }

    /// Takes in what the record of `revision`, made at `time_ms`, says of
    /// branches and tags, and answers what else is to be done for it. A record
    /// says one thing of them at most.
    ///
    /// # Errors
    /// When it does not fit what there is.
    pub fn apply(
        &mut self,
        revision: Revision,
        time_ms: u64,
        effects: &[u8],
    ) -> Result<Option<Turn>, &'static str> {
        let mut user: &[u8] = b"";
        for effect in Effects::new(effects) {
            match effect.map_err(|error| error.what)? {
                Effect::Origin { user: by, .. } => user = by,
                Effect::Branch { row } => {
                    self.change(Branch::decode(row)?)?;
                    return Ok(None);
                }
                Effect::Fork { row, state } => {
                    let mut branch = Branch { forked: revision, ..Branch::decode(row)? };
                    if branch.base == Revision::ZERO && state.is_none() {
                        branch.base = revision;
                    }
                    if !self.has(branch.parent) {
                        return Err("there is no such parent");
                    }
                    if let Some(was) = self.by_id.get(&branch.id).cloned() {
                        self.is_over(was);
                    }
                    self.last = self.last.max(branch.id.0);
                    self.by_id.insert(branch.id, branch.clone());
                    return Ok(Some(Turn::Fork { branch, state }));
                }
                Effect::BranchGone { branch } => {
                    let row = self.by_id.remove(&branch).ok_or("there is no such branch")?;
                    self.tags.retain(|_, tag| tag.branch != branch);
                    self.is_over(row);
                    return Ok(Some(Turn::Gone(branch)));
                }
                Effect::Tag { name, branch, revision: tagged, time_ms: tagged_ms } => {
                    // The empty database is told from the present by having a time.
                    let (revision, time_ms) = match (tagged, tagged_ms) {
                        (Revision::ZERO, 0) => (revision, time_ms),
                        (Revision::ZERO, _) => (Revision::ZERO, 0),
                        (_, 0) => (tagged, time_ms),
                        _ => (tagged, tagged_ms),
                    };
                    let tag = Tag { branch, revision, time_ms, created_by: user.to_vec() };
                    self.tags.insert(name.to_vec(), tag);
                    self.forget_needless();
                    return Ok(Some(Turn::Tagged));
                }
                Effect::TagGone { name } => {
                    self.tags.remove(name).ok_or("there is no such tag")?;
                    self.forget_needless();
                    return Ok(None);
                }
                Effect::Merged { row } => {
                    let merged = Merged::decode(row)?;
                    self.both_exist(merged.from, merged.into)?;
                    self.note_merged(Merged { revision, ..merged });
                    return Ok(Some(Turn::Tagged));
                }
                Effect::MergeOpen { row } => {
                    let open = OpenMerge { changed: revision, ..OpenMerge::decode(row)? };
                    self.both_exist(open.from, open.into)?;
                    self.last_merge = self.last_merge.max(open.id);
                    self.open.insert(open.id, open);
                    return Ok(None);
                }
                Effect::MergeSettled { row } => {
                    let Decision { merge, from, into, db, key, settled } = Decision::decode(row)?;
                    let open = self.open.get_mut(&merge).ok_or("there is no such merge")?;
                    if (open.from, open.into) != (from, into) {
                        return Err("a decision about a merge of other branches");
                    }
                    open.settled.insert((db, key), settled);
                    open.changed = revision;
                    return Ok(None);
                }
                Effect::MergeGone { id } => {
                    // Of one that failed nothing but its number is known.
                    if self.open.remove(&id).is_none() && id <= self.last_merge {
                        return Err("there is no such merge");
                    }
                    self.last_merge = self.last_merge.max(id);
                    return Ok(None);
                }
                // What comes behind is about keys.
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn both_exist(&self, a: BranchId, b: BranchId) -> Result<(), &'static str> {
        let now = Revision(u64::MAX);
        if self.is_there(a, now) && self.is_there(b, now) {
            Ok(())
        } else {
            Err("a merge of a branch that is not there")
        }
    }

    /// Appends the bytes that the archive keeps of all of it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        leb128::put(out, u64::from(self.last));
        leb128::put(out, (self.by_id.len() + self.gone.len()) as u64);
        let there = self.by_id.values().map(|row| (row, 0));
        for (branch, flags) in there.chain(self.gone.values().map(|row| (row, GONE))) {
            leb128::put(out, branch.forked.0);
            out.extend_from_slice(&branch.encode_with(flags));
        }
        leb128::put(out, self.tags.len() as u64);
        for (name, tag) in &self.tags {
            put_bytes(out, name);
            for number in [u64::from(tag.branch.0), tag.revision.0, tag.time_ms] {
                leb128::put(out, number);
            }
            put_bytes(out, &tag.created_by);
        }
        leb128::put(out, self.last_merge);
        leb128::put(out, self.merged.len() as u64);
        self.merged.iter().for_each(|merged| put_bytes(out, &merged.encode()));
        leb128::put(out, self.open.len() as u64);
        self.open.values().for_each(|open| put_bytes(out, &open.encode()));
    }

    /// Takes what [`Branches::encode`] wrote off the front.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(bytes: &mut &[u8]) -> Result<Branches, &'static str> {
        let BranchId(last) = branch_id(leb128::take(bytes)?)?;
        let (mut by_id, mut gone) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..leb128::take(bytes)? {
            let forked = Revision(leb128::take(bytes)?);
            let (branch, is_gone) = Branch::take(bytes)?;
            let branch = Branch { forked, ..branch };
            if branch.id.0 > last {
                return Err("a branch's number was never given");
            }
            if is_gone {
                gone.insert((branch.id, forked), branch);
            } else {
                by_id.insert(branch.id, branch);
            }
        }
        let mut tags = BTreeMap::new();
        for _ in 0..leb128::take(bytes)? {
            let name = take_name(bytes)?.to_vec();
            let branch = branch_id(leb128::take(bytes)?)?;
            let (revision, time_ms) = (Revision(leb128::take(bytes)?), leb128::take(bytes)?);
            let created_by = take_bytes(bytes)?.to_vec();
            tags.insert(name, Tag { branch, revision, time_ms, created_by });
        }
        let last_merge = leb128::take(bytes)?;
        let mut merged = Vec::new();
        for _ in 0..leb128::take(bytes)? {
            merged.push(Merged::decode(take_bytes(bytes)?)?);
        }
        let mut open = BTreeMap::new();
        for _ in 0..leb128::take(bytes)? {
            let row = OpenMerge::decode(take_bytes(bytes)?)?;
            if row.id > last_merge {
                return Err("a merge's number was never given");
            }
            open.insert(row.id, row);
        }
        Ok(Branches { by_id, gone, tags, last, merged, open, last_merge })
    }
}

fn branch_id(number: u64) -> Result<BranchId, &'static str> {
    u32::try_from(number).map(BranchId).map_err(|_| "a branch's number is too great")
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    leb128::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let len = usize::try_from(leb128::take(bytes)?).map_err(|_| "it ends early")?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or("it ends early")?;
    *bytes = rest;
    Ok(taken)
}

fn take_name<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    take_bytes(bytes).and_then(|name| if is_name(name) { Ok(name) } else { Err("it is no name") })
}

#[cfg(test)]
mod tests;
