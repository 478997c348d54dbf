//! BACKUP: a copy of everything, made by the archive on a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{Frame, Revision};
use command::args::is_word;
use command::{Error, Result};

use crate::call::{Call, Handler};
use crate::checkpoint::{Archive, BackedUp};
use crate::engine::Engine;
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("backup", backup)];

/// Bytes that Linux takes for a path, with the zero behind it.
const PATH_BYTES: usize = 4096;

fn backup(call: &mut Call<'_, '_>) -> Result<Outcome> {
    if !call.args[0].eq_ignore_ascii_case(b"to") {
        return Err(Error::SYNTAX);
    }
    let folder = call.args[1];
    if folder.len() >= PATH_BYTES {
        return Err(Error::new(format!(
            "ERR the folder's name has {} bytes; a path has less than {PATH_BYTES}",
            folder.len()
        )));
    }
    let folder = path(folder)?;
    let with_history = match call.args[2..] {
        [] => true,
        [word] if is_word(word, "nohistory") => false,
        _ => return Err(Error::SYNTAX),
    };
    let engine = call.engine;
    let archive = engine.archive().cloned().ok_or(Error::new(
        "ERR there is no data folder to back up: the log is off; start with storage.aof_enabled = true",
    ))?;
    if engine.backs_up.swap(true, Ordering::AcqRel) {
        return Err(Error::new("ERR a backup is being made; try again when it is done"));
    }
    // CLIENT UNBLOCK alone ends it early.
    let unblocked =
        Frame::Error("ERR the wait for the backup was ended; the backup goes on".to_owned());
    let blocked = engine.blocking.register_plain(call.session, call.command, unblocked, None);
    let (id, making) = (blocked.id, engine.clone());
    let thread = std::thread::Builder::new().name("backup".to_owned());
    if let Err(error) = thread.spawn(move || make(&making, &*archive, folder, with_history, id)) {
        engine.backs_up.store(false, Ordering::Release);
        let failed = Frame::Error(format!("ERR no thread for the backup: {error}"));
        engine.answer_wait(id, failed, Revision::ZERO);
    }
    Ok(Outcome::Blocked(blocked))
}

#[cfg(unix)]
#[allow(clippy::unnecessary_wraps, reason = "elsewhere not every name is one")]
fn path(bytes: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn path(bytes: &[u8]) -> Result<PathBuf> {
    let text = std::str::from_utf8(bytes);
    text.map(PathBuf::from).map_err(|_| Error::new("ERR the folder's name is not UTF-8"))
}

fn make(engine: &Arc<Engine>, archive: &dyn Archive, folder: PathBuf, with_history: bool, id: u64) {
    let made = archive.backup(&folder, with_history);
    engine.backs_up.store(false, Ordering::Release);
    let frame = match made {
        Ok(made) => reply(&made),
        Err(error) => {
            tracing::error!(folder = %folder.display(), "backup failed: {error}");
            Frame::Error(format!("ERR {}", error.replace(['\r', '\n'], " ")))
        }
    };
    engine.answer_wait(id, frame, Revision::ZERO);
}

fn reply(made: &BackedUp) -> Frame {
    let number = |value: u64| Frame::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let pairs = [
        ("revision", number(made.revision.0)),
        ("oldest", number(made.oldest.0)),
        ("files", number(made.files as u64)),
        ("bytes", number(made.bytes)),
        ("copied", number(made.copied as u64)),
        ("copied_bytes", number(made.copied_bytes)),
        ("ms", number(made.took_ms)),
    ];
    Frame::Map(pairs.into_iter().map(|(name, value)| (Frame::bulk(name), value)).collect())
}
