//! The entries of a batch, brought into the order of their keys: a keyspace
//! visits them in hash order only roughly.

use std::sync::mpsc;

use base::Revision;
use keyspace::{Change, ValueRef, dump};

use crate::base_tree::Batch;
use crate::codec;
use crate::elements::{self, Large, LargeFrom};
use crate::error::ArchiveError;
use crate::large::Pending;

/// Runs that may be ready before they are written.
const RUNS_AHEAD: usize = 2;

/// Fills runs like this one, which is empty, with a part each, and writes them in
/// the order of the parts, which must be that of their keys. In haste a thread
/// more works on it: then the next run is filled and sorted while one is written.
pub(crate) fn write_runs<P: Send>(
    mut run: SortedRun,
    parts: impl Iterator<Item = P> + Send,
    fill: &(dyn Fn(&mut SortedRun, P) + Sync),
    batch: &mut Batch<'_>,
    in_haste: bool,
) -> Result<(), ArchiveError> {
    if !in_haste {
        for part in parts {
            fill(&mut run, part);
            run.write(batch)?;
        }
        return Ok(());
    }
    let (ready, runs) = mpsc::sync_channel(RUNS_AHEAD);
    let (written, spent) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for part in parts {
                fill(&mut run, part);
                // Most databases have nothing in most shards.
                if run.entries.is_empty() {
                    continue;
                }
                run.sort();
                let empty = |_| SortedRun::new(run.born, run.large_from);
                let next = spent.try_recv().unwrap_or_else(empty);
                if ready.send(std::mem::replace(&mut run, next)).is_err() {
                    // A write has failed.
                    return;
                }
            }
        });
        for mut run in runs {
            run.put(batch)?;
            // What it allocated serves again, unless that was the last one.
            let _ = written.send(run);
        }
        Ok(())
    })
}

/// Entries of one shard.
pub(crate) struct SortedRun {
    /// The revision that the batch reaches.
    born: Revision,
    large_from: LargeFrom,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where an entry stands in `bytes`: its key, then its value.
struct Entry {
    key: usize,
    value: usize,
    end: usize,
}

impl SortedRun {
    pub(crate) fn new(born: Revision, large_from: LargeFrom) -> SortedRun {
        SortedRun { born, large_from, bytes: Vec::new(), entries: Vec::new() }
    }

    /// Adds what a key has become.
    pub(crate) fn add(&mut self, prefix: &[u8], hash: u64, key: &[u8], change: &Change<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(prefix);
        self.bytes.extend_from_slice(&codec::bucket_of(hash).to_be_bytes());
        codec::put_name(&mut self.bytes, key);
        let at = self.bytes.len();
        let out = &mut self.bytes;
        let (value, deadline, revision) = match *change {
            Change::Is { value, deadline, revision } => (value, deadline, revision),
            Change::Gone { revision } => {
                codec::put_gone(out, revision);
                return self.push(start, at);
            }
        };
        if let ValueRef::Str(string) = value {
            codec::put_string(out, key, revision, deadline, string);
            return self.push(start, at);
        }
        let LargeFrom { elements, bytes } = self.large_from;
        if value.element_count() <= elements {
            let body = dump::encode_body(value);
            if body.len() <= bytes || value.element_count() < 2 {
                codec::put_whole(out, key, revision, deadline, &body);
                return self.push(start, at);
            }
        }
        let large = Large::of(value, self.born).expect("it is no string");
        large.put_head(out, key, revision, deadline);
        self.push(start, at);
        let mut beginning = self.bytes[start..at].to_vec();
        elements::put_born(&mut beginning, self.born);
        elements::each(value, &mut |name, content| {
            self.add_element(&beginning, name, revision, Some(content));
        });
    }

    /// Adds what has become of a large collection that stays where it is.
    pub(crate) fn add_pending(&mut self, pending: &Pending) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&pending.head);
        let at = self.bytes.len();
        let Pending { key, deadline, revision, .. } = pending;
        let large = pending.large_born(self.born);
        large.put_head(&mut self.bytes, key, *revision, *deadline);
        self.push(start, at);
        let mut beginning = pending.head.clone();
        elements::put_born(&mut beginning, large.born);
        for (name, element) in &pending.elements {
            self.add_element(&beginning, name, element.revision, element.content.as_deref());
        }
    }

    fn add_element(
        &mut self,
        beginning: &[u8],
        name: &[u8],
        revision: Revision,
        content: Option<&[u8]>,
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(beginning);
        elements::put_name(&mut self.bytes, name);
        let at = self.bytes.len();
        elements::put_element(&mut self.bytes, name, revision, content);
        self.push(start, at);
    }

    fn push(&mut self, key: usize, value: usize) {
        self.entries.push(Entry { key, value, end: self.bytes.len() });
    }

    /// Brings them into their order.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        let key = |entry: &Entry| &bytes[entry.key..entry.value];
        self.entries.sort_unstable_by(|a, b| key(a).cmp(key(b)));
    }

    /// Writes them, in order, and is empty again.
    pub(crate) fn write(&mut self, batch: &mut Batch<'_>) -> Result<(), ArchiveError> {
        self.sort();
        self.put(batch)
    }

    /// Writes what is sorted, and is empty again.
    fn put(&mut self, batch: &mut Batch<'_>) -> Result<(), ArchiveError> {
        for Entry { key, value, end } in &self.entries {
            batch.put(&self.bytes[*key..*value], &self.bytes[*value..*end])?;
        }
        self.entries.clear();
        self.bytes.clear();
        Ok(())
    }
}
