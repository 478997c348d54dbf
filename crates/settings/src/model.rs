use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::special::OutputLimits;
use crate::value::Value;

/// Defines an enum whose variants are spelled as fixed words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The spelling of every variant.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The variant's spelling.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// The variant spelled `word`, in any case.
            #[must_use]
            pub fn from_word(word: &str) -> Option<$name> {
                $(if word.eq_ignore_ascii_case($word) {
                    return Some($name::$variant);
                })+
                None
            }
        }
    };
}

words! {
    /// When the log is synced to disk.
    Fsync {
        /// Before each reply; an acknowledged write survives power loss.
        Always = "always",
        /// Once a second; power loss takes at most the last second.
        EverySec = "everysec",
        /// When the operating system likes.
        No = "no",
    }
}

words! {
    /// How batches of the log are compressed.
    Compression {
        /// Not at all.
        None = "none",
        /// Deflate in a gzip frame.
        Gzip = "gzip",
        /// LZ4.
        Lz4 = "lz4",
        /// Zstandard.
        Zstd = "zstd",
    }
}

words! {
    /// What happens when data takes more than `max_memory`.
    EvictionPolicy {
        /// It is refused with `OOM`.
        NoEviction = "noeviction",
        /// Values that the archive has leave memory, and come back when they are
        /// asked for.
        Tier = "tier",
        /// Of all keys the least recently used are deleted.
        AllKeysLru = "allkeys-lru",
        /// Of all keys the least frequently used are deleted.
        AllKeysLfu = "allkeys-lfu",
        /// Any keys are deleted.
        AllKeysRandom = "allkeys-random",
        /// Of keys with a deadline the least recently used are deleted.
        VolatileLru = "volatile-lru",
        /// Of keys with a deadline the least frequently used are deleted.
        VolatileLfu = "volatile-lfu",
        /// Any keys with a deadline are deleted.
        VolatileRandom = "volatile-random",
        /// Of keys with a deadline those that are due first are deleted.
        VolatileTtl = "volatile-ttl",
    }
}

words! {
    /// The least severe event that the diagnostics show.
    LogLevel {
        /// Everything.
        Trace = "trace",
        /// What a developer wants to see.
        Debug = "debug",
        /// The life of the server.
        Info = "info",
        /// The operation went on, but someone may want to look.
        Warn = "warn",
        /// A human should look.
        Error = "error",
    }
}

words! {
    /// The shape of a diagnostics line.
    LogFormat {
        /// Several lines an event, for reading along.
        Pretty = "pretty",
        /// One line an event.
        Compact = "compact",
        /// One JSON object an event.
        Json = "json",
    }
}

words! {
    /// When the diagnostics move on to a new file.
    LogRotation {
        /// At midnight UTC.
        Daily = "daily",
        /// At each full hour UTC.
        Hourly = "hourly",
        /// When the file has reached `max_file_size`.
        Size = "size",
    }
}

/// Text that never shows in `{:?}`, logs or `CONFIG GET`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretString(String);

impl SecretString {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> SecretString {
        SecretString(secret.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no secret.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "SecretString(empty)" } else { "SecretString(***)" })
    }
}

/// Thresholds at which a collection leaves its compact encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Fields of a hash kept as a listpack.
    pub hash_max_listpack_entries: u64,
    /// Bytes of the longest field or value of such a hash.
    pub hash_max_listpack_value: u64,
    /// Positive: elements of one list node. Negative: its size class, -1 = 4 KiB
    /// to -5 = 64 KiB.
    pub list_max_listpack_size: i64,
    /// Members of a set kept as an intset.
    pub set_max_intset_entries: u64,
    /// Members of a set kept as a listpack.
    pub set_max_listpack_entries: u64,
    /// Bytes of the longest member of such a set.
    pub set_max_listpack_value: u64,
    /// Members of a sorted set kept as a listpack.
    pub zset_max_listpack_entries: u64,
    /// Bytes of the longest member of such a sorted set.
    pub zset_max_listpack_value: u64,
    /// Whether `OBJECT ENCODING` calls small lists and sets listpacks.
    pub listpack_lists_and_sets: bool,
}

/// The diagnostics, not to be confused with the append-only log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logging {
    /// The least severe event shown.
    pub level: LogLevel,
    /// The shape of a line.
    pub format: LogFormat,
    /// Where lines go; `None` is standard error.
    pub file: Option<PathBuf>,
    /// When a new file begins. Needs `file`.
    pub rotation: LogRotation,
    /// Bytes of a file before the next begins, with rotation by size.
    pub max_file_size: u64,
    /// Files kept, the current one included.
    pub max_files: u64,
    /// Colours on a terminal.
    pub enable_colors: bool,
}

/// Values of the settings that Alcid accepts from Redis's clients and that
/// change nothing, by Redis name; a missing one has its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted(pub(crate) BTreeMap<&'static str, Value>);

/// The effective value of every setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// TCP port of the RESP listener; 0 lets the system choose.
    pub port: u16,
    /// Addresses the listeners bind.
    pub bind: Vec<String>,
    /// Serve beyond loopback without a password.
    pub insecure_no_auth: bool,
    /// Clients connected at once.
    pub max_connections: u32,
    /// Seconds of silence before a client is disconnected; 0 never.
    pub timeout_s: u64,
    /// Seconds between TCP keepalive probes; 0 none.
    pub tcp_keepalive_s: u64,
    /// Databases `SELECT` can reach.
    pub databases: u16,
    /// Numbers for SELECT and the branches that they mean, as
    /// [`crate::mapped_branches`] reads them.
    pub select_branches: String,
    /// Ports beside `port` and the branches that they stand for, in the same
    /// words.
    pub branch_ports: String,
    /// Threads that serve clients; 0 takes half of the cores.
    pub threads: u32,
    /// Runs of the background cycle per second.
    pub hz: u32,
    /// 1 to 10: how much CPU the expiry cycle may use.
    pub active_expire_effort: u32,
    /// Bytes of a client's unprocessed input.
    pub query_buffer_limit: u64,
    /// Bytes of one argument.
    pub bulk_length_max: u64,
    /// Bytes of replies waiting for a client, by class.
    pub output_buffer_limits: OutputLimits,
    /// Bytes of input and replies of all clients together; 0 without limit.
    pub client_memory: u64,
    /// Keys remembered for `CLIENT TRACKING`; 0 without limit.
    pub tracking_table_max_keys: u64,
    /// Watches (`WATCHFROM`) that one connection may have open.
    pub watches_per_client: u32,
    /// Bytes of values that WHATIF copies to try a command on.
    pub whatif_bytes_max: u64,
    /// The folder of everything durable.
    pub data_dir: PathBuf,
    /// Whether changes are logged to disk.
    pub log_enabled: bool,
    /// The folder of the log; `None` is `log` in `data_dir`.
    pub log_path: Option<PathBuf>,
    /// When the log is synced.
    pub fsync: Fsync,
    /// How the log is compressed.
    pub compression: Compression,
    /// Bytes at which the log begins a new file.
    pub log_segment_bytes: u64,
    /// Files of the log kept beyond those that recovery needs.
    pub log_retention_count: u64,
    /// Bytes of such files; 0 without limit.
    pub max_log_bytes: u64,
    /// The folder of the archive; `None` is `archive` in `data_dir`.
    pub archive_path: Option<PathBuf>,
    /// Bytes of changes in the log after which the archive catches up.
    pub archive_lag_bytes: u64,
    /// Bytes of changes that the archive may lack before writers wait for it;
    /// 0 without limit.
    pub archive_lag_bytes_max: u64,
    /// Bytes that must be free on the log's disk for writes to be taken; 0 none.
    pub disk_free_bytes_min: u64,
    /// Seconds without a change after which the archive catches up; 0 never.
    pub archive_idle_s: u64,
    /// Seconds after which the archive catches up in any case; 0 never.
    pub archive_interval_s: u64,
    /// Seconds that the past is kept; 0 keeps none.
    pub history_keep_s: u64,
    /// Bytes of the log and its indexes that are kept for the past; 0 without
    /// limit.
    pub history_bytes: u64,
    /// Bytes of the log that are kept for a watch (`WATCHFROM`) that is behind.
    pub watch_log_bytes: u64,
    /// Seconds in which a mass deletion can be taken back; 0 never.
    pub undo_window_s: u64,
    /// Bytes of memory for what the archive has read and not yet written.
    pub write_buffer_bytes: u64,
    /// Bytes of memory for blocks of the archive that were read lately.
    pub block_cache_bytes: u64,
    /// The folder in which each scheduled backup gets one; `None`: there are none.
    pub backup_folder: Option<PathBuf>,
    /// When a backup is made, as [`crate::Schedule::parse`] reads it; empty: never.
    pub backup_schedule: String,
    /// Scheduled backups that are kept.
    pub backup_keep: u64,
    /// Whether they carry the history.
    pub backup_history: bool,
    /// Bytes of memory for data; 0 without limit.
    pub max_memory: u64,
    /// What happens at that limit.
    pub policy: EvictionPolicy,
    /// Keys that are looked at for each that is deleted there.
    pub eviction_samples: u32,
    /// How long a command may delete keys before it runs, from 0 to 100.
    pub eviction_tenacity: u32,
    /// How slowly the LFU counter of `OBJECT FREQ` saturates.
    pub lfu_log_factor: u32,
    /// Minutes after which that counter is halved; 0 never.
    pub lfu_decay_minutes: u32,
    /// When collections leave their compact encodings.
    pub encoding: Encoding,
    /// Classes of keyspace notifications, Redis's letters in canonical order.
    pub notify_keyspace_events: String,
    /// Microseconds a command runs before it enters the slow log; 0 every
    /// command, -1 none.
    pub slowlog_slower_than_us: i64,
    /// Entries of the slow log.
    pub slowlog_max_len: u64,
    /// Milliseconds an event takes before `LATENCY` remembers it; 0 never.
    pub latency_monitor_threshold_ms: u64,
    /// Password of the default user; empty for none.
    pub requirepass: SecretString,
    /// Diagnostics.
    pub logging: Logging,
    /// What Redis's clients set and Alcid only remembers.
    pub accepted: Accepted,
}

impl Settings {
    /// The folder of the append-only log.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.log_path.clone().unwrap_or_else(|| self.data_dir.join("log"))
    }

    /// The folder of the archive.
    #[must_use]
    pub fn archive_dir(&self) -> PathBuf {
        self.archive_path.clone().unwrap_or_else(|| self.data_dir.join("archive"))
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 6379,
            bind: vec!["127.0.0.1".to_owned()],
            insecure_no_auth: false,
            max_connections: 10_000,
            timeout_s: 0,
            tcp_keepalive_s: 300,
            databases: 16,
            select_branches: String::new(),
            branch_ports: String::new(),
            threads: 0,
            hz: 10,
            active_expire_effort: 1,
            query_buffer_limit: 1 << 30,
            bulk_length_max: 512 << 20,
            output_buffer_limits: OutputLimits::default(),
            // Redis has no limit; a few clients could then take all memory.
            client_memory: 4 << 30,
            tracking_table_max_keys: 1_000_000,
            watches_per_client: 1000,
            whatif_bytes_max: 256 << 20,
            data_dir: PathBuf::from("alcid-data"),
            log_enabled: true,
            log_path: None,
            fsync: Fsync::EverySec,
            compression: Compression::None,
            log_segment_bytes: 64 << 20,
            log_retention_count: 0,
            max_log_bytes: 0,
            archive_path: None,
            archive_lag_bytes: 256 << 20,
            archive_lag_bytes_max: 4 << 30,
            disk_free_bytes_min: 64 << 20,
            archive_idle_s: 1,
            archive_interval_s: 60,
            history_keep_s: 24 * 60 * 60,
            undo_window_s: 60 * 60,
            history_bytes: 10 << 30,
            watch_log_bytes: 1 << 30,
            write_buffer_bytes: 256 << 20,
            block_cache_bytes: 32 << 20,
            backup_folder: None,
            backup_schedule: String::new(),
            backup_keep: 7,
            backup_history: true,
            max_memory: 0,
            policy: EvictionPolicy::NoEviction,
            eviction_samples: 5,
            eviction_tenacity: 10,
            lfu_log_factor: 10,
            lfu_decay_minutes: 1,
            encoding: Encoding {
                hash_max_listpack_entries: 128,
                hash_max_listpack_value: 64,
                list_max_listpack_size: -2,
                set_max_intset_entries: 512,
                set_max_listpack_entries: 128,
                set_max_listpack_value: 64,
                zset_max_listpack_entries: 128,
                zset_max_listpack_value: 64,
                listpack_lists_and_sets: false,
            },
            notify_keyspace_events: String::new(),
            slowlog_slower_than_us: 10_000,
            slowlog_max_len: 128,
            latency_monitor_threshold_ms: 0,
            requirepass: SecretString::default(),
            logging: Logging {
                level: LogLevel::Info,
                format: LogFormat::Compact,
                file: None,
                rotation: LogRotation::Daily,
                max_file_size: 100 << 20,
                max_files: 10,
                enable_colors: true,
            },
            accepted: Accepted::default(),
        }
    }
}
