//! Results to text, CSV and JSON.

use std::fmt::Write;

use crate::load::TestResult;
use crate::plan::{Format, Plan};
use crate::workload::Workload;

/// Prints the tests of one run in one format.
pub(crate) struct Report<'a> {
    plan: &'a Plan,
    tests: usize,
    clean: bool,
}

/// Latencies in milliseconds, in the order they are printed.
struct Latency {
    columns: [(&'static str, f64); 7],
}

impl Latency {
    fn of(result: &TestResult) -> Latency {
        let histogram = &result.latency;
        let ms = |ns: u64| ns as f64 / 1e6;
        // The highest recorded value stands for a whole bucket; so do the
        // quantiles, which must not exceed it.
        let at = |quantile: f64| ms(histogram.value_at_quantile(quantile).min(histogram.max()));
        Latency {
            columns: [
                ("avg", histogram.mean() / 1e6),
                ("min", ms(histogram.min())),
                ("p50", at(0.50)),
                ("p95", at(0.95)),
                ("p99", at(0.99)),
                ("p99.9", at(0.999)),
                ("max", ms(histogram.max())),
            ],
        }
    }

    fn p50(&self) -> f64 {
        self.columns[2].1
    }
}

fn per_second(result: &TestResult) -> f64 {
    result.requests as f64 * 1e9 / result.elapsed_ns as f64
}

impl<'a> Report<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Report<'a> {
        Report { plan, tests: 0, clean: true }
    }

    /// Whether no answer so far was an error or wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.clean
    }

    /// What comes before the first test.
    pub(crate) fn head(&self) -> String {
        let plan = self.plan;
        match plan.format {
            Format::Text | Format::Quiet => String::new(),
            // redis-benchmark's columns, then our own.
            Format::Csv => "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\
                \"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\",\
                \"p99.9_latency_ms\",\"requests\",\"errors\",\"mismatches\"\n"
                .to_owned(),
            Format::Json => format!(
                "{{\"addr\":{},\"protocol\":{},\"clients\":{},\"threads\":{},\"pipeline\":{},\
                 \"keyspace\":{},\"value_bytes\":{},\"seed\":{},\"verify\":{},\"tests\":[",
                json_string(&plan.addr),
                if plan.is_resp3() { 3 } else { 2 },
                plan.clients,
                plan.threads,
                plan.pipeline,
                plan.keyspace,
                plan.size,
                plan.seed,
                plan.verify
            ),
        }
    }

    /// One finished test.
    pub(crate) fn test(&mut self, workload: &Workload, result: &TestResult) -> String {
        let mismatches = result.tally.as_ref().map_or(0, |tally| tally.mismatches);
        self.clean &= result.errors == 0 && mismatches == 0;
        self.tests += 1;
        match self.plan.format {
            Format::Text => self.text(workload, result),
            Format::Quiet => quiet(workload, result),
            Format::Csv => csv(workload, result, mismatches),
            Format::Json => {
                let comma = if self.tests > 1 { "," } else { "" };
                format!("{comma}\n{}", json(workload, result, mismatches))
            }
        }
    }

    /// What comes after the last test.
    pub(crate) fn tail(&self) -> String {
        match self.plan.format {
            Format::Json => "\n]}\n".to_owned(),
            _ => String::new(),
        }
    }

    fn text(&self, workload: &Workload, result: &TestResult) -> String {
        let plan = self.plan;
        let latency = Latency::of(result);
        let mut out = format!(
            "====== {} ======\n  {} in {:.2} seconds, {:.2} per second\n  {}, {}, \
             pipeline {}, keyspace {}, values of {}, seed {}\n",
            workload.title,
            counted(result.requests, "request"),
            result.elapsed_ns as f64 / 1e9,
            per_second(result),
            counted(plan.clients, "client"),
            counted(plan.threads, "thread"),
            plan.pipeline,
            plan.keyspace,
            counted(plan.size, "byte"),
            plan.seed
        );
        out += "  latency (msec):\n ";
        for (name, _) in latency.columns {
            let _ = write!(out, " {name:>9}");
        }
        out += "\n ";
        for (_, ms) in latency.columns {
            let _ = write!(out, " {ms:>9.3}");
        }
        out += "\n";
        for problem in problems(result) {
            let _ = writeln!(out, "  {problem}");
        }
        if let Some(tally) = &result.tally {
            let _ = writeln!(
                out,
                "  verified: {} right, {} wrong",
                counted(tally.checked, "check"),
                tally.mismatches
            );
        }
        out += "\n";
        out
    }
}

/// `1 client`, `2 clients`.
fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Errors and mismatches, a line each.
fn problems(result: &TestResult) -> Vec<String> {
    let mut lines = Vec::new();
    if result.errors > 0 {
        let first = result.first_error.as_deref().unwrap_or("not kept");
        lines.push(format!("error replies: {}, the first: {first}", result.errors));
    }
    if let Some(tally) = &result.tally {
        lines.extend(tally.examples.iter().map(|example| format!("mismatch: {example}")));
        let more = tally.mismatches - (tally.examples.len() as u64).min(tally.mismatches);
        if more > 0 {
            lines.push(format!("mismatches not shown: {more}"));
        }
    }
    lines
}

fn quiet(workload: &Workload, result: &TestResult) -> String {
    let mut out = format!(
        "{}: {:.2} requests per second, p50={:.3} msec\n",
        workload.title,
        per_second(result),
        Latency::of(result).p50()
    );
    for problem in problems(result) {
        let _ = writeln!(out, "  {problem}");
    }
    out
}

fn csv(workload: &Workload, result: &TestResult, mismatches: u64) -> String {
    let [avg, min, p50, p95, p99, p999, max] = Latency::of(result).columns.map(|(_, ms)| ms);
    let title = workload.title.replace('"', "\"\"");
    let mut row = format!("\"{title}\",\"{:.2}\"", per_second(result));
    for ms in [avg, min, p50, p95, p99, max, p999] {
        let _ = write!(row, ",\"{ms:.3}\"");
    }
    let _ = writeln!(row, ",\"{}\",\"{}\",\"{mismatches}\"", result.requests, result.errors);
    row
}

fn json(workload: &Workload, result: &TestResult, mismatches: u64) -> String {
    let mut object = format!(
        "{{\"test\":{},\"requests\":{},\"seconds\":{:.6},\"requests_per_second\":{:.2},\
         \"latency_ms\":{{",
        json_string(&workload.title),
        result.requests,
        result.elapsed_ns as f64 / 1e9,
        per_second(result)
    );
    for (index, (name, ms)) in Latency::of(result).columns.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(object, "{comma}\"{name}\":{ms:.6}");
    }
    let _ = write!(object, "}},\"errors\":{}", result.errors);
    if let Some(error) = &result.first_error {
        let _ = write!(object, ",\"first_error\":{}", json_string(error));
    }
    if let Some(tally) = &result.tally {
        let examples: Vec<String> = tally.examples.iter().map(|text| json_string(text)).collect();
        let _ = write!(
            object,
            ",\"checked\":{},\"mismatches\":{mismatches},\"mismatch_examples\":[{}]",
            tally.checked,
            examples.join(",")
        );
    }
    object.push('}');
    object
}

fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(json_string("a\"b\\c\n\u{e9}"), "\"a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
