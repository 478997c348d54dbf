//! The golden scripts on the bare engine: no socket, no log, a clock that only
//! the scripts move.

#[path = "harness/past.rs"]
mod past;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base::{Clock, Frame, FrameBuilder, ManualClock};
use command::{Command, Run, table};
use engine::{Blocked, Engine, Hooks, Identity, NoLog, Outcome, Replicator, ReplyMode, Session};
use keyspace::Keyspace;
use settings::Settings;
use testkit::{After, Protocol, Target, as_seen_by_client, try_run_dir};

/// Families whose scripts are about data alone: every command of theirs runs
/// inside the engine.
const DATA: &[&str] = &["strings", "hashes", "lists", "sets", "zsets", "generic", "expire"];

/// Families about sessions and the server, which the engine runs as well.
const SESSIONS: &[&str] = &["connection", "transactions", "pubsub", "server"];

/// Families that look back, on an engine with a past in memory.
const PAST: &[&str] = &["history"];

/// Families that need a log, or a clock that goes by itself: only the server as
/// a process runs them.
const PROCESS: &[&str] = &["process", "branches"];

/// An engine with named sessions.
struct EngineTarget {
    engine: Arc<Engine>,
    clock: Arc<ManualClock>,
    clients: BTreeMap<String, Client>,
}

struct Client {
    session: Session,
    protocol: Protocol,
    blocked: Option<Blocked>,
    /// What [`Target::next`] answers first: replies that came with another frame.
    ready: VecDeque<Frame>,
    is_closed: bool,
}

impl EngineTarget {
    fn new() -> EngineTarget {
        EngineTarget::with(Arc::new(NoLog::default()))
    }

    fn with_past() -> EngineTarget {
        let past = past::MemoryPast::new();
        let mut target = EngineTarget::with(past.clone());
        target.engine.attach_past(past);
        // Revision 1 is the one that a target over a socket begins with.
        target.exec("", &[b"FLUSHALL".to_vec()]).expect("it needs no other client");
        target
    }

    fn with(replicator: Arc<dyn Replicator>) -> EngineTarget {
        // A time of day like any other; deadlines in scripts are far from it.
        let clock = Arc::new(ManualClock::at_ms(1_700_000_000_000));
        let engine = Engine::new(
            Keyspace::new(16, 1),
            replicator,
            clock.clone(),
            1,
            Settings::default(),
            Identity::default(),
            Hooks::default(),
        );
        EngineTarget { engine: Arc::new(engine), clock, clients: BTreeMap::new() }
    }

    fn client(&mut self, name: &str) -> io::Result<&mut Client> {
        let unknown = || io::Error::other(format!("no client is named \"{name}\""));
        self.clients.get_mut(name).ok_or_else(unknown)
    }

    fn open(&mut self, name: &str) -> &mut Client {
        let engine = &self.engine;
        let client = self.clients.entry(name.to_owned()).or_insert_with(|| Client {
            session: engine.connect("script".to_owned(), "engine".to_owned(), Arc::default()),
            protocol: Protocol::Resp2,
            blocked: None,
            ready: VecDeque::new(),
            is_closed: false,
        });
        if client.is_closed {
            client.session =
                engine.connect("script".to_owned(), "engine".to_owned(), Arc::default());
            (client.protocol, client.is_closed) = (Protocol::Resp2, false);
        }
        client
    }

    /// Ends the waits whose time is over.
    fn end_waits(&mut self) {
        let now_ms = self.clock.now_ms();
        for client in self.clients.values_mut() {
            let Some(blocked) = &client.blocked else { continue };
            if blocked.deadline_ms.is_some_and(|at| at <= now_ms) {
                // An answer that is there already is kept for `next`.
                self.engine.cancel_wait(blocked.id);
            }
        }
    }
}

impl Client {
    fn end_wait(&mut self, engine: &Engine, answer: Option<&engine::Answer>) -> Frame {
        let blocked = self.blocked.take().expect("the client waits");
        self.session.client.activity.blocked.store(false, Ordering::Relaxed);
        let mut sink = FrameBuilder::new(self.protocol == Protocol::Resp3);
        engine.reply_blocked(&mut self.session, &mut sink, answer, &blocked.on_timeout);
        let frame = sink.finish().pop().expect("a wait ends with a reply");
        let frame = as_seen_by_client(&frame, self.protocol);
        match self.revision() {
            Some(attribute) => {
                self.ready.push_back(frame);
                attribute
            }
            None => frame,
        }
    }

    /// What a front-end puts in front of the last reply.
    fn revision(&self) -> Option<Frame> {
        let shown = self.session.shown();
        let pair = |(name, value)| (Frame::bulk(name), Frame::Integer(value));
        (!shown.is_empty()).then(|| Frame::Attribute(shown.into_iter().map(pair).collect()))
    }
}

impl Target for EngineTarget {
    fn exec(&mut self, name: &str, args: &[Vec<u8>]) -> io::Result<testkit::Outcome> {
        let engine = self.engine.clone();
        let (live, now_ms) = (engine.live(), self.clock.now_ms());
        let client = self.open(name);
        if client.blocked.is_some() {
            let advice = format!("client \"{name}\" still waits for a reply: use !await first");
            return Err(io::Error::other(advice));
        }
        let argv: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let before = client.protocol;
        let mut sink = FrameBuilder::new(before == Protocol::Resp3);
        let outcome = engine.execute(&mut client.session, &live, &argv, &mut sink);
        engine.end_batch(&mut client.session);
        let is_resp3 = client.session.client.activity.resp3.load(Ordering::Relaxed);
        client.protocol = if is_resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
        let is_silent = matches!(client.session.reply_mode, ReplyMode::Off | ReplyMode::Skip);
        let protocol = client.protocol;
        let mut replies: Vec<Frame> =
            sink.finish().iter().map(|frame| as_seen_by_client(frame, protocol)).collect();
        if is_silent {
            replies.clear();
        }
        if !replies.is_empty() {
            replies.splice(0..0, client.revision());
        }
        let after = match outcome {
            Outcome::Done => After::Open,
            Outcome::Close => {
                engine.disconnect(&mut client.session);
                client.is_closed = true;
                After::Closed
            }
            Outcome::Blocked(blocked) if blocked.deadline_ms.is_some_and(|at| at <= now_ms) => {
                // DEBUG SLEEP 0: over before anybody could look.
                engine.cancel_wait(blocked.id);
                client.blocked = Some(blocked);
                replies.push(client.end_wait(&engine, None));
                replies.extend(client.ready.pop_front());
                After::Open
            }
            Outcome::Blocked(blocked) => {
                client.blocked = Some(blocked);
                After::Blocked
            }
            Outcome::Paused(until_ms) => {
                let what = format!("commands are paused until {until_ms}");
                return Err(io::Error::other(what));
            }
        };
        Ok(testkit::Outcome { replies, after })
    }

    fn next(&mut self, name: &str) -> io::Result<Frame> {
        let engine = self.engine.clone();
        let clock = self.clock.clone();
        let client = self.client(name)?;
        if let Some(reply) = client.ready.pop_front() {
            return Ok(reply);
        }
        if let Some(pushed) = client.session.client.outbox.pop() {
            let mut frames = FrameBuilder::new(true);
            pushed.write(&mut frames);
            engine.pushes_sent(&client.session.client, 0);
            let seen = frames.finish().into_iter();
            client.ready.extend(seen.map(|push| as_seen_by_client(&push, client.protocol)));
        }
        if let Some(push) = client.ready.pop_front() {
            return Ok(push);
        }
        let Some(blocked) = &mut client.blocked else {
            return Err(io::Error::other("nothing has come and nothing is awaited"));
        };
        if let Ok(answer) = blocked.answer.try_recv() {
            return Ok(client.end_wait(&engine, Some(&answer)));
        }
        // Nothing else can come: time goes on to the end of the wait.
        let Some(at_ms) = blocked.deadline_ms else {
            return Err(io::Error::other("the client waits for ever"));
        };
        clock.advance_ms(at_ms.saturating_sub(clock.now_ms()));
        engine.cancel_wait(blocked.id);
        Ok(client.end_wait(&engine, None))
    }

    fn is_blocked(&mut self, name: &str) -> io::Result<bool> {
        let client = self.client(name)?;
        Ok(match &mut client.blocked {
            Some(blocked) => blocked.answer.is_empty() && !blocked.answer.is_terminated(),
            None => false,
        })
    }

    fn is_quiet(&mut self, name: &str) -> io::Result<bool> {
        let client = self.client(name)?;
        let answered = client.blocked.as_ref().is_some_and(|blocked| !blocked.answer.is_empty());
        let is_empty = client.ready.is_empty() && client.session.client.outbox.is_empty();
        Ok(is_empty && !answered)
    }

    fn has_manual_clock(&self) -> bool {
        true
    }

    fn advance_ms(&mut self, ms: u64) -> io::Result<()> {
        self.clock.advance_ms(ms);
        self.engine.expire_cycle(1_000_000);
        self.end_waits();
        Ok(())
    }
}

fn run(families: &[&str], make: fn() -> EngineTarget) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/scripts");
    let mut failures = String::new();
    for family in families {
        match try_run_dir(scripts.join(family), &mut || Ok(make())) {
            Ok(summary) => assert_eq!(summary.skipped, 0, "{family}: the clock can be moved"),
            Err(text) => failures.push_str(&text),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn scripts_about_data() {
    run(DATA, EngineTarget::new);
}

#[test]
fn scripts_about_sessions() {
    run(SESSIONS, EngineTarget::new);
}

#[test]
fn scripts_about_the_past() {
    run(PAST, EngineTarget::with_past);
}

/// Commands whose every call ends the server or needs a log on disk; the tests
/// of the binary have them.
const ELSEWHERE: &[&str] = &["debug|panic", "debug|reload"];

/// Every command about sessions or the server is in a script of any name.
#[test]
fn every_other_command_is_in_a_script() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/scripts");
    let mut calls = String::new();
    for family in SESSIONS.iter().chain(PAST).chain(PROCESS) {
        for file in std::fs::read_dir(scripts.join(family)).expect("the scripts are here") {
            let text = std::fs::read_to_string(file.expect("readable").path()).expect("UTF-8");
            for line in text.lines() {
                if let Some((_, call)) = line.split_once("> ") {
                    calls.push_str(&format!("{} \n", call.to_ascii_lowercase()));
                }
            }
        }
    }
    let missing: Vec<&str> = command::table()
        .all()
        .filter(|command| matches!(command.spec.run, command::Run::Engine))
        .map(|command| command.full_name.as_str())
        .filter(|name| !ELSEWHERE.contains(name))
        .filter(|name| !calls.contains(&format!("{} ", name.replace('|', " "))))
        .collect();
    assert!(missing.is_empty(), "in no script: {missing:?}");
}

/// A command without a script has replies that nobody has looked at.
#[test]
fn every_data_command_has_a_script() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/scripts");
    for command in table().commands() {
        let on_data = |command: &Command| matches!(command.spec.run, Run::Data(_));
        let subs = &command.subcommands;
        let is_container_of_data = !subs.is_empty() && subs.iter().all(on_data);
        if !(on_data(command) || is_container_of_data) {
            continue;
        }
        let file = format!("{}.txt", command.spec.name);
        assert!(
            DATA.iter().any(|family| scripts.join(family).join(&file).is_file()),
            "{} has no script {file} in a folder of testkit/scripts",
            command.spec.name
        );
    }
}

#[test]
fn every_folder_of_scripts_is_run_or_left_out_on_purpose() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/scripts");
    for folder in std::fs::read_dir(scripts).expect("the scripts are here") {
        let name = folder.expect("readable").file_name().into_string().expect("an ASCII name");
        assert!(
            [DATA, SESSIONS, PAST, PROCESS]
                .iter()
                .any(|families| families.contains(&name.as_str())),
            "the folder {name} is in no list of tests/golden.rs"
        );
    }
}
