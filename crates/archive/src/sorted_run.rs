//! The entries of a batch, brought into the order of their keys: a keyspace
//! visits them in hash order only roughly.

use base::Revision;
use keyspace::{Change, ValueRef, dump};

use crate::base_tree::Batch;
use crate::codec;
use crate::elements::{self, Large, LargeFrom};
use crate::error::ArchiveError;
use crate::large::Pending;

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
        let Pending { key, large, deadline, revision, .. } = pending;
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

    /// Writes them, in order, and is empty again.
    pub(crate) fn write(&mut self, batch: &mut Batch<'_>) -> Result<(), ArchiveError> {
        let bytes = &self.bytes;
        let key = |entry: &Entry| &bytes[entry.key..entry.value];
        self.entries.sort_unstable_by(|a, b| key(a).cmp(key(b)));
        for entry in &self.entries {
            batch.put(key(entry), &bytes[entry.value..entry.end])?;
        }
        self.entries.clear();
        self.bytes.clear();
        Ok(())
    }
}
