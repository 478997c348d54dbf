//! Looks at the room on the log's disk: tells the engine, and takes up a log that
//! has met a full disk once there is room again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use log::LogFault;

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes are refused below one of so many parts of the disk at most, so that
/// small disks serve as well.
const PARTS: u64 = 20;

/// A log that was full needs that much at least.
const RESUME_BYTES: u64 = 64 << 10;

/// Looks at the disk until the server ends.
pub async fn watch(engine: Arc<Engine>) {
    if engine.replicator.followed_log().is_none() {
        return;
    }
    loop {
        let engine = engine.clone();
        // A disk may take its time.
        let _ = tokio::task::spawn_blocking(move || look(&engine)).await;
        tokio::time::sleep(INTERVAL).await;
    }
}

fn look(engine: &Engine) {
    let Some(log) = engine.replicator.followed_log() else { return };
    // What cannot be known refuses nothing.
    let Some((free, all)) = room(log.dir()) else { return };
    let bound = engine.live().settings.disk_free_bytes_min.min(all / PARTS);
    engine.note_room(free, bound);
    let needed = RESUME_BYTES + 2 * log.stats().pending_bytes as u64;
    if free >= bound.max(needed) && matches!(log.fault(), Some(LogFault::Full(_))) {
        match engine.take_up() {
            Ok(()) => tracing::info!("there is room on the log's disk again: writes are taken"),
            Err(error) => tracing::warn!("{free} bytes are free on the log's disk, but {error}"),
        }
    }
}

/// Bytes on the disk of a folder: those that are free for us, and all.
fn room(dir: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}
