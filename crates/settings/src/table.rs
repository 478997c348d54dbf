//! The table of settings.

use std::path::PathBuf;

use crate::model::{
    Compression, EvictionPolicy, Fsync, LogFormat, LogLevel, LogRotation, SecretString,
};
use crate::setting::{Change, Setting, row};
use crate::value::{Kind, Value};

macro_rules! yes_no {
    ($($field:ident).+) => {
        (|s| Value::Bool(s.$($field).+), |s, v| s.$($field).+ = v.bool())
    };
}

/// An integer field of any width; the row's range keeps the value inside it.
macro_rules! integer {
    ($($field:ident).+) => {
        (
            |s| Value::Integer(i64::try_from(s.$($field).+).unwrap_or(i64::MAX)),
            |s, v| s.$($field).+ = v.integer().try_into().expect("the row's range fits the field"),
        )
    };
}

macro_rules! size {
    ($($field:ident).+) => {
        (|s| Value::Size(s.$($field).+), |s, v| s.$($field).+ = v.size())
    };
}

macro_rules! word {
    ($type:ident, $($field:ident).+) => {
        (
            |s| Value::Text(s.$($field).+.as_str().to_owned()),
            |s, v| s.$($field).+ = $type::from_word(v.text()).expect("checked by the row's kind"),
        )
    };
}

/// A path that may be missing; an empty text is a missing one.
macro_rules! optional_path {
    ($($field:ident).+) => {
        (
            |s| {
                let path = s.$($field).+.as_ref();
                Value::Text(path.map(|p| p.display().to_string()).unwrap_or_default())
            },
            |s, v| s.$($field).+ = (!v.text().is_empty()).then(|| PathBuf::from(v.text())),
        )
    };
}

/// A row that has no effect: its value lives in a map beside the fields.
macro_rules! accepted {
    ($name:literal, $kind:expr, $default:expr, $doc:literal) => {
        row(
            "",
            $name,
            $kind,
            (
                |s| s.accepted.0.get($name).cloned().unwrap_or_else(|| $default),
                |s, v| {
                    s.accepted.0.insert($name, v.clone());
                },
            ),
            $doc,
        )
        .redis(&[$name])
    };
}

const YES: Value = Value::Bool(true);
const NO: Value = Value::Bool(false);

/// C's `INT_MAX`, the upper bound of many of Redis's settings.
const INT: i64 = i32::MAX as i64;
const POSITIVE_INT: Kind = Kind::Integer { min: 0, max: INT };
const POSITIVE: Kind = Kind::Integer { min: 0, max: i64::MAX };
const ANY_SIZE: Kind = Kind::Size { min: 0, max: u64::MAX };
const FROM_1_MB: Kind = Kind::Size { min: 1 << 20, max: i64::MAX as u64 };
const MEGABYTES: Kind = Kind::Megabytes { min: 1 << 20, max: i64::MAX as u64 };
const UP_TO_LONG: Kind = Kind::Size { min: 0, max: i64::MAX as u64 };

/// The row called `name`: a Redis name or `section.key`, in any case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| {
        setting.redis.iter().any(|redis| redis.eq_ignore_ascii_case(name))
            || setting.name().eq_ignore_ascii_case(name)
    })
}

/// Every setting. Sections stand together, in the order of the generated file.
pub static SETTINGS: &[Setting] = &[
    // ---- server
    row(
        "server",
        "port",
        Kind::Integer { min: 0, max: 65_535 },
        integer!(port),
        "TCP port of the RESP listener; 0 lets the system choose one.",
    )
    .redis(&["port"])
    .flag("port")
    .short_env("ALCID_PORT")
    .change(Change::Restart),
    row(
        "server",
        "bind_address",
        Kind::Addresses,
        (
            |s| Value::Text(s.bind.join(" ")),
            |s, v| s.bind = v.text().split(' ').map(str::to_owned).collect(),
        ),
        "Addresses to listen on; one may carry a port (host:port). Beyond loopback a password is demanded.",
    )
    .key_aliases(&["bind"])
    .redis(&["bind"])
    .flag("bind")
    .short_env("ALCID_BIND_ADDRESS")
    .change(Change::Restart),
    row(
        "server",
        "insecure_no_auth",
        Kind::Bool,
        yes_no!(insecure_no_auth),
        "Serve beyond loopback without a password: everyone who reaches the port owns the data.",
    )
    .flag("insecure-no-auth")
    .change(Change::Restart),
    row(
        "server",
        "max_connections",
        Kind::Integer { min: 1, max: u32::MAX as i64 },
        integer!(max_connections),
        "Clients connected at once; one more is turned away.",
    )
    .redis(&["maxclients"])
    .flag("max-connections")
    .short_env("ALCID_MAX_CONNECTIONS"),
    row(
        "server",
        "timeout",
        Kind::Seconds { max: INT },
        integer!(timeout_s),
        "Disconnect a client that has been silent this long; 0 never does.",
    )
    .redis(&["timeout"]),
    row(
        "server",
        "tcp_keepalive",
        Kind::Seconds { max: INT },
        integer!(tcp_keepalive_s),
        "Time between TCP keepalive probes to new clients; 0 sends none.",
    )
    .redis(&["tcp-keepalive"]),
    row(
        "server",
        "databases",
        Kind::Integer { min: 1, max: u16::MAX as i64 },
        integer!(databases),
        "Databases that SELECT can reach. A start with fewer than have keys is refused.",
    )
    .redis(&["databases"])
    .change(Change::Restart),
    row(
        "server",
        "select_branches",
        Kind::MappedBranches { number: "number", min: 0, max: u32::MAX },
        (
            |s| Value::Text(s.select_branches.clone()),
            |s, v| s.select_branches = v.text().to_owned(),
        ),
        "Numbers beyond the databases that SELECT takes for branches, as \"100=dev 101=dev:1\".",
    )
    .redis(&["select-branches"]),
    row(
        "server",
        "branch_ports",
        Kind::MappedBranches { number: "port", min: 1, max: 65_535 },
        (|s| Value::Text(s.branch_ports.clone()), |s, v| s.branch_ports = v.text().to_owned()),
        "Further ports, on every bind address, whose clients begin on a branch, as \"7001=dev 7002=dev:1\".",
    )
    .redis(&["branch-ports"])
    .change(Change::Restart),
    row(
        "server",
        "threads",
        Kind::Integer { min: 0, max: 128 },
        integer!(threads),
        "Threads that serve clients; 0 takes half of the cores, at least one.",
    )
    .redis(&["io-threads"])
    .flag("threads")
    .change(Change::Restart),
    row(
        "server",
        "hz",
        Kind::Integer { min: 1, max: 500 },
        integer!(hz),
        "Runs of the background cycle (expiry, timeouts) per second.",
    )
    .redis(&["hz"]),
    row(
        "server",
        "active_expire_effort",
        Kind::Integer { min: 1, max: 10 },
        integer!(active_expire_effort),
        "How much CPU the search for expired keys may take.",
    )
    .redis(&["active-expire-effort"]),
    // ---- limits
    row(
        "limits",
        "query_buffer",
        FROM_1_MB,
        size!(query_buffer_limit),
        "Bytes of input a client may have waiting.",
    )
    .redis(&["client-query-buffer-limit"]),
    row(
        "limits",
        "bulk_length",
        FROM_1_MB,
        size!(bulk_length_max),
        "Bytes of one argument of a command.",
    )
    .redis(&["proto-max-bulk-len"]),
    row(
        "limits",
        "output_buffers",
        Kind::OutputBuffers,
        (
            |s| Value::Text(s.output_buffer_limits.to_string()),
            |s, v| {
                let merged = s.output_buffer_limits.merge(v.text());
                s.output_buffer_limits = merged.expect("checked by the row's kind");
            },
        ),
        "Replies waiting for a client, by class: hard limit, soft limit, seconds above the soft one; 0 means without limit.",
    )
    .redis(&["client-output-buffer-limit"]),
    row(
        "limits",
        "client_memory",
        ANY_SIZE,
        size!(client_memory),
        "Input and replies of all clients together; above it those who hold the most are disconnected. 0 means without limit.",
    )
    .redis(&["maxmemory-clients"]),
    row(
        "limits",
        "tracking_table_keys",
        POSITIVE,
        integer!(tracking_table_max_keys),
        "Keys remembered for CLIENT TRACKING; 0 means without limit.",
    )
    .redis(&["tracking-table-max-keys"]),
    row(
        "limits",
        "watches_per_client",
        Kind::Integer { min: 1, max: 1_000_000 },
        integer!(watches_per_client),
        "Watches that one connection may have open, see WATCHFROM.",
    ),
    row(
        "limits",
        "whatif_max_bytes",
        FROM_1_MB,
        size!(whatif_bytes_max),
        "Bytes of values that a WHATIF copies to try its command on.",
    )
    .redis(&["whatif-max-bytes"]),
    // ---- storage
    row(
        "storage",
        "data_dir",
        Kind::Path,
        (
            |s| Value::Text(s.data_dir.display().to_string()),
            |s, v| s.data_dir = PathBuf::from(v.text()),
        ),
        "The folder that holds everything durable; made at the first start.",
    )
    .redis(&["dir"])
    .flag("data-dir")
    .change(Change::Protected),
    row(
        "storage",
        "aof_enabled",
        Kind::Bool,
        yes_no!(log_enabled),
        "Keep the append-only log. Without it the data ends with the process.",
    )
    .flag("no-log")
    .redis(&["appendonly"])
    .change(Change::Restart),
    row(
        "storage",
        "aof_path",
        Kind::Path,
        optional_path!(log_path),
        "The folder of the log, if not log in data_dir. Given as flag or variable it turns a log on that the file turns off; beside a flag or variable that turns it off it is an error.",
    )
    .flag("aof-path")
    .short_env("ALCID_LOG_PATH")
    .change(Change::Protected),
    row(
        "storage",
        "aof_fsync",
        Kind::Word(Fsync::WORDS),
        word!(Fsync, fsync),
        "When the log is synced: before each reply, once a second, or when the system likes.",
    )
    .redis(&["appendfsync"])
    .flag("aof-fsync"),
    row(
        "storage",
        "aof_compression",
        Kind::Word(Compression::WORDS),
        word!(Compression, compression),
        "Compression of new batches of the log; old ones stay readable.",
    ),
    row(
        "storage",
        "log_segment_size",
        FROM_1_MB,
        size!(log_segment_bytes),
        "Size at which the log begins a new file. Files that nothing needs any more are removed whole.",
    )
    .change(Change::Restart),
    row(
        "storage",
        "log_retention_count",
        Kind::Integer { min: 0, max: 1_000_000 },
        integer!(log_retention_count),
        "Files of the log kept beyond those that recovery needs.",
    ),
    row(
        "storage",
        "max_log_size",
        ANY_SIZE,
        size!(max_log_bytes),
        "Bytes of the files kept beyond those that recovery needs, the oldest going first; 0 means without limit.",
    ),
    row(
        "storage",
        "archive_path",
        Kind::Path,
        optional_path!(archive_path),
        "The folder of the archive, if not archive in data_dir.",
    )
    .change(Change::Protected),
    row(
        "storage",
        "archive_lag",
        FROM_1_MB,
        size!(archive_lag_bytes),
        "Changes in the log after which the archive catches up. More saves writing where the same keys change again and again, and makes the start after a crash longer.",
    )
    .change(Change::Restart),
    row(
        "storage",
        "archive_lag_max",
        ANY_SIZE,
        size!(archive_lag_bytes_max),
        "Changes in the log that the archive may lack before writers wait for it, not below archive_lag; 0 means without limit.",
    ),
    row(
        "storage",
        "min_free_disk",
        ANY_SIZE,
        size!(disk_free_bytes_min),
        "Room on the log's disk, a twentieth of the disk at most, below which writes are refused with NOSPACE; reads go on. 0 refuses none before the disk is full.",
    ),
    row(
        "storage",
        "archive_idle",
        Kind::Seconds { max: INT },
        integer!(archive_idle_s),
        "Time without a change after which the archive catches up; 0 never does.",
    )
    .change(Change::Restart),
    row(
        "storage",
        "archive_interval",
        Kind::Seconds { max: INT },
        integer!(archive_interval_s),
        "Time after which the archive catches up in any case; 0 never does.",
    )
    .change(Change::Restart),
    row(
        "storage",
        "history_keep",
        Kind::Seconds { max: INT },
        integer!(history_keep_s),
        "Time that the past stays readable; 0 keeps no history, and costs nothing.",
    )
    .change(Change::Restart),
    row(
        "storage",
        "history_size",
        ANY_SIZE,
        size!(history_bytes),
        "Bytes of the log kept so that the past stays readable, the oldest going first; 0 means without limit.",
    ),
    row(
        "storage",
        "watch_log_size",
        ANY_SIZE,
        size!(watch_log_bytes),
        "Bytes of the log kept for a watch whose client does not keep up, where no history keeps them; see WATCHFROM.",
    ),
    row(
        "storage",
        "undo_window",
        Kind::Seconds { max: INT },
        integer!(undo_window_s),
        "Time in which UNDO brings back what FLUSHALL, FLUSHDB, REMOVE or BRANCH DELETE has taken away, whatever else is kept of the past; 0 turns that off. It takes a history: see history_keep.",
    )
    .redis(&["undo-window"]),
    row(
        "storage",
        "write_buffer_size",
        MEGABYTES,
        size!(write_buffer_bytes),
        "Memory for changes on their way into the archive; when it is full, the archive catches up.",
    )
    .change(Change::Restart),
    row(
        "storage",
        "block_cache_size",
        MEGABYTES,
        size!(block_cache_bytes),
        "Memory for parts of the archive that were read lately.",
    )
    .change(Change::Restart),
    row(
        "storage",
        "max_memory",
        ANY_SIZE,
        size!(max_memory),
        "Memory for data; 0 means without limit.",
    )
    .redis(&["maxmemory"])
    .flag("max-memory")
    .short_env("ALCID_MAX_MEMORY"),
    row(
        "storage",
        "eviction_policy",
        Kind::EvictionPolicy,
        word!(EvictionPolicy, policy),
        "What happens at max_memory: noeviction refuses writes with OOM; tier takes values out of memory that the archive \
         has, the least recently used first, and reads them back when they are asked for; the others delete keys, of \
         all or of those with a deadline (volatile), those used least recently (lru), least often (lfu), any (random), \
         or due first (ttl).",
    )
    .redis(&["maxmemory-policy"]),
    row(
        "storage",
        "eviction_samples",
        Kind::Integer { min: 1, max: 1000 },
        integer!(eviction_samples),
        "Keys of a database to look at for each that is deleted at max_memory: more come nearer to the exact order and take \
         more time.",
    )
    .redis(&["maxmemory-samples"]),
    row(
        "storage",
        "eviction_tenacity",
        Kind::Integer { min: 0, max: 100 },
        integer!(eviction_tenacity),
        "How long a command may delete keys at max_memory before it runs: 50 microseconds times this up to 10, from there \
         on 15% more with each step, and at 100 as long as it takes; a thread does the rest.",
    )
    .redis(&["maxmemory-eviction-tenacity"]),
    row(
        "storage",
        "lfu_log_factor",
        POSITIVE_INT,
        integer!(lfu_log_factor),
        "How slowly the access counter of OBJECT FREQ saturates.",
    )
    .redis(&["lfu-log-factor"]),
    row(
        "storage",
        "lfu_decay_minutes",
        POSITIVE_INT,
        integer!(lfu_decay_minutes),
        "Minutes after which that counter goes down by one; 0 never does.",
    )
    .redis(&["lfu-decay-time"]),
    // ---- backup
    row(
        "backup",
        "folder",
        Kind::Path,
        optional_path!(backup_folder),
        "The folder of scheduled backups, best on another disk: each gets a folder of its own there, named after its time.",
    )
    .change(Change::Protected),
    row(
        "backup",
        "schedule",
        Kind::Schedule,
        (
            |s| Value::Text(s.backup_schedule.clone()),
            |s, v| s.backup_schedule = v.text().to_owned(),
        ),
        "When a backup is made: so long after the last one, as \"6h\", or by a cron line in UTC, as \"30 3 * * *\"; empty makes none.",
    ),
    row(
        "backup",
        "keep",
        Kind::Integer { min: 1, max: 1_000_000 },
        integer!(backup_keep),
        "Scheduled backups that are kept; older ones are removed once a new one is made and has been read again.",
    ),
    row(
        "backup",
        "history",
        Kind::Bool,
        yes_no!(backup_history),
        "Whether scheduled backups carry the history, so that every state can be restored that the server could read.",
    ),
    // ---- encoding
    row(
        "encoding",
        "hash_max_listpack_entries",
        POSITIVE,
        integer!(encoding.hash_max_listpack_entries),
        "Fields of a hash in compact encoding.",
    )
    .redis(&["hash-max-listpack-entries", "hash-max-ziplist-entries"]),
    row(
        "encoding",
        "hash_max_listpack_value",
        UP_TO_LONG,
        size!(encoding.hash_max_listpack_value),
        "Bytes of the longest field or value of a hash in compact encoding.",
    )
    .redis(&["hash-max-listpack-value", "hash-max-ziplist-value"]),
    row(
        "encoding",
        "list_max_listpack_size",
        Kind::Integer { min: i32::MIN as i64, max: INT },
        integer!(encoding.list_max_listpack_size),
        "Elements of one node of a list, or its size class: -1 is 4 KiB, -2 8 KiB, to -5 64 KiB.",
    )
    .redis(&["list-max-listpack-size", "list-max-ziplist-size"]),
    row(
        "encoding",
        "set_max_intset_entries",
        POSITIVE,
        integer!(encoding.set_max_intset_entries),
        "Members of a set of integers in compact encoding.",
    )
    .redis(&["set-max-intset-entries"]),
    row(
        "encoding",
        "set_max_listpack_entries",
        POSITIVE,
        integer!(encoding.set_max_listpack_entries),
        "Members of a set in compact encoding.",
    )
    .redis(&["set-max-listpack-entries"]),
    row(
        "encoding",
        "set_max_listpack_value",
        UP_TO_LONG,
        size!(encoding.set_max_listpack_value),
        "Bytes of the longest member of a set in compact encoding.",
    )
    .redis(&["set-max-listpack-value"]),
    row(
        "encoding",
        "zset_max_listpack_entries",
        POSITIVE,
        integer!(encoding.zset_max_listpack_entries),
        "Members of a sorted set in compact encoding.",
    )
    .redis(&["zset-max-listpack-entries", "zset-max-ziplist-entries"]),
    row(
        "encoding",
        "zset_max_listpack_value",
        UP_TO_LONG,
        size!(encoding.zset_max_listpack_value),
        "Bytes of the longest member of a sorted set in compact encoding.",
    )
    .redis(&["zset-max-listpack-value", "zset-max-ziplist-value"]),
    row(
        "encoding",
        "listpack_lists_and_sets",
        Kind::Bool,
        yes_no!(encoding.listpack_lists_and_sets),
        "Whether OBJECT ENCODING says listpack for small lists and sets, as Redis 7.2 does; if not, quicklist and hashtable, as 7.0.",
    ),
    // ---- events
    row(
        "events",
        "notify_keyspace_events",
        Kind::Events,
        (
            |s| Value::Text(s.notify_keyspace_events.clone()),
            |s, v| s.notify_keyspace_events = v.text().to_owned(),
        ),
        "Keyspace notifications to publish: K and E choose the channels, the other letters the events; empty for none.",
    )
    .redis(&["notify-keyspace-events"]),
    // ---- diagnostics
    row(
        "diagnostics",
        "slowlog_slower_than_us",
        Kind::Integer { min: -1, max: i64::MAX },
        integer!(slowlog_slower_than_us),
        "Microseconds after which a command enters the slow log; 0 takes every command, -1 none.",
    )
    .redis(&["slowlog-log-slower-than"]),
    row(
        "diagnostics",
        "slowlog_max_len",
        POSITIVE,
        integer!(slowlog_max_len),
        "Entries the slow log keeps.",
    )
    .redis(&["slowlog-max-len"]),
    row(
        "diagnostics",
        "latency_monitor_threshold_ms",
        POSITIVE,
        integer!(latency_monitor_threshold_ms),
        "Milliseconds after which LATENCY remembers an event; 0 never does.",
    )
    .redis(&["latency-monitor-threshold"]),
    // ---- security
    row(
        "security",
        "password",
        Kind::Secret,
        (
            |s| Value::Text(s.requirepass.expose().to_owned()),
            |s, v| s.requirepass = SecretString::new(v.text()),
        ),
        "Password of the default user; empty for none. CONFIG GET shows only whether there is one.",
    )
    .redis(&["requirepass"]),
    // ---- logging
    row(
        "logging",
        "level",
        Kind::LogLevel,
        word!(LogLevel, logging.level),
        "The least severe event that the diagnostics show.",
    )
    .redis(&["loglevel"])
    .flag("log-level")
    .short_env("ALCID_LOG_LEVEL"),
    row(
        "logging",
        "format",
        Kind::Word(LogFormat::WORDS),
        word!(LogFormat, logging.format),
        "The shape of a diagnostics line.",
    )
    .flag("format")
    .change(Change::Restart),
    row(
        "logging",
        "file",
        Kind::Path,
        optional_path!(logging.file),
        "File of the diagnostics; empty for standard error.",
    )
    .key_aliases(&["file_path"])
    .redis(&["logfile"])
    .change(Change::Restart),
    row(
        "logging",
        "rotation",
        Kind::Word(LogRotation::WORDS),
        word!(LogRotation, logging.rotation),
        "When the diagnostics move on to a new file.",
    )
    .change(Change::Restart),
    row(
        "logging",
        "max_file_size",
        Kind::Size { min: 1 << 10, max: i64::MAX as u64 },
        size!(logging.max_file_size),
        "Bytes of one file, with rotation by size.",
    )
    .change(Change::Restart),
    row(
        "logging",
        "max_files",
        Kind::Integer { min: 1, max: 10_000 },
        integer!(logging.max_files),
        "Files kept, the current one included; the oldest are removed.",
    )
    .change(Change::Restart),
    row(
        "logging",
        "enable_colors",
        Kind::Bool,
        yes_no!(logging.enable_colors),
        "Colours where the diagnostics go to a terminal.",
    )
    .change(Change::Restart),
    // ---- accepted from Redis's clients, no effect
    accepted!(
        "save",
        Kind::SavePoints,
        Value::Text(String::new()),
        "Snapshot schedule. The log saves every change sooner, and storage.archive_lag and its like say when the archive catches up; so save points are refused only while the log is off."
    ),
    accepted!(
        "daemonize",
        Kind::Bool,
        NO,
        "Alcid stays in the foreground; a service manager puts it in the background."
    )
    .change(Change::Immutable),
    accepted!(
        "lazyfree-lazy-eviction",
        Kind::Bool,
        YES,
        "Large values are always freed off the lock."
    ),
    accepted!("lazyfree-lazy-expire", Kind::Bool, YES, "As lazyfree-lazy-eviction."),
    accepted!("lazyfree-lazy-server-del", Kind::Bool, YES, "As lazyfree-lazy-eviction."),
    accepted!("lazyfree-lazy-user-del", Kind::Bool, YES, "As lazyfree-lazy-eviction."),
    accepted!("lazyfree-lazy-user-flush", Kind::Bool, YES, "As lazyfree-lazy-eviction."),
    accepted!(
        "list-compress-depth",
        POSITIVE_INT,
        Value::Integer(0),
        "Lists are not compressed in memory."
    ),
    accepted!("activerehashing", Kind::Bool, YES, "Hash tables grow step by step by themselves."),
    accepted!("dynamic-hz", Kind::Bool, YES, "The background cycle adapts by itself."),
    accepted!(
        "rdbcompression",
        Kind::Bool,
        YES,
        "There are no snapshot files; aof_compression compresses the log."
    ),
    accepted!(
        "stop-writes-on-bgsave-error",
        Kind::Bool,
        YES,
        "A failed write to the log always stops writes."
    ),
    accepted!("aof-use-rdb-preamble", Kind::Bool, YES, "The log has one format of its own."),
    accepted!(
        "auto-aof-rewrite-percentage",
        POSITIVE_INT,
        Value::Integer(0),
        "The archive takes over by storage.archive_lag; the log is not rewritten."
    ),
    accepted!(
        "no-appendfsync-on-rewrite",
        Kind::Bool,
        NO,
        "The log is not rewritten, so nothing suspends its syncs."
    ),
    accepted!(
        "sanitize-dump-payload",
        Kind::Word(&["no", "yes", "clients"]),
        Value::Text("yes".to_owned()),
        "RESTORE always checks the whole payload."
    ),
    accepted!(
        "busy-reply-threshold",
        POSITIVE,
        Value::Integer(5000),
        "No command runs long enough to answer others with BUSY."
    )
    .redis(&["busy-reply-threshold", "lua-time-limit"]),
    accepted!(
        "stream-node-max-entries",
        POSITIVE,
        Value::Integer(100),
        "There are no streams yet."
    ),
    accepted!("stream-node-max-bytes", UP_TO_LONG, Value::Size(4096), "There are no streams yet."),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::Settings;

    #[test]
    fn names_are_unique() {
        let mut keys = HashSet::new();
        let mut outside = HashSet::new();
        for setting in SETTINGS {
            assert!(keys.insert(setting.name()), "{} stands twice", setting.name());
            for alias in setting.key_aliases {
                assert!(keys.insert(format!("{}.{alias}", setting.section)), "{alias}");
            }
            let env = setting.env().into_iter().chain(setting.short_env.map(str::to_owned));
            let flag = setting.flag.map(|flag| format!("--{flag}"));
            let redis = setting.redis.iter().map(|name| format!("redis {name}"));
            for name in env.chain(flag).chain(redis) {
                assert!(outside.insert(name.clone()), "{name} stands twice");
            }
        }
    }

    #[test]
    fn sections_stand_together() {
        let mut seen: Vec<&str> = Vec::new();
        for setting in SETTINGS {
            if seen.last() != Some(&setting.section) {
                assert!(!seen.contains(&setting.section), "{} is split", setting.section);
                seen.push(setting.section);
            }
        }
    }

    #[test]
    fn every_default_is_allowed_and_survives_writing() {
        let defaults = Settings::default();
        for setting in SETTINGS {
            let value = setting.value(&defaults);
            let shown = setting.kind.show_redis(&value);
            if !shown.is_empty() || setting.kind == Kind::SavePoints {
                assert_eq!(
                    setting.kind.parse_redis(shown.as_bytes()),
                    Ok(value.clone()),
                    "{}",
                    setting.name()
                );
            }
            let mut copy = defaults.clone();
            (setting.write)(&mut copy, &value);
            assert_eq!(setting.value(&copy), value, "{}", setting.name());
        }
    }

    #[test]
    fn docs_are_one_sentence_line() {
        for setting in SETTINGS {
            assert!(
                setting.doc.ends_with('.') && !setting.doc.contains('\n'),
                "{}",
                setting.name()
            );
        }
    }

    #[test]
    fn the_ends_of_every_range_fit_their_fields() {
        for setting in SETTINGS {
            let ends = match setting.kind {
                Kind::Integer { min, max } => vec![Value::Integer(min), Value::Integer(max)],
                Kind::Seconds { max } => vec![Value::Integer(0), Value::Integer(max)],
                Kind::Size { min, max } | Kind::Megabytes { min, max } => {
                    vec![Value::Size(min), Value::Size(max)]
                }
                Kind::Bool => vec![YES, NO],
                Kind::Word(words) => {
                    words.iter().map(|word| Value::Text((*word).to_owned())).collect()
                }
                _ => continue,
            };
            for end in ends {
                let mut settings = Settings::default();
                (setting.write)(&mut settings, &end);
                assert_eq!(setting.value(&settings), end, "{}", setting.name());
            }
        }
    }
}
