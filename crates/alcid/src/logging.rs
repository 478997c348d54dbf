//! Diagnostics: what the server says about itself, apart from the append-only
//! log.

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use base::{Clock, SystemClock};
use settings::{LogFormat, LogLevel, Logging};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::rotation::RotatingFile;

/// Changes the diagnostics of a running server.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogHandle {
    /// Shows events from `level` on, of every target; a filter given by
    /// `RUST_LOG` ends here.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only when the subscriber is gone, and with it every reader.
        let _ = self.filter.reload(EnvFilter::new(level.as_str()));
    }
}

/// Why there are no diagnostics.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened.
    #[error("open diagnostics file {path}: {source}")]
    Open {
        /// `logging.file`.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// `RUST_LOG` is not a filter.
    #[error("RUST_LOG = {value:?}: {reason}; write it as RUST_LOG=debug or RUST_LOG=alcid=debug")]
    Filter {
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another subscriber is in place.
    #[error("diagnostics are already set up in this process")]
    Twice,
}

/// Sets the process' diagnostics up. `rust_log` is the variable `RUST_LOG`; it
/// wins over `logging.level` until the level is changed live.
///
/// # Errors
/// When the file cannot be opened, `rust_log` is no filter, or this is the
/// second call.
pub fn start(logging: &Logging, rust_log: Option<&str>) -> Result<LogHandle, LogError> {
    let filter = filter(logging, rust_log)?;
    let (writer, colors) = match &logging.file {
        Some(path) => {
            let clock = Arc::new(SystemClock) as Arc<dyn Clock>;
            let file = RotatingFile::open(path, logging, clock)
                .map_err(|source| LogError::Open { path: path.display().to_string(), source })?;
            (BoxMakeWriter::new(Shared(Arc::new(Mutex::new(file)))), false)
        }
        None => {
            let colors = logging.enable_colors && io::stderr().is_terminal();
            (BoxMakeWriter::new(io::stderr), colors)
        }
    };
    let (subscriber, handle) = subscriber(logging.format, filter, writer, colors);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(handle)
}

fn filter(logging: &Logging, rust_log: Option<&str>) -> Result<EnvFilter, LogError> {
    match rust_log.filter(|value| !value.is_empty()) {
        None => Ok(EnvFilter::new(logging.level.as_str())),
        Some(value) => EnvFilter::try_new(value).map_err(|error| LogError::Filter {
            value: value.to_owned(),
            reason: error.to_string(),
        }),
    }
}

fn subscriber(
    format: LogFormat,
    filter: EnvFilter,
    writer: BoxMakeWriter,
    colors: bool,
) -> (impl tracing::Subscriber + Send + Sync, LogHandle) {
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colors);
    let lines = match format {
        LogFormat::Pretty => lines.pretty().boxed(),
        LogFormat::Compact => lines.compact().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    (Registry::default().with(filter).with(lines), LogHandle { filter: handle })
}

/// A writer that threads take turns at; each event is one `write_all`.
#[derive(Clone)]
struct Shared<W>(Arc<Mutex<W>>);

impl<W: io::Write> io::Write for Shared<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A panic between two lines leaves nothing half done in the file.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

impl<W: io::Write + 'static> MakeWriter<'_> for Shared<W> {
    type Writer = Shared<W>;

    fn make_writer(&self) -> Shared<W> {
        Shared(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `scene` under a subscriber and answers what was written.
    fn captured(
        format: LogFormat,
        rust_log: Option<&str>,
        scene: impl FnOnce(&LogHandle),
    ) -> String {
        let logging = settings::Settings::default().logging;
        let out = Shared(Arc::new(Mutex::new(Vec::new())));
        let filter = filter(&logging, rust_log).unwrap();
        let writer = BoxMakeWriter::new(out.clone());
        let (subscriber, handle) = subscriber(format, filter, writer, false);
        tracing::subscriber::with_default(subscriber, || scene(&handle));
        let bytes = out.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_parse_one_by_one() {
        let text = captured(LogFormat::Json, None, |_| {
            tracing::info!(port = 6379, "listening");
            tracing::warn!(text = "a \"quoted\"\nline", "odd");
        });
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["message"], "listening");
        assert_eq!(lines[0]["port"], 6379);
        assert_eq!(lines[1]["level"], "WARN");
        assert_eq!(lines[1]["text"], "a \"quoted\"\nline");
    }

    #[test]
    fn formats_differ_in_shape() {
        let scene = |_: &LogHandle| tracing::info!("hello");
        assert_eq!(captured(LogFormat::Compact, None, scene).lines().count(), 1);
        assert!(captured(LogFormat::Pretty, None, scene).lines().count() > 1);
    }

    #[test]
    fn the_level_changes_live() {
        let text = captured(LogFormat::Compact, None, |handle| {
            tracing::debug!("hidden");
            handle.set_level(LogLevel::Debug);
            tracing::debug!("shown");
            handle.set_level(LogLevel::Error);
            tracing::warn!("silenced");
        });
        assert!(text.contains("shown") && !text.contains("hidden") && !text.contains("silenced"));
    }

    #[test]
    fn rust_log_wins_until_the_level_changes() {
        let text = captured(LogFormat::Compact, Some("other=trace,alcid=error"), |handle| {
            tracing::info!(target: "alcid", "hidden");
            tracing::trace!(target: "other", "shown");
            handle.set_level(LogLevel::Info);
            tracing::info!(target: "alcid", "later");
            tracing::trace!(target: "other", "ended");
        });
        assert!(text.contains("shown") && text.contains("later"), "{text}");
        assert!(!text.contains("hidden") && !text.contains("ended"), "{text}");
        let logging = settings::Settings::default().logging;
        let error = filter(&logging, Some("a=b=c")).unwrap_err().to_string();
        assert!(error.starts_with("RUST_LOG = \"a=b=c\": "), "{error}");
    }
}
