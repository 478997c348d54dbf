//! LATENCY: samples of events that took long, and how long commands take.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use command::flags::FAST;
use command::{Command, Error, Result, table};
use parking_lot::Mutex;

use super::commands::by_full_name;
use crate::call::{Call, Handler, help};
use crate::engine::Live;
use crate::execute::Outcome;
use crate::stats::CommandStats;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("latency|doctor", doctor),
    ("latency|graph", graph),
    ("latency|help", latency_help),
    ("latency|histogram", histogram),
    ("latency|history", history),
    ("latency|latest", latest),
    ("latency|reset", reset),
];

/// Samples kept of an event, as in Redis.
const SAMPLES_MAX: usize = 160;

/// Samples by event. Only what took `latency-monitor-threshold` or longer.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    events: Mutex<BTreeMap<&'static str, Series>>,
}

#[derive(Clone, Debug, Default)]
struct Series {
    /// Oldest first; at most one a second, the longest of it.
    samples: std::collections::VecDeque<Sample>,
    max_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    time_s: u64,
    ms: u64,
}

impl Latency {
    /// Samples a command that took `ns` nanoseconds. On the path of every
    /// command: the common case is one compare.
    #[inline]
    pub(crate) fn command(&self, live: &Live, command: &Command, ns: u64, now_ms: u64) {
        if ns >= live.latency_threshold_ns {
            let event = if command.flags.has(FAST) { "fast-command" } else { "command" };
            self.sample(event, ns, now_ms);
        }
    }

    /// Samples an event of the server's own.
    pub(crate) fn event(&self, live: &Live, event: &'static str, ns: u64, now_ms: u64) {
        if ns >= live.latency_threshold_ns {
            self.sample(event, ns, now_ms);
        }
    }

    #[cold]
    fn sample(&self, event: &'static str, ns: u64, now_ms: u64) {
        let (ms, time_s) = (ns / 1_000_000, now_ms / 1000);
        let mut events = self.events.lock();
        let series = events.entry(event).or_default();
        series.max_ms = series.max_ms.max(ms);
        if let Some(last) = series.samples.back_mut().filter(|last| last.time_s == time_s) {
            last.ms = last.ms.max(ms);
            return;
        }
        if series.samples.len() == SAMPLES_MAX {
            series.samples.pop_front();
        }
        series.samples.push_back(Sample { time_s, ms });
    }

    fn series(&self, event: &[u8]) -> Option<Series> {
        let events = self.events.lock();
        events.iter().find(|(name, _)| name.as_bytes() == event).map(|(_, series)| series.clone())
    }
}

fn history(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let series = call.engine.latency.series(call.args[0]).unwrap_or_default();
    call.reply.array(series.samples.len());
    for sample in series.samples {
        call.reply.array(2);
        call.reply.integer(sample.time_s as i64);
        call.reply.integer(sample.ms as i64);
    }
    Ok(Outcome::Done)
}

fn latest(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let events = call.engine.latency.events.lock().clone();
    call.reply.array(events.len());
    for (name, series) in events {
        let last = series.samples.back().copied().unwrap_or(Sample { time_s: 0, ms: 0 });
        call.reply.array(4);
        call.reply.bulk(name.as_bytes());
        call.reply.integer(last.time_s as i64);
        call.reply.integer(last.ms as i64);
        call.reply.integer(series.max_ms as i64);
    }
    Ok(Outcome::Done)
}

fn reset(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut events = call.engine.latency.events.lock();
    let before = events.len();
    if call.args.is_empty() {
        events.clear();
    } else {
        events.retain(|name, _| !call.args.contains(&name.as_bytes()));
    }
    call.reply.count(before - events.len());
    Ok(Outcome::Done)
}

/// Rows of the graph of LATENCY GRAPH, and its columns at most.
const GRAPH_ROWS: u64 = 4;
const GRAPH_COLUMNS: usize = 80;

fn graph(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let event = String::from_utf8_lossy(call.args[0]).into_owned();
    let series = call
        .engine
        .latency
        .series(call.args[0])
        .ok_or_else(|| Error::new(format!("ERR No samples available for event '{event}'")))?;
    call.reply.verbatim("txt", &draw(&event, &series, call.now_ms / 1000));
    Ok(Outcome::Done)
}

/// Columns of the newest samples, the oldest left, under each how long ago it
/// was, read from top to bottom.
fn draw(event: &str, series: &Series, now_s: u64) -> String {
    let skipped = series.samples.len().saturating_sub(GRAPH_COLUMNS);
    let samples: Vec<Sample> = series.samples.iter().skip(skipped).copied().collect();
    let high = samples.iter().map(|sample| sample.ms).max().unwrap_or(0);
    let low = samples.iter().map(|sample| sample.ms).min().unwrap_or(0);
    let mut text = format!(
        "{event} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        series.max_ms,
        "-".repeat(GRAPH_COLUMNS)
    );
    let height = |sample: &Sample| 1 + (sample.ms - low) * (GRAPH_ROWS - 1) / (high - low).max(1);
    for row in (1..=GRAPH_ROWS).rev() {
        let line: String = samples
            .iter()
            .map(|sample| match height(sample) {
                top if top == row => '#',
                top if top > row => '|',
                _ => ' ',
            })
            .collect();
        text += line.trim_end();
        text.push('\n');
    }
    let ages: Vec<Vec<u8>> =
        samples.iter().map(|sample| age(now_s.saturating_sub(sample.time_s)).into()).collect();
    for row in 0..ages.iter().map(Vec::len).max().unwrap_or(0) {
        let line: String =
            ages.iter().map(|age| char::from(age.get(row).copied().unwrap_or(b' '))).collect();
        let _ = write!(text, "\n{}", line.trim_end());
    }
    text
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn doctor(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let threshold_ms = call.live.settings.latency_monitor_threshold_ms;
    let events = call.engine.latency.events.lock().clone();
    let text = if threshold_ms == 0 && events.is_empty() {
        "Latency monitoring is off. CONFIG SET latency-monitor-threshold <milliseconds> turns it on: \
         events that take at least so long are remembered from then on.\n"
            .to_owned()
    } else if events.is_empty() {
        format!("No event took {threshold_ms} ms or longer.\n")
    } else {
        report(&events, threshold_ms)
    };
    call.reply.verbatim("txt", &text);
    Ok(Outcome::Done)
}

fn report(events: &BTreeMap<&'static str, Series>, threshold_ms: u64) -> String {
    let mut text = format!("Events that took {threshold_ms} ms or longer:\n\n");
    for (name, series) in events {
        let count = series.samples.len() as u64;
        let sum: u64 = series.samples.iter().map(|sample| sample.ms).sum();
        let _ = writeln!(
            text,
            "{name}: {count} samples, mean {} ms, longest {} ms.",
            sum / count.max(1),
            series.max_ms
        );
    }
    text += "\nAdvice:\n\n";
    if events.contains_key("command") || events.contains_key("fast-command") {
        text += "- SLOWLOG GET shows which commands were slow; slowlog-log-slower-than sets from when on.\n\
                 - Commands that walk whole collections (KEYS, SMEMBERS, LRANGE 0 -1, SORT) take time in \
                 proportion to them; SCAN and its family take it in small pieces.\n";
    }
    if events.contains_key("expire-cycle") {
        text += "- Many keys reach their deadlines together; spreading the deadlines, or a lower \
                 active-expire-effort, shortens the turns that remove them.\n";
    }
    text
}

fn histogram(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let stats = &call.engine.stats;
    // Commands that this client's batch has not given away yet.
    call.session.tally.flush(stats);
    let chosen: Vec<&Command> = if call.args.is_empty() {
        table().all().collect()
    } else {
        call.args
            .iter()
            .filter_map(|name| by_full_name(name))
            .flat_map(|command| std::iter::once(command).chain(&command.subcommands))
            .collect()
    };
    let used: Vec<(&Command, &CommandStats)> = chosen
        .into_iter()
        .map(|command| (command, &stats.commands[command.id]))
        .filter(|(_, counts)| counts.calls.load(Ordering::Relaxed) > 0)
        .collect();
    call.reply.map(used.len());
    for (command, counts) in used {
        let distribution = cumulative_us(counts);
        call.reply.bulk(command.full_name.as_bytes());
        call.reply.map(2);
        call.reply.bulk(b"calls");
        call.reply.integer(counts.calls.load(Ordering::Relaxed) as i64);
        call.reply.bulk(b"histogram_usec");
        call.reply.map(distribution.len());
        for (us, calls) in distribution {
            call.reply.integer(us as i64);
            call.reply.integer(calls as i64);
        }
    }
    Ok(Outcome::Done)
}

/// Calls that took at most so many microseconds, where the number grows. The
/// first bound is 1 µs, each next one about twice the one before.
fn cumulative_us(counts: &CommandStats) -> Vec<(u64, u64)> {
    let mut calls = 0;
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (bits, bucket) in counts.histogram.iter().enumerate() {
        let here = bucket.load(Ordering::Relaxed);
        if here == 0 {
            continue;
        }
        calls += here;
        let us = ((1u64 << bits.max(10)) - 1) / 1000;
        match all.last_mut().filter(|(last, _)| *last == us) {
            Some((_, sum)) => *sum = calls,
            None => all.push((us, calls)),
        }
    }
    all
}

fn latency_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "LATENCY",
        &[
            "DOCTOR",
            "    Return a human readable latency analysis report.",
            "GRAPH <event>",
            "    Return an ASCII latency graph for the <event> class.",
            "HISTORY <event>",
            "    Return time-latency samples for the <event> class.",
            "LATEST",
            "    Return the latest latency samples for all events.",
            "RESET [<event> ...]",
            "    Reset latency data of one or more <event> classes.",
            "    (default: reset all data for all event classes)",
            "HISTOGRAM [COMMAND ...]",
            "    Return a cumulative distribution of latencies in the format of a histogram for the specified command names.",
            "    If no commands are specified then all histograms are replied.",
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_keeps_its_longest_sample() {
        let latency = Latency::default();
        for (ms, now_ms) in [(5, 1000), (9, 1500), (7, 1900), (3, 2000)] {
            latency.sample("command", ms * 1_000_000, now_ms);
        }
        let series = latency.series(b"command").expect("there are samples");
        let samples: Vec<_> = series.samples.iter().map(|s| (s.time_s, s.ms)).collect();
        assert_eq!(samples, [(1, 9), (2, 3)]);
        assert_eq!(series.max_ms, 9);
        for second in 0..500 {
            latency.sample("command", 1_000_000, second * 1000 + 10_000);
        }
        assert_eq!(latency.series(b"command").map(|s| s.samples.len()), Some(SAMPLES_MAX));
    }

    #[test]
    fn the_graph_shows_high_and_low() {
        let samples = [1, 5, 9].map(|ms| Sample { time_s: ms, ms });
        let series = Series { samples: samples.into_iter().collect(), max_ms: 20 };
        let text = draw("command", &series, 10);
        assert!(
            text.starts_with("command - high 9 ms, low 1 ms (all time high 20 ms)\n"),
            "{text}"
        );
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(rows, ["  #", "  |", " #|", "#||", "", "951", "sss"]);
    }

    #[test]
    fn buckets_add_up() {
        let counts = CommandStats::default();
        counts.histogram[3].store(2, Ordering::Relaxed);
        counts.histogram[10].store(1, Ordering::Relaxed);
        counts.histogram[12].store(4, Ordering::Relaxed);
        assert_eq!(cumulative_us(&counts), [(1, 3), (4, 7)]);
    }
}
