//! Effects: physical changes to single elements. The private module `codec` has their bytes.
//!
//! A transaction's effects are one byte string: a sequence of operations, each
//! a tag byte and its operands. [`Effect::Database`] and [`Effect::Key`] set
//! the place that the following operations speak of, so a key that changes in
//! a hundred fields is written once. `docs/FORMAT.md` describes every byte.

mod codec;
mod marked;

use base::{BranchId, DbIndex, Revision, SpaceId};

use crate::past_rules::Keep;

pub use codec::{EffectError, Effects, put_counts, take_counts};
pub use marked::Marked;

/// Why a key went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client's command.
    Client,
    /// Its deadline passed.
    Expired,
    /// The memory limit.
    Evicted,
}

/// One physical change. Borrowed from the transaction's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "operands are named; what they do is on the variant")]
pub enum Effect<'a> {
    /// The following effects are in this database. The first database of a
    /// transaction stands in its record's header.
    Database(DbIndex),
    /// The following effects are on this key. `existed` says whether it did
    /// just before them, a key past its deadline but not yet removed included;
    /// format 1 did not tell.
    Key {
        key: &'a [u8],
        existed: Option<bool>,
    },
    /// The key is gone.
    Delete(Cause),
    /// The key is gone because the effect before took its last element.
    /// Format 1 did not tell.
    Emptied,
    /// The key is this string, whatever it was.
    StrSet {
        value: &'a [u8],
        deadline: Option<u64>,
    },
    /// The string's bytes from `offset` on are these; a gap is zeros.
    StrWrite {
        offset: u64,
        bytes: &'a [u8],
    },
    /// The string, a decimal integer (absent: 0), is greater by `delta`.
    StrAdd {
        delta: i64,
    },
    /// The key is this value, whatever it was: `dump`'s body.
    Put {
        body: &'a [u8],
        deadline: Option<u64>,
    },
    /// The key expires then, or never.
    Deadline(Option<u64>),
    /// The key's value, deadline included, is now at that key, and here no
    /// more. `replaces` says whether there was a key; format 1 did not tell.
    Rename {
        db: DbIndex,
        key: &'a [u8],
        replaces: Option<bool>,
    },
    HashSet {
        field: &'a [u8],
        value: &'a [u8],
    },
    HashDelete {
        field: &'a [u8],
    },
    /// The field, a decimal integer (absent: 0), is greater by `delta`.
    HashAdd {
        field: &'a [u8],
        delta: i64,
    },
    ListPushFront {
        value: &'a [u8],
    },
    ListPushBack {
        value: &'a [u8],
    },
    ListPopFront {
        count: u64,
    },
    ListPopBack {
        count: u64,
    },
    ListSet {
        index: u64,
        value: &'a [u8],
    },
    ListInsert {
        index: u64,
        value: &'a [u8],
    },
    ListRemove {
        index: u64,
    },
    SetAdd {
        member: &'a [u8],
    },
    SetRemove {
        member: &'a [u8],
    },
    ZsetSet {
        member: &'a [u8],
        score: f64,
    },
    ZsetRemove {
        member: &'a [u8],
    },
    /// Every key of the database is gone.
    Flush {
        db: DbIndex,
    },
    /// The two databases change places.
    Swap {
        a: DbIndex,
        b: DbIndex,
    },
    /// Who made the transaction: the command's name, the user's, the client's
    /// address. The first effect of its record, if it is there; it changes
    /// nothing.
    Origin {
        command: &'a [u8],
        user: &'a [u8],
        address: &'a [u8],
    },
    /// What is known of a branch is now this: [`crate::Branch::encode`].
    Branch {
        row: &'a [u8],
    },
    /// The same, and it begins anew, with what its parent has; or had at
    /// `state`, a state of the archive.
    Fork {
        row: &'a [u8],
        state: Option<Revision>,
    },
    /// The branch is gone.
    BranchGone {
        branch: BranchId,
    },
    /// The tag names this revision of that branch, whose time was `time_ms`. 0
    /// stands for those of this record.
    Tag {
        name: &'a [u8],
        branch: BranchId,
        revision: Revision,
        time_ms: u64,
    },
    /// The tag is gone.
    TagGone {
        name: &'a [u8],
    },
    /// So much of the past of the keys that the pattern matches is kept; this
    /// rule comes before all others. `oldest` could be read when it was made.
    KeepRule {
        glob: &'a [u8],
        keep: Keep,
        oldest: Revision,
    },
    /// There is no rule for this pattern any more.
    KeepRuleGone {
        glob: &'a [u8],
    },
    /// Nobody is to read what the key, or every key with this prefix, was
    /// before this transaction. What came before `oldest` could not be read
    /// anyway.
    Purge {
        db: DbIndex,
        key: &'a [u8],
        is_prefix: bool,
        oldest: Revision,
    },
    /// The key is gone, if it was there. What it was may have been taken out of
    /// the records before.
    Erase,
    /// Stands in the place of effects on a key that were erased.
    Erased,
    /// What comes after it takes away so many keys of so many bytes, and can be
    /// taken back until then (milliseconds since 1970): a flush, or so many
    /// deletions of single keys. Behind a branch's row it speaks of that branch.
    Undoable {
        keys: u64,
        bytes: u64,
        until_ms: u64,
    },
    /// This transaction takes back what that one took away.
    Undone {
        revision: Revision,
    },
    /// The flush after it leaves its keys in this space, where they stay as long
    /// as it can be taken back. How many each shard has: [`put_counts`].
    Leaves {
        space: SpaceId,
        keys: &'a [u8],
    },
    /// The database, which is empty, stands again in this space, as a flush left
    /// it.
    Return {
        db: DbIndex,
        space: SpaceId,
        keys: &'a [u8],
    },
    /// One branch has taken what another had: [`crate::Merged::encode`]. What
    /// it did for that comes behind.
    Merged {
        row: &'a [u8],
    },
    /// What is known of a merge that waits is now this:
    /// [`crate::OpenMerge::encode`].
    MergeOpen {
        row: &'a [u8],
    },
    /// About a key of a merge that waits is decided so: [`crate::Decision::encode`].
    MergeSettled {
        row: &'a [u8],
    },
    /// The merge waits no more, and nothing was merged.
    MergeGone {
        id: u64,
    },
}

impl Effect<'_> {
    /// Whether it does something to the key that the effects before it name.
    #[must_use]
    pub fn is_on_key(&self) -> bool {
        !self.is_about_branches()
            && !matches!(
                self,
                Effect::Database(_)
                    | Effect::Key { .. }
                    | Effect::Flush { .. }
                    | Effect::Swap { .. }
                    | Effect::Origin { .. }
                    | Effect::KeepRule { .. }
                    | Effect::KeepRuleGone { .. }
                    | Effect::Purge { .. }
                    | Effect::Erased
                    | Effect::Undoable { .. }
                    | Effect::Undone { .. }
                    | Effect::Leaves { .. }
                    | Effect::Return { .. }
            )
    }

    /// Whether it says something of branches, tags or merges, and nothing of keys.
    #[must_use]
    pub fn is_about_branches(&self) -> bool {
        matches!(
            self,
            Effect::Branch { .. }
                | Effect::Fork { .. }
                | Effect::BranchGone { .. }
                | Effect::Tag { .. }
                | Effect::TagGone { .. }
                | Effect::Merged { .. }
                | Effect::MergeOpen { .. }
                | Effect::MergeSettled { .. }
                | Effect::MergeGone { .. }
        )
    }
}
