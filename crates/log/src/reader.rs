//! Following a log from any revision.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Revision;

use crate::error::LogError;
use crate::format::{
    self, BLOCK_HEADER_BYTES, DatabaseId, Place, RecordHeader, SEGMENT_HEADER_BYTES, segment_name,
    u32_at,
};
use crate::log::Shared;
use crate::vfs::{Vfs, at};

/// One transaction, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its position.
    pub revision: Revision,
    /// When and where.
    pub header: RecordHeader,
    /// Its effects.
    pub effects: Vec<u8>,
}

/// Reads committed transactions in order and waits for new ones.
#[derive(Debug)]
pub struct LogReader {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    id: DatabaseId,
    shared: Arc<Shared>,
    next: Revision,
    /// The segment being read and the offset of the next block there.
    position: Option<(Revision, u64)>,
    /// Records of the last block, last first.
    block: Vec<OwnedRecord>,
}

impl LogReader {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        id: DatabaseId,
        shared: Arc<Shared>,
        from: Revision,
    ) -> LogReader {
        let next = from.max(Revision(1));
        LogReader {
            vfs,
            dir: dir.to_path_buf(),
            id,
            shared,
            next,
            position: None,
            block: Vec::new(),
        }
    }

    /// The next transaction if it is committed.
    ///
    /// # Errors
    /// When a segment cannot be read or is damaged.
    pub fn try_next(&mut self) -> Result<Option<OwnedRecord>, LogError> {
        loop {
            if let Some(record) = self.block.pop() {
                if record.revision < self.next {
                    continue;
                }
                self.next = record.revision.next();
                return Ok(Some(record));
            }
            if self.shared.readable() < self.next {
                return Ok(None);
            }
            self.read_block()?;
        }
    }

    /// The next transaction, waiting for it at most so long.
    ///
    /// # Errors
    /// As [`LogReader::try_next`].
    pub fn next(&mut self, timeout: Duration) -> Result<Option<OwnedRecord>, LogError> {
        if let Some(record) = self.try_next()? {
            return Ok(Some(record));
        }
        self.shared.wait_for_progress(timeout);
        self.try_next()
    }

    fn read_block(&mut self) -> Result<(), LogError> {
        let (segment, offset) = match self.position {
            Some(position) => position,
            None => {
                let (here, _) = self.shared.segment_of(self.next);
                let segment = here.ok_or_else(|| LogError::MissingSegment {
                    dir: self.dir.clone(),
                    revision: self.next,
                    found: "only later ones".to_owned(),
                })?;
                (segment, SEGMENT_HEADER_BYTES as u64)
            }
        };
        let path = at(&self.dir, &segment_name(segment));
        let read =
            |offset, len| self.vfs.read_at(&path, offset, len).map_err(LogError::io("read", &path));
        let header = read(offset, BLOCK_HEADER_BYTES)?;
        if header.len() < BLOCK_HEADER_BYTES {
            // The segment ends here; what is committed goes on in the next.
            let (_, after) = self.shared.segment_of(segment);
            let after = after.ok_or_else(|| LogError::Damaged {
                path: path.clone(),
                offset,
                what: format!("it ends before revision {}, which was committed", self.next),
            })?;
            self.position = Some((after, SEGMENT_HEADER_BYTES as u64));
            return Ok(());
        }
        let len = u32_at(&header, 0) as usize;
        let mut block = header;
        block.extend(read(offset + BLOCK_HEADER_BYTES as u64, len)?);
        // The block as a segment of its own: its place is part of its checksum.
        let place = Place { id: self.id, segment, offset };
        let damaged = |what: String| LogError::Damaged { path: path.clone(), offset, what };
        let (header, stored) = format::block_from(&block, &place)
            .map_err(|_| damaged("its checksum does not match".to_owned()))?;
        let mut buffer = Vec::new();
        let content = format::content(&header, stored, &mut buffer).map_err(damaged)?;
        for record in format::records(header.first, header.count, content) {
            let record = record.map_err(|what| LogError::Damaged {
                path: path.clone(),
                offset,
                what: what.to_owned(),
            })?;
            self.block.push(OwnedRecord {
                revision: record.revision,
                header: record.header,
                effects: record.effects.to_vec(),
            });
        }
        self.block.reverse();
        self.position = Some((segment, offset + BLOCK_HEADER_BYTES as u64 + u64::from(header.len)));
        Ok(())
    }
}
