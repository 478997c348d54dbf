//! One client's connection.

use std::future::{Future, poll_fn};
use std::hint::cold_path;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use base::{Reply, Revision};
use engine::{Blocked, Commit, Engine, Live, Outcome, ReplyMode, Session, WARM_KEYS_MAX};
use resp::{Decoder, Encoder, Limits, Protocol};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::listener::Shutdown;
use crate::scratch;
use crate::unauthenticated::Place;
use crate::uncommitted::Uncommitted;

/// Replies that may gather before they are sent and no further command of the
/// client runs: a client that does not read holds itself up, nobody else.
const REPLY_BYTES_PER_BATCH: usize = 64 * 1024;

/// How long a request may stay incomplete, and how much longer for every KiB of
/// it that has arrived: slow lines may send much, a client that sends a byte
/// now and then holds its place for half a minute.
const PARTIAL_REQUEST: Duration = Duration::from_secs(30);
const PARTIAL_REQUEST_PER_KIB: Duration = Duration::from_secs(1);

/// How long a client may take to authenticate, and how many bytes of replies it
/// may leave unread before it has.
const AUTHENTICATION: Duration = Duration::from_secs(10);
const UNAUTHENTICATED_REPLY_BYTES_MAX: usize = 1024;

/// How long a client may take none of the replies that wait for it when the
/// server ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Fewer requests than this have no waits to overlap.
const WARM_KEYS_MIN: usize = 4;

pub(crate) struct Connection {
    stream: TcpStream,
    engine: Arc<Engine>,
    session: Session,
    live: Arc<Live>,
    live_version: u64,
    decoder: Decoder,
    encoder: Encoder,
    /// The replies in `encoder` that tell of changes which are not committed.
    uncommitted: Uncommitted,
    /// What has arrived of a request that is not complete, or could not run yet.
    input: Vec<u8>,
    shutdown: Shutdown,
    connected: Instant,
    /// When the request that is incomplete began to arrive.
    request_begun: Option<Instant>,
    /// Since when more replies wait than the soft limit allows.
    over_soft_limit: Option<Instant>,
    /// Its place among the clients of its address that have not authenticated.
    place: Option<Place>,
    /// Told of pushes, of a kill and of the server's end. Kept over turns: to
    /// begin and end a wait costs more than to look at it.
    wake: Pin<Box<OwnedNotified>>,
}

/// How things stood before a reply.
struct Mark {
    start: usize,
    /// By replies before it.
    depended_on: Revision,
    last_write: Revision,
}

impl Mark {
    /// To be made before a reply is written; see [`Connection::note_reply`].
    #[inline]
    fn now(encoder: &Encoder, session: &mut Session) -> Mark {
        Mark {
            start: encoder.out.len(),
            depended_on: std::mem::replace(&mut session.depends_on, Revision::ZERO),
            last_write: session.last_write(),
        }
    }
}

/// Why the connection ends.
#[derive(Debug)]
enum End {
    /// The client left, was killed, or said goodbye.
    Closed,
    /// The socket failed.
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Io(error)
    }
}

/// Longest wait of a command that is held back by anything but a pause.
const TRY_AGAIN_MS: u64 = 5;

/// What a turn of reading and running ended with.
enum Turn {
    /// Everything complete was run.
    Done,
    /// Replies must be sent before more is run.
    Full,
    /// A command waits.
    Blocked(Blocked),
    /// Commands are paused until that time, in milliseconds since 1970.
    Paused(u64),
    /// The connection ends once the replies are sent.
    Close,
}

impl Connection {
    pub(crate) fn new(
        stream: TcpStream,
        session: Session,
        engine: Arc<Engine>,
        shutdown: Shutdown,
        place: Option<Place>,
    ) -> Connection {
        let live = engine.live();
        let mut decoder = Decoder::new(limits(&live));
        decoder.set_authenticated(session.authenticated);
        let mut wake = Box::pin(session.client.outbox.wake.clone().notified_owned());
        wake.as_mut().enable();
        Connection {
            wake,
            stream,
            live_version: engine.live_version(),
            live,
            engine,
            session,
            decoder,
            encoder: Encoder::new(Protocol::Resp2),
            uncommitted: Uncommitted::default(),
            input: Vec::new(),
            shutdown,
            connected: Instant::now(),
            request_begun: None,
            over_soft_limit: None,
            place,
        }
    }

    pub(crate) async fn run(mut self) {
        let end = self.serve().await;
        match end {
            Ok(()) | Err(End::Closed) => {}
            Err(End::Io(error)) => {
                tracing::debug!(client = self.session.client.id, %error, "connection lost")
            }
        }
        self.engine.disconnect(&mut self.session);
    }

    async fn serve(&mut self) -> Result<(), End> {
        loop {
            let turn = self.turn().await?;
            self.engine.end_batch(&mut self.session);
            self.flush().await?;
            self.engine.end_turn(&mut self.session);
            match turn {
                Turn::Done => {}
                // What is left of the input runs on without another read.
                Turn::Full => tokio::task::yield_now().await,
                Turn::Close => return Ok(()),
                Turn::Blocked(blocked) => {
                    self.wait_blocked(blocked).await?;
                    self.flush().await?;
                }
                Turn::Paused(until_ms) => self.wait_paused(until_ms).await?,
            }
            if self.session.client.is_killed() {
                return Err(End::Closed);
            }
        }
    }

    /// Runs what is there, or waits for bytes, pushes or the end.
    async fn turn(&mut self) -> Result<Turn, End> {
        if !self.input.is_empty() {
            let turn = self.run_input();
            if !matches!(turn, Turn::Done) {
                return Ok(turn);
            }
            if !self.encoder.out.is_empty() {
                return Ok(Turn::Done);
            }
        }
        if self.shutdown.is_given() {
            return Ok(Turn::Close);
        }
        let patience = self.patience();
        let step = poll_fn(|cx| match self.poll_read_and_run(cx) {
            Poll::Pending => self.poll_wake(cx).map(|()| Ok(Turn::Done)),
            ready => ready,
        });
        let turn = match patience {
            None => step.await,
            Some(until) => match timeout_at(until, step).await {
                Ok(turn) => turn,
                Err(_) => {
                    self.engine.stats.client_timeouts.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(client = self.session.client.id, "closed after its time-out");
                    return Err(End::Closed);
                }
            },
        }?;
        if self.session.client.is_killed() && !matches!(turn, Turn::Close) {
            return Err(End::Closed);
        }
        self.drain_pushes();
        Ok(turn)
    }

    /// Ready once after the client's `wake` was told.
    fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let told = self.wake.as_mut().poll(cx);
        if told.is_ready() {
            self.wake.set(self.session.client.outbox.wake.clone().notified_owned());
            // Whoever tells from now on is heard, though nobody polls yet.
            self.wake.as_mut().enable();
        }
        told
    }

    /// Until when the client has to send something.
    fn patience(&mut self) -> Option<Instant> {
        if !self.session.authenticated {
            return Some(self.connected + AUTHENTICATION);
        }
        if self.decoder.is_mid_request() || !self.input.is_empty() {
            let begun = *self.request_begun.get_or_insert_with(Instant::now);
            let arrived = u32::try_from(self.input.len() / 1024).unwrap_or(u32::MAX);
            return Some(begun + PARTIAL_REQUEST + PARTIAL_REQUEST_PER_KIB * arrived);
        }
        self.request_begun = None;
        let seconds = self.live.settings.timeout_s;
        // Subscribers, watchers and monitors have every reason to be silent.
        let may_be_silent = self.session.is_listening() || self.session.monitoring;
        (seconds > 0 && !may_be_silent).then(|| Instant::now() + Duration::from_secs(seconds))
    }

    /// Reads once and runs what is complete.
    fn poll_read_and_run(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn, End>> {
        if !self.input.is_empty() {
            let read = self.poll_read_more(cx)?;
            return read.map(|()| Ok(self.run_input()));
        }
        scratch::with_read_buffer(|buffer| {
            let mut read = ReadBuf::new(buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result?,
            }
            let bytes = read.filled();
            self.count_input(bytes.len())?;
            let (turn, used) = self.run_bytes(bytes);
            self.input.extend_from_slice(&bytes[used..]);
            self.show_input();
            Poll::Ready(Ok(turn))
        })
    }

    /// Reads more of a request that has begun. Memory grows with the bytes that
    /// have arrived, whatever length was announced.
    fn poll_read_more(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        let missing = self.decoder.bytes_missing(self.input.len());
        let step = missing.clamp(scratch::READ_BYTES, self.input.len().max(scratch::READ_BYTES));
        let before = self.input.len();
        self.input.resize(before + step, 0);
        let mut read = ReadBuf::new(&mut self.input[before..]);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut read);
        let count = read.filled().len();
        self.input.truncate(before + count);
        match polled {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(result) => {
                result?;
                self.count_input(count)?;
                self.show_input();
                Ok(Poll::Ready(()))
            }
        }
    }

    fn count_input(&mut self, count: usize) -> Result<(), End> {
        if count == 0 {
            return Err(End::Closed);
        }
        self.session.client.activity.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
        self.engine.stats.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Runs the complete requests of `self.input`.
    fn run_input(&mut self) -> Turn {
        let input = std::mem::take(&mut self.input);
        let (turn, used) = self.run_bytes(&input);
        self.input = input;
        if used == self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..used);
        }
        self.show_input();
        turn
    }

    /// Tells what the input takes, for CLIENT LIST and the limit on all clients.
    fn show_input(&self) {
        let activity = &self.session.client.activity;
        activity.query_buffer.store(self.input.len(), Ordering::Relaxed);
        activity.query_buffer_capacity.store(self.input.capacity(), Ordering::Relaxed);
    }

    /// Runs the complete requests of `bytes`; answers how many bytes they were.
    fn run_bytes(&mut self, bytes: &[u8]) -> (Turn, usize) {
        self.renew_live();
        scratch::lend_reply_buffer(&mut self.encoder.out);
        self.session.client.activity.query_buffer.store(bytes.len(), Ordering::Relaxed);
        // What was pushed before these requests ran comes before their replies.
        if !self.session.client.outbox.is_empty() {
            self.drain_pushes();
        }
        let (mut used, mut warmed) = (0, 0);
        loop {
            if used >= warmed {
                warmed = used + self.look_ahead(&bytes[used..]);
            }
            let request = match self.decoder.decode(&bytes[used..]) {
                Ok(Some(request)) => request,
                Ok(None) => return (Turn::Done, used),
                Err(error) => {
                    cold_path();
                    tracing::debug!(client = self.session.client.id, %error, "protocol error");
                    self.encoder.error(&error.to_string());
                    return (Turn::Close, bytes.len());
                }
            };
            let consumed = request.consumed;
            self.request_begun = None;
            if request.is_empty() {
                cold_path();
                used += consumed;
                continue;
            }
            let before = self.encoder.out.len();
            let mark = Mark::now(&self.encoder, &mut self.session);
            let outcome = {
                let argv: SmallVec<[&[u8]; 8]> = request.args();
                if resp::is_http_start(argv[0]) {
                    cold_path();
                    tracing::warn!(
                        client = self.session.client.id,
                        addr = %self.session.client.addr,
                        "possible attack: an HTTP client sends commands to the Redis port; closed"
                    );
                    return (Turn::Close, bytes.len());
                }
                self.engine.execute(&mut self.session, &self.live, &argv, &mut self.encoder)
            };
            let is_silent = matches!(self.session.reply_mode, ReplyMode::Off | ReplyMode::Skip);
            if is_silent && !self.session.reply_is_push {
                cold_path();
                self.encoder.out.truncate(before);
            }
            if self.session.shows_revisions() {
                cold_path();
                self.show_revision(before);
            }
            self.note_reply(&mark);
            if let Outcome::Paused(until_ms) = outcome {
                cold_path();
                return (Turn::Paused(until_ms), used);
            }
            used += consumed;
            match outcome {
                Outcome::Done => {}
                Outcome::Close => {
                    cold_path();
                    return (Turn::Close, bytes.len());
                }
                Outcome::Blocked(blocked) => {
                    cold_path();
                    return (Turn::Blocked(blocked), used);
                }
                Outcome::Paused(_) => unreachable!("returned above"),
            }
            self.decoder.set_authenticated(self.session.authenticated);
            if self.session.authenticated {
                self.place = None;
            }
            if !self.session.client.outbox.is_empty() {
                cold_path();
                self.drain_pushes();
            }
            self.renew_live();
            if self.encoder.out.len() >= REPLY_BYTES_PER_BATCH {
                cold_path();
                return (Turn::Full, used);
            }
        }
    }

    /// Takes note of settings that have changed.
    #[inline]
    fn renew_live(&mut self) {
        if self.engine.live_version() != self.live_version {
            cold_path();
            self.live_version = self.engine.live_version();
            self.live = self.engine.live();
            self.decoder.set_limits(limits(&self.live));
        }
    }

    /// Brings the keys of the requests to come near the processor; answers how
    /// many bytes those requests take.
    fn look_ahead(&mut self, bytes: &[u8]) -> usize {
        let mut keys: SmallVec<[&[u8]; WARM_KEYS_MAX]> = SmallVec::new();
        let mut ahead = 0;
        while keys.len() < WARM_KEYS_MAX
            && let Some((key, len)) = resp::peek_second_word(&bytes[ahead..])
        {
            keys.push(key);
            ahead += len;
        }
        if keys.len() >= WARM_KEYS_MIN {
            self.engine.warm(&mut self.session, &keys);
        }
        ahead
    }

    /// Encodes the pushes that wait.
    fn drain_pushes(&mut self) {
        while let Some(pushed) = self.session.client.outbox.pop() {
            // CLIENT REPLY OFF is about replies, which MONITOR's stream is to
            // Redis and a push is not.
            if pushed.is_push() || self.session.reply_mode != ReplyMode::Off {
                pushed.write(&mut self.encoder);
            }
            if self.encoder.out.len() >= 16 * REPLY_BYTES_PER_BATCH {
                break;
            }
        }
    }

    /// Sends the replies, once what they depend on is committed.
    async fn flush(&mut self) -> Result<(), End> {
        loop {
            if self.encoder.out.is_empty() {
                if self.encoder.out.capacity() > 0 {
                    scratch::return_reply_buffer(&mut self.encoder.out);
                }
                self.engine.pushes_sent(&self.session.client, 0);
                if self.session.client.outbox.is_empty() {
                    return Ok(());
                }
                self.drain_pushes();
                continue;
            }
            self.wait_committed().await;
            self.check_output_limit(self.encoder.out.len())?;
            self.write_out().await?;
        }
    }

    /// Waits until the replies may leave. Where what they depend on is not going to
    /// be committed for now, errors take their place.
    async fn wait_committed(&mut self) {
        let revision = std::mem::replace(&mut self.session.depends_on, Revision::ZERO);
        let replicator = &self.engine.replicator;
        if !replicator.is_committed(revision) {
            let mut commits = replicator.commits();
            let is_over = |commit: &Commit| commit.revision >= revision || commit.fault.is_some();
            let fault = match commits.wait_for(is_over).await {
                Ok(commit) if commit.revision >= revision => None,
                Ok(commit) => commit.fault.clone(),
                Err(_) => Some("the log is closed".to_owned()),
            };
            if let Some(fault) = fault {
                let is_committed = |revision| replicator.is_committed(revision);
                self.uncommitted.refuse(&mut self.encoder, is_committed, &fault);
            }
        }
        self.uncommitted.clear();
    }

    /// Notes what the reply that was written since depends on.
    #[inline]
    fn note_reply(&mut self, mark: &Mark) {
        let revision = self.session.depends_on;
        self.session.depends_on = revision.max(mark.depended_on);
        if !self.engine.replicator.is_committed(revision) {
            let end = self.encoder.out.len();
            let is_write = self.session.last_write() > mark.last_write;
            self.uncommitted.note(mark.start..end, revision, is_write);
        }
    }

    /// Checks what waits for the client against the limits of its class: a
    /// subscriber, or anybody else. `unsent` bytes are encoded; the engine sees
    /// to pushes that are not.
    fn check_output_limit(&mut self, unsent: usize) -> Result<(), End> {
        let limits = &self.live.settings.output_buffer_limits;
        let (class, limit) = if self.session.is_subscribed() {
            ("pubsub", limits.pubsub)
        } else {
            ("normal", limits.normal)
        };
        let waiting = unsent as u64;
        let exceeds = |bytes: u64| bytes > 0 && waiting > bytes;
        let reason = if exceeds(limit.hard_bytes) {
            "hard"
        } else if exceeds(limit.soft_bytes) {
            let since = *self.over_soft_limit.get_or_insert_with(Instant::now);
            if since.elapsed() < Duration::from_secs(limit.soft_seconds) {
                return Ok(());
            }
            "soft"
        } else {
            self.over_soft_limit = None;
            return Ok(());
        };
        self.engine.stats.output_buffer_limit_disconnections.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            client = self.session.client.id,
            "closed: {waiting} bytes of replies wait, above the {reason} limit of \
             client-output-buffer-limit {class}"
        );
        Err(End::Closed)
    }

    /// Until when the replies that wait must be taken.
    fn reading_patience(&self) -> Option<Instant> {
        if self.shutdown.is_given() {
            return Some(Instant::now() + LAST_WORDS);
        }
        if !self.session.authenticated {
            return Some(self.connected + AUTHENTICATION);
        }
        let limits = &self.live.settings.output_buffer_limits;
        let limit = if self.session.is_subscribed() { limits.pubsub } else { limits.normal };
        self.over_soft_limit.map(|since| since + Duration::from_secs(limit.soft_seconds))
    }

    async fn write_out(&mut self) -> Result<(), End> {
        let client = self.session.client.clone();
        let mut sent = 0;
        while sent < self.encoder.out.len() {
            match self.stream.try_write(&self.encoder.out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let waiting = self.encoder.out.len() - sent;
                    client.activity.output_buffer.store(waiting, Ordering::Relaxed);
                    self.engine.pushes_sent(&client, waiting);
                    if !self.session.authenticated && waiting > UNAUTHENTICATED_REPLY_BYTES_MAX {
                        tracing::debug!(client = client.id, "closed: it reads no replies");
                        return Err(End::Closed);
                    }
                    self.check_output_limit(waiting)?;
                    let ending = self.shutdown.is_given();
                    let patience = self.reading_patience();
                    let step = poll_fn(|cx| match self.stream.poll_write_ready(cx) {
                        Poll::Pending => self.poll_wake(cx).map(Ok),
                        ready => ready,
                    });
                    tokio::select! {
                        ready = step => ready?,
                        () = sleep_if(patience) => {
                            self.check_output_limit(waiting)?;
                            if ending || !self.session.authenticated {
                                return Err(End::Closed);
                            }
                        }
                    }
                    if client.is_killed() {
                        return Err(End::Closed);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.over_soft_limit = None;
        client.activity.output_buffer.store(0, Ordering::Relaxed);
        self.engine.pushes_sent(&client, 0);
        client.activity.bytes_out.fetch_add(sent as u64, Ordering::Relaxed);
        self.engine.stats.bytes_out.fetch_add(sent as u64, Ordering::Relaxed);
        self.encoder.out.clear();
        Ok(())
    }

    /// Waits for the answer of a blocking command, its deadline or the
    /// connection's end, and goes on delivering pushes meanwhile.
    async fn wait_blocked(&mut self, mut blocked: Blocked) -> Result<(), End> {
        let client = self.session.client.clone();
        let deadline = blocked.deadline_ms.map(|at| self.instant_of(at));
        let answer = loop {
            if self.shutdown.is_given() {
                self.engine.cancel_wait(blocked.id);
                return Err(End::Closed);
            }
            let event = tokio::select! {
                biased;
                answer = &mut blocked.answer => break answer.ok(),
                () = sleep_if(deadline) => Event::Deadline,
                event = poll_fn(|cx| match self.poll_wake(cx) {
                    Poll::Ready(()) => Poll::Ready(Event::Push),
                    Poll::Pending => self.poll_read_ahead(cx).map(|read| match read {
                        Ok(()) => Event::Input,
                        Err(_) => Event::End,
                    }),
                }) => event,
            };
            match event {
                Event::Input => {}
                Event::Push if !client.is_killed() => {
                    self.drain_pushes();
                    self.flush().await?;
                }
                Event::Deadline => {
                    self.engine.time_out(blocked.id);
                    break (&mut blocked.answer).await.ok();
                }
                Event::Push | Event::End => {
                    self.engine.cancel_wait(blocked.id);
                    return Err(End::Closed);
                }
            }
        };
        client.activity.blocked.store(false, Ordering::Relaxed);
        let before = self.encoder.out.len();
        let mark = Mark::now(&self.encoder, &mut self.session);
        self.engine.reply_blocked(
            &mut self.session,
            &mut self.encoder,
            answer.as_ref(),
            &blocked.on_timeout,
        );
        if matches!(self.session.reply_mode, ReplyMode::Off | ReplyMode::Skip) {
            self.encoder.out.truncate(before);
        }
        self.show_revision(before);
        self.note_reply(&mark);
        Ok(())
    }

    /// Puts its revision in front of the reply encoded from `start` on, if there
    /// is one and the client wants that.
    fn show_revision(&mut self, start: usize) {
        let shown = self.session.shown();
        if !shown.is_empty() && self.encoder.out.len() > start {
            self.encoder.put_attributes_before(start, &shown);
        }
    }

    /// Reads what a blocked client sends ahead, so that its end is noticed.
    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let limit = self.live.settings.query_buffer_limit;
        if self.input.len() as u64 > limit {
            self.engine.stats.query_buffer_limit_disconnections.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Err(End::Closed));
        }
        self.poll_read_more(cx)?.map(Ok)
    }

    async fn wait_paused(&mut self, until_ms: u64) -> Result<(), End> {
        let engine = self.engine.clone();
        let mut ended = pin!(engine.pause_ended().notified());
        // From here on an UNPAUSE is not missed; one before shows in the check.
        ended.as_mut().enable();
        let is_paused = engine.is_paused();
        // What is not a pause of clients may tell nobody that it is over.
        let again_ms = engine.clock.now_ms() + TRY_AGAIN_MS;
        let until = self.instant_of(if is_paused { until_ms } else { until_ms.min(again_ms) });
        let client = self.session.client.clone();
        let _held_up = is_paused.then(|| engine.hold_up(client.clone()));
        let mut over = pin!(sleep_until(until));
        loop {
            if self.shutdown.is_given() {
                return Err(End::Closed);
            }
            // Reading ahead notices the client's end.
            let is_woken = tokio::select! {
                () = &mut ended => return Ok(()),
                () = &mut over => return Ok(()),
                woken = poll_fn(|cx| match self.poll_wake(cx) {
                    Poll::Ready(()) => Poll::Ready(Ok(true)),
                    Poll::Pending => self.poll_read_ahead(cx).map_ok(|()| false),
                }) => woken?,
            };
            if is_woken {
                if client.is_killed() {
                    return Err(End::Closed);
                }
                self.drain_pushes();
                self.flush().await?;
            }
        }
    }

    /// When the runtime's clock shows the time `at_ms`.
    fn instant_of(&self, at_ms: u64) -> Instant {
        let now_ms = self.engine.clock.now_ms();
        // A day is checked again long before it is over; no overflow for any
        // deadline.
        let wait_ms = at_ms.saturating_sub(now_ms).min(1 << 40);
        Instant::now() + Duration::from_millis(wait_ms)
    }
}

enum Event {
    Input,
    Push,
    Deadline,
    End,
}

async fn sleep_if(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn limits(live: &Live) -> Limits {
    let settings = &live.settings;
    Limits {
        bulk_len_max: settings.bulk_length_max,
        request_bytes_max: u32::try_from(settings.query_buffer_limit).unwrap_or(u32::MAX),
        ..Limits::default()
    }
}
