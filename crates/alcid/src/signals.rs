//! What signals make the server do.

use std::sync::Arc;

use engine::Engine;
use settings::{Loaded, Settings};
use tokio::sync::watch;

/// SIGTERM and Ctrl+C end the server in order; a second one ends it at once.
/// SIGHUP lets it read its file of settings again.
pub async fn watch_signals(
    mut signals: Signals,
    mut reloader: Reloader,
    engine: Arc<Engine>,
    stop: Arc<watch::Sender<bool>>,
) {
    let mut asked = false;
    loop {
        match signals.next().await {
            Signal::Reload => reloader.reload(&engine),
            Signal::End if asked => std::process::exit(130),
            Signal::End => {
                asked = true;
                stop.send_replace(true);
            }
        }
    }
}

/// Reads file, environment and flags again, in their order of precedence.
pub type LoadAgain = Box<dyn Fn() -> Result<Loaded, String> + Send>;

/// Takes over a changed file of settings.
pub struct Reloader {
    load_again: LoadAgain,
    /// What was loaded last.
    last: Settings,
}

impl Reloader {
    /// `last` is what the server began with.
    pub fn new(load_again: LoadAgain, last: Settings) -> Reloader {
        Reloader { load_again, last }
    }

    /// A file with an error changes nothing.
    fn reload(&mut self, engine: &Engine) {
        let loaded = match (self.load_again)() {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("the settings stay as they are: {error}");
                return;
            }
        };
        let mut reloaded = settings::Reloaded::default();
        let taken = engine.change_settings(|settings| -> Result<(), String> {
            reloaded = settings::reload(settings, &self.last, &loaded.settings);
            Ok(())
        });
        if let Err(error) = taken {
            tracing::error!("the settings stay as they are: {error}");
            return;
        }
        self.last = loaded.settings;
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        for setting in reloaded.need_restart {
            tracing::warn!("{} has changed in the settings; it needs a restart", setting.name());
        }
        tracing::info!(changed = reloaded.changed.len(), "settings read again");
    }
}

/// What a signal asks for.
enum Signal {
    End,
    Reload,
}

/// The signals that the server listens for. From when this is made on, they no
/// longer end the process by themselves.
#[cfg(unix)]
pub struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn install() -> Result<Signals, String> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|error| format!("listen for signals: {error}"));
        Ok(Signals {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::End,
            _ = self.int.recv() => Signal::End,
            _ = self.hup.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn install() -> Result<Signals, String> {
        Ok(Signals)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Signal::End
    }
}
