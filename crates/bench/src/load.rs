//! Driving the connections: one poll loop a thread.

use std::collections::VecDeque;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::{Clock, Frame, SeededRng, SystemClock};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use resp::{ReplyDecoder, ReplyLimits};

use crate::plan::Plan;
use crate::skim::{Skimmed, Skimmer};
use crate::verify::{self, Baseline, Tally};
use crate::workload::{Values, Workload};

const CHUNK_BYTES: usize = 64 * 1024;

/// How often a thread looks whether it should stop, and progress is shown.
const TICK: Duration = Duration::from_millis(200);

/// Runs shorter than this show no progress.
const SILENT_NS: u64 = 1_000_000_000;

/// What a test measured.
#[derive(Debug)]
pub(crate) struct TestResult {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// Answers that were errors.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// From the first request to the last answer.
    pub(crate) elapsed_ns: u64,
    /// Nanoseconds from the start of a batch's sending to each answer.
    pub(crate) latency: Histogram<u64>,
    /// Present with `--verify`.
    pub(crate) tally: Option<Tally>,
}

/// What all threads of a test share.
struct Job<'a> {
    plan: &'a Plan,
    test: &'a Workload,
    values: Values,
    baseline: Baseline,
    answered: AtomicU64,
    stop: AtomicBool,
}

/// Runs one test from preparation to verification.
pub(crate) fn run(plan: &Plan, test: &Workload) -> Result<TestResult> {
    let values = Values::new(plan.size);
    let baseline = verify::prepare(plan, test, &values).context("prepare the data")?;
    let (answered, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let job = Job { plan, test, values, baseline, answered, stop };
    let workers = (0..plan.threads)
        .map(|thread| Worker::new(&job, thread))
        .collect::<Result<Vec<Worker<'_>>>>()?;
    let start_ns = SystemClock.monotonic_ns();
    let outcomes = drive(&job, workers, start_ns)?;
    let end_ns = outcomes.iter().map(|outcome| outcome.end_ns).max().unwrap_or(start_ns);
    let mut result = TestResult {
        requests: 0,
        errors: 0,
        first_error: None,
        elapsed_ns: end_ns.saturating_sub(start_ns).max(1),
        latency: new_histogram()?,
        tally: plan.verify.then(|| Tally::new(plan, test)),
    };
    for outcome in outcomes {
        result.requests += outcome.answered;
        result.errors += outcome.errors;
        result.first_error = result.first_error.or(outcome.first_error);
        result.latency.add(&outcome.latency)?;
        if let (Some(sum), Some(tally)) = (&mut result.tally, outcome.tally) {
            sum.add(tally);
        }
    }
    if let Some(tally) = &mut result.tally {
        verify::finish(plan, test, &job.values, &job.baseline, tally)
            .context("read back the data")?;
    }
    Ok(result)
}

/// One thread a worker, progress meanwhile.
fn drive<'a>(job: &Job<'a>, workers: Vec<Worker<'_>>, start_ns: u64) -> Result<Vec<Outcome>> {
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        let count = workers.len();
        for worker in workers {
            let sender = sender.clone();
            scope.spawn(move || {
                let result = worker.run(start_ns);
                let failed = result.is_err();
                // The receiver outlives every sender. It must get this error
                // before those of the threads that are stopped for it.
                drop(sender.send(result));
                if failed {
                    job.stop.store(true, Ordering::Relaxed);
                }
            });
        }
        drop(sender);
        let mut progress = Progress::new(job, start_ns);
        let mut outcomes = Vec::new();
        let mut failure = None;
        while outcomes.len() < count && failure.is_none() {
            match results.recv_timeout(TICK) {
                Ok(Ok(outcome)) => outcomes.push(outcome),
                Ok(Err(error)) => failure = Some(error),
                Err(RecvTimeoutError::Timeout) => progress.show(),
                Err(RecvTimeoutError::Disconnected) => bail!("a load thread panicked"),
            }
        }
        progress.clear();
        failure.map_or(Ok(outcomes), Err)
    })
}

/// A line on stderr that says how far a long test is.
struct Progress<'a> {
    job: &'a Job<'a>,
    start_ns: u64,
    shown_ns: u64,
    on_terminal: bool,
}

impl<'a> Progress<'a> {
    fn new(job: &'a Job<'a>, start_ns: u64) -> Progress<'a> {
        let on_terminal = std::io::stderr().is_terminal();
        Progress { job, start_ns, shown_ns: start_ns, on_terminal }
    }

    fn show(&mut self) {
        let now_ns = SystemClock.monotonic_ns();
        // A log gets a line a second, a terminal a line that moves.
        let interval_ns = if self.on_terminal { 0 } else { 1_000_000_000 };
        if !self.job.plan.progress
            || now_ns - self.start_ns < SILENT_NS
            || now_ns - self.shown_ns < interval_ns
        {
            return;
        }
        self.shown_ns = now_ns;
        let answered = self.job.answered.load(Ordering::Relaxed);
        let seconds = (now_ns - self.start_ns) as f64 / 1e9;
        let share = match self.job.plan.duration {
            Some(duration) => seconds / duration.as_secs_f64(),
            None => answered as f64 / self.job.plan.requests as f64,
        };
        let line = format!(
            "{}: {:3.0}%, {answered} requests, {:.0} per second",
            self.job.test.title,
            (share * 100.0).min(100.0),
            answered as f64 / seconds
        );
        if self.on_terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{line}") }
    }

    fn clear(&self) {
        if self.on_terminal && self.shown_ns > self.start_ns {
            eprint!("\r\x1b[K");
        }
    }
}

/// What one thread saw.
struct Outcome {
    answered: u64,
    errors: u64,
    first_error: Option<String>,
    latency: Histogram<u64>,
    tally: Option<Tally>,
    end_ns: u64,
}

struct Worker<'a> {
    job: &'a Job<'a>,
    poll: Poll,
    connections: Vec<Connection>,
    rng: SeededRng,
    /// Requests that this thread may still send.
    quota: u64,
    deadline_ns: Option<u64>,
    outcome: Outcome,
}

struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    /// Replies of the current batch that have not come.
    awaited: u32,
    sent_ns: u64,
    /// Start of a reply whose rest has not come.
    partial: Vec<u8>,
    replies: Replies,
}

enum Replies {
    Counted(Skimmer),
    /// With the key numbers of the requests under way, oldest first.
    Judged(ReplyDecoder, VecDeque<u32>),
}

impl<'a> Worker<'a> {
    fn new(job: &'a Job<'a>, thread: u32) -> Result<Worker<'a>> {
        let plan = job.plan;
        let share = |total: u64| {
            let threads = u64::from(plan.threads);
            total / threads + u64::from(u64::from(thread) < total % threads)
        };
        let poll = Poll::new().context("create a poll")?;
        let mut connections = Vec::new();
        for index in 0..share(u64::from(plan.clients)) {
            let stream = plan.connect()?.into_stream();
            stream.set_nonblocking(true).context("make a socket non-blocking")?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry()
                .register(
                    &mut stream,
                    Token(usize::try_from(index)?),
                    Interest::READABLE | Interest::WRITABLE,
                )
                .context("watch a socket")?;
            connections.push(Connection {
                stream,
                out: Vec::new(),
                written: 0,
                awaited: 0,
                sent_ns: 0,
                partial: Vec::new(),
                replies: if plan.verify {
                    let decoder = ReplyDecoder::new(ReplyLimits::default());
                    Replies::Judged(decoder, VecDeque::new())
                } else {
                    Replies::Counted(Skimmer::default())
                },
            });
        }
        Ok(Worker {
            job,
            poll,
            connections,
            rng: SeededRng::new(plan.seed.wrapping_add(u64::from(thread) << 32)),
            quota: if plan.duration.is_some() { u64::MAX } else { share(plan.requests) },
            deadline_ns: None,
            outcome: Outcome {
                answered: 0,
                errors: 0,
                first_error: None,
                latency: new_histogram()?,
                tally: plan.verify.then(|| Tally::new(plan, job.test)),
                end_ns: 0,
            },
        })
    }

    fn run(mut self, start_ns: u64) -> Result<Outcome> {
        let timeout_ns = self.job.plan.timeout.as_nanos() as u64;
        self.deadline_ns =
            self.job.plan.duration.map(|duration| start_ns + duration.as_nanos() as u64);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut events = Events::with_capacity(1024);
        let mut heard_ns = SystemClock.monotonic_ns();
        let mut active = 0u64;
        for index in 0..self.connections.len() {
            active += u64::from(self.send_batch(index)?);
        }
        while active > 0 {
            match self.poll.poll(&mut events, Some(TICK)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.context("wait for sockets")?,
            }
            if self.job.stop.load(Ordering::Relaxed) {
                bail!("stopped because another thread failed");
            }
            let now_ns = SystemClock.monotonic_ns();
            if events.is_empty() {
                ensure!(
                    now_ns - heard_ns < timeout_ns,
                    "the server was silent for {:?} with {} requests unanswered; see --timeout",
                    self.job.plan.timeout,
                    self.connections.iter().map(|c| u64::from(c.awaited)).sum::<u64>()
                );
                continue;
            }
            heard_ns = now_ns;
            for event in &events {
                let index = event.token().0;
                if event.is_writable() {
                    self.connections[index].flush()?;
                }
                if event.is_readable() {
                    active -= u64::from(self.receive(index, &mut chunk)?);
                }
            }
        }
        self.outcome.end_ns = SystemClock.monotonic_ns();
        Ok(self.outcome)
    }

    /// Sends the next batch over a connection that awaits nothing; `false`
    /// when there is nothing left to send.
    fn send_batch(&mut self, index: usize) -> Result<bool> {
        let now_ns = SystemClock.monotonic_ns();
        if self.deadline_ns.is_some_and(|deadline| now_ns >= deadline) {
            return Ok(false);
        }
        let count = self.quota.min(u64::from(self.job.plan.pipeline)) as u32;
        if count == 0 {
            return Ok(false);
        }
        self.quota -= u64::from(count);
        let connection = &mut self.connections[index];
        connection.out.clear();
        connection.written = 0;
        let keys = &mut match &mut connection.replies {
            Replies::Judged(_, keys) => Some(keys),
            Replies::Counted(_) => None,
        };
        for _ in 0..count {
            let keyspace = self.job.plan.keyspace;
            let (request, values) = (&self.job.test.request, &self.job.values);
            request.write(&mut connection.out, &mut self.rng, keyspace, values, |key| {
                if let Some(keys) = keys {
                    keys.push_back(key);
                }
            });
        }
        connection.awaited = count;
        connection.sent_ns = now_ns;
        connection.flush()?;
        Ok(true)
    }

    /// Reads what has come; `true` when the connection is done.
    fn receive(&mut self, index: usize, chunk: &mut [u8]) -> Result<bool> {
        loop {
            let connection = &mut self.connections[index];
            let count = match connection.stream.read(chunk) {
                Ok(0) if connection.awaited == 0 => return Ok(false),
                Ok(0) => bail!(
                    "the server closed a connection with {} requests unanswered",
                    connection.awaited
                ),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("read replies"),
            };
            let batch_is_done = self.take_replies(index, &chunk[..count])?;
            if batch_is_done && !self.send_batch(index)? {
                return Ok(true);
            }
            // A read that does not fill the chunk has emptied the socket, and
            // whatever comes next is a new event.
            if count < chunk.len() {
                return Ok(false);
            }
        }
    }

    /// Accounts for the replies in `bytes`; `true` when the batch is complete.
    fn take_replies(&mut self, index: usize, bytes: &[u8]) -> Result<bool> {
        let connection = &mut self.connections[index];
        let mut partial = std::mem::take(&mut connection.partial);
        let (used, replies);
        if partial.is_empty() {
            (used, replies) = connection.take(bytes, self.job, &mut self.outcome)?;
            partial.extend_from_slice(&bytes[used..]);
        } else {
            partial.extend_from_slice(bytes);
            (used, replies) = connection.take(&partial, self.job, &mut self.outcome)?;
            partial.drain(..used);
        }
        connection.partial = partial;
        ensure!(replies <= connection.awaited, "the server sends more replies than requests");
        if replies == 0 {
            return Ok(false);
        }
        connection.awaited -= replies;
        let latency_ns = SystemClock.monotonic_ns().saturating_sub(connection.sent_ns);
        self.outcome.latency.saturating_record_n(latency_ns, u64::from(replies));
        self.outcome.answered += u64::from(replies);
        self.job.answered.fetch_add(u64::from(replies), Ordering::Relaxed);
        Ok(connection.awaited == 0)
    }
}

impl Connection {
    fn flush(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("send requests"),
            }
        }
        Ok(())
    }

    /// How many of `bytes` are dealt with, and how many replies that were.
    fn take(&mut self, bytes: &[u8], job: &Job<'_>, outcome: &mut Outcome) -> Result<(usize, u32)> {
        let (mut at, mut replies) = (0, 0);
        match &mut self.replies {
            Replies::Counted(skimmer) => loop {
                let (used, end) = skimmer.skim(&bytes[at..])?;
                if end == Some(Skimmed::ErrorReply) {
                    outcome.errors += 1;
                    outcome.first_error.get_or_insert_with(|| first_line(&bytes[at..at + used]));
                }
                at += used;
                match end {
                    None => return Ok((at, replies)),
                    Some(Skimmed::Push) => {}
                    Some(Skimmed::Reply | Skimmed::ErrorReply) => replies += 1,
                }
            },
            Replies::Judged(decoder, keys) => loop {
                let progress = decoder.decode(&bytes[at..])?;
                at += progress.consumed;
                let Some(frame) = progress.frame else { return Ok((at, replies)) };
                if matches!(frame, Frame::Push(_) | Frame::Attribute(_)) {
                    continue;
                }
                replies += 1;
                let count = job.test.request.key_count().min(keys.len());
                let of_request: Vec<u32> = keys.drain(..count).collect();
                match (&frame, &mut outcome.tally) {
                    (Frame::Error(text), _) => {
                        outcome.errors += 1;
                        outcome.first_error.get_or_insert_with(|| text.clone());
                    }
                    (_, Some(tally)) => {
                        tally.judge(job.test, &job.values, &job.baseline, &of_request, &frame);
                    }
                    (_, None) => {}
                }
            },
        }
    }
}

fn first_line(reply: &[u8]) -> String {
    let line = reply.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line.strip_prefix(b"-").unwrap_or(line)).into_owned()
}

/// A hundred nanoseconds to an hour, to three digits.
fn new_histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(100, 3_600_000_000_000, 3)?)
}
