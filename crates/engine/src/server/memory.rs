//! MEMORY: where the bytes are.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use base::Revision;
use command::Result;

use crate::call::{Call, Handler, help};
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::server::process;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("memory|doctor", doctor),
    ("memory|help", memory_help),
    ("memory|malloc-stats", malloc_stats),
    ("memory|purge", purge),
    ("memory|stats", stats),
];

/// Bytes that connected clients hold: what they sent and what waits for them.
pub(crate) fn clients_bytes(engine: &Engine) -> u64 {
    let clients = engine.all_clients();
    clients.iter().map(|client| client.memory_bytes()).sum::<usize>() as u64
}

/// Where the bytes are.
pub(crate) struct MemoryUse {
    /// What the process took before it held data.
    pub(crate) startup: u64,
    /// Keys and values: what `maxmemory` bounds.
    pub(crate) data: u64,
    /// Clients' buffers.
    pub(crate) clients: u64,
    /// Branches, empty as they are at first.
    pub(crate) branches: u64,
    /// All of these.
    pub(crate) used: u64,
    /// The most that was used at once.
    pub(crate) peak: u64,
    /// Bytes in RAM, as the system counts them.
    pub(crate) resident: u64,
}

impl MemoryUse {
    pub(crate) fn of(engine: &Engine) -> MemoryUse {
        let startup = engine.gauges.startup_bytes;
        let (data, clients) = (engine.used_memory(), clients_bytes(engine));
        let branches = engine.branches.all();
        let branches = branches.iter().map(|it| it.keyspace.empty_bytes() as u64).sum();
        let used = startup + data + clients + branches;
        let peak = engine.gauges.memory_peak.fetch_max(used, Ordering::Relaxed).max(used);
        let resident = process::resident_bytes().unwrap_or(used);
        MemoryUse { startup, data, clients, branches, used, peak, resident }
    }
}

fn stats(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let engine = call.engine;
    let databases = match &call.open {
        Some(txn) => txn.statistics(),
        None => engine.branch_of(call.session).keyspace.statistics(),
    };
    let MemoryUse { startup, data, clients, used, peak, resident, .. } = MemoryUse::of(engine);
    let keys: usize = databases.iter().map(|(_, database)| database.keys).sum();
    let numbers = [
        ("peak.allocated", peak),
        ("total.allocated", used),
        ("startup.allocated", startup),
        ("clients.normal", clients),
        ("dataset.bytes", data),
        ("keys.count", keys as u64),
        ("keys.bytes-per-key", data.checked_div(keys as u64).unwrap_or(0)),
        ("process.resident", resident),
    ];
    let ratio = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let reply = &mut *call.reply;
    reply.map(numbers.len() + databases.len() + 3);
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(number as i64);
    }
    for (db, database) in &databases {
        reply.bulk(format!("db.{db}").as_bytes());
        reply.map(2);
        reply.bulk(b"keys");
        reply.count(database.keys);
        reply.bulk(b"deadlines");
        reply.count(database.deadlines);
    }
    for (name, value) in [
        ("dataset.percentage", 100.0 * ratio(data, used)),
        ("peak.percentage", 100.0 * ratio(used, peak)),
        ("fragmentation", ratio(resident, used)),
    ] {
        reply.bulk(name.as_bytes());
        reply.double(value);
    }
    Ok(Outcome::Done)
}

fn doctor(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let engine = call.engine;
    let (data, clients) = (engine.used_memory(), clients_bytes(engine));
    let max = call.live.max_memory;
    let mut text = String::new();
    if max > 0 && data > max / 10 * 9 {
        let _ = writeln!(
            text,
            "- Data takes {data} of {max} bytes (maxmemory). {}",
            if engine.tiers(call.live) {
                "At the limit values leave memory for the archive; reads of those take longer."
            } else {
                "At the limit writes are refused with OOM."
            }
        );
    }
    if clients > (64 << 20) && clients > data {
        let _ = writeln!(
            text,
            "- Clients' buffers take {clients} bytes, more than the data ({data}). CLIENT LIST shows whose \
             (qbuf, omem)."
        );
    }
    let resident = process::resident_bytes().unwrap_or(0);
    if resident > (256 << 20) && resident > 2 * (data + clients) {
        let _ = writeln!(
            text,
            "- The process holds {resident} bytes for {} bytes of data and buffers: memory freed lately that the \
             allocator has not given back, or the log's buffers.",
            data + clients
        );
    }
    if text.is_empty() {
        text = format!(
            "Nothing to mend: {data} bytes of data, {clients} bytes of clients' buffers.\n"
        );
    }
    call.reply.verbatim("txt", &text);
    Ok(Outcome::Done)
}

/// mimalloc prints its statistics and cannot hand them over; Redis says the
/// same of any allocator but its own.
fn malloc_stats(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.reply.bulk(b"Stats not supported for the current allocator");
    Ok(Outcome::Done)
}

/// The allocator gives free pages back on its own, so there is nothing to ask
/// it for; Redis answers OK as well where its allocator cannot be asked.
fn purge(call: &mut Call<'_, '_>) -> Result<Outcome> {
    call.engine.reclaimer.let_go(Revision(u64::MAX));
    call.reply.ok();
    Ok(Outcome::Done)
}

fn memory_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "MEMORY",
        &[
            "DOCTOR",
            "    Return memory problems reports.",
            "MALLOC-STATS",
            "    Return internal statistics report from the memory allocator.",
            "PURGE",
            "    Attempt to purge dirty pages for reclamation by the allocator.",
            "STATS",
            "    Return information about the memory usage of the server.",
            "USAGE <key> [SAMPLES <count>]",
            "    Return memory in bytes used by <key> and its value. Nested values are",
            "    sampled up to <count> times (default: 5, 0 means sample all).",
        ],
    )
}
