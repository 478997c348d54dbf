//! What is left of the past at a start, when files were lost or removed.

use std::path::Path;
use std::sync::Arc;

use base::Revision;
use log::{Log, RealVfs, SegmentInfo};

use super::error::PastError;
use super::horizon::{self, HORIZON};
use crate::base_tree::Base;
use crate::history::History;

/// The oldest revision from which on every state can be read: the one that the
/// folder of the history says, or a later state of the base where the log has no
/// longer all that came after that. Less than there was is told. `is_broken` says
/// that the log was cut short before the base's revision.
///
/// # Errors
/// When folder or base cannot be read.
pub(super) fn oldest(
    log: &Log,
    base: &Base,
    dir: &Path,
    is_broken: bool,
) -> Result<Revision, PastError> {
    let newest = base.revision();
    let Some(said) = horizon::read(&HORIZON, &RealVfs, dir, log.id()) else {
        if newest > Revision::ZERO {
            tracing::warn!(
                "there is no {}, which says from where on the past can be read: it begins with revision {newest} now. \
                 That is as it should be where no history was kept until now",
                dir.join(HORIZON.name).display()
            );
        }
        return Ok(newest);
    };
    let segments = log.segments();
    let vfs = Arc::new(RealVfs);
    let missing = History::missing_segments(vfs, dir, log.id(), &segments, newest)?;
    let whole_from = match is_broken {
        true => newest,
        false => said.max(gap_end(log, &segments, &missing)).min(newest),
    };
    let oldest = match base.state_at(said)? == said {
        true => oldest_state(base, whole_from)?,
        false => newest,
    };
    if oldest > said {
        let names = missing.iter().map(|first| SegmentInfo::name_of(*first));
        let names = names.collect::<Vec<_>>().join(", ");
        let lacking = if names.is_empty() { names } else { format!(" ({names} is not there)") };
        tracing::warn!(
            "revisions {} to {} cannot be read any more from the log in {}{lacking}: the past begins with revision \
             {oldest} now; only a backup has what was before",
            said.next(),
            whole_from.max(said.next()),
            log.dir().display()
        );
    }
    Ok(oldest)
}

/// The revision behind which the log has no gap.
fn gap_end(log: &Log, segments: &[SegmentInfo], missing: &[Revision]) -> Revision {
    let is_behind = |segment: &&SegmentInfo| missing.last().is_none_or(|gap| segment.first > *gap);
    let begins = segments.iter().find(is_behind).map_or(log.buffered().next(), |it| it.first);
    let gaps = segments.windows(2).filter(|pair| pair[1].first != pair[0].last.next());
    let begins = gaps.map(|pair| pair[1].first).chain([begins, log.unbroken_from()]).max();
    Revision(begins.map_or(0, |begins| begins.0 - 1))
}

/// The oldest state of the base at or after `from`, which is not after its newest.
fn oldest_state(base: &Base, from: Revision) -> Result<Revision, PastError> {
    let mut oldest = base.revision();
    while oldest > from {
        let before = base.state_at(Revision(oldest.0 - 1))?;
        if before < from {
            break;
        }
        oldest = before;
    }
    Ok(oldest)
}
