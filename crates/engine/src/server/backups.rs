//! Scheduled backups: when the next one is due, and how the last one went.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use settings::{Schedule, Settings};

use crate::checkpoint::{Archive, BackedUp};
use crate::engine::Engine;

/// What is known of scheduled backups. Times are in milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Backups(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What `next_ms` was made from: the folder and the schedule.
    planned: Option<(PathBuf, String)>,
    /// When the next one is due.
    next_ms: Option<u64>,
    is_running: bool,
    /// When the last one that was made began.
    success_ms: u64,
    took_ms: u64,
    /// The newest revision in it.
    revision: u64,
    made: u64,
    failed: u64,
    /// When the last one that failed began.
    error_ms: u64,
    /// Why the last one failed; empty once one is made.
    error: String,
}

impl Engine {
    /// Begins a backup if one is due. To be called again and again; costs next to
    /// nothing where none is.
    pub fn run_backups(self: &Arc<Self>) {
        let live = self.live();
        let settings = &live.settings;
        let Some(archive) = self.archive() else { return };
        let Some(row) = self.plan_backups(settings, archive) else { return };
        let is_first = self.backups.0.lock().made == 0;
        let keep = usize::try_from(settings.backup_keep).unwrap_or(usize::MAX);
        let with_history = settings.backup_history;
        let began_ms = self.clock.now_ms();
        let (engine, archive) = (self.clone(), archive.clone());
        let thread = std::thread::Builder::new().name("backup".to_owned());
        let spawned = thread.spawn(move || {
            let found = if is_first { Ok(()) } else { check_there(&row) };
            let made = found.and_then(|()| archive.backup_in_row(&row, keep, with_history));
            engine.end_backup(began_ms, made);
        });
        if let Err(error) = spawned {
            self.end_backup(began_ms, Err(format!("no thread for the backup: {error}")));
        }
    }

    /// The folder of the backup that is due, which begins by that; plans the one
    /// after it.
    fn plan_backups(
        self: &Arc<Self>,
        settings: &Settings,
        archive: &Arc<dyn Archive>,
    ) -> Option<PathBuf> {
        let mut state = self.backups.0.lock();
        let (Some(row), Some(schedule)) =
            (&settings.backup_folder, Schedule::parse(&settings.backup_schedule))
        else {
            (state.planned, state.next_ms) = (None, None);
            return None;
        };
        let now_ms = self.clock.now_ms();
        let plan = (row.clone(), settings.backup_schedule.clone());
        if state.planned.as_ref() != Some(&plan) {
            state.next_ms = None;
            state.planned = Some(plan.clone());
            match schedule {
                Schedule::Cron(_) => state.next_ms = schedule.next_ms(None, now_ms),
                Schedule::Every(_) => self.plan_from_newest(plan, schedule.clone(), archive),
            }
        }
        if state.is_running || state.next_ms.is_none_or(|next_ms| next_ms > now_ms) {
            return None;
        }
        // One that a client asked for comes first; this one stays due.
        if self.backs_up.swap(true, Ordering::AcqRel) {
            return None;
        }
        state.is_running = true;
        state.next_ms = schedule.next_ms(Some(now_ms), now_ms);
        Some(row.clone())
    }

    /// Plans the first one after the newest that there is, from before a restart
    /// too: else a server that is often started anew would never get to it.
    /// Beside others, as who knows how long the disk takes.
    fn plan_from_newest(
        self: &Arc<Self>,
        plan: (PathBuf, String),
        schedule: Schedule,
        archive: &Arc<dyn Archive>,
    ) {
        let (engine, archive) = (self.clone(), archive.clone());
        let thread = std::thread::Builder::new().name("backup-plan".to_owned());
        let spawned = thread.spawn(move || {
            let newest_ms = archive.newest_backup_ms(&plan.0);
            let mut state = engine.backups.0.lock();
            if state.planned.as_ref() == Some(&plan) {
                state.next_ms = schedule.next_ms(newest_ms, engine.clock.now_ms());
            }
        });
        if let Err(error) = spawned {
            tracing::error!(
                "no thread to plan backups: {error}; the next change of settings tries again"
            );
        }
    }

    fn end_backup(&self, began_ms: u64, made: Result<BackedUp, String>) {
        self.backs_up.store(false, Ordering::Release);
        let mut state = self.backups.0.lock();
        state.is_running = false;
        match made {
            Ok(made) => {
                (state.success_ms, state.took_ms) = (began_ms, made.took_ms);
                state.revision = made.revision.0;
                state.made += 1;
                state.error.clear();
            }
            Err(error) => {
                tracing::error!("scheduled backup failed: {error}");
                state.error_ms = began_ms;
                state.failed += 1;
                state.error = error.replace(['\r', '\n'], " ");
            }
        }
    }

    /// Lines for `INFO persistence`.
    pub(crate) fn report_backups(&self) -> [(&'static str, String); 9] {
        let state = self.backups.0.lock();
        let seconds = |ms: u64| (ms / 1000).to_string();
        [
            ("backup_in_progress", u8::from(self.backs_up.load(Ordering::Acquire)).to_string()),
            ("backup_next_time", state.next_ms.map_or("0".to_owned(), seconds)),
            ("backup_last_success_time", seconds(state.success_ms)),
            ("backup_last_success_revision", state.revision.to_string()),
            ("backup_last_success_ms", state.took_ms.to_string()),
            ("backup_last_error_time", seconds(state.error_ms)),
            ("backup_last_error", state.error.clone()),
            ("backups_made", state.made.to_string()),
            ("backups_failed", state.failed.to_string()),
        ]
    }
}

/// Whether the folder is there that had backups before: where its disk is no longer
/// mounted, a new one would stand on another disk, and nobody would know.
fn check_there(row: &Path) -> Result<(), String> {
    match row.metadata() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "the folder {} is gone, which had backups before ({error}); mount its disk, or make the folder",
            row.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use base::{ManualClock, Revision};
    use keyspace::Keyspace;
    use tokio::sync::watch;

    use super::*;
    use crate::checkpoint::Checkpointed;
    use crate::engine::{Hooks, Identity};
    use crate::replicator::NoLog;

    struct Nowhere;

    impl Archive for Nowhere {
        fn progress(&self) -> watch::Receiver<Checkpointed> {
            unreachable!("nobody waits for it")
        }

        fn request(&self, _: Revision) {}

        fn settle(&self, _: Revision) -> Result<(), String> {
            Ok(())
        }

        fn lag_bytes(&self) -> u64 {
            0
        }

        fn backup(&self, _: &Path, _: bool) -> Result<BackedUp, String> {
            Err("nowhere".to_owned())
        }

        fn backup_in_row(&self, _: &Path, _: usize, _: bool) -> Result<BackedUp, String> {
            Err("nowhere".to_owned())
        }

        fn newest_backup_ms(&self, _: &Path) -> Option<u64> {
            None
        }

        fn info(&self) -> Vec<(&'static str, String)> {
            Vec::new()
        }
    }

    #[test]
    fn no_client_gets_between_a_plan_and_its_backup() {
        let clock = Arc::new(ManualClock::at_ms(1_700_000_000_000));
        let settings = Settings {
            backup_folder: Some(PathBuf::from("/backups")),
            backup_schedule: "* * * * *".to_owned(),
            ..Settings::default()
        };
        let keyspace = Keyspace::new(1, 1);
        let engine = Arc::new(Engine::new(
            keyspace,
            Arc::new(NoLog::default()),
            clock.clone(),
            1,
            settings.clone(),
            Identity::default(),
            Hooks::default(),
        ));
        let archive: Arc<dyn Archive> = Arc::new(Nowhere);
        let plan = || engine.plan_backups(&settings, &archive);
        let next_ms = || engine.backups.0.lock().next_ms;
        assert_eq!(plan(), None, "first it is planned");
        let due = next_ms();
        clock.advance_ms(60_000);
        // A client has one made: the one that is due stays so.
        engine.backs_up.store(true, Ordering::Release);
        assert_eq!((plan(), next_ms()), (None, due));
        engine.backs_up.store(false, Ordering::Release);
        assert_eq!(plan(), Some(PathBuf::from("/backups")));
        assert!(engine.backs_up.load(Ordering::Acquire), "from now on none of a client begins");
        assert!(next_ms() > due);
        engine.end_backup(0, Err("nowhere".to_owned()));
        assert!(!engine.backs_up.load(Ordering::Acquire));
    }
}
