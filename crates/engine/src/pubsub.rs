//! Publish and subscribe, and MONITOR's stream, which travels the same way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::{BranchId, Frame, glob};
use command::{Error, Result};
use parking_lot::RwLock;

use crate::call::{Call, Handler, help};
use crate::client::Client;
use crate::engine::Engine;
use crate::execute::Outcome;
use crate::session::Session;

pub(crate) const HANDLERS: &[(&str, Handler)] = &[
    ("subscribe", |call| subscribe(call, Kind::Channel)),
    ("unsubscribe", |call| unsubscribe(call, Kind::Channel)),
    ("psubscribe", |call| subscribe(call, Kind::Pattern)),
    ("punsubscribe", |call| unsubscribe(call, Kind::Pattern)),
    ("ssubscribe", |call| subscribe(call, Kind::Shard)),
    ("sunsubscribe", |call| unsubscribe(call, Kind::Shard)),
    ("publish", publish),
    ("spublish", spublish),
    ("pubsub|channels", channels),
    ("pubsub|numsub", numsub),
    ("pubsub|numpat", numpat),
    ("pubsub|shardchannels", shardchannels),
    ("pubsub|shardnumsub", shardnumsub),
    ("pubsub|help", pubsub_help),
    ("monitor", monitor),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// Who listens to what.
#[derive(Debug, Default)]
pub(crate) struct PubSub {
    channels: RwLock<Listeners>,
    patterns: RwLock<Listeners>,
    shard_channels: RwLock<Listeners>,
    monitors: RwLock<BTreeMap<u64, Arc<Client>>>,
    monitor_count: AtomicUsize,
    /// So that a publish without any pattern skips their lock.
    pattern_count: AtomicUsize,
}

/// Clients by channel, in the order of their ids.
type Listeners = HashMap<Vec<u8>, BTreeMap<u64, Arc<Client>>>;

impl PubSub {
    fn listeners(&self, kind: Kind) -> &RwLock<Listeners> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shard_channels,
        }
    }

    fn add(&self, kind: Kind, name: &[u8], client: &Arc<Client>) {
        let mut listeners = self.listeners(kind).write();
        listeners.entry(name.to_vec()).or_default().insert(client.id, client.clone());
        if kind == Kind::Pattern {
            self.pattern_count.store(listeners.len(), Ordering::Relaxed);
        }
    }

    fn remove(&self, kind: Kind, name: &[u8], client: u64) {
        let mut listeners = self.listeners(kind).write();
        if let Some(clients) = listeners.get_mut(name) {
            clients.remove(&client);
            if clients.is_empty() {
                listeners.remove(name);
            }
        }
        if kind == Kind::Pattern {
            self.pattern_count.store(listeners.len(), Ordering::Relaxed);
        }
    }

    /// Forgets a client that left.
    pub(crate) fn forget(&self, session: &mut Session) {
        let id = session.client.id;
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            for name in std::mem::take(session.names(kind)) {
                self.remove(kind, &name, id);
            }
        }
        session.publish_counts();
        self.unmonitor(id);
    }

    pub(crate) fn unmonitor(&self, client: u64) {
        let mut monitors = self.monitors.write();
        if monitors.remove(&client).is_some() {
            self.monitor_count.store(monitors.len(), Ordering::Relaxed);
        }
    }

    pub(crate) fn has_monitors(&self) -> bool {
        self.monitor_count.load(Ordering::Relaxed) > 0
    }

    /// Visits those who would hear a message on a channel, once for each way
    /// they would hear it.
    pub(crate) fn each_listener(&self, channel: &[u8], visit: &mut dyn FnMut(&Client)) {
        if let Some(clients) = self.channels.read().get(channel) {
            clients.values().for_each(|client| visit(client));
        }
        if self.pattern_count.load(Ordering::Relaxed) > 0 {
            for (pattern, clients) in self.patterns.read().iter() {
                if glob::matches(pattern, channel) {
                    clients.values().for_each(|client| visit(client));
                }
            }
        }
    }

    /// Number of channels, patterns and shard channels with listeners.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.channels.read().len(), self.patterns.read().len(), self.shard_channels.read().len())
    }

    /// Shows a command to those who monitor. Arguments that hold secrets are
    /// the table's business: commands with them are flagged SKIP_MONITOR.
    pub(crate) fn feed_monitors(
        &self,
        engine: &Engine,
        session: &Session,
        argv: &[&[u8]],
        now_us: u64,
    ) {
        let mut line = format!(
            "{}.{:06} [{} {}]",
            now_us / 1_000_000,
            now_us % 1_000_000,
            session.db,
            session.client.addr
        );
        for arg in argv {
            line.push_str(" \"");
            line.push_str(&quoted(arg));
            line.push('"');
        }
        let frame = Arc::new(Frame::Simple(line));
        for monitor in self.monitors.read().values() {
            engine.push(monitor, frame.clone());
        }
    }
}

/// Redis's sdscatrepr without the outer quotes.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'"' => text.push_str("\\\""),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

impl Session {
    fn names(&mut self, kind: Kind) -> &mut std::collections::BTreeSet<Vec<u8>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels,
        }
    }

    fn publish_counts(&self) {
        let activity = &self.client.activity;
        activity.subscriptions.store(self.channels.len(), Ordering::Relaxed);
        activity.patterns.store(self.patterns.len(), Ordering::Relaxed);
        activity.shard_subscriptions.store(self.shard_channels.len(), Ordering::Relaxed);
    }

    /// Subscriptions that the reply of SUBSCRIBE counts.
    fn count_of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.shard_channels.len(),
            _ => self.channels.len() + self.patterns.len(),
        }
    }
}

impl Engine {
    /// Sends a message to a channel's subscribers and to matching patterns';
    /// answers how many messages that makes.
    pub(crate) fn publish(&self, channel: &[u8], message: &[u8]) -> usize {
        self.publish_to(channel, message, |_| true)
    }

    /// As [`Engine::publish`], to those who are on a branch.
    pub(crate) fn publish_on(&self, branch: BranchId, channel: &[u8], message: &[u8]) -> usize {
        self.publish_to(channel, message, |client| {
            client.activity.branch.load(Ordering::Relaxed) == branch.0
        })
    }

    fn publish_to(
        &self,
        channel: &[u8],
        message: &[u8],
        is_meant: impl Fn(&Client) -> bool,
    ) -> usize {
        let mut receivers = 0;
        let mut send = |client: &Arc<Client>, frame: &Arc<Frame>| {
            if is_meant(client) {
                self.push(client, frame.clone());
                receivers += 1;
            }
        };
        if let Some(clients) = self.pubsub.channels.read().get(channel) {
            let frame = message_frame("message", channel, message);
            clients.values().for_each(|client| send(client, &frame));
        }
        if self.pubsub.pattern_count.load(Ordering::Relaxed) > 0 {
            for (pattern, clients) in self.pubsub.patterns.read().iter() {
                if glob::matches(pattern, channel) {
                    let frame = Arc::new(Frame::Push(vec![
                        Frame::bulk("pmessage"),
                        Frame::bulk(pattern),
                        Frame::bulk(channel),
                        Frame::bulk(message),
                    ]));
                    clients.values().for_each(|client| send(client, &frame));
                }
            }
        }
        receivers
    }
}

fn message_frame(kind: &str, channel: &[u8], message: &[u8]) -> Arc<Frame> {
    Arc::new(Frame::Push(vec![Frame::bulk(kind), Frame::bulk(channel), Frame::bulk(message)]))
}

fn confirm(call: &mut Call<'_, '_>, word: &str, name: Option<&[u8]>, count: usize) {
    call.session.reply_is_push = true;
    call.reply.push(3);
    call.reply.bulk(word.as_bytes());
    call.reply.optional_bulk(name);
    call.reply.count(count);
}

fn subscribe(call: &mut Call<'_, '_>, kind: Kind) -> Result<Outcome> {
    let word = match kind {
        Kind::Channel => "subscribe",
        Kind::Pattern => "psubscribe",
        Kind::Shard => "ssubscribe",
    };
    // Inside EXEC a RESP2 client could not tell the messages from the replies.
    if call.open.is_some() && !call.reply.is_resp3() {
        return Err(Error::new(format!(
            "ERR {} isn't allowed in MULTI with RESP2",
            word.to_ascii_uppercase()
        )));
    }
    for name in call.args {
        if call.session.names(kind).insert(name.to_vec()) {
            call.engine.pubsub.add(kind, name, &call.session.client);
        }
        let count = call.session.count_of(kind);
        confirm(call, word, Some(name), count);
    }
    call.session.publish_counts();
    Ok(Outcome::Done)
}

fn unsubscribe(call: &mut Call<'_, '_>, kind: Kind) -> Result<Outcome> {
    let word = match kind {
        Kind::Channel => "unsubscribe",
        Kind::Pattern => "punsubscribe",
        Kind::Shard => "sunsubscribe",
    };
    let names: Vec<Vec<u8>> = if call.args.is_empty() {
        call.session.names(kind).iter().cloned().collect()
    } else {
        call.args.iter().map(|name| name.to_vec()).collect()
    };
    if names.is_empty() {
        let count = call.session.count_of(kind);
        confirm(call, word, None, count);
    }
    for name in names {
        if call.session.names(kind).remove(&name) {
            call.engine.pubsub.remove(kind, &name, call.session.client.id);
        }
        let count = call.session.count_of(kind);
        confirm(call, word, Some(&name), count);
    }
    call.session.publish_counts();
    Ok(Outcome::Done)
}

fn publish(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let receivers = call.engine.publish(call.args[0], call.args[1]);
    call.reply.count(receivers);
    Ok(Outcome::Done)
}

fn spublish(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let (channel, message) = (call.args[0], call.args[1]);
    let mut receivers = 0;
    if let Some(clients) = call.engine.pubsub.shard_channels.read().get(channel) {
        let frame = message_frame("smessage", channel, message);
        clients.values().for_each(|client| call.engine.push(client, frame.clone()));
        receivers = clients.len();
    }
    call.reply.count(receivers);
    Ok(Outcome::Done)
}

fn list_channels(call: &mut Call<'_, '_>, kind: Kind) -> Result<Outcome> {
    let pattern = call.args.first().copied();
    let listeners = call.engine.pubsub.listeners(kind).read();
    let mut names: Vec<&Vec<u8>> =
        listeners.keys().filter(|name| pattern.is_none_or(|p| glob::matches(p, name))).collect();
    names.sort_unstable();
    call.reply.array(names.len());
    names.into_iter().for_each(|name| call.reply.bulk(name));
    Ok(Outcome::Done)
}

fn count_listeners(call: &mut Call<'_, '_>, kind: Kind) -> Result<Outcome> {
    let listeners = call.engine.pubsub.listeners(kind).read();
    call.reply.array(call.args.len() * 2);
    for name in call.args {
        call.reply.bulk(name);
        call.reply.count(listeners.get(*name).map_or(0, BTreeMap::len));
    }
    Ok(Outcome::Done)
}

fn channels(call: &mut Call<'_, '_>) -> Result<Outcome> {
    list_channels(call, Kind::Channel)
}

fn shardchannels(call: &mut Call<'_, '_>) -> Result<Outcome> {
    list_channels(call, Kind::Shard)
}

fn numsub(call: &mut Call<'_, '_>) -> Result<Outcome> {
    count_listeners(call, Kind::Channel)
}

fn shardnumsub(call: &mut Call<'_, '_>) -> Result<Outcome> {
    count_listeners(call, Kind::Shard)
}

fn numpat(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let (_, patterns, _) = call.engine.pubsub.counts();
    call.reply.count(patterns);
    Ok(Outcome::Done)
}

fn pubsub_help(call: &mut Call<'_, '_>) -> Result<Outcome> {
    help(
        call,
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
            "SHARDCHANNELS [<pattern>]",
            "    Return the currently active shard level channels matching a <pattern> (default: '*').",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Return the number of subscribers for the specified shard level channel(s)",
        ],
    )
}

fn monitor(call: &mut Call<'_, '_>) -> Result<Outcome> {
    if !call.session.monitoring {
        call.session.monitoring = true;
        call.session.client.activity.monitor.store(true, Ordering::Relaxed);
        let mut monitors = call.engine.pubsub.monitors.write();
        monitors.insert(call.session.client.id, call.session.client.clone());
        call.engine.pubsub.monitor_count.store(monitors.len(), Ordering::Relaxed);
    }
    call.reply.ok();
    Ok(Outcome::Done)
}
