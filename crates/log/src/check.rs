//! `alcid log check [--repair]`: what is whole, what is not, and cutting.

use std::path::{Path, PathBuf};

use base::Revision;

use crate::error::LogError;
use crate::format::{SEGMENT_HEADER_BYTES, parse_segment_name, segment_name};
use crate::identity::Manifest;
use crate::recovery::{self, RecoveryReport, Walk};
use crate::vfs::{Vfs, at};

/// What a check found.
#[derive(Debug)]
pub struct CheckReport {
    /// What can be replayed.
    pub report: RecoveryReport,
    /// What stands in the way of starting, if anything.
    pub finding: Option<Finding>,
}

/// Damage.
#[derive(Debug)]
pub struct Finding {
    /// What is wrong, with file and offset.
    pub error: LogError,
    /// The newest revision before it.
    pub last_whole: Revision,
    /// Where a repair would cut: a segment and the length it keeps.
    cut: Option<(Revision, u64)>,
}

/// Reads a whole log without changing anything.
///
/// # Errors
/// When there is no log in the folder, or it cannot be read at all.
pub fn check(vfs: &dyn Vfs, dir: &Path) -> Result<CheckReport, LogError> {
    let manifest =
        Manifest::read(vfs, dir)?.ok_or_else(|| LogError::NoManifest { dir: dir.to_path_buf() })?;
    let mut walk = Walk::default();
    let walked = recovery::walk(vfs, dir, &manifest, &mut walk, &mut |_| Ok(()));
    let finding = walked.err().map(|error| {
        let last_whole = walk.report.last;
        Finding { cut: cut_of(&error, &walk), error, last_whole }
    });
    Ok(CheckReport { report: walk.report, finding })
}

/// Where the log can be cut so that what remains is whole.
fn cut_of(error: &LogError, walk: &Walk) -> Option<(Revision, u64)> {
    // Without its header a segment is nothing; one that is missing neither.
    let before = walk.segments.last().map(|segment| (segment.first, segment.len));
    match error {
        LogError::Damaged { path, offset, .. } if *offset >= SEGMENT_HEADER_BYTES as u64 => {
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some((parse_segment_name(&name)?, *offset))
        }
        LogError::Damaged { .. } | LogError::MissingSegment { .. } => before,
        _ => None,
    }
}

/// Cuts a damaged log at the damage. The segment that is cut and all later ones
/// are kept beside it as `<name>.damaged-<n>`. Answers the names moved or
/// copied, and the newest revision that is left.
///
/// # Errors
/// When the log is not damaged in a way that a cut mends, or files cannot be
/// changed.
pub fn repair(vfs: &dyn Vfs, dir: &Path) -> Result<(Vec<PathBuf>, Revision), LogError> {
    let _lock = vfs.lock(&at(dir, "LOCK")).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => LogError::Locked { path: dir.to_path_buf() },
        _ => LogError::Io { action: "lock", path: dir.to_path_buf(), source: error },
    })?;
    let report = check(vfs, dir)?;
    let Some(finding) = report.finding else { return Ok((Vec::new(), report.report.last)) };
    let Some((segment, keep)) = finding.cut else { return Err(finding.error) };
    let mut saved = Vec::new();
    for first in recovery::segment_names(vfs, dir)? {
        let path = at(dir, &segment_name(first));
        if first > segment {
            let aside = free_name(vfs, &path);
            vfs.rename(&path, &aside).map_err(LogError::io("rename", &path))?;
            saved.push(aside);
        } else if first == segment {
            let bytes = vfs.read(&path).map_err(LogError::io("read", &path))?;
            if bytes.len() as u64 <= keep {
                continue;
            }
            let aside = free_name(vfs, &path);
            let mut copy = vfs.create(&aside).map_err(LogError::io("create", &aside))?;
            copy.append(&bytes).map_err(LogError::io("write", &aside))?;
            copy.sync().map_err(LogError::io("sync", &aside))?;
            saved.push(aside);
            let mut file = vfs.open_append(&path).map_err(LogError::io("open", &path))?;
            file.truncate(keep).map_err(LogError::io("cut", &path))?;
            file.sync().map_err(LogError::io("sync", &path))?;
        }
    }
    vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
    if let Some(manifest) = Manifest::read(vfs, dir)? {
        Manifest { newest_segment: segment, ..manifest }.write(vfs, dir)?;
    }
    Ok((saved, finding.last_whole))
}

fn free_name(vfs: &dyn Vfs, path: &Path) -> PathBuf {
    (1..)
        .map(|n| PathBuf::from(format!("{}.damaged-{n}", path.display())))
        .find(|candidate| !vfs.exists(candidate))
        .expect("some number is free")
}
