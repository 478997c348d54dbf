//! Room on the log's disk. When it runs short, writes are refused while there is
//! still some: the archive needs it to take over what is in the log, which then
//! can be shortened.

use std::sync::atomic::{AtomicU64, Ordering};

use command::Error;

use crate::engine::Engine;

/// What was seen of the disk last.
#[derive(Debug, Default)]
pub(crate) struct Room {
    free_bytes: AtomicU64,
    /// Writes are taken from so many on.
    bound_bytes: AtomicU64,
}

impl Engine {
    /// Takes note of how many bytes are free on the log's disk and how many there
    /// have to be for writes to be taken.
    pub fn note_room(&self, free_bytes: u64, bound_bytes: u64) {
        self.room.free_bytes.store(free_bytes, Ordering::Relaxed);
        self.room.bound_bytes.store(bound_bytes, Ordering::Relaxed);
    }

    /// Refuses a write, of whatever kind, while there is too little room: a record
    /// that removes something takes some as well.
    pub(crate) fn admit_room(&self) -> command::Result {
        let bound = self.room.bound_bytes.load(Ordering::Relaxed);
        let free = self.room.free_bytes.load(Ordering::Relaxed);
        if free >= bound {
            return Ok(());
        }
        Err(Error::new(format!(
            "NOSPACE {free} of {bound} bytes are free on the log's disk; make room, and writes are taken again by \
             themselves, or lower storage.min_free_disk"
        )))
    }

    /// Lines for `INFO persistence`.
    pub(crate) fn room_info(&self) -> [(&'static str, String); 2] {
        let bytes = |of: &AtomicU64| of.load(Ordering::Relaxed).to_string();
        [
            ("log_disk_free_bytes", bytes(&self.room.free_bytes)),
            ("log_disk_free_bytes_min", bytes(&self.room.bound_bytes)),
        ]
    }

    /// Takes writes again after the disk was full, if there is room, and lets the
    /// archive try again.
    ///
    /// # Errors
    /// Why it is not possible.
    pub fn take_up(&self) -> Result<(), String> {
        self.replicator.resume()?;
        self.archive().iter().for_each(|archive| archive.retry());
        Ok(())
    }
}
