//! `alcid bench` against a store that answers truly, and against one that lies.

mod stub;

use bench::{BenchArgs, run_to};
use clap::Parser;
use stub::{Lie, serve};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: BenchArgs,
}

fn parse(args: &[&str]) -> Result<BenchArgs, clap::Error> {
    Cli::try_parse_from([&["bench"], args].concat()).map(|cli| cli.args)
}

/// Runs with these arguments; the output and whether all was right.
fn bench(addr: &str, args: &[&str]) -> anyhow::Result<(String, bool)> {
    let args = parse(&[&["-a", addr], args].concat()).expect("valid arguments");
    let mut out = Vec::new();
    let is_clean = run_to(args, &mut out)?;
    Ok((String::from_utf8(out).expect("text"), is_clean))
}

const EVERY_TEST: [&str; 18] = [
    "PING_INLINE",
    "PING_MBULK",
    "SET",
    "GET",
    "INCR",
    "LPUSH",
    "RPUSH",
    "LPOP",
    "RPOP",
    "SADD",
    "HSET",
    "SPOP",
    "ZADD",
    "ZPOPMIN",
    "LRANGE_100",
    "LRANGE_300",
    "LRANGE_500",
    "LRANGE_600",
];

#[test]
fn every_test_runs_and_verifies() {
    let addr = serve(Lie::None);
    for variant in [
        &["-n", "600", "-c", "5"][..],
        &["-n", "1000", "-c", "7", "-P", "16", "-r", "50", "--threads", "3", "--verify"],
        &["-n", "600", "-c", "1", "-P", "600", "-d", "1kb", "--verify"],
        &["--duration", "20ms", "-c", "3", "-r", "10", "--verify"],
    ] {
        let (out, is_clean) = bench(&addr, variant).expect("runs");
        assert!(is_clean, "{variant:?}: {out}");
        for test in EVERY_TEST {
            assert!(out.contains(&format!("====== {test}")), "{variant:?}: {test}");
        }
        assert!(out.contains("====== MSET (10 keys)"), "{variant:?}");
        assert_eq!(out.contains("verified: "), variant.contains(&"--verify"), "{out}");
        assert!(!out.contains("mismatch"), "{out}");
    }
}

#[test]
fn exactly_the_requested_number_is_sent() {
    let addr = serve(Lie::None);
    for (count, pipeline) in [(1, 1), (7, 16), (1000, 16), (1001, 3)] {
        let (count, pipeline) = (count.to_string(), pipeline.to_string());
        let args = ["-n", &count, "-P", &pipeline, "-c", "4", "--threads", "2", "--csv"];
        let (out, _) = bench(&addr, &[&args[..], &["--", "INCR", "sent"]].concat()).expect("runs");
        assert!(out.contains(&format!("\"{count}\",\"0\",\"0\"\n")), "{out}");
        let (out, _) = bench(&addr, &["-n", "1", "-c", "1", "--", "GET", "sent"]).expect("runs");
        assert!(out.contains("  1 request in "), "{out}");
    }
    // The store counted as many as were reported.
    let total: u64 = 1 + 7 + 1000 + 1001;
    let options = client::Options::new(addr);
    let mut client = client::Client::connect(options).expect("connect");
    let reply = client.command(&["GET", "sent"]).expect("reply");
    assert_eq!(reply, client::Frame::bulk(total.to_string()));
}

#[test]
fn every_connection_runs_the_setup_first() {
    let addr = serve(Lie::None);
    let args = ["-n", "40", "-c", "4", "--setup", "INCR ready", "-q", "--", "GET", "ready"];
    let (_, is_clean) = bench(&addr, &args).expect("runs");
    assert!(is_clean);
    let mut client = client::Client::connect(client::Options::new(&addr)).expect("connect");
    assert_eq!(client.command(&["GET", "ready"]).expect("reply"), client::Frame::bulk("4"));
    let refused = ["-n", "7", "-c", "7", "--setup", "PING", "-t", "get"];
    let error = bench(&serve(Lie::Error), &refused).expect_err("the seventh is refused");
    assert!(format!("{error:#}").contains("run the command of --setup: ERR planted"), "{error:#}");
}

#[test]
fn lies_are_found() {
    for (lie, test, words) in [
        (Lie::WrongValue, "get", "GET of number 000000000"),
        (Lie::LostSet, "set", "after its SET"),
        (Lie::LostSet, "mset", "after its SET"),
        (Lie::LostIncr, "incr", "INCRs"),
        (Lie::LostPush, "lpush", "pushes"),
        (Lie::PopTwice, "spop", "popped twice"),
        (Lie::ShortRange, "lrange_100", "LRANGE_100"),
    ] {
        // Few requests to many keys, so that no later write mends a lost one.
        let args = ["-n", "60", "-c", "4", "-r", "1000", "--verify", "-t", test];
        let (out, is_clean) = bench(&serve(lie), &args).expect("runs");
        assert!(!is_clean, "{lie:?}: {out}");
        assert!(out.contains("mismatch: "), "{lie:?}: {out}");
        assert!(out.contains(words), "{lie:?}: {out}");
    }
}

#[test]
fn error_replies_are_counted_and_fail_the_run() {
    let addr = serve(Lie::Error);
    for args in [&["-n", "70", "-c", "1", "-t", "set"][..], &["-n", "70", "-c", "1", "--", "PING"]]
    {
        let (out, is_clean) = bench(&addr, args).expect("runs");
        assert!(!is_clean, "{out}");
        assert!(out.contains("error replies: 10, the first: ERR planted"), "{out}");
    }
}

#[test]
fn a_server_that_goes_away_or_falls_silent_ends_the_run() {
    let error =
        bench(&serve(Lie::HangUp), &["-n", "100", "-c", "3", "--threads", "3", "-t", "set"])
            .expect_err("the connection is closed");
    let text = format!("{error:#}");
    assert!(text.starts_with("run the test set against 127.0.0.1:"), "{text}");
    assert!(text.contains("closed a connection with 1 requests unanswered"), "{text}");

    let error =
        bench(&serve(Lie::Silence), &["-n", "10", "-c", "2", "-t", "get", "--timeout", "100ms"])
            .expect_err("no answer");
    let text = format!("{error:#}");
    assert!(text.contains("silent for 100ms with 2 requests unanswered"), "{text}");

    let error = bench("127.0.0.1:1", &["-t", "get"]).expect_err("nothing listens on port 1");
    assert!(format!("{error:#}").contains("connection to 127.0.0.1:1 refused"), "{error:#}");
}

#[test]
fn machine_readable_output() {
    let addr = serve(Lie::None);
    let args = ["-n", "20", "-c", "2", "-t", "set,get", "--seed", "7"];
    let (json, _) = bench(&addr, &[&args[..], &["--json", "--verify"]].concat()).expect("runs");
    assert!(json.starts_with(&format!("{{\"addr\":\"{addr}\",\"protocol\":2,\"clients\":2,")));
    assert!(json.contains("\"seed\":7,\"verify\":true,\"tests\":[\n{\"test\":\"SET\""), "{json}");
    assert!(json.contains("\"errors\":0,\"checked\":21,\"mismatches\":0"), "{json}");
    assert!(json.ends_with("}\n]}\n"), "{json}");
    assert_eq!(json.matches('{').count(), json.matches('}').count());

    let (csv, _) = bench(&addr, &[&args[..], &["--csv"]].concat()).expect("runs");
    let widths: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert_eq!(widths, [12, 12, 12], "{csv}");

    let (quiet, _) = bench(&addr, &[&args[..], &["-q"]].concat()).expect("runs");
    assert_eq!(quiet.lines().count(), 2, "{quiet}");
    assert!(quiet.starts_with("SET: ") && quiet.contains("requests per second, p50="), "{quiet}");
}

#[test]
fn arguments_out_of_bounds_name_the_value_and_the_bound() {
    for (args, words) in [
        (&["-c", "0"][..], &["'0'", "--clients", "1..=60000"][..]),
        (&["-n", "0"], &["'0'", "--requests", "1.."]),
        (&["-P", "100001"], &["'100001'", "--pipeline", "1..=100000"]),
        (&["-r", "4294967296"], &["4294967296", "--keyspace"]),
        (&["-d", "0"], &["'0'", "--size", "1..=536870912"]),
        (&["-d", "513mb"], &["513mb", "--size", "537919488", "1..=536870912"]),
        (&["-d", "x"], &["'x'", "--size", "not a size", "64kb"]),
        (&["--duration", "0"], &["--duration", "0ms is not in 1ms..=1d"]),
        (&["--duration", "5parsecs"], &["5parsecs", "not a duration"]),
        (&["-p", "0"], &["'0'", "--port", "1..=65535"]),
        (&["--duration", "1s", "-n", "5"], &["--duration", "--requests"]),
        (&["-a", "h:1", "-p", "5"], &["--addr", "--port"]),
        (&["--csv", "--json"], &["--csv", "--json"]),
        (&["-t", "set", "--", "PING"], &["--tests", "COMMAND"]),
        (&["--verify", "--", "PING"], &["--verify", "COMMAND"]),
    ] {
        let error = parse(args).expect_err("refused").to_string();
        for word in words {
            assert!(error.contains(word), "{args:?} lacks {word}: {error}");
        }
    }
    for (args, words) in [
        (&["--threads", "3", "-c", "2"][..], "--threads 3 is more than --clients 2"),
        (&["--verify", "-r", "10000001"], "--keyspace 10000001 is more than 10000000"),
        (&["--setup", ""], "--setup \"\" is no command: it is empty"),
        (&["--setup", "PING \"x"], "quotes do not match"),
        (&["-t", "set,nope"], "--tests \"nope\" is no test; the tests are ping_inline, ping_mbulk"),
        (&["-c", "50", "-P", "1000", "-d", "1mb"], "lower --clients, --pipeline or --size"),
    ] {
        let error = run_to(parse(args).expect("parses"), &mut Vec::new()).expect_err("refused");
        assert!(error.to_string().contains(words), "{args:?}: {error}");
    }
}
