//! A log in memory, for tests.

use std::path::Path;
use std::sync::Arc;

use base::{Revision, SeededRng, SystemClock};
use log::{Log, LogOptions, MemVfs};

/// An empty one.
pub(crate) fn open(options: LogOptions) -> Log {
    let (vfs, clock) = (Arc::new(MemVfs::new()), Arc::new(SystemClock));
    let mut rng = SeededRng::new(1);
    let opened = Log::open(
        vfs,
        Path::new("/log"),
        options,
        Revision::ZERO,
        clock,
        &mut rng,
        &mut |_| Ok(()),
    );
    opened.expect("a log in memory opens").0
}
