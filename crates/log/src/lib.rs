//! The log: every transaction's effects, in order, durable.
//!
//! Segment files of length-prefixed, checksummed blocks; one writer thread with
//! group commit; recovery that tells a torn tail from damage. `docs/FORMAT.md`
//! describes every byte. Everything goes through [`Vfs`], so tests own the disk.

mod block;
mod check;
mod copy;
mod error;
mod faulty_vfs;
mod format;
mod identity;
mod log;
mod mem_vfs;
mod parts;
mod queue;
mod reader;
mod real_vfs;
mod recovery;
mod rewrite;
mod salvage;
mod segments;
mod shared;
mod tap;
mod times;
mod vfs;
mod whole;
mod writer;

pub use block::{Block, Place};
pub use check::{CheckReport, Finding, check, repair};
pub use copy::{SegmentCopy, create_from, read_copy};
pub use error::{LogError, LogFault};
pub use faulty_vfs::{Fault, FaultyVfs};
pub use format::{Compression, DatabaseId, Record, RecordHeader};
pub use identity::{NAME as MANIFEST, database_id, new_id};
pub use log::{FsyncPolicy, Log, LogOptions, LogStats};
pub use mem_vfs::MemVfs;
pub use reader::{LogReader, Waker};
pub use real_vfs::RealVfs;
pub use recovery::{Dropped, RecoveryReport};
pub use rewrite::Rewritten;
pub use salvage::Unneeded;
pub use segments::{Hold, SegmentInfo};
pub use tap::{Concern, Tap, Written};
pub use vfs::{Vfs, VfsFile, VfsLock, VfsRead};
