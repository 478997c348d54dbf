//! INFO, by Redis's sections and field names.

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::DbIndex;
use command::{Result, Run, table};
use keyspace::DbStatistics;

use crate::call::{Call, Handler};
use crate::connection::REDIS_VERSION;
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::server::memory::MemoryUse;
use crate::server::process;
use crate::stats::CommandStats;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[("info", info)];

/// A section: its name, whether a bare INFO shows it, and who writes it.
struct Section {
    name: &'static str,
    is_default: bool,
    write: fn(&Source<'_>, &mut Fields),
}

const SECTIONS: &[Section] = &[
    Section { name: "Server", is_default: true, write: server },
    Section { name: "Clients", is_default: true, write: clients },
    Section { name: "Memory", is_default: true, write: memory },
    Section { name: "Persistence", is_default: true, write: persistence },
    Section { name: "Stats", is_default: true, write: stats },
    Section { name: "Replication", is_default: true, write: replication },
    Section { name: "CPU", is_default: true, write: cpu },
    Section { name: "Modules", is_default: true, write: |_, _| {} },
    Section { name: "Commandstats", is_default: false, write: commandstats },
    Section { name: "Errorstats", is_default: true, write: errorstats },
    Section { name: "Latencystats", is_default: false, write: latencystats },
    Section { name: "Cluster", is_default: true, write: cluster },
    Section { name: "Keyspace", is_default: true, write: keyspace },
];

/// What the sections read.
struct Source<'c> {
    engine: &'c Arc<Engine>,
    databases: Vec<(DbIndex, DbStatistics)>,
    /// Keys that stand in the archive only.
    unloaded: u64,
    now_ms: u64,
}

/// The text so far.
#[derive(Default)]
struct Fields(String);

impl Fields {
    fn add(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    fn all<V: Display>(&mut self, fields: &[(&str, V)]) {
        fields.iter().for_each(|(name, value)| self.add(name, value));
    }
}

fn info(call: &mut Call<'_, '_>) -> Result<Outcome> {
    // The figures include what this client's batch has counted so far.
    call.session.tally.flush(&call.engine.stats);
    // EXEC holds the locks.
    let (databases, unloaded) = match &call.open {
        Some(txn) => (txn.statistics(), txn.unloaded()),
        None => {
            let branch = call.engine.branch_of(call.session);
            (branch.keyspace.statistics(), branch.keyspace.unloaded())
        }
    };
    let source = Source { engine: call.engine, databases, unloaded, now_ms: call.now_ms };
    let mut text = Fields::default();
    for section in SECTIONS.iter().filter(|section| is_wanted(section, call.args)) {
        if !text.0.is_empty() {
            text.0.push_str("\r\n");
        }
        let _ = write!(text.0, "# {}\r\n", section.name);
        (section.write)(&source, &mut text);
    }
    call.reply.verbatim("txt", &text.0);
    Ok(Outcome::Done)
}

fn is_wanted(section: &Section, wanted: &[&[u8]]) -> bool {
    if wanted.is_empty() {
        return section.is_default;
    }
    wanted.iter().any(|name| {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        is(section.name) || is("all") || is("everything") || (is("default") && section.is_default)
    })
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn server(source: &Source<'_>, out: &mut Fields) {
    let engine = source.engine;
    let identity = &engine.identity;
    let settings = engine.live().settings.clone();
    let uptime_s = source.now_ms.saturating_sub(engine.started_ms) / 1000;
    out.add("redis_version", REDIS_VERSION);
    out.add("alcid_version", env!("CARGO_PKG_VERSION"));
    out.add("redis_git_sha1", "00000000");
    out.add("redis_git_dirty", 0);
    out.add("redis_build_id", "0");
    out.add("redis_mode", "standalone");
    out.add("os", format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    out.add("arch_bits", usize::BITS);
    out.add("monotonic_clock", "POSIX clock_gettime");
    out.add("multiplexing_api", "tokio");
    out.add("process_id", std::process::id());
    out.add("process_supervised", "no");
    out.add("run_id", &identity.run_id);
    out.add("tcp_port", identity.tcp_port);
    out.add("branch_ports", &settings.branch_ports);
    out.add("server_time_usec", engine.clock.now_us());
    out.add("uptime_in_seconds", uptime_s);
    out.add("uptime_in_days", uptime_s / 86_400);
    out.add("hz", settings.hz);
    out.add("configured_hz", settings.hz);
    out.add("lru_clock", (source.now_ms / 1000) & 0x00ff_ffff);
    out.add("executable", &identity.executable);
    let config_file = identity.config_file.as_ref();
    out.add("config_file", config_file.map(|path| path.display().to_string()).unwrap_or_default());
    out.add("data_dir", settings.data_dir.display());
}

fn clients(source: &Source<'_>, out: &mut Fields) {
    let engine = source.engine;
    let all = engine.all_clients();
    let input = all.iter().map(|client| load_size(&client.activity.query_buffer)).max();
    let output = all.iter().map(|client| load_size(&client.activity.output_buffer)).max();
    let watches = engine.watch_counts();
    let tracking =
        all.iter().filter(|client| client.activity.tracking.load(Ordering::Relaxed)).count();
    out.all(&[
        ("connected_clients", all.len()),
        ("cluster_connections", 0),
        ("maxclients", engine.live().settings.max_connections as usize),
        ("client_recent_max_input_buffer", input.unwrap_or(0)),
        ("client_recent_max_output_buffer", output.unwrap_or(0)),
        ("blocked_clients", engine.blocking.len()),
        ("tracking_clients", tracking),
        ("watches", watches.open),
        ("watches_behind", watches.behind),
        ("watch_lag_revisions", watches.lag),
        ("clients_in_timeout_table", engine.blocking.len()),
        ("total_blocking_keys", engine.blocking.key_count()),
        ("total_blocking_keys_on_nokey", 0),
    ]);
}

fn load_size(gauge: &std::sync::atomic::AtomicUsize) -> usize {
    gauge.load(Ordering::Relaxed)
}

fn memory(source: &Source<'_>, out: &mut Fields) {
    let engine = source.engine;
    let live = engine.live();
    let MemoryUse { startup, data, clients, branches, used, peak, resident } =
        MemoryUse::of(engine);
    let machine = process::machine_bytes().unwrap_or(0);
    let mut both = |name: &str, bytes: u64| {
        out.add(name, bytes);
        out.add(&format!("{name}_human"), human(bytes));
    };
    both("used_memory", used);
    both("used_memory_rss", resident);
    both("used_memory_peak", peak);
    out.add("used_memory_peak_perc", format_args!("{:.2}%", percent(used, peak)));
    out.add("used_memory_overhead", startup + clients + branches);
    out.add("used_memory_branches", branches);
    out.add("used_memory_startup", startup);
    out.add("used_memory_dataset", data);
    out.add("used_memory_dataset_perc", format_args!("{:.2}%", percent(data, used - startup)));
    let mut both = |name: &str, bytes: u64| {
        out.add(name, bytes);
        out.add(&format!("{name}_human"), human(bytes));
    };
    both("total_system_memory", machine);
    both("maxmemory", live.max_memory);
    out.add("maxmemory_policy", live.settings.policy.as_str());
    out.add("mem_fragmentation_ratio", format_args!("{:.2}", resident as f64 / used.max(1) as f64));
    out.add("mem_fragmentation_bytes", resident.cast_signed() - used.cast_signed());
    out.add("mem_not_counted_for_evict", startup + clients);
    out.add("mem_clients_normal", clients);
    out.add("mem_allocator", "mimalloc");
    engine.reclaimer.publish(&engine.stats);
    out.add("lazyfree_pending_objects", load(&engine.stats.lazyfree_pending));
    out.add("lazyfreed_objects", load(&engine.stats.lazyfreed));
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// Bytes as Redis shows them: `1.50M`.
fn human(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "K", "M", "G", "T", "P"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{amount:.2}{unit}") };
        }
        amount /= 1024.0;
    }
    format!("{bytes}B")
}

fn persistence(source: &Source<'_>, out: &mut Fields) {
    let engine = source.engine;
    let saves = engine.report_saves();
    let now_ns = engine.clock.monotonic_ns();
    let status = |is_well: bool| if is_well { "ok" } else { "err" };
    let seconds = |seconds: Option<u64>| seconds.map_or(-1, u64::cast_signed);
    let (snapshot, rewrite) = (&saves.bgsave, &saves.bgrewriteaof);
    out.add("loading", 0);
    // Where values leave memory, keys that are not there are none to wait for.
    let keys_to_load = if engine.tiers(&engine.live()) { 0 } else { source.unloaded };
    out.add("async_loading", u8::from(keys_to_load > 0));
    out.add("keys_to_load", keys_to_load);
    out.add("rdb_changes_since_last_save", saves.unsaved);
    out.add("rdb_bgsave_in_progress", u8::from(snapshot.is_running()));
    out.add("rdb_last_save_time", saves.last_save_ms / 1000);
    out.add("rdb_last_bgsave_status", status(!snapshot.failed && !saves.has_fault));
    out.add("rdb_last_bgsave_time_sec", seconds(saves.seconds));
    out.add("rdb_current_bgsave_time_sec", seconds(snapshot.running_seconds(now_ns)));
    out.add("rdb_saves", saves.saves);
    out.add("aof_rewrite_in_progress", u8::from(rewrite.is_running()));
    out.add("aof_rewrite_scheduled", 0);
    out.add("aof_last_rewrite_time_sec", seconds(rewrite.seconds));
    out.add("aof_current_rewrite_time_sec", seconds(rewrite.running_seconds(now_ns)));
    out.add("aof_last_bgrewrite_status", status(!rewrite.failed));
    out.add("aof_rewrites", rewrite.done);
    out.all(&engine.replicator.info());
    if let Some(archive) = engine.archive() {
        out.all(&engine.room_info());
        out.all(&archive.info());
        out.all(&engine.report_backups());
    }
}

fn stats(source: &Source<'_>, out: &mut Fields) {
    let engine = source.engine;
    let (stats, gauges) = (&engine.stats, &engine.gauges);
    let rates = gauges.rates();
    let (channels, patterns, shard_channels) = engine.pubsub.counts();
    let kilobytes = |rate: f64| format!("{:.2}", rate / 1024.0);
    out.add("total_connections_received", load(&stats.connections_received));
    out.add("total_commands_processed", load(&stats.commands_processed));
    out.add("instantaneous_ops_per_sec", rates.commands as u64);
    out.add("total_net_input_bytes", load(&stats.bytes_in));
    out.add("total_net_output_bytes", load(&stats.bytes_out));
    out.add("instantaneous_input_kbps", kilobytes(rates.bytes_in));
    out.add("instantaneous_output_kbps", kilobytes(rates.bytes_out));
    out.add("rejected_connections", load(&stats.rejected_connections));
    out.add("expired_keys", load(&stats.expired_keys));
    out.add("expired_time_cap_reached_count", load(&stats.expire_cycle_cut));
    out.add("expire_cycle_cpu_milliseconds", load(&stats.expire_cycle_us) / 1000);
    out.add("evicted_keys", load(&stats.evicted_keys));
    let (exceeded_ms, exceeded_total_ms) = engine.exceeded_ms();
    out.add("total_eviction_exceeded_time", exceeded_total_ms);
    out.add("current_eviction_exceeded_time", exceeded_ms);
    out.add("tier_keys", source.unloaded);
    out.add("tier_evicted_keys", load(&stats.tier_evicted_keys));
    out.add("tier_evicted_bytes", load(&stats.tier_evicted_bytes));
    out.add("tier_loaded_keys", load(&stats.tier_loaded_keys));
    out.add("tier_load_us", load(&stats.tier_load_us));
    out.add("evicted_clients", load(&stats.evicted_clients));
    out.add("keyspace_hits", load(&stats.keyspace_hits));
    out.add("keyspace_misses", load(&stats.keyspace_misses));
    out.add("pubsub_channels", channels);
    out.add("pubsub_patterns", patterns);
    out.add("pubsubshard_channels", shard_channels);
    let tracking = engine.tracking.counts();
    out.add("tracking_total_keys", tracking.keys);
    out.add("tracking_total_items", tracking.items);
    out.add("tracking_total_prefixes", tracking.prefixes);
    out.add("total_error_replies", load(&stats.error_replies));
    out.add(
        "client_query_buffer_limit_disconnections",
        load(&stats.query_buffer_limit_disconnections),
    );
    out.add(
        "client_output_buffer_limit_disconnections",
        load(&stats.output_buffer_limit_disconnections),
    );
    out.add("client_timeout_disconnections", load(&stats.client_timeouts));
}

fn replication(source: &Source<'_>, out: &mut Fields) {
    let engine = source.engine;
    out.add("role", "master");
    out.add("connected_slaves", 0);
    out.add("master_failover_state", "no-failover");
    out.add("master_replid", &engine.identity.run_id);
    out.add("master_replid2", "0".repeat(40));
    out.add("master_repl_offset", engine.replicator.newest());
    out.add("second_repl_offset", -1);
    out.add("repl_backlog_active", 0);
}

fn cpu(_: &Source<'_>, out: &mut Fields) {
    let Some(used) = process::cpu_time() else { return };
    for (name, seconds) in [
        ("used_cpu_sys", used.system_s),
        ("used_cpu_user", used.user_s),
        ("used_cpu_sys_children", used.children_system_s),
        ("used_cpu_user_children", used.children_user_s),
    ] {
        out.add(name, format_args!("{seconds:.6}"));
    }
}

fn used_commands(engine: &Engine) -> impl Iterator<Item = (&'static str, &CommandStats)> {
    table()
        .all()
        .filter(|command| !matches!(command.spec.run, Run::Container))
        .map(|command| (command.full_name.as_str(), &engine.stats.commands[command.id]))
        .filter(|(_, stats)| load(&stats.calls) + load(&stats.rejected) + load(&stats.failed) > 0)
}

fn commandstats(source: &Source<'_>, out: &mut Fields) {
    for (name, stats) in used_commands(source.engine) {
        let (calls, us) = (load(&stats.calls), load(&stats.ns) / 1000);
        out.add(
            &format!("cmdstat_{name}"),
            format_args!(
                "calls={calls},usec={us},usec_per_call={:.2},rejected_calls={},failed_calls={}",
                load(&stats.ns) as f64 / 1000.0 / calls.max(1) as f64,
                load(&stats.rejected),
                load(&stats.failed)
            ),
        );
    }
}

fn errorstats(source: &Source<'_>, out: &mut Fields) {
    for (code, count) in source.engine.stats.errors.lock().iter() {
        out.add(&format!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latencystats(source: &Source<'_>, out: &mut Fields) {
    for (name, stats) in used_commands(source.engine) {
        let us = |share| percentile_ns(stats, share) as f64 / 1000.0;
        out.add(
            &format!("latency_percentiles_usec_{name}"),
            format_args!("p50={:.3},p99={:.3},p99.9={:.3}", us(0.5), us(0.99), us(0.999)),
        );
    }
}

/// The bound that this share of the calls stayed below. The histogram's steps
/// are powers of two.
fn percentile_ns(stats: &CommandStats, share: f64) -> u64 {
    let counts: Vec<u64> = stats.histogram.iter().map(load).collect();
    let wanted = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (bits, count) in counts.iter().enumerate() {
        seen += count;
        if *count > 0 && seen >= wanted {
            return (1 << bits) - 1;
        }
    }
    0
}

fn cluster(_: &Source<'_>, out: &mut Fields) {
    out.add("cluster_enabled", 0);
}

fn keyspace(source: &Source<'_>, out: &mut Fields) {
    for (db, database) in &source.databases {
        let ttl = database.deadline_ms_mean.saturating_sub(source.now_ms);
        out.add(
            &format!("db{db}"),
            format_args!("keys={},expires={},avg_ttl={ttl}", database.keys, database.deadlines),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_redis_does() {
        for (bytes, shown) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1536, "1.50K"), (3 << 30, "3.00G")]
        {
            assert_eq!(human(bytes), shown);
        }
    }

    #[test]
    fn percentiles_come_from_the_histogram() {
        let stats = CommandStats::default();
        stats.histogram[4].store(98, Ordering::Relaxed);
        stats.histogram[20].store(2, Ordering::Relaxed);
        assert_eq!(percentile_ns(&stats, 0.5), 15);
        assert_eq!(percentile_ns(&stats, 0.99), (1 << 20) - 1);
        assert_eq!(percentile_ns(&CommandStats::default(), 0.5), 0);
    }
}
