//! What WHATIF answers.

use base::{DbIndex, Frame, Reply, Revision, Tape};
use keyspace::{KeyInfo, Txn, ValueRef};

use crate::history::whole;

/// What is to be told of the keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Their values before and after.
    pub(crate) values: bool,
    /// How many keys.
    pub(crate) count: usize,
}

/// A key as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version<'v> {
    pub(crate) value: ValueRef<'v>,
    pub(crate) deadline: Option<u64>,
    /// What it takes in memory.
    pub(crate) bytes: usize,
}

impl<'v> Version<'v> {
    /// A key; `None` when there is none.
    pub(crate) fn of(txn: &'v Txn<'_>, db: DbIndex, key: &[u8]) -> Option<Version<'v>> {
        txn.look_closely(db, key).map(Version::from)
    }
}

impl<'v> From<(ValueRef<'v>, KeyInfo)> for Version<'v> {
    fn from((value, info): (ValueRef<'v>, KeyInfo)) -> Version<'v> {
        Version { value, deadline: info.deadline, bytes: info.memory_bytes }
    }
}

/// What is told of one key.
#[derive(Debug)]
struct Row {
    /// The branch that comes back with it.
    branch: Option<Vec<u8>>,
    db: DbIndex,
    key: Vec<u8>,
    change: &'static str,
    values: Option<Box<[Frame; 2]>>,
}

/// What becomes of keys, told one by one.
#[derive(Debug)]
pub(crate) struct Report {
    asked: Asked,
    /// The client's database: keys of others are listed with theirs.
    home: DbIndex,
    rows: Vec<Row>,
    pub(crate) total: u64,
    pub(crate) bytes_before: u64,
    bytes_after: u64,
    /// The revision that the command is tried on.
    pub(crate) revision: Revision,
    /// Clients that would get a keyspace event.
    pub(crate) listeners: usize,
}

impl Report {
    pub(crate) fn new(asked: Asked, home: DbIndex) -> Report {
        Report {
            asked,
            home,
            rows: Vec::new(),
            total: 0,
            bytes_before: 0,
            bytes_after: 0,
            revision: Revision::ZERO,
            listeners: 0,
        }
    }

    /// As [`Report::new`], about a revision.
    pub(crate) fn about(asked: Asked, home: DbIndex, revision: Revision) -> Report {
        Report { revision, ..Report::new(asked, home) }
    }

    /// Begins anew, about a revision.
    pub(crate) fn begin(&mut self, revision: Revision) {
        *self = Report::about(self.asked, self.home, revision);
    }

    /// Adds a key, unless both are the same.
    pub(crate) fn note(
        &mut self,
        db: DbIndex,
        key: &[u8],
        old: Option<Version<'_>>,
        new: Option<Version<'_>>,
    ) {
        let bytes = |version: Option<Version<'_>>| version.map_or(0, |v| v.bytes as u64);
        self.bytes_before += bytes(old);
        self.bytes_after += bytes(new);
        let change = match (old, new) {
            (None, None) => return,
            (None, Some(_)) => "added",
            (Some(_), None) => "removed",
            (Some(old), Some(new)) if !old.value.is_same(new.value) => "changed",
            (Some(old), Some(new)) if old.deadline != new.deadline => "ttl",
            _ => return,
        };
        self.total += 1;
        let frame = |version: Option<Version<'_>>| version.map_or(Frame::Null, |v| whole(v.value));
        if self.room() > 0 {
            let values = self.asked.values.then(|| [frame(old), frame(new)]);
            self.list(db, key, change, values);
        }
    }

    /// The client's database.
    pub(crate) fn home(&self) -> DbIndex {
        self.home
    }

    /// Whether rows are to have values.
    pub(crate) fn has_values(&self) -> bool {
        self.asked.values
    }

    /// How many more rows it takes.
    pub(crate) fn room(&self) -> usize {
        self.asked.count - self.rows.len()
    }

    /// Adds a row.
    pub(crate) fn list(
        &mut self,
        db: DbIndex,
        key: &[u8],
        change: &'static str,
        values: Option<[Frame; 2]>,
    ) {
        let (key, values) = (key.to_vec(), values.map(Box::new));
        self.rows.push(Row { branch: None, db, key, change, values });
    }

    /// Adds a row about a key of a branch that comes back; `value` is there if rows
    /// are to have values.
    pub(crate) fn list_back(
        &mut self,
        branch: &[u8],
        db: DbIndex,
        key: Vec<u8>,
        value: Option<Frame>,
    ) {
        let values = value.map(|value| Box::new([Frame::Null, value]));
        self.rows.push(Row { branch: Some(branch.to_vec()), db, key, change: "added", values });
    }

    /// Answers, with the reply of the command itself.
    pub(crate) fn write(&self, own: impl Into<Tape>, reply: &mut dyn Reply) {
        let number = |value: u64| Frame::Integer(i64::try_from(value).unwrap_or(i64::MAX));
        reply.map(8);
        reply.bulk(b"reply");
        own.into().play(reply);
        reply.bulk(b"rev");
        reply.frame(&number(self.revision.0));
        reply.bulk(b"keys");
        reply.array(self.rows.len());
        for Row { branch, db, key, change, values } in &self.rows {
            let is_elsewhere = *db != self.home || branch.is_some();
            let db = is_elsewhere.then(|| Frame::Integer(i64::from(*db)));
            let branch = branch.as_ref().map(Frame::bulk);
            let values = values.iter().flat_map(|values| values.iter());
            let more = values.chain(&db).chain(&branch);
            reply.array(2 + more.clone().count());
            reply.bulk(key);
            reply.bulk(change.as_bytes());
            more.for_each(|frame| reply.frame(frame));
        }
        reply.bulk(b"keys_total");
        reply.frame(&number(self.total));
        reply.bulk(b"bytes_freed");
        reply.frame(&number(self.bytes_before.saturating_sub(self.bytes_after)));
        // There is no command yet that makes a hook.
        reply.bulk(b"hooks");
        reply.array(0);
        reply.bulk(b"subscribers");
        reply.count(self.listeners);
        reply.bulk(b"truncated");
        reply.boolean(self.total > self.rows.len() as u64);
    }
}
