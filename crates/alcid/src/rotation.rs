//! A file that moves on: by day, by hour or by size.
//!
//! The current lines are always in the file that the settings name. When it is
//! time, that file is renamed to `<name>.<UTC time>` and a new one begins; of
//! the renamed ones the newest `max_files - 1` stay. The names sort by time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use base::Clock;
use base::when::civil;
use settings::{LogRotation, Logging};

/// A writer that renames its file and begins a new one when it is time.
pub(crate) struct RotatingFile {
    path: PathBuf,
    rotation: LogRotation,
    max_file_size: u64,
    max_files: usize,
    clock: Arc<dyn Clock>,
    file: File,
    /// Bytes in `file`.
    size: u64,
    /// When `file` began, for its later name, in milliseconds since 1970.
    since_ms: u64,
}

impl RotatingFile {
    /// Opens `path` for appending; its folder is made when it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(
        path: &Path,
        logging: &Logging,
        clock: Arc<dyn Clock>,
    ) -> io::Result<RotatingFile> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append_to(path)?;
        let about = file.metadata()?;
        // The last line of an earlier run tells which day or hour it was.
        let written_ms = about.modified().ok().and_then(|time| {
            let since = time.duration_since(UNIX_EPOCH).ok()?;
            u64::try_from(since.as_millis()).ok()
        });
        let now_ms = clock.now_ms();
        let since_ms = written_ms.filter(|_| about.len() > 0).unwrap_or(now_ms).min(now_ms);
        Ok(RotatingFile {
            path: path.to_owned(),
            rotation: logging.rotation,
            max_file_size: logging.max_file_size,
            max_files: usize::try_from(logging.max_files).unwrap_or(usize::MAX),
            clock,
            file,
            size: about.len(),
            since_ms,
        })
    }

    fn is_time(&self, now_ms: u64, incoming: usize) -> bool {
        match self.rotation {
            LogRotation::Daily => now_ms / DAY_MS > self.since_ms / DAY_MS,
            LogRotation::Hourly => now_ms / HOUR_MS > self.since_ms / HOUR_MS,
            LogRotation::Size => {
                self.size > 0 && self.size.saturating_add(incoming as u64) > self.max_file_size
            }
        }
    }

    fn rotate(&mut self, now_ms: u64) -> io::Result<()> {
        self.file.flush()?;
        let stamp = match self.rotation {
            LogRotation::Daily => utc(self.since_ms, Precision::Day),
            LogRotation::Hourly => utc(self.since_ms, Precision::Hour),
            LogRotation::Size => utc(now_ms, Precision::Millisecond),
        };
        fs::rename(&self.path, self.free_name(&stamp))?;
        self.file = append_to(&self.path)?;
        self.size = 0;
        self.since_ms = now_ms;
        self.remove_oldest()
    }

    /// `<path>.<stamp>`, with a number behind it when that name is taken.
    fn free_name(&self, stamp: &str) -> PathBuf {
        let named = |end: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{stamp}{end}"));
            PathBuf::from(name)
        };
        let numbered = (1..10_000).map(|n| named(&format!(".{n:04}")));
        [named("")]
            .into_iter()
            .chain(numbered)
            .find(|name| !name.exists())
            .unwrap_or_else(|| named(".9999"))
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let mut old = self.rotated_files()?;
        old.sort();
        let keep = self.max_files.saturating_sub(1);
        for path in &old[..old.len().saturating_sub(keep)] {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Files this writer has renamed, and no others that begin alike.
    fn rotated_files(&self) -> io::Result<Vec<PathBuf>> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let other = entry.file_name().to_string_lossy().into_owned();
            let stamp = other.strip_prefix(&name).and_then(|rest| rest.strip_prefix('.'));
            if stamp.is_some_and(is_stamp) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

impl Write for RotatingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now_ms = self.clock.now_ms();
        if self.is_time(now_ms, bytes.len())
            && let Err(error) = self.rotate(now_ms)
        {
            // Lines are worth more than the right file name: stay in this one
            // until the next day, hour or doubled size.
            self.since_ms = now_ms;
            self.max_file_size = self.max_file_size.saturating_mul(2);
            let _ = writeln!(self.file, "rotate {}: {error}", self.path.display());
        }
        let written = self.file.write(bytes)?;
        self.size = self.size.saturating_add(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Precision {
    Day,
    Hour,
    Millisecond,
}

/// `2026-11-21`, `2026-11-21T13` or `2026-11-21T13-05-09-123`.
fn utc(ms: u64, precision: Precision) -> String {
    let (year, month, day) = civil(ms / DAY_MS);
    let mut out = format!("{year:04}-{month:02}-{day:02}");
    if precision >= Precision::Hour {
        out.push_str(&format!("T{:02}", ms % DAY_MS / HOUR_MS));
    }
    if precision >= Precision::Millisecond {
        let (minute, second, milli) = (ms % HOUR_MS / 60_000, ms % 60_000 / 1000, ms % 1000);
        out.push_str(&format!("-{minute:02}-{second:02}-{milli:03}"));
    }
    out
}

/// Whether `text` can come from [`utc`], with or without a number behind it.
fn is_stamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 10
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes.iter().all(|byte| byte.is_ascii_digit() || b"-T.".contains(byte))
}

#[cfg(test)]
mod tests {
    use base::ManualClock;

    use super::*;
    use crate::testing::Folder;

    /// 2026-11-21 13:05:09.123 UTC.
    const NOW_MS: u64 = 1_795_266_309_123;

    fn logging(rotation: LogRotation, max_files: u64) -> Logging {
        let defaults = settings::Settings::default().logging;
        Logging { rotation, max_files, max_file_size: 10, ..defaults }
    }

    fn names(folder: &Folder) -> Vec<String> {
        let entries = fs::read_dir(&folder.path).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn dates() {
        for (ms, expected) in [
            (0, "1970-01-01T00-00-00-000"),
            (951_782_400_000, "2000-02-29T00-00-00-000"),
            (NOW_MS, "2026-11-21T13-05-09-123"),
            (4_107_542_399_999, "2100-02-28T23-59-59-999"),
            (4_107_542_400_000, "2100-03-01T00-00-00-000"),
        ] {
            assert_eq!(utc(ms, Precision::Millisecond), expected);
        }
        assert!(is_stamp("2026-11-21") && is_stamp("2026-11-21T13-05-09-123.0001"));
        assert!(!is_stamp("bak") && !is_stamp("2026-11-21.gz"));
    }

    #[test]
    fn by_day_and_hour_and_keeping_max_files() {
        for (rotation, step_ms, oldest) in [
            (LogRotation::Daily, DAY_MS, "a.log.2026-11-22"),
            (LogRotation::Hourly, HOUR_MS, "a.log.2026-11-21T14"),
        ] {
            let folder = Folder::new("rotation");
            let path = folder.path.join("deeper/a.log");
            let clock = Arc::new(ManualClock::at_ms(NOW_MS));
            let mut file = RotatingFile::open(
                &path,
                &logging(rotation, 3),
                Arc::clone(&clock) as Arc<dyn Clock>,
            )
            .unwrap();
            fs::write(folder.path.join("deeper/a.log.bak"), "mine").unwrap();
            for line in ["one\n", "two\n", "three\n", "four\n"] {
                file.write_all(line.as_bytes()).unwrap();
                file.write_all(line.as_bytes()).unwrap();
                clock.advance_ms(step_ms);
            }
            let folder = Folder { path: folder.path.join("deeper") };
            let names = names(&folder);
            assert_eq!(names.len(), 4, "{names:?}");
            assert!(names.iter().any(|name| name == oldest), "{names:?}");
            assert!(names.iter().any(|name| name == "a.log.bak"), "{names:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "four\nfour\n");
            assert_eq!(fs::read_to_string(folder.path.join(oldest)).unwrap(), "two\ntwo\n");
        }
    }

    #[test]
    fn by_size_even_within_one_millisecond() {
        let folder = Folder::new("size");
        let path = folder.path.join("a.log");
        let clock = Arc::new(ManualClock::at_ms(NOW_MS)) as Arc<dyn Clock>;
        let mut file = RotatingFile::open(&path, &logging(LogRotation::Size, 3), clock).unwrap();
        for line in ["1234567\n", "abc\n", "a line beyond the size\n", "d\n", "e\n"] {
            file.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(
            names(&folder),
            ["a.log", "a.log.2026-11-21T13-05-09-123.0001", "a.log.2026-11-21T13-05-09-123.0002"]
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "d\ne\n");
    }

    #[test]
    fn a_restart_goes_on_in_the_same_file() {
        let folder = Folder::new("restart");
        let path = folder.path.join("a.log");
        fs::write(&path, "before\n").unwrap();
        // The file's time is the system's, so the clock must be too.
        let clock = Arc::new(base::SystemClock) as Arc<dyn Clock>;
        let mut file = RotatingFile::open(&path, &logging(LogRotation::Size, 3), clock).unwrap();
        file.write_all(b"\n").unwrap();
        assert_eq!(names(&folder), ["a.log"]);
        file.write_all(b"more than fits\n").unwrap();
        assert_eq!(names(&folder).len(), 2);
        let ahead = base::SystemClock.now_ms() + DAY_MS;
        let clock = Arc::new(ManualClock::at_ms(ahead)) as Arc<dyn Clock>;
        let mut file = RotatingFile::open(&path, &logging(LogRotation::Daily, 9), clock).unwrap();
        file.write_all(b"a new day\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a new day\n");
        assert_eq!(names(&folder).len(), 3);
    }
}
