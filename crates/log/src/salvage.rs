//! Damage in what an archive has: the log goes on without it.

use std::path::{Path, PathBuf};

use base::Revision;

use crate::check::{copy_aside, set_aside};
use crate::error::LogError;
use crate::format::{
    BLOCK_HEADER_BYTES, BlockPlace, VERSION, block_at, put_block_again, segment_header,
    segment_name,
};
use crate::identity::Manifest;
use crate::recovery::{Dropped, Walk, Whole};
use crate::vfs::{Vfs, at};

/// A damaged part of the log that holds nothing above the base. Nothing but
/// history is lost by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unneeded {
    /// The segment, which is kept as `<name>.damaged-<n>`.
    pub path: PathBuf,
    /// Where the damage begins.
    pub offset: u64,
    /// The first revision that cannot be read.
    pub first: Revision,
    /// The last one.
    pub last: Revision,
    /// What is wrong there.
    pub what: String,
}

/// What follows the damage in the segment that the base ends in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    pub(crate) segment: Revision,
    /// Where it begins and ends.
    pub(crate) offset: u64,
    pub(crate) end: u64,
    /// Its first revision.
    pub(crate) first: Revision,
}

/// Sets aside what is damaged and not needed, durably. What follows damage in a
/// segment becomes a segment of its own; that is in its place before the damaged
/// one goes, so that whenever the power fails, all that is needed is there.
/// Answers the names of what was set aside.
pub(crate) fn mend(
    vfs: &dyn Vfs,
    dir: &Path,
    manifest: &Manifest,
    walk: &mut Walk,
    now_ms: u64,
) -> Result<Vec<PathBuf>, LogError> {
    let mut gone: Vec<Revision> = walk.headless.clone();
    if let Some(rest) = walk.rest {
        let len = put_apart(vfs, dir, manifest, &rest, now_ms)?;
        gone.push(rest.segment);
        for whole in walk.segments.iter_mut().filter(|whole| whole.first == rest.segment) {
            *whole =
                Whole { first: rest.first, version: VERSION, len, begins_anew: true, ..*whole };
        }
    }
    let mut saved = Vec::new();
    for segment in gone {
        saved.push(set_aside(vfs, &at(dir, &segment_name(segment)))?);
    }
    if !saved.is_empty() {
        vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
    }
    Ok(saved)
}

/// Copies a segment, durably, whose tail is about to be cut though it may have been
/// synced from revision `lost` on; answers the copy's name, if there is need of one.
pub(crate) fn keep_tail(
    vfs: &dyn Vfs,
    dir: &Path,
    dropped: &Dropped,
    lost: Revision,
) -> Result<Option<PathBuf>, LogError> {
    if !dropped.is_damaged || dropped.upto.is_some_and(|upto| upto < lost) {
        return Ok(None);
    }
    let upto = dropped.upto.map_or(String::new(), |upto| format!(" and up to {upto}"));
    tracing::warn!(
        "what stood there, from revision {lost} on{upto}, is lost: nothing tells whether a power cut has torn the \
         write, or what was synced was damaged since"
    );
    // One that was mended is kept already.
    if !vfs.exists(&dropped.path) {
        return Ok(None);
    }
    let copy = copy_aside(vfs, &dropped.path)?;
    vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
    tracing::warn!("kept the segment as it was as {}", copy.display());
    Ok(Some(copy))
}

/// Writes the rest of a damaged segment as one of its own, durable with its
/// name; answers how long it is.
fn put_apart(
    vfs: &dyn Vfs,
    dir: &Path,
    manifest: &Manifest,
    rest: &Rest,
    now_ms: u64,
) -> Result<u64, LogError> {
    let path = at(dir, &segment_name(rest.segment));
    let old = vfs.read(&path).map_err(LogError::io("read", &path))?;
    let mut new = segment_header(&manifest.id, rest.first, now_ms, true);
    let mut offset = rest.offset;
    while offset < rest.end {
        let place = BlockPlace { id: manifest.id, segment: rest.segment, offset };
        let (header, _) = block_at(&old, &place).map_err(|problem| LogError::Damaged {
            path: path.clone(),
            offset,
            what: problem.to_string(),
        })?;
        let len = BLOCK_HEADER_BYTES + header.len as usize;
        let there = BlockPlace { segment: rest.first, offset: new.len() as u64, ..place };
        put_block_again(&mut new, &there, &old[offset as usize..][..len]);
        offset += len as u64;
    }
    let whole = at(dir, &segment_name(rest.first));
    let temporary = at(dir, &format!("{}.new", segment_name(rest.first)));
    if vfs.exists(&temporary) {
        vfs.remove(&temporary).map_err(LogError::io("remove", &temporary))?;
    }
    let mut file = vfs.create(&temporary).map_err(LogError::io("create", &temporary))?;
    file.append(&new).map_err(LogError::io("write", &temporary))?;
    file.sync().map_err(LogError::io("sync", &temporary))?;
    vfs.rename(&temporary, &whole).map_err(LogError::io("rename", &temporary))?;
    vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
    Ok(new.len() as u64)
}
