//! Taking over a changed file while the server runs.

use crate::model::Settings;
use crate::setting::{Change, Setting};
use crate::table::SETTINGS;

/// What a changed file means for a running server.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Settings that have their new value now.
    pub changed: Vec<&'static Setting>,
    /// Settings whose new value needs a restart.
    pub need_restart: Vec<&'static Setting>,
}

/// Gives `settings` what is different in `loaded` from what was `last` loaded.
/// What CONFIG SET has changed since stays, unless the file says something new
/// about it.
pub fn reload(settings: &mut Settings, last: &Settings, loaded: &Settings) -> Reloaded {
    let mut reloaded = Reloaded::default();
    for setting in SETTINGS {
        let value = setting.value(loaded);
        if value == setting.value(last) {
            continue;
        }
        match setting.change {
            Change::Live => {
                (setting.write)(settings, &value);
                reloaded.changed.push(setting);
            }
            Change::Restart | Change::Immutable | Change::Protected => {
                reloaded.need_restart.push(setting);
            }
        }
    }
    reloaded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_file_says_anew_changes() {
        let last = Settings::default();
        let mut loaded = last.clone();
        loaded.max_memory = 1 << 30;
        loaded.port = 7000;
        // By CONFIG SET.
        let mut running = last.clone();
        running.slowlog_max_len = 7;
        running.max_memory = 1 << 20;

        let reloaded = reload(&mut running, &last, &loaded);
        let names = |settings: &[&Setting]| -> Vec<String> {
            settings.iter().map(|setting| setting.name()).collect()
        };
        assert_eq!(names(&reloaded.changed), ["storage.max_memory"]);
        assert_eq!(names(&reloaded.need_restart), ["server.port"]);
        assert_eq!((running.max_memory, running.port), (1 << 30, last.port));
        assert_eq!(running.slowlog_max_len, 7);
        assert!(reload(&mut running, &loaded, &loaded).changed.is_empty());
    }
}
