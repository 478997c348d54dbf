//! Bringing the base to the end of the log at once, before anybody serves.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use base::{DbIndex, Revision};
use keyspace::EncodingLimits;
use log::LogReader;

use crate::backing::BaseBacking;
use crate::base_tree::Base;
use crate::delta::Delta;
use crate::error::ArchiveError;
use crate::follower::Pace;
use crate::waiting::Waiting;

/// Longest wait for a record that is known to be there.
const WAIT: Duration = Duration::from_secs(2);

/// Reads `reader`, which stands right after the base's revision, up to `upto`,
/// and writes all of it to the base. A branch whose first revision the base
/// has not reached cannot be replayed: what its parent had then may be
/// overwritten in memory by the time that it is asked for.
///
/// # Errors
/// When log or base cannot be read, or the base not be written.
pub fn catch_up(
    base: &Arc<Base>,
    mut reader: LogReader,
    upto: Revision,
    databases: DbIndex,
    limits: EncodingLimits,
) -> Result<(), ArchiveError> {
    let pace = Pace::default();
    let backing = BaseBacking::new(base.clone(), limits);
    let mut delta = Delta::new(base.clone(), backing, limits, databases, Waiting::default());
    while delta.revision() < upto {
        let mut failed = Ok(());
        let read = reader.read(WAIT, &mut |record, _| {
            failed = delta.add(&record).and_then(|is_state| {
                let is_much = delta.log_bytes() >= pace.log_bytes
                    || delta.memory_bytes() >= pace.memory_bytes;
                if is_state || is_much { delta.write(true).map(drop) } else { Ok(()) }
            });
            if failed.is_ok() && delta.revision() < upto {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        failed?;
        if read == 0 && delta.revision() < upto {
            return Err(ArchiveError::Behind { dir: base.dir().to_owned(), asked: upto });
        }
    }
    if delta.is_empty() { Ok(()) } else { delta.write(true).map(drop) }
}
