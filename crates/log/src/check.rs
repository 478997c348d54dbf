//! `alcid log check [--repair]`: what is whole, what is not, and cutting.

use std::io::ErrorKind;
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
    mending: Option<Cut>,
}

/// What makes a log whole: to end it with this segment, of which so many bytes
/// stay.
#[derive(Clone, Copy, Debug)]
struct Cut(Revision, u64);

/// Reads a log without changing anything. `base` is what [`crate::Log::open`]
/// gets; without it the log may begin anywhere, see [`RecoveryReport::base`].
///
/// # Errors
/// When there is no log in the folder, or it cannot be read at all.
pub fn check(vfs: &dyn Vfs, dir: &Path, base: Option<Revision>) -> Result<CheckReport, LogError> {
    let manifest = manifest_of(vfs, dir)?;
    let mut walk = Walk::default();
    let walked = recovery::walk(vfs, dir, &manifest, base, &mut walk, &mut |_| Ok(()));
    let finding = walked.err().map(|error| {
        let last_whole = walk.report.last;
        Finding { mending: mending(&error, &walk), error, last_whole }
    });
    Ok(CheckReport { report: walk.report, finding })
}

fn manifest_of(vfs: &dyn Vfs, dir: &Path) -> Result<Manifest, LogError> {
    if let Some(manifest) = Manifest::read(vfs, dir)? {
        return Ok(manifest);
    }
    let dir = dir.to_path_buf();
    Err(match recovery::segment_names(vfs, &dir) {
        Ok(segments) if segments.is_empty() => LogError::NoLog { dir },
        Ok(_) => LogError::NoManifest { dir },
        Err(LogError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            LogError::NoLog { dir }
        }
        Err(error) => error,
    })
}

fn mending(error: &LogError, walk: &Walk) -> Option<Cut> {
    // Without its header a segment is nothing; one that is missing neither.
    let before = walk.segments.last().map(|segment| Cut(segment.first, segment.len));
    match error {
        LogError::Damaged { path, offset, .. } => {
            let first = parse_segment_name(&path.file_name()?.to_string_lossy())?;
            let has_header = *offset >= SEGMENT_HEADER_BYTES as u64;
            // All of a transaction goes that has a damaged part.
            let begin = walk.reading.filter(|(segment, _)| *segment == first);
            let keep = begin.map_or(*offset, |(_, begin)| begin.min(*offset));
            if has_header { Some(Cut(first, keep)) } else { before }
        }
        LogError::MissingSegment { .. } => before,
        _ => None,
    }
}

/// Cuts a damaged log at the damage. The segment that is cut and all later ones
/// are kept beside it as `<name>.damaged-<n>`. Damage below the base is left to
/// [`crate::Log::open`], which goes on without it. Answers the names moved or
/// copied, and the newest revision that is left.
///
/// # Errors
/// When the log is not damaged in a way that a cut mends, when it does not
/// begin with revision 1 and no base is given, or when files cannot be changed.
pub fn repair(
    vfs: &dyn Vfs,
    dir: &Path,
    base: Option<Revision>,
) -> Result<(Vec<PathBuf>, Revision), LogError> {
    // A lock is a file, which has no business where no log is.
    manifest_of(vfs, dir)?;
    let _lock = vfs.lock(&at(dir, "LOCK")).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => LogError::Locked { path: dir.to_path_buf() },
        _ => LogError::Io { action: "lock", path: dir.to_path_buf(), source: error },
    })?;
    let mut saved = Vec::new();
    let CheckReport { report, finding } = check(vfs, dir, base)?;
    let Some(finding) = finding else { return Ok((saved, report.last)) };
    if base.is_none() && report.base > Revision::ZERO {
        let first = report.base.next();
        return Err(LogError::UnknownBase { dir: dir.to_path_buf(), first });
    }
    let Some(Cut(segment, keep)) = finding.mending else { return Err(finding.error) };
    cut(vfs, dir, segment, keep, &mut saved)?;
    Ok((saved, finding.last_whole))
}

/// Ends the log with `segment`, of which `keep` bytes stay.
fn cut(
    vfs: &dyn Vfs,
    dir: &Path,
    segment: Revision,
    keep: u64,
    saved: &mut Vec<PathBuf>,
) -> Result<(), LogError> {
    for first in recovery::segment_names(vfs, dir)? {
        let path = at(dir, &segment_name(first));
        if first > segment {
            saved.push(set_aside(vfs, &path)?);
        } else if first == segment {
            if vfs.len(&path).map_err(LogError::io("read", &path))? <= keep {
                continue;
            }
            saved.push(copy_aside(vfs, &path)?);
            let mut file = vfs.open_append(&path).map_err(LogError::io("open", &path))?;
            file.truncate(keep).map_err(LogError::io("cut", &path))?;
            file.sync().map_err(LogError::io("sync", &path))?;
        }
    }
    vfs.sync_dir(dir).map_err(LogError::io("sync the folder", dir))?;
    if let Some(manifest) = Manifest::read(vfs, dir)? {
        Manifest { newest_segment: segment, ..manifest }.write(vfs, dir)?;
    }
    Ok(())
}

/// Renames a damaged segment; its name's durability is the caller's.
pub(crate) fn set_aside(vfs: &dyn Vfs, path: &Path) -> Result<PathBuf, LogError> {
    let aside = free_name(vfs, path);
    vfs.rename(path, &aside).map_err(LogError::io("rename", path))?;
    Ok(aside)
}

/// Copies a damaged segment; the name's durability is the caller's.
pub(crate) fn copy_aside(vfs: &dyn Vfs, path: &Path) -> Result<PathBuf, LogError> {
    let bytes = vfs.read(path).map_err(LogError::io("read", path))?;
    let aside = free_name(vfs, path);
    let mut copy = vfs.create(&aside).map_err(LogError::io("create", &aside))?;
    copy.append(&bytes).map_err(LogError::io("write", &aside))?;
    copy.sync().map_err(LogError::io("sync", &aside))?;
    Ok(aside)
}

fn free_name(vfs: &dyn Vfs, path: &Path) -> PathBuf {
    (1..)
        .map(|n| PathBuf::from(format!("{}.damaged-{n}", path.display())))
        .find(|candidate| !vfs.exists(candidate))
        .expect("some number is free")
}
