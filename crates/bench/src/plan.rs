//! What is going to run, once every argument is known to be good.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::{Rng, SeededRng};
use client::{Client, Options, Protocol};

use crate::BenchArgs;
use crate::workload::{self, Workload};

/// Request bytes that all connections together may hold.
const IN_FLIGHT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Keys are counted one by one while they are verified.
const VERIFIED_KEYSPACE_MAX: u32 = 10_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Quiet,
    Csv,
    Json,
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) addr: String,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) clients: u32,
    pub(crate) threads: u32,
    /// Requests a test, unless `duration` limits it.
    pub(crate) requests: u64,
    pub(crate) duration: Option<Duration>,
    pub(crate) pipeline: u32,
    pub(crate) keyspace: u32,
    pub(crate) size: usize,
    pub(crate) seed: u64,
    pub(crate) verify: bool,
    pub(crate) timeout: Duration,
    pub(crate) format: Format,
    pub(crate) progress: bool,
    options: Options,
    /// What every connection says first; empty for nothing.
    setup: Vec<Vec<u8>>,
}

impl Plan {
    pub(crate) fn new(args: BenchArgs) -> Result<Plan> {
        let addr = match args.addr {
            Some(addr) => addr,
            None => {
                let host = args.host.as_deref().unwrap_or("127.0.0.1");
                let port = args.port.unwrap_or(6379);
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }
        };
        let (clients, threads) = (args.clients, args.threads);
        ensure!(
            threads <= clients,
            "--threads {threads} is more than --clients {clients}: each thread needs a client"
        );
        ensure!(
            !args.verify || args.keyspace <= VERIFIED_KEYSPACE_MAX,
            "--verify counts each key: --keyspace {} is more than {VERIFIED_KEYSPACE_MAX}",
            args.keyspace
        );
        let size = usize::try_from(args.size)?;
        let workloads = if args.command.is_empty() {
            choose(&args.tests, size)?
        } else {
            vec![workload::custom(&args.command, size)]
        };
        let largest = workloads.iter().map(|test| test.request.len()).max().unwrap_or(0);
        let in_flight = largest as u64 * u64::from(clients) * u64::from(args.pipeline);
        ensure!(
            in_flight <= IN_FLIGHT_BYTES_MAX,
            "{clients} clients with {} requests of {largest} bytes in flight take {in_flight} bytes, \
             more than {IN_FLIGHT_BYTES_MAX}: lower --clients, --pipeline or --size",
            args.pipeline
        );
        let setup = match &args.setup {
            None => Vec::new(),
            Some(line) => match resp::split_args(line.as_bytes()) {
                Some(words) if !words.is_empty() => words,
                _ => {
                    bail!("--setup {line:?} is no command: it is empty or its quotes do not match")
                }
            },
        };
        let timeout = Duration::from_millis(args.timeout);
        let options = Options {
            connect_timeout: timeout,
            reply_timeout: Some(timeout),
            protocol: if args.resp3 { Protocol::Resp3 } else { Protocol::Resp2 },
            user: args.user,
            password: args.password,
            db: args.db,
            ..Options::new(addr.clone())
        };
        Ok(Plan {
            addr,
            workloads,
            clients,
            threads,
            requests: args.requests,
            duration: args.duration.map(Duration::from_millis),
            pipeline: args.pipeline,
            keyspace: args.keyspace,
            size,
            seed: args.seed.unwrap_or_else(|| SeededRng::from_system().next_u64()),
            verify: args.verify,
            timeout,
            format: match (args.quiet, args.csv, args.json) {
                (true, ..) => Format::Quiet,
                (_, true, _) => Format::Csv,
                (.., true) => Format::Json,
                _ => Format::Text,
            },
            progress: args.progress || std::io::stderr().is_terminal(),
            options,
            setup,
        })
    }

    pub(crate) fn connect(&self) -> Result<Client> {
        let mut client = Client::connect(self.options.clone())?;
        if !self.setup.is_empty() {
            client.command(&self.setup).context("run the command of --setup")?;
        }
        Ok(client)
    }

    pub(crate) fn is_resp3(&self) -> bool {
        self.options.protocol == Protocol::Resp3
    }
}

/// The tests with these names, in the order of the table; all for none.
fn choose(names: &[String], size: usize) -> Result<Vec<Workload>> {
    let all = workload::all(size);
    let is_match = |name: &str, test: &Workload| {
        let group = test.name.split('_').next().unwrap_or_default();
        name.eq_ignore_ascii_case(&test.name) || name.eq_ignore_ascii_case(group)
    };
    for name in names {
        if !all.iter().any(|test| is_match(name, test)) {
            let known: Vec<&str> = all.iter().map(|test| test.name.as_str()).collect();
            bail!("--tests {name:?} is no test; the tests are {}", known.join(", "));
        }
    }
    let chosen = |test: &Workload| names.is_empty() || names.iter().any(|n| is_match(n, test));
    Ok(all.into_iter().filter(chosen).collect())
}
