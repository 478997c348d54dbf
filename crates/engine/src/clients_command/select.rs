//! CLIENT INFO, LIST and KILL: choosing and showing clients.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use base::number::parse_i64;
use command::{Args, Error, Result, table};

use crate::call::{Call, Handler};
use crate::client::Client;
use crate::execute::Outcome;

pub(crate) const HANDLERS: &[(&str, Handler)] =
    &[("client|info", info), ("client|kill", kill), ("client|list", list)];

/// A class of clients, in the words of TYPE.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Master,
    Replica,
    PubSub,
}

impl Kind {
    fn of(client: &Client) -> Kind {
        if client.is_subscriber() { Kind::PubSub } else { Kind::Normal }
    }

    fn parse(word: &[u8]) -> Result<Kind> {
        match word.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Kind::Normal),
            b"master" => Ok(Kind::Master),
            b"replica" | b"slave" => Ok(Kind::Replica),
            b"pubsub" => Ok(Kind::PubSub),
            _ => {
                let word = String::from_utf8_lossy(word);
                Err(Error::new(format!("ERR Unknown client type '{word}'")))
            }
        }
    }
}

fn info(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let line = describe(&call.session.client, call);
    call.reply.verbatim("txt", &format!("{line}\n"));
    Ok(Outcome::Done)
}

fn list(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let mut args = Args::new(call.args);
    let clients: Vec<Arc<Client>> = if args.is_empty() {
        call.engine.all_clients()
    } else if args.len() == 2 && args.take_word("type") {
        let kind = Kind::parse(args.next()?)?;
        let mut clients = call.engine.all_clients();
        clients.retain(|client| Kind::of(client) == kind);
        clients
    } else if args.len() > 1 && args.take_word("id") {
        let id = |arg: &&[u8]| parse_i64(arg).ok_or(Error::new("ERR Invalid client ID"));
        let ids: Vec<i64> = args.rest().iter().map(id).collect::<Result<_>>()?;
        let client = |id: i64| call.engine.clients.get(u64::try_from(id).ok()?);
        ids.into_iter().filter_map(client).collect()
    } else {
        return Err(Error::SYNTAX);
    };
    let lines: String = clients.iter().map(|client| describe(client, call) + "\n").collect();
    call.reply.verbatim("txt", &lines);
    Ok(Outcome::Done)
}

/// A line of CLIENT LIST. Buffers whose size Redis fixes and Alcid lends only
/// while they are used are shown with what they hold now.
fn describe(client: &Client, call: &Call<'_, '_>) -> String {
    let now_ms = call.now_ms;
    let activity = &client.activity;
    let identity = client.identity.lock().clone();
    let count = |gauge: &AtomicUsize| gauge.load(Ordering::Relaxed);
    let is_me = client.id == call.session.client.id;
    let command = match count(&activity.last_command).checked_sub(1) {
        _ if is_me => &call.command.full_name,
        Some(id) => command_names()[id],
        None => "NULL",
    };
    let arguments = if is_me { bytes_of_words(call) } else { 0 };
    let (input, input_capacity) =
        (count(&activity.query_buffer), count(&activity.query_buffer_capacity));
    let (output, pushes) = (count(&activity.output_buffer), client.outbox.bytes());
    let is_tracking = activity.tracking.load(Ordering::Relaxed);
    let redirect = activity.redirect.load(Ordering::Relaxed);
    // Alcid's own, after all that programs know.
    let travel = match activity.travel.load(Ordering::Relaxed) {
        u64::MAX => String::new(),
        revision => format!(" travel=r:{revision}"),
    };
    format!(
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} \
         qbuf={input} qbuf-free={} argv-mem={arguments} multi-mem={} rbs={output} rbp={output} obl={output} oll={} \
         omem={pushes} tot-mem={} events={} cmd={} user={} redir={} resp={} lib-name={} lib-ver={}{travel}",
        client.id,
        client.addr,
        client.laddr,
        identity.name,
        now_ms.saturating_sub(client.created_ms) / 1000,
        now_ms.saturating_sub(activity.last_interaction_ms.load(Ordering::Relaxed)) / 1000,
        flags(client),
        count(&activity.db),
        count(&activity.subscriptions),
        count(&activity.patterns),
        count(&activity.shard_subscriptions),
        activity.multi.load(Ordering::Relaxed),
        input_capacity.saturating_sub(input),
        count(&activity.multi_bytes),
        client.outbox.len(),
        size_of::<Client>() + input_capacity + output + pushes + count(&activity.multi_bytes),
        if output > 0 { "rw" } else { "r" },
        command,
        identity.user,
        if is_tracking { redirect as i64 } else { -1 },
        if activity.resp3.load(Ordering::Relaxed) { 3 } else { 2 },
        identity.lib_name,
        identity.lib_ver,
    )
}

/// Bytes of the command that asks. Nobody else's is kept while it does not run.
fn bytes_of_words(call: &Call<'_, '_>) -> usize {
    let names = call.command.full_name.replace('|', "").len();
    names + call.args.iter().map(|arg| arg.len()).sum::<usize>()
}

/// Full names of all commands by id.
fn command_names() -> &'static [&'static str] {
    static NAMES: OnceLock<Vec<&str>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let mut names = vec![""; table().id_count()];
        table().all().for_each(|command| names[command.id] = &command.full_name);
        names
    })
}

fn flags(client: &Client) -> String {
    let activity = &client.activity;
    let on = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    let letters = [
        (on(&activity.monitor), 'O'),
        (client.is_subscriber(), 'P'),
        (activity.multi.load(Ordering::Relaxed) >= 0, 'x'),
        (on(&activity.blocked), 'b'),
        (on(&activity.tracking), 't'),
        (on(&activity.redirect_broken), 'R'),
        (on(&activity.tracking_broadcast), 'B'),
        (client.is_killed(), 'A'),
        (on(&activity.no_evict), 'e'),
        (on(&activity.no_touch), 'T'),
        // Alcid's own: CLIENT REPLYREV.
        (on(&activity.shows_revisions), 'v'),
    ];
    let shown: String = letters.iter().filter(|(is_set, _)| *is_set).map(|(_, l)| l).collect();
    if shown.is_empty() { "N".to_owned() } else { shown }
}

/// Whom CLIENT KILL means.
#[derive(Default)]
struct Filter<'a> {
    id: Option<u64>,
    kind: Option<Kind>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    includes_me: bool,
}

impl<'a> Filter<'a> {
    fn parse(args: &'a [&'a [u8]]) -> Result<Filter<'a>> {
        if let [addr] = args {
            // The old form can kill its own client.
            return Ok(Filter { addr: Some(addr), includes_me: true, ..Filter::default() });
        }
        let mut filter = Filter::default();
        let mut args = Args::new(args);
        while !args.is_empty() {
            if args.len() < 2 {
                return Err(Error::SYNTAX);
            }
            if args.take_word("id") {
                let id = parse_i64(args.next()?)
                    .filter(|&id| id > 0)
                    .ok_or(Error::new("ERR client-id should be greater than 0"))?;
                filter.id = Some(id as u64);
            } else if args.take_word("type") {
                filter.kind = Some(Kind::parse(args.next()?)?);
            } else if args.take_word("addr") {
                filter.addr = Some(args.next()?);
            } else if args.take_word("laddr") {
                filter.laddr = Some(args.next()?);
            } else if args.take_word("user") {
                let user = args.next()?;
                if user != b"default" {
                    let user = String::from_utf8_lossy(user);
                    return Err(Error::new(format!("ERR No such user '{user}'")));
                }
                filter.user = Some(user);
            } else if args.take_word("skipme") {
                if args.take_word("yes") {
                    filter.includes_me = false;
                } else if args.take_word("no") {
                    filter.includes_me = true;
                } else {
                    return Err(Error::SYNTAX);
                }
            } else {
                return Err(Error::SYNTAX);
            }
        }
        Ok(filter)
    }

    fn fits(&self, client: &Client, me: u64) -> bool {
        let is = |wanted: Option<&[u8]>, value: &str| wanted.is_none_or(|w| w == value.as_bytes());
        (self.includes_me || client.id != me)
            && self.id.is_none_or(|id| id == client.id)
            && self.kind.is_none_or(|kind| kind == Kind::of(client))
            && is(self.addr, &client.addr)
            && is(self.laddr, &client.laddr)
            && is(self.user, &client.identity.lock().user)
    }
}

fn kill(call: &mut Call<'_, '_>) -> Result<Outcome> {
    let filter = Filter::parse(call.args)?;
    let me = call.session.client.id;
    let chosen: Vec<Arc<Client>> =
        call.engine.all_clients().into_iter().filter(|client| filter.fits(client, me)).collect();
    let others = chosen.iter().filter(|client| client.id != me);
    others.for_each(|client| call.engine.clients.kill(client));
    if call.args.len() > 1 {
        call.reply.count(chosen.len());
    } else if chosen.is_empty() {
        return Err(Error::new("ERR No such client"));
    } else {
        call.reply.ok();
    }
    // The reply is still sent.
    let kills_me = chosen.iter().any(|client| client.id == me);
    Ok(if kills_me { Outcome::Close } else { Outcome::Done })
}
